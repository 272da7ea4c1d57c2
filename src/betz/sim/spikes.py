"""Spike times from rates: an inhomogeneous Poisson process with a refractory period, on integer ticks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from betz.core.timegrid import Ticks

Float = NDArray[np.float64]

REFRACTORY_S = 0.001
"""No channel spikes twice within it, unless another period is asked for."""
MAX_HZ = 250.0
"""Where rates level off."""


def soft_limit(rate_hz: Float) -> Float:
    """Rates that level off at 250 Hz: r / (1 + r / 250)."""
    return np.asarray(rate_hz / (1 + rate_hz / MAX_HZ))


def draw_spikes(
    rate_T: Float, *, step_ticks: int, tick_hz: int, rng: np.random.Generator, refractory_s: float = REFRACTORY_S
) -> Ticks:
    """Spike ticks of a channel; a longer rate begins like a shorter one of the same generator.

    Time rescaling: unit exponential steps in expected spikes are put where the summed rate reaches them. The
    refractory period then takes spikes away, so the process is drawn at r / (1 − r · period), which leaves the rate r.

    Args:
        rate_T: (T,) rates in Hz, positive and below 1 / (refractory period), constant in steps.
        step_ticks: ticks in a step.
        tick_hz: ticks per second.
        rng: of this channel and session alone.
        refractory_s: no two spikes are closer.

    Returns:
        Ascending int64 ticks in [0, T · step_ticks), at least the refractory period apart.
    """
    drawn_T = rate_T / (1 - rate_T * refractory_s)
    edge_expected = np.concatenate(([0.0], np.cumsum(drawn_T) * (step_ticks / tick_hz)))
    total = edge_expected[-1]
    at = np.cumsum(rng.standard_exponential(int(total + 8 * np.sqrt(total) + 20)))
    edge_ticks = np.arange(len(edge_expected)) * float(step_ticks)
    ticks = np.interp(at[at < total], edge_expected, edge_ticks).astype(np.int64)
    return _thinned(ticks, max(round(refractory_s * tick_hz), 1))


def _thinned(ticks: Ticks, gap: int) -> Ticks:
    """Ticks without those that come too soon after the last one that is kept."""
    while True:
        close = np.diff(ticks) < gap
        if not close.any():
            return ticks
        close[1:] &= ~close[:-1]  # the first of a burst after a kept one goes; the rest is looked at again
        ticks = np.delete(ticks, np.flatnonzero(close) + 1)
