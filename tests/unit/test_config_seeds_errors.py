"""Frozen configurations, the seed tree, errors with remedies."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from betz.core.config import config_hash, from_dict, to_dict
from betz.core.errors import ConfigError, DataError, MissingExtraError, require
from betz.core.seeds import SeedTree
from betz.decode.baselines.wiener import Wiener


def test_config_is_frozen_and_checked() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Wiener().folds = 3  # type: ignore[misc]
    with pytest.raises(ConfigError, match=r"Wiener settings.*fold: Unexpected keyword"):
        from_dict(Wiener, {"fold": 3})
    with pytest.raises(ConfigError, match=r"folds: Input should be a valid integer"):
        Wiener(folds="many")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="folds at least 2"):
        dataclasses.replace(Wiener(), folds=1)
    with pytest.raises(ConfigError, match="must be positive"):
        Wiener(strengths=(0.0,))


def test_config_round_trip_and_hash() -> None:
    recipe = Wiener(span_ms=(300,), folds=5)
    assert from_dict(Wiener, to_dict(recipe)) == recipe
    assert config_hash(recipe) == config_hash(from_dict(Wiener, to_dict(recipe)))
    assert config_hash(recipe) != config_hash(Wiener())
    assert config_hash({"b": 1, "a": 2}) == config_hash({"a": 2, "b": 1})


def test_seed_tree_names_generators() -> None:
    tree = SeedTree(3)
    first = tree.generator("windows", epoch=1, item=7).random(4)
    assert np.array_equal(first, SeedTree(3).generator("windows", epoch=1, item=7).random(4))
    others = [
        SeedTree(4).generator("windows", epoch=1, item=7),
        tree.generator("noise", epoch=1, item=7),
        tree.generator("windows", epoch=2, item=7),
        tree.generator("windows", epoch=1, item=8),
        tree.child("windows").generator("windows", epoch=1, item=7),
    ]
    assert all(not np.array_equal(first, rng.random(4)) for rng in others)


def test_errors_say_what_where_and_remedy() -> None:
    error = DataError("it is empty.", where="a.npz", remedy="record something")
    assert str(error) == "a.npz: it is empty. Remedy: record something"
    with pytest.raises(MissingExtraError, match=r"no_such_library is not installed.*pip install 'betz\[report\]'"):
        require("no_such_library.sub", extra="report")
