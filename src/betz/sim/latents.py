"""What moves rates besides the movement: shared latents on several time scales, and slow changes of each channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from betz.core.seeds import SeedTree
from betz.sim.tuning import Population

Float = NDArray[np.float64]

COMMON_S, COMMON_SD, COMMON_SPREAD = (0.15, 2.0), (0.25, 0.2), 0.4
STATE_S = (0.08, 0.15, 0.3, 0.6, 1.5, 4.0)
STATE_SD = 0.2
INTENTION_S, INTENTION_SD = 0.15, 0.25
PRIVATE_S, PRIVATE_SD = 40.0, 0.2


def ou(steps: int, time_s, step_s: float, rng) -> Float:
    from scipy.signal import lfilter

    keep = np.exp(-step_s / np.asarray(time_s, dtype=float))
    white = rng.standard_normal((steps, len(keep)))
    white[1:] *= np.sqrt(1 - keep**2)
    return np.stack([lfilter([1.0], [1.0, -k], w) for k, w in zip(keep, white.T)])


def loadings(p: Population, rng):
    C = len(p)
    active = np.array([k != "silent" for k in p.kind])
    n = rng.standard_normal((C, len(COMMON_S) + len(STATE_S)))
    common = np.array(COMMON_SD) * (1 + COMMON_SPREAD * n[:, : len(COMMON_S)])
    state = STATE_SD * n[:, len(COMMON_S) :]
    w = p.weights_CF()[:, :2] * INTENTION_SD
    return active[:, None] * np.concatenate((common, state, w), axis=1)


def latents_LT(steps, step_s, seeds):
    times = (*COMMON_S, *STATE_S, INTENTION_S, INTENTION_S)
    return ou(steps, times, step_s, seeds.generator("latents"))
def private_CT(steps, step_s, channels, seeds):
    every = round(1 / step_s)
    z = ou(steps // every + 2, [PRIVATE_S] * channels, 1.0, seeds.generator("private"))
    at = np.arange(steps) / every
    return [PRIVATE_SD * np.interp(at, np.arange(z.shape[1]), row) for row in z]
