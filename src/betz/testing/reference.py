"""The reference's stored inputs and weights, as Betz's: what parity is measured on.

A folder holds ``config.json``, ``weights.safetensors`` and cases ``case_*``; a case may hold any of the files that are
read here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import CheckpointError
from betz.model.ndt3 import reference_to_betz
from betz.model.ndt3_config import infer_config
from betz.model.presets import ModelConfig
from betz.model.transformer import Transformer
from betz.tokens.batch import BEHAVIOR, CONSTRAINT, RETURN, SPIKES, TokenBatch, TokenRow, collate
from betz.tokens.window import Window

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Reference:
    """A folder's model.

    Args:
        folder, config, model: the model has the folder's weights.
        dummy_bin: where the reference's loader puts the one behavior token of a trial without behavior.
        by_dimension: whether its R² is weighted by the variance of the dimensions.
    """

    folder: Path
    config: ModelConfig
    model: Transformer
    dummy_bin: int
    by_dimension: bool


def open_reference(folder: Path) -> Reference:
    """Read configuration and weights; strict in the names.

    Raises:
        CheckpointError: names or shapes do not match the configuration.
    """
    from safetensors.torch import load_file

    written = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "weights.safetensors")
    renamed = {reference_to_betz(key): tensor for key, tensor in tensors.items() if reference_to_betz(key)}
    hyper = {"cfg": written["model"], "data_attrs": written["data_attrs"]}
    inferred = infer_config({str(name): tuple(t.shape) for name, t in renamed.items()}, hyper)
    if inferred.config is None or inferred.problems:
        raise CheckpointError("; ".join(inferred.problems), where=str(folder))
    config = replace(inferred.config, dropout=0.0)
    model = Transformer(config).eval()
    try:
        model.load_state_dict({str(name): tensor for name, tensor in renamed.items()})
    except RuntimeError as error:
        raise CheckpointError(str(error), where=str(folder)) from None
    by_dimension = "kinematic_r2_var" in written["model"]["task"]["metrics"]
    return Reference(folder, config, model, int(written["dataset"]["max_trial_length"]), by_dimension)


# ---- batches


def stored_batch(reference: Reference, arrays: Mapping[str, Array]) -> TokenBatch:
    """Tokens from a batch as the reference's loader collated it."""
    rows = [_stored_row(reference.config, arrays, b) for b in range(len(arrays["spikes"]))]
    return collate(rows, padding=reference.config.positions)


def _stored_row(config: ModelConfig, arrays: Mapping[str, Array], b: int) -> TokenRow:
    layout = config.layout_of

    def real(name: str, length: str) -> Array:
        found: Array = arrays[name][b]
        return found[: int(arrays[length][b])] if length in arrays else found

    def ids(name: str, length: str, first: int) -> Array:
        return real(name, length).astype(np.int64) + first

    spikes = real("spikes", "length")[..., 0]
    behavior = real("bhvr_vel", "covariate_length")[:, 0]
    K, R = config.constraints, config.returns
    constraint = real("constraint", "constraint_length") if K else np.zeros((0, 3), np.float32)
    return_ = real("task_return", "return_length")[:, 0] if R else np.zeros(0, np.int64)
    reward = real("task_reward", "return_length")[:, 0] if R else np.zeros(0, np.int64)
    columns = [
        (real("time", "length"), ids("position", "length", layout.spikes), SPIKES),
        (
            real("covariate_time", "covariate_length"),
            ids("covariate_space", "covariate_length", layout.behavior),
            BEHAVIOR,
        ),
    ]
    if K:
        space = ids("constraint_space", "constraint_length", layout.constraint)
        columns.append((real("constraint_time", "constraint_length"), space, CONSTRAINT))
    if R:
        columns.append((real("task_return_time", "return_length"), np.full(len(return_), layout.return_), RETURN))
    bin_T = np.concatenate([c[0] for c in columns]).astype(np.int64)
    position_T = np.concatenate([c[1] for c in columns])
    kind_T = np.concatenate([np.full(len(c[0]), c[2], np.uint8) for c in columns])
    order = np.argsort(bin_T * config.positions + position_T, kind="stable")
    slot = np.argsort(order, kind="stable")
    known = real("bhvr_mask", "covariate_length") if "bhvr_mask" in arrays else np.ones(len(behavior), bool)
    channels = real("channel_counts", "length") if "channel_counts" in arrays else np.full(len(spikes), spikes.shape[1])
    return TokenRow(
        bin_T=bin_T[order],
        position_T=position_T[order],
        kind_T=kind_T[order],
        bin_ms=config.bin_ms,
        counts_SP=spikes,
        channels_S=channels,
        spike_slot_SL=slot[kind_T == SPIKES][:, None],
        behavior_M=behavior,
        known_M=known,
        given_M=np.zeros(len(behavior), bool),
        behavior_slot_M=slot[kind_T == BEHAVIOR],
        constraint_Q3=constraint,
        constraint_slot_Q=slot[kind_T == CONSTRAINT],
        return_R=return_.astype(np.int64),
        reward_R=reward.astype(np.int64),
        return_slot_R=slot[kind_T == RETURN],
    )


def raw_batch(reference: Reference, case: Path) -> TokenBatch:
    """Tokens from the trials before the reference's loader saw them."""
    rows = []
    for path in sorted(case.glob("raw_trial*.npz"), key=lambda path: int(path.stem.removeprefix("raw_trial"))):
        with np.load(path) as file:
            window = raw_window({name: file[name] for name in file.files}, reference.config.bin_ms)
        rows.append(reference.config.tokenizer.row(window, dummy_bin=reference.dummy_bin))
    return collate(rows, padding=reference.config.positions)


def raw_window(arrays: Mapping[str, Array], bin_ms: float) -> Window:
    """A stored trial as a window."""
    return Window(
        counts=tuple(arrays[name] for name in sorted(arrays) if name.startswith("spikes")),
        bin_ms=bin_ms,
        behavior=arrays.get("bhvr_vel", np.zeros((0, 0), np.float32)),
        known=arrays.get("bhvr_mask"),
        constraint=arrays.get("constraint"),
        returns=arrays["task_return"][:, 0] if "task_return" in arrays else None,
        rewards=arrays["task_reward"][:, 0] if "task_reward" in arrays else None,
    )


def read_tensors(path: Path) -> dict[str, Array]:
    """All arrays of a safetensors file."""
    from safetensors.numpy import load_file

    return dict(load_file(path))


def cases_of(folders: Iterable[Path]) -> list[tuple[Path, Path]]:
    """(folder, case) of every case of the folders."""
    return [(folder, case) for folder in folders for case in sorted(folder.glob("case_*")) if case.is_dir()]
