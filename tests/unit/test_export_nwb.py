"""Sessions and predictions as NWB: valid by the official checks, read back the same, and without a name on request."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import betz
from betz.cli.main import app
from betz.core.errors import DataError
from betz.core.intervals import Intervals
from betz.core.session import Channel, Provenance, Series, Session, Trials
from betz.core.timegrid import BinGrid, count_spikes
from betz.data.exporters.nwb import write_nwb
from tests.unit import nwb_files

WHO = "T5-Jane"


def session_of(signals: str = "spikes") -> Session:
    rng = np.random.default_rng(0)
    grid = BinGrid(30_000, 600, 1200)
    spikes = tuple(np.sort(rng.integers(1200, 1200 + 600 * 500, 400)) for _ in range(4))
    channels = tuple(Channel(f"c{k}", ("crossings", "unit")[k % 2], "AB"[k // 2]) for k in range(4))  # type: ignore[arg-type]
    extra: dict[str, Any] = {}
    if signals == "counts":
        extra["counts"] = count_spikes(spikes, grid, 500)
        channels = tuple(Channel(c.id, "crossings", c.array) for c in channels)
    elif signals == "power":
        extra["power"] = rng.normal(size=(500, 4)).astype(np.float32)
        channels = tuple(Channel(c.id, "power", c.array, "uV^2") for c in channels)
    else:
        extra["spikes"] = spikes
    values = np.stack([np.sin(np.arange(500) / 20), np.cos(np.arange(500) / 15)], axis=1).astype(np.float32)
    values[7] = np.nan
    dims = (betz.BehaviorDim("hand_vx", "cm/s"), betz.BehaviorDim("hand_vy", "cm/s"))
    start = np.array([1200, 90_000])
    return Session(
        id=f"{WHO}_20260412", subject=WHO, grid=grid, num_bins=500, channels=channels,
        behavior=(Series(values, dims, 1200, 600),),
        valid=Intervals.of([(1200, 150_000), (153_000, 301_200)]),
        trials=Trials(start, start + 60_000, ("left", "right"),
                      {"go_cue_time": np.array([0.1, 3.0]), "said": np.array([f"{WHO} hello", "x"])}),
        task=f"cursor control by {WHO}", tags={"date": "2026-04-12T10:00:00+00:00", "lab": f"Lab of {WHO}"},
        provenance=Provenance(f"{WHO}.nev", "ab" * 32, "neo", {"bin_ms": 20}, (f"{WHO} fidgeted",), {"x": 1}),
        **extra,
    )  # fmt: skip


def complaints(path: Path) -> list[str]:
    """What the official validator, and the inspector above the level of advice, say."""
    import nwbinspector
    import pynwb

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        errors = [str(e) for e in pynwb.validate(path=str(path))]
        found = nwbinspector.inspect_nwbfile(
            nwbfile_path=str(path), importance_threshold=nwbinspector.Importance.CRITICAL
        )
        return errors + [f"{m.importance.name} {m.check_function_name}: {m.message}" for m in found]


@pytest.mark.parametrize("signals", ["spikes", "counts", "power"])
def test_it_is_valid_and_comes_back(signals: str, tmp_path: Path) -> None:
    session = session_of(signals)
    path = write_nwb(session, tmp_path / "out.nwb")
    assert complaints(path) == []
    if signals == "power":
        return
    back = betz.read(path, nan="mask")
    assert [(c.id, c.kind, c.array) for c in back.channels] == [(c.id, c.kind, c.array) for c in session.channels]
    if session.spikes is not None:
        for own, found in zip(session.spikes, back.spikes or (), strict=True):
            np.testing.assert_array_equal(own, found)
        assert back.grid.tick_hz == 30_000
    first = round((session.grid.seconds(session.grid.origin_tick) - back.grid.seconds(back.grid.origin_tick)) / 0.02)
    assert first == 0
    np.testing.assert_array_equal(back.signals[:500], session.signals)
    np.testing.assert_allclose(
        back.behavior_of(["hand_vx", "hand_vy"])[:500], session.behavior_of(["hand_vx", "hand_vy"]), atol=1e-6
    )
    np.testing.assert_array_equal(back.usable[:500], session.usable)
    assert back.trials is not None
    assert session.trials is not None
    assert back.trials.condition == ("left", "right")
    np.testing.assert_allclose(
        back.grid.seconds(back.trials.start), session.grid.seconds(session.trials.start), atol=1e-6
    )
    assert (back.subject, back.tags["date"]) == (WHO.replace("-", "_"), "2026-04-12T10:00:00+00:00")


def test_de_identified_files_do_not_say_who_it_was(tmp_path: Path) -> None:
    open_path = write_nwb(session_of(), tmp_path / "open.nwb")
    assert WHO.encode() in open_path.read_bytes()
    assert b"2026-04-12" in open_path.read_bytes()
    path = write_nwb(session_of(), tmp_path / "closed.nwb", deidentify=True)
    content = path.read_bytes()
    for secret in (WHO, "Jane", "T5", "2026-04-12", "hello", "fidgeted", "open.nwb", "closed.nwb"):
        assert secret.encode() not in content, secret
    assert complaints(path) == []
    back = betz.read(path, nan="mask")
    assert (back.subject, back.tags["date"][:10], back.task) == ("anonymous", "1970-01-01", "intracortical recording")
    np.testing.assert_array_equal(back.signals[:500], session_of().signals)


def test_decode_writes_session_prediction_and_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pynwb

    monkeypatch.chdir(tmp_path)
    source = nwb_files.reaching(tmp_path / "monkey_1.nwb", seconds=40.0)
    session = betz.read(source)
    decoder = betz.Wiener(lags=3, prefilter_ms=(0,), strengths=(0.1,), validation="tail", folds=5).calibrate(
        session, behavior=["hand_vx", "hand_vy"]
    )
    decoder.save(tmp_path / "decoder")
    done = CliRunner().invoke(app, ["decode", "monkey_1.nwb", "--decoder", "decoder", "--out", "decoded.nwb"])
    assert done.exit_code == 0, done.output
    assert complaints(tmp_path / "decoded.nwb") == []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pynwb.NWBHDF5IO("decoded.nwb", "r") as io:
            module = io.read().processing["decoder"]
            decoded = module["decoded_hand_vx"].data[:]
            valid = module["valid"].data[:]
            told = json.loads(module.description)
    found = betz.replay(decoder, session)
    np.testing.assert_array_equal(decoded, found.values[0, :, 0])
    np.testing.assert_array_equal(valid == 1, found.valid[0])
    assert told["kind"] == "wiener"
    assert told["calibrated_on"] == "monkey_1"
    assert told["settings"]["lags"] == 3
    back = betz.read("decoded.nwb")
    assert sorted(d.name for d in back.dims) == ["hand_vx", "hand_vy", "hand_x", "hand_y"]
    words = ["decode", "monkey_1.nwb", "--decoder", "decoder", "--out", "d.csv", "--deidentify"]
    assert "--deidentify is for NWB files" in CliRunner().invoke(app, words).stderr


def test_the_export_verb_and_its_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = betz.Store(tmp_path / "store", create=True)
    store.put(session_of())
    done = CliRunner().invoke(app, ["export", "store", "--out", "x.nwb", "--deidentify"])
    assert done.exit_code == 0, done.output
    assert "4 channels, de-identified" in done.stdout
    with pytest.raises(DataError, match=r"x\.nwb: there is a file already"):
        write_nwb(session_of(), "x.nwb")
    with pytest.raises(DataError, match=r"its name does not end in \.nwb"):
        write_nwb(session_of(), "x.h5")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="it could not be written"):
        write_nwb(session_of(), tmp_path / "file" / "x.nwb")
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".tmp")]
