"""Reaching tasks: what the hand does, millisecond by millisecond, and the trial table.

A session is a sum of submovements, each a minimum-jerk displacement (Flash & Hogan 1985) with its own duration, skew
and curvature, plus tremor and slow wander of the hand. Reaches last longer the farther the target (Fitts 1954), start
after a reaction time, miss a little, and are corrected.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from betz.core.seeds import SeedTree
from betz.core.session import BehaviorDim, Series, Trials

Float = NDArray[np.float64]
Task = Literal["center_out", "random_target"]

TICK_HZ = 30_000
SAMPLE_HZ = 1000
TICKS_PER_SAMPLE = TICK_HZ // SAMPLE_HZ
HAND = (
    BehaviorDim("hand_x", "cm"),
    BehaviorDim("hand_y", "cm"),
    BehaviorDim("hand_vx", "cm/s"),
    BehaviorDim("hand_vy", "cm/s"),
)
NUM_TARGETS = 8
REACH_CM = 8.0
WORKSPACE_CM = 10.0
NEAREST_CM = 2.0
TARGET_RADIUS_CM = 1.0
BURN_IN_S = 4.0


@dataclass(frozen=True, eq=False)
class Movement:
    """What the hand did.

    Args:
        values_MK: (M, 4) position in cm and velocity in cm/s, at 1 kHz from tick 0 on.
        trials: one a reach, in ticks of 30 kHz; columns ``target`` (cm), ``onset`` (tick of the movement's start)
            and ``success`` (the hand stayed on the target while it had to).
        unfinished: reaches that the end of the recording cut off; they are not in the table.
    """

    values_MK: Float
    trials: Trials
    unfinished: int

    def series(self, samples: int) -> Series:
        """The first samples as behavior at 1 kHz (float32)."""
        return Series(self.values_MK[:samples].astype(np.float32), HAND, 0, TICKS_PER_SAMPLE)


@dataclass(frozen=True)
class Submovement:
    """One minimum-jerk displacement.

    Args:
        start_s, duration_s: when.
        step_cm: (dx, dy).
        skew: exponent of the warped time; 1 = symmetric speed, below 1 = earlier peak.
        bend: sideways excursion as a share of the length.
    """

    start_s: float
    duration_s: float
    step_cm: tuple[float, float]
    skew: float = 1.0
    bend: float = 0.0

    def add_to(self, position_MD: Float, jump_MD: Float) -> None:
        """Add it to positions at 1 kHz while it lasts; at its end, what stays of it is a jump (summed up later)."""
        first = int(np.ceil(self.start_s * SAMPLE_HZ))
        last = int(np.ceil((self.start_s + self.duration_s) * SAMPLE_HZ))
        step = np.array(self.step_cm)
        time = (np.arange(first, min(last, len(position_MD))) / SAMPLE_HZ - self.start_s) / self.duration_s
        share = minimum_jerk(time**self.skew)[:, None]
        position_MD[first:last] += step * share + self.bend * np.array((-step[1], step[0])) * 4 * share * (1 - share)
        jump_MD[last : last + 1] += step


@dataclass(frozen=True)
class Reach:
    """One reach as planned: the target appears, the hand reacts, moves and holds.

    Args:
        cue_s, onset_s, arrival_s, end_s: target appears; movement starts; hand is there; hold is over.
        target_cm: (x, y).
        condition: its name in the trial table.
        submovements: the movement.
    """

    cue_s: float
    onset_s: float
    arrival_s: float
    end_s: float
    target_cm: tuple[float, float]
    condition: str
    submovements: tuple[Submovement, ...]


def minimum_jerk(time: Float) -> Float:
    """Share of the way at a share of the time (0 … 1), smoothest in the third derivative (Flash & Hogan 1985)."""
    return np.asarray(time**3 * (10 - 15 * time + 6 * time**2))


def perform(task: Task, *, seconds: float, margin_s: float, seeds: SeedTree) -> Movement:
    """Do the task.

    Args:
        task: ``center_out`` (8 targets at 8 cm, out and back) or ``random_target`` (self-paced, in a square of 10 cm).
        seconds: length of the recording.
        margin_s: the hand moves on for so long after it (signals lead movement).
        seeds: a longer recording begins like a shorter one of the same seeds.
    """
    samples = int(np.ceil((seconds + margin_s) * SAMPLE_HZ)) + 1
    position_MD = wander(samples, seeds)
    jump_MD = np.zeros_like(position_MD)
    reaches = []
    for reach in _reaches(task, seeds.generator("reaches")):
        if reach.cue_s * SAMPLE_HZ >= samples:
            break
        reaches.append(reach)
        for part in reach.submovements:
            part.add_to(position_MD, jump_MD)
    position_MD += np.cumsum(jump_MD, axis=0)
    velocity_MD = np.gradient(position_MD, 1 / SAMPLE_HZ, axis=0)
    finished = [reach for reach in reaches if reach.end_s <= seconds]
    started = sum(reach.cue_s < seconds for reach in reaches)
    values_MK = np.concatenate((position_MD, velocity_MD), axis=1)
    return Movement(values_MK, _table(finished, position_MD), started - len(finished))


def _reaches(task: Task, rng: np.random.Generator) -> Iterator[Reach]:
    """Reaches without end, each from where the last one ended."""
    hand, now_s = np.zeros(2), 0.0
    for target, condition in _targets(task, rng):
        reach, hand = reach_to(hand, target, condition, now_s, self_paced=task == "random_target", rng=rng)
        now_s = reach.end_s
        yield reach


def _targets(task: Task, rng: np.random.Generator) -> Iterator[tuple[Float, str]]:
    """Targets (cm) and names of their conditions without end."""
    last = np.zeros(2)
    while task == "random_target":
        target = rng.uniform(-WORKSPACE_CM / 2, WORKSPACE_CM / 2, 2)
        step = target - last
        if np.hypot(*step) >= NEAREST_CM:
            octant = round(np.arctan2(step[1], step[0]) / (np.pi / 4)) % 8
            yield target, f"toward_{octant}"
            last = target
    while True:
        for k in rng.permutation(NUM_TARGETS):
            angle = 2 * np.pi * k / NUM_TARGETS
            yield REACH_CM * np.array((np.cos(angle), np.sin(angle))), f"out_{k}"
            yield np.zeros(2), f"back_{k}"


def reach_to(
    hand: Float, target: Float, condition: str, now_s: float, *, self_paced: bool, rng: np.random.Generator
) -> tuple[Reach, Float]:
    """The next reach and where it leaves the hand."""
    way = target - hand
    distance = float(np.hypot(*way))
    onset_s = now_s + 0.15 + rng.gamma(4.0, 0.025)
    miss = (rng.normal(0, 0.07) * way + rng.normal(0, 0.05) * np.array((-way[1], way[0]))) - 0.03 * way
    parts = [_submovement(onset_s, way + miss, rng)]
    arrival_s = onset_s + parts[0].duration_s
    hand = hand + way + miss
    if np.hypot(*miss) > 0.04 * distance:
        rest = target - hand + rng.normal(0, 0.15, 2)
        start_s = onset_s + rng.uniform(0.75, 1.1) * parts[0].duration_s
        parts.append(_submovement(start_s, rest, rng))
        arrival_s = max(arrival_s, start_s + parts[1].duration_s)
        hand = hand + rest
    hold_s = 0.1 + rng.exponential(0.1) if self_paced else 0.3 + rng.exponential(0.15)
    place = (float(target[0]), float(target[1]))
    return Reach(now_s, onset_s, arrival_s, arrival_s + hold_s, place, condition, tuple(parts)), hand


def _submovement(start_s: float, step: Float, rng: np.random.Generator) -> Submovement:
    """A displacement that takes as long as Fitts' law says for a target of this size, more or less."""
    difficulty = np.log2(np.hypot(*step) / (2 * TARGET_RADIUS_CM) + 1)
    duration_s = (0.2 + 0.12 * difficulty) * np.exp(rng.normal(0, 0.15))
    skew, bend = float(np.exp(rng.normal(-0.1, 0.08))), rng.normal(0, 0.05)
    return Submovement(start_s, float(duration_s), (float(step[0]), float(step[1])), skew, bend)


def wander(samples: int, seeds: SeedTree) -> Float:
    """Positions (M, 2) of a hand that means to rest: physiological tremor at 9 Hz and slow wander, in cm."""
    tremor = 0.98 * np.exp(2j * np.pi * 9 / SAMPLE_HZ)
    slow = np.exp(-1 / (0.5 * SAMPLE_HZ))
    return _noise(samples, (tremor, tremor.conjugate()), 0.01, seeds.generator("tremor")) + _noise(
        samples, (slow, slow), 0.1, seeds.generator("wander")
    )


def _noise(samples: int, poles: tuple[complex, complex], sd: float, rng: np.random.Generator) -> Float:
    """Stationary Gaussian noise (M, 2) of a second-order filter with the given poles."""
    from scipy.signal import lfilter

    burn_in = round(BURN_IN_S * SAMPLE_HZ)
    product, total = (poles[0] * poles[1]).real, (poles[0] + poles[1]).real
    variance = ((1 + product) / ((1 - product) * (1 - poles[0] ** 2) * (1 - poles[1] ** 2))).real
    white = rng.normal(0, sd / np.sqrt(variance), (samples + burn_in, 2))
    return np.asarray(lfilter([1.0], [1.0, -total, product], white, axis=0)[burn_in:])


def _table(reaches: list[Reach], position_MD: Float) -> Trials:
    """The trial table; success is read off what the hand did."""
    cue, onset, arrival, end = (
        np.array([round(getattr(reach, name) * SAMPLE_HZ) for reach in reaches], dtype=np.int64)
        for name in ("cue_s", "onset_s", "arrival_s", "end_s")
    )
    target = np.array([reach.target_cm for reach in reaches]).reshape(-1, 2)
    farthest = [
        np.linalg.norm(position_MD[a:b] - place, axis=1).max() for a, b, place in zip(arrival, end, target, strict=True)
    ]
    return Trials(
        cue * TICKS_PER_SAMPLE,
        end * TICKS_PER_SAMPLE,
        tuple(reach.condition for reach in reaches),
        {
            "target": target,
            "onset": onset * TICKS_PER_SAMPLE,
            "success": np.array(farthest) <= TARGET_RADIUS_CM,
        },
    )
