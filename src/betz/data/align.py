"""Two clocks: pulses or barcodes that both recorded give the map from one to the other, or a refusal.

The clocks of an amplifier and of a behavior computer start apart and run at different speeds; drifts of 200 ms in 100
minutes are common. Pulses are matched by the intervals between them, so that missing and extra ones do no harm; a map
is fitted to the matched ones, and its residuals have to stay below half a bin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import DataError

Float = NDArray[np.float64]
Pairs = NDArray[np.int64]
KNOT_S = 60.0
_DRIFT = 2e-3
"""Clocks that differ by more than 2,000 ppm are not matched."""
_NEAR_S = 0.02
_INTERVALS, _ANCHORS, _CANDIDATES, _TRIAL = 4, 24, 200, 40
_LEAST = 5


@dataclass(frozen=True, eq=False)
class ClockMap:
    """The map from another clock to the session's.

    Args:
        kind: ``affine``, or ``piecewise`` linear.
        other_s, session_s: its knots on both clocks; beyond them it goes on with the slope of the last two.
        matched: pulses that both clocks have.
        unmatched: pulses that only the session, and only the other clock has.
        residual_ms: root mean square and largest difference of a pulse and the map.
        span_s: first and last matched pulse on the other clock.
    """

    kind: Literal["affine", "piecewise"]
    other_s: Float
    session_s: Float
    matched: int
    unmatched: tuple[int, int]
    residual_ms: tuple[float, float]
    span_s: tuple[float, float]

    def __call__(self, times_s: Float) -> Float:
        """Times of the other clock on the session's, in seconds."""
        segment = np.clip(np.searchsorted(self.other_s, times_s) - 1, 0, len(self.other_s) - 2)
        slope = np.diff(self.session_s) / np.diff(self.other_s)
        return np.asarray(self.session_s[segment] + (times_s - self.other_s[segment]) * slope[segment])

    @property
    def offset_ms(self) -> float:
        """How much later the session's clock is at the first matched pulse."""
        return float(self(np.array([self.span_s[0]]))[0] - self.span_s[0]) * 1000

    @property
    def drift_ms(self) -> float:
        """How much more the offset is at the last matched pulse than at the first."""
        return float(self(np.array([self.span_s[1]]))[0] - self.span_s[1]) * 1000 - self.offset_ms

    def __str__(self) -> str:
        minutes = (self.span_s[1] - self.span_s[0]) / 60
        return (
            f"{self.kind} map of {self.matched} pulses over {minutes:.1f} min: offset {self.offset_ms:.2f} ms, drift "
            f"{self.drift_ms:.2f} ms, residuals {self.residual_ms[0]:.3f} ms (RMS) and {self.residual_ms[1]:.3f} ms "
            f"(largest); unmatched pulses: {self.unmatched[0]} here, {self.unmatched[1]} there"
        )


def clock_map(
    session_s: Float,
    other_s: Float,
    *,
    bin_ms: float,
    kind: Literal["affine", "piecewise"] = "affine",
    codes: tuple[Sequence[int], Sequence[int]] | None = None,
    where: str = "",
) -> ClockMap:
    """The map from another clock to the session's, from pulses that both recorded.

    Args:
        session_s, other_s: ascending times of the pulses on each clock, in seconds.
        bin_ms: of the session: a residual above half of it is refused.
        kind: one line, or a line through knots every minute.
        codes: the number that each pulse (barcode) carries on each clock; they are matched by it.
        where: for the message.

    Raises:
        DataError: too few pulses match, it cannot be told which belong together, or a residual is too large.

    >>> at = np.cumsum(np.random.default_rng(0).uniform(1, 3, 60))
    >>> found = clock_map(at * (1 + 2e-5) + 0.024, at, bin_ms=20)
    >>> round(found.offset_ms, 1), found.matched
    (24.0, 60)
    """
    for name, times in (("the session's", session_s), ("the other", other_s)):
        if np.any(np.diff(times) <= 0) or not np.isfinite(times).all():
            raise DataError(
                f"pulses of {name} clock are not in ascending order: it was restarted, or runs backwards.",
                where=where,
                remedy="align the pieces apart",
            )
    pairs = _by_code(codes) if codes is not None else match_pulses(session_s, other_s, where=where)
    if len(pairs) < _LEAST:
        raise DataError(
            f"only {len(pairs)} pulses of {len(session_s)} here and {len(other_s)} there belong together.",
            where=where,
            remedy=f"at least {_LEAST} are needed; check which lines carry the pulses",
        )
    a, b = session_s[pairs[:, 0]], other_s[pairs[:, 1]]
    knots = _knots(b) if kind == "piecewise" else np.array([b[0], b[-1]])
    fitted = _fit(a, b, knots)
    rest = np.abs(_hats(b, knots) @ (fitted - fitted[0]) - (a - fitted[0])) * 1000
    if rest.max() > bin_ms / 2:
        worst = int(rest.argmax())
        raise DataError(
            f"the {kind} clock map leaves {rest.max():.2f} ms at the pulse at {a[worst]:.3f} s, more than half a bin "
            f"of {bin_ms:g} ms ({np.count_nonzero(rest > bin_ms / 2)} of {len(rest)} pulses do).",
            where=where,
            remedy="try clock = 'piecewise'" if kind == "affine" else "check the pulses, or use wider bins",
        )
    return ClockMap(
        kind,
        knots,
        fitted,
        len(pairs),
        (len(session_s) - len(pairs), len(other_s) - len(pairs)),
        (float(np.sqrt(np.mean(rest**2))), float(rest.max())),
        (float(b[0]), float(b[-1])),
    )


# ---- matching


def match_pulses(session_s: Float, other_s: Float, *, where: str = "") -> Pairs:
    """(M, 2) indices of the pulses that belong together, found by the intervals between them.

    Args:
        session_s, other_s: ascending times in seconds; pulses may be missing or extra on either side.
        where: for the message.

    Raises:
        DataError: two ways to match them are as good (pulses at equal intervals, of which some are missing).
    """
    if min(len(session_s), len(other_s)) < _LEAST:
        return np.empty((0, 2), np.int64)
    seeds = _seeds(session_s, other_s)
    tried = sorted(((len(_follow(session_s, other_s, s, most=_TRIAL)), s) for s in seeds), reverse=True)
    best: Pairs = np.empty((0, 2), np.int64)
    others: list[Pairs] = []
    for seed in dict.fromkeys([*seeds[:2], *(s for _, s in tried[:_ANCHORS])]):
        pairs = _follow(session_s, other_s, seed)
        if len(pairs) > len(best):
            others.append(best)
            best = pairs
        else:
            others.append(pairs)
    shift = np.median(session_s[best[:, 0]] - other_s[best[:, 1]]) if len(best) else 0.0
    rivals = [
        len(p)
        for p in others
        if len(p) > 1 and abs(np.median(session_s[p[:, 0]] - other_s[p[:, 1]]) - shift) > 5 * _NEAR_S
    ]
    whole = len(best) == len(session_s) == len(other_s)
    if rivals and max(rivals) > 0.8 * len(best) and not whole:
        raise DataError(
            f"{len(session_s)} pulses here and {len(other_s)} there can be matched in several ways ({len(best)} and "
            f"{max(rivals)} pulses): they come at equal intervals, and some are missing.",
            where=where,
            remedy="use pulses at irregular intervals or barcodes, or cut both to the pulses that they share",
        )
    return best


def _seeds(a: Float, b: Float) -> list[tuple[int, int]]:
    """Pairs of indices at which a few intervals agree, the best first; and both first and both last ones."""
    seeds = [(0, 0), (len(a) - 1, len(b) - 1)]
    width = min(_INTERVALS, len(a) - 1, len(b) - 1)
    windows_a = np.lib.stride_tricks.sliding_window_view(np.diff(a), width)
    windows_b = np.lib.stride_tricks.sliding_window_view(np.diff(b), width)
    found: list[tuple[float, int, int]] = []
    for j in np.unique(np.linspace(0, len(windows_b) - 1, _ANCHORS).astype(int)).tolist():
        worst = np.abs(windows_a - windows_b[j]).max(axis=1)
        close = np.flatnonzero(worst < 0.005 + _DRIFT * windows_b[j].max())
        nearest = close[np.argsort(worst[close], kind="stable")][: _CANDIDATES // _ANCHORS * 2]
        found += [(float(worst[i]), int(i), j) for i in nearest]
    return seeds + [(i, j) for _, i, j in sorted(found)[:_CANDIDATES]]


def _follow(a: Float, b: Float, seed: tuple[int, int], *, most: int | None = None) -> Pairs:
    """Pairs found from a seed on, forwards and backwards, each next pulse where the last ones lead one to expect it."""
    after = _walk(a, b, seed, 1, most)
    before = _walk(a, b, seed, -1, most)
    return np.array([*reversed(before[1:]), *after], np.int64)


def _walk(a: Float, b: Float, seed: tuple[int, int], step: int, most: int | None) -> list[tuple[int, int]]:
    pairs = [seed]
    stop = len(b) if step > 0 else -1
    if most is not None:
        stop = min(stop, seed[1] + most + 1) if step > 0 else max(stop, seed[1] - most - 1)
    for j in range(seed[1] + step, stop, step):
        i0, j0 = pairs[-1]
        slope = 1.0
        if len(pairs) > 2:
            i1, j1 = pairs[max(len(pairs) - 21, 0)]
            slope = float(np.clip((a[i0] - a[i1]) / (b[j0] - b[j1]), 1 - _DRIFT, 1 + _DRIFT))
        expected = a[i0] + slope * (b[j] - b[j0])
        k = int(np.searchsorted(a, expected))
        near = min((c for c in (k - 1, k) if 0 <= c < len(a)), key=lambda c: abs(a[c] - expected))
        since = abs(b[j] - b[j0])
        allowed = min(_NEAR_S, 0.002 + 5e-4 * since) if len(pairs) > 2 else 0.002 + _DRIFT * since
        if abs(a[near] - expected) <= max(allowed, 0.005) and (near - i0) * step > 0:
            pairs.append((near, j))
    return pairs


def _by_code(codes: tuple[Sequence[int], Sequence[int]]) -> Pairs:
    """Pairs of barcodes with the same number, where it occurs once on each clock."""
    once = [{c for c, n in Counter(side).items() if n == 1} for side in codes]
    place = {code: i for i, code in enumerate(codes[0]) if code in once[0]}
    pairs = [(place[code], j) for j, code in enumerate(codes[1]) if code in place and code in once[1]]
    return np.array(pairs, np.int64).reshape(-1, 2)


# ---- the map


def _knots(b: Float) -> Float:
    """Knots about every minute, each stretch with at least five pulses."""
    number = max(1, min(round((b[-1] - b[0]) / KNOT_S), len(b) // _LEAST))
    return np.asarray(np.quantile(b, np.linspace(0, 1, number + 1)))


def _hats(b: Float, knots: Float) -> Float:
    """(M, Q) weights of the knots at each time: linear between two of them."""
    segment = np.clip(np.searchsorted(knots, b, side="right") - 1, 0, len(knots) - 2)
    share = (b - knots[segment]) / (knots[segment + 1] - knots[segment])
    out = np.zeros((len(b), len(knots)))
    out[np.arange(len(b)), segment] = 1 - share
    out[np.arange(len(b)), segment + 1] = share
    return out


def _fit(a: Float, b: Float, knots: Float) -> Float:
    """Times of the knots on the session's clock, by least squares about the line of slope one."""
    start = a[0] - b[0]
    lead = np.linalg.lstsq(_hats(b, knots), a - b - start, rcond=None)[0]
    return np.asarray(knots + start + lead)


# ---- from lines to pulses


def rising_edges(times_s: Float, level: Float) -> Float:
    """Times at which a line rises through the middle of its range, between two samples by linear interpolation.

    >>> rising_edges(np.arange(6.0), np.array([0, 0, 5, 5, 0, 5.0])).tolist()
    [1.5, 4.5]
    """
    middle = (np.nanmin(level) + np.nanmax(level)) / 2
    at = np.flatnonzero((level[:-1] < middle) & (level[1:] >= middle))
    share = (middle - level[at]) / (level[at + 1] - level[at])
    return np.asarray(times_s[at] + share * (times_s[at + 1] - times_s[at]))


def decode_barcodes(
    edges_s: Float, levels: Sequence[int], *, bits: int = 32, bit_ms: float = 30.0, start_ms: float = 30.0
) -> tuple[Float, list[int]]:
    """Start and number of each barcode on a line that changes level at its edges.

    Args:
        edges_s: ascending times of the changes.
        levels: 0 or 1, the level from each change on.
        bits: of a barcode, the lowest first.
        bit_ms: length of a bit.
        start_ms: from the first rise of a barcode to its first bit.

    Returns:
        Times of the first rise of each barcode, and the numbers.
    """
    length_s = (start_ms + bits * bit_ms) / 1000
    state = np.asarray(levels)
    starts: list[float] = []
    numbers: list[int] = []
    for at in edges_s[state > 0].tolist():
        if starts and at < starts[-1] + length_s:
            continue
        centers = at + (start_ms + (np.arange(bits) + 0.5) * bit_ms) / 1000
        index = np.searchsorted(edges_s, centers, side="right") - 1
        starts.append(at)
        numbers.append(sum(int(state[i]) << k for k, i in enumerate(index.tolist())))
    return np.array(starts), numbers
