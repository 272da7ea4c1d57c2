"""How the loop refuses, fails, ends and lasts, and what it says afterwards."""

from __future__ import annotations

import gc
import json
import signal
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

import betz
from betz.core.errors import ConfigError, DataError, StreamError
from betz.core.prediction import GuardState, Prediction
from betz.core.session import Channel
from betz.live.clocks import ManualClock
from betz.live.loop import run_loop
from betz.live.ports import LiveBin, Timing
from betz.live.recorder import MemorySink, NullSink
from tests.live.helpers import (
    BIN,
    CHANNELS,
    MS,
    Act,
    Script,
    Total,
    at,
    bins_of,
    counts,
    run,
)

# ---- refusals, errors, ends


@pytest.mark.parametrize(
    "channels, text",
    [
        (CHANNELS[:2], "the decoder has 3, the source 2"),
        ((*CHANNELS[:2], Channel("x")), r"channel 2 is 'x' \(crossings\), the decoder's is 'c2' \(crossings\)\."),
        (
            (CHANNELS[0], Channel("c1", "unit"), CHANNELS[2]),
            r"channel 1 is 'c1' \(unit\), the decoder's is 'c1' \(cross",
        ),
        (CHANNELS[::-1], "channel 0 is 'c2'.*; the same channels in another order"),
    ],
)
def test_a_source_with_other_channels_is_refused(channels: tuple[Channel, ...], text: str) -> None:
    clock, sink, decoder = ManualClock(), MemorySink(), Total()
    with pytest.raises(StreamError, match=f"source: its channels are not the decoder's: {text}.*Remedy"):
        run_loop(Script(clock, [at(0)], channels=channels), decoder, sink, clock)
    assert sink.closed == 1
    assert decoder.pushes < 0, "nothing was pushed"


def test_a_source_with_other_bins_is_refused() -> None:
    clock = ManualClock()
    with pytest.raises(StreamError, match=r"source: its bins are 10 ms wide, the decoder's 20 ms.*send bins of 20 ms"):
        run_loop(Script(clock, [], bin_ms=10.0), Total(), NullSink(), clock)


def test_max_bins() -> None:
    clock, sink = ManualClock(), MemorySink()
    source = Script(clock, (at(i) for i in range(1000)))
    result = run_loop(source, Total(), sink, clock, max_bins=7)
    assert (result.bins, result.ended, source.closed, sink.closed) == (7, "max_bins", 1, 1)
    with pytest.raises(ConfigError, match="max_bins=0 leaves nothing to do"):
        run_loop(source, Total(), sink, clock, max_bins=0)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("where", ["source", "decoder", "warm-up"])
def test_ctrl_c_ends_the_loop_well(where: str) -> None:
    clock, sink = ManualClock(), MemorySink()
    items: list[LiveBin | Act | None] = [at(0), at(1), at(2), at(3)]
    if where == "source":
        items.insert(2, interrupt)
    source = Script(clock, items)
    decoder = Total(acts={"decoder": {2: interrupt}, "warm-up": {-1: interrupt}}.get(where, {}))
    result = run_loop(source, decoder, sink, clock)
    assert result.ended == "interrupt"
    assert bins_of(sink) == ([] if where == "warm-up" else [0, 1])
    assert sink.closed == 1
    assert source.closed == (0 if where == "warm-up" else 1)


def fail(error: Exception) -> Act:
    def act() -> None:
        raise error

    return act


class FailingSink(MemorySink):
    def __init__(self, *, send: bool = False, close: bool = False) -> None:
        super().__init__()
        self.fail_send, self.fail_close = send, close

    def send(self, prediction: Prediction, state: GuardState, timing: Timing) -> None:
        super().send(prediction, state, timing)
        if self.fail_send:
            raise OSError("no route")

    def close(self) -> None:
        super().close()
        if self.fail_close:
            raise DataError("half of it is missing.")


@pytest.mark.parametrize("where", ["source", "decoder", "sink"])
def test_errors_come_out_and_the_sink_is_closed(where: str) -> None:
    clock, sink = ManualClock(), FailingSink(send=where == "sink")
    acts = {1: fail(OSError("no route"))} if where == "decoder" else {}
    items = [at(0), fail(OSError("no route")) if where == "source" else at(1)]
    source = Script(clock, items)
    with pytest.raises(OSError, match="no route"):
        run_loop(source, Total(acts=acts), sink, clock)
    assert (sink.closed, source.closed, len(sink.predictions)) == (1, 1, 1)


def test_a_bin_that_the_decoder_refuses_comes_out() -> None:
    bad = replace(at(1), signals=np.array([1.0, np.nan, 0.0]))
    with pytest.raises(StreamError, match="bin 1, channel 'c1': signals have NaN"):
        run(at(0), bad)


def test_an_error_in_closing_does_not_hide_the_first_one() -> None:
    clock = ManualClock()
    with pytest.raises(ValueError, match="the decoder broke") as caught:
        run_loop(
            Script(clock, [at(0)]),
            Total(acts={0: fail(ValueError("the decoder broke"))}),
            FailingSink(close=True),
            clock,
        )
    assert caught.value.__notes__ == ["Closing the sink failed as well: half of it is missing."]


def test_an_error_in_closing_tells_what_the_loop_did() -> None:
    clock = ManualClock()
    with pytest.raises(DataError, match="half of it is missing") as caught:
        run_loop(Script(clock, [at(0), at(1)]), Total(), FailingSink(close=True), clock)
    assert "The loop itself had ended: 2 bins, 2 sent, 0 late" in caught.value.__notes__[0]


# ---- long runs


def test_memory_does_not_grow() -> None:
    clock = ManualClock()
    sizes: list[int] = []

    def items() -> Iterator[LiveBin | None]:
        for index in range(6001):
            if index in (1000, 6000):
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
            ready = (index + 1) * BIN
            clock.wait_until(ready)
            clock.advance(index * 37 % 9_000_000)
            yield LiveBin(index, counts(index), ready)

    tracemalloc.start()
    try:
        run_loop(Script(clock, items()), Total(), NullSink(), clock)
    finally:
        tracemalloc.stop()
    assert sizes[1] - sizes[0] < 10_000, "5,000 bins, so less than two bytes a bin"


def test_what_exists_is_frozen_for_the_collector_during_the_loop_only() -> None:
    counts_: list[int] = []
    run(lambda: counts_.append(gc.get_freeze_count()), at(0))
    assert counts_[0] > 0
    assert gc.get_freeze_count() == 0


def test_a_caller_that_froze_keeps_its_freeze() -> None:
    gc.freeze()
    try:
        run(at(0))
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


# ---- the result


def test_the_result_as_table_line_and_json() -> None:
    clock = ManualClock()
    decoder = Total(acts={1: lambda: clock.advance(30 * MS)})
    result, _ = run(at(0), at(1), at(2), at(5), clock=clock, decoder=decoder)
    console = Console(record=True, width=100)
    console.print(result.table())
    text = console.export_text()
    assert "6 bins, 4 sent, 1 late, 2 lost, 2 skipped, 0 dropped, 0 restarts" in text
    assert "latency, end of bin to sink" in text
    assert "30.00" in text
    assert result.summary().startswith("6 bins, 4 sent, 1 late")
    read = json.loads(json.dumps(result.to_dict()))
    assert read["late"] == 1
    assert read["latency_ms"]["max"] == 30
    assert read["ended"] == "source"


def test_an_empty_stream_has_an_empty_result() -> None:
    result, sink = run()
    assert (result.bins, result.sent, sink.closed) == (0, 0, 1)
    assert json.loads(json.dumps(result.to_dict()))["latency_ms"]["p50"] is None
    assert "nan" not in json.dumps(result.to_dict()).lower()
    Console(quiet=True).print(result.table())


def test_as_fast_as_possible_has_no_jitter() -> None:
    result, _ = run(at(0), at(1), period_ns=0)
    assert result.jitter.count == 0


def test_run_loop_of_the_package() -> None:
    assert betz.run_loop is run_loop
