"""The recorder: what was sent is on disk, through a kill, half a record and a full disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import betz
from betz.core.errors import DataError, StreamError
from betz.core.prediction import GuardState, Prediction
from betz.core.session import BehaviorDim, channel_hash
from betz.live.clocks import ManualClock
from betz.live.links.replay import ReplaySource
from betz.live.loop import run_loop
from betz.live.ports import Timing
from betz.live.recorder import MemorySink, Recorder, Recording, read_recording
from tests.live.helpers import CHANNELS, MS, Total, session

ROOT = Path(__file__).resolve().parents[2]


def prediction(bin_: int, *values: float) -> Prediction:
    shape = np.array(values)[None, None]
    return Prediction(shape, None, np.array([[bin_]], dtype=np.int64), np.ones((1, 1), dtype=bool))


def record(folder: Path, *, decoder: Total | None = None, bins: int = 60, **about: Any) -> Recording:
    clock, decoder = ManualClock(9 * MS), decoder or Total()
    data = session(bins=bins, lost=[(20, 30)], edges=[40])
    run_loop(ReplaySource(data, clock), decoder, Recorder(folder, decoder, about=about), clock)
    return read_recording(folder)


def test_everything_sent_is_read_back(tmp_path: Path) -> None:
    decoder, clock, sink = Total(latency=1), ManualClock(), MemorySink()

    class Both(MemorySink):
        def send(self, prediction: Prediction, state: GuardState, timing: Timing) -> None:
            super().send(prediction, state, timing)
            recorder.send(prediction, state, timing)

    sink, recorder = Both(), Recorder(tmp_path / "a" / "b", decoder)
    acts = {3: lambda: clock.advance(7 * MS)}
    decoder.acts = acts
    run_loop(ReplaySource(session(lost=[(20, 30)]), clock), decoder, sink, clock)
    recorder.close()
    found = read_recording(tmp_path / "a" / "b")
    assert found.prediction.values.shape == (1, 60, 2)
    for name in ("values", "spread", "bin", "valid"):
        wanted = np.concatenate([getattr(p, name) for p in sink.predictions], axis=1)
        np.testing.assert_array_equal(getattr(found.prediction, name), wanted, err_msg=name)
    assert found.prediction.bin.dtype == np.int64
    assert found.states == ("ok",) * 60
    assert not found.torn
    for i, timing in enumerate(sink.timings):
        row = found.timings[i]
        stamps = (timing.ready_ns, timing.start_ns, timing.done_ns, timing.sent_ns, timing.deadline_ns)
        assert (row["pushed"], *(row[n] for n in row.dtype.names[1:])) == (timing.bin, *stamps)


def test_the_header_says_what_is_recorded(tmp_path: Path) -> None:
    header = record(tmp_path, session="made-up").header
    assert header["behavior"][0]["name"] == "total"
    assert header["columns"] == [["total", "spikes"], ["age", "bins"]]
    assert header["bin_ms"] == 20
    assert header["channel_hash"] == channel_hash(CHANNELS)
    assert [c["id"] for c in header["channels"]] == ["c0", "c1", "c2"]
    assert header["about"] == {"session": "made-up"}
    assert header["started_utc"].endswith("+00:00")


def test_discrete_dimensions_have_a_column_a_class(tmp_path: Path) -> None:
    decoder = Total()
    decoder.behavior = (BehaviorDim("grasp", "", "discrete", ("open", "shut")), BehaviorDim("x", "cm"))
    recorder = Recorder(tmp_path, decoder)
    recorder.send(prediction(0, 0.25, 0.75, 3.0), GuardState.OK, Timing(0, 1, 2, 3, 4, 5))
    recorder.close()
    found = read_recording(tmp_path)
    assert found.header["columns"] == [["grasp=open", "probability"], ["grasp=shut", "probability"], ["x", "cm"]]
    assert found.prediction.values.tolist() == [[[0.25, 0.75, 3.0]]]
    assert found.prediction.spread is None


def test_a_prediction_with_other_columns_is_refused(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, Total())
    with pytest.raises(StreamError, match="a prediction has 1 columns, the decoder has 2"):
        recorder.send(prediction(0, 1.0), GuardState.OK, Timing(0, 1, 2, 3, 4, 5))
    recorder.close()


def test_a_recording_equals_the_offline_evaluation(tmp_path: Path) -> None:
    found = record(tmp_path, decoder=Total(latency=2))
    data = session(lost=[(20, 30)], edges=[40])
    offline = betz.replay(Total(latency=2), data)
    assert found.equals(offline)
    other = replace(offline, values=offline.values.copy())
    other.values[0, 12, 0] += 1e-12 * other.values[0, 12, 0]
    assert not found.equals(other), "bit for bit"
    valid = offline.valid.copy()
    valid[0, 12] = False
    assert not found.equals(replace(offline, valid=valid))
    part = betz.replay(Total(latency=2), data.first(minutes=0.01))
    assert not found.equals(part), "bins that are valid on record are missing"
    assert not found.equals(replace(offline, values=offline.values[:, :, :1]))
    nothing = Prediction(np.empty((1, 0, 2)), None, np.empty((1, 0), np.int64), np.empty((1, 0), bool))
    assert not found.equals(nothing)


def test_skipped_bins_are_not_compared_and_nothing_equals_nothing(tmp_path: Path) -> None:
    clock = ManualClock()
    decoder = Total(acts={5: lambda: clock.advance(100 * MS)})
    result = run_loop(ReplaySource(session(), clock), decoder, Recorder(tmp_path, decoder), clock)
    assert result.skipped == 4
    offline = betz.replay(Total(), session())
    assert read_recording(tmp_path).equals(offline)
    Recorder(tmp_path, decoder).close()
    assert not read_recording(tmp_path).equals(offline)


def test_runs_are_numbered_and_nothing_is_overwritten(tmp_path: Path) -> None:
    record(tmp_path, bins=40)
    record(tmp_path, bins=50)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "run_0001.bin",
        "run_0001.json",
        "run_0002.bin",
        "run_0002.json",
    ]
    assert read_recording(tmp_path, run=1).prediction.bin.shape == (1, 40)
    assert read_recording(tmp_path).prediction.bin.shape == (1, 50)
    with pytest.raises(DataError, match=r"there is no run 3 here. Remedy: it has runs \[1, 2\]"):
        read_recording(tmp_path, run=3)


def test_two_recorders_at_once_take_two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Recorder(tmp_path, Total())
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(()))  # as if both had looked at the same moment
    second = Recorder(tmp_path, Total())
    assert (first.path.name, second.path.name) == ("run_0001.bin", "run_0002.bin")
    first.close()
    second.close()
    second.close()  # closing again does nothing


def test_half_a_last_record_is_left_out_and_said(tmp_path: Path) -> None:
    whole = record(tmp_path)
    path = tmp_path / "run_0001.bin"
    size = whole.header["record_bytes"]
    for cut in (1, size - 1):
        path.write_bytes(path.read_bytes()[: 50 * size - cut])
        found = read_recording(tmp_path)
        assert found.torn
        assert found.prediction.bin[0].tolist() == whole.prediction.bin[0, :49].tolist()


# ---- damage


def test_no_recording(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no recording here. Remedy: give a folder that a Recorder wrote"):
        read_recording(tmp_path / "nowhere")


@pytest.mark.parametrize("damage", ["{", "[]", '{"columns": [["x", ""]]}'])
def test_a_damaged_header(tmp_path: Path, damage: str) -> None:
    record(tmp_path)
    (tmp_path / "run_0001.json").write_text(damage)
    with pytest.raises(DataError, match="this recording is damaged"):
        read_recording(tmp_path)


def test_a_missing_data_file_and_a_newer_format(tmp_path: Path) -> None:
    header = dict(record(tmp_path).header)
    (tmp_path / "run_0001.json").write_text(json.dumps(header | {"version": 2}))
    with pytest.raises(DataError, match=r"version 2, records of .* is not one that this Betz reads. Remedy: update"):
        read_recording(tmp_path)
    (tmp_path / "run_0001.json").write_text(json.dumps(header | {"states": []}))
    with pytest.raises(DataError, match="guard states beyond"):
        read_recording(tmp_path)
    (tmp_path / "run_0001.bin").unlink()
    with pytest.raises(DataError, match=r"damaged .FileNotFoundError"):
        read_recording(tmp_path)


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_loop(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file: no recording can be started here \(.*choose a folder"):
        Recorder(tmp_path / "file", Total())


def test_no_room_for_the_header_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DataError, match="No space left on device"):
        Recorder(tmp_path, Total())
    assert list(tmp_path.iterdir()) == []


def in_another_process(code: str, *arguments: str) -> subprocess.Popen[str]:
    head = (
        "import sys\nfrom tests.live.helpers import *\nfrom betz.live.recorder import *\nfrom betz.live.loop import *\n"
    )
    command = [sys.executable, "-c", head + code, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


ENDLESS = """
import itertools
clock, decoder = ManualClock(), Total()
class Tells(Recorder):
    def send(self, prediction, state, timing):
        super().send(prediction, state, timing)
        print(timing.bin, flush=True)
run_loop(Script(clock, map(at, itertools.count())), decoder, Tells(sys.argv[1], decoder), clock)
"""


def test_kill_9_loses_nothing_that_was_sent(tmp_path: Path) -> None:
    process = in_another_process(ENDLESS, str(tmp_path))
    assert process.stdout is not None
    seen = -1
    for line in process.stdout:
        seen = int(line)
        if seen == 300:
            process.kill()
            break
    rest = process.stdout.read()
    assert process.wait() == -9
    process.stdout.close()
    assert process.stderr is not None
    process.stderr.close()
    whole_lines = [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]
    seen = int(whole_lines[-1]) if whole_lines else seen
    found = read_recording(tmp_path)
    assert found.prediction.bin.shape[1] >= seen + 1
    assert found.prediction.values[0, :301, 0].tolist() == list(range(1, 302))


FULL_DISK = """
import resource
clock, decoder, sink = ManualClock(), Total(), None
recorder = Recorder(sys.argv[1], decoder)
resource.setrlimit(resource.RLIMIT_FSIZE, (100 * recorder._size + 13, resource.RLIM_INFINITY))
def room():
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
items = [at(i) for i in range(300)]
if sys.argv[2] == "room again":
    items.insert(250, room)
try:
    run_loop(Script(clock, items), decoder, recorder, clock)
except Exception as error:
    print(type(error).__name__, error, *error.__notes__)
"""


@pytest.mark.parametrize("then, failed", [("full", 200), ("room again", 150)])
def test_a_full_disk_does_not_stop_the_loop_and_is_said_at_the_end(tmp_path: Path, then: str, failed: int) -> None:
    text, errors = in_another_process(FULL_DISK, str(tmp_path), then).communicate()
    assert errors == ""
    assert f"DataError {tmp_path}/run_0001.bin: {failed} of 300 predictions could not be written (first:" in text
    assert "Remedy: the others can be read" in text
    assert "300 bins, 300 sent" in text
    found = read_recording(tmp_path)
    assert not found.torn
    assert found.prediction.bin[0].tolist() == [*range(100), *range(100 + failed, 300)]
