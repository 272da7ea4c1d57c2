"""Sessions, predictions and how their decoder came about, as NWB files.

Spike ticks become a units table in seconds of the session's clock, counts and power a TimeSeries of the bins, behavior
its series, trials the trial table; what is not valid becomes invalid times. :func:`betz.read` gets spikes and counts
back, but not power.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from betz.core.errors import DataError, require
from betz.core.files import commit
from betz.core.intervals import Intervals
from betz.core.prediction import Prediction
from betz.core.session import BehaviorDim, Session
from betz.data.importers.nwb_behavior import BAND_POWER, BINNED_COUNTS, DECODER_MODULE, plain

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
"""Start of a session whose date is not known or not to be told."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """A prediction to be written with its session.

    Args:
        prediction: of all bins of the session, row 0.
        behavior: what its columns are.
        provenance: of the decoder, JSON values: kind, settings, session of the calibration, versions.
    """

    prediction: Prediction
    behavior: tuple[BehaviorDim, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)


def write_nwb(
    session: Session,
    path: str | Path,
    *,
    decoded: Decoded | None = None,
    deidentify: bool = False,
    replace: bool = False,
) -> Path:
    """Write a session, and what was decoded from it, as an NWB file; it is there as a whole or not at all.

    Args:
        session: of spikes, counts or power.
        path: ends in ``.nwb``.
        decoded: predictions, written as a processing module ``decoder`` with their provenance.
        deidentify: for human data: the date becomes 1970-01-01, and the subject and every free text that could tell who
            it was (ids, source files, notes, tags, texts and conditions of trials) are left out.
        replace: whether a file that is there is replaced.

    Raises:
        DataError: there is a file already, or it cannot be written.
        MissingExtraError: pynwb is not installed.
    """
    target = Path(path)
    if target.suffix.lower() != ".nwb":
        raise DataError("its name does not end in .nwb.", where=str(target), remedy="give a name that does")
    if target.exists() and not replace:
        raise DataError("there is a file already.", where=str(target), remedy="give another name, or replace=True")
    pynwb = require("pynwb", extra="nwb")
    part = target.with_name(f".tmp-{os.urandom(6).hex()}.nwb")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nwb = _file(pynwb, session, deidentify)
            _add_signals(pynwb, nwb, session)
            _add_behavior(pynwb, nwb, session)
            _add_intervals(nwb, session, deidentify)
            if decoded is not None:
                _add_prediction(pynwb, nwb, session, decoded, deidentify)
            with pynwb.NWBHDF5IO(str(part), "w") as io:
                io.write(nwb)
        commit(part, target)
    except OSError as error:
        raise DataError(f"it could not be written ({error}).", where=str(target), remedy="give another path") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return target


def _file(pynwb: Any, session: Session, deidentify: bool) -> Any:
    tags = session.tags
    who = pynwb.file.Subject(
        subject_id="anonymous" if deidentify else plain(session.subject),
        species=tags.get("species", "Homo sapiens" if deidentify else None),
        sex="U",
        age="P0D/",  # an open range: DANDI wants an age, and a session does not keep one
        description="de-identified" if deidentify else "age and sex are not kept by Betz",
    )
    said = {} if deidentify else {key: tags[key] for key in ("lab", "institution") if tags.get(key)}
    notes = json.dumps({"betz": _provenance(session)}) if not deidentify else None
    return pynwb.NWBFile(
        session_description=session.task if session.task and not deidentify else "intracortical recording",
        identifier=os.urandom(8).hex() if deidentify else session.id,
        session_start_time=LONG_AGO if deidentify else _start(tags.get("date", "")),
        subject=who,
        notes=notes,
        **said,
    )


def _provenance(session: Session) -> dict[str, Any]:
    found = asdict(session.provenance)
    return {"session": session.id, "tags": dict(session.tags), "licence": session.licence, **found}


def _start(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return LONG_AGO
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _add_signals(pynwb: Any, nwb: Any, session: Session) -> None:
    common = require("hdmf.common", extra="nwb")
    device = nwb.create_device(name="implant", description="intracortical arrays")
    groups = {
        name: nwb.create_electrode_group(name=plain(name), description="electrode array", location="unknown",
                                         device=device)
        for name in dict.fromkeys(c.array for c in session.channels)
    }  # fmt: skip
    nwb.add_electrode_column(name="channel_name", description="id of the channel in Betz")
    for channel in session.channels:
        nwb.add_electrode(group=groups[channel.array], location="unknown", channel_name=channel.id)
    counting = sum(c.kind != "power" for c in session.channels)
    if session.spikes is not None:
        _add_units(pynwb, common, nwb, session, [groups[c.array] for c in session.channels[:counting]])
    for name, values, unit, first in (
        (BINNED_COUNTS, session.counts, "counts", 0),
        (BAND_POWER, session.power, session.channels[-1].unit or "a.u.", counting),
    ):
        if values is not None:
            told = "one column a channel: " + ", ".join(c.id for c in session.channels[first : first + values.shape[1]])
            nwb.add_acquisition(
                pynwb.TimeSeries(name=name, data=values, unit=unit, description=told, **_clock(session), comments=_AT)
            )


_AT = "a sample is a bin, stamped at its start; bin k holds what happened from then to the next stamp"


def _clock(session: Session) -> dict[str, float]:
    grid = session.grid
    return {"rate": grid.tick_hz / grid.ticks_per_bin, "starting_time": float(grid.seconds(grid.origin_tick))}


def _add_units(pynwb: Any, common: Any, nwb: Any, session: Session, groups: list[Any]) -> None:
    assert session.spikes is not None
    numbers = np.array([len(ticks) for ticks in session.spikes], dtype=np.int64)
    ticks = np.concatenate(session.spikes) if len(numbers) else np.empty(0, np.int64)
    times = common.VectorData(name="spike_times", description="seconds", data=session.grid.seconds(ticks))
    region = common.DynamicTableRegion(
        name="electrodes", description="electrode", data=np.arange(len(numbers)), table=nwb.electrodes
    )
    kinds = {c.kind for c in session.channels if c.kind != "power"}
    what = "threshold crossings" if kinds == {"crossings"} else "sorted units"
    columns = [
        times,
        common.VectorIndex(name="spike_times_index", data=np.cumsum(numbers), target=times),
        region,
        common.VectorIndex(name="electrodes_index", data=np.arange(1, len(numbers) + 1), target=region),
        common.VectorData(name="electrode_group", description="array", data=groups),
        common.VectorData(name="kind", description="crossings or unit",
                          data=[c.kind for c in session.channels[: len(numbers)]]),
    ]  # fmt: skip
    nwb.units = pynwb.misc.Units(
        name="units", description=f"{what}, one a channel", id=np.arange(len(numbers)), columns=columns,
        resolution=1 / session.grid.tick_hz,
    )  # fmt: skip


def _add_behavior(pynwb: Any, nwb: Any, session: Session) -> None:
    if not session.behavior:
        return
    module = nwb.create_processing_module(name="behavior", description="behavior, in its own rates")
    for series in session.behavior:
        rate = session.grid.tick_hz / series.ticks_per_sample
        start = float(session.grid.seconds(series.origin_tick))
        for k, dim in enumerate(series.dims):
            told = f"classes: {', '.join(dim.classes)}" if dim.kind == "discrete" else "continuous"
            module.add(
                pynwb.TimeSeries(name=_name(dim.name), data=series.values[:, k], unit=dim.unit or "n/a",
                                 description=told, rate=rate, starting_time=start)
            )  # fmt: skip


def _name(text: str) -> str:
    return re.sub(r"[/:]", "_", text)


def _add_intervals(nwb: Any, session: Session, deidentify: bool) -> None:
    grid, trials = session.grid, session.trials
    if trials is not None and len(trials):
        columns = {
            plain(name): values
            for name, values in trials.columns.items()
            if name not in ("start_time", "stop_time", "condition") and (values.dtype.kind in "biuf" or not deidentify)
        }  # fmt: skip
        for name in columns:
            nwb.add_trial_column(name=name, description="from the session")
        if trials.condition and not deidentify:
            nwb.add_trial_column(name="condition", description="condition of the trial")
        for k, (start, end) in enumerate(zip(trials.start, trials.end, strict=True)):
            row = {name: values[k] for name, values in columns.items()}
            if trials.condition and not deidentify:
                row["condition"] = trials.condition[k]
            nwb.add_trial(start_time=float(grid.seconds(start)), stop_time=float(grid.seconds(end)), **row)
    if session.valid is not None:
        for start, end in Intervals.of([session.span]) - session.valid:
            nwb.add_invalid_time_interval(start_time=float(grid.seconds(start)), stop_time=float(grid.seconds(end)))


def _add_prediction(pynwb: Any, nwb: Any, session: Session, decoded: Decoded, deidentify: bool) -> None:
    values = decoded.prediction.values[0]
    if len(values) != session.num_bins:
        raise DataError(f"the prediction has {len(values)} bins, the session {session.num_bins}.",
                        where=f"session {session.id}", remedy="decode the whole session")  # fmt: skip
    told = dict(decoded.provenance)
    if deidentify:
        told = {key: value for key, value in told.items() if key in ("kind", "betz", "settings")}
    module = nwb.create_processing_module(name=DECODER_MODULE, description=json.dumps(told, default=str))
    names = [(_name(d.name), d.unit or "n/a") for d in decoded.behavior if d.kind == "continuous"]
    names += [(_name(f"{d.name}={c}"), "probability") for d in decoded.behavior if d.kind == "discrete"
              for c in d.classes]  # fmt: skip
    clock = _clock(session)
    for part, array in (("decoded", values), ("spread", None if decoded.prediction.spread is None else
                                              decoded.prediction.spread[0])):  # fmt: skip
        for k, (name, unit) in enumerate(names if array is not None else []):
            assert array is not None
            module.add(
                pynwb.TimeSeries(name=f"{part}_{name}", data=array[:, k], unit=unit, comments=_AT, **clock,
                                 description="value of the bin, available when it ends; NaN = not decoded")
            )  # fmt: skip
    module.add(pynwb.TimeSeries(name="valid", data=decoded.prediction.valid[0].astype(np.uint8), unit="bool",
                                description="1 where the prediction is valid", **clock))  # fmt: skip
