"""From what was done to signals: rates of all channels, spikes regular or not, power, disturbances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from betz.core.seeds import SeedTree
from betz.core.timegrid import BinGrid, Ticks
from betz.sim.disturbances import Event, disturbed, recorded_from, swapped_spikes, turns
from betz.sim.encoding import Encoding
from betz.sim.irregular import History, draw_history_spikes, gamma_gain
from betz.sim.latents import Background
from betz.sim.power import PowerTruth, binned_rates, draw_power, draw_power_truth
from betz.sim.spikes import draw_spikes, soft_limit
from betz.sim.tasks import SAMPLE_HZ, TICK_HZ

Float = NDArray[np.float64]

STEP_S = 0.01
"""Rates are constant for so long."""
STEP_TICKS = round(STEP_S * TICK_HZ)
STEP_SAMPLES = round(STEP_S * SAMPLE_HZ)
DISPERSION_STEPS = 5
"""Over-dispersed rates keep their gamma factor for so many steps, 50 ms."""


@dataclass(frozen=True)
class Irregularity:
    """How spikes scatter around a rate.

    Args:
        overdispersion: variance of a gamma factor of the rate, anew every 50 ms; 0 = Poisson.
        refractory_s: no two spikes of a channel are closer.
        history: kernels of a channel's own spikes; None = none.
    """

    overdispersion: float
    refractory_s: float
    history: History | None


@dataclass(frozen=True, eq=False)
class Recorded:
    """What was recorded.

    Args:
        spikes: ascending ticks of each channel, after swaps.
        mean_hz: (C,) mean rate of each electrode, before swaps and history effects.
        power_NC: (N, C) spike-band power, after swaps, or None.
        power: how it was made, or None.
        encodings: (tick, encoding from there on), more than one where tuning turned within the session.
    """

    spikes: tuple[Ticks, ...]
    mean_hz: Float
    power_NC: NDArray[np.float32] | None
    power: PowerTruth | None
    encodings: tuple[tuple[int, Encoding], ...]


def record(
    encoding: Encoding,
    features_FM: Float,
    background: Background,
    irregularity: Irregularity,
    *,
    events: Sequence[Event],
    grid: BinGrid,
    num_bins: int,
    power_of: tuple[str, ...] | None,
    subject: SeedTree,
    day: SeedTree,
) -> Recorded:
    """Record a session, channel by channel to save memory.

    Args:
        encoding: how log rates follow the features, at the start.
        features_FM: features at 1 kHz, at least the longest latency longer than the session.
        background: what else moves the log rates.
        irregularity: of the spikes.
        events: disturbances in order of time.
        grid, num_bins: bins of the session; power has one value a bin.
        power_of: (C,) array of each electrode, if power is recorded.
        subject, day: seeds.
    """
    end = num_bins * grid.ticks_per_bin
    edges = grid.start_of(np.arange(num_bins + 1))
    encodings = _encodings(encoding, events, subject)
    spikes, mean_hz = [], np.empty(len(encoding))
    rates_NC = np.empty((num_bins, len(encoding))) if power_of is not None else None
    for c in range(len(encoding)):
        rate = rate_T(encodings, c, features_FM, background, irregularity, events, day)
        mean_hz[c] = rate.mean()
        ticks = _spikes(rate, irregularity, day.generator("spikes", item=c))
        spikes.append(ticks[: np.searchsorted(ticks, end)].copy())
        if rates_NC is not None:
            rates_NC[:, c] = binned_rates(rate, edges, step_ticks=STEP_TICKS)
    power_NC, power = None, None
    if rates_NC is not None and power_of is not None:
        power = draw_power_truth(power_of, subject)
        power_NC = _swapped(draw_power(rates_NC, power, bin_s=grid.bin_s, seeds=day), edges, events)
    return Recorded(swapped_spikes(spikes, events), mean_hz, power_NC, power, encodings)


def rate_T(
    encodings: Sequence[tuple[int, Encoding]],
    channel: int,
    features_FM: Float,
    background: Background,
    irregularity: Irregularity,
    events: Sequence[Event],
    day: SeedTree,
) -> Float:
    """(T,) rate of one channel in Hz, in steps of 10 ms."""
    log_rate_T = background.log_rate_T(channel)
    steps = len(log_rate_T)
    first = STEP_SAMPLES // 2 + int(encodings[0][1].latency_ms[channel])
    at = slice(first, first + steps * STEP_SAMPLES, STEP_SAMPLES)
    drive_T = _drive(encodings[0][1].weights_CF[channel], features_FM, at, log_rate_T)
    turned = {tick for tick, _ in turns(channel, events)}
    for tick, later in encodings[1:]:
        if tick in turned:
            step = tick // STEP_TICKS
            drive_T[step:] = _drive(later.weights_CF[channel], features_FM, at, log_rate_T)[step:]
    rate = encodings[0][1].baseline_hz[channel] * np.exp(drive_T)
    if irregularity.overdispersion > 0:
        rng = day.generator("overdispersion", item=channel)
        rate *= gamma_gain(steps, variance=irregularity.overdispersion, block=DISPERSION_STEPS, rng=rng)
    return soft_limit(disturbed(rate, channel, events, step_ticks=STEP_TICKS))


def _drive(weights_F: Float, features_FM: Float, at: slice, log_rate_T: Float) -> Float:
    drive_T = log_rate_T.copy()
    # One feature at a time: the sum of a step must not depend, in its last digit, on how many steps there are.
    for weight, feature_M in zip(weights_F, features_FM, strict=True):
        drive_T += weight * feature_M[at]
    return drive_T


def _spikes(rate: Float, irregularity: Irregularity, rng: np.random.Generator) -> Ticks:
    refractory_s = irregularity.refractory_s
    if irregularity.history is None:
        return draw_spikes(rate, step_ticks=STEP_TICKS, tick_hz=TICK_HZ, refractory_s=refractory_s, rng=rng)
    return draw_history_spikes(
        rate, irregularity.history, step_ticks=STEP_TICKS, tick_hz=TICK_HZ, refractory_s=refractory_s, rng=rng
    )


def _encodings(encoding: Encoding, events: Sequence[Event], subject: SeedTree) -> tuple[tuple[int, Encoding], ...]:
    """The encoding as it is from each turn on."""
    found, angle_C = [(0, encoding)], np.zeros(len(encoding))
    for event in events:
        if event.kind == "turn":
            angle_C = angle_C.copy()
            angle_C[event.channels] += event.amount
            found.append((event.tick, encoding.turned(angle_C, subject)))
    return tuple(found)


def _swapped(power_NC: NDArray[np.float32], edges: Ticks, events: Sequence[Event]) -> NDArray[np.float32]:
    """What channels record of the power of their electrodes; a swap within a bin counts from the next bin on."""
    out = power_NC
    for tick, source in recorded_from(power_NC.shape[1], events)[1:]:
        out = out.copy() if out is power_NC else out
        first = int(np.searchsorted(edges[:-1], tick))
        out[first:] = power_NC[first:, source]
    return out
