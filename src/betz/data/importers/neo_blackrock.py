"""Blackrock and Ripple: a ``.nev`` and the ``.nsX`` of its name, read apart so that a bad one never costs the other.

neo drops spikes where segments of the two do not match, and takes any event that is out of order for a restart of the
clock. Here the ``.nev`` alone says where the clock was restarted, the ``.nsX`` say what was recorded, and where the two
disagree the spikes are kept and the analog channels are left out, with a note.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import MissingExtraError
from betz.core.session import Channel
from betz.data.importers.files import FileError, damage
from betz.data.importers.neo_model import Fragment, Piece, Recorded, Stream, as_rate, heard_spans, merged
from betz.data.importers.neo_read import (
    NEURAL,
    NOISE_UNIT,
    close_files,
    first_last,
    heard,
    open_reader,
    refuse,
    text_of,
)

Array = NDArray[Any]
HEAD, EXTENDED = 336, 32
_COPY = "the file may be truncated; copy it again"
_OUT_OF_ORDER_S = 1.0
"""Packets that are this much too late are out of order; an earlier time than that is a restart of the clock."""
_ANCHOR_SAMPLES = 10_000
"""Samples that carry a stamp each (PTP) are placed anew this often: sample clock and stamps drift apart."""
_HEARD = ("No nsX available", "Unknown event codes", "undocumented segments", "Cannot rescale to voltage")


@dataclass(frozen=True)
class NevHeader:
    """What the header of a ``.nev`` says: ticks a second, electrodes, date, program; bytes of a packet cut short."""

    tick_hz: int
    electrodes: tuple[int, ...]
    date: str
    program: str
    rest: int


def read_blackrock(path: Path) -> Recorded:
    """A ``.nev``, the ``.nsX`` beside it, or both.

    Args:
        path: the ``.nev``; a ``.nsX`` only where there is no ``.nev`` of its name.

    Raises:
        FileError: a header is damaged, or a ``.nsX`` belongs to a ``.nev``.
    """
    nev = path if path.suffix.lower() == ".nev" else next(_companions(path, ("nev",)), None)
    if nev is not None and nev != path:
        raise refuse("companion file", f"it belongs to {nev.name}, which imports it too.", path, f"import {nev.name}")
    found = [path] if nev is None else list(_companions(nev, [f"ns{n}" for n in range(1, 10)]))
    notes: list[str] = []
    header = nev_header(nev) if nev is not None else None
    recorded = Recorded("Blackrock", 30_000, (), [])
    if nev is not None and header is not None:
        recorded = _spikes(nev, header, notes)
    groups: list[list[Stream]] = []
    for each in found:
        try:
            groups.append(_stream_groups(each, recorded.tick_hz, notes))
        except MissingExtraError:
            raise
        except FileError as error:
            if nev is None:
                raise
            notes.append(f"{each.name} left out: {error}")
            recorded.skipped["nsX files that cannot be read"] = (
                recorded.skipped.get("nsX files that cannot be read", 0) + 1
            )
    _add_streams(recorded, groups, alone=nev is None)
    recorded.notes += notes
    return recorded


def _companions(path: Path, suffixes: Sequence[str]) -> Any:
    for suffix in suffixes:
        for spelled in (suffix, suffix.upper()):
            other = path.with_suffix(f".{spelled}")
            if other.is_file():
                yield other
                break


# ---- headers


def nev_header(path: Path) -> NevHeader:
    """The header of a ``.nev``, checked against the size of the file.

    Raises:
        FileError: it is no ``.nev``, or a number in it is impossible.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEAD)
        if len(head) < HEAD or head[:8] not in (b"NEURALEV", b"BREVENTS"):
            raise refuse("damaged file", f"it is no .nev file: it starts with {head[:8]!r}.", path, _COPY)
        in_headers, packet, tick_hz = struct.unpack_from("<III", head, 12)
        (number,) = struct.unpack_from("<I", head, HEAD - 4)
        if in_headers != HEAD + EXTENDED * number or in_headers > size:
            raise refuse("damaged file", f"its header claims {number} entries and {in_headers} bytes, the file has "
                         f"{size}.", path, _COPY)  # fmt: skip
        if not 12 <= packet <= 8192 or not 1000 <= tick_hz <= 1_000_000_000:
            raise refuse("damaged file", f"its header claims packets of {packet} bytes and {tick_hz} ticks a second.",
                         path, _COPY)  # fmt: skip
        entries = file.read(EXTENDED * number)
    electrodes = [
        struct.unpack_from("<H", entries, at + 8)[0]
        for at in range(0, len(entries), EXTENDED)
        if entries[at : at + 8] == b"NEUEVWAV"
    ]
    year, month, _, day = struct.unpack_from("<4H", head, 28)
    date = f"{year:04}-{month:02}-{day:02}" if 1980 < year < 2200 and 1 <= month <= 12 and 1 <= day <= 31 else ""
    return NevHeader(tick_hz, tuple(dict.fromkeys(electrodes)), date, text_of(head[44:76].split(b"\0")[0]),
                     (size - in_headers) % packet)  # fmt: skip


def check_nsx_header(path: Path) -> bytes:
    """The kind of a ``.nsX`` (its first 8 bytes), its header checked.

    Raises:
        FileError: it is no ``.nsX``, or a number in it is impossible.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(314)
    kind = head[:8]
    if kind == b"NEURALSG" and len(head) >= 32:
        period, channels = struct.unpack_from("<II", head, 24)
        in_headers = 32 + 4 * channels
    elif kind in (b"NEURALCD", b"BRSMPGRP") and len(head) == 314:
        (in_headers,) = struct.unpack_from("<I", head, 10)
        period, tick_hz = struct.unpack_from("<II", head, 286)
        (channels,) = struct.unpack_from("<I", head, 310)
        if in_headers != 314 + 66 * channels or tick_hz < 1000:
            raise refuse("damaged file", f"its header claims {channels} channels in {in_headers} bytes and {tick_hz} "
                         "ticks a second.", path, _COPY)  # fmt: skip
    else:
        raise refuse("damaged file", f"it is no .nsX file: it starts with {kind!r}.", path, _COPY)
    if not 1 <= period <= 30_000 or not 1 <= channels <= 10_000 or in_headers > size:
        raise refuse("damaged file", f"its header claims {channels} channels and a sample every {period} ticks.",
                     path, _COPY)  # fmt: skip
    return kind


# ---- spikes and events


def _spikes(path: Path, header: NevHeader, notes: list[str]) -> Recorded:
    """Spikes and events of a ``.nev``, in pieces between restarts of the clock."""
    with damage(path), heard(notes, ignore=_HEARD):
        reader = open_reader("BlackrockRawIO", filename=f"{path}.none", nev_override=str(path), nsx_to_load=[])
    spikes, segment = reader.nev_data["Spikes"]
    ticks = spikes["timestamp"].astype(np.int64)
    keys = spikes["packet_id"].astype(np.int64) * 256 + spikes["unit_class_nb"]
    noise = spikes["unit_class_nb"] == NOISE_UNIT
    known = np.isin(spikes["packet_id"], header.electrodes)
    recorded = Recorded("Ripple" if "trellis" in header.program.lower() else "Blackrock", header.tick_hz, (), [])
    keep = known & ~noise
    for reason, mask in (
        ("spikes marked as noise (unit 255)", noise & known),
        ("spikes of unnamed electrodes", ~known),
    ):
        if mask.any():
            recorded.skipped[reason] = int(mask.sum())
    units = sorted({*(e * 256 for e in header.electrodes), *np.unique(keys[keep]).tolist()})
    recorded.channels = tuple(
        Channel(f"ch{key // 256}u{key % 256}", "unit") if key % 256 else Channel(f"ch{key // 256}") for key in units
    )
    with damage(path), heard(notes, ignore=_HEARD):
        rows, of_row = _events(reader)
    for numbers in _clocks(reader, header.tick_hz, recorded):
        inside = keep & np.isin(segment, numbers)
        own, mine = ticks[inside], keys[inside]
        order = np.argsort(mine, kind="stable")
        ends = np.searchsorted(mine[order], [*units, 1 << 40])
        sorted_ticks = own[order]
        channels = tuple(np.sort(sorted_ticks[a:b]) for a, b in pairwise(ends.tolist()))
        events = [row for row, number in zip(rows, of_row, strict=True) if number in numbers]
        piece = Piece(channels, events=events)
        span = first_last(channels, [row[0] for row in events])
        piece.spans = [span] if span else []
        recorded.pieces.append(piece)
    if header.rest:
        notes.append(f"the last packet was cut short ({header.rest} bytes): the file may be truncated")
        recorded.skipped["packets cut short"] = 1
    if header.date:
        recorded.tags["date"] = header.date
    return recorded


def _events(reader: Any) -> tuple[list[tuple[int, str, str]], list[int]]:
    """Tick, name and text of every digital event and comment, and the segment of each."""
    rows, of_row = [], []
    for index, channel in enumerate(reader.header["event_channels"]["name"]):
        for segment in range(reader.segment_count(0)):
            stamps, _, labels = reader.get_event_timestamps(0, segment, index, 0.0, 1e18)
            rows += [(int(t), str(channel), text_of(label)) for t, label in zip(stamps, labels, strict=True)]
            of_row += [segment] * len(stamps)
    return rows, of_row


def _clocks(reader: Any, tick_hz: int, recorded: Recorded) -> list[list[int]]:
    """Numbers of neo's segments between restarts of the clock; what is only out of order is no restart."""
    spans: dict[int, tuple[int, int]] = {}
    for data, numbers in reader.nev_data.values():
        for number in np.unique(numbers).tolist():
            stamps = data["timestamp"][numbers == number]
            low, high = spans.get(number, (int(stamps.min()), int(stamps.max())))
            spans[number] = (min(low, int(stamps.min())), max(high, int(stamps.max())))
    clocks: list[list[int]] = []
    latest = 0
    for number, (low, high) in sorted(spans.items()):
        if clocks and low > latest - _OUT_OF_ORDER_S * tick_hz:
            clocks[-1].append(number)
            recorded.notes.append(f"packets out of order by up to {(latest - low) / tick_hz * 1000:.3g} ms, sorted")
            latest = max(latest, high)
        else:
            clocks.append([number])
            latest = high
    return clocks


# ---- analog streams


def _stream_groups(path: Path, tick_hz: int, notes: list[str]) -> list[Stream]:
    """One stream of a ``.nsX`` for every stretch between restarts of its clock."""
    kind = check_nsx_header(path)
    number = int(path.suffix[-1])
    with damage(path), heard(notes, ignore=_HEARD):
        reader = open_reader(
            "BlackrockRawIO", filename=str(path), load_nev=False, nsx_to_load=[number], gap_tolerance_ms=0.0
        )
        try:
            rate = as_rate(float(reader.get_signal_sampling_rate(0)))
            fragments = _fragments(reader, rate, tick_hz)
        finally:
            close_files(reader)
    header = reader.header["signal_channels"]
    before = np.cumsum([0, *(sum(f.number for f in group) for group in fragments)])
    if kind == b"NEURALSG":
        notes.append(f"{path.name} (2.1) has no units of its own: values are as stored (a.u.)")
    names = tuple(text_of(name) for name in header["name"])
    units = tuple("" if kind == b"NEURALSG" else text_of(unit) for unit in header["units"])
    neural = tuple(bool(int(id_) <= 128 or NEURAL.search(n)) for id_, n in zip(header["id"], names, strict=True))
    return [
        Stream(path.suffix[1:], names, units, neural, rate, tuple(group), _reading(reader, int(start)))
        for group, start in zip(fragments, before, strict=False)
    ]


def _fragments(reader: Any, rate_hz: Fraction, tick_hz: int) -> list[list[Fragment]]:
    """Fragments of a ``.nsX`` between restarts of its clock; samples are numbered anew in each stretch."""
    groups: list[list[Fragment]] = [[]]
    latest = -1
    for segment in range(reader.segment_count(0)):
        for tick, samples in _anchors(reader, segment, tick_hz):
            if not samples:
                continue
            if tick < latest - 2 * tick_hz / rate_hz:
                groups.append([])
            first = groups[-1][-1].first + groups[-1][-1].number if groups[-1] else 0
            groups[-1].append(Fragment(tick, first, samples))
            latest = tick + int(samples * tick_hz / rate_hz)
    return groups


def _anchors(reader: Any, segment: int, tick_hz: int) -> Any:
    """Tick of the first sample and number of samples of each run in a segment of a ``.nsX``."""
    total = int(reader.get_signal_size(0, segment, 0))
    head = reader._nsx_data_header[reader.nsx_to_load[0]][segment]
    if "timestamps_memmap_kwargs" not in head:
        yield round(float(reader.get_signal_t_start(0, segment, 0)) * tick_hz), total
        return
    for first in range(0, total, _ANCHOR_SAMPLES):
        stamp_s = float(reader._get_blackrock_timestamps(0, segment, first, first + 1, 0)[0])
        yield round(stamp_s * tick_hz), min(_ANCHOR_SAMPLES, total - first)


def _reading(reader: Any, skip: int) -> Any:
    """How samples of a stream are read: neo's segments one after the other, from sample ``skip`` on."""
    sizes = [int(reader.get_signal_size(0, s, 0)) for s in range(reader.segment_count(0))]
    edges = np.cumsum([0, *sizes])
    header = reader.header["signal_channels"]

    def read(first: int, end: int, columns: list[int]) -> NDArray[np.float32]:
        parts = []
        try:
            for segment, size in enumerate(sizes):
                a, b = max(first + skip - edges[segment], 0), min(end + skip - edges[segment], size)
                if a < b:
                    parts.append(np.asarray(reader.get_analogsignal_chunk(0, segment, int(a), int(b), 0)[:, columns]))
        finally:
            close_files(reader)
        raw = np.concatenate(parts) if parts else np.empty((0, len(columns)), np.int16)
        gain, offset = header["gain"][columns].astype(np.float32), header["offset"][columns].astype(np.float32)
        return np.asarray(raw * gain + offset, np.float32)

    return read


def _add_streams(recorded: Recorded, groups: list[list[Stream]], *, alone: bool) -> None:
    """Give each piece the streams of its clock; where numbers of restarts differ, spikes are kept and analog is not."""
    if alone:
        for streams in zip(*groups, strict=False):
            recorded.pieces.append(Piece((), streams))
    for group in groups if not alone else []:
        if len(group) != len(recorded.pieces):
            recorded.notes.append(
                f"segments of the .nev ({len(recorded.pieces)}) and of {group[0].name} ({len(group)}) disagree: "
                "the spikes are kept, its analog channels are left out"
            )
            left_out = "analog channels of an nsX whose restarts differ"
            recorded.skipped[left_out] = recorded.skipped.get(left_out, 0) + len(group[0].channels)
            continue
        for piece, stream in zip(recorded.pieces, group, strict=True):
            spans = stream.spans(recorded.tick_hz)
            if not spans:
                piece.notes.append(f"{stream.name} has no samples")
                continue
            outside = sum(int(((t < spans[0][0]) | (t >= spans[-1][1])).sum()) for t in piece.spikes)
            if outside:
                piece.notes.append(f"{outside} spikes lie outside of what {stream.name} recorded; they are kept")
            piece.streams += (stream,)
    for piece in recorded.pieces:
        spans = [span for stream in piece.streams for span in stream.spans(recorded.tick_hz)]
        if spans:
            slack = int(2 * max(recorded.tick_hz / s.rate_hz for s in piece.streams))
            spans = merged(spans, slack=slack)
            ticks = piece.happened()
            before = heard_spans(np.append(ticks[ticks < spans[0][0]], spans[0][0]), recorded.tick_hz)
            after = heard_spans(np.insert(ticks[ticks >= spans[-1][1]], 0, spans[-1][1] - 1), recorded.tick_hz)
            piece.spans = merged([*before, *spans, *after])
