"""Arrays in a file, read as a mapping says: signals or spikes, time, behavior and trials as a draft."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from betz.core.config import config_hash
from betz.core.errors import ConfigError
from betz.core.session import Channel
from betz.core.timegrid import BinGrid, count_spikes
from betz.data.importers.behaviors import read_behavior, read_sampled
from betz.data.importers.build import Draft, ImportOptions
from betz.data.importers.control import add_brain_control, add_perturbation
from betz.data.importers.convert import counts_from
from betz.data.importers.files import ArrayFile, FileError
from betz.data.importers.mapping import Mapping, SignalsMapping, SpikesMapping
from betz.data.importers.rows import Rows
from betz.data.importers.spikes import read_spikes, spike_grid
from betz.data.importers.times import grid_and_bins
from betz.data.importers.trials import add_trials

Array = NDArray[Any]


def read_arrays(
    file: ArrayFile, mapping: Mapping, options: ImportOptions, *, name: str = "given", session: str = ""
) -> Draft:
    """What a mapping says of a file's arrays, as a draft.

    Args:
        file: the opened file.
        mapping: what its variables mean.
        options: bin width, and what to do with slots, rates and unsorted spikes.
        name: of the mapping, for the provenance.
        session: which of several sessions in the file.

    Raises:
        FileError: a variable is missing, has another shape, or holds something else than the mapping says.
        ConfigError: the mapping or an option contradicts itself or the file.
    """
    parts = mapping.parts()
    if session not in parts:
        raise ConfigError(f"the mapping has no session {session!r}.", where=f"mapping {name}")
    own = parts[session]
    if (own.signals is None) == (own.spikes is None):
        raise ConfigError(
            f"the mapping names {'neither signals nor spikes' if own.signals is None else 'signals and spikes'}.",
            where=f"mapping {name}",
            remedy="write one of the tables [signals] and [spikes]",
        )
    rows = Rows(file, own)
    draft = _empty(file, own, session)
    draft.settings = {"mapping": name, "mapping_hash": config_hash(mapping)} | ({"session": session} if session else {})
    if own.signals is not None:
        _add_counts(draft, rows, own.signals, options)
    elif own.spikes is not None:
        _add_spikes(draft, rows, own.spikes, options)
    if rows.lengths_M is not None:
        _note_lengths(draft, rows, rows.lengths_M)
    add_trials(draft, rows)
    if own.brain_control is not None:
        add_brain_control(draft, rows, own.brain_control)
    if own.perturbation is not None:
        add_perturbation(draft, rows, own.perturbation)
    _count_unused(draft, file, list(parts.values()))
    return draft


def _empty(file: ArrayFile, mapping: Mapping, session: str) -> Draft:
    """A draft with what the mapping itself tells."""
    where = file.path.name
    return Draft(
        path=file.path,
        importer="arrays",
        counts=np.empty((0, 0), np.uint8),
        channels=(),
        grid=BinGrid(1000, 1),
        session=session,
        subject=mapping.subject,
        task=mapping.task,
        licence=mapping.licence,
        tags=dict(mapping.tags or {}),
        source=f"{where} ({mapping.citation})" if mapping.citation else where,
        notes=list(mapping.notes),
    )


# ---- counts


def _add_counts(draft: Draft, rows: Rows, signals: SignalsMapping, options: ImportOptions) -> None:
    mapping, where = rows.mapping, rows.where
    raw, label = rows.signals(signals)
    draft.behavior, notes, left_out = read_behavior(rows, mapping.behavior)
    if rows.lengths_M is not None and mapping.time.stamps:
        raise ConfigError(
            "stamps have no meaning where trials have an axis of their own.",
            where="[time]",
            remedy="give the bin width",
        )
    draft.grid, draft.bins = grid_and_bins(rows, mapping.time, len(raw), draft.behavior, options)
    encoding = _encoding(signals, options, where, label)
    counts = counts_from(raw, encoding=encoding, bin_s=draft.grid.bin_s, where=where, name=label)
    if options.slot is not None and raw.ndim != 3:
        raise ConfigError(
            f"slot={options.slot!r} has no meaning: {label!r} has no slot axis.", where=where, remedy="leave it out"
        )
    if options.sort_spikes:
        raise ConfigError("sort_spikes has no meaning for counts.", where=where, remedy="leave it out")
    columns = rows.file.columns(signals.columns) if signals.columns else []
    draft.counts, draft.channels, slot_notes = _channels(
        counts, signals, options.slot or signals.slot, columns, where, label
    )
    draft.sampled, more, also = read_sampled(rows, mapping.behavior, draft.grid.tick_hz)
    draft.notes += [*slot_notes, *notes, *more]
    for reason, number in [*left_out.items(), *also.items()]:
        draft.skip(reason, number)
    if mapping.time.ambiguous:
        draft.notes.append(f"bin width of {draft.grid.bin_ms:g} ms as given on import; {mapping.time.ambiguous}")
    if encoding == "rate_hz":
        draft.notes.append(f"rates in Hz turned back to counts in {draft.grid.bin_ms:g} ms, all whole numbers")


def _encoding(signals: SignalsMapping, options: ImportOptions, where: str, label: str) -> Literal["counts", "rate_hz"]:
    """Whether numbers are rates: the mapping or the option says so; some mappings want to be asked for it."""
    if options.rates_to_counts:
        return "rate_hz"
    if signals.encoding == "rate_hz" and signals.on_request:
        raise FileError(
            "rates",
            f"{label!r} holds rates in Hz, not counts.",
            where=where,
            remedy="turn them back to counts with rates_to_counts (--rates-to-counts); they are checked to be "
            "whole numbers of spikes in a bin",
        )
    return signals.encoding


def _channels(
    counts: NDArray[np.uint8],
    signals: SignalsMapping,
    slot: Literal["sum", "unit"],
    columns: Sequence[str],
    where: str,
    label: str,
) -> tuple[NDArray[np.uint8], tuple[Channel, ...], list[str]]:
    """(N, C) counts, their channels, and a note on slots."""
    names = list(columns) or [f"{signals.prefix}{c + 1}" for c in range(counts.shape[1])]
    if counts.ndim == 2:
        return np.ascontiguousarray(counts), tuple(Channel(n, signals.kind, signals.array) for n in names), []
    slots = counts.shape[2]
    if slot == "sum":
        total = counts.sum(axis=2, dtype=np.uint16)
        note = f"{slots} slots of each electrode (0: unsorted crossings, others: sorted units) summed"
        counts_NC = counts_from(total, encoding="counts", bin_s=1.0, where=where, name=f"{label} summed over slots")
        return counts_NC, tuple(Channel(n, "crossings", signals.array) for n in names), [note]
    used: NDArray[np.bool_] = np.asarray(counts.any(axis=0))
    used[:, 0] = True
    channels = [
        Channel(f"{name}u{s}", "unit" if s else "crossings", signals.array)
        for c, name in enumerate(names)
        for s in range(slots)
        if used[c, s]
    ]
    note = f"{slots} slots of each electrode kept apart: slot 0 unsorted crossings, others sorted units"
    empty = int((~used).sum())
    notes = [note, f"{empty} slots of sorted units without a single spike left out"] if empty else [note]
    return np.ascontiguousarray(counts[:, used]), tuple(channels), notes


# ---- spikes


def _add_spikes(draft: Draft, rows: Rows, spikes: SpikesMapping, options: ImportOptions) -> None:
    mapping, where = rows.mapping, rows.where
    for given, name in ((options.slot, "slot"), (options.rates_to_counts, "rates_to_counts")):
        if given:
            raise ConfigError(f"{name} has no meaning for spike times.", where=where, remedy="leave it out")
    timed = [part.variable or part.columns[0] for part in mapping.behavior if not part.stamps]
    if timed:
        raise ConfigError(
            f"behavior {timed[0]!r} has no stamps, and beside spike times there are no bins yet.",
            where="[[behavior]]",
            remedy="name its stamps",
        )
    draft.spikes, draft.channels, notes, unnamed = read_spikes(rows, spikes, sort=options.sort_spikes)
    if unnamed:
        draft.skip("columns of the table of spikes", unnamed)
    draft.sampled, more, left_out = read_sampled(rows, mapping.behavior, spikes.tick_hz)
    draft.notes += [*notes, *more]
    for reason, number in left_out.items():
        draft.skip(reason, number)
    draft.grid, num_bins = spike_grid(rows, draft, spikes, options)
    draft.counts = count_spikes(draft.spikes, draft.grid, num_bins)


# ---- what is told


def _note_lengths(draft: Draft, rows: Rows, lengths_M: NDArray[np.int64]) -> None:
    """Trials without bins, and padding behind others, are left out and counted."""
    empty = int(np.count_nonzero(lengths_M == 0))
    if empty:
        draft.notes.append(f"{empty} of {len(lengths_M)} trials have no bins, left out")
        draft.skip("trials without bins", empty)
    if rows.padding:
        draft.notes.append(f"{rows.padding} rows behind the stated lengths of trials are padding, left out")
        draft.skip("rows of padding", rows.padding)


def _count_unused(draft: Draft, file: ArrayFile, mappings: Sequence[Mapping]) -> None:
    """Note and count variables, and fields of structs that are used, which no session's mapping names."""
    used = {name for mapping in mappings for name in _named(file, mapping)}
    unused: list[str] = []
    for name in file.variables:
        if name in used:
            continue
        inside = [n for n in used if n.startswith(f"{name}.")]
        unused += file.unused(name, inside) if inside else [name]
    if unused:
        draft.notes.append(f"not in the mapping, left out: {', '.join(unused[:12])}{' …' if len(unused) > 12 else ''}")
        draft.skip("variables not in the mapping", len(unused))


def _named(file: ArrayFile, mapping: Mapping) -> list[str]:
    """Every variable that a mapping names."""
    signals, spikes, time, trials = mapping.signals, mapping.spikes, mapping.time, mapping.trials
    names = [time.bin_variable, time.stamps, *(b.variable for b in mapping.behavior), *mapping.stacked]
    names += [b.stamps for b in mapping.behavior]
    patterns = [*(signals.columns if signals is not None else ()), *(c for b in mapping.behavior for c in b.columns)]
    names += [name for pattern in patterns for name in file.matching(pattern)]
    names += [signals.variable] if signals is not None else []
    names += [spikes.variable] if spikes is not None else []
    if trials is not None:
        names += [trials.variable, trials.next, trials.condition, *(trials.columns or {}).values()]
    if mapping.brain_control is not None:
        names += [mapping.brain_control.variable, mapping.brain_control.first_bin]
    if mapping.perturbation is not None:
        names += [mapping.perturbation.variable, mapping.perturbation.trials, mapping.perturbation.ids]
    return [name for name in names if name]
