"""From one day to the next: preferred directions, depths and rates wander, channels fall silent or come back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from betz.core.seeds import SeedTree
from betz.sim.tuning import Kind, Population

Float = NDArray[np.float64]

TURN_DEG = 8.0
"""Standard deviation of the change of a preferred direction in a day."""
GAIN_SD, BASELINE_SD = 0.08, 0.15
"""Of the logarithm of a channel's depths, and of its baseline rate, in a day."""
LOST = 0.02
"""Share of active channels that fall silent in a day; as many of those lost before come back."""
LOST_HZ = 0.05


@dataclass(frozen=True, eq=False)
class Drift:
    """What changed since day 0; every field has one entry a channel.

    Args:
        day: number of the day.
        turned_deg: preferred directions turned by so much.
        gain: depths are multiplied by it.
        baseline: rates at rest are multiplied by it.
        lost: the channel is silent on this day, and was active on day 0.
    """

    day: int
    turned_deg: Float
    gain: Float
    baseline: Float
    lost: NDArray[np.bool_]


def drift(population: Population, day: int, seeds: SeedTree) -> Drift:
    """The changes up to a day: a random walk, so day 5 goes through what day 3 was.

    Args:
        population: of day 0.
        day: 0 = no change.
        seeds: of the subject.
    """
    channels = len(population)
    active = np.array([kind != "silent" for kind in population.kind])
    turned, gain, baseline = np.zeros(channels), np.zeros(channels), np.zeros(channels)
    lost = np.zeros(channels, dtype=bool)
    for number in range(1, day + 1):
        rng = seeds.generator("drift", item=number)
        normal, uniform = rng.standard_normal((3, channels)), rng.random((2, channels))
        turned += TURN_DEG * normal[0]
        gain += GAIN_SD * normal[1]
        baseline += BASELINE_SD * normal[2]
        back = lost & (uniform[1] < 0.25)
        lost = (lost | (active & (uniform[0] < LOST))) & ~back
    return Drift(day, turned, np.exp(gain), np.exp(baseline), lost)


def drifted(population: Population, change: Drift) -> Population:
    """The population after a change; lost channels are silent."""
    kind: tuple[Kind, ...] = tuple(
        "silent" if gone else was for gone, was in zip(change.lost, population.kind, strict=True)
    )
    depth = change.gain * ~change.lost
    return replace(
        population,
        kind=kind,
        baseline_hz=np.where(change.lost, LOST_HZ, population.baseline_hz * change.baseline),
        preferred_deg=(population.preferred_deg + change.turned_deg) % 360,
        position_deg=(population.position_deg + change.turned_deg) % 360,
        velocity_depth=population.velocity_depth * depth,
        speed_depth=population.speed_depth * depth,
        position_depth=population.position_depth * depth,
    )
