"""The gate: a mix of decoders, fitted on predictions of held-out blocks of the calibration, pulled to prior weights.

With weights w that sum to one, 1 − R² = wᵀEw, where E holds the mixed second moments of the members' held-out errors.
Picking the best member by cross-validation is worse: half a minute says little about each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

PULL = 0.1
"""Strength of the pull to the prior, divided by minutes."""
LEAST = 0.02
"""Smaller weights are dropped, and the others scaled up."""


@dataclass(frozen=True, eq=False)
class Prior:
    """Weights that members have before anything is known of a session.

    Args:
        scores: by member, (level, slope per doubling of minutes) of the logarithm of its weight, at two minutes.
        pull: strength, divided by minutes.
    """

    scores: Mapping[str, tuple[float, float]]
    pull: float = PULL

    def weights(self, members: Sequence[str], minutes: float) -> Float:
        """(M,) for the members there are; members it does not know get the mean level."""
        known = [self.scores[m] for m in members if m in self.scores]
        default = tuple(np.mean(known, axis=0)) if known else (0.0, 0.0)
        doublings = np.log2(max(minutes, 0.1) / 2)
        level = np.array([a + b * doublings for a, b in (self.scores.get(m, default) for m in members)])
        weight = np.exp(level - level.max())
        return np.asarray(weight / weight.sum())


@dataclass(frozen=True, eq=False)
class Expectation:
    """R² to expect on the coming minutes, from the held-out R² of the mix; learned on sessions no network has seen.

    Args:
        level, slope, doubling: expected R² = level + slope · held-out R² + doubling · log₂(minutes / 2).
        low, high: 5 and 95 % quantiles of what was achieved less what was expected.
    """

    level: float
    slope: float
    doubling: float
    low: float
    high: float

    def interval(self, held_out_r2: float, minutes: float) -> tuple[float, float, float]:
        """Expected R² and the 90 % interval; at most 1."""
        found = self.level + self.slope * held_out_r2 + self.doubling * float(np.log2(max(minutes, 0.1) / 2))
        return min(found, 1.0), min(found + self.low, 1.0), min(found + self.high, 1.0)


def error_moments(errors_NMK: Float, variance_K: Float) -> Float:
    """(M, M) mixed second moments of the members' errors, as a share of the behavior's variance."""
    scaled = errors_NMK / np.sqrt(variance_K.sum())
    flat = scaled.transpose(1, 0, 2).reshape(errors_NMK.shape[1], -1)
    return np.asarray(flat @ flat.T / len(errors_NMK))


def mix(moments: Float, prior: Float, pull: float) -> Float:
    """Weights w ≥ 0 with sum 1 that minimise wᵀEw + pull · |w − prior|², by accelerated projected gradients."""
    matrix = moments + pull * np.eye(len(prior))
    step = 1 / (np.linalg.eigvalsh(matrix)[-1] + 1e-12)
    w = ahead = prior.copy()
    momentum = 1.0
    for _ in range(2000):
        new = _project(ahead - step * (matrix @ ahead - pull * prior))
        after = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = new + (momentum - 1) / after * (new - w)
        moved = np.abs(new - w).max()
        w, momentum = new, after
        if moved < 1e-9:
            break
    return np.asarray(w)


def pruned(weights: Float, least: float = LEAST) -> Float:
    """Weights below ``least`` set to zero, the others scaled to sum to one; the largest always stays."""
    kept = np.where((weights >= least) | (weights == weights.max()), weights, 0)
    return np.asarray(kept / kept.sum())


def _project(v: Float) -> Float:
    """The nearest point with non-negative entries that sum to one (Duchi et al. 2008)."""
    ordered = np.sort(v)[::-1]
    excess = np.cumsum(ordered) - 1
    last = np.flatnonzero(ordered - excess / np.arange(1, len(v) + 1) > 0)[-1]
    return np.asarray(np.maximum(v - excess[last] / (last + 1), 0))
