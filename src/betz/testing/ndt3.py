"""Parity with the reference: stored outputs of its code against Betz's Transformer with the same weights.

A folder holds ``config.json``, ``weights.safetensors`` and cases; a case may hold any of the files that are read here.
Only real tokens are compared: what stands in padding depends on how a sort breaks ties.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from betz.core.errors import CheckpointError
from betz.core.session import BehaviorDim, Channel
from betz.model.losses import losses, real_channels, spike_loss_elements
from betz.model.ndt3 import reference_to_betz
from betz.model.presets import ModelConfig
from betz.model.transformer import Transformer, on_device
from betz.tokens.batch import BEHAVIOR, CONSTRAINT, RETURN, SPIKES, TokenBatch, TokenRow, collate
from betz.tokens.normalize import Normalizer
from betz.tokens.window import Window

Array = NDArray[Any]
Errors = dict[str, float]
MODES = ("visible", "train", "partial", "eval")


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
    config = _config(written, renamed)
    model = Transformer(config).eval()
    try:
        model.load_state_dict({str(name): tensor for name, tensor in renamed.items()})
    except RuntimeError as error:
        raise CheckpointError(str(error), where=str(folder)) from None
    by_dimension = "kinematic_r2_var" in written["model"]["task"]["metrics"]
    return Reference(folder, config, model, int(written["dataset"]["max_trial_length"]), by_dimension)


def _config(written: Mapping[str, Any], tensors: Mapping[str | None, Tensor]) -> ModelConfig:
    model, data = written["model"], written["data_attrs"]
    tasks = model["task"]["tasks"]
    spikes, behavior, *_ = model["task"]["task_weights"]
    return ModelConfig(
        width=model["hidden_size"],
        layers=model["transformer"]["n_layers"],
        heads=model["transformer"]["n_heads"],
        mlp_width=tensors["blocks.0.mlp.down.weight"].shape[1],
        patch_channels=model["neurons_per_token"],
        count_classes=model["max_neuron_count"],
        layout="pretrain" if data["behavior_dim"] == 17 else "legacy-finetune",
        behavior_dim=data["behavior_dim"],
        max_channels=data["max_channel_count"],
        max_arrays=data["max_arrays"],
        positions=model["max_spatial_position"],
        constraints="constraints" in tasks,
        returns="return_context" in tasks,
        max_return=model["max_return"],
        dropout=0.0,
        spike_weight=spikes,
        behavior_weight=behavior,
        semantics="recompute",
    )


# ---- batches


def stored_batch(reference: Reference, arrays: Mapping[str, Array]) -> TokenBatch:
    """Tokens from a batch as the reference's loader collated it."""
    rows = [_stored_row(reference.config, arrays, b) for b in range(len(arrays["spikes"]))]
    return collate(rows, padding=reference.config.positions)


def _stored_row(config: ModelConfig, arrays: Mapping[str, Array], b: int) -> TokenRow:
    layout = config.layout_of

    def real(name: str, length: str) -> Array:
        found = arrays[name][b]
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
    for path in sorted(case.glob("raw_trial*.npz")):
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


# ---- comparison of one case


def compare_case(reference: Reference, case: Path) -> tuple[Errors, Errors, int]:
    """Largest absolute errors of a case, by what was compared; relative errors of gradients; comparisons made.

    Everything that the case holds is compared, computed from the stored batch and from the raw trials.
    """
    sources: dict[str, TokenBatch] = {}
    if (case / "batch.safetensors").exists():
        sources["batch"] = stored_batch(reference, _read(case / "batch.safetensors"))
    if any(case.glob("raw_trial*.npz")):
        sources["raw"] = raw_batch(reference, case)
    worst: Errors = {}
    grads: Errors = {}
    number = 0
    for batch in sources.values():
        for mode in MODES:
            if (case / f"{mode}.safetensors").exists():
                wanted = _read(case / f"{mode}.safetensors")
                number += _merge(worst, compare_mode(reference, batch, wanted, mode))
        if (case / "train_grads.safetensors").exists():
            number += _merge(grads, compare_gradients(reference, batch, _read(case / "train_grads.safetensors")))
        if (case / "predict.safetensors").exists():
            number += _merge(worst, compare_predictions(reference, batch, _read(case / "predict.safetensors")))
    if (case / "stream.safetensors").exists() and (case / "spikes.npz").exists():
        number += _merge(worst, compare_stream(reference, case))
    return worst, grads, number


def with_given(batch: TokenBatch, mode: str, wanted: Mapping[str, Array]) -> TokenBatch:
    """The batch with the behavior inputs of a mode: all, none, or those that the stored mask leaves."""
    given = np.full(len(batch.behavior_M), mode == "visible")
    if mode == "partial":
        B, T = batch.bin_BT.shape
        zeroed_BT = np.zeros((B, T + 1), bool)
        shown = wanted["kin_input_mask"][:, : T + 1]
        zeroed_BT[:, : shown.shape[1]] = shown
        row, place = np.divmod(batch.behavior_slot_M, T)
        given = ~zeroed_BT[row, place + 1]
    return replace(batch, given_M=given)


def compare_mode(reference: Reference, batch: TokenBatch, wanted: Mapping[str, Array], mode: str) -> Errors:
    """Errors of one way of giving behavior."""
    batch = with_given(batch, mode, wanted)
    pairs: list[tuple[Tensor, Tensor]] = []
    hooks = [
        block.register_forward_hook(lambda _module, _inputs, pair: pairs.append(pair))
        for block in reference.model.blocks
    ]
    with torch.no_grad():
        output = reference.model(batch)
        context = reference.model.context(on_device(batch, "cpu"), None)
        parts = losses(output, on_device(batch, "cpu"), reference.config)
    for hook in hooks:
        hook.remove()
    assert parts.spikes is not None
    assert parts.behavior is not None
    assert output.behavior is not None
    assert output.spike_logits is not None
    found = dict(_ids(batch, wanted))
    found |= _tokens("context", batch, wanted, "context", context)
    found |= _tokens("backbone_out", batch, wanted, "backbone_out", output.features)
    for i, (branch, residual) in enumerate(pairs):
        found |= _tokens("layers", batch, wanted, f"layer{i}.hidden", branch, so_far=found)
        found |= _tokens("layers", batch, wanted, f"layer{i}.residual", residual, so_far=found)
    found |= _embeddings(reference, batch, wanted)
    of_kin, of_spikes = _real(wanted, BEHAVIOR, "kin_pred"), _real(wanted, SPIKES, "spike_loss_mask")
    found["kin_pred"] = _gap(output.behavior, wanted["kin_pred"][of_kin])
    found["order"] = max(
        found["order"],
        _gap(batch.behavior_M, wanted["kin_target"][of_kin]),
        _gap(batch.known_M, wanted["kin_loss_mask"][of_kin]),
    )
    tensors = on_device(batch, "cpu")
    mask_SP = real_channels(tensors.counts_SP, tensors.channels_S)
    found["order"] = max(found["order"], _gap(mask_SP, wanted["spike_loss_mask"][of_spikes]))
    if "spike_logits" in wanted:
        found["spike_logits"] = _gap(output.spike_logits, wanted["spike_logits"][of_spikes])
    if "spike_loss_elem" in wanted:
        element_SP = spike_loss_elements(output.spike_logits, tensors.counts_SP)
        found["spike_loss_elem"] = _gap(
            element_SP * mask_SP, (wanted["spike_loss_elem"] * wanted["spike_loss_mask"])[of_spikes]
        )
    found["loss"] = max(
        _gap(parts.spikes, wanted["loss.spike_infill"]),
        _gap(parts.behavior, wanted["loss.kinematic_linear"]),
        _gap(parts.total, wanted["loss.total"]),
    )
    if "r2.val" in wanted:
        found["r2"] = _gap(_r2(reference, output.behavior.numpy(), batch), wanted["r2.val"])
    return found


def compare_gradients(reference: Reference, batch: TokenBatch, wanted: Mapping[str, Array]) -> Errors:
    """max |Δ| / (max |g| + 1e-4) of every parameter's gradient of the training loss; a missing one counts as zeros."""
    model = reference.model
    model.zero_grad()
    losses(model(batch), on_device(batch, "cpu"), reference.config).total.backward()  # type: ignore[no-untyped-call]
    gradients = {name: p.grad for name, p in model.named_parameters()}
    found = {}
    for key, array in wanted.items():
        gradient = gradients[str(reference_to_betz(key))]
        given = np.zeros_like(array) if gradient is None else gradient.numpy()
        found[key] = float(np.abs(given - array).max() / (np.abs(array).max() + 1e-4))
    model.zero_grad()
    return found


def compare_predictions(reference: Reference, batch: TokenBatch, wanted: Mapping[str, Array]) -> Errors:
    """Errors of the reference's batch prediction: all behavior masked, the last bin, and behavior shown at first."""

    def predict(prompt_bins: int) -> Array:
        # The reference zeroes an input by the bin of the token that reads it, the one after the behavior token.
        reader_M = np.append(batch.bin_BT.ravel(), 0)[batch.behavior_slot_M + 1]
        given = reader_M < prompt_bins
        with torch.no_grad():
            found = reference.model(replace(batch, given_M=given)).behavior
        assert found is not None
        return np.asarray(found.numpy())

    masked = predict(0)
    found = {"predict": 0.0}
    if "all.behavior_pred" in wanted:
        found["predict"] = max(found["predict"], _gap(masked, wanted["all.behavior_pred"]))
    if "last.behavior_pred" in wanted:
        last = wanted["last.behavior_pred"]
        found["predict"] = max(found["predict"], _gap(masked[-len(last) :], last))
    for key in (key for key in wanted if key.startswith("prompt")):
        bins = int(key.removeprefix("prompt").split(".")[0])
        found["predict"] = max(found["predict"], _gap(predict(bins), wanted[key]))
    return found


def compare_stream(reference: Reference, case: Path) -> Errors:
    """Errors of a stream of single bins: ``sliding`` against the reference's cache, ``recompute`` against its window."""
    with np.load(case / "spikes.npz") as file:
        counts_NC = file["spikes"]
    wanted = _read(case / "stream.safetensors")
    window = int(wanted["window.t_last"].max()) + 1 if "window.t_last" in wanted else len(wanted["full.pred"])
    found: Errors = {}
    for semantics, prefix in (("sliding", "kv"), ("recompute", "window")):
        if f"{prefix}.pred" in wanted:
            config = replace(reference.config, semantics=semantics, window=window, refresh_bins=0)
            said_NK = _stream(reference, config, counts_NC, wanted[f"{prefix}.pred"].shape[1])
            found[f"stream_{semantics}"] = _gap(said_NK, wanted[f"{prefix}.pred"])
    if "full.pred" in wanted:
        first = len(wanted["full.pred"])
        behavior = np.full((first, wanted["full.pred"].shape[1]), np.nan, np.float32)
        row = reference.config.tokenizer.row(Window((counts_NC[:first],), behavior=behavior))
        with torch.no_grad():
            said = reference.model(collate([row], padding=reference.config.positions)).behavior
        assert said is not None
        found["stream_full"] = _gap(said.view(first, -1), wanted["full.pred"])
    found["stream"] = max(found.values(), default=0.0)
    return found


def _stream(reference: Reference, config: ModelConfig, counts_NC: Array, dims: int) -> Array:
    from betz.decode.transformer import TransformerDecoder

    model = Transformer(config).eval()
    model.load_state_dict(reference.model.state_dict())
    names = tuple(f"d{k}" for k in range(dims))
    decoder = TransformerDecoder.make(
        model,
        bin_ms=config.bin_ms,
        channels=tuple(Channel(f"c{c}") for c in range(counts_NC.shape[1])),
        behavior=tuple(BehaviorDim(name, "1") for name in names),
        normalizer=Normalizer(names, ("1",) * dims, np.ones(dims)),
    )
    decoder.open()
    return np.concatenate([decoder.push(counts_C).values[0] for counts_C in counts_NC])


# ---- small things


def _read(path: Path) -> dict[str, Array]:
    from safetensors.numpy import load_file

    return dict(load_file(path))


def _merge(worst: Errors, found: Errors) -> int:
    for name, error in found.items():
        worst[name] = max(worst.get(name, 0.0), error)
    return len(found)


def _gap(found: Any, wanted: Array) -> float:
    """Largest absolute difference; infinite where shapes differ or a value is not finite."""
    given = found.detach().numpy() if isinstance(found, Tensor) else np.asarray(found)
    given, wanted = np.atleast_1d(given).astype(np.float64), np.atleast_1d(wanted).astype(np.float64)
    if given.shape != wanted.shape:
        return float("inf")
    gap = np.abs(given - wanted)
    return float("inf") if not np.isfinite(gap).all() else float(gap.max(initial=0.0))


def _real(wanted: Mapping[str, Array], kind: int, of: str) -> NDArray[np.bool_]:
    """Which entries of a modality's flat array are real: the first ones of each row."""
    number_B = ((wanted["modalities"] == kind) & ~wanted["padding"]).sum(axis=1)
    width = len(wanted[of]) // len(number_B)
    return np.asarray((np.arange(width) < number_B[:, None]).ravel())


def _ids(batch: TokenBatch, wanted: Mapping[str, Array]) -> Iterator[tuple[str, float]]:
    """``order``: 0 if bins, position ids, kinds and zeroed inputs of all real tokens are the reference's, else 1."""
    real_BT = ~wanted["padding"]
    lengths = np.array([d.stop - d.start for d in batch.documents])
    if not np.array_equal(lengths, real_BT.sum(axis=1)):
        yield "order", 1.0
        return
    T = batch.bin_BT.shape[1]
    same = all(
        np.array_equal(ours[batch.real_BT], wanted[theirs][:, :T][batch.real_BT])
        for ours, theirs in ((batch.bin_BT, "times"), (batch.position_BT, "space"), (batch.kind_BT, "modalities"))
    )
    zeroed = np.zeros(batch.bin_BT.size + 1, bool)
    zeroed[batch.behavior_slot_M[~batch.given_M] + 1] = True
    zeroed_BT = zeroed[:-1].reshape(batch.bin_BT.shape)
    zeroed_BT[:, 0] = False
    same &= np.array_equal(zeroed_BT[batch.real_BT], wanted["kin_input_mask"][:, :T][batch.real_BT])
    yield "order", 0.0 if same else 1.0


def _tokens(
    name: str, batch: TokenBatch, wanted: Mapping[str, Array], key: str, found: Tensor, so_far: Errors | None = None
) -> Errors:
    """Error over the real tokens, if the case stores this."""
    if key not in wanted:
        return {}
    T = found.shape[1]
    gap = _gap(found.numpy()[batch.real_BT], wanted[key][:, :T][batch.real_BT])
    return {name: max(gap, (so_far or {}).get(name, 0.0))}


def _embeddings(reference: Reference, batch: TokenBatch, wanted: Mapping[str, Array]) -> Errors:
    """Contents of the tokens of each kind before sorting."""
    names = {
        "embed.spike_infill": ("spike_slot_SL", SPIKES),
        "embed.kinematic_linear": ("behavior_slot_M", BEHAVIOR),
        "embed.constraints": ("constraint_slot_Q", CONSTRAINT),
        "embed.return_context": ("return_slot_R", RETURN),
    }
    with torch.no_grad():
        contents = reference.model.embed.contents(on_device(batch, "cpu"))
    found = 0.0
    for key, (slots, kind) in names.items():
        if key in wanted:
            D = wanted[key].shape[-1]
            flat = wanted[key].reshape(-1, D)
            real = _real({**wanted, "flat": flat}, kind, "flat")
            found = max(found, _gap(contents[slots].reshape(-1, D), flat[real]))
    return {"embed": found} if any(key in wanted for key in names) else {}


def _r2(reference: Reference, behavior_M: Array, batch: TokenBatch) -> float:
    """R² over all known values as one vector, or weighted by the variance of the dimensions, as the metric says."""
    target, said = batch.behavior_M[batch.known_M].astype(np.float64), behavior_M[batch.known_M].astype(np.float64)
    of_M = batch.position_BT.ravel()[batch.behavior_slot_M[batch.known_M]] if reference.by_dimension else 0 * target
    mean = sum(np.where(of_M == k, target[of_M == k].mean(), 0) for k in np.unique(of_M))
    return float(1 - np.square(target - said).sum() / np.square(target - mean).sum())


def cases_of(folders: Iterable[Path]) -> list[tuple[Path, Path]]:
    """(folder, case) of every case of the folders."""
    return [(folder, case) for folder in folders for case in sorted(folder.glob("case_*")) if case.is_dir()]


_: Callable[[Reference, Path], tuple[Errors, Errors, int]] = compare_case
