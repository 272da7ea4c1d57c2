"""The generalist network: channels as a set, members apart, states, and what dimensions know of each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from betz.decode.bank import Blocks
from betz.decode.filterbank import FILTERS, FilterBank
from betz.decode.generalist import GeneralistPart, Variant, heads_of
from betz.decode.profiles import channel_statistics
from betz.model.generalist import BANK, CHANNEL, CONTEXT, IDENTITY, SPEED, Profiles, chosen, stacked
from tests.unit.generalist_helpers import XY, network, session


def profiles(members: int, rows: int, channels: int, dims: int, seed: int = 0) -> Profiles:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g)

    return Profiles(
        draw(members, rows, channels, dims, IDENTITY),
        draw(members, rows, channels, CHANNEL),
        torch.ones(members, rows, channels),
        draw(members, rows, dims, CONTEXT),
        torch.ones(members, rows),
    )


POOL = torch.full((2, 2), 0.5)


def latents(weights: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return x @ weights[0, 0]


def test_order_and_padding_of_channels_do_not_matter() -> None:
    net, p = network(1), profiles(1, 1, 7, 2)
    x = torch.randn(20, 7 * FILTERS)
    wanted = latents(net.read_in(p), x)
    order = torch.randperm(7)
    moved = replace(p, identity=p.identity[:, :, order], channel=p.channel[:, :, order])
    shuffled = x.view(20, 7, FILTERS)[:, order].reshape(20, -1)
    torch.testing.assert_close(latents(net.read_in(moved), shuffled), wanted, atol=1e-5, rtol=1e-4)
    more = profiles(1, 1, 3, 2, seed=5)
    padded = Profiles(
        torch.cat((p.identity, more.identity), 2),
        torch.cat((p.channel, more.channel), 2),
        torch.cat((p.there, torch.zeros(1, 1, 3)), 2),
        p.context,
        p.certainty,
    )
    wide = torch.cat((x, torch.randn(20, 3 * FILTERS)), 1)
    torch.testing.assert_close(latents(net.read_in(padded), wide), wanted, atol=1e-5, rtol=1e-4)


def test_members_and_rows_are_apart_and_states_carry_on() -> None:
    net = network(3)
    p = profiles(3, 2, 5, 2)
    decodes, skip = torch.randn(12, 3, 2, 2, BANK + SPEED + net.latents), torch.randn(12, 3, 2, 2)
    values, states = net(decodes, skip, net.modulation(p.context), POOL)
    one = chosen(net, [1])
    single = replace(p, identity=p.identity[1:2], channel=p.channel[1:2], context=p.context[1:2])
    alone, _ = one(decodes[:, 1:2], skip[:, 1:2], one.modulation(single.context), POOL)
    torch.testing.assert_close(alone, values[:, 1:2], atol=1e-5, rtol=1e-4)
    both = stacked([one, one])
    assert both.members == 2
    rest, _ = net(decodes[5:], skip[5:], net.modulation(p.context), POOL, states[4])
    torch.testing.assert_close(rest, values[5:], atol=1e-5, rtol=1e-4)


def test_dimensions_of_one_group_are_exchangeable_and_groups_do_not_see_each_other() -> None:
    net, p = network(1), profiles(1, 1, 5, 3)
    pool = torch.block_diag(torch.full((2, 2), 0.5), torch.ones(1, 1))
    decodes, skip = torch.randn(9, 1, 1, 3, BANK + SPEED + net.latents), torch.randn(9, 1, 1, 3)
    values, _ = net(decodes, skip, net.modulation(p.context), pool)
    order = torch.tensor([1, 0, 2])
    swapped = replace(p, identity=p.identity[:, :, :, order], context=p.context[:, :, order])
    found, _ = net(decodes[:, :, :, order], skip[..., order], net.modulation(swapped.context), pool)
    torch.testing.assert_close(found, values[..., order], atol=1e-5, rtol=1e-4)
    other = decodes.clone()
    other[..., 2, :] += 5
    changed, _ = net(other, skip, net.modulation(p.context), pool)
    torch.testing.assert_close(changed[..., :2], values[..., :2], atol=1e-6, rtol=1e-6)
    assert not torch.allclose(changed[..., 2], values[..., 2])


@pytest.mark.parametrize("bin_ms", [20, 50])
def test_streamed_equals_offline_chunks(bin_ms: int) -> None:
    made = session(bins=900, bin_ms=bin_ms, edges=(400,))
    bank = FilterBank.fit(made.signals, made.segments, made.channels, bin_ms)
    x = bank.features(made.signals, made.segments)
    sums = Blocks(x, made.behavior_of(XY), [(0, 1)], made.segments, bin_s=bin_ms / 1000, atoms=3)
    statistics = channel_statistics(made.signals, made.segments, made.channels, bin_ms)
    fits = tuple(sums.fit())
    variants = [Variant(fits, 0, False), Variant(fits, 1, False), Variant(tuple(sums.fit([0, 1])), 1, False)]
    heads, own = heads_of(variants, network(), statistics=statistics, bin_ms=bin_ms)
    part = GeneralistPart(bank, heads, own)
    offline = part.offline(x, [(0, 900)], made.segments)
    for a, b in made.segments:
        state, found = part.initial_state(1), []
        for n in range(a, b):
            values, state = part.advance(
                made.signals[n][None, None], np.ones((1, 1), bool), np.zeros((1, 1, 10), bool), state
            )
            found.append(values[0, 0])
        np.testing.assert_allclose(np.stack(found), offline[a:b], atol=2e-4)
    assert np.abs(offline[:, 0] - offline[:, 1]).max() > 1e-3
    some = GeneralistPart(bank, heads.of([2]), chosen(own, [2]).requires_grad_(False))
    np.testing.assert_allclose(some.offline(x, [(0, 900)], made.segments)[:, 0], offline[:, 2], atol=1e-4)
