"""``betz calibrate``, ``betz decode`` and ``betz evaluate``: from a session to files, and what they refuse."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import betz
from betz.cli import _sessions, calibrate, decode, evaluate
from betz.core.errors import ConfigError, DataError, StreamError
from betz.core.intervals import Intervals
from betz.core.session import BehaviorDim, Channel, Series, Session
from betz.core.timegrid import BinGrid
from betz.data.store import Store

app = typer.Typer()
for verb in (calibrate, decode, evaluate):
    app.command(verb.__name__.rsplit(".", 1)[1])(verb.command)


def session(name: str = "monkey_1", *, seed: int = 0, channels: int = 6) -> Session:
    """Two minutes and a half of 100 ms bins from second 5 on; bins 1000–1009 cannot be trusted."""
    rng = np.random.default_rng(seed)
    bins, grid = 1500, BinGrid(1000, 100, origin_tick=5000)
    moved = np.stack([np.convolve(rng.normal(size=bins), np.ones(9) / 3, "same") for _ in range(2)], axis=1)
    dims = (BehaviorDim("hand_vx", "cm/s"), BehaviorDim("hand_vy", "cm/s"))
    return Session(
        id=name,
        subject="nobody",
        grid=grid,
        num_bins=bins,
        channels=tuple(Channel(f"c{i}") for i in range(channels)),
        counts=rng.poisson(np.exp(0.5 * moved @ rng.normal(size=(2, channels)))).astype(np.uint8),
        behavior=(Series(moved.astype(np.float32), dims, 5000, 100),),
        valid=Intervals.of([(5000, 105_000), (106_000, 155_000)]),
    )


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of two sessions, one folder up from nothing else."""
    monkeypatch.chdir(tmp_path)
    made = Store(tmp_path / "store", create=True)
    made.put(session())
    made.put(session("monkey_2", seed=1))
    return Path("store")


def betz_(*words: str | Path) -> Any:
    return CliRunner().invoke(app, [str(w) for w in words])


@pytest.fixture
def decoder(store: Path) -> Path:
    found = betz_("calibrate", "store:monkey_1", "--behavior", "hand_vx,hand_vy", "--minutes", "1", "--out", "decoder")
    assert found.exit_code == 0, found.output
    return Path("decoder")


def test_calibrate_uses_the_first_minutes(decoder: Path) -> None:
    wanted = betz.Wiener().calibrate(session().first(minutes=1), behavior=["hand_vx", "hand_vy"])
    found = betz.load(decoder)
    assert found.channels == wanted.channels
    np.testing.assert_array_equal(betz.replay(found, session()).values, betz.replay(wanted, session()).values)


def test_calibrate_says_what_it_did(store: Path) -> None:
    said = betz_("calibrate", "store:monkey_1", "--behavior", "hand_v*", "--minutes", "9", "--out", "d").output
    assert "wiener calibrated on 2.50 minutes (of 9 asked for) of monkey_1" in said
    assert "6 channels, 100 ms bins, hand_vx (cm/s), hand_vy (cm/s)" in said


def test_decode_to_csv_equals_the_replay(decoder: Path) -> None:
    said = betz_("decode", "store:monkey_1", "--decoder", decoder, "--out", "x.csv")
    assert said.exit_code == 0, said.output
    assert "1,500 bins of monkey_1 decoded, 10 of them not valid" in said.output
    with open("x.csv", newline="") as file:
        head, *lines = list(csv.reader(file))
    assert head == ["time_s", "bin", "valid", "hand_vx [cm/s]", "hand_vy [cm/s]"]
    wanted = betz.replay(betz.load(decoder), session())
    assert [float(line[0]) for line in lines] == pytest.approx((np.arange(1500) * 0.1 + 5).tolist())
    assert [int(line[1]) for line in lines] == list(range(1500))
    assert [line[2] == "1" for line in lines] == wanted.valid[0].tolist()
    assert [line[3:] for line in lines[1000:1010]] == [["", ""]] * 10
    values = np.array([[float(v) for v in line[3:]] for line in lines if line[2] == "1"])
    np.testing.assert_allclose(values, wanted.values[0, wanted.valid[0]], rtol=1e-8)


def test_decode_to_npz_equals_the_replay(decoder: Path) -> None:
    assert betz_("decode", "store:monkey_1", "--decoder", decoder, "--out", "deep/er/x.npz").exit_code == 0
    wanted = betz.replay(betz.load(decoder), session())
    with np.load("deep/er/x.npz", allow_pickle=False) as found:
        np.testing.assert_array_equal(found["values"], wanted.values[0])
        np.testing.assert_array_equal(found["spread"], wanted.spread[0])
        np.testing.assert_array_equal(found["valid"], wanted.valid[0])
        np.testing.assert_array_equal(found["bin"], np.arange(1500))
        assert found["time_s"][[0, -1]] == pytest.approx([5.0, 154.9])
        assert found["names"].tolist() == ["hand_vx", "hand_vy"]
        assert found["units"].tolist() == ["cm/s", "cm/s"]
        assert (str(found["session"]), float(found["bin_ms"])) == ("monkey_1", 100.0)


def test_decode_refuses_and_writes_nothing(decoder: Path, store: Path) -> None:
    with pytest.raises(ConfigError, match=r"x.txt: cannot write .txt. Remedy: use .npz, .csv or .nwb"):
        raise betz_("decode", "store:monkey_1", "--decoder", decoder, "--out", "x.txt").exception
    Store(store).put(session("other", channels=5))
    with pytest.raises(StreamError, match="the decoder has 6, the session 5; 'c5' missing"):
        raise betz_("decode", "store:other", "--decoder", decoder, "--out", "x.csv").exception
    assert sorted(p.name for p in Path().iterdir()) == ["decoder", "store"]


@pytest.mark.parametrize(
    "words, text",
    [
        (["store:monkey_1"], "no behavior is named. Remedy: add --behavior NAME,…; it has hand_vx, hand_vy"),
        (["store:monkey_1", "--behavior", "hand_vx,emg_*"], r"no behavior emg_\*. Remedy: it has hand_vx, hand_vy"),
        (["store:monkey_1", "--behavior", "hand_vx", "--decoder", "kalmann"], "no decoder is named 'kalmann'.*wiener"),
        (
            ["store:monkey_3", "--behavior", "hand_vx"],
            "store: no session 'monkey_3'. Remedy: it has monkey_1, monkey_2",
        ),
        (["store", "--behavior", "hand_vx"], "this store holds 2 sessions. Remedy: name one, e.g. store:monkey_1"),
        (["nowhere.mat", "--behavior", "hand_vx"], "nowhere.mat: there is no such file or store"),
    ],
)
def test_calibrate_refuses(store: Path, words: list[str], text: str) -> None:
    error = betz_("calibrate", *words, "--out", "d").exception
    assert isinstance(error, (ConfigError, DataError))
    assert error.args[0]
    with pytest.raises(type(error), match=text):
        raise error
    assert not Path("d").exists()


def test_open_sessions_takes_stores_members_and_files(store: Path) -> None:
    counts = np.random.default_rng(0).poisson(2, (100, 3))
    np.savez("mine.npz", counts=counts, velocity=np.random.default_rng(1).normal(size=(100, 2)))
    Path("mine.toml").write_text(
        'subject = "m"\n[signals]\nvariable = "counts"\naxes = ["time", "channel"]\n[time]\nbin_ms = 20\n'
        '[[behavior]]\nvariable = "velocity"\ndims = [{ name = "vx", unit = "cm/s" }, { name = "vy", unit = "cm/s" }]\n'
    )
    found = _sessions.open_sessions(["store", "mine.npz"], mapping="mine.toml")
    assert [s.id for s in found] == ["monkey_1", "monkey_2", "mine"]
    np.testing.assert_array_equal(found[2].signals, counts)
    assert _sessions.open_session("store:monkey_2").id == "monkey_2"
    Store(Path("empty"), create=True)
    with pytest.raises(DataError, match="empty: this store is empty"):
        _sessions.open_sessions(["empty"])


def test_evaluate_writes_results_and_a_report(store: Path, decoder: Path) -> None:
    words = [
        "evaluate",
        "store",
        "--behavior",
        "velocity=hand_vx,hand_vy",
        "--decoder",
        "wiener",
        "--decoder",
        "decoder",
    ]
    found = betz_(*words, "--minutes", "0.5,1", "--seeds", "0", "--out", "results")
    assert found.exit_code == 0, found.output
    rows = [json.loads(line) for line in Path("results/results.jsonl").read_text().splitlines()]
    assert [(r["session"], r["decoder"], r["minutes"]) for r in rows] == [
        (name, *cell)
        for name in ("monkey_1", "monkey_2")
        for cell in (("wiener", 0.5), ("decoder", 0.0), ("wiener", 1.0))
    ]
    assert "R² of velocity" in found.output
    report = Path("results/report.html").read_text()
    assert "Decoder wiener reaches a mean R² of" in report
    again = betz_(*words, "--minutes", "0.5,1", "--out", "results", "--json")
    assert again.exit_code == 0, again.output
    table = json.loads(again.stdout)
    assert {(c["decoder"], c["minutes"], c["sessions"]) for c in table} == {
        ("decoder", 0.0, 2),
        ("wiener", 0.5, 2),
        ("wiener", 1.0, 2),
    }
    assert "6 of 6 results were there from an earlier run" in again.stderr


def test_evaluate_reports_before_it_fails(store: Path, decoder: Path) -> None:
    """A decoder that does not fit one session: its cells are errors, the others are reported, the verb fails."""
    Store(store).put(session("other", channels=5))
    found = betz_("evaluate", "store", "--behavior", "hand_vx,hand_vy", "--decoder", decoder, "--out", "results")
    assert found.exit_code == 1
    with pytest.raises(betz.evaluate.run.RunError, match="1 of 3 results are errors: session other: its channels"):
        raise found.exception
    assert "1 failed" in found.output
    assert "its channels are not the decoder" in Path("results/report.html").read_text()


@pytest.mark.parametrize(
    "words, text",
    [
        ([], r"no behavior is named. Remedy: add --behavior NAME,… \(betz inspect shows the names\)"),
        (["--behavior", "a=hand_vx", "--behavior", "a=hand_vy"], "the task 'a=hand_vy' is empty or repeated"),
        (["--behavior", "="], "the task '=' is empty or repeated"),
        (["--behavior", "hand_vx", "--minutes", "one"], "--minutes 'one' are not numbers with commas"),
        (["--behavior", "hand_vx", "--minutes", "0"], "minutes must be above 0"),
        (["--behavior", "hand_vx", "--decoder", "wiener", "--decoder", "wiener"], "two decoders are named 'wiener'"),
        (["--behavior", "grip"], r"no session has the behavior of task 'grip' \(grip\)"),
    ],
)
def test_evaluate_refuses(store: Path, words: list[str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        raise betz_("evaluate", "store", *words, "--out", "results").exception
    assert not Path("results/report.html").exists()
