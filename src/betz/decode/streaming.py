"""The streaming half of every decoder: rows, time, lost bins, freezing, snapshots; written once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import StreamError
from betz.core.prediction import Array, Prediction
from betz.core.session import BehaviorDim, Channel
from betz.decode.decoder import DecoderState


class StreamingDecoder(ABC):
    """A :class:`~betz.decode.decoder.Decoder` whose subclass only says how state and signals become values.

    A subclass gives :meth:`initial_state`, :meth:`advance`, and ``save``. Padding (lost bins, frozen rows)
    reaches it as zeros with ``present`` False, so nothing in it can leak.
    """

    latency_bins: int = 0
    context_bins: int | None = None

    def __init__(
        self, *, bin_ms: float, channels: tuple[Channel, ...], behavior: tuple[BehaviorDim, ...], columns: int
    ) -> None:
        """``columns``: K, columns of the prediction (one a continuous dimension, one a class of a discrete one)."""
        self.bin_ms, self.channels, self.behavior, self._columns = bin_ms, channels, behavior, columns
        self._rows, self._max_push = 0, 0

    @abstractmethod
    def initial_state(self, rows: int) -> dict[str, Array]:
        """State arrays (B, …) of fresh rows."""

    @abstractmethod
    def advance(
        self, signals_BNC: NDArray[np.float64], present_BN: NDArray[np.bool_], state: Mapping[str, Array]
    ) -> tuple[Array, Array | None, dict[str, Array]]:
        """Values (B, N, K), their spread or None, and the new state; ``state`` is not changed."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write it as safetensors + JSON."""

    def open(self, rows: int = 1, *, max_push_bins: int = 1) -> None:
        """Start ``rows`` independent streams that take at most ``max_push_bins`` bins a push."""
        if rows < 1 or max_push_bins < 1:
            raise StreamError(f"cannot open {rows} rows with pushes of {max_push_bins} bins.", remedy="both at least 1")
        self._rows, self._max_push = int(rows), int(max_push_bins)
        self._bin = np.zeros(rows, dtype=np.int64)
        self._frozen = np.zeros(rows, dtype=bool)
        self._state = self.initial_state(rows)

    def push(self, signals: Array, present: Array | None = None) -> Prediction:
        """Decode the next bins.

        Args:
            signals: (B, N, C), or (C,) when one row is open.
            present: (B, N) bool, False where a bin was lost; its signals are not looked at.

        Returns:
            Values (B, N, K), also for a push of (C,).

        Raises:
            StreamError: not open, wrong shape or type, too many bins, or values that are not finite in a bin
                that is present. The stream is as before.
        """
        signals_BNC, present_BN = self._checked(signals, present)
        bins = signals_BNC.shape[1]
        before = self._state
        values, spread, after = self.advance(signals_BNC, present_BN & ~self._frozen[:, None], before)
        live = ~self._frozen
        bin_BN = self._bin[:, None] + np.arange(bins) - self.latency_bins
        if live.all():
            self._state = after
            self._bin = self._bin + bins
            return Prediction(values, spread, bin_BN, present_BN & (bin_BN >= 0))
        for name, array in after.items():
            array[self._frozen] = before[name][self._frozen]
        self._state = after
        self._bin = self._bin + bins * live
        values[self._frozen] = np.nan
        if spread is not None:
            spread[self._frozen] = np.nan
        bin_BN[self._frozen] = self._bin[self._frozen, None]
        return Prediction(values, spread, bin_BN, present_BN & live[:, None] & (bin_BN >= 0))

    def _checked(self, signals: Array, present: Array | None) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        if not self._rows:
            raise StreamError("the decoder is not open.", remedy="call open(rows=…) before the first push")
        array = np.asarray(signals)
        if array.dtype.kind not in "buif":
            raise StreamError(f"signals are {array.dtype}, not numbers.", remedy="push counts or power as numbers")
        if array.ndim == 1 and self._rows == 1:
            array = array[None, None]
        want = (self._rows, "N", len(self.channels))
        if array.ndim != 3 or array.shape[0] != self._rows or array.shape[2] != len(self.channels):
            raise StreamError(
                f"signals are {np.shape(signals)}, expected {want}.",
                remedy="one row a stream, one column a channel in the order of decoder.channels",
            )
        if not 1 <= array.shape[1] <= self._max_push:
            raise StreamError(
                f"a push of {array.shape[1]} bins exceeds the {self._max_push} this stream was opened for.",
                remedy=f"open(max_push_bins={array.shape[1]}) or push fewer bins",
            )
        if present is None:
            there_BN = np.ones(array.shape[:2], dtype=bool)
        else:
            there_BN = np.asarray(present)
            if there_BN.dtype != np.bool_:
                raise StreamError(f"present is {there_BN.dtype}, not bool.")
            if there_BN.size == self._rows * array.shape[1]:
                there_BN = there_BN.reshape(array.shape[:2])
            if there_BN.shape != array.shape[:2]:
                raise StreamError(f"present is {there_BN.shape}, expected {array.shape[:2]}.")
        used_BN = there_BN & ~self._frozen[:, None]
        signals_BNC = array.astype(np.float64)
        if not used_BN.all():
            signals_BNC[~used_BN] = 0.0
        if not np.isfinite(signals_BNC).all():
            row, bin_, channel = np.argwhere(~np.isfinite(signals_BNC))[0]
            raise StreamError(
                "signals have NaN or infinity in a bin that is marked as present.",
                where=f"row {row}, bin {self._bin[row] + bin_}, channel {self.channels[channel].id!r}",
                remedy="mark lost bins with present=False",
            )
        return signals_BNC, there_BN

    def reset(self, rows: Array | None = None) -> None:
        """Start the rows (int64 indices; None = all) anew."""
        which = self._indices(rows)
        fresh = self.initial_state(len(which))
        self._state = {name: array.copy() for name, array in self._state.items()}
        for name, array in fresh.items():
            self._state[name][which] = array
        self._bin = self._bin.copy()
        self._bin[which] = 0

    def freeze(self, rows: Array) -> None:
        """Freeze exactly these rows from now on; an empty array thaws all."""
        frozen = np.zeros(self._rows, dtype=bool)
        frozen[self._indices(rows)] = True
        self._frozen = frozen

    def snapshot(self) -> DecoderState:
        """A copy of the state of all rows."""
        self._indices(None)
        arrays = {name: array.copy() for name, array in self._state.items()}
        return DecoderState(self._bin.copy(), self._frozen.copy(), arrays)

    def restore(self, state: DecoderState) -> None:
        """Undo everything since the snapshot."""
        self._indices(None)
        if state.bin.shape != (self._rows,) or set(state.arrays) != set(self._state):
            raise StreamError(
                f"the snapshot holds {len(state.bin)} rows of {sorted(state.arrays)}, this stream {self._rows} rows.",
                remedy="restore a snapshot of this decoder with as many rows",
            )
        self._bin, self._frozen = state.bin.copy(), state.frozen.copy()
        self._state = {name: array.copy() for name, array in state.arrays.items()}

    def _indices(self, rows: Any) -> NDArray[np.int64]:
        if not self._rows:
            raise StreamError("the decoder is not open.", remedy="call open(rows=…) first")
        if rows is None:
            return np.arange(self._rows, dtype=np.int64)
        which = np.asarray(rows)
        if which.size == 0:
            return np.empty(0, np.int64)
        if which.dtype.kind not in "iu" or which.ndim != 1 or which.min() < 0 or which.max() >= self._rows:
            raise StreamError(
                f"rows {rows!r} are not indices of the {self._rows} open rows.", remedy="give int64 indices from 0"
            )
        return which.astype(np.int64)
