"""The tokeniser: ids and order, both directions, packing, and what a stream is told of constraints and return."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from betz.core.errors import ConfigError, DataError
from betz.model.presets import ModelConfig, preset
from betz.tokens.batch import BEHAVIOR, CONSTRAINT, PADDING, RETURN, SPIKES, TokenRow, collate, pack
from betz.tokens.tokenizer import Tokenizer
from betz.tokens.window import Told, Window
from tests.unit.transformer_helpers import TINY, cut, window

PRETRAIN = preset("45m").tokenizer


def test_the_order_of_a_bin() -> None:
    """The published example: two dimensions, 96 channels; constraints and return only at the start."""
    row = replace(PRETRAIN, refresh_bins=0).row(window(3, channels=(96,)))
    first = [1, 2, 18, 19, 20, 28, 29, 30]
    later = [18, 19, 20, 29, 30]
    assert row.position_T.tolist() == first + later + later
    assert row.bin_T.tolist() == [0] * 8 + [1] * 5 + [2] * 5
    kinds = [CONSTRAINT] * 2 + [SPIKES] * 3 + [RETURN] + [BEHAVIOR] * 2
    assert row.kind_T[:8].tolist() == kinds


@pytest.mark.parametrize(
    ("dims", "spikes", "return_", "behavior"),
    [(17, 18, 28, 29), (3, 4, 14, 15), (2, 3, 13, 14), (4, 5, 15, 16), (5, 6, 16, 17), (8, 9, 19, 20)],
)
def test_ids_of_the_published_configurations(dims: int, spikes: int, return_: int, behavior: int) -> None:
    layout = ModelConfig(layout="legacy-finetune", behavior_dim=dims).layout_of
    assert (layout.constraint, layout.spikes, layout.return_, layout.behavior) == (1, spikes, return_, behavior)
    assert layout.padding == 48


def test_patches_are_cut_per_array() -> None:
    row = PRETRAIN.row(window(2, channels=(50, 40)))
    assert row.channels_S.tolist() == [32, 18, 32, 8] * 2
    w = window(2, channels=(50, 40))
    assert np.array_equal(row.counts_SP[1, :18], w.counts[0][0, 32:])
    assert not row.counts_SP[1, 18:].any()


def test_ids_that_would_collide_are_refused_and_wide_has_room() -> None:
    two = window(1, channels=(161, 161))
    with pytest.raises(ConfigError, match=r"12 spike tokens a bin do not fit the 10 ids of layout 'pretrain'.*wide"):
        PRETRAIN.row(two)
    assert PRETRAIN.row(window(1, channels=(160, 160))).position_T.max() == 30
    with pytest.raises(ConfigError, match=r"an array of 321 channels.*at most 320.*layout='wide'"):
        PRETRAIN.row(window(1, channels=(321,)))
    with pytest.raises(ConfigError, match=r"18 behavior dimensions do not fit the 17 ids.*behavior_dim ≥ 18"):
        PRETRAIN.row(window(1, channels=(8,), dims=18))
    with pytest.raises(ConfigError, match=r"3 arrays, but the model was made for at most 2"):
        PRETRAIN.row(window(1, channels=(8, 8, 8)))
    wide = ModelConfig(layout="wide", max_channels=640, positions=76).tokenizer
    ids = wide.row(window(1, channels=(640, 640))).position_T
    assert len(set(ids.tolist())) == len(ids)
    assert (ids[:2].tolist(), ids[-2:].tolist()) == ([1, 2], [59, 60])
    with pytest.raises(ConfigError, match=r"layout 'wide' needs 76 positions, the table has 48.*positions=76"):
        ModelConfig(layout="wide", max_channels=640)


def test_a_window_without_behavior_can_have_the_reference_s_dummy() -> None:
    silent = window(2, channels=(8,), dims=0)
    assert (PRETRAIN.row(silent).kind_T == BEHAVIOR).sum() == 0
    row = PRETRAIN.row(silent, dummy_bin=100)
    assert (row.bin_T[-1], row.kind_T[-1], row.position_T[-1]) == (100, BEHAVIOR, 29)
    assert (row.behavior_M.tolist(), row.known_M.tolist()) == ([0.0], [True])


def test_lost_bins_have_no_spikes_and_unknown_behavior_no_loss() -> None:
    w = window(3, channels=(8,), present=np.array([True, False, True]))
    w.behavior[2, 1] = np.nan
    row = PRETRAIN.row(replace(w, given=np.ones((3, 2), bool), known=np.array([True, True, True])))
    assert [(row.kind_T[row.bin_T == n] == SPIKES).sum() for n in range(3)] == [1, 0, 1]
    assert [(row.kind_T[row.bin_T == n] == BEHAVIOR).sum() for n in range(3)] == [2, 2, 2]
    assert row.known_M.tolist() == [True] * 5 + [False]
    assert row.given_M.tolist() == [True] * 5 + [False]
    assert row.behavior_M[5] == 0


def test_bad_counts_and_returns_are_refused() -> None:
    with pytest.raises(DataError, match=r"counts must be integers ≥ 0, not float64.*power channels are not read"):
        PRETRAIN.row(Window((np.ones((2, 3)),)))
    with pytest.raises(DataError, match=r"not int64, negative"):
        PRETRAIN.row(Window((np.array([[1, -1]]),)))
    with pytest.raises(DataError, match=r"returns from 0 to 50 .* do not fit a model of returns 0 … 49"):
        PRETRAIN.row(Window((np.ones((2, 3), np.uint8),), returns=np.array([0, 50])))
    with pytest.raises(DataError, match=r"rewards from 0 to 2 do not fit"):
        PRETRAIN.row(Window((np.ones((2, 3), np.uint8),), returns=np.array([0, 1]), rewards=np.array([0, 2])))
    assert PRETRAIN.row(Window((np.full((1, 3), 300),))).counts_SP[0, :3].tolist() == [255] * 3


# ---- both directions


@st.composite
def windows(draw: st.DrawFn) -> Window:
    """Any window of arrays of 33 and 5 channels."""
    bins, dims, seed = draw(st.integers(1, 9)), draw(st.integers(0, 4)), draw(st.integers(0, 99))
    rng = np.random.default_rng(seed)
    made = window(bins, channels=(33, 5), dims=dims, seed=seed, first_bin=draw(st.integers(0, 50)))
    if dims:
        made.behavior[rng.random((bins, dims)) < 0.2] = np.nan
    there = rng.random(bins) < draw(st.sampled_from([1.0, 0.6]))
    for array in made.counts:
        array[~there] = 0
    K = max(dims, 1)
    held = np.repeat(rng.integers(0, 2, (bins // 3 + 1, 3, K)), 3, axis=0)[:bins].astype(np.float32)
    returns = rng.integers(-1, 4, bins) if draw(st.booleans()) else None
    return replace(
        made,
        present=there,
        given=(rng.random((bins, dims)) < 0.5) & np.isfinite(made.behavior) if dims else None,
        constraint=held if draw(st.booleans()) else None,
        returns=returns,
        rewards=None if returns is None else np.where(returns >= 0, rng.integers(0, 2, bins), 0),
    )


@settings(deadline=None, max_examples=60)
@given(st.lists(windows(), min_size=1, max_size=5), st.sampled_from([0, 3]), st.booleans(), st.sampled_from([0, 4]))
def test_tokens_become_the_windows_again(made: list[Window], refresh: int, packed: bool, latents: int) -> None:
    tokenizer = replace(PRETRAIN, refresh_bins=refresh, latents=latents)
    rows = [tokenizer.row(w) for w in made]
    batch = pack(rows, budget=300, padding=48) if packed else collate(rows, padding=48)
    back = tokenizer.windows(batch, channels=(33, 5))
    assert batch.num_tokens == sum(len(r) for r in rows)
    assert (batch.kind_BT != PADDING).sum() == batch.num_tokens
    for found, wanted in zip(back, made, strict=True):
        compare(found, wanted)


def compare(found: Window, wanted: Window) -> None:
    if wanted.num_dims == 0:  # a bin without any token leaves no trace at the ends
        there = np.flatnonzero(wanted.present)
        if len(there) < wanted.num_bins:
            return
    assert (found.first_bin, found.num_bins) == (wanted.first_bin, wanted.num_bins)
    for ours, theirs in zip(found.counts, wanted.counts, strict=False):
        assert np.array_equal(ours, theirs)
    assert np.array_equal(found.present, wanted.present)
    if wanted.num_dims:
        known = np.isfinite(wanted.behavior)
        assert np.array_equal(found.known, known)
        assert np.array_equal(found.given, wanted.given)
        assert np.array_equal(found.behavior[known], wanted.behavior[known])
    if wanted.constraint is not None:
        assert np.array_equal(found.constraint, wanted.constraint)
    if wanted.returns is not None and (wanted.returns >= 0).any():
        assert np.array_equal(found.returns, wanted.returns)
        assert np.array_equal(found.rewards, wanted.rewards)


# ---- packing


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=30), st.integers(0, 50))
def test_packing_keeps_every_window_whole_and_within_the_budget(lengths: list[int], more: int) -> None:
    rows = [TINY.tokenizer.row(window(n, channels=(8,), seed=i)) for i, n in enumerate(lengths)]
    budget = max(len(r) for r in rows) + more
    batch = pack(rows, budget=budget, padding=48)
    assert batch.bin_BT.shape[1] <= budget
    sizes = {d.window: d.stop - d.start for d in batch.documents}
    assert sizes == {i: len(r) for i, r in enumerate(rows)}
    taken = np.zeros(batch.bin_BT.shape, int)
    for d in batch.documents:
        taken[d.row, d.start : d.stop] += 1
    assert taken.max() == 1
    assert np.array_equal(taken == 1, batch.real_BT)
    # First fit: what is in a later row did not fit into an earlier one.
    filled = batch.real_BT.sum(axis=1)
    assert len(filled) == 1 or np.sort(filled)[:2].sum() > budget


def test_a_window_above_the_budget_is_refused() -> None:
    row = TINY.tokenizer.row(window(3, channels=(8,)))
    with pytest.raises(ConfigError, match=rf"a window has {len(row)} tokens, more than the budget of {len(row) - 1}"):
        pack([row], budget=len(row) - 1, padding=48)


# ---- what a stream is told


def joined(rows: list[TokenRow]) -> tuple[list[int], list[int], list[float], list[int]]:
    return (
        [int(b) for r in rows for b in r.bin_T],
        [int(p) for r in rows for p in r.position_T],
        [float(v) for r in rows for v in r.constraint_Q3.ravel()],
        [int(v) for r in rows for v in r.return_R],
    )


@settings(deadline=None, max_examples=80)
@given(windows(), st.lists(st.integers(1, 4), max_size=9), st.sampled_from([0, 1, 3]))
def test_pushes_have_the_tokens_of_the_whole_window(whole: Window, sizes: list[int], refresh: int) -> None:
    tokenizer = replace(PRETRAIN, refresh_bins=refresh)
    edges = np.minimum(np.cumsum([0, *sizes]), whole.num_bins).tolist()
    edges = sorted({*edges, whole.num_bins})
    told: Told | None = None
    parts = []
    for start, stop in pairwise(edges):
        piece = cut(whole, start, stop)
        parts.append(tokenizer.row(piece, told=told))
        told = tokenizer.told(piece, told)
    assert joined(parts) == joined([tokenizer.row(whole)])


def test_constraints_are_told_at_the_start_at_a_change_and_when_due() -> None:
    constraint = np.zeros((9, 3, 1), np.float32)
    constraint[4:, 1] = 0.5
    w = window(9, channels=(8,), dims=1, constraint=constraint)

    def bins(tokenizer: Tokenizer, kind: int) -> list[int]:
        row = tokenizer.row(w)
        return sorted(set(row.bin_T[row.kind_T == kind].tolist()))

    assert bins(replace(PRETRAIN, refresh_bins=0), CONSTRAINT) == [0, 4]
    assert bins(replace(PRETRAIN, refresh_bins=3), CONSTRAINT) == [0, 3, 4, 7]
    assert bins(replace(PRETRAIN, refresh_bins=0), RETURN) == [0]
    assert bins(replace(PRETRAIN, refresh_bins=3), RETURN) == [0, 3, 6]
    w = replace(w, returns=np.array([-1, -1, 2, 2, 1, -1, -1, -1, -1]))
    assert bins(replace(PRETRAIN, refresh_bins=0), RETURN) == [0, 2, 3, 4, 5]
    row = PRETRAIN.row(w)
    assert row.return_R.tolist()[:5] == [0, 3, 3, 2, 0]
