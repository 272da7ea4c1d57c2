"""One cell of a run: a calibration on the first minutes of a session, a replay of its last 40 %, scores of each task.

The replay starts 20 s earlier, unlabelled and not scored. Everything that a decoder uses comes from the calibration.
"""

from __future__ import annotations

import datetime
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from betz.core.config import config_hash
from betz.core.errors import BetzError, ConfigError, DataError
from betz.core.prediction import Prediction
from betz.core.session import Array, Session
from betz.decode.decoder import Decoder
from betz.evaluate.classes import class_numbers
from betz.evaluate.evaluation import Evaluation, check_dims, evaluation_of
from betz.evaluate.plan import Plan
from betz.evaluate.replay import timed_replay
from betz.evaluate.results import FORMAT_VERSION, Row, content_hash, environment, is_recipe

WARMUP_MINUTES = 20 / 60
UNLABELLED_MINUTES = 1.0
"""Signals, without labels, that a calibration of 0 minutes gets."""


@dataclass(frozen=True)
class Cell:
    """One calibration and one replay of the session of this id, scored for every task."""

    session: str
    session_hash: str
    tasks: Mapping[str, list[str]]
    minutes: float
    decoder: str
    seed: int
    edges: str


def cells_of(plan: Plan, sessions: Sequence[Session]) -> tuple[list[Cell], dict[str, tuple[str, ...]]]:
    ids = [session.id for session in sessions]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice or not ids:
        what = f"sessions given twice: {', '.join(twice)}." if twice else "there is no session."
        raise ConfigError(what, where="run", remedy="give each session once; rename one if they differ")
    cells = []
    decoded: set[str] = set()
    has: dict[str, list[str]] = {task: [] for task in plan.tasks}
    for session in sessions:
        for task in plan.names_in(session):
            has[task].append(session.id)
        by_decoder = {decoder: plan.tasks_of(decoder, session) for decoder in plan.decoders}
        decoded |= {task for tasks in by_decoder.values() for task in tasks}
        if not any(by_decoder.values()):
            continue
        hash_ = content_hash(session)
        for edges, minutes, decoder in product(_modes(plan, session), plan.minutes, plan.decoders):
            tasks = by_decoder[decoder]
            if not tasks:
                continue
            if is_recipe(plan.decoders[decoder]):
                cells += [Cell(session.id, hash_, tasks, minutes, decoder, seed, edges) for seed in plan.seeds]
            elif minutes == plan.minutes[0]:
                cells.append(Cell(session.id, hash_, tasks, 0.0, decoder, plan.seeds[0], edges))
    for task, found in has.items():
        if not found:
            wanted = ", ".join(plan.task(task).behavior)
            some = ", ".join(d.name for d in sessions[0].dims) or "none"
            raise ConfigError(
                f"no session has the behavior of task {task!r} ({wanted}).",
                where="run",
                remedy=f"session {sessions[0].id} has {some}",
            )
        if task not in decoded:
            raise ConfigError(
                f"no decoder of the plan decodes task {task!r}: its kind of behavior is none of theirs.",
                where="run",
                remedy="discrete behavior: LDA, Logistic; continuous behavior: Wiener, Kalman, OLE, GRU; never mixed",
            )
    return cells, {task: tuple(i for i in ids if i not in found) for task, found in has.items()}


def _modes(plan: Plan, session: Session) -> tuple[str, ...]:
    low, high = session.span
    return plan.edges if np.any((session.edges > low) & (session.edges < high)) else ("none",)


def heads_of(plan: Plan, session: Session, cell: Cell, recipe: Mapping[str, Any]) -> dict[str, Row]:
    """By task, the part of a row that says what it is the result of."""
    heads = {}
    for task, names in cell.tasks.items():
        what = {
            "format": FORMAT_VERSION,
            "session": cell.session,
            "session_hash": cell.session_hash,
            "task": task,
            "asked": names,
            "percentile_unit": plan.task(task).percentile_unit,
            "calibrated_with": sorted({n for found in cell.tasks.values() for n in found}),
            "decoder": cell.decoder,
            "recipe": dict(recipe),
            "minutes": cell.minutes,
            "seed": cell.seed,
            "edges": cell.edges,
            "push_bins": plan.push_bins,
        }
        if cell.decoder in plan.budgets:
            what["budget_s"] = plan.budgets[cell.decoder]
        if cell.session in plan.histories:
            what["history"] = list(plan.histories[cell.session].sessions)
        heads[task] = {"key": config_hash(what), **what, "subject": session.subject, "bin_ms": session.bin_ms}
    return heads


@dataclass(frozen=True)
class Decoded:
    """A cell after its calibration and its replay."""

    cell: Cell
    session: Session
    decoder: Decoder
    test: Session
    first_test_bin: int
    prediction: Prediction
    took_ns: Array
    calibrate_s: float
    minutes_used: float
    dropped: Mapping[str, str]


def _calibration_bins(session: Session, minutes: float) -> int:
    """The first ``minutes``, at most 60 % of the session."""
    return min(max(session.grid.bins_in(minutes), 1), session.num_bins * 6 // 10)


def work(session: Session, cell: Cell) -> tuple[str, str, int, str, int]:
    """Cells that agree in this are the same calibration and replay: more minutes were asked for than there are."""
    bins = _calibration_bins(session, cell.minutes) if cell.minutes else 0
    return cell.session, cell.decoder, cell.seed, cell.edges, bins


def decode(plan: Plan, session: Session, cell: Cell) -> Decoded:
    whole = session.without_edges() if cell.edges == "cross" else session
    cut = whole.num_bins * 6 // 10
    if cut < 1:
        raise DataError(f"{whole.num_bins} bins are too few to cut.", where=f"session {whole.id}")
    asked = list(dict.fromkeys(n for names in cell.tasks.values() for n in names))
    decoder, used, seconds, dropped = plan.decoders[cell.decoder], 0.0, 0.0, {}
    if is_recipe(decoder):
        calibration = whole.between(0, _calibration_bins(whole, cell.minutes or UNLABELLED_MINUTES))
        if not cell.minutes:
            calibration = replace(calibration, behavior=())
        dropped = _dropped(calibration, asked) if cell.minutes else {}
        names = [n for n in asked if n not in dropped]
        if not names:
            raise DataError(
                f"no behavior varies in the {calibration.minutes:.2f} minutes of calibration.",
                where=f"session {whole.id}",
                remedy="calibrate on more minutes",
            )
        begun = time.perf_counter()
        options: dict[str, Any] = {}
        if cell.decoder in plan.budgets:
            options["budget_s"] = plan.budgets[cell.decoder]
        if cell.session in plan.histories:
            options["history"] = plan.histories[cell.session]
        decoder = decoder.calibrate(calibration, behavior=names, seed=cell.seed, **options)
        seconds, used = time.perf_counter() - begun, calibration.minutes if cell.minutes else 0.0
    start = max(cut - whole.grid.bins_in(WARMUP_MINUTES), 0)
    test = whole.between(start, whole.num_bins)
    prediction, took_ns = timed_replay(decoder, test, push_bins=plan.push_bins)
    return Decoded(cell, session, decoder, test, cut - start, prediction, took_ns, seconds, used, dropped)


def _dropped(calibration: Session, names: list[str]) -> dict[str, str]:
    """Dimensions that nothing can be learned of, and why."""
    y_NK = calibration.behavior_of(names)[calibration.usable]
    found = {}
    for name, column in zip(names, y_NK.T, strict=True):
        known = column[np.isfinite(column)]
        if not known.size:
            found[name] = "no labels in the calibration"
        elif np.ptp(known) == 0:
            found[name] = "constant in the calibration"
    return found


def evaluation(plan: Plan, done: Decoded, task: str, *, draws: int = 0) -> Evaluation:
    names = [n for n in done.cell.tasks[task] if n not in done.dropped]
    session, where = done.session, f"session {done.session.id}, task {task}"
    if not names:
        raise DataError(f"every dimension is left out: {dict(done.dropped)}.", where=where)
    check_dims(done.decoder, done.test, names)
    scale = None
    percentile = plan.task(task).percentile_unit
    if percentile is not None:
        if any(d.kind == "discrete" for d in session.dims_of(names)):
            raise DataError("a percentile is no unit of classes.", where=where, remedy="leave out percentile_unit")
        scale = np.nanpercentile(session.behavior_of(names), percentile, axis=0)
        if not np.all(scale > 0):
            bad = ", ".join(n for n, unit in zip(names, scale, strict=True) if not unit > 0)
            raise DataError(
                f"percentile {percentile:g} of {bad} is not above 0, so it is no unit of measure.", where=where
            )
    return evaluation_of(
        done.decoder,
        done.test,
        done.prediction,
        done.took_ns,
        names=names,
        push_bins=plan.push_bins,
        first_test_bin=done.first_test_bin,
        edges=session.edges,
        scale=scale,
        draws=draws,
    )


def compute(common: tuple[Plan, Mapping[str, Session]], cells: Sequence[tuple[Cell, Mapping[str, Row]]]) -> list[Row]:
    """Rows of the tasks of cells of one :func:`work`; an error becomes a row, so that the other cells go on."""
    plan, by_id = common
    stamp = {"when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), **environment()}
    wanted = [(task, head) for _, heads in cells for task, head in heads.items()]
    try:
        done = decode(plan, by_id[cells[0][0].session], cells[0][0])
    except Exception as error:
        return [{**head, **_failure(error), **stamp} for _, head in wanted]
    numbers: dict[str, Row] = {}
    for task in dict.fromkeys(task for task, _ in wanted):
        try:
            found = evaluation(plan, done, task)
            numbers[task] = _numbers(done, found, done.cell.tasks[task]) | {"error": None}
        except Exception as error:
            numbers[task] = _failure(error)
    return [{**head, **numbers[task], **stamp} for task, head in wanted]


def _failure(error: Exception) -> Row:
    text = str(error) if isinstance(error, BetzError) else f"{type(error).__name__}: {error}"
    return {"error": text, "traceback": "".join(traceback.format_exception(error))}


def _numbers(done: Decoded, found: Evaluation, asked: Sequence[str]) -> Row:
    scores = found.scores
    names = [d.name for d in found.dims]
    numbers = {
        "dims": names,
        "units": [d.unit for d in found.dims],
        "dropped": {n: done.dropped[n] for n in asked if n in done.dropped},
        "minutes_used": done.minutes_used,
        "test_minutes": scores.bins.total * done.test.grid.bin_s / 60,
        "r2": scores.r2,
        "r2_uniform": scores.r2_uniform,
        "r2_dims": dict(zip(names, scores.r2_dims.tolist(), strict=True)),
        "correlation": dict(zip(names, scores.correlation.tolist(), strict=True)),
        "angle_deg": dict(scores.angle_deg),
        "r2_settled": scores.r2_settled,
        "settled": scores.settled,
        "scored": scores.bins.scored,
        "lost": scores.bins.lost,
        "unlabelled": scores.bins.unlabelled,
        "overlap_bins": found.overlap_bins,
        "calibrate_s": done.calibrate_s,
        "push_p50_ms": found.push_ms[0],
        "push_p99_ms": found.push_ms[1],
    }
    return numbers if scores.classes is None else numbers | class_numbers(scores.classes)
