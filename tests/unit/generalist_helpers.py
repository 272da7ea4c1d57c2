"""A small generalist with random weights, and sessions for it."""

from __future__ import annotations

import numpy as np
import torch

from betz.core.session import BehaviorDim, Channel, Series, Session
from betz.core.timegrid import BinGrid
from betz.decode.calibrate import Betz
from betz.decode.gate import Prior
from betz.model.generalist import Generalist

XY = ["hand_vx", "hand_vy"]


def network(members: int = 2, *, width: int = 16, seed: int = 0) -> Generalist:
    """Random weights, the last layer included (it starts at zero in training)."""
    generator = torch.Generator().manual_seed(seed)
    made = Generalist(members=members, width=width, latents=3, generator=generator)
    with torch.no_grad():
        made.out_2_weight.copy_(0.1 * torch.randn(made.out_2_weight.shape, generator=generator))
    return made.eval().requires_grad_(False)


def recipe(members: int = 2) -> Betz:
    """A recipe whose gate gives the generalist most of the weight."""
    levels = {"generalist": 1.0, "generalist_history": 1.0, "ridge": 0.5, "gru": 0.5, "fine_tuned": 0.5}
    prior = Prior({m: (level, 0.0) for m, level in levels.items()}, 1e3)
    return Betz(network(members), "random", {"velocity/new": prior, "velocity/known": prior, "position/new": prior})


def session(
    *,
    id_: str = "made-up",
    bins: int = 1500,
    bin_ms: int = 50,
    seed: int = 0,
    channels: int = 10,
    edges: tuple[int, ...] = (),
    power: int = 0,
    drift: float = 0.0,
) -> Session:
    """Counts (and power) that depend on a smooth velocity and its integral."""
    rng = np.random.default_rng(seed)
    wide = max(round(450 / bin_ms), 1)
    velocity = np.stack([np.convolve(rng.normal(size=bins), np.ones(wide), "same") for _ in range(2)], axis=1)
    velocity /= velocity.std()
    gain = np.random.default_rng(7).normal(size=(2, channels + power)) + drift * rng.normal(size=(2, channels + power))
    drive = 0.5 * velocity @ gain
    counts = rng.poisson(np.exp(drive[:, :channels]) * bin_ms / 50).clip(0, 255).astype(np.uint8)
    dims = (BehaviorDim("hand_vx", "cm/s"), BehaviorDim("hand_vy", "cm/s"))
    position = np.cumsum(velocity, axis=0) * bin_ms / 1000
    return Session(
        id=id_,
        subject="nobody",
        grid=BinGrid(1000, bin_ms),
        num_bins=bins,
        channels=tuple(Channel(f"c{i}") for i in range(channels))
        + tuple(Channel(f"p{i}", "power", unit="uV^2") for i in range(power)),
        counts=counts,
        power=(5 + drive[:, channels:]).astype(np.float32) if power else None,
        behavior=(
            Series(velocity.astype(np.float32), dims, 0, bin_ms),
            Series(position[:, :1].astype(np.float32), (BehaviorDim("hand_x", "cm"),), 0, bin_ms),
        ),
        edges=np.array([bin_ms * e for e in edges], dtype=np.int64),
    )
