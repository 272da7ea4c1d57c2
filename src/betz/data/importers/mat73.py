"""MATLAB 7.3 files, which are HDF5: their variables as :mod:`betz.data.importers.mat5` gives them.

HDF5 can lead out of a file (links, external storage) and can ask for any filter; none of that is followed. What a
header claims is compared with the size of the file before it is read. Arrays are stored with their axes reversed.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_FILTERS = {1: "deflate", 2: "shuffle", 3: "checksum"}
_DEEPEST = 32
_MOST_ELEMENTS = 1 << 20
"""Elements of cells and struct arrays in a variable: each is an object of its own in the file."""


def is_hdf5(path: Path) -> bool:
    """Whether a file starts as HDF5 does, at one of the places where it may (MATLAB writes 512 bytes before it)."""
    with path.open("rb") as file:
        head = file.read(4096)
    return any(head[at : at + 8] == _SIGNATURE for at in (0, 512, 1024, 2048))


def walk(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and class of each variable.

    Raises:
        ValueError: the file leads out of itself (also whatever h5py raises on a damaged file).
        FileError: a variable claims to unpack to more than the file's size can hold.
    """
    with _opened(path) as file:
        reader = _Reader(file, path)
        names = [str(name) for name in file if not name.startswith("#")]
        return {name: reader.kind(reader.member(file, name)) for name in names}


def load(path: Path, wanted: str) -> Array:
    """The value of a variable, as :func:`betz.data.importers.mat5.load` describes it; raises as :func:`walk`."""
    with _opened(path) as file:
        reader = _Reader(file, path)
        return reader.value(reader.member(file, wanted), 0)


def _opened(path: Path) -> Any:
    import h5py

    return h5py.File(path, "r", locking=False)


class _Reader:
    """Checks and builds the values of one file."""

    def __init__(self, file: Any, path: Path) -> None:
        self.file = file
        self.path = path
        self.claimed = 0
        self.elements = 0

    def member(self, group: Any, name: str) -> Any:
        """An object that the group itself holds."""
        import h5py

        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name!r} is a link that leads elsewhere")
        return group[name]

    def kind(self, node: Any) -> tuple[tuple[int, ...], str]:
        """Shape, in MATLAB's order, and class."""
        import h5py

        cls = _attribute(node, "MATLAB_class")
        if isinstance(node, h5py.Group):
            if "MATLAB_sparse" in node.attrs:
                return (1, 1), "sparse"
            fields = self._arrays_of(node)
            first = next(iter(fields.values()), None)
            return ((1, 1) if first is None else first.shape[::-1]), "struct"
        if "MATLAB_object_decode" in node.attrs:
            return (1, 1), "opaque"
        if "MATLAB_empty" in node.attrs:
            self._check(node)
            return tuple(int(n) for n in np.atleast_1d(node[()])[:32]), _numeric(cls) if cls else str(node.dtype)
        if cls in ("cell", "char"):
            return node.shape[::-1], cls
        return node.shape[::-1], _numeric(cls) if cls else str(node.dtype)

    def value(self, node: Any, depth: int) -> Array:
        """An array, with cells and structs as arrays of objects."""
        import h5py

        if depth > _DEEPEST:
            raise ValueError(f"arrays are nested more than {_DEEPEST} deep")
        shape, cls = self.kind(node)
        if isinstance(node, h5py.Group):
            return _other(cls) if cls == "sparse" else self._struct(node, depth)
        if cls == "opaque":
            return _other(cls)
        if "MATLAB_empty" in node.attrs:
            return _empty(shape, cls)
        self._check(node)
        if h5py.check_ref_dtype(node.dtype) is h5py.Reference:
            return self._cell(node, depth)
        stored: Array = np.asarray(node[()]).T
        if cls == "char":
            return _text(stored)
        if stored.dtype.names == ("real", "imag"):
            return np.asarray(stored["real"] + 1j * stored["imag"])
        if stored.dtype.kind not in "biuf":
            return _other(str(stored.dtype))
        return stored.astype(bool) if cls == "bool" else stored.astype(stored.dtype.newbyteorder("="))

    def _cell(self, node: Any, depth: int) -> Array:
        references: Array = np.asarray(node[()]).T
        self.elements += references.size
        if self.elements > _MOST_ELEMENTS:
            raise ValueError(f"more than {_MOST_ELEMENTS} elements in cells and structs")
        out = np.empty(references.size, dtype=object)
        for i, reference in enumerate(references.ravel(order="F")):
            if not reference:
                raise ValueError("an element of a cell refers to nothing")
            out[i] = self.value(self.file[reference], depth + 1)
        return out.reshape(references.shape, order="F")

    def _struct(self, group: Any, depth: int) -> Array:
        names = [str(name) for name in group]
        if not self._arrays_of(group):
            single = np.empty((1, 1), dtype=object)
            single[0, 0] = {name: self.value(self.member(group, name), depth + 1) for name in names}
            return single
        fields = {name: self._cell(self.member(group, name), depth) for name in names}
        shape = next(iter(fields.values())).shape
        if any(field.shape != shape for field in fields.values()):
            raise ValueError("a struct array whose fields have different shapes")
        out = np.empty(math.prod(shape), dtype=object)
        flat = {name: field.ravel(order="F") for name, field in fields.items()}
        out[:] = [{name: field[i] for name, field in flat.items()} for i in range(len(out))]
        return out.reshape(shape, order="F")

    def _arrays_of(self, group: Any) -> dict[str, Any]:
        """The fields of a struct array, which hold a reference an element and no class; none for a single struct."""
        import h5py

        members = {str(name): self.member(group, name) for name in group}
        several = [
            isinstance(m, h5py.Dataset)
            and h5py.check_ref_dtype(m.dtype) is h5py.Reference
            and "MATLAB_class" not in m.attrs
            for m in members.values()
        ]
        if any(several) and not all(several):
            raise ValueError("a struct of which only some fields are those of an array")
        return members if several and all(several) else {}

    def _check(self, node: Any) -> None:
        """Refuse what lies elsewhere, needs a filter that is not read, or claims more than the file can hold."""
        from betz.data.importers.files import check_claim

        if node.is_virtual or node.external:
            raise ValueError(f"{node.name!r} lies in another file")
        plist = node.id.get_create_plist()
        used = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
        if not set(used) <= set(_FILTERS):
            raise ValueError(f"{node.name!r} is packed by filters {used}, which are not read")
        self.claimed += math.prod(node.shape or ()) * node.dtype.itemsize
        check_claim(self.claimed, self.path, f"its content up to {node.name!r}")


def _attribute(node: Any, name: str) -> str:
    value = node.attrs.get(name, "")
    return value.decode("ascii") if isinstance(value, bytes) else str(value)


def _numeric(cls: str) -> str:
    return {"double": "float64", "single": "float32", "logical": "bool"}.get(cls, cls)


def _empty(shape: tuple[int, ...], cls: str) -> Array:
    if min(shape, default=0) < 0 or math.prod(shape) != 0:
        raise ValueError(f"an empty array of shape {shape}")
    if cls == "char":
        return np.empty(0, dtype=str)
    return np.empty(shape, dtype=object if cls in ("cell", "struct") else np.float64)


def _text(codes: Array) -> Array:
    """One string a row."""
    if codes.dtype.kind != "u" or codes.ndim != 2:
        raise ValueError(f"text as {codes.dtype} of shape {codes.shape}")
    return np.array(["".join(map(chr, row)) for row in codes.tolist()], dtype=str)


def _other(cls: str) -> Array:
    """What stands for something that is not loaded."""
    out = np.empty((1, 1), dtype=object)
    out[0, 0] = cls
    return out
