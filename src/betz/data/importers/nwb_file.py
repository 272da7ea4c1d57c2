"""NWB files, opened with suspicion: nothing is followed out of the file, and every claim is compared first.

The objects come from ``pynwb``; large arrays are read by ``h5py`` from the same handle, without going through a table.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from betz.core.errors import require
from betz.data.importers.files import FileError, check_claim, damage
from betz.data.importers.mat73 import is_hdf5
from betz.data.importers.probe import check_survival

_MOST_OBJECTS = 1 << 20


@dataclass(frozen=True)
class NwbFile:
    """An open NWB file.

    Args:
        path: the file; it is read, never written.
        hdf5: its ``h5py.File``.
        nwb: its ``pynwb.NWBFile``.
    """

    path: Path
    hdf5: Any
    nwb: Any

    @property
    def where(self) -> str:
        """Its name, for messages."""
        return self.path.name

    @property
    def series(self) -> dict[str, Any]:
        """Path → every TimeSeries in acquisition and processing modules, also in containers, in the file's order."""
        found: dict[str, Any] = {}
        places = [("acquisition", self.nwb.acquisition)]
        places += [(f"processing/{name}", module.data_interfaces) for name, module in self.nwb.processing.items()]
        for place, objects in places:
            for name, item in objects.items():
                _collect(f"{place}/{name}", item, found)
        return found


def _collect(path: str, item: Any, found: dict[str, Any]) -> None:
    """A series, or those in a container of series (``Position``, ``BehavioralTimeSeries`` …)."""
    if hasattr(item, "rate") and hasattr(item, "timestamps"):
        found[path] = item
        return
    for attribute in ("time_series", "spatial_series", "spike_event_series", "electrical_series", "interval_series"):
        inner = getattr(item, attribute, None)
        if inner is not None and hasattr(inner, "items"):
            for name, series in inner.items():
                _collect(f"{path}/{name}", series, found)


@contextmanager
def open_nwb(path: Path) -> Iterator[NwbFile]:
    """Open a file for reading; whatever is raised inside the block by a damaged file becomes a FileError.

    Raises:
        FileError: it is missing, no NWB 2 file, damaged, leads out of itself, or claims more than it can hold.
        MissingExtraError: pynwb is not installed.
    """
    if path.is_dir():
        raise FileError("no such file", "it is a folder.", where=str(path), remedy="name the files in it")
    if not path.is_file():
        raise FileError("no such file", "there is no such file.", where=str(path), remedy="check the path")
    if path.stat().st_size == 0:
        raise FileError("damaged file", "it is empty (0 bytes).", where=path.name, remedy="copy it again")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a library's advice on how the file should have been written
        pynwb = require("pynwb", extra="nwb")
        h5py = require("h5py", extra="nwb")
        with damage(path):
            if not is_hdf5(path):
                raise FileError("damaged file", "it is no HDF5 file, so it is no NWB file.", where=path.name,
                                remedy="copy it again from its source")  # fmt: skip
            check_survival(path)
            with h5py.File(path, "r", locking=False) as file:
                _check_version(file, path)
                _check_objects(file, path)
                with pynwb.NWBHDF5IO(file=file, mode="r") as io:
                    yield NwbFile(path, file, io.read())


def _check_version(file: Any, path: Path) -> None:
    version = file.attrs.get("nwb_version", "")
    version = version.decode() if isinstance(version, bytes) else str(version)
    if not version and "nwb_version" in file:
        raise FileError("unknown format", "it is an NWB 1 file, which is not read.", where=path.name,
                        remedy="convert it to NWB 2")  # fmt: skip
    if not version.startswith("2"):
        found = f"NWB version {version!r}" if version else "an HDF5 file without an NWB version"
        raise FileError("unknown format", f"it is {found}.", where=path.name, remedy="import NWB 2 files")


def _check_objects(file: Any, path: Path) -> None:
    """Refuse links and storage outside of the file, and datasets larger than the file can hold."""
    import h5py

    seen, waiting, number = set(), [file], 0
    while waiting:
        group = waiting.pop()
        for name in group:
            number += 1
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise FileError("leads elsewhere", f"{name!r} lies in another file ({link.filename}).",
                                where=path.name, remedy="export it with the linked data inside")  # fmt: skip
            if number > _MOST_OBJECTS:
                raise FileError("impossible size", f"it has more than {_MOST_OBJECTS:,} objects.", where=path.name,
                                remedy="the file is damaged; copy it again")  # fmt: skip
            if isinstance(link, h5py.SoftLink):
                continue
            node = group[name]
            if isinstance(node, h5py.Group):
                address = h5py.h5o.get_info(node.id).addr
                if address not in seen:
                    seen.add(address)
                    waiting.append(node)
            elif isinstance(node, h5py.Dataset):
                made = node.id.get_create_plist()
                if made.get_external_count() or made.get_layout() == h5py.h5d.VIRTUAL:
                    raise FileError(
                        "leads elsewhere",
                        f"the data of {node.name} lie in another file.",
                        where=path.name,
                        remedy="export it with its data inside",
                    )
                check_claim(math.prod(node.shape or (0,)) * node.id.get_type().get_size(), path, node.name)


def text_of(value: Any) -> str:
    """A text field of the file; empty where there is none."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (list, tuple)):
        return ", ".join(text_of(v) for v in value)
    return str(value).strip()
