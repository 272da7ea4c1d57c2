"""Archives and pickles for tests, written opcode by opcode where no honest program would write them."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

END = b"."
PROTO = b"\x80\x02"
EMPTY_TUPLE, MARK, TUPLE, TUPLE1, REDUCE, BUILD = b")", b"(", b"t", b"\x85", b"R", b"b"
NEWOBJ, NEWOBJ_EX, EMPTY_DICT, EMPTY_LIST, NONE, PERSID = b"\x81", b"\x92", b"}", b"]", b"N", b"Q"


def text(value: str) -> bytes:
    """A string."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    """An integer."""
    raw = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def name(full: str) -> bytes:
    """A class or function."""
    module, _, last = full.rpartition(".")
    return b"c" + module.encode() + b"\n" + last.encode() + b"\n"


def several(*values: bytes) -> bytes:
    """A tuple."""
    return MARK + b"".join(values) + TUPLE


def call(function: bytes, *arguments: bytes) -> bytes:
    """A call."""
    return function + several(*arguments) + REDUCE


def mapping(entries: Mapping[str, bytes]) -> bytes:
    """A dictionary with strings as keys."""
    return EMPTY_DICT + MARK + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def storage(key: str = "0", numel: int = 4, kind: str = "torch.FloatStorage") -> bytes:
    """A storage, by its persistent id."""
    return several(text("storage"), name(kind), text(key), text("cpu"), number(numel)) + PERSID


def tensor(
    shape: tuple[int, ...] = (2, 2),
    stride: tuple[int, ...] = (2, 1),
    *,
    offset: int = 0,
    of: bytes | None = None,
    hooks: bytes = call(name("collections.OrderedDict")),
) -> bytes:
    """A tensor in a storage."""
    sizes = (several(*map(number, s)) for s in (shape, stride))
    return call(name("torch._utils._rebuild_tensor_v2"), of or storage(), number(offset), *sizes, b"\x89", hooks)


def write(
    path: Path,
    pickle: bytes,
    *,
    records: Mapping[str, bytes] | None = None,
    folder: str = "x",
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """An archive as torch writes it, around a pickle."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr(f"{folder}/data.pkl", pickle)
        for record, content in (records or {}).items():
            file.writestr(f"{folder}/{record}", content)
    return path


def checkpoint(value: bytes) -> bytes:
    """A pickle of a Lightning checkpoint whose hyper-parameters are this value."""
    return PROTO + mapping({"state_dict": EMPTY_DICT, "hyper_parameters": mapping({"cfg": value})}) + END
