"""The optimal linear estimator: against least squares written out, its smoothing, its errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

import betz
from betz.core.errors import ConfigError, DataError
from betz.core.metrics import r2_variance_weighted
from betz.core.session import BehaviorDim, Series, Session
from betz.decode.baselines import ole
from betz.decode.baselines.ole import OLE, OLEDecoder
from betz.testing import check_split
from tests.unit.test_kalman import many, names
from tests.unit.test_wiener import BEHAVIOR, decode, session


def rates(decoder: OLEDecoder, data: Session) -> np.ndarray:
    """Smoothed z-scores by a loop."""
    z = np.clip((data.signals - decoder.scaler.mean) / decoder.scaler.sd, -8, 8)
    tau = decoder.filters[0].tau_ms
    keep = np.exp(-data.bin_ms / tau) if tau else 0.0
    level, out = np.zeros(z.shape[1]), []
    for row in z:
        level = keep * level + (1 - keep) * row
        out.append(level)
    return np.array(out)


def encoding(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """b₀, B and the residuals' covariance of z = b₀ + B y, by scikit-learn."""
    model = LinearRegression().fit(y, z)
    return model.intercept_, model.coef_, np.cov((z - model.predict(y)).T, bias=True)


@pytest.fixture
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the floor of noise variances, which textbooks lack."""
    monkeypatch.setattr(ole, "NOISE_FLOOR", 0.0)


@pytest.mark.usefixtures("_plain")
@pytest.mark.parametrize("tau", [0, 120])
def test_unbiased_equals_weighted_least_squares(tau: float) -> None:
    """Bin by bin, ŷ minimises (z − b₀ − B y)ᵀ Σ⁻¹ (z − b₀ − B y)."""
    data = session()
    fitted = OLE(smoothing_ms=(tau,), ridge=(0,), shrink=(0.2,), inverse="unbiased").calibrate(data, behavior=BEHAVIOR)
    z, y = rates(fitted, data), data.behavior_of(BEHAVIOR)
    offset, b, noise = encoding(z, y)
    noise = 0.8 * noise + 0.2 * np.diag(np.diag(noise))
    half = np.linalg.cholesky(np.linalg.inv(noise))
    wanted = np.array([np.linalg.lstsq(half.T @ b, half.T @ (row - offset), rcond=None)[0] for row in z])
    assert np.abs(decode(fitted, data) - wanted).max() < 1e-9
    weights = fitted.filters[0].taps_TCK[0]
    assert np.allclose(weights.T @ b, np.eye(2), atol=1e-9), "its mean is the true behavior, whatever it is"


@pytest.mark.usefixtures("_plain")
def test_optimal_is_the_best_linear_estimate() -> None:
    """Encoding, inverted with the prior of behavior and the whole noise covariance, is regression of behavior on rates.

    This is what Salinas and Abbott's Q⁻¹ L amounts to for a linear tuning, reached here by another way.
    """
    data = session()
    fitted = OLE(smoothing_ms=(120,), ridge=(0,), shrink=(0,)).calibrate(data, behavior=BEHAVIOR)
    z, y = rates(fitted, data), data.behavior_of(BEHAVIOR)
    assert np.abs(decode(fitted, data) - LinearRegression().fit(z, y).predict(z)).max() < 1e-6


def test_the_noise_of_quiet_channels_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """A near-dead channel that wakes up does harm; with the floor at the median variance, much less."""
    data = session(bins=3000)
    assert data.counts is not None
    counts = data.counts.copy()
    counts[:2000, :3] = 0
    counts[[700, 900], :3] = 1
    counts[2000:, :3] = np.random.default_rng(0).poisson(30, (1000, 3))
    woken = replace(data, counts=counts)
    test = woken.between(2000, 3000)
    r2 = []
    for floor in (0.001, ole.NOISE_FLOOR):
        monkeypatch.setattr(ole, "NOISE_FLOOR", floor)
        found = decode(OLE(shrink=(0.1,)).calibrate(woken.between(0, 2000), behavior=BEHAVIOR), test)
        r2.append(r2_variance_weighted(test.behavior_of(BEHAVIOR), found))
    assert r2[1] > 0.5
    assert r2[1] > r2[0] + 0.3


def test_slow_behavior_is_smoothed_longer() -> None:
    data = session(bins=4000)
    rng = np.random.default_rng(0)
    slow = np.stack([np.convolve(rng.normal(size=4000), np.ones(80) / 8, "full")[:4000] for _ in range(2)], axis=1)
    counts = rng.poisson(np.exp(0.15 * slow @ rng.normal(size=(2, 10)))).astype(np.uint8)
    lazy = replace(data, counts=counts, behavior=(replace(data.behavior[0], values=slow),))
    chosen = OLE().calibrate(lazy, behavior=BEHAVIOR).filters[0]
    assert chosen.tau_ms == 450
    assert OLE().calibrate(data, behavior=BEHAVIOR).filters[0].tau_ms < 200


def test_spread_is_the_size_of_the_error() -> None:
    data = session(bins=6000)
    fitted = OLE().calibrate(data.between(0, 3000), behavior=BEHAVIOR)
    test = data.between(3000, 6000)
    error = (test.behavior_of(BEHAVIOR) - decode(fitted, test)).std(axis=0)
    assert np.all(np.abs(fitted.filters[0].spread / error - 1) < 0.1)


def test_it_is_saved_as_what_it_is(tmp_path: Path) -> None:
    fitted = OLE().calibrate(session(), behavior=BEHAVIOR)
    fitted.save(tmp_path)
    loaded = betz.load(tmp_path)
    assert type(loaded) is OLEDecoder
    assert np.array_equal(decode(loaded, session()), decode(fitted, session()))


def test_the_test_part_cannot_leak() -> None:
    check_split(lambda s: OLE().calibrate(s.between(0, 900), behavior=BEHAVIOR), session(), first_test_bin=900)


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
        OLE().calibrate(replace(data, **changes), behavior=BEHAVIOR)


def test_some_unlabelled_bins_are_left_out() -> None:
    data = session()
    values = data.behavior[0].values.copy()
    values[400:600, 0] = np.nan
    fitted = OLE().calibrate(replace(data, behavior=(replace(data.behavior[0], values=values),)), behavior=BEHAVIOR)
    assert fitted.report["labelled_bins"] == 1300
    values = values.copy()
    values[400:600, 1] = 1e6
    again = OLE().calibrate(replace(data, behavior=(replace(data.behavior[0], values=values),)), behavior=BEHAVIOR)
    assert np.array_equal(again.filters[0].taps_TCK, fitted.filters[0].taps_TCK)


def test_too_many_dimensions_are_refused() -> None:
    with pytest.raises(DataError, match=r"22 labelled bins are too few for 16 dimensions and 4 folds"):
        OLE().calibrate(many(22), behavior=names())
    with pytest.raises(ConfigError, match=r"10 live channels cannot be inverted into 16 dimensions.*optimal"):
        OLE(inverse="unbiased").calibrate(many(400), behavior=names())
    assert np.isfinite(decode(OLE().calibrate(many(400), behavior=names()), many(400))).all()


def test_wrong_settings_and_behavior_are_refused() -> None:
    data = session()
    click = Series(np.zeros((1500, 1)), (BehaviorDim("click", "", "discrete", ("no", "yes")),), 0, 50)
    with pytest.raises(ConfigError, match=r"OLE.calibrate: it decodes continuous behavior only, not click.*LDA"):
        OLE().calibrate(data.with_behavior(click), behavior=["click"])
    for settings in ({"ridge": ()}, {"folds": 1}, {"smoothing_ms": (-1,)}, {"ridge": (-0.1,)}, {"shrink": (2,)}):
        with pytest.raises(ConfigError, match="OLE settings"):
            OLE(**settings)  # type: ignore[arg-type]
