"""NWB files: units or threshold crossings, behavior, trials, intervals and invalid times as a session.

Spike times become ticks of one integer clock: 30 kHz (or what the file says) where they lie on it, else 1 MHz. Behavior
keeps its own rate, in the file's unit times its conversion.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from betz.core.errors import ConfigError
from betz.core.intervals import Intervals
from betz.core.session import Channel
from betz.core.timegrid import BinGrid, count_spikes
from betz.data.importers.build import Draft, ImportOptions
from betz.data.importers.convert import counts_from, grid_of
from betz.data.importers.files import FileError
from betz.data.importers.nwb_behavior import BINNED_COUNTS, read_behavior
from betz.data.importers.nwb_file import NwbFile, open_nwb, text_of
from betz.data.importers.nwb_intervals import add_intervals, state_names
from betz.data.importers.nwb_units import Spikes, as_channels, electrode_names, read_lines, tick_rate

DEFAULT_BIN_MS = 20.0
_MOST_BINS = 1 << 26


def read_nwb(path: Path, options: ImportOptions) -> Draft:
    """An NWB file as a draft; FALCON's files are recognised and read by their own layouts.

    Args:
        path: the file.
        options: ``bin_ms`` (20 where it is not given: spike ticks are kept, so any other width can be had later),
            ``slot``, ``sort_spikes``, ``channels``, ``behavior``.

    Raises:
        FileError: it is damaged, no NWB 2 file, or has no spikes.
        ConfigError: an option has no meaning for it.
    """
    from betz.data.importers.falcon import layout_of, read_falcon

    if options.rates_to_counts:
        raise ConfigError("rates_to_counts has no meaning for NWB files.", where=path.name, remedy="leave it out")
    with open_nwb(path) as file:
        layout = layout_of(file)
        return _read(file, options) if layout is None else read_falcon(file, layout, options)


def _read(file: NwbFile, options: ImportOptions) -> Draft:
    bin_ms = DEFAULT_BIN_MS if options.bin_ms is None else options.bin_ms
    grid_of(bin_ms, where=file.where)
    if file.nwb.units is None and BINNED_COUNTS in file.nwb.acquisition:
        return _read_binned(file, options)
    spikes = read_lines(file)
    tick_hz = tick_rate(spikes, bin_ms)
    ticks, channels = as_channels(
        spikes, tick_hz=tick_hz, slot=options.slot, sort=options.sort_spikes, where=file.where
    )
    spikes.lines.clear()  # as large as the ticks, and no longer needed
    draft = Draft(
        path=file.path,
        importer="nwb",
        counts=np.empty((0, len(channels)), np.uint8),
        channels=channels,
        grid=_grid(bin_ms, tick_hz, file.where),
        spikes=ticks,
        notes=spikes.notes,
        skipped=spikes.skipped,
    )
    if options.bin_ms is None:
        draft.notes.append("bins of 20 ms, as no width was asked for; spike ticks are kept: rebinned() gives any other")
    describe(file, draft)
    read_behavior(file, draft, options.behavior, tick_hz, others=state_names(file))
    num_bins = _place(draft, file.where)
    draft.counts = count_spikes(ticks, draft.grid, num_bins)
    add_intervals(file, draft, num_bins)
    _mark_unobserved(draft, spikes, num_bins)
    return draft


def _read_binned(file: NwbFile, options: ImportOptions) -> Draft:
    """Counts in bins, as :func:`betz.data.exporters.nwb.write_nwb` writes them."""
    series = file.nwb.acquisition[BINNED_COUNTS]
    raw = np.asarray(series.data[:])
    rate = float(series.rate or 0.0)
    if raw.ndim != 2 or not 0 < rate < 1e6 or file.nwb.electrodes is None:
        raise FileError("wrong shape", f"{BINNED_COUNTS!r} is no table of counts with a rate.", where=file.where,
                        remedy="export the session again")  # fmt: skip
    grid = grid_of(1000 / rate, where=file.where, origin_s=float(series.starting_time or 0.0))
    if options.bin_ms is not None and abs(options.bin_ms / grid.bin_ms - 1) > 1e-6:
        raise ConfigError(f"its bins are {grid.bin_ms:g} ms.", where=file.where,
                          remedy="leave bin_ms out; session.rebinned() merges bins")  # fmt: skip
    names, arrays = electrode_names(file)
    channels = [Channel(n, "crossings", a) for n, a in zip(names, arrays, strict=True)][: raw.shape[1]]
    counts = counts_from(raw, encoding="counts", bin_s=grid.bin_s, where=file.where, name=BINNED_COUNTS)
    draft = Draft(path=file.path, importer="nwb", counts=counts, channels=tuple(channels), grid=grid)
    describe(file, draft)
    read_behavior(file, draft, options.behavior, grid.tick_hz, others=state_names(file))
    add_intervals(file, draft, len(counts))
    return draft


def describe(file: NwbFile, draft: Draft) -> None:
    """Subject, task, date and the like, as far as the file tells."""
    nwb = file.nwb
    draft.subject = text_of(nwb.subject.subject_id) if nwb.subject is not None else ""
    draft.task = text_of(nwb.session_description)[:200]
    told = {
        "date": nwb.session_start_time.isoformat() if nwb.session_start_time is not None else "",
        "identifier": text_of(nwb.identifier),
        "nwb_session": text_of(nwb.session_id),
        "lab": text_of(nwb.lab),
        "institution": text_of(nwb.institution),
        "species": text_of(nwb.subject.species) if nwb.subject is not None else "",
    }
    draft.tags = {key: value for key, value in told.items() if value}


def _grid(bin_ms: float, tick_hz: int, where: str) -> BinGrid:
    width = bin_ms * tick_hz / 1000
    if round(width) < 1 or abs(width - round(width)) > 1e-6 * width:
        raise FileError("impossible bin width", f"bins of {bin_ms:g} ms are no whole number of ticks at {tick_hz} Hz.",
                        where=where, remedy="give another width")  # fmt: skip
    return BinGrid(tick_hz, round(width))


def _place(draft: Draft, where: str) -> int:
    """Start the grid at the bin of the first spike or sample, and return how many bins reach the last one."""
    assert draft.spikes is not None
    starts = [int(t[0]) for t in draft.spikes if len(t)] + [s.origin_tick for s in draft.sampled]
    ends = [int(t[-1]) + 1 for t in draft.spikes if len(t)]
    ends += [s.origin_tick + len(s.values) * s.ticks_per_sample for s in draft.sampled]
    if not starts:
        raise FileError("no bins", "it has no spike and no behavior.", where=where, remedy="check the file")
    width = draft.grid.ticks_per_bin
    first = min(starts) // width
    draft.grid = draft.grid.from_bin(first)
    num_bins = -(-max(ends) // width) - first
    if num_bins > _MOST_BINS:
        raise FileError("bad spike times", f"it lasts {num_bins:,} bins of {draft.grid.bin_ms:g} ms.", where=where,
                        remedy="check the times: NWB wants seconds on one clock")  # fmt: skip
    return num_bins


def _mark_unobserved(draft: Draft, spikes: Spikes, num_bins: int) -> None:
    """Ticks in which not all units were observed cannot be trusted."""
    if spikes.observed is None:
        return
    whole = Intervals.of([tuple(draft.grid.start_of([0, num_bins]).tolist())])
    lost = whole - Intervals.of(draft.grid.ticks_from_s(spikes.observed).reshape(-1, 2))
    seconds = lost.total / draft.grid.tick_hz
    if seconds > draft.grid.bin_s:
        draft.notes.append(f"units were not observed for {seconds:.1f} s in all: marked not valid")
    draft.invalid |= lost
