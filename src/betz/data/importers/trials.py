"""Where trials start, by the rules of a mapping; trials recorded apart get edges."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import ConfigError
from betz.core.session import Trials
from betz.data.importers.build import Draft
from betz.data.importers.files import ArrayFile, FileError
from betz.data.importers.mapping import TrialMapping

Array = NDArray[Any]


def add_trials(draft: Draft, file: ArrayFile, trials: TrialMapping) -> None:
    """Put the trials of a file into a draft, and edges between them if they are concatenated.

    Raises:
        FileError: starts are no numbers, negative or unsorted, or the variable has another length.
        ConfigError: the rule lacks what it needs.
    """
    if trials.rule != "zero_velocity_jump" and not trials.variable:
        raise ConfigError(
            f"the rule {trials.rule!r} needs a variable.", where="[trials]", remedy="name it: variable = …"
        )
    rule = {"starts": _by_starts, "id_changes": _by_id, "zero_velocity_jump": _by_jump}[trials.rule]
    start, end = rule(draft, file, trials)
    if len(start) == 0:
        draft.notes.append("no trial was found")
        return
    draft.trials = Trials(start, end)
    if trials.concatenated:
        low = int(draft.grid.start_of(0))
        draft.edges = np.unique(start[start > low])
        draft.notes.append(
            f"{len(start)} trials that were recorded apart: lags and filters restart at {len(draft.edges)} edges "
            "(Session.without_edges ignores them)"
        )


Ticks = NDArray[np.int64]


def _row_ticks(draft: Draft, rows: NDArray[np.int64]) -> Ticks:
    """First tick of each row; a row past the last one is the end of the last."""
    if draft.bins is None:
        return draft.grid.start_of(rows)
    known = np.append(draft.bins, draft.bins[-1] + 1)
    return draft.grid.start_of(known[np.minimum(rows, len(draft.bins))])


def _by_starts(draft: Draft, file: ArrayFile, trials: TrialMapping) -> tuple[Ticks, Ticks]:
    where, label, rows = file.path.name, trials.variable, len(draft.counts)
    values = _vector(file, trials)
    if not np.isfinite(values).all() or np.any(np.diff(values) <= 0):
        raise FileError(
            "bad trials",
            f"trial starts {label!r} are NaN or not in ascending order.",
            where=where,
            remedy="sort them, or leave [trials] out of the mapping",
        )
    if trials.unit == "s":
        if values.size and (values[0] < 0 or values[-1] > 1e9):
            raise FileError(
                "bad trials",
                f"trial starts {label!r} run from {values[0]:g} to {values[-1]:g} s.",
                where=where,
                remedy="check their unit and the clock's zero",
            )
        start = draft.grid.ticks_from_s(values)
    else:
        first = 1 if trials.unit == "bin_from_1" else 0
        if np.any(values != np.rint(values)) or np.any(values < first):
            raise FileError(
                "bad trials",
                f"trial starts {label!r} are no bins counted from {first} (first: {values[:3].tolist()}).",
                where=where,
                remedy='correct unit in [trials] ("s", "bin" or "bin_from_1")',
            )
        index = (np.minimum(values, rows + first) - first).astype(np.int64)
        start = _row_ticks(draft, index)
    low, high = int(draft.grid.start_of(0)), int(_row_ticks(draft, np.array([rows]))[0])
    inside = (start >= low) & (start < high)
    if not inside.all():
        draft.skip("trials outside the bins", int((~inside).sum()))
        draft.notes.append(f"{int((~inside).sum())} trials start outside the recording, left out")
    start = start[inside]
    return start, np.append(start[1:], high)[: len(start)].astype(np.int64)


def _by_id(draft: Draft, file: ArrayFile, trials: TrialMapping) -> tuple[Ticks, Ticks]:
    values = _vector(file, trials)
    if len(values) != len(draft.counts):
        raise FileError(
            "different lengths",
            f"trial numbers {trials.variable!r} have {len(values)} values, the signals {len(draft.counts)} bins.",
            where=file.path.name,
            remedy="one number a bin",
        )
    known = np.isfinite(values)
    change = np.ones(len(values) + 1, dtype=bool)
    change[1:-1] = ~((values[1:] == values[:-1]) | (~known[1:] & ~known[:-1]))
    at = np.flatnonzero(change)
    first, last = at[:-1][known[at[:-1]]], at[1:][known[at[:-1]]]
    return _row_ticks(draft, first), _ends(draft, last)


def _by_jump(draft: Draft, file: ArrayFile, trials: TrialMapping) -> tuple[Ticks, Ticks]:
    names = [dim.name for _, _, dims in draft.behavior for dim in dims]
    if not trials.position or len(trials.position) != len(trials.velocity):
        raise ConfigError(
            "the rule 'zero_velocity_jump' needs position and velocity, as many of each.",
            where="[trials]",
            remedy="name behavior dimensions",
        )
    missing = [n for n in (*trials.position, *trials.velocity) if n not in names]
    if missing:
        raise ConfigError(
            f"no behavior is named {', '.join(missing)}.",
            where="[trials]",
            remedy=f"use names of [[behavior]]: {', '.join(names)}",
        )
    position = np.stack([_dim(draft, n) for n in trials.position], axis=1)
    velocity = np.stack([_dim(draft, n) for n in trials.velocity], axis=1)
    rows = min(len(position), len(velocity), len(draft.counts))
    jumped = np.any(position[1:rows] != position[: rows - 1], axis=1)
    first = np.concatenate(([0], np.flatnonzero(jumped & np.all(velocity[1:rows] == 0, axis=1)) + 1)).astype(np.int64)
    return _row_ticks(draft, first), _ends(draft, np.append(first[1:], rows))


def _ends(draft: Draft, rows: NDArray[np.int64]) -> Ticks:
    """End tick of the row before each: a gap after it belongs to no trial."""
    return np.asarray(_row_ticks(draft, rows - 1) + draft.grid.ticks_per_bin)


def _dim(draft: Draft, name: str) -> Array:
    return next(v[:, k] for _, v, dims in draft.behavior for k, dim in enumerate(dims) if dim.name == name)


def _vector(file: ArrayFile, trials: TrialMapping) -> NDArray[np.float64]:
    values = file.load(trials.variable)
    if values.dtype.kind not in "biuf" or values.size != max(values.shape, default=0):
        raise FileError(
            "bad trials",
            f"{trials.variable!r} ({file.variables[trials.variable]}) is no list of numbers.",
            where=file.path.name,
            remedy="correct variable in [trials]",
        )
    return values.astype(np.float64).ravel()
