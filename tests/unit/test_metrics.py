"""Metrics against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, r2_score

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


# ---- discrete behavior


def test_balanced_accuracy_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    y, p = rng.choice(4, 500, p=[0.7, 0.1, 0.1, 0.1]), rng.integers(0, 4, 500)
    p[:200] = y[:200]
    assert metrics.balanced_accuracy(y, p) == pytest.approx(balanced_accuracy_score(y, p), abs=1e-12)
    lost = rng.random(500) < 0.2
    y[lost[::-1]], p[lost] = -1, -1
    keep = (y != -1) & (p != -1)
    assert metrics.balanced_accuracy(y, p) == pytest.approx(balanced_accuracy_score(y[keep], p[keep]), abs=1e-12)


def test_balanced_accuracy_by_hand() -> None:
    """Class 0 is found in 3 of 4 bins, class 2 in 1 of 2; class 1 does not occur."""
    y = np.array([0, 0, 0, 0, 2, 2])
    p = np.array([0, 0, 0, 1, 2, 0])
    assert metrics.balanced_accuracy(y, p) == pytest.approx((3 / 4 + 1 / 2) / 2)


#                 0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15 16 17 18 19
CLICK = np.array([0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0])
FOUND = np.array([0, 1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1, 1, 0, 1])


def test_false_positives_by_hand() -> None:
    """Predicted events: 1, 5–6 (true), 9–10 (true), 16–17, 19: three false ones in 14 quiet bins of half a second."""
    rate = metrics.false_positives_per_min(CLICK, FOUND, event=1, bin_s=0.5)
    assert rate == pytest.approx(3 / (14 * 0.5 / 60))
    y = CLICK.copy()
    y[16] = y[0] = -1  # the event at 16–17 now begins at 17, and two bins are no time
    assert metrics.false_positives_per_min(y, FOUND, event=1, bin_s=0.5) == pytest.approx(3 / (12 * 0.5 / 60))
    y[17] = -1
    assert metrics.false_positives_per_min(y, FOUND, event=1, bin_s=0.5) == pytest.approx(2 / (11 * 0.5 / 60))
    assert np.isnan(metrics.false_positives_per_min(np.ones(3, int), np.zeros(3, int), event=1, bin_s=1))


def test_onset_delays_by_hand() -> None:
    """Event 3–5 is found in its third bin, 10–11 in its first (and foretold at 9), 14 is missed."""
    found = metrics.onset_delays_ms(CLICK, FOUND, event=1, bin_s=0.05)
    assert np.array_equal(found, [100, 0, np.nan], equal_nan=True)
    y = CLICK.copy()
    y[9] = -1
    assert np.array_equal(metrics.onset_delays_ms(y, FOUND, event=1, bin_s=0.05), [100, np.nan], equal_nan=True)
    assert np.array_equal(
        metrics.onset_delays_ms(CLICK[3:], FOUND[3:], event=1, bin_s=0.05), [0, np.nan], equal_nan=True
    )
    lost = FOUND.copy()
    lost[5] = -1  # cuts the event: what comes after has no known start
    assert np.isnan(metrics.onset_delays_ms(CLICK, lost, event=1, bin_s=0.05)[0])
    assert len(metrics.onset_delays_ms(np.zeros(5, int), np.ones(5, int), event=1, bin_s=1)) == 0


def test_classes_must_be_integers_of_all_bins() -> None:
    with pytest.raises(DataError, match=r"must both be \(bins,\) signed integers"):
        metrics.balanced_accuracy(np.zeros(5), np.zeros(5, int))
    with pytest.raises(DataError, match=r"must both be \(bins,\) signed integers"):
        metrics.false_positives_per_min(np.zeros(5, int), np.zeros(4, int), event=1, bin_s=1)
    with pytest.raises(DataError, match="no bin can be scored"):
        metrics.balanced_accuracy(np.full(3, -1), np.zeros(3, int))
