"""What moves rates besides the movement: latents that channels share on many time scales, and slow private changes.

Without them a linear decoder of 96 Poisson channels is nearly perfect after seconds; real arrays are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from betz.core.seeds import SeedTree
from betz.sim.tuning import Population

Float = NDArray[np.float64]

COMMON_S, COMMON_SD, COMMON_SPREAD = (0.12, 1.2), (0.45, 0.35), 0.5
"""Fluctuations that raise or lower all channels alike: time constants, sizes (log rate), spread over channels."""
STATE_S = tuple(float(s) for s in np.geomspace(0.1, 60.0, 8).round(3))
STATE_SD = 0.17
"""Fluctuations with loadings of any sign."""
PRIVATE_S, PRIVATE_SD = 60.0, 0.3
"""Slow change of each channel's log rate."""
KNOT_S = 1.0


@dataclass(frozen=True, eq=False)
class Background:
    """What moved the log rates of one session besides the movement.

    Args:
        step_s: length of a step in seconds.
        shared_LT: latents of unit variance, step by step.
        loadings_CL: change of a channel's log rate per unit of each; 0 for silent channels.
        private_CJ: each channel's own log rate once a second, joined by straight lines; 0 for silent channels.
        private_sd_C: its standard deviation.
    """

    step_s: float
    shared_LT: Float
    loadings_CL: Float
    private_CJ: Float
    private_sd_C: Float

    def log_rate_T(self, channel: int) -> Float:
        """(T,) what is added to one channel's log rate; the mean of its exponential is 1."""
        knots_J, loadings_L = self.private_CJ[channel], self.loadings_CL[channel]
        at_T = np.arange(self.shared_LT.shape[1]) * (self.step_s / KNOT_S)
        out_T = np.interp(at_T, np.arange(len(knots_J)), knots_J)
        out_T -= (np.sum(loadings_L**2) + self.private_sd_C[channel] ** 2) / 2
        for loading, latent_T in zip(loadings_L, self.shared_LT, strict=True):
            out_T += loading * latent_T
        return np.asarray(out_T)


def draw_background(
    population: Population, *, steps: int, step_s: float, noise: float, subject: SeedTree, day: SeedTree
) -> Background:
    """The background of a session.

    Args:
        population: the channels of the day.
        steps, step_s: T and its step.
        noise: all sizes are multiplied by it.
        subject: seeds of the loadings, which a subject keeps.
        day: seeds of the latents; more steps begin like fewer.
    """
    active_C = np.array([kind != "silent" for kind in population.kind], dtype=np.float64)
    times_s = (*COMMON_S, *STATE_S)
    normal_CL = subject.generator("loadings").standard_normal((len(population), len(times_s)))
    common_CL = np.array(COMMON_SD) * (1 + COMMON_SPREAD * normal_CL[:, : len(COMMON_S)])
    loadings_CL = np.concatenate((common_CL, STATE_SD * normal_CL[:, len(COMMON_S) :]), axis=1)
    knots = int(np.ceil(steps * step_s / KNOT_S)) + 1
    private_CJ = ornstein_uhlenbeck(knots, [PRIVATE_S] * len(population), KNOT_S, day.generator("private"))
    sd_C = noise * PRIVATE_SD * active_C
    return Background(
        step_s=step_s,
        shared_LT=ornstein_uhlenbeck(steps, times_s, step_s, day.generator("latents")),
        loadings_CL=noise * active_C[:, None] * loadings_CL,
        private_CJ=sd_C[:, None] * private_CJ,
        private_sd_C=sd_C,
    )


def ornstein_uhlenbeck(steps: int, times_s: Sequence[float], step_s: float, rng: np.random.Generator) -> Float:
    """(L, T) stationary Gaussian processes of unit variance with these time constants; more steps begin like fewer."""
    from scipy.signal import lfilter

    keep_L = np.exp(-step_s / np.asarray(times_s, dtype=np.float64))
    white_TL = rng.standard_normal((steps, len(keep_L)))
    white_TL[1:] *= np.sqrt(1 - keep_L**2)
    return np.stack([lfilter([1.0], [1.0, -keep], white) for keep, white in zip(keep_L, white_TL.T, strict=True)])
