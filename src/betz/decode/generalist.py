"""The generalist after a calibration: several variants of it, run as one network on shared features.

A variant is one member of the network with one set of closed-form fits, with or without history. All linear maps of the
features (closed-form decodes, speed, the network's reading of the channels) are one matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from betz.core.prediction import Array
from betz.decode.bank import CLIP, BankFit
from betz.decode.closed_form import Segments
from betz.decode.filterbank import FilterBank
from betz.decode.phases import interleaved, offline
from betz.decode.profiles import certainty_of, channel_numbers, context_of, identity_of

if TYPE_CHECKING:
    from betz.model.generalist import Generalist

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Variant:
    """One network member with its closed-form fits.

    Args:
        fits: of each group, in the order of the groups.
        member: of the network.
        history: whether history may be used.
    """

    fits: tuple[BankFit, ...]
    member: int
    history: bool


@dataclass(frozen=True, eq=False)
class Heads:
    """Calibrated variants as arrays; what a decoder saves.

    Args:
        decode_map, decode_offset: (F, U, D · BANK + D · SPEED) and (U, …) of the U distinct sets of fits.
        latent_map: (F, M, D · L).
        fit_of: (M,) which set of fits.
        keep: (M, BANK) 0 for columns of history in variants without it.
        skip: (M, D) column that the output starts from.
        modulation: (M, D, 3H).
        pool: (D, D) averages each group.
        center, scale: (M, D).
    """

    decode_map: Float32
    decode_offset: Float32
    latent_map: Float32
    fit_of: NDArray[np.int64]
    keep: Float32
    skip: NDArray[np.int64]
    modulation: Float32
    pool: Float32
    center: Float32
    scale: Float32

    @property
    def members(self) -> int:
        """M."""
        return len(self.fit_of)

    def of(self, members: Sequence[int]) -> Heads:
        """Some of the variants; sets of fits that none of them uses are dropped."""
        at = np.asarray(members, dtype=np.int64)
        used, fit_of = np.unique(self.fit_of[at], return_inverse=True)
        return Heads(
            self.decode_map[:, used],
            self.decode_offset[used],
            self.latent_map[:, at],
            fit_of.astype(np.int64),
            self.keep[at],
            self.skip[at],
            self.modulation[at],
            self.pool,
            self.center[at],
            self.scale[at],
        )


def heads_of(
    variants: Sequence[Variant], network: Generalist, *, statistics: Float32, bin_ms: float
) -> tuple[Heads, Generalist]:
    """Arrays of some variants, and the network with one member for each.

    Args:
        variants: at least one, all with the same groups.
        network: whose members they name.
        statistics: (C, 3) of the channels.
        bin_ms: bin width.
    """
    import torch

    from betz.model.generalist import BANK, HISTORY_FROM, Profiles, chosen

    own = chosen(network, [v.member for v in variants]).eval().requires_grad_(False)
    channels = len(statistics)
    sets: dict[int, tuple[BankFit, ...]] = {}
    for v in variants:
        sets.setdefault(id(v.fits), v.fits)
    order = {key: i for i, key in enumerate(sets)}
    maps, offsets = zip(*(_linear(fits) for fits in sets.values()), strict=True)
    contexts, identities, numbers, certainty, keep, skip = [], [], [], [], [], []
    for v in variants:
        context = [context_of(f, history=v.history, channels=channels, bin_ms=bin_ms) for f in v.fits]
        contexts.append(np.concatenate(context))
        identities.append(np.concatenate([identity_of(f, history=v.history) for f in v.fits], axis=1))
        numbers.append([channel_numbers(statistics, c) for c in context])
        certainty.append(certainty_of(v.fits[0].bins, bin_ms))
        keep.append(np.where((np.arange(BANK) < HISTORY_FROM) | v.history, 1, 0))
        skip.append([f.skip if v.history else f.skip_alone for f in v.fits for _ in f.columns])
    sizes = [len(f.columns) for f in variants[0].fits]
    pool = np.zeros((sum(sizes), sum(sizes)), np.float32)
    for g, size in enumerate(sizes):
        at = sum(sizes[:g])
        pool[at : at + size, at : at + size] = 1 / size
    # The channels' numbers hold the group's context, so the groups are read in one by one.
    latent, modulation = [], []
    for g, size in enumerate(sizes):
        at = sum(sizes[:g])
        profiles = Profiles(
            torch.from_numpy(np.stack([i[:, at : at + size] for i in identities]))[:, None],
            torch.from_numpy(np.stack([n[g] for n in numbers]))[:, None],
            torch.ones(len(variants), 1, channels),
            torch.from_numpy(np.stack([c[at : at + size] for c in contexts]))[:, None],
            torch.tensor(certainty, dtype=torch.float32)[:, None],
        )
        latent.append(own.read_in(profiles)[:, 0].numpy())
        modulation.append(own.modulation(profiles.context)[:, 0].numpy())
    heads = Heads(
        np.stack(maps, axis=1),
        np.stack(offsets),
        np.ascontiguousarray(np.concatenate(latent, axis=2).transpose(1, 0, 2)),
        np.array([order[id(v.fits)] for v in variants], dtype=np.int64),
        np.array(keep, dtype=np.float32),
        np.array(skip, dtype=np.int64),
        np.concatenate(modulation, axis=1),
        pool,
        np.stack([np.concatenate([f.center for f in v.fits]) for v in variants]).astype(np.float32),
        np.stack([np.concatenate([f.scale for f in v.fits]) for v in variants]).astype(np.float32),
    )
    return heads, own


def _linear(fits: Sequence[BankFit]) -> tuple[Float32, Float32]:
    """(F, D · BANK + D · SPEED) and its offset: decodes of all dimensions, then their group's speed."""
    weights = [f.weights.reshape(len(f.weights), -1) for f in fits]
    weights += [np.tile(f.speed, (1, len(f.columns))) for f in fits]
    offsets = [f.offset.ravel() for f in fits] + [np.tile(f.speed_offset, len(f.columns)) for f in fits]
    return np.concatenate(weights, axis=1), np.concatenate(offsets)


class GeneralistPart:
    """Calibrated variants on a stream; each keeps ``stride`` interleaved states (see the filter bank).

    Args:
        bank: filters.
        heads, network: from :func:`heads_of`.
    """

    def __init__(self, bank: FilterBank, heads: Heads, network: Generalist) -> None:
        import torch

        self.bank, self.heads, self.network = bank, heads, network
        self.members, self.dims = heads.members, len(heads.pool)
        width = len(heads.decode_map)
        self._map = np.concatenate((heads.decode_map.reshape(width, -1), heads.latent_map.reshape(width, -1)), axis=1)
        self._modulation = torch.from_numpy(heads.modulation)[:, None]
        self._pool = torch.from_numpy(heads.pool)
        self._skip = torch.from_numpy(heads.skip)[:, None, :, None]
        self._keep = torch.from_numpy(heads.keep)[:, None, None]

    def initial_state(self, rows: int) -> dict[str, Array]:
        """Bins before, rooted signals before, and the networks' states, oldest first."""
        bank, channels = self.bank, len(self.bank.rest)
        stride = bank.stride
        past = np.zeros((rows, (bank.steps - 1) * stride, channels), np.float32)
        return {
            "before": np.full((rows, stride - 1, channels), np.nan),
            "past": past,
            "state": np.zeros((rows, stride, self.members, self.dims, 2 * self.network.width), np.float32),
        }

    def advance(
        self,
        signals_BNC: Array,
        present_BN: NDArray[np.bool_],
        dead_BNC: NDArray[np.bool_],
        state: Mapping[str, Array],
    ) -> tuple[Float32, dict[str, Array]]:
        """Values (B, N, M, D) in behavior units, and the state after."""
        x = np.where(present_BN[..., None], signals_BNC, np.nan)
        features, before, past = [], [], []
        for row, bins in enumerate(x):
            rooted = self.bank.rooted(bins, state["before"][row])
            rooted[dead_BNC[row]] = 0
            features.append(self.bank.scaled(self.bank.filtered(rooted, state["past"][row])))
            before.append(np.concatenate((state["before"][row], bins))[len(bins) :])
            past.append(np.concatenate((state["past"][row], rooted))[len(bins) :])
        values, after = self.run(np.stack(features), state["state"])
        return values, {"before": np.stack(before), "past": np.stack(past), "state": after}

    def run(self, features_BNF: Float32, state: Float32) -> tuple[Float32, Float32]:
        """Values (B, N, M, D) and interleaved states (B, stride, M, D, 2H) after the last bin."""
        return interleaved(self._network, features_BNF, state, self.bank.stride)

    def _network(self, x_RNF: Float32, state_RMDS: Float32) -> tuple[Float32, Float32]:
        """Values (R, N, M, D), and states (R, N + 1, M, D, 2H) before the first and after each step."""
        import torch

        from betz.model.generalist import BANK, SPEED

        heads, (rows, steps, width) = self.heads, x_RNF.shape
        sets, dims, members = heads.decode_map.shape[1], self.dims, self.members
        split = sets * dims * (BANK + SPEED)
        linear = x_RNF.reshape(-1, width) @ self._map
        of_sets = (linear[:, :split].reshape(-1, sets, dims * (BANK + SPEED)) + heads.decode_offset)[:, heads.fit_of]
        with torch.inference_mode():
            latents = torch.from_numpy(linear[:, split:]).view(rows, steps, members, dims, -1)
            values = torch.from_numpy(of_sets).view(rows, steps, members, -1)
            decodes = values[..., : dims * BANK].reshape(rows, steps, members, dims, BANK).clamp(-CLIP, CLIP)
            decodes = decodes.permute(1, 2, 0, 3, 4) * self._keep
            speed = values[..., dims * BANK :].reshape(rows, steps, members, dims, SPEED).permute(1, 2, 0, 3, 4)
            skip = torch.take_along_dim(decodes, self._skip[None].expand(steps, -1, rows, -1, -1), -1)[..., 0]
            before = torch.from_numpy(np.ascontiguousarray(state_RMDS.swapaxes(0, 1)))
            before = before.view(members, rows * dims, -1)
            inputs = torch.cat((decodes, speed, latents.permute(1, 2, 0, 3, 4)), -1)
            out, states = self.network(inputs, skip, self._modulation, self._pool, before)
            all_ = torch.cat((before[None], states)).view(steps + 1, members, rows, dims, -1)
            return (
                out.permute(2, 0, 1, 3).numpy() * heads.scale + heads.center,
                all_.permute(2, 0, 1, 3, 4).numpy(),
            )

    def offline(self, features_NF: Float32, spans: Segments, segments: Segments) -> Float32:
        """(N, M, D) values in some spans of bins, decoded in chunks with a warm-up; NaN elsewhere.

        Args:
            features_NF: of a session.
            spans: (first bin, end bin) to decode.
            segments: states live inside one.
        """
        fresh = np.zeros((1, self.bank.stride, self.members, self.dims, 2 * self.network.width), np.float32)
        return offline(self.run, features_NF, fresh, spans=spans, segments=segments, stride=self.bank.stride)


def part_arrays(part: GeneralistPart) -> dict[str, Array]:
    """Everything of a part that has to be saved."""
    bank: dict[str, Any] = {name: getattr(part.bank, name) for name in ("counting", "rest", "mean", "sd")}
    arrays = {f"bank.{name}": np.asarray(value) for name, value in bank.items()}
    arrays["bank.counting"] = arrays["bank.counting"].astype(np.int64)
    arrays |= {f"heads.{name}": value for name, value in vars(part.heads).items()}
    return arrays | {f"network.{n}": v.numpy() for n, v in part.network.state_dict().items()}


def part_of(arrays: Mapping[str, Array], *, bin_ms: float, width: int, latents: int) -> GeneralistPart:
    """The part that :func:`part_arrays` described; raises ValueError where arrays disagree."""
    import torch

    from betz.model.generalist import Generalist

    def under(prefix: str) -> dict[str, Array]:
        return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}

    of_bank = under("bank.")
    bank = FilterBank(bin_ms, of_bank["counting"].astype(bool), of_bank["rest"], of_bank["mean"], of_bank["sd"])
    heads = Heads(**under("heads."))
    network = Generalist(members=heads.members, width=width, latents=latents)
    try:
        network.load_state_dict({n: torch.from_numpy(a.copy()) for n, a in under("network.").items()})
    except RuntimeError as error:
        raise ValueError(str(error)) from None
    if heads.decode_map.shape[0] != len(of_bank["mean"]) or heads.modulation.shape[2] != 3 * width:
        raise ValueError("the maps do not fit the channels or the network")
    return GeneralistPart(bank, heads, network.eval().requires_grad_(False))
