"""Spikes of an NWB file: sorted units or threshold crossings, by channel and array, as integer ticks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from betz.core.session import Channel, ChannelKind
from betz.core.timegrid import Ticks
from betz.data.importers.files import FileError
from betz.data.importers.nwb_file import NwbFile, text_of
from betz.data.importers.probe import target_names

Array = NDArray[Any]
Float = NDArray[np.float64]
Slot = Literal["sum", "unit"] | None
_LATEST_S = 1e9
_RATES = (30_000, 25_000, 20_000, 40_000, 1_000_000)
_WORDS = ("crossing", "multiunit", "multi-unit", "multi unit", "unsorted")
_LABELS = ("label", "electrode_label", "channel_name", "electrode_name", "name")


@dataclass(frozen=True)
class Line:
    """One unit or stream of crossings: its times, where it was recorded, and what it is."""

    times_s: Float
    electrode: str
    array: str
    kind: ChannelKind


@dataclass
class Spikes:
    """What was found of spikes.

    Args:
        lines: one a unit or stream of crossings.
        resolution_s: of the times, where the file says so; 0 = it does not.
        observed: (M, 2) seconds in which all units were observed; None = not said.
        notes, skipped: as in a draft.
    """

    lines: list[Line]
    resolution_s: float = 0.0
    observed: Float | None = None
    notes: list[str] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)


def read_lines(file: NwbFile) -> Spikes:
    """All spike times in the units table and in series of spike events.

    Raises:
        FileError: there are none, or times are NaN or impossible.
    """
    found = _from_units(file) if file.nwb.units is not None and len(file.nwb.units) else Spikes([])
    for path, series in file.series.items():
        if type(series).__name__ == "SpikeEventSeries":
            found.lines.append(_from_events(file, path, series))
    if not found.lines:
        raise FileError(
            "no spikes",
            "it has neither a units table with spike times nor series of spike events.",
            where=file.where,
            remedy="export the spike times to the units table; raw voltage has to be sorted or thresholded first",
        )
    return found


def _from_units(file: NwbFile) -> Spikes:
    units = file.nwb.units
    if "spike_times" not in units.colnames:
        raise FileError("no spikes", "its units table has no spike times.", where=file.where,
                        remedy="export the spike times as well")  # fmt: skip
    times = np.asarray(file.hdf5["units/spike_times"][()], dtype=np.float64)
    ends = np.asarray(file.hdf5["units/spike_times_index"][()]).astype(np.int64)
    if len(ends) != len(units) or np.any(np.diff(ends, prepend=0) < 0) or ends[-1] != len(times):
        raise FileError("damaged file", f"the index of {len(times)} spike times does not fit them.", where=file.where,
                        remedy="copy it again from its source")  # fmt: skip
    _check_times(times, file.where)
    electrodes, arrays = _places(file, units)
    told = f"{text_of(units.description)} {text_of(file.nwb.keywords)}".lower()
    kind: ChannelKind = "crossings" if any(word in told for word in _WORDS) else "unit"
    kinds = _kinds(units) or [kind] * len(electrodes)
    lines = [
        Line(part, electrode, array, own)
        for part, electrode, array, own in zip(np.split(times, ends[:-1]), electrodes, arrays, kinds, strict=True)
    ]
    found = Spikes(lines, resolution_s=float(units.resolution or 0.0))
    crossings = sum(line.kind == "crossings" for line in lines)
    parts = [f"{n} {what}" for n, what in ((len(lines) - crossings, "sorted units"),
                                          (crossings, "streams of threshold crossings")) if n]  # fmt: skip
    found.notes.append(f"the units table holds {' and '.join(parts)}")
    _add_observed(file, found)
    return found


def _kinds(units: Any) -> list[ChannelKind] | None:
    """What each unit is, where a column says so as Betz's own files do."""
    if "kind" not in units.colnames:
        return None
    told = [text_of(value) for value in units["kind"][:]]
    return told if set(told) <= {"crossings", "unit"} else None  # type: ignore[return-value]


def _check_times(times_s: Float, where: str) -> None:
    bad = ~(np.isfinite(times_s) & (np.abs(times_s) <= _LATEST_S))
    if bad.any():
        raise FileError(
            "bad spike times",
            f"{np.count_nonzero(bad)} spike times are no times (first: {times_s[int(np.argmax(bad))]:g} s).",
            where=where,
            remedy="check how the file was made; NWB wants seconds",
        )


def _places(file: NwbFile, units: Any) -> tuple[list[str], list[str]]:
    """Electrode (empty if not said) and array of each unit."""
    number = len(units)
    electrodes, arrays = [""] * number, [""] * number
    if "electrodes" in units.colnames and file.nwb.electrodes is not None:
        index = np.asarray(units["electrodes"].data[:]).astype(np.int64)
        rows = np.asarray(units["electrodes"].target.data[:]).astype(np.int64)
        names, groups = electrode_names(file)
        for k, (first, end) in enumerate(zip([0, *index[:-1].tolist()], index.tolist(), strict=True)):
            own = rows[first:end]
            if len(own):
                electrodes[k], arrays[k] = "+".join(names[i] for i in own), groups[own[0]]
    if not all(arrays) and "electrode_group" in units.colnames:
        groups = [name.rpartition("/")[2] for name in target_names(file.hdf5["units/electrode_group"])]
        arrays = [a or g for a, g in zip(arrays, groups, strict=True)]
    return electrodes, [array or "A" for array in arrays]


def electrode_names(file: NwbFile) -> tuple[list[str], list[str]]:
    """Name and group of each row of the electrodes table."""
    table = file.nwb.electrodes
    ids = [f"e{int(i)}" for i in table.id[:]]
    for label in _LABELS:
        if label in table.colnames:
            told = [text_of(v) for v in table[label][:]]
            if all(told) and len(set(told)) == len(told):
                ids = told
                break
    groups = [text_of(g) for g in table["group_name"][:]] if "group_name" in table.colnames else ["A"] * len(ids)
    return ids, groups


def _add_observed(file: NwbFile, found: Spikes) -> None:
    """The time in which every unit was observed, where the file says so."""
    if "obs_intervals" not in file.nwb.units.colnames:
        return
    pairs = np.asarray(file.hdf5["units/obs_intervals"][()], dtype=np.float64).reshape(-1, 2)
    ends = np.asarray(file.hdf5["units/obs_intervals_index"][()]).astype(np.int64)
    parts = [part for part in np.split(pairs, ends[:-1]) if len(part)]
    if len(parts) < len(ends) or not np.isfinite(pairs).all():
        found.notes.append("observation intervals of units are incomplete, left out")
        found.skipped["incomplete observation intervals"] = 1
        return
    distinct = {part.tobytes(): part for part in parts}
    if len(distinct) > 1:
        found.notes.append(f"units were observed in {len(distinct)} different times; what they share is valid")
    found.observed = _shared(list(distinct.values()))


def _shared(parts: Sequence[Float]) -> Float:
    """(M, 2) the time that lies in one interval of every part."""
    edges = np.unique(np.concatenate([p.ravel() for p in parts]))
    middle = (edges[1:] + edges[:-1]) / 2
    inside = np.ones(len(middle), dtype=bool)
    for part in parts:
        inside &= ((middle[:, None] >= part[:, 0]) & (middle[:, None] < part[:, 1])).any(axis=1)
    return np.stack((edges[:-1][inside], edges[1:][inside]), axis=1)


def _from_events(file: NwbFile, path: str, series: Any) -> Line:
    """A series of spike events: a stream of crossings of its electrodes."""
    if series.timestamps is None:
        raise FileError("bad spike times", f"spike events {path} have no timestamps.", where=file.where,
                        remedy="export them with timestamps")  # fmt: skip
    times = np.asarray(series.timestamps[:], dtype=np.float64)
    _check_times(times, file.where)
    electrode, array = path.rpartition("/")[2], "A"
    if file.nwb.electrodes is not None and series.electrodes is not None:
        names, groups = electrode_names(file)
        rows = np.asarray(series.electrodes.data[:]).astype(np.int64)
        if len(rows):
            electrode, array = "+".join(names[i] for i in rows), groups[rows[0]]
    return Line(times, electrode, array, "crossings")


def tick_rate(spikes: Spikes, bin_ms: float) -> int:
    """Ticks a second: the clock on which the times lie, if bins are whole numbers of its ticks, else 1 MHz."""
    told = 1 / spikes.resolution_s if spikes.resolution_s > 0 else 0.0
    rates = [round(told)] if told >= 1 and abs(told - round(told)) < 1e-3 * told else []
    some = np.concatenate([line.times_s[:300] for line in spikes.lines])
    for rate in (*rates, *_RATES):
        ticks = some * rate
        whole_bins = abs(bin_ms * rate / 1000 - round(bin_ms * rate / 1000)) < 1e-9 and bin_ms * rate >= 1000
        if whole_bins and np.abs(ticks - np.rint(ticks)).max(initial=0.0) < 0.01:
            return rate
    return _RATES[-1]


def as_channels(
    spikes: Spikes, *, tick_hz: int, slot: Slot, sort: bool, where: str
) -> tuple[tuple[Ticks, ...], tuple[Channel, ...]]:
    """Ticks of each channel, and the channels; notes are added to ``spikes``.

    Args:
        spikes: what was read.
        tick_hz: ticks a second.
        slot: ``sum`` pools what was recorded on one electrode; otherwise every unit is a channel.
        sort: whether unsorted times are sorted.
        where: the file, for messages.

    Raises:
        FileError: times are not in ascending order, and ``sort`` is False.
    """
    ticks: list[Ticks] = []
    back, worst = 0, 0.0
    for line in spikes.lines:
        exact = line.times_s * tick_hz
        found = np.rint(exact).astype(np.int64)
        worst = max(worst, float(np.abs(exact - found).max(initial=0.0)))
        step = int(np.count_nonzero(np.diff(found) < 0))
        if step and not sort:
            raise FileError(
                "unsorted spikes",
                f"spike times of unit {len(ticks)} are not in ascending order ({step} steps back).",
                where=where,
                remedy="sort them with sort_spikes (--sort-spikes), if they are not pieces with clocks of their own",
            )
        back += step
        ticks.append(np.sort(found) if step else found)
    if back:
        spikes.notes.append(f"spike times sorted on import: {back} steps back in all")
    if worst > 0.01:
        spikes.notes.append(f"spike times rounded to ticks of {1e6 / tick_hz:g} µs, by {worst:.2f} ticks at most")
    if slot == "sum":
        return _pooled(spikes, ticks)
    kept, channels = tuple(ticks), _named(spikes.lines)
    _note_duplicates(kept, channels, spikes.notes)
    return kept, channels


def _named(lines: Sequence[Line]) -> tuple[Channel, ...]:
    """Channels named by electrode, by unit where an electrode has several, and by array where names repeat."""
    several = Counter((line.array, line.electrode) for line in lines)
    count: Counter[tuple[str, str]] = Counter()
    names = []
    for k, line in enumerate(lines):
        place = (line.array, line.electrode)
        if not line.electrode:
            names.append(f"u{k}")
        elif several[place] == 1:
            names.append(line.electrode)
        else:
            names.append(f"{line.electrode}u{count[place]}")
            count[place] += 1
    repeated = Counter(names)
    return tuple(
        Channel(f"{line.array}_{name}" if repeated[name] > 1 else name, line.kind, line.array)
        for name, line in zip(names, lines, strict=True)
    )


def _pooled(spikes: Spikes, ticks: Sequence[Ticks]) -> tuple[tuple[Ticks, ...], tuple[Channel, ...]]:
    """Everything on one electrode as one channel of crossings."""
    places: dict[tuple[str, str], list[Ticks]] = {}
    for k, (line, own) in enumerate(zip(spikes.lines, ticks, strict=True)):
        places.setdefault((line.array, line.electrode or f"u{k}"), []).append(own)
    spikes.notes.append(f"{len(ticks)} units and streams of crossings pooled to {len(places)} electrodes")
    merged = tuple(own[0] if len(own) == 1 else np.sort(np.concatenate(own)) for own in places.values())
    lines = [Line(np.empty(0), electrode, array, "crossings") for array, electrode in places]
    channels = _named(lines)
    _note_duplicates(merged, channels, spikes.notes)
    return merged, channels


def _note_duplicates(ticks: Sequence[Ticks], channels: Sequence[Channel], notes: list[str]) -> None:
    first: dict[bytes, str] = {}
    same = []
    for own, channel in zip(ticks, channels, strict=True):
        if len(own):
            other = first.setdefault(own.tobytes(), channel.id)
            if other != channel.id:
                same.append(f"{channel.id} = {other}")
    if same:
        notes.append(f"{len(same)} channels have the spikes of another one: {', '.join(same[:6])}")
