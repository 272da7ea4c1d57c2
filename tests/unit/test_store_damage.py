"""Damaged, edited, forged, older and newer stores: a clear error or the right session, never anything else."""

from __future__ import annotations

import hashlib
import json
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from betz.core.errors import DataError
from betz.data.store import Store
from tests.unit.store_helpers import array_file, assert_same, forge, full_session, leftovers, seal_of, small, value_of

SESSION = full_session()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "store"
    Store(folder, create=True).put(SESSION)
    return folder


@pytest.fixture
def store(tmp_path: Path, whole: Path) -> Store:
    """A copy of a store with one session, to be damaged."""
    return Store(shutil.copytree(whole, tmp_path / "store"))


def manifest_file(store: Store) -> Path:
    return store.path / "sessions" / "full.json"


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "no manifest of a session"),
    "half": (b'{"format": "betz session", "vers', "no manifest of a session"),
    "binary": (bytes(range(256)), "no manifest of a session"),
    "list": (b"[]", "not a 'betz session'"),
    "other format": (b'{"format": "other", "version": 1}', "not a 'betz session'"),
    "no version": (b'{"format": "betz session"}', "format version None"),
    "fraction": (b'{"format": "betz session", "version": 1.5}', "format version 1.5"),
    "infinite": (b'{"format": "betz session", "version": Infinity}', "format version inf"),
    "deep": (b"[" * 100_000, "RecursionError"),
    "newer": (b'{"format": "betz session", "version": 99}', r"99 is newer than this Betz reads \(2\).*update betz"),
    "unknown": (b'{"format": "betz session", "version": 0}', "format version 0 is unknown"),
    "unsealed": (b'{"format": "betz session", "version": 2}', "the manifest was changed after it was written"),
    "NaN": (b'{"format": "betz session", "version": 2, "task": NaN}', "the manifest was changed"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_manifest_says_so(store: Store, name: str) -> None:
    content, message = BROKEN[name]
    manifest_file(store).write_bytes(content)
    for use in (store.get, store.manifest, store.verify, lambda _: store.windows(bins=5)):
        with pytest.raises(DataError, match=message) as caught:
            use("full")
        assert "full.json" in caught.value.where


def test_a_session_with_a_broken_manifest_can_be_replaced_or_removed(store: Store) -> None:
    manifest_file(store).write_bytes(b"")
    store.put(SESSION, replace=True)
    assert_same(store.get("full"), SESSION)
    manifest_file(store).write_bytes(b"")
    store.remove("full")
    assert leftovers(store.path) == []


@pytest.mark.parametrize("field", ["task", "num_bins", "edges", "files", "sha256"])
def test_an_edited_manifest_is_noticed(store: Store, field: str) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        value = manifest[field]
        manifest[field] = value + 1 if isinstance(value, int) else value + "x" if isinstance(value, str) else None

    forge(store.path, "full", edit, sealed=False)
    with pytest.raises(DataError, match=r"manifest was changed after it was written.*put it again with replace=True"):
        store.get("full")


def test_a_manifest_under_another_name_is_noticed(store: Store) -> None:
    manifest_file(store).rename(store.path / "sessions" / "other.json")
    with pytest.raises(DataError, match="it is of session 'full'"):
        store.get("other")


def same_or_error(read: Callable[[], Any]) -> bool:
    """Whether it was read, and then it has to be the right session; any error but a DataError goes through."""
    try:
        found = read()
    except DataError:
        return False
    assert_same(found, SESSION)
    return True


def test_any_changed_byte_of_a_manifest(store: Store) -> None:
    good, rng = manifest_file(store).read_bytes(), np.random.default_rng(0)
    read = 0
    for at in rng.integers(0, len(good), 400).tolist():
        bad = bytearray(good)
        bad[at] = int(rng.integers(0, 256))
        manifest_file(store).write_bytes(bad)
        read += same_or_error(lambda: store.get("full"))
    assert read < 200  # a space that became a tab, or the same byte again


def test_any_cut_of_a_manifest(store: Store) -> None:
    good = manifest_file(store).read_bytes()
    for length in range(0, len(good), 37):
        manifest_file(store).write_bytes(good[:length])
        assert not same_or_error(lambda: store.get("full"))


@pytest.mark.parametrize("name", ["counts", "power", "behavior_1", "trials_0"])
@pytest.mark.parametrize("change", [-1, -100, 1, -(10**9)])
def test_a_file_of_another_length(store: Store, name: str, change: int) -> None:
    path = array_file(store.path, "full", name)
    content = path.read_bytes()
    path.write_bytes(content + b"x" if change > 0 else content[: max(len(content) + change, 0)])
    word = "too long" if change > 0 else "truncated"
    with pytest.raises(DataError, match=rf"{name}.npy: it is {word}: \d+ of {len(content)} bytes.*import the session"):
        store.get("full")


def test_a_missing_file_and_a_missing_folder(store: Store) -> None:
    path = array_file(store.path, "full", "power")
    path.unlink()
    with pytest.raises(DataError, match=r"power.npy: it cannot be read \(No such file"):
        store.get("full")
    with pytest.raises(DataError, match=r"power.npy"):
        store.verify("full")
    path.parent.rename(store.path / "elsewhere")
    with pytest.raises(DataError, match="it cannot be read"):
        store.get("full")


def npy(header: str, content: bytes = b"", *, version: tuple[int, int] = (1, 0)) -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + bytes(version) + len(text).to_bytes(2, "little") + text + content


HEADERS: dict[str, tuple[bytes, str]] = {
    "20 GB": (npy("{'descr': '|u1', 'fortran_order': False, 'shape': (104166666, 192), }"), r"claims uint8 .* 19,999,"),
    "negative": (npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-100, -3), }"), "holds uint8|claims uint8"),
    "other shape": (npy("{'descr': '|u1', 'fortran_order': False, 'shape': (3, 100), }"), r"holds uint8 \(3, 100\)"),
    "other dtype": (npy("{'descr': '|i1', 'fortran_order': False, 'shape': (100, 3), }"), "it holds int8"),
    "columns first": (npy("{'descr': '|u1', 'fortran_order': True, 'shape': (100, 3), }"), "it holds uint8"),
    "objects": (npy("{'descr': '|O', 'fortran_order': False, 'shape': (100, 3), }"), "claims object"),
    "code": (npy("__import__('os').abort()"), "its header cannot be read"),
    "no text": (npy("\x00\x01"), "its header cannot be read"),
    "brackets": (npy("(" * 117), "its header cannot be read"),
    "quote": (npy("{'descr': '''"), "its header cannot be read"),
    "version": (npy("{}", version=(3, 0)), "its header cannot be read"),
    "magic": (b"PK\x03\x04", "its header cannot be read"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_lies(store: Store, name: str) -> None:
    path = array_file(store.path, "full", "counts")
    size, (header, message) = path.stat().st_size, HEADERS[name]
    path.write_bytes(header.ljust(size, b"\x00"))
    tracemalloc.start()
    with pytest.raises(DataError, match=rf"counts.npy: .*{message}"):
        store.get("full")
    assert tracemalloc.get_traced_memory()[1] < 10_000_000  # nothing of the claimed size was allocated
    tracemalloc.stop()


def test_a_forged_claim_of_20_gb_fails_before_memory_is_taken(store: Store) -> None:
    """Manifest and header agree, but the file is not there."""
    path = array_file(store.path, "full", "counts")
    path.write_bytes(npy("{'descr': '|u1', 'fortran_order': False, 'shape': (104166666, 192), }", b"\x00" * 300))
    claim = {"dtype": "|u1", "shape": [104_166_666, 192], "bytes": 128 + 104_166_666 * 192, "sha256": "0" * 64}
    forge(store.path, "full", lambda m: m["files"].update(counts=claim))
    with pytest.raises(DataError, match="it is truncated: 428 of 20000000000 bytes"):
        store.get("full")


@pytest.mark.filterwarnings("ignore:Reading `.npy`:UserWarning")
def test_any_changed_byte_of_a_header(store: Store) -> None:
    path, rng = array_file(store.path, "full", "power"), np.random.default_rng(1)
    good = path.read_bytes()
    read = 0
    for _ in range(300):
        bad = bytearray(good)
        bad[int(rng.integers(0, 80))] = int(rng.integers(0, 256))
        path.write_bytes(bad)
        read += same_or_error(lambda: store.get("full"))
    assert read < 150


@pytest.mark.parametrize("name", ["counts", "power", "behavior_0", "trials_1"])
def test_verify_sees_any_changed_value(store: Store, name: str) -> None:
    path = array_file(store.path, "full", name)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    store.get("full")  # reading checks sizes and headers; hashes are for verify
    with pytest.raises(DataError, match=rf"{name}: the content differs from the hash in the manifest"):
        store.verify("full")


FORGED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "folder": (lambda m: m.update(arrays="../sessions"), r"arrays are in '\.\./sessions'"),
    "parent": (lambda m: m.update(arrays=".."), r"arrays are in '\.\.'"),
    "file": (lambda m: m["files"].update({"../../x": m["files"]["counts"]}), r"array name '\.\./\.\./x'"),
    "column": (lambda m: m["trials"]["columns"].update(target="../x"), "KeyError"),
    "channel": (lambda m: m["channels"][0].update(colour="red"), "unexpected keyword argument 'colour'"),
    "bins": (lambda m: m.update(num_bins=99), r"counts are \(100, 3\), but 99 bins"),
    "no key": (lambda m: m.pop("reward"), "KeyError: 'reward'"),
    "reward": (lambda m: m.update(reward=[1, 2, 3]), "cannot reshape"),
    "large": (lambda m: m.update(edges=[10**30]), "OverflowError"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_sealed_manifest_that_does_not_fit(store: Store, name: str) -> None:
    change, message = FORGED[name]
    forge(store.path, "full", change)
    with pytest.raises(DataError, match=message):
        store.get("full")


def test_spike_offsets_must_fit(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", create=True)
    store.put(full_session(spikes=True))
    path = array_file(store.path, "full", "spike_offsets")
    offsets = np.load(path)
    for bad in (offsets + 1, offsets[::-1], np.array([0, 9, 5, offsets[-1]])):
        buffer = BytesIO()
        np.save(buffer, bad.astype(np.int64))
        path.write_bytes(buffer.getvalue())
        with pytest.raises(DataError, match="spike_offsets do not fit the spikes"):
            store.get("full")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to everything in a manifest."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def test_no_sealed_manifest_leads_to_anything_but_our_errors(store: Store) -> None:
    good, rng = manifest_file(store).read_bytes(), np.random.default_rng(2)
    errors = 0

    def read_a_window(id: str) -> None:
        store.windows(bins=3, ids=[id], behavior=["fx"]).read(np.array([[0, 0]]))

    for path in places(json.loads(good)):
        values = [None, True, -1, 10**30, 2.5, "x", "", [], [[1]], {}, {"a": 1}]
        for value in rng.choice(len(values), 2, replace=False).tolist():
            manifest_file(store).write_bytes(good)

            def put(manifest: Any, path: tuple[Any, ...] = path, value: Any = values[value]) -> None:
                for key in path[:-1]:
                    manifest = manifest[key]
                manifest[path[-1]] = value

            forge(store.path, "full", put)
            for use in (store.get, store.verify, read_a_window):
                try:
                    use("full")
                except DataError:
                    errors += 1
    assert errors > 300


# ---- versions


def version_1(folder: Path) -> None:
    """A store of format version 1, written down without Betz."""
    arrays = folder / "arrays" / "m1.0123456789ab"
    arrays.mkdir(parents=True)
    (folder / "sessions").mkdir()
    counts, behavior = np.array([[1], [2], [3]], np.uint8), np.array([[0.5], [1.0], [1.5]], np.float32)
    files = {}
    for name, array in (("counts", counts), ("behavior_0", behavior)):
        np.save(arrays / f"{name}.npy", array)
        content = (arrays / f"{name}.npy").read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        files[name] = {
            "dtype": array.dtype.str, "shape": list(array.shape), "bytes": len(content), "sha256": sha256
        }  # fmt: skip
    manifest: dict[str, Any] = {
        "format": "betz session", "version": 1, "id": "m1", "subject": "m", "grid": [1000, 20, 40], "num_bins": 3,
        "channels": [{"id": "e1", "kind": "crossings", "array": "A", "unit": ""}],
        "behavior": [{
            "dims": [{"name": "x", "unit": "cm", "kind": "continuous", "classes": [], "derivation": None}],
            "origin_tick": 40, "ticks_per_sample": 20,
        }],
        "valid": [[40, 80]], "edges": [], "trials": None, "task": "reach", "tags": {}, "brain_control": [],
        "assistance": [], "reward": None,
        "provenance": {"source": "", "sha256": "", "importer": "", "options": {}, "notes": [], "skipped": {}},
        "license": "CC0-1.0", "arrays": arrays.name, "files": files,
    }  # fmt: skip
    manifest["sha256"] = seal_of(manifest)
    (folder / "sessions" / "m1.json").write_text(json.dumps(manifest))
    (folder / "betz-store.json").write_text('{"format": "betz store", "version": 1}')


def test_version_1_is_read_as_it_is(tmp_path: Path) -> None:
    version_1(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    store = Store(tmp_path)
    session = store.get("m1")
    store.verify("m1")
    assert (session.grid.tick_hz, session.grid.ticks_per_bin, session.grid.origin_tick) == (1000, 20, 40)
    assert (session.licence, session.task) == ("CC0-1.0", "reach")
    assert session.signals[:, 0].tolist() == [1, 2, 3]
    assert session.behavior_of(["x"])[:, 0].tolist() == [0.5, 1.0, 1.5]
    assert session.segments == ((0, 2),)
    windows = store.windows(bins=2, behavior=["x"])
    signals, behavior = windows.read(np.array([[0, 0]]))
    assert signals[0, :, 0].tolist() == [1, 2]
    assert behavior is not None
    assert behavior[0, :, 0].tolist() == [0.5, 1.0]
    assert store.manifest("m1")["version"] == 2
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_writing_into_version_1_makes_it_version_2(tmp_path: Path) -> None:
    version_1(tmp_path)
    store = Store(tmp_path)
    store.put(small(5))
    assert json.loads((tmp_path / "betz-store.json").read_bytes())["version"] == 2
    assert [value_of(Store(tmp_path).get("one")), Store(tmp_path).get("m1").num_bins] == [5, 3]
    store.put(store.get("m1"), replace=True)
    assert json.loads((tmp_path / "sessions" / "m1.json").read_bytes())["version"] == 2
    assert leftovers(tmp_path) == []


def test_an_edited_version_1_is_noticed_before_it_is_migrated(tmp_path: Path) -> None:
    version_1(tmp_path)
    forge(tmp_path, "m1", lambda m: m.update(license="mine"), sealed=False)
    with pytest.raises(DataError, match="the manifest was changed after it was written"):
        Store(tmp_path).get("m1")
    version_1(tmp_path / "second")
    forge(tmp_path / "second", "m1", lambda m: m.pop("license"))
    with pytest.raises(DataError, match="the manifest does not fit"):
        Store(tmp_path / "second").get("m1")


HEADS = {
    b'{"format": "betz store", "version": 3}': r"format version 3 is newer than this Betz reads \(2\).*update betz",
    b'{"format": "betz store", "version": "2"}': "format version '2'",
    b'{"format": "other"}': "this is no store.*not a 'betz store'.*restore betz-store.json from a copy",
    b"[]": "this is no store",
    b"": "this is no store",
    b"\xff": "this is no store",
}


@pytest.mark.parametrize("content", HEADS)
@pytest.mark.parametrize("create", [False, True])
def test_a_head_that_cannot_be_read(store: Store, content: bytes, create: bool) -> None:
    (store.path / "betz-store.json").write_bytes(content)
    with pytest.raises(DataError, match=HEADS[content]):
        Store(store.path, create=create)


def test_a_store_without_its_folders(store: Store) -> None:
    (store.path / "sessions").rename(store.path / "moved")
    with pytest.raises(DataError, match=r"its manifests cannot be listed.*restore its folder 'sessions'"):
        _ = Store(store.path).ids
    with pytest.raises(DataError, match="its manifests cannot be listed"):
        store.put(small(1))
