"""Any recording that neo's raw readers know, as pieces of one clock; ticks stay the integers of the file.

Adapters of single makers (``neo_blackrock``, ``neo_plexon``, ``neo_nex``) check headers before neo sees them and put
right what neo leaves out: neo drops spikes after the last block of a .plx, joins fragments of analog channels, and cuts
the last spike of a segment by a float comparison.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import require
from betz.core.session import Channel
from betz.core.timegrid import Ticks
from betz.data.importers.files import FileError
from betz.data.importers.neo_formats import Format
from betz.data.importers.neo_model import Fragment, Piece, Recorded, Span, Stream, as_rate, common_rate, merged

Array = NDArray[Any]
ELECTRODE = re.compile(r"ch(\d+)#(\d+)")
NEURAL = re.compile(
    r"(?i)^(elec|chan|ch|raw|lfp|wb|fp|spkc|csc|hp|ap|amp|electrode|[a-h]-)\W?_?\d|headstage|amplifier|neural"
)
"""Names that recording systems give to channels of electrodes; an analog channel of another name is behavior."""
NOISE_UNIT = 255
MICRO = 1_000_000


@contextmanager
def heard(notes: list[str], *, ignore: Sequence[str] = ()) -> Iterator[None]:
    """Keep what a library warns of as notes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    told = dict.fromkeys(" ".join(str(w.message).split()) for w in caught)
    notes += [f"neo: {text[:300]}" for text in told if not any(part in text for part in ignore)]


def open_reader(kind: str, *args: Any, **settings: Any) -> Any:
    """A raw reader of neo, its header parsed.

    Raises:
        MissingExtraError: neo is not installed.
    """
    rawio = require("neo.rawio", extra="io")
    reader = getattr(rawio, kind)(*args, **settings)
    try:
        reader.parse_header()
    except BaseException:
        close_files(reader)
        raise
    return reader


def close_files(reader: Any) -> None:
    """Close the ``.nsX`` that neo keeps open; what was read of it stays, and it is opened again when needed."""
    opened = getattr(reader, "_nsx_fids", {})
    while opened:
        opened.popitem()[1].close()


def read_generic(path: Path, known: Format) -> Recorded:
    """A recording by neo's reader of its format: all blocks and segments, all processors.

    Segments follow each other on one clock until one starts before the last has ended: that is a restart.
    """
    notes: list[str] = []
    with heard(notes):
        settings = {"dirname": str(path)} if known.folder else {"filename": str(path)}
        reader = open_reader(known.reader, **settings)
        spike_hz, notes_rate = spike_rate(reader)
        streams = [int(i) for i in range(reader.signal_streams_count())]
        rates = [as_rate(float(reader.get_signal_sampling_rate(i))) for i in streams]
        tick_hz = common_rate([rate for rate in (*rates, spike_hz) if rate]) or MICRO
        if spike_hz is not None and (tick_hz / spike_hz).denominator != 1:
            text = f"no clock has whole ticks at {float(spike_hz):g} Hz and at the rates of all analog channels"
            notes_rate.append(f"{text}: spike times were rounded to {1e6 / tick_hz:g} µs")
        names = unit_names(reader)
        pieces: list[Piece] = []
        for block in range(reader.block_count()):
            for segment in range(reader.segment_count(block)):
                part = _segment(reader, block, segment, tick_hz, spike_hz, rates)
                _append(pieces, part)
        close_files(reader)
    return Recorded(known.name, tick_hz, names, pieces, [*notes_rate, *notes])


def _append(pieces: list[Piece], part: Piece) -> None:
    """Put a segment behind the last piece, or start a new one where the clock was restarted."""
    if not pieces or not part.spans or not pieces[-1].spans or part.spans[0][0] < pieces[-1].spans[-1][1]:
        pieces.append(part)
        return
    last = pieces[-1]
    last.spikes = tuple(np.concatenate(pair) for pair in zip(last.spikes, part.spikes, strict=True))
    last.streams = tuple(joined(a, b) for a, b in zip(last.streams, part.streams, strict=True))
    last.events += part.events
    last.spans += part.spans


def joined(first: Stream, second: Stream) -> Stream:
    """Two parts of a stream as one."""
    total = sum(f.number for f in first.fragments)

    def read(start: int, end: int, columns: list[int]) -> NDArray[np.float32]:
        parts = []
        if start < total:
            parts.append(first.read(start, min(end, total), columns))
        if end > total:
            parts.append(second.read(max(start - total, 0), end - total, columns))
        return np.concatenate(parts)

    later = tuple(Fragment(f.tick, f.first + total, f.number) for f in second.fragments)
    return Stream(first.name, first.channels, first.units, first.neural, first.rate_hz, first.fragments + later, read)


def _segment(
    reader: Any, block: int, segment: int, tick_hz: int, spike_hz: Fraction | None, rates: list[Fraction]
) -> Piece:
    """One segment of neo as a piece."""
    spikes = []
    for unit in range(reader.spike_channels_count()):
        stamps = reader.get_spike_timestamps(block, segment, unit, None, None)
        spikes.append(ticks_of(stamps, spike_hz, tick_hz, lambda s: reader.rescale_spike_timestamp(s, "float64")))
    streams = tuple(
        _stream(reader, block, segment, index, rates[index], tick_hz) for index in range(reader.signal_streams_count())
    )
    start = round(float(reader.segment_t_start(block, segment)) * tick_hz)
    end = round(float(reader.segment_t_stop(block, segment)) * tick_hz)
    spans = [(start, end)] if end > start else []
    piece = Piece(tuple(spikes), streams, spans=spans or merged([s for st in streams for s in st.spans(tick_hz)]))
    piece.events = events_of(reader, block, segment, tick_hz)
    return piece


def _stream(reader: Any, block: int, segment: int, index: int, rate_hz: Fraction, tick_hz: int) -> Stream:
    header = reader.header
    of_stream = header["signal_channels"][
        header["signal_channels"]["stream_id"] == header["signal_streams"]["id"][index]
    ]
    number = int(reader.get_signal_size(block, segment, index))
    start = round(float(reader.get_signal_t_start(block, segment, index)) * tick_hz)
    name = str(header["signal_streams"]["name"][index])

    def read(first: int, end: int, columns: list[int]) -> NDArray[np.float32]:
        try:
            raw = np.array(reader.get_analogsignal_chunk(block, segment, first, end, index, channel_indexes=columns))
        finally:
            close_files(reader)
        gain, offset = of_stream["gain"][columns], of_stream["offset"][columns]
        return np.asarray(raw * gain.astype(np.float32) + offset.astype(np.float32), np.float32)

    channels = tuple(str(channel) for channel in of_stream["name"])
    return Stream(
        name,
        channels,
        tuple(str(unit).strip("\0 ") for unit in of_stream["units"]),
        tuple(bool(NEURAL.search(channel) or NEURAL.search(name)) for channel in channels),
        rate_hz,
        (Fragment(start, 0, number),) if number else (),
        read,
    )


def spike_rate(reader: Any) -> tuple[Fraction | None, list[str]]:
    """Ticks a second of a reader's spike stamps, found from what it makes of two of them; None = they are no ticks."""
    if not reader.spike_channels_count():
        return None, []
    try:
        low, high = reader.rescale_spike_timestamp(np.array([0, 1 << 30], np.int64), dtype="float64")
    except TypeError:
        low, high = 0.0, 0.0
    rate = (1 << 30) / float(high - low) if high > low else 0.0
    exact = as_rate(rate)
    if rate <= 0 or abs(float(exact) / rate - 1) > 1e-9 or low != 0:
        return None, ["spike times are no whole ticks of one clock in this format: they were rounded to 1 µs"]
    return exact, []


def ticks_of(stamps: Array, rate_hz: Fraction | None, tick_hz: int, rescale: Any) -> Ticks:
    """Stamps of a reader as ticks of the session's clock, exact where they are whole numbers."""
    if rate_hz is not None and stamps.dtype.kind in "iu":
        factor = tick_hz / rate_hz
        if factor.denominator == 1:
            return stamps.astype(np.int64) * int(factor)
    return np.rint(np.asarray(rescale(stamps), np.float64) * tick_hz).astype(np.int64)


def events_of(reader: Any, block: int, segment: int, tick_hz: int) -> list[tuple[int, str, str]]:
    """Tick, name and text of every event and epoch start in a segment."""
    rows = []
    for index, channel in enumerate(reader.header["event_channels"]):
        stamps, _, labels = reader.get_event_timestamps(block, segment, index, None, None)
        seconds = np.asarray(reader.rescale_event_timestamp(stamps, "float64", index), np.float64)
        ticks = np.rint(seconds * tick_hz).astype(np.int64).tolist()
        name = text_of(channel["name"]) or f"events {index + 1}"
        rows += [(tick, name, text_of(label)) for tick, label in zip(ticks, labels, strict=True)]
    return rows


def text_of(value: Any) -> str:
    """A label as text without padding."""
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return text.replace("\0", "").strip()


def unit_names(reader: Any) -> tuple[Channel, ...]:
    """The channels of a reader's units: of a numbered electrode ``ch3`` or ``ch3u1``, else by their own names."""
    channels = []
    for row in reader.header["spike_channels"]:
        found = ELECTRODE.fullmatch(text_of(row["name"])) or ELECTRODE.fullmatch(text_of(row["id"]))
        if found and int(found[2]):
            channels.append(Channel(f"ch{found[1]}u{found[2]}", "unit"))
        else:
            channels.append(
                Channel(f"ch{found[1]}" if found else text_of(row["name"]), "crossings" if found else "unit")
            )
    seen: Counter[str] = Counter()
    out = []
    for channel in channels:
        seen[channel.id] += 1
        suffix = f"_{seen[channel.id]}" if seen[channel.id] > 1 else ""
        out.append(Channel((channel.id or "unit") + suffix, channel.kind))
    return tuple(out)


def refuse(reason: str, what: str, path: Path, remedy: str) -> FileError:
    """A :class:`FileError` about a file."""
    return FileError(reason, what, where=path.name, remedy=remedy)


def first_last(ticks: Sequence[Ticks], others: Sequence[int] = ()) -> Span | None:
    """First tick and end of all that happened; None = nothing did."""
    ends = [(int(t[0]), int(t[-1])) for t in ticks if len(t)] + [(t, t) for t in others]
    return (min(a for a, _ in ends), max(b for _, b in ends) + 1) if ends else None
