"""``betz replay`` and ``betz doctor``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import betz
from betz.cli import doctor, replay
from betz.core.errors import CheckpointError, ConfigError, DataError
from betz.live.clocks import ManualClock
from betz.live.recorder import Recorder, read_recording
from tests.live.helpers import BIN, labelled_session

app = typer.Typer()
app.command("replay")(replay.command)
app.command("doctor")(doctor.command)

SESSION = labelled_session(bins=1500, lost=[(100, 110)])


@pytest.fixture
def decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A saved decoder, the session behind the word ``made-up``, and virtual time."""
    recipe = betz.Wiener(span_ms=(200,), prefilter_ms=(120,), strengths=(0.1,))
    folder = tmp_path / "decoder"
    recipe.calibrate(SESSION, behavior=["x"]).save(folder)
    monkeypatch.setattr("betz.cli._sessions.open_session", lambda text: {"made-up": SESSION}[text])
    monkeypatch.setattr("betz.live.clocks.MonotonicClock", ManualClock)
    return str(folder)


def invoke(*arguments: str) -> Any:
    done = CliRunner().invoke(app, arguments)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done


def test_replay_prints_its_latencies_and_records(decoder: str, tmp_path: Path) -> None:
    done = invoke("replay", "made-up", "--decoder", decoder, "--out", str(tmp_path / "out"))
    assert "made-up: 500 of 1,500 bins, 50 bins/s" in done.stdout
    assert "500 bins, 500 sent, 0 late, 10 lost" in done.stdout
    assert "latency, end of bin to sink" in done.stdout
    assert "run_0001.bin" in done.stdout
    found = read_recording(tmp_path / "out")
    assert found.equals(betz.replay(betz.load(decoder), SESSION))
    assert found.header["about"]["session"] == "made-up"
    assert len(found.header["about"]["decoder_sha256"]) == 64
    assert found.timings["ready_ns"].tolist() == [(i + 1) * BIN for i in range(500)]


@pytest.mark.parametrize(
    "options, bins, text",
    [
        (["--seconds", "4"], 200, "200 of 1,500 bins, 50 bins/s"),
        (["--seconds", "0", "--speed", "2"], 1500, "1,500 of 1,500 bins, 100 bins/s"),
        (["--seconds", "1000", "--speed", "0"], 1500, "1,500 of 1,500 bins, as fast as possible"),
    ],
)
def test_replay_as_json(decoder: str, options: list[str], bins: int, text: str) -> None:
    done = invoke("replay", "made-up", "--decoder", decoder, "--json", *options)
    found = json.loads(done.stdout)
    assert (found["bins"], found["ended"]) == (bins, "source")
    assert text in done.stderr


@pytest.mark.parametrize("options", [["--speed", "-1"], ["--seconds", "-3"], ["--speed", "nan"]])
def test_impossible_options_are_refused(decoder: str, options: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"--speed .* --seconds .* is impossible"):
        invoke("replay", "made-up", "--decoder", decoder, *options)


def test_no_decoder_is_refused(decoder: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="this is no saved decoder"):
        invoke("replay", "made-up", "--decoder", str(tmp_path))


def test_a_full_disk_is_an_error_after_the_run(decoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def close(self: Recorder) -> None:
        self._file.close()
        raise DataError("3 of 200 predictions could not be written.")

    monkeypatch.setattr(Recorder, "close", close)
    done = CliRunner().invoke(
        app, ["replay", "made-up", "--decoder", decoder, "--seconds", "4", "--out", str(tmp_path)]
    )
    assert isinstance(done.exception, DataError)
    assert "The loop itself had ended: 200 bins, 200 sent" in done.stdout


# ---- doctor


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "WAITS", 3)
    monkeypatch.setattr(doctor, "WAIT_MS", 0.1)
    monkeypatch.setattr(doctor, "PUSHES", 30)
    monkeypatch.setattr(doctor, "DISK_MB", 1)


@pytest.mark.usefixtures("quick")
def test_doctor(tmp_path: Path) -> None:
    found = json.loads(invoke("doctor", "--folder", str(tmp_path), "--json").stdout)
    assert found["versions"]["betz"] == betz.__version__
    assert found["versions"]["torch"]
    assert found["machine"]["cores"] >= 1
    assert found["timer"]["sleep_p99_ms"] >= 0
    assert found["disk"]["write_mb_s"] > 0
    assert found["push"]["p99_ms"] >= found["push"]["p50_ms"] > 0
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
    text = invoke("doctor", "--folder", str(tmp_path)).stdout
    assert "192 channels × 50 lags" in text
    assert "• " in text


def test_doctor_on_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: this folder cannot be written to.*choose another with --folder"):
        invoke("doctor", "--folder", str(tmp_path / "nowhere"))


def good() -> dict[str, dict[str, Any]]:
    return {
        "machine": {"load_1min": 0.5, "cores_allowed": 4},
        "priority": {"nice": 0},
        "timer": {"wait_p99_ms": 0.1},
        "disk": {"folder": "/data", "free_gb": 100.0, "write_mb_s": 500.0},
        "push": {"p99_ms": 0.5},
    }


def test_nothing_to_improve() -> None:
    assert doctor.advice(good()) == []
    unknown = good()
    unknown["priority"]["nice"] = unknown["machine"]["load_1min"] = None
    assert doctor.advice(unknown) == []


@pytest.mark.parametrize(
    "part, name, value, text",
    [
        ("timer", "wait_p99_ms", 3.04, "up to 3.0 ms too late (p99): close other programs"),
        ("machine", "load_1min", 4.2, "Load 4.2 on 4 cores"),
        ("machine", "cores_allowed", 1, "Only one core"),
        ("priority", "nice", 10, "low priority (nice 10)"),
        ("push", "p99_ms", 12.0, "A push takes 12.0 ms (p99)"),
        ("disk", "free_gb", 1.5, "Only 1.5 GB are free in /data"),
        ("disk", "write_mb_s", 7.0, "The disk of /data writes 7 MB/s"),
    ],
)
def test_advice(part: str, name: str, value: float, text: str) -> None:
    report = good()
    report[part][name] = value
    lines = doctor.advice(report)
    assert len(lines) == 1
    assert text in lines[0]
