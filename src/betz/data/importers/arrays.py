"""Arrays in a file, read as a mapping says: signals, time, behavior and trials as a draft."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from betz.core.config import config_hash
from betz.core.errors import ConfigError
from betz.core.session import BehaviorDim, Channel
from betz.core.timegrid import BinGrid
from betz.data.importers import checks
from betz.data.importers.build import Draft, ImportOptions
from betz.data.importers.convert import counts_from, grid_from_stamps, grid_of
from betz.data.importers.files import ArrayFile, FileError
from betz.data.importers.mapping import BehaviorMapping, Mapping, SignalsMapping, TimeMapping
from betz.data.importers.trials import add_trials

Array = NDArray[Any]
Behavior = list[tuple[str, Array, tuple[BehaviorDim, ...]]]
_PER_S = {"s": 1.0, "ms": 1000.0}


def read_arrays(file: ArrayFile, mapping: Mapping, options: ImportOptions, *, name: str = "given") -> Draft:
    """What a mapping says of a file's arrays, as a draft.

    Args:
        file: the opened file.
        mapping: what its variables mean.
        options: bin width, and what to do with slots.
        name: of the mapping, for the provenance.

    Raises:
        FileError: a variable is missing, has another shape, or holds something else than the mapping says.
        ConfigError: the mapping or an option contradicts itself or the file.
    """
    signals, where = mapping.signals, file.path.name
    raw, label = _signals(file, signals)
    behavior, notes, left_out = _behavior(file, mapping.behavior)
    grid, bins = _time(file, mapping.time, len(raw), behavior, options)
    counts = counts_from(raw, encoding=signals.encoding, bin_s=grid.bin_s, where=where, name=label)
    slot = options.slot or signals.slot
    if options.slot is not None and raw.ndim != 3:
        raise ConfigError(
            f"slot={slot!r} has no meaning: {label!r} has no slot axis.", where=where, remedy="leave it out"
        )
    counts_NC, channels, slot_note = _channels(counts, signals, slot, _columns(file, signals), where, label)
    draft = Draft(
        path=file.path,
        importer="arrays",
        counts=counts_NC,
        channels=channels,
        grid=grid,
        bins=bins,
        behavior=behavior,
        subject=mapping.subject,
        task=mapping.task,
        licence=mapping.licence,
        source=f"{where} ({mapping.citation})" if mapping.citation else where,
        settings={"mapping": name, "mapping_hash": config_hash(mapping)},
        notes=[*mapping.notes, *slot_note, *notes],
        skipped=left_out,
    )
    _note_width(draft, mapping.time, signals)
    used = {label, *_named(mapping)}
    unused = [n for n in file.variables if n not in used and n not in _columns_used(file, mapping)]
    if unused:
        draft.notes.append(f"not in the mapping, left out: {', '.join(unused[:12])}{' …' if len(unused) > 12 else ''}")
        draft.skip("variables not in the mapping", len(unused))
    if mapping.trials is not None:
        add_trials(draft, file, mapping.trials)
    return draft


# ---- variables


def _numbers(file: ArrayFile, variable: str, columns: Sequence[str], what: str) -> tuple[Array, str]:
    """A variable, or columns side by side, and how to call it."""
    if bool(variable) == bool(columns):
        raise ConfigError(
            f"the mapping names {'both a variable and' if variable else 'neither a variable nor'} columns.",
            where=what,
            remedy="name a variable (.npz, .mat) or columns (.csv)",
        )
    if variable:
        values, label = file.load(variable), variable
    else:
        names = file.columns(columns)
        loaded = [file.load(n).squeeze() for n in names]
        if any(v.ndim != 1 or len(v) != len(loaded[0]) for v in loaded):
            shown = ", ".join(f"{n} {file.variables[n]}" for n in names[:6])
            raise FileError(
                "wrong shape",
                f"columns need one value a bin each: {shown}.",
                where=file.path.name,
                remedy="name a variable instead of columns",
            )
        values, label = np.stack(loaded, axis=1), columns[0]
    if values.dtype.kind not in "biuf":
        raise FileError(
            "unsupported type",
            f"{what} {label!r} is {values.dtype}, not numbers.",
            where=file.path.name,
            remedy="correct the name in the mapping, or save it as a plain numeric array",
        )
    return values, label


def _columns(file: ArrayFile, signals: SignalsMapping) -> list[str]:
    return file.columns(signals.columns) if signals.columns else []


def _named(mapping: Mapping) -> list[str]:
    parts = [mapping.signals.variable, mapping.time.bin_variable, mapping.time.stamps]
    trials = [mapping.trials.variable] if mapping.trials is not None else []
    return [name for name in (*parts, *(b.variable for b in mapping.behavior), *trials) if name]


def _columns_used(file: ArrayFile, mapping: Mapping) -> set[str]:
    patterns = [mapping.signals.columns, *(b.columns for b in mapping.behavior)]
    return {name for group in patterns for pattern in group for name in file.matching(pattern)}


# ---- signals


def _signals(file: ArrayFile, signals: SignalsMapping) -> tuple[Array, str]:
    """(N, C) or (N, C, slots) numbers and the name of their variable."""
    axes = signals.axes
    if len(set(axes)) != len(axes) or "time" not in axes or ("slot" in axes and "channel" not in axes):
        raise ConfigError(
            f"axes = {list(axes)} make no signals.",
            where="[signals]",
            remedy='name "time" and "channel", and "slot" if there is one, in the order of the file',
        )
    values, label = _numbers(file, signals.variable, signals.columns, "[signals]")
    if axes == ("time",) and values.size == max(values.shape, default=0):
        return values.reshape(-1, 1), label  # MATLAB keeps a vector as a matrix
    if signals.columns:
        return values, label
    if values.ndim != len(axes):
        raise FileError(
            "wrong shape",
            f"{label!r} is {'x'.join(map(str, values.shape))}, the mapping names {len(axes)} axes ({', '.join(axes)}).",
            where=file.path.name,
            remedy="correct axes in [signals]",
        )
    order = [axes.index(name) for name in ("time", "channel", "slot") if name in axes]
    return np.transpose(values, order), label


def _channels(
    counts: NDArray[np.uint8],
    signals: SignalsMapping,
    slot: Literal["sum", "unit"],
    columns: Sequence[str],
    where: str,
    label: str,
) -> tuple[NDArray[np.uint8], tuple[Channel, ...], list[str]]:
    """(N, C) counts, their channels, and a note on slots."""
    names = list(columns) or [f"{signals.prefix}{c + 1}" for c in range(counts.shape[1])]
    if counts.ndim == 2:
        return np.ascontiguousarray(counts), tuple(Channel(n, signals.kind, signals.array) for n in names), []
    slots = counts.shape[2]
    if slot == "sum":
        total = counts.sum(axis=2, dtype=np.uint16)
        note = f"{slots} slots of each electrode (0: unsorted crossings, others: sorted units) summed"
        counts_NC = counts_from(total, encoding="counts", bin_s=1.0, where=where, name=f"{label} summed over slots")
        return counts_NC, tuple(Channel(n, "crossings", signals.array) for n in names), [note]
    used: NDArray[np.bool_] = np.asarray(counts.any(axis=0))
    used[:, 0] = True
    channels = [
        Channel(f"{name}u{s}", "unit" if s else "crossings", signals.array)
        for c, name in enumerate(names)
        for s in range(slots)
        if used[c, s]
    ]
    note = f"{slots} slots of each electrode kept apart: slot 0 unsorted crossings, others sorted units"
    empty = int((~used).sum())
    notes = [note, f"{empty} slots of sorted units without a single spike left out"] if empty else [note]
    return np.ascontiguousarray(counts[:, used]), tuple(channels), notes


# ---- behavior


def _behavior(file: ArrayFile, parts: Sequence[BehaviorMapping]) -> tuple[Behavior, list[str], dict[str, int]]:
    """Each behavior variable with its dimensions; notes; and what was left out."""
    found: Behavior = []
    notes: list[str] = []
    left_out = 0
    for part in parts:
        label = part.variable or ", ".join(part.columns)
        if part.optional and _lacks(file, part):
            notes.append(f"there is no {label} in this file")
            continue
        values, label = _numbers(file, part.variable, part.columns, "[[behavior]]")
        values_NK = _two_axes(values, part, file.path.name, label)
        keep = [k for k, dim in enumerate(part.dims) if dim.name]
        left_out += len(part.dims) - len(keep)
        if not keep:
            continue
        dims = tuple(BehaviorDim(part.dims[k].name, part.dims[k].unit) for k in keep)
        if part.held:
            between = checks.transients(values_NK[:, keep].astype(np.float64))
            if between.any():
                notes.append(
                    f"{label} is held between switches, but {np.count_nonzero(between)} of {len(between)} bins have a "
                    "value of neither neighbour: it was interpolated at switches, do not take those values for targets"
                )
        found.append((label, values_NK[:, keep], dims))
    return found, notes, {"behavior columns without a name": left_out} if left_out else {}


def _lacks(file: ArrayFile, part: BehaviorMapping) -> bool:
    """Whether the file lacks the variable or a column, or has it empty."""
    names = [part.variable] if part.variable else list(part.columns)
    return any(0 in file.variables[n].shape for n in names if n in file.variables) or not all(map(file.matching, names))


def _two_axes(values: Array, part: BehaviorMapping, where: str, label: str) -> Array:
    """(N, K) with as many columns as the mapping names."""
    values = values.reshape(-1, 1) if values.ndim == 1 else values
    shape = "x".join(map(str, values.shape))
    if values.ndim == 2:
        values = values.T if part.transposed else values
        if values.shape[1] == len(part.dims):
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


# ---- time


def _time(
    file: ArrayFile, time: TimeMapping, num_rows: int, behavior: Behavior, options: ImportOptions
) -> tuple[BinGrid, NDArray[np.int64] | None]:
    """The grid, and the bin of each row where stamps tell."""
    where = file.path.name
    for given in (options.bin_ms, time.bin_ms):
        if given is not None:
            grid_of(given, where=where)
    stated = _stated_ms(file, time)
    if time.ambiguous and options.bin_ms is None:
        implied = _implied_ms(behavior)
        raise FileError(
            "ambiguous bin width",
            f"its bin width is not certain: {time.ambiguous}"
            + (f" (velocity equals the change of position in {implied[1]:.4g} ms)." if implied else "."),
            where=where,
            remedy=f"give bin_ms (--bin-ms){f', {implied[1]:.4g} if you trust the velocity' if implied else ''}",
        )
    if stated is not None and options.bin_ms is not None and abs(stated / options.bin_ms - 1) > 1e-6:
        says = "the file" if time.bin_variable else "the mapping"
        raise FileError(
            "contradicting bin width",
            f"bin_ms = {options.bin_ms:g} was given, but {says} says {stated:g}.",
            where=where,
            remedy="leave bin_ms out, or correct [time] in the mapping",
        )
    width = options.bin_ms if options.bin_ms is not None else stated
    if time.stamps:
        return _stamped(file, time, width)
    if width is None:
        raise FileError(
            "unknown bin width",
            "nothing tells its bin width.",
            where=where,
            remedy="give bin_ms (--bin-ms), or bin_ms, bin_variable or stamps in [time] of the mapping",
        )
    if num_rows == 0:
        raise FileError("no bins", "it has no bins.", where=where, remedy="import a recording with at least one bin")
    return grid_of(width, where=where, origin_s=time.origin_s), None


def _stated_ms(file: ArrayFile, time: TimeMapping) -> float | None:
    """The bin width that the mapping or the file states; both must agree."""
    if not time.bin_variable:
        return time.bin_ms
    values, label = _numbers(file, time.bin_variable, (), "[time]")
    widths = np.unique(values.astype(np.float64))
    if len(widths) != 1:
        shown = ", ".join(f"{w:g}" for w in widths[:4])
        raise FileError(
            "mixed bin widths",
            f"{label!r} holds {len(widths)} different bin widths ({shown}{' …' if len(widths) > 4 else ''}).",
            where=file.path.name,
            remedy="split the file, or bin the recording evenly",
        )
    width = float(widths[0])
    in_ms = (1000.0 / width if width else 0.0) if time.bin_unit == "Hz" else width * 1000.0 / _PER_S[time.bin_unit]
    grid_of(in_ms, where=f"{file.path.name}, {label!r}")
    if time.bin_ms is not None and abs(in_ms / time.bin_ms - 1) > 1e-6:
        raise FileError(
            "contradicting bin width",
            f"{label!r} says {in_ms:g} ms, the mapping {time.bin_ms:g} ms.",
            where=file.path.name,
            remedy="leave one of bin_ms and bin_variable out of [time]",
        )
    return in_ms


def _stamped(file: ArrayFile, time: TimeMapping, width_ms: float | None) -> tuple[BinGrid, NDArray[np.int64]]:
    """Grid and bins from a variable with one stamp a row."""
    values, label = _numbers(file, time.stamps, (), "[time]")
    if values.size != max(values.shape, default=0):
        raise FileError(
            "wrong shape",
            f"stamps {label!r} are {'x'.join(map(str, values.shape))}, not one a bin.",
            where=file.path.name,
            remedy="correct stamps in [time]",
        )
    raw = values.ravel()
    stamps_s = raw.astype(np.float64) / _PER_S[time.stamps_unit]
    if time.stamps_at == "end" and len(raw):
        shift = (
            width_ms / 1000 if width_ms is not None else float(np.median(np.diff(stamps_s))) if len(raw) > 1 else 0.0
        )
        stamps_s = stamps_s - shift
        stamps_s[(stamps_s < 0) & (stamps_s > -0.01 * shift)] = 0.0
    return grid_from_stamps(
        stamps_s,
        bin_ms=width_ms,
        resolution_s=_resolution(raw) / _PER_S[time.stamps_unit],
        where=file.path.name,
        name=label,
    )


def _resolution(raw_N: Array) -> float:
    """Rounding error of stamps, in their unit: of the number type, or of decimals to which they were rounded.

    Steps of 16, 17, 17, 16 … mean that bins of 16.67 were rounded to whole units.
    """
    known = raw_N[np.isfinite(raw_N)].astype(np.float64)
    if known.size < 3:
        return 0.0
    of_type = float(np.spacing(np.abs(raw_N[np.isfinite(raw_N)]).max())) / 2 if raw_N.dtype.kind == "f" else 0.0
    for decimals in range(7 if np.abs(known).max() < 1e12 else 0):
        whole = np.rint(known * 10.0**decimals)
        if np.abs(known * 10.0**decimals - whole).max() < 1e-3:
            steps = np.diff(whole)
            usual = steps[steps <= steps.min() + 1]
            rounded = len(usual) >= 0.95 * len(steps) and usual.max() > usual.min() > 0
            return max(of_type, 0.5 * 10.0**-decimals) if rounded else of_type
    return of_type


def _implied_ms(behavior: Behavior) -> tuple[str, float] | None:
    """Effector and time in which its position changes by its velocity, if one is the other's rate."""
    for _, values, dims in behavior:
        for stem, position, velocity in checks.position_velocity_pairs(dims):
            floats = values.astype(np.float64)
            implied = checks.implied_bin_s(floats[:, position], floats[:, velocity])
            if implied is not None:
                return stem, implied * 1000
    return None


def _note_width(draft: Draft, time: TimeMapping, signals: SignalsMapping) -> None:
    if time.ambiguous:
        draft.notes.append(f"bin width of {draft.grid.bin_ms:g} ms as given on import; {time.ambiguous}")
    if signals.encoding == "rate_hz":
        draft.notes.append(f"rates in Hz turned back to counts in {draft.grid.bin_ms:g} ms, all whole numbers")
