"""Small files in vendors' formats, written byte by byte from their published layouts: for tests, and for trying out.

Every writer takes what the file is to hold and returns its path, so that a test knows what must come back.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Spikes = Mapping[tuple[int, int], Sequence[int]]
"""(electrode, unit) → ticks."""
Event = tuple[int, int]
_DATE = (2026, 4, 0, 12, 9, 30, 0, 0)


def write_nev(
    path: Path,
    spikes: Spikes,
    *,
    digital: Sequence[Event] = (),
    comments: Sequence[tuple[int, str]] = (),
    electrodes: Sequence[int] = (),
    tick_hz: int = 30_000,
    ptp: bool = False,
    program: str = "File Dialog",
    restarts: Sequence[tuple[Spikes, Sequence[Event]]] = (),
    order: Sequence[int] | None = None,
) -> Path:
    """A Blackrock ``.nev`` of version 2.3, or 3.0.

    Args:
        path: to write.
        spikes: ticks of each electrode and unit (0: unsorted, 255: noise).
        digital: tick and value of digital inputs.
        comments: tick and text.
        electrodes: named in the header; by default those with spikes.
        tick_hz: ticks a second.
        ptp: version 3.0: stamps of 64 bits, nanoseconds of a clock that the network shares.
        program: that wrote the file.
        restarts: spikes and digital inputs after each restart of the clock.
        order: another order of the packets of the first clock.
    """
    named = list(electrodes) or sorted({e for e, _ in spikes})
    packet, stamp = (108, "<Q") if ptp else (104, "<I")
    tick_hz = 1_000_000_000 if ptp else tick_hz

    def pack(tick: int, rest: str, *values: Any) -> bytes:
        return struct.pack(stamp, tick) + struct.pack(f"<{rest}", *values)

    blocks = []
    for number, (part, lines) in enumerate([(spikes, digital), *restarts]):
        rows = [(t, pack(t, "HBB", e, u, 0)) for (e, u), ticks in part.items() for t in ticks]
        rows += [(t, pack(t, "HBBH", 0, 1, 0, value)) for t, value in lines]
        if number == 0:
            rows += [(t, pack(t, "HBBI", 0xFFFF, 0, 0, 0) + text.encode("latin-1")) for t, text in comments]
        rows.sort(key=lambda row: row[0])
        packets = [row[1].ljust(packet, b"\0") for row in rows]
        blocks += packets if number or order is None else [packets[i] for i in order]
    entries = [struct.pack("<8sHBBHHhhBB", b"NEUEVWAV", e, 1, 1, 250, 0, 0, -100, 0, 2).ljust(32, b"\0") for e in named]
    kind = (b"BREVENTS", 3, 0) if ptp else (b"NEURALEV", 2, 3)
    head = struct.pack("<8sBBHIIII8H", *kind, 1, 336 + 32 * len(entries), packet, tick_hz, 30_000, *_DATE)
    head += program.encode().ljust(32, b"\0") + b"made".ljust(256, b"\0") + struct.pack("<I", len(entries))
    path.write_bytes(head + b"".join(entries) + b"".join(blocks))
    return path


def write_nsx(
    path: Path,
    pieces: Sequence[tuple[Any, Array]],
    *,
    names: Sequence[str],
    ids: Sequence[int],
    period: int = 30,
    unit: str = "mV",
    full_scale: int = 5000,
    ptp: bool = False,
) -> Path:
    """A Blackrock ``.nsX`` of version 2.3, or 3.0.

    Args:
        path: to write.
        pieces: tick of the first sample and (n, K) int16 of each recording between pauses; with ``ptp`` the (n,) ticks
            of all samples instead of the first one's.
        names, ids: of the K channels (ids above 128 are analog inputs).
        period: ticks at 30 kHz between samples.
        unit, full_scale: a stored 32,000 is this much.
    """
    rows = [
        struct.pack("<2sH16sBBhhhh16sIIHIIH", b"CC", i, n.encode(), 1, 1, -32_000, 32_000, -full_scale, full_scale,
                    unit.encode(), 0, 0, 0, 0, 0, 0)
        for n, i in zip(names, ids, strict=True)
    ]  # fmt: skip
    kind = (b"BRSMPGRP", 3, 0) if ptp else (b"NEURALCD", 2, 3)
    head = struct.pack("<8sBBI16s256sII8HI", *kind, 314 + 66 * len(rows), b"made", b"", period,
                       1_000_000_000 if ptp else 30_000, *_DATE, len(rows))  # fmt: skip
    if ptp:
        data = [
            struct.pack("<BQI", 1, tick, 1) + row.tobytes()
            for ticks, values in pieces
            for tick, row in zip(ticks, values.astype("<i2"), strict=True)
        ]
    else:
        data = [struct.pack("<BII", 1, tick, len(values)) + values.astype("<i2").tobytes() for tick, values in pieces]
    path.write_bytes(head + b"".join(rows) + b"".join(data))
    return path


def write_plx(
    path: Path,
    spikes: Spikes,
    *,
    events: Sequence[Event] = (),
    analog: Sequence[tuple[str, int, Sequence[tuple[int, Array]]]] = (),
    tick_hz: int = 40_000,
) -> Path:
    """A Plexon ``.plx`` of version 106.

    Args:
        path: to write.
        spikes: ticks of each channel and unit.
        events: tick and value of the strobed word.
        analog: name, rate in Hz and blocks (tick, int16 values) of each analog channel.
        tick_hz: ticks a second.
    """
    head = bytearray(7504)
    struct.pack_into("<Ii", head, 0, 0x58454C50, 106)
    channels = sorted({c for c, _ in spikes})
    struct.pack_into("<11i", head, 136, tick_hz, len(channels), 1, len(analog), 8, 4, 2026, 4, 9, 12, 30)
    struct.pack_into("<iiidBBBBHHH", head, 180, 0, 0, tick_hz, 60.0, 1, 1, 12, 12, 3000, 5000, 1000)
    parts = [bytes(head)]
    for channel in channels:
        row = bytearray(1020)
        row[:32] = f"sig{channel:03}".encode().ljust(32, b"\0")
        struct.pack_into("<iiiiiiii", row, 64, channel, 0, channel, 0, 1, 0, 0, 4)
        parts.append(bytes(row))
    row = bytearray(296)
    row[:32] = b"Strobed".ljust(32, b"\0")
    struct.pack_into("<i", row, 32, 257)
    parts.append(bytes(row))
    for number, (name, rate, _) in enumerate(analog):
        row = bytearray(296)
        row[:32] = name.encode().ljust(32, b"\0")
        struct.pack_into("<iiiii", row, 32, number, rate, 1, 1, 1000)
        parts.append(bytes(row))
    blocks = [(t, struct.pack("<HHIHHHH", 1, 0, t, c, u, 0, 0)) for (c, u), ticks in spikes.items() for t in ticks]
    blocks += [(t, struct.pack("<HHIHHHH", 4, 0, t, 257, value, 0, 0)) for t, value in events]
    for number, (_, _, pieces) in enumerate(analog):
        blocks += [
            (t, struct.pack("<HHIHHHH", 5, 0, t, number, 0, 1, len(v)) + v.astype("<i2").tobytes()) for t, v in pieces
        ]
    path.write_bytes(b"".join(parts) + b"".join(block for _, block in sorted(blocks, key=lambda b: b[0])))
    return path


def write_nex(
    path: Path,
    spikes: Mapping[str, Sequence[int]],
    *,
    events: Mapping[str, Sequence[int]] | None = None,
    analog: Mapping[str, tuple[float, Sequence[tuple[int, Array]]]] | None = None,
    tick_hz: int = 40_000,
    end_tick: int = 0,
) -> Path:
    """A NeuroExplorer ``.nex`` of version 104.

    Args:
        path: to write.
        spikes: ticks of each neuron.
        events: ticks of each event.
        analog: rate in Hz and fragments (tick, int16 values) of each continuous variable.
        tick_hz: ticks a second.
        end_tick: of the recording.
    """
    variables: list[tuple[int, str, int, bytes, float, int]] = []
    for kind, given in ((0, spikes), (1, events or {})):
        variables += [(kind, n, len(t), np.asarray(t, "<i4").tobytes(), 0.0, 0) for n, t in given.items()]
    for name, (rate, pieces) in (analog or {}).items():
        first = np.cumsum([0, *(len(v) for _, v in pieces)])
        content = np.array([t for t, _ in pieces], "<i4").tobytes() + first[:-1].astype("<i4").tobytes()
        content += b"".join(v.astype("<i2").tobytes() for _, v in pieces)
        variables.append((5, name, len(pieces), content, rate, int(first[-1])))
    at = 544 + 208 * len(variables)
    head = struct.pack("<4si256sd3i", b"NEX1", 104, b"made", tick_hz, 0, end_tick, len(variables)).ljust(544, b"\0")
    rows = []
    for kind, name, number, content, rate, points in variables:
        row = struct.pack("<ii64sIi", kind, 100, name.encode(), at, number).ljust(112, b"\0")
        row += struct.pack("<ddiiidd", rate, 0.001, points, 0, 0, 0.0, 0.0)
        rows.append(row.ljust(208, b"\0"))
        at += len(content)
    path.write_bytes(head + b"".join(rows) + b"".join(v[3] for v in variables))
    return path


def write_open_ephys(
    folder: Path,
    processors: Mapping[str, tuple[float, Sequence[str], Array]],
    *,
    sync: Sequence[int] = (),
    first_sample: int = 1000,
) -> Path:
    """An Open Ephys binary recording (format of GUI 0.6): one node, one experiment, one recording.

    Args:
        folder: to make.
        processors: stream name → rate in Hz, channel names and (n, K) int16 values.
        sync: sample numbers at which line 1 rises in the first stream; it falls 10 samples later.
        first_sample: number of the first sample of each stream.
    """
    base = folder / "Record Node 101" / "experiment1" / "recording1"
    base.mkdir(parents=True)
    continuous, first = [], next(iter(processors))
    for number, (name, (rate, channels, values)) in enumerate(processors.items()):
        where = base / "continuous" / f"Processor-{100 + number}.{name}"
        where.mkdir(parents=True)
        values.astype("<i2").tofile(where / "continuous.dat")
        samples = np.arange(len(values), dtype=np.int64) + first_sample
        np.save(where / "sample_numbers.npy", samples)
        np.save(where / "timestamps.npy", samples / rate)
        continuous.append({
            "folder_name": f"Processor-{100 + number}.{name}/", "sample_rate": rate, "stream_name": name,
            "source_processor_name": "Processor", "source_processor_id": 100 + number,
            "recorded_processor": "Record Node", "recorded_processor_id": 101, "num_channels": len(channels),
            "channels": [{"channel_name": c, "bit_volts": 0.195, "units": "uV"} for c in channels],
        })  # fmt: skip
    rate = processors[first][0]
    where = base / "events" / f"Processor-100.{first}" / "TTL"
    where.mkdir(parents=True)
    edges = np.array([edge for at in sync for edge in (at, at + 10)], np.int64)
    np.save(where / "sample_numbers.npy", edges)
    np.save(where / "timestamps.npy", edges / rate)
    np.save(where / "states.npy", np.tile([1, -1], len(sync)).astype(np.int16))
    np.save(where / "full_words.npy", np.ones((len(edges), 1), np.uint8))
    events = [{"folder_name": f"Processor-100.{first}/TTL/", "channel_name": "TTL", "description": "", "identifier": "",
               "sample_rate": rate, "type": "int16", "num_channels": 8, "source_processor": "Processor",
               "stream_name": first, "initial_state": 0}]  # fmt: skip
    content = {"GUI version": "0.6.0", "continuous": continuous, "events": events, "spikes": []}
    (base / "structure.oebin").write_text(json.dumps(content))
    settings = folder / "Record Node 101" / "settings.xml"
    settings.write_text("<SETTINGS><INFO><VERSION>0.6.0</VERSION></INFO></SETTINGS>")
    return folder
