"""Grasping and pressing: an aperture that opens, closes and holds; isometric forces that ramp to a level."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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
GRASP_STATES = ("rest", "pre-shape", "hold")
GRASP = (
    BehaviorDim("aperture", "cm"),
    BehaviorDim("aperture_v", "cm/s"),
    BehaviorDim("grip_force", "N"),
    BehaviorDim("grasp_state", "", "discrete", GRASP_STATES),
)
OBJECTS_CM = {"small": 2.0, "medium": 4.5, "large": 7.0}
LOADS_N = {"light": 2.0, "heavy": 6.0}
REST_CM = 1.5
HALF_APERTURE_CM_S = 10.0
SLIPS = 0.05
"""Share of grasps that slip before the hold is over."""

FORCE_LEVELS_N = (2.5, 5.0, 7.5)
FULL_N = 10.0
HALF_FORCE_N_S = 10.0
FORCE_TOLERANCE = 0.1
"""A force counts as right within so much of its level (at least 0.4 N)."""


@dataclass(frozen=True)
class _Grasp:
    """One grasp: times in seconds, aperture in cm, load in N."""

    cue_s: float
    onset_s: float
    peak_s: float
    contact_s: float
    release_s: float
    rest_s: float
    end_s: float
    object: str
    load: str
    peak_cm: float
    slipped: bool


def grasp(*, seconds: float, margin_s: float, seeds: SeedTree) -> Performance:
    """Grasp objects of three sizes and two weights, hold and let go.

    The hand opens wider than the object, the wider the larger it is (Jeannerod 1984), closes, and presses with what the
    load asks for.

    Args:
        seconds: length of the recording.
        margin_s: the hand moves on for so long after it (signals lead movement).
        seeds: a longer recording begins like a shorter one of the same seeds.

    Returns:
        ``aperture`` (cm), ``aperture_v`` (cm/s), ``grip_force`` (N) and the discrete ``grasp_state`` (rest, pre-shape,
        hold); trials with ``onset``, ``contact`` and ``release`` ticks, ``size`` (cm), ``load`` (N) and ``success``
        (no slip).
    """
    samples = num_samples(seconds, margin_s)
    aperture, force, state_M = Track(samples, 1), Track(samples, 1), np.zeros(samples)
    trials = []
    for one in _grasps(seeds.generator("grasps")):
        if one.cue_s > seconds + margin_s:
            break
        size, load = OBJECTS_CM[one.object], LOADS_N[one.load]
        aperture.glide(one.onset_s, one.peak_s - one.onset_s, one.peak_cm - REST_CM)
        aperture.glide(one.peak_s, one.contact_s - one.peak_s, size - one.peak_cm)
        aperture.glide(one.release_s, one.rest_s - one.release_s, REST_CM - size)
        force.glide(one.contact_s - 0.02, 0.25, load)
        force.glide(one.release_s - 0.12, 0.15, -load)
        mark(state_M, one.onset_s, one.contact_s, GRASP_STATES.index("pre-shape"))
        mark(state_M, one.contact_s, one.release_s, GRASP_STATES.index("hold"))
        trials.append(_grasp_trial(one, size, load))
    like = {"onset_s": 0.0, "contact_s": 0.0, "release_s": 0.0, "size": 0.0, "load": 0.0, "success": True}
    finished, unfinished = table(trials, seconds, like)
    wander = smooth_noise(samples, 1, time_s=0.3, sd=0.06, rng=seeds.generator("aperture"))
    opened_M1 = REST_CM + aperture.values_MD() + wander
    pressed_M1 = _with_force_noise(force.values_MD(), seeds)
    speed_M1 = rate_of_change(opened_M1)
    values = np.concatenate((opened_M1, speed_M1, pressed_M1, state_M[:, None]), axis=1)
    states = [softened(state_M == k, 0.08) for k in (1, 2)]
    drives = (
        Drive("velocity", compressed(speed_M1, HALF_APERTURE_CM_S)),
        Drive("posture", (opened_M1.T - 4) / 4),
        Drive("force", pressed_M1.T / max(LOADS_N.values())),
        Drive("state", np.concatenate(states)),
    )
    return Performance(values, GRASP, drives, finished, unfinished)


def _grasps(rng: np.random.Generator) -> Iterator[_Grasp]:
    now_s = 0.0
    kinds = [(o, w) for o in OBJECTS_CM for w in LOADS_N]
    while True:
        for k in rng.permutation(len(kinds)):
            name, load = kinds[k]
            onset = now_s + 0.2 + rng.gamma(4.0, 0.025)
            peak = onset + 0.42 * np.exp(rng.normal(0, 0.12))
            contact = peak + 0.28 * np.exp(rng.normal(0, 0.12))
            hold, slipped = 0.7 + rng.exponential(0.3), bool(rng.random() < SLIPS)
            release = contact + (rng.uniform(0.35, 0.6) if slipped else hold)
            rest = release + 0.45 * np.exp(rng.normal(0, 0.1))
            end = rest + 0.4 + rng.exponential(0.4)
            wide = OBJECTS_CM[name] + 2.0 + rng.normal(0, 0.3)
            yield _Grasp(now_s, onset, peak, contact, release, rest, end, name, load, wide, slipped)
            now_s = end


def _grasp_trial(one: _Grasp, size: float, load: float) -> Trial:
    columns = {
        "onset_s": one.onset_s,
        "contact_s": one.contact_s,
        "release_s": one.release_s,
        "size": size,
        "load": load,
        "success": not one.slipped,
    }
    return Trial(one.cue_s, one.end_s, f"{one.object}_{one.load}", columns)


def isometric(*, dimensions: int = 2, seconds: float, margin_s: float, seeds: SeedTree) -> Performance:
    """Press against something that does not move: ramp to a force, hold it, let go.

    Args:
        dimensions: 1 (three levels) or 2 (eight directions at two levels).
        seconds, margin_s, seeds: as for :func:`grasp`.

    Returns:
        ``force_x`` (and ``force_y``) in N; trials with ``target`` (N), ``onset`` and ``hold`` ticks, and ``success``
        (the force that is held lies within a tenth of the target).

    Raises:
        ConfigError: it has one dimension or two.
    """
    if dimensions not in (1, 2):
        raise ConfigError(f"{dimensions} dimensions of force are impossible.", where="isometric", remedy="1 or 2")
    samples = num_samples(seconds, margin_s)
    track, trials = Track(samples, dimensions), []
    for trial, ramps in _presses(dimensions, seeds.generator("presses")):
        if trial.start_s > seconds + margin_s:
            break
        for start_s, duration_s, step_D in ramps:
            track.glide(start_s, duration_s, step_D)
        trials.append(trial)
    like = {"target": np.zeros(dimensions), "onset_s": 0.0, "hold_s": 0.0, "success": True}
    finished, unfinished = table(trials, seconds, like)
    force_MD = _with_force_noise(track.values_MD(), seeds)
    drives = (
        Drive("velocity", compressed(rate_of_change(force_MD), HALF_FORCE_N_S)),
        Drive("force", force_MD.T / FULL_N),
    )
    dims = tuple(BehaviorDim(f"force_{axis}", "N") for axis in "xy"[:dimensions])
    return Performance(force_MD, dims, drives, finished, unfinished)


def _presses(dimensions: int, rng: np.random.Generator) -> Iterator[tuple[Trial, list[tuple[float, float, Float]]]]:
    """Trials and their ramps (start, duration, step in N) without end."""
    now_s = 0.0
    while True:
        for name, target in _force_targets(dimensions, rng):
            level = float(np.linalg.norm(target))
            onset = now_s + 0.2 + rng.gamma(4.0, 0.03)
            rise = (0.25 + 0.04 * level) * float(np.exp(rng.normal(0, 0.15)))
            reached = target * (1 + rng.normal(0, 0.12)) + rng.normal(0, 0.06 * level, dimensions)
            fixed = onset + rise + 0.12
            rest = (target - reached) * rng.uniform(0.2, 1.0)
            hold = fixed + 0.25
            release = hold + 0.5 + rng.exponential(0.2)
            end = release + 0.35 + rng.exponential(0.3) + 0.3
            ramps = [(onset, rise, reached), (fixed, 0.25, rest), (release, 0.3, -(reached + rest))]
            good = float(np.linalg.norm(reached + rest - target)) <= max(FORCE_TOLERANCE * level, 0.4)
            columns = {"target": target, "onset_s": onset, "hold_s": hold, "success": good}
            yield Trial(now_s, end, name, columns), ramps
            now_s = end


def _force_targets(dimensions: int, rng: np.random.Generator) -> list[tuple[str, Float]]:
    if dimensions == 1:
        found = [(f"level_{k}", np.array([level])) for k, level in enumerate(FORCE_LEVELS_N)]
    else:
        found = []
        for k in range(8):
            way = np.array((np.cos(k * np.pi / 4), np.sin(k * np.pi / 4)))
            found += [(f"toward_{k}_level_{i}", level * way) for i, level in enumerate(FORCE_LEVELS_N[::2])]
    return [found[k] for k in rng.permutation(len(found))]


def _with_force_noise(force_MD: Float, seeds: SeedTree) -> Float:
    """Forces with noise that grows with the force (3 %), as in Jones et al. 2002, and a little at rest."""
    slow = smooth_noise(*force_MD.shape, time_s=0.15, sd=1.0, rng=seeds.generator("force"))
    level_M1 = np.linalg.norm(force_MD, axis=1, keepdims=True)
    return np.asarray(force_MD + slow * (0.05 + 0.03 * level_M1))
