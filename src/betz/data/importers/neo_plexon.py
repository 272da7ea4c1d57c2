"""Plexon ``.plx``: headers and blocks are walked once before neo sees them, for a wrong length would never end.

neo ends at the time stamp of the last block, which need not be the latest, takes analog channels for one piece from
time 0, and knows no units of them.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.data.importers.neo_model import Fragment, Piece, Recorded, Stream, as_rate, common_rate
from betz.data.importers.neo_read import NEURAL, heard, open_reader, refuse, text_of, unit_names

MAGIC = 0x58454C50
GLOBAL, DSP, EVENT, SLOW = 7504, 1020, 296, 296
_COPY = "the file may be damaged; copy it again"


def check_plexon(path: Path) -> int:
    """Ticks a second of a ``.plx``, whose headers and blocks were checked.

    Raises:
        FileError: a header or the length of a block is impossible.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _check(data, path)


def _check(data: mmap.mmap, path: Path) -> int:
    if len(data) < GLOBAL or struct.unpack_from("<I", data, 0)[0] != MAGIC:
        raise refuse("damaged file", "it is no .plx file: its first bytes are others.", path, _COPY)
    tick_hz, dsp, events, slow = map(int, struct.unpack_from("<4i", data, 136))
    if not 1000 <= tick_hz <= 10_000_000:
        raise refuse("damaged header", f"its header says a clock of {tick_hz} Hz, so spikes have no time.", path, _COPY)
    numbers = {"spike": dsp, "event": events, "analog": slow}
    if min(numbers.values()) < 0 or GLOBAL + DSP * dsp + EVENT * events + SLOW * slow > len(data):
        raise refuse("damaged header", f"its header claims {numbers} channels, more than the file holds.", path, _COPY)
    at = GLOBAL + DSP * dsp + EVENT * events + SLOW * slow
    known = {
        1: _numbers(data, GLOBAL, DSP, dsp, 64),
        4: _numbers(data, GLOBAL + DSP * dsp, EVENT, events, 32),
        5: _numbers(data, GLOBAL + DSP * dsp + EVENT * events, SLOW, slow, 32),
    }
    start = at
    while at < len(data):
        if at + 16 > len(data):
            raise refuse("truncated file", f"its last block ends after {len(data) - at} of 16 bytes.", path, _COPY)
        kind, _, _, channel, _, waveforms, words = struct.unpack_from("<HHIHHHH", data, at)
        if kind not in known or channel not in known[kind]:
            raise refuse("damaged file", f"the block at byte {at} is of type {kind} and channel {channel}, which the "
                         "header does not name.", path, _COPY)  # fmt: skip
        at += 16 + 2 * waveforms * words
    if at > len(data) or at == start:
        what = (
            f"its last block lacks {at - len(data)} bytes." if at > len(data) else "it has no data behind the header."
        )
        raise refuse("truncated file", what, path, _COPY)
    return tick_hz


def _numbers(data: mmap.mmap, start: int, size: int, number: int, at: int) -> set[int]:
    """Channel numbers in headers of one kind."""
    return {struct.unpack_from("<i", data, start + i * size + at)[0] for i in range(number)}


def read_plexon(path: Path) -> Recorded:
    """A ``.plx``: spikes, events, and analog channels placed by the stamps of their blocks."""
    tick_hz = check_plexon(path)
    notes: list[str] = []
    with heard(notes):
        reader = open_reader("PlexonRawIO", filename=str(path), progress_bar=False)
        late = float(1 << 40) / tick_hz  # neo's own end is the stamp of the last block
        channels = unit_names(reader)
        spikes, back = [], 0
        for unit in range(len(channels)):
            ticks = reader.get_spike_timestamps(0, 0, unit, 0.0, late).astype(np.int64)
            back += int(np.count_nonzero(np.diff(ticks) < 0))
            spikes.append(np.sort(ticks))
        events = []
        for index, row in enumerate(reader.header["event_channels"]):
            ticks, _, labels = reader.get_event_timestamps(0, 0, index, 0.0, late)
            name = text_of(row["name"])
            events += [(int(t), name, text_of(label)) for t, label in zip(ticks, labels, strict=True)]
        rates = [as_rate(float(reader.get_signal_sampling_rate(i))) for i in range(reader.signal_streams_count())]
        common = common_rate([as_rate(tick_hz), *rates]) or tick_hz
        factor = common // tick_hz if common % tick_hz == 0 else 1
        common = tick_hz * factor
        streams = tuple(_stream(reader, i, rates[i], factor) for i in range(len(rates)))
    if back:
        notes.append(f"blocks out of order: spikes sorted, {back} steps back in all")
    scaled = tuple(ticks * factor for ticks in spikes)
    piece = Piece(scaled, streams, [(t * factor, name, text) for t, name, text in events], notes=[])
    piece.spans = piece.active_spans(common)
    return Recorded("Plexon", common, channels, [piece], notes)


def _stream(reader: Any, index: int, rate: Any, factor: int) -> Stream:
    """An analog stream; its blocks follow each other, or leave gaps, as their stamps say."""
    header = reader.header
    rows = header["signal_channels"][header["signal_channels"]["stream_id"] == header["signal_streams"]["id"][index]]
    blocks = reader._data_blocks[5][int(rows["id"][0])]
    fragments: list[Fragment] = []
    step = reader._global_ssampling_rate / rate
    for stamp, first, size in zip(
        blocks["timestamp"].tolist(), blocks["cumsum"].tolist(), (blocks["size"] // 2).tolist(), strict=True
    ):
        last = fragments[-1] if fragments else None
        if last is not None and abs(last.tick / factor + last.number * step - stamp) <= 1.5 * step:
            fragments[-1] = Fragment(last.tick, last.first, last.number + size)
        elif size:
            fragments.append(Fragment(stamp * factor, first, size))
    names = tuple(text_of(name) for name in rows["name"])
    stream = text_of(header["signal_streams"]["name"][index])

    def read(first: int, end: int, columns: list[int]) -> NDArray[np.float32]:
        raw = reader.get_analogsignal_chunk(0, 0, first, end, index, channel_indexes=columns)
        return np.asarray(raw * rows["gain"][columns].astype(np.float32), np.float32)

    neural = tuple(bool(NEURAL.search(name)) for name in names)
    return Stream(stream, names, ("mV",) * len(names), neural, rate, tuple(fragments), read)
