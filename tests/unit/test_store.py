"""The store: put, get, replace, remove; what is refused; everything comes back read-only."""

from __future__ import annotations

import json
import mmap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import betz
from betz.core.errors import DataError
from betz.core.session import Assistance, Provenance, Session, Trials
from betz.data.arrays import from_arrays
from betz.data.store import Store
from tests.unit.store_helpers import array_file, assert_same, full_session, leftovers, python, seal_of, small, value_of


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "deep" / "store", create=True)


@pytest.mark.parametrize("spikes", [False, True])
def test_everything_comes_back(store: Store, spikes: bool) -> None:
    session = full_session(spikes=spikes)
    store.put(session)
    found = betz.Store(store.path).get("full")
    assert_same(session, found)
    assert_same(session.signals, found.signals)
    store.verify("full")
    assert leftovers(store.path) == []


def test_arrays_are_mapped_and_read_only(store: Store) -> None:
    store.put(small(1, bins=1000, channels=100))
    counts = store.get("one").counts
    assert counts is not None
    base: Any = counts
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)
    with pytest.raises(ValueError, match="read-only"):
        counts[0, 0] = 3
    short = store.get("one").behavior[0].values
    with pytest.raises(ValueError, match="read-only"):
        short[0, 0] = 3


def test_ids_are_sorted_and_taken_ones_refused(store: Store) -> None:
    for id in ("b", "a.1", "a"):
        store.put(small(1, id=id))
    assert store.ids == ("a", "a.1", "b")
    with pytest.raises(DataError, match=r"'a' is there already.*another id, or replace=True"):
        store.put(small(2, id="a"))
    assert value_of(store.get("a")) == 1


def test_ids_that_begin_alike_keep_their_arrays(store: Store) -> None:
    for id in ("m", "m.1", "m.1.2"):
        store.put(small(1, id=id))
    store.put(small(2, id="m"), replace=True)
    store.remove("m.1")
    assert [value_of(store.get(id)) for id in store.ids] == [2, 1]
    assert leftovers(store.path) == []


def test_replacing_does_not_disturb_readers(store: Store) -> None:
    store.put(small(1, bins=1000, channels=100))
    old = store.get("one")
    store.put(small(2, bins=500, channels=3), replace=True)
    assert value_of(old) == 1
    assert value_of(store.get("one")) == 2
    assert leftovers(store.path) == []


def test_a_mapped_session_can_be_put_in_its_own_place(store: Store) -> None:
    store.put(full_session())
    store.put(replace(store.get("full"), task="other"), replace=True)
    assert_same(store.get("full"), replace(full_session(), task="other"))
    store.put(replace(store.get("full").between(10, 35), id="part"))
    assert_same(store.get("part"), replace(full_session().between(10, 35), id="part", task="other"))


def test_removing(store: Store) -> None:
    store.put(small(1))
    store.remove("one")
    assert store.ids == ()
    assert leftovers(store.path) == []
    with pytest.raises(DataError, match="no session 'one'"):
        store.remove("one")
    with pytest.raises(DataError, match=r"no session 'one'.*it has no sessions"):
        store.get("one")


def test_the_manifest_is_plain_and_sealed(store: Store) -> None:
    store.put(full_session())
    manifest = store.manifest("full")
    assert manifest["sha256"] == seal_of(manifest)
    assert manifest["grid"] == {"tick_hz": 30_000, "ticks_per_bin": 600, "origin_tick": 7}
    assert manifest["files"]["counts"]["shape"] == [100, 3]
    assert np.array_equal(np.load(array_file(store.path, "full", "counts")), full_session().counts)  # type: ignore[arg-type]


def test_numpy_numbers_are_stored_as_numbers(store: Store) -> None:
    session = replace(
        small(1),
        assistance=(Assistance(np.int64(3), np.int64(9), "active", np.float32(0.5)),),  # type: ignore[arg-type]
        provenance=Provenance(options={"n": np.int16(3), "yes": np.bool_(True)}),
    )
    store.put(session)
    assert store.get("one").assistance == (Assistance(3, 9, "active", 0.5),)
    assert store.get("one").provenance.options == {"n": 3, "yes": True}


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), object(), np.array([1])])
def test_what_json_cannot_hold_is_refused(store: Store, value: Any) -> None:
    with pytest.raises(DataError, match=r"session 'one': it has something that JSON cannot hold.*plain numbers"):
        store.put(replace(small(1), provenance=Provenance(options={"x": value})))
    assert store.ids == ()


def test_trial_columns_of_objects_are_refused(store: Store) -> None:
    trials = Trials(np.array([0]), np.array([9]), columns={"cue": np.array([{"a": 1}])})
    with pytest.raises(DataError, match=r"session 'one': the trial column 'cue' is of object, which cannot be stored"):
        store.put(replace(small(1), trials=trials))
    assert leftovers(store.path) == []


BAD_IDS = ["../x", "..", ".", "", "a/b", "/etc/passwd", "a\\b", "a\0b", ".hidden", "a b", 5, None]


@pytest.mark.parametrize("id", BAD_IDS)
def test_ids_cannot_leave_the_store(store: Store, id: Any) -> None:
    (store.path.parent / "x.json").write_text("{}")
    for use in (store.get, store.manifest, store.verify, store.remove):
        with pytest.raises(DataError, match="cannot be the id of a session"):
            use(id)
    with pytest.raises(DataError, match="cannot be the id of a session"):
        store.windows(bins=1, ids=[id])
    assert (store.path.parent / "x.json").exists()


def test_opening_what_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no store here.*create=True"):
        Store(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="this is no store"):
        Store(tmp_path / "file")
    with pytest.raises(DataError, match=r"it cannot be written to"):
        Store(tmp_path / "file", create=True)


@pytest.mark.parametrize("content", ["sessions/mine.txt", "arrays/recording/raw.bin", "thesis.tex"])
def test_a_folder_with_something_else_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("years of work")
    with pytest.raises(DataError, match=rf"holds something else \({content.split('/')[0]}\)"):
        Store(tmp_path, create=True)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


def test_an_unfinished_creation_is_finished(tmp_path: Path) -> None:
    (tmp_path / "sessions").mkdir()
    (tmp_path / ".tmp-0123456789ab").write_text("{")
    store = Store(tmp_path, create=True)
    store.put(small(1))
    assert leftovers(tmp_path) == []


def test_a_store_is_opened_again_with_create(store: Store) -> None:
    store.put(small(1))
    assert value_of(Store(store.path, create=True).get("one")) == 1


def test_files_of_others_are_not_swept(store: Store) -> None:
    for name in ("arrays/README", "sessions/notes.txt", "arrays/one.copy/counts.npy"):
        (store.path / name).parent.mkdir(exist_ok=True)
        (store.path / name).write_text("mine")
    store.put(small(1))
    store.put(small(2), replace=True)
    store.remove("one")
    assert [p.read_text() for p in store.path.rglob("*") if p.is_file() and p.name[0] not in ".b"] == ["mine"] * 3


LEFTOVERS = ["arrays/.tmp-0123456789ab/counts.npy", "arrays/one.0123456789ab/counts.npy", "arrays/gone.0123456789ab/x",
             "sessions/.tmp-0123456789ab", ".tmp-0123456789ab"]  # fmt: skip


@pytest.mark.parametrize("name", LEFTOVERS)
def test_what_a_killed_writer_left_is_swept(store: Store, name: str) -> None:
    store.put(small(1))
    (store.path / name).parent.mkdir(exist_ok=True)
    (store.path / name).write_text("half")
    assert value_of(store.get("one")) == 1
    store.put(small(2, id="two"))
    assert leftovers(store.path) == []
    assert [value_of(store.get(id)) for id in store.ids] == [1, 2]


def test_many_sessions_open_at_a_time() -> None:
    """Each memory map costs a file descriptor; small arrays are read instead."""
    code = """
import resource, tempfile
from betz.data.store import Store
from tests.unit.store_helpers import full_session, assert_same
with tempfile.TemporaryDirectory() as folder:
    store = Store(folder, create=True)
    session = full_session()
    store.put(session)
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    held = [store.get("full") for _ in range(100)]
    assert_same(session, held[-1])
    print(len(held))
"""
    assert python("-c", code) == "100\n"


def test_a_session_of_one_bin_and_no_behavior(store: Store) -> None:
    session: Session = from_arrays(np.zeros((1, 1), np.uint8), bin_ms=20)
    store.put(session)
    assert_same(session, store.get("session"))


def test_the_head_says_what_it_is(store: Store) -> None:
    assert json.loads((store.path / "betz-store.json").read_bytes()) == {"format": "betz store", "version": 2}
