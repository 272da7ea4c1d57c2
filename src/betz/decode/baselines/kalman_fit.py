"""Choosing and fitting the model of a Kalman filter inside the calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import DataError
from betz.core.session import Array, BehaviorDim, Session
from betz.decode.closed_form import Segments, blocks
from betz.decode.features import Float, Scaler, counting, square_root
from betz.decode.labels import inside
from betz.decode.state_space import Model, Moments, fit, moments, run_steady, states

T = TypeVar("T", str, float)
COMPANION_SHARE = 0.9
"""A companion that is labelled in less than this share of the asked bins is left out."""


@dataclass(frozen=True)
class Candidate:
    """One setting of everything that is chosen; see :class:`~betz.decode.baselines.kalman.Kalman`."""

    transform: str
    lead: int
    shrink: float
    inflate: float


def transformed(signals: Array, counting_C: NDArray[np.bool_], transform: str) -> Float:
    """Signals (…, C) as float64, counts of them as they are (``raw``) or as their square root (``sqrt``)."""
    return square_root(signals, counting_C) if transform == "sqrt" else np.asarray(signals, dtype=np.float64)


def counterpart(name: str) -> str:
    """Name of the position of a velocity, or of the velocity of a position; empty if it has neither form.

    >>> counterpart("hand_vx"), counterpart("hand_x"), counterpart("grip")
    ('hand_x', 'hand_vx', '')
    """
    stem, last = name[:-1], name[-1:]
    if last not in ("x", "y", "z"):
        return ""
    if stem.endswith("v"):
        return stem[:-1] + last
    return f"{stem}v{last}" if not stem or stem.endswith("_") else ""


def companions(session: Session, dims: Sequence[BehaviorDim], labelled_N: NDArray[np.bool_]) -> tuple[str, ...]:
    """Positions of the velocities and velocities of the positions among the dimensions, where the session has them.

    Left out are those whose unit does not fit, that are constant, or that are unknown in more than a tenth of the
    labelled bins: each bin without them is lost to the fit.
    """
    known = {d.name: d for d in session.dims if d.kind == "continuous"}
    found = []
    for dim in dims:
        other = known.get(counterpart(dim.name))
        if other is None or other in dims or (f"{dim.unit}/s" != other.unit and f"{other.unit}/s" != dim.unit):
            continue
        values_N = session.behavior_of([other.name])[labelled_N, 0]
        values_N = values_N[np.isfinite(values_N)]
        if len(values_N) >= COMPANION_SHARE * labelled_N.sum() and np.ptp(values_N) > 0:
            found.append(other.name)
    return tuple(found)


class Signals:
    """Z-scored signals of a calibration by transform, each computed once; means of the last ``stride`` bins."""

    def __init__(self, session: Session, *, stride: int) -> None:
        self.session, self.stride = session, stride
        self._made: dict[str, tuple[Scaler, Float]] = {}

    def of(self, transform: str) -> tuple[Scaler, Float]:
        """The scaler, and (N, C) z-scores; NaN where the last bins are not wholly in one segment."""
        if transform not in self._made:
            session = self.session
            signals_NC = transformed(session.signals, counting(session.channels), transform)
            scaler = Scaler.fit(signals_NC[inside(session.segments, session.num_bins)], session.channels)
            z_NC = scaler.apply(signals_NC)
            out_NC = np.full_like(z_NC, np.nan)
            for start, stop in session.segments:
                whole = stop - start - self.stride + 1
                if whole > 0:
                    total = sum(z_NC[start + i : start + i + whole] for i in range(self.stride))
                    out_NC[start + self.stride - 1 : stop] = total / self.stride
            self._made[transform] = scaler, out_NC
        return self._made[transform]


class Search:
    """Blocked cross-validation of one group of dimensions."""

    def __init__(self, signals: Signals, x_NK: Float, *, asked: int, folds: int) -> None:
        """``x_NK``: z-scored behavior of the state; its first ``asked`` columns are what is decoded."""
        self.signals, self.x_NK, self.asked = signals, x_NK, asked
        self.segments, self.stride = signals.session.segments, signals.stride
        self.parts = blocks(self.segments, folds)
        self._moments: dict[tuple[str, int], list[Moments]] = {}
        self._errors: dict[Candidate, Float] = {}

    def choose(self, lists: Mapping[str, Sequence[Any]], usual: Candidate) -> Candidate:
        """From the entries nearest to the usual ones, list by list, to the best that is surely better.

        A change has to gain more than the standard error of its gain over the folds: on half a minute of calibration
        the lowest error of many is mostly luck.

        Args:
            lists: entries by name of the :class:`Candidate`'s field, in the order of choosing.
            usual: where to begin.

        Raises:
            DataError: there are fewer windows of labelled bins than parameters of the smallest state.
        """
        transform = lists["transform"][0]
        leads = [lead for lead in lists["lead"] if self.enough(transform, lead)]
        if not leads:
            windows = self.moments(transform, min(lists["lead"]))[0]
            raise DataError(
                f"{windows.number} stretches of {order(min(lists['lead']))} labelled steps are too few for the "
                f"{len(windows.ss)} dimensions of the state.",
                where=f"calibration on session {self.signals.session.id}",
                remedy="calibrate on more minutes, or decode fewer dimensions at once",
            )
        lists = {**lists, "lead": leads}
        best = Candidate(**{name: _nearest(values, getattr(usual, name)) for name, values in lists.items()})
        for name, values in lists.items():
            others = [replace(best, **{name: v}) for v in values if v != getattr(best, name)]
            for other in sorted(others, key=lambda c: float(self.errors(c).mean())):
                gain = self.errors(best) - self.errors(other)
                if gain.mean() > gain.std() / np.sqrt(max(len(gain) - 1, 1)):
                    best = other
                    break
        return best

    def enough(self, transform: str, lead: int) -> bool:
        """Whether every training part has at least as many windows as the state has dimensions."""
        total, *folds = self.moments(transform, lead)
        return min(min((total - f).number, (total - f).pairs) for f in folds) >= len(total.ss)

    def errors(self, c: Candidate) -> Float:
        """Mean squared error on each held-out fold in units of the asked dimensions' variance."""
        if c not in self._errors:
            total, *folds = self.moments(c.transform, c.lead)
            z_NC = np.nan_to_num(self.signals.of(c.transform)[1])
            at, width = c.lead * self.x_NK.shape[1], self.asked
            errors = []
            for part, held_out in zip(self.parts, folds, strict=True):
                model = fit(total - held_out, shrink=c.shrink, inflate=c.inflate)
                found_NS = run_steady(model, z_NC, part, stride=self.stride)
                miss_NK = found_NS[:, at : at + width] - self.x_NK[:, :width]
                inside_N = inside(part, len(miss_NK)) & np.isfinite(miss_NK).all(axis=1)
                if inside_N.any():
                    errors.append(float((miss_NK[inside_N] ** 2).mean()))
            self._errors[c] = np.array(errors)
        return self._errors[c]

    def moments(self, transform: str, lead: int) -> list[Moments]:
        """Of all folds together, then of each; windows do not cross from one to the next."""
        key = transform, lead
        if key not in self._moments:
            parts = [self._of(part, transform, lead) for part in self.parts]
            self._moments[key] = [sum(parts[1:], parts[0]), *parts]
        return self._moments[key]

    def model(self, c: Candidate) -> Model:
        """The model fitted to all of the calibration."""
        return fit(self._of(self.segments, c.transform, c.lead), shrink=c.shrink, inflate=c.inflate)

    def _of(self, segments: Segments, transform: str, lead: int) -> Moments:
        state_NS = states(self.x_NK, segments, lead=lead, order=order(lead), stride=self.stride)
        z_NC = self.signals.of(transform)[1]
        return moments(state_NS, z_NC, segments, width=self.x_NK.shape[1], stride=self.stride)


def order(lead: int) -> int:
    """Parts of the state: the present must be among them, and two say how behavior changes."""
    return max(lead + 1, 2)


def _nearest(values: Sequence[T], wanted: T) -> T:
    if isinstance(wanted, str):
        return wanted if wanted in values else values[0]
    return min(values, key=lambda v: abs(v - wanted))
