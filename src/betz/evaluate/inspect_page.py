"""The findings of inspections as a page: tables and figures in one self-contained HTML file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import DataError
from betz.evaluate.inspect import Inspection
from betz.evaluate.inspect_text import headline
from betz.evaluate.inspect_warnings import NOISE
from betz.evaluate.lags import PLAUSIBLE_MS
from betz.evaluate.plots import COLORS, FAINT, INK, MARKERS, MAX_TRACES, Picture, as_picture, new_figure, style
from betz.evaluate.report import template
from betz.evaluate.results import environment, write_whole

COLUMNS = 300
"""Columns of a figure over the whole session."""
MAX_EDGES = 200


def page(found: Sequence[Inspection], path: str | Path) -> Path:
    """Write one page about some sessions; it is replaced as a whole. Returns its path.

    Raises:
        DataError: there is nothing to report.
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    if not found:
        raise DataError("there are no sessions to report on.", where=str(path))
    html = template("inspect.html").render(
        title=found[0].session.id if len(found) == 1 else f"{len(found)} sessions",
        sections=[_section(each) for each in found],
        made=environment(),
    )
    return write_whole(Path(path), html.encode())


def save_plots(found: Sequence[Inspection], folder: str | Path) -> list[Path]:
    """Write the figures as SVG files, ``SESSION-rates.svg`` and so on. Returns their paths."""
    made = []
    for each in found:
        for name, picture in pictures(each).items():
            content = base64.b64decode(picture.src.partition(",")[2])
            made.append(write_whole(Path(folder) / f"{each.session.id}-{name}.svg", content))
    return made


def pictures(found: Inspection) -> dict[str, Picture]:
    """The figures that there is something to draw of, by name."""
    with style():
        drawn = {"rates": rates(found), "activity": activity(found), "behavior": behavior(found), "lags": lags(found)}
    return {name: picture for name, picture in drawn.items() if picture is not None}


def _section(found: Inspection) -> dict[str, Any]:
    channels, ids = found.channels, [c.id for c in found.session.channels]
    flagged = {
        "dead": [ids[k] for k in channels.dead],
        "near-dead": [ids[k] for k in channels.near_dead],
        **{
            f"noisy: {what}": [f"{ids[k]} ({n.detail})" for k, n in channels.noisy.items() if n.kind == kind]
            for kind, what in NOISE.items()
        },
        "duplicated (correlation)": [f"{ids[a]}, {ids[b]} ({r:.3f})" for a, b, r in channels.duplicated],
    }
    return {
        "found": found,
        "headline": headline(found),
        "kinds": found.kinds(),
        "flagged": {what: which for what, which in flagged.items() if which},
        "derived": any(line.derived for line in found.behavior),
        "pictures": pictures(found),
        "notes": [note for note in found.session.provenance.notes if note not in found.warnings],
        "longest_gap_s": max((b - a for a, b in found.time.gaps), default=0) * found.session.grid.bin_s,
    }


# ---- figures


def rates(found: Inspection) -> Picture:
    """The rate of each channel, or the mean of each power channel, those that stand out marked."""
    report, session = found.channels, found.session
    pairs = {k for a, b, _ in report.duplicated for k in (a, b)}
    groups = {
        "dead": (set(report.dead), COLORS[1], "x"),
        "near-dead": (set(report.near_dead), COLORS[4], MARKERS[2]),
        "noisy": (set(report.noisy), COLORS[3], MARKERS[3]),
        "duplicated": (pairs, COLORS[2], MARKERS[1]),
    }
    marked = set().union(*(which for which, _, _ in groups.values()))
    plain = set(range(len(report.rate))) - marked
    figure, (axes,) = new_figure(7.2, 2.9)
    for label, (which, color, marker) in {"nothing stands out": (plain, COLORS[0], "o"), **groups}.items():
        at = np.array(sorted(which), dtype=int)
        if len(at):
            look = {} if marker == "x" else {"markeredgewidth": 0}
            axes.plot(at, report.rate[at], marker, color=color, label=f"{label} ({len(at)})", markersize=5, **look)
    power = any(c.kind == "power" for c in session.channels)
    axes.set_ylabel("mean" if power else "spikes a second")
    axes.set_xlabel("channel, in the order of the session")
    if report.rate.min(initial=0.0) >= 0:
        axes.set_yscale("symlog", linthresh=0.1)
        axes.set_ylim(bottom=-0.02)
    figure.legend(loc="outside upper left", ncols=5)
    told = ", ".join(f"{len(which)} {label}" for label, (which, _, _) in groups.items())
    return as_picture(figure, f"Dot plot of the rate of {len(report.rate)} channels: {told}.", "Rate of each channel.")


def activity(found: Inspection) -> Picture:
    """Signals of all channels over the session, each relative to its own mean; gaps stay white."""
    session = found.session
    x_CT, minutes = _over_time(session.signals, session.usable, session.grid.bin_s)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nanmean(x_CT, axis=1, keepdims=True) if np.isfinite(x_CT).any() else np.zeros((len(x_CT), 1))
        relative = np.where(mean > 0, x_CT / mean, np.where(np.isnan(x_CT), np.nan, 0.0))
    figure, (axes,) = new_figure(7.2, 3.3)
    axes.grid(visible=False)
    extent = (0, minutes, len(x_CT) - 0.5, -0.5)
    image = axes.imshow(relative, aspect="auto", extent=extent, cmap="cividis", vmin=0, vmax=2, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="relative to the channel's mean", extend="max", pad=0.01)
    axes.set_xlabel("minutes")
    axes.set_ylabel("channel")
    caption = (
        "Signals of every channel over the session, relative to the channel's mean; bins that are not valid are white."
    )
    edges = session.grid.bin_of(session.edges) * session.grid.bin_s / 60
    edges = edges[(edges > 0) & (edges < minutes)]
    if 0 < len(edges) <= MAX_EDGES:
        axes.vlines(edges, -0.5, len(x_CT) - 0.5, color="white", lw=0.4)
        caption += " White lines: trial edges."
    alt = f"Heat map of {len(x_CT)} channels over {minutes:.1f} minutes, {found.time.usable:.1%} of which are valid."
    return as_picture(figure, alt, caption)


def _over_time(
    signals_NC: NDArray[Any], usable_N: NDArray[np.bool_], bin_s: float
) -> tuple[NDArray[np.float64], float]:
    """(C, T) mean signals in T stretches of the session (NaN where no bin is usable), and its minutes."""
    size = max(1, -(-len(signals_NC) // COLUMNS))
    starts = np.arange(0, len(signals_NC), size)
    total_TC = np.add.reduceat(np.where(usable_N[:, None], signals_NC, 0).astype(np.float32), starts, axis=0)
    number_T = np.add.reduceat(usable_N.astype(np.int64), starts)
    mean_TC = np.full(total_TC.shape, np.nan)
    np.divide(total_TC, number_T[:, None], out=mean_TC, where=number_T[:, None] > 0)
    return mean_TC.T, len(starts) * size * bin_s / 60


def behavior(found: Inspection) -> Picture | None:
    """Range and median of each dimension over the session; None without behavior."""
    session = found.session
    shown = [line for line in found.behavior if not line.classes and line.known > 0][:MAX_TRACES]
    if not shown:
        return None
    values_NK = session.behavior_of([line.name for line in shown])
    values_NK[~session.usable] = np.nan
    size = max(1, -(-len(values_NK) // COLUMNS))
    columns = [values_NK[i : i + size] for i in range(0, len(values_NK), size)]
    minutes = np.arange(len(columns)) * size * session.grid.bin_s / 60
    figure, every = new_figure(7.2, 0.8 + 0.85 * len(shown), rows=len(shown))
    for k, (line, axes) in enumerate(zip(shown, every, strict=True)):
        known = [column[np.isfinite(column[:, k]), k] for column in columns]
        low, middle, high = np.array([np.percentile(c, (0, 50, 100)) if len(c) else [np.nan] * 3 for c in known]).T
        axes.fill_between(minutes, low, high, color=COLORS[0], alpha=0.3, lw=0)
        axes.plot(minutes, middle, color=INK, lw=0.9)
        axes.set_ylabel(f"{line.name}\n({line.unit})" if line.unit else line.name, rotation=0, ha="right", va="center")
        axes.margins(x=0)
    every[-1].set_xlabel("minutes")
    more = len(found.behavior) - len(shown)
    caption = f"Behavior in pieces of {size * session.grid.bin_s:.3g} s: range (band) and median (line)."
    caption += f" {more} further dimensions are not drawn." if more else ""
    names = ", ".join(line.name for line in shown)
    return as_picture(figure, f"Range and median of {names} over {found.session.minutes:.1f} minutes.", caption)


def lags(found: Inspection) -> Picture | None:
    """R² against the lag for each group of behavior; None where nothing was swept."""
    if not found.lags:
        return None
    figure, (axes,) = new_figure(7.2, 3.3)
    axes.axvspan(*PLAUSIBLE_MS, color="#eef3ee", lw=0, zorder=0)
    axes.axvline(0, color="#777777", lw=0.8)
    for k, curve in enumerate(found.lags):
        color = COLORS[k % len(COLORS)]
        dash = "--" if k >= len(COLORS) or curve.instruction else "-"
        label = f"{curve.group}: {curve.best_ms:.0f} ms"
        axes.plot(curve.lag_ms, curve.r2, dash, color=color, lw=1.5, label=label)
        axes.plot(curve.best_ms, curve.best_r2, MARKERS[k % len(MARKERS)], color=color, markersize=5)
    top = max(curve.best_r2 for curve in found.lags)
    axes.set_ylim(min(0.0, max(-0.1, min(float(np.nanmin(c.r2)) for c in found.lags))), max(0.1, 1.1 * top))
    axes.set_xlabel("lag in ms; positive: spikes earlier than behavior")
    axes.set_ylabel("R² (cross-validated)")
    axes.spines["bottom"].set_color(FAINT)
    figure.legend(loc="outside upper left", ncols=3)
    told = "; ".join(f"{c.group} is best at {c.best_ms:.0f} ms with {c.best_r2:.2f}" for c in found.lags)
    caption = "R² of behavior from the signals of one bin at each lag; shaded: 0 to 300 ms, where motor cortex lies."
    if any(c.instruction for c in found.lags):
        caption += " Dashed: what the task showed."
    return as_picture(figure, f"Line plot of R² against lag: {told}.", caption)
