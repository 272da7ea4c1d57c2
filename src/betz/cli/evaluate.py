"""``betz evaluate``: decoders over sessions and minutes of calibration, to a results file and a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from betz.evaluate.run import Plan


def command(
    sessions: Annotated[list[str], typer.Argument(help="Stores (all their sessions), STORE:ID, or recording files.")],
    out: Annotated[Path, typer.Option(help="Folder for results.jsonl and report.html; a run resumes from it.")],
    behavior: Annotated[
        list[str] | None,
        typer.Option(help="One task each time: names with commas, or TASK=names; 'emg_*' takes all that match."),
    ] = None,
    decoder: Annotated[
        list[str] | None, typer.Option(help="A recipe (calibrated on each session) or a saved decoder's folder.")
    ] = None,
    minutes: Annotated[str, typer.Option(help="Minutes of calibration, with commas.")] = "0.5,1,2,5",
    seeds: Annotated[str, typer.Option(help="Seeds, with commas.")] = "0",
    edges: Annotated[
        Literal["restart", "cross", "both"], typer.Option(help="At trial edges: start anew, run on, or both apart.")
    ] = "restart",
    jobs: Annotated[int, typer.Option(min=1, help="Processes side by side.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Calibrate and score decoders on recorded sessions, by minutes of calibration; write results and a report.

    Calibration is the first minutes of a session (at most 60 %), the test part its last 40 %.

    Example: betz evaluate store --behavior hand_vx,hand_vy --minutes 0.5,1,2,5 --out results
    """
    import dataclasses
    import json

    from rich.console import Console

    from betz.cli._sessions import open_sessions
    from betz.core.errors import require
    from betz.evaluate.report import report
    from betz.evaluate.results import plain, table, table_text
    from betz.evaluate.run import RunError, example, run

    for module in ("jinja2", "matplotlib"):
        require(module, extra="report")  # before an hour of computing, not after it
    plan = _plan(decoder or ["wiener"], behavior or [], minutes, seeds, edges)
    opened = open_sessions(sessions)
    failure: RunError | None = None
    try:
        rows = run(plan, opened, out=out / "results.jsonl", jobs=jobs)
    except RunError as error:
        failure, rows = error, error.rows
    console = Console(stderr=as_json, soft_wrap=True, highlight=False, markup=False)
    if as_json:
        print(json.dumps(plain([dataclasses.asdict(column) for column in table(rows)])))
    else:
        console.print(table_text(rows))
    for task, ids in rows.absent.items():
        if ids:
            console.print(f"{task}: not in {len(ids)} of {len(opened)} sessions ({', '.join(ids)})")
    if rows.resumed:
        console.print(f"{rows.resumed} of {len(rows)} results were there from an earlier run")
    if rows.torn:
        console.print(f"{rows.torn} torn lines of results.jsonl are ignored: a run was killed while it wrote")
    shown = example(plan, opened, rows)
    console.print(str(report(rows, out / "report.html", evaluations=[shown] if shown else [])))
    if failure is not None:
        raise failure


def _plan(decoders: Sequence[str], tasks: Sequence[str], minutes: str, seeds: str, edges: str) -> Plan:
    from betz.cli._sessions import recipe_or_decoder, split_names
    from betz.core.errors import ConfigError
    from betz.evaluate.run import Plan, Task

    if not tasks:
        raise ConfigError("no behavior is named.", remedy="add --behavior NAME,… (betz inspect shows the names)")
    named: dict[str, Task] = {}
    for text in tasks:
        name, equals, names = text.partition("=")
        behavior = split_names([names if equals else text])
        task = name.strip() if equals else ", ".join(behavior)
        if not behavior or not task or task in named:
            raise ConfigError(f"the task {text!r} is empty or repeated.", remedy="use --behavior TASK=NAME,NAME")
        named[task] = Task(behavior)
    found: dict[str, Any] = {}
    for text in decoders:
        name, made = recipe_or_decoder(text)
        if name in found:
            raise ConfigError(f"two decoders are named {name!r}.", remedy="rename one of the folders")
        found[name] = made
    return Plan(
        decoders=found,
        tasks=named,
        minutes=tuple(_numbers("minutes", minutes, float)),
        seeds=tuple(_numbers("seeds", seeds, int)),
        edges=("restart", "cross") if edges == "both" else (edges,),  # type: ignore[arg-type]
    )


def _numbers(name: str, text: str, kind: type[float] | type[int]) -> list[Any]:
    from betz.core.errors import ConfigError

    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--{name} {text!r} are not numbers with commas.", remedy=f"e.g. --{name} 1,2") from None
