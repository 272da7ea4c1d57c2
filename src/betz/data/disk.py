"""Files that are whole or not there: fsynced arrays with hashes, headers checked before use, a writers' lock."""

from __future__ import annotations

import errno
import hashlib
import io
import math
import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import DataError

Array = NDArray[Any]
Entry = dict[str, Any]
"""What a manifest says of one array file: dtype, shape, bytes, sha256."""

_CHUNK = 1 << 22
_SMALL = 1 << 16
"""Bytes up to which a file is read at once: a memory map costs a file descriptor, and systems often allow 1024."""
_REMEDY = "restore the file from a copy, or import the session again"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def writing(where: Path) -> Iterator[None]:
    """Turn what the system says while writing into a :class:`DataError` with a remedy."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise DataError(
                f"there is no room to write ({reason}); what was there is as before.",
                where=str(where),
                remedy="free space on this disk (or raise the file-size limit) and write again",
            ) from error
        raise DataError(
            f"it cannot be written to ({reason}).",
            where=str(where),
            remedy="check that the folder is yours to write to",
        ) from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the writers' lock; the system lets go of it when the process dies."""
    try:
        import fcntl
    except ModuleNotFoundError:
        raise DataError(
            "stores can be written on systems with POSIX file locks only.",
            where=str(path.parent),
            remedy="write it on Linux or macOS; reading works everywhere",
        ) from None
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_array(path: Path, array: Array) -> Entry:
    """Write a new ``.npy`` file and return what a manifest says of it.

    Args:
        path: must not exist.
        array: of numbers or fixed-length strings.
    """
    array = np.ascontiguousarray(array).reshape(array.shape)
    raw = array.reshape(-1).view(np.uint8) if array.nbytes else np.empty(0, np.uint8)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    digest, size = hashlib.sha256(header.getvalue()), header.tell() + raw.size
    with path.open("xb") as file:
        file.write(header.getvalue())
        for start in range(0, raw.size, _CHUNK):
            piece = raw[start : start + _CHUNK]
            digest.update(piece.data)
            file.write(piece.data)
        file.flush()
        os.fsync(file.fileno())
    return {"dtype": array.dtype.str, "shape": list(array.shape), "bytes": size, "sha256": digest.hexdigest()}


def open_array(path: Path, entry: Mapping[str, Any]) -> Array:
    """A read-only array, memory-mapped unless it is small, after its size and header were checked.

    Args:
        path: the ``.npy`` file.
        entry: ``dtype`` and ``shape`` that it must have, and ``bytes`` if its size is known.

    Raises:
        DataError: it is missing, too short or too long, or its header says something else.
    """
    try:
        dtype, shape = np.dtype(entry["dtype"]), tuple(int(n) for n in entry["shape"])
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            wanted = int(entry.get("bytes", size))
            if size != wanted:
                change = "truncated" if size < wanted else "too long"
                raise DataError(f"it is {change}: {size} of {wanted} bytes.", where=str(path), remedy=_REMEDY)
            found_shape, fortran, found_dtype = _header(file, path)
            start = file.tell()
            claim = math.prod(found_shape) * found_dtype.itemsize
            if start + claim != size:
                raise DataError(
                    f"its header claims {found_dtype} {found_shape}, {claim:,} bytes, but {size - start:,} follow.",
                    where=str(path),
                    remedy=_REMEDY,
                )
            if (found_shape, found_dtype) != (shape, dtype) or fortran or dtype.hasobject:
                raise DataError(
                    f"it holds {found_dtype} {found_shape}, the manifest says {dtype} {shape}.",
                    where=str(path),
                    remedy=_REMEDY,
                )
            if claim <= _SMALL:
                return np.ndarray(shape, dtype, file.read())
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise DataError(f"it cannot be read ({error.strerror}).", where=str(path), remedy=_REMEDY) from None
    return np.frombuffer(mapped, dtype, math.prod(shape), offset=start).reshape(shape)


def _header(file: Any, path: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether the columns come first, and dtype of a ``.npy`` file."""
    try:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"npy version {version}")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except OSError:
        raise
    except Exception as error:  # a damaged header is Python text: parsing it fails in many ways
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"its header cannot be read ({reason}).", where=str(path), remedy=_REMEDY) from None
    return shape, fortran, dtype


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
