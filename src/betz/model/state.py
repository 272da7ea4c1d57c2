"""What a token can look back on: the whole window at once, or the state of a stream. Both attend for the model.

The window is counted in bins: a query of bin q sees the tokens before it (and itself) whose bin is > q − W, in every
layer. A stream keeps the keys and values of so many tokens that this holds for every bin of the largest push.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from betz.core.errors import StreamError
from betz.tokens.batch import Document, TokenBatch

EMPTY = -(2**62)
"""Bin of a slot without a token: before every window."""


class WholeWindow:
    """Attention over windows that are given at once.

    Args:
        batch: on the device.
        window: W in bins; None = no limit.
    """

    def __init__(self, batch: TokenBatch, window: int | None) -> None:
        spans = [(d, _limit(batch.bin_BT[d.row, d.start : d.stop], d, window)) for d in batch.documents]
        self.packed = batch.packed
        self.spans: list[tuple[Document, Tensor | None]] = spans if self.packed else []
        self.mask_B1TT: Tensor | None = None
        if not self.packed and any(mask is not None for _, mask in spans):
            assert window is not None
            self.mask_B1TT = _causal(batch.bin_BT, window)[:, None]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
        """(B, H, T, head width) of the layer's queries, keys and values, all (B, H, T, head width)."""
        if not self.packed:
            mask = self.mask_B1TT
            return functional.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=mask is None
            )
        out = torch.zeros_like(query)
        for d, mask in self.spans:
            part = (slice(d.row, d.row + 1), slice(None), slice(d.start, d.stop))
            out[part] = functional.scaled_dot_product_attention(
                query[part], key[part], value[part], attn_mask=mask, dropout_p=dropout, is_causal=mask is None
            )
        return out


def _causal(bin_BT: Tensor, window: int) -> Tensor:
    """(…, T, T) whether a token is seen: no later one, and none of a bin W or more back; padding sees itself."""
    age = bin_BT[..., :, None] - bin_BT[..., None, :]
    return (age < window).tril()


def _limit(bin_T: Tensor, document: Document, window: int | None) -> Tensor | None:
    return None if window is None or document.num_bins <= window else _causal(bin_T, window)


class StreamState:
    """Keys and values of the last tokens of B rows, in place at fixed addresses; made by ``Transformer.open_state``.

    A token's slot is its running number modulo the ring, so a token is overwritten only when W + max_push − 1 bins
    have come after it: the window of the oldest bin of the largest push is still whole. One slot more takes what
    padding writes; nothing real looks at it.

    Args:
        layers, heads, head_width: of the model.
        rows: B.
        window: W in bins.
        max_push_bins: most bins of a push.
        tokens_per_bin: most tokens a bin can have.
        start: (D,) the vector before the first token.
    """

    def __init__(
        self,
        *,
        layers: int,
        heads: int,
        head_width: int,
        rows: int,
        window: int,
        max_push_bins: int,
        tokens_per_bin: int,
        start: Tensor,
    ) -> None:
        if min(rows, window, max_push_bins, tokens_per_bin) < 1:
            raise StreamError(
                f"a state of {rows} rows, {window} bins, pushes of {max_push_bins} bins of {tokens_per_bin} tokens "
                "is impossible.",
                remedy="each at least 1",
            )
        self.rows, self.window, self.max_push_bins, self.tokens_per_bin = rows, window, max_push_bins, tokens_per_bin
        self.capacity = (window + max_push_bins - 1) * tokens_per_bin + 1
        shape = (layers, rows, heads, self.capacity, head_width)
        device = start.device
        self.keys = torch.zeros(shape, dtype=start.dtype, device=device)
        self.values = torch.zeros(shape, dtype=start.dtype, device=device)
        self.bin_BS = torch.full((rows, self.capacity), EMPTY, dtype=torch.int64, device=device)
        self.order_BS = torch.zeros((rows, self.capacity), dtype=torch.int64, device=device)
        self.next_B = torch.zeros(rows, dtype=torch.int64, device=device)
        self.carry_BD = start.detach().expand(rows, -1).clone()
        self.frozen_B = torch.zeros(rows, dtype=torch.bool, device=device)
        self._start = start.detach().clone()
        self._slot_BT = self._mask_B1TS = torch.zeros(0)

    @property
    def nbytes(self) -> int:
        """Bytes of everything that it keeps."""
        return sum(t.numel() * t.element_size() for t in (*self._tensors().values(), self.frozen_B))

    def begin(self, batch: TokenBatch) -> None:
        """Take the slots of a push's tokens; then every layer attends.

        Raises:
            StreamError: it has other rows, packed rows, or more bins or tokens a bin than the state was opened for.
                The state is as before.
        """
        self._check(batch)
        real_BT = batch.real_BT & ~self.frozen_B[:, None]
        ring = self.capacity - 1
        order_BT = self.next_B[:, None] + real_BT.cumsum(1) - 1
        slot_BT = torch.where(real_BT, order_BT % ring, ring)
        self.bin_BS.scatter_(1, slot_BT, torch.where(real_BT, batch.bin_BT, EMPTY))
        self.order_BS.scatter_(1, slot_BT, order_BT)
        self.next_B += real_BT.sum(1)
        seen_BTS = (self.order_BS[:, None] <= order_BT[..., None]) & (
            self.bin_BS[:, None] > batch.bin_BT[..., None] - self.window
        )
        seen_BTS[..., ring] = ~real_BT  # attention to nothing is NaN in some kernels
        self._slot_BT, self._mask_B1TS = slot_BT, seen_BTS[:, None]

    def shift(self, content_BTD: Tensor, batch: TokenBatch) -> Tensor:
        """(B, T, D) content of the token before each; the last one's is kept for the next push."""
        before_BTD = torch.cat((self.carry_BD[:, None].to(content_BTD.dtype), content_BTD[:, :-1]), dim=1)
        number_B = (batch.real_BT & ~self.frozen_B[:, None]).sum(1)
        last_BD = content_BTD[torch.arange(self.rows, device=number_B.device), (number_B - 1).clamp(min=0)]
        self.carry_BD.copy_(torch.where((number_B > 0)[:, None], last_BD, self.carry_BD))
        return before_BTD

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
        """(B, H, T, head width) of a layer's new queries over what is kept and what is new."""
        slots = self._slot_BT[:, None, :, None].expand_as(key)
        keys, values = self.keys[layer], self.values[layer]
        keys.scatter_(2, slots, key.to(keys.dtype))
        values.scatter_(2, slots, value.to(values.dtype))
        return functional.scaled_dot_product_attention(
            query, keys.to(query.dtype), values.to(query.dtype), attn_mask=self._mask_B1TS, dropout_p=dropout
        )

    def tell(self, content_BD: Tensor) -> None:
        """Replace the content of the last token, which the next one sees (a prediction that is fed back)."""
        self.carry_BD.copy_(torch.where(self.frozen_B[:, None], self.carry_BD, content_BD.to(self.carry_BD.dtype)))

    def reset(self, rows: NDArray[np.int64] | None = None) -> None:
        """Start rows anew; zeroed, since what is masked still meets a weight of 0 in attention, and 0 · NaN is NaN."""
        which = torch.arange(self.rows) if rows is None else torch.as_tensor(rows)
        which = which.to(self.keys.device)
        self.keys[:, which] = 0
        self.values[:, which] = 0
        self.bin_BS[which] = EMPTY
        self.order_BS[which] = 0
        self.next_B[which] = 0
        self.carry_BD[which] = self._start

    def freeze(self, rows: NDArray[np.int64]) -> None:
        """Freeze exactly these rows from now on; an empty array thaws all."""
        self.frozen_B.zero_()
        self.frozen_B[torch.as_tensor(rows, dtype=torch.int64, device=self.frozen_B.device)] = True

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Copies, each (B, …), of all that is kept; bfloat16 becomes float32, which loses nothing."""
        wide = {n: t.float() if t.dtype == torch.bfloat16 else t for n, t in self._tensors().items()}
        rows_first = {n: t.movedim(1, 0) if t.ndim == 5 else t for n, t in wide.items()}
        return {n: t.cpu().numpy().copy() for n, t in rows_first.items()}

    def check(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Raise :class:`StreamError` unless these are the arrays of a snapshot of a state like this."""
        for name, tensor in self._tensors().items():
            shape = tuple(tensor.movedim(1, 0).shape if tensor.ndim == 5 else tensor.shape)
            if name not in arrays or arrays[name].shape != shape:
                raise StreamError(
                    f"the snapshot has no {name} of shape {shape}.",
                    remedy="restore a snapshot of this decoder, opened with as many rows and bins a push",
                )

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Undo everything since the snapshot; it was checked."""
        for name, tensor in self._tensors().items():
            kept = torch.from_numpy(arrays[name])
            tensor.copy_(kept.movedim(0, 1) if tensor.ndim == 5 else kept)

    def _tensors(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in ("keys", "values", "bin_BS", "order_BS", "next_B", "carry_BD")}

    def _check(self, batch: TokenBatch) -> None:
        if batch.packed or len(batch.bin_BT) != self.rows:
            raise StreamError(
                f"a push of {len(batch.documents)} windows in {len(batch.bin_BT)} rows into a state of {self.rows}.",
                remedy="one window a row",
            )
        bins = max(d.num_bins for d in batch.documents)
        tokens = max(d.most_tokens for d in batch.documents)
        if bins > self.max_push_bins:
            raise StreamError(
                f"a push of {bins} bins exceeds the {self.max_push_bins} this state was opened for.",
                remedy=f"open_state(max_push_bins={bins}) or push fewer bins",
            )
        if tokens > self.tokens_per_bin:
            raise StreamError(
                f"a bin has {tokens} tokens, the state was opened for {self.tokens_per_bin}.",
                remedy=f"open_state(tokens_per_bin={tokens})",
            )
