"""Replay: every usable bin is pushed once, predictions stand at their bins, and a wrong session is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import betz
from betz.core.errors import StreamError
from betz.core.intervals import Intervals
from betz.core.prediction import Array
from betz.core.session import BehaviorDim, Channel, Series, Session
from betz.core.timegrid import BinGrid
from betz.decode.streaming import StreamingDecoder
from betz.evaluate.replay import replay, timed_replay

BINS, CHANNELS = 40, 3


class Adder(StreamingDecoder):
    """Total counts since the reset, as known ``latency`` bins earlier: shows state, order and latency."""

    def __init__(self, session: Session, *, latency: int = 0, spread: bool = True) -> None:
        dims = (BehaviorDim("total", "spikes"),)
        super().__init__(bin_ms=session.bin_ms, channels=session.channels, behavior=dims, columns=1)
        self.latency_bins, self.with_spread, self.seen = latency, spread, 0

    def initial_state(self, rows: int) -> dict[str, Array]:
        return {"past": np.zeros((rows, self.latency_bins)), "total": np.zeros(rows)}

    def advance(
        self, signals_BNC: Array, present_BN: Array, state: Mapping[str, Array]
    ) -> tuple[Array, Array | None, dict[str, Array]]:
        self.seen += int(present_BN.sum())
        total = state["total"][:, None] + signals_BNC.sum(axis=2).cumsum(axis=1)
        joined = np.concatenate((state["past"], total), axis=1)
        bins = total.shape[1]
        values = joined[:, :bins, None].copy()
        after = {"past": joined[:, bins:].copy(), "total": total[:, -1].copy()}
        return values, np.ones_like(values) if self.with_spread else None, after

    def save(self, folder: Path) -> None:
        raise AssertionError("not saved in these tests")


def session(**changes: Any) -> Session:
    grid = BinGrid(1000, 20, origin_tick=500)
    counts = np.random.default_rng(0).integers(1, 9, (BINS, CHANNELS)).astype(np.uint8)
    dims = (BehaviorDim("total", "spikes"),)
    made = Session(
        id="made-up",
        subject="nobody",
        grid=grid,
        num_bins=BINS,
        channels=tuple(Channel(f"c{i}") for i in range(CHANNELS)),
        counts=counts,
        behavior=(Series(counts.sum(axis=1, keepdims=True).astype(np.float64), dims, 500, 20),),
    )
    return replace(made, **changes)


def pieces() -> Session:
    """An edge at bin 10, an edge inside bin 20, and bins 30–31 not valid: segments 0–10, 10–20, 21–30, 32–40."""
    edges = np.array([500 + 10 * 20, 500 + 20 * 20 + 7], dtype=np.int64)
    valid = Intervals.of([(500, 500 + 30 * 20), (500 + 32 * 20, 500 + 40 * 20)])
    return session(edges=edges, valid=valid)


@pytest.mark.parametrize("push_bins", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("latency", [0, 1, 4])
def test_predictions_stand_at_the_bins_they_are_for(push_bins: int, latency: int) -> None:
    data = pieces()
    assert data.segments == ((0, 10), (10, 20), (21, 30), (32, 40))
    found = replay(Adder(data, latency=latency), data, push_bins=push_bins)
    wanted = np.full(BINS, np.nan)
    for start, stop in data.segments:
        wanted[start : stop - latency] = data.signals[start : stop - latency].sum(axis=1).cumsum()
    assert found.values.shape == (1, BINS, 1)
    np.testing.assert_array_equal(found.values[0, :, 0], wanted)
    np.testing.assert_array_equal(found.valid[0], np.isfinite(wanted))
    np.testing.assert_array_equal(found.bin[0], np.arange(BINS))
    assert found.spread is not None
    np.testing.assert_array_equal(np.isnan(found.spread), np.isnan(found.values))


def test_latency_longer_than_a_segment_leaves_it_empty() -> None:
    data = pieces()
    found = replay(Adder(data, latency=9), data)
    assert found.valid[0].nonzero()[0].tolist() == [0, 10]


def test_unusable_bins_are_never_pushed() -> None:
    data = pieces()
    decoder = Adder(data, spread=False)
    found, took = timed_replay(decoder, data, push_bins=4)
    assert decoder.seen == int(data.usable.sum()) == found.valid.sum()
    assert len(took) == 3 + 3 + 3 + 2, "one time a push"
    assert np.all(took > 0)
    assert found.spread is None


def test_a_session_without_usable_bins_gives_nothing() -> None:
    data = session(valid=Intervals.of([]))
    found, took = timed_replay(Adder(data), data)
    assert not found.valid.any()
    assert np.isnan(found.values).all()
    assert found.values.shape == (1, BINS, 1)
    assert len(took) == 0


def test_discrete_dimensions_have_a_column_a_class() -> None:
    data = session(valid=Intervals.of([]))
    decoder = Adder(data)
    decoder.behavior = (*decoder.behavior, BehaviorDim("grasp", "", "discrete", ("open", "shut", "rest")))
    assert replay(decoder, data).values.shape == (1, BINS, 4)


@pytest.mark.parametrize(
    "channels, text",
    [
        (("c0", "c1"), "the decoder has 3, the session 2; 'c2' missing"),
        (("c0", "c1", "x"), "'c2' missing; 'x' unknown to the decoder"),
        (("c0", "c2", "c1"), r"the same ids in another order \(first at 1: 'c2' instead of 'c1'\)"),
    ],
)
def test_other_channels_are_refused(channels: tuple[str, ...], text: str) -> None:
    data = session()
    other = session(channels=tuple(Channel(i) for i in channels), counts=np.ones((BINS, len(channels)), dtype=np.uint8))
    with pytest.raises(StreamError, match=rf"session made-up: its channels are not the decoder's: {text}.*Remedy"):
        replay(Adder(data), other)


def test_channels_of_another_kind_are_refused() -> None:
    data = session()
    other = session(channels=(Channel("c0"), Channel("c1", "unit"), Channel("c2")))
    with pytest.raises(StreamError, match=r"'c1' of another kind \(the first: unit instead of crossings\)"):
        replay(Adder(data), other)


def test_another_bin_width_is_refused_with_what_can_be_done() -> None:
    data = session()
    decoder = Adder(data)
    decoder.bin_ms = 40.0
    with pytest.raises(StreamError, match=r"bins are 20 ms wide, the decoder's 40 ms.*use session.rebinned\(40\), or"):
        replay(decoder, data)
    decoder.bin_ms = 30.0
    with pytest.raises(StreamError, match=r"the decoder's 30 ms. Remedy: calibrate a decoder on bins of 20 ms"):
        replay(decoder, data)


def test_a_push_holds_at_least_one_bin() -> None:
    with pytest.raises(StreamError, match="pushes of 0 bins are impossible"):
        replay(Adder(session()), session(), push_bins=0)


def test_the_replay_of_the_package() -> None:
    assert betz.replay is replay
