"""The generalist fine-tuned on a calibration: closed forms of one half, learned on the other half, and the reverse.

One network for each group of dimensions and for each set of training folds (all of them, and without each), all trained
as one. The fold networks are needed for held-out predictions; averaged with the full one they also decode better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from betz.core.seeds import SeedTree
from betz.decode.bank import BankFit, Blocks
from betz.decode.fit import fit
from betz.decode.generalist import GeneralistPart, Variant, heads_of
from betz.decode.members import ATOMS_A_FOLD, Calibration
from betz.decode.phases import split_phases
from betz.decode.profiles import certainty_of, channel_numbers, context_of, identity_of
from betz.decode.recurrent_part import counted_bins
from betz.model.generalist import HISTORY_FROM, Generalist, Profiles, chosen

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

STEPS, WINDOWS, WINDOW_STEPS, UNSCORED, DIMS = 90, 4, 112, 24, 2
RATE, SHORT_RATE, SHORT_MINUTES = 1e-3, 4e-4, 1.5
WEIGHT_DECAY = 0.01


@dataclass(frozen=True, eq=False)
class _Half:
    """One job's closed forms of one half, and what is learned from them in the other half."""

    fit: BankFit
    decodes: Float32
    speed: Float32
    y: Float32
    counted: NDArray[np.bool_]


def fine_tuned(
    c: Calibration,
    sums: Blocks,
    full: Sequence[BankFit],
    folds: Sequence[Sequence[BankFit]],
    network: Generalist,
    *,
    history: bool,
    budget_s: float,
) -> tuple[list[GeneralistPart], Float, dict[str, Any]]:
    """A part for each group (the full network, then one a fold), (N, K) held-out predictions, and what training did.

    Args:
        c: the calibration.
        sums, full, folds: its closed forms.
        network: one member, from which all start.
        history: whether the closed forms' history is used.
        budget_s: seconds at most.
    """
    jobs = [(g, k) for g in range(len(c.groups)) for k in range(-1, c.folds)]
    tuned = chosen(network, [0] * len(jobs)).train()
    trainer = _Trainer(c, sums, jobs, tuned, history)
    minutes = float(c.labelled_N.sum() * c.session.grid.bin_s / 60)
    report = fit(
        list(tuned.parameters()),
        trainer.loss,
        steps=STEPS,
        rate=SHORT_RATE if minutes <= SHORT_MINUTES else RATE,
        weight_decay=WEIGHT_DECAY,
        budget_s=budget_s,
    )
    tuned.eval().requires_grad_(False)
    parts, held_out = [], np.full(c.y_NK.shape, np.nan)
    bin_ms, segments = c.session.bin_ms, c.session.segments
    for g, group in enumerate(c.groups):
        at = jobs.index((g, -1))
        variants = [Variant((full[g],), at, history)]
        variants += [Variant((folds[k][g],), at + 1 + k, history) for k in range(c.folds)]
        heads, own = heads_of(variants, tuned, statistics=c.statistics, bin_ms=bin_ms)
        part = GeneralistPart(c.bank, heads, own)
        parts.append(part)
        for k in range(c.folds):
            one = GeneralistPart(c.bank, heads.of([k + 1]), chosen(own, [k + 1]).requires_grad_(False))
            rows = c.fold_N == k
            held_out[np.ix_(rows, list(group))] = one.offline(c.features, c.parts[k], segments)[rows, 0]
    return parts, held_out, asdict(report)


class _Trainer:
    """Draws windows of every job at once."""

    def __init__(
        self, c: Calibration, sums: Blocks, jobs: Sequence[tuple[int, int]], network: Generalist, history: bool
    ) -> None:
        self.c, self.network, self.history, self.step = c, network, history, 0
        stride = c.bank.stride
        self.order, segments = split_phases(c.session.segments, stride)
        self.x = torch.from_numpy(c.features[self.order])
        self.rng = SeedTree(c.seed).generator("fine-tuning")
        self.halves = [self._halves(sums, c, job) for job in jobs]
        longest = max(b - a for a, b in segments)
        self.steps = min(WINDOW_STEPS, longest)
        self.start = np.concatenate([np.arange(a, max(b - self.steps, a) + 1) for a, b in segments])
        self.end = np.concatenate([np.full(max(b - self.steps - a, 0) + 1, b) for a, b in segments])
        fresh = np.isin(self.start, [a for a, _ in segments])
        self.skip = np.where(fresh, 0, min(UNSCORED, self.steps // 4))
        self.choices = [[self._starts(half) for half in pair] for pair in self.halves]

    def _halves(self, sums: Blocks, c: Calibration, job: tuple[int, int]) -> list[_Half]:
        g, k = job
        atoms = np.arange(sums.atoms)
        atoms = atoms[atoms // ATOMS_A_FOLD != k] if k >= 0 else atoms
        middle = len(atoms) // 2
        allowed = counted_bins(c)[k + 1] & c.labelled_N
        made = []
        for own, other in ((atoms[:middle], atoms[middle:]), (atoms[middle:], atoms[:middle])):
            fits = sums.fit(own)[g]
            decodes, speed = fits.decodes(c.features[self.order])
            if not self.history:
                decodes[:, :, HISTORY_FROM:] = 0
            y = (c.y_NK[:, list(c.groups[g])] - fits.center) / fits.scale
            counted = (allowed & np.isin(sums.atom, other))[self.order]
            y = np.where(np.isfinite(y), y, 0)[self.order]
            made.append(_Half(fits, decodes, speed, y.astype(np.float32), counted))
        return made

    def _starts(self, half: _Half) -> NDArray[np.int64]:
        """Windows of which most counts; all windows where none does."""
        total = np.concatenate(([0], np.cumsum(half.counted)))
        inside = total[np.minimum(self.start + self.steps, self.end)] - total[self.start]
        return np.flatnonzero(inside >= 0.6 * inside.max()) if inside.max() else np.arange(len(self.start))

    def loss(self) -> Tensor:
        """(M,) mean squared error of each job on one of its halves."""
        which, self.step = self.step % 2, self.step + 1
        items = [self._draw(pair[which], starts[which]) for pair, starts in zip(self.halves, self.choices, strict=True)]
        decodes, speed, skip, y, counted, features, identity, channel, context, certainty = (
            [item[i] for item in items] for i in range(10)
        )
        members, channels = len(items), len(channel[0])
        profiles = Profiles(
            torch.from_numpy(np.stack(identity))[:, None],
            torch.from_numpy(np.stack(channel))[:, None],
            torch.ones(members, 1, channels),
            torch.from_numpy(np.stack(context))[:, None],
            torch.tensor(certainty, dtype=torch.float32)[:, None],
        )
        weights = self.network.read_in(profiles)[:, 0]
        x = torch.stack(features)  # (M, N · B, F)
        latents = torch.bmm(x, weights).view(members, self.steps, WINDOWS, DIMS, -1).transpose(0, 1)
        inputs = torch.from_numpy(np.stack([np.concatenate(p, -1) for p in zip(decodes, speed, strict=True)], axis=1))
        values, _ = self.network(
            torch.cat((inputs, latents), -1),
            torch.from_numpy(np.stack(skip, axis=1)),
            self.network.modulation(profiles.context),
            torch.full((DIMS, DIMS), 1 / DIMS),
        )
        weight = torch.from_numpy(np.stack(counted, axis=1))[..., None]
        error = ((values - torch.from_numpy(np.stack(y, axis=1))) ** 2 * weight).sum((0, 2, 3))
        each: Tensor = error / (DIMS * weight.sum((0, 2, 3))).clamp(min=1)
        return each

    def _draw(self, half: _Half, starts: NDArray[np.int64]) -> tuple[Any, ...]:
        rng, found = self.rng, half.fit
        size = len(found.columns)
        dims = rng.choice(size, DIMS, replace=size < DIMS)
        drawn = rng.choice(starts, WINDOWS)
        at = self.start[drawn] + np.arange(self.steps)[:, None]
        counted = half.counted[np.minimum(at, len(half.counted) - 1)] & (at < self.end[drawn])
        counted &= np.arange(self.steps)[:, None] >= self.skip[drawn]
        at = np.minimum(at, self.end[drawn] - 1)
        decodes = half.decodes[at][:, :, dims]
        column = found.skip if self.history else found.skip_alone
        speed = np.broadcast_to(half.speed[at][:, :, None], (*at.shape, DIMS, half.speed.shape[1]))
        context = context_of(found, history=self.history, channels=len(self.c.statistics), bin_ms=self.c.session.bin_ms)
        return (
            decodes,
            speed,
            decodes[..., column],
            half.y[at][:, :, dims],
            counted.astype(np.float32),
            self.x[torch.from_numpy(at.reshape(-1))],
            identity_of(found, history=self.history)[:, dims],
            channel_numbers(self.c.statistics, context),
            context[dims],
            certainty_of(found.bins, self.c.session.bin_ms),
        )
