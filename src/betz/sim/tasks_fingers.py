"""Fingers that flex on their own and together, and a pen that writes eight symbols."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import ConfigError
from betz.core.seeds import SeedTree
from betz.core.session import BehaviorDim
from betz.sim.performance import (
    Drive,
    Performance,
    Track,
    Trial,
    compressed,
    mark,
    num_samples,
    rate_of_change,
    smooth_noise,
    softened,
    table,
)

Float = NDArray[np.float64]
FINGERS = ("thumb", "index", "middle", "ring", "little")
NEIGHBOUR = 0.15
"""How much a finger is drawn along by the one beside it (enslaving, Zatsiorsky et al. 2000)."""
FLEXION_TOLERANCE = 0.05
HALF_FLEXION_S = 1.0

SYMBOLS: dict[str, tuple[tuple[float, float], ...]] = {
    "a": ((0.5, 0.9), (-0.5, 0.6), (-0.4, -0.6), (0.5, -0.3), (0.6, 0.9), (0.7, -0.7)),
    "c": ((0.6, 0.7), (-0.3, 0.9), (-0.8, 0.0), (-0.3, -0.9), (0.6, -0.6)),
    "h": ((-0.5, 1.6), (-0.5, -0.9), (-0.2, 0.5), (0.4, 0.5), (0.5, -0.9)),
    "l": ((-0.1, 1.6), (-0.1, 0.2), (0.0, -0.9), (0.4, -0.8)),
    "m": ((-0.9, -0.8), (-0.7, 0.8), (-0.2, -0.6), (0.2, 0.8), (0.6, -0.8)),
    "s": ((0.6, 0.8), (-0.4, 0.8), (-0.3, 0.1), (0.4, -0.2), (0.3, -0.9), (-0.6, -0.8)),
    "v": ((-0.8, 0.8), (0.0, -0.9), (0.8, 0.8)),
    "z": ((-0.6, 0.8), (0.6, 0.8), (-0.6, -0.8), (0.6, -0.8)),
}
"""Corners of the strokes of each symbol, in units of half its height (0.5 cm)."""
SYMBOL_CM = 0.5
HALF_PEN_CM_S = 4.0
PEN = (
    BehaviorDim("pen_x", "cm"),
    BehaviorDim("pen_y", "cm"),
    BehaviorDim("pen_vx", "cm/s"),
    BehaviorDim("pen_vy", "cm/s"),
    BehaviorDim("symbol", "", "discrete", ("none", *SYMBOLS)),
)


def fingers(*, count: int = 3, seconds: float, margin_s: float, seeds: SeedTree) -> Performance:
    """Flex some fingers to shown postures, one after the other.

    Each trial moves a random non-empty group of fingers; the others are held, but drawn along a little.

    Args:
        count: of fingers, from the thumb on; 2 … 5.
        seconds: length of the recording.
        margin_s: the fingers move on for so long after it (signals lead movement).
        seeds: a longer recording begins like a shorter one of the same seeds.

    Returns:
        ``<finger>`` (unit ``1``: 0 = extended, 1 = flexed) and ``<finger>_v`` (``1/s``); trials with ``target``
        (count,), ``moved`` (count,), ``onset`` ticks and ``success`` (held within 0.05 of all targets).

    Raises:
        ConfigError: fewer than 2 or more than 5 fingers.
    """
    if not 2 <= count <= len(FINGERS):
        raise ConfigError(f"{count} fingers are impossible.", where="fingers", remedy=f"2 to {len(FINGERS)}")
    samples = num_samples(seconds, margin_s)
    track, trials = Track(samples, count), []
    for trial, moves in _flexions(count, seeds.generator("flexions")):
        if trial.start_s > seconds + margin_s:
            break
        for start_s, duration_s, step_D in moves:
            track.glide(start_s, duration_s, step_D)
        trials.append(trial)
    like = {"target": np.zeros(count), "moved": np.zeros(count, bool), "onset_s": 0.0, "success": True}
    finished, unfinished = table(trials, seconds, like)
    flexion_MD = 0.5 + track.values_MD()
    flexion_MD += smooth_noise(samples, count, time_s=0.2, sd=0.01, rng=seeds.generator("tremor"))
    velocity_MD = rate_of_change(flexion_MD)
    drives = (
        Drive("velocity", compressed(velocity_MD, HALF_FLEXION_S)),
        Drive("posture", 2 * flexion_MD.T - 1),
    )
    names = FINGERS[:count]
    dims = (*(BehaviorDim(n, "1") for n in names), *(BehaviorDim(f"{n}_v", "1/s") for n in names))
    return Performance(np.concatenate((flexion_MD, velocity_MD), axis=1), dims, drives, finished, unfinished)


def _flexions(count: int, rng: np.random.Generator) -> Iterator[tuple[Trial, list[tuple[float, float, Float]]]]:
    """Trials and their moves (start, duration, step) without end."""
    now_s, hand_D = 0.0, np.full(count, 0.5)
    near = np.eye(count) + NEIGHBOUR * (np.eye(count, k=1) + np.eye(count, k=-1))
    while True:
        moved = rng.random(count) < 0.5
        moved[rng.integers(count)] = True
        target = np.where(moved, rng.uniform(0.0, 1.0, count), hand_D)
        if np.abs(target - hand_D).max() < 0.2:
            continue
        onset = now_s + 0.2 + rng.gamma(4.0, 0.025)
        step = (near @ (target - hand_D)) * (1 + rng.normal(0, 0.06, count))
        duration = 0.35 * float(np.exp(rng.normal(0, 0.15))) + 0.15 * float(np.abs(step).max())
        fix = (target - hand_D - step) * rng.uniform(0.5, 1.0, count)
        fixed = onset + 0.9 * duration
        end = fixed + 0.25 + 0.3 + rng.exponential(0.15)
        after = hand_D + step + fix
        good = bool(np.abs(after - target).max() <= FLEXION_TOLERANCE)
        columns = {"target": target, "moved": moved, "onset_s": onset, "success": good}
        yield (
            Trial(now_s, end, "+".join(np.array(FINGERS[:count])[moved]), columns),
            [
                (onset, duration, step),
                (fixed, 0.25, fix),
            ],
        )
        now_s, hand_D = end, after


@dataclass(frozen=True)
class _Symbol:
    """One symbol as written: corners in cm with the times at which the pen is there, then the way home."""

    name: str
    word: int
    start_s: float
    corners: tuple[tuple[float, Float], ...]
    home_s: float
    end_s: float


def writing(*, seconds: float, margin_s: float, seeds: SeedTree) -> Performance:
    """Write words of two to six of eight symbols, each from the same place.

    A symbol is a chain of minimum-jerk strokes that overlap in time, so corners are rounded (Flash & Henis 1991); size,
    slant, speed and corners vary from one to the next. After each, the pen goes back to where symbols begin.

    Args:
        seconds: length of the recording.
        margin_s: the pen moves on for so long after it (signals lead movement).
        seeds: a longer recording begins like a shorter one of the same seeds.

    Returns:
        ``pen_x``, ``pen_y`` (cm), their velocities (cm/s) and the discrete ``symbol`` (none, a, c, …) being written;
        trials, one a symbol, with its name as the condition and ``symbol`` (index into :data:`SYMBOLS`), ``word``
        (number of the word) and ``onset`` ticks: the conditions in order are the text.
    """
    samples = num_samples(seconds, margin_s)
    track, state_M, trials = Track(samples, 2), np.zeros(samples), []
    names = list(SYMBOLS)
    for one in _symbols(seeds.generator("symbols")):
        if one.start_s > seconds + margin_s:
            break
        for (from_s, a), (to_s, b) in pairwise(one.corners):
            track.glide(from_s, 1.35 * (to_s - from_s), b - a)
        track.glide(one.home_s, one.end_s - one.home_s, -one.corners[-1][1])
        onset_s = one.corners[0][0]
        mark(state_M, onset_s, one.home_s, 1 + names.index(one.name))
        columns = {"symbol": names.index(one.name), "word": one.word, "onset_s": onset_s}
        trials.append(Trial(one.start_s, one.end_s, one.name, columns))
    finished, unfinished = table(trials, seconds, {"symbol": 0, "word": 0, "onset_s": 0.0})
    position_MD = track.values_MD() + smooth_noise(samples, 2, time_s=0.1, sd=0.01, rng=seeds.generator("tremor"))
    velocity_MD = rate_of_change(position_MD)
    drive = compressed(velocity_MD, HALF_PEN_CM_S)
    drives = (
        Drive("velocity", drive),
        Drive("speed", np.linalg.norm(drive, axis=0)[None]),
        Drive("position", position_MD.T / (2 * SYMBOL_CM)),
        Drive("state", softened(state_M > 0, 0.06)),
    )
    values = np.concatenate((position_MD, velocity_MD, state_M[:, None]), axis=1)
    return Performance(values, PEN, drives, finished, unfinished)


def _symbols(rng: np.random.Generator) -> Iterator[_Symbol]:
    now_s, word, names = 0.5, 0, list(SYMBOLS)
    while True:
        for _ in range(int(rng.integers(2, 7))):
            name = names[int(rng.integers(len(names)))]
            size, slant = SYMBOL_CM * float(np.exp(rng.normal(0, 0.1))), rng.normal(0.1, 0.08)
            shape = np.array(SYMBOLS[name]) + rng.normal(0, 0.06, (len(SYMBOLS[name]), 2))
            corners = np.concatenate((np.zeros((1, 2)), size * shape @ np.array(((1.0, 0.0), (slant, 1.0)))))
            pace = float(np.exp(rng.normal(0, 0.12)))
            lengths = np.linalg.norm(np.diff(corners, axis=0), axis=1)
            durations = pace * (0.09 + 0.07 * np.sqrt(lengths)) * np.exp(rng.normal(0, 0.08, len(lengths)))
            times = now_s + np.concatenate(([0.0], np.cumsum(durations)))
            home = float(times[-1]) + 0.35 * float(durations[-1])
            end = home + 0.22 * float(np.exp(rng.normal(0, 0.1))) + 0.08
            chain = tuple((float(t), c) for t, c in zip(times, corners, strict=True))
            yield _Symbol(name, word, now_s, chain, home, end - 0.08)
            now_s = end
        now_s += 0.6 + rng.exponential(0.4)
        word += 1
