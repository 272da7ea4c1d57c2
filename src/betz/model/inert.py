"""Reads a pickle as plain data, without a single callable: nothing in the file can run.

A pickle is a program for a small stack machine. Here that machine has no functions to call: a class becomes a
:class:`Name`, an instance a :class:`Record` of its arguments and state, a tensor a :class:`TensorRef` into the archive.
``pickle.Unpickler`` with a restricted ``find_class`` would still set attributes on whatever was found and allocate what
the file claims, hence a machine of its own; the standard library's ``pickletools`` does the parsing.
"""

from __future__ import annotations

import pickletools
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from betz.core.errors import CheckpointError

MAX_BYTES = 64 << 20
"""A larger pickle is refused: tensors lie beside it, so the largest checkpoints have a few megabytes."""
MAX_OPCODES = 10_000_000
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
_BUILTINS = frozenset({"bool", "bytes", "dict", "float", "int", "list", "set", "str", "tuple"})
_PYTHON2 = {"unicode": "str", "long": "int"}
_WORD, _DOTTED = re.compile(r"[A-Za-z_]\w*"), re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_RAISED = (ValueError, IndexError, TypeError, OverflowError, KeyError, RecursionError, MemoryError)


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
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    state: Any = None


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
        return _product(self.shape)


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


def read_pickle(content: bytes, *, where: str, tolerate: bool = False) -> Plain:
    """Read a pickle as plain data.

    Args:
        content: the pickle.
        where: its path, for messages.
        tolerate: keep names that are not known as records too and list them, instead of raising (nothing runs either
            way).

    Raises:
        CheckpointError: it is damaged or too large, uses what no checkpoint should, or names something not known.
    """
    if len(content) > MAX_BYTES:
        raise _unsafe(f"its pickle has {len(content):,} bytes; more than {MAX_BYTES:,} are not read.", where)
    return _Machine(where, tolerate).run(content)


def _unsafe(what: str, where: str) -> CheckpointError:
    return CheckpointError(
        what, where=where, remedy="nothing in the file was run; do not load it otherwise, get it from its origin again"
    )


def _product(numbers: tuple[int, ...]) -> int:
    out = 1
    for n in numbers:
        out *= n
    return out


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


class _Machine:
    """The stack machine: values on a stack, remembered ones in a memo, no way to call anything."""

    def __init__(self, where: str, tolerate: bool) -> None:
        self.where, self.tolerate = where, tolerate
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # stacks below the open marks
        self.memo: dict[int, Any] = {}
        self.names: Counter[str] = Counter()
        self.refused: dict[str, None] = {}

    def run(self, content: bytes) -> Plain:
        """Every opcode until STOP."""
        try:
            for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
                if number >= MAX_OPCODES:
                    self.refuse(f"its pickle has more than {MAX_OPCODES:,} steps.")
                if opcode.name == "STOP":
                    break
                step = _STEPS.get(opcode.name)
                if step is None:
                    self.refuse(f"its pickle uses {opcode.name}, which no checkpoint needs.")
                step(self, argument)
            value = self.stack.pop()
            if self.stack or self.outer:
                raise ValueError("values are left over")
        except _RAISED as error:
            raise CheckpointError(
                f"its pickle is damaged ({type(error).__name__}: {error}).",
                where=self.where,
                remedy="get the file from its origin again",
            ) from None
        return Plain(value, dict(self.names), tuple(self.refused))

    def refuse(self, what: str) -> NoReturn:
        raise _unsafe(what, self.where)

    # ---- names

    def mention(self, module: str, name: str) -> Name:
        """A global of the pickle, by name alone."""
        if module == "__builtin__":
            module, name = "builtins", _PYTHON2.get(name, name)
        found = Name(module, name)
        self.names[str(found)] += 1
        if not (_DOTTED.fullmatch(module) and _WORD.fullmatch(name)):
            self.refuse(f"its pickle names {str(found)!r}: a chain of attributes, or no name at all.")
        if not _known(found):
            if not self.tolerate:
                self.refuse(f"its pickle names {found}, which no NDT3 checkpoint needs.")
            self.refused[str(found)] = None
        return found

    def make(self, of: Any, args: Any, kwargs: Any = None) -> Any:
        """What stands for ``of(*args, **kwargs)``."""
        if type(of) is not Name:
            self.refuse(f"its pickle calls a {_kind(of)}, which is no class.")
        if type(args) is not tuple or type(kwargs or {}) is not dict:
            self.refuse(f"its pickle calls {of} without a list of arguments.")
        if _is_stand_in(of) or str(of) in self.refused:
            return Record(of, args, kwargs or {})
        builder = _BUILDERS.get(str(of))
        if builder is None or kwargs:
            self.refuse(f"its pickle calls {of}, which is only ever named in a checkpoint.")
        return builder(self, args)

    # ---- tensors

    def storage(self, identity: Any) -> StorageRef:
        """The storage that a persistent id means."""
        if type(identity) is not tuple or len(identity) != 5 or identity[0] != "storage":
            self.refuse("its pickle has a persistent id that is no storage.")
        _, kind, key, place, numel = identity
        if type(kind) is not Name or kind.module != "torch" or kind.name not in STORAGES:
            self.refuse(f"its pickle has a storage of the unknown type {kind}.")
        if type(key) is not str or not re.fullmatch(r"\w{1,80}", key) or type(place) is not str or not _is_count(numel):
            self.refuse("its pickle has a storage without a proper key and size.")
        return StorageRef(key, STORAGES[kind.name], numel)

    def tensor(self, args: tuple[Any, ...]) -> TensorRef:
        """Arguments of ``torch._utils._rebuild_tensor_v2``, checked against the storage."""
        if len(args) not in (6, 7) or type(args[0]) is not StorageRef or not _is_count(args[1]):
            self.refuse("its pickle has a tensor with the wrong arguments.")
        storage, offset, shape, stride, _, hooks, *more = args
        sizes = (shape, stride)
        if any(type(s) is not tuple or len(s) > 16 or not all(map(_is_count, s)) for s in sizes):
            self.refuse("its pickle has a tensor without a proper shape.")
        if hooks or any(more):
            self.refuse("its pickle has a tensor with hooks or a state of its own.")
        found = TensorRef(storage, shape, stride, offset)
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if found.numel and (last >= storage.numel or found.numel > storage.numel):
            self.refuse(f"its pickle has a tensor {list(shape)} that reaches beyond its {storage.numel:,} elements.")
        return found

    # ---- the stack

    def since_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.outer.pop()
        return values

    def top(self, kind: type, doing: str) -> Any:
        if not isinstance(self.stack[-1], kind):
            self.refuse(f"its pickle {doing} a {_kind(self.stack[-1])}.")
        return self.stack[-1]


def _kind(value: Any) -> str:
    return str(value) if type(value) is Name else str(value.of) if type(value) is Record else type(value).__name__


def _is_stand_in(name: Name) -> bool:
    return name.module.split(".")[0] in STAND_INS


def _known(name: Name) -> bool:
    if name.module == "builtins":
        return name.name in _BUILTINS
    if name.module == "torch" and name.name in STORAGES:
        return True
    return _is_stand_in(name) or str(name) in _BUILDERS


# ---- what may be made besides records


def _ordered(machine: _Machine, args: tuple[Any, ...]) -> OrderedRecord:
    return OrderedRecord(*args) if len(args) == 1 and type(args[0]) is list else _empty(machine, args)


def _empty(machine: _Machine, args: tuple[Any, ...]) -> OrderedRecord:
    if any(type(a) is not Name for a in args) or len(args) > 1:
        machine.refuse("its pickle makes a dictionary out of something else than pairs.")
    return OrderedRecord()


def _set(machine: _Machine, args: tuple[Any, ...]) -> set[Any]:
    if len(args) != 1 or type(args[0]) not in (list, tuple):
        machine.refuse("its pickle makes a set out of something else than a list.")
    return set(args[0])


def _parameter(machine: _Machine, args: tuple[Any, ...]) -> TensorRef:
    if len(args) != 3 or type(args[0]) is not TensorRef or args[2]:
        machine.refuse("its pickle has a parameter that is no tensor, or has hooks.")
    return args[0]


_BUILDERS: dict[str, Callable[[_Machine, tuple[Any, ...]], Any]] = {
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": _empty,
    "builtins.set": _set,
    "torch._utils._rebuild_tensor_v2": _Machine.tensor,
    "torch._utils._rebuild_parameter": _parameter,
}


# ---- one function an opcode


def _push(machine: _Machine, value: Any) -> None:
    machine.stack.append(value)


def _constant(value: Any) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(value)


def _new(kind: type) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(kind())


def _last(number: int) -> Callable[[_Machine, Any], None]:
    def step(m: _Machine, _: Any) -> None:
        if len(m.stack) < number:
            raise ValueError("too few values for a tuple")
        m.stack[-number:] = [tuple(m.stack[-number:])]

    return step


def _collect(kind: Callable[[list[Any]], Any]) -> Callable[[_Machine, Any], None]:
    def step(m: _Machine, _: Any) -> None:
        values = m.since_mark()
        m.stack.append(kind(values))

    return step


def _pairs(values: list[Any]) -> dict[Any, Any]:
    return dict(zip(values[::2], values[1::2], strict=True))


def _mark(m: _Machine, _: Any) -> None:
    m.outer.append(m.stack)
    m.stack = []


def _pop(m: _Machine, _: Any) -> None:
    m.stack.pop()


def _put(m: _Machine, index: Any) -> None:
    m.memo[len(m.memo) if index is None else int(index)] = m.stack[-1]


def _get(m: _Machine, index: Any) -> None:
    m.stack.append(m.memo[int(index)])


def _append(m: _Machine, _: Any) -> None:
    value = m.stack.pop()
    m.top(list, "appends to").append(value)


def _appends(m: _Machine, _: Any) -> None:
    values = m.since_mark()
    m.top(list, "appends to").extend(values)


def _setitem(m: _Machine, _: Any) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    m.top(dict, "sets an entry of")[key] = value


def _setitems(m: _Machine, _: Any) -> None:
    pairs = _pairs(m.since_mark())
    m.top(dict, "sets entries of").update(pairs)


def _additems(m: _Machine, _: Any) -> None:
    values = m.since_mark()
    m.top(set, "adds to").update(values)


def _global(m: _Machine, argument: str) -> None:
    module, _, name = argument.partition(" ")
    m.stack.append(m.mention(module, name))


def _stack_global(m: _Machine, _: Any) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    if type(name) is not str or type(module) is not str:
        m.refuse("its pickle names something by values that are no text.")
    m.stack.append(m.mention(module, name))


def _reduce(m: _Machine, _: Any) -> None:
    args, of = m.stack.pop(), m.stack.pop()
    m.stack.append(m.make(of, args))


def _newobj(m: _Machine, _: Any) -> None:
    args, of = m.stack.pop(), m.stack.pop()
    if type(of) is Name and not (_is_stand_in(of) or str(of) in m.refused):
        m.refuse(f"its pickle makes an instance of {of}, which is only ever named in a checkpoint.")
    m.stack.append(m.make(of, args))


def _newobj_ex(m: _Machine, _: Any) -> None:
    kwargs, args, of = m.stack.pop(), m.stack.pop(), m.stack.pop()
    m.stack.append(m.make(of, args, kwargs))


def _build(m: _Machine, _: Any) -> None:
    state = m.stack.pop()
    target = m.stack[-1]
    if type(target) not in (Record, OrderedRecord):
        m.refuse(f"its pickle sets the attributes of a {_kind(target)}.")
    if target.state is not None:
        m.refuse(f"its pickle sets the state of a {_kind(target)} twice.")
    target.state = state


def _persistent(m: _Machine, _: Any) -> None:
    m.stack.append(m.storage(m.stack.pop()))


_VALUES = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
    "BINBYTES SHORT_BINBYTES BINBYTES8"
)
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(_VALUES.split(), _push),
    **dict.fromkeys(("PROTO", "FRAME"), lambda m, _: None),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
    **{"NONE": _constant(None), "NEWTRUE": _constant(True), "NEWFALSE": _constant(False)},
    **{"EMPTY_LIST": _new(list), "EMPTY_DICT": _new(dict), "EMPTY_SET": _new(set), "EMPTY_TUPLE": _constant(())},
    **{"TUPLE1": _last(1), "TUPLE2": _last(2), "TUPLE3": _last(3)},
    **{"TUPLE": _collect(tuple), "LIST": _collect(list), "DICT": _collect(_pairs), "FROZENSET": _collect(frozenset)},
    **{"MARK": _mark, "POP": _pop, "APPEND": _append, "APPENDS": _appends, "SETITEM": _setitem},
    **{"SETITEMS": _setitems, "ADDITEMS": _additems, "GLOBAL": _global, "STACK_GLOBAL": _stack_global},
    **{"REDUCE": _reduce, "NEWOBJ": _newobj, "NEWOBJ_EX": _newobj_ex, "BUILD": _build, "BINPERSID": _persistent},
}
"""What each opcode does. INST, OBJ, PERSID, EXT1–4, DUP and buffers are not here: checkpoints have none."""
