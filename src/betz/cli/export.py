"""``betz export``: a session as an NWB file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    session: Annotated[str, typer.Argument(help="A recording file, or STORE:ID.")],
    out: Annotated[Path, typer.Option(help="File to write: .nwb.")],
    deidentify: Annotated[
        bool, typer.Option("--deidentify", help="Leave out what could tell who the subject is, and the date.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a file that is there.")] = False,
) -> None:
    """Write a session as an NWB file: signals, behavior, trials, invalid times and where it comes from.

    Example: betz export my_store:monkey_20260412 --out monkey_20260412.nwb
    """
    from rich.console import Console

    from betz.cli._sessions import open_session
    from betz.data.exporters.nwb import write_nwb

    found = open_session(session)
    path = write_nwb(found, out, deidentify=deidentify, replace=replace)
    Console(soft_wrap=True, highlight=False, markup=False).print(
        f"{found.minutes:.1f} min, {len(found.channels)} channels{', de-identified' if deidentify else ''}\n{path}"
    )
