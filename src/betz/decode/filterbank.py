"""Causal filters of signals in milliseconds: the features of Betz's own decoder, the same at any bin width.

Bins narrower than the step of 50 ms are read as that many interleaved sequences of steps: at each bin, counts are
summed over the step that ends there, and lags reach back in whole steps. A decoder of 50 ms bins and one of 10 ms bins
then see the same features of the same spikes, the second five times as often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import DataError
from betz.core.prediction import Array
from betz.core.session import Channel
from betz.decode.closed_form import Segments
from betz.decode.features import Z_CLIP, counting, floored

Float32 = NDArray[np.float32]

CENTERS_MS = (0.0, 60.0, 140.0, 260.0, 450.0)
"""Lags at which the filters peak."""
FILTERS = len(CENTERS_MS)
SUPPORT_MS = 750.0
STEP_MS = 50.0
_OFFSET_MS, _WIDTH = 60.0, 1.2


def stride_of(bin_ms: float) -> int:
    """Bins in a step: 1 for bins of 34 ms or more."""
    return max(1, round(STEP_MS / bin_ms))


@cache
def filter_taps(step_ms: float) -> Float32:
    """(FILTERS, L) raised cosines of the logarithm of the lag, averaged over steps, each with sum 1."""
    steps = int(np.ceil(SUPPORT_MS / step_ms))
    fine = (np.arange(int(steps * step_ms)) + 0.5)[:, None]
    centers = np.log(np.array(CENTERS_MS) + _OFFSET_MS)
    width = _WIDTH * np.diff(centers).mean()
    away = np.clip((np.log(fine + _OFFSET_MS) - centers) / width, -1, 1)
    shape = 0.5 + 0.5 * np.cos(np.pi * away)
    index = np.minimum((fine[:, 0] / step_ms).astype(int), steps - 1)
    taps = np.zeros((steps, FILTERS))
    np.add.at(taps, index, shape)
    return np.asarray((taps / taps.sum(axis=0)).T, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class FilterBank:
    """Filters and their scaling, fitted on the signals of a calibration, labelled or not.

    Args:
        bin_ms: bin width.
        counting: (C,) whether a channel holds counts (its square root is filtered).
        rest: (C,) mean of what is filtered; it is subtracted, so that 0 stands for bins that are lost or not there.
        mean, sd: (C · FILTERS,) of the filtered signals, channel by channel; floored and 1 where nothing varies.
    """

    bin_ms: float
    counting: NDArray[np.bool_]
    rest: NDArray[np.float64]
    mean: Float32
    sd: Float32

    @classmethod
    def fit(cls, signals_NC: Array, segments: Segments, channels: Sequence[Channel], bin_ms: float) -> Self:
        """Fit rest and scaling to all bins of the segments.

        Raises:
            DataError: no channel varies in them.
        """
        number = len(channels)
        bare = cls(
            bin_ms,
            counting(channels),
            np.zeros(number),
            np.zeros(number * FILTERS, np.float32),
            np.ones(number * FILTERS, np.float32),
        )
        stretches = [bare.rooted(signals_NC[a:b]) for a, b in segments]
        rest = np.concatenate(stretches).mean(axis=0, dtype=np.float64) if stretches else bare.rest
        settled = cls(bin_ms, bare.counting, rest, bare.mean, bare.sd)
        filtered = [settled.filtered(settled.rooted(signals_NC[a:b])) for a, b in segments]
        all_NF = np.concatenate(filtered) if filtered else np.zeros((1, number * FILTERS), np.float32)
        mean, sd = all_NF.mean(axis=0, dtype=np.float64), all_NF.std(axis=0, dtype=np.float64)
        if not np.any(sd > 0):
            raise DataError(
                f"all {number} channels are dead: none varies in the calibration.",
                where="calibration",
                remedy="check the channel selection, the reference and the recording",
            )
        sd = floored(sd.reshape(number, FILTERS), channels).ravel()
        return cls(bin_ms, bare.counting, rest, mean.astype(np.float32), sd.astype(np.float32))

    @property
    def stride(self) -> int:
        """Bins in a step."""
        return stride_of(self.bin_ms)

    @property
    def steps(self) -> int:
        """Steps that the filters reach back, the current one included."""
        return int(filter_taps(self.stride * self.bin_ms).shape[1])

    def rooted(self, signals_NC: Array, before: NDArray[np.float64] | None = None) -> Float32:
        """(N, C) what is filtered: the root of the counts in the step that ends with a bin, or mean power, less rest.

        Args:
            signals_NC: N bins of signals; rows of NaN are lost bins.
            before: (stride − 1, C) the bins before them (default: none, as at the start of a segment).
        """
        stride = self.stride
        x = np.asarray(signals_NC, dtype=np.float64)  # large, nearly constant power would cancel in single precision
        if stride > 1:
            before = np.full((stride - 1, x.shape[1]), np.nan) if before is None else before
            joined = np.concatenate((before, x))
            there = np.isfinite(joined[:, :1]).astype(np.float64)
            filled = np.where(there > 0, joined, 0.0)
            bins = len(x)
            total = np.add.reduce([filled[i : i + bins] for i in range(stride)])
            present = np.add.reduce([there[i : i + bins] for i in range(stride)])
        else:
            present = np.isfinite(x[:, :1]).astype(np.float64)
            total = np.where(present > 0, x, 0.0)
        mean = total / np.maximum(present, 1)
        root = np.sqrt(np.maximum(mean, 0) * (STEP_MS / self.bin_ms))
        out = np.where(self.counting, root, mean) - self.rest
        return np.where(present > 0, out, 0.0).astype(np.float32)

    def filtered(self, x_NC: Float32, past: Float32 | None = None) -> Float32:
        """(N, C · FILTERS) filters of :meth:`rooted` signals.

        Args:
            x_NC: rooted signals.
            past: ((steps − 1) · stride, C) those before them (default: at rest).
        """
        taps, stride = filter_taps(self.stride * self.bin_ms), self.stride
        reach = (taps.shape[1] - 1) * stride
        past = np.zeros((reach, x_NC.shape[1]), np.float32) if past is None else past
        joined, bins = np.concatenate((past, x_NC)), len(x_NC)
        if bins == 1:  # a live push: one product instead of a loop over lags
            return np.ascontiguousarray((taps @ joined[::-stride]).T).reshape(1, -1)
        out = np.zeros((bins, x_NC.shape[1], FILTERS), np.float32)
        for lag in range(taps.shape[1]):
            shifted = joined[reach - lag * stride : reach - lag * stride + bins]
            for k in np.flatnonzero(taps[:, lag] > 1e-6):
                out[:, :, k] += taps[k, lag] * shifted
        return out.reshape(bins, -1)

    def scaled(self, filtered_NF: Float32) -> Float32:
        """z-scores of filtered signals, clipped."""
        return np.asarray(np.clip((filtered_NF - self.mean) / self.sd, -Z_CLIP, Z_CLIP), dtype=np.float32)

    def features(self, signals_NC: Array, segments: Segments) -> Float32:
        """(N, C · FILTERS) z-scored features of a session; 0 outside of the segments, at rest before each."""
        out = np.zeros((len(signals_NC), len(self.mean)), np.float32)
        for a, b in segments:
            out[a:b] = self.scaled(self.filtered(self.rooted(signals_NC[a:b])))
        return out
