"""Results as JSON lines: one row a cell, appended in one write, named by a hash of everything that matters."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from betz.core import files
from betz.core.config import to_dict
from betz.core.errors import ConfigError, DataError
from betz.core.session import Session
from betz.decode.decoder import MANIFEST, TENSORS, Decoder
from betz.evaluate.classes import R2, headline, measure

FORMAT_VERSION = 1
"""Of rows and of what is computed for them: rows of another version are never taken for results of this one."""
SHORT_OF = 0.9
"""A column whose sessions have less than this share of the nominal minutes is marked."""

Row = dict[str, Any]


# ---- the file


def read_rows(path: Path) -> tuple[list[Row], int]:
    """Rows of a results file, the latest of each key, and the number of torn lines that were left out.

    Raises:
        DataError: a line is whole, but no row of results.
    """
    if not path.exists():
        return [], 0
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"it cannot be read ({error}).", where=str(path), remedy="give another file") from None
    rows: dict[str, Row] = {}
    torn = 0
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:  # a run was killed while it wrote
            torn += 1
            continue
        if not isinstance(row, dict) or not isinstance(row.get("key"), str) or "format" not in row:
            raise DataError(
                "this line is no row of results.",
                where=f"{path}, line {number}",
                remedy="give a file written by `betz evaluate`, or a new name",
            )
        rows[row["key"]] = row
    return list(rows.values()), torn


def append_row(path: Path, row: Row) -> Row:
    """Add one row in one write, behind a line break if the last line is torn.

    Returns:
        The row as :func:`read_rows` will read it.

    Raises:
        DataError: the disk did not take it.
    """
    kept: Row = plain(row)
    line = json.dumps(kept, allow_nan=False).encode() + b"\n"
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        end = os.lseek(file, 0, os.SEEK_END)
        if end and os.pread(file, 1, end - 1) != b"\n":
            line = b"\n" + line
        written = os.write(file, line)
        os.fsync(file)
    except OSError as error:
        raise DataError(f"a result could not be written ({error}).", where=str(path), remedy="free the disk") from None
    finally:
        os.close(file)
    if written != len(line):
        raise DataError(
            f"only {written} of {len(line)} bytes of a result were written.", where=str(path), remedy="free the disk"
        )
    return kept


def write_whole(path: Path, content: bytes) -> Path:
    """Write a file as a whole: after a failure the old one, or none, is there. Returns its path.

    Raises:
        DataError: the disk did not take it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, content)
    except OSError as error:
        raise DataError(f"it could not be written ({error}).", where=str(path), remedy="give another path") from None
    return path


def plain(value: Any) -> Any:
    """JSON values: tuples and arrays as lists, numpy numbers as numbers, NaN and infinity as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, (np.integer, np.floating, np.bool_)):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---- names of what went in


def content_hash(session: Session) -> str:
    """Sixteen hex digits of everything in a session that decoding and scoring look at."""
    digest = hashlib.sha256()
    head = [
        session.id,
        [session.grid.tick_hz, session.grid.ticks_per_bin, session.grid.origin_tick, session.num_bins],
        [[c.id, c.kind, c.unit] for c in session.channels],
        [[[d.name, d.unit, d.kind], s.origin_tick, s.ticks_per_sample] for s in session.behavior for d in s.dims],
        None if session.valid is None else list(session.valid),
    ]
    digest.update(json.dumps(head).encode())
    parts = [
        session.counts,
        session.power,
        session.edges,
        *(session.spikes or ()),
        *(s.values for s in session.behavior),
    ]
    for array in parts:
        if array is None:
            digest.update(b"none")
        else:
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def is_recipe(decoder: Any) -> bool:
    """Whether it is calibrated on each session, rather than fixed."""
    return callable(getattr(decoder, "calibrate", None))


def description(decoder: Any) -> dict[str, Any]:
    """What a recipe or a fixed decoder is, as JSON values: its class and settings, or the hash of what it saves.

    Raises:
        ConfigError: it is neither.
    """
    if is_recipe(decoder) and is_dataclass(decoder) and not isinstance(decoder, type):
        made, own = type(decoder), getattr(decoder, "settings", None)
        settings = own() if callable(own) else to_dict(decoder)
        return {"recipe": f"{made.__module__}:{made.__qualname__}", "settings": settings}
    if isinstance(decoder, Decoder) and not is_recipe(decoder):
        with tempfile.TemporaryDirectory() as folder:
            decoder.save(Path(folder))
            files = [(Path(folder) / name).read_bytes() for name in (MANIFEST, TENSORS)]
        return {"decoder": type(decoder).__name__, "sha256": hashlib.sha256(b"".join(files)).hexdigest()[:16]}
    raise ConfigError(
        f"{type(decoder).__name__} is neither a recipe (a configuration with `calibrate`) nor a decoder.",
        where="Plan.decoders",
        remedy="give a recipe such as betz.Wiener(), or a decoder such as betz.load(folder)",
    )


@cache
def environment() -> dict[str, Any]:
    """Versions, machine and, in a checkout, the commit (with ``+`` where it was changed)."""
    from betz import __version__

    versions = {"betz": __version__, "python": platform.python_version(), "numpy": np.__version__}
    return {"versions": versions, "machine": machine(), "commit": _commit()}


def machine() -> str:
    """Processor, cores that can be used, and system, in one line."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, {platform.system()} {platform.release()}"


def _commit() -> str | None:
    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(here.parent), *words], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    here = Path(__file__).resolve()
    if git("ls-files", "--error-unmatch", here.name) is None:  # installed, perhaps inside somebody else's checkout
        return None
    commit, changed = git("rev-parse", "--short=12", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    return commit and commit + ("+" if changed else "")


# ---- tables


@dataclass(frozen=True)
class Column:
    """The score of one decoder after one amount of calibration, over sessions.

    Args:
        task, edges, minutes, decoder: what it is the result of.
        mean, sd: over sessions, of each session's mean over seeds; ``sd`` is None with one session.
        seed_sd: standard deviation over seeds within a session, averaged over sessions; None with one seed.
        sessions, seeds: how many.
        minutes_used: mean minutes of calibration there were.
        short: less than 90 % of the nominal minutes.
        settled: mean R² on bins ≥ 1 s into a trial; None in sessions without trial edges.
        failed: cells that ended in an error, not part of the mean.
        measure: what the score is: R², or balanced accuracy of discrete behavior.
    """

    task: str
    edges: str
    minutes: float
    decoder: str
    mean: float
    sd: float | None
    seed_sd: float | None
    sessions: int
    seeds: int
    minutes_used: float
    short: bool
    settled: float | None
    failed: int
    measure: str = R2


def table(rows: Iterable[Row]) -> list[Column]:
    """One :class:`Column` a task, edges mode, decoder and minutes, in that order; cells with errors are counted."""
    groups: dict[tuple[str, str, str, float], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["edges"], row["decoder"], row["minutes"]), []).append(row)
    columns = []
    for (task, edges, decoder, minutes), cells in groups.items():
        good = [cell for cell in cells if not cell.get("error")]
        by_session = per_session(good)
        values = [mean(map(headline, found)) for found in by_session.values()]
        seed_sds = [stdev(map(headline, found)) for found in by_session.values() if len(found) > 1]
        settled = [cell["r2_settled"] for cell in good if cell["r2_settled"] is not None]
        used = mean(cell["minutes_used"] for cell in good) if good else 0.0
        columns.append(
            Column(
                task=task,
                edges=edges,
                minutes=minutes,
                decoder=decoder,
                mean=mean(values) if values else float("nan"),
                sd=stdev(values) if len(values) > 1 else None,
                seed_sd=mean(seed_sds) if seed_sds else None,
                sessions=len(values),
                seeds=len({cell["seed"] for cell in good}),
                minutes_used=used,
                short=bool(good) and used < SHORT_OF * minutes,
                settled=mean(settled) if settled else None,
                failed=len(cells) - len(good),
                measure=measure(good[0]) if good else R2,
            )
        )
    order: dict[tuple[str, str, str], int] = {}
    for c in columns:
        order.setdefault((c.task, c.edges, c.decoder), len(order))
    return sorted(columns, key=lambda c: (order[c.task, c.edges, c.decoder], c.minutes))


def per_session(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by session, in order of appearance."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["session"], []).append(row)
    return found


def table_text(rows: Sequence[Row]) -> str:
    """:func:`table` as plain text: a block a task, decoders by minutes, mean ± sd over sessions."""
    columns, blocks = table(rows), []
    for task in dict.fromkeys(c.task for c in columns):
        mine = [c for c in columns if c.task == task]
        minutes = sorted({c.minutes for c in mine})
        short = {c.minutes for c in mine if c.short}
        heads = ["fixed" if not m else f"{m:g} min" + ("*" if m in short else "") for m in minutes]
        lines = [[f"{_measure(mine)} of {task}", *heads, "sessions"]]
        for decoder, edges in dict.fromkeys((c.decoder, c.edges) for c in mine):
            line = {c.minutes: c for c in mine if (c.decoder, c.edges) == (decoder, edges)}
            name = decoder if edges == "none" else f"{decoder}, {edges} edges"
            lines.append([name, *(_cell(line.get(m)) for m in minutes), str(max(c.sessions for c in line.values()))])
        wide = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
        block = ["  ".join([line[0].ljust(wide[0]), *map(str.rjust, line[1:], wide[1:])]) for line in lines]
        block += ["* fewer minutes than asked for: calibration ends at 60 % of a session"] if short else []
        blocks.append("\n".join(block))
    return "\n\n".join(blocks)


def _measure(columns: Sequence[Column]) -> str:
    """What the columns of a task show; those in which all cells failed cannot say."""
    return next((c.measure for c in columns if c.sessions), R2)


def _cell(column: Column | None) -> str:
    if column is None:
        return "–"
    failed = f"{column.failed} failed" if column.failed else ""
    if not column.sessions:
        return failed
    spread = "" if column.sd is None else f"± {column.sd:.3f}"
    return " ".join(filter(None, [f"{column.mean:.3f}", spread, failed]))
