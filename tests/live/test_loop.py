"""The loop: every bin is pushed once, in order, only the newest prediction is sent, and what is left out is counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import betz
from betz.core.prediction import GuardState, Prediction
from betz.live.clocks import ManualClock
from betz.live.links.replay import ReplaySource
from betz.live.loop import run_loop
from betz.live.ports import LiveBin, Timing
from betz.live.recorder import MemorySink, NullSink
from tests.live.helpers import (
    BIN,
    MS,
    Act,
    Script,
    Total,
    ages,
    at,
    bins_of,
    counts,
    labelled_session,
    run,
    session,
    totals,
    valid,
)


def test_each_bin_is_pushed_once_and_sent_once() -> None:
    decoder = Total()
    result, sink = run(*(at(i) for i in range(5)), decoder=decoder)
    assert decoder.pushes == 5
    assert bins_of(sink) == [0, 1, 2, 3, 4]
    assert totals(sink) == ages(sink) == [1, 2, 3, 4, 5]
    assert all(p.values.shape == (1, 1, 2) and p.valid.all() for p in sink.predictions)
    assert sink.states == [GuardState.OK] * 5
    assert sink.closed == 1
    assert sink.timings[3] == Timing(3, 4 * BIN, 4 * BIN, 4 * BIN, 4 * BIN, 5 * BIN)
    assert (result.bins, result.sent, result.skipped, result.lost, result.late, result.dropped) == (5, 5, 0, 0, 0, 0)
    assert (result.restarts, result.ended) == (0, "source")


def test_the_first_bin_sets_the_numbering() -> None:
    result, sink = run(at(1000), at(1001))
    assert bins_of(sink) == [1000, 1001]
    assert result.lost == 0


def test_a_latency_puts_the_prediction_at_the_bin_it_is_for() -> None:
    _, sink = run(*(at(i) for i in range(7, 12)), decoder=Total(latency=2))
    assert bins_of(sink) == [5, 6, 7, 8, 9]
    assert valid(sink) == [False, False, True, True, True]
    assert [t.bin for t in sink.timings] == [7, 8, 9, 10, 11]


def test_timing_of_a_slow_push() -> None:
    clock = ManualClock()
    decoder = Total(acts={1: lambda: clock.advance(30 * MS), 2: lambda: clock.advance(2 * MS)})
    result, sink = run(at(0), at(1), at(2), at(3), clock=clock, decoder=decoder)
    assert [t.latency_ms for t in sink.timings] == [0, 30, 12, 0]
    assert [t.late for t in sink.timings] == [False, True, False, False]
    assert result.late == 1
    assert [t.deadline_ns for t in sink.timings] == [(i + 2) * BIN for i in range(4)]
    assert result.latency.max == result.push.max == 30
    assert result.latency.mean == 10.5, "waiting for the push before counts"
    assert result.jitter.count == 3
    assert result.jitter.max == 30, "the late bin came 50 ms after the one before"
    third = sink.timings[2]
    assert (third.ready_ns, third.start_ns, third.done_ns) == (3 * BIN, 3 * BIN + 10 * MS, 3 * BIN + 12 * MS)


def test_handed_over_exactly_at_the_deadline_is_not_late() -> None:
    clock = ManualClock()
    result, _ = run(at(0), clock=clock, decoder=Total(acts={0: lambda: clock.advance(BIN)}))
    assert result.late == 0


def test_a_slow_sink_shows_in_its_own_row() -> None:
    clock = ManualClock()

    class Slow(NullSink):
        def send(self, prediction: Prediction, state: GuardState, timing: Timing) -> None:
            clock.advance(5 * MS)

    result = run_loop(Script(clock, [at(0), at(1)]), Total(), Slow(), clock)
    assert result.send.p50 == pytest.approx(5, rel=0.01)
    assert result.latency.max == 0


# ---- lost bins


def test_none_is_a_lost_bin_and_time_advances() -> None:
    clock = ManualClock()
    items: list[LiveBin | Act | None] = [at(0), lambda: clock.wait_until(2 * BIN + 15 * MS), None, at(2)]
    result, sink = run(*items, clock=clock)
    assert bins_of(sink) == [0, 1, 2]
    assert valid(sink) == [True, False, True]
    assert totals(sink) == [1, 1, 2]
    assert ages(sink) == [1, 2, 3]
    assert result.lost == 1
    assert sink.timings[1].ready_ns == 2 * BIN, "one period after the bin before"
    assert result.latency.count == 2, "a lost bin has no latency"


def test_nothing_came_so_far() -> None:
    result, sink = run(None, None, at(70))
    assert bins_of(sink) == [0, 1, 70]
    assert valid(sink) == [False, False, True]
    assert ages(sink) == [1, 2, 1], "the state starts with the first bin that comes"
    assert (result.lost, result.restarts) == (2, 0)


def test_a_gap_of_bin_numbers_is_pushed_as_lost() -> None:
    decoder = Total()
    result, sink = run(at(0), at(1), at(5), decoder=decoder)
    assert bins_of(sink) == [0, 1, 5]
    assert totals(sink) == [1, 2, 3]
    assert ages(sink) == [1, 2, 6]
    assert decoder.pushes == 6
    assert decoder.pushed_present == 3
    assert (result.bins, result.lost, result.skipped, result.sent) == (6, 3, 3, 3)


@pytest.mark.parametrize("jump, restarts, age", [(50, 0, 52), (51, 1, 1)])
def test_a_gap_of_more_than_a_second_restarts_the_state(jump: int, restarts: int, age: int) -> None:
    result, sink = run(at(10), at(11 + jump))
    assert ages(sink) == [1, age]
    assert result.restarts == restarts
    assert (result.bins, result.lost, result.skipped) == (jump + 2, jump, jump)


def test_a_counter_that_starts_again_restarts_the_state() -> None:
    source = [replace(at(i, after=1000 * BIN)) for i in range(3)]
    result, sink = run(at(997), at(998), *source)
    assert bins_of(sink) == [997, 998, 0, 1, 2]
    assert ages(sink) == [1, 2, 1, 2, 3]
    assert (result.restarts, result.dropped, result.lost) == (1, 0, 0)


def test_one_wild_bin_number_does_not_stop_the_stream() -> None:
    result, sink = run(at(5), replace(at(6), index=10**12), at(7), at(8))
    assert bins_of(sink) == [5, 10**12, 7, 8]
    assert result.restarts == 2


# ---- doubled and reordered bins


def test_duplicates_and_late_bins_are_dropped_and_counted() -> None:
    decoder = Total()
    items = [at(0), at(1), at(1), at(3), replace(at(2), ready_ns=5 * BIN), at(4), at(0)]
    result, sink = run(*items, decoder=decoder)
    assert bins_of(sink) == [0, 1, 3, 4]
    assert totals(sink) == [1, 2, 3, 4], "bin 2 was already given up as lost"
    assert (result.dropped, result.lost, decoder.pushes) == (3, 1, 5)


def test_a_bin_that_comes_after_it_was_given_up_is_dropped() -> None:
    clock = ManualClock()
    result, sink = run(at(0), lambda: clock.wait_until(2 * BIN + MS), None, at(1), at(2), clock=clock)
    assert bins_of(sink) == [0, 1, 2]
    assert totals(sink) == [1, 1, 2]
    assert (result.dropped, result.lost) == (1, 1)


def test_a_drained_queue_that_ends_in_a_duplicate_still_sends_the_newest() -> None:
    result, sink = run(at(0), at(1, queued=2), at(2, queued=1), at(2), at(3))
    assert bins_of(sink) == [0, 2, 3]
    assert totals(sink) == [1, 3, 4]
    assert (result.skipped, result.dropped) == (1, 1)


# ---- backlog


@pytest.mark.parametrize("where", ["decoder", "sink"])
def test_after_a_stall_only_the_newest_is_sent(where: str) -> None:
    clock = ManualClock()
    stall = 1005 * MS

    class Stalls(MemorySink):
        def send(self, prediction: Prediction, state: GuardState, timing: Timing) -> None:
            super().send(prediction, state, timing)
            if where == "sink" and timing.bin == 100:
                clock.advance(stall)

    decoder = Total(acts={100: lambda: clock.advance(stall)} if where == "decoder" else {})
    sink = Stalls()
    data = session(bins=300)
    result = run_loop(ReplaySource(data, clock), decoder, sink, clock)
    after = [t for t in sink.timings if t.bin > 100]
    assert [t.bin for t in after] == list(range(150, 300))
    assert after[0].latency_ms == 5, "younger than a bin"
    assert result.skipped == 49
    assert result.late == (1 if where == "decoder" else 0)
    assert decoder.pushes == decoder.pushed_present == 300, "all were taken into the state"
    offline = betz.replay(Total(), data)
    for p in sink.predictions:
        np.testing.assert_array_equal(p.values[0, 0], offline.values[0, p.bin[0, 0]])


def test_lost_bins_in_a_backlog_are_not_sent_one_by_one() -> None:
    clock = ManualClock()
    decoder = Total(acts={10: lambda: clock.advance(1005 * MS)})
    sink = MemorySink()
    data = session(bins=100, lost=[(30, 80)])
    result = run_loop(ReplaySource(data, clock), decoder, sink, clock)
    assert bins_of(sink) == [*range(11), *range(60, 100)], "bin 60, lost, is the newest at the end of the stall"
    assert valid(sink) == [True] * 11 + [False] * 20 + [True] * 20
    assert result.lost == 50
    assert result.restarts == 1


def test_a_decoder_that_is_too_slow_for_good_never_sends_an_old_bin() -> None:
    clock = ManualClock()
    decoder = Total(acts=dict.fromkeys(range(200), lambda: clock.advance(30 * MS)))
    sink = MemorySink()
    result = run_loop(ReplaySource(session(bins=200), clock), decoder, sink, clock)
    starts = [(t.start_ns - t.ready_ns) / BIN for t in sink.timings[:-1]]
    assert max(starts) < 1
    assert result.skipped > 100
    assert result.bins == 200


def test_ten_minutes_with_slow_pushes() -> None:
    clock = ManualClock()
    bins = 10 * 60 * 50
    slow = range(49, bins, 50)
    decoder = Total(acts=dict.fromkeys(slow, lambda: clock.advance(30 * MS)))
    result = run_loop(ReplaySource(session(bins=bins), clock), decoder, NullSink(), clock)
    assert result.bins == bins
    assert result.late == len(slow) == 600
    assert (result.sent, result.skipped, result.lost, result.dropped) == (bins, 0, 0, 0)
    assert result.latency.p50 == 0
    assert result.latency.p99 == pytest.approx(30, rel=0.01)
    assert clock.now_ns() == bins * BIN + 30 * MS


# ---- offline = online


@pytest.mark.parametrize("speed", [1.0, 2.0, 0.37, None])
@pytest.mark.parametrize("latency", [0, 1, 4])
def test_live_equals_offline_bin_for_bin(speed: float | None, latency: int) -> None:
    data = session(bins=90, lost=[(0, 3), (20, 21), (40, 55)], edges=[10, 60, 61])
    clock, sink = ManualClock(), MemorySink()
    result = run_loop(ReplaySource(data, clock, speed=speed), Total(latency=latency), sink, clock)
    offline = betz.replay(Total(latency=latency), data)
    assert result.sent == result.bins == 90
    assert result.lost == 19
    found = np.full((90, 2), np.nan)
    ok = np.zeros(90, dtype=bool)
    for p in sink.predictions:
        if p.valid[0, 0]:
            bin_ = int(p.bin[0, 0])
            assert not ok[bin_], "sent twice"
            found[bin_], ok[bin_] = p.values[0, 0], True
            assert p.spread is not None
    np.testing.assert_array_equal(found, offline.values[0])
    np.testing.assert_array_equal(ok, offline.valid[0])


def test_live_equals_offline_with_a_wiener_filter() -> None:
    data = labelled_session(bins=2000, lost=[(500, 510)], edges=[100])
    decoder = betz.Wiener(span_ms=(200,), prefilter_ms=(120,), strengths=(0.1,)).calibrate(data, behavior=["x"])
    clock, sink = ManualClock(), MemorySink()
    run_loop(ReplaySource(data, clock), decoder, sink, clock)
    offline = betz.replay(decoder, data)
    found = np.concatenate([np.where(p.valid[0, :, None], p.values[0], np.nan) for p in sink.predictions])
    np.testing.assert_array_equal(found, offline.values[0])
    np.testing.assert_array_equal([p.valid[0, 0] for p in sink.predictions], offline.valid[0])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_fault_is_counted_and_the_state_sees_every_bin_that_counts(data: st.DataObject) -> None:
    """Random losses, doublings, reorderings and stalls: the books balance, outputs ascend, states are right."""
    clock = ManualClock()
    plan = data.draw(st.lists(st.sampled_from(["ok", "none", "drop", "double", "swap", "stall"]), max_size=40))
    arrivals: list[int | None] = []
    for index, what in enumerate(plan):
        if what == "none":
            arrivals.append(None)
        elif what == "double":
            arrivals += [index, index]
        elif what == "swap" and arrivals and arrivals[-1] is not None:
            arrivals.insert(len(arrivals) - 1, index)
        elif what != "drop":
            arrivals.append(index)
    stalls = {i: 45 * MS for i, what in enumerate(plan) if what == "stall"}

    def items() -> Iterator[LiveBin | None]:
        expected = 0
        for place, index in enumerate(arrivals):
            if index is None:
                clock.wait_until((expected + 1) * BIN)
                expected += 1
                yield None
                continue
            clock.wait_until((index + 1) * BIN)
            due = clock.now_ns() // BIN
            queued = sum(1 for i in arrivals[place + 1 :] if i is not None and i < due)
            clock.advance(stalls.get(index, 0))
            expected = max(expected, index + 1)
            yield LiveBin(index, counts(index), (index + 1) * BIN, queued)

    decoder, sink = Total(), MemorySink()
    result = run_loop(Script(clock, items()), decoder, sink, clock)
    assert result.bins == result.sent + result.skipped == decoder.pushes
    assert result.bins == result.lost + decoder.pushed_present
    assert len(arrivals) - sum(i is None for i in arrivals) == decoder.pushed_present + result.dropped
    if decoder.pushes:
        assert decoder.snapshot().arrays["now"][0, 0] == decoder.pushed_present, "each bin that came counts 1"
    assert bins_of(sink) == sorted(set(bins_of(sink)))
    assert all(np.isfinite(p.values).all() for p in sink.predictions)
    if arrivals and arrivals[-1] is not None:
        assert sink.predictions, "the newest is always sent"
