"""The reference's names of a model's tensors, and Betz's."""

from __future__ import annotations

import re

_NAMES: tuple[tuple[str, str], ...] = (
    (r"start_of_sentence", "embed.start"),
    (r"backbone\.space_encoder\.weight", "embed.position.weight"),
    (r"backbone\.layers\.(\d+)\.mixer\.Wqkv\.(weight|bias)", r"blocks.\1.attention.qkv.\2"),
    (r"backbone\.layers\.(\d+)\.mixer\.out_proj\.(weight|bias)", r"blocks.\1.attention.out.\2"),
    (r"backbone\.layers\.(\d+)\.mixer\.(q_norm|k_norm)\.weight", r"blocks.\1.attention.\2.weight"),
    (r"backbone\.layers\.(\d+)\.mlp\.fc1\.(weight|bias)", r"blocks.\1.mlp.up.\2"),
    (r"backbone\.layers\.(\d+)\.mlp\.fc2\.(weight|bias)", r"blocks.\1.mlp.down.\2"),
    (r"task_pipelines\.spike_infill\.readin\.weight", "embed.counts.weight"),
    (r"task_pipelines\.spike_infill\.out\.0\.(weight|bias)", r"heads.spikes.\1"),
    (r"task_pipelines\.kinematic_linear\.inp\.(weight|bias)", r"embed.behavior.\1"),
    (r"task_pipelines\.kinematic_linear\.out\.0\.(weight|bias)", r"heads.behavior.\1"),
    (r"task_pipelines\.constraints\.constraint_dims", "embed.constraint"),
    (r"task_pipelines\.return_context\.return_enc\.weight", "embed.return_.weight"),
    (r"task_pipelines\.return_context\.reward_enc\.weight", "embed.reward.weight"),
)


def reference_to_betz(key: str) -> str | None:
    """Betz's name of a tensor of the reference's state dict; None for what is no parameter.

    >>> reference_to_betz("backbone.layers.0.mlp.fc1.bias")
    'blocks.0.mlp.up.bias'
    """
    for pattern, name in _NAMES:
        found = re.fullmatch(pattern, key)
        if found:
            return found.expand(name)
    return None
