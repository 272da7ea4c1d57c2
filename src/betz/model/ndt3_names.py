"""The reference's names of a model's tensors, and Betz's: one to one, or a reason why not."""

from __future__ import annotations

import re

_NAMES: tuple[tuple[str, str | None], ...] = (
    (r"start_of_sentence", "embed.start"),
    (r"backbone\.space_encoder\.weight", "embed.position.weight"),
    (r"backbone\.layers\.(\d+)\.mixer\.Wqkv\.(weight|bias)", r"blocks.\1.attention.qkv.\2"),
    (r"backbone\.layers\.(\d+)\.mixer\.out_proj\.(weight|bias)", r"blocks.\1.attention.out.\2"),
    (r"backbone\.layers\.(\d+)\.mixer\.(q_norm|k_norm)\.weight", r"blocks.\1.attention.\2.weight"),
    (r"backbone\.layers\.(\d+)\.mlp\.fc1\.(weight|bias)", r"blocks.\1.mlp.up.\2"),
    (r"backbone\.layers\.(\d+)\.mlp\.fc2\.(weight|bias)", r"blocks.\1.mlp.down.\2"),
    (r"backbone\.layers\.(\d+)\.norm1\.weight", r"blocks.\1.attention_norm.weight"),
    (r"backbone\.layers\.(\d+)\.norm2\.weight", r"blocks.\1.mlp_norm.weight"),
    (r"task_pipelines\.spike_(?:infill|context)\.readin\.weight", "embed.counts.weight"),
    (r"task_pipelines\.spike_infill\.out\.0\.(weight|bias)", r"heads.spikes.\1"),
    (r"task_pipelines\.kinematic_linear\.inp\.(weight|bias)", r"embed.behavior.\1"),
    (r"task_pipelines\.kinematic_linear\.out\.0\.(weight|bias)", r"heads.behavior.\1"),
    (r"task_pipelines\.seq_decoding\.out\.(weight|bias)", r"heads.sequence.out.\1"),
    (r"task_pipelines\.constraints\.constraint_dims", "embed.constraint"),
    (r"task_pipelines\.constraints\.constraint_cls", "embed.constraint_start"),
    (r"task_pipelines\.return_context\.return_enc\.weight", "embed.return_.weight"),
    (r"task_pipelines\.return_context\.reward_enc\.weight", "embed.reward.weight"),
    # Known, and no parameter of the model: counters, the targets of the loss, and a norm that is never applied.
    (r"_extra_state", None),
    (r"task_pipelines\.spike_infill\.loss\.poisson_map", None),
    (r"backbone\.ln_f\.weight", None),
)
_NOT_REPRESENTED: tuple[tuple[str, str], ...] = (
    (
        r"task_pipelines\.kinematic_infill\..*",
        "behavior is an embedding of classes over ±1.001, decoded by the best class; Betz has a linear input and "
        "decodes the expected value",
    ),
    (r"backbone\.layers\.\d+\.mixer\.[qk]_norm\.bias", "the norms of queries and keys have no biases in Betz"),
    (r"backbone\.(layers\.\d+\.norm[12]|ln_f)\.bias", "the norms of the blocks have no biases in Betz"),
)


def reference_to_betz(key: str) -> str | None:
    """Betz's name of a tensor of the reference's state dict; None for what is known to be no parameter.

    Raises:
        KeyError: the key is not known.

    >>> reference_to_betz("backbone.layers.0.mlp.fc1.bias")
    'blocks.0.mlp.up.bias'
    """
    for pattern, name in _NAMES:
        found = re.fullmatch(pattern, key)
        if found:
            return name if name is None else found.expand(name)
    raise KeyError(key)


def why_not(key: str) -> str:
    """Why a tensor of the reference has no place in Betz's model; ``not known`` if it is not known at all."""
    return next((reason for pattern, reason in _NOT_REPRESENTED if re.fullmatch(pattern, key)), "not known")
