"""What the gate mixes: each member's part of the stream, and its predictions of held-out blocks of the calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from betz.core.prediction import Array
from betz.core.session import BehaviorDim, Session
from betz.decode.bank import BankFit, Blocks
from betz.decode.closed_form import Lagged, Statistics, blocks, lag_statistics, ridge, squared_error
from betz.decode.features import Scaler
from betz.decode.filterbank import FilterBank, stride_of
from betz.decode.labels import groups
from betz.decode.profiles import channel_statistics

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

ATOMS_A_FOLD = 6
RIDGE_SPAN_MS = 600.0
RIDGE_STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


class Part(Protocol):
    """Members on a stream: values (B, N, M, K) from signals and a state."""

    members: int

    def initial_state(self, rows: int) -> dict[str, Array]:
        """State arrays (B, …) of fresh rows."""
        ...

    def advance(
        self,
        signals_BNC: Array,
        present_BN: NDArray[np.bool_],
        dead_BNC: NDArray[np.bool_],
        state: Mapping[str, Array],
    ) -> tuple[Array, dict[str, Array]]:
        """Values (B, N, M, K) and the state after; dead channels are read as at rest."""
        ...


def fold_count(minutes: float) -> int:
    """Held-out blocks: four, or three where blocks would be very short or calibration is long anyway."""
    return 3 if minutes < 1 or minutes >= 5 else 4


@dataclass(frozen=True, eq=False)
class Calibration:
    """A calibration session made ready: behavior, folds, features, shared by all members.

    Args:
        session: the calibration.
        dims: the K dimensions.
        y_NK: behavior; NaN = not known.
        folds: number of held-out blocks.
        seed: of members with random parts.
    """

    session: Session
    dims: tuple[BehaviorDim, ...]
    y_NK: Float
    folds: int
    seed: int

    @cached_property
    def groups(self) -> list[tuple[int, ...]]:
        """Columns of each group of dimensions."""
        return groups(self.dims)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """(K,) where each column is among the columns of all groups in a row."""
        return np.argsort(np.concatenate([np.array(g) for g in self.groups])).astype(np.int64)

    @cached_property
    def parts(self) -> list[list[tuple[int, int]]]:
        """Bins of each fold."""
        return blocks(self.session.segments, self.folds)

    @cached_property
    def fold_N(self) -> NDArray[np.int64]:
        """(N,) fold of each bin; −1 outside of the segments."""
        out = np.full(self.session.num_bins, -1)
        for k, part in enumerate(self.parts):
            for a, b in part:
                out[a:b] = k
        return out

    @cached_property
    def labelled_N(self) -> NDArray[np.bool_]:
        """(N,) bins with every label, inside the segments."""
        return np.asarray((self.fold_N >= 0) & np.isfinite(self.y_NK).all(axis=1))

    @cached_property
    def bank(self) -> FilterBank:
        """Filters, scaled on all bins."""
        s = self.session
        return FilterBank.fit(s.signals, s.segments, s.channels, s.bin_ms)

    @cached_property
    def features(self) -> Float32:
        """(N, F) z-scored features."""
        return self.bank.features(self.session.signals, self.session.segments)

    @cached_property
    def statistics(self) -> Float32:
        """(C, 3) numbers of the channels."""
        s = self.session
        return channel_statistics(s.signals, s.segments, s.channels, s.bin_ms)

    def fits(self, history: Mapping[int, Float32] | None) -> tuple[Blocks, list[BankFit], list[list[BankFit]]]:
        """The sums, closed-form fits on everything, and without each fold."""
        sums = Blocks(
            self.features,
            self.y_NK,
            self.groups,
            self.session.segments,
            bin_s=self.session.bin_ms / 1000,
            atoms=ATOMS_A_FOLD * self.folds,
            history=history,
        )
        atoms = np.arange(sums.atoms)
        return sums, sums.fit(), [sums.fit(atoms[atoms // ATOMS_A_FOLD != k]) for k in range(self.folds)]


class RidgePart:
    """Ridge on raw lags, one member; the plain filter that the mix must not be worse than.

    Args:
        scaler: of the signals.
        taps_TCK, intercept: weights at each lag, (K,).
        stride: bins from one lag to the next.
    """

    members = 1

    def __init__(self, scaler: Scaler, taps_TCK: Float, intercept: Float, stride: int) -> None:
        self.scaler, self.taps, self.intercept, self.stride = scaler, taps_TCK, intercept, stride
        self._flat = taps_TCK.reshape(-1, taps_TCK.shape[2])

    def initial_state(self, rows: int) -> dict[str, Array]:
        """The bins before, at the calibration mean."""
        lags, channels, _ = self.taps.shape
        return {"past": np.zeros((rows, lags * self.stride - 1, channels))}

    def advance(
        self,
        signals_BNC: Array,
        present_BN: NDArray[np.bool_],
        dead_BNC: NDArray[np.bool_],
        state: Mapping[str, Array],
    ) -> tuple[Array, dict[str, Array]]:
        """Values (B, N, 1, K)."""
        z_BNC = self.scaler.apply(signals_BNC, present_BN)
        z_BNC[dead_BNC] = 0
        joined = np.concatenate((state["past"], z_BNC), axis=1)
        bins = z_BNC.shape[1]
        level = joined if self.stride == 1 else _boxcar(joined, self.stride)
        reach = (len(self.taps) - 1) * self.stride
        if bins == 1:  # a live push: one product
            values = level[:, :: -self.stride].reshape(len(level), 1, -1) @ self._flat
        else:
            values = np.zeros((*z_BNC.shape[:2], self.taps.shape[2]))
            for lag in range(len(self.taps)):
                at = reach - lag * self.stride
                values += level[:, at : at + bins] @ self.taps[lag]
        return (values + self.intercept)[:, :, None], {"past": joined[:, bins:].copy()}


def _boxcar(joined_BNC: Float, width: int) -> Float:
    """Means over ``width`` bins that end with a bin, from the first one that has them all."""
    total = np.cumsum(np.pad(joined_BNC, ((0, 0), (1, 0), (0, 0))), axis=1)
    return np.asarray((total[:, width:] - total[:, :-width]) / width)


def ridge_member(c: Calibration) -> tuple[RidgePart, Float]:
    """The part, and (N, K) predictions of held-out bins; one strength a group, chosen by the same folds."""
    from betz.decode.baselines.wiener import levels

    signals, stride = c.session.signals, stride_of(c.session.bin_ms)
    scaler = Scaler.fit(signals[c.fold_N >= 0], c.session.channels)
    z_NC = scaler.apply(signals)
    center, scale = c.y_NK[c.labelled_N].mean(axis=0), c.y_NK[c.labelled_N].std(axis=0)
    y_NK = (c.y_NK - center) / scale
    lags = max(1, round(RIDGE_SPAN_MS / (stride * c.session.bin_ms)))
    level = levels(z_NC, c.session.segments, keep=0.0, width=stride)

    def statistics(part: Sequence[tuple[int, int]]) -> Statistics:
        return lag_statistics(level, y_NK, part, lags=lags, stride=stride)

    folds = [statistics(part) for part in c.parts]
    total = sum(folds[1:], folds[0])
    number = len(c.dims)
    error = np.zeros((len(RIDGE_STRENGTHS), number))
    solved: list[list[tuple[Float, Float]]] = []
    for j, strength in enumerate(RIDGE_STRENGTHS):
        solved.append([ridge(total - f, strength) for f in folds])
        for f, (w, b) in zip(folds, solved[-1], strict=True):
            error[j] += squared_error(f, w, b)
    best = np.zeros(number, dtype=int)
    for group in c.groups:
        best[list(group)] = int(error[:, list(group)].sum(axis=1).argmin())
    lagged = Lagged(level, c.session.segments, stride)
    held_out = np.full((c.session.num_bins, number), np.nan)
    for k in range(c.folds):
        rows = np.flatnonzero(c.fold_N == k)
        x = np.concatenate([lagged.at(lag, rows) for lag in range(lags)], axis=1)
        for j in np.unique(best):
            at = np.flatnonzero(best == j)
            w, b = solved[j][k]
            held_out[np.ix_(rows, at)] = x @ w[:, at] + b[at]
    weights, intercept = np.empty((lags * level.shape[1], number)), np.empty(number)
    for j in np.unique(best):
        at = best == j
        w, b = ridge(total, RIDGE_STRENGTHS[j])
        weights[:, at], intercept[at] = w[:, at], b[at]
    taps = weights.reshape(lags, level.shape[1], number) * scale
    part = RidgePart(scaler, taps, intercept * scale + center, stride)
    return part, held_out * scale + center


def mean_member(c: Calibration) -> tuple[Float, Float]:
    """(K,) the calibration's mean, and (N, K) the mean without each fold."""
    held_out = np.full(c.y_NK.shape, np.nan)
    for k in range(c.folds):
        rest = c.labelled_N & (c.fold_N != k)
        held_out[c.fold_N == k] = c.y_NK[rest].mean(axis=0)
    return c.y_NK[c.labelled_N].mean(axis=0), held_out
