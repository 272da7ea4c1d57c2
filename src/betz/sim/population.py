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
from betz.core.session import Channel, Provenance, Session
from betz.core.timegrid import BinGrid
from betz.sim.disturbances import Disturbance, Event, events_of
from betz.sim.drift import Drift
from betz.sim.encoding import Encoding, encode
from betz.sim.irregular import History
from betz.sim.latents import Background, draw_background
from betz.sim.performance import Performance
from betz.sim.power import UNIT, PowerTruth
from betz.sim.signals import STEP_S, STEP_TICKS, Irregularity, Recorded, record
from betz.sim.spikes import REFRACTORY_S
from betz.sim.subjects import ARRAY_NAMES, Subject, subject_on_day
from betz.sim.task_set import AnyTask, performed
from betz.sim.tasks import TICK_HZ, TICKS_PER_SAMPLE
from betz.sim.tuning import LATENCY_RANGE_MS, Population

Float = NDArray[np.float64]

MARGIN_S = LATENCY_RANGE_MS[1] / 1000 + STEP_S
"""The hand moves on for so long after the recording, since rates lead the movement."""
MAX_MINUTES, MAX_CHANNELS, MAX_NOISE = 600, 10_000, 5
MAX_OVERDISPERSION, MAX_REFRACTORY_MS = 4.0, 2.0


@frozen_config
class Simulation:
    """Settings of a simulated session.

    Args:
        minutes: length.
        channels: of each array.
        bin_ms: bin width of the session (spike ticks are kept, so others can be had by ``rebinned``; with power, whole
            multiples).
        task: ``random_target`` (self-paced, in a square of 10 cm), ``center_out`` (8 targets at 8 cm), ``grid``,
            ``click``, ``rest_move``, ``grasp``, ``force_1d``, ``force_2d``, ``fingers_2`` … ``fingers_5``
            or ``writing``.
        noise: size of what moves rates besides the movement; 1 = as hard as real arrays, 0 = pure Poisson noise.
        arrays: how many, each with channels of its own; all share the fluctuations.
        power: whether spike-band power of every electrode is recorded too.
        overdispersion: variance of a gamma factor of each rate, anew every 50 ms; 0 = Poisson.
        refractory_ms: no two spikes of a channel are closer.
        history: how a channel's own spikes change its rate; None = not at all.
        disturbances: what happens to the array, within sessions and from day to day.
    """

    minutes: float = 8.0
    channels: int = 96
    bin_ms: float = 20.0
    task: AnyTask = "random_target"
    noise: float = 1.0
    arrays: int = 1
    power: bool = False
    overdispersion: float = 0.0
    refractory_ms: float = 1000 * REFRACTORY_S
    history: History | None = None
    disturbances: tuple[Disturbance, ...] = ()

    def __post_init__(self) -> None:
        where = "Simulation settings"
        if not (0 < self.minutes <= MAX_MINUTES and 1 <= self.channels <= MAX_CHANNELS):
            raise ConfigError(
                f"{self.minutes:g} minutes of {self.channels} channels are impossible.",
                where=where,
                remedy=f"above 0 and at most {MAX_MINUTES} minutes, 1 to {MAX_CHANNELS:,} channels",
            )
        for name, most in (
            ("noise", MAX_NOISE),
            ("overdispersion", MAX_OVERDISPERSION),
            ("refractory_ms", MAX_REFRACTORY_MS),
        ):
            if not 0 <= getattr(self, name) <= most:
                raise ConfigError(
                    f"{name} of {getattr(self, name):g} is impossible.", where=where, remedy=f"0 to {most:g}"
                )
        if not 1 <= self.arrays <= len(ARRAY_NAMES):
            raise ConfigError(f"{self.arrays} arrays are impossible.", where=where, remedy=f"1 to {len(ARRAY_NAMES)}")
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

    @property
    def electrodes(self) -> tuple[Channel, ...]:
        """The count channels of all arrays."""
        if self.arrays == 1:
            return tuple(Channel(f"ch{c + 1}") for c in range(self.channels))
        names = ARRAY_NAMES[: self.arrays]
        return tuple(Channel(f"{array}_ch{c + 1}", array=array) for array in names for c in range(self.channels))

    @property
    def all_channels(self) -> tuple[Channel, ...]:
        """The columns of the session's signals: counts, then power if it is recorded."""
        counting = self.electrodes
        if not self.power:
            return counting
        return (*counting, *(Channel(f"{c.id}_power", "power", c.array, UNIT) for c in counting))

    def subject(self, *, seed: int, day: int, name: str | None) -> Subject:
        """The subject of a seed on a day; without a name it is ``sim_<seed>``."""
        known_as = f"sim_{seed}" if name is None else name
        return subject_on_day(known_as, channels=self.channels, arrays=self.arrays, seed=seed, day=day)


@dataclass(frozen=True, eq=False)
class Truth:
    """What made a session: what no decoder and no recording knows.

    Args:
        population: the channels as they were on this day.
        drift: what changed since the subject's day 0.
        background: what moved rates besides the movement.
        mean_hz: (C,) mean of each electrode's rate over the session; spikes are noise around it.
        unfinished: trials that the end of the session cut off; they are not in its trial table.
        encodings: (tick, how log rates follow what was done from there on); more than one if tuning turned meanwhile.
        events: disturbances in order of time, with their ticks.
        power: how power was made, or None.
    """

    population: Population
    drift: Drift
    background: Background
    mean_hz: Float
    unfinished: int
    encodings: tuple[tuple[int, Encoding], ...]
    events: tuple[Event, ...]
    power: PowerTruth | None


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
    who = settings.subject(seed=seed, day=day, name=subject)
    bins = settings.grid.bins_in(settings.minutes)
    end = bins * settings.grid.ticks_per_bin
    done = performed(settings.task, seconds=end / TICK_HZ, margin_s=MARGIN_S, seeds=who.of_day.child("task"))
    encoding = encode(who.population, done.drives, who.change, who.of_subject)
    background = draw_background(
        who.population,
        steps=-(-end // STEP_TICKS),
        step_s=STEP_S,
        noise=settings.noise,
        subject=who.of_subject,
        day=who.of_day,
    )
    events = events_of(
        settings.disturbances,
        day=day,
        active_C=np.array([kind != "silent" for kind in who.population.kind]),
        step_ticks=STEP_TICKS,
        tick_hz=TICK_HZ,
        seeds=who.of_subject,
    )
    recorded = record(
        encoding,
        done.features_FM(),
        background,
        Irregularity(settings.overdispersion, settings.refractory_ms / 1000, settings.history),
        events=events,
        grid=settings.grid,
        num_bins=bins,
        power_of=tuple(c.array for c in settings.electrodes) if settings.power else None,
        subject=who.of_subject,
        day=who.of_day,
    )
    truth = Truth(
        population=who.population,
        drift=who.change,
        background=background,
        mean_hz=recorded.mean_hz,
        unfinished=done.unfinished,
        encodings=recorded.encodings,
        events=events,
        power=recorded.power,
    )
    made_by = {"seed": seed, "subject": who.name, "day": day, **to_dict(settings)}
    return Simulated(_session(settings, who, recorded, done, made_by), truth)


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


def _session(
    settings: Simulation, who: Subject, recorded: Recorded, done: Performance, made_by: dict[str, Any]
) -> Session:
    bins = settings.grid.bins_in(settings.minutes)
    samples = -(-bins * settings.grid.ticks_per_bin // TICKS_PER_SAMPLE)
    return Session(
        id=f"{who.name}_day{who.day}",
        subject=who.name,
        grid=settings.grid,
        num_bins=bins,
        channels=settings.all_channels,
        spikes=recorded.spikes,
        power=recorded.power_NC,
        behavior=(done.series(samples),),
        trials=done.trials,
        task=settings.task,
        tags={"day": str(who.day)},
        provenance=Provenance(source="simulated", importer="betz.sim", options=made_by),
        licence="CC0-1.0",
    )
