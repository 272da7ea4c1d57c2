"""The time grid: integer ticks, half-open bins, counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from betz.core.errors import DataError
from betz.core.timegrid import BinGrid, count_spikes, sum_bins


def test_bins_are_half_open() -> None:
    grid = BinGrid(30_000, 600, origin_tick=1000)
    assert grid.bin_of(np.array([999, 1000, 1599, 1600])).tolist() == [-1, 0, 0, 1]
    assert grid.start_of([0, 1, 2]).tolist() == [1000, 1600, 2200]
    assert grid.bin_ms == 20.0


@pytest.mark.parametrize(
    ("bin_ms", "tick_hz", "ticks"), [(64, 1000, 64), (45, 1000, 45), (2.5, 1_000_000, 2500), (1000 / 30, 30, 1)]
)
def test_from_ms_finds_a_tick_rate(bin_ms: float, tick_hz: int, ticks: int) -> None:
    grid = BinGrid.from_ms(bin_ms)
    assert (grid.tick_hz, grid.ticks_per_bin) == (tick_hz, ticks)


def test_from_ms_refuses_a_fraction_of_a_tick() -> None:
    with pytest.raises(DataError, match=r"0\.05 ms is not a whole number of ticks at 1000 Hz.*multiple of 1 ms"):
        BinGrid.from_ms(0.05, tick_hz=1000)
    with pytest.raises(DataError, match="bin width of -3 ms is impossible"):
        BinGrid.from_ms(-3)


def test_float_ticks_are_refused() -> None:
    with pytest.raises(DataError, match=r"float64, not integers.*ticks_from_s"):
        BinGrid(1000, 20).bin_of(np.array([0.5]))
    with pytest.raises(DataError, match=r"ticks_per_bin is 20\.0, not an integer"):
        BinGrid(1000, 20.0)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.integers(-500, 5000), max_size=60), min_size=1, max_size=4),
    st.integers(1, 700),
    st.integers(-300, 300),
    st.integers(1, 40),
)
def test_counts_equal_a_loop(trains: list[list[int]], width: int, origin: int, bins: int) -> None:
    grid = BinGrid(1000, width, origin)
    found = count_spikes([np.sort(np.array(t, dtype=np.int64)) for t in trains], grid, bins)
    for channel, train in enumerate(trains):
        for k in range(bins):
            low = origin + k * width
            assert found[k, channel] == sum(low <= tick < low + width for tick in train)


def test_counts_are_exact_after_days() -> None:
    """Float seconds lose bins on a long recording; integers do not."""
    grid = BinGrid(30_000, 600)
    day = 30_000 * 86_400 * 30
    bins = day // 600 + np.arange(1000)
    shifted = BinGrid(30_000, 600, origin_tick=int(grid.start_of(bins[0])))
    assert np.all(count_spikes([grid.start_of(bins)], shifted, 1000) == 1)


def test_more_than_255_spikes_raise() -> None:
    with pytest.raises(DataError, match=r"channel 1, bin 2: 256 spikes in one bin of 20 ms.*narrower bins"):
        count_spikes([np.array([0]), np.full(256, 55)], BinGrid(1000, 20), 5)
    assert count_spikes([np.full(255, 55)], BinGrid(1000, 20), 5)[2, 0] == 255


def test_unsorted_spikes_raise() -> None:
    with pytest.raises(DataError, match=r"channel 0: spike ticks are not in ascending order.*sort_spikes"):
        count_spikes([np.array([100, 20])], BinGrid(1000, 20), 9)


def test_bins_merge_by_whole_factors() -> None:
    counts = np.arange(14, dtype=np.uint8).reshape(7, 2)
    assert sum_bins(counts, 3).tolist() == [[6, 9], [24, 27]]
    with pytest.raises(DataError, match=r"channel 0, merged bin 0: merging 2 bins gives 400"):
        sum_bins(np.full((4, 1), 200, np.uint8), 2)
    with pytest.raises(DataError, match="whole factors"):
        BinGrid(1000, 20).rebinned(0)


def test_rebinned_counts_equal_counts_in_wide_bins() -> None:
    spikes = [np.sort(np.random.default_rng(0).integers(0, 10_000, 300))]
    fine = BinGrid(1000, 20)
    assert np.array_equal(sum_bins(count_spikes(spikes, fine, 500), 5), count_spikes(spikes, fine.rebinned(5), 100))


def test_seconds_at_the_border() -> None:
    grid = BinGrid(30_000, 600)
    assert grid.ticks_from_s([0.1, 1 / 3]).tolist() == [3000, 10_000]
    assert grid.bins_in(2) == 6000
    with pytest.raises(DataError, match="NaN or infinity"):
        grid.ticks_from_s([np.nan])
