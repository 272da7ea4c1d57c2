"""Simulated sessions: tuned populations that spike while a hand reaches, with the truth that no recording has.

The default is about as hard to decode as real arrays; ``docs/background/simulator.md`` compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from betz.core.config import frozen_config
from betz.core.errors import ConfigError
from betz.core.seeds import SeedTree
from betz.core.session import Channel, Provenance, Session
from betz.core.timegrid import BinGrid, Ticks
from betz.sim.drift import Drift, drift, drifted
from betz.sim.latents import PRIVATE_SD, loadings_CL, private_CT, shared_LT
from betz.sim.tasks import SAMPLE_HZ, TICK_HZ, TICKS_PER_SAMPLE, Task, perform
from betz.sim.tuning import MAX_HZ, Population, draw_population, features_FM

Float = NDArray[np.float64]

STEP_TICKS = 300
"""Rates are constant for 10 ms."""
REFRACTORY_TICKS = 30
"""No channel spikes twice within 1 ms."""
MARGIN_S = 0.2
"""The hand moves on for so long after the recording, since rates lead the movement."""


@frozen_config
class Simulation:
    """Settings of a simulated session.

    Args:
        minutes: length.
        channels: of the array.
        bin_ms: bin width of the session (spike ticks are kept, so others can be had by ``rebinned``).
        task: ``random_target`` (self-paced, in a square of 10 cm) or ``center_out`` (8 targets at 8 cm).
    """

    minutes: float = 8.0
    channels: int = 96
    bin_ms: float = 20.0
    task: Task = "random_target"

    def __post_init__(self) -> None:
        if not (0 < self.minutes <= 600 and 1 <= self.channels <= 10_000 and self.bin_ms > 0):
            raise ConfigError(
                f"{self.minutes:g} minutes, {self.channels} channels and bins of {self.bin_ms:g} ms are impossible.",
                where="Simulation settings",
                remedy="at most 600 minutes and 10,000 channels, all above 0",
            )


@dataclass(frozen=True, eq=False)
class Truth:
    """What the decoder does not know.

    Args:
        population: the channels as they were on this day.
        drift: what changed since the subject's day 0.
        mean_hz: (C,) mean of each channel's rate over the session.
    """

    population: Population
    drift: Drift
    mean_hz: Float


@dataclass(frozen=True, eq=False)
class Simulated:
    """A session and its truth."""

    session: Session
    truth: Truth


def simulate(
    simulation: Simulation | None = None, *, seed: int = 0, day: int = 0, subject: str | None = None
) -> Simulated:
    """A session of one subject on one day.

    Args:
        simulation: settings.
        seed: with the subject's name it decides the population; with the day also movement and spikes.
        day: 0 is the day on which the array was as drawn.
        subject: name; default ``sim_<seed>``.

    >>> made = simulate(Simulation(minutes=0.1, channels=8), seed=1)
    >>> made.session.id, len(made.truth.population), [d.name for d in made.session.dims]
    ('sim_1_day0', 8, ['hand_x', 'hand_y', 'hand_vx', 'hand_vy'])
    """
    simulation = simulation or Simulation()
    name = subject if subject is not None else f"sim_{seed}"
    seeds = SeedTree(seed).child("subject", item=name)
    born = draw_population(simulation.channels, seeds.generator("population"))
    change = drift(born, day, seeds)
    population = drifted(born, change)
    today = seeds.child("day", item=day)
    grid = BinGrid.from_ms(simulation.bin_ms, tick_hz=TICK_HZ)
    bins = max(grid.bins_in(simulation.minutes), 1)
    end = bins * grid.ticks_per_bin
    steps = -(-end // STEP_TICKS)
    movement = perform(
        simulation.task, seconds=steps * STEP_TICKS / TICK_HZ, margin_s=MARGIN_S, seeds=today.child("task")
    )
    rates_CT = _rates(population, born, movement.values_MK, steps, seeds, today)
    spikes = tuple(_spikes(rate_T, end, today.generator("spikes", item=c)) for c, rate_T in enumerate(rates_CT))
    session = Session(
        id=f"{name}_day{day}",
        subject=name,
        grid=grid,
        num_bins=bins,
        channels=tuple(Channel(f"ch{c + 1}") for c in range(simulation.channels)),
        spikes=spikes,
        behavior=(movement.series(-(-end // TICKS_PER_SAMPLE)),),
        trials=movement.trials,
        task=simulation.task,
        tags={"day": str(day)},
        provenance=Provenance(
            source="simulated", importer="sim", options={"seed": seed, "day": day, "task": simulation.task}
        ),
        licence="CC0-1.0",
    )
    return Simulated(session, Truth(population, change, rates_CT.mean(axis=1)))


def simulate_subjects(
    simulation: Simulation | None = None, *, subjects: int = 2, days: int = 2, seed: int = 0
) -> list[Simulated]:
    """Several subjects, each with an array of its own, on several days with drift between them.

    Raises:
        ConfigError: a number is below 1.
    """
    if subjects < 1 or days < 1:
        raise ConfigError(
            f"{subjects} subjects on {days} days are nothing.", where="simulate_subjects", remedy="both at least 1"
        )
    return [
        simulate(simulation, seed=seed, day=day, subject=f"sim_{seed}_{number}")
        for number in range(subjects)
        for day in range(days)
    ]


def _rates(
    population: Population, born: Population, values_MK: Float, steps: int, seeds: SeedTree, today: SeedTree
) -> Float:
    """(C, T) rates in Hz in steps of 10 ms."""
    step_s = STEP_TICKS / TICK_HZ
    samples = round(step_s * SAMPLE_HZ)
    features, weights = features_FM(values_MK), population.weights_CF()
    loadings = loadings_CL(born, seeds.generator("loadings"))
    shared = shared_LT(steps, step_s, today.generator("latents"))
    private = private_CT(steps, step_s, len(population), today.generator("private"))
    active_C = np.array([kind != "silent" for kind in population.kind])
    loadings = loadings * active_C[:, None]
    rates_CT = np.empty((len(population), steps))
    for c in range(len(population)):
        first = samples // 2 + int(population.latency_ms[c])
        drive = weights[c] @ features[:, first : first + samples * steps : samples] + loadings[c] @ shared
        drive += active_C[c] * private[c]
        surplus = (loadings[c] ** 2).sum() / 2 + active_C[c] * PRIVATE_SD**2 / 2  # of the mean of exp over its median
        rate = population.baseline_hz[c] * np.exp(drive - surplus)
        rates_CT[c] = rate / (1 + rate / MAX_HZ)
    return rates_CT


def _spikes(rate_T: Float, end: int, rng: np.random.Generator) -> Ticks:
    """Spike ticks of a Poisson process with this rate and a refractory period; the mean rate is kept.

    Unit exponential steps in expected spikes are put where the summed rate reaches them (time rescaling).
    """
    dead_s = REFRACTORY_TICKS / TICK_HZ
    expected = np.concatenate(([0.0], np.cumsum(rate_T / (1 - rate_T * dead_s)) * STEP_TICKS / TICK_HZ))
    number = int(expected[-1] + 8 * np.sqrt(expected[-1]) + 20)
    at = np.cumsum(rng.standard_exponential(number))
    ticks = np.interp(at[at < expected[-1]], expected, np.arange(len(expected)) * float(STEP_TICKS)).astype(np.int64)
    while ticks.size:
        close = np.diff(ticks) < REFRACTORY_TICKS
        if not close.any():
            break
        close[1:] &= ~close[:-1]  # of a burst, drop every second one and look again
        ticks = np.delete(ticks, np.flatnonzero(close) + 1)
    return cast(Ticks, ticks[ticks < end])
