"""Sessions from arrays in memory: one recording, or a list of trials put one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import DataError
from betz.core.intervals import Intervals
from betz.core.session import BehaviorDim, Channel, Provenance, Series, Session, Trials
from betz.core.timegrid import MAX_COUNT, BinGrid

Array = NDArray[Any]
Rows = Any
"""(N, columns) array, or a list of such arrays, one a trial."""


def from_arrays(
    counts: Rows | None = None,
    *,
    bin_ms: float | Sequence[float],
    behavior: Rows | None = None,
    power: Rows | None = None,
    id: str = "session",
    subject: str = "unknown",
    channels: Sequence[Channel | str] | None = None,
    dims: Sequence[BehaviorDim | str] | None = None,
    nan: Literal["raise", "mask"] = "raise",
    task: str = "",
    tags: Mapping[str, str] | None = None,
    licence: str = "",
    conditions: Sequence[str] | None = None,
    valid: Intervals | NDArray[np.bool_] | None = None,
    provenance: Provenance | None = None,
) -> Session:
    """A session from binned arrays; the first bin starts at tick 0.

    With lists of trials, the trials are put one after another: the start of every trial but the first is an edge,
    at which lags and filters restart, and all trials are listed in ``session.trials``.

    Args:
        counts: (N, C) whole numbers 0 … 255, or a list with one such array a trial; None with power only.
        bin_ms: bin width in milliseconds; also one width a trial, which must all be equal.
        behavior: (N, K) numbers in the same bins, or a list of trials.
        power: (N, C_power) numbers, or a list of trials; its channels come after those of ``counts``.
        id: name of the session, safe as a file name.
        subject: who was recorded.
        channels: one channel (or its id) a column; ids alone mean threshold crossings, and power for the power columns.
        dims: one dimension (or its name, then in arbitrary units, "a.u.") a behavior column.
        nan: ``raise`` refuses NaN in behavior; ``mask`` keeps it as "not known" and notes how often it occurs.
        task, tags, licence: as in the session.
        conditions: one name a trial.
        valid: ticks, or (N,) bool bins, in which signals can be trusted; None = all.
        provenance: where the arrays come from.

    Raises:
        DataError: lengths differ, a value is no count, NaN is not allowed, bin widths are mixed, or nothing is given.

    >>> session = from_arrays([[1, 0], [0, 2], [3, 1]], bin_ms=20, behavior=[[0.0], [0.5], [1.0]], dims=["hand_x"])
    >>> session.num_bins, session.minutes, session.dims[0].unit
    (3, 0.001, 'a.u.')
    >>> trials = [np.zeros((3, 2), np.uint8), np.ones((4, 2), np.uint8)]
    >>> from_arrays(trials, bin_ms=20, conditions=["left", "right"]).segments
    ((0, 3), (3, 7))
    """
    where = f"from_arrays, session {id!r}"
    trials = {name: pieces for name, value in (("counts", counts), ("power", power), ("behavior", behavior))
              if value is not None and (pieces := _trials(value, name, where)) is not None}  # fmt: skip
    lengths = _trial_lengths(trials, {"counts": counts, "power": power, "behavior": behavior}, where)
    grid = BinGrid.from_ms(_one_width(bin_ms, lengths, where))
    counts_NC = _joined(counts, trials, "counts", where)
    power_NC = _joined(power, trials, "power", where)
    behavior_NK = _joined(behavior, trials, "behavior", where)
    num_bins = _num_bins(counts_NC, power_NC, behavior_NK, where)
    made_channels = _channels(channels, counts_NC, power_NC, where)
    series, notes = _behavior(behavior_NK, dims, grid, nan, where)
    edges, table = _trial_table(lengths, conditions, grid, where)
    provenance = provenance if provenance is not None else Provenance(importer="from_arrays")
    return Session(
        id=id,
        subject=subject,
        grid=grid,
        num_bins=num_bins,
        channels=made_channels,
        counts=None if counts_NC is None else _as_counts(counts_NC, made_channels, where),
        power=None if power_NC is None else _as_float32(power_NC, "power", where),
        behavior=series,
        valid=_valid(valid, grid, num_bins, where),
        edges=edges,
        trials=table,
        task=task,
        tags=dict(tags or {}),
        provenance=replace(provenance, notes=(*provenance.notes, *notes)),
        licence=licence,
    )


def _trials(value: Rows, name: str, where: str) -> list[Array] | None:
    """The trials of a list of 2-d arrays; None for one 2-d array."""
    if not isinstance(value, (list, tuple)) or not value:
        return None
    try:
        pieces = [np.asarray(piece) for piece in value]
    except ValueError:
        raise DataError(f"the rows of {name} have different lengths.", where=where, remedy="one row a bin") from None
    if pieces[0].ndim == 2:
        for k, piece in enumerate(pieces):
            if piece.ndim != 2 or piece.shape[1] != pieces[0].shape[1]:
                raise DataError(
                    f"{name} of trial {k} are {piece.shape}, those of trial 0 {pieces[0].shape}.",
                    where=where,
                    remedy="every trial needs the same columns, one row a bin",
                )
            if len(piece) == 0:
                raise DataError(f"trial {k} is empty: its {name} have no bins.", where=where, remedy="leave it out")
        return pieces
    return None


def _trial_lengths(
    trials: Mapping[str, list[Array]], given: Mapping[str, Rows | None], where: str
) -> tuple[int, ...] | None:
    """Bins of each trial; None when no lists of trials were given."""
    if not trials:
        return None
    first = next(iter(trials))
    for name, value in given.items():
        if value is None:
            continue
        if name not in trials:
            raise DataError(
                f"{first} are a list of {len(trials[first])} trials, {name} are one array.",
                where=where,
                remedy="give all of them as lists of trials, or all as one array",
            )
        if len(trials[name]) != len(trials[first]):
            raise DataError(
                f"{first} have {len(trials[first])} trials, {name} {len(trials[name])}.",
                where=where,
                remedy="give one array a trial",
            )
        for k, (one, other) in enumerate(zip(trials[first], trials[name], strict=True)):
            if len(one) != len(other):
                raise DataError(
                    f"in trial {k}, {first} have {len(one)} bins and {name} {len(other)}.",
                    where=where,
                    remedy="cut both to the same stretch of time",
                )
    return tuple(len(piece) for piece in trials[first])


def _one_width(bin_ms: float | Sequence[float], lengths: tuple[int, ...] | None, where: str) -> float:
    if isinstance(bin_ms, (int, float, np.number)):
        return float(bin_ms)
    widths = [float(width) for width in bin_ms]
    if lengths is None or len(widths) != len(lengths):
        number = "no list of trials was" if lengths is None else f"{len(lengths)} trials were"
        raise DataError(f"bin_ms has {len(widths)} widths, but {number} given.", where=where, remedy="give one width")
    if len(set(widths)) > 1:
        k = next(k for k, width in enumerate(widths) if width != widths[0])
        raise DataError(
            f"trials have different bin widths: trial 0 has {widths[0]:g} ms, trial {k} has {widths[k]:g} ms.",
            where=where,
            remedy="bin all trials alike, or make one session of each width",
        )
    return widths[0]


def _joined(value: Rows | None, trials: Mapping[str, list[Array]], name: str, where: str) -> Array | None:
    if value is None:
        return None
    try:
        array = np.concatenate(trials[name]) if name in trials else np.asarray(value)
    except ValueError:  # rows of different lengths
        raise DataError(f"the rows of {name} have different lengths.", where=where, remedy="one row a bin") from None
    if array.dtype.kind not in "buif":
        raise DataError(f"{name} are {array.dtype}, not numbers.", where=where, remedy="give an array of numbers")
    if array.ndim != 2:
        raise DataError(
            f"{name} have the shape {array.shape}, not (bins, columns).",
            where=where,
            remedy="use array[:, None] for a single column, list(array) for a stack of trials",
        )
    return array


def _num_bins(counts_NC: Array | None, power_NC: Array | None, behavior_NK: Array | None, where: str) -> int:
    signals = {name: len(a) for name, a in (("counts", counts_NC), ("power", power_NC)) if a is not None}
    if not signals:
        raise DataError("neither counts nor power are given.", where=where, remedy="give at least one of them")
    if len(set(signals.values())) > 1:
        raise DataError(
            f"counts have {signals['counts']} bins and power {signals['power']}.",
            where=where,
            remedy="cut both to the same stretch of time",
        )
    name, number = next(iter(signals.items()))
    if number == 0:
        raise DataError("the session is empty: it has no bins.", where=where, remedy="give at least one bin")
    if behavior_NK is not None and len(behavior_NK) != number:
        short = min(number, len(behavior_NK))
        raise DataError(
            f"behavior has {len(behavior_NK)} rows, {name} have {number} bins.",
            where=where,
            remedy=f"if they start together, cut both to [:{short}]; for behavior that is not known, "
            "fill up with NaN and give nan='mask'",
        )
    return number


def _channels(
    given: Sequence[Channel | str] | None, counts_NC: Array | None, power_NC: Array | None, where: str
) -> tuple[Channel, ...]:
    counting = 0 if counts_NC is None else counts_NC.shape[1]
    measuring = 0 if power_NC is None else power_NC.shape[1]
    if given is None:
        given = [f"ch{i}" for i in range(counting)] + [f"power{i}" for i in range(measuring)]
    if len(given) != counting + measuring:
        raise DataError(
            f"{len(given)} channels are named, the signals have {counting + measuring} columns.",
            where=where,
            remedy="name every column: counts first, then power",
        )
    return tuple(
        c if isinstance(c, Channel) else Channel(str(c), "crossings" if i < counting else "power")
        for i, c in enumerate(given)
    )


def _as_counts(counts_NC: Array, channels: tuple[Channel, ...], where: str) -> NDArray[np.uint8]:
    """As uint8; each value must be a whole number from 0 to 255."""
    if counts_NC.dtype == np.uint8:
        return np.ascontiguousarray(counts_NC)
    checks = [("negative", counts_NC < 0, "counts cannot be below 0")] if counts_NC.dtype.kind in "if" else []
    if counts_NC.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            fraction = ~np.isfinite(counts_NC) | (counts_NC != np.rint(counts_NC))
        checks.append(("no whole number", fraction, "multiply rates by the bin width; smoothed rates are no counts"))
    checks.append(
        (
            f"above the limit of {MAX_COUNT} counts in a bin",
            counts_NC > MAX_COUNT,
            "use narrower bins, or give it as power",
        )
    )
    for what, bad, remedy in checks:
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise DataError(
                f"the count {counts_NC[row, column]:g} is {what} ({np.count_nonzero(bad)} such values).",
                where=f"{where}, bin {row}, channel {channels[column].id!r}",
                remedy=remedy,
            )
    return counts_NC.astype(np.uint8)


def _as_float32(values: Array, name: str, where: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        out = np.ascontiguousarray(values, dtype=np.float32)
    if np.any(np.isinf(out) & np.isfinite(values)):
        raise DataError(f"{name} have values too large for float32.", where=where, remedy="use a larger unit")
    return out


def _behavior(
    behavior_NK: Array | None, dims: Sequence[BehaviorDim | str] | None, grid: BinGrid, nan: str, where: str
) -> tuple[tuple[Series, ...], list[str]]:
    """The series of behavior, and a note for each dimension with NaN."""
    if nan not in ("raise", "mask"):
        raise DataError(f"nan={nan!r} is unknown.", where=where, remedy="use 'raise' or 'mask'")
    if behavior_NK is None:
        if dims:
            raise DataError(f"{len(dims)} dimensions are named, but no behavior is given.", where=where)
        return (), []
    columns = behavior_NK.shape[1]
    if dims is None:
        dims = [f"behavior{k}" for k in range(columns)]
    if isinstance(dims, str) or len(dims) != columns:
        raise DataError(
            f"dims are {list(dims) if not isinstance(dims, str) else dims!r}, but behavior has {columns} columns.",
            where=where,
            remedy="name every column once",
        )
    made = tuple(d if isinstance(d, BehaviorDim) else BehaviorDim(str(d), "a.u.") for d in dims)
    values = _as_float32(behavior_NK, "behavior", where)
    unknown = np.isnan(values)
    notes = [
        f"behavior {d.name!r} is NaN (not known) in {n} bins" for d, n in zip(made, unknown.sum(0), strict=True) if n
    ]
    if notes and nan == "raise":
        first = int(np.flatnonzero(unknown.any(axis=1))[0])
        raise DataError(
            f"{'; '.join(notes)} (first: bin {first}).",
            where=where,
            remedy="give nan='mask' to keep it as not known: such bins are neither fitted nor scored",
        )
    return (Series(values, made, grid.origin_tick, grid.ticks_per_bin),), notes


def _trial_table(
    lengths: tuple[int, ...] | None, conditions: Sequence[str] | None, grid: BinGrid, where: str
) -> tuple[NDArray[np.int64], Trials | None]:
    if lengths is None:
        if conditions is not None:
            raise DataError(
                f"{len(conditions)} conditions are given, but no list of trials.",
                where=where,
                remedy="give counts and behavior as lists with one array a trial",
            )
        return np.empty(0, np.int64), None
    if conditions is not None and len(conditions) != len(lengths):
        raise DataError(f"{len(conditions)} conditions are given for {len(lengths)} trials.", where=where)
    border = grid.start_of(np.concatenate(([0], np.cumsum(lengths))))
    names = tuple(str(c) for c in conditions) if conditions is not None else ()
    return border[1:-1].copy(), Trials(border[:-1].copy(), border[1:].copy(), names)


def _valid(valid: Intervals | NDArray[np.bool_] | None, grid: BinGrid, num_bins: int, where: str) -> Intervals | None:
    if valid is None or isinstance(valid, Intervals):
        return valid
    mask = np.asarray(valid)
    if mask.dtype != np.bool_ or mask.shape != (num_bins,):
        raise DataError(
            f"valid is {mask.dtype} {mask.shape}, expected {num_bins} bool bins or Intervals of ticks.", where=where
        )
    return None if mask.all() else Intervals.from_mask(mask, grid)
