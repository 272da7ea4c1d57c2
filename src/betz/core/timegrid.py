"""Integer time: ticks of the recording clock, bins of whole ticks, and counts of spikes in bins.

Seconds and milliseconds live at the border only. Binning is integer floor division, so a spike on a bin
edge belongs to exactly one bin, whatever the length of the recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from betz.core.errors import DataError

Ticks = NDArray[np.int64]
Value = TypeVar("Value", bound=np.generic)
MAX_COUNT = 255


@dataclass(frozen=True)
class BinGrid:
    """The bins of one session: bin k holds the ticks [origin + k·w, origin + (k + 1)·w).

    Args:
        tick_hz: ticks per second of the recording clock.
        ticks_per_bin: w, ticks in one bin.
        origin_tick: the first tick of bin 0.

    >>> grid = BinGrid(tick_hz=30_000, ticks_per_bin=600)
    >>> grid.bin_ms
    20.0
    >>> grid.bin_of(np.array([0, 599, 600, -1])).tolist()
    [0, 0, 1, -1]
    """

    tick_hz: int
    ticks_per_bin: int
    origin_tick: int = 0

    def __post_init__(self) -> None:
        for name in ("tick_hz", "ticks_per_bin", "origin_tick"):
            value = getattr(self, name)
            if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
                raise DataError(
                    f"{name} is {value!r}, not an integer.",
                    where="BinGrid",
                    remedy="give whole ticks; BinGrid.from_ms finds a tick rate for a bin width",
                )
            object.__setattr__(self, name, int(value))
        if self.tick_hz < 1 or self.ticks_per_bin < 1:
            raise DataError(
                f"tick_hz={self.tick_hz} and ticks_per_bin={self.ticks_per_bin} must both be at least 1.",
                where="BinGrid",
            )

    @classmethod
    def from_ms(cls, bin_ms: float, *, tick_hz: int | None = None, origin_tick: int = 0) -> BinGrid:
        """The grid with bins of ``bin_ms`` milliseconds.

        Args:
            bin_ms: bin width in milliseconds.
            tick_hz: tick rate; without it the coarsest of 1 kHz, 1 MHz and the exact fraction that fits.
            origin_tick: the first tick of bin 0.

        Raises:
            DataError: ``bin_ms`` is not a whole number of ticks.
        """
        if not np.isfinite(bin_ms) or bin_ms <= 0:
            raise DataError(f"a bin width of {bin_ms} ms is impossible.", where="BinGrid", remedy="give ms > 0")
        exact = Fraction(bin_ms).limit_denominator(1_000_000) / 1000
        rates = (tick_hz,) if tick_hz is not None else (1000, 1_000_000, exact.denominator)
        for rate in rates:
            ticks = exact * rate
            if ticks.denominator == 1 and ticks >= 1:
                return cls(rate, int(ticks), origin_tick)
        raise DataError(
            f"{bin_ms} ms is not a whole number of ticks at {rates[-1]} Hz.",
            where="BinGrid",
            remedy=f"use a multiple of {1000 / rates[-1]:g} ms",
        )

    @property
    def bin_ms(self) -> float:
        """Width of a bin in milliseconds."""
        return 1000.0 * self.ticks_per_bin / self.tick_hz

    @property
    def bin_s(self) -> float:
        """Width of a bin in seconds."""
        return self.ticks_per_bin / self.tick_hz

    def bin_of(self, ticks: ArrayLike) -> Ticks:
        """The bin of each tick, int64; negative before the origin."""
        values = np.asarray(ticks)
        if not np.issubdtype(values.dtype, np.integer):
            raise DataError(
                f"ticks are {values.dtype}, not integers.",
                where="BinGrid.bin_of",
                remedy="convert seconds with BinGrid.ticks_from_s",
            )
        return np.asarray((values.astype(np.int64, copy=False) - self.origin_tick) // self.ticks_per_bin)

    def start_of(self, bins: ArrayLike) -> Ticks:
        """The first tick of each bin, int64; also the end (exclusive) of the bin before."""
        return np.asarray(bins, dtype=np.int64) * self.ticks_per_bin + self.origin_tick

    def ticks_from_s(self, seconds: ArrayLike) -> Ticks:
        """Seconds on the recording clock, rounded to the nearest tick (int64)."""
        values = np.asarray(seconds, dtype=np.float64)
        if not np.all(np.isfinite(values)):
            raise DataError("times contain NaN or infinity.", where="BinGrid.ticks_from_s")
        return np.rint(values * self.tick_hz).astype(np.int64)

    def seconds(self, ticks: ArrayLike) -> NDArray[np.float64]:
        """Ticks as seconds of the recording clock (float64), for people to read."""
        return np.asarray(ticks, dtype=np.int64) / self.tick_hz

    def bins_in(self, minutes: float) -> int:
        """Whole bins in this many minutes, rounded to the nearest."""
        return round(minutes * 60 * self.tick_hz / self.ticks_per_bin)

    def rebinned(self, factor: int) -> BinGrid:
        """The grid whose bins each hold ``factor`` bins of this one."""
        if factor < 1 or int(factor) != factor:
            raise DataError(f"bins can be merged by whole factors, not by {factor}.", where="BinGrid")
        return BinGrid(self.tick_hz, self.ticks_per_bin * int(factor), self.origin_tick)

    def from_bin(self, start_bin: int) -> BinGrid:
        """The same bins, numbered from ``start_bin``."""
        return BinGrid(self.tick_hz, self.ticks_per_bin, self.origin_tick + start_bin * self.ticks_per_bin)


def count_spikes(spikes: Sequence[Ticks], grid: BinGrid, num_bins: int) -> NDArray[np.uint8]:
    """Counts of sorted spike ticks in the bins of a grid.

    Args:
        spikes: C arrays of ascending int64 ticks, one a channel; ticks outside the bins are not counted.
        grid: the bins.
        num_bins: N, how many bins from bin 0 on.

    Returns:
        (N, C) uint8 counts.

    Raises:
        DataError: ticks are not sorted, or a bin holds more than 255 spikes of a channel.
    """
    counts_NC = np.zeros((num_bins, len(spikes)), dtype=np.uint8)
    for channel, ticks in enumerate(spikes):
        bins = grid.bin_of(ticks)
        if bins.size == 0:
            continue
        step = np.diff(bins)
        if step.size and step.min() < 0:
            raise DataError(
                "spike ticks are not in ascending order.",
                where=f"channel {channel}",
                remedy="sort them on import (named option sort_spikes=True)",
            )
        first = np.flatnonzero(np.concatenate(([True], step > 0)))
        number = np.diff(np.append(first, bins.size))
        which = bins[first]
        inside = slice(*np.searchsorted(which, (0, num_bins)))
        which, number = which[inside], number[inside]
        if number.size and number.max() > MAX_COUNT:
            worst = int(number.argmax())
            raise DataError(
                f"{number[worst]} spikes in one bin of {grid.bin_ms:g} ms do not fit the limit of {MAX_COUNT}.",
                where=f"channel {channel}, bin {which[worst]}",
                remedy="use narrower bins, or check the clock rate of the spike times",
            )
        counts_NC[which, channel] = number
    return counts_NC


def sum_bins(values_NC: NDArray[Value], factor: int) -> NDArray[Value]:
    """Sums of every ``factor`` consecutive bins; an incomplete last one is left out.

    Args:
        values_NC: (N, C) counts (uint8; the sums must fit) or float values.
        factor: bins to add up.

    Raises:
        DataError: a sum of counts exceeds 255.
    """
    whole = len(values_NC) // factor
    parts = values_NC[: whole * factor].reshape(whole, factor, -1)
    if values_NC.dtype != np.uint8:
        return cast(NDArray[Value], parts.sum(axis=1, dtype=values_NC.dtype))
    total = parts.sum(axis=1, dtype=np.uint32)
    if total.size and total.max() > MAX_COUNT:
        row, channel = np.unravel_index(int(total.argmax()), total.shape)
        raise DataError(
            f"merging {factor} bins gives {total.max()} counts, above the limit of {MAX_COUNT}.",
            where=f"channel {channel}, merged bin {row}",
            remedy="merge fewer bins",
        )
    return cast(NDArray[Value], total.astype(np.uint8))
