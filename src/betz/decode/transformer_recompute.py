"""The Transformer streamed by computing the window that ends with each bin anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from betz.core.prediction import Array
from betz.decode.transformer import TransformerDecoder
from betz.tokens.batch import collate
from betz.tokens.window import Window

PIECE_TOKENS = 16384
"""Windows go through the model together as long as they have no more tokens than this."""


class RecomputeDecoder(TransformerDecoder):
    """Bins before the window count for nothing, as for a model that was trained on cut windows."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.context_bins = self.config.window

    def initial_state(self, rows: int) -> dict[str, Array]:
        """The last W − 1 bins, of which ``held`` are there, and what the rows have written."""
        past = (rows, self.config.window - 1)
        return {
            "held": np.zeros(rows, np.int64),
            "counts": np.zeros((*past, sum(map(len, self._arrays))), np.uint8),
            "present": np.zeros(past, bool),
            "constraint": np.zeros((*past, 3), np.float32),
            "returns": np.full(past, -1, np.int64),
            "rewards": np.zeros(past, np.int64),
            **self._texts(rows),
        }

    def advance(
        self, signals_BNC: NDArray[np.float64], present_BN: NDArray[np.bool_], state: Mapping[str, Array]
    ) -> tuple[Array, None, dict[str, Array]]:
        """One window for each new bin of each row that is not frozen."""
        counts_BNC = self._counts(signals_BNC)
        B, N, _ = counts_BNC.shape
        now = {name: np.repeat(array[None], B, axis=0) for name, array in self._now(N).items()}
        new = {
            "counts": counts_BNC,
            "present": present_BN,
            "constraint": now["constraint_N3"],
            "returns": now["returns_N"],
            "rewards": now["rewards_N"],
        }
        joined = {name: np.concatenate((state[name], array), axis=1) for name, array in new.items()}
        live: list[int] = np.flatnonzero(~self._frozen).tolist()
        windows = [self._ending(joined, b, n, int(state["held"][b])) for b in live for n in range(N)]
        said, scores = self._all(windows)
        values = np.full((B, N, self._columns), np.nan)
        values[live] = said.reshape(len(live), N, -1)
        after = {name: array[:, N:].copy() for name, array in joined.items()}
        after["held"] = np.minimum(state["held"] + N, self.config.window - 1)
        if self._alphabet is not None:
            after["text"] = state["text"].copy()
        if scores is not None:
            after["text"] = self._write(state["text"], live, scores.reshape(len(live), N, -1), present_BN)
        return values, None, after

    def _ending(self, joined: Mapping[str, Array], b: int, n: int, held: int) -> Window:
        """The window of a row that ends with the n-th new bin."""
        past = self.config.window - 1
        part = slice(max(n, past - held), past + n + 1)
        return self._window(
            joined["counts"][b, part],
            joined["present"][b, part],
            first_bin=0,
            constraint_N3=joined["constraint"][b, part],
            returns_N=joined["returns"][b, part],
            rewards_N=joined["rewards"][b, part],
        )

    def _all(self, windows: list[Window]) -> tuple[Array, Array | None]:
        """(M, columns) values and (M, V) scores of the last bin of each window."""
        values, scores = [np.zeros((0, self._columns))], []
        rows = [self.tokenizer.row(window) for window in windows]
        size = max(1, PIECE_TOKENS // max((len(row) for row in rows), default=1))
        for at in range(0, len(rows), size):
            batch = collate(rows[at : at + size], padding=self.config.positions)
            with torch.inference_mode():
                output = self.model(batch, heads=self._heads)
            said, scored = self._values(output, [w.num_bins for w in windows[at : at + size]], 1)
            values.append(said[:, 0])
            if scored is not None:
                scores.append(scored[:, 0])
        return np.concatenate(values), np.concatenate(scores) if scores else None
