"""Recurrent networks from scratch as members of the mix: one for each held-out fold, one for all, trained as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from betz.core.prediction import Array
from betz.core.seeds import SeedTree
from betz.core.session import Channel
from betz.decode.features import Z_CLIP, counting, floored
from betz.decode.filterbank import FilterBank
from betz.decode.fit import TrainingWindows, fit
from betz.decode.members import Calibration
from betz.decode.phases import interleaved, offline, split_phases
from betz.model.recurrent import RecurrentNetwork

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

WIDTH, STEPS, WINDOWS, WINDOW_MS, WARM_UP_MS = 96, 350, 16, 4500.0, 400.0
RATE, WEIGHT_DECAY, DROPOUT, NOISE, OUTPUT_DROPOUT = 3e-3, 0.01, 0.3, 0.5, 0.3
GAP_MS = 500.0
"""Bins this close to a held-out fold are not learned from either."""


class RecurrentPart:
    """Trained networks on a stream; narrow bins are interleaved as in the filter bank.

    Args:
        bin_ms: bin width.
        counting: (C,) whether a channel holds counts.
        rest, sd: (C,) of the rooted signals.
        center, scale: (K,) of the behavior.
        network: M members.
    """

    def __init__(
        self,
        bin_ms: float,
        counting: NDArray[np.bool_],
        rest: Float,
        sd: Float32,
        center: Float,
        scale: Float,
        network: RecurrentNetwork,
    ) -> None:
        blank = np.zeros(0, np.float32)
        self.bank = FilterBank(bin_ms, counting, rest, blank, blank)
        self.sd, self.center, self.scale, self.network = sd, center, scale, network
        self.members = len(network.read_in)

    @property
    def stride(self) -> int:
        """Bins in a step."""
        return self.bank.stride

    def initial_state(self, rows: int) -> dict[str, Array]:
        """Bins before, and the networks' interleaved states."""
        return {
            "before": np.full((rows, self.stride - 1, len(self.sd)), np.nan),
            "state": np.zeros((rows, self.stride, self.members, self.network.state_width), np.float32),
        }

    def inputs(self, signals_NC: Array, before: Float | None = None) -> Float32:
        """(N, C) z-scored rooted signals."""
        z = self.bank.rooted(signals_NC, before) / self.sd
        return np.asarray(np.clip(z, -Z_CLIP, Z_CLIP), dtype=np.float32)

    def advance(
        self,
        signals_BNC: Array,
        present_BN: NDArray[np.bool_],
        dead_BNC: NDArray[np.bool_],
        state: Mapping[str, Array],
    ) -> tuple[Array, dict[str, Array]]:
        """Values (B, N, M, K)."""
        x = np.where(present_BN[..., None], signals_BNC, np.nan)
        z = np.stack([self.inputs(bins, state["before"][row]) for row, bins in enumerate(x)])
        z[dead_BNC] = 0
        before = np.concatenate((state["before"], x), axis=1)[:, x.shape[1] :].copy()
        values, after = self.run(z, state["state"])
        return values * self.scale + self.center, {"before": before, "state": after}

    def run(self, z_BNC: Float32, state: Float32) -> tuple[Float32, Float32]:
        """Values (B, N, M, K) in calibration units, and the states after."""
        return interleaved(self._network, z_BNC, state, self.stride)

    def _network(self, x_RNC: Float32, state_RMS: Float32) -> tuple[Float32, Float32]:
        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(x_RNC)).transpose(0, 1)[:, None]
            before = torch.from_numpy(np.ascontiguousarray(state_RMS)).transpose(0, 1).contiguous()
            out, states = self.network.with_states(x.expand(-1, self.members, -1, -1), before)
            return out.permute(2, 0, 1, 3).numpy(), states.permute(2, 0, 1, 3).numpy()

    def arrays(self) -> dict[str, Array]:
        """What has to be saved."""
        found: dict[str, Array] = {"counting": self.bank.counting.astype(np.int64), "rest": self.bank.rest}
        found |= {"sd": self.sd, "center": self.center, "scale": self.scale}
        return found | {f"network.{n}": v.numpy() for n, v in self.network.state_dict().items()}

    @classmethod
    def of(cls, arrays: Mapping[str, Array], *, bin_ms: float, channels: Sequence[Channel]) -> RecurrentPart:
        """The part that :meth:`arrays` described; raises ValueError where arrays disagree."""
        members, inputs, width = arrays["network.read_in"].shape
        if inputs != len(channels):
            raise ValueError("the network does not fit the channels")
        network = RecurrentNetwork(
            "gru",
            members=members,
            channels=inputs,
            width=width,
            columns=len(arrays["center"]),
            generator=torch.Generator(),
        )
        values = {n.removeprefix("network."): a for n, a in arrays.items() if n.startswith("network.")}
        try:
            network.load_state_dict({n: torch.from_numpy(a.copy()) for n, a in values.items()})
        except RuntimeError as error:
            raise ValueError(str(error)) from None
        return cls(
            bin_ms,
            arrays["counting"].astype(bool),
            arrays["rest"],
            arrays["sd"],
            arrays["center"],
            arrays["scale"],
            network.requires_grad_(False),
        )

    def of_members(self, members: Sequence[int]) -> RecurrentPart:
        """The part with some of its members."""
        return RecurrentPart.of(
            {n: a[list(members)] if n.startswith("network.") else a for n, a in self.arrays().items()},
            bin_ms=self.bank.bin_ms,
            channels=[Channel(str(i)) for i in range(len(self.sd))],
        )


def train_recurrent(c: Calibration, *, budget_s: float) -> tuple[RecurrentPart, Float, dict[str, Any]]:
    """Networks of all bins and without each fold; the part, (N, K) held-out predictions, and what training did."""
    session, inside = c.session, c.fold_N >= 0
    rooted = np.zeros((session.num_bins, len(session.channels)), np.float32)
    for a, b in session.segments:
        rooted[a:b] = c.bank.rooted(session.signals[a:b])
    sd = floored(rooted[inside].std(axis=0, dtype=np.float64)[:, None], session.channels)[:, 0].astype(np.float32)
    center, scale = c.y_NK[c.labelled_N].mean(axis=0), c.y_NK[c.labelled_N].std(axis=0)
    z_NK = np.where(c.labelled_N[:, None], (c.y_NK - center) / scale, np.nan)
    generator = torch.Generator().manual_seed(
        int(SeedTree(c.seed).sequence("recurrent member").generate_state(1, np.uint64)[0] >> 1)
    )
    members = c.folds + 1
    network = RecurrentNetwork(
        "gru", members=members, channels=len(sd), width=WIDTH, columns=len(c.dims), generator=generator
    )
    part = RecurrentPart(session.bin_ms, counting(session.channels), c.bank.rest, sd, center, scale, network)
    z_NC = np.clip(rooted / sd, -Z_CLIP, Z_CLIP)
    order, segments = split_phases(session.segments, part.stride)
    step_ms = part.stride * session.bin_ms
    windows = TrainingWindows(
        z_NC[order].astype(np.float64),
        z_NK[order],
        segments,
        bins=max(round(WINDOW_MS / step_ms), 2),
        warm_up_bins=round(WARM_UP_MS / step_ms),
        counted_MN=counted_bins(c)[:, order],
    )
    report = _fit(c, network, windows, generator, budget_s)
    network.requires_grad_(False)
    fresh = part.initial_state(1)["state"]
    values = offline(part.run, z_NC, fresh, spans=session.segments, segments=session.segments, stride=part.stride)
    held_out = np.full(c.y_NK.shape, np.nan)
    for k in range(c.folds):
        held_out[c.fold_N == k] = values[c.fold_N == k, k + 1] * scale + center
    return part, held_out, report


def counted_bins(c: Calibration) -> NDArray[np.bool_]:
    """(1 + folds, N) bins that the network of all, and of each held-out fold, learns from."""
    gap = round(GAP_MS / c.session.bin_ms)
    out = np.ones((c.folds + 1, c.session.num_bins), dtype=bool)
    for k, part in enumerate(c.parts):
        for a, b in part:
            out[k + 1, max(a - gap, 0) : b + gap] = False
    return out


def _fit(
    c: Calibration, network: RecurrentNetwork, windows: TrainingWindows, generator: torch.Generator, budget_s: float
) -> dict[str, Any]:
    weight_K = torch.zeros(len(c.dims))
    for columns in c.groups:
        weight_K[list(columns)] = 1 / len(columns)
    members = len(network.read_in)
    state = network.start(WINDOWS)

    def hidden(share: float, *shape: int) -> torch.Tensor:
        return (torch.rand(*shape, generator=generator) > share).float() / (1 - share)

    def loss() -> torch.Tensor:
        x, y, counts = windows.draw(members, WINDOWS, generator)
        x = x * hidden(DROPOUT, *x.shape) + NOISE * torch.randn(x.shape, generator=generator)
        out, _ = network(x, state, keep=hidden(OUTPUT_DROPOUT, *x.shape[:3], WIDTH))
        square = ((out - y) ** 2 * counts).sum((0, 2)) / counts.sum((0, 2)).clamp(min=1)
        each: torch.Tensor = square @ weight_K
        return each

    found = fit(list(network.parameters()), loss, steps=STEPS, rate=RATE, weight_decay=WEIGHT_DECAY, budget_s=budget_s)
    return asdict(found)
