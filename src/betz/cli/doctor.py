"""``betz doctor``: what this machine is, and whether it is fit for decoding live."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

WAITS, WAIT_MS = 100, 5.0
PUSHES = 500
DISK_MB = 64

Report = dict[str, dict[str, Any]]


def command(
    folder: Annotated[Path, typer.Option(help="Where recordings will be written.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check versions, processor, timer, disk and the time of a push, and say what to improve. Takes a few seconds.

    Example: betz doctor --folder recordings
    """
    report = examine(folder)
    lines = advice(report)
    if as_json:
        print(json.dumps(report | {"advice": lines}))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True, highlight=False)
    table = Table(show_header=False)
    for part, values in report.items():
        for place, (name, value) in enumerate(values.items()):
            shown = f"{value:,.4g}" if isinstance(value, float) else str(value)
            table.add_row("" if place else part, name.replace("_", " "), shown)
        table.add_section()
    console.print(table)
    for line in lines or ["Nothing stands out."]:
        console.print(f"• {line}", markup=False)


def examine(folder: Path) -> Report:
    """All findings: part → name → value; times in ms.

    Raises:
        DataError: the folder cannot be written to.
    """
    written = disk(folder)  # first: it fails at once if the folder is wrong
    return {
        "versions": versions(),
        "machine": machine(),
        "priority": priority(),
        "timer": timer(),
        "disk": written,
        "push": push(),
    }


def advice(report: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What to improve, in plain sentences; empty if nothing stands out."""
    machine_, timer_, disk_, push_ = (report[name] for name in ("machine", "timer", "disk", "push"))
    lines = []
    if timer_["wait_p99_ms"] > 2:
        lines.append(
            f"Waiting for the next bin ends up to {timer_['wait_p99_ms']:.1f} ms too late (p99): "
            "close other programs, or give the loop priority: sudo chrt -f 20 betz …"
        )
    load = machine_["load_1min"]
    if load is not None and load > machine_["cores_allowed"]:
        lines.append(f"Load {load:.1f} on {machine_['cores_allowed']} cores: close other programs while decoding.")
    if machine_["cores_allowed"] < 2:
        lines.append("Only one core: anything else that runs delays the loop.")
    nice = report["priority"]["nice"]
    if nice is not None and nice > 0:
        lines.append(f"This process runs with low priority (nice {nice}): start it without nice.")
    if push_["p99_ms"] > 10:
        lines.append(f"A push takes {push_['p99_ms']:.1f} ms (p99), more than half of a 20 ms bin: use wider bins.")
    if disk_["free_gb"] < 5:
        lines.append(f"Only {disk_['free_gb']:.1f} GB are free in {disk_['folder']}.")
    if disk_["write_mb_s"] < 20:
        lines.append(f"The disk of {disk_['folder']} writes {disk_['write_mb_s']:.0f} MB/s: record to another one.")
    return lines


def versions() -> dict[str, Any]:
    """Betz, Python and the libraries that decide over results; torch is imported for its devices."""
    from importlib.metadata import PackageNotFoundError, version

    from betz import __version__

    found: dict[str, Any] = {"betz": __version__, "python": platform.python_version()}
    for name in ("numpy", "scipy", "safetensors", "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    found["cuda"] = "no torch"
    if found["torch"] != "not installed":
        import torch

        found["cuda"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "not available"
    return found


def machine() -> dict[str, Any]:
    """System, processor, cores, memory and load."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "cores_allowed": len(allowed),
        "memory_gb": _memory_gb(),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def priority() -> dict[str, Any]:
    """How the system schedules this process."""
    nice = os.getpriority(os.PRIO_PROCESS, 0) if hasattr(os, "getpriority") else None
    policy = "unknown"
    if hasattr(os, "sched_getscheduler"):
        names = {os.SCHED_OTHER: "normal", os.SCHED_FIFO: "real time (FIFO)", os.SCHED_RR: "real time (RR)"}
        policy = names.get(os.sched_getscheduler(0), "other")
    return {"nice": nice, "policy": policy}


def timer() -> dict[str, Any]:
    """Resolution of the clock, and how much too late a sleep and the loop's own waiting end."""
    from betz.live.clocks import MonotonicClock

    clock = MonotonicClock()

    def sleep(until_ns: int) -> None:
        time.sleep(max(until_ns - clock.now_ns(), 0) / 1e9)

    return {
        "resolution_ns": time.get_clock_info("monotonic").resolution * 1e9,
        **_overshoot("sleep", sleep),
        **_overshoot("wait", clock.wait_until),
    }


def _overshoot(name: str, wait: Callable[[int], None]) -> dict[str, float]:
    late = []
    for _ in range(WAITS):
        until = time.monotonic_ns() + int(WAIT_MS * 1e6)
        wait(until)
        late.append((time.monotonic_ns() - until) / 1e6)
    return _percentiles(late, prefix=f"{name}_")


def disk(folder: Path) -> dict[str, Any]:
    """Free space and speed of writing, with the data on the disk at the end."""
    import tempfile

    from betz.core.errors import DataError

    block = os.urandom(1 << 20)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            free = shutil.disk_usage(folder).free
            number = min(DISK_MB, max(free // (4 << 20), 1))
            begun = time.perf_counter()
            for _ in range(number):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            took = time.perf_counter() - begun
    except OSError as error:
        raise DataError(
            f"this folder cannot be written to ({error.strerror or error}).",
            where=str(folder),
            remedy="choose another with --folder",
        ) from None
    return {"folder": str(folder.resolve()), "free_gb": free / 1e9, "write_mb_s": number * 1.048576 / took}


def push() -> dict[str, Any]:
    """Time of pushing one bin through a large Wiener filter (192 channels, one second of lags) with made-up weights."""
    import numpy as np

    from betz.core.session import BehaviorDim, Channel
    from betz.decode.baselines.wiener import Filter, WienerDecoder
    from betz.decode.features import Scaler

    channels, lags = 192, 50
    rng = np.random.default_rng(0)
    decoder = WienerDecoder(
        bin_ms=20.0,
        channels=tuple(Channel(f"c{i}") for i in range(channels)),
        behavior=(BehaviorDim("hand_vx", "cm/s"), BehaviorDim("hand_vy", "cm/s")),
        scaler=Scaler(np.full(channels, 0.5), np.ones(channels)),
        filters=(Filter(120.0, rng.normal(size=(lags, channels, 2)), np.zeros(2), np.ones(2), (0, 1)),),
        report={},
    )
    decoder.open()
    counts_NC = rng.poisson(0.5, (PUSHES, channels)).astype(np.uint8)
    for counts_C in counts_NC[:20]:
        decoder.push(counts_C)
    took = []
    for counts_C in counts_NC:
        begun = time.perf_counter_ns()
        decoder.push(counts_C)
        took.append((time.perf_counter_ns() - begun) / 1e6)
    return {"decoder": f"Wiener filter, {channels} channels × {lags} lags", **_percentiles(took)}


def _percentiles(values_ms: Sequence[float], *, prefix: str = "") -> dict[str, float]:
    import numpy as np

    p50, p99 = np.percentile(values_ms, (50, 99))
    return {f"{prefix}p50_ms": round(float(p50), 4), f"{prefix}p99_ms": round(float(p99), 4)}


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None
