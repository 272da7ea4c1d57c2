"""FALCON's H1, H2, M1 and M2 files by their own layouts, with the counts that the official evaluator makes.

M1 and H1 stamp the *end* of a bin, M2 its *start*; H1 keeps the bin's width where NWB wants a rate, and its start where
NWB wants an offset. A row of the file is a bin of the session, one after another as the evaluator serves them; where
stamps jump (2 ms between trials of M2, 10 s in H2) there is an edge.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import ConfigError
from betz.core.session import BehaviorDim, Channel, Trials
from betz.core.timegrid import MAX_COUNT, BinGrid, Ticks
from betz.data.importers.build import Draft, ImportOptions
from betz.data.importers.convert import counts_from
from betz.data.importers.falcon_names import BIN_MS, TaskName, parse
from betz.data.importers.files import FileError
from betz.data.importers.nwb_behavior import plain
from betz.data.importers.nwb_file import NwbFile, text_of
from betz.data.importers.nwb_intervals import read_trials
from betz.data.importers.probe import target_names

Array = NDArray[Any]
Float = NDArray[np.float64]
MASK = BehaviorDim("eval_mask", "", "discrete", ("no", "yes"))
"""Whether the official evaluator scores a bin; in H2, whether it hands the bin over at all."""
_BIN_S = BIN_MS / 1000
_TICK_HZ = 1_000_000


@dataclass(frozen=True)
class Layout:
    """Where a task's files keep what.

    Args:
        task: which one.
        has: names in acquisition by which its files are known.
        stamps_end: whether stamps are the ends of bins; otherwise they are the starts.
    """

    task: TaskName
    has: tuple[str, ...]
    stamps_end: bool


LAYOUTS = (
    Layout("m1", ("preprocessed_emg", "eval_mask"), stamps_end=True),
    Layout("m2", ("finger_vel", "finger_pos", "eval_mask"), stamps_end=False),
    Layout("h1", ("OpenLoopKinematics", "OpenLoopKinematicsVelocity", "TrialNum"), stamps_end=True),
    Layout("h2", ("binned_spikes", "eval_mask"), stamps_end=False),
)


def layout_of(file: NwbFile) -> Layout | None:
    """The FALCON layout of a file; None if it has none.

    Raises:
        FileError: it is a file of B1, which is not imported.
    """
    names = set(file.nwb.acquisition)
    if {"tx", "vocalizations"} <= names:
        raise FileError(
            "unsupported task",
            "it is FALCON's B1, a bird's song from 30 kHz voltage; Betz decodes movement and text and has no B1.",
            where=file.where,
            remedy="use FALCON's own tools for B1",
        )
    return next((layout for layout in LAYOUTS if set(layout.has) <= names), None)


def read_falcon(file: NwbFile, layout: Layout, options: ImportOptions) -> Draft:
    """A FALCON file as a draft: counts in its own 20 ms bins, its targets, ``eval_mask``, trials and what it is.

    Raises:
        FileError: rows of the file differ in number, stamps do not ascend, or a bin holds more than 255 spikes.
        ConfigError: another bin width, or a slot, is asked for.
    """
    if options.slot is not None or options.bin_ms not in (None, BIN_MS):
        raise ConfigError(
            "FALCON's bins are 20 ms, and its channels are fixed.", where=file.where, remedy="leave bin_ms and slot out"
        )
    behavior, stamps_s = _READERS[layout.task](file)
    starts_s = stamps_s - _BIN_S if layout.stamps_end else stamps_s
    rows = _Rows(starts_s, file.where)
    counts_NC, channels = _signals(file, layout, stamps_s)
    mask_N = _mask(file, len(stamps_s))
    named = parse(layout.task, file.path.stem)
    draft = Draft(
        path=file.path,
        importer=f"falcon-{layout.task}",
        counts=counts_NC,
        channels=channels,
        grid=rows.grid,
        edges=rows.edges,
        behavior=[*behavior, ("eval_mask", mask_N[:, None].astype(np.float64), (MASK,))],
        subject=text_of(file.nwb.subject.subject_id) if file.nwb.subject is not None else "",
        task=f"FALCON {layout.task.upper()}",
        tags={
            "falcon_task": layout.task,
            "falcon_key": named.key,
            "falcon_session": named.session,
            "falcon_split": named.split,
            "falcon_part": named.part,
        },
    )
    draft.tags = {key: value for key, value in draft.tags.items() if value}
    if named.part == "minival":
        draft.notes.append("minival is a part of the public calibration data: it checks plumbing, not quality")
    if len(rows.edges):
        draft.notes.append(f"stamps jump {len(rows.edges)} times: edges, with the rows one after another")
    if file.nwb.trials is not None and len(file.nwb.trials):
        draft.trials = read_trials(file.nwb.trials, draft, rows.ticks)
    elif layout.task == "h1":
        draft.trials = _h1_trials(file, rows)
    return draft


class _Rows:
    """The rows of a file as bins one after another, and where a time of the file lies on that clock."""

    def __init__(self, starts_s: Float, where: str) -> None:
        steps = np.diff(starts_s)
        if not len(starts_s) or not np.isfinite(starts_s).all() or np.any(steps <= 0):
            raise FileError("bad stamps", "its stamps are missing, NaN, or do not ascend.", where=where,
                            remedy="copy it again from DANDI")  # fmt: skip
        self.starts_s = starts_s
        self.grid = BinGrid(_TICK_HZ, round(_BIN_S * _TICK_HZ), round(float(starts_s[0]) * _TICK_HZ))
        jumps = np.flatnonzero(~np.isclose(steps, _BIN_S)) + 1
        self.edges: Ticks = self.grid.start_of(jumps)

    def ticks(self, seconds: Any) -> Ticks:
        """Ticks of times; inside a jump, the end of the row before it."""
        times = np.asarray(seconds, dtype=np.float64)
        row = np.clip(np.searchsorted(self.starts_s, times + 1e-7, side="right") - 1, 0, None)
        since = np.minimum(times - self.starts_s[row], _BIN_S)
        return np.asarray(self.grid.start_of(row) + np.rint(since * _TICK_HZ).astype(np.int64))


def count_units(times_s: list[Float], stamps_s: Float, *, stamps_end: bool, where: str) -> NDArray[np.uint8]:
    """(N, C) counts, one bin a stamp, with the edges of the official evaluator, in float seconds as there.

    A bin holds [previous stamp, stamp) of the ends; after a jump, the 20 ms before its end. The last one is closed.

    Args:
        times_s: spike times of each channel.
        stamps_s: (N,) one a bin.
        stamps_end: whether they are ends.
        where: the file, for messages.

    Raises:
        FileError: a bin holds more than 255 spikes.
    """
    ends = stamps_s if stamps_end else stamps_s + _BIN_S
    gap = np.diff(ends)
    jump = ~np.isclose(gap, _BIN_S) & (gap > _BIN_S)
    starts = np.concatenate(([ends[0] - _BIN_S], np.where(jump, ends[1:] - _BIN_S, ends[:-1])))
    counts = np.zeros((len(ends), len(times_s)), dtype=np.int64)
    for channel, times in enumerate(times_s):
        ordered = np.sort(times)
        upper = np.searchsorted(ordered, ends, side="left")
        upper[-1] = np.searchsorted(ordered, ends[-1], side="right")
        counts[:, channel] = upper - np.searchsorted(ordered, starts, side="left")
    if counts.max(initial=0) > MAX_COUNT:
        raise FileError("more than 255 counts", f"a bin holds {counts.max()} spikes of a channel.", where=where,
                        remedy="copy it again from DANDI")  # fmt: skip
    return counts.astype(np.uint8)


def _signals(file: NwbFile, layout: Layout, stamps_s: Float) -> tuple[NDArray[np.uint8], tuple[Channel, ...]]:
    if layout.task == "h2":
        raw = np.asarray(file.nwb.acquisition["binned_spikes"].data[:])
        counts = counts_from(raw, encoding="counts", bin_s=_BIN_S, where=file.where, name="binned_spikes")
        if len(counts) != len(stamps_s):
            raise _different(file, "binned_spikes", len(counts), len(stamps_s))
        return counts, tuple(Channel(f"ch{c + 1}") for c in range(counts.shape[1]))
    units = file.nwb.units
    if units is None or not len(units):
        raise FileError("no spikes", "its units table is missing or empty.", where=file.where,
                        remedy="copy it again from DANDI")  # fmt: skip
    times = np.asarray(file.hdf5["units/spike_times"][()], dtype=np.float64)
    ends = np.asarray(file.hdf5["units/spike_times_index"][()]).astype(np.int64)
    if not np.isfinite(times).all():
        raise FileError("bad spike times", "spike times are NaN.", where=file.where, remedy="copy it again from DANDI")
    groups = target_names(file.hdf5["units/electrode_group"]) if "electrode_group" in units.colnames else []
    arrays = [name.rpartition("/")[2] for name in groups]
    counts = count_units(np.split(times, ends[:-1]), stamps_s, stamps_end=layout.stamps_end, where=file.where)
    channels = [Channel(f"ch{c + 1}", array=arrays[c] if arrays else "A") for c in range(counts.shape[1])]
    return counts, tuple(channels)


def _mask(file: NwbFile, rows: int) -> NDArray[np.bool_]:
    acquisition = file.nwb.acquisition
    if "eval_mask" in acquisition:
        mask = np.asarray(acquisition["eval_mask"].data[:]).astype(bool).ravel()
    elif "Blacklist" in acquisition:
        mask = ~np.asarray(acquisition["Blacklist"].data[:]).astype(bool).ravel()
    else:
        raise FileError("missing variable", "it has neither eval_mask nor Blacklist.", where=file.where,
                        remedy="copy it again from DANDI")  # fmt: skip
    if len(mask) != rows:
        raise _different(file, "eval_mask", len(mask), rows)
    return np.asarray(mask)


def _different(file: NwbFile, name: str, found: int, rows: int) -> FileError:
    return FileError("different lengths", f"{name!r} has {found} rows, its stamps {rows}.", where=file.where,
                     remedy="copy it again from DANDI")  # fmt: skip


Read = tuple[list[tuple[str, Array, tuple[BehaviorDim, ...]]], Float]


def _container(file: NwbFile, name: str) -> tuple[list[str], Array, Float, list[str]]:
    """Names, (N, K) data, stamps and units of the series in a container, in pynwb's order."""
    series = file.nwb.acquisition[name].time_series
    names = list(series)
    if not names:
        raise FileError("missing variable", f"{name!r} holds no series.", where=file.where,
                        remedy="copy it again from DANDI")  # fmt: skip
    columns = [np.asarray(series[n].data[:], dtype=np.float64) for n in names]
    stamps = np.asarray(series[names[-1]].timestamps[:], dtype=np.float64)
    for n, column in zip(names, columns, strict=True):
        if len(column) != len(stamps):
            raise _different(file, f"{name}/{n}", len(column), len(stamps))
    return names, np.stack(columns, axis=1), stamps, [text_of(series[n].unit) for n in names]


def _read_m1(file: NwbFile) -> Read:
    names, values, stamps, units = _container(file, "preprocessed_emg")
    dims = tuple(BehaviorDim(f"emg_{plain(n)}", u or "mV") for n, u in zip(names, units, strict=True))
    return [("preprocessed_emg", values, dims)], stamps


def _read_m2(file: NwbFile) -> Read:
    names, velocity, stamps, _ = _container(file, "finger_vel")
    _, position, _, _ = _container(file, "finger_pos")
    moving = tuple(BehaviorDim(f"{plain(n)}_v", "a.u./bin") for n in names)
    placed = tuple(BehaviorDim(plain(n), "a.u.") for n in names)
    return [("finger_vel", velocity, moving), ("finger_pos", position, placed)], stamps


def _read_h1(file: NwbFile) -> Read:
    series = file.nwb.acquisition["OpenLoopKinematicsVelocity"]
    clock = file.nwb.acquisition["OpenLoopKinematics"]
    velocity = np.asarray(series.data[:], dtype=np.float64)
    words = [w for w in re.split(r"[^A-Za-z0-9]+", text_of(series.description)) if w]
    labels = words if len(words) == velocity.shape[1] else [f"dof{k + 1}" for k in range(velocity.shape[1])]
    period = float(clock.rate) if clock.rate else _BIN_S  # they keep the period where NWB wants the rate
    if not np.isclose(period, _BIN_S):
        raise FileError("mixed bin widths", f"its kinematics have a period of {period:g} s, not 0.02.",
                        where=file.where, remedy="copy it again from DANDI")  # fmt: skip
    stamps = np.asarray(float(clock.offset or 0.0) + np.arange(len(velocity)) * period, dtype=np.float64)
    dims = tuple(BehaviorDim(f"{label}_v", "a.u.") for label in labels)
    return [("OpenLoopKinematicsVelocity", velocity, dims)], stamps


def _read_h2(file: NwbFile) -> Read:
    return [], np.asarray(file.nwb.acquisition["binned_spikes"].timestamps[:], dtype=np.float64)


_READERS = {"m1": _read_m1, "m2": _read_m2, "h1": _read_h1, "h2": _read_h2}


def _h1_trials(file: NwbFile, rows: _Rows) -> Trials | None:
    """Trials are runs of one number in ``TrialNum``."""
    number = np.asarray(file.nwb.acquisition["TrialNum"].data[:]).ravel()
    if len(number) != len(rows.starts_s):
        raise _different(file, "TrialNum", len(number), len(rows.starts_s))
    first = np.flatnonzero(np.append(True, number[1:] != number[:-1]))
    end = np.append(first[1:], len(number))
    return Trials(rows.grid.start_of(first), rows.grid.start_of(end), (), {"trial_num": number[first]})
