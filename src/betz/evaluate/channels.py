"""Channels that are dead, near-dead, duplicated or noisy, found from the signals alone.

Thresholds were set so that ordinary recordings stay silent: on the arrays they were tried on, counts jump from bin to
bin by 0.8 to 1.6 times their mean (1 for Poisson counts), and neighbouring electrodes share at most two thirds of their
spikes unless they are bridged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from betz.core.session import Channel, Session

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]

NEAR_DEAD_HZ, NEAR_DEAD_SHARE = 0.1, 1e-3
"""Spikes a second; for power, standard deviation as a share of the median of its unit."""
SAME_R, SAME_POWER_R = 0.8, 0.98
"""Correlation, of values and of their changes, above which two channels are near-identical."""
LEAST_SPIKES = 20
NOISY_HZ = 200.0
JUMPS = 2.5
"""Mean squared change from bin to bin, halved, over the mean count."""
CLIPPED_SHARE, CLIPPED_BINS = 0.05, 20
TOGETHER_SD, TOGETHER_CHANNELS = 2.0, 8
"""A bin in which channels are on average so far above their means is no neural event; needs that many channels."""
ARTEFACT_SHARE = 0.5
PEAK_RANGES = 20.0


class Noise(NamedTuple):
    """Why a channel is noisy: ``rate``, ``saturated``, ``artefacts``, ``bursts`` or ``peaks``, and how much so."""

    kind: str
    detail: str


@dataclass(frozen=True, eq=False)
class ChannelReport:
    """What was found.

    Args:
        rate: (C,) spikes a second, or the mean of a power channel.
        dead, near_dead: indices of channels; dead ones never change, near-dead ones hardly ever.
        duplicated: (channel, channel, correlation) of pairs; 1.0 only if they are identical.
        noisy: channel → why.
        together: bins in which nearly all channels fire at once.
        not_checked: what could not be looked at, and why.
    """

    rate: NDArray[np.float64]
    dead: tuple[int, ...]
    near_dead: tuple[int, ...]
    duplicated: tuple[tuple[int, int, float], ...]
    noisy: Mapping[int, Noise]
    together: NDArray[np.int64]
    not_checked: tuple[str, ...]


def check_channels(session: Session) -> ChannelReport:
    """Look at all channels of a session in its usable bins."""
    usable = np.flatnonzero(session.usable)
    signals_NC = session.signals[usable] if len(usable) < session.num_bins else session.signals
    x_NC = signals_NC.astype(np.float32)
    bin_s = session.grid.bin_s
    counting = np.array([c.kind != "power" for c in session.channels])
    if not len(x_NC):
        every = tuple(range(len(counting)))
        return ChannelReport(np.zeros(len(every)), every, (), (), {}, np.empty(0, np.int64), ("no bin is usable",))
    mean, sd = x_NC.mean(axis=0, dtype=np.float64), x_NC.std(axis=0, dtype=np.float64)
    dead = np.ptp(signals_NC, axis=0) == 0
    rate = np.where(counting, mean / bin_s, mean)
    live = np.flatnonzero(~dead)
    follows_N = np.ones(len(usable), dtype=bool)  # whether the bin before is usable too, and no edge lies between
    follows_N[np.searchsorted(usable, [first for first, _ in session.segments])] = False
    together_N, checked = _together(x_NC[:, live], mean[live], sd[live])
    calm_N = ~_near(together_N, 2)
    noisy = _noisy(x_NC, session.channels, live, calm_N, follows_N, together_N, rate)
    return ChannelReport(
        rate=rate,
        dead=tuple(np.flatnonzero(dead).tolist()),
        near_dead=_near_dead(session.channels, rate, sd, dead),
        duplicated=_duplicated(x_NC, counting, live, calm_N, follows_N),
        noisy=noisy,
        together=usable[together_N],
        not_checked=()
        if checked
        else (f"fewer than {TOGETHER_CHANNELS} live channels: no search for common artefacts",),
    )


def _near_dead(
    channels: Sequence[Channel], rate: NDArray[np.float64], sd: NDArray[np.float64], dead: Mask
) -> tuple[int, ...]:
    """Channels with a few spikes, or with power that hardly varies."""
    found = []
    for unit in {c.unit for c in channels if c.kind == "power"}:
        same = [k for k, c in enumerate(channels) if c.kind == "power" and c.unit == unit and not dead[k]]
        found += [k for k in same if sd[k] < NEAR_DEAD_SHARE * np.median(sd[same])]
    found += [k for k, c in enumerate(channels) if c.kind != "power" and not dead[k] and rate[k] < NEAR_DEAD_HZ]
    return tuple(sorted(found))


def _together(x_NC: Float, mean: NDArray[np.float64], sd: NDArray[np.float64]) -> tuple[Mask, bool]:
    """(N,) bins in which the mean over channels of z-scores, clipped at ±3, is above 2, and whether that was asked."""
    if x_NC.shape[1] < TOGETHER_CHANNELS:
        return np.zeros(len(x_NC), dtype=bool), False
    z_NC = (x_NC - mean.astype(np.float32)) / sd.astype(np.float32)
    return np.asarray(np.clip(z_NC, -3, 3, out=z_NC).mean(axis=1) > TOGETHER_SD), True


def _near(mask_N: Mask, reach: int) -> Mask:
    """Bins at most ``reach`` away from one that is True."""
    out = mask_N.copy()
    for _ in range(reach):
        out[1:] |= mask_N[:-1]
        out[:-1] |= mask_N[1:]
        mask_N = out.copy()
    return out


def _noisy(
    x_NC: Float,
    channels: Sequence[Channel],
    live: NDArray[np.int64],
    calm_N: Mask,
    follows_N: Mask,
    together_N: Mask,
    rate: NDArray[np.float64],
) -> dict[int, Noise]:
    pair_N = follows_N & calm_N & np.concatenate(([False], calm_N[:-1]))
    before = np.flatnonzero(pair_N) - 1
    found: dict[int, Noise] = {}
    for k in live.tolist():
        column = x_NC[:, k]
        if channels[k].kind == "power":
            low, high = np.percentile(column, (1, 99))
            wild = int(np.count_nonzero(np.abs(column - np.median(column)) > PEAK_RANGES * (high - low)))
            if wild and high > low:
                found[k] = Noise("peaks", f"{wild} bins")
            continue
        total, highest = float(column.sum()), float(column.max())
        at_top = int(np.count_nonzero(column == highest))
        calm_mean = float(column[calm_N].mean()) if calm_N.any() else 0.0
        jumps = float(np.mean((column[1:][before] - column[:-1][before]) ** 2)) / 2 if len(before) > 1 else 0.0
        artefact = float(column[together_N].sum()) / total
        if rate[k] > NOISY_HZ:
            found[k] = Noise("rate", f"{rate[k]:.0f}")
        elif highest >= 3 and at_top > max(CLIPPED_BINS, CLIPPED_SHARE * len(column)):
            found[k] = Noise("saturated", f"{at_top / len(column):.0%} at {highest:.0f}")
        elif artefact > ARTEFACT_SHARE:
            found[k] = Noise("artefacts", f"{artefact:.0%}")
        elif calm_mean * calm_N.sum() >= LEAST_SPIKES and jumps > JUMPS * calm_mean:
            found[k] = Noise("bursts", f"{jumps / calm_mean:.1f} times")
    return found


def _duplicated(
    x_NC: Float, counting: Mask, live: NDArray[np.int64], calm_N: Mask, follows_N: Mask
) -> tuple[tuple[int, int, float], ...]:
    """Pairs of one kind whose values and changes both correlate; shared slow modulation alone does not count."""
    pair_N = follows_N & calm_N & np.concatenate(([False], calm_N[:-1]))
    at = np.flatnonzero(pair_N)
    found = []
    for kind, least_r in ((True, SAME_R), (False, SAME_POWER_R)):
        mine = live[counting[live] == kind]
        x = x_NC[:, mine] if calm_N.all() else x_NC[calm_N][:, mine]
        enough = x.sum(axis=0) >= LEAST_SPIKES if kind else np.full(len(mine), len(x) > LEAST_SPIKES)
        mine, x = mine[enough], x[:, enough]
        if len(mine) < 2 or len(at) < 3:
            continue
        changes = x_NC[at][:, mine] - x_NC[at - 1][:, mine]
        r_CC = np.minimum(_correlations(x), _correlations(changes))
        for i, j in np.argwhere(np.triu(r_CC > least_r, 1)):
            same = np.array_equal(x_NC[:, mine[i]], x_NC[:, mine[j]])
            found.append((int(mine[i]), int(mine[j]), 1.0 if same else min(float(r_CC[i, j]), 0.9999)))
    return tuple(found)


def _correlations(x_NC: Float) -> NDArray[np.float64]:
    """(C, C) Pearson correlations; 0 with a constant column."""
    x = x_NC - x_NC.mean(axis=0)
    gram = (x.T @ x).astype(np.float64)
    scale = np.sqrt(np.diag(gram))
    scale[scale == 0] = np.inf
    return np.asarray(gram / scale[:, None] / scale[None, :])
