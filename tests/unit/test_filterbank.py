"""The filter bank: unit sums, streams, narrow bins as interleaved steps, and what stands for lost bins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from betz.core.errors import DataError
from betz.core.session import Channel
from betz.decode.filterbank import FILTERS, FilterBank, filter_taps, stride_of
from tests.unit.generalist_helpers import session


@pytest.mark.parametrize("step_ms", [5, 20, 45, 50, 64, 100, 200])
def test_every_filter_is_an_average(step_ms: float) -> None:
    taps = filter_taps(step_ms)
    assert taps.shape[0] == FILTERS
    np.testing.assert_allclose(taps.sum(axis=1), 1, rtol=1e-5)
    assert (taps >= 0).all()
    peaks = taps.argmax(axis=1)
    assert (np.diff(peaks) >= 0).all(), "later filters peak at longer lags"


def test_strides() -> None:
    assert [stride_of(ms) for ms in (5, 10, 20, 45, 50, 64, 100)] == [10, 5, 2, 1, 1, 1, 1]


@pytest.mark.parametrize("bin_ms", [10, 50, 100])
def test_bin_by_bin_equals_at_once(bin_ms: int) -> None:
    made = session(bins=400, bin_ms=bin_ms, power=2)
    bank = FilterBank.fit(made.signals, made.segments, made.channels, made.bin_ms)
    wanted = bank.features(made.signals, made.segments)
    before = np.full((bank.stride - 1, 12), np.nan)
    past = np.zeros(((bank.steps - 1) * bank.stride, 12), np.float32)
    for n in range(120):
        row = made.signals[n : n + 1].astype(np.float64)
        rooted = bank.rooted(row, before)
        found = bank.scaled(bank.filtered(rooted, past))
        np.testing.assert_allclose(found[0], wanted[n], atol=2e-5)
        before = np.concatenate((before, row))[1:]
        past = np.concatenate((past, rooted))[1:]


def test_narrow_bins_are_interleaved_steps() -> None:
    """Every fifth bin of 10 ms sees what a bank of 50 ms bins sees of the same spikes."""
    fine = session(bins=1000, bin_ms=10)
    coarse = fine.rebinned(50)
    made = FilterBank.fit(coarse.signals, coarse.segments, coarse.channels, 50)
    wanted = made.features(coarse.signals, coarse.segments)
    found = replace(made, bin_ms=10).features(fine.signals, fine.segments)[4::5]
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_lost_bins_rest() -> None:
    made = session(bins=300)
    bank = FilterBank.fit(made.signals, made.segments, made.channels, 50)
    lost = made.signals.astype(np.float32)
    lost[100:130] = np.nan
    rooted = bank.rooted(lost)
    assert not rooted[100:130].any()
    np.testing.assert_allclose(bank.scaled(bank.filtered(rooted))[129], 0, atol=0.1)


def test_segments_start_at_rest() -> None:
    made = session(bins=300, edges=(150,))
    bank = FilterBank.fit(made.signals, made.segments, made.channels, 50)
    found = bank.features(made.signals, made.segments)
    alone = bank.scaled(bank.filtered(bank.rooted(made.signals[150:])))
    np.testing.assert_array_equal(found[150:], alone)


def test_a_near_dead_channel_is_floored_and_dead_ones_are_refused() -> None:
    made = session(bins=600)
    counts = made.signals.copy()
    counts[:, 0] = 0
    counts[300, 0] = 1
    bank = FilterBank.fit(counts, made.segments, made.channels, 50)
    sd = bank.sd.reshape(10, FILTERS)
    np.testing.assert_allclose(sd[0], 0.3 * np.median(sd, axis=0), rtol=0.2)
    with pytest.raises(DataError, match="all 10 channels are dead"):
        FilterBank.fit(np.zeros_like(counts), made.segments, made.channels, 50)


def test_power_is_not_rooted() -> None:
    x = np.full((5, 1), 9.0, np.float32)
    bare = np.zeros(1)
    for kind, wanted in (("power", 9.0), ("crossings", 3.0)):
        channel = Channel("a", kind)  # type: ignore[arg-type]
        counts = np.array([channel.kind != "power"])
        bank = FilterBank(50.0, counts, bare, np.zeros(FILTERS, np.float32), np.ones(FILTERS, np.float32))
        np.testing.assert_allclose(bank.rooted(x), wanted)
