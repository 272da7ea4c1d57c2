"""What can be wrong with a recording, found from the data alone; used on import and by ``betz inspect``.

Every function returns what it found; nothing is changed here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.session import BehaviorDim

Float = NDArray[np.float64]
Stretch = tuple[int, int]

BLOCK_S = 10.0
IDLE_SHARE, IDLE_S = 0.05, 60.0
SILENT_S, SILENT_SPIKES = 2.0, 20.0
_TINY_SHARE, _HUGE_SHARE, _TINY_R, _NOISE_R = 0.03, 20.0, 0.5, 0.2


def group_of(name: str) -> str:
    """The group of a behavior dimension: what moves, and whether it is its velocity.

    >>> [group_of(n) for n in ("hand_x", "hand_vy", "emg_FDS", "grip")]
    ['hand', 'hand velocity', 'emg', 'grip']
    """
    stem, _, last = name.rpartition("_")
    if not stem:
        return name
    return f"{stem} velocity" if last in ("vx", "vy", "vz") else stem


def groups(dims: Sequence[BehaviorDim]) -> dict[str, list[int]]:
    """Group name to the indices of its (continuous) dimensions."""
    out: dict[str, list[int]] = {}
    for k, dim in enumerate(dims):
        if dim.kind == "continuous":
            out.setdefault(group_of(dim.name), []).append(k)
    return out


def is_instruction(group: str) -> bool:
    """Whether a group is what the task showed, not what the subject did."""
    return group.split()[0] in ("target", "cue", "goal")


def stretches(mask_N: NDArray[np.bool_]) -> list[Stretch]:
    """(first, end) of each run of True.

    >>> stretches(np.array([True, False, True, True]))
    [(0, 1), (2, 4)]
    """
    edge = np.diff(np.concatenate(([0], mask_N.astype(np.int8), [0])))
    return list(zip(np.flatnonzero(edge == 1).tolist(), np.flatnonzero(edge == -1).tolist(), strict=True))


def spoken(parts: Sequence[Stretch], bin_s: float) -> str:
    """Stretches of bins in minutes, for people: ``12.7–15.3 min, …``."""
    shown = [f"{a * bin_s / 60:.1f}–{b * bin_s / 60:.1f}" for a, b in parts[:5]]
    more = f" and {len(parts) - 5} more" if len(parts) > 5 else ""
    return f"{', '.join(shown)}{more} min"


# ---- behavior


def idle_stretches(values_NK: Float, bin_s: float) -> list[Stretch]:
    """Stretches of at least a minute in which behavior all but stands still.

    A block of 10 s is idle if every dimension's standard deviation is below 5 % of that of the liveliest blocks.

    Args:
        values_NK: movement dimensions of one effector; NaN counts as unknown, not as still.
        bin_s: bin width in seconds.

    Returns:
        (first bin, end bin) of each; the last one ends at N if the recording ends idle.
    """
    size = max(round(BLOCK_S / bin_s), 2)
    starts = list(range(0, len(values_NK) - size + 1, size))
    if len(starts) * BLOCK_S < 2 * IDLE_S:
        return []
    spread = np.array([values_NK[i : i + size].std(axis=0) for i in starts])
    known = np.isfinite(spread)
    lively = np.array([np.quantile(s[k], 0.9) if k.any() else 0.0 for s, k in zip(spread.T, known.T, strict=True)])
    moving = lively > 0
    if not moving.any():
        return []
    idle = np.all(spread[:, moving] < IDLE_SHARE * lively[moving], axis=1)
    found = [(starts[a], len(values_NK) if b == len(starts) else starts[b]) for a, b in stretches(idle)]
    return [(a, b) for a, b in found if (b - a) * bin_s >= IDLE_S]


def idle_by_effector(values_NK: Float, dims: Sequence[BehaviorDim], bin_s: float) -> dict[str, list[Stretch]]:
    """Idle stretches of each effector (hand, cursor, force …); muscles at rest and targets are not looked at."""
    effectors: dict[str, list[int]] = {}
    for group, columns in groups(dims).items():
        name = group.removesuffix(" velocity")
        if name != "emg" and not is_instruction(group):
            effectors.setdefault(name, []).extend(columns)
    found = {name: idle_stretches(values_NK[:, columns], bin_s) for name, columns in effectors.items()}
    return {name: parts for name, parts in found.items() if parts}


def correlation_of_neighbours(column_N: Float) -> float:
    """Correlation of a value with the one before it; near 0 for white noise, NaN for a constant."""
    a, b = column_N[:-1], column_N[1:]
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    if len(a) < 3 or a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def behavior_notes(values_NK: Float, dims: Sequence[BehaviorDim], bin_s: float) -> list[str]:
    """Dimensions that are constant, near-dead, far too large, noise, clipped, or have wild peaks."""
    constant, dead, loud, noise, peaks, clipped = [], [], [], [], [], []
    scale = np.zeros(len(dims))
    for columns in groups(dims).values():
        found = [c[np.isfinite(c)] for c in values_NK[:, columns].T]
        width = np.array([np.subtract(*np.percentile(c, (99, 1))) if c.size else 0.0 for c in found])
        middle = np.median(width)
        scale[columns] = width / middle if len(columns) >= 4 and middle > 0 else 1.0
    for k, dim in enumerate(dims):
        column = values_NK[:, k][np.isfinite(values_NK[:, k])]
        if dim.kind != "continuous" or is_instruction(group_of(dim.name)):
            continue
        if len(column) < 3 or column.min() == column.max():
            constant.append(dim.name)
            continue
        r = correlation_of_neighbours(values_NK[:, k])
        low, high = np.percentile(column, (1, 99))
        if scale[k] < _TINY_SHARE and r < _TINY_R:
            dead.append(f"{dim.name} ({scale[k]:.1%})")
        elif scale[k] > _HUGE_SHARE:
            loud.append(f"{dim.name} ({scale[k]:.0f} times)")
        elif r < _NOISE_R and bin_s <= 0.1:
            noise.append(f"{dim.name} (r = {r:.2f}, {len(np.unique(column))} distinct values)")
        wild = np.count_nonzero((column > high + 20 * (high - low)) | (column < low - 20 * (high - low)))
        if wild and high > low:
            peaks.append(f"{dim.name} ({wild} bins, up to {np.abs(column).max():.4g})")
        for end in (column.min(), column.max()):
            share = float(np.mean(column == end))
            if share > 0.01 and end not in (0.0, np.median(column)):
                clipped.append(f"{dim.name} ({share:.1%} of bins at {end:.4g})")
    told = (
        (constant, "constant behavior"),
        (dead, "near-dead behavior (range as a share of its group's median, and white)"),
        (loud, "behavior of a far larger range than the median of its group, likely artefacts or another gain"),
        (noise, "behavior that looks like noise, neighbouring bins being uncorrelated"),
        (peaks, "peaks more than 20 ranges away from the rest, likely artefacts"),
        (clipped, "values piling up at an extreme, likely clipped"),
    )
    return [f"{what}: {', '.join(names)}" for names, what in told if names]


def implied_bin_s(position_NK: Float, velocity_NK: Float) -> float | None:
    """The time in seconds in which the position changes by the velocity; None where one is not the other's rate.

    Tried with the velocity of the bin, and with the mean of two bins; a fit below r = 0.98 tells nothing.
    """
    step = np.diff(position_NK, axis=0)
    best = (0.98, None)
    for rate in (velocity_NK[1:], velocity_NK[:-1], (velocity_NK[1:] + velocity_NK[:-1]) / 2):
        known = np.isfinite(step).all(axis=1) & np.isfinite(rate).all(axis=1) & rate.any(axis=1)
        a, b = step[known].ravel(), rate[known].ravel()
        if len(a) < 20 or not a.any() or not b.any():
            continue
        keep = np.abs(a) <= np.quantile(np.abs(a), 0.9)  # trial changes are jumps that no velocity explains
        a, b = a[keep], b[keep]
        r = float(a @ b / np.sqrt(max((a @ a) * (b @ b), np.finfo(float).tiny)))
        if r > best[0]:
            best = (r, float(a @ b / (b @ b)))  # type: ignore[assignment]
    return best[1]


def position_velocity_pairs(dims: Sequence[BehaviorDim]) -> list[tuple[str, list[int], list[int]]]:
    """Name, position and velocity columns of each effector that has both (``hand_x`` and ``hand_vx`` …)."""
    index = {dim.name: k for k, dim in enumerate(dims)}
    pairs: dict[str, tuple[list[int], list[int]]] = {}
    for name, k in index.items():
        stem, _, axis = name.rpartition("_")
        if axis in ("x", "y", "z") and f"{stem}_v{axis}" in index:
            position, velocity = pairs.setdefault(stem, ([], []))
            position.append(k)
            velocity.append(index[f"{stem}_v{axis}"])
    return [(stem, *columns) for stem, columns in pairs.items()]


def transients(values_NK: Float) -> NDArray[np.bool_]:
    """(N,) bins whose values are those of neither neighbour: between switches, a held signal has none."""
    both_unknown = np.isnan(values_NK[1:]) & np.isnan(values_NK[:-1])
    changed = np.any((values_NK[1:] != values_NK[:-1]) & ~both_unknown, axis=1)
    out = np.zeros(len(values_NK), dtype=bool)
    out[1:-1] = changed[:-1] & changed[1:]
    return out


def out_of_step(a_N: Float, b_N: Float, bin_s: float) -> tuple[float, float, float] | None:
    """Whether two signals that agree at first stop to: minute at which they part, correlation before and after."""
    size = max(round(60 / bin_s), 2)
    starts = range(0, len(a_N) - size + 1, size)
    r = np.array([_correlation(a_N[i : i + size], b_N[i : i + size]) for i in starts])
    good = r > 0.95
    if len(r) < 5 or not good[0] or good[-1]:
        return None
    last = int(np.flatnonzero(good)[-1])
    before, after = r[: last + 1], r[last + 1 :]
    if good[: last + 1].mean() < 0.8 or len(after) < 2 or np.nanmedian(after) > 0.5:
        return None
    return (last + 1) * size * bin_s / 60, float(np.nanmedian(before)), float(np.nanmedian(after))


def _correlation(a: Float, b: Float) -> float:
    if a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


# ---- signals


def silent_stretches(counts_NC: NDArray[Any], bin_s: float, usable_N: NDArray[np.bool_] | None = None) -> list[Stretch]:
    """Stretches in which no channel has a spike although, at the mean rate, 20 or more and 2 s would be needed."""
    total = counts_NC.sum(axis=1, dtype=np.int64)
    usable = np.ones(len(total), dtype=bool) if usable_N is None else usable_N
    if not usable.any() or not total[usable].any():
        return []
    mean = float(total[usable].mean())
    least = max(SILENT_S / bin_s, SILENT_SPIKES / mean)
    return [(a, b) for a, b in stretches((total == 0) & usable) if b - a >= least]


def rate_notes(counts_NC: NDArray[Any], bin_s: float, usable_N: NDArray[np.bool_] | None = None) -> list[str]:
    """Silence of all channels at once, and population rates that fall or rise along the recording."""
    total = counts_NC.sum(axis=1, dtype=np.int64).astype(np.float64)
    usable = np.ones(len(total), dtype=bool) if usable_N is None else usable_N
    notes = []
    silent = silent_stretches(counts_NC, bin_s, usable)
    if silent:
        seconds = sum(b - a for a, b in silent) * bin_s
        notes.append(
            f"no channel has a spike for {seconds:.0f} s in all ({spoken(silent, bin_s)}): the recording was cut"
        )
        usable = usable.copy()
        for a, b in silent:
            usable[a:b] = False
    size = max(round(30 / bin_s), 1)
    parts = [(i, min(i + size, len(total))) for i in range(0, len(total), size)]
    rates = np.array([total[a:b][usable[a:b]].mean() if usable[a:b].sum() * 2 > b - a else np.nan for a, b in parts])
    known = np.isfinite(rates)
    if known.sum() < 6:
        return notes
    per_s = rates / bin_s / counts_NC.shape[1]
    middle = np.median(rates[known])
    low = known & (rates < 0.3 * middle)
    if low.any() and not low.all():
        usual = middle / bin_s / counts_NC.shape[1]
        notes.append(
            f"the population rate is below 30 % of its median ({usual:.1f} /s a channel) in "
            f"{spoken([(parts[a][0], parts[b - 1][1]) for a, b in stretches(low)], bin_s)}"
        )
    at = np.flatnonzero(known)
    third = len(at) // 3
    first, last = np.median(per_s[at[:third]]), np.median(per_s[at[-third:]])
    if first > 0 and not 0.5 <= last / first <= 2:
        verb = "falls" if last < first else "rises"
        split = max(
            range(third, len(at) - third + 1),
            key=lambda i: abs(rates[at[:i]].mean() - rates[at[i:]].mean()),
            default=third,
        )
        minute = parts[int(at[split])][0] * bin_s / 60
        notes.append(
            f"the population rate {verb} from {first:.1f} to {last:.1f} /s a channel, mostly at {minute:.1f} min: "
            "early and late bins differ"
        )
    return notes


def twin_notes(counts_NC: NDArray[Any], names: Sequence[str]) -> list[str]:
    """Channels that fire in exactly the same bins, as often: one electrode recorded twice, or a cable in common.

    Args:
        counts_NC: counts; channels with fewer than 20 spikes are not compared.
        names: of the channels.
    """
    groups: dict[bytes, list[str]] = {}
    for name, column in zip(names, counts_NC.T, strict=False):
        if column.sum(dtype=np.int64) >= 20:
            groups.setdefault(hashlib.sha256(np.ascontiguousarray(column).tobytes()).digest(), []).append(name)
    twins = [group for group in groups.values() if len(group) > 1]
    if not twins:
        return []
    shown = "; ".join(" = ".join(group[:4]) + (" …" if len(group) > 4 else "") for group in twins[:4])
    return [f"{sum(map(len, twins))} channels have the same counts in every bin as another: {shown}"]


def summed(reasons: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Counts by reason, added up.

    >>> summed([{"a": 1}, {"a": 2, "b": 1}])
    {'a': 3, 'b': 1}
    """
    out: dict[str, int] = {}
    for counts in reasons:
        for reason, number in counts.items():
            out[reason] = out.get(reason, 0) + number
    return out


def pairs_of(edges: Sequence[int], end: int) -> list[Stretch]:
    """Stretches between successive starts, the last one up to ``end``."""
    return list(pairwise([*edges, end]))
