"""What the tests of the live loop share: a decoder that shows its state, scripted sources, sessions with gaps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from betz.core.intervals import Intervals
from betz.core.prediction import Array, Prediction
from betz.core.session import BehaviorDim, Channel, Series, Session
from betz.core.timegrid import BinGrid
from betz.decode.streaming import StreamingDecoder
from betz.live.clocks import ManualClock
from betz.live.loop import WARM_UP_PUSHES, LoopResult, run_loop
from betz.live.ports import LiveBin
from betz.live.recorder import MemorySink

MS = 1_000_000
BIN = 20 * MS
CHANNELS = tuple(Channel(f"c{i}") for i in range(3))
Act = Callable[[], None]


class Total(StreamingDecoder):
    """Total counts and number of bins since the reset, as known ``latency`` bins earlier; can be made to act at a push.

    ``acts`` maps the number of a push (warming up not counted) to what happens in it.
    """

    def __init__(
        self,
        channels: tuple[Channel, ...] = CHANNELS,
        *,
        latency: int = 0,
        spread: bool = True,
        acts: Mapping[int, Act] | None = None,
    ) -> None:
        dims = (BehaviorDim("total", "spikes"), BehaviorDim("age", "bins"))
        super().__init__(bin_ms=20.0, channels=channels, behavior=dims, columns=2)
        self.latency_bins, self.with_spread, self.acts = latency, spread, dict(acts or {})
        self.pushes, self.resets, self.pushed_present = -WARM_UP_PUSHES, 0, 0

    def initial_state(self, rows: int) -> dict[str, Array]:
        return {"past": np.zeros((rows, self.latency_bins, 2)), "now": np.zeros((rows, 2))}

    def advance(
        self, signals_BNC: Array, present_BN: Array, state: Mapping[str, Array]
    ) -> tuple[Array, Array | None, dict[str, Array]]:
        new = np.stack((signals_BNC.sum(axis=2), np.ones(present_BN.shape)), axis=2)
        now = state["now"][:, None] + new.cumsum(axis=1)
        joined = np.concatenate((state["past"], now), axis=1)
        bins = now.shape[1]
        values = joined[:, :bins].copy()
        return (
            values,
            np.full_like(values, 0.5) if self.with_spread else None,
            {"past": joined[:, bins:].copy(), "now": now[:, -1].copy()},
        )

    def push(self, signals: Array, present: Array | None = None) -> Prediction:
        act = self.acts.get(self.pushes)
        if act is not None:
            act()
        self.pushes += 1
        self.pushed_present += self.pushes > 0 and (present is None or bool(np.all(present)))
        return super().push(signals, present)

    def reset(self, rows: Array | None = None) -> None:
        self.resets += 1
        super().reset(rows)

    def save(self, folder: Path) -> None:
        raise AssertionError("not saved in these tests")


class Script:
    """A source that hands out what it is given; an item that can be called is called, then passed over."""

    def __init__(
        self,
        clock: ManualClock,
        items: Iterable[LiveBin | Act | None],
        *,
        period_ns: int = BIN,
        channels: tuple[Channel, ...] = CHANNELS,
        bin_ms: float = 20.0,
    ) -> None:
        self.clock, self.items, self.period_ns = clock, items, period_ns
        self.channels, self.bin_ms, self.closed = channels, bin_ms, 0

    def bins(self) -> Iterator[LiveBin | None]:
        try:
            for item in self.items:
                if callable(item):
                    item()
                    continue
                if item is not None:
                    self.clock.wait_until(item.ready_ns)
                yield item
        finally:
            self.closed += 1


def counts(index: int) -> Array:
    """The signals of a scripted bin: 1 in one channel, so that totals count the bins that came."""
    out = np.zeros(3, dtype=np.uint8)
    out[index % 3] = 1
    return out


def at(index: int, *, after: int = 0, **values: Any) -> LiveBin:
    """A scripted bin that comes ``after`` ns later than it ends."""
    return LiveBin(index, counts(index), (index + 1) * BIN + after, **values)


def session(
    *, bins: int = 60, lost: Iterable[tuple[int, int]] = (), edges: Iterable[int] = (), seed: int = 0, **changes: Any
) -> Session:
    """A session in 20 ms bins with bins lost and trial edges (both in bins)."""
    origin = 500
    gaps = Intervals.of([(origin + 20 * a, origin + 20 * b) for a, b in lost])
    return Session(
        id="made-up",
        subject="nobody",
        grid=BinGrid(1000, 20, origin_tick=origin),
        num_bins=bins,
        channels=CHANNELS,
        counts=np.random.default_rng(seed).integers(0, 9, (bins, 3)).astype(np.uint8),
        valid=Intervals.of([(origin, origin + 20 * bins)]) - gaps,
        edges=np.array([origin + 20 * e for e in edges], dtype=np.int64),
        **changes,
    )


def labelled_session(*, bins: int, lost: Iterable[tuple[int, int]] = (), edges: Iterable[int] = ()) -> Session:
    """A session with one behavior dimension, x, that is none of the signals' business."""
    walk = np.random.default_rng(1).normal(size=(bins, 1)).cumsum(axis=0)
    series = Series(walk, (BehaviorDim("x", "cm"),), 500, 20)
    return session(bins=bins, lost=lost, edges=edges, behavior=(series,))


def run(
    *items: LiveBin | Act | None, clock: ManualClock | None = None, decoder: Total | None = None, period_ns: int = BIN
) -> tuple[LoopResult, MemorySink]:
    clock, sink = clock or ManualClock(), MemorySink()
    result = run_loop(Script(clock, items, period_ns=period_ns), decoder or Total(), sink, clock)
    return result, sink


def bins_of(sink: MemorySink) -> list[int]:
    return [int(p.bin[0, 0]) for p in sink.predictions]


def totals(sink: MemorySink) -> list[float]:
    """How many bins that came the decoder knew of."""
    return [float(p.values[0, 0, 0]) for p in sink.predictions]


def ages(sink: MemorySink) -> list[float]:
    """How many bins had passed since the state started."""
    return [float(p.values[0, 0, 1]) for p in sink.predictions]


def valid(sink: MemorySink) -> list[bool]:
    return [bool(p.valid[0, 0]) for p in sink.predictions]
