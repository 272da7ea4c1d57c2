"""Closed forms on blocks: equal to ridge regression done the long way, history included."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from betz.decode.bank import INNER_FOLDS, RIDGES, TARGETS, Blocks, augmented, without_labels
from betz.decode.filterbank import FILTERS, FilterBank
from betz.decode.history import History
from betz.model.generalist import BANK, HISTORY_FROM, STRENGTHS
from tests.unit.generalist_helpers import XY, session


def blocks(**options: object) -> tuple[Blocks, np.ndarray, np.ndarray]:
    made = session(bins=900)
    bank = FilterBank.fit(made.signals, made.segments, made.channels, 50)
    x, y = bank.features(made.signals, made.segments), made.behavior_of(XY)
    return Blocks(x, y, [(0, 1)], made.segments, bin_s=0.05, atoms=6, **options), x, y  # type: ignore[arg-type]


def folds(sums: Blocks, atoms: np.ndarray) -> list[np.ndarray]:
    return [np.isin(sums.atom, part) for part in np.array_split(atoms, INNER_FOLDS)]


@pytest.mark.parametrize("atoms", [range(6), (0, 1, 4)])
def test_the_present_is_ridge_with_a_cross_validated_gain(atoms: range) -> None:
    sums, x, y = blocks()
    used = np.array(list(atoms))
    fit = sums.fit(used)[0]
    rows = np.isin(sums.atom, used)
    z = (y - sums.center) / sums.scale
    mean = z[rows].mean(axis=0)
    for j, strength in enumerate(RIDGES):
        model = Ridge(alpha=strength * rows.sum(), fit_intercept=False).fit(x[rows], z[rows] - mean)
        held_out = np.zeros_like(z)
        for fold in folds(sums, used):
            rest = rows & ~fold
            own = Ridge(alpha=strength * rest.sum(), fit_intercept=False).fit(x[rest], z[rest] - mean)
            held_out[fold] = own.predict(x[fold])
        error = ((z[rows] - mean - held_out[rows]) ** 2).sum(axis=0)
        wanted_r2 = 1 - error / ((z[rows] - mean) ** 2).sum(axis=0)
        np.testing.assert_allclose(fit.r2[:, j], np.clip(wanted_r2, -1, 1), atol=2e-3)
        gain = (held_out[rows] * (z[rows] - mean)).sum() / (held_out[rows] ** 2).sum()
        decodes, _ = fit.decodes(x)
        np.testing.assert_allclose(decodes[:, :, j], np.clip(gain, 0, 3) * model.predict(x), atol=3e-3)
    np.testing.assert_allclose(fit.center, y[rows].mean(axis=0), rtol=1e-5)
    assert fit.skip == fit.skip_alone == int(fit.r2[:, :STRENGTHS].sum(axis=0).argmax())


def test_auxiliary_targets_do_not_cross_a_gap() -> None:
    z = np.arange(40.0)[:, None]
    out = augmented(z, [(0, 20), (20, 40)], 0.05)
    assert out.shape == (40, TARGETS + 2)
    np.testing.assert_array_equal(out[20:23, 1], 20)  # 130 ms ago is before the gap: its first value stands
    np.testing.assert_array_equal(out[5:20, 1], z[2:17, 0])
    np.testing.assert_array_equal(out[:17, 3], z[3:20, 0])
    assert out[17:20, 3].max() == 19


def test_history_columns() -> None:
    old = session(id_="a", seed=1)
    known = History.of([old], behavior=XY).weights(old.channels, old.dims_of(XY))
    assert known is not None
    sums, x, y = blocks(history={0: known[0]})
    fit = sums.fit()[0]
    decodes, _ = fit.decodes(x)
    h = x @ known[0][:, 0]
    z = (y - sums.center) / sums.scale
    centered = z - z.mean(axis=0)
    gain = (h * centered).sum() / (h**2).sum()
    np.testing.assert_allclose(decodes[:, :, HISTORY_FROM], np.clip(gain * h, -8, 8), atol=2e-3)
    residual = centered - gain * (h - h.mean(axis=0))
    wanted = 1 - (residual**2).sum(axis=0) / (centered**2).sum(axis=0)
    np.testing.assert_allclose(fit.r2[:, HISTORY_FROM], wanted, atol=2e-3)
    best = fit.r2[:, HISTORY_FROM + TARGETS :].mean()
    assert best > fit.r2[:, :STRENGTHS].mean(), "the same array a day earlier helps"
    score = 1 - ((decodes[:, :, fit.skip] - centered) ** 2).sum() / (centered**2).sum()
    assert score > 0.5
    assert fit.skip >= HISTORY_FROM + TARGETS > fit.skip_alone


def test_unlabelled_bins_and_uncounted_bins_are_not_learned_from() -> None:
    made = session(bins=900)
    bank = FilterBank.fit(made.signals, made.segments, made.channels, 50)
    x, y = bank.features(made.signals, made.segments), made.behavior_of(XY)
    y[100:200] = np.nan
    counted = np.ones(900, dtype=bool)
    counted[500:600] = False
    sums = Blocks(x, y, [(0, 1)], made.segments, bin_s=0.05, atoms=6, counted=counted)
    assert sums.number.sum() == 700
    other = y.copy()
    other[520:580] = 1e6
    again = Blocks(x, other, [(0, 1)], made.segments, bin_s=0.05, atoms=6, counted=counted)
    np.testing.assert_allclose(
        again.fit()[0].weights[:, :, :STRENGTHS], sums.fit()[0].weights[:, :, :STRENGTHS], rtol=1e-4, atol=1e-6
    )


def test_a_minute_more_adds_its_atoms() -> None:
    made = session(bins=1200)
    bank = FilterBank.fit(made.signals, made.segments, made.channels, 50)
    x, y = bank.features(made.signals, made.segments), made.behavior_of(XY)
    whole = Blocks(x, y, [(0, 1)], [(0, 1200)], bin_s=0.05, atoms=2)
    first = Blocks(x[:600], y[:600], [(0, 1)], [(0, 600)], bin_s=0.05, atoms=1)
    np.testing.assert_allclose(whole.gram[0], first.gram[0], rtol=1e-5)


def test_without_labels_only_history_speaks() -> None:
    weights = np.random.default_rng(0).normal(size=(10 * FILTERS, TARGETS, 2)).astype(np.float32)
    fit = without_labels((0, 1), weights, np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    decodes, speed = fit.decodes(np.ones((3, 10 * FILTERS), np.float32) * 0.01)
    assert decodes.shape == (3, 2, BANK)
    assert not decodes[:, :, :HISTORY_FROM].any()
    assert not speed.any()
    np.testing.assert_allclose(decodes[0, :, HISTORY_FROM], 0.01 * weights[:, 0].sum(axis=0), rtol=1e-4)
