"""Tokens of one window, and of many: padded rows, one window a row, or several packed into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import ConfigError

Array = NDArray[Any]
SPIKES, BEHAVIOR, CONSTRAINT, RETURN, PADDING = 0, 1, 2, 3, 4
"""Kinds of tokens."""
SLOTS = ("spike_slot_SL", "behavior_slot_M", "constraint_slot_Q", "return_slot_R")


@dataclass(frozen=True, eq=False)
class TokenRow:
    """The tokens of one window, sorted by bin and position id; what a slot array holds are places in this order.

    Args:
        bin_T: int64; position_T: int64 position id; kind_T: uint8; bin_ms: width of the bins.
        counts_SP: uint8 counts of S groups of P channels; channels_S: how many of the P are real.
        spike_slot_SL: the L tokens of each group (one of a patch).
        behavior_M: float32 value of each behavior token; known_M: whether it counts in the loss; given_M: whether the
            model is shown it.
        constraint_Q3: float32 (1 − brain control, active, passive assistance).
        return_R, reward_R: int64 indices, 0 = none.
    """

    bin_T: NDArray[np.int64]
    position_T: NDArray[np.int64]
    kind_T: NDArray[np.uint8]
    bin_ms: float
    counts_SP: NDArray[np.uint8]
    channels_S: NDArray[np.int64]
    spike_slot_SL: NDArray[np.int64]
    behavior_M: NDArray[np.float32]
    known_M: NDArray[np.bool_]
    given_M: NDArray[np.bool_]
    behavior_slot_M: NDArray[np.int64]
    constraint_Q3: NDArray[np.float32]
    constraint_slot_Q: NDArray[np.int64]
    return_R: NDArray[np.int64]
    reward_R: NDArray[np.int64]
    return_slot_R: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.bin_T)

    def part(self, start: int, stop: int) -> TokenRow:
        """Tokens [start, stop) of the row; the tokens of a group of spikes must not be cut apart."""
        found: dict[str, Any] = {name: getattr(self, name)[start:stop] for name in ("bin_T", "position_T", "kind_T")}
        for slots, payload in _PAYLOADS.items():
            slot = getattr(self, slots)
            inside = (slot >= start) & (slot < stop)
            inside = inside if inside.ndim == 1 else inside.all(axis=1)
            found |= {name: getattr(self, name)[inside] for name in payload}
            found[slots] = slot[inside] - start
        return TokenRow(bin_ms=self.bin_ms, **found)


_PAYLOADS: dict[str, tuple[str, ...]] = {
    "spike_slot_SL": ("counts_SP", "channels_S"),
    "behavior_slot_M": ("behavior_M", "known_M", "given_M"),
    "constraint_slot_Q": ("constraint_Q3",),
    "return_slot_R": ("return_R", "reward_R"),
}


@dataclass(frozen=True)
class Document:
    """Where the tokens of one window lie in a batch.

    Args:
        window: its place among the windows that were given.
        row, start, stop: its row, and slots [start, stop).
        first_bin, num_bins: its bins.
        most_tokens: tokens of its busiest bin.
    """

    window: int
    row: int
    start: int
    stop: int
    first_bin: int
    num_bins: int
    most_tokens: int


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Rows of tokens, padded at their ends; slot arrays hold places in the flattened (B · T).

    Arrays are numpy as they come from the tokeniser; the model moves them to its device
    (:func:`betz.model.transformer.on_device`). Names and meanings are those of :class:`TokenRow`.

    Args:
        real_BT: False in padding.
        bin_ms_BT: float64 width of the token's bin, 0 in padding.
        documents: one for each window, in the order of rows and slots, which is that of the payloads.
    """

    bin_BT: Any
    position_BT: Any
    kind_BT: Any
    real_BT: Any
    bin_ms_BT: Any
    counts_SP: Any
    channels_S: Any
    spike_slot_SL: Any
    behavior_M: Any
    known_M: Any
    given_M: Any
    behavior_slot_M: Any
    constraint_Q3: Any
    constraint_slot_Q: Any
    return_R: Any
    reward_R: Any
    return_slot_R: Any
    documents: tuple[Document, ...]

    @property
    def packed(self) -> bool:
        """Whether a row holds more than one window."""
        return len(self.documents) > len(self.bin_BT)

    @property
    def num_tokens(self) -> int:
        """Real tokens."""
        return sum(d.stop - d.start for d in self.documents)


def collate(rows: Sequence[TokenRow], *, padding: int) -> TokenBatch:
    """One window a row, padded to the longest.

    Args:
        rows: at least one.
        padding: position id of padding.
    """
    return _assemble([[i] for i in range(len(rows))], rows, padding)


def pack(rows: Sequence[TokenRow], *, budget: int, padding: int) -> TokenBatch:
    """Windows of different lengths side by side in rows of at most ``budget`` tokens, the longest first.

    The model keeps them apart: attention and the shift by one stay inside a window.

    Args:
        rows: at least one.
        budget: tokens a row.
        padding: position id of padding.

    Raises:
        ConfigError: a window alone exceeds the budget.
    """
    longest = max(len(row) for row in rows)
    if longest > budget:
        raise ConfigError(
            f"a window has {longest} tokens, more than the budget of {budget}.",
            where="packing",
            remedy="use shorter windows or a larger token budget",
        )
    groups: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: (-len(rows[i]), i)):
        at = next((g for g, left in enumerate(room) if left >= len(rows[i])), len(groups))
        if at == len(groups):
            groups.append([])
            room.append(budget)
        groups[at].append(i)
        room[at] -= len(rows[i])
    return _assemble(groups, rows, padding)


def _assemble(groups: list[list[int]], rows: Sequence[TokenRow], padding: int) -> TokenBatch:
    """Rows of the batch from groups of windows; payloads follow the groups' order."""
    width = max(sum(len(rows[i]) for i in group) for group in groups)
    shape = (len(groups), width)
    bin_BT, position_BT = np.zeros(shape, np.int64), np.full(shape, padding, np.int64)
    kind_BT, bin_ms_BT = np.full(shape, PADDING, np.uint8), np.zeros(shape)
    parts: dict[str, list[Array]] = {name: [] for names in _PAYLOADS.values() for name in names}
    parts |= {name: [] for name in SLOTS}
    documents: list[Document] = []
    for b, group in enumerate(groups):
        at = 0
        for i in group:
            row, place = rows[i], slice(at, at + len(rows[i]))
            bin_BT[b, place], position_BT[b, place], kind_BT[b, place] = row.bin_T, row.position_T, row.kind_T
            bin_ms_BT[b, place] = row.bin_ms
            documents.append(_document(row, i, b, at))
            for name, part in parts.items():
                value = getattr(row, name)
                part.append(value + (b * width + at) if name in SLOTS else value)
            at += len(row)
    _widen(parts)
    payload = {name: np.concatenate(part) for name, part in parts.items()}
    real_BT = kind_BT != PADDING
    return TokenBatch(bin_BT, position_BT, kind_BT, real_BT, bin_ms_BT, documents=tuple(documents), **payload)


def _document(row: TokenRow, i: int, b: int, at: int) -> Document:
    if not len(row):
        return Document(i, b, at, at, 0, 0, 0)
    first, last = int(row.bin_T[0]), int(row.bin_T[-1])
    most = int(np.unique(row.bin_T, return_counts=True)[1].max())
    return Document(i, b, at, at + len(row), first, last - first + 1, most)


def _widen(parts: dict[str, list[Array]]) -> None:
    """Groups of fewer channels become as wide as the widest; the new channels are not real."""
    wide = max(part.shape[1] for part in parts["counts_SP"])
    parts["counts_SP"] = [np.pad(part, ((0, 0), (0, wide - part.shape[1]))) for part in parts["counts_SP"]]


FIELDS = tuple(f.name for f in fields(TokenBatch) if f.name != "documents")
"""Names of the arrays of a batch."""
