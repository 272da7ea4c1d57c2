"""A store that is killed, starved of space or shared: it holds the old session or the new one, whole."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from betz.core.errors import DataError
from betz.data import disk
from betz.data.store import Store
from tests.unit.recording_files import counts_NC, npz
from tests.unit.store_helpers import ROOT, full_session, leftovers, python, small, value_of

pytest.importorskip("fcntl", reason="stores are written on POSIX systems")


def drive(task: str, folder: Path) -> Any:
    return json.loads(python("-m", "tests.unit.store_driver", task, str(folder)))


def test_kill_9_before_any_line(tmp_path: Path) -> None:
    """Checked after each kill: one whole session or the other, by hash; nothing left over by the next writer."""
    found = drive("lines", tmp_path / "store")
    assert found["create"]["lines"] > 20
    for name in ("put", "replace", "remove"):  # kills came before and after the commit, and found work half done
        assert min(found[name][key] for key in ("before", "after", "dirty")) >= 5, name
    assert found["replace"]["lines"] > 150
    assert found["cache"]["dirty"] > 0


def test_kill_9_from_outside_at_any_time(tmp_path: Path) -> None:
    found = drive("times", tmp_path / "store")
    assert found["old"] + found["new"] == 20
    assert found["old"] > 0
    assert found["dirty"] > 2  # they were killed in the middle


@pytest.mark.parametrize("entries", [1, 2, 4])
def test_kill_9_during_betz_import(tmp_path: Path, entries: int) -> None:
    """Killed as soon as so many folders of arrays are there: every session that the store names is whole."""
    files = [str(npz(tmp_path / f"s{k}.npz", counts=counts_NC(bins=20_000, seed=k))) for k in range(6)]
    mapping = '[signals]\nvariable = "counts"\naxes = ["time", "channel"]\n[time]\nbin_ms = 20\n'
    (tmp_path / "m.toml").write_text(f'subject = "m"\n{mapping}')
    store = tmp_path / "store"
    command = [sys.executable, "-c", "from betz.cli.main import app; app()", "import", *files, "--store", str(store)]
    command += ["--mapping", str(tmp_path / "m.toml")]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while child.poll() is None and len(list(store.glob("arrays/*"))) < entries:
        pass
    child.kill()
    assert child.wait(timeout=60) in (0, -9)
    assert len(list(store.glob("arrays/*"))) >= entries  # it had begun
    for name in Store(store).ids:
        Store(store).verify(name)
    again = subprocess.run([*command, "--replace"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert Store(store).ids == tuple(f"s{k}" for k in range(6))
    assert leftovers(store) == []


def test_writers_and_readers_at_the_same_time(tmp_path: Path) -> None:
    found = drive("concurrent", tmp_path / "store")
    assert len(found["done"]) == 5
    assert min(found["done"]) > 0


def test_a_limit_to_the_size_of_files(tmp_path: Path) -> None:
    found = drive("limits", tmp_path / "store")
    assert found["arrays"] > 10
    assert found["manifest"] > 40


def test_a_full_disk(tmp_path: Path) -> None:
    """A disk of 512 kB of its own, in a mount namespace of its own, which ends with the process."""
    if os.getuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("mounting a small disk needs root and unshare: the full disk is NOT tested here")
    mount = f"mount -t tmpfs -o size=512k none {tmp_path}"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("no disk may be mounted here: the full disk is NOT tested")
    command = f"{mount} && exec {sys.executable} -m tests.unit.store_driver fill {tmp_path}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["failed"] >= 5


@pytest.mark.parametrize("step", ["disk.write_array", "store.write_whole", "store.sync_folder"])
def test_any_failure_leaves_the_store_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    store = Store(tmp_path / "store", create=True)
    store.put(small(1))
    before = {p: p.read_bytes() for p in store.path.rglob("*") if p.is_file()}

    def fail(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(f"betz.data.{step}", fail)
    with pytest.raises(DataError, match=r"it cannot be written to \(Permission denied\).*yours to write to") as caught:
        store.put(full_session(id="one"), replace=True)
    assert caught.value.where == str(store.path)
    assert {p: p.read_bytes() for p in store.path.rglob("*") if p.is_file()} == before

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"betz.data.{step}", stop)
    with pytest.raises(KeyboardInterrupt):
        store.put(full_session(id="one"), replace=True)
    assert {p: p.read_bytes() for p in store.path.rglob("*") if p.is_file()} == before
    assert value_of(store.get("one")) == 1
    assert leftovers(store.path) == []


def test_a_writer_waits_for_the_lock(tmp_path: Path) -> None:
    """A second process cannot write while the lock is held, and can once its holder is gone."""
    store = Store(tmp_path / "store", create=True)
    code = "import sys; from betz.data.store import Store; from tests.unit.store_helpers import small\n"
    code += "store = Store(sys.argv[1]); print('ready', flush=True); store.put(small(3)); print('done', flush=True)"
    with disk.locked(store.path / ".lock"):
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(store.path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.3)
        assert store.ids == ()
    assert child.communicate(timeout=60)[0] == "done\n"
    assert value_of(store.get("one")) == 3


MAPPING = """
subject = "m"

[time]
bin_ms = 20

[signals]
variable = "counts"
axes = ["time", "channel"]
"""


def test_betz_import_without_room_ends_with_an_error(tmp_path: Path) -> None:
    """The command line: exit code 1, one sentence, the store as before; with room again it works."""
    np.savez_compressed(tmp_path / "rec.npz", counts=np.ones((5000, 20), np.uint8))
    (tmp_path / "mapping.toml").write_text(MAPPING)
    store = Store(tmp_path / "store", create=True)
    store.put(small(1))
    before = {p: p.read_bytes() for p in store.path.rglob("*") if p.is_file()}
    betz = [sys.executable, "-c", "from betz.cli.main import app; app()"]
    command = [*betz, "import", "rec.npz", "--mapping", "mapping.toml", "--store", "store"]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    def run(**options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False, **options
        )

    done = run(preexec_fn=limit)
    assert done.returncode == 1
    assert "there is no room to write" in done.stderr
    assert "free space" in done.stderr
    assert "Traceback" not in done.stderr
    assert {p: p.read_bytes() for p in store.path.rglob("*") if p.is_file()} == before
    assert run().returncode == 0
    assert store.ids == ("one", "rec")
