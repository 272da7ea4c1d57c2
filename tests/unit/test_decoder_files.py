"""Decoders on disk: what is damaged, newer or foreign is refused with a remedy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import betz
from betz.core.errors import CheckpointError
from betz.decode.decoder import MANIFEST, TENSORS
from tests.unit.test_wiener import BEHAVIOR, session


def edit(key: str, value: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest[key] = value
        (folder / MANIFEST).write_text(json.dumps(manifest))

    return change


def truncate(folder: Path) -> None:
    content = (folder / TENSORS).read_bytes()
    (folder / TENSORS).write_bytes(content[: len(content) // 2])


def flip(folder: Path) -> None:
    content = bytearray((folder / TENSORS).read_bytes())
    content[-9] ^= 1
    (folder / TENSORS).write_bytes(bytes(content))


def rename_channel(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["channels"][0]["id"] = "other"
    (folder / MANIFEST).write_text(json.dumps(manifest))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda f: (f / MANIFEST).unlink(), "this is no saved decoder"),
    "garbage": (lambda f: (f / MANIFEST).write_text("{"), "this is no saved decoder"),
    "a list": (lambda f: (f / MANIFEST).write_text("[]"), "this is no saved decoder"),
    "newer": (edit("version", 99), r"format version 99 is newer.*update betz"),
    "unknown kind": (edit("kind", "oracle"), r"unknown kind 'oracle'; known: wiener"),
    "no tensors": (lambda f: (f / TENSORS).unlink(), "tensors cannot be read"),
    "truncated": (truncate, "tensors cannot be read"),
    "one bit": (flip, "SHA-256 differs"),
    "config": (edit("config", {}), "the manifest does not fit"),
    "behavior": (edit("behavior", []), "the manifest does not fit"),
    "channels": (edit("channels", [{"id": "a"}]), "the manifest does not fit"),
    "channel renamed": (rename_channel, "the channel list was changed after saving"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_decoders_are_refused(name: str, tmp_path: Path) -> None:
    betz.Wiener(lags=3).calibrate(session(), behavior=BEHAVIOR).save(tmp_path)
    damage, message = DAMAGE[name]
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        betz.load(tmp_path)


def test_save_replaces_and_load_gives_the_same(tmp_path: Path) -> None:
    betz.Wiener(lags=3).calibrate(session(), behavior=BEHAVIOR[:1]).save(tmp_path)
    saved = betz.Wiener().calibrate(session(), behavior=BEHAVIOR)
    saved.save(tmp_path)
    loaded = betz.load(tmp_path)
    assert loaded.behavior == saved.behavior
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([MANIFEST, TENSORS])
    for decoder in (saved, loaded):
        decoder.open()
    x = np.arange(10)
    assert np.array_equal(saved.push(x).values, loaded.push(x).values)
