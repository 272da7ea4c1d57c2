"""NWB import: our own time beyond the file library's, and a two-hour recording into a store.

    python benchmarks/nwb_import.py [--quick] [--hours H] [--out DIR]

``library_s``: opening a file of 460,800 spikes in 192 units with pynwb and reading its spike times with h5py.
``total_s``: ``betz.read`` of it; ``own_s``: the difference. Best of 5 interleaved repeats, libraries imported before.
``own_cpu_s``: the same in processor time of the process and its children, which other jobs disturb less.
``long_import_s``, ``long_cpu_s``, ``long_peak_mb``: a file of two hours, 192 channels at 20 spikes a second and 4
behavior dimensions at 1 kHz, into a store, in a process of its own that also imports the libraries; its largest
resident memory.
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import betz
from _common import finish
from betz.core.errors import require
from betz.core.seeds import SeedTree
from betz.testing.falcon_files import units_table

CHANNELS, RATE_HZ, SHORT_S, REPEATS = 192, 20, 120, 5
_LONG = """
import json, resource, sys, time
begun = time.perf_counter()
from betz.data.importers import import_files
from betz.data.store import Store
report = import_files([sys.argv[1]], Store(sys.argv[2], create=True), options={"nan": "mask"})
assert report.kept == ("long",), report.skipped
session = Store(sys.argv[2]).get("long")
spikes = sum(len(ticks) for ticks in session.spikes)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([time.perf_counter() - begun, time.process_time(), peak, spikes]))
"""


def write(path: Path, seconds: float, *, behavior: bool) -> int:
    """Write a recording; returns its number of spikes."""
    pynwb = require("pynwb", extra="nwb")
    rng = SeedTree(0).generator("nwb import")
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    nwb = pynwb.NWBFile(session_description="synthetic", identifier=path.stem, session_start_time=start)
    device = nwb.create_device(name="arrays")
    groups = [nwb.create_electrode_group(name=n, description="array", location="M1", device=device) for n in "AB"]
    for channel in range(CHANNELS):
        nwb.add_electrode(group=groups[channel * 2 // CHANNELS], location="M1")
    number = int(seconds * RATE_HZ)
    times = np.sort(rng.integers(0, int(seconds * 30_000), (CHANNELS, number)), axis=1) / 30_000
    own = [groups[channel * 2 // CHANNELS] for channel in range(CHANNELS)]
    nwb.units = units_table(times.ravel(), np.full(CHANNELS, number), own)
    if behavior:
        t = np.arange(int(seconds * 1000)) / 1000
        values = np.stack([np.sin(t * (k + 1)) for k in range(4)], axis=1).astype(np.float32)
        nwb.add_acquisition(pynwb.TimeSeries(name="hand", data=values, unit="cm", rate=1000.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pynwb.NWBHDF5IO(str(path), "w") as io:
            io.write(nwb)
    return CHANNELS * number


def processor_s() -> float:
    """Processor time of this process and its children so far."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def library(path: Path) -> NDArray[np.float64]:
    """Seconds, of wall and processor, in which pynwb opens a file and h5py reads its spike times."""
    import h5py
    import pynwb

    begun = np.array([time.perf_counter(), processor_s()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with h5py.File(path, "r", locking=False) as file, pynwb.NWBHDF5IO(file=file, mode="r") as io:
            io.read()
            _ = file["units/spike_times"][()], file["units/spike_times_index"][()]
    return np.array([time.perf_counter(), processor_s()]) - begun


def ours(path: Path) -> NDArray[np.float64]:
    """Seconds, of wall and processor, of ``betz.read``, binning included."""
    begun = np.array([time.perf_counter(), processor_s()])
    session = betz.read(path)
    assert len(session.channels) == CHANNELS
    return np.array([time.perf_counter(), processor_s()]) - begun


def short(folder: Path, repeats: int) -> dict[str, Any]:
    """The short file, both ways interleaved."""
    path = folder / "short.nwb"
    spikes = write(path, SHORT_S, behavior=False)
    library(path), ours(path)
    both_R2P = np.array([(library(path), ours(path)) for _ in range(repeats)])  # repeats, sides, wall and processor
    (of_library, _), (total, _) = both_R2P.min(axis=0)
    own, own_cpu = (both_R2P[:, 1] - both_R2P[:, 0]).min(axis=0)
    return {"spikes": spikes, "library_s": of_library, "total_s": total, "own_s": own, "own_cpu_s": own_cpu}


def long(folder: Path, hours: float) -> dict[str, Any]:
    """The long file into a store."""
    path = folder / "long.nwb"
    spikes = write(path, hours * 3600, behavior=True)
    command = [sys.executable, "-c", _LONG, str(path), str(folder / "store")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: the import failed: {done.stderr.strip().splitlines()[-1]}.")
    seconds, cpu, peak, found = json.loads(done.stdout)
    assert found == spikes
    size = path.stat().st_size / 1e6
    return {"long_hours": hours, "long_spikes": spikes, "long_file_mb": size, "long_import_s": seconds,
            "long_cpu_s": cpu, "long_peak_mb": peak}  # fmt: skip


def main() -> None:
    """Measure both and print them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two repeats, and a quarter of an hour")
    parser.add_argument("--hours", type=float, default=2.0, help="length of the long recording")
    parser.add_argument("--out", type=Path, help="folder for the files (default: a temporary one)")
    arguments = parser.parse_args()
    started = time.time()
    hours = 0.25 if arguments.quick else arguments.hours
    with tempfile.TemporaryDirectory(dir=arguments.out) as folder:
        result = short(Path(folder), 2 if arguments.quick else REPEATS) | long(Path(folder), hours)
    table = Table("what", "value")
    for name, value in result.items():
        table.add_row(name, f"{value:,.4g}")
    Console().print(table)
    rounded = {name: round(value, 4) for name, value in result.items()}
    finish(rounded, started, quick=arguments.quick, left_out="repeats, most of two hours" if arguments.quick else "")


if __name__ == "__main__":
    main()
