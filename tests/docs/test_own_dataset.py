"""The page on one's own data set, from top to bottom, and the list of formats."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from betz.cli.main import app
from betz.data.importers.aligned import Align, Barcode
from betz.data.importers.neo_formats import FORMATS, vendor_of
from betz.data.store import Store

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    page = (DOCS / "howto" / "own_dataset.md").read_text()
    names: dict[str, Any] = {}
    commands = []
    for language, block in re.findall(r"```(python|sh|toml)\n(.*?)```", page, flags=re.DOTALL):
        if language == "python":
            exec(compile(block, "own_dataset.md", "exec"), names)
        elif language == "toml":
            Path("align.toml").write_text(block)
        else:
            for line in block.splitlines():
                done = CliRunner().invoke(app, shlex.split(line)[1:])
                assert done.exit_code == 0, f"{line}: {done.output}"
                commands.append(line.split()[1])
    assert commands == ["formats", "import", "inspect", "evaluate", "calibrate"]
    session, truth = Store("my_store").get("monkey_1"), names["truth"]
    assert (session.subject, len(session.channels), session.bin_ms) == ("M", 32, 20)
    assert session.spikes is not None
    assert sum(map(len, session.spikes)) == int(truth.signals.sum())
    (note,) = [n for n in session.provenance.notes if "aligned by" in n]
    offset, drift = (float(re.findall(rf"{word} ([\d.]+) ms", note)[0]) for word in ("offset", "drift"))
    span_s = names["pulses_s"][-1] - names["pulses_s"][0]
    assert offset == pytest.approx(1234, abs=1)
    assert drift == pytest.approx(30e-6 * span_s * 1000, abs=0.2)
    found = names["decoder"].behavior
    assert [dim.unit for dim in found] == ["cm/s", "cm/s"]
    whole = session.behavior_of(["hand_vx"])[:, 0]
    shifted = np.interp(
        session.grid.seconds(session.grid.start_of(np.arange(session.num_bins))) + 0.01,
        names["stamps_s"] * (1 + 30e-6) + 1.234,
        truth.behavior_of(["hand_vx"])[:, 0],
    )
    known = np.isfinite(whole)
    assert np.corrcoef(whole[known], shifted[known])[0, 1] > 0.99


def test_the_list_of_formats(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["formats"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    for known in FORMATS:
        assert known.name in done.output
    assert "not read: .pl2 (save it as .plx, or export NWB)" in done.output
    rows = json.loads(CliRunner().invoke(app, ["formats", "--json"]).output)
    tried = {row["format"]: row["tested"] for row in rows}
    assert {name for name, on in tried.items() if on == "real files"} == {
        "NumPy arrays", "MATLAB 5 to 7.3", "Blackrock", "Plexon", "NeuroExplorer",
    }  # fmt: skip
    assert tried["TDT"] == tried["Intan"] == tried["Neuralynx"] == "untested"
    for row in rows:
        assert f"| {row['format']} |" in (DOCS / "howto" / "import.md").read_text(), row["format"]
    for suffix, name in ((".nev", "Blackrock"), (".PLX", "Plexon"), (".rhd", "Intan")):
        found = vendor_of(tmp_path / f"x{suffix}")
        assert found is not None
        assert found.name == name
    assert vendor_of(tmp_path / "x.npz") is None


def test_the_keys_of_an_alignment_are_on_the_page() -> None:
    page = (DOCS / "howto" / "import.md").read_text()
    part = page.split("Keys of the file:")[1].split("\n\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*`) \|", part, flags=re.MULTILINE)
    assert {key for row in rows for key in re.findall(r"`(\w+)`", row)} == {f.name for f in fields(Align)}
    assert all(f"`{f.name}`" in part for f in fields(Barcode))
