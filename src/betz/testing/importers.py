"""What every importer has to keep on damaged input: its own errors only, whole sessions or none, bounded memory."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from betz.core.seeds import SeedTree
from betz.data.importers import import_files
from betz.data.store import Store

MOST_MB, MOST_TIMES = 200.0, 2.0
"""An import may take this much memory above what was there before, and so many times the file's unpacked size."""


@dataclass(frozen=True)
class Outcome:
    """What became of one damaged copy.

    Args:
        kept: sessions that were imported all the same.
        reason: why it was not, short; empty if it was.
        peak_mb: memory above that before the import.
        seconds: it took.
    """

    kept: int
    reason: str
    peak_mb: float
    seconds: float


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """A copy that was cut short, or in which 1 to 16 bits were flipped, half of the time near its start.

    Args:
        content: of the file.
        rng: decides how.
    """
    if rng.random() < 0.4:
        return content[: int(rng.integers(0, len(content)))]
    out = bytearray(content)
    until = min(len(out), 4096) if rng.random() < 0.5 else len(out)
    for at in rng.integers(0, until, int(rng.integers(1, 17))).tolist():
        out[at] ^= 1 << int(rng.integers(0, 8))
    return bytes(out)


def check_damaged(
    original: Path,
    seed: int,
    *,
    unpacked_bytes: int | None = None,
    options: dict[str, Any] | None = None,
    mapping: dict[str, Any] | None = None,
) -> Outcome:
    """Import a damaged copy of a recording into a store of its own and hold the importer to its promises.

    Args:
        original: a file, or a folder of which one file is damaged.
        seed: of the damage.
        unpacked_bytes: size after decompression; None = it is not compressed.
        options, mapping: of the import.

    Raises:
        AssertionError: a session is there that was not reported, or is not whole; or too much memory was taken.
        Exception: whatever else the importer let through, which it must not.
    """
    rng = SeedTree(seed).generator(f"damage {original.name}")
    with tempfile.TemporaryDirectory() as temporary:
        path = _damaged_copy(original, Path(temporary), rng)
        size = sum(p.stat().st_size for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file())
        store = Store(Path(temporary) / "store", create=True)
        begun, before_mb = time.perf_counter(), reset_peak_mb()
        report = import_files([path], store, options=options, mapping=mapping)
        peak_mb = peak() - before_mb
        seconds = time.perf_counter() - begun
        assert store.ids == tuple(sorted(report.kept)), f"the store holds {store.ids}, reported are {report.kept}"
        for id_ in store.ids:
            store.verify(id_)
        left = [p.name for p in (store.path / "arrays").glob("*") if p.name.startswith(".tmp")]
        whole = len(list((store.path / "arrays").glob("[!.]*")))
        assert not left, f"{left} were left in the store"
        assert whole == len(store.ids), f"{whole} folders of arrays for {len(store.ids)} sessions"
        allowed = MOST_MB + MOST_TIMES * max(size, unpacked_bytes or 0) / 1e6
        assert peak_mb <= allowed, (
            f"{peak_mb:.0f} MB were taken for {size / 1e6:.2f} MB (seed {seed}, {report.skipped})"
        )
    return Outcome(len(report.kept), next(iter(report.skipped), ""), peak_mb, seconds)


def _damaged_copy(original: Path, folder: Path, rng: np.random.Generator) -> Path:
    path = folder / original.name
    if original.is_dir():
        shutil.copytree(original, path)
        files = sorted(p for p in path.rglob("*") if p.is_file())
        victim = files[int(rng.integers(0, len(files)))]
    else:
        victim = path
        shutil.copyfile(original, path)
        for other in original.parent.glob(f"{original.stem}.ns*"):
            if other != original:
                shutil.copyfile(other, folder / other.name)
    content = victim.read_bytes()
    victim.write_bytes(damaged(content, rng) if content else content)
    return path


# ---- memory


def reset_peak_mb() -> float:
    """Forget the largest memory of this process so far; returns what it takes now, 0 if the system does not tell."""
    try:
        with open("/proc/self/clear_refs", "wb") as file:
            file.write(b"5")
    except OSError:
        return 0.0
    return _status_mb("VmRSS")


def peak() -> float:
    """Largest memory in MB since :func:`reset_peak_mb`; 0 where the system does not tell."""
    return _status_mb("VmHWM") if os.path.exists("/proc/self/status") else 0.0


def _status_mb(name: str) -> float:
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
    return 0.0


# ---- small files of every format


def small_files(folder: Path, *, seed: int = 0) -> dict[str, tuple[Path, dict[str, Any]]]:
    """A small recording in every format that Betz reads, and the settings to import it with.

    Args:
        folder: where to write them.
        seed: of their content.

    Returns:
        Name of the format → file or folder, and keywords of :func:`check_damaged`.
    """
    makers: dict[str, Callable[[Path, np.random.Generator], tuple[Path, dict[str, Any]]]] = {
        "npz": _npz,
        "csv": _csv,
        "mat5": _mat5,
        "mat73": _mat73,
        "trial_data": _trial_data,
        "xds": _xds,
        "blackrock": _blackrock,
        "blackrock_nsx": _nsx,
        "plexon": _plexon,
        "neuroexplorer": _nex,
        "open_ephys": _open_ephys,
    }
    tree = SeedTree(seed)
    return {name: make(folder, tree.generator(name)) for name, make in makers.items()}


_MAPPING = {
    "signals": {"variable": "counts"},
    "time": {"bin_ms": 20},
    "behavior": [{"variable": "v", "dims": [{"name": "hand_vx"}, {"name": "hand_vy"}]}],
}


def _arrays(rng: np.random.Generator) -> tuple[Any, Any]:
    return rng.poisson(0.5, (2000, 24)).astype(np.uint8), np.cumsum(rng.normal(size=(2000, 2)), axis=0)


def _npz(folder: Path, rng: np.random.Generator) -> tuple[Path, dict[str, Any]]:
    counts, v = _arrays(rng)
    np.savez_compressed(folder / "small.npz", counts=counts, v=v)
    return folder / "small.npz", {"mapping": _MAPPING, "unpacked_bytes": counts.nbytes + v.nbytes}


def _csv(folder: Path, rng: np.random.Generator) -> tuple[Path, dict[str, Any]]:
    counts, v = _arrays(rng)
    names = [*(f"ch{c}" for c in range(24)), "vx", "vy"]
    text = io.StringIO()
    np.savetxt(text, np.column_stack([counts, v]), fmt="%.5g", delimiter=",", header=",".join(names), comments="")
    (folder / "small.csv").write_text(text.getvalue())
    behavior = [{"columns": ["vx", "vy"], "dims": [{"name": "hand_vx"}, {"name": "hand_vy"}]}]
    mapping = {"signals": {"columns": ["ch*"]}, "time": {"bin_ms": 20}, "behavior": behavior}
    return folder / "small.csv", {"mapping": mapping}


def _mat5(folder: Path, rng: np.random.Generator) -> tuple[Path, dict[str, Any]]:
    import scipy.io

    counts, v = _arrays(rng)
    scipy.io.savemat(folder / "small5.mat", {"counts": counts, "v": v}, do_compression=True)
    return folder / "small5.mat", {"mapping": _MAPPING, "unpacked_bytes": counts.nbytes + v.nbytes}


def _mat73(folder: Path, rng: np.random.Generator) -> tuple[Path, dict[str, Any]]:
    import h5py

    counts, v = _arrays(rng)
    path = folder / "small73.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values, kind in (("counts", counts, b"uint8"), ("v", v, b"double")):
            dataset = file.create_dataset(name, data=values.T, compression="gzip")
            dataset.attrs["MATLAB_class"] = np.bytes_(kind)
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, made for a test".ljust(124) + b"\0\x02IM")
    return path, {"mapping": _MAPPING, "unpacked_bytes": counts.nbytes + v.nbytes}


def _trial_data(folder: Path, rng: np.random.Generator) -> tuple[Path, dict[str, Any]]:
    import scipy.io

    counts, v = _arrays(rng)
    rows = np.empty((1, 10), dtype=[(name, object) for name in ("bin_size", "idx_go_cue", "M1_spikes", "vel")])
    for k in range(10):
        part = slice(200 * k, 200 * k + 200)
        rows[0, k] = (0.02, 20.0 + k, counts[part], v[part])
    scipy.io.savemat(folder / "small_td.mat", {"trial_data": rows})
    return folder / "small_td.mat", {}


def _xds(folder: Path, rng: np.random.Generator) -> tuple[Path, dict[str, Any]]:
    import scipy.io

    counts, v = _arrays(rng)
    cell = np.empty((1, 8), dtype=object)
    for c, ticks in enumerate(_ticks(rng, 40, 30_000, 8).values()):
        cell[0, c] = np.array(ticks)[:, None] / 30_000
    frame = 0.02 * np.arange(len(counts))[:, None]
    struct = {"bin_width": 0.02, "time_frame": frame, "spikes": cell, "curs_v": v}
    scipy.io.savemat(folder / "small_xds.mat", {"xds": struct})
    return folder / "small_xds.mat", {}


def _ticks(rng: np.random.Generator, seconds: float, hz: int, channels: int) -> dict[tuple[int, int], list[int]]:
    return {(c, 0): np.sort(rng.integers(0, int(seconds * hz), 60)).tolist() for c in range(1, channels + 1)}


def _blackrock(folder: Path, rng: np.random.Generator) -> tuple[Path, dict[str, Any]]:
    from betz.testing.vendor_files import write_nev

    lines = [(int(t), 1) for t in range(3000, 300_000, 9000)]
    return write_nev(folder / "small.nev", _ticks(rng, 10, 30_000, 16), digital=lines, comments=[(9, "go")]), {}


def _nsx(folder: Path, rng: np.random.Generator) -> tuple[Path, dict[str, Any]]:
    from betz.testing.vendor_files import write_nsx

    values = np.cumsum(rng.integers(-9, 10, (10_000, 4)), axis=0).astype(np.int16)
    path = write_nsx(
        folder / "alone.ns2", [(0, values)], names=["elec1", "elec2", "ainp1", "ainp2"], ids=[1, 2, 129, 130]
    )
    return path, {"options": {"broadband": "crossings", "band_hz": (100.0, 400.0)}}


def _plexon(folder: Path, rng: np.random.Generator) -> tuple[Path, dict[str, Any]]:
    from betz.testing.vendor_files import write_plx

    pieces = [(t, rng.integers(-99, 99, 500)) for t in range(0, 400_000, 20_000)]
    spikes = _ticks(rng, 10, 40_000, 8)
    return write_plx(folder / "small.plx", spikes, events=[(50, 7)], analog=[("AI01", 1000, pieces)]), {}


def _nex(folder: Path, rng: np.random.Generator) -> tuple[Path, dict[str, Any]]:
    from betz.testing.vendor_files import write_nex

    spikes = {f"n{c}": ticks for (c, _), ticks in _ticks(rng, 10, 40_000, 8).items()}
    analog = {"force": (1000.0, [(0, rng.integers(-99, 99, 4000)), (200_000, rng.integers(-99, 99, 4000))])}
    return write_nex(folder / "small.nex", spikes, events={"go": [9, 99]}, analog=analog, end_tick=400_000), {}


def _open_ephys(folder: Path, rng: np.random.Generator) -> tuple[Path, dict[str, Any]]:
    from betz.testing.vendor_files import write_open_ephys

    values = rng.normal(0, 100, (20_000, 4))
    streams: dict[str, Any] = {
        "probe": (10_000.0, [f"CH{c}" for c in range(1, 5)], values),
        "aux": (1000.0, ["ADC1"], values[:2000, :1]),
    }
    return write_open_ephys(folder / "small_oe", streams, sync=[1500, 2500]), {"options": {"broadband": "power"}}
