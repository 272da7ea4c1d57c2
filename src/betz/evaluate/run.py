"""Runs over many cells: sessions × minutes of calibration × decoders × seeds, resumable, one JSON line a result.

Calibration is the first min(m minutes, 60 %) of a session, the test part its last 40 %. The replay starts 20 s
earlier, unlabelled and not scored. Everything that a decoder uses comes from the calibration part.
"""

from __future__ import annotations

import datetime
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from betz.core.config import config_hash, frozen_config
from betz.core.errors import BetzError, ConfigError, DataError
from betz.core.prediction import Prediction
from betz.core.session import Array, Session
from betz.decode.decoder import Decoder
from betz.evaluate.classes import class_numbers, headline, measure
from betz.evaluate.evaluation import DRAWS, Evaluation, check_dims, evaluate, evaluation_of
from betz.evaluate.pool import each
from betz.evaluate.replay import timed_replay
from betz.evaluate.results import (
    FORMAT_VERSION,
    Row,
    append_row,
    content_hash,
    description,
    environment,
    is_recipe,
    read_rows,
    table_text,
)

__all__ = ["RECIPES", "Plan", "Results", "RunError", "Task", "evaluate", "example", "run", "table_text"]

RECIPES = {
    "wiener": "betz.decode.baselines.wiener:Wiener",
    "kalman": "betz.decode.baselines.kalman:Kalman",
    "ole": "betz.decode.baselines.ole:OLE",
    "lda": "betz.decode.baselines.discrete:LDA",
    "logistic": "betz.decode.baselines.discrete:Logistic",
    "gru": "betz.decode.baselines.recurrent:GRU",
    "lstm": "betz.decode.baselines.recurrent:LSTM",
}
"""Class of each recipe that the command line knows by name, imported when it is asked for."""
KINDS = ("continuous", "discrete")
WARMUP_MINUTES = 20 / 60

Edges = Literal["restart", "cross"]


@frozen_config
class Task:
    """Dimensions that are scored together.

    Args:
        behavior: names; ``emg_*`` stands for all that match, in recorded order.
        percentile_unit: count errors and variances in units of this percentile of each dimension over the whole
            session (99 for EMG), so that no loud muscle dominates. A unit of measure: decoders never see it.
    """

    behavior: tuple[str, ...]
    percentile_unit: float | None = None

    def __post_init__(self) -> None:
        if not self.behavior or not (self.percentile_unit is None or 0 < self.percentile_unit <= 100):
            raise ConfigError("it needs a behavior, and a percentile in (0, 100].", where="Task settings")

    def names_in(self, session: Session) -> list[str]:
        """The names that it has in a session; empty if any of them is missing there."""
        known = [d.name for d in session.dims]
        found = [[n for n in known if n == wanted or fnmatchcase(n, wanted)] for wanted in self.behavior]
        return list(dict.fromkeys(n for names in found for n in names)) if all(found) else []


@frozen_config
class Plan:
    """What a run computes: every combination of these, for every session.

    Args:
        decoders: recipes, or fixed decoders (which are not calibrated: 0 minutes), by name.
        tasks: names of behavior, or a :class:`Task`, by name. All tasks of a session are calibrated in one call, but
            for those that a recipe cannot decode: it may say ``decodes = ("continuous",)`` or ``("discrete",)``.
        minutes: lengths of the calibration.
        seeds: given to ``calibrate``.
        edges: sessions with trial edges are decoded with a ``restart`` at each, or ``cross`` them.
        push_bins: bins in a push.
    """

    decoders: Mapping[str, Any]
    tasks: Mapping[str, Task | tuple[str, ...]]
    minutes: tuple[float, ...]
    seeds: tuple[int, ...] = (0,)
    edges: tuple[Edges, ...] = ("restart",)
    push_bins: int = 1

    def __post_init__(self) -> None:
        for name in ("decoders", "tasks", "minutes", "seeds", "edges"):
            if not getattr(self, name):
                raise ConfigError(f"{name} is empty.", where="Plan settings")
        if min(self.minutes) <= 0 or self.push_bins < 1:
            raise ConfigError("minutes must be above 0, push_bins at least 1.", where="Plan settings")
        for decoder in self.decoders.values():
            description(decoder)

    def task(self, name: str) -> Task:
        """The task of this name."""
        found = self.tasks[name]
        return found if isinstance(found, Task) else Task(found)

    def names_in(self, session: Session) -> dict[str, list[str]]:
        """The behavior names that each task has in a session; without the tasks that it lacks."""
        return {name: names for name in self.tasks if (names := self.task(name).names_in(session))}

    def tasks_of(self, decoder: str, session: Session) -> dict[str, list[str]]:
        """:meth:`names_in`, without the tasks of a kind of behavior that the decoder's recipe does not decode."""
        kinds = getattr(self.decoders[decoder], "decodes", KINDS)
        tasks = self.names_in(session)
        return {task: names for task, names in tasks.items() if {d.kind for d in session.dims_of(names)} <= set(kinds)}


class Results(list[Row]):
    """The rows of a run, one a cell of the plan, in the plan's order; see the reference page on results.

    Attributes:
        resumed: how many of them were there before.
        absent: by task, the sessions that do not have its behavior.
        torn: unreadable lines of the results file, each left by a run that was killed while writing.
    """

    def __init__(
        self, rows: Iterable[Row], *, resumed: int = 0, absent: Mapping[str, tuple[str, ...]], torn: int = 0
    ) -> None:
        super().__init__(rows)
        self.resumed, self.absent, self.torn = resumed, dict(absent), torn


class RunError(BetzError):
    """Some cells of a run failed; ``rows`` has all results, those with errors included."""

    def __init__(self, what: str, *, where: str, remedy: str, rows: Results) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.rows = rows


@dataclass(frozen=True)
class _Cell:
    """One calibration and one replay of the session of this id, scored for every task."""

    session: str
    session_hash: str
    tasks: Mapping[str, list[str]]
    minutes: float
    decoder: str
    seed: int
    edges: str


def run(plan: Plan, sessions: Sequence[Session], *, out: Path, jobs: int = 1, progress: bool = True) -> Results:
    """Compute what is missing in a results file.

    Args:
        plan: what to compute.
        sessions: whole sessions; they are cut here.
        out: the JSON-lines file; it is appended to, and results that are there already are not computed again.
        jobs: processes that compute cells side by side; each uses its share of the cores.
        progress: show a bar on stderr.

    Raises:
        ConfigError: a session is given twice, no session has a task's behavior, or ``jobs`` is below 1.
        RunError: cells failed. Their rows say why; another run tries them again.
    """
    out = Path(out)
    cells, absent = _cells(plan, sessions)
    out.parent.mkdir(parents=True, exist_ok=True)
    earlier, torn = read_rows(out)
    known = {row["key"]: row for row in earlier if not row.get("error")}
    recipes = {name: description(decoder) for name, decoder in plan.decoders.items()}
    by_id = {session.id: session for session in sessions}
    heads = [_heads(plan, by_id[cell.session], cell, recipes[cell.decoder]) for cell in cells]
    todo = [
        (cell, missing)
        for cell, wanted in zip(cells, heads, strict=True)
        if (missing := {task: head for task, head in wanted.items() if head["key"] not in known})
    ]
    resumed = sum(map(len, heads)) - sum(len(missing) for _, missing in todo)
    with _bar(len(cells), progress) as advance:
        advance("", len(cells) - len(todo))
        for index, computed in each(_compute, (plan, by_id), todo, jobs=jobs):
            cell = todo[index][0]
            for row in computed:
                known[row["key"]] = append_row(out, row)
            advance(f"{cell.session} · {cell.minutes:g} min · {cell.decoder}", 1)
    rows = [known[head["key"]] for wanted in heads for head in wanted.values()]
    found = Results(rows, resumed=resumed, absent=absent, torn=torn)
    failed = [row for row in rows if row["error"]]
    if failed:
        reasons = dict.fromkeys(f"{row['error']}" for row in failed)
        shown = " | ".join(list(reasons)[:3])
        raise RunError(
            f"{len(failed)} of {len(rows)} results are errors: {shown}" + (" | …" if len(reasons) > 3 else ""),
            where=str(out),
            remedy="their rows have the traceback; run again to try only these",
            rows=found,
        )
    return found


def example(plan: Plan, sessions: Sequence[Session], rows: Sequence[Row]) -> Evaluation | None:
    """The cell whose traces a report shows: computed anew, since traces are not kept.

    Args:
        plan, sessions, rows: what was run, and the rows that it gave.

    Returns:
        Of the first task, edges mode and decoder after most minutes, the session with the median score (of an even
        number, the lower one); None if every cell failed.
    """
    good = [row for row in rows if not row["error"]]
    if not good:
        return None
    first = good[0]
    line = [row for row in good if all(row[k] == first[k] for k in ("task", "edges", "decoder", "seed"))]
    most = [row for row in line if row["minutes"] == max(r["minutes"] for r in line)]
    row = sorted(most, key=headline)[(len(most) - 1) // 2]
    session = next(s for s in sessions if s.id == row["session"])
    cell = _Cell(
        session.id,
        row["session_hash"],
        plan.tasks_of(row["decoder"], session),
        row["minutes"],
        row["decoder"],
        row["seed"],
        row["edges"],
    )
    found = _evaluation(plan, _decode(plan, session, cell), row["task"], draws=DRAWS)
    notes = [f"Of {len(most)} sessions the one with the median {measure(row)}."] if len(most) > 1 else []
    if row["percentile_unit"]:
        notes.append(f"R² is in units of each dimension's percentile {row['percentile_unit']:g}, as in the run.")
    return replace(found, decoder=row["decoder"], session_hash=row["session_hash"], note=" ".join(notes))


# ---- cells


def _cells(plan: Plan, sessions: Sequence[Session]) -> tuple[list[_Cell], dict[str, tuple[str, ...]]]:
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
                cells += [_Cell(session.id, hash_, tasks, minutes, decoder, seed, edges) for seed in plan.seeds]
            elif minutes == plan.minutes[0]:
                cells.append(_Cell(session.id, hash_, tasks, 0.0, decoder, plan.seeds[0], edges))
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


def _heads(plan: Plan, session: Session, cell: _Cell, recipe: Mapping[str, Any]) -> dict[str, Row]:
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
        heads[task] = {"key": config_hash(what), **what, "subject": session.subject, "bin_ms": session.bin_ms}
    return heads


@dataclass(frozen=True)
class _Decoded:
    """A cell after its calibration and its replay."""

    cell: _Cell
    session: Session
    decoder: Decoder
    test: Session
    first_test_bin: int
    prediction: Prediction
    took_ns: Array
    calibrate_s: float
    minutes_used: float
    dropped: Mapping[str, str]


def _decode(plan: Plan, session: Session, cell: _Cell) -> _Decoded:
    whole = session.without_edges() if cell.edges == "cross" else session
    cut = whole.num_bins * 6 // 10
    if cut < 1:
        raise DataError(f"{whole.num_bins} bins are too few to cut.", where=f"session {whole.id}")
    asked = list(dict.fromkeys(n for names in cell.tasks.values() for n in names))
    decoder, used, seconds, dropped = plan.decoders[cell.decoder], 0.0, 0.0, {}
    if is_recipe(decoder):
        calibration = whole.between(0, min(max(whole.grid.bins_in(cell.minutes), 1), cut))
        dropped = _dropped(calibration, asked)
        names = [n for n in asked if n not in dropped]
        if not names:
            raise DataError(
                f"no behavior varies in the {calibration.minutes:.2f} minutes of calibration.",
                where=f"session {whole.id}",
                remedy="calibrate on more minutes",
            )
        begun = time.perf_counter()
        decoder = decoder.calibrate(calibration, behavior=names, seed=cell.seed)
        seconds, used = time.perf_counter() - begun, calibration.minutes
    start = max(cut - whole.grid.bins_in(WARMUP_MINUTES), 0)
    test = whole.between(start, whole.num_bins)
    prediction, took_ns = timed_replay(decoder, test, push_bins=plan.push_bins)
    return _Decoded(cell, session, decoder, test, cut - start, prediction, took_ns, seconds, used, dropped)


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


def _evaluation(plan: Plan, done: _Decoded, task: str, *, draws: int = 0) -> Evaluation:
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


def _compute(common: tuple[Plan, Mapping[str, Session]], item: tuple[_Cell, Mapping[str, Row]]) -> list[Row]:
    """Rows of a cell's tasks; an error becomes a row, so that the other cells go on."""
    (plan, by_id), (cell, heads) = common, item
    stamp = {"when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), **environment()}
    try:
        done = _decode(plan, by_id[cell.session], cell)
    except Exception as error:
        return [{**head, **_failure(error), **stamp} for head in heads.values()]
    rows = []
    for task, head in heads.items():
        try:
            numbers = _numbers(done, _evaluation(plan, done, task), cell.tasks[task]) | {"error": None}
        except Exception as error:
            numbers = _failure(error)
        rows.append({**head, **numbers, **stamp})
    return rows


def _failure(error: Exception) -> Row:
    text = str(error) if isinstance(error, BetzError) else f"{type(error).__name__}: {error}"
    return {"error": text, "traceback": "".join(traceback.format_exception(error))}


def _numbers(done: _Decoded, found: Evaluation, asked: Sequence[str]) -> Row:
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


@contextmanager
def _bar(total: int, show: bool) -> Iterator[Callable[[str, int], None]]:
    """A progress bar on stderr; what it yields takes a text and how many cells are done since."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), disable=not show, transient=True) as bar:
        item = bar.add_task("", total=total)

        def advance(text: str, cells: int) -> None:
            bar.update(item, advance=cells, description=text or None)

        yield advance
