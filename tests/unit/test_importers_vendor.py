"""Vendors' files: every spike at its tick, gaps and restarts never in silence, analog and events where they were."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import betz
from betz.core.errors import ConfigError
from betz.data.importers import FileError, import_files
from betz.data.importers.neo_formats import Format
from betz.data.importers.neo_read import read_generic, spike_rate, ticks_of
from betz.data.store import Store
from betz.testing.vendor_files import write_nev, write_nex, write_nsx, write_open_ephys, write_plx

SPIKES = {(1, 0): [10, 40_000, 80_000], (1, 2): [20, 30], (3, 0): [5, 59_999], (1, 255): [7]}
RAMP = (np.arange(3000)[:, None] * np.array([1, -1])).astype(np.int16)


def notes(session: betz.Session) -> str:
    return "\n".join(session.provenance.notes)


def ticks(session: betz.Session) -> dict[str, list[int]]:
    assert session.spikes is not None
    return {c.id: t.tolist() for c, t in zip(session.channels, session.spikes, strict=True)}


@pytest.fixture
def nev(tmp_path: Path) -> Path:
    return write_nev(
        tmp_path / "a.nev",
        SPIKES,
        digital=[(100, 5), (200, 6)],
        comments=[(300, "hello")],
        electrodes=[1, 2, 3],
    )


def nsx(nev: Path, *starts: int, electrode: bool = True) -> Path:
    """A ``.ns2`` at 1 kHz with three seconds of a ramp, cut where a second start is given."""
    parts = np.array_split(RAMP, [1000]) if len(starts) > 1 else [RAMP]
    return write_nsx(
        nev.with_suffix(".ns2"), list(zip(starts, parts, strict=True)), names=["ainp1", "elec5"], ids=[129, 5]
    )


# ---- Blackrock


def test_units_of_an_electrode_are_pooled_or_kept_apart(nev: Path) -> None:
    session = betz.read(nev)
    assert ticks(session) == {"ch1": [10, 20, 30, 40_000, 80_000], "ch2": [], "ch3": [5, 59_999]}
    assert session.grid.tick_hz == 30_000
    assert session.grid.origin_tick == 5
    assert session.provenance.skipped == {"spikes marked as noise (unit 255)": 1}
    assert "1 of 3 channels have no spike at all: ch2" in notes(session)
    assert "pooled with the crossings" in notes(session)
    apart = betz.read(nev, slot="unit")
    assert ticks(apart) == {"ch1": [10, 40_000, 80_000], "ch1u2": [20, 30], "ch2": [], "ch3": [5, 59_999]}
    assert [c.kind for c in apart.channels] == ["crossings", "unit", "crossings", "crossings"]
    assert apart.tags["date"] == "2026-04-12"


def test_digital_events_and_comments(nev: Path, tmp_path: Path) -> None:
    events = betz.read(nev).events
    assert events is not None
    assert events.at("digital_input_port").tolist() == [100, 200]
    assert events.at("digital_input_port", "6").tolist() == [200]
    assert events.at("comments", "hello").tolist() == [300]
    store = Store(tmp_path / "store", create=True)
    assert import_files([nev], store).kept == ("a",)
    kept = store.get("a").events
    assert kept is not None
    assert (kept.ticks.tolist(), kept.kinds) == (events.ticks.tolist(), events.kinds)


def test_analog_behavior_with_its_unit_and_time(nev: Path) -> None:
    nsx(nev, 600)
    session = betz.read(nev)
    (series,) = session.behavior
    assert [(d.name, d.unit) for d in series.dims] == [("ainp1", "mV")]
    assert (series.origin_tick, series.ticks_per_sample) == (600, 30)
    np.testing.assert_allclose(series.values[:, 0], RAMP[:, 0] * (5000 / 32_000), rtol=1e-6)
    assert session.provenance.skipped["analog channels"] == 1
    assert "1 analog channels left out (elec5)" in notes(session)
    (other,) = betz.read(nev, analog=("elec*",)).behavior
    np.testing.assert_allclose(other.values[:, 0], RAMP[:, 1] * (5000 / 32_000), rtol=1e-6)
    with pytest.raises(FileError, match=r"no analog channel matches 'force\*'; it has ainp1, elec5"):
        betz.read(nev, analog=("force*",))


def test_gaps_are_refused_bridged_or_split(nev: Path, tmp_path: Path) -> None:
    nsx(nev, 0, 33_000)
    with pytest.raises(FileError, match=r"1 gaps \(at 1\.000 s: 100\.0 ms\).*--gap-tolerance-ms"):
        betz.read(nev)
    session = betz.read(nev, gap_tolerance_ms=150)
    assert session.valid is not None
    assert list(session.valid) == [(0, 30_000), (33_000, 93_000)]
    assert np.flatnonzero(~session.usable).tolist() == [50, 51, 52, 53, 54]
    assert np.isnan(session.behavior[0].values).sum() == 100
    assert "100 samples that were not recorded are NaN" in notes(session)
    store = Store(tmp_path / "store", create=True)
    report = import_files([nev], store, options={"gap_tolerance_ms": 50})
    assert report.kept == ("a_1", "a_2")
    first, second = (ticks(store.get(id_)) for id_ in report.kept)
    assert first == {"ch1": [10, 20, 30], "ch2": [], "ch3": [5]}
    assert second == {"ch1": [40_000, 80_000], "ch2": [], "ch3": [59_999]}
    assert store.get("a_2").grid.origin_tick == 33_000


def test_spikes_in_a_gap_that_splits_are_counted(tmp_path: Path) -> None:
    path = write_nev(tmp_path / "g.nev", {(1, 0): [10, 31_000, 32_000, 40_000]})
    nsx(path, 0, 33_000)
    first, second = (betz.read(path, gap_tolerance_ms=50, session=name) for name in "12")
    assert (ticks(first), ticks(second)) == ({"ch1": [10]}, {"ch1": [40_000]})
    assert first.provenance.skipped["spikes in gaps between sessions"] == 2
    both = betz.read(path, gap_tolerance_ms=150)
    assert ticks(both) == {"ch1": [10, 31_000, 32_000, 40_000]}
    assert "spikes in gaps between sessions" not in both.provenance.skipped


def test_a_restart_of_the_clock_always_splits(tmp_path: Path) -> None:
    path = write_nev(tmp_path / "r.nev", {(1, 0): [100_000, 200_000]}, restarts=[({(1, 0): [50, 70]}, [])])
    first, second = betz.read(path, session="1"), betz.read(path, session="2")
    assert (ticks(first), ticks(second)) == ({"ch1": [100_000, 200_000]}, {"ch1": [50, 70]})
    assert "restarts of the clock: 1" in notes(first)
    with pytest.raises(FileError, match="it holds 2 sessions: 1, 2"):
        betz.read(path, gap_tolerance_ms=1e9)


def test_packets_out_of_order_are_no_restart(tmp_path: Path) -> None:
    path = write_nev(tmp_path / "o.nev", {(1, 0): [100_000, 200_000, 200_300]}, order=[0, 2, 1])
    session = betz.read(path)
    assert ticks(session) == {"ch1": [100_000, 200_000, 200_300]}
    assert "packets out of order by up to 10 ms, sorted" in notes(session)


def test_where_nev_and_nsx_disagree_the_spikes_are_kept(tmp_path: Path) -> None:
    path = write_nev(tmp_path / "d.nev", {(1, 0): [100_000, 200_000]}, restarts=[({(1, 0): [50, 70]}, [])])
    nsx(path, 0)
    session = betz.read(path, session="1")
    assert ticks(session) == {"ch1": [100_000, 200_000]}
    assert session.behavior == ()
    assert "segments of the .nev (2) and of ns2 (1) disagree: the spikes are kept" in notes(session)
    assert session.provenance.skipped["analog channels of an nsX whose restarts differ"] == 2


def test_spikes_outside_of_the_analog_record_are_kept(nev: Path) -> None:
    nsx(nev, 3000)
    session = betz.read(nev)
    assert ticks(session)["ch1"] == [10, 20, 30, 40_000, 80_000]
    assert "4 spikes lie outside of what ns2 recorded; they are kept" in notes(session)


def test_a_damaged_nsx_does_not_cost_the_spikes(nev: Path) -> None:
    path = nsx(nev, 0)
    path.write_bytes(path.read_bytes()[:300])
    session = betz.read(nev)
    assert ticks(session)["ch3"] == [5, 59_999]
    assert session.provenance.skipped["nsX files that cannot be read"] == 1
    assert "a.ns2 left out" in notes(session)


def test_an_nsx_without_samples_is_told(nev: Path) -> None:
    write_nsx(nev.with_suffix(".ns2"), [(0, RAMP[:0])], names=["ainp1", "elec5"], ids=[129, 5])
    session = betz.read(nev)
    assert ticks(session)["ch3"] == [5, 59_999]
    assert session.behavior == ()
    assert "ns2 has no samples" in notes(session)


def test_an_nsx_is_imported_with_its_nev_only(nev: Path) -> None:
    path = nsx(nev, 0)
    with pytest.raises(FileError, match=r"it belongs to a\.nev, which imports it too.*import a\.nev"):
        betz.read(path)
    nev.unlink()
    with pytest.raises(FileError, match=r"no spikes, only 2 channels at 1000 Hz .*--broadband crossings"):
        betz.read(path)


def test_a_long_silence_is_a_gap(tmp_path: Path) -> None:
    path = write_nev(tmp_path / "s.nev", {(1, 0): [0, 30_000, 90_000_000]})
    with pytest.raises(FileError, match=r"1 gaps \(at 1\.000 s: 2999000\.0 ms\)"):
        betz.read(path)


def test_bins_have_to_fit_the_clock(nev: Path) -> None:
    assert betz.read(nev, bin_ms=10).grid.ticks_per_bin == 300
    with pytest.raises(FileError, match=r"bins of 0\.01 ms are no whole number of ticks at 30000 Hz"):
        betz.read(nev, bin_ms=0.01)
    with pytest.raises(ConfigError, match="a vendor's file needs no mapping"):
        betz.read(nev, mapping="indy64")


def test_stamps_of_a_shared_clock(tmp_path: Path) -> None:
    """Version 3.0 with PTP: nanoseconds since long ago, and a sample clock that drifts against them by 50 ppm."""
    start, second = 1_700_000_000 * 10**9, 10**9
    spikes = {(1, 0): [start + 5 * second // 2, start + 30 * second + 7], (2, 0): [start + second]}
    path = write_nev(tmp_path / "p.nev", spikes, digital=[(start + 9, 3)], ptp=True)
    number = 31_000
    stamps = start + (np.arange(number) * 1_000_000 * (1 + 50e-6)).astype(np.int64)
    values = np.arange(number)[:, None].astype(np.int16)
    write_nsx(path.with_suffix(".ns2"), [(stamps.tolist(), values)], names=["ainp1"], ids=[129], ptp=True)
    session = betz.read(path)
    assert session.grid.tick_hz == second
    assert ticks(session) == {f"ch{e}": t for (e, _), t in spikes.items()}
    assert session.events is not None
    assert session.events.ticks.tolist() == [start + 9]
    (series,) = session.behavior
    assert abs(series.origin_tick - start) < 300  # seconds in float64 tell this clock to 0.24 µs
    value = series.values[:, 0] / (5000 / 32_000)
    at_ms = np.arange(len(value))
    assert np.abs(value - at_ms / (1 + 50e-6))[np.isfinite(value)].max() < 1.01  # not 1.5 ms off at the end
    assert not session.provenance.skipped


def test_without_neo_it_says_how_to_install_it(nev: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nsx(nev, 0)
    monkeypatch.setitem(sys.modules, "neo.rawio", None)
    report = import_files([nev], Store(tmp_path / "store", create=True))
    assert str(report.files[0].error) == "neo is not installed. Remedy: pip install 'betz[io]'"
    assert report.skipped == {"library not installed": 1}


def test_ripple_is_named_by_its_program(tmp_path: Path) -> None:
    path = write_nev(tmp_path / "t.nev", {(1, 0): [1, 2]}, program="Trellis")
    assert betz.read(path).provenance.importer == "neo: Ripple"


# ---- Plexon, NeuroExplorer, Open Ephys


def test_plexon(tmp_path: Path) -> None:
    analog = [("AI01", 1000, [(40, np.arange(100)), (4040, np.arange(100, 200)), (20_040, np.arange(50))])]
    path = write_plx(
        tmp_path / "b.plx", {(1, 0): [10, 40_000], (1, 1): [90_000], (2, 1): [5]}, events=[(50, 7)], analog=analog
    )
    session = betz.read(path, slot="unit")
    assert ticks(session) == {"ch1": [10, 40_000], "ch1u1": [90_000], "ch2u1": [5]}
    assert session.grid.tick_hz == 40_000
    assert session.events is not None
    assert session.events.at("Strobed", "7").tolist() == [50]
    (series,) = session.behavior
    assert (series.origin_tick, series.ticks_per_sample, series.dims[0].unit) == (40, 40, "mV")
    assert np.isnan(series.values[200:500]).all()
    steps = np.diff(series.values[:200, 0])
    np.testing.assert_allclose(steps, steps[0], rtol=1e-5)
    assert "300 samples that were not recorded are NaN" in notes(session)


def test_plexon_spikes_behind_the_last_block_are_kept(tmp_path: Path) -> None:
    path = write_plx(tmp_path / "b.plx", {(1, 0): [10, 40_000, 80_000]})
    data = path.read_bytes()
    late, early = data[-16:], data[-48:-32]  # the last block of the file is then not the latest
    path.write_bytes(data[:-48] + late + data[-32:-16] + early)
    session = betz.read(path)
    assert ticks(session) == {"ch1": [10, 40_000, 80_000]}
    assert "blocks out of order: spikes sorted, 2 steps back in all" in notes(session)


def test_neuroexplorer_keeps_fragments_apart(tmp_path: Path) -> None:
    force = (1000.0, [(0, np.arange(100)), (8000, np.arange(100, 150))])
    path = write_nex(
        tmp_path / "c.nex",
        {"n1": [10, 40_000], "n2": [5]},
        events={"go": [50, 70]},
        analog={"force": force},
        end_tick=80_001,
    )
    session = betz.read(path)
    assert ticks(session) == {"n1": [10, 40_000], "n2": [5]}
    assert [c.kind for c in session.channels] == ["unit", "unit"]
    assert session.events is not None
    assert session.events.at("go").tolist() == [50, 70]
    values = session.behavior[0].values[:, 0]
    np.testing.assert_allclose(values[:100], np.arange(100) * 0.001, rtol=1e-5)
    assert np.isnan(values[100:200]).all()
    np.testing.assert_allclose(values[200:], np.arange(100, 150) * 0.001, rtol=1e-5)


@pytest.mark.parametrize("name", ["x.pl2", "x.nex5", "x.smr"])
def test_formats_that_are_refused_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(FileError, match=r"Remedy: (save|export) it as"):
        betz.read(tmp_path / name)


def test_open_ephys_needs_broadband(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(0, 100, (3000, 2))
    path = write_open_ephys(
        tmp_path / "oe",
        {"probe": (30_000.0, ["CH1", "CH2"], values), "aux": (1000.0, ["ADC1"], values[:100, :1])},
        sync=[1200, 1300],
    )
    with pytest.raises(FileError, match=r"no spikes, only 2 channels at 30000 Hz.*1 channels at 1000 Hz.*events"):
        betz.read(path)


# ---- real files


@pytest.mark.recordings
def test_the_blackrock_file_round_trips(recordings: Path, tmp_path: Path) -> None:
    path = recordings / "raw_formats" / "blackrock" / "Han_20170516_writeNev.nev"
    store = Store(tmp_path / "store", create=True)
    assert import_files([path], store, options={"subject": "Han"}).kept == (path.stem,)
    session = store.get(path.stem)
    assert session.spikes is not None
    assert len(session.channels) == 96
    assert sum(map(len, session.spikes)) == 20_163
    assert all(t.dtype == np.int64 for t in session.spikes)
    raw = np.frombuffer(path.read_bytes()[336 + 32 * _entries(path) :], np.uint8)
    packets = raw[: len(raw) // 104 * 104].reshape(-1, 104)
    electrode = packets[:, 4:6].copy().view("<u2").ravel()
    stamps = packets[:, :4].copy().view("<u4").ravel()
    for channel, found in zip(session.channels, session.spikes, strict=True):
        np.testing.assert_array_equal(found, np.sort(stamps[electrode == int(channel.id[2:])]))


def _entries(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[332:336], "little")


VENDOR_FILES = {
    "blackrock/Han_20170516_writeNev.nev": "",
    "blackrock/tiny_writeNev_test.nev": "",
    "blackrock/TEST_UN001.ns2": "no spikes, only 6 channels at 1000 Hz",
    "blackrock/test_BRSMPGRP_raw.ns3": "no spikes, only 128 channels at 2000 Hz",
    "blackrock/test_NEURALCD_raw.ns3": "no spikes, only 128 channels at 2000 Hz",
    "blackrock/test_NEURALSG_raw.ns3": "no spikes, only 128 channels at 2000 Hz",
    "neuroexplorer/File_neuroexplorer_1.nex": "",
    "plexon/File_plexon_3.plx": "",
    "plexon/test.plx": "",
    "plexon/ts_freq_zero.plx": "its header says a clock of 0 Hz",
    "ripple/trellis_sample.nev": "no spikes, only 4346 events",
}


@pytest.mark.recordings
@pytest.mark.parametrize("name", VENDOR_FILES)
def test_every_real_file_imports_or_is_refused_with_its_reason(name: str, recordings: Path) -> None:
    path = recordings / "raw_formats" / name
    if VENDOR_FILES[name]:
        with pytest.raises(FileError, match=VENDOR_FILES[name]):
            betz.read(path)
    else:
        assert betz.read(path).num_bins > 0


@pytest.mark.recordings
def test_no_vendor_file_is_forgotten(recordings: Path) -> None:
    found = {p.relative_to(recordings / "raw_formats").as_posix() for p in (recordings / "raw_formats").rglob("*.*")}
    assert {name for name in found if not name.endswith(".nwb")} == set(VENDOR_FILES)


# ---- the reader of all other formats, on files whose content is known


def test_the_general_reader_gives_the_same(tmp_path: Path) -> None:
    path = write_nex(
        tmp_path / "c.nex",
        {"n1": [10, 40_000], "n2": [5]},
        events={"go": [50, 70]},
        analog={"force": (2000.0, [(80, np.arange(100))])},
        end_tick=80_001,
    )
    found = read_generic(path, Format("other", (".nex",), reader="NeuroExplorerRawIO"))
    assert found.tick_hz == 40_000
    (piece,) = found.pieces
    assert [t.tolist() for t in piece.spikes] == [[10, 40_000], [5]]
    assert [c.id for c in found.channels] == ["n1", "n2"]
    assert piece.events == [(50, "go", ""), (70, "go", "")]
    (stream,) = piece.streams
    assert (stream.rate_hz, stream.fragments[0].tick, stream.units) == (2000, 80, ("mV",))
    np.testing.assert_allclose(stream.read(3, 6, [0])[:, 0], np.array([3, 4, 5]) * 0.001, rtol=1e-5)


def test_segments_of_one_clock_are_one_piece_and_restarts_are_not(tmp_path: Path) -> None:
    known = Format("other", (".nev",), reader="BlackrockRawIO")
    spikes = {(1, 0): [10, 40_000], (2, 3): [80_000]}
    one = write_nev(tmp_path / "a.nev", spikes)
    nsx(one, 0, 33_000)
    (piece,) = read_generic(one, known).pieces
    assert [t.tolist() for t in piece.spikes] == [[10, 40_000], [80_000]]
    (stream,) = piece.streams
    assert [(f.tick, f.first, f.number) for f in stream.fragments] == [(0, 0, 1000), (33_000, 1000, 2000)]
    np.testing.assert_allclose(stream.read(990, 1010, [0])[:, 0], np.arange(990, 1010) * (5000 / 32_000), rtol=1e-5)
    assert [s[0] for s in piece.spans] == [0, 33_000]
    two = write_nev(tmp_path / "b.nev", spikes, restarts=[({(1, 0): [50, 70, 90]}, [])])
    pieces = read_generic(two, known).pieces
    assert [p.spans[0][0] for p in pieces] == [10, 50]


def test_stamps_that_are_no_whole_ticks_are_told() -> None:
    class Reader:
        """As neo's readers look that give spike times in seconds."""

        def spike_channels_count(self) -> int:
            return 1

        def rescale_spike_timestamp(self, stamps: np.ndarray, dtype: str) -> np.ndarray:
            return stamps.astype(dtype) / 30_000 + 5

    rate, notes_ = spike_rate(Reader())
    assert rate is None
    assert notes_ == ["spike times are no whole ticks of one clock in this format: they were rounded to 1 µs"]
    found = ticks_of(np.array([0.5, 1.25]), rate, 1_000_000, lambda stamps: stamps)
    assert found.tolist() == [500_000, 1_250_000]
    exact = ticks_of(np.array([7, 9], np.uint32), Fraction(24_414_0625, 10_000), 390_625, lambda stamps: stamps)
    assert exact.tolist() == [7 * 16, 9 * 16]
