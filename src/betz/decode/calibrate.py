"""Calibration of Betz's own decoder: closed forms, the generalist, members trained within a budget, and their mix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import ConfigError, DataError
from betz.core.session import Session
from betz.decode.bank import without_labels
from betz.decode.dead import SilenceDetector
from betz.decode.decoder import Decoder
from betz.decode.features import counting
from betz.decode.gate import Expectation, Prior
from betz.decode.generalist import Variant
from betz.decode.history import History
from betz.decode.labels import continuous_labels
from betz.decode.members import Calibration, fold_count
from betz.decode.mix import Gate, Mix, part_of_variants, placed
from betz.decode.mixture import MixtureDecoder

if TYPE_CHECKING:
    from betz.model.generalist import Generalist

MOST_CHANNELS, SMOOTHING_MS = 256, 300.0
"""More channels than this cost more time than they are worth; those that covary most with behavior are used."""

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Betz:
    """Betz's own recipe; :func:`betz.load` of ``betz-1`` or of a trained generalist gives one.

    Args:
        network: the pretrained generalist, its members being seeds.
        name: of the weights.
        priors, expectations: of the gate, see :class:`~betz.decode.mix.Gate`.
    """

    network: Generalist
    name: str
    priors: Mapping[str, Prior] = field(default_factory=dict)
    expectations: Mapping[str, Expectation] = field(default_factory=dict)

    decodes: ClassVar[tuple[str, ...]] = ("continuous", "discrete")

    def calibrate(
        self,
        session: Session,
        *,
        behavior: Sequence[str],
        budget_s: float | None = None,
        history: History | None = None,
        seed: int = 0,
    ) -> Decoder:
        """Calibrate to all usable, labelled bins of the session.

        Args:
            session: labelled signals; take ``session.first(minutes=…)`` for less. A session without any labels of
                the behavior is calibrated from history alone.
            behavior: names of continuous dimensions; or of discrete ones alone, which linear discriminants decode.
            budget_s: seconds for members that are trained; 0 (the default) = none, no gradient step is taken.
            history: of the subject's earlier sessions.
            seed: of members with random parts.

        Raises:
            ConfigError: continuous and discrete dimensions are mixed, or the budget is negative.
            DataError: too few labelled bins, a constant dimension, no live channel, or no labels and no history.
        """
        budget_s = 0.0 if budget_s is None else budget_s
        if budget_s < 0:
            raise ConfigError(f"a budget of {budget_s:g} seconds is negative.", where="Betz.calibrate")
        if _unlabelled(session, behavior):
            return self._without_labels(session, behavior, history)
        dims = session.dims_of(list(behavior))
        if all(d.kind == "discrete" for d in dims):
            from betz.decode.baselines.discrete import LDA

            return LDA().calibrate(session, behavior=behavior, seed=seed)
        y_NK, _ = continuous_labels(session, dims, recipe="Betz")
        used = informative(session, y_NK)
        some = session
        if len(used) < len(session.channels):
            some = session.with_channels([session.channels[k].id for k in used])
        made = Calibration(some, dims, y_NK, fold_count(session.minutes), seed)
        gate = Gate(self.priors, self.expectations)
        mix = Mix(self.network, made, history=history, budget_s=budget_s, gate=gate)
        return mix.decoder(session.channels, used, self._head(session))

    def settings(self) -> dict[str, Any]:
        """What it is, as JSON values: name, hash of the weights, priors of the gate."""
        import hashlib

        values = [v.numpy().tobytes() for _, v in sorted(self.network.state_dict().items())]
        priors = {key: {"scores": dict(p.scores), "pull": p.pull} for key, p in sorted(self.priors.items())}
        return {"name": self.name, "sha256": hashlib.sha256(b"".join(values)).hexdigest()[:16], "priors": priors}

    def _without_labels(self, session: Session, behavior: Sequence[str], history: History | None) -> MixtureDecoder:
        known = {} if history is None else {d.name: d for g in history.groups.values() for d in g.dims}
        missing = [name for name in behavior if name not in known]
        if history is None or missing:
            raise DataError(
                f"there are no labels of {', '.join(missing or behavior)}, and no history that knows them.",
                where=f"calibration on session {session.id}",
                remedy="give labelled minutes, or the history of this subject's earlier sessions",
            )
        dims = tuple(known[name] for name in behavior)
        made = Calibration(session, dims, np.full((session.num_bins, len(dims)), np.nan), 1, 0)
        fits = []
        for group in made.groups:
            found = history.weights(session.channels, [dims[k] for k in group])
            if found is None:
                names = ", ".join(dims[k].name for k in group)
                raise DataError(
                    f"the history does not know {names} together on any of these channels.",
                    where=f"calibration on session {session.id}",
                    remedy="ask for the dimensions as they were recorded, or give labelled minutes",
                )
            fits.append(without_labels(group, *found))
        variants = [Variant(tuple(fits), m, True) for m in range(self.network.members)]
        part = part_of_variants(made, variants, self.network)
        scale = np.concatenate([f.scale for f in fits])[made.order]
        weight = np.full((len(variants), len(dims)), 1 / len(variants))
        return MixtureDecoder(
            bin_ms=session.bin_ms,
            channels=session.channels,
            behavior=dims,
            parts={"generalist": placed(made, part)},
            weights={"generalist": weight},
            offset=np.zeros(len(dims)),
            spread=scale,
            used=np.arange(len(session.channels)),
            silence=SilenceDetector.fit(session.signals, counting(session.channels), session.bin_ms),
            report={**self._head(session), "labelled_bins": 0, "history": list(history.sessions)},
        )

    def _head(self, session: Session) -> dict[str, Any]:
        return {
            "recipe": "betz",
            "model": self.name,
            "session": session.id,
            "span": list(session.span),
            "minutes": round(session.minutes, 4),
        }


def informative(session: Session, y_NK: Float) -> NDArray[np.int64]:
    """(C',) the channels that are used: all, or of very many those that covary most with behavior or its speed."""
    number = len(session.channels)
    if number <= MOST_CHANNELS:
        return np.arange(number)
    rows = session.usable & np.isfinite(y_NK).all(axis=1)
    width = max(1, round(SMOOTHING_MS / session.bin_ms))
    x = session.signals.astype(np.float32)
    total = np.cumsum(np.concatenate((np.zeros((width, number), np.float32), x)), axis=0, dtype=np.float64)
    smooth = (total[width:] - total[:-width])[rows]
    y = y_NK[rows]
    y = np.concatenate((y, np.sqrt((((y - y.mean(axis=0)) / y.std(axis=0)) ** 2).sum(axis=1, keepdims=True))), axis=1)
    smooth, y = smooth - smooth.mean(axis=0), y - y.mean(axis=0)
    scale = np.sqrt((smooth**2).sum(axis=0))[:, None] * np.sqrt((y**2).sum(axis=0))
    covaries = np.abs(smooth.T @ y / np.where(scale > 0, scale, np.inf)).max(axis=1)
    return np.sort(np.argsort(-covaries, kind="stable")[:MOST_CHANNELS])


def _unlabelled(session: Session, behavior: Sequence[str]) -> bool:
    names = [d.name for d in session.dims]
    if not any(name in names for name in behavior):
        return True
    known = [name for name in behavior if name in names]
    return not np.isfinite(session.behavior_of(known)[session.usable]).any()
