"""``betz inspect``: tables, pages, plots and JSON of stores and files, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import betz
from betz.cli.main import app
from betz.core.session import BehaviorDim, Provenance
from betz.data import derive
from betz.data.store import Store

MAPPING = """
subject = "m"
licence = "CC0-1.0"

[time]
bin_ms = 20

[signals]
variable = "counts"

[[behavior]]
variable = "velocity"
dims = [{name = "hand_vx", unit = "cm/s"}, {name = "hand_vy", unit = "cm/s"}]
"""


def arrays(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A minute of counts of 10 channels, the last one dead, and the velocity that they follow by 100 ms."""
    rng = np.random.default_rng(seed)
    kernel = np.exp(-0.5 * (np.arange(-30, 31) / 8) ** 2)
    velocity = np.stack([np.convolve(rng.normal(size=3005), kernel, "same") for _ in range(2)], axis=1)
    counts = rng.poisson(0.6 * np.exp(0.15 * velocity @ rng.normal(size=(2, 10))))[5:]
    counts[:, 9] = 0
    return counts, velocity[:-5]


def session(name: str, seed: int = 0) -> betz.Session:
    counts, velocity = arrays(seed)
    made = betz.from_arrays(
        counts,
        bin_ms=20,
        behavior=velocity,
        dims=[BehaviorDim("hand_vx", "cm/s"), BehaviorDim("hand_vy", "cm/s")],
        id=name,
        subject="m",
        licence="CC0-1.0",
        provenance=Provenance(source=f"{name}.npz", importer="arrays", notes=("noted",), skipped={"words": 2}),
    )
    return derive.smooth_causal(made, ["hand_vx"], sd_ms=50)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of two sessions in the working folder."""
    monkeypatch.chdir(tmp_path)
    made = Store(tmp_path / "store", create=True)
    made.put(session("monkey_1"))
    made.put(session("monkey_2", seed=1))
    return Path("store")


def inspect(*words: str | Path) -> Any:
    return CliRunner().invoke(app, ["inspect", *map(str, words)])


def test_one_session(store: Path) -> None:
    found = inspect("store:monkey_1")
    assert found.exit_code == 0, found.output
    for text in (
        "monkey_1 · subject m · 1.0 min in 20 ms bins · licence CC0-1.0",
        "channels: 10 crossings of array A",
        "1 dead, 0 near-dead, 0 noisy",
        "smooth_causal of hand_vx (causal, delay 3",
        "hand velocity",
        "  noted",
        "  left out: 2 words",
        "WARNING: 1 of 10 channels is dead: ch9",
    ):
        assert text in found.output
    assert sorted(p.name for p in Path().iterdir()) == ["store"], "nothing is written unasked"


def test_several_sessions_are_a_table(store: Path) -> None:
    lines = inspect("store").output.splitlines()
    assert lines[0].split() == ["session", "subject", "minutes", "bin,", "ms", "channels", "behavior", "licence"]
    for line, name in zip(lines[1:3], ("monkey_1", "monkey_2"), strict=True):
        words = line.split()
        assert words[:4] == [name, "m", "1.0", "20"]
        assert "10 crossings of array A" in line
        assert "hand_vx, hand_vy, hand_vx_smooth (cm/s)" in line
        assert words[-1] == "CC0-1.0"
    assert lines.count("  WARNING: 1 of 10 channels is dead: ch9") == 2
    assert lines.count("  noted") == 2
    assert lines.count("  left out: 2 words") == 2


def test_json(store: Path) -> None:
    found = inspect("store", "--json", "--out", "page.html")
    assert found.exit_code == 0, found.output
    values = json.loads(found.stdout)
    assert [each["id"] for each in values] == ["monkey_1", "monkey_2"]
    assert values[0]["warnings"] == ["1 of 10 channels is dead: ch9"]
    assert values[0]["lags"][0]["best_ms"] in (80, 120)
    assert "page.html" in found.stderr


def test_page_and_plots(store: Path) -> None:
    found = inspect("store", "--out", "deep/page.html", "--plots", "plots")
    assert found.exit_code == 0, found.output
    assert "deep/page.html" in found.output
    assert "8 plots in plots" in found.output
    assert Path("deep/page.html").read_text().count("<img") == 8
    wanted = [f"monkey_{k}-{name}.svg" for k in (1, 2) for name in ("activity", "behavior", "lags", "rates")]
    assert sorted(p.name for p in Path("plots").iterdir()) == wanted


def test_files_take_the_options_of_import(store: Path) -> None:
    counts, velocity = arrays()
    velocity[7, 0] = np.nan
    np.savez("mine.npz", counts=counts, velocity=velocity)
    Path("mine.toml").write_text(MAPPING)
    refused = inspect("mine.npz", "--mapping", "mine.toml")
    assert refused.exit_code == 1
    assert "NaN" in refused.output
    found = inspect("mine.npz", "--mapping", "mine.toml", "--nan", "mask")
    assert found.exit_code == 0, found.output
    assert "mine · subject m" in found.output
    assert "not known (NaN) in a part of the usable bins: hand_vx (0.0%)" in found.output


@pytest.mark.parametrize(
    "words, text",
    [
        (["nowhere.npz"], "error: nowhere.npz: there is no such file or store"),
        (["store:monkey_3"], "no session 'monkey_3'"),
        (["store", "--out", "page.pdf"], "error: page.pdf: cannot write .pdf. Remedy: use .html"),
        (["store", "--out", "store"], "cannot write a file without a suffix"),
        (["store", "--plots", "store/betz-store.json"], "could not be written"),
    ],
)
def test_refusals(store: Path, words: list[str], text: str) -> None:
    found = inspect(*words)
    assert found.exit_code == 1
    assert text in found.output
    assert "Traceback" not in found.output


def test_plots_need_matplotlib(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    found = inspect("store", "--plots", "plots")
    assert found.exit_code == 1
    assert "matplotlib is not installed. Remedy: pip install 'betz[report]'" in found.output
    assert not Path("plots").exists()
