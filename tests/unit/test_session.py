"""Sessions: validation in order, segments, views, behavior in bins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from betz.core.errors import DataError
from betz.core.intervals import Intervals
from betz.core.session import Assistance, BehaviorDim, Channel, Series, Session, Trials, channel_hash
from betz.core.timegrid import BinGrid

GRID = BinGrid(1000, 20, origin_tick=100)


def make(**changes: Any) -> Session:
    values: dict[str, Any] = {
        "id": "s1",
        "subject": "m",
        "grid": GRID,
        "num_bins": 50,
        "channels": (Channel("a"), Channel("b", "unit")),
        "counts": np.arange(100, dtype=np.uint8).reshape(50, 2),
        "behavior": (Series(np.arange(50.0)[:, None], (BehaviorDim("x", "cm"),), 100, 20),),
    }
    return Session(**{**values, **changes})


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "id": ({"id": "a/b"}, "cannot be a file name"),
    "empty": ({"num_bins": 0}, "it is empty"),
    "no channels": ({"channels": ()}, "no channels"),
    "no signals": ({"counts": None}, "no signals"),
    "both": ({"spikes": (np.array([120]), np.array([130]))}, "both native counts and spike ticks"),
    "twice": ({"channels": (Channel("a"), Channel("a"))}, "channel id 'a' occurs 2 times"),
    "kind": ({"channels": (Channel("a"), Channel("b", "field"))}, r"unknown channel kinds \['field'\]"),  # type: ignore[arg-type]
    "dtype": ({"counts": np.zeros((50, 2))}, "counts must be a 2-d uint8 array, not float64"),
    "rows": ({"counts": np.zeros((49, 2), np.uint8)}, r"counts are \(49, 2\), but 50 bins"),
    "columns": ({"channels": (Channel("a"),)}, "1 such channels are declared"),
    "power first": ({"channels": (Channel("p", "power"), Channel("a"))}, "power channels come before"),
    "unsorted": ({"counts": None, "spikes": (np.array([300, 200]), np.array([200]))}, "not in ascending order"),
    "negative": ({"counts": None, "spikes": (np.array([-3, 200]), np.array([200]))}, "spike ticks are negative"),
    "infinite": (
        {"behavior": (Series(np.full((50, 1), np.inf), (BehaviorDim("x", "cm"),), 100, 20),)},
        "'x' has infinite values",
    ),
    "elsewhere": (
        {"behavior": (Series(np.zeros((50, 1)), (BehaviorDim("x", "cm"),), 9000, 20),)},
        "does not overlap the signals in time",
    ),
    "classes": (
        {"behavior": (Series(np.full((50, 1), 2.0), (BehaviorDim("g", "", "discrete", ("rest", "go")),), 100, 20),)},
        "no class index",
    ),
    "edges": ({"edges": np.array([300, 200])}, "edges are not in ascending order"),
    "trials": ({"trials": Trials(np.array([1, 2]), np.array([3]))}, r"different lengths \[1, 2\]"),
    "assistance": ({"assistance": (Assistance(1, 5, "active", 1.5),)}, "is impossible"),
    "power NaN": (
        {
            "channels": (Channel("p", "power", unit="uV^2"),),
            "counts": None,
            "power": np.full((50, 1), np.nan, np.float32),
        },
        "NaN or infinite in 50 bins",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_sessions_say_why(name: str) -> None:
    changes, message = BAD[name]
    with pytest.raises(DataError, match=message) as caught:
        make(**changes)
    assert "session" in str(caught.value)


def test_all_reasons_of_a_stage_are_told_at_once() -> None:
    with pytest.raises(DataError, match=r"subject is empty.*no channels"):
        make(subject="", channels=())


def test_segments_restart_at_gaps_and_edges() -> None:
    valid = Intervals.of([(100, 300), (340, 1100)])
    session = make(valid=valid, edges=np.array([200, 700, 2000]))
    assert session.segments == ((0, 5), (5, 10), (12, 30), (30, 50))
    assert session.usable.tolist() == [not 10 <= k < 12 for k in range(50)]


def test_an_edge_inside_a_bin_makes_it_unusable() -> None:
    session = make(edges=np.array([210]))
    assert session.segments == ((0, 5), (6, 50))
    assert make(edges=np.array([210])).without_edges().segments == ((0, 50),)


def test_views_share_memory_and_keep_time() -> None:
    session = make(edges=np.array([300, 700]))
    view = session.between(10, 40)
    assert view.counts is not None
    assert session.counts is not None
    assert np.shares_memory(view.counts, session.counts)
    assert view.grid.origin_tick == 300
    assert view.behavior_of(["x"])[:, 0].tolist() == list(range(10, 40))
    assert view.segments == ((0, 20), (20, 30))
    assert session.first(minutes=0.01).num_bins == 30
    assert session.after(minutes=0.01).grid.origin_tick == 700
    with pytest.raises(DataError, match=r"nothing is left after 3 minutes"):
        session.after(minutes=3)
    with pytest.raises(DataError, match="bins 10 to 90 are not inside its 50 bins"):
        session.between(10, 90)


def test_behavior_at_its_own_rate_is_averaged_inside_bins() -> None:
    samples = np.arange(1000.0)[:, None]
    session = make(behavior=(Series(samples, (BehaviorDim("x", "cm"),), 100, 1),))
    assert session.behavior_of(["x"])[:3, 0].tolist() == [9.5, 29.5, 49.5]
    assert session.between(1, 3).behavior_of(["x"])[:, 0].tolist() == [29.5, 49.5]
    late = make(behavior=(Series(samples, (BehaviorDim("x", "cm"),), 130, 1),))
    assert np.isnan(late.behavior_of(["x"])[0, 0])
    assert late.behavior_of(["x"])[1, 0] == 4.5
    lost = samples.copy()
    lost[25] = np.nan
    assert np.isnan(make(behavior=(Series(lost, (BehaviorDim("x", "cm"),), 100, 1),)).behavior_of(["x"])[1, 0])
    events = Series(samples % 2, (BehaviorDim("g", "", "discrete", ("rest", "go")),), 100, 1)
    assert make(behavior=(events,)).behavior_of(["g"])[:2, 0].tolist() == [1, 1]


def test_behavior_names_are_checked() -> None:
    with pytest.raises(DataError, match=r"no behavior named 'y'.*it has x"):
        make().behavior_of(["y"])
    with pytest.raises(DataError, match=r"not the string 'x'"):
        make().behavior_of("x")
    with pytest.raises(DataError, match="once each"):
        make().behavior_of(["x", "x"])


def test_spike_ticks_are_binned_at_any_width() -> None:
    spikes = (np.array([100, 119, 120, 1099]), np.array([500]))
    session = make(counts=None, spikes=spikes)
    assert session.signals[:2, 0].tolist() == [2, 1]
    wide = session.rebinned(7)
    assert wide.num_bins == 142
    assert wide.signals[:, 0].sum() == 3  # the last spike falls into the incomplete bin
    assert session.between(1, 50).spikes[0].tolist() == [120, 1099]  # type: ignore[index]


def test_native_counts_merge_by_whole_factors_only() -> None:
    session = make(counts=np.ones((50, 2), np.uint8))
    assert session.rebinned(60).signals.tolist() == [[3, 3]] * 16
    with pytest.raises(DataError, match=r"bins of 20 ms cannot become bins of 50 ms.*whole multiple of 20 ms"):
        session.rebinned(50)


def test_counts_and_power_are_one_signal_array() -> None:
    power = np.linspace(0, 1, 50, dtype=np.float32)[:, None]
    session = make(channels=(Channel("a"), Channel("b"), Channel("p", "power", unit="uV^2")), power=power)
    assert session.signals.shape == (50, 3)
    assert session.signals.dtype == np.float32
    assert np.array_equal(session.signals[:, 2], power[:, 0])
    assert session.rebinned(40).power[0, 0] == pytest.approx(power[:2].mean())  # type: ignore[index]


def test_channel_hash_sees_order_and_kind() -> None:
    a, b = Channel("a"), Channel("b")
    assert channel_hash((a, b)) != channel_hash((b, a))
    assert channel_hash((a, b)) != channel_hash((replace(a, kind="unit"), b))
    assert channel_hash((a, b)) == channel_hash((replace(a, array="other"), b))
