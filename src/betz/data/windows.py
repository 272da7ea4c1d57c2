"""Random windows of the sessions of a store: a window is an index, read from memory maps when it is needed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

    parts: tuple[tuple[slice, Array], ...]
    behavior_NK: Array | None
    columns: list[int] | slice


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
        DataError: there is no window of this length, or a behavior is missing or has different units.
    """

    def __init__(self, store: Store, *, bins: int, ids: Sequence[str], behavior: Sequence[str] | None = None) -> None:
        if isinstance(ids, str) or isinstance(behavior, str):
            raise DataError("ids and behavior are lists of names, not one string.", where="windows", remedy="use [...]")
        if bins < 1:
            raise DataError(f"a window of {bins} bins is impossible.", where="windows", remedy="at least 1 bin")
        self.bins, self.ids = int(bins), tuple(ids)
        self.behavior = None if behavior is None else tuple(behavior)
        self.dims: tuple[BehaviorDim, ...] = ()
        self._store, self._opened = store, OrderedDict[int, _Open]()
        self._layout: list[tuple[str, float, int]] = []  # channel hash, bin width, channels
        pieces = [np.empty((0, 3), np.int64)]
        for number, id in enumerate(self.ids):
            manifest, frame = store.reading(id, lambda found, _: (found, frame_of(found)))
            self._describe(manifest, frame.bin_ms)
            fits = [(number, i, j - self.bins + 1) for i, j in frame.segments if j - i >= self.bins]
            pieces.append(np.array(fits, np.int64).reshape(-1, 3))
        self._number, self._first, self._stop = np.concatenate(pieces).T.copy()  # stop: after the last start
        self._reach = np.concatenate(([0], np.cumsum(self._stop - self._first)))
        self.per_session = np.bincount(
            self._number, weights=self._stop - self._first, minlength=len(self.ids)
        ).astype(np.int64)  # fmt: skip
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
        first = self._source(numbers[0]) if numbers else None
        channels = self._layout[numbers[0]][2] if numbers else 0
        dtype = first.parts[0][1].dtype if first and len(first.parts) == 1 else np.dtype(np.float32)
        signals = np.empty((len(draws), self.bins, channels), dtype)
        wanted = None if self.behavior is None else np.empty((len(draws), self.bins, len(self.behavior)), np.float32)
        for number in numbers:
            rows = np.flatnonzero(draws[:, 0] == number)
            source, starts = self._source(number), draws[rows, 1].tolist()
            for columns, array_NC in source.parts:
                _gather(signals if len(source.parts) == 1 else signals[:, :, columns], array_NC, rows, starts)
            if wanted is not None and source.behavior_NK is not None:
                _gather(wanted, source.behavior_NK, rows, starts, source.columns)
        return signals, wanted

    def _checked(self, draws: Draws) -> Draws:
        """The draws, if each lies inside one stretch."""
        found = np.asarray(draws)
        if found.ndim != 2 or found.shape[1] != 2 or found.dtype.kind not in "iu":
            raise DataError(f"draws are {found.dtype} {found.shape}, not (n, 2) integers.", where="windows")
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
            for what, one, other in zip(
                ("channels", "bin widths"), self._layout[numbers[0]], self._layout[number], strict=False
            ):
                if one != other:
                    raise DataError(
                        f"sessions {self.ids[numbers[0]]!r} and {self.ids[number]!r} have different {what}.",
                        where="windows",
                        remedy="read one session's windows at a time, or make windows of like sessions: ids=[…]",
                    )

    def _describe(self, manifest: Manifest, bin_ms: float) -> None:
        """Note the channels and bin width of the next session, and check its behavior dimensions."""
        channels = [Channel(**channel) for channel in manifest["channels"]]
        self._layout.append((channel_hash(channels), bin_ms, len(channels)))
        if self.behavior is None:
            return
        known = {dim.name: dim for series in manifest["behavior"] for dim in dims_of(series)}
        where, has = f"session {manifest['id']}", ", ".join(known) or "no behavior at all"
        missing = [name for name in self.behavior if name not in known]
        if missing or not self.behavior:
            raise DataError(f"no behavior named {', '.join(map(repr, missing))}.", where=where, remedy=f"it has {has}")
        dims = tuple(known[name] for name in self.behavior)
        for one, other in zip(self.dims, dims, strict=False):
            if (one.unit, one.kind, one.classes) != (other.unit, other.kind, other.classes):
                raise DataError(
                    f"behavior {one.name!r} is {one.kind} in {one.unit!r} in session {self.ids[0]!r}, "
                    f"{other.kind} in {other.unit!r} here.",
                    where=where,
                    remedy="convert one of them, or make windows of like sessions: ids=[…]",
                )
        self.dims = self.dims or dims

    def _source(self, number: int) -> _Open:
        if number in self._opened:
            self._opened.move_to_end(number)
        else:
            self._opened[number] = self._store.reading(self.ids[number], self._map)
            if len(self._opened) > _MOST_OPEN:
                self._opened.popitem(last=False)
        return self._opened[number]

    def _map(self, manifest: Manifest, folder: Path) -> _Open:
        files, ticks, bins = manifest["files"], int(manifest["grid"]["ticks_per_bin"]), int(manifest["num_bins"])

        def mapped(name: str) -> Array:
            return disk.open_array(folder / f"{name}.npy", files[name])

        def session() -> Any:
            return from_manifest(manifest, {name: mapped(name) for name in files})

        def counted() -> Array:
            whole = session()
            return count_spikes(whole.spikes, whole.grid, whole.num_bins)

        parts, counting = [], sum(channel["kind"] != "power" for channel in manifest["channels"])
        if "counts" in files:
            parts.append((slice(0, counting), mapped("counts")))
        elif "spikes" in files:
            shape = (bins, counting)
            parts.append((slice(0, counting), self._cached(folder, f"cache_{ticks}.npy", "|u1", shape, counted)))
        if "power" in files:
            parts.append((slice(counting, None), mapped("power")))
        if self.behavior is None:
            return _Open(tuple(parts), None, [])
        dims = [dims_of(series) for series in manifest["behavior"]]
        for k, series in enumerate(manifest["behavior"]):
            names = [dim.name for dim in dims[k]]
            on_grid = series["ticks_per_sample"] == ticks and series["origin_tick"] == manifest["grid"]["origin_tick"]
            if on_grid and set(self.behavior) <= set(names) and files[f"behavior_{k}"]["shape"][0] >= bins:
                return _Open(tuple(parts), mapped(f"behavior_{k}"), _columns(names, self.behavior))
        names = [dim.name for each in dims for dim in each]
        binned = self._cached(
            folder,
            f"cache_behavior_{ticks}.npy",
            "<f4",
            (bins, len(names)),
            lambda: session().behavior_of(names).astype(np.float32),
        )
        return _Open(tuple(parts), binned, _columns(names, self.behavior))

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
