"""Processors side by side, blocks one after the other, on one clock only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import betz
from betz.cli.main import app
from betz.core.errors import ConfigError
from betz.data.importers import FileError
from betz.data.importers.merge import merged_session
from betz.data.store import Store
from betz.testing.vendor_files import write_nev, write_nsx

SECOND = 30_000


def hub(folder: Path, name: str, first: int, last: int, *, line: int = 1) -> Path:
    """Two electrodes, a pulse, and an analog input at 1 kHz, from one tick to another."""
    path = write_nev(folder / name, {(1, 0): [first, last], (2, 0): [first + 9]}, digital=[(first + 30, line)])
    values = np.arange((last - first) // 30)[:, None].astype(np.int16)
    write_nsx(path.with_suffix(".ns2"), [(first, values)], names=["ainp1"], ids=[129])
    return path


def test_processors_stand_side_by_side(tmp_path: Path) -> None:
    files = [hub(tmp_path, "hub1.nev", 0, 10 * SECOND), hub(tmp_path, "hub2.nev", 2 * SECOND, 11 * SECOND, line=2)]
    session = merged_session([betz.read(path, subject="M") for path in files], id="day1")
    assert [(c.id, c.array) for c in session.channels] == [
        ("A_ch1", "A"),
        ("A_ch2", "A"),
        ("B_ch1", "B"),
        ("B_ch2", "B"),
    ]
    assert session.spikes is not None
    assert [t.tolist() for t in session.spikes] == [[0, 300_000], [9], [60_000, 330_000], [60_009]]
    assert session.span[0] == 0
    assert np.flatnonzero(session.usable)[[0, -1]].tolist() == [100, 500]  # the bin of the last spike is whole
    assert [d.name for d in session.dims] == ["ainp1", "B_ainp1"]
    assert session.events is not None
    assert session.events.at("B_digital_input_port", "2").tolist() == [60_030]
    assert session.provenance.notes[0] == "2 processors as arrays A, B: hub1.nev, hub2.nev"
    assert any(note.startswith("hub2: ") for note in session.provenance.notes)


def test_blocks_follow_each_other(tmp_path: Path) -> None:
    files = [hub(tmp_path, "b1.nev", 0, 10 * SECOND), hub(tmp_path, "b2.nev", 12 * SECOND, 20 * SECOND)]
    sessions = [betz.read(path, subject="M") for path in files]
    with pytest.raises(FileError, match=r"b1 and b2: there are 1\d\d\d\.\d ms between them.*--gap-tolerance-ms"):
        merged_session(sessions[::-1], id="day1", gap_tolerance_ms=100)
    session = merged_session(sessions[::-1], id="day1", gap_tolerance_ms=3000)
    assert session.spikes is not None
    assert [t.tolist() for t in session.spikes] == [[0, 300_000, 360_000, 600_000], [9, 360_009]]
    assert 90 <= (~session.usable[:1000]).sum() <= 101
    values = session.behavior[0].values[:, 0]
    assert len(values) == 20_000
    assert np.isnan(values[10_000:12_000]).all()
    np.testing.assert_allclose(values[12_000:], np.arange(8000) * (5000 / 32_000), rtol=1e-5)


def test_what_is_not_of_one_recording(tmp_path: Path) -> None:
    one = betz.read(hub(tmp_path, "a.nev", 0, 10 * SECOND), subject="M")
    with pytest.raises(FileError, match="they are of M and N"):
        merged_session([one, betz.read(hub(tmp_path, "b.nev", 0, 10 * SECOND), subject="N")], id="x")
    slow = write_nev(tmp_path / "c.nev", {(1, 0): [0, 9000]}, tick_hz=10_000)
    with pytest.raises(FileError, match="their clocks have 30000 and 10000 ticks a second"):
        merged_session([one, betz.read(slow, subject="M")], id="x")
    other = write_nev(tmp_path / "d.nev", {(7, 0): [11 * SECOND, 12 * SECOND]})
    with pytest.raises(FileError, match="blocks of one session must have the same channels"):
        merged_session([one, betz.read(other, subject="M")], id="x", gap_tolerance_ms=1e6)
    with pytest.raises(ConfigError, match="1 sessions cannot be merged"):
        merged_session([one], id="x")


def test_the_command_line_merges(tmp_path: Path) -> None:
    files = [hub(tmp_path, "hub1.nev", 0, 10 * SECOND), hub(tmp_path, "hub2.nev", 2 * SECOND, 11 * SECOND)]
    command = ["import", *map(str, files), "--merge", "day1", "--subject", "M", "--store", str(tmp_path / "store")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "1 of 1 files imported" in done.output
    assert len(Store(tmp_path / "store").get("day1").channels) == 4
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 1
    assert "day1" in again.output
