"""What a split lets through from the part that is learned from to the part that is tested on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.intervals import Intervals
from betz.core.seeds import SeedTree
from betz.core.session import Session
from betz.data.split import ROLES, SUBJECTS, Split, by_id

RUN_BINS = 100
"""Two parts that share this many bins in a row, wherever they lie in each, have the same content."""
LEAST_SPIKES = 40
"""So many counts above 0 in the bins of a run: with fewer, silence would be taken for a copy of silence."""


@dataclass(frozen=True)
class Leak:
    """One way by which a split leaks.

    Args:
        kind: ``"overlap"`` (ticks of the same recording), ``"source"`` (two sessions from the same file),
            ``"content"`` (the same signals under two ids) or ``"subject"`` (of a split by subjects).
        roles: the two roles.
        sessions: the two sessions, in the order of the roles.
        what: in words.
    """

    kind: str
    roles: tuple[str, str]
    sessions: tuple[str, str]
    what: str

    def __str__(self) -> str:
        return f"{self.sessions[0]} ({self.roles[0]}) and {self.sessions[1]} ({self.roles[1]}): {self.what}"


def check_leakage(split: Split, sessions: Sequence[Session], *, subjects: bool | None = None) -> tuple[Leak, ...]:
    """Look for the same data, or the same subject, in two roles of a split.

    Args:
        split: of sessions that are all among ``sessions``.
        sessions: whole ones.
        subjects: whether no subject may be in two roles; default: for splits by subjects.

    Returns:
        What was found; empty if nothing was. Signals are compared bin by bin in the same channels and bin widths:
        a copy with other channels, bins or counts is not found.

    Raises:
        DataError: the split names a session that is not there.
    """
    known = by_id(sessions)
    split.check_ids(known)
    by_subject = split.kind == SUBJECTS if subjects is None else subjects
    shares = [_share(role, known[id], split) for role in ROLES for id in split.ids(role)]
    found: list[Leak] = []
    for one, other in combinations(shares, 2):
        if one.role == other.role:
            continue
        told = list(_between(one, other))
        if by_subject and one.session.subject == other.session.subject:
            told.append(("subject", f"both are of {one.session.subject}"))
        ids = (one.session.id, other.session.id)
        found += [Leak(kind, (one.role, other.role), ids, what) for kind, what in told]
    return tuple(found)


@dataclass(frozen=True, eq=False)
class _Share:
    """What a role has of one session: its ticks, and hashes of its runs of bins by kind of signals."""

    role: str
    session: Session
    ticks: Intervals
    runs: Mapping[str, NDArray[np.uint64]]


def _share(role: str, session: Session, split: Split) -> _Share:
    views = [part.of(session) for each, part in split if each == role and part.session == session.id]
    runs: dict[str, list[NDArray[np.uint64]]] = {}
    for view in views:
        for name, hashes in _runs(view).items():
            runs.setdefault(name, []).append(hashes)
    joined = {name: np.unique(np.concatenate(parts)) for name, parts in runs.items()}
    return _Share(role, session, Intervals.of([view.span for view in views]), joined)


def _between(a: _Share, b: _Share) -> Iterator[tuple[str, str]]:
    """Kinds and words of what two roles have in common of two sessions, or of one."""
    one, other = a.session, b.session
    same_file = bool(one.provenance.sha256) and one.provenance.sha256 == other.provenance.sha256
    if one.id != other.id and same_file:
        yield "source", f"both come from the file with SHA-256 {one.provenance.sha256[:12]}…"
    if one.id == other.id or (same_file and one.grid.tick_hz == other.grid.tick_hz):
        ticks = (a.ticks & b.ticks).total
        if ticks:
            yield "overlap", f"{ticks / one.grid.tick_hz:.3g} s of the same recording are in both"
    if one.id != other.id and one.grid.bin_ms == other.grid.bin_ms:
        for name, mine in a.runs.items():
            shared = len(np.intersect1d(mine, b.runs.get(name, mine[:0]), assume_unique=True))
            if shared:
                yield "content", f"{shared} runs of up to {RUN_BINS} bins have the same {name}"


def _runs(part: Session) -> dict[str, NDArray[np.uint64]]:
    """By kind of signals, hashes of every run of ``RUN_BINS`` bins that is not all but silent.

    A part with fewer bins is one run.
    """
    arrays: dict[str, NDArray[Any]] = {}
    counting = sum(c.kind != "power" for c in part.channels)
    if counting:
        arrays["counts"] = part.signals[:, :counting].astype(np.uint8)
    if part.power is not None:
        arrays["power"] = part.power
    return {name: _hashes(array) for name, array in arrays.items()}


def _hashes(array_NC: NDArray[Any]) -> NDArray[np.uint64]:
    """Polynomial hashes (mod 2⁶⁴) of runs of rows; each row hashed by random odd factors of its columns."""
    rng = SeedTree(0).generator("leakage")
    words_NC = array_NC if array_NC.dtype == np.uint8 else np.ascontiguousarray(array_NC).view(np.uint32)
    factors: NDArray[np.uint64] = 2 * rng.integers(0, 2**63, words_NC.shape[1:], dtype=np.uint64) + 1
    row_N = np.zeros(len(words_NC), dtype=np.uint64)
    for c in range(len(factors)):
        row_N += words_NC[:, c].astype(np.uint64) * factors[c]
    row_N ^= row_N >> np.uint64(29)
    length = min(RUN_BINS, len(row_N))
    hash_R = np.zeros(len(row_N) - length + 1, dtype=np.uint64)
    for k in range(length):
        hash_R = hash_R * np.uint64(0x9E3779B97F4A7C15) + row_N[k : k + len(hash_R)]
    filled = np.concatenate(([0], np.cumsum(np.count_nonzero(words_NC, axis=1))))
    return np.unique(hash_R[filled[length:] - filled[: len(filled) - length] >= LEAST_SPIKES])
