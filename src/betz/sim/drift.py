"""From one day to the next: preferred directions, depths and rates wander, channels fall silent and others wake up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import ConfigError
from betz.core.seeds import SeedTree
from betz.sim.tuning import SILENT, Kind, Population, draw_population

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]

TURN_DEG, GAIN_SD, BASELINE_SD = 17.0, 0.4, 0.55
"""Standard deviation of the change in a day: of a preferred direction, and of the logarithms of a channel's depths and
of its rate at rest."""
KEPT = 0.6
"""Share of a change that is left a day later: as in real arrays, changes level off, at 1.25 × those of a day."""
LOST = 0.02
"""Share of the active channels that fall silent in a day."""
WOKEN = LOST * (1 - SILENT) / SILENT
"""Share of the silent channels that wake up in a day: as many as are lost."""
LOST_HZ = 0.05


@dataclass(frozen=True, eq=False)
class Drift:
    """What changed since day 0; every field but ``day`` has one entry a channel.

    Args:
        day: number of the day.
        turned_deg: preferred directions (velocity and position) turned by so much, counter-clockwise.
        gain: depths are multiplied by it.
        baseline: rates at rest are multiplied by it (1 in the mean).
        lost: active on day 0, silent on this day.
        gained: silent on day 0, active on this day, with a tuning of its own.
    """

    day: int
    turned_deg: Float
    gain: Float
    baseline: Float
    lost: Mask
    gained: Mask


def drift(population: Population, day: int, seeds: SeedTree) -> Drift:
    """The changes up to a day: a random walk that is drawn back, so day 5 follows from day 4.

    Args:
        population: of day 0.
        day: 0 = no change.
        seeds: of the subject.

    Raises:
        ConfigError: the day is below 0.
    """
    if day < 0:
        raise ConfigError(f"day {day} is before the array was implanted.", where="drift", remedy="day 0 is the first")
    channels = len(population)
    born_active = np.array([kind != "silent" for kind in population.kind])
    active, walk_C3 = born_active, np.zeros((channels, 3))
    for number in range(1, day + 1):
        rng = seeds.generator("drift", item=number)
        walk_C3 = KEPT * walk_C3 + rng.standard_normal((channels, 3)) * (TURN_DEG, GAIN_SD, BASELINE_SD)
        flips = seeds.generator("drift_kinds", item=number).random(channels) < np.where(active, LOST, WOKEN)
        active = active ^ flips
    variance = BASELINE_SD**2 * (1 - KEPT ** (2 * day)) / (1 - KEPT**2)
    return Drift(
        day=day,
        turned_deg=walk_C3[:, 0],
        gain=np.exp(walk_C3[:, 1]),
        baseline=np.exp(walk_C3[:, 2] - variance / 2),
        lost=born_active & ~active,
        gained=active & ~born_active,
    )


def drifted(population: Population, change: Drift, seeds: SeedTree) -> Population:
    """The population of day 0 after a change.

    Args:
        population: of day 0.
        change: see :func:`drift`.
        seeds: of the subject; they decide what a channel that wakes up is tuned to.
    """
    woken = draw_population(len(population), seeds.generator("woken"), silent=0.0)

    def pick(name: str) -> NDArray[Any]:
        return np.asarray(np.where(change.gained, getattr(woken, name), getattr(population, name)))

    kind = np.where(change.lost, "silent", pick("kind"))
    depth = change.gain * ~change.lost
    return replace(
        population,
        kind=cast(tuple[Kind, ...], tuple(kind.tolist())),
        baseline_hz=np.where(change.lost, LOST_HZ, pick("baseline_hz") * change.baseline),
        preferred_deg=(pick("preferred_deg") + change.turned_deg) % 360,
        position_deg=(pick("position_deg") + change.turned_deg) % 360,
        velocity_depth=pick("velocity_depth") * depth,
        speed_depth=pick("speed_depth") * depth,
        position_depth=pick("position_depth") * depth,
        latency_ms=pick("latency_ms"),
    )
