"""The bin width of a file and the time of its rows, as a mapping says."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.timegrid import BinGrid
from betz.data.importers import checks
from betz.data.importers.build import Behavior, ImportOptions
from betz.data.importers.convert import grid_from_stamps, grid_of
from betz.data.importers.files import FileError
from betz.data.importers.mapping import TimeMapping
from betz.data.importers.rows import Rows

Array = NDArray[Any]
_PER_S = {"s": 1.0, "ms": 1000.0}


def grid_and_bins(
    rows: Rows, time: TimeMapping, num_rows: int, behavior: Behavior, options: ImportOptions
) -> tuple[BinGrid, NDArray[np.int64] | None]:
    """The grid, and the bin of each row where stamps tell.

    Args:
        rows: the file.
        time: what the mapping says of it.
        num_rows: of the signals.
        behavior: what was read, in which a velocity may tell the bin width.
        options: may give the bin width.

    Raises:
        FileError: the width is not known, not certain, contradicts itself, or stamps are not regular.
    """
    where = rows.where
    for given in (options.bin_ms, time.bin_ms):
        if given is not None:
            grid_of(given, where=where)
    stated = stated_ms(rows, time)
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
        return _stamped(rows, time, width)
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


def stated_ms(rows: Rows, time: TimeMapping) -> float | None:
    """The bin width that the mapping or the file states; both must agree."""
    if not time.bin_variable:
        return time.bin_ms
    values, label = rows.numbers(time.bin_variable, (), "[time]")
    widths = np.unique(values.astype(np.float64))
    if len(widths) != 1:
        shown = ", ".join(f"{w:g}" for w in widths[:4])
        raise FileError(
            "mixed bin widths",
            f"{label!r} holds {len(widths)} different bin widths ({shown}{' …' if len(widths) > 4 else ''}).",
            where=rows.where,
            remedy="split the file, or bin the recording evenly",
        )
    width = float(widths[0])
    in_ms = (1000.0 / width if width else 0.0) if time.bin_unit == "Hz" else width * 1000.0 / _PER_S[time.bin_unit]
    grid_of(in_ms, where=f"{rows.where}, {label!r}")
    if time.bin_ms is not None and abs(in_ms / time.bin_ms - 1) > 1e-6:
        raise FileError(
            "contradicting bin width",
            f"{label!r} says {in_ms:g} ms, the mapping {time.bin_ms:g} ms.",
            where=rows.where,
            remedy="leave one of bin_ms and bin_variable out of [time]",
        )
    return in_ms


def _stamped(rows: Rows, time: TimeMapping, width_ms: float | None) -> tuple[BinGrid, NDArray[np.int64]]:
    """Grid and bins from a variable with one stamp a row."""
    values, label = rows.numbers(time.stamps, (), "[time]")
    if values.size != max(values.shape, default=0):
        raise FileError(
            "wrong shape",
            f"stamps {label!r} are {'x'.join(map(str, values.shape))}, not one a bin.",
            where=rows.where,
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
        resolution_s=resolution_of(raw) / _PER_S[time.stamps_unit],
        where=rows.where,
        name=label,
    )


def resolution_of(raw_N: Array) -> float:
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
