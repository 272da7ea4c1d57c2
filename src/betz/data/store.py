"""A store: a folder of sessions, each written whole or not at all, read through memory maps.

``sessions/<id>.json`` is the manifest of a session and names the folder of its arrays; it is put in place by one
``os.replace``, so a writer that is killed leaves the old session or the new one. The format is described in
``docs/reference/store_format.md``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from betz.core.errors import DataError
from betz.core.files import sync_folder, write_whole
from betz.core.session import Session
from betz.core.validate import SAFE_ID
from betz.data import disk
from betz.data.manifest import (
    VERSION,
    Manifest,
    check_version,
    from_manifest,
    read_manifest,
    seal,
    to_manifest,
    whole_version,
)
from betz.data.windows import Windows

Array = NDArray[Any]
T = TypeVar("T")
HEAD, LOCK, SESSIONS, ARRAYS = "betz-store.json", ".lock", "sessions", "arrays"
STORE_FORMAT = "betz store"
_RETRIES = 20
_ARRAYS_OF = re.compile(r"(.+)\.[0-9a-f]{12}")
"""A folder of arrays is named ``<id>.<random>``; sweeping leaves anything else alone."""
_MISFIT = (DataError, OSError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What files that do not fit their manifest lead to."""


class Store:
    """A folder of sessions for fast random windows.

    Any number of processes may read while others write; writers wait for each other.

    Args:
        path: the folder.
        create: make it if it is not there; an existing store is opened.

    Raises:
        DataError: there is no store, the folder holds something else, or its format is newer than this Betz.

    >>> import tempfile
    >>> import numpy as np
    >>> from betz.data.arrays import from_arrays
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = Store(folder, create=True)
    ...     store.put(from_arrays(np.ones((100, 2), np.uint8), bin_ms=20, id="monkey_1"))
    ...     store.ids, store.get("monkey_1").num_bins
    (('monkey_1',), 100)
    """

    def __init__(self, path: str | Path, *, create: bool = False) -> None:
        self.path = Path(path)
        if create and not (self.path / HEAD).exists():
            self._create()
        try:
            head = json.loads((self.path / HEAD).read_bytes())
            if not isinstance(head, dict) or head.get("format") != STORE_FORMAT:
                raise ValueError(f"not a {STORE_FORMAT!r}")
            version = whole_version(head)
        except FileNotFoundError:
            raise DataError(
                "there is no store here.",
                where=str(path),
                remedy="give the folder of a store, or make one: create=True",
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(
                f"this is no store ({type(error).__name__}: {error}).",
                where=str(self.path / HEAD),
                remedy=f"restore {HEAD} from a copy, or import into a new folder",
            ) from None
        check_version(version, where=str(self.path / HEAD))

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the sessions, sorted."""
        try:
            names = os.listdir(self.path / SESSIONS)
        except OSError as error:
            raise DataError(
                f"its manifests cannot be listed ({error.strerror}).",
                where=str(self.path),
                remedy=f"restore its folder {SESSIONS!r} from a copy",
            ) from None
        return tuple(sorted(name[:-5] for name in names if name.endswith(".json") and not name.startswith(".")))

    # ---- reading

    def manifest(self, id: str) -> Manifest:
        """Everything about a session but its arrays, as JSON values in today's format version.

        Raises:
            DataError: there is no such session, or its manifest is damaged.
        """
        path = self._manifest_path(id)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            some = ", ".join(self.ids[:6]) or "no sessions"
            raise DataError(f"no session {id!r}.", where=str(self.path), remedy=f"it has {some}") from None
        except OSError as error:
            raise DataError(f"the manifest cannot be read ({error.strerror}).", where=str(path)) from None
        return read_manifest(content, id=id, where=str(path))

    def get(self, id: str) -> Session:
        """The session, its arrays read-only and memory-mapped.

        Raises:
            DataError: there is no such session, or something of it is damaged.
        """
        return self.reading(id, from_manifest)

    def verify(self, id: str) -> None:
        """Check every file of a session against the hashes in its manifest.

        Raises:
            DataError: naming every file that differs.
        """

        def read(manifest: Manifest, folder: Path) -> list[str]:
            return [
                name
                for name, entry in manifest["files"].items()
                if disk.sha256_of(folder / f"{name}.npy") != entry["sha256"]
            ]

        wrong = self.reading(id, read)
        if wrong:
            raise DataError(
                f"{', '.join(wrong)}: the content differs from the hash in the manifest.",
                where=f"session {id!r} in {self.path}",
                remedy="restore the files from a copy, or import the session again",
            )
        self.get(id)

    def reading(self, id: str, read: Callable[[Manifest, Path], T]) -> T:
        """``read(manifest, folder of the arrays)``, once more if the session was replaced meanwhile.

        Raises:
            DataError: there is no such session, or it is damaged.
        """
        for _ in range(_RETRIES):
            manifest = self.manifest(id)
            try:
                return read(manifest, self._folder(manifest))
            except _MISFIT as error:
                if self.manifest(id) != manifest:
                    continue
                if isinstance(error, DataError):
                    raise
                raise DataError(
                    f"its files do not fit its manifest ({type(error).__name__}: {error}).",
                    where=f"session {id!r} in {self.path}",
                    remedy="restore them from a copy, or import the session again",
                ) from None
        raise DataError("it is being replaced again and again.", where=f"session {id!r} in {self.path}")

    def windows(self, *, bins: int, ids: Sequence[str] | None = None, behavior: Sequence[str] | None = None) -> Windows:
        """All windows of ``bins`` bins that cross no gap and no edge, as an index to draw from.

        Args:
            bins: length of a window.
            ids: sessions; None = all.
            behavior: names of the dimensions to read with the signals.

        Raises:
            DataError: a session or a behavior is not there, or there is no window of this length.
        """
        return Windows(self, bins=bins, ids=self.ids if ids is None else ids, behavior=behavior)

    # ---- writing

    def put(self, session: Session, *, replace: bool = False) -> None:
        """Write a session: whole and hashed, or not at all.

        Args:
            session: any; views and memory-mapped ones too.
            replace: whether a session of this id may be there already; readers of the old one are not disturbed.

        Raises:
            DataError: the id is taken, or the disk is full or refuses; the store is as before.
        """
        manifest, arrays = to_manifest(session)
        with disk.writing(self.path), disk.locked(self.path / LOCK):
            if not replace and self._manifest_path(session.id).exists():
                raise DataError(
                    f"session {session.id!r} is there already.",
                    where=str(self.path),
                    remedy="give it another id, or replace=True",
                )
            self._sweep()
            try:
                self._write(session.id, manifest, arrays)
            finally:  # the replaced session's arrays, or what a failure left
                self._sweep()

    def remove(self, id: str) -> None:
        """Take a session out of the store.

        Raises:
            DataError: there is no such session.
        """
        with disk.writing(self.path), disk.locked(self.path / LOCK):
            path = self._manifest_path(id)
            if not path.exists():
                raise DataError(f"no session {id!r}.", where=str(self.path), remedy="see Store.ids")
            path.unlink()
            sync_folder(path.parent)
            self._sweep()

    def keep(self, folder: Path, name: str, array: Array) -> None:
        """Write a cache file into a session's folder; where that is not possible, it is not kept."""
        part = self.path / ARRAYS / f".tmp-{os.urandom(6).hex()}"
        try:
            with disk.locked(self.path / LOCK):
                try:
                    disk.write_array(part, array)
                    os.replace(part, folder / name)
                finally:
                    part.unlink(missing_ok=True)
        except (OSError, DataError):  # a read-only or full disk, no locks, a session replaced meanwhile
            return

    def _write(self, id: str, manifest: Manifest, arrays: Mapping[str, Array]) -> None:
        """Arrays first, the manifest last: its ``os.replace`` is the commit."""
        token = os.urandom(6).hex()
        part, folder = self.path / ARRAYS / f".tmp-{token}", self.path / ARRAYS / f"{id}.{token}"
        part.mkdir()
        files = {name: disk.write_array(part / f"{name}.npy", array) for name, array in arrays.items()}
        sync_folder(part)
        os.rename(part, folder)
        sync_folder(folder.parent)
        manifest = {**manifest, "arrays": folder.name, "files": files}
        manifest["sha256"] = seal(manifest)
        if json.loads((self.path / HEAD).read_bytes())["version"] < VERSION:
            self._write_head()
        write_whole(self._manifest_path(id), json.dumps(manifest, indent=1).encode())

    def _sweep(self) -> None:
        """Remove what killed writers left and what no manifest names; only while holding the lock."""
        by_id: dict[str, list[str]] = {}
        for name in os.listdir(self.path / ARRAYS):
            if name.startswith(".tmp-"):
                _remove(self.path / ARRAYS / name)
            elif found := _ARRAYS_OF.fullmatch(name):
                by_id.setdefault(found[1], []).append(name)
        ids = set(self.ids)
        for id, folders in by_id.items():
            if id not in ids:
                used = ""
            elif len(folders) == 1:
                continue
            else:
                try:
                    used = self.manifest(id)["arrays"]
                except DataError:  # cannot tell which of them it names
                    continue
            for name in folders:
                if name != used:
                    _remove(self.path / ARRAYS / name)
        for parent in (self.path, self.path / SESSIONS):
            for name in os.listdir(parent):
                if name.startswith(".tmp-"):
                    _remove(parent / name)

    def _create(self) -> None:
        with disk.writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            folders = (self.path / SESSIONS, self.path / ARRAYS)  # empty: of a creation that was killed
            others = [p for p in self.path.iterdir() if p not in folders or any(p.iterdir())]
            seen = sorted(p.name for p in others if not p.name.startswith("."))
            if seen and not (self.path / HEAD).exists():  # another process may have made the store just now
                raise DataError(
                    f"the folder holds something else ({', '.join(seen[:3])}), but no {HEAD}.",
                    where=str(self.path),
                    remedy=f"give a new or an empty folder; a store that lost its {HEAD} gets it back from a copy",
                )
            for folder in folders:
                folder.mkdir(exist_ok=True)
            self._write_head()

    def _write_head(self) -> None:
        write_whole(self.path / HEAD, json.dumps({"format": STORE_FORMAT, "version": VERSION}).encode())

    def _manifest_path(self, id: str) -> Path:
        if not isinstance(id, str) or not SAFE_ID.fullmatch(id):
            raise DataError(f"{id!r} cannot be the id of a session.", where=str(self.path), remedy="see Store.ids")
        return self.path / SESSIONS / f"{id}.json"

    def _folder(self, manifest: Manifest) -> Path:
        name = str(manifest["arrays"])
        if Path(name).name != name or name.startswith("."):
            raise ValueError(f"arrays are in {name!r}")
        return self.path / ARRAYS / name


def _remove(path: Path) -> None:
    """Remove it if possible; what stays is ignored by readers and tried again by the next writer."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
