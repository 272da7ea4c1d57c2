"""Tuned channels: what each one of a simulated array responds to, drawn once a subject, and the rates that follow."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Kind = Literal["tuned", "untuned", "silent"]

UNTUNED, SILENT = 0.15, 0.10
"""Shares of channels that respond to nothing, and that hardly ever spike."""
SILENT_HZ = (0.01, 0.3)
BASELINE_HZ, BASELINE_SD, BASELINE_MAX_HZ = 5.5, 0.9, 35.0
"""Rates at rest are log-normal: median, standard deviation of the logarithm, and where they are cut off."""
VELOCITY_DEPTH, VELOCITY_SD = 0.58, 0.7
SPEED_DEPTH, SPEED_SD = 1.6, 0.6
POSITION_DEPTH, POSITION_SD = 0.15, 0.7
"""Medians of the depths and standard deviations of their logarithms (speed: mean and standard deviation)."""
LATENCY_MS, LATENCY_SD_MS, LATENCY_RANGE_MS = 100.0, 20.0, (50, 150)
HALF_SPEED_CM_S = 20.0
REACH_CM = 5.0


@dataclass(frozen=True, eq=False)
class Population:
    """The channels of one array on one day; every field has one entry a channel.

    The logarithm of a rate is that of the baseline plus ``velocity_depth`` · (drive along the preferred direction),
    plus ``speed_depth`` · (length of the drive), plus ``position_depth`` · (position along its own preferred
    direction, per 5 cm). The drive is the velocity, compressed: v / (20 cm/s + speed), so a depth is the change of the
    log rate from rest to very fast movement.

    Args:
        kind: ``tuned``, ``untuned`` (active, depths 0) or ``silent`` (near-dead, depths 0).
        baseline_hz: rate at rest in the middle of the workspace.
        preferred_deg: preferred direction of velocity, degrees in [0, 360).
        velocity_depth, speed_depth: see above.
        position_deg, position_depth: preferred direction and depth of position.
        latency_ms: by so much the rate leads the movement (whole milliseconds).
    """

    kind: tuple[Kind, ...]
    baseline_hz: Float
    preferred_deg: Float
    velocity_depth: Float
    speed_depth: Float
    position_deg: Float
    position_depth: Float
    latency_ms: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.kind)

    @cached_property
    def weights_CF(self) -> Float:
        """(C, 5) change of the log rate per unit of each of :func:`features_FM`."""
        velocity, position = np.radians(self.preferred_deg), np.radians(self.position_deg)
        return np.stack(
            (
                self.velocity_depth * np.cos(velocity),
                self.velocity_depth * np.sin(velocity),
                self.speed_depth,
                self.position_depth * np.cos(position),
                self.position_depth * np.sin(position),
            ),
            axis=1,
        )


def draw_population(channels: int, rng: np.random.Generator, *, silent: float = SILENT) -> Population:
    """Channels of a new array; those of a larger array begin with those of a smaller one of the same generator.

    Args:
        channels: C.
        rng: decides everything.
        silent: share of near-dead channels.
    """
    uniform_CU, normal_CZ = np.empty((channels, 4)), np.empty((channels, 5))
    for c in range(channels):
        uniform_CU[c], normal_CZ[c] = rng.random(4), rng.standard_normal(5)
    dead = uniform_CU[:, 0] < silent
    tuned = uniform_CU[:, 0] >= silent + UNTUNED
    active_hz = np.minimum(BASELINE_HZ * np.exp(BASELINE_SD * normal_CZ[:, 0]), BASELINE_MAX_HZ)
    low, high = SILENT_HZ
    latency = LATENCY_MS + LATENCY_SD_MS * normal_CZ[:, 4]
    return Population(
        kind=tuple("silent" if d else "tuned" if t else "untuned" for d, t in zip(dead, tuned, strict=True)),
        baseline_hz=np.where(dead, low + (high - low) * uniform_CU[:, 3], active_hz),
        preferred_deg=360 * uniform_CU[:, 1],
        velocity_depth=np.asarray(tuned * VELOCITY_DEPTH * np.exp(VELOCITY_SD * normal_CZ[:, 1]), np.float64),
        speed_depth=np.asarray(tuned * (SPEED_DEPTH + SPEED_SD * normal_CZ[:, 2]), np.float64),
        position_deg=360 * uniform_CU[:, 2],
        position_depth=np.asarray(tuned * POSITION_DEPTH * np.exp(POSITION_SD * normal_CZ[:, 3]), np.float64),
        latency_ms=np.clip(np.rint(latency), *LATENCY_RANGE_MS).astype(np.int64),
    )


def features_FM(values_MK: Float) -> Float:
    """(5, M) what rates respond to: compressed velocity (2) and its length, position per 5 cm (2).

    Args:
        values_MK: (M, 4) position in cm and velocity in cm/s.
    """
    speed = np.hypot(values_MK[:, 2], values_MK[:, 3])
    drive = values_MK[:, 2:].T / (HALF_SPEED_CM_S + speed)
    return np.concatenate((drive, (speed / (HALF_SPEED_CM_S + speed))[None], values_MK[:, :2].T / REACH_CM))
