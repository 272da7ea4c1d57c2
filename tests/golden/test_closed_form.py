"""The closed form against direct products and scikit-learn."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from betz.decode.closed_form import blocks, lag_statistics, ridge, squared_error


def design(x: np.ndarray, segments: list[tuple[int, int]], lags: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Lagged rows by a plain loop, and the bins they belong to."""
    rows, bins = [], []
    for start, stop in segments:
        for t in range(start, stop):
            back = [t - lag * stride for lag in range(lags)]
            rows.append(np.concatenate([x[b] if b >= start else np.zeros(x.shape[1]) for b in back]))
            bins.append(t)
    return np.array(rows), np.array(bins)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.integers(1, 3), st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(0, 99))
def test_statistics_equal_direct_products(lags: int, stride: int, lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    edges = np.cumsum([0, *[n + 2 for n in lengths]])
    segments = [(int(a), int(a) + n) for a, n in zip(edges[:-1], lengths, strict=True)]
    x, y = rng.normal(size=(int(edges[-1]), 3)), rng.normal(size=(int(edges[-1]), 2))
    y[rng.random(len(y)) < 0.1] = np.nan
    rows, bins = design(x, segments, lags, stride)
    keep = np.isfinite(y[bins]).all(axis=1)
    a, b = rows[keep], y[bins][keep]
    found = lag_statistics(x, y, segments, lags=lags, stride=stride)
    assert found.number == len(a)
    assert np.allclose(found.gram, a.T @ a, atol=1e-9)
    assert np.allclose(found.cross, a.T @ b, atol=1e-9)
    assert np.allclose(found.sum_x, a.sum(axis=0), atol=1e-9)
    assert np.allclose(found.square_y, (b**2).sum(axis=0), atol=1e-9)


def test_ridge_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(500, 4)) + 0.3, rng.normal(size=(500, 2)) + 5
    rows, _ = design(x, [(0, 500)], 5, 1)
    for strength in (0.01, 1.0):
        weights, intercept = ridge(lag_statistics(x, y, [(0, 500)], lags=5), strength)
        model = Ridge(alpha=strength * 500).fit(rows, y)
        assert np.allclose(weights, model.coef_.T, atol=1e-9)
        assert np.allclose(intercept, model.intercept_, atol=1e-9)


def test_error_from_statistics_is_the_error() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(300, 3)), rng.normal(size=(300, 2))
    stats = lag_statistics(x, y, [(0, 200)], lags=4)
    weights, intercept = ridge(stats, 0.1)
    held = lag_statistics(x, y, [(200, 300)], lags=4)
    rows, bins = design(x, [(200, 300)], 4, 1)
    wanted = ((y[bins] - rows @ weights - intercept) ** 2).sum(axis=0)
    assert np.allclose(squared_error(held, weights, intercept), wanted)
    total = stats + held
    assert np.allclose((total - held).gram, stats.gram)
    assert total.first(3).gram.shape == (3, 3)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4)), min_size=1, max_size=6), st.integers(2, 5))
def test_blocks_cut_all_bins_once(parts: list[tuple[int, int]], folds: int) -> None:
    segments, at = [], 0
    for length, gap in parts:
        segments.append((at, at + length))
        at += length + gap
    found = blocks(segments, folds)
    covered = [t for fold in found for start, stop in fold for t in range(start, stop)]
    assert covered == [t for start, stop in segments for t in range(start, stop)]
    sizes = [sum(stop - start for start, stop in fold) for fold in found]
    assert max(sizes) - min(sizes) <= 1 or sum(sizes) < folds


def test_shorter_lags_are_the_first_features() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(90, 3)), rng.normal(size=(90, 1))
    long, short = (lag_statistics(x, y, [(0, 90)], lags=n) for n in (6, 2))
    assert np.allclose(long.first(6).gram, short.gram)
    assert np.allclose(long.first(6).cross, short.cross)
