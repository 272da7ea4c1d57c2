"""Spike times: Poisson around a rate, refractory, in order, the same at any length."""

from __future__ import annotations

import numpy as np
import pytest

from betz.sim.spikes import MAX_HZ, draw_spikes, soft_limit

STEP = {"step_ticks": 300, "tick_hz": 30_000}
STEPS = 200_000  # 2000 s


def draw(rate_T: np.ndarray, seed: int = 0, **options: float) -> np.ndarray:
    return draw_spikes(rate_T, **STEP, rng=np.random.default_rng(seed), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("rate_hz", [0.5, 8.0, 60.0, 220.0])
def test_the_rate_is_kept_in_spite_of_the_refractory_period(rate_hz: float) -> None:
    ticks = draw(np.full(STEPS, rate_hz))
    expected = rate_hz * STEPS / 100
    assert abs(len(ticks) - expected) < 4 * np.sqrt(expected)
    gaps = np.diff(ticks)
    assert gaps.min() >= 30
    assert ticks.dtype == np.int64
    assert ticks[0] >= 0
    assert ticks[-1] < STEPS * 300


def test_spikes_follow_the_rate_within_10_ms() -> None:
    rate = np.where(np.arange(STEPS) // 5 % 2 == 0, 5.0, 80.0)  # 50 ms low, 50 ms high
    phase = np.bincount(draw(rate) // 300 % 10, minlength=10) / (STEPS / 10) * 100
    assert np.allclose(phase[:5], 5, atol=0.6)
    assert np.allclose(phase[5:], 80, atol=2.5)


def test_counts_scatter_like_poisson() -> None:
    """Variance over mean is (1 − rate · dead time)², as for any Poisson process with a dead time."""
    for rate_hz, wanted in ((5.0, 0.99), (100.0, 0.81)):
        counts = np.bincount(draw(np.full(STEPS, rate_hz)) // 6000, minlength=STEPS // 20)
        assert counts.var() / counts.mean() == pytest.approx(wanted, abs=0.06)


def test_longer_rates_begin_with_the_same_spikes() -> None:
    rate = 30 * np.exp(np.sin(np.arange(STEPS) / 50))
    short, long = draw(rate[:1000]), draw(rate)
    assert len(short) > 250
    assert np.array_equal(short, long[: len(short)])
    assert long[len(short)] >= 1000 * 300
    assert not np.array_equal(short, draw(rate[:1000], seed=1)[: len(short)])


def test_another_refractory_period() -> None:
    ticks = draw(np.full(STEPS, 100.0), refractory_s=0.004)
    assert np.diff(ticks).min() >= 120
    assert abs(len(ticks) - 100 * STEPS / 100) < 4 * np.sqrt(100 * STEPS / 100)
    assert np.diff(draw(np.full(STEPS, 200.0), refractory_s=0.0)).min() == 1  # never twice on a tick


def test_a_silent_channel_may_have_no_spike() -> None:
    assert draw(np.full(10, 1e-6)).size == 0


def test_rates_level_off() -> None:
    assert soft_limit(np.array([0.0, 1.0, MAX_HZ, 1e9])) == pytest.approx([0, 250 / 251, 125, 250], rel=1e-6)
