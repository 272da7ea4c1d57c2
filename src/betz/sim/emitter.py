"""A simulated array that listens to a user: signals bin by bin for a velocity that is meant, for closed loops."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import ConfigError
from betz.core.prediction import Array
from betz.core.session import Channel
from betz.core.timegrid import MAX_COUNT
from betz.sim.latents import draw_background
from betz.sim.population import Simulation
from betz.sim.power import BANDWIDTH_HZ, draw_power_truth
from betz.sim.spikes import soft_limit
from betz.sim.tuning import LATENCY_RANGE_MS, features_FM

Float = NDArray[np.float64]


class Emitter:
    """The array of :func:`~betz.sim.population.simulate`, same subject and day, in closed loop.

    A channel with a latency of 150 ms answers to what is meant in the bin; one with less comes later by the difference.
    Counts are Poisson (or over-dispersed) around the mean rate of a bin; the background is that of a new session.

    Args:
        simulation: settings as for :func:`~betz.sim.population.simulate`; its minutes and task are not used.
        minutes: for how long it can be listened to.
        bin_ms: of the decoder.
        seed, day, subject: as for :func:`~betz.sim.population.simulate`.
        run: number of the run; another one has another background and other spikes.

    Raises:
        ConfigError: the settings ask for history effects or for disturbances within the session.
    """

    def __init__(
        self,
        simulation: Simulation | None = None,
        *,
        minutes: float,
        bin_ms: float,
        seed: int = 0,
        day: int = 0,
        subject: str | None = None,
        run: int = 0,
    ) -> None:
        settings = Simulation() if simulation is None else simulation
        if settings.history is not None or settings.disturbances:
            raise ConfigError(
                "history effects and disturbances are not made bin by bin.",
                where="Emitter",
                remedy="leave them out of the settings",
            )
        who = settings.subject(seed=seed, day=day, name=subject)
        self.channels: tuple[Channel, ...] = settings.all_channels
        population, seeds = who.population, who.of_day.child("closed_loop", item=run)
        self._bin_s = bin_ms / 1000
        steps = int(np.ceil(minutes * 60 / self._bin_s)) + 1
        background = draw_background(
            population, steps=steps, step_s=self._bin_s, noise=settings.noise, subject=who.of_subject, day=seeds
        )
        self._background_TC = np.stack([background.log_rate_T(c) for c in range(len(population))], axis=1)
        self._log_baseline_C = np.log(population.baseline_hz)
        self._weights_CF = population.weights_CF
        self._late_C = np.round((LATENCY_RANGE_MS[1] - population.latency_ms) / bin_ms).astype(int)
        self._past_LF = np.tile(features_FM(np.zeros((1, 4))).T, (int(self._late_C.max()) + 1, 1))
        self._overdispersion = settings.overdispersion
        names = tuple(c.array for c in settings.electrodes)
        self._power = draw_power_truth(names, who.of_subject) if settings.power else None
        self._rng, self._bin = seeds.generator("spikes"), 0

    def emit(self, velocity_cm_s: Float, place_cm: Float) -> Array:
        """(C,) signals of the next bin, power channels after counts.

        Raises:
            ConfigError: it was listened to for longer than it was made for.
        """
        if self._bin >= len(self._background_TC):
            raise ConfigError(
                f"the array was made for {len(self._background_TC)} bins.", where="Emitter", remedy="more minutes"
            )
        self._past_LF = np.roll(self._past_LF, 1, axis=0)
        self._past_LF[0] = features_FM(np.concatenate((place_cm, velocity_cm_s))[None])[:, 0]
        drive_C = (self._weights_CF * self._past_LF[self._late_C]).sum(axis=1)
        rate_C = np.exp(self._log_baseline_C + drive_C + self._background_TC[self._bin])
        self._bin += 1
        if self._overdispersion > 0:
            rate_C *= self._rng.gamma(1 / self._overdispersion, self._overdispersion, len(rate_C))
        rate_C = soft_limit(rate_C)
        counts_C = self._rng.poisson(rate_C * self._bin_s).astype(np.float64)
        if counts_C.max() > MAX_COUNT:
            raise ConfigError(
                f"{counts_C.max():.0f} spikes in a bin of {1000 * self._bin_s:g} ms exceed the limit of {MAX_COUNT}.",
                where="Emitter",
                remedy="narrower bins",
            )
        if self._power is None:
            return counts_C
        shape = BANDWIDTH_HZ * self._bin_s
        noise_C = self._rng.standard_gamma(shape, len(rate_C)) / shape
        mean_C = self._power.floor_uV2 + rate_C @ self._power.mixing_CC
        return np.concatenate((counts_C, mean_C * noise_C))
