"""Training of the generalist on episodes: one network for all behavior, sessions and subjects."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from betz.core.config import frozen_config, to_dict
from betz.core.errors import DataError
from betz.core.files import commit
from betz.core.seeds import SeedTree
from betz.decode.bank import CLIP
from betz.decode.filterbank import FILTERS
from betz.decode.profiles import certainty_of, channel_numbers
from betz.model.generalist import BANK, HISTORY_FROM, SPEED, STRENGTHS, Generalist, Profiles
from betz.train.episodes import Episode

Float32 = NDArray[np.float32]


@frozen_config
class GeneralistSettings:
    """How the generalist is trained.

    Args:
        steps: gradient steps.
        rows: episodes in a step.
        bins: bins of each.
        dims: dimensions of each; groups with fewer are left out.
        unscored: first bins that do not count.
        rate, weight_decay, clip: of AdamW; the rate is the peak of one cycle.
        width, latents: of the network.
        forget_history: share of steps without history.
        rotate: share of episodes whose dimensions are mixed by a random orthogonal matrix.
        gain: standard deviation of the logarithm of a common gain error, in 30 % of the episodes.
        noise: least variance in the loss's denominator.
        checkpoint_s: seconds between checkpoints.
    """

    steps: int = 5000
    rows: int = 16
    bins: int = 144
    dims: int = 2
    unscored: int = 24
    rate: float = 2e-3
    weight_decay: float = 0.01
    clip: float = 1.0
    width: int = 64
    latents: int = 12
    forget_history: float = 0.4
    rotate: float = 0.7
    gain: float = 0.08
    noise: float = 0.15
    checkpoint_s: float = 60.0


@dataclass(frozen=True, eq=False)
class Batch:
    """One step's input, M = 1.

    Args:
        features: (R, N, F) z-scored, channels padded.
        decodes: (N, 1, R, D, BANK + SPEED).
        skip, behavior: (N, 1, R, D).
        profiles: of the calibrations.
        pool: (D, D) averages the dimensions.
    """

    features: Tensor
    decodes: Tensor
    skip: Tensor
    behavior: Tensor
    profiles: Profiles
    pool: Tensor


def decode(network: Generalist, batch: Batch) -> Tensor:
    """(N, 1, R, D) predictions in calibration units."""
    weights = network.read_in(batch.profiles)[0]
    latents = torch.bmm(batch.features, weights).transpose(0, 1)
    steps, rows, _ = latents.shape
    latents = latents.view(steps, 1, rows, -1, network.latents)
    inputs = torch.cat((batch.decodes, latents), -1)
    values: Tensor
    values, _ = network(inputs, batch.skip, network.modulation(batch.profiles.context), batch.pool)
    return values


def loss_of(values: Tensor, behavior: Tensor, settings: GeneralistSettings) -> Tensor:
    """Mean share of variance that is left, at most 4 an episode."""
    scored, truth = values[settings.unscored :], behavior[settings.unscored :]
    error = ((scored - truth) ** 2).mean((0, 1, 3))
    variance = truth.var(0).mean((0, 2)) + settings.noise
    left: Tensor = error / variance
    return left.clamp(max=4).mean()


def train(
    episodes: Sequence[Episode],
    filtered: Mapping[tuple[str, int], NDArray[np.float16]],
    *,
    out: Path,
    settings: GeneralistSettings,
    weights: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Generalist:
    """Train a network; resumes from ``out`` where a checkpoint of the same settings is.

    Args:
        episodes: to draw from.
        filtered: filtered signals by session and merged bins.
        out: folder of checkpoint and log.
        settings: of the training.
        weights: by subject, how often one of its groups is drawn (default 1).
        seed: of initial values and draws.

    Raises:
        DataError: no episode is long enough.
    """
    by_group: dict[str, list[Episode]] = {}
    for episode in episodes:
        if episode.behavior.shape[1] >= settings.dims and len(episode.behavior) >= settings.bins:
            by_group.setdefault(episode.group, []).append(episode)
    if not by_group:
        raise DataError("no episode is long enough and has enough dimensions.", where="pretraining")
    names = sorted(by_group)
    share = np.array([(weights or {}).get(name.split("/")[0], 1.0) for name in names])
    tree = SeedTree(seed)
    generator = torch.Generator().manual_seed(int(tree.sequence("generalist").generate_state(1)[0]))
    network = Generalist(width=settings.width, latents=settings.latents, generator=generator)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=settings.weight_decay)
    out.mkdir(parents=True, exist_ok=True)
    first = _resume(out / "checkpoint.pt", network, optimizer, settings)
    begun = saved = time.monotonic()
    recent: list[tuple[float, float]] = []
    for step in range(first, settings.steps):
        rng = tree.generator("batch", epoch=step)
        picked = rng.choice(len(names), settings.rows, p=share / share.sum())
        drawn = [by_group[names[i]][rng.integers(len(by_group[names[i]]))] for i in picked]
        batch = assemble(drawn, filtered, settings, rng)
        for group in optimizer.param_groups:
            group["lr"] = settings.rate * one_cycle(step / settings.steps)
        optimizer.zero_grad()
        loss = loss_of(decode(network, batch), batch.behavior, settings)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        optimizer.step()
        with torch.no_grad():
            recent.append((float(loss), float(loss_of(batch.skip, batch.behavior, settings))))
        if (step + 1) % 100 == 0:
            mean = np.mean(recent, axis=0)
            recent.clear()
            line = {"step": step + 1, "loss": mean[0], "closed_form": mean[1], "seconds": time.monotonic() - begun}
            with (out / "log.jsonl").open("a") as file:
                file.write(json.dumps({k: round(float(v), 5) for k, v in line.items()}) + "\n")
        if time.monotonic() - saved > settings.checkpoint_s or step + 1 == settings.steps:
            _save(out / "checkpoint.pt", network, optimizer, settings, step + 1)
            saved = time.monotonic()
    return network.eval().requires_grad_(False)


def one_cycle(done: float) -> float:
    """Rate as a share of its peak: up in the first tenth, then down by a cosine."""
    if done < 0.1:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * done / 0.1)) / 2
    return (1 + math.cos(math.pi * (done - 0.1) / 0.9)) / 2


def assemble(
    episodes: Sequence[Episode],
    filtered: Mapping[tuple[str, int], NDArray[np.float16]],
    settings: GeneralistSettings,
    rng: np.random.Generator,
) -> Batch:
    """Draw a window, dimensions and a mixture of them from each episode."""
    forget = rng.random() < settings.forget_history
    channels = max(len(e.channels) for e in episodes)
    rows, bins, dims = len(episodes), settings.bins, settings.dims
    features = np.zeros((rows, bins, channels * FILTERS), np.float32)
    first = episodes[0]
    identity = np.zeros((rows, channels, dims, first.identity.shape[2]), np.float32)
    channel = np.zeros((rows, channels, first.statistics.shape[1] + 4), np.float32)
    there = np.zeros((rows, channels), np.float32)
    decodes = np.empty((bins, rows, dims, BANK + SPEED), np.float32)
    skip, behavior = np.empty((bins, rows, dims), np.float32), np.empty((bins, rows, dims), np.float32)
    context = np.empty((rows, dims, first.context.shape[1]), np.float32)
    for r, e in enumerate(episodes):
        alone = forget and e.bins > 0
        at = int(rng.integers(0, len(e.behavior) - bins + 1))
        chosen = rng.choice(e.behavior.shape[1], dims, replace=False)
        mix = _mixture(e, settings, rng)
        window = slice(at, at + bins)
        of_bank = e.decodes[window][:, chosen].astype(np.float32)
        known = e.identity[:, chosen].astype(np.float32)
        numbers = (e.context_alone if alone else e.context)[chosen]
        if alone:
            of_bank[:, :, HISTORY_FROM:] = 0
            known[..., 3 * FILTERS :] = 0
        of_bank = np.clip(np.einsum("ndf,ed->nef", of_bank, mix), -CLIP, CLIP)
        decodes[:, r, :, :BANK] = of_bank
        decodes[:, r, :, BANK:] = e.speed[window].astype(np.float32)[:, None]
        skip[:, r] = of_bank[:, :, e.skip_alone if alone else e.skip]
        gain = np.exp(rng.normal(0, settings.gain)) if rng.random() < 0.3 else 1.0
        behavior[:, r] = gain * e.behavior[window][:, chosen] @ mix.T
        context[r] = np.concatenate(((mix**2) @ numbers[:, : STRENGTHS + 6], numbers[:, STRENGTHS + 6 :]), axis=1)
        number = len(e.channels)
        identity[r, :number] = np.einsum("cdi,ed->cei", known, mix)
        channel[r, :number] = channel_numbers(e.statistics, context[r])
        there[r, :number] = 1
        columns = (e.channels[:, None] * FILTERS + np.arange(FILTERS)).ravel()
        raw = filtered[e.session, e.merge][e.start + at : e.start + at + bins][:, columns].astype(np.float32)
        raw.reshape(bins, number, FILTERS)[:, e.silent] = 0
        features[r, :, : number * FILTERS] = np.clip((raw - e.mean) / e.sd, -8, 8)
    certainty = np.array([[certainty_of(e.bins, 50.0) for e in episodes]], np.float32)
    tensor = torch.from_numpy
    return Batch(
        tensor(features),
        tensor(decodes)[:, None],
        tensor(skip)[:, None],
        tensor(behavior.astype(np.float32))[:, None],
        Profiles(
            tensor(identity)[None],
            tensor(channel)[None],
            tensor(there)[None],
            tensor(context)[None],
            tensor(certainty),
        ),
        torch.full((dims, dims), 1 / dims),
    )


def _mixture(e: Episode, settings: GeneralistSettings, rng: np.random.Generator) -> Float32:
    """A random orthogonal matrix, or random signs; muscles stay as they are."""
    size = settings.dims
    if not e.rotates:
        return np.eye(size, dtype=np.float32)
    if rng.random() < settings.rotate:
        return np.linalg.qr(rng.standard_normal((size, size)))[0].astype(np.float32)
    return np.diag(rng.choice([-1.0, 1.0], size)).astype(np.float32)


def _save(
    path: Path, network: Generalist, optimizer: torch.optim.Optimizer, settings: GeneralistSettings, step: int
) -> None:
    part = path.with_suffix(".part")
    state = {"step": step, "settings": json.dumps(to_dict(settings)), "network": network.state_dict()}
    torch.save({**state, "optimizer": optimizer.state_dict()}, part)
    commit(part, path)


def _resume(path: Path, network: Generalist, optimizer: torch.optim.Optimizer, settings: GeneralistSettings) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    if state["settings"] != json.dumps(to_dict(settings)):
        raise DataError(
            "a checkpoint of other settings is there.", where=str(path), remedy="give another folder, or remove it"
        )
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])
