"""The batched cells against torch.nn, outputs and gradients, and continued from a state."""

from __future__ import annotations

import pytest
import torch

from betz.model.cells import GATES, scan

BINS, MEMBERS, ROWS, WIDTH, INPUTS = 7, 3, 4, 5, 6


def parameters(cell: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    gates = GATES[cell] * WIDTH

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    found = {"x": draw(BINS, MEMBERS, ROWS, INPUTS), "w": draw(MEMBERS, INPUTS, gates), "b": draw(MEMBERS, 1, gates)}
    found |= {"r": draw(MEMBERS, WIDTH, gates), "n": draw(MEMBERS, 1, WIDTH)}
    return found | {"s": draw(MEMBERS, ROWS, WIDTH * (2 if cell == "lstm" else 1))}


def ours(cell: str, p: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    drive = torch.einsum("nmbi,mig->nmbg", p["x"], p["w"]) + p["b"]
    return scan(cell, drive, p["r"], p["n"] if cell == "gru" else None, p["s"])


def torchs(cell: str, p: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Every member in a torch.nn module of its own, whose parameters are replaced by ours."""
    outputs, states = [], []
    for m in range(MEMBERS):
        module = (torch.nn.GRU if cell == "gru" else torch.nn.LSTM)(INPUTS, WIDTH).double()
        inner = torch.zeros(GATES[cell] * WIDTH, dtype=torch.float64)
        if cell == "gru":
            inner = torch.cat((inner[: 2 * WIDTH], p["n"][m, 0]))
        values = {"weight_ih_l0": p["w"][m].T, "weight_hh_l0": p["r"][m].T, "bias_ih_l0": p["b"][m, 0]}
        values["bias_hh_l0"] = inner
        start = p["s"][m][None]
        state = start if cell == "gru" else tuple(part.contiguous() for part in start.chunk(2, -1))
        out, last = torch.func.functional_call(module, values, (p["x"][:, m], state))
        outputs.append(out)
        states.append(last[0] if cell == "gru" else torch.cat((last[0][0], last[1][0]), -1))
    return torch.stack(outputs, 1), torch.stack(states)


@pytest.mark.parametrize("cell", GATES)
def test_outputs_and_gradients_are_those_of_torch(cell: str) -> None:
    p = parameters(cell)
    weights = torch.randn(BINS, MEMBERS, ROWS, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = []
    for function in (ours, torchs):
        out, last = function(cell, p)
        loss = (out * weights).sum() + (last**2).sum()
        used = [v for name, v in p.items() if cell == "gru" or name != "n"]
        found.append((out, last, *torch.autograd.grad(loss, used)))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=1e-12)
        assert other.abs().max() > 0


@pytest.mark.parametrize("cell", GATES)
def test_a_stretch_continues_from_its_state(cell: str) -> None:
    p = parameters(cell)
    whole, end = ours(cell, p)
    first, state = ours(cell, {**p, "x": p["x"][:3]})
    rest, last = ours(cell, {**p, "x": p["x"][3:], "s": state})
    assert torch.allclose(torch.cat((first, rest)), whole, atol=1e-14)
    assert torch.allclose(last, end, atol=1e-14)
