"""Sessions with everything in them, what "the same, bit for bit" means, and changes to a store behind its back."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from betz.core.events import Events
from betz.core.intervals import Intervals
from betz.core.session import Assistance, BehaviorDim, Channel, Derivation, Provenance, Series, Session, Trials
from betz.core.timegrid import BinGrid
from betz.data.arrays import from_arrays

ROOT = Path(__file__).resolve().parents[2]
GRID = BinGrid(tick_hz=30_000, ticks_per_bin=600, origin_tick=7)


def full_session(*, id: str = "full", seed: int = 0, spikes: bool = False, bins: int = 100) -> Session:
    """A session that uses every field: 3 count channels, 2 power channels, behavior at two rates."""
    rng = np.random.default_rng(seed)
    low, high = GRID.origin_tick, GRID.origin_tick + bins * GRID.ticks_per_bin
    speed = BehaviorDim("speed", "cm/s", derivation=Derivation("speed", ("x", "y"), True, 12.5, (("order", 2.0),)))
    phase = BehaviorDim("phase", "", "discrete", ("rest", "go", "hold"))
    force = rng.normal(size=(bins * 3, 2))
    force[4, 1] = np.nan
    return Session(
        id=id,
        subject="monkey",
        grid=GRID,
        num_bins=bins,
        channels=(
            Channel("e1"), Channel("e2", "unit", "B"), Channel("e3"),
            Channel("p1", "power", unit="uV^2"), Channel("p2", "power", "B", "uV^2"),
        ),
        counts=None if spikes else rng.poisson(1.5, (bins, 3)).astype(np.uint8),
        spikes=tuple(np.sort(rng.integers(low, high, n)) for n in (0, 500, 900)) if spikes else None,
        power=rng.normal(size=(bins, 2)).astype(np.float32),
        behavior=(
            Series(rng.normal(size=(bins, 3)).astype(np.float32),
                   (BehaviorDim("x", "cm"), BehaviorDim("y", "cm"), speed), low, GRID.ticks_per_bin),
            Series(force, (BehaviorDim("fx", "N"), BehaviorDim("fy", "N")), low + 50, 200),
            Series(rng.integers(0, 3, (bins, 1)).astype(np.float32), (phase,), low - 300, 599),
        ),
        valid=Intervals.of([(low, low + 30 * 600), (low + 40 * 600, high)]),
        edges=np.array([low + 60 * 600, low + 70 * 600 + 5]),
        trials=Trials(
            np.array([low, low + 9000]),
            np.array([low + 9000, low + 18000]),
            ("left", "rïght"),
            {"target": np.array([[1.0, 2.0], [np.nan, 4.0]]), "outcome": np.array(["hit", "miß"])},
        ),
        task="center-out",
        tags={"room": "3", "note": 'a "quoted" \n line'},
        brain_control=Intervals.of([(low, low + 600)]),
        assistance=(Assistance(low, low + 600, "active", 0.1), Assistance(low + 600, low + 1200, "passive", 1.0)),
        reward=np.array([[low + 100, 250]]),
        events=Events.of([(low + 5, "sync", "1"), (low + 9, "comments", "ä"), (low + 12, "sync", "1")]),
        provenance=Provenance("file.mat", "ab" * 32, "test", {"k": [1, 2.5, None]}, ("a note",), {"empty": 2}),
        licence="CC0-1.0",
    )  # fmt: skip


def small(value: int, *, id: str = "one", bins: int = 40, channels: int = 4) -> Session:
    """A session whose counts, behavior and note all say ``value``: a mixture of two is noticed."""
    return from_arrays(
        np.full((bins, channels), value, np.uint8),
        bin_ms=20,
        behavior=np.full((bins, 1), float(value)),
        dims=[BehaviorDim("x", "cm")],
        id=id,
        provenance=Provenance(notes=(str(value),)),
    )


def value_of(session: Session) -> int:
    """The value of a :func:`small` session, after checking that all of it says the same."""
    (value,) = {*np.unique(session.signals).tolist(), *np.unique(session.behavior[0].values).tolist()}
    assert session.provenance.notes == (str(int(value)),)
    return int(value)


def assert_same(one: Any, other: Any, at: str = "session") -> None:
    """Both are equal to the last bit, NaN included, in type, dtype and order."""
    if isinstance(one, np.ndarray):
        assert isinstance(other, np.ndarray), at
        assert (one.dtype, one.shape) == (other.dtype, other.shape), at
        assert one.tobytes() == other.tobytes(), at
    elif dataclasses.is_dataclass(one) and not isinstance(one, type):
        assert type(one) is type(other), at
        for field in dataclasses.fields(one):
            assert_same(getattr(one, field.name), getattr(other, field.name), f"{at}.{field.name}")
    elif isinstance(one, Mapping):
        assert list(one) == list(other), at
        for key in one:
            assert_same(one[key], other[key], f"{at}[{key!r}]")
    elif isinstance(one, (list, tuple)):
        assert type(one) is type(other), at
        assert len(one) == len(other), at
        for k, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{at}[{k}]")
    else:
        assert type(one) is type(other), f"{at}: {one!r}, {other!r}"
        assert repr(one) == repr(other), at  # tells -0.0 from 0.0


def seal_of(manifest: Mapping[str, Any]) -> str:
    """The seal, written down a second time."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def forge(store: Path, id: str, change: Callable[[dict[str, Any]], object], *, sealed: bool = True) -> None:
    """Change a manifest behind the store's back, with or without a fitting seal."""
    path = store / "sessions" / f"{id}.json"
    manifest = json.loads(path.read_bytes())
    change(manifest)
    if sealed:
        manifest["sha256"] = seal_of(manifest)
    path.write_text(json.dumps(manifest))


def array_file(store: Path, id: str, name: str) -> Path:
    """The file of an array."""
    manifest = json.loads((store / "sessions" / f"{id}.json").read_bytes())
    return Path(store / "arrays" / manifest["arrays"] / f"{name}.npy")


def leftovers(store: Path) -> list[str]:
    """Everything in a store that no manifest names."""
    manifests = [json.loads(path.read_bytes()) for path in (store / "sessions").glob("[!.]*.json")]
    known = {".", ".lock", "betz-store.json", "sessions", "arrays"}
    for manifest in manifests:
        known |= {f"sessions/{manifest['id']}.json", f"arrays/{manifest['arrays']}"}
        known |= {f"arrays/{manifest['arrays']}/{name}.npy" for name in manifest["files"]}
    return sorted(str(p.relative_to(store)) for p in store.rglob("*") if str(p.relative_to(store)) not in known)


def python(*arguments: str, timeout: float = 120) -> str:
    """What a Python process of its own prints; it sees the same betz and tests as this one."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout}{done.stderr}"
    return done.stdout
