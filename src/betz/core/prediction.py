"""What a decoder returns, and the state of the guard that stands between it and the world."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class GuardState(Enum):
    """Whether an output can be trusted; sent to the sink with every prediction."""

    OK = "ok"


@dataclass(frozen=True, eq=False)
class Prediction:
    """Decoded behavior of B rows and N bins.

    Args:
        values: (B, N, K) behavior in the session's units; NaN where the row is frozen.
        spread: (B, N, K) standard deviation, where the decoder has one.
        bin: (B, N) int64 bin that each value is for, counted from the row's last reset.
        valid: (B, N) bool; False where the bin was lost, the row frozen, or the decoder's latency not yet over.
        text: decoded text a row (sequence heads only).
    """

    values: Array
    spread: Array | None
    bin: NDArray[np.int64]
    valid: NDArray[np.bool_]
    text: tuple[str, ...] | None = None
