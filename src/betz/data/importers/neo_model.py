"""What a vendor's file holds, before it is a session: pieces of one clock, with spikes, analog streams and events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.session import Channel
from betz.core.timegrid import Ticks

Array = NDArray[Any]
Span = tuple[int, int]
SILENT_S = 60.0
"""So long without any spike or event is a gap where nothing else says what was recorded."""
READ_SAMPLES = 1 << 19
"""Values of a stream that are read at once: broadband of an hour must never be in memory as a whole."""


@dataclass(frozen=True)
class Fragment:
    """Consecutive samples of a stream: tick of the first one, its number in the stream, and how many there are."""

    tick: int
    first: int
    number: int


@dataclass(frozen=True)
class Stream:
    """Analog channels that were sampled together.

    Args:
        name: of the stream.
        channels, units: K names and physical units (empty = not known).
        neural: (K,) whether a channel is that of an electrode.
        rate_hz: samples a second.
        fragments: its samples in time.
        read: (first, end, columns) → (n, k) float32 in the units.
    """

    name: str
    channels: tuple[str, ...]
    units: tuple[str, ...]
    neural: tuple[bool, ...]
    rate_hz: Fraction
    fragments: tuple[Fragment, ...]
    read: Callable[[int, int, list[int]], NDArray[np.float32]]

    def ticks_per_sample(self, tick_hz: int) -> Fraction:
        """Distance of samples on the clock."""
        return tick_hz / self.rate_hz

    def spans(self, tick_hz: int) -> list[Span]:
        """[start, end) ticks of its fragments."""
        step = self.ticks_per_sample(tick_hz)
        return [(f.tick, f.tick + round(f.number * step)) for f in self.fragments]


@dataclass
class Piece:
    """Everything between two restarts of the clock.

    Args:
        spikes: ascending ticks of each channel.
        streams: analog streams.
        events: tick, name and text of each.
        spans: [start, end) ticks that were recorded, ascending.
        notes: what was found in it.
        skipped: reason → number of things left out of it.
    """

    spikes: tuple[Ticks, ...]
    streams: tuple[Stream, ...] = ()
    events: list[tuple[int, str, str]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)

    def happened(self) -> Ticks:
        """Ascending ticks of all spikes and events."""
        return np.sort(np.concatenate([*self.spikes, np.array([row[0] for row in self.events], np.int64)]))

    def active_spans(self, tick_hz: int, more: Sequence[int] = ()) -> list[Span]:
        """What was recorded, told from spikes, events and samples: apart where there is nothing at all for a minute.

        Args:
            tick_hz: of the clock.
            more: ticks at which it says to start and end.
        """
        ticks = np.sort(np.append(self.happened(), np.array(more, np.int64)))
        analog = [span for stream in self.streams for span in stream.spans(tick_hz)]
        return merged([*heard_spans(ticks, tick_hz), *analog], slack=int(SILENT_S * tick_hz))

    @property
    def number_of_spikes(self) -> int:
        """Of all channels."""
        return sum(map(len, self.spikes))


@dataclass
class Recorded:
    """A vendor's file: its clock, its channels and its pieces.

    Args:
        format: name of the format, e.g. ``"Blackrock"``.
        tick_hz: ticks a second.
        channels: C channels of spikes.
        pieces: what lies between restarts of the clock, in order.
        notes, skipped: about the whole file.
        tags: e.g. the date.
    """

    format: str
    tick_hz: int
    channels: tuple[Channel, ...]
    pieces: list[Piece]
    notes: list[str] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


def common_rate(rates: list[Fraction], *, limit: int = 10_000_000_000) -> int | None:
    """The lowest whole tick rate at which every rate has whole ticks; None above the limit.

    >>> common_rate([Fraction(390625, 16), Fraction(390625, 384)])
    390625
    >>> common_rate([Fraction(40_000), Fraction(2000)])
    40000
    """
    import math

    rate = 1
    for wanted in rates:
        rate = math.lcm(rate, wanted.numerator)
        if rate > limit:
            return None
    return rate


def as_rate(rate_hz: float) -> Fraction:
    """A rate in Hz as the exact fraction that it stands for (24414.0625 Hz = 390625 / 16)."""
    return Fraction(rate_hz).limit_denominator(10_000)


def heard_spans(ticks: Ticks, tick_hz: int) -> list[Span]:
    """What was recorded, told from ascending ticks at which something happened: cut where nothing did for a minute."""
    if not len(ticks):
        return []
    cut = np.flatnonzero(np.diff(ticks) > SILENT_S * tick_hz)
    firsts, lasts = ticks[np.append(0, cut + 1)], ticks[np.append(cut, len(ticks) - 1)]
    return [(int(a), int(b) + 1) for a, b in zip(firsts, lasts, strict=True)]


def merged(spans: list[Span], *, slack: int = 0) -> list[Span]:
    """Spans in order, those that touch (within ``slack`` ticks) or overlap made one.

    >>> merged([(5, 9), (0, 5), (20, 21)])
    [(0, 9), (20, 21)]
    """
    out: list[Span] = []
    for start, end in sorted(spans):
        if out and start - out[-1][1] <= slack:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((start, end))
    return out
