"""What looks wrong with a session, and what is worth knowing of it, in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from betz.core.session import BehaviorDim, Session
from betz.data.importers import checks
from betz.decode.features import Float
from betz.evaluate.channels import ChannelReport
from betz.evaluate.lags import LEAST_R2, PLAUSIBLE_MS, SURE_T, LagCurve

FEW_TOGETHER = 5
"""So many bins in which all channels fire at once are mentioned, more are warned of."""
SURE_R2 = 0.01
MAX_NAMES = 8


# ---- channels


NOISE = {
    "rate": "implausibly many spikes a second",
    "saturated": "saturated; share of bins at the highest count",
    "artefacts": "share of spikes in bins in which all fire at once",
    "bursts": "jumps from bin to bin, relative to Poisson counts",
    "peaks": "power more than 20 ranges away from the rest",
}


def of_channels(session: Session, found: ChannelReport) -> list[str]:
    """Warnings of channels, one by one and together."""
    ids, total = [c.id for c in session.channels], len(session.channels)

    def some(which: Sequence[int], what: str, detail: Mapping[int, str] | None = None) -> list[str]:
        told = names(f"{ids[k]} ({detail[k]})" if detail else ids[k] for k in which)
        return (
            [f"{len(which)} of {total} channels {'is' if len(which) == 1 else 'are'} {what}: {told}"] if which else []
        )

    power = {k for k, c in enumerate(session.channels) if c.kind == "power"}
    warnings = some(found.dead, "dead")
    warnings += some([k for k in found.near_dead if k not in power], "near-dead, with less than 0.1 spikes a second")
    warnings += some([k for k in found.near_dead if k in power], "near-dead, with hardly any variance")
    same = [f"{ids[a]} = {ids[b]}" for a, b, r in found.duplicated if r == 1]
    close = [f"{ids[a]} ~ {ids[b]} (r = {r:.2f})" for a, b, r in found.duplicated if r < 1]
    if same:
        warnings.append(f"duplicated channels, {_pairs(same)}: {names(same)}")
    if close:
        warnings.append(
            f"near-identical channels, as with bridged electrodes or crosstalk, {_pairs(close)}: {names(close)}"
        )
    if len(found.together) >= FEW_TOGETHER:
        seconds = dict.fromkeys(f"{k * session.grid.bin_s:.0f}" for k in found.together.tolist())
        warnings.append(
            f"nearly all channels fire at once in {len(found.together)} bins "
            f"({len(found.together) / session.num_bins:.2%}), likely artefacts: at second {names(seconds)}"
        )
    for kind, what in NOISE.items():
        detail = {k: noise.detail for k, noise in found.noisy.items() if noise.kind == kind}
        warnings += some(list(detail), f"noisy ({what})", detail)
    if len(power) < total:
        counts_NC = session.signals[:, : total - len(power)].astype(np.uint8)
        warnings += checks.rate_notes(counts_NC, session.grid.bin_s, session.usable)
    return warnings


def few_together(found: ChannelReport) -> list[str]:
    """A note of bins in which all channels fire at once, where they are too few for a warning."""
    number = len(found.together)
    return [f"nearly all channels fire at once in {number} bins"] if 0 < number < FEW_TOGETHER else []


def _pairs(which: Sequence[str]) -> str:
    return f"{len(which)} pair{'s' if len(which) > 1 else ''}"


def names(which: Iterable[str], show: int = MAX_NAMES) -> str:
    """Names for people; many are cut."""
    every = list(which)
    return ", ".join(every[:show]) + (f" … ({len(every) - show} more)" if len(every) > show else "")


# ---- behavior


def partly_known(shares: Iterable[tuple[str, float]]) -> list[str]:
    """A note of the dimensions, given with the share of usable bins in which they are known, that have NaN."""
    some = [f"{name} ({1 - known:.1%})" for name, known in shares if 0 < known < 1]
    return [f"not known (NaN) in a part of the usable bins: {names(some)}"] if some else []


def of_behavior(dims: Sequence[BehaviorDim], values_NK: Float, bin_s: float) -> list[str]:
    """Warnings of behavior in the session's bins."""
    known = np.asarray(np.isfinite(values_NK).any(axis=0))
    warnings = [f"no value at all is known of {d.name}" for d, there in zip(dims, known, strict=True) if not there]
    dims = [d for d, there in zip(dims, known, strict=True) if there]
    values_NK = values_NK[:, known]
    if not dims:
        return warnings
    warnings += checks.behavior_notes(values_NK, dims, bin_s)
    for effector, parts in checks.idle_by_effector(values_NK, dims, bin_s).items():
        warnings.append(f"{effector} stands still in {checks.spoken(parts, bin_s)}")
    for stem, position, velocity in checks.position_velocity_pairs(dims):
        implied = checks.implied_bin_s(values_NK[:, position], values_NK[:, velocity])
        if implied is not None and abs(implied / bin_s - 1) > 0.05:
            warnings.append(
                f"{stem} velocity is the change of position in {implied * 1000:.4g} ms, "
                f"but bins are {bin_s * 1000:g} ms: one of the two, or a unit, is wrong"
            )
    return warnings


# ---- lags


def of_lags(curves: Sequence[LagCurve]) -> tuple[list[str], list[str]]:
    """Warnings of lags that are not plausible, and notes of what is no fault."""
    warnings: list[str] = []
    notes: list[str] = []
    by_name = {curve.group: curve for curve in curves}
    for curve in curves:
        if curve.instruction:
            continue
        velocity = by_name.get(f"{curve.group} velocity")
        explained = velocity is not None and velocity.best_r2 >= LEAST_R2
        if curve.best_r2 < LEAST_R2:
            text = f"{curve.group} cannot be decoded at any lag (best R² {curve.best_r2:.2f})"
            (notes if explained else warnings).append(f"{text}: do signals and behavior belong together?")
        elif implausible(curve):
            text = f"{curve.group} is best decoded from spikes {_where(curve)}"
            if explained:
                notes.append(f"{text}; that may come from its velocity, which leads it")
            else:
                warnings.append(f"{text}: {_hint(curve)}")
    return warnings, notes


def implausible(curve: LagCurve) -> bool:
    """Whether the best lag lies outside of 0 … 300 ms by more than chance."""
    outside = not PLAUSIBLE_MS[0] <= curve.best_ms <= PLAUSIBLE_MS[1]
    return outside and curve.surplus[0] > SURE_R2 and curve.surplus[1] > SURE_T


def _where(curve: LagCurve) -> str:
    side = "earlier" if curve.best_ms > 0 else "later"
    part = f", of which {curve.delay_ms:.0f} ms are its stored delay" if curve.delay_ms and curve.best_ms > 0 else ""
    inside = curve.best_r2 - curve.surplus[0]
    return f"{abs(curve.best_ms):.0f} ms {side} (R² {curve.best_r2:.2f}, within 0 to 300 ms {inside:.2f}{part})"


def _hint(curve: LagCurve) -> str:
    if curve.best_ms < 0:
        return "check that both clocks agree, that stamps mark the start of bins, and what smoothed the behavior ahead"
    return "check that both clocks agree, and what delays the behavior (filters, a display, stamps of bin ends)"
