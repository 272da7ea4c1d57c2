"""Models on disk: weights as safetensors, everything that explains them as JSON; nothing in them can run."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from betz import __version__
from betz.core.config import from_dict, frozen_config, to_dict
from betz.core.errors import BetzError, CheckpointError, ConfigError
from betz.model.folder import Layout, Migration, migrate, read_manifest, read_tensors, write_folder
from betz.tokens.normalize import Normalizer

FORMAT_VERSION = 1
MANIFEST, TENSORS = "model.json", "model-{sha}.safetensors"
MIGRATIONS: dict[int, Migration] = {}
"""Step from each older format version to the next one; the first format has none."""
_REMEDY = "copy the folder again from where it came, or save the model again"


class Kind(NamedTuple):
    """A class of models: what it is called, and where model and configuration are found."""

    title: str
    model: str
    config: str


KINDS: dict[str, Kind] = {
    "transformer": Kind("NDT3 architecture", "betz.model.transformer:Transformer", "betz.model.presets:ModelConfig"),
}


@frozen_config
class ModelCard:
    """What a model was made from and how good it is; saved with it.

    Args:
        licence: under which the weights may be used, as an SPDX name or a sentence.
        hours: hours of recordings it was trained on; None where not known.
        data_hash: hash of the manifest of these recordings; empty where there is none.
        metrics: what was measured, with the split in the name (``validate_r2``).
        notes: how it was trained or converted, a sentence each.
        origin: ``betz``, or what it was converted from.
        channels: channels of each array it was fine-tuned on; empty: any that fit.
        settings: those it was trained with, as JSON values.
    """

    licence: str
    hours: float | None = None
    data_hash: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    origin: str = "betz"
    channels: tuple[int, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.licence.strip():
            raise ConfigError(
                "a model needs a licence.", where="ModelCard", remedy="name it, e.g. 'CC-BY-4.0' or 'not to be shared'"
            )


@dataclass(frozen=True, eq=False)
class SavedModel:
    """A model and what is known of it.

    Args:
        model: in evaluation mode.
        kind: key of :data:`KINDS`.
        card: its origin, licence and numbers.
        normalizer: scale of its behavior; None: it has none of its own, predictions are relative.
        folder: where it was loaded from.
    """

    model: nn.Module
    kind: str
    card: ModelCard
    normalizer: Normalizer | None = None
    folder: str = ""

    @property
    def config(self) -> Any:
        """Configuration of the model."""
        return self.model.config

    @property
    def title(self) -> str:
        """What the model is called: its architecture, size and hours, never the name of somebody else's weights."""
        return title_of(self.kind, self.card, count_parameters(self.model))

    def check(self, *, channels: Sequence[int], behavior: Sequence[tuple[str, str]] | None = None) -> None:
        """Refuse a session that the model cannot decode.

        Args:
            channels: count channels of each of its arrays.
            behavior: names and units of the dimensions that are asked for.

        Raises:
            CheckpointError: arrays, channels, dimensions or units are not what the model was made for.
        """
        wanted, where = self.card.channels, f"model {self.folder}" if self.folder else "model"
        if wanted and tuple(channels) != wanted:
            raise CheckpointError(
                f"it was fine-tuned on {_list(wanted)} channels, the session has {_list(channels)}.",
                where=where,
                remedy="give the session the same channels in the same arrays, or fine-tune a pretrained model on it",
            )
        tokenizer = self.config.tokenizer
        too_many = [c for c in channels if c > tokenizer.max_channels]
        if too_many or len(channels) > tokenizer.max_arrays:
            raise CheckpointError(
                f"it reads at most {tokenizer.max_arrays} arrays of {tokenizer.max_channels} channels, "
                f"the session has {_list(channels)}.",
                where=where,
                remedy="leave channels out, or use a model with more room (max_channels, max_arrays)",
            )
        try:
            tokenizer.layout.check(
                spikes=tokenizer.spike_tokens(tuple(channels)), dims=0 if behavior is None else len(behavior)
            )
        except ConfigError as error:
            raise CheckpointError(error.what, where=where, remedy=error.remedy) from None
        if behavior is not None and self.normalizer is not None:
            has = dict(zip(self.normalizer.names, self.normalizer.units, strict=True))
            other = [f"{name} ({unit})" for name, unit in behavior if has.get(name) != unit]
            if other:
                raise CheckpointError(
                    f"it does not decode {', '.join(other)}.",
                    where=where,
                    remedy=f"it decodes {', '.join(f'{n} ({u})' for n, u in has.items())}; ask for some of these, or "
                    "fine-tune it on the others",
                )


def save_model(folder: str | Path, model: nn.Module, *, card: ModelCard, normalizer: Normalizer | None = None) -> None:
    """Write a model; an older one in the folder is replaced as a whole, or stays as it was.

    Args:
        folder: is made if needed.
        model: of one of :data:`KINDS`; all of its weights have one dtype.
        card: its origin, licence and numbers.
        normalizer: scale of its behavior.

    Raises:
        ConfigError: the class of the model is not known, its weights have several dtypes, or the card has NaN.
        CheckpointError: the disk did not take it.
    """
    from safetensors.torch import save_file

    kind = kind_of(model)
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    config: Any = model.config
    content = {
        "title": title_of(kind, card, count_parameters(model)),
        "kind": kind,
        "parameters": count_parameters(model),
        "dtype": _dtype(tensors),
        "betz": __version__,
        "config": to_dict(config),
        "tokenizer": asdict(config.tokenizer),
        "normalizer": None if normalizer is None else normalizer.to_dict(),
        "card": to_dict(card),
    }
    write_folder(Path(folder), _layout(), content, lambda path: save_file(tensors, path))


def load_model(folder: str | Path, *, device: torch.device | str = "cpu") -> SavedModel:
    """Read a model that :func:`save_model` wrote.

    Args:
        folder: that it was written to.
        device: to put it on.

    Raises:
        CheckpointError: it is none, of a newer format, of an unknown kind, damaged, or its weights and its
            configuration do not fit together.
    """
    from safetensors.torch import load_file

    folder, layout = Path(folder), _layout()
    path = folder / MANIFEST
    found = read_manifest(folder, layout)
    manifest, tensors = migrate(found, read_tensors(folder, layout, found, load_file), layout)
    kind = manifest.get("kind")
    if kind not in KINDS:
        raise CheckpointError(
            f"unknown kind {kind!r}; known: {', '.join(KINDS)}.", where=str(path), remedy="update betz"
        )
    try:
        config = from_dict(_load_class(KINDS[kind].config), manifest["config"])
        if to_dict(config) != manifest["config"]:
            raise ValueError("the configuration is not complete")
        if config.layers > len(tensors):  # before a model of a million layers is built
            raise ValueError(f"{config.layers} layers have {len(tensors)} tensors")
        model = empty_model(kind, config)
        if asdict(config.tokenizer) != manifest["tokenizer"]:
            raise ValueError("the tokenizer is not the one of the configuration")
        normalizer = None if manifest["normalizer"] is None else Normalizer.from_dict(manifest["normalizer"])
        card = from_dict(ModelCard, manifest["card"])
        dtype = getattr(torch, manifest["dtype"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, BetzError) as error:
        reason = error.what if isinstance(error, BetzError) else f"{type(error).__name__}: {error}"
        raise CheckpointError(f"the manifest does not fit ({reason}).", where=str(path), remedy=_REMEDY) from None
    reasons = differences(model, tensors, dtype=dtype)
    if reasons:
        more = f" (and {len(reasons) - 8} more)" if len(reasons) > 8 else ""
        raise CheckpointError(
            f"its weights do not fit its configuration: {'; '.join(reasons[:8])}{more}.",
            where=str(folder),
            remedy=_REMEDY,
        )
    fill(model, tensors, dtype=dtype, device=device)
    return SavedModel(model, kind, card, normalizer, str(folder))


def empty_model(kind: str, config: Any) -> nn.Module:
    """A model without memory for its weights, on the meta device."""
    with torch.device("meta"):
        made: nn.Module = _load_class(KINDS[kind].model)(config)
    return made


def fill(
    model: nn.Module, tensors: Mapping[str, Tensor], *, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> None:
    """Give a model of :func:`empty_model` memory and these weights, which must be exactly its own."""
    assert not list(model.buffers()), "a buffer of an empty model has no value"
    model.to_empty(device=device).to(dtype).load_state_dict(dict(tensors), strict=True)
    model.eval()


def differences(model: nn.Module, tensors: Mapping[str, Tensor], *, dtype: torch.dtype) -> list[str]:
    """How tensors differ from those of a model in name, shape or dtype, a phrase each."""
    wanted = model.state_dict()
    found = [f"{name} is missing" for name in wanted if name not in tensors]
    found += [f"{name} is not known" for name in tensors if name not in wanted]
    for name in (name for name in wanted if name in tensors):
        shapes = [list(t.shape) for t in (wanted[name], tensors[name])]
        if shapes[0] != shapes[1]:
            found.append(f"{name} is {shapes[1]} instead of {shapes[0]}")
        elif tensors[name].dtype != dtype:
            found.append(f"{name} is {tensors[name].dtype} instead of {dtype}")
    return found


def count_parameters(model: nn.Module) -> int:
    """Number of trainable and frozen parameters."""
    return sum(p.numel() for p in model.parameters())


def kind_of(model: nn.Module) -> str:
    """Key of :data:`KINDS` of a model.

    Raises:
        ConfigError: its class is not known.
    """
    name = f"{type(model).__module__}:{type(model).__qualname__}"
    for key, kind in KINDS.items():
        if kind.model == name:
            return key
    raise ConfigError(f"{name} is no class of models that can be saved.", where="save_model")


def title_of(kind: str, card: ModelCard, parameters: int) -> str:
    """``NDT3 architecture, 44,919,649 parameters, 12.5 hours``; of a converted model, where it comes from."""
    size = f"{KINDS[kind].title}, {parameters:,} parameters"
    if card.origin != "betz":
        return f"{size}, converted from {card.origin}"
    return f"{size}, hours not stated" if card.hours is None else f"{size}, {card.hours:,g} hours"


def _layout() -> Layout:
    return Layout(
        "model",
        MANIFEST,
        TENSORS,
        FORMAT_VERSION,
        migrations=MIGRATIONS,
        sealed=True,
        writer="save_model or `betz convert-ndt3`",
        remedy=_REMEDY,
    )


def _load_class(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _dtype(tensors: Mapping[str, Tensor]) -> str:
    kinds = sorted({str(t.dtype).removeprefix("torch.") for t in tensors.values()})
    if len(kinds) != 1:
        raise ConfigError(
            f"the weights have several dtypes ({', '.join(kinds)}).",
            where="save_model",
            remedy="convert them to one with model.to(…)",
        )
    return kinds[0]


def _list(numbers: Sequence[int]) -> str:
    return " + ".join(map(str, numbers)) or "no"
