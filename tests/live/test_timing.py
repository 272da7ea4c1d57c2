"""Latency statistics agree with numpy, to the width of a class, in fixed memory."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from betz.live.clocks import SPIN_NS, ManualClock, MonotonicClock
from betz.live.ports import Timing
from betz.live.timing import Histogram, _index, _upper

DURATIONS = st.one_of(st.integers(0, 2000), st.integers(0, 10**8), st.integers(0, 2**40 - 1))


def filled(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@settings(max_examples=150, deadline=None)
@given(st.lists(DURATIONS, min_size=1, max_size=60), st.sampled_from([1, 25, 50, 90, 99, 100]))
def test_percentiles_are_numpys_within_a_class(values: list[int], percent: float) -> None:
    exact = int(np.percentile(values, percent, method="inverted_cdf"))
    found = filled(values).percentile(percent)
    assert exact <= found <= exact + exact / 128


@settings(max_examples=50, deadline=None)
@given(st.lists(DURATIONS, min_size=1, max_size=60))
def test_extremes_and_mean_are_exact(values: list[int]) -> None:
    found = filled(values).summary()
    assert (found.count, found.min, found.max) == (len(values), min(values) / 1e6, max(values) / 1e6)
    assert found.mean == pytest.approx(sum(values) / len(values) / 1e6, rel=1e-12)


def test_classes_join_without_a_hole() -> None:
    values = np.unique(np.concatenate((np.arange(5000), 2 ** np.arange(41) - 1, 2 ** np.arange(40)))).tolist()
    found = [_index(v) for v in values]
    assert found == sorted(found)
    assert all(_upper(i - 1) < v <= _upper(i) for v, i in zip(values, found, strict=True) if i)
    assert [_index(_upper(i) + 1) for i in range(4000)] == list(range(1, 4001))


def test_very_long_and_negative_durations_are_kept() -> None:
    histogram = filled([-5_000_000, 1_000_000, 2**45])
    found = histogram.summary()
    assert (found.min, found.max) == (-5.0, 2**45 / 1e6)
    assert histogram.percentile(100) >= 2**40 - 1
    assert found.p50 == pytest.approx(1.0, rel=0.008)


def test_memory_is_fixed() -> None:
    histogram = Histogram()
    before = sys.getsizeof(histogram._counts)
    for value in range(0, 10**9, 10**5):
        histogram.add(value)
    assert sys.getsizeof(histogram._counts) == before < 50_000


def test_no_durations() -> None:
    found = Histogram().summary()
    assert found.count == 0
    assert math.isnan(found.p99)
    assert json.dumps(found.to_dict()) == (
        '{"count": 0, "min": null, "mean": null, "p50": null, "p99": null, "max": null}'
    )


def test_timing() -> None:
    timing = Timing(3, ready_ns=10, start_ns=20, done_ns=30, sent_ns=2_000_010, deadline_ns=2_000_009)
    assert (timing.latency_ms, timing.late) == (2.0, True)


def test_manual_clock() -> None:
    clock = ManualClock(7)
    clock.wait_until(5)
    assert clock.now_ns() == 7
    clock.wait_until(10)
    clock.advance(3)
    assert clock.now_ns() == 13
    with pytest.raises(AssertionError, match="does not go back"):
        clock.advance(-1)


def test_monotonic_clock_sleeps_then_spins(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += round(seconds * 1e9) + 100_000  # sleeping overshoots

    def read() -> int:
        now[0] += 1000
        return now[0]

    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr("time.monotonic_ns", read)
    clock = MonotonicClock()
    clock.wait_until(5_000_000)
    assert len(slept) == 1
    assert slept[0] == pytest.approx((5_000_000 - SPIN_NS) / 1e9, rel=0.01)
    assert 5_000_000 <= now[0] <= 5_001_000, "the rest was spun"
    clock.wait_until(0)
    assert len(slept) == 1
    assert clock.now_ns() == now[0]
