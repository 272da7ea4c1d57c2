"""What a body does in a task: behavior at 1 kHz, trials, and the features that channels respond to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.session import BehaviorDim, Series, Trials
from betz.sim.tasks import SAMPLE_HZ, TICKS_PER_SAMPLE, minimum_jerk

Float = NDArray[np.float64]
EXTRA_S = 0.5
BURN_IN = 8
"""Slow noise starts so many time constants before the recording."""


@dataclass(frozen=True, eq=False)
class Drive:
    """Features of one kind; a channel has one direction and one depth in their space.

    Args:
        name: ``velocity``, ``speed``, ``position``, ``force``, ``posture``, ``state`` or ``click``.
        values_FM: (F, M) at 1 kHz, scaled so that usual values lie within −1 … 1.
    """

    name: str
    values_FM: Float


@dataclass(frozen=True, eq=False)
class Performance:
    """What was done, and what about it moves rates.

    Args:
        values_MK: (M, K) behavior at 1 kHz from tick 0 on.
        dims: K dimensions with units, discrete ones with classes.
        drives: features by kind.
        trials: finished ones, in ticks of 30 kHz.
        unfinished: trials that the end of the recording cut off; they are not in the table.
    """

    values_MK: Float
    dims: tuple[BehaviorDim, ...]
    drives: tuple[Drive, ...]
    trials: Trials
    unfinished: int

    def series(self, samples: int) -> Series:
        """The first samples as behavior at 1 kHz (float32)."""
        return Series(self.values_MK[:samples].astype(np.float32), self.dims, 0, TICKS_PER_SAMPLE)

    def features_FM(self) -> Float:
        """(F, M) all features, drive by drive."""
        return np.concatenate([drive.values_FM for drive in self.drives])


@dataclass(frozen=True)
class Trial:
    """One line of a trial table, in seconds.

    Args:
        start_s, end_s: when.
        condition: its name.
        columns: further values; names that end in ``_s`` are times and become ticks under the name without it.
    """

    start_s: float
    end_s: float
    condition: str
    columns: Mapping[str, Any]


def table(trials: Sequence[Trial], seconds: float, like: Mapping[str, Any]) -> tuple[Trials, int]:
    """The trials that were over by the end of the recording, and how many it cut off.

    Args:
        trials: in order.
        seconds: length of the recording.
        like: the columns with values of the right shape, for a table without lines.
    """
    done = [trial for trial in trials if trial.end_s <= seconds]
    columns: dict[str, Any] = {}
    for name, example in like.items():
        values = [trial.columns[name] for trial in done]
        if name.endswith("_s"):
            columns[name[:-2]] = np.array([tick(value) for value in values], dtype=np.int64)
        else:
            found = np.asarray(example)
            columns[name] = np.array(values, dtype=found.dtype).reshape(len(done), *found.shape)
    start = np.array([tick(trial.start_s) for trial in done], dtype=np.int64)
    end = np.array([tick(trial.end_s) for trial in done], dtype=np.int64)
    cut_off = sum(trial.start_s < seconds < trial.end_s for trial in trials)
    return Trials(start, end, tuple(trial.condition for trial in done), columns), cut_off


def tick(time_s: float) -> int:
    """The tick of the sample at a time."""
    return round(time_s * SAMPLE_HZ) * TICKS_PER_SAMPLE


def num_samples(seconds: float, margin_s: float) -> int:
    """Samples of a recording, of the margin after it, and of what smoothing at the end of that needs."""
    return int(np.ceil((seconds + margin_s + EXTRA_S) * SAMPLE_HZ)) + 1


class Track:
    """A (M, D) signal at 1 kHz made of minimum-jerk displacements, from 0.

    >>> track = Track(3000, 1)
    >>> track.glide(1.0, 0.5, 4.0)
    >>> track.glide(2.0, 0.5, -4.0)
    >>> track.values_MD()[[0, 1250, 1600, 2900], 0].tolist()
    [0.0, 2.0, 4.0, 0.0]
    """

    def __init__(self, samples: int, columns: int) -> None:
        self._moving_MD, self._jump_MD = np.zeros((samples, columns)), np.zeros((samples, columns))

    def glide(self, start_s: float, duration_s: float, step_D: Float | float) -> None:
        """Move by so much from a time on; what lies beyond the end is left out."""
        first, last = round(start_s * SAMPLE_HZ), round((start_s + duration_s) * SAMPLE_HZ)
        share = minimum_jerk((np.arange(first, min(last, len(self._moving_MD))) - first) / max(last - first, 1))
        self._moving_MD[first:last] += share[:, None] * np.atleast_1d(step_D)
        self._jump_MD[last : last + 1] += step_D

    def values_MD(self) -> Float:
        """(M, D) the sum of all displacements."""
        return np.asarray(self._moving_MD + np.cumsum(self._jump_MD, axis=0))


def mark(values_M: Float, start_s: float, end_s: float, value: float) -> None:
    """Set the samples of a stretch."""
    values_M[round(start_s * SAMPLE_HZ) : round(end_s * SAMPLE_HZ)] = value


def smooth_noise(samples: int, columns: int, *, time_s: float, sd: float, rng: np.random.Generator) -> Float:
    """(M, D) stationary Gaussian noise, smooth over a time: white noise through the same first-order filter twice.

    More samples begin like fewer of the same generator.
    """
    from scipy.signal import lfilter

    keep = float(np.exp(-1 / (time_s * SAMPLE_HZ)))
    burn_in = round(BURN_IN * time_s * SAMPLE_HZ)
    gain = sd * np.sqrt((1 - keep**2) ** 3 / (1 + keep**2))
    white = gain * rng.standard_normal((samples + burn_in, columns))
    return np.asarray(lfilter([1.0], [1.0, -2 * keep, keep**2], white, axis=0)[burn_in:])


def rate_of_change(values_MD: Float) -> Float:
    """Derivative per second of values at 1 kHz."""
    return np.asarray(np.gradient(values_MD, 1 / SAMPLE_HZ, axis=0))


def compressed(values_MD: Float, half: float) -> Float:
    """(D, M) vectors whose length saturates: x / (half + |x|)."""
    return np.asarray((values_MD / (half + np.linalg.norm(values_MD, axis=1, keepdims=True))).T)


def softened(values_M: NDArray[Any], time_s: float) -> Float:
    """(1, M) a state or an event, 0 or 1, with soft edges: the mean over a centered stretch, twice."""
    width = max(round(time_s * SAMPLE_HZ), 1)
    padded = np.pad(np.asarray(values_M, dtype=np.float64), (width, width), mode="edge")
    for _ in range(2):  # sums of whole numbers: exact, whatever the length
        total = np.concatenate(([0.0], np.cumsum(padded)))
        padded = total[width:] - total[:-width]
    return np.asarray(padded / width**2)[None, 1 : 1 + len(values_M)]
