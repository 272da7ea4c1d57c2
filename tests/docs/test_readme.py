"""What README and docs tell people to type works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from betz.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
MAPPING = """
subject = "m"
licence = "CC0-1.0"

[signals]
variable = "counts"
axes = ["time", "channel"]

[time]
bin_ms = 20

[[behavior]]
variable = "velocity"
dims = [{ name = "hand_vx", unit = "cm/s" }, { name = "hand_vy", unit = "cm/s" }]
"""


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), flags=re.DOTALL)


@pytest.fixture
def own_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """my_recording.mat and my_mapping.toml, as the README calls them."""
    import scipy.io

    import betz
    from betz.sim.population import Simulation

    session = betz.simulate(Simulation(minutes=4, channels=24), seed=1).session
    velocity = session.behavior_of(["hand_vx", "hand_vy"])
    scipy.io.savemat(tmp_path / "my_recording.mat", {"counts": session.signals, "velocity": velocity})
    (tmp_path / "my_mapping.toml").write_text(MAPPING)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_readme_commands(own_recording: Path) -> None:
    lines = [line for block in blocks(ROOT / "README.md", "sh") for line in block.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("betz ")]
    assert len(commands) >= 5
    for command in commands:
        arguments = command[1:]
        if command[1] == "replay":  # as fast as possible here; in real time at the desk
            arguments += ["--speed", "0", "--seconds", "2"]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, f"{' '.join(command)}: {done.output}"
    assert (own_recording / "results" / "report.html").stat().st_size > 10_000


def test_readme_python(own_recording: Path) -> None:
    names = {"counts": np.ones(24, dtype=np.uint8)}
    for block in blocks(ROOT / "README.md", "python"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["velocity"].values.shape == (1, 1, 2)  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", ["docs/tutorials/first_session.md"])
def test_tutorials(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks(ROOT / page, "python"):
        exec(compile(block, page, "exec"), names)
    assert (tmp_path / "report.html").exists()


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name}: {link}"
