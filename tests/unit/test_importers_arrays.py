"""Mapped arrays become sessions: signals, time, behavior and trials as the mapping says, or a clear refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import betz
from betz.core.errors import ConfigError, DataError
from betz.data.importers import FileError, ImportOptions
from betz.data.importers.mapping import load_mapping
from tests.unit import recording_files as files
from tests.unit.recording_files import BINS, CHANNELS, CSV_LAYOUT, LAYOUT, layout

DIMS = LAYOUT["behavior"][0]["dims"]


def read(folder: Path, changes: dict[str, Any] | None = None, /, *, options: Any = None, **arrays: Any) -> betz.Session:
    """The session of an .npz with these arrays, read by LAYOUT with these changes."""
    return betz.read(files.npz(folder / "m_1.npz", **arrays), mapping=layout(**(changes or {})), **(options or {}))


# ---- the same recording in three formats


def test_npz_mat_and_csv_give_the_same_session(tmp_path: Path) -> None:
    made = [
        betz.read(files.npz(tmp_path / "m_1.npz"), mapping=LAYOUT),
        betz.read(files.mat(tmp_path / "m_1.mat"), mapping=LAYOUT),
        betz.read(files.csv(tmp_path / "m_1.csv"), mapping=CSV_LAYOUT),
    ]
    for session in made:
        assert (session.id, session.subject, session.bin_ms, session.num_bins) == ("m_1", "M", 20, BINS)
        assert (session.task, session.licence) == ("reaching", "CC0-1.0")
        np.testing.assert_array_equal(session.signals, files.counts_NC())
        assert session.signals.dtype == np.uint8
        np.testing.assert_allclose(session.behavior_of(["hand_vx", "hand_vy"]), files.velocity_NK(), atol=1e-6)
        assert [d.unit for d in session.dims] == ["cm/s", "cm/s"]
        assert [c.id for c in session.channels] == [f"ch{c + 1}" for c in range(CHANNELS)]
        assert session.usable.all()
        assert len(session.edges) == 0
        assert session.grid.origin_tick == 0


def test_provenance_says_where_it_comes_from(tmp_path: Path) -> None:
    import hashlib

    session = read(tmp_path, {"citation": "A et al. 2020"}, options={"subject": "N"})
    provenance = session.provenance
    assert session.subject == "N"
    assert provenance.source == "m_1.npz (A et al. 2020)"
    assert provenance.sha256 == hashlib.sha256((tmp_path / "m_1.npz").read_bytes()).hexdigest()
    assert provenance.importer == "arrays"
    assert provenance.options["mapping"] == "given"
    assert provenance.options["subject"] == "N"


def test_an_unknown_subject_is_noted(tmp_path: Path) -> None:
    session = read(tmp_path, {"subject": ""})
    assert session.subject == "unknown"
    assert any("the subject is not known" in note for note in session.provenance.notes)


def test_variables_out_of_the_mapping_are_counted(tmp_path: Path) -> None:
    session = read(tmp_path, emg=np.zeros((BINS, 2)), lfp=np.zeros(3))
    assert session.provenance.skipped == {"variables not in the mapping": 2}
    assert "not in the mapping, left out: emg, lfp" in session.provenance.notes


def test_unknown_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no import option 'binms'. Remedy: options are bin_ms, subject, nan, slot"):
        betz.read(files.npz(tmp_path / "a.npz"), mapping=LAYOUT, binms=20)
    with pytest.raises(ConfigError, match="nan: Input should be 'raise' or 'mask'"):
        betz.read(files.npz(tmp_path / "a.npz"), mapping=LAYOUT, nan="drop")


# ---- signals


def test_axes_in_any_order(tmp_path: Path) -> None:
    counts = files.counts_NC()
    turned = read(tmp_path, {"signals": {"axes": ["channel", "time"]}}, counts=counts.T)
    np.testing.assert_array_equal(turned.signals, counts)
    slots = np.stack([counts, 2 * counts, 0 * counts], axis=2)  # (time, channel, slot)
    summed = read(
        tmp_path,
        {"signals": {"axes": ["slot", "time", "channel"]}},
        counts=np.ascontiguousarray(slots.transpose(2, 0, 1)),
    )
    np.testing.assert_array_equal(summed.signals, 3 * counts)
    assert {c.kind for c in summed.channels} == {"crossings"}
    assert any("3 slots of each electrode" in note and "summed" in note for note in summed.provenance.notes)


@pytest.mark.parametrize("shape", [(BINS,), (BINS, 1), (1, BINS)])
def test_one_channel_as_a_vector(shape: tuple[int, ...], tmp_path: Path) -> None:
    column = files.counts_NC()[:, 0]
    session = read(tmp_path, {"signals": {"axes": ["time"]}}, counts=column.reshape(shape))
    np.testing.assert_array_equal(session.signals[:, 0], column)


def test_slots_kept_apart(tmp_path: Path) -> None:
    counts = files.counts_NC()
    slots = np.stack([0 * counts, counts, counts + 1], axis=2)
    slots[:, 3, 2] = 0
    session = read(tmp_path, {"signals": {"axes": ["time", "channel", "slot"]}}, counts=slots, options={"slot": "unit"})
    ids = [f"ch{c}u{s}" for c in range(1, 6) for s in range(3) if (c, s) != (4, 2)]
    assert [c.id for c in session.channels] == ids
    assert [c.kind for c in session.channels] == ["unit" if i[-1] != "0" else "crossings" for i in ids]
    np.testing.assert_array_equal(session.signals[:, ids.index("ch5u2")], counts[:, 4] + 1)
    assert "1 slots of sorted units without a single spike left out" in session.provenance.notes
    assert session.provenance.options["slot"] == "unit"


def test_slot_option_without_slots(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="slot='unit' has no meaning: 'counts' has no slot axis"):
        read(tmp_path, options={"slot": "unit"})


def test_summed_slots_must_fit(tmp_path: Path) -> None:
    slots = np.full((BINS, CHANNELS, 2), 130, np.uint8)
    with pytest.raises(FileError, match=r"'counts summed over slots' has 2000 values above the limit of 255 counts"):
        read(tmp_path, {"signals": {"axes": ["time", "channel", "slot"]}}, counts=slots)


def test_rates_become_counts_only_when_named(tmp_path: Path) -> None:
    rates = files.counts_NC().astype(np.float32) / np.float32(0.02)
    session = read(tmp_path, {"signals": {"encoding": "rate_hz"}}, counts=rates)
    np.testing.assert_array_equal(session.signals, files.counts_NC())
    assert any("turned back to counts in 20 ms" in note for note in session.provenance.notes)
    with pytest.raises(FileError, match="above the limit of 255 counts in a bin"):
        read(tmp_path, counts=rates)
    with pytest.raises(FileError, match=r"values that are no counts when multiplied by 20 ms .*check the bin width"):
        read(tmp_path, {"signals": {"encoding": "rate_hz"}}, counts=rates * np.float32(0.4))


@pytest.mark.parametrize(
    "value, reason, text",
    [
        (np.nan, "NaN counts", r"'counts' has 1 NaN or infinite counts \(first: bin 7, channel 2\)"),
        (np.inf, "NaN counts", "1 NaN or infinite counts"),
        (-1.0, "negative counts", r"1 values negative \(first: -1 at bin 7, channel 2\)"),
        (0.5, "not counts", r"1 values that are no counts \(first: 0.5 at bin 7, channel 2\).*encoding = 'rate_hz'"),
        (256.0, "more than 255 counts", r"above the limit of 255 counts in a bin \(first: 256 at bin 7, channel 2\)"),
    ],
)
def test_what_is_no_count(value: float, reason: str, text: str, tmp_path: Path) -> None:
    counts = files.counts_NC().astype(np.float64)
    counts[7, 2] = value
    with pytest.raises(FileError, match=text) as caught:
        read(tmp_path, counts=counts)
    assert caught.value.reason == reason
    assert "m_1.npz" in str(caught.value)


@pytest.mark.parametrize(
    "signals, text",
    [
        ({"axes": ["time", "time"]}, r"axes = \['time', 'time'\] make no signals"),
        ({"axes": ["channel"]}, "make no signals"),
        ({"axes": ["time", "slot"]}, "make no signals"),
        ({"variable": ""}, "names neither a variable nor columns"),
        ({"columns": ["a"]}, "names both a variable and columns"),
    ],
)
def test_mappings_that_make_no_sense(signals: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=text):
        read(tmp_path, {"signals": signals})


def test_wrong_shapes_and_names(tmp_path: Path) -> None:
    with pytest.raises(
        FileError, match=r"no variable 'count'; it has counts \(uint8 400x5\), velocity .*correct the name"
    ):
        read(tmp_path, {"signals": {"variable": "count"}})
    with pytest.raises(FileError, match=r"'counts' is 400x5, the mapping names 3 axes \(time, channel, slot\)"):
        read(tmp_path, {"signals": {"axes": ["time", "channel", "slot"]}})
    with pytest.raises(FileError, match=r"\[signals\] 'counts' is <U3, not numbers"):
        read(tmp_path, counts=np.full((BINS, 2), "one"))


# ---- time


@pytest.mark.parametrize("unit, value", [("s", 0.02), ("ms", 20.0), ("Hz", 50.0)])
def test_bin_width_from_a_variable(unit: str, value: float, tmp_path: Path) -> None:
    session = read(tmp_path, {"time": {"bin_ms": None, "bin_variable": "w", "bin_unit": unit}}, w=np.array(value))
    assert session.bin_ms == 20


def test_bin_width_as_an_option(tmp_path: Path) -> None:
    assert read(tmp_path, {"time": {"bin_ms": None}}, options={"bin_ms": 45}).bin_ms == 45
    with pytest.raises(FileError, match=r"nothing tells its bin width. Remedy: give bin_ms \(--bin-ms\)"):
        read(tmp_path, {"time": {"bin_ms": None}})
    with pytest.raises(FileError, match=r"bin_ms = 50 was given, but the mapping says 20"):
        read(tmp_path, options={"bin_ms": 50})
    with pytest.raises(FileError, match=r"bin_ms = 50 was given, but the file says 20"):
        read(tmp_path, {"time": {"bin_ms": None, "bin_variable": "w"}}, w=0.02, options={"bin_ms": 50})
    with pytest.raises(FileError, match=r"'w' says 50 ms, the mapping 20 ms"):
        read(tmp_path, {"time": {"bin_variable": "w"}}, w=0.05)
    assert read(tmp_path, {"time": {"bin_variable": "w"}}, w=0.02).bin_ms == 20


@pytest.mark.parametrize("width", [0, -20, float("nan"), 1e9])
def test_impossible_bin_widths(width: float, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"a bin width of .* ms is impossible"):
        read(tmp_path, {"time": {"bin_ms": None}}, options={"bin_ms": width})
    with pytest.raises(FileError, match=r"'w': a bin width of .* ms is impossible"):
        read(tmp_path, {"time": {"bin_ms": None, "bin_variable": "w"}}, w=width)
    with pytest.raises(FileError, match=r"a bin width of .* ms is impossible"):
        read(tmp_path, {"time": {"bin_ms": width}})


def test_mixed_bin_widths_in_a_variable(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"'w' holds 2 different bin widths \(0.02, 0.05\).*split the file"):
        read(tmp_path, {"time": {"bin_ms": None, "bin_variable": "w"}}, w=np.repeat([0.02, 0.05], BINS // 2))


def test_an_ambiguous_width_must_be_given(tmp_path: Path) -> None:
    position = np.cumsum(files.velocity_NK(), axis=0) * 0.1
    dims = [{"name": n, "unit": "mm"} for n in ("hand_x", "hand_y", "hand_vx", "hand_vy")]
    changes = {
        "time": {"bin_ms": None, "ambiguous": "two widths are told"},
        "behavior": [{"variable": "x", "dims": dims}],
    }
    x = np.concatenate((position, files.velocity_NK()), axis=1)
    with pytest.raises(
        FileError, match=r"two widths are told \(velocity equals the change of position in 100 ms\)"
    ) as c:
        read(tmp_path, changes, x=x)
    assert c.value.reason == "ambiguous bin width"
    assert "give bin_ms (--bin-ms), 100 if you trust the velocity" in c.value.remedy
    session = read(tmp_path, changes, x=x, options={"bin_ms": 100})
    assert session.bin_ms == 100
    assert "bin width of 100 ms as given on import; two widths are told" in session.provenance.notes
    assert not any("hand velocity is the change" in note for note in session.provenance.notes)
    other = read(tmp_path, changes, x=x, options={"bin_ms": 50})
    assert any(
        "hand velocity is the change of position in 100 ms, but bins are 50 ms" in n for n in other.provenance.notes
    )


STAMPS = {"time": {"bin_ms": None, "stamps": "t"}}


@pytest.mark.parametrize(
    "stamps, time, origin_s",
    [
        (3.0 + np.arange(BINS) * 0.02, {}, 3.0),
        ((3.0 + np.arange(BINS) * 0.02).astype(np.float32), {}, 3.0),
        (3000 + np.arange(BINS) * 20, {"stamps_unit": "ms"}, 3.0),
        (np.arange(1, BINS + 1) * 0.02, {"stamps_at": "end"}, 0.0),
        (1.7e9 + np.arange(BINS) * 0.02, {"bin_ms": 20}, 1.7e9),
    ],
)
def test_stamps_give_the_grid(stamps: Any, time: dict[str, Any], origin_s: float, tmp_path: Path) -> None:
    session = read(tmp_path, {"time": {**STAMPS["time"], **time}}, t=stamps)
    assert session.bin_ms == 20
    assert session.num_bins == BINS
    assert session.grid.seconds(session.grid.start_of(0)) == pytest.approx(origin_s, abs=1e-9)


def test_stamps_at_sixty_hertz(tmp_path: Path) -> None:
    long = {"counts": files.counts_NC(bins=216_000), "velocity": files.velocity_NK(bins=216_000)}
    exact = read(tmp_path, STAMPS, t=np.arange(216_000) / 60, **long)  # an hour: a width in whole µs would drift
    assert exact.num_bins == 216_000
    assert exact.bin_ms == pytest.approx(1000 / 60, rel=1e-9)
    rounded = read(tmp_path, {"time": {**STAMPS["time"], "stamps_unit": "ms"}}, t=np.rint(np.arange(BINS) * 1000 / 60))
    assert rounded.num_bins == BINS
    assert read(
        tmp_path, {"time": {**STAMPS["time"], "stamps_unit": "ms"}}, t=np.rint(np.arange(BINS) * 1000 / 60).astype(int)
    ).bin_ms == pytest.approx(1000 / 60, rel=1e-4)


def test_gaps_in_stamps_are_not_valid(tmp_path: Path) -> None:
    stamps = np.concatenate((np.arange(100), np.arange(130, 430))) * 0.02
    session = read(tmp_path, STAMPS, t=stamps)
    assert session.num_bins == 430
    assert session.segments == ((0, 100), (130, 430))
    np.testing.assert_array_equal(session.signals[130:], files.counts_NC()[100:])
    assert not session.signals[100:130].any()
    behavior = session.behavior_of(["hand_vx"])[:, 0]
    assert np.isnan(behavior[100:130]).all()
    np.testing.assert_allclose(behavior[130:], files.velocity_NK()[100:, 0], atol=1e-6)
    assert "1 gaps in the stamps (bins 100–129), 30 bins in all, marked not valid" in session.provenance.notes


@pytest.mark.parametrize(
    "stamps, text",
    [
        (np.arange(BINS)[::-1] * 0.02, "are not in ascending order"),
        (np.r_[np.arange(200), 150, np.arange(201, 400)] * 0.02, r"not in ascending order \(first at row 200\)"),
        (np.arange(BINS) * 0.02 - 1, r"are negative \(first: -1 s\)"),
        (np.r_[np.arange(BINS - 1) * 0.02, np.nan], "contain NaN"),
        (np.r_[np.arange(200) * 0.02, 4 + np.arange(200) * 0.05], r"do not follow one bin width.*20 ms × .*50 ms × "),
        (np.r_[np.arange(200), 199.4 + np.arange(1, 201)] * 0.02, r"do not follow one bin width"),
        (np.cumsum(np.random.default_rng(0).uniform(0.01, 0.03, BINS)), "do not follow one bin width"),
        (np.arange(BINS) * 2000.0, "a bin width of 2e\\+06 ms is impossible"),
        (np.arange(BINS).astype(np.float32) * np.float32(0.02) + np.float32(1e6), "not in ascending order|too coarse"),
        (np.r_[0, 5e5 + np.arange(BINS - 1)] * 0.02, "leave out 5e\\+05 bins of 400 rows"),
        (np.zeros((BINS, 2)), "stamps 't' are 400x2, not one a bin"),
    ],
)
def test_stamps_that_make_no_grid(stamps: Any, text: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=text):
        read(tmp_path, STAMPS, t=stamps)


def test_stamps_must_agree_with_the_stated_width(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"do not follow one bin width of 20 ms \(steps: 40 ms × 399\)"):
        read(tmp_path, {"time": {"bin_ms": 20, "stamps": "t"}}, t=np.arange(BINS) * 0.04)


def test_time_of_the_first_bin(tmp_path: Path) -> None:
    session = read(tmp_path, {"time": {"origin_s": 12.5}})
    assert session.grid.origin_tick == 12_500
    assert session.behavior[0].origin_tick == 12_500
    with pytest.raises(FileError, match=r"a first bin at 1e\+300 s is impossible"):
        read(tmp_path, {"time": {"origin_s": 1e300}})


# ---- behavior


def test_behavior_orientation_and_columns_left_out(tmp_path: Path) -> None:
    third = np.concatenate((files.velocity_NK(), np.ones((BINS, 1))), axis=1)
    dims = [DIMS[0], {"name": ""}, DIMS[1]]
    session = read(
        tmp_path, {"behavior": [{"variable": "v", "dims": dims, "transposed": True}]}, v=third[:, [0, 2, 1]].T
    )
    np.testing.assert_allclose(session.behavior_of(["hand_vx", "hand_vy"]), files.velocity_NK(), atol=1e-6)
    assert session.provenance.skipped["behavior columns without a name"] == 1


def test_behavior_of_wrong_shape(tmp_path: Path) -> None:
    with pytest.raises(
        FileError, match=r"'velocity' is 400x2, the mapping names 1 dimensions.*name every column in dims"
    ):
        read(tmp_path, {"behavior": [{"variable": "velocity", "dims": DIMS[:1]}]})
    with pytest.raises(FileError, match="say transposed = true"):
        read(tmp_path, velocity=files.velocity_NK().T)
    with pytest.raises(FileError, match=r"\[\[behavior\]\] 'velocity' is <U1, not numbers"):
        read(tmp_path, velocity=np.full((BINS, 2), "x"))
    with pytest.raises(DataError, match="behavior 'hand_vx' occurs 2 times"):
        read(tmp_path, {"behavior": [{"variable": "velocity", "dims": [DIMS[0], DIMS[0]]}]})


def test_optional_behavior(tmp_path: Path) -> None:
    part = {"variable": "target", "dims": [{"name": "target_x"}], "optional": True}
    session = read(tmp_path, {"behavior": [*LAYOUT["behavior"], part]})
    assert [d.name for d in session.dims] == ["hand_vx", "hand_vy"]
    assert "there is no target in this file" in session.provenance.notes
    assert len(read(tmp_path, {"behavior": [*LAYOUT["behavior"], part]}, target=np.zeros((0, 0))).dims) == 2
    with pytest.raises(FileError, match="no variable 'target'"):
        read(tmp_path, {"behavior": [*LAYOUT["behavior"], {**part, "optional": False}]})


def test_held_behavior_interpolated_at_switches_is_noted(tmp_path: Path) -> None:
    target = np.repeat([1.0, 5.0, 2.0, 4.0], BINS // 4)
    part = {"variable": "target", "dims": [{"name": "target_x"}], "held": True}
    clean = read(tmp_path, {"behavior": [part]}, target=target)
    assert not any("held between switches" in note for note in clean.provenance.notes)
    target[[100, 200]] = 3.3
    session = read(tmp_path, {"behavior": [part]}, target=target)
    assert any("target is held between switches, but 2 of 400 bins" in note for note in session.provenance.notes)


def test_nan_in_behavior_is_refused_or_masked(tmp_path: Path) -> None:
    velocity = files.velocity_NK()
    velocity[[5, 6], 1] = np.nan
    with pytest.raises(
        FileError, match=r"'velocity' has NaN or infinite values \(bins: hand_vy 2\).*--nan mask"
    ) as caught:
        read(tmp_path, velocity=velocity)
    assert caught.value.reason == "NaN behavior"
    velocity[6, 1] = np.inf
    session = read(tmp_path, velocity=velocity, options={"nan": "mask"})
    assert np.isnan(session.behavior_of(["hand_vy"])).sum() == 2
    assert "behavior not known (NaN), kept so: hand_vy 2 bins" in session.provenance.notes
    all_unknown = read(tmp_path, velocity=np.full((BINS, 2), np.nan), options={"nan": "mask"})
    assert np.isnan(all_unknown.behavior_of(["hand_vx"])).all()


def test_behavior_too_large_for_float32(tmp_path: Path) -> None:
    velocity = files.velocity_NK()
    velocity[3, 0] = 1e300
    with pytest.raises(FileError, match=r"'velocity' has values too large for float32 \(hand_vx\)"):
        read(tmp_path, velocity=velocity)


def test_behavior_shorter_than_counts(tmp_path: Path) -> None:
    velocity = files.velocity_NK(bins=BINS - 10)
    with pytest.raises(
        FileError, match=r"different lengths in bins: counts 400, velocity 390.*--trim-to-shortest"
    ) as c:
        read(tmp_path, velocity=velocity)
    assert c.value.reason == "different lengths"
    session = read(tmp_path, velocity=velocity, options={"trim_to_shortest": True})
    assert session.num_bins == BINS - 10
    assert session.provenance.skipped == {"bins beyond the shortest variable": 10}
    longer = read(tmp_path, velocity=files.velocity_NK(bins=BINS + 5), options={"trim_to_shortest": True})
    np.testing.assert_allclose(longer.behavior_of(["hand_vx", "hand_vy"]), files.velocity_NK(), atol=1e-6)


def test_an_empty_session(tmp_path: Path) -> None:
    empty = {"counts": np.zeros((0, 4), np.uint8), "velocity": np.zeros((0, 2))}
    with pytest.raises(FileError, match=r"m_1.npz: it has no bins. Remedy: import a recording with at least one bin"):
        read(tmp_path, **empty)
    with pytest.raises(FileError, match="it has no bins"):
        read(tmp_path, STAMPS, t=np.zeros(0), **empty)
    with pytest.raises(DataError, match="it has no channels"):
        read(tmp_path, counts=np.zeros((BINS, 0), np.uint8))
    with pytest.raises(FileError, match="it has no bins"):
        read(tmp_path, velocity=np.zeros((0, 2)), options={"trim_to_shortest": True})


# ---- trials


@pytest.mark.parametrize(
    "unit, starts", [("s", [0.0, 2.0, 5.0]), ("bin", [0, 100, 250]), ("bin_from_1", [1, 101, 251])]
)
def test_trials_by_their_starts(unit: str, starts: list[float], tmp_path: Path) -> None:
    trials = {"variable": "starts", "unit": unit, "concatenated": True}
    session = read(tmp_path, {"trials": trials}, starts=np.array(starts))
    assert session.trials is not None
    assert session.trials.start.tolist() == [0, 2000, 5000]
    assert session.trials.end.tolist() == [2000, 5000, 8000]
    assert session.edges.tolist() == [2000, 5000]
    assert session.segments == ((0, 100), (100, 250), (250, 400))
    alone = read(tmp_path, {"trials": {**trials, "concatenated": False}}, starts=np.array(starts))
    assert len(alone.edges) == 0
    assert len(alone.trials or ()) == 3


def test_trial_starts_as_bins_follow_gaps_in_stamps(tmp_path: Path) -> None:
    stamps = np.concatenate((np.arange(100), np.arange(130, 430))) * 0.02
    session = read(
        tmp_path, {**STAMPS, "trials": {"variable": "k", "unit": "bin"}}, t=stamps, k=np.array([0, 100, 150])
    )
    assert session.trials is not None
    assert session.trials.start.tolist() == [0, 2600, 3600]
    assert session.trials.end.tolist() == [2600, 3600, 8600]


def test_trials_outside_the_recording_are_counted(tmp_path: Path) -> None:
    session = read(tmp_path, {"trials": {"variable": "s"}}, s=np.array([1.0, 3.0, 8.0, 9.0]))
    assert len(session.trials or ()) == 2
    assert session.provenance.skipped["trials outside the bins"] == 2
    nothing = read(tmp_path, {"trials": {"variable": "s"}}, s=np.array([8.0]))
    assert nothing.trials is None
    assert "no trial was found" in nothing.provenance.notes


@pytest.mark.parametrize(
    "starts, unit, text",
    [
        ([3.0, 1.0], "s", "are NaN or not in ascending order"),
        ([0.0, np.nan], "s", "are NaN or not in ascending order"),
        ([-1.0, 1.0], "s", "run from -1 to 1 s"),
        ([0.5, 3.0], "bin", "are no bins counted from 0"),
        ([0, 3], "bin_from_1", "are no bins counted from 1"),
    ],
)
def test_bad_trial_starts(starts: list[float], unit: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=text):
        read(tmp_path, {"trials": {"variable": "s", "unit": unit}}, s=np.array(starts))


def test_trials_by_their_number(tmp_path: Path) -> None:
    number = np.repeat([7.0, 8.0, np.nan, 9.0], BINS // 4)
    session = read(tmp_path, {"trials": {"rule": "id_changes", "variable": "n", "concatenated": True}}, n=number)
    assert session.trials is not None
    assert session.trials.start.tolist() == [0, 2000, 6000]
    assert session.trials.end.tolist() == [2000, 4000, 8000]
    assert session.edges.tolist() == [2000, 6000]
    with pytest.raises(FileError, match="trial numbers 'n' have 399 values, the signals 400 bins"):
        read(tmp_path, {"trials": {"rule": "id_changes", "variable": "n"}}, n=number[1:])
    with pytest.raises(FileError, match=r"'n' .* is no list of numbers"):
        read(tmp_path, {"trials": {"rule": "id_changes", "variable": "n"}}, n=np.zeros((BINS, 2)))


JUMPS = {"rule": "zero_velocity_jump", "position": ["hand_x"], "velocity": ["hand_v"], "concatenated": True}


def test_trials_by_jumps_of_the_position(tmp_path: Path) -> None:
    x, v = np.arange(BINS, dtype=float), np.ones(BINS)
    x[100:] += 50
    x[300:] -= 70
    v[[0, 100, 300]] = 0
    v[200], x[200] = 0, x[199]  # standing still is no start
    dims = [{"name": "hand_x", "unit": "mm"}, {"name": "hand_v", "unit": "mm/s"}]
    session = read(
        tmp_path, {"behavior": [{"variable": "b", "dims": dims}], "trials": JUMPS}, b=np.stack([x, v], axis=1)
    )
    assert session.trials is not None
    assert session.trials.start.tolist() == [0, 2000, 6000]
    assert session.edges.tolist() == [2000, 6000]
    assert any("3 trials that were recorded apart" in note and "2 edges" in note for note in session.provenance.notes)


@pytest.mark.parametrize(
    "trials, text",
    [
        ({"rule": "starts"}, "the rule 'starts' needs a variable"),
        ({**JUMPS, "velocity": []}, "needs position and velocity, as many of each"),
        (JUMPS, r"no behavior is named hand_x, hand_v. Remedy: use names of \[\[behavior\]\]: hand_vx, hand_vy"),
    ],
)
def test_trial_rules_without_what_they_need(trials: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=text):
        read(tmp_path, {"trials": trials})


# ---- mappings


def test_mapping_files_in_toml_and_json(tmp_path: Path) -> None:
    import json

    (tmp_path / "m.json").write_text(json.dumps(LAYOUT))
    session = betz.read(files.npz(tmp_path / "a.npz"), mapping=tmp_path / "m.json")
    assert session.provenance.options["mapping"] == "m"
    text = 'subject = "M"\n[signals]\nvariable = "counts"\n[time]\nbin_ms = 20\n'
    (tmp_path / "m.toml").write_text(text)
    assert betz.read(tmp_path / "a.npz", mapping=str(tmp_path / "m.toml")).num_bins == BINS
    for name, content, error in (
        ("wrong.toml", text + "binms = 3\n", r"wrong.toml: .*binms: Unexpected keyword.*mapping_files.md"),
        ("torn.toml", text + "[beh", r"the mapping cannot be read"),
        ("list.json", "[]", "the mapping is not a table of keys"),
        ("missing.toml", None, "the mapping cannot be read"),
    ):
        if content is not None:
            (tmp_path / name).write_text(content)
        with pytest.raises(ConfigError, match=error):
            betz.read(tmp_path / "a.npz", mapping=tmp_path / name)
    with pytest.raises(ConfigError, match=r"no mapping named 'indy'. Remedy: use one of bci_redundancy, .*, indy64"):
        load_mapping("indy")


def test_known_layouts_are_recognised(tmp_path: Path) -> None:
    indy = {
        "spikes": np.stack([files.counts_NC()] * 3, axis=2),
        "t": 150 + np.arange(BINS) * 0.064,
        "bin_s": np.array(0.064),
        "finger_pos_cm": np.cumsum(np.pad(files.velocity_NK(), ((0, 0), (0, 1))), axis=0).astype(np.float32),
        "finger_vel_cm_s": np.pad(files.velocity_NK(), ((0, 0), (0, 1))).astype(np.float32),
    }
    np.savez(tmp_path / "indy_x.npz", **indy)
    session = betz.read(tmp_path / "indy_x.npz")
    assert (session.subject, session.bin_ms, session.grid.origin_tick) == ("Indy", 64, 150_000)
    np.testing.assert_array_equal(session.signals, 3 * files.counts_NC())
    assert "10.5281/zenodo.583331" in session.provenance.source
    assert "there is no target_mm in this file" in session.provenance.notes
    with pytest.raises(
        FileError, match=r"its layout is not known; it has counts \(uint8 400x5\).*--write-mapping"
    ) as c:
        betz.read(files.npz(tmp_path / "other.npz"))
    assert c.value.reason == "unknown layout"
    assert "\n" not in str(c.value)


def test_a_layout_that_is_recognised_only_alone(tmp_path: Path) -> None:
    x = np.concatenate((np.cumsum(files.velocity_NK(), axis=0), files.velocity_NK()), axis=1)
    np.savez(tmp_path / "a.npz", X=x, Y=files.counts_NC())
    with pytest.raises(FileError, match="its bin width is not certain: the source says 50 ms"):
        betz.read(tmp_path / "a.npz")
    assert betz.read(tmp_path / "a.npz", bin_ms=100).subject == "contdata95"
    np.savez(tmp_path / "a.npz", X=x, Y=files.counts_NC(), Z=x)  # some other X and Y
    with pytest.raises(FileError, match="its layout is not known"):
        betz.read(tmp_path / "a.npz", bin_ms=100)
    np.savez(tmp_path / "a.npz", X=x[:-1], Y=files.counts_NC())
    with pytest.raises(FileError, match="its layout is not known"):
        betz.read(tmp_path / "a.npz", bin_ms=100)


def test_options_as_a_configuration() -> None:
    assert ImportOptions(bin_ms=20, nan="mask").chosen() == {"bin_ms": 20, "nan": "mask"}
