"""Metrics against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import r2_score

from betz.core import metrics
from betz.core.errors import DataError

RNG = np.random.default_rng(0)
TRUTH = RNG.normal(size=(300, 3)) * [1, 5, 20] + [0, 3, -8]
GUESS = TRUTH + RNG.normal(size=(300, 3)) * [0.5, 4, 9]


def test_r2_equals_scikit_learn() -> None:
    assert np.allclose(metrics.r2(TRUTH, GUESS), r2_score(TRUTH, GUESS, multioutput="raw_values"), atol=1e-12)
    wanted = r2_score(TRUTH, GUESS, multioutput="variance_weighted")
    assert metrics.r2_variance_weighted(TRUTH, GUESS) == pytest.approx(wanted, abs=1e-12)
    wanted = r2_score(TRUTH, GUESS, multioutput="uniform_average")
    assert metrics.r2_mean(TRUTH, GUESS) == pytest.approx(wanted, abs=1e-12)
    assert metrics.r2_uniform(TRUTH, GUESS) == pytest.approx(r2_score(TRUTH.ravel(), GUESS.ravel()), abs=1e-12)


def test_constant_truth_has_no_r2() -> None:
    truth = np.stack((np.ones(10), np.arange(10.0)), axis=1)
    assert np.isnan(metrics.r2(truth, truth)).tolist() == [True, False]
    assert np.isnan(metrics.correlation(truth, truth)).tolist() == [True, False]
    assert np.isnan(metrics.r2_variance_weighted(truth[:, :1], truth[:, :1]))


def test_correlation() -> None:
    wanted = [np.corrcoef(TRUTH[:, k], GUESS[:, k])[0, 1] for k in range(3)]
    assert np.allclose(metrics.correlation(TRUTH, GUESS), wanted, atol=1e-12)


def test_angular_error() -> None:
    truth = np.array([[1.0, 0], [0, 2], [-1, 0], [0.01, 0]])
    guess = np.array([[1.0, 1], [2, 0], [1, 0], [-1, 0]])
    assert metrics.angular_error_deg(truth, guess, min_speed=0.5) == pytest.approx((45 + 90 + 180) / 3)
    assert metrics.angular_error_deg(truth, np.zeros_like(guess)) == 90
    with pytest.raises(DataError, match="at least two dimensions"):
        metrics.angular_error_deg(truth[:, :1], guess[:, :1])


def test_bootstrap_covers_and_repeats() -> None:
    low, high = metrics.block_bootstrap(TRUTH, GUESS, block_bins=10, draws=300, seed=1)
    assert low < metrics.r2_variance_weighted(TRUTH, GUESS) < high
    assert (low, high) == metrics.block_bootstrap(TRUTH, GUESS, block_bins=10, draws=300, seed=1)
    with pytest.raises(DataError, match="blocks of 400 bins do not fit 300"):
        metrics.block_bootstrap(TRUTH, GUESS, block_bins=400)


def test_bootstrap_knows_that_neighbours_depend() -> None:
    """On errors that last 50 bins, blocks of 50 must give a wider interval than single bins."""
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(2000, 1))
    guess = truth + np.repeat(rng.normal(size=40), 50)[:, None] ** 2
    single = np.ptp(metrics.block_bootstrap(truth, guess, block_bins=1, draws=300))
    assert np.ptp(metrics.block_bootstrap(truth, guess, block_bins=50, draws=300)) > 2 * single


def test_nan_is_never_dropped_in_silence() -> None:
    lost = GUESS.copy()
    lost[5, 1] = np.nan
    with pytest.raises(DataError, match=r"has NaN.*metrics\.scored"):
        metrics.r2(TRUTH, lost)
    keep = metrics.scored(TRUTH, lost, np.arange(300) > 2)
    assert keep.sum() == 296
    with pytest.raises(DataError, match=r"must both be \(bins, dimensions\)"):
        metrics.r2(TRUTH, GUESS[:10])
    with pytest.raises(DataError, match="1 bins cannot be scored"):
        metrics.r2(TRUTH[:1], GUESS[:1])
