"""What a calibration tells the generalist about itself: numbers of the context and of each channel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from betz.core.prediction import Array
from betz.core.session import Channel
from betz.decode.bank import BankFit
from betz.decode.closed_form import Segments
from betz.decode.filterbank import FILTERS, STEP_MS, stride_of
from betz.model.generalist import CHANNEL, CONTEXT, HISTORY_FROM, RESIDUALS, STRENGTHS

Float32 = NDArray[np.float32]

TYPICAL_CHANNELS = 96


def context_of(fit: BankFit, *, history: bool, channels: int, bin_ms: float) -> Float32:
    """(D, CONTEXT) cross-validated R², minutes, step width, and numbers of channels.

    Args:
        fit: closed-form decodes of a group.
        history: whether its history may be used.
        channels: C.
        bin_ms: bin width.
    """
    out = np.zeros((len(fit.r2), CONTEXT), np.float32)
    alone = fit.r2[:, :STRENGTHS]
    out[:, :STRENGTHS] = alone
    out[:, STRENGTHS] = alone.max(axis=1)
    out[:, STRENGTHS + 1] = alone.mean(axis=0).max()
    used = history and fit.history
    if used:
        out[:, STRENGTHS + 2 : STRENGTHS + 2 + RESIDUALS] = fit.r2[:, -RESIDUALS:]
        out[:, STRENGTHS + 2 + RESIDUALS] = fit.r2[:, HISTORY_FROM]
    step_ms = stride_of(bin_ms) * bin_ms
    out[:, -4] = np.log(fit.bins * bin_ms / 60e3 + 0.1) / 2
    out[:, -3] = np.log(step_ms / STEP_MS)
    out[:, -2] = float(used)
    out[:, -1] = np.log(channels / TYPICAL_CHANNELS)
    return out


def certainty_of(bins: int, bin_ms: float) -> float:
    """Grows with the root of labelled steps."""
    return float(np.sqrt(max(bins / stride_of(bin_ms), 1) / 5) / 10)


def channel_statistics(signals_NC: Array, segments: Segments, channels: Sequence[Channel], bin_ms: float) -> Float32:
    """(C, 3) of count channels log rate and Fano factor in steps of 50 ms, and whether a channel is power."""
    stride = stride_of(bin_ms)
    parts = []
    for a, b in segments:
        whole = (b - a) // stride * stride
        if whole:
            parts.append(np.asarray(signals_NC[a : a + whole], np.float64).reshape(-1, stride, len(channels)).sum(1))
    steps = np.concatenate(parts) if parts else np.zeros((1, len(channels)))
    mean, variance = steps.mean(axis=0), steps.var(axis=0)
    power = np.array([c.kind == "power" for c in channels])
    rate = np.log(np.maximum(mean, 0) * 1000 / (stride * bin_ms) + 0.3) - 2
    fano = np.clip(variance / (mean + 1e-3) - 1, -2, 5)
    return np.stack((np.where(power, 0, rate), np.where(power, 0, fano), power), axis=1).astype(np.float32)


def channel_numbers(statistics_C3: Float32, context_DX: Float32) -> Float32:
    """(C, CHANNEL) statistics of each channel, and what of the context is common to all dimensions."""
    out = np.empty((len(statistics_C3), CHANNEL), np.float32)
    out[:, :2], out[:, 2:6], out[:, 6] = statistics_C3[:, :2], context_DX[0, -4:], statistics_C3[:, 2]
    return out


def identity_of(fit: BankFit, *, history: bool) -> Float32:
    """(C, D, IDENTITY) of a fit, without its history where that is not to be used."""
    if history or not fit.history:
        return fit.identity
    out = fit.identity.copy()
    out[..., 3 * FILTERS :] = 0
    return out
