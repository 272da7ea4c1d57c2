"""The example and the numbers of the Transformer's pages."""

from __future__ import annotations

import re

import pytest

from betz.model.presets import PRESETS, parameters, state_bytes
from tests.docs.test_readme import ROOT, blocks


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks(ROOT / "docs" / "background" / "transformer.md", "python")
    exec(compile(code, "transformer.md", "exec"), {})
    assert re.search(r"\[\[\[.*\]\]\]", capsys.readouterr().out)


def test_the_table_of_presets_is_right() -> None:
    text = (ROOT / "docs" / "reference" / "presets.md").read_text()
    assert all(f"| {name} |" in text for name in PRESETS)
    rows = re.findall(r"^\| (\S+) \| (\d+) \| (\d+) \| (\d+) \| ([\d,]+) \| ([\d,]+) \|$", text, flags=re.MULTILINE)
    assert len(rows) == 6
    for name, width, layers, heads, number, size in rows:
        config = PRESETS[name]
        assert (config.width, config.layers, config.heads) == (int(width), int(layers), int(heads))
        assert f"{parameters(config):,}" == number
        assert f"{state_bytes(config):,}" == size
