"""The importers: what becomes of every file at hand, and of damaged copies in every format.

    python benchmarks/importers.py [--data DIR] [--quick] [--cases N] [--out DIR]

``formats``: every file under DIR (``$BETZ_DATA``) of a format that Betz reads, imported or refused, by format. Then
``fuzz_cases``: N (500) damaged copies (cut short, or 1 to 16 bits flipped) of a small made file in every format, and of
the vendors' files under DIR. ``crashes``: anything but Betz's own errors, a time above 120 s included;
``partial_writes``: a session in the store that was not reported or is not whole; ``too_much_memory``: peaks above
200 MB + 2 × the unpacked size. ``broadband``: peak MB and times real time of crossings from made broadband of 96
channels at 30 kHz, by its seconds: memory must not grow with them. Finished cases are kept in ``--out`` and not run
again; a case that took the process down is a crash on resuming.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import struct
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from _common import finish, need
from betz.core.errors import BetzError
from betz.core.seeds import SeedTree
from betz.data.importers import FileError, import_files, read
from betz.data.importers.neo_blackrock import nev_header
from betz.data.importers.neo_formats import FORMATS, Format, vendor_of
from betz.data.store import Store
from betz.testing.importers import check_damaged, peak, reset_peak_mb, small_files
from betz.testing.vendor_files import write_nsx

CASES, QUICK_CASES, LIMIT_S = 500, 25, 120
CHANNELS, RATE_HZ, BROADBAND_S = 96, 30_000, (20, 40, 80)
POWER = {"broadband": "power", "band_hz": (50.0, 400.0), "gap_tolerance_ms": 1000.0, "analog": ("*",)}
OPTIONS = {"subject": "unknown", "nan": "mask", "rates_to_counts": False}


def main() -> None:
    """Import every file, then fuzz, resuming from what is there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("BETZ_DATA"), help="folder of recordings")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_CASES} damaged copies a format, made files only")
    parser.add_argument("--cases", type=int, help=f"damaged copies a format (default: {CASES})")
    parser.add_argument("--out", type=Path, help="folder for finished cases (default: a temporary one)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    started = time.time()
    data = need(Path(arguments.data), "the recordings") if arguments.data else None
    with tempfile.TemporaryDirectory() as temporary:
        out = arguments.out or Path(temporary) / "out"
        out.mkdir(parents=True, exist_ok=True)
        formats = found_formats(data, Path(temporary)) if data is not None else {}
        cases = arguments.cases or (QUICK_CASES if arguments.quick else CASES)
        fuzzed = fuzz(Path(temporary), out / "importers.jsonl", None if arguments.quick else data, cases)
        lengths = BROADBAND_S[:2] if arguments.quick else BROADBAND_S
        streamed = {str(seconds): alone(broadband, Path(temporary), seconds) for seconds in lengths}
    _print(formats, fuzzed)
    total = sum(fuzzed.values(), Counter())
    result = {
        "formats": formats,
        "fuzz_cases": total["cases"],
        "crashes": total["crash"],
        "partial_writes": total["partial write"],
        "too_much_memory": total["memory"],
        "broadband": streamed,
        "fuzzed": {name: dict(counts) for name, counts in fuzzed.items()},
    }
    left_out = f"{CASES - cases} of {CASES} damaged copies a format; damaged copies of real files"
    finish(result, started, quick=arguments.quick, left_out=left_out if arguments.quick else "")


# ---- every file


def found_formats(data: Path, temporary: Path) -> dict[str, dict[str, int]]:
    """Format → files, imported and refused (by Betz's own error) of the files under a folder."""
    suffixes = {suffix for known in FORMATS if not known.folder for suffix in known.suffixes}
    formats: dict[str, dict[str, int]] = {}
    for path in sorted(p for p in data.rglob("*") if p.is_file() and p.suffix.lower() in suffixes):
        known = vendor_of(path)
        counts = formats.setdefault(_format(path, known), {})
        with tempfile.TemporaryDirectory(dir=temporary) as folder:
            report = import_files([path], Store(Path(folder) / "store", create=True), options=OPTIONS)
        for key in ("files", "imported" if report.kept else "refused"):
            counts[key] = counts.get(key, 0) + 1
        for file in report.files:
            if file.error is not None:
                print(f"{path.name}: {file.reason}: {_short(file.error)}")
    return {name: {"files": 0, "imported": 0, "refused": 0} | counts for name, counts in formats.items()}


def _format(path: Path, known: Format | None) -> str:
    """Name of a file's format; makers who share one are told apart by the program that wrote it."""
    if known is None:
        return path.suffix.lower()[1:]
    with suppress(BetzError):
        if path.suffix.lower() == ".nev" and "trellis" in nev_header(path).program.lower():
            return "Ripple"
    return known.name


def _short(error: BetzError) -> str:
    return error.what if isinstance(error, FileError) else str(error)[:200]


# ---- damaged copies


def fuzz(folder: Path, done_file: Path, data: Path | None, cases: int) -> dict[str, Counter[str]]:
    """Format → cases, kept, refused, crashes, partial writes and excesses of memory."""
    done = _finished(done_file)
    made = folder / "made"
    made.mkdir()
    found: dict[str, Counter[str]] = {}
    for name, path, settings in _originals(made, data):
        counts = found[name] = Counter()
        for seed in range(cases):
            key = f"{name} {seed}"
            outcome = done.get(key)
            if outcome is None:
                _append(done_file, {"case": key, "outcome": "crash"})
                outcome = one(path, seed, settings)
                _append(done_file, {"case": key, "outcome": outcome})
            counts["cases"] += 1
            counts[outcome] += 1
        print(name, dict(counts), flush=True)
    return found


def one(path: Path, seed: int, settings: dict[str, Any]) -> str:
    """What became of a damaged copy: ``kept``, ``refused``, or what it must not be."""
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(LIMIT_S)
    try:
        return "kept" if check_damaged(path, seed, **settings).kept else "refused"
    except AssertionError as error:
        print(f"{path.name}, seed {seed}: {error}")
        return "memory" if "MB were taken" in str(error) else "partial write"
    except Exception as error:
        print(f"{path.name}, seed {seed}: {type(error).__name__}: {str(error)[:200]}")
        return "crash"
    finally:
        signal.alarm(0)


def _too_long(*_: object) -> None:
    raise TimeoutError(f"more than {LIMIT_S} s")


def _originals(made: Path, data: Path | None) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    for name, (path, settings) in small_files(made).items():
        yield name, path, settings
    for path in sorted((data / "raw_formats").rglob("*.*")) if data is not None else []:
        if path.is_file() and vendor_of(path) is not None and path.stat().st_size < 10_000_000:
            streamed = path.suffix.lower().startswith(".ns")
            yield f"real {path.name}", path, {"options": POWER} if streamed else {}


def _finished(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return {row["case"]: row["outcome"] for row in rows}


def _append(path: Path, row: dict[str, str]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def alone(work: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """What a function returns in a process of its own: memory that others left free would hide what it takes."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def broadband(folder: Path, seconds: int) -> dict[str, float]:
    """Peak memory above that before, and seconds recorded a second of work, of threshold crossings."""
    rng = SeedTree(0).generator("broadband")
    second = rng.normal(0, 60, (RATE_HZ, CHANNELS)).astype("<i2")
    path = folder / f"broadband_{seconds}.ns5"
    names = [f"elec{c + 1}" for c in range(CHANNELS)]
    write_nsx(path, [(0, second)], names=names, ids=range(1, CHANNELS + 1), period=1)
    with path.open("r+b") as file:
        file.seek(314 + 66 * CHANNELS + 5)
        file.write(struct.pack("<I", RATE_HZ * seconds))
        file.seek(0, os.SEEK_END)
        for _ in range(seconds - 1):
            file.write(second.tobytes())
    begun, before_mb = time.perf_counter(), reset_peak_mb()
    session = read(path, broadband="crossings", reference="average")
    took, peak_mb = time.perf_counter() - begun, peak() - before_mb
    path.unlink()
    assert session.num_bins == 50 * seconds
    found = {"peak_mb": round(peak_mb, 1), "times_real_time": round(seconds / took, 2)}
    print(f"broadband of {seconds} s: {found}", flush=True)
    return found


def _print(formats: dict[str, dict[str, int]], fuzzed: dict[str, Counter[str]]) -> None:
    table = Table("format", "files", "imported", "refused")
    for name, counts in formats.items():
        table.add_row(name, *(str(counts[key]) for key in ("files", "imported", "refused")))
    Console().print(table)
    table = Table("damaged copies of", "cases", "kept", "refused", "crash", "partial write", "memory")
    for name, found in fuzzed.items():
        keys = ("cases", "kept", "refused", "crash", "partial write", "memory")
        table.add_row(name, *(str(found[key]) for key in keys))
    Console().print(table)


if __name__ == "__main__":
    main()
