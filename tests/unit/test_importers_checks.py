"""What can be wrong with a recording is found from the data alone, and not found where nothing is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from betz.core.session import BehaviorDim
from betz.data.importers import checks

BIN_S = 0.05


def dims(*names: str) -> tuple[BehaviorDim, ...]:
    return tuple(BehaviorDim(name, "a.u.") for name in names)


def moving(bins: int = 12_000) -> Any:
    """(N, 2) position of something that moves all the time."""
    time = np.arange(bins) * BIN_S
    return np.stack([np.sin(time) + 0.3 * np.sin(2.7 * time), np.cos(0.8 * time)], axis=1)


# ---- names and groups


def test_groups_of_names() -> None:
    found = checks.groups(
        [*dims("hand_x", "hand_y", "hand_vx", "emg_FDS"), BehaviorDim("go", "", "discrete", ("a", "b"))]
    )
    assert found == {"hand": [0, 1], "hand velocity": [2], "emg": [3]}
    assert [checks.is_instruction(g) for g in ("target", "target velocity", "hand", "cue", "goal")] == [
        True, True, False, True, True,
    ]  # fmt: skip
    assert checks.position_velocity_pairs(dims("a_x", "a_y", "a_vx", "a_vy", "b_x", "c_vx")) == [("a", [0, 1], [2, 3])]


def test_stretches_as_people_say_them() -> None:
    assert checks.stretches(np.zeros(3, bool)) == []
    assert checks.stretches(np.ones(3, bool)) == [(0, 3)]
    assert checks.spoken([(0, 1200), (2400, 3600)], BIN_S) == "0.0–1.0, 2.0–3.0 min"
    assert checks.spoken([(k, k + 1) for k in range(7)], 60.0).endswith(" and 2 more min")
    assert checks.pairs_of([0, 10, 30], 50) == [(0, 10), (10, 30), (30, 50)]


# ---- behavior


def test_a_subject_that_stops_is_found() -> None:
    values = moving()
    assert checks.idle_stretches(values, BIN_S) == []
    values[3000:6000] = 0.3
    values[9000:] = 0.2 + 0.001 * np.sin(np.arange(3000))[:, None]
    assert checks.idle_stretches(values, BIN_S) == [(3000, 6000), (9000, 12_000)]
    assert checks.idle_by_effector(values, dims("hand_x", "hand_y"), BIN_S) == {"hand": [(3000, 6000), (9000, 12_000)]}
    assert checks.idle_by_effector(values, dims("emg_a", "target_x"), BIN_S) == {}


def test_one_moving_dimension_is_enough_not_to_be_idle() -> None:
    values = moving()
    values[3000:6000, 0] = 0.0
    assert checks.idle_stretches(values, BIN_S) == []
    assert checks.idle_stretches(moving(1000), BIN_S) == []  # less than two minutes tell nothing


def test_unknown_behavior_is_not_idle() -> None:
    values = moving()
    values[9000:] = np.nan
    assert checks.idle_stretches(values, BIN_S) == []
    assert checks.idle_stretches(np.full_like(values, np.nan), BIN_S) == []
    half = moving()
    half[:, 1] = np.nan
    assert checks.idle_stretches(half, BIN_S) == []


def test_behavior_notes_name_what_is_odd() -> None:
    rng = np.random.default_rng(0)
    good = np.cumsum(rng.normal(size=(4000, 8)), axis=0)
    good /= np.subtract(*np.percentile(good, (99, 1), axis=0))
    names = tuple(f"emg_{k}" for k in range(8))
    assert checks.behavior_notes(good, dims(*names), BIN_S) == []
    bad = good.copy()
    bad[:, 0] = 2.0
    bad[:, 1] = 0.001 * rng.normal(size=4000)
    bad[:, 2] = rng.integers(0, 9, 4000)
    bad[7, 3] = 1000
    bad[:, 4] = np.clip(bad[:, 4], -9, np.quantile(bad[:, 4], 0.9))
    bad[:, 5] *= 100
    text = "\n".join(checks.behavior_notes(bad, dims(*names), BIN_S))
    for line in (
        "constant behavior: emg_0",
        "near-dead behavior (range as a share of its group's median, and white): emg_1 (",
        "looks like noise, neighbouring bins being uncorrelated: emg_2 (r = ",
        "peaks more than 20 ranges away from the rest, likely artefacts: emg_3 (1 bins, up to 1000)",
        "emg_4 (10.0% of bins at ",
        "values piling up at an extreme, likely clipped: emg_2 (",
        "of a far larger range than the median of its group, likely artefacts or another gain: emg_5 (",
    ):
        assert line in text
    assert "emg_6" not in text


def test_instructions_and_unknown_values_are_not_called_odd() -> None:
    held = np.repeat([[1.0], [5.0]], 500, axis=0)
    assert checks.behavior_notes(held, dims("target_x"), BIN_S) == []
    unknown = checks.behavior_notes(np.full((1000, 1), np.nan), dims("hand_x"), BIN_S)
    assert unknown == ["constant behavior: hand_x"]


def test_correlation_of_neighbours() -> None:
    white = np.random.default_rng(0).normal(size=5000)
    assert abs(checks.correlation_of_neighbours(white)) < 0.05
    assert checks.correlation_of_neighbours(moving()[:, 0]) > 0.99
    assert np.isnan(checks.correlation_of_neighbours(np.ones(50)))
    gappy = moving()[:, 0].copy()
    gappy[::10] = np.nan
    assert checks.correlation_of_neighbours(gappy) > 0.99


@pytest.mark.parametrize("kind", ["own bin", "bin before", "mean of two"])
def test_time_in_which_position_changes_by_velocity(kind: str) -> None:
    velocity = moving(2000)
    start = np.arange(10, 2000, 10)  # a new trial starts somewhere else, with no velocity in that row
    if kind == "own bin":
        velocity[start] = 0
    used = {
        "own bin": velocity[1:],
        "bin before": velocity[:-1],
        "mean of two": (velocity[1:] + velocity[:-1]) / 2,
    }[kind]
    position = np.concatenate((np.zeros((1, 2)), np.cumsum(used * 0.064, axis=0)))
    if kind == "own bin":
        position += np.cumsum(np.isin(np.arange(2000), start) * np.random.default_rng(0).normal(0, 0.08, 2000))[:, None]
    assert checks.implied_bin_s(position, velocity) == pytest.approx(0.064, rel=0.01)


def test_no_such_time_where_velocity_is_something_else() -> None:
    rng = np.random.default_rng(0)
    assert checks.implied_bin_s(moving(2000), rng.normal(size=(2000, 2))) is None
    assert checks.implied_bin_s(moving(10), moving(10)) is None
    assert checks.implied_bin_s(np.zeros((100, 2)), moving(100)) is None


def test_transients_of_a_held_signal() -> None:
    held = np.repeat([[1.0, 1], [5, 1], [2, 1]], 8, axis=0)
    assert not checks.transients(held).any()
    held[8] = 3.0, 1
    assert np.flatnonzero(checks.transients(held)).tolist() == [8]
    held[12:14] = np.nan
    assert np.flatnonzero(checks.transients(held)).tolist() == [8]


def test_two_signals_that_part() -> None:
    a = moving(24_000)[:, 0]  # 20 minutes
    b = 3 * a + 1
    assert checks.out_of_step(a, b, BIN_S) is None
    parted = b.copy()
    parted[9600:] = np.random.default_rng(0).normal(size=14_400)
    minute, before, after = checks.out_of_step(a, parted, BIN_S) or (0, 0, 0)
    assert (minute, before) == (8, pytest.approx(1))
    assert abs(after) < 0.2
    assert checks.out_of_step(a, np.random.default_rng(0).normal(size=24_000), BIN_S) is None  # never together
    once = b.copy()
    once[9600:10_800] = 0.0
    assert checks.out_of_step(a, once, BIN_S) is None  # together again at the end
    assert checks.out_of_step(a[:3000], parted[-3000:], BIN_S) is None


# ---- signals


def counts(bins: int = 12_000, rate: float = 0.5) -> Any:
    return np.random.default_rng(0).poisson(rate, (bins, 20)).astype(np.uint8)


def test_silence_of_all_channels() -> None:
    spikes = counts()
    assert checks.silent_stretches(spikes, BIN_S) == []
    spikes[3000:3200] = 0
    spikes[5000:5010] = 0  # half a second
    assert checks.silent_stretches(spikes, BIN_S) == [(3000, 3200)]
    usable = np.ones(12_000, bool)
    usable[2900:3300] = False
    assert checks.silent_stretches(spikes, BIN_S, usable) == []
    assert checks.silent_stretches(np.zeros((100, 3), np.uint8), BIN_S) == []
    sparse = np.zeros((12_000, 3), np.uint8)
    sparse[::100] = 1  # five seconds without a spike are nothing special here
    assert checks.silent_stretches(sparse, BIN_S) == []


def test_rates_that_change() -> None:
    assert checks.rate_notes(counts(), BIN_S) == []
    silent = counts()
    silent[3000:4200] = 0
    (note,) = checks.rate_notes(silent, BIN_S)
    assert note == "no channel has a spike for 60 s in all (2.5–3.5 min): the recording was cut"
    low = counts()
    low[6000:7800] = np.random.default_rng(1).poisson(0.05, (1800, 20))
    (note,) = checks.rate_notes(low, BIN_S)
    assert note.startswith("the population rate is below 30 % of its median (9.9 /s a channel) in 5.0–6.5")
    rising = counts()
    rising[6000:] *= 3
    (note,) = checks.rate_notes(rising, BIN_S)
    assert (
        note
        == "the population rate rises from 10.0 to 30.0 /s a channel, mostly at 5.0 min: early and late bins differ"
    )
    assert checks.rate_notes(counts(600), BIN_S) == []  # half a minute tells nothing
