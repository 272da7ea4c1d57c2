"""Replay: a recorded session through the streaming decoder, bin by bin, as it would have run live."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import StreamError
from betz.core.prediction import Prediction
from betz.core.session import BehaviorDim, Channel, Session, channel_hash
from betz.decode.decoder import Decoder


def replay(decoder: Decoder, session: Session, *, push_bins: int = 1) -> Prediction:
    """Decode a session through the streaming path; the numbers are those of the live system.

    The stream starts anew at every stretch of ``session.segments``; bins outside them are never pushed.

    Args:
        decoder: is opened anew with one row, so a stream that it was in is lost.
        session: has the decoder's channels, in order, and its bin width.
        push_bins: bins handed over in one push.

    Returns:
        Values (1, N, K) in ``decoder.behavior``'s units, bins 0 … N − 1 of the session; a prediction with latency
        stands at the bin that it is *for*. ``valid`` is False, and the values NaN, outside the segments, in a
        decoder's latency at the end of each, and where the decoder says so.

    Raises:
        StreamError: channels or bin width differ.
    """
    return timed_replay(decoder, session, push_bins=push_bins)[0]


def timed_replay(decoder: Decoder, session: Session, *, push_bins: int = 1) -> tuple[Prediction, NDArray[np.int64]]:
    """:func:`replay`, with the nanoseconds that each push took."""
    check_stream(decoder, session)
    if push_bins < 1:
        raise StreamError(f"pushes of {push_bins} bins are impossible.", where="replay", remedy="push_bins ≥ 1")
    signals_NC = session.signals
    values = np.full((1, session.num_bins, columns(decoder.behavior)), np.nan)
    spread: NDArray[np.float64] | None = None
    valid = np.zeros((1, session.num_bins), dtype=bool)
    took: list[int] = []
    decoder.open(1, max_push_bins=push_bins)
    for start, stop in session.segments:
        decoder.reset()
        for at in range(start, stop, push_bins):
            piece = signals_NC[None, at : min(at + push_bins, stop)]
            begun = time.perf_counter_ns()
            pushed = decoder.push(piece)
            took.append(time.perf_counter_ns() - begun)
            ready = pushed.valid[0]
            bins = start + pushed.bin[0, ready]
            values[0, bins] = pushed.values[0, ready]
            valid[0, bins] = True
            if pushed.spread is not None:
                spread = np.full_like(values, np.nan) if spread is None else spread
                spread[0, bins] = pushed.spread[0, ready]
    found = Prediction(values, spread, np.arange(session.num_bins, dtype=np.int64)[None], valid)
    return found, np.asarray(took, dtype=np.int64)


def columns(behavior: Sequence[BehaviorDim]) -> int:
    """Columns of a prediction: one a continuous dimension, one a class of a discrete one."""
    return sum(1 if dim.kind == "continuous" else len(dim.classes) for dim in behavior)


def check_stream(decoder: Decoder, session: Session) -> None:
    """Raise :class:`StreamError` unless the session has the decoder's channels, in order, and its bin width."""
    where = f"session {session.id}"
    if channel_hash(decoder.channels) != channel_hash(session.channels):
        raise StreamError(
            f"its channels are not the decoder's: {_difference(decoder.channels, session.channels)}.",
            where=where,
            remedy="give the session the decoder's channels in their order, or calibrate a decoder on this session",
        )
    if not math.isclose(decoder.bin_ms, session.bin_ms, rel_tol=1e-9):
        factor = decoder.bin_ms / session.bin_ms
        whole = math.isclose(factor, round(factor), rel_tol=1e-9) and round(factor) > 1
        rebin = f"use session.rebinned({decoder.bin_ms:g}), or " if session.spikes is not None or whole else ""
        raise StreamError(
            f"its bins are {session.bin_ms:g} ms wide, the decoder's {decoder.bin_ms:g} ms.",
            where=where,
            remedy=f"{rebin}calibrate a decoder on bins of {session.bin_ms:g} ms",
        )


def _difference(wanted: Sequence[Channel], found: Sequence[Channel], show: int = 5) -> str:
    """Which channels differ, in words."""

    def some(ids: Sequence[str]) -> str:
        more = f" and {len(ids) - show} more" if len(ids) > show else ""
        return ", ".join(map(repr, ids[:show])) + more

    wanted_kinds, found_kinds = {c.id: c.kind for c in wanted}, {c.id: c.kind for c in found}
    parts = [f"the decoder has {len(wanted)}, the session {len(found)}"] if len(wanted) != len(found) else []
    missing = [i for i in wanted_kinds if i not in found_kinds]
    extra = [i for i in found_kinds if i not in wanted_kinds]
    other = [i for i, kind in wanted_kinds.items() if found_kinds.get(i, kind) != kind]
    if missing:
        parts.append(f"{some(missing)} missing")
    if extra:
        parts.append(f"{some(extra)} unknown to the decoder")
    if other:
        kinds = f"{found_kinds[other[0]]} instead of {wanted_kinds[other[0]]}"
        parts.append(f"{some(other)} of another kind (the first: {kinds})")
    if not (missing or extra or other):
        at = next(i for i, (a, b) in enumerate(zip(wanted, found, strict=True)) if a.id != b.id)
        parts.append(f"the same ids in another order (first at {at}: {found[at].id!r} instead of {wanted[at].id!r})")
    return "; ".join(parts)
