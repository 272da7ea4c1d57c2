"""Shifts with their truth: permuted and silent channels, gains, offsets, and perturbations that were recorded.

All of them act on whole bins from a given one on; :mod:`betz.study.shifting` says how counts stay whole numbers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from betz.core.errors import ConfigError, DataError
from betz.core.intervals import Intervals
from betz.core.seeds import SeedTree
from betz.core.session import Session
from betz.study.shifting import Shift, Shifted, apply_shifts, as_counts

__all__ = [
    "Shift",
    "Shifted",
    "add_offset",
    "apply_shifts",
    "as_counts",
    "change_gain",
    "permute_channels",
    "recorded",
    "silence_channels",
]


# ---- seeded changes


def permute_channels(
    session: Session, *, seed: int, share: float = 1.0, from_bin: int = 0, to_bin: int | None = None
) -> Shifted:
    """Give channels each other's signals, as if the connector had been rewired; counts and power apart.

    Args:
        session: with counts, spikes or power.
        seed: of the choice and the order.
        share: of the channels that take part; those that keep their place by chance are not in the truth.
        from_bin, to_bin: first bin, and end.

    Raises:
        ConfigError: the share or the bins are impossible, or fewer than two channels would take part.

    >>> from betz.data.arrays import from_arrays
    >>> session = from_arrays(np.arange(12).reshape(4, 3), bin_ms=20)
    >>> shifted = permute_channels(session, seed=0, from_bin=2)
    >>> shifted.truth[0].channels, shifted.truth[0].sources
    (('ch0', 'ch1'), ('ch1', 'ch0'))
    >>> shifted.session.signals.tolist()
    [[0, 1, 2], [3, 4, 5], [7, 6, 8], [10, 9, 11]]
    """
    rng = SeedTree(seed).generator("permuted channels", item=session.id)
    moved: dict[str, str] = {}
    for power in (False, True):
        ids = [c.id for c in session.channels if (c.kind == "power") == power]
        chosen = [ids[i] for i in np.sort(rng.permutation(len(ids))[: _number(share, len(ids))])] if ids else []
        order = np.arange(len(chosen))
        while len(chosen) > 1 and np.array_equal(order, np.arange(len(chosen))):
            order = rng.permutation(len(chosen))
        moved |= {chosen[i]: chosen[j] for i, j in enumerate(order.tolist()) if i != j}
    if not moved:
        raise ConfigError("fewer than two channels would be permuted.", where=f"session {session.id}")
    when = _when(session, from_bin, to_bin)
    return apply_shifts(session, [Shift("moved", tuple(moved), when, sources=tuple(moved.values()))], seed=seed)


def silence_channels(
    session: Session, *, seed: int, share: float = 0.3, from_bin: int = 0, to_bin: int | None = None
) -> Shifted:
    """Take every spike (power: its value) from a share of the channels; otherwise as :func:`permute_channels`.

    Raises:
        ConfigError: the share or the bins are impossible.
    """
    chosen = _chosen(session, share, SeedTree(seed).generator("silent channels", item=session.id))
    return apply_shifts(session, [Shift("silent", chosen, _when(session, from_bin, to_bin))], seed=seed)


def change_gain(
    session: Session,
    *,
    seed: int,
    log_sd: float,
    share: float = 1.0,
    from_bin: int = 0,
    to_bin: int | None = None,
) -> Shifted:
    """Multiply channels by factors exp(``log_sd`` · normal), as if thresholds had moved.

    Args:
        session: with counts or power.
        seed: of the choice, the factors and the rounding.
        log_sd: standard deviation of the factors' logarithms.
        share, from_bin, to_bin: as for :func:`permute_channels`.

    Raises:
        ConfigError: a setting is impossible.
        DataError: a count would exceed 255, or the session has spike ticks.
    """
    if not (np.isfinite(log_sd) and log_sd > 0):
        raise ConfigError(f"log_sd = {log_sd} is not above 0.", where="change of gain")
    rng = SeedTree(seed).generator("gains", item=session.id)
    chosen = _chosen(session, share, rng)
    factors = np.exp(log_sd * rng.normal(size=len(chosen)))
    shift = Shift("gain", chosen, _when(session, from_bin, to_bin), amounts=tuple(factors.tolist()))
    return apply_shifts(session, [shift], seed=seed)


def add_offset(
    session: Session,
    *,
    seed: int,
    mean: float,
    sd: float,
    share: float = 1.0,
    from_bin: int = 0,
    to_bin: int | None = None,
) -> Shifted:
    """Add a constant to channels, normally distributed over them, as if baselines had moved.

    Args:
        session: with counts or power.
        seed: of the choice, the offsets and the rounding.
        mean, sd: of the offsets in counts a bin (Degenhart et al. 2020: 0.375 and 0.25 in 45 ms).
        share, from_bin, to_bin: as for :func:`permute_channels`.

    Raises:
        As :func:`change_gain`.
    """
    if not (np.isfinite(mean) and np.isfinite(sd) and sd >= 0):
        raise ConfigError(f"offsets of {mean} ± {sd} are impossible.", where="offset")
    rng = SeedTree(seed).generator("offsets", item=session.id)
    chosen = _chosen(session, share, rng)
    amounts = mean + sd * rng.normal(size=len(chosen))
    shift = Shift("offset", chosen, _when(session, from_bin, to_bin), amounts=tuple(amounts.tolist()))
    return apply_shifts(session, [shift], seed=seed)


# ---- recorded perturbations


def recorded(session: Session, *, seed: int = 0) -> Shifted:
    """What the decoder got instead of the stored counts, in the trials in which it was perturbed.

    The importer of such a recording keeps the perturbation (``Provenance.options["perturbation"]``) and marks the
    trials (column ``perturbed``). As in the experiment, channels get others' counts first, then offsets are added,
    then channels are silenced; a channel whose counts another one got keeps them.

    Args:
        session: of an imported closed-loop recording, or a part of one.
        seed: of the rounding of fractional counts.

    Raises:
        DataError: it holds no perturbation, or channels or trials of it are missing.
    """
    where = f"session {session.id}"
    given = session.provenance.options.get("perturbation")
    if given is None or session.trials is None or "perturbed" not in session.trials.columns:
        raise DataError(
            "it has no recorded perturbation.",
            where=where,
            remedy="use a recording that was imported with one, once, or a seeded shift (permute_channels …)",
        )
    perturbed = np.asarray(session.trials.columns["perturbed"]).astype(bool)
    pairs = np.stack((session.trials.start, session.trials.end), axis=1)[perturbed]
    when = Intervals.of(pairs) & Intervals.of([session.span])
    swaps, offsets = dict(given["swaps"]), dict(given["offsets"])
    shifts = [
        Shift("moved", tuple(swaps), when, sources=tuple(swaps.values())),
        Shift("offset", tuple(offsets), when, amounts=tuple(offsets.values())),
        Shift("silent", tuple(given["silent"]), when),
    ]
    shifted = apply_shifts(session, [shift for shift in shifts if shift.channels], seed=seed)
    provenance = shifted.session.provenance
    options = {k: v for k, v in provenance.options.items() if k != "perturbation"}
    return replace(shifted, session=replace(shifted.session, provenance=replace(provenance, options=options)))


def _number(share: float, channels: int) -> int:
    if not 0 < share <= 1:
        raise ConfigError(f"a share of {share} of the channels is impossible.", remedy="give more than 0, at most 1")
    return max(round(share * channels), 1)


def _chosen(session: Session, share: float, rng: np.random.Generator) -> tuple[str, ...]:
    number = len(session.channels)
    which = np.sort(rng.permutation(number)[: _number(share, number)])
    return tuple(session.channels[k].id for k in which.tolist())


def _when(session: Session, from_bin: int, to_bin: int | None) -> Intervals:
    stop = session.num_bins if to_bin is None else to_bin
    if not 0 <= from_bin < stop <= session.num_bins:
        raise ConfigError(
            f"bins {from_bin} to {stop} are not inside the {session.num_bins} bins.", where=f"session {session.id}"
        )
    low, high = session.grid.start_of([from_bin, stop]).tolist()
    return Intervals.of([(low, high)])
