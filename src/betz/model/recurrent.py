"""A recurrent network from signals to behavior, many members at once; one forward for training and for streams."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from betz.model.cells import GATES, scan


class RecurrentNetwork(nn.Module):
    """Linear read-in, one GRU or LSTM layer, linear read-out; M independent members with parameters of their own.

    Args:
        cell: ``gru`` or ``lstm``.
        members, channels, width, columns: M, C, H, K.
        generator: of the initial values, uniform in ±1/√(fan-in) as in ``torch.nn``.
    """

    def __init__(
        self, cell: str, *, members: int, channels: int, width: int, columns: int, generator: torch.Generator
    ) -> None:
        super().__init__()

        def draw(fan: int, *shape: int) -> nn.Parameter:
            return nn.Parameter((2 * torch.rand(*shape, generator=generator) - 1) / fan**0.5)

        gates = GATES[cell] * width
        self.cell, self.width = cell, width
        self.read_in, self.read_in_bias = draw(channels, members, channels, width), draw(channels, members, 1, width)
        self.drive, self.drive_bias = draw(width, members, width, gates), draw(width, members, 1, gates)
        self.recurrent = draw(width, members, width, gates)
        self.bias_n = draw(width, members, 1, width) if cell == "gru" else None
        self.read_out = draw(width, members, width, columns)
        self.read_out_bias = nn.Parameter(torch.zeros(members, 1, columns))

    @property
    def state_width(self) -> int:
        """Numbers that a member keeps of one row between bins."""
        return self.width * (2 if self.cell == "lstm" else 1)

    def forward(self, x_NMBC: Tensor, state_MBS: Tensor, *, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Outputs (N, M, B, K) and the state after the last bin.

        Args:
            x_NMBC: z-scored signals.
            state_MBS: zeros at the start of a stretch.
            keep: (N, M, B, H) factors of the cell's outputs before the read-out (dropout in training).
        """
        out_NMBH, state = scan(self.cell, self._drive(x_NMBC), self.recurrent, self.bias_n, state_MBS)
        return self._read_out(out_NMBH if keep is None else out_NMBH * keep), state

    def with_states(self, x_NMBC: Tensor, state_MBS: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (N, M, B, K), and the states (N + 1, M, B, H) before the first and after each bin; GRU only."""
        assert self.cell == "gru"
        out_NMBH, _ = scan(self.cell, self._drive(x_NMBC), self.recurrent, self.bias_n, state_MBS)
        return self._read_out(out_NMBH), torch.cat((state_MBS[None], out_NMBH))

    def _drive(self, x_NMBC: Tensor) -> Tensor:
        bins, members, rows, _ = x_NMBC.shape
        flat = x_NMBC.transpose(0, 1).flatten(1, 2)
        read = torch.baddbmm(self.read_in_bias, flat, self.read_in)
        drive = torch.baddbmm(self.drive_bias, read, self.drive)
        return drive.view(members, bins, rows, -1).transpose(0, 1).contiguous()

    def _read_out(self, out_NMBH: Tensor) -> Tensor:
        bins, members, rows, _ = out_NMBH.shape
        values = torch.baddbmm(self.read_out_bias, out_NMBH.transpose(0, 1).flatten(1, 2), self.read_out)
        return values.view(members, bins, rows, -1).transpose(0, 1)

    def start(self, rows: int) -> Tensor:
        """The state (M, B, S) of fresh rows."""
        return torch.zeros(len(self.read_in), rows, self.state_width)
