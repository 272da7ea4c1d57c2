"""Targets on a screen for a cursor: where they appear, when one is acquired, and how well that went."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from betz.core.config import frozen_config
from betz.core.errors import ConfigError

Float = NDArray[np.float64]
NUM_DIRECTIONS = 8


@frozen_config
class Targets:
    """A task for a cursor.

    Args:
        kind: ``center_out`` (8 targets at a distance, out and back), ``random_target`` (anywhere in a square, at least
            a quarter of its width away) or ``grid`` (a board of square keys: staying on a wrong one selects it, but not
            the one that the cursor was on when the target appeared, before it was left).
        radius_cm: of a round target.
        distance_cm: of the targets of center-out.
        width_cm: of the square and of the grid.
        keys: along a side of the grid.
        dwell_s: the cursor has to stay for so long without leaving.
        timeout_s: then the next target appears.
    """

    kind: Literal["center_out", "random_target", "grid"] = "center_out"
    radius_cm: float = 1.25
    distance_cm: float = 8.0
    width_cm: float = 18.0
    keys: int = 6
    dwell_s: float = 0.5
    timeout_s: float = 8.0

    def __post_init__(self) -> None:
        if min(self.radius_cm, self.distance_cm, self.width_cm, self.timeout_s) <= 0 or self.dwell_s < 0:
            raise ConfigError("lengths and times must be positive, the dwell ≥ 0.", where="Targets settings")
        if self.keys < 2 or self.timeout_s <= self.dwell_s:
            raise ConfigError(
                "a grid needs 2 keys a side or more, and the timeout must exceed the dwell.", where="Targets settings"
            )

    def places(self, rng: np.random.Generator) -> Iterator[tuple[Float, str]]:
        """Targets (cm) and names of their conditions without end."""
        if self.kind == "center_out":
            while True:
                for k in rng.permutation(NUM_DIRECTIONS):
                    angle = 2 * np.pi * k / NUM_DIRECTIONS
                    yield self.distance_cm * np.array((np.cos(angle), np.sin(angle))), f"out_{k}"
                    yield np.zeros(2), f"back_{k}"
        last = np.zeros(2)
        if self.kind == "random_target":
            while True:
                place = rng.uniform(-self.width_cm / 2, self.width_cm / 2, 2)
                if np.hypot(*(place - last)) >= self.width_cm / 4:
                    yield place, "random"
                    last = place
        key = -1
        while True:
            step = int(rng.integers(1, self.keys**2)) if key >= 0 else int(rng.integers(1, self.keys**2 + 1))
            key = (key + step) % self.keys**2  # never the same key twice in a row
            yield self.center_of(key), f"key_{key}"

    def center_of(self, key: int) -> Float:
        """(2,) the middle of a key of the grid, counted row by row from below."""
        row, column = divmod(key, self.keys)
        side = self.width_cm / self.keys
        return np.array(((column + 0.5) * side, (row + 0.5) * side)) - self.width_cm / 2

    def under(self, cursor_cm: Float, target_cm: Float) -> int | None:
        """What the cursor is on: the number of a key, or 0 for the one round target; None = nothing."""
        if self.kind != "grid":
            return 0 if np.hypot(*(cursor_cm - target_cm)) <= self.radius_cm else None
        place = np.floor((cursor_cm + self.width_cm / 2) / (self.width_cm / self.keys)).astype(int)
        inside = bool(np.all((place >= 0) & (place < self.keys)))
        return int(place[1] * self.keys + place[0]) if inside else None

    def wanted(self, target_cm: Float) -> int:
        """What :meth:`under` says on the target."""
        found = self.under(target_cm, target_cm)
        assert found is not None
        return found

    def difficulty(self, distance_cm: float) -> float:
        """Index of difficulty in bits, log2(1 + distance / width) (MacKenzie 1992)."""
        width = self.width_cm / self.keys if self.kind == "grid" else 2 * self.radius_cm
        return float(np.log2(1 + distance_cm / width))


@dataclass(frozen=True)
class Attempt:
    """How one target went.

    Args:
        first_bin, end_bin: bins [first, end) in which it was shown.
        target_cm: (x, y).
        condition: its name.
        distance_cm: from the cursor when it appeared.
        success: it was selected in time, and nothing else before.
        wrong: another key was selected.
        entries: how often the cursor came onto it (1 = without orbiting).
        path_cm: the way that the cursor went.
    """

    first_bin: int
    end_bin: int
    target_cm: tuple[float, float]
    condition: str
    distance_cm: float
    success: bool
    wrong: bool
    entries: int
    path_cm: float


class Referee:
    """Shows targets one after the other and says when one is over.

    A target that would appear under the cursor needs no steering: it is passed over and counted in ``passed_over``.

    Args:
        targets: the task.
        bin_ms: length of a bin.
        rng: of the places.
    """

    def __init__(self, targets: Targets, *, bin_ms: float, rng: np.random.Generator) -> None:
        self.targets, self._places = targets, targets.places(rng)
        self._dwell = max(round(targets.dwell_s * 1000 / bin_ms), 1)
        self._timeout = max(round(targets.timeout_s * 1000 / bin_ms), 1)
        self.attempts: list[Attempt] = []
        self.passed_over = 0
        self._next(0, np.zeros(2))

    def _next(self, bin_: int, cursor_cm: Float) -> None:
        while True:
            self.target_cm, self._condition = next(self._places)
            if self.targets.under(cursor_cm, self.target_cm) != self.targets.wanted(self.target_cm):
                break
            self.passed_over += 1
        self._first, self._start_cm, self._last_cm = bin_, cursor_cm.copy(), cursor_cm.copy()
        self._on: int | None = None
        self._not_left = self.targets.under(cursor_cm, self.target_cm) if self.targets.kind == "grid" else None
        self._stayed, self._entries, self._path = 0, 0, 0.0

    def see(self, bin_: int, cursor_cm: Float) -> None:
        """Where the cursor is at the end of a bin; the target changes when its attempt is over."""
        on = self.targets.under(cursor_cm, self.target_cm)
        self._not_left = self._not_left if on == self._not_left else None
        on = None if self._not_left is not None else on
        wanted = self.targets.wanted(self.target_cm)
        self._stayed = self._stayed + 1 if on is not None and on == self._on else int(on is not None)
        self._entries += on == wanted and self._on != wanted
        self._on = on
        self._path += float(np.hypot(*(cursor_cm - self._last_cm)))
        self._last_cm = cursor_cm.copy()
        selected = on if self._stayed >= self._dwell else None
        if selected is None and bin_ + 1 - self._first < self._timeout:
            return
        self.attempts.append(
            Attempt(
                first_bin=self._first,
                end_bin=bin_ + 1,
                target_cm=(float(self.target_cm[0]), float(self.target_cm[1])),
                condition=self._condition,
                distance_cm=float(np.hypot(*(self.target_cm - self._start_cm))),
                success=selected == wanted,
                wrong=selected is not None and selected != wanted,
                entries=self._entries,
                path_cm=self._path,
            )
        )
        self._next(bin_ + 1, cursor_cm)


@dataclass(frozen=True)
class Score:
    """How well a run went.

    Args:
        attempts: targets shown and ended.
        success: share of them that were acquired.
        time_to_target_s: median over acquired targets, the dwell included; NaN without any.
        mean_time_s: mean over all attempts, those that timed out with the whole timeout.
        bitrate: bits/s. Grid: log2(keys − 1) · max(right − wrong, 0) / time (Nuyujukian et al. 2015); else the sum of
            the difficulties of acquired targets over the time of all.
        path_efficiency: median of straight way over way gone, acquired targets.
    """

    attempts: int
    success: float
    time_to_target_s: float
    mean_time_s: float
    bitrate: float
    path_efficiency: float


def score(attempts: Sequence[Attempt], targets: Targets, *, bin_ms: float) -> Score:
    """Summarise attempts; all NaN but the number if there are none."""
    nan = float("nan")
    if not attempts:
        return Score(0, nan, nan, nan, nan, nan)
    time_s = np.array([(a.end_bin - a.first_bin) * bin_ms / 1000 for a in attempts])
    good = np.array([a.success for a in attempts])
    if targets.kind == "grid":
        wrong = sum(a.wrong for a in attempts)
        bits = np.log2(targets.keys**2 - 1) * max(int(good.sum()) - wrong, 0)
    else:
        bits = sum(targets.difficulty(a.distance_cm) for a in attempts if a.success)
    straight = [min(a.distance_cm / a.path_cm, 1.0) if a.path_cm > 0 else 1.0 for a in attempts if a.success]
    return Score(
        attempts=len(attempts),
        success=float(good.mean()),
        time_to_target_s=float(np.median(time_s[good])) if good.any() else nan,
        mean_time_s=float(time_s.mean()),
        bitrate=float(bits / time_s.sum()),
        path_efficiency=float(np.median(straight)) if straight else nan,
    )
