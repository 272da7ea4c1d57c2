"""Behavior that was recorded on another clock, put on a session's: what ``--align FILE`` says and does."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping as MappingType
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from betz.core.config import from_dict, frozen_config
from betz.core.errors import ConfigError, DataError
from betz.core.session import BehaviorDim, Series, Session
from betz.data.align import ClockMap, Float, clock_map, decode_barcodes, rising_edges
from betz.data.importers.files import ArrayFile, FileError, file_sha256, open_arrays
from betz.data.importers.mapping import BehaviorMapping, Mapping, TimeMapping
from betz.data.importers.rows import Rows


@frozen_config
class Barcode:
    """Layout of a barcode on a line: see :func:`betz.data.align.decode_barcodes`."""

    bits: int = 32
    bit_ms: float = 30.0
    start_ms: float = 30.0


@frozen_config
class Align:
    """What a file of ``--align`` says.

    Args:
        file: the behavior file, beside the recording or from the root; ``{stem}`` is the recording's name.
        line: the pulses in the recording: name of its events, or of an analog behavior dimension whose rises count.
        value: only events of this value or text.
        pulses: variable of the behavior file with the times of the pulses on its clock, or
        level: variable with the level of the line, sampled at
        level_stamps: variable with a time each.
        codes: variable with the barcode's number of each of the pulses; the recording's events carry theirs as value.
        barcode: both sides are lines with barcodes of this layout.
        time_unit: of all times in the behavior file.
        clock: one line, or piecewise lines with knots every minute.
        behavior: as in a mapping; each needs ``stamps``.
    """

    file: str
    line: str
    behavior: tuple[BehaviorMapping, ...]
    value: str | None = None
    pulses: str = ""
    level: str = ""
    level_stamps: str = ""
    codes: str = ""
    barcode: Barcode | None = None
    time_unit: Literal["s", "ms"] = "s"
    clock: Literal["affine", "piecewise"] = "affine"


def load_align(source: str | Path | MappingType[str, Any] | Align) -> Align:
    """The settings of an alignment, from a TOML or JSON file or a dict.

    Raises:
        ConfigError: it cannot be read, or a key or value is wrong.
    """
    if isinstance(source, Align):
        return source
    if not isinstance(source, (str, Path)):
        return from_dict(Align, source)
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the alignment cannot be read ({error}).", where=str(path)) from None
    return from_dict(Align, values)


def aligned(session: Session, recording: Path, align: Align) -> Session:
    """The session with the behavior of another clock on its own, resampled to a regular series.

    Args:
        session: with the pulses among its events or analog behavior.
        recording: its file, beside which the behavior file lies.
        align: which is which.

    Raises:
        DataError: pulses do not match, the map is off by more than half a bin, or the file does not fit.
        ConfigError: the settings contradict each other.
    """
    path = recording.parent / align.file.replace("{stem}", recording.stem)
    file = open_arrays(path)
    scale = 1000.0 if align.time_unit == "ms" else 1.0
    here_s, here_codes = _here(session, align)
    there_s, there_codes = _there(file, align, scale)
    codes = None if here_codes is None or there_codes is None else (here_codes, there_codes)
    where = f"session {session.id} and {path.name}"
    found = clock_map(here_s, there_s, bin_ms=session.bin_ms, kind=align.clock, codes=codes, where=where)
    rows = Rows(file, Mapping(time=TimeMapping(), behavior=align.behavior))
    series, notes = [], [f"{path.name} aligned by {align.line}: {found}"]
    for part in align.behavior:
        each, told = _series(rows, part, found, session, scale)
        series.append(each)
        notes += told
    taken = {d.name for d in session.dims} & {d.name for s in series for d in s.dims}
    if taken:
        raise DataError(f"behavior {sorted(taken)[0]!r} is in the recording already.", where=where,
                        remedy="give it another name in the alignment")  # fmt: skip
    old = session.provenance
    provenance = replace(
        old,
        notes=(*old.notes, *notes),
        options={**old.options, "align": {"file": path.name, "sha256": file_sha256(path), "clock": align.clock}},
    )
    return replace(session, behavior=(*session.behavior, *series), provenance=provenance)


# ---- pulses


def _here(session: Session, align: Align) -> tuple[Float, list[int] | None]:
    """Times of the pulses on the session's clock, and their codes."""
    grid = session.grid
    if align.line in {d.name for d in session.dims}:
        for series in session.behavior:
            names = [d.name for d in series.dims]
            if align.line in names:
                level = series.values[:, names.index(align.line)].astype(np.float64)
                ticks = series.origin_tick + np.arange(len(level), dtype=np.int64) * series.ticks_per_sample
                times_s = grid.seconds(ticks)
                return _of_line(times_s, level, align)
    if session.events is None or align.line not in session.events.names:
        known = (*(session.events.names if session.events is not None else ()), *(d.name for d in session.dims))
        raise ConfigError(
            f"there is no line {align.line!r} in the recording.",
            where=f"session {session.id}",
            remedy=f"it has {', '.join(known) or 'no events and no analog channels'}",
        )
    times_s = grid.seconds(session.events.at(align.line, align.value))
    if align.codes or align.barcode is not None:
        rows = [session.events.kinds[c] for c in session.events.codes if session.events.kinds[c][0] == align.line]
        values = [_code(text, align.line) for _, text in rows if align.value in (None, text)]
        if align.barcode is not None:
            return _decoded(times_s, values, align.barcode)
        return times_s, values
    return np.unique(times_s), None


def _there(file: ArrayFile, align: Align, scale: float) -> tuple[Float, list[int] | None]:
    """Times of the pulses on the other clock, and their codes."""
    if bool(align.pulses) == bool(align.level) or bool(align.level) != bool(align.level_stamps):
        raise ConfigError(
            "an alignment names either pulses, or level and level_stamps.", where=align.file, remedy="name one of them"
        )
    if align.level:
        return _of_line(_vector(file, align.level_stamps) / scale, _vector(file, align.level), align)
    times_s = _known(file, align.pulses) / scale
    codes = [int(c) for c in _known(file, align.codes)] if align.codes else None
    if codes is not None and len(codes) != len(times_s):
        raise FileError("different lengths", f"{align.codes!r} has {len(codes)} numbers for {len(times_s)} pulses.",
                        where=file.path.name, remedy="correct codes")  # fmt: skip
    return times_s, codes


def _of_line(times_s: Float, level: Float, align: Align) -> tuple[Float, list[int] | None]:
    if align.barcode is None:
        return rising_edges(times_s, level), None
    high = (level >= (np.nanmin(level) + np.nanmax(level)) / 2).astype(int)
    at = np.flatnonzero(np.diff(high)) + 1
    return _decoded(times_s[at], high[at].tolist(), align.barcode)


def _decoded(edges_s: Float, levels: list[int], barcode: Barcode) -> tuple[Float, list[int]]:
    high = [int(level != 0) for level in levels]
    return decode_barcodes(edges_s, high, bits=barcode.bits, bit_ms=barcode.bit_ms, start_ms=barcode.start_ms)


def _code(text: str, line: str) -> int:
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        raise ConfigError(f"events of {line!r} carry {text!r}, not a number.", remedy="leave codes out") from None


def _vector(file: ArrayFile, name: str) -> Float:
    values = file.load(name)
    if values.dtype.kind not in "biuf" or values.size != max(values.shape, default=0):
        raise FileError("wrong shape", f"{name!r} is {values.dtype} {values.shape}, not a vector of numbers.",
                        where=file.path.name, remedy="correct its name in the alignment")  # fmt: skip
    return values.ravel().astype(np.float64)


def _known(file: ArrayFile, name: str) -> Float:
    """A vector without NaN: a column of a table is as long as the table, the pulses in it need not be."""
    values = _vector(file, name)
    return values[np.isfinite(values)]


# ---- behavior


def _series(
    rows: Rows, part: BehaviorMapping, found: ClockMap, session: Session, scale: float
) -> tuple[Series, list[str]]:
    """Behavior at the times of the other clock as a regular series on the session's, and what there is to say of it."""
    if not part.stamps:
        raise ConfigError("behavior of another clock needs stamps.", where="[[behavior]]", remedy="name its stamps")
    values, label = rows.behavior(replace(part, stamps=""))
    stamps_s = rows.file.load(part.stamps).ravel().astype(np.float64) / scale
    if len(stamps_s) != len(values) or len(values) < 2 or np.any(np.diff(stamps_s) <= 0):
        raise FileError("bad stamps", f"{part.stamps!r} are not ascending, one a row of {label!r} ({len(stamps_s)} for "
                        f"{len(values)}).", where=rows.where, remedy="correct stamps")  # fmt: skip
    if len(part.dims) != values.shape[1]:
        raise FileError("wrong shape", f"{label!r} has {values.shape[1]} columns, {len(part.dims)} are named.",
                        where=rows.where, remedy="correct dims")  # fmt: skip
    hz = session.grid.tick_hz
    times = found(stamps_s) * hz
    step = max(round(float(np.median(np.diff(times)))), 1)
    keep = [k for k, dim in enumerate(part.dims) if dim.name]
    dims = tuple(BehaviorDim(part.dims[k].name, part.dims[k].unit) for k in keep)
    factors = np.array([part.dims[k].factor for k in keep])
    origin = int(np.ceil(times[0]))
    grid = origin + np.arange(int((times[-1] - origin) // step) + 1, dtype=np.int64) * step
    out, missing = _resampled(grid.astype(np.float64), times, values[:, keep] * factors, step, held=part.held)
    notes = [f"{label}: resampled to {hz / step:g} Hz on the clock of the spikes"]
    if missing:
        notes.append(f"{label}: {missing} samples that were not recorded are NaN")
    outside = np.count_nonzero((stamps_s < found.span_s[0]) | (stamps_s > found.span_s[1]))
    if outside:
        notes.append(f"{label}: {outside} samples lie before the first or after the last pulse, where the map goes on")
    return Series(out, dims, origin, step), notes


def _resampled(
    grid: Float, times: Float, values: NDArray[Any], step: int, *, held: bool
) -> tuple[NDArray[np.float32], int]:
    """Values at regular times: between two samples by a line (``held``: the earlier one); NaN inside of gaps."""
    after = np.clip(np.searchsorted(times, grid, side="right"), 1, len(times) - 1)
    width = times[after] - times[after - 1]
    share = np.zeros(len(grid)) if held else np.clip((grid - times[after - 1]) / width, 0, 1)
    values = values.astype(np.float64)
    out = values[after - 1] + share[:, None] * (values[after] - values[after - 1])
    gap = width > 1.9 * step
    out[gap] = np.nan
    return out.astype(np.float32), int(np.count_nonzero(gap))
