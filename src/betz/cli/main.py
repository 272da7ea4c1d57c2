"""``betz``: the command line. Errors are one line on stderr and exit code 1; usage errors exit with 2."""

from __future__ import annotations

import sys

import typer
from typer.core import TyperGroup

from betz import __version__
from betz.cli import (
    calibrate,
    convert_ndt3,
    decode,
    demo,
    doctor,
    evaluate,
    export,
    falcon,
    formats,
    history,
    import_,
    inspect,
    presets,
    replay,
)
from betz.core.errors import BetzError


class _Group(TyperGroup):
    """Turns Betz's own errors into one line, wherever they come from."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except BetzError as error:
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Betz, an open intracortical motor decoder: import recordings, calibrate, evaluate, decode live.",
)


def _version(show: bool) -> None:
    if show:
        print(f"betz {__version__}")
        raise typer.Exit


@app.callback()
def _main(version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show it.")) -> None:
    pass


app.command("import")(import_.command)
app.command("formats")(formats.command)
app.command("inspect")(inspect.command)
app.command("calibrate")(calibrate.command)
app.command("history")(history.command)
app.command("decode")(decode.command)
app.command("evaluate")(evaluate.command)
app.command("replay")(replay.command)
app.command("export")(export.command)
app.add_typer(falcon.app, name="falcon")
app.command("falcon-fixture")(falcon.fixture)
app.command("doctor")(doctor.command)
app.command("demo")(demo.command)
app.command("presets")(presets.command)
app.command("convert-ndt3")(convert_ndt3.command)
