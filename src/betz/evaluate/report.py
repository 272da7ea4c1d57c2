"""The report: one self-contained HTML file, made from result rows, from one evaluation, or from both."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from betz.core.config import config_hash
from betz.core.errors import DataError, require
from betz.core.session import BehaviorDim
from betz.evaluate import plots, verdict
from betz.evaluate.classes import headline, is_continuous
from betz.evaluate.evaluation import Evaluation
from betz.evaluate.results import Column, Row, environment, per_session, table, write_whole

MAX_DIMS = 40


def report(rows: Sequence[Row], path: str | Path, *, evaluations: Sequence[Evaluation] = (), title: str = "") -> Path:
    """Write the report of a run, of single evaluations, or of a run with evaluations as its examples.

    Args:
        rows: of :func:`betz.evaluate.run.run` or a results file; may be empty if there are evaluations.
        path: the HTML file; it is replaced as a whole.
        evaluations: whose traces are shown.
        title: heading; default: from what was decoded.

    Returns:
        The path.

    Raises:
        DataError: there is nothing to report.
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    if not rows and not evaluations:
        raise DataError("there are no results to report.", where=str(path), remedy="run `betz evaluate` first")
    html = template("report.html").render(
        title=title or _title(rows, evaluations),
        verdict=verdict.of_rows(rows) if rows else verdict.of_evaluations(evaluations),
        tasks=_tasks(rows),
        examples=[_example(found) for found in evaluations],
        failed=_failed(rows),
        made=_made(rows, evaluations),
    )
    return write_whole(Path(path), html.encode())


def template(name: str) -> Any:
    """A template of a page; whatever it is given is escaped.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    jinja2 = require("jinja2", extra="report")
    loader = jinja2.PackageLoader("betz.evaluate", "templates")
    page = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page.filters |= {"num": _number, "settings": _settings}
    page.globals["date"] = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return page.get_template(name)


def _title(rows: Sequence[Row], evaluations: Sequence[Evaluation]) -> str:
    pairs = [(r["decoder"], r["session"]) for r in rows] or [(e.decoder, e.session) for e in evaluations]
    decoders, sessions = dict.fromkeys(d for d, _ in pairs), list({s for _, s in pairs})
    return f"{', '.join(decoders)} on {f'{len(sessions)} sessions' if len(sessions) > 1 else sessions[0]}"


# ---- a run


def _tasks(rows: Sequence[Row]) -> list[dict[str, Any]]:
    found = []
    columns = table(rows)
    for task in dict.fromkeys(c.task for c in columns):
        mine = [c for c in columns if c.task == task]
        good = [r for r in rows if r["task"] == task and not r.get("error")]
        if not good:
            continue
        top = _most(mine)
        at_top = [r for r in good if (r["edges"], r["decoder"], r["minutes"]) in {_at(c) for c in top}]
        shown = at_top and [r for r in at_top if r["edges"] == top[0].edges]
        found.append(
            {
                "name": task,
                "grid": _grid(mine),
                "curve": plots.curve(mine, good),
                "dimensions": _dimensions(shown, top),
                "sessions": _sessions(shown, top),
                "strip": plots.sessions(shown, [c.decoder for c in top if c.edges == top[0].edges]),
                "speed": _speed(good),
                "minutes": max(c.minutes for c in top),
                "edges": EDGES[top[0].edges],
                "measure": top[0].measure,
                "several_edges": len({c.edges for c in mine}) > 1,
                "percentile_unit": good[0]["percentile_unit"],
            }
        )
    return found


EDGES = {"none": "no trial edges", "restart": "restart at trial edges", "cross": "across trial edges"}


def _at(column: Column) -> tuple[str, str, float]:
    return column.edges, column.decoder, column.minutes


def _most(columns: Sequence[Column]) -> list[Column]:
    """Of each decoder and edges mode the column with most minutes that has results."""
    best: dict[tuple[str, str], Column] = {}
    for c in columns:
        if c.sessions:
            best[c.decoder, c.edges] = c  # ascending in minutes
    return list(best.values())


def _grid(columns: Sequence[Column]) -> dict[str, Any]:
    """Decoders by minutes; a fixed decoder's 0 minutes are a column of their own."""
    minutes = sorted({c.minutes for c in columns})
    lines: dict[tuple[str, str], dict[float, Column]] = {}
    for c in columns:
        lines.setdefault((c.decoder, c.edges), {})[c.minutes] = c
    used = {m: [c.minutes_used for c in columns if c.minutes == m and c.sessions] for m in minutes}
    head = [
        {
            "minutes": m,
            "short": any(c.short for c in columns if c.minutes == m),
            "used": mean(used[m]) if used[m] else 0.0,
        }
        for m in minutes
    ]
    body = [
        {"decoder": decoder, "edges": EDGES[edges], "cells": [line.get(m) for m in minutes]}
        for (decoder, edges), line in lines.items()
    ]
    return {
        "head": head,
        "body": body,
        "several_edges": len({edges for _, edges in lines}) > 1 or any(e != "none" for _, e in lines),
        "short": any(h["short"] for h in head),
        "sessions": max(c.sessions for c in columns),
        "seeds": any(c.seed_sd is not None for c in columns),
        "settled": any(c.settled is not None for c in columns),
    }


def _dimensions(rows: Sequence[Row], top: Sequence[Column]) -> dict[str, Any]:
    """The numbers of each dimension by decoder, mean and standard deviation over sessions."""
    numbers = CONTINUOUS if is_continuous(rows[0]) else DISCRETE
    decoders = list(dict.fromkeys(c.decoder for c in top if c.edges == top[0].edges))
    names = {name: unit for r in rows for name, unit in zip(r["dims"], r["units"], strict=True)}
    body = []
    for name, unit in list(names.items())[:MAX_DIMS]:
        cells = []
        for decoder in decoders:
            mine = [r for r in rows if r["decoder"] == decoder]
            cells += [_over(mine, field, name) for field in numbers]
        body.append({"name": name, "unit": unit, "cells": cells})
    groups = sorted({group for r in rows for group in r["angle_deg"]})
    angles = [
        {"name": group, "cells": [_over([r for r in rows if r["decoder"] == d], "angle_deg", group) for d in decoders]}
        for group in groups
    ]
    return {
        "decoders": decoders,
        "heads": list(numbers.values()),
        "body": body,
        "left_out": max(len(names) - MAX_DIMS, 0),
        "angles": angles,
    }


CONTINUOUS = {"r2_dims": "R²", "correlation": "ρ"}
DISCRETE = {
    "balanced_accuracy_dims": "balanced accuracy",
    "false_positives_per_min": "false events a minute",
    "onset_delay_ms": "delay, ms",
    "found": "events found",
    "events": "of",
}
"""Fields of a row with a number a dimension, and their column's head."""


def _over(rows: Sequence[Row], number: str, name: str | None = None) -> dict[str, Any]:
    """Mean, standard deviation and count over sessions of seed means; what is not defined is not counted."""
    values = []
    for found in per_session(rows).values():
        known = [v for r in found if (v := _value(r, number, name)) is not None]
        if known:
            values.append(mean(known))
    return {
        "mean": mean(values) if values else None,
        "sd": stdev(values) if len(values) > 1 else None,
        "number": len(values),
    }


def _value(row: Row, number: str, name: str | None) -> float | None:
    if number == "headline":
        return headline(row)
    return row[number] if name is None else row[number].get(name)  # type: ignore[no-any-return]


def _sessions(rows: Sequence[Row], top: Sequence[Column]) -> dict[str, Any]:
    decoders = list(dict.fromkeys(c.decoder for c in top if c.edges == top[0].edges))
    body = []
    for name, found in per_session(rows).items():
        first = found[0]
        cells = [_over([r for r in found if r["decoder"] == d], "headline")["mean"] for d in decoders]
        settled = [_over([r for r in found if r["decoder"] == d], "r2_settled")["mean"] for d in decoders]
        body.append({**first, "name": name, "cells": cells, "settled_cells": settled})
    has_settled = any(v is not None for line in body for v in line["settled_cells"])
    return {"decoders": decoders, "body": body, "settled": has_settled, "dropped": any(b["dropped"] for b in body)}


def _speed(rows: Sequence[Row]) -> list[dict[str, Any]]:
    lines = []
    for decoder in dict.fromkeys(r["decoder"] for r in rows):
        mine = [r for r in rows if r["decoder"] == decoder]
        lines.append(
            {
                "decoder": decoder,
                "calibrate_median": median(r["calibrate_s"] for r in mine),
                "calibrate_max": max(r["calibrate_s"] for r in mine),
                "p50": median(r["push_p50_ms"] for r in mine),
                "p99": max(r["push_p99_ms"] for r in mine),
                "bin_ms": sorted({r["bin_ms"] for r in mine}),
                "push_bins": sorted({r["push_bins"] for r in mine}),
            }
        )
    return lines


def _failed(rows: Sequence[Row]) -> list[Row]:
    return [r for r in rows if r.get("error")]


# ---- one evaluation


def _example(found: Evaluation) -> dict[str, Any]:
    rows = found.rows()
    for row, dim in zip(rows[1:], found.dims, strict=True):
        row["derived"] = derivation_text(dim)
    return {
        "discrete": found.scores.classes is not None,
        "evaluation": found,
        "dimensions": rows[1:],
        "traces": plots.traces(found),
        "derived": any(row["derived"] for row in rows[1:]),
    }


def derivation_text(dim: BehaviorDim) -> str:
    """How a dimension was computed, whether that looks ahead, and how late it comes; empty if it was recorded."""
    d = dim.derivation
    if d is None:
        return ""
    kind = "causal" if d.causal else "acausal"
    return f"{d.method} of {', '.join(d.source)} ({kind}, delay {d.group_delay_ms:g} ms)"


# ---- how it was made


def _made(rows: Sequence[Row], evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    here = environment()
    computed = {json.dumps([r["versions"], r["machine"], r["commit"]]): r for r in rows}
    recipes = {r["decoder"]: r["recipe"] for r in rows}
    hashes = {r["session"]: r["session_hash"] for r in rows}
    if not rows:
        recipes = {e.decoder: dict(e.calibration) for e in evaluations}
        hashes = {e.session: e.session_hash for e in evaluations}
    return {
        "recipes": [(name, config_hash(recipe), recipe) for name, recipe in recipes.items()],
        "hashes": hashes,
        "computed": list(computed.values()) or [here],
        "rows": len(rows),
        "seeds": sorted({r["seed"] for r in rows}),
        "first": min((r["when"] for r in rows), default=""),
        "last": max((r["when"] for r in rows), default=""),
        "push_bins": sorted({r["push_bins"] for r in rows}),
        "format": sorted({r["format"] for r in rows}),
        "betz": here["versions"]["betz"],
    }


# ---- filters


def _number(value: float | None, digits: int = 2) -> str:
    """A number with a real minus sign, or a dash."""
    if value is None or value != value:
        return "–"
    return f"{value:,.{digits}f}".replace("-", "−")


def _settings(value: Mapping[str, Any]) -> str:
    """One line a setting; nested ones are indented."""
    lines = []
    for key, item in value.items():
        if isinstance(item, Mapping):
            lines += [f"{key}:", *(f"  {line}" for line in _settings(item).splitlines())]
        else:
            lines.append(f"{key}: {item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)}")
    return "\n".join(lines)
