"""Fitting and choosing linear classifiers inside the calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from betz.core.session import BehaviorDim, Session
from betz.decode.baselines.wiener import FINEST_LAG_MS, levels
from betz.decode.closed_form import Lagged, Segments, Statistics, blocks, lag_statistics
from betz.decode.features import Float, decay
from betz.decode.labels import inside

MAX_STEPS, MAX_CONJUGATE, FORCING, TRIFLE = 50, 60, 1e-2, 1e-9
ROUGH = 1e-6
"""Tolerance inside the cross-validation."""
LEAST_PROBABILITY = 1e-6
"""In the cross-validated log loss: a class that a fold has never seen must not cost infinitely much."""


@dataclass(frozen=True)
class Choice:
    """Settings of one dimension: time constant of the filter, number of lags, shrink or ridge."""

    tau_ms: float
    lags: int
    strength: float


def fit_lda(stats: Statistics, *, shrink: float, equal: bool) -> tuple[Float, Float]:
    """Discriminants from the statistics of features and class indicators.

    Args:
        stats: y is 1 in the column of the bin's class, else 0.
        shrink: the covariance within classes becomes (1 − shrink) S + shrink · (mean variance) · I.
        equal: equal priors instead of the classes' shares.

    Returns:
        Weights (F, K) and offsets (K,): log posterior up to a constant; 0 and −inf for a class without bins.
    """
    count = stats.sum_y
    seen = count > 0
    mean_FK = stats.cross / np.where(seen, count, 1)
    within = (stats.gram - (mean_FK * count) @ mean_FK.T) / stats.number
    within = (1 - shrink) * within + shrink * np.trace(within) / len(within) * np.eye(len(within))
    weights_FK = np.linalg.solve(within, mean_FK)
    prior = np.where(seen, 1 / seen.sum() if equal else count / stats.number, 1)
    offset_K = -0.5 * np.einsum("fk,fk->k", mean_FK, weights_FK) + np.log(prior)
    return np.where(seen, weights_FK, 0.0), np.where(seen, offset_K, -np.inf)


def fit_logistic(
    x_NF: Float,
    onehot_NK: Float,
    *,
    strength: float,
    equal: bool,
    start: tuple[Float, Float] | None = None,
    tolerance: float = 1e-16,
) -> tuple[Float, Float]:
    """Weights (F, K) and offsets (K,) that minimise mean log loss + strength / 2 · |weights|², by Newton's method.

    Args:
        x_NF: features.
        onehot_NK: 1 in the column of the bin's class, else 0.
        strength: of the ridge; offsets are free.
        equal: every class weighs the same, instead of every bin.
        start: where to begin.
        tolerance: stop when a Newton step would lower the loss by less than half of this.

    Returns:
        As of :func:`fit_lda`.
    """
    count = onehot_NK.sum(axis=0)
    seen = count > 0
    onehot, kinds = onehot_NK[:, seen], int(seen.sum())
    weight_N = onehot @ (len(x_NF) / (kinds * count[seen])) if equal else np.ones(len(x_NF))
    x = np.concatenate((x_NF, np.ones((len(x_NF), 1))), axis=1)
    ridge = np.append(np.full(x_NF.shape[1], strength), 0.0)
    b = np.zeros((x.shape[1], kinds)) if start is None else np.concatenate((start[0], start[1][None]))[:, seen]

    def loss(b: Float) -> float:
        logits = x @ b
        top = logits.max(axis=1, keepdims=True)
        norm = top[:, 0] + np.log(np.exp(logits - top).sum(axis=1))
        return float((weight_N * (norm - (logits * onehot).sum(axis=1))).mean() + 0.5 * (ridge @ b**2).sum())

    now = loss(b)
    precondition = _preconditioner(x, weight_N, ridge)
    for _ in range(MAX_STEPS):
        p = _softmax(x @ b)
        gradient = x.T @ (weight_N[:, None] * (p - onehot)) / len(x) + ridge[:, None] * b

        def curved(v: Float, p: Float = p) -> Float:
            along = x @ v
            bent = p * (along - (p * along).sum(axis=1, keepdims=True))
            return np.asarray(x.T @ (weight_N[:, None] * bent) / len(x) + ridge[:, None] * v)

        step = _conjugate_gradients(curved, gradient, precondition)
        size, gain = 1.0, float((step * gradient).sum())
        if gain < tolerance:
            break
        while size > 1e-4 and loss(b - size * step) > now:
            size /= 2
        b = b - size * step
        now = loss(b)
    weights_FK, offset_K = np.zeros((len(b) - 1, len(seen))), np.full(len(seen), -np.inf)
    weights_FK[:, seen], offset_K[seen] = b[:-1], b[-1]
    return weights_FK, offset_K


def _softmax(logits: Float) -> Float:
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=1, keepdims=True))


def _preconditioner(x: Float, weight_N: Float, ridge: Float) -> Callable[[Float], Float]:
    """Solves with an upper bound of the loss's curvature (Böhning 1992), the same for every class."""
    from scipy.linalg import cho_factor, cho_solve

    bound = 0.5 * x.T @ (weight_N[:, None] * x) / len(x) + np.diag(ridge + TRIFLE)
    factor = cho_factor(bound, check_finite=False)
    return lambda v: np.asarray(cho_solve(factor, v, check_finite=False))


def _conjugate_gradients(
    curved: Callable[[Float], Float], target: Float, precondition: Callable[[Float], Float]
) -> Float:
    """Approximately curved⁻¹ target: the direction of a Newton step (Nocedal & Wright 2006, algorithm 7.1)."""
    out, rest = np.zeros_like(target), target.copy()
    direction = z = precondition(rest)
    product = first = float((rest * z).sum())
    for _ in range(MAX_CONJUGATE):
        if product <= FORCING * first or product == 0:
            break
        bent = curved(direction)
        size = product / float((direction * bent).sum())
        out, rest = out + size * direction, rest - size * bent
        z = precondition(rest)
        last, product = product, float((rest * z).sum())
        direction = z + product / last * direction
    return out


class Search:
    """Blocked cross-validation of one discrete dimension."""

    def __init__(self, session: Session, z_NC: Float, y_N: Float, dim: BehaviorDim, *, folds: int, equal: bool) -> None:
        """``y_N``: class indices; NaN where a bin is not labelled."""
        self.z_NC, self.bin_ms, self.segments, self.dim, self.equal = z_NC, session.bin_ms, session.segments, dim, equal
        self.stride = max(1, round(FINEST_LAG_MS / session.bin_ms))
        self.known_N = np.isfinite(y_N)
        self.onehot_NK = np.where(self.known_N[:, None], y_N[:, None] == np.arange(len(dim.classes)), np.nan)
        self.counts = np.nansum(self.onehot_NK, axis=0).astype(int)
        self.parts = blocks(session.segments, folds)
        self._lagged: dict[float, Lagged] = {}
        self._stats: dict[float, list[Statistics]] = {}
        self._most = 1

    # ---- choosing

    def choose(self, taus: Sequence[float], spans_ms: Sequence[float], shrinks: Sequence[float]) -> Choice:
        """Filter and span at a middle shrink, then the shrink, by the log loss of LDA."""
        spans = sorted({max(1, round(span / (self.bin_ms * self.stride))) for span in spans_ms})
        self._most = spans[-1]
        middle = sorted(shrinks)[len(shrinks) // 2]
        best = min((Choice(tau, lags, middle) for tau in taus for lags in spans), key=self.lda_loss)
        return min((replace(best, strength=s) for s in shrinks), key=self.lda_loss)

    def choose_strength(self, choice: Choice, strengths: Sequence[float]) -> Choice:
        """The ridge of logistic regression: from the strongest on to weaker ones, as long as the log loss falls."""
        x, onehot = self.rows(choice)
        known = np.flatnonzero(self.known_N)
        folds = [inside(part, len(self.known_N))[known] for part in self.parts]
        folds = [f for f in folds if f.any() and (onehot[~f].sum(axis=0) > 0).sum() > 1]
        found: list[tuple[Float, Float] | None] = [None] * len(folds)
        best, least = max(strengths), np.inf
        for s in sorted(strengths, reverse=True):
            loss = 0.0
            for i, held_out in enumerate(folds):
                rest, start = ~held_out, found[i]
                made = fit_logistic(x[rest], onehot[rest], strength=s, equal=self.equal, start=start, tolerance=ROUGH)
                loss += self._loss(x[held_out] @ made[0] + made[1], onehot[held_out])
                found[i] = made
            if loss >= least:
                break
            best, least = s, loss
        return replace(choice, strength=best)

    def lda_loss(self, c: Choice) -> float:
        """Mean log loss on the held-out folds, the settings as of :class:`~betz.decode.baselines.discrete.LDA`."""
        total, *folds = (s.first(c.lags * self.z_NC.shape[1]) for s in self._statistics(c.tau_ms))
        loss, number = 0.0, 0
        for part, fold in zip(self.parts, folds, strict=True):
            rest = total - fold
            if not fold.number or (rest.sum_y > 0.5).sum() < 2:
                continue
            weights, offset = fit_lda(rest, shrink=c.strength, equal=self.equal)
            rows = np.flatnonzero(inside(part, len(self.known_N)) & self.known_N)
            by_lag = weights.reshape(c.lags, -1, len(offset))
            lagged = self._levels(c.tau_ms)
            logits = sum(lagged.at(lag, rows) @ w for lag, w in enumerate(by_lag)) + offset
            loss, number = loss + self._loss(logits, self.onehot_NK[rows]), number + len(rows)
        return loss / number if number else np.inf

    def _loss(self, logits: Float, onehot: Float) -> float:
        p = (_softmax(logits) * onehot).sum(axis=1)
        weight = onehot @ (self.counts.sum() / np.maximum(self.counts, 1)) if self.equal else np.ones(len(p))
        return float(-(weight * np.log(np.maximum(p, LEAST_PROBABILITY))).sum())

    # ---- what is fitted

    def statistics(self, c: Choice) -> Statistics:
        """Of all labelled bins: features against class indicators."""
        return self._part(c.tau_ms, self.segments, c.lags)

    def rows(self, c: Choice) -> tuple[Float, Float]:
        """Features (M, F) and class indicators (M, K) of the labelled bins."""
        rows = np.flatnonzero(self.known_N)
        lagged = self._levels(c.tau_ms)
        return np.concatenate([lagged.at(lag, rows) for lag in range(c.lags)], axis=1), self.onehot_NK[rows]

    def taps(self, weights_FK: Float) -> Float:
        """Weights as taps (T, C, K) of single bins."""
        pooled = weights_FK.reshape(-1, self.z_NC.shape[1], weights_FK.shape[1])
        return np.asarray(np.repeat(pooled, self.stride, axis=0) / self.stride)

    def described(self, c: Choice) -> dict[str, Any]:
        """The choice for people to read."""
        return {
            "prefilter_ms": float(c.tau_ms),
            "span_ms": c.lags * self.stride * self.bin_ms,
            "strength": float(c.strength),
        }

    def _levels(self, tau: float) -> Lagged:
        if tau not in self._lagged:
            level_NC = levels(self.z_NC, self.segments, keep=decay(tau, self.bin_ms), width=self.stride)
            self._lagged[tau] = Lagged(level_NC, self.segments, self.stride)
        return self._lagged[tau]

    def _statistics(self, tau: float) -> list[Statistics]:
        if tau not in self._stats:
            parts = [self._part(tau, part, self._most) for part in self.parts]
            self._stats[tau] = [sum(parts[1:], parts[0]), *parts]
        return self._stats[tau]

    def _part(self, tau: float, segments: Segments, lags: int) -> Statistics:
        return lag_statistics(self._levels(tau).x, self.onehot_NK, segments, lags=lags, stride=self.stride)
