"""``betz formats``: what can be imported."""

from __future__ import annotations

from typing import Annotated

import typer


def command(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List the formats that can be imported: what to give, which extra reads it, and on what it was tried.

    ``untested`` means that no real file was at hand: please report what becomes of yours.

    Example: betz formats
    """
    import json
    from importlib.util import find_spec

    from rich.console import Console
    from rich.table import Table

    from betz.data.importers.neo_formats import FORMATS, NOT_READ, rows

    found = rows()
    if as_json:
        print(json.dumps(found))
        return
    console = Console(highlight=False, width=max(Console().width, 130))
    table = Table("format", "give", "needs", "tried on", "note", box=None)
    missing = {"io": find_spec("neo") is None, "nwb": find_spec("pynwb") is None, "": False}
    for row in found:
        needs = f"betz[{row['extra']}]" + (" (missing)" if missing[row["extra"]] else "") if row["extra"] else ""
        table.add_row(row["format"], row["given"], needs.replace("[", "\\["), row["tested"], row["note"])
    console.print(table)
    console.print(f"{sum(known.tested == 'untested' for known in FORMATS)} of {len(FORMATS)} are untested.")
    for suffix, (_, remedy) in NOT_READ.items():
        console.print(f"not read: {suffix} ({remedy})", markup=False)
