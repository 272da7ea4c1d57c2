"""Short training of small networks inside a calibration, bounded in time: the only training loop outside ``train``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from betz.decode.closed_form import Segments

WARM_UP = 0.1
"""Share of the steps in which the rate rises."""
CLIP = 1.0
"""Largest norm of a member's gradient."""


@dataclass(frozen=True)
class FitReport:
    """What a training did.

    Args:
        steps, asked: gradient steps taken, and asked for; fewer where the budget ended first.
        seconds: how long they took.
        loss: mean loss of the last tenth of the steps.
    """

    steps: int
    asked: int
    seconds: float
    loss: float


def fit(
    members: Sequence[Tensor],
    loss: Callable[[], Tensor],
    *,
    steps: int,
    rate: float,
    weight_decay: float,
    budget_s: float,
    clock: Callable[[], float] = time.perf_counter,
) -> FitReport:
    """Train M members at once: AdamW, a rate that rises and falls by cosines, gradients clipped member by member.

    The rate follows the larger of step / steps and time / budget, so it has come down whatever ends the training;
    while the budget does not bind, the result does not depend on the machine's speed.

    Args:
        members: parameters with a leading axis of M members.
        loss: draws a batch and gives the loss of each member, (M,).
        steps: gradient steps at most.
        rate, weight_decay: of AdamW; the rate is the peak.
        budget_s: seconds at most (one step may be on its way).
        clock: gives seconds.
    """
    optimizer = torch.optim.AdamW(members, lr=rate, weight_decay=weight_decay)
    begun, step, losses = clock(), 0, list[float]()
    while step < steps and (step == 0 or clock() - begun < budget_s):
        share = max(step / steps, (clock() - begun) / budget_s if step else 0.0)
        for group in optimizer.param_groups:
            group["lr"] = rate * _share_of_rate(min(share, 1.0))
        optimizer.zero_grad()
        each = loss()
        each.sum().backward()  # type: ignore[no-untyped-call]
        _clip(members)
        optimizer.step()
        losses.append(float(each.detach().mean()))
        step += 1
    tail = losses[-max(len(losses) // 10, 1) :]
    return FitReport(step, steps, clock() - begun, sum(tail) / len(tail))


def _share_of_rate(done: float) -> float:
    """One cycle (Smith 2018): 4 % → 100 % in the warm-up, then down to nothing."""
    if done < WARM_UP:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * done / WARM_UP)) / 2
    return (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2


def _clip(members: Sequence[Tensor]) -> None:
    grads = [p.grad for p in members if p.grad is not None]
    square_M = torch.stack([(g**2).flatten(1).sum(1) for g in grads]).sum(0)
    scale_M = (CLIP / (square_M.sqrt() + 1e-6)).clamp(max=1.0)
    for g in grads:
        g.mul_(scale_M.view(-1, *[1] * (g.dim() - 1)))


class TrainingWindows:
    """Random windows of a calibration that cross no gap and no edge, with the bins that count in a loss.

    A window that starts inside a segment knows nothing of what came before: its first bins are not counted. One that
    starts a segment starts as a stream does, and counts from its first bin. Segments shorter than a window are padded.

    Args:
        x_NC: z-scored signals.
        y_NK: z-scored behavior; NaN = not known.
        segments: (first bin, end bin) stretches.
        bins: longest window.
        warm_up_bins: bins that are not counted at the start of a window inside a segment.
        counted_MN: bins that each member may learn from (default: all).
    """

    def __init__(
        self,
        x_NC: NDArray[np.float64],
        y_NK: NDArray[np.float64],
        segments: Segments,
        *,
        bins: int,
        warm_up_bins: int,
        counted_MN: NDArray[np.bool_] | None = None,
    ) -> None:
        self._counted = None if counted_MN is None else torch.from_numpy(counted_MN.astype(np.float32))
        known_NK = np.isfinite(y_NK)
        self.x = torch.from_numpy(x_NC.astype(np.float32))
        self.y = torch.from_numpy(np.where(known_NK, y_NK, 0.0).astype(np.float32))
        self.known = torch.from_numpy(known_NK.astype(np.float32))
        self.bins = min(bins, max(stop - start for start, stop in segments))
        starts = [np.arange(a, max(b - self.bins, a) + 1) for a, b in segments]
        self._start = torch.from_numpy(np.concatenate(starts))
        ends = [np.full(len(s), b) for s, (_, b) in zip(starts, segments, strict=True)]
        self._end = torch.from_numpy(np.concatenate(ends))
        fresh = np.isin(np.concatenate(starts), [a for a, _ in segments])
        self._skip = torch.from_numpy(np.where(fresh, 0, min(warm_up_bins, self.bins // 2)))

    def draw(self, members: int, windows: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Signals (N, M, B, C), behavior (N, M, B, K), and whether it is known and counts (N, M, B, K)."""
        which = torch.randint(0, len(self._start), (members, windows), generator=generator)
        offset = torch.arange(self.bins)[:, None, None]
        at = self._start[which] + offset
        counts = (offset >= self._skip[which]) & (at < self._end[which])
        at = torch.minimum(at, self._end[which] - 1)
        weight = counts.float()
        if self._counted is not None:
            weight = weight * self._counted[torch.arange(members)[None, :, None], at]
        return self.x[at], self.y[at], self.known[at] * weight[..., None]
