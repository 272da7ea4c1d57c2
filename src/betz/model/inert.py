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
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from betz.core.errors import CheckpointError
from betz.model.inert_values import (
    CALLABLE,
    DEFAULT,
    ORDERED,
    PARAMETER,
    PYTHON2,
    SET,
    STORAGES,
    TENSOR,
    Name,
    OrderedRecord,
    Plain,
    Record,
    StorageRef,
    TensorRef,
    is_known,
    is_stand_in,
    kind_of,
)

MAX_BYTES = 64 << 20
"""A larger pickle is refused: tensors lie beside it, so the largest checkpoints have a few megabytes."""
MAX_OPCODES = 10_000_000
_WORD, _DOTTED = re.compile(r"[A-Za-z_]\w*"), re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_KEYS = frozenset({bool, bytes, float, int, str, Name, Record, type(None)})
_RAISED = (ValueError, IndexError, TypeError, OverflowError, KeyError, RecursionError, MemoryError)


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


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


Step = Callable[["_Machine", Any], None]


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
                f"its pickle is damaged ({type(error).__name__}: {str(error)[:200]}).",
                where=self.where,
                remedy="get the file from its origin again",
            ) from None
        return Plain(value, dict(self.names), tuple(self.refused))

    def refuse(self, what: str) -> NoReturn:
        raise _unsafe(what, self.where)

    # ---- names

    def mention(self, module: str, name: str) -> Name:
        """A class or function of the pickle, by name alone."""
        if len(module) + len(name) > 200 or not (_DOTTED.fullmatch(module) and _WORD.fullmatch(name)):
            self.refuse(f"its pickle names {f'{module}.{name}'[:200]!r}: a chain of attributes, or no name at all.")
        if module == "__builtin__":
            module, name = "builtins", PYTHON2.get(name, name)
        found = Name(module, name)
        self.names[str(found)] += 1
        if not is_known(found):
            if not self.tolerate:
                self.refuse(f"its pickle names {found}, which no NDT3 checkpoint needs.")
            self.refused[str(found)] = None
        return found

    def make(self, of: Any, args: Any) -> Any:
        """What stands for the call ``of(*args)``."""
        builder = _BUILDERS.get(str(of)) if type(of) is Name else None
        if builder is None:
            return self.instance(of, args, {})
        if type(args) is not tuple:
            self.refuse(f"its pickle calls {of} without a list of arguments.")
        return builder(self, args)

    def instance(self, of: Any, args: Any, kwargs: Any) -> Record:
        """What stands for an instance of a class."""
        if type(of) is not Name:
            self.refuse(f"its pickle calls a {kind_of(of)}, which is no class.")
        if not is_stand_in(of) and str(of) not in self.refused:
            self.refuse(f"its pickle calls {of}, which no NDT3 checkpoint does in this way.")
        if type(args) is not tuple or type(kwargs) is not dict:
            self.refuse(f"its pickle calls {of} without a list of arguments.")
        return Record(of, args, kwargs)

    # ---- tensors

    def storage(self, identity: Any) -> StorageRef:
        """The storage that a persistent id means."""
        if type(identity) is not tuple or len(identity) != 5 or identity[0] != "storage":
            self.refuse("its pickle has a persistent id that is no storage.")
        _, kind, key, place, numel = identity
        if type(kind) is not Name or kind.module != "torch" or kind.name not in STORAGES:
            self.refuse(f"its pickle has a storage of the unknown type {kind_of(kind)}.")
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
            self.refuse(f"its pickle {doing} a {kind_of(self.stack[-1])}.")
        return self.stack[-1]


# ---- what may be made besides records


def _check_keys(machine: _Machine, keys: Iterable[Any]) -> None:
    """Keys and members of sets must be simple: hashing a tuple nested a million times deep would overflow the stack."""
    for key in keys:
        parts = key if type(key) is tuple and len(key) <= 16 else (key,)
        if any(type(part) not in _KEYS for part in parts):
            machine.refuse(f"its pickle has a {kind_of(key)} as a key.")


def _ordered(machine: _Machine, args: tuple[Any, ...]) -> OrderedRecord:
    pairs = args[0] if len(args) == 1 else []
    if len(args) > 1 or type(pairs) is not list or any(type(p) not in (list, tuple) or len(p) != 2 for p in pairs):
        machine.refuse("its pickle makes a dictionary out of something else than pairs.")
    _check_keys(machine, (key for key, _ in pairs))
    return OrderedRecord(pairs)


def _default(machine: _Machine, args: tuple[Any, ...]) -> OrderedRecord:
    if len(args) != 1 or type(args[0]) is not Name:
        machine.refuse("its pickle makes a dictionary whose missing entries are no empty class.")
    return OrderedRecord()


def _set(machine: _Machine, args: tuple[Any, ...]) -> set[Any]:
    if len(args) != 1 or type(args[0]) not in (list, tuple):
        machine.refuse("its pickle makes a set out of something else than a list.")
    _check_keys(machine, args[0])
    return set(args[0])


def _parameter(machine: _Machine, args: tuple[Any, ...]) -> TensorRef:
    if len(args) != 3 or type(args[0]) is not TensorRef or args[2]:
        machine.refuse("its pickle has a parameter that is no tensor, or has hooks.")
    return args[0]


_BUILDERS: dict[str, Callable[[_Machine, tuple[Any, ...]], Any]] = {
    ORDERED: _ordered,
    DEFAULT: _default,
    SET: _set,
    TENSOR: _Machine.tensor,
    PARAMETER: _parameter,
}
assert set(_BUILDERS) == CALLABLE


# ---- one function an opcode


def _push(m: _Machine, value: Any) -> None:
    m.stack.append(value)


def _nothing(m: _Machine, _: Any) -> None:
    pass


def _new(make: Callable[[], Any]) -> Step:
    return lambda m, _: m.stack.append(make())


def _last(number: int) -> Step:
    def step(m: _Machine, _: Any) -> None:
        if len(m.stack) < number:
            raise ValueError("too few values for a tuple")
        m.stack[-number:] = [tuple(m.stack[-number:])]

    return step


def _collect(make: Callable[[_Machine, list[Any]], Any]) -> Step:
    def step(m: _Machine, _: Any) -> None:
        values = m.since_mark()
        m.stack.append(make(m, values))

    return step


def _dict(m: _Machine, values: list[Any]) -> dict[Any, Any]:
    _check_keys(m, values[::2])
    return dict(zip(values[::2], values[1::2], strict=True))


def _frozenset(m: _Machine, values: list[Any]) -> frozenset[Any]:
    _check_keys(m, values)
    return frozenset(values)


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
    m.top(dict, "sets an entry of").update(_dict(m, [key, value]))


def _setitems(m: _Machine, _: Any) -> None:
    pairs = _dict(m, m.since_mark())
    m.top(dict, "sets entries of").update(pairs)


def _additems(m: _Machine, _: Any) -> None:
    values = _frozenset(m, m.since_mark())
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
    m.stack.append(m.instance(of, args, {}))


def _newobj_ex(m: _Machine, _: Any) -> None:
    kwargs, args, of = m.stack.pop(), m.stack.pop(), m.stack.pop()
    m.stack.append(m.instance(of, args, kwargs))


def _build(m: _Machine, _: Any) -> None:
    state = m.stack.pop()
    target = m.stack[-1]
    if type(target) not in (Record, OrderedRecord):
        m.refuse(f"its pickle sets the attributes of a {kind_of(target)}.")
    if target.state is not None:
        m.refuse(f"its pickle sets the state of a {kind_of(target)} twice.")
    target.state = state


def _persistent(m: _Machine, _: Any) -> None:
    m.stack.append(m.storage(m.stack.pop()))


_VALUES = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
    "BINBYTES SHORT_BINBYTES BINBYTES8"
)
_STEPS: dict[str, Step] = {
    **dict.fromkeys(_VALUES.split(), _push),
    **dict.fromkeys(("PROTO", "FRAME"), _nothing),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
    "NONE": _new(lambda: None),
    "NEWTRUE": _new(lambda: True),
    "NEWFALSE": _new(lambda: False),
    "EMPTY_LIST": _new(list),
    "EMPTY_DICT": _new(dict),
    "EMPTY_SET": _new(set),
    "EMPTY_TUPLE": _new(tuple),
    "TUPLE1": _last(1),
    "TUPLE2": _last(2),
    "TUPLE3": _last(3),
    "TUPLE": _collect(lambda _, values: tuple(values)),
    "LIST": _collect(lambda _, values: values),
    "DICT": _collect(_dict),
    "FROZENSET": _collect(_frozenset),
    "MARK": _mark,
    "POP": _pop,
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEM": _setitem,
    "SETITEMS": _setitems,
    "ADDITEMS": _additems,
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _newobj,
    "NEWOBJ_EX": _newobj_ex,
    "BUILD": _build,
    "BINPERSID": _persistent,
}
"""What each opcode does. INST, OBJ, PERSID, EXT1 … EXT4, DUP and buffers are not here: no checkpoint has them."""
