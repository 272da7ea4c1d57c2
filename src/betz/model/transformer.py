"""The Transformer: NDT3's architecture, one causal sequence of spikes, behavior, constraints and return.

What it computes, and in which order, is the reference's (see docs/background/transformer.md). The parts that look odd
are its: the backbone's output is the last block's MLP branch alone, without the residual and without a norm; the
input of a token is the content of the token before it with the position of the token itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from betz.core.errors import ConfigError
from betz.core.seeds import SeedTree
from betz.model.losses import class_mean
from betz.model.presets import ModelConfig
from betz.model.readin import READINS
from betz.model.sequence import SequenceHead, pool_bins
from betz.model.state import StreamState, WholeWindow
from betz.tokens.batch import FIELDS, TokenBatch

EPS = 1e-5
HEADS = ("spikes", "behavior", "return_", "sequence")


@dataclass(frozen=True, eq=False)
class ModelOutput:
    """What the heads say; None where the model has no such head or it was not asked for.

    Args:
        features: (B, T, D) output of the backbone.
        spike_logits: (S, V, P) for each group of spikes of the batch.
        behavior: (M,) normalised prediction for each behavior token.
        behavior_logits: (M, V) of the classes, if the head has classes.
        return_logits: (R, V) for each return token.
        sequence_logits: (B, N, V) for each bin.
    """

    features: Tensor
    spike_logits: Tensor | None = None
    behavior: Tensor | None = None
    behavior_logits: Tensor | None = None
    return_logits: Tensor | None = None
    sequence_logits: Tensor | None = None


class Memory(Protocol):
    """What the tokens can look back on: :class:`WholeWindow` or :class:`StreamState`."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
        """Attention of one layer."""
        ...


def on_device(batch: TokenBatch, device: torch.device | str) -> TokenBatch:
    """The batch as tensors on a device."""
    tensors: dict[str, Any] = {name: torch.as_tensor(getattr(batch, name)).to(device) for name in FIELDS}
    return replace(batch, **tensors)


# ---- embeddings


class Embeddings(nn.Module):
    """Content of each kind of token, and the vectors of positions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D = config.width
        self.counts = READINS[config.readin][0](config)
        self.position = nn.Embedding(config.positions + 1, D, padding_idx=config.positions)
        self.start = nn.Parameter(torch.empty(D))
        if config.objective != "spikes":
            self.behavior = nn.Linear(1, D)
        if config.constraints:
            self.constraint = nn.Parameter(torch.empty(3, D))
        if config.constraint_start:
            self.constraint_start = nn.Parameter(torch.empty(D))
        if config.returns:
            self.return_ = nn.Embedding(config.max_return + 1, D, padding_idx=0)
            self.reward = nn.Embedding(3, D, padding_idx=0)

    def forward(self, batch: TokenBatch) -> Tensor:
        """(B, T, D) content of each token; zeros for padding and for behavior that is not given."""
        B, T = batch.bin_BT.shape
        flat = self.start.new_zeros(B * T, len(self.start))
        for slots, vectors in self.contents(batch).items():
            slot = getattr(batch, slots).flatten()
            flat = flat.index_copy(0, slot, vectors.reshape(len(slot), -1).to(flat.dtype))
        return flat.view(B, T, -1)

    def contents(self, batch: TokenBatch) -> dict[str, Tensor]:
        """Vectors of each kind of token that the batch has, by the name of its slots."""
        found: dict[str, Tensor] = {}
        if len(batch.counts_SP):
            found["spike_slot_SL"] = self.counts(batch.counts_SP, batch.channels_S)
        if len(batch.behavior_M):
            found["behavior_slot_M"] = torch.where(batch.given_M[:, None], self.of_behavior(batch.behavior_M), 0)
        if len(batch.constraint_Q3):
            found["constraint_slot_Q"] = self.of_constraint(batch.constraint_Q3)
        if len(batch.return_R):
            found["return_slot_R"] = self.return_(batch.return_R) + self.reward(batch.reward_R)
        return found

    def of_behavior(self, value_M: Tensor) -> Tensor:
        """(M, D) of normalised values."""
        weight = self.behavior.weight
        return value_M[:, None].to(weight.dtype) * weight[:, 0] + self.behavior.bias

    def of_constraint(self, constraint_Q3: Tensor) -> Tensor:
        """(Q, D)."""
        found = constraint_Q3.to(self.constraint.dtype) @ self.constraint
        return found + self.constraint_start if hasattr(self, "constraint_start") else found


# ---- block


def rotary_angles(time_BT: Tensor, head_width: int, base: float) -> Tensor:
    """(B, T, head width / 2) float64 angles: in float32 they would drift by 0.05 after eight hours of 20 ms bins."""
    pair = torch.arange(0, head_width, 2, dtype=torch.float64, device=time_BT.device) / head_width
    return time_BT.double()[..., None] / base**pair


def rotate(x_BHTd: Tensor, cos_B1Tf: Tensor, sin_B1Tf: Tensor) -> Tensor:
    """Rotate the first half of a head against its second half."""
    first, second = x_BHTd.chunk(2, dim=-1)
    return torch.cat((first * cos_B1Tf - second * sin_B1Tf, second * cos_B1Tf + first * sin_B1Tf), dim=-1)


class Attention(nn.Module):
    """Causal self-attention with normalised queries and keys and rotary time."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        D, head_width = config.width, config.width // config.heads
        self.layer, self.heads, self.dropout = layer, config.heads, config.dropout
        self.qkv = nn.Linear(D, 3 * D, bias=config.attention_bias)
        self.out = nn.Linear(D, D, bias=config.attention_bias)
        norm: Callable[[], nn.Module] = (
            (lambda: nn.LayerNorm(head_width, eps=EPS, bias=False)) if config.qk_norm else nn.Identity
        )
        self.q_norm, self.k_norm = norm(), norm()

    def forward(self, x_BTD: Tensor, cos_B1Tf: Tensor, sin_B1Tf: Tensor, memory: Memory) -> Tensor:
        """(B, T, D)."""
        query, key, value = self.qkv(x_BTD).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key = self.q_norm(query).to(value.dtype), self.k_norm(key).to(value.dtype)
        query, key = rotate(query, cos_B1Tf, sin_B1Tf), rotate(key, cos_B1Tf, sin_B1Tf)
        found = memory.attend(self.layer, query, key, value, self.dropout if self.training else 0.0)
        mixed: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return mixed


class MLP(nn.Module):
    """Gated by SiLU: the first half of ``up`` is the value, the second the gate."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.width, 2 * config.mlp_width, bias=config.mlp_bias)
        self.down = nn.Linear(config.mlp_width, config.width, bias=config.mlp_bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D)."""
        value, gate = self.up(x_BTD).chunk(2, dim=-1)
        found: Tensor = self.down(value * functional.silu(gate))
        return found


class Block(nn.Module):
    """Pre-norm attention and MLP; passes on a branch and the residual it has not yet been added to."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width, EPS, elementwise_affine=config.norm_gain, bias=False)
        self.attention = Attention(config, layer)
        self.mlp_norm = nn.LayerNorm(config.width, EPS, elementwise_affine=config.norm_gain, bias=False)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, branch: Tensor, residual: Tensor | None, cos: Tensor, sin: Tensor, memory: Memory
    ) -> tuple[Tensor, Tensor]:
        """Branch and residual, each (B, T, D)."""
        dropped = self.dropout(branch)
        residual = dropped if residual is None else residual + dropped
        branch = self.attention(self.attention_norm(residual), cos, sin, memory)
        residual = residual + self.dropout(branch)
        return self.mlp(self.mlp_norm(residual)), residual


# ---- the model


class Transformer(nn.Module):
    """One forward for a whole window and for a push of a stream: without a state, and with one.

    Args:
        config: what it is.
        seed: of the initial weights.
    """

    def __init__(self, config: ModelConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.embed = Embeddings(config)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.heads = nn.ModuleDict(_heads(config))
        self.initialize(seed)

    def forward(
        self, batch: TokenBatch, *, state: StreamState | None = None, heads: Collection[str] = HEADS
    ) -> ModelOutput:
        """Features and what the heads say of them.

        Args:
            batch: windows, numpy or on the model's device; with a state, the tokens of the next bins of each row.
            state: of :meth:`open_state`, updated in place; None: each window is looked at as a whole.
            heads: which of the model's heads are wanted.

        Raises:
            StreamError: the batch does not fit the state.
        """
        batch = on_device(batch, self.embed.start.device)
        with torch.set_grad_enabled(torch.is_grad_enabled() and state is None):  # a stream learns nothing
            memory: Memory
            if state is None:
                memory = WholeWindow(batch, self.config.window if self.config.semantics == "sliding" else None)
            else:
                state.begin(batch)
                memory = state
            x_BTD = self.context(batch, state) + self.embed.position(batch.position_BT)
            return self.read_out(self.backbone(x_BTD, batch, memory), batch, heads)

    def context(self, batch: TokenBatch, state: StreamState | None) -> Tensor:
        """(B, T, D) content of the token before each token; the start vector before the first."""
        content_BTD: Tensor = self.embed(batch)
        if state is not None:
            return state.shift(content_BTD, batch)
        before_BTD = content_BTD.roll(1, dims=1)
        first = [(d.row, d.start) for d in batch.documents]
        rows, places = zip(*first, strict=True)
        before_BTD[list(rows), list(places)] = self.embed.start.to(before_BTD.dtype)
        return before_BTD

    def backbone(self, x_BTD: Tensor, batch: TokenBatch, memory: Memory) -> Tensor:
        """(B, T, D) MLP branch of the last block: the reference adds neither the residual nor a norm."""
        config = self.config
        time_BT = batch.bin_BT.double()
        if config.rotary == "ms":
            time_BT = time_BT * (batch.bin_ms_BT / config.bin_ms)
        angles = rotary_angles(time_BT, config.width // config.heads, config.rotary_base)
        device = x_BTD.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x_BTD.dtype
        cos, sin = angles.cos().to(dtype)[:, None], angles.sin().to(dtype)[:, None]
        branch, residual = x_BTD, None
        for block in self.blocks:
            branch, residual = block(branch, residual, cos, sin, memory)
        return branch

    def read_out(self, features: Tensor, batch: TokenBatch, heads: Collection[str]) -> ModelOutput:
        """What the heads say of features (B, T, D)."""
        flat = features.flatten(0, 1)
        has = {name: head for name, head in self.heads.items() if name in heads}
        found: dict[str, Any] = {}
        if "spikes" in has:
            found["spike_logits"] = has["spikes"](flat[batch.spike_slot_SL], batch.counts_SP.shape[1])
        if "behavior" in has:
            said = has["behavior"](flat[batch.behavior_slot_M])
            classes = self.config.behavior_head == "classes"
            found |= {"behavior_logits": said, "behavior": class_mean(said)} if classes else {"behavior": said[:, 0]}
        if "return_" in has:
            found["return_logits"] = has["return_"](flat[batch.return_slot_R])
        if "sequence" in has:
            found["sequence_logits"] = has["sequence"](self._bins(features, batch))
        return ModelOutput(features, **found)

    def _bins(self, features: Tensor, batch: TokenBatch) -> Tensor:
        """(B, N, D) mean feature of each bin."""
        if batch.packed:
            raise ConfigError("the sequence head does not read packed rows.", remedy="give one window a row")
        first_B = torch.tensor([d.first_bin for d in batch.documents], device=features.device)
        bin_BT = torch.where(batch.real_BT, batch.bin_BT - first_B[:, None], -1)
        return pool_bins(features, bin_BT, max(d.num_bins for d in batch.documents))

    def open_state(self, rows: int, *, max_push_bins: int, tokens_per_bin: int | None = None) -> StreamState:
        """A state for streams that start anew.

        Args:
            rows: B.
            max_push_bins: most bins of a push.
            tokens_per_bin: most tokens a bin can have (``tokenizer.most_tokens``); None: of the fullest layout.

        Raises:
            ConfigError: the model was trained on cut windows, which are computed anew for every bin.
        """
        config = self.config
        if config.semantics != "sliding":
            raise ConfigError(
                "a model with semantics='recompute' keeps no keys: they would have seen bins beyond its window.",
                where="open_state",
                remedy="stream it through TransformerDecoder, or set semantics='sliding' and accept other numbers",
            )
        layout = config.layout_of
        most = layout.spike_slots + layout.behavior_slots * (1 + config.constraints) + config.returns
        return StreamState(
            layers=config.layers,
            heads=config.heads,
            head_width=config.width // config.heads,
            rows=rows,
            window=config.window,
            max_push_bins=max_push_bins,
            tokens_per_bin=most if tokens_per_bin is None else tokens_per_bin,
            start=self.embed.start,
        )

    def tell(self, state: StreamState, behavior_B: Tensor) -> None:
        """Feed back a normalised value for the behavior token that was pushed last."""
        state.tell(self.embed.of_behavior(behavior_B))

    def initialize(self, seed: int) -> None:
        """Draw all weights by the table :data:`INIT`, each from a generator of its own."""
        seeds = SeedTree(seed)
        for name, parameter in self.named_parameters():
            if parameter.is_meta:
                continue
            word = int(seeds.sequence("init", item=name).generate_state(1, np.uint64)[0]) >> 1
            generator = torch.Generator().manual_seed(word)
            draw = next(draw for pattern, draw in INIT if re.search(pattern, name))
            weight = self.get_parameter(f"{name[:-4]}weight") if name.endswith(".bias") else parameter
            with torch.no_grad():
                parameter.copy_(draw(parameter.shape, weight.shape[-1], generator))
        for module in self.modules():
            if isinstance(module, nn.Embedding) and module.padding_idx is not None and not module.weight.is_meta:
                with torch.no_grad():
                    module.weight[module.padding_idx] = 0


def _heads(config: ModelConfig) -> dict[str, nn.Module]:
    """The heads that an objective has."""
    found: dict[str, nn.Module] = {}
    if config.objective != "behavior":
        found["spikes"] = READINS[config.readin][1](config)
    if config.objective != "spikes":
        found["behavior"] = nn.Linear(config.width, 1 if config.behavior_head == "mse" else config.behavior_classes)
    if config.return_head:
        found["return_"] = nn.Linear(config.width, config.max_return + 1)
    if config.sequence_classes:
        found["sequence"] = SequenceHead(config.width, config.sequence_classes)
    return found


Draw = Callable[[torch.Size, int, torch.Generator], Tensor]
"""(shape, inputs of the map, generator) → first values."""


def _normal(shape: torch.Size, inputs: int, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device="cpu")


def _small_normal(shape: torch.Size, inputs: int, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device="cpu") / math.sqrt(shape[-1])


def _ones(shape: torch.Size, inputs: int, generator: torch.Generator) -> Tensor:
    return torch.ones(shape)


def _uniform(shape: torch.Size, inputs: int, generator: torch.Generator) -> Tensor:
    """Within ±1/√inputs, weights and biases: torch's own for linear maps."""
    return (2 * torch.rand(shape, generator=generator, device="cpu") - 1) / math.sqrt(inputs)


INIT: tuple[tuple[str, Draw], ...] = (
    (r"norm\.weight$", _ones),
    (r"^embed\.start$", _small_normal),
    (r"^embed\.behavior\.", _uniform),
    (r"^embed\.counts\.(query|key_value|out)\.", _uniform),
    (r"^heads\.spikes\.channels\.", _normal),
    (r"^embed\.", _normal),
    (r"^(blocks|heads)\.", _uniform),
)
"""Which weights start how; the first pattern that fits. The reference's choices; padding rows are 0."""
