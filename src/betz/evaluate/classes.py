"""Scores of discrete behavior: balanced accuracy, false events, and how late events are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core import metrics
from betz.core.session import BehaviorDim

Float = NDArray[np.float64]
R2, BALANCED_ACCURACY = "R²", "balanced accuracy"


@dataclass(frozen=True)
class ClassScores:
    """How well one discrete dimension is decoded; the class with the largest probability counts as predicted.

    The first class is the one of rest (no click, no grasp): stretches of any other one are events.

    Args:
        balanced_accuracy: see :func:`betz.core.metrics.balanced_accuracy`.
        chance: its value for a guess: 1 / (classes that occur in the truth).
        false_positives_per_min: summed over the classes but the first, see
            :func:`betz.core.metrics.false_positives_per_min`.
        onset_delay_ms: median over the events that were found; NaN if none was.
        events, found: events whose start is known, and how many of them were found.
    """

    balanced_accuracy: float
    chance: float
    false_positives_per_min: float
    onset_delay_ms: float
    events: int
    found: int


def most_probable(values_NP: Float, behavior: Sequence[BehaviorDim], names: Sequence[str]) -> Float:
    """(N, K) index of the most probable class of each named discrete dimension; NaN where there is no prediction.

    Args:
        values_NP: prediction, one column a class.
        behavior: the decoder's dimensions.
        names: which of them.
    """
    at, out_NK = 0, np.full((len(values_NP), len(names)), np.nan)
    for dim in behavior:
        width = max(len(dim.classes), 1)
        if dim.name in names:
            part_NP = values_NP[:, at : at + width]
            known = np.isfinite(part_NP).all(axis=1)
            out_NK[known, list(names).index(dim.name)] = part_NP[known].argmax(axis=1)
        at += width
    return out_NK


def class_scores(truth_N: Float, predicted_N: Float, *, dim: BehaviorDim, bin_s: float) -> ClassScores:
    """Scores of one dimension over all bins in time; NaN where a bin is not scored."""
    y, p = (np.where(np.isfinite(c), c, metrics.UNKNOWN).astype(np.int64) for c in (truth_N, predicted_N))
    events = range(1, len(dim.classes))
    rates = [metrics.false_positives_per_min(y, p, event=c, bin_s=bin_s) for c in events]
    delays = np.concatenate([metrics.onset_delays_ms(y, p, event=c, bin_s=bin_s) for c in events])
    found = delays[np.isfinite(delays)]
    occurring = np.unique(y[(y != metrics.UNKNOWN) & (p != metrics.UNKNOWN)])
    return ClassScores(
        balanced_accuracy=metrics.balanced_accuracy(y, p),
        chance=1 / len(occurring),
        false_positives_per_min=float(np.nansum(rates)) if np.isfinite(rates).any() else float("nan"),
        onset_delay_ms=float(np.median(found)) if len(found) else float("nan"),
        events=len(delays),
        found=len(found),
    )


def class_numbers(classes: Mapping[str, ClassScores]) -> dict[str, Any]:
    """The fields of a result row that only tasks of discrete behavior have."""
    each = {name: asdict(found) for name, found in classes.items()}
    numbers: dict[str, Any] = {
        f"{field}_dims" if field == "balanced_accuracy" else field: {name: found[field] for name, found in each.items()}
        for field in ClassScores.__dataclass_fields__
    }
    return {"balanced_accuracy": float(np.mean([c.balanced_accuracy for c in classes.values()])), **numbers}


def headline(row: Mapping[str, Any]) -> float:
    """The number of a result row that tables show: R², or the mean balanced accuracy of discrete dimensions."""
    return float(row["r2"] if is_continuous(row) else row["balanced_accuracy"])


def is_continuous(row: Mapping[str, Any]) -> bool:
    """Whether a result row is of continuous behavior."""
    return "balanced_accuracy" not in row


def measure(row: Mapping[str, Any]) -> str:
    """What :func:`headline` is called."""
    return R2 if is_continuous(row) else BALANCED_ACCURACY
