"""The public layouts are recognised and become what they are described as; what is wrong in such a file is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import typer
from typer.testing import CliRunner

import betz
from betz.cli import import_
from betz.core.errors import ConfigError
from betz.data.importers import FileError, import_files
from betz.data.store import Store
from tests.unit import layout_files as files
from tests.unit.layout_files import LENGTHS, TOTAL, poisson, smooth

STARTS = np.cumsum((0, *LENGTHS))
COUNTED = {"rates_to_counts": True}


def notes(session: betz.Session) -> str:
    return "\n".join(session.provenance.notes)


def dims(session: betz.Session) -> list[str]:
    return [f"{d.name} {d.unit}" for d in session.dims]


# ---- concatenated trials


def test_chewie(tmp_path: Path) -> None:
    session = betz.read(files.chewie(tmp_path / "c.npz"))
    assert (session.subject, session.bin_ms, session.licence) == ("Chewie", 100, "Apache-2.0")
    assert session.tags == {"date": "2013-10-03"}
    np.testing.assert_array_equal(session.signals, poisson(TOTAL, 5))
    assert {c.kind for c in session.channels} == {"unit"}
    assert dims(session) == ["hand_x cm", "hand_y cm", "hand_vx cm/s", "hand_vy cm/s", "hand_ax cm/s^2",
                             "hand_ay cm/s^2", "force_x a.u.", "force_y a.u."]  # fmt: skip
    assert session.grid.bin_of(session.edges).tolist() == STARTS[1:-1].tolist()
    assert session.trials is not None
    assert session.trials.condition == ("6", "3", "6")
    assert session.trials.columns["number"].tolist() == [0, 1, 4]
    assert session.provenance.options["mapping"] == "chewie100"


def test_dcca(tmp_path: Path) -> None:
    session = betz.read(files.dcca(tmp_path / "d.mat"))
    assert (session.subject, session.bin_ms) == ("monkey M (DCCA)", 50)
    assert session.grid.bin_of(session.edges).tolist() == STARTS[1:-1].tolist()
    assert session.trials is not None
    assert session.trials.columns["target_direction_deg"].tolist() == [-59, 17, 90]
    assert session.trials.columns["number"].tolist() == [1, 2, 5]
    assert "bins are 50 ms wide by what is known of the set; the file does not say it" in notes(session)


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"X": smooth(TOTAL - 1)}, "its layout is not known"),
        ({"IND": None}, "its layout is not known"),
        ({"Target": None}, "its layout is not known"),
        ({"more": np.zeros(3)}, "its layout is not known"),
        (
            {"Target": np.zeros((2, 1))},
            "'Target' has 2 values, neither one for each of 3 trials nor one for each of 28",
        ),
        ({"Z": poisson(TOTAL, 4) / 2}, "'Z' has .* values that are no counts"),
        ({"X": np.full((TOTAL, 2), np.nan)}, "behavior 'X' has NaN"),
    ],
)
def test_wrong_dcca_files(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=text):
        betz.read(files.dcca(tmp_path / "d.mat", **changes))


def test_wrong_chewie_files(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="there is no variable 'bin_s'"):
        betz.read(files.chewie(tmp_path / "c.npz", bin_s=None))
    with pytest.raises(FileError, match="its layout is not known"):
        betz.read(files.chewie(tmp_path / "c.npz", force=smooth(TOTAL - 1)))


# ---- several sessions of rates


def test_each_session_of_the_rates(tmp_path: Path) -> None:
    path = files.dad(tmp_path / "d.mat")
    first, second, third = LENGTHS
    expected = {
        "chewie_20131219": ("Chewie", first, 4, smooth(first + second)[:first], "sd"),
        "chewie_20131003": ("Chewie", second, 5, smooth(first + second)[first:], "sd"),
        "mihi": ("Mihi", third, 6, 8 * smooth(third), "cm/s"),
    }
    for name, (subject, bins, channels, velocity, unit) in expected.items():
        session = betz.read(path, session=name, **COUNTED)
        assert (session.id, session.subject, session.bin_ms) == (f"d_{name}", subject, 200)
        np.testing.assert_array_equal(session.signals, poisson(bins, channels, seed=bins))
        np.testing.assert_allclose(session.behavior_of(["hand_vx", "hand_vy"]), velocity, atol=1e-6)
        assert {d.unit for d in session.dims} == {unit}
        assert session.grid.bin_of(session.edges).tolist() == [4]
        assert session.trials is not None
        assert session.trials.condition == ("2", "5")
        assert "rates in Hz turned back to counts in 200 ms, all whole numbers" in notes(session)
        assert "Ts says 160 ms" in notes(session)
        assert session.provenance.skipped == {"variables not in the mapping": 4}
        assert "left out: C.winSz, Data.Ytest, Ts, Ytest" in notes(session)


def test_a_session_has_to_be_named(tmp_path: Path) -> None:
    path = files.dad(tmp_path / "d.mat")
    with pytest.raises(FileError, match=r"it holds 3 sessions: chewie_20131219 \(Chewie\), chewie_20131003 \(Chewie\), "
                                        r"mihi \(Mihi\)\. Remedy: name one, e\.g\. read\(path, session="):  # fmt: skip
        betz.read(path, **COUNTED)
    with pytest.raises(
        ConfigError, match=r"there is no session 'loco' in it\. Remedy: name one of chewie_20131219, ch"
    ):
        betz.read(path, session="loco", **COUNTED)
    with pytest.raises(
        ConfigError, match=r"there is no session 'x' in it\. Remedy: leave session out: it has a single"
    ):
        betz.read(files.dcca(tmp_path / "e.mat"), session="x")


def test_rates_become_counts_only_if_asked(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"'Data.Y3' holds rates in Hz, not counts\. Remedy: turn them back to counts wi"
                                        r"th rates_to_counts \(--rates-to-counts\)") as caught:  # fmt: skip
        betz.read(files.dad(tmp_path / "d.mat"), session="mihi")
    assert caught.value.reason == "rates"
    odd = poisson(LENGTHS[2], 6) * 5
    odd[3, 2] = 7.5
    with pytest.raises(FileError, match=r"'Data.Y3' has 1 values that are no counts when multiplied by 200 ms \(first: "
                                        r"7.5 at bin 3, channel 2\)"):  # fmt: skip
        betz.read(files.dad(tmp_path / "d.mat", Y3=odd), session="mihi", **COUNTED)
    with pytest.raises(FileError, match="when multiplied by 160 ms"):
        betz.read(files.dad(tmp_path / "d.mat", top={"C": {"delT": 0.16}}), session="mihi", **COUNTED)


def test_the_option_on_a_mapping_of_counts(tmp_path: Path) -> None:
    mapping = {"signals": {"variable": "r"}, "time": {"bin_ms": 50}}
    np.savez(tmp_path / "a.npz", r=poisson(20, 3) * 20)
    np.testing.assert_array_equal(betz.read(tmp_path / "a.npz", mapping=mapping, **COUNTED).signals, poisson(20, 3))
    np.savez(tmp_path / "a.npz", r=poisson(20, 3))
    with pytest.raises(FileError, match="values that are no counts when multiplied by 50 ms"):
        betz.read(tmp_path / "a.npz", mapping=mapping, **COUNTED)


@pytest.mark.parametrize("field", ["Y1", "Xtrain", "Ntest", "Ttest"])
def test_rates_without_a_field(field: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"its layout is not known; it has C \(struct 1x1\), Data"):
        betz.read(files.dad(tmp_path / "d.mat", leave_out=field))


def test_stacked_rows_have_to_fit(tmp_path: Path) -> None:
    path = files.dad(tmp_path / "d.mat", Xtrain=smooth(20))
    with pytest.raises(
        FileError, match=r"counts and behavior have different lengths in bins: counts 9, Data.Xtrain 20"
    ):
        betz.read(path, session="chewie_20131219", **COUNTED)


def test_all_sessions_of_a_file_are_imported(tmp_path: Path) -> None:
    wrong = poisson(LENGTHS[1], 5) * 5 + 1
    path = files.dad(tmp_path / "d.mat", Y2=wrong)
    store = Store(tmp_path / "store", create=True)
    report = import_files([path, files.dcca(tmp_path / "e.mat")], store, options=COUNTED | {"rates_to_counts": True})
    assert report.kept == ("d_chewie_20131219", "d_mihi")
    assert [(f.id, f.reason) for f in report.files] == [
        ("d_chewie_20131219", ""),
        ("d_chewie_20131003", "not counts"),
        ("d_mihi", ""),
        ("e", "not counts"),
    ]
    assert store.ids == report.kept
    assert report.left_out == {"variables not in the mapping": 8}
    again = import_files([path], store, options=COUNTED)
    assert again.skipped == {"already in the store": 2, "not counts": 1}


def test_the_command_imports_all_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files.dad(Path("d.mat"))
    app = typer.Typer()
    app.command()(import_.command)
    done = CliRunner().invoke(app, ["d.mat", "--store", "s"])
    assert done.exit_code == 1
    assert "0 of 3 sessions imported into s\nnot imported: 3 × rates" in done.stdout
    done = CliRunner().invoke(app, ["d.mat", "--store", "s", "--rates-to-counts", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["kept"] == ["d_chewie_20131219", "d_chewie_20131003", "d_mihi"]
    assert {Store("s").get(id_).subject for id_ in Store("s").ids} == {"Chewie", "Mihi"}


# ---- closed loop


def test_redundancy(tmp_path: Path) -> None:
    session = betz.read(files.redundancy(tmp_path / "r.mat"))
    assert (session.bin_ms, session.num_bins, len(session.channels)) == (45, 24, 6)
    assert dims(session) == ["cursor_vx mm/s", "cursor_vy mm/s", "target_direction deg"]
    assert session.segments == ((0, 6), (6, 14), (14, 24))
    velocity = np.random.default_rng(0).normal(size=(14, 2)) * 50
    np.testing.assert_allclose(session.behavior_of(["cursor_vx", "cursor_vy"])[:14], velocity * [1, -1], rtol=1e-5)
    frozen = ~session.brain_control.whole_bins(session.grid, 24)
    assert np.flatnonzero(frozen).tolist() == [0, 1, 14, 15]
    assert session.trials is not None
    assert session.trials.columns["block"].tolist() == [1, 1, 2]
    assert session.trials.columns["starts_frozen"].tolist() == [True, False, True]
    assert session.provenance.skipped == {"variables not in the mapping": 3}
    assert "left out: D.datestr, D.blocks.latents, D.blocks.fDecoder" in notes(session)


def test_redundancy_in_a_single_block(tmp_path: Path) -> None:
    session = betz.read(files.redundancy(tmp_path / "r.mat", blocks=(14,)))
    assert session.segments == ((0, 6), (6, 14))


@pytest.mark.parametrize(
    "change, text",
    [
        (lambda b: b.update(vel=b["vel"][:-1]), "trial 1 of 'D.blocks.vel' has 13 rows, the signals have 14 bins"),
        (lambda b: b.update(velNext=b["velNext"][1:]), "trial 1 of 'D.blocks.velNext' has 13 rows"),
        (lambda b: b.update(spikes=b["spikes"] / 2), "'D.blocks.spikes' has .* values that are no counts"),
        (lambda b: b.update(isFreezePeriod=np.full((14, 1), 2.0)), "does not say yes or no"),
        (lambda b: b.update(thetas=np.full((14, 1), np.nan)), "behavior 'D.blocks.thetas' has NaN"),
    ],
)
def test_wrong_redundancy_files(change: Any, text: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=text):
        betz.read(files.redundancy(tmp_path / "r.mat", change=change))


def test_stabilized(tmp_path: Path) -> None:
    session = betz.read(files.stabilized(tmp_path / "s.mat"))
    assert (session.bin_ms, session.segments) == (45, ((0, 9), (9, 21), (21, 31)))
    assert dims(session) == ["cursor_x mm", "cursor_y mm", "cursor_vx mm/s", "cursor_vy mm/s", "target_x mm",
                             "target_y mm"]  # fmt: skip
    cursor = session.behavior_of(["cursor_x", "cursor_y", "cursor_vx", "cursor_vy"])
    free = session.brain_control.whole_bins(session.grid, 31)
    assert np.flatnonzero(free).tolist() == [6, 7, 8, *range(15, 21), *range(27, 31)]
    moved = np.diff(cursor[:, :2], axis=0, prepend=0)
    np.testing.assert_allclose(moved[free], cursor[free, 2:] * 0.045, atol=1e-3)
    assert session.behavior_of(["target_x"])[[0, 9, 21], 0].tolist() == [pytest.approx(88.4), 0, pytest.approx(88.4)]
    trials = session.trials
    assert trials is not None
    assert trials.condition == ("baselineEvaluation",) * 3
    assert trials.columns["number"].tolist() == [2, 3, 4]
    assert trials.columns["perturbed"].tolist() == [False, True, False]
    assert session.provenance.options["perturbation"] == {
        "swaps": {"ch2": "ch5"},
        "offsets": {"ch1": 0.5, "ch2": 0.25},
        "silent": ["ch4"],
    }
    assert session.provenance.skipped == {
        "trials without bins": 1,
        "behavior rows at a border that is not used": 3,
        "variables not in the mapping": 1,
    }


def _shorter(name: str) -> Any:
    def change(trials: list[dict[str, Any]]) -> None:
        trials[2][name] = trials[2][name][:-1]

    return change


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"change": _shorter("decodedVl")}, "trial 3 of 'trialData.decodedVl' has 11 rows, the signals have 12 bins"),
        ({"change": _shorter("refPos")}, "trial 3 of 'trialData.refPos' has 11 rows, the signals have 12 bins"),
        ({"change": _shorter("tgtPos")}, "trial 3 of 'trialData.tgtPos' is 1x1|differ in more than their length"),
        ({"change": lambda t: t[1].update(moveBin=np.array([[0.0]]))}, "does not name a bin, counted from 1"),
        ({"pert_trials": (3.0, 77.0)}, r"'pertTrials' names 1 trials that are not there \(first: 77\)"),
        ({"pert": {"offsets": np.zeros((2, 1))}}, "'pertParams' does not fit 5 channels"),
        ({"pert": {"baseElectrodes": np.array([[1.0, 2, 9]])}}, "'pertParams' does not fit 5 channels"),
        ({"pert": {"silentChs": np.array([[0.0], [2.0], [0.0]])}}, "'pertParams' does not fit 5 channels"),
        ({"leave_out": "pertTrials"}, "its layout is not known"),
        ({"lengths": (0, 0)}, "it has no bins"),
    ],
)
def test_wrong_stabilized_files(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=text):
        betz.read(files.stabilized(tmp_path / "s.mat", **changes))


# ---- a file with trials keeps them through a store


@pytest.mark.parametrize("make", [files.chewie, files.dcca, files.redundancy, files.stabilized, files.joystick])
def test_through_a_store(make: Any, tmp_path: Path) -> None:
    path = make(tmp_path / ("a.npz" if make is files.chewie else "a.mat"))
    store = Store(tmp_path / "store", create=True)
    assert import_files([path], store).kept == ("a",)
    session, stored = betz.read(path), store.get("a")
    store.verify("a")
    np.testing.assert_array_equal(stored.signals, session.signals)
    assert stored.edges.tolist() == session.edges.tolist()
    assert stored.brain_control == session.brain_control
    assert stored.provenance == session.provenance
    assert stored.dims == session.dims


def test_a_known_layout_is_not_found_in_other_files(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"D": {"blocks": {"spikes": poisson(5, 3)}}})
    with pytest.raises(FileError, match=r"its layout is not known; it has D \(struct 1x1\)"):
        betz.read(tmp_path / "a.mat")
