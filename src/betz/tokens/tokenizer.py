"""The tokeniser: counts and behavior of a window to one flat, sorted sequence of tokens, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import ConfigError, DataError
from betz.tokens.batch import BEHAVIOR, CONSTRAINT, RETURN, SPIKES, TokenBatch, TokenRow
from betz.tokens.layout import Layout
from betz.tokens.window import Told, Window, constraint_of, events, return_index, told_after

Array = NDArray[Any]


@dataclass(frozen=True)
class Tokenizer:
    """Makes and reads the tokens of one model; made by :attr:`betz.model.presets.ModelConfig.tokenizer`.

    Args:
        layout: position ids.
        patch_channels: channels of a spike token.
        latents: 0: one token a patch; else so many tokens a bin that all read all of its channels.
        max_channels: channels an array may have; max_arrays: arrays a session may have.
        behavior, constraints, returns: which tokens there are besides spikes.
        max_return: largest index of a return; an index is 1 + the return, 0 is none.
        refresh_bins: constraints and an absent return are given again after so many bins; 0 = never.
    """

    layout: Layout
    patch_channels: int = 32
    latents: int = 0
    max_channels: int = 320
    max_arrays: int = 2
    behavior: bool = True
    constraints: bool = True
    returns: bool = True
    max_return: int = 50
    refresh_bins: int = 0

    # ---- encoding

    def row(self, window: Window, *, told: Told | None = None, dummy_bin: int | None = None) -> TokenRow:
        """The tokens of one window.

        Args:
            window: at least one bin.
            told: what a stream was told before this window; None: it begins here.
            dummy_bin: a window without behavior gets one token of value 0 at this bin, as the reference's loader does.

        Raises:
            ConfigError: more channels, arrays or dimensions than the model has room for.
            DataError: counts are negative or no integers, or a return is too large.
        """
        counts_NGP, channels_G = self._groups(window)
        N, dims = window.num_bins, window.num_dims if self.behavior else 0
        self.layout.check(spikes=self.spike_tokens(tuple(c.shape[1] for c in window.counts)), dims=dims)
        bins_N = np.arange(window.first_bin, window.first_bin + N, dtype=np.int64)
        there_N = np.ones(N, bool) if window.present is None else np.asarray(window.present, bool)
        per_bin = max(self.latents, 1)
        ids_GL = self.layout.spikes + np.arange(len(channels_G) * per_bin).reshape(len(channels_G), per_bin)
        spike_bin = np.repeat(bins_N[there_N], ids_GL.size)
        value_M, known_M, given_M, behavior_bin, behavior_id = self._behavior(window, bins_N, dims, dummy_bin)
        constraint_Q3, constraint_bin, constraint_id = self._constraints(window, bins_N, told)
        return_R, reward_R, return_bin = self._returns(window, bins_N, told)
        columns = (
            (spike_bin, np.tile(ids_GL.ravel(), int(there_N.sum())), SPIKES),
            (behavior_bin, behavior_id, BEHAVIOR),
            (constraint_bin, constraint_id, CONSTRAINT),
            (return_bin, np.full(len(return_bin), self.layout.return_), RETURN),
        )
        bin_T = np.concatenate([c[0] for c in columns])
        position_T = np.concatenate([c[1] for c in columns]).astype(np.int64)
        kind_T = np.repeat(np.array([c[2] for c in columns], np.uint8), [len(c[0]) for c in columns])
        order = np.lexsort((position_T, bin_T))
        slot_T = np.empty(len(order), np.int64)
        slot_T[order] = np.arange(len(order))
        ends = np.cumsum([len(c[0]) for c in columns])
        spike_slot, behavior_slot, constraint_slot, return_slot = np.split(slot_T, ends[:-1])
        return TokenRow(
            bin_T=bin_T[order],
            position_T=position_T[order],
            kind_T=kind_T[order],
            bin_ms=window.bin_ms,
            counts_SP=counts_NGP[there_N].reshape(-1, counts_NGP.shape[2]),
            channels_S=np.tile(channels_G, int(there_N.sum())),
            spike_slot_SL=spike_slot.reshape(-1, per_bin),
            behavior_M=value_M,
            known_M=known_M,
            given_M=given_M,
            behavior_slot_M=behavior_slot,
            constraint_Q3=constraint_Q3,
            constraint_slot_Q=constraint_slot,
            return_R=return_R,
            reward_R=reward_R,
            return_slot_R=return_slot,
        )

    def told(self, window: Window, told: Told | None = None) -> Told:
        """What a stream has been told after this window."""
        return told_after(window, told, self.refresh_bins)

    def spike_tokens(self, channels: Sequence[int]) -> int:
        """Spike tokens of a bin of arrays with so many channels."""
        return self.latents or sum(-(-c // self.patch_channels) for c in channels)

    def most_tokens(self, *, channels: Sequence[int], dims: int) -> int:
        """The most tokens a bin of such a session can have."""
        K = dims if self.behavior else 0
        return self.spike_tokens(channels) + K + max(dims, 1) * self.constraints + self.returns

    def _groups(self, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """(N, G, P) counts in groups of P channels, and how many channels of each are real."""
        if len(window.counts) > self.max_arrays:
            raise ConfigError(
                f"{len(window.counts)} arrays, but the model was made for at most {self.max_arrays}.",
                where="tokeniser",
                remedy="leave an array out, or use a model with more max_arrays",
            )
        arrays = [self._counts(array) for array in window.counts]
        if self.latents:
            joined = np.concatenate(arrays, axis=1)
            return joined[:, None], np.array([joined.shape[1]], np.int64)
        P = self.patch_channels
        padded = [np.pad(a, ((0, 0), (0, -a.shape[1] % P))) for a in arrays]
        counts_NGP = np.concatenate(padded, axis=1).reshape(len(arrays[0]), -1, P)
        real = [np.minimum(a.shape[1] - np.arange(0, a.shape[1], P), P) for a in arrays]
        return counts_NGP, np.concatenate(real).astype(np.int64)

    def _counts(self, array: Array) -> NDArray[np.uint8]:
        if array.shape[1] > self.max_channels:
            raise ConfigError(
                f"an array of {array.shape[1]} channels, but the model was made for at most {self.max_channels}.",
                where="tokeniser",
                remedy="choose channels, or use a model with layout='wide' and more max_channels",
            )
        if array.dtype == np.uint8:
            return array
        if array.dtype.kind not in "iu" or (array.size and array.min() < 0):
            raise DataError(
                f"counts must be integers ≥ 0, not {array.dtype}{', negative' if array.dtype.kind == 'i' else ''}.",
                where="tokeniser",
                remedy="give spike counts; power channels are not read by this model",
            )
        return np.minimum(array, 255).astype(np.uint8)  # the model's table ends far below

    def _behavior(
        self, window: Window, bins_N: NDArray[np.int64], dims: int, dummy_bin: int | None
    ) -> tuple[Any, Any, Any, Any, Any]:
        """Values, known, given, bins and position ids of the behavior tokens."""
        if not dims:
            one = int(self.behavior and dummy_bin is not None)
            bins = np.full(one, -1 if dummy_bin is None else dummy_bin, np.int64)
            ids = np.full(one, self.layout.behavior)
            return np.zeros(one, np.float32), np.ones(one, bool), np.zeros(one, bool), bins, ids
        value_NK = np.asarray(window.behavior, np.float32)
        known_NK = np.isfinite(value_NK)
        value_NK = np.where(known_NK, value_NK, np.float32(0))
        given_NK = np.zeros_like(known_NK) if window.given is None else window.given & known_NK
        if window.known is not None:
            known_NK = known_NK & (window.known if window.known.ndim == 2 else window.known[:, None])
        ids = np.tile(self.layout.behavior + np.arange(dims), len(bins_N))
        return value_NK.ravel(), known_NK.ravel(), given_NK.ravel(), np.repeat(bins_N, dims), ids

    def _constraints(
        self, window: Window, bins_N: NDArray[np.int64], told: Told | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        """Vectors, bins and position ids of the constraint tokens: at the start, and where they change."""
        empty = np.zeros(0, np.int64)
        if not self.constraints:
            return np.zeros((0, 3), np.float32), empty, empty
        constraint_N3K = constraint_of(window)
        event_N, _ = events(window, told, self.refresh_bins)
        K = constraint_N3K.shape[2]
        vectors = constraint_N3K[event_N].transpose(0, 2, 1).reshape(-1, 3)
        ids = np.tile(self.layout.constraint + np.arange(K), int(event_N.sum()))
        return vectors.astype(np.float32), np.repeat(bins_N[event_N], K), ids

    def _returns(
        self, window: Window, bins_N: NDArray[np.int64], told: Told | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return and reward indices and their bins: in every bin that has one; "none" at the start and at changes."""
        if not self.returns:
            return (np.zeros(0, np.int64),) * 3
        index_N = return_index(window)
        rewards = np.zeros_like(index_N) if window.rewards is None else np.asarray(window.rewards, np.int64)
        if index_N.min() < 0 or index_N.max() > self.max_return or rewards.min() < 0 or rewards.max() > 1:
            raise DataError(
                f"returns from {index_N.min() - 1} to {index_N.max() - 1} and rewards from {rewards.min()} to "
                f"{rewards.max()} do not fit a model of returns 0 … {self.max_return - 1} and rewards 0, 1.",
                where="tokeniser",
                remedy="rescale or clip them by name, or leave them out",
            )
        _, event_N = events(window, told, self.refresh_bins)
        reward_N = np.where(index_N > 0, rewards + 1, 0)
        return index_N[event_N], reward_N[event_N], bins_N[event_N]

    # ---- decoding

    def windows(self, batch: TokenBatch, *, channels: Sequence[int]) -> list[Window]:
        """The windows that a batch was made of, in the order in which they were given.

        Args:
            batch: numpy, as :func:`~betz.tokens.batch.collate` makes it; with ``replace(batch, behavior_M=…)`` the
                windows hold predicted behavior.
            channels: of each array.
        """
        documents = sorted(batch.documents, key=lambda d: d.window)
        return [self._window(batch, d, tuple(channels)) for d in documents]

    def _window(self, batch: TokenBatch, document: Any, channels: tuple[int, ...]) -> Window:
        width = batch.bin_BT.shape[1]
        low, high = document.row * width + document.start, document.row * width + document.stop
        N, first = document.num_bins, document.first_bin
        flat_bin, flat_id = batch.bin_BT.ravel(), batch.position_BT.ravel()

        def inside(slots: Array) -> NDArray[np.bool_]:
            return np.asarray((slots >= low) & (slots < high))

        of_S = inside(batch.spike_slot_SL[:, 0])
        slot = batch.spike_slot_SL[of_S, 0]
        group = (flat_id[slot] - self.layout.spikes) // max(self.latents, 1)
        groups = 1 if self.latents else self.spike_tokens(channels)
        counts_NGP = np.zeros((N, groups, batch.counts_SP.shape[1]), np.uint8)
        counts_NGP[flat_bin[slot] - first, group] = batch.counts_SP[of_S]
        present = np.zeros(N, bool)
        present[flat_bin[slot] - first] = True
        of_M = inside(batch.behavior_slot_M)
        slot = batch.behavior_slot_M[of_M]
        dim = flat_id[slot] - self.layout.behavior
        shape = (N, int(dim.max()) + 1) if len(dim) else (0, 0)
        behavior, known, given = np.full(shape, np.nan, np.float32), np.zeros(shape, bool), np.zeros(shape, bool)
        at = (flat_bin[slot] - first, dim)
        behavior[at], known[at], given[at] = batch.behavior_M[of_M], batch.known_M[of_M], batch.given_M[of_M]
        constraint = self._constraint_window(batch, inside(batch.constraint_slot_Q), first, N)
        of_R = inside(batch.return_slot_R)
        returns, rewards = np.full(N, -1, np.int64), np.zeros(N, np.int64)
        bin_R = flat_bin[batch.return_slot_R[of_R]] - first
        returns[bin_R], rewards[bin_R] = batch.return_R[of_R] - 1, np.maximum(batch.reward_R[of_R] - 1, 0)
        dense = bool((returns >= 0).any())
        return Window(
            counts=self._arrays(counts_NGP, channels),
            bin_ms=float(batch.bin_ms_BT.ravel()[low:high].max(initial=0.0)),
            behavior=behavior,
            known=known if behavior.size else None,
            given=given if behavior.size else None,
            constraint=constraint,
            returns=returns if dense else None,
            rewards=rewards if dense else None,
            present=present,
            first_bin=first,
        )

    def _constraint_window(self, batch: TokenBatch, of_Q: NDArray[np.bool_], first: int, N: int) -> Array | None:
        """(N, 3, K), each event holding until the next; None without constraint tokens."""
        if not of_Q.any():
            return None
        slot = batch.constraint_slot_Q[of_Q]
        bin_Q = batch.bin_BT.ravel()[slot] - first
        dim_Q = batch.position_BT.ravel()[slot] - self.layout.constraint
        out = np.zeros((N, 3, int(dim_Q.max()) + 1), np.float32)
        for n, k, vector in zip(bin_Q, dim_Q, batch.constraint_Q3[of_Q], strict=True):
            out[n:, :, k] = vector
        return out

    def _arrays(self, counts_NGP: NDArray[np.uint8], channels: tuple[int, ...]) -> tuple[Array, ...]:
        N, _, P = counts_NGP.shape
        flat = counts_NGP.reshape(N, -1)
        step = [c if self.latents else -(-c // P) * P for c in channels]
        starts = np.cumsum([0, *step])
        return tuple(flat[:, a : a + c] for a, c in zip(starts, channels, strict=False))
