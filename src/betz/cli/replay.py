"""``betz replay``: a recorded session as a live stream through a saved decoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def command(
    session: Annotated[str, typer.Argument(help="A recording file, or STORE:ID.")],
    decoder: Annotated[Path, typer.Option(help="Folder of a saved decoder.")],
    speed: Annotated[float, typer.Option(help="1 = as recorded, 2 = twice as fast, 0 = as fast as possible.")] = 1.0,
    seconds: Annotated[float, typer.Option(help="How much of the session; 0 = all of it.")] = 10.0,
    out: Annotated[Path | None, typer.Option(help="Folder to record the predictions in.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Decode a recorded session as a live stream, bin by bin in real time, and show the latencies.

    Ctrl-C ends it early. A recording in --out is read with betz.live.recorder.read_recording.

    Example: betz replay store:monkey_20260412 --decoder decoder --seconds 30 --out live
    """
    import hashlib

    from rich.console import Console

    from betz.cli._sessions import open_decoder, open_session
    from betz.core.errors import BetzError, ConfigError
    from betz.decode.decoder import MANIFEST
    from betz.live.clocks import MonotonicClock
    from betz.live.links.replay import ReplaySource
    from betz.live.loop import run_loop
    from betz.live.recorder import NullSink, Recorder

    if not (0 <= speed <= 1000 and seconds >= 0):
        raise ConfigError(f"--speed {speed:g} --seconds {seconds:g} is impossible.", remedy="0 … 1000, and 0 or more")
    console = Console(soft_wrap=True, highlight=False, stderr=as_json)
    loaded, whole = open_decoder(decoder), open_session(session)
    part = whole.first(minutes=seconds / 60) if seconds else whole
    clock = MonotonicClock()
    source = ReplaySource(part, clock, speed=speed or None)
    about = {
        "session": whole.id,
        "speed": speed,
        "decoder": str(decoder),
        "decoder_sha256": hashlib.sha256((decoder / MANIFEST).read_bytes()).hexdigest(),
    }
    recorder = None if out is None else Recorder(out, loaded, about=about)
    pace = f"{speed * 1000 / part.bin_ms:g} bins/s" if speed else "as fast as possible"
    console.print(f"{whole.id}: {part.num_bins:,} of {whole.num_bins:,} bins, {pace}; Ctrl-C ends it", markup=False)
    try:
        result = run_loop(source, loaded, recorder or NullSink(), clock)
    except BetzError as error:
        for note in getattr(error, "__notes__", ()):  # what the loop did before the error
            console.print(note, markup=False)
        raise
    if as_json:
        print(json.dumps(result.to_dict()))
    else:
        console.print(result.table())
    if recorder is not None:
        console.print(str(recorder.path), markup=False)
