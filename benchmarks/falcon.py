"""FALCON: the official evaluator's numbers against ours, on synthetic files in the official layouts.

    python benchmarks/falcon.py [--quick] [--out DIR]

Synthetic files of every session (names and folders of the benchmark) → importer → a Wiener filter calibrated on one
held-in file → the official ``FalconEvaluator`` in its minival and test phases, and ``betz.replay`` with our own scores.
``worst``: largest |official − ours| over tasks, phases and scores; H2 gets a fixed text, which checks plumbing.
``normalized_latency``: the official one, seconds of ``predict`` a second of recording, at the largest batch.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import betz
from _common import finish
from betz.data.importers.falcon_names import TASKS, TaskName
from betz.evaluate.falcon import FIXED_TEXT, FalconDecoder, continuous_scores, evaluate_official, targets, text_scores
from betz.testing.falcon_files import write_fixture

RECIPE = betz.Wiener(lags=3, prefilter_ms=(0,), strengths=(0.1,), validation="tail", folds=5)
PHASES = {"minival": "*minival/*.nwb", "test": "eval/*.nwb"}


def ours(task: TaskName, decoder: Any, paths: list[Path]) -> dict[str, float]:
    """Our scores of the files."""
    if task == "h2":
        texts = {}
        for path in paths:
            session = betz.read(path)
            cues = [] if session.trials is None else [str(cue) for cue in session.trials.columns["cue"]]
            texts[session.tags["falcon_key"]] = (cues, [FIXED_TEXT] * len(cues))
        return text_scores(texts)
    files = {}
    for path in paths:
        session = betz.read(path)
        found = betz.replay(decoder, session.without_edges())
        scored_N = session.behavior_of(["eval_mask"])[:, 0] == 1
        files[session.tags["falcon_key"]] = (session.behavior_of(targets(session)), found.values[0], scored_N)
    return continuous_scores(task, files)


def compare(task: TaskName, folder: Path, trial_s: float) -> list[dict[str, Any]]:
    """One row a phase."""
    write_fixture(folder, task, trials=4, trial_s=trial_s)
    decoder = None
    if task != "h2":
        session = betz.read(sorted((folder / task).glob("*held-in-calib/*.nwb"))[0])
        decoder = RECIPE.calibrate(session.without_edges(), behavior=targets(session))
    rows = []
    for phase, pattern in PHASES.items():
        official = evaluate_official(FalconDecoder(task, decoder), folder, phase=phase, work=folder / "work")
        own = ours(task, decoder, sorted((folder / task).glob(pattern)))
        shared = [name for name in official if name in own]
        assert len(shared) == (4 if task == "h2" else 2) * (1 if phase == "minival" else 2)
        rows.append(
            {
                "task": task,
                "phase": phase,
                "worst": max(abs(official[name] - own[name]) for name in shared),
                "scores": len(shared),
                "normalized_latency": official["Normalized Latency"],
            }
        )
    return rows


def main() -> None:
    """Compare all tasks and print the differences."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="trials of 0.8 s instead of 2 s")
    parser.add_argument("--out", type=Path, help="folder for the files (default: a temporary one)")
    arguments = parser.parse_args()
    started = time.time()
    table, rows = Table("task", "phase", "largest difference", "scores", "normalized latency"), []
    for task in TASKS.values():
        with tempfile.TemporaryDirectory(dir=arguments.out) as folder:
            rows += compare(task.name, Path(folder), 0.8 if arguments.quick else 2.0)
    for row in rows:
        table.add_row(row["task"], row["phase"], f"{row['worst']:.1e}", str(row["scores"]),
                      f"{row['normalized_latency']:.2g}")  # fmt: skip
    Console().print(table)
    result = {"worst": max(row["worst"] for row in rows), "rows": rows}
    finish(result, started, quick=arguments.quick, left_out="most of each trial" if arguments.quick else "")


if __name__ == "__main__":
    main()
