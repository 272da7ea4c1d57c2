"""What moves rates besides the movement: latents that channels share on many time scales, and slow private changes.

Without them a linear decoder of 96 Poisson channels is nearly perfect after seconds; real arrays are not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from betz.sim.tuning import Population

Float = NDArray[np.float64]

COMMON_S, COMMON_SD, COMMON_SPREAD = (0.12, 1.2), (0.5, 0.35), 0.5
"""Fluctuations that raise or lower all channels alike: time constants, sizes (log rate), spread over channels."""
STATE_S = tuple(float(s) for s in np.geomspace(0.1, 60.0, 8).round(3))
STATE_SD = 0.2
"""Fluctuations with loadings of any sign."""
PRIVATE_S, PRIVATE_SD = 60.0, 0.35
"""Slow change of each channel's log rate."""


def ornstein_uhlenbeck(steps: int, times_s: Sequence[float], step_s: float, rng: np.random.Generator) -> Float:
    """(L, T) stationary Gaussian processes of unit variance with these time constants."""
    from scipy.signal import lfilter

    keep_L = np.exp(-step_s / np.asarray(times_s, dtype=np.float64))
    white_TL = rng.standard_normal((steps, len(keep_L)))
    white_TL[1:] *= np.sqrt(1 - keep_L**2)
    return np.stack([lfilter([1.0], [1.0, -keep], white) for keep, white in zip(keep_L, white_TL.T, strict=True)])


def loadings_CL(population: Population, rng: np.random.Generator) -> Float:
    """(C, L) change of each channel's log rate per unit of each shared latent; 0 for silent channels."""
    active_C = np.array([kind != "silent" for kind in population.kind])
    normal_CL = rng.standard_normal((len(population), len(COMMON_S) + len(STATE_S)))
    common = np.array(COMMON_SD) * (1 + COMMON_SPREAD * normal_CL[:, : len(COMMON_S)])
    return np.asarray(active_C[:, None] * np.concatenate((common, STATE_SD * normal_CL[:, len(COMMON_S) :]), axis=1))


def shared_LT(steps: int, step_s: float, rng: np.random.Generator) -> Float:
    """(L, T) the shared latents."""
    return ornstein_uhlenbeck(steps, (*COMMON_S, *STATE_S), step_s, rng)


def private_CT(steps: int, step_s: float, channels: int, rng: np.random.Generator) -> Float:
    """(C, T) the private log rates, drawn once a second and joined by straight lines."""
    every = round(1 / step_s)
    knots = ornstein_uhlenbeck(steps // every + 2, [PRIVATE_S] * channels, 1.0, rng)
    at = np.arange(steps) / every
    return PRIVATE_SD * np.stack([np.interp(at, np.arange(knots.shape[1]), row) for row in knots])
