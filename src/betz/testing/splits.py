"""The contract of a calibration: nothing of the test part may reach what is fitted."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from betz.core.seeds import SeedTree
from betz.core.session import Series, Session
from betz.decode.decoder import TENSORS, Decoder


def check_split(
    calibrate: Callable[[Session], Decoder], session: Session, *, first_test_bin: int, seed: int = 0
) -> None:
    """Corrupt everything from ``first_test_bin`` on; what ``calibrate`` fits must stay bit-identical.

    Args:
        calibrate: takes the whole session, cuts its own calibration part and returns the decoder.
        session: with native counts and/or power.
        first_test_bin: first bin that the calibration must not see.
        seed: of the corruption.

    Raises:
        AssertionError: the saved tensors differ.
    """
    honest, corrupted = _tensors(calibrate(session)), _tensors(calibrate(_corrupt(session, first_test_bin, seed)))
    assert honest == corrupted, f"check_split: bins from {first_test_bin} on change what is fitted"


def _corrupt(session: Session, first: int, seed: int) -> Session:
    rng = SeedTree(seed).generator("corrupt")
    changes: dict[str, object] = {}
    if session.counts is not None:
        changes["counts"] = session.counts.copy()
        changes["counts"][first:] = rng.integers(0, 40, session.counts[first:].shape)  # type: ignore[index]
    if session.power is not None:
        changes["power"] = session.power.copy()
        changes["power"][first:] = rng.normal(size=session.power[first:].shape) * 1e3  # type: ignore[index]
    behavior = []
    for series in session.behavior:
        values = series.values.copy()
        tick = session.grid.start_of(first)
        sample = max(int(-((series.origin_tick - tick) // series.ticks_per_sample)), 0)
        for k, dim in enumerate(series.dims):
            if dim.kind == "continuous":
                values[sample:, k] = rng.normal(size=len(values[sample:])) * 1e3
        behavior.append(Series(values, series.dims, series.origin_tick, series.ticks_per_sample))
    return replace(session, behavior=tuple(behavior), **changes)  # type: ignore[arg-type]


def _tensors(decoder: Decoder) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        decoder.save(Path(folder))
        return (Path(folder) / TENSORS).read_bytes()
