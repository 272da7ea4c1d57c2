"""Latency statistics of runs of any length in fixed memory."""

from __future__ import annotations

import math
from array import array
from dataclasses import asdict, dataclass

_SUB = 7
_TOP = 40
"""Values above 2^40 ns (18 minutes) share the last counter; the maximum is kept exactly."""


@dataclass(frozen=True)
class Summary:
    """Durations in milliseconds; NaN if there were none.

    Args:
        count: how many.
        min, mean, max: exact.
        p50, p99: the smallest duration that this share does not exceed, at most 0.8 % too high.
    """

    count: int
    min: float
    mean: float
    p50: float
    p99: float
    max: float

    def to_dict(self) -> dict[str, float | None]:
        """As plain JSON values; None instead of NaN."""
        return {name: None if math.isnan(value) else value for name, value in asdict(self).items()}


class Histogram:
    """Durations in nanoseconds, counted in 128 classes an octave: adding one allocates nothing.

    >>> durations = Histogram()
    >>> for ns in (1_000_000, 2_000_000, 40_000_000):
    ...     durations.add(ns)
    >>> durations.summary().max
    40.0
    """

    def __init__(self) -> None:
        self._counts = array("q", bytes(8 * (_index((1 << _TOP) - 1) + 1)))
        self.count, self.total, self.low, self.high = 0, 0, 0, 0

    def add(self, ns: int) -> None:
        """Count one duration; a negative one (a stamp from the future) counts as 0, but shows as the minimum."""
        if self.count == 0:
            self.low = self.high = ns
        elif ns > self.high:
            self.high = ns
        elif ns < self.low:
            self.low = ns
        self.count += 1
        self.total += ns
        self._counts[_index(min(max(ns, 0), (1 << _TOP) - 1))] += 1

    def percentile(self, percent: float) -> int:
        """The smallest duration that ``percent`` of them do not exceed, in ns, rounded up by at most 1/128."""
        wanted, seen = max(math.ceil(self.count * percent / 100), 1), 0
        for index, number in enumerate(self._counts):
            seen += number
            if seen >= wanted:
                return min(_upper(index), self.high)
        return self.high

    def summary(self) -> Summary:
        """All of it in milliseconds."""
        if not self.count:
            return Summary(0, *[math.nan] * 5)
        values = (self.low, self.total / self.count, self.percentile(50), self.percentile(99), self.high)
        return Summary(self.count, *[value / 1e6 for value in values])


def _index(ns: int) -> int:
    """Class of a duration: itself below 256, then 128 classes an octave."""
    shift = max(ns.bit_length() - _SUB - 1, 0)
    return (shift << _SUB) + (ns >> shift)


def _upper(index: int) -> int:
    """The longest duration of a class."""
    shift = max((index >> _SUB) - 1, 0)
    return ((index - (shift << _SUB) + 1) << shift) - 1
