"""How derived behavior is made: stretches that a filter may run through, names, units, and delays that add up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import ConfigError, DataError
from betz.core.session import BehaviorDim, Derivation, Series, Session
from betz.core.timegrid import Ticks
from betz.data import filters
from betz.data.filters import Filter, Float

Parameters = tuple[tuple[str, float | str], ...]
ANTI_ALIAS = 0.4
"""Before samples are taken away, the low-pass' cutoff as a share of the new rate."""


def filtered(
    session: Session,
    names: Sequence[str],
    to: Sequence[str] | None,
    method: str,
    make: Callable[[float], Filter],
    name_of: Callable[[str], str],
    unit_of: Callable[[str], str],
    parameters: Parameters = (),
) -> Session:
    """The session with each named dimension filtered, one new series for each series that has some of them."""
    results = _results(session, names, to, name_of)
    made = []
    for series, columns in _by_series(session, names):
        step_ms = 1000 * series.ticks_per_sample / session.grid.tick_hz
        used = make(1000 / step_ms)
        values_MK = np.full((len(series.values), len(columns)), np.nan)
        for which, first, end in stretches(session, series, columns):
            part = series.values[first:end, [columns[k] for k in which]].astype(np.float64)
            values_MK[first:end, which] = used.apply(part)
        dims = tuple(_made(series.dims[k], results, unit_of, method, used.delay * step_ms, parameters) for k in columns)
        made.append(Series(values_MK.astype(series.values.dtype), dims, series.origin_tick, series.ticks_per_sample))
    return session.with_behavior(*made)


def _made(
    source: BehaviorDim,
    results: Mapping[str, str],
    unit_of: Callable[[str], str],
    method: str,
    delay_ms: float,
    parameters: Parameters,
) -> BehaviorDim:
    """The derived dimension: delays add up along a chain, and one acausal step makes all that follow acausal."""
    before = source.derivation
    causal = "acausal" not in method and (before is None or before.causal)
    total = round(delay_ms + (0.0 if before is None else before.group_delay_ms), 9)
    derivation = Derivation(method, (source.name,), causal, total, parameters)
    return BehaviorDim(results[source.name], unit_of(source.unit), derivation=derivation)


def resampled(
    session: Session, names: Sequence[str], rate_hz: float, to: Sequence[str] | None, *, causal: bool
) -> Session:
    """The session with each named dimension at another rate, from the same first tick on."""
    step = session.grid.tick_hz / rate_hz if rate_hz > 0 else 0.0
    if step < 1 or abs(step - round(step)) > 1e-9 * step:
        raise ConfigError(
            f"{rate_hz:g} Hz is not a whole number of ticks at {session.grid.tick_hz} Hz.",
            where=f"resampling of session {session.id}",
            remedy=f"give {session.grid.tick_hz} divided by a whole number",
        )
    ticks_per_new = round(step)
    results = _results(session, names, to, suffix(f"{rate_hz:g}hz"))
    method, made = f"resample_{'causal' if causal else 'acausal'}", []
    for series, columns in _by_series(session, names):
        old = series.ticks_per_sample
        number = -(-len(series.values) * old // ticks_per_new)
        age = np.arange(number, dtype=np.int64) * ticks_per_new  # ticks since the first sample
        used = filters.identity()
        if ticks_per_new > old:
            old_hz = session.grid.tick_hz / old
            used = filters.butterworth(ANTI_ALIAS * rate_hz, old_hz, order=2, causal=causal)
        values_MK = np.full((number, len(columns)), np.nan)
        new_piece = pieces(session, series, age + series.origin_tick)
        old_piece = pieces(session, series, ticks_of(series))
        for which, first, end in stretches(session, series, columns):
            low = used.apply(series.values[first:end, [columns[k] for k in which]].astype(np.float64))
            a, b = np.searchsorted(age, (first * old, end * old if causal else (end - 1) * old + 1))
            rows = np.arange(a, b)[new_piece[a:b] == old_piece[first]]
            values_MK[np.ix_(rows, which)] = _taken(low, age[rows] / old - first, causal=causal)
        hold = float((age % old).mean()) if causal and number else 0.0
        delay_ms = 1000 * (used.delay * old + hold) / session.grid.tick_hz
        dims = tuple(
            _made(series.dims[k], results, same_unit, method, delay_ms, (("rate_hz", float(rate_hz)),)) for k in columns
        )
        made.append(Series(values_MK.astype(series.values.dtype), dims, series.origin_tick, ticks_per_new))
    return session.with_behavior(*made)


def _taken(x_MK: Float, at: Float, *, causal: bool) -> Float:
    """Values at fractional samples: the one before, or on the line to the one after."""
    before = np.floor(at).astype(np.int64)
    if causal:
        return x_MK[before]
    share = (at - before)[:, None]
    return np.asarray(x_MK[before] * (1 - share) + x_MK[np.minimum(before + 1, len(x_MK) - 1)] * share)


# ---- stretches: what a filter may run through


def ticks_of(series: Series) -> Ticks:
    """(M,) tick of each sample."""
    return np.arange(len(series.values), dtype=np.int64) * series.ticks_per_sample + series.origin_tick


def pieces(session: Session, series: Series, ticks: Ticks) -> NDArray[np.int64]:
    """A number for each tick: equal only where no gap and no edge lies between; −1 in a gap.

    Behavior in the session's own bins is cut as its signals are (a sample is a whole bin); other samples are points.
    """
    grid = session.grid
    if (series.ticks_per_sample, series.origin_tick) == (grid.ticks_per_bin, grid.origin_tick):
        piece_N = np.full(session.num_bins + 1, -1, dtype=np.int64)
        for number, (first, end) in enumerate(session.segments):
            piece_N[first:end] = number
        bins = grid.bin_of(ticks)
        return np.asarray(piece_N[np.where((bins >= 0) & (bins < session.num_bins), bins, -1)])
    after = np.searchsorted(session.edges, ticks, side="right")
    if session.valid is None:
        return np.asarray(after)
    interval = np.searchsorted(session.valid.start, ticks, side="right")
    return np.where(session.valid.contains(ticks), interval * (len(session.edges) + 1) + after, -1)


def stretches(session: Session, series: Series, columns: Sequence[int]) -> Iterator[tuple[list[int], int, int]]:
    """(positions in ``columns`` of dimensions that share it, first sample, end) of each stretch of known samples."""
    piece_M = pieces(session, series, ticks_of(series))
    alike: dict[bytes, list[int]] = {}
    for at, k in enumerate(columns):
        alike.setdefault(np.isnan(series.values[:, k]).tobytes(), []).append(at)
    for which in alike.values():
        inside = (piece_M >= 0) & ~np.isnan(series.values[:, columns[which[0]]])
        cut = np.concatenate(([True], (inside[1:] != inside[:-1]) | (piece_M[1:] != piece_M[:-1])))[: len(inside)]
        starts = np.flatnonzero(cut)
        for first, end in zip(starts.tolist(), [*starts[1:].tolist(), len(inside)], strict=True):
            if inside[first]:
                yield which, first, end


# ---- names and units


def continuous(session: Session, names: Sequence[str]) -> tuple[BehaviorDim, ...]:
    """The named dimensions, none of them discrete."""
    dims = session.dims_of(names)
    discrete = [d.name for d in dims if d.kind == "discrete"]
    if discrete:
        raise DataError(
            f"{', '.join(discrete)} has classes, which cannot be filtered.",
            where=f"session {session.id}",
            remedy="name continuous dimensions",
        )
    return dims


def _by_series(session: Session, names: Sequence[str]) -> Iterator[tuple[Series, list[int]]]:
    """Each series that has some of the named dimensions, and their columns in the order of the names."""
    for series in session.behavior:
        place = {dim.name: k for k, dim in enumerate(series.dims)}
        columns = [place[name] for name in names if name in place]
        if columns:
            yield series, columns


def together(session: Session, names: Sequence[str]) -> Series:
    """One series of the named dimensions, from series with the same sampling."""
    found = list(_by_series(session, names))
    first = found[0][0]
    if len({(s.origin_tick, s.ticks_per_sample, len(s.values)) for s, _ in found}) > 1:
        raise DataError(
            f"{', '.join(names)} are not sampled together.",
            where=f"session {session.id}",
            remedy="bring them to one rate first, e.g. resample_causal(session, names, rate_hz=100)",
        )
    values = np.concatenate([s.values[:, columns] for s, columns in found], axis=1)
    dims = tuple(s.dims[k] for s, columns in found for k in columns)
    return Series(values, dims, first.origin_tick, first.ticks_per_sample)


def _results(
    session: Session, names: Sequence[str], to: Sequence[str] | None, name_of: Callable[[str], str]
) -> dict[str, str]:
    """Name of each dimension's result."""
    continuous(session, names)
    if isinstance(to, str) or (to is not None and len(to) != len(names)):
        raise ConfigError(
            f"to={to!r} does not name the results of {len(names)} dimensions.",
            where=f"session {session.id}",
            remedy="give a list with one name each",
        )
    made = [name_of(name) for name in names] if to is None else list(to)
    check_names(session, made)
    return dict(zip(names, made, strict=True))


def check_names(session: Session, made: Sequence[str]) -> None:
    """Raise :class:`DataError` where a result's name is taken or given twice."""
    taken = sorted({name for name in made if made.count(name) > 1} | ({d.name for d in session.dims} & set(made)))
    if taken:
        raise DataError(
            f"there is a behavior {', '.join(map(repr, taken))} already.",
            where=f"session {session.id}",
            remedy="give other names with to=[…]",
        )


def suffix(word: str) -> Callable[[str], str]:
    """Names with a word after them."""
    return lambda name: f"{name}_{word}"


def same_unit(unit: str) -> str:
    """The unit as it is."""
    return unit
