"""Filters of regularly sampled values, causal or not, each with its group delay at zero frequency.

A filter sees one stretch at a time: regular samples, all known, without a gap. What it cannot know at the ends of a
stretch is NaN (differences) or treated as said below; nothing is ever taken from another stretch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import ConfigError

Float = NDArray[np.float64]
KERNEL_SD = 4.0
"""Gaussian kernels reach this many standard deviations."""


@dataclass(frozen=True)
class Filter:
    """What is done to one stretch.

    Args:
        apply: (M, K) samples to (M, K) values, M ≥ 1.
        delay: group delay at zero frequency in samples, positive = the value comes late.
    """

    apply: Callable[[Float], Float]
    delay: float


def identity() -> Filter:
    """Leaves the values as they are."""
    return Filter(lambda x_MK: x_MK, 0.0)


def backward_difference(rate_hz: float) -> Filter:
    """Change since the sample before, per second; half a sample late. NaN at the first sample."""

    def apply(x_MK: Float) -> Float:
        out_MK = np.full_like(x_MK, np.nan)
        out_MK[1:] = (x_MK[1:] - x_MK[:-1]) * rate_hz
        return out_MK

    return Filter(apply, 0.5)


def central_difference(rate_hz: float) -> Filter:
    """Half the change from the sample before to the one after, per second. NaN at the first and the last sample."""

    def apply(x_MK: Float) -> Float:
        out_MK = np.full_like(x_MK, np.nan)
        out_MK[1:-1] = (x_MK[2:] - x_MK[:-2]) * (rate_hz / 2)
        return out_MK

    return Filter(apply, 0.0)


def butterworth(cutoff_hz: float, rate_hz: float, *, order: int, causal: bool) -> Filter:
    """Butterworth low-pass, forwards only, or forwards and backwards (then −6 dB at the cutoff, no delay).

    Forwards, a stretch begins as if its first value had always been there; backwards too, the stretch is continued at
    both ends by its point reflection, which keeps a linear course.

    Raises:
        ConfigError: the cutoff is not between 0 and half the sampling rate, or the order is not 1 to 8.
    """
    from scipy.signal import butter, sosfilt, sosfilt_zi, sosfiltfilt

    if not 0 < cutoff_hz < rate_hz / 2:
        raise ConfigError(
            f"a cutoff of {cutoff_hz:g} Hz is impossible for values sampled at {rate_hz:g} Hz.",
            where="low-pass",
            remedy=f"give a cutoff above 0 and below {rate_hz / 2:g} Hz",
        )
    if not 1 <= order <= 8:
        raise ConfigError(f"an order of {order} is impossible.", where="low-pass", remedy="give 1 to 8")
    sos = butter(order, cutoff_hz, fs=rate_hz, output="sos")
    settled = sosfilt_zi(sos)[:, :, None]
    margin = max(3 * (2 * len(sos) + 1), int(np.ceil(3 * rate_hz / cutoff_hz)))

    def forwards(x_MK: Float) -> Float:
        return np.asarray(sosfilt(sos, x_MK, axis=0, zi=settled * x_MK[None, :1])[0])

    def both(x_MK: Float) -> Float:
        return np.asarray(sosfiltfilt(sos, x_MK, axis=0, padlen=min(margin, len(x_MK) - 1)))

    return Filter(forwards, _delay_of(sos)) if causal else Filter(both, 0.0)


def _delay_of(sos: Float) -> float:
    """Group delay at zero frequency in samples: of a ratio of polynomials Σ n·bₙ / Σ bₙ − Σ n·aₙ / Σ aₙ."""
    order = np.arange(3)
    b, a = sos[:, :3], sos[:, 3:]
    return float(((b @ order) / b.sum(axis=1) - (a @ order) / a.sum(axis=1)).sum())


def gaussian(sd: float, *, causal: bool) -> Filter:
    """Weighted mean of the samples around, or of the present and earlier ones alone (half a Gaussian).

    Near the ends of a stretch the weights of the samples that there are add up to one.

    Args:
        sd: standard deviation of the full Gaussian in samples.
        causal: whether later samples have no weight.

    Raises:
        ConfigError: the standard deviation is not above 0.
    """
    if not (np.isfinite(sd) and sd > 0):
        raise ConfigError(
            f"a standard deviation of {sd:g} samples is impossible.", where="smoothing", remedy="give > 0"
        )
    reach = max(1, int(np.ceil(KERNEL_SD * sd)))
    lag = np.arange(0 if causal else -reach, reach + 1)
    weight = np.exp(-0.5 * (lag / sd) ** 2)
    weight /= weight.sum()
    ahead = 0 if causal else reach

    def convolved(x_MK: Float) -> Float:
        """Direct, each value from the same sum: later samples do not even touch the rounding of earlier values."""
        padded_MK = np.pad(x_MK, ((reach, ahead), (0, 0)))
        return np.stack([np.convolve(column, weight, mode="valid") for column in padded_MK.T], axis=1)

    def apply(x_MK: Float) -> Float:
        return convolved(x_MK) / convolved(np.ones((len(x_MK), 1)))

    return Filter(apply, float(weight @ lag))
