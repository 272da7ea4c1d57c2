"""Reaching tasks: kinematics as people and monkeys move, trial tables that tell what the hand did."""

from __future__ import annotations

import numpy as np
import pytest

from betz.core.seeds import SeedTree
from betz.sim.tasks import (
    NEAREST_CM,
    REACH_CM,
    SAMPLE_HZ,
    TARGET_RADIUS_CM,
    TICKS_PER_SAMPLE,
    WORKSPACE_CM,
    Movement,
    Reach,
    Submovement,
    Task,
    _table,
    minimum_jerk,
    perform,
)

TASKS: tuple[Task, ...] = ("random_target", "center_out")


def move(task: Task, *, seconds: float = 120, seed: int = 0) -> Movement:
    return perform(task, seconds=seconds, margin_s=0.2, seeds=SeedTree(seed))


def samples(movement: Movement, ticks: np.ndarray) -> np.ndarray:
    return np.asarray(ticks // TICKS_PER_SAMPLE)


def test_minimum_jerk_by_its_closed_form() -> None:
    time = np.linspace(0, 1, 1001)
    share = minimum_jerk(time)
    assert (share[0], share[500], share[-1]) == (0, 0.5, 1)
    speed = np.gradient(share, time)
    assert speed[500] == pytest.approx(1.875, abs=1e-3)  # peak over mean speed, Flash & Hogan 1985
    assert abs(speed[0]) + abs(speed[-1]) < 1e-2


def test_a_submovement_ends_where_it_should() -> None:
    position, jump = np.zeros((1000, 2)), np.zeros((1000, 2))
    Submovement(0.1, 0.4, (3.0, -4.0), skew=0.8, bend=0.1).add_to(position, jump)
    position += np.cumsum(jump, axis=0)
    assert np.all(position[:100] == 0)
    assert np.allclose(position[500:], (3.0, -4.0))
    sideways = position @ np.array((4.0, 3.0)) / 5  # to the left of the way
    assert sideways.max() == pytest.approx(0.1 * 5, abs=0.01)
    assert np.linalg.norm(np.diff(position, axis=0), axis=1).argmax() < 300  # skew below 1: an early peak


def test_a_submovement_may_run_over_the_end() -> None:
    position, jump = np.zeros((300, 2)), np.zeros((300, 2))
    Submovement(0.1, 0.4, (3.0, 0.0)).add_to(position, jump)
    assert np.all(jump == 0)
    assert position[-1, 0] == pytest.approx(3 * minimum_jerk(np.array(0.4975)), abs=0.01)


@pytest.mark.parametrize("task", TASKS)
def test_velocity_is_the_slope_of_position(task: Task) -> None:
    values = move(task, seconds=20).values_MK
    slope = (values[2:, :2] - values[:-2, :2]) * SAMPLE_HZ / 2
    assert np.allclose(slope, values[1:-1, 2:])


@pytest.mark.parametrize("task", TASKS)
def test_a_longer_recording_begins_like_a_shorter_one(task: Task) -> None:
    short, long, other = move(task, seconds=20), move(task, seconds=50), move(task, seconds=20, seed=1)
    number = 20 * SAMPLE_HZ
    assert np.array_equal(short.values_MK[:number], long.values_MK[:number])
    assert np.array_equal(short.trials.end, long.trials.end[: len(short.trials)])
    assert not np.allclose(short.values_MK[:number], other.values_MK[:number], atol=0.5)


def test_center_out_visits_every_target_once_a_round() -> None:
    trials = move("center_out").trials
    assert len(trials) >= 48
    out, back = trials.condition[0::2], trials.condition[1::2]
    assert [name.replace("out", "back") for name in out[: len(back)]] == list(back)
    for first in range(0, len(out) - 7, 8):
        assert sorted(out[first : first + 8]) == [f"out_{k}" for k in range(8)]
    for name, target in zip(trials.condition, trials.columns["target"], strict=True):
        angle = 2 * np.pi * int(name[-1]) / 8
        wanted = REACH_CM * np.array((np.cos(angle), np.sin(angle))) if name.startswith("out") else np.zeros(2)
        assert np.allclose(target, wanted)


def test_random_targets_fill_the_square_and_are_not_too_near() -> None:
    trials = move("random_target", seconds=400).trials
    target = trials.columns["target"]
    assert np.abs(target).max() <= WORKSPACE_CM / 2
    assert np.abs(target).max(axis=0).min() > 0.9 * WORKSPACE_CM / 2
    way = np.diff(target, axis=0, prepend=np.zeros((1, 2)))
    assert np.linalg.norm(way, axis=1).min() >= NEAREST_CM
    octant = np.rint(np.degrees(np.arctan2(way[:, 1], way[:, 0])) / 45).astype(int) % 8
    assert list(trials.condition) == [f"toward_{k}" for k in octant]


@pytest.mark.parametrize("task", TASKS)
def test_the_table_tells_what_the_hand_did(task: Task) -> None:
    movement = move(task)
    trials, values = movement.trials, movement.values_MK
    assert np.array_equal(trials.start[1:], trials.end[:-1])  # the next target appears when the hold is over
    onset = trials.columns["onset"]
    assert np.all((trials.start + 0.15 * 30_000 <= onset) & (onset < trials.end))
    speed = np.hypot(values[:, 2], values[:, 3])
    for start, begun, end, target in zip(
        *(samples(movement, t) for t in (trials.start, onset, trials.end)), trials.columns["target"], strict=True
    ):
        assert speed[begun - 50 : begun].max() < 5  # at rest, but for tremor and wander
        assert speed[begun:end].max() > 5
        assert np.linalg.norm(values[end - 1, :2] - target) < 1.5
        assert start < begun
    assert movement.unfinished == 1


def test_success_is_read_off_the_hand() -> None:
    def reach(x_cm: float) -> Reach:
        return Reach(0.0, 0.1, 0.2, 0.3, (x_cm, 0.0), "out_0", ())

    inside, outside = TARGET_RADIUS_CM - 0.01, TARGET_RADIUS_CM + 0.01
    table = _table([reach(inside), reach(outside)], np.zeros((400, 2)))
    assert table.columns["success"].tolist() == [True, False]
    left = np.zeros((400, 2))
    left[250] = 2.0  # leaves the target once during the hold
    assert _table([reach(inside)], left).columns["success"].tolist() == [False]
    assert len(_table([], np.zeros((400, 2)))) == 0


def test_farther_targets_take_longer() -> None:
    """Fitts 1954: time to the target grows with the logarithm of the distance."""
    movement = move("random_target", seconds=400)
    trials, position = movement.trials, movement.values_MK[:, :2]
    begun = samples(movement, trials.columns["onset"])
    distance = np.linalg.norm(trials.columns["target"] - position[begun], axis=1)
    seconds = (trials.end - trials.columns["onset"]) / 30_000
    near, far = distance < np.quantile(distance, 0.25), distance > np.quantile(distance, 0.75)
    assert seconds[far].mean() > seconds[near].mean() + 0.08


@pytest.mark.parametrize("task", TASKS)
def test_speeds_are_those_of_reaching_monkeys(task: Task) -> None:
    """Real self-paced reaching: sd 6.5 … 8 cm/s, median speed 1 … 1.5 cm/s, 99th percentile 37 … 40 cm/s."""
    velocity = move(task, seconds=300).values_MK[:, 2:]
    speed = np.hypot(*velocity.T)
    assert np.all((velocity.std(axis=0) > 6) & (velocity.std(axis=0) < 9))
    assert 0.5 < np.median(speed) < 2.5
    assert 25 < np.quantile(speed, 0.99) < 45


def test_behavior_is_given_at_1_khz_with_units() -> None:
    series = move("center_out", seconds=5).series(5000)
    assert series.values.shape == (5000, 4)
    assert series.values.dtype == np.float32
    assert (series.origin_tick, series.ticks_per_sample) == (0, 30)
    assert [(d.name, d.unit) for d in series.dims] == [
        ("hand_x", "cm"),
        ("hand_y", "cm"),
        ("hand_vx", "cm/s"),
        ("hand_vy", "cm/s"),
    ]
