"""Behavior of a file as a mapping says: named dimensions with units, a row a bin or at a rate of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import ConfigError
from betz.core.session import BehaviorDim
from betz.core.timegrid import BinGrid
from betz.data.importers import checks
from betz.data.importers.build import Behavior, Sampled
from betz.data.importers.convert import grid_from_stamps
from betz.data.importers.files import ArrayFile, FileError
from betz.data.importers.mapping import BehaviorMapping
from betz.data.importers.rows import Rows
from betz.data.importers.slots import regular
from betz.data.importers.times import resolution_of

Array = NDArray[Any]


def read_behavior(rows: Rows, parts: Sequence[BehaviorMapping]) -> tuple[Behavior, list[str], dict[str, int]]:
    """Each behavior variable with a row a bin, with its dimensions; notes; and what was left out.

    Raises:
        FileError: a variable is missing or has another shape than the mapping says.
        ConfigError: the mapping contradicts itself.
    """
    found: Behavior = []
    notes: list[str] = []
    left_out: dict[str, int] = {}
    for part in parts:
        _check_axes(part)
        if part.stamps or _is_lacking(rows.file, part, notes):
            continue
        values, label = rows.behavior(part)
        values_NK, dims = _named(values, part, rows.where, label, left_out)
        if part.borders:
            number = 1 if rows.lengths_M is None else int(np.count_nonzero(rows.lengths_M))
            reason = "behavior rows at a border that is not used"
            left_out[reason] = left_out.get(reason, 0) + number
        if not dims:
            continue
        if part.held:
            between = checks.transients(values_NK.astype(np.float64))
            if between.any():
                notes.append(
                    f"{label} is held between switches, but {np.count_nonzero(between)} of {len(between)} bins have a "
                    "value of neither neighbour: it was interpolated at switches, do not take those values for targets"
                )
        found.append((label, values_NK, dims))
    return found, notes, left_out


def read_sampled(
    rows: Rows, parts: Sequence[BehaviorMapping], tick_hz: int
) -> tuple[list[Sampled], list[str], dict[str, int]]:
    """Each behavior variable that has stamps, on the session's clock; notes; and what was left out.

    Raises:
        FileError: as :func:`read_behavior`; stamps are not regular, or their step is no whole number of ticks.
    """
    found: list[Sampled] = []
    notes: list[str] = []
    left_out: dict[str, int] = {}
    for part in parts:
        if not part.stamps or _is_lacking(rows.file, part, notes):
            continue
        values, label = rows.behavior(part)
        values_MK, dims = _named(values, part, rows.where, label, left_out)
        stamps = rows.numbers(part.stamps, (), "[[behavior]]")[0].ravel()
        if len(stamps) != len(values_MK):
            raise FileError(
                "different lengths",
                f"behavior {label!r} has {len(values_MK)} rows, its stamps {part.stamps!r} {len(stamps)}.",
                where=rows.where,
                remedy="one stamp a row",
            )
        if part.regular_hz is not None:
            if dims:
                found.append(
                    _at_rate(label, values_MK, dims, stamps.astype(np.float64), part.regular_hz, tick_hz, rows)
                )
                notes += _regular_notes(label, found[-1], len(values_MK), part.regular_hz)
            continue
        grid, at = grid_from_stamps(
            stamps.astype(np.float64),
            bin_ms=None,
            resolution_s=resolution_of(stamps),
            where=rows.where,
            name=part.stamps,
        )
        if dims:
            found.append(_on_clock(label, values_MK, dims, grid, at, tick_hz, notes))
    return found, notes, left_out


def _at_rate(
    label: str,
    values_MK: Array,
    dims: tuple[BehaviorDim, ...],
    stamps_s: NDArray[np.float64],
    rate_hz: float,
    tick_hz: int,
    rows: Rows,
) -> Sampled:
    """Samples at irregular times in the slots next to them, at a rate that the mapping names."""
    step = tick_hz / rate_hz if rate_hz > 0 else 0.0
    ascending = len(stamps_s) > 0 and np.isfinite(stamps_s).all() and not np.any(np.diff(stamps_s) < 0)
    if step < 1 or abs(step - round(step)) > 1e-6 * step:
        raise ConfigError(
            f"regular_hz = {rate_hz:g} is no whole number of ticks at {tick_hz} Hz.",
            where="[[behavior]]",
            remedy="give a rate that divides it",
        )
    if not ascending or stamps_s[0] < 0 or (stamps_s[-1] - stamps_s[0]) * rate_hz > 20 * len(stamps_s) + 1000:
        raise FileError(
            "bad stamps",
            f"stamps of {label!r} are not ascending, or leave out nearly everything at {rate_hz:g} Hz.",
            where=rows.where,
            remedy="check their unit, or give a lower regular_hz",
        )
    found = regular(np.rint(stamps_s * tick_hz).astype(np.int64), values_MK, round(step))
    return Sampled(label, found.values, dims, found.origin_tick, found.ticks_per_sample, missing=found.missing)


def _regular_notes(label: str, part: Sampled, number: int, rate_hz: float) -> list[str]:
    """How many slots are empty and how many rows shared one."""
    doubled = number - (len(part.values) - part.missing)
    text = f"{label}: {number} samples at irregular times put on {rate_hz:g} Hz; {part.missing} slots have none (NaN)"
    return [f"{text}, {doubled} samples shared a slot and were averaged" if doubled else text]


def _on_clock(
    label: str,
    values_MK: Array,
    dims: tuple[BehaviorDim, ...],
    grid: BinGrid,
    at: NDArray[np.int64],
    tick_hz: int,
    notes: list[str],
) -> Sampled:
    """Samples at whole ticks of the session's clock; those that are missing between stamps are NaN."""
    step = grid.ticks_per_bin * tick_hz / grid.tick_hz
    if step < 1 or abs(step - round(step)) > 1e-6 * step:
        raise ConfigError(
            f"samples of {label!r} every {grid.bin_ms:g} ms are no whole number of ticks at {tick_hz} Hz.",
            where="[[behavior]]",
            remedy="give another tick_hz in [spikes], or resample the behavior",
        )
    full = np.full((int(at[-1]) + 1, values_MK.shape[1]), np.nan)
    full[at] = values_MK
    missing = len(full) - len(values_MK)
    if missing:
        notes.append(f"{missing} samples of {label} are missing between its stamps: they are not known (NaN)")
    notes.append(f"{label} is kept at its own rate, {1000 / grid.bin_ms:g} Hz")
    return Sampled(label, full, dims, round(grid.origin_tick * tick_hz / grid.tick_hz), round(step))


def _is_lacking(file: ArrayFile, part: BehaviorMapping, notes: list[str]) -> bool:
    """Whether an optional variable or a column of it is not in the file, or empty."""
    if not part.optional:
        return False
    names = [part.variable] if part.variable else list(part.columns)
    there = [n for n in names if n in file.variables]
    lacking = any(0 in file.variables[n].shape for n in there)
    lacking = lacking or not all(bool(file.matching(n)) or ("." in n and file.reaches(n)) for n in names)
    if lacking:
        notes.append(f"there is no {part.variable or ', '.join(part.columns)} in this file")
    return lacking


def _named(
    values: Array, part: BehaviorMapping, where: str, label: str, left_out: dict[str, int]
) -> tuple[Array, tuple[BehaviorDim, ...]]:
    """The columns that have a name, multiplied by their factors, and their dimensions."""
    if values.size == 0 and values.ndim == 2 and values.shape[0] == 0:
        values = np.empty((0, len(part.dims)))
    values_NK = _two_axes(values, part, where, label)
    keep = [k for k, dim in enumerate(part.dims) if dim.name]
    if len(keep) < len(part.dims):
        reason = "behavior columns without a name"
        left_out[reason] = left_out.get(reason, 0) + len(part.dims) - len(keep)
    values_NK = values_NK[:, keep]
    factors = [part.dims[k].factor for k in keep]
    if any(factor != 1 for factor in factors):
        values_NK = values_NK.astype(np.float64) * np.array(factors)
    return values_NK, tuple(BehaviorDim(part.dims[k].name, part.dims[k].unit) for k in keep)


def _check_axes(part: BehaviorMapping) -> None:
    """Refuse axes that make no behavior."""
    axes = part.axes
    good = {("time",), ("dim", "time"), ("dim", "time", "trial"), ("time", "trial"), ("dim", "trial")}
    if axes and (tuple(sorted(axes)) not in good or part.transposed or ("time" not in axes and part.borders)):
        raise ConfigError(
            f"axes = {list(axes)}{' with transposed' if part.transposed else ''} make no behavior.",
            where="[[behavior]]",
            remedy='name "time" and "dim", "trial" as well, or "trial" and "dim" for a value a trial; transposed and '
            "borders do not go with that",
        )


def _two_axes(values: Array, part: BehaviorMapping, where: str, label: str) -> Array:
    """(N, K) with as many columns as the mapping names."""
    shape = "x".join(map(str, values.shape[::-1] if part.transposed else values.shape))
    if values.ndim == 2 and values.shape[1] == len(part.dims):
        return values
    turned = values.ndim == 2 and values.shape[0] == len(part.dims)
    raise FileError(
        "wrong shape",
        f"behavior {label!r} is {shape}, the mapping names {len(part.dims)} dimensions.",
        where=where,
        remedy=f"say transposed = {'false' if part.transposed else 'true'}"
        if turned
        else 'name every column in dims; one named "" is left out',
    )
