"""``betz import``: recording files as sessions in a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from betz.data.importers import ImportedFile, ImportReport


def command(
    files: Annotated[
        list[Path], typer.Argument(help="Recordings: .nwb, .npz, .mat, .csv, or a vendor's (see betz formats).")
    ],
    store: Annotated[Path | None, typer.Option(help="Folder of the store; it is made if it is not there.")] = None,
    mapping: Annotated[
        str | None, typer.Option(help="What the variables mean: a .toml or .json file, or the name of a known layout.")
    ] = None,
    align: Annotated[
        str | None, typer.Option(help="Add behavior of another clock: a .toml file that says what ties the two.")
    ] = None,
    merge: Annotated[
        str | None, typer.Option(help="The files are one recording on one clock (processors, blocks): its name.")
    ] = None,
    write_mapping: Annotated[
        Path | None, typer.Option(help="Write a mapping for FILE to edit, and import nothing.")
    ] = None,
    bin_ms: Annotated[float | None, typer.Option(help="Bin width, where the file leaves it open.")] = None,
    subject: Annotated[str, typer.Option(help="Who was recorded, where the file does not say.")] = "",
    nan: Annotated[
        str, typer.Option(help="NaN in behavior: 'raise' refuses it, 'mask' keeps it as not known.")
    ] = "raise",
    slot: Annotated[
        str | None, typer.Option(help="Several units of an electrode: 'sum' pools them, 'unit' keeps them apart.")
    ] = None,
    trim_to_shortest: Annotated[
        bool, typer.Option("--trim-to-shortest", help="Cut counts and behavior of different lengths to the shortest.")
    ] = False,
    drop_idle_tail: Annotated[
        bool, typer.Option("--drop-idle-tail", help="Leave out the end in which the subject no longer moves.")
    ] = False,
    mask_silence: Annotated[
        bool, typer.Option("--mask-silence", help="Mark stretches without any spike as not valid.")
    ] = False,
    rates_to_counts: Annotated[
        bool, typer.Option("--rates-to-counts", help="The signals are rates in Hz: turn them back to counts.")
    ] = False,
    sort_spikes: Annotated[
        bool, typer.Option("--sort-spikes", help="Sort spike times that are not in ascending order.")
    ] = False,
    channels: Annotated[
        list[str] | None,
        typer.Option(help="Channels to import: names or globs, also ARRAY/NAME; repeat, or use commas."),
    ] = None,
    behavior: Annotated[
        list[str] | None, typer.Option(help="Behavior to import: names or globs; repeat, or use commas.")
    ] = None,
    choose: Annotated[
        bool, typer.Option("--choose", help="Show what the first file holds, and ask what to import of all files.")
    ] = False,
    gap_tolerance_ms: Annotated[
        float | None,
        typer.Option(help="Gaps in a vendor's file up to this are marked not valid, longer ones make sessions."),
    ] = None,
    analog: Annotated[
        list[str] | None,
        typer.Option(help="Analog channel of a vendor's file that is behavior (name or pattern; may be repeated)."),
    ] = None,
    broadband: Annotated[
        str | None, typer.Option(help="Make 'crossings' or spike-band 'power' of the electrodes' broadband.")
    ] = None,
    threshold_rms: Annotated[float, typer.Option(help="Crossings are below this many RMS.")] = -4.5,
    reference: Annotated[
        str, typer.Option(help="Subtract from each electrode: 'none', the 'average', or a 'regression' on the others.")
    ] = "none",
    band_hz: Annotated[tuple[float, float], typer.Option(help="Edges of the band-pass.")] = (300.0, 3000.0),
    replace: Annotated[bool, typer.Option("--replace", help="Replace sessions of the same name.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Import recordings into a store, all sessions of each file, each written whole or not at all.

    What is doubtful in a file is noted; what would have to be guessed is refused until an option says what to do. A
    file that cannot be imported does not stop the others; the exit code is then 1.

    Example: betz import recordings/*.mat --mapping my_mapping.toml --store my_store
    """
    import json

    from rich.console import Console

    from betz.cli._sessions import split_names
    from betz.core.errors import ConfigError
    from betz.data.importers import import_files, options_of
    from betz.data.importers.aligned import load_align
    from betz.data.importers.mapping import load_mapping
    from betz.data.importers.merge import import_merged
    from betz.data.store import Store

    if write_mapping is not None:
        _write_mapping(files, write_mapping)
        return
    if store is None:
        raise ConfigError("no store is named.", remedy="add --store FOLDER; it is made if it is not there")
    options = options_of(
        {
            "bin_ms": bin_ms,
            "subject": subject,
            "nan": nan,
            "slot": slot,
            "trim_to_shortest": trim_to_shortest,
            "drop_idle_tail": drop_idle_tail,
            "mask_silence": mask_silence,
            "rates_to_counts": rates_to_counts,
            "sort_spikes": sort_spikes,
            "channels": split_names(channels or ()),
            "behavior": split_names(behavior or ()),
            "gap_tolerance_ms": gap_tolerance_ms,
            "analog": tuple(analog) if analog else None,
            "broadband": broadband,
            "threshold_rms": threshold_rms,
            "reference": reference,
            "band_hz": band_hz,
        }
    )
    if mapping is not None:
        load_mapping(mapping)
    if align is not None:
        load_align(align)  # a wrong one is refused before a store is made
    if merge is not None and (mapping is not None or align is not None):
        raise ConfigError("merged files take neither a mapping nor an alignment.", remedy="leave them out")
    if choose:
        from betz.cli._choose import ask

        options = ask(files[0], mapping, options)
    console = Console(soft_wrap=True, highlight=False, markup=False, stderr=as_json)
    with _Progress(console, len(files)) as progress:
        into = Store(store, create=True)
        if merge is not None:
            report = import_merged(files, into, id=merge, options=options, replace=replace)
            progress.done(report.files[0])
        else:
            report = import_files(
                files, into, mapping=mapping, align=align, options=options, replace=replace, progress=progress.done
            )
    if as_json:
        print(json.dumps(_as_dict(report)))
    else:
        console.print(_summary(report, store))
    if report.skipped:
        raise typer.Exit(1)


class _Progress:
    """A bar while files are imported, and a line for each of them; errors go to stderr."""

    def __init__(self, console: Console, number: int) -> None:
        import sys

        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = console
        self._errors = Console(soft_wrap=True, highlight=False, markup=False, stderr=True)
        columns = (TextColumn("importing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(
            *columns,
            console=console,
            transient=True,
            redirect_stderr=sys.stderr.isatty(),
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("files", total=number)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def done(self, file: ImportedFile) -> None:
        """Say what became of a file."""
        if file.error is not None:
            self._errors.print(f"error: {file.error}")
        else:
            behavior = f"{file.behavior} behavior dimensions" if file.behavior else "no behavior"
            self._console.print(
                f"{file.id}: {file.minutes:.1f} min in {file.bin_ms:g} ms bins, {file.channels} channels, {behavior}"
            )
            for note in file.notes:
                self._console.print(f"  - {note}")
        self._bar.advance(self._task)


def _summary(report: ImportReport, store: Path) -> str:
    several = len({file.path for file in report.files}) < len(report.files)
    things = "sessions" if several else "files"
    lines = [f"{len(report.kept)} of {len(report.files)} {things} imported into {store}"]
    for what, counts in (("not imported", report.skipped), ("left out inside the files", report.left_out)):
        if counts:
            lines.append(f"{what}: {', '.join(f'{number} × {reason}' for reason, number in counts.items())}")
    return "\n".join(lines)


def _as_dict(report: ImportReport) -> dict[str, Any]:
    """The report as JSON values."""
    return {
        "kept": list(report.kept),
        "skipped": dict(report.skipped),
        "left_out": report.left_out,
        "files": [
            {
                "path": str(file.path),
                "id": file.id,
                "reason": file.reason,
                "error": None if file.error is None else str(file.error),
                "notes": list(file.notes),
                "left_out": dict(file.left_out),
            }
            for file in report.files
        ],
    }


def _write_mapping(files: list[Path], out: Path) -> None:
    """Write a mapping to edit for a file: that of its known layout, or a guess from its variables."""
    from betz.core.errors import ConfigError
    from betz.data.importers import FileError, is_binned
    from betz.data.importers.example import example_mapping
    from betz.data.importers.files import open_arrays

    if len(files) != 1:
        raise ConfigError(f"a mapping is written for one file, not {len(files)}.", remedy="name one of them")
    if out.suffix != ".toml":
        raise ConfigError("a mapping is written as TOML.", where=str(out), remedy="give a name that ends in .toml")
    file = open_arrays(files[0])
    if is_binned(file):
        raise FileError("needs no mapping", "a binnedData struct needs no mapping.", where=files[0].name,
                        remedy="import it without one")  # fmt: skip
    try:
        with out.open("x", encoding="utf-8") as target:
            target.write(example_mapping(file))
    except FileExistsError:
        raise ConfigError("there is a file already.", where=str(out), remedy="give another name") from None
    except OSError as error:
        raise ConfigError(
            f"it cannot be written ({error.strerror}).", where=str(out), remedy="give another name"
        ) from None
    print(f"{out}: correct it, then import with --mapping {out}")
