"""Parity with the reference: stored outputs of its code against Betz's Transformer with the same weights.

Only real tokens are compared: what stands in padding depends on how a sort breaks ties.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from betz.core.session import BehaviorDim, Channel
from betz.decode.transformer import TransformerDecoder
from betz.model.losses import losses, real_channels, spike_loss_elements
from betz.model.ndt3 import reference_to_betz
from betz.model.presets import ModelConfig
from betz.model.transformer import ModelOutput, Transformer, on_device
from betz.testing.reference import Reference, raw_batch, read_tensors, stored_batch
from betz.tokens.batch import BEHAVIOR, CONSTRAINT, RETURN, SPIKES, TokenBatch, collate
from betz.tokens.normalize import Normalizer
from betz.tokens.window import Told, Window

Array = NDArray[Any]
Errors = dict[str, float]
MODES = ("visible", "train", "partial", "eval")


def compare_case(reference: Reference, case: Path) -> tuple[Errors, Errors, int]:
    """Largest absolute errors of a case, by what was compared; relative errors of gradients; comparisons made.

    Everything that the case holds is compared, computed from the stored batch and from the raw trials.
    """
    sources: dict[str, TokenBatch] = {}
    if (case / "batch.safetensors").exists():
        sources["batch"] = stored_batch(reference, read_tensors(case / "batch.safetensors"))
    if any(case.glob("raw_trial*.npz")):
        sources["raw"] = raw_batch(reference, case)
    worst: Errors = {}
    grads: Errors = {}
    number = 0
    for batch in sources.values():
        for mode in MODES:
            if (case / f"{mode}.safetensors").exists():
                wanted = read_tensors(case / f"{mode}.safetensors")
                number += _merge(worst, compare_mode(reference, batch, wanted, mode))
        if (case / "train_grads.safetensors").exists():
            number += _merge(grads, compare_gradients(reference, batch, read_tensors(case / "train_grads.safetensors")))
        if (case / "predict.safetensors").exists():
            number += _merge(worst, compare_predictions(reference, batch, read_tensors(case / "predict.safetensors")))
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
    tensors = on_device(batch, "cpu")
    pairs: list[tuple[Tensor, Tensor]] = []
    hooks = [
        block.register_forward_hook(lambda _module, _inputs, pair: pairs.append(pair))
        for block in reference.model.blocks
    ]
    with torch.no_grad():
        output = reference.model(tensors)
        context = reference.model.context(tensors, None)
    for hook in hooks:
        hook.remove()
    found = {"order": _ids(batch, wanted)}
    _worsen(found, "context", _tokens(batch, wanted, "context", context))
    _worsen(found, "backbone_out", _tokens(batch, wanted, "backbone_out", output.features))
    for i, (branch, residual) in enumerate(pairs):
        _worsen(found, "layers", _tokens(batch, wanted, f"layer{i}.hidden", branch))
        _worsen(found, "layers", _tokens(batch, wanted, f"layer{i}.residual", residual))
    _embeddings(found, reference, batch, wanted)
    _heads(found, reference, tensors, wanted, output)
    if "r2.val" in wanted:
        found["r2"] = _gap(_r2(reference, output.behavior.numpy(), batch), wanted["r2.val"])
    return found


def _heads(
    found: Errors, reference: Reference, tensors: TokenBatch, wanted: Mapping[str, Array], output: ModelOutput
) -> None:
    """Predictions, targets, masks and losses."""
    of_kin, of_spikes = _real(wanted, BEHAVIOR, "kin_pred"), _real(wanted, SPIKES, "spike_loss_mask")
    mask_SP = real_channels(tensors.counts_SP, tensors.channels_S)
    _worsen(found, "kin_pred", _gap(output.behavior, wanted["kin_pred"][of_kin]))
    _worsen(found, "order", _gap(tensors.behavior_M, wanted["kin_target"][of_kin]))
    _worsen(found, "order", _gap(tensors.known_M, wanted["kin_loss_mask"][of_kin]))
    _worsen(found, "order", _gap(mask_SP, wanted["spike_loss_mask"][of_spikes]))
    assert output.spike_logits is not None
    if "spike_logits" in wanted:
        _worsen(found, "spike_logits", _gap(output.spike_logits, wanted["spike_logits"][of_spikes]))
    if "spike_loss_elem" in wanted:
        element_SP = spike_loss_elements(output.spike_logits, tensors.counts_SP) * mask_SP
        stored_SP = (wanted["spike_loss_elem"] * wanted["spike_loss_mask"])[of_spikes]
        _worsen(found, "spike_loss_elem", _gap(element_SP, stored_SP))
    parts = losses(output, tensors, reference.config)
    _worsen(found, "loss", _gap(parts.spikes, wanted["loss.spike_infill"]))
    _worsen(found, "loss", _gap(parts.behavior, wanted["loss.kinematic_linear"]))
    _worsen(found, "loss", _gap(parts.total, wanted["loss.total"]))


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
    """Errors of streams of single bins: ``sliding`` against the reference's cache, ``recompute`` against its window."""
    with np.load(case / "spikes.npz") as file:
        counts_NC = file["spikes"]
    wanted = read_tensors(case / "stream.safetensors")
    W = int(wanted["window.t_last"].max()) + 1 if "window.t_last" in wanted else len(wanted["full.pred"])
    found: Errors = {}
    sliding = replace(reference.config, semantics="sliding", window=W, refresh_bins=0)
    recompute = replace(reference.config, semantics="recompute", window=W, refresh_bins=0)
    for config, prefix in ((sliding, "kv"), (recompute, "window")):
        if f"{prefix}.pred" in wanted:
            dims = wanted[f"{prefix}.pred"].shape[1]
            said_NK = _decoded(reference, config, counts_NC, dims)
            found[f"stream_{config.semantics}"] = _gap(said_NK, wanted[f"{prefix}.pred"])
    if "kv.feat_last" in wanted:
        last_NTD = _streamed_features(reference, sliding, counts_NC, wanted)
        found["stream_features"] = _gap(last_NTD, wanted["kv.feat_last"])
    if "full.pred" in wanted:
        N, dims = wanted["full.pred"].shape
        with torch.no_grad():
            said = reference.model(_unknown(reference.config, counts_NC[:N], dims)).behavior
        found["stream_full"] = _gap(said.view(N, dims), wanted["full.pred"])
    found["stream"] = max(found.values(), default=0.0)
    return found


def _unknown(config: ModelConfig, counts_NC: Array, dims: int, *, first_bin: int = 0) -> TokenBatch:
    """Tokens of bins whose behavior is not known."""
    behavior = np.full((len(counts_NC), dims), np.nan, np.float32)
    told = Told(np.zeros((3, dims), np.float32), 0, first_bin, first_bin) if first_bin else None
    row = config.tokenizer.row(Window((counts_NC,), config.bin_ms, behavior, first_bin=first_bin), told=told)
    return collate([row], padding=config.positions)


def _streamed_features(
    reference: Reference, config: ModelConfig, counts_NC: Array, wanted: Mapping[str, Array]
) -> Array:
    """(N, T, D) features of the last tokens of each bin, from the state of the model itself."""
    _, tokens, _ = wanted["kv.feat_last"].shape
    model = _with(config, reference)
    state = model.open_state(1, max_push_bins=1)
    out = []
    for n, counts_C in enumerate(counts_NC):
        batch = _unknown(config, counts_C[None], wanted["kv.pred"].shape[1], first_bin=n)
        with torch.no_grad():
            out.append(model(batch, state=state).features[0, -tokens:].numpy())
    return np.stack(out)


def _with(config: ModelConfig, reference: Reference) -> Transformer:
    """A model of this configuration with the reference's weights."""
    model = Transformer(config).eval()
    model.load_state_dict(reference.model.state_dict())
    return model


def _decoded(reference: Reference, config: ModelConfig, counts_NC: Array, dims: int) -> Array:
    """(N, K) what a streaming decoder says, bin by bin."""
    names = tuple(f"d{k}" for k in range(dims))
    decoder = TransformerDecoder.make(
        _with(config, reference),
        bin_ms=config.bin_ms,
        channels=tuple(Channel(f"c{c}") for c in range(counts_NC.shape[1])),
        behavior=tuple(BehaviorDim(name, "1") for name in names),
        normalizer=Normalizer(names, ("1",) * dims, np.ones(dims)),
    )
    decoder.open()
    return np.concatenate([decoder.push(counts_C).values[0] for counts_C in counts_NC])


# ---- small things


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


def _worsen(found: Errors, name: str, gap: float | None) -> None:
    if gap is not None:
        found[name] = max(found.get(name, 0.0), gap)


def _ids(batch: TokenBatch, wanted: Mapping[str, Array]) -> float:
    """0 if bins, position ids, kinds and zeroed inputs of all real tokens are the reference's, else 1."""
    lengths = np.array([d.stop - d.start for d in batch.documents])
    if not np.array_equal(lengths, (~wanted["padding"]).sum(axis=1)):
        return 1.0
    T = batch.bin_BT.shape[1]
    zeroed = np.zeros(batch.bin_BT.size + 1, bool)
    zeroed[batch.behavior_slot_M[~batch.given_M] + 1] = True
    zeroed_BT = zeroed[:-1].reshape(batch.bin_BT.shape)
    zeroed_BT[:, 0] = False
    pairs = (
        (batch.bin_BT, "times"),
        (batch.position_BT, "space"),
        (batch.kind_BT, "modalities"),
        (zeroed_BT, "kin_input_mask"),
    )
    real_BT = batch.real_BT
    same = all(np.array_equal(ours[real_BT], wanted[theirs][:, :T][real_BT]) for ours, theirs in pairs)
    return 0.0 if same else 1.0


def _tokens(batch: TokenBatch, wanted: Mapping[str, Array], key: str, found: Tensor) -> float | None:
    """Error over the real tokens, if the case stores this."""
    if key not in wanted:
        return None
    return _gap(found.numpy()[batch.real_BT], wanted[key][:, : found.shape[1]][batch.real_BT])


def _embeddings(found: Errors, reference: Reference, batch: TokenBatch, wanted: Mapping[str, Array]) -> None:
    """Contents of the tokens of each kind before sorting."""
    names = {
        "embed.spike_infill": ("spike_slot_SL", SPIKES),
        "embed.kinematic_linear": ("behavior_slot_M", BEHAVIOR),
        "embed.constraints": ("constraint_slot_Q", CONSTRAINT),
        "embed.return_context": ("return_slot_R", RETURN),
    }
    with torch.no_grad():
        contents = reference.model.embed.contents(on_device(batch, "cpu"))
    for key, (slots, kind) in names.items():
        if key in wanted:
            flat = wanted[key].reshape(-1, wanted[key].shape[-1])
            real = _real({**wanted, key: flat}, kind, key)
            _worsen(found, "embed", _gap(contents[slots].flatten(0, -2), flat[real]))


def _r2(reference: Reference, behavior_M: Array, batch: TokenBatch) -> float:
    """R² over all known values as one vector, or weighted by the variance of the dimensions, as the metric says."""
    target, said = batch.behavior_M[batch.known_M].astype(np.float64), behavior_M[batch.known_M].astype(np.float64)
    of_M = batch.position_BT.ravel()[batch.behavior_slot_M[batch.known_M]] if reference.by_dimension else 0 * target
    mean = sum(np.where(of_M == k, target[of_M == k].mean(), 0) for k in np.unique(of_M))
    return float(1 - np.square(target - said).sum() / np.square(target - mean).sum())
