"""NeuroExplorer ``.nex``: every variable must lie inside the file, and fragments of analog channels keep their times.

neo joins the fragments of a continuous variable to one piece; a variable of 364 sweeps over an hour would be a minute.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.data.importers.neo_model import Fragment, Piece, Recorded, Stream, as_rate, common_rate
from betz.data.importers.neo_read import heard, open_reader, refuse, text_of, unit_names

HEAD, VARIABLE = 544, 208
_COPY = "the file may be truncated; copy it again"
_VALUE_BYTES = {0: 4, 1: 4, 2: 8, 3: 4, 4: 0, 5: 8, 6: 4}
"""Bytes of a value of each type: neuron, event, interval, waveform, population, continuous, marker."""


def check_nex(path: Path) -> int:
    """Ticks a second of a ``.nex`` whose headers were checked against its size.

    Raises:
        FileError: a header is impossible.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEAD)
        if len(head) < HEAD or head[:4] != b"NEX1":
            raise refuse("damaged file", f"it is no .nex file: it starts with {head[:4]!r}.", path, _COPY)
        rate, begin, end, number = struct.unpack_from("<d3i", head, 264)
        if not (1000 <= rate <= 1e7 and rate == round(rate)) or begin > end:
            raise refuse(
                "damaged header", f"its header says a clock of {rate:g} Hz from {begin} to {end}.", path, _COPY
            )
        if not 0 < number <= (size - HEAD) // VARIABLE:
            raise refuse("damaged header", f"its header claims {number} variables.", path, _COPY)
        for index in range(number):
            _check_variable(file.read(VARIABLE), index, size, path)
    return int(rate)


def _check_variable(row: bytes, index: int, size: int, path: Path) -> None:
    kind = struct.unpack_from("<i", row, 0)[0]
    offset, number = struct.unpack_from("<Ii", row, 72)
    rate, _, points, markers, marker_length = struct.unpack_from("<ddiii", row, 112)
    name = text_of(row[8:72].split(b"\0")[0])
    bad = kind not in _VALUE_BYTES or offset < HEAD or number < 0 or points < 0
    claimed = number * _VALUE_BYTES.get(kind, 0)
    if kind == 5:
        claimed += 2 * points
        bad |= not (np.isfinite(rate) and 0 < rate <= 1e6)
    elif kind == 3:
        claimed += 2 * points * number
        bad |= not np.isfinite(rate)
    elif kind == 6:
        bad |= markers < 0 or marker_length < 0
        claimed += markers * (64 + marker_length * number)
    if bad or offset + claimed > size:
        raise refuse("damaged header", f"variable {index + 1} ({name!r}, type {kind}) claims {number} values at byte "
                     f"{offset} of {size}.", path, _COPY)  # fmt: skip


def read_nex(path: Path) -> Recorded:
    """A ``.nex``: spikes, events, intervals (their starts), markers, and analog channels in their fragments."""
    own_hz = check_nex(path)
    notes: list[str] = []
    with heard(notes):
        reader = open_reader("NeuroExplorerRawIO", filename=str(path))
        rates = [as_rate(float(reader.get_signal_sampling_rate(i))) for i in range(reader.signal_streams_count())]
        tick_hz = common_rate([as_rate(own_hz), *rates]) or own_hz
        factor = tick_hz // own_hz
        channels = unit_names(reader)
        spikes = tuple(
            np.sort(reader.get_spike_timestamps(0, 0, unit, None, None).astype(np.int64) * factor)
            for unit in range(len(channels))
        )
        events = []
        for index, row in enumerate(reader.header["event_channels"]):
            ticks, lasts, labels = reader.get_event_timestamps(0, 0, index, None, None)
            name = text_of(row["name"])
            events += [(int(t) * factor, name, text_of(label)) for t, label in zip(ticks, labels, strict=True)]
            if lasts is not None:
                ends = zip(ticks, lasts, strict=True)
                events += [((int(t) + int(n)) * factor, name, "end") for t, n in ends]
        streams = tuple(_stream(reader, i, rates[i], factor) for i in range(len(rates)))
    piece = Piece(spikes, streams, events)
    head = reader.global_header
    piece.spans = piece.active_spans(tick_hz, (int(head["tbeg"]) * factor, max(int(head["tend"]) * factor - 1, 0)))
    return Recorded("NeuroExplorer", tick_hz, channels, [piece], notes)


def _stream(reader: Any, index: int, rate: Any, factor: int) -> Stream:
    row = reader.header["signal_channels"][index]
    entity = reader._entity_headers[int(row["id"])]
    number, points, offset = int(entity["n"]), int(entity["NPointsWave"]), int(entity["offset"])
    stamps = reader._memmap[offset : offset + 4 * number].view("<i4").astype(np.int64)
    first = reader._memmap[offset + 4 * number : offset + 8 * number].view("<i4").astype(np.int64)
    if np.any(np.diff(first) < 0) or np.any((first < 0) | (first > points)) or (number and first[0] != 0):
        raise ValueError(f"fragments of {row['name']!r} do not fit its {points} samples")
    lengths = np.diff([*first.tolist(), points])
    fragments = tuple(
        Fragment(t * factor, i, n)
        for t, i, n in zip(stamps.tolist(), first.tolist(), lengths.tolist(), strict=True)
        if n
    )
    gain, shift = np.float32(row["gain"]), np.float32(row["offset"])

    def read(start: int, end: int, columns: list[int]) -> NDArray[np.float32]:
        raw = reader.get_analogsignal_chunk(0, 0, start, end, index, channel_indexes=[0])
        return np.asarray(raw * gain + shift, np.float32)

    name = text_of(row["name"])
    return Stream(name, (name,), (text_of(row["units"]),), (False,), rate, fragments, read)
