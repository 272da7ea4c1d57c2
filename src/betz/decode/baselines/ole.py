"""The optimal linear estimator: how each channel's rate encodes behavior, inverted with the channels' noise.

Salinas and Abbott (1994), Journal of Computational Neuroscience 1, 89–107, after the population vector of
Georgopoulos, Schwartz and Kettner (1986), Science 233, 1416–1419. In online work with monkeys and people, rates are
smoothed by a causal exponential filter of some hundred milliseconds and the inverse is the unbiased one (Kass, Ventura
and Brown 2005, J Neurophysiol 94, 8–25; Koyama et al. 2010, J Comput Neurosci 29, 73–87; Collinger et al. 2013,
Lancet 381, 557–564).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, Literal

import numpy as np

from betz.core.config import frozen_config, to_dict
from betz.core.errors import ConfigError, DataError
from betz.core.session import Session
from betz.decode.baselines.wiener import Filter, WienerDecoder, levels
from betz.decode.closed_form import Segments, blocks
from betz.decode.features import Float, Scaler, decay
from betz.decode.labels import continuous_labels, groups, inside
from betz.decode.state_space import shrunk


@frozen_config
class OLE:
    """Recipe of the optimal linear estimator.

    Args:
        smoothing_ms: time constants of the causal exponential filter of the rates, to choose from; 0 = none.
        ridge: strengths of the ridge in the encoding model, per bin of z-scored behavior, to choose from.
        shrink: shares of the noise covariance's diagonal, to choose from; 1 = channels are taken as independent.
        inverse: ``optimal``: least mean squared error over behavior as in the calibration (Salinas and Abbott);
            ``unbiased``: weighted least squares, whose mean is the true behavior whatever it is (the online work).
        folds: number of contiguous parts of the cross-validation.
    """

    smoothing_ms: tuple[float, ...] = (60, 120, 240, 450)
    ridge: tuple[float, ...] = (0.01, 0.1)
    shrink: tuple[float, ...] = (0.03, 0.1, 0.3, 1)
    inverse: Literal["optimal", "unbiased"] = "optimal"
    folds: int = 4

    decodes: ClassVar[tuple[str, ...]] = ("continuous",)

    def __post_init__(self) -> None:
        if not (self.smoothing_ms and self.ridge and self.shrink) or self.folds < 2:
            raise ConfigError("every list needs an entry, and folds at least 2.", where="OLE settings")
        if min(self.smoothing_ms) < 0 or min(self.ridge) < 0 or not 0 <= min(self.shrink) <= max(self.shrink) <= 1:
            raise ConfigError("smoothing and ridge must be ≥ 0, shrink between 0 and 1.", where="OLE settings")

    def calibrate(
        self,
        session: Session,
        *,
        behavior: Sequence[str],
        budget_s: float | None = None,
        history: Any = None,
        seed: int = 0,
    ) -> OLEDecoder:
        """Fit to all usable, labelled bins of the session; takes a second or less, whatever ``budget_s`` is.

        Args:
            session: labelled signals; take ``session.first(minutes=…)`` for less.
            behavior: names of continuous dimensions.
            budget_s, history, seed: not used by a closed form; part of every recipe.

        Raises:
            ConfigError: a dimension is discrete, or ``unbiased`` is asked of fewer channels than dimensions.
            DataError: too few labelled bins, a constant dimension, or no live channel.
        """
        dims = session.dims_of(list(behavior))
        y_NK, segments = continuous_labels(session, dims, recipe="OLE")
        inside_N = inside(segments, session.num_bins)
        scaler = Scaler.fit(session.signals[inside_N], session.channels)
        search = _Search(self, session, scaler.apply(session.signals), y_NK)
        filters = [search.best(columns) for columns in groups(dims)]
        return OLEDecoder(
            bin_ms=session.bin_ms,
            channels=session.channels,
            behavior=dims,
            scaler=scaler,
            filters=tuple(filters),
            report={
                "recipe": "ole",
                "settings": to_dict(self),
                "session": session.id,
                "span": list(session.span),
                "minutes": round(session.minutes, 4),
                "labelled_bins": search.labelled,
            },
        )


class OLEDecoder(WienerDecoder):
    """A calibrated estimator: smoothed rates times weights; use :class:`OLE` to make one."""

    kind: ClassVar[str] = "ole"


@dataclass(frozen=True, eq=False)
class _Sums:
    """Σ v vᵀ over labelled bins of v = (1, behavior, rates), from which everything follows; sums add up.

    Args:
        vv: (1 + K + C, 1 + K + C).
        width: K.
    """

    vv: Float
    width: int

    def __sub__(self, other: _Sums) -> _Sums:
        return _Sums(self.vv - other.vv, self.width)

    @property
    def number(self) -> float:
        """Labelled bins."""
        return float(self.vv[0, 0])

    def moments(self) -> tuple[Float, Float, Float, Float, Float]:
        """Means of behavior and rates; covariances of behavior, of behavior and rates, of rates."""
        mean = self.vv[0, 1:] / self.number
        covariance = self.vv[1:, 1:] / self.number - np.outer(mean, mean)
        k = self.width
        return mean[:k], mean[k:], covariance[:k, :k], covariance[:k, k:], covariance[k:, k:]

    def error(self, weights_CK: Float, intercept_K: Float) -> Float:
        """(K,) Σ (y − ŷ)² over the bins of the sums."""
        to_error = np.concatenate((intercept_K[None], -np.eye(self.width), weights_CK))
        return np.asarray(np.einsum("vk,vk->k", to_error, self.vv @ to_error))


def invert(sums: _Sums, *, ridge: float, shrink: float, unbiased: bool) -> tuple[Float, Float]:
    """Weights (C, K) and intercept (K,) of behavior from rates, by way of the encoding model.

    Rates z = b₀ + B y + noise of covariance Σ; ŷ = ȳ + (Bᵀ Σ⁻¹ B + V⁻¹)⁻¹ Bᵀ Σ⁻¹ (z − z̄), with V the covariance of
    behavior, which is Salinas and Abbott's Q⁻¹ L (their equation for D) for a linear tuning; without V⁻¹ it is the
    unbiased one.
    """
    y_mean, z_mean, yy, yz, zz = sums.moments()
    b_CK = np.linalg.solve(yy + ridge * np.eye(len(yy)), yz).T
    mixed = b_CK @ yz
    noise = zz - mixed - mixed.T + b_CK @ yy @ b_CK.T
    weights_CK = np.linalg.solve(shrunk(noise, shrink, floor=NOISE_FLOOR), b_CK)
    information = b_CK.T @ weights_CK + (0.0 if unbiased else np.linalg.inv(yy + PRIOR_FLOOR * np.eye(len(yy))))
    weights_CK = np.linalg.solve(information, weights_CK.T).T
    return weights_CK, y_mean - z_mean @ weights_CK


NOISE_FLOOR, PRIOR_FLOOR = 1.0, 1e-9
"""Least variance of a channel's noise as a share of the median one: on half a minute of calibration, lower ones cost up
to .2 of R² in position (validation sessions), where a near-dead channel woke up. And a trifle against dimensions that
are sums of others."""


class _Search:
    """Blocked cross-validation of one calibration."""

    def __init__(self, recipe: OLE, session: Session, z_NC: Float, y_NK: Float) -> None:
        self.recipe, self.bin_ms, self.z_NC, self.segments = recipe, session.bin_ms, z_NC, session.segments
        self.where = f"calibration on session {session.id}"
        self.known_N = session.usable & np.isfinite(y_NK).all(axis=1)
        self.labelled = int(self.known_N.sum())
        self.center, self.scale = y_NK[self.known_N].mean(axis=0), y_NK[self.known_N].std(axis=0)
        self.y_NK = (y_NK - self.center) / self.scale
        self._rates: dict[float, Float] = {}

    def best(self, columns: tuple[int, ...]) -> Filter:
        """The filter of one group of dimensions, of the settings with the least cross-validated error."""
        recipe, chosen = self.recipe, list(columns)
        self._check(len(chosen))
        settings = list(product(recipe.smoothing_ms, recipe.ridge, recipe.shrink))
        sums = {tau: self._sums(tau, chosen) for tau in recipe.smoothing_ms}
        errors = [self._error(sums[tau], ridge, shrink) for tau, ridge, shrink in settings]
        at = int(np.argmin([e.mean() for e in errors]))
        (tau, ridge, shrink), error = settings[at], errors[at]
        weights, intercept = self._invert(sums[tau][0], ridge, shrink)
        scale = self.scale[chosen]
        return Filter(
            tau_ms=float(tau),
            taps_TCK=(weights * scale)[None],
            intercept=intercept * scale + self.center[chosen],
            spread=np.sqrt(np.maximum(error, 0)) * scale,
            columns=columns,
            chosen={
                "smoothing_ms": float(tau),
                "ridge": float(ridge),
                "shrink": float(shrink),
                "cv_r2": float(1 - error.mean()),
            },
        )

    def _check(self, width: int) -> None:
        training = self.labelled * (self.recipe.folds - 1) / self.recipe.folds
        if training < width + 2:
            raise DataError(
                f"{self.labelled} labelled bins are too few for {width} dimensions and {self.recipe.folds} folds.",
                where=self.where,
                remedy="calibrate on more minutes, or decode fewer dimensions at once",
            )
        live = int((np.ptp(self.z_NC[self.known_N], axis=0) > 0).sum())
        if self.recipe.inverse == "unbiased" and live < width:
            raise ConfigError(
                f"{live} live channels cannot be inverted into {width} dimensions without a bias.",
                where="OLE.calibrate",
                remedy="use OLE(inverse='optimal'), or decode fewer dimensions at once",
            )

    def _invert(self, sums: _Sums, ridge: float, shrink: float) -> tuple[Float, Float]:
        return invert(sums, ridge=ridge, shrink=shrink, unbiased=self.recipe.inverse == "unbiased")

    def _error(self, sums: list[_Sums], ridge: float, shrink: float) -> Float:
        """(K,) mean squared error on the held-out folds in units of each dimension's variance."""
        total, *folds = sums
        error, number = np.zeros(total.width), 0.0
        for fold in folds:
            if 0 < fold.number <= total.number - total.width - 2:
                error += fold.error(*self._invert(total - fold, ridge, shrink))
                number += fold.number
        return error / number

    def _sums(self, tau: float, columns: list[int]) -> list[_Sums]:
        """Sums of all labelled bins, then of each fold."""
        parts = [self._part(tau, columns, part) for part in blocks(self.segments, self.recipe.folds)]
        return [_Sums(np.sum([p.vv for p in parts], axis=0), len(columns)), *parts]

    def _part(self, tau: float, columns: list[int], segments: Segments) -> _Sums:
        used = self.known_N & inside(segments, len(self.known_N))
        v = np.concatenate((np.ones((used.sum(), 1)), self.y_NK[used][:, columns], self._smoothed(tau)[used]), axis=1)
        return _Sums(v.T @ v, len(columns))

    def _smoothed(self, tau: float) -> Float:
        if tau not in self._rates:
            self._rates[tau] = levels(self.z_NC, self.segments, keep=decay(tau, self.bin_ms), width=1)
        return self._rates[tau]
