"""Random windows of the sessions of a store: a window is an index, read from memory maps when it is needed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import DataError
from betz.core.session import BehaviorDim, Channel, channel_hash
from betz.core.timegrid import count_spikes
from betz.data import disk
from betz.data.manifest import Manifest, dims_of, frame_of, from_manifest

if TYPE_CHECKING:
    from betz.data.store import Store

Array = NDArray[Any]
Draws = NDArray[np.int64]
_MOST_OPEN = 256
"""Sessions held open at a time: each memory map costs a file descriptor, and systems often allow 1024."""


@dataclass(frozen=True, eq=False)
class _Open:
    """Memory maps of one session: counts before power, and the wanted columns of a behavior array."""

    parts: tuple[Array, ...]
    behavior_NK: Array | None
    columns: list[int] | slice


@dataclass(frozen=True, eq=False)
class _Found:
    """What a manifest says of a session that its windows have to know."""

    seal: str
    channels: int
    channel_hash: str
    bin_ms: float
    dims: Mapping[str, BehaviorDim]
    segments: tuple[tuple[int, int], ...]


class Windows:
    """All windows of a fixed number of bins that cross no gap and no edge; made by :meth:`Store.windows`.

    Sessions with spike ticks and behavior of another rate are binned once; the result is kept beside the session as
    a cache file named by the bin width.

    Args:
        store: where the sessions are.
        bins: W, length of a window.
        ids: sessions; their order gives the session numbers.
        behavior: names of K dimensions to read, or None.

    Attributes:
        ids: names of the sessions by number.
        per_session: (S,) int64 number of windows of each session; 0 where all stretches are shorter than a window.
        total: number of windows of all sessions.
        dims: the dimensions of the behavior.

    Raises:
        DataError: there is no window of this length, or a behavior is missing or has different units; when reading,
            that a session was replaced since the windows were made.
    """

    def __init__(self, store: Store, *, bins: int, ids: Sequence[str], behavior: Sequence[str] | None = None) -> None:
        if isinstance(ids, str) or isinstance(behavior, str):
            raise DataError("ids and behavior are lists of names, not one string.", where="windows", remedy="use [...]")
        if bins < 1:
            raise DataError(f"a window of {bins} bins is impossible.", where="windows", remedy="at least 1 bin")
        if behavior is not None and not 0 < len(set(behavior)) == len(behavior):
            raise DataError(f"behavior names must be given once each: {list(behavior)}.", where="windows")
        self.bins, self.ids = int(bins), tuple(ids)
        self.behavior = None if behavior is None else tuple(behavior)
        self.dims: tuple[BehaviorDim, ...] = ()
        self._store, self._opened = store, OrderedDict[int, _Open]()
        self._found: list[_Found] = []
        pieces = [np.empty((0, 3), np.int64)]
        for number, id in enumerate(self.ids):
            found = store.reading(id, _describe)
            self._check_behavior(id, found.dims)
            self._found.append(found)
            fits = [(number, i, j - self.bins + 1) for i, j in found.segments if j - i >= self.bins]
            pieces.append(np.array(fits, np.int64).reshape(-1, 3))
        self._number, self._first, self._stop = np.concatenate(pieces).T.copy()  # stop: after the last start
        self._reach = np.concatenate(([0], np.cumsum(self._stop - self._first)))
        self.per_session = np.bincount(self._number, self._stop - self._first, len(self.ids)).astype(np.int64)
        self.total = int(self._reach[-1])
        if self.total == 0:
            raise DataError(
                f"no window of {self.bins} bins fits between gaps and edges of {len(self.ids)} sessions.",
                where=str(store.path),
                remedy="use shorter windows, or other sessions",
            )

    def draw(self, rng: np.random.Generator, n: int) -> Draws:
        """(n, 2) int64 session number and start bin, every window of every session equally likely."""
        window = rng.integers(0, self.total, size=n)
        segment = np.searchsorted(self._reach, window, side="right") - 1
        return np.stack((self._number[segment], self._first[segment] + window - self._reach[segment]), axis=1)

    def read(self, draws: Draws) -> tuple[Array, NDArray[np.float32] | None]:
        """The signals and the behavior of windows.

        Args:
            draws: (n, 2) session number and start bin, e.g. of :meth:`draw`.

        Returns:
            Signals (n, W, C), uint8 if all channels are counts, else float32, and behavior (n, W, K) float32
            (NaN: not known), or None if none was asked for.

        Raises:
            DataError: a window is not one of these, or the sessions have different channels or bin widths.
        """
        draws = self._checked(draws)
        numbers = np.unique(draws[:, 0]).tolist()
        self._check_alike(numbers)
        parts = self._source(numbers[0]).parts
        dtype = parts[0].dtype if len(parts) == 1 else np.dtype(np.float32)
        signals = np.empty((len(draws), self.bins, self._found[numbers[0]].channels), dtype)
        wanted = None if self.behavior is None else np.empty((len(draws), self.bins, len(self.behavior)), np.float32)
        for number in numbers:
            rows = np.flatnonzero(draws[:, 0] == number)
            source, starts = self._source(number), draws[rows, 1].tolist()
            column = 0
            for array_NC in source.parts:
                _gather(signals[:, :, column : column + array_NC.shape[1]], array_NC, rows, starts)
                column += array_NC.shape[1]
            if wanted is not None and source.behavior_NK is not None:
                _gather(wanted, source.behavior_NK, rows, starts, source.columns)
        return signals, wanted

    def _checked(self, draws: Draws) -> Draws:
        """The draws, if each lies inside one stretch."""
        found = np.asarray(draws)
        if found.ndim != 2 or found.shape[1] != 2 or not len(found) or found.dtype.kind not in "iu":
            raise DataError(f"draws are {found.dtype} {found.shape}, not n ≥ 1 rows of 2 integers.", where="windows")
        found = found.astype(np.int64, copy=False)
        span = int(self._stop.max()) + 1
        key = self._number * span + self._first
        at = np.clip(found[:, 1], -1, span - 1) + found[:, 0] * span
        segment = np.maximum(np.searchsorted(key, at, side="right") - 1, 0)
        good = (self._number[segment] == found[:, 0]) & (found[:, 1] >= self._first[segment])
        good &= found[:, 1] < self._stop[segment]
        if not good.all():
            number, start = found[np.argmin(good)].tolist()
            raise DataError(
                f"no window of {self.bins} bins starts at bin {start} of session number {number}: it would cross "
                "a gap, an edge or the end.",
                where="windows",
                remedy="read windows that draw() gives",
            )
        return found

    def _check_alike(self, numbers: list[int]) -> None:
        for number in numbers[1:]:
            one, other = self._found[numbers[0]], self._found[number]
            what = "channels" if one.channel_hash != other.channel_hash else "bin widths"
            if (one.channel_hash, one.bin_ms) != (other.channel_hash, other.bin_ms):
                raise DataError(
                    f"sessions {self.ids[numbers[0]]!r} and {self.ids[number]!r} have different {what}.",
                    where="windows",
                    remedy="read one session's windows at a time, or make windows of like sessions: ids=[…]",
                )

    def _check_behavior(self, id: str, known: Mapping[str, BehaviorDim]) -> None:
        """Raise :class:`DataError` unless the session has the wanted dimensions, alike those of the first session."""
        missing = [name for name in self.behavior or () if name not in known]
        where = f"session {id}"
        if missing:
            has = ", ".join(known) or "no behavior at all"
            raise DataError(f"no behavior named {', '.join(map(repr, missing))}.", where=where, remedy=f"it has {has}")
        dims = tuple(known[name] for name in self.behavior or ())
        self.dims = self.dims or dims
        for one, other in zip(self.dims, dims, strict=True):
            if (one.unit, one.kind, one.classes) != (other.unit, other.kind, other.classes):
                raise DataError(
                    f"behavior {one.name!r} is {one.kind} in {one.unit!r} in session {self.ids[0]!r}, "
                    f"{other.kind} in {other.unit!r} here.",
                    where=where,
                    remedy="convert one of them, or make windows of like sessions: ids=[…]",
                )

    def _source(self, number: int) -> _Open:
        if number in self._opened:
            self._opened.move_to_end(number)
        else:
            self._opened[number] = self._store.reading(self.ids[number], partial(self._map, self._found[number].seal))
            if len(self._opened) > _MOST_OPEN:
                self._opened.popitem(last=False)
        return self._opened[number]

    def _map(self, seal: str, manifest: Manifest, folder: Path) -> _Open:
        """The memory maps of a session, if it is the one that the windows were made of."""
        if manifest["sha256"] != seal:
            raise DataError(
                "the session was replaced since these windows were made.",
                where=f"session {manifest['id']}",
                remedy="make the windows again: store.windows(…)",
            )
        behavior_NK, columns = (None, slice(None)) if self.behavior is None else self._map_behavior(manifest, folder)
        return _Open(self._map_signals(manifest, folder), behavior_NK, columns)

    def _map_signals(self, manifest: Manifest, folder: Path) -> tuple[Array, ...]:
        """Counts (spike ticks are counted once and cached), then power."""
        measuring = sum(channel["kind"] == "power" for channel in manifest["channels"])
        parts, counting = [], len(manifest["channels"]) - measuring

        def counted() -> Array:
            session = from_manifest(manifest, folder)
            return count_spikes(session.spikes or (), session.grid, session.num_bins)

        if counting and "spikes" in manifest["files"]:
            name, shape = f"cache_counts_{manifest['grid']['ticks_per_bin']}.npy", (manifest["num_bins"], counting)
            parts.append(self._cached(folder, name, "|u1", shape, counted))
        elif counting:
            parts.append(_mapped(manifest, folder, "counts", counting))
        if measuring:
            parts.append(_mapped(manifest, folder, "power", measuring))
        return tuple(parts)

    def _map_behavior(self, manifest: Manifest, folder: Path) -> tuple[Array, list[int] | slice]:
        """Behavior in the session's bins and the wanted columns: a series as it is, if it has them all, or a cache."""
        assert self.behavior is not None
        grid, bins, names = manifest["grid"], manifest["num_bins"], []
        for k, series in enumerate(manifest["behavior"]):
            here = [dim["name"] for dim in series["dims"]]
            on_grid = (
                series["ticks_per_sample"] == grid["ticks_per_bin"] and series["origin_tick"] == grid["origin_tick"]
            )
            if on_grid and set(self.behavior) <= set(here) and manifest["files"][f"behavior_{k}"]["shape"][0] >= bins:
                return _mapped(manifest, folder, f"behavior_{k}", len(here)), _columns(here, self.behavior)
            names += here

        def binned() -> Array:
            return from_manifest(manifest, folder).behavior_of(names).astype(np.float32)

        name, shape = f"cache_behavior_{grid['ticks_per_bin']}.npy", (bins, len(names))
        return self._cached(folder, name, "<f4", shape, binned), _columns(names, self.behavior)

    def _cached(self, folder: Path, name: str, dtype: str, shape: tuple[int, ...], make: Callable[[], Array]) -> Array:
        """The memory-mapped cache file, made anew if it is not there or does not fit."""
        entry = {"dtype": dtype, "shape": shape}
        try:
            return disk.open_array(folder / name, entry)
        except DataError:
            array = make()
        self._store.keep(folder, name, array)
        try:
            return disk.open_array(folder / name, entry)
        except DataError:
            return array


def _describe(manifest: Manifest, _: Path) -> _Found:
    frame, channels = frame_of(manifest), [Channel(**channel) for channel in manifest["channels"]]
    return _Found(
        seal=manifest["sha256"],
        channels=len(channels),
        channel_hash=channel_hash(channels),
        bin_ms=frame.bin_ms,
        dims={dim.name: dim for series in manifest["behavior"] for dim in dims_of(series)},
        segments=frame.segments,
    )


def _mapped(manifest: Manifest, folder: Path, name: str, columns: int) -> Array:
    array, bins = disk.open_array(folder / f"{name}.npy", manifest["files"][name]), manifest["num_bins"]
    if array.ndim != 2 or array.shape[1] != columns or len(array) < bins:
        raise ValueError(f"{name} are {array.shape}, not {(bins, columns)}")
    return array


def _columns(names: list[str], wanted: Sequence[str]) -> list[int] | slice:
    """The places of the wanted names; a slice, which reads faster, if all are wanted in order."""
    return slice(None) if names == list(wanted) else [names.index(name) for name in wanted]


def _gather(
    out: Array, array_NC: Array, rows: Array, starts: list[int], columns: list[int] | slice = slice(None)
) -> None:
    """Copy the window at each start into its row of ``out`` (n, W, columns)."""
    bins = out.shape[1]
    if columns == slice(None):
        for row, start in zip(rows.tolist(), starts, strict=True):
            out[row] = array_NC[start : start + bins]
    else:
        for row, start in zip(rows.tolist(), starts, strict=True):
            out[row] = array_NC[start : start + bins, columns]
