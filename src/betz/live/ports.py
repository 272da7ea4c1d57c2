"""What the loop is connected to: a source of bins, a sink of predictions, and a clock."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from betz.core.errors import StreamError
from betz.core.prediction import Array, GuardState, Prediction
from betz.core.session import Channel, channel_hash
from betz.decode.decoder import Decoder


@dataclass(frozen=True, slots=True, eq=False)
class LiveBin:
    """One bin of signals, as it comes from a source.

    Args:
        index: number of the bin on the source's grid.
        signals: (C,) in the order of the source's channels.
        ready_ns: when the bin ended, on the loop's clock.
        queued: how many newer bins were already due when this one was handed out; the loop decodes this one but
            sends nothing for it if there are any.
        restart: the signals do not continue those before (trial edge, gap, reconnected device); the state starts anew.
    """

    index: int
    signals: Array
    ready_ns: int
    queued: int = 0
    restart: bool = False


@dataclass(frozen=True, slots=True)
class Timing:
    """When one bin was ready, decoded and sent, in nanoseconds of the loop's clock.

    Args:
        bin: number of the bin that was pushed, on the source's grid; ``Prediction.bin`` says which bin the values are
            for, on the same grid (earlier, if the decoder has a latency).
        ready_ns: the bin ended.
        start_ns: its push began.
        done_ns: its push ended.
        sent_ns: the prediction was handed to the sink.
        deadline_ns: the next bin ended; a prediction handed over after it is late.

    >>> timing = Timing(bin=7, ready_ns=0, start_ns=100_000, done_ns=700_000, sent_ns=750_000, deadline_ns=20_000_000)
    >>> timing.latency_ms, timing.late
    (0.75, False)
    """

    bin: int
    ready_ns: int
    start_ns: int
    done_ns: int
    sent_ns: int
    deadline_ns: int

    @property
    def latency_ms(self) -> float:
        """From the end of the bin to the hand-over, in milliseconds."""
        return (self.sent_ns - self.ready_ns) / 1e6

    @property
    def late(self) -> bool:
        """Whether the hand-over came after the deadline."""
        return self.sent_ns > self.deadline_ns


class Clock(Protocol):
    """Time as the loop sees it; injected, so that tests need no waiting."""

    def now_ns(self) -> int:
        """Nanoseconds since some fixed moment; never goes back."""
        ...

    def wait_until(self, t_ns: int) -> None:
        """Return at ``t_ns``, or at once if that is over."""


class Source(Protocol):
    """Where bins come from: a replay, or a link to a recording system."""

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Columns of the signals, in order."""
        ...

    @property
    def bin_ms(self) -> float:
        """Width of a bin in milliseconds of the recording."""
        ...

    @property
    def period_ns(self) -> int:
        """Time on the clock from one bin to the next; 0 = bins come as fast as they are taken."""
        ...

    def bins(self) -> Iterator[LiveBin | None]:
        """The bins in order, one by one, waiting for each; what has piled up comes at once, oldest first.

        None stands for one bin that did not come by its deadline: once a missing bin, at the latest one period after
        it was due. A generator may hold resources: it is closed when the loop ends.
        """
        ...


class Sink(Protocol):
    """Where predictions go; time spent in it is time the loop does not have."""

    def send(self, prediction: Prediction, state: GuardState, timing: Timing) -> None:
        """Take one prediction: values (1, 1, K), bin on the source's grid; ``valid`` is False for a lost bin."""

    def close(self) -> None:
        """The loop has ended, well or not; called once."""


def check_source(source: Source, decoder: Decoder) -> None:
    """Raise :class:`StreamError` unless the source has the decoder's channels, in order, and its bin width."""
    if channel_hash(source.channels) != channel_hash(decoder.channels):
        raise StreamError(
            f"its channels are not the decoder's: {_difference(decoder.channels, source.channels)}.",
            where="source",
            remedy="send the decoder's channels in their order, or calibrate a decoder on these channels",
        )
    if not math.isclose(source.bin_ms, decoder.bin_ms, rel_tol=1e-9):
        raise StreamError(
            f"its bins are {source.bin_ms:g} ms wide, the decoder's {decoder.bin_ms:g} ms.",
            where="source",
            remedy=f"send bins of {decoder.bin_ms:g} ms, or calibrate a decoder on bins of {source.bin_ms:g} ms",
        )


def _difference(wanted: Sequence[Channel], found: Sequence[Channel]) -> str:
    """Where two channel lists part, in words."""
    if len(wanted) != len(found):
        return f"the decoder has {len(wanted)}, the source {len(found)}"
    at = next(i for i, (a, b) in enumerate(zip(wanted, found, strict=True)) if (a.id, a.kind) != (b.id, b.kind))
    order = (
        "; the same channels in another order"
        if {(c.id, c.kind) for c in wanted} == {(c.id, c.kind) for c in found}
        else ""
    )
    a, b = wanted[at], found[at]
    return f"channel {at} is {b.id!r} ({b.kind}), the decoder's is {a.id!r} ({a.kind}){order}"
