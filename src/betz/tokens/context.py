"""What a session says of constraints and rewards, in its bins, as the tokeniser reads it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from betz.core.session import Session

HORIZON_S = 10.0
"""A return is the sum of the rewards of so many coming seconds."""


@dataclass(frozen=True, eq=False)
class TaskContext:
    """Constraints, rewards and returns of a session's bins; None where the session says nothing.

    Args:
        constraint_N3: float32 (1 − brain control, active, passive assistance).
        rewards_N: int64, 1 in a rewarded bin.
        returns_N: int64 sum of the rewards of this and the coming bins of 10 s.
    """

    constraint_N3: NDArray[np.float32] | None
    rewards_N: NDArray[np.int64] | None
    returns_N: NDArray[np.int64] | None

    @classmethod
    def of(cls, session: Session) -> TaskContext:
        """That of a whole session: take it before cutting windows, since a return looks ahead.

        A bin has what holds at its first tick. Rewards of any positive amount count as 1. A session with neither
        brain control nor assistance has no constraints, which the model reads as zeros: the reference does so with
        recordings of native movement.
        """
        start_N = session.grid.start_of(np.arange(session.num_bins))
        constraint_N3 = None
        if len(session.brain_control) or session.assistance:
            constraint_N3 = np.zeros((session.num_bins, 3), np.float32)
            constraint_N3[:, 0] = ~session.brain_control.contains(start_N)
            for part in session.assistance:
                inside_N = (start_N >= part.start) & (start_N < part.end)
                column = constraint_N3[:, 1 if part.kind == "active" else 2]
                column[inside_N] = np.maximum(column[inside_N], np.float32(part.level))
        if session.reward is None:
            return cls(constraint_N3, None, None)
        bins = session.grid.bin_of(session.reward[session.reward[:, 1] > 0, 0])
        rewards_N = np.zeros(session.num_bins, np.int64)
        rewards_N[bins[(bins >= 0) & (bins < session.num_bins)]] = 1
        return cls(constraint_N3, rewards_N, returns_of(rewards_N, session.bin_ms))


def returns_of(rewards_N: NDArray[np.int64], bin_ms: float, *, horizon_s: float = HORIZON_S) -> NDArray[np.int64]:
    """(N,) sum of the rewards of each bin and those that follow it, ``horizon_s`` in all.

    >>> returns_of(np.array([0, 1, 0, 1]), 1000.0, horizon_s=2).tolist()
    [1, 1, 1, 1]
    """
    bins = max(1, round(horizon_s * 1000 / bin_ms))
    total = np.concatenate(([0], np.cumsum(rewards_N)))
    stop_N = np.minimum(np.arange(len(rewards_N)) + bins, len(rewards_N))
    return np.asarray(total[stop_N] - total[:-1], np.int64)
