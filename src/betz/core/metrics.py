"""How good a decode is: R², correlation, angular error, block-bootstrap intervals; and scores of discrete behavior.

Arrays are (N, K): bins by dimensions, truth first. Bins with a NaN in the truth or the prediction must be left out
before (see :func:`scored`); a metric never drops anything by itself. Scores of classes take (N,) integers, of all bins
in time: −1 marks a bin that cannot be scored, since leaving it out would join what was apart.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import DataError

Float = NDArray[np.float64]
Metric = Callable[[Float, Float], float]


def scored(truth_NK: Float, predicted_NK: Float, valid_N: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N,) bins that can be scored: valid, with every dimension of truth and prediction known."""
    return valid_N & np.isfinite(truth_NK).all(axis=1) & np.isfinite(predicted_NK).all(axis=1)


def _checked(truth: Float, predicted: Float) -> tuple[Float, Float]:
    y, p = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if y.ndim == 1:
        y, p = y[:, None], p[:, None] if p.ndim == 1 else p
    if y.shape != p.shape or y.ndim != 2:
        raise DataError(f"truth {y.shape} and prediction {p.shape} must both be (bins, dimensions).", where="metrics")
    if len(y) < 2:
        raise DataError(f"{len(y)} bins cannot be scored.", where="metrics", remedy="score at least two bins")
    if not (np.isfinite(y).all() and np.isfinite(p).all()):
        raise DataError("truth or prediction has NaN.", where="metrics", remedy="select bins with metrics.scored")
    return y, p


def _sums(y: Float, p: Float) -> tuple[Float, Float]:
    return ((y - p) ** 2).sum(axis=0), ((y - y.mean(axis=0)) ** 2).sum(axis=0)


def r2(truth: Float, predicted: Float) -> Float:
    """R² of each dimension, (K,); NaN where the truth is constant.

    >>> r2(np.array([[0.0], [2.0]]), np.array([[0.0], [1.0]])).tolist()
    [0.5]
    """
    error, total = _sums(*_checked(truth, predicted))
    return np.asarray(np.where(total > 0, 1 - error / np.where(total > 0, total, 1), np.nan))


def r2_variance_weighted(truth: Float, predicted: Float) -> float:
    """R² with dimensions weighted by their variance: 1 − Σ error / Σ variance over all dimensions.

    Equals ``sklearn.metrics.r2_score(multioutput="variance_weighted")``, the headline number of NDT3 and FALCON.
    """
    error, total = _sums(*_checked(truth, predicted))
    return float(1 - error.sum() / total.sum()) if total.sum() > 0 else float("nan")


def r2_uniform(truth: Float, predicted: Float) -> float:
    """R² of all dimensions flattened into one vector with one mean, as NDT3 logs it ("uniform").

    It is *not* the mean over dimensions (:func:`r2_mean`): differences between the dimensions' means count as variance.
    """
    y, p = _checked(truth, predicted)
    return r2_variance_weighted(y.reshape(-1, 1), p.reshape(-1, 1))


def r2_mean(truth: Float, predicted: Float) -> float:
    """Mean of the dimensions' R² (scikit-learn's ``uniform_average``, as in NLB); NaN if one is constant."""
    return float(r2(truth, predicted).mean())


def correlation(truth: Float, predicted: Float) -> Float:
    """Pearson correlation of each dimension, (K,); NaN where either is constant."""
    y, p = _checked(truth, predicted)
    y, p = y - y.mean(axis=0), p - p.mean(axis=0)
    scale = np.sqrt((y**2).sum(axis=0) * (p**2).sum(axis=0))
    return np.asarray(np.where(scale > 0, (y * p).sum(axis=0) / np.where(scale > 0, scale, 1), np.nan))


def angular_error_deg(truth: Float, predicted: Float, *, min_speed: float = 0.0) -> float:
    """Mean angle in degrees (0 … 180) between true and predicted vectors.

    Args:
        truth, predicted: (N, K) with K ≥ 2, e.g. velocities.
        min_speed: bins with a true length not above this are left out (the angle of rest is noise).

    Returns:
        The mean angle; NaN if no bin is left. A zero prediction counts as 90°.
    """
    y, p = _checked(truth, predicted)
    if y.shape[1] < 2:
        raise DataError("an angle needs at least two dimensions.", where="metrics.angular_error_deg")
    length = np.linalg.norm(y, axis=1)
    keep = length > min_speed
    if not keep.any():
        return float("nan")
    y, p = y[keep], p[keep]
    norm = np.linalg.norm(y, axis=1) * np.linalg.norm(p, axis=1)
    cosine = np.where(norm > 0, (y * p).sum(axis=1) / np.where(norm > 0, norm, 1), 0.0)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean())


def block_bootstrap(
    truth: Float,
    predicted: Float,
    *,
    metric: Metric = r2_variance_weighted,
    block_bins: int,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval of a metric under resampling of contiguous blocks (neighbouring bins are not independent).

    Args:
        truth, predicted: (N, K).
        metric: any function of (truth, predicted).
        block_bins: length of a block; take a few seconds of bins.
        level: coverage of the interval.
        draws: bootstrap samples.
        seed: of the resampling.

    Returns:
        Lower and upper bound (percentile interval; Künsch 1989, moving blocks).
    """
    y, p = _checked(truth, predicted)
    num_bins = len(y)
    if not 1 <= block_bins <= num_bins:
        raise DataError(f"blocks of {block_bins} bins do not fit {num_bins} bins.", where="metrics.block_bootstrap")
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x626C6F63]))
    blocks = -(-num_bins // block_bins)
    offset = np.arange(block_bins)
    values = np.empty(draws)
    for i in range(draws):
        start = rng.integers(0, num_bins - block_bins + 1, size=blocks)
        rows = (start[:, None] + offset).ravel()[:num_bins]
        values[i] = metric(y[rows], p[rows])
    tail = (1 - level) / 2
    low, high = np.quantile(values, (tail, 1 - tail))
    return float(low), float(high)


# ---- discrete behavior

Classes = NDArray[np.int64]
UNKNOWN = -1
"""In the place of a class: the bin is not labelled, or has no valid prediction."""


def balanced_accuracy(truth_N: Classes, predicted_N: Classes) -> float:
    """Mean, over the classes that occur in the truth, of the share of their bins in which they are predicted.

    Chance is 1 / (number of these classes), however rare some are. Equals ``sklearn.metrics.balanced_accuracy_score``
    over the bins that are not :data:`UNKNOWN` in either.

    >>> balanced_accuracy(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]))
    0.8333333333333333
    """
    y, p = _both_known(truth_N, predicted_N)
    y, p = y[y != UNKNOWN], p[y != UNKNOWN]
    if not len(y):
        raise DataError("no bin can be scored.", where="metrics", remedy="score a part with labels")
    return float(np.mean([(p[y == c] == c).mean() for c in np.unique(y)]))


def runs(classes_N: Classes, wanted: int) -> list[tuple[int, int]]:
    """(first bin, end bin) of each longest stretch of bins of one class: its events.

    >>> runs(np.array([1, 0, 1, 1, -1, 1]), 1)
    [(0, 1), (2, 4), (5, 6)]
    """
    edge = np.diff(np.concatenate(([0], (classes_N == wanted).astype(np.int8), [0])))
    return list(zip(np.flatnonzero(edge == 1).tolist(), np.flatnonzero(edge == -1).tolist(), strict=True))


def false_positives_per_min(truth_N: Classes, predicted_N: Classes, *, event: int, bin_s: float) -> float:
    """Predicted events that share no bin with a true one, per minute of bins in which there is truly no event.

    Args:
        truth_N, predicted_N: classes; bins that are :data:`UNKNOWN` in either end an event and are no time.
        event: the class whose runs are events.
        bin_s: bin width in seconds.

    Returns:
        The rate; NaN if there is truly an event in every bin that is known.
    """
    y, p = _both_known(truth_N, predicted_N)
    quiet = int(((y != event) & (y != UNKNOWN)).sum())
    false = sum(not (y[start:stop] == event).any() for start, stop in runs(p, event))
    return false / (quiet * bin_s / 60) if quiet else float("nan")


def onset_delays_ms(truth_N: Classes, predicted_N: Classes, *, event: int, bin_s: float) -> Float:
    """(M,) from the start of a true event to the first bin inside it that is predicted as one.

    Events that follow an :data:`UNKNOWN` bin or begin with the first bin have no known start and are left out. An event
    that is already predicted in its first bin has a delay of 0, also where the prediction came earlier. A prediction is
    there when its bin ends, so what a user waits is a bin longer.

    Args:
        truth_N, predicted_N, event, bin_s: as of :func:`false_positives_per_min`.

    Returns:
        Milliseconds, in order; NaN for an event that is missed.
    """
    y, p = _both_known(truth_N, predicted_N)
    delays = []
    for start, stop in runs(y, event):
        if start and y[start - 1] != UNKNOWN:
            hit = np.flatnonzero(p[start:stop] == event)
            delays.append(hit[0] * bin_s * 1000 if hit.size else np.nan)
    return np.asarray(delays, dtype=np.float64)


def _both_known(truth_N: Classes, predicted_N: Classes) -> tuple[Classes, Classes]:
    """Both, with UNKNOWN wherever one of them is."""
    y, p = np.asarray(truth_N), np.asarray(predicted_N)
    if y.shape != p.shape or y.ndim != 1 or y.dtype.kind != "i" or p.dtype.kind != "i":
        raise DataError(
            f"truth {y.dtype} {y.shape} and prediction {p.dtype} {p.shape} must both be (bins,) signed integers.",
            where="metrics",
        )
    lost = (y == UNKNOWN) | (p == UNKNOWN)
    return np.where(lost, UNKNOWN, y), np.where(lost, UNKNOWN, p)
