"""``xds`` structs of the Miller laboratory: spike times, behavior at the times of its bins, and a trial table.

Spike times are kept as ticks; without them, the counts of the struct are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.session import BehaviorDim, Channel, Trials
from betz.core.timegrid import BinGrid, Ticks, count_spikes
from betz.data.importers.build import Draft, ImportOptions, Sampled
from betz.data.importers.convert import counts_from, grid_from_stamps
from betz.data.importers.files import ArrayFile
from betz.data.importers.structs import Table, axis_names, date_of, labels, plain, unique

Array = NDArray[Any]
NAME = "xds"
RATES = (30_000, 1_000_000)
_KINEMATICS = {
    "curs_p": ("cursor", 0, "cm"), "curs_v": ("cursor", 1, "cm/s"), "curs_a": ("cursor", 2, "cm/s^2"),
    "kin_p": ("hand", 0, "cm"), "kin_v": ("hand", 1, "cm/s"), "kin_a": ("hand", 2, "cm/s^2"),
}  # fmt: skip
_NAMED = {"EMG": ("EMG_names", "emg"), "joint_angles": ("joint_names", "joint")}
_USED = {
    "meta", "bin_width", "time_frame", "spike_counts", "spikes", "unit_names", "EMG", "EMG_names", "force",
    "joint_angles", "joint_names", "trial_start_time", "trial_end_time", "trial_gocue_time", "trial_target_dir",
    "trial_target_direction", "trial_result", "sorted", *_KINEMATICS,
}  # fmt: skip


def is_xds(file: ArrayFile) -> bool:
    """Whether a file holds an ``xds`` struct."""
    known = NAME in file.variables and file.variables[NAME].type == "struct"
    return known and file.reaches(f"{NAME}.time_frame")


def read_xds(file: ArrayFile, options: ImportOptions) -> Draft:
    """An ``xds`` struct as a draft.

    Args:
        file: for which :func:`is_xds` holds.
        options: the bin width, where there are spike times; without it that of the struct.

    Raises:
        FileError: fields are missing, have another shape, or the times of the bins are not regular.
    """
    table = Table(file, NAME)
    frame = table.matrix("time_frame")
    if frame is None or len(table) != 1:
        raise table.refuse("missing variable", f"{NAME} has no time_frame, or is several structs.")
    width = table.matrix("bin_width")
    stated_ms = None if width is None else float(width.flat[0]) * 1000
    grid, bins = grid_from_stamps(frame.ravel().astype(np.float64), bin_ms=stated_ms, resolution_s=1e-6,
                                  where=table.where, name=f"{NAME}.time_frame")  # fmt: skip
    meta = table.column("meta")[0] if "meta" in table.fields else np.empty(0)
    about = meta.flat[0] if meta.size == 1 and isinstance(meta.flat[0], dict) else {}

    def said(*fields: str) -> str:
        found = [labels(np.asarray(about[f]))[:1] for f in fields if f in about]
        return next((f[0] for f in found if f and f[0]), "")

    draft = Draft(
        path=file.path,
        importer=NAME,
        counts=np.empty((0, 0), np.uint8),
        channels=(),
        grid=grid,
        subject=said("monkey", "monkey_name"),
        task=said("task", "task_name"),
        tags=date_of(said("dateTime", "date", "sessionDate")),
        notes=["units of the cursor are not in the file: those of the laboratory (cm) are taken"],
    )
    _add_signals(draft, table, bins, options)
    _add_behavior(draft, table, grid, bins)
    _add_trials(draft, table)
    rest = [f for f in table.fields if f not in _USED and not f.startswith(("has_", "trial_info"))]
    if rest:
        draft.notes.append(f"fields of {NAME} that are not imported: {', '.join(rest)}")
        draft.skip("variables not imported", len(rest))
    return draft


# ---- signals


def _add_signals(draft: Draft, table: Table, bins: NDArray[np.int64], options: ImportOptions) -> None:
    names = labels(table.column("unit_names")[0]) if "unit_names" in table.fields else []
    times = table.column("spikes")[0] if "spikes" in table.fields else np.empty(0)
    if times.dtype == object and times.size:
        own = draft.grid
        draft.spikes, hz = _ticks(table, times)
        start = round(own.origin_tick * hz / own.tick_hz)
        width = (options.bin_ms or own.bin_ms) / 1000 * hz
        if abs(width - round(width)) > 1e-6 * width or round(width) < 1:
            raise table.refuse("impossible bin width", f"bins of {width / hz * 1000:g} ms are no whole number of ticks "
                               f"at {hz} Hz.", "give another width")  # fmt: skip
        draft.grid = BinGrid(hz, round(width), start)
        num_bins = -(-round((int(bins[-1]) + 1) * own.ticks_per_bin * hz / own.tick_hz) // draft.grid.ticks_per_bin)
        draft.counts = count_spikes(draft.spikes, draft.grid, num_bins)
        number = len(draft.spikes)
    else:
        counts = table.matrix("spike_counts")
        if counts is None:
            raise table.refuse("missing variable", f"{NAME} has neither spikes nor spike_counts.")
        draft.counts = counts_from(counts, encoding="counts", bin_s=draft.grid.bin_s, where=table.where,
                                   name=f"{NAME}.spike_counts")  # fmt: skip
        draft.bins = bins
        number = counts.shape[1]
    sorted_ = table.matrix("sorted")
    kind: Any = "unit" if sorted_ is not None and sorted_.flat[0] else "crossings"
    if len(names) != number:
        draft.notes.append(f"{len(names)} unit_names for {number} columns: they are numbered")
        names = [f"ch{c + 1}" for c in range(number)]
    draft.channels = tuple(Channel(n, kind) for n in unique([n or f"ch{c + 1}" for c, n in enumerate(names)]))


def _ticks(table: Table, cell: Array) -> tuple[tuple[Ticks, ...], int]:
    """Ticks of every unit, at 30 kHz if all times are whole ticks of it, else in µs."""
    trains = []
    for number, element in enumerate(cell.ravel(order="F").tolist(), start=1):
        values = np.asarray(element)
        times_s = values.ravel().astype(np.float64) if values.dtype.kind in "biuf" else np.array([np.nan])
        if not np.isfinite(times_s).all() or np.any(times_s < 0) or np.any(times_s > 1e7):
            raise table.refuse("bad spike times", f"spikes of unit {number} are no times in seconds.")
        if np.any(np.diff(times_s) < 0):
            raise table.refuse("unsorted spikes", f"spikes of unit {number} are not in ascending order.")
        trains.append(times_s)
    exact = all(np.abs(t * RATES[0] - np.rint(t * RATES[0])).max(initial=0.0) < 0.01 for t in trains)
    hz = RATES[0] if exact else RATES[1]
    return tuple(np.rint(t * hz).astype(np.int64) for t in trains), hz


# ---- behavior and trials


def _add_behavior(draft: Draft, table: Table, own: BinGrid, bins: NDArray[np.int64]) -> None:
    """Kinematics, force, EMG and joint angles at the times of the struct's bins."""
    for field in (*_KINEMATICS, "force", *_NAMED):
        values = table.matrix(field)
        if values is None:
            continue
        if len(values) != len(bins):
            raise table.refuse("different lengths", f"{field} has {len(values)} rows, time_frame {len(bins)}.")
        unit, number = "a.u.", values.shape[1]
        if field in _KINEMATICS:
            stem, order, unit = _KINEMATICS[field]
            names = axis_names(stem, number, order=order)
        elif field == "force":
            names = axis_names("force", number)
        else:
            names_field, prefix = _NAMED[field]
            found = labels(table.column(names_field)[0]) if names_field in table.fields else []
            fits = len(found) == number
            names = unique([f"{prefix}_{plain(n.removeprefix('EMG_'))}" for n in found]) if fits else []
            names = names or [f"{prefix}_{k + 1}" for k in range(number)]
        dims = tuple(BehaviorDim(n, unit) for n in names)
        if draft.spikes is None:
            draft.behavior.append((field, values.astype(np.float64), dims))
            continue
        full = np.full((int(bins[-1]) + 1, number), np.nan)
        full[bins] = values
        step = own.ticks_per_bin * draft.grid.tick_hz / own.tick_hz
        if abs(step - round(step)) > 1e-6 * step:
            raise table.refuse("impossible bin width", f"bins of {own.bin_ms:g} ms are no whole number of ticks.")
        filled = len(full) - len(bins)
        draft.sampled.append(Sampled(field, full, dims, draft.grid.origin_tick, round(step), missing=filled))


def _add_trials(draft: Draft, table: Table) -> None:
    start, end = table.matrix("trial_start_time"), table.matrix("trial_end_time")
    if start is None or end is None or start.size != end.size:
        return
    start_s, end_s = start.ravel().astype(np.float64), end.ravel().astype(np.float64)
    good = np.isfinite(start_s) & np.isfinite(end_s) & (end_s >= start_s) & (start_s >= 0) & (end_s < 1e7)
    if not good.all():
        draft.notes.append(f"{int((~good).sum())} of {len(good)} trials have impossible times, left out")
        draft.skip("trials with impossible times", int((~good).sum()))
    columns: dict[str, Array] = {}
    cue = table.matrix("trial_gocue_time")
    if cue is not None and cue.size == len(good):
        columns["go_cue_s"] = cue.ravel().astype(np.float64)[good]
    condition: tuple[str, ...] = ()
    for field in ("trial_target_dir", "trial_target_direction"):
        direction = table.matrix(field)
        if direction is not None and direction.size == len(good):
            condition = tuple(f"{value:g}" for value in direction.ravel()[good].tolist())
    results = labels(table.column("trial_result")[0]) if "trial_result" in table.fields else []
    if len(results) == 1 and len(good) != 1:
        results = list(results[0])
    if len(results) == len(good):
        columns["result"] = np.array(results)[good]
    grid = draft.grid
    draft.trials = Trials(grid.ticks_from_s(start_s[good]), grid.ticks_from_s(end_s[good]), condition, columns)
