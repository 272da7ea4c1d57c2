"""Descriptions of activity give back what was put in."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from betz.core.errors import DataError
from betz.core.session import BehaviorDim, Channel, Series, Session
from betz.core.timegrid import BinGrid
from betz.evaluate.activity import activity
from betz.evaluate.activity_page import compare, page

NAMES = ["vx", "vy"]


def session(
    rates_hz: np.ndarray, *, noise: float = 0.0, late: int = 2, bins: int = 12_000, **changes: object
) -> Session:
    """Poisson channels of 50 ms: x and y move the first two, shared gamma noise of a second moves all."""
    rng = np.random.default_rng(0)
    velocity = np.stack([np.convolve(rng.normal(size=bins + 20), np.ones(9) / 3, "valid")[:bins] for _ in "xy"], axis=1)
    gain = np.ones((bins, len(rates_hz)))
    gain[:, :2] += 0.4 * np.clip(np.roll(velocity, -late, axis=0), -2, 2)
    if noise:
        gain *= np.repeat(rng.gamma(1 / noise, noise, bins // 20), 20)[:, None]
    counts = rng.poisson(gain * rates_hz * 0.05).astype(np.uint8)
    grid = BinGrid.from_ms(50)
    dims = tuple(BehaviorDim(n, "cm/s") for n in NAMES)
    return Session(
        id="made-up",
        subject="nobody",
        grid=grid,
        num_bins=bins,
        channels=tuple(Channel(f"c{i}") for i in range(len(rates_hz))),
        counts=counts,
        behavior=(Series(velocity, dims, 0, 50),),
    )


def test_poisson_channels_are_poisson() -> None:
    found = activity(session(np.array([10.0, 20.0, 5.0, 15.0, 0.1])), velocity=NAMES)
    assert (found.channels, found.live) == (5, 4)
    assert np.allclose(found.rate_hz, [10, 20, 5, 15], rtol=0.04)
    assert all(np.allclose(found.fano[w][2:], 1, atol=0.25) for w in (0.25, 1.0, 4.0))
    assert found.lead_ms == 100
    assert found.tuning_r2[:2].min() > 0.05
    assert found.tuning_r2[2:].max() < 0.003
    assert np.abs(found.noise_correlation).max() < 0.05
    numbers = found.numbers()
    assert numbers["live_share"] == 0.8
    assert numbers["rate_hz_50"] == pytest.approx(12.5, rel=0.05)
    assert numbers["fano_1s"] == pytest.approx(np.median(found.fano[1.0]))


def test_shared_noise_shows_in_fano_and_correlation() -> None:
    rates = np.array([10.0, 20.0, 20.0, 20.0])
    found = activity(session(rates, noise=0.25), velocity=NAMES)
    # a gamma factor of variance v for a second: Fano 1 + v · mean, correlation v · mean / (1 + v · mean)
    assert np.allclose(found.fano[1.0][2:], 1 + 0.25 * 20, rtol=0.15)
    assert found.fano[16.0].min() > 3
    assert found.noise_correlation_1s[-1] == pytest.approx(5 / 6, abs=0.05)
    assert 0.1 < found.noise_correlation[-1] < 0.35


def test_signal_correlation_is_that_of_the_tuning() -> None:
    made = session(np.array([20.0, 20.0, 20.0]))
    assert made.counts is not None
    counts = made.counts.copy()
    counts[:, 2] = counts[:, 0]  # twins: same tuning
    found = activity(replace(made, counts=counts), velocity=NAMES)
    one_two, one_three, two_three = found.signal_correlation
    assert one_three == pytest.approx(1)
    assert abs(one_two) < 0.2
    assert abs(two_three) < 0.2


def test_too_little_is_refused() -> None:
    with pytest.raises(DataError, match="1 channels are live"):
        activity(session(np.array([10.0, 0.1])), velocity=NAMES)
    with pytest.raises(DataError, match=r"25 s of usable bins with known velocity are too little.*at least 30 s"):
        activity(session(np.array([10.0, 10.0])).between(0, 500), velocity=NAMES)


def test_the_page_says_what_differs(tmp_path: Path) -> None:
    real = [activity(session(np.array([10.0, 20.0, 5.0, 8.0]), noise=v), velocity=NAMES) for v in (0.2, 0.3)]
    made = [activity(session(np.array([10.0, 20.0, 5.0, 8.0])), velocity=NAMES)]
    curves = {"monkey": {1.0: [0.3, 0.4], 2.0: [0.4, 0.5]}, "simulator": {1.0: [0.35], 5.0: [0.9]}}
    lines = {line.name: line for line in compare(real, made, (curves["monkey"], curves["simulator"]))}
    fano = lines["Fano factor, windows of 1 s"]
    assert fano.verdict == "below"
    assert fano.recorded[0] <= fano.recorded[1] <= fano.recorded[2]
    assert "below monkey's" in fano.words("monkey")
    assert lines["R² of ridge after 1 min"].verdict == "within"
    assert "R² of ridge after 5 min" not in lines  # one of them has no such sessions
    path = page(
        {"monkey": real, "simulator": made}, curves, [("monkey", "simulator")], tmp_path / "p.html", notes=["So <b>"]
    )
    text = path.read_text()
    assert fano.words("monkey").replace("'", "&#39;") in text
    assert "So &lt;b&gt;" in text
    assert text.count("data:image/svg+xml") == 5
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text)  # nothing is loaded from elsewhere
    with pytest.raises(DataError, match="no pair of groups to compare"):
        page({"monkey": real}, curves, [], tmp_path / "q.html")
