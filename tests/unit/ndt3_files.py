"""Checkpoints as the NDT3 reference code and Lightning write them, made without either.

Shapes are written down here once more, from the description of the reference, independently of the converter.
"""

from __future__ import annotations

import sys
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import torch

CFG: dict[str, Any] = {
    "hidden_size": 64,
    "arch": "flash_ndt",
    "causal": True,
    "next_step_prediction": True,
    "use_full_encode": True,
    "layer_norm_input": False,
    "spike_embed_style": "token",
    "neurons_per_token": 32,
    "kinematic_token_maskout": 0.0,
    "kinematic_token_maskout_schedule": "random",
    "root_dir": PurePosixPath("/data/x"),
    "task": {
        "tasks": ["spike_infill", "kinematic_linear", "constraints", "return_context"],
        "task_weights": [1.0, 10.0, 0.0, 0.0],
        "spike_loss": "cross_entropy",
        "cross_ent_soften": True,
        "decode_tokenize_dims": True,
        "behavior_lag": 0,
    },
    "transformer": {
        "n_heads": 2,
        "n_layers": 2,
        "dropout": 0.2,
        "activation": "swiglu",
        "pre_norm": True,
        "flat_encoder": True,
        "embed_space": True,
        "rotary_position": True,
        "factorized_space_time": False,
    },
}
ATTRS: dict[str, Any] = {
    "bin_size_ms": 20,
    "spike_dim": 1,
    "max_channel_count": 320,
    "max_arrays": 2,
    "behavior_dim": 17,
    "pad_token": 0,
    "neurons_per_token": 32,
    "semantic_covariates": False,
    "assert_max_tokens_neural": 0,
}


def state_dict(*, width: int = 64, layers: int = 2, heads: int = 2, patch: int = 32, seed: int = 0) -> dict[str, Any]:
    """Random weights of a pretrained model, in the reference's names and shapes."""
    generator = torch.Generator().manual_seed(seed)
    inner = -(-width // 128) * 128
    shapes: dict[str, tuple[int, ...]] = {
        "start_of_sentence": (width,),
        "backbone.space_encoder.weight": (49, width),
        "task_pipelines.spike_infill.readin.weight": (21, width // patch),
        "task_pipelines.spike_infill.out.0.weight": (22 * patch, width),
        "task_pipelines.spike_infill.out.0.bias": (22 * patch,),
        "task_pipelines.spike_infill.loss.poisson_map": (22, 22),
        "task_pipelines.kinematic_linear.inp.weight": (width, 1),
        "task_pipelines.kinematic_linear.inp.bias": (width,),
        "task_pipelines.kinematic_linear.out.0.weight": (1, width),
        "task_pipelines.kinematic_linear.out.0.bias": (1,),
        "task_pipelines.constraints.constraint_dims": (3, width),
        "task_pipelines.return_context.return_enc.weight": (51, width),
        "task_pipelines.return_context.reward_enc.weight": (3, width),
    }
    for i in range(layers):
        shapes |= {
            f"backbone.layers.{i}.mixer.Wqkv.weight": (3 * width, width),
            f"backbone.layers.{i}.mixer.Wqkv.bias": (3 * width,),
            f"backbone.layers.{i}.mixer.out_proj.weight": (width, width),
            f"backbone.layers.{i}.mixer.out_proj.bias": (width,),
            f"backbone.layers.{i}.mixer.q_norm.weight": (width // heads,),
            f"backbone.layers.{i}.mixer.k_norm.weight": (width // heads,),
            f"backbone.layers.{i}.mlp.fc1.weight": (2 * inner, width),
            f"backbone.layers.{i}.mlp.fc1.bias": (2 * inner,),
            f"backbone.layers.{i}.mlp.fc2.weight": (width, inner),
            f"backbone.layers.{i}.mlp.fc2.bias": (width,),
        }
    found: dict[str, Any] = OrderedDict((k, torch.randn(s, generator=generator) * 0.1) for k, s in shapes.items())
    found["_extra_state"] = {"token_proc_approx": 0.1, "token_seen_approx": 0, "novel_params": []}
    return found


@contextmanager
def reference_classes() -> Iterator[dict[str, type]]:
    """Classes with the modules and names that the reference's pickles mention, gone again afterwards."""
    places = {
        "DictConfig": "omegaconf.dictconfig",
        "ListConfig": "omegaconf.listconfig",
        "AnyNode": "omegaconf.nodes",
        "Metadata": "omegaconf.base",
        "DataAttrs": "context_general_bci.dataset",
    }
    made: dict[str, type] = {n: type(n, (), {"__module__": m}) for n, m in places.items()}
    task = Enum("ModelTask", {n: n for n in CFG["task"]["tasks"]}, module="context_general_bci.config.config_base")
    made["ModelTask"] = task
    modules = {c.__module__: ModuleType(c.__module__) for c in made.values()}
    for name, cls in made.items():
        setattr(modules[cls.__module__], name, cls)
    for parent in ("omegaconf", "context_general_bci", "context_general_bci.config"):
        modules.setdefault(parent, ModuleType(parent))
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield made
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def node(value: Any, parent: Any, classes: Mapping[str, Any]) -> Any:
    """A value as the settings library nests it: nodes that know their parents."""
    kind = "DictConfig" if isinstance(value, dict) else "ListConfig" if isinstance(value, list) else "AnyNode"
    made = classes[kind].__new__(classes[kind])
    meta = classes["Metadata"].__new__(classes["Metadata"])
    meta.__dict__ |= {"element_type": Any, "object_type": dict, "flags": defaultdict(dict)}
    made.__dict__ |= {"_metadata": meta, "_parent": parent}
    if isinstance(value, dict):
        made.__dict__["_content"] = {k: node(v, made, classes) for k, v in value.items()}
    elif isinstance(value, list):
        made.__dict__["_content"] = [node(v, made, classes) for v in value]
    else:
        member = isinstance(value, str) and value in classes["ModelTask"].__members__
        made.__dict__["_val"] = classes["ModelTask"](value) if member else value
    return made


def write_checkpoint(
    path: Path,
    state: Mapping[str, Any] | None = None,
    *,
    cfg: Mapping[str, Any] | None = None,
    attrs: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
) -> Path:
    """A Lightning checkpoint.

    Args:
        path: of the file.
        state: state dict; None: :func:`state_dict`.
        cfg: changes to :data:`CFG`, dotted names; a value of None leaves the setting out.
        attrs: changes to :data:`ATTRS`, likewise.
        train: training settings, in the tree of which the model's are a part.
    """
    with reference_classes() as classes:
        root = node({"model": changed(CFG, cfg or {}), "train": dict(train or {"lr": 4e-4})}, None, classes)
        data = classes["DataAttrs"].__new__(classes["DataAttrs"])
        data.__dict__ |= {**changed(ATTRS, attrs or {}), "context": {"subject": ["secret name"]}}
        top = {
            "epoch": 7,
            "global_step": 40,
            "state_dict": state_dict() if state is None else state,
            "callbacks": {"EarlyStopping": {"best_score": torch.tensor(0.5)}},
            "optimizer_states": [
                {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"betas": (0.9, 0.999)}]}
            ],
            "hyper_parameters": {"cfg": root._content["model"], "data_attrs": data},
        }
        torch.save(top, path)
    return path


def changed(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested settings with some of them changed or left out."""
    found = {k: dict(v) if isinstance(v, dict) else v for k, v in settings.items()}
    for path, value in changes.items():
        *before, last = path.split(".")
        inner = found[before[0]] if before else found
        if value is None:
            del inner[last]
        else:
            inner[last] = value
    return found
