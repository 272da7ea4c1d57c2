"""Discrete behavior: LDA and logistic regression against scikit-learn, streaming, lost bins, their errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from betz.core.errors import ConfigError, DataError
from betz.core.metrics import balanced_accuracy
from betz.core.session import BehaviorDim, Channel, Series, Session
from betz.core.timegrid import BinGrid
from betz.decode.baselines.discrete import LDA, DiscreteDecoder, Logistic
from betz.decode.baselines.discrete_fit import fit_logistic
from betz.decode.decoder import load
from betz.testing import check_decoder, check_split

GRASP = ("rest", "pinch", "power")
Array = np.ndarray


def session(bins: int = 1500, *, seed: int = 0, bin_ms: float = 50, gain: float = 0.8, **changes: Any) -> Session:
    """Stretches of half a second or more of three grasps and of clicks, and channels that tell of them."""
    rng = np.random.default_rng(seed)
    grid = BinGrid.from_ms(bin_ms)
    grasp = np.repeat(rng.integers(0, 3, bins // 20 + 1), 20)[:bins]
    click = np.repeat(rng.random(bins // 20 + 1) < 0.2, 20)[:bins].astype(int)
    drive = gain * (rng.normal(size=(3, 8))[grasp] + click[:, None] * rng.normal(size=8))
    made = Session(
        id="grasping",
        subject="nobody",
        grid=grid,
        num_bins=bins,
        channels=tuple(Channel(f"c{i}") for i in range(8)),
        counts=np.minimum(rng.poisson(np.exp(drive)), 255).astype(np.uint8),
        behavior=(
            Series(
                np.stack((grasp, click), axis=1).astype(float),
                (BehaviorDim("grasp", "", "discrete", GRASP), BehaviorDim("click", "", "discrete", ("no", "yes"))),
                0,
                grid.ticks_per_bin,
            ),
        ),
    )
    return replace(made, **changes)


def with_labels(data: Session, values: Array) -> Session:
    return replace(data, behavior=(replace(data.behavior[0], values=values),))


def decode(decoder: DiscreteDecoder, data: Session) -> Array:
    decoder.open(1, max_push_bins=data.num_bins)
    return decoder.push(data.signals[None]).values[0]


def features(decoder: DiscreteDecoder, data: Session, *, tau: float, lags: int) -> Array:
    """Filtered z-scores and their lags, by loops."""
    z = np.clip((data.signals - decoder.scaler.mean) / decoder.scaler.sd, -8, 8)
    keep, level, levels = np.exp(-data.bin_ms / tau), np.zeros(8), []
    for row in z:
        level = keep * level + (1 - keep) * row
        levels.append(level)
    x = np.array(levels)
    return np.concatenate([np.concatenate((np.zeros((lag, 8)), x[: len(x) - lag])) for lag in range(lags)], axis=1)


# ---- against scikit-learn


@pytest.mark.parametrize("priors", ["calibration", "equal"])
def test_lda_equals_scikit_learn(priors: str) -> None:
    data = session()
    fitted = LDA(prefilter_ms=(60,), span_ms=(150,), shrink=(0.2,), priors=priors).calibrate(data, behavior=["grasp"])
    x, y = features(fitted, data, tau=60, lags=3), data.behavior_of(["grasp"])[:, 0].astype(int)
    equal = np.full(3, 1 / 3) if priors == "equal" else None
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.2, priors=equal).fit(x, y)
    if priors == "calibration":
        assert np.abs(decode(fitted, data) - model.predict_proba(x)).max() < 1e-9
    else:  # scikit-learn's covariance is weighted by the given priors, too; ours is that of the data
        model.covariance_ = sum((y == c).mean() * np.cov(x[y == c].T, bias=True) for c in range(3))
        shrunk = 0.8 * model.covariance_ + 0.2 * np.trace(model.covariance_) / len(model.covariance_) * np.eye(24)
        weights = np.linalg.solve(shrunk, model.means_.T)
        logits = x @ weights - 0.5 * np.einsum("kf,fk->k", model.means_, weights)
        wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        assert np.abs(decode(fitted, data) - wanted).max() < 1e-9


@pytest.mark.parametrize("priors", ["calibration", "equal"])
def test_logistic_equals_scikit_learn(priors: str) -> None:
    data = session()
    recipe = Logistic(prefilter_ms=(60,), span_ms=(100,), strengths=(0.05,), priors=priors)
    fitted = recipe.calibrate(data, behavior=["grasp"])
    x, y = features(fitted, data, tau=60, lags=2), data.behavior_of(["grasp"])[:, 0].astype(int)
    weight = "balanced" if priors == "equal" else None
    model = LogisticRegression(C=1 / (0.05 * len(y)), class_weight=weight, tol=1e-10, max_iter=10_000).fit(x, y)
    assert np.abs(decode(fitted, data) - model.predict_proba(x)).max() < 1e-6


def test_two_classes_of_logistic_regression() -> None:
    """With a weight vector a class, half the ridge of scikit-learn's single vector."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 6)), rng.integers(0, 2, 300)
    x[:, 0] += y
    weights, offset = fit_logistic(x, np.eye(2)[y], strength=0.1, equal=False)
    model = LogisticRegression(C=1 / (0.05 * 300), tol=1e-12, max_iter=10_000).fit(x, y)
    assert np.allclose(weights[:, 1] - weights[:, 0], model.coef_[0], atol=1e-6)
    assert offset[1] - offset[0] == pytest.approx(model.intercept_[0], abs=1e-6)


def test_separable_classes_do_not_break_newton() -> None:
    x = np.concatenate((np.full((50, 2), -3.0), np.full((50, 2), 3.0)))
    weights, _ = fit_logistic(x, np.eye(2)[np.repeat([0, 1], 50)], strength=1e-4, equal=False)
    assert np.isfinite(weights).all()
    assert ((x @ weights).argmax(axis=1) == np.repeat([0, 1], 50)).all()


# ---- as decoders


@pytest.mark.parametrize("recipe", [LDA(), Logistic()], ids=["lda", "logistic"])
def test_probabilities_of_several_dimensions(recipe: LDA | Logistic) -> None:
    data = session(3000)
    fitted = recipe.calibrate(data.between(0, 1500), behavior=["click", "grasp"])
    test = data.between(1500, 3000)
    found = decode(fitted, test)
    assert found.shape == (1500, 5)
    assert np.allclose(found[:, :2].sum(axis=1), 1)
    assert np.allclose(found[:, 2:].sum(axis=1), 1)
    assert found.min() >= 0
    click, grasp = test.behavior_of(["click", "grasp"]).astype(np.int64).T
    assert balanced_accuracy(click, found[:, :2].argmax(axis=1)) > 0.8
    assert balanced_accuracy(grasp, found[:, 2:].argmax(axis=1)) > 0.9
    assert fitted.report["labelled_bins"]["click"]["yes"] == (data.behavior_of(["click"])[:1500] == 1).sum()
    alone = recipe.calibrate(data.between(0, 1500), behavior=["grasp"])
    assert np.allclose(decode(alone, test), found[:, 2:], atol=1e-12), "dimensions do not depend on each other"


def test_calibrated_probabilities_are_honest() -> None:
    """Where logistic regression says 70 to 90 %, it is right in so many bins."""
    data = session(8000, gain=0.3)
    test = data.between(4000, 8000)
    found = decode(Logistic().calibrate(data.between(0, 4000), behavior=["grasp"]), test)
    best, top = found.argmax(axis=1), found.max(axis=1)
    sure = (top > 0.7) & (top < 0.9)
    assert sure.sum() > 300
    assert abs((best == test.behavior_of(["grasp"])[:, 0])[sure].mean() - top[sure].mean()) < 0.06


def test_equal_priors_find_rare_classes_more_often() -> None:
    data = session(3000, gain=0.3)
    test = data.between(1500, 3000)
    truth = test.behavior_of(["click"])[:, 0]
    for recipe in (LDA(), Logistic()):
        plain, equal = (
            decode(made.calibrate(data.between(0, 1500), behavior=["click"]), test)[:, 1] > 0.5
            for made in (recipe, replace(recipe, priors="equal"))
        )
        assert equal[truth == 1].mean() > plain[truth == 1].mean() + 0.05
        assert equal[truth == 0].mean() > plain[truth == 0].mean()


def test_settings_are_chosen_by_log_loss() -> None:
    """Noisy channels need a long filter, and few bins more shrinking than many."""
    long = LDA().calibrate(session(3000, gain=0.25), behavior=["grasp"]).filters[0]
    assert long.tau_ms + long.chosen["span_ms"] >= 240
    few = LDA(span_ms=(200,)).calibrate(session(100, gain=0.5), behavior=["grasp"]).filters[0].chosen
    many = LDA(span_ms=(200,)).calibrate(session(4000, gain=0.5), behavior=["grasp"]).filters[0].chosen
    assert few["strength"] > many["strength"]


@pytest.mark.parametrize("recipe", [LDA(span_ms=(100, 200)), Logistic()], ids=["lda", "logistic"])
def test_contract_with_narrow_bins(recipe: LDA | Logistic, tmp_path: Path) -> None:
    recipe.calibrate(session(bin_ms=20), behavior=["grasp", "click"]).save(tmp_path)
    report = check_decoder(lambda: load(tmp_path))
    assert len(report.checks) == 15


def test_a_class_that_does_not_occur_has_probability_0() -> None:
    data = session()
    values = data.behavior[0].values.copy()
    values[values[:, 0] == 1, 0] = 0
    for recipe in (LDA(), Logistic()):
        fitted = recipe.calibrate(with_labels(data, values), behavior=["grasp"])
        found = decode(fitted, data)
        assert np.all(found[:, 1] == 0)
        assert np.allclose(found.sum(axis=1), 1)
        assert fitted.report["labelled_bins"]["grasp"]["pinch"] == 0


def test_lost_bins_say_what_the_calibration_mean_says() -> None:
    data = session()
    fitted = LDA(prefilter_ms=(60,)).calibrate(data, behavior=["grasp"])
    fitted.open(1, max_push_bins=100)
    mean = np.broadcast_to(fitted.scaler.mean, (1, 100, 8))
    there = fitted.push(mean).values
    fitted.reset()
    lost = fitted.push(np.full((1, 100, 8), np.nan), np.zeros((1, 100), dtype=bool))
    assert np.allclose(lost.values, there, atol=1e-12)
    assert not lost.valid.any()


def test_unlabelled_bins_are_left_out_dimension_by_dimension() -> None:
    data = session()
    values = data.behavior[0].values.copy()
    values[100:400, 1] = np.nan
    for recipe in (LDA(), Logistic(prefilter_ms=(60,), span_ms=(50,))):
        both = recipe.calibrate(with_labels(data, values), behavior=["grasp", "click"])
        assert sum(both.report["labelled_bins"]["click"].values()) == 1200
        whole = recipe.calibrate(data, behavior=["grasp"])
        assert np.allclose(decode(both, data)[:, :3], decode(whole, data), atol=1e-12)


def test_the_test_part_cannot_leak() -> None:
    data = session()
    labels = data.behavior[0].values.copy()
    labels[900:] = 0
    for recipe in (LDA(), Logistic()):
        check_split(lambda s, r=recipe: r.calibrate(s.between(0, 900), behavior=["grasp"]), data, first_test_bin=900)
        a, b = (recipe.calibrate(s.between(0, 900), behavior=["click"]) for s in (data, with_labels(data, labels)))
        assert np.array_equal(a.filters[0].taps_TCK, b.filters[0].taps_TCK)


# ---- bad input


@pytest.mark.parametrize("recipe", [LDA(), Logistic()], ids=["lda", "logistic"])
def test_bad_calibrations_say_why(recipe: LDA | Logistic) -> None:
    data = session()
    values = data.behavior[0].values.copy()
    values[:, 1] = 0
    with pytest.raises(DataError, match=r"click is always 'no', so nothing can be learned.*two of its classes"):
        recipe.calibrate(with_labels(data, values), behavior=["click", "grasp"])
    values[:, 1] = np.nan
    with pytest.raises(DataError, match=r"0 of 1500 bins are usable and labelled.*click: 1500 unknown"):
        recipe.calibrate(with_labels(data, values), behavior=["click"])
    with pytest.raises(DataError, match=r"all 8 channels are dead"):
        recipe.calibrate(replace(data, counts=np.zeros((1500, 8), np.uint8)), behavior=["click"])
    with pytest.raises(DataError, match=r"10 of 10 bins are usable.*at least 20"):
        recipe.calibrate(data.between(0, 10), behavior=["grasp"])
    force = data.with_behavior(Series(np.zeros((1500, 1)), (BehaviorDim("force", "N"),), 0, 50))
    with pytest.raises(ConfigError, match=r"it decodes discrete behavior only, not force.*Wiener or Kalman"):
        recipe.calibrate(force, behavior=["force", "click"])


def test_fewer_bins_than_parameters_are_held_by_the_ridge() -> None:
    """25 bins, 64 features: shrinking and ridge make it solvable, and no worse than a guess."""
    data = session(3000)
    for recipe in (LDA(span_ms=(400,)), Logistic(span_ms=(400,))):
        few = recipe.calibrate(data.between(0, 45), behavior=["grasp"])
        found = decode(few, data)
        assert np.isfinite(found).all()
        assert balanced_accuracy(data.behavior_of(["grasp"])[:, 0].astype(np.int64), found.argmax(axis=1)) > 1 / 3


def test_wrong_settings_are_refused() -> None:
    for settings in ({"span_ms": ()}, {"folds": 1}, {"prefilter_ms": (-1,)}, {"shrink": (0,)}, {"shrink": (2,)}):
        with pytest.raises(ConfigError, match="LDA settings"):
            LDA(**settings)  # type: ignore[arg-type]
    for settings in ({"strengths": ()}, {"strengths": (0,)}, {"span_ms": (0,)}):
        with pytest.raises(ConfigError, match="Logistic settings"):
            Logistic(**settings)  # type: ignore[arg-type]
