"""Vendors' recordings as sessions: clocks apart, gaps refused or bridged, units pooled or kept, behavior in units."""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from betz.core.events import Events
from betz.core.intervals import Intervals
from betz.core.session import BehaviorDim, Channel
from betz.core.timegrid import BinGrid, Ticks, count_spikes
from betz.data.importers.build import Draft, ImportOptions, Sampled
from betz.data.importers.files import FileError, damage
from betz.data.importers.neo_blackrock import read_blackrock
from betz.data.importers.neo_formats import NOT_READ, Format, vendor_of
from betz.data.importers.neo_model import Piece, Recorded, Span, Stream
from betz.data.importers.neo_nex import read_nex
from betz.data.importers.neo_plexon import read_plexon
from betz.data.importers.neo_read import read_generic, refuse
from betz.data.importers.slots import from_stream

BIN_MS = 20.0
_MOST_COUNTS = 1 << 31
_UNIT = re.compile(r"(ch\d+)u\d+")


@dataclass(frozen=True)
class VendorPart:
    """One session in a vendor's file: its name among several, what was recorded, and its spans on the clock."""

    name: str
    recorded: Recorded
    piece: Piece
    spans: tuple[Span, ...]


def is_vendor(path: Path) -> bool:
    """Whether a path is of a vendor's format, one that Betz reads or one that it refuses by name."""
    return vendor_of(path) is not None or path.suffix.lower() in NOT_READ


def read_recorded(path: Path) -> Recorded:
    """What a vendor's file or folder holds.

    Raises:
        FileError: it is missing, damaged, or of a format that cannot be read.
        MissingExtraError: neo is not installed.
    """
    suffix = path.suffix.lower()
    if not path.exists():
        raise refuse("no such file", "there is no such file.", path, "check the path")
    if path.is_file() and path.stat().st_size == 0:
        raise refuse("damaged file", "it is empty (0 bytes).", path, "copy it again")
    if suffix in NOT_READ:
        what, remedy = NOT_READ[suffix]
        raise refuse("unknown format", what, path, remedy)
    known = vendor_of(path)
    assert known is not None
    with damage(path):
        return _read(path, known)


def _read(path: Path, known: Format) -> Recorded:
    own = {"Blackrock": read_blackrock, "Plexon": read_plexon, "NeuroExplorer": read_nex}
    return own[known.name](path) if known.name in own else read_generic(path, known)


def vendor_parts(path: Path, options: ImportOptions) -> list[VendorPart]:
    """The sessions in a vendor's recording: one for each clock, and for each stretch between gaps that are too long.

    Raises:
        FileError: it cannot be read, has no spikes, or has gaps and no option says what to do with them.
    """
    recorded = read_recorded(path)
    if not recorded.pieces or not any(
        piece.number_of_spikes or _broadband(piece, options) for piece in recorded.pieces
    ):
        raise _no_spikes(path, recorded)
    found: list[tuple[Piece, list[Span]]] = []
    for piece in recorded.pieces:
        if piece.number_of_spikes or _broadband(piece, options):
            found += [(piece, spans) for spans in _between_gaps(path, recorded, piece, options)]
        else:
            reason = "pieces without spikes after a restart of the clock"
            recorded.skipped[reason] = recorded.skipped.get(reason, 0) + 1
    kept = sum(
        int(np.count_nonzero((ticks >= spans[0][0]) & (ticks < spans[-1][1])))
        for piece, spans in found
        for ticks in piece.spikes
    )
    lost = sum(piece.number_of_spikes for piece in recorded.pieces) - kept
    if lost:
        recorded.skipped["spikes in gaps between sessions"] = lost
    if len(recorded.pieces) > 1:
        recorded.notes.append(f"restarts of the clock: {len(recorded.pieces) - 1}; each piece is a session of its own")
    return [
        VendorPart(str(i) if len(found) > 1 else "", recorded, piece, tuple(spans))
        for i, (piece, spans) in enumerate(found, start=1)
    ]


def _broadband(piece: Piece, options: ImportOptions) -> bool:
    streams = [stream for stream in piece.streams if any(stream.neural) and stream.fragments]
    return options.broadband is not None and bool(streams)


def _no_spikes(path: Path, recorded: Recorded) -> FileError:
    analog = [s for piece in recorded.pieces[:1] for s in piece.streams]
    events = sum(len(piece.events) for piece in recorded.pieces)
    shown = ", ".join(f"{len(s.channels)} channels at {float(s.rate_hz):g} Hz ({s.channels[0]} …)" for s in analog)
    what = f"it holds no spikes, only {' and '.join(filter(None, (shown, f'{events} events')))}."
    if any(any(s.neural) for s in analog):
        remedy = (
            "make crossings or power of its electrodes with broadband (--broadband crossings), or import the spikes"
        )
    else:
        remedy = "import the file with the spikes; behavior of another clock is added with --align"
    return refuse("no spikes", what, path, remedy)


# ---- gaps


def _between_gaps(path: Path, recorded: Recorded, piece: Piece, options: ImportOptions) -> list[list[Span]]:
    """Spans that belong to one session each.

    Raises:
        FileError: there are gaps and no tolerance is given; the message has a table of them.
    """
    hz = recorded.tick_hz
    spans = piece.spans if piece.streams else piece.active_spans(hz)
    gaps = [(b[0] - a[1], a[1]) for a, b in pairwise(spans)]
    if gaps and options.gap_tolerance_ms is None:
        start = spans[0][0]
        table = "; ".join(f"at {(at - start) / hz:.3f} s: {length / hz * 1000:.1f} ms" for length, at in gaps[:8])
        more = f"; and {len(gaps) - 8} more" if len(gaps) > 8 else ""
        raise refuse("gaps", f"it has {len(gaps)} gaps ({table}{more}).", path,
                     "give gap_tolerance_ms (--gap-tolerance-ms): shorter gaps are marked not valid, longer ones "
                     "make sessions of their own")  # fmt: skip
    out = [[spans[0]]]
    for span, (length, _) in zip(spans[1:], gaps, strict=True):
        if length <= (options.gap_tolerance_ms or 0.0) / 1000 * hz:
            out[-1].append(span)
        else:
            out.append([span])
    return out


# ---- a session


def vendor_draft(path: Path, part: VendorPart, options: ImportOptions) -> Draft:
    """One session of a vendor's recording as a draft.

    Raises:
        FileError: bins do not fit the clock, or counts exceed 255 in a bin.
        DataError: options contradict each other.
    """
    with damage(path):  # analog channels are read here, and their headers may claim too much
        return _draft(path, part, options)


def _draft(path: Path, part: VendorPart, options: ImportOptions) -> Draft:
    recorded, piece = part.recorded, part.piece
    start, end = part.spans[0][0], part.spans[-1][1]
    grid = _grid(path, recorded, options, start)
    num_bins = -(-(end - start) // grid.ticks_per_bin)
    spikes, channels, notes = _pooled(piece.spikes, recorded.channels, options)
    if num_bins * max(len(channels), 1) > _MOST_COUNTS:
        raise refuse("too long", f"it lasts {(end - start) / recorded.tick_hz / 3600:.3g} hours with {len(channels)} "
                     "channels.", path, "import it in wider bins (--bin-ms)")  # fmt: skip
    inside = tuple(t[np.searchsorted(t, start) : np.searchsorted(t, end)] for t in spikes)
    draft = Draft(
        path=path,
        importer=f"neo: {recorded.format}",
        counts=count_spikes(inside, grid, num_bins) if channels else np.empty((num_bins, 0), np.uint8),
        channels=channels,
        grid=grid,
        session=part.name,
        spikes=inside,
        events=Events.of(row for row in piece.events if start <= row[0] < end),
        tags=dict(recorded.tags),
        notes=[*recorded.notes, *piece.notes, *notes],
        skipped={**recorded.skipped, **piece.skipped},
    )
    if options.bin_ms is None:
        draft.notes.append(f"bins of {BIN_MS:g} ms unless bin_ms (--bin-ms) says another; the ticks are kept")
    _add_gaps(draft, part.spans)
    _add_analog(draft, piece, options, (start, end))
    if options.broadband is not None:
        from betz.data.importers.broadband import add_broadband

        add_broadband(draft, piece, options, part.spans)
    return draft


def _grid(path: Path, recorded: Recorded, options: ImportOptions, start: int) -> BinGrid:
    width = options.bin_ms if options.bin_ms is not None else BIN_MS
    ticks = width / 1000 * recorded.tick_hz
    if not 1 <= ticks <= 60 * recorded.tick_hz or abs(ticks - round(ticks)) > 1e-6 * ticks:
        raise refuse("impossible bin width", f"bins of {width:g} ms are no whole number of ticks at {recorded.tick_hz} "
                     "Hz (or longer than a minute).", path, "give another width")  # fmt: skip
    return BinGrid(recorded.tick_hz, round(ticks), start)


def _pooled(
    spikes: Sequence[Ticks], channels: Sequence[Channel], options: ImportOptions
) -> tuple[tuple[Ticks, ...], tuple[Channel, ...], list[str]]:
    """Spikes of an electrode's units pooled to one channel unless they are to be kept apart."""
    several = [c for c in channels if _UNIT.fullmatch(c.id)]
    if options.slot == "unit" or not several:
        return tuple(spikes), tuple(channels), []
    pooled: dict[str, list[Ticks]] = {}
    for channel, ticks in zip(channels, spikes, strict=True):
        found = _UNIT.fullmatch(channel.id)
        pooled.setdefault(found[1] if found else channel.id, []).append(ticks)
    kinds = {c.id: c for c in channels}
    named = tuple(replace(kinds.get(name, Channel(name)), id=name) for name in pooled)
    note = f"{len(several)} sorted units pooled with the crossings of their electrodes; slot='unit' keeps them apart"
    return tuple(np.sort(np.concatenate(parts)) for parts in pooled.values()), named, [note]


def _add_gaps(draft: Draft, spans: Sequence[Span]) -> None:
    """Mark what lies between spans as not valid."""
    if len(spans) < 2:
        return
    hz = draft.grid.tick_hz
    lost = sum(b[0] - a[1] for a, b in pairwise(spans))
    draft.valid = Intervals.of(spans)
    draft.notes.append(
        f"{len(spans) - 1} gaps within the tolerance, {lost / hz * 1000:.1f} ms in all, marked not valid"
    )


def _add_analog(draft: Draft, piece: Piece, options: ImportOptions, span: Span) -> None:
    """Analog channels that are behavior: those named, or all that are not electrodes."""
    names = Counter(name for stream in piece.streams for name in stream.channels)
    missing = [p for p in options.analog or () if not fnmatch.filter(names, p)]
    if missing:
        raise refuse("missing variable", f"no analog channel matches {missing[0]!r}; it has "
                     f"{', '.join(list(names)[:40]) or 'none'}.", draft.path, "correct analog (--analog)")  # fmt: skip
    taken: set[str] = set()
    left_out: list[str] = []
    for stream in piece.streams:
        columns = [k for k, name in enumerate(stream.channels) if _wanted(name, stream.neural[k], options)]
        left_out += [name for k, name in enumerate(stream.channels) if k not in columns]
        found = from_stream(stream, columns, draft.grid.tick_hz, span) if columns else None
        if found is None:
            continue
        dims = tuple(BehaviorDim(_name(stream.channels[k], taken), stream.units[k] or "a.u.") for k in columns)
        draft.sampled.append(
            Sampled(stream.name, found.values, dims, found.origin_tick, found.ticks_per_sample, missing=found.missing)
        )
        _note_stream(draft, stream, found)
    if left_out and options.broadband is None:
        shown = ", ".join(left_out[:6]) + (" …" if len(left_out) > 6 else "")
        draft.notes.append(
            f"{len(left_out)} analog channels left out ({shown}); name those to keep with analog (--analog)"
        )
        draft.skip("analog channels", len(left_out))


def _wanted(name: str, neural: bool, options: ImportOptions) -> bool:
    if options.analog is None:
        return not neural
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in options.analog)


def _note_stream(draft: Draft, stream: Stream, found: Any) -> None:
    if found.averaged > 1:
        draft.notes.append(
            f"{stream.name}: means of {found.averaged} samples, from {float(stream.rate_hz):g} Hz to "
            f"{draft.grid.tick_hz / found.ticks_per_sample:g} Hz"
        )
    if found.missing:
        draft.notes.append(f"{stream.name}: {found.missing} samples that were not recorded are NaN")
    if found.doubled:
        draft.notes.append(f"{stream.name}: {found.doubled} samples in slots of others, averaged with them")


def _name(channel: str, taken: set[str]) -> str:
    """A behavior name from a channel's label, unique in the session."""
    name = re.sub(r"\W+", "_", channel).strip("_") or "analog"
    number = 1
    unique = name
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    taken.add(unique)
    return unique
