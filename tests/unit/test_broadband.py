"""Crossings and power from broadband: planted spikes are found where they are, in pieces as at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import betz
from betz.core.errors import ConfigError
from betz.data.importers import FileError, broadband, neo_model
from betz.testing.importers import peak, reset_peak_mb
from betz.testing.vendor_files import write_nev, write_nsx, write_open_ephys

RATE, SECONDS, CHANNELS = 30_000, 4, 6
NAMES, IDS = [f"elec{c}" for c in range(1, CHANNELS + 1)], list(range(1, CHANNELS + 1))
SHAPE = -1200 * np.exp(-0.5 * ((np.arange(30) - 8) / 3.0) ** 2)


def planted(*, common: float = 0.0, seed: int = 0) -> tuple[np.ndarray, list[np.ndarray]]:
    """(n, C) int16 noise with spikes, and their first samples; ``common``: noise that all channels share."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 60, (RATE * SECONDS, CHANNELS)) + common * rng.normal(0, 60, (RATE * SECONDS, 1))
    starts = []
    for c in range(CHANNELS):
        at = 600 + 1100 * np.arange(100) + 150 * c
        for i in at:
            x[i : i + 30, c] += SHAPE
        starts.append(at)
    return x.astype(np.int16), starts


def found_of(session: betz.Session) -> list[np.ndarray]:
    assert session.spikes is not None
    return list(session.spikes)


def ns5(folder: Path, x: np.ndarray, *, starts: tuple[int, ...] = (0,)) -> Path:
    parts = np.array_split(x, len(starts))
    return write_nsx(folder / "b.ns5", list(zip(starts, parts, strict=True)), names=NAMES, ids=IDS, period=1)


def test_planted_spikes_are_found(tmp_path: Path) -> None:
    x, starts = planted()
    session = betz.read(ns5(tmp_path, x), broadband="crossings")
    assert [c.id for c in session.channels] == NAMES
    assert {c.kind for c in session.channels} == {"crossings"}
    for found, at in zip(found_of(session), starts, strict=True):
        late = found[np.searchsorted(found, at)] - at
        assert np.all((late >= 0) & (late <= 20))
        assert len(found) <= len(at) + 3  # noise crosses −4.5 RMS next to never
    assert any("crossings of -4.5 RMS made from ns5 (300 to 3000 Hz, reference: none)" in n
               for n in session.provenance.notes)  # fmt: skip


def test_pieces_give_what_the_whole_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ns5(tmp_path, planted()[0])
    options: dict[str, Any] = {"reference": "regression"}
    whole = [betz.read(path, broadband=kind, **options) for kind in ("crossings", "power")]
    monkeypatch.setattr(broadband, "READ_SAMPLES", 6 * 777)
    monkeypatch.setattr(neo_model, "READ_SAMPLES", 6 * 777)
    parts = [betz.read(path, broadband=kind, **options) for kind in ("crossings", "power")]
    for one, other in zip(found_of(whole[0]), found_of(parts[0]), strict=True):
        np.testing.assert_array_equal(one, other)
    assert whole[1].power is not None
    assert parts[1].power is not None
    np.testing.assert_allclose(parts[1].power, whole[1].power, rtol=1e-5)


@pytest.mark.parametrize("reference", ["average", "regression"])
def test_a_reference_takes_away_what_channels_share(reference: str, tmp_path: Path) -> None:
    x, starts = planted(common=4.0)
    path = ns5(tmp_path, x)

    def hits(session: betz.Session) -> int:
        near = 0
        for found, at in zip(found_of(session), starts, strict=True):
            near += sum(bool(np.any((found >= a) & (found < a + 30))) for a in at)
        return near

    assert hits(betz.read(path, broadband="crossings")) < 450
    assert hits(betz.read(path, broadband="crossings", reference=reference)) == 600


def test_power_is_the_mean_square_in_the_band(tmp_path: Path) -> None:
    times = np.arange(RATE * 2) / RATE
    amplitudes = np.array([100, 200, 400, 800, 1600, 3200])
    inside, outside = (np.sin(2 * np.pi * f * times)[:, None] * amplitudes for f in (1000, 20))
    session = betz.read(ns5(tmp_path, inside.astype(np.int16)), broadband="power", bin_ms=50)
    assert session.power is not None
    assert session.spikes is None
    first = session.channels[0]
    assert (first.id, first.kind, first.unit) == ("elec1", "power", "mV^2")
    expected = (amplitudes * 5000 / 32_000) ** 2 / 2
    np.testing.assert_allclose(session.power[5:].mean(axis=0), expected, rtol=0.03)
    slow = betz.read(ns5(tmp_path, outside.astype(np.int16)), broadband="power", bin_ms=50).power
    assert slow is not None
    assert np.all(slow[5:].mean(axis=0) < 1e-3 * expected)


def test_power_beside_spikes_of_the_file(tmp_path: Path) -> None:
    path = write_nev(tmp_path / "b.nev", {(1, 0): [30, 900]})
    ns5(tmp_path, planted()[0])
    session = betz.read(path, broadband="power")
    assert [c.kind for c in session.channels] == ["crossings"] + ["power"] * CHANNELS
    assert session.signals.shape == (session.num_bins, 1 + CHANNELS)
    with pytest.raises(ConfigError, match="it has spikes of its own, so crossings would be there twice"):
        betz.read(path, broadband="crossings")


def test_state_does_not_cross_a_gap(tmp_path: Path) -> None:
    x, starts = planted()
    path = ns5(tmp_path, x, starts=(0, 90_000))
    session = betz.read(path, broadband="crossings", gap_tolerance_ms=2000)
    found = found_of(session)[0]
    moved = np.where(starts[0] < 60_000, starts[0], starts[0] + 30_000)
    late = found[np.minimum(np.searchsorted(found, moved), len(found) - 1)] - moved
    assert np.mean((late >= 0) & (late <= 20)) > 0.98
    assert not np.any((found >= 60_000) & (found < 90_000))
    assert (~session.usable).sum() == 50


def test_several_processors_become_one_session(tmp_path: Path) -> None:
    x, starts = planted()
    path = write_open_ephys(
        tmp_path / "oe",
        {"probe": (30_000.0, [f"CH{c}" for c in IDS], x), "aux": (1000.0, ["ADC1"], x[: 1000 * SECONDS, :1])},
        sync=[1200, 31_200],
    )
    session = betz.read(path, broadband="crossings")
    assert len(session.channels) == CHANNELS
    assert [d.name for d in session.dims] == ["ADC1"]
    late = found_of(session)[0][:50] - 1000 - starts[0][:50]
    assert np.all((late >= 0) & (late <= 20))
    assert session.events is not None
    assert session.events.ticks.tolist() == [1200, 31_200]


def test_what_cannot_be(tmp_path: Path) -> None:
    x, _ = planted()
    path = write_nsx(tmp_path / "b.ns2", [(0, x[:3000])], names=NAMES, ids=IDS)
    with pytest.raises(FileError, match="ns2 is sampled at 1000 Hz, too slowly for a band up to 3000 Hz"):
        betz.read(path, broadband="crossings")
    empty = write_nsx(tmp_path / "e.ns5", [(0, x[:0])], names=NAMES, ids=IDS, period=1)
    with pytest.raises(FileError, match=r"it holds no spikes, only 6 channels|it cannot be read"):
        betz.read(empty, broadband="crossings")
    with pytest.raises(ConfigError, match=r"threshold_rms = 3 are impossible.*negative threshold"):
        betz.read(path, broadband="crossings", threshold_rms=3.0)
    assert betz.read(path, broadband="crossings", band_hz=(50, 400)).num_bins == 150


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 60, (RATE * 20, 16)).astype(np.int16)
    peaks = []
    for repeats in (1, 4):
        path = write_nsx(tmp_path / f"long{repeats}.ns5", [(0, np.tile(x, (repeats, 1)))],
                         names=[f"elec{c}" for c in range(1, 17)], ids=range(1, 17), period=1)  # fmt: skip
        betz.read(ns5(tmp_path, x[:3000, :6]), broadband="crossings")
        before = reset_peak_mb()
        betz.read(path, broadband="crossings")
        peaks.append(peak() - before)
    assert path.stat().st_size > 75e6
    assert peaks[1] < peaks[0] + 30
