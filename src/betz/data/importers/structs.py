"""Structs of MATLAB files as plain lists: what the readers of ``trial_data`` and ``xds`` share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.data.importers.files import ArrayFile, FileError

Array = NDArray[Any]


class Table:
    """A struct array: fields by name, an array an element.

    Args:
        file: the opened file.
        name: of the variable.
    """

    def __init__(self, file: ArrayFile, name: str) -> None:
        self.where, self.name = file.path.name, name
        value = file.load(name)
        elements = value.ravel(order="F").tolist() if value.dtype == object else []
        if not elements or not all(isinstance(element, dict) for element in elements):
            raise self.refuse("wrong shape", f"{name} is no struct array with elements.")
        self.elements: list[dict[str, Any]] = elements
        self.fields = tuple(elements[0])

    def __len__(self) -> int:
        return len(self.elements)

    def refuse(self, reason: str, what: str, remedy: str = "") -> FileError:
        """An error about this variable."""
        return FileError(reason, what, where=self.where, remedy=remedy or f"check how {self.name} was made")

    def column(self, field: str) -> list[Array]:
        """A field of every element.

        Raises:
            FileError: an element lacks it.
        """
        lacking = [i for i, element in enumerate(self.elements, start=1) if field not in element]
        if lacking:
            raise self.refuse("missing variable", f"element {lacking[0]} of {self.name} has no field {field!r}.")
        return [np.asarray(element[field]) for element in self.elements]

    def matrix(self, field: str) -> Array | None:
        """A field of a single struct as numbers with two axes; None = it is missing or empty."""
        values = self.column(field)[0] if field in self.fields else np.empty(0)
        if values.size == 0:
            return None
        if values.dtype.kind not in "biuf" or values.ndim != 2:
            raise self.refuse("wrong shape", f"{self.name}.{field} is {values.dtype} of shape {values.shape}.")
        return values

    def text(self, field: str) -> str:
        """A field of the first element as text; empty if it is none."""
        return text(self.column(field)[0]) if field in self.fields else ""


def text(value: Array) -> str:
    """What a char array, or a cell with one, says."""
    if value.dtype == object and value.size == 1:
        value = np.asarray(value.flat[0])
    return str(value.flat[0]).strip(" \0") if value.dtype.kind == "U" and value.size else ""


def labels(value: Array) -> list[str]:
    """A char matrix or a cell of texts as names."""
    return [text(np.asarray(element)) for element in value.ravel(order="F")]


def date_of(written: str) -> dict[str, str]:
    """The tag of a date in one of the usual spellings."""
    for spelling in ("%Y-%m-%d", "%m/%d/%Y", "%m-%d-%Y", "%Y%m%d", "%d-%b-%Y"):
        try:
            return {"date": datetime.strptime(written.split(" ")[0], spelling).date().isoformat()}
        except ValueError:
            continue
    return {}


def plain(label: str) -> str:
    """A label as part of a behavior name."""
    return re.sub(r"[^A-Za-z0-9]+", "_", label).strip("_")


def axis_names(stem: str, number: int, *, order: int = 0) -> list[str]:
    """Names of the columns of a position (order 0), velocity (1) or acceleration (2): ``hand_vx`` …

    >>> axis_names("hand", 2, order=1), axis_names("force", 1)
    (['hand_vx', 'hand_vy'], ['force_x'])
    """
    letter = ("", "v", "a")[order]
    if number <= 3:
        return [f"{stem}_{letter}{axis}" for axis in "xyz"[:number]]
    return [f"{stem}_{letter}{k + 1}" for k in range(number)]


def unique(names: Sequence[str]) -> list[str]:
    """Names, repeated ones with ``_2``, ``_3`` …"""
    out: list[str] = []
    for name in names:
        found, number = name, 1
        while found in out:
            number += 1
            found = f"{name}_{number}"
        out.append(found)
    return out
