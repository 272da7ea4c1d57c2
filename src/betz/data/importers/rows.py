"""Variables of a file as rows, one a bin: trials put one after the other, sessions that were stacked taken apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import ConfigError
from betz.data.importers.files import ArrayFile, FileError
from betz.data.importers.mapping import BehaviorMapping, Mapping, SignalsMapping

Array = NDArray[Any]
_ORDER = ("time", "channel", "slot", "dim")


class Rows:
    """Reads variables of one session in a file; the signals come first, for they tell how long each trial is.

    Args:
        file: the opened file.
        mapping: of this session.
    """

    def __init__(self, file: ArrayFile, mapping: Mapping) -> None:
        self.file = file
        self.mapping = mapping
        self.where = file.path.name
        self.lengths_M: NDArray[np.int64] | None = None  # bins of each element on a trial axis, also of empty ones
        self.padding = 0
        self._stack: tuple[int, int, int] | None = None  # first row, end and total of stacked variables

    # ---- signals

    def signals(self, signals: SignalsMapping) -> tuple[Array, str]:
        """(N, C) or (N, C, slots) numbers, and the name of their variable."""
        axes = signals.axes
        slots = "slot" in axes and "channel" not in axes
        if len(set(axes)) != len(axes) or "time" not in axes or slots or (signals.columns and "trial" in axes):
            raise ConfigError(
                f"axes = {list(axes)} make no signals.",
                where="[signals]",
                remedy='name "time" and "channel", and "slot" if there is one, in the order of the file; '
                '"trial" for trials in a cell or on an axis of their own',
            )
        if "trial" in axes:
            pieces = self._unpadded(self.trials(signals.variable, axes, "[signals]"))
            self.lengths_M = np.array([len(piece) for piece in pieces], np.int64)
            return self.joined(pieces, signals.variable), signals.variable
        values, label = self.numbers(signals.variable, signals.columns, "[signals]", cut=False)
        values = values if signals.columns else self._oriented(values, axes, label, "[signals]")
        if self.mapping.stacked:
            self._stack = self._place(label, len(values))
        return values, label

    def _place(self, label: str, number: int) -> tuple[int, int, int]:
        """First row, end and total of this session's rows in what holds the stacked variables."""
        if label not in self.mapping.stacked:
            raise ConfigError(
                f"stacked = {list(self.mapping.stacked)} does not name {label!r}, the signals.",
                where="[[sessions]]",
                remedy="name the signals of all sessions, in their order",
            )
        lengths = [number if n == label else len(self.file.load(n)) for n in self.mapping.stacked]
        first = sum(lengths[: self.mapping.stacked.index(label)])
        return first, first + number, sum(lengths)

    # ---- numbers

    def numbers(self, variable: str, columns: Sequence[str], what: str, *, cut: bool = True) -> tuple[Array, str]:
        """A variable, or columns side by side, and how to call it; of a stack only this session's rows."""
        if bool(variable) == bool(columns):
            raise ConfigError(
                f"the mapping names {'both a variable and' if variable else 'neither a variable nor'} columns.",
                where=what,
                remedy="name a variable (.npz, .mat) or columns (.csv)",
            )
        if variable:
            values, label = self.file.load(variable), variable
        else:
            values, label = self._side_by_side(columns), self.file.columns(columns)[0]
        self._check_numbers(values, label, what)
        if cut and self._stack is not None and values.ndim and len(values) == self._stack[2]:
            values = values[self._stack[0] : self._stack[1]]
        return values, label

    def _side_by_side(self, columns: Sequence[str]) -> Array:
        names = self.file.columns(columns)
        loaded = [self.file.load(n).squeeze() for n in names]
        if any(v.ndim != 1 or len(v) != len(loaded[0]) for v in loaded):
            shown = ", ".join(f"{n} {self.file.variables[n]}" for n in names[:6])
            self._refuse(
                "wrong shape", f"columns need one value a bin each: {shown}.", "name a variable instead of columns"
            )
        return np.stack(loaded, axis=1)

    def _check_numbers(self, values: Array, label: str, what: str) -> None:
        if values.dtype.kind not in "biuf":
            self._refuse(
                "unsupported type",
                f"{what} {label!r} is {values.dtype}, not numbers.",
                "correct the name in the mapping, or save it as a plain numeric array",
            )

    def bins(self, variable: str, what: str) -> Array:
        """(N, …) values of a variable with one row a bin, by trials where the signals are."""
        found, several = self.file.values(variable)
        if not several or self.lengths_M is None:
            return _column(self.numbers(variable, (), what)[0])
        pieces = [_column(piece) for piece in found]
        for piece in pieces:
            self._check_numbers(piece, variable, what)
        return self.joined(self._fitting(pieces, variable), variable)

    # ---- trials

    def trials(self, variable: str, axes: Sequence[str], what: str) -> list[Array]:
        """Values of each trial, time first, on a trial axis: of an array, a cell, or a struct array."""
        found, several = self.file.values(variable)
        at = list(axes).index("trial")
        if not several and found[0].ndim == len(axes):
            sliced = list(np.moveaxis(found[0], at, 0))
            if self.lengths_M is None or len(sliced) == len(self.lengths_M):
                found = sliced
        rest = [axis for axis in axes if axis != "trial"]
        for values in found:
            self._check_numbers(values, variable, what)
        return [self._oriented(values, rest, variable, what, trial=i + 1) for i, values in enumerate(found)]

    def behavior(self, part: BehaviorMapping) -> tuple[Array, str]:
        """(N, K) values of a behavior variable, as many rows as bins where the signals are by trials."""
        if "trial" not in part.axes:
            values, label = self.numbers(part.variable, part.columns, "[[behavior]]")
            values = self._oriented(values, part.axes, label, "[[behavior]]") if part.axes else values
            return _at_borders(values.T if part.transposed else _column(values), part), label
        if self.lengths_M is None or not part.variable:
            raise ConfigError(
                f"{part.variable or ', '.join(part.columns)!r} has a trial axis, the signals have none.",
                where="[[behavior]]",
                remedy='name "trial" among the axes of both',
            )
        pieces = self.trials(part.variable, part.axes, "[[behavior]]")
        if "time" not in part.axes:
            self._as_many(pieces, part.variable)
            pieces = [np.broadcast_to(p.ravel(), (n, p.size)) for p, n in zip(pieces, self.lengths_M, strict=True)]
            return self.joined(pieces, part.variable), part.variable
        pieces = [_at_borders(_column(piece), part) for piece in self._unpadded(pieces, extra=bool(part.borders))]
        return self.joined(self._fitting(pieces, part.variable), part.variable), part.variable

    def joined(self, pieces: Sequence[Array], label: str) -> Array:
        """Trials one after the other; empty ones have no rows, whatever their shape."""
        full = [(i, piece) for i, piece in enumerate(pieces, start=1) if len(piece)]
        for i, piece in full:
            if piece.shape[1:] != full[0][1].shape[1:]:
                self._refuse(
                    "wrong shape",
                    f"trial {i} of {label!r} is {_shape(piece)}, trial {full[0][0]} is {_shape(full[0][1])}: "
                    "they differ in more than their length.",
                    "correct axes in the mapping, or leave the trial out of the file",
                )
        return np.concatenate([piece for _, piece in full]) if full else np.empty((0, 0))

    def _fitting(self, pieces: list[Array], label: str) -> list[Array]:
        """The trials that have bins, each with as many rows as the signals."""
        assert self.lengths_M is not None
        self._as_many(pieces, label)
        for i, (piece, bins) in enumerate(zip(pieces, self.lengths_M, strict=True), start=1):
            if bins and len(piece) != bins:
                self._refuse(
                    "different lengths",
                    f"trial {i} of {label!r} has {len(piece)} rows, the signals have {bins} bins there.",
                    'if it has values at the borders of bins, say borders = "end" in the mapping; otherwise leave the '
                    "trial out of the file",
                )
        return [piece[:bins] for piece, bins in zip(pieces, self.lengths_M, strict=True)]

    def _as_many(self, pieces: Sequence[Array], label: str) -> None:
        assert self.lengths_M is not None
        if len(pieces) != len(self.lengths_M):
            self._refuse(
                "different lengths",
                f"{label!r} has {len(pieces)} trials, the signals {len(self.lengths_M)}.",
                "check its axes in the mapping",
            )

    def _unpadded(self, pieces: list[Array], *, extra: bool = False) -> list[Array]:
        """Trials without what lies behind their stated lengths (``extra``: one row more, at borders)."""
        trials = self.mapping.trials
        if trials is None or trials.rule != "lengths":
            return pieces
        lengths = self.lengths(trials.variable)
        if len(lengths) != len(pieces):
            self._refuse(
                "bad trials",
                f"{trials.variable!r} has {len(lengths)} lengths for {len(pieces)} trials.",
                "correct variable in [trials]",
            )
        out = []
        for i, (piece, length) in enumerate(zip(pieces, lengths.tolist(), strict=True), start=1):
            if length > len(piece):
                self._refuse(
                    "bad trials",
                    f"trial {i} has {len(piece)} rows, {trials.variable!r} says {length}.",
                    "correct variable in [trials]",
                )
            stop = length + 1 if extra and length else length
            self.padding += len(piece) - length if self.lengths_M is None else 0
            out.append(piece[:stop])
        return out

    def lengths(self, variable: str) -> NDArray[np.int64]:
        """(M,) bins of each trial, as a variable states them."""
        if not variable:
            raise ConfigError("the rule 'lengths' needs a variable.", where="[trials]", remedy="name it: variable = …")
        values = self.numbers(variable, (), "[trials]")[0].ravel().astype(np.float64)
        if not np.isfinite(values).all() or np.any(values != np.rint(values)) or np.any(values < 0):
            self._refuse(
                "bad trials",
                f"trial lengths {variable!r} are no whole numbers of bins from 0 on (first: {values[:3].tolist()}).",
                "correct variable in [trials]",
            )
        return values.astype(np.int64)

    # ---- axes

    def _oriented(self, values: Array, axes: Sequence[str], label: str, what: str, *, trial: int = 0) -> Array:
        """Values with their axes in the order time, channel, slot or dim."""
        if trial and values.size == 0:
            return np.empty((0,) * max(len(axes), 1))
        if len(axes) == 1 and values.size == max(values.shape, default=0):
            return values.reshape(-1, 1) if axes[0] == "time" else values.ravel()  # MATLAB keeps a vector as a matrix
        if values.ndim != len(axes):
            self._refuse(
                "wrong shape",
                f"{f'trial {trial} of ' if trial else ''}{label!r} is {_shape(values)}, the mapping names {len(axes)} "
                f"axes ({', '.join(axes)}).",
                f"correct axes in {what}",
            )
        return np.transpose(values, [list(axes).index(name) for name in _ORDER if name in axes])

    def _refuse(self, reason: str, what: str, remedy: str) -> NoReturn:
        raise FileError(reason, what, where=self.where, remedy=remedy)


def _column(values: Array) -> Array:
    return values.reshape(-1, 1) if values.ndim == 1 else values


def _at_borders(values: Array, part: BehaviorMapping) -> Array:
    """Values at the borders of bins as one a bin."""
    if not part.borders or not len(values):
        return values
    return values[1:] if part.borders == "end" else values[:-1]


def _shape(values: Array) -> str:
    return "x".join(map(str, values.shape))
