"""What channels respond to in any task: per kind of feature one direction and one depth a channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import ConfigError
from betz.core.seeds import SeedTree
from betz.sim.drift import Drift
from betz.sim.performance import Drive
from betz.sim.tuning import Kind, Population

Float = NDArray[np.float64]

DEPTHS: Mapping[str, tuple[float, float]] = {
    "velocity": (0.8, 0.6),
    "speed": (1.0, 0.6),
    "position": (0.3, 0.6),
    "force": (0.8, 0.6),
    "posture": (0.4, 0.6),
    "state": (0.5, 0.6),
    "click": (1.2, 0.6),
}
"""Of channels drawn for a task: median of the depth (log rate from 0 to 1 of the feature), sd of its logarithm."""
HAND_SIZES = {"velocity": 2, "speed": 1, "position": 2}


@dataclass(frozen=True, eq=False)
class Encoding:
    """How the log rate of each channel follows the features of a task on one day.

    Args:
        kind: ``tuned``, ``untuned`` or ``silent``, as in the population.
        baseline_hz: (C,) rate where all features are 0.
        latency_ms: (C,) by so much the rate leads the features.
        weights_CF: (C, F) change of the log rate per unit of each feature.
        drives: kinds of features in the order of the columns, and how many each has.
    """

    kind: tuple[Kind, ...]
    baseline_hz: Float
    latency_ms: NDArray[np.int64]
    weights_CF: Float
    drives: tuple[tuple[str, int], ...]

    def __len__(self) -> int:
        return len(self.kind)

    def weights_of(self, drive: str) -> Float:
        """(C, d) weights of one kind of feature.

        Raises:
            ConfigError: the task has no such features.
        """
        start = 0
        for name, size in self.drives:
            if name == drive:
                return self.weights_CF[:, start : start + size]
            start += size
        known = ", ".join(name for name, _ in self.drives)
        raise ConfigError(f"no channel responds to {drive!r}.", where="Encoding", remedy=f"it has {known}")

    def depth(self, drive: str) -> Float:
        """(C,) change of the log rate per unit along the preferred direction."""
        return np.asarray(np.linalg.norm(self.weights_of(drive), axis=1))

    def direction(self, drive: str) -> Float:
        """(C, d) preferred direction, of length 1; 0 for channels that do not respond."""
        length_C1 = self.depth(drive)[:, None]
        return np.asarray(self.weights_of(drive) / np.where(length_C1 > 0, length_C1, 1.0))

    def turned(self, turn_deg_C: Float, seeds: SeedTree) -> Encoding:
        """All preferred directions turned, in two dimensions counter-clockwise, else in a plane drawn once a channel.

        Features of one dimension do not turn.
        """
        parts = [
            _turned(self.weights_of(name), np.radians(turn_deg_C), seeds.generator("plane", item=name))
            for name, _ in self.drives
        ]
        return replace(self, weights_CF=np.concatenate(parts, axis=1))


def encode(population: Population, drives: Sequence[Drive], change: Drift, seeds: SeedTree) -> Encoding:
    """The encoding of a task's features by a population.

    Velocity, speed and position of the hand are encoded as the population says; other features with directions and
    depths that a subject keeps, drawn once, which drift like those of the hand.

    Args:
        population: the channels of the day, drifted.
        drives: features of the task.
        change: the drift up to this day.
        seeds: of the subject.
    """
    sizes = {drive.name: len(drive.values_FM) for drive in drives}
    of_hand = all(sizes.get(name) == size for name, size in HAND_SIZES.items())
    hand = dict(zip(HAND_SIZES, np.split(population.weights_CF, (2, 3), axis=1), strict=True))
    tuned_C1 = np.array([[kind == "tuned"] for kind in population.kind])
    parts = []
    for name, size in sizes.items():
        if of_hand and name in HAND_SIZES:
            parts.append(hand[name])
            continue
        tree = seeds.child("encoding", item=f"{name}_{size}")
        drawn = _drawn(len(population), name, size, tree.generator("weights"))
        drawn = _turned(drawn, np.radians(change.turned_deg), tree.generator("plane"))
        parts.append(np.where(tuned_C1, change.gain[:, None] * drawn, 0.0))
    return Encoding(
        kind=population.kind,
        baseline_hz=population.baseline_hz,
        latency_ms=population.latency_ms,
        weights_CF=np.concatenate(parts, axis=1),
        drives=tuple(sizes.items()),
    )


def _drawn(channels: int, name: str, size: int, rng: np.random.Generator) -> Float:
    """(C, size) weights; a larger population begins like a smaller one."""
    median, sd = DEPTHS[name]
    normal = rng.standard_normal((channels, size + 1))
    direction = normal[:, :size] / np.linalg.norm(normal[:, :size], axis=1, keepdims=True)
    return np.asarray(median * np.exp(sd * normal[:, size:]) * direction)


def _turned(weights_CD: Float, angle_C: Float, rng: np.random.Generator) -> Float:
    """Weights turned by an angle each; the length stays."""
    size = weights_CD.shape[1]
    if size == 1:
        return weights_CD
    if size == 2:
        aside = np.stack((-weights_CD[:, 1], weights_CD[:, 0]), axis=1)
    else:
        length = np.linalg.norm(weights_CD, axis=1, keepdims=True)
        unit = weights_CD / np.where(length > 0, length, 1.0)
        aside = rng.standard_normal(weights_CD.shape)
        aside -= (aside * unit).sum(axis=1, keepdims=True) * unit
        aside *= length / np.linalg.norm(aside, axis=1, keepdims=True)
    return np.asarray(np.cos(angle_C)[:, None] * weights_CD + np.sin(angle_C)[:, None] * aside)
