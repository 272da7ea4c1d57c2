"""A split: parts of sessions to learn from, to choose by, and to test on; what it is, and how it is kept.

It lists bins of sessions, so that it can be read, kept and checked. As JSON it is
``{"pretrain": [session ids], "validate": […], "test": […]}``; a part of a session is
``{"session": id, "bins": [first, end]}`` in place of the id. :mod:`betz.data.splits` makes splits.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from betz.core.errors import ConfigError, DataError
from betz.core.files import write_whole
from betz.core.session import Session
from betz.data.disk import writing

ROLES = ("pretrain", "validate", "test")
CHRONOLOGICAL, SESSIONS, SUBJECTS, CONDITIONS = (
    "chronological",
    "held-out sessions",
    "held-out subjects",
    "held-out conditions",
)
KINDS = ("", CHRONOLOGICAL, SESSIONS, SUBJECTS, CONDITIONS)


@dataclass(frozen=True)
class Part:
    """Bins [first, end) of a session; ``end=None`` stands for its last bin, so ``Part(id)`` is the whole session."""

    session: str
    first: int = 0
    end: int | None = None

    def __str__(self) -> str:
        return self.session if self == Part(self.session) else f"{self.session} bins {self.first}–{self.end or 'end'}"

    def of(self, session: Session) -> Session:
        """The bins as a view of the session."""
        return session.between(self.first, session.num_bins if self.end is None else self.end)


@dataclass(frozen=True)
class Split:
    """What is learned from, chosen by, and tested on.

    Args:
        pretrain, validate, test: parts of sessions; no bin is in two of them.
        kind: how it was made, one of ``KINDS``; empty if that is not known.
        left_out: reason → number of bins that are in no part.

    Raises:
        DataError: a part is impossible, or bins are in two parts.
    """

    pretrain: tuple[Part, ...]
    validate: tuple[Part, ...]
    test: tuple[Part, ...]
    kind: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(
                f"the kind of split {self.kind!r} is unknown.", remedy=f"use one of {', '.join(KINDS[1:])}"
            )
        by_session: dict[str, list[tuple[int, float, str]]] = {}
        for role, part in self:
            end = float("inf") if part.end is None else part.end
            if not 0 <= part.first < end:
                raise DataError(
                    f"bins {part.first} to {part.end} are impossible.", where=f"{role}, session {part.session}"
                )
            by_session.setdefault(part.session, []).append((part.first, end, role))
        for session, pieces in by_session.items():
            for (_, end, role), (first, _, other) in pairwise(sorted(pieces)):
                if first < end:
                    where = f"twice in {role}" if role == other else f"in {role} and in {other}"
                    raise DataError(
                        f"session {session!r} is {where}.",
                        where="split",
                        remedy="every bin belongs to one part at most",
                    )

    def __iter__(self) -> Iterator[tuple[str, Part]]:
        """Role and part, one after the other."""
        return ((role, part) for role in ROLES for part in getattr(self, role))

    def ids(self, role: str) -> tuple[str, ...]:
        """Names of the sessions of a role, once each."""
        return tuple(dict.fromkeys(part.session for part in self._parts(role)))

    def take(self, role: str, sessions: Sequence[Session]) -> list[Session]:
        """The parts of a role as views of the sessions, in order.

        Raises:
            DataError: a session of the split is not among them.
        """
        known = by_id(sessions)
        self.check_ids(known)
        return [part.of(known[part.session]) for part in self._parts(role)]

    def check_ids(self, known: Collection[str]) -> None:
        """Raise :class:`DataError` if the split names a session that is not known."""
        unknown = sorted({part.session for _, part in self} - set(known))
        if unknown:
            raise DataError(
                f"{some(unknown)} {'is' if len(unknown) == 1 else 'are'} not among the {len(known)} sessions.",
                where="split",
                remedy=f"there are {some(sorted(known))}; correct the ids, or give all sessions",
            )

    def to_json(self) -> dict[str, Any]:
        """Plain values in the layout that :meth:`from_json` reads; whole sessions are their ids."""
        out: dict[str, Any] = {role: [_part_out(part) for part in getattr(self, role)] for role in ROLES}
        if self.kind:
            out["kind"] = self.kind
        if self.left_out:
            out["left_out"] = dict(self.left_out)
        return out

    @classmethod
    def from_json(cls, values: Any, *, known: Collection[str] | None = None, where: str = "split") -> Split:
        """The split of plain values.

        Args:
            values: an object with ``pretrain``, ``validate`` and ``test``; a role may be missing, then it is empty.
            known: ids that there are, to be checked.
            where: named in errors.

        Raises:
            DataError: the layout is another one, bins are in two parts, or an id is unknown.
        """
        if not isinstance(values, Mapping) or not set(ROLES) & set(values):
            raise DataError("this is no split.", where=where, remedy=_LAYOUT)
        strange = sorted(set(values) - {*ROLES, "kind", "left_out"})
        if strange:
            raise DataError(f"a split has no {', '.join(map(repr, strange))}.", where=where, remedy=_LAYOUT)
        try:
            roles = {role: tuple(_part_in(item) for item in _list(values.get(role, []))) for role in ROLES}
            left_out = {str(reason): int(number) for reason, number in dict(values.get("left_out", {})).items()}
        except (TypeError, ValueError, KeyError) as error:
            raise DataError(f"a part of it cannot be read ({error}).", where=where, remedy=_LAYOUT) from None
        found = cls(**roles, kind=str(values.get("kind", "")), left_out=left_out)
        if known is not None:
            found.check_ids(known)
        return found

    def save(self, path: str | Path) -> Path:
        """Write it as JSON, as a whole. Returns the path.

        Raises:
            DataError: the disk did not take it.
        """
        with writing(Path(path)):
            write_whole(Path(path), (json.dumps(self.to_json(), indent=1) + "\n").encode())
        return Path(path)

    def summary(self) -> str:
        """One line: parts of each role, and what is left out."""
        said = [f"{role}: {len(self._parts(role))} parts of {len(self.ids(role))} sessions" for role in ROLES]
        lost = [f"{number:,} bins left out: {reason}" for reason, number in self.left_out.items()]
        return "; ".join([*([self.kind] if self.kind else []), *said, *lost])

    def _parts(self, role: str) -> tuple[Part, ...]:
        if role not in ROLES:
            raise ConfigError(f"a split has no {role!r}.", remedy=f"use {', '.join(ROLES)}")
        parts: tuple[Part, ...] = getattr(self, role)
        return parts


def read_split(path: str | Path, *, known: Collection[str] | None = None) -> Split:
    """The split of a JSON file; see :meth:`Split.from_json`.

    Raises:
        DataError: it cannot be read, is no split, puts bins into two parts, or names an id that is not ``known``.
    """
    try:
        values = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"it cannot be read ({error.strerror}).", where=str(path), remedy="give another file") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"this is no JSON ({error}).", where=str(path), remedy=_LAYOUT) from None
    return Split.from_json(values, known=known, where=str(path))


_LAYOUT = '{"pretrain": [session ids], "validate": […], "test": […]}; a part is {"session": id, "bins": [first, end]}'


def _part_out(part: Part) -> Any:
    return part.session if part == Part(part.session) else {"session": part.session, "bins": [part.first, part.end]}


def _part_in(item: Any) -> Part:
    if isinstance(item, str):
        return Part(item)
    if not isinstance(item, Mapping) or set(item) != {"session", "bins"} or not isinstance(item["session"], str):
        raise ValueError(f"{item!r}")
    first, end = item["bins"]
    if type(first) is not int or not (end is None or type(end) is int):
        raise ValueError(f"bins {item['bins']!r} of {item['session']}")
    return Part(item["session"], first, end)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return value


def by_id(sessions: Sequence[Session]) -> dict[str, Session]:
    """The sessions by their ids, at least one, each id once; otherwise :class:`DataError`."""
    known = {session.id: session for session in sessions}
    if len(known) < len(sessions) or not sessions:
        twice = sorted({s.id for s in sessions if sum(o.id == s.id for o in sessions) > 1})
        raise DataError(
            f"two sessions have the id {twice[0]!r}." if twice else "no sessions are given.",
            where="split",
            remedy="give sessions with ids of their own",
        )
    return known


def some(names: Sequence[str], show: int = 6) -> str:
    """Names for people; many are cut."""
    return ", ".join(names[:show]) + (f" and {len(names) - show} more" if len(names) > show else "")
