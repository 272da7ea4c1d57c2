"""Parts of the richer simulator: disturbances, irregular spikes, power, encodings of any features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from betz.core.errors import ConfigError
from betz.core.seeds import SeedTree
from betz.sim.disturbances import (
    LOST_HZ,
    Disturbance,
    Event,
    disturbed,
    events_of,
    recorded_from,
    swapped_spikes,
    turns,
)
from betz.sim.irregular import History, draw_history_spikes, gamma_gain
from betz.sim.power import COMMON_SD, PER_HZ_UV2, binned_rates, draw_power, draw_power_truth

ACTIVE = np.arange(20) != 3


def events(*settings: Disturbance, day: int = 0, active: np.ndarray = ACTIVE, seed: int = 0) -> tuple[Event, ...]:
    return events_of(settings, day=day, active_C=active, step_ticks=300, tick_hz=30_000, seeds=SeedTree(seed))


# ---- disturbances


def test_disturbances_hit_active_channels_at_their_time() -> None:
    late, early = events(Disturbance("loss", at_s=60.004, share=0.5), Disturbance("gain", at_s=10))[::-1]
    assert (early.kind, early.tick) == ("gain", 300_000)
    assert late.tick == 60 * 30_000  # on the step of 10 ms
    assert len(late.channels) == 10
    assert 3 not in late.channels
    assert len(set(late.channels.tolist())) == 10
    assert set(early.amount) <= {2.0, 0.5}
    again = events(Disturbance("loss", at_s=60.004, share=0.5))
    assert np.array_equal(again[0].channels, late.channels)
    assert not np.array_equal(events(Disturbance("loss", share=0.5), seed=1)[0].channels, late.channels)


def test_disturbances_hold_on_later_days() -> None:
    change = Disturbance("offset", at_s=30, day=2)
    assert events(change, day=1) == ()
    (that_day,), (next_day,) = events(change, day=2), events(change, day=3)
    assert (that_day.tick, next_day.tick) == (900_000, 0)
    assert np.array_equal(that_day.channels, next_day.channels)
    assert np.array_equal(that_day.amount, next_day.amount)
    assert np.all((that_day.amount >= 4) & (that_day.amount <= 12))


def test_rates_change_from_the_step_on() -> None:
    rate = np.full(10, 20.0)
    made = events(
        Disturbance("gain", at_s=0.02, channels=(1, 2)),
        Disturbance("offset", at_s=0.05, channels=(2,), size=-100),
        Disturbance("loss", at_s=0.08, channels=(1,)),
    )
    gain = made[0].amount_of(1)
    assert gain is not None
    one = disturbed(rate, 1, made, step_ticks=300)
    assert one.tolist() == [20.0] * 2 + [20 * gain] * 6 + [LOST_HZ] * 2
    two = disturbed(rate, 2, made, step_ticks=300)
    assert two[5:].tolist() == [LOST_HZ] * 5  # a rate cannot be negative
    assert disturbed(rate, 0, made, step_ticks=300) is rate
    assert rate.tolist() == [20.0] * 10


def test_turns_add_up() -> None:
    made = events(
        Disturbance("turn", at_s=1, channels=(4,), size=30), Disturbance("turn", at_s=2, channels=(4,), size=50)
    )
    (first, a), (second, b) = turns(4, made)
    assert (first, second) == (30_000, 60_000)
    assert abs(a) == 30
    assert abs(b - a) == 50
    assert turns(5, made) == []


def test_swaps_exchange_what_is_recorded() -> None:
    spikes = tuple(np.arange(c, 100, 10, dtype=np.int64) for c in range(4))
    made = (
        Event("swap", 30, np.array([0, 1]), np.array([1.0, 0.0])),
        Event("swap", 60, np.array([1, 2]), np.array([2.0, 1.0])),
    )
    found = swapped_spikes(spikes, made)
    assert found[0].tolist() == [0, 10, 20, *range(31, 100, 10)]
    assert found[1].tolist() == [1, 11, 21, 30, 40, 50, *range(62, 100, 10)]
    assert found[2].tolist() == [2, 12, 22, 32, 42, 52, *range(60, 100, 10)]
    assert found[3].tolist() == spikes[3].tolist()
    assert [source.tolist() for _, source in recorded_from(4, made)] == [[0, 1, 2, 3], [1, 0, 2, 3], [1, 2, 0, 3]]
    assert sorted(np.concatenate(found).tolist()) == sorted(np.concatenate(spikes).tolist())
    (drawn,) = events(Disturbance("swap", share=0.3))
    pairs = dict(zip(drawn.channels.tolist(), drawn.amount.astype(int).tolist(), strict=True))
    assert len(pairs) == 6
    assert all(pairs[b] == a for a, b in pairs.items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "swap", "channels": (1, 2, 3)}, "3 channels make no pairs"),
        ({"kind": "loss", "share": 0}, "the share above 0"),
        ({"kind": "loss", "channels": (1, 1)}, "channels must be given once each"),
        ({"kind": "gain", "size": 0}, "a gain must be above 0"),
        ({"kind": "theft"}, "kind: Input should be 'loss'"),
    ],
)
def test_impossible_disturbances_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Disturbance(**settings)


def test_disturbances_of_channels_that_are_not_there_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"channel 20 does not exist.*20 channels are numbered from 0"):
        events(Disturbance("loss", channels=(20,)))
    with pytest.raises(ConfigError, match="2 of 1 active channels cannot be drawn"):
        events(Disturbance("swap"), active=np.array([True, False]))


# ---- spikes that are not Poisson


def test_gamma_rates_make_negative_binomial_counts() -> None:
    rng = np.random.default_rng(0)
    gain = gamma_gain(200_000, variance=0.4, block=5, rng=rng)
    assert np.all(gain.reshape(-1, 5) == gain[::5, None])
    blocks = gain[::5]
    assert blocks.mean() == pytest.approx(1, abs=0.02)
    assert blocks.var() == pytest.approx(0.4, rel=0.05)
    counts = rng.poisson(3 * blocks)
    assert counts.var() / counts.mean() == pytest.approx(1 + 0.4 * 3, rel=0.05)
    assert len(gamma_gain(7, variance=0.4, block=5, rng=rng)) == 7


def history_spikes(history: History, *, hz: float = 20, seconds: int = 2000, seed: int = 0) -> np.ndarray:
    rate = np.full(seconds * 100, hz)
    return draw_history_spikes(
        rate, history, step_ticks=300, tick_hz=30_000, refractory_s=0.001, rng=np.random.default_rng(seed)
    )


def autocorrelation(ticks: np.ndarray, hz: float) -> np.ndarray:
    """Rate at 0 … 100 ms after a spike over the mean rate, in ms."""
    late = np.concatenate([ticks[k:] - ticks[:-k] for k in range(1, 12)]) // 30
    return np.bincount(late[late < 100].astype(int), minlength=100) / (len(ticks) * hz / 1000)


def test_history_makes_a_trough_and_a_hump() -> None:
    ticks = history_spikes(History())
    hz = len(ticks) / 2000
    assert hz == pytest.approx(20, rel=0.12)
    after = autocorrelation(ticks, hz)
    assert after[0] == 0  # refractory
    assert after[1:3].mean() < 0.35
    assert 1.05 < after[12:30].mean() < 1.5
    assert after[80:].mean() == pytest.approx(1, abs=0.05)
    assert np.diff(ticks).min() >= 30


def test_without_kernels_history_is_poisson() -> None:
    ticks = history_spikes(History(suppression=0, excitation=0))
    assert len(ticks) / 2000 == pytest.approx(20, rel=0.02)
    after = autocorrelation(ticks, len(ticks) / 2000)
    assert np.allclose(after[2:].reshape(7, 14).mean(axis=1), 1, atol=0.06)
    shorter = history_spikes(History(), seconds=500)
    assert np.array_equal(history_spikes(History())[: len(shorter)], shorter)


def test_runaway_excitation_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"so much excitation lets rates run away.*at most 20"):
        History(excitation=2, excitation_ms=50)
    with pytest.raises(ConfigError, match="sizes must be ≥ 0"):
        History(suppression=-1)


# ---- power


def test_power_follows_rates_of_the_electrode_and_its_neighbours() -> None:
    rates = np.random.default_rng(0).gamma(2, 10, (20_000, 4))
    truth = draw_power_truth(("A", "A", "B", "B"), SeedTree(0))
    power = draw_power(rates, truth, bin_s=0.02, seeds=SeedTree(1))
    assert power.dtype == np.float32
    assert power.min() > 0
    design = np.column_stack((np.ones(len(rates)), rates))
    weights = np.linalg.lstsq(design, power, rcond=None)[0]
    assert np.allclose(weights[0], truth.floor_uV2, rtol=0.06)
    assert np.allclose(np.diag(weights[1:]), truth.per_hz_uV2, rtol=0.05)
    assert weights[1 + 1, 0] == pytest.approx(truth.per_hz_uV2[1] / 8, rel=0.3)
    assert abs(weights[1 + 2, 1]) < 0.03 * PER_HZ_UV2  # another array is no neighbour
    noise = power / truth.mean_NC(rates)
    assert np.allclose(noise.std(axis=0), np.hypot(1 / np.sqrt(700 * 0.02), COMMON_SD), rtol=0.06)
    shorter = draw_power(rates[:500], truth, bin_s=0.02, seeds=SeedTree(1))
    assert np.array_equal(shorter, power[:500])


def test_binned_rates_are_means() -> None:
    rate = np.array([1.0, 3.0, 5.0, 7.0])
    assert binned_rates(rate, np.array([0, 300, 900, 1050]), step_ticks=300).tolist() == [1.0, 4.0, 7.0]
    assert binned_rates(rate, np.array([150, 450]), step_ticks=300).tolist() == [2.0]
