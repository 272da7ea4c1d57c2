"""Converts checkpoints of the NDT3 reference code, without running anything that is in them.

Not yet run on an official file: names and shapes were found from the reference's code and from files that it wrote.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from betz.core.config import to_dict
from betz.core.errors import CheckpointError
from betz.model.archive import Archive
from betz.model.checkpoint import ModelCard, SavedModel, count_parameters, differences, empty_model, fill, save_model
from betz.model.inert_values import Record, to_json
from betz.model.ndt3_config import Inferred, infer_config, look_up
from betz.model.ndt3_names import reference_to_betz as reference_to_betz
from betz.model.ndt3_weights import Entry, Sources, add_missing_biases, read_weights, sort_out
from betz.model.presets import ModelConfig

UNSTATED = "that of the source file (the official NDT3 files are CC-BY-NC-4.0)"
"""Licence of a converted model of which nobody said it."""
_REMEDY = "`betz convert-ndt3 FILE --inspect` lists all that is in the file"


@dataclass(frozen=True, eq=False)
class Inventory:
    """What a checkpoint of the reference holds, and whether Betz can convert it.

    Args:
        path: of the file.
        entries: every key of its state dict.
        config: what it would become; None if that could not be found.
        parameters: their number; 0 without a configuration.
        settings: its hyper-parameters as JSON values, and how long it was trained.
        names: classes and functions that its pickle mentions, and how often.
        refused: those among them for which conversion is refused.
        problems: why it cannot be converted, a sentence each.
        notes: what was assumed or changed, a sentence each.
    """

    path: str
    entries: tuple[Entry, ...]
    config: ModelConfig | None
    parameters: int
    settings: Mapping[str, Any]
    names: Mapping[str, int]
    refused: tuple[str, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def convertible(self) -> bool:
        """Whether :func:`convert` would take it."""
        return not (self.problems or self.refused)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "path": self.path,
            "convertible": self.convertible,
            "problems": list(self.problems),
            "refused": list(self.refused),
            "notes": list(self.notes),
            "parameters": self.parameters,
            "config": None if self.config is None else to_dict(self.config),
            "entries": [asdict(entry) for entry in self.entries],
            "settings": dict(self.settings),
            "names": dict(self.names),
        }


def inspect(path: str | Path) -> Inventory:
    """Everything that is in a checkpoint, without converting it.

    Raises:
        CheckpointError: it cannot be read at all.
    """
    with Archive(path, tolerate=True) as archive:
        return _examine(archive, None)[0]


def convert(
    path: str | Path, out: str | Path, *, licence: str = UNSTATED, window_bins: int | None = None
) -> tuple[Inventory, SavedModel]:
    """Convert a Lightning checkpoint of the reference to a model folder.

    Args:
        path: the ``.ckpt`` file.
        out: folder to write; an older model in it is replaced.
        licence: of the weights; the official ones are CC-BY-NC.
        window_bins: window for streaming; None = one second.

    Raises:
        CheckpointError: it is damaged, its pickle names something no checkpoint needs, or Betz's model cannot compute
            what it computes.
    """
    with Archive(path) as archive:
        inventory, sources = _examine(archive, window_bins)
        if not inventory.convertible or inventory.config is None:
            reasons, more = inventory.problems, len(inventory.problems) - 6
            raise CheckpointError(
                f"{'; '.join(reasons[:6])}{f' (and {more} more)' if more > 0 else ''}.",
                where=archive.where,
                remedy=_REMEDY,
            )
        tensors = read_weights(archive, sources.by_name.items())
    model = empty_model("transformer", inventory.config)
    fill(model, tensors, dtype=torch.float32)
    with Path(path).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    card = ModelCard(
        licence=licence,
        origin=Path(path).name,
        notes=(*inventory.notes, "No scale of behavior is in the file: predictions are relative until one is given."),
        settings={**inventory.settings, "source_sha256": sha256},
    )
    save_model(out, model, card=card)
    return inventory, SavedModel(model, "transformer", card, None, str(out))


def _examine(archive: Archive, window_bins: int | None) -> tuple[Inventory, Sources]:
    top = archive.plain.value
    if not isinstance(top, dict) or not isinstance(top.get("state_dict"), dict):
        raise CheckpointError(
            "this is no Lightning checkpoint (it has no state_dict).", where=archive.where, remedy="give a .ckpt file"
        )
    hyper = top.get("hyper_parameters")
    plain = to_json(hyper, where=archive.where) if isinstance(hyper, dict) else {}
    sources = sort_out(top["state_dict"], lora_alpha=_lora_alpha(hyper, archive.where))
    inferred = infer_config({n: s.shape for n, s in sources.by_name.items()}, plain, window_bins=window_bins)
    parameters = _compare(sources, inferred)
    settings = {"cfg": plain.get("cfg"), "data_attrs": _without_names(plain.get("data_attrs"))}
    settings |= {key: top[key] for key in ("epoch", "global_step") if type(top.get(key)) is int}
    inventory = Inventory(
        path=archive.where,
        entries=tuple(sources.entries),
        config=inferred.config,
        parameters=parameters,
        settings=settings,
        names=archive.plain.names,
        refused=archive.plain.refused,
        problems=(*sources.problems, *inferred.problems),
        notes=(*sources.notes, *inferred.notes),
    )
    return inventory, sources


def _compare(sources: Sources, inferred: Inferred) -> int:
    """Number of parameters; adds what does not fit the configuration to its problems."""
    if inferred.config is None:
        return 0
    if inferred.config.layers > len(sources.by_name):
        inferred.problems.append(f"{inferred.config.layers} layers have {len(sources.by_name)} tensors")
        return 0
    model = empty_model("transformer", inferred.config)
    add_missing_biases(sources, model.state_dict())
    shapes = {name: torch.empty(s.shape, device="meta") for name, s in sources.by_name.items()}
    inferred.problems += differences(model, shapes, dtype=torch.float32)
    return count_parameters(model)


def _lora_alpha(hyper: Any, where: str) -> float | None:
    """``train.lora_alpha`` of the whole run's settings, of which the model's are a part."""
    node, steps = hyper.get("cfg") if isinstance(hyper, dict) else None, 0
    while isinstance(node, Record) and isinstance(node.state, dict) and steps < 10:
        content = node.state.get("_content")
        if isinstance(content, dict) and "train" in content:
            value = look_up({"train": to_json(content["train"], where=where)}, "train.lora_alpha")
            return float(value) if isinstance(value, (int, float)) else None
        node, steps = node.state.get("_parent"), steps + 1
    return None


def _without_names(attrs: Any) -> Any:
    """Data attributes without the lists of subjects and sessions, which are none of a model's business."""
    return {key: value for key, value in attrs.items() if key != "context"} if isinstance(attrs, dict) else attrs
