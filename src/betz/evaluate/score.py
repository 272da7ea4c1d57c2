"""Scores of arrays: R², correlation, angles, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from betz.core import metrics
from betz.core.errors import DataError
from betz.core.session import BehaviorDim, Session
from betz.core.timegrid import Ticks
from betz.evaluate.classes import ClassScores, class_scores

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]

BLOCK_S = 5.0
"""Length of a bootstrap block: behavior and errors of neighbouring bins are not independent."""
SETTLED_S = 1.0
"""A bin is well inside a trial this long after its start: earlier, a restart or the trial's phase alone tells much."""


@dataclass(frozen=True)
class Bins:
    """What became of the bins of a test part: every one is counted once.

    Args:
        scored: with a valid prediction and all labels.
        lost: without a valid prediction (invalid signals, trial edges, latency).
        unlabelled: with a prediction, but without a label in some dimension.
    """

    scored: int
    lost: int
    unlabelled: int

    @property
    def total(self) -> int:
        """All bins of the test part."""
        return self.scored + self.lost + self.unlabelled


@dataclass(frozen=True, eq=False)
class Scores:
    """How well the K dimensions of a task are decoded.

    Args:
        r2: variance-weighted over the dimensions, the headline.
        r2_uniform: all dimensions flattened, as NDT3 logs it.
        interval: 95 % of ``r2`` under resampling of blocks of 5 s; None where it was not asked for or too few bins.
        r2_dims, correlation: (K,) of each dimension; NaN where the truth is constant.
        angle_deg: mean angle between true and decoded velocity, by name of the pair or triple (``hand_v`` for
            hand_vx, hand_vy), over bins with a true speed above its median.
        r2_settled: ``r2`` on bins ≥ 1 s into a trial; None in sessions without trial edges.
        settled: how many bins these are.
        bins: what was scored and what was not.
        classes: scores of discrete dimensions by name; then R², correlation and the like are NaN. None of continuous.
    """

    r2: float
    r2_uniform: float
    interval: tuple[float, float] | None
    r2_dims: Float
    correlation: Float
    angle_deg: Mapping[str, float]
    r2_settled: float | None
    settled: int
    bins: Bins
    classes: Mapping[str, ClassScores] | None = None

    @property
    def headline(self) -> float:
        """R², or the mean balanced accuracy of discrete dimensions."""
        if self.classes is None:
            return self.r2
        return float(np.mean([found.balanced_accuracy for found in self.classes.values()]))


def score(
    truth_NK: Float,
    predicted_NK: Float,
    valid_N: Mask,
    *,
    dims: Sequence[BehaviorDim],
    bin_s: float,
    test_N: Mask | None = None,
    settled_N: Mask | None = None,
    scale: Float | None = None,
    draws: int = 0,
    where: str = "score",
) -> tuple[Scores, Mask]:
    """Scores of arrays, and (N,) which bins they stand on.

    Args:
        truth_NK, predicted_NK, valid_N: behavior, prediction, and whether it is valid.
        dims: the K dimensions, all continuous or all discrete (then both arrays hold class indices).
        bin_s: bin width in seconds.
        test_N: the bins of the test part (default: all).
        settled_N: bins ≥ 1 s into a trial; None in sessions without trial edges.
        scale: (K,) units of measure.
        draws: bootstrap samples; 0 = no interval.
        where: named in errors.

    Raises:
        DataError: fewer than two bins can be scored, or nothing varies in them.
    """
    test_N = np.ones(len(valid_N), dtype=bool) if test_N is None else test_N
    predicted_there_N = valid_N & np.isfinite(predicted_NK).all(axis=1) & test_N
    scored_N = metrics.scored(truth_NK, predicted_NK, predicted_there_N)
    number = int(scored_N.sum())
    bins = Bins(number, int((test_N & ~predicted_there_N).sum()), int(predicted_there_N.sum()) - number)
    unit = np.ones(len(dims)) if scale is None else scale
    y, p = truth_NK[scored_N] / unit, predicted_NK[scored_N] / unit
    if number < 2 or not np.any(np.ptp(y, axis=0) > 0):
        raise DataError(
            f"{number} of {bins.total} test bins can be scored ({bins.lost} lost, {bins.unlabelled} unlabelled)"
            + (", and no dimension varies in them." if number >= 2 else "."),
            where=where,
            remedy="score a longer part, or one with labels",
        )
    if dims[0].kind == "discrete":
        return _discrete(truth_NK, predicted_NK, scored_N, dims, bin_s, bins), scored_N
    block = round(BLOCK_S / bin_s)
    interval = None
    if draws and 1 <= block <= number // 2:
        interval = metrics.block_bootstrap(y, p, block_bins=block, draws=draws)
    late = None if settled_N is None else settled_N[scored_N]
    r2_settled = None
    if late is not None and late.sum() >= 2 and np.any(np.ptp(y[late], axis=0) > 0):
        r2_settled = metrics.r2_variance_weighted(y[late], p[late])
    scores = Scores(
        r2=metrics.r2_variance_weighted(y, p),
        r2_uniform=metrics.r2_uniform(y, p),
        interval=interval,
        r2_dims=metrics.r2(y, p),
        correlation=metrics.correlation(y, p),
        angle_deg={name: _angle(y[:, pair], p[:, pair]) for name, pair in velocity_groups(dims).items()},
        r2_settled=r2_settled,
        settled=0 if late is None else int(late.sum()),
        bins=bins,
    )
    return scores, scored_N


def _discrete(
    truth_NK: Float, predicted_NK: Float, scored_N: Mask, dims: Sequence[BehaviorDim], bin_s: float, bins: Bins
) -> Scores:
    y_NK, p_NK = (np.where(scored_N[:, None], values, np.nan) for values in (truth_NK, predicted_NK))
    none = np.full(len(dims), np.nan)
    return Scores(
        r2=float("nan"),
        r2_uniform=float("nan"),
        interval=None,
        r2_dims=none,
        correlation=none,
        angle_deg={},
        r2_settled=None,
        settled=0,
        bins=bins,
        classes={dim.name: class_scores(y_NK[:, k], p_NK[:, k], dim=dim, bin_s=bin_s) for k, dim in enumerate(dims)},
    )


def _angle(truth: Float, predicted: Float) -> float:
    speed = float(np.median(np.linalg.norm(truth, axis=1)))
    return metrics.angular_error_deg(truth, predicted, min_speed=speed)


def velocity_groups(dims: Sequence[BehaviorDim]) -> dict[str, list[int]]:
    """Columns of velocity vectors: names that differ in their last letter (x, y, z) with one unit per second.

    >>> velocity_groups([BehaviorDim("hand_vx", "cm/s"), BehaviorDim("grip", "N"), BehaviorDim("hand_vy", "cm/s")])
    {'hand_v': [0, 2]}
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for k, dim in enumerate(dims):
        if dim.unit.endswith("/s") and dim.name[-1:] in "xyz":
            groups.setdefault((dim.name[:-1], dim.unit), []).append(k)
    return {stem: found for (stem, _), found in groups.items() if len(found) >= 2}


def settled(session: Session, edges: Ticks) -> Mask:
    """(N,) whether a bin starts at least 1 s after the last trial edge, or the session's start if there is none."""
    start_N = session.grid.start_of(np.arange(session.num_bins))
    begun = np.concatenate(([session.grid.origin_tick], edges))
    last = begun[np.searchsorted(edges, start_N, side="right")]
    return np.asarray(start_N - last >= SETTLED_S * session.grid.tick_hz)
