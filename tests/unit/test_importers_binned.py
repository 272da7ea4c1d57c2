"""The ``binnedData`` struct: exact counts, named behavior, trials, and a clear message for everything odd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

import betz
from betz.data.importers import FileError
from tests.unit import recording_files as files
from tests.unit.recording_files import BINS


def read(folder: Path, /, *, options: dict[str, Any] | None = None, **changes: Any) -> betz.Session:
    """The session of a binnedData file with these changes."""
    fields = {"spikeratedata": files.counts_NC().astype(np.float32) * np.float32(20), **changes}
    return betz.read(files.binned(folder / "Spike_07-18-12_WF_001.mat", **fields), **(options or {}))


def notes(session: betz.Session) -> str:
    return "\n".join(session.provenance.notes)


def test_everything_in_its_place(tmp_path: Path) -> None:
    session = read(tmp_path)
    assert (session.id, session.subject, session.task) == ("Spike_07-18-12_WF_001", "Spike", "wrist flexion")
    assert session.tags == {"date": "2012-07-18"}
    assert (session.bin_ms, session.num_bins, session.grid.origin_tick) == (50, BINS, 0)
    np.testing.assert_array_equal(session.signals, files.counts_NC())
    assert [c.id for c in session.channels] == ["ee01u0", "ee02u0", "ee03u0", "ee04u1", "ee05u2"]
    assert [c.kind for c in session.channels] == ["crossings"] * 3 + ["unit"] * 2
    assert [f"{d.name} {d.unit}" for d in session.dims] == [
        "cursor_x cm", "cursor_y cm", "cursor_vx cm/s", "cursor_vy cm/s", "cursor_speed cm/s",
        "emg_FDS a.u.", "emg_ECRb a.u.", "emg_FCU a.u.", "force_x a.u.", "force_y a.u.",
    ]  # fmt: skip
    position = session.behavior_of(["cursor_x"])[:, 0]
    np.testing.assert_allclose(position, 5 * np.sin(np.arange(BINS) / 20), atol=1e-5)
    np.testing.assert_allclose(session.behavior_of(["force_x"])[:, 0], 100 * position + 3, rtol=1e-4)
    assert session.provenance.importer == "binnedData"
    assert "spike rates turned back to exact counts in 50 ms" in notes(session)
    assert "it looks ahead in time" in notes(session)


def test_rates_of_every_count_are_exact(tmp_path: Path) -> None:
    counts = (np.arange(BINS * 5) % 256).reshape(BINS, 5)
    session = read(tmp_path, spikeratedata=(counts / np.float32(0.05)).astype(np.float32))
    np.testing.assert_array_equal(session.signals, counts)


def test_smoothed_rates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        FileError, match=r"'binnedData.spikeratedata' has .* values that are no counts when multiplied by 50"
    ):
        read(tmp_path, spikeratedata=files.counts_NC() * np.float32(20) + np.float32(3))


def test_trials_of_the_wrist_task(tmp_path: Path) -> None:
    trials = read(tmp_path).trials
    assert trials is not None
    assert trials.start.tolist() == [500, 4500, 9500]
    assert trials.end.tolist() == [3900, 9000, 12_000]
    assert trials.condition == ("target 3", "target 1", "")
    assert trials.columns["result"].tolist() == ["R", "F", "?"]
    np.testing.assert_array_equal(trials.columns["go_cue_s"], [1.0, np.nan, np.nan])
    np.testing.assert_array_equal(trials.columns["target_on_s"], [0.9, 5.0, np.nan])
    np.testing.assert_array_equal(trials.columns["target_corners_cm"], files.TRIALS[:, 1:5])


def test_impossible_trials_are_counted(tmp_path: Path) -> None:
    table = files.TRIALS.copy()
    table[0, 7] = 0.2  # ends before it starts
    table[2, 0] = 99.0  # after the recording
    session = read(tmp_path, trialtable=table)
    assert len(session.trials or ()) == 1
    assert session.provenance.skipped["trials with impossible times"] == 2
    assert "2 of 3 trials have impossible times, left out" in notes(session)


def test_trial_tables_of_other_tasks_are_left_out(tmp_path: Path) -> None:
    other = read(tmp_path, words=np.array([[0.5, 0x11], [4.0, 0x11]]))
    assert (other.task, other.trials) == ("center-out", None)
    assert other.provenance.skipped["trials of an unknown table"] == 3
    short = read(tmp_path, trialtable=files.TRIALS[:, :6])
    assert short.trials is None
    assert "a trial table of 6 columns is not known for this task, left out" in notes(short)


def test_what_is_empty_is_noted(tmp_path: Path) -> None:
    none = np.empty((0, 0))
    session = read(tmp_path, forcedatabin=none, forcelabels=none, emgdatabin=none, emgguide=none, trialtable=none)
    assert [d.name for d in session.dims] == ["cursor_x", "cursor_y", "cursor_vx", "cursor_vy", "cursor_speed"]
    assert "forcedatabin is empty: there is no force" in notes(session)
    assert "emgdatabin is empty: there is no EMG" in notes(session)
    assert session.trials is None
    still = read(tmp_path, cursorposbin=none, velocbin=none, leave_out=("trialtable", "words", "meta"))
    assert next(d.name for d in still.dims) == "emg_FDS"
    assert "binnedData.cursorposbin is empty" in notes(still)
    assert (still.task, still.subject, still.tags) == ("", "Spike", {})


def test_fields_that_are_not_imported_are_counted(tmp_path: Path) -> None:
    session = read(tmp_path, stim=np.ones((3, 2)), states=np.ones((BINS, 1)))
    assert "fields of binnedData that are not imported: words, stim, states" in notes(session)
    assert session.provenance.skipped == {"variables not imported": 3}


def test_repeated_and_empty_emg_labels(tmp_path: Path) -> None:
    emg = np.random.default_rng(0).normal(size=(BINS, 6)).cumsum(axis=0)
    guide = np.array(["FCR", "EMG_FCR", "FCR_2", "", "FCR", "F D/S"])
    session = read(tmp_path, emgdatabin=emg, emgguide=guide)
    names = [d.name for d in session.dims if d.name.startswith("emg")]
    assert names == ["emg_FCR", "emg_FCR_3", "emg_FCR_2", "emg_4", "emg_FCR_4", "emg_F_D_S"]
    assert "the label of column 2 (emg_FCR) is repeated: it is emg_FCR_3" in notes(session)
    assert "the label of column 4 (emg_) is empty: it is emg_4" in notes(session)
    np.testing.assert_allclose(session.behavior_of(["emg_FCR_3"])[:, 0], emg[:, 1], rtol=1e-5)


def test_labels_that_do_not_fit_are_replaced_by_numbers(tmp_path: Path) -> None:
    session = read(tmp_path, emgguide=np.array(["FCR", "FCU"]), spikeguide=np.array(["ee01u0"]))
    assert [d.name for d in session.dims if d.name.startswith("emg")] == ["emg_1", "emg_2", "emg_3"]
    assert "there are 2 emg labels for 3 columns: they are numbered" in notes(session)
    assert [c.id for c in session.channels] == ["ch1", "ch2", "ch3", "ch4", "ch5"]
    assert "the neuron guide has 1 entries for 5 channels" in notes(session)


def test_newer_neuron_guide(tmp_path: Path) -> None:
    ids = np.array([[1, 0], [2, 0], [2, 1], [11, 0], [96, 3]])
    session = read(tmp_path, neuronIDs=ids, leave_out=("spikeguide",))
    assert [c.id for c in session.channels] == ["ee01u0", "ee02u0", "ee02u1", "ee11u0", "ee96u3"]
    assert [c.kind for c in session.channels] == ["crossings", "crossings", "unit", "crossings", "unit"]


def test_labels_in_cells(tmp_path: Path) -> None:
    cell = np.empty((3, 1), dtype=object)
    cell[:, 0] = ["FDS", "ECRb", "FCU"]
    assert "emg_ECRb" in [d.name for d in read(tmp_path, emgguide=cell).dims]


def test_bin_width_without_timeframe(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"binnedData has no timeframe. Remedy: give bin_ms \(--bin-ms\)"):
        read(tmp_path, leave_out=("timeframe",))
    assert read(tmp_path, leave_out=("timeframe",), options={"bin_ms": 50}).bin_ms == 50


def test_bad_stamps(tmp_path: Path) -> None:
    time = np.arange(BINS) * 0.05
    for timeframe, text in (
        (time[::-1], "'binnedData.timeframe' are not in ascending order"),
        (time - 1, "are negative"),
        (np.r_[time[:200], 10 + np.arange(200) * 0.1], "do not follow one bin width"),
        (np.stack([time, time], axis=1), "timeframe is .400, 2., not one time a bin"),
    ):
        with pytest.raises(FileError, match=text):
            read(tmp_path, timeframe=timeframe)
    with pytest.raises(FileError, match="do not follow one bin width of 20 ms"):
        read(tmp_path, options={"bin_ms": 20})


def test_lengths_that_differ(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"different lengths in bins: counts 400, .*emgdatabin 390"):
        read(tmp_path, emgdatabin=np.ones((BINS - 10, 3)))
    with pytest.raises(FileError, match=r"different lengths .*stamps 399"):
        read(tmp_path, timeframe=np.arange(BINS - 1) * 0.05)
    cut = read(tmp_path, emgdatabin=np.ones((BINS - 10, 3)), options={"trim_to_shortest": True})
    assert cut.num_bins == BINS - 10


def test_nan_behavior(tmp_path: Path) -> None:
    emg = np.ones((BINS, 3))
    emg[3:9, 1] = np.nan
    with pytest.raises(FileError, match=r"'emgdatabin' has NaN or infinite values \(bins: emg_ECRb 6\)"):
        read(tmp_path, emgdatabin=emg)
    assert np.isnan(read(tmp_path, emgdatabin=emg, options={"nan": "mask"}).behavior_of(["emg_ECRb"])).sum() == 6


def test_a_shorter_file_than_the_recording_is_noted(tmp_path: Path) -> None:
    session = read(tmp_path, meta={"duration": 100.0, "filename": "x"})
    assert "the recording lasted 100 s, the file covers 20 s of it" in notes(session)
    assert session.subject == "Spike"  # of the file's own name


def test_what_is_no_binned_data(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"binnedData": {"emgdatabin": np.ones((3, 2))}})
    with pytest.raises(FileError, match=r"a.mat: it has no spikeratedata; its fields are emgdatabin"):
        betz.read(path)
    scipy.io.savemat(path, {"binnedData": np.ones((3, 2))})
    with pytest.raises(FileError, match="its layout is not known; it has binnedData"):
        betz.read(path)
    structs = np.zeros((1, 2), dtype=[("spikeratedata", float)])
    scipy.io.savemat(path, {"binnedData": structs})
    with pytest.raises(FileError, match="binnedData is not a single struct"):
        betz.read(path)
    with pytest.raises(FileError, match=r"binnedData.spikeratedata is <U\d+ of shape"):
        read(tmp_path, spikeratedata=np.full((BINS, 2), "wrong"))
    with pytest.raises(FileError, match="it has no bins"):
        read(tmp_path, spikeratedata=np.zeros((0, 5)), timeframe=np.zeros((0, 1)))


# ---- what goes wrong in real recordings


def long_recording(folder: Path, /, **changes: Any) -> betz.Session:
    """Ten minutes; cursor and force move together."""
    bins = 12_000
    time = np.arange(bins)
    position = np.stack([5 * np.sin(time / 20), 4 * np.cos(time / 17)], axis=1)
    rates = files.counts_NC(bins=bins).astype(np.float32) * np.float32(20)
    made = {"spikeratedata": rates, "cursorposbin": position, "forcedatabin": 100 * position + 3}
    made |= {name: change(made[name]) if callable(change) else change for name, change in changes.items()}
    options = made.pop("options", {})
    return read(folder, options=options, **made)


def stopped(position: Any) -> Any:
    out = position.copy()
    out[7000:] = 0.01 * np.sin(np.arange(5000) / 9)[:, None]
    return out


def test_a_task_that_stopped_is_noted_and_can_be_left_out(tmp_path: Path) -> None:
    changes = {"cursorposbin": stopped, "forcedatabin": np.empty((0, 0)), "velocbin": np.empty((0, 0))}
    session = long_recording(tmp_path, **changes)
    assert session.num_bins == 12_000
    assert "cursor stands still from minute 5.8 to the end (42% of the recording): the task stopped" in notes(session)
    assert "leave it out with drop_idle_tail (--drop-idle-tail)" in notes(session)
    cut = long_recording(tmp_path, **changes, options={"drop_idle_tail": True})
    assert cut.num_bins == 7000
    assert cut.provenance.skipped["bins of an idle tail"] == 5000
    assert cut.provenance.options["drop_idle_tail"] is True


def test_force_that_leaves_the_cursor_is_noted(tmp_path: Path) -> None:
    def parted(force: Any) -> Any:
        out = force.copy()
        out[6000:] = out[6000:][::-1] * np.linspace(1, 3, 6000)[:, None]
        return out

    assert "follows the cursor" not in notes(long_recording(tmp_path))
    said = notes(long_recording(tmp_path, forcedatabin=parted))
    assert "force_x follows the cursor until minute 5 (r = 1.00) and no longer after it" in said


def test_noise_for_force_and_dead_emg_are_noted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    emg = np.abs(np.cumsum(rng.normal(size=(12_000, 5)), axis=0)) / 30
    emg[:, 1] = 0.01 * rng.normal(size=12_000)
    emg[:, 2] = 0
    emg[:, 4] *= 200
    noise = rng.normal(size=(12_000, 2))
    session = long_recording(
        tmp_path, forcedatabin=noise, emgdatabin=emg, emgguide=np.array(["a", "dead", "off", "b", "wild"])
    )
    assert "looks like noise, neighbouring bins being uncorrelated: force_x" in notes(session)
    assert "near-dead behavior (range as a share of its group's median, and white): emg_dead" in notes(session)
    assert "constant behavior: emg_off" in notes(session)
    assert "of a far larger range than the median of its group, likely artefacts or another gain: emg_wild" in notes(
        session
    )


def test_lost_signals_are_noted_and_can_be_masked(tmp_path: Path) -> None:
    def silent(rates: Any) -> Any:
        out = rates.copy()
        out[4000:5000] = 0
        return out

    session = long_recording(tmp_path, spikeratedata=silent)
    assert session.usable.all()
    assert "no channel has a spike for 50 s in all (3.3–4.2 min): the recording was cut" in notes(session)
    assert "mask_silence (--mask-silence)" in notes(session)
    masked = long_recording(tmp_path, spikeratedata=silent, options={"mask_silence": True})
    assert masked.segments == ((0, 4000), (5000, 12_000))
    assert "1000 silent bins marked not valid" in notes(masked)
