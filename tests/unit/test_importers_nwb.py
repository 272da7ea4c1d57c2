"""NWB files become sessions: ticks, arrays, behavior made regular, trials, masks, selection, and damage told."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pynwb
import pytest
from typer.testing import CliRunner

import betz
from betz.cli.main import app
from betz.core.errors import ConfigError, MissingExtraError
from betz.core.timegrid import count_spikes
from betz.data.importers import FileError, import_files, probe
from betz.data.store import Store
from tests.unit import nwb_files as files


@pytest.fixture(scope="module")
def reaching(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return files.reaching(tmp_path_factory.mktemp("nwb") / "monkey_1.nwb")


def test_a_session_with_everything(reaching: Path) -> None:
    session = betz.read(reaching)
    assert (session.id, session.subject, session.task) == ("monkey_1", "M", "center-out reaching")
    assert (session.bin_ms, session.grid.tick_hz, session.num_bins) == (20, 30_000, 1000)
    assert [(c.id, c.array, c.kind) for c in session.channels] == [
        ("e0u0", "M1", "unit"), ("e0u1", "M1", "unit"), ("e1", "M1", "unit"), ("e2", "PMd", "unit"),
    ]  # fmt: skip
    assert session.spikes is not None
    for channel, ticks in enumerate(session.spikes):
        np.testing.assert_array_equal(ticks, np.rint(files.times_s(channel) * 30_000).astype(np.int64))
    assert [(d.name, d.unit) for d in session.dims] == [
        ("hand_x", "m"), ("hand_y", "m"), ("hand_vx", "m/s"), ("hand_vy", "m/s"),
    ]  # fmt: skip
    expected = files.wave(20_000).reshape(1000, 20, 2).mean(axis=1)
    np.testing.assert_allclose(session.behavior_of(["hand_x", "hand_y"]), expected * 0.01, atol=1e-7)
    np.testing.assert_allclose(session.behavior_of(["hand_vx", "hand_vy"]), expected * 4, atol=1e-5)
    assert session.trials is not None
    assert session.trials.condition == ("target 0", "target 1") * 2
    np.testing.assert_array_equal(session.trials.start, (2 + 4 * np.arange(4)) * 30_000)
    np.testing.assert_array_equal(session.trials.columns["go_cue_time"], 2.5 + 4 * np.arange(4))
    assert session.tags["date"] == "2026-04-12T09:30:00+00:00"
    assert (session.tags["lab"], session.tags["species"]) == ("Motor", "Macaca mulatta")
    assert any("bins of 20 ms, as no width was asked for" in note for note in session.provenance.notes)


def test_it_goes_into_a_store_and_comes_back(reaching: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    report = import_files([reaching], store, options={"bin_ms": 50.0})
    assert (report.kept, dict(report.skipped)) == (("monkey_1",), {})
    np.testing.assert_array_equal(store.get("monkey_1").signals, betz.read(reaching, bin_ms=50.0).signals)


def test_units_of_an_electrode_are_pooled_on_request(reaching: Path) -> None:
    apart, pooled = betz.read(reaching), betz.read(reaching, slot="sum")
    assert [(c.id, c.array, c.kind) for c in pooled.channels] == [
        ("e0", "M1", "crossings"), ("e1", "M1", "crossings"), ("e2", "PMd", "crossings"),
    ]  # fmt: skip
    np.testing.assert_array_equal(pooled.signals[:, 0], apart.signals[:, 0] + apart.signals[:, 1])
    assert "4 units and streams of crossings pooled to 3 electrodes" in pooled.provenance.notes


def test_channels_and_behavior_by_name_or_glob(reaching: Path) -> None:
    session = betz.read(reaching, channels=("M1/*",), behavior=("hand_v*",))
    assert [c.id for c in session.channels] == ["e0u0", "e0u1", "e1"]
    np.testing.assert_array_equal(session.signals, betz.read(reaching).signals[:, :3])
    assert [d.name for d in session.dims] == ["hand_vx", "hand_vy"]
    assert session.provenance.skipped == {"channels not asked for": 1, "behavior dimensions not asked for": 2}
    with pytest.raises(ConfigError, match=r"no behavior matches 'wrist\*'\. Remedy: it has hand_x, hand_y"):
        betz.read(reaching, behavior=("wrist*",))
    with pytest.raises(ConfigError, match=r"no channel matches 'S1/\*'"):
        betz.read(reaching, channels=("S1/*",))


def test_crossings_are_told_from_units_and_from_spike_events(tmp_path: Path) -> None:
    nwb = files.nwb_file()
    groups = files.add_arrays(nwb)
    nwb.units = pynwb.misc.Units(name="units", description="threshold crossings at -4.5 RMS")
    files.add_units(nwb, [files.times_s(0), files.times_s(0)], [0, 1], groups)
    region = nwb.create_electrode_table_region(region=[3], description="electrode")
    stamps = files.times_s(3)
    nwb.add_acquisition(
        pynwb.ecephys.SpikeEventSeries(
            name="events", data=np.zeros((len(stamps), 1, 4)), timestamps=stamps, electrodes=region
        )
    )
    session = betz.read(files.write(tmp_path / "c.nwb", nwb))
    assert [(c.id, c.array, c.kind) for c in session.channels] == [
        ("e0", "M1", "crossings"), ("e1", "M1", "crossings"), ("e3", "PMd", "crossings"),
    ]  # fmt: skip
    assert session.spikes is not None
    np.testing.assert_array_equal(session.spikes[2], np.rint(stamps * 30_000))
    assert "1 channels have the spikes of another one: e1 = e0" in session.provenance.notes


def test_gaps_irregular_stamps_and_rates_that_fit_no_tick(tmp_path: Path) -> None:
    def change(nwb: Any) -> None:
        stamps = np.delete(np.arange(2000) * 0.01, slice(500, 700))
        values = np.delete(np.arange(2000.0), slice(500, 700))
        nwb.add_acquisition(pynwb.TimeSeries(name="force", data=values, unit="newtons", timestamps=stamps))
        rng = np.random.default_rng(0)
        odd = np.cumsum(rng.uniform(0.008, 0.012, 1500))
        odd[700:] += 1.0
        nwb.add_acquisition(pynwb.TimeSeries(name="lever", data=3 * odd, unit="V", timestamps=odd))
        nwb.add_acquisition(pynwb.TimeSeries(name="gaze", data=np.arange(2377) / 119.0, unit="deg", rate=119.0))

    session = betz.read(files.reaching(tmp_path / "gaps.nwb", change=change))
    force, lever, gaze = (session.behavior_of([n])[:, 0] for n in ("force", "lever", "gaze"))
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(force)), np.arange(250, 350))
    np.testing.assert_allclose(force[:250], np.arange(250) * 2 + 0.5)
    middle = (np.arange(1000) + 0.5) * 0.02
    known = np.isfinite(lever)
    np.testing.assert_allclose(lever[known], 3 * middle[known], atol=0.02)
    assert 45 <= np.count_nonzero(~known[100:700]) <= 56
    known = np.isfinite(gaze)
    assert known.sum() > 990
    np.testing.assert_allclose(gaze[known], middle[known], atol=0.011)
    notes = "\n".join(session.provenance.notes)
    assert "force: 200 samples missing between its stamps" in notes
    assert "lever: irregular stamps: interpolated to a sample every" in notes
    assert "samples in gaps are not known" in notes


def test_nan_in_a_file_needs_a_decision_and_gaps_do_not(tmp_path: Path) -> None:
    values = files.wave(20_000)
    values[100:140] = np.nan

    def change(nwb: Any) -> None:
        nwb.add_acquisition(pynwb.TimeSeries(name="cursor_pos", data=values, unit="cm", rate=1000.0))

    path = files.reaching(tmp_path / "nan.nwb", change=change)
    with pytest.raises(FileError, match="'cursor_pos' has NaN or infinite values") as raised:
        betz.read(path)
    assert raised.value.reason == "NaN behavior"
    assert np.isnan(betz.read(path, nan="mask").behavior_of(["cursor_x"])[5:7]).all()


def test_invalid_times_observation_and_states(tmp_path: Path) -> None:
    nwb = files.nwb_file()
    groups = files.add_arrays(nwb)
    files.add_units(
        nwb, [files.times_s(0), files.times_s(1)], [0, 1], groups, obs_intervals=[[0.0, 12.0], [14.0, 20.0]]
    )
    nwb.add_invalid_time_interval(start_time=3.0, stop_time=4.01)
    nwb.add_time_intervals(files.table("state", [(0.0, 5.0, "rest"), (5.0, 18.0, "move"), (9.0, 8.0, "bad")]))
    nwb.add_epoch(start_time=1.0, stop_time=2.0, tags=["lights on"])
    session = betz.read(files.write(tmp_path / "masks.nwb", nwb))
    lost = np.flatnonzero(~session.usable)
    assert set(range(150, 201)) | set(range(600, 700)) <= set(lost.tolist())
    assert not {149, 202, 599, 700} & set(lost.tolist())
    state = session.behavior_of(["state"])[:, 0]
    assert [d.classes for d in session.dims] == [("none", "lights on"), ("none", "rest", "move")]
    np.testing.assert_array_equal(state[[0, 249, 250, 899, 900]], [1, 1, 2, 2, 0])
    assert session.provenance.skipped == {"intervals of state with impossible times": 1}
    alone = betz.read(tmp_path / "masks.nwb", behavior=("sta*",))
    assert [d.name for d in alone.dims] == ["state"]


def test_fast_and_wide_series_are_left_out_unless_named(tmp_path: Path) -> None:
    def change(nwb: Any) -> None:
        nwb.add_acquisition(pynwb.TimeSeries(name="audio", data=np.zeros(200_000), unit="V", rate=10_000.0))

    path = files.reaching(tmp_path / "fast.nwb", change=change)
    session = betz.read(path)
    assert "audio" not in [d.name for d in session.dims]
    assert any("audio left out: 10000 Hz; name it with behavior=" in note for note in session.provenance.notes)
    assert [d.name for d in betz.read(path, behavior=("audio",)).dims] == ["audio"]


def test_counts_equal_those_of_the_times(reaching: Path) -> None:
    session = betz.read(reaching, bin_ms=10.0)
    assert session.spikes is not None
    for channel in range(4):
        seen, _ = np.histogram(np.rint(files.times_s(channel) * 30_000), np.arange(session.num_bins + 1) * 300)
        np.testing.assert_array_equal(session.signals[:, channel], seen)
    np.testing.assert_array_equal(session.signals, count_spikes(session.spikes, session.grid, session.num_bins))


def _unsorted(file: h5py.File) -> None:
    file["units/spike_times"][3:5] = file["units/spike_times"][3:5][::-1]


def _nan(file: h5py.File) -> None:
    file["units/spike_times"][3] = np.nan


def _outside(file: h5py.File) -> None:
    file["elsewhere"] = h5py.ExternalLink("other.nwb", "/units")


def _stored_outside(file: h5py.File) -> None:
    file.create_dataset("raw", (10,), "f8", external=[("raw.bin", 0, 80)])


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((10,), "f8")
    layout[:] = h5py.VirtualSource("other.nwb", "raw", (10,))
    file.create_virtual_dataset("raw", layout)


def _claims(file: h5py.File) -> None:
    file.create_dataset("scratch", (1 << 20, 1 << 16), chunks=(1 << 10, 1 << 10), dtype="f8")


def _no_units(file: h5py.File) -> None:
    del file["units"]


def _nwb_1(file: h5py.File) -> None:
    del file.attrs["nwb_version"]
    file["nwb_version"] = "NWB-1.0.6"


def _plain(file: h5py.File) -> None:
    del file.attrs["nwb_version"]


@pytest.mark.parametrize(
    "break_it, reason, text",
    [
        (_unsorted, "unsorted spikes", r"not in ascending order \(1 steps back\)"),
        (_nan, "bad spike times", "1 spike times are no times"),
        (_outside, "leads elsewhere", "'elsewhere' lies in another file"),
        (_stored_outside, "leads elsewhere", "the data of /raw lie in another file"),
        (_virtual, "leads elsewhere", "the data of /raw lie in another file"),
        (_claims, "impossible size", "/scratch claims 550 GB"),
        (_no_units, "no spikes", "neither a units table with spike times nor series of spike events"),
        (_nwb_1, "unknown format", "NWB 1 file"),
        (_plain, "unknown format", "an HDF5 file without an NWB version"),
    ],
)
def test_what_cannot_be_used_is_refused(break_it: Any, reason: str, text: str, reaching: Path, tmp_path: Path) -> None:
    path = tmp_path / "broken.nwb"
    path.write_bytes(reaching.read_bytes())
    with h5py.File(path, "r+") as file:
        break_it(file)
    with pytest.raises(FileError, match=text) as raised:
        betz.read(path)
    assert raised.value.reason == reason


def test_unsorted_spikes_are_sorted_on_request(reaching: Path, tmp_path: Path) -> None:
    path = tmp_path / "monkey_1.nwb"
    path.write_bytes(reaching.read_bytes())
    with h5py.File(path, "r+") as file:
        _unsorted(file)
    session = betz.read(path, sort_spikes=True)
    np.testing.assert_array_equal(session.signals, betz.read(reaching).signals)
    assert "spike times sorted on import: 1 steps back in all" in session.provenance.notes


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_damaged(share: float, reaching: Path, tmp_path: Path) -> None:
    content = reaching.read_bytes()
    path = tmp_path / "torn.nwb"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(FileError, match=r"torn\.nwb: it cannot be read: truncated, damaged or no \.nwb file"):
        betz.read(path)


def test_other_mistakes(reaching: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="there is no such file"):
        betz.read(tmp_path / "gone.nwb")
    (tmp_path / "text.nwb").write_text("no HDF5")
    with pytest.raises(FileError, match="it is no HDF5 file"):
        betz.read(tmp_path / "text.nwb")
    with pytest.raises(ConfigError, match="an NWB file needs no mapping"):
        betz.read(reaching, mapping="indy64")
    with pytest.raises(ConfigError, match="rates_to_counts has no meaning for NWB files"):
        betz.read(reaching, rates_to_counts=True)


def test_without_pynwb_one_sentence_says_what_to_install(
    reaching: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynwb", None)
    with pytest.raises(MissingExtraError, match=r"pynwb is not installed\. Remedy: pip install 'betz\[nwb\]'"):
        betz.read(reaching)
    report = import_files([reaching], Store(tmp_path / "store", create=True))
    assert dict(report.skipped) == {"library not installed": 1}


def test_a_real_file_without_kinematics(recordings: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session = betz.read(recordings / "raw_formats" / "nwb" / "A8604-211122.nwb")
    assert [len(ticks) for ticks in session.spikes or ()] == [11020, 4690, 5644]
    assert {c.array for c in session.channels} == {"group0_psb"}
    assert [d.classes for d in session.dims] == [("none", "wake")]


@pytest.mark.parametrize("seed", range(12))
def test_flipped_bits_end_in_an_error_of_ours_or_a_session(seed: int, tmp_path: Path) -> None:
    content = np.frombuffer(files.reaching(tmp_path / "whole.nwb", seconds=3.0).read_bytes(), np.uint8).copy()
    rng = np.random.default_rng(seed)
    at = rng.integers(0, len(content), int(rng.integers(1, 40)))
    content[at] ^= (1 << rng.integers(0, 8, len(at))).astype(np.uint8)
    (tmp_path / "flipped.nwb").write_bytes(content.tobytes())
    store = Store(tmp_path / "store", create=True)
    report = import_files([tmp_path / "flipped.nwb"], store, options={"nan": "mask"})
    assert store.ids == report.kept
    assert len(report.files) == 1


def test_a_crash_of_the_library_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_walk", lambda path: os.kill(os.getpid(), signal.SIGSEGV))
    with pytest.raises(FileError, match=r"monkey\.nwb: it cannot be read: the HDF5 library ends on it with signal 11"):
        betz.read(files.reaching(tmp_path / "monkey.nwb", seconds=3.0))


def import_(*words: str, answers: str = "") -> Any:
    return CliRunner().invoke(app, ["import", *words], input=answers)


def test_choose_asks_and_says_how_to_do_without_questions(
    reaching: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = import_(str(reaching), "--store", "store", "--choose", answers="1\n3-4\n")
    assert done.exit_code == 0, done.output
    assert "monkey_1.nwb: 0.3 min of M" in done.stdout
    assert "2 PMd" in done.stdout
    assert "hand_vx" in done.stdout
    assert "the same without questions: --channels 'M1/*' --behavior 'hand_vx,hand_vy'" in done.stdout
    chosen = Store("store").get("monkey_1")
    assert [c.id for c in chosen.channels] == ["e0u0", "e0u1", "e1"]
    assert [d.name for d in chosen.dims] == ["hand_vx", "hand_vy"]
    typed = import_(str(reaching), "--store", "typed", "--channels", "M1/*", "--behavior", "hand_vx,hand_vy")
    assert typed.exit_code == 0, typed.output
    np.testing.assert_array_equal(Store("typed").get("monkey_1").signals, chosen.signals)
    assert import_(str(reaching), "--store", "whole", "--choose", answers="\n\n").exit_code == 0
    assert len(Store("whole").get("monkey_1").channels) == 4
    wrong = import_(str(reaching), "--store", "none", "--choose", answers="3\n")
    assert (wrong.exit_code, Path("none").exists()) == (1, False)
    assert "there is no row 3. Remedy: rows are 1 to 2" in wrong.stderr
    wrong = import_(str(reaching), "--store", "none", "--choose", answers="all\nwrist\n")
    assert "no behavior matches 'wrist'" in wrong.stderr
