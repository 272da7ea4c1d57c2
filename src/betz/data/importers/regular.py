"""Samples at any times as a regular series on whole ticks; what is missing is not known (NaN) and counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.data.importers.files import FileError

Array = NDArray[Any]
Float = NDArray[np.float64]
_NEAR, _REACH, _MOST_MISSING = 0.1, 1.75, 50
"""Share of a step by which stamps may be off; steps over which is interpolated; missing samples a recorded one."""


@dataclass(frozen=True)
class Regular:
    """A regular series.

    Args:
        values: (M, K) float.
        origin_tick, ticks_per_sample: where its samples lie.
        missing: how many samples are not known because of gaps.
        told: what was done to it; empty if nothing.
    """

    values: Float
    origin_tick: int
    ticks_per_sample: int
    missing: int = 0
    told: str = ""


def by_rate(values_MK: Array, *, start_s: float, rate_hz: float, tick_hz: int, where: str, name: str) -> Regular:
    """A series of a constant rate; resampled only where its step is no whole number of ticks.

    Raises:
        FileError: the rate or the start is impossible.
    """
    if not (np.isfinite(rate_hz) and rate_hz > 0 and np.isfinite(start_s) and abs(start_s) < 1e9):
        raise FileError("bad stamps", f"{name!r} has a rate of {rate_hz:g} Hz and starts at {start_s:g} s.",
                        where=where, remedy="check how the file was made")  # fmt: skip
    step = tick_hz / rate_hz
    whole = max(round(step), 1)
    if abs(step - whole) * len(values_MK) < _NEAR * step:
        return Regular(as_float(values_MK), round(start_s * tick_hz), whole)
    stamps = start_s + np.arange(len(values_MK)) / rate_hz
    return by_stamps(values_MK, stamps_s=stamps, tick_hz=tick_hz, where=where, name=name)


def as_float(values_MK: Array) -> Float:
    """Floats as they are, since hours of them are large; other numbers as float64."""
    return values_MK if values_MK.dtype.kind == "f" and values_MK.dtype.itemsize > 2 else values_MK.astype(np.float64)


def by_stamps(values_MK: Array, *, stamps_s: Float, tick_hz: int, where: str, name: str) -> Regular:
    """A series with a stamp a sample.

    Regular stamps with gaps keep their samples as they are; others are interpolated linearly between samples at most
    1.75 usual steps apart, which looks ahead by as much.

    Raises:
        FileError: stamps are NaN, descend, or leave out far more than they hold.
    """
    if len(stamps_s) != len(values_MK):
        raise FileError("different lengths", f"{name!r} has {len(values_MK)} samples and {len(stamps_s)} stamps.",
                        where=where, remedy="one stamp a sample")  # fmt: skip
    if not np.isfinite(stamps_s).all() or np.abs(stamps_s).max(initial=0.0) > 1e9:
        raise FileError("bad stamps", f"stamps of {name!r} contain NaN, infinity or no time.", where=where,
                        remedy="check how the file was made; NWB wants seconds")  # fmt: skip
    steps = np.diff(stamps_s)
    if np.any(steps < 0):
        raise FileError(
            "bad stamps",
            f"stamps of {name!r} step back {np.count_nonzero(steps < 0)} times (first at sample "
            f"{int(np.argmax(steps < 0)) + 1}): the clock restarted.",
            where=where,
            remedy="split the file there, or leave this behavior out with behavior=… (--behavior)",
        )
    values, told = as_float(values_MK), ""
    if np.any(steps == 0):
        keep = np.append(steps > 0, True)
        told = f"{np.count_nonzero(~keep)} samples with the same stamp as the next one left out; "
        values, stamps_s = values[keep], stamps_s[keep]
    if len(stamps_s) < 2:
        raise FileError("bad stamps", f"{name!r} has {len(stamps_s)} samples, which tell no rate.", where=where,
                        remedy="leave it out with behavior=… (--behavior)")  # fmt: skip
    found = _on_grid(values, stamps_s, tick_hz, where, name)
    return Regular(found.values, found.origin_tick, found.ticks_per_sample, found.missing, told + found.told)


def _on_grid(values_MK: Float, stamps_s: Float, tick_hz: int, where: str, name: str) -> Regular:
    usual_s = _usual_step(stamps_s)
    step = max(round(usual_s * tick_hz), 1)
    origin = round(float(stamps_s[0]) * tick_hz)
    place = (stamps_s * tick_hz - origin) / step
    number = int(np.floor(place[-1] + _NEAR)) + 1  # none after the last sample: that would be guessed
    if number > _MOST_MISSING * len(stamps_s) + 1000:
        raise FileError(
            "bad stamps",
            f"stamps of {name!r} span {number:,} steps of {usual_s * 1000:.4g} ms and hold {len(stamps_s):,} samples.",
            where=where,
            remedy="if these are events, not samples, leave it out with behavior=… (--behavior)",
        )
    at = np.rint(place).astype(np.int64)
    if np.abs(place - at).max() < _NEAR and np.all(np.diff(at) > 0):
        out = np.full((number, values_MK.shape[1]), np.nan)
        out[at] = values_MK
        missing = number - len(at)
        return Regular(out, origin, step, missing, f"{missing} samples missing between its stamps" if missing else "")
    out = _interpolated(values_MK, place, number)
    before = np.searchsorted(place, np.arange(number), side="right") - 1
    lost = int(np.count_nonzero(_in_gap(place, np.arange(number), before)))
    told = f"irregular stamps: interpolated to a sample every {1000 * step / tick_hz:.6g} ms"
    return Regular(out, origin, step, lost, told + (f", {lost} samples in gaps are not known" if lost else ""))


def _usual_step(stamps_s: Float) -> float:
    """The step between samples outside of gaps, as fine as the stamps tell."""
    steps = np.diff(stamps_s)
    middle = float(np.median(steps))
    near = steps[np.abs(steps - middle) < 0.5 * middle]
    return float(near.mean()) if len(near) else middle


def _in_gap(place_M: Float, wanted_N: NDArray[np.int64], before_N: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,) whether a wanted place has no sample near enough on either side."""
    low = place_M[np.clip(before_N, 0, len(place_M) - 1)]
    high = place_M[np.clip(before_N + 1, 0, len(place_M) - 1)]
    exact = np.abs(low - wanted_N) < _NEAR
    inside = (before_N >= 0) & (before_N + 1 < len(place_M)) & (high - low <= _REACH)
    return np.asarray(~(exact | inside))


def _interpolated(values_MK: Float, place_M: Float, number: int) -> Float:
    """(number, K) linear interpolation at whole places; NaN in gaps and beside NaN."""
    wanted = np.arange(number)
    before = np.searchsorted(place_M, wanted, side="right") - 1
    low = np.clip(before, 0, len(place_M) - 1)
    high = np.clip(before + 1, 0, len(place_M) - 1)
    span = place_M[high] - place_M[low]
    share = np.where(span > 0, (wanted - place_M[low]) / np.where(span > 0, span, 1), 0.0)
    share = np.where(np.abs(wanted - place_M[low]) < _NEAR, 0.0, np.clip(share, 0, 1))[:, None]
    out = np.where(share > 0, values_MK[low] * (1 - share) + values_MK[high] * share, values_MK[low])
    out[_in_gap(place_M, wanted, before)] = np.nan
    return np.asarray(out)
