"""The configuration of a reference checkpoint, from the shapes of its tensors and its hyper-parameters.

What the tensors say counts; hyper-parameters say what tensors cannot (behavior slots, masking, dropout) and must not
contradict them. Everything that is wrong is collected, not only the first thing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from betz.core.errors import ConfigError
from betz.model.presets import ModelConfig

Shapes = Mapping[str, tuple[int, ...]]
STREAM_MS = 1000.0
"""Window of the reference's published streaming evaluation."""
PRETRAIN_SLOTS = (17, 10)
"""Behavior and spike slots of the released models: the layout of position ids that does not move."""
NEEDED = {
    "embed.start": 1,
    "embed.position.weight": 2,
    "embed.counts.weight": 2,
    "blocks.0.attention.qkv.weight": 2,
    "blocks.0.mlp.up.weight": 2,
}
"""Tensors without which there is no model, and their numbers of axes."""
OPTIONAL = {"blocks.0.attention.q_norm.weight": 1, "embed.return_.weight": 2, "heads.sequence.out.weight": 2}
SETTINGS: tuple[tuple[str, Any], ...] = (
    ("cfg.arch", "flash_ndt"),
    ("cfg.causal", True),
    ("cfg.next_step_prediction", True),
    ("cfg.use_full_encode", True),
    ("cfg.layer_norm_input", False),
    ("cfg.spike_embed_style", "token"),
    ("cfg.task.spike_loss", "cross_entropy"),
    ("cfg.task.cross_ent_soften", True),
    ("cfg.task.decode_tokenize_dims", True),
    ("cfg.task.behavior_lag", 0),
    ("cfg.transformer.activation", "swiglu"),
    ("cfg.transformer.pre_norm", True),
    ("cfg.transformer.flat_encoder", True),
    ("cfg.transformer.embed_space", True),
    ("cfg.transformer.rotary_position", True),
    ("cfg.transformer.factorized_space_time", False),
    ("data_attrs.pad_token", 0),
    ("data_attrs.spike_dim", 1),
    ("data_attrs.semantic_covariates", False),
)
"""Settings that change what is computed without a trace in the tensors, and the only value Betz's model computes."""


@dataclass
class Inferred:
    """A configuration, or why there is none.

    Args:
        config: None if it could not be found.
        problems: what Betz's model cannot be or do, a sentence each.
        notes: what was assumed.
    """

    config: ModelConfig | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def infer_config(shapes: Shapes, hyper: Mapping[str, Any], *, window_bins: int | None = None) -> Inferred:
    """Find the configuration.

    Args:
        shapes: of the tensors, by Betz's names.
        hyper: the hyper-parameters ``cfg`` and ``data_attrs`` as JSON values.
        window_bins: of streaming; None = one second, as the reference's evaluation.
    """
    found = Inferred()
    found.problems += [f"there is no tensor for {name}" for name in NEEDED if name not in shapes]
    for name, axes in (NEEDED | OPTIONAL).items():
        if name in shapes and (len(shapes[name]) != axes or 0 in shapes[name]):
            found.problems.append(f"{name} is {list(shapes[name])}; {axes} axes that are not empty are needed")
    blind = bool(found.problems)
    _check_settings(hyper, found)
    if blind:
        return found
    values = _sizes(shapes, hyper, found) | _tokens(shapes, hyper, found) | _training(shapes, hyper, found)
    bin_ms = _number(hyper, "data_attrs.bin_size_ms", found, otherwise=20)
    window = window_bins or max(1, round(STREAM_MS / bin_ms))
    if window_bins is None:
        found.notes.append(f"The window is {window} bins, one second, as in the reference's streaming evaluation.")
    try:
        found.config = ModelConfig(**values, rotary="bins", semantics="recompute", bin_ms=bin_ms, window=window)
    except (ConfigError, TypeError) as error:
        found.problems.append(error.what if isinstance(error, ConfigError) else f"{error}")
    return found


def look_up(hyper: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path; None if it is not there."""
    value: Any = hyper
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _check_settings(hyper: Mapping[str, Any], found: Inferred) -> None:
    silent = []
    for path, wanted in SETTINGS:
        value = look_up(hyper, path)
        if value is None:
            silent.append(path)
        elif value != wanted:
            found.problems.append(f"{path} is {value!r}; Betz's model computes {wanted!r} alone")
    if silent:
        found.notes.append(f"Not stated in the file, taken as in the released models: {', '.join(silent)}.")


def _sizes(shapes: Shapes, hyper: Mapping[str, Any], found: Inferred) -> dict[str, Any]:
    """Width, layers, heads and biases."""
    width = shapes["embed.start"][0]
    numbers = sorted({int(m[1]) for name in shapes if (m := re.match(r"blocks\.(\d+)\.", name))})
    if numbers != list(range(len(numbers))):
        found.problems.append(f"the layers are numbered {numbers}")
    norm = shapes.get("blocks.0.attention.q_norm.weight")
    stated = look_up(hyper, "cfg.transformer.n_heads")
    heads = width // norm[0] if norm else stated
    if not isinstance(heads, int) or heads < 1:
        found.problems.append("the number of heads is in neither tensors nor hyper-parameters")
        heads = 1
    said = {"hidden_size": width, "transformer.n_layers": len(numbers), "transformer.n_heads": heads}
    for path, size in said.items():
        value = look_up(hyper, f"cfg.{path}")
        if value is not None and value != size:
            found.problems.append(f"cfg.{path} is {value!r}, but the tensors have {size}")
    return {
        "width": width,
        "layers": len(numbers),
        "heads": heads,
        "mlp_width": shapes["blocks.0.mlp.up.weight"][0] // 2,
        "attention_bias": _some_bias(shapes, "attention"),
        "mlp_bias": _some_bias(shapes, "mlp"),
        "norm_gain": "blocks.0.attention_norm.weight" in shapes,
        "qk_norm": norm is not None,
    }


def _some_bias(shapes: Shapes, part: str) -> bool:
    return any(re.fullmatch(rf"blocks\.\d+\.{part}\.\w+\.bias", name) for name in shapes)


def _tokens(shapes: Shapes, hyper: Mapping[str, Any], found: Inferred) -> dict[str, Any]:
    """Patches, position ids, constraints and return."""
    counts, width = shapes["embed.counts.weight"], shapes["embed.start"][0]
    patch = max(1, width // counts[1])
    stated = look_up(hyper, "cfg.neurons_per_token")
    if stated is not None and stated != patch:
        found.problems.append(f"cfg.neurons_per_token is {stated!r}, but the tensors have {patch}")
    behavior = _number(hyper, "data_attrs.behavior_dim", found)
    channels = _number(hyper, "data_attrs.max_channel_count", found, otherwise=320)
    asserted = look_up(hyper, "data_attrs.assert_max_tokens_neural")
    slots = asserted if type(asserted) is int and asserted > 0 else math.ceil(channels / patch)
    layout: Literal["pretrain", "legacy-finetune"] = (
        "pretrain" if (behavior, slots) == PRETRAIN_SLOTS else "legacy-finetune"
    )
    if layout == "legacy-finetune":
        found.notes.append(
            f"Position ids count with {behavior:g} behavior and {slots} spike slots, as in the published fine-tuning."
        )
    returns = shapes.get("embed.return_.weight")
    return {
        "patch_channels": patch,
        "count_classes": counts[0],
        "layout": layout,
        "behavior_dim": behavior,
        "max_channels": slots * patch,
        "max_arrays": int(_number(hyper, "data_attrs.max_arrays", found, otherwise=2)),
        "positions": shapes["embed.position.weight"][0] - 1,
        "constraints": "embed.constraint" in shapes,
        "constraint_start": "embed.constraint_start" in shapes,
        "returns": returns is not None,
        "max_return": returns[0] - 1 if returns else 50,
    }


def _training(shapes: Shapes, hyper: Mapping[str, Any], found: Inferred) -> dict[str, Any]:
    """Objective, loss weights, masking and dropout."""
    spikes, behavior = "heads.spikes.weight" in shapes, "heads.behavior.weight" in shapes
    sequence = shapes.get("heads.sequence.out.weight")
    if not (spikes or behavior or sequence):
        found.problems.append("there is no head: neither spikes, behavior nor a sequence is predicted")
    if sequence:
        found.notes.append("The sequence head was converted by its shape; no reference output was there to compare it.")
        pool = look_up(hyper, "cfg.task.decode_time_pool")
        if pool not in (None, "mean"):
            found.problems.append(f"cfg.task.decode_time_pool is {pool!r}; Betz's model takes the mean of a bin")
    tasks, weights = (look_up(hyper, f"cfg.task.{name}") for name in ("tasks", "task_weights"))
    # Fine-tuning drops tasks from the list, and leaves the weights of the longer one behind.
    known = isinstance(tasks, list) and isinstance(weights, list) and len(tasks) <= len(weights)
    weight = dict(zip(tasks, weights, strict=False)) if known else {}
    if not known:
        found.notes.append("Loss weights are not stated; both are 1.")
    # The reference zeroes behavior inputs under every schedule but a constant one of 0.
    schedule = look_up(hyper, "cfg.kinematic_token_maskout_schedule")
    given = schedule not in (None, "cosine", "random") and look_up(hyper, "cfg.kinematic_token_maskout") == 0
    return {
        "objective": "joint" if spikes and behavior else "behavior" if behavior else "spikes",
        "sequence_classes": sequence[0] if sequence else 0,
        "spike_weight": weight.get("spike_infill", 1.0),
        "behavior_weight": weight.get("kinematic_linear", 1.0),
        "behavior_input": "given" if given else "masked",
        "dropout": _number(hyper, "cfg.transformer.dropout", found, otherwise=0.1),
    }


def _number(hyper: Mapping[str, Any], path: str, found: Inferred, *, otherwise: float | None = None) -> Any:
    value = look_up(hyper, path)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return value
    if otherwise is None or value is not None:
        found.problems.append(f"{path} is {'missing' if value is None else repr(value)}; a number is needed")
        return 1
    found.notes.append(f"{path} is not stated; {otherwise:g} as in the released models.")
    return otherwise
