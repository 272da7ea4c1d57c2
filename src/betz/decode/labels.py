"""Labels of a calibration, checked once for every closed form: what is continuous, labelled, varying, and grouped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import ConfigError, DataError
from betz.core.session import BehaviorDim, Session
from betz.decode.closed_form import Segments

Float = NDArray[np.float64]

MIN_BINS = 20


def groups(dims: Sequence[BehaviorDim]) -> list[tuple[int, ...]]:
    """Dimensions of one unit belong together."""
    units = list(dict.fromkeys(d.unit for d in dims))
    return [tuple(k for k, d in enumerate(dims) if d.unit == unit) for unit in units]


def continuous_labels(session: Session, dims: tuple[BehaviorDim, ...], *, recipe: str) -> tuple[Float, Segments]:
    """(N, K) behavior and the segments of a calibration session, checked.

    Args:
        session: the calibration.
        dims: what is asked for, all continuous.
        recipe: name of the class that asks, for errors.

    Raises:
        ConfigError: a dimension is discrete.
        DataError: too few labelled bins, or a constant dimension.
    """
    discrete = [d.name for d in dims if d.kind == "discrete"]
    if discrete:
        raise ConfigError(
            f"it decodes continuous behavior only, not {', '.join(discrete)}.",
            where=f"{recipe}.calibrate",
            remedy="decode discrete behavior with betz.LDA() or betz.Logistic()",
        )
    y_NK = session.behavior_of([d.name for d in dims])
    check_varying(session, dims, y_NK)
    return y_NK, session.segments


def check_varying(session: Session, dims: Sequence[BehaviorDim], y_NK: Float) -> None:
    """Raise :class:`DataError` if too few bins are labelled, or a dimension is constant in those that are."""
    labelled_N = labelled_bins(session, dims, y_NK)
    constant = [d.name for k, d in enumerate(dims) if np.ptp(y_NK[labelled_N, k]) == 0]
    if constant:
        raise DataError(
            f"{', '.join(constant)} does not change, so nothing can be learned of it.",
            where=_where(session),
            remedy="leave it out, or calibrate on more minutes",
        )


def discrete_labels(session: Session, dims: tuple[BehaviorDim, ...], *, recipe: str) -> Float:
    """(N, K) class indices of a calibration session, checked; NaN where a bin is not labelled or not usable.

    Args:
        session: the calibration.
        dims: what is asked for, all discrete.
        recipe: name of the class that asks, for errors.

    Raises:
        ConfigError: a dimension is continuous.
        DataError: a dimension has too few labelled bins, or a single class.
    """
    continuous = [d.name for d in dims if d.kind == "continuous"]
    if continuous:
        raise ConfigError(
            f"it decodes discrete behavior only, not {', '.join(continuous)}.",
            where=f"{recipe}.calibrate",
            remedy="decode continuous behavior with Wiener or Kalman",
        )
    y_NK = session.behavior_of([d.name for d in dims])
    for k, dim in enumerate(dims):
        labelled_N = labelled_bins(session, [dim], y_NK[:, [k]])
        found = np.unique(y_NK[labelled_N, k]).astype(int)
        if len(found) < 2:
            raise DataError(
                f"{dim.name} is always {dim.classes[found[0]]!r}, so nothing can be learned of it.",
                where=_where(session),
                remedy="leave it out, or calibrate on minutes with at least two of its classes",
            )
    y_NK[~session.usable] = np.nan
    return y_NK


def labelled_bins(session: Session, dims: Sequence[BehaviorDim], y_NK: Float) -> NDArray[np.bool_]:
    """(N,) whether a bin is usable and labelled in every dimension.

    Raises:
        DataError: fewer than :data:`MIN_BINS` are.
    """
    labelled_N = session.usable & np.isfinite(y_NK).all(axis=1)
    if labelled_N.sum() < MIN_BINS:
        lost = [f"{d.name}: {np.isnan(y_NK[:, k]).sum()} unknown" for k, d in enumerate(dims)]
        raise DataError(
            f"{labelled_N.sum()} of {session.num_bins} bins are usable and labelled in every dimension; "
            f"at least {MIN_BINS} are needed ({'; '.join(lost)}).",
            where=_where(session),
            remedy="calibrate on more minutes, or leave out the dimension without labels",
        )
    return labelled_N


def inside(segments: Segments, num_bins: int) -> NDArray[np.bool_]:
    """(N,) whether a bin lies in a segment."""
    inside_N = np.zeros(num_bins, dtype=bool)
    for start, stop in segments:
        inside_N[start:stop] = True
    return inside_N


def _where(session: Session) -> str:
    return f"calibration on session {session.id}"
