"""Channels that fell silent after the calibration: found by their silence alone, then read as at rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from betz.core.prediction import Array

EXPECTED_SPIKES = 40.0
"""A channel is dead after a silence in which the calibration had this many spikes on average."""
LEAST_S = 5.0
LONGEST_S = 60.0
"""Channels that would need a longer silence are not judged: they say little anyway."""


@dataclass(frozen=True, eq=False)
class SilenceDetector:
    """How long each channel may be silent.

    Args:
        limit_C: bins of silence after which a channel is dead; 0 = never judged.
    """

    limit_C: NDArray[np.int64]

    @classmethod
    def fit(cls, signals_NC: Array, counting_C: NDArray[np.bool_], bin_ms: float) -> SilenceDetector:
        """Limits from the calibration: three times its longest silence, and 40 expected spikes, at least."""
        bin_s = bin_ms / 1000
        rate = signals_NC.mean(axis=0, dtype=np.float64)
        expected = np.ceil(EXPECTED_SPIKES / np.maximum(rate, 1e-9))
        limit = np.maximum.reduce([expected, np.full(len(rate), LEAST_S / bin_s), 3.0 * longest_silence(signals_NC)])
        return cls(np.where(counting_C & (limit <= LONGEST_S / bin_s), limit, 0).astype(np.int64))

    def advance(
        self, signals_BNC: Array, present_BN: NDArray[np.bool_], silent_BC: NDArray[np.int64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """(B, N, C) whether a channel is dead at a bin, and bins of silence after the last one.

        A spike brings a channel back at once; a lost bin neither adds to a silence nor ends it.
        """
        silent = silent_BC.copy()
        dead = np.empty(signals_BNC.shape, dtype=bool)
        judged = self.limit_C > 0
        for n in range(signals_BNC.shape[1]):
            there = present_BN[:, n, None]
            silent = np.where(there, np.where(signals_BNC[:, n] > 0, 0, silent + 1), silent)
            dead[:, n] = judged & (silent >= self.limit_C)
        return dead, silent


def longest_silence(signals_NC: Array) -> NDArray[np.int64]:
    """(C,) most bins in a row without a spike."""
    longest = np.zeros(signals_NC.shape[1], dtype=np.int64)
    for c in range(signals_NC.shape[1]):
        at = np.flatnonzero(signals_NC[:, c] > 0)
        ends = np.concatenate(([-1], at, [len(signals_NC)]))
        longest[c] = int(np.diff(ends).max() - 1)
    return longest
