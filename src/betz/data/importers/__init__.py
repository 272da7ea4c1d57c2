"""Importers: files of recordings as sessions, one by one (:func:`read`) or into a store (:func:`import_files`).

Nothing of a file is dropped or repaired in silence: what was left out is counted, what is doubtful is noted in the
session's provenance, and what would have to be guessed is refused until an option of :class:`ImportOptions` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from betz.core.config import from_dict
from betz.core.errors import BetzError, ConfigError, MissingExtraError
from betz.data.importers.aligned import Align, aligned, load_align
from betz.data.importers.arrays import read_arrays
from betz.data.importers.binned import is_binned, read_binned
from betz.data.importers.build import ImportOptions, finish
from betz.data.importers.checks import summed
from betz.data.importers.files import FileError, open_arrays, session_id
from betz.data.importers.mapping import Mapping as FileMapping
from betz.data.importers.mapping import load_mapping, recognise
from betz.data.importers.neo import VendorPart, is_vendor, vendor_draft, vendor_parts
from betz.data.importers.trial_data import read_trial_data, trial_data_in
from betz.data.importers.xds import is_xds, read_xds

if TYPE_CHECKING:
    from betz.core.session import Session
    from betz.data.store import Store

__all__ = [
    "Align",
    "FileError",
    "FileMapping",
    "ImportOptions",
    "ImportReport",
    "ImportedFile",
    "import_files",
    "is_binned",
    "options_of",
    "read",
]
MappingSource = str | Path | Mapping[str, Any] | FileMapping
"""A mapping file, the name of a shipped one, or its content."""
AlignSource = str | Path | Mapping[str, Any] | Align
"""A file with the settings of an alignment, or its content."""


def read(
    path: str | Path,
    *,
    mapping: MappingSource | None = None,
    session: str | None = None,
    align: AlignSource | None = None,
    **options: Any,
) -> Session:
    """The session in a recording file; the file is only read, and nothing in it is executed.

    Args:
        path: a ``.npz``, MATLAB ``.mat``, ``.csv`` or ``.nwb`` file, or a vendor's file or folder (``betz formats``
            lists them).
        mapping: what its variables mean; not needed for ``binnedData`` structs and layouts that Betz knows.
        session: which one, where the file holds several.
        align: behavior of another clock, and what tells one clock's time on the other (see :class:`Align`).
        options: fields of :class:`ImportOptions`: ``bin_ms``, ``subject``, ``nan``, ``slot``, ``trim_to_shortest``,
            ``drop_idle_tail``, ``mask_silence``, ``rates_to_counts``, ``sort_spikes``, ``channels``, ``behavior``,
            ``gap_tolerance_ms``, ``analog``, ``broadband``, ``threshold_rms``, ``reference``, ``band_hz``.

    Raises:
        FileError: (a :class:`~betz.core.errors.DataError`) the file is damaged, of an unknown layout, or holds what
            cannot be used as it is; or it holds several sessions, and none is named.
        ConfigError: an option or the session is unknown, or the mapping is wrong.

    >>> import tempfile
    >>> import numpy as np
    >>> layout = {
    ...     "signals": {"variable": "counts"},
    ...     "time": {"bin_ms": 20},
    ...     "behavior": [{"variable": "v", "dims": [{"name": "hand_vx", "unit": "cm/s"}]}],
    ... }
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/monkey_1.npz", counts=np.ones((500, 4), np.uint8), v=np.sin(np.arange(500) / 10))
    ...     session = read(f"{folder}/monkey_1.npz", mapping=layout, subject="M")
    >>> session.id, session.subject, session.num_bins, session.dims[0].unit
    ('monkey_1', 'M', 500, 'cm/s')
    """
    chosen = options_of(options)
    with np.errstate(all="ignore"):  # what is not finite in a file is looked for; NumPy need not warn of it as well
        parts = _parts(Path(path), _loaded(mapping), chosen)
        if session is None and len(parts) > 1:
            raise FileError(
                "several sessions",
                f"it holds {len(parts)} sessions: {', '.join(map(_spoken, parts))}.",
                where=Path(path).name,
                remedy=f"name one, e.g. read(path, session={parts[0].name!r}), or import all of them into a store",
            )
        wanted = session or ""
        found = [part for part in parts if part.name == wanted or (session is None and len(parts) == 1)]
        if not found:
            raise ConfigError(
                f"there is no session {wanted!r} in it.",
                where=Path(path).name,
                remedy=f"name one of {', '.join(part.name for part in parts)}"
                if len(parts) > 1
                else "leave session out: it has a single one",
            )
        return _aligned(found[0].read(chosen), Path(path), None if align is None else load_align(align))


def options_of(options: Mapping[str, Any]) -> ImportOptions:
    """The options as a configuration.

    Raises:
        ConfigError: one is unknown or has a wrong value.
    """
    known = [f.name for f in fields(ImportOptions)]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ConfigError(
            f"there is no import option {', '.join(map(repr, unknown))}.", remedy=f"options are {', '.join(known)}"
        )
    return from_dict(ImportOptions, options)


def _aligned(session: Session, path: Path, align: Align | None) -> Session:
    return session if align is None else aligned(session, path, align)


def _loaded(mapping: MappingSource | None) -> tuple[FileMapping, str] | None:
    return None if mapping is None else load_mapping(mapping)


@dataclass(frozen=True)
class _Part:
    """One session in an opened file, not yet read: its name among several, its subject, and how to read it."""

    name: str
    subject: str
    read: Callable[[ImportOptions], Session]


def _spoken(part: _Part) -> str:
    return f"{part.name} ({part.subject})" if part.subject else part.name


def _parts(path: Path, mapping: tuple[FileMapping, str] | None, options: ImportOptions) -> list[_Part]:
    """The sessions in a file.

    Raises:
        FileError: the file cannot be opened, or its layout is not known.
        ConfigError: the mapping is wrong.
    """
    if path.suffix.lower() == ".nwb":
        return [_nwb_part(path, mapping)]
    if is_vendor(path):
        return _vendor(path, mapping, options)
    file = open_arrays(path)
    if mapping is None and is_binned(file):
        return [_Part("", "", lambda options: finish(read_binned(file, options), options))]
    if mapping is None and (table := trial_data_in(file)):
        return [_Part("", "", lambda options: finish(read_trial_data(file, table, options), options))]
    if mapping is None and is_xds(file):
        return [_Part("", "", lambda options: finish(read_xds(file, options), options))]
    layout, name = mapping if mapping is not None else recognise(file)

    def reader(session: str) -> Callable[[ImportOptions], Session]:
        return lambda options: finish(read_arrays(file, layout, options, name=name, session=session), options)

    return [_Part(session, part.subject, reader(session)) for session, part in layout.parts().items()]


def _nwb_part(path: Path, mapping: tuple[FileMapping, str] | None) -> _Part:
    """The session of an NWB file, which says itself what is in it."""
    from betz.data.importers.nwb import read_nwb

    if mapping is not None:
        raise ConfigError("an NWB file needs no mapping.", where=path.name, remedy="import it without one")
    return _Part("", "", lambda options: finish(read_nwb(path, options), options))


def _vendor(path: Path, mapping: tuple[FileMapping, str] | None, options: ImportOptions) -> list[_Part]:
    """The sessions in a vendor's recording."""
    if mapping is not None:
        raise ConfigError("a vendor's file needs no mapping.", where=path.name, remedy="import it without one")

    def reader(part: VendorPart) -> Callable[[ImportOptions], Session]:
        return lambda options: finish(vendor_draft(path, part, options), options)

    return [_Part(part.name, "", reader(part)) for part in vendor_parts(path, options)]


@dataclass(frozen=True)
class ImportedFile:
    """What became of one file, or of one of several sessions in it.

    Args:
        path: the file.
        id: of its session.
        error: why it was not imported; None = it was.
        minutes, bin_ms, channels, behavior: of the session, for people.
        notes: what is doubtful in it.
        left_out: reason → number of things left out inside the file.
    """

    path: Path
    id: str
    error: BetzError | None = None
    minutes: float = 0.0
    bin_ms: float = 0.0
    channels: int = 0
    behavior: int = 0
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """Short name of why it was skipped; empty if it was not."""
        if self.error is None:
            return ""
        if isinstance(self.error, FileError):
            return self.error.reason
        if isinstance(self.error, MissingExtraError):
            return "library not installed"
        return "settings do not fit" if isinstance(self.error, ConfigError) else "not a valid session"


@dataclass(frozen=True)
class ImportReport:
    """What an import kept, and what it did not.

    Args:
        kept: ids of the sessions now in the store.
        skipped: reason → number of files, or of sessions in a file with several, that were not imported.
        files: every file in order, with its notes or its error; a file with several sessions is there once for each.
    """

    kept: tuple[str, ...]
    skipped: Mapping[str, int]
    files: tuple[ImportedFile, ...] = ()

    @property
    def left_out(self) -> dict[str, int]:
        """Reason → number of things left out inside the files that were imported."""
        return summed([file.left_out for file in self.files])


def import_files(
    paths: Iterable[str | Path],
    store: Store,
    *,
    mapping: MappingSource | None = None,
    align: AlignSource | None = None,
    options: ImportOptions | Mapping[str, Any] | None = None,
    replace: bool = False,
    progress: Callable[[ImportedFile], None] | None = None,
) -> ImportReport:
    """Import recordings into a store; a file that cannot be imported is reported, and the others still are.

    Each session is written whole or not at all.

    Args:
        paths: files as for :func:`read`; a session is named after its file, and all sessions in it are imported.
        store: where to.
        mapping: for all of them.
        align: for all of them; the behavior file may be named after each.
        options: for all of them.
        replace: whether sessions of the same name in the store are replaced.
        progress: called with each file, or each of several sessions in it, when it is done.

    Raises:
        ConfigError: the options or the mapping are wrong; nothing was imported.
    """
    chosen = options if isinstance(options, ImportOptions) else options_of(options or {})
    layout, clocks = _loaded(mapping), None if align is None else load_align(align)
    files: list[ImportedFile] = []
    for path in map(Path, paths):
        for imported in _import_file(path, store, layout, chosen, align=clocks, replace=replace, before=files):
            files.append(imported)
            if progress is not None:
                progress(imported)
    return ImportReport(
        kept=tuple(file.id for file in files if file.error is None),
        skipped=summed([{file.reason: 1} for file in files if file.error is not None]),
        files=tuple(files),
    )


def _import_file(
    path: Path,
    store: Store,
    mapping: tuple[FileMapping, str] | None,
    options: ImportOptions,
    *,
    align: Align | None,
    replace: bool,
    before: Sequence[ImportedFile],
) -> Iterator[ImportedFile]:
    """Every session in a file, one by one."""
    try:
        with np.errstate(all="ignore"):
            parts = _parts(path, mapping, options)
    except BetzError as error:
        yield ImportedFile(path, session_id(path), error)
        return
    done: list[ImportedFile] = []
    for part in parts:
        done.append(_import_part(path, part, store, options, align=align, replace=replace, before=[*before, *done]))
        yield done[-1]


def _import_part(
    path: Path,
    part: _Part,
    store: Store,
    options: ImportOptions,
    *,
    align: Align | None,
    replace: bool,
    before: Sequence[ImportedFile],
) -> ImportedFile:
    id_ = session_id(path, part.name)
    try:
        _check_name(path, id_, store.ids, replace=replace, before=before)
        with np.errstate(all="ignore"):
            session = _aligned(part.read(options), path, align)
        store.put(session, replace=replace)
    except BetzError as error:
        return ImportedFile(path, id_, error)
    return ImportedFile(
        path,
        id_,
        minutes=session.minutes,
        bin_ms=session.bin_ms,
        channels=len(session.channels),
        behavior=len(session.dims),
        notes=session.provenance.notes,
        left_out=session.provenance.skipped,
    )


def _check_name(path: Path, id_: str, taken: Sequence[str], *, replace: bool, before: Sequence[ImportedFile]) -> None:
    """Refuse a file whose session would take another one's place unasked, before it is read."""
    seen = {file.id: file.path for file in before if file.error is None}
    if id_ in seen:
        raise FileError(
            "same name",
            f"its session would be named {id_!r}, as that of {seen[id_]}.",
            where=str(path),
            remedy="rename one of the files",
        )
    if id_ in taken and not replace:
        raise FileError(
            "already in the store",
            f"session {id_!r} is in the store already.",
            where=str(path),
            remedy="replace it with replace=True (--replace), or rename the file",
        )
