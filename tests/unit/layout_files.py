"""Small files of the public layouts that Betz knows, made by the tests; every builder takes changes for bad input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from numpy.typing import NDArray

Array = NDArray[Any]
LENGTHS = (9, 12, 7)
"""Bins of the trials of the concatenated layouts."""
TOTAL = sum(LENGTHS)
TRIAL_N = np.repeat(np.arange(len(LENGTHS)), LENGTHS)


def poisson(rows: int, columns: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).poisson(1.2, (rows, columns)).astype(np.float64)


def smooth(rows: int, columns: int = 2) -> Array:
    time = np.arange(rows)
    return np.stack([np.sin(time / (5 + k) + k) for k in range(columns)], axis=1)


def cell(values: list[Any], *, shape: tuple[int, ...] | None = None) -> Array:
    """A MATLAB cell."""
    out = np.empty(len(values), dtype=object)
    for k, value in enumerate(values):
        out[k] = value
    return out.reshape(shape or (1, len(values)))


def structs(elements: list[Mapping[str, Any]]) -> Array:
    """A MATLAB struct array."""
    out = np.empty(len(elements), dtype=[(name, object) for name in elements[0]])
    for k, element in enumerate(elements):
        for name, value in element.items():
            out[k][name] = value
    return out.reshape(1, -1)


# ---- concatenated trials


def chewie(path: Path, **changes: Any) -> Path:
    arrays = {
        "counts": poisson(TOTAL, 5).astype(np.uint8),
        "position": 3 * smooth(TOTAL).astype(np.float32),
        "velocity": 7 * smooth(TOTAL).astype(np.float32),
        "acceleration": smooth(TOTAL).astype(np.float32),
        "force": smooth(TOTAL).astype(np.float32),
        "target": np.array([6, 3, 6], np.int8)[TRIAL_N],
        "trial": np.array([0, 1, 4])[TRIAL_N],
        "bin_s": np.float64(0.1),
    } | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def dcca(path: Path, **changes: Any) -> Path:
    arrays = {
        "IND": np.array([1.0, 2.0, 5.0])[TRIAL_N][:, None],
        "Target": np.array([[-59.0], [17.0], [90.0]]),
        "X": smooth(TOTAL),
        "Z": poisson(TOTAL, 4),
    } | changes
    scipy.io.savemat(path, {name: value for name, value in arrays.items() if value is not None})
    return path


# ---- closed loop


def redundancy(path: Path, *, blocks: tuple[int, ...] = (14, 10), **changes: Callable[[dict[str, Any]], None]) -> Path:
    """Two blocks; the first has two stretches, of 6 and 8 bins. ``change`` works on the first block."""
    made = []
    for k, rows in enumerate(blocks):
        velocity = np.random.default_rng(k).normal(size=(rows, 2)) * 50
        announced = np.concatenate((velocity[1:], [[1.0, 2.0]]))
        if k == 0:
            announced[5] += 30  # bins between rows 5 and 6 are missing
        made.append(
            {
                "block_index": np.array([[k + 1.0]]),
                "spikes": poisson(rows, 6, seed=k),
                "vel": velocity,
                "velNext": announced,
                "thetas": np.linspace(0, 350, rows)[:, None],
                "isFreezePeriod": (np.arange(rows) < 2)[:, None],
                "latents": np.zeros((rows, 3)),
                "fDecoder": {"M0": np.zeros((2, 1))},
            }
        )
    for change in changes.values():
        change(made[0])
    scipy.io.savemat(path, {"D": {"datestr": "20131218", "blocks": structs(made)}})
    return path


def stabilized(
    path: Path,
    *,
    lengths: tuple[int, ...] = (0, 9, 12, 10),
    change: Callable[[list[dict[str, Any]]], None] | None = None,
    pert: Mapping[str, Any] | None = None,
    pert_trials: tuple[float, ...] = (3.0,),
    leave_out: str = "",
) -> Path:
    """Trials of an observation without counts, and of closed loop; the cursor is set free in bin 7."""
    trials: list[dict[str, Any]] = []
    for k, rows in enumerate(lengths):
        velocity = np.random.default_rng(k).normal(size=(rows, 2)) * 100
        free = np.where(np.arange(rows)[:, None] >= 6, velocity * [1, -1], 0) * 0.045
        position = np.concatenate(([[np.nan, np.nan]], np.cumsum(free, axis=0)))
        trials.append(
            {
                "id": np.array([[k + 1.0]]),
                "success": np.array([[k % 2]], np.int8),
                "binCounts": poisson(rows, 5, seed=k) if rows else np.empty((0, 0)),
                "refPos": position if rows else np.full((26, 2), np.nan),
                "tgtPos": np.array([[88.4], [-88.4]]) if k % 2 else np.array([[0.0], [125.0]]),
                "decodedVl": velocity if rows else np.empty((0, 0)),
                "moveBin": np.array([[7.0 if rows else 2.0]]),
                "decoderInd": np.array([[10.0 if rows else np.nan]]),
                "type": "baselineEvaluation" if rows else "observation",
                "trainKinematics": np.empty((0, 0)),
            }
        )
    if change is not None:
        change(trials)
    params = {
        "baseElectrodes": np.array([[1.0, 2.0, 4.0]]),
        "swapElectrodesMap": np.array([[1.0, 1.0], [2.0, 5.0], [4.0, 4.0]]),
        "offsets": np.array([[0.5], [0.25], [0.0]]),
        "silentChs": np.array([[False], [False], [True]]),
    } | dict(pert or {})
    content = {"trialData": structs(trials), "pertParams": params, "pertTrials": np.array([pert_trials])}
    scipy.io.savemat(path, {name: value for name, value in content.items() if name != leave_out})
    return path


# ---- spike times


def joystick(path: Path, *, table: list[list[Any]] | None = None, **changes: Any) -> Path:
    """Two units of 3 s, and a joystick at 10 Hz."""
    lines = table if table is not None else [unit_line(11, 1, SPIKES[0]), unit_line(13, 1, SPIKES[1])]
    head = ["Channel Number", "Cluster", "Spike Times", "Spike Number", "Mean Spike Waveform", "Spike Amplitude"]
    rows = [head, *lines]
    arrays = {
        "X_Voltage": 8000 + 3000 * smooth(30, 1),
        "Y_Voltage": 7000 + 3000 * smooth(30, 1),
        "t_joy": np.arange(30)[None, :] * 0.1,
        "joystick_adfreq": np.array([[1000.0]]),
        "Spike_data": cell([value for row in rows for value in row], shape=(len(rows), 6)),
    } | changes
    scipy.io.savemat(path, {name: value for name, value in arrays.items() if value is not None})
    return path


def unit_line(channel: Any, unit: Any, times: Array, *, number: int | None = None) -> list[Any]:
    """A row of the table of spikes."""
    named = float(len(times) if number is None else number)
    return [float(channel), float(unit), np.asarray(times)[None, :], named, np.zeros((15, 1)), 0.2]


SPIKES = (
    np.array([0.000385, 0.099999, 0.1, 0.25, 0.2501, 2.999]),
    np.sort(np.random.default_rng(3).uniform(0, 3, 40)).round(6),
)


# ---- MATLAB 7.3


def dad(path: Path, *, leave_out: str = "", top: Mapping[str, Any] | None = None, **changes: Any) -> Path:
    """Three sessions of 9, 12 and 7 bins in rates of 200 ms, with a variable of another width beside them."""
    first, second, third = LENGTHS
    counts = [poisson(n, c, seed=n) for n, c in ((first, 4), (second, 5), (third, 6))]
    marks = [np.isin(np.arange(n), (0, 4))[:, None].astype(float) for n in LENGTHS]
    targets = [np.where(np.arange(n) < 4, 2.0, 5.0)[:, None] for n in LENGTHS]
    data = {
        "Y1": counts[0] * 5,
        "Y2": counts[1] * 5 * (1 + 1e-14),
        "Y3": counts[2] * 5,
        "Ytest": counts[2] * 5,
        "Xtrain": smooth(first + second),
        "Xtest": 8 * smooth(third),
        "Ttrain": np.concatenate(targets[:2]),
        "Ttest": targets[2],
        "Ntrain": np.concatenate(marks[:2]),
        "Ntest": marks[2],
    } | changes
    content = {
        "C": {"delT": 0.2, "winSz": 1.1},
        "Data": {name: value for name, value in data.items() if name != leave_out},
        "Ts": 0.16,
        "Ytest": poisson(third, 6) * 6.25,
    } | dict(top or {})
    return mat73(path, content)


def mat73(path: Path, content: Mapping[str, Any]) -> Path:
    """A MATLAB 7.3 file, as MATLAB writes it: HDF5 with a header before it, axes reversed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        references = file.create_group("#refs#")
        for name, value in content.items():
            _put(file, name, value, references)
    head = b"MATLAB 7.3 MAT-file, Platform: GLNXA64 HDF5 schema 1.00 .".ljust(116) + bytes(8) + b"\x00\x02IM"
    with path.open("r+b") as raw:
        raw.write(head)
    return path


def _put(group: Any, name: str, value: Any, references: Any) -> Any:
    if isinstance(value, Mapping):
        made = group.create_group(name)
        made.attrs["MATLAB_class"] = np.bytes_("struct")
        for field, inner in value.items():
            _put(made, field, inner, references)
        return made
    array = np.atleast_2d(np.asarray(value)) if not isinstance(value, str) else value
    if isinstance(value, str):
        made = group.create_dataset(name, data=np.array([[ord(c)] for c in value], np.uint16))
        return _of_class(made, "char")
    if array.dtype.names:  # a struct array: each field a reference an element
        made = group.create_group(name)
        made.attrs["MATLAB_class"] = np.bytes_("struct")
        for field in array.dtype.names:
            _references(made, field, array[field], references)
        return made
    if array.dtype == object:
        return _of_class(_references(group, name, array, references), "cell")
    if array.size == 0:
        made = group.create_dataset(name, data=np.array(array.shape, np.uint64))
        made.attrs["MATLAB_empty"] = np.uint8(1)
        return _of_class(made, "double")
    if array.dtype == bool:
        return _of_class(group.create_dataset(name, data=array.astype(np.uint8).T), "logical")
    chunked = {"chunks": True, "compression": "gzip"} if array.size > 50 else {}
    made = group.create_dataset(name, data=array.T, **chunked)
    return _of_class(made, {"float64": "double", "float32": "single"}.get(str(array.dtype), str(array.dtype)))


def _references(group: Any, name: str, array: Array, references: Any) -> Any:
    made = group.create_dataset(name, array.T.shape, dtype=h5py.ref_dtype)
    for index in np.ndindex(array.shape):
        inner = _put(references, f"r{len(references)}", array[index], references)
        made[index[::-1]] = inner.ref
    return made


def _of_class(made: Any, cls: str) -> Any:
    made.attrs["MATLAB_class"] = np.bytes_(cls)
    return made
