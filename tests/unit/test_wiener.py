"""The Wiener filter: against scikit-learn end to end, its robustness, its errors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from betz.core.errors import ConfigError, DataError
from betz.core.metrics import r2_variance_weighted
from betz.core.session import BehaviorDim, Channel, Series, Session
from betz.core.timegrid import BinGrid
from betz.decode.baselines.wiener import Wiener, WienerDecoder
from betz.decode.features import Scaler
from betz.testing import check_split

BEHAVIOR = ["hand_vx", "hand_vy"]


def session(bins: int = 1500, channels: int = 10, bin_ms: float = 50, seed: int = 0, **changes: Any) -> Session:
    rng = np.random.default_rng(seed)
    grid = BinGrid.from_ms(bin_ms)
    velocity = np.stack([np.convolve(rng.normal(size=bins), np.ones(9) / 3, "same") for _ in range(2)], axis=1)
    counts = rng.poisson(np.exp(0.5 * velocity @ rng.normal(size=(2, channels)))).astype(np.uint8)
    dims = (BehaviorDim("hand_vx", "cm/s"), BehaviorDim("hand_vy", "cm/s"))
    made = Session(
        id="made-up",
        subject="nobody",
        grid=grid,
        num_bins=bins,
        channels=tuple(Channel(f"c{i}") for i in range(channels)),
        counts=counts,
        behavior=(Series(velocity, dims, 0, grid.ticks_per_bin),),
    )
    return replace(made, **changes)


def decode(decoder: WienerDecoder, part: Session) -> np.ndarray:
    decoder.open(1, max_push_bins=part.num_bins)
    return decoder.push(part.signals[None]).values[0]


def test_equals_scikit_learn_end_to_end() -> None:
    """Same z-scores, lags and strength: the whole decoder equals Ridge on an explicit lag matrix."""
    data = session()
    fitted = Wiener(lags=5, prefilter_ms=(0,), strengths=(0.1,)).calibrate(data, behavior=BEHAVIOR)
    counts = data.signals.astype(float)
    z = (counts - counts.mean(axis=0)) / np.maximum(counts.std(axis=0), 0.3 * np.median(counts.std(axis=0)))
    z = np.clip(z, -8, 8)
    rows = np.concatenate([np.concatenate((np.zeros((lag, 10)), z[: len(z) - lag])) for lag in range(5)], axis=1)
    # The reference scales behavior as the decoder does; ridge is then linear in it.
    y = data.behavior_of(BEHAVIOR)
    model = Ridge(alpha=0.1 * len(y)).fit(rows, (y - y.mean(axis=0)) / y.std(axis=0))
    wanted = model.predict(rows) * y.std(axis=0) + y.mean(axis=0)
    assert np.abs(decode(fitted, data) - wanted).max() < 1e-9


def test_prefilter_is_the_exponential_filter() -> None:
    data = session()
    fitted = Wiener(lags=1, prefilter_ms=(120,), strengths=(0.1,)).calibrate(data, behavior=BEHAVIOR)
    keep = np.exp(-50 / 120)
    z, level = fitted.scaler.apply(data.signals.astype(float)), np.zeros(10)
    levels = []
    for row in z:
        level = keep * level + (1 - keep) * row
        levels.append(level)
    wanted = np.array(levels) @ fitted.filters[0].taps_TCK[0] + fitted.filters[0].intercept
    assert np.abs(decode(fitted, data) - wanted).max() < 1e-9
    assert fitted.context_bins is None


def test_narrow_bins_share_weights_over_40_ms() -> None:
    fitted = Wiener(span_ms=(200,)).calibrate(session(bin_ms=10), behavior=BEHAVIOR)
    taps = fitted.filters[0].taps_TCK
    assert len(taps) == 20
    assert all(np.array_equal(taps[4 * k], taps[4 * k + i]) for k in range(5) for i in range(4))


def test_cross_validation_prefers_what_generates_the_data() -> None:
    """Behavior that lags the signals by 350 ms needs a long span; noise needs a strong ridge."""
    data = session(bins=4000)
    series = data.behavior[0]
    late = replace(data, behavior=(replace(series, values=np.roll(series.values, 7, axis=0)),))
    chosen = Wiener(prefilter_ms=(0,)).calibrate(late, behavior=BEHAVIOR).filters[0].chosen
    assert chosen["span_ms"] >= 350
    rng = np.random.default_rng(0)
    noise = replace(data, behavior=(replace(series, values=rng.normal(size=series.values.shape)),))
    strong = Wiener(prefilter_ms=(0,)).calibrate(noise.between(0, 300), behavior=BEHAVIOR).filters[0].chosen
    assert strong["strength"] >= 3
    assert strong["cv_r2"] < 0.05


def test_each_unit_gets_its_own_settings_and_order_does_not_matter() -> None:
    data = session()
    position = Series(
        np.cumsum(data.behavior[0].values, axis=0), (BehaviorDim("x", "cm"), BehaviorDim("y", "cm")), 0, 50
    )
    data = data.with_behavior(position)
    mixed = Wiener().calibrate(data, behavior=["x", "hand_vy", "y", "hand_vx"])
    assert [f.columns for f in mixed.filters] == [(0, 2), (1, 3)]
    alone = Wiener().calibrate(data, behavior=BEHAVIOR)
    assert np.allclose(decode(mixed, data)[:, [3, 1]], decode(alone, data), atol=1e-9)
    assert [d.unit for d in mixed.behavior] == ["cm", "cm/s", "cm", "cm/s"]


def test_a_near_dead_channel_that_wakes_up_does_no_harm() -> None:
    data = session(bins=3000)
    assert data.counts is not None
    counts = data.counts.copy()
    counts[:2000, 3] = 0
    counts[700, 3] = 1
    counts[2000:, 3] = np.random.default_rng(0).poisson(30, 1000)
    woken = replace(data, counts=counts)
    fitted = Wiener().calibrate(woken.between(0, 2000), behavior=BEHAVIOR)
    test = woken.between(2000, 3000)
    clean = Wiener().calibrate(data.between(0, 2000), behavior=BEHAVIOR)
    best = r2_variance_weighted(test.behavior_of(BEHAVIOR), decode(clean, data.between(2000, 3000)))
    assert r2_variance_weighted(test.behavior_of(BEHAVIOR), decode(fitted, test)) > best - 0.1


def test_the_floor_is_within_kinds_of_channels() -> None:
    channels = (Channel("a"), Channel("b"), Channel("c"), Channel("p", "power", unit="uV^2"))
    rng = np.random.default_rng(0)
    signals = np.stack([rng.poisson(4, 500), rng.poisson(4, 500), np.arange(500) == 9, rng.normal(size=500) * 1e-6], 1)
    scaler = Scaler.fit(signals, channels)
    assert scaler.sd[3] == pytest.approx(signals[:, 3].std())  # not floored by the counts' scale
    assert scaler.sd[2] == pytest.approx(0.3 * np.median(signals[:, :3].std(axis=0)))


def test_unlabelled_bins_are_left_out_but_still_feed_lags() -> None:
    data = session()
    values = data.behavior[0].values.copy()
    values[400:600, 0] = np.nan
    masked = replace(data, behavior=(replace(data.behavior[0], values=values),))
    recipe = Wiener(lags=3, prefilter_ms=(0,), strengths=(0.1,))
    fitted = recipe.calibrate(masked, behavior=BEHAVIOR)
    assert fitted.report["labelled_bins"] == 1300
    z = fitted.scaler.apply(data.signals.astype(float))
    rows = np.concatenate([np.concatenate((np.zeros((lag, 10)), z[: len(z) - lag])) for lag in range(3)], axis=1)
    keep = np.isfinite(values).all(axis=1)
    y = values[keep]
    model = Ridge(alpha=0.1 * keep.sum()).fit(rows[keep], (y - y.mean(axis=0)) / y.std(axis=0))
    assert np.allclose(decode(fitted, data), model.predict(rows) * y.std(axis=0) + y.mean(axis=0), atol=1e-9)


def test_nothing_crosses_an_edge_in_calibration() -> None:
    """Signals before an edge do not change what is fitted from labels after it, and the other way round."""
    data = session(bins=1000, edges=np.array([500 * 50]))
    assert data.counts is not None
    swapped = np.concatenate((data.counts[500:], data.counts[:500]))
    values = data.behavior[0].values
    other = replace(
        data,
        counts=swapped,
        behavior=(replace(data.behavior[0], values=np.concatenate((values[500:], values[:500]))),),
    )
    recipe = Wiener(lags=6, prefilter_ms=(120,), strengths=(0.1,))
    a, b = (recipe.calibrate(s, behavior=BEHAVIOR) for s in (data, other))
    assert np.allclose(a.filters[0].taps_TCK, b.filters[0].taps_TCK, atol=1e-12)
    crossed = recipe.calibrate(data.without_edges(), behavior=BEHAVIOR)
    assert not np.allclose(a.filters[0].taps_TCK, crossed.filters[0].taps_TCK, atol=1e-6)


def test_the_test_part_cannot_leak() -> None:
    check_split(lambda s: Wiener().calibrate(s.between(0, 900), behavior=BEHAVIOR), session(), first_test_bin=900)
    with pytest.raises(AssertionError, match="bins from 900 on change what is fitted"):
        check_split(lambda s: Wiener().calibrate(s.between(0, 901), behavior=BEHAVIOR), session(), first_test_bin=900)


def test_spread_is_the_size_of_the_error() -> None:
    data = session(bins=6000)
    fitted = Wiener().calibrate(data.between(0, 3000), behavior=BEHAVIOR)
    test = data.between(3000, 6000)
    fitted.open(1, max_push_bins=3000)
    found = fitted.push(test.signals[None])
    assert found.spread is not None
    error = (test.behavior_of(BEHAVIOR) - found.values[0]).std(axis=0)
    assert np.all(np.abs(found.spread[0, 0] / error - 1) < 0.1)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "constant": ({"behavior": "constant"}, r"hand_vx does not change.*leave it out"),
    "no labels": ({"behavior": "nan"}, r"0 of 1500 bins are usable and labelled.*hand_vx: 1500 unknown"),
    "dead": ({"counts": np.zeros((1500, 10), np.uint8)}, r"all 10 channels are dead"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_calibrations_say_why(name: str) -> None:
    changes, message = BAD[name]
    data = session()
    if isinstance(changes.get("behavior"), str):
        values = data.behavior[0].values.copy()
        values[:, 0] = 1.0 if changes["behavior"] == "constant" else np.nan
        changes = {"behavior": (replace(data.behavior[0], values=values),)}
    with pytest.raises(DataError, match=message):
        Wiener().calibrate(replace(data, **changes), behavior=BEHAVIOR)


def test_few_bins_and_discrete_behavior_are_refused() -> None:
    with pytest.raises(DataError, match=r"10 of 10 bins are usable.*at least 20"):
        Wiener().calibrate(session().between(0, 10), behavior=BEHAVIOR)
    data = session()
    click = Series(np.zeros((1500, 1)), (BehaviorDim("click", "", "discrete", ("no", "yes")),), 0, 50)
    with pytest.raises(ConfigError, match="it decodes continuous behavior only, not click"):
        Wiener().calibrate(data.with_behavior(click), behavior=["click"])
    with pytest.raises(DataError, match="no behavior named 'hand_z'"):
        Wiener().calibrate(data, behavior=["hand_z"])


def test_ten_seconds_and_one_channel_work() -> None:
    fitted = Wiener().calibrate(session(bins=200, channels=1), behavior=BEHAVIOR)
    assert np.isfinite(decode(fitted, session(channels=1))).all()


def test_a_tail_is_judged_by_its_own_variance() -> None:
    """A dimension that all but falls silent in the held-out part counts by its R² there, not by its small error."""
    data = session(bins=4000)
    noise = np.random.default_rng(3)
    values = data.behavior_of(BEHAVIOR)
    values[:, 1] = 0.45 * values[:, 0] + 0.9 * values[:, 1].std() * noise.normal(size=len(values))
    values[3200:, 1] *= 0.05
    series = replace(data.behavior[0], values=values)
    recipe = Wiener(lags=3, prefilter_ms=(0,), strengths=(0.001, 30), validation="tail", folds=5)
    both = recipe.calibrate(replace(data, behavior=(series,)), behavior=BEHAVIOR)
    assert both.filters[0].chosen["strength"] == 30
    assert recipe.calibrate(data, behavior=BEHAVIOR[:1]).filters[0].chosen["strength"] == 0.001
