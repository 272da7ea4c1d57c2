"""Models on disk: the same after loading, replaced as a whole, and refused where anything does not fit."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from betz.core.errors import CheckpointError, ConfigError
from betz.model import checkpoint
from betz.model.checkpoint import MANIFEST, ModelCard, SavedModel, load_model, save_model
from betz.model.folder import seal
from betz.model.presets import ModelConfig, preset
from betz.model.transformer import Transformer
from betz.tokens.batch import collate
from betz.tokens.normalize import Normalizer
from betz.tokens.window import Window

CONFIG = replace(preset("tiny"), layers=1, width=32)
CARD = ModelCard(
    licence="CC-BY-4.0",
    hours=12.5,
    data_hash="0123abcd",
    metrics={"validate_r2": 0.1 + 0.2},
    notes=("trained for a test",),
)
NORMALIZER = Normalizer(("hand_vx", "hand_vy"), ("cm/s", "cm/s"), np.array([10.0, 1 / 3]))


def model(seed: int = 0, config: ModelConfig = CONFIG) -> Transformer:
    return Transformer(config, seed=seed)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    mine, other = a.state_dict(), b.state_dict()
    return list(mine) == list(other) and all(torch.equal(mine[k], other[k]) for k in mine)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "m", model(), card=CARD, normalizer=NORMALIZER)
    return tmp_path / "m"


def tensors_of(folder: Path) -> Path:
    return folder / json.loads((folder / MANIFEST).read_text())["tensors_file"]


def edit(folder: Path, **changes: Any) -> None:
    """Change the manifest as somebody would who knows how to seal it."""
    manifest = json.loads((folder / MANIFEST).read_text()) | changes
    (folder / MANIFEST).write_text(json.dumps(manifest | {"sha256": seal(manifest)}))


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors, with the right hash in the manifest."""
    import hashlib

    tensors = {k: v.clone() for k, v in load_file(tensors_of(folder)).items()}
    change(tensors)
    save_file(tensors, tensors_of(folder))
    edit(folder, tensors_sha256=hashlib.sha256(tensors_of(folder).read_bytes()).hexdigest())


def config_with(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / MANIFEST).read_text())["config"] | changes
        edit(folder, config={k: v for k, v in config.items() if v != "gone"})

    return change


# ---- what comes back


def test_a_model_comes_back_as_it_was(folder: Path) -> None:
    before = torch.get_rng_state()
    loaded = load_model(folder)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(loaded.model, model())
    assert loaded.config == CONFIG
    assert loaded.card == CARD
    assert loaded.card.metrics["validate_r2"] == 0.1 + 0.2
    assert loaded.normalizer is not None
    assert np.array_equal(loaded.normalizer.scale, NORMALIZER.scale)
    assert not loaded.model.training
    assert all(p.requires_grad for p in loaded.model.parameters())
    window = Window((np.ones((4, 40), np.uint8),), behavior=np.full((4, 2), np.nan, np.float32))
    batch = collate([CONFIG.tokenizer.row(window)], padding=CONFIG.positions)
    with torch.no_grad():
        assert torch.equal(loaded.model(batch).behavior, model().eval()(batch).behavior)


def test_weights_are_in_memory_of_their_own(folder: Path) -> None:
    loaded = load_model(folder)
    tensors_of(folder).write_bytes(bytes(tensors_of(folder).stat().st_size))
    assert same(loaded.model, model())


def test_the_manifest_explains_the_model_to_people(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    number = sum(p.numel() for p in model().parameters())
    assert manifest["title"] == f"NDT3 architecture, {number:,} parameters, 12.5 hours"
    assert (manifest["format"], manifest["version"], manifest["kind"]) == ("betz model", 1, "transformer")
    assert (manifest["parameters"], manifest["dtype"]) == (number, "float32")
    assert manifest["tokenizer"]["layout"]["name"] == "pretrain"
    assert manifest["normalizer"]["units"] == ["cm/s", "cm/s"]
    assert manifest["card"]["licence"] == "CC-BY-4.0"
    assert sorted(p.suffix for p in folder.iterdir()) == [".json", ".safetensors"]


def test_names_say_architecture_size_and_hours() -> None:
    untold = SavedModel(model(), "transformer", ModelCard(licence="CC0-1.0"))
    number = sum(p.numel() for p in model().parameters())
    assert untold.title == f"NDT3 architecture, {number:,} parameters, hours not stated"
    with pytest.raises(ConfigError, match=r"a model needs a licence.*name it"):
        ModelCard(licence=" ")


def test_half_precision_stays(tmp_path: Path) -> None:
    save_model(tmp_path, model().bfloat16(), card=CARD)
    found = load_model(tmp_path).model
    assert same(found, model().bfloat16())
    assert found.get_parameter("embed.start").dtype == torch.bfloat16
    mixed = model()
    mixed.heads.bfloat16()
    with pytest.raises(ConfigError, match=r"several dtypes \(bfloat16, float32\).*model\.to"):
        save_model(tmp_path, mixed, card=CARD)
    with pytest.raises(ConfigError, match=r"torch.nn.modules.linear:Linear is no class of models"):
        save_model(tmp_path, torch.nn.Linear(1, 1), card=CARD)


def test_saving_replaces_the_older_model(folder: Path) -> None:
    old = tensors_of(folder)
    save_model(folder, model(1), card=CARD)
    assert not old.exists()
    assert len(list(folder.iterdir())) == 2
    assert same(load_model(folder).model, model(1))
    save_model(folder, model(1), card=replace(CARD, hours=2.0))  # the same weights, another card
    assert load_model(folder).card.hours == 2.0


# ---- a crash while it is written


@pytest.mark.parametrize("call", ["replace", "fsync"])
@pytest.mark.parametrize("after", range(6))
def test_a_crash_leaves_the_old_or_the_new_model(
    call: str, after: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the write stops at; leftovers are gone after the next one."""
    real, seen = getattr(os, call), 0

    class CrashError(Exception):
        pass

    def crash(*arguments: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen > after:
            raise CrashError
        return real(*arguments)

    monkeypatch.setattr(os, call, crash)
    try:
        save_model(folder, model(1), card=CARD)
        crashed = False
    except CrashError:
        crashed = True
    monkeypatch.undo()
    loaded = load_model(folder).model
    assert same(loaded, model(0)) or same(loaded, model(1))
    assert same(loaded, model(1)) or crashed
    if after == 0:
        assert crashed
        assert same(loaded, model(0))
    save_model(folder, model(2), card=CARD)
    assert same(load_model(folder).model, model(2))
    assert len(list(folder.iterdir())) == 2


def test_a_full_disk_is_said_and_leaves_the_old_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"could not be written \(No space left on device\).*free space"):
        save_model(folder, model(1), card=CARD)
    monkeypatch.undo()
    assert same(load_model(folder).model, model(0))
    assert len(list(folder.iterdir())) == 2


def test_a_card_with_nan_is_refused_before_anything_is_written(folder: Path) -> None:
    for card in (replace(CARD, metrics={"r2": float("nan")}), replace(CARD, settings={"a": float("inf")})):
        with pytest.raises(ConfigError, match=r"cannot be saved as JSON.*leave out"):
            save_model(folder, model(1), card=card)
    assert same(load_model(folder).model, model(0))
    assert len(list(folder.iterdir())) == 2


# ---- what is refused


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(bytes(content))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda f: (f / MANIFEST).unlink(), "this is no saved model.*give a folder written by save_model"),
    "half a manifest": (lambda f: truncate(f / MANIFEST), "this is no saved model"),
    "a list": (lambda f: (f / MANIFEST).write_text("[]"), "this is no saved model"),
    "deep JSON": (lambda f: (f / MANIFEST).write_text("[" * 100_000), "this is no saved model"),
    "a decoder": (lambda f: edit(f, format="betz decoder"), "not a 'betz model'"),
    "a version that is none": (lambda f: edit(f, version="1"), "format version '1'"),
    "newer": (lambda f: edit(f, version=99), r"format version 99 is newer than this Betz reads \(1\)\..*update betz"),
    "edited": (
        lambda f: (f / MANIFEST).write_text((f / MANIFEST).read_text().replace("12.5", "13.5")),
        "the manifest was changed after it was written.*save the model again",
    ),
    "unknown kind": (lambda f: edit(f, kind="oracle"), "unknown kind 'oracle'; known: transformer.*update betz"),
    "no tensors": (lambda f: tensors_of(f).unlink(), "its tensors cannot be read"),
    "truncated": (lambda f: truncate(tensors_of(f)), r"its tensors cannot be read \(SHA-256 differs"),
    "one bit": (lambda f: flip(tensors_of(f)), "SHA-256 differs from the manifest.*copy the folder again"),
    "tensors elsewhere": (lambda f: edit(f, tensors_file="../x.safetensors"), r"names the file '\.\./x\.safetensors'"),
    "tensors of a number": (lambda f: edit(f, tensors_file=3), "names the file 3"),
    "no tensors at all": (lambda f: edit_tensors(f, lambda t: t.clear()), "the manifest does not fit.*1 layers have 0"),
    "a setting too many": (config_with(oracle=1), "does not fit.*oracle"),
    "a setting missing": (config_with(dropout="gone"), "does not fit.*the configuration is not complete"),
    "an impossible setting": (config_with(heads=0), "does not fit.*heads must be at least 1"),
    "a million layers": (config_with(layers=1_000_000), "does not fit.*1000000 layers have"),
    "another tokenizer": (config_with(refresh_bins=7), "the tokenizer is not the one of the configuration"),
    "another width": (
        config_with(mlp_width=256),
        r"up\.weight is \[256, 32\] instead of \[512, 32\]",
    ),
    "a dtype that is none": (lambda f: edit(f, dtype="float33"), "the manifest does not fit"),
    "no card": (lambda f: edit(f, card={}), "does not fit.*licence"),
    "a scale of zero": (
        lambda f: edit(f, normalizer=NORMALIZER.to_dict() | {"scale": [0, 1]}),
        "does not fit.*positive scale",
    ),
    "a weight missing": (lambda f: edit_tensors(f, lambda t: t.pop("embed.start")), r"embed\.start is missing"),
    "a weight too many": (
        lambda f: edit_tensors(f, lambda t: t.update(oracle=torch.ones(2))),
        "its weights do not fit its configuration: oracle is not known",
    ),
    "another shape": (
        lambda f: edit_tensors(f, lambda t: t.update({"embed.start": torch.ones(3)})),
        r"embed\.start is \[3\] instead of \[32\]",
    ),
    "another dtype": (
        lambda f: edit_tensors(f, lambda t: t.update({"embed.start": torch.ones(32, dtype=torch.float16)})),
        r"embed\.start is torch\.float16 instead of torch\.float32",
    ),
}


@pytest.mark.parametrize("which", DAMAGE)
def test_damaged_models_are_refused(which: str, folder: Path) -> None:
    damage, message = DAMAGE[which]
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)


def test_many_differences_are_counted(folder: Path) -> None:
    edit_tensors(folder, lambda t: t.update({f"x{i}": torch.ones(1) for i in range(20)}))
    with pytest.raises(CheckpointError, match=r"x0 is not known; .*\(and 12 more\)"):
        load_model(folder)


def test_a_preset_that_is_none() -> None:
    with pytest.raises(ConfigError, match=r"there is no preset 'huge'.*use one of tiny, small"):
        preset("huge")


# ---- versions


def test_older_models_are_brought_up_to_date(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def from_1(manifest: Any, tensors: Any) -> Any:
        """As if version 1 had called things differently."""
        return manifest | {"card": manifest["card"] | {"hours": 2.0}}, tensors | {
            "embed.start": -tensors["embed.start"]
        }

    def from_2(manifest: Any, tensors: Any) -> Any:
        assert manifest["card"]["hours"] == 2.0
        return manifest | {"card": manifest["card"] | {"hours": 3.0}}, tensors

    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", 3)
    monkeypatch.setattr(checkpoint, "MIGRATIONS", {1: from_1, 2: from_2})
    loaded = load_model(folder)
    assert loaded.card.hours == 3.0
    assert torch.equal(loaded.model.get_parameter("embed.start"), -model().embed.start)
    monkeypatch.setattr(checkpoint, "MIGRATIONS", {1: from_1})
    with pytest.raises(CheckpointError, match="format version 2 cannot be brought up to date"):
        load_model(folder)


# ---- sessions that do not fit


VELOCITY = (("hand_vx", "cm/s"), ("hand_vy", "cm/s"))
MISFITS: dict[str, tuple[ModelCard, dict[str, Any], str]] = {
    "fewer channels": (
        replace(CARD, channels=(96,)),
        {"channels": (64,)},
        "on 96 channels, the session has 64",
    ),
    "other arrays": (
        replace(CARD, channels=(96,)),
        {"channels": (48, 48)},
        r"has 48 \+ 48.*the same channels in",
    ),
    "too many channels": (CARD, {"channels": (321,)}, "at most 2 arrays of 320 channels, the session has 321"),
    "too many arrays": (
        CARD,
        {"channels": (9, 9, 9)},
        r"at most 2 arrays .* has 9 \+ 9 \+ 9\. Remedy",
    ),
    "colliding ids": (CARD, {"channels": (200, 200)}, "14 spike tokens a bin do not fit the 10 ids.*layout='wide'"),
    "another behavior": (
        CARD,
        {"channels": (96,), "behavior": (*VELOCITY, ("grip", "N"))},
        r"does not decode grip \(N\)\. Remedy: it decodes hand_vx \(cm/s\), hand_vy \(cm/s\)",
    ),
    "another unit": (CARD, {"channels": (96,), "behavior": (("hand_vx", "m/s"),)}, r"does not decode hand_vx \(m/s\)"),
    "too many dimensions": (
        CARD,
        {"channels": (96,), "behavior": [(f"d{i}", "") for i in range(18)]},
        "18 behavior dimensions do not fit the 17 ids",
    ),
}


@pytest.mark.parametrize("which", MISFITS)
def test_sessions_that_do_not_fit_are_refused(which: str, tmp_path: Path) -> None:
    card, session, message = MISFITS[which]
    save_model(tmp_path, model(), card=card, normalizer=NORMALIZER)
    loaded = load_model(tmp_path)
    loaded.check(channels=(96,), behavior=VELOCITY)
    loaded.check(channels=(96,), behavior=VELOCITY[1:])
    with pytest.raises(CheckpointError, match=message):
        loaded.check(**session)
