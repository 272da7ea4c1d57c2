"""Reference checkpoints become Betz models with the same weights, or are refused with the reason."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from betz.core.errors import CheckpointError
from betz.model.checkpoint import load_model
from betz.model.ndt3 import convert, inspect, reference_to_betz
from betz.tokens.batch import collate
from betz.tokens.window import Window
from tests.unit.ndt3_files import state_dict, write_checkpoint
from tests.unit.pickle_files import PROTO, call, checkpoint, mapping, name, text, write

State = dict[str, Any]
QKV = "backbone.layers.0.mixer.Wqkv"


def renamed(state: State, old: str, new: str) -> State:
    return {key.replace(old, new): value for key, value in state.items()}


def without(state: State, *parts: str) -> State:
    return {key: value for key, value in state.items() if not any(part in key for part in parts)}


def equal_weights(state: State, weights: State) -> None:
    """Every parameter of the reference is there bit for bit, and nothing else."""
    seen = set()
    for key, value in state.items():
        betz = reference_to_betz(key)
        if betz is not None:
            assert torch.equal(weights[betz], value), key
            seen.add(betz)
    assert seen == set(weights)


# ---- what is converted


def test_a_pretrained_model(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "val.ckpt")
    inventory, saved = convert(path, tmp_path / "out", licence="CC-BY-NC-4.0")
    loaded = load_model(tmp_path / "out")
    equal_weights(state_dict(), loaded.model.state_dict())
    equal_weights(state_dict(), saved.model.state_dict())
    config = loaded.config
    assert (config.width, config.layers, config.heads, config.mlp_width) == (64, 2, 2, 128)
    assert (config.layout, config.behavior_dim, config.positions, config.max_return) == ("pretrain", 17, 48, 50)
    assert (config.rotary, config.semantics, config.window, config.bin_ms) == ("bins", "recompute", 50, 20)
    assert (config.spike_weight, config.behavior_weight, config.dropout) == (1.0, 10.0, 0.2)
    assert config.behavior_input == "masked"
    assert config.constraints
    assert config.returns
    assert loaded.title == "NDT3 architecture, 136,043 parameters, converted from val.ckpt"
    assert inventory.parameters == 136_043
    assert loaded.card.licence == "CC-BY-NC-4.0"
    assert loaded.card.settings["epoch"] == 7
    assert "secret name" not in (tmp_path / "out" / "model.json").read_text()
    assert "predictions are relative" in loaded.card.notes[-1]


def test_a_fine_tuned_model_keeps_its_shifted_ids(tmp_path: Path) -> None:
    state = without(state_dict(), "constraints", "return_context")
    path = write_checkpoint(
        tmp_path / "x.ckpt", state, cfg={"task.tasks": ["spike_infill", "kinematic_linear"]}, attrs={"behavior_dim": 3}
    )
    inventory, saved = convert(path, tmp_path / "out", window_bins=30)
    equal_weights(state, saved.model.state_dict())
    layout = saved.config.layout_of
    assert (layout.name, layout.spikes, layout.return_, layout.behavior) == ("legacy-finetune", 4, 14, 15)
    assert saved.config.window == 30
    assert saved.config.behavior_weight == 10  # the list of weights is longer than that of the tasks
    assert any("3 behavior and 10 spike slots" in note for note in inventory.notes)
    assert "CC-BY-NC-4.0" in saved.card.licence


@pytest.mark.parametrize("size", [(1024, 6, 8), (2048, 12, 16)])
def test_key_lists_of_the_released_sizes_map_one_to_one(size: tuple[int, int, int]) -> None:
    from betz.model.presets import as_reference, of_width
    from betz.model.transformer import Transformer

    width, layers, heads = size
    with torch.device("meta"):
        wanted = {k: tuple(v.shape) for k, v in Transformer(as_reference(of_width(*size))).state_dict().items()}
    with torch.device("meta"):
        keys = {k: v for k, v in _shapes(width, layers, heads).items() if k != "_extra_state"}
    named = {reference_to_betz(k): shape for k, shape in keys.items()}
    assert len(named) == len(keys)  # one None, for the targets of the loss
    assert {k: v for k, v in named.items() if k is not None} == wanted


def _shapes(width: int, layers: int, heads: int) -> dict[str, tuple[int, ...]]:
    real = torch.randn
    try:  # shapes alone: the largest would need gigabytes
        torch.randn = lambda shape, **_: torch.empty(shape, device="meta")  # type: ignore[assignment]
        return {k: tuple(v.shape) for k, v in state_dict(width=width, layers=layers, heads=heads).items()
                if isinstance(v, torch.Tensor)}  # fmt: skip
    finally:
        torch.randn = real


VARIANTS: dict[str, tuple[Callable[[State], State], dict[str, Any], str]] = {
    "compiled": (lambda s: renamed(s, "backbone.", "backbone._orig_mod."), {}, r"21 names had the prefix '_orig_mod\."),
    "compiled as a whole": (lambda s: {f"_orig_mod.{k}": v for k, v in s.items()}, {}, "had the prefix"),
    "no biases in the MLP": (lambda s: without(s, "fc1.bias", "fc2.bias"), {"mlp_bias": False}, ""),
    "no attention biases": (lambda s: without(s, "Wqkv.bias", "out_proj.bias"), {"attention_bias": False}, ""),
    "some biases": (
        lambda s: without(s, "fc1.bias"),
        {"mlp_bias": True},
        r"Absent biases are zeros: blocks\.0\.mlp\.up\.bias, blocks\.1\.mlp\.up\.bias",
    ),
    "gains of the norms": (
        lambda s: s | {f"backbone.layers.{i}.norm{n}.weight": torch.rand(64) for i in (0, 1) for n in (1, 2)}
        | {"backbone.ln_f.weight": torch.rand(64)},
        {"norm_gain": True},
        "",
    ),
    "constraint start": (
        lambda s: s | {"task_pipelines.constraints.constraint_cls": torch.rand(64)},
        {"constraint_start": True},
        "",
    ),
    "no norms of queries": (lambda s: without(s, "q_norm", "k_norm"), {"qk_norm": False, "heads": 2}, ""),
    "spikes alone": (lambda s: without(s, "kinematic_linear"), {"objective": "spikes"}, ""),
    "behavior alone": (
        lambda s: renamed(without(s, "spike_infill.out", "poisson_map"), "spike_infill", "spike_context"),
        {"objective": "behavior"},
        "",
    ),
    "a sequence head": (
        lambda s: without(s, "kinematic_linear")
        | {"task_pipelines.seq_decoding.out.weight": torch.rand(32, 64),
           "task_pipelines.seq_decoding.out.bias": torch.rand(32)},
        {"sequence_classes": 32},
        "no reference output was there to compare",
    ),
}  # fmt: skip


@pytest.mark.parametrize("which", VARIANTS)
def test_variants_of_the_reference(which: str, tmp_path: Path) -> None:
    change, settings, note = VARIANTS[which]
    state = change(state_dict())
    inventory, saved = convert(write_checkpoint(tmp_path / "x.ckpt", state), tmp_path / "out")
    for setting, value in settings.items():
        assert getattr(saved.config, setting) == value
    assert any(re.search(note, n) for n in inventory.notes)
    weights = load_model(tmp_path / "out").model.state_dict()
    plain = {k.replace("_orig_mod.", ""): v for k, v in state.items()}
    missing = {k for k, v in weights.items() if which == "some biases" and k.endswith("mlp.up.bias") and not v.any()}
    assert len(missing) == (2 if which == "some biases" else 0)
    equal_weights(plain, {k: v for k, v in weights.items() if k not in missing})


def test_half_precision_is_converted_and_said(tmp_path: Path) -> None:
    state = state_dict()
    state[f"{QKV}.bias"] = state[f"{QKV}.bias"].bfloat16()
    inventory, saved = convert(write_checkpoint(tmp_path / "x.ckpt", state), tmp_path / "out")
    found = saved.model.get_parameter("blocks.0.attention.qkv.bias")
    assert found.dtype == torch.float32
    assert torch.equal(found, state[f"{QKV}.bias"].float())
    assert f"{QKV}.bias was converted from bfloat16 to float32." in inventory.notes


def adapted(rank: int = 4) -> tuple[State, torch.Tensor]:
    """A state dict with a low-rank adapter, and the weight that it stands for (alpha = 8)."""
    state = state_dict()
    down, up = torch.randn(rank, 64), torch.randn(192, rank)
    weight = state[f"{QKV}.weight"]
    new = renamed(state, f"{QKV}.", f"{QKV}.base_layer.")
    new |= {f"{QKV}.lora_A.default.weight": down, f"{QKV}.lora_B.default.weight": up}
    return new, (weight.double() + 8 / rank * up.double() @ down.double()).float()


def test_adapters_are_merged(tmp_path: Path) -> None:
    state, wanted = adapted()
    path = write_checkpoint(tmp_path / "x.ckpt", state, train={"lora_alpha": 8.0, "lora_rank": 4})
    inventory, saved = convert(path, tmp_path / "out")
    assert torch.equal(saved.model.get_parameter("blocks.0.attention.qkv.weight"), wanted)
    assert f"The adapter of {QKV}.weight (rank 4, alpha 8) was merged into it." in inventory.notes


def test_adapters_of_unknown_scale_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"scale \(lora_alpha\) that is not in the file: merge it before"):
        convert(write_checkpoint(tmp_path / "x.ckpt", adapted()[0]), tmp_path / "out")


def test_behavior_inputs_of_the_teacher_forced_ablation(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "x.ckpt", cfg={"kinematic_token_maskout_schedule": "constant"})
    assert inspect(path).config.behavior_input == "given"  # type: ignore[union-attr]
    more = {"kinematic_token_maskout_schedule": "constant", "kinematic_token_maskout": 0.5}
    assert inspect(write_checkpoint(path, cfg=more)).config.behavior_input == "masked"  # type: ignore[union-attr]


def test_settings_that_the_file_does_not_state_are_noted(tmp_path: Path) -> None:
    path = write_checkpoint(
        tmp_path / "x.ckpt", cfg={"causal": None, "transformer.dropout": None}, attrs={"max_arrays": None}
    )
    notes = " ".join(inspect(path).notes)
    assert "Not stated in the file, taken as in the released models: cfg.causal." in notes
    assert "cfg.transformer.dropout is not stated; 0.1 as in the released models." in notes
    assert "data_attrs.max_arrays is not stated; 2" in notes


# ---- what is refused


def with_(state: State, key: str, *shape: int) -> State:
    return state | {key: torch.zeros(shape)}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "classes of behavior": (
        {"state": renamed(state_dict(), "kinematic_linear", "kinematic_infill")},
        r"kinematic_infill\.inp\.weight \[64, 1\] has no place in Betz's model \(behavior is an embedding of classes",
    ),
    "biases of query norms": (
        {"state": with_(state_dict(), "backbone.layers.0.mixer.q_norm.bias", 32)},
        r"q_norm\.bias \[32\] has no place .*the norms of queries and keys have no biases",
    ),
    "biases of norms": (
        {"state": with_(state_dict(), "backbone.layers.0.norm1.bias", 64)},
        "the norms of the blocks have no biases",
    ),
    "an unknown tensor": (
        {"state": with_(state_dict(), "task_pipelines.oracle.weight", 3)},
        r"task_pipelines\.oracle\.weight \[3\] has no place in Betz's model \(not known\).*--inspect` lists all",
    ),
    "an unknown value": ({"state": state_dict() | {"counter": {"a": 1}}}, "counter is a dict, not a tensor"),
    "a key that is no text": ({"state": state_dict() | {3: torch.ones(1)}}, "a key of the state dict is a int"),
    "two of one name": (
        {"state": state_dict() | {"_orig_mod.start_of_sentence": torch.ones(64)}},
        "_orig_mod.start_of_sentence and start_of_sentence are both embed.start",
    ),
    "a missing tensor": ({"state": without(state_dict(), "start_of")}, "there is no tensor for embed.start"),
    "a missing weight": (
        {"state": without(state_dict(), "layers.1.mlp.fc2.weight")},
        r"blocks\.1\.mlp\.down\.weight is missing",
    ),
    "no head": (
        {"state": without(state_dict(), "spike_infill.out", "kinematic_linear")},
        "there is no head: neither spikes, behavior nor a sequence",
    ),
    "a missing layer": ({"state": without(state_dict(layers=3), "layers.1.")}, r"the layers are numbered \[0, 2\]"),
    "another shape": (
        {"state": with_(state_dict(), "backbone.layers.1.mixer.out_proj.weight", 64, 32)},
        r"blocks\.1\.attention\.out\.weight is \[64, 32\] instead of \[64, 64\]",
    ),
    "axes": ({"state": with_(state_dict(), "start_of_sentence", 8, 8)}, r"embed\.start is \[8, 8\]; 1 axes"),
    "nothing in it": (
        {"state": with_(state_dict(), "start_of_sentence", 0)},
        r"start is \[0\]; 1 axes that are",
    ),
    "whole numbers": (
        {"state": state_dict() | {"start_of_sentence": torch.ones(64, dtype=torch.int64)}},
        "start_of_sentence has int64 values; weights are floating-point numbers",
    ),
    "NaN": (
        {"state": state_dict() | {"start_of_sentence": torch.full((64,), float("nan"))}},
        "start_of_sentence has NaN or infinite values.*take an earlier checkpoint",
    ),
    "an adapter without weight": (
        {"state": with_(state_dict(), "backbone.layers.9.mixer.Wqkv.lora_A.default.weight", 4, 64)},
        "has no weight, or is not one pair of matrices",
    ),
    "an adapter of other shape": (
        {"state": adapted()[0] | {f"{QKV}.lora_B.default.weight": torch.zeros(64, 4)}, "train": {"lora_alpha": 8}},
        r"the adapter of .*Wqkv\.weight is \[64, 4\] · \[4, 64\] for \[192, 64\]",
    ),
    "another activation": ({"cfg": {"transformer.activation": "gelu"}}, "activation is 'gelu'; Betz's model computes"),
    "no rotary": (
        {"cfg": {"transformer.rotary_position": False}},
        "rotary_position is False; Betz's model",
    ),
    "post-norm": ({"cfg": {"transformer.pre_norm": False}}, "pre_norm is False"),
    "another loss": ({"cfg": {"task.spike_loss": "poisson"}}, "spike_loss is 'poisson'"),
    "another pooling": (
        {"state": VARIANTS["a sequence head"][0](state_dict()), "cfg": {"task.decode_time_pool": "max"}},
        "decode_time_pool is 'max'",
    ),
    "contradicting heads": ({"cfg": {"transformer.n_heads": 4}}, "n_heads is 4, but the tensors have 2"),
    "contradicting layers": ({"cfg": {"transformer.n_layers": 6}}, "n_layers is 6, but the tensors have 2"),
    "contradicting patches": ({"cfg": {"neurons_per_token": 16}}, "neurons_per_token is 16, but the tensors have 32"),
    "no behavior slots": ({"attrs": {"behavior_dim": None}}, "data_attrs.behavior_dim is missing; a number is needed"),
    "behavior slots that are none": ({"attrs": {"behavior_dim": "x"}}, "behavior_dim is 'x'; a number is needed"),
    "too many behavior slots": ({"attrs": {"behavior_dim": 19}}, "needs 50 positions, the table has 48"),
    "no heads stated": (
        {"state": without(state_dict(), "q_norm", "k_norm"), "cfg": {"transformer.n_heads": None}},
        "the number of heads is in neither tensors nor hyper-parameters",
    ),
}


@pytest.mark.parametrize("which", REFUSED)
def test_what_betz_cannot_represent_is_refused(which: str, tmp_path: Path) -> None:
    how, message = REFUSED[which]
    path = write_checkpoint(tmp_path / "x.ckpt", **how)
    with pytest.raises(CheckpointError, match=message):
        convert(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    if which != "NaN":
        inventory = inspect(path)
        assert not inventory.convertible
        assert inventory.problems
        json.dumps(inventory.to_dict())


def test_inspection_lists_everything_instead_of_stopping_at_the_first(tmp_path: Path) -> None:
    state = without(state_dict(), "layers.1.mlp.fc2.weight") | {"oracle": torch.ones(2), "odd": 3}
    state |= {"task_pipelines.kinematic_infill.out.weight": torch.ones(512, 64)}
    path = write_checkpoint(tmp_path / "x.ckpt", state, cfg={"causal": False, "transformer.activation": "gelu"})
    inventory = inspect(path)
    said = " ".join(inventory.problems)
    for part in (
        "oracle [2]",
        "odd is a int",
        "kinematic_infill",
        "cfg.causal",
        "activation",
        "down.weight is missing",
    ):
        assert part in said
    assert [entry.key for entry in inventory.entries] == list(state)
    by_key = {entry.key: entry for entry in inventory.entries}
    assert by_key["oracle"].remark == "not known"
    assert by_key[f"{QKV}.weight"].betz == "blocks.0.attention.qkv.weight"
    assert by_key[f"{QKV}.weight"].shape == (192, 64)
    assert inventory.settings["cfg"]["task"]["tasks"][0] == "spike_infill"
    assert inventory.names["context_general_bci.config.config_base.ModelTask"] == 1
    assert "context" not in inventory.settings["data_attrs"]
    with pytest.raises(CheckpointError, match=r"and \d+ more"):
        convert(write_checkpoint(path, state | {f"x{i}": torch.ones(1) for i in range(9)}), tmp_path / "out")


def test_a_malicious_checkpoint_can_be_inspected_and_is_never_converted(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = write(tmp_path / "x.ckpt", checkpoint(call(name("os.system"), text(f"touch {marker}"))))
    inventory = inspect(path)
    assert inventory.refused == ("os.system",)
    assert not inventory.convertible
    with pytest.raises(CheckpointError, match=r"its pickle names os\.system, which no NDT3 checkpoint needs"):
        convert(path, tmp_path / "out")
    assert not marker.exists()
    assert not (tmp_path / "out").exists()


def test_files_without_a_state_dict_are_refused(tmp_path: Path) -> None:
    torch.save({"weights": torch.ones(1)}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"no Lightning checkpoint \(it has no state_dict\)"):
        convert(tmp_path / "a.ckpt", tmp_path / "out")
    write(tmp_path / "b.ckpt", PROTO + mapping({"state_dict": text("x")}) + b".")
    with pytest.raises(CheckpointError, match="no Lightning checkpoint"):
        inspect(tmp_path / "b.ckpt")


def test_keys_that_would_steer_a_terminal_are_shown_as_text(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "x.ckpt", state_dict() | {"\x1b[2Jgone": torch.ones(1)})
    assert any(r"'\x1b[2Jgone' [1] has no place" in problem for problem in inspect(path).problems)


def test_unknown_keys_are_never_guessed() -> None:
    assert reference_to_betz("_extra_state") is None
    assert reference_to_betz("task_pipelines.spike_infill.loss.poisson_map") is None
    for key in ("start_of_sentence.weight", "backbone.layers.x.mlp.fc1.bias", "xbackbone.space_encoder.weight", ""):
        with pytest.raises(KeyError):
            reference_to_betz(key)


# ---- the reference's own files


@pytest.fixture(scope="module")
def golden() -> Path:
    folder = os.environ.get("BETZ_GOLDEN")
    if not folder:
        pytest.skip("BETZ_GOLDEN is not set: tests against the reference's outputs are skipped")
    return Path(folder)


@pytest.mark.parametrize(("which", "parameters"), [("tiny_pretrain", 136_043), ("tiny_tune", 132_395)])
def test_the_reference_s_checkpoints_have_its_weights(
    which: str, parameters: int, golden: Path, tmp_path: Path
) -> None:
    inventory, _ = convert(golden / "ckpt" / f"{which}.ckpt", tmp_path)
    loaded = load_model(tmp_path)
    equal_weights(load_file(golden / which / "weights.safetensors"), loaded.model.state_dict())
    assert inventory.parameters == parameters
    assert not inventory.refused
    assert len(inventory.names) == 57
    said = json.loads((golden / which / "config.json").read_text())
    assert inventory.settings["cfg"] == said["model"]
    assert loaded.config.behavior_dim == said["data_attrs"]["behavior_dim"]


def test_a_converted_checkpoint_decodes_as_the_reference(golden: Path, tmp_path: Path) -> None:
    _, saved = convert(golden / "ckpt" / "tiny_pretrain.ckpt", tmp_path)
    case = golden / "tiny_pretrain" / "case_i"
    raw, wanted = np.load(case / "raw_trial0.npz"), load_file(case / "eval.safetensors")
    returns, rewards = raw["task_return"][:, 0], raw["task_reward"][:, 0]
    window = Window((raw["spikes_0"],), behavior=raw["bhvr_vel"], returns=returns, rewards=rewards)
    config = saved.config
    with torch.no_grad():
        found = saved.model(collate([config.tokenizer.row(window)], padding=config.positions))
    assert found.behavior.sub(wanted["kin_pred"]).abs().max() < 2e-6
    assert found.features.sub(wanted["backbone_out"]).abs().max() < 2e-6


def test_a_converted_checkpoint_streams_the_reference_s_predictions(golden: Path, tmp_path: Path) -> None:
    _, saved = convert(golden / "ckpt" / "tiny_tune.ckpt", tmp_path)
    counts = np.load(golden / "tiny_tune" / "case_iv_stream" / "spikes.npz")
    wanted = load_file(golden / "tiny_tune" / "case_iv_stream" / "stream.safetensors")["window.pred"]
    counts_NC = counts[counts.files[0]].reshape(60, 96)
    model, tokenizer = load_model(tmp_path).model, saved.config.tokenizer
    for now in (0, 7, 30, 49, 50, 59):
        part = counts_NC[max(0, now - 49) : now + 1]
        window = Window((part,), behavior=np.full((len(part), 2), np.nan, np.float32))
        with torch.no_grad():
            found = model(collate([tokenizer.row(window)], padding=saved.config.positions)).behavior[-2:]
        assert found.sub(wanted[now]).abs().max() < 1e-3, now
