"""Threshold crossings and spike-band power from broadband, streamed: memory does not grow with the recording.

A causal band-pass comes first, then the reference, then the threshold of −k·RMS or the mean square in each bin. RMS and
regression weights are estimated beforehand, from at most 40 pieces of a quarter of a second spread over the recording.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from betz.core.errors import ConfigError
from betz.core.session import Channel
from betz.core.timegrid import Ticks, count_spikes
from betz.data.importers.build import Draft, ImportOptions
from betz.data.importers.neo_model import READ_SAMPLES, Piece, Span, Stream
from betz.data.importers.neo_read import refuse

Float = NDArray[np.float64]
ORDER = 4
DEAD_MS = 1.0
"""A channel crosses at most once in this time: a spike rings for about as long."""
_PIECES, _PIECE_S = 40, 0.25
_RIDGE = 1e-3


@dataclass(frozen=True)
class Block:
    """Consecutive samples: ticks of each, (n, C) values, and whether they follow on what came before."""

    ticks: Ticks
    values: Float
    continues: bool


def add_broadband(draft: Draft, piece: Piece, options: ImportOptions, spans: Sequence[Span]) -> None:
    """Add what the option ``broadband`` asks for to a draft: crossings as its spikes, or power as further channels.

    Raises:
        FileError: there is no broadband, or its rate is too low for the band.
        ConfigError: an option is out of range, or the file has spikes of its own.
    """
    streams = [s for s in piece.streams if any(s.neural) and s.fragments]
    if not streams:
        raise refuse("no broadband", "it has no analog channels of electrodes.", draft.path, "leave broadband out")
    stream = max(streams, key=lambda s: s.rate_hz)
    for other in streams:
        if other is not stream:
            draft.skip("analog channels", sum(other.neural))
            draft.notes.append(f"{other.name}: left out, {stream.name} is sampled faster")
    columns = [k for k, neural in enumerate(stream.neural) if neural]
    _check(draft, options, stream)
    names = [stream.channels[k] for k in columns]
    clean = Cleaner.fit(stream, columns, options, draft.grid.tick_hz, spans)
    low, high = options.band_hz
    how = f"{low:g} to {high:g} Hz, reference: {options.reference}"
    silent = [name for name, rms in zip(names, clean.rms.tolist(), strict=True) if rms == 0]
    if silent:
        draft.notes.append(f"broadband that never changes, so without crossings or power: {', '.join(silent[:8])}")
    if options.broadband == "crossings":
        _add_crossings(draft, stream, columns, names, clean, options, spans)
        draft.notes.append(f"crossings of {options.threshold_rms:g} RMS made from {stream.name} ({how})")
    else:
        _add_power(draft, stream, columns, names, clean, spans)
        draft.notes.append(f"spike-band power made from {stream.name}: mean square in each bin ({how})")


def _check(draft: Draft, options: ImportOptions, stream: Stream) -> None:
    low, high = options.band_hz
    if not 0 < low < high or not options.threshold_rms < 0:
        raise ConfigError(
            f"band_hz = {list(options.band_hz)} and threshold_rms = {options.threshold_rms:g} are impossible.",
            where=draft.path.name,
            remedy="give an ascending band, and a negative threshold: spikes go down",
        )
    if float(stream.rate_hz) <= 2 * high:
        raise refuse("rate too low", f"{stream.name} is sampled at {float(stream.rate_hz):g} Hz, too slowly for a band "
                     f"up to {high:g} Hz.", draft.path, "give a lower band (--band-hz)")  # fmt: skip
    if options.broadband == "crossings" and any(len(ticks) for ticks in draft.spikes or ()):
        raise ConfigError(
            "it has spikes of its own, so crossings would be there twice.",
            where=draft.path.name,
            remedy="leave broadband out, or add power: broadband='power' (--broadband power)",
        )


# ---- filter and reference


class Cleaner:
    """Band-pass with a state, then the reference.

    Args:
        sos: second-order sections.
        weights: (C, C) what of each channel is subtracted from each other one, or None.
    """

    def __init__(self, sos: Float, weights: Float | None) -> None:
        self._sos, self._weights = sos, weights
        self._state: Float | None = None
        self.rms: Float = np.empty(0)

    @classmethod
    def fit(
        cls, stream: Stream, columns: list[int], options: ImportOptions, tick_hz: int, spans: Sequence[Span]
    ) -> Cleaner:
        """Weights and RMS from pieces spread over the recording."""
        sos = signal.butter(ORDER, options.band_hz, "bandpass", fs=float(stream.rate_hz), output="sos")
        gram, number = np.zeros((len(columns), len(columns))), 0
        for block in _samples(stream, columns, tick_hz, spans):
            x = cls(sos, None)(block)
            gram += x.T @ x
            number += len(x)
        weights = _weights(gram, options.reference)
        made = cls(sos, weights)
        rest = np.eye(len(columns)) - (0 if weights is None else weights)
        made.rms = np.sqrt(np.maximum(np.einsum("ic,ij,jc->c", rest, gram, rest, optimize=True), 0) / max(number, 1))
        return made

    def __call__(self, block: Block) -> Float:
        """(n, C) what is left of a block."""
        if self._state is None or not block.continues:
            start = signal.sosfilt_zi(self._sos)[:, :, None]
            self._state = start * block.values[0]
        out, self._state = signal.sosfilt(self._sos, block.values, axis=0, zi=self._state)
        return self._referenced(out)

    def _referenced(self, x: Float) -> Float:
        return x if self._weights is None else x - x @ self._weights


def _weights(gram: Float, reference: str) -> Float | None:
    """(C, C) weights of the channels in what is subtracted from each, from the sums of their products."""
    channels = len(gram)
    if reference == "none" or channels < 2 or not gram.any():
        return None
    if reference == "average":
        return np.full((channels, channels), 1 / channels)
    gram = gram + np.eye(channels) * max(_RIDGE * np.trace(gram) / channels, np.finfo(float).tiny)
    inverse = np.linalg.inv(gram)  # regression of each on all others: off-diagonal over the diagonal of the inverse
    weights = -inverse / np.diag(inverse)[None, :]
    np.fill_diagonal(weights, 0.0)
    return np.asarray(weights)


# ---- blocks of samples


def blocks(stream: Stream, columns: list[int], tick_hz: int, spans: Sequence[Span]) -> Iterator[Block]:
    """The samples of a stream inside spans, a piece at a time."""
    step = stream.ticks_per_sample(tick_hz)
    size = max(READ_SAMPLES // max(len(stream.channels), 1), 64)
    expected: Fraction | None = None
    for fragment in stream.fragments:
        if not any(fragment.tick < end and fragment.tick + fragment.number * step > start for start, end in spans):
            continue
        continues = expected is not None and abs(fragment.tick - expected) <= 2 * step
        for first in range(0, fragment.number, size):
            end = min(first + size, fragment.number)
            values = stream.read(fragment.first + first, fragment.first + end, columns).astype(np.float64)
            index = np.arange(first, first + len(values), dtype=np.int64)
            ticks = fragment.tick + (index * step.numerator) // step.denominator
            if len(values):
                yield Block(ticks, values, continues or first > 0)
        expected = fragment.tick + fragment.number * step


def _samples(stream: Stream, columns: list[int], tick_hz: int, spans: Sequence[Span]) -> Iterator[Block]:
    """Pieces spread evenly over the samples of a stream inside spans."""
    step = stream.ticks_per_sample(tick_hz)
    inside = [
        f for f in stream.fragments if any(f.tick < end and f.tick + f.number * step > start for start, end in spans)
    ]
    total = sum(f.number for f in inside)
    length = max(round(_PIECE_S * float(stream.rate_hz)), 1)
    number = max(min(_PIECES, total // length), 1)
    ends = np.cumsum([f.number for f in inside])
    for at in np.linspace(0, max(total - length, 0), number).astype(int).tolist():
        which = int(np.searchsorted(ends, at, side="right"))
        fragment = inside[which]
        first = at - int(ends[which]) + fragment.number
        values = stream.read(fragment.first + first, fragment.first + min(first + length, fragment.number), columns)
        if len(values) > 1:
            yield Block(np.empty(0, np.int64), values.astype(np.float64), False)


# ---- what is made of them


def crossings(
    stream: Stream, columns: list[int], clean: Cleaner, threshold_rms: float, tick_hz: int, spans: Sequence[Span]
) -> tuple[Ticks, ...]:
    """Ticks at which each channel falls below its threshold, at most once a millisecond."""
    threshold = threshold_rms * clean.rms
    dead = DEAD_MS / 1000 * tick_hz
    found: list[list[Ticks]] = [[] for _ in columns]
    latest = np.full(len(columns), -np.inf)
    before = np.zeros(len(columns))
    for block in blocks(stream, columns, tick_hz, spans):
        x = clean(block)
        above = np.concatenate((before[None] if block.continues else x[:1], x[:-1])) >= threshold
        rows, channels = np.nonzero((x < threshold) & above & (clean.rms > 0))
        for channel in np.unique(channels).tolist():
            ticks = block.ticks[rows[channels == channel]]
            kept = _apart(ticks, latest[channel], dead)
            if len(kept):
                latest[channel] = kept[-1]
                found[channel].append(kept)
        before = x[-1]
    return tuple(np.concatenate([np.empty(0, np.int64), *parts]) for parts in found)


def _apart(ticks: Ticks, latest: float, dead: float) -> Ticks:
    """Ticks that are not within the dead time of the one kept before."""
    kept = []
    for tick in ticks.tolist():
        if tick - latest >= dead:
            kept.append(tick)
            latest = tick
    return np.array(kept, np.int64)


def _add_crossings(
    draft: Draft,
    stream: Stream,
    columns: list[int],
    names: list[str],
    clean: Cleaner,
    options: ImportOptions,
    spans: Sequence[Span],
) -> None:
    ticks = crossings(stream, columns, clean, options.threshold_rms, draft.grid.tick_hz, spans)
    start, end = draft.grid.origin_tick, draft.grid.start_of(len(draft.counts))
    draft.spikes = tuple(t[np.searchsorted(t, start) : np.searchsorted(t, end)] for t in ticks)
    draft.channels = tuple(Channel(name) for name in names)
    draft.counts = count_spikes(draft.spikes, draft.grid, len(draft.counts))


def _add_power(
    draft: Draft, stream: Stream, columns: list[int], names: list[str], clean: Cleaner, spans: Sequence[Span]
) -> None:
    bins = len(draft.counts)
    total = np.zeros((bins, len(columns)), np.float32)
    number = np.zeros(bins, np.int64)
    for block in blocks(stream, columns, draft.grid.tick_hz, spans):
        index = draft.grid.bin_of(block.ticks)
        square = clean(block) ** 2
        keep = (index >= 0) & (index < bins)
        index, square = index[keep], square[keep]
        starts = np.flatnonzero(np.diff(index, prepend=-1))
        if len(starts):
            total[index[starts]] += np.add.reduceat(square, starts, axis=0).astype(np.float32)
            number[index[starts]] += np.diff(starts, append=len(index))
    draft.power = total / np.maximum(number, 1).astype(np.float32)[:, None]
    unit = stream.units[columns[0]] or "a.u."
    taken = {c.id for c in draft.channels}
    named = [f"{name}_power" if name in taken else name for name in names]
    draft.channels = (*draft.channels, *(Channel(name, "power", unit=f"{unit}^2") for name in named))
