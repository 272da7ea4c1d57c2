"""Splits of sessions by time, session, subject or condition, and the check of what they let through.

split = held_out_sessions(sessions, test=4, validate=2)
assert not check_leakage(split, sessions)
split.save("split.json")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import ConfigError, DataError
from betz.core.session import Session
from betz.data.leakage import Leak, check_leakage
from betz.data.split import CHRONOLOGICAL, CONDITIONS, ROLES, SESSIONS, SUBJECTS, Part, Split, by_id, read_split, some

__all__ = [
    "Leak",
    "Part",
    "Split",
    "check_leakage",
    "chronological",
    "held_out_conditions",
    "held_out_sessions",
    "held_out_subjects",
    "read_split",
]


def chronological(
    sessions: Sequence[Session], *, test: float = 0.2, validate: float = 0.0, pause_s: float = 0.0
) -> Split:
    """Each session cut in time: first the part to learn from, then that to choose by, last the test part.

    Args:
        sessions: with ids of their own.
        test, validate: shares of each session.
        pause_s: seconds left out before each cut, so that filters do not reach over it.

    Raises:
        ConfigError: the shares leave nothing to learn from.
        DataError: a session is too short.
    """
    if not (0 < test < 1 and 0 <= validate < 1 and test + validate < 1 and pause_s >= 0):
        raise ConfigError(
            f"shares of {test:g} for test and {validate:g} for validate are impossible.", where="chronological"
        )
    roles: dict[str, list[Part]] = {role: [] for role in ROLES}
    lost = 0
    for session in by_id(sessions).values():
        pause = round(pause_s / session.grid.bin_s)
        cuts = [0, *(round(session.num_bins * (1 - share)) for share in (test + validate, test)), session.num_bins]
        for role, (first, end) in zip(ROLES, pairwise(cuts), strict=True):
            if role == "validate" and not validate:
                continue
            last = role == "test"
            if end - first <= (0 if last else pause):
                raise DataError(f"{session.num_bins} bins are too few to cut.", where=f"session {session.id}")
            roles[role].append(Part(session.id, first, end if last else end - pause))
            lost += 0 if last else pause
    return _split(roles, CHRONOLOGICAL, {"pause before a cut": lost})


def held_out_sessions(
    sessions: Sequence[Session], *, test: Sequence[str] | int, validate: Sequence[str] | int = ()
) -> Split:
    """Whole sessions held out.

    Args:
        sessions: in the order of time.
        test, validate: ids, or how many of the latest (first the test sessions are taken, then those to choose by).

    Raises:
        DataError: an id is unknown, or nothing is left to learn from.
    """
    ids = list(by_id(sessions))
    held = _latest(ids, test, "test")
    chosen = _latest([i for i in ids if i not in held], validate, "validate")
    return _by_role({i: "test" if i in held else "validate" if i in chosen else "pretrain" for i in ids}, SESSIONS)


def held_out_subjects(sessions: Sequence[Session], *, test: Sequence[str], validate: Sequence[str] = ()) -> Split:
    """All sessions of some subjects held out.

    Args:
        sessions: of several subjects.
        test, validate: names of subjects.

    Raises:
        DataError: a subject is unknown or in both lists, or none is left to learn from.
    """
    subjects = {session.id: session.subject for session in by_id(sessions).values()}
    roles = _named(sorted(set(subjects.values())), test, validate, "subject")
    return _by_role({i: roles[subject] for i, subject in subjects.items()}, SUBJECTS)


def held_out_conditions(
    sessions: Sequence[Session], *, test: Sequence[str], validate: Sequence[str] = (), tag: str | None = None
) -> Split:
    """Conditions held out: trials of them, or, with ``tag``, sessions.

    Bins outside of any trial, and bins that hold parts of trials of different roles, are in no part but counted.

    Args:
        sessions: with trials and their conditions, or with tags.
        test, validate: names of conditions, or values of the tag.
        tag: name of a session tag, e.g. ``"load"``, to be used in place of trials.

    Raises:
        DataError: a condition is unknown or in both lists, a session has none, or none is left to learn from.
    """
    known = by_id(sessions)
    if tag is not None:
        for session in known.values():
            if tag not in session.tags:
                raise DataError(
                    f"it has no tag {tag!r}.", where=f"session {session.id}", remedy="leave it out, or tag it"
                )
        values = {session.id: session.tags[tag] for session in known.values()}
        roles = _named(sorted(set(values.values())), test, validate, "condition")
        return _by_role({i: roles[value] for i, value in values.items()}, CONDITIONS)
    for session in known.values():
        if session.trials is None or not session.trials.condition:
            raise DataError(
                "it has no trials with conditions.",
                where=f"session {session.id}",
                remedy="give tag='…' to split by a tag",
            )
    names = sorted({c for s in known.values() if s.trials is not None for c in s.trials.condition})
    roles = _named(names, test, validate, "condition")
    parts: dict[str, list[Part]] = {role: [] for role in ROLES}
    left_out = {"outside of trials": 0, "in trials of two roles": 0}
    for session in known.values():
        role_N = _roles_of_bins(session, roles)
        left_out["outside of trials"] += int(np.count_nonzero(role_N == -1))
        left_out["in trials of two roles"] += int(np.count_nonzero(role_N == -2))
        start = np.flatnonzero(np.diff(role_N, prepend=-3))
        for first, end in pairwise([*start.tolist(), session.num_bins]):
            if role_N[first] >= 0:
                parts[ROLES[role_N[first]]].append(Part(session.id, first, end))
    return _split(parts, CONDITIONS, left_out)


def _roles_of_bins(session: Session, roles: Mapping[str, str]) -> NDArray[np.int64]:
    """(N,) index of the role whose trials a bin touches; −1 where there is none, −2 where there are two."""
    assert session.trials is not None
    touched_RN = np.zeros((len(ROLES), session.num_bins), dtype=bool)
    last = session.grid.bin_of(np.maximum(session.trials.end - 1, session.trials.start))
    first = session.grid.bin_of(session.trials.start)
    for a, b, condition in zip(first.tolist(), last.tolist(), session.trials.condition, strict=True):
        touched_RN[ROLES.index(roles[condition]), max(a, 0) : max(b + 1, 0)] = True
    number = touched_RN.sum(axis=0)
    return np.where(number == 1, touched_RN.argmax(axis=0), np.where(number == 0, -1, -2))


# ---- helpers


def _latest(ids: Sequence[str], which: Sequence[str] | int, role: str) -> set[str]:
    if isinstance(which, int):
        if not 0 <= which <= len(ids):
            raise ConfigError(f"{which} of {len(ids)} sessions cannot be in {role}.", where="split")
        return set(ids[len(ids) - which :])
    unknown = [i for i in _names(which) if i not in ids]
    if unknown:
        raise DataError(f"{some(unknown)} cannot be in {role}.", where="split", remedy=f"there are {some(ids)}")
    return set(which)


def _names(which: Sequence[str]) -> Sequence[str]:
    if isinstance(which, str):
        raise ConfigError(f"give a list of names, not the string {which!r}.", where="split", remedy=f"use [{which!r}]")
    return which


def _named(known: Sequence[str], test: Sequence[str], validate: Sequence[str], what: str) -> dict[str, str]:
    """Role of each subject or condition."""
    for name in (*_names(test), *_names(validate)):
        if name not in known:
            raise DataError(f"no {what} is named {name!r}.", where="split", remedy=f"there are {some(known)}")
    both = sorted(set(test) & set(validate))
    if both:
        raise DataError(f"{what} {both[0]!r} is in validate and in test.", where="split")
    return {name: "test" if name in test else "validate" if name in validate else "pretrain" for name in known}


def _by_role(role_of: Mapping[str, str], kind: str) -> Split:
    return _split({role: [Part(i) for i, r in role_of.items() if r == role] for role in ROLES}, kind, {})


def _split(parts: Mapping[str, list[Part]], kind: str, left_out: Mapping[str, int]) -> Split:
    for role in ("pretrain", "test"):
        if not parts[role]:
            raise DataError(f"nothing is in {role}.", where=kind, remedy="hold out something, but not everything")
    kept = {reason: number for reason, number in left_out.items() if number}
    return Split(**{role: tuple(parts[role]) for role in ROLES}, kind=kind, left_out=kept)
