"""Arrows between packages are a table, and every import keeps to it, lazy ones and those for type checkers included."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import betz

ROOT = Path(betz.__file__).parent
ALL = {"core", "sim", "data", "tokens", "model", "decode", "evaluate", "train", "study", "live", "cli", "testing"}
ALLOWED: dict[str, set[str]] = {
    "core": set(),
    "sim": {"core"},
    "data": {"core"},
    "tokens": {"core"},
    "model": {"core", "tokens"},
    "decode": {"core", "tokens", "model"},
    "evaluate": {"core", "data", "tokens", "model", "decode", "sim"},
    "train": {"core", "data", "tokens", "model", "decode", "sim"},
    "study": {"core", "data", "tokens", "model", "decode", "evaluate", "train", "sim"},
    "live": {"core", "tokens", "model", "decode", "sim"},
    "cli": ALL,
    "testing": ALL,
}
MODULES = sorted(ROOT.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Full names of the betz modules that a file imports anywhere."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("betz."):
            names.add(node.value.replace(":", "."))  # registries name modules in strings
    return {name for name in names if name.split(".")[0] == "betz"}


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent != ROOT], ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_table(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    assert package in ALLOWED, f"{package} is not in the table"
    for name in imported(path):
        target = name.split(".")[1] if "." in name else ""
        if target in ALLOWED:
            assert target == package or target in ALLOWED[package], f"{path}: {package} may not import {name}"


def test_core_imports_numpy_only() -> None:
    allowed = {"numpy", "pydantic", "betz"} | set(sys.stdlib_module_names)
    for path in (ROOT / "core").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found = {node.module.split(".")[0]}
            else:
                continue
            assert found <= allowed, f"{path.name} imports {found - allowed}"


def modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_betz_is_light() -> None:
    heavy = {"torch", "numpy", "scipy", "h5py", "pydantic", "typer", "rich", "matplotlib"}
    assert not heavy & modules_after("import betz")


def test_live_runs_without_file_formats_and_training() -> None:
    loaded = modules_after("import betz.live.loop, betz.live.recorder, betz.live.links.replay, betz.decode.decoder")
    for name in ("h5py", "pynwb", "pandas", "torch", "matplotlib", "scipy.io", "betz.train", "betz.data"):
        assert name not in loaded, f"betz.live loads {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 600
