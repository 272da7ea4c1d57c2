"""Sinks that keep predictions: on disk, through a crash; in memory; or not at all."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import DataError, StreamError
from betz.core.prediction import GuardState, Prediction
from betz.core.session import channel_hash
from betz.decode.decoder import Decoder
from betz.live.ports import Timing

FORMAT_VERSION = 1
STATES = tuple(GuardState)
_STAMPS = ("ready_ns", "start_ns", "done_ns", "sent_ns", "deadline_ns")


class NullSink:
    """Takes everything and keeps nothing."""

    def send(self, prediction: Prediction, state: GuardState, timing: Timing) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class MemorySink:
    """Keeps everything it is sent; for tests and short runs."""

    def __init__(self) -> None:
        self.predictions: list[Prediction] = []
        self.states: list[GuardState] = []
        self.timings: list[Timing] = []
        self.closed = 0

    def send(self, prediction: Prediction, state: GuardState, timing: Timing) -> None:
        """Keep it."""
        self.predictions.append(prediction)
        self.states.append(state)
        self.timings.append(timing)

    def close(self) -> None:
        """Count how often it was closed."""
        self.closed += 1


class Recorder:
    """Writes every prediction that is sent, so that a killed process loses at most the last one.

    A run is two files, ``run_0001.json`` (what is recorded) and ``run_0001.bin`` (one record of fixed size a
    prediction); the next run in the same folder is ``run_0002``: nothing is overwritten. Each record is handed to the
    operating system at once, without waiting for the disk: a power cut can lose the last seconds. A full disk does not
    stop the loop; what could not be written is counted and raised by :meth:`close`.

    Args:
        folder: is made if needed.
        decoder: gives bin width, channels and behavior.
        about: further JSON values for the header, e.g. the session and the decoder's folder.

    Raises:
        DataError: the files cannot be created.
    """

    def __init__(self, folder: str | Path, decoder: Decoder, *, about: Mapping[str, Any] | None = None) -> None:
        columns = _columns(decoder)
        self._record = np.zeros(1, dtype=_dtype(len(columns)))
        self._size, self._written, self._failed, self._error = self._record.itemsize, 0, 0, ""
        header = {
            "format": "betz live recording",
            "version": FORMAT_VERSION,
            "started_utc": datetime.now(UTC).isoformat(),
            "started_monotonic_ns": time.monotonic_ns(),
            "bin_ms": decoder.bin_ms,
            "latency_bins": decoder.latency_bins,
            "columns": [list(column) for column in columns],
            "behavior": [asdict(dim) for dim in decoder.behavior],
            "channel_hash": channel_hash(decoder.channels),
            "channels": [asdict(channel) for channel in decoder.channels],
            "states": [state.value for state in STATES],
            "record_bytes": self._size,
            "about": dict(about or {}),
        }
        try:
            self.path, self._file = _create(Path(folder), json.dumps(header, indent=1))
        except OSError as error:
            raise DataError(
                f"no recording can be started here ({error.strerror or error}).",
                where=str(folder),
                remedy="choose a folder that can be written to, with free space",
            ) from None

    def send(self, prediction: Prediction, state: GuardState, timing: Timing) -> None:
        """Append one record.

        Raises:
            StreamError: the prediction has other columns than the decoder said.
        """
        record = self._record[0]
        if prediction.values.shape[2] != len(record["values"]):
            raise StreamError(
                f"a prediction has {prediction.values.shape[2]} columns, the decoder has {len(record['values'])}.",
                where=str(self.path),
            )
        record["bin"], record["pushed"] = prediction.bin[0, -1], timing.bin
        record["valid"], record["state"] = prediction.valid[0, -1], STATES.index(state)
        record["values"] = prediction.values[0, -1]
        record["spread"] = np.nan if prediction.spread is None else prediction.spread[0, -1]
        for name in _STAMPS:
            record[name] = getattr(timing, name)
        try:
            # At its own place, not at the end of the file: half a record on a full disk is overwritten by the next.
            self._file.seek(self._written * self._size)
            done = self._file.write(self._record.data)
            if done < self._size:
                raise OSError(f"only {done} of {self._size} bytes were taken")
            self._written += 1
        except OSError as error:
            self._failed += 1
            self._error = self._error or str(error.strerror or error)

    def close(self) -> None:
        """End the run.

        Raises:
            DataError: some predictions could not be written.
        """
        if self._file.closed:
            return
        with self._file:
            if self._failed:
                self._file.truncate(self._written * self._size)
        if self._failed:
            raise DataError(
                f"{self._failed:,} of {self._written + self._failed:,} predictions could not be written "
                f"(first: {self._error}).",
                where=str(self.path),
                remedy="the others can be read; make room before the next run",
            )


@dataclass(frozen=True, eq=False)
class Recording:
    """One run as it was recorded.

    Args:
        header: what was recorded: decoder, behavior, channels, start.
        prediction: values (1, N, K) in the order in which they were sent, numbered on the source's grid.
        timings: (N,) record array: ``pushed`` (bin number of the push) and the stamps of
            :class:`~betz.live.ports.Timing`, in ns of the loop's clock.
        states: (N,) names of the guard's states.
        torn: whether the file ends in half a record, which was left out: the process was killed while writing.
    """

    header: Mapping[str, Any]
    prediction: Prediction
    timings: NDArray[Any]
    states: tuple[str, ...]
    torn: bool

    def equals(self, other: Prediction) -> bool:
        """Whether every recorded bin has the values and validity that ``other`` has at that bin, bit for bit.

        Bins that were skipped are not on record and not compared. An empty recording equals nothing.

        Args:
            other: (1, M, K) with ascending bins, e.g. of ``betz.replay``; bins that it lacks count as not valid.
        """
        bins, valid, values = self.prediction.bin[0], self.prediction.valid[0], self.prediction.values[0]
        if not bins.size or not other.bin.size or other.values.shape[2] != values.shape[1]:
            return False
        at = np.searchsorted(other.bin[0], bins)
        inside = at < other.bin.shape[1]
        at[~inside] = 0
        inside &= other.bin[0, at] == bins
        same = values[valid] == other.values[0, at[valid]]
        return bool(np.array_equal(other.valid[0, at] & inside, valid) and np.all(same))


def read_recording(folder: str | Path, *, run: int | None = None) -> Recording:
    """Read a run that a :class:`Recorder` wrote, finished or not.

    Args:
        folder: the recorder's folder.
        run: its number; None = the latest.

    Raises:
        DataError: there is no such run, or its files are damaged.
    """
    folder = Path(folder)
    runs = sorted(int(path.stem[4:]) for path in folder.glob("run_*.json") if path.stem[4:].isdigit())
    if run not in runs and (run is not None or not runs):
        wanted = "no recording" if run is None else f"no run {run}"
        raise DataError(
            f"there is {wanted} here.",
            where=str(folder),
            remedy=f"it has runs {runs}" if runs else "give a folder that a Recorder wrote",
        )
    path = _file_of(folder, runs[-1] if run is None else run)
    try:
        header = json.loads(path.with_suffix(".json").read_text())
        dtype = _dtype(len(header["columns"]))
        version, size, states = int(header["version"]), int(header["record_bytes"]), list(header["states"])
        content = path.read_bytes()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"this recording is damaged ({type(error).__name__}: {error}).", where=str(path)) from None
    if version > FORMAT_VERSION or size != dtype.itemsize:
        raise DataError(
            f"its format (version {version}, records of {size} bytes) is not one that this Betz reads.",
            where=str(path),
            remedy="update betz",
        )
    records = np.frombuffer(content, dtype, count=len(content) // size)
    if records["state"].size and records["state"].max() >= len(states):
        raise DataError(f"it has guard states beyond {', '.join(states)}.", where=str(path))
    spread = records["spread"][None]
    prediction = Prediction(
        records["values"][None],
        None if np.isnan(spread).all() else spread,
        records["bin"][None],
        records["valid"][None],
    )
    return Recording(
        header,
        prediction,
        records[["pushed", *_STAMPS]],
        tuple(states[i] for i in records["state"].tolist()),
        torn=len(content) % size != 0,
    )


def _dtype(columns: int) -> np.dtype[Any]:
    """Little-endian whatever the machine: a recording is read elsewhere."""
    numbers = [(name, "<i8") for name in ("bin", "pushed", *_STAMPS)]
    return np.dtype(
        [*numbers, ("valid", "?"), ("state", "u1"), ("values", "<f8", (columns,)), ("spread", "<f8", (columns,))]
    )


def _columns(decoder: Decoder) -> list[tuple[str, str]]:
    """Name and unit of each column of the prediction: one a continuous dimension, one a class of a discrete one."""
    return [
        column
        for dim in decoder.behavior
        for column in (
            [(dim.name, dim.unit)]
            if dim.kind == "continuous"
            else [(f"{dim.name}={label}", "probability") for label in dim.classes]
        )
    ]


def _file_of(folder: Path, run: int) -> Path:
    return folder / f"run_{run:04d}.bin"


def _create(folder: Path, header: str) -> tuple[Path, FileIO]:
    """The next free run: its data file, opened, and its header, written."""
    folder.mkdir(parents=True, exist_ok=True)
    run = 1 + max((int(p.stem[4:]) for p in folder.glob("run_*.bin") if p.stem[4:].isdigit()), default=0)
    while True:
        path = _file_of(folder, run)
        try:
            file = FileIO(path, "xb")  # unbuffered: what is written survives the process
            break
        except FileExistsError:  # another recorder was faster
            run += 1
    part = path.with_suffix(".part")
    try:
        part.write_text(header)
        os.replace(part, path.with_suffix(".json"))
    except OSError:
        file.close()
        path.unlink()
        part.unlink(missing_ok=True)
        raise
    return path, file
