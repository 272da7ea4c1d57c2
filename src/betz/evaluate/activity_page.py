"""Simulated next to recorded activity, on one page: figures, a table, and the differences in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import DataError
from betz.evaluate.activity import WINDOWS_S, Activity
from betz.evaluate.plots import COLORS, MARKERS, Picture, as_picture, new_figure, style
from betz.evaluate.report import template
from betz.evaluate.results import environment, write_whole

Float = NDArray[np.float64]
Curves = Mapping[str, Mapping[float, Sequence[float]]]
"""Group → minutes of calibration → R² of each session."""
FANO_TICKS = (1, 2, 5, 10, 20, 50)

LABELS: Mapping[str, tuple[str, str]] = {
    "live_share": ("channels of at least half a spike a second", ""),
    "rate_hz_5": ("rate, 5 % of channels", "Hz"),
    "rate_hz_50": ("rate, median channel", "Hz"),
    "rate_hz_95": ("rate, 95 % of channels", "Hz"),
    **{f"fano_{w:g}s": (f"Fano factor, windows of {w:g} s", "") for w in WINDOWS_S},
    "lead_ms": ("counts lead movement by", "ms"),
    "tuning_r2_50": ("variance explained by movement, median channel", ""),
    "tuning_r2_95": ("variance explained by movement, 95 % of channels", ""),
    "signal_correlation_sd": ("signal correlation, sd over pairs", ""),
    "noise_correlation_mean": ("noise correlation in bins, mean", ""),
    "noise_correlation_sd": ("noise correlation in bins, sd over pairs", ""),
    "noise_correlation_1s_mean": ("noise correlation in 1 s, mean", ""),
    "noise_correlation_1s_sd": ("noise correlation in 1 s, sd over pairs", ""),
}


@dataclass(frozen=True)
class Line:
    """One number compared.

    Args:
        name, unit: what it is.
        recorded, simulated: (lowest, median, highest) over sessions.
        verdict: ``within``, ``above`` or ``below``: where the simulated median lies in the recorded range.
    """

    name: str
    unit: str
    recorded: tuple[float, float, float]
    simulated: tuple[float, float, float]
    verdict: str

    def words(self, real: str) -> str:
        """The line as a sentence."""
        unit = f" {self.unit}" if self.unit else ""
        low, middle, high = (f"{v:.3g}" for v in self.recorded)
        where = {"within": "inside", "above": "above", "below": "below"}[self.verdict]
        return f"{self.name}: {self.simulated[1]:.3g}{unit}, {where} {real}'s {low} … {high} (median {middle})"


def compare(
    real: Sequence[Activity], made: Sequence[Activity], curves: tuple[Mapping[float, Sequence[float]], ...]
) -> list[Line]:
    """Each number over recorded and over simulated sessions; then R² at each length of calibration.

    Args:
        real, made: sessions.
        curves: of the recorded and the simulated ones; minutes that one of them lacks are left out.
    """
    lines = []
    for key, (name, unit) in LABELS.items():
        lines.append(_line(name, unit, [a.numbers()[key] for a in real], [a.numbers()[key] for a in made]))
    for minutes in sorted(set(curves[0]) & set(curves[1])):
        lines.append(_line(f"R² of ridge after {minutes:g} min", "", curves[0][minutes], curves[1][minutes]))
    return lines


def _line(name: str, unit: str, recorded: Sequence[float], simulated: Sequence[float]) -> Line:
    real, made = ((float(np.min(v)), float(np.median(v)), float(np.max(v))) for v in (recorded, simulated))
    verdict = "above" if made[1] > real[2] else "below" if made[1] < real[0] else "within"
    return Line(name, unit, real, made, verdict)


def page(
    groups: Mapping[str, Sequence[Activity]],
    curves: Curves,
    pairs: Sequence[tuple[str, str]],
    path: str | Path,
    *,
    notes: Sequence[str] = (),
) -> Path:
    """Write the page; it is replaced as a whole. Returns its path.

    Args:
        groups: sessions by name of their group.
        curves: R² by group, minutes and session.
        pairs: (recorded group, simulated group) to compare.
        path: of the HTML file.
        notes: sentences below the title.

    Raises:
        DataError: there is nothing to compare.
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    if not pairs:
        raise DataError("there is no pair of groups to compare.", where=str(path))
    with style():
        pictures = [_rates(groups), _fano(groups), _correlations(groups), _tuning(groups), _curves(curves)]
    sections = []
    for real, made in pairs:
        lines = compare(groups[real], groups[made], (curves.get(real, {}), curves.get(made, {})))
        sections.append(
            {
                "real": real,
                "made": made,
                "lines": lines,
                "same": [line for line in lines if line.verdict == "within"],
                "other": [line.words(real) for line in lines if line.verdict != "within"],
            }
        )
    html = template("activity.html").render(
        title="Simulated and recorded activity",
        groups={name: [_session(a) for a in group] for name, group in groups.items()},
        sections=sections,
        pictures=pictures,
        notes=list(notes),
        made=environment(),
    )
    return write_whole(Path(path), html.encode())


def _session(found: Activity) -> dict[str, Any]:
    numbers = found.numbers()
    return {
        "id": found.session,
        "minutes": found.minutes,
        "bin_ms": found.bin_ms,
        "live": found.live,
        "channels": found.channels,
        "rate": numbers["rate_hz_50"],
        "fano": numbers["fano_1s"],
        "noise": numbers["noise_correlation_1s_mean"],
        "tuning": numbers["tuning_r2_50"],
    }


# ---- figures


def _look(at: int) -> dict[str, Any]:
    return {"color": COLORS[at % len(COLORS)], "lw": 1.6}


def _share(axes: Any, values: Float, label: str, at: int) -> None:
    """The share of values up to each value."""
    ordered = np.sort(values)
    axes.plot(ordered, np.arange(1, len(ordered) + 1) / len(ordered), label=label, **_look(at))


def _rates(groups: Mapping[str, Sequence[Activity]]) -> Picture:
    figure, (axes,) = new_figure(7.2, 3.0)
    for at, (name, group) in enumerate(groups.items()):
        _share(axes, np.concatenate([a.rate_hz for a in group]), name, at)
    axes.set_xscale("log")
    axes.set_xlabel("mean rate of a live channel, Hz")
    axes.set_ylabel("share of channels")
    figure.legend(loc="outside upper left", ncols=2)
    return as_picture(figure, "Cumulative distributions of channel rates.", "Rates of all live channels, all sessions.")


def _fano(groups: Mapping[str, Sequence[Activity]]) -> Picture:
    figure, (axes,) = new_figure(7.2, 3.0)
    for at, (name, group) in enumerate(groups.items()):
        middle = [np.median([np.median(a.fano[w]) for a in group]) for w in WINDOWS_S]
        low, high = _bands(group)
        axes.fill_between(WINDOWS_S, low, high, color=COLORS[at % len(COLORS)], alpha=0.15, lw=0)
        axes.plot(WINDOWS_S, middle, marker=MARKERS[at % len(MARKERS)], markersize=5, label=name, **_look(at))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(WINDOWS_S, [f"{w:g}" for w in WINDOWS_S])
    axes.set_yticks(FANO_TICKS, [f"{v:g}" for v in FANO_TICKS])
    axes.minorticks_off()
    axes.set_xlabel("window, s")
    axes.set_ylabel("Fano factor")
    figure.legend(loc="outside upper left", ncols=2)
    caption = (
        "Fano factor of counts against the window: median over sessions of the median channel; bands: quartiles of "
        "channels."
    )
    return as_picture(figure, "Line plot of Fano factors against the length of the window.", caption)


def _bands(group: Sequence[Activity]) -> tuple[list[float], list[float]]:
    every = [np.concatenate([a.fano[w] for a in group]) for w in WINDOWS_S]
    return [float(np.nanquantile(v, 0.25)) for v in every], [float(np.nanquantile(v, 0.75)) for v in every]


def _correlations(groups: Mapping[str, Sequence[Activity]]) -> Picture:
    figure, every = new_figure(7.2, 5.2, rows=2)
    for at, (name, group) in enumerate(groups.items()):
        _share(every[0], np.concatenate([a.signal_correlation for a in group]), name, at)
        _share(every[1], np.concatenate([a.noise_correlation_1s for a in group]), name, at)
    every[0].set_ylabel("share of pairs\n(signal)")
    every[1].set_ylabel("share of pairs\n(noise, 1 s)")
    every[1].set_xlabel("correlation of two channels")
    figure.legend(*every[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    caption = (
        "Signal correlation: of what velocity and speed explain of two channels. Noise correlation: of what they "
        "leave, in windows of a second."
    )
    return as_picture(figure, "Cumulative distributions of signal and noise correlations.", caption)


def _tuning(groups: Mapping[str, Sequence[Activity]]) -> Picture:
    figure, (axes,) = new_figure(7.2, 3.0)
    for at, (name, group) in enumerate(groups.items()):
        _share(axes, np.concatenate([a.tuning_r2 for a in group]), name, at)
    axes.set_xlabel("share of a channel's variance in bins that velocity and speed explain")
    axes.set_ylabel("share of channels")
    figure.legend(loc="outside upper left", ncols=2)
    caption = "How much velocity and speed explain of a channel, linearly, in bins."
    return as_picture(figure, "Cumulative distributions of explained variance.", caption)


def _curves(curves: Curves) -> Picture:
    figure, (axes,) = new_figure(7.2, 3.3)
    for at, (name, curve) in enumerate(curves.items()):
        minutes = np.array(sorted(curve))
        values = [np.asarray(curve[m], dtype=np.float64) for m in minutes]
        mean, sd = np.array([v.mean() for v in values]), np.array([v.std() for v in values])
        shift = 1.02 ** (at - len(curves) / 2)
        look = _look(at) | {"marker": MARKERS[at % len(MARKERS)], "markersize": 5}
        axes.errorbar(minutes * shift, mean, yerr=sd, capsize=3, label=name, **look)
    axes.set_xscale("log")
    ticks = sorted({m for curve in curves.values() for m in curve})
    axes.set_xticks(ticks, [f"{m:g}" for m in ticks])
    axes.minorticks_off()
    axes.set_xlabel("minutes of calibration")
    axes.set_ylabel("R² of velocity")
    figure.legend(loc="outside upper left", ncols=2)
    walks = {n: ", ".join(f"{np.mean(c[m]):.2f} at {m:g} min" for m in sorted(c)) for n, c in curves.items()}
    told = "; ".join(f"{name}: {walk}" for name, walk in walks.items())
    caption = (
        "Velocity decoded by ridge (the Wiener filter as it comes) from the last 40 % of a session; bars: standard "
        "deviation over sessions."
    )
    return as_picture(figure, f"Line plot of R² against minutes. {told}.", caption)
