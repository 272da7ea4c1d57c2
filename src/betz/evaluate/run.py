"""Runs over many cells: sessions × minutes of calibration × decoders × seeds, resumable, one JSON line a result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from betz.core.errors import BetzError
from betz.core.session import Session
from betz.evaluate.cells import Cell, cells_of, compute, decode, evaluation, heads_of, work
from betz.evaluate.classes import headline, measure
from betz.evaluate.evaluation import DRAWS, Evaluation, evaluate
from betz.evaluate.plan import RECIPES, Plan, Task
from betz.evaluate.pool import each
from betz.evaluate.results import Row, append_row, description, read_rows, table_text

__all__ = ["RECIPES", "Plan", "Results", "RunError", "Task", "evaluate", "example", "run", "table_text"]


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
    cells, absent = cells_of(plan, sessions)
    out.parent.mkdir(parents=True, exist_ok=True)
    earlier, torn = read_rows(out)
    known = {row["key"]: row for row in earlier if not row.get("error")}
    recipes = {name: description(decoder) for name, decoder in plan.decoders.items()}
    by_id = {session.id: session for session in sessions}
    heads = [heads_of(plan, by_id[cell.session], cell, recipes[cell.decoder]) for cell in cells]
    todo = [
        (cell, missing)
        for cell, wanted in zip(cells, heads, strict=True)
        if (missing := {task: head for task, head in wanted.items() if head["key"] not in known})
    ]
    resumed = sum(map(len, heads)) - sum(len(missing) for _, missing in todo)
    shared: dict[tuple[object, ...], list[tuple[Cell, dict[str, Row]]]] = {}
    for cell, missing in todo:
        shared.setdefault(work(by_id[cell.session], cell), []).append((cell, missing))
    items = list(shared.values())
    with _bar(len(cells), progress) as advance:
        advance("", len(cells) - len(todo))
        for index, computed in each(compute, (plan, by_id), items, jobs=jobs):
            for row in computed:
                known[row["key"]] = append_row(out, row)
            cell = items[index][0][0]
            advance(f"{cell.session} · {cell.minutes:g} min · {cell.decoder}", len(items[index]))
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
    cell = Cell(
        session.id,
        row["session_hash"],
        plan.tasks_of(row["decoder"], session),
        row["minutes"],
        row["decoder"],
        row["seed"],
        row["edges"],
    )
    found = evaluation(plan, decode(plan, session, cell), row["task"], draws=DRAWS)
    notes = [f"Of {len(most)} sessions the one with the median {measure(row)}."] if len(most) > 1 else []
    if row["percentile_unit"]:
        notes.append(f"R² is in units of each dimension's percentile {row['percentile_unit']:g}, as in the run.")
    return replace(found, decoder=row["decoder"], session_hash=row["session_hash"], note=" ".join(notes))


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
