"""Every simulated task: units, classes, trials that match what was done, and a text that can be read off the pen."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from betz.core.errors import ConfigError
from betz.core.seeds import SeedTree
from betz.core.session import Channel, Session
from betz.core.timegrid import BinGrid
from betz.sim.performance import Performance, Track, Trial, smooth_noise, softened, table
from betz.sim.task_set import TASKS, performed
from betz.sim.tasks_cursor import BOARD_CM, KEY_CM, KEYS
from betz.sim.tasks_fingers import FLEXION_TOLERANCE, SYMBOLS, fingers
from betz.sim.tasks_grasp import OBJECTS_CM, isometric

SECONDS, MARGIN_S = 120.0, 0.16
DISCRETE = {"click": "click", "rest_move": "state", "grasp": "grasp_state", "writing": "symbol"}
UNITS = {
    "grasp": ["cm", "cm/s", "N", ""],
    "force_1d": ["N"],
    "force_2d": ["N", "N"],
    "fingers_2": ["1", "1", "1/s", "1/s"],
    "writing": ["cm", "cm", "cm/s", "cm/s", ""],
    "click": ["cm", "cm", "cm/s", "cm/s", ""],
}


@cache
def done(task: str, seconds: float = SECONDS) -> Performance:
    return performed(task, seconds=seconds, margin_s=MARGIN_S, seeds=SeedTree(1))  # type: ignore[arg-type]


def values(made: Performance, name: str) -> np.ndarray:
    return made.values_MK[:, [d.name for d in made.dims].index(name)]


def samples(ticks: np.ndarray) -> np.ndarray:
    assert np.all(ticks % 30 == 0)
    return ticks // 30


@pytest.mark.parametrize("task", TASKS)
def test_a_task_makes_a_session(task: str) -> None:
    made = done(task)
    grid = BinGrid.from_ms(20, tick_hz=30_000)
    session = Session(
        id=task,
        subject="nobody",
        grid=grid,
        num_bins=6000,
        channels=(Channel("c"),),
        counts=np.zeros((6000, 1), np.uint8),
        behavior=(made.series(120_000),),
        trials=made.trials,
    )
    binned = session.behavior_of([d.name for d in made.dims])
    assert np.isfinite(binned).all()
    assert np.all(binned.std(axis=0) > 0)
    assert [d.unit for d in made.dims] == UNITS.get(task, [d.unit for d in made.dims])
    discrete = [d.name for d in made.dims if d.kind == "discrete"]
    assert discrete == ([DISCRETE[task]] if task in DISCRETE else [])
    for name in discrete:
        (dim,) = session.dims_of([name])
        assert set(np.unique(values(made, name))) == set(range(len(dim.classes)))


@pytest.mark.parametrize("task", TASKS)
def test_trials_follow_each_other_and_are_counted(task: str) -> None:
    made = done(task)
    trials = made.trials
    assert len(trials) > 20
    assert made.unfinished == (0 if task == "writing" else 1)  # this one ends between two words
    assert np.all(trials.start[1:] >= trials.end[:-1])
    assert np.all(trials.end > trials.start)
    assert trials.end[-1] <= SECONDS * 30_000
    assert len(set(trials.condition)) >= 2
    if "onset" in trials.columns:
        react_s = (trials.columns["onset"] - trials.start) / 30_000
        assert np.all(trials.columns["onset"] < trials.end)
        assert np.all(react_s >= 0)
    if "success" in trials.columns and task not in ("random_target", "center_out"):
        assert 0.8 < made.trials.columns["success"].mean() < 1


@pytest.mark.parametrize("task", TASKS)
def test_a_longer_recording_begins_like_a_shorter_one(task: str) -> None:
    long, short = done(task), done(task, 40.0)
    until = round((40 + MARGIN_S) * 1000)
    assert np.array_equal(long.values_MK[:until], short.values_MK[:until])
    assert np.array_equal(long.features_FM()[:, :until], short.features_FM()[:, :until])
    number = len(short.trials)
    assert long.trials.condition[:number] == short.trials.condition
    other = performed(task, seconds=40.0, margin_s=MARGIN_S, seeds=SeedTree(2))  # type: ignore[arg-type]
    assert not np.array_equal(other.values_MK[:until], short.values_MK[:until])


@pytest.mark.parametrize("task", TASKS)
def test_features_are_of_one_size(task: str) -> None:
    made = done(task)
    assert len({drive.name for drive in made.drives}) == len(made.drives)
    assert np.abs(made.features_FM()).max() < 2
    spread = made.features_FM().std(axis=1)
    assert spread.min() > 0.1
    assert made.features_FM().shape == (sum(len(d.values_FM) for d in made.drives), len(made.values_MK))


def test_grasps_open_close_and_hold() -> None:
    made = done("grasp")
    state, aperture, force = (values(made, name) for name in ("grasp_state", "aperture", "grip_force"))
    columns = made.trials.columns
    onset, contact, release = (samples(columns[name]) for name in ("onset", "contact", "release"))
    for k, name in enumerate(made.trials.condition):
        shape, hold = slice(onset[k], contact[k]), slice(contact[k], release[k])
        assert set(state[shape]) == {1.0}
        assert set(state[hold]) == {2.0}
        size = OBJECTS_CM[name.split("_")[0]]
        assert aperture[shape].max() > size + 0.8  # wider than the object first
        assert abs(np.median(aperture[hold]) - size) < 0.3
        assert columns["size"][k] == size
        if columns["success"][k]:
            middle = slice(contact[k] + 250, release[k] - 150)
            assert abs(force[middle].mean() / columns["load"][k] - 1) < 0.15
    between = [slice(r + 600, o) for r, o in zip(release[:-1], onset[1:], strict=True)]
    assert all(set(state[part]) <= {0.0} for part in between)
    assert np.abs(np.concatenate([force[part] for part in between])).max() < 0.4


def test_forces_ramp_to_their_targets() -> None:
    for task in ("force_1d", "force_2d"):
        made = done(task)
        hold, good, target = (made.trials.columns[name] for name in ("hold", "success", "target"))
        held = np.array([made.values_MK[i : i + 400].mean(axis=0) for i in samples(hold)])
        error = np.linalg.norm(held - target, axis=1)
        level = np.linalg.norm(target, axis=1)
        bound = np.maximum(0.1 * level, 0.4)[good]
        assert np.mean(error[good] < bound + 0.4) > 0.95  # the noise of 3 % comes on top
        assert np.mean(error[good] < bound) > 0.7
        assert error[~good].mean() > 1.5 * error[good].mean()
        assert set(np.round(level, 6)) == ({2.5, 5.0, 7.5} if task == "force_1d" else {2.5, 7.5})
        start = np.linalg.norm([made.values_MK[i] for i in samples(made.trials.start)], axis=1)
        assert start.max() < 0.6
    with pytest.raises(ConfigError, match="3 dimensions of force are impossible"):
        isometric(dimensions=3, seconds=1, margin_s=0, seeds=SeedTree(0))


def test_fingers_move_alone_and_draw_their_neighbours_along() -> None:
    made = done("fingers_5")
    flexion = made.values_MK[:, :5]
    end, onset = samples(made.trials.end), samples(made.trials.columns["onset"])
    target, good, moved = (made.trials.columns[name] for name in ("target", "success", "moved"))
    there = np.array([flexion[i - 200 : i].mean(axis=0) for i in end])
    error = np.abs(there - target).max(axis=1)
    assert np.all(error[good] < FLEXION_TOLERANCE + 0.03)
    assert np.all(error[~good] > FLEXION_TOLERANCE - 0.03)
    excursion = np.array([np.ptp(flexion[a:b], axis=0) for a, b in zip(onset, end, strict=True)])
    assert np.median(excursion[moved]) > 3 * np.median(excursion[~moved])
    assert np.median(excursion[~moved]) > 0.03
    assert np.allclose(np.gradient(flexion, 0.001, axis=0), made.values_MK[:, 5:])
    for count in (1, 6):
        with pytest.raises(ConfigError, match=f"{count} fingers are impossible.*2 to 5"):
            fingers(count=count, seconds=1, margin_s=0, seeds=SeedTree(0))


def test_the_text_can_be_read_off_the_pen() -> None:
    """The trial table says the text; the shape of the pen's path alone, by nearest neighbours, says the same."""
    made = done("writing")
    assert set(made.trials.condition) == set(SYMBOLS)
    start, end = samples(made.trials.columns["onset"]), samples(made.trials.end)
    shapes = np.array(
        [made.values_MK[np.linspace(a, b - 1, 20).astype(int), :2].ravel() for a, b in zip(start, end, strict=True)]
    )
    names = np.array(made.trials.condition)
    distance = np.linalg.norm(shapes[:, None] - shapes[None], axis=2) + np.diag(np.full(len(shapes), np.inf))
    assert np.mean(names[distance.argmin(axis=1)] == names) > 0.97
    symbol = values(made, "symbol")
    for a, b, name in zip(start, end, names, strict=True):
        assert set(symbol[a : b - 250]) <= {0.0, 1.0 + list(SYMBOLS).index(name)}
        assert symbol[a + 5] == 1 + list(SYMBOLS).index(name)
    word = made.trials.columns["word"]
    assert word[0] == 0
    assert set(np.diff(word)) == {0, 1}
    pause = (made.trials.start[1:] - made.trials.end[:-1]) / 30_000
    assert np.all(pause[np.diff(word) == 1] >= 0.6)
    assert np.all(pause[np.diff(word) == 0] < 0.2)
    home = np.linalg.norm(made.values_MK[end + 20, :2], axis=1)
    assert home.max() < 0.1


def test_clicks_are_held_on_the_target_and_some_targets_are_only_touched() -> None:
    made = done("click")
    on, clicked = values(made, "click"), made.trials.columns["clicked"]
    at, end = samples(made.trials.columns["click"]), samples(made.trials.end)
    assert 0.5 < clicked.mean() < 0.9
    assert np.array_equal(np.array(made.trials.condition) == "click", clicked)
    hand = made.values_MK[:, :2]
    for k in range(len(clicked)):
        if clicked[k]:
            assert on[at[k]] == 1
            assert on[at[k] - 1] == 0
            assert np.linalg.norm(hand[at[k]] - made.trials.columns["target"][k]) < 1.5
        else:
            assert on[samples(made.trials.start)[k] : end[k]].max() == 0
    rises = np.flatnonzero(np.diff(on[: end[-1]]) > 0)
    assert len(rises) == clicked.sum()
    length_s = on[: end[-1]].sum() / 1000 / clicked.sum()
    assert 0.2 < length_s < 0.35


def test_rest_is_rest() -> None:
    made = done("rest_move")
    state, speed = values(made, "state"), np.hypot(values(made, "hand_vx"), values(made, "hand_vy"))
    part = slice(0, round(SECONDS * 1000))
    assert speed[part][state[part] == 1].mean() > 8 * speed[part][state[part] == 0].mean()
    for a, b, name in zip(samples(made.trials.start), samples(made.trials.end), made.trials.condition, strict=True):
        assert set(state[a:b]) == {float(name == "move")}
    assert set(made.trials.columns["reaches"][np.array(made.trials.condition) == "rest"]) == {0}


def test_keys_are_touched_or_one_beside_them() -> None:
    made = done("grid", 600.0)
    key, touched, good = (made.trials.columns[name] for name in ("key", "touched", "success"))
    assert np.all(key[1:] != key[:-1])
    assert set(key) == set(range(KEYS**2))
    assert np.array_equal(key == touched, good)
    row, column = np.divmod(key, KEYS)
    middle = (np.stack((column, row), axis=1) + 0.5) * KEY_CM - BOARD_CM / 2
    assert np.allclose(middle, made.trials.columns["target"])
    there = made.values_MK[samples(made.trials.end) - 1, :2]
    assert np.all(np.abs(there - middle)[good] < KEY_CM / 2 + 0.4)
    missed = np.abs(np.stack(np.divmod(touched, KEYS)) - np.stack((row, column)))[:, ~good].sum(axis=0)
    assert set(missed) == {1}


# ---- building blocks


def test_tracks_add_displacements() -> None:
    track = Track(2000, 2)
    track.glide(0.5, 0.4, np.array((1.0, -2.0)))
    track.glide(0.7, 0.4, np.array((1.0, 0.0)))
    track.glide(1.9, 0.4, np.array((5.0, 0.0)))  # its end lies beyond the recording
    x = track.values_MD()
    assert np.all(x[:500] == 0)
    assert x[700].tolist() == [0.5, -1.0]
    assert x[1500].tolist() == [2.0, -2.0]
    assert x[-1, 0] < 3
    assert np.abs(np.diff(x, axis=0)).max() < 0.03


def test_smooth_noise_is_as_stated() -> None:
    x = smooth_noise(400_000, 2, time_s=0.1, sd=0.3, rng=np.random.default_rng(0))
    assert np.allclose(x.std(axis=0), 0.3, rtol=0.05)
    assert abs(x.mean()) < 0.02
    lag = 100  # of a filter applied twice, correlation at its time constant is 2 / e
    kept = (x[:-lag, 0] * x[lag:, 0]).mean() / x[:, 0].var()
    assert kept == pytest.approx(2 / np.e, abs=0.03)


def test_softened_edges_are_centered() -> None:
    state = np.zeros(1000)
    state[400:600] = 1
    (soft,) = softened(state, 0.05)
    assert len(soft) == 1000
    assert soft[400:600].sum() + soft[:400].sum() + soft[600:].sum() == pytest.approx(200)
    assert soft[499] == 1
    assert soft[400] == pytest.approx(0.5, abs=0.02)
    assert soft[340] == 0
    assert np.allclose(soft, softened(state[::-1], 0.05)[0][::-1])


def test_tables_without_lines_have_columns() -> None:
    trial = Trial(0.5, 2.0, "a", {"onset_s": 0.75, "target": np.ones(2)})
    like = {"onset_s": 0.0, "target": np.zeros(2)}
    empty, cut_off = table([trial], 1.0, like)
    assert len(empty) == 0
    assert cut_off == 1
    assert empty.columns["target"].shape == (0, 2)
    assert empty.columns["onset"].dtype == np.int64
    full, cut_off = table([trial], 2.0, like)
    assert cut_off == 0
    assert (full.start[0], full.end[0], full.columns["onset"][0]) == (15_000, 60_000, 22_500)
