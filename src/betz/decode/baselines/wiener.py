"""The Wiener filter: ridge regression on lagged signals, the decoder that every lab already has.

Lag span, exponential pre-filter and strength are chosen by blocked cross-validation inside the calibration, for each
group of dimensions with one unit (position, velocity, EMG …) together, so that a choice does not depend on the axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from betz.core.config import frozen_config, to_dict
from betz.core.errors import ConfigError
from betz.core.prediction import Array
from betz.core.session import BehaviorDim, Channel, Session
from betz.decode.closed_form import Segments, Statistics, blocks, lag_statistics, ridge, squared_error
from betz.decode.decoder import save_decoder
from betz.decode.features import Float, Scaler, decay, exponential
from betz.decode.labels import continuous_labels, groups
from betz.decode.streaming import StreamingDecoder

FINEST_LAG_MS = 40.0
"""With narrower bins, neighbouring bins share a weight: lags finer than this add parameters, not accuracy."""


@frozen_config
class Wiener:
    """Recipe of the Wiener filter.

    Args:
        span_ms: lag spans to choose from, milliseconds.
        lags: a fixed number of lags in bins instead (``span_ms`` is then not used).
        prefilter_ms: time constants of the causal exponential filter before the lags; 0 = none.
        strengths: ridge strengths to choose from, per bin of z-scored signals.
        validation: ``blocks`` = every contiguous fold is held out once; ``tail`` = the last one alone.
        folds: number of contiguous parts.
    """

    span_ms: tuple[float, ...] = (100, 200, 300, 500, 700, 1000)
    lags: int | None = None
    prefilter_ms: tuple[float, ...] = (0, 120, 240)
    strengths: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
    validation: Literal["blocks", "tail"] = "blocks"
    folds: int = 4

    decodes: ClassVar[tuple[str, ...]] = ("continuous",)

    def __post_init__(self) -> None:
        if not (self.span_ms and self.prefilter_ms and self.strengths) or self.folds < 2:
            raise ConfigError("every list needs an entry, and folds at least 2.", where="Wiener settings")
        if min(self.span_ms) <= 0 or min(self.prefilter_ms) < 0 or min(self.strengths) <= 0 or (self.lags or 1) < 1:
            raise ConfigError("spans, strengths and lags must be positive, pre-filters ≥ 0.", where="Wiener settings")

    @classmethod
    def floor(cls) -> Wiener:
        """Ten lags, no filter, strength from the last fifth: the plain Wiener filter that any decoder has to beat."""
        return cls(
            lags=10, prefilter_ms=(0,), strengths=(0.003, 0.01, 0.03, 0.1, 0.3, 1, 3), validation="tail", folds=5
        )

    def calibrate(
        self,
        session: Session,
        *,
        behavior: Sequence[str],
        budget_s: float | None = None,
        history: Any = None,
        seed: int = 0,
    ) -> WienerDecoder:
        """Fit to all usable, labelled bins of the session; takes a second or a few, whatever ``budget_s`` is.

        Args:
            session: labelled signals; take ``session.first(minutes=…)`` for less.
            behavior: names of continuous dimensions.
            budget_s, history, seed: not used by a closed form; part of every recipe.

        Raises:
            ConfigError: a dimension is discrete.
            DataError: too few labelled bins, a constant dimension, or no live channel.
        """
        dims = session.dims_of(list(behavior))
        y_NK, segments = continuous_labels(session, dims, recipe="Wiener")
        used = np.concatenate([np.arange(a, b) for a, b in segments])
        signals_NC = session.signals
        scaler = Scaler.fit(signals_NC[used] if len(used) < len(signals_NC) else signals_NC, session.channels)
        search = _Search(self, session.bin_ms, scaler.apply(signals_NC), y_NK, segments)
        filters = [search.best(columns) for columns in groups(dims)]
        return WienerDecoder(
            bin_ms=session.bin_ms,
            channels=session.channels,
            behavior=dims,
            scaler=scaler,
            filters=tuple(filters),
            report={
                "recipe": "wiener",
                "settings": to_dict(self),
                "session": session.id,
                "span": list(session.span),
                "minutes": round(session.minutes, 4),
                "labelled_bins": search.labelled,
            },
        )


@dataclass(frozen=True, eq=False)
class Filter:
    """One group's linear filter: exponential pre-filter, then taps.

    Args:
        tau_ms: time constant of the pre-filter; 0 = none.
        taps_TCK: weights at lags 0 … T − 1.
        intercept: (K,).
        spread: (K,) standard deviation of the cross-validated error.
        columns: which dimensions of the decoder these are.
        chosen: the settings that cross-validation preferred, and its R², for people to read.
    """

    tau_ms: float
    taps_TCK: Float
    intercept: Float
    spread: Float
    columns: tuple[int, ...]
    chosen: Mapping[str, float] = field(default_factory=dict)


class WienerDecoder(StreamingDecoder):
    """A calibrated Wiener filter; use :class:`Wiener` to make one."""

    kind: ClassVar[str] = "wiener"

    def __init__(
        self,
        *,
        bin_ms: float,
        channels: tuple[Channel, ...],
        behavior: tuple[BehaviorDim, ...],
        scaler: Scaler,
        filters: tuple[Filter, ...],
        report: Mapping[str, Any],
    ) -> None:
        """``report``: how it was calibrated, JSON values."""
        columns = sum(len(f.columns) for f in filters)
        super().__init__(bin_ms=bin_ms, channels=channels, behavior=behavior, columns=columns)
        self.scaler, self.filters, self.report = scaler, filters, dict(report)
        unbounded = any(f.tau_ms > 0 for f in filters)
        self.context_bins = None if unbounded else max(len(f.taps_TCK) for f in filters)
        # Correlation of the newest T bins, oldest first: reversed taps, (C·T, K) like a flattened window view.
        self._weights = [f.taps_TCK[::-1].transpose(1, 0, 2).reshape(-1, f.taps_TCK.shape[2]) for f in filters]
        self._spread = np.zeros(columns)
        for f in filters:
            self._spread[list(f.columns)] = f.spread

    def initial_state(self, rows: int) -> dict[str, Array]:
        """Per filter: its last value and its past inputs, all at the calibration mean."""
        state: dict[str, Array] = {}
        for i, f in enumerate(self.filters):
            state[f"level_{i}"] = np.zeros((rows, len(self.channels)))
            state[f"past_{i}"] = np.zeros((rows, len(f.taps_TCK) - 1, len(self.channels)))
        return state

    def advance(
        self, signals_BNC: Float, present_BN: NDArray[np.bool_], state: Mapping[str, Array]
    ) -> tuple[Array, Array | None, dict[str, Array]]:
        """Filter z-scores of the new bins, with the past ones before them."""
        z_BNC = self.scaler.apply(signals_BNC, present_BN)
        rows, bins, _ = z_BNC.shape
        values = np.empty((rows, bins, self._columns))
        after: dict[str, Array] = {}
        for i, (f, weights) in enumerate(zip(self.filters, self._weights, strict=True)):
            level_BNC = exponential(z_BNC, decay(f.tau_ms, self.bin_ms), state[f"level_{i}"])
            joined = np.concatenate((state[f"past_{i}"], level_BNC), axis=1)
            values[:, :, list(f.columns)] = _correlate(joined, weights, bins) + f.intercept
            after[f"level_{i}"] = level_BNC[:, -1].copy()
            after[f"past_{i}"] = joined[:, bins:].copy()
        return values, np.broadcast_to(self._spread, values.shape).copy(), after

    def save(self, folder: Path) -> None:
        """Write it as safetensors + JSON."""
        arrays: dict[str, Array] = {"mean": self.scaler.mean, "sd": self.scaler.sd}
        for i, f in enumerate(self.filters):
            arrays |= {f"taps_{i}": f.taps_TCK, f"intercept_{i}": f.intercept, f"spread_{i}": f.spread}
        filters = [{"tau_ms": f.tau_ms, "columns": list(f.columns), "chosen": dict(f.chosen)} for f in self.filters]
        config = {"filters": filters, "report": self.report}
        save_decoder(folder, kind=self.kind, decoder=self, config=config, arrays=arrays)

    @classmethod
    def from_saved(
        cls,
        *,
        bin_ms: float,
        channels: tuple[Channel, ...],
        behavior: tuple[BehaviorDim, ...],
        config: Mapping[str, Any],
        arrays: Mapping[str, Array],
    ) -> Self:
        """The decoder that :meth:`save` wrote; raises ValueError where arrays and lists disagree."""
        filters = tuple(
            Filter(
                float(f["tau_ms"]),
                arrays[f"taps_{i}"],
                arrays[f"intercept_{i}"],
                arrays[f"spread_{i}"],
                tuple(int(c) for c in f["columns"]),
                f["chosen"],
            )
            for i, f in enumerate(config["filters"])
        )
        columns = sum(max(len(d.classes), 1) for d in behavior)
        if sorted(c for f in filters for c in f.columns) != list(range(columns)):
            raise ValueError("the filters do not cover the behavior dimensions once each")
        if any(f.taps_TCK.shape[1:] != (len(channels), len(f.columns)) for f in filters):
            raise ValueError("the taps do not fit the channels and dimensions")
        if not arrays["mean"].shape == arrays["sd"].shape == (len(channels),):
            raise ValueError("the scaler does not fit the channels")
        scaler = Scaler(arrays["mean"], arrays["sd"])
        return cls(
            bin_ms=bin_ms, channels=channels, behavior=behavior, scaler=scaler, filters=filters, report=config["report"]
        )


def _correlate(joined: Float, weights: Float, bins: int, size: int = 512) -> Float:
    """(B, bins, K): each window of T bins times the weights, in pieces (a window view of a session is large)."""
    taps = joined.shape[1] - bins + 1
    view = sliding_window_view(joined, taps, axis=1)  # (B, bins, C, T)
    parts = [view[:, i : i + size].reshape(len(joined), -1, len(weights)) @ weights for i in range(0, bins, size)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


class _Search:
    """Blocked cross-validation of one calibration, every candidate evaluated once for all dimensions."""

    def __init__(self, recipe: Wiener, bin_ms: float, z_NC: Float, y_NK: Float, segments: Segments) -> None:
        self.recipe, self.bin_ms, self.z_NC, self.segments = recipe, bin_ms, z_NC, segments
        inside = np.isfinite(y_NK).all(axis=1)
        inside &= np.isin(np.arange(len(y_NK)), np.concatenate([np.arange(a, b) for a, b in segments]))
        self.labelled = int(inside.sum())
        self.center, self.scale = y_NK[inside].mean(axis=0), y_NK[inside].std(axis=0)
        self.y_NK = (y_NK - self.center) / self.scale
        self.parts = blocks(segments, recipe.folds)
        held_out = self.parts if recipe.validation == "blocks" else self.parts[-1:]
        bins = np.concatenate([np.arange(a, b) for part in held_out for a, b in part])
        variance = self.y_NK[bins[inside[bins]]].var(axis=0) if inside[bins].any() else np.ones(len(self.scale))
        self.variance = np.where(variance > 0, variance, 1.0)  # of what is held out, so that a choice is one of R²
        self.stride = 1 if recipe.lags else max(1, round(FINEST_LAG_MS / bin_ms))
        if recipe.lags:
            self.spans: tuple[int, ...] = (recipe.lags,)
        else:
            step = bin_ms * self.stride
            self.spans = tuple(sorted({max(1, round(span / step)) for span in recipe.span_ms}))
        self._folds: dict[float, list[Statistics]] = {}
        self._errors: dict[tuple[float, int, float], Float] = {}

    def best(self, columns: tuple[int, ...]) -> Filter:
        """The filter of one group: strength at a middle span, then span and pre-filter, then strength again."""
        recipe = self.recipe

        def score(tau: float, span: int, strength: float) -> float:
            return float((self.error(tau, span, strength) / self.variance)[list(columns)].mean())

        tau, span = recipe.prefilter_ms[0], self.spans[len(self.spans) // 2]
        strength = min(recipe.strengths, key=lambda s: score(tau, span, s))
        pairs = [(t, n) for t in recipe.prefilter_ms for n in self.spans]
        tau, span = min(pairs, key=lambda pair: score(pair[0], pair[1], strength))
        strength = _climb(recipe.strengths, strength, lambda s: score(tau, span, s))
        error = self.error(tau, span, strength)[list(columns)]
        stats = self.statistics(tau, self.segments, span)
        weights, intercept = ridge(stats, strength)
        channels, chosen = self.z_NC.shape[1], list(columns)
        pooled = weights.reshape(span, channels, -1)[:, :, chosen] * self.scale[chosen]
        return Filter(
            tau_ms=float(tau),
            taps_TCK=np.repeat(pooled, self.stride, axis=0) / self.stride,
            intercept=intercept[chosen] * self.scale[chosen] + self.center[chosen],
            spread=np.sqrt(np.maximum(error, 0)) * self.scale[chosen],
            columns=columns,
            chosen={
                "span_ms": span * self.stride * self.bin_ms,
                "prefilter_ms": float(tau),
                "strength": float(strength),
                "cv_r2": float(1 - (error / self.variance[chosen]).mean()),
            },
        )

    def error(self, tau: float, span: int, strength: float) -> Float:
        """(K,) mean squared error on the held-out folds in units of each dimension's variance."""
        key = (tau, span, strength)
        if key not in self._errors:
            if tau not in self._folds:
                parts = [self.statistics(tau, part, self.spans[-1]) for part in self.parts]
                self._folds[tau] = [sum(parts[1:], parts[0]), *parts]
            total, *folds = (part.first(span * self.z_NC.shape[1]) for part in self._folds[tau])
            held_out = folds if self.recipe.validation == "blocks" else folds[-1:]
            error, number = np.zeros(len(self.scale)), 0
            for fold in held_out:
                if 0 < fold.number < total.number:
                    error += squared_error(fold, *ridge(total - fold, strength))
                    number += fold.number
            self._errors[key] = error / number
        return self._errors[key]

    def statistics(self, tau: float, segments: Segments, lags: int) -> Statistics:
        """Statistics of the pre-filtered signals, neighbouring bins averaged where bins are narrow."""
        level_NC = levels(self.z_NC, segments, keep=decay(tau, self.bin_ms), width=self.stride)
        return lag_statistics(level_NC, self.y_NK, segments, lags=lags, stride=self.stride)


def _climb(values: Sequence[float], start: float, cost: Callable[[float], float]) -> float:
    """From ``start`` to the neighbour in the ordered values that costs less, until none does."""
    ordered = sorted(values)
    at = ordered.index(start)
    while True:
        near = [i for i in (at - 1, at + 1) if 0 <= i < len(ordered)]
        better = min(near, key=lambda i: cost(ordered[i]), default=at)
        if cost(ordered[better]) >= cost(ordered[at]):
            return ordered[at]
        at = better


def levels(z_NC: Float, segments: Segments, *, keep: float, width: int) -> Float:
    """(N, C) exponentially filtered signals, then the mean of the last ``width`` bins, anew in each segment; 0 outside.

    Args:
        z_NC: z-scored signals.
        segments: (first bin, end bin) stretches.
        keep: of the filter, see :func:`~betz.decode.features.decay`.
        width: bins that share a weight.
    """
    level_NC = np.zeros_like(z_NC)
    start_BC = np.zeros((1, z_NC.shape[1]))
    for start, stop in segments:
        part = exponential(z_NC[None, start:stop], keep, start_BC)[0]
        level_NC[start:stop] = _moving_mean(part, width)
    return level_NC


def _moving_mean(x_NC: Float, width: int) -> Float:
    """Mean of the last ``width`` bins, earlier ones being 0."""
    total = x_NC.copy()
    for back in range(1, min(width, len(x_NC))):
        total[back:] += x_NC[:-back]
    return total / width if width > 1 else total
