"""One forward: streamed is offline for any push, the window is exact, and the state is a value with a capacity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from betz.core.errors import ConfigError, StreamError
from betz.model.presets import ModelConfig, as_reference, state_bytes
from betz.model.state import StreamState
from betz.model.transformer import Transformer, on_device, rotary_angles
from betz.tokens.batch import BEHAVIOR, TokenRow, collate, pack
from betz.tokens.window import Told, Window
from tests.unit.transformer_helpers import TINY, batch_of, cut, lively, window

W = TINY.window
BINS = 20


def pieces(config: ModelConfig, whole: Window, sizes: Sequence[int]) -> list[TokenRow]:
    """The token rows of successive pushes."""
    told: Told | None = None
    rows = []
    for start, stop in pairwise(accumulate(sizes, initial=0)):
        part = cut(whole, start, stop)
        rows.append(config.tokenizer.row(part, told=told))
        told = config.tokenizer.told(part, told)
    return rows


def stream(model: Transformer, wholes: Sequence[Window], sizes: Sequence[int]) -> list[Tensor]:
    """(T, D) features of each row, pushed in pieces."""
    state = model.open_state(len(wholes), max_push_bins=max(sizes))
    pushes = zip(*(pieces(model.config, whole, sizes) for whole in wholes), strict=True)
    parts: list[list[Tensor]] = [[] for _ in wholes]
    for rows in pushes:
        with torch.no_grad():
            features = model(collate(rows, padding=model.config.positions), state=state).features
        for b, row in enumerate(rows):
            parts[b].append(features[b, : len(row)])
    return [torch.cat(part) for part in parts]


def even(size: int) -> list[int]:
    return [size] * (BINS // size) + ([BINS % size] if BINS % size else [])


VARIANTS: dict[str, tuple[ModelConfig, dict[str, Any]]] = {
    "plain": (TINY, {}),
    "behavior is given": (TINY, {"given": np.ones((BINS, 2), bool)}),
    "constraints, returns": (
        replace(TINY, constraint_start=True),
        {
            "constraint": np.repeat(np.eye(4)[np.arange(BINS) // 5][:, :3, None], 2, axis=2),
            "returns": np.arange(BINS) % 7,
        },
    ),
    "units": (replace(TINY, readin="units"), {}),
    "legacy checkpoint": (replace(TINY, norm_gain=True, mlp_bias=False, attention_bias=False, qk_norm=False), {}),
    "window of one bin": (replace(TINY, window=1), {}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_streamed_is_offline_for_every_push(name: str) -> None:
    config, extra = VARIANTS[name]
    model, whole = lively(config), window(BINS, **extra)
    with torch.no_grad():
        offline = model(batch_of(config, whole)).features[0]
    rng = np.random.default_rng(0)
    choppings = [even(n) for n in (1, 2, 3, 5, W - 1, W, W + 1, BINS)]
    for _ in range(3):
        cuts = np.sort(rng.choice(np.arange(1, BINS), 6, replace=False)).tolist()
        choppings.append(np.diff([0, *cuts, BINS]).tolist())
    for sizes in choppings:
        error = (stream(model, [whole], sizes)[0] - offline).abs().max() / offline.std()
        assert error < 1e-12, f"pushes of {sizes}: {error:.1e}"


def test_rows_with_lost_bins_of_different_lengths_are_independent() -> None:
    model = lively(TINY)
    there = np.ones(BINS, bool)
    there[[3, 4, 9]] = False
    first, second = window(BINS, present=there, seed=1), window(BINS, seed=2, dims=1)
    for sizes in (even(1), even(3), even(7)):
        for whole, found in zip((first, second), stream(model, [first, second], sizes), strict=True):
            with torch.no_grad():
                alone = model(batch_of(TINY, whole)).features[0]
            assert (found - alone).abs().max() < 1e-11


def test_padding_sees_something() -> None:
    """What attention gives for a query that sees nothing is NaN or 0, as the kernel likes."""
    model = lively(TINY)
    state = model.open_state(3, max_push_bins=2)
    state.freeze(np.array([2]))
    batch = batch_of(TINY, window(2), window(1, channels=(8,)), window(2))
    state.begin(on_device(batch, "cpu"))
    seen = state._mask_B1TS[:, 0]
    assert seen.any(-1).all()
    real = torch.from_numpy(batch.real_BT) & torch.tensor([True, True, False])[:, None]
    assert torch.equal(seen[..., -1], ~real), "and nothing real sees what padding wrote"


def brute_force(model: Transformer, whole: Window) -> Tensor:
    """The backbone token by token, written anew: what a token sees is a list, rotation is a complex product."""
    config = model.config
    row = config.tokenizer.row(whole)
    batch = on_device(collate([row], padding=config.positions), "cpu")
    content = model.embed(batch)[0]
    inputs = torch.cat((model.embed.start[None], content[:-1])) + model.embed.position.weight[batch.position_BT[0]]
    bins = row.bin_T.tolist()
    H, d = config.heads, config.width // config.heads
    turn = torch.polar(
        torch.ones(len(bins), d // 2, dtype=torch.float64),
        torch.outer(torch.tensor(bins).double(), 10000.0 ** (-torch.arange(0, d, 2).double() / d)),
    )

    def norm(x: Tensor, weight: Tensor | None = None) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled if weight is None else scaled * weight

    def rotated(x: Tensor) -> Tensor:
        turned = torch.complex(x[..., : d // 2], x[..., d // 2 :]) * turn[:, None]
        return torch.cat((turned.real, turned.imag), dim=-1)

    residual, branch = torch.zeros_like(inputs), inputs
    for block in model.blocks:
        residual = residual + branch
        q, k, v = functional.linear(norm(residual), block.attention.qkv.weight, block.attention.qkv.bias).chunk(3, -1)
        q, k, v = (x.view(len(bins), H, d) for x in (q, k, v))
        q, k = rotated(norm(q, block.attention.q_norm.weight)), rotated(norm(k, block.attention.k_norm.weight))
        mixed = torch.zeros(len(bins), H, d, dtype=torch.float64)
        for t, b in enumerate(bins):
            seen = [s for s in range(t + 1) if bins[s] > b - config.window]
            weights = torch.softmax(torch.einsum("hd,shd->hs", q[t], k[seen]) / d**0.5, dim=-1)
            mixed[t] = torch.einsum("hs,shd->hd", weights, v[seen])
        residual = residual + functional.linear(mixed.flatten(1), block.attention.out.weight, block.attention.out.bias)
        up = functional.linear(norm(residual), block.mlp.up.weight, block.mlp.up.bias)
        value, gate = up[:, : config.mlp_width], up[:, config.mlp_width :]
        branch = functional.linear(value * gate * torch.sigmoid(gate), block.mlp.down.weight, block.mlp.down.bias)
    return branch


def test_the_forward_is_the_written_one() -> None:
    model, whole = lively(TINY), window(BINS, given=np.ones((BINS, 2), bool))
    with torch.no_grad():
        wanted = brute_force(model, whole)
        assert (model(batch_of(TINY, whole)).features[0] - wanted).abs().max() < 1e-11
        assert (stream(model, [whole], even(3))[0] - wanted).abs().max() < 1e-11


def test_the_window_is_exactly_w_bins_a_layer() -> None:
    """In one layer a token sees bins > q − W, whose oldest token carries the last content of the bin before."""
    model = lively(replace(TINY, layers=1))
    whole = window(BINS)

    def features_of_last_bin(changed_bin: int) -> Tensor:
        counts = tuple(c.copy() for c in whole.counts)
        for array in counts:
            array[changed_bin] = 20 - array[changed_bin]
        with torch.no_grad():
            return model(batch_of(model.config, replace(whole, counts=counts))).features[0, -1]

    unchanged = features_of_last_bin(0)
    apart = [(features_of_last_bin(b) - unchanged).abs().max().item() for b in range(BINS)]
    assert all(apart[b] > 1e-4 for b in range(BINS - W, BINS))
    assert all(apart[b] < 1e-12 for b in range(BINS - W))


def test_packed_windows_are_the_windows_alone() -> None:
    for config in (TINY, as_reference(TINY)):
        model = lively(config)
        wholes = [window(n, seed=n, dims=1 + n % 2) for n in (3, 9, 6, 1, 12)]
        rows = [config.tokenizer.row(w) for w in wholes]
        batch = pack(rows, budget=90, padding=config.positions)
        assert batch.packed
        assert len(batch.bin_BT) < len(rows)
        with torch.no_grad():
            together = model(batch).features
            for d in batch.documents:
                alone = model(collate([rows[d.window]], padding=config.positions)).features[0]
                assert (together[d.row, d.start : d.stop] - alone).abs().max() < 1e-12


def test_capacity_is_the_written_one() -> None:
    model = lively(TINY)
    state = model.open_state(2, max_push_bins=3, tokens_per_bin=9)
    assert state.capacity == (W + 3 - 1) * 9 + 1
    assert model.open_state(1, max_push_bins=1).tokens_per_bin == 10 + 17 + 17 + 1
    assert TINY.tokenizer.most_tokens(channels=(40, 10), dims=2) == 3 + 2 + 2 + 1
    most = TINY.tokenizer.most_tokens(channels=(96,), dims=2)
    for push in (1, 4):
        found = Transformer(TINY).open_state(1, max_push_bins=push, tokens_per_bin=most)
        assert found.nbytes == state_bytes(TINY, channels=96, dims=2, max_push_bins=push)


def test_a_ring_without_the_room_for_a_push_would_be_wrong() -> None:
    """Capacity = window is right for pushes of one bin and wrong for larger ones: the rule is not for show."""
    model, whole = lively(TINY), window(BINS)
    with torch.no_grad():
        offline = model(batch_of(TINY, whole)).features[0]
    for size, right in ((1, True), (3, False)):
        state = model.open_state(1, max_push_bins=1, tokens_per_bin=8)
        state.max_push_bins = size
        found = []
        for row in pieces(TINY, whole, even(size)):
            with torch.no_grad():
                found.append(model(collate([row], padding=48), state=state).features[0])
        assert ((torch.cat(found) - offline).abs().max() < 1e-11) == right


REFUSED: dict[str, tuple[Callable[[Transformer, StreamState], object], str]] = {
    "bins": (
        lambda m, s: m(batch_of(TINY, window(3), window(3)), state=s),
        r"a push of 3 bins exceeds the 2 this state was opened for.*open_state\(max_push_bins=3\)",
    ),
    "tokens": (
        lambda m, s: m(batch_of(TINY, window(1, channels=(96,)), window(1)), state=s),
        r"a bin has 8 tokens, the state was opened for 7.*tokens_per_bin=8",
    ),
    "rows": (lambda m, s: m(batch_of(TINY, window(1)), state=s), r"1 windows in 1 rows into a state of 2"),
    "packed": (
        lambda m, s: m(pack([TINY.tokenizer.row(window(1)) for _ in range(3)], budget=20, padding=48), state=s),
        r"3 windows in 2 rows into a state of 2.*one window a row",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_and_changes_nothing(name: str) -> None:
    model = lively(TINY)
    state = model.open_state(2, max_push_bins=2, tokens_per_bin=7)
    small = window(2, channels=(8,))
    model(batch_of(TINY, small, small), state=state)
    before = state.snapshot()
    push, message = REFUSED[name]
    with pytest.raises(StreamError, match=message):
        push(model, state)
    after = state.snapshot()
    assert all(np.array_equal(after[key], before[key]) for key in before)


def test_impossible_states_are_refused() -> None:
    model = lively(TINY)
    with pytest.raises(StreamError, match="a state of 0 rows, 4 bins, pushes of 1 bins of 45 tokens is impossible"):
        model.open_state(0, max_push_bins=1)
    with pytest.raises(ConfigError, match=r"semantics='recompute' keeps no keys.*TransformerDecoder"):
        lively(as_reference(TINY)).open_state(1, max_push_bins=1)
    small = model.open_state(1, max_push_bins=1)
    with pytest.raises(StreamError, match=r"no keys of shape.*as many rows and bins a push"):
        model.open_state(2, max_push_bins=1).check(small.snapshot())


def test_reset_zeroes_and_freeze_stops() -> None:
    model = lively(TINY)
    wholes = [window(BINS, seed=1), window(BINS, seed=2)]
    rows = [pieces(TINY, w, even(2)) for w in wholes]
    state = model.open_state(2, max_push_bins=2)
    fresh = state.snapshot()

    def push(i: int) -> Tensor:
        with torch.no_grad():
            return model(collate([rows[0][i], rows[1][i]], padding=48), state=state).features

    first = push(0)
    state.keys[:, 0] = float("nan")
    state.values[:, 0] = float("nan")
    state.reset(np.array([0]))
    after = state.snapshot()
    assert all(np.array_equal(after[key][0], fresh[key][0]) for key in fresh)
    assert not np.array_equal(after["keys"][1], fresh["keys"][1])
    frozen = state.snapshot()
    state.freeze(np.array([1]))
    again = push(0)
    assert (again[0] - first[0]).abs().max() < 1e-12
    now = state.snapshot()
    ring = state.capacity - 1  # the last slot belongs to padding
    for key in ("keys", "values"):
        assert np.array_equal(now[key][1][..., :ring, :], frozen[key][1][..., :ring, :])
    for key in ("next_B", "carry_BD"):
        assert np.array_equal(now[key][1], frozen[key][1])
    state.freeze(np.array([], np.int64))
    second = push(1)
    assert torch.isfinite(second).all()
    whole = stream(model, wholes, even(2))
    assert (second[1] - whole[1][len(rows[1][0]) :][: len(rows[1][1])]).abs().max() < 1e-12


def test_snapshot_and_restore_keep_the_addresses() -> None:
    model = lively(TINY)
    rows = pieces(TINY, window(BINS), even(1))
    state = model.open_state(1, max_push_bins=1)

    def push(i: int) -> Tensor:
        with torch.no_grad():
            return model(collate([rows[i]], padding=48), state=state).features

    for i in range(7):
        push(i)
    kept, address = state.snapshot(), state.keys.data_ptr()
    once = push(7)
    push(8)
    state.restore(kept)
    assert torch.equal(push(7), once)
    assert state.keys.data_ptr() == address


def test_time_in_milliseconds_serves_any_bin_width() -> None:
    """At 20 ms it is the bin number; two bins of 40 ms are as far apart as four of 20 ms."""
    ms, bins = lively(TINY), lively(replace(TINY, rotary="bins"))
    w = window(6)
    with torch.no_grad():
        assert torch.equal(ms(batch_of(TINY, w)).features, bins(batch_of(TINY, w)).features)
        wide = ms(batch_of(TINY, replace(w, bin_ms=40.0))).features
        assert (wide - ms(batch_of(TINY, w)).features).abs().max() > 1e-3
        assert torch.equal(bins(batch_of(TINY, replace(w, bin_ms=40.0))).features, bins(batch_of(TINY, w)).features)
        # The same tokens, at twice the bin numbers of half the width.
        row = TINY.tokenizer.row(w)
        doubled = replace(row, bin_T=row.bin_T * 2)
        open_ = lively(replace(TINY, window=99))
        same = open_(collate([doubled], padding=48)).features
        assert torch.equal(open_(batch_of(TINY, replace(w, bin_ms=40.0))).features, same)


def test_time_does_not_drift() -> None:
    """A stream a day later, in float32: angles are computed in float64 from integers."""
    model, w = lively(TINY).float(), window(8)
    day = 24 * 3600 * 50
    with torch.no_grad():
        now = model(batch_of(TINY, w)).features
        later = model(batch_of(TINY, replace(w, first_bin=day))).features
    assert ((later - now).abs().max() / now.std()) < 1e-5
    assert rotary_angles(torch.tensor([[day]]), 32, 10000.0).dtype == torch.float64


def test_behavior_fed_back_is_what_it_would_have_been_given() -> None:
    """Self-consistency of the decoder's only way to use a model that was trained on given behavior."""
    from tests.unit.transformer_helpers import decoder_of

    config = replace(TINY, behavior_input="given")
    model, w = lively(config), window(BINS)
    decoder = decoder_of(model)
    decoder.open(max_push_bins=7)
    counts = np.concatenate(w.counts, axis=1)
    said = np.concatenate([decoder.push(counts[None, a : a + 7]).values[0] for a in range(0, BINS, 7)])
    fed = (said / decoder.normalizer.scale).astype(np.float32)
    shown = replace(w, behavior=fed, given=np.ones((BINS, 2), bool))
    with torch.no_grad():
        output = model(batch_of(config, shown))
        masked = model(batch_of(config, replace(w, behavior=fed)))
    assert np.abs(output.behavior.numpy().reshape(BINS, 2) - said / decoder.normalizer.scale).max() < 1e-5
    assert (masked.behavior - output.behavior).abs().max() > 1e-2


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_runs_and_is_close(autocast: bool) -> None:
    model, w = lively(TINY, std=0.05).float(), window(BINS)
    rows = pieces(TINY, w, even(2))
    with torch.no_grad():
        exact = model(batch_of(TINY, w)).features[0]
        narrow = model if autocast else lively(TINY, std=0.05).bfloat16()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            whole = narrow(batch_of(TINY, w)).features[0]
            state = narrow.open_state(1, max_push_bins=2)
            streamed = torch.cat([narrow(collate([r], padding=48), state=state).features[0] for r in rows])
    assert whole.dtype == torch.bfloat16
    for found in (whole, streamed):
        assert ((found.float() - exact).square().mean() / exact.var()).sqrt() < 0.1


def test_the_initial_weights_are_the_table_s() -> None:
    model, again, other = Transformer(TINY, seed=3), Transformer(TINY, seed=3), Transformer(TINY, seed=4)
    for name, p in model.named_parameters():
        assert torch.equal(p, again.get_parameter(name)), name
        if "norm" in name:
            assert torch.equal(p, torch.ones_like(p))
        else:
            assert not torch.equal(p, other.get_parameter(name)), name
    assert not model.embed.position.weight[-1].any()
    assert not model.embed.return_.weight[0].any()
    assert abs(model.embed.position.weight[:-1].std().item() - 1) < 0.05
    assert abs(model.embed.start.std().item() * 8 - 1) < 0.3
    qkv = model.blocks[0].attention.qkv
    assert qkv.weight.abs().max() <= 1 / 8
    assert abs(qkv.weight.std().item() * 8 * 3**0.5 - 1) < 0.05
    assert abs(model.embed.behavior.bias.abs().max().item() - 1) < 0.1


def test_dropout_is_on_in_training_alone() -> None:
    model, batch = lively(TINY), batch_of(TINY, window(4))
    with torch.no_grad():
        assert torch.equal(model(batch).features, model(batch).features)
        model.train()
        assert not torch.equal(model(batch).features, model(batch).features)


def test_heads_are_computed_when_asked_for() -> None:
    model = lively(replace(TINY, return_head=True, sequence_classes=5))
    w = window(4, returns=np.array([1, 2, 0, 1]))
    batch = batch_of(model.config, w)
    output = model(batch)
    assert output.spike_logits.shape == (12, 22, 32)
    assert output.behavior.shape == (8,)
    assert output.return_logits.shape == (4, 51)
    assert output.sequence_logits.shape == (1, 4, 5)
    pooled = torch.stack([output.features[0, batch.bin_BT[0] == n].mean(0) for n in range(4)])
    assert (model.heads["sequence"](pooled[None]) - output.sequence_logits).abs().max() < 1e-12
    only = model(batch, heads=("behavior",))
    assert only.spike_logits is None
    assert only.return_logits is None
    assert torch.equal(only.behavior, output.behavior)
    kinds = batch.kind_BT[0]
    assert torch.equal(model.heads["behavior"](output.features[0, kinds == BEHAVIOR])[:, 0], only.behavior)
    packed = pack([model.config.tokenizer.row(w)] * 2, budget=99, padding=48)
    with pytest.raises(ConfigError, match="the sequence head does not read packed rows"):
        model(packed)
