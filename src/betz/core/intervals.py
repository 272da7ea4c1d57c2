"""Half-open intervals of ticks and their algebra."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from betz.core.errors import DataError
from betz.core.timegrid import BinGrid, Ticks


@dataclass(frozen=True, eq=False)
class Intervals:
    """Disjoint, ascending intervals [start, end) of ticks; touching ones are one.

    Build them with :meth:`of`, which sorts and merges.

    >>> a, b = Intervals.of([(0, 10), (20, 30)]), Intervals.of([(5, 25)])
    >>> list(a & b), list(a | b), list(a - b)
    ([(5, 10), (20, 25)], [(0, 30)], [(0, 5), (25, 30)])
    """

    start: Ticks
    end: Ticks

    @classmethod
    def of(cls, pairs: ArrayLike) -> Intervals:
        """Intervals from (M, 2) pairs of integer ticks, in any order, overlapping or not.

        Raises:
            DataError: the pairs are not integers, or one ends before it starts.
        """
        array = np.asarray(pairs)
        if array.size == 0:
            return cls(np.empty(0, np.int64), np.empty(0, np.int64))
        if array.ndim != 2 or array.shape[1] != 2 or not np.issubdtype(array.dtype, np.integer):
            raise DataError(f"intervals must be (M, 2) integer ticks, not {array.dtype} {array.shape}.")
        array = array.astype(np.int64)
        if np.any(array[:, 1] < array[:, 0]):
            bad = int(np.flatnonzero(array[:, 1] < array[:, 0])[0])
            raise DataError(f"interval {bad} ends ({array[bad, 1]}) before it starts ({array[bad, 0]}).")
        array = array[array[:, 1] > array[:, 0]]
        array = array[np.argsort(array[:, 0], kind="stable")]
        if len(array) == 0:
            return cls(np.empty(0, np.int64), np.empty(0, np.int64))
        reach = np.maximum.accumulate(array[:, 1])
        opens = np.concatenate(([True], array[1:, 0] > reach[:-1]))
        closes = np.concatenate((opens[1:], [True]))
        return cls(array[opens, 0].copy(), reach[closes].copy())

    @classmethod
    def from_mask(cls, mask_N: NDArray[np.bool_], grid: BinGrid) -> Intervals:
        """The intervals covered by the bins that are True in ``mask_N``."""
        edge = np.diff(np.concatenate(([0], np.asarray(mask_N, dtype=np.int8), [0])))
        return cls(grid.start_of(np.flatnonzero(edge == 1)), grid.start_of(np.flatnonzero(edge == -1)))

    def __len__(self) -> int:
        return len(self.start)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.start.tolist(), self.end.tolist(), strict=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Intervals) and list(self) == list(other)

    def __or__(self, other: Intervals) -> Intervals:
        return Intervals.of(np.concatenate((self.pairs(), other.pairs())))

    def __and__(self, other: Intervals) -> Intervals:
        return self - (self - other)

    def __sub__(self, other: Intervals) -> Intervals:
        if not len(self) or not len(other):
            return self
        low = min(self.start[0], other.start[0])
        high = max(self.end[-1], other.end[-1])
        outside = Intervals.of(
            np.stack((np.append(low, other.end), np.append(other.start, high)), axis=1)
        )  # the complement of other within [low, high)
        pieces = []
        first = np.searchsorted(outside.end, self.start, side="right")
        last = np.searchsorted(outside.start, self.end, side="left")
        for k, (i, j) in enumerate(zip(first, last, strict=True)):
            part = outside.pairs()[i:j].copy()
            np.clip(part, self.start[k], self.end[k], out=part)
            pieces.append(part)
        return Intervals.of(np.concatenate(pieces))

    def pairs(self) -> Ticks:
        """(M, 2) start and end."""
        return np.stack((self.start, self.end), axis=1)

    @property
    def total(self) -> int:
        """Ticks covered."""
        return int((self.end - self.start).sum())

    def contains(self, ticks: ArrayLike) -> NDArray[np.bool_]:
        """Whether each tick lies in an interval."""
        values = np.asarray(ticks, dtype=np.int64)
        after = np.searchsorted(self.start, values, side="right") - 1
        return np.asarray((after >= 0) & (values < np.append(self.end, 0)[after]))

    def whole_bins(self, grid: BinGrid, num_bins: int) -> NDArray[np.bool_]:
        """(N,) whether a bin lies in an interval with all its ticks."""
        mask_N = np.zeros(num_bins, dtype=bool)
        first = np.clip(-((grid.origin_tick - self.start) // grid.ticks_per_bin), 0, num_bins)
        last = np.clip((self.end - grid.origin_tick) // grid.ticks_per_bin, 0, num_bins)
        for i, j in zip(first, last, strict=True):
            mask_N[i:j] = True
        return mask_N
