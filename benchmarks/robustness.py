"""Betz's own decoder when the array changes: permuted channels, dying channels, directions that calibration lacked.

    python benchmarks/robustness.py [--data DIR] [--split FILE] [--model DIR] [--budgets 0,60] [--quick] [--out DIR]

Channels permuted against the history (5 permutations, 1 and 5 minutes, paired with the decoder without history); 30 %
of the channels silent from the first test bin on, detection delay included; a 90° sector without calibration
(Indy's validation sessions, 5 minutes, no history, bins above the median speed, R² about zero velocity).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import betz
from _common import finish, need
from betz.core.metrics import r2_variance_weighted
from betz.core.session import Session
from betz.data.split import read_split
from betz.decode.history import History
from betz.evaluate.cells import WARMUP_MINUTES
from calibration import SETS, histories_of, sessions_of

Float = NDArray[np.float64]
PERMUTATIONS, DEAD = 5, 0.3


class Runner:
    """Rows of a JSON-lines file; one that is there is not computed again."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        self.path, self.rows = path, {row["key"]: row for row in map(json.loads, lines)}

    def get(self, key: str, compute: Any) -> Any:
        """The row of this key."""
        if key not in self.rows:
            self.rows[key] = {"key": key, **compute()}
            with self.path.open("a") as file:
                file.write(json.dumps(self.rows[key]) + "\n")
            print(key, self.rows[key], flush=True)
        return self.rows[key]


def parts(session: Session, minutes: float) -> tuple[Session, Session, int]:
    """Calibration, the replayed part, and its first test bin."""
    cut = session.num_bins * 6 // 10
    start = max(cut - session.grid.bins_in(WARMUP_MINUTES), 0)
    first = min(session.grid.bins_in(minutes), cut)
    return session.between(0, first), session.between(start, session.num_bins), cut - start


def decoded(decoder: Any, test: Session) -> Float:
    """(N, K) predictions, pushed in pieces."""
    return np.asarray(betz.replay(decoder, test, push_bins=100).values[0])


def scores(predicted: Float, test: Session, first: int, tasks: dict[str, list[str]], names: Sequence[str]) -> Any:
    """R² of each task in the test part; muscles in units of their 99th percentile."""
    found = {}
    for task, wanted in tasks.items():
        some = [n for n in wanted if n in names]
        truth = test.behavior_of(some)
        unit = np.nanpercentile(truth, 99, axis=0) if task.endswith("emg") else np.ones(len(some))
        rows = (np.arange(len(truth)) >= first) & np.isfinite(truth).all(axis=1)
        at = [list(names).index(n) for n in some]
        found[task] = round(float(r2_variance_weighted(truth[rows] / unit, predicted[rows][:, at] / unit)), 5)
    return found


def names_in(session: Session, tasks: dict[str, list[str]]) -> list[str]:
    """The dimensions of all tasks that vary."""
    names = [n for found in tasks.values() for n in found]
    y = session.behavior_of(names)
    return [n for n, column in zip(names, y.T, strict=True) if np.nanstd(column) > 0]


def permuted(session: Session, seed: int) -> Session:
    """The session with its count channels in another order under the same names."""
    order = np.random.default_rng(seed).permutation(len(session.channels))
    assert session.counts is not None
    return replace(session, counts=session.counts[:, order])


def silenced(test: Session, first: int, seed: int) -> Session:
    """30 % of the channels silent from bin ``first`` on."""
    assert test.counts is not None
    counts = test.counts.copy()
    number = len(test.channels)
    dead = np.random.default_rng(seed).choice(number, round(DEAD * number), replace=False)
    counts[first:, dead] = 0
    return replace(test, counts=counts)


def array_changes(
    run: Runner, recipe: Any, session: Session, tasks: dict[str, list[str]], history: History | None, budget: float
) -> Iterator[dict[str, float]]:
    """Losses of one session by permutation and by dying channels."""
    for minutes in (1.0, 5.0) if budget == 0 else (1.0,):
        calibration, _, first = parts(session, minutes)
        names = names_in(calibration, tasks)
        head = f"{session.id}/{minutes:g}/{budget:g}"

        def of(
            known: History | None, whole: Session, minutes: float = minutes, names: list[str] = names
        ) -> tuple[Any, Session]:
            cut, later, _ = parts(whole, minutes)
            return recipe.calibrate(cut, behavior=names, history=known, budget_s=budget), later

        def plain(known: History | None, first: int = first, names: list[str] = names) -> Any:
            decoder, later = of(known, session)
            values = decoded(decoder, later)
            flags = len(decoder.dead_channels())
            out = {"r2": scores(values, later, first, tasks, names), "flags": flags}
            out["dead"] = [
                scores(decoded(decoder, silenced(later, first, seed)), later, first, tasks, names) for seed in range(3)
            ]
            return out

        alone = run.get(f"{head}/alone", lambda: plain(None))
        intact = run.get(f"{head}/intact", lambda: plain(history)) if history else alone
        for task, r2 in intact["r2"].items():
            for seed in range(3):
                yield {"dead": r2 - intact["dead"][seed][task]}
        yield {"flags": intact["flags"]}
        if history is None:
            continue
        for seed in range(PERMUTATIONS):

            def moved(seed: int = seed, first: int = first, names: list[str] = names) -> Any:
                decoder, later = of(history, permuted(session, seed))
                return {"r2": scores(decoded(decoder, later), later, first, tasks, names)}

            row = run.get(f"{head}/permuted/{seed}", moved)
            for task, r2 in row["r2"].items():
                yield {"permuted": alone["r2"][task] - r2}


def sectors(run: Runner, recipe: Any, session: Session, names: list[str], budget: float) -> Iterator[dict[str, float]]:
    """Angle and R² in a sector that calibration lacked, of the decoder and of tuned ridge."""
    calibration, test, first = parts(session, 5)
    v = calibration.behavior_of(names)
    truth = test.behavior_of(names)
    speed = np.hypot(*truth.T)
    fast = (speed > np.nanmedian(speed)) & (np.arange(len(truth)) >= first)
    for quarter in range(4):
        middle = quarter * np.pi / 2

        def away(y: Float, middle: float = middle) -> Float:
            return np.abs((np.arctan2(y[:, 1], y[:, 0]) - middle + np.pi) % (2 * np.pi) - np.pi)

        series = calibration.behavior[[names[0] in [d.name for d in s.dims] for s in calibration.behavior].index(True)]
        inside = away(v) <= np.pi / 4
        wide = np.convolve(inside, np.ones(5), "same") > 0  # two bins around it too
        values = series.values.copy()
        values[wide] = np.nan
        lacking = replace(calibration, behavior=(replace(series, values=values),))
        rows = fast & (away(truth) <= np.pi / 4)

        def one(decoder: Any, rows: Any = rows) -> list[float]:
            p, y = decoded(decoder, test)[rows], truth[rows]
            turn = np.abs((np.arctan2(p[:, 1], p[:, 0]) - np.arctan2(y[:, 1], y[:, 0]) + np.pi) % (2 * np.pi) - np.pi)
            return [float(np.degrees(np.median(turn))), float(1 - ((p - y) ** 2).sum() / (y**2).sum())]

        key = f"{session.id}/sector/{quarter}"

        def of(made: Any, one: Any = one, lacking: Session = lacking, **options: Any) -> Any:
            return {"v": one(made.calibrate(lacking, behavior=names, **options))}

        own = run.get(f"{key}/{budget:g}", lambda of=of: of(recipe, budget_s=budget))
        ridge = run.get(f"{key}/ridge", lambda of=of: of(betz.Wiener()))
        yield dict(zip(("angle", "r2", "ridge_angle", "ridge_r2"), (*own["v"], *ridge["v"]), strict=True))


def summary(found: list[dict[str, float]], sector: list[dict[str, float]]) -> dict[str, Any]:
    """The keys of one budget."""

    def mean(name: str, rows: list[dict[str, float]]) -> float | None:
        values = [r[name] for r in rows if name in r]
        return round(float(np.mean(values)), 4) if values else None

    dead = [r["dead"] for r in found if "dead" in r]
    return {
        "permuted_loss": mean("permuted", found),
        "dead30_loss": mean("dead", found),
        "dead30_worst": round(max(dead), 4) if dead else None,
        "false_flags": mean("flags", found),
        "sector_angle_deg": mean("angle", sector),
        "sector_angle_ridge_deg": mean("ridge_angle", sector),
        "sector_r2": mean("r2", sector),
        "sector_r2_ridge": mean("ridge_r2", sector),
    }


def main() -> None:
    """Parse, run, print the JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("BETZ_DATA"))
    parser.add_argument("--split", type=Path, default=Path(__file__).with_name("split.json"))
    parser.add_argument("--model", default="betz-1")
    parser.add_argument("--budgets", default="0,60", help="seconds of training; 0 = instant, 60 = refined")
    parser.add_argument("--quick", action="store_true", help="instant, first Indy session")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.data is None:
        sys.exit("error: no recordings: give --data DIR or set BETZ_DATA")
    split = read_split(need(arguments.split, "which sessions are test sessions"))
    recipe = betz.load(arguments.model)
    started = time.time()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        out = arguments.out or Path(folder)
        run = Runner(out / "robustness.jsonl")
        for budget in [0.0] if arguments.quick else [float(b) for b in arguments.budgets.split(",")]:
            found: list[dict[str, float]] = []
            for name in ("indy",) if arguments.quick else ("indy", "spike"):
                sessions = sessions_of(arguments.data, SETS[name], split.ids("test"))
                for session in sessions[:1] if arguments.quick else sessions:
                    known = histories_of(arguments.data, SETS[name], split, [session], out).get(session.id)
                    tasks = {t: task.names_in(session) for t, task in SETS[name].tasks.items()}
                    found += list(array_changes(run, recipe, session, tasks, known, budget))
            sector: list[dict[str, float]] = []
            validation = sessions_of(arguments.data, SETS["indy"], split.ids("validate"))
            for session in validation[:1] if arguments.quick else validation:
                names = SETS["indy"].tasks["indy_velocity"].names_in(session)
                sector += list(sectors(run, recipe, session, names, budget))
            result["refined" if budget else "instant"] = summary(found, sector)
    left_out = "all but the first Indy session and the instant decoder" if arguments.quick else ""
    finish(result, started, quick=arguments.quick, left_out=left_out)


if __name__ == "__main__":
    main()
