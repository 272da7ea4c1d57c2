"""Betz's own network: from closed-form decodes and the set of channels to behavior, shared by everything it decodes.

Every dimension of behavior runs through the same weights; dimensions of one group (a unit: velocity, EMG …) see each
other through averages only. Channels come in as a set: each channel's weights are computed from its profile (how it
covaries with the dimension, its closed-form weights), so their order and number are free. Every parameter has a leading
axis of M members (seeds, folds), which run as one.

Shapes: N steps, M members, R rows, D dimensions, C channels, F = C · filters features, H width, L latents.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from betz.model.cells import scan

FILTERS = 5
"""Filters of a channel (``betz.decode.filterbank``)."""
STRENGTHS = 4
"""Ridge strengths of the decode of the present."""
AUXILIARY = 4
"""Further targets: behavior 130 and 320 ms ago and 130 ms ahead, and its leaky integral."""
HISTORY_FROM = STRENGTHS + 2 * AUXILIARY
"""First column that stems from history."""
RESIDUALS = 3
"""Ridge strengths of what history leaves unexplained."""
BANK = HISTORY_FROM + 1 + AUXILIARY + RESIDUALS
"""Closed-form decodes of a dimension."""
SPEED = 4
IDENTITY = 4 * FILTERS
"""Numbers of a channel about a dimension: profile, two ridge solutions, history."""
CONTEXT = STRENGTHS + 2 + RESIDUALS + 1 + 4
"""Numbers about a calibration and a dimension."""
CHANNEL = 2 + 4 + 1
"""Numbers about a channel: rate, Fano factor, four of the context, whether it is power."""


@dataclass(frozen=True, eq=False)
class Profiles:
    """What a calibration tells the network, once; all float32.

    Args:
        identity: (M, R, C, D, IDENTITY).
        channel: (M, R, C, CHANNEL).
        there: (M, R, C) 1, or 0 for padding.
        context: (M, R, D, CONTEXT).
        certainty: (M, R) grows with the root of labelled bins.
    """

    identity: Tensor
    channel: Tensor
    there: Tensor
    context: Tensor
    certainty: Tensor


class Generalist(nn.Module):
    """The network.

    Args:
        members: M.
        width: H.
        latents: L, linear read-outs of the channels a dimension gets.
        generator: of the initial values; None leaves them to :meth:`torch.nn.Module.load_state_dict`.
    """

    def __init__(
        self, *, members: int = 1, width: int = 64, latents: int = 12, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.members, self.width, self.latents = members, width, latents

        def layer(name: str, inputs: int, outputs: int, *, zero: bool = False) -> None:
            bound = 0.0 if zero else 1 / math.sqrt(inputs)
            for suffix, shape in (("weight", (members, inputs, outputs)), ("bias", (members, 1, outputs))):
                drawn = torch.zeros(shape) if zero else (2 * torch.rand(shape, generator=generator) - 1) * bound
                self.register_parameter(f"{name}_{suffix}", nn.Parameter(drawn))

        layer("identity_1", IDENTITY + FILTERS + CHANNEL, 64)
        layer("identity_2", 64, 64)
        layer("identity_3", 64, latents * FILTERS)
        layer("inputs", BANK + SPEED + latents, width)
        layer("context_1", CONTEXT, width)
        layer("context_2", width, 2 * width)
        layer("pool_1", width, width)
        layer("pool_2", width, width)
        for cell in ("first", "second"):
            layer(f"{cell}_drive", width, 3 * width)
            layer(f"{cell}_state", width, 3 * width)
        layer("out_1", 2 * width, width)
        layer("out_2", width, 1, zero=True)
        layer("gate_1", width + CONTEXT, width)
        layer("gate_2", width, 1)

    def _both(self, name: str) -> tuple[Tensor, Tensor]:
        weight, bias = self._parameters[f"{name}_weight"], self._parameters[f"{name}_bias"]
        assert weight is not None
        assert bias is not None
        return weight, bias

    def _layer(self, name: str, x: Tensor) -> Tensor:
        """(M, …, outputs) of (M, …, inputs)."""
        weight, bias = self._both(name)
        flat = torch.baddbmm(bias, x.reshape(x.shape[0], -1, x.shape[-1]), weight)
        return flat.view(*x.shape[:-1], weight.shape[2])

    def read_in(self, profiles: Profiles) -> Tensor:
        """(M, R, F, D · L) weights of the features, computed from the channels' profiles."""
        identity = profiles.identity
        members, rows, channels, dims, _ = identity.shape
        certain = identity[..., :FILTERS] * profiles.certainty[:, :, None, None, None]
        about = profiles.channel[:, :, :, None].expand(-1, -1, -1, dims, -1)
        x = nn.functional.gelu(self._layer("identity_1", torch.cat((identity, certain, about), -1)))
        x = nn.functional.gelu(self._layer("identity_2", x))
        weights = self._layer("identity_3", x) * profiles.there[:, :, :, None, None]
        number = (profiles.there.sum(2) * FILTERS).clamp(min=1).sqrt()
        weights = (
            weights.view(members, rows, channels, dims, self.latents, FILTERS) / number[:, :, None, None, None, None]
        )
        return weights.permute(0, 1, 2, 5, 3, 4).reshape(members, rows, channels * FILTERS, dims * self.latents)

    def modulation(self, context: Tensor) -> Tensor:
        """(…, D, 3H) scale and shift of the inputs, and the gate's bias, from the context (M, …, D, CONTEXT)."""
        width = self.width
        inner = self._layer("context_2", nn.functional.gelu(self._layer("context_1", context)))
        weight, bias = self._both("gate_1")
        rest = torch.matmul(context.flatten(1, -2), weight[:, width:]) + bias
        return torch.cat((inner, rest.view(*context.shape[:-1], width)), -1)

    def forward(
        self, decodes: Tensor, skip: Tensor, modulation: Tensor, pool: Tensor, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Behavior (N, M, R, D) in calibration units, and the states (N, M, R · D, 2H) after each step.

        Args:
            decodes: (N, M, R, D, BANK + SPEED + L): closed-form decodes, speed, latents.
            skip: (N, M, R, D) the closed-form decode that the output starts from.
            modulation: (M, R or 1, D, 3H) from :meth:`modulation`.
            pool: (D, D) averages the dimensions of a group.
            state: (M, R · D, 2H) before the first step; None = zeros.
        """
        _, members, rows, dims, _ = decodes.shape
        width = self.width
        scale, shift, bias = modulation.unsqueeze(1).chunk(3, -1)
        h = nn.functional.gelu(self._layer("inputs", decodes.transpose(0, 1)) * (1 + scale) + shift)
        h = h + self._layer("pool_1", pool @ h.abs())  # (M, N, R, D, H) from here on
        if state is None:
            state = h.new_zeros(members, rows * dims, 2 * width)
        first = self._cell("first", h, state[..., :width])
        seen = first.transpose(0, 1).reshape(h.shape)
        joined = seen + self._layer("pool_2", pool @ seen**2)
        second = self._cell("second", joined, state[..., width:])
        after = joined + second.transpose(0, 1).reshape(h.shape)
        out = self._layer("out_2", nn.functional.gelu(self._layer("out_1", torch.cat((h, after), -1))))
        weight, _ = self._both("gate_1")
        gate = torch.bmm(after.reshape(members, -1, width), weight[:, :width]).view(h.shape)
        gate = self._layer("gate_2", nn.functional.gelu(gate + bias))
        values = out[..., 0].transpose(0, 1) + skip * (1 + 0.5 * torch.tanh(gate[..., 0].transpose(0, 1)))
        return values, torch.cat((first, second), -1)

    def _cell(self, name: str, x: Tensor, state: Tensor) -> Tensor:
        """(N, M, R · D, H) outputs of a GRU on (M, N, R, D, H)."""
        width, (members, steps) = self.width, x.shape[:2]
        weight, bias = self._both(f"{name}_state")
        drive = self._layer(f"{name}_drive", x.reshape(members, steps, -1, width)).transpose(0, 1)
        drive = drive + torch.cat((bias[..., : 2 * width], torch.zeros_like(bias[..., 2 * width :])), -1)
        out, _ = scan("gru", drive, weight, bias[..., 2 * width :], state.contiguous())
        return out


def stacked(networks: list[Generalist], times: int = 1) -> Generalist:
    """The members of several networks side by side, each ``times`` times."""
    first = networks[0]
    made = Generalist(members=times * sum(n.members for n in networks), width=first.width, latents=first.latents)
    values = {
        name: torch.cat([n.state_dict()[name] for n in networks for _ in range(times)]) for name in first.state_dict()
    }
    made.load_state_dict(values)
    return made


def chosen(network: Generalist, members: list[int]) -> Generalist:
    """A copy of some members; one may be asked for more than once."""
    made = Generalist(members=len(members), width=network.width, latents=network.latents)
    made.load_state_dict({name: value[members].clone() for name, value in network.state_dict().items()})
    return made
