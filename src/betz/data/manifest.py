"""A session as a JSON manifest and named arrays, and back; older manifests are brought up to date by numbered steps."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import DataError
from betz.core.events import Events
from betz.core.intervals import Intervals
from betz.core.session import Assistance, BehaviorDim, Channel, Provenance, Series, Session, Trials
from betz.core.timegrid import BinGrid
from betz.data.disk import open_array

Array = NDArray[Any]
Manifest = dict[str, Any]
FORMAT, VERSION = "betz session", 2
_SAFE_NAME = re.compile(r"[a-z]+(_[a-z0-9]+)*")


# ---- versions


def _from_1(manifest: Manifest) -> Manifest:
    """1 → 2: the grid has named fields instead of a list; ``license`` is spelled ``licence`` as in the session."""
    new = {**manifest, "version": 2, "licence": manifest["license"]}
    del new["license"]
    new["grid"] = dict(zip(("tick_hz", "ticks_per_bin", "origin_tick"), manifest["grid"], strict=True))
    return new


MIGRATIONS: dict[int, Callable[[Manifest], Manifest]] = {1: _from_1}
"""Step from each older version to the next one."""


def read_manifest(content: bytes, *, id: str, where: str) -> Manifest:
    """The manifest of a session in today's version.

    Args:
        content: bytes of the manifest file.
        id: the session it must be of.
        where: its path, for the message.

    Raises:
        DataError: it is no manifest, was changed after it was written, or is of a version this Betz does not know.
    """
    remedy = "restore the file from a copy, or import the session again"
    try:
        manifest: Manifest = json.loads(content)
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise ValueError(f"not a {FORMAT!r}")
        version = whole_version(manifest)
        sealed = manifest.get("sha256") == seal(manifest)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"this is no manifest of a session ({type(error).__name__}: {error}).", where=where, remedy=remedy
        ) from None
    check_version(version, where=where)
    if not sealed:
        raise DataError(
            "the manifest was changed after it was written.",
            where=where,
            remedy=f"{remedy}; to change a session, put it again with replace=True",
        )
    try:
        while version < VERSION:
            manifest = MIGRATIONS[version](manifest)
            version += 1
        if manifest["id"] != id:
            raise ValueError(f"it is of session {manifest['id']!r}")
        for name in manifest["files"]:
            if not _SAFE_NAME.fullmatch(name):
                raise ValueError(f"array name {name!r}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"the manifest does not fit ({type(error).__name__}: {error}).", where=where, remedy=remedy
        ) from None
    return manifest


def whole_version(found: Mapping[str, Any]) -> int:
    """The format version that a manifest or the head of a store states; ``ValueError`` if it is no whole number."""
    version = found.get("version")
    if not isinstance(version, int):
        raise ValueError(f"format version {version!r}")
    return version


def check_version(version: int, *, where: str) -> None:
    """Raise :class:`DataError` for a format version that this Betz cannot read."""
    if version > VERSION:
        raise DataError(
            f"format version {version} is newer than this Betz reads ({VERSION}).", where=where, remedy="update betz"
        )
    if version < min(MIGRATIONS):
        raise DataError(f"format version {version} is unknown.", where=where, remedy="import the session again")


def seal(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of everything in a manifest but the seal itself."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


# ---- session → manifest


def to_manifest(session: Session) -> tuple[Manifest, dict[str, Array]]:
    """Everything of a session as JSON values, and its arrays by name; ``files`` and the seal are still missing."""
    arrays: dict[str, Array] = {}
    if session.counts is not None:
        arrays["counts"] = session.counts
    if session.power is not None:
        arrays["power"] = session.power
    if session.spikes is not None:
        lengths = [len(ticks) for ticks in session.spikes]
        arrays["spikes"] = np.concatenate([np.empty(0, np.int64), *session.spikes])
        arrays["spike_offsets"] = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    for k, series in enumerate(session.behavior):
        arrays[f"behavior_{k}"] = series.values
    if session.events is not None:
        arrays["events"] = np.stack((session.events.ticks, session.events.codes), axis=1)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "id": session.id,
        "subject": session.subject,
        "grid": asdict(session.grid),
        "num_bins": int(session.num_bins),
        "channels": [asdict(channel) for channel in session.channels],
        "behavior": [
            {
                "dims": [asdict(dim) for dim in series.dims],
                "origin_tick": int(series.origin_tick),
                "ticks_per_sample": int(series.ticks_per_sample),
            }
            for series in session.behavior
        ],
        "valid": None if session.valid is None else session.valid.pairs().tolist(),
        "edges": session.edges.tolist(),
        "trials": None if session.trials is None else _trials_out(session.trials, arrays, session.id),
        "task": session.task,
        "tags": dict(session.tags),
        "brain_control": session.brain_control.pairs().tolist(),
        "assistance": [asdict(part) for part in session.assistance],
        "reward": None if session.reward is None else session.reward.tolist(),
        "events": None if session.events is None else [list(kind) for kind in session.events.kinds],
        "provenance": {
            **{name: getattr(session.provenance, name) for name in ("source", "sha256", "importer")},
            "options": dict(session.provenance.options),
            "notes": list(session.provenance.notes),
            "skipped": dict(session.provenance.skipped),
        },
        "licence": session.licence,
    }
    try:
        plain: Manifest = json.loads(json.dumps(manifest, allow_nan=False, default=_python_number))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"it has something that JSON cannot hold ({error}).",
            where=f"session {session.id!r}",
            remedy="give plain numbers and texts in tags, provenance and derivations",
        ) from None
    return plain, arrays


def _python_number(value: object) -> Any:
    """What JSON holds of a numpy number."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} {value!r}")


def _trials_out(trials: Trials, arrays: dict[str, Array], id: str) -> Manifest:
    columns = {}
    for j, (name, column) in enumerate(trials.columns.items()):
        columns[name], values = f"trials_{j}", np.asarray(column)
        if values.dtype.kind not in "biufcSUMm":
            raise DataError(
                f"the trial column {name!r} is of {values.dtype}, which cannot be stored.",
                where=f"session {id!r}",
                remedy="use an array of numbers or of plain strings",
            )
        arrays[f"trials_{j}"] = values
    return {
        "start": trials.start.tolist(),
        "end": trials.end.tolist(),
        "condition": list(trials.condition),
        "columns": columns,
    }


# ---- manifest → session


def from_manifest(manifest: Mapping[str, Any], folder: Path) -> Session:
    """The session of a manifest and the folder of its arrays; raises whatever a manifest that does not fit leads to."""
    arrays = {name: open_array(folder / f"{name}.npy", entry) for name, entry in manifest["files"].items()}
    spikes = None
    if "spikes" in arrays:
        ends = arrays["spike_offsets"].tolist()
        if ends[0] != 0 or ends[-1] != len(arrays["spikes"]) or sorted(ends) != ends:
            raise ValueError("spike_offsets do not fit the spikes")
        spikes = tuple(arrays["spikes"][i:j] for i, j in pairwise(ends))
    return Session(
        **_frame(manifest),
        channels=tuple(Channel(**channel) for channel in manifest["channels"]),
        counts=arrays.get("counts"),
        spikes=spikes,
        power=arrays.get("power"),
        behavior=tuple(
            Series(
                arrays[f"behavior_{k}"],
                dims_of(series),
                int(series["origin_tick"]),
                int(series["ticks_per_sample"]),
            )
            for k, series in enumerate(manifest["behavior"])
        ),
        trials=None if manifest["trials"] is None else _trials_in(manifest["trials"], arrays),
        task=manifest["task"],
        tags=manifest["tags"],
        brain_control=_intervals(manifest["brain_control"]),
        assistance=tuple(Assistance(**part) for part in manifest["assistance"]),
        reward=None if manifest["reward"] is None else np.array(manifest["reward"], np.int64).reshape(-1, 2),
        events=_events_in(manifest.get("events"), arrays),
        provenance=Provenance(**{**manifest["provenance"], "notes": tuple(manifest["provenance"]["notes"])}),
        licence=manifest["licence"],
    )


def _events_in(kinds: list[list[str]] | None, arrays: Mapping[str, Array]) -> Events | None:
    """Events of a manifest; early ones of version 2 have no such field."""
    if kinds is None:
        return None
    rows = arrays["events"]
    return Events(rows[:, 0], rows[:, 1], tuple((name, text) for name, text in kinds))


def frame_of(manifest: Mapping[str, Any]) -> Session:
    """A session with the bins, gaps and edges of the manifest but no signals: enough for ``segments``."""
    nothing = np.broadcast_to(np.uint8(0), (int(manifest["num_bins"]), 1))
    return Session(**_frame(manifest), channels=(Channel("none"),), counts=nothing)


def dims_of(series: Mapping[str, Any]) -> tuple[BehaviorDim, ...]:
    """The dimensions of one series of a manifest."""
    return tuple(BehaviorDim.from_json(dim) for dim in series["dims"])


def _frame(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": manifest["id"],
        "subject": manifest["subject"],
        "grid": BinGrid(**manifest["grid"]),
        "num_bins": int(manifest["num_bins"]),
        "valid": None if manifest["valid"] is None else _intervals(manifest["valid"]),
        "edges": np.array(manifest["edges"], np.int64),
    }


def _intervals(pairs: list[list[int]]) -> Intervals:
    return Intervals.of(np.array(pairs, np.int64).reshape(-1, 2))


def _trials_in(trials: Mapping[str, Any], arrays: Mapping[str, Array]) -> Trials:
    return Trials(
        np.array(trials["start"], np.int64),
        np.array(trials["end"], np.int64),
        tuple(trials["condition"]),
        {name: arrays[file] for name, file in trials["columns"].items()},
    )
