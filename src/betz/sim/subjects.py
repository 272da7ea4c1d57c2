"""A simulated subject on one day: the channels of its arrays as they have drifted, and the seeds of everything else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from betz.core.seeds import SeedTree
from betz.sim.drift import Drift, drift, drifted
from betz.sim.tuning import Population, draw_population

ARRAY_NAMES = "ABCDEFGH"


@dataclass(frozen=True, eq=False)
class Subject:
    """Who is recorded, and when.

    Args:
        name, day: of subject and day.
        population: all channels on this day, array by array.
        change: what drifted since day 0.
        of_subject: seeds of what a subject keeps.
        of_day: seeds of the day.
    """

    name: str
    day: int
    population: Population
    change: Drift
    of_subject: SeedTree
    of_day: SeedTree


def subject_on_day(name: str, *, channels: int, arrays: int, seed: int, day: int) -> Subject:
    """The subject of a seed on a day.

    Args:
        name: with the seed it decides the population.
        channels: of each array.
        arrays: further ones do not change the first.
        seed: see there.
        day: 0 is the day on which the arrays were as drawn.

    Raises:
        ConfigError: the day is below 0.
    """
    of_subject = SeedTree(seed).child("subject", item=name)
    populations, changes = [], []
    for k in range(arrays):
        seeds = of_subject if k == 0 else of_subject.child("array", item=k)
        born = draw_population(channels, seeds.generator("population"))
        change = drift(born, day, seeds)
        populations.append(drifted(born, change, seeds))
        changes.append(change)
    return Subject(name, day, _joined(populations), _joined(changes), of_subject, of_subject.child("day", item=day))


def _joined(parts: Sequence[Any]) -> Any:
    """Dataclasses of one entry a channel, put together; numbers are those of the first."""
    if len(parts) == 1:
        return parts[0]

    def join(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        if isinstance(values[0], tuple):
            return tuple(x for value in values for x in value)
        return np.concatenate(values) if isinstance(values[0], np.ndarray) else values[0]

    return type(parts[0])(**{field.name: join(field.name) for field in fields(parts[0])})
