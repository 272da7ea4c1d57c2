"""Evaluation and runs: what is cut, scored, counted, kept and taken up again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from sklearn.metrics import r2_score

import betz
from betz.core.config import frozen_config
from betz.core.errors import ConfigError, DataError, StreamError
from betz.core.intervals import Intervals
from betz.core.session import BehaviorDim, Channel, Series, Session
from betz.core.timegrid import BinGrid
from betz.decode.baselines.wiener import Wiener, WienerDecoder
from betz.evaluate.replay import replay
from betz.evaluate.results import Row, append_row, content_hash, read_rows, table
from betz.evaluate.run import Plan, RunError, Task, example, run
from betz.evaluate.score import score, settled, velocity_groups

VELOCITY = ("hand_vx", "hand_vy")
FAST = Wiener(lags=3, prefilter_ms=(0,), strengths=(0.1,))


def session(
    name: str = "made-up",
    *,
    bins: int = 1500,
    seed: int = 0,
    grip: float = 1.0,
    edges: Sequence[int] = (),
    **changes: Any,
) -> Session:
    """Two minutes and a half of 100 ms bins, with velocity in cm/s and a grip force in N."""
    rng = np.random.default_rng(seed)
    grid = BinGrid(1000, 100)
    moved = np.stack([np.convolve(rng.normal(size=bins), np.ones(9) / 3, "same") for _ in range(3)], axis=1)
    counts = rng.poisson(np.exp(0.5 * moved @ rng.normal(size=(3, 8)))).astype(np.uint8)
    velocity = (BehaviorDim("hand_vx", "cm/s"), BehaviorDim("hand_vy", "cm/s"))
    made = Session(
        id=name,
        subject="nobody",
        grid=grid,
        num_bins=bins,
        channels=tuple(Channel(f"c{i}") for i in range(8)),
        counts=counts,
        behavior=(
            Series(moved[:, :2].copy(), velocity, 0, 100),
            Series(grip * moved[:, 2:] ** 2, (BehaviorDim("grip", "N"),), 0, 100),
        ),
        edges=np.asarray(edges, dtype=np.int64) * 100,
    )
    return replace(made, **changes)


@dataclass(frozen=True)
class Spy:
    """The fast Wiener filter, keeping what it was given."""

    fails_on: str = ""
    calls: ClassVar[list[tuple[Session, tuple[str, ...], int]]] = []

    def calibrate(
        self,
        session: Session,
        *,
        behavior: Sequence[str],
        budget_s: float | None = None,
        history: Any = None,
        seed: int = 0,
    ) -> WienerDecoder:
        self.calls.append((session, tuple(behavior), seed))
        if session.id == self.fails_on:
            raise ZeroDivisionError("the spy was caught")
        return FAST.calibrate(session, behavior=behavior)


@pytest.fixture(autouse=True)
def _forget() -> None:
    Spy.calls.clear()


def plan(**changes: Any) -> Plan:
    settings: dict[str, Any] = {"decoders": {"spy": Spy()}, "tasks": {"velocity": VELOCITY}, "minutes": (0.5,)}
    return Plan(**settings | changes)


def results(plan: Plan, sessions: Sequence[Session], folder: Path) -> list[Row]:
    return run(plan, sessions, out=folder / "results.jsonl", progress=False)


# ---- what is cut and scored


def test_calibration_warm_up_and_test_part(tmp_path: Path) -> None:
    """60 / 40, the replay starts 200 bins (20 s) before the test part, and the score is scikit-learn's."""
    data = session()
    rows = results(plan(minutes=(0.5, 10.0)), [data], tmp_path)
    assert [(part.num_bins, part.grid.origin_tick) for part, _, _ in Spy.calls] == [(300, 0), (900, 0)]
    assert [row["minutes_used"] for row in rows] == [0.5, 1.5]
    for row, part in zip(rows, (data.between(0, 300), data.between(0, 900)), strict=True):
        decoded = replay(FAST.calibrate(part, behavior=VELOCITY), data.between(700, 1500)).values[0, 200:]
        truth = data.behavior_of(VELOCITY)[900:]
        assert row["r2"] == pytest.approx(r2_score(truth, decoded, multioutput="variance_weighted"), abs=1e-12)
        assert list(row["r2_dims"].values()) == pytest.approx(r2_score(truth, decoded, multioutput="raw_values"))
        assert (row["scored"], row["lost"], row["unlabelled"]) == (600, 0, 0)
        assert row["test_minutes"] == pytest.approx(1.0)
        assert row["dims"] == list(VELOCITY)
        assert row["units"] == ["cm/s", "cm/s"]
        assert row["calibrate_s"] > 0
        assert 0 < row["push_p50_ms"] <= row["push_p99_ms"]
        assert row["error"] is None


def test_nothing_of_the_test_part_reaches_the_decoder(tmp_path: Path) -> None:
    """A test part turned around in time is decoded by the same decoder: R² changes, the calibration does not."""
    data = session()
    assert data.counts is not None
    broken = data.counts.copy()
    broken[900:] = broken[900:][::-1]
    results(plan(minutes=(10.0,)), [data, replace(data, id="broken", counts=broken)], tmp_path)
    (one, _, _), (other, _, _) = Spy.calls
    np.testing.assert_array_equal(one.signals, other.signals)


def test_all_tasks_of_a_session_are_calibrated_in_one_call(tmp_path: Path) -> None:
    tasks = {"velocity": Task(("hand_v*",)), "grip": Task(("grip",)), "all": Task(("*",))}
    rows = results(plan(tasks=tasks), [session()], tmp_path)
    assert [names for _, names, _ in Spy.calls] == [("hand_vx", "hand_vy", "grip")]
    assert [row["dims"] for row in rows] == [["hand_vx", "hand_vy"], ["grip"], ["hand_vx", "hand_vy", "grip"]]


def test_lost_and_unlabelled_bins_are_counted_not_scored(tmp_path: Path) -> None:
    data = session(valid=Intervals.of([(0, 100_000), (101_000, 150_000)]))
    labels = data.behavior[0].values.copy()
    labels[1200:1230, 1] = np.nan
    labels[1005:1012] = np.nan  # of these, 5 bins are lost as well: every bin is counted once
    data = replace(data, behavior=(replace(data.behavior[0], values=labels), data.behavior[1]))
    (row,) = results(plan(), [data], tmp_path)
    assert (row["scored"], row["lost"], row["unlabelled"]) == (600 - 10 - 32, 10, 32)


def test_dimensions_without_variance_in_the_calibration_are_dropped_and_named(tmp_path: Path) -> None:
    data = session()
    labels = data.behavior[0].values.copy()
    labels[:320, 0] = 3.0
    labels[:310, 1] = np.nan
    data = replace(data, behavior=(replace(data.behavior[0], values=labels), data.behavior[1]))
    tasks = {"all": Task((*VELOCITY, "grip")), "velocity": Task(VELOCITY)}
    with pytest.raises(RunError, match="1 of 4 results are errors") as caught:
        results(plan(tasks=tasks, minutes=(0.5, 1.5)), [data], tmp_path)
    first, none, later, both = caught.value.rows
    assert first["dims"] == ["grip"]
    assert first["dropped"] == {"hand_vx": "constant in the calibration", "hand_vy": "no labels in the calibration"}
    assert none["error"].startswith("session made-up, task velocity: every dimension is left out")
    assert later["dims"] == [*VELOCITY, "grip"]
    assert both["dropped"] == {}


def test_a_percentile_is_the_unit_of_the_score_only(tmp_path: Path) -> None:
    """A loud dimension dominates plain R², not the one in units of percentiles; the decoder sees raw behavior."""
    data = session(grip=1000.0)
    tasks = {"plain": Task(("grip", "hand_vx")), "scaled": Task(("grip", "hand_vx"), percentile_unit=99)}
    plain, scaled = results(plan(tasks=tasks), [data], tmp_path)
    truth = data.behavior_of(["grip", "hand_vx"])
    part, names, _ = Spy.calls[0]
    np.testing.assert_array_equal(part.behavior_of(["grip", "hand_vx"]), truth[:300])
    decoded = replay(FAST.calibrate(part, behavior=names), data.between(700, 1500)).values[0, 200:]
    unit = np.percentile(truth, 99, axis=0)
    wanted = r2_score(truth[900:] / unit, decoded / unit, multioutput="variance_weighted")
    assert scaled["r2"] == pytest.approx(wanted, abs=1e-12)
    assert abs(scaled["r2"] - plain["r2"]) > 0.05
    assert scaled["r2_dims"] == pytest.approx(plain["r2_dims"])


def test_edges_are_restarted_at_or_crossed(tmp_path: Path) -> None:
    trials = session(edges=range(15, 1500, 15))
    one, other = results(plan(edges=("restart", "cross")), [trials], tmp_path)
    assert (one["edges"], other["edges"]) == ("restart", "cross")
    assert [len(part.edges) for part, _, _ in Spy.calls] == [99, 0]
    assert one["r2"] != other["r2"]
    for row in (one, other):
        assert row["settled"] == 600 // 3, "5 of 15 bins start at least 1 s after the last edge"
        assert row["r2_settled"] is not None
    (plain,) = results(plan(edges=("restart", "cross")), [session("no-edges")], tmp_path)
    assert plain["edges"] == "none"
    assert plain["r2_settled"] is None


def test_a_bin_is_settled_one_second_after_the_last_edge() -> None:
    grid = BinGrid(1000, 100)
    data = replace(session(bins=60), edges=np.array([1000, 2050], dtype=np.int64))
    found = settled(data, data.edges)
    assert np.flatnonzero(found).tolist() == [*range(20, 21), *range(31, 60)]
    assert grid.bin_ms == 100
    view = data.between(25, 60)
    np.testing.assert_array_equal(settled(view, view.edges), found[25:])


def test_fixed_decoders_are_not_calibrated(tmp_path: Path) -> None:
    data = session()
    fixed = FAST.calibrate(data.first(minutes=1), behavior=VELOCITY)
    found = results(plan(decoders={"fixed": fixed, "spy": Spy()}, minutes=(0.5, 1.0), seeds=(0, 1)), [data], tmp_path)
    assert [(r["decoder"], r["minutes"], r["seed"]) for r in found] == [
        ("fixed", 0.0, 0),
        *(("spy", m, s) for m in (0.5, 1.0) for s in (0, 1)),
    ]
    assert found[0]["minutes_used"] == found[0]["calibrate_s"] == 0
    assert found[0]["r2"] == found[3]["r2"]


# ---- what is kept


def test_a_finished_run_computes_nothing_again(tmp_path: Path) -> None:
    data, out = session(), tmp_path / "results.jsonl"
    first = run(plan(seeds=(0, 1)), [data], out=out, progress=False)
    before = out.read_bytes()
    Spy.calls.clear()
    again = run(plan(seeds=(0, 1)), [data], out=out, progress=False)
    assert not Spy.calls
    assert again.resumed == 2
    assert again == read_rows(out)[0]
    assert [r["key"] for r in again] == [r["key"] for r in first]
    assert out.read_bytes() == before
    run(plan(seeds=(0, 1, 2)), [data], out=out, progress=False)
    assert [seed for _, _, seed in Spy.calls] == [2]


@frozen_config
class Tuned:
    """A recipe with a setting."""

    strength: float = 0.1

    def calibrate(self, session: Session, *, behavior: Sequence[str], seed: int = 0) -> WienerDecoder:
        return Wiener(lags=3, prefilter_ms=(0,), strengths=(self.strength,)).calibrate(session, behavior=behavior)


@pytest.mark.parametrize(
    "change",
    [
        {"decoders": {"spy": Tuned(strength=1)}},
        {"tasks": {"velocity": Task(VELOCITY, percentile_unit=99)}},
        {"tasks": {"velocity": Task(("hand_vx",))}},
        {"tasks": {"velocity": Task(VELOCITY), "grip": Task(("grip",))}},
        {"minutes": (0.6,)},
        {"seeds": (3,)},
        {"push_bins": 4},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_matters_is_part_of_the_key(change: dict[str, Any], tmp_path: Path) -> None:
    base: dict[str, Any] = {"decoders": {"spy": Tuned()}}
    (before,) = results(plan(**base), [session()], tmp_path)
    after = run(plan(**base | change), [session()], out=tmp_path / "results.jsonl", progress=False)
    assert after.resumed == 0
    assert before["key"] not in {row["key"] for row in after}


def test_changed_content_is_computed_anew(tmp_path: Path) -> None:
    data = session()
    results(plan(), [data], tmp_path)
    assert data.counts is not None
    counts = data.counts.copy()
    counts[1400, 3] += 1
    assert content_hash(replace(data, counts=counts)) != content_hash(data) == content_hash(session())
    assert run(plan(), [replace(data, counts=counts)], out=tmp_path / "results.jsonl", progress=False).resumed == 0


def test_a_torn_last_line_is_counted_and_computed_again(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    results(plan(seeds=(0, 1)), [session()], tmp_path)
    out.write_bytes(out.read_bytes()[:-40])
    Spy.calls.clear()
    found = run(plan(seeds=(0, 1)), [session()], out=out, progress=False)
    assert (found.torn, found.resumed, [seed for _, _, seed in Spy.calls]) == (1, 1, [1])
    rows, torn = read_rows(out)
    assert (len(rows), torn) == (2, 1)
    assert run(plan(seeds=(0, 1)), [session()], out=out, progress=False).resumed == 2


def test_another_file_is_not_taken_for_results(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    out.write_text('{"a": 1}\n')
    with pytest.raises(DataError, match=r"results.jsonl, line 1: this line is no row of results"):
        run(plan(), [session()], out=out, progress=False)
    assert out.read_text() == '{"a": 1}\n'


def test_rows_are_strict_json(tmp_path: Path) -> None:
    append_row(tmp_path / "rows", {"key": "k", "format": 1, "r2": float("nan"), "n": np.int64(3), "a": np.array([1.5])})
    assert json.loads((tmp_path / "rows").read_text()) == {"key": "k", "format": 1, "r2": None, "n": 3, "a": [1.5]}


def test_what_is_not_defined_is_null_in_the_run_and_in_the_file(tmp_path: Path) -> None:
    """A dimension that stands still in the test part has no R² and no correlation; the others have."""
    data = session()
    labels = data.behavior[0].values.copy()
    labels[900:, 1] = 2.0
    data = replace(data, behavior=(replace(data.behavior[0], values=labels), data.behavior[1]))
    rows = results(plan(), [data], tmp_path)
    assert rows == read_rows(tmp_path / "results.jsonl")[0]
    assert rows[0]["r2_dims"]["hand_vy"] is rows[0]["correlation"]["hand_vy"] is None
    assert rows[0]["r2_dims"]["hand_vx"] > 0


def test_a_folder_is_no_results_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it cannot be read"):
        run(plan(), [session()], out=tmp_path, progress=False)


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"could not be written|bytes of a result were written"):
        append_row(Path("/dev/full"), {"key": "k", "format": 1})


def test_errors_are_rows_and_raised_at_the_end(tmp_path: Path) -> None:
    sessions = [session("good"), session("bad"), session("fine")]
    out = tmp_path / "results.jsonl"
    with pytest.raises(
        RunError, match=r"results.jsonl: 1 of 3 results are errors: ZeroDivisionError: the spy was caught"
    ) as caught:
        run(plan(decoders={"spy": Spy(fails_on="bad")}), sessions, out=out, progress=False)
    good, bad, fine = caught.value.rows
    assert good["error"] is fine["error"] is None
    assert "in calibrate" in bad["traceback"]
    assert "r2" not in bad
    Spy.calls.clear()
    with pytest.raises(RunError, match="1 of 3 results are errors"):
        run(plan(decoders={"spy": Spy(fails_on="bad")}), sessions, out=out, progress=False)
    assert [part.id for part, _, _ in Spy.calls] == ["bad"], "only the failed one is tried again"


def test_tasks_that_a_session_lacks_are_said(tmp_path: Path) -> None:
    plain = replace(session("plain"), behavior=session().behavior[:1])
    tasks = {"velocity": Task(VELOCITY), "grip": Task(("grip",))}
    found = run(plan(tasks=tasks), [plain, session("full")], out=tmp_path / "r", progress=False)
    assert found.absent == {"velocity": (), "grip": ("plain",)}
    assert [(r["session"], r["task"]) for r in found] == [
        ("plain", "velocity"),
        ("full", "velocity"),
        ("full", "grip"),
    ]
    with pytest.raises(ConfigError, match=r"no session has the behavior of task 'emg' \(emg_\*\).*plain has hand_vx"):
        run(plan(tasks={"emg": Task(("emg_*",))}), [plain], out=tmp_path / "r", progress=False)


@pytest.mark.parametrize(
    "change, text",
    [
        ({"minutes": ()}, "minutes is empty"),
        ({"minutes": (0,)}, "minutes must be above 0"),
        ({"push_bins": 0}, "push_bins at least 1"),
        ({"edges": ("jump",)}, "edges.0: Input should be 'restart' or 'cross'"),
        ({"decoders": {"x": object()}}, "object is neither a recipe .* nor a decoder"),
        ({"colour": "red"}, "colour: Unexpected keyword argument"),
    ],
)
def test_a_wrong_plan_is_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        plan(**change)


def test_a_wrong_task_is_refused() -> None:
    with pytest.raises(ConfigError, match="it needs a behavior, and a percentile in"):
        Task(())
    for percentile in (0, 101):
        with pytest.raises(ConfigError, match="it needs a behavior, and a percentile in"):
            Task(("x",), percentile_unit=percentile)


def test_names_with_brackets_are_names() -> None:
    data = session()
    dims = (BehaviorDim("emg[1]", "mV"), BehaviorDim("emg[2]", "mV"))
    data = replace(data, behavior=(replace(data.behavior[0], dims=dims),))
    assert Task(("emg[2]",)).names_in(data) == ["emg[2]"]
    assert Task(("emg*",)).names_in(data) == ["emg[1]", "emg[2]"]
    assert Task(("emg*", "grip")).names_in(data) == []


def test_a_session_is_given_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sessions given twice: made-up"):
        run(plan(), [session(), session()], out=tmp_path / "r", progress=False)
    with pytest.raises(ConfigError, match="there is no session"):
        run(plan(), [], out=tmp_path / "r", progress=False)


# ---- the table


def test_the_table_is_mean_and_sd_over_sessions_of_seed_means() -> None:
    def row(name: str, seed: int, r2: float, used: float, **changes: Any) -> Row:
        base = {"task": "t", "edges": "none", "decoder": "d", "minutes": 5.0, "session": name, "seed": seed}
        return base | {"r2": r2, "r2_settled": None, "minutes_used": used, "error": None} | changes

    rows = [
        row("a", 0, 0.1, 5.0),
        row("a", 1, 0.3, 5.0),
        row("b", 0, 0.6, 3.8),
        row("b", 1, 0.6, 3.8),
        row("c", 0, 0.0, 0.0, error="it broke"),
        row("a", 0, 0.9, 1.0, minutes=1.0),
    ]
    one, five = table(rows)
    assert (five.mean, five.sd) == (pytest.approx(0.4), pytest.approx(np.std([0.2, 0.6], ddof=1)))
    assert five.seed_sd == pytest.approx(np.std([0.1, 0.3], ddof=1) / 2)
    assert (five.sessions, five.seeds, five.failed) == (2, 2, 1)
    assert five.minutes_used == pytest.approx(4.4)
    assert five.short, "4.4 of 5 minutes are less than 90 %"
    assert (one.minutes, one.mean, one.sd, one.seed_sd, one.short) == (1.0, 0.9, None, None, False)
    assert not table([row("a", 0, 0.1, 4.6)])[0].short


# ---- one decoder on one session


def test_the_package_is_the_function() -> None:
    """Importing parts of the package binds its name; the name must stay callable."""
    import betz.evaluate.report

    data = session()
    decoder = FAST.calibrate(data.first(minutes=1), behavior=VELOCITY)
    found = betz.evaluate(decoder, data.after(minutes=1))
    decoded = replay(decoder, data.after(minutes=1)).values[0]
    truth = data.behavior_of(VELOCITY)[600:]
    assert found.r2 == pytest.approx(r2_score(truth, decoded, multioutput="variance_weighted"), abs=1e-12)
    assert found.scores.interval is not None
    low, high = found.scores.interval
    assert low < found.r2 < high
    assert [row["dimension"] for row in found.rows()] == ["all", *VELOCITY]
    assert found.rows()[2]["r2"] == pytest.approx(r2_score(truth[:, 1], decoded[:, 1]))
    assert str(found).startswith("wiener on made-up: R² 0.")
    assert "900 bins scored, 0 lost, 0 unlabelled" in str(found)


def test_the_angle_is_that_of_fast_movement() -> None:
    """Fast bins are decoded 90° off, slow ones rightly: the slow half does not count."""
    dims = (BehaviorDim("hand_vx", "cm/s"), BehaviorDim("grip", "N"), BehaviorDim("hand_vy", "cm/s"))
    truth = np.tile([[1.0, 0.0, 0.0], [0.0, 1.0, 9.0], [0.0, 2.0, 8.0], [0.5, 3.0, 0.0]], (5, 1))
    decoded = truth.copy()
    decoded[1::4], decoded[2::4] = [5.0, 0.0, 0.0], [-5.0, 0.0, 0.0]
    found, _ = score(truth, decoded, np.ones(20, dtype=bool), dims=dims, bin_s=0.1)
    assert found.angle_deg == {"hand_v": pytest.approx(90.0)}


def test_velocity_groups_share_stem_and_unit() -> None:
    names = [("hand_x", "cm"), ("hand_vx", "cm/s"), ("hand_vz", "cm/s"), ("eye_vx", "deg/s"), ("hand_vy", "mm/s")]
    assert velocity_groups([BehaviorDim(*pair) for pair in names]) == {"hand_v": [1, 2]}


def test_what_cannot_be_scored_is_refused() -> None:
    data = session()
    decoder = FAST.calibrate(data, behavior=VELOCITY)
    with pytest.raises(DataError, match=r"the decoder does not decode 'grip'.*it decodes hand_vx, hand_vy"):
        betz.evaluate(decoder, data, behavior=["grip"])
    metres = replace(
        data,
        behavior=(
            replace(data.behavior[0], dims=(BehaviorDim("hand_vx", "m/s"),) * 1, values=data.behavior[0].values[:, :1]),
        ),
    )
    with pytest.raises(DataError, match="'hand_vx' is in 'm/s' here, but the decoder gives 'cm/s'"):
        betz.evaluate(decoder, metres, behavior=["hand_vx"])
    unlabelled = replace(data, behavior=(replace(data.behavior[0], values=np.full((1500, 2), np.nan)),))
    with pytest.raises(DataError, match=r"0 of 1500 test bins can be scored \(0 lost, 1500 unlabelled\)"):
        betz.evaluate(decoder, unlabelled)
    still = replace(data, behavior=(replace(data.behavior[0], values=np.ones((1500, 2))),))
    with pytest.raises(DataError, match=r"1500 of 1500 test bins can be scored .* and no dimension varies in them"):
        betz.evaluate(decoder, still)
    with pytest.raises(StreamError, match="its channels are not the decoder's"):
        betz.evaluate(decoder, replace(data, channels=tuple(Channel(f"x{i}") for i in range(8))))


def test_test_bins_of_the_calibration_are_counted() -> None:
    data = session()
    decoder = FAST.calibrate(data.first(minutes=1), behavior=VELOCITY)
    decoder.report["span"] = list(data.first(minutes=1).span)
    assert betz.evaluate(decoder, data).overlap_bins == 600
    assert betz.evaluate(decoder, data.after(minutes=0.5)).overlap_bins == 300
    assert betz.evaluate(decoder, data.after(minutes=1)).overlap_bins == 0
    assert betz.evaluate(decoder, replace(data, id="other")).overlap_bins == 0


def test_the_example_is_the_session_with_the_median_score(tmp_path: Path) -> None:
    sessions = [session(f"s{i}", seed=i) for i in range(3)]
    rows = results(plan(minutes=(0.5, 1.0)), sessions, tmp_path)
    found = example(plan(minutes=(0.5, 1.0)), sessions, rows)
    assert found is not None
    row = sorted((r for r in rows if r["minutes"] == 1.0), key=lambda r: r["r2"])[1]
    assert (found.session, found.decoder) == (row["session"], "spy")
    assert found.r2 == pytest.approx(row["r2"], abs=1e-12)
    assert found.test_N.sum() == found.scored_N.sum() == 600
    assert found.note == "Of 3 sessions the one with the median R²."
    assert example(plan(), sessions, [row | {"error": "it broke"}]) is None


def test_several_jobs_give_the_rows_of_one(tmp_path: Path) -> None:
    plan = Plan(decoders={"fast": FAST}, tasks={"velocity": VELOCITY}, minutes=(0.5, 1))
    sessions = [session("a"), session("b", seed=1)]
    one = run(plan, sessions, out=tmp_path / "one.jsonl", progress=False)
    two = run(plan, sessions, out=tmp_path / "two.jsonl", jobs=2, progress=False)
    assert [(r["key"], r["r2"]) for r in one] == [(r["key"], r["r2"]) for r in two]
    assert len(read_rows(tmp_path / "two.jsonl")[0]) == 4
    assert run(plan, sessions, out=tmp_path / "two.jsonl", jobs=2, progress=False).resumed == 4


def test_no_job_is_refused(tmp_path: Path) -> None:
    plan = Plan(decoders={"fast": FAST}, tasks={"velocity": VELOCITY}, minutes=(1,))
    with pytest.raises(ConfigError, match="0 jobs cannot do anything"):
        run(plan, [session()], out=tmp_path / "rows.jsonl", jobs=0, progress=False)
