"""What the pages about inspecting, deriving and splitting tell people to type works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from betz.cli.main import app
from betz.data.store import Store

HOWTO = Path(__file__).resolve().parents[2] / "docs" / "howto"


def run(page: str) -> dict[str, object]:
    """Run the Python of a page; its names."""
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", (HOWTO / page).read_text(), flags=re.DOTALL):
        exec(compile(block, page, "exec"), names)
    return names


def test_inspect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names = run("inspect.md")
    text = capsys.readouterr().out
    assert "hand velocity" in text
    for warning in names["found"].warnings:  # type: ignore[attr-defined]
        assert "near-dead" in warning, "some simulated channels hardly ever spike, nothing else is odd"
    assert (tmp_path / "inspection.html").stat().st_size > 10_000


def test_commands_of_inspect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import betz
    from betz.core.session import BehaviorDim

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    counts, velocity = rng.poisson(1, (1000, 4)), rng.normal(size=(1000, 2)).cumsum(axis=0)
    dims = [BehaviorDim("hand_vx", "cm/s"), BehaviorDim("hand_vy", "cm/s")]
    made = betz.from_arrays(counts, bin_ms=20, behavior=velocity, dims=dims, id="my_recording")
    Store("my_store", create=True).put(made)
    import scipy.io

    scipy.io.savemat("my_recording.mat", {"counts": counts, "velocity": velocity})
    Path("my_mapping.toml").write_text(
        '[time]\nbin_ms = 20\n[signals]\nvariable = "counts"\n[[behavior]]\nvariable = "velocity"\n'
        'dims = [{name = "hand_vx", unit = "cm/s"}, {name = "hand_vy", unit = "cm/s"}]\n'
    )
    (block,) = re.findall(r"```sh\n(.*?)```", (HOWTO / "inspect.md").read_text(), flags=re.DOTALL)
    commands = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert len(commands) == 4
    for command in commands:
        done = CliRunner().invoke(app, command[1:])
        assert done.exit_code == 0, f"{' '.join(command)}: {done.output}"
    assert Path("inspection.html").exists()


def test_derive_and_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names = run("derive_and_split.md")
    text = capsys.readouterr().out
    assert "slow_speed cm/s speed causal 0.5 ms late" in text
    assert re.search(r"slow_vx_lowpass cm/s lowpass_causal causal 4\d\.\d ms late", text)
    assert "chronological; pretrain: 6 parts of 6 sessions" in text
    assert "50 bins" not in text
    assert len(names["test_parts"]) == 6  # type: ignore[arg-type]
    assert "(test)" not in text, "no leak in the example"
