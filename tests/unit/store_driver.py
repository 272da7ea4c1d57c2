"""Processes that are killed, starved of space or run against each other while they use a store.

    python -m tests.unit.store_driver {lines,times,concurrent,limits,fill} FOLDER …

Run by ``test_store_crash.py`` in a process of its own, because it forks. Prints one JSON object; anything that is not
as it must be is an AssertionError and exit code 1.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from betz.core.errors import DataError
from betz.core.session import Provenance, Session
from betz.data import disk
from betz.data.store import Store
from tests.unit.store_helpers import assert_same, full_session, leftovers, small, value_of

OLD, NEW = full_session(id="one", seed=1, bins=60), full_session(id="one", seed=2, bins=50, spikes=True)
OTHER = small(7, id="other", bins=3, channels=1)
BRIEF_OLD, BRIEF_NEW = small(1, bins=300), small(2, bins=310)
BRIEF_SPIKES = replace(small(1, channels=2), counts=None, spikes=(np.arange(0, 800, 7), np.arange(3)))
TRACED = ("data/store.py", "data/disk.py", "core/files.py", "shutil.py")


def in_child(action: Callable[[], object]) -> int:
    """Run it in a forked process; its wait status."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def killed_at(line: int, action: Callable[[], object]) -> bool:
    """Whether kill -9 came: in a child, when the given line of the store's code (and of ``shutil``) is about to run."""

    def act() -> None:
        seen = 0

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal seen
            if not frame.f_code.co_filename.endswith(TRACED):
                return None
            if event == "line":
                seen += 1
                if seen == line:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        disk._CHUNK = 1000  # arrays are written in several pieces
        sys.settrace(trace)
        action()

    status = in_child(act)
    assert status in (0, signal.SIGKILL), f"the child failed at line {line}"
    return status == signal.SIGKILL


def which(folder: Path, allowed: tuple[Session | None, ...], *, verify: bool = True) -> int:
    """Which of the allowed sessions (None: none) the store holds as "one", checked by hash and bit for bit."""
    store = Store(folder)
    found = store.get("one") if "one" in store.ids else None
    if found is not None and verify:
        store.verify("one")
    for k, session in enumerate(allowed):
        if found is None and session is None:
            return k
        if found is not None and session is not None and found.num_bins == session.num_bins:
            assert_same(found, session)
            return k
    raise AssertionError(f"the store holds {store.ids}, {found}")


def lines(folder: Path) -> dict[str, Any]:
    """kill -9 before every line of creating and replacing, every second or third of putting, removing and caching."""
    os.fsync = lambda fd: None  # kill -9 does not lose what was written: this saves time
    first = np.array([[0, 9]])
    cases: dict[str, tuple[int, Session | None, Session | None, Callable[[Store], object]]] = {
        "put": (2, None, BRIEF_NEW, lambda store: store.put(BRIEF_NEW)),
        "replace": (1, BRIEF_OLD, BRIEF_NEW, lambda store: store.put(BRIEF_NEW, replace=True)),
        "remove": (3, BRIEF_OLD, None, lambda store: store.remove("one")),
        "cache": (2, BRIEF_SPIKES, BRIEF_SPIKES, lambda store: store.windows(bins=3, ids=["one"]).read(first)),
    }
    result: dict[str, Any] = {"create": killed_creations(folder / "created")}
    for name, (step, before, after, action) in cases.items():
        path, line, seen = folder / name, 1 - step, Counter[int]()
        Store(path, create=True).put(OTHER)
        dirty, killed = 0, True
        while killed:
            line += step
            if before is not None:
                Store(path).put(before, replace=True)
            killed = killed_at(line, lambda path=path, action=action: action(Store(path)))  # type: ignore[misc]
            state = which(path, (before, after))
            seen[state] += 1
            assert killed or before is after or state == 1
            if before is after:
                signals = Store(path).windows(bins=3, ids=["one"]).read(first)[0]
                assert np.array_equal(signals[0], BRIEF_SPIKES.signals[9:12])
            dirty += bool([x for x in leftovers(path) if "cache" not in x])
            if "one" in Store(path).ids:
                Store(path).remove("one")
            else:
                Store(path).put(OTHER, replace=True)
            assert leftovers(path) == [], leftovers(path)
            assert value_of(Store(path).get("other")) == 7
        result[name] = {"lines": line - step, "before": seen[0], "after": seen[1], "dirty": dirty}
    return result


def killed_creations(folder: Path) -> dict[str, int]:
    """kill -9 before every line of making a store: afterwards it can be made."""
    line, killed = 0, True
    while killed:
        line += 1
        path = folder / str(line)
        killed = killed_at(line, lambda path=path: Store(path, create=True))  # type: ignore[misc]
        Store(path, create=True).put(OTHER)
        assert leftovers(path) == []
    return {"lines": line - 1}


def times(folder: Path, kills: int = 20) -> dict[str, Any]:
    """kill -9 from outside at moments spread over the whole time of replacing a larger session."""
    old, new = (small(v, bins=n, channels=100) for v, n in ((1, 30_000), (2, 31_000)))
    store = Store(folder, create=True)
    store.put(old)
    begun = time.perf_counter()
    assert in_child(lambda: store.put(new, replace=True)) == 0
    took = time.perf_counter() - begun
    seen, dirty, late = Counter[int](), 0, 0
    for k in range(kills):
        store.put(old, replace=True)
        child = os.fork()
        if child == 0:
            store.put(new, replace=True)
            os._exit(0)
        time.sleep(took * 1.1 * k / kills)
        os.kill(child, signal.SIGKILL)
        late += os.waitpid(child, 0)[1] == 0
        seen[which(folder, (old, new))] += 1
        dirty += bool(leftovers(folder))
        store.put(OTHER, replace=True)
        assert leftovers(folder) == []
    return {"old": seen[0], "new": seen[1], "dirty": dirty, "late": late}


def concurrent(folder: Path, seconds: float = 2.0) -> dict[str, Any]:
    """Two writers, two readers and one reader of windows, of the same two sessions."""
    Store(folder, create=True)
    for id in "ab":
        Store(folder).put(small(0, id=id))
    end, children = time.perf_counter() + seconds, []

    def write(offset: int) -> int:
        number = 0
        while time.perf_counter() < end:
            value = 1 + (2 * number + offset) % 200
            Store(folder, create=True).put(small(value, id="ab"[number % 2], bins=40 + value), replace=True)
            number += 1
        return number

    def read() -> int:
        number, store = 0, Store(folder)
        while time.perf_counter() < end:
            id = "ab"[number % 2]
            session = store.get(id)
            assert session.num_bins == 40 + value_of(session) or value_of(session) == 0
            store.verify(id)
            assert store.ids == ("a", "b")
            number += 1
        return number

    def draw() -> int:
        number, store, rng = 0, Store(folder), np.random.default_rng(0)
        while time.perf_counter() < end:
            windows = store.windows(bins=9, ids="ab"[number % 2 :][:1].split(), behavior=["x"])
            try:
                signals, behavior = windows.read(windows.draw(rng, 20))
            except DataError as error:
                assert "was replaced since these windows were made" in error.what  # noqa: PT017
                continue
            assert behavior is not None
            assert np.unique(signals).size == 1
            assert np.all(behavior == signals[0, 0, 0])
            number += 1
        return number

    counts = folder.parent / "counts"
    counts.mkdir()
    for k, work in enumerate((lambda: write(0), lambda: write(1), read, read, draw)):
        child = os.fork()
        if child == 0:
            try:
                (counts / str(k)).write_text(str(work()))
            except BaseException as error:
                print(f"process {k}: {type(error).__name__}: {error}", file=sys.stderr)
                os._exit(1)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 5
    Store(folder).put(OTHER)
    assert leftovers(folder) == []
    return {"done": [int((counts / str(k)).read_text()) for k in range(5)]}


def refused(store: Store, session: Session, before: dict[Path, bytes]) -> bool:
    """Whether putting failed; then with the right message and every file as before."""
    try:
        store.put(session, replace=True)
    except DataError as error:
        said = f"{error.what} {error.remedy}"
        assert re.search("no room to write.*what was there is as before.*free space", said), said
        assert {p: p.read_bytes() for p in store.path.rglob("*") if p.is_file()} == before
        return True
    return False


def limits(folder: Path) -> dict[str, Any]:
    """A limit to the size of files, so that each of them in turn is the one that does not fit."""
    store = Store(folder, create=True)
    store.put(OLD)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    failed: dict[str, int] = {}
    long = replace(small(3), provenance=Provenance(notes=("n" * 50_000,)))  # its manifest is the largest file
    for name, session in (("arrays", NEW), ("manifest", replace(long, id="one"))):
        failed[name] = 0
        for limit in [0, 1, 64, 127, 128, 129, 200, 300, *range(500, 20_000, 500), 49_000]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            try:
                number = refused(store, session, before)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            failed[name] += number
            if not number:
                break
            assert which(folder, (OLD,)) == 0
        store.put(OLD, replace=True)
        before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        Store(folder / "new", create=True)
        raise AssertionError("a store was made without room")
    except DataError as error:
        assert "there is no room to write" in error.what  # noqa: PT017
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert [p.name for p in (folder / "new").rglob("*") if p.is_file()] == []
    assert Store(folder / "new", create=True).ids == ()
    return failed


def fill(folder: Path) -> dict[str, Any]:
    """A small disk of its own, filled up: each try has a little less room."""
    store = Store(folder / "store", create=True)
    store.put(OLD)
    before = {p: p.read_bytes() for p in store.path.rglob("*") if p.is_file()}
    ballast, failed, windows = folder / "ballast", 0, store.windows(bins=5, behavior=["fx"])
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    full = ballast.stat().st_size
    signals, _ = windows.read(np.array([[0, 0]]))  # no room for caches: they stay in memory
    assert np.array_equal(signals[0], OLD.signals[:5])
    for free in range(0, full, 4096):
        os.truncate(ballast, full - free)
        if not refused(store, NEW, before):
            break
        failed += 1
        assert which(store.path, (OLD,)) == 0
    assert which(store.path, (OLD, NEW)) == 1
    assert leftovers(store.path) == []
    return {"failed": failed}


if __name__ == "__main__":
    tasks = {"lines": lines, "times": times, "concurrent": concurrent, "limits": limits, "fill": fill}
    print(json.dumps(tasks[sys.argv[1]](Path(sys.argv[2]))))
