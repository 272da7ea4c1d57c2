"""A run in closed loop: pushes become signals, a decoder turns them into velocity, the cursor moves, the user sees it.

Within bin k the user acts on what the screen showed 200 ms before, the signals of the bin carry what was given, and at
the end of the bin the decoder's newest prediction moves the cursor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import ConfigError
from betz.core.intervals import Intervals
from betz.core.prediction import Array, Prediction
from betz.core.seeds import SeedTree
from betz.core.session import BehaviorDim, Channel, Provenance, Series, Session, Trials
from betz.core.timegrid import BinGrid
from betz.sim.targets import Attempt, Referee, Score, Targets, score
from betz.sim.user import Command, Cursor, MovingCursor, Steering, User

Float = NDArray[np.float64]
TICK_HZ = 30_000
CM, CM_S = "cm", "cm/s"
DIMS = (
    BehaviorDim("cursor_x", CM),
    BehaviorDim("cursor_y", CM),
    BehaviorDim("cursor_vx", CM_S),
    BehaviorDim("cursor_vy", CM_S),
    BehaviorDim("target_x", CM),
    BehaviorDim("target_y", CM),
    BehaviorDim("intended_vx", CM_S),
    BehaviorDim("intended_vy", CM_S),
    BehaviorDim("decoded_vx", CM_S),
    BehaviorDim("decoded_vy", CM_S),
)


class SignalSource(Protocol):
    """What turns intention into the signals of a bin; it keeps its own state and randomness."""

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Channels in the order of the signals."""
        ...

    def emit(self, velocity_cm_s: Float, place_cm: Float) -> Array:
        """(C,) signals of the next bin for a velocity that is meant, at a place, both (2,)."""
        ...


class PushDecoder(Protocol):
    """As much of a decoder as a loop needs."""

    bin_ms: float
    channels: tuple[Channel, ...]
    behavior: tuple[BehaviorDim, ...]

    def open(self, rows: int = 1, *, max_push_bins: int = 1) -> None:
        """Start a stream."""

    def push(self, signals: Array) -> Prediction:
        """Decode one bin, (C,) signals."""
        ...


@dataclass(frozen=True, eq=False)
class LoopTruth:
    """What nobody outside of a simulation knows.

    Args:
        intended_N2: (N, 2) cm/s, what the user meant.
        encoded_N2: (N, 2) cm/s, the same with the user's noise: what the signals carry.
        believed_N4: (N, 4) where the user believed the cursor to be (cm) and its velocity (cm/s).
        user, cursor, targets, seed: the settings.
    """

    intended_N2: Float
    encoded_N2: Float
    believed_N4: Float
    user: User
    cursor: Cursor
    targets: Targets
    seed: int


@dataclass(frozen=True, eq=False)
class Loop:
    """A run in closed loop.

    Args:
        session: signals, behavior a bin (cursor, target, intended and decoded velocity), trials, brain control.
        truth: what was meant.
        attempts: the targets, those of the trial table.
        score: how well it went.
        unfinished: targets that the end of the run cut off.
        passed_over: targets that were not shown since the cursor was on them already.
        not_decoded: bins without a valid prediction, in which the cursor was asked to stand still.
    """

    session: Session
    truth: LoopTruth
    attempts: tuple[Attempt, ...]
    score: Score
    unfinished: int
    passed_over: int
    not_decoded: int


def closed_loop(
    user: User,
    decoder: PushDecoder,
    source: SignalSource,
    *,
    minutes: float,
    cursor: Cursor | None = None,
    targets: Targets | None = None,
    velocity: Sequence[str] = (),
    seed: int = 0,
    session_id: str = "closed-loop",
    subject: str = "simulated",
) -> Loop:
    """Run a user, a signal source and a decoder against each other.

    Args:
        user: how somebody steers.
        decoder: is opened anew; its bins are the bins of the run.
        source: what the decoder listens to, e.g. :class:`~betz.sim.emitter.Emitter`.
        minutes: how long.
        cursor, targets: what moves, and where to.
        velocity: names of the two dimensions that move the cursor, in cm/s; without, the only two in that unit.
        seed: of targets and the user's noise (the source has its own).
        session_id, subject: of the session.

    Raises:
        ConfigError: the channels are not the source's, or the decoder has no such velocity.
    """
    cursor, targets = cursor or Cursor(), targets or Targets()
    seeds = SeedTree(seed)
    columns = _columns(decoder, velocity)
    if [(c.id, c.kind) for c in decoder.channels] != [(c.id, c.kind) for c in source.channels]:
        raise ConfigError(
            f"the decoder's {len(decoder.channels)} channels are not the {len(source.channels)} of the source.",
            where="closed loop",
            remedy="calibrate it on a session of the same channels in the same order",
        )
    grid = BinGrid.from_ms(decoder.bin_ms, tick_hz=TICK_HZ)
    num_bins = grid.bins_in(minutes)
    if num_bins < 1:
        raise ConfigError(f"{minutes} minutes hold no bin of {decoder.bin_ms:g} ms.", where="closed loop")
    log = _Log(num_bins, len(source.channels))
    steering = Steering(user, cursor, bin_ms=decoder.bin_ms, rng=seeds.generator("user"))
    referee = Referee(targets, bin_ms=decoder.bin_ms, rng=seeds.generator("targets"))
    moving = MovingCursor(cursor, bin_ms=decoder.bin_ms)
    decoder.open(1, max_push_bins=1)
    for k in range(num_bins):
        target = referee.target_cm
        command = steering.act(moving.place_cm, moving.velocity_cm_s, target)
        signals_C = source.emit(user.full_push_cm_s * command.given_D, command.believed_cm)
        decoded, known = _newest(decoder.push(signals_C), columns)
        moving.move(decoded)
        referee.see(k, moving.place_cm)
        log.write(k, signals_C, command, user.full_push_cm_s, moving, target, decoded, known=known)
    return _result(log, grid, source, decoder, referee, (user, cursor, targets, seed), (session_id, subject))


def _columns(decoder: PushDecoder, velocity: Sequence[str]) -> list[int]:
    """Columns of the prediction that are the velocity."""
    names = [d.name for d in decoder.behavior]
    wanted = list(velocity) or [d.name for d in decoder.behavior if d.unit == CM_S]
    missing = [n for n in wanted if n not in names]
    units = {d.unit for d in decoder.behavior if d.name in wanted}
    if missing or len(wanted) != 2 or units != {CM_S}:
        raise ConfigError(
            f"the cursor needs two dimensions in cm/s, not {', '.join(wanted) or 'none'}.",
            where="closed loop",
            remedy=f"name two of {', '.join(f'{d.name} ({d.unit})' for d in decoder.behavior)}",
        )
    first = np.cumsum([0] + [max(len(d.classes), 1) for d in decoder.behavior])
    return [int(first[names.index(n)]) for n in wanted]


def _newest(found: Prediction, columns: list[int]) -> tuple[Float, bool]:
    """The velocity of the newest prediction; zero and False where it is not valid."""
    values = np.asarray(found.values[0, -1, columns], dtype=np.float64)
    known = bool(found.valid[0, -1]) and bool(np.isfinite(values).all())
    return (values if known else np.zeros(2)), known


class _Log:
    """What is kept of each bin."""

    def __init__(self, bins: int, channels: int) -> None:
        self.signals_NC = np.zeros((bins, channels))
        self.behavior_NK = np.zeros((bins, len(DIMS)))
        self.encoded_N2, self.believed_N4 = np.zeros((bins, 2)), np.zeros((bins, 4))
        self.not_decoded = 0

    def write(
        self,
        k: int,
        signals_C: Array,
        command: Command,
        scale: float,
        moving: MovingCursor,
        target_cm: Float,
        decoded: Float,
        *,
        known: bool,
    ) -> None:
        self.signals_NC[k] = signals_C
        row = (moving.place_cm, moving.velocity_cm_s, target_cm, scale * command.meant_D, decoded)
        self.behavior_NK[k] = np.concatenate(row)
        self.encoded_N2[k] = scale * command.given_D
        self.believed_N4[k] = np.concatenate((command.believed_cm, command.believed_cm_s))
        self.not_decoded += not known


def _result(
    log: _Log,
    grid: BinGrid,
    source: SignalSource,
    decoder: PushDecoder,
    referee: Referee,
    settings: tuple[User, Cursor, Targets, int],
    names: tuple[str, str],
) -> Loop:
    """The run as a session and its truth."""
    user, cursor, targets, seed = settings
    counting = sum(c.kind != "power" for c in source.channels)
    num_bins = len(log.signals_NC)
    counts = log.signals_NC[:, :counting]
    if counts.size and (counts.max() > 255 or counts.min() < 0 or np.any(counts != np.rint(counts))):
        raise ConfigError("the source's counts are not whole numbers of 0 … 255.", where="closed loop")
    session = Session(
        id=names[0],
        subject=names[1],
        grid=grid,
        num_bins=num_bins,
        channels=source.channels,
        counts=counts.astype(np.uint8) if counting else None,
        power=log.signals_NC[:, counting:].astype(np.float32) if counting < len(source.channels) else None,
        behavior=(Series(log.behavior_NK.astype(np.float32), DIMS, 0, grid.ticks_per_bin),),
        trials=_trials(referee.attempts, grid),
        task=f"closed loop, {targets.kind.replace('_', ' ')}",
        brain_control=Intervals.of([(0, num_bins * grid.ticks_per_bin)]),
        provenance=Provenance(
            source="simulated",
            importer="betz.sim.closed_loop",
            options={"seed": seed, "decoder": type(decoder).__name__},
        ),
        licence="CC0-1.0",
    )
    truth = LoopTruth(log.behavior_NK[:, 6:8].copy(), log.encoded_N2, log.believed_N4, user, cursor, targets, seed)
    found = score(referee.attempts, targets, bin_ms=grid.bin_ms)
    last_end = referee.attempts[-1].end_bin if referee.attempts else 0
    unfinished = int(last_end < num_bins)
    return Loop(session, truth, tuple(referee.attempts), found, unfinished, referee.passed_over, log.not_decoded)


def _trials(attempts: Sequence[Attempt], grid: BinGrid) -> Trials:
    """The trial table: one a target."""
    columns: dict[str, Any] = {
        "target": np.array([a.target_cm for a in attempts]).reshape(-1, 2),
        "success": np.array([a.success for a in attempts], dtype=bool),
        "wrong": np.array([a.wrong for a in attempts], dtype=bool),
        "time_s": np.array([(a.end_bin - a.first_bin) * grid.bin_s for a in attempts]),
        "distance_cm": np.array([a.distance_cm for a in attempts]),
        "entries": np.array([a.entries for a in attempts], dtype=np.int64),
    }
    return Trials(
        grid.start_of(np.array([a.first_bin for a in attempts], dtype=np.int64)),
        grid.start_of(np.array([a.end_bin for a in attempts], dtype=np.int64)),
        tuple(a.condition for a in attempts),
        columns,
    )
