"""Interval algebra against sets of ticks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from betz.core.errors import DataError
from betz.core.intervals import Intervals
from betz.core.timegrid import BinGrid

pairs = st.lists(st.tuples(st.integers(-20, 60), st.integers(0, 15)).map(lambda p: (p[0], p[0] + p[1])), max_size=6)


def ticks(intervals: Intervals) -> set[int]:
    return {t for start, end in intervals for t in range(start, end)}


@settings(deadline=None, max_examples=200)
@given(pairs, pairs)
def test_algebra_is_that_of_sets(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> None:
    a, b = Intervals.of(first), Intervals.of(second)
    assert ticks(a) == {t for s, e in first for t in range(s, e)}
    assert ticks(a | b) == ticks(a) | ticks(b)
    assert ticks(a & b) == ticks(a) & ticks(b)
    assert ticks(a - b) == ticks(a) - ticks(b)
    for result in (a, a | b, a & b, a - b):
        assert np.all(result.end > result.start)
        assert np.all(result.start[1:] > result.end[:-1])
        assert result.total == len(ticks(result))
    probe = np.arange(-25, 80)
    assert a.contains(probe).tolist() == [t in ticks(a) for t in probe.tolist()]


@settings(deadline=None, max_examples=100)
@given(pairs, st.integers(1, 7), st.integers(-9, 9))
def test_whole_bins(first: list[tuple[int, int]], width: int, origin: int) -> None:
    a, grid = Intervals.of(first), BinGrid(1000, width, origin)
    mask = a.whole_bins(grid, 12)
    for k in range(12):
        inside = set(range(origin + k * width, origin + (k + 1) * width))
        assert mask[k] == (inside <= ticks(a))
    assert Intervals.from_mask(mask, grid).whole_bins(grid, 12).tolist() == mask.tolist()


def test_bad_intervals() -> None:
    with pytest.raises(DataError, match=r"interval 1 ends \(3\) before it starts \(5\)"):
        Intervals.of([(0, 1), (5, 3)])
    with pytest.raises(DataError, match=r"\(M, 2\) integer ticks, not float64"):
        Intervals.of([(0.5, 1.0)])
