"""``betz convert-ndt3``: from a file to a folder, the inventory, and what it refuses."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from betz.cli.main import app
from betz.model.checkpoint import load_model
from tests.unit.ndt3_files import state_dict, write_checkpoint
from tests.unit.pickle_files import call, checkpoint, name, text, write


def betz(*words: str | Path) -> Any:
    return CliRunner().invoke(app, ["convert-ndt3", *map(str, words)])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "val.ckpt")


def test_a_checkpoint_becomes_a_model(file: Path, tmp_path: Path) -> None:
    said = betz(file, tmp_path / "out", "--licence", "CC-BY-NC-4.0", "--window", "40")
    assert said.exit_code == 0, said.output
    assert "NDT3 architecture, 136,043 parameters, converted from val.ckpt" in said.output
    assert "licence: CC-BY-NC-4.0" in said.output
    assert "predictions are relative until one is given" in said.output
    loaded = load_model(tmp_path / "out")
    assert loaded.config.window == 40
    assert torch.equal(loaded.model.get_parameter("embed.start"), state_dict()["start_of_sentence"])


def test_the_licence_is_not_invented(file: Path, tmp_path: Path) -> None:
    assert betz(file, tmp_path / "out").exit_code == 0
    licence = load_model(tmp_path / "out").card.licence
    assert licence == "that of the source file (the official NDT3 files are CC-BY-NC-4.0)"


def test_inspection_lists_all_and_writes_nothing(tmp_path: Path) -> None:
    state = state_dict() | {"oracle": torch.ones(2, 3)}
    said = betz(write_checkpoint(tmp_path / "x.ckpt", state, cfg={"causal": False}), tmp_path / "out", "--inspect")
    assert said.exit_code == 0, said.output
    for part in (
        "→ blocks.1.mlp.down.weight  float32 [64, 128]",
        "→ –  float32 [2, 3]  (not known)",
        "(not a parameter)",
        "cfg.transformer.n_heads = 2",
        "data_attrs.behavior_dim = 17",
        "1 × torch._utils._rebuild_tensor_v2",
        "as Betz's model: 136,043 parameters",
        "layout = pretrain",
        "problem: oracle [2, 3] has no place in Betz's model (not known)",
        "problem: cfg.causal is False; Betz's model computes True alone",
        "It cannot be converted.",
    ):
        assert part in said.output
    assert not (tmp_path / "out").exists()
    assert "It can be converted." in betz(write_checkpoint(tmp_path / "y.ckpt"), "--inspect").output


def test_json_alone_is_on_standard_output(file: Path, tmp_path: Path) -> None:
    for words in (("--inspect",), (tmp_path / "out",)):
        said = betz(file, *words, "--json")
        assert said.exit_code == 0, said.output
        found = json.loads(said.stdout)
        assert found["convertible"] is True
        assert found["parameters"] == 136_043
        assert found["config"]["heads"] == 2
        assert found["settings"]["cfg"]["task"]["task_weights"] == [1, 10, 0, 0]
        assert {"key": "start_of_sentence", "betz": "embed.start", "shape": [64], "dtype": "float32", "remark": ""} in (
            found["entries"]
        )
    assert json.loads(betz(file, "--inspect", "--json").stdout)["problems"] == []


def test_a_malicious_file_is_listed_and_refused(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    file = write(tmp_path / "x.ckpt", checkpoint(call(name("os.system"), text(f"touch {marker}"))))
    said = betz(file, tmp_path / "out")
    assert said.exit_code == 1
    assert said.stderr.startswith(f"error: {file}: its pickle names os.system, which no NDT3 checkpoint needs.")
    listed = betz(file, "--inspect")
    assert listed.exit_code == 0
    assert "problem: its pickle names os.system" in listed.output
    assert "1 × os.system  (refused)" in listed.output
    assert not marker.exists()
    assert not (tmp_path / "out").exists()


def test_a_file_cannot_steer_the_terminal(tmp_path: Path) -> None:
    file = write_checkpoint(
        tmp_path / "x.ckpt", state_dict() | {"\x1b[2J": torch.ones(1)}, cfg={"arch": "\x1b]0;x\x07"}
    )
    for said in (betz(file, "--inspect"), betz(file, tmp_path / "out")):
        assert "\x1b" not in said.output
        assert "\x07" not in said.output


def test_what_is_missing_is_said(file: Path, tmp_path: Path) -> None:
    said = betz(file)
    assert said.exit_code == 1
    assert "error: no folder is named. Remedy: betz convert-ndt3 FILE OUT, or --inspect" in said.output
    assert "a window of 0 bins is impossible" in betz(file, tmp_path / "out", "--window", "0").output
    said = betz(tmp_path / "none.ckpt", tmp_path / "out")
    assert said.exit_code == 1
    assert "it cannot be read (No such file or directory). Remedy: give the path of a .ckpt file" in said.output


def test_the_how_to_works(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "howto" / "convert_ndt3.md").read_text()
    monkeypatch.chdir(file.parent)
    commands = [line for block in re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL) for line in block.splitlines()]
    assert len(commands) == 2
    for line in commands:
        said = CliRunner().invoke(app, shlex.split(line)[1:])
        assert said.exit_code == 0, said.output
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(compile(block, "convert_ndt3.md", "exec"), names)
    assert names["decoder"].push(names["session"].signals[1]).values.shape == (1, 1, 2)
