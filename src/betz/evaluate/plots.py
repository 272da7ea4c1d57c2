"""Figures of a report: SVG in data URIs, each with an alternative text and a caption."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import require
from betz.evaluate.classes import headline, measure
from betz.evaluate.evaluation import Evaluation
from betz.evaluate.results import Column, Row, per_session

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6b6b6b")
"""Okabe and Ito's palette: told apart by people with any color vision."""
MARKERS = "osD^vPX"
INK, FAINT = "#222222", "#c9c9c9"
TRACE_S = 20.0
MAX_TRACES = 8
STYLE = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#777777",
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e9e9e9",
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "betz",
}


@dataclass(frozen=True)
class Picture:
    """An image in a report: ``src`` is a data URI, ``alt`` says in words what it shows."""

    src: str
    alt: str
    caption: str


def new_figure(width: float, height: float, rows: int = 1) -> tuple[Any, list[Any]]:
    """A figure (inches) without a window, and its axes below each other with one x axis."""
    figure = require("matplotlib.figure", extra="report").Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])


def as_picture(figure: Any, alt: str, caption: str) -> Picture:
    """The figure as a picture: SVG in a data URI."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return Picture(f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}", alt, caption)


def style() -> Any:
    """The context in which figures of a report are made."""
    return require("matplotlib", extra="report").rc_context(STYLE)


def curve(columns: Sequence[Column], rows: Sequence[Row]) -> Picture | None:
    """The score against minutes of calibration of one task; None where there is a single amount."""
    calibrated = [c for c in columns if c.minutes > 0 and c.sessions]
    minutes = sorted({c.minutes for c in calibrated})
    if len(minutes) < 2:
        return None
    decoders = list(dict.fromkeys(c.decoder for c in columns))
    several = len({c.edges for c in calibrated}) > 1
    shown = calibrated[0].measure
    with style():
        figure, (axes,) = new_figure(7.2, 3.5)
        for (decoder, edges), line in _lines(calibrated).items():
            at = decoders.index(decoder)
            look = {"color": COLORS[at % len(COLORS)], "marker": MARKERS[at % len(MARKERS)]}
            shift = 1.025 ** (at - (len(decoders) - 1) / 2)
            x = np.array([c.minutes_used for c in line]) * shift
            y, sd = np.array([c.mean for c in line]), np.array([c.sd or 0.0 for c in line])
            label = f"{decoder} ({_mode(edges)})" if several else decoder
            dash = "--" if edges == "cross" else "-"
            if not several:
                _dots(axes, rows, decoder, edges, look["color"], shift)
            axes.errorbar(x, y, yerr=sd, linestyle=dash, capsize=3, lw=1.6, markersize=5.5, label=label, **look)
            short = [i for i, c in enumerate(line) if c.short]
            axes.plot(x[short], y[short], linestyle="", markersize=5.5, zorder=5, **look | {"markerfacecolor": "white"})
        _minutes_axis(axes, sorted({round(c.minutes_used, 1) if c.short else c.minutes for c in calibrated}))
        axes.set_ylabel(f"{shown} on the test part")
        axes.axhline(0, color="#777777", lw=0.8)
        low = min(c.mean - (c.sd or 0) for c in calibrated)
        axes.set_ylim(max(-0.5, min(0.0, low - 0.05)), 1)
        axes.legend(loc="lower right", ncols=2 if several else 1)
        ends = [
            f"{d}{' (' + _mode(e) + ')' if several else ''}: {_walk(line)}"
            for (d, e), line in _lines(calibrated).items()
        ]
        single = all(c.sessions == 1 for c in calibrated)
        caption = f"{shown} against the minutes of calibration that there were: ".capitalize()
        caption += "one session" if single else "mean over sessions"
        caption += ", bars: standard deviation over sessions" if any(c.sd is not None for c in calibrated) else ""
        caption += "" if several or single else "; small dots: single sessions"
        caption += (
            ". Open markers: less than 90 % of the minutes asked for." if any(c.short for c in calibrated) else "."
        )
        alt = f"Line plot of {shown} against minutes of calibration. {'; '.join(ends)}."
        return as_picture(figure, alt, caption)


def _dots(axes: Any, rows: Sequence[Row], decoder: str, edges: str, color: str, shift: float) -> None:
    cells = [r for r in rows if r["decoder"] == decoder and r["edges"] == edges and not r.get("error")]
    x = np.array([r["minutes_used"] for r in cells])
    axes.plot(x * shift, [headline(r) for r in cells], "o", color=color, alpha=0.35, markersize=3.5, markeredgewidth=0)


def _lines(columns: Sequence[Column]) -> dict[tuple[str, str], list[Column]]:
    found: dict[tuple[str, str], list[Column]] = {}
    for c in columns:
        found.setdefault((c.decoder, c.edges), []).append(c)
    return found


def _walk(line: Sequence[Column]) -> str:
    return ", ".join(f"{c.mean:.2f} after {c.minutes_used:.3g} minutes" for c in line)


def _mode(edges: str) -> str:
    return {"restart": "restarting at trial edges", "cross": "crossing trial edges"}.get(edges, "no trial edges")


def _minutes_axis(axes: Any, ticks: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(ticks, labels=[f"{m:g}" for m in ticks])
    axes.minorticks_off()
    axes.set_xlabel("minutes of calibration")


def sessions(rows: Sequence[Row], decoders: Sequence[str]) -> Picture | None:
    """The score of every session, a dot a decoder, of one task, edges mode and amount; None for one session."""
    by_session = per_session([r for r in rows if not r.get("error")])
    if len(by_session) < 2:
        return None
    with style():
        figure, (axes,) = new_figure(7.2, 0.75 + 0.22 * len(by_session))
        names = list(by_session)
        for at, decoder in enumerate(decoders):
            mine = [[headline(r) for r in by_session[n] if r["decoder"] == decoder] for n in names]
            means = [np.mean(found or [np.nan]) for found in mine]
            look = {"color": COLORS[at % len(COLORS)], "marker": MARKERS[at % len(MARKERS)]}
            axes.plot(means, range(len(names)), linestyle="", markersize=6, label=decoder, alpha=0.9, **look)
        axes.set_yticks(range(len(names)), labels=names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.axvline(0, color="#777777", lw=0.8)
        axes.set_xlim(max(-0.5, min(0.0, axes.get_xlim()[0])), 1)
        shown = measure(rows[0])
        axes.set_xlabel(f"{shown} on the test part")
        if len(decoders) > 1:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=len(decoders))
        alt = f"Dot plot of the {shown} of each session; the numbers are in the table below."
        return as_picture(figure, alt, f"{shown} of each session.".capitalize())


def traces(evaluation: Evaluation) -> Picture:
    """Decoded over true behavior in a stretch that is neither the best nor the worst."""
    start, stop = _typical(evaluation)
    part = slice(start, stop)
    shown = evaluation.dims[:MAX_TRACES]
    time_s = evaluation.time_s[part] - evaluation.time_s[start]
    with style():
        figure, axes = new_figure(7.2, 0.9 + 1.15 * len(shown), rows=len(shown))
        for k, (dim, axis) in enumerate(zip(shown, axes, strict=True)):
            axis.plot(time_s, evaluation.truth_NK[part, k], color=INK, lw=1.3, label="true")
            axis.plot(time_s, evaluation.predicted_NK[part, k], color=COLORS[1], lw=1.3, label="decoded")
            axis.set_ylabel(f"{dim.name}\n({dim.unit})" if dim.unit else dim.name)
            axis.margins(x=0)
        axes[-1].set_xlabel("seconds")
        figure.align_ylabels(axes)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
        names = ", ".join(d.name for d in shown)
        left_out = (
            f" {len(evaluation.dims) - len(shown)} further dimensions are not drawn."
            if len(evaluation.dims) > len(shown)
            else ""
        )
        seconds = (stop - start) * evaluation.bin_ms / 1000
        caption = (
            f"{evaluation.decoder} on {evaluation.session}: {seconds:.0f} seconds of the test part whose error is the "
            f"median of all such stretches, from {evaluation.time_s[start]:.0f} s of the recording clock on.{left_out}"
        )
        return as_picture(figure, f"Line plots of true and decoded {names} over {seconds:.0f} seconds.", caption)


def _typical(evaluation: Evaluation) -> tuple[int, int]:
    """The stretch of the test part whose squared error, in units of each dimension's variance, is the median."""
    scored_N, test = evaluation.scored_N, np.flatnonzero(evaluation.test_N)
    first, last = int(test[0]), int(test[-1]) + 1
    length = min(max(round(TRACE_S * 1000 / evaluation.bin_ms), 2), last - first)
    scale = np.nanvar(evaluation.truth_NK[scored_N], axis=0)
    used = scale > 0
    square_N = ((evaluation.truth_NK - evaluation.predicted_NK) ** 2)[:, used] / scale[used]
    error_N = np.where(scored_N, np.nan_to_num(square_N.mean(axis=1)), 0.0)
    starts = np.arange(first, last - length + 1, max(length // 4, 1))
    number = _sums(scored_N.astype(np.float64), starts, length)
    whole = number >= 0.9 * number.max()  # stretches with gaps show little
    error = _sums(error_N, starts, length)[whole] / number[whole]
    at = int(starts[whole][np.argsort(error, kind="stable")[(len(error) - 1) // 2]])
    return at, at + length


def _sums(values_N: NDArray[np.float64], starts: NDArray[np.int64], length: int) -> NDArray[np.float64]:
    total = np.concatenate(([0.0], np.cumsum(values_N)))
    return np.asarray(total[starts + length] - total[starts])
