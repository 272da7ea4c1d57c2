"""Validation of sessions, in order: structure, arrays, dimensions, values, extras.

Each stage reports all it finds before the next one starts, because later checks rely on earlier ones.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from betz.core.errors import DataError

if TYPE_CHECKING:
    from betz.core.session import Session

SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,119}")
"""What the id of a session may be: it names files."""


def check_session(session: Session) -> None:
    """Raise :class:`DataError` with every reason of the first stage at which a session is wrong."""
    for stage in (_structure, _arrays, _dimensions, _values, _extras):
        reasons = list(stage(session))
        if reasons:
            more = f" (and {len(reasons) - 8} more)" if len(reasons) > 8 else ""
            what, remedies = zip(*reasons[:8], strict=True)
            raise DataError(
                " ".join(what) + more,
                where=f"session {session.id!r}" if isinstance(session.id, str) else "session",
                remedy="; ".join(dict.fromkeys(filter(None, remedies))),
            )


Reasons = Iterator[tuple[str, str]]


def _structure(s: Session) -> Reasons:
    if not isinstance(s.id, str) or not SAFE_ID.fullmatch(s.id):
        yield f"the id {s.id!r} cannot be a file name.", "use letters, digits, . _ + = - (at most 120)"
    if not s.subject:
        yield "the subject is empty.", "name the subject, if only 'unknown'"
    if s.num_bins < 1:
        yield "it is empty: it has no bins.", "import a recording with at least one bin"
    if not s.channels:
        yield "it has no channels.", "select at least one channel"
    if s.counts is not None and s.spikes is not None:
        yield "it has both native counts and spike ticks.", "give one of them; counts of spike ticks are derived"
    if s.counts is None and s.spikes is None and s.power is None:
        yield "it has no signals.", "give counts, spikes or power"
    kinds = [c.kind for c in s.channels]
    unknown = sorted({str(k) for k in kinds} - {"crossings", "unit", "power"})
    if unknown:
        yield f"unknown channel kinds {unknown}.", "use crossings, unit or power"
    if "power" in kinds and any(k != "power" for k in kinds[kinds.index("power") :]):
        yield "power channels come before count channels.", "put count channels first"
    for name, number in Counter(c.id for c in s.channels).items():
        if number > 1:
            yield (
                f"channel id {name!r} occurs {number} times.",
                "channel ids must be unique; prefix them with the array",
            )
    for name, number in Counter(d.name for d in s.dims).items():
        if number > 1:
            yield f"behavior {name!r} occurs {number} times.", "behavior names must be unique"
        if not name:
            yield "a behavior dimension has no name.", "name every dimension"
    for dim in s.dims:
        if dim.kind == "discrete" and len(dim.classes) < 2:
            yield f"discrete behavior {dim.name!r} has {len(dim.classes)} classes.", "name at least two classes"


def _arrays(s: Session) -> Reasons:
    def wrong(name: str, value: Any, dtype: str, ndim: int) -> Reasons:
        if not isinstance(value, np.ndarray) or value.dtype != np.dtype(dtype) or value.ndim != ndim:
            found = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            yield f"{name} must be a {ndim}-d {dtype} array, not {found}.", f"convert {name} to {dtype}"

    if s.counts is not None:
        yield from wrong("counts", s.counts, "uint8", 2)
    if s.power is not None:
        yield from wrong("power", s.power, "float32", 2)
    for c, ticks in enumerate(s.spikes or ()):
        yield from wrong(f"spikes of channel {c}", ticks, "int64", 1)
    yield from wrong("edges", s.edges, "int64", 1)
    for k, series in enumerate(s.behavior):
        if not isinstance(series.values, np.ndarray) or series.values.ndim != 2 or series.values.dtype.kind != "f":
            yield f"behavior series {k} must be a 2-d float array.", "convert behavior to float32"


def _dimensions(s: Session) -> Reasons:
    counting = sum(c.kind != "power" for c in s.channels)
    measuring = len(s.channels) - counting
    for name, value, columns in (("counts", s.counts, counting), ("power", s.power, measuring)):
        if value is not None and value.shape != (s.num_bins, columns):
            yield (
                f"{name} are {value.shape}, but {s.num_bins} bins and {columns} such channels are declared.",
                "one row a bin, one column a channel",
            )
    if s.spikes is not None and len(s.spikes) != counting:
        yield f"spikes of {len(s.spikes)} channels are given, {counting} are declared.", "one array a count channel"
    if counting and s.counts is None and s.spikes is None:
        yield f"{counting} count channels are declared without counts or spikes.", ""
    if measuring and s.power is None:
        yield f"{measuring} power channels are declared without power.", ""
    for series in s.behavior:
        names = ", ".join(d.name for d in series.dims[:4])
        if series.values.shape[1] != len(series.dims):
            yield f"behavior ({names}) has {series.values.shape[1]} columns and {len(series.dims)} dimensions.", ""
        if series.ticks_per_sample < 1:
            yield f"behavior ({names}) has {series.ticks_per_sample} ticks a sample.", "give at least 1"


def _values(s: Session) -> Reasons:
    low, high = s.span
    for c, ticks in enumerate(s.spikes or ()):
        name = f"channel {s.channels[c].id!r}"
        if ticks.size and ticks[0] < low and ticks.min() < 0 <= low:
            yield f"{name}: spike ticks are negative ({int(ticks.min())}).", "check the clock's zero"
        if ticks.size > 1 and np.any(ticks[1:] < ticks[:-1]):
            at = int(np.argmax(ticks[1:] < ticks[:-1]))
            yield (
                f"{name}: spike ticks are not in ascending order (first at {at + 1}).",
                "sort them on import (named option sort_spikes=True)",
            )
    if s.power is not None and not np.all(np.isfinite(s.power)):
        bad = np.flatnonzero(~np.isfinite(s.power).all(axis=1))
        yield (
            f"power is NaN or infinite in {len(bad)} bins (first: {bad[0]}).",
            "mark them as not valid and set them to 0",
        )
    for series in s.behavior:
        for k, dim in enumerate(series.dims):
            column = series.values[:, k]
            if np.any(np.isinf(column)):
                yield f"behavior {dim.name!r} has infinite values.", "replace them by NaN (unknown)"
            known = column[~np.isnan(column)]
            no_class = (known < 0) | (known >= len(dim.classes)) | (known != np.rint(known))
            if dim.kind == "discrete" and no_class.any():
                yield f"discrete behavior {dim.name!r} has values that are no class index.", "use 0 … classes − 1"
        end = series.origin_tick + len(series.values) * series.ticks_per_sample
        if series.origin_tick >= high or end <= low:
            yield f"behavior {series.dims[0].name!r} does not overlap the signals in time.", "check both clocks"


def _extras(s: Session) -> Reasons:
    if np.any(np.diff(s.edges) <= 0):
        yield "edges are not in ascending order.", "sort them"
    if s.trials is not None:
        sizes = {len(s.trials.start), len(s.trials.end), *(len(v) for v in s.trials.columns.values())}
        if s.trials.condition:
            sizes.add(len(s.trials.condition))
        if len(sizes) != 1:
            yield f"the trial table has columns of different lengths {sorted(sizes)}.", ""
        elif np.any(s.trials.end < s.trials.start):
            yield "a trial ends before it starts.", ""
    for part in s.assistance:
        if not (0 <= part.level <= 1 and part.start < part.end and part.kind in ("active", "passive")):
            yield f"assistance {part} is impossible.", "0 ≤ level ≤ 1, start < end, kind active or passive"
    if s.reward is not None and (s.reward.ndim != 2 or s.reward.shape[1] != 2 or s.reward.dtype != np.int64):
        yield "reward must be (M, 2) int64: tick and amount in thousandths.", ""
    if s.events is not None:
        ticks, codes = s.events.ticks, s.events.codes
        if ticks.shape != codes.shape or ticks.ndim != 1 or ticks.dtype != np.int64 or np.any(np.diff(ticks) < 0):
            yield "events must be ascending int64 ticks with a code each.", "make them with Events.of"
        elif codes.size and not 0 <= codes.min() <= codes.max() < len(s.events.kinds):
            yield f"events have codes outside of their {len(s.events.kinds)} kinds.", "make them with Events.of"


_: Callable[[Session], None] = check_session
