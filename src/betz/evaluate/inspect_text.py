"""The findings of an inspection as plain text."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from betz.evaluate.inspect import Inspection

MAX_DIMS = 40


def headline(found: Inspection) -> str:
    """Session, subject, length, bins and licence in one line."""
    s = found.session
    parts = [s.id, f"subject {s.subject}", f"{s.minutes:.1f} min in {s.bin_ms:g} ms bins"]
    parts += [s.task] if s.task else []
    return " · ".join([*parts, f"licence {s.licence or 'not stated'}"])


def summary(found: Inspection) -> str:
    """Everything as plain text: the headline, tables, notes, and at the end the warnings."""
    blocks = [[headline(found)], _channels(found), _time(found), _behavior(found), _lags(found), _origin(found)]
    blocks.append([f"note: {note}" for note in found.notes])
    blocks.append([f"WARNING: {warning}" for warning in found.warnings] or ["no warnings"])
    return "\n".join("\n".join(block) for block in blocks if block)


def aligned(rows: Sequence[Sequence[str]], *, right: Collection[int]) -> list[str]:
    """Rows as columns of text; those named in ``right`` are flush right."""
    wide = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]

    def cell(k: int, text: str) -> str:
        return text.rjust(wide[k]) if k in right else text.ljust(wide[k])

    return ["  ".join(cell(k, text) for k, text in enumerate(row)).rstrip() for row in rows]


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _channels(found: Inspection) -> list[str]:
    s, report = found.session, found.channels
    said = ", ".join(f"{number} {kind}" for kind, number in found.kinds().items())
    lines = [f"channels: {said}"]
    counting = [k for k, c in enumerate(s.channels) if c.kind != "power"]
    if counting:
        rate = report.rate[counting]
        lines.append(
            f"  spikes a second: median {np.median(rate):.1f}, 5 to 95 % {np.percentile(rate, 5):.1f} to "
            f"{np.percentile(rate, 95):.1f}, highest {rate.max():.1f} ({s.channels[counting[int(rate.argmax())]].id})"
        )
    pairs, together = len(report.duplicated), len(report.together)
    lines.append(
        f"  {len(report.dead)} dead, {len(report.near_dead)} near-dead, {len(report.noisy)} noisy; "
        f"{_number(pairs, 'duplicated pair')}; {_number(together, 'bin')} in which nearly all fire at once"
    )
    return lines


def _time(found: Inspection) -> list[str]:
    t, bin_s = found.time, found.session.grid.bin_s
    lines = [f"time: {t.usable:.1%} of {found.session.num_bins:,} bins usable, {_number(len(t.gaps), 'gap')}"]
    if t.gaps:
        longest = max(end - first for first, end in t.gaps) * bin_s
        shown = ", ".join(f"{first * bin_s:.1f}–{end * bin_s:.1f}" for first, end in t.gaps[:5])
        lines[0] += f" (longest {longest:.3g} s; at {shown}{' …' if len(t.gaps) > 5 else ''} s)"
    lines[0] += f", {_number(t.edges, 'edge')}"
    if t.segments > 1:
        lines[0] += f"; {t.segments} stretches of {t.segment_s:.3g} s (median)"
    if t.trials:
        lines[0] += f"; {_number(t.trials, 'trial')}"
        lines[0] += f" in {_number(t.conditions, 'condition')}" if t.conditions else ""
    return lines


def _behavior(found: Inspection) -> list[str]:
    if not found.behavior:
        return ["behavior: none"]
    head = ["behavior", "unit", "Hz", "known", "least", "1 %", "median", "99 %", "most", "computed by"]
    rows = [head]
    for line in found.behavior[:MAX_DIMS]:
        numbers = [f"{v:.4g}" for v in (line.least, line.low, line.median, line.high, line.most)]
        unit = "/".join(line.classes) if line.classes else line.unit
        rows.append([line.name, unit, f"{line.rate_hz:.4g}", f"{line.known:.0%}", *numbers, line.derived or "recorded"])
    lines = aligned(rows, right=range(2, 9))
    more = len(found.behavior) - MAX_DIMS
    return [*lines, f"… and {more} more"] if more > 0 else lines


def _lags(found: Inspection) -> list[str]:
    if not found.lags:
        return []
    rows = [["best lag (positive: spikes earlier)", "ms", "R²", "R² at 0", "of which delay, ms"]]
    for curve in found.lags:
        at_0 = curve.r2[int(np.abs(curve.lag_ms).argmin())]
        group = f"{curve.group} (instruction)" if curve.instruction else curve.group
        rows.append([group, f"{curve.best_ms:.0f}", f"{curve.best_r2:.2f}", f"{at_0:.2f}", f"{curve.delay_ms:.3g}"])
    return aligned(rows, right=range(1, 5))


def _origin(found: Inspection) -> list[str]:
    p = found.session.provenance
    lines = [f"source: {p.source or 'not stated'}, read by {p.importer or 'unknown'}"]
    lines += [f"  {note}" for note in p.notes if note not in found.warnings]
    lines += [f"  left out: {number:,} {reason}" for reason, number in p.skipped.items()]
    return lines
