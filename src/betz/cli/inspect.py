"""``betz inspect``: what is in sessions, and what looks wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from betz.evaluate.inspect import Inspection


def command(
    sessions: Annotated[list[str], typer.Argument(help="Stores (all their sessions), STORE:ID, or recording files.")],
    out: Annotated[Path | None, typer.Option(help="Write a page with tables and plots: one .html file.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Write the plots as .svg files into this folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    mapping: Annotated[str | None, typer.Option(help="For files: what the variables mean, as in betz import.")] = None,
    bin_ms: Annotated[float | None, typer.Option(help="For files that leave the bin width open.")] = None,
    nan: Annotated[
        str, typer.Option(help="For files with NaN in behavior: 'raise' refuses it, 'mask' keeps it.")
    ] = "raise",
) -> None:
    """Show what is in sessions: channels and their rates, behavior and its ranges, gaps, edges, lags; and warn.

    Warned of are dead, near-dead, duplicated and noisy channels, artefacts, odd behavior, and behavior that is best
    decoded from spikes less than 0 or more than 300 ms earlier. Warnings do not change the exit code.

    Example: betz inspect store:monkey_20260412 --out inspection.html
    """
    import json

    from rich.console import Console
    from rich.progress import track

    from betz.cli._sessions import open_sessions
    from betz.core.errors import ConfigError, require
    from betz.evaluate.inspect import inspect
    from betz.evaluate.inspect_page import page, save_plots

    if out is not None and out.suffix not in (".html", ".htm"):
        raise ConfigError(
            f"cannot write {out.suffix or 'a file without a suffix'}.", where=str(out), remedy="use .html"
        )
    for module in ("matplotlib", *(() if out is None else ("jinja2",))) if out or plots else ():
        require(module, extra="report")  # before looking at all sessions, not after it
    options = {"mapping": mapping, "bin_ms": bin_ms} | ({"nan": nan} if nan != "raise" else {})
    opened = open_sessions(sessions, **{name: value for name, value in options.items() if value is not None})
    bar = Console(stderr=True)
    still = len(opened) < 2 or not bar.is_terminal
    found = [inspect(s) for s in track(opened, "inspecting", console=bar, transient=True, disable=still)]
    console = Console(stderr=as_json, soft_wrap=True, highlight=False, markup=False)
    if as_json:
        print(json.dumps([each.to_dict() for each in found]))
    else:
        console.print(found[0].summary() if len(found) == 1 else _several(found))
    if out is not None:
        console.print(str(page(found, out)))
    if plots is not None:
        console.print(f"{len(save_plots(found, plots))} plots in {plots}")


def _several(found: Sequence[Inspection]) -> str:
    """A table with a line a session, and what there is to say of each."""
    from betz.evaluate.inspect_text import aligned

    rows = [["session", "subject", "minutes", "bin, ms", "channels", "behavior", "licence"]]
    for each in found:
        s = each.session
        channels = ", ".join(f"{number} {kind}" for kind, number in each.kinds().items())
        behavior = "; ".join(f"{_some(names)} ({unit})" for unit, names in each.units().items()) or "none"
        rows.append(
            [s.id, s.subject, f"{s.minutes:.1f}", f"{s.bin_ms:g}", channels, behavior, s.licence or "not stated"]
        )
    blocks = ["\n".join(aligned(rows, right=(2, 3)))]
    for each in found:
        p = each.session.provenance
        lines = [f"  {note}" for note in p.notes if note not in each.warnings]
        lines += [f"  left out: {number:,} {reason}" for reason, number in p.skipped.items()]
        lines += [f"  note: {note}" for note in each.notes]
        lines += [f"  WARNING: {warning}" for warning in each.warnings] or ["  no warnings"]
        blocks.append("\n".join([each.session.id, *lines]))
    return "\n\n".join(blocks)


def _some(names: Sequence[str], show: int = 6) -> str:
    return ", ".join(names[:show]) + (f" … {len(names) - show} more" if len(names) > show else "")
