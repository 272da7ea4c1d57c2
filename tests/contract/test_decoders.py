"""Every decoder keeps the contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from betz.core.session import BehaviorDim, Channel, Series, Session
from betz.core.timegrid import BinGrid
from betz.decode.baselines.discrete import LDA, Logistic
from betz.decode.baselines.kalman import Kalman
from betz.decode.baselines.ole import OLE
from betz.decode.baselines.recurrent import GRU, LSTM
from betz.decode.baselines.wiener import Wiener
from betz.decode.decoder import Decoder, load
from betz.testing import check_decoder
from betz.testing.decoders import NETWORK_TOLERANCE
from tests.unit.generalist_helpers import recipe


def session(*, bin_ms: float, power: bool = False, minutes: float = 1.0) -> Session:
    """Poisson counts (and power) that depend on a smooth two-dimensional velocity."""
    rng = np.random.default_rng(1)
    grid = BinGrid.from_ms(bin_ms)
    bins = grid.bins_in(minutes)
    velocity = np.stack([np.convolve(rng.normal(size=bins), np.ones(9) / 3, "same") for _ in range(2)], axis=1)
    drive = velocity @ rng.normal(size=(2, 12)) * 0.4
    counts = rng.poisson(np.exp(drive[:, :8])).astype(np.uint8)
    channels = [Channel(f"c{i}") for i in range(8)]
    dims = (BehaviorDim("hand_vx", "cm/s"), BehaviorDim("hand_vy", "cm/s"))
    behavior = [Series(velocity, dims, 0, grid.ticks_per_bin)]
    position = np.cumsum(velocity, axis=0)[:, :1] * grid.bin_s
    behavior.append(Series(position, (BehaviorDim("hand_x", "cm"),), 0, grid.ticks_per_bin))
    if power:
        channels += [Channel(f"p{i}", "power", unit="uV^2") for i in range(4)]
    return Session(
        id="made-up",
        subject="nobody",
        grid=grid,
        num_bins=bins,
        channels=tuple(channels),
        counts=counts,
        power=(drive[:, 8:] * 1e-3 + 5).astype(np.float32) if power else None,
        behavior=tuple(behavior),
    )


def with_movement(made: Session) -> Session:
    """Three classes of movement, by the sign of one velocity."""
    vx = made.behavior_of(["hand_vx"])
    classes = np.where(np.abs(vx) < 0.3, 0.0, np.where(vx > 0, 2.0, 1.0))
    dim = BehaviorDim("movement", "", "discrete", ("rest", "left", "right"))
    return made.with_behavior(Series(classes, (dim,), 0, made.grid.ticks_per_bin))


MAKERS: dict[str, Callable[[], Decoder]] = {
    "wiener floor 50 ms": lambda: Wiener.floor().calibrate(session(bin_ms=50), behavior=["hand_vx", "hand_vy"]),
    "wiener 20 ms": lambda: Wiener().calibrate(session(bin_ms=20), behavior=["hand_vx", "hand_x", "hand_vy"]),
    "wiener pre-filtered": lambda: Wiener(prefilter_ms=(120,), span_ms=(300,)).calibrate(
        session(bin_ms=100, minutes=2), behavior=["hand_vx", "hand_vy"]
    ),
    "kalman 50 ms": lambda: Kalman().calibrate(session(bin_ms=50, minutes=2), behavior=["hand_vx", "hand_vy"]),
    "kalman 20 ms": lambda: Kalman().calibrate(session(bin_ms=20), behavior=["hand_vx", "hand_x", "hand_vy"]),
    "kalman with power, steady": lambda: Kalman(gain="steady", transforms=("sqrt",)).calibrate(
        session(bin_ms=10, power=True), behavior=["hand_vx", "hand_vy"]
    ),
    "kalman 100 ms": lambda: Kalman(state="asked").calibrate(session(bin_ms=100, minutes=2), behavior=["hand_vx"]),
    "optimal linear estimator": lambda: OLE().calibrate(session(bin_ms=50, minutes=2), behavior=["hand_vx", "hand_vy"]),
    "lda": lambda: LDA().calibrate(with_movement(session(bin_ms=50)), behavior=["movement"]),
    "logistic": lambda: Logistic().calibrate(with_movement(session(bin_ms=64)), behavior=["movement"]),
    "wiener with power": lambda: Wiener(span_ms=(300,)).calibrate(
        session(bin_ms=64, power=True), behavior=["hand_vx", "hand_vy"]
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_contract(name: str, tmp_path: Path) -> None:
    MAKERS[name]().save(tmp_path / "saved")
    report = check_decoder(lambda: load(tmp_path / "saved"))
    assert len(report.checks) == 15
    assert report.worst_offline_error <= 1e-9


@pytest.mark.parametrize("recipe", [GRU, LSTM])
def test_contract_of_recurrent_networks(recipe: type[GRU], tmp_path: Path) -> None:
    made = recipe(width=12, steps=30, windows=4).calibrate(
        session(bin_ms=50, power=True), behavior=["hand_vx", "hand_x", "hand_vy"]
    )
    made.save(tmp_path / "saved")
    report = check_decoder(lambda: load(tmp_path / "saved"), tolerance=NETWORK_TOLERANCE)
    assert len(report.checks) == 15


def test_lost_bins_carry_no_information() -> None:
    """A lost bin counts as the calibration mean: on signals at their mean, losing bins changes nothing."""
    decoder = Wiener().calibrate(session(bin_ms=50, minutes=2), behavior=["hand_vx", "hand_vy"])
    mean = np.broadcast_to(decoder.scaler.mean, (1, 60, 8))
    decoder.open(1, max_push_bins=60)
    there = decoder.push(mean).values
    decoder.reset()
    lost = decoder.push(mean, np.arange(60)[None] % 3 > 0).values
    assert np.abs(there - lost).max() < 1e-9


def test_a_broken_decoder_fails_the_contract() -> None:
    """The contract can fail: a decoder that looks one bin ahead, and one that keeps no state."""

    class Ahead(type(MAKERS["wiener floor 50 ms"]())):  # type: ignore[misc]
        def advance(self, signals_BNC, present_BN, state):  # type: ignore[no-untyped-def]
            values, spread, after = super().advance(signals_BNC, present_BN, state)
            return np.roll(values, -1, axis=1), spread, after

    class Forgets(Ahead.__base__):  # type: ignore[misc,name-defined]
        def advance(self, signals_BNC, present_BN, state):  # type: ignore[no-untyped-def]
            values, spread, _ = super().advance(signals_BNC, present_BN, state)
            return values, spread, self.initial_state(len(signals_BNC))

    fitted = MAKERS["wiener floor 50 ms"]()
    for broken in (Ahead, Forgets):
        made = broken(
            bin_ms=fitted.bin_ms,
            channels=fitted.channels,
            behavior=fitted.behavior,
            scaler=fitted.scaler,  # type: ignore[attr-defined]
            filters=fitted.filters,  # type: ignore[attr-defined]
            report={},
        )
        with pytest.raises(AssertionError, match="streamed_equals_offline"):
            check_decoder(lambda made=made: made)  # type: ignore[misc]


@pytest.mark.parametrize(("bin_ms", "budget_s"), [(20, 0.0), (64, 1.0)])
def test_contract_of_the_mixture(bin_ms: float, budget_s: float, tmp_path: Path) -> None:
    signals = session(bin_ms=bin_ms, power=True, minutes=0.6)
    made = recipe().calibrate(signals, behavior=["hand_vx", "hand_x", "hand_vy"], budget_s=budget_s)
    assert len(made.parts) == (2 if budget_s == 0 else 5)
    made.save(tmp_path / "saved")
    report = check_decoder(lambda: load(tmp_path / "saved"), signals_NC=signals.signals, tolerance=NETWORK_TOLERANCE)
    assert len(report.checks) == 15
