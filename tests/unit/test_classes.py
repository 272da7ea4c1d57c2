"""Evaluation, runs and reports of discrete behavior, beside continuous behavior."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

import betz
from betz.core.errors import ConfigError, DataError
from betz.core.session import BehaviorDim, Series, Session
from betz.decode.baselines.discrete import LDA
from betz.decode.baselines.wiener import Wiener
from betz.evaluate import verdict
from betz.evaluate.classes import class_scores, most_probable
from betz.evaluate.report import report
from betz.evaluate.results import Row, read_rows, table, table_text
from betz.evaluate.run import Plan, RunError, Task, example, run
from tests.unit.test_discrete import session as grasping
from tests.unit.test_report import Page

FAST = LDA(prefilter_ms=(60,), span_ms=(50,), shrink=(0.1,))
RIDGE = Wiener(lags=3, prefilter_ms=(0,), strengths=(0.1,))


def session(name: str = "grasping", *, seed: int = 0, **changes: Any) -> Session:
    """Grasps, clicks, and a force that follows the grasp."""
    data = grasping(2400, seed=seed, id=name, **changes)
    force = np.convolve(data.behavior_of(["grasp"])[:, 0], np.ones(5) / 5, "same")[:, None]
    return data.with_behavior(Series(force, (BehaviorDim("force", "N"),), 0, data.grid.ticks_per_bin))


def plan(**changes: Any) -> Plan:
    settings: dict[str, Any] = {"decoders": {"lda": FAST}, "tasks": {"grasp": ("grasp",)}, "minutes": (0.5, 1)}
    return Plan(**settings | changes)


def test_scores_of_a_dimension_by_hand() -> None:
    """Ten bins of 100 ms: rest, pinch found late, power taken for pinch, a false pinch; one bin is unknown."""
    dim = BehaviorDim("grasp", "", "discrete", ("rest", "pinch", "power"))
    truth = np.array([0, 0, 1, 1, 1, 0, 2, 2, 0, np.nan, 0, 0])
    found = np.array([0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 1, 0])
    got = class_scores(truth, found, dim=dim, bin_s=0.1)
    assert got.balanced_accuracy == pytest.approx((4 / 6 + 2 / 3 + 0) / 3)
    assert got.chance == pytest.approx(1 / 3)
    # Pinch: events 3–7 (shares bins with the true one) and 10 (false); 8 bins are no pinch. Power: never predicted.
    assert got.false_positives_per_min == pytest.approx(1 / (8 * 0.1 / 60))
    assert (got.events, got.found, got.onset_delay_ms) == (2, 1, pytest.approx(100))


def test_the_most_probable_class_stands_at_its_dimension() -> None:
    behavior = (
        BehaviorDim("grasp", "", "discrete", ("rest", "pinch", "power")),
        BehaviorDim("force", "N"),
        BehaviorDim("click", "", "discrete", ("no", "yes")),
    )
    values = np.array([[0.1, 0.7, 0.2, 99.0, 0.6, 0.4], [0.3, 0.3, 0.4, 99.0, 0.1, 0.9], [np.nan] * 6])
    found = most_probable(values, behavior, ["click", "grasp"])
    assert np.array_equal(found, [[0, 1], [1, 2], [np.nan, np.nan]], equal_nan=True)


def test_evaluation_of_one_decoder() -> None:
    data = session()
    decoder = LDA().calibrate(data.first(minutes=1), behavior=["grasp", "click"])
    test = data.after(minutes=1)
    found = betz.evaluate(decoder, test)
    values = betz.replay(decoder, test).values[0]
    truth = test.behavior_of(["grasp", "click"])
    for k, (name, part) in enumerate((("grasp", values[:, :3]), ("click", values[:, 3:]))):
        assert found.scores.classes is not None
        wanted = balanced_accuracy_score(truth[:, k], part.argmax(axis=1))
        assert found.scores.classes[name].balanced_accuracy == pytest.approx(wanted, abs=1e-12)
    rows = found.rows()
    assert [row["dimension"] for row in rows] == ["all", "grasp", "click"]
    assert rows[0]["balanced_accuracy"] == pytest.approx(np.mean([row["balanced_accuracy"] for row in rows[1:]]))
    assert str(found).startswith("lda on grasping: balanced accuracy 0.9")
    assert np.isnan(found.r2)
    said = verdict.of_evaluation(found).text
    assert f"with a balanced accuracy of {found.scores.headline:.2f}. A perfect decoder has 1, one that guesses" in said
    events = found.scores.classes["click"]
    assert f"Of {events.events} events of click, {events.found} were found, the median one" in said
    assert f"{events.false_positives_per_min:.2g} false ones came a minute." in said


def test_what_cannot_be_scored_is_refused() -> None:
    data = session()
    decoder = FAST.calibrate(data, behavior=["grasp"])
    with pytest.raises(DataError, match="the decoder does not decode 'click'"):
        betz.evaluate(decoder, data, behavior=["click"])
    renamed = (BehaviorDim("grasp", "", "discrete", ("rest", "hook", "power")), data.behavior[0].dims[1])
    other = replace(data, behavior=(replace(data.behavior[0], dims=renamed),))
    with pytest.raises(
        DataError, match=r"'grasp' has the classes \['rest', 'hook', 'power'\] here, the decoder \['rest', 'p"
    ):
        betz.evaluate(decoder, other)
    values = data.behavior[0].values.copy()
    values[:, 0] = 0
    still = replace(data, behavior=(replace(data.behavior[0], values=values),))
    with pytest.raises(DataError, match="no dimension varies in them"):
        betz.evaluate(decoder, still)


def test_discrete_and_continuous_tasks_in_one_run(tmp_path: Path) -> None:
    """Each recipe is given the tasks that it can decode; rows, tables and report keep them apart."""
    tasks = {"grasp": Task(("grasp", "click")), "force": Task(("force",))}
    mixed = plan(decoders={"lda": FAST, "wiener": RIDGE}, tasks=tasks)
    sessions = [session("a"), session("b", seed=1)]
    rows = run(mixed, sessions, out=tmp_path / "results.jsonl", progress=False)
    assert [(r["task"], r["decoder"]) for r in rows[:4]] == [("grasp", "lda"), ("force", "wiener")] * 2
    grasp, force = rows[0], rows[1]
    assert grasp["calibrated_with"] == ["click", "grasp"]
    assert force["calibrated_with"] == ["force"]
    alone = run(plan(decoders={"wiener": RIDGE}, tasks={"force": ("force",)}), sessions[:1], out=tmp_path / "x")
    assert alone[0]["key"] == force["key"], "the other task does not matter to it"
    assert grasp["r2"] is None
    assert set(grasp["balanced_accuracy_dims"]) == set(grasp["false_positives_per_min"]) == {"grasp", "click"}
    assert grasp["balanced_accuracy"] == pytest.approx(np.mean(list(grasp["balanced_accuracy_dims"].values())))
    assert grasp["scored"] + grasp["lost"] + grasp["unlabelled"] == 2400 - 1440
    assert grasp["events"]["click"] >= grasp["found"]["click"] > 0
    assert "balanced_accuracy" not in force
    assert rows == read_rows(tmp_path / "results.jsonl")[0]

    columns = {(c.task, c.minutes): c for c in table(rows)}
    assert columns["grasp", 1.0].measure == "balanced accuracy"
    assert columns["force", 1.0].measure == "R²"
    by_hand = np.mean([r["balanced_accuracy"] for r in rows if r["task"] == "grasp" and r["minutes"] == 1])
    assert columns["grasp", 1.0].mean == pytest.approx(by_hand)
    text = table_text(rows)
    assert "balanced accuracy of grasp" in text
    assert "R² of force" in text

    shown = example(mixed, sessions, rows)
    assert shown is not None
    assert shown.note == "Of 2 sessions the one with the median balanced accuracy."
    page = Page(report(rows, tmp_path / "r.html", evaluations=[shown]).read_text())
    for said in (
        f"reaches a mean balanced accuracy of {columns['grasp', 1.0].mean:.2f}",
        "one that guesses 1 / (number of classes)",
        "Balanced accuracy on the test part by minutes of calibration",
        "false events a minute",
        "events found",
        "R² on the test part by minutes of calibration",
        "balanced accuracy lda",
    ):
        assert said in page.text, said
    assert re.search(r"click .*\d+ of \d+", page.text)
    assert "NaN" not in page.text
    assert " nan" not in page.text


def test_guessing_is_said(tmp_path: Path) -> None:
    data = session()
    assert data.counts is not None
    noise = np.random.default_rng(0).poisson(2, data.counts.shape).astype(np.uint8)
    (row,) = run(plan(minutes=(1,)), [replace(data, counts=noise)], out=tmp_path / "r", progress=False)
    assert row["balanced_accuracy"] < 0.45
    low: Row = row | {"balanced_accuracy": 0.3}
    assert "in 1 of 1 cells the classes are decoded no better than by a guess" in verdict.of_rows([low]).caveats


def test_plans_that_no_decoder_can_carry_out(tmp_path: Path) -> None:
    out = tmp_path / "r"
    with pytest.raises(ConfigError, match=r"no decoder of the plan decodes task 'force'.*continuous behavior: Wiener"):
        run(plan(tasks={"grasp": ("grasp",), "force": ("force",)}), [session()], out=out, progress=False)
    with pytest.raises(ConfigError, match=r"no decoder of the plan decodes task 'both'.*never mixed"):
        run(plan(decoders={"wiener": RIDGE}, tasks={"both": ("grasp", "force")}), [session()], out=out, progress=False)
    tasks = {"grasp": Task(("grasp",), percentile_unit=99)}
    with pytest.raises(RunError, match="a percentile is no unit of classes"):
        run(plan(tasks=tasks), [session()], out=out, progress=False)


def test_a_single_class_in_the_calibration_is_dropped_and_named(tmp_path: Path) -> None:
    data = session()
    values = data.behavior[0].values.copy()
    values[:700, 1] = 0
    data = replace(data, behavior=(replace(data.behavior[0], values=values), *data.behavior[1:]))
    (row,) = run(plan(tasks={"g": ("grasp", "click")}, minutes=(0.5,)), [data], out=tmp_path / "r", progress=False)
    assert row["dims"] == ["grasp"]
    assert row["dropped"] == {"click": "constant in the calibration"}
