"""History: sums over sessions, channels matched by name, on disk, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from betz.core.errors import CheckpointError, DataError
from betz.core.session import Channel
from betz.decode.bank import TARGETS, Blocks, solve
from betz.decode.filterbank import FILTERS, FilterBank
from betz.decode.history import DECAY, RIDGE, History
from tests.unit.generalist_helpers import XY, session

SESSIONS = [session(id_=f"day-{i}", seed=i) for i in range(3)]


def covariances(i: int) -> tuple[np.ndarray, np.ndarray]:
    made = SESSIONS[i]
    bank = FilterBank.fit(made.signals, made.segments, made.channels, 50)
    x = bank.features(made.signals, made.segments)
    sums = Blocks(x, made.behavior_of(XY), [(0, 1)], made.segments, bin_s=0.05, atoms=1)
    t = sums.cross[0][:, : 2 * TARGETS] - np.outer(sums.sum_x[0], sums.sum_t[0][: 2 * TARGETS] / 1500)
    return sums.gram[0] / 1500, t / 1500


def test_weights_are_of_decayed_sums() -> None:
    found = History.of(SESSIONS, behavior=XY).weights(SESSIONS[0].channels, SESSIONS[0].dims_of(XY))
    assert found is not None
    share = DECAY ** np.arange(2, -1, -1.0)
    share /= share.sum()
    parts = [covariances(i) for i in range(3)]
    gram = sum(w * g for w, (g, _) in zip(share, parts, strict=True))
    cross = sum(w * c for w, (_, c) in zip(share, parts, strict=True))
    wanted = solve(gram.astype(np.float32), cross.astype(np.float32), RIDGE)
    np.testing.assert_allclose(found[0].reshape(len(wanted), -1), wanted, atol=1e-4)
    centers = np.array([s.behavior_of(XY).mean(axis=0) for s in SESSIONS])
    np.testing.assert_allclose(found[1], share @ centers, rtol=1e-4)


def test_channels_are_matched_by_name() -> None:
    history = History.of(SESSIONS[:2], behavior=XY)
    channels, dims = SESSIONS[0].channels, SESSIONS[0].dims_of(XY)
    whole = history.weights(channels, dims)
    order = [3, 1, 2]
    moved = history.weights([*[channels[i] for i in order], Channel("new")], dims)
    assert whole is not None
    assert moved is not None
    assert not moved[0][3 * FILTERS :].any(), "a new channel has no history"
    gram = history._for([channels[i] for i in order]).gram
    rows = np.array([i * FILTERS + k for i in order for k in range(FILTERS)])
    np.testing.assert_array_equal(gram, history.gram[np.ix_(rows, rows)])
    assert history.weights([Channel("x"), Channel("y")], dims) is None


def test_some_dimensions_of_a_group_and_unknown_ones() -> None:
    history = History.of(SESSIONS[:1], behavior=[*XY, "hand_x"])
    both = history.weights(SESSIONS[0].channels, SESSIONS[0].dims_of(XY))
    one = history.weights(SESSIONS[0].channels, SESSIONS[0].dims_of(["hand_vy"]))
    assert both is not None
    assert one is not None
    np.testing.assert_allclose(one[0][:, :, 0], both[0][:, :, 1], atol=1e-5)
    other = replace(SESSIONS[0].dims_of(XY)[0], unit="m/s")
    assert history.weights(SESSIONS[0].channels, [other]) is None


def test_it_is_saved_and_small(tmp_path: Path) -> None:
    history = History.of(SESSIONS[:2], behavior=XY)
    history.save(tmp_path / "h")
    again = History.load(tmp_path / "h")
    assert again.sessions == ("day-0", "day-1")
    assert again.channels == history.channels
    a = history.weights(SESSIONS[0].channels, SESSIONS[0].dims_of(XY))
    b = again.weights(SESSIONS[0].channels, SESSIONS[0].dims_of(XY))
    assert a is not None
    assert b is not None
    np.testing.assert_array_equal(a[0], b[0])
    size = sum(p.stat().st_size for p in (tmp_path / "h").iterdir())
    assert size < 50_000
    with pytest.raises(CheckpointError, match="this is no saved history"):
        History.load(tmp_path)


def test_it_refuses_other_subjects_repeats_and_nothing() -> None:
    history = History.of(SESSIONS[:1], behavior=XY)
    with pytest.raises(DataError, match="it is of somebody else, the history of nobody"):
        history.add(replace(SESSIONS[1], subject="somebody else"), behavior=XY)
    with pytest.raises(DataError, match="it is in the history already"):
        history.add(SESSIONS[0], behavior=XY)
    with pytest.raises(DataError, match="there is no earlier session"):
        History.of([], behavior=XY)
    with pytest.raises(DataError, match="fewer than 200 bins are labelled"):
        history.add(session(id_="short", bins=150), behavior=XY)
