"""FALCON's files: layouts, which end of a bin a stamp is, names and splits, and what is refused."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pynwb
import pytest

import betz
from betz.core.errors import ConfigError
from betz.data.importers import FileError
from betz.data.importers.falcon import count_units
from betz.data.importers.falcon_names import H1_KEYS, TASKS, TaskName, parse, public_name, server_name
from betz.evaluate.falcon import targets
from betz.testing.falcon_files import Content, content_of, first_trials, write_file, write_fixture
from tests.unit import nwb_files

NAMES: tuple[TaskName, ...] = ("h1", "h2", "m1", "m2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("falcon")


def written(folder: Path, task: TaskName, content: Content, part: str = "calib") -> Path:
    path = folder / public_name(task, TASKS[task].held_in[0], part)
    write_file(path, task, content)
    return path


@pytest.mark.parametrize("task", NAMES)
def test_counts_targets_and_masks_come_back(task: TaskName, folder: Path) -> None:
    content = content_of(task)
    session = betz.read(written(folder, task, content))
    np.testing.assert_array_equal(session.signals, content.counts_NC)
    assert (session.bin_ms, session.num_bins) == (20, 320)
    np.testing.assert_array_equal(session.behavior_of(["eval_mask"])[:, 0] == 1, content.mask_N)
    if task != "h2":
        order = np.argsort([d.name for d in session.dims][: TASKS[task].outputs]) if task == "m1" else None
        found = session.behavior_of(targets(session))
        wanted = content.targets_NK
        if order is not None:  # HDF5 gives muscles in alphabetical order
            from betz.testing.falcon_files import MUSCLES

            wanted = wanted[:, np.argsort(MUSCLES)]
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)
    assert len(session.edges) == (3 if task in ("m2", "h2") else 0)
    assert session.trials is not None
    np.testing.assert_array_equal(session.grid.bin_of(session.trials.start), content.starts)
    assert session.tags["falcon_task"] == task
    assert (session.tags["falcon_split"], session.tags["falcon_part"]) == ("held-in", "calib")


def lag_of(counts_NC: np.ndarray, truth_NC: np.ndarray) -> int:
    """By how many bins counts come late."""
    a, b = counts_NC.astype(float).sum(axis=1), truth_NC.astype(float).sum(axis=1)
    lags = range(-3, 4)
    return max(lags, key=lambda k: float(np.corrcoef(np.roll(b, k)[5:-5], a[5:-5])[0, 1]))


@pytest.mark.parametrize("task", ["m1", "h1", "m2"])
def test_a_planted_shift_of_one_bin_is_seen(task: TaskName, tmp_path: Path) -> None:
    """The right convention gives lag 0; a file whose stamps are those of the other end, lag one bin."""
    content = content_of(task)
    path = written(tmp_path, task, content)
    assert lag_of(betz.read(path).signals, content.counts_NC) == 0
    sign = 1 if task == "m2" else -1  # M2 stamped at the end, M1 and H1 at the start
    with h5py.File(path, "r+") as file:
        if task == "h1":
            data = file["acquisition/OpenLoopKinematics/data"]
            data.attrs["offset"] = data.attrs["offset"] + np.float32(sign * 0.02)
        else:
            name = "acquisition/preprocessed_emg" if task == "m1" else "acquisition/finger_vel"
            for series in file[name].values():
                series["timestamps"][...] = series["timestamps"][...] + sign * 0.02
    assert lag_of(betz.read(path).signals, content.counts_NC) == -sign


def test_bins_end_at_the_stamp_or_start_there() -> None:
    times = [np.array([0.019, 0.021, 0.04, 0.0599])]
    stamps = np.array([0.02, 0.04, 0.06])
    ends = count_units(times, stamps, stamps_end=True, where="x")
    starts = count_units(times, stamps, stamps_end=False, where="x")
    assert ends[:, 0].tolist() == [1, 1, 2]
    assert starts[:, 0].tolist() == [1, 2, 0]
    after_jump = count_units(times, np.array([0.02, 0.0605]), stamps_end=True, where="x")
    assert after_jump[:, 0].tolist() == [1, 1]  # 40.5 … 60.5 ms alone
    with pytest.raises(FileError, match="x: a bin holds 300 spikes of a channel"):
        count_units([np.full(300, 0.01)], stamps, stamps_end=True, where="x")


@pytest.mark.parametrize("task", NAMES)
def test_the_official_loader_sees_the_same(task: TaskName, folder: Path) -> None:
    config = pytest.importorskip("falcon_challenge.config")
    from falcon_challenge.dataloaders import load_nwb

    rng = np.random.default_rng(3)
    path = written(folder, task, content_of(task, trials=3, trial_s=2.2, seed=5))
    if task != "h2":
        with h5py.File(path, "r+") as file:  # spikes at any time, and exactly on edges
            times = file["units/spike_times"][()]
            moved = rng.random(len(times)) < 0.3
            times[moved] = np.round(times[moved] / 0.02) * 0.02
            file["units/spike_times"][...] = times
    counts, _, _, mask = load_nwb(path, getattr(config.FalconTask, task))
    session = betz.read(path)
    np.testing.assert_array_equal(session.signals, counts)
    np.testing.assert_array_equal(session.behavior_of(["eval_mask"])[:, 0] == 1, mask)


def test_names_are_those_of_the_benchmark() -> None:
    config = pytest.importorskip("falcon_challenge.config")
    evaluator = pytest.importorskip("falcon_challenge.evaluator")
    assert config.H1_NEW_TO_OLD == H1_KEYS
    for task, known in TASKS.items():
        official = evaluator.DATASET_HELDINOUT_MAP[task]
        assert (list(known.held_in), list(known.held_out)) == (official["held_in"], official["held_out"])
        assert evaluator.DANDI_FOLDER_MAP[task] == known.dandiset
        setup = config.FalconConfig(getattr(config.FalconTask, task))
        assert (setup.n_channels, setup.out_dim) == (known.channels, known.outputs)
        assert evaluator.RECOMMENDED_BATCH_SIZES[setup.task] == known.largest_batch
        for key in (*known.held_in, *known.held_out):
            for name in (public_name(known.name, key, "calib"), server_name(known.name, key)):
                stem = Path(name).stem
                hashed = evaluator.h2_relabel_hotfix(setup.hash_dataset(stem))
                named = parse(known.name, stem)
                assert named.key == hashed == key
                assert named.split == ("held-in" if key in known.held_in else "held-out")
                assert named.session == evaluator.reduce_key(hashed)


def test_a_fixture_has_the_official_folders(tmp_path: Path) -> None:
    made = write_fixture(tmp_path, "m1", trials=3, trial_s=0.6)
    places = {p.parent.name: sum(q.parent == p.parent for q in made) for p in made}
    assert places == {
        "sub-MonkeyL-held-in-calib": 4, "sub-MonkeyL-held-in-minival": 4, "sub-MonkeyL-held-out-calib": 3, "eval": 7,
    }  # fmt: skip
    calib, minival = (
        betz.read(tmp_path / "m1" / f"sub-MonkeyL-held-in-{part}" / public_name("m1", "20120924", part))
        for part in ("calib", "minival")
    )
    np.testing.assert_array_equal(minival.signals, calib.signals[: minival.num_bins])
    assert (minival.num_bins, calib.num_bins) == (60, 90)
    assert any("minival is a part of the public calibration data" in note for note in minival.provenance.notes)
    with pytest.raises(ConfigError, match="there is no fixture for 'b1'"):
        write_fixture(tmp_path, "b1")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="there is no part 'test'"):
        write_fixture(tmp_path, "m1", parts=["test"])


def test_b1_is_refused_by_name(tmp_path: Path) -> None:
    nwb = nwb_files.nwb_file()
    for name in ("tx", "vocalizations"):
        nwb.add_acquisition(pynwb.TimeSeries(name=name, data=np.zeros(9), unit="V", rate=30_000.0))
    with pytest.raises(FileError, match="it is FALCON's B1, a bird's song") as raised:
        betz.read(nwb_files.write(tmp_path / "z_r12r13_21_2021.06.26_held_in_calib.nwb", nwb))
    assert raised.value.reason == "unsupported task"


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    content = first_trials(content_of("m2"), 2)
    path = written(tmp_path, "m2", content)
    with pytest.raises(ConfigError, match="FALCON's bins are 20 ms, and its channels are fixed"):
        betz.read(path, bin_ms=10.0)
    with h5py.File(path, "r+") as file:
        short = file["acquisition/eval_mask/data"][:-1]
        del file["acquisition/eval_mask/data"]
        file["acquisition/eval_mask"].create_dataset("data", data=short)
        for key, value in {"conversion": 1.0, "resolution": -1.0, "unit": "bool", "offset": 0.0}.items():
            file["acquisition/eval_mask/data"].attrs[key] = value
    with pytest.raises(FileError, match="'eval_mask' has 159 rows, its stamps 160"):
        betz.read(path)
    path = written(tmp_path, "m2", content)
    with h5py.File(path, "r+") as file:
        file["acquisition/finger_vel/mrs/timestamps"][5] = 0.0
    with pytest.raises(FileError, match="its stamps are missing, NaN, or do not ascend"):
        betz.read(path)


def test_h1s_older_files_mark_what_is_not_scored(tmp_path: Path) -> None:
    content = content_of("h1", trials=2)
    path = written(tmp_path, "h1", content)
    with h5py.File(path, "r+") as file:
        file.move("acquisition/eval_mask", "acquisition/Blacklist")
        file["acquisition/Blacklist/data"][...] = ~file["acquisition/Blacklist/data"][()].astype(bool)
    np.testing.assert_array_equal(betz.read(path).behavior_of(["eval_mask"])[:, 0] == 1, content.mask_N)
