"""``betz decode``: a recorded session through a saved decoder, to a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from betz.core.prediction import Prediction
    from betz.core.session import Session
    from betz.decode.decoder import Decoder


def command(
    session: Annotated[str, typer.Argument(help="A recording file, or STORE:ID.")],
    decoder: Annotated[Path, typer.Option(help="Folder of a saved decoder.")],
    out: Annotated[Path, typer.Option(help="File to write: .npz, .csv or .nwb.")],
    deidentify: Annotated[
        bool, typer.Option("--deidentify", help="NWB: leave out what could tell who the subject is.")
    ] = False,
) -> None:
    """Decode a recorded session bin by bin, as it would run live, into an .npz, .csv or .nwb file.

    Times are those of the bins' starts in seconds of the recording clock. Bins that could not be decoded have
    valid = 0 and no values. An .nwb file holds the session as well, and where the decoder comes from.

    Example: betz decode store:monkey_20260412 --decoder decoder --out decoded.csv
    """
    from rich.console import Console

    from betz.cli._sessions import open_decoder, open_session
    from betz.core.errors import ConfigError
    from betz.evaluate.replay import replay
    from betz.evaluate.results import write_whole

    writers = {".npz": _npz, ".csv": _csv}
    if out.suffix not in (*writers, ".nwb"):
        raise ConfigError(
            f"cannot write {out.suffix or 'a file without a suffix'}.", where=str(out), remedy="use .npz, .csv or .nwb"
        )
    if deidentify and out.suffix != ".nwb":
        raise ConfigError("--deidentify is for NWB files.", where=str(out), remedy="leave it out, or write .nwb")
    loaded = open_decoder(decoder)
    whole = open_session(session)
    prediction = replay(loaded, whole)
    if out.suffix == ".nwb":
        _nwb(out, prediction, loaded, whole, decoder, deidentify=deidentify)
    else:
        write_whole(out, writers[out.suffix](prediction, loaded, whole))
    lost = int((~prediction.valid).sum())
    Console(soft_wrap=True, highlight=False, markup=False).print(
        f"{whole.num_bins:,} bins of {whole.id} decoded, {lost:,} of them not valid\n{out}"
    )


def _columns(decoder: Decoder) -> tuple[list[str], list[str]]:
    """Names and units of the prediction's columns; a discrete dimension has one a class."""
    names, units = [], []
    for dim in decoder.behavior:
        if dim.kind == "continuous":
            names.append(dim.name)
            units.append(dim.unit)
        else:
            names += [f"{dim.name}={label}" for label in dim.classes]
            units += ["probability"] * len(dim.classes)
    return names, units


def _npz(prediction: Prediction, decoder: Decoder, session: Session) -> bytes:
    import io

    import numpy as np

    names, units = _columns(decoder)
    arrays = {
        "time_s": session.grid.seconds(session.grid.start_of(prediction.bin[0])),
        "bin": prediction.bin[0],
        "values": prediction.values[0],
        "valid": prediction.valid[0],
        "names": np.array(names),
        "units": np.array(units),
        "session": np.array(session.id),
        "bin_ms": np.array(session.bin_ms),
    }
    if prediction.spread is not None:
        arrays["spread"] = prediction.spread[0]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _csv(prediction: Prediction, decoder: Decoder, session: Session) -> bytes:
    import csv
    import io

    names, units = _columns(decoder)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = [f"{name} [{unit}]" if unit else name for name, unit in zip(names, units, strict=True)]
    writer.writerow(["time_s", "bin", "valid", *heads])
    times = session.grid.seconds(session.grid.start_of(prediction.bin[0])).tolist()
    lines = zip(
        times, prediction.bin[0].tolist(), prediction.valid[0].tolist(), prediction.values[0].tolist(), strict=True
    )
    for time_s, bin_, valid, values in lines:
        shown = [f"{v:.9g}" for v in values] if valid else [""] * len(names)
        writer.writerow([f"{time_s:.6f}", bin_, int(valid), *shown])
    return text.getvalue().encode()


def _nwb(
    out: Path, prediction: Prediction, decoder: Decoder, session: Session, folder: Path, *, deidentify: bool
) -> None:
    """Session, prediction and the decoder's origin; an older file is replaced, as the other formats are."""
    from betz import __version__
    from betz.data.exporters.nwb import Decoded, write_nwb
    from betz.decode.decoder import LAYOUT
    from betz.model.folder import read_manifest

    manifest = read_manifest(folder, LAYOUT)
    kept = ("kind", "format_version", "tensors_sha256", "channel_hash", "bin_ms")
    report = manifest.get("config", {}).get("report", {})
    told = {key: manifest[key] for key in kept if key in manifest}
    told |= {"betz": __version__, "settings": report.get("settings", {}), "calibrated_on": report.get("session", "")}
    write_nwb(session, out, decoded=Decoded(prediction, decoder.behavior, told), deidentify=deidentify, replace=True)
