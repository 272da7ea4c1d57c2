"""Files that are whole or not there, also after a crash or a power failure."""

from __future__ import annotations

import os
from pathlib import Path


def commit(part: Path, path: Path) -> None:
    """Give a file that has been written its name: afterwards the old or the new one is there, as a whole.

    Args:
        part: the written file, in the same folder.
        path: the name; a file that has it is replaced.
    """
    with part.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
    sync_folder(path.parent)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file as a whole: afterwards the old or the new one is there, also after a power failure."""
    part = path.with_name(f".tmp-{os.urandom(6).hex()}")
    try:
        with part.open("xb") as file:
            file.write(content)
        commit(part, path)
    finally:
        part.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power failure, where the system can."""
    try:
        number = os.open(path, os.O_RDONLY)
    except OSError:  # some systems cannot open a folder
        return
    try:
        os.fsync(number)
    finally:
        os.close(number)
