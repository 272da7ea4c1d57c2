"""``trial_data`` tables and ``xds`` structs: areas apart, spikes at their ticks, behavior and trials by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

import betz
from betz.data.importers import FileError
from tests.unit.layout_files import LENGTHS, TOTAL, cell, mat73, poisson, smooth, structs

EDGES = np.cumsum(LENGTHS)


def trials(**changes: Any) -> list[dict[str, Any]]:
    """A ``trial_data`` table with M1 (4 units on 3 electrodes) and PMd (2), as PyalData saves it."""
    out = []
    for k, (rows, end) in enumerate(zip(LENGTHS, EDGES, strict=True)):
        part = slice(end - rows, end)
        out.append(
            {
                "monkey": "Mihi",
                "date": "03/17/2026",
                "task": "CO",
                "result": "RFR"[k],
                "bin_size": 0.03,
                "trial_id": k + 7.0,
                "target_direction": [0.0, 1.5, 3.0][k],
                "idx_go_cue": [3.0, 4.0, np.nan][k],
                "pos": smooth(TOTAL)[part],
                "vel": 2 * smooth(TOTAL)[part],
                "M1_spikes": poisson(TOTAL, 4)[part],
                "PMd_spikes": poisson(TOTAL, 2, seed=1)[part],
                "M1_unit_guide": np.array([[1, 0], [1, 2], [5, 1], [9, 0]]),
                "PMd_unit_guide": np.array([[1, 1], [2, 1]]),
                "M1_rates": smooth(TOTAL, 4)[part],
            }
            | changes
        )
    return out


def notes(session: betz.Session) -> str:
    return "\n".join(session.provenance.notes)


def saved(path: Path, rows: list[dict[str, Any]]) -> Path:
    scipy.io.savemat(path, {"trial_data": structs(rows)})
    return path


def test_trial_data(tmp_path: Path) -> None:
    session = betz.read(saved(tmp_path / "td.mat", trials()))
    assert (session.subject, session.task, session.tags) == ("Mihi", "CO", {"date": "2026-03-17"})
    assert (session.bin_ms, session.num_bins) == (30, TOTAL)
    assert [(c.id, c.kind, c.array) for c in session.channels] == [
        ("M1_ch1", "crossings", "M1"), ("M1_ch1u2", "unit", "M1"), ("M1_ch5u1", "unit", "M1"),
        ("M1_ch9", "crossings", "M1"), ("PMd_ch1u1", "unit", "PMd"), ("PMd_ch2u1", "unit", "PMd"),
    ]  # fmt: skip
    np.testing.assert_array_equal(session.signals[:, :4], poisson(TOTAL, 4))
    np.testing.assert_array_equal(session.signals[:, 4:], poisson(TOTAL, 2, seed=1))
    assert [f"{d.name} {d.unit}" for d in session.dims] == ["hand_x cm", "hand_y cm", "hand_vx cm/s", "hand_vy cm/s"]
    np.testing.assert_allclose(session.behavior_of(["hand_vy"])[:, 0], 2 * smooth(TOTAL)[:, 1], rtol=1e-6)
    table = session.trials
    assert table is not None
    assert table.condition == ("0", "1.5", "3")
    assert table.columns["result"].tolist() == ["R", "F", "R"]
    assert table.columns["trial_id"].tolist() == [7, 8, 9]
    np.testing.assert_allclose(table.columns["go_cue_s"], [2 * 0.03, (9 + 3) * 0.03, np.nan])
    assert session.edges.tolist() == session.grid.start_of(EDGES[:-1]).tolist()
    assert "fields of trial_data that are not imported: M1_rates" in notes(session)
    assert session.provenance.skipped == {"variables not imported": 1}


def test_units_of_an_electrode_are_pooled_on_request(tmp_path: Path) -> None:
    session = betz.read(saved(tmp_path / "td.mat", trials()), slot="sum")
    assert [c.id for c in session.channels] == ["M1_ch1", "M1_ch5", "M1_ch9", "PMd_ch1", "PMd_ch2"]
    np.testing.assert_array_equal(session.signals[:, 0], poisson(TOTAL, 4)[:, :2].sum(axis=1))


def test_trial_data_in_matlab_7_3(tmp_path: Path) -> None:
    one = betz.read(saved(tmp_path / "a.mat", trials()))
    other = betz.read(mat73(tmp_path / "b.mat", {"trial_data": structs(trials())}))
    np.testing.assert_array_equal(one.signals, other.signals)
    assert one.channels == other.channels
    assert [d.name for d in one.dims] == [d.name for d in other.dims]


def test_trial_data_that_does_not_fit(tmp_path: Path) -> None:
    rows = trials()
    rows[1]["pos"] = rows[1]["pos"][:-2]
    session = betz.read(saved(tmp_path / "a.mat", rows))  # no row a bin in every trial: it is not taken for behavior
    assert "hand_x" not in {d.name for d in session.dims}
    assert "pos" in notes(session)
    rows = trials()
    rows[2]["PMd_spikes"] = rows[2]["PMd_spikes"][:-1]
    with pytest.raises(FileError, match=r"PMd_spikes of trial 3 is float64 \(6, 2\), the trial has 7 bins"):
        betz.read(saved(tmp_path / "b.mat", rows))
    rows = trials()
    rows[0]["bin_size"] = 0.01
    with pytest.raises(FileError, match=r"bin_size of trial_data is not one number \(\[0\.01, 0\.03\]\)"):
        betz.read(saved(tmp_path / "c.mat", rows))
    rows = trials(M1_spikes=0.5 * np.ones((9, 4)), PMd_spikes=np.ones((9, 2)))[:1]
    with pytest.raises(FileError, match="'M1_spikes' has 36 values that are no counts"):
        betz.read(saved(tmp_path / "d.mat", rows))


# ---- xds

BINS, WIDTH_S = 400, 0.02
TIMES = [np.array([31, 700, 200_000]) / 30_000, np.array([]), np.array([5_000, 100_000]) / 30_000]


def xds(**changes: Any) -> dict[str, Any]:
    frame = 0.1 + WIDTH_S * np.arange(BINS)[:, None]
    struct = {
        "meta": {"monkey": "Pop", "task": "WF", "dateTime": "2026-03-17 10:11:12"},
        "bin_width": WIDTH_S,
        "time_frame": frame,
        "spikes": cell([t[:, None] for t in TIMES]),
        "unit_names": cell(["elec1", "elec2", "elec7"]),
        "spike_counts": poisson(BINS, 3),
        "curs_p": smooth(BINS),
        "curs_v": 3 * smooth(BINS),
        "EMG": smooth(BINS, 3),
        "EMG_names": cell(["EMG_FCR", "EMG_FCU", "EMG_FCR"]),
        "trial_start_time": np.array([[0.5], [2.0], [np.nan]]),
        "trial_end_time": np.array([[1.5], [3.0], [4.0]]),
        "trial_gocue_time": np.array([[0.7], [2.2], [3.5]]),
        "trial_target_dir": np.array([[0.0], [90.0], [180.0]]),
        "trial_result": np.array(["R", "F", "R"]),
        "sorted": 0.0,
        "raw_force": np.zeros((3, 2)),
        "has_EMG": 1.0,
    } | changes
    return {name: value for name, value in struct.items() if value is not None}


def xds_file(path: Path, **changes: Any) -> Path:
    scipy.io.savemat(path, {"xds": xds(**changes)})
    return path


def test_xds_keeps_spike_times(tmp_path: Path) -> None:
    session = betz.read(xds_file(tmp_path / "x.mat"))
    assert (session.subject, session.task, session.tags) == ("Pop", "WF", {"date": "2026-03-17"})
    assert session.spikes is not None
    assert [t.tolist() for t in session.spikes] == [[31, 700, 200_000], [], [5_000, 100_000]]
    assert (session.grid.tick_hz, session.grid.ticks_per_bin, session.grid.origin_tick) == (30_000, 600, 3_000)
    assert session.num_bins == BINS
    assert [c.id for c in session.channels] == ["elec1", "elec2", "elec7"]
    assert {c.kind for c in session.channels} == {"crossings"}
    names = ["cursor_x", "cursor_y", "cursor_vx", "cursor_vy", "emg_FCR", "emg_FCU", "emg_FCR_2"]
    assert [d.name for d in session.dims] == names
    np.testing.assert_allclose(session.behavior_of(["cursor_vx"])[:, 0], 3 * smooth(BINS)[:, 0], rtol=1e-6)
    table = session.trials
    assert table is not None
    assert (table.start.tolist(), table.end.tolist()) == ([15_000, 60_000], [45_000, 90_000])
    assert table.condition == ("0", "90")
    assert table.columns["result"].tolist() == ["R", "F"]
    assert session.provenance.skipped == {"trials with impossible times": 1, "variables not imported": 1}
    assert betz.read(tmp_path / "x.mat", bin_ms=10).num_bins == 2 * BINS


def test_xds_without_spike_times(tmp_path: Path) -> None:
    session = betz.read(xds_file(tmp_path / "x.mat", spikes=None, sorted=1.0))
    assert session.spikes is None
    np.testing.assert_array_equal(session.signals, poisson(BINS, 3))
    assert {c.kind for c in session.channels} == {"unit"}
    assert session.grid.seconds(session.grid.origin_tick) == pytest.approx(0.1)


def test_xds_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="xds has neither spikes nor spike_counts"):
        betz.read(xds_file(tmp_path / "a.mat", spikes=None, spike_counts=None))
    with pytest.raises(FileError, match="curs_p has 399 rows, time_frame 400"):
        betz.read(xds_file(tmp_path / "b.mat", curs_p=smooth(BINS - 1)))
    with pytest.raises(FileError, match="spikes of unit 1 are not in ascending order"):
        betz.read(xds_file(tmp_path / "c.mat", spikes=cell([np.array([[0.2], [0.1]]), *TIMES[1:]])))
    odd = betz.read(xds_file(tmp_path / "d.mat", spikes=cell([np.array([[0.2000013]]), *TIMES[1:]])))
    assert odd.grid.tick_hz == 1_000_000
    assert odd.spikes is not None
    assert odd.spikes[0].tolist() == [200_001]
