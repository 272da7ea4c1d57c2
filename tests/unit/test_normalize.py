"""The scale of behavior."""

from __future__ import annotations

import json

import numpy as np
import pytest

from betz.core.errors import ConfigError, DataError
from betz.core.session import BehaviorDim
from betz.tokens.normalize import Normalizer

DIMS = (BehaviorDim("hand_vx", "cm/s"), BehaviorDim("force", "N"), BehaviorDim("still", "cm"))


def values(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    out = np.stack([rng.normal(3, 20, 5000), rng.gamma(2, 1e-3, 5000), np.zeros(5000)], axis=1)
    out[::7, 0] = np.nan
    return out


def test_the_scale_is_the_quantile_of_the_absolute_values_without_centring() -> None:
    x = values()
    found = Normalizer.fit(x, DIMS)
    known = np.abs(x[np.isfinite(x[:, 0]), 0])
    assert found.scale[0] == np.quantile(known, 0.999)
    assert found.scale[1] == np.quantile(np.abs(x[:, 1]), 0.999)
    assert found.scale[2] == 1.0
    assert Normalizer.fit(x, DIMS, quantile=1.0).scale[1] == x[:, 1].max()


def test_values_are_clamped_and_the_clamped_ones_counted() -> None:
    x = values()
    found = Normalizer.fit(x, DIMS)
    scaled = found.apply(x)
    assert scaled.dtype == np.float32
    assert np.nanmax(np.abs(scaled)) == 1.0
    assert np.array_equal(np.isnan(scaled), np.isnan(x))
    beyond = [(np.abs(x[:, k]) > found.scale[k]).sum() for k in range(3)]
    assert found.clamped(x).tolist() == beyond
    assert beyond[0] > 0
    free = Normalizer.fit(x, DIMS, clamp=False)
    assert np.nanmax(np.abs(free.apply(x))) > 1.0
    assert free.clamped(x).tolist() == [0, 0, 0]


def test_inverse_gives_units_back() -> None:
    x = values()
    found = Normalizer.fit(x, DIMS, clamp=False)
    back = found.inverse(found.apply(x).astype(np.float64))
    assert np.nanmax(np.abs(back - x) / found.scale) < 1e-6


def test_it_is_saved_bit_for_bit() -> None:
    found = Normalizer.fit(values(), DIMS, quantile=0.99, clamp=False)
    again = Normalizer.from_dict(json.loads(json.dumps(found.to_dict())))
    assert np.array_equal(again.scale, found.scale)
    assert (again.names, again.units, again.quantile, again.clamp) == (found.names, found.units, 0.99, False)


def test_nothing_but_the_calibration_part_reaches_the_scale() -> None:
    x = values()
    other = x.copy()
    other[2000:] = np.random.default_rng(1).normal(0, 1e4, other[2000:].shape)
    assert np.array_equal(Normalizer.fit(x[:2000], DIMS).scale, Normalizer.fit(other[:2000], DIMS).scale)
    assert not np.array_equal(Normalizer.fit(x, DIMS).scale, Normalizer.fit(other, DIMS).scale)


def test_bad_input_is_refused() -> None:
    x = values()
    x[:, 1] = np.nan
    with pytest.raises(DataError, match=r"force has no known value.*leave the dimension out"):
        Normalizer.fit(x, DIMS)
    with pytest.raises(ConfigError, match=r"a quantile of 0 is impossible.*0 < quantile ≤ 1"):
        Normalizer.fit(values(), DIMS, quantile=0)
    with pytest.raises(ConfigError, match="a positive scale"):
        Normalizer(("a",), ("m",), np.array([0.0]))
    with pytest.raises(ConfigError, match="a positive scale"):
        Normalizer(("a",), ("m",), np.array([1.0, 2.0]))
