"""What the pages about importing tell people to type works, and they name every key and option."""

from __future__ import annotations

import re
import shlex
import tomllib
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from betz.cli.main import app
from betz.data.importers import ImportOptions
from betz.data.importers import mapping as mappings
from betz.data.importers.mapping import load_mapping
from betz.data.store import Store

DOCS = Path(__file__).resolve().parents[2] / "docs"
HOWTO, REFERENCE = DOCS / "howto" / "import.md", DOCS / "reference" / "mapping_files.md"
EDITED = ("my_mapping.toml", "my_table.toml")
"""The files that a reader of the howto page writes: its toml blocks, in order."""


def test_the_page_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    edited = list(EDITED)
    commands = 0
    for language, block in re.findall(r"```(python|sh|toml)\n(.*?)```", HOWTO.read_text(), flags=re.DOTALL):
        if language == "python":
            exec(compile(block, str(HOWTO), "exec"), names)
        elif language == "toml":
            Path(edited.pop(0)).write_text(block)
        else:
            for line in block.splitlines():
                done = CliRunner().invoke(app, shlex.split(line)[1:])
                assert done.exit_code == 0, f"{line}: {done.output}"
                commands += 1
    assert commands == 3
    assert not edited
    store = Store("my_store")
    assert store.ids == ("my_recording", "my_table")
    for id_ in store.ids:
        session = store.get(id_)
        np.testing.assert_array_equal(session.signals, names["counts"])  # type: ignore[arg-type]
        assert [f"{d.name} {d.unit}" for d in session.dims] == ["hand_vx cm/s", "hand_vy cm/s"]
        assert (session.subject, session.bin_ms) == ("M", 20)
    assert names["report"].kept == ("my_recording",)  # type: ignore[attr-defined]


def test_the_howto_page_names_every_option() -> None:
    text = HOWTO.read_text()
    for option in fields(ImportOptions):
        assert f"--{option.name.replace('_', '-')}" in text, option.name
        assert f"`{option.name}=" in text, option.name


def test_the_reference_names_every_key_and_no_other() -> None:
    text = REFERENCE.read_text()
    parts = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    classes = ("Mapping", "SignalsMapping", "SpikesMapping", "TimeMapping", "BehaviorMapping", "TrialMapping",
               "ControlMapping", "PerturbationMapping", "SessionMapping")  # fmt: skip
    assert len(parts) == len(classes)
    for part, name in zip(parts, classes, strict=True):
        rows = re.findall(r"^\| (`[^|]*`) \|", part, flags=re.MULTILINE)
        documented = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
        assert documented == {f.name for f in fields(getattr(mappings, name))}, name


def test_the_mapping_of_the_reference_can_be_read() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", REFERENCE.read_text(), flags=re.DOTALL)
    mapping, _ = load_mapping(tomllib.loads(block))
    assert mapping.signals.axes == ("time", "channel", "slot")
    assert [b.held for b in mapping.behavior] == [False, True]
