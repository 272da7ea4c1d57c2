"""The live loop: one thread that takes bins from a source, pushes each once and sends the newest prediction."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from betz.core.errors import ConfigError
from betz.core.prediction import Array, GuardState, Prediction
from betz.decode.decoder import Decoder
from betz.live.ports import Clock, LiveBin, Sink, Source, Timing, check_source
from betz.live.timing import Histogram, Summary

if TYPE_CHECKING:
    from rich.console import Group

MAX_GAP_MS = 1000.0
"""A jump of the bin number further than this, forwards or backwards, is no loss and no reordering: the state restarts,
as it does at a gap of a recording. Catching up with lost bins one by one would hold up the bins that do come."""
WARM_UP_PUSHES = 10
"""Pushes of zeros before the first bin: the first one imports and allocates (0.9 s was measured), the next few are
slower than later ones."""

Ended = Literal["source", "max_bins", "interrupt"]


@dataclass(frozen=True)
class LoopResult:
    """What a run of the loop did; ``bins = sent + skipped`` always.

    Args:
        bins: bins that passed, lost ones included.
        sent: predictions handed to the sink.
        skipped: bins for which nothing was sent, because newer ones were already due.
        lost: bins that never came.
        late: predictions handed over after the next bin had ended.
        dropped: bins that came twice, or after they had been given up as lost.
        restarts: restarts of the state after the first bin: edges, gaps, reconnections, jumps of the bin number.
        latency: from the end of a bin to the hand-over of its prediction.
        push: time in ``Decoder.push``.
        send: time in ``Sink.send``.
        jitter: distance of two neighbouring hand-overs from the period; empty at a speed without a period.
        ended: why it ended: the source did, ``max_bins`` were taken, or it was interrupted (Ctrl-C).
    """

    bins: int
    sent: int
    skipped: int
    lost: int
    late: int
    dropped: int
    restarts: int
    latency: Summary
    push: Summary
    send: Summary
    jitter: Summary
    ended: Ended

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; durations in milliseconds."""
        counts = {name: getattr(self, name) for name in (*_COUNTS, "ended")}
        return counts | {f"{name}_ms": getattr(self, name).to_dict() for name in _DURATIONS}

    def summary(self) -> str:
        """One line."""
        counts = ", ".join(f"{getattr(self, name):,} {name}" for name in _COUNTS)
        return (
            f"{counts}; latency p50 {self.latency.p50:.2f} ms, p99 {self.latency.p99:.2f}, max {self.latency.max:.2f}"
        )

    def table(self) -> Group:
        """Counts and durations, for ``rich.print``."""
        from rich.console import Group
        from rich.table import Table

        table = Table()
        for head in ("ms", "p50", "p99", "max"):
            table.add_column(head, justify="left" if head == "ms" else "right")
        for name, words in _DURATIONS.items():
            found: Summary = getattr(self, name)
            if found.count:
                table.add_row(words, *(f"{value:.2f}" for value in (found.p50, found.p99, found.max)))
        return Group(self._counts(), table)

    def _counts(self) -> str:
        return ", ".join(f"{getattr(self, name):,} {name}" for name in _COUNTS)


_COUNTS = ("bins", "sent", "late", "lost", "skipped", "dropped", "restarts")
_DURATIONS = {
    "latency": "latency, end of bin to sink",
    "push": "push of the decoder",
    "send": "time in the sink",
    "jitter": "jitter of the period",
}


def run_loop(source: Source, decoder: Decoder, sink: Sink, clock: Clock, *, max_bins: int | None = None) -> LoopResult:
    """Decode a live stream until it ends, ``max_bins`` have passed or Ctrl-C is pressed.

    Each bin is pushed exactly once, in order. A bin that did not come is pushed as lost: time advances, and a
    prediction that is not ``valid`` is sent. If newer bins are already due, a bin is decoded but nothing is sent for
    it: after a stall the first prediction sent is that of the newest bin. Bins that come twice or too late are dropped.
    Everything left out is counted. The sink is closed however the loop ends.

    Args:
        source: has the decoder's channels and bin width.
        decoder: is opened anew with one row; a stream that it was in is lost.
        sink: gets one prediction a bin, numbered on the source's grid.
        clock: the clock of the source's stamps.
        max_bins: stop after this many bins were taken from the source.

    Raises:
        StreamError: source and decoder do not fit, or the decoder refuses a bin.
        Exception: whatever source, decoder or sink raise: nothing is swallowed.
    """
    try:
        if max_bins is not None and max_bins < 1:
            raise ConfigError(f"max_bins={max_bins} leaves nothing to do.", where="run_loop", remedy="at least 1")
        check_source(source, decoder)
        loop = _Loop(source, decoder, sink, clock)
        with _short_collections():
            result = loop.result(loop.run(max_bins))
    except BaseException as error:
        try:
            sink.close()
        except Exception as other:
            error.add_note(f"Closing the sink failed as well: {other}")
        raise
    try:
        sink.close()
    except Exception as error:
        error.add_note(f"The loop itself had ended: {result.summary()}")
        raise
    return result


@contextmanager
def _short_collections() -> Iterator[None]:
    """Keep what already exists out of the garbage collector's way.

    Decoding makes no garbage cycles, but a sink that keeps objects triggers full collections: 149 ms were measured
    with torch imported, 27 ms after freezing. Switching the collector off would let a sink's cycles grow for hours.
    """
    mine = gc.get_freeze_count() == 0
    if mine:
        gc.collect()
        gc.freeze()
    try:
        yield
    finally:
        if mine:
            gc.unfreeze()


class _Output(NamedTuple):
    """One push: what came out, and when."""

    prediction: Prediction
    bin: int
    ready_ns: int
    start_ns: int
    done_ns: int
    came: bool


class _Loop:
    """The state of one run."""

    def __init__(self, source: Source, decoder: Decoder, sink: Sink, clock: Clock) -> None:
        self.source, self.decoder, self.sink, self.clock = source, decoder, sink, clock
        self.period = source.period_ns
        self.width = self.period or round(source.bin_ms * 1e6)  # from a bin's end to its deadline
        self.max_gap = max(round(MAX_GAP_MS / source.bin_ms), 1)
        self.nothing = np.zeros(len(decoder.channels))
        self.absent = np.zeros((1, 1), dtype=np.bool_)
        self.base = self.next = 0  # bin number of the last restart, and of the bin that is due
        self.begun = False  # whether a bin has come: until then bins are counted from 0
        self.ready: int | None = None  # when the last bin ended
        self.held: _Output | None = None  # decoded, not sent: newer bins were due
        self.last: tuple[int, int] | None = None  # bin and time of the last hand-over
        self.bins = self.sent = self.lost = self.late = self.dropped = self.restarts = 0
        self.latency, self.push_time, self.send_time, self.jitter = (Histogram() for _ in range(4))

    def run(self, max_bins: int | None) -> Ended:
        try:
            self.warm_up()
            bins = self.source.bins()
            try:
                for taken, live in enumerate(bins, 1):
                    if live is None:
                        self.missed()
                    else:
                        self.take(live)
                    if taken == max_bins:
                        return "max_bins"
            finally:
                close = getattr(bins, "close", None)
                if close is not None:
                    close()
        except KeyboardInterrupt:
            return "interrupt"
        return "source"

    def warm_up(self) -> None:
        self.decoder.open(1)
        for _ in range(WARM_UP_PUSHES):
            self.decoder.push(self.nothing)
        self.decoder.reset()

    def take(self, live: LiveBin) -> None:
        """A bin came."""
        ahead = live.index - self.next
        if live.restart or not self.begun or abs(ahead) > self.max_gap:
            if self.begun and not live.restart and ahead > 0:
                self.bins += ahead
                self.lost += ahead
            self.restart(live.index)
        elif ahead < 0:
            self.dropped += 1
            if not live.queued and self.held is not None:
                self.send(self.held)
            return
        for _ in range(live.index - self.next):
            self.push(None, live.ready_ns, newest=False)
        self.push(live.signals, live.ready_ns, newest=not live.queued)

    def missed(self) -> None:
        """A bin did not come by its deadline."""
        now = self.clock.now_ns()
        ready = now if self.ready is None or not self.period else min(self.ready + self.period, now)
        self.push(None, ready, newest=not self.period or now < ready + self.period)

    def restart(self, index: int) -> None:
        self.decoder.reset()
        self.restarts += self.begun
        self.begun, self.base, self.next = True, index, index

    def push(self, signals: Array | None, ready: int, *, newest: bool) -> None:
        """Push the bin that is due, and send its prediction if it is the newest."""
        start = self.clock.now_ns()
        decoder = self.decoder
        pushed = decoder.push(self.nothing, self.absent) if signals is None else decoder.push(signals)
        done = self.clock.now_ns()
        on_grid = Prediction(pushed.values, pushed.spread, pushed.bin + self.base, pushed.valid, pushed.text)
        output = _Output(on_grid, self.next, ready, start, done, signals is not None)
        self.bins += 1
        self.lost += signals is None
        self.next += 1
        self.ready = ready
        self.push_time.add(done - start)
        if newest:
            self.send(output)
        else:
            self.held = output

    def send(self, output: _Output) -> None:
        self.held = None
        sent = self.clock.now_ns()
        timing = Timing(
            output.bin, output.ready_ns, output.start_ns, output.done_ns, sent, output.ready_ns + self.width
        )
        self.sink.send(output.prediction, GuardState.OK, timing)
        self.send_time.add(self.clock.now_ns() - sent)
        self.sent += 1
        if output.came:
            self.latency.add(sent - output.ready_ns)
            self.late += timing.late
        if self.period and self.last is not None and self.last[0] == output.bin - 1:
            self.jitter.add(abs(sent - self.last[1] - self.period))
        self.last = (output.bin, sent)

    def result(self, ended: Ended) -> LoopResult:
        return LoopResult(
            bins=self.bins,
            sent=self.sent,
            skipped=self.bins - self.sent,
            lost=self.lost,
            late=self.late,
            dropped=self.dropped,
            restarts=self.restarts,
            latency=self.latency.summary(),
            push=self.push_time.summary(),
            send=self.send_time.summary(),
            jitter=self.jitter.summary(),
            ended=ended,
        )
