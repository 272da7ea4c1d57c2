"""Windows of a store: which there are, how they are drawn, and that reading them equals reading the session."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from betz.core.errors import DataError
from betz.core.intervals import Intervals
from betz.core.seeds import SeedTree
from betz.core.session import BehaviorDim, Channel, Series, Session
from betz.core.timegrid import BinGrid, count_spikes
from betz.data.arrays import from_arrays
from betz.data.store import Store
from betz.data.windows import _MOST_OPEN
from tests.unit.store_helpers import array_file, forge, full_session, leftovers, python, small

Draw = Callable[[st.SearchStrategy[Any]], Any]
RNG = np.random.default_rng


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("shared") / "store", create=True)


def numbered(bins: int, *, id: str = "s", **options: Any) -> Session:
    """Counts and behavior say which bin they are of."""
    k = np.arange(bins)
    counts = np.stack((k % 256, k // 256), axis=1).astype(np.uint8)
    return from_arrays(counts, bin_ms=20, behavior=k[:, None].astype(float), dims=["k"], id=id, **options)


def every_window(windows: Any) -> set[tuple[int, int]]:
    """All windows, found by drawing until all have been seen."""
    seen: set[tuple[int, int]] = set()
    rng = RNG(0)
    for _ in range(200):
        seen |= {(int(n), int(s)) for n, s in windows.draw(rng, 40 * windows.total)}
        if len(seen) >= windows.total:
            break
    return seen


# ---- which windows there are


@st.composite
def layouts(draw: Draw) -> tuple[Session, int]:
    """A session of up to 30 bins with gaps and edges anywhere, and a length of windows."""
    grid, bins = BinGrid(1000, draw(st.integers(1, 5)), draw(st.integers(0, 20))), draw(st.integers(1, 30))
    tick = st.integers(grid.origin_tick - 5, grid.origin_tick + bins * grid.ticks_per_bin + 5)
    pairs = draw(st.lists(st.tuples(tick, tick), max_size=3))
    session = Session(
        "s", "m", grid, bins, (Channel("a"),), counts=np.arange(bins, dtype=np.uint8)[:, None],
        valid=Intervals.of([sorted(p) for p in pairs]) if pairs else None,
        edges=np.array(sorted(draw(st.sets(tick, max_size=4))), np.int64),
    )  # fmt: skip
    return session, draw(st.integers(1, 8))


def allowed(session: Session, width: int) -> set[tuple[int, int]]:
    """Windows that have only valid ticks and no edge inside, tick by tick."""
    step, origin = session.grid.ticks_per_bin, session.grid.origin_tick
    valid = None if session.valid is None else {t for a, b in session.valid for t in range(a, b)}
    edges, found = set(session.edges.tolist()), set()
    for start in range(session.num_bins - width + 1):
        ticks = range(origin + start * step, origin + (start + width) * step)
        if (valid is None or valid.issuperset(ticks)) and not edges.intersection(ticks[1:]):
            found.add((0, start))
    return found


@settings(deadline=None, max_examples=100)
@given(layouts())
def test_windows_never_cross_a_gap_an_edge_or_the_end(shared: Store, layout: tuple[Session, int]) -> None:
    session, width = layout
    shared.put(session, replace=True)
    expected = allowed(session, width)
    if not expected:
        with pytest.raises(DataError, match=f"no window of {width} bins fits between gaps and edges of 1 sessions"):
            shared.windows(bins=width)
        return
    windows = shared.windows(bins=width)
    assert every_window(windows) == expected
    assert (windows.total, windows.per_session.tolist()) == (len(expected), [len(expected)])
    draws = np.array(sorted(expected))
    assert windows.read(draws)[0][:, :, 0].tolist() == [list(range(s, s + width)) for _, s in sorted(expected)]
    for start in set(range(-2, session.num_bins + 2)) - {s for _, s in expected}:
        with pytest.raises(DataError, match=f"starts at bin {start} of session number 0: it would cross a gap"):
            windows.read(np.array([draws[0], (0, start)]))


def test_every_window_is_equally_likely(store: Store) -> None:
    """Sessions and stretches of different length: a window counts, not where it lies."""
    store.put(numbered(60, id="a", valid=Intervals.of([(0, 200), (300, 340), (400, 1200)])))
    store.put(numbered(12, id="b"))
    store.put(numbered(3, id="c"))
    windows = store.windows(bins=5)
    assert windows.per_session.tolist() == [6 + 36, 8, 0]
    assert windows.ids == ("a", "b", "c")
    draws = windows.draw(SeedTree(1).generator("windows"), 50_000)
    _, number = np.unique(draws, axis=0, return_counts=True)
    assert len(number) == windows.total == 50
    chi2 = ((number - 1000) ** 2 / 1000).sum()
    assert chi2 < 49 + 5 * np.sqrt(2 * 49)


def test_draws_depend_on_the_generator_alone(store: Store) -> None:
    store.put(numbered(100))
    first, again = (store.windows(bins=7).draw(SeedTree(3).generator("windows"), 50) for _ in range(2))
    assert np.array_equal(first, again)
    assert first.dtype == np.int64
    assert first.shape == (50, 2)


# ---- what is read


def expected_of(session: Session, names: list[str], starts: Any, width: int) -> tuple[Any, Any]:
    behavior = session.behavior_of(names).astype(np.float32)
    parts = [slice(s, s + width) for s in starts]
    return np.stack([session.signals[p] for p in parts]), np.stack([behavior[p] for p in parts])


NAMES = [["x", "y", "speed"], ["y"], ["speed", "x"], ["fx"], ["phase", "x", "fy"]]
"""A whole series, parts of it in another order, a finer series, and several series at once."""


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("spikes", [False, True])
def test_windows_equal_the_session(store: Store, names: list[str], spikes: bool) -> None:
    session = full_session(spikes=spikes)
    store.put(session)
    for _ in range(2):  # the second time from the caches
        windows = store.windows(bins=10, behavior=names)
        draws = windows.draw(RNG(5), 40)
        signals, behavior = windows.read(draws)
        wanted = expected_of(session, names, draws[:, 1], 10)
        assert behavior is not None
        assert signals.dtype == behavior.dtype == np.float32
        assert np.array_equal(signals, wanted[0])
        assert np.array_equal(behavior, wanted[1], equal_nan=True)
    assert [d.name for d in windows.dims] == names
    assert (windows.dims[0].unit == "cm") == (names[0] in ("x", "y"))


def spike_session(id: str = "spikes", seed: int = 0) -> Session:
    rng, grid = RNG(seed), BinGrid(30_000, 600, 900)
    spikes = tuple(np.sort(rng.integers(0, 900 + 600 * 220, n)) for n in (3000, 0, 50))
    return Session(id, "m", grid, 200, tuple(Channel(f"e{i}") for i in range(3)), spikes=spikes)


def test_spike_ticks_are_counted_once_and_cached(store: Store) -> None:
    session = spike_session()
    store.put(session)
    windows = store.windows(bins=20)
    draws = windows.draw(RNG(0), 30)
    signals, behavior = windows.read(draws)
    counts = count_spikes(session.spikes or (), session.grid, 200)
    assert behavior is None
    assert signals.dtype == np.uint8
    assert np.array_equal(signals, np.stack([counts[s : s + 20] for _, s in draws]))
    (cache,) = [Path(name).name for name in leftovers(store.path)]
    assert cache == "cache_counts_600.npy"
    assert np.array_equal(np.load(store.path / leftovers(store.path)[0]), counts)
    changed = counts + 1  # whether it is the cache that is read the next time
    np.save(store.path / leftovers(store.path)[0], changed)
    assert np.array_equal(store.windows(bins=20).read(draws)[0], signals + 1)
    store.put(spike_session(seed=1), replace=True)
    assert leftovers(store.path) == []


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"x" * 1000])
def test_a_damaged_cache_is_made_again(store: Store, damage: bytes) -> None:
    store.put(full_session(spikes=True))
    windows = store.windows(bins=10, behavior=["fx"])
    draws = windows.draw(RNG(0), 10)
    first = windows.read(draws)
    good = {name: (store.path / name).read_bytes() for name in leftovers(store.path)}
    assert len(good) == 2
    for name in good:
        (store.path / name).write_bytes(damage)
    again = store.windows(bins=10, behavior=["fx"]).read(draws)
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1], equal_nan=True)  # type: ignore[arg-type]
    assert {name: (store.path / name).read_bytes() for name in leftovers(store.path)} == good


def test_behavior_that_ends_early_is_unknown_there(store: Store) -> None:
    session = replace(
        numbered(30),
        behavior=(Series(np.arange(20.0)[:, None], (BehaviorDim("k", "a.u."),), 0, 20),),
    )
    store.put(session)
    behavior = store.windows(bins=30, behavior=["k"]).read(np.array([[0, 0]]))[1]
    assert behavior is not None
    assert np.array_equal(behavior[0, :, 0], [*range(20), *[np.nan] * 10], equal_nan=True)


def test_longer_behavior_and_native_counts_need_no_cache(store: Store) -> None:
    session = replace(numbered(30), behavior=(Series(np.arange(50.0)[:, None], (BehaviorDim("k", "a.u."),), 0, 20),))
    store.put(session)
    signals, behavior = store.windows(bins=4, behavior=["k"]).read(np.array([[0, 26], [0, 3]]))
    assert signals[:, :, 0].tolist() == [[26, 27, 28, 29], [3, 4, 5, 6]]
    assert behavior is not None
    assert behavior[:, :, 0].tolist() == signals[:, :, 0].tolist()
    assert leftovers(store.path) == []


def test_windows_of_several_sessions_keep_their_order(store: Store) -> None:
    for k, id in enumerate("abc"):
        store.put(small(k, id=id))
    windows = store.windows(bins=3, ids=["c", "a"], behavior=["x"])
    draws = np.array([[1, 5], [0, 0], [1, 37], [0, 9]])
    signals, behavior = windows.read(draws)
    assert signals[:, 0, 0].tolist() == [0, 2, 0, 2]
    assert behavior is not None
    assert behavior[:, 2, 0].tolist() == [0, 2, 0, 2]


def test_more_sessions_than_are_held_open(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _MOST_OPEN <= 256
    monkeypatch.setattr("betz.data.windows._MOST_OPEN", 2)
    for k in range(5):
        store.put(small(k, id=f"s{k}"))
    windows = store.windows(bins=40)
    for order in ([0, 1, 2, 3, 4], [4, 0, 4, 1]):
        assert windows.read(np.array([[n, 0] for n in order]))[0][:, 0, 0].tolist() == order
        assert len(windows._opened) <= 2


# ---- what is refused


def test_mixed_layouts_are_refused_when_read_together(store: Store) -> None:
    store.put(numbered(30, id="a"))
    store.put(numbered(30, id="b", channels=["x", "y"]))
    store.put(replace(numbered(30, id="c"), grid=BinGrid(1000, 25), behavior=()))
    windows = store.windows(bins=5)
    assert windows.total == 3 * 26
    together = r"windows: sessions 'a' and '{}' have different {}.*one session's windows at a time.*ids=\[…\]"
    with pytest.raises(DataError, match=together.format("b", "channels")):
        windows.read(np.array([[0, 0], [1, 0]]))
    with pytest.raises(DataError, match=together.format("c", "bin widths")):
        windows.read(np.array([[2, 0], [0, 3]]))
    for number in range(3):
        assert windows.read(np.array([[number, 7]]))[0][0, :, 0].tolist() == [7, 8, 9, 10, 11]


def test_behavior_must_be_there_and_alike(store: Store) -> None:
    store.put(numbered(30, id="a"))
    store.put(replace(small(1, id="b"), behavior=()))
    for dim in (BehaviorDim("k", "mm"), BehaviorDim("k", "a.u.", "discrete", ("no", "yes"))):
        store.put(replace(small(1, id="c"), behavior=(Series(np.ones((40, 1)), (dim,), 0, 20),)), replace=True)
        with pytest.raises(DataError, match=r"session c: behavior 'k' is continuous in 'a.u.' in session 'a'"):
            store.windows(bins=5, ids=["a", "c"], behavior=["k"])
    with pytest.raises(DataError, match=r"session a: no behavior named 'q', 'r'.*it has k"):
        store.windows(bins=5, ids=["a"], behavior=["q", "k", "r"])
    with pytest.raises(DataError, match=r"session b: no behavior named 'k'.*it has no behavior at all"):
        store.windows(bins=5, behavior=["k"])


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "text": ({"bins": 5, "ids": "s"}, "are lists of names, not one string"),
    "behavior text": ({"bins": 5, "behavior": "k"}, "are lists of names, not one string"),
    "behavior twice": ({"bins": 5, "behavior": ["k", "k"]}, "must be given once each"),
    "no names": ({"bins": 5, "behavior": []}, "must be given once each"),
    "zero": ({"bins": 0}, "a window of 0 bins is impossible"),
    "no sessions": ({"bins": 5, "ids": []}, "no window of 5 bins fits between gaps and edges of 0 sessions"),
    "too long": ({"bins": 31}, "no window of 31 bins fits.*use shorter windows"),
    "unknown": ({"bins": 5, "ids": ["t"]}, "no session 't'.*it has s"),
}


@pytest.mark.parametrize("name", WRONG)
def test_impossible_windows(store: Store, name: str) -> None:
    store.put(numbered(30))
    arguments, message = WRONG[name]
    with pytest.raises(DataError, match=message):
        store.windows(**arguments)


@pytest.mark.parametrize("draws", [[[1, 0]], [[-1, 0]], [[0, 2**62]], [[2**62, 3]], [[0, -(2**62)]]])
def test_draws_of_no_session(store: Store, draws: Any) -> None:
    store.put(numbered(30))
    with pytest.raises(DataError, match="no window of 5 bins starts at bin"):
        store.windows(bins=5).read(np.array(draws))


@pytest.mark.parametrize("draws", [[0, 1], [[0, 1, 2]], [[0.0, 1.0]], np.empty((0, 2), np.int64)])
def test_draws_of_another_shape(store: Store, draws: Any) -> None:
    store.put(numbered(30))
    with pytest.raises(DataError, match="not n ≥ 1 rows of 2 integers"):
        store.windows(bins=5).read(np.array(draws))


def test_a_session_replaced_meanwhile_is_noticed(store: Store) -> None:
    store.put(numbered(30))
    store.put(numbered(30, id="t"))
    windows = store.windows(bins=5)
    windows.read(np.array([[0, 25]]))
    for id in ("s", "t"):
        store.put(numbered(10, id=id), replace=True)
    assert windows.read(np.array([[0, 25]]))[0][0, :, 0].tolist() == [25, 26, 27, 28, 29]  # mapped before: the old one
    with pytest.raises(DataError, match=r"session t: the session was replaced since these windows were made"):
        windows.read(np.array([[1, 25]]))
    assert store.windows(bins=5).total == 12


def test_damage_is_noticed_when_a_session_is_first_read(store: Store) -> None:
    store.put(full_session())
    windows = store.windows(bins=5, behavior=["x"])
    path = array_file(store.path, "full", "power")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match=r"power\.npy: it is truncated"):
        windows.read(np.array([[0, 0]]))
    store.put(full_session(), replace=True)
    forge(store.path, "full", lambda m: m["channels"].pop(0))
    with pytest.raises(DataError, match=r"counts are \(100, 3\), not \(100, 2\)"):
        store.windows(bins=5).read(np.array([[0, 0]]))


# ---- a folder that cannot be written to

READ_ONLY = """
import os, sys
import numpy as np
from betz.core.errors import DataError
from betz.data.store import Store
from tests.unit.store_helpers import full_session
from tests.unit.test_store_windows import expected_of
if os.getuid() == 0:  # root may write anywhere
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
store = Store(sys.argv[1])
try:
    (store.path / "arrays" / "x").write_text("")
except PermissionError:
    print("read-only")
windows = store.windows(bins=10, behavior=["fx", "phase"])
draws = windows.draw(np.random.default_rng(0), 20)
signals, behavior = windows.read(draws)
wanted = expected_of(full_session(spikes=True), ["fx", "phase"], draws[:, 1], 10)
print(np.array_equal(signals, wanted[0]), np.array_equal(behavior, wanted[1], equal_nan=True))
try:
    store.put(full_session(), replace=True)
except DataError as error:
    print(error.what, error.remedy)
"""


def test_reading_from_a_read_only_folder() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "store"
        Store(folder, create=True).put(full_session(spikes=True))
        everything = [Path(temporary), folder, *folder.rglob("*")]
        for path in everything:
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            before = sorted(os.walk(folder))
            lines = python("-c", READ_ONLY, str(folder)).splitlines()
            assert lines[:2] == ["read-only", "True True"]
            assert lines[2].startswith("it cannot be written to (Permission denied).")
            assert sorted(os.walk(folder)) == before
        finally:
            for path in everything:
                path.chmod(0o755 if path.is_dir() else 0o644)
