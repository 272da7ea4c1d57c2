"""A submission is built, rehearsed with the official evaluator, and its prediction file checked."""

from __future__ import annotations

import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import betz
from betz.cli.main import app
from betz.core.errors import ConfigError, DataError
from betz.data.importers.falcon_names import TASKS, public_name
from betz.evaluate.falcon import targets
from betz.evaluate.falcon_submission import build_submission, check_predictions, load_decoders, push_command, rehearse
from betz.testing.falcon_files import content_of, write_file
from tests.unit.test_falcon_evaluator import QUICK, few_contents


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decoder")
    path = folder / public_name("m2", "Run1_20201019", "calib")
    write_file(path, "m2", content_of("m2"))
    session = betz.read(path)
    QUICK.calibrate(session.without_edges(), behavior=targets(session)).save(folder / "saved")
    return folder / "saved"


@pytest.mark.slow
def test_build_and_rehearse(decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("falcon_challenge.evaluator")
    monkeypatch.chdir(tmp_path)
    few_contents(tmp_path / "data", "m2")
    words = ["falcon", "rehearse", "--task", "m2", "--decoders", str(decoder), "--data", "data", "--out", "submission"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "predictions valid: 7 files, 490 bins" in done.stdout
    assert "Held In R2 Mean: 0." in done.stdout
    assert "note: minival is training data: these scores check plumbing" in done.stdout
    assert done.stdout.endswith(push_command("m2") + "\n")
    assert "--phase few-shot-minival-2319" in push_command("m2")
    recipe = (tmp_path / "submission" / "Dockerfile").read_text()
    assert "SPLIT=m2 PHASE=minival BATCH_SIZE=7" in recipe
    assert "EVAL_DATA_PATH=/dataset/evaluation_data PREDICTION_PATH=/submission/submission.csv" in recipe
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "submission"]
    (tmp_path / "data" / "m2" / "minival" / public_name("m2", "Run1_20201028", "minival")).unlink()
    with pytest.raises(DataError, match="the submission failed: "):
        rehearse(tmp_path / "submission", "m2", tmp_path / "data", work=tmp_path / "work")


def test_a_submission_folder(decoder: Path, tmp_path: Path) -> None:
    wheel = tmp_path / "betz-1-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    out = build_submission("m2", decoder, tmp_path / "out", batch_size=2, wheel=wheel)
    assert load_decoders(out / "decoders").keys() == {"all"}
    recipe = (out / "Dockerfile").read_text()
    assert "BATCH_SIZE=2" in recipe
    assert 'pip install --no-cache-dir "/wheels/betz-1-py3-none-any.whl[falcon]"' in recipe
    with pytest.raises(ConfigError, match="the folder is not empty"):
        build_submission("m2", decoder, out)
    with pytest.raises(ConfigError, match="there is no saved decoder in it"):
        load_decoders(tmp_path)
    with pytest.raises(ConfigError, match="it has 96 channels"):
        build_submission("m1", decoder, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def predictions(**changes: Any) -> dict[str, Any]:
    found = defaultdict(list, {key: np.zeros((9, 2)) for key in TASKS["m2"].held_in})
    return {"m2": {**found, "normalized_latency": np.float64(0.01), **changes}}


@pytest.mark.parametrize(
    "content, text",
    [
        (predictions(Run1_20201019=np.full((9, 2), np.nan)), "18 predictions are NaN or infinite"),
        (predictions(Run1_20201019=np.zeros((9, 3))), r"float64 \(9, 3\), wanted \(bins, 2\)"),
        ({"m2": {"normalized_latency": 0.0}}, "7 files are missing: Run1_20201019"),
        ({"m1": {}}, "it has no predictions of m2 with a latency"),
        ({"m2": Path("x")}, r"it cannot be read \(UnpicklingError: it names pathlib"),
    ],
)
def test_a_prediction_file_that_is_wrong(content: Any, text: str, tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=text):
        check_predictions(path, "m2", phase="minival")
    path.write_bytes(pickle.dumps(predictions()))
    assert check_predictions(path, "m2", phase="minival") == dict.fromkeys(TASKS["m2"].held_in, 9)
    with pytest.raises(DataError, match="6 files are missing: Run1_20201030"):
        check_predictions(path, "m2", phase="test")


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["falcon-fixture", "data", "--task", "m2", "--part", "calib", "--trials", "4"])
    assert done.exit_code == 0, done.output
    assert "m2: 13 synthetic files" in done.stdout
    files = sorted(str(p) for p in Path("data").rglob("*Run1_*.nwb"))[:1]
    done = CliRunner().invoke(app, ["falcon", "pseudo", *files, "--decoder", "ole"])
    assert done.exit_code == 0, done.output
    assert "not comparable with the leaderboard" in done.stdout
    done = CliRunner().invoke(app, ["falcon-fixture", "data", "--task", "b1"])
    assert done.exit_code == 1
    assert "error: there is no FALCON task 'b1'. Remedy: tasks are h1, h2, m1, m2; B1 decodes" in done.stderr
    words = ["falcon", "rehearse", "--task", "m2", "--data", "data", "--out", "s", "--phase", "eval"]
    assert "there is no phase 'eval'" in CliRunner().invoke(app, words).stderr
