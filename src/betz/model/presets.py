"""What a Transformer is: its configuration, the named presets, and how many parameters each has."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from betz.core.config import frozen_config
from betz.core.errors import ConfigError

if TYPE_CHECKING:
    from betz.tokens.layout import Layout
    from betz.tokens.tokenizer import Tokenizer

REFERENCE_WEIGHTS = (1.0, 1.0)
"""Spike and behavior loss of the reference's main models."""
REWEIGHTED = (1.0, 10.0)
"""Spike and behavior loss of the reference's later runs."""

_SIZES = ("width", "layers", "heads", "mlp_width", "patch_channels", "unit_latents", "count_classes")
_POSITIVE = (*_SIZES, "behavior_dim", "max_channels", "max_arrays", "window")


@frozen_config
class ModelConfig:
    """Everything that decides what a Transformer computes; saved with its weights.

    Args:
        width: D, length of a token's vector; layers, heads: of the blocks; mlp_width: inner width of the gated MLP.
        attention_bias, mlp_bias: whether the linear maps have biases (some early reference checkpoints have none in
            the MLP).
        norm_gain: whether the LayerNorms before attention and MLP have a gain (the released models: no).
        qk_norm: whether queries and keys are normalised over the head.
        dropout: of the residual branches and of attention, in training.
        readin: ``patches`` of ``patch_channels`` channels a token (the reference), or ``units``: a few latents a bin
            that attend to all channels.
        unit_latents: tokens a bin of the ``units`` read-in.
        count_classes: rows of the count table; input counts are clipped one below, the spike head has one more class.
        layout: of the position ids: ``pretrain`` (fixed ids), ``legacy-finetune`` (ids move with ``behavior_dim``, as
            in the published fine-tuning) or ``wide`` (room for every patch of every array).
        behavior_dim: slots for behavior and constraint dimensions.
        max_channels: channels a session may have (``wide``: an array may have); max_arrays: arrays it may have.
        positions: rows of the position table without the padding row.
        constraints, returns: whether there are constraint tokens, and return tokens.
        constraint_start: whether constraint tokens have a common offset vector.
        max_return: largest index of a return.
        refresh_bins: constraint tokens and an absent return are repeated so many bins after they were given last, so
            that one is always inside the window; 0 = never (the reference).
        behavior_input: whether the model is trained on ``masked`` behavior inputs (the released models) or on ``given``
            ones; the latter is fed its own predictions when it streams.
        objective: ``joint``, ``spikes`` (neural only: no behavior tokens) or ``behavior`` (spikes are input only).
        behavior_head: ``mse``, or ``classes`` with HL-Gauss targets over [−1, 1].
        behavior_classes, class_sigma: number of classes, and width of a target in classes.
        return_head: whether returns are predicted too.
        sequence_classes: classes of the sequence head, blank included; 0 = none.
        spike_weight, behavior_weight, return_weight: of the losses.
        rotary: what rotates: the number of the bin (``bins``, the reference's checkpoints) or its time in units of
            ``bin_ms`` (``ms``: one model for any bin width; the same as ``bins`` at ``bin_ms``).
        rotary_base: of the rotary frequencies.
        bin_ms: width of the bins of ``rotary="bins"``, which fits no other; unit of rotary time of ``rotary="ms"``.
        window: W, bins a token can look back in each layer (``sliding``), or bins of a recomputed window.
        semantics: ``sliding``: attention over exactly W bins a layer, offline and streamed; ``recompute``: trained on
            cut windows, so the last W bins are computed anew for each bin.
    """

    width: int = 1024
    layers: int = 6
    heads: int = 8
    mlp_width: int = 1024
    attention_bias: bool = True
    mlp_bias: bool = True
    norm_gain: bool = False
    qk_norm: bool = True
    dropout: float = 0.1
    readin: Literal["patches", "units"] = "patches"
    patch_channels: int = 32
    unit_latents: int = 4
    count_classes: int = 21
    layout: Literal["pretrain", "legacy-finetune", "wide"] = "pretrain"
    behavior_dim: int = 17
    max_channels: int = 320
    max_arrays: int = 2
    positions: int = 48
    constraints: bool = True
    constraint_start: bool = False
    returns: bool = True
    max_return: int = 50
    refresh_bins: int = 0
    behavior_input: Literal["masked", "given"] = "masked"
    objective: Literal["joint", "spikes", "behavior"] = "joint"
    behavior_head: Literal["mse", "classes"] = "mse"
    behavior_classes: int = 512
    class_sigma: float = 0.75
    return_head: bool = False
    sequence_classes: int = 0
    spike_weight: float = REFERENCE_WEIGHTS[0]
    behavior_weight: float = REFERENCE_WEIGHTS[1]
    return_weight: float = 1.0
    rotary: Literal["bins", "ms"] = "bins"
    rotary_base: float = 10000.0
    bin_ms: float = 20.0
    window: int = 50
    semantics: Literal["sliding", "recompute"] = "sliding"

    def __post_init__(self) -> None:
        small = [name for name in _POSITIVE if getattr(self, name) < 1]
        if small:
            raise ConfigError(f"{', '.join(small)} must be at least 1.", where="ModelConfig")
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ConfigError(
                f"a width of {self.width} cannot be cut into {self.heads} heads of even width.",
                where="ModelConfig",
                remedy="choose a width that is a multiple of 2 · heads",
            )
        if self.readin == "patches" and self.width % self.patch_channels:
            raise ConfigError(
                f"a width of {self.width} cannot be shared by {self.patch_channels} channels.",
                where="ModelConfig",
                remedy="choose a width that is a multiple of patch_channels",
            )
        if self.count_classes > 255 or not 0 <= self.dropout < 1 or self.bin_ms <= 0 or self.max_return < 2:
            raise ConfigError(
                "count_classes ≤ 255, 0 ≤ dropout < 1, bin_ms > 0 and max_return ≥ 2 are needed.", where="ModelConfig"
            )
        if self.behavior_classes < 2 or self.class_sigma <= 0 or self.sequence_classes == 1:
            raise ConfigError(
                "behavior_classes ≥ 2, class_sigma > 0 and sequence_classes ≠ 1 are needed.", where="ModelConfig"
            )
        if self.refresh_bins < 0 or self.sequence_classes < 0:
            raise ConfigError("refresh_bins and sequence_classes cannot be negative.", where="ModelConfig")
        if self.return_head and not self.returns:
            raise ConfigError("return_head needs return tokens.", where="ModelConfig", remedy="set returns=True")
        if self.layout_of.end > self.positions:
            raise ConfigError(
                f"layout {self.layout!r} needs {self.layout_of.end} positions, the table has {self.positions}.",
                where="ModelConfig",
                remedy=f"set positions={self.layout_of.end}",
            )

    @property
    def layout_of(self) -> Layout:
        """The position ids."""
        from betz.tokens.layout import Layout

        patches = -(-self.max_channels // self.patch_channels)
        if self.layout == "wide":
            patches *= self.max_arrays
        slots = patches if self.readin == "patches" else self.unit_latents
        return Layout(name=self.layout, behavior_slots=self.behavior_dim, spike_slots=slots, padding=self.positions)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokeniser that belongs to the model."""
        from betz.tokens.tokenizer import Tokenizer

        return Tokenizer(
            layout=self.layout_of,
            patch_channels=self.patch_channels,
            latents=self.unit_latents if self.readin == "units" else 0,
            max_channels=self.max_channels,
            max_arrays=self.max_arrays,
            behavior=self.objective != "spikes",
            constraints=self.constraints,
            returns=self.returns,
            max_return=self.max_return,
            refresh_bins=self.refresh_bins,
        )


def mlp_width(width: int, *, factor: float = 1.0, multiple: int = 128) -> int:
    """Inner width of the reference's gated MLP: ``width · factor``, rounded up to a multiple of 128."""
    return -(-int(width * factor) // multiple) * multiple


def of_width(width: int, layers: int, heads: int) -> ModelConfig:
    """Betz's own model of this size: sliding window, rotary time in milliseconds.

    >>> of_width(64, 2, 2).mlp_width
    128
    """
    return ModelConfig(
        width=width,
        layers=layers,
        heads=heads,
        mlp_width=mlp_width(width),
        rotary="ms",
        semantics="sliding",
        window=50,
        refresh_bins=50,
    )


def as_reference(config: ModelConfig) -> ModelConfig:
    """The same model as the reference trains and runs it: rotary in bins, cut windows, nothing repeated."""
    return replace(config, rotary="bins", semantics="recompute", refresh_bins=0)


def _ablations(name: str, whole: ModelConfig) -> dict[str, ModelConfig]:
    """The reference's ablations of one model."""
    return {
        f"{name}-given": replace(whole, behavior_input="given"),
        f"{name}-classes": replace(whole, behavior_head="classes"),
        f"{name}-spikes": replace(whole, objective="spikes"),
        f"{name}-behavior": replace(whole, objective="behavior"),
        f"{name}-patch16": replace(whole, patch_channels=16, positions=58),
        f"{name}-no-constraints": replace(whole, constraints=False),
        f"{name}-reweighted": replace(whole, spike_weight=REWEIGHTED[0], behavior_weight=REWEIGHTED[1]),
    }


_SHAPES: dict[str, tuple[int, int, int]] = {
    "tiny": (64, 2, 2),
    "small": (320, 6, 5),
    "scratch": (512, 6, 8),
    "45m": (1024, 6, 8),
    "350m": (2048, 12, 16),
    "700m": (2048, 24, 16),
}
PRESETS: dict[str, ModelConfig] = {name: of_width(*size) for name, size in _SHAPES.items()}
"""Configurations by name; ``scratch`` is what the reference trains on one task alone."""
PRESETS |= _ablations("45m", PRESETS["45m"])


def preset(name: str) -> ModelConfig:
    """The configuration of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}.", where="presets", remedy=f"use one of {', '.join(PRESETS)}")
    return PRESETS[name]


def parameters(config: ModelConfig) -> int:
    """Number of parameters, counted without allocating any."""
    import torch

    from betz.model.transformer import Transformer

    with torch.device("meta"):
        return sum(p.numel() for p in Transformer(config).parameters())


def state_bytes(
    config: ModelConfig, *, channels: int = 96, dims: int = 2, max_push_bins: int = 1, value_bytes: int = 4
) -> int:
    """Bytes of the state of one streamed row: keys and values of the window, and what says which bin they belong to.

    A recomputed window keeps its counts alone.
    """
    if config.semantics == "recompute":
        return (config.window - 1) * (channels + 1)
    tokens = config.tokenizer.most_tokens(channels=(channels,), dims=dims)
    capacity = (config.window + max_push_bins - 1) * tokens + 1
    return capacity * (2 * config.layers * config.width * value_bytes + 16) + config.width * value_bytes + 9
