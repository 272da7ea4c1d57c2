"""Paths into structs and cells: ``data.trial.counts`` is that field of each element of ``data.trial``, in order.

Structs are object arrays of dicts, cells object arrays of arrays, as the readers of MATLAB files build them; elements
are taken in MATLAB's order (first index fastest).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.data.importers.files import FileError

Array = NDArray[Any]


def reach(value: Array, path: str, *, where: str) -> tuple[list[Array], bool]:
    """The arrays at the end of a path.

    Args:
        value: of the variable that the path starts with.
        path: ``variable.field.field``.
        where: the file, for the message.

    Returns:
        The arrays, and whether they are elements of a cell or of a struct array with several: then there may be any
        number of them.

    Raises:
        FileError: there is no such field, or something at the end is no array of numbers or text.
    """
    steps = path.split(".")
    found, several = [value], False
    for at, step in enumerate(steps[1:], start=1):
        so_far = ".".join(steps[:at])
        several = several or any(v.dtype == object and v.size != 1 for v in found)
        found = [_field(element, step, so_far, where) for v in found for element in _elements(v)]
    out: list[Array] = []
    for v in found:
        if v.dtype != object or _is_struct(v):
            out.append(v)
        else:
            several = True
            out += _flat(v, path, where)
    return out, several


def unused(value: Array, path: str, used: Sequence[str]) -> list[str]:
    """Fields of a struct, and of structs in it, that lead to none of the used paths; its first element tells them."""
    first = value.flat[0] if value.dtype == object and value.size else None
    if not isinstance(first, dict):
        return []
    out: list[str] = []
    for name, field in first.items():
        inside = f"{path}.{name}"
        if inside in used:
            continue
        leading = [n for n in used if n.startswith(f"{inside}.")]
        out += unused(np.asarray(field), inside, leading) if leading else [inside]
    return out


def _is_struct(value: Array) -> bool:
    return value.dtype == object and value.size > 0 and isinstance(value.flat[0], dict)


def _elements(value: Array) -> Sequence[Any]:
    """Elements of a struct or cell; a number or text is a single one that has no fields."""
    return value.ravel(order="F").tolist() if value.dtype == object else [value]


def _field(element: Any, step: str, path: str, where: str) -> Array:
    if not isinstance(element, dict) or step not in element:
        has = f"it has {', '.join(element)}" if isinstance(element, dict) else "it is no struct"
        raise FileError(
            "missing variable",
            f"{path!r} has no field {step!r}; {has}.",
            where=where,
            remedy="correct the name in the mapping",
        )
    return np.asarray(element[step])


def _flat(cell: Array, path: str, where: str) -> list[Array]:
    """The arrays in a cell; cells in it are opened as well."""
    out: list[Array] = []
    for element in _elements(cell):
        if not isinstance(element, np.ndarray) or _is_struct(element):
            raise FileError(
                "unsupported type",
                f"{path!r} holds {'a struct' if isinstance(element, np.ndarray) else element}, not numbers.",
                where=where,
                remedy="name a field in the mapping (a.b), or save plain numeric arrays",
            )
        out += _flat(element, path, where) if element.dtype == object else [element]
    return out
