"""What is in a session, and what looks wrong with it: channels, behavior, time, and the lag between the two."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from betz.core.session import Session
from betz.data.importers import checks
from betz.decode.features import Float
from betz.evaluate import inspect_warnings as warn
from betz.evaluate.channels import ChannelReport, check_channels
from betz.evaluate.lags import LagCurve, sweep
from betz.evaluate.report import derivation_text
from betz.evaluate.results import plain


@dataclass(frozen=True)
class BehaviorLine:
    """One dimension of behavior in the session's bins.

    Args:
        name, unit: as recorded or derived.
        rate_hz: at which it is sampled.
        known: share of the usable bins in which it has a value.
        least, low, median, high, most: smallest, percentiles 1, 50, 99, largest; NaN if it has no value.
        derived: how it was computed, whether that looks ahead, and its group delay; empty if it was recorded.
        classes: of a discrete dimension.
    """

    name: str
    unit: str
    rate_hz: float
    known: float
    least: float
    low: float
    median: float
    high: float
    most: float
    derived: str
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TimeReport:
    """Gaps, edges and trials.

    Args:
        usable: share of the bins that are wholly valid.
        gaps: (first bin, end bin) of each stretch that is not.
        edges: trial edges inside the session.
        segments: stretches without a gap or an edge, and the median length of one in seconds.
        trials, conditions: how many.
    """

    usable: float
    gaps: tuple[tuple[int, int], ...]
    edges: int
    segments: int
    segment_s: float
    trials: int
    conditions: int


@dataclass(frozen=True, eq=False)
class Inspection:
    """What was found in a session.

    Args:
        session: which was looked at.
        channels, behavior, time, lags: the findings.
        warnings: what looks wrong, in sentences; empty for a clean session.
        notes: what is worth knowing, and what could not be looked at.
    """

    session: Session
    channels: ChannelReport
    behavior: tuple[BehaviorLine, ...]
    time: TimeReport
    lags: tuple[LagCurve, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    def kinds(self) -> dict[str, int]:
        """Number of channels by kind and array, e.g. ``{"crossings of array A": 96}``."""
        return dict(Counter(f"{c.kind} of array {c.array}" for c in self.session.channels))

    def units(self) -> dict[str, list[str]]:
        """Names of the behavior dimensions by unit; those of discrete ones are under ``"classes"``."""
        found: dict[str, list[str]] = {}
        for line in self.behavior:
            found.setdefault("classes" if line.classes else line.unit, []).append(line.name)
        return found

    def summary(self) -> str:
        """Everything as plain text."""
        from betz.evaluate.inspect_text import summary

        return summary(self)

    def __str__(self) -> str:
        return self.summary()

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        s, c = self.session, self.channels
        flags: dict[int, list[str]] = {}
        for name, which in (("dead", c.dead), ("near-dead", c.near_dead), ("noisy", c.noisy)):
            for k in which:
                flags.setdefault(k, []).append(name)
        ids = [channel.id for channel in s.channels]
        found = {
            "id": s.id,
            "subject": s.subject,
            "task": s.task,
            "tags": s.tags,
            "minutes": s.minutes,
            "bin_ms": s.bin_ms,
            "bins": s.num_bins,
            "licence": s.licence,
            "provenance": {name: getattr(s.provenance, name) for name in s.provenance.__dataclass_fields__},
            "channels": [
                {
                    "id": one.id,
                    "kind": one.kind,
                    "array": one.array,
                    "unit": one.unit or "1/s",
                    "rate": rate,
                    "flags": flags.get(k, []),
                }
                for k, (one, rate) in enumerate(zip(s.channels, c.rate.tolist(), strict=True))
            ],
            "duplicated": [{"channels": [ids[a], ids[b]], "r": r} for a, b, r in c.duplicated],
            "noisy": {ids[k]: {"kind": noise.kind, "detail": noise.detail} for k, noise in c.noisy.items()},
            "together_bins": c.together,
            "behavior": [{name: getattr(line, name) for name in line.__dataclass_fields__} for line in self.behavior],
            "time": {name: getattr(self.time, name) for name in self.time.__dataclass_fields__},
            "lags": [
                {
                    "group": curve.group,
                    "dims": curve.dims,
                    "lag_ms": curve.lag_ms,
                    "r2": curve.r2,
                    "best_ms": curve.best_ms,
                    "best_r2": curve.best_r2,
                    "delay_ms": curve.delay_ms,
                }
                for curve in self.lags
            ],
            "warnings": self.warnings,
            "notes": self.notes,
        }
        out: dict[str, Any] = plain(found)
        return out

    def to_html(self, path: str | Path) -> Path:
        """Write a page with tables and plots: one self-contained HTML file. Returns its path."""
        from betz.evaluate.inspect_page import page

        return page([self], path)


def inspect(session: Session) -> Inspection:
    """Look at a session: a second or two for 20 minutes of 96 channels.

    Args:
        session: any; without behavior, with power alone, or all dead, there is less to look at.

    Returns:
        The findings; ``warnings`` says what looks wrong.

    >>> from betz.data.arrays import from_arrays
    >>> found = inspect(from_arrays(np.eye(1000, 3, dtype=np.uint8), bin_ms=20))
    >>> found.warnings[0]
    '3 of 3 channels are near-dead, with less than 0.1 spikes a second: ch0, ch1, ch2'
    """
    bin_s = session.grid.bin_s
    channels = check_channels(session)
    dims = session.dims
    values_NK = session.behavior_of([d.name for d in dims]) if dims else np.empty((session.num_bins, 0))
    behavior = _behavior(session, values_NK)
    curves, reasons = sweep(session, dims, values_NK) if dims else ([], ["there is no behavior"])
    lag_warnings, lag_notes = warn.of_lags(curves)
    notes = [
        *warn.few_together(channels),
        *warn.partly_known([(line.name, line.known) for line in behavior]),
        *lag_notes,
        *reasons,
        *channels.not_checked,
    ]
    return Inspection(
        session=session,
        channels=channels,
        behavior=behavior,
        time=_time(session),
        lags=tuple(curves),
        warnings=(*warn.of_channels(session, channels), *warn.of_behavior(dims, values_NK, bin_s), *lag_warnings),
        notes=tuple(notes),
    )


def _behavior(session: Session, values_NK: Float) -> tuple[BehaviorLine, ...]:
    lines = []
    usable = session.usable
    rates = [session.grid.tick_hz / s.ticks_per_sample for s in session.behavior for _ in s.dims]
    for k, dim in enumerate(session.dims):
        column = values_NK[usable, k]
        column = column[np.isfinite(column)]
        numbers = np.percentile(column, (0, 1, 50, 99, 100)).tolist() if len(column) else [float("nan")] * 5
        least, low, median, high, most = numbers
        lines.append(
            BehaviorLine(
                name=dim.name,
                unit=dim.unit,
                rate_hz=float(rates[k]),
                known=len(column) / max(int(usable.sum()), 1),
                least=least,
                low=low,
                median=median,
                high=high,
                most=most,
                derived=derivation_text(dim),
                classes=dim.classes,
            )
        )
    return tuple(lines)


def _time(session: Session) -> TimeReport:
    low, high = session.span
    lengths = [end - first for first, end in session.segments]
    trials = session.trials
    return TimeReport(
        usable=float(session.usable.mean()),
        gaps=tuple(checks.stretches(~session.usable)),
        edges=int(np.count_nonzero((session.edges > low) & (session.edges < high))),
        segments=len(lengths),
        segment_s=float(np.median(lengths)) * session.grid.bin_s if lengths else 0.0,
        trials=0 if trials is None else len(trials),
        conditions=0 if trials is None else len(set(trials.condition) - {""}),
    )
