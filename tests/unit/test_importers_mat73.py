"""MATLAB 7.3 files give what the same content gives as MATLAB 5, and nothing leads out of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

import betz
from betz.data.importers import FileError, mat5, mat73
from betz.data.importers.files import open_arrays
from tests.unit.layout_files import cell, poisson, smooth, structs
from tests.unit.layout_files import mat73 as write
from tests.unit.test_importers_files import peak_mb

LAYOUT: dict[str, Any] = {"signals": {"variable": "counts"}, "time": {"bin_ms": 20}}
CONTENT: dict[str, Any] = {
    "counts": poisson(30, 4),
    "single": np.float32([[1.5, 2.5]]),
    "whole": np.arange(6, dtype=np.int16).reshape(2, 3),
    "flag": np.array([[True, False, True]]),
    "cube": np.arange(24.0).reshape(2, 3, 4),
    "text": "hello",
    "none": np.empty((0, 3)),
    "cell": cell([np.arange(3.0)[None, :], "ab", cell([np.ones((2, 1))])], shape=(3, 1)),
    "struct": {"a": {"b": np.eye(2)}, "c": "word"},
    "trials": structs([{"x": np.ones((k, 2)) * k, "name": f"t{k}"} for k in range(1, 4)]),
}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and set(a) == set(b) and all(same(a[k], b[k]) for k in a)
    if a.dtype == object:
        return a.shape == b.shape and all(same(x, y) for x, y in zip(a.ravel(), b.ravel(), strict=True))
    return a.shape == b.shape and a.dtype.kind == b.dtype.kind and np.array_equal(a, b)


def test_what_is_loaded_is_what_version_5_holds(tmp_path: Path) -> None:
    new, old = write(tmp_path / "new.mat", CONTENT), tmp_path / "old.mat"
    scipy.io.savemat(old, CONTENT)
    assert mat73.is_hdf5(new)
    assert not mat73.is_hdf5(old)
    listed = mat73.walk(new)
    assert listed == mat5.walk(old) | {"counts": listed["counts"]}
    for name in CONTENT:
        assert same(mat73.load(new, name), mat5.load(old, name)), name
    assert mat73.load(new, "whole").dtype == np.int16
    session = betz.read(new, mapping=LAYOUT)
    np.testing.assert_array_equal(session.signals, CONTENT["counts"])
    assert session.provenance.skipped == {"variables not in the mapping": len(CONTENT) - 1}
    assert open_arrays(new).load("struct.a.b").tolist() == [[1, 0], [0, 1]]


def test_what_is_neither_number_nor_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mat", {"counts": poisson(9, 3)})
    with h5py.File(path, "r+") as file:
        sparse = file.create_group("sparse")
        sparse.attrs["MATLAB_sparse"] = np.uint64(4)
        table = file.create_dataset("table", data=np.zeros(6, np.uint32))
        table.attrs["MATLAB_object_decode"] = np.int32(3)
        complex_ = np.array([[(1.0, 2.0)]], dtype=[("real", float), ("imag", float)])
        file.create_dataset("complex", data=complex_)
        file.create_dataset("words", data=np.array([b"a", b"b"], dtype=h5py.string_dtype()))
    listed = {name: str(variable) for name, variable in open_arrays(path).variables.items()}
    assert (listed["sparse"], listed["table"]) == ("sparse 1x1", "opaque 1x1")
    for name, text in (
        ("sparse", "variable 'sparse' is a sparse matrix"),
        ("table", "variable 'table' holds opaque 1x1, not numbers"),
        ("complex", "not numbers"),
        ("words", "not numbers"),
    ):
        with pytest.raises(FileError, match=text):
            betz.read(path, mapping={**LAYOUT, "signals": {"variable": name}})


# ---- nothing leads out of a file


def linked(file: Any, folder: Path) -> None:
    file["counts"] = h5py.ExternalLink(str(folder / "other.h5"), "/secret")


def soft(file: Any, folder: Path) -> None:
    file["counts"] = h5py.SoftLink("/#refs#")


def external(file: Any, folder: Path) -> None:
    (folder / "raw.bin").write_bytes(bytes(80))
    file.create_dataset("counts", (5, 2), np.float64, external=[(str(folder / "raw.bin"), 0, 80)])


def virtual(file: Any, folder: Path) -> None:
    layout = h5py.VirtualLayout((5, 2), np.float64)
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "secret", (5, 2))
    file.create_virtual_dataset("counts", layout)


def filtered(file: Any, folder: Path) -> None:
    file.create_dataset("counts", data=np.zeros((50, 2)), compression="lzf", chunks=True)


def nothing(file: Any, folder: Path) -> None:
    file.create_dataset("counts", (2, 1), dtype=h5py.ref_dtype).attrs["MATLAB_class"] = np.bytes_("cell")


def loop(file: Any, folder: Path) -> None:
    made = file.create_dataset("counts", (1, 1), dtype=h5py.ref_dtype)
    made.attrs["MATLAB_class"] = np.bytes_("cell")
    made[0, 0] = made.ref


def half(file: Any, folder: Path) -> None:
    made = file.create_group("counts")
    made.create_dataset("a", (1, 1), dtype=h5py.ref_dtype)
    made.create_dataset("b", data=np.zeros((1, 1)))


def uneven(file: Any, folder: Path) -> None:
    made = file.create_group("counts")
    for name, number in (("a", 1), ("b", 2)):
        field = made.create_dataset(name, (number, 1), dtype=h5py.ref_dtype)
        for k in range(number):
            field[k, 0] = file["v"].ref


@pytest.mark.parametrize(
    "make, text",
    [
        (linked, "'counts' is a link that leads elsewhere"),
        (soft, "'counts' is a link that leads elsewhere"),
        (external, "'/counts' lies in another file"),
        (virtual, "'/counts' lies in another file"),
        (filtered, r"'/counts' is packed by filters \[32000\], which are not read"),
        (nothing, "an element of a cell refers to nothing"),
        (loop, "arrays are nested more than 32 deep"),
        (half, "a struct of which only some fields are those of an array"),
        (uneven, "a struct array whose fields have different shapes"),
    ],
)
def test_what_is_not_followed(make: Callable[[Any, Path], None], text: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.ones((5, 2))
    path = write(tmp_path / "a.mat", {"v": smooth(5)})
    with h5py.File(path, "r+") as file:
        make(file, tmp_path)
    with pytest.raises(FileError, match=text) as caught:
        betz.read(path, mapping=LAYOUT)
    assert caught.value.reason == "damaged file"


def test_a_claim_of_20_gb(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mat", {"v": smooth(5)})
    with h5py.File(path, "r+") as file:
        file.create_dataset("counts", (50_000, 50_000), np.float64, chunks=(100, 100), compression="gzip")

    def refused() -> None:
        with pytest.raises(FileError, match="its content up to '/counts' claims 20 GB, but the whole file has"):
            betz.read(path, mapping=LAYOUT)

    assert peak_mb(refused) < 20


def test_truncated_and_not_hdf5(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mat", CONTENT)
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(
            FileError, match=r"a\.mat: it cannot be read: truncated, damaged or no \.mat file"
        ) as caught:
            betz.read(path, mapping=LAYOUT)
        assert "\n" not in str(caught.value)
