"""Trials on an axis of their own, in cells and structs: put one after the other, with edges, and checked one by one."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

import betz
from betz.core.errors import ConfigError
from betz.data.importers import FileError
from tests.unit.layout_files import LENGTHS, TOTAL, TRIAL_N, cell, mat73, poisson, smooth, structs

COUNTS, VELOCITY = poisson(TOTAL, 4), smooth(TOTAL)
STARTS = np.cumsum((0, *LENGTHS))
DIMS = [{"name": "hand_vx", "unit": "cm/s"}, {"name": "hand_vy", "unit": "cm/s"}]
BY_TRIAL: dict[str, Any] = {
    "subject": "M",
    "signals": {"variable": "counts", "axes": ["trial", "time", "channel"]},
    "time": {"bin_ms": 20},
    "behavior": [{"variable": "velocity", "axes": ["trial", "time", "dim"], "dims": DIMS}],
}
TOGETHER: dict[str, Any] = {
    **BY_TRIAL,
    "signals": {"variable": "counts"},
    "behavior": [{"variable": "velocity", "dims": DIMS}],
}


def parts(values: Any) -> list[Any]:
    """Rows of each trial."""
    return [values[a:b] for a, b in pairwise(STARTS)]


def mat(folder: Path, **arrays: Any) -> Path:
    scipy.io.savemat(folder / "a.mat", arrays)
    return folder / "a.mat"


def cells(folder: Path, **changes: Any) -> Path:
    return mat(folder, **{"counts": cell(parts(COUNTS)), "velocity": cell(parts(VELOCITY))} | changes)


def mapped(**changes: Any) -> dict[str, Any]:
    return {**BY_TRIAL, **changes}


def check(session: betz.Session) -> None:
    """The three trials, one after the other."""
    np.testing.assert_array_equal(session.signals, COUNTS)
    np.testing.assert_allclose(session.behavior_of(["hand_vx", "hand_vy"]), VELOCITY, atol=1e-6)
    assert session.segments == tuple(zip(STARTS[:-1].tolist(), STARTS[1:].tolist(), strict=True))
    assert session.trials is not None
    assert session.trials.start.tolist() == session.grid.start_of(STARTS[:-1]).tolist()
    assert session.trials.end.tolist() == session.grid.start_of(STARTS[1:]).tolist()


# ---- the same trials in every form


def test_a_cell_of_trials(tmp_path: Path) -> None:
    check(betz.read(cells(tmp_path), mapping=BY_TRIAL))
    as_column = {name: cell(parts(v), shape=(3, 1)) for name, v in (("counts", COUNTS), ("velocity", VELOCITY))}
    check(betz.read(cells(tmp_path, **as_column), mapping=BY_TRIAL))


def test_transposed_trials(tmp_path: Path) -> None:
    turned = {name: cell([p.T for p in parts(v)]) for name, v in (("counts", COUNTS), ("velocity", VELOCITY))}
    layout = mapped(
        signals={"variable": "counts", "axes": ["channel", "trial", "time"]},
        behavior=[{"variable": "velocity", "axes": ["trial", "dim", "time"], "dims": DIMS}],
    )
    check(betz.read(cells(tmp_path, **turned), mapping=layout))
    with pytest.raises(FileError, match="trial 2 of 'counts' is 4x12, trial 1 is 4x9: they differ in more than") as e:
        betz.read(cells(tmp_path), mapping=layout | {"behavior": []})
    assert e.value.reason == "wrong shape"


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_a_struct_array_of_trials(version: str, tmp_path: Path) -> None:
    elements = [{"c": c, "v": v} for c, v in zip(parts(COUNTS), parts(VELOCITY), strict=True)]
    content = {"data": {"session": {"trial": structs(elements)}}}
    path = mat(tmp_path, **content) if version == "5" else mat73(tmp_path / "a.mat", content)
    layout = mapped(
        signals={"variable": "data.session.trial.c", "axes": ["trial", "time", "channel"]},
        behavior=[{"variable": "data.session.trial.v", "axes": ["trial", "time", "dim"], "dims": DIMS}],
    )
    check(betz.read(path, mapping=layout))
    with pytest.raises(
        FileError, match=r"'data.session.trial' has no field 'x'; it has c, v\. Remedy: correct the name"
    ):
        betz.read(path, mapping=mapped(signals={**layout["signals"], "variable": "data.session.trial.x"}))


def test_padded_trials(tmp_path: Path) -> None:
    longest = max(LENGTHS)
    counts, velocity = np.full((3, longest, 4), 9.0), np.full((3, longest, 2), np.nan)
    for k, (c, v) in enumerate(zip(parts(COUNTS), parts(VELOCITY), strict=True)):
        counts[k, : len(c)], velocity[k, : len(v)] = c, v
    layout = mapped(trials={"rule": "lengths", "variable": "bins"})
    path = mat(tmp_path, counts=counts, velocity=velocity, bins=np.array(LENGTHS))
    session = betz.read(path, mapping=layout)
    check(session)
    assert session.provenance.skipped == {"rows of padding": 3 * longest - TOTAL}
    for bins, text in (
        (np.array([9, 13, 7]), "trial 2 has 12 rows, 'bins' says 13"),
        (np.array([9, 12]), "'bins' has 2 lengths for 3 trials"),
        (np.array([9, 11.5, 7]), r"trial lengths 'bins' are no whole numbers of bins from 0 on \(first: \[9.0, 11.5"),
    ):
        path = mat(tmp_path, counts=counts, velocity=velocity, bins=bins)
        with pytest.raises(FileError, match=text):
            betz.read(path, mapping=layout)


def test_lengths_of_trials_one_after_the_other(tmp_path: Path) -> None:
    layout = TOGETHER | {"trials": {"rule": "lengths", "variable": "bins", "concatenated": True}}
    path = mat(tmp_path, counts=COUNTS, velocity=VELOCITY, bins=np.array([9, 0, 12, 7]))
    session = betz.read(path, mapping=layout)
    check(session)
    assert session.provenance.skipped == {"trials without bins": 1}
    path = mat(tmp_path, counts=COUNTS, velocity=VELOCITY, bins=np.array([9, 12]))
    with pytest.raises(FileError, match="trial lengths 'bins' make 21 bins, the signals have 28"):
        betz.read(path, mapping=layout)


def test_marks_of_the_first_bins(tmp_path: Path) -> None:
    layout = TOGETHER | {"trials": {"rule": "marks", "variable": "new", "concatenated": True}}
    marks = np.isin(np.arange(TOTAL), STARTS)
    check(betz.read(mat(tmp_path, counts=COUNTS, velocity=VELOCITY, new=marks), mapping=layout))
    late = betz.read(mat(tmp_path, counts=COUNTS, velocity=VELOCITY, new=np.arange(TOTAL) == 9), mapping=layout)
    assert len(late.trials or ()) == 1
    assert "9 bins before the first mark belong to no trial" in late.provenance.notes
    with pytest.raises(FileError, match=r"'new' is no mark \(1 or 0\) for each of 28 bins"):
        betz.read(mat(tmp_path, counts=COUNTS, velocity=VELOCITY, new=np.arange(TOTAL)), mapping=layout)


def test_one_trial_alone(tmp_path: Path) -> None:
    path = mat(tmp_path, counts=cell([COUNTS]), velocity=cell([VELOCITY]), target=np.array([[3.0], [4.0]]))
    dims = [{"name": "target_x"}, {"name": "target_y"}]
    layout = mapped(behavior=[{"variable": "target", "axes": ["trial", "dim"], "dims": dims}])
    session = betz.read(path, mapping=layout)
    assert session.segments == ((0, TOTAL),)
    assert np.unique(session.behavior_of(["target_x", "target_y"]), axis=0).tolist() == [[3, 4]]


# ---- what is wrong inside a trial


def test_lengths_inside_a_trial(tmp_path: Path) -> None:
    wrong = parts(VELOCITY)
    wrong[1] = wrong[1][:-2]
    with pytest.raises(FileError, match="trial 2 of 'velocity' has 10 rows, the signals have 12 bins there") as caught:
        betz.read(cells(tmp_path, velocity=cell(wrong)), mapping=BY_TRIAL)
    assert caught.value.reason == "different lengths"
    with pytest.raises(FileError, match="'velocity' has 2 trials, the signals 3"):
        betz.read(cells(tmp_path, velocity=cell(wrong[:2])), mapping=BY_TRIAL)


def test_channels_inside_a_trial(tmp_path: Path) -> None:
    wrong = parts(COUNTS)
    wrong[2] = wrong[2][:, :3]
    with pytest.raises(FileError, match="trial 3 of 'counts' is 7x3, trial 1 is 9x4"):
        betz.read(cells(tmp_path, counts=cell(wrong)), mapping=BY_TRIAL)
    wrong[2] = wrong[2][:, :, None]
    with pytest.raises(FileError, match=r"trial 3 of 'counts' is 7x3x1, the mapping names 2 axes \(time, channel\)|"
                                        "trial 3 of 'counts' is 7x3, trial 1"):  # fmt: skip
        betz.read(cells(tmp_path, counts=cell(wrong)), mapping=BY_TRIAL)


def test_an_empty_trial_is_left_out_and_counted(tmp_path: Path) -> None:
    counts, velocity = parts(COUNTS), parts(VELOCITY)
    counts.insert(1, np.empty((0, 0)))
    velocity.insert(1, np.zeros((5, 2)))
    names = cell(["a", "b", "c", "d"])
    layout = mapped(trials={"rule": "axis", "condition": "names"})
    session = betz.read(cells(tmp_path, counts=cell(counts), velocity=cell(velocity), names=names), mapping=layout)
    check(session)
    assert session.provenance.skipped == {"trials without bins": 1}
    assert "1 of 4 trials have no bins, left out" in session.provenance.notes
    assert session.trials is not None
    assert session.trials.condition == ("a", "c", "d")
    with pytest.raises(FileError, match="it has no bins"):
        betz.read(cells(tmp_path, counts=cell([np.empty((0, 0))]), velocity=cell([np.empty((0, 0))])), mapping=BY_TRIAL)


def test_what_is_no_array_in_a_trial(tmp_path: Path) -> None:
    wrong = parts(COUNTS)
    wrong[1] = "bad"
    with pytest.raises(FileError, match=r"\[signals\] 'counts' is <U3, not numbers"):
        betz.read(cells(tmp_path, counts=cell(wrong)), mapping=BY_TRIAL)
    wrong[1] = {"a": 1.0}
    with pytest.raises(FileError, match=r"'counts' holds a struct, not numbers\. Remedy: name a field"):
        betz.read(cells(tmp_path, counts=cell(wrong)), mapping=BY_TRIAL)
    with pytest.raises(FileError, match=r"variable 'counts' holds 3 arrays, not one\. Remedy: if they are trials"):
        betz.read(cells(tmp_path), mapping=mapped(signals={"variable": "counts"}))


# ---- values at borders, a value a trial, factors


def test_values_at_the_borders_of_bins(tmp_path: Path) -> None:
    border = [np.concatenate(([[np.nan, np.nan]], p)) for p in parts(VELOCITY)]
    layout = mapped(behavior=[{**BY_TRIAL["behavior"][0], "borders": "end"}])
    session = betz.read(cells(tmp_path, velocity=cell(border)), mapping=layout)
    check(session)
    assert session.provenance.skipped == {"behavior rows at a border that is not used": 3}
    start = mapped(behavior=[{**BY_TRIAL["behavior"][0], "borders": "start"}])
    first = betz.read(cells(tmp_path, velocity=cell(border)), mapping=start, nan="mask").behavior_of(["hand_vx"])
    assert np.flatnonzero(np.isnan(first[:, 0])).tolist() == STARTS[:-1].tolist()
    np.testing.assert_allclose(first[1:9, 0], VELOCITY[:8, 0], atol=1e-6)
    with pytest.raises(FileError, match=r"trial 1 of 'velocity' has 10 rows, the signals have 9 bins there. Remedy: if "
                                        'it has values at the borders of bins, say borders = "end"'):  # fmt: skip
        betz.read(cells(tmp_path, velocity=cell(border)), mapping=BY_TRIAL)


def test_a_value_a_trial(tmp_path: Path) -> None:
    targets = np.array([[1.0, 2], [3, 4], [5, 6]])
    dims = [{"name": "target_x", "unit": "mm", "factor": 10}, {"name": "target_y", "unit": "mm", "factor": -1}]
    layout = mapped(behavior=[{"variable": "target", "axes": ["trial", "dim"], "dims": dims}])
    for value in (targets, cell([t[:, None] for t in targets])):
        session = betz.read(mat(tmp_path, counts=cell(parts(COUNTS)), target=value), mapping=layout)
        np.testing.assert_array_equal(session.behavior_of(["target_x", "target_y"]), targets[TRIAL_N] * [10, -1])
    with pytest.raises(FileError, match="'target' has 2 trials, the signals 3"):
        betz.read(mat(tmp_path, counts=cell(parts(COUNTS)), target=cell([np.zeros(2)] * 2)), mapping=layout)


# ---- the table of trials


def test_columns_of_the_table(tmp_path: Path) -> None:
    table = {
        "outcome": cell(["hit", "", "miss"]),
        "target": np.array([[1.0, 2], [3, 4], [5, 6]]),
        "state": cell([np.full((n, 1), k + 0.5) for k, n in enumerate(LENGTHS)]),
        "time": np.arange(TOTAL)[:, None],
    }
    layout = mapped(trials={"rule": "axis", "condition": "outcome", "columns": {name: name for name in table}})
    session = betz.read(cells(tmp_path, **table), mapping=layout)
    assert session.trials is not None
    assert session.trials.condition == ("hit", "", "miss")
    columns = {name: column.tolist() for name, column in session.trials.columns.items()}
    assert columns == {
        "outcome": ["hit", "", "miss"],
        "target": [[1, 2], [3, 4], [5, 6]],
        "state": [0.5, 1.5, 2.5],
        "time": STARTS[:-1].tolist(),
    }
    assert not session.provenance.skipped
    for wrong, text in (
        (np.arange(5.0), "'time' has 5 values, neither one for each of 3 trials nor one for each of 28 bins"),
        (cell(["a", 1.0, "b"]), "'time' has different numbers of values, or texts beside numbers"),
    ):
        with pytest.raises(FileError, match=text):
            betz.read(cells(tmp_path, **{**table, "time": wrong}), mapping=layout)
    with pytest.raises(FileError, match="the condition 'target' has 2 values a trial"):
        betz.read(cells(tmp_path, **table), mapping=mapped(trials={"rule": "axis", "condition": "target"}))


def test_columns_follow_the_trials_that_are_kept(tmp_path: Path) -> None:
    trials = {"rule": "starts", "variable": "start", "unit": "bin", "columns": {"n": "n"}}
    path = mat(tmp_path, counts=COUNTS, velocity=VELOCITY, start=np.array([0, 9, 21, 99]), n=np.arange(4))
    session = betz.read(path, mapping=TOGETHER | {"trials": trials})
    assert session.trials is not None
    assert session.trials.columns["n"].tolist() == [0, 1, 2]
    assert session.provenance.skipped == {"trials outside the bins": 1}


# ---- who moved the cursor


def test_brain_control_a_bin(tmp_path: Path) -> None:
    frozen = np.isin(np.arange(TOTAL), (0, 1, 9, 27))
    layout = TOGETHER | {"brain_control": {"variable": "frozen", "inverted": True}}
    session = betz.read(mat(tmp_path, counts=COUNTS, velocity=VELOCITY, frozen=frozen), mapping=layout)
    np.testing.assert_array_equal(session.brain_control.whole_bins(session.grid, TOTAL), ~frozen)
    plain = TOGETHER | {"brain_control": {"variable": "frozen"}}
    session = betz.read(mat(tmp_path, counts=COUNTS, velocity=VELOCITY, frozen=frozen), mapping=plain)
    np.testing.assert_array_equal(session.brain_control.whole_bins(session.grid, TOTAL), frozen)
    for wrong in (np.arange(TOTAL), frozen[1:]):
        with pytest.raises(FileError, match=r"'frozen' does not say yes or no \(1 or 0\) for each of 28 bins"):
            betz.read(mat(tmp_path, counts=COUNTS, velocity=VELOCITY, frozen=wrong), mapping=layout)


def test_brain_control_from_a_bin_of_each_trial_on(tmp_path: Path) -> None:
    layout = mapped(brain_control={"first_bin": "free"})
    for free in (np.array([3.0, 1, 99]), cell([3.0, 1.0, 99.0])):
        session = betz.read(cells(tmp_path, free=free), mapping=layout)
        found = np.flatnonzero(session.brain_control.whole_bins(session.grid, TOTAL))
        assert found.tolist() == [*range(2, 9), *range(9, 21)]
    for wrong in (np.array([3.0, 0, 2]), np.array([3.0, 1.5, 2]), np.array([1.0, 2])):
        with pytest.raises(FileError, match="'free' does not name a bin, counted from 1, for each of 3 trials"):
            betz.read(cells(tmp_path, free=wrong), mapping=layout)


# ---- mappings that make no sense


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"trials": {"rule": "id_changes", "variable": "x"}}, "'id_changes' has no meaning where the signals have a"),
        ({"trials": {"rule": "lengths"}}, "the rule 'lengths' needs a variable"),
        ({"trials": {"rule": "announced", "variable": "x"}}, "the rule 'announced' needs a next"),
        ({"time": {"bin_ms": 20, "stamps": "t"}}, "stamps have no meaning where trials have an axis"),
        ({"signals": {"variable": "counts", "axes": ["trial", "channel"]}}, "make no signals"),
        ({"brain_control": {}}, "it needs either variable or first_bin"),
        ({"signals": None}, "the mapping names neither signals nor spikes"),
        ({"spikes": {"variable": "x"}}, "the mapping names signals and spikes"),
        ({"behavior": [{**BY_TRIAL["behavior"][0], "transposed": True}]}, "with transposed make no behavior"),
        ({"behavior": [{**BY_TRIAL["behavior"][0], "axes": ["dim"]}]}, r"axes = \['dim'\] make no behavior"),
        ({"sessions": [{"name": "a"}, {"name": "a"}]}, "the session name 'a' is repeated"),
    ],
)
def test_mappings_that_make_no_sense(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=text):
        betz.read(cells(tmp_path), mapping=mapped(**changes))


def test_rules_that_need_a_trial_axis(tmp_path: Path) -> None:
    path = mat(tmp_path, counts=COUNTS, velocity=VELOCITY)
    by_trial = [{**BY_TRIAL["behavior"][0]}]
    for changes, text in (
        ({"trials": {"rule": "axis"}}, "the rule 'axis' needs signals with a trial axis"),
        ({"behavior": by_trial}, "'velocity' has a trial axis, the signals have none"),
        ({"brain_control": {"first_bin": "x"}}, "first_bin has no meaning where the signals have no trial axis"),
    ):
        with pytest.raises(ConfigError, match=text):
            betz.read(path, mapping=TOGETHER | changes)
