"""Spike times in a cell become ticks, with behavior at its own rate; times that cannot be right are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

import betz
from betz.core.errors import ConfigError
from betz.data.importers import FileError
from tests.unit import layout_files as files
from tests.unit.layout_files import SPIKES, cell, smooth, unit_line

VECTORS: dict[str, Any] = {"subject": "M", "spikes": {"variable": "s"}, "time": {"bin_ms": 20}}
JOYSTICK: dict[str, Any] = {"spikes": {"variable": "Spike_data", "header": 1, "times": 3}, "time": {"bin_ms": 100}}


def notes(session: betz.Session) -> str:
    return "\n".join(session.provenance.notes)


def cells(folder: Path, *times: Any, **more: Any) -> Path:
    scipy.io.savemat(folder / "a.mat", {"s": cell(list(times)), **more})
    return folder / "a.mat"


def test_joystick(tmp_path: Path) -> None:
    session = betz.read(files.joystick(tmp_path / "j.mat"))
    assert (session.subject, session.bin_ms, session.num_bins) == ("monkey 2 (joystick)", 100, 30)
    assert (session.grid.tick_hz, session.counts) == (1_000_000, None)
    assert [c.id for c in session.channels] == ["ch11u1", "ch13u1"]
    assert session.spikes is not None
    assert session.spikes[0].tolist() == [385, 99_999, 100_000, 250_000, 250_100, 2_999_000]
    assert session.spikes[1].dtype == np.int64
    assert session.signals[:4, 0].tolist() == [2, 1, 2, 0]
    assert [(d.name, d.unit) for d in session.dims] == [("joystick_x", "V"), ("joystick_y", "V")]
    assert [(s.origin_tick, s.ticks_per_sample, len(s.values)) for s in session.behavior] == [(0, 100_000, 30)] * 2
    np.testing.assert_allclose(session.behavior_of(["joystick_x"])[:, 0], 8000 + 3000 * smooth(30, 1)[:, 0], rtol=1e-6)
    assert session.provenance.skipped == {"columns of the table of spikes": 2, "variables not in the mapping": 1}
    assert "columns of Spike_data that are not imported: Mean Spike Waveform, Spike Amplitude" in notes(session)
    assert "X_Voltage is kept at its own rate, 10 Hz" in notes(session)


def test_bins_of_any_width(tmp_path: Path) -> None:
    session = betz.read(files.joystick(tmp_path / "j.mat"), bin_ms=20)
    assert (session.bin_ms, session.num_bins) == (20, 150)
    assert session.signals[:, 0].sum() == 6
    x = session.behavior_of(["joystick_x"])[:, 0]
    assert np.flatnonzero(np.isfinite(x)).tolist() == list(range(0, 150, 5))
    with pytest.raises(FileError, match=r"bins of 0\.0333 ms are no whole number of ticks at 1000000 Hz"):
        betz.read(files.joystick(tmp_path / "j.mat"), bin_ms=0.0333)


def test_without_the_second_axis(tmp_path: Path) -> None:
    session = betz.read(files.joystick(tmp_path / "j.mat", Y_Voltage=None))
    assert [d.name for d in session.dims] == ["joystick_x"]
    assert "there is no Y_Voltage in this file" in notes(session)


def test_a_cell_of_vectors(tmp_path: Path) -> None:
    session = betz.read(cells(tmp_path, [0.001, 0.5], np.empty((0, 0)), np.array([[0.1], [0.7]])), mapping=VECTORS)
    assert session.spikes is not None
    assert [t.tolist() for t in session.spikes] == [[1000, 500_000], [], [100_000, 700_000]]
    assert [c.id for c in session.channels] == ["ch1", "ch2", "ch3"]
    assert session.num_bins == 36  # the bin of the last spike is whole
    assert "1 of 3 channels have no spike at all: ch2" in notes(session)
    in_ms = VECTORS | {"spikes": {"variable": "s", "time_unit": "ms", "tick_hz": 30_000, "kind": "crossings"}}
    coarse = betz.read(cells(tmp_path, [1.0, 500.02]), mapping=in_ms)
    assert coarse.spikes is not None
    assert coarse.spikes[0].tolist() == [30, 15_001]
    assert coarse.channels[0].kind == "crossings"
    assert "spike times rounded to ticks of 33.3333 µs, by 0.40 ticks at most" in notes(coarse)


def test_unsorted_times_are_sorted_only_if_asked(tmp_path: Path) -> None:
    path = cells(tmp_path, [0.5, 0.1, 0.3], [0.2])
    text = r"spike times of ch1 are not in ascending order \(1 steps back, the first at spike 2\)\. Remedy: sort them"
    with pytest.raises(FileError, match=text) as caught:
        betz.read(path, mapping=VECTORS)
    assert caught.value.reason == "unsorted spikes"
    session = betz.read(path, mapping=VECTORS, sort_spikes=True)
    assert session.spikes is not None
    assert session.spikes[0].tolist() == [100_000, 300_000, 500_000]
    assert "spike times sorted on import: 1 steps back in all" in notes(session)
    assert session.provenance.options["sort_spikes"] is True


@pytest.mark.parametrize(
    "times, text",
    [
        ([0.1, np.nan], "spike 2 of ch1 is at nan s"),
        ([-0.1, 0.2], r"spike 1 of ch1 is at -0\.1 s\. Remedy: check the unit of the times and the clock's zero"),
        ([0.1, 1e12], r"spike 2 of ch1 is at 1e\+12 s"),
        ([0.1, 9e8], "it lasts 4500000000. bins of 20 ms"),
        (np.ones((2, 2)), "spike times of ch1 are float64 of 2x2, not a vector"),
        ("text", "spike times of ch1 are <U4 of 1, not a vector"),
        (np.linspace(0.1, 0.1001, 300), "300 spikes in one bin of 20 ms do not fit the limit of 255"),
    ],
)
def test_times_that_cannot_be_right(times: Any, text: str, tmp_path: Path) -> None:
    with pytest.raises(betz.core.errors.DataError, match=text):
        betz.read(cells(tmp_path, times), mapping=VECTORS)


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"table": [unit_line(11, 1, SPIKES[0], number=5)]}, "ch11u1 has 6 spike times, the file says 5"),
        ({"table": [unit_line(11.5, 1, SPIKES[0])]}, r"column 1 of the spikes holds \[11\.5\], not a whole number"),
        ({"table": [unit_line(11, 1, SPIKES[0])] * 2}, "channel ch11u1 is there more than once"),
        ({"table": []}, "'Spike_data' is a cell of 1x6, the mapping wants 4 columns and a channel below 1 rows"),
        ({"t_joy": np.arange(30) * 0.1 + np.r_[np.zeros(20), 0.03 * np.ones(10)]}, "stamps 't_joy' do not follow one"),
        ({"t_joy": np.arange(30)[::-1] * 0.1}, "stamps 't_joy' are not in ascending order"),
        (
            {"X_Voltage": np.full((30, 1), np.nan)},
            r"behavior 'X_Voltage' has NaN or infinite values \(samples: joystick",
        ),
        ({"Y_Voltage": np.zeros((29, 1))}, "behavior 'Y_Voltage' has 29 rows, its stamps 't_joy' 30"),
        ({"Spike_data": None}, "its layout is not known"),
        ({"t_joy": None}, "its layout is not known"),
    ],
)
def test_wrong_joystick_files(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=text):
        betz.read(files.joystick(tmp_path / "j.mat", **changes))


def test_missing_samples_are_not_known(tmp_path: Path) -> None:
    keep = np.r_[0:10, 13:30]
    gap = {"t_joy": keep * 0.1, "X_Voltage": 8000 + 3000 * smooth(30, 1)[keep], "Y_Voltage": None}
    path = files.joystick(tmp_path / "j.mat", **gap)
    with pytest.raises(FileError, match="has NaN or infinite values"):
        betz.read(path)
    session = betz.read(path, nan="mask")
    assert np.flatnonzero(np.isnan(session.behavior_of(["joystick_x"])[:, 0])).tolist() == [10, 11, 12]
    assert "3 samples of X_Voltage are missing between its stamps: they are not known (NaN)" in notes(session)


def test_a_cell_that_is_none(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"s": np.ones(3), "c": np.empty((0, 0), object)})
    with pytest.raises(FileError, match="there is no cell 's'; it is float64 1x3"):
        betz.read(tmp_path / "a.mat", mapping=VECTORS)
    with pytest.raises(FileError, match="'c' is empty"):
        betz.read(tmp_path / "a.mat", mapping=VECTORS | {"spikes": {"variable": "c"}})
    with pytest.raises(FileError, match="it has no spike and no behavior"):
        betz.read(cells(tmp_path, np.empty((0, 0))), mapping=VECTORS)


@pytest.mark.parametrize(
    "changes, options, text",
    [
        ({}, {"slot": "sum"}, "slot has no meaning for spike times"),
        ({}, {"rates_to_counts": True}, "rates_to_counts has no meaning for spike times"),
        ({"time": {"bin_ms": 20, "stamps": "t"}}, {}, "stamps, origin_s and ambiguous have no meaning for spike times"),
        ({"behavior": [{"variable": "v", "dims": [{"name": "a"}]}]}, {}, "behavior 'v' has no stamps"),
        (
            {"behavior": [{"variable": "v", "stamps": "t", "dims": [{"name": "a"}]}],
             "spikes": {"variable": "s", "tick_hz": 1001}},
            {},
            "samples of 'v' every 100 ms are no whole number of ticks at 1001 Hz",
        ),
    ],
)  # fmt: skip
def test_mappings_that_make_no_sense(
    changes: dict[str, Any], options: dict[str, Any], text: str, tmp_path: Path
) -> None:
    path = cells(tmp_path, [0.1], v=np.zeros((9, 1)), t=np.arange(9) * 0.1)
    with pytest.raises(ConfigError, match=text):
        betz.read(path, mapping=VECTORS | changes, **options)


def test_no_width_and_no_spikes(tmp_path: Path) -> None:
    with pytest.raises(
        FileError, match=r"spike times can be put in bins of any width, and none is given\. Remedy: give"
    ):
        betz.read(cells(tmp_path, [0.1]), mapping=VECTORS | {"time": {}})
    np.savez(tmp_path / "a.npz", c=np.ones((9, 2), np.uint8))
    with pytest.raises(ConfigError, match="sort_spikes has no meaning for counts"):
        betz.read(tmp_path / "a.npz", mapping={"signals": {"variable": "c"}, "time": {"bin_ms": 20}}, sort_spikes=True)


def test_options_cut_spikes_and_samples_as_well(tmp_path: Path) -> None:
    seconds = 400
    still = np.where(np.arange(10 * seconds) < 2400, np.sin(np.arange(10 * seconds) / 7), 0.0)
    layout = VECTORS | {
        "time": {"bin_ms": 100},
        "behavior": [{"variable": "v", "stamps": "t", "dims": [{"name": "hand_x", "unit": "cm"}]}],
    }
    path = cells(tmp_path, np.arange(0.05, seconds, 0.5), v=still[:, None], t=np.arange(10 * seconds) * 0.1)
    whole = betz.read(path, mapping=layout)
    assert "hand stands still from minute 4.0 to the end" in notes(whole)
    session = betz.read(path, mapping=layout, drop_idle_tail=True)
    assert (whole.num_bins, session.num_bins) == (4000, 2400)
    assert session.spikes is not None
    assert int(session.spikes[0][-1]) < session.span[1]
    assert len(session.behavior[0].values) == 2400
    np.testing.assert_array_equal(session.signals, whole.signals[:2400])


def test_own_rate_beside_counts(tmp_path: Path) -> None:
    layout = {
        "signals": {"variable": "c"},
        "time": {"bin_ms": 20},
        "behavior": [{"variable": "v", "stamps": "t", "dims": [{"name": "hand_x", "unit": "cm"}]}],
    }
    time = np.arange(400) * 0.005
    np.savez(tmp_path / "a.npz", c=np.ones((100, 2), np.uint8), v=np.sin(9 * time), t=time)
    session = betz.read(tmp_path / "a.npz", mapping=layout)
    assert [(s.ticks_per_sample, len(s.values)) for s in session.behavior] == [(5, 400)]
    expected = np.sin(9 * time).reshape(100, 4).mean(axis=1)
    np.testing.assert_allclose(session.behavior_of(["hand_x"])[:, 0], expected, atol=1e-6)
