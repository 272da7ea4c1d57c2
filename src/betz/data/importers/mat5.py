"""MATLAB 5 files (to version 7.2): their structure, and the values of a variable.

Each element says how many bytes it has and each array how many elements; both are checked against the bytes that are
there, so that a damaged or hostile file is refused before memory is asked for, and nothing in it is executed. (SciPy's
reader crashes the process on some damaged files.) Format: "MAT-File Format" (MathWorks), Level 5.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXT = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _OBJECT, _CHAR, _SPARSE, _OPAQUE = 1, 2, 3, 4, 5, 17
_NUMBERS = {6: "float64", 7: "float32", 8: "int8", 9: "uint8", 10: "int16", 11: "uint16", 12: "int32", 13: "uint32",
            14: "int64", 15: "uint64"}  # fmt: skip
_CLASSES = {
    _CELL: "cell",
    _STRUCT: "struct",
    _OBJECT: "object",
    _CHAR: "char",
    _SPARSE: "sparse",
    **_NUMBERS,
    16: "function",
    _OPAQUE: "opaque",
}
_DEEPEST = 32
_MOST_WITHOUT_DATA = 1 << 16


def walk(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and class of each variable of a file whose structure is sound.

    Raises:
        ValueError: sizes contradict each other or the file (also ``struct.error``, ``zlib.error``, ``UnicodeError``).
        FileError: an element claims to unpack to more than the file's size can hold.
    """
    found: dict[str, tuple[tuple[int, ...], str]] = {}
    for order, body in _variables(path):
        name, shape, cls, _ = _Reader(order, build=False).matrix(body, 0)
        if name and not name.startswith("__"):
            if name in found:
                raise ValueError(f"variable {name!r} is there twice")
            found[name] = (shape, cls)
    return found


def load(path: Path, wanted: str) -> Array:
    """The value of a variable.

    Returns:
        An array of numbers or bools; of strings, one a row, for text; of objects for cells and for structs, whose
        elements are dicts. What is neither (sparse, functions, objects) is the name of its class in an object array.

    Raises:
        As :func:`walk`; ``KeyError`` if there is no such variable.
    """
    for order, body in _variables(path):
        if _Reader(order, build=False).name(body) == wanted:
            return _Reader(order, build=True).matrix(body, 0)[3]
    raise KeyError(wanted)


def _variables(path: Path) -> Iterator[tuple[str, memoryview]]:
    """Byte order and content of each top-level array, unpacked."""
    data = path.read_bytes()
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None or struct.unpack(f"{order}H", data[124:126])[0] != 0x0100:
        raise ValueError("it does not start like a MATLAB 5 file")
    unpacked, at = 0, 128
    while at < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        body = memoryview(data)[at + 8 : at + 8 + size]
        if len(body) < size:
            raise ValueError(f"an element of {size} bytes ends after {len(body)}")
        at += 8 + size
        if kind == _COMPRESSED:
            content = _inflate(body, path, unpacked)
            unpacked += len(content)
            kind, size = struct.unpack_from(f"{order}II", content, 0)
            body = memoryview(content)[8 : 8 + size]
            if len(body) < size:
                raise ValueError(f"a compressed element of {size} bytes ends after {len(body)}")
        if kind != _MATRIX:
            raise ValueError(f"unknown element type {kind}")
        yield order, body


def _inflate(body: memoryview, path: Path, before: int) -> bytes:
    from betz.data.importers.files import FREE_BYTES, MOST_EXPANSION, check_claim

    most = max(FREE_BYTES, MOST_EXPANSION * path.stat().st_size) - before
    stream = zlib.decompressobj()
    content = stream.decompress(body, most + 1)
    if len(content) > most:
        check_claim(before + len(content), path, "its content")
    if not stream.eof:
        raise ValueError("compressed data end too early")
    return content


class _Reader:
    """Checks an array and everything inside it, and builds its value if asked to."""

    def __init__(self, order: str, *, build: bool) -> None:
        self.order = order
        self.build = build

    def elements(self, body: memoryview) -> Iterator[tuple[int, memoryview]]:
        """Type and bytes of each sub-element, in order."""
        at = 0
        while at < len(body):
            (tag,) = struct.unpack_from(f"{self.order}I", body, at)
            if tag >> 16:  # a small element: type and size share one word, data in the next
                kind, size, start = tag & 0xFFFF, tag >> 16, at + 4
                if size > 4:
                    raise ValueError(f"a small element of {size} bytes")
                at += 8
            else:
                kind, (size,), start = tag, struct.unpack_from(f"{self.order}I", body, at + 4), at + 8
                at = start + size + (-size % 8 if kind != _MATRIX else 0)
            if start + size > len(body):
                raise ValueError(f"an element of {size} bytes ends after {len(body) - start}")
            yield kind, body[start : start + size]

    def name(self, body: memoryview) -> str:
        """Name of an array; nothing else of it is looked at."""
        parts = self.elements(body)
        (word,) = struct.unpack_from(f"{self.order}I", _next(parts)[1])
        if word & 0xFF != _OPAQUE:
            _next(parts)
        return _ascii(_next(parts))

    def matrix(self, body: memoryview, depth: int) -> tuple[str, tuple[int, ...], str, Array]:
        """Name, shape, class and value of an array; the value is empty unless it is built."""
        if depth > _DEEPEST:
            raise ValueError(f"arrays are nested more than {_DEEPEST} deep")
        if len(body) == 0 and depth:
            return "", (0, 0), "float64", np.empty((0, 0))
        parts = self.elements(body)
        kind, flags = _next(parts)
        if kind != 6 or len(flags) != 8:
            raise ValueError("an array without flags")
        (word,) = struct.unpack_from(f"{self.order}I", flags)
        cls = word & 0xFF
        if cls not in _CLASSES:
            raise ValueError(f"unknown array class {cls}")
        if cls == _OPAQUE:  # tables, strings and other objects: never loaded, so not looked into
            return _ascii(_next(parts)), (1, 1), _CLASSES[cls], _other(cls)
        kind, raw = _next(parts)
        if kind != 5 or len(raw) % 4 or not 2 <= len(raw) // 4 <= 32:
            raise ValueError("an array without dimensions")
        shape = struct.unpack(f"{self.order}{len(raw) // 4}i", raw)
        if min(shape) < 0:
            raise ValueError(f"a negative dimension in {shape}")
        name = _ascii(_next(parts))
        logical = cls == 9 and bool(word & 0x200)
        if cls in (_CELL, _STRUCT, _OBJECT):
            value = self._nested(cls, shape, parts, depth)
        elif cls == _CHAR:
            value = self._text(shape, _next(parts))
        elif cls in _NUMBERS:
            value = self._numbers(_NUMBERS[cls], shape, parts, is_complex=bool(word & 0x800))
        else:
            value = _other(cls)
        return name, shape, "bool" if logical else _CLASSES[cls], value.astype(bool) if logical else value

    def _nested(self, cls: int, shape: tuple[int, ...], parts: Iterator[tuple[int, memoryview]], depth: int) -> Array:
        number = math.prod(shape)
        if cls == _OBJECT:
            _next(parts)  # the name of its class
        names: list[str] = []
        if cls != _CELL:
            _, raw = _next(parts)
            (longest,) = struct.unpack(f"{self.order}i", raw)
            _, text = _next(parts)
            if longest < 1 or len(text) % longest:
                raise ValueError("a struct whose field names do not fit")
            names = [_name(text[at : at + longest]) for at in range(0, len(text), longest)]
            if not names and number > _MOST_WITHOUT_DATA:
                raise ValueError(f"a struct without fields of shape {shape}")
        values: list[Any] = []
        for _ in range(number):
            inner = [self._inner(parts, depth) for _ in (names if cls != _CELL else [""])]
            values.append(dict(zip(names, inner, strict=True)) if cls != _CELL else inner[0])
        if not self.build or cls == _OBJECT:
            return _other(cls)
        out = np.empty(number, dtype=object)
        out[:] = values  # not np.array(values): arrays of one shape would be put together
        return out.reshape(shape, order="F")

    def _inner(self, parts: Iterator[tuple[int, memoryview]], depth: int) -> Array:
        kind, body = _next(parts)
        if kind != _MATRIX:
            raise ValueError(f"an element of type {kind} where an array should be")
        return self.matrix(body, depth + 1)[3]

    def _text(self, shape: tuple[int, ...], part: tuple[int, memoryview]) -> Array:
        """One string a row."""
        kind, raw = part
        number = math.prod(shape)
        if kind not in _TEXT or number > max(len(raw), 0 if len(raw) else _MOST_WITHOUT_DATA):
            raise ValueError(f"text of shape {shape} in {len(raw)} bytes of type {kind}")
        if not self.build:
            return np.empty((0, 0))
        coding = _TEXT[kind] + ({"<": "-le", ">": "-be"}[self.order] if kind in (4, 17, 18) else "")
        text = bytes(raw).decode(coding) if len(raw) else " " * number
        if len(text) != number:
            raise ValueError(f"text of shape {shape} has {len(text)} letters")
        if number == 0 or len(shape) != 2:
            return np.array([text] if number else [], dtype=str)
        return np.array([text[row :: shape[0]] for row in range(shape[0])], dtype=str)

    def _numbers(
        self, name: str, shape: tuple[int, ...], parts: Iterator[tuple[int, memoryview]], *, is_complex: bool
    ) -> Array:
        number = math.prod(shape)
        found: list[Array] = []
        for _ in range(2 if is_complex else 1):
            kind, raw = _next(parts)
            if kind not in _STORED or len(raw) != number * int(_STORED[kind][1]):
                raise ValueError(f"an array of shape {shape} in {len(raw)} bytes of type {kind}")
            if self.build:
                stored = np.frombuffer(raw, dtype=self.order + _STORED[kind])
                found.append(stored.astype(name).reshape(shape, order="F"))
        if not self.build:
            return np.empty((0, 0))
        return found[0] + 1j * found[1] if is_complex else found[0]


def _other(cls: int) -> Array:
    """What stands for something that is not loaded."""
    out = np.empty((1, 1), dtype=object)
    out[0, 0] = _CLASSES[cls]
    return out


def _next(parts: Iterator[tuple[int, memoryview]]) -> tuple[int, memoryview]:
    try:
        return next(parts)
    except StopIteration:
        raise ValueError("an array ends too early") from None


def _ascii(part: tuple[int, memoryview]) -> str:
    return bytes(part[1]).decode("ascii").rstrip("\0")


def _name(text: memoryview) -> str:
    return bytes(text).partition(b"\0")[0].decode("ascii")
