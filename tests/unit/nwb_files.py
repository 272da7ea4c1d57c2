"""Small NWB files that the tests make."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pynwb
from numpy.typing import NDArray

Array = NDArray[Any]
RATE_HZ = 30_000
START = datetime.datetime(2026, 4, 12, 9, 30, tzinfo=datetime.UTC)


def times_s(channel: int, *, seconds: float = 20.0, per_s: float = 12.0, seed: int = 0) -> Array:
    """Ascending spike times on the ticks of a 30 kHz clock."""
    rng = np.random.default_rng([seed, channel])
    ticks = np.unique(rng.integers(0, int(seconds * RATE_HZ), int(seconds * per_s)))
    return ticks / RATE_HZ


def nwb_file() -> Any:
    """An NWB file without any data."""
    who = pynwb.file.Subject(subject_id="M", species="Macaca mulatta", sex="M", age="P8Y")
    return pynwb.NWBFile(
        session_description="center-out reaching", identifier="id-1", session_start_time=START, lab="Motor",
        institution="Somewhere", subject=who,
    )  # fmt: skip


def add_arrays(nwb: Any, names: Sequence[str] = ("M1", "PMd"), electrodes: int = 2) -> list[Any]:
    """Electrode groups with electrodes; returns the group of each electrode."""
    device = nwb.create_device(name="implant")
    groups = []
    for name in names:
        group = nwb.create_electrode_group(name=name, description="array", location=name, device=device)
        for _ in range(electrodes):
            nwb.add_electrode(group=group, location=name)
            groups.append(group)
    return groups


def add_units(nwb: Any, trains: Sequence[Array], electrodes: Sequence[int], groups: Sequence[Any], **more: Any) -> None:
    """A unit a train, on electrodes by number."""
    for train, electrode in zip(trains, electrodes, strict=True):
        nwb.add_unit(spike_times=train, electrodes=[electrode], electrode_group=groups[electrode], **more)


def spatial(name: str, values: Array, **time: Any) -> Any:
    """Position or velocity in metres."""
    return pynwb.behavior.SpatialSeries(name=name, data=values, unit="meters", reference_frame="screen", **time)


def wave(samples: int, rate_hz: float = 1000.0, columns: int = 2) -> Array:
    """Smooth behavior."""
    t = np.arange(samples) / rate_hz
    return np.stack([np.sin(2 * np.pi * 0.7 * t + k) for k in range(columns)], axis=1)


def write(path: Path, nwb: Any) -> Path:
    """Write a file; a library's advice is not a test's matter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pynwb.NWBHDF5IO(str(path), "w") as io:
            io.write(nwb)
    return path


def reaching(path: Path, *, change: Callable[[Any], None] | None = None, seconds: float = 20.0) -> Path:
    """Four units on two arrays (two of them on one electrode), hand position and velocity at 1 kHz, trials."""
    nwb = nwb_file()
    groups = add_arrays(nwb)
    add_units(nwb, [times_s(c, seconds=seconds) for c in range(4)], [0, 0, 1, 2], groups)
    samples = int(seconds * 1000)
    module = nwb.create_processing_module(name="behavior", description="kinematics")
    position = pynwb.behavior.Position(name="Position")
    position.add_spatial_series(spatial("hand_pos", wave(samples), rate=1000.0, starting_time=0.0, conversion=0.01))
    module.add(position)
    velocity = pynwb.TimeSeries(name="hand_vel", data=wave(samples) * 4, unit="m/s", rate=1000.0, starting_time=0.0)
    module.add(velocity)
    nwb.add_trial_column(name="condition", description="target")
    nwb.add_trial_column(name="go_cue_time", description="go")
    for k in range(4):
        nwb.add_trial(
            start_time=2.0 + 4 * k, stop_time=5.0 + 4 * k, condition=f"target {k % 2}", go_cue_time=2.5 + 4 * k
        )
    if change is not None:
        change(nwb)
    return write(path, nwb)


def table(name: str, rows: Sequence[tuple[float, float, str]]) -> Any:
    """A table of intervals with labels."""
    found = pynwb.epoch.TimeIntervals(name=name, description="states")
    found.add_column(name="label", description="which")
    for start, stop, label in rows:
        found.add_row(start_time=start, stop_time=stop, label=label)
    return found
