"""Files of arrays, opened with suspicion: `.npz`, MATLAB `.mat` (5 to 7.3) and `.csv`.

What a header claims is checked against the size of the file before anything is allocated, nothing in a file is ever
executed, and whatever a format's library raises becomes one :class:`FileError` that names the file.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
import zipfile
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import BetzError, DataError

Array = NDArray[Any]
SUFFIXES = (".npz", ".mat", ".csv")
FREE_BYTES = 64 << 20
MOST_EXPANSION = 500
"""Files may unpack to this many times their size (sparse counts reach about 200), or to 64 MiB if that is more."""


class FileError(DataError):
    """A file cannot be imported; ``reason`` is a short name under which such files are counted.

    Args:
        reason: e.g. ``"damaged file"``.
        what, where, remedy: as in :class:`~betz.core.errors.BetzError`.
    """

    def __init__(self, reason: str, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.reason = reason


@dataclass(frozen=True)
class Variable:
    """What a header says of one variable: its shape, and what it holds (``float64``, ``struct`` …)."""

    shape: tuple[int, ...]
    type: str

    def __str__(self) -> str:
        return f"{self.type} {'x'.join(map(str, self.shape)) or 'scalar'}"


class ArrayFile(ABC):
    """The variables of a file: listed from headers alone, loaded one by one.

    Args:
        path: the file; it is read, never written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.variables: dict[str, Variable] = {}
        self._opened: dict[str, Array] = {}  # structs and cells, which are asked for field by field
        with damage(path):
            self._scan()
        if not self.variables:
            raise FileError("no variables", "there is no array in it.", where=path.name)

    @abstractmethod
    def _scan(self) -> None: ...

    @abstractmethod
    def _load(self, name: str) -> Array: ...

    def load(self, name: str) -> Array:
        """The array ``name``; dots lead into structs.

        Raises:
            FileError: there is no such variable (the message lists those there are), it holds several arrays, or it
                cannot be read.
        """
        found, _ = self.values(name)
        if len(found) != 1:
            raise FileError(
                "wrong shape",
                f"variable {name!r} holds {len(found)} arrays, not one.",
                where=self.path.name,
                remedy='if they are trials, name "trial" among the axes in the mapping',
            )
        return found[0]

    def values(self, name: str) -> tuple[list[Array], bool]:
        """The arrays at a path: one, or the elements of a cell or struct array (then the second value is true).

        Raises:
            FileError: there is no such variable or field, or it holds neither numbers nor text.
        """
        from betz.data.importers.nested import reach

        head = name if name in self.variables else name.split(".")[0]
        if head not in self.variables:
            raise FileError(
                "missing variable",
                f"there is no variable {name!r}; it has {self.listing()}.",
                where=self.path.name,
                remedy="correct the name in the mapping",
            )
        values = self._value(head)
        if values.dtype.kind not in "biufU" and self.variables[head].type not in ("struct", "cell"):
            raise FileError(
                "unsupported type",
                f"variable {head!r} holds {self.variables[head]}, not numbers.",
                where=self.path.name,
                remedy="save it as a plain numeric array",
            )
        return reach(values, head + name[len(head) :], where=self.path.name)

    def reaches(self, path: str) -> bool:
        """Whether a path leads to something."""
        try:
            return bool(self.values(path)[0])
        except FileError as error:
            if error.reason in ("damaged file", "impossible size"):
                raise
            return False

    def cell(self, name: str) -> Array:
        """A cell as an array of objects, each an array.

        Raises:
            FileError: there is no such variable, or it is no cell of numbers and text.
        """
        if name not in self.variables or self.variables[name].type != "cell":
            found = f"it is {self.variables[name]}" if name in self.variables else f"it has {self.listing()}"
            raise FileError(
                "missing variable",
                f"there is no cell {name!r}; {found}.",
                where=self.path.name,
                remedy="correct the name in the mapping",
            )
        self.values(name)  # its elements are checked
        return self._value(name)

    def unused(self, name: str, used: Sequence[str]) -> list[str]:
        """Paths in a struct that lead to no used variable."""
        from betz.data.importers.nested import unused

        return unused(self._value(name), name, used)

    def _value(self, head: str) -> Array:
        if head in self._opened:
            return self._opened[head]
        with damage(self.path):
            values = np.asarray(self._load(head))
        if values.dtype == object:
            self._opened[head] = values
        return values

    def listing(self) -> str:
        """The variables with their types and shapes, in one line."""
        shown = [f"{name} ({v})" for name, v in self.variables.items()]
        more = f", … and {len(shown) - 40} more" if len(shown) > 40 else ""
        return ", ".join(shown[:40]) + more

    def matching(self, pattern: str) -> list[str]:
        """The variables of this name, or that match it with ``*`` and ``?``."""
        return [n for n in self.variables if n == pattern or fnmatchcase(n, pattern)]

    def columns(self, patterns: Sequence[str]) -> list[str]:
        """The variables that match the patterns (``*`` and ``?``), in the order of patterns, then of the file."""
        found: list[str] = []
        for pattern in patterns:
            matches = self.matching(pattern)
            if not matches:
                raise FileError(
                    "missing variable",
                    f"no column matches {pattern!r}; it has {self.listing()}.",
                    where=self.path.name,
                    remedy="correct the columns in the mapping",
                )
            found += [n for n in matches if n not in found]
        return found


def open_arrays(path: Path) -> ArrayFile:
    """Open a file of arrays by its suffix.

    Raises:
        FileError: it is missing, of another format, damaged, or claims more data than its size can hold.
    """
    kinds: dict[str, Callable[[Path], ArrayFile]] = {".npz": NpzFile, ".mat": MatFile, ".csv": CsvFile}
    if path.is_dir():
        raise FileError(
            "no such file", "it is a folder.", where=str(path), remedy="name the files in it, e.g. FOLDER/*.npz"
        )
    if not path.is_file():
        raise FileError("no such file", "there is no such file.", where=str(path), remedy="check the path")
    if path.suffix.lower() not in kinds:
        raise FileError(
            "unknown format",
            f"files of type {path.suffix or '(none)'!r} are not known.",
            where=path.name,
            remedy=f"import {', '.join(SUFFIXES)} or a vendor's files; betz formats lists them",
        )
    if path.stat().st_size == 0:
        raise FileError("damaged file", "it is empty (0 bytes).", where=path.name, remedy="copy it again")
    return kinds[path.suffix.lower()](path)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """Turn whatever a format's library raises into a FileError: on damaged input it can be anything."""
    try:
        yield
    except BetzError:
        raise
    except Exception as error:
        raise FileError(
            "damaged file",
            f"it cannot be read: truncated, damaged or no {path.suffix} file ({type(error).__name__}: {error}).",
            where=path.name,
            remedy="copy it again from its source",
        ) from error


def check_claim(claimed: int, path: Path, name: str) -> None:
    """Refuse a header that claims more bytes than the file can hold, before they are allocated."""
    size = path.stat().st_size
    if claimed > max(FREE_BYTES, MOST_EXPANSION * size):
        raise FileError(
            "impossible size",
            f"{name} claims {claimed / 1e9:.3g} GB, but the whole file has {size / 1e6:.3g} MB.",
            where=path.name,
            remedy="the file is damaged or hostile; copy it again, or save fewer or smaller arrays to a file",
        )


class NpzFile(ArrayFile):
    """NumPy's zip of arrays; pickled objects are refused."""

    def _scan(self) -> None:
        total = 0
        with zipfile.ZipFile(self.path) as archive:
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if name == info.filename:
                    raise FileError("unknown format", f"{name!r} in it is no .npy array.", where=self.path.name)
                total += info.file_size
                check_claim(total, self.path, f"its content up to {name!r}")
                with archive.open(info) as file:
                    shape, dtype, header = _npy_header(file)
                claimed = math.prod(shape) * dtype.itemsize
                check_claim(claimed, self.path, f"variable {name!r} of shape {shape}")
                if dtype.hasobject:
                    raise FileError(
                        "unsupported type",
                        f"variable {name!r} holds Python objects (pickle), which are never loaded.",
                        where=self.path.name,
                        remedy="save plain numeric arrays",
                    )
                if name in self.variables or min(shape, default=0) < 0 or header + claimed != info.file_size:
                    raise ValueError(f"{name!r} claims {claimed} bytes of data and holds {info.file_size - header}")
                self.variables[name] = Variable(shape, str(dtype))

    def _load(self, name: str) -> Array:
        with zipfile.ZipFile(self.path) as archive:
            content = archive.read(f"{name}.npy")  # whole, so that its checksum is compared
        return np.asarray(np.lib.format.read_array(io.BytesIO(content), allow_pickle=False))


def _npy_header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape, type and length in bytes of the header."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f".npy version {version} is not known")
    return shape, dtype, file.tell()


class MatFile(ArrayFile):
    """MATLAB 5 to 7.2, read by :mod:`betz.data.importers.mat5`, and 7.3, by :mod:`betz.data.importers.mat73`."""

    def _scan(self) -> None:
        for name, (shape, kind) in self._reader().walk(self.path).items():
            self.variables[name] = Variable(shape, kind)

    def _load(self, name: str) -> Array:
        if self.variables[name].type == "sparse":
            raise FileError(
                "unsupported type",
                f"variable {name!r} is a sparse matrix.",
                where=self.path.name,
                remedy=f"save full({name}) in MATLAB",
            )
        return np.asarray(self._reader().load(self.path, name))

    def _reader(self) -> ModuleType:
        from betz.data.importers import mat5, mat73

        return mat73 if mat73.is_hdf5(self.path) else mat5


class CsvFile(ArrayFile):
    """One row a bin, one column a variable, names in the first row; an empty cell is NaN."""

    delimiter = ","

    def _scan(self) -> None:
        with self.path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file, delimiter=self.delimiter, strict=True)
            names = [name.strip() for name in next(rows)]
            other = next((mark for mark in (";", "\t") if len(names) == 1 and mark in names[0]), "")
            if other:
                raise FileError(
                    "no header",
                    f"its columns are separated by {other!r}.",
                    where=self.path.name,
                    remedy="export it with commas between columns and points in numbers",
                )
            if any(_is_number(name) for name in names) or len(set(names)) != len(names) or "" in names:
                raise FileError(
                    "no header",
                    f"its first row does not name the columns once each: {', '.join(names[:8])} …",
                    where=self.path.name,
                    remedy="put unique column names in the first row",
                )
            cells = array("d")
            for row in rows:
                if row or len(names) == 1:  # a blank line holds nothing
                    cells.extend(self._floats(row or [""], names, rows.line_num))
        self._table = np.array(cells, dtype=np.float64).reshape(-1, len(names))
        self.variables = {name: Variable((len(self._table),), "float64") for name in names}

    def _floats(self, row: list[str], names: list[str], line: int) -> list[float]:
        if len(row) != len(names):
            raise FileError(
                "damaged file",
                f"line {line} has {len(row)} cells, the header has {len(names)}.",
                where=self.path.name,
                remedy="the file may be truncated; export it again",
            )
        try:
            return [float(cell) if cell else math.nan for cell in row]
        except ValueError:
            values = [cell.strip() for cell in row]
            column = next((k for k, cell in enumerate(values) if cell and not _is_number(cell)), None)
            if column is None:  # cells of blanks only
                return [float(cell) if cell else math.nan for cell in values]
            raise FileError(
                "not a number",
                f"line {line}, column {names[column]!r} holds {values[column][:40]!r}, not a number.",
                where=self.path.name,
                remedy="leave cells without a value empty",
            ) from None

    def _load(self, name: str) -> Array:
        return np.asarray(self._table[:, list(self.variables).index(name)])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def session_id(path: Path, session: str = "") -> str:
    """A session id from a file's name, and which of its sessions it is: what is not safe in one becomes ``_``."""
    stem, end = (re.sub(r"[^A-Za-z0-9._+=-]", "_", text) for text in (path.stem, session))
    end = f"_{end[:60]}" if end else ""
    return (stem.lstrip("._+=-")[: 120 - len(end)] or "session") + end


def shapes(variables: Mapping[str, Variable]) -> dict[str, tuple[int, ...]]:
    """Name to shape."""
    return {name: variable.shape for name, variable in variables.items()}
