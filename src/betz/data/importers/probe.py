"""Whether the HDF5 library survives a damaged file: tried in a forked process first, which may crash in its place.

The library trusts addresses inside a file; flipped bits in them end a process, and no exception can be caught. Texts,
attributes and references are where it follows them, so the fork reads all of those. Without ``os.fork`` (Windows)
nothing is tried.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

from betz.data.importers.files import FileError

LONGEST_S = 60
_MOST_NUMBERS, _MOST_TEXTS = 1 << 16, 1 << 22


def check_survival(path: Path) -> None:
    """Refuse a file on which the library crashes, or does not come to an end in a minute.

    Raises:
        FileError: it does.
    """
    if not hasattr(os, "fork"):
        return
    child = os.fork()
    if child == 0:
        try:
            gc.disable()  # a collection would touch, and so copy, all of the parent's memory
            faulthandler.disable()
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(LONGEST_S)
            _walk(path)
        finally:
            os._exit(0)  # exceptions are the parent's to find; it must not come back into the caller's code
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        raise FileError(
            "damaged file",
            f"it cannot be read: the HDF5 library ends on it with signal {os.WTERMSIG(status)}.",
            where=path.name,
            remedy="copy it again from its source",
        )


def _walk(path: Path) -> None:
    """Read everything that makes the library follow an address in the file."""
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        seen: set[int] = set()
        waiting: list[Any] = [file]
        while waiting:
            node = waiting.pop()
            _try(lambda node=node: [node.attrs[name] for name in node.attrs])
            if isinstance(node, h5py.Dataset):
                _try(lambda node=node: _read(node))
                continue
            for name in _try(lambda node=node: list(node)) or []:
                inner = _try(lambda node=node, name=name: _member(node, name, seen))
                if inner is not None:
                    waiting.append(inner)


def _member(group: Any, name: str, seen: set[int]) -> Any:
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        return None
    node = group[name]
    address = h5py.h5o.get_info(node.id).addr
    if address in seen:
        return None
    seen.add(address)
    return node


def _read(dataset: Any) -> None:
    """Texts and references, and small arrays of anything."""
    import h5py

    if h5py.check_ref_dtype(dataset.dtype) is h5py.Reference:
        _ = target_names(dataset)
    elif dataset.size and dataset.size <= (_MOST_TEXTS if dataset.dtype.kind == "O" else _MOST_NUMBERS):
        _ = dataset[()]


def target_names(dataset: Any) -> list[str]:
    """Names of the objects to which a list of references leads; each distinct object is looked up once."""
    import h5py

    addresses = np.zeros(dataset.shape, dtype=np.uint64)
    dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, addresses, mtype=h5py.h5t.STD_REF_OBJ)
    _, first, which = np.unique(addresses, return_index=True, return_inverse=True)
    names = [h5py.h5r.get_name(dataset[int(at)], dataset.id) or b"" for at in first]
    return [names[k].decode() for k in which]


def _try(action: Any) -> Any:
    """What an action returns; None if it raises."""
    try:
        return action()
    except Exception:  # a damaged object raises anything, and the next one is still to be tried
        return None
