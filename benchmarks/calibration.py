"""R² against minutes of calibration: decoders on real recordings, resumable, one JSON line a result.

    python benchmarks/calibration.py [--data DIR] [--split FILE] [--minutes 0.5,1,2,5,10] [--seeds 3]
        [--decoders wiener,kalman,gru,betz,betz_refined] [--model DIR] [--part test] [--sets indy,spike] [--jobs 2]
        [--quick] [--out DIR]

Calibration is the first min(m minutes, 60 %) of a session, the test part its last 40 %, decoded bin by bin after 20 s
of unlabelled warm-up. Sets of concatenated trials are decoded across their trial edges (``cross``, the bounds are for
it) and with restarts at them (``restart``). Several behaviors of one session are calibrated in one call.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import betz
from _common import finish, need
from betz.core.session import Session
from betz.data.split import Split, read_split
from betz.decode.history import History
from betz.evaluate.results import Row, table, table_text
from betz.evaluate.run import RECIPES, Plan, RunError, Task, run

MINUTES = (0.5, 1.0, 2.0, 5.0, 10.0)
SEEDED = ("gru", "lstm", "betz_refined")
"""Decoders with random parts; the others give the same with every seed."""
OWN = ("betz", "betz_refined")
"""Betz's own decoder, of the weights of ``--model``: without gradients, and with 60 s of training."""
REFINED_S = 60.0
HISTORY = 16
"""Earlier sessions that a history is made of, at most."""


@dataclass(frozen=True)
class Set:
    """Recordings that are read and scored alike.

    Args:
        pattern: where they are.
        tasks: what is scored.
        options: of the importer.
        split: whether the split says which of them are test sessions; otherwise all are.
    """

    pattern: str
    tasks: dict[str, Task]
    options: dict[str, Any]
    split: bool = False


def emg() -> Task:
    """All muscles, each in units of its 99th percentile."""
    return Task(("emg_*",), percentile_unit=99)


SETS = {
    "indy": Set("indy/*.npz", {"indy_velocity": Task(("finger_vx", "finger_vy"))}, {}, split=True),
    "spike": Set(
        "limblab_spike_wf/*.mat",
        {
            "spike_velocity": Task(("cursor_vx", "cursor_vy")),
            "spike_position": Task(("cursor_x", "cursor_y")),
            "spike_emg": emg(),
        },
        {},
        split=True,
    ),
    "contdata95": Set(
        "umich_contdata95/*.mat",
        {
            "contdata95_velocity": Task(("hand_vx", "hand_vy")),
            "contdata95_position": Task(("hand_x", "hand_y")),
        },
        {"bin_ms": 100},
    ),
    "dcca": Set("dcca_monkeys/*.mat", {"dcca_velocity": Task(("hand_vx", "hand_vy"))}, {}),
    "chewie": Set(
        "chewie_mihi/chewie*.npz",
        {
            "chewie_velocity": Task(("hand_vx", "hand_vy")),
            "chewie_position": Task(("hand_x", "hand_y")),
            "chewie_force": Task(("force_x", "force_y")),
        },
        {},
    ),
}


def sessions_of(data: Path, chosen: Set, ids: Sequence[str]) -> list[Session]:
    """The sessions of a set that are to be scored, in order."""
    paths = sorted(data.glob(chosen.pattern))
    if chosen.split:
        paths = [path for path in paths if path.stem in ids]
    return [betz.read(path, **chosen.options) for path in paths]


def plan_of(
    chosen: Set,
    decoders: Sequence[str],
    minutes: Sequence[float],
    seeds: Sequence[int],
    model: str,
    histories: dict[str, History],
    push_bins: int = 1,
) -> Plan:
    """The plan of one set; ``wiener_floor`` is the untuned filter."""
    return Plan(
        decoders={name: _recipe(name, model) for name in decoders},
        tasks=chosen.tasks,
        minutes=tuple(minutes),
        seeds=tuple(seeds),
        edges=("cross", "restart"),
        budgets={name: REFINED_S for name in decoders if name == "betz_refined"},
        histories=histories,
        push_bins=push_bins,
    )


def histories_of(data: Path, chosen: Set, split: Split, sessions: Sequence[Session], out: Path) -> dict[str, History]:
    """The history of each session: at most the 16 latest earlier sessions of pretraining and validation."""
    if not chosen.split:
        return {}
    ids = {*split.ids("pretrain"), *split.ids("validate")}
    known = [p for p in sorted(data.glob(chosen.pattern)) if p.stem in ids]
    made: dict[str, History] = {}
    for session in sessions:
        earlier = [p for p in known if p.stem < session.id][-HISTORY:]
        if not earlier:
            continue
        folder = out / "histories" / f"{earlier[0].stem}-{earlier[-1].stem}-{len(earlier)}"
        if not (folder / "history.json").exists():
            history: History | None = None
            for path in earlier:
                before = betz.read(path, **chosen.options)
                names = [n for task in chosen.tasks.values() for n in task.names_in(before)]
                y = before.behavior_of(names)
                names = [n for n, column in zip(names, y.T, strict=True) if np.nanstd(column) > 0]
                history = (history or History(before.subject)).add(before, behavior=names)
            assert history is not None
            history.save(folder)
        made[session.id] = History.load(folder)
    return made


def _recipe(name: str, model: str) -> Any:
    if name == "wiener_floor":
        return betz.Wiener.floor()
    if name in OWN:
        return betz.load(model)
    module, attribute = RECIPES[name].split(":")
    return getattr(importlib.import_module(module), attribute)()


def rows_of(arguments: argparse.Namespace, out: Path) -> list[Row]:
    """Compute what is missing; rows with errors are told and left out of the table."""
    split = read_split(need(arguments.split, "which sessions are test sessions"))
    ids = split.ids(arguments.part)
    decoders = ["wiener" if d == "ridge" else d for d in arguments.decoders.split(",")]
    unknown = [d for d in decoders if d not in RECIPES and d not in ("wiener_floor", *OWN)]
    if unknown:
        known = ", ".join(("wiener_floor", *OWN, *RECIPES))
        sys.exit(f"error: no decoder is named {', '.join(unknown)}; known: {known}.")
    minutes = [float(m) for m in arguments.minutes.split(",")]
    rows: list[Row] = []
    for name in arguments.sets.split(","):
        chosen = SETS[name]
        sessions = sessions_of(arguments.data, chosen, ids)
        if not sessions:
            print(f"{name}: no recordings of {arguments.part} in {arguments.data}", flush=True)
            continue
        own = any(d in OWN for d in decoders)
        histories = histories_of(arguments.data, chosen, split, sessions, out) if own else {}
        labelled = [m for m in minutes if m > 0]
        for some, seeds, lengths, known_ in (
            ([d for d in decoders if d not in (*SEEDED, *OWN)], [0], labelled, {}),
            ([d for d in decoders if d in SEEDED and d not in OWN], list(range(arguments.seeds)), labelled, {}),
            ([d for d in decoders if d == "betz"], [0], minutes if histories else labelled, histories),
            ([d for d in decoders if d == "betz_refined"], list(range(arguments.seeds)), labelled, histories),
        ):
            if not some or not lengths:
                continue
            plan = plan_of(chosen, some, lengths, seeds, arguments.model, known_, arguments.push_bins)
            try:
                found: list[Row] = run(plan, sessions, out=out / "calibration.jsonl", jobs=arguments.jobs)
            except RunError as error:
                print(f"error: {error}", flush=True)
                found = error.rows
            rows += found
        print(f"{name}: {len(sessions)} sessions", flush=True)
    return rows


def result_of(rows: Sequence[Row]) -> dict[str, Any]:
    """The keys of the last line."""
    nested: dict[str, Any] = {}
    for c in table(rows):
        if c.sessions:
            cell = {
                "mean": c.mean,
                "sd": c.sd,
                "seed_sd": c.seed_sd,
                "sessions": c.sessions,
                "seeds": c.seeds,
                "minutes_used": c.minutes_used,
                "settled": c.settled,
            }
            task = c.task if c.edges in ("none", "cross") else f"{c.task} ({c.edges})"
            name = "ridge" if c.decoder == "wiener" else c.decoder
            nested.setdefault(task, {}).setdefault(f"{c.minutes:g}", {})[name] = cell
    good = [row for row in rows if not row["error"]]
    trained = [row["calibrate_s"] for row in good if row["decoder"] == "betz_refined"]
    return {
        "table": nested,
        **beside_opponents(good),
        "calibrate_s": max((row["calibrate_s"] for row in good if row["decoder"] == "betz"), default=None),
        "refine_s": max(trained, default=None),
        "longest_calibrate_s": max((row["calibrate_s"] for row in good), default=None),
        "push_p99_ms": max((row["push_p99_ms"] for row in good), default=None),
        "failed": len(rows) - len(good),
    }


def beside_opponents(rows: Sequence[Row]) -> dict[str, float | None]:
    """Lowest session difference to ridge, and mean regret to the best single opponent of each session, of refined."""
    cells: dict[tuple[Any, ...], dict[str, list[float]]] = {}
    for row in rows:
        if row["minutes"] and row["edges"] != "restart":
            key = (row["session"], row["task"], row["minutes"])
            cells.setdefault(key, {}).setdefault(row["decoder"], []).append(row["r2"])
    below, regret = [], []
    for found in cells.values():
        own = found.get("betz_refined")
        if own is None:
            continue
        mine = float(np.mean(own))
        others = [float(np.mean(values)) for name, values in found.items() if name not in OWN]
        if "wiener" in found:
            below.append(mine - float(np.mean(found["wiener"])))
        if others:
            regret.append(max(others) - mine)
    return {
        "worst_vs_ridge": min(below, default=None),
        "regret": float(np.mean(regret)) if regret else None,
    }


def main() -> None:
    """Parse, run, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("BETZ_DATA"))
    parser.add_argument("--split", type=Path, default=Path(__file__).with_name("split.json"))
    parser.add_argument(
        "--part", default="test", choices=("test", "validate"), help="which part of the split is scored"
    )
    parser.add_argument("--minutes", default=",".join(f"{m:g}" for m in MINUTES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--decoders", default="wiener_floor,wiener,kalman,ole,gru,lstm,betz,betz_refined")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--model", default="betz-1", help="folder of a generalist, or the name of a shipped one")
    parser.add_argument("--push-bins", type=int, default=1, help="bins in a push; more is faster, times then mean less")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="Indy at 1 minute, one seed, ridge and Betz's own")
    parser.add_argument("--out", type=Path, help="folder of results; resumes from it")
    arguments = parser.parse_args()
    if arguments.data is None:
        sys.exit("error: no recordings: give --data DIR or set BETZ_DATA")
    if arguments.quick:
        arguments.sets, arguments.minutes, arguments.seeds = "indy", "1", 1
        arguments.decoders = "wiener,betz,betz_refined"
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        rows = rows_of(arguments, arguments.out or Path(folder))
    print(table_text(rows))
    left_out = "all but the Indy test sessions at 1 minute and one seed" if arguments.quick else ""
    finish(json.loads(json.dumps(result_of(rows))), started, quick=arguments.quick, left_out=left_out)


if __name__ == "__main__":
    main()
