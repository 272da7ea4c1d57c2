"""Simulated sessions: known truth is found again, they are as hard as real ones, and seeds decide everything."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any, Literal

import numpy as np
import pytest

import betz
from betz.core.config import from_dict, to_dict
from betz.core.errors import ConfigError
from betz.core.seeds import SeedTree
from betz.sim.latents import Background, draw_background, ornstein_uhlenbeck
from betz.sim.population import Simulated, Simulation, simulate, simulate_subjects
from betz.sim.tuning import LATENCY_RANGE_MS, draw_population, features_FM

VELOCITY = ["hand_vx", "hand_vy"]
HAND = ["hand_x", "hand_y", *VELOCITY]
SHORT = Simulation(minutes=2, channels=16)
Task = Literal["random_target", "center_out"]


def ticks_of(made: Simulated) -> tuple[np.ndarray, ...]:
    assert made.session.spikes is not None
    return made.session.spikes


@cache
def long() -> Simulated:
    """Ten minutes of the default array."""
    return simulate(Simulation(minutes=10), seed=2)


# ---- hardness


def r2_after(*minutes: float, seed: int, task: Task, noise: float = 1.0) -> np.ndarray:
    """Velocity R² on the last 40 % of a default session in 50 ms bins, by a plain ridge on 300 ms."""
    session = simulate(Simulation(bin_ms=50, task=task, noise=noise), seed=seed).session
    recipe = betz.Wiener(lags=6, prefilter_ms=(0,), strengths=(0.3, 1, 3), folds=3)
    test = session.between(session.num_bins * 6 // 10, session.num_bins)
    decoders = [recipe.calibrate(session.first(minutes=m), behavior=VELOCITY) for m in minutes]
    return np.array([betz.evaluate(decoder, test, push_bins=500).r2 for decoder in decoders])


@pytest.mark.parametrize("task", ["random_target", "center_out"])
def test_the_default_is_as_hard_as_real_recordings(task: Task) -> None:
    """Ridge reaches .25 … .4 after half a minute and .5 … .65 after two minutes; single seeds scatter by .1 and .05."""
    half, two = np.mean([r2_after(0.5, 2, seed=seed, task=task) for seed in (1, 4, 6)], axis=0)
    assert 0.25 < half < 0.42
    assert 0.48 < two < 0.62


def test_the_noise_is_what_makes_it_hard() -> None:
    (without,) = r2_after(2, seed=1, task="random_target", noise=0)
    (doubled,) = r2_after(2, seed=1, task="random_target", noise=2)
    assert without > 0.66
    assert doubled < 0.42


# ---- truth is found again


@cache
def fitted() -> tuple[np.ndarray, np.ndarray]:
    """(C,) lag in 20 ms bins at which counts follow the features best, and (C, 6) weights there (intercept first)."""
    session, most = long().session, 10
    features = features_FM(session.behavior_of(HAND)).T
    counts, errors, weights = session.signals[:-most].astype(np.float64), [], []
    for lag in range(most + 1):
        design = np.column_stack((np.ones(len(counts)), features[lag : lag + len(counts)]))
        found, error, *_ = np.linalg.lstsq(design, counts, rcond=None)
        errors.append(error)
        weights.append(found.T)
    best = np.argmin(errors, axis=0)
    return best, np.array(weights)[best, np.arange(len(best))]


def test_preferred_directions_are_found_again() -> None:
    made = long()
    population = made.truth.population
    _, weights = fitted()
    found = np.degrees(np.arctan2(weights[:, 2], weights[:, 1]))
    clear = (population.velocity_depth > 0.3) & (made.truth.mean_hz > 3)
    assert clear.sum() >= 40
    error = np.abs((found - population.preferred_deg + 180) % 360 - 180)[clear]
    assert np.median(error) < 7
    assert np.quantile(error, 0.9) < 25


def test_rates_lead_the_movement_by_the_latency() -> None:
    made = long()
    population = made.truth.population
    best, _ = fitted()
    clear = (population.velocity_depth > 0.3) & (made.truth.mean_hz > 3)
    error_ms = (20 * best - population.latency_ms)[clear]
    assert abs(np.mean(error_ms)) < 6
    assert np.mean(np.abs(error_ms) <= 20) > 0.85


def test_depths_order_the_channels() -> None:
    """What is called deep modulates more, untuned channels do not."""
    made = long()
    population, expected = made.truth.population, made.truth.mean_hz * 0.02
    _, weights = fitted()
    depth = np.hypot(weights[:, 1], weights[:, 2]) / expected
    clear = (population.velocity_depth > 0) & (made.truth.mean_hz > 3)
    assert np.corrcoef(depth[clear], population.velocity_depth[clear])[0, 1] > 0.85
    untuned = np.array([kind == "untuned" for kind in population.kind]) & (made.truth.mean_hz > 3)
    assert np.median(depth[untuned]) < 0.3 * np.median(depth[clear])


# ---- spikes and rates


def test_spikes_are_in_order_in_range_and_as_many_as_the_rate_says() -> None:
    made = simulate(Simulation(minutes=4, channels=64, bin_ms=64), seed=0)
    seconds = made.session.minutes * 60
    for ticks, hz in zip(ticks_of(made), made.truth.mean_hz, strict=True):
        assert ticks.dtype == np.int64
        assert ticks.size == 0 or (ticks[0] >= 0 and ticks[-1] < made.session.span[1])
        assert ticks.size < 2 or np.diff(ticks).min() >= 30  # 1 ms
        assert abs(ticks.size - hz * seconds) < 4.5 * np.sqrt(hz * seconds) + 2
    assert sum(map(len, ticks_of(made))) == made.session.signals.sum()


def test_rates_are_those_of_an_array() -> None:
    """Indy, 96 electrodes, 2016: median 7 … 10 Hz, a tenth of the channels below 1 Hz, the top twentieth 25 … 31 Hz."""
    made = [simulate(Simulation(minutes=1), seed=seed).truth for seed in range(4)]
    hz = np.concatenate([truth.mean_hz for truth in made])
    assert 4 < np.median(hz) < 10
    assert 0.08 < np.mean(hz < 1) < 0.2
    assert 20 < np.quantile(hz, 0.95) < 40
    kinds = [kind for truth in made for kind in truth.population.kind]
    assert kinds.count("silent") == pytest.approx(0.10 * len(kinds), abs=25)
    assert kinds.count("untuned") == pytest.approx(0.15 * len(kinds), abs=28)
    latency = np.concatenate([truth.population.latency_ms for truth in made])
    assert (latency.min(), latency.max()) == LATENCY_RANGE_MS


def test_channels_fluctuate_together() -> None:
    """Without the background counts at rest are Poisson; with it they are over-dispersed and correlated."""

    def at_rest(noise: float) -> tuple[float, float]:
        made = simulate(Simulation(minutes=4, bin_ms=100, noise=noise), seed=3)
        still = np.hypot(*made.session.behavior_of(VELOCITY).T) < 2
        still &= np.roll(still, -2) & np.roll(still, 2)
        counts = made.session.signals[still][:, made.truth.mean_hz > 3].astype(np.float64)
        pairs = np.corrcoef(counts.T)[np.triu_indices(counts.shape[1], 1)]
        return float(np.median(counts.var(axis=0) / counts.mean(axis=0))), float(pairs.mean())

    fano, correlation = at_rest(0)
    assert fano == pytest.approx(1.0, abs=0.08)
    assert correlation < 0.03
    fano, correlation = at_rest(1)
    assert 1.1 < fano < 1.9
    assert 0.03 < correlation < 0.2


def test_the_background_is_as_its_truth_says() -> None:
    population = draw_population(40, SeedTree(0).generator("population"))
    made = draw_background(population, steps=60_000, step_s=0.01, noise=1.0, subject=SeedTree(0), day=SeedTree(1))
    silent = np.array([kind == "silent" for kind in population.kind])
    assert silent.any()
    for c in range(40):
        log_rate = made.log_rate_T(c)
        if silent[c]:
            assert np.all(log_rate == 0)
        else:
            wanted = made.loadings_CL[c] @ made.shared_LT
            wanted -= (made.loadings_CL[c] ** 2).sum() / 2 + made.private_sd_C[c] ** 2 / 2
            assert np.allclose(log_rate[::100], wanted[::100] + made.private_CJ[c, :600])
    flat = Background(
        0.01, np.random.default_rng(0).standard_normal((2, 10**6)), np.full((1, 2), 0.5), *_nothing(10**4)
    )
    assert np.exp(flat.log_rate_T(0)).mean() == pytest.approx(1, abs=0.01)


def _nothing(knots: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((1, knots + 1)), np.zeros(1)


def test_latents_have_their_time_constants() -> None:
    values = ornstein_uhlenbeck(400_000, (0.1, 1.0), 0.01, np.random.default_rng(0))
    assert np.allclose(values.std(axis=1), 1, atol=0.06)
    for row, lag in zip(values, (10, 100), strict=True):
        assert np.mean(row[:-lag] * row[lag:]) / row.var() == pytest.approx(np.exp(-1), abs=0.06)
    first = [ornstein_uhlenbeck(2, (5.0,), 0.01, np.random.default_rng(k))[0, 0] for k in range(400)]
    assert np.std(first) == pytest.approx(1, abs=0.12)  # stationary from the start


# ---- seeds


def test_seeds_decide_everything() -> None:
    one, same, other = (simulate(SHORT, seed=seed) for seed in (3, 3, 4))
    for a, b in zip(ticks_of(one), ticks_of(same), strict=True):
        assert np.array_equal(a, b)
    assert np.array_equal(one.session.behavior[0].values, same.session.behavior[0].values)
    assert not np.array_equal(ticks_of(one)[0], ticks_of(other)[0])
    assert not np.array_equal(one.truth.population.preferred_deg, other.truth.population.preferred_deg)
    assert one.session.id != other.session.id


@pytest.mark.parametrize("task", ["random_target", "center_out"])
def test_a_longer_session_begins_like_a_shorter_one(task: Task) -> None:
    short, longer = (simulate(Simulation(minutes=m, channels=12, task=task), seed=5) for m in (0.5, 1.3))
    for a, b in zip(ticks_of(short), ticks_of(longer), strict=True):
        assert np.array_equal(a, b[: np.searchsorted(b, short.session.span[1])])
    a, b = short.session.behavior[0].values, longer.session.behavior[0].values
    assert np.array_equal(a, b[: len(a)])


def test_other_bins_have_the_same_spikes() -> None:
    fine, coarse = (simulate(replace(SHORT, bin_ms=bin_ms), seed=1) for bin_ms in (10, 50))
    for a, b in zip(ticks_of(fine), ticks_of(coarse), strict=True):
        assert np.array_equal(a, b)
    assert np.array_equal(fine.session.rebinned(50).signals, coarse.session.signals)


def test_subjects_and_days_are_others() -> None:
    made = simulate_subjects(SHORT, subjects=2, days=2, seed=7)
    sessions = [one.session for one in made]
    assert [s.id for s in sessions] == ["sim_7_0_day0", "sim_7_0_day1", "sim_7_1_day0", "sim_7_1_day1"]
    assert [s.subject for s in sessions] == ["sim_7_0"] * 2 + ["sim_7_1"] * 2
    a, b = made[0].truth.population, made[2].truth.population
    assert np.abs(a.preferred_deg - b.preferred_deg).max() > 20
    assert not np.array_equal(a.baseline_hz, b.baseline_hz)
    assert np.array_equal(ticks_of(simulate(SHORT, seed=7, subject="sim_7_1", day=1))[0], ticks_of(made[3])[0])
    others = simulate_subjects(SHORT, subjects=1, days=1, seed=8)
    assert not np.array_equal(others[0].truth.population.preferred_deg, a.preferred_deg)


def test_larger_arrays_begin_with_smaller_ones() -> None:
    small, large = (draw_population(n, SeedTree(0).generator("population")) for n in (8, 16))
    assert np.array_equal(small.preferred_deg, large.preferred_deg[:8])
    assert np.array_equal(small.baseline_hz, large.baseline_hz[:8])


# ---- the session


def test_the_session_says_where_it_comes_from() -> None:
    made = simulate(replace(SHORT, bin_ms=64, task="center_out"), seed=9, day=2)
    session = made.session
    assert session.bin_ms == 64
    assert session.minutes == pytest.approx(2, abs=0.001)
    assert [d.name for d in session.dims] == HAND
    assert session.task == "center_out"
    assert session.tags == {"day": "2"}
    assert session.licence == "CC0-1.0"
    assert [c.kind for c in session.channels] == ["crossings"] * 16
    options = dict(session.provenance.options)
    assert (options.pop("seed"), options.pop("subject"), options.pop("day")) == (9, "sim_9", 2)
    again = simulate(from_dict(Simulation, options), seed=9, day=2)
    assert np.array_equal(ticks_of(made)[3], ticks_of(again)[3])
    assert np.isfinite(session.behavior_of(HAND)).all()
    assert session.trials is not None
    assert session.trials.end.max() <= session.span[1]
    assert made.truth.unfinished == 1


def test_settings_are_values() -> None:
    assert from_dict(Simulation, to_dict(SHORT)) == SHORT
    assert betz.simulate(SHORT, seed=0).session.num_bins == 6000


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"minutes": 0}, r"0 minutes of 16 channels are impossible.*at most 600 minutes"),
        ({"minutes": 601}, r"601 minutes of 16 channels are impossible"),
        ({"minutes": float("nan")}, r"nan minutes of 16 channels are impossible"),
        ({"channels": 0}, r"2 minutes of 0 channels are impossible"),
        ({"channels": 10_001}, r"1 to 10,000 channels"),
        ({"noise": -0.1}, r"noise of -0\.1 is impossible.*0 to 5"),
        ({"bin_ms": 0}, r"Simulation settings, bin_ms: a bin width of 0\.0 ms is impossible"),
        ({"bin_ms": 0.01}, r"0\.01 ms is not a whole number of ticks at 30000 Hz"),
        ({"bin_ms": 500_000}, r"2 minutes hold no bin of 500000 ms"),
        ({"task": "juggling"}, r"Simulation settings: task: Input should be .*'random_target'"),
        ({"colour": "red"}, r"colour: Unexpected keyword"),
    ],
)
def test_impossible_settings_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Simulation(**(to_dict(SHORT) | values))


def test_no_subjects_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"0 subjects on 1 days are nothing.*both at least 1"):
        simulate_subjects(SHORT, subjects=0, days=1)
