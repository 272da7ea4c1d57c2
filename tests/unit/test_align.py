"""Two clocks: planted offsets and drifts are found and removed to less than half a bin, and doubt is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import betz
from betz.cli.main import app
from betz.core.errors import ConfigError, DataError
from betz.data.align import clock_map, decode_barcodes, match_pulses, rising_edges
from betz.data.importers import FileError
from betz.data.store import Store
from betz.testing.vendor_files import write_nev, write_nsx

OFFSET_S, DRIFT_S, LENGTH_S = 0.024, 0.195, 6000.0
"""As in public recordings: 24 ms between the clocks, 195 ms more in 100 minutes."""


def pulses(seed: int = 0, seconds: float = LENGTH_S) -> np.ndarray:
    """Times of pulses at irregular intervals on the behavior computer's clock."""
    steps = np.random.default_rng(seed).uniform(4, 12, int(seconds / 7))
    return np.cumsum(steps)[np.cumsum(steps) < seconds]


def drifted(times_s: np.ndarray) -> np.ndarray:
    return times_s + OFFSET_S + DRIFT_S * times_s / LENGTH_S


# ---- the map


def test_planted_offset_and_drift_are_found() -> None:
    at = pulses()
    found = clock_map(drifted(at), at, bin_ms=20)
    assert found.offset_ms == pytest.approx(24 + 195 * at[0] / LENGTH_S, abs=1e-3)
    assert found.drift_ms == pytest.approx(195 * (at[-1] - at[0]) / LENGTH_S, abs=1e-3)
    assert found.residual_ms[1] < 1e-3
    assert (found.matched, found.unmatched) == (len(at), (0, 0))


@pytest.mark.parametrize("seed", range(4))
def test_missing_and_extra_pulses_do_no_harm(seed: int) -> None:
    rng = np.random.default_rng(seed)
    at = pulses(seed)
    here = np.sort(rng.choice(len(at), len(at) - 60, replace=False))
    there = np.sort(rng.choice(len(at), len(at) - 40, replace=False))
    noise = rng.normal(0, 2e-4, len(at))
    session_s = np.sort(np.append(drifted(at + noise)[here], rng.uniform(0, LENGTH_S, 20))) + 321.5
    found = clock_map(session_s, at[there], bin_ms=20)
    assert found.matched >= len(np.intersect1d(here, there))
    assert np.abs(found(at) - drifted(at) - 321.5).max() < 1e-3


def test_a_clock_that_wanders_needs_a_piecewise_map() -> None:
    at = pulses()
    wander = 0.03 * np.sin(2 * np.pi * at / 2500)
    with pytest.raises(DataError, match=r"affine clock map leaves .* more than half a bin.*clock = 'piecewise'"):
        clock_map(at + wander, at, bin_ms=20)
    found = clock_map(at + wander, at, bin_ms=20, kind="piecewise")
    between = np.linspace(at[0], at[-1], 5000)
    error = found(between) - between - 0.03 * np.sin(2 * np.pi * between / 2500)
    assert np.abs(error).max() < 0.002
    assert len(found.other_s) > 50


def test_a_residual_of_half_a_bin_is_refused() -> None:
    at = pulses()
    bad = at.copy()
    bad[40] += 0.004
    clock_map(bad, at, bin_ms=10)
    with pytest.raises(DataError, match=r"leaves 3\.9\d ms at the pulse at .* more than half a bin of 5 ms \(1 of"):
        clock_map(bad, at, bin_ms=5)
    bad[40] += 0.1  # so far away that it is no pulse of the other clock
    assert clock_map(bad, at, bin_ms=5).unmatched == (1, 1)


def test_what_cannot_be_told_is_refused() -> None:
    regular = np.arange(300.0)
    assert clock_map(regular + 5, regular, bin_ms=20).matched == 300
    with pytest.raises(DataError, match=r"can be matched in several ways .* equal intervals, and some are missing"):
        match_pulses(regular[3:] + 5, regular)
    rng = np.random.default_rng(1)
    one, other = np.cumsum(rng.uniform(1, 3, 800)), np.cumsum(rng.uniform(1, 3, 900))
    with pytest.raises(DataError, match=r"only \d pulses of 800 here and 900 there belong together|several ways"):
        clock_map(one, other, bin_ms=20)
    with pytest.raises(DataError, match="pulses of the other clock are not in ascending order"):
        clock_map(regular, np.append(regular[100:], regular[:100]), bin_ms=20)


def test_barcodes_are_matched_by_their_number() -> None:
    regular = np.arange(0, 600, 5.0)
    codes = list(range(1000, 1000 + len(regular)))
    found = clock_map(drifted(regular)[7:] + 99, regular, bin_ms=20, codes=(codes[7:], codes))
    assert found.matched == len(regular) - 7
    assert np.abs(found(regular) - drifted(regular) - 99).max() < 1e-6


def barcode(at_s: float, number: int, *, bits: int = 32, bit_s: float = 0.03) -> tuple[list[float], list[int]]:
    """Edges and levels of a barcode: 10 ms high, low, high, then the bits from the lowest on, then low."""
    levels = [1, 0, 1] + [number >> k & 1 for k in range(bits)] + [0]
    times = [at_s, at_s + 0.01, at_s + 0.02] + [at_s + 0.03 + k * bit_s for k in range(bits + 1)]
    keep = [i for i, level in enumerate(levels) if i == 0 or level != levels[i - 1]]
    return [times[i] for i in keep], [levels[i] for i in keep]


def test_barcodes_on_a_line_are_decoded() -> None:
    sent = [(1.0, 3_405_691_582), (6.0, 1), (11.0, 0), (16.0, 2**32 - 1)]
    coded = [barcode(at, number) for at, number in sent]
    starts, numbers = decode_barcodes(
        np.array([t for times, _ in coded for t in times]), [v for _, levels in coded for v in levels]
    )
    assert numbers == [number for _, number in sent]
    np.testing.assert_allclose(starts, [at for at, _ in sent])


def test_rises_are_found_between_samples() -> None:
    times = np.arange(100) / 10
    level = np.clip((times - 2.03) * 2 + 0.5, 0, 1)
    assert rising_edges(times, level) == pytest.approx([2.03])


# ---- importing


def recording(folder: Path, *, lag_s: float = OFFSET_S) -> tuple[Path, dict[str, Any]]:
    """A ``.nev`` of 100 minutes with pulses, and the ramp x(t) = t of a behavior computer on its own clock."""
    at = pulses()
    rng = np.random.default_rng(3)
    here = at + lag_s + DRIFT_S * at / LENGTH_S
    ticks = np.rint(here * 30_000).astype(int)
    spikes = np.sort(rng.integers(0, int(LENGTH_S * 30_000), 3000)).tolist()
    path = write_nev(folder / "rec.nev", {(1, 0): spikes}, digital=[(int(t), 1) for t in ticks])
    stamps = np.arange(0, LENGTH_S, 0.01)
    stamps = np.delete(stamps, slice(1000, 1100))
    np.savez(folder / "rec_behavior.npz", sync=at, t=stamps, x=stamps)
    align = {
        "file": "{stem}_behavior.npz",
        "line": "digital_input_port",
        "pulses": "sync",
        "behavior": [{"variable": "x", "stamps": "t", "dims": [{"name": "hand_x", "unit": "cm"}]}],
    }
    return path, align


def test_behavior_of_another_clock_lands_where_it_belongs(tmp_path: Path) -> None:
    path, align = recording(tmp_path)
    session = betz.read(path, align=align, subject="M")
    x = session.behavior_of(["hand_x"])[:, 0]
    start_s = session.grid.seconds(session.grid.start_of(np.arange(session.num_bins)))
    middle = start_s + session.grid.bin_s / 2 - 0.005  # of two samples 10 ms apart
    true = (middle - OFFSET_S) / (1 + DRIFT_S / LENGTH_S)
    known = np.isfinite(x)
    assert known.mean() > 0.99
    assert np.abs(x - true)[known].max() < session.grid.bin_s / 2
    assert np.abs(x - (middle - 0))[known].max() > 0.2  # without the map it would be off by ten bins
    (note,) = [n for n in session.provenance.notes if "aligned by" in n]
    assert "affine map of" in note
    assert "offset 24." in note
    assert any("x: 101 samples that were not recorded are NaN" in n for n in session.provenance.notes)
    assert session.provenance.options["align"]["file"] == "rec_behavior.npz"


def test_the_command_line_aligns(tmp_path: Path) -> None:
    path, _ = recording(tmp_path)
    (tmp_path / "align.toml").write_text(
        'file = "{stem}_behavior.npz"\nline = "digital_input_port"\nvalue = "1"\npulses = "sync"\n'
        '[[behavior]]\nvariable = "x"\nstamps = "t"\ndims = [{ name = "hand_x", unit = "cm" }]\n'
    )
    command = ["import", str(path), "--align", str(tmp_path / "align.toml"), "--store", str(tmp_path / "store")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "aligned by digital_input_port" in done.output
    assert [d.name for d in Store(tmp_path / "store").get("rec").dims] == ["hand_x"]


def test_settings_that_do_not_fit(tmp_path: Path) -> None:
    path, align = recording(tmp_path)
    with pytest.raises(ConfigError, match=r"no line 'sync' in the recording.*it has digital_input_port"):
        betz.read(path, align=align | {"line": "sync"})
    with pytest.raises(ConfigError, match="names either pulses, or level and level_stamps"):
        betz.read(path, align=align | {"level": "x"})
    with pytest.raises(FileError, match="there is no such file"):
        betz.read(path, align=align | {"file": "other.npz"})
    np.savez(tmp_path / "few.npz", sync=np.arange(4), t=np.arange(10.0), x=np.arange(10.0))
    with pytest.raises(DataError, match=r"only 0 pulses of \d+ here and 4 there belong together"):
        betz.read(path, align=align | {"file": "few.npz"})


# ---- lines and barcodes in files


def lines(folder: Path, *, seconds: float = 400.0) -> tuple[Path, np.ndarray, np.ndarray]:
    """A ``.nev`` whose sync line is analog (1 kHz); behavior times, and pulse times, on the other clock."""
    at = pulses(7, seconds)
    stamps = np.arange(0, seconds, 0.002)
    here = at * (1 + 40e-6) + 0.7
    ticks = np.arange(int((seconds + 2) * 1000))
    level = np.zeros(len(ticks))
    for t in here:
        level[(ticks / 1000 >= t) & (ticks / 1000 < t + 0.1)] = 20_000
    rng = np.random.default_rng(0)
    path = write_nev(folder / "l.nev", {(1, 0): np.sort(rng.integers(0, int(seconds * 30_000), 900)).tolist()})
    write_nsx(path.with_suffix(".ns2"), [(0, level[:, None].astype(np.int16))], names=["sync in"], ids=[129])
    return path, at, stamps


def test_a_level_on_both_sides(tmp_path: Path) -> None:
    path, at, stamps = lines(tmp_path)
    level = np.zeros(len(stamps))
    for t in at:
        level[(stamps >= t) & (stamps < t + 0.1)] = 5.0
    np.savez(tmp_path / "b.npz", t=stamps, x=stamps, level=level)
    align = {
        "file": "b.npz", "line": "sync_in", "level": "level", "level_stamps": "t",
        "behavior": [{"variable": "x", "stamps": "t", "dims": [{"name": "x", "unit": "cm"}]}],
    }  # fmt: skip
    session = betz.read(path, align=align)
    (note,) = [n for n in session.provenance.notes if "aligned by" in n]
    assert f"map of {len(at)} pulses" in note
    series = session.behavior[-1]
    times = session.grid.seconds(series.origin_tick + np.arange(len(series.values)) * series.ticks_per_sample)
    assert np.nanmax(np.abs(series.values[:, 0] - (times - 0.7) / (1 + 40e-6))) < 0.003  # lines of 1 and 2 ms


def test_numbers_of_barcodes(tmp_path: Path) -> None:
    at = np.arange(1, 400, 5.0)
    stamps = np.arange(0, 400, 0.01)
    here = [(round((t * (1 + 40e-6) + 0.7) * 30_000), 100 + i) for i, t in enumerate(at)]
    path = write_nev(tmp_path / "c.nev", {(1, 0): [0, 400 * 30_000]}, digital=here[9:])
    np.savez(tmp_path / "b.npz", t=stamps * 1000, x=stamps, at=at * 1000, code=100 + np.arange(len(at)))
    align = {
        "file": "b.npz", "line": "digital_input_port", "pulses": "at", "codes": "code", "time_unit": "ms",
        "behavior": [{"variable": "x", "stamps": "t", "dims": [{"name": "x", "unit": "cm"}]}],
    }  # fmt: skip
    session = betz.read(path, align=align, gap_tolerance_ms=60_000)
    (note,) = [n for n in session.provenance.notes if "aligned by" in n]
    assert f"map of {len(at) - 9} pulses" in note
    assert "unmatched pulses: 0 here, 9 there" in note
    with pytest.raises(DataError, match="several ways"):  # without their numbers they are all alike
        betz.read(path, align={k: v for k, v in align.items() if k != "codes"}, gap_tolerance_ms=60_000)


def test_barcodes_on_both_lines(tmp_path: Path) -> None:
    sent = [(float(t), 7000 + i) for i, t in enumerate(range(2, 200, 5))]
    coded = [barcode(at, number, bits=16) for at, number in sent]
    edges = [(t, v) for times, levels in coded for t, v in zip(times, levels, strict=True)]
    here = [(round((t * (1 + 40e-6) + 0.7) * 30_000), v) for t, v in edges]
    path = write_nev(tmp_path / "d.nev", {(1, 0): [0, 200 * 30_000]}, digital=here)
    stamps = np.arange(0, 200, 0.001)
    index = np.searchsorted([t for t, _ in edges], stamps, side="right") - 1
    level = np.where(index >= 0, np.array([v for _, v in edges])[np.maximum(index, 0)], 0)
    np.savez(tmp_path / "b.npz", t=stamps, x=stamps, level=level)
    align = {
        "file": "b.npz", "line": "digital_input_port", "level": "level", "level_stamps": "t",
        "barcode": {"bits": 16},
        "behavior": [{"variable": "x", "stamps": "t", "dims": [{"name": "x", "unit": "cm"}]}],
    }  # fmt: skip
    session = betz.read(path, align=align)
    (note,) = [n for n in session.provenance.notes if "aligned by" in n]
    assert f"map of {len(sent)} pulses" in note
    assert "unmatched pulses: 0 here, 0 there" in note
