"""Closed-form decodes of a calibration: ridge at several strengths for behavior, shifted copies of it, and speed.

Everything comes from sums over contiguous parts ("atoms") of the calibration, so a fit on any union of them, and its
cross-validation inside that union, costs no pass over the data; another minute adds its atoms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from betz.decode.closed_form import Segments, blocks
from betz.model.generalist import AUXILIARY, BANK, FILTERS, HISTORY_FROM, IDENTITY, RESIDUALS, SPEED, STRENGTHS

Float32 = NDArray[np.float32]
Float = NDArray[np.float64]

RIDGES = (0.02, 0.1, 0.5, 2.5)
"""Strengths, per bin of z-scored features."""
AUXILIARY_RIDGES = (1, 2)
"""Which of them decode the auxiliary targets."""
RESIDUAL_RIDGES = (1, 2, 3)
PAST_MS, LONG_PAST_MS, AHEAD_MS, LEAK_S = 130.0, 320.0, 130.0, 1.0
TARGETS = 1 + AUXILIARY
CLIP = 8.0
INNER_FOLDS = 3

assert len(RIDGES) == STRENGTHS
assert len(RESIDUAL_RIDGES) == RESIDUALS


@dataclass(frozen=True, eq=False)
class BankFit:
    """Closed-form decodes of one group of dimensions, from one set of atoms.

    Args:
        columns: which dimensions of the calibration.
        weights, offset: (F, D, BANK), (D, BANK) from features to decodes in calibration units.
        speed, speed_offset: (F, SPEED), (SPEED,).
        r2: (D, BANK) cross-validated inside the atoms, at least −1.
        skip, skip_alone: the best column, with history and without.
        identity: (C, D, IDENTITY) of each channel.
        history: whether history was used.
        bins: labelled bins.
        center, scale: (D,) of the behavior.
    """

    columns: tuple[int, ...]
    weights: Float32
    offset: Float32
    speed: Float32
    speed_offset: Float32
    r2: Float32
    skip: int
    skip_alone: int
    identity: Float32
    history: bool
    bins: int
    center: Float
    scale: Float

    def decodes(self, features_NF: Float32) -> tuple[Float32, Float32]:
        """Closed-form decodes (N, D, BANK) and speed (N, SPEED) in calibration units."""
        flat = features_NF @ self.weights.reshape(len(self.weights), -1)
        values = flat.reshape(len(features_NF), len(self.columns), BANK) + self.offset
        return np.clip(values, -CLIP, CLIP), features_NF @ self.speed + self.speed_offset


def augmented(z_NK: Float, segments: Segments, bin_s: float) -> Float:
    """(N, TARGETS · K + 2) behavior, its auxiliary targets, and its speed now and a little ago; nothing crosses a gap.

    Args:
        z_NK: behavior in calibration units, without NaN inside the segments.
        segments: (first bin, end bin).
        bin_s: bin width in seconds.
    """
    from scipy.signal import lfilter

    shifts = [round(ms / (1000 * bin_s)) for ms in (PAST_MS, LONG_PAST_MS, -AHEAD_MS)]
    keep = np.exp(-bin_s / LEAK_S)
    out = np.zeros((len(z_NK), TARGETS * z_NK.shape[1] + 2))
    for a, b in segments:
        z = z_NK[a:b]
        leaky = 2 * lfilter([bin_s], [1, -keep], z, axis=0)
        speed = np.sqrt((z**2).mean(axis=1, keepdims=True))
        parts = [z, *(_shifted(z, s) for s in shifts), leaky, speed, _shifted(speed, shifts[0])]
        out[a:b] = np.concatenate(parts, axis=1)
    return out


def _shifted(z: Float, bins: int) -> Float:
    """z of ``bins`` earlier (below 0: later); the ends repeat."""
    return z[np.clip(np.arange(len(z)) - bins, 0, len(z) - 1)]


def solve(gram: Float32, cross: Float32, strength: float) -> Float32:
    """(gram + strength · I)⁻¹ cross."""
    from scipy.linalg import cho_factor, cho_solve

    loaded = gram.copy()
    loaded[np.diag_indices_from(loaded)] += np.float32(strength)
    factor = cho_factor(loaded, lower=True, overwrite_a=True, check_finite=False)
    return np.asarray(cho_solve(factor, cross, check_finite=False))


class Blocks:
    """Sums of a calibration over its atoms, from which any fit follows.

    Args:
        features_NF: z-scored features.
        y_NK: behavior; NaN = not known.
        groups: columns of each group of dimensions.
        segments: (first bin, end bin); nothing crosses them.
        bin_s: bin width in seconds.
        atoms: number of contiguous parts.
        history: by group (its index), weights (F, TARGETS, D) of earlier sessions.
        counted: (N,) bins that may be learned from (default: all).
    """

    def __init__(
        self,
        features_NF: Float32,
        y_NK: Float,
        groups: Sequence[tuple[int, ...]],
        segments: Segments,
        *,
        bin_s: float,
        atoms: int,
        history: Mapping[int, Float32] | None = None,
        counted: NDArray[np.bool_] | None = None,
    ) -> None:
        self.features, self.groups, self.bin_s = features_NF, list(groups), bin_s
        self.history = dict(history or {})
        bins = len(features_NF)
        self.atom = np.full(bins, -1)
        for index, part in enumerate(blocks(segments, atoms)):
            for a, b in part:
                self.atom[a:b] = index
        self.atoms = atoms
        self.labelled = (self.atom >= 0) & np.isfinite(y_NK).all(axis=1)
        if counted is not None:
            self.labelled &= counted
        known = y_NK[self.labelled]
        self.center = known.mean(axis=0)
        sd = known.std(axis=0)
        self.scale = np.where(sd > 1e-9 * np.maximum(1, np.abs(self.center)), sd, 1.0)
        z_NK = (_filled(y_NK, segments) - self.center) / self.scale
        self.spans: list[tuple[int, int]] = []
        targets: list[Float] = []
        at = 0
        for group in self.groups:
            made = augmented(z_NK[:, list(group)], segments, bin_s)
            self.spans.append((at, at + made.shape[1]))
            targets.append(made)
            at += made.shape[1]
        self._sum(np.concatenate(targets, axis=1).astype(np.float32), z_NK)

    def _sum(self, targets_NT: Float32, z_NK: Float) -> None:
        width, columns = self.features.shape[1], targets_NT.shape[1]
        self.gram = np.zeros((self.atoms, width, width), np.float32)
        self.cross = np.zeros((self.atoms, width, columns), np.float32)
        self.sum_x = np.zeros((self.atoms, width))
        self.sum_t = np.zeros((self.atoms, columns))
        self.square_t = np.zeros((self.atoms, columns))
        self.number = np.zeros(self.atoms)
        shape = {g: (self.atoms, len(self.groups[g])) for g in self.history}
        self.decoded = {g: [np.zeros(s) for _ in range(3)] for g, s in shape.items()}  # Σh, Σh², Σh·z
        for a in range(self.atoms):
            rows = np.flatnonzero(self.labelled & (self.atom == a))
            x, t = self.features[rows], targets_NT[rows]
            self.gram[a], self.cross[a] = x.T @ x, x.T @ t
            self.sum_x[a], self.sum_t[a] = x.sum(axis=0, dtype=np.float64), t.sum(axis=0, dtype=np.float64)
            self.square_t[a], self.number[a] = (t.astype(np.float64) ** 2).sum(axis=0), len(rows)
            for g, sums in self.decoded.items():
                h, z = (x @ self.history[g][:, 0]).astype(np.float64), z_NK[rows][:, list(self.groups[g])]
                sums[0][a], sums[1][a], sums[2][a] = h.sum(axis=0), (h**2).sum(axis=0), (h * z).sum(axis=0)

    def fit(self, atoms: Sequence[int] | NDArray[np.int64] | None = None) -> list[BankFit]:
        """Closed-form decodes of every group from some atoms (default: all)."""
        used = np.arange(self.atoms) if atoms is None else np.asarray(atoms)
        used = used[self.number[used] > 0]
        return _Fit(self, used).groups()


def _filled(y_NK: Float, segments: Segments) -> Float:
    """NaN inside each segment interpolated, so that shifted copies exist; such bins are not learned from."""
    if np.isfinite(y_NK).all():
        return y_NK
    out = y_NK.copy()
    for a, b in segments:
        for k in range(y_NK.shape[1]):
            known = np.isfinite(y_NK[a:b, k])
            if not known.any():
                out[a:b, k] = np.nanmean(y_NK[:, k])
            elif not known.all():
                out[a:b, k] = np.interp(np.arange(b - a), np.flatnonzero(known), y_NK[a:b, k][known])
    return np.where(np.isfinite(out), out, 0.0)


class _Fit:
    """One fit of a :class:`Blocks` on some of its atoms."""

    def __init__(self, blocks: Blocks, atoms: NDArray[np.int64]) -> None:
        self.blocks = blocks
        parts = [p for p in np.array_split(atoms, INNER_FOLDS) if len(p)]
        self.number = float(blocks.number[atoms].sum())
        self.mean_t = blocks.sum_t[atoms].sum(axis=0) / self.number
        self.folds = [self._moments(part) for part in parts]
        self.gram = np.add.reduce([f[0] for f in self.folds])
        self.cross = np.add.reduce([f[1] for f in self.folds])
        self.square = np.add.reduce([f[2] for f in self.folds])
        self.residual: dict[int, tuple[float, Float, int]] = {}  # group -> gain, mean of h, first column
        self._inner = [[*f, None] for f in self.folds]
        self._add_residuals(atoms, parts)
        self.weights = [solve(self.gram, self.cross, r * self.number) for r in RIDGES]
        self._cross_validate()

    def _moments(self, part: NDArray[np.int64]) -> tuple[Float32, Float32, Float, float]:
        b, m = self.blocks, self.mean_t
        number = float(b.number[part].sum())
        sum_x, sum_t = b.sum_x[part].sum(axis=0), b.sum_t[part].sum(axis=0)
        cross = (b.cross[part].sum(axis=0) - np.outer(sum_x, m)).astype(np.float32)
        square = b.square_t[part].sum(axis=0) - 2 * m * sum_t + number * m * m
        return b.gram[part].sum(axis=0), cross, square, number

    def _add_residuals(self, atoms: NDArray[np.int64], parts: Sequence[NDArray[np.int64]]) -> None:
        """Columns for what the decode by history leaves unexplained, z − gain · h, of each group that has one."""
        b = self.blocks
        crosses = [[f[1]] for f in self.folds]
        squares = [[f[2]] for f in self.folds]
        self._history_parts: dict[int, list[tuple[Float32, Float, Float]]] = {}
        at = self.cross.shape[1]
        for g, (sum_h, square_h, mixed) in b.decoded.items():
            first, dims = b.spans[g][0], len(b.groups[g])
            mean_z = self.mean_t[first : first + dims]
            total_h = sum_h[atoms].sum(axis=0)
            mean_h = total_h / self.number
            covariance = (mixed[atoms].sum(axis=0) - mean_z * total_h).sum()
            gain = max(0.0, float(covariance / (square_h[atoms].sum() + 1e-6)))
            kept = []
            for k, part in enumerate(parts):
                gram, cross, square, number = self.folds[k]
                of_h, of_z = sum_h[part].sum(axis=0), b.sum_t[part].sum(axis=0)[first : first + dims]
                sum_x = b.sum_x[part].sum(axis=0)
                with_x = (gram @ b.history[g][:, 0] - np.outer(sum_x, mean_h)).astype(np.float32)
                with_z = mixed[part].sum(axis=0) - mean_z * of_h - mean_h * of_z + number * mean_z * mean_h
                own = square_h[part].sum(axis=0) - 2 * mean_h * of_h + number * mean_h**2
                crosses[k].append(cross[:, first : first + dims] - gain * with_x)
                squares[k].append(square[first : first + dims] - 2 * gain * with_z + gain**2 * own)
                kept.append((with_x, with_z, own))
            self._history_parts[g] = kept
            self.residual[g] = (gain, mean_h, at)
            at += dims
        self.fold_cross = [np.concatenate(c, axis=1) for c in crosses]
        self.fold_square = [np.concatenate(s) for s in squares]
        self.cross, self.square = np.add.reduce(self.fold_cross), np.add.reduce(self.fold_square)

    def _cross_validate(self) -> None:
        """Σ decode · target and Σ decode², of held-out folds, by strength and column."""
        columns = self.cross.shape[1]
        self.mixed, self.own = np.zeros((STRENGTHS, columns)), np.zeros((STRENGTHS, columns))
        b = self.blocks
        shape = {g: (STRENGTHS, len(b.groups[g])) for g in self.residual}
        self.joint = {g: (np.zeros(s), np.zeros(s)) for g, s in shape.items()}
        for k, (gram, _, _, number) in enumerate(self.folds):
            for j, ridge in enumerate(RIDGES):
                rest = self.number - number
                if rest <= 0:
                    continue
                w = solve(self.gram - gram, self.cross - self.fold_cross[k], ridge * rest)
                seen = gram @ w
                self.mixed[j] += (w * self.fold_cross[k]).sum(axis=0)
                self.own[j] += (w * seen).sum(axis=0)
                for g, (gain, _, at) in self.residual.items():
                    dims, first = len(b.groups[g]), b.spans[g][0]
                    part, (with_x, with_z, own) = w[:, at : at + dims], self._history_parts[g][k]
                    mixed = gain * with_z + (part * self.fold_cross[k][:, first : first + dims]).sum(axis=0)
                    square = gain**2 * own + 2 * gain * (with_x * part).sum(axis=0)
                    self.joint[g][0][j] += mixed
                    self.joint[g][1][j] += square + (part * seen[:, at : at + dims]).sum(axis=0)

    def groups(self) -> list[BankFit]:
        return [self._group(g) for g in range(len(self.blocks.groups))]

    def _group(self, g: int) -> BankFit:
        b = self.blocks
        first, stop = b.spans[g]
        dims, width = len(b.groups[g]), self.gram.shape[0]
        weights, offset = np.zeros((width, dims, BANK), np.float32), np.zeros((dims, BANK))
        r2 = np.zeros((dims, BANK))
        error = 1 - (2 * self.mixed - self.own) / (self.square + 1e-9)  # share that is left, by strength and column
        mean_z = self.mean_t[first : first + dims]
        leak = 2 * b.bin_s / (1 - np.exp(-b.bin_s / LEAK_S))
        at = 0
        for target in range(TARGETS):
            columns = slice(first + target * dims, first + (target + 1) * dims)
            center = self.mean_t[columns] - mean_z * (leak if target == TARGETS - 1 else 1.0)
            for j in range(STRENGTHS) if target == 0 else AUXILIARY_RIDGES:
                gain = np.clip(self.mixed[j, columns].sum() / (self.own[j, columns].sum() + 1e-9), 0, 3)
                weights[:, :, at] = np.float32(gain) * self.weights[j][:, columns]
                offset[:, at] = center
                r2[:, at] = 1 - error[j, columns]
                at += 1
        skip = alone = int(error[:, first : first + dims].sum(axis=1).argmin())
        identity = np.zeros((width, dims, 4), np.float32)
        identity[:, :, 0] = self.cross[:, first : first + dims] / np.float32(self.number)
        identity[:, :, 1] = self.weights[2][:, first : first + dims] * np.sqrt(width)
        identity[:, :, 2] = self.weights[0][:, first : first + dims] * np.sqrt(width)
        if g in self.residual:
            best = self._history(g, weights, offset, r2, identity)
            if r2[:, best].mean() > 1 - error[alone, first : first + dims].mean():
                skip = best
        speed = np.concatenate([self.weights[j][:, stop - 2 : stop] for j in (1, 2)], axis=1)
        return BankFit(
            columns=b.groups[g],
            weights=weights,
            offset=offset.astype(np.float32),
            speed=speed,
            speed_offset=np.tile(self.mean_t[stop - 2 : stop], SPEED // 2).astype(np.float32),
            r2=np.clip(r2, -1, 1).astype(np.float32),
            skip=skip,
            skip_alone=alone,
            identity=by_channel(identity),
            history=g in self.residual,
            bins=int(self.number),
            center=b.center[list(b.groups[g])] + mean_z * b.scale[list(b.groups[g])],
            scale=b.scale[list(b.groups[g])],
        )

    def _history(self, g: int, weights: Float32, offset: Float, r2: Float, identity: Float32) -> int:
        """Fill the columns of history; returns the best one that adds the residual."""
        b = self.blocks
        gain, mean_h, at = self.residual[g]
        dims, first = len(b.groups[g]), b.spans[g][0]
        of_history = b.history[g]
        for target in range(TARGETS):
            weights[:, :, HISTORY_FROM + target] = np.float32(gain) * of_history[:, target]
        identity[:, :, 3] = of_history[:, 0] * np.sqrt(len(of_history))
        square = self.square[first : first + dims] + 1e-6
        r2[:, HISTORY_FROM] = 1 - self.square[at : at + dims] / square
        best = HISTORY_FROM + TARGETS
        for q, j in enumerate(RESIDUAL_RIDGES):
            mixed, own = self.joint[g][0][j], self.joint[g][1][j]
            column = HISTORY_FROM + TARGETS + q
            factor = float(np.clip(mixed.sum() / (own.sum() + 1e-6), 0, 2))
            part = self.weights[j][:, at : at + dims]
            weights[:, :, column] = np.float32(factor) * (np.float32(gain) * of_history[:, 0] + part)
            offset[:, column] = -factor * gain * mean_h
            r2[:, column] = 1 - (self.square[first : first + dims] - 2 * factor * mixed + factor**2 * own) / square
            if r2[:, column].mean() > r2[:, best].mean():
                best = column
        return best


def by_channel(features_FDX: Float32) -> Float32:
    """(C, D, X · FILTERS) of (F, D, X)."""
    features, dims, kinds = features_FDX.shape
    split = features_FDX.reshape(features // FILTERS, FILTERS, dims, kinds)
    return np.ascontiguousarray(split.transpose(0, 2, 3, 1)).reshape(features // FILTERS, dims, kinds * FILTERS)


def without_labels(columns: tuple[int, ...], history_FTD: Float32, center: Float, scale: Float) -> BankFit:
    """The fit of a group whose behavior is known from history only."""
    width, _, dims = history_FTD.shape
    weights = np.zeros((width, dims, BANK), np.float32)
    weights[:, :, HISTORY_FROM : HISTORY_FROM + TARGETS] = history_FTD.transpose(0, 2, 1)
    identity = np.zeros((width, dims, IDENTITY // FILTERS), np.float32)
    identity[:, :, 3] = history_FTD[:, 0] * np.sqrt(width)
    return BankFit(
        columns=columns,
        weights=weights,
        offset=np.zeros((dims, BANK), np.float32),
        speed=np.zeros((width, SPEED), np.float32),
        speed_offset=np.zeros(SPEED, np.float32),
        r2=np.zeros((dims, BANK), np.float32),
        skip=HISTORY_FROM,
        skip_alone=HISTORY_FROM,
        identity=by_channel(identity),
        history=True,
        bins=0,
        center=center,
        scale=scale,
    )
