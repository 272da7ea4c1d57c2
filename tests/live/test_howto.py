"""What the page about decoding live tells people to type works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from betz.live.clocks import ManualClock

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "live.md"


def test_python_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("betz.live.clocks.MonotonicClock", ManualClock)  # no waiting
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    text = capsys.readouterr().out
    assert "150 bins, 150 sent, 0 late" in text
    assert "the cursor stopped at" in text
