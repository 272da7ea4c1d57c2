"""The Transformer streamed with the keys and values of its last W bins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from betz.core.prediction import Array
from betz.decode.decoder import DecoderState
from betz.decode.transformer import TransformerDecoder
from betz.model.state import StreamState
from betz.model.transformer import ModelOutput
from betz.tokens.batch import BEHAVIOR, TokenRow, collate
from betz.tokens.window import Told, Window

PIECE_BINS = 128
"""Longer pushes go through the model in pieces of so many bins: the memory of a push grows with its square."""


class SlidingDecoder(TransformerDecoder):
    """Each layer sees exactly W bins, so an offline forward with that mask gives the same numbers."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        config = self.config
        self._feeds_back = config.behavior_input == "given"
        self.context_bins = None if self._feeds_back else config.layers * (config.window - 1) + 1
        self._stream: StreamState

    def open(self, rows: int = 1, *, max_push_bins: int = 1) -> None:
        """Start ``rows`` independent streams that take at most ``max_push_bins`` bins a push."""
        super().open(rows, max_push_bins=max_push_bins)
        self._stream = self.model.open_state(
            rows, max_push_bins=min(max_push_bins, PIECE_BINS), tokens_per_bin=self._tokens_per_bin
        )

    def initial_state(self, rows: int) -> dict[str, Array]:
        """What the rows were told of constraints and return (nothing), and what they have written."""
        return {
            "told_constraint": np.zeros((rows, 3, self._dims), np.float32),
            "told_return": np.zeros(rows, np.int64),
            "told_ago": np.full((rows, 2), -1, np.int64),
            **self._texts(rows),
        }

    def advance(
        self, signals_BNC: NDArray[np.float64], present_BN: NDArray[np.bool_], state: Mapping[str, Array]
    ) -> tuple[Array, None, dict[str, Array]]:
        """Push the bins' tokens, frozen rows without any."""
        counts_BNC = self._counts(signals_BNC)
        B, N, _ = counts_BNC.shape
        values = np.full((B, N, self._columns), np.nan)
        after = {name: array.copy() for name, array in state.items()}
        live: list[int] = np.flatnonzero(~self._frozen).tolist()
        step = 1 if self._feeds_back else PIECE_BINS
        for at in range(0, N if len(live) else 0, step):
            piece = slice(at, min(at + step, N))
            bins = piece.stop - at
            windows = [
                self._window(
                    counts_BNC[b, piece], present_BN[b, piece], first_bin=int(self._bin[b]) + at, **self._now(bins)
                )
                for b in live
            ]
            output = self._forward(windows, live, after)
            values[live, piece], scores_RNV = self._values(output, [bins] * len(live), bins)
            for b, window in zip(live, windows, strict=True):
                _tell(after, b, self.tokenizer.told(window, _told(after, b)))
            if scores_RNV is not None:
                after["text"] = self._write(after["text"], live, scores_RNV, present_BN[:, piece])
        return values, None, after

    def _forward(self, windows: Sequence[Window], live: Sequence[int], after: Mapping[str, Array]) -> ModelOutput:
        """What the model says of the next bins of the live rows."""
        made = {b: self.tokenizer.row(w, told=_told(after, b)) for b, w in zip(live, windows, strict=True)}
        nothing = next(iter(made.values())).part(0, 0)
        rows = [made.get(b, nothing) for b in range(self._rows)]
        if self._feeds_back:
            return self._fed_back(rows, live)
        return self._push(rows, live)

    def _push(self, rows: Sequence[TokenRow], live: Sequence[int]) -> ModelOutput:
        with torch.inference_mode():
            batch = collate(rows, padding=self.config.positions)
            output = self.model(batch, state=self._stream, heads=self._heads)
        if output.sequence_logits is not None and len(live) < self._rows:
            return ModelOutput(output.features, behavior=output.behavior, sequence_logits=output.sequence_logits[live])
        assert isinstance(output, ModelOutput)
        return output

    def _fed_back(self, rows: Sequence[TokenRow], live: Sequence[int]) -> ModelOutput:
        """One bin, dimension by dimension: each prediction is the content that the next token sees."""
        first = [int(np.argmax(row.kind_T == BEHAVIOR)) if len(row) else -1 for row in rows]
        said: list[torch.Tensor] = []
        for k in range(self._dims):
            parts = [row.part(at + k if k else 0, at + k + 1) for row, at in zip(rows, first, strict=True)]
            output = self._push(parts, live)
            assert output.behavior is not None
            said.append(output.behavior)
            told_B = output.behavior.new_zeros(self._rows)
            told_B[live] = output.behavior
            with torch.inference_mode():
                self.model.tell(self._stream, told_B)
        return ModelOutput(output.features, behavior=torch.stack(said, dim=1).flatten())

    # ---- the stream's own state, in place

    def reset(self, rows: Array | None = None) -> None:
        """Start the rows (int64 indices; None = all) anew."""
        super().reset(rows)
        self._stream.reset(self._indices(rows))

    def freeze(self, rows: Array) -> None:
        """Freeze exactly these rows from now on; an empty array thaws all."""
        super().freeze(rows)
        self._stream.freeze(self._indices(rows))

    def snapshot(self) -> DecoderState:
        """A copy of the state of all rows."""
        state = super().snapshot()
        return DecoderState(state.bin, state.frozen, {**state.arrays, **self._stream.snapshot()})

    def restore(self, state: DecoderState) -> None:
        """Undo everything since the snapshot."""
        self._indices(None)
        own = {name: array for name, array in state.arrays.items() if name in self._state}
        self._stream.check({name: array for name, array in state.arrays.items() if name not in own})
        super().restore(DecoderState(state.bin, state.frozen, own))
        self._stream.restore(state.arrays)
        self._stream.freeze(np.flatnonzero(state.frozen))


def _told(state: Mapping[str, Array], b: int) -> Told | None:
    """What a row was told last."""
    if state["told_ago"][b, 0] < 0:
        return None
    constraint_ago, return_ago = state["told_ago"][b].tolist()
    return Told(state["told_constraint"][b], int(state["told_return"][b]), constraint_ago, return_ago)


def _tell(state: dict[str, Array], b: int, told: Told) -> None:
    state["told_constraint"][b], state["told_return"][b] = told.constraint_3K, told.return_index
    state["told_ago"][b] = told.constraint_ago, told.return_ago
