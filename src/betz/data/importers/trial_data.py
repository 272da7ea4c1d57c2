"""``trial_data`` tables of MATLAB (TrialData, PyalData): a struct a trial, with binned spikes and behavior.

Areas stay apart as arrays. Trials were cut out of a recording or put together from several stretches; the file does not
say which, so lags and filters restart at each of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.session import BehaviorDim, Channel, Trials
from betz.data.importers.build import Draft, ImportOptions
from betz.data.importers.convert import counts_from, grid_of
from betz.data.importers.files import ArrayFile
from betz.data.importers.structs import Table, axis_names, date_of, labels, plain, text, unique

Array = NDArray[Any]
NAMES = ("trial_data", "td")
_BEHAVIOR = {
    "pos": ("hand", 0, "cm"),
    "vel": ("hand", 1, "cm/s"),
    "acc": ("hand", 2, "cm/s^2"),
    "force": ("force", 0, "N"),
}


def trial_data_in(file: ArrayFile) -> str:
    """Name of the ``trial_data`` variable of a file; empty if it has none."""
    found = [n for n in NAMES if n in file.variables and file.variables[n].type == "struct"]
    return found[0] if found and file.reaches(f"{found[0]}.bin_size") else ""


def read_trial_data(file: ArrayFile, name: str, options: ImportOptions) -> Draft:
    """A ``trial_data`` table as a draft.

    Behavior: ``pos``, ``vel``, ``acc`` as ``hand_x`` …, ``hand_vx`` …, ``hand_ax`` …; ``force`` as ``force_x`` …;
    ``emg`` by its names; further fields with a row a bin under their own names. ``idx_go_cue`` and the like become
    columns of the trial table in seconds (``go_cue_s``).

    Args:
        file: for which :func:`trial_data_in` is not empty.
        name: of the variable.
        options: ``slot="sum"`` pools the units of an electrode.

    Raises:
        FileError: there are no spikes, fields of a trial have different lengths, or widths of bins differ.
    """
    table = Table(file, name)
    areas = [f for f in table.fields if f.endswith("_spikes")]
    if not areas:
        raise table.refuse(
            "missing variable", f"{name} has no field that ends in _spikes; it has {', '.join(table.fields)}."
        )
    lengths = np.array([len(v) if v.size else 0 for v in table.column(areas[0])], np.int64)
    grid = grid_of(_bin_ms(table), where=table.where)
    draft = Draft(
        path=file.path,
        importer="trial_data",
        counts=np.empty((0, 0), np.uint8),
        channels=(),
        grid=grid,
        subject=table.text("monkey"),
        task=table.text("task"),
        tags=date_of(table.text("date") or table.text("date_time")),
        notes=["units are not in the file: those of TrialData (cm, cm/s, N) are taken"],
    )
    used = {"bin_size", "monkey", "task", "date", "date_time", *areas}
    counts = []
    for area in areas:
        values, channels = _area(table, area, lengths, draft, options)
        used.add(f"{area.removesuffix('_spikes')}_unit_guide")
        counts.append(values)
        draft.channels += channels
    draft.counts = np.ascontiguousarray(np.concatenate(counts, axis=1))
    used |= _add_behavior(draft, table, lengths, used)
    used |= _add_trials(draft, table, lengths, used)
    rest = [f for f in table.fields if f not in used]
    if rest:
        draft.notes.append(f"fields of {name} that are not imported: {', '.join(rest)}")
        draft.skip("variables not imported", len(rest))
    return draft


def _bin_ms(table: Table) -> float:
    sizes = np.unique([float(v.flat[0]) if v.size == 1 and v.dtype.kind in "biuf" else np.nan
                       for v in table.column("bin_size")])  # fmt: skip
    if len(sizes) != 1 or not np.isfinite(sizes[0]):
        raise table.refuse("mixed bin widths", f"bin_size of {table.name} is not one number ({sizes[:4].tolist()}).",
                           "bin all trials alike")  # fmt: skip
    return float(sizes[0]) * 1000


def _joined(table: Table, field: str, lengths: NDArray[np.int64]) -> Array:
    """(N, K) a field with a row a bin, trial after trial."""
    pieces = table.column(field)
    for i, (piece, number) in enumerate(zip(pieces, lengths.tolist(), strict=True), start=1):
        if number and (piece.ndim != 2 or len(piece) != number or piece.dtype.kind not in "biuf"):
            raise table.refuse("different lengths", f"{field} of trial {i} is {piece.dtype} {piece.shape}, the trial "
                               f"has {number} bins.", "leave the trial out of the file")  # fmt: skip
    full = [piece for piece, number in zip(pieces, lengths.tolist(), strict=True) if number]
    if len({piece.shape[1] for piece in full}) > 1:
        raise table.refuse("wrong shape", f"{field} has different numbers of columns in different trials.")
    return np.concatenate(full) if full else np.empty((0, 1))


def _area(
    table: Table, field: str, lengths: NDArray[np.int64], draft: Draft, options: ImportOptions
) -> tuple[NDArray[np.uint8], tuple[Channel, ...]]:
    """Counts and channels of one area, named by its ``unit_guide`` (electrode, unit)."""
    area = field.removesuffix("_spikes")
    counts = counts_from(_joined(table, field, lengths), encoding="counts", bin_s=draft.grid.bin_s, where=table.where,
                         name=field)  # fmt: skip
    guide_name = f"{area}_unit_guide"
    guide = table.column(guide_name)[0] if guide_name in table.fields else np.empty((0, 0))
    if guide.shape != (counts.shape[1], 2) or guide.dtype.kind not in "biuf":
        draft.notes.append(f"{area}: no unit_guide that fits its {counts.shape[1]} columns, which are numbered")
        return counts, tuple(Channel(f"{area}_{c + 1}", "unit", area) for c in range(counts.shape[1]))
    electrodes, units = guide.astype(np.int64).T
    if options.slot == "sum":
        names = list(dict.fromkeys(electrodes.tolist()))
        total = np.stack([counts[:, electrodes == e].sum(axis=1, dtype=np.int64) for e in names], axis=1)
        draft.notes.append(f"{area}: {counts.shape[1]} units pooled to {len(names)} electrodes")
        pooled = counts_from(total, encoding="counts", bin_s=1.0, where=table.where, name=f"{field} pooled")
        return pooled, tuple(Channel(f"{area}_ch{e}", "crossings", area) for e in names)
    ids = unique([f"{area}_ch{e}u{u}" if u else f"{area}_ch{e}" for e, u in zip(electrodes, units, strict=True)])
    return counts, tuple(Channel(i, "unit" if u else "crossings", area) for i, u in zip(ids, units, strict=True))


def _add_behavior(draft: Draft, table: Table, lengths: NDArray[np.int64], used: set[str]) -> set[str]:
    """Every other field with a row a bin in all trials."""
    taken: set[str] = set()
    for field in table.fields:
        if field in used or field.startswith("idx_") or field.endswith(("_unit_guide", "_rates")):
            continue
        pieces = table.column(field)
        fits = [v.ndim == 2 and len(v) == n for v, n in zip(pieces, lengths.tolist(), strict=True) if n]
        if not fits or not all(fits) or pieces[int(np.argmax(lengths > 0))].dtype.kind not in "biuf":
            continue
        if lengths.max() == 1:
            continue
        values = _joined(table, field, lengths).astype(np.float64)
        number = values.shape[1]
        names, unit = [field] if number == 1 else [f"{field}_{k + 1}" for k in range(number)], "a.u."
        if field in _BEHAVIOR:
            stem, order, unit = _BEHAVIOR[field]
            names = axis_names(stem, number, order=order)
        elif field == "emg" and "emg_names" in table.fields:
            found = labels(table.column("emg_names")[0])
            names = unique([f"emg_{plain(n)}" for n in found]) if len(found) == number else names
            taken.add("emg_names")
        taken.add(field)
        draft.behavior.append((field, values, tuple(BehaviorDim(n, unit) for n in names)))
    return taken


def _add_trials(draft: Draft, table: Table, lengths: NDArray[np.int64], used: set[str]) -> set[str]:
    """The trial table: times of ``idx_*`` fields, and other fields with a number or text a trial."""
    kept = lengths > 0
    if not kept.all():
        draft.notes.append(f"{int((~kept).sum())} of {len(kept)} trials have no bins, left out")
        draft.skip("trials without bins", int((~kept).sum()))
    bins = np.concatenate(([0], np.cumsum(lengths[kept])))
    start = draft.grid.start_of(bins)
    columns: dict[str, Array] = {}
    condition: tuple[str, ...] = ()
    for field in table.fields:
        if field in used or field.endswith("_unit_guide"):
            continue
        values = [v for v, keep in zip(table.column(field), kept.tolist(), strict=True) if keep]
        texts = [text(v) for v in values]
        numeric = all(v.dtype.kind in "biuf" and v.size <= 1 for v in values)
        if numeric and values:
            found = np.array([float(v.flat[0]) if v.size else np.nan for v in values])
            if field.startswith("idx_"):
                columns[f"{field[4:]}_s"] = draft.grid.seconds(start[:-1]) + (found - 1) * draft.grid.bin_s
            else:
                columns[field] = found
            if field in ("target_direction", "tgtDir", "target_dir"):
                condition = tuple(f"{value:g}" for value in found.tolist())
        elif any(texts):
            columns[field] = np.array(texts)
        else:
            continue
        used = used | {field}
    draft.trials = Trials(start[:-1], start[1:], condition, columns)
    draft.edges = start[1:-1]
    draft.notes.append(f"{len(start) - 1} trials: lags and filters restart at {len(start) - 2} edges between them")
    return used
