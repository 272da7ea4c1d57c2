"""Trials, other tables of intervals, and invalid times of an NWB file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.intervals import Intervals
from betz.core.session import BehaviorDim, Trials
from betz.core.timegrid import BinGrid, Ticks
from betz.data.importers.build import Draft, Sampled
from betz.data.importers.nwb_behavior import plain
from betz.data.importers.nwb_file import NwbFile, text_of

Array = NDArray[Any]
MOST_CLASSES = 64
_CONDITIONS = ("condition", "trial_type", "condition_id", "task_condition")
_LABELS = ("label", "labels", "state", "name", "tags", "condition", "type")
_TIMES = ("start_time", "stop_time")


def add_intervals(file: NwbFile, draft: Draft, num_bins: int) -> None:
    """Add trials, a discrete dimension for each other table of intervals, and invalid times to a draft.

    The class of a bin is that of the interval in which the bin ends; where intervals overlap, the later row counts.
    """
    nwb = file.nwb
    if nwb.trials is not None and len(nwb.trials):
        draft.trials = read_trials(nwb.trials, draft, draft.grid.ticks_from_s)
    if nwb.invalid_times is not None and len(nwb.invalid_times):
        pairs_s, good = _pairs(nwb.invalid_times, draft, "invalid times")
        draft.invalid |= Intervals.of(draft.grid.ticks_from_s(pairs_s[good]).reshape(-1, 2))
        draft.notes.append(f"{np.count_nonzero(good)} invalid times are marked not valid")
    for name, table in _state_tables(file).items():
        _add_states(name, table, draft, num_bins)


def state_names(file: NwbFile) -> list[str]:
    """Names of the discrete dimensions that tables of intervals become."""
    return [plain(name) for name in _state_tables(file)]


def _state_tables(file: NwbFile) -> dict[str, Any]:
    tables = dict((file.nwb.intervals or {}).items())
    return {name: table for name, table in tables.items() if name not in ("trials", "invalid_times") and len(table)}


def _pairs(table: Any, draft: Draft, what: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(M, 2) start and stop in seconds, and which rows are intervals; the others are counted."""
    pairs = np.stack([np.asarray(table[name].data[:], dtype=np.float64) for name in _TIMES], axis=1)
    good = np.isfinite(pairs).all(axis=1) & (np.abs(pairs) < 1e9).all(axis=1) & (pairs[:, 1] >= pairs[:, 0])
    if not good.all():
        draft.notes.append(f"{np.count_nonzero(~good)} of {len(good)} {what} have impossible times, left out")
        draft.skip(f"{what} with impossible times", int(np.count_nonzero(~good)))
    return pairs, good


def read_trials(table: Any, draft: Draft, to_ticks: Callable[[Any], Ticks]) -> Trials:
    """A table of trials; rows without possible times and columns of lists are left out, noted and counted.

    Args:
        table: with ``start_time`` and ``stop_time`` in seconds.
        draft: gets the notes.
        to_ticks: seconds → ticks.
    """
    pairs, good = _pairs(table, draft, "trials")
    ticks = to_ticks(pairs[good])
    columns: dict[str, Array] = {}
    left_out = []
    for name in table.colnames:
        if name in _TIMES:
            continue
        values = _column(table, name)
        if values is None:
            left_out.append(name)
        else:
            columns[name] = values[good]
    if left_out:
        draft.notes.append(f"columns of the trial table that are lists or objects, left out: {', '.join(left_out)}")
        draft.skip("columns of the trial table", len(left_out))
    condition: tuple[str, ...] = ()
    for name in _CONDITIONS:
        if name in columns and columns[name].ndim == 1:
            condition = tuple(text_of(v) for v in columns[name].tolist())
            break
    return Trials(ticks[:, 0], ticks[:, 1], condition, columns)


def _column(table: Any, name: str) -> Array | None:
    """A column of numbers or texts with an entry a row; None for others."""
    column = table[name]
    if type(column).__name__ == "VectorIndex":
        return None
    values = np.asarray(column.data[:])
    if values.dtype.kind in "biuf":
        return values
    if values.dtype.kind in "OSU" and values.ndim == 1 and all(isinstance(v, (str, bytes)) for v in values.tolist()):
        return np.array([text_of(v) for v in values.tolist()], dtype=np.str_)
    return None


def _add_states(name: str, table: Any, draft: Draft, num_bins: int) -> None:
    """A table of intervals as a discrete dimension: which of them a bin is in, or none."""
    pairs, good = _pairs(table, draft, f"intervals of {name}")
    labels = next((found for key in _LABELS if (found := _labels(table, key)) is not None), None)
    told = ["yes"] * len(good) if labels is None else labels
    classes = ("no" if labels is None else "none", *dict.fromkeys(t for t, ok in zip(told, good, strict=True) if ok))
    if len(classes) < 2 or len(classes) > MOST_CLASSES:
        draft.notes.append(f"intervals {name} have {len(classes) - 1} different labels, left out")
        draft.skip("tables of intervals", 1)
        return
    grid = draft.grid
    values = np.zeros((num_bins, 1))
    last = BinGrid(grid.tick_hz, grid.ticks_per_bin, grid.origin_tick).start_of(np.arange(1, num_bins + 1)) - 1
    ticks = grid.ticks_from_s(np.where(good[:, None], pairs, 0.0))
    for (start, stop), label, ok in zip(ticks.tolist(), told, good.tolist(), strict=True):
        if ok:
            first, end = np.searchsorted(last, (start, stop))
            values[first:end] = classes.index(label)
    dim = BehaviorDim(plain(name), "", "discrete", classes)
    draft.sampled.append(Sampled(name, values, (dim,), grid.origin_tick, grid.ticks_per_bin))
    draft.notes.append(f"intervals {name} became a discrete dimension: {', '.join(classes)}")


def _labels(table: Any, key: str) -> list[str] | None:
    """The text of a column, one a row; the entries of a list are joined."""
    if key not in table.colnames:
        return None
    return [text_of(v if isinstance(v, (str, bytes)) else list(v) if np.ndim(v) else v) for v in table[key][:]]
