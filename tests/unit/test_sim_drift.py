"""Days: the random walk is as stated, the truth of a day says what happened, and decoders feel it."""

from __future__ import annotations

import numpy as np
import pytest

import betz
from betz.core.errors import ConfigError
from betz.core.seeds import SeedTree
from betz.sim.drift import BASELINE_SD, GAIN_SD, KEPT, LOST, LOST_HZ, TURN_DEG, Drift, drift, drifted
from betz.sim.population import Simulation, simulate
from betz.sim.tuning import Population, draw_population

SEEDS = SeedTree(0)
BORN = draw_population(2000, SEEDS.generator("population"))
ALIVE = np.array([kind != "silent" for kind in BORN.kind])


def after(day: int) -> tuple[Drift, Population]:
    change = drift(BORN, day, SEEDS)
    return change, drifted(BORN, change, SEEDS)


def turned(to: Population, since: Population) -> np.ndarray:
    return np.asarray((to.preferred_deg - since.preferred_deg + 180) % 360 - 180)


def test_day_0_is_the_array_as_drawn() -> None:
    change, today = after(0)
    assert not change.lost.any()
    assert not change.gained.any()
    for name in ("kind", "baseline_hz", "preferred_deg", "velocity_depth", "speed_depth", "latency_ms"):
        assert np.array_equal(getattr(today, name), getattr(BORN, name)), name


def spread(day: int) -> float:
    """Standard deviation of a walk after so many days, in units of that after one."""
    return float(np.sqrt((1 - KEPT ** (2 * day)) / (1 - KEPT**2)))


@pytest.mark.parametrize("day", [1, 2, 4, 16])
def test_channels_walk_at_random(day: int) -> None:
    """The spread grows from day to day and levels off."""
    assert spread(1) == 1 < spread(2) < spread(4) < spread(16)
    change, _ = after(day)
    for walk, step in (
        (change.turned_deg, TURN_DEG),
        (np.log(change.gain), GAIN_SD),
        (np.log(change.baseline), BASELINE_SD),
    ):
        assert walk.std() == pytest.approx(step * spread(day), rel=0.06)
    assert abs(change.turned_deg.mean()) < 4 * change.turned_deg.std() / np.sqrt(2000)
    assert change.baseline.mean() == pytest.approx(1, abs=0.08)  # an array does not grow louder


def test_a_later_day_comes_after_an_earlier_one() -> None:
    """Day 16 goes through day 15: one step lies between them, not sixteen."""
    before, later = after(15)[0], after(16)[0]
    assert (later.turned_deg - KEPT * before.turned_deg).std() == pytest.approx(TURN_DEG, rel=0.06)
    assert np.corrcoef(before.turned_deg, later.turned_deg)[0, 1] == pytest.approx(KEPT, abs=0.06)
    again = after(15)[0]
    assert np.array_equal(again.turned_deg, before.turned_deg)
    other = drift(BORN, 15, SeedTree(1))
    assert abs(np.corrcoef(before.turned_deg, other.turned_deg)[0, 1]) < 0.1


def test_the_record_says_what_the_population_is() -> None:
    change, today = after(9)
    kept = ALIVE & ~change.lost
    assert np.allclose(turned(today, BORN)[kept], (change.turned_deg[kept] + 180) % 360 - 180)
    assert np.allclose(today.baseline_hz[kept], (BORN.baseline_hz * change.baseline)[kept])
    for name in ("velocity_depth", "speed_depth", "position_depth"):
        assert np.allclose(getattr(today, name)[kept], (getattr(BORN, name) * change.gain)[kept])
    assert np.array_equal(today.latency_ms[kept], BORN.latency_ms[kept])
    unchanged = ~ALIVE & ~change.gained
    assert all(today.kind[c] == "silent" for c in np.flatnonzero(unchanged | change.lost))


def test_channels_are_lost_and_gained_at_the_stated_rates() -> None:
    one, many = after(1)[0], after(20)[0]
    assert one.lost.sum() == pytest.approx(LOST * ALIVE.sum(), abs=4 * np.sqrt(LOST * ALIVE.sum()))
    assert many.lost.sum() > 3 * one.lost.sum()
    assert many.gained.sum() > 2 * one.gained.sum()
    assert not (many.lost & ~ALIVE).any()
    assert not (many.gained & ALIVE).any()
    # as many wake up as are lost
    active = ALIVE.sum() - many.lost.sum() + many.gained.sum()
    assert active == pytest.approx(ALIVE.sum(), abs=60)


def test_lost_channels_are_silent_and_gained_ones_have_a_tuning_of_their_own() -> None:
    change, today = after(20)
    assert np.all(today.baseline_hz[change.lost] == LOST_HZ)
    assert np.all(today.weights_CF[change.lost] == 0)
    gained = np.flatnonzero(change.gained)
    kinds = [today.kind[c] for c in gained]
    assert set(kinds) == {"tuned", "untuned"}
    assert np.median(today.baseline_hz[gained]) > 2
    assert np.all(today.velocity_depth[[c for c in gained if today.kind[c] == "tuned"]] > 0)


def test_larger_arrays_drift_like_smaller_ones() -> None:
    small = draw_population(50, SEEDS.generator("population"))
    change = drift(small, 5, SEEDS)
    assert np.array_equal(change.turned_deg, after(5)[0].turned_deg[:50])
    assert np.array_equal(change.lost, after(5)[0].lost[:50])


def test_sessions_of_a_subject_drift_as_their_truth_says() -> None:
    settings = Simulation(minutes=0.2, channels=48)
    first, later = (simulate(settings, seed=1, day=day) for day in (0, 12))
    change = later.truth.drift
    assert change.day == 12
    kept = ~(change.lost | change.gained)
    assert np.allclose(
        turned(later.truth.population, first.truth.population)[kept], (change.turned_deg[kept] + 180) % 360 - 180
    )
    assert change.lost.any()
    spikes = later.session.spikes
    assert spikes is not None
    assert max(len(spikes[c]) for c in np.flatnonzero(change.lost)) <= 5  # 12 s at 0.05 Hz
    assert not np.array_equal(first.session.behavior[0].values, later.session.behavior[0].values)


def test_a_fixed_decoder_is_worse_on_other_days() -> None:
    names = ["hand_vx", "hand_vy"]
    recipe = betz.Wiener(lags=6, prefilter_ms=(0,), strengths=(1,), folds=2)
    scores = []
    for seed in (0, 1, 2):
        days = [simulate(Simulation(minutes=3, bin_ms=50), seed=seed, day=day).session for day in (0, 1, 4)]
        decoder = recipe.calibrate(days[0].first(minutes=2), behavior=names)
        parts = [days[0].after(minutes=2), *days[1:]]
        scores.append([betz.evaluate(decoder, part, push_bins=500).r2 for part in parts])
    same, *others = np.mean(scores, axis=0)
    assert same > np.mean(others) + 0.1


def test_days_before_the_first_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"day -1 is before the array was implanted.*day 0 is the first"):
        simulate(Simulation(minutes=0.1, channels=2), day=-1)
