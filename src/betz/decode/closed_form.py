"""Ridge regression on lagged features from sufficient statistics.

The Gram matrix of lagged features is block Toeplitz but for the ends of each stretch: its first block row costs one
pass over the data, every further block is its upper-left neighbour minus the rows that drop out. The result is exact
and about as many times cheaper than the direct product as there are lags.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Segments = Sequence[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Statistics:
    """Sufficient statistics of a linear regression of y on lagged features x; they add up over disjoint bins.

    Args:
        gram: (F, F) Σ x xᵀ, features ordered lag by lag (lag 0 first), channels within.
        cross: (F, K) Σ x yᵀ.
        sum_x, sum_y: (F,), (K,).
        square_y: (K,) Σ y².
        number: labelled bins.
    """

    gram: Float
    cross: Float
    sum_x: Float
    sum_y: Float
    square_y: Float
    number: int

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(
            self.gram + other.gram,
            self.cross + other.cross,
            self.sum_x + other.sum_x,
            self.sum_y + other.sum_y,
            self.square_y + other.square_y,
            self.number + other.number,
        )

    def __sub__(self, other: Statistics) -> Statistics:
        return Statistics(
            self.gram - other.gram,
            self.cross - other.cross,
            self.sum_x - other.sum_x,
            self.sum_y - other.sum_y,
            self.square_y - other.square_y,
            self.number - other.number,
        )

    def first(self, features: int) -> Statistics:
        """The statistics of the first features (shorter lags) alone."""
        return Statistics(
            self.gram[:features, :features],
            self.cross[:features],
            self.sum_x[:features],
            self.sum_y,
            self.square_y,
            self.number,
        )


def lag_statistics(x_NC: Float, y_NK: Float, segments: Segments, *, lags: int, stride: int = 1) -> Statistics:
    """Statistics of y(t) on x(t), x(t − stride), …, with missing lags = 0 at the start of each segment.

    Args:
        x_NC: signals, z-scored, so that 0 is their mean.
        y_NK: behavior; bins with a NaN in any dimension are left out of the regression (their x still serve as lags).
        segments: (first bin, end bin) stretches; nothing crosses them.
        lags: number of lags, the current bin included.
        stride: bins from one lag to the next.
    """
    channels, bins = x_NC.shape[1], len(x_NC)
    inside = np.zeros(bins, dtype=bool)
    for start, stop in segments:
        inside[start:stop] = True
    labelled = inside & np.isfinite(y_NK).all(axis=1)
    y = np.where(labelled[:, None], y_NK, 0.0)
    x = np.where(inside[:, None], x_NC, 0.0)
    lagged = Lagged(x, segments, stride)

    cross = np.empty((lags, channels, y.shape[1]))
    sum_x = np.empty((lags, channels))
    first_row = np.empty((lags, channels, channels))
    for lag in range(lags):
        shifted = lagged.at(lag)
        cross[lag] = shifted.T @ y
        sum_x[lag] = labelled @ shifted
        first_row[lag] = x.T @ shifted
    gram = _toeplitz(first_row, lagged)
    for rows in _chunks(np.flatnonzero(inside & ~labelled)):
        unlabelled = np.concatenate([lagged.at(lag, rows) for lag in range(lags)], axis=1)
        gram -= unlabelled.T @ unlabelled
    return Statistics(
        gram,
        cross.reshape(lags * channels, -1),
        sum_x.ravel(),
        y.sum(axis=0),
        (y**2).sum(axis=0),
        int(labelled.sum()),
    )


class Lagged:
    """x (N, C) at earlier bins of the same segment, 0 before its start."""

    def __init__(self, x: Float, segments: Segments, stride: int) -> None:
        self.x, self.stride = x, stride
        self.age = np.zeros(len(x), dtype=np.int64)  # bins since the segment's start
        for start, stop in segments:
            self.age[start:stop] = np.arange(stop - start)
        self.stop = np.array([stop for _, stop in segments], dtype=np.int64)
        self.length = np.array([stop - start for start, stop in segments], dtype=np.int64)

    def at(self, lag: int, rows: NDArray[np.int64] | None = None) -> Float:
        """x(t − lag · stride) for all bins, or for some."""
        back = lag * self.stride
        if rows is not None:
            return np.where((self.age[rows] >= back)[:, None], self.x[np.maximum(rows - back, 0)], 0.0)
        out = np.zeros_like(self.x)
        if back < len(self.x):
            np.copyto(out[back:], self.x[: len(self.x) - back], where=(self.age[back:] >= back)[:, None])
        return out

    def tail(self, lag: int) -> Float:
        """The ``stride`` rows of each segment that lag ``lag`` no longer reaches and lag − 1 did."""
        back = lag * self.stride - np.arange(self.stride)  # distance from the segment's end
        rows = (self.stop[:, None] - back).ravel()
        there = (self.length[:, None] >= back).ravel()
        return np.where(there[:, None], self.x[np.where(there, rows, 0)], 0.0)


def _toeplitz(first_row: Float, lagged: Lagged) -> Float:
    lags, channels, _ = first_row.shape
    tails = [np.empty((0, channels))] + [lagged.tail(lag) for lag in range(1, lags)]
    gram = np.empty((lags, channels, lags, channels))
    for distance in range(lags):
        block = first_row[distance]
        gram[0, :, distance] = block
        gram[distance, :, 0] = block.T
        for lag in range(1, lags - distance):
            block = block - tails[lag].T @ tails[lag + distance]
            gram[lag, :, lag + distance] = block
            gram[lag + distance, :, lag] = block.T
    return gram.reshape(lags * channels, lags * channels)


def _chunks(rows: NDArray[np.int64], size: int = 2048) -> list[NDArray[np.int64]]:
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def ridge(stats: Statistics, strength: float) -> tuple[Float, Float]:
    """Weights (F, K) and intercept (K,) that minimise Σ (y − xᵀw − b)² + strength · n · |w|².

    The strength is per bin, so it means the same for any length of calibration when x is z-scored.
    """
    from scipy.linalg import cho_factor, cho_solve

    mean_x, mean_y = stats.sum_x / stats.number, stats.sum_y / stats.number
    gram = stats.gram - stats.number * np.outer(mean_x, mean_x)
    gram[np.diag_indices_from(gram)] += strength * stats.number
    cross = stats.cross - stats.number * np.outer(mean_x, mean_y)
    factor = cho_factor(gram, overwrite_a=True, check_finite=False)
    weights = cho_solve(factor, cross, check_finite=False)
    return np.asarray(weights), mean_y - mean_x @ weights


def squared_error(stats: Statistics, weights: Float, intercept: Float) -> Float:
    """(K,) Σ (y − xᵀw − b)² over the bins of the statistics, without looking at them again."""
    explained = np.einsum("fk,fk->k", weights, stats.gram @ weights)
    mixed = stats.square_y - 2 * np.einsum("fk,fk->k", weights, stats.cross)
    bias = stats.number * intercept**2 - 2 * intercept * stats.sum_y + 2 * intercept * (stats.sum_x @ weights)
    return np.asarray(mixed + explained + bias)


def blocks(segments: Segments, folds: int) -> list[list[tuple[int, int]]]:
    """The bins of the segments in ``folds`` contiguous parts of equal length, cut where they must be."""
    total = sum(stop - start for start, stop in segments)
    edges = np.rint(np.linspace(0, total, folds + 1)).astype(int)
    parts: list[list[tuple[int, int]]] = [[] for _ in range(folds)]
    done = 0
    for start, stop in segments:
        for fold, (low, high) in enumerate(pairwise(edges.tolist())):
            a, b = max(start, start + low - done), min(stop, start + high - done)
            if a < b:
                parts[fold].append((int(a), int(b)))
        done += stop - start
    return parts
