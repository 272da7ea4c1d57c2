"""``betz import``: what is kept and what is not, in words, as JSON and as an exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from betz.cli import import_
from betz.core.errors import ConfigError
from betz.data.importers import FileError, ImportOptions, import_files
from betz.data.store import Store
from tests.unit import recording_files as files
from tests.unit.recording_files import BINS, LAYOUT

app = typer.Typer()
app.command()(import_.command)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a good recording and its mapping, in which commands run."""
    monkeypatch.chdir(tmp_path)
    files.npz(tmp_path / "m_1.npz")
    (tmp_path / "m.json").write_text(json.dumps(LAYOUT))
    return tmp_path


def betz_import(*words: str | Path) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def entries(store: Path) -> list[str]:
    """Everything in a store but its head and its lock."""
    return sorted(p.name for p in store.rglob("*") if p.is_file() and p.name not in ("betz-store.json", ".lock"))


def test_one_file(folder: Path) -> None:
    done = betz_import("m_1.npz", "--mapping", "m.json", "--store", "store")
    assert done.exit_code == 0, done.output
    assert "m_1: 0.1 min in 20 ms bins, 5 channels, 2 behavior dimensions" in done.stdout
    assert "1 of 1 files imported into store" in done.stdout
    session = Store("store").get("m_1")
    np.testing.assert_array_equal(session.signals, files.counts_NC())
    assert session.provenance.options["mapping"] == "m"


def test_a_bad_file_does_not_stop_the_others(folder: Path) -> None:
    Path("torn.npz").write_bytes(Path("m_1.npz").read_bytes()[:3000])
    files.npz(folder / "m_2.npz", velocity=np.full((BINS, 2), np.nan))
    files.npz(folder / "m_3.npz", emg=np.zeros(3))
    done = betz_import(
        "torn.npz", "m_1.npz", "m_2.npz", "gone.npz", "m_3.npz", "--mapping", "m.json", "--store", "store"
    )
    assert done.exit_code == 1
    assert Store("store").ids == ("m_1", "m_3")
    errors = done.stderr.splitlines()
    assert len(errors) == 3
    assert errors[0].startswith("error: torn.npz: it cannot be read: truncated, damaged or no .npz file")
    assert errors[1].startswith("error: m_2.npz: behavior 'velocity' has NaN or infinite values")
    assert errors[2] == "error: gone.npz: there is no such file. Remedy: check the path"
    assert "2 of 5 files imported into store" in done.stdout
    assert "not imported: 1 × damaged file, 1 × NaN behavior, 1 × no such file" in done.stdout
    assert "left out inside the files: 1 × variables not in the mapping" in done.stdout


BAD: dict[str, dict[str, Any]] = {
    "missing variable": {"counts": None},
    "negative counts": {"counts": files.counts_NC().astype(int) - 1},
    "more than 255 counts": {"counts": files.counts_NC().astype(int) + 255},
    "NaN behavior": {"velocity": np.full((BINS, 2), np.nan)},
    "different lengths": {"velocity": files.velocity_NK(bins=BINS - 3)},
    "no bins": {"counts": np.zeros((0, 5), np.uint8), "velocity": np.zeros((0, 2)), "t": np.zeros(0)},
    "bad stamps": {"t": np.arange(BINS)[::-1] * 0.02},
    "mixed bin widths": {"t": np.r_[np.arange(200) * 0.02, 4 + np.arange(200) * 0.05]},
}


@pytest.mark.parametrize("reason", BAD)
def test_bad_input_leaves_nothing_behind(reason: str, folder: Path) -> None:
    arrays = {"counts": files.counts_NC(), "velocity": files.velocity_NK(), "t": np.arange(BINS) * 0.02, **BAD[reason]}
    np.savez(folder / "bad.npz", **{name: value for name, value in arrays.items() if value is not None})
    layout = files.layout(time={"bin_ms": None, "stamps": "t"})
    Path("t.json").write_text(json.dumps(layout))
    done = betz_import("bad.npz", "--mapping", "t.json", "--store", "store", "--json")
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert report["kept"] == []
    assert report["skipped"] == {reason: 1}
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: bad.npz: ")
    assert " Remedy: " in line
    assert entries(Path("store")) == []


@pytest.mark.parametrize(
    "make, reason",
    [
        (lambda p: files.npz_claiming(p / "bad.npz", (50_000, 50_000)), "impossible size"),
        (lambda p: files.mat_claiming(p / "bad.mat", (50_000, 50_000)), "damaged file"),
    ],
)
def test_a_claim_of_20_gb_leaves_nothing_behind(make: Any, reason: str, folder: Path) -> None:
    done = betz_import(make(folder), "--mapping", "m.json", "--store", "store", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["skipped"] == {reason: 1}
    assert "50000" in done.stderr
    assert entries(Path("store")) == []


def test_a_failed_import_leaves_the_old_session(folder: Path) -> None:
    assert betz_import("m_1.npz", "--mapping", "m.json", "--store", "store").exit_code == 0
    before = entries(Path("store"))
    again = betz_import("m_1.npz", "--mapping", "m.json", "--store", "store")
    assert again.exit_code == 1
    assert "session 'm_1' is in the store already. Remedy: replace it with replace=True (--replace)" in again.stderr
    files.npz(folder / "m_1.npz", velocity=np.full((BINS, 2), np.inf))
    assert betz_import("m_1.npz", "--mapping", "m.json", "--store", "store", "--replace").exit_code == 1
    assert entries(Path("store")) == before
    Store("store").verify("m_1")
    files.npz(folder / "m_1.npz", counts=files.counts_NC(seed=5))
    assert betz_import("m_1.npz", "--mapping", "m.json", "--store", "store", "--replace").exit_code == 0
    np.testing.assert_array_equal(Store("store").get("m_1").signals, files.counts_NC(seed=5))


def test_two_files_of_one_name(folder: Path) -> None:
    (folder / "other").mkdir()
    files.npz(folder / "other" / "m_1.npz", counts=files.counts_NC(seed=5))
    done = betz_import("m_1.npz", "other/m_1.npz", "--mapping", "m.json", "--store", "store", "--replace")
    assert done.exit_code == 1
    assert "error: other/m_1.npz: its session would be named 'm_1', as that of m_1.npz. Remedy: rename" in done.stderr
    np.testing.assert_array_equal(Store("store").get("m_1").signals, files.counts_NC())


def test_options_reach_the_importer(folder: Path) -> None:
    velocity = files.velocity_NK(bins=BINS - 5)
    velocity[3] = np.nan
    slots = np.stack([files.counts_NC()] * 2, axis=2)
    files.npz(folder / "m_1.npz", counts=slots, velocity=velocity)
    layout = files.layout(signals={"axes": ["time", "channel", "slot"]}, time={"bin_ms": None}, subject="")
    Path("w.json").write_text(json.dumps(layout))
    done = betz_import(
        "m_1.npz", "--mapping", "w.json", "--store", "store", "--bin-ms", "45", "--subject", "N", "--nan", "mask",
        "--slot", "unit", "--trim-to-shortest", "--drop-idle-tail", "--mask-silence", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    session = Store("store").get("m_1")
    assert (session.bin_ms, session.subject, len(session.channels), session.num_bins) == (45, "N", 10, BINS - 5)
    assert {k: v for k, v in session.provenance.options.items() if not k.startswith("mapping")} == {
        "bin_ms": 45, "subject": "N", "nan": "mask", "slot": "unit", "trim_to_shortest": True, "drop_idle_tail": True,
        "mask_silence": True,
    }  # fmt: skip


def test_json_is_the_whole_report(folder: Path) -> None:
    files.npz(folder / "m_2.npz", emg=np.zeros(3))
    done = betz_import("m_1.npz", "m_2.npz", "gone.npz", "--mapping", "m.json", "--store", "store", "--json")
    report = json.loads(done.stdout)
    assert report["kept"] == ["m_1", "m_2"]
    assert report["skipped"] == {"no such file": 1}
    assert report["left_out"] == {"variables not in the mapping": 1}
    first, second, third = report["files"]
    assert (first["id"], first["error"], first["reason"], first["notes"]) == ("m_1", None, "", [])
    assert second["notes"] == ["not in the mapping, left out: emg"]
    assert third["reason"] == "no such file"
    assert third["error"].startswith("gone.npz: there is no such file.")


@pytest.mark.parametrize(
    "words, text",
    [
        (["m_1.npz"], "no store is named. Remedy: add --store FOLDER"),
        (["m_1.npz", "--store", "store", "--mapping", "gone.toml"], "gone.toml: the mapping cannot be read"),
        (["m_1.npz", "--store", "store", "--mapping", "indy"], "there is no mapping named 'indy'"),
        (["m_1.npz", "--store", "store", "--nan", "drop"], "nan: Input should be 'raise' or 'mask'"),
        (["m_1.npz", "m_1.npz", "--write-mapping", "w.toml"], "a mapping is written for one file, not 2"),
        (["m_1.npz", "--write-mapping", "w.json"], "w.json: a mapping is written as TOML"),
        (["m_1.npz", "--write-mapping", "no/such/w.toml"], "no/such/w.toml: it cannot be written"),
    ],
)
def test_settings_that_make_no_sense(words: list[str], text: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=text.replace(".", r"\.")):
        raise betz_import(*words).exception
    assert sorted(p.name for p in folder.iterdir()) == ["m.json", "m_1.npz"]


def test_write_a_mapping_edit_it_and_import(folder: Path) -> None:
    done = betz_import("m_1.npz", "--write-mapping", "mine.toml")
    assert done.exit_code == 0
    assert done.stdout == "mine.toml: correct it, then import with --mapping mine.toml\n"
    assert not Path("store").exists()
    text = Path("mine.toml").read_text().replace("velocity_0", "hand_vx").replace('"unknown"', '"M"')
    Path("mine.toml").write_text(text)
    assert betz_import("m_1.npz", "--mapping", "mine.toml", "--store", "store").exit_code == 0
    assert [d.name for d in Store("store").get("m_1").dims] == ["hand_vx", "velocity_1"]
    with pytest.raises(ConfigError, match=r"mine\.toml: there is a file already"):
        raise betz_import("m_1.npz", "--write-mapping", "mine.toml").exception
    assert Path("mine.toml").read_text() == text
    rates = files.counts_NC().astype(np.float32) * np.float32(20)
    with pytest.raises(FileError, match=r"b\.mat: a binnedData struct needs no mapping"):
        raise betz_import(files.binned(folder / "b.mat", spikeratedata=rates), "--write-mapping", "b.toml").exception


def test_the_report_in_python(folder: Path) -> None:
    store, seen = Store("store", create=True), []
    report = import_files(
        ["m_1.npz", "x.npz"], store, mapping=LAYOUT, options=ImportOptions(subject="N"), progress=seen.append
    )
    assert (report.kept, dict(report.skipped)) == (("m_1",), {"no such file": 1})
    assert tuple(seen) == report.files
    assert (seen[0].minutes, seen[0].bin_ms, seen[0].channels, seen[0].behavior) == (pytest.approx(8 / 60), 20, 5, 2)
    assert store.get("m_1").subject == "N"
    with pytest.raises(ConfigError, match="there is no import option 'subjct'"):
        import_files(["m_1.npz"], store, mapping=LAYOUT, options={"subjct": "N"})
    wrong = import_files(["m_1.npz"], store, mapping=LAYOUT, options={"slot": "unit"}, replace=True)
    assert dict(wrong.skipped) == {"settings do not fit": 1}
    files.npz(folder / "m_1.npz", counts=np.zeros((BINS, 0), np.uint8))
    empty = import_files(["m_1.npz"], store, mapping=LAYOUT, replace=True)
    assert dict(empty.skipped) == {"not a valid session": 1}
