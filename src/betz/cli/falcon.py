"""``betz falcon …`` and ``betz falcon-fixture``: the FALCON benchmark from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from betz.data.importers.falcon_names import TaskName

app = typer.Typer(no_args_is_help=True, help="The FALCON benchmark: rehearse a submission, score offline.")
_TASK = Annotated[str, typer.Option(help="m1, m2, h1 or h2.")]


@app.command("rehearse")
def rehearse_command(
    task: _TASK,
    data: Annotated[Path, typer.Option(help="Folder of the evaluation data (holds TASK/…minival).")],
    out: Annotated[Path, typer.Option(help="Submission folder to write.")],
    decoders: Annotated[
        Path | None, typer.Option(help="A saved decoder, or a folder with one for each file, session or 'all'.")
    ] = None,
    phase: Annotated[str, typer.Option(help="minival or test.")] = "minival",
    batch_size: Annotated[int | None, typer.Option(help="Files decoded at once; default: the most allowed.")] = None,
    wheel: Annotated[Path | None, typer.Option(help="Wheel of Betz to install in the image.")] = None,
) -> None:
    """Build the folder of a submission, run it offline with the official evaluator, and check its predictions.

    Without --decoders, H2 is run with a fixed text, which checks plumbing only. Docker is not needed; the last line is
    the command that builds and pushes the image.

    Example: betz falcon rehearse --task m2 --decoders my_decoders --data falcon_data --out submission
    """
    import tempfile

    from rich.console import Console

    from betz.evaluate.falcon_submission import build_submission, push_command, rehearse

    known = _known(task)
    _known_phase(phase)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    build_submission(known, decoders, out, batch_size=batch_size, wheel=wheel)
    console.print(f"{out}: Dockerfile, run.py, decoders")
    with tempfile.TemporaryDirectory() as work:
        found = rehearse(out, known, data, phase=phase, work=Path(work))
    total = sum(found.files.values())
    what = "trials" if known == "h2" else "bins"
    console.print(f"ran in {found.seconds:.1f} s; folder of {found.bytes_sent / 1e6:.2f} MB")
    console.print(f"predictions valid: {len(found.files)} files, {total:,} {what}")
    for name, value in found.scores.items():
        console.print(f"  {name}: {value:.4f}")
    console.print(f"note: {found.note}")
    console.print(f"push it from {out} with:\n{push_command(known, phase=phase)}")


@app.command("pseudo")
def pseudo_command(
    files: Annotated[list[Path], typer.Argument(help="Public calibration files (.nwb) of one task.")],
    decoder: Annotated[str, typer.Option(help="Decoder to calibrate, e.g. wiener.")] = "wiener",
    seed: Annotated[int, typer.Option(help="Of the calibration.")] = 0,
) -> None:
    """Score a decoder offline on a fixed split of the public calibration files; not comparable with the leaderboard.

    Example: betz falcon pseudo 000953/*calib/*.nwb --decoder wiener
    """
    from rich.console import Console

    from betz.cli._sessions import open_sessions, recipe_of
    from betz.evaluate.falcon_pseudo import pseudo_falcon

    found = pseudo_falcon(recipe_of(decoder), open_sessions([str(f) for f in files]), seed=seed)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(found.label)
    for name, value in found.scores.items():
        console.print(f"  {name}: {value:.4f}")
    console.print(f"{len(found.parts)} files, {found.scored_bins:,} bins scored")


def fixture(
    out: Annotated[Path, typer.Argument(help="Folder to write into.")],
    task: Annotated[list[str] | None, typer.Option(help="m1, m2, h1 or h2; repeat for several. Default: all.")] = None,
    part: Annotated[list[str] | None, typer.Option(help="calib, minival or eval; repeat. Default: all.")] = None,
    trials: Annotated[int, typer.Option(help="Trials of a file (minival: two).", min=2)] = 4,
    trial_s: Annotated[float, typer.Option(help="Seconds of a trial.", min=0.4)] = 1.6,
    seed: Annotated[int, typer.Option(help="Of everything.")] = 0,
) -> None:
    """Write small synthetic NWB files in FALCON's layouts, names and folders, to try a decoder without the data.

    Example: betz falcon-fixture falcon_data --task m2
    """
    from rich.console import Console

    from betz.data.importers.falcon_names import TASKS
    from betz.testing.falcon_files import write_fixture

    console = Console(soft_wrap=True, highlight=False, markup=False)
    for name in task or list(TASKS):
        made = write_fixture(out, _known(name), trials=trials, trial_s=trial_s, seed=seed, parts=part or ())
        size = sum(path.stat().st_size for path in made)
        console.print(f"{out / name}: {len(made)} synthetic files, {size / 1e6:.1f} MB")


def _known(task: str) -> TaskName:
    from betz.core.errors import ConfigError
    from betz.data.importers.falcon_names import TASKS

    if task not in TASKS:
        more = "; B1 decodes a bird's song and is not built" if task == "b1" else ""
        raise ConfigError(f"there is no FALCON task {task!r}.", remedy=f"tasks are {', '.join(TASKS)}{more}")
    return TASKS[task].name


def _known_phase(phase: str) -> None:
    from betz.core.errors import ConfigError

    if phase not in ("minival", "test"):
        raise ConfigError(f"there is no phase {phase!r}.", remedy="phases are minival and test")
