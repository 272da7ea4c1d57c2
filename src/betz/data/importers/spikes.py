"""Spike times in a cell as ticks of a channel each, and the bins that hold them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import ConfigError
from betz.core.session import Channel
from betz.core.timegrid import BinGrid, Ticks
from betz.data.importers.build import Draft, ImportOptions
from betz.data.importers.convert import grid_of
from betz.data.importers.files import FileError
from betz.data.importers.mapping import SpikesMapping
from betz.data.importers.rows import Rows
from betz.data.importers.times import stated_ms

Array = NDArray[Any]
_LATEST_S = 1e9
_MOST_BINS = 1 << 26
_PER_S = {"s": 1.0, "ms": 1000.0}


def read_spikes(
    rows: Rows, spikes: SpikesMapping, *, sort: bool
) -> tuple[tuple[Ticks, ...], tuple[Channel, ...], list[str], int]:
    """Ticks of each channel, the channels, notes, and how many columns of the table are not imported.

    Args:
        rows: the file.
        spikes: what the mapping says of its cell.
        sort: whether unsorted times are sorted.

    Raises:
        FileError: the cell has another shape, or times are NaN, negative, unsorted, or not as many as it says.
    """
    table = rows.file.cell(spikes.variable)
    notes: list[str] = []
    ticks, channels, moved, worst = [], [], 0, 0.0
    for number, line in enumerate(_lines(table, spikes, rows.where), start=1):
        channel = _channel(line, spikes, number, rows.where)
        times_s = _times(line, spikes, channel.id, rows.where)
        moved += _steps_back(times_s, channel.id, rows.where, sort=sort)
        exact = np.sort(times_s) * spikes.tick_hz
        ticks.append(np.rint(exact).astype(np.int64))
        worst = max(worst, float(np.abs(exact - ticks[-1]).max(initial=0.0)))
        channels.append(channel)
    _check_ids(channels, rows.where)
    left_out = _left_out(table, spikes)
    if left_out:
        notes.append(f"columns of {spikes.variable} that are not imported: {', '.join(left_out)}")
    if moved:
        notes.append(f"spike times sorted on import: {moved} steps back in all")
    if worst > 0.01:
        notes.append(f"spike times rounded to ticks of {1e6 / spikes.tick_hz:g} µs, by {worst:.2f} ticks at most")
    return tuple(ticks), tuple(channels), notes, len(left_out)


def _lines(table: Array, spikes: SpikesMapping, where: str) -> list[list[Array]]:
    """What the cell holds of each channel."""
    if not spikes.times:
        lines = [[element] for element in table.ravel(order="F")[spikes.header :]]
        if not lines:
            raise FileError("no channels", f"{spikes.variable!r} is empty.", where=where, remedy="check the file")
        return lines
    last = max(spikes.times, spikes.channel, spikes.unit, spikes.number)
    if table.ndim != 2 or table.shape[1] < last or table.shape[0] <= spikes.header:
        raise FileError(
            "wrong shape",
            f"{spikes.variable!r} is a cell of {_shape(table)}, the mapping wants {last} columns and a channel "
            f"below {spikes.header} rows of header.",
            where=where,
            remedy="correct [spikes] in the mapping",
        )
    return [list(line) for line in table[spikes.header :]]


def _steps_back(times_s: NDArray[np.float64], channel: str, where: str, *, sort: bool) -> int:
    """How often a time is before the one that precedes it, which only sorting allows."""
    back = np.diff(times_s) < 0
    if back.any() and not sort:
        raise FileError(
            "unsorted spikes",
            f"spike times of {channel} are not in ascending order ({np.count_nonzero(back)} steps back, the first at "
            f"spike {int(np.argmax(back)) + 2}).",
            where=where,
            remedy="sort them with sort_spikes (--sort-spikes), if they are not pieces with clocks of their own",
        )
    return int(np.count_nonzero(back))


def _left_out(table: Array, spikes: SpikesMapping) -> list[str]:
    """Columns of the table that the mapping does not name, by their header if it has one."""
    if not spikes.times:
        return []
    named = {spikes.times, spikes.channel, spikes.unit, spikes.number}
    heads = [cell.ravel() for cell in (table[0] if spikes.header else [])]
    told = [str(head[0]) if head.size == 1 and head.dtype.kind == "U" else "" for head in heads]
    return [(told[k - 1] if told else "") or f"column {k}" for k in range(1, table.shape[1] + 1) if k not in named]


def spike_grid(rows: Rows, draft: Draft, spikes: SpikesMapping, options: ImportOptions) -> tuple[BinGrid, int]:
    """The bins from the clock's zero to the last sample of behavior or the last spike, whichever is later.

    Raises:
        FileError: no bin width is given, or it is no whole number of ticks.
        ConfigError: the mapping gives stamps of bins, which spike times do not have.
    """
    time = rows.mapping.time
    if time.stamps or time.ambiguous or time.origin_s:
        raise ConfigError(
            "stamps, origin_s and ambiguous have no meaning for spike times.", where="[time]", remedy="give bin_ms"
        )
    width = options.bin_ms if options.bin_ms is not None else stated_ms(rows, time)
    if width is None:
        raise FileError(
            "unknown bin width",
            "spike times can be put in bins of any width, and none is given.",
            where=rows.where,
            remedy="give bin_ms (--bin-ms)",
        )
    grid_of(width, where=rows.where)
    ticks_per_bin = width / 1000 * spikes.tick_hz
    if round(ticks_per_bin) < 1 or abs(ticks_per_bin - round(ticks_per_bin)) > 1e-6 * ticks_per_bin:
        raise FileError(
            "impossible bin width",
            f"bins of {width:g} ms are no whole number of ticks at {spikes.tick_hz} Hz.",
            where=rows.where,
            remedy="give another width",
        )
    grid = BinGrid(spikes.tick_hz, round(ticks_per_bin))
    ends = [int(t[-1]) + 1 for t in draft.spikes or () if len(t)]
    ends += [s.origin_tick + len(s.values) * s.ticks_per_sample for s in draft.sampled]
    num_bins = -(-max(ends, default=0) // grid.ticks_per_bin)
    if not 0 < num_bins <= _MOST_BINS:
        raise FileError(
            "no bins" if num_bins < 1 else "bad spike times",
            "it has no spike and no behavior." if num_bins < 1 else f"it lasts {num_bins} bins of {width:g} ms.",
            where=rows.where,
            remedy="check the unit of the times (time_unit in [spikes])",
        )
    return grid, num_bins


def _channel(line: list[Array], spikes: SpikesMapping, number: int, where: str) -> Channel:
    """Named by the numbers in the table, or by its row."""
    name = f"{spikes.prefix}{_whole(line, spikes.channel, where) if spikes.channel else number}"
    if spikes.unit:
        name += f"u{_whole(line, spikes.unit, where)}"
    return Channel(name, spikes.kind, spikes.array)


def _whole(line: list[Array], column: int, where: str) -> int:
    value = line[column - 1]
    number = float(value.flat[0]) if value.size == 1 and value.dtype.kind in "biuf" else np.nan
    if not np.isfinite(number) or number != np.rint(number) or number < 0:
        raise FileError(
            "wrong shape",
            f"column {column} of the spikes holds {str(value.ravel()[:2])[:40]}, not a whole number.",
            where=where,
            remedy="correct the columns in [spikes]",
        )
    return int(number)


def _times(line: list[Array], spikes: SpikesMapping, channel: str, where: str) -> NDArray[np.float64]:
    values = line[spikes.times - 1 if spikes.times else 0]
    if values.dtype.kind not in "biuf" or values.size != max(values.shape, default=0):
        raise FileError(
            "wrong shape",
            f"spike times of {channel} are {values.dtype} of {_shape(values)}, not a vector of numbers.",
            where=where,
            remedy="correct the columns in [spikes]",
        )
    times_s = values.ravel().astype(np.float64) / _PER_S[spikes.time_unit]
    if not np.isfinite(times_s).all() or np.any(times_s < 0) or np.any(times_s > _LATEST_S):
        bad = int(np.argmax(~(np.isfinite(times_s) & (times_s >= 0) & (times_s <= _LATEST_S))))
        raise FileError(
            "bad spike times",
            f"spike {bad + 1} of {channel} is at {times_s[bad]:g} s.",
            where=where,
            remedy="check the unit of the times and the clock's zero",
        )
    if spikes.number and _whole(line, spikes.number, where) != len(times_s):
        raise FileError(
            "bad spike times",
            f"{channel} has {len(times_s)} spike times, the file says {_whole(line, spikes.number, where)}.",
            where=where,
            remedy="the file may be damaged; copy it again",
        )
    return times_s


def _check_ids(channels: list[Channel], where: str) -> None:
    repeated = [name for name, number in Counter(c.id for c in channels).items() if number > 1]
    if repeated:
        raise FileError(
            "repeated channel",
            f"channel {repeated[0]} is there more than once.",
            where=where,
            remedy="name a column with the unit's number in [spikes]",
        )


def _shape(values: Array) -> str:
    return "x".join(map(str, values.shape))
