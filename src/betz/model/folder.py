"""Folders that hold a JSON manifest and a tensor file, written as a whole and read strictly.

Decoders and models on disk are such folders. Nothing here needs torch: the live loop loads decoders without it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from betz.core.errors import CheckpointError, ConfigError
from betz.core.files import commit, write_whole

T = TypeVar("T")
Manifest = dict[str, Any]
Migration = Callable[[Manifest, dict[str, Any]], tuple[Manifest, dict[str, Any]]]
"""Manifest and tensors of one format version to those of the next."""


@dataclass(frozen=True)
class Layout:
    """What one kind of folder looks like.

    Args:
        noun: what is in it, for messages: ``decoder``, ``model``.
        manifest: name of the JSON file.
        tensors: name of the tensor file; ``{sha}`` in it stands for the first digits of the file's SHA-256, so that
            an old manifest keeps its own tensors until the new one has replaced it.
        version: the format that is written.
        migrations: step from each older version to the next one.
        sealed: whether the manifest carries a hash of itself.
        writer: who writes such folders, for messages.
        remedy: what to do about a damaged one.
    """

    noun: str
    manifest: str
    tensors: str
    version: int
    migrations: Mapping[int, Migration] = field(default_factory=dict)
    sealed: bool = False
    writer: str = ""
    remedy: str = ""

    @property
    def format(self) -> str:
        """What the manifest calls itself."""
        return f"betz {self.noun}"

    def names_tensors(self, name: Any) -> bool:
        """Whether a tensor file can have this name."""
        pattern = re.escape(self.tensors).replace(re.escape("{sha}"), "[0-9a-f]{12}")
        return isinstance(name, str) and bool(re.fullmatch(pattern, name))


def write_folder(folder: Path, layout: Layout, content: Mapping[str, Any], write: Callable[[Path], object]) -> None:
    """Write tensors and manifest, the manifest last: a folder without it is none of this kind.

    Args:
        folder: is made if needed; an older one of the same kind in it is replaced.
        layout: of the folder.
        content: JSON values of the manifest.
        write: writes the tensor file to the path it is given.

    Raises:
        CheckpointError: the disk did not take it.
        ConfigError: the content is not JSON, or a sealed one has NaN or infinite values.
    """
    try:
        json.dumps(content, allow_nan=not layout.sealed)  # before anything is written
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"the description of the {layout.noun} cannot be saved as JSON ({error}).",
            where=str(folder),
            remedy="leave out what is not a number, a text, a list or a mapping, and NaN",
        ) from None
    part = folder / f".{layout.noun}.tensors.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            write(part)
            sha256 = _sha256(part)
            name = layout.tensors.replace("{sha}", sha256[:12])
            if name == layout.tensors:  # one name for all: the old manifest must not outlive its tensors
                (folder / layout.manifest).unlink(missing_ok=True)
            commit(part, folder / name)
        finally:
            part.unlink(missing_ok=True)
        head = {"format": layout.format, "version": layout.version}
        manifest = {**head, **content, "tensors_file": name, "tensors_sha256": sha256}
        if layout.sealed:
            manifest["sha256"] = seal(manifest)
        write_whole(folder / layout.manifest, json.dumps(manifest, indent=1).encode())
        for other in os.listdir(folder):
            if layout.names_tensors(other) and other != name:
                (folder / other).unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"the {layout.noun} could not be written ({error.strerror or error}).",
            where=str(folder),
            remedy="free space on this disk, or give a folder that is yours to write to",
        ) from None


def read_manifest(folder: Path, layout: Layout) -> Manifest:
    """The manifest of a folder, of whatever version this Betz knows, its seal checked.

    Raises:
        CheckpointError: the folder is none of this kind, of a newer format, or its manifest was changed.
    """
    path = folder / layout.manifest
    try:
        manifest = json.loads(path.read_bytes())
        if not isinstance(manifest, dict) or manifest.get("format") != layout.format:
            raise ValueError(f"not a {layout.format!r}")
        version = manifest["version"]
        if type(version) is not int or version < 1:
            raise ValueError(f"format version {version!r}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        file = layout.tensors.replace("{sha}", "…")
        raise CheckpointError(
            f"this is no saved {layout.noun} ({type(error).__name__}: {error}).",
            where=str(folder),
            remedy=f"give a folder written by {layout.writer}; it holds {layout.manifest} and {file}",
        ) from None
    if version > layout.version:
        raise CheckpointError(
            f"format version {version} is newer than this Betz reads ({layout.version}).",
            where=str(path),
            remedy="update betz",
        )
    if layout.sealed and manifest.get("sha256") != seal(manifest):
        raise CheckpointError("the manifest was changed after it was written.", where=str(path), remedy=layout.remedy)
    return manifest


def read_tensors(
    folder: Path, layout: Layout, manifest: Manifest, load: Callable[[Path], dict[str, T]]
) -> dict[str, T]:
    """The tensors that a manifest names, their hash checked.

    Args:
        folder: where they are.
        layout: of the folder.
        manifest: from :func:`read_manifest`.
        load: reads a safetensors file.

    Raises:
        CheckpointError: they are missing, truncated, or not the ones that were written.
    """
    from safetensors import SafetensorError

    name = manifest.get("tensors_file", layout.tensors)
    try:
        if not layout.names_tensors(name):
            raise ValueError(f"the manifest names the file {name!r}")
        if _sha256(folder / name) != manifest.get("tensors_sha256"):
            raise ValueError("SHA-256 differs from the manifest")
        return load(folder / name)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"its tensors cannot be read ({error}).", where=str(folder / str(name)), remedy=layout.remedy
        ) from None


def migrate(manifest: Manifest, tensors: dict[str, T], layout: Layout) -> tuple[Manifest, dict[str, T]]:
    """Manifest and tensors in today's version, by the numbered steps.

    A step finds ``format``, ``version`` and the tensor file's name and hash as they are in every version.

    Raises:
        CheckpointError: a step is missing, or what it needs is not there.
    """
    for version in range(manifest["version"], layout.version):
        try:
            manifest, tensors = layout.migrations[version](manifest, tensors)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"format version {version} cannot be brought up to date ({type(error).__name__}: {error}).",
                where=layout.manifest,
                remedy=layout.remedy,
            ) from None
    return {**manifest, "version": layout.version}, tensors


def seal(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of everything in a manifest but the seal itself."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
