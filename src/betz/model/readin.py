"""Read-ins and their spike heads: counts of a bin to token vectors, and features to logits of counts.

Two of each behind one interface: a read-in maps ``(counts_SP, channels_S)`` to ``(S, L, D)``, a head maps the features
of these tokens, ``(S, L, D)``, and their counts' width P to ``(S, classes, P)``. A feature has not seen the counts of
its own group, since the model's input is shifted by one token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from betz.model.presets import ModelConfig


class PatchReadin(nn.Embedding):
    """The reference's: each count of a patch looks up a short vector; these side by side are the token's content."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.count_classes, config.width // config.patch_channels)

    def forward(self, counts_SP: Tensor, channels_S: Tensor) -> Tensor:  # type: ignore[override]
        """(S, 1, D); channels that are not real have count 0 and look like silent ones, as in the reference."""
        known = counts_SP.long().clamp(max=self.num_embeddings - 1)
        return super().forward(known).flatten(1)[:, None]


class PatchHead(nn.Linear):
    """Logits of every count class of every channel of a patch."""

    def __init__(self, config: ModelConfig) -> None:
        self.classes = config.count_classes + 1
        super().__init__(config.width, config.patch_channels * self.classes)

    def forward(self, features_SLD: Tensor, channels: int | None = None) -> Tensor:
        """(S, classes, P)."""
        logits: Tensor = super().forward(features_SLD[:, 0])
        return logits.view(len(logits), -1, self.classes).transpose(1, 2)


class UnitReadin(nn.Module):
    """A few latents a bin attend to all of its channels, each of which has a vector of its own (as in perceivers).

    Channels are known by their place in the session, so for a new session these vectors are learned anew.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D = config.width
        self.heads = config.heads
        self.counts = nn.Embedding(config.count_classes, D)
        self.channels = nn.Embedding(config.max_arrays * config.max_channels, D)
        self.latents = nn.Parameter(torch.empty(config.unit_latents, D))
        self.norm = nn.LayerNorm(D, elementwise_affine=False)
        self.query = nn.Linear(D, D)
        self.key_value = nn.Linear(D, 2 * D)
        self.out = nn.Linear(D, D)

    def forward(self, counts_SP: Tensor, channels_S: Tensor) -> Tensor:
        """(S, L, D); channels that are not real are not attended to."""
        P = counts_SP.shape[1]
        known = counts_SP.long().clamp(max=self.counts.num_embeddings - 1)
        units_SPD = self.norm(self.counts(known) + self.channels.weight[:P])
        key, value = self.key_value(units_SPD).unflatten(-1, (2, self.heads, -1)).transpose(1, 3).unbind(2)
        query = self.query(self.norm(self.latents)).unflatten(-1, (self.heads, -1)).transpose(0, 1)
        real_SP = torch.arange(P, device=counts_SP.device) < channels_S[:, None]
        query = query[None].expand(len(counts_SP), -1, -1, -1)
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=real_SP[:, None, None])
        mixed: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return self.latents + mixed


class UnitHead(nn.Module):
    """Logits of the counts of every channel from the first latent's feature, which has seen earlier bins alone."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.feature = nn.Linear(config.width, config.width)
        self.channels = nn.Embedding(config.max_arrays * config.max_channels, config.width)
        self.out = nn.Linear(config.width, config.count_classes + 1)

    def forward(self, features_SLD: Tensor, channels: int) -> Tensor:
        """(S, classes, P)."""
        mixed_SPD = functional.silu(self.feature(features_SLD[:, 0])[:, None] + self.channels.weight[:channels])
        logits_SPV: Tensor = self.out(mixed_SPD)
        return logits_SPV.transpose(1, 2)


READINS: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "patches": (PatchReadin, PatchHead),
    "units": (UnitReadin, UnitHead),
}
"""Read-in and spike head by the name in :class:`ModelConfig`."""
