"""Betz's own calibration: what it mixes, that held-out really is held out, no labels, trained members, bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import betz
from betz.core.errors import CheckpointError, ConfigError, DataError
from betz.core.session import BehaviorDim, Series, Session
from betz.decode.history import History
from betz.decode.labels import continuous_labels
from betz.decode.members import Calibration, fold_count
from betz.decode.mix import Gate, Mix, kind_of
from betz.decode.weights import load_generalist, save_generalist
from betz.model.checkpoint import ModelCard
from tests.unit.generalist_helpers import XY, recipe, session

OLD = [session(id_="old-0", seed=11), session(id_="old-1", seed=12)]


def calibration(made: Session, names: list[str], *, folds: int = 3) -> Calibration:
    dims = made.dims_of(names)
    y_NK, _ = continuous_labels(made, dims, recipe="test")
    return Calibration(made, dims, y_NK, folds, 0)


def prepared(made: Session, names: list[str], *, history: History | None = None, budget_s: float = 0) -> Mix:
    mix = Mix(recipe().network, calibration(made, names), history=history, budget_s=budget_s, gate=Gate())
    mix.prepare()
    return mix


def test_it_decodes_and_says_what_it_mixed() -> None:
    whole = session(bins=2400)
    history = History.of(OLD, behavior=XY)
    decoder = betz_recipe_with_flat_prior().calibrate(whole.between(0, 1200), behavior=XY, history=history)
    found = betz.evaluate(decoder, whole.between(1200, 2400))
    ridge = betz.evaluate(betz.Wiener.floor().calibrate(whole.between(0, 1200), behavior=XY), whole.between(1200, 2400))
    assert found.r2 > max(0.5, ridge.r2 - 0.05)
    (mixed,) = decoder.report["mix"]
    assert set(mixed["held_out_r2"]) == {"ridge", "mean", "generalist", "generalist_history", "unlabelled"}
    assert sum(mixed["weights"].values()) == pytest.approx(1, abs=1e-3)
    assert mixed["held_out_r2_mix"] >= max(mixed["held_out_r2"].values()) - 0.02
    assert 0.5 < found.r2 + 0.5 * (1 - mixed["held_out_r2_mix"]) < 1.2


def betz_recipe_with_flat_prior() -> betz.decode.calibrate.Betz:
    return replace(recipe(), priors={})


def test_held_out_predictions_do_not_know_their_labels() -> None:
    """Labels of one fold are turned around, mean and spread kept: what is predicted there stays."""
    made = session(bins=900)
    c = calibration(made, XY)
    (a, b), other = c.parts[1][0], made.behavior[0].values.copy()
    other[a:b] = other[a:b][::-1]
    turned = replace(made, behavior=(Series(other, made.behavior[0].dims, 0, 50), made.behavior[1]))
    first, second = prepared(made, XY, budget_s=3), prepared(turned, XY, budget_s=3)
    for name in ("mean", "generalist"):  # the strength of ridge is chosen by the same folds
        scale = np.abs(first.held_out[name][a:b]).max() + 1e-9
        np.testing.assert_allclose(second.held_out[name][a:b] / scale, first.held_out[name][a:b] / scale, atol=2e-3)
    changed = second.held_out["generalist"][:a] - first.held_out["generalist"][:a]
    assert np.abs(changed).max() > 1e-3, "elsewhere these labels are learned from"
    assert np.isfinite(first.held_out["gru"][c.labelled_N]).all()
    assert np.isfinite(first.held_out["fine_tuned"][c.labelled_N]).all()


def test_trained_members_follow_the_budget_and_are_reported() -> None:
    made = session(bins=700)
    decoder = recipe().calibrate(made, behavior=[*XY, "hand_x"], budget_s=1.0)
    training = decoder.report["training"]
    assert set(training) == {"gru", "fine_tuned"}
    assert training["gru"]["steps"] < training["gru"]["asked"]
    assert training["gru"]["seconds"] < 3
    assert [m["behavior"] for m in decoder.report["mix"]] == [XY, ["hand_x"]]


def test_columns_keep_the_order_asked_for() -> None:
    made = session(bins=900)
    a = recipe().calibrate(made, behavior=["hand_vx", "hand_x", "hand_vy"])
    b = recipe().calibrate(made, behavior=["hand_x", "hand_vy", "hand_vx"])
    one, two = betz.evaluate(a, made), betz.evaluate(b, made)
    assert [d.name for d in one.dims] == ["hand_vx", "hand_x", "hand_vy"]
    np.testing.assert_allclose(two.predicted_NK[:, [2, 0, 1]], one.predicted_NK, atol=0.05 * one.predicted_NK.std())


def test_without_labels_history_decodes() -> None:
    made = session(bins=2400, seed=5)
    bare = replace(made.between(0, 1200), behavior=())
    decoder = recipe().calibrate(bare, behavior=XY, history=History.of(OLD, behavior=XY))
    assert decoder.report["labelled_bins"] == 0
    assert [d.unit for d in decoder.behavior] == ["cm/s", "cm/s"]
    assert betz.evaluate(decoder, made.between(1200, 2400)).r2 > 0.3
    with pytest.raises(DataError, match="there are no labels of hand_vx, hand_vy, and no history that knows them"):
        recipe().calibrate(bare, behavior=XY)
    other = replace(bare, channels=tuple(replace(c, id=f"other {c.id}") for c in bare.channels))
    history = History.of(OLD, behavior=XY)
    with pytest.raises(DataError, match="does not know hand_vx, hand_vy together on any of these channels"):
        recipe().calibrate(other, behavior=XY, history=history)


@pytest.mark.parametrize("bin_ms", [5, 20, 100, 200])
def test_any_bin_width(bin_ms: int) -> None:
    made = session(bins=40_000 // bin_ms, bin_ms=bin_ms, channels=6)
    decoder = recipe().calibrate(made, behavior=XY)
    assert betz.evaluate(decoder, made, push_bins=50).r2 > 0.3


def test_one_channel_and_many() -> None:
    for channels in (1, 200):
        made = session(bins=250, channels=channels)
        decoder = recipe().calibrate(made, behavior=XY)
        assert np.isfinite(betz.evaluate(decoder, made, push_bins=50).r2)


def test_labels_with_gaps_and_dimensions_on_other_scales() -> None:
    made = session(bins=900)
    values = made.behavior[0].values * np.array([1e6, 1e-3], np.float32)
    values[300:340] = np.nan
    gappy = replace(made, behavior=(Series(values, made.behavior[0].dims, 0, 50),))
    decoder = recipe().calibrate(gappy, behavior=XY)
    assert decoder.report["labelled_bins"] == 860
    per_dim = betz.evaluate(decoder, gappy, push_bins=50).scores.r2_dims
    assert per_dim.min() > 0.3


def test_what_it_refuses() -> None:
    made = session(bins=900)
    with pytest.raises(ConfigError, match="a budget of -1 seconds is negative"):
        recipe().calibrate(made, behavior=XY, budget_s=-1)
    flat = replace(made, behavior=(Series(np.ones((900, 2), np.float32), made.behavior[0].dims, 0, 50),))
    with pytest.raises(DataError, match="hand_vx, hand_vy does not change"):
        recipe().calibrate(flat, behavior=XY)
    assert made.counts is not None
    with pytest.raises(DataError, match="all 10 channels are dead"):
        recipe().calibrate(replace(made, counts=np.zeros_like(made.counts)), behavior=XY)
    with pytest.raises(DataError, match="at least 20 are needed"):
        recipe().calibrate(made.between(0, 15), behavior=XY)
    with pytest.raises(DataError, match="no behavior named 'nose'"):
        recipe().calibrate(made, behavior=["hand_vx", "nose"])


def test_a_saved_generalist_is_the_same_recipe(tmp_path: Path) -> None:
    mine = recipe()
    save_generalist(tmp_path / "g", mine, card=ModelCard(licence="CC0-1.0"))
    again = betz.load(tmp_path / "g")
    assert again.settings() == mine.settings()
    assert load_generalist(tmp_path / "g")[1].licence == "CC0-1.0"
    made = session(bins=600)
    a, b = (r.calibrate(made, behavior=XY) for r in (mine, again))
    one, two = (betz.evaluate(d, made, push_bins=50).predicted_NK for d in (a, b))
    np.testing.assert_array_equal(one, two)
    with pytest.raises(CheckpointError, match="this is no saved decoder"):
        betz.load(tmp_path / "nothing")
    path = tmp_path / "g" / "generalist.json"
    path.write_text(path.read_text().replace('"random"', '"better"'))
    with pytest.raises(CheckpointError, match="the manifest was changed"):
        betz.load(tmp_path / "g")


def test_discrete_behavior_is_decoded_by_discriminants() -> None:
    made = session(bins=1800)
    moving = (np.abs(made.behavior_of(["hand_vx"])) > 0.8).astype(float)
    dim = BehaviorDim("movement", "", "discrete", ("rest", "move"))
    whole = made.with_behavior(Series(moving, (dim,), 0, 50))
    decoder = recipe().calibrate(whole.between(0, 1000), behavior=["movement"])
    found = betz.evaluate(decoder, whole.between(1000, 1800))
    assert found.scores.headline > 0.55
    with pytest.raises(ConfigError, match="it decodes continuous behavior only, not movement"):
        recipe().calibrate(whole, behavior=["hand_vx", "movement"])


def test_kinds_and_folds() -> None:
    dims = session().dims
    assert kind_of(dims[:2]) == "velocity"
    assert kind_of(dims[2:]) == "position"
    assert kind_of([replace(dims[0], name="emg_FCR")]) == "muscles"
    assert kind_of([replace(dims[0], name="force_x")]) == "other"
    assert [fold_count(m) for m in (0.5, 1, 2, 5, 10)] == [3, 4, 4, 3, 3]
