"""A window before it becomes tokens, and when a stream is told of constraints and return."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def _no_behavior() -> NDArray[np.float32]:
    return np.zeros((0, 0), np.float32)


@dataclass(frozen=True, eq=False)
class Window:
    """Consecutive bins given to the model at once, before they become tokens.

    Args:
        counts: for each array, (N, C) integer counts.
        bin_ms: width of the bins.
        behavior: (N, K) normalised behavior, NaN where it is not known (always, live); (0, 0): no behavior tokens.
        known: (N,) or (N, K) bool, which values count in the loss (NaN never does); None = all.
        given: (N, K) bool, which values the model is shown; None = none.
        constraint: (N, 3, K) of (1 − brain control, active, passive assistance); None = absent, which the model reads
            as zeros.
        returns, rewards: (N,) int64 sum of rewards over the coming 10 s (−1: none), and reward of the bin (0 or 1);
            None = absent.
        present: (N,) bool, False where a bin was lost: it has no spike tokens.
        first_bin: number of the first bin.
    """

    counts: tuple[Array, ...]
    bin_ms: float = 20.0
    behavior: Array = field(default_factory=_no_behavior)
    known: Array | None = None
    given: Array | None = None
    constraint: Array | None = None
    returns: Array | None = None
    rewards: Array | None = None
    present: Array | None = None
    first_bin: int = 0

    @property
    def num_bins(self) -> int:
        """N."""
        return len(self.counts[0])

    @property
    def num_dims(self) -> int:
        """K."""
        return int(self.behavior.shape[1])


@dataclass(frozen=True, eq=False)
class Told:
    """What a stream was told last, and how many bins ago.

    Args:
        constraint_3K: the constraints.
        return_index: of the return, 0 = none.
        constraint_ago, return_ago: bins since; 1 = in the bin before the next.
    """

    constraint_3K: Array
    return_index: int
    constraint_ago: int
    return_ago: int


def events(window: Window, told: Told | None, refresh_bins: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(N,) each, whether constraints, and whether a return, are given in a bin.

    At the start of a stream, at a change, when a refresh is due; a return that is there, in every bin.
    """
    constraint_N3K, index_N = constraint_of(window), return_index(window)
    before_3K = constraint_N3K[0] if told is None else told.constraint_3K
    change_N = (np.diff(constraint_N3K, axis=0, prepend=before_3K[None]) != 0).any(axis=(1, 2))
    before = index_N[0] if told is None else told.return_index
    return_N = (np.diff(index_N, prepend=before) != 0) | (index_N > 0)
    if told is None:
        change_N[0] = return_N[0] = True
    if refresh_bins:
        _refresh(change_N, 0 if told is None else told.constraint_ago, refresh_bins)
        _refresh(return_N, 0 if told is None else told.return_ago, refresh_bins)
    return change_N, return_N


def told_after(window: Window, told: Told | None, refresh_bins: int) -> Told:
    """What a stream has been told after this window."""
    change_N, return_N = events(window, told, refresh_bins)
    before = (0, 0) if told is None else (told.constraint_ago, told.return_ago)
    return Told(
        constraint_of(window)[-1].copy(),
        int(return_index(window)[-1]),
        _ago(change_N, before[0]),
        _ago(return_N, before[1]),
    )


def constraint_of(window: Window) -> Array:
    """(N, 3, K) constraints; zeros where they are absent (K at least 1)."""
    if window.constraint is not None:
        return np.asarray(window.constraint, np.float32)
    return np.zeros((window.num_bins, 3, max(window.num_dims, 1)), np.float32)


def return_index(window: Window) -> NDArray[np.int64]:
    """(N,) index of the return, 0 = none."""
    if window.returns is None:
        return np.zeros(window.num_bins, np.int64)
    return np.asarray(window.returns, np.int64) + 1


def _refresh(event_N: NDArray[np.bool_], ago: int, every: int) -> None:
    """Add events so that no two are more than ``every`` bins apart; the last before bin 0 was ``ago`` bins earlier."""
    last = -ago
    for n in range(len(event_N)):
        event_N[n] |= n - last >= every
        last = n if event_N[n] else last


def _ago(event_N: NDArray[np.bool_], ago: int) -> int:
    """Bins from the last event to the bin after these."""
    at = np.flatnonzero(event_N)
    return len(event_N) - int(at[-1]) if len(at) else len(event_N) + ago
