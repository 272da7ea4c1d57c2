"""The gate: the mix against an independent solver, its priors, and what is dropped."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from betz.decode.gate import Prior, error_moments, mix, pruned


@pytest.mark.parametrize("seed", range(8))
def test_the_mix_is_optimal(seed: int) -> None:
    rng = np.random.default_rng(seed)
    errors = rng.normal(size=(60, 6)) @ rng.normal(size=(6, 6))
    moments = errors.T @ errors / 60
    prior = rng.dirichlet(np.ones(6))
    pull = 10 ** rng.uniform(-3, 1)
    found = mix(moments, prior, pull)

    def cost(w: np.ndarray) -> float:
        return float(w @ moments @ w + pull * ((w - prior) ** 2).sum())

    other = minimize(
        cost,
        prior,
        bounds=[(0, 1)] * 6,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1)
    assert cost(found) <= other.fun + 1e-7


def test_a_strong_pull_gives_the_prior() -> None:
    prior = np.array([0.7, 0.2, 0.1])
    np.testing.assert_allclose(mix(np.diag([9.0, 1.0, 1.0]), prior, 1e6), prior, atol=1e-4)


def test_moments_are_shares_of_variance() -> None:
    y = np.random.default_rng(0).normal(size=(500, 2)) * [1, 3]
    errors = np.stack([np.zeros_like(y), y - y.mean(axis=0)], axis=1)
    found = error_moments(errors, y.var(axis=0))
    np.testing.assert_allclose(found, [[0, 0], [0, 1]], atol=1e-12)


def test_priors_follow_minutes_and_know_only_some_members() -> None:
    prior = Prior({"ridge": (0.0, 0.0), "gru": (0.0, 1.0)})
    np.testing.assert_allclose(prior.weights(["ridge", "gru"], 2), [0.5, 0.5])
    assert prior.weights(["ridge", "gru"], 8)[1] > 0.85
    np.testing.assert_allclose(prior.weights(["ridge", "gru", "new"], 2), 1 / 3)
    np.testing.assert_allclose(Prior({}).weights(["a", "b"], 5), 0.5)


def test_pruning_keeps_the_sum_and_the_largest() -> None:
    np.testing.assert_allclose(pruned(np.array([0.5, 0.49, 0.01])), [0.5 / 0.99, 0.49 / 0.99, 0])
    many = np.full(100, 0.01)
    assert pruned(many).sum() == pytest.approx(1)
