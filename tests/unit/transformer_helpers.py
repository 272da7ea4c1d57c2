"""Small windows, models and decoders of the Transformer's tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from betz.core.seeds import SeedTree
from betz.core.session import BehaviorDim, Channel
from betz.decode.transformer import TransformerDecoder
from betz.model.losses import losses
from betz.model.presets import ModelConfig, preset
from betz.model.transformer import Transformer, on_device
from betz.tokens.batch import TokenBatch, collate
from betz.tokens.normalize import Normalizer
from betz.tokens.window import Window

TINY = replace(preset("tiny"), window=4, refresh_bins=4)


def lively(config: ModelConfig, *, seed: int = 0, std: float = 0.15) -> Transformer:
    """A float64 model whose every weight matters, without dropout."""
    model = Transformer(config).double().eval()
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            draw = rng.normal(1.0 if "norm" in name else 0.0, std, tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(draw))
    return model


def window(
    bins: int, *, channels: Sequence[int] = (40, 10), dims: int = 2, seed: int = 0, rate: float = 2.0, **other: Any
) -> Window:
    """Poisson counts and behavior between −1 and 1."""
    rng = SeedTree(seed).generator("window")
    counts = tuple(rng.poisson(rate, (bins, c)).astype(np.uint8) for c in channels)
    behavior = rng.uniform(-1, 1, (bins, dims)).astype(np.float32)
    return Window(**({"counts": counts, "behavior": behavior} | other))


def cut(whole: Window, start: int, stop: int) -> Window:
    """Bins [start, stop) of a window, on its clock."""
    part: dict[str, Any] = {"counts": tuple(c[start:stop] for c in whole.counts)}
    for name in ("behavior", "known", "given", "constraint", "returns", "rewards", "present"):
        value = getattr(whole, name)
        part[name] = value if value is None else value[start:stop]
    return replace(whole, first_bin=whole.first_bin + start, **part)


def batch_of(config: ModelConfig, *windows: Window) -> TokenBatch:
    """One window a row."""
    return collate([config.tokenizer.row(w) for w in windows], padding=config.positions)


def decoder_of(
    model: Transformer, *, channels: Sequence[Channel] | None = None, bin_ms: float = 20.0, dims: int = 2, **other: Any
) -> TransformerDecoder:
    """A decoder of 50 channels in two arrays."""
    default = [Channel(f"a{c}", array="A") for c in range(40)] + [Channel(f"b{c}", array="B") for c in range(10)]
    names = tuple(f"hand_v{'xyz'[k]}" for k in range(dims))
    behavior = tuple(BehaviorDim(name, "cm/s") for name in names)
    if model.config.sequence_classes:
        symbols = ("", *"abcdefgh"[: model.config.sequence_classes - 1])
        behavior += (BehaviorDim("text", "", "discrete", symbols),)
    return TransformerDecoder.make(
        model,
        bin_ms=bin_ms,
        channels=tuple(channels or default),
        behavior=behavior,
        normalizer=Normalizer(names, ("cm/s",) * dims, np.arange(1, dims + 1) * 10.0),
        **other,
    )


def trained(config: ModelConfig, *, steps: int = 60, seed: int = 0) -> Transformer:
    """A float32 model after a few steps on counts that depend on a smooth velocity."""
    rng = SeedTree(seed).generator("training")
    smooth = [np.convolve(rng.normal(size=1500), np.ones(9), "same") for _ in range(2)]
    velocity = np.stack([v / np.abs(v).max() for v in smooth], axis=1).astype(np.float32)
    counts = rng.poisson(np.exp(velocity @ rng.normal(size=(2, 50)) * 2)).clip(0, 30).astype(np.uint8)
    model = Transformer(replace(config, dropout=0.0), seed=seed).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(steps):
        starts = rng.integers(0, len(counts) - 12, size=8)
        parts = [(counts[a : a + 12, :40], counts[a : a + 12, 40:]) for a in starts]
        windows = [Window(part, behavior=velocity[a : a + 12]) for part, a in zip(parts, starts, strict=True)]
        batch = on_device(batch_of(config, *windows), "cpu")
        optimizer.zero_grad()
        losses(model(batch), batch, config).total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()
