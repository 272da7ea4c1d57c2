"""The examples of the page on the simulator."""

from __future__ import annotations

import pytest

from tests.docs.test_readme import ROOT, blocks


def test_the_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    first, rich, loop = blocks(ROOT / "docs" / "background" / "simulator.md", "python")
    for code in (first, rich, loop):
        exec(compile(code, "simulator.md", "exec"), {})
    said = capsys.readouterr().out
    assert "swap 300000" in said
    assert "('posture', 1), ('force', 1)" in said
    assert "Score(attempts=" in said
    assert "intended_vx (1500, 2)" in said
