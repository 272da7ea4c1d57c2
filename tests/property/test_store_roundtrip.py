"""Any session comes back from a store bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from betz.core.events import Events
from betz.core.intervals import Intervals
from betz.core.session import Assistance, BehaviorDim, Channel, Derivation, Provenance, Series, Session, Trials
from betz.core.timegrid import BinGrid
from betz.data.store import Store
from tests.unit.store_helpers import assert_same, leftovers

Draw = Callable[[st.SearchStrategy[Any]], Any]
word = st.text(max_size=6)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | word,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(word, inner, max_size=3),
    max_leaves=5,
)
finite = st.floats(allow_nan=False, allow_infinity=False)


def floats(width: Any, *, nan: bool = True) -> st.SearchStrategy[float]:
    return st.floats(width=width, allow_infinity=False, allow_nan=nan)


@st.composite
def derivations(draw: Draw) -> Derivation:
    parameters = draw(st.lists(st.tuples(word, finite | word), max_size=2))
    source = tuple(draw(st.lists(word, max_size=2)))
    return Derivation(draw(word), source, draw(st.booleans()), draw(finite), tuple(parameters))


@st.composite
def series(draw: Draw, names: list[str], low: int, high: int) -> Series:
    """A series of these dimensions that overlaps the bins [low, high) in time."""
    dims = []
    for name in names:
        classes = tuple(draw(st.lists(word, min_size=2, max_size=3))) if draw(st.booleans()) else ()
        kind: Any = "discrete" if classes else "continuous"
        dims.append(BehaviorDim(name, draw(word), kind, classes, draw(st.none() | derivations())))
    step = draw(st.integers(1, 900))
    origin = draw(st.integers(low - 2 * step, high - 1))
    samples = draw(st.integers(3, 9))
    width = draw(st.sampled_from((16, 32, 64)))
    values = draw(hnp.arrays(f"f{width // 8}", (samples, len(dims)), elements=floats(width)))
    for k, dim in enumerate(dims):
        if dim.kind == "discrete":
            values[:, k] = draw(hnp.arrays("u1", samples, elements=st.integers(0, len(dim.classes) - 1)))
    return Series(values, tuple(dims), origin, step)


@st.composite
def trial_tables(draw: Draw) -> Trials:
    number = draw(st.integers(0, 4))
    start = draw(hnp.arrays(np.int64, number, elements=st.integers(-(10**9), 10**9)))
    lasts = draw(hnp.arrays(np.int64, number, elements=st.integers(0, 10**6)))
    condition = tuple(draw(st.lists(word, min_size=number, max_size=number))) if draw(st.booleans()) else ()
    kinds = st.sampled_from(("i2", "u8", "f4", "f8", ">f8", "c8", "?", "U5", "S3", "M8[ns]", "m8[s]"))
    columns = {
        name: draw(hnp.arrays(draw(kinds), (number, *draw(st.sampled_from(((), (2,), (2, 2), (0,)))))))
        for name in draw(st.lists(word, max_size=3, unique=True))
    }
    return Trials(start, start + lasts, condition, columns)


@st.composite
def intervals(draw: Draw, low: int, high: int) -> Intervals:
    ticks = st.integers(low - 50, high + 50)
    return Intervals.of([sorted(pair) for pair in draw(st.lists(st.tuples(ticks, ticks), max_size=3))])


@st.composite
def provenances(draw: Draw) -> Provenance:
    return Provenance(
        draw(word),
        draw(word),
        draw(word),
        draw(st.dictionaries(word, plain, max_size=3)),
        tuple(draw(st.lists(word, max_size=2))),
        draw(st.dictionaries(word, st.integers(0, 10**6), max_size=2)),
    )


@st.composite
def sessions(draw: Draw) -> Session:
    rate = draw(st.sampled_from((1000, 30_000, 1_000_000)))
    grid = BinGrid(rate, draw(st.integers(1, 600)), draw(st.integers(0, 10**13)))
    bins = draw(st.integers(1, 12))
    low, high = grid.origin_tick, grid.origin_tick + bins * grid.ticks_per_bin
    counting, measuring = draw(st.tuples(st.integers(0, 3), st.integers(0, 2)).filter(any))
    names = draw(
        st.lists(st.text(max_size=8), min_size=counting + measuring, max_size=counting + measuring, unique=True)
    )
    counts = spikes = None
    if counting and draw(st.booleans()):
        spike = st.integers(max(low - 9, 0), high + 9)
        spikes = tuple(np.array(sorted(draw(st.lists(spike, max_size=12))), np.int64) for _ in range(counting))
    elif counting:
        counts = draw(hnp.arrays(np.uint8, (bins, counting)))
    dims = draw(st.lists(st.text(min_size=1, max_size=6), max_size=5, unique=True))
    cut = draw(st.integers(0, len(dims)))
    ticks = st.integers(low - 50, high + 50)
    parts = st.tuples(ticks, st.integers(1, 99), st.sampled_from(("active", "passive")), st.floats(0, 1))
    return Session(
        id=draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,20}", fullmatch=True)),
        subject=draw(st.text(min_size=1, max_size=6)),
        grid=grid,
        num_bins=bins,
        channels=tuple(
            Channel(name, draw(st.sampled_from(("crossings", "unit") if i < counting else ("power",))), draw(word))
            for i, name in enumerate(names)
        ),
        counts=counts,
        spikes=spikes,
        power=draw(hnp.arrays(np.float32, (bins, measuring), elements=floats(32, nan=False))) if measuring else None,
        behavior=tuple(draw(series(part, low, high)) for part in (dims[:cut], dims[cut:]) if part),
        valid=draw(st.none() | intervals(low, high)),
        edges=np.array(sorted(draw(st.sets(ticks, max_size=4))), np.int64),
        trials=draw(st.none() | trial_tables()),
        task=draw(word),
        tags=draw(st.dictionaries(word, word, max_size=3)),
        brain_control=draw(intervals(low, high)),
        assistance=tuple(Assistance(t, t + n, kind, level) for t, n, kind, level in draw(st.lists(parts, max_size=2))),
        reward=draw(st.none() | hnp.arrays(np.int64, st.tuples(st.integers(0, 3), st.just(2)))),
        events=draw(st.none() | st.builds(Events.of, st.lists(st.tuples(ticks, word, word), max_size=4))),
        provenance=draw(provenances()),
        licence=draw(word),
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("roundtrip") / "store"


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(session=sessions())
def test_any_session_comes_back_bit_for_bit(session: Session, folder: Path) -> None:
    Store(folder, create=True).put(session, replace=True)
    store = Store(folder)
    assert session.id in store.ids
    found = store.get(session.id)
    assert_same(session, found)
    for array in (found.counts, found.power, *(found.spikes or ()), *(s.values for s in found.behavior)):
        assert array is None or not array.flags.writeable
    store.verify(session.id)
    assert found.segments == session.segments
    assert leftovers(folder) == []
