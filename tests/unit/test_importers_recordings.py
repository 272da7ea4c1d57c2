"""Real recordings import as they are described, each caution met by a message or an option."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import betz
from betz.data.derive import direction_vector
from betz.data.importers import FileError
from betz.study.shifts import recorded

pytestmark = pytest.mark.recordings


def notes(session: betz.Session) -> str:
    return "\n".join(session.provenance.notes)


@pytest.mark.parametrize("name, slots, interpolated", [("20160407_02", 3, True), ("20160927_06", 5, False)])
def test_indy(name: str, slots: int, interpolated: bool, recordings: Path) -> None:
    path = recordings / "indy" / f"indy_{name}.npz"
    session = betz.read(path)
    assert (session.id, session.subject, session.bin_ms, len(session.channels)) == (f"indy_{name}", "Indy", 64, 96)
    with np.load(path) as file:
        np.testing.assert_array_equal(session.signals, file["spikes"].sum(axis=2))
        np.testing.assert_array_equal(session.behavior_of(["finger_vx"])[:, 0], file["finger_vel_cm_s"][:, 0])
        start = session.grid.seconds(session.grid.start_of(np.arange(session.num_bins)))
        np.testing.assert_allclose(start, file["t"], atol=1e-3)
    assert session.usable.all()
    assert f"{slots} slots of each electrode" in notes(session)
    assert ("target_mm is held between switches" in notes(session)) == interpolated
    apart = betz.read(path, slot="unit")
    assert len(apart.channels) > 96
    np.testing.assert_array_equal(apart.signals.sum(axis=1, dtype=int), session.signals.sum(axis=1, dtype=int))


def spike(recordings: Path, day: str, **options: bool) -> betz.Session:
    (path,) = (recordings / "limblab_spike_wf").glob(f"Spike_{day}*.mat")
    return betz.read(path, **options)


def test_spike(recordings: Path) -> None:
    session = spike(recordings, "08-22-12")
    assert (session.id, session.subject, session.task) == ("Spike_08-22-12_WF_001", "Spike", "wrist flexion")
    assert (session.bin_ms, session.num_bins, len(session.channels)) == (50, 24_000, 96)
    assert session.tags == {"date": "2012-08-22"}
    assert len([d for d in session.dims if d.name.startswith("emg_")]) == 14
    assert {"cursor_x", "cursor_y", "cursor_vx", "cursor_vy", "force_x", "force_y"} <= {d.name for d in session.dims}
    assert session.trials is not None
    assert len(session.trials) == 245
    assert session.trials.columns["result"].tolist().count("R") == 243
    assert "near-dead behavior (range as a share of its group's median, and white): emg_ECRb" in notes(session)


def test_the_broken_task_of_july_20(recordings: Path) -> None:
    session = spike(recordings, "07-20-12", drop_idle_tail=True)
    assert "cursor stands still from minute 6.3 to the end (68% of the recording): the task stopped" in notes(session)
    assert "forcedatabin is empty: there is no force" in notes(session)
    assert session.minutes == pytest.approx(6.3, abs=0.1)
    assert session.provenance.skipped["bins of an idle tail"] == 24_000 - session.num_bins


def test_bad_force_and_lost_signals(recordings: Path) -> None:
    noise = spike(recordings, "08-17-12")
    assert "looks like noise, neighbouring bins being uncorrelated: force_x" in notes(noise)
    lost = spike(recordings, "09-12-12", mask_silence=True)
    assert "force_x follows the cursor until minute 12 (r = 1.00) and no longer after it" in notes(lost)
    assert "no channel has a spike for 267 s in all" in notes(lost)
    assert 250 < (~lost.usable).sum() * 0.05 < 270


def test_contdata95(recordings: Path) -> None:
    path = recordings / "umich_contdata95" / "contdata95.mat"
    with pytest.raises(FileError, match="its bin width is not certain: the source says 50 ms") as caught:
        betz.read(path)
    assert caught.value.remedy == "give bin_ms (--bin-ms), 100 if you trust the velocity"
    session = betz.read(path, bin_ms=100)
    assert (session.num_bins, len(session.channels), len(session.edges)) == (31_413, 95, 1455)
    assert len(session.trials or ()) == 1456
    assert [f"{d.name} {d.unit}" for d in session.dims] == ["hand_x mm", "hand_y mm", "hand_vx mm/s", "hand_vy mm/s"]
    assert "velocity is the change" not in notes(session)
    assert "velocity is the change of position in 100 ms, but bins are 50 ms" in notes(betz.read(path, bin_ms=50))


# ---- concatenated trials, closed loop, spike times


def test_chewie(recordings: Path) -> None:
    session = betz.read(recordings / "chewie_mihi" / "chewie_20131003_100ms.npz")
    assert (session.subject, session.bin_ms, session.num_bins, len(session.channels)) == ("Chewie", 100, 1640, 174)
    assert len(session.trials or ()) == 159
    assert len(session.edges) == 158
    with np.load(recordings / "chewie_mihi" / "chewie_20131003_100ms.npz") as file:
        np.testing.assert_array_equal(session.signals, file["counts"])
        np.testing.assert_array_equal(session.behavior_of(["force_y"])[:, 0], file["force"][:, 1])


def test_rates_of_chewie_and_mihi(recordings: Path) -> None:
    path = recordings / "chewie_mihi" / "dad_Y1Y2Y3_matlab_v73.mat"
    with pytest.raises(FileError, match="it holds 3 sessions: chewie_20131219"):
        betz.read(path, rates_to_counts=True)
    with pytest.raises(FileError, match=r"'Data\.Y3' holds rates in Hz, not counts"):
        betz.read(path, session="mihi")
    sizes = {"chewie_20131219": (695, 155, 180), "chewie_20131003": (701, 174, 159), "mihi": (875, 187, 209)}
    for name, size in sizes.items():
        session = betz.read(path, session=name, rates_to_counts=True)
        assert (session.num_bins, len(session.channels), len(session.trials or ())) == size
        assert (session.bin_ms, session.subject) == (200, "Mihi" if name == "mihi" else "Chewie")
    other = betz.read(recordings / "chewie_mihi" / "chewie_20131003_100ms.npz")  # the same recording
    same = betz.read(path, session="chewie_20131003", rates_to_counts=True)
    assert same.trials is not None
    assert other.trials is not None
    assert same.trials.condition == other.trials.condition
    assert np.corrcoef(same.signals.mean(axis=0), other.signals.mean(axis=0))[0, 1] > 0.99


def test_dcca(recordings: Path) -> None:
    session = betz.read(recordings / "dcca_monkeys" / "MonkeyM_Dataset.mat")
    assert (session.bin_ms, session.num_bins, len(session.channels), len(session.edges)) == (50, 8433, 67, 479)


def test_redundancy(recordings: Path) -> None:
    session = betz.read(recordings / "bci_cmu_pitt" / "redundancy_20131218.mat")
    assert (session.bin_ms, session.num_bins, len(session.channels), len(session.edges)) == (45, 12_234, 87, 772)
    assert session.trials is not None
    assert np.unique(session.trials.columns["block"]).tolist() == [1, 2]
    free = session.brain_control.whole_bins(session.grid, session.num_bins)
    assert free.mean() == pytest.approx(0.863, abs=1e-3)
    made = direction_vector(session)
    moved = made.behavior_of(["cursor_vx", "cursor_vy"])[free]
    meant = made.behavior_of(["intended_x", "intended_y"])[free]
    assert np.mean((moved * meant).sum(axis=1) / np.linalg.norm(moved, axis=1)) > 0.7


def test_stabilized(recordings: Path) -> None:
    session = betz.read(recordings / "bci_cmu_pitt" / "stabilizedbci_20160325_firstversion.mat")
    assert (session.bin_ms, session.num_bins, len(session.channels), len(session.edges)) == (45, 38_015, 96, 1251)
    assert session.provenance.skipped["trials without bins"] == 16
    trials = session.trials
    assert trials is not None
    cursor = session.behavior_of(["cursor_x", "cursor_y", "cursor_vx", "cursor_vy"])
    plain = np.repeat(trials.columns["decoder"] != 1, (trials.end - trials.start) // 45)
    free = session.brain_control.whole_bins(session.grid, session.num_bins) & plain
    moved = np.diff(cursor[:, :2], axis=0, prepend=0) / 0.045
    np.testing.assert_allclose(moved[free], cursor[free, 2:], atol=0.01)
    shifted = recorded(session)
    assert [(s.kind, len(s.channels)) for s in shifted.truth] == [("moved", 10), ("offset", 75), ("silent", 5)]
    inside = shifted.truth[0].when.whole_bins(session.grid, session.num_bins)
    assert trials.columns["perturbed"].sum() == 590
    np.testing.assert_array_equal(shifted.session.signals[~inside], session.signals[~inside])
    changed = shifted.session.signals[inside].mean(axis=0) - session.signals[inside].mean(axis=0)
    assert changed[0] == pytest.approx(shifted.truth[1].amounts[0], abs=0.02)


def test_joystick(recordings: Path) -> None:
    for name, channels in (("10", 16), ("11", 16), ("18", 16), ("21", 16)):
        session = betz.read(recordings / "joystick" / f"monkey_2_set_1_expt_expt{name}.mat")
        assert session.spikes is not None
        assert (len(session.spikes), session.grid.tick_hz, session.bin_ms) == (channels, 1_000_000, 100)
        assert session.num_bins == len(session.behavior[0].values)
        assert int(session.signals.sum()) == sum(map(len, session.spikes))
        assert "spike times rounded" not in notes(session)
