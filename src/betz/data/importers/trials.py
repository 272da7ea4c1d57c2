"""Where trials start, by the rules of a mapping, and what is known of each; trials recorded apart get edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import ConfigError
from betz.core.session import Trials
from betz.core.timegrid import Ticks
from betz.data.importers.build import Draft
from betz.data.importers.files import FileError
from betz.data.importers.mapping import TrialMapping
from betz.data.importers.rows import Rows

Array = NDArray[Any]


@dataclass(frozen=True)
class Found:
    """(M,) start and end tick of each trial, and which of those that the file names they are (None: all)."""

    start: Ticks
    end: Ticks
    kept: NDArray[np.bool_] | None = None


def add_trials(draft: Draft, rows: Rows) -> None:
    """Put the trials of a file into a draft, and edges between them if they were recorded apart.

    Raises:
        FileError: starts are no numbers, negative or unsorted, or a variable has another length.
        ConfigError: the rule lacks what it needs.
    """
    on_axis = rows.lengths_M is not None
    trials = rows.mapping.trials or (TrialMapping(rule="axis") if on_axis else None)
    if trials is None:
        return
    _check_rule(trials, on_axis=on_axis)
    rule = {
        "starts": _by_starts,
        "lengths": _by_lengths,
        "axis": _by_lengths,
        "id_changes": _by_id,
        "marks": _by_marks,
        "announced": _by_announcement,
        "zero_velocity_jump": _by_jump,
    }[trials.rule]
    found = rule(draft, rows, trials)
    start = found.start
    if len(start) == 0:
        draft.notes.append("no trial was found")
        return
    condition, columns = _known_of_trials(draft, rows, trials, found)
    draft.trials = Trials(start, found.end, condition, columns)
    if trials.concatenated or on_axis:
        low = int(draft.grid.start_of(0))
        draft.edges = np.unique(start[start > low])
        draft.notes.append(
            f"{len(start)} trials that were recorded apart: lags and filters restart at {len(draft.edges)} edges "
            "(Session.without_edges ignores them)"
        )


def _check_rule(trials: TrialMapping, *, on_axis: bool) -> None:
    """Refuse a rule without what it needs."""
    needs = {"starts": ("variable",), "lengths": ("variable",), "id_changes": ("variable",), "marks": ("variable",),
             "announced": ("variable", "next")}.get(trials.rule, ())  # fmt: skip
    missing = [key for key in needs if not getattr(trials, key)]
    if missing:
        raise ConfigError(
            f"the rule {trials.rule!r} needs a {' and '.join(missing)}.",
            where="[trials]",
            remedy=f"name it: {missing[0]} = …",
        )
    if on_axis and trials.rule not in ("axis", "lengths", "announced"):
        raise ConfigError(
            f"the rule {trials.rule!r} has no meaning where the signals have a trial axis.",
            where="[trials]",
            remedy='use "axis", or "lengths" for padded trials',
        )
    if not on_axis and trials.rule == "axis":
        raise ConfigError(
            "the rule 'axis' needs signals with a trial axis.", where="[trials]", remedy='name "trial" in axes'
        )


# ---- what is known of each


def _known_of_trials(
    draft: Draft, rows: Rows, trials: TrialMapping, found: Found
) -> tuple[tuple[str, ...], dict[str, Array]]:
    """Condition and columns of the trial table."""
    named = (trials.columns or {}).items()
    columns = {name: _of_trials(draft, rows, variable, found) for name, variable in named}
    if not trials.condition:
        return (), columns
    values = _of_trials(draft, rows, trials.condition, found)
    if values.ndim != 1:
        raise FileError(
            "bad trials",
            f"the condition {trials.condition!r} has {values.shape[1]} values a trial.",
            where=rows.where,
            remedy="name it among columns in [trials] instead",
        )
    return tuple(str(v) if values.dtype.kind == "U" else f"{v:g}" for v in values.tolist()), columns


def _first_rows(draft: Draft, start: Ticks) -> NDArray[np.int64]:
    """(M,) first row that lies in or after the start of each trial."""
    bins = np.arange(len(draft.counts)) if draft.bins is None else draft.bins
    return np.minimum(np.searchsorted(bins, draft.grid.bin_of(start)), max(len(bins) - 1, 0))


def _of_trials(draft: Draft, rows: Rows, variable: str, found: Found) -> Array:
    """(M,) or (M, n) values of a variable that has one a trial, one an element of the trial axis, or one a bin."""
    values, first_M = _values(rows, variable), _first_rows(draft, found.start)
    number, bins = len(found.start), len(draft.counts)
    if values.ndim == 2 and len(values) == 1 < number:
        values = values.T  # MATLAB keeps a list as a row
    if found.kept is not None and len(values) == len(found.kept):
        values = values[found.kept]
    elif rows.lengths_M is not None and len(values) == len(rows.lengths_M):
        values = values[_element_of(rows.lengths_M, first_M)]
    elif len(values) == bins and bins != number:
        values = values[first_M]
    if len(values) != number:
        raise FileError(
            "bad trials",
            f"{variable!r} has {len(values)} values, neither one for each of {number} trials nor one for each of "
            f"{bins} bins.",
            where=rows.where,
            remedy="correct condition and columns in [trials]",
        )
    return np.asarray(values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values)


def _values(rows: Rows, variable: str) -> Array:
    """Texts or numbers of a variable: a row an element of a cell or struct array, a bin of those, or a row of it."""
    found, several = rows.file.values(variable)
    lengths = rows.lengths_M
    if lengths is not None and len(found) == len(lengths) and (several or len(lengths) == 1):
        a_bin = all(v.ndim > 1 and len(v) == n for v, n in zip(found, lengths.tolist(), strict=True) if n)
        return rows.bins(variable, "[trials]") if a_bin else _stacked(found, variable, rows.where)
    if several:
        return _stacked(found, variable, rows.where)
    return found[0] if found[0].dtype.kind == "U" else rows.bins(variable, "[trials]")


def _element_of(lengths_M: NDArray[np.int64], first_M: NDArray[np.int64]) -> NDArray[np.int64]:
    """(M,) element of the trial axis in which each row lies."""
    return np.searchsorted(np.cumsum(lengths_M), first_M, side="right")


def _stacked(found: Sequence[Array], variable: str, where: str) -> Array:
    """Values of several elements side by side: numbers, or texts."""
    flat = [v.ravel() if v.size or v.dtype.kind != "U" else np.array([""]) for v in found]
    if len({(v.dtype.kind == "U", v.size) for v in flat}) != 1:
        raise FileError(
            "bad trials",
            f"{variable!r} has different numbers of values, or texts beside numbers, in different trials.",
            where=where,
            remedy="correct condition and columns in [trials]",
        )
    values = np.stack(flat)
    return values[:, 0] if values.shape[1] == 1 else values


# ---- rules


def row_ticks(draft: Draft, rows: NDArray[np.int64]) -> Ticks:
    """First tick of each row of a draft; a row past the last one is the end of the last."""
    if draft.bins is None:
        return draft.grid.start_of(rows)
    known = np.append(draft.bins, draft.bins[-1] + 1)
    return draft.grid.start_of(known[np.minimum(rows, len(draft.bins))])


def _by_starts(draft: Draft, rows: Rows, trials: TrialMapping) -> Found:
    where, label, number = rows.where, trials.variable, len(draft.counts)
    values = _vector(rows, trials)
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
        index = (np.minimum(values, number + first) - first).astype(np.int64)
        start = row_ticks(draft, index)
    low, high = int(draft.grid.start_of(0)), int(row_ticks(draft, np.array([number]))[0])
    inside = (start >= low) & (start < high)
    if not inside.all():
        draft.skip("trials outside the bins", int((~inside).sum()))
        draft.notes.append(f"{int((~inside).sum())} trials start outside the recording, left out")
    start = start[inside]
    return Found(start, np.append(start[1:], high)[: len(start)].astype(np.int64), inside)


def _by_id(draft: Draft, rows: Rows, trials: TrialMapping) -> Found:
    values = _vector(rows, trials)
    if len(values) != len(draft.counts):
        raise FileError(
            "different lengths",
            f"trial numbers {trials.variable!r} have {len(values)} values, the signals {len(draft.counts)} bins.",
            where=rows.where,
            remedy="one number a bin",
        )
    known = np.isfinite(values)
    change = np.ones(len(values) + 1, dtype=bool)
    change[1:-1] = ~((values[1:] == values[:-1]) | (~known[1:] & ~known[:-1]))
    at = np.flatnonzero(change)
    first, last = at[:-1][known[at[:-1]]], at[1:][known[at[:-1]]]
    return Found(row_ticks(draft, first), _ends(draft, last))


def _by_lengths(draft: Draft, rows: Rows, trials: TrialMapping) -> Found:
    """Trials one after the other, on a trial axis or of stated lengths."""
    number = len(draft.counts)
    lengths = rows.lengths(trials.variable) if rows.lengths_M is None else rows.lengths_M
    if rows.lengths_M is None and int(lengths.sum()) != number:
        raise FileError(
            "different lengths",
            f"trial lengths {trials.variable!r} make {int(lengths.sum())} bins, the signals have {number}.",
            where=rows.where,
            remedy="correct variable in [trials]",
        )
    if rows.lengths_M is None and np.any(lengths == 0):
        empty = int(np.count_nonzero(lengths == 0))
        draft.notes.append(f"{empty} of {len(lengths)} trials have no bins, left out")
        draft.skip("trials without bins", empty)
    stop = np.cumsum(lengths[lengths > 0])
    first = np.concatenate(([0], stop[:-1])).astype(np.int64)[: len(stop)]
    return Found(row_ticks(draft, first), _ends(draft, stop), lengths > 0)


def _by_announcement(draft: Draft, rows: Rows, trials: TrialMapping) -> Found:
    """A trial starts where a value is not the one that the row before announced."""
    value, announced = rows.bins(trials.variable, "[trials]"), rows.bins(trials.next, "[trials]")
    if value.shape != announced.shape or len(value) != len(draft.counts):
        raise FileError(
            "different lengths",
            f"{trials.variable!r} is {value.shape} and {trials.next!r} {announced.shape}, the signals have "
            f"{len(draft.counts)} bins.",
            where=rows.where,
            remedy="correct variable and next in [trials]",
        )
    same = np.all((value[1:] == announced[:-1]) | (np.isnan(value[1:]) & np.isnan(announced[:-1])), axis=1)
    first = np.concatenate(([0], np.flatnonzero(~same) + 1))
    if rows.lengths_M is not None:
        first = np.union1d(first, np.concatenate(([0], np.cumsum(rows.lengths_M)[:-1])))
    first = first[first < len(value)].astype(np.int64)
    return Found(row_ticks(draft, first), _ends(draft, np.append(first[1:], len(value))[: len(first)]))


def _by_marks(draft: Draft, rows: Rows, trials: TrialMapping) -> Found:
    """A trial starts at each bin that is marked, and lasts until the next one."""
    values = _vector(rows, trials)
    if len(values) != len(draft.counts) or not np.isin(values, (0, 1)).all():
        raise FileError(
            "bad trials",
            f"{trials.variable!r} is no mark (1 or 0) for each of {len(draft.counts)} bins.",
            where=rows.where,
            remedy="correct variable in [trials]",
        )
    first = np.flatnonzero(values == 1).astype(np.int64)
    if len(first) and first[0]:
        draft.notes.append(f"{first[0]} bins before the first mark belong to no trial")
    return Found(row_ticks(draft, first), _ends(draft, np.append(first[1:], len(values))[: len(first)]))


def _by_jump(draft: Draft, rows: Rows, trials: TrialMapping) -> Found:
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
    stop = min(len(position), len(velocity), len(draft.counts))
    jumped = np.any(position[1:stop] != position[: stop - 1], axis=1)
    first = np.concatenate(([0], np.flatnonzero(jumped & np.all(velocity[1:stop] == 0, axis=1)) + 1)).astype(np.int64)
    return Found(row_ticks(draft, first), _ends(draft, np.append(first[1:], stop)))


def _ends(draft: Draft, rows: NDArray[np.int64]) -> Ticks:
    """End tick of the row before each: a gap after it belongs to no trial."""
    return np.asarray(row_ticks(draft, rows - 1) + draft.grid.ticks_per_bin)


def _dim(draft: Draft, name: str) -> Array:
    return next(v[:, k] for _, v, dims in draft.behavior for k, dim in enumerate(dims) if dim.name == name)


def _vector(rows: Rows, trials: TrialMapping) -> NDArray[np.float64]:
    values, _ = rows.numbers(trials.variable, (), "[trials]")
    if values.size != max(values.shape, default=0):
        shape = "x".join(map(str, values.shape))
        raise FileError(
            "bad trials",
            f"{trials.variable!r} ({shape}) is no list of numbers.",
            where=rows.where,
            remedy="correct variable in [trials]",
        )
    return values.astype(np.float64).ravel()
