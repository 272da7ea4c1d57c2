"""Episodes for the generalist: a calibration cut out of a session, and minutes after it to decode.

An episode draws the length of its calibration, its channels, its bin width (merged bins), whether earlier sessions are
known, whether it has labels at all, directions that the calibration lacks, and channels that fall silent afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.config import frozen_config
from betz.core.errors import DataError
from betz.core.seeds import SeedTree
from betz.core.session import Session
from betz.decode.bank import BankFit, Blocks, without_labels
from betz.decode.features import floored
from betz.decode.filterbank import FILTERS, FilterBank
from betz.decode.history import History
from betz.decode.labels import groups
from betz.decode.profiles import channel_statistics, context_of

Float32 = NDArray[np.float32]
FORMAT_VERSION = 1


@frozen_config
class EpisodeSettings:
    """How episodes are drawn.

    Args:
        episodes: a session, in each bin width of ``merge``.
        merge: bins that are summed, with the share of episodes; widths above ``widest_ms`` are left out.
        widest_ms: widest bin.
        minutes: shortest and longest calibration, log-uniform.
        query_s: what is decoded.
        query_within_s: how long after the calibration it may start.
        all_channels: share of episodes with every channel; the others keep 30 to 100 %.
        history: share with earlier sessions, where there are some.
        unlabelled: share of those without labels.
        sector: share, of velocities, without one 90° sector of directions in the calibration.
        silent: share in which 5 to 30 % of the channels are silent in the query.
        dims: dimensions taken from a large group.
    """

    episodes: int = 60
    merge: tuple[tuple[int, float], ...] = ((1, 0.7), (2, 0.2), (3, 0.1))
    widest_ms: float = 200.0
    minutes: tuple[float, float] = (0.4, 12.0)
    query_s: float = 80.0
    query_within_s: float = 300.0
    all_channels: float = 0.3
    history: float = 0.6
    unlabelled: float = 0.15
    sector: float = 0.15
    silent: float = 0.15
    dims: int = 4


@dataclass(frozen=True, eq=False)
class Episode:
    """One group of dimensions of one calibration, and the bins to decode.

    Args:
        session, merge: whose features, at which bin width.
        group: names of all its dimensions, joined; what is sampled together.
        start, stop: bins of the query.
        channels: (C,) which channels.
        silent: (C,) whether a channel is silent in the query.
        mean, sd: (F,) scaling of the features.
        decodes, speed: (N, D, BANK) and (N, SPEED), half precision.
        behavior: (N, D) in calibration units.
        skip, skip_alone, history, bins: of the fit.
        identity: (C, D, IDENTITY), half precision.
        statistics: (C, 3) of the channels.
        context, context_alone: (D, CONTEXT) with and without history.
        rotates: whether its dimensions may be mixed by rotations.
    """

    session: str
    merge: int
    group: str
    start: int
    stop: int
    channels: NDArray[np.int64]
    silent: NDArray[np.bool_]
    mean: Float32
    sd: Float32
    decodes: NDArray[np.float16]
    speed: NDArray[np.float16]
    behavior: Float32
    skip: int
    skip_alone: int
    history: bool
    bins: int
    identity: NDArray[np.float16]
    statistics: Float32
    context: Float32
    context_alone: Float32
    rotates: bool


def episodes_of(
    session: Session, behavior: Sequence[str], *, history: History | None, settings: EpisodeSettings, seed: int
) -> tuple[list[Episode], dict[int, NDArray[np.float16]]]:
    """Episodes of one session, and its filtered signals (N, C · FILTERS) by number of merged bins."""
    made: list[Episode] = []
    filtered: dict[int, NDArray[np.float16]] = {}
    for merge, share in settings.merge:
        if merge > 1 and session.bin_ms * merge > settings.widest_ms:
            continue
        part = session if merge == 1 else session.rebinned(session.bin_ms * merge)
        source = _Source(part, behavior, history, merge)
        filtered[merge] = source.filtered.astype(np.float16)
        rng = SeedTree(seed).generator("episodes", item=f"{session.id}/{merge}")
        for _ in range(max(1, round(share * settings.episodes))):
            made += source.draw(settings, rng)
    return made, filtered


class _Source:
    """A session at one bin width, its filters computed once."""

    def __init__(self, session: Session, behavior: Sequence[str], history: History | None, merge: int) -> None:
        self.session, self.merge = session, merge
        self.dims = session.dims_of(list(behavior))
        self.parts = groups(self.dims)
        self.y_NK = session.behavior_of([d.name for d in self.dims])
        self.usable = np.zeros(session.num_bins, dtype=bool)
        for a, b in session.segments:
            self.usable[a:b] = True
        self.bank = FilterBank.fit(session.signals, session.segments, session.channels, session.bin_ms)
        self.filtered = np.zeros((session.num_bins, len(session.channels) * FILTERS), np.float32)
        rest = np.repeat(self.bank.rest, FILTERS).astype(np.float32)  # filters have sum 1: with it, silence is 0
        for a, b in session.segments:
            self.filtered[a:b] = self.bank.filtered(self.bank.rooted(session.signals[a:b])) + rest
        self.history: dict[int, tuple[Float32, NDArray[np.float64], NDArray[np.float64]]] = {}
        for g, part in enumerate(self.parts):
            known = history.weights(session.channels, [self.dims[k] for k in part]) if history else None
            if known is not None:
                self.history[g] = known

    def draw(self, settings: EpisodeSettings, rng: np.random.Generator) -> list[Episode]:
        """One calibration and query, an episode a group; none where the draw has too little to decode."""
        session, bin_s = self.session, self.session.grid.bin_s
        low, high = np.log(settings.minutes)
        query = round(settings.query_s / bin_s)
        length = min(round(np.exp(rng.uniform(low, high)) * 60 / bin_s), session.num_bins - query - 1)
        if length < 20 / bin_s:
            raise DataError(f"{session.minutes:.1f} minutes are too few for episodes.", where=f"session {session.id}")
        begin = int(rng.integers(0, max(1, session.num_bins - length - query)))
        latest = min(session.num_bins - query, begin + length + round(settings.query_within_s / bin_s))
        start = int(rng.integers(begin + length, max(begin + length + 1, latest)))
        number = len(session.channels)
        share = 1.0 if rng.random() < settings.all_channels else rng.uniform(0.3, 1)
        keep = rng.random(number) < share
        keep[rng.integers(number)] = True
        channels = np.flatnonzero(keep)
        silent = np.zeros(len(channels), dtype=bool)
        if rng.random() < settings.silent:
            silent = rng.random(len(channels)) < rng.uniform(0.05, 0.3)
        known = bool(self.history) and rng.random() < settings.history
        unlabelled = known and rng.random() < settings.unlabelled
        return self._episodes(
            settings, rng, (begin, length), (start, start + query), channels, silent, known, unlabelled
        )

    def _episodes(
        self,
        settings: EpisodeSettings,
        rng: np.random.Generator,
        calibration: tuple[int, int],
        query: tuple[int, int],
        channels: NDArray[np.int64],
        silent: NDArray[np.bool_],
        known: bool,
        unlabelled: bool,
    ) -> list[Episode]:
        session, (begin, length), (start, stop) = self.session, calibration, query
        bins = slice(begin, begin + length)
        if not self.usable[start:stop].all():
            return []
        columns = (channels[:, None] * FILTERS + np.arange(FILTERS)).ravel()
        raw = self.filtered[bins][:, columns]
        inside = self.usable[bins]
        mean, sd = raw[inside].mean(axis=0), raw[inside].std(axis=0)
        own = [session.channels[c] for c in channels]
        sd = floored(sd.reshape(-1, FILTERS).astype(np.float64), own).ravel().astype(np.float32)
        x = np.clip((raw - mean) / sd, -8, 8).astype(np.float32)
        segments = [(max(a - begin, 0), min(b - begin, length)) for a, b in session.segments]
        segments = [(a, b) for a, b in segments if a < b]
        statistics = channel_statistics(session.signals[bins][:, channels], segments, own, session.bin_ms)
        asked = self.filtered[start:stop][:, columns].copy()
        asked.reshape(stop - start, len(channels), FILTERS)[:, silent] = 0
        xq = np.clip((asked - mean) / sd, -8, 8).astype(np.float32)
        parts = [self._some(part, settings, rng) for part in self.parts]
        weights = {g: self.history[g][0][columns][:, :, self._at(g, parts[g])] for g in self.history} if known else {}
        made = []
        if unlabelled:
            fits: list[tuple[int, BankFit]] = [
                (g, without_labels(parts[g], w, *(s[self._at(g, parts[g])] for s in self.history[g][1:])))
                for g, w in weights.items()
            ]
        else:
            fits = self._fitted(x, bins, parts, segments, weights, settings, rng)
        for g, fit in fits:
            y = (self.y_NK[start:stop][:, list(parts[g])] - fit.center) / fit.scale
            if not np.isfinite(y).all() or y.std() < 0.05 or np.abs(y).max() > 30:
                continue
            decodes, speed = fit.decodes(xq)
            contexts = [
                context_of(fit, history=h, channels=len(channels), bin_ms=session.bin_ms) for h in (True, False)
            ]
            dims = [self.dims[k] for k in self.parts[g]]
            made.append(
                Episode(
                    session=session.id,
                    merge=self.merge,
                    group=f"{session.subject}/" + ",".join(d.name for d in dims),
                    start=start,
                    stop=stop,
                    channels=channels,
                    silent=silent,
                    mean=mean.astype(np.float32),
                    sd=sd.astype(np.float32),
                    decodes=decodes.astype(np.float16),
                    speed=np.clip(speed, -100, 100).astype(np.float16),
                    behavior=y.astype(np.float32),
                    skip=fit.skip,
                    skip_alone=fit.skip_alone,
                    history=fit.history,
                    bins=fit.bins,
                    identity=np.clip(fit.identity, -1e3, 1e3).astype(np.float16),
                    statistics=statistics,
                    context=contexts[0],
                    context_alone=contexts[1],
                    rotates=len(dims) <= 3,
                )
            )
        return made

    def _fitted(
        self,
        x: Float32,
        bins: slice,
        parts: Sequence[tuple[int, ...]],
        segments: Sequence[tuple[int, int]],
        weights: Mapping[int, Float32],
        settings: EpisodeSettings,
        rng: np.random.Generator,
    ) -> list[tuple[int, BankFit]]:
        """Closed-form fits of the groups; where a sector is left out, of the velocity alone."""
        y = self.y_NK[bins]
        velocity = [g for g, part in enumerate(parts) if _is_velocity([self.dims[k].name for k in part])]
        chosen, counted = list(range(len(parts))), None
        if velocity and rng.random() < settings.sector:
            chosen = velocity[:1]
            v = y[:, list(parts[chosen[0]])]
            angle = np.arctan2(v[:, 1], v[:, 0]) - rng.uniform(-np.pi, np.pi)
            counted = np.abs((angle + np.pi) % (2 * np.pi) - np.pi) > np.pi / 4
        asked = [k for g in chosen for k in parts[g]]
        position = {k: i for i, k in enumerate(asked)}
        y = y[:, asked]
        labelled = np.isfinite(y).all(axis=1) & (True if counted is None else counted)
        if labelled.sum() < 100 or np.any(y[labelled].std(axis=0) == 0):
            return []
        blocks = Blocks(
            x,
            y,
            [tuple(position[k] for k in parts[g]) for g in chosen],
            segments,
            bin_s=self.session.bin_ms / 1000,
            atoms=3,
            history={i: weights[g] for i, g in enumerate(chosen) if g in weights},
            counted=counted,
        )
        return list(zip(chosen, blocks.fit(), strict=True))

    def _some(self, part: tuple[int, ...], settings: EpisodeSettings, rng: np.random.Generator) -> tuple[int, ...]:
        if len(part) <= settings.dims:
            return part
        return tuple(sorted(rng.choice(part, settings.dims, replace=False).tolist()))

    def _at(self, g: int, some: tuple[int, ...]) -> list[int]:
        return [self.parts[g].index(k) for k in some]


def _is_velocity(names: Sequence[str]) -> bool:
    return len(names) == 2 and all(n.endswith(("_vx", "_vy")) for n in names)


# ---- on disk


def save_episodes(path: Path, episodes: Sequence[Episode], filtered: Mapping[int, NDArray[np.float16]]) -> None:
    """Write episodes and filtered signals as arrays; the file appears when it is whole."""
    from betz.core.files import commit

    arrays: dict[str, NDArray[Any]] = {f"filtered/{merge}": f for merge, f in filtered.items()}
    for i, episode in enumerate(episodes):
        for name, value in vars(episode).items():
            arrays[f"{i}/{name}"] = np.asarray(value)
    part = path.with_suffix(".part.npz")
    np.savez(part, format=FORMAT_VERSION, number=len(episodes), **arrays)  # type: ignore[arg-type]
    commit(part, path)


def load_episodes(path: Path) -> tuple[list[Episode], dict[int, NDArray[np.float16]]]:
    """What :func:`save_episodes` wrote."""
    made: list[dict[str, Any]] = []
    filtered = {}
    with np.load(path) as file:
        made = [{} for _ in range(int(file["number"]))]
        for key in file.files:
            first, _, name = key.partition("/")
            if first == "filtered":
                filtered[int(name)] = file[key]
            elif name:
                value = file[key]
                made[int(first)][name] = value.item() if value.ndim == 0 else value
    return [Episode(**values) for values in made], filtered
