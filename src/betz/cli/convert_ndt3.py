"""``betz convert-ndt3``: a checkpoint of the NDT3 reference code as a Betz model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from betz.model.ndt3 import Inventory


def command(
    file: Annotated[Path, typer.Argument(help="The .ckpt file.")],
    out: Annotated[Path | None, typer.Argument(help="Folder to write; not needed with --inspect.")] = None,
    inspect: Annotated[
        bool, typer.Option("--inspect", help="List all that is in the file, and write nothing.")
    ] = False,
    licence: Annotated[
        str, typer.Option(help="Licence of the weights, kept with them; the official files are CC-BY-NC-4.0.")
    ] = "",
    window: Annotated[int | None, typer.Option(help="Window for streaming in bins; one second if not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the inventory as JSON.")] = False,
) -> None:
    """Convert a Lightning checkpoint of the NDT3 reference code to safetensors + JSON. Nothing in it is executed.

    What Betz's model cannot compute in the same way is refused; --inspect lists it all. Not yet run on an official
    file.

    Example: betz convert-ndt3 val.ckpt my_model --licence CC-BY-NC-4.0
    """
    import json

    from rich.console import Console

    from betz.core.errors import ConfigError
    from betz.model import ndt3

    console = Console(soft_wrap=True, highlight=False, markup=False, stderr=as_json)
    if inspect:
        inventory = ndt3.inspect(file)
        lines = list(_inventory(inventory))
    else:
        if out is None:
            raise ConfigError("no folder is named.", remedy="betz convert-ndt3 FILE OUT, or --inspect")
        if window is not None and window < 1:
            raise ConfigError(f"a window of {window} bins is impossible.", remedy="give at least 1")
        inventory, saved = ndt3.convert(file, out, licence=licence or ndt3.UNSTATED, window_bins=window)
        lines = [saved.title, f"licence: {saved.card.licence}", *(f"  - {note}" for note in saved.card.notes), str(out)]
    for line in lines:  # what a file says must not steer the terminal
        console.print("".join(c if c.isprintable() else "?" for c in line))
    if as_json:
        print(json.dumps(inventory.to_dict()))


def _inventory(inventory: Inventory) -> Iterator[str]:
    """All that is in a file, a line each."""
    yield inventory.path
    yield ""
    yield "state dict"
    wide = max((len(e.key) for e in inventory.entries), default=0)
    for entry in inventory.entries:
        shape = "" if entry.shape is None else f" {list(entry.shape)}"
        yield f"  {entry.key:{wide}}  → {entry.betz or '–'}  {entry.dtype}{shape}" + (
            f"  ({entry.remark})" if entry.remark else ""
        )
    yield ""
    yield "hyper-parameters"
    yield from (f"  {name} = {value}" for name, value in _flat(inventory.settings))
    yield ""
    yield "classes and functions that its pickle names"
    for name, number in sorted(inventory.names.items()):
        yield f"  {number:5d} × {name}" + ("  (refused)" if name in inventory.refused else "")
    yield ""
    if inventory.config is not None:
        yield f"as Betz's model: {inventory.parameters:,} parameters"
        yield from (f"  {name} = {value}" for name, value in _flat(inventory.to_dict()["config"]))
    yield from (f"note: {note}" for note in inventory.notes)
    yield from (f"problem: {problem}" for problem in inventory.problems)
    yield from (f"problem: its pickle names {name}, which no NDT3 checkpoint needs" for name in inventory.refused)
    yield "It can be converted." if inventory.convertible else "It cannot be converted."


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of nested settings."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
