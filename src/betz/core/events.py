"""Events of a recording: digital inputs, strobed words and comments, each at a tick."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from betz.core.timegrid import Ticks


@dataclass(frozen=True, eq=False)
class Events:
    """What a recording system noted at single ticks; never needed to decode.

    Args:
        ticks: (M,) int64, ascending.
        codes: (M,) int64 index of each event's kind.
        kinds: name of the line or channel, and value or text: ``("digital_input_port", "5")``.

    >>> events = Events.of([(30, "sync", "1"), (10, "sync", "1")])
    >>> events.ticks.tolist(), events.kinds, events.at("sync").tolist()
    ([10, 30], (('sync', '1'),), [10, 30])
    """

    ticks: Ticks
    codes: NDArray[np.int64]
    kinds: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, rows: Iterable[tuple[int, str, str]]) -> Events:
        """Events from rows of tick, name and text, in any order."""
        found = sorted(rows, key=lambda row: row[0])
        kinds = {kind: i for i, kind in enumerate(dict.fromkeys(row[1:] for row in found))}
        return cls(
            np.array([row[0] for row in found], np.int64),
            np.array([kinds[row[1:]] for row in found], np.int64),
            tuple(kinds),
        )

    def __len__(self) -> int:
        return len(self.ticks)

    def at(self, name: str, text: str | None = None) -> Ticks:
        """Ticks of the events of a name, and of one value or text if it is given."""
        wanted = [i for i, kind in enumerate(self.kinds) if kind[0] == name and text in (None, kind[1])]
        return self.ticks[np.isin(self.codes, wanted)]

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in order of their first event."""
        return tuple(dict.fromkeys(name for name, _ in self.kinds))
