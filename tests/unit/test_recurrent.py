"""GRU and LSTM from scratch: they learn, follow the budget, keep to segments, and refuse what they cannot learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import betz
from betz.core.errors import CheckpointError, ConfigError, DataError
from betz.core.session import BehaviorDim, Channel, Series, Session
from betz.core.timegrid import BinGrid
from betz.decode.features import counting, square_root
from betz.decode.fit import TrainingWindows, fit

SMALL = {"width": 16, "steps": 60, "windows": 8, "window_ms": 2000.0}
XY = ["hand_vx", "hand_vy"]


def session(*, bins: int = 1200, seed: int = 0, edges: tuple[int, ...] = (), channels: int = 12) -> Session:
    """50 ms bins; counts depend on a smooth velocity through an exponential, two bins later."""
    rng = np.random.default_rng(seed)
    velocity = np.stack([np.convolve(rng.normal(size=bins), np.ones(9) / 3, "same") for _ in range(2)], axis=1)
    gain = np.random.default_rng(7).normal(size=(2, channels))
    counts = rng.poisson(np.exp(0.5 * np.roll(velocity, -2, axis=0) @ gain)).clip(0, 255).astype(np.uint8)
    dims = (BehaviorDim("hand_vx", "cm/s"), BehaviorDim("hand_vy", "cm/s"))
    return Session(
        id="made-up",
        subject="nobody",
        grid=BinGrid(1000, 50),
        num_bins=bins,
        channels=tuple(Channel(f"c{i}") for i in range(channels)),
        counts=counts,
        behavior=(Series(velocity.astype(np.float32), dims, 0, 50),),
        edges=np.array([50 * e for e in edges], dtype=np.int64),
    )


def with_behavior(values: Any) -> Session:
    base = session()
    return replace(base, behavior=(Series(np.asarray(values, np.float32), base.behavior[0].dims, 0, 50),))


@pytest.mark.parametrize("recipe", [betz.GRU, betz.LSTM])
def test_it_learns(recipe: Any) -> None:
    whole = session(bins=2400)
    decoder = recipe(**{**SMALL, "steps": 150}).calibrate(whole.between(0, 1600), behavior=XY)
    evaluation = betz.evaluate(decoder, whole.between(1600, 2400))
    assert evaluation.r2 > 0.6
    assert evaluation.decoder == recipe.cell


def test_the_seed_decides_everything() -> None:
    def values(seed: int) -> np.ndarray:
        decoder = betz.GRU(**SMALL).calibrate(session(), behavior=XY, seed=seed, budget_s=1e6)  # never binding
        return np.asarray(betz.replay(decoder, session(bins=50)).values)

    assert np.array_equal(values(0), values(0))
    assert np.abs(values(0) - values(1)).max() > 1e-3


def test_members_are_averaged() -> None:
    decoder = betz.GRU(**SMALL, members=3).calibrate(session(), behavior=XY)
    state = decoder.network.state_dict()
    decoder.open()
    together = decoder.push(session().signals[:1][None]).values
    apart = []
    for m in range(3):
        one = betz.GRU(**{**SMALL, "steps": 1}, members=1).calibrate(session(), behavior=XY)
        one.network.load_state_dict({name: value[m : m + 1] for name, value in state.items()})
        one.open()
        apart.append(one.push(session().signals[:1][None]).values)
    assert np.allclose(together, np.mean(apart, axis=0), atol=1e-5)


def test_the_budget_ends_the_training_and_the_report_says_so() -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    p = torch.ones(2, 1, 1, requires_grad=True)
    rates: list[float] = []

    def loss() -> torch.Tensor:
        rates.append(float(p.detach().abs().sum()))
        return (p**2).sum((1, 2))

    report = fit([p], loss, steps=1000, rate=0.1, weight_decay=0.0, budget_s=20.0, clock=clock)
    assert 5 <= report.steps < 20
    assert report.asked == 1000
    assert abs(rates[-1] - rates[-2]) < abs(rates[3] - rates[2])  # the rate has come down with the time
    whole = fit([p], loss, steps=30, rate=0.1, weight_decay=0.0, budget_s=1e9)
    assert whole.steps == 30


def test_a_second_is_enough_for_some_steps() -> None:
    decoder = betz.GRU(steps=100_000).calibrate(session(), behavior=XY, budget_s=0.5)
    assert 1 <= decoder.report["fit"]["steps"] < 100_000
    assert decoder.report["fit"]["seconds"] < 5
    assert decoder.report["budget_s"] == 0.5


def test_windows_cross_nothing() -> None:
    x = np.repeat(np.arange(100.0)[:, None], 2, axis=1)
    y = x[:, :1].copy()
    y[50] = np.nan
    segments = [(0, 40), (45, 90), (95, 100)]
    windows = TrainingWindows(x, y, segments, bins=10, warm_up_bins=4)
    generator = torch.Generator().manual_seed(0)
    x_, y_, counts = windows.draw(3, 500, generator)
    assert x_.shape == (10, 3, 500, 2)
    start, counted = x_[0, ..., 0], counts[..., 0].bool()
    for bin_ in range(10):
        at = x_[bin_, ..., 0]
        for a, b in segments:
            assert bool(((at >= a) & (at < b))[(start >= a) & (start < b)].all())
        fresh = torch.isin(start, torch.tensor([0.0, 45.0, 95.0]))
        assert bool((counted[bin_] <= (fresh | (bin_ >= 4))).all())
    assert set(start.unique().int().tolist()) == {*range(31), *range(45, 81), 95}
    assert not counted[(x_[..., 0] == 50)].any()
    assert bool(counted[5:, start == 95].logical_not().all())  # padding behind a short segment
    assert bool(counted[:5, start == 95].all())
    assert bool((y_[..., 0][counted] == x_[..., 0][counted]).all())


def test_short_trials_are_learned_as_streams_start() -> None:
    """With trials shorter than a window, every window is a whole trial from its first bin on."""
    whole = session(bins=1600, edges=tuple(range(20, 1600, 20)))
    decoder = betz.GRU(**{**SMALL, "steps": 150}).calibrate(whole.between(0, 1200), behavior=XY)
    assert betz.evaluate(decoder, whole.between(1200, 1600)).r2 > 0.6


def test_streams_see_what_training_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    """The inputs of a stream are, bit for bit, those that the network was trained on."""
    seen: list[np.ndarray] = []
    real = TrainingWindows.__init__

    def noted(self: TrainingWindows, x_NC: np.ndarray, *rest: Any, **values: Any) -> None:
        seen.append(x_NC.astype(np.float32))
        real(self, x_NC, *rest, **values)

    monkeypatch.setattr(TrainingWindows, "__init__", noted)
    recording = session(bins=300)
    decoder = betz.GRU(**{**SMALL, "steps": 1}).calibrate(recording, behavior=XY)
    pushed: list[np.ndarray] = []
    forward = type(decoder.network).forward

    def watched(self: Any, x_NMBC: torch.Tensor, *rest: Any, **values: Any) -> Any:
        pushed.append(x_NMBC[:, 0, 0].numpy().copy())
        return forward(self, x_NMBC, *rest, **values)

    monkeypatch.setattr(type(decoder.network), "forward", watched)
    decoder.open(1, max_push_bins=300)
    decoder.push(recording.signals[None])
    assert np.array_equal(pushed[0], seen[0])


def test_square_roots_of_counts_only() -> None:
    channels = (Channel("a"), Channel("b", "unit"), Channel("p", "power", unit="uV^2"))
    found = square_root(np.array([[4.0, 9.0, -2.5]]), counting(channels))
    assert found.tolist() == [[2.0, 3.0, -2.5]]


BAD: dict[str, tuple[dict[str, Any], Session, type[Exception], str]] = {
    "no budget": ({"budget_s": 0.0}, session(), ConfigError, "cannot be trained in 0 seconds"),
    "constant": ({}, with_behavior(np.ones((1200, 2))), DataError, "does not change"),
    "NaN": ({}, with_behavior(np.full((1200, 2), np.nan)), DataError, "at least 20 are needed"),
    "dead": ({}, replace(session(), counts=np.zeros((1200, 12), np.uint8)), DataError, "all 12 channels are dead"),
    "short": ({}, session(bins=15), DataError, "15 of 15 bins are usable"),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses(name: str) -> None:
    values, recording, error, message = BAD[name]
    with pytest.raises(error, match=message):
        betz.GRU(**SMALL).calibrate(recording, behavior=XY, **values)


@pytest.mark.parametrize(("values", "message"), [({"width": 0}, "above 0"), ({"dropout": 1.0}, "below 1")])
def test_settings_are_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        betz.GRU(**values)


def test_gaps_in_labels_are_left_out() -> None:
    values = session().behavior[0].values.copy()
    values[300:500] = np.nan
    decoder = betz.GRU(**SMALL).calibrate(with_behavior(values), behavior=XY)
    assert decoder.report["labelled_bins"] == 1000


def test_a_damaged_decoder_is_refused(tmp_path: Path) -> None:
    decoder = betz.GRU(**{**SMALL, "steps": 2}).calibrate(session(), behavior=XY)
    decoder.behavior = (*decoder.behavior, BehaviorDim("hand_vz", "cm/s"))
    decoder.save(tmp_path / "d")
    with pytest.raises(CheckpointError, match="does not fit the channels and dimensions"):
        betz.load(tmp_path / "d")
