"""Small recording files that the tests of the importers make."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

Array = NDArray[Any]
BINS, CHANNELS = 400, 5
LAYOUT: dict[str, Any] = {
    "subject": "M",
    "task": "reaching",
    "licence": "CC0-1.0",
    "signals": {"variable": "counts"},
    "time": {"bin_ms": 20},
    "behavior": [
        {"variable": "velocity", "dims": [{"name": "hand_vx", "unit": "cm/s"}, {"name": "hand_vy", "unit": "cm/s"}]}
    ],
}
"""Mapping of a file with ``counts`` and ``velocity``."""


def layout(**changes: Any) -> dict[str, Any]:
    """LAYOUT with keys of its tables changed: ``signals={"slot": "unit"}`` adds to that table, other values replace."""
    made = dict(LAYOUT)
    for key, value in changes.items():
        made[key] = {**made.get(key, {}), **value} if isinstance(value, dict) else value
    return made


def counts_NC(*, bins: int = BINS, channels: int = CHANNELS, seed: int = 0) -> Array:
    """Poisson counts, uint8."""
    return np.random.default_rng(seed).poisson(1.5, (bins, channels)).astype(np.uint8)


def velocity_NK(*, bins: int = BINS) -> Array:
    """Two smooth dimensions, float64."""
    time = np.arange(bins)
    return np.stack([np.sin(time / 9), np.cos(time / 13) + 0.3 * np.sin(time / 5)], axis=1)


def npz(path: Path, **arrays: Any) -> Path:
    """An .npz with counts and velocity, and others instead or besides."""
    np.savez(path, **{"counts": counts_NC(), "velocity": velocity_NK(), **arrays})
    return path


def mat(path: Path, **arrays: Any) -> Path:
    """The same as a MATLAB 5 file."""
    scipy.io.savemat(path, {"counts": counts_NC(), "velocity": velocity_NK(), **arrays}, do_compression=True)
    return path


def csv(path: Path, *, rows: int = BINS) -> Path:
    """The same as text: t, ch1 … ch5, vx, vy."""
    head = ",".join(["t", *(f"ch{c + 1}" for c in range(CHANNELS)), "vx", "vy"])
    table = np.concatenate((np.arange(BINS)[:, None] * 0.02, counts_NC(), velocity_NK()), axis=1)
    lines = [",".join(f"{value:.9g}" for value in row) for row in table[:rows]]
    path.write_text("\n".join([head, *lines]) + "\n")
    return path


CSV_LAYOUT: dict[str, Any] = layout(
    signals={"variable": "", "columns": ["ch*"]},
    time={"stamps": "t"},
    behavior=[{"columns": ["vx", "vy"], "dims": LAYOUT["behavior"][0]["dims"]}],
)


def binned(path: Path, *, leave_out: tuple[str, ...] = (), **fields: Any) -> Path:
    """A MATLAB 5 file with a ``binnedData`` struct of 50 ms bins, some fields changed, added or left out."""
    bins = len(fields.get("spikeratedata", np.empty((BINS, 0))))
    time = np.arange(bins)
    position = np.stack([5 * np.sin(time / 20), 4 * np.cos(time / 17)], axis=1).astype(np.float32)
    velocity = (np.diff(position, axis=0, prepend=position[:1]) / 0.05).astype(np.float32)
    rng = np.random.default_rng(1)
    struct: dict[str, Any] = {
        "timeframe": (time * 0.05).astype(np.float32)[:, None],
        "meta": {
            "filename": r"C:\data\Spike_07-18-12_WF_001.nev",
            "datetime": "7/18/2012 14:0:46.750",
            "duration": bins * 0.05 + 0.3,
        },
        "spikeratedata": (counts_NC(bins=bins).astype(np.float32) * np.float32(20)),
        "spikeguide": np.array(["ee01u0", "ee02u0", "ee03u0", "ee04u1", "ee05u2"]),
        "cursorposbin": position,
        "cursorposlabels": np.array(["x_pos       ", "y_pos       "]),
        "velocbin": np.concatenate((velocity, np.hypot(*velocity.T)[:, None]), axis=1),
        "veloclabels": np.array(["x_vel       ", "y_vel       ", "vel_magn    "]),
        "emgdatabin": np.abs(np.cumsum(rng.normal(size=(bins, 3)), axis=0)).astype(np.float32),
        "emgguide": np.array(["FDS         ", "ECRb        ", "FCU         "]),
        "forcedatabin": (100 * position + 3).astype(np.float32),
        "forcelabels": np.array(["Force_X     ", "Force_Y     "]),
        "words": np.array([[0.5, 0x17], [1.0, 0x31], [4.5, 0x17]]),
        "trialtable": TRIALS,
        "stim": np.empty((0, 0)),
    }
    struct = {name: value for name, value in {**struct, **fields}.items() if name not in leave_out}
    scipy.io.savemat(path, {"binnedData": struct}, do_compression=True)
    return path


TRIALS = np.array(
    [
        [0.5, -1.5, 9.5, 1.5, 6.5, 0.9, 1.0, 3.9, 82, 3],
        [4.5, 6.5, 1.5, 9.5, -1.5, 5.0, -1.0, 9.0, 70, 1],
        [9.5, 6.5, 1.5, 9.5, -1.5, -1.0, -1.0, 12.0, -1, -1],
    ]
)
"""Wrist-flexion trials: a reward, a failure without a go cue, one without an end word."""


def npz_claiming(path: Path, shape: tuple[int, ...], *, size: int | None = None) -> Path:
    """An .npz whose header claims float64 of a shape, followed by 80 bytes; ``size`` is claimed by the directory."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("counts.npy", header.getvalue() + bytes(80))
    if size is not None:
        content = bytearray(path.read_bytes())
        at = content.rindex(b"PK\x01\x02")  # the central directory says it again
        content[at + 24 : at + 28] = size.to_bytes(4, "little")
        path.write_bytes(content)
    return path


def mat_claiming(path: Path, shape: tuple[int, int]) -> Path:
    """A MATLAB 5 file of 10 × 8 doubles whose array claims another shape."""
    scipy.io.savemat(path, {"counts": np.zeros((10, 8))})
    content = path.read_bytes()
    real = np.array([10, 8], "<i4").tobytes()
    assert content.count(real) == 1
    path.write_bytes(content.replace(real, np.array(shape, "<i4").tobytes()))
    return path
