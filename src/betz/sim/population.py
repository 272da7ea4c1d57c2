"""Simulated sessions: tuned populations that spike while a hand reaches, with the truth that no recording has.

The default is about as hard to decode as real arrays; the background page on the simulator compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.config import frozen_config, to_dict
from betz.core.errors import ConfigError, DataError
from betz.core.seeds import SeedTree
from betz.core.session import Channel, Provenance, Session
from betz.core.timegrid import BinGrid, Ticks
from betz.sim.drift import Drift, drift, drifted
from betz.sim.latents import Background, draw_background
from betz.sim.spikes import draw_spikes, soft_limit
from betz.sim.tasks import SAMPLE_HZ, TICK_HZ, TICKS_PER_SAMPLE, Movement, Task, perform
from betz.sim.tuning import LATENCY_RANGE_MS, Population, draw_population, features_FM

Float = NDArray[np.float64]

STEP_S = 0.01
"""Rates are constant for so long."""
STEP_TICKS = round(STEP_S * TICK_HZ)
STEP_SAMPLES = round(STEP_S * SAMPLE_HZ)
MARGIN_S = LATENCY_RANGE_MS[1] / 1000 + STEP_S
"""The hand moves on for so long after the recording, since rates lead the movement."""
MAX_MINUTES, MAX_CHANNELS, MAX_NOISE = 600, 10_000, 5


@frozen_config
class Simulation:
    """Settings of a simulated session.

    Args:
        minutes: length.
        channels: of the array.
        bin_ms: bin width of the session (spike ticks are kept, so others can be had by ``rebinned``).
        task: ``random_target`` (self-paced, in a square of 10 cm) or ``center_out`` (8 targets at 8 cm).
        noise: size of what moves rates besides the movement; 1 = as hard as real arrays, 0 = pure Poisson noise.
    """

    minutes: float = 8.0
    channels: int = 96
    bin_ms: float = 20.0
    task: Task = "random_target"
    noise: float = 1.0

    def __post_init__(self) -> None:
        where = "Simulation settings"
        if not (0 < self.minutes <= MAX_MINUTES and 1 <= self.channels <= MAX_CHANNELS):
            raise ConfigError(
                f"{self.minutes:g} minutes of {self.channels} channels are impossible.",
                where=where,
                remedy=f"above 0 and at most {MAX_MINUTES} minutes, 1 to {MAX_CHANNELS:,} channels",
            )
        if not 0 <= self.noise <= MAX_NOISE:
            raise ConfigError(f"noise of {self.noise:g} is impossible.", where=where, remedy=f"0 to {MAX_NOISE}")
        try:
            grid = self.grid
        except DataError as error:
            raise ConfigError(error.what, where=f"{where}, bin_ms", remedy=error.remedy) from None
        if grid.bins_in(self.minutes) < 1:
            raise ConfigError(
                f"{self.minutes:g} minutes hold no bin of {self.bin_ms:g} ms.", where=where, remedy="simulate longer"
            )

    @property
    def grid(self) -> BinGrid:
        """The bins, on a clock of 30 kHz."""
        return BinGrid.from_ms(self.bin_ms, tick_hz=TICK_HZ)


@dataclass(frozen=True, eq=False)
class Truth:
    """What made a session: what no decoder and no recording knows.

    Args:
        population: the channels as they were on this day.
        drift: what changed since the subject's day 0.
        background: what moved rates besides the movement.
        mean_hz: (C,) mean of each channel's rate over the session; spikes are Poisson noise around it.
        unfinished: reaches that the end of the session cut off; they are not in its trial table.
    """

    population: Population
    drift: Drift
    background: Background
    mean_hz: Float
    unfinished: int


@dataclass(frozen=True, eq=False)
class Simulated:
    """A session and its truth."""

    session: Session
    truth: Truth


def simulate(
    simulation: Simulation | None = None, *, seed: int = 0, day: int = 0, subject: str | None = None
) -> Simulated:
    """A session of one subject on one day; a longer one begins like a shorter one, spike by spike.

    Args:
        simulation: settings; None = the default ones.
        seed: with the subject's name it decides the population; with the day also movement and spikes.
        day: 0 is the day on which the array was as drawn; the later, the more it has drifted.
        subject: name; None = ``sim_<seed>``.

    Raises:
        ConfigError: the day is below 0.

    >>> made = simulate(Simulation(minutes=0.1, channels=8), seed=1)
    >>> made.session.id, len(made.truth.population), [d.name for d in made.session.dims]
    ('sim_1_day0', 8, ['hand_x', 'hand_y', 'hand_vx', 'hand_vy'])
    """
    settings = Simulation() if simulation is None else simulation
    name = f"sim_{seed}" if subject is None else subject
    of_subject = SeedTree(seed).child("subject", item=name)
    of_day = of_subject.child("day", item=day)
    born = draw_population(settings.channels, of_subject.generator("population"))
    change = drift(born, day, of_subject)
    population = drifted(born, change, of_subject)
    end = settings.grid.bins_in(settings.minutes) * settings.grid.ticks_per_bin
    steps = -(-end // STEP_TICKS)
    movement = perform(settings.task, seconds=end / TICK_HZ, margin_s=MARGIN_S, seeds=of_day.child("task"))
    background = draw_background(
        population, steps=steps, step_s=STEP_S, noise=settings.noise, subject=of_subject, day=of_day
    )
    spikes, mean_hz = _record(population, movement, background, end, of_day)
    made_by = {"seed": seed, "subject": name, "day": day, **to_dict(settings)}
    session = _session(settings, f"{name}_day{day}", name, spikes, movement, made_by)
    return Simulated(session, Truth(population, change, background, mean_hz, movement.unfinished))


def simulate_subjects(
    simulation: Simulation | None = None, *, subjects: int = 2, days: int = 2, seed: int = 0
) -> list[Simulated]:
    """Several subjects, each with an array of its own, on several days with drift between them.

    Args:
        simulation: settings of every session; None = the default ones.
        subjects, days: how many.
        seed: decides everything.

    Returns:
        The sessions, subject by subject; ids are ``sim_<seed>_<subject>_day<day>``.

    Raises:
        ConfigError: a number is below 1.
    """
    if subjects < 1 or days < 1:
        raise ConfigError(
            f"{subjects} subjects on {days} days are nothing.", where="simulate_subjects", remedy="both at least 1"
        )
    names = [f"sim_{seed}_{number}" for number in range(subjects)]
    return [simulate(simulation, seed=seed, day=day, subject=name) for name in names for day in range(days)]


def rate_T(population: Population, channel: int, features: Float, background: Background) -> Float:
    """(T,) rate of one channel in Hz, in steps of 10 ms.

    Args:
        population: the channels.
        channel: which one.
        features: (F, M) of :func:`~betz.sim.tuning.features_FM`, 1 ms apart, at least the latency longer than T steps.
        background: what else moves the log rate.
    """
    drive_T = background.log_rate_T(channel)
    steps = len(drive_T)
    first = STEP_SAMPLES // 2 + int(population.latency_ms[channel])
    # One feature at a time: the sum of a step must not depend, in its last digit, on how many steps there are.
    for weight, feature_M in zip(population.weights_CF[channel], features, strict=True):
        drive_T += weight * feature_M[first : first + steps * STEP_SAMPLES : STEP_SAMPLES]
    return soft_limit(population.baseline_hz[channel] * np.exp(drive_T))


def _record(
    population: Population, movement: Movement, background: Background, end: int, seeds: SeedTree
) -> tuple[tuple[Ticks, ...], Float]:
    """Spike ticks of all channels before a tick, and their mean rates, channel by channel to save memory."""
    features = features_FM(movement.values_MK)
    spikes, mean_hz = [], np.empty(len(population))
    for c in range(len(population)):
        rate = rate_T(population, c, features, background)
        mean_hz[c] = rate.mean()
        ticks = draw_spikes(rate, step_ticks=STEP_TICKS, tick_hz=TICK_HZ, rng=seeds.generator("spikes", item=c))
        spikes.append(ticks[: np.searchsorted(ticks, end)].copy())
    return tuple(spikes), mean_hz


def _session(
    settings: Simulation,
    id: str,
    subject: str,
    spikes: tuple[Ticks, ...],
    movement: Movement,
    made_by: dict[str, Any],
) -> Session:
    bins = settings.grid.bins_in(settings.minutes)
    samples = -(-bins * settings.grid.ticks_per_bin // TICKS_PER_SAMPLE)
    return Session(
        id=id,
        subject=subject,
        grid=settings.grid,
        num_bins=bins,
        channels=tuple(Channel(f"ch{c + 1}") for c in range(settings.channels)),
        spikes=spikes,
        behavior=(movement.series(samples),),
        trials=movement.trials,
        task=settings.task,
        tags={"day": str(made_by["day"])},
        provenance=Provenance(source="simulated", importer="betz.sim", options=made_by),
        licence="CC0-1.0",
    )
