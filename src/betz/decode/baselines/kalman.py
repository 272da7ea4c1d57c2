"""The Kalman filter: a linear model of how behavior moves and of how signals follow it, turned around bin by bin.

Wu, Gao, Bienenstock, Donoghue and Black (2006), Neural Computation 18, 80–118, made strong on short calibrations:
the state reaches into the future (cortex leads movement), position and velocity track each other, the noise covariance
is shrunk and inflated, and all of it is chosen by blocked cross-validation inside the calibration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from betz.core.config import frozen_config, to_dict
from betz.core.errors import ConfigError
from betz.core.prediction import Array
from betz.core.session import BehaviorDim, Channel, Session
from betz.decode.baselines.kalman_fit import Candidate, Search, Signals, companions, order, transformed
from betz.decode.baselines.refit import RefitTraining
from betz.decode.decoder import save_decoder
from betz.decode.features import Float, Scaler, counting
from betz.decode.labels import check_varying, continuous_labels, groups
from betz.decode.state_space import Model, Step
from betz.decode.streaming import StreamingDecoder

Transform = Literal["raw", "sqrt"]
MODEL = tuple(f.name for f in fields(Model))
USUAL_LEAD_MS, USUAL_SHRINK, USUAL_INFLATE = 170.0, 0.1, 2.0
"""Where choosing begins: best on average on the validation sessions, from half a minute to five minutes."""


@frozen_config
class Kalman:
    """Recipe of the Kalman filter.

    Each group of dimensions with one unit has a filter of its own.

    Args:
        state: ``with_companions``: where the session has the positions of asked velocities, or the velocities of asked
            positions (``hand_x`` and ``hand_vx``), they are part of the state; ``asked``: the asked dimensions alone.
        lead_ms: how far signals may lead behavior, to choose from. The state reaches so far into the future.
        step_ms: bins narrower than this are averaged over the last so many milliseconds, anew in every bin.
        transforms: of counts, to choose from: as they are, or their square root.
        shrink: shares of the noise covariance's diagonal, to choose from.
        inflate: factors of the noise covariance, to choose from.
        gain: ``exact``: the full recursion, with its covariance from the stream's start on; ``steady``: the converged
            gain in every bin.
        refit: train on intended velocities instead of recorded ones (ReFIT).
        folds: number of contiguous parts of the cross-validation.
    """

    state: Literal["with_companions", "asked"] = "with_companions"
    lead_ms: tuple[float, ...] = (0, 50, 100, 150, 200, 250)
    step_ms: float = 50
    transforms: tuple[Transform, ...] = ("raw", "sqrt")
    shrink: tuple[float, ...] = (0.03, 0.1, 0.3)
    inflate: tuple[float, ...] = (1, 2, 4, 8)
    gain: Literal["exact", "steady"] = "exact"
    refit: RefitTraining | None = None
    folds: int = 4

    decodes: ClassVar[tuple[str, ...]] = ("continuous",)

    def __post_init__(self) -> None:
        if not (self.lead_ms and self.transforms and self.shrink and self.inflate) or self.folds < 2:
            raise ConfigError("every list needs an entry, and folds at least 2.", where="Kalman settings")
        if min(self.lead_ms) < 0 or self.step_ms <= 0 or min(self.inflate) <= 0:
            raise ConfigError("leads must be ≥ 0, step_ms and inflate positive.", where="Kalman settings")
        if min(self.shrink) < 0 or max(self.shrink) > 1:
            raise ConfigError("shrink must be between 0 and 1.", where="Kalman settings")

    @classmethod
    def textbook(cls) -> Kalman:
        """Signals of a bin tell of that bin alone, and the noise covariance is taken as fitted: the untuned filter."""
        return cls(lead_ms=(0,), transforms=("sqrt",), shrink=(0.1,), inflate=(1,))

    def calibrate(
        self,
        session: Session,
        *,
        behavior: Sequence[str],
        budget_s: float | None = None,
        history: Any = None,
        seed: int = 0,
    ) -> KalmanDecoder:
        """Fit to all usable, labelled bins of the session; takes a second or a few, whatever ``budget_s`` is.

        Args:
            session: labelled signals; take ``session.first(minutes=…)`` for less.
            behavior: names of continuous dimensions.
            budget_s, history, seed: not used by a closed form; part of every recipe.

        Raises:
            ConfigError: a dimension is discrete, or ``refit`` names dimensions that do not fit.
            DataError: too few labelled bins, a constant dimension, or no live channel.
        """
        dims = session.dims_of(list(behavior))
        y_NK, _ = continuous_labels(session, dims, recipe="Kalman")
        if self.refit is not None:
            y_NK = self.refit.intended(session, dims, y_NK)
            check_varying(session, dims, y_NK)
        signals = Signals(session, stride=max(1, round(self.step_ms / session.bin_ms)))
        filters = [self._filter(signals, dims, columns, y_NK[:, columns]) for columns in groups(dims)]
        return KalmanDecoder(
            bin_ms=session.bin_ms,
            channels=session.channels,
            behavior=dims,
            filters=tuple(filters),
            gain=self.gain,
            report={
                "recipe": "kalman",
                "settings": to_dict(self),
                "session": session.id,
                "span": list(session.span),
                "minutes": round(session.minutes, 4),
            },
        )

    def _filter(self, signals: Signals, dims: tuple[BehaviorDim, ...], columns: tuple[int, ...], y_NK: Float) -> Filter:
        session, bins = signals.session, signals.stride
        asked = [dims[k] for k in columns]
        labelled_N = session.usable & np.isfinite(y_NK).all(axis=1)
        names = companions(session, asked, labelled_N) if self.state == "with_companions" else ()
        x_NK = np.concatenate((y_NK, session.behavior_of(names)), axis=1) if names else y_NK
        known_NK = x_NK[session.usable & np.isfinite(x_NK).all(axis=1)]
        center, scale = known_NK.mean(axis=0), known_NK.std(axis=0)
        search = Search(signals, (x_NK - center) / scale, asked=len(asked), folds=self.folds)
        step_ms = bins * session.bin_ms
        lists = {
            "transform": self.transforms,
            "lead": tuple(sorted({round(lead / step_ms) for lead in self.lead_ms})),
            "inflate": self.inflate,
            "shrink": self.shrink,
        }
        usual = Candidate("raw", round(USUAL_LEAD_MS / step_ms), USUAL_SHRINK, USUAL_INFLATE)
        best = search.choose(lists, usual)
        return Filter(
            scaler=signals.of(best.transform)[0],
            transform=best.transform,
            model=search.model(best),
            stride=bins,
            lead=best.lead,
            columns=columns,
            center=center[: len(asked)],
            scale=scale[: len(asked)],
            chosen={
                "lead_ms": best.lead * step_ms,
                "transform": best.transform,
                "shrink": best.shrink,
                "inflate": best.inflate,
                "companions": list(names),
                "cv_r2": round(float(1 - search.errors(best).mean()), 4),
            },
        )


@dataclass(frozen=True, eq=False)
class Filter:
    """The Kalman filter of one group of dimensions.

    Args:
        scaler: z-scores of transformed signals.
        transform: ``raw`` or ``sqrt``.
        model: of z-scored behavior and z-scored signals.
        stride: bins of a step.
        lead: steps that the newest part of the state is ahead.
        columns: which dimensions of the decoder these are: K of them.
        center, scale: (K,) of the z-scored behavior.
        chosen: what cross-validation preferred, and its R², for people to read.
    """

    scaler: Scaler
    transform: str
    model: Model
    stride: int
    lead: int
    columns: tuple[int, ...]
    center: Float
    scale: Float
    chosen: Mapping[str, Any] = field(default_factory=dict)

    @property
    def present(self) -> slice:
        """Where the state has the decoded behavior of the present bin."""
        at = self.lead * self.width
        return slice(at, at + len(self.columns))

    @property
    def width(self) -> int:
        """Size of a part of the state: the asked dimensions and their companions."""
        return len(self.model.transition) // order(self.lead)

    def check(self, channels: int) -> None:
        """Raise ValueError unless all shapes fit together."""
        m, size, asked = self.model, len(self.model.transition), len(self.columns)
        square = all(a.shape == (size, size) for a in (m.transition, m.process, m.prior))
        if not square or size != self.width * order(self.lead) or not 0 < asked <= self.width or self.stride < 1:
            raise ValueError("the state's matrices do not fit each other")
        if m.tuning.shape != (channels, size) or m.noise.shape != (channels, channels):
            raise ValueError("the observation model does not fit the channels")
        if not self.scaler.mean.shape == self.scaler.sd.shape == (channels,):
            raise ValueError("the scaler does not fit the channels")
        if not self.center.shape == self.scale.shape == (asked,) or self.transform not in ("raw", "sqrt"):
            raise ValueError("the scales do not fit the dimensions")


class KalmanDecoder(StreamingDecoder):
    """A calibrated Kalman filter; use :class:`Kalman` to make one."""

    def __init__(
        self,
        *,
        bin_ms: float,
        channels: tuple[Channel, ...],
        behavior: tuple[BehaviorDim, ...],
        filters: tuple[Filter, ...],
        gain: str,
        report: Mapping[str, Any],
    ) -> None:
        """``gain``: ``exact`` or ``steady``. ``report``: how it was calibrated, JSON values."""
        super().__init__(bin_ms=bin_ms, channels=channels, behavior=behavior, columns=len(behavior))
        self.filters, self.gain, self.report = filters, gain, dict(report)
        self._counting = counting(channels)
        self._steps = [Step(f.model, steady=gain == "steady") for f in filters]

    def initial_state(self, rows: int) -> dict[str, Array]:
        """Per filter and phase: mean and covariance as in the calibration; and the last bins' projected signals."""
        state: dict[str, Array] = {}
        for i, (f, step) in enumerate(zip(self.filters, self._steps, strict=True)):
            size = len(step.start)
            state[f"mean_{i}"] = np.zeros((rows, f.stride, size))
            state[f"covariance_{i}"] = np.tile(step.start, (rows, f.stride, 1, 1))
            state[f"past_{i}"] = np.zeros((rows, f.stride - 1, size))
            state[f"seen_{i}"] = np.zeros((rows, f.stride - 1))
        return state

    def advance(
        self, signals_BNC: Float, present_BN: NDArray[np.bool_], state: Mapping[str, Array]
    ) -> tuple[Array, Array, dict[str, Array]]:
        """Predict and correct, bin by bin.

        With bins narrower than a step, ``stride`` filters take turns: each moves on by one step, and sees the mean of
        the step's bins; of lost ones there are fewer, which makes that mean less certain.
        """
        rows, bins, _ = signals_BNC.shape
        values = np.empty((rows, bins, self._columns))
        spread = np.empty_like(values)
        after: dict[str, Array] = {}
        for i, (f, step) in enumerate(zip(self.filters, self._steps, strict=True)):
            z_BNC = f.scaler.apply(transformed(signals_BNC, self._counting, f.transform), present_BN)
            pushed = np.concatenate((state[f"past_{i}"], z_BNC @ step.weights_CS), axis=1)
            seen = np.concatenate((state[f"seen_{i}"], present_BN), axis=1)
            mean, covariance = state[f"mean_{i}"].copy(), state[f"covariance_{i}"].copy()
            columns, at = list(f.columns), f.present
            for n in range(bins):
                phase, last = n % f.stride, slice(n, n + f.stride)
                push, share = pushed[:, last].mean(axis=1), seen[:, last].mean(axis=1)
                m, p = step(mean[:, phase], covariance[:, phase], push, share)
                mean[:, phase], covariance[:, phase] = m, p
                values[:, n, columns] = m[:, at] * f.scale + f.center
                variance = np.diagonal(p, axis1=1, axis2=2)[:, at]
                spread[:, n, columns] = np.sqrt(np.maximum(variance, 0)) * f.scale
            turn = -(bins % f.stride)
            after[f"mean_{i}"] = np.roll(mean, turn, axis=1)
            after[f"covariance_{i}"] = np.roll(covariance, turn, axis=1)
            after[f"past_{i}"], after[f"seen_{i}"] = pushed[:, bins:].copy(), seen[:, bins:].copy()
        return values, spread, after

    def save(self, folder: Path) -> None:
        """Write it as safetensors + JSON."""
        arrays: dict[str, Array] = {}
        for i, f in enumerate(self.filters):
            arrays |= {f"{name}_{i}": getattr(f.model, name) for name in MODEL}
            arrays |= {
                f"mean_{i}": f.scaler.mean,
                f"sd_{i}": f.scaler.sd,
                f"center_{i}": f.center,
                f"scale_{i}": f.scale,
            }
        filters = [
            {
                "transform": f.transform,
                "stride": f.stride,
                "lead": f.lead,
                "columns": list(f.columns),
                "chosen": dict(f.chosen),
            }
            for f in self.filters
        ]
        config = {"filters": filters, "gain": self.gain, "report": self.report}
        save_decoder(folder, kind="kalman", decoder=self, config=config, arrays=arrays)

    @classmethod
    def from_saved(
        cls,
        *,
        bin_ms: float,
        channels: tuple[Channel, ...],
        behavior: tuple[BehaviorDim, ...],
        config: Mapping[str, Any],
        arrays: Mapping[str, Array],
    ) -> KalmanDecoder:
        """The decoder that :meth:`save` wrote; raises ValueError where arrays and lists disagree."""
        filters = []
        for i, f in enumerate(config["filters"]):
            model = Model(**{name: arrays[f"{name}_{i}"] for name in MODEL})
            made = Filter(
                scaler=Scaler(arrays[f"mean_{i}"], arrays[f"sd_{i}"]),
                transform=str(f["transform"]),
                model=model,
                stride=int(f["stride"]),
                lead=int(f["lead"]),
                columns=tuple(int(c) for c in f["columns"]),
                center=arrays[f"center_{i}"],
                scale=arrays[f"scale_{i}"],
                chosen=f["chosen"],
            )
            made.check(len(channels))
            filters.append(made)
        if sorted(c for f in filters for c in f.columns) != list(range(len(behavior))):
            raise ValueError("the filters do not cover the behavior dimensions once each")
        return cls(
            bin_ms=bin_ms,
            channels=channels,
            behavior=behavior,
            filters=tuple(filters),
            gain=str(config["gain"]),
            report=config["report"],
        )
