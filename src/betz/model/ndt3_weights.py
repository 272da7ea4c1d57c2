"""From the reference's state dict to tensors by Betz's names: prefixes, adapters, missing biases."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from betz.core.errors import CheckpointError
from betz.model.archive import Archive
from betz.model.inert_values import TensorRef, kind_of
from betz.model.ndt3_names import reference_to_betz, why_not

COMPILED = "_orig_mod."
"""What torch.compile puts into names."""
_FLOATS = ("float16", "bfloat16", "float32", "float64")
_BIAS = re.compile(r"blocks\.\d+\.(attention|mlp)\.\w+\.bias")


@dataclass(frozen=True)
class Adapter:
    """A low-rank update ``scale · up @ down`` of a weight."""

    down: TensorRef
    up: TensorRef
    scale: float


@dataclass(frozen=True)
class Source:
    """Where one of Betz's tensors comes from.

    Args:
        key: in the state dict.
        ref: its values; None: zeros of ``shape``.
        shape: of the tensor.
        adapter: to be added.
    """

    key: str
    ref: TensorRef | None
    shape: tuple[int, ...]
    adapter: Adapter | None = None


@dataclass(frozen=True)
class Entry:
    """One entry of the state dict, for people.

    Args:
        key: in the file.
        betz: Betz's name; None: it has none.
        shape, dtype: of a tensor; None, and the class, of anything else.
        remark: why it has no name.
    """

    key: str
    betz: str | None
    shape: tuple[int, ...] | None
    dtype: str
    remark: str = ""


@dataclass
class Sources:
    """All of a state dict, sorted out.

    Args:
        by_name: source of each of Betz's tensors.
        entries: every key of the file.
        problems: what has no place in Betz's model, a sentence each.
        notes: what was done to names and values.
    """

    by_name: dict[str, Source] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def sort_out(state: Mapping[Any, Any], *, lora_alpha: float | None) -> Sources:
    """Give every entry of a reference state dict its place, or say why it has none.

    Args:
        state: from the pickle.
        lora_alpha: scale of adapters, from the training settings; None: not known.
    """
    found, adapters = Sources(), dict[str, dict[str, TensorRef]]()
    compiled = sum(COMPILED in str(key) for key in state)
    if compiled:
        found.notes.append(f"{compiled} names had the prefix {COMPILED!r} of torch.compile.")
    for key, value in state.items():
        if type(key) is not str:
            found.problems.append(f"a key of the state dict is a {kind_of(key)}")
            continue
        plain = key.replace(COMPILED, "")
        key = key if key.isprintable() else repr(key)  # it is shown to people, on terminals
        if not isinstance(value, TensorRef):
            _other(key, plain, value, found)
        elif part := re.fullmatch(r"(.+)\.lora_([AB])\.(\w+)\.weight", plain):
            adapters.setdefault(f"{part[1]}.weight", {})[f"{part[3]}.{part[2]}"] = value
            found.entries.append(_entry(key, None, value, "adapter (LoRA), added to its weight"))
        else:
            _tensor(key, re.sub(r"\.base_layer\.(weight|bias)$", r".\1", plain), value, found)
    for plain, parts in adapters.items():
        _adapt(plain, parts, lora_alpha, found)
    return found


def _entry(key: str, betz: str | None, ref: TensorRef, remark: str = "") -> Entry:
    return Entry(key, betz, ref.shape, ref.storage.dtype, remark)


def _other(key: str, plain: str, value: Any, found: Sources) -> None:
    """An entry that is no tensor."""
    try:
        known = reference_to_betz(plain) is None
    except KeyError:
        known = False
    found.entries.append(Entry(key, None, None, kind_of(value), "not a parameter" if known else "not known"))
    if not known:
        found.problems.append(f"{key} is a {kind_of(value)}, not a tensor")


def _tensor(key: str, plain: str, ref: TensorRef, found: Sources) -> None:
    try:
        name = reference_to_betz(plain)
    except KeyError:
        reason = why_not(plain)
        found.entries.append(_entry(key, None, ref, reason))
        found.problems.append(f"{key} {list(ref.shape)} has no place in Betz's model ({reason})")
        return
    found.entries.append(_entry(key, name, ref, "" if name else "not a parameter"))
    if name is None:
        return
    if name in found.by_name:
        found.problems.append(f"{key} and {found.by_name[name].key} are both {name}")
    if ref.storage.dtype not in _FLOATS:
        found.problems.append(f"{key} has {ref.storage.dtype} values; weights are floating-point numbers")
    elif ref.storage.dtype != "float32":
        found.notes.append(f"{key} was converted from {ref.storage.dtype} to float32.")
    found.by_name[name] = Source(key, ref, ref.shape)


def _adapt(plain: str, parts: Mapping[str, TensorRef], alpha: float | None, found: Sources) -> None:
    """Attach an adapter to the weight that it changes."""
    adapters = {name.rpartition(".")[0] for name in parts}
    try:
        name = reference_to_betz(plain)
    except KeyError:
        name = None
    base = found.by_name.get(name) if name else None
    down, up = (next((ref for part, ref in parts.items() if part.endswith(letter)), None) for letter in [".A", ".B"])
    if name is None or base is None or len(adapters) != 1 or down is None or up is None:
        found.problems.append(f"the adapter of {plain} has no weight, or is not one pair of matrices")
        return
    fits = len(down.shape) == len(up.shape) == 2 and down.shape[0] == up.shape[1] > 0
    if not fits or (up.shape[0], down.shape[1]) != base.shape:
        found.problems.append(f"the adapter of {plain} is {list(up.shape)} · {list(down.shape)} for {list(base.shape)}")
        return
    if alpha is None:
        found.problems.append(
            f"the adapter of {plain} has a scale (lora_alpha) that is not in the file: merge it before saving "
            "(merge_and_unload)"
        )
        return
    rank = down.shape[0]
    found.by_name[name] = Source(base.key, base.ref, base.shape, Adapter(down, up, alpha / rank))
    found.notes.append(f"The adapter of {plain} (rank {rank}, alpha {alpha:g}) was merged into it.")


def add_missing_biases(sources: Sources, wanted: Mapping[str, Tensor]) -> None:
    """Zeros for the biases that some linear maps of a checkpoint do not have: they compute the same."""
    missing = [name for name in wanted if name not in sources.by_name and _BIAS.fullmatch(name)]
    for name in missing:
        sources.by_name[name] = Source("", None, tuple(wanted[name].shape))
    if missing:
        sources.notes.append(f"Absent biases are zeros: {', '.join(missing)}.")


def read_weights(archive: Archive, sources: Iterable[tuple[str, Source]]) -> dict[str, Tensor]:
    """The tensors, float32.

    Raises:
        CheckpointError: a record is damaged, or a value is NaN or infinite.
    """
    found: dict[str, Tensor] = {}
    for name, source in sources:
        if source.ref is None:
            found[name] = torch.zeros(source.shape)
            continue
        value = archive.tensor(source.ref, name=source.key)
        if source.adapter is not None:
            down, up = (archive.tensor(r, name=source.key).double() for r in (source.adapter.down, source.adapter.up))
            value = value.double() + source.adapter.scale * (up @ down)
        found[name] = value.to(torch.float32)
        if not bool(torch.isfinite(found[name]).all()):
            raise CheckpointError(
                f"{source.key} has NaN or infinite values.", where=archive.where, remedy="take an earlier checkpoint"
            )
    return found
