"""Sessions from arrays: one recording or a list of trials; what does not fit says why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import betz
from betz.core.errors import DataError
from betz.core.intervals import Intervals
from betz.core.session import BehaviorDim, Channel, Provenance
from betz.data.arrays import from_arrays

COUNTS = np.arange(12, dtype=np.uint8).reshape(6, 2)
BEHAVIOR = np.linspace(0, 1, 6)[:, None]


def test_one_recording() -> None:
    session = betz.from_arrays(
        COUNTS, bin_ms=50, behavior=BEHAVIOR, id="m_1", subject="m", channels=["e1", Channel("e2", "unit", "B")],
        dims=[BehaviorDim("hand_x", "cm")], task="reach", tags={"room": "3"}, licence="CC0-1.0",
        provenance=Provenance(source="rig 2"),
    )  # fmt: skip
    assert (session.grid.tick_hz, session.grid.ticks_per_bin, session.grid.origin_tick) == (1000, 50, 0)
    assert session.num_bins == 6
    assert session.signals.tolist() == COUNTS.tolist()
    assert session.channels == (Channel("e1", "crossings"), Channel("e2", "unit", "B"))
    assert session.behavior_of(["hand_x"])[:, 0] == pytest.approx(BEHAVIOR[:, 0], abs=1e-7)
    assert (session.subject, session.task, session.tags, session.licence) == ("m", "reach", {"room": "3"}, "CC0-1.0")
    assert session.provenance == Provenance(source="rig 2")
    assert session.trials is None
    assert session.segments == ((0, 6),)


def test_defaults_say_what_is_not_known() -> None:
    session = from_arrays(COUNTS, bin_ms=20, behavior=BEHAVIOR)
    assert [c.id for c in session.channels] == ["ch0", "ch1"]
    assert session.dims == (BehaviorDim("behavior0", "a.u."),)
    assert (session.id, session.subject, session.provenance.importer) == ("session", "unknown", "from_arrays")


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint16, np.int64, np.float16, np.float64, ">f4"])
def test_whole_numbers_of_any_type_are_counts(dtype: Any) -> None:
    values = np.array([[0, 1], [1, 1]]) if dtype is bool else np.array([[0, 1], [100, 7]])
    found = from_arrays(values.astype(dtype), bin_ms=20).counts
    assert found is not None
    assert found.dtype == np.uint8
    assert found.tolist() == values.tolist()


def test_lists_of_rows_are_one_recording() -> None:
    assert from_arrays([[1, 0], [0, 255]], bin_ms=20).signals.tolist() == [[1, 0], [0, 255]]


def test_power_comes_after_counts() -> None:
    power = np.linspace(0, 1, 6, dtype=np.float64)[:, None]
    session = from_arrays(COUNTS, power=power, bin_ms=20)
    assert [(c.id, c.kind) for c in session.channels] == [
        ("ch0", "crossings"),
        ("ch1", "crossings"),
        ("power0", "power"),
    ]
    assert session.power is not None
    assert session.power.dtype == np.float32
    assert session.signals[:, 2] == pytest.approx(power[:, 0])
    alone = from_arrays(power=power, bin_ms=20)
    assert (alone.counts, alone.signals.shape) == (None, (6, 1))


@pytest.mark.parametrize("bin_ms", [20, 12.5, 1000 / 30, 0.4])
def test_any_bin_width(bin_ms: float) -> None:
    assert from_arrays(COUNTS, bin_ms=bin_ms).bin_ms == pytest.approx(bin_ms, rel=1e-9)


def test_trials_are_put_one_after_another() -> None:
    counts = [np.full((n, 2), k, np.uint8) for k, n in enumerate((3, 4, 1))]
    behavior = [np.full((n, 1), k, np.float64) for k, n in enumerate((3, 4, 1))]
    session = from_arrays(counts, behavior=behavior, bin_ms=[50, 50, 50], conditions=["left", "right", "left"])
    assert session.edges.tolist() == [150, 350]
    assert session.segments == ((0, 3), (3, 7), (7, 8))
    assert session.trials is not None
    assert session.trials.start.tolist() == [0, 150, 350]
    assert session.trials.end.tolist() == [150, 350, 400]
    assert session.trials.condition == ("left", "right", "left")
    assert session.signals[:, 1].tolist() == [0, 0, 0, 1, 1, 1, 1, 2]
    assert session.behavior_of(["behavior0"])[:, 0].tolist() == [0, 0, 0, 1, 1, 1, 1, 2]
    assert session.without_edges().segments == ((0, 8),)


def test_trials_of_power_and_of_one() -> None:
    session = from_arrays(power=[np.zeros((3, 1)), np.ones((2, 1))], bin_ms=20)
    assert session.segments == ((0, 3), (3, 5))
    one = from_arrays([COUNTS], bin_ms=20)
    assert len(one.edges) == 0
    assert one.trials is not None
    assert len(one.trials) == 1


def test_valid_as_bins_or_ticks() -> None:
    mask = np.array([True, True, False, True, True, True])
    session = from_arrays(COUNTS, bin_ms=20, valid=mask)
    assert session.valid == Intervals.of([(0, 40), (60, 120)])
    assert session.segments == ((0, 2), (3, 6))
    assert from_arrays(COUNTS, bin_ms=20, valid=Intervals.of([(5, 120)])).segments == ((1, 6),)
    assert from_arrays(COUNTS, bin_ms=20, valid=np.ones(6, bool)).valid is None


def test_unknown_behavior_is_refused_or_kept_and_noted() -> None:
    behavior = np.zeros((6, 2))
    behavior[2:4, 1] = np.nan
    with pytest.raises(DataError, match=r"'y' is NaN \(not known\) in 2 bins \(first: bin 2\).*give nan='mask'"):
        from_arrays(COUNTS, bin_ms=20, behavior=behavior, dims=["x", "y"])
    session = from_arrays(
        COUNTS, bin_ms=20, behavior=behavior, dims=["x", "y"], nan="mask", provenance=Provenance(notes=("first",))
    )
    assert session.provenance.notes == ("first", "behavior 'y' is NaN (not known) in 2 bins")
    assert np.isnan(session.behavior_of(["y"])[:, 0]).tolist() == [False, False, True, True, False, False]


def fractions() -> Any:
    values = COUNTS.astype(float)
    values[3, 1] = 0.5
    return values


TRIALS = [COUNTS, COUNTS[:4]]
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "neither counts nor power are given"),
    "empty": ({"counts": np.zeros((0, 2))}, "the session is empty"),
    "empty list": ({"counts": []}, r"counts have the shape \(0,\), not \(bins, columns\)"),
    "one column": ({"counts": COUNTS[:, 0]}, r"shape \(6,\), not \(bins, columns\).*array\[:, None\]"),
    "a stack": ({"counts": COUNTS[None]}, r"shape \(1, 6, 2\).*list\(array\) for a stack of trials"),
    "ragged": ({"counts": [[1, 2], [3]]}, "the rows of counts have different lengths"),
    "ragged trial": ({"counts": [COUNTS, [[1, 2], [3]]]}, "the rows of counts have different lengths"),
    "texts": ({"counts": np.array([["a", "b"]])}, "counts are <U1, not numbers"),
    "objects": ({"counts": np.array([[None, 1]])}, "counts are object, not numbers"),
    "complex": ({"counts": COUNTS * 1j}, "counts are complex128, not numbers"),
    "too many": ({"counts": COUNTS.astype(int) * 24}, r"bin 5, channel 'ch1': the count 264 is above the limit of 255"),
    "negative": ({"counts": COUNTS - 1.0}, r"bin 0, channel 'ch0': the count -1 is negative \(1 such values\)"),
    "fraction": ({"counts": fractions()}, r"bin 3, channel 'ch1': the count 0.5 is no whole number.*bin width"),
    "NaN": (
        {"counts": np.where(COUNTS == 4, np.nan, COUNTS)},
        "bin 2, channel 'ch0': the count nan is no whole number",
    ),
    "infinite": ({"counts": np.where(COUNTS == 4, np.inf, COUNTS)}, "the count inf is no whole number"),
    "power length": ({"counts": COUNTS, "power": np.zeros((5, 1))}, "counts have 6 bins and power 5"),
    "power NaN": ({"power": np.full((6, 1), np.nan)}, "power is NaN or infinite in 6 bins"),
    "power large": ({"power": np.full((6, 1), 1e300)}, "power have values too large for float32"),
    "behavior short": (
        {"counts": COUNTS, "behavior": BEHAVIOR[:4]},
        r"behavior has 4 rows, counts have 6 bins.*cut both to \[:4\]",
    ),
    "behavior large": ({"counts": COUNTS, "behavior": BEHAVIOR * 1e300}, "behavior have values too large for float32"),
    "behavior inf": ({"counts": COUNTS, "behavior": BEHAVIOR + np.inf}, "'behavior0' has infinite values"),
    "dims": ({"counts": COUNTS, "behavior": BEHAVIOR, "dims": ["x", "y"]}, "but behavior has 1 columns"),
    "dims text": ({"counts": COUNTS, "behavior": BEHAVIOR, "dims": "x"}, "dims are 'x', but behavior has 1 columns"),
    "dims alone": ({"counts": COUNTS, "dims": ["x"]}, "1 dimensions are named, but no behavior is given"),
    "nan option": ({"counts": COUNTS, "nan": "drop"}, "nan='drop' is unknown"),
    "channels": ({"counts": COUNTS, "channels": ["a"]}, "1 channels are named, the signals have 2 columns"),
    "same channel": ({"counts": COUNTS, "channels": ["a", "a"]}, "channel id 'a' occurs 2 times"),
    "id": ({"counts": COUNTS, "id": "a/b"}, "cannot be a file name"),
    "width": ({"counts": COUNTS, "bin_ms": 0}, "a bin width of 0.0 ms is impossible"),
    "widths without trials": ({"counts": COUNTS, "bin_ms": [20, 20]}, "2 widths, but no list of trials was given"),
    "widths": ({"counts": TRIALS, "bin_ms": [20] * 3}, "bin_ms has 3 widths, but 2 trials were given"),
    "mixed widths": ({"counts": TRIALS, "bin_ms": [20, 25]}, "trial 0 has 20 ms, trial 1 has 25 ms"),
    "columns": ({"counts": [COUNTS, COUNTS[:, :1]]}, r"counts of trial 1 are \(6, 1\), those of trial 0 \(6, 2\)"),
    "flat trial": ({"counts": [COUNTS, COUNTS[:, 0]]}, r"counts of trial 1 are \(6,\)"),
    "empty trial": ({"counts": [COUNTS, COUNTS[:0]]}, "trial 1 is empty"),
    "trials and array": (
        {"counts": TRIALS, "behavior": np.zeros((10, 1))},
        "counts are a list of 2 trials, behavior are one array",
    ),
    "number of trials": ({"counts": TRIALS, "behavior": [BEHAVIOR]}, "counts have 2 trials, behavior 1"),
    "trial length": (
        {"counts": TRIALS, "behavior": [BEHAVIOR, BEHAVIOR]},
        "in trial 1, counts have 4 bins and behavior 6",
    ),
    "conditions": ({"counts": TRIALS, "conditions": ["a"]}, "1 conditions are given for 2 trials"),
    "conditions alone": ({"counts": COUNTS, "conditions": ["a"]}, "1 conditions are given, but no list of trials"),
    "valid": ({"counts": COUNTS, "valid": np.ones(5, bool)}, r"valid is bool \(5,\), expected 6 bool bins"),
    "valid numbers": ({"counts": COUNTS, "valid": np.ones(6)}, r"valid is float64 \(6,\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_says_why(name: str) -> None:
    arguments, message = BAD[name]
    with pytest.raises(DataError, match=message) as caught:
        from_arrays(**{"bin_ms": 20, **arguments})
    assert "session" in str(caught.value) or "BinGrid" in str(caught.value)
