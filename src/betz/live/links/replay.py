"""A recorded session as a live stream: at its own speed, at another, or as fast as it is taken."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from betz.core.errors import ConfigError
from betz.core.session import Channel, Session
from betz.live.ports import Clock, LiveBin


class ReplaySource:
    """The bins of a session, each when it ends; implements :class:`~betz.live.ports.Source`.

    Unusable bins come as None (lost); the first bin of each of ``session.segments`` restarts the state, so the loop's
    output is that of ``betz.replay``, bin for bin. Bin numbers are those of the session.

    Args:
        session: its signals are copied to memory, so that the stream never waits for a disk.
        clock: the loop's clock.
        speed: 1 = as recorded, 2 = twice as fast; None = each bin is ready when it is taken.

    Raises:
        ConfigError: the speed is not positive.
    """

    def __init__(self, session: Session, clock: Clock, *, speed: float | None = 1.0) -> None:
        if speed is not None and not 0 < speed <= 1e6:
            raise ConfigError(
                f"a replay at {speed:g} times the speed is impossible.",
                where=f"session {session.id}",
                remedy="give a speed > 0, or None for as fast as possible",
            )
        self.channels: tuple[Channel, ...] = session.channels
        self.bin_ms: float = session.bin_ms
        self.period_ns: int = 0 if speed is None else max(round(session.bin_ms * 1e6 / speed), 1)
        self._clock, self._signals_NC = clock, np.array(session.signals)
        self._usable_N = session.usable.tolist()
        self._starts = frozenset(start for start, _ in session.segments)

    def bins(self) -> Iterator[LiveBin | None]:
        """The bins in order; the first one begins now."""
        clock, period, number = self._clock, self.period_ns, len(self._usable_N)
        began = clock.now_ns()
        for index, usable in enumerate(self._usable_N):
            ready = began + (index + 1) * period
            queued = 0
            if period:
                clock.wait_until(ready)
                queued = min((clock.now_ns() - began) // period, number) - 1 - index
            else:
                ready = clock.now_ns()
            yield (
                LiveBin(index, self._signals_NC[index], ready, max(queued, 0), index in self._starts)
                if usable
                else None
            )
