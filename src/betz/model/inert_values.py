"""What a pickle becomes when nothing in it may run: names, records, references to tensors; and as JSON values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from betz.core.errors import CheckpointError

STAND_INS = ("context_general_bci", "omegaconf", "pathlib", "typing")
"""Packages whose classes are kept as records of their state."""
STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
"""Storage classes of torch, and the dtype of their elements."""
BUILTINS = frozenset({"bool", "bytes", "dict", "float", "int", "list", "set", "str", "tuple"})
PYTHON2 = {"unicode": "str", "long": "int"}
"""Names that Python 2 gave to types; protocol 2 still writes them."""
TENSOR, PARAMETER = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"
ORDERED, DEFAULT, SET = "collections.OrderedDict", "collections.defaultdict", "builtins.set"
CALLABLE = frozenset({TENSOR, PARAMETER, ORDERED, DEFAULT, SET})
"""Functions that a checkpoint calls, all of them done here without the function itself."""
MAX_DEPTH, MAX_NODES = 60, 300_000
"""How much of a nested value :func:`to_json` follows: shared and circular values could go on for ever."""


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle mentions; only its name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Record:
    """An instance of a class, as the arguments it was made with and the state it was given."""

    of: Name
    args: tuple[Any, ...] = field(default=(), repr=False)
    kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    state: Any = field(default=None, repr=False)


class OrderedRecord(dict[Any, Any]):
    """An ``OrderedDict``, with the attributes it was given (a state dict has ``_metadata``)."""

    state: Any = None


@dataclass(frozen=True)
class StorageRef:
    """Bytes beside the pickle: ``numel`` elements of ``dtype`` in the archive's record ``data/KEY``."""

    key: str
    dtype: str
    numel: int


@dataclass(frozen=True)
class TensorRef:
    """A view of a storage, found to lie inside it."""

    storage: StorageRef
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @property
    def numel(self) -> int:
        """How many elements the tensor has."""
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class Plain:
    """What a pickle holds.

    Args:
        value: dicts, lists, numbers, strings, :class:`Name`, :class:`Record` and :class:`TensorRef`.
        names: how often each class or function is mentioned.
        refused: those among them that no checkpoint should need.
    """

    value: Any
    names: Mapping[str, int]
    refused: tuple[str, ...]


def is_stand_in(name: Name) -> bool:
    """Whether instances of the class are kept as records."""
    return name.module.split(".")[0] in STAND_INS


def is_known(name: Name) -> bool:
    """Whether a checkpoint may mention it."""
    if name.module == "builtins":
        return name.name in BUILTINS
    if name.module == "torch" and name.name in STORAGES:
        return True
    return is_stand_in(name) or str(name) in CALLABLE


def kind_of(value: Any) -> str:
    """What a value is, for messages."""
    return str(value) if type(value) is Name else str(value.of) if type(value) is Record else type(value).__name__


def to_json(value: Any, *, where: str = "") -> Any:
    """A value of a pickle as JSON values: settings and enumerations become what they hold, tensors a description.

    Raises:
        CheckpointError: it is nested too deeply, or too large.
    """
    return _Flat(where).of(value, 0)


class _Flat:
    def __init__(self, where: str) -> None:
        self.where, self.nodes = where, 0

    def of(self, value: Any, depth: int) -> Any:
        self.nodes += 1
        if depth > MAX_DEPTH or self.nodes > MAX_NODES:
            raise CheckpointError(
                "its settings are nested without end.", where=self.where, remedy="get the file from its origin again"
            )
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, (int, float)):  # JSON has no infinity, and a huge integer has no text
            fits = abs(value) < 1 << 63 if isinstance(value, int) else math.isfinite(value)
            return value if fits else f"{type(value).__name__} out of range"
        if isinstance(value, dict):
            return {self.key(k, depth): self.of(v, depth + 1) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.of(v, depth + 1) for v in value]
        if isinstance(value, (set, frozenset)):
            return sorted((self.of(v, depth + 1) for v in value), key=str)
        if isinstance(value, Record):
            return self.record(value, depth)
        return str(value)

    def key(self, value: Any, depth: int) -> str:
        return str(self.of(value, depth + 1))

    def record(self, value: Record, depth: int) -> Any:
        """A node of settings is its content, an enumeration its value, a path its text."""
        if isinstance(value.state, dict):
            for name in ("_content", "_val"):
                if name in value.state:
                    return self.of(value.state[name], depth + 1)
            return self.of(value.state, depth + 1)
        if value.of.module == "pathlib":
            return "/".join(str(self.of(part, depth + 1)) for part in value.args).replace("//", "/")
        return self.of(value.args[0], depth + 1) if len(value.args) == 1 else str(value.of)
