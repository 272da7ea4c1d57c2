"""Samples at any times become regular, and what cannot is refused."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from betz.data.importers import FileError
from betz.data.importers.regular import Regular, by_rate, by_stamps


def stamped(stamps_s: NDArray[np.float64], values: NDArray[np.float64] | None = None) -> Regular:
    column = np.arange(len(stamps_s), dtype=np.float64) if values is None else values
    return by_stamps(column[:, None], stamps_s=stamps_s, tick_hz=30_000, where="a.nwb", name="hand")


def test_regular_stamps_with_jitter_stay_as_they_are() -> None:
    rng = np.random.default_rng(0)
    found = stamped(1.0 + np.arange(500) * 0.01 + rng.uniform(-4e-4, 4e-4, 500))
    np.testing.assert_array_equal(found.values[:, 0], np.arange(500))
    assert (found.ticks_per_sample, found.missing, found.told) == (300, 0, "")
    assert abs(found.origin_tick - 30_000) <= 12


def test_a_gap_of_whole_steps_is_nan_and_one_of_half_a_step_is_interpolated_around() -> None:
    whole = np.append(np.arange(100), np.arange(150, 250)) * 0.01
    found = stamped(whole)
    assert (found.missing, len(found.values)) == (50, 250)
    assert np.isnan(found.values[100:150]).all()
    half = np.append(np.arange(100), np.arange(150.5, 250.5)) * 0.01
    found = stamped(half, half)
    known = np.isfinite(found.values[:, 0])
    assert np.count_nonzero(~known) == found.missing == 51
    assert set(np.flatnonzero(~known)) == set(range(100, 151))
    np.testing.assert_allclose(found.values[known, 0], np.flatnonzero(known) * 0.01, atol=1e-9)


def test_a_slow_drift_of_the_rate_does_not_add_up() -> None:
    stamps = np.arange(60_000) / 999.7
    found = stamped(stamps, stamps)
    at_s = (found.origin_tick + np.arange(len(found.values)) * found.ticks_per_sample) / 30_000
    known = np.isfinite(found.values[:, 0])
    assert known[:-1].all()
    np.testing.assert_allclose(found.values[known, 0], at_s[known], atol=2e-4)
    whole = by_rate(stamps[:, None], start_s=0.5, rate_hz=1000.0, tick_hz=30_000, where="a", name="x")
    assert (whole.origin_tick, whole.ticks_per_sample, len(whole.values)) == (15_000, 30, 60_000)


def test_nan_values_do_not_spread() -> None:
    stamps = np.cumsum(np.random.default_rng(1).uniform(0.008, 0.012, 300))
    values = stamps.copy()
    values[100] = np.nan
    found = stamped(stamps, values)
    assert 1 <= np.count_nonzero(np.isnan(found.values)) <= 3
    assert found.missing == 0


def test_repeated_stamps_keep_the_last_sample() -> None:
    found = stamped(np.array([0.0, 0.01, 0.01, 0.02, 0.03]))
    np.testing.assert_array_equal(found.values[:, 0], [0, 2, 3, 4])
    assert found.told.startswith("1 samples with the same stamp as the next one left out")


@pytest.mark.parametrize(
    "stamps_s, text",
    [
        ([0.0, np.nan, 0.02], "stamps of 'hand' contain NaN"),
        ([0.0, 0.01, 0.005, 0.015], r"stamps of 'hand' step back 1 times \(first at sample 2\): the clock restarted"),
        ([3.0], "'hand' has 1 samples, which tell no rate"),
        ([*np.arange(20) * 1e-3, 900.0], "span 900,001 steps of 1 ms and hold 21 samples"),
    ],
)
def test_stamps_that_cannot_be_made_regular(stamps_s: list[float], text: str) -> None:
    with pytest.raises(FileError, match=f"a.nwb: .*{text}|a.nwb: {text}") as raised:
        stamped(np.array(stamps_s))
    assert raised.value.reason == "bad stamps"


def test_other_impossible_series() -> None:
    with pytest.raises(FileError, match="'x' has 3 samples and 2 stamps"):
        by_stamps(np.zeros((3, 1)), stamps_s=np.zeros(2), tick_hz=1000, where="a", name="x")
    with pytest.raises(FileError, match="'x' has a rate of 0 Hz and starts at 0 s"):
        by_rate(np.zeros((3, 1)), start_s=0.0, rate_hz=0.0, tick_hz=1000, where="a", name="x")
