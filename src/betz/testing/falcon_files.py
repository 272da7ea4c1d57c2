"""Small synthetic NWB files in FALCON's layouts and folders, for tests and for participants without the data.

The numbers mean nothing: Poisson counts tuned to smooth targets, the same tuning in held-in sessions, a changed one in
held-out sessions. Names, layouts, masks and stamps are those of the benchmark.
"""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import ConfigError, require
from betz.core.seeds import SeedTree
from betz.data.importers.falcon_names import BIN_MS, TASKS, TaskName, public_name, server_name

Array = NDArray[Any]
_BIN_S = BIN_MS / 1000
MUSCLES = ("APB", "Delt", "EDC", "FCR", "FCU", "FDI", "FDS", "FPB", "ECR", "ECU", "Bicep", "Tricep", "Pec", "Trap",
           "Brach", "Lat")  # fmt: skip
DOFS = ("tx", "ty", "tz", "roll", "g1", "g2", "g3")
_SENTENCES = ("the>quick>brown>fox", "hello>world", "a>small>test", "type>with>thought")


@dataclass(frozen=True, eq=False)
class Content:
    """What is written: rows of counts and targets, where they are scored, and the first row of each trial."""

    counts_NC: NDArray[np.uint8]
    targets_NK: Array
    mask_N: NDArray[np.bool_]
    starts: tuple[int, ...]


def content_of(
    task: TaskName, *, trials: int = 4, trial_s: float = 1.6, tuning: int = 0, change: int | None = None, seed: int = 0
) -> Content:
    """Synthetic content of one file.

    Args:
        task: gives numbers of channels and outputs.
        trials, trial_s: how many, and how long.
        tuning: seed of the population.
        change: seed of how a held-out day differs; None = not at all.
        seed: of the behavior and the spikes.
    """
    known, rows = TASKS[task], round(trial_s / _BIN_S)
    outputs = known.outputs if task != "h2" else 2
    latents = min(outputs, 3)  # a few things move, and muscles or joints are mixtures of them
    rng = SeedTree(seed).generator("falcon content")
    noise = rng.normal(size=(trials * rows + 60, latents))
    kernel = np.hanning(41) / np.sqrt((np.hanning(41) ** 2).sum())
    smooth = np.stack([np.convolve(column, kernel, "same") for column in noise.T], axis=1)[30:-30]
    fixed = SeedTree(tuning).generator("falcon tuning")
    mixing = np.eye(latents) if outputs == latents else fixed.normal(size=(latents, outputs)) / np.sqrt(latents)
    weights = fixed.normal(size=(latents, known.channels))
    if change is not None:
        weights = 0.8 * weights + 0.6 * SeedTree(change).generator("falcon day").normal(size=weights.shape)
    rate = np.exp(np.clip(0.45 * smooth @ weights / np.sqrt(latents) - 0.9, -6, 2.5))
    mixed = smooth @ mixing
    targets = np.log1p(np.exp(2 * mixed)) if task == "m1" else mixed  # muscles do not go below zero
    mask = np.ones(trials * rows, dtype=bool)
    starts = tuple(range(0, trials * rows, rows))
    for start in starts:
        mask[start + rows - 8 : start + rows] = False  # between trials
    return Content(rng.poisson(rate).astype(np.uint8), targets, mask, starts)


def write_fixture(
    folder: Path, task: TaskName, *, trials: int = 4, trial_s: float = 1.6, seed: int = 0, parts: Sequence[str] = ()
) -> list[Path]:
    """Write a task's files: ``FOLDER/TASK/sub-…-{held-in-calib,held-in-minival,held-out-calib}`` and ``…/eval``.

    Args:
        folder: the evaluator's ``EVAL_DATA_PATH``.
        task: which layout.
        trials, trial_s: of each calibration file; minival has its first two trials, eval as many other ones.
        seed: of everything.
        parts: of ``calib``, ``minival``, ``eval``; empty = all.

    Returns:
        The files.

    Raises:
        ConfigError: the task or a part is unknown.
        MissingExtraError: pynwb is not installed.
    """
    if task not in TASKS:
        raise ConfigError(f"there is no fixture for {task!r}.", remedy=f"tasks are {', '.join(TASKS)}; B1 is not built")
    wrong = [part for part in parts if part not in ("calib", "minival", "eval")]
    if wrong:
        raise ConfigError(f"there is no part {wrong[0]!r}.", remedy="parts are calib, minival and eval")
    known, written = TASKS[task], []
    for number, key in enumerate((*known.held_in, *known.held_out)):
        held_in = key in known.held_in
        place = f"sub-{known.subject}-{'held-in' if held_in else 'held-out'}"
        change = None if held_in else seed + 7 + number
        for part, own in (("calib", 0), ("minival", 0), ("eval", 1)):
            if (parts and part not in parts) or (part == "minival" and not held_in):
                continue
            content = content_of(task, trials=trials, trial_s=trial_s, tuning=seed, change=change,
                                 seed=10_000 * seed + 100 * number + own)  # fmt: skip
            if part == "minival":
                content = first_trials(content, 2)
            sub = "eval" if part == "eval" else f"{place}-{part}"
            name = server_name(task, key) if part == "eval" else public_name(task, key, part)
            path = folder / task / sub / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, task, content)
            written.append(path)
    return written


def first_trials(content: Content, number: int) -> Content:
    """The first trials of a content."""
    if number >= len(content.starts):
        return content
    end = content.starts[number]
    return Content(content.counts_NC[:end], content.targets_NK[:end], content.mask_N[:end], content.starts[:number])


def write_file(path: Path, task: TaskName, content: Content) -> None:
    """Write one file in a task's layout; spikes lie in the middle half of their bins.

    Args:
        path: of the file.
        task: which layout.
        content: its rows.
    """
    pynwb = require("pynwb", extra="nwb")
    gap = {"m2": 0.002, "h2": 10.0}.get(task, 0.0)
    starts_s = np.arange(len(content.mask_N)) * _BIN_S
    for start in content.starts[1:]:
        starts_s[start:] += gap
    if task == "h1":
        starts_s = starts_s + 0.5
    stamps_s = np.round(starts_s + (_BIN_S if task in ("m1", "h1") else 0.0), 4)
    nwb = pynwb.NWBFile(
        session_description=f"synthetic FALCON {task.upper()} layout, no recording",
        identifier=path.stem,
        session_start_time=datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC),
        subject=pynwb.file.Subject(subject_id=TASKS[task].subject, species="Synthetica nulla", sex="U", age="P1D"),
    )
    _WRITERS[task](nwb, pynwb, content, stamps_s)
    if task != "h2":
        _add_units(nwb, content.counts_NC, starts_s, 4 if task == "m1" else 1)
    nwb.add_acquisition(pynwb.TimeSeries(name="eval_mask", data=content.mask_N, unit="bool", timestamps=stamps_s))
    _add_trials(nwb, task, content, starts_s)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # H1's use of rate is not what NWB means by it
        with pynwb.NWBHDF5IO(str(path), "w") as io:
            io.write(nwb)


def _add_units(nwb: Any, counts_NC: NDArray[np.uint8], starts_s: Array, arrays: int) -> None:
    """A unit a channel, on as many arrays; spikes lie evenly in the middle half of their bin."""
    channels = counts_NC.shape[1]
    device = nwb.create_device(name="synthetic")
    groups = [
        nwb.create_electrode_group(name=f"array_{letter}", description="synthetic", location="M1", device=device)
        for letter in "HIJK"[:arrays]
    ]
    own = [groups[channel * arrays // channels] for channel in range(channels)]
    for group in own:
        nwb.add_electrode(group=group, location="M1")
    channel, row = np.divmod(np.repeat(np.arange(counts_NC.size), counts_NC.T.ravel()), len(counts_NC))
    first = np.cumsum(counts_NC.T.ravel(), dtype=np.int64) - counts_NC.T.ravel()
    which = np.arange(len(row)) - np.repeat(first, counts_NC.T.ravel())
    share = 0.25 + 0.5 * (which + 1) / (counts_NC[row, channel] + 1.0)
    nwb.units = units_table(starts_s[row] + share * _BIN_S, counts_NC.sum(axis=0, dtype=np.int64), own,
                            observed_s=(float(starts_s[0]), float(starts_s[-1] + _BIN_S)))  # fmt: skip


def units_table(
    times_s: Array, numbers_C: Array, groups: Sequence[Any], *, observed_s: tuple[float, float] | None = None
) -> Any:
    """A pynwb units table from arrays, many times faster than a call a unit.

    Args:
        times_s: spike times of all units, one unit after another.
        numbers_C: how many of them each has.
        groups: electrode group of each, electrode k being unit k's.
        observed_s: start and end of the observation of all units.
    """
    pynwb, common = require("pynwb", extra="nwb"), require("hdmf.common", extra="nwb")
    number = len(numbers_C)
    times = common.VectorData(name="spike_times", description="seconds", data=times_s)
    columns = [times, common.VectorIndex(name="spike_times_index", data=np.cumsum(numbers_C), target=times)]
    if observed_s is not None:
        spans = common.VectorData(name="obs_intervals", description="seconds", data=np.array([observed_s] * number))
        columns += [spans, common.VectorIndex(name="obs_intervals_index", data=np.arange(1, number + 1), target=spans)]
    columns.append(common.VectorData(name="electrode_group", description="its array", data=list(groups)))
    return pynwb.misc.Units(name="units", description="synthetic", id=np.arange(number), columns=columns)


def _add_trials(nwb: Any, task: TaskName, content: Content, starts_s: Array) -> None:
    if task == "h1":
        return
    ends = [*content.starts[1:], len(content.mask_N)]
    columns = {"m1": "tgt_loc", "m2": "tgt_loc", "h2": "cue"}
    nwb.add_trial_column(name=columns[task], description="synthetic")
    for k, (first, end) in enumerate(zip(content.starts, ends, strict=True)):
        value = _SENTENCES[k % len(_SENTENCES)] if task == "h2" else float(k % 4)
        stop = float(starts_s[end - 1] + _BIN_S)
        nwb.add_trial(start_time=float(starts_s[first]), stop_time=stop, **{columns[task]: value})


def _write_m1(nwb: Any, pynwb: Any, content: Content, stamps_s: Array) -> None:
    series = [
        pynwb.TimeSeries(name=name, data=content.targets_NK[:, k], unit="mV", timestamps=stamps_s)
        for k, name in enumerate(MUSCLES)
    ]
    nwb.add_acquisition(pynwb.behavior.BehavioralTimeSeries(name="preprocessed_emg", time_series=series))


def _write_m2(nwb: Any, pynwb: Any, content: Content, stamps_s: Array) -> None:
    position = np.cumsum(content.targets_NK, axis=0) * _BIN_S
    for name, values in (("finger_vel", content.targets_NK), ("finger_pos", position)):
        series = [pynwb.TimeSeries(name=finger, data=values[:, k], unit="AU", timestamps=stamps_s)
                  for k, finger in enumerate(("index", "mrs"))]  # fmt: skip
        nwb.add_acquisition(pynwb.behavior.BehavioralTimeSeries(name=name, time_series=series))


def _write_h1(nwb: Any, pynwb: Any, content: Content, stamps_s: Array) -> None:
    position = np.cumsum(content.targets_NK, axis=0) * _BIN_S
    odd = {"rate": _BIN_S, "offset": float(stamps_s[0])}  # the period as the rate, the first stamp as the offset
    told = ", ".join(DOFS)
    for name, values in (("OpenLoopKinematics", position), ("OpenLoopKinematicsVelocity", content.targets_NK)):
        nwb.add_acquisition(pynwb.TimeSeries(name=name, data=values, unit="AU", description=told, **odd))
    number = np.zeros(len(content.mask_N))
    for start in content.starts:
        number[start:] += 1
    nwb.add_acquisition(pynwb.TimeSeries(name="TrialNum", data=number, unit="n", timestamps=stamps_s))


def _write_h2(nwb: Any, pynwb: Any, content: Content, stamps_s: Array) -> None:
    nwb.add_acquisition(
        pynwb.TimeSeries(name="binned_spikes", data=content.counts_NC, unit="counts", timestamps=stamps_s)
    )


_WRITERS = {"m1": _write_m1, "m2": _write_m2, "h1": _write_h1, "h2": _write_h2}
