"""Intended direction is derived, says so, and is not known where it cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import betz
from betz.core.errors import ConfigError, DataError
from betz.core.intervals import Intervals
from betz.core.session import BehaviorDim
from betz.data.derive import direction_vector, intended_direction, velocity_causal

NAMES = ["intended_x", "intended_y"]
BINS = 12


def session(*, unit: str = "mm", **changes: Any) -> betz.Session:
    """A cursor on a line, a target that jumps in bin 6, an angle."""
    time = np.arange(BINS)
    cursor = np.stack((time - 3.0, 2.0 * time), axis=1)
    target = np.where(time[:, None] < 6, [[3.0, 8.0]], [[-5.0, 8.0]])
    values = np.concatenate((cursor, target, 30.0 * time[:, None]), axis=1)
    dims = [BehaviorDim(n, "mm") for n in ("cursor_x", "cursor_y")]
    dims += [BehaviorDim(n, unit) for n in ("target_x", "target_y")] + [BehaviorDim("target_direction", "deg")]
    made = betz.from_arrays(np.ones((BINS, 2), np.uint8), bin_ms=45, behavior=values, dims=dims)
    return replace(made, **changes)


def test_the_unit_vector_from_cursor_to_target() -> None:
    made = intended_direction(session())
    way = session().behavior_of(["target_x", "target_y"]) - session().behavior_of(["cursor_x", "cursor_y"])
    expected = way / np.hypot(*way.T)[:, None]
    np.testing.assert_allclose(made.behavior_of(NAMES), expected, atol=1e-6)
    (x, y) = made.dims_of(NAMES)
    assert (x.unit, y.unit) == ("1", "1")
    assert x.derivation is not None
    assert (x.derivation.method, x.derivation.causal, x.derivation.group_delay_ms) == ("intended_direction", True, 0)
    assert x.derivation.source == ("cursor_x", "cursor_y", "target_x", "target_y")
    turned = intended_direction(session(), cursor=["cursor_y", "cursor_x"], target=["target_y", "target_x"])
    np.testing.assert_allclose(turned.behavior_of(NAMES), expected[:, ::-1], atol=1e-6)


def test_the_vector_of_an_angle() -> None:
    made = direction_vector(session())
    angle = np.deg2rad(30.0 * np.arange(BINS))
    np.testing.assert_allclose(made.behavior_of(NAMES), np.stack((np.cos(angle), np.sin(angle)), axis=1), atol=1e-6)
    (x, _) = made.dims_of(NAMES)
    assert x.derivation is not None
    assert (x.derivation.method, x.derivation.source, x.unit) == ("direction_vector", ("target_direction",), "1")


def test_where_it_is_not_known() -> None:
    on_target = session()
    values = on_target.behavior[0].values.copy()
    values[2, :2], values[4, 2] = values[2, 2:4], np.nan
    gap = Intervals.of([(0, 45 * 8), (45 * 9, 45 * BINS)])
    changed = replace(on_target, behavior=(replace(on_target.behavior[0], values=values),), valid=gap)
    found = intended_direction(changed).behavior_of(NAMES)
    assert np.flatnonzero(np.isnan(found).any(axis=1)).tolist() == [2, 4, 8]
    assert np.isnan(found[[2, 4, 8]]).all()


def test_only_where_the_decoder_moved_the_cursor() -> None:
    part = session(brain_control=Intervals.of([(45 * 2, 45 * 5), (45 * 9, 45 * 10)]))
    for make in (intended_direction, direction_vector):
        made = make(part, only_brain_control=True)
        known = np.flatnonzero(np.isfinite(made.behavior_of(NAMES)).all(axis=1))
        assert known.tolist() == [2, 3, 4, 9]
        derivation = made.dims_of(NAMES)[0].derivation
        assert derivation is not None
        assert derivation.parameters == (("only_brain_control", "yes"),)
        assert np.isfinite(make(part).behavior_of(NAMES)).all()
    with pytest.raises(DataError, match=r"it has no brain-control intervals\. Remedy: leave only_brain_control out"):
        intended_direction(session(), only_brain_control=True)


def test_sources_that_do_not_fit() -> None:
    with pytest.raises(DataError, match="cursor and target are in different units: 'cm', 'mm'"):
        intended_direction(session(unit="cm"))
    with pytest.raises(ConfigError, match="2 components of the cursor, 1 of the target and 2 results do not match"):
        intended_direction(session(), target=["target_x"])
    with pytest.raises(DataError, match="no behavior named 'hand_x'"):
        intended_direction(session(), cursor=["hand_x", "cursor_y"])
    with pytest.raises(DataError, match="there is a behavior 'intended_x', 'intended_y' already"):
        intended_direction(intended_direction(session()))
    with pytest.raises(DataError, match="'cursor_x' is in 'mm', which is no angle"):
        direction_vector(session(), "cursor_x")
    with pytest.raises(ConfigError, match="a vector has two components, 1 results are named"):
        direction_vector(session(), to=["a"])
    late = velocity_causal(session(), ["cursor_x"], to=["late"])
    late = replace(late, behavior=(late.behavior[0], replace(late.behavior[1], dims=(
        replace(late.behavior[1].dims[0], unit="mm"),))))  # fmt: skip
    with pytest.raises(DataError, match=r"its sources are differently late: \[0\.0, 22\.5\] ms"):
        intended_direction(late, cursor=["late", "cursor_y"])
