"""Reads files of ``torch.save`` without torch's unpickler: the pickle as plain data, tensors from their records."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from types import TracebackType

import torch

from betz.core.errors import CheckpointError
from betz.model.inert import MAX_BYTES, read_pickle
from betz.model.inert_values import TensorRef

MAX_RECORDS = 100_000
_REMEDY = "get the file from its origin again"
_RESAVE = "save it again with torch 1.6 or later, in the environment it was made in"
_PICKLE = re.compile(r"[^/]+/data\.pkl")
_DAMAGE = (OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile)


class Archive:
    """A checkpoint file that is open for reading; use it as a context.

    Args:
        path: the file.
        tolerate: list unknown names of the pickle in ``plain.refused`` instead of raising.

    Raises:
        CheckpointError: it is no such archive, damaged, compressed, or its pickle is refused.
    """

    def __init__(self, path: str | Path, *, tolerate: bool = False) -> None:
        self.path, self.where = Path(path), str(path)
        self._zip = self._open()
        try:
            self._records = self._check_records()
            self.folder = self._find_folder()
            content = self._read(f"{self.folder}/data.pkl", limit=MAX_BYTES)
            self.plain = read_pickle(content, where=self.where, tolerate=tolerate)
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._zip.close()

    def tensor(self, ref: TensorRef, *, name: str = "") -> torch.Tensor:
        """The values of a tensor, contiguous and in memory of its own.

        Args:
            ref: from the pickle.
            name: of the tensor, for messages.

        Raises:
            CheckpointError: its record is missing, damaged, or of another size than the pickle says.
        """
        dtype = getattr(torch, ref.storage.dtype)
        size = ref.storage.numel * dtype.itemsize
        record = f"{self.folder}/data/{ref.storage.key}"
        label = f"tensor {name!r}" if name else f"record {record}"
        if ref.numel == 0:
            return torch.empty(ref.shape, dtype=dtype)
        found = self._records.get(record)
        if found is None or found.file_size != size:
            has = "is missing" if found is None else f"has {found.file_size:,} bytes"
            raise self._damaged(f"{label} needs {size:,} bytes, but its record {has}.")
        raw = bytearray(self._read(record))
        return (
            torch.frombuffer(raw, dtype=dtype)
            .as_strided(ref.shape, ref.stride, ref.offset)
            .clone(memory_format=torch.contiguous_format)
        )

    # ---- the container

    def _open(self) -> zipfile.ZipFile:
        try:
            with self.path.open("rb") as file:
                head, size = file.read(300), self.path.stat().st_size
        except OSError as error:
            raise CheckpointError(
                f"it cannot be read ({error.strerror}).", where=self.where, remedy="give the path of a .ckpt file"
            ) from None
        if head[:4] != b"PK\x03\x04":
            raise CheckpointError(_foreign(head), where=self.where, remedy=_RESAVE if _is_legacy(head) else _REMEDY)
        try:
            return zipfile.ZipFile(self.path)
        except _DAMAGE as error:
            raise self._damaged(
                f"it is truncated or damaged ({size:,} bytes; {str(error)[:200] or type(error).__name__})."
            ) from None

    def _check_records(self) -> dict[str, zipfile.ZipInfo]:
        """Records by name: stored as they are, once each, and together no larger than the file."""
        infos = self._zip.infolist()
        if len(infos) > MAX_RECORDS:
            raise self._damaged(f"it has {len(infos):,} records; more than {MAX_RECORDS:,} are not read.")
        records = {info.filename: info for info in infos}
        if len(records) != len(infos):
            raise self._damaged("two of its records have the same name.")
        for info in infos:
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
                raise self._damaged(f"its record {info.filename[:200]!r} is compressed; torch never writes that.")
        claimed, size = sum(info.file_size for info in infos), self.path.stat().st_size
        if claimed > size:
            raise self._damaged(f"its records claim {claimed:,} bytes, the file has {size:,}.")
        return records

    def _find_folder(self) -> str:
        found = [name for name in self._records if _PICKLE.fullmatch(name)]
        folder = found[0].removesuffix("/data.pkl") if len(found) == 1 else ""
        if any(name.startswith(f"{folder}/code/") or name == f"{folder}/constants.pkl" for name in self._records):
            raise CheckpointError(
                "this is a TorchScript program, not a checkpoint.", where=self.where, remedy="give a Lightning .ckpt"
            )
        if not folder:
            raise self._damaged(f"it has {len(found)} pickles where a checkpoint has one (NAME/data.pkl).")
        order = f"{folder}/byteorder"
        if order in self._records and self._read(order, limit=16) != b"little":
            raise CheckpointError(
                "it was written on a big-endian machine.",
                where=self.where,
                remedy="save it again on a little-endian one (x86 or ARM)",
            )
        return folder

    def _read(self, record: str, *, limit: int | None = None) -> bytes:
        info = self._records[record]
        if limit is not None and info.file_size > limit:
            raise self._damaged(f"its record {record} has {info.file_size:,} bytes; {limit:,} are the most.")
        try:
            return self._zip.read(info)
        except _DAMAGE as error:
            raise self._damaged(
                f"its record {record} is damaged ({str(error)[:200] or type(error).__name__})."
            ) from None

    def _damaged(self, what: str) -> CheckpointError:
        return CheckpointError(what, where=self.where, remedy=_REMEDY)


def _is_legacy(head: bytes) -> bool:
    return head[:1] == b"\x80" or head[257:262] == b"ustar"


def _foreign(head: bytes) -> str:
    """What a file without the head of a zip archive is."""
    if _is_legacy(head):
        return "this is a pickle of the old kind (before torch 1.6), which is not read because reading it runs it."
    return "this is no checkpoint (no zip archive)." if head else "this file is empty."
