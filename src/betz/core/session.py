"""A session: one continuous recording of one subject, with everything a decoder or a reader may need of it."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import DataError
from betz.core.events import Events
from betz.core.intervals import Intervals
from betz.core.timegrid import BinGrid, Ticks, count_spikes, sum_bins

Array = NDArray[Any]
ChannelKind = Literal["crossings", "unit", "power"]
CHANNEL_KINDS = ("crossings", "unit", "power")


@dataclass(frozen=True)
class Channel:
    """One column of signals.

    Args:
        id: name of the electrode or unit, unique in the session.
        kind: ``crossings`` or ``unit`` (integer counts) or ``power`` (float).
        array: the implanted array it belongs to.
        unit: physical unit of a power channel, e.g. ``"uV^2"``; empty for counts.
    """

    id: str
    kind: ChannelKind = "crossings"
    array: str = "A"
    unit: str = ""


@dataclass(frozen=True)
class Derivation:
    """How a behavior dimension was computed from recorded ones.

    Args:
        method: the function of ``betz.data.derive``; its name says causal or acausal.
        source: names of the dimensions it was computed from.
        causal: whether the value at a time uses nothing later.
        group_delay_ms: how much later than the truth the value comes (at zero frequency).
        parameters: the function's settings.
    """

    method: str
    source: tuple[str, ...]
    causal: bool
    group_delay_ms: float
    parameters: tuple[tuple[str, float | str], ...] = ()


@dataclass(frozen=True)
class BehaviorDim:
    """One dimension of behavior: continuous with a unit, or discrete with classes.

    Args:
        name: e.g. ``"hand_vx"``; unique in the session.
        unit: e.g. ``"cm/s"``; predictions carry it.
        kind: continuous values, or class indices (float, 0 … len(classes) − 1).
        classes: names of the classes of a discrete dimension.
        derivation: how it was computed, if it was not recorded.
    """

    name: str
    unit: str
    kind: Literal["continuous", "discrete"] = "continuous"
    classes: tuple[str, ...] = ()
    derivation: Derivation | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> BehaviorDim:
        """The dimension whose ``dataclasses.asdict`` went through JSON; raises what values that do not fit lead to."""
        if not all(isinstance(values[key], str) for key in ("name", "unit", "kind")):
            raise ValueError(f"behavior dimension {values['name']!r}")
        found = {**values, "classes": tuple(values["classes"])}
        if found["derivation"] is not None:
            derivation = dict(found["derivation"])
            derivation["source"] = tuple(derivation["source"])
            derivation["parameters"] = tuple((name, value) for name, value in derivation["parameters"])
            found["derivation"] = Derivation(**derivation)
        return cls(**found)


@dataclass(frozen=True, eq=False)
class Series:
    """Behavior dimensions sampled together at their own regular rate.

    Args:
        values: (M, K) float; NaN = not known at this sample.
        dims: K dimensions.
        origin_tick: tick of sample 0; sample i lies at origin + i · ticks_per_sample.
        ticks_per_sample: distance of samples on the session's clock.
    """

    values: Array
    dims: tuple[BehaviorDim, ...]
    origin_tick: int
    ticks_per_sample: int

    def binned(self, grid: BinGrid, num_bins: int) -> NDArray[np.float64]:
        """(N, K) float64: the mean of the samples inside each bin (discrete: the last); NaN where there is none.

        A bin with a NaN sample of a dimension has NaN there.
        """
        if self.ticks_per_sample == grid.ticks_per_bin and self.origin_tick == grid.origin_tick:
            out = np.full((num_bins, len(self.dims)), np.nan)
            out[: len(self.values)] = self.values[:num_bins]
            return out
        ticks = np.arange(len(self.values), dtype=np.int64) * self.ticks_per_sample + self.origin_tick
        edge = np.searchsorted(ticks, grid.start_of(np.arange(num_bins + 1)))
        number = np.diff(edge)
        out = np.empty((num_bins, len(self.dims)))
        for k, dim in enumerate(self.dims):  # one by one: hours of fast behavior are large
            column = self.values[:, k]
            if dim.kind == "discrete":
                out[:, k] = column[np.maximum(edge[1:] - 1, 0)]
                continue
            total = np.concatenate(([0.0], np.nancumsum(column, dtype=np.float64)))
            out[:, k] = (total[edge[1:]] - total[edge[:-1]]) / np.maximum(number, 1)
            lost = np.concatenate(([0], np.cumsum(np.isnan(column))))
            out[lost[edge[1:]] > lost[edge[:-1]], k] = np.nan
        out[number == 0] = np.nan
        return np.asarray(out)


@dataclass(frozen=True, eq=False)
class Trials:
    """Intervals with task meaning; they may touch or overlap and are never needed to decode.

    Args:
        start, end: (M,) int64 ticks, half open.
        condition: M names of the condition (may be empty strings).
        columns: further values a trial, each (M, …): target, go cue, outcome, …
    """

    start: Ticks
    end: Ticks
    condition: tuple[str, ...] = ()
    columns: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True)
class Assistance:
    """A stretch in which the task helped: ticks [start, end), its kind and its share of control (0 … 1)."""

    start: int
    end: int
    kind: Literal["active", "passive"]
    level: float


@dataclass(frozen=True)
class Provenance:
    """Where a session comes from: source, SHA-256, importer and its options, and what it noted or left out."""

    source: str = ""
    sha256: str = ""
    importer: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Session:
    """One continuous recording of one subject.

    Signals are either native counts or spike ticks (never both), and / or power; count channels come first.
    Everything is on one integer clock. Views (``first``, ``after``, ``between``) share the arrays.

    Args:
        id: unique name, safe as a file name.
        subject: who was recorded.
        grid: clock rate, native bin width, first tick.
        num_bins: N.
        channels: C channels, count channels before power channels.
        counts: (N, C_counts) uint8, or None.
        spikes: C_counts arrays of ascending int64 ticks, or None.
        power: (N, C_power) float32, or None.
        behavior: series of behavior dimensions, each at its own rate.
        valid: ticks in which signals can be trusted; None = all.
        edges: ticks at which pieces recorded apart (trials) were put together; lags and filters restart there.
        trials: trial table.
        task, tags: what was done, and anything else worth grouping by (condition, room, …).
        brain_control: ticks in which the decoder, not the body, moved the cursor.
        assistance: stretches with active or passive assistance.
        reward: (M, 2) int64 tick and amount in thousandths, or None.
        events: digital inputs and comments of the recording system, or None.
        provenance, licence: where it comes from and on which terms.

    Raises:
        DataError: with every reason found at the first failing stage
            (structure, arrays, dimensions, values, extras).
    """

    id: str
    subject: str
    grid: BinGrid
    num_bins: int
    channels: tuple[Channel, ...]
    counts: NDArray[np.uint8] | None = None
    spikes: tuple[Ticks, ...] | None = None
    power: NDArray[np.float32] | None = None
    behavior: tuple[Series, ...] = ()
    valid: Intervals | None = None
    edges: Ticks = field(default_factory=lambda: np.empty(0, np.int64))
    trials: Trials | None = None
    task: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    brain_control: Intervals = field(default_factory=lambda: Intervals.of([]))
    assistance: tuple[Assistance, ...] = ()
    reward: Ticks | None = None
    events: Events | None = None
    provenance: Provenance = field(default_factory=Provenance)
    licence: str = ""

    def __post_init__(self) -> None:
        from betz.core.validate import check_session

        check_session(self)

    # ---- what is in it

    @property
    def bin_ms(self) -> float:
        """Native bin width in milliseconds."""
        return self.grid.bin_ms

    @property
    def minutes(self) -> float:
        """Length in minutes, gaps included."""
        return self.num_bins * self.grid.bin_s / 60

    @property
    def dims(self) -> tuple[BehaviorDim, ...]:
        """All behavior dimensions, in order."""
        return tuple(dim for series in self.behavior for dim in series.dims)

    @property
    def span(self) -> tuple[int, int]:
        """First tick and end tick (exclusive) of the bins."""
        return int(self.grid.start_of(0)), int(self.grid.start_of(self.num_bins))

    @cached_property
    def signals(self) -> Array:
        """(N, C) signals in the order of ``channels``: uint8 if all are counts, else float32."""
        counts = self.counts
        if self.spikes is not None:
            counts = count_spikes(self.spikes, self.grid, self.num_bins)
        if self.power is None:
            assert counts is not None
            return counts
        if counts is None:
            return self.power
        return np.concatenate((counts.astype(np.float32), self.power), axis=1)

    def behavior_of(self, names: Sequence[str]) -> NDArray[np.float64]:
        """(N, K) float64 behavior in the session's bins: the mean of the samples inside a bin (discrete: the last).

        Raises:
            DataError: a name is unknown.
        """
        self.dims_of(names)
        out_NK = np.empty((self.num_bins, len(names)))
        for series in self.behavior:
            wanted = [(names.index(d.name), k) for k, d in enumerate(series.dims) if d.name in names]
            if wanted:
                to, of = zip(*wanted, strict=True)
                part = Series(
                    series.values[:, list(of)],
                    tuple(series.dims[k] for k in of),
                    series.origin_tick,
                    series.ticks_per_sample,
                )
                out_NK[:, list(to)] = part.binned(self.grid, self.num_bins)
        return out_NK

    def dims_of(self, names: Sequence[str]) -> tuple[BehaviorDim, ...]:
        """The named behavior dimensions.

        Raises:
            DataError: a name is unknown, repeated, or a bare string was given.
        """
        if isinstance(names, str):
            raise DataError(f"behavior must be a list of names, not the string {names!r}.", remedy=f"use [{names!r}]")
        if len(set(names)) != len(names) or not names:
            raise DataError(f"behavior names must be given once each: {list(names)}.", where=f"session {self.id}")
        known = {dim.name: dim for dim in self.dims}
        missing = [name for name in names if name not in known]
        if missing:
            raise DataError(
                f"no behavior named {', '.join(map(repr, missing))}.",
                where=f"session {self.id}",
                remedy=f"it has {', '.join(known) or 'no behavior at all'}",
            )
        return tuple(known[name] for name in names)

    @cached_property
    def usable(self) -> NDArray[np.bool_]:
        """(N,) whether a bin is wholly valid and has no edge inside it."""
        ok_N = np.ones(self.num_bins, dtype=bool)
        if self.valid is not None:
            ok_N = self.valid.whole_bins(self.grid, self.num_bins)
        inside = self.edges[(self.edges - self.grid.origin_tick) % self.grid.ticks_per_bin != 0]
        cut = self.grid.bin_of(inside)
        ok_N[cut[(cut >= 0) & (cut < self.num_bins)]] = False
        return ok_N

    @cached_property
    def segments(self) -> tuple[tuple[int, int], ...]:
        """(first bin, end bin) of each stretch of usable bins without a gap or an edge: state lives inside one."""
        ok_N = self.usable
        start_N = ok_N & ~np.concatenate(([False], ok_N[:-1]))
        at = self.grid.bin_of(self.edges)
        at = at[(at >= 0) & (at < self.num_bins)]
        start_N[at[ok_N[at]]] = True
        first = np.flatnonzero(start_N)
        stop_N = np.append(~ok_N, True)
        gap = np.flatnonzero(stop_N)
        end = np.minimum(gap[np.searchsorted(gap, first)], np.append(first[1:], self.num_bins))
        return tuple(zip(first.tolist(), end.tolist(), strict=True))

    # ---- views and changes

    def between(self, start_bin: int, stop_bin: int) -> Session:
        """Bins [start_bin, stop_bin) as a session of their own, on the same clock."""
        if not 0 <= start_bin < stop_bin <= self.num_bins:
            raise DataError(
                f"bins {start_bin} to {stop_bin} are not inside its {self.num_bins} bins.",
                where=f"session {self.id}",
            )
        view = copy.copy(self)
        for name in ("signals", "usable", "segments"):
            view.__dict__.pop(name, None)
        part = slice(start_bin, stop_bin)
        set_ = object.__setattr__
        set_(view, "grid", self.grid.from_bin(start_bin))
        set_(view, "num_bins", stop_bin - start_bin)
        if self.counts is not None:
            set_(view, "counts", self.counts[part])
        if self.power is not None:
            set_(view, "power", self.power[part])
        low, high = view.span
        if self.spikes is not None:
            ends = [np.searchsorted(ticks, (low, high)) for ticks in self.spikes]
            set_(view, "spikes", tuple(t[i:j] for t, (i, j) in zip(self.spikes, ends, strict=True)))
        set_(view, "behavior", tuple(_cut(series, low, high) for series in self.behavior))
        return view

    def first(self, *, minutes: float) -> Session:
        """The first ``minutes`` (of the grid, gaps included), at most all of it."""
        return self.between(0, min(max(self.grid.bins_in(minutes), 1), self.num_bins))

    def after(self, *, minutes: float) -> Session:
        """Everything after the first ``minutes``."""
        start = self.grid.bins_in(minutes)
        if start >= self.num_bins:
            raise DataError(
                f"nothing is left after {minutes:g} minutes.",
                where=f"session {self.id} ({self.minutes:.2f} minutes)",
            )
        return self.between(start, self.num_bins)

    def without_edges(self) -> Session:
        """The same session with its trial edges ignored: lags and filters run on across them (``--cross-edges``)."""
        return replace(self, edges=np.empty(0, np.int64)) if len(self.edges) else self

    def rebinned(self, bin_ms: float) -> Session:
        """The session in other bins: any whole number of ticks if it has spike ticks, else whole multiples of its bins.

        An incomplete last bin is left out. Power is averaged, counts are summed.

        Raises:
            DataError: the width is no whole multiple, or merged counts exceed 255.
        """
        wanted = BinGrid.from_ms(bin_ms, tick_hz=self.grid.tick_hz, origin_tick=self.grid.origin_tick)
        factor, rest = divmod(wanted.ticks_per_bin, self.grid.ticks_per_bin)
        if self.spikes is not None and self.power is None:
            low, high = self.span
            return replace(self, grid=wanted, num_bins=(high - low) // wanted.ticks_per_bin)
        if rest or factor < 1:
            raise DataError(
                f"bins of {self.bin_ms:g} ms cannot become bins of {bin_ms:g} ms.",
                where=f"session {self.id}",
                remedy=f"use a whole multiple of {self.bin_ms:g} ms; finer bins need spike times",
            )
        return replace(
            self,
            grid=wanted,
            num_bins=self.num_bins // factor,
            counts=None if self.counts is None else sum_bins(self.counts, factor),
            power=None if self.power is None else sum_bins(self.power / np.float32(factor), factor),
        )

    def with_channels(self, ids: Sequence[str]) -> Session:
        """The session with some of its channels, in their recorded order.

        Raises:
            DataError: an id is unknown, repeated, or there is none.
        """
        known = [c.id for c in self.channels]
        wrong = [i for i in ids if i not in known] or [i for i in known if list(ids).count(i) > 1]
        if wrong or not ids:
            raise DataError(
                f"channels must be known and given once each: {', '.join(wrong) or 'none is given'}.",
                where=f"session {self.id}",
                remedy=f"it has {len(known)} channels: {', '.join(known[:6])} …",
            )
        wanted = set(ids)
        at = np.array([i for i, c in enumerate(self.channels) if c.id in wanted])
        counting = sum(c.kind != "power" for c in self.channels)
        of_counts, of_power = at[at < counting], at[at >= counting] - counting
        return replace(
            self,
            channels=tuple(self.channels[i] for i in at),
            counts=None if self.counts is None or not len(of_counts) else self.counts[:, of_counts],
            spikes=None if self.spikes is None or not len(of_counts) else tuple(self.spikes[i] for i in of_counts),
            power=None if self.power is None or not len(of_power) else self.power[:, of_power],
        )

    def with_behavior(self, *series: Series) -> Session:
        """The session with further behavior series."""
        return replace(self, behavior=(*self.behavior, *series))


def _cut(series: Series, low: int, high: int) -> Series:
    """The samples of a series at ticks [low, high)."""
    step, origin = series.ticks_per_sample, series.origin_tick
    first = min(max(-((origin - low) // step), 0), len(series.values))
    last = min(max(-((origin - high) // step), first), len(series.values))
    return Series(series.values[first:last], series.dims, origin + first * step, step)


def channel_hash(channels: Iterable[Channel]) -> str:
    """Sixteen hex digits that change with the ids, kinds or order of channels: a stream must match its decoder."""
    text = json.dumps([[c.id, c.kind] for c in channels])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
