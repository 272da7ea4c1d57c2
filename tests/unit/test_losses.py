"""The objectives against closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import special, stats

from betz.core.errors import ConfigError
from betz.model.losses import (
    class_centers,
    class_mean,
    hl_gauss_targets,
    losses,
    mean_of,
    poisson_targets,
    spike_loss,
    spike_loss_elements,
)
from betz.model.presets import REFERENCE_WEIGHTS, REWEIGHTED
from betz.model.transformer import ModelOutput, on_device
from tests.unit.transformer_helpers import TINY, batch_of, lively, window


def test_count_targets_are_truncated_poissons() -> None:
    table = poisson_targets(22).double().numpy()
    for n in range(1, 21):
        pmf = stats.poisson(n).pmf(np.arange(22))
        assert np.allclose(table[n], pmf / pmf.sum(), atol=1e-7)
    assert table[0].tolist() == [1.0] + [0.0] * 21
    assert not table[21].any()


def test_spike_loss_by_hand() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 22, 4)
    counts = torch.tensor([[0, 1, 20, 21], [5, 255, 3, 0], [2, 2, 2, 2]], dtype=torch.uint8)
    channels = torch.tensor([4, 3, 1])
    log_p = torch.log_softmax(logits.double(), dim=1).numpy()
    table = poisson_targets(22).double().numpy()
    wanted = np.zeros((3, 4))
    for s in range(3):
        for p in range(4):
            wanted[s, p] = -(table[min(int(counts[s, p]), 21)] * log_p[s, :, p]).sum()
    found = spike_loss_elements(logits, counts)
    assert np.allclose(found.numpy(), wanted, atol=1e-5)
    assert found[0, 3] == 0 == found[1, 1]  # counts beyond the table
    real = np.arange(4) < channels.numpy()[:, None]
    assert np.isclose(spike_loss(logits, counts, channels).item(), wanted[real].mean(), atol=1e-6)


@pytest.mark.parametrize("sigma", [0.75, 2.0])
def test_hl_gauss_is_its_closed_form(sigma: float) -> None:
    """The mass of a Gaussian of sd ``sigma`` classes between the edges of each class, by the error function."""
    values = np.array([-1.0, -0.9999, -0.3, 0.0, 0.123456, 0.7, 1.0])
    classes, width = 512, 2 / 512
    edges = -1 + np.arange(classes + 1) * width
    cdf = 0.5 * (1 + special.erf((edges - values[:, None]) / (sigma * width * np.sqrt(2))))
    wanted = np.diff(cdf, axis=1) / (cdf[:, -1:] - cdf[:, :1])
    found = hl_gauss_targets(torch.tensor(values), classes, sigma).double().numpy()
    assert np.abs(found - wanted).max() < 1e-7
    assert np.allclose(found.sum(axis=1), 1, atol=1e-6)
    inside = np.abs(values) < 0.99
    assert np.abs((found @ class_centers(classes).double().numpy() - values)[inside]).max() < 1e-5
    assert np.array_equal(
        hl_gauss_targets(torch.tensor([3.0]), 512, sigma), hl_gauss_targets(torch.tensor([1.0]), 512, sigma)
    )


def test_class_mean_is_the_expectation() -> None:
    logits = torch.randn(5, 16)
    p = torch.softmax(logits.double(), 1).numpy()
    wanted = p @ (-1 + (np.arange(16) + 0.5) / 8)
    assert np.allclose(class_mean(logits).numpy(), wanted, atol=1e-6)
    assert class_mean(logits.double()).dtype == torch.float64
    assert class_mean(logits.bfloat16()).dtype == torch.float32


def test_a_mean_over_nothing_is_zero_with_a_gradient() -> None:
    x = torch.tensor([1.0, float("nan")], requires_grad=True)
    loss = mean_of(x, torch.tensor([False, False]))
    loss.backward()
    assert loss.item() == 0
    assert x.grad is not None
    assert x.grad.tolist() == [0, 0]
    assert mean_of(torch.tensor([1.0, 3.0, 99.0]), torch.tensor([True, True, False])).item() == 2


def test_the_total_is_the_weighted_sum() -> None:
    w = window(5, known=np.array([True, True, False, True, True]), returns=np.array([1, 0, 2, -1, 0]))
    config = replace(TINY, return_head=True, spike_weight=2.0, behavior_weight=10.0, return_weight=0.5)
    model = lively(config)
    batch = on_device(batch_of(config, w), "cpu")
    output = model(batch)
    found = losses(output, batch, config)
    known = np.repeat(w.known, 2)
    error = (output.behavior.detach().numpy() - w.behavior.ravel())[known]
    assert found.behavior is not None
    assert found.spikes is not None
    assert found.return_ is not None
    assert np.isclose(found.behavior.item(), (error**2).mean(), rtol=1e-6)
    log_p = torch.log_softmax(output.return_logits.double(), -1).detach().numpy()
    there = np.array([2, 1, 3, 0, 1]) > 0
    wanted = -log_p[np.arange(5), [2, 1, 3, 0, 1]][there].mean()
    assert np.isclose(found.return_.item(), wanted, rtol=1e-5)
    total = 2 * found.spikes + 10 * found.behavior + 0.5 * found.return_
    assert np.isclose(found.total.item(), total.item(), rtol=1e-6)
    assert (REFERENCE_WEIGHTS, REWEIGHTED) == ((1.0, 1.0), (1.0, 10.0))


def test_objectives_leave_out_what_they_do_not_learn() -> None:
    w = window(4)
    for objective, has in (("spikes", (True, False)), ("behavior", (False, True)), ("joint", (True, True))):
        config = replace(TINY, objective=objective)
        model, batch = lively(config), on_device(batch_of(config, w), "cpu")
        found = losses(model(batch), batch, config)
        assert (found.spikes is not None, found.behavior is not None) == has
        assert len(batch.behavior_M) == (0 if objective == "spikes" else 8)


def test_classes_learn_by_cross_entropy() -> None:
    config = replace(TINY, behavior_head="classes", behavior_classes=32)
    model, batch = lively(config), on_device(batch_of(config, window(3)), "cpu")
    output = model(batch)
    target = hl_gauss_targets(batch.behavior_M, 32, config.class_sigma).double()
    wanted = -(target * torch.log_softmax(output.behavior_logits, -1)).sum(-1).mean()
    found = losses(output, batch, config).behavior
    assert found is not None
    assert np.isclose(found.item(), wanted.item(), rtol=1e-5)


def test_an_output_without_heads_is_refused() -> None:
    batch = on_device(batch_of(TINY, window(2)), "cpu")
    with pytest.raises(ConfigError, match=r"no head to learn from.*call the model with all of its heads"):
        losses(ModelOutput(torch.zeros(1)), batch, TINY)
