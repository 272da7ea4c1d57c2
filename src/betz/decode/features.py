"""Causal features of signals, the same for a whole session and for one bin: robust z-scores and exponential filters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import DataError
from betz.core.prediction import Array
from betz.core.session import Channel

Float = NDArray[np.float64]

SD_FLOOR = 0.3
"""Standard deviations are floored at this share of the median one: a near-dead channel that wakes up after the
calibration otherwise dominates every prediction (R² of −20 … −160 was measured)."""
Z_CLIP = 8.0


def floored(sd_CX: Float, channels: Sequence[Channel]) -> Float:
    """Standard deviations of X features a channel, floored; 1 where nothing varies.

    The floor is taken within counts, and within power channels of one unit: their scales are unrelated.
    """
    out = sd_CX.copy()
    scale = np.array(["count" if c.kind != "power" else f"power {c.unit}" for c in channels])
    for name in np.unique(scale):
        same = scale == name
        live = out[same & (out > 0).all(axis=1)]
        if len(live):
            out[same] = np.maximum(out[same], SD_FLOOR * np.median(live, axis=0))
    out[out == 0] = 1.0
    return out


@dataclass(frozen=True, eq=False)
class Scaler:
    """Robust z-scores of channels, fitted on calibration signals.

    Args:
        mean: (C,) float64.
        sd: (C,) float64, floored.
    """

    mean: Float
    sd: Float

    @classmethod
    def fit(cls, signals_NC: Array, channels: Sequence[Channel]) -> Scaler:
        """Mean and standard deviation of each channel, :func:`floored`.

        Raises:
            DataError: no channel varies.
        """
        mean, sd = _moments(signals_NC)
        if not np.any(sd > 0):
            raise DataError(
                f"all {len(channels)} channels are dead: none varies in the calibration.",
                where="calibration",
                remedy="check the channel selection, the reference and the recording",
            )
        return cls(mean, floored(sd[:, None], channels)[:, 0])

    def apply(self, signals: Array, present: NDArray[np.bool_] | None = None) -> Float:
        """Z-scores (…, C) clipped at ±8; 0, the calibration mean, where ``present`` (…) is False."""
        z = np.clip((signals - self.mean) / self.sd, -Z_CLIP, Z_CLIP)
        if present is not None and not present.all():
            z[~present] = 0.0
        return np.asarray(z)


def _moments(signals_NC: Array) -> tuple[Float, Float]:
    """Mean and standard deviation of each column, in pieces: an hour of uint8 must not become float64 at once."""
    number, total, square = 0, np.zeros(signals_NC.shape[1]), np.zeros(signals_NC.shape[1])
    shift = signals_NC[:1].astype(np.float64).ravel()  # against cancellation in large, nearly constant power
    for piece in _pieces(signals_NC):
        z = piece - shift
        number += len(z)
        total += z.sum(axis=0)
        square += (z**2).sum(axis=0)
    mean = total / number
    return mean + shift, np.sqrt(np.maximum(square / number - mean**2, 0))


def _pieces(signals_NC: Array, size: int = 16384) -> Iterator[Float]:
    for start in range(0, len(signals_NC), size):
        yield signals_NC[start : start + size].astype(np.float64)


def decay(tau_ms: float, bin_ms: float) -> float:
    """Share of an exponential filter's value that is left after one bin."""
    return float(np.exp(-bin_ms / tau_ms)) if tau_ms > 0 else 0.0


def exponential(z_BNC: Float, keep: float, last_BC: Float) -> Float:
    """Causal exponential filter e(t) = keep · e(t−1) + (1 − keep) · z(t), along axis 1.

    Args:
        z_BNC: input.
        keep: see :func:`decay`; 0 = no filter.
        last_BC: e before the first bin.
    """
    if keep == 0.0:
        return z_BNC
    from scipy.signal import lfilter

    filtered, _ = lfilter([1 - keep], [1, -keep], z_BNC, axis=1, zi=keep * last_BC[:, None])
    return np.asarray(filtered)


def counting(channels: Sequence[Channel]) -> NDArray[np.bool_]:
    """(C,) whether a channel holds counts."""
    return np.array([c.kind != "power" for c in channels])


def square_root(signals: Array, counting_C: NDArray[np.bool_]) -> Float:
    """Square roots of counts, whose variance then hardly depends on the rate (Anscombe 1948); power as it is."""
    values = signals.astype(np.float64)  # before the root: that of uint8 is computed in half precision
    return np.asarray(np.sqrt(values, where=counting_C, out=values))
