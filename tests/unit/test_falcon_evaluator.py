"""Betz decoders in the official evaluator: the official numbers equal ours; and the adapter by itself."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import betz
from betz.core.errors import ConfigError, DataError, StreamError
from betz.core.prediction import Prediction
from betz.data.importers.falcon_names import TASKS, TaskName, public_name, server_name
from betz.decode.baselines.wiener import WienerDecoder
from betz.evaluate.falcon import (
    FIXED_TEXT,
    FalconDecoder,
    continuous_scores,
    evaluate_official,
    official_split,
    targets,
    text_scores,
)
from betz.evaluate.falcon_pseudo import pseudo_falcon, pseudo_parts
from betz.evaluate.replay import replay
from betz.testing.falcon_files import content_of, write_file
from tests.unit.transformer_helpers import TINY, decoder_of, lively

QUICK = betz.Wiener(lags=3, prefilter_ms=(0,), strengths=(0.1,), validation="tail", folds=5)


def calibrated(folder: Path, task: TaskName, *, key: str = "", **content: Any) -> WienerDecoder:
    path = folder / public_name(task, key or TASKS[task].held_in[0], "calib")
    write_file(path, task, content_of(task, **content))
    session = betz.read(path)
    return QUICK.calibrate(session.without_edges(), behavior=targets(session))


def few_contents(folder: Path, task: TaskName) -> None:
    """All files that the evaluator wants to see, with three contents held in and three held out."""
    known = TASKS[task]
    for number, key in enumerate((*known.held_in, *known.held_out)):
        change = None if key in known.held_in else 1
        for place, name in (("minival", public_name(task, key, "minival")), ("eval", server_name(task, key))):
            if place == "minival" and change is not None:
                continue
            path = folder / task / place / name
            same = path.parent / f"{number % 3}_{change}.like"
            path.parent.mkdir(parents=True, exist_ok=True)
            if not same.exists():
                write_file(same, task, content_of(task, trials=2, trial_s=0.7, change=change, seed=number))
            shutil.copy(same, path)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["m1", "m2", "h1"])
def test_the_official_score_is_ours(task: TaskName, tmp_path: Path) -> None:
    pytest.importorskip("falcon_challenge.evaluator")
    decoder = calibrated(tmp_path, task, trials=6)
    data = tmp_path / "data"
    few_contents(data, task)
    for phase, pattern in (("minival", "*minival/*.nwb"), ("test", "eval/*.nwb")):
        official = evaluate_official(FalconDecoder(task, decoder), data, phase=phase, work=tmp_path / "work")
        files = {}
        for path in sorted((data / task).glob(pattern)):
            session = betz.read(path)
            found = replay(decoder, session.without_edges())
            scored = session.behavior_of(["eval_mask"])[:, 0] == 1
            files[session.tags["falcon_key"]] = (session.behavior_of(targets(session)), found.values[0], scored)
        ours = continuous_scores(task, files)
        compared = [name for name in official if name != "Normalized Latency"]
        assert len(compared) == (2 if phase == "minival" else 4)
        for name in compared:
            assert ours[name] == pytest.approx(official[name], abs=1e-6), (phase, name)
    assert official["Held In R2 Mean"] > 0.05  # short files of one latent trajectory: the number means nothing else


@pytest.mark.slow
def test_h2_runs_end_to_end_with_a_fixed_text(tmp_path: Path) -> None:
    pytest.importorskip("falcon_challenge.evaluator")
    few_contents(tmp_path, "h2")
    decoder = FalconDecoder("h2", None)
    assert decoder.text_source == "fixed text: plumbing, no decoding"
    for phase, pattern in (("minival", "*minival/*.nwb"), ("test", "eval/*.nwb")):
        official = evaluate_official(decoder, tmp_path, phase=phase, work=tmp_path / "work")
        texts = {}
        for path in sorted((tmp_path / "h2").glob(pattern)):
            session = betz.read(path)
            assert session.trials is not None
            cues = [str(cue) for cue in session.trials.columns["cue"]]
            texts[session.tags["falcon_key"]] = (cues, [FIXED_TEXT] * len(cues))
        ours = text_scores(texts)
        assert ours
        for name, value in ours.items():
            assert official[name] == pytest.approx(value, abs=1e-6), name
    assert 0 < official["Held In CER"] < 1


def test_each_row_is_decoded_by_its_files_decoder(tmp_path: Path) -> None:
    one = calibrated(tmp_path, "m2")
    other = calibrated(tmp_path, "m2", key="Run1_20201020", tuning=5)
    falcon = FalconDecoder("m2", {"20201020": other, "all": one})
    counts = content_of("m2", seed=4).counts_NC[:30]
    names = [public_name("m2", key, "minival") for key in ("Run1_20201019", "Run2_20201020", "Run2_20201019")]
    falcon.reset([Path("/data") / name for name in names])
    found = np.stack([falcon.predict(np.stack([row, row, row[::-1]])) for row in counts])
    for row, (decoder, signals) in enumerate(((one, counts), (other, counts), (one, counts[:, ::-1]))):
        decoder.open()
        alone = np.concatenate([decoder.push(np.ascontiguousarray(bin_)).values[0] for bin_ in signals])
        np.testing.assert_allclose(found[:, row], alone, atol=1e-9)
    falcon.reset([names[0]])  # the last batch is smaller, and nothing of the one before is left
    again = np.concatenate([falcon.predict(row[None]) for row in counts])
    np.testing.assert_allclose(again, found[:, 0], atol=1e-9)
    assert (falcon.batch_size, found.dtype) == (7, np.float64)
    falcon.set_batch_size(3)
    assert falcon.batch_size == 3


class Late:
    """A decoder of M2 whose first two bins are not valid, and whose fourth has no value."""

    def __init__(self, like: WienerDecoder) -> None:
        self.bin_ms, self.channels, self.behavior = like.bin_ms, like.channels, like.behavior
        self.latency_bins, self.context_bins = 2, None
        self.text: tuple[str, ...] | None = None
        self.count = 0

    def open(self, rows: int = 1, *, max_push_bins: int = 1) -> None:
        self.rows, self.count = rows, 0

    def reset(self, rows: Any = None) -> None:
        self.count = 0

    def push(self, signals: Any, present: Any = None) -> Prediction:
        self.count += 1
        values = np.full((self.rows, 1, 2), np.nan if self.count == 4 else float(self.count))
        text = None if self.text is None else ("hello you"[: self.count],)
        return Prediction(
            values, None, np.zeros((self.rows, 1), np.int64), np.full((self.rows, 1), self.count > 2), text
        )


def test_what_is_not_valid_holds_the_last_value(tmp_path: Path) -> None:
    falcon = FalconDecoder("m2", Late(calibrated(tmp_path, "m2")))  # type: ignore[arg-type]
    falcon.reset(["Run1_20201019"])
    found = [falcon.predict(np.zeros((1, 96), np.uint8))[0, 0] for _ in range(5)]
    assert found == [0, 0, 3, 3, 5]
    falcon.observe(np.zeros((1, 96), np.uint8))
    assert falcon.predict(np.zeros((1, 96), np.uint8))[0, 1] == 7


def test_a_sequence_head_writes_h2s_text(tmp_path: Path) -> None:
    like = calibrated(tmp_path, "m2")
    writer = Late(like)
    writer.channels = tuple(betz.Channel(f"ch{c + 1}") for c in range(192))
    writer.text = ("",)
    falcon = FalconDecoder("h2", writer)  # type: ignore[arg-type]
    assert falcon.text_source == "decoder"
    falcon.reset([public_name("h2", "2022.05.18", "minival")])
    for length in (7, 5):
        for _ in range(length):
            falcon.predict(np.zeros((1, 192), np.uint8))
        assert falcon.on_done(np.array([True])) == "hello>you"[:length]


def test_the_transformers_sequence_head_writes_h2s_text() -> None:
    model = lively(replace(TINY, sequence_classes=9), std=0.6)
    channels = [betz.Channel(f"ch{c + 1}") for c in range(192)]
    decoder = decoder_of(model, channels=channels, dims=0)
    counts = content_of("h2", trials=1, trial_s=0.8).counts_NC
    decoder.open()
    for row in counts:
        alone = decoder.push(row).text
    assert alone is not None
    falcon = FalconDecoder("h2", decoder)
    falcon.reset([public_name("h2", "2022.05.18", "minival")])
    for _ in range(2):  # the second trial does not continue the first
        for row in counts:
            falcon.predict(row[None])
        assert falcon.on_done(np.array([True])) == alone[0].replace(" ", ">") != ""


def test_the_official_split(tmp_path: Path) -> None:
    sessions = []
    for key, part in (("20120924", "calib"), ("20120924", "minival"), ("20121004", "calib")):
        path = tmp_path / public_name("m1", key, part)
        write_file(path, "m1", content_of("m1", trials=2, trial_s=0.4))
        sessions.append(betz.read(path))
    write_file(tmp_path / server_name("m1", "20121024"), "m1", content_of("m1", trials=2, trial_s=0.4))
    sessions.append(betz.read(tmp_path / server_name("m1", "20121024")))
    split = official_split(sessions)
    assert {name: len(ids) for name, ids in split.items()} == {
        "held-in calib": 1, "held-out calib": 1, "minival": 1, "held-in eval": 0, "held-out eval": 1,
        "not there: held-in calib": 3, "not there: held-out calib": 2,
    }  # fmt: skip
    assert split["not there: held-out calib"] == ("20121017", "20121024")
    assert split["minival"] == (sessions[1].id,)
    with pytest.raises(DataError, match="it is no file of FALCON's public or evaluation sets"):
        official_split([dataclasses.replace(sessions[0], tags={})])


def test_decoders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    one = calibrated(tmp_path, "m2")
    with pytest.raises(
        ConfigError, match="FALCON h1, decoder 'all': it has 96 channels in 20 ms bins; the task has 176"
    ):
        FalconDecoder("h1", one)
    session = betz.read(tmp_path / public_name("m2", "Run1_20201019", "calib"))
    turned = QUICK.calibrate(session, behavior=["mrs_v", "index_v"])
    with pytest.raises(ConfigError, match="it decodes mrs_v, index_v, the official order is index_v, mrs_v"):
        FalconDecoder("m2", turned)
    with pytest.raises(ConfigError, match="it decodes 1 dimensions, the task wants 2"):
        FalconDecoder("m2", QUICK.calibrate(session, behavior=["index_v"]))
    with pytest.raises(ConfigError, match="FALCON m2: it needs a decoder"):
        FalconDecoder("m2", None)
    with pytest.raises(ConfigError, match="there is no FALCON task 'b1'"):
        FalconDecoder("b1", one)  # type: ignore[arg-type]
    falcon = FalconDecoder("m2", {"20201019": one})
    with pytest.raises(ConfigError, match=r"there is no decoder for 'Run1_20201020' \(key 'Run1_20201020'"):
        falcon.reset(["Run1_20201020"])
    falcon.reset(["Run1_20201019"])
    with pytest.raises(StreamError, match=r"counts are \(2, 96\), but reset named 1 files"):
        falcon.predict(np.zeros((2, 96), np.uint8))
    with pytest.raises(DataError, match="'Run9_20300101' is no file of the benchmark"):
        continuous_scores("m2", {"Run9_20300101": (np.zeros((3, 2)), np.zeros((3, 2)), np.ones(3, bool))})


def test_pseudo_falcon_holds_out_trials_and_says_that_it_cannot_be_compared(tmp_path: Path) -> None:
    sessions = []
    for key, trials, seed in (("Run1_20201019", 10, 1), ("Run2_20201019", 10, 2), ("Run1_20201030", 3, 3)):
        path = tmp_path / public_name("m2", key, "calib")
        write_file(path, "m2", content_of("m2", trials=trials, seed=seed))
        sessions.append(betz.read(path))
    found = pseudo_falcon(QUICK, sessions)
    assert "not comparable" in found.label
    assert {key: (a.first, a.end, b.first, b.end) for key, (a, b) in found.parts.items()} == {
        "Run1_20201019": (0, 640, 640, 800), "Run2_20201019": (0, 640, 640, 800), "Run1_20201030": (0, 160, 160, 240),
    }  # fmt: skip
    assert set(found.scores) == {
        "Held In R2 Mean", "Held In R2 Std.", "Held Out R2 Mean", "Held Out R2 Std.", "20201019 R2", "20201030 R2",
    }  # fmt: skip
    assert found.scored_bins == (2 + 2 + 1) * 72
    assert found.scores["20201019 R2"] > 0.4
    other = tmp_path / public_name("m2", "Run1_20201019", "minival")
    write_file(other, "m2", content_of("m2"))
    with pytest.raises(DataError, match=r"it is no public calibration file \(split 'held-in', part 'minival'\)"):
        pseudo_parts(betz.read(other))
    with pytest.raises(DataError, match="files of one task are wanted"):
        pseudo_falcon(QUICK, [])
