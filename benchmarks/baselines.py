"""The Wiener filter on real recordings: against the published floors where there are any, and tuned.

Each session is cut chronologically: calibration on the first 80 %, R² per dimension on the last 20 %, decoded through
the streaming path. ``floor`` has the settings of the floors (ten lags, no filter, trial edges ignored); ``tuned`` is
``betz.Wiener()`` as it comes, with edges ignored and, where a session has any, with restarts at them.

    python benchmarks/baselines.py [--data DIR] [--quick] [--out DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import betz
from _common import finish, need
from betz.core import metrics
from betz.core.config import config_hash
from betz.core.session import Session
from betz.data.derive import direction_vector, intended_direction
from betz.data.importers import read

APART = ("07-20", "09-12")
"""Broken recordings: the task stopped (07-20), the signal was lost (09-12). Reported, never in a median."""
INDY = {"finger_velocity": ("finger_vx", "finger_vy")}
SPIKE = {
    "cursor_position": ("cursor_x", "cursor_y"),
    "cursor_velocity": ("cursor_vx", "cursor_vy"),
    "emg": ("emg_*",),
}
CONTDATA = {"position_velocity": ("hand_x", "hand_y", "hand_vx", "hand_vy")}
CHEWIE = {
    "hand_velocity": ("hand_vx", "hand_vy"),
    "hand_position": ("hand_x", "hand_y"),
    "force": ("force_x", "force_y"),
}
HAND = {"hand_velocity": ("hand_vx", "hand_vy")}
BCI = {"intended_direction": ("intended_x", "intended_y")}
"""From cursor to target, derived; only where the decoder moved the cursor."""
DAD = ("chewie_20131219", "chewie_20131003", "mihi")
SHORT = {
    "finger_vx": "vx",
    "finger_vy": "vy",
    "cursor_x": "px",
    "cursor_y": "py",
    "cursor_vx": "vx",
    "cursor_vy": "vy",
    "hand_x": "px",
    "hand_y": "py",
    "hand_vx": "vx",
    "hand_vy": "vy",
    "force_x": "fx",
    "force_y": "fy",
    "intended_x": "dx",
    "intended_y": "dy",
}


def sessions(data: Path, *, quick: bool) -> Iterator[tuple[str, Path, dict[str, Any], dict[str, tuple[str, ...]]]]:
    """Set name, file, reader options and tasks of every recording."""
    indy = sorted((data / "indy").glob("*.npz"))
    spike = sorted((data / "limblab_spike_wf").glob("*.mat"))
    contdata = sorted((data / "umich_contdata95").glob("*.mat"))
    chewie = sorted((data / "chewie_mihi").glob("*.npz"))
    dad = [(path, name) for path in sorted((data / "chewie_mihi").glob("dad*.mat")) for name in DAD]
    dcca = sorted((data / "dcca_monkeys").glob("*.mat"))
    bci = sorted((data / "bci_cmu_pitt").glob("*.mat"))
    if not indy + spike + contdata + chewie + dad + dcca + bci:
        sys.exit(f"no recordings in {data}: it needs indy/*.npz, limblab_spike_wf/*.mat or another known folder")
    yield from (("indy", path, {}, INDY) for path in (indy[-3:] if quick else indy))
    yield from (("spike", path, {}, SPIKE) for path in (spike[-4:] if quick else spike))
    yield from (("contdata95", path, {"bin_ms": 100}, CONTDATA) for path in contdata)
    yield from (("dad", path, {"session": name, "rates_to_counts": True}, HAND) for path, name in dad)
    yield from (("dcca", path, {}, HAND) for path in dcca)
    if not quick:
        yield from (("chewie", path, {}, CHEWIE) for path in chewie)
        yield from (("bci", path, {}, BCI) for path in bci)


def prepared(path: Path, options: dict[str, Any], tasks: dict[str, tuple[str, ...]]) -> Session:
    """The session, with intended direction derived where it is the task."""
    session = read(path, **options)
    if tasks is not BCI:
        return session
    if any(d.name == "target_direction" for d in session.dims):
        return direction_vector(session, only_brain_control=True)
    return intended_direction(session, only_brain_control=True)


def floors_of(floors: dict[str, Any], name: str, session_id: str, task: str) -> list[float] | None:
    """The published floor of one session and task, if there is one."""
    found = floors.get(name, {})
    return found.get(task) or found.get(session_id, {}).get(task)


def names_of(session: Session, patterns: Sequence[str]) -> list[str]:
    """Behavior names; ``emg_*`` stands for all muscles in their recorded order."""
    known = [d.name for d in session.dims]
    return [n for p in patterns for n in known if n == p or (p.endswith("*") and n.startswith(p[:-1]))]


def score(session: Session, recipe: betz.Wiener, names: list[str]) -> tuple[list[float], float]:
    """R² per dimension on the last 20 %, and seconds of calibration. A dimension without variance scores NaN."""
    cut = int(0.8 * session.num_bins)
    calibration = session.between(0, cut)
    y = calibration.behavior_of(names)[calibration.usable]
    moving = [n for k, n in enumerate(names) if np.nanstd(y[:, k]) > 0]
    started = time.perf_counter()
    decoder = recipe.calibrate(calibration, behavior=moving)
    seconds = time.perf_counter() - started
    predicted = betz.replay(decoder, session)
    truth = session.behavior_of(moving)
    test = metrics.scored(truth, predicted.values[0], predicted.valid[0]) & (np.arange(session.num_bins) >= cut)
    found = dict(zip(moving, metrics.r2(truth[test], predicted.values[0, test]).tolist(), strict=True))
    return [found.get(n, float("nan")) for n in names], seconds


def rows_of(out: Path) -> dict[str, dict[str, Any]]:
    """Results of an earlier, interrupted run by key."""
    if not out.exists():
        return {}
    rows = []
    for line in out.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            print(f"a torn line of {out} is ignored")
    return {row["key"]: row for row in rows}


def run(data: Path, out: Path, *, quick: bool) -> list[dict[str, Any]]:
    """Score every session × task × setting, resuming from ``out``."""
    need(data / "floors.json", "the published floors that the gap is measured against")
    floors = json.loads((data / "floors.json").read_text())
    done, rows = rows_of(out), []
    for name, path, options, tasks in sessions(data, quick=quick):
        session = None
        session_id = "_".join([path.stem, *([str(options["session"])] if "session" in options else [])])
        for task, patterns in tasks.items():
            for setting in ("floor", "tuned", "tuned_restart"):
                recipe = betz.Wiener.floor() if setting == "floor" else betz.Wiener()
                size = path.stat().st_size
                key = config_hash([path.name, size, task, setting, config_hash(recipe), options])
                if key not in done:
                    session = session or prepared(path, options, tasks)
                    if setting == "tuned_restart" and not len(session.edges):
                        continue
                    names = names_of(session, patterns)
                    used = session if setting == "tuned_restart" else session.without_edges()
                    r2, seconds = score(used, recipe, names)
                    done[key] = {
                        "key": key,
                        "set": name,
                        "session": session_id,
                        "task": task,
                        "setting": setting,
                        "dims": names,
                        "r2": r2,
                        "floor": floors_of(floors, name, session_id, task),
                        "calibrate_s": round(seconds, 3),
                    }
                    with out.open("a") as file:
                        file.write(json.dumps(done[key]) + "\n")
                rows.append(done[key])
        print(f"{name} {session_id}", flush=True)
    return rows


def medians(rows: list[dict[str, Any]], setting: str) -> dict[str, float]:
    """Median over sessions of each dimension's R²; EMG: of the session's median muscle."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row["setting"] != setting or any(a in row["session"] for a in APART):
            continue
        if row["task"] == "emg":
            values.setdefault(f"{row['set']}_emg", []).append(float(np.nanmedian(row["r2"])))
            continue
        for dim, r2 in zip(row["dims"], row["r2"], strict=True):
            values.setdefault(f"{row['set']}_{SHORT[dim]}", []).append(r2)
    return {key: round(float(np.median(v)), 4) for key, v in values.items()}


def gaps(rows: list[dict[str, Any]], setting: str, *, apart: bool) -> list[tuple[float, str]]:
    """Floor − value for every dimension with a floor above 0.2, largest first."""
    found = []
    for row in rows:
        if row["setting"] == setting and row["floor"] and any(a in row["session"] for a in APART) == apart:
            pairs = zip(row["floor"], row["r2"], row["dims"], strict=True)
            found += [(f - v, f"{row['session']} {d}") for f, v, d in pairs if f is not None and f > 0.2]
    return sorted(found, reverse=True)


def main() -> None:
    """Parse, run, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("BETZ_DATA"))
    parser.add_argument("--out", type=Path, help="folder of results; resumes from it")
    parser.add_argument("--quick", action="store_true", help="the last sessions of each set only")
    arguments = parser.parse_args()
    if arguments.data is None:
        sys.exit("no recordings: give --data DIR or set BETZ_DATA")
    started = time.time()
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        rows = run(arguments.data, arguments.out / "baselines.jsonl", quick=arguments.quick)
    else:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            rows = run(arguments.data, Path(folder) / "baselines.jsonl", quick=arguments.quick)
    settings = {s: medians(rows, s) for s in ("floor", "tuned", "tuned_restart")}
    table = Table("R², median over sessions", *settings)
    for key in settings["floor"]:
        table.add_row(key, *(f"{settings[s][key]:.3f}" if key in settings[s] else "–" for s in settings))
    Console().print(table)
    worst = gaps(rows, "floor", apart=False)
    for gap, where in worst[:5]:
        print(f"floor − value {gap:+.4f}  {where}")
    tuned = gaps(rows, "tuned", apart=False)
    result: dict[str, Any] = {
        "ridge": settings["floor"],
        "tuned": settings["tuned"],
        "tuned_restart": settings["tuned_restart"],
        "worst_floor_gap": round(worst[0][0], 4) if worst else None,
        "worst_floor_gap_apart": round(max((g for g, _ in gaps(rows, "floor", apart=True)), default=float("nan")), 4),
        "mean_tuned_gain": round(-float(np.mean([g for g, _ in tuned])), 4) if tuned else None,
        "sessions": len({row["session"] for row in rows}),
        "calibrate_s": max(row["calibrate_s"] for row in rows),
    }
    left_out = "Chewie in 100 ms, BCI, all but the last 3 Indy and 4 Spike sessions" if arguments.quick else ""
    finish(result, started, quick=arguments.quick, left_out=left_out)


if __name__ == "__main__":
    main()
