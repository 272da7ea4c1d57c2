"""A recorded session as a stream: bins come when they end, lost ones as None, state restarts at segments."""

from __future__ import annotations

import numpy as np
import pytest

from betz.core.errors import ConfigError
from betz.core.session import Channel
from betz.live.clocks import ManualClock
from betz.live.links.replay import ReplaySource
from tests.live.helpers import BIN, CHANNELS, MS, session


def test_bins_come_when_they_end() -> None:
    clock = ManualClock(1234)
    data = session(bins=5)
    source = ReplaySource(data, clock)
    assert (source.channels, source.bin_ms, source.period_ns) == (CHANNELS, 20.0, BIN)
    clock.advance(77)  # time between making the source and starting it does not count
    for index, live in enumerate(source.bins()):
        assert live is not None
        assert live.index == index
        assert live.ready_ns == clock.now_ns() == 1234 + 77 + (index + 1) * BIN
        assert live.queued == 0
        assert live.restart == (index == 0)
        np.testing.assert_array_equal(live.signals, data.signals[index])


@pytest.mark.parametrize("speed, period", [(2.0, 10 * MS), (0.5, 40 * MS), (3.0, 6_666_667)])
def test_other_speeds(speed: float, period: int) -> None:
    clock = ManualClock()
    source = ReplaySource(session(bins=100), clock, speed=speed)
    assert source.period_ns == period
    assert [b.ready_ns for b in source.bins() if b] == [(k + 1) * period for k in range(100)]


def test_as_fast_as_possible_never_waits() -> None:
    clock = ManualClock(5)
    source = ReplaySource(session(bins=50), clock, speed=None)
    assert source.period_ns == 0
    bins = [live for live in source.bins() if live]
    assert clock.now_ns() == 5
    assert {live.ready_ns for live in bins} == {5}
    assert {live.queued for live in bins} == {0}


def test_lost_bins_and_restarts() -> None:
    clock = ManualClock()
    found = list(ReplaySource(session(bins=20, lost=[(0, 2), (7, 9)], edges=[12]), clock).bins())
    assert [i for i, live in enumerate(found) if live is None] == [0, 1, 7, 8]
    assert [live.index for live in found if live and live.restart] == [2, 9, 12]
    assert clock.now_ns() == 20 * BIN


def test_a_bin_knows_how_many_newer_ones_are_due() -> None:
    clock = ManualClock()
    bins = ReplaySource(session(bins=12, lost=[(4, 5)]), clock).bins()
    next(bins)
    clock.advance(100 * MS - 1)
    queued = [None if live is None else live.queued for live in bins]
    assert queued == [3, 2, 1, None, 0, 0, 0, 0, 0, 0, 0]
    bins = ReplaySource(session(bins=4), clock).bins()
    next(bins)
    clock.advance(1000 * MS)
    assert [live.queued for live in bins if live] == [2, 1, 0], "no more than there are"


def test_signals_are_in_memory() -> None:
    data = session(bins=4)
    source = ReplaySource(data, ManualClock(), speed=None)
    before = data.signals.copy()
    assert data.counts is not None
    data.counts[:] = 0
    np.testing.assert_array_equal([live.signals for live in source.bins() if live], before)


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_speeds_are_refused(speed: float) -> None:
    with pytest.raises(ConfigError, match=r"session made-up: a replay at .* times the speed is impossible.*or None"):
        ReplaySource(session(), ManualClock(), speed=speed)


def test_channels_are_those_of_the_session() -> None:
    data = session(bins=3)
    assert all(isinstance(c, Channel) for c in ReplaySource(data, ManualClock()).channels)
