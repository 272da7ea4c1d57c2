"""The store and the counting of spikes: random windows a second, spikes a second, seconds of an import.

    python benchmarks/store.py [--quick] [--out DIR]

``windows_per_s``: random 1-second windows (50 bins × 192 channels), one core, from a memory-mapped store of one hour in
20 ms bins. ``spikes_per_s``: 10⁷ spike ticks at 30 kHz over 192 channels and one hour into 20 ms counts. ``import_s``:
arrays of that hour with 4 behavior dimensions → session → store, hashed and with all data on the disk. Best of 5
interleaved repeats.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from _common import finish
from betz.core.seeds import SeedTree
from betz.core.timegrid import BinGrid, count_spikes
from betz.data.arrays import from_arrays
from betz.data.store import Store

CHANNELS, BINS, WINDOW, BATCH = 192, 180_000, 50, 256
SPIKES, REPEATS, SECONDS = 10_000_000, 5, 2.0
BEHAVIOR = ("hand_x", "hand_y", "hand_vx", "hand_vy")


def hour(seed: int = 0) -> tuple[Any, Any]:
    """Counts and behavior of one hour."""
    rng = SeedTree(seed).generator("hour")
    counts_NC = rng.poisson(0.3, (BINS, CHANNELS)).astype(np.uint8)
    return counts_NC, rng.normal(size=(BINS, len(BEHAVIOR))).astype(np.float32)


def spike_ticks(seed: int = 0) -> tuple[Any, ...]:
    """Sorted spike ticks of each channel in one hour at 30 kHz."""
    rng = SeedTree(seed).generator("ticks")
    share = np.full(CHANNELS, SPIKES // CHANNELS)
    share[: SPIKES % CHANNELS] += 1
    return tuple(np.sort(rng.integers(0, 3600 * 30_000, n)) for n in share)


def windows_rate(store: Store, *, behavior: bool, seconds: float, seed: int) -> float:
    """Windows drawn and read a second."""
    windows = store.windows(bins=WINDOW, ids=["hour"], behavior=BEHAVIOR if behavior else None)
    rng = SeedTree(seed).generator("windows")
    windows.read(windows.draw(rng, BATCH))
    number, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        windows.read(windows.draw(rng, BATCH))
        number += BATCH
    return number / (time.perf_counter() - begun)


def main() -> None:
    """Time the three, interleaved, and print the best of each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two repeats instead of five")
    parser.add_argument("--out", type=Path, help="folder for the store (default: a temporary one)")
    arguments = parser.parse_args()
    started = time.time()
    with tempfile.TemporaryDirectory() as temporary:
        result = run(arguments.out or Path(temporary), repeats=2 if arguments.quick else REPEATS)
    table = Table("what", "best", "all repeats")
    for name, (best, every) in result.items():
        table.add_row(name, f"{best:,.3g}", ", ".join(f"{value:,.3g}" for value in every))
    Console().print(table)
    keys = {name: round(best, 3) for name, (best, _) in result.items()}
    finish(keys, started, quick=arguments.quick, left_out="three of five repeats" if arguments.quick else "")


def run(folder: Path, *, repeats: int) -> dict[str, tuple[float, list[float]]]:
    """Best and all values of each key."""
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(folder / "store", create=True)
    counts_NC, behavior_NK = hour()
    ticks, grid = spike_ticks(), BinGrid(tick_hz=30_000, ticks_per_bin=600)
    expected = None

    def importing() -> float:
        begun = time.perf_counter()
        store.put(from_arrays(counts_NC, bin_ms=20, behavior=behavior_NK, dims=BEHAVIOR, id="hour"), replace=True)
        return time.perf_counter() - begun

    def counting() -> float:
        nonlocal expected
        begun = time.perf_counter()
        found = count_spikes(ticks, grid, BINS)
        took = time.perf_counter() - begun
        expected = int(found.sum()) if expected is None else expected
        assert expected == int(found.sum()) == SPIKES
        return SPIKES / took

    rounds: dict[str, Callable[[int], float]] = {
        "import_s": lambda _: importing(),
        "windows_per_s": lambda seed: windows_rate(store, behavior=False, seconds=SECONDS, seed=seed),
        "windows_with_behavior_per_s": lambda seed: windows_rate(store, behavior=True, seconds=SECONDS, seed=seed),
        "spikes_per_s": lambda _: counting(),
    }
    found: dict[str, list[float]] = {name: [] for name in rounds}
    for seed in range(repeats):
        for name, measure in rounds.items():
            found[name].append(measure(seed))
    return {name: ((min if name.endswith("_s") and "per" not in name else max)(v), v) for name, v in found.items()}


if __name__ == "__main__":
    main()
