"""What every benchmark script shares: the machine, the commit, and the last line, one JSON object."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from betz.evaluate.results import environment, plain


def machine() -> str:
    """Processor, cores that can be used, memory, and versions, in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    versions = [f"{name} {_version(name)}" for name in ("numpy", "scipy", "torch")]
    python = f"Python {platform.python_version()}"
    return ", ".join([str(environment()["machine"]), f"{memory:.0f} GB", python, *versions])


def commit() -> str | None:
    """The commit of the checkout, with ``+`` where it was changed; None outside of one."""
    found = environment()["commit"]
    return None if found is None else str(found)


def finish(result: Mapping[str, Any], started: float, *, quick: bool = False, left_out: str = "") -> None:
    """Print the last line of a benchmark.

    Args:
        result: its keys and values; NaN becomes null.
        started: ``time.time()`` at the start.
        quick: whether it was a short run.
        left_out: what a short run left out.
    """
    line = dict(result) | {"machine": machine(), "commit": commit(), "seconds": round(time.time() - started, 1)}
    if quick:
        line |= {"quick": True, "left_out": left_out}
    print(json.dumps(plain(line)))


def need(path: Path, what: str) -> Path:
    """The path, if it is there; otherwise the script ends with one sentence and exit code 1."""
    if not path.exists():
        sys.exit(f"error: {path} is missing: {what}.")
    return path


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
