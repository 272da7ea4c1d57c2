"""What the pages on NWB and FALCON tell people to type works, from top to bottom."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from betz.cli.main import app
from betz.data.store import Store

HOWTO = Path(__file__).resolve().parents[2] / "docs" / "howto"


def run_page(name: str) -> dict[str, object]:
    """Run the sh and python blocks of a page in order; returns the names it made."""
    names: dict[str, object] = {}
    text = (HOWTO / name).read_text()
    for language, block in re.findall(r"```(python|sh)\n(.*?)```", text, flags=re.DOTALL):
        if language == "python":
            exec(compile(block, name, "exec"), names)
            continue
        for line in block.splitlines():
            done = CliRunner().invoke(app, shlex.split(line)[1:])
            assert done.exit_code == 0, f"{line}: {done.output}"
    return names


def test_nwb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    session = run_page("nwb.md")["session"]
    shared = Store("other_store").get("shared")
    assert (shared.subject, shared.tags["date"][:10]) == ("anonymous", "1970-01-01")
    assert (shared.signals[: session.num_bins] == session.signals).all()  # type: ignore[attr-defined]


def test_falcon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run_page("falcon.md")
    assert "not comparable" in names["result"].label  # type: ignore[attr-defined]
    assert names["result"].scores["Held In R2 Mean"] > 0.3  # type: ignore[attr-defined]
    assert Path("m2_decoder/decoder.json").exists()
