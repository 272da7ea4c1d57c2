"""A user in the loop: pushes a cursor towards targets, sees both late, and carries what was seen forward by a model.

The piecewise-linear feedback model of Willett et al. (2017, J. Neural Eng. 14: 016001; 2019, Sci. Rep. 9: 8881):

    c = f_targ(distance) · (direction of the target) + f_vel(speed) · (direction of movement),     u = c + noise,

with distance, direction and speed as the user *believes* them to be: the cursor seen 200 ms ago, carried forward by
the user's own pushes since. The noise is autoregressive. What is decoded from u is smoothed and moves the cursor.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from betz.core.config import frozen_config
from betz.core.errors import ConfigError

Float = NDArray[np.float64]
Knots = tuple[tuple[float, float], ...]


@frozen_config
class Cursor:
    """What moves on the screen: a smoothed, scaled copy of the decoded velocity.

    Args:
        gain: decoded velocity times this is the speed aimed at.
        smoothing_ms: time constant of the first-order smoothing (α = exp(−bin / smoothing)); 0 = none.
        delay_ms: from the decoder's output to the screen, whole bins; the user knows nothing of it.
        edge_cm: the screen ends at ± this.
    """

    gain: float = 1.0
    smoothing_ms: float = 150.0
    delay_ms: float = 0.0
    edge_cm: float = 12.0

    def __post_init__(self) -> None:
        if min(self.smoothing_ms, self.delay_ms) < 0 or self.edge_cm <= 0:
            raise ConfigError("smoothing and delay must be ≥ 0, the edge > 0.", where="Cursor settings")


@frozen_config
class User:
    """How somebody steers.

    Args:
        full_push_cm_s: the velocity meant by a push of 1.
        push: knots (distance to the target in cm, push), linear between them and constant beyond.
        damping: knots (speed in cm/s, push along the movement); negative values brake.
        delay_ms: how late cursor and target are seen.
        noise: standard deviation of the push that was not meant, at rest.
        noise_share: further standard deviation per unit of push.
        noise_ms: time constant of that noise; 0 = white.
        believed_gain, believed_smoothing_ms: the user's model of the cursor; None = as it is.
    """

    full_push_cm_s: float = 18.0
    push: Knots = ((0.0, 0.0), (1.0, 0.2), (3.0, 0.5), (8.0, 1.0))
    damping: Knots = ((0.0, 0.0), (6.0, -0.05), (20.0, -0.45))
    delay_ms: float = 200.0
    noise: float = 0.08
    noise_share: float = 0.15
    noise_ms: float = 100.0
    believed_gain: float | None = None
    believed_smoothing_ms: float | None = None

    def __post_init__(self) -> None:
        if min(self.delay_ms, self.noise, self.noise_share, self.noise_ms, self.full_push_cm_s) < 0:
            raise ConfigError("delay, noise and full push must be ≥ 0.", where="User settings")
        for name in ("push", "damping"):
            at = [x for x, _ in getattr(self, name)]
            if len(at) < 2 or at != sorted(set(at)):
                raise ConfigError(f"{name} needs two knots or more, ascending.", where="User settings")


@dataclass(frozen=True, eq=False)
class Command:
    """What a user does in one bin, all in units of full push or in cm and cm/s.

    Args:
        meant_D: (2,) the push that the policy asks for.
        given_D: (2,) with the user's noise: what the signals carry.
        believed_cm: (2,) where the user believes the cursor to be.
        believed_cm_s: (2,) its believed velocity.
    """

    meant_D: Float
    given_D: Float
    believed_cm: Float
    believed_cm_s: Float


class Steering:
    """One user at one cursor, bin by bin.

    Args:
        user, cursor: their settings; the user's model of the cursor is taken from them.
        bin_ms: length of a bin.
        rng: of the user's noise.
    """

    def __init__(self, user: User, cursor: Cursor, *, bin_ms: float, rng: np.random.Generator) -> None:
        self.user, self._rng = user, rng
        bins = whole_bins(user.delay_ms, bin_ms, "User.delay_ms")
        gain = cursor.gain if user.believed_gain is None else user.believed_gain
        smoothing_ms = cursor.smoothing_ms if user.believed_smoothing_ms is None else user.believed_smoothing_ms
        self._model = ForwardModel(bins, keep=decay(smoothing_ms, bin_ms), gain=gain, bin_ms=bin_ms)
        self._seen: deque[tuple[Float, Float, Float]] = deque(maxlen=bins + 1)
        self._pushes: deque[Float] = deque([np.zeros(2)] * bins, maxlen=bins)
        self._noise_keep = decay(user.noise_ms, bin_ms)
        self._noise_D = rng.standard_normal(2)
        self._push_at, self._push_to = np.array(user.push).T
        self._damping_at, self._damping_to = np.array(user.damping).T

    def act(self, cursor_cm: Float, cursor_cm_s: Float, target_cm: Float) -> Command:
        """The command of the next bin; all three as the screen shows them now, seen only after the delay."""
        self._seen.append((cursor_cm.copy(), cursor_cm_s.copy(), target_cm.copy()))
        seen_cm, seen_cm_s, seen_target = self._seen[0]
        believed_cm, believed_cm_s = self._model.now(seen_cm, seen_cm_s, np.array(self._pushes).reshape(-1, 2))
        meant = self._policy(believed_cm, believed_cm_s, seen_target)
        self._pushes.append(meant * self.user.full_push_cm_s)
        fresh = np.sqrt(1 - self._noise_keep**2) * self._rng.standard_normal(2)
        self._noise_D = self._noise_keep * self._noise_D + fresh
        sd = self.user.noise + self.user.noise_share * float(np.hypot(*meant))
        return Command(meant, meant + sd * self._noise_D, believed_cm, believed_cm_s)

    def _policy(self, believed_cm: Float, believed_cm_s: Float, target_cm: Float) -> Float:
        way, speed = target_cm - believed_cm, float(np.hypot(*believed_cm_s))
        distance = float(np.hypot(*way))
        push = np.interp(distance, self._push_at, self._push_to) * way / max(distance, 1e-9)
        brake = np.interp(speed, self._damping_at, self._damping_to) * believed_cm_s / max(speed, 1e-9)
        return np.asarray(push + brake)


class ForwardModel:
    """Where a cursor is now that was seen some bins ago, by the velocities asked of it since.

    The cursor is v ← keep · v + (1 − keep) · gain · command, position ← position + v · bin.

    >>> model = ForwardModel(2, keep=0.5, gain=1.0, bin_ms=1000)
    >>> place, velocity = model.now(np.zeros(2), np.zeros(2), np.array([[8.0, 0.0], [8.0, 0.0]]))
    >>> place.tolist(), velocity.tolist()
    ([10.0, 0.0], [6.0, 0.0])
    """

    def __init__(self, bins: int, *, keep: float, gain: float, bin_ms: float) -> None:
        powers = keep ** np.arange(bins + 1)
        late = powers[:bins][::-1]  # keep^(bins − i) for command i = 1 … bins
        self._velocity_keep = float(powers[bins])
        self._velocity_w = (1 - keep) * gain * late
        bin_s = bin_ms / 1000
        self._place_keep = bin_s * float(powers[1:].sum())
        self._place_w = bin_s * (1 - keep) * gain * np.cumsum(powers[:bins])[::-1]

    def now(self, seen_cm: Float, seen_cm_s: Float, asked_WD: Float) -> tuple[Float, Float]:
        """Position and velocity now; ``asked_WD`` are the (bins, 2) velocities asked since, the oldest first."""
        place = seen_cm + self._place_keep * seen_cm_s + self._place_w @ asked_WD
        return place, self._velocity_keep * seen_cm_s + self._velocity_w @ asked_WD


class MovingCursor:
    """The cursor, bin by bin; at rest in the middle at first."""

    def __init__(self, cursor: Cursor, *, bin_ms: float) -> None:
        self.cursor, self._bin_s = cursor, bin_ms / 1000
        self._keep = decay(cursor.smoothing_ms, bin_ms)
        bins = whole_bins(cursor.delay_ms, bin_ms, "Cursor.delay_ms")
        self._waiting: deque[Float] = deque([np.zeros(2)] * bins)
        self.place_cm, self.velocity_cm_s = np.zeros(2), np.zeros(2)

    def move(self, decoded_cm_s: Float) -> None:
        """Move by one bin. At an edge the cursor stops in that direction."""
        self._waiting.append(np.asarray(decoded_cm_s, dtype=np.float64))
        asked = self.cursor.gain * self._waiting.popleft()
        velocity = self._keep * self.velocity_cm_s + (1 - self._keep) * asked
        wanted = self.place_cm + self._bin_s * velocity
        self.place_cm = np.clip(wanted, -self.cursor.edge_cm, self.cursor.edge_cm)
        self.velocity_cm_s = np.where(wanted == self.place_cm, velocity, 0.0)


def decay(time_ms: float, bin_ms: float) -> float:
    """What a first-order filter keeps a bin: exp(−bin / time); 0 without one."""
    return float(np.exp(-bin_ms / time_ms)) if time_ms > 0 else 0.0


def whole_bins(time_ms: float, bin_ms: float, name: str) -> int:
    """A delay in bins, rounded to the nearest: 200 ms are 4 bins of 45 ms.

    Raises:
        ConfigError: it is negative or not finite.
    """
    if not np.isfinite(time_ms) or time_ms < 0:
        raise ConfigError(f"a delay of {time_ms} ms is impossible.", where=name, remedy="give ms ≥ 0")
    return round(time_ms / bin_ms)
