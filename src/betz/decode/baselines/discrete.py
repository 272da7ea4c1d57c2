"""Discrete behavior (click, rest or move, grasp) in closed form: linear discriminants and logistic regression.

Both are linear in lagged, exponentially filtered signals, so they stream like a Wiener filter; its outputs become one
probability a class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from betz.core.config import frozen_config, to_dict
from betz.core.errors import ConfigError
from betz.core.prediction import Array
from betz.core.session import Session
from betz.decode.baselines.discrete_fit import Choice, Search, fit_lda, fit_logistic
from betz.decode.baselines.wiener import Filter, WienerDecoder
from betz.decode.features import Float, Scaler
from betz.decode.labels import discrete_labels, inside

Priors = Literal["calibration", "equal"]


@frozen_config
class LDA:
    """Recipe of linear discriminant analysis (Fisher 1936) with a shrunk covariance.

    Each discrete dimension has its own discriminants. A class that does not occur in the calibration has probability 0.

    Args:
        prefilter_ms: time constants of the causal exponential filter before the lags, to choose from; 0 = none.
        span_ms: lag spans to choose from, milliseconds.
        shrink: shares of the mean variance in the covariance within classes, to choose from.
        priors: of the classes: as often as in the ``calibration``, or ``equal``, which finds rare classes more often
            and takes others for them more often.
        folds: number of contiguous parts of the cross-validation.
    """

    prefilter_ms: tuple[float, ...] = (0, 60, 120, 240)
    span_ms: tuple[float, ...] = (50, 100, 200)
    shrink: tuple[float, ...] = (0.03, 0.1, 0.3, 0.6)
    priors: Priors = "calibration"
    folds: int = 4

    name: ClassVar[str] = "lda"
    decodes: ClassVar[tuple[str, ...]] = ("discrete",)

    def __post_init__(self) -> None:
        _check_lists(self, self.shrink, "shrink")
        if max(self.shrink) > 1:
            raise ConfigError("shrink must be at most 1.", where="LDA settings")

    def calibrate(
        self,
        session: Session,
        *,
        behavior: Sequence[str],
        budget_s: float | None = None,
        history: Any = None,
        seed: int = 0,
    ) -> DiscreteDecoder:
        """Fit to all usable, labelled bins of the session; takes a second or a few, whatever ``budget_s`` is.

        Args:
            session: labelled signals; take ``session.first(minutes=…)`` for less.
            behavior: names of discrete dimensions.
            budget_s, history, seed: not used by a closed form; part of every recipe.

        Raises:
            ConfigError: a dimension is continuous.
            DataError: too few labelled bins, a single class, or no live channel.
        """
        return _calibrate(self, session, behavior)

    def choose(self, search: Search) -> Choice:
        """Filter and span at a middle shrink, then the shrink."""
        return search.choose(self.prefilter_ms, self.span_ms, self.shrink)

    def fit(self, search: Search, choice: Choice) -> tuple[Float, Float]:
        """Weights (F, K) and offsets (K,) of the discriminants."""
        return fit_lda(search.statistics(choice), shrink=choice.strength, equal=self.priors == "equal")


@frozen_config
class Logistic:
    """Recipe of multinomial logistic regression with a ridge, by a few Newton steps.

    Each discrete dimension has its own. Filter and span are chosen as :class:`LDA` chooses them, the ridge by itself.
    A class that does not occur in the calibration has probability 0.

    Args:
        prefilter_ms, span_ms, priors, folds: as of :class:`LDA`; with ``equal`` priors every class weighs the same.
        strengths: ridge strengths to choose from, per bin of z-scored signals.
    """

    prefilter_ms: tuple[float, ...] = (0, 60, 120, 240)
    span_ms: tuple[float, ...] = (50, 100, 200)
    strengths: tuple[float, ...] = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
    priors: Priors = "calibration"
    folds: int = 4

    name: ClassVar[str] = "logistic"
    decodes: ClassVar[tuple[str, ...]] = ("discrete",)

    def __post_init__(self) -> None:
        _check_lists(self, self.strengths, "strengths")

    def calibrate(
        self,
        session: Session,
        *,
        behavior: Sequence[str],
        budget_s: float | None = None,
        history: Any = None,
        seed: int = 0,
    ) -> DiscreteDecoder:
        """Fit to all usable, labelled bins of the session; takes some seconds, whatever ``budget_s`` is.

        Args, Raises: as of :meth:`LDA.calibrate`.
        """
        return _calibrate(self, session, behavior)

    def choose(self, search: Search) -> Choice:
        """Filter and span of LDA, then the ridge."""
        choice = search.choose(self.prefilter_ms, self.span_ms, LDA().shrink)
        return search.choose_strength(choice, self.strengths)

    def fit(self, search: Search, choice: Choice) -> tuple[Float, Float]:
        """Weights (F, K) and offsets (K,) of the logits."""
        x, onehot = search.rows(choice)
        return fit_logistic(x, onehot, strength=choice.strength, equal=self.priors == "equal")


def _check_lists(recipe: LDA | Logistic, strengths: Sequence[float], name: str) -> None:
    where = f"{type(recipe).__name__} settings"
    if not (recipe.prefilter_ms and recipe.span_ms and strengths) or recipe.folds < 2:
        raise ConfigError("every list needs an entry, and folds at least 2.", where=where)
    if min(recipe.prefilter_ms) < 0 or min(recipe.span_ms) <= 0 or min(strengths) <= 0:
        raise ConfigError(f"spans and {name} must be positive, pre-filters ≥ 0.", where=where)


def _calibrate(recipe: LDA | Logistic, session: Session, behavior: Sequence[str]) -> DiscreteDecoder:
    dims = session.dims_of(list(behavior))
    y_NK = discrete_labels(session, dims, recipe=type(recipe).__name__)
    scaler = Scaler.fit(session.signals[inside(session.segments, session.num_bins)], session.channels)
    z_NC = scaler.apply(session.signals)
    filters, labelled, at = [], {}, 0
    for k, dim in enumerate(dims):
        search = Search(session, z_NC, y_NK[:, k], dim, folds=recipe.folds, equal=recipe.priors == "equal")
        choice = recipe.choose(search)
        weights_FK, offset_K = recipe.fit(search, choice)
        classes = len(dim.classes)
        filters.append(
            Filter(
                tau_ms=float(choice.tau_ms),
                taps_TCK=search.taps(weights_FK),
                intercept=offset_K,
                spread=np.zeros(classes),
                columns=tuple(range(at, at + classes)),
                chosen=search.described(choice),
            )
        )
        labelled[dim.name] = dict(zip(dim.classes, search.counts.tolist(), strict=True))
        at += classes
    return DiscreteDecoder(
        bin_ms=session.bin_ms,
        channels=session.channels,
        behavior=dims,
        scaler=scaler,
        filters=tuple(filters),
        report={
            "recipe": recipe.name,
            "settings": to_dict(recipe),
            "session": session.id,
            "span": list(session.span),
            "minutes": round(session.minutes, 4),
            "labelled_bins": labelled,
        },
    )


class DiscreteDecoder(WienerDecoder):
    """A calibrated classifier: one probability column a class; use :class:`LDA` or :class:`Logistic` to make one."""

    kind: ClassVar[str] = "discrete"

    def advance(
        self, signals_BNC: Float, present_BN: NDArray[np.bool_], state: Mapping[str, Array]
    ) -> tuple[Array, None, dict[str, Array]]:
        """The linear filter's outputs, as probabilities of the classes of each dimension."""
        values, _, after = super().advance(signals_BNC, present_BN, state)
        for f in self.filters:
            part = slice(f.columns[0], f.columns[-1] + 1)
            values[:, :, part] = softmax(values[:, :, part])
        return values, None, after


def softmax(logits: Float) -> Float:
    """Probabilities along the last axis; −inf gives 0."""
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=-1, keepdims=True))
