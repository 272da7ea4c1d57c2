"""What the gate's priors are learned from: held-out and test errors of every member, on sessions no network has seen.

    python runs/gate_priors.py collect --out FILE --model DIR --sessions validate|ID,ID [--budget 60] [--data DIR]
    python runs/gate_priors.py learn FILE… [--out MODEL_DIR]
    python runs/gate_priors.py judge FILE…

``collect`` appends a JSON line for each session, length of calibration and group of dimensions; what is there is not
computed again. ``learn`` fits the priors, tells what leaving one session out gives, and writes them into a model.
``judge`` compares the R² that is expected with the one achieved, sessions left out one by one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pretrain_generalist import names_of
from scipy.optimize import minimize

import betz
from betz.core.session import Session
from betz.decode.calibrate import Betz
from betz.decode.gate import Expectation, Prior, error_moments, mix, pruned
from betz.decode.history import History
from betz.decode.labels import continuous_labels
from betz.decode.members import Calibration, fold_count
from betz.decode.mix import Gate, Mix, gate_key, kind_of
from betz.decode.weights import load_generalist, save_generalist

BEHAVIOR = {
    "indy": ("finger_vx", "finger_vy"),
    "Spike": ("cursor_vx", "cursor_vy", "cursor_x", "cursor_y", "emg_*"),
}
MINUTES = (0.5, 1.0, 2.0, 5.0, 10.0)
L2 = 0.01
LEAST_SESSIONS = 5
TRAINED = ("gru", "fine_tuned")


def path_of(data: Path, name: str) -> Path:
    """The file of a session of Indy or Spike."""
    return data / (f"indy/{name}.npz" if name.startswith("indy") else f"limblab_spike_wf/{name}.mat")


def histories(data: Path, wanted: Sequence[str], known: Sequence[str]) -> dict[str, History]:
    """The history of each session, of the earlier known ones of its subject (all, fading)."""
    made: dict[str, History] = {}
    for prefix, patterns in BEHAVIOR.items():
        history: History | None = None
        for name in sorted({n for n in (*known, *wanted) if n.startswith(prefix)}):
            if name in wanted and history is not None:
                made[name] = history
            if name in known and any(n > name for n in wanted):
                session = betz.read(path_of(data, name))
                history = (history or History(session.subject)).add(session, behavior=names_of(session, patterns))
    return made


def collect(
    session: Session, names: list[str], minutes: float, recipe: Betz, history: Any, budget_s: float
) -> list[Any]:
    """One line a group: what its members' errors are, in held-out folds and in the test part."""
    cut = session.num_bins * 6 // 10
    calibration = session.between(0, min(session.grid.bins_in(minutes), cut))
    y = calibration.behavior_of(names)
    names = [n for n, column in zip(names, y.T, strict=True) if np.nanstd(column) > 0]
    dims = calibration.dims_of(names)
    y_NK, _ = continuous_labels(calibration, dims, recipe="gate")
    c = Calibration(calibration, dims, y_NK, fold_count(calibration.minutes), 0)
    made = Mix(recipe.network, c, history=history, budget_s=budget_s, gate=Gate())
    made.prepare()
    start = cut - session.grid.bins_in(20 / 60)
    test = session.between(start, session.num_bins)
    predicted = made.predictions(test)
    truth = test.behavior_of(names)
    rows = np.isfinite(truth).all(axis=1) & (np.arange(test.num_bins) >= cut - start)
    lines = []
    for group in c.groups:
        at = list(group)
        members = list(made.held_out)
        unit = c.y_NK[c.labelled_N][:, at].std(axis=0)
        unit = unit if len(at) > 3 else np.full(len(at), unit.mean())
        errors = np.stack([(predicted[m][rows][:, at] - truth[rows][:, at]) / unit for m in members], axis=1)
        held_out = made.moments(group)
        lines.append(
            {
                "session": session.id,
                "minutes": minutes,
                "minutes_used": float(c.labelled_N.sum() * session.grid.bin_s / 60),
                "kind": kind_of([dims[k] for k in group]),
                "known": history is not None,
                "budget_s": budget_s,
                "model": recipe.name,
                "members": members,
                "held_out": np.round(held_out, 6).tolist(),
                "test": np.round(error_moments(errors, (truth[rows][:, at] / unit).var(axis=0)), 6).tolist(),
            }
        )
    return lines


def run_collect(arguments: argparse.Namespace) -> None:
    """Collect what is missing."""
    split = json.loads(arguments.split.read_text())
    wanted = split[arguments.sessions] if arguments.sessions in split else arguments.sessions.split(",")
    recipe = load_generalist(arguments.model)[0]
    recipe = replace(recipe, name=arguments.name or recipe.name)
    out = Path(arguments.out)
    done = set()
    if out.exists():
        done = {
            (r["session"], r["minutes"], r["budget_s"], r["known"], r["model"]) for r in map(json.loads, out.open())
        }
    known = histories(arguments.data, wanted, [*split["pretrain"], *split["validate"]]) if not arguments.new else {}
    for name in wanted:
        session = betz.read(path_of(arguments.data, name))
        prefix = next(p for p in BEHAVIOR if name.startswith(p))
        last = 0
        for minutes in MINUTES:
            bins = min(session.grid.bins_in(minutes), session.num_bins * 6 // 10)
            key = (name, minutes, arguments.budget, known.get(name) is not None, recipe.name)
            if bins < 1.1 * last or key in done:
                last = max(last, bins)
                continue
            last = bins
            lines = collect(
                session, names_of(session, BEHAVIOR[prefix]), minutes, recipe, known.get(name), arguments.budget
            )
            with out.open("a") as file:
                for line in lines:
                    file.write(json.dumps(line) + "\n")
            print(name, minutes, flush=True)


def learn(rows: Sequence[Any], pull: float) -> Prior:
    """Levels and slopes whose weights alone have the least error in the test parts, pulled to uniform."""
    members = sorted({m for r in rows for m in r["members"]})
    index = [np.array([members.index(m) for m in r["members"]]) for r in rows]
    test = [np.array(r["test"]) for r in rows]
    doublings = np.array([np.log2(max(r["minutes_used"], 0.1) / 2) for r in rows])
    counts: dict[str, int] = {}
    for r in rows:
        counts[r["session"]] = counts.get(r["session"], 0) + 1
    weight = np.array([1 / counts[r["session"]] for r in rows])

    def cost(x: Any) -> tuple[float, Any]:
        a, b = x[: len(members)], x[len(members) :]
        total, gradient = L2 * float(x @ x), 2 * L2 * x
        for at, e, d, share in zip(index, test, doublings, weight / weight.sum(), strict=True):
            z = a[at] + b[at] * d
            w = np.exp(z - z.max())
            w /= w.sum()
            ew = e @ w
            total += share * float(w @ ew)
            dz = share * 2 * w * (ew - w @ ew)
            np.add.at(gradient, at, dz)
            np.add.at(gradient, len(members) + at, d * dz)
        return total, gradient

    found = minimize(cost, np.zeros(2 * len(members)), jac=True, method="L-BFGS-B").x
    return Prior({m: (float(found[i]), float(found[len(members) + i])) for i, m in enumerate(members)}, pull)


def mixed_both(r: Any, prior: Prior) -> tuple[float, float]:
    """Held-out R² of the gate's mix, and its R² in the test part."""
    held_out, test, minutes = np.array(r["held_out"]), np.array(r["test"]), r["minutes_used"]
    w = pruned(mix(held_out, prior.weights(r["members"], minutes), prior.pull / max(minutes, 0.1)))
    return float(1 - w @ held_out @ w), float(1 - w @ test @ w)


def without_training(r: Any) -> Any:
    """The same row as if no member had been trained."""
    keep = [i for i, m in enumerate(r["members"]) if m not in TRAINED]
    at = np.ix_(keep, keep)
    small = {name: np.array(r[name])[at].tolist() for name in ("held_out", "test")}
    return {**r, **small, "members": [r["members"][i] for i in keep], "budget_s": 0.0}


def expectation(rows: Sequence[Any], priors: Sequence[Prior]) -> Expectation:
    """Achieved R² by held-out R² and minutes: least squares, quantiles of what is left; sessions weigh the same."""
    x, y, weight = [], [], []
    counts: dict[str, int] = {}
    for r in rows:
        counts[r["session"]] = counts.get(r["session"], 0) + 1
    for r, prior in zip(rows, priors, strict=True):
        held_out, test = mixed_both(r, prior)
        x.append([1.0, held_out, np.log2(max(r["minutes_used"], 0.1) / 2)])
        y.append(test)
        weight.append(1 / counts[r["session"]])
    design, target, w = np.array(x), np.array(y), np.sqrt(np.array(weight))
    loaded = np.concatenate((design * w[:, None], 0.05 * np.eye(3)))
    found = np.linalg.lstsq(loaded, np.concatenate((target * w, 0.05 * np.array([0.0, 1.0, 0.0]))), rcond=None)[0]
    rest = target - design @ found
    low, high = np.quantile(rest, (0.05, 0.95))
    return Expectation(*(float(v) for v in found), float(low), float(high))


def unique_rows(files: Sequence[str]) -> dict[tuple[Any, ...], Any]:
    """The rows of some files, each with a copy as if no member had been trained; repeated ones once."""
    rows = [json.loads(line) for file in files for line in Path(file).read_text().splitlines()]
    rows = [without_training(r) for r in rows if r["budget_s"] > 0] + rows  # a collected row takes a copy's place
    return {(r["session"], r["minutes"], r["kind"], r["known"], r["budget_s"] > 0): r for r in rows}


def run_judge(arguments: argparse.Namespace) -> None:
    """Predicted against achieved R², everything that predicts learned without the session that is predicted."""
    unique = unique_rows(arguments.files)
    for kind, known, trained in sorted({(r["kind"], r["known"], r["budget_s"] > 0) for r in unique.values()}):
        mine = [r for r in unique.values() if (r["kind"], r["known"], r["budget_s"] > 0) == (kind, known, trained)]
        sessions = sorted({r["session"] for r in mine})
        if len(sessions) < LEAST_SESSIONS:
            continue
        missed, inside, spread = [], [], []
        for s in sessions:
            rest = [r for r in mine if r["session"] != s]
            prior = learn(rest, 0.1)
            expected = expectation(rest, [prior] * len(rest))
            for r in mine:
                if r["session"] == s and r["minutes"] >= 1:
                    held_out, achieved = mixed_both(r, prior)
                    middle, low, high = expected.interval(held_out, r["minutes_used"])
                    missed.append(abs(middle - achieved))
                    inside.append(low <= achieved <= high)
                    spread.append(high - low)
        print(
            f"{gate_key(kind, known=known, trained=trained)}: mean |predicted - achieved| {np.mean(missed):.3f}, "
            f"90 % intervals cover {100 * np.mean(inside):.0f} %, mean width {np.mean(spread):.2f} "
            f"({len(sessions)} sessions, {len(missed)} predictions)"
        )


def run_learn(arguments: argparse.Namespace) -> None:
    """Learn priors a kind, tell what each design gives with one session left out, and write them."""
    unique = unique_rows(arguments.files)
    priors: dict[str, Prior] = {}
    expectations: dict[str, Expectation] = {}
    for kind, known, trained in sorted({(r["kind"], r["known"], r["budget_s"] > 0) for r in unique.values()}):
        key = gate_key(kind, known=known, trained=trained)
        mine = [r for r in unique.values() if (r["kind"], r["known"], r["budget_s"] > 0) == (kind, known, trained)]
        sessions = sorted({r["session"] for r in mine})
        if len(sessions) < 2:
            continue
        best: tuple[float, float, list[Prior]] = (-np.inf, 0.1, [])
        for pull in (0.03, 0.1, 0.3, 1.0):
            by_session = {s: learn([r for r in mine if r["session"] != s], pull) for s in sessions}
            out = [by_session[r["session"]] for r in mine]
            score = float(np.mean([mixed_both(r, p)[1] for r, p in zip(mine, out, strict=True)]))
            uniform = np.mean([mixed_both(r, Prior({}, pull))[1] for r in mine])
            print(f"{key} pull {pull}: learned {score:.4f}, uniform {uniform:.4f} ({len(sessions)} sessions)")
            best = max(best, (score, pull, out), key=lambda b: b[0])
        priors[key] = learn(mine, best[1])
        if len(sessions) >= LEAST_SESSIONS:  # an interval from fewer would be made up
            expectations[key] = expectation(mine, best[2])
    for key, prior in priors.items():
        print(
            key,
            prior.pull,
            {m: (round(a, 2), round(b, 2)) for m, (a, b) in prior.scores.items()},
            expectations.get(key),
        )
    if arguments.out:
        recipe, card = load_generalist(arguments.out)
        made = replace(recipe, priors={**recipe.priors, **priors}, expectations={**recipe.expectations, **expectations})
        save_generalist(arguments.out, made, card=card)


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    verbs = parser.add_subparsers(required=True)
    first = verbs.add_parser("collect")
    first.add_argument("--out", required=True)
    first.add_argument("--model", required=True)
    first.add_argument("--name", default="")
    first.add_argument("--sessions", default="validate")
    first.add_argument("--new", action="store_true", help="without any history, as for a new subject")
    first.add_argument("--budget", type=float, default=0.0)
    first.add_argument("--data", type=Path, default=os.environ.get("BETZ_DATA"))
    first.add_argument("--split", type=Path, default=Path(__file__).parent.parent / "benchmarks" / "split.json")
    first.set_defaults(run=run_collect)
    second = verbs.add_parser("learn")
    second.add_argument("files", nargs="+")
    second.add_argument("--out", default="")
    second.set_defaults(run=run_learn)
    third = verbs.add_parser("judge")
    third.add_argument("files", nargs="+")
    third.set_defaults(run=run_judge)
    arguments = parser.parse_args()
    if getattr(arguments, "data", "") is None:
        sys.exit("error: no recordings: give --data DIR or set BETZ_DATA")
    arguments.run(arguments)


if __name__ == "__main__":
    main()
