"""From what an importer read to a session: lengths, stamps, gaps, NaN, and the checks that every import gets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from betz.core.config import frozen_config
from betz.core.events import Events
from betz.core.intervals import Intervals
from betz.core.session import BehaviorDim, Channel, Provenance, Series, Session, Trials
from betz.core.timegrid import BinGrid, Ticks
from betz.data.importers import checks
from betz.data.importers.choose import select
from betz.data.importers.files import FileError, file_sha256, session_id

Array = NDArray[Any]
Behavior = list[tuple[str, Array, tuple[BehaviorDim, ...]]]
"""Variable, (N, K) values and K dimensions of each behavior with a row a bin."""


@frozen_config
class ImportOptions:
    """What a user may decide on import; nothing of this happens unasked.

    Args:
        bin_ms: bin width, where the file leaves it open.
        subject: who was recorded, where the file does not say or says it wrong.
        nan: ``mask`` keeps NaN in behavior as "not known"; ``raise`` refuses it.
        slot: overrides the mapping's choice for counts with a slot axis.
        trim_to_shortest: cut counts and behavior of different lengths to the shortest.
        drop_idle_tail: leave out the end of a recording in which the subject no longer moves.
        mask_silence: mark stretches in which no channel has a spike as not valid.
        rates_to_counts: the signals are rates in Hz; multiply them by the bin width, which must give whole numbers.
        sort_spikes: sort spike times that are not in ascending order.
        channels: names or globs of the channels to import (``array/name`` too); none = all.
        behavior: names or globs of the behavior to import; none = all.
        gap_tolerance_ms: gaps in a vendor's file up to this are marked not valid, longer ones make sessions of their
            own; None refuses both.
        analog: names or patterns of a vendor's analog channels that are behavior; None = all that are no electrodes.
        broadband: make ``crossings`` or spike-band ``power`` of the electrodes' broadband.
        threshold_rms: crossings are where the signal falls below this many RMS (negative).
        reference: what is subtracted from each electrode first: nothing, the ``average`` of all, or what a linear
            ``regression`` on the others explains.
        band_hz: lower and upper edge of the band-pass.
    """

    bin_ms: float | None = None
    subject: str = ""
    nan: Literal["raise", "mask"] = "raise"
    slot: Literal["sum", "unit"] | None = None
    trim_to_shortest: bool = False
    drop_idle_tail: bool = False
    mask_silence: bool = False
    rates_to_counts: bool = False
    sort_spikes: bool = False
    channels: tuple[str, ...] = ()
    behavior: tuple[str, ...] = ()
    gap_tolerance_ms: float | None = None
    analog: tuple[str, ...] | None = None
    broadband: Literal["crossings", "power"] | None = None
    threshold_rms: float = -4.5
    reference: Literal["none", "average", "regression"] = "none"
    band_hz: tuple[float, float] = (300.0, 3000.0)

    def chosen(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}


@dataclass(frozen=True)
class Sampled:
    """Behavior at a rate of its own: variable, (M, K) values, dimensions, and ticks of and between samples.

    ``missing`` samples are NaN because none was recorded there; they are told already and need no option to be kept.
    """

    name: str
    values: Array
    dims: tuple[BehaviorDim, ...]
    origin_tick: int
    ticks_per_sample: int
    missing: int = 0

    @property
    def series(self) -> Series:
        """As a session keeps it."""
        values = np.ascontiguousarray(self.values, np.float32)
        return Series(values, self.dims, self.origin_tick, self.ticks_per_sample)


@dataclass
class Draft:
    """What an importer read from a file, row by row, not yet checked.

    Args:
        path: the file.
        importer: name of the importer.
        counts: (N, C) uint8.
        channels: C channels.
        grid: bin width and first tick.
        session: which of several sessions in the file; empty if there is one.
        bins: (N,) bin of each row, ascending, from stamps; None = 0 … N − 1.
        spikes: ascending ticks of each channel, of which counts are made; None = counts were recorded.
        behavior: variable name, (N, K) values and K dimensions of each series.
        sampled: behavior at rates of its own.
        trials: trial table, in ticks.
        edges: ticks at which concatenated trials start.
        brain_control: ticks in which the decoder moved the cursor.
        invalid: ticks in which signals cannot be trusted.
        power: (N, C_power) float32 of the last channels, or None.
        valid: ticks that were recorded; None = all.
        events: digital inputs and comments.
    """

    path: Path
    importer: str
    counts: NDArray[np.uint8]
    channels: tuple[Channel, ...]
    grid: BinGrid
    session: str = ""
    bins: NDArray[np.int64] | None = None
    spikes: tuple[Ticks, ...] | None = None
    behavior: Behavior = field(default_factory=list)
    sampled: list[Sampled] = field(default_factory=list)
    trials: Trials | None = None
    edges: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    brain_control: Intervals = field(default_factory=lambda: Intervals.of([]))
    invalid: Intervals = field(default_factory=lambda: Intervals.of([]))
    power: NDArray[np.float32] | None = None
    valid: Intervals | None = None
    events: Events | None = None
    subject: str = ""
    task: str = ""
    licence: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    source: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)

    def skip(self, reason: str, number: int = 1) -> None:
        """Count something that is left out."""
        self.skipped[reason] = self.skipped.get(reason, 0) + int(number)


def finish(draft: Draft, options: ImportOptions) -> Session:
    """Check a draft and make it a session: everything left out or doubtful goes to its provenance.

    Raises:
        FileError: behavior has NaN, or lengths differ, and no option says what to do.
        DataError: what the session itself refuses.
    """
    where = draft.path.name
    select(draft, options.channels, options.behavior)
    _same_length(draft, options)
    if len(draft.counts) == 0:
        raise FileError("no bins", "it has no bins.", where=where, remedy="import a recording with at least one bin")
    _known_behavior(draft, options)
    present_N = _fill_gaps(draft)
    _note_idle(draft, options)
    present_N = present_N[: len(draft.counts)]
    bin_s = draft.grid.bin_s
    _note_signals(draft, options, present_N)
    for _, values, dims in draft.behavior:
        draft.notes += checks.behavior_notes(values.astype(np.float64), dims, bin_s)
    for part in draft.sampled:
        draft.notes += checks.behavior_notes(part.values, part.dims, part.ticks_per_sample / draft.grid.tick_hz)
    _note_velocity(draft)
    subject = options.subject or draft.subject
    if not subject:
        draft.notes.append("the subject is not known; name it with the option subject")
    return Session(
        id=session_id(draft.path, draft.session),
        subject=subject or "unknown",
        grid=draft.grid,
        num_bins=len(draft.counts),
        channels=draft.channels,
        counts=draft.counts if draft.spikes is None and draft.counts.shape[1] else None,
        spikes=draft.spikes or None,
        power=draft.power,
        behavior=tuple(
            Series(np.ascontiguousarray(values, np.float32), dims, draft.grid.origin_tick, draft.grid.ticks_per_bin)
            for _, values, dims in draft.behavior
        )
        + tuple(part.series for part in draft.sampled),
        valid=_valid(draft, present_N),
        edges=draft.edges,
        trials=draft.trials,
        task=draft.task,
        tags=draft.tags,
        brain_control=draft.brain_control,
        events=draft.events,
        provenance=Provenance(
            source=draft.source or where,
            sha256=_sha256(draft.path),
            importer=draft.importer,
            options={**draft.settings, **options.chosen()},
            notes=tuple(draft.notes),
            skipped=dict(draft.skipped),
        ),
        licence=draft.licence,
    )


def _sha256(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files in a folder."""
    if path.is_file():
        return file_sha256(path)
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()} {file_sha256(file)}\n".encode())
    return digest.hexdigest()


def _valid(draft: Draft, present_N: NDArray[np.bool_]) -> Intervals | None:
    """Ticks that were recorded, are not masked, and in which signals can be trusted; None = all."""
    if present_N.all() and draft.valid is None and not len(draft.invalid):
        return None
    of_bins = Intervals.from_mask(present_N, draft.grid)
    return (of_bins if draft.valid is None else draft.valid & of_bins) - draft.invalid


def _same_length(draft: Draft, options: ImportOptions) -> None:
    lengths = {"counts": len(draft.counts), **{name: len(values) for name, values, _ in draft.behavior}}
    if draft.bins is not None:
        lengths["stamps"] = len(draft.bins)
    shortest = min(lengths.values())
    if len(set(lengths.values())) == 1:
        return
    told = ", ".join(f"{name} {number}" for name, number in lengths.items())
    if not options.trim_to_shortest:
        raise FileError(
            "different lengths",
            f"counts and behavior have different lengths in bins: {told}.",
            where=draft.path.name,
            remedy="if they start together, cut them with trim_to_shortest (--trim-to-shortest)",
        )
    draft.notes.append(f"cut to the shortest length, {shortest} bins (lengths: {told})")
    draft.skip("bins beyond the shortest variable", max(lengths.values()) - shortest)
    cut(draft, shortest)


def cut(draft: Draft, stop: int) -> None:
    """Leave out the rows from ``stop`` on, and the trials that start there."""
    draft.counts = draft.counts[:stop]
    draft.behavior = [(name, values[:stop], dims) for name, values, dims in draft.behavior]
    draft.bins = None if draft.bins is None else draft.bins[:stop]
    end = int(draft.grid.start_of(stop if draft.bins is None or not stop else draft.bins[-1] + 1))
    draft.edges = draft.edges[draft.edges < end]
    draft.brain_control &= Intervals.of([(int(draft.grid.start_of(0)), end)])
    if draft.spikes is not None:
        draft.spikes = tuple(ticks[: np.searchsorted(ticks, end)] for ticks in draft.spikes)
    draft.sampled = [
        replace(part, values=part.values[: max(-((part.origin_tick - end) // part.ticks_per_sample), 0)])
        for part in draft.sampled
    ]
    if draft.trials is not None and np.any(draft.trials.start >= end):
        keep = draft.trials.start < end
        draft.skip("trials after the end", int(np.count_nonzero(~keep)))
        draft.trials = select_trials(draft.trials, keep)


def select_trials(trials: Trials, keep: NDArray[np.bool_]) -> Trials:
    """The rows of a trial table for which ``keep`` is True."""
    condition = tuple(c for c, k in zip(trials.condition, keep, strict=True) if k) if trials.condition else ()
    columns = {name: column[keep] for name, column in trials.columns.items()}
    return Trials(trials.start[keep], trials.end[keep], condition, columns)


def _known_behavior(draft: Draft, options: ImportOptions) -> None:
    """Refuse values that cannot be kept, and NaN unless it is to be kept as not known."""
    for i, (name, values, dims) in enumerate(draft.behavior):
        draft.behavior[i] = (name, _known(draft, options, name, values, dims, "bins"), dims)
    for i, part in enumerate(draft.sampled):
        if part.missing and np.count_nonzero(~np.isfinite(part.values).all(axis=1)) == part.missing:
            continue  # gaps alone, which are noted
        kept = _known(draft, options, part.name, part.values, part.dims, "samples")
        draft.sampled[i] = replace(part, values=kept)


def _known(
    draft: Draft, options: ImportOptions, name: str, values: Array, dims: Sequence[BehaviorDim], rows: str
) -> Array:
    large = np.abs(values) > np.finfo(np.float32).max / 4
    if np.any(large & np.isfinite(values)):
        named = ", ".join(d.name for d, n in zip(dims, np.any(large, axis=0).tolist(), strict=True) if n)
        raise FileError(
            "impossible behavior",
            f"behavior {name!r} has values too large for float32 ({named}).",
            where=draft.path.name,
            remedy="check the variable, or use a larger unit",
        )
    unknown = ~np.isfinite(values)
    if not unknown.any():
        return values
    which = ", ".join(f"{d.name} {n}" for d, n in zip(dims, unknown.sum(axis=0), strict=True) if n)
    if options.nan == "raise":
        raise FileError(
            "NaN behavior",
            f"behavior {name!r} has NaN or infinite values ({rows}: {which}).",
            where=draft.path.name,
            remedy="keep them as not known with nan='mask' (--nan mask): those bins are neither fitted nor scored",
        )
    draft.notes.append(f"behavior not known (NaN), kept so: {which} {rows}")
    return np.where(unknown, np.nan, values)


def _fill_gaps(draft: Draft) -> NDArray[np.bool_]:
    """Put rows into their bins; returns (N,) which bins were there."""
    if draft.bins is None or draft.bins[-1] + 1 == len(draft.bins):
        return np.ones(len(draft.counts), dtype=bool)
    total = int(draft.bins[-1]) + 1
    present_N = np.zeros(total, dtype=bool)
    present_N[draft.bins] = True

    def spread(values: Array, empty: float) -> Array:
        out = np.full((total, *values.shape[1:]), empty, dtype=values.dtype)
        out[draft.bins] = values
        return out

    draft.counts = spread(draft.counts, 0)
    draft.behavior = [(name, spread(values.astype(np.float64), np.nan), dims) for name, values, dims in draft.behavior]
    gaps = checks.stretches(~present_N)
    draft.notes.append(
        f"{len(gaps)} gaps in the stamps ({spoken_bins(gaps)}), {total - len(draft.bins)} bins in all, marked not valid"
    )
    draft.bins = None
    return present_N


def spoken_bins(parts: Sequence[tuple[int, int]]) -> str:
    """Stretches of bins, for people."""
    more = f" and {len(parts) - 3} more" if len(parts) > 3 else ""
    return "bins " + ", ".join(f"{a}–{b - 1}" for a, b in parts[:3]) + more


def _note_idle(draft: Draft, options: ImportOptions) -> None:
    number = len(draft.counts)
    found = [(values.astype(np.float64), dims) for _, values, dims in draft.behavior]
    found += [(part.series.binned(draft.grid, number), part.dims) for part in draft.sampled]
    if not found:
        return
    values = np.concatenate([values for values, _ in found], axis=1)
    dims = [dim for _, dims in found for dim in dims]
    bin_s, stop = draft.grid.bin_s, len(values)
    for effector, parts in checks.idle_by_effector(values, dims, bin_s).items():
        tail = parts[-1][0] if parts[-1][1] == len(values) else None
        rest = parts[:-1] if tail is not None else parts
        if rest:
            draft.notes.append(f"{effector} stands still in {checks.spoken(rest, bin_s)}")
        if tail is not None:
            draft.notes.append(
                f"{effector} stands still from minute {tail * bin_s / 60:.1f} to the end "
                f"({1 - tail / len(values):.0%} of the recording): the task stopped"
                + ("" if options.drop_idle_tail else "; leave it out with drop_idle_tail (--drop-idle-tail)")
            )
            stop = min(stop, tail)
    if options.drop_idle_tail and 0 < stop < len(values):
        draft.notes.append(f"left out the idle tail from minute {stop * bin_s / 60:.1f} on")
        draft.skip("bins of an idle tail", len(values) - stop)
        cut(draft, stop)


def _note_signals(draft: Draft, options: ImportOptions, present_N: NDArray[np.bool_]) -> None:
    if not draft.counts.shape[1]:
        return
    bin_s = draft.grid.bin_s
    draft.notes += checks.twin_notes(draft.counts, [c.id for c in draft.channels])
    dead = [c.id for c, used in zip(draft.channels, draft.counts.max(axis=0).tolist(), strict=False) if not used]
    if dead:
        shown = ", ".join(dead[:8]) + (" …" if len(dead) > 8 else "")
        draft.notes.append(f"{len(dead)} of {len(draft.channels)} channels have no spike at all: {shown}")
    draft.notes += checks.rate_notes(draft.counts, bin_s, present_N)
    silent = checks.silent_stretches(draft.counts, bin_s, present_N)
    if silent and options.mask_silence:
        for a, b in silent:
            present_N[a:b] = False
        draft.notes.append(f"{sum(b - a for a, b in silent)} silent bins marked not valid")
    elif silent:
        draft.notes.append("mark the silent bins as not valid with mask_silence (--mask-silence)")


def _note_velocity(draft: Draft) -> None:
    for _, values, dims in draft.behavior:
        for stem, position, velocity in checks.position_velocity_pairs(dims):
            implied = checks.implied_bin_s(values[:, position], values[:, velocity])
            if implied is not None and abs(implied / draft.grid.bin_s - 1) > 0.05:
                draft.notes.append(
                    f"{stem} velocity is the change of position in {implied * 1000:.4g} ms, "
                    f"but bins are {draft.grid.bin_ms:g} ms: one of the two, or a unit, is wrong"
                )
