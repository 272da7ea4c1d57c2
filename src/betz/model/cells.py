"""Recurrent cells for many small networks at once: every parameter has a leading axis of M members.

The loop over bins and its gradient are written out, since a graph of a thousand small operations costs more than the
arithmetic; ``tests/unit/test_cells.py`` compares both with ``torch.nn.GRU`` and ``torch.nn.LSTM``.
Shapes: N bins, M members, B windows or rows, H width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _GRU(torch.autograd.Function):
    """Cho et al. 2014, in the form of ``torch.nn.GRU``: r, z and n stacked along the last axis."""

    @staticmethod
    def forward(ctx: Any, drive: Tensor, weight: Tensor, bias_n: Tensor, start: Tensor) -> Tensor:
        bins, width = drive.shape[0], start.shape[-1]
        h = drive.new_empty(bins + 1, *start.shape)
        h[0] = start
        gates = drive.new_empty(bins, *start.shape[:-1], 2 * width)
        new, recurrent = (drive.new_empty(bins, *start.shape) for _ in range(2))
        for t in range(bins):
            from_h = torch.bmm(h[t], weight)
            torch.sigmoid(drive[t, ..., : 2 * width] + from_h[..., : 2 * width], out=gates[t])
            torch.add(from_h[..., 2 * width :], bias_n, out=recurrent[t])
            torch.tanh(torch.addcmul(drive[t, ..., 2 * width :], gates[t, ..., :width], recurrent[t]), out=new[t])
            torch.lerp(new[t], h[t], gates[t, ..., width:], out=h[t + 1])
        ctx.save_for_backward(h, gates, new, recurrent, weight)
        return h[1:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        (grad,) = grads
        h, gates, new, recurrent, weight = ctx.saved_tensors
        bins, members, rows, width = new.shape
        r, z = gates[..., :width], gates[..., width:]
        to_n, to_z = (1 - z) * (1 - new * new), (h[:-1] - new) * z * (1 - z)
        to_r = recurrent * r * (1 - r)
        inner = grad.new_empty(bins, members, rows, 3 * width)  # towards weight · h
        outer_n = torch.empty_like(new)  # towards the drive of n, which r does not scale
        transposed = weight.transpose(1, 2).contiguous()
        back = torch.zeros_like(new[0])
        for t in range(bins - 1, -1, -1):
            back = back + grad[t]
            torch.mul(back, to_n[t], out=outer_n[t])
            torch.mul(outer_n[t], to_r[t], out=inner[t, ..., :width])
            torch.mul(back, to_z[t], out=inner[t, ..., width : 2 * width])
            torch.mul(outer_n[t], r[t], out=inner[t, ..., 2 * width :])
            back = torch.baddbmm(back * z[t], inner[t], transposed)
        return (
            torch.cat((inner[..., : 2 * width], outer_n), -1),
            torch.bmm(_flat(h[:-1]).transpose(1, 2), _flat(inner)),
            inner[..., 2 * width :].sum((0, 2)).unsqueeze(1),
            back,
        )


class _LSTM(torch.autograd.Function):
    """Hochreiter & Schmidhuber 1997 with a forget gate, as ``torch.nn.LSTM``: i, f, g and o along the last axis."""

    @staticmethod
    def forward(ctx: Any, drive: Tensor, weight: Tensor, start: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        bins, width = drive.shape[0], start.shape[-1]
        h, c = (drive.new_empty(bins + 1, *start.shape) for _ in range(2))
        h[0], c[0] = start, cell
        gates = drive.new_empty(bins, *start.shape[:-1], 4 * width)
        for t in range(bins):
            raw = torch.baddbmm(drive[t], h[t], weight)
            torch.sigmoid(raw, out=gates[t])
            torch.tanh(raw[..., 2 * width : 3 * width], out=gates[t, ..., 2 * width : 3 * width])
            i, f, g, o = gates[t].chunk(4, -1)
            torch.addcmul(f * c[t], i, g, out=c[t + 1])
            torch.mul(o, torch.tanh(c[t + 1]), out=h[t + 1])
        ctx.save_for_backward(h, c, gates, weight)
        return h[1:], c[1:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        grad, grad_c = grads
        h, c, gates, weight = ctx.saved_tensors
        width = h.shape[-1]
        raw = torch.empty_like(gates)
        transposed = weight.transpose(1, 2).contiguous()
        back, back_c = torch.zeros_like(h[0]), torch.zeros_like(c[0])
        for t in range(len(gates) - 1, -1, -1):
            i, f, g, o = gates[t].chunk(4, -1)
            squashed = torch.tanh(c[t + 1])
            back = back + grad[t]
            back_c = back_c + grad_c[t] + back * o * (1 - squashed * squashed)
            torch.mul(back_c * g, i * (1 - i), out=raw[t, ..., :width])
            torch.mul(back_c * c[t], f * (1 - f), out=raw[t, ..., width : 2 * width])
            torch.mul(back_c * i, 1 - g * g, out=raw[t, ..., 2 * width : 3 * width])
            torch.mul(back * squashed, o * (1 - o), out=raw[t, ..., 3 * width :])
            back_c = back_c * f
            back = torch.bmm(raw[t], transposed)
        return raw, torch.bmm(_flat(h[:-1]).transpose(1, 2), _flat(raw)), back, back_c


def _flat(x: Tensor) -> Tensor:
    """(N, M, B, F) as (M, N·B, F)."""
    return x.transpose(0, 1).flatten(1, 2)


GATES = {"gru": 3, "lstm": 4}
"""Blocks of width H in the drive of each cell."""


def scan(cell: str, drive: Tensor, weight: Tensor, bias_n: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """The cell over all bins of a stretch.

    Args:
        cell: ``gru`` or ``lstm``.
        drive: (N, M, B, 3H or 4H) input · weights + biases, gates in the order of ``torch.nn``.
        weight: (M, H, 3H or 4H) from the state.
        bias_n: (M, 1, H) bias of n inside its gate; GRU only.
        state: (M, B, H), LSTM: (M, B, 2H) output and cell.

    Returns:
        Outputs (N, M, B, H) and the state after the last bin.
    """
    if cell == "gru":
        assert bias_n is not None
        h = _apply(_GRU, drive, weight, bias_n, state)
        return h, h[-1]
    start, memory = state.chunk(2, -1)
    h, c = _apply(_LSTM, drive, weight, start.contiguous(), memory.contiguous())
    return h, torch.cat((h[-1], c[-1]), -1)


def _apply(function: Any, *arguments: Tensor) -> Any:
    return function.apply(*arguments)
