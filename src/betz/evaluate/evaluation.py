"""Evaluation of one decoder on one session: replay, scores, traces, and how long a push took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import DataError
from betz.core.prediction import Prediction
from betz.core.session import BehaviorDim, Session
from betz.core.timegrid import Ticks
from betz.decode.decoder import Decoder
from betz.evaluate.classes import BALANCED_ACCURACY, R2, most_probable
from betz.evaluate.replay import timed_replay
from betz.evaluate.results import content_hash
from betz.evaluate.score import Float, Mask, Scores, score, settled

DRAWS = 500
"""Bootstrap samples of an interval."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A decoder's replay of one session, scored.

    Args:
        decoder: name of the decoder's kind.
        calibration: how it was calibrated, as far as the decoder tells.
        session, subject: who and what was decoded.
        bin_ms: bin width.
        time_s: (N,) start of each bin on the recording clock.
        dims: the K dimensions.
        truth_NK, predicted_NK: in the session's units, of discrete dimensions the index of the (most probable) class;
            NaN where unknown or lost.
        test_N: (N,) bins of the test part (the others are warm-up).
        scored_N: (N,) bins that were scored.
        scores: the numbers.
        push_ms: (p50, p99, max) of a push in the replay.
        push_bins: bins in a push.
        overlap_bins: test bins that the decoder was calibrated on (0 where it does not tell).
        edges: trial edges in the test part.
        session_hash: names the content that was decoded; empty where it was not computed.
        note: why this one is shown, in a report of many.
    """

    decoder: str
    calibration: Mapping[str, Any]
    session: str
    subject: str
    bin_ms: float
    time_s: Float
    dims: tuple[BehaviorDim, ...]
    truth_NK: Float
    predicted_NK: Float
    test_N: Mask
    scored_N: Mask
    scores: Scores
    push_ms: tuple[float, float, float]
    push_bins: int = 1
    overlap_bins: int = 0
    edges: int = 0
    session_hash: str = ""
    note: str = ""

    @property
    def r2(self) -> float:
        """Variance-weighted R² over the dimensions."""
        return self.scores.r2

    def rows(self) -> list[dict[str, Any]]:
        """Tidy rows: one for all dimensions together, then one a dimension."""
        bins = self.scores.bins
        common = {
            "session": self.session,
            "decoder": self.decoder,
            "scored": bins.scored,
            "lost": bins.lost,
            "unlabelled": bins.unlabelled,
        }
        low, high = self.scores.interval or (float("nan"), float("nan"))
        if self.scores.classes is not None:
            single = [{"dimension": name, "unit": "", **asdict(of)} for name, of in self.scores.classes.items()]
            all_ = {"dimension": "all", "unit": "", "balanced_accuracy": self.scores.headline}
            return [common | row for row in (all_, *single)]
        all_ = {"dimension": "all", "unit": "", "r2": self.r2, "r2_low": low, "r2_high": high}
        single = [
            {"dimension": dim.name, "unit": dim.unit, "r2": float(r2), "correlation": float(correlation)}
            for dim, r2, correlation in zip(self.dims, self.scores.r2_dims, self.scores.correlation, strict=True)
        ]
        return [common | row for row in (all_, *single)]

    def to_html(self, path: str | Path) -> Path:
        """Write the report: one self-contained HTML file. Returns its path."""
        from betz.evaluate.report import report

        return report([], path, evaluations=[self])

    def __str__(self) -> str:
        return self.summary()

    def summary(self) -> str:
        """One line: R² with its interval or balanced accuracy, dimensions, bins, and the time of a push."""
        interval = "" if self.scores.interval is None else " (95 %: {:.2f} … {:.2f})".format(*self.scores.interval)
        bins, names = self.scores.bins, ", ".join(d.name for d in self.dims)
        measure = R2 if self.scores.classes is None else BALANCED_ACCURACY
        return (
            f"{self.decoder} on {self.session}: {measure} {self.scores.headline:.3f}{interval} over {names}; "
            f"{bins.scored:,} bins scored, {bins.lost:,} lost, {bins.unlabelled:,} unlabelled; "
            f"a push took {self.push_ms[0]:.3f} ms (p99 {self.push_ms[1]:.3f} ms)"
        )


def evaluate(
    decoder: Decoder, session: Session, *, behavior: Sequence[str] | None = None, push_bins: int = 1
) -> Evaluation:
    """Replay a session through the streaming path of a calibrated decoder and score it.

    Args:
        decoder: the decoder.
        session: the part to be scored; leave out what the decoder was calibrated on (``session.after(minutes=2)``).
        behavior: names of the dimensions to score; default: all that the decoder decodes.
        push_bins: bins in a push.

    Raises:
        StreamError: the session does not fit the decoder.
        DataError: a dimension is unknown or of another unit, discrete and continuous ones are to be scored together,
            or no bin can be scored.
    """
    names = [d.name for d in decoder.behavior] if behavior is None else list(behavior)
    check_dims(decoder, session, names)
    prediction, took_ns = timed_replay(decoder, session, push_bins=push_bins)
    found = evaluation_of(decoder, session, prediction, took_ns, names=names, push_bins=push_bins, draws=DRAWS)
    return replace(found, session_hash=content_hash(session))


def check_dims(decoder: Decoder, session: Session, names: Sequence[str]) -> None:
    """Raise :class:`DataError` unless decoder and session both have these dimensions, in the same units and classes.

    They must all be continuous, or all discrete.
    """
    units = {d.name: d.unit for d in decoder.behavior}
    classes = {d.name: d.classes for d in decoder.behavior}
    dims, where = session.dims_of(names), f"session {session.id}"
    for dim in dims:
        if dim.name not in units:
            has = ", ".join(units)
            raise DataError(f"the decoder does not decode {dim.name!r}.", where=where, remedy=f"it decodes {has}")
        if classes[dim.name] != dim.classes:
            raise DataError(
                f"{dim.name!r} has the classes {list(dim.classes)} here, the decoder {list(classes[dim.name])}.",
                where=where,
                remedy="score it on behavior with the classes it was calibrated with",
            )
        if units[dim.name] != dim.unit:
            raise DataError(
                f"{dim.name!r} is in {dim.unit!r} here, but the decoder gives {units[dim.name]!r}.",
                where=where,
                remedy="score it on behavior in the unit it was calibrated with",
            )
    kinds = {dim.kind: dim.name for dim in dims}
    if len(kinds) > 1:
        raise DataError(
            f"{kinds['continuous']!r} is continuous and {kinds['discrete']!r} discrete: they have no common score.",
            where=where,
            remedy="score them apart, as behavior=[…] or as tasks of their own",
        )


def evaluation_of(
    decoder: Decoder,
    session: Session,
    prediction: Prediction,
    took_ns: NDArray[np.int64],
    *,
    names: Sequence[str],
    push_bins: int = 1,
    first_test_bin: int = 0,
    edges: Ticks | None = None,
    scale: Float | None = None,
    draws: int = 0,
) -> Evaluation:
    """Score a replay that is done.

    Args:
        decoder, session, prediction, took_ns: what :func:`~betz.evaluate.replay.timed_replay` took and gave.
        names: dimensions to score; :func:`check_dims` has passed.
        push_bins: bins in a push, for the record.
        first_test_bin: bins before it are warm-up.
        edges: trial edges, where the session was decoded across them (default: the session's own).
        scale: (K,) units of measure in which errors and variances are counted.
        draws: bootstrap samples of the interval; 0 = none.
    """
    dims, at = session.dims_of(names), columns_of(decoder.behavior)
    truth_NK = session.behavior_of(names)
    if dims[0].kind == "discrete":
        predicted_NK = most_probable(prediction.values[0], decoder.behavior, names)
    else:
        predicted_NK = prediction.values[0][:, [at[n] for n in names]]
    test_N = np.arange(session.num_bins) >= first_test_bin
    edges = session.edges if edges is None else edges
    low, high = session.span
    inside = edges[(edges >= low) & (edges < high)]
    scores, scored_N = score(
        truth_NK,
        predicted_NK,
        prediction.valid[0],
        dims=dims,
        test_N=test_N,
        bin_s=session.grid.bin_s,
        settled_N=settled(session, edges) if len(inside) else None,
        scale=scale,
        draws=draws,
        where=f"session {session.id}",
    )
    calibration = dict(getattr(decoder, "report", {}))
    quantiles = np.quantile(took_ns, (0.5, 0.99, 1.0)) / 1e6
    return Evaluation(
        decoder=str(calibration.get("recipe", type(decoder).__name__)),
        calibration=calibration,
        session=session.id,
        subject=session.subject,
        bin_ms=session.bin_ms,
        time_s=session.grid.seconds(session.grid.start_of(np.arange(session.num_bins))),
        dims=dims,
        truth_NK=truth_NK,
        predicted_NK=predicted_NK,
        test_N=test_N,
        scored_N=scored_N,
        scores=scores,
        push_ms=(float(quantiles[0]), float(quantiles[1]), float(quantiles[2])),
        push_bins=push_bins,
        overlap_bins=_overlap(calibration, session, test_N),
        edges=len(inside),
    )


def columns_of(behavior: Sequence[BehaviorDim]) -> dict[str, int]:
    """Column of each dimension in a prediction (the first class of a discrete one)."""
    widths = [1 if dim.kind == "continuous" else len(dim.classes) for dim in behavior]
    first = np.cumsum([0, *widths[:-1]]).tolist()
    return {dim.name: at for dim, at in zip(behavior, first, strict=True)}


def _overlap(calibration: Mapping[str, Any], session: Session, test_N: Mask) -> int:
    """Test bins inside the ticks that the decoder was calibrated on, if it says which."""
    if calibration.get("session") != session.id or "span" not in calibration:
        return 0
    low, high = calibration["span"]
    start_N = session.grid.start_of(np.arange(session.num_bins))
    return int((test_N & (start_N >= low) & (start_N < high)).sum())
