"""Objectives: softened cross-entropy of spike counts, squared or HL-Gauss error of behavior, and their weighted sum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from betz.core.errors import ConfigError

if TYPE_CHECKING:
    from betz.model.presets import ModelConfig
    from betz.model.transformer import ModelOutput
    from betz.tokens.batch import TokenBatch


@dataclass(frozen=True)
class Losses:
    """Scalars; None where the model has no such head.

    Args:
        total: weighted sum of the others.
        spikes, behavior, return_: each averaged over everything in the batch that is real and known.
    """

    total: Tensor
    spikes: Tensor | None = None
    behavior: Tensor | None = None
    return_: Tensor | None = None


def losses(output: ModelOutput, batch: TokenBatch, config: ModelConfig) -> Losses:
    """The losses of a model's output.

    Args:
        output: with all of the model's heads.
        batch: that it was computed from, on the same device.
        config: gives objective and weights.

    Raises:
        ConfigError: the model has nothing to learn from.
    """
    parts: dict[str, tuple[float, Tensor]] = {}
    if output.spike_logits is not None:
        parts["spikes"] = (config.spike_weight, spike_loss(output.spike_logits, batch.counts_SP, batch.channels_S))
    if output.behavior_logits is not None:
        error_M = class_loss_elements(output.behavior_logits, batch.behavior_M, config.class_sigma)
        parts["behavior"] = (config.behavior_weight, mean_of(error_M, batch.known_M))
    elif output.behavior is not None:
        error_M = (output.behavior.float() - batch.behavior_M).square()
        parts["behavior"] = (config.behavior_weight, mean_of(error_M, batch.known_M))
    if output.return_logits is not None:
        error_R = functional.cross_entropy(output.return_logits.float(), batch.return_R, reduction="none")
        parts["return_"] = (config.return_weight, mean_of(error_R, batch.return_R > 0))
    if not parts:
        raise ConfigError("the output has no head to learn from.", remedy="call the model with all of its heads")
    total = torch.stack([weight * loss for weight, loss in parts.values()]).sum()
    return Losses(total, **{name: loss for name, (_, loss) in parts.items()})


def mean_of(values: Tensor, where: Tensor) -> Tensor:
    """Mean of the values at which ``where`` is True; 0, still with a gradient, if there are none."""
    return torch.where(where, values, 0).sum() / where.sum().clamp(min=1)


def spike_loss(logits_SVP: Tensor, counts_SP: Tensor, channels_S: Tensor) -> Tensor:
    """Softened cross-entropy, averaged over the channels that are real."""
    return mean_of(spike_loss_elements(logits_SVP, counts_SP), real_channels(counts_SP, channels_S))


def real_channels(counts_SP: Tensor, channels_S: Tensor) -> Tensor:
    """(S, P) whether a channel of a group is real."""
    return torch.arange(counts_SP.shape[1], device=counts_SP.device) < channels_S[:, None]


def spike_loss_elements(logits_SVP: Tensor, counts_SP: Tensor) -> Tensor:
    """(S, P) cross-entropy with a Poisson around the true count; 0 for counts beyond the table, as in the reference."""
    classes = logits_SVP.shape[1]
    table = poisson_targets(classes).to(logits_SVP.device)
    target_SVP = table[counts_SP.long().clamp(max=classes - 1)].transpose(1, 2)
    return functional.cross_entropy(logits_SVP.float(), target_SVP, reduction="none")


@lru_cache(maxsize=8)
def poisson_targets(classes: int) -> Tensor:
    """(V, V) float32: row n is the Poisson distribution of mean n over 0 … V − 1, summing to 1; the last row is 0.

    Row 0 is one-hot. The last row stands for every count that is too large: such channels add nothing to the loss,
    but count in its mean.
    """
    n = torch.arange(classes, dtype=torch.float64)
    pmf = torch.exp(n * torch.log(n.clamp(min=1))[:, None] - n[:, None] - torch.lgamma(n + 1))
    pmf[0] = torch.eye(classes, dtype=torch.float64)[0]
    pmf[-1] = 0
    return (pmf / pmf.sum(1, keepdim=True).clamp(min=1e-300)).float()


def class_centers(classes: int, *, device: torch.device | str = "cpu") -> Tensor:
    """(V,) centers of equal classes over [−1, 1]."""
    return (torch.arange(classes, device=device, dtype=torch.float32) + 0.5) * (2 / classes) - 1


def hl_gauss_targets(values_M: Tensor, classes: int, sigma: float) -> Tensor:
    """(M, V) mass of a Gaussian around each value inside each class, summing to 1 (Imani & White 2018).

    Args:
        values_M: clamped to [−1, 1].
        classes: V.
        sigma: standard deviation in widths of a class.
    """
    edges = torch.linspace(-1, 1, classes + 1, dtype=torch.float64, device=values_M.device)
    scale = sigma * 2 / classes * math.sqrt(2)
    cdf_ME = torch.erf((edges - values_M.double().clamp(-1, 1)[:, None]) / scale)
    mass_MV = cdf_ME.diff(dim=1)
    return (mass_MV / (cdf_ME[:, -1:] - cdf_ME[:, :1])).float()


def class_loss_elements(logits_MV: Tensor, values_M: Tensor, sigma: float) -> Tensor:
    """(M,) cross-entropy with HL-Gauss targets."""
    target_MV = hl_gauss_targets(values_M, logits_MV.shape[1], sigma)
    return functional.cross_entropy(logits_MV.float(), target_MV, reduction="none")


def class_mean(logits_MV: Tensor) -> Tensor:
    """(M,) expected value of classes over [−1, 1]."""
    logits_MV = logits_MV.to(torch.promote_types(logits_MV.dtype, torch.float32))
    return logits_MV.softmax(-1) @ class_centers(logits_MV.shape[1], device=logits_MV.device).to(logits_MV.dtype)
