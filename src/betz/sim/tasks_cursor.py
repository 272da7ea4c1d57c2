"""Reaching with a choice: keys of a grid, clicks on targets, and stretches of rest between stretches of movement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from betz.core.seeds import SeedTree
from betz.core.session import BehaviorDim
from betz.sim.performance import Drive, Performance, Trial, mark, num_samples, rate_of_change, softened, table
from betz.sim.tasks import HAND, NEAREST_CM, WORKSPACE_CM, Movement, Reach, reach_to, wander
from betz.sim.tuning import features_FM

Float = NDArray[np.float64]
KEYS, KEY_CM = 5, 2.5
BOARD_CM = KEYS * KEY_CM
CLICK_DIM = BehaviorDim("click", "", "discrete", ("no", "yes"))
STATE_DIM = BehaviorDim("state", "", "discrete", ("rest", "move"))
CLICK_S = (0.2, 0.35)
"""How long a click is held."""
WITHOUT_CLICK = 0.3
"""Share of targets that are only touched: stopping alone does not tell a click."""
SLIPS = 0.05
"""Share of keys that are missed for one beside them."""


def hand_drives(values_MK: Float) -> tuple[Drive, ...]:
    """What rates respond to in a hand: velocity, its length, position."""
    features = features_FM(values_MK)
    return Drive("velocity", features[:2]), Drive("speed", features[2:3]), Drive("position", features[3:])


def of_movement(movement: Movement) -> Performance:
    """A reaching movement as a performance."""
    drives = hand_drives(movement.values_MK)
    return Performance(movement.values_MK, HAND, drives, movement.trials, movement.unfinished)


def grid(*, seconds: float, margin_s: float, seeds: SeedTree) -> Performance:
    """Touch one key after the other on a board of 5 × 5 keys, each 2.5 cm wide.

    Args:
        seconds: length of the recording.
        margin_s: the hand moves on for so long after it (signals lead movement).
        seeds: a longer recording begins like a shorter one of the same seeds.

    Returns:
        ``hand_x``, ``hand_y`` (cm) and their velocities (cm/s); trials with ``target`` (cm), ``key`` (row by row from
        below), ``touched`` (the key the hand ends on, −1 = none), ``onset`` ticks and ``success`` (the two are one).
        Conditions are ``key_<k>``.
    """
    rng, samples = seeds.generator("keys"), num_samples(seconds, margin_s)
    hand, now_s, reaches, trials = np.zeros(2), 0.0, [], []
    key = KEYS**2 // 2
    while now_s <= seconds + margin_s:
        key = (key + int(rng.integers(1, KEYS**2))) % KEYS**2  # never the same key twice in a row
        aimed = _beside(key, rng) if rng.random() < SLIPS else key
        reach, hand = reach_to(hand, _center(aimed), f"key_{key}", now_s, self_paced=True, rng=rng)
        touched = _key_at(hand)
        columns = {
            "target": _center(key),
            "key": key,
            "touched": touched,
            "onset_s": reach.onset_s,
            "success": touched == key,
        }
        trials.append(Trial(reach.cue_s, reach.end_s, reach.condition, columns))
        reaches.append(reach)
        now_s = reach.end_s
    like = {"target": np.zeros(2), "key": 0, "touched": 0, "onset_s": 0.0, "success": True}
    finished, unfinished = table(trials, seconds, like)
    values_MK = _hand(reaches, samples, seeds)
    return Performance(values_MK, HAND, hand_drives(values_MK), finished, unfinished)


def click(*, seconds: float, margin_s: float, seeds: SeedTree) -> Performance:
    """Reach random targets; click on most of them.

    Args:
        seconds, margin_s, seeds: as for :func:`grid`.

    Returns:
        The hand as in :func:`grid` and the discrete ``click`` (no, yes: while it is held); trials with ``target`` (cm),
        ``onset`` and ``click`` ticks (the end of the trial if there was none) and ``clicked``. Conditions are ``click``
        and ``touch``.
    """
    rng, samples = seeds.generator("clicks"), num_samples(seconds, margin_s)
    clicking_M, reaches, trials = np.zeros(samples), [], []
    hand, now_s = np.zeros(2), 0.0
    while now_s <= seconds + margin_s:
        target = _random_target(hand, rng)
        clicked = bool(rng.random() >= WITHOUT_CLICK)
        reach, hand = reach_to(hand, target, "click" if clicked else "touch", now_s, self_paced=False, rng=rng)
        start_s = reach.arrival_s + 0.1 + rng.gamma(3.0, 0.04)
        stop_s = start_s + rng.uniform(*CLICK_S)
        end_s = max(reach.end_s, stop_s + 0.15) if clicked else reach.end_s
        if clicked:
            mark(clicking_M, start_s, stop_s, 1.0)
        columns = {
            "target": target,
            "onset_s": reach.onset_s,
            "click_s": start_s if clicked else end_s,
            "clicked": clicked,
        }
        trials.append(Trial(reach.cue_s, end_s, reach.condition, columns))
        reaches.append(reach)
        now_s = end_s
    like = {"target": np.zeros(2), "onset_s": 0.0, "click_s": 0.0, "clicked": True}
    finished, unfinished = table(trials, seconds, like)
    values_MK = _hand(reaches, samples, seeds)
    drives = (*hand_drives(values_MK), Drive("click", softened(clicking_M, 0.05)))
    values_MK = np.concatenate((values_MK, clicking_M[:, None]), axis=1)
    return Performance(values_MK, (*HAND, CLICK_DIM), drives, finished, unfinished)


def rest_move(*, seconds: float, margin_s: float, seeds: SeedTree) -> Performance:
    """Rest for some seconds, then reach to random targets for some, and again.

    Args:
        seconds, margin_s, seeds: as for :func:`grid`.

    Returns:
        The hand as in :func:`grid` and the discrete ``state`` (rest, move); trials are the stretches, with ``reaches``
        (their number). Conditions are ``rest`` and ``move``.
    """
    rng, samples = seeds.generator("stretches"), num_samples(seconds, margin_s)
    moving_M, reaches, trials = np.zeros(samples), [], []
    hand, now_s = np.zeros(2), 0.0
    while now_s <= seconds + margin_s:
        rest_s, bout = now_s, []
        now_s += rng.uniform(2.0, 5.0)
        for _ in range(int(rng.integers(3, 8))):
            reach, hand = reach_to(hand, _random_target(hand, rng), "move", now_s, self_paced=True, rng=rng)
            bout.append(reach)
            now_s = reach.end_s
        mark(moving_M, bout[0].onset_s, bout[-1].arrival_s, 1.0)
        trials.append(Trial(rest_s, bout[0].onset_s, "rest", {"reaches": 0}))
        trials.append(Trial(bout[0].onset_s, bout[-1].arrival_s, "move", {"reaches": len(bout)}))
        reaches += bout
        now_s = bout[-1].arrival_s
    finished, unfinished = table(trials, seconds, {"reaches": 0})
    values_MK = _hand(reaches, samples, seeds)
    drives = (*hand_drives(values_MK), Drive("state", softened(moving_M, 0.08)))
    values_MK = np.concatenate((values_MK, moving_M[:, None]), axis=1)
    return Performance(values_MK, (*HAND, STATE_DIM), drives, finished, unfinished)


def _center(key: int) -> Float:
    """(2,) the middle of a key in cm."""
    row, column = divmod(key, KEYS)
    return np.asarray((np.array((column, row)) + 0.5) * KEY_CM - BOARD_CM / 2)


def _key_at(hand: Float) -> int:
    """The key under the hand; −1 beside the board."""
    column, row = np.floor((hand + BOARD_CM / 2) / KEY_CM).astype(int).tolist()
    return row * KEYS + column if 0 <= row < KEYS and 0 <= column < KEYS else -1


def _beside(key: int, rng: np.random.Generator) -> int:
    """A key that has an edge with this one."""
    row, column = divmod(key, KEYS)
    near = [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
    inside = [r * KEYS + c for r, c in near if 0 <= r < KEYS and 0 <= c < KEYS]
    return inside[int(rng.integers(len(inside)))]


def _random_target(hand: Float, rng: np.random.Generator) -> Float:
    while True:
        target = rng.uniform(-WORKSPACE_CM / 2, WORKSPACE_CM / 2, 2)
        if np.hypot(*(target - hand)) >= NEAREST_CM:
            return np.asarray(target)


def _hand(reaches: Sequence[Reach], samples: int, seeds: SeedTree) -> Float:
    """(M, 4) position and velocity of the hand that makes these reaches."""
    position_MD, jump_MD = wander(samples, seeds), np.zeros((samples, 2))
    for reach in reaches:
        for part in reach.submovements:
            part.add_to(position_MD, jump_MD)
    position_MD += np.cumsum(jump_MD, axis=0)
    return np.concatenate((position_MD, rate_of_change(position_MD)), axis=1)
