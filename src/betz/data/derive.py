"""Behavior computed from recorded behavior, each function causal or acausal by its name.

Every function takes a session and names of its dimensions and returns the session with further dimensions beside them.
A causal value uses nothing later than its own sample; how late it comes then, the group delay at zero frequency, is
stored with it (``BehaviorDim.derivation``) and adds up over several steps. Acausal values come without delay, but
could not be had live.

Filters restart after a gap in ``session.valid``, at an edge, and after a sample that is not known (NaN): a value is
NaN where its own sample is not known, lies in a gap, or where a difference lacks a neighbour, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from betz.core.errors import ConfigError, DataError
from betz.core.session import BehaviorDim, Derivation, Series, Session
from betz.data import filters
from betz.data.derivation import (
    Parameters,
    check_names,
    continuous,
    filtered,
    pieces,
    resampled,
    same_unit,
    suffix,
    ticks_of,
    together,
)
from betz.data.directions import direction_vector as direction_vector
from betz.data.directions import intended_direction as intended_direction
from betz.data.filters import Filter

_RATE_OF = {"x": "vx", "y": "vy", "z": "vz", "vx": "ax", "vy": "ay", "vz": "az"}


# ---- velocity and speed


def velocity_causal(session: Session, names: Sequence[str], *, to: Sequence[str] | None = None) -> Session:
    """Rate of change by the difference to the sample before: half a sample late.

    Args:
        session: any; its other parts stay as they are.
        names: continuous dimensions, e.g. positions; each must be sampled with its own regular rate.
        to: names of the results; default: ``hand_x`` → ``hand_vx``, ``grip`` → ``grip_velocity``.

    Returns:
        The session with the further dimensions, in the unit per second. NaN at the first sample of each stretch.

    Raises:
        DataError: a name is unknown, discrete, or its result's name is taken.

    >>> from betz.data.arrays import from_arrays
    >>> session = from_arrays([[1], [0], [2]], bin_ms=100, behavior=[[0.0], [1.0], [3.0]], dims=["hand_x"])
    >>> moved = velocity_causal(session, ["hand_x"])
    >>> moved.behavior_of(["hand_vx"])[:, 0].tolist(), moved.dims[-1].derivation.group_delay_ms
    ([nan, 10.0, 20.0], 50.0)
    """
    return filtered(session, names, to, "velocity_causal", filters.backward_difference, _rate_name, _rate_unit)


def velocity_acausal(session: Session, names: Sequence[str], *, to: Sequence[str] | None = None) -> Session:
    """Rate of change by the difference of the sample after and the one before: no delay.

    Args, Returns and Raises as :func:`velocity_causal`; NaN at the first and the last sample of each stretch.
    """
    return filtered(session, names, to, "velocity_acausal", filters.central_difference, _rate_name, _rate_unit)


def speed(session: Session, names: Sequence[str], *, to: str | None = None) -> Session:
    """Length of a velocity vector; causal, and as late, as its components are.

    Args:
        session: any.
        names: the components, e.g. ``hand_vx`` and ``hand_vy``: of one unit, sampled together, equally late.
        to: name of the result; default: ``hand_vx``, ``hand_vy`` → ``hand_speed``.

    Raises:
        DataError: a name is unknown or the components do not fit together.
    """
    dims = continuous(session, names)
    series = together(session, names)
    where = f"speed of {', '.join(names)}, session {session.id}"
    if len({d.unit for d in dims}) > 1 or not (dims[0].unit.endswith("/s") or all(_axis(d.name) for d in dims)):
        raise DataError(
            f"units are {', '.join(repr(d.unit) for d in dims)}, not those of one velocity.",
            where=where,
            remedy="compute velocities first, e.g. velocity_causal(session, ['hand_x', 'hand_y'])",
        )
    delays = {0.0 if d.derivation is None else d.derivation.group_delay_ms for d in dims}
    if len(delays) > 1:
        raise DataError(f"the components are differently late: {sorted(delays)} ms.", where=where)
    stems = {d.name[:-2] if _axis(d.name) else None for d in dims}
    stem = stems.pop() if len(stems) == 1 else None
    if to is None and stem is None:
        raise ConfigError("no common name follows from the components' names.", where=where, remedy="give to='…'")
    causal = all(d.derivation is None or d.derivation.causal for d in dims)
    made = BehaviorDim(
        f"{stem}speed" if to is None else to,
        dims[0].unit,
        derivation=Derivation("speed", tuple(d.name for d in dims), causal, delays.pop()),
    )
    check_names(session, [made.name])
    values_M1 = np.linalg.norm(series.values, axis=1, keepdims=True)
    values_M1[pieces(session, series, ticks_of(series)) < 0] = np.nan
    return session.with_behavior(Series(values_M1, (made,), series.origin_tick, series.ticks_per_sample))


# ---- smoothing


def lowpass_causal(
    session: Session, names: Sequence[str], *, cutoff_hz: float, order: int = 2, to: Sequence[str] | None = None
) -> Session:
    """Butterworth low-pass, forwards only: about 225 / ``cutoff_hz`` ms late with order 2.

    Args:
        session: any.
        names: continuous dimensions.
        cutoff_hz: −3 dB.
        order: of the filter.
        to: names of the results; default: ``hand_x_lowpass``.

    Raises:
        ConfigError: the cutoff is not between 0 and half the sampling rate.
        DataError: a name is unknown, discrete, or its result's name is taken.
    """
    return _lowpass(session, names, cutoff_hz, order, to, causal=True, envelope=False)


def lowpass_acausal(
    session: Session, names: Sequence[str], *, cutoff_hz: float, order: int = 2, to: Sequence[str] | None = None
) -> Session:
    """Butterworth low-pass, forwards and backwards: no delay, −6 dB at the cutoff; otherwise :func:`lowpass_causal`."""
    return _lowpass(session, names, cutoff_hz, order, to, causal=False, envelope=False)


def smooth_causal(session: Session, names: Sequence[str], *, sd_ms: float, to: Sequence[str] | None = None) -> Session:
    """Mean of the present and earlier samples, weighted by half a Gaussian: about 0.8 · ``sd_ms`` late.

    Args:
        session: any.
        names: continuous dimensions.
        sd_ms: standard deviation of the full Gaussian, which reaches 4 of them.
        to: names of the results; default: ``hand_x_smooth``.

    Raises:
        ConfigError: ``sd_ms`` is not above 0.
        DataError: a name is unknown, discrete, or its result's name is taken.
    """
    return _smooth(session, names, sd_ms, to, causal=True)


def smooth_acausal(session: Session, names: Sequence[str], *, sd_ms: float, to: Sequence[str] | None = None) -> Session:
    """Mean of the samples around, weighted by a Gaussian: no delay; otherwise as :func:`smooth_causal`."""
    return _smooth(session, names, sd_ms, to, causal=False)


# ---- EMG


def rectify(session: Session, names: Sequence[str], *, to: Sequence[str] | None = None) -> Session:
    """Absolute value, e.g. of EMG that is free of offset; default name ``emg_FCR_rectified``."""

    def absolute(rate_hz: float) -> Filter:
        return Filter(np.abs, 0.0)

    return filtered(session, names, to, "rectify", absolute, suffix("rectified"), same_unit)


def emg_envelope_causal(
    session: Session, names: Sequence[str], *, cutoff_hz: float = 5.0, order: int = 2, to: Sequence[str] | None = None
) -> Session:
    """Rectified, then low-passed forwards: about 45 ms late at 5 Hz.

    Args:
        session: any.
        names: EMG as the amplifier gave it, free of offset; envelopes must not be rectified again.
        cutoff_hz, order: of the Butterworth low-pass.
        to: names of the results; default: ``emg_FCR_envelope``.

    Raises:
        ConfigError: the cutoff is not between 0 and half the sampling rate.
        DataError: a name is unknown, discrete, or its result's name is taken.
    """
    return _lowpass(session, names, cutoff_hz, order, to, causal=True, envelope=True)


def emg_envelope_acausal(
    session: Session, names: Sequence[str], *, cutoff_hz: float = 5.0, order: int = 2, to: Sequence[str] | None = None
) -> Session:
    """Rectified, then low-passed forwards and backwards: no delay; otherwise as :func:`emg_envelope_causal`."""
    return _lowpass(session, names, cutoff_hz, order, to, causal=False, envelope=True)


# ---- resampling


def resample_causal(
    session: Session, names: Sequence[str], *, rate_hz: float, to: Sequence[str] | None = None
) -> Session:
    """Values at another rate: the latest sample, after a forward low-pass at 0.4 · ``rate_hz`` where samples get fewer.

    Args:
        session: any.
        names: continuous dimensions.
        rate_hz: new rate, a whole number of the clock's ticks.
        to: names of the results; default: ``hand_x_100hz``.

    Returns:
        The session with the dimensions at the new rate, beginning at the same tick. The stored delay is the
        low-pass' and the mean age of the latest sample.

    Raises:
        ConfigError: the rate is not a whole number of ticks.
        DataError: a name is unknown, discrete, or its result's name is taken.
    """
    return resampled(session, names, rate_hz, to, causal=True)


def resample_acausal(
    session: Session, names: Sequence[str], *, rate_hz: float, to: Sequence[str] | None = None
) -> Session:
    """Values at another rate: a straight line between the samples before and after, low-passed forwards and backwards.

    Args and Raises as :func:`resample_causal`; no delay.
    """
    return resampled(session, names, rate_hz, to, causal=False)


# ---- how they are done


def _lowpass(
    session: Session,
    names: Sequence[str],
    cutoff_hz: float,
    order: int,
    to: Sequence[str] | None,
    *,
    causal: bool,
    envelope: bool,
) -> Session:
    def make(rate_hz: float) -> Filter:
        low = filters.butterworth(cutoff_hz, rate_hz, order=order, causal=causal)
        return Filter(lambda x_MK: low.apply(np.abs(x_MK)), low.delay) if envelope else low

    method = f"{'emg_envelope' if envelope else 'lowpass'}_{'causal' if causal else 'acausal'}"
    parameters: Parameters = (("cutoff_hz", float(cutoff_hz)), ("order", order))
    name_of = suffix("envelope" if envelope else "lowpass")
    return filtered(session, names, to, method, make, name_of, same_unit, parameters)


def _smooth(session: Session, names: Sequence[str], sd_ms: float, to: Sequence[str] | None, *, causal: bool) -> Session:
    def make(rate_hz: float) -> Filter:
        return filters.gaussian(sd_ms * rate_hz / 1000, causal=causal)

    method = f"smooth_{'causal' if causal else 'acausal'}"
    return filtered(session, names, to, method, make, suffix("smooth"), same_unit, (("sd_ms", float(sd_ms)),))


def _axis(name: str) -> bool:
    return name.rpartition("_")[2] in ("vx", "vy", "vz")


def _rate_name(name: str) -> str:
    stem, separator, last = name.rpartition("_")
    return f"{stem}{separator}{_RATE_OF[last]}" if last in _RATE_OF else f"{name}_velocity"


def _rate_unit(unit: str) -> str:
    if unit.endswith("/s"):
        return f"{unit}^2"
    return f"{unit or '1'}/s"
