"""The Kalman filter: against the textbook and scipy, what it learns, its training on intentions, its errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.linalg import solve_discrete_are

import betz
from betz.core.errors import CheckpointError, ConfigError, DataError
from betz.core.intervals import Intervals
from betz.core.metrics import r2_variance_weighted
from betz.core.session import BehaviorDim, Channel, Series, Session
from betz.core.timegrid import BinGrid
from betz.decode import state_space
from betz.decode.baselines.kalman import Filter, Kalman, KalmanDecoder
from betz.decode.baselines.kalman_fit import companions
from betz.decode.baselines.refit import RefitTraining
from betz.decode.features import square_root
from betz.testing import check_split
from tests.unit.test_wiener import BEHAVIOR, session

Float = np.ndarray


def pushed(decoder: KalmanDecoder, part: Session, present: Float | None = None) -> Any:
    decoder.open(1, max_push_bins=part.num_bins)
    return decoder.push(part.signals[None], None if present is None else present[None])


def textbook(f: Filter, z_NC: Float, present_N: Float) -> tuple[Float, Float]:
    """States and covariances by the gain of the books: K = P Hᵀ (H P Hᵀ + R)⁻¹, one bin after the other."""
    a, q, h, r = f.model.transition, f.model.process, f.model.tuning, f.model.noise
    x, p = np.zeros(len(a)), f.model.prior
    states, covariances = [], []
    for z, there in zip(z_NC, present_N, strict=True):
        x, p = a @ x, a @ p @ a.T + q
        if there:
            k = p @ h.T @ np.linalg.inv(h @ p @ h.T + r)
            x, p = x + k @ (z - h @ x), (np.eye(len(a)) - k @ h) @ p
        states.append(x)
        covariances.append(p)
    return np.array(states), np.array(covariances)


def wanted(f: Filter, states: Float, covariances: Float) -> tuple[Float, Float]:
    """Values and spread from the part of the state that is the present."""
    at = [f.lead * f.width + k for k in range(len(f.columns))]
    return states[:, at] * f.scale + f.center, np.sqrt(covariances[:, at, at]) * f.scale


# ---- against independent implementations


@pytest.mark.parametrize("lead_ms", [0, 150])
def test_equals_the_textbook_recursion(lead_ms: float) -> None:
    """Values and spread, with bins lost one by one and in a row."""
    data = session()
    decoder = Kalman(lead_ms=(lead_ms,), transforms=("sqrt",)).calibrate(data, behavior=BEHAVIOR)
    (f,) = decoder.filters
    assert f.lead == lead_ms / 50
    present = np.random.default_rng(1).random(data.num_bins) > 0.1
    present[300:340] = False
    z = np.clip((np.sqrt(data.signals.astype(float)) - f.scaler.mean) / f.scaler.sd, -8, 8)
    values, spread = wanted(f, *textbook(f, z, present))
    found = pushed(decoder, data, present)
    assert np.abs(found.values[0] - values).max() < 1e-9
    assert np.abs(found.spread[0] - spread).max() < 1e-9


def test_steady_gain_equals_scipy() -> None:
    data = session()
    recipe = Kalman(lead_ms=(100,), transforms=("raw",))
    decoder = replace(recipe, gain="steady").calibrate(data, behavior=BEHAVIOR)
    (f,) = decoder.filters
    a, h, r = f.model.transition, f.model.tuning, f.model.noise
    predicted = solve_discrete_are(a.T, h.T, f.model.process, r)
    gain = predicted @ h.T @ np.linalg.inv(h @ predicted @ h.T + r)
    z = np.clip((data.signals - f.scaler.mean) / f.scaler.sd, -8, 8)
    x, states = np.zeros(len(a)), []
    for row in z:
        x = a @ x
        x = x + gain @ (row - h @ x)
        states.append(x)
    covariance = predicted - gain @ h @ predicted
    values, spread = wanted(f, np.array(states), np.tile(covariance, (len(z), 1, 1)))
    found = pushed(decoder, data)
    assert np.abs(found.values[0] - values).max() < 1e-9
    assert np.abs(found.spread[0] - spread).max() < 1e-9
    exact = pushed(recipe.calibrate(data, behavior=BEHAVIOR), data)
    assert np.abs(exact.values[0, 200:] - found.values[0, 200:]).max() < 1e-6, "the exact gain converges to it"
    assert np.abs(exact.values[0, :5] - found.values[0, :5]).max() > 1e-4


def test_covariance_of_a_steady_gain_is_that_of_its_error() -> None:
    """Joseph's formula, over a stretch of lost bins in which the constant gain is not the best one."""
    data = session()
    decoder = Kalman(gain="steady", lead_ms=(50,)).calibrate(data, behavior=BEHAVIOR)
    (f,) = decoder.filters
    m = f.model
    predicted = solve_discrete_are(m.transition.T, m.tuning.T, m.process, m.noise)
    gain = predicted @ m.tuning.T @ np.linalg.inv(m.tuning @ predicted @ m.tuning.T + m.noise)
    p = predicted - gain @ m.tuning @ predicted
    present = np.ones(60, dtype=bool)
    present[20:30] = False
    covariances = []
    for there in present:
        p = m.transition @ p @ m.transition.T + m.process
        if there:
            left = np.eye(len(p)) - gain @ m.tuning
            p = left @ p @ left.T + gain @ m.noise @ gain.T
        covariances.append(p)
    found = pushed(decoder, data.between(0, 60), present)
    assert np.abs(found.spread[0] - wanted(f, np.zeros((60, len(p))), np.array(covariances))[1]).max() < 1e-9


@pytest.mark.parametrize("size", [2, 8, 30])
def test_the_riccati_equation_equals_scipy(size: int) -> None:
    rng = np.random.default_rng(size)
    a = rng.normal(size=(size, size))
    a *= 0.99 / np.abs(np.linalg.eigvals(a)).max()
    half = rng.normal(size=(size, size // 2))  # a singular process noise, as that of shifted parts
    h = rng.normal(size=(2 * size, size))
    predicted = solve_discrete_are(a.T, h.T, half @ half.T, np.eye(2 * size))
    gain = predicted @ h.T @ np.linalg.inv(h @ predicted @ h.T + np.eye(2 * size))
    reached = predicted - gain @ h @ predicted
    found = state_space.converged(a, half @ half.T, h.T @ h)
    assert np.abs(found - reached).max() < 1e-9 * np.abs(reached).max()


def test_narrow_bins_take_turns() -> None:
    """With steps of 3 bins there are 3 filters, each fed means of the last 3 bins; of lost bins fewer, more loosely."""
    data = session(bin_ms=16)
    decoder = Kalman(lead_ms=(100,), transforms=("raw",)).calibrate(data, behavior=BEHAVIOR)
    (f,) = decoder.filters
    assert (f.stride, f.lead) == (3, 2)
    part, present = data.between(0, 200), np.ones(200, dtype=bool)
    present[50:52] = present[100:110] = False
    z = np.clip((part.signals - f.scaler.mean) / f.scaler.sd, -8, 8)
    a, q, h, r = f.model.transition, f.model.process, f.model.tuning, f.model.noise
    states, covariances = np.zeros((200, len(a))), np.zeros((200, len(a), len(a)))
    for phase in range(3):
        x, p = np.zeros(len(a)), f.model.prior
        for n in range(phase, 200, 3):
            x, p = a @ x, a @ p @ a.T + q
            seen = [i for i in range(max(n - 2, 0), n + 1) if present[i]]
            if seen:
                k = p @ h.T @ np.linalg.inv(h @ p @ h.T + r * 3 / len(seen))
                x, p = x + k @ (z[seen].mean(axis=0) - h @ x), (np.eye(len(a)) - k @ h) @ p
            states[n], covariances[n] = x, p
    values, spread = wanted(f, states, covariances)
    found = pushed(decoder, part, present)
    assert np.abs(found.values[0] - values).max() < 1e-9
    assert np.abs(found.spread[0] - spread).max() < 1e-9


# ---- what it learns


def test_roots_of_stored_counts_are_those_of_pushed_ones() -> None:
    """Calibration sees uint8, a stream float64; numpy takes the root of uint8 in half precision."""
    counts = np.arange(256, dtype=np.uint8)[None]
    every = np.ones(256, dtype=bool)
    assert np.array_equal(square_root(counts, every), np.sqrt(np.arange(256.0))[None])
    assert np.array_equal(square_root(counts, ~every), np.arange(256.0)[None])


def linear_session(bins: int = 6000, seed: int = 0) -> tuple[Session, dict[str, Float]]:
    """Behavior and power channels of a known linear-Gaussian model."""
    rng = np.random.default_rng(seed)
    a = 0.97 * np.array([[np.cos(0.1), np.sin(0.1)], [-np.sin(0.1), np.cos(0.1)]])
    h, noise = rng.normal(size=(6, 2)), np.diag(rng.uniform(5, 20, 6))
    x = np.zeros((bins, 2))
    for n in range(1, bins):
        x[n] = a @ x[n - 1] + 0.3 * rng.normal(size=2)
    z = x @ h.T + rng.normal(size=(bins, 6)) * np.sqrt(np.diag(noise))
    dims = (BehaviorDim("hand_vx", "cm/s"), BehaviorDim("hand_vy", "cm/s"))
    made = Session(
        id="linear",
        subject="nobody",
        grid=BinGrid.from_ms(50),
        num_bins=bins,
        channels=tuple(Channel(f"p{i}", "power", unit="uV^2") for i in range(6)),
        power=z.astype(np.float32),
        behavior=(Series(x, dims, 0, BinGrid.from_ms(50).ticks_per_bin),),
    )
    return made, {"a": a, "q": 0.09 * np.eye(2), "h": h, "r": noise}


def test_reaches_the_best_filter_of_a_known_model() -> None:
    data, truth = linear_session()
    test = data.between(3000, 6000)
    decoder = Kalman(lead_ms=(0,), shrink=(0.0,), inflate=(1,)).calibrate(data.between(0, 3000), behavior=BEHAVIOR)
    found = pushed(decoder, test)
    x, p, best = np.zeros(2), np.eye(2), []
    for z in test.signals.astype(float):
        x, p = truth["a"] @ x, truth["a"] @ p @ truth["a"].T + truth["q"]
        k = p @ truth["h"].T @ np.linalg.inv(truth["h"] @ p @ truth["h"].T + truth["r"])
        x, p = x + k @ (z - truth["h"] @ x), (np.eye(2) - k @ truth["h"]) @ p
        best.append(x)
    y = test.behavior_of(BEHAVIOR)
    assert r2_variance_weighted(y, found.values[0]) > r2_variance_weighted(y, np.array(best)) - 0.01
    error = (y - found.values[0]).std(axis=0)
    assert np.all(np.abs(found.spread[0, -1] / error - 1) < 0.1), "the spread is the size of the error"


def test_the_lead_of_signals_is_found() -> None:
    """Behavior that comes 150 ms after the signals: the state reaches three bins ahead, and that pays."""
    data = session(bins=4000)
    series = data.behavior[0]
    late = replace(data, behavior=(replace(series, values=np.roll(series.values, 3, axis=0)),))
    decoders = [Kalman(lead_ms=leads).calibrate(late.between(0, 2000), behavior=BEHAVIOR) for leads in ((0,), (0, 150))]
    assert decoders[1].filters[0].chosen["lead_ms"] == 150
    test = late.between(2000, 4000)
    without, with_ = (
        r2_variance_weighted(test.behavior_of(BEHAVIOR), pushed(decoder, test).values[0]) for decoder in decoders
    )
    assert with_ > without + 0.1


def test_square_roots_are_chosen_where_they_help() -> None:
    """Channels whose square root is linear in behavior, with noise that grows with the rate."""
    data = session(bins=2000)
    rng = np.random.default_rng(2)
    drive = 6 + data.behavior[0].values @ rng.normal(size=(2, 10)) + 0.3 * rng.normal(size=(2000, 10))
    rooted = replace(data, counts=np.clip(np.rint(np.maximum(drive, 0) ** 2), 0, 255).astype(np.uint8))
    assert Kalman().calibrate(rooted, behavior=BEHAVIOR).filters[0].chosen["transform"] == "sqrt"
    plain = np.clip(np.rint(np.maximum(20 * drive, 0) / 5 + 2 * rng.normal(size=drive.shape)), 0, 255)
    linear = replace(data, counts=plain.astype(np.uint8))
    assert Kalman().calibrate(linear, behavior=BEHAVIOR).filters[0].chosen["transform"] == "raw"


def moving(bins: int = 3000) -> Session:
    """Channels that tell of velocity and of position."""
    data = session(bins=bins)
    rng = np.random.default_rng(3)
    velocity = data.behavior[0].values
    position = np.zeros_like(velocity)
    for n in range(1, bins):
        position[n] = 0.98 * position[n - 1] + 0.05 * velocity[n]
    drive = 0.3 * velocity @ rng.normal(size=(2, 10)) + 3 * position @ rng.normal(size=(2, 10))
    dims = (BehaviorDim("hand_x", "cm"), BehaviorDim("hand_y", "cm"))
    data = replace(data, counts=np.minimum(rng.poisson(np.exp(np.minimum(0.5 + drive, 4))), 255).astype(np.uint8))
    return data.with_behavior(Series(position, dims, 0, data.grid.ticks_per_bin))


def test_position_and_velocity_help_each_other() -> None:
    data = moving()
    recipes = (Kalman(state="asked"), Kalman())
    scores = []
    for recipe in recipes:
        decoder = recipe.calibrate(data.between(0, 1500), behavior=[*BEHAVIOR, "hand_x", "hand_y"])
        test = data.between(1500, 3000)
        scores.append(
            [
                r2_variance_weighted(test.behavior_of(names), pushed(decoder, test).values[0][:, columns])
                for names, columns in ((BEHAVIOR, [0, 1]), (["hand_x", "hand_y"], [2, 3]))
            ]
        )
    assert [f.chosen["companions"] for f in decoder.filters] == [["hand_x", "hand_y"], ["hand_vx", "hand_vy"]]
    assert scores[1][0] > scores[0][0] + 0.05, "velocity is decoded better with the positions in the state"
    assert scores[1][1] > scores[0][1] - 0.02


def test_companions_are_found_by_name_unit_and_labels() -> None:
    data = moving(200)
    dims = data.dims_of(BEHAVIOR)
    everywhere = np.ones(200, dtype=bool)
    assert companions(data, dims, everywhere) == ("hand_x", "hand_y")
    assert companions(data, data.dims_of(["hand_y"]), everywhere) == ("hand_vy",)
    velocity, position = data.behavior
    metres = replace(position, dims=(BehaviorDim("hand_x", "m"), BehaviorDim("hand_y", "m")))
    assert companions(replace(data, behavior=(velocity, metres)), dims, everywhere) == ()
    values = position.values.copy()
    values[:30, 0], values[:, 1] = np.nan, 2.0
    assert companions(replace(data, behavior=(velocity, replace(position, values=values))), dims, everywhere) == ()
    values[:, 0], values[:15, 0] = position.values[:, 0], np.nan
    found = companions(replace(data, behavior=(velocity, replace(position, values=values))), dims, everywhere)
    assert found == ("hand_x",), "unknown in less than a tenth of the bins"


def test_lost_bins_predict_only_and_the_covariance_grows() -> None:
    data = session()
    decoder = Kalman().calibrate(data, behavior=BEHAVIOR)
    present = np.ones(400, dtype=bool)
    present[200:] = False
    found = pushed(decoder, data.between(0, 400), present)
    spread, values = found.spread[0], found.values[0]
    assert np.all(np.diff(spread[200:230], axis=0) > 0)
    sd = data.behavior_of(BEHAVIOR).std(axis=0)
    assert np.all(spread[-1] > 0.8 * sd)
    assert np.all(spread[-1] < 1.3 * sd)
    mean = data.behavior_of(BEHAVIOR).mean(axis=0)
    assert np.all(np.abs(values[-1] - mean) < 0.05 * sd)
    assert not found.valid[0, 200:].any()


def test_short_calibrations_do_not_explode() -> None:
    """Half a minute, 90 channels, some near-dead that wake up: never far below saying the mean."""
    data = session(bins=3000, channels=90)
    assert data.counts is not None
    counts = data.counts.copy()
    counts[:600, :10] = 0
    counts[100, :5] = 1
    woken = replace(data, counts=counts)
    test = woken.between(600, 3000)
    for behavior in (BEHAVIOR, ["hand_vx"]):
        decoder = Kalman().calibrate(woken.between(0, 600), behavior=behavior)
        assert r2_variance_weighted(test.behavior_of(behavior), pushed(decoder, test).values[0]) > 0.5


def test_a_random_walk_has_a_stable_model() -> None:
    data = session()
    walk = np.cumsum(data.behavior[0].values + 0.05, axis=0)
    data = replace(data, behavior=(replace(data.behavior[0], values=walk),))
    decoder = Kalman().calibrate(data, behavior=BEHAVIOR)
    radius = np.abs(np.linalg.eigvals(decoder.filters[0].model.transition)).max()
    assert radius <= state_space.STABLE + 1e-9
    found = pushed(decoder, data, np.arange(1500) < 100)
    assert np.abs(found.values[0]).max() < 3 * np.abs(walk).max()
    explosive = np.array([[1.2, 0.3], [1.0, 0.0]])
    roots = np.linalg.eigvals(explosive)
    found = np.linalg.eigvals(state_space._stable(explosive, 1))
    assert np.allclose(found, roots * state_space.STABLE / np.abs(roots).max())


def test_each_unit_has_a_filter_of_its_own() -> None:
    data = moving(1500)
    mixed = Kalman().calibrate(data, behavior=["hand_x", "hand_vy", "hand_y", "hand_vx"])
    assert [f.columns for f in mixed.filters] == [(0, 2), (1, 3)]
    alone = Kalman().calibrate(data, behavior=BEHAVIOR)
    assert np.allclose(pushed(mixed, data).values[0][:, [3, 1]], pushed(alone, data).values[0], atol=1e-9)
    assert [d.unit for d in mixed.behavior] == ["cm", "cm/s", "cm", "cm/s"]


def test_nothing_crosses_an_edge_in_calibration() -> None:
    """The two halves of a session, told apart by an edge, can be exchanged."""
    data = session(bins=1000, edges=np.array([500 * 50]))
    assert data.counts is not None
    values = data.behavior[0].values

    def swap(array: Float) -> Float:
        return np.concatenate((array[500:], array[:500]))

    other = replace(data, counts=swap(data.counts), behavior=(replace(data.behavior[0], values=swap(values)),))
    a, b = (Kalman().calibrate(s, behavior=BEHAVIOR).filters[0].model for s in (data, other))
    assert np.allclose(a.transition, b.transition, atol=1e-12)
    assert np.allclose(a.tuning, b.tuning, atol=1e-12)
    crossed = Kalman().calibrate(data.without_edges(), behavior=BEHAVIOR).filters[0].model
    assert not np.allclose(a.transition, crossed.transition, atol=1e-7)


def test_unlabelled_and_unusable_bins_are_left_out() -> None:
    """What stands in such bins changes nothing; bins beside them count as far as their state is known."""
    data = session(valid=Intervals.of([(0, 40_000), (45_000, 75_000)]))
    values = data.behavior[0].values.copy()
    values[100:150] = np.nan
    masked = replace(data, behavior=(replace(data.behavior[0], values=values),))
    assert masked.counts is not None
    noise = masked.counts.copy()
    noise[800:900] = 99
    values = values.copy()
    values[800:900] = 1e6
    broken = replace(masked, counts=noise, behavior=(replace(data.behavior[0], values=values),))
    fitted = [Kalman().calibrate(s, behavior=BEHAVIOR).filters[0] for s in (masked, broken)]
    assert np.array_equal(fitted[0].model.tuning, fitted[1].model.tuning)
    assert np.array_equal(fitted[0].scaler.sd, fitted[1].scaler.sd)


def test_the_test_part_cannot_leak() -> None:
    check_split(lambda s: Kalman().calibrate(s.between(0, 900), behavior=BEHAVIOR), session(), first_test_bin=900)
    with pytest.raises(AssertionError, match="bins from 900 on change what is fitted"):
        check_split(lambda s: Kalman().calibrate(s.between(0, 901), behavior=BEHAVIOR), session(), first_test_bin=900)


# ---- intended velocity


def aiming(bins: int = 1200) -> Session:
    """A cursor and its target."""
    data = moving(bins)
    target = np.repeat(np.random.default_rng(5).normal(size=(bins // 30, 2)), 30, axis=0)
    dims = (BehaviorDim("target_x", "cm"), BehaviorDim("target_y", "cm"))
    return data.with_behavior(Series(target, dims, 0, data.grid.ticks_per_bin))


REFIT = RefitTraining(target=("target_x", "target_y"), position=("hand_x", "hand_y"), radius=0.5)


def test_intended_velocity_by_hand() -> None:
    """Speed 5 towards (3, 4): (3, 4). On the target: 0. Where the target is unknown: unknown."""
    data = aiming()
    velocity, position, target = (s.values.copy() for s in data.behavior)
    velocity[:3], position[:3], target[:3] = (
        [[0, 5], [-2, 1], [5, 0]],
        [[1, 1], [1, 1], [0, 0]],
        [[4, 5], [1, 1.5], [9, 0]],
    )
    target[2, 1] = np.nan
    series = [replace(s, values=v) for s, v in zip(data.behavior, (velocity, position, target), strict=True)]
    data = replace(data, behavior=tuple(series))
    names = ["hand_vy", "hand_x", "hand_vx"]
    labels = data.behavior_of(names)
    found = REFIT.intended(data, data.dims_of(names), labels)
    assert np.allclose(found[0], [4, 1, 3])
    assert np.allclose(found[1], [0, 1, 0]), "half a centimetre away is held"
    assert np.isnan(found[2, [0, 2]]).all()
    assert np.array_equal(found[:, 1], labels[:, 1]), "positions are as recorded"


def test_refit_decodes_the_intention() -> None:
    """Channels tuned to the intended velocity are decoded better when trained on it."""
    data = aiming(2400)
    intended = REFIT.intended(data, data.dims_of(BEHAVIOR), data.behavior_of(BEHAVIOR))
    rng = np.random.default_rng(6)
    counts = rng.poisson(np.exp(np.clip(0.6 * intended @ rng.normal(size=(2, 10)), -3, 3)))
    data = replace(data, counts=np.minimum(counts, 255).astype(np.uint8))
    scores = []
    for refit in (None, REFIT):
        decoder = Kalman(refit=refit).calibrate(data.between(0, 1200), behavior=BEHAVIOR)
        found = pushed(decoder, data.between(1200, 2400)).values[0]
        scores.append(r2_variance_weighted(intended[1200:], found))
    assert scores[1] > scores[0] + 0.1
    assert decoder.report["settings"]["refit"]["radius"] == 0.5


def test_refit_that_does_not_fit_is_refused() -> None:
    data = aiming()
    with pytest.raises(ConfigError, match=r"none of hand_x is a velocity of hand_x, hand_y.*calibrate without refit"):
        Kalman(refit=REFIT).calibrate(data, behavior=["hand_x"])
    other = replace(REFIT, target=("hand_vx", "hand_vy"))
    with pytest.raises(ConfigError, match=r"target and position have different units: cm, cm/s"):
        Kalman(refit=other).calibrate(data, behavior=BEHAVIOR)
    with pytest.raises(DataError, match="no behavior named 'goal_x', 'goal_y'"):
        Kalman(refit=replace(REFIT, target=("goal_x", "goal_y"))).calibrate(data, behavior=BEHAVIOR)
    with pytest.raises(ConfigError, match="the same number"):
        RefitTraining(target=("a", "b"), position=("a",), radius=1)
    with pytest.raises(DataError, match="hand_vx, hand_vy does not change"):
        Kalman(refit=replace(REFIT, radius=1e9)).calibrate(data, behavior=BEHAVIOR)


# ---- bad input


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "constant": ({"behavior": 1.0}, r"hand_vx does not change.*leave it out"),
    "no labels": ({"behavior": np.nan}, r"0 of 1500 bins are usable and labelled.*hand_vx: 1500 unknown"),
    "dead": ({"counts": np.zeros((1500, 10), np.uint8)}, r"all 10 channels are dead"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_calibrations_say_why(name: str) -> None:
    changes, message = BAD[name]
    data = session()
    if "behavior" in changes:
        values = data.behavior[0].values.copy()
        values[:, 0] = changes["behavior"]
        changes = {"behavior": (replace(data.behavior[0], values=values),)}
    with pytest.raises(DataError, match=message):
        Kalman().calibrate(replace(data, **changes), behavior=BEHAVIOR)


def many(bins: int, dims: int = 16) -> Session:
    data = session(bins=bins)
    values = np.random.default_rng(0).normal(size=(bins, dims))
    named = tuple(BehaviorDim(f"emg_{k}", "mV") for k in range(dims))
    return data.with_behavior(Series(values, named, 0, data.grid.ticks_per_bin))


def names(dims: int = 16) -> Sequence[str]:
    return [f"emg_{k}" for k in range(dims)]


def test_fewer_bins_than_parameters() -> None:
    """A state that reaches less far ahead is the fallback; where even the smallest is too large, an error says so."""
    few = Kalman().calibrate(many(80), behavior=names())
    assert few.filters[0].chosen["lead_ms"] < 100
    assert np.isfinite(pushed(few, many(80)).values).all()
    with pytest.raises(DataError, match=r"\d+ stretches of 2 labelled steps are too few for the 32 dimensions"):
        Kalman().calibrate(many(40), behavior=names())
    with pytest.raises(DataError, match=r"10 of 10 bins are usable.*at least 20"):
        Kalman().calibrate(session().between(0, 10), behavior=BEHAVIOR)


def test_wrong_settings_and_behavior_are_refused() -> None:
    data = session()
    click = Series(np.zeros((1500, 1)), (BehaviorDim("click", "", "discrete", ("no", "yes")),), 0, 50)
    with pytest.raises(ConfigError, match=r"Kalman.calibrate: it decodes continuous behavior only, not click.*LDA"):
        Kalman().calibrate(data.with_behavior(click), behavior=["click"])
    for settings in ({"lead_ms": ()}, {"folds": 1}, {"lead_ms": (-1,)}, {"inflate": (0,)}, {"shrink": (1.5,)}):
        with pytest.raises(ConfigError, match="Kalman settings"):
            Kalman(**settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="gain: Input should be 'exact' or 'steady'"):
        Kalman(gain="best")  # type: ignore[arg-type]


def test_one_channel_and_ten_seconds_work() -> None:
    decoder = Kalman().calibrate(session(bins=200, channels=1), behavior=BEHAVIOR)
    assert np.isfinite(pushed(decoder, session(channels=1)).values).all()


@pytest.mark.parametrize("name", ["tuning_0", "prior_0", "sd_0", "center_0"])
def test_arrays_that_do_not_fit_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from betz.decode.baselines import kalman

    def cut(folder: Path, *, arrays: dict[str, Float], **rest: Any) -> None:
        save(folder, arrays=arrays | {name: arrays[name][:-1]}, **rest)

    save = kalman.save_decoder
    monkeypatch.setattr(kalman, "save_decoder", cut)
    Kalman().calibrate(session(), behavior=BEHAVIOR).save(tmp_path)
    with pytest.raises(CheckpointError, match="the manifest does not fit"):
        betz.load(tmp_path)
