"""Samples at irregular times as a regular series: each in the slot next to it, NaN where there is none, all counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.data.importers.neo_model import READ_SAMPLES, Span, Stream

Array = NDArray[Any]
FASTEST_HZ = 1000
"""Behavior that was sampled faster is averaged down to about this rate."""


@dataclass(frozen=True)
class Regular:
    """A regular series.

    Args:
        values: (M, K) float32; NaN where there was no sample.
        origin_tick, ticks_per_sample: tick of sample 0, and the distance of samples.
        missing: slots without a sample.
        doubled: samples that fell into a slot with another one (their mean is kept).
        averaged: how many samples were averaged to one.
    """

    values: NDArray[np.float32]
    origin_tick: int
    ticks_per_sample: int
    missing: int
    doubled: int
    averaged: int = 1


def regular(ticks: NDArray[np.int64], values: Array, ticks_per_sample: int) -> Regular:
    """Samples at ascending ticks on the grid of ``ticks_per_sample`` that starts with the first one.

    Args:
        ticks: (M,) int64, ascending.
        values: (M, K).
        ticks_per_sample: distance of slots; a sample goes to the slot next to it.

    >>> found = regular(np.array([0, 10, 21, 40]), np.array([[1.0], [2.0], [3.0], [4.0]]), 10)
    >>> found.values.ravel().tolist(), found.missing
    ([1.0, 2.0, 3.0, nan, 4.0], 1)
    """
    slot = np.asarray((ticks - ticks[0] + ticks_per_sample // 2) // ticks_per_sample)
    total = np.zeros((int(slot[-1]) + 1, values.shape[1]))
    number = np.bincount(slot, minlength=len(total))
    np.add.at(total, slot, values)
    with np.errstate(invalid="ignore", divide="ignore"):
        out = (total / number[:, None]).astype(np.float32)
    doubled = int((number[number > 1] - 1).sum())
    return Regular(out, int(ticks[0]), ticks_per_sample, int((number == 0).sum()), doubled)


def from_stream(stream: Stream, columns: Sequence[int], tick_hz: int, span: Span) -> Regular | None:
    """Chosen channels of a stream as a regular series, read piece by piece and averaged down to at most 1 kHz.

    Args:
        stream: its fragments may leave gaps, or drift against the clock.
        columns: which channels.
        tick_hz: of the clock.
        span: [start, end) ticks to keep.

    Returns:
        None where the stream has no sample inside the span.
    """
    step = stream.ticks_per_sample(tick_hz)
    averaged = max(1, round(stream.rate_hz / FASTEST_HZ))
    while (step * averaged).denominator != 1 and averaged < 4096:  # rates without whole ticks: the next one that has
        averaged += 1
    width = round(step * averaged)
    inside = [f for f in stream.fragments if f.tick < span[1] and f.tick + round(f.number * step) > span[0]]
    if not inside:
        return None
    origin = inside[0].tick
    slots = max((f.tick + round(f.number * step) - origin + width - 1) // width for f in inside)
    total = np.zeros((slots, len(columns)), np.float32)
    number = np.zeros(slots, np.int32)
    for fragment in inside:
        _add(total, number, stream, fragment, list(columns), origin, width, step)
    known = number > 0
    total[known] /= number[known, None]
    total[~known] = np.nan
    extra = int(np.maximum(number - averaged, 0).sum())
    return Regular(total, origin, width, int((~known).sum()), extra, averaged)


def _add(
    total: NDArray[np.float32],
    number: NDArray[np.int32],
    stream: Stream,
    fragment: Any,
    columns: list[int],
    origin: int,
    width: int,
    step: Fraction,
) -> None:
    """Add the samples of a fragment to their slots, a piece at a time."""
    size = max(READ_SAMPLES // max(len(stream.channels), 1), 1)
    for first in range(0, fragment.number, size):
        end = min(first + size, fragment.number)
        values = stream.read(fragment.first + first, fragment.first + end, columns)
        index = np.arange(first, first + len(values), dtype=np.int64)
        ticks = fragment.tick - origin + (index * step.numerator) // step.denominator
        # half a sample: jitter must not move one to the slot before
        slot = np.minimum((ticks + round(step / 2)) // width, len(total) - 1)
        starts = np.flatnonzero(np.diff(slot, prepend=-1))
        if len(starts):
            total[slot[starts]] += np.add.reduceat(values, starts, axis=0)
            number[slot[starts]] += np.diff(starts, append=len(slot)).astype(np.int32)
