"""Changes of a session's signals, made as they are stated.

A change acts on whole bins; everything else of the session stays as it is. Counts stay whole numbers: a count that a
gain or an offset makes fractional is rounded up or down at random, so that its mean is exact (``floor(x + u)``, u
uniform). What would become negative is 0, and how often that happened is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import ConfigError, DataError
from betz.core.intervals import Intervals
from betz.core.seeds import SeedTree
from betz.core.session import Session
from betz.core.timegrid import MAX_COUNT, Ticks

Array = NDArray[Any]
Indices = NDArray[np.int64]
Kind = Literal["moved", "silent", "gain", "offset"]


@dataclass(frozen=True)
class Shift:
    """One change, as it was made.

    Args:
        kind: ``moved`` (a channel has the signals of another), ``silent``, ``gain`` (multiplied) or ``offset`` (added).
        channels: ids of the channels that changed.
        when: ticks [start, end) in which they did, in whole bins.
        sources: of ``moved``: the channel whose signals each one has.
        amounts: of ``gain``: the factor of each; of ``offset``: counts a bin (of power: its unit) added to each.
    """

    kind: Kind
    channels: tuple[str, ...]
    when: Intervals
    sources: tuple[str, ...] = ()
    amounts: tuple[float, ...] = ()


@dataclass(frozen=True)
class Shifted:
    """A changed session and what is true of it.

    Args:
        session: with ``+`` and the kinds of change after its id, and a note in its provenance.
        truth: the changes, in the order in which they were made.
        clipped: counts that would have become negative and are 0.
    """

    session: Session
    truth: tuple[Shift, ...]
    clipped: int = 0


def apply_shifts(session: Session, shifts: Sequence[Shift], *, seed: int) -> Shifted:
    """Make given changes, one after the other.

    Args:
        session: with counts, spikes or power.
        shifts: the changes; ``when`` may be any ticks, of which whole bins count.
        seed: of the rounding.

    Returns:
        The session, with the ticks of the truth cut to the bins that were changed.

    Raises:
        ConfigError: a shift's channels, sources and amounts do not match.
        DataError: a channel is unknown, counts and power would be mixed, a count would exceed 255, or a gain or an
            offset is asked for spike ticks.
    """
    clipped, truth = 0, []
    for number, shift in enumerate(shifts):
        _check(session, shift)
        mask_N = shift.when.whole_bins(session.grid, session.num_bins)
        shift = replace(shift, when=Intervals.from_mask(mask_N, session.grid))
        truth.append(shift)
        place = {c.id: k for k, c in enumerate(session.channels)}
        columns, sources = (np.array([place[i] for i in ids], np.int64) for ids in (shift.channels, shift.sources))
        if session.spikes is not None:
            session = _shift_spikes(session, shift, columns, sources)
        rng = SeedTree(seed).generator("rounding", item=f"{session.id} {number}")
        session, more = _shift_bins(session, shift, columns, sources, mask_N, rng)
        clipped += more
    return Shifted(_named(session, truth), tuple(truth), clipped)


def as_counts(session: Session) -> Session:
    """A session with spike ticks as one with counts in its bins, which gains and offsets need."""
    if session.spikes is None:
        return session
    counting = sum(c.kind != "power" for c in session.channels)
    return replace(session, spikes=None, counts=session.signals[:, :counting].astype(np.uint8))


def _shift_bins(
    session: Session,
    shift: Shift,
    columns: Indices,
    sources: Indices,
    mask_N: NDArray[np.bool_],
    rng: np.random.Generator,
) -> tuple[Session, int]:
    """Counts and power changed in the bins of the mask; how many counts were clipped at 0."""
    first_power = sum(c.kind != "power" for c in session.channels)
    rows = np.flatnonzero(mask_N)
    counts, power, clipped = session.counts, session.power, 0
    of = np.flatnonzero(columns < first_power)
    if counts is not None and of.size:
        part = _changed(counts, shift, columns, sources, rows, of, rng)
        clipped = int(np.count_nonzero(part < 0))
        counts = counts.copy()
        counts[np.ix_(rows, columns[of])] = _whole(part, session, shift)
    of = np.flatnonzero(columns >= first_power)
    if power is not None and of.size:
        part = _changed(power, shift, columns - first_power, sources - first_power, rows, of, None)
        power = power.copy()
        power[np.ix_(rows, columns[of] - first_power)] = part
    return replace(session, counts=counts, power=power), clipped


def _changed(
    old_NC: Array,
    shift: Shift,
    columns: Indices,
    sources: Indices,
    rows: Indices,
    of: Indices,
    rng: np.random.Generator | None,
) -> Array:
    """New values of the rows in those columns that the positions ``of`` name; rounded at random with a generator."""
    if shift.kind == "moved":
        return np.asarray(old_NC[np.ix_(rows, sources[of])])
    old: Array = old_NC[np.ix_(rows, columns[of])]
    if shift.kind == "silent":
        return np.zeros_like(old)
    amounts = np.array(shift.amounts)[of]
    wanted = old * amounts if shift.kind == "gain" else old + amounts
    return np.asarray(wanted if rng is None else np.floor(wanted + rng.random(wanted.shape)))


def _whole(part: Array, session: Session, shift: Shift) -> Array:
    """Counts that fit, with 0 for what is negative."""
    if part.size and part.max() > MAX_COUNT:
        raise DataError(
            f"the {shift.kind} makes {part.max():.0f} counts in a bin, above the limit of {MAX_COUNT}.",
            where=f"session {session.id}",
            remedy="use a smaller one",
        )
    return np.asarray(np.maximum(part, 0))


def _shift_spikes(session: Session, shift: Shift, columns: Indices, sources: Indices) -> Session:
    """Spike ticks moved to other channels, or left out, inside the shift's intervals."""
    assert session.spikes is not None
    if shift.kind in ("gain", "offset"):
        raise DataError(
            f"a {shift.kind} cannot be given to spike times.",
            where=f"session {session.id}",
            remedy="make counts of them first: betz.study.shifts.as_counts(session)",
        )
    inside = [shift.when.contains(ticks) for ticks in session.spikes]
    new: list[Ticks] = list(session.spikes)
    for k, column in enumerate(columns.tolist()):
        kept = session.spikes[column][~inside[column]]
        if shift.kind == "moved":
            kept = np.sort(np.concatenate((kept, session.spikes[sources[k]][inside[sources[k]]])))
        new[column] = kept
    return replace(session, spikes=tuple(new))


def _check(session: Session, shift: Shift) -> None:
    """Refuse a shift that is incomplete or does not fit the session."""
    where = f"{shift.kind} shift of session {session.id}"
    wanted = {"moved": (len(shift.channels), 0), "gain": (0, len(shift.channels)), "offset": (0, len(shift.channels))}
    if (len(shift.sources), len(shift.amounts)) != wanted.get(shift.kind, (0, 0)) or not shift.channels:
        raise ConfigError(
            f"{len(shift.channels)} channels, {len(shift.sources)} sources and {len(shift.amounts)} amounts do not "
            "match.",
            where=where,
            remedy="moved needs a source for each channel, gain and offset an amount, silent neither",
        )
    kinds = {c.id: c.kind for c in session.channels}
    unknown = [id_ for id_ in (*shift.channels, *shift.sources) if id_ not in kinds]
    if unknown or len(set(shift.channels)) < len(shift.channels):
        raise DataError(
            f"there is no channel {unknown[0]!r}." if unknown else "a channel is named twice.",
            where=where,
            remedy="name channels of the session, once each",
        )
    if not np.isfinite(shift.amounts).all() or (shift.kind == "gain" and min(shift.amounts) < 0):
        raise ConfigError("an amount is NaN, infinite or a negative gain.", where=where)
    pairs = zip(shift.channels, shift.sources, strict=True) if shift.sources else ()
    mixed = [a for a, b in pairs if (kinds[a] == "power") != (kinds[b] == "power")]
    if mixed:
        raise DataError(
            f"{mixed[0]!r} would get power in the place of counts, or the reverse.",
            where=where,
            remedy="move channels within counts, and within power",
        )


def _named(session: Session, truth: Sequence[Shift]) -> Session:
    """The session with an id that tells it from the one it was, and a note of each change."""
    kinds = "+".join(dict.fromkeys(shift.kind for shift in truth))
    seconds = [shift.when.total / session.grid.tick_hz for shift in truth]
    notes = [
        f"changed on purpose: {len(shift.channels)} channels {shift.kind} for {s:.0f} s"
        for shift, s in zip(truth, seconds, strict=True)
    ]
    provenance = replace(session.provenance, notes=(*session.provenance.notes, *notes))
    return replace(session, id=f"{session.id[: 119 - len(kinds)]}+{kinds}", provenance=provenance)
