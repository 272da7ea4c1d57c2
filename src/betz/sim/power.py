"""Spike-band power of electrodes: what is left of spikes, near and far, when nobody sets a threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from betz.core.seeds import SeedTree
from betz.sim.latents import ornstein_uhlenbeck

Float = NDArray[np.float64]

UNIT = "uV^2"
FLOOR_UV2, FLOOR_SD = 25.0, 0.4
"""Power without any spike near: median over electrodes and sd of its logarithm."""
PER_HZ_UV2, PER_HZ_SD = 0.8, 0.5
"""Power that a spike a second of the electrode's own channel adds: median and sd of its logarithm."""
NEIGHBOUR = 0.25
"""Share of it that spikes of the electrodes beside it add."""
BANDWIDTH_HZ = 700.0
"""Of the band: power of a bin is a mean over about 2 · bandwidth · bin independent squares."""
COMMON_S, COMMON_SD = 2.0, 0.05
"""Slow change of all electrodes alike (reference, movement), of the log power."""


@dataclass(frozen=True, eq=False)
class PowerTruth:
    """How the power of each electrode is made.

    Args:
        floor_uV2: (C,) without spikes.
        per_hz_uV2: (C,) added by one spike a second of the electrode's own channel.
        mixing_CC: power of electrode c without noise is floor + rates · mixing[:, c].
    """

    floor_uV2: Float
    per_hz_uV2: Float
    mixing_CC: Float

    def mean_NC(self, rates_NC: Float) -> Float:
        """(N, C) power without noise, from rates in Hz."""
        out_NC = np.tile(self.floor_uV2, (len(rates_NC), 1))
        for c, weights_C in enumerate(self.mixing_CC.T):
            for other in np.flatnonzero(weights_C):  # no matrix product: its last digits depend on N
                out_NC[:, c] += weights_C[other] * rates_NC[:, other]
        return out_NC


def draw_power_truth(arrays: tuple[str, ...], seeds: SeedTree) -> PowerTruth:
    """What a subject's electrodes have for good; ``arrays``: (C,) array of each, neighbours are in one array."""
    channels = len(arrays)
    normal = seeds.generator("power").standard_normal((channels, 2))
    per_hz = PER_HZ_UV2 * np.exp(PER_HZ_SD * normal[:, 1])
    beside = np.eye(channels, k=1) + np.eye(channels, k=-1)
    same = np.array([[a == b for b in arrays] for a in arrays])
    mixing = per_hz[:, None] * (np.eye(channels) + NEIGHBOUR / 2 * beside * same)
    return PowerTruth(FLOOR_UV2 * np.exp(FLOOR_SD * normal[:, 0]), per_hz, mixing)


def draw_power(rates_NC: Float, truth: PowerTruth, *, bin_s: float, seeds: SeedTree) -> NDArray[np.float32]:
    """(N, C) spike-band power of each bin in uV², from the rates that also make the spikes.

    Args:
        rates_NC: mean rate of each electrode's channel in each bin, Hz.
        truth: of the electrodes.
        bin_s: length of a bin.
        seeds: of the day; more bins begin like fewer.
    """
    num_bins, channels = rates_NC.shape
    common = np.exp(COMMON_SD * ornstein_uhlenbeck(num_bins, [COMMON_S], bin_s, seeds.generator("power_common"))[0])
    mean_NC, shape = truth.mean_NC(rates_NC), BANDWIDTH_HZ * bin_s
    power_NC = np.empty((num_bins, channels), dtype=np.float32)
    for c in range(channels):
        noise = seeds.generator("power", item=c).standard_gamma(shape, num_bins) / shape
        power_NC[:, c] = mean_NC[:, c] * common * noise
    return power_NC


def binned_rates(rate_T: Float, edges: NDArray[np.int64], *, step_ticks: int) -> Float:
    """(N,) mean of a rate, constant in steps, between ascending ticks (N + 1,)."""
    at = np.arange(len(rate_T) + 1) * float(step_ticks)
    total = np.interp(edges, at, np.concatenate(([0.0], np.cumsum(rate_T * step_ticks))))
    return np.asarray(np.diff(total) / np.diff(edges))
