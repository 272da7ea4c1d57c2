"""Constraints, rewards and returns of a session."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from betz.core.intervals import Intervals
from betz.core.session import Assistance, Channel, Session
from betz.core.timegrid import BinGrid
from betz.tokens.context import TaskContext, returns_of

FILES = Path(__file__).parents[1] / "golden" / "files" / "tiny_pretrain"
GRID = BinGrid.from_ms(20, tick_hz=30000)
BIN = GRID.ticks_per_bin


def session(**other: object) -> Session:
    counts = np.zeros((1000, 1), np.uint8)
    made = Session(id="a", subject="b", grid=GRID, num_bins=1000, channels=(Channel("c"),), counts=counts)
    return replace(made, **other)  # type: ignore[arg-type]


def test_returns_are_the_reference_s() -> None:
    compared = 0
    for path in sorted(FILES.glob("case_*/raw_trial*.npz")):
        with np.load(path) as file:
            if "task_reward" in file.files:
                assert np.array_equal(returns_of(file["task_reward"][:, 0], 20.0), file["task_return"][:, 0])
                compared += 1
    assert compared == 3


def test_a_return_is_the_sum_over_ten_seconds_with_this_bin() -> None:
    rewards = np.random.default_rng(0).integers(0, 2, 1300)
    for bin_ms, bins in ((20.0, 500), (50.0, 200), (30.0, 333)):
        wanted = [rewards[n : n + bins].sum() for n in range(1300)]
        assert returns_of(rewards, bin_ms).tolist() == wanted


def test_native_movement_has_no_constraints() -> None:
    found = TaskContext.of(session())
    assert (found.constraint_N3, found.rewards_N, found.returns_N) == (None, None, None)


def test_constraints_and_rewards_of_a_session() -> None:
    found = TaskContext.of(
        session(
            brain_control=Intervals.of([(10 * BIN, 20 * BIN)]),
            assistance=(Assistance(15 * BIN, 30 * BIN, "active", 0.5), Assistance(18 * BIN, 25 * BIN, "active", 0.75)),
            reward=np.array([[5, 1000], [600 * BIN + 7, 250], [700 * BIN, 0], [2000 * BIN, 1000]], np.int64),
        )
    )
    assert found.constraint_N3 is not None
    assert found.rewards_N is not None
    assert found.returns_N is not None
    assert np.flatnonzero(found.constraint_N3[:, 0] == 0).tolist() == list(range(10, 20))
    assert [float(found.constraint_N3[n, 1]) for n in (14, 15, 18, 24, 25, 29, 30)] == [0, 0.5, 0.75, 0.75, 0.5, 0.5, 0]
    assert not found.constraint_N3[:, 2].any()
    assert np.flatnonzero(found.rewards_N).tolist() == [0, 600]
    assert [int(found.returns_N[n]) for n in (0, 1, 100, 101, 600, 601)] == [1, 0, 0, 1, 1, 0]
