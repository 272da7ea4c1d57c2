"""Files opened with suspicion: damage, false claims and code in a file end in one clear error, and nothing is kept."""

from __future__ import annotations

import io
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

import betz
from betz.core.errors import BetzError
from betz.data.importers import FileError, ImportedFile, import_files
from betz.data.importers.example import example_mapping
from betz.data.importers.files import open_arrays, session_id
from betz.data.importers.mapping import load_mapping
from betz.data.importers.mat5 import load, walk
from betz.data.store import Store
from tests.unit import layout_files as layouts
from tests.unit import recording_files as files
from tests.unit.recording_files import BINS, CSV_LAYOUT, LAYOUT

MAKERS: dict[str, tuple[Callable[[Path], Path], Any]] = {
    ".npz": (files.npz, LAYOUT),
    ".mat": (files.mat, LAYOUT),
    ".csv": (files.csv, CSV_LAYOUT),
}


def refused(path: Path, mapping: Any = LAYOUT) -> FileError:
    """The error of a file that must not be read; a store it is imported into must stay empty."""
    with pytest.raises(FileError, match=r".") as caught:
        betz.read(path, mapping=mapping)
    store = Store(path.parent / "store", create=True)
    report = import_files([path], store, mapping=mapping)
    assert report.skipped == {caught.value.reason: 1}
    assert not store.ids
    assert sorted(p.name for p in store.path.rglob("*") if p.is_file() and not p.name.startswith(".lock")) == [
        "betz-store.json"
    ]
    assert "\n" not in str(caught.value)
    return caught.value


# ---- opening


def test_variables_are_listed_from_headers(tmp_path: Path) -> None:
    made = files.mat(tmp_path / "a.mat", s={"x": 1.0}, text="hello", flag=np.array([True]), small=np.int8([[1, 2]]))
    listed = {name: str(v) for name, v in open_arrays(made).variables.items()}
    assert listed == {
        "counts": "uint8 400x5",
        "velocity": "float64 400x2",
        "s": "struct 1x1",
        "text": "char 1x1",
        "flag": "bool 1x1",
        "small": "int8 1x2",
    } | {"text": listed["text"]}
    assert listed["text"].startswith("char")
    assert {n: str(v) for n, v in open_arrays(files.npz(tmp_path / "a.npz", s=1.5)).variables.items()} == {
        "counts": "uint8 400x5",
        "velocity": "float64 400x2",
        "s": "float64 scalar",
    }


@pytest.mark.parametrize(
    "name, content, text",
    [
        ("a.xyz", b"NEURALEV", r"a.xyz: files of type .\.xyz. are not known. Remedy: import .* betz formats lists"),
        ("a", b"x", r"files of type '\(none\)' are not known"),
        ("a.npz", b"", r"a.npz: it is empty \(0 bytes\). Remedy: copy it again"),
        ("a.mat", b"MATLAB 7.3 MAT-file" + bytes(600), "no .mat file .ValueError: it does not start like a MATLAB 5"),
        ("a.mat", b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n" + bytes(600), "no .mat file .OSError"),
        ("a.mat", b"hello" * 100, "no .mat file .ValueError: it does not start like a MATLAB 5 file"),
        ("a.npz", b"hello" * 100, "no .npz file .BadZipFile"),
        ("a.csv", b"\xff\xfe\x00a,b\n1,2\n", "no .csv file .UnicodeDecodeError"),
        ("a.csv", b"1,2,3\n4,5,6\n", "its first row does not name the columns once each: 1, 2, 3"),
        ("a.csv", b"a;b\n1,5;2\n", "its columns are separated by ';'. Remedy: export it with commas"),
        ("a.csv", b"a,b,a\n4,5,6\n", "its first row does not name the columns once each"),
        ("a.csv", b"a,b\n1,2\n3\n", "line 3 has 1 cells, the header has 2. Remedy: the file may be truncated"),
        ("a.csv", b"a,b\n1,2\n3,four\n", "line 3, column 'b' holds 'four', not a number"),
    ],
)
def test_files_that_cannot_be_opened(name: str, content: bytes, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FileError, match=text):
        open_arrays(path)
    refused(path)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"x\.npz: there is no such file\. Remedy: check the path"):
        betz.read(tmp_path / "x.npz")
    with pytest.raises(FileError, match=r"it is a folder\. Remedy: name the files in it"):
        betz.read(tmp_path)


def test_an_archive_without_arrays(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "none.npz", "w"):
        pass
    assert "there is no array in it" in str(refused(tmp_path / "none.npz"))
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "'readme.txt' in it is no .npy array" in str(refused(tmp_path / "other.npz"))
    scipy.io.savemat(tmp_path / "none.mat", {})
    assert "there is no array in it" in str(refused(tmp_path / "none.mat"))


def test_csv_cells(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\ufeff t , ch1\n0, 1\n1,\n\n 2 , 3\n3,  \n")
    file = open_arrays(tmp_path / "a.csv")
    assert list(file.variables) == ["t", "ch1"]
    np.testing.assert_array_equal(file.load("t"), [0, 1, 2, 3])
    np.testing.assert_array_equal(file.load("ch1"), [1, np.nan, 3, np.nan])
    with pytest.raises(FileError, match=r"no column matches 'x\*'; it has t \(float64 4\)"):
        file.columns(["x*"])


@pytest.mark.parametrize("value, text", [(scipy.sparse.eye(5), r"a sparse matrix. Remedy: save full\(counts\)"),
                                         ({"a": 1}, "struct 1x1, not numbers|'counts' is object"),
                                         (np.array([1 + 2j]), "not numbers")])  # fmt: skip
def test_variables_that_are_no_plain_arrays(value: Any, text: str, tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"counts": value, "velocity": files.velocity_NK()})
    with pytest.raises(FileError, match=text):
        betz.read(tmp_path / "a.mat", mapping=LAYOUT)


@pytest.mark.parametrize(
    "name, id_",
    [("monkey 1 (a).npz", "monkey_1__a_"), (".hidden.mat", "hidden"), ("é.csv", "session"), ("a.b.npz", "a.b")],
)
def test_session_ids_from_file_names(name: str, id_: str) -> None:
    assert session_id(Path(name)) == id_


# ---- code and false claims


class _Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def test_pickled_objects_are_refused_and_not_executed(tmp_path: Path) -> None:
    bomb = np.empty(1, dtype=object)
    bomb[0] = _Bomb(tmp_path / "executed")
    np.savez(tmp_path / "a.npz", counts=bomb)
    error = refused(tmp_path / "a.npz")
    assert "variable 'counts' holds Python objects (pickle), which are never loaded" in str(error)
    hidden = io.BytesIO()
    np.save(hidden, bomb, allow_pickle=True)
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:  # a header that lies about it
        archive.writestr("counts.npy", hidden.getvalue().replace(b"'|O'", b"'u1'"))
    refused(tmp_path / "b.npz")
    assert not (tmp_path / "executed").exists()


def peak_mb(call: Callable[[], object]) -> float:
    """Memory asked for at most by Python and NumPy while ``call`` runs."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "make, text",
    [
        (
            lambda p: files.npz_claiming(p / "a.npz", (50_000, 50_000)),
            r"shape \(50000, 50000\) claims 20 GB, but the whole",
        ),
        (lambda p: files.npz_claiming(p / "a.npz", (50,), size=2**32 - 9), "its content up to 'counts' claims 4.29 GB"),
        (lambda p: files.npz_claiming(p / "a.npz", (-1, 5)), "claims -40 bytes of data and holds 80"),
        (lambda p: files.npz_claiming(p / "a.npz", (11,)), "claims 88 bytes of data and holds 80"),
        (lambda p: files.npz_claiming(p / "a.npz", (1 << 40, 1 << 40)), "claims 9.67e\\+15 GB"),
        (lambda p: files.mat_claiming(p / "a.mat", (50_000, 50_000)), r"shape \(50000, 50000\) in 640 bytes"),
        (lambda p: files.mat_claiming(p / "a.mat", (-1, 8)), "a negative dimension"),
        (lambda p: files.mat_claiming(p / "a.mat", (9, 8)), r"shape \(9, 8\) in 640 bytes of type 9"),
    ],
)
def test_headers_that_claim_more_than_there_is(make: Callable[[Path], Path], text: str, tmp_path: Path) -> None:
    path = make(tmp_path)
    with pytest.raises(FileError, match=text):
        betz.read(path, mapping=LAYOUT)
    assert peak_mb(lambda: refused(path)) < 20


def test_archives_that_unpack_to_far_more_than_they_are(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", counts=np.zeros((100_000_000,), np.uint8))
    error = None
    assert peak_mb(lambda: _catch(tmp_path / "a.npz")) < 20
    error = _catch(tmp_path / "a.npz")
    assert "claims 0.1 GB" in str(error)
    assert error.reason == "impossible size"
    scipy.io.savemat(tmp_path / "a.mat", {"counts": np.zeros((100_000_000, 1), np.uint8)}, do_compression=True)
    error = _catch(tmp_path / "a.mat")
    assert "its content claims" in str(error)


def _catch(path: Path) -> FileError:
    with pytest.raises(FileError, match="claims") as caught:
        betz.read(path, mapping=LAYOUT)
    return caught.value


def test_compressed_matlab_elements_are_checked(tmp_path: Path) -> None:
    path = files.mat(tmp_path / "a.mat")
    content = path.read_bytes()
    size = int.from_bytes(content[132:136], "little")
    inner = bytearray(zlib.decompress(content[136 : 136 + size]))
    inner[32:40] = np.array([40_000, 500_000], "<i4").tobytes()  # 20 GB of uint8
    packed = zlib.compress(bytes(inner))
    path.write_bytes(content[:128] + (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed)
    with pytest.raises(FileError, match=r"an array of shape \(40000, 500000\) in 2000 bytes"):
        betz.read(path, mapping=LAYOUT)


def same(ours: Any, theirs: Any) -> bool:
    """Whether a value that we loaded is what SciPy loads (which keeps the number type of the storage)."""
    if hasattr(theirs, "_fieldnames"):
        return list(ours) == theirs._fieldnames and all(same(ours[n], getattr(theirs, n)) for n in theirs._fieldnames)
    if theirs.dtype == object:
        pairs = zip(ours.ravel(), theirs.ravel(), strict=True)
        return ours.shape == theirs.shape and all(same(a, b) for a, b in pairs)
    if theirs.dtype.kind == "U":
        return ours.tolist() == theirs.tolist()
    return ours.shape == theirs.shape and np.array_equal(ours, theirs, equal_nan=True)


def test_what_is_loaded_is_what_scipy_loads(tmp_path: Path) -> None:
    cell = np.empty((2, 3), dtype=object)
    for k, index in enumerate(np.ndindex(cell.shape)):
        cell[index] = np.arange(k)[None, :]
    values = {
        "a": np.random.default_rng(0).normal(size=(3, 4, 2)),
        "b": np.array([[1 + 2j, 3]]),
        "c": cell,
        "d": {"e": {"f": np.int16([[3]])}, "g": "text é", "h": np.array(["ab ", "cd "])},
        "i": np.zeros((0, 3), np.uint8),
        "j": np.array([[True, False]]),
        "k": np.float32([[1.5], [np.nan]]),
        "l": np.array([[2**60]], np.int64),
        "m": np.array([[(1.0, 2.0), (3.0, 4.0)]], dtype=[("x", float), ("y", float)]),
    }
    for compressed in (False, True):
        path = tmp_path / "a.mat"
        scipy.io.savemat(path, values, do_compression=compressed)
        theirs = scipy.io.loadmat(path, struct_as_record=False)
        assert {name: shape for name, (shape, _) in walk(path).items()} == {
            name: tuple(shape) for name, shape, _ in scipy.io.whosmat(path)
        }
        for name in values:
            ours = load(path, name)
            assert same(ours, theirs[name]) or (name == "k" and np.array_equal(ours, theirs[name], equal_nan=True)), (
                name
            )
    with pytest.raises(KeyError, match="'z'"):
        load(path, "z")


# ---- damage


@pytest.mark.parametrize("suffix", MAKERS)
def test_truncated_files(suffix: str, tmp_path: Path) -> None:
    make, mapping = MAKERS[suffix]
    path = make(tmp_path / f"a{suffix}")
    whole = path.read_bytes()
    for share in (0.02, 0.3, 0.6, 0.95):
        path.write_bytes(whole[: int(len(whole) * share)])
        if suffix == ".csv":
            path.write_bytes(path.read_bytes().rsplit(b",", 2)[0])  # inside a line; at its end nothing is wrong
        error = refused(path, mapping)
        assert error.reason in ("damaged file", "missing variable", "no header"), error
        assert error.where == path.name
        assert error.remedy


def damaged(content: bytes, seed: int) -> bytes:
    """A copy that is cut, or in which one to five bits are flipped."""
    rng = np.random.default_rng(seed)
    if seed % 4 == 0:
        return content[: rng.integers(1, len(content))]
    out = bytearray(content)
    for at in rng.integers(0, len(out) if seed % 2 else min(600, len(out)), rng.integers(1, 6)):
        out[at] ^= 1 << int(rng.integers(0, 8))
    return bytes(out)


@pytest.mark.parametrize("suffix", [*MAKERS, "raw.mat", "binned.mat"])
def test_damage_never_ends_in_anything_but_our_own_errors(suffix: str, tmp_path: Path) -> None:
    if suffix == "raw.mat":  # no checksum: flipped bits reach the structure and the values
        path, mapping = tmp_path / suffix, LAYOUT
        scipy.io.savemat(path, {"counts": files.counts_NC(bins=60), "velocity": files.velocity_NK(bins=60)})
    elif suffix == "binned.mat":
        rates = files.counts_NC(bins=60).astype(np.float32) * np.float32(20)
        path, mapping = files.binned(tmp_path / suffix, spikeratedata=rates), None
        scipy.io.savemat(path, {k: v for k, v in scipy.io.loadmat(path).items() if k[0] != "_"}, do_compression=False)
    else:
        make, mapping = MAKERS[suffix]
        path = make(tmp_path / f"a{suffix}")
    whole, store = path.read_bytes(), Store(tmp_path / "store", create=True)
    outcomes: list[ImportedFile] = []
    for seed in range(40):
        path.write_bytes(damaged(whole, seed))
        outcomes += import_files([path], store, mapping=mapping, replace=True).files
    errors = [file.error for file in outcomes if file.error is not None]
    assert len(errors) >= 10
    assert all(isinstance(error, BetzError) and str(error) for error in errors)
    for id_ in store.ids:  # what was kept is whole
        store.verify(id_)


LAYOUTS: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    "chewie.npz": (layouts.chewie, {}),
    "dcca.mat": (layouts.dcca, {}),
    "redundancy.mat": (layouts.redundancy, {}),
    "stabilized.mat": (layouts.stabilized, {}),
    "joystick.mat": (layouts.joystick, {}),
    "dad.mat": (layouts.dad, {"rates_to_counts": True}),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_damage_of_the_public_layouts(name: str, tmp_path: Path) -> None:
    make, options = LAYOUTS[name]
    path = make(tmp_path / name)
    whole, store = path.read_bytes(), Store(tmp_path / "store", create=True)
    assert import_files([path], store, options=options).skipped == {}
    outcomes: list[ImportedFile] = []
    for seed in range(32):
        path.write_bytes(damaged(whole, seed))
        outcomes += import_files([path], store, options=options, replace=True).files
    errors = [file.error for file in outcomes if file.error is not None]
    assert len(errors) >= 10
    assert all(isinstance(error, BetzError) and str(error) and "\n" not in str(error) for error in errors)
    for id_ in store.ids:  # what was kept is whole
        store.verify(id_)


def test_importing_the_importers_is_light() -> None:
    code = "import sys, betz.data.importers; print(sorted({'scipy', 'torch', 'h5py', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# ---- a mapping to start from


def test_the_example_mapping_can_be_read_and_used(tmp_path: Path) -> None:
    clock = {"t": np.arange(BINS) * 0.02}
    made = [
        files.npz(tmp_path / "a.npz", **clock),
        files.mat(tmp_path / "b.mat", **clock),
        files.csv(tmp_path / "c.csv"),
    ]
    for path in made:
        (tmp_path / "m.toml").write_text(example_mapping(open_arrays(path)))
        mapping, _ = load_mapping(tmp_path / "m.toml")
        session = betz.read(path, mapping=mapping)
        assert (session.bin_ms, session.num_bins) == (20, BINS)
        np.testing.assert_array_equal(session.signals, files.counts_NC())
        assert len(session.dims) == 2


def test_the_example_mapping_of_odd_files(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "a.npz",
        **{'spikes "x"\n': files.counts_NC().T, "kin": files.velocity_NK().T, "bin_ms": 20, "é\x7f": np.zeros(BINS)},
    )
    text = example_mapping(open_arrays(tmp_path / "a.npz"))
    (tmp_path / "m.toml").write_text(text, encoding="utf-8")
    mapping, _ = load_mapping(tmp_path / "m.toml")
    assert mapping.signals.axes == ("channel", "time")
    assert (mapping.time.bin_variable, mapping.time.bin_unit) == ("bin_ms", "ms")
    assert {(b.variable, b.transposed) for b in mapping.behavior} == {("kin", True), ("é\x7f", False)}
    np.testing.assert_array_equal(betz.read(tmp_path / "a.npz", mapping=mapping).signals, files.counts_NC())
    scipy.io.savemat(tmp_path / "a.mat", {"D": {"x": 1.0}})
    with pytest.raises(FileError, match=r"there is no array of numbers in it; it has D \(struct 1x1\)"):
        example_mapping(open_arrays(tmp_path / "a.mat"))
