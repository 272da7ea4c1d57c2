"""The read-ins and their spike heads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from betz.core.errors import ConfigError
from betz.model.presets import ModelConfig
from betz.model.readin import PatchReadin, UnitReadin
from tests.unit.transformer_helpers import TINY, batch_of, lively, window

UNITS = replace(TINY, readin="units", unit_latents=3)


def test_a_patch_is_its_channels_vectors_side_by_side_clipped_at_20() -> None:
    readin = PatchReadin(TINY)
    torch.nn.init.normal_(readin.weight)
    counts = torch.tensor([[0, 3, 19, 20, 21, 255] + [1] * 26], dtype=torch.uint8)
    found = readin(counts, torch.tensor([32]))
    assert found.shape == (1, 1, 64)
    rows = [0, 3, 19, 20, 20, 20] + [1] * 26
    assert torch.equal(found[0, 0], torch.cat([readin.weight[n] for n in rows]))


def test_return_and_reward_rows_of_none_are_looked_up_like_others() -> None:
    """A trained checkpoint has zeros there; what is stored is what counts. They learn nothing."""
    model = lively(TINY)
    w = window(3)
    before = model(batch_of(TINY, w))
    model.zero_grad()
    before.features.sum().backward()
    assert not model.embed.return_.weight.grad[0].any()
    with torch.no_grad():
        model.embed.return_.weight[0] += torch.linspace(0, 1, 64)  # a constant would be taken out by LayerNorm
    assert (model(batch_of(TINY, w)).features - before.features).abs().max() > 1e-3


def test_units_do_not_read_channels_that_are_not_there() -> None:
    """A session of 40 channels beside one of 50 in a batch, and alone."""
    model = lively(UNITS)
    small, large = window(5, channels=(40,), seed=1), window(5, channels=(40, 10), seed=2)
    alone, both = model(batch_of(UNITS, small)), model(batch_of(UNITS, small, large))
    T = alone.features.shape[1]
    assert (both.features[0, :T] - alone.features[0]).abs().max() < 1e-12
    assert (both.spike_logits[:5, :, :40] - alone.spike_logits).abs().max() < 1e-12


def test_units_are_a_set_with_names() -> None:
    """Permuting the channels with their vectors changes nothing; without them it does."""
    readin = UnitReadin(UNITS).double()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for p in readin.parameters():
            p.copy_(torch.from_numpy(rng.normal(0, 0.3, tuple(p.shape))))
    counts, order = torch.from_numpy(rng.poisson(2.0, (4, 30)).astype(np.uint8)), torch.from_numpy(rng.permutation(30))
    real = torch.full((4,), 30)
    before = readin(counts, real)
    assert before.shape == (4, 3, 64)
    assert (readin(counts[:, order], real) - before).abs().max() > 1e-3
    with torch.no_grad():
        readin.channels.weight[:30] = readin.channels.weight[:30][order].clone()
    assert (readin(counts[:, order], real) - before).abs().max() < 1e-12


@pytest.mark.parametrize("config", [TINY, UNITS], ids=["patches", "units"])
def test_logits_do_not_know_the_counts_that_they_predict(config: ModelConfig) -> None:
    model = lively(config)
    w = window(6)
    changed = replace(w, counts=tuple(c.copy() for c in w.counts))
    for array in changed.counts:
        array[3] = 9
    logits, other = model(batch_of(config, w)).spike_logits, model(batch_of(config, changed)).spike_logits
    groups = logits.shape[0] // 6
    first = logits[3 * groups], other[3 * groups]
    assert (first[0] - first[1]).abs().max() < 1e-12, "the first group of bin 3 knows its counts"
    assert (logits[: 3 * groups] - other[: 3 * groups]).abs().max() < 1e-12
    assert (logits[4 * groups :] - other[4 * groups :]).abs().max() > 1e-3


@pytest.mark.parametrize("config", [TINY, UNITS], ids=["patches", "units"])
def test_every_weight_of_the_read_in_learns(config: ModelConfig) -> None:
    model = lively(config)
    output = model(batch_of(config, window(4)))
    (output.spike_logits.square().mean() + output.behavior.square().mean()).backward()
    for name, p in model.named_parameters():
        if name.startswith(("embed.counts", "heads.spikes")):
            assert p.grad is not None, name
            assert p.grad.abs().max() > 0, name


def test_a_read_in_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a width of 80 cannot be shared by 32 channels"):
        replace(TINY, width=80)
    with pytest.raises(ConfigError, match=r"readin: Input should be 'patches' or 'units'"):
        ModelConfig(readin="conv")  # type: ignore[arg-type]
