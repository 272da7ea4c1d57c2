"""The simulator next to real arrays: rates, Fano factors, correlations, R² of ridge against minutes; one page.

    python benchmarks/simulation.py [--data DIR] [--split FILE] [--sessions 6] [--quick] [--out DIR]

Recorded sessions are some of those before the test part of the split, evenly spaced: Indy (random targets, 64 ms bins)
and Spike (center-out, 50 ms). The simulated ones have the same task and bins, as many subjects, and default settings.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

import betz
from _common import finish, need
from betz.core.session import Session
from betz.data.split import read_split
from betz.evaluate.activity import Activity, activity
from betz.evaluate.activity_page import Line, compare, page
from betz.evaluate.run import Plan, Task, run
from betz.sim.population import Simulation, simulate

MINUTES = (0.5, 1.0, 2.0, 5.0, 10.0)
SIMULATED_MINUTES = 17.0
"""60 % of it are the 10 minutes of the longest calibration."""


@dataclass(frozen=True)
class Source:
    """A set of recordings and what is simulated beside it."""

    name: str
    pattern: str
    velocity: tuple[str, str]
    task: Literal["random_target", "center_out"]
    bin_ms: float

    @property
    def simulated(self) -> str:
        """Name of the group that is simulated beside it."""
        return f"simulator ({self.task.replace('_', ' ')}, {self.bin_ms:g} ms)"


SOURCES = (
    Source("Indy", "indy/*.npz", ("finger_vx", "finger_vy"), "random_target", 64),
    Source("Spike", "limblab_spike_wf/*.mat", ("cursor_vx", "cursor_vy"), "center_out", 50),
)
SIMULATED_VELOCITY = ("hand_vx", "hand_vy")


def recorded(data: Path, source: Source, ids: Sequence[str], number: int) -> list[Session]:
    """Sessions of a set before its test part, evenly spaced."""
    paths = [path for path in sorted(data.glob(source.pattern)) if path.stem in ids]
    at = np.unique(np.linspace(0, len(paths) - 1, min(number, len(paths))).round().astype(int)) if paths else []
    return [betz.read(paths[k]) for k in at]


def simulated(source: Source, number: int, minutes: float) -> list[Session]:
    """As many subjects, in the bins of the set."""
    settings = Simulation(minutes=minutes, task=source.task, bin_ms=source.bin_ms)
    return [simulate(settings, seed=seed).session for seed in range(number)]


def curve(
    sessions: Sequence[Session], velocity: tuple[str, str], minutes: Sequence[float], out: Path
) -> dict[float, list[float]]:
    """R² of the Wiener filter at each length of calibration, where a session is long enough."""
    plan = Plan(decoders={"wiener": betz.Wiener()}, tasks={"velocity": Task(velocity)}, minutes=tuple(minutes))
    rows = run(plan, [s.without_edges() for s in sessions], out=out, progress=False)
    found: dict[float, list[float]] = {}
    for row in rows:
        if not row["error"] and row["minutes_used"] >= 0.9 * row["minutes"]:
            found.setdefault(row["minutes"], []).append(row["r2"])
    return found


def groups_of(
    arguments: argparse.Namespace, out: Path
) -> tuple[dict[str, list[Activity]], dict[str, dict[float, list[float]]], list[tuple[str, str]]]:
    """Descriptions and curves of every group, and the pairs to compare."""
    split = read_split(need(arguments.split, "which sessions are test sessions"))
    ids = [*split.ids("pretrain"), *split.ids("validate")]
    groups: dict[str, list[Activity]] = {}
    curves: dict[str, dict[float, list[float]]] = {}
    pairs = []
    for source in SOURCES:
        real = recorded(arguments.data, source, ids, arguments.sessions)
        if not real:
            print(f"{source.name}: no recordings in {arguments.data}", flush=True)
            continue
        made = simulated(source, arguments.sessions, arguments.simulated_minutes)
        todo: list[tuple[str, list[Session], tuple[str, str]]] = [
            (source.name, real, source.velocity),
            (source.simulated, made, SIMULATED_VELOCITY),
        ]
        for name, sessions, velocity in todo:
            groups[name] = [activity(s, velocity=velocity) for s in sessions]
            curves[name] = curve(sessions, velocity, arguments.minutes, out / "simulation.jsonl")
            print(f"{name}: {len(sessions)} sessions", flush=True)
        pairs.append((source.name, source.simulated))
    return groups, curves, pairs


def told(lines: Sequence[Line]) -> dict[str, dict[str, Any]]:
    """Medians and verdicts, for the last line."""
    return {
        line.name: {
            "recorded": round(line.recorded[1], 4),
            "recorded_range": [round(line.recorded[0], 4), round(line.recorded[2], 4)],
            "simulated": round(line.simulated[1], 4),
            "verdict": line.verdict,
        }
        for line in lines
    }


def main() -> None:
    """Parse, run, print the tables, write the page, print the JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("BETZ_DATA"))
    parser.add_argument("--split", type=Path, default=Path(__file__).with_name("split.json"))
    parser.add_argument("--sessions", type=int, default=6, help="of each group")
    parser.add_argument("--quick", action="store_true", help="two sessions of each group, up to 2 minutes")
    parser.add_argument("--out", type=Path, help="folder of results and the page; resumes from it")
    arguments = parser.parse_args()
    if arguments.data is None:
        sys.exit("error: no recordings: give --data DIR or set BETZ_DATA")
    arguments.minutes, arguments.simulated_minutes = MINUTES, SIMULATED_MINUTES
    if arguments.quick:
        arguments.sessions, arguments.minutes, arguments.simulated_minutes = 2, MINUTES[:3], 6.0
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        out = arguments.out or Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        groups, curves, pairs = groups_of(arguments, out)
        if not pairs:
            sys.exit(f"error: no recordings in {arguments.data}: it needs indy/*.npz or limblab_spike_wf/*.mat")
        result: dict[str, Any] = {"comparison": {}, "differences": {}}
        for real, made in pairs:
            lines = compare(groups[real], groups[made], (curves[real], curves[made]))
            _print(real, made, lines)
            result["comparison"][f"{made} / {real}"] = told(lines)
            result["differences"][f"{made} / {real}"] = [x.words(real) for x in lines if x.verdict != "within"]
        result["sessions"] = {name: [a.session for a in group] for name, group in groups.items()}
        notes = ["Ranges are over sessions; recorded test sessions are left out.", *_left_out(curves)]
        path = page(groups, curves, pairs, out / "simulation.html", notes=notes)
        result["page"] = str(path) if arguments.out else None
    left_out = "all but two sessions of each group, and calibration beyond 2 minutes" if arguments.quick else ""
    finish(result, started, quick=arguments.quick, left_out=left_out)


def _print(real: str, made: str, lines: Sequence[Line]) -> None:
    table = Table(f"{made} / {real}", "recorded", "simulated", "")

    def show(values: tuple[float, float, float]) -> str:
        return f"{values[1]:.3g} ({values[0]:.3g} … {values[2]:.3g})"

    for line in lines:
        name = f"{line.name}, {line.unit}" if line.unit else line.name
        table.add_row(name, show(line.recorded), show(line.simulated), "" if line.verdict == "within" else line.verdict)
    Console().print(table)


def _left_out(curves: dict[str, dict[float, list[float]]]) -> list[str]:
    """Where fewer sessions than the most are long enough."""
    most = {name: max(map(len, of.values()), default=0) for name, of in curves.items()}
    short = [
        f"{name} at {minutes:g} min: {len(values)} of {most[name]} sessions are long enough"
        for name, of in curves.items()
        for minutes, values in sorted(of.items())
        if len(values) < most[name]
    ]
    return ["; ".join(short) + "."] if short else []


if __name__ == "__main__":
    main()
