"""``betz history``: what is kept of a subject's earlier sessions, for calibrating the next one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    sessions: Annotated[list[str], typer.Argument(help="Recording files or STORE:ID of one subject, oldest first.")],
    out: Annotated[Path, typer.Option(help="Folder for the history; one that is there is continued.")],
    behavior: Annotated[list[str] | None, typer.Option(help="Names of what to decode, with commas.")] = None,
) -> None:
    """Add earlier sessions to a history.

    Example: betz history store:monkey_20260410 store:monkey_20260411 --behavior hand_vx,hand_vy --out history
    """
    from rich.console import Console

    from betz.cli._sessions import behavior_of, open_session
    from betz.decode.history import LAYOUT, History

    made = History.load(out) if (out / LAYOUT.manifest).exists() else None
    for text in sessions:
        session = open_session(text)
        names = behavior_of(behavior or [], session)
        made = (made or History(session.subject)).add(session, behavior=names)
    assert made is not None
    made.save(out)
    Console(soft_wrap=True, highlight=False, markup=False).print(
        f"history of {made.subject}: {', '.join(made.sessions)}; {len(made.channels)} channels\n{out}"
    )
