"""Files that belong together as one session: processors that recorded at once, or blocks that follow each other.

All must be on one clock, which no file can prove: the user says so (``--merge``), and what contradicts it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from betz.core.errors import BetzError, ConfigError
from betz.core.events import Events
from betz.core.intervals import Intervals
from betz.core.session import Provenance, Series, Session
from betz.core.timegrid import BinGrid
from betz.data.importers.build import ImportOptions
from betz.data.importers.files import FileError
from betz.data.importers.slots import regular

if TYPE_CHECKING:
    from betz.data.importers import ImportReport
    from betz.data.store import Store

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def import_merged(
    paths: Iterable[str | Path], store: Store, *, id: str, options: ImportOptions, replace: bool = False
) -> ImportReport:
    """Import files of one recording as one session; see :func:`merged_session`.

    Args:
        paths: files with one session each.
        store: where to.
        id: of the session.
        options: for all files.
        replace: whether a session of this name in the store is replaced.
    """
    from betz.data.importers import ImportedFile, ImportReport, read

    files = [Path(path) for path in paths]
    try:
        sessions = [read(path, **options.chosen()) for path in files]
        session = merged_session(sessions, id=id, gap_tolerance_ms=options.gap_tolerance_ms)
        store.put(session, replace=replace)
    except BetzError as error:
        failed = ImportedFile(files[0] if files else Path(), id, error)
        return ImportReport((), {failed.reason: 1}, (failed,))
    done = ImportedFile(
        files[0], id, None, session.minutes, session.bin_ms, len(session.channels), len(session.dims),
        session.provenance.notes, session.provenance.skipped,
    )  # fmt: skip
    return ImportReport((id,), {}, (done,))


def merged_session(sessions: Sequence[Session], *, id: str, gap_tolerance_ms: float | None = None) -> Session:
    """Sessions of one clock as one.

    Those that overlap in time are processors: their channels stand side by side, each processor an array of its own
    (A, B, … in the order given) that prefixes its channels and events; bins count where all of them recorded. Those
    that follow each other are blocks of the same channels.

    Args:
        sessions: with spike ticks, of one subject.
        id: of the session.
        gap_tolerance_ms: blocks may be this far apart; what lies between is not valid.

    Raises:
        FileError: clocks, channels or subjects differ, or a gap is too long.
        ConfigError: fewer than two, or more than 26 are given.
    """
    if not 2 <= len(sessions) <= len(LETTERS):
        raise ConfigError(f"{len(sessions)} sessions cannot be merged.", remedy="give 2 to 26 files of one recording")
    _check_alike(sessions)
    ordered = sorted(sessions, key=lambda s: s.span[0])
    overlaps = [b.span[0] < a.span[1] for a, b in pairwise(ordered)]
    if all(overlaps):
        return _side_by_side(sessions, id)
    if any(overlaps):
        raise _refuse("different clocks", "some of the files overlap in time and others do not", sessions,
                      "merge the processors of each block first, or check that all are on one clock")  # fmt: skip
    return _one_after_the_other(ordered, id, gap_tolerance_ms)


def _refuse(reason: str, what: str, sessions: Sequence[Session], remedy: str) -> FileError:
    return FileError(reason, f"{what}.", where=" and ".join(s.id for s in sessions[:4]), remedy=remedy)


def _check_alike(sessions: Sequence[Session]) -> None:
    first = sessions[0]
    for other in sessions[1:]:
        if other.grid.tick_hz != first.grid.tick_hz or other.grid.ticks_per_bin != first.grid.ticks_per_bin:
            raise _refuse("different clocks", f"their clocks have {first.grid.tick_hz} and {other.grid.tick_hz} ticks "
                          f"a second, their bins {first.bin_ms:g} and {other.bin_ms:g} ms", [first, other],
                          "only files of one clock can be merged")  # fmt: skip
        if other.subject != first.subject:
            raise _refuse("different subjects", f"they are of {first.subject} and {other.subject}", [first, other],
                          "name the subject (--subject)")  # fmt: skip
    for session in sessions:
        if session.spikes is None or session.power is not None or session.trials is not None:
            raise _refuse("not alike", "only sessions with spike times, without power and trials, can be merged",
                          [session], "import it alone")  # fmt: skip


def _grid(sessions: Sequence[Session]) -> tuple[BinGrid, int]:
    """The bins from the first start to the last end."""
    low, high = min(s.span[0] for s in sessions), max(s.span[1] for s in sessions)
    own = sessions[0].grid
    return BinGrid(own.tick_hz, own.ticks_per_bin, low), -(-(high - low) // own.ticks_per_bin)


def _recorded(session: Session) -> Intervals:
    return session.valid if session.valid is not None else Intervals.of([session.span])


def _side_by_side(sessions: Sequence[Session], id: str) -> Session:
    grid, num_bins = _grid(sessions)
    both = _recorded(sessions[0])
    for session in sessions[1:]:
        both &= _recorded(session)
    channels, spikes, behavior, rows = [], [], [], []
    taken: set[str] = set()
    for letter, session in zip(LETTERS, sessions, strict=False):
        channels += [replace(c, id=f"{letter}_{c.id}", array=letter) for c in session.channels]
        spikes += list(session.spikes or ())
        rows += [(tick, f"{letter}_{name}", text) for tick, name, text in _rows(session)]
        for series in session.behavior:
            dims = tuple(replace(d, name=f"{letter}_{d.name}" if d.name in taken else d.name) for d in series.dims)
            taken |= {d.name for d in series.dims}
            behavior.append(replace(series, dims=dims))
    note = f"{len(sessions)} processors as arrays {', '.join(LETTERS[: len(sessions)])}: {_names(sessions)}"
    return _made(sessions, id, note, grid=grid, num_bins=num_bins, channels=tuple(channels), spikes=tuple(spikes),
                 behavior=tuple(behavior), valid=both, events=Events.of(rows))  # fmt: skip


def _one_after_the_other(sessions: Sequence[Session], id: str, tolerance_ms: float | None) -> Session:
    first = sessions[0]
    for a, b in pairwise(sessions):
        gap_ms = (b.span[0] - a.span[1]) / first.grid.tick_hz * 1000
        if b.channels != first.channels:
            raise _refuse("different channels", "blocks of one session must have the same channels", [first, b],
                          "import them as sessions of their own")  # fmt: skip
        if tolerance_ms is None or gap_ms > tolerance_ms:
            raise _refuse("gaps", f"there are {gap_ms:.1f} ms between them", [a, b],
                          "give gap_tolerance_ms (--gap-tolerance-ms)")  # fmt: skip
    grid, num_bins = _grid(sessions)
    valid = Intervals.of(np.concatenate([_recorded(s).pairs() for s in sessions]))
    spikes = tuple(np.concatenate(parts) for parts in zip(*(s.spikes or () for s in sessions), strict=True))
    note = f"{len(sessions)} blocks, the gaps between them not valid: {_names(sessions)}"
    rows = [row for session in sessions for row in _rows(session)]
    return _made(sessions, id, note, grid=grid, num_bins=num_bins, channels=first.channels, spikes=spikes,
                 behavior=_joined(sessions), valid=valid, events=Events.of(rows))  # fmt: skip


def _joined(sessions: Sequence[Session]) -> tuple[Series, ...]:
    """Series that all blocks have, each as one with NaN between the blocks."""
    out = []
    if len({len(s.behavior) for s in sessions}) > 1:
        raise _refuse("different behavior", "the blocks do not have the same behavior", sessions,
                      "choose the analog channels that all have (--analog)")  # fmt: skip
    for parts in zip(*(s.behavior for s in sessions), strict=True):
        first = parts[0]
        if any((p.dims, p.ticks_per_sample) != (first.dims, first.ticks_per_sample) for p in parts):
            raise _refuse("different behavior", f"{first.dims[0].name!r} is not alike in all blocks", sessions,
                          "choose the analog channels that all have (--analog)")  # fmt: skip
        ticks = [p.origin_tick + np.arange(len(p.values), dtype=np.int64) * p.ticks_per_sample for p in parts]
        found = regular(np.concatenate(ticks), np.concatenate([p.values for p in parts]), first.ticks_per_sample)
        out.append(Series(found.values, first.dims, found.origin_tick, found.ticks_per_sample))
    return tuple(out)


def _rows(session: Session) -> list[tuple[int, str, str]]:
    if session.events is None:
        return []
    pairs = zip(session.events.ticks.tolist(), session.events.codes.tolist(), strict=True)
    return [(tick, *session.events.kinds[code]) for tick, code in pairs]


def _names(sessions: Sequence[Session]) -> str:
    return ", ".join(s.provenance.source or s.id for s in sessions)


def _made(sessions: Sequence[Session], id: str, note: str, **content: Any) -> Session:
    first = sessions[0]
    skipped: dict[str, int] = {}
    for session in sessions:
        for reason, number in session.provenance.skipped.items():
            skipped[reason] = skipped.get(reason, 0) + number
    own = [f"{s.id}: {text}" for s in sessions for text in s.provenance.notes]
    return Session(
        id=id,
        subject=first.subject,
        task=first.task,
        tags=first.tags,
        licence=first.licence,
        provenance=Provenance(
            source=_names(sessions),
            sha256=" ".join(s.provenance.sha256 for s in sessions),
            importer=first.provenance.importer,
            options=first.provenance.options,
            notes=(note, *own),
            skipped=skipped,
        ),
        **content,
    )
