"""``betz calibrate``: a decoder from labelled minutes of a session."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    session: Annotated[str, typer.Argument(help="A recording file, or STORE:ID.")],
    out: Annotated[Path, typer.Option(help="Folder for the decoder; an older decoder in it is replaced.")],
    behavior: Annotated[
        list[str] | None, typer.Option(help="Names of what to decode, with commas; 'emg_*' takes all that match.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0.0, help="Use the first minutes only (default: all).")] = None,
    decoder: Annotated[str, typer.Option(help="Name of the recipe, or folder of a generalist.")] = "wiener",
    budget_s: Annotated[
        float | None, typer.Option(min=0.0, help="Seconds of training (default: what the recipe takes; betz-1: 0).")
    ] = None,
    history: Annotated[Path | None, typer.Option(help="Folder made by `betz history`: earlier sessions.")] = None,
    seed: Annotated[int, typer.Option(help="For recipes with random parts.")] = 0,
) -> None:
    """Calibrate a decoder on labelled minutes of a session and save it.

    Example: betz calibrate store:monkey_20260412 --behavior hand_vx,hand_vy --minutes 2 --decoder betz-1 --out decoder
    """
    import time

    from rich.console import Console

    from betz.cli._sessions import behavior_of, open_session, recipe_of

    recipe = recipe_of(decoder)
    whole = open_session(session)
    names = behavior_of(behavior or [], whole)
    part = whole if minutes is None else whole.first(minutes=minutes)
    known = None
    if history is not None:
        from betz.decode.history import History

        known = History.load(history)
    begun = time.perf_counter()
    made = recipe.calibrate(part, behavior=names, budget_s=budget_s, history=known, seed=seed)
    seconds = time.perf_counter() - begun
    made.save(out)
    short = "" if minutes is None or part.minutes >= 0.9 * minutes else f" (of {minutes:g} asked for)"
    Console(soft_wrap=True, highlight=False, markup=False).print(
        f"{decoder} calibrated on {part.minutes:.2f} minutes{short} of {whole.id} in {seconds:.1f} s: "
        f"{len(made.channels)} channels, {made.bin_ms:g} ms bins, "
        f"{', '.join(f'{d.name} ({d.unit})' if d.unit else d.name for d in made.behavior)}\n{out}"
    )
    describe = getattr(made, "describe", None)
    if describe is not None:
        Console(soft_wrap=True, highlight=False, markup=False).print(describe())
