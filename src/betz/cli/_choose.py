"""``betz import --choose``: a table of what a recording holds, and two questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from betz.core.errors import ConfigError

if TYPE_CHECKING:
    from betz.core.session import Session
    from betz.data.importers import ImportOptions


def ask(path: Path, mapping: str | None, options: ImportOptions) -> ImportOptions:
    """Show the arrays and the behavior of a recording and ask which to import.

    Args:
        path: the recording that is shown; what is chosen holds for all files.
        mapping: of the file, if it needs one.
        options: so far; NaN in behavior is no obstacle to looking.

    Returns:
        The options with the chosen channels and behavior.

    Raises:
        ConfigError: an answer names nothing that is there.
    """
    import typer
    from rich.console import Console

    from betz.data.importers import read
    from betz.data.importers.choose import chosen

    session = read(path, mapping=mapping, **{**asdict(options), "nan": "mask"})
    console = Console(soft_wrap=True, highlight=False)
    _show(console, session, path)
    arrays = list(dict.fromkeys(c.array for c in session.channels))
    ids = [c.id for c in session.channels] + [f"{c.array}/{c.id}" for c in session.channels]
    answer = typer.prompt("Arrays by number, channels by name or glob, with commas", default="all")
    channels = _answers(answer, [f"{array}/*" for array in arrays])
    chosen(ids, channels, what="channel", where=path.name)
    behavior: tuple[str, ...] = ()
    names = [dim.name for dim in session.dims]
    if names:
        answer = typer.prompt("Behavior by number, name or glob, with commas", default="all")
        behavior = _answers(answer, names)
        chosen(names, behavior, what="behavior", where=path.name)
    typed = [f"--channels '{','.join(channels)}'"] if channels else []
    typed += [f"--behavior '{','.join(behavior)}'"] if behavior else []
    console.print(f"the same without questions: {' '.join(typed) or 'no option, everything is imported'}", markup=False)
    return replace(options, channels=channels, behavior=behavior)


def _answers(text: str, numbered: Sequence[str]) -> tuple[str, ...]:
    """Names and globs of an answer; numbers stand for rows of the table; ``all`` is no selection."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if words in ([], ["all"]):
        return ()
    found = []
    for word in words:
        first, _, last = word.partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()):
            found.append(word)
            continue
        rows = range(int(first), int(last or first) + 1)
        if not rows or rows[0] < 1 or rows[-1] > len(numbered):
            raise ConfigError(f"there is no row {word}.", remedy=f"rows are 1 to {len(numbered)}")
        found += [numbered[row - 1] for row in rows]
    return tuple(dict.fromkeys(found))


def _show(console: object, session: Session, path: Path) -> None:
    """Arrays with their channels and rates, and behavior with its units, rates and what is not known."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    assert isinstance(console, Console)
    console.print(f"{path.name}: {session.minutes:.1f} min of {session.subject}", markup=False)
    table = Table("array", "name", "channels", "kinds", "mean", title="signals")
    mean_C = np.asarray(session.signals).mean(axis=0) / session.grid.bin_s
    for number, array in enumerate(dict.fromkeys(c.array for c in session.channels), start=1):
        own = [k for k, c in enumerate(session.channels) if c.array == array]
        kinds = ", ".join(dict.fromkeys(session.channels[k].kind for k in own))
        unit = session.channels[own[0]].unit if kinds == "power" else "/s"
        names = f"{session.channels[own[0]].id} … {session.channels[own[-1]].id}"
        table.add_row(
            f"{number} {escape(array)}", escape(names), str(len(own)), kinds, f"{mean_C[own].mean():.1f} {unit}"
        )
    console.print(table)
    if not session.dims:
        console.print("no behavior", markup=False)
        return
    table = Table("", "behavior", "unit", "samples a second", "not known", title="behavior")
    number = 0
    for series in session.behavior:
        rate = session.grid.tick_hz / series.ticks_per_sample
        lost_K = np.isnan(series.values).mean(axis=0)
        for dim, lost in zip(series.dims, lost_K.tolist(), strict=True):
            number += 1
            unit = dim.unit if dim.kind == "continuous" else f"{len(dim.classes)} classes"
            table.add_row(str(number), escape(dim.name), escape(unit), f"{rate:g}", f"{lost:.1%}")
    console.print(table)
