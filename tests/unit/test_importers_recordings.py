"""Real recordings import as they are described, each caution met by a message or an option."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import betz
from betz.data.importers import FileError

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
