"""What an array's activity is like, in numbers that can be compared between recordings and simulations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import DataError
from betz.core.session import Session

Float = NDArray[np.float64]

LIVE_HZ = 0.5
"""Channels below are counted, not described."""
WINDOWS_S = (0.25, 1.0, 4.0, 16.0)
MAX_LEAD_S = 0.25
NOISE_WINDOW_S = 1.0
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, eq=False)
class Activity:
    """How the count channels of one session behave.

    Args:
        session: its id.
        minutes, bin_ms, channels: of it.
        live: channels of at least half a spike a second; all that follows is about these.
        rate_hz: (live,) mean rates.
        fano: window in seconds → (live,) variance over mean of counts.
        lead_ms: by so much counts lead movement where it explains most.
        tuning_r2: (live,) share of a channel's variance in bins that a linear model of the movement explains.
        signal_correlation: (pairs,) correlation of what the model explains.
        noise_correlation: (pairs,) correlation of what it leaves, in bins.
        noise_correlation_1s: (pairs,) the same in windows of a second.
    """

    session: str
    minutes: float
    bin_ms: float
    channels: int
    live: int
    rate_hz: Float
    fano: Mapping[float, Float]
    lead_ms: float
    tuning_r2: Float
    signal_correlation: Float
    noise_correlation: Float
    noise_correlation_1s: Float

    def numbers(self) -> dict[str, float]:
        """The figures by which sessions are compared."""
        low, _, middle, _, high = np.quantile(self.rate_hz, QUANTILES)
        return {
            "live_share": self.live / self.channels,
            "rate_hz_5": float(low),
            "rate_hz_50": float(middle),
            "rate_hz_95": float(high),
            **{f"fano_{window:g}s": float(np.median(values)) for window, values in self.fano.items()},
            "lead_ms": self.lead_ms,
            "tuning_r2_50": float(np.median(self.tuning_r2)),
            "tuning_r2_95": float(np.quantile(self.tuning_r2, 0.95)),
            "signal_correlation_sd": float(self.signal_correlation.std()),
            "noise_correlation_mean": float(self.noise_correlation.mean()),
            "noise_correlation_sd": float(self.noise_correlation.std()),
            "noise_correlation_1s_mean": float(self.noise_correlation_1s.mean()),
            "noise_correlation_1s_sd": float(self.noise_correlation_1s.std()),
        }


def activity(session: Session, *, velocity: Sequence[str]) -> Activity:
    """Describe the counts of a session.

    The linear model of a channel has velocity, speed and a constant, all at one lead for all channels, the one of
    0 … 250 ms that explains most. Bins that are not usable or without known velocity are left out of everything.

    Args:
        session: with at least two live count channels.
        velocity: names of the velocity's dimensions.

    Raises:
        DataError: fewer than two channels are live, or hardly any bin is left.
    """
    counting = [c.kind != "power" for c in session.channels]
    counts_NC = session.signals[:, counting].astype(np.float64)
    velocity_NK = session.behavior_of(list(velocity))
    ok_N = session.usable & np.isfinite(velocity_NK).all(axis=1)
    bin_s = session.grid.bin_s
    if ok_N.sum() * bin_s < 30:
        raise DataError(
            f"{ok_N.sum() * bin_s:.0f} s of usable bins with known velocity are too little to describe.",
            where=f"session {session.id}",
            remedy="at least 30 s",
        )
    rate_hz = counts_NC[ok_N].mean(axis=0) / bin_s
    live = rate_hz >= LIVE_HZ
    if live.sum() < 2:
        raise DataError(f"{live.sum()} channels are live.", where=f"session {session.id}", remedy="at least two")
    counts_NC = counts_NC[:, live]
    lead, fitted_NC, rest_NC = _explained(counts_NC, velocity_NK, ok_N, round(MAX_LEAD_S / bin_s))
    factor = max(round(NOISE_WINDOW_S / bin_s), 1)
    return Activity(
        session=session.id,
        minutes=session.minutes,
        bin_ms=session.bin_ms,
        channels=sum(counting),
        live=int(live.sum()),
        rate_hz=rate_hz[live],
        fano={window: _fano(counts_NC[ok_N], max(round(window / bin_s), 1)) for window in WINDOWS_S},
        lead_ms=lead * session.bin_ms,
        tuning_r2=fitted_NC.var(axis=0) / (fitted_NC.var(axis=0) + rest_NC.var(axis=0)),
        signal_correlation=_pairs(fitted_NC),
        noise_correlation=_pairs(rest_NC),
        noise_correlation_1s=_pairs(_sums(rest_NC, factor)),
    )


def _explained(counts_NC: Float, velocity_NK: Float, ok_N: NDArray[np.bool_], leads: int) -> tuple[int, Float, Float]:
    """The lead in bins that explains most, and what its model explains and leaves in the bins that it has."""
    best: tuple[float, int, Float, Float] | None = None
    for lead in range(leads + 1):
        moved = velocity_NK[lead:]
        both = ok_N[lead:] & ok_N[: len(ok_N) - lead]
        moved, counts = moved[both], counts_NC[: len(ok_N) - lead][both]
        design = np.column_stack((np.ones(len(moved)), moved, np.linalg.norm(moved, axis=1)))
        fitted = design @ np.linalg.lstsq(design, counts, rcond=None)[0]
        share = float((fitted.var(axis=0) / counts.var(axis=0)).mean())
        if best is None or share > best[0]:
            best = (share, lead, fitted, counts - fitted)
    assert best is not None
    return best[1:]


def _sums(values_NC: Float, factor: int) -> Float:
    whole = len(values_NC) // factor
    return np.asarray(values_NC[: whole * factor].reshape(whole, factor, -1).sum(axis=1))


def _fano(counts_NC: Float, factor: int) -> Float:
    """(C,) variance over mean of the sums of so many bins; NaN where fewer than two sums are left."""
    sums = _sums(counts_NC, factor)
    if len(sums) < 2:
        return np.full(counts_NC.shape[1], np.nan)
    return np.asarray(sums.var(axis=0, ddof=1) / sums.mean(axis=0))


def _pairs(values_NC: Float) -> Float:
    """(C · (C − 1) / 2,) correlations of pairs of columns."""
    return np.asarray(np.asarray(np.corrcoef(values_NC.T))[np.triu_indices(values_NC.shape[1], 1)])
