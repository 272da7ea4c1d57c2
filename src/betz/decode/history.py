"""What is kept of a subject's earlier sessions: closed-form weights and statistics, small, and no recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import DataError
from betz.core.session import BehaviorDim, Channel, Session
from betz.decode.bank import TARGETS, Blocks, solve
from betz.decode.filterbank import FILTERS, FilterBank
from betz.decode.labels import groups
from betz.model.folder import Layout, read_manifest, read_tensors, write_folder

Float32 = NDArray[np.float32]
Float = NDArray[np.float64]

DECAY = 0.9
"""Weight of a session relative to the one after it."""
RIDGE = 0.1
MIN_LABELLED = 200
LAYOUT = Layout(
    "history", "history.json", "history.safetensors", 1, writer="History.save", remedy="build the history again"
)


@dataclass(frozen=True, eq=False)
class Covariance:
    """Decayed means over sessions of one group of dimensions.

    Args:
        dims: the D dimensions.
        weight: sum of the sessions' weights.
        cross: (F, TARGETS · D) Σ weight · covariance of features and targets, both z-scored in their session.
        center, scale: (D,) Σ weight · mean and standard deviation of behavior.
    """

    dims: tuple[BehaviorDim, ...]
    weight: float
    cross: Float32
    center: Float
    scale: Float


@dataclass(frozen=True, eq=False)
class History:
    """A subject's earlier sessions on one array, oldest first; :meth:`add` gives a longer one.

    Args:
        subject: whose sessions they are.
        channels: of the newest session; sums refer to them.
        sessions: ids, oldest first.
        gram: (F, F) Σ weight · covariance of features.
        weight: sum of the sessions' weights.
        groups: by the names of its dimensions, joined with commas.
        profile: (F, 2) mean and standard deviation of the newest session's filtered signals.
    """

    subject: str
    channels: tuple[Channel, ...] = ()
    sessions: tuple[str, ...] = ()
    gram: Float32 = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    weight: float = 0.0
    groups: Mapping[str, Covariance] = field(default_factory=dict)
    profile: Float32 = field(default_factory=lambda: np.zeros((0, 2), np.float32))

    @classmethod
    def of(cls, sessions: Sequence[Session], *, behavior: Sequence[str]) -> History:
        """The history of some sessions of one subject, oldest first; behavior that a session lacks is left out of it.

        Raises:
            DataError: no session, more than one subject, or nothing labelled.
        """
        if not sessions:
            raise DataError("there is no earlier session.", where="History.of", remedy="calibrate without a history")
        made = cls(sessions[0].subject)
        for session in sessions:
            made = made.add(session, behavior=behavior)
        return made

    def add(self, session: Session, *, behavior: Sequence[str]) -> History:
        """The history with one more, newer session.

        Raises:
            DataError: another subject, a session that is in it, or less than 200 labelled bins.
        """
        where = f"session {session.id}"
        if session.subject != self.subject:
            raise DataError(f"it is of {session.subject}, the history of {self.subject}.", where=where)
        if session.id in self.sessions:
            raise DataError("it is in the history already.", where=where)
        known = {d.name for d in session.dims}
        dims = session.dims_of([n for n in behavior if n in known])
        bank = FilterBank.fit(session.signals, session.segments, session.channels, session.bin_ms)
        features = bank.features(session.signals, session.segments)
        parts = groups(dims)
        y_NK = session.behavior_of([d.name for d in dims])
        if np.isfinite(y_NK).all(axis=1).sum() < MIN_LABELLED:
            raise DataError(f"fewer than {MIN_LABELLED} bins are labelled.", where=where, remedy="leave it out")
        sums = Blocks(features, y_NK, parts, session.segments, bin_s=session.bin_ms / 1000, atoms=1)
        number = max(float(sums.number[0]), 1.0)
        old = self._for(session.channels)
        found = {name: _faded(group) for name, group in old.groups.items()}
        for g, columns in enumerate(parts):
            first, _ = sums.spans[g]
            stop = first + TARGETS * len(columns)
            mean = sums.sum_t[0][first:stop] / number
            cross = (sums.cross[0][:, first:stop] - np.outer(sums.sum_x[0], mean)) / number
            of = tuple(dims[k] for k in columns)
            before = found.get(_key(of))
            new = Covariance(of, 1.0, cross.astype(np.float32), sums.center[list(columns)], sums.scale[list(columns)])
            found[_key(of)] = new if before is None else _sum(before, new)
        gram = sums.gram[0] / np.float32(number)
        return History(
            self.subject,
            session.channels,
            (*self.sessions, session.id),
            gram if not old.weight else np.float32(DECAY) * old.gram + gram,
            DECAY * old.weight + 1.0,
            found,
            np.stack((bank.mean, bank.sd), axis=1),
        )

    def weights(self, channels: Sequence[Channel], dims: Sequence[BehaviorDim]) -> tuple[Float32, Float, Float] | None:
        """Weights (F, TARGETS, D) for these channels, and the behavior's mean and standard deviation (D,).

        None if the dimensions were never recorded together, or no channel is known. Channels that are not known get 0.
        """
        wanted = [(d.name, d.unit) for d in dims]
        able = {key: g for key, g in self.groups.items() if {(d.name, d.unit) for d in g.dims} >= set(wanted)}
        old = self._for(channels)
        if not able or not old.weight:
            return None
        key = max(able, key=lambda k: able[k].weight)
        group = able[key]
        at = [[(d.name, d.unit) for d in group.dims].index(w) for w in wanted]
        cross = old.groups[key].cross.reshape(-1, TARGETS, len(group.dims))[:, :, at] / np.float32(group.weight)
        found = solve(old.gram / np.float32(old.weight), cross.reshape(len(cross), -1), RIDGE)
        return (
            found.reshape(len(found), TARGETS, len(at)),
            group.center[at] / group.weight,
            group.scale[at] / group.weight,
        )

    def _for(self, channels: Sequence[Channel]) -> History:
        """The same sums for other channels, matched by id and kind: known ones are reordered, new ones get zeros."""
        if tuple(channels) == self.channels:
            return self
        known = {(c.id, c.kind): i for i, c in enumerate(self.channels)}
        at = [known.get((c.id, c.kind), -1) for c in channels]
        if all(i < 0 for i in at):
            return History(self.subject)
        take = np.array([i * FILTERS + k if i >= 0 else -1 for i in at for k in range(FILTERS)])
        there = take >= 0
        gram = np.where(there[:, None] & there[None], self.gram[np.ix_(take, take)], np.float32(0))
        moved = {
            name: Covariance(
                g.dims, g.weight, np.where(there[:, None], g.cross[take], np.float32(0)), g.center, g.scale
            )
            for name, g in self.groups.items()
        }
        profile = np.where(there[:, None], self.profile[take], np.float32(0))
        return History(self.subject, tuple(channels), self.sessions, gram, self.weight, moved, profile)

    def save(self, folder: str | Path) -> None:
        """Write it as safetensors + JSON."""
        from dataclasses import asdict

        from safetensors.numpy import save

        arrays: dict[str, NDArray[Any]] = {"gram": self.gram, "profile": self.profile}
        listed = []
        for i, group in enumerate(self.groups.values()):
            arrays |= {f"cross_{i}": group.cross, f"center_{i}": group.center, f"scale_{i}": group.scale}
            listed.append({"dims": [asdict(d) for d in group.dims], "weight": group.weight})
        content = {
            "subject": self.subject,
            "channels": [asdict(c) for c in self.channels],
            "sessions": list(self.sessions),
            "weight": self.weight,
            "groups": listed,
        }
        tensors = save({name: np.ascontiguousarray(a) for name, a in arrays.items()})
        write_folder(Path(folder), LAYOUT, content, lambda path: path.write_bytes(tensors))

    @classmethod
    def load(cls, folder: str | Path) -> History:
        """The history that :meth:`save` wrote.

        Raises:
            CheckpointError: the folder holds none, or it is damaged.
        """
        from safetensors.numpy import load_file

        manifest = read_manifest(Path(folder), LAYOUT)
        arrays = read_tensors(Path(folder), LAYOUT, manifest, load_file)
        made = {}
        for i, group in enumerate(manifest["groups"]):
            dims = tuple(BehaviorDim.from_json(d) for d in group["dims"])
            made[_key(dims)] = Covariance(
                dims, float(group["weight"]), arrays[f"cross_{i}"], arrays[f"center_{i}"], arrays[f"scale_{i}"]
            )
        return cls(
            manifest["subject"],
            tuple(Channel(**c) for c in manifest["channels"]),
            tuple(manifest["sessions"]),
            arrays["gram"],
            float(manifest["weight"]),
            made,
            arrays["profile"],
        )


def _key(dims: Sequence[BehaviorDim]) -> str:
    return ",".join(d.name for d in dims)


def _faded(group: Covariance) -> Covariance:
    return Covariance(
        group.dims,
        DECAY * group.weight,
        np.float32(DECAY) * group.cross,
        DECAY * group.center,
        DECAY * group.scale,
    )


def _sum(a: Covariance, b: Covariance) -> Covariance:
    return Covariance(a.dims, a.weight + b.weight, a.cross + b.cross, a.center + b.center, a.scale + b.scale)
