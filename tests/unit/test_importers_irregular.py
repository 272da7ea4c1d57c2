"""Behavior at irregular times becomes regular with NaN and a count; doubled channels are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import betz
from betz.core.errors import ConfigError
from betz.data.importers import FileError
from betz.data.importers.checks import twin_notes
from betz.data.importers.slots import regular


def mapping(**behavior: Any) -> dict[str, Any]:
    part = {"variable": "x", "stamps": "t", "regular_hz": 100, "dims": [{"name": "hand_x", "unit": "cm"}]}
    return {"signals": {"variable": "counts"}, "time": {"bin_ms": 20}, "behavior": [part | behavior]}


def saved(folder: Path, stamps_s: np.ndarray) -> Path:
    counts = np.random.default_rng(0).poisson(0.5, (500, 4)).astype(np.uint8)
    np.savez(folder / "a.npz", counts=counts, t=stamps_s, x=10 * stamps_s)
    return folder / "a.npz"


def test_irregular_samples_become_regular(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    stamps_s = np.arange(900) * 0.01 + rng.uniform(-0.004, 0.004, 900)
    stamps_s[0] = 0.0
    stamps_s = np.delete(stamps_s, slice(200, 230))
    stamps_s = np.sort(np.append(stamps_s, [stamps_s[50] + 0.0002]))
    path = saved(tmp_path, stamps_s)
    session = betz.read(path, mapping=mapping())
    (series,) = session.behavior
    assert (series.ticks_per_sample / session.grid.tick_hz, series.origin_tick) == (0.01, 0)
    values = series.values[:, 0]
    assert len(values) == 900
    assert np.flatnonzero(np.isnan(values)).tolist() == list(range(200, 230))
    known = np.isfinite(values)
    assert np.abs(values - 0.1 * np.arange(900))[known].max() < 0.05  # 5 ms at 10 cm/s
    (note,) = [n for n in session.provenance.notes if "irregular times" in n]
    assert "x: 871 samples at irregular times put on 100 Hz; 30 slots have none (NaN), 1 samples shared a slot" in note
    with pytest.raises(FileError, match="do not follow one bin width"):
        betz.read(path, mapping=mapping(regular_hz=None))


def test_rates_and_stamps_that_cannot_be(tmp_path: Path) -> None:
    path = saved(tmp_path, np.arange(900) * 0.01)
    with pytest.raises(ConfigError, match="regular_hz = 300 is no whole number of ticks at 1000 Hz"):
        betz.read(path, mapping=mapping(regular_hz=300))
    with pytest.raises(FileError, match="stamps of 'x' are not ascending, or leave out nearly everything"):
        betz.read(saved(tmp_path, np.append(np.arange(899) * 0.01, 1e6)), mapping=mapping())
    with pytest.raises(FileError, match="stamps of 'x' are not ascending"):
        betz.read(saved(tmp_path, np.arange(900)[::-1] * 0.01), mapping=mapping())


def test_the_mean_of_what_shares_a_slot() -> None:
    found = regular(np.array([100, 104, 121]), np.array([[1.0], [3.0], [5.0]]), 10)
    np.testing.assert_array_equal(found.values.ravel(), [2, np.nan, 5])
    assert (found.origin_tick, found.missing, found.doubled) == (100, 1, 1)


def test_doubled_channels_are_told(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(0.5, (500, 5)).astype(np.uint8)
    counts[:, 3] = counts[:, 1]
    counts[:, 4] = 0
    assert twin_notes(counts, list("abcde")) == ["2 channels have the same counts in every bin as another: b = d"]
    np.savez(tmp_path / "a.npz", counts=counts)
    session = betz.read(tmp_path / "a.npz", mapping={"signals": {"variable": "counts"}, "time": {"bin_ms": 20}})
    notes = "\n".join(session.provenance.notes)
    assert "the same counts in every bin as another: ch2 = ch4" in notes
    assert "1 of 5 channels have no spike at all: ch5" in notes
