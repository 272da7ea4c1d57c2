"""Intended direction in closed-loop recordings, derived from what the task showed: it is no measurement.

A subject who controls a cursor is taken to push it straight towards the target (Gilja et al. 2012, the ReFIT
assumption). The unit vector from cursor to target is then the behavior that a decoder is fitted to.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import ConfigError, DataError
from betz.core.session import BehaviorDim, Derivation, Series, Session
from betz.data.derivation import check_names, continuous, pieces, ticks_of, together

Float = NDArray[np.float64]
INTENDED = ("intended_x", "intended_y")


def intended_direction(
    session: Session,
    *,
    cursor: Sequence[str] = ("cursor_x", "cursor_y"),
    target: Sequence[str] = ("target_x", "target_y"),
    to: Sequence[str] = INTENDED,
    only_brain_control: bool = False,
) -> Session:
    """The unit vector from cursor to target, unit ``1``; causal, and as late as the two are.

    Args:
        session: any with both; sampled together, in one unit.
        cursor, target: names of the components of each, in the same order.
        to: names of the results.
        only_brain_control: not known (NaN) where the decoder did not move the cursor.

    Returns:
        The session with the further dimensions. NaN in gaps, where cursor or target is not known, and where the cursor
        is on the target.

    Raises:
        DataError: a name is unknown, units or sampling differ, or a result's name is taken.
        ConfigError: as many names of each are needed.

    >>> from betz.data.arrays import from_arrays
    >>> rows = [[0.0, 0.0, 0.0, 5.0], [3.0, 1.0, 0.0, 5.0], [0.0, 5.0, 0.0, 5.0]]
    >>> names = ["cursor_x", "cursor_y", "target_x", "target_y"]
    >>> session = from_arrays([[1], [0], [2]], bin_ms=50, behavior=rows, dims=names)
    >>> intended_direction(session).behavior_of(["intended_x", "intended_y"]).round(2).tolist()
    [[0.0, 1.0], [-0.6, 0.8], [nan, nan]]
    """
    if not len(cursor) == len(target) == len(to) or not len(cursor):
        raise ConfigError(
            f"{len(cursor)} components of the cursor, {len(target)} of the target and {len(to)} results do not match.",
            where=f"intended direction, session {session.id}",
            remedy="name as many of each",
        )
    names = [*cursor, *target]
    dims = continuous(session, names)
    units = {d.unit for d in dims}
    if len(units) > 1:
        raise DataError(
            f"cursor and target are in different units: {', '.join(sorted(map(repr, units)))}.",
            where=f"intended direction, session {session.id}",
            remedy="bring them to one unit on import (factor in the mapping)",
        )
    series = together(session, names)
    place = {dim.name: k for k, dim in enumerate(series.dims)}
    values = series.values.astype(np.float64)
    way_MK = values[:, [place[n] for n in target]] - values[:, [place[n] for n in cursor]]
    length_M1 = np.linalg.norm(way_MK, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        unit_MK = np.where(length_M1 > 0, way_MK / np.where(length_M1 > 0, length_M1, 1.0), np.nan)
    return _with(session, series, unit_MK, dims, to, "intended_direction", only_brain_control=only_brain_control)


def direction_vector(
    session: Session,
    name: str = "target_direction",
    *,
    to: Sequence[str] = INTENDED,
    only_brain_control: bool = False,
) -> Session:
    """The unit vector (cosine, sine) of an angle, unit ``1``, where only the direction to the target was recorded.

    Args:
        session: any with the angle.
        name: the angle, in ``deg`` or ``rad``, counted from the first axis.
        to: names of the two results.
        only_brain_control: as for :func:`intended_direction`.

    Raises:
        DataError: the name is unknown, no angle, or a result's name is taken.
        ConfigError: not two results are named.
    """
    if len(to) != 2:
        raise ConfigError(
            f"a vector has two components, {len(to)} results are named.",
            where=f"direction of {name}, session {session.id}",
            remedy="name two",
        )
    (dim,) = continuous(session, [name])
    if dim.unit not in ("deg", "rad"):
        raise DataError(
            f"{name!r} is in {dim.unit!r}, which is no angle.",
            where=f"session {session.id}",
            remedy="use a dimension in deg or rad",
        )
    series = together(session, [name])
    angle_M = series.values[:, 0].astype(np.float64) * (np.pi / 180 if dim.unit == "deg" else 1.0)
    unit_M2 = np.stack((np.cos(angle_M), np.sin(angle_M)), axis=1)
    return _with(session, series, unit_M2, (dim,), to, "direction_vector", only_brain_control=only_brain_control)


def _with(
    session: Session,
    series: Series,
    values_MK: Float,
    sources: Sequence[BehaviorDim],
    to: Sequence[str],
    method: str,
    *,
    only_brain_control: bool,
) -> Session:
    """The session with derived dimensions, not known in gaps and, if asked, outside of brain control."""
    delays = {0.0 if d.derivation is None else d.derivation.group_delay_ms for d in sources}
    if len(delays) > 1:
        raise DataError(f"its sources are differently late: {sorted(delays)} ms.", where=f"session {session.id}")
    check_names(session, list(to))
    ticks = ticks_of(series)
    unknown_M = pieces(session, series, ticks) < 0
    if only_brain_control:
        if not len(session.brain_control):
            raise DataError(
                "it has no brain-control intervals.",
                where=f"{method} of session {session.id}",
                remedy="leave only_brain_control out",
            )
        unknown_M |= ~session.brain_control.contains(ticks)
    causal = all(d.derivation is None or d.derivation.causal for d in sources)
    parameters = (("only_brain_control", "yes"),) if only_brain_control else ()
    derivation = Derivation(method, tuple(d.name for d in sources), causal, delays.pop(), parameters)
    dims = tuple(BehaviorDim(name, "1", derivation=derivation) for name in to)
    values_MK[unknown_M] = np.nan
    return session.with_behavior(
        Series(values_MK.astype(series.values.dtype), dims, series.origin_tick, series.ticks_per_sample)
    )
