"""What goes wrong with an array at a known time: channels fall silent or swap, rates get offsets, gains, new tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from betz.core.config import frozen_config
from betz.core.errors import ConfigError
from betz.core.seeds import SeedTree
from betz.core.timegrid import Ticks

Float = NDArray[np.float64]
DisturbanceKind = Literal["loss", "swap", "offset", "gain", "turn"]
LOST_HZ = 0.05
USUAL_SIZE: dict[DisturbanceKind, float] = {"loss": 0.0, "swap": 0.0, "offset": 8.0, "gain": 2.0, "turn": 60.0}


@frozen_config
class Disturbance:
    """A change from a time of a day on, for good.

    Args:
        kind: ``loss`` (silent), ``swap`` (pairs of channels exchange what they record), ``offset`` (rate added, Hz),
            ``gain`` (rate multiplied or divided) or ``turn`` (preferred directions turn).
        at_s: seconds into the session of that day; on later days it holds from the start.
        day: on earlier days it has not happened yet.
        share: of the active channels, drawn.
        channels: these instead, numbered from 0; for swaps an even number, neighbours in the list being exchanged.
        size: offset in Hz (of each: 50 … 150 % of it), factor of the gain (of each: up or down), turn in degrees (of
            each: left or right); None = 8 Hz, 2, 60°.
    """

    kind: DisturbanceKind
    at_s: float = 0.0
    day: int = 0
    share: float = 0.2
    channels: tuple[int, ...] = ()
    size: float | None = None

    def __post_init__(self) -> None:
        where = f"Disturbance settings ({self.kind})"
        if self.at_s < 0 or self.day < 0 or not 0 < self.share <= 1:
            raise ConfigError("time and day must be ≥ 0, the share above 0 and at most 1.", where=where)
        if len(set(self.channels)) != len(self.channels) or min(self.channels, default=0) < 0:
            raise ConfigError("channels must be given once each, from 0.", where=where)
        if self.kind == "swap" and len(self.channels) % 2:
            raise ConfigError(
                f"{len(self.channels)} channels make no pairs.", where=where, remedy="give an even number"
            )
        if self.kind == "gain" and self.size is not None and self.size <= 0:
            raise ConfigError("a gain must be above 0.", where=where)


@dataclass(frozen=True, eq=False)
class Event:
    """A disturbance as it happened, for the truth.

    Args:
        kind: see :class:`Disturbance`.
        tick: from here on; 0 if it happened on an earlier day.
        channels: (n,) the channels, numbered from 0.
        amount: (n,) Hz added, factor, or degrees counter-clockwise; for swaps the number of the other channel; for
            losses 0.
    """

    kind: DisturbanceKind
    tick: int
    channels: NDArray[np.int64]
    amount: Float

    def amount_of(self, channel: int) -> float | None:
        """The amount of one channel; None where it is spared."""
        at = np.flatnonzero(self.channels == channel)
        return float(self.amount[at[0]]) if len(at) else None


def events_of(
    disturbances: Sequence[Disturbance],
    *,
    day: int,
    active_C: NDArray[np.bool_],
    step_ticks: int,
    tick_hz: int,
    seeds: SeedTree,
) -> tuple[Event, ...]:
    """What the disturbances do on one day, in order of time.

    Args:
        disturbances: settings; those of later days are left out.
        day: number of the day.
        active_C: which channels can be drawn.
        step_ticks: times are rounded to steps of so many ticks.
        tick_hz: ticks per second.
        seeds: of the subject, so a disturbance hits the same channels on all days.

    Raises:
        ConfigError: a channel does not exist, or too few are left to make a pair.
    """
    found = []
    for number, one in enumerate(disturbances):
        if one.day > day:
            continue
        rng = seeds.generator("disturbance", item=number)
        channels = _which(one, active_C, rng)
        tick = round(one.at_s * tick_hz / step_ticks) * step_ticks if one.day == day else 0
        found.append(Event(one.kind, tick, channels, _amounts(one, channels, rng)))
    return tuple(sorted(found, key=lambda event: event.tick))


def _which(one: Disturbance, active_C: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    where = f"Disturbance ({one.kind})"
    if one.channels:
        if max(one.channels) >= len(active_C):
            raise ConfigError(
                f"channel {max(one.channels)} does not exist.",
                where=where,
                remedy=f"the {len(active_C)} channels are numbered from 0",
            )
        return np.array(one.channels, dtype=np.int64)
    candidates = np.flatnonzero(active_C)
    number = max(round(one.share * len(candidates)), 1)
    if one.kind == "swap":
        number = max(number - number % 2, 2)
    if number > len(candidates):
        raise ConfigError(
            f"{number} of {len(candidates)} active channels cannot be drawn.", where=where, remedy="more channels"
        )
    return np.asarray(rng.permutation(candidates)[:number], dtype=np.int64)


def _amounts(one: Disturbance, channels: NDArray[np.int64], rng: np.random.Generator) -> Float:
    size = USUAL_SIZE[one.kind] if one.size is None else one.size
    if one.kind == "swap":
        return np.asarray(channels.reshape(-1, 2)[:, ::-1].ravel(), dtype=np.float64)
    if one.kind == "offset":
        return np.asarray(size * rng.uniform(0.5, 1.5, len(channels)))
    up = rng.random(len(channels)) < 0.5
    if one.kind == "gain":
        return np.asarray(np.where(up, size, 1 / size))
    return np.asarray(np.where(up, size, -size))


def disturbed(rate_T: Float, channel: int, events: Sequence[Event], *, step_ticks: int) -> Float:
    """A channel's rate (T,) in Hz with gains, offsets and losses from their steps on."""
    out = rate_T
    for event in events:
        amount = event.amount_of(channel)
        if amount is None or event.kind in ("swap", "turn"):
            continue
        out = out.copy() if out is rate_T else out
        part = slice(event.tick // step_ticks, None)
        if event.kind == "loss":
            out[part] = LOST_HZ
        elif event.kind == "gain":
            out[part] *= amount
        else:
            out[part] = np.maximum(out[part] + amount, LOST_HZ)
    return out


def turns(channel: int, events: Sequence[Event]) -> list[tuple[int, float]]:
    """(tick, total turn in degrees from there on) of one channel, in order."""
    found, total = [], 0.0
    for event in events:
        amount = event.amount_of(channel)
        if event.kind == "turn" and amount is not None:
            total += amount
            found.append((event.tick, total))
    return found


def recorded_from(channels: int, events: Sequence[Event]) -> list[tuple[int, NDArray[np.int64]]]:
    """From which tick on each channel records which electrode: (tick, (C,) electrode of each channel), in order."""
    source = np.arange(channels)
    found = [(0, source)]
    for event in events:
        if event.kind == "swap":
            source = source.copy()
            source[event.channels] = source[event.amount.astype(np.int64)]
            found.append((event.tick, source))
    return found


def swapped_spikes(spikes: Sequence[Ticks], events: Sequence[Event]) -> tuple[Ticks, ...]:
    """What channels record of the spikes of their electrodes, after swaps."""
    stages = recorded_from(len(spikes), events)
    if len(stages) == 1:
        return tuple(spikes)
    ends = [tick for tick, _ in stages[1:]] + [np.iinfo(np.int64).max]
    out = []
    for c in range(len(spikes)):
        parts = []
        for (start, source), end in zip(stages, ends, strict=True):
            ticks = spikes[source[c]]
            parts.append(ticks[np.searchsorted(ticks, start) : np.searchsorted(ticks, end)])
        out.append(np.concatenate(parts))
    return tuple(out)
