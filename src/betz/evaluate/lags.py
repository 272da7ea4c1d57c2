"""How long before (or after) the behavior do the spikes say most about it: ridge R² at single lags.

A lag is positive where spikes come earlier than the behavior, as they do in motor cortex (by some 50 to 200 ms for
velocity). A best lag outside of 0 … 300 ms points to clocks that do not agree, stamps of bin ends taken for starts, a
filter's delay, or behavior that was smoothed ahead in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.session import BehaviorDim, Session
from betz.data.importers.checks import groups, is_instruction
from betz.decode.closed_form import Statistics, ridge, squared_error
from betz.decode.features import Float, Scaler

FROM_MS, TO_MS = -500.0, 800.0
PLAUSIBLE_MS = (0.0, 300.0)
COARSE_MS = 40.0
"""Narrower bins are merged to about this width: lags need not be finer."""
FOLDS = 8
STRENGTH = 0.1
LEAST_BINS, LEAST_S = 200, 30.0
LEAST_R2 = 0.03
"""Below this nothing is decoded, so there is no best lag."""
SURE_T = 3.0
"""A best lag outside of the plausible ones must win by this many standard errors over folds."""


@dataclass(frozen=True, eq=False)
class LagCurve:
    """R² of one group of behavior against the lag.

    Args:
        group: name of the group, e.g. ``"hand velocity"``.
        dims: names of its dimensions; constant ones are not among them.
        lag_ms: (L,) ascending, positive = spikes earlier than behavior.
        r2: (L,) cross-validated, the mean over dimensions in units of each one's variance; NaN where trials are short.
        surplus: how much better the best implausible lag is than the best plausible one, as R², and how many
            standard errors over folds that is; negative where the best lag is plausible.
        delay_ms: largest group delay of the dimensions, which is part of the lag.
        instruction: whether the group is what the task showed, which may well come before or after.
        bins: how many bins it stands on at lag 0.
    """

    group: str
    dims: tuple[str, ...]
    lag_ms: Float
    r2: Float
    surplus: tuple[float, float]
    delay_ms: float
    instruction: bool
    bins: int

    @property
    def best(self) -> int:
        """Index of the best lag."""
        return int(np.nan_to_num(self.r2, nan=-np.inf).argmax())

    @property
    def best_ms(self) -> float:
        """The best lag."""
        return float(self.lag_ms[self.best])

    @property
    def best_r2(self) -> float:
        """R² there."""
        return float(self.r2[self.best])


def sweep(session: Session, dims: Sequence[BehaviorDim], values_NK: Float) -> tuple[list[LagCurve], list[str]]:
    """R² against the lag for each group of continuous dimensions.

    Args:
        session: any.
        dims, values_NK: its behavior in its bins.

    Returns:
        The curves, and why there is none of a group.
    """
    factor = max(1, round(COARSE_MS / session.bin_ms))
    x_NC, y_NK, piece_N = _coarse(session, values_NK, factor)
    usable_N = piece_N >= 0
    bin_ms = session.bin_ms * factor
    if not usable_N.any() or not np.any(np.ptp(x_NC[usable_N], axis=0) > 0):
        return [], ["no lag sweep: no channel varies"]
    lags = np.arange(int(np.ceil(FROM_MS / bin_ms)), int(np.floor(TO_MS / bin_ms)) + 1)
    sweeper = _Sweeper(Scaler.fit(x_NC[usable_N], session.channels).apply(x_NC), piece_N, lags)
    alike: dict[bytes, dict[str, list[int]]] = {}
    reasons = []
    for name, columns in _groups(dims).items():
        known_N = usable_N & np.isfinite(y_NK[:, columns]).all(axis=1)
        varying = [k for k in columns if known_N.any() and np.ptp(y_NK[known_N, k]) > 0]
        seconds = known_N.sum() * bin_ms / 1000
        if seconds < LEAST_S or known_N.sum() < LEAST_BINS:
            reasons.append(f"no lag sweep of {name}: {seconds:.0f} s with labels are too few")
        elif not varying:
            reasons.append(f"no lag sweep of {name}: it is constant")
        else:
            alike.setdefault(known_N.tobytes(), {})[name] = varying
    curves = {}
    for mask, members in alike.items():  # groups that are known in the same bins share everything but their columns
        known_N = np.frombuffer(mask, dtype=bool)
        every = [k for columns in members.values() for k in columns]
        error_FLK, variance_FLK = sweeper.errors(y_NK[:, every], known_N)
        for name, columns in members.items():
            at = [every.index(k) for k in columns]
            error_FL, variance_FL = error_FLK[:, :, at].sum(axis=2), variance_FLK[:, :, at].sum(axis=2)
            chosen = [dims[k] for k in columns]
            curves[name] = _curve(name, chosen, lags * bin_ms, error_FL, variance_FL, int(known_N.sum()))
    return [curves[name] for name in _groups(dims) if name in curves], reasons


def _groups(dims: Sequence[BehaviorDim]) -> dict[str, list[int]]:
    """Columns by group; dimensions of one group with several units are groups of their own."""
    found = {}
    for name, columns in groups(dims).items():
        units = list(dict.fromkeys(dims[k].unit for k in columns))
        for unit in units:
            key = name if unit == units[0] else f"{name} ({unit})"
            found[key] = [k for k in columns if dims[k].unit == unit]
    return found


def _curve(
    name: str,
    dims: Sequence[BehaviorDim],
    lag_ms: NDArray[np.floating[Any]],
    error_FL: Float,
    variance_FL: Float,
    bins: int,
) -> LagCurve:
    low, high = PLAUSIBLE_MS
    there_FL = variance_FL > 0  # short trials have no pairs of bins that are far apart
    share_FL = np.divide(error_FL, variance_FL, out=np.full_like(error_FL, np.nan), where=there_FL)
    whole_L = np.asarray(there_FL.all(axis=0))
    r2_L = np.full(len(lag_ms), np.nan)
    r2_L[whole_L] = 1 - error_FL.sum(axis=0)[whole_L] / variance_FL.sum(axis=0)[whole_L]
    plausible = (lag_ms >= low) & (lag_ms <= high)
    inside, outside = (int(np.where(which & whole_L, r2_L, -np.inf).argmax()) for which in (plausible, ~plausible))
    gain_F = share_FL[:, inside] - share_FL[:, outside]
    deviation = float(gain_F.std(ddof=1)) / np.sqrt(len(gain_F))
    surplus = (float(r2_L[outside] - r2_L[inside]), float(gain_F.mean()) / max(deviation, 1e-12))
    return LagCurve(
        group=name,
        dims=tuple(d.name for d in dims),
        lag_ms=np.asarray(lag_ms, dtype=np.float64),
        r2=r2_L,
        surplus=surplus if whole_L[inside] and whole_L[outside] else (float("-inf"), 0.0),
        delay_ms=max(0.0 if d.derivation is None else d.derivation.group_delay_ms for d in dims),
        instruction=is_instruction(name),
        bins=bins,
    )


class _Sweeper:
    """Ridge at every lag; the Gram matrix of all bins is computed once, and what a lag cannot use is taken off."""

    def __init__(self, z_NC: Float, piece_N: NDArray[np.int64], lags: NDArray[np.int64]) -> None:
        self.z_NC = np.where(piece_N[:, None] >= 0, z_NC, 0.0)
        self.piece_N, self.lags = piece_N, lags
        usable = np.flatnonzero(piece_N >= 0)
        inner = usable[np.rint(np.linspace(0, len(usable), FOLDS + 1)).astype(int)[1:-1]]
        self.folds = [slice(a, b) for a, b in pairwise([0, *inner.tolist(), len(z_NC)])]
        self.grams = [self.z_NC[rows].T @ self.z_NC[rows] for rows in self.folds]

    def errors(self, y_NK: Float, known_N: NDArray[np.bool_]) -> tuple[Float, Float]:
        """(F, L, K) squared error on the held-out folds, and the variance there, in units of each dimension's own."""
        y_NK = np.where(known_N[:, None], y_NK, np.nan)
        y_NK = np.nan_to_num((y_NK - np.nanmean(y_NK, axis=0)) / np.nanstd(y_NK, axis=0))
        error_FLK, variance_FLK = np.zeros((2, FOLDS, len(self.lags), y_NK.shape[1]))
        for at, lag in enumerate(self.lags):
            parts = self._statistics(y_NK, known_N, int(lag))
            total = sum(parts[1:], parts[0])
            for f, part in enumerate(parts):
                if 0 < part.number < total.number:
                    error_FLK[f, at] = squared_error(part, *ridge(total - part, STRENGTH))
                    variance_FLK[f, at] = part.square_y - part.sum_y**2 / part.number
        return error_FLK, variance_FLK

    def _statistics(self, y_NK: Float, known_N: NDArray[np.bool_], lag: int) -> list[Statistics]:
        """Of behavior at t + lag on signals at t, by fold of t; a pair lies in one piece."""
        rows_N = np.arange(len(self.piece_N)) + lag
        target_N = np.clip(rows_N, 0, len(rows_N) - 1)
        pair_N = np.asarray((rows_N == target_N) & known_N[target_N] & (self.piece_N == self.piece_N[target_N]))
        later_NK = np.where(pair_N[:, None], y_NK[target_N], 0.0)
        parts = []
        for f, rows in enumerate(self.folds):
            z, y, pair = self.z_NC[rows], later_NK[rows], pair_N[rows]
            number = int(pair.sum())
            gram = z[pair].T @ z[pair] if 2 * number < len(z) else self.grams[f] - z[~pair].T @ z[~pair]
            sum_x = pair.astype(np.float64) @ z
            parts.append(Statistics(gram, z.T @ y, sum_x, y.sum(axis=0), (y**2).sum(axis=0), number))
        return parts


def _coarse(session: Session, values_NK: Float, factor: int) -> tuple[Float, Float, NDArray[np.int64]]:
    """Summed signals, mean behavior, and the number of the piece (−1: none) of every ``factor`` bins."""
    piece_N = np.full(session.num_bins, -1, dtype=np.int64)
    for number, (first, end) in enumerate(session.segments):
        piece_N[first:end] = number
    whole = session.num_bins // factor
    pieces = piece_N[: whole * factor].reshape(whole, factor)
    piece_M = np.where((pieces == pieces[:, :1]).all(axis=1), pieces[:, 0], -1)
    signals = session.signals[: whole * factor].reshape(whole, factor, len(session.channels))
    behavior = values_NK[: whole * factor].reshape(whole, factor, values_NK.shape[1])
    return signals.sum(axis=1, dtype=np.float64), behavior.mean(axis=1), piece_M
