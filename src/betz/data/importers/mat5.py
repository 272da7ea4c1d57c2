"""A walk through the structure of a MATLAB 5 file, before SciPy loads anything of it.

Each element says how many bytes it has and each array how many elements; both are checked against the bytes that are
there, so that a damaged or hostile file is refused before memory is asked for. Format: "MAT-File Format" (MathWorks),
Level 5.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 16: 1, 17: 2, 18: 4}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _OBJECT, _CHAR, _SPARSE = 1, 2, 3, 4, 5
_CLASSES = {
    _CELL: "cell",
    _STRUCT: "struct",
    _OBJECT: "object",
    _CHAR: "char",
    _SPARSE: "sparse",
    6: "float64",
    7: "float32",
    8: "int8",
    9: "uint8",
    10: "int16",
    11: "uint16",
    12: "int32",
    13: "uint32",
    14: "int64",
    15: "uint64",
    16: "function",
    17: "opaque",
}
_DEEPEST = 32
_MOST_WITHOUT_DATA = 1 << 16


def walk(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and class of each variable of a MATLAB 5 file whose structure is sound.

    Raises:
        ValueError: sizes contradict each other or the file (also ``struct.error`` and ``zlib.error``).
        FileError: an element claims to unpack to more than the file's size can hold.
    """
    data = path.read_bytes()
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None or struct.unpack(f"{order}H", data[124:126])[0] != 0x0100:
        raise ValueError("it does not start like a MATLAB 5 file")
    found: dict[str, tuple[tuple[int, ...], str]] = {}
    unpacked = 0
    at = 128
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
        name, shape, cls = _Walker(order).matrix(body, 0)
        if name and not name.startswith("__"):
            if name in found:
                raise ValueError(f"variable {name!r} is there twice")
            found[name] = (shape, cls)
    return found


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


class _Walker:
    """Checks one array and everything inside it."""

    def __init__(self, order: str) -> None:
        self.order = order

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

    def matrix(self, body: memoryview, depth: int) -> tuple[str, tuple[int, ...], str]:
        """Name, shape and class of an array."""
        if depth > _DEEPEST:
            raise ValueError(f"arrays are nested more than {_DEEPEST} deep")
        if len(body) == 0 and depth:
            return "", (0, 0), "float64"
        parts = self.elements(body)
        kind, flags = _next(parts)
        if kind != 6 or len(flags) != 8:
            raise ValueError("an array without flags")
        (word,) = struct.unpack_from(f"{self.order}I", flags)
        cls = word & 0xFF
        if cls not in _CLASSES:
            raise ValueError(f"unknown array class {cls}")
        if cls == 17:  # tables, strings and other objects: never loaded, so not looked into
            return _text(_next(parts)), (1, 1), _CLASSES[cls]
        kind, raw = _next(parts)
        if kind != 5 or len(raw) % 4 or not 2 <= len(raw) // 4 <= 32:
            raise ValueError("an array without dimensions")
        shape = struct.unpack(f"{self.order}{len(raw) // 4}i", raw)
        if min(shape) < 0:
            raise ValueError(f"a negative dimension in {shape}")
        name = _text(_next(parts))
        self._content(cls, bool(word & 0x800), shape, parts, depth)
        logical = cls == 9 and word & 0x200
        return name, shape, "bool" if logical else _CLASSES[cls]

    def _content(
        self, cls: int, is_complex: bool, shape: tuple[int, ...], parts: Iterator[tuple[int, memoryview]], depth: int
    ) -> None:
        number = math.prod(shape)
        if cls in (_CELL, _STRUCT, _OBJECT):
            fields = 1
            if cls == _OBJECT:
                _next(parts)  # the name of its class
            if cls != _CELL:
                kind, raw = _next(parts)
                (longest,) = struct.unpack(f"{self.order}i", raw)
                _, names = _next(parts)
                if longest < 1 or len(names) % longest:
                    raise ValueError("a struct whose field names do not fit")
                fields = len(names) // longest
                if fields == 0 and number > _MOST_WITHOUT_DATA:
                    raise ValueError(f"a struct without fields of shape {shape}")
            for _ in range(number * fields):
                kind, body = _next(parts)
                if kind != _MATRIX:
                    raise ValueError(f"an element of type {kind} where an array should be")
                self.matrix(body, depth + 1)
        elif cls == _CHAR:
            _, raw = _next(parts)
            if number > max(len(raw), 0 if len(raw) else _MOST_WITHOUT_DATA):
                raise ValueError(f"text of shape {shape} in {len(raw)} bytes")
        elif 6 <= cls <= 15:
            for _ in range(2 if is_complex else 1):
                kind, raw = _next(parts)
                if kind not in _BYTES or len(raw) != number * _BYTES[kind]:
                    raise ValueError(f"an array of shape {shape} in {len(raw)} bytes of type {kind}")


def _next(parts: Iterator[tuple[int, memoryview]]) -> tuple[int, memoryview]:
    try:
        return next(parts)
    except StopIteration:
        raise ValueError("an array ends too early") from None


def _text(part: tuple[int, memoryview]) -> str:
    return bytes(part[1]).decode("ascii").rstrip("\0")
