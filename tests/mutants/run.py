"""Break the code on purpose: each mutant must be caught by the test named for it.

    python tests/mutants/run.py [NAME …]

A mutant is (file, text that occurs exactly once, replacement, test that must fail). The source tree is copied to a
temporary folder and broken there, so an interrupted run leaves nothing behind.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.mutants.table import MUTANTS, Mutant  # noqa: E402


def outcome(mutant: Mutant, tree: Path) -> str:
    """``caught``, or what went wrong."""
    path = tree / mutant.file
    original = path.read_text()
    if original.count(mutant.text) != 1:
        return f"NOT FOUND: the text occurs {original.count(mutant.text)} times in {mutant.file}"
    path.write_text(original.replace(mutant.text, mutant.replacement))
    try:
        code = run_test(mutant.test, tree)
    finally:
        path.write_text(original)
    # pytest: 1 = a test failed; anything else (2 … 5) means that the named test did not run.
    return "caught" if code == 1 else "SURVIVED" if code == 0 else f"the test did not run (pytest exit {code})"


SITE = """import sys
sys.meta_path[:] = [f for f in sys.meta_path if not type(f).__module__.startswith("_editable")]
"""
"""Without it an editable installation's import hook would find the unbroken source first."""


def run_test(test: str, tree: Path) -> int:
    (tree / "sitecustomize.py").write_text(SITE)
    environment = {**os.environ, "PYTHONPATH": f"{tree}{os.pathsep}{tree / 'src'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", test]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, check=False).returncode


def main() -> int:
    wanted = set(sys.argv[1:])
    chosen = [m for m in MUTANTS if not wanted or m.name in wanted]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for part in ("src", "tests", "benchmarks"):
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, tree / name)
        tests = sorted({m.test for m in chosen})
        broken = [test for test in tests if run_test(test, tree) != 0]
        if broken:
            print(f"these tests fail without any mutant: {broken}")
            return 1
        results = {m.name: outcome(m, tree) for m in chosen}
    for name, result in results.items():
        print(f"{name:34s} {result}")
    survivors = [name for name, result in results.items() if result != "caught"]
    print(f"{len(results) - len(survivors)} of {len(results)} mutants caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
