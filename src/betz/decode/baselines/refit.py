"""Intended velocity instead of recorded velocity as the label of a calibration (ReFIT)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from betz.core.config import frozen_config
from betz.core.errors import ConfigError
from betz.core.session import BehaviorDim, Session
from betz.decode.baselines.kalman_fit import counterpart

Float = NDArray[np.float64]


@frozen_config
class RefitTraining:
    """Labels of the ReFIT-Kalman filter: velocity turned towards the target, and zero while the target is held.

    Gilja, Nuyujukian et al. (2012), Nature Neuroscience 15, 1752–1757: under brain control a subject means to go
    straight to the target at every moment, and to stay when there. The other half of that filter, a cursor position
    that is known without error, needs the position in the decoder's input and is not part of this.

    Args:
        target: names of the target's position.
        position: names of the cursor's position, in the same order and unit. Its velocity is found by name
            (``cursor_vx`` of ``cursor_x``).
        radius: in that unit; not farther from the target, the cursor is held.
    """

    target: tuple[str, ...]
    position: tuple[str, ...]
    radius: float

    def __post_init__(self) -> None:
        if len(self.target) != len(self.position) or len(self.target) < 2 or self.radius < 0:
            raise ConfigError(
                "target and position need the same number (2 or more) of names, and radius must be ≥ 0.",
                where="RefitTraining settings",
            )

    def intended(self, session: Session, dims: Sequence[BehaviorDim], y_NK: Float) -> Float:
        """(N, K) the labels with intended velocity in the place of recorded one.

        Args:
            session: the calibration.
            dims: the K dimensions.
            y_NK: recorded labels. The intended ones are NaN where target, position or velocity is unknown.

        Raises:
            ConfigError: none of the dimensions is a velocity of the cursor, or target and position differ in unit.
            DataError: the session lacks a dimension.
        """
        units = {d.unit for d in session.dims_of([*self.target, *self.position])}
        where = f"RefitTraining on session {session.id}"
        if len(units) > 1:
            raise ConfigError(
                f"target and position have different units: {', '.join(sorted(units))}.",
                where=where,
                remedy="add the target in the unit of the position as a derived behavior",
            )
        velocity = [counterpart(name) for name in self.position]
        columns = {k: velocity.index(d.name) for k, d in enumerate(dims) if d.name in velocity}
        if not columns:
            raise ConfigError(
                f"none of {', '.join(d.name for d in dims)} is a velocity of {', '.join(self.position)}.",
                where=where,
                remedy="decode the velocity of the cursor, or calibrate without refit",
            )
        toward = session.behavior_of(self.target) - session.behavior_of(self.position)
        distance = np.linalg.norm(toward, axis=1, keepdims=True)
        speed = np.linalg.norm(session.behavior_of(velocity), axis=1, keepdims=True)
        held = distance <= self.radius
        meant = np.where(held, 0.0 * speed, speed * toward / np.where(held, 1.0, distance))
        out = y_NK.copy()
        for k, axis in columns.items():
            out[:, k] = meant[:, axis]
        return out
