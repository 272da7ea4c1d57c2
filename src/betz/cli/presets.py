"""``betz presets``: the Transformer's named sizes and variants."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    name: Annotated[str | None, typer.Argument(help="Show all settings of one preset.")] = None,
    channels: Annotated[int, typer.Option(min=1, help="Channels of the session, for the size of the state.")] = 96,
    dims: Annotated[int, typer.Option(min=1, help="Behavior dimensions, for the size of the state.")] = 2,
) -> None:
    """List the presets of the Transformer with their parameters and the bytes of one stream's state.

    Example: betz presets 45m
    """
    from rich.console import Console
    from rich.table import Table

    from betz.core.config import to_dict
    from betz.model.presets import PRESETS, parameters, preset, state_bytes

    console = Console(highlight=False, width=max(Console().width, 100))  # a preset a line, also through a pipe
    chosen = {name: preset(name)} if name else PRESETS
    table = Table("preset", "width", "layers", "heads", "parameters", "state, bytes", "window, bins", box=None)
    for key, config in chosen.items():
        size = state_bytes(config, channels=channels, dims=dims)
        numbers = [config.width, config.layers, config.heads]
        table.add_row(key, *map(str, numbers), f"{parameters(config):,}", f"{size:,}", str(config.window))
    console.print(table)
    if name:
        for key, value in to_dict(chosen[name]).items():
            console.print(f"  {key} = {value}", markup=False)
