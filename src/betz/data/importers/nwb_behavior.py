"""Behavior of an NWB file: every TimeSeries and SpatialSeries of few columns, named, with units, made regular."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.session import BehaviorDim
from betz.data.importers.build import Draft, Sampled
from betz.data.importers.choose import chosen
from betz.data.importers.files import FileError
from betz.data.importers.nwb_file import NwbFile, text_of
from betz.data.importers.regular import Regular, by_rate, by_stamps

Array = NDArray[Any]
MOST_COLUMNS, MOST_HZ = 64, 5000.0
"""Series of more columns or faster ones are no behavior (voltage, images, audio) unless they are asked for."""
BINNED_COUNTS, BAND_POWER, DECODER_MODULE = "binned_counts", "band_power", "decoder"
"""Where Betz's own NWB files keep counts in bins, power, and predictions: no behavior."""
_OTHER = ("ElectricalSeries", "SpikeEventSeries", "ImageSeries", "OpticalSeries", "IndexSeries", "TwoPhotonSeries",
          "OnePhotonSeries", "AnnotationSeries", "IntervalSeries", "RoiResponseSeries", "ImageMaskSeries",
          "DecompositionSeries", "AbstractFeatureSeries", "VoltageClampSeries", "CurrentClampSeries")  # fmt: skip
_PLAIN_NAMES = ("Position", "BehavioralTimeSeries", "CompassDirection", "EyeTracking", "PupilTracking")
_UNITS = {"meters": "m", "metres": "m", "meter": "m", "meters/second": "m/s", "meters per second": "m/s",
          "centimeters": "cm", "millimeters": "mm", "volts": "V", "millivolts": "mV", "seconds": "s",
          "radians": "rad", "degrees": "deg", "newtons": "N", "unknown": "a.u.", "n/a": "a.u.", "AU": "a.u.",
          "arbitrary": "a.u.", "": "a.u.", "no unit": "a.u.", "none": "a.u."}  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """A series that can be behavior: where it is, its dimensions, its samples, and why it is left out unless asked."""

    path: str
    series: Any
    dims: tuple[BehaviorDim, ...]
    samples: int
    reluctant: str = ""


def candidates(file: NwbFile) -> list[Candidate]:
    """All series that can be behavior, in the file's order; names are unique over all of them."""
    own = (f"acquisition/{BINNED_COUNTS}", f"acquisition/{BAND_POWER}")
    series = [(path, item) for path, item in file.series.items() if path not in own and _fits(item)]
    stems = _stems([path for path, _ in series])
    found = [_candidate(path, item, stem) for (path, item), stem in zip(series, stems, strict=True)]
    names = Counter(dim.name for one in found for dim in one.dims)
    repeated = {name for name, number in names.items() if number > 1}
    if not repeated:
        return found
    return [_candidate(one.path, one.series, plain(one.path.replace("/", "_")))
            if any(d.name in repeated for d in one.dims) else one for one in found]  # fmt: skip


def _fits(item: Any) -> bool:
    kinds = {cls.__name__ for cls in type(item).__mro__}
    shape = getattr(item.data, "shape", None)
    if kinds & set(_OTHER) or shape is None or len(shape) not in (1, 2) or 0 in shape:
        return False
    return np.dtype(item.data.dtype).kind in "biuf"


def _candidate(path: str, item: Any, stem: str) -> Candidate:
    shape = item.data.shape
    columns = 1 if len(shape) == 1 else int(shape[1])
    unit = _UNITS.get(text_of(item.unit), text_of(item.unit))
    dims = tuple(BehaviorDim(name, unit) for name in dim_names(stem, columns, type(item).__name__))
    reluctant = f"{columns} columns" if columns > MOST_COLUMNS else ""
    if path.startswith(f"processing/{DECODER_MODULE}/"):
        reluctant = "what a decoder predicted"
    if item.rate is not None and item.rate > MOST_HZ:
        reluctant = f"{item.rate:g} Hz"
    return Candidate(path, item, dims, int(shape[0]), reluctant)


def _stems(paths: Sequence[str]) -> list[str]:
    """A name for each series: its own, with its container's before it where that says something or names repeat."""
    own = [plain(path.split("/")[-1]) for path in paths]
    repeated = Counter(own)
    stems = []
    for path, name in zip(paths, own, strict=True):
        parts = path.split("/")[1:]
        container = parts[-2] if len(parts) > (2 if path.startswith("processing") else 1) else ""
        telling = container and container not in _PLAIN_NAMES and plain(container) != name
        stems.append(f"{plain(container)}_{name}" if telling or (container and repeated[name] > 1) else name)
    return stems


def dim_names(stem: str, columns: int, kind: str = "TimeSeries") -> list[str]:
    """Names of a series' columns, so that position and velocity of one effector are found as such.

    >>> dim_names("hand_vel", 2), dim_names("cursor_pos", 2), dim_names("force", 1), dim_names("emg", 2)
    (['hand_vx', 'hand_vy'], ['cursor_x', 'cursor_y'], ['force'], ['emg_1', 'emg_2'])
    """
    if columns == 1:
        return [stem]
    effector, _, last = stem.rpartition("_")
    spatial = columns in (2, 3)
    if spatial and effector and last in ("vel", "velocity"):
        return [f"{effector}_v{axis}" for axis in "xyz"[:columns]]
    if spatial and effector and last in ("pos", "position"):
        return [f"{effector}_{axis}" for axis in "xyz"[:columns]]
    if spatial and kind == "SpatialSeries":
        return [f"{stem}_{axis}" for axis in "xyz"[:columns]]
    return [f"{stem}_{k + 1}" for k in range(columns)]


def plain(text: str) -> str:
    """A name of letters, digits and ``_``."""
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_") or "series"


def read_behavior(
    file: NwbFile, draft: Draft, patterns: Sequence[str], tick_hz: int, *, others: Sequence[str] = ()
) -> None:
    """Add behavior to a draft: all that can be, or what the patterns name.

    Args:
        file: an open file.
        draft: gets the behavior, notes and counts.
        patterns: names or globs; none = all.
        tick_hz: of the session's clock.
        others: names of behavior that comes from elsewhere, which patterns may name too.

    Raises:
        FileError: stamps or values of a series that is wanted are damaged.
        ConfigError: a pattern matches nothing.
    """
    found = candidates(file)
    names = [dim.name for one in found for dim in one.dims]
    wanted = set(chosen([*names, *others], patterns, what="behavior", where=file.where))
    for one in found:
        columns = [k for k, dim in enumerate(one.dims) if dim.name in wanted]
        if not columns or (one.reluctant and not patterns):
            reason = f"left out: {one.reluctant}; name it with behavior=… (--behavior) to import it"
            if not patterns:
                draft.notes.append(f"{one.path} {reason}")
            draft.skip("behavior dimensions not asked for", len(one.dims))
            continue
        draft.skip("behavior dimensions not asked for", len(one.dims) - len(columns))
        draft.sampled.append(_sampled(file, one, columns, tick_hz, draft.notes))
    draft.skipped = {reason: number for reason, number in draft.skipped.items() if number}


def _sampled(file: NwbFile, one: Candidate, columns: list[int], tick_hz: int, notes: list[str]) -> Sampled:
    series, name = one.series, one.path.rpartition("/")[2]
    raw = np.asarray(series.data[:])
    values = raw[:, None] if raw.ndim == 1 else raw
    if len(columns) < values.shape[1]:
        values = values[:, columns]
    conversion = 1.0 if series.conversion is None else float(series.conversion)
    offset = float(getattr(series, "offset", 0.0) or 0.0)
    if not (np.isfinite(conversion) and np.isfinite(offset) and conversion):
        raise FileError("impossible behavior", f"{name!r} has conversion {conversion:g} and offset {offset:g}.",
                        where=file.where, remedy="check how the file was made")  # fmt: skip
    if conversion != 1 or offset:
        values = values.astype(np.float64) * conversion + offset
        notes.append(f"{name} multiplied by its conversion {conversion:g}" + (f", plus {offset:g}" if offset else ""))
    found = _regular(file, series, values, tick_hz, name)
    if found.told:
        notes.append(f"{name}: {found.told}")
    dims = tuple(one.dims[k] for k in columns)
    return Sampled(name, found.values, dims, found.origin_tick, found.ticks_per_sample, missing=found.missing)


def _regular(file: NwbFile, series: Any, values: Array, tick_hz: int, name: str) -> Regular:
    if series.timestamps is not None:
        stamps = np.asarray(series.timestamps[:], dtype=np.float64)
        return by_stamps(values, stamps_s=stamps, tick_hz=tick_hz, where=file.where, name=name)
    start = float(series.starting_time or 0.0)
    return by_rate(values, start_s=start, rate_hz=float(series.rate or 0.0), tick_hz=tick_hz, where=file.where,
                   name=name)  # fmt: skip
