"""Numbers of a file as what Betz keeps: counts as uint8, stamps as a grid and bins; all checked first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from betz.core.timegrid import MAX_COUNT, BinGrid
from betz.data.importers.files import FileError

Array = NDArray[Any]
_MOST_MISSING = 10
_MIXED_SHARE = 0.05
_WIDEST_MS, _LATEST_TICK = 60_000.0, 1 << 62


def counts_from(
    values: Array, *, encoding: Literal["counts", "rate_hz"], bin_s: float, where: str, name: str
) -> NDArray[np.uint8]:
    """Counts (any shape, time first) as uint8, checked.

    Args:
        values: counts of any number type, or rates in Hz.
        encoding: ``rate_hz`` multiplies by the bin width first.
        bin_s: bin width in seconds.
        where, name: the file and variable, for the message.

    Raises:
        FileError: a value is NaN, negative, no integer (rates: within 1e-3), or above 255.
    """
    if values.dtype.kind not in "biuf":
        raise FileError("unsupported type", f"{name!r} is {values.dtype}, not numbers.", where=where)
    scaled = values.astype(np.float64) * bin_s if encoding == "rate_hz" else values

    def at(bad: Array) -> str:
        index = np.unravel_index(int(np.argmax(bad)), bad.shape)
        return f"bin {index[0]}, {'channel, slot'[: 7 if bad.ndim < 3 else None]} {', '.join(map(str, index[1:]))}"

    if scaled.dtype.kind == "f":
        if not np.isfinite(scaled).all():
            bad = ~np.isfinite(scaled)
            raise FileError(
                "NaN counts",
                f"{name!r} has {np.count_nonzero(bad)} NaN or infinite counts (first: {at(bad)}).",
                where=where,
                remedy="counts cannot be unknown; leave out those bins or channels",
            )
        whole = np.rint(scaled)
        bad = np.abs(scaled - whole) > (1e-3 if encoding == "rate_hz" else 0)
        if bad.any():
            example = float(values[np.unravel_index(int(np.argmax(bad)), bad.shape)])
            raise FileError(
                "not counts",
                f"{name!r} has {np.count_nonzero(bad)} values that are no counts"
                f"{f' when multiplied by {bin_s * 1000:g} ms' if encoding == 'rate_hz' else ''} "
                f"(first: {example:g} at {at(bad)}).",
                where=where,
                remedy="check the bin width"
                if encoding == "rate_hz"
                else "if they are rates, say encoding = 'rate_hz' in the mapping; smoothed rates cannot be undone",
            )
        scaled = whole
    for wrong, reason, what in (
        (scaled < 0, "negative counts", "negative"),
        (scaled > MAX_COUNT, "more than 255 counts", f"above the limit of {MAX_COUNT} counts in a bin"),
    ):
        if wrong.any():
            worst = scaled[np.unravel_index(int(np.argmax(wrong)), wrong.shape)]
            raise FileError(
                reason,
                f"{name!r} has {np.count_nonzero(wrong)} values {what} (first: {worst:g} at {at(wrong)}).",
                where=where,
                remedy="check that the variable holds counts, and its bin width",
            )
    return np.asarray(scaled).astype(np.uint8)


def grid_of(bin_ms: float, *, where: str, origin_s: float = 0.0) -> BinGrid:
    """The grid with bins of this width, if a recording can have it.

    Args:
        bin_ms: bin width in milliseconds.
        where: the file, for the message.
        origin_s: start of bin 0 in seconds.

    Raises:
        FileError: the width or the origin is not a number, not positive, or absurd.
    """
    if not (np.isfinite(bin_ms) and 0 < bin_ms <= _WIDEST_MS):
        raise FileError(
            "impossible bin width",
            f"a bin width of {bin_ms:g} ms is impossible.",
            where=where,
            remedy=f"give more than 0 and at most {_WIDEST_MS:g} ms; check its unit",
        )
    grid = BinGrid.from_ms(bin_ms)
    if not (np.isfinite(origin_s) and abs(origin_s) * grid.tick_hz < _LATEST_TICK):
        raise FileError(
            "bad stamps", f"a first bin at {origin_s:g} s is impossible.", where=where, remedy="check its unit"
        )
    return replace(grid, origin_tick=int(grid.ticks_from_s(origin_s)))


def grid_from_stamps(
    stamps_s: NDArray[np.float64], *, bin_ms: float | None, resolution_s: float, where: str, name: str
) -> tuple[BinGrid, NDArray[np.int64]]:
    """The grid on which stamps lie, and the bin of each.

    Args:
        stamps_s: (N,) start of each bin in seconds.
        bin_ms: bin width, if it is known; it must agree.
        resolution_s: rounding error of the stamps (float32 stamps of an hour are good to 0.2 ms).
        where, name: the file and variable, for the message.

    Raises:
        FileError: stamps are NaN, negative, not ascending, or not regular up to gaps of whole bins.
    """

    def refuse(reason: str, what: str, remedy: str = "check the stamps, or leave them out of the mapping") -> FileError:
        return FileError(reason, what, where=where, remedy=remedy)

    if len(stamps_s) == 0:
        raise refuse("no bins", "it has no bins.", "import a recording with at least one bin")
    if not np.isfinite(stamps_s).all():
        raise refuse("bad stamps", f"stamps {name!r} contain NaN or infinity.")
    if stamps_s.min() < 0:
        raise refuse(
            "bad stamps", f"stamps {name!r} are negative (first: {stamps_s.min():g} s).", "check the clock's zero"
        )
    step = np.diff(stamps_s)
    if np.any(step <= 0):
        bad = int(np.argmax(step <= 0))
        raise refuse("bad stamps", f"stamps {name!r} are not in ascending order (first at row {bad + 1}).")
    if len(step) == 0 and bin_ms is None:
        raise refuse("bad stamps", "a single stamp does not tell the bin width.", "give bin_ms")
    width = bin_ms / 1000 if bin_ms is not None else float(np.median(step))
    grid_of(width * 1000, where=where)
    slack = max(0.01 * width, 4 * resolution_s)
    if slack > width / 4:
        raise refuse("bad stamps", f"stamps {name!r} are too coarse (±{resolution_s * 1000:.2g} ms) for such bins.")
    jump = np.rint(step / width)
    missing = float((jump - 1).clip(0).sum())
    if missing > _MOST_MISSING * len(stamps_s) + 100:
        raise refuse(
            "bad stamps", f"stamps {name!r} leave out {missing:.3g} bins of {len(stamps_s)} rows.", "check their unit"
        )
    bins = np.concatenate(([0], np.cumsum(jump))).astype(np.int64)
    since_s = stamps_s - stamps_s[0]
    if bin_ms is None and bins[-1] > 0:
        mean = float(since_s[-1] / bins[-1])  # finer than a single float32 step; in whole µs if that fits as well
        width = min(round(mean, 6), mean, key=lambda w: bool(np.abs(since_s - bins * w).max() > slack))
    off = np.abs(since_s - bins * width)
    gaps = np.count_nonzero(jump > 1)
    if np.any(jump < 1) or off.max(initial=0.0) > slack or gaps > max(3, _MIXED_SHARE * len(step)):
        common = np.unique(np.round(step * 1000, 1), return_counts=True)
        seen = ", ".join(f"{common[0][i]:g} ms × {common[1][i]}" for i in np.argsort(-common[1])[:3])
        raise refuse(
            "mixed bin widths",
            f"stamps {name!r} do not follow one bin width of {width * 1000:g} ms (steps: {seen}).",
            "split the file, or bin the recording evenly",
        )
    return grid_of(width * 1000, where=where, origin_s=float(stamps_s[0])), bins
