"""Members of a calibration, what each says of the blocks it was not fitted on, and the weights that follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from betz.core.session import BehaviorDim, Channel, Session
from betz.decode.bank import BankFit, without_labels
from betz.decode.dead import SilenceDetector
from betz.decode.features import counting
from betz.decode.gate import Expectation, Prior, error_moments, mix, pruned
from betz.decode.generalist import GeneralistPart, Heads, Variant, heads_of
from betz.decode.history import History
from betz.decode.members import Calibration, Part, mean_member, ridge_member
from betz.decode.mixture import MixtureDecoder, Placed

if TYPE_CHECKING:
    from betz.model.generalist import Generalist

RECURRENT_SHARE = 0.6
"""Of the budget; the rest is for fine-tuning."""

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Gate:
    """What is known of members before a calibration.

    Args:
        priors, expectations: by ``kind/known`` and ``kind/new`` (subject); ``/trained`` is added with a budget.
    """

    priors: Mapping[str, Prior] = field(default_factory=dict)
    expectations: Mapping[str, Expectation] = field(default_factory=dict)


def kind_of(dims: Sequence[BehaviorDim]) -> str:
    """What the priors of the gate go by: ``velocity``, ``position``, ``muscles`` or ``other``."""
    names = [d.name for d in dims]
    if all(n.rsplit("_", 1)[-1] in ("vx", "vy", "vz") for n in names):
        return "velocity"
    if all(n.rsplit("_", 1)[-1] in ("x", "y", "z") and "force" not in n for n in names):
        return "position"
    return "muscles" if all(n.startswith("emg") for n in names) else "other"


def gate_key(kind: str, *, known: bool, trained: bool) -> str:
    """Under what priors and expectations are kept."""
    return f"{kind}/{'known' if known else 'new'}" + ("/trained" if trained else "")


def part_of_variants(c: Calibration, variants: Sequence[Variant], network: Generalist) -> GeneralistPart:
    """Variants of the generalist on the filters of a calibration."""
    heads, own = heads_of(variants, network, statistics=c.statistics, bin_ms=c.session.bin_ms)
    return GeneralistPart(c.bank, heads, own)


def placed(c: Calibration, part: GeneralistPart) -> Placed:
    """A part that decodes every group, its columns in the order of the behavior."""
    return Placed(part, np.concatenate([np.array(g) for g in c.groups]).tolist(), len(c.dims))


class Mix:
    """Members of one calibration, their held-out predictions, and the weights that follow.

    Args:
        network: the pretrained generalist.
        c: the calibration.
        history: of the subject's earlier sessions.
        budget_s: seconds for members that are trained; 0 = none.
        gate: priors and expectations by :func:`gate_key`.
    """

    def __init__(
        self, network: Generalist, c: Calibration, *, history: History | None, budget_s: float, gate: Gate
    ) -> None:
        self.network, self.c, self.history, self.budget_s, self.gate = network, c, history, budget_s, gate
        self.held_out: dict[str, Float] = {}  # member -> (N, K)
        self.parts: dict[str, Part] = {}
        self.members: dict[str, list[tuple[str, int, float]]] = {}  # member -> (part, index, share)
        self.mean = np.zeros(len(c.dims))
        self.training: dict[str, Any] = {}

    def prepare(self) -> None:
        """Make all members and their held-out predictions."""
        self._closed_forms()
        self._generalist()
        if self.budget_s > 0:
            self._trained()

    def predictions(self, session: Session) -> dict[str, Float]:
        """(N, K) what each member says of a later session."""
        values: dict[str, Float] = {}
        x, there = session.signals[None], session.usable[None]
        for name, part in self.parts.items():
            alive = np.zeros(x.shape, dtype=bool)
            found, _ = part.advance(np.where(there[..., None], x, 0), there, alive, part.initial_state(1))
            for member, places in self.members.items():
                for of, index, share in places:
                    if of == name:
                        values[member] = values.get(member, 0) + share * found[0, :, index].astype(np.float64)
        values["mean"] = np.broadcast_to(self.mean, (session.num_bins, len(self.mean)))
        return values

    def decoder(
        self, channels: tuple[Channel, ...], used: NDArray[np.int64], head: Mapping[str, Any]
    ) -> MixtureDecoder:
        """The calibrated decoder of a stream with these channels, some of them used; ``head`` begins its report."""
        c = self.c
        self.prepare()
        weights, report = self._weights()
        mixed = {n: np.zeros((p.members, len(c.dims))) for n, p in self.parts.items()}
        offset = np.zeros(len(c.dims))
        for member, w in weights.items():
            if member == "mean":
                offset += w * self.mean
            for name, index, share in self.members.get(member, []):
                mixed[name][index] += share * w
        parts = {}
        for name, part in self.parts.items():
            kept = np.flatnonzero(mixed[name].any(axis=1)).tolist()
            if kept:
                parts[name] = _reduced(part, kept)
                mixed[name] = mixed[name][kept]
        return MixtureDecoder(
            bin_ms=c.session.bin_ms,
            channels=channels,
            behavior=c.dims,
            parts=parts,
            weights={n: mixed[n] for n in parts},
            offset=offset,
            spread=self.spread,
            used=used,
            silence=SilenceDetector.fit(c.session.signals, counting(c.session.channels), c.session.bin_ms),
            report={
                **head,
                "labelled_bins": int(c.labelled_N.sum()),
                "channels_used": len(used),
                **report,
            },
        )

    def _closed_forms(self) -> None:
        part, held_out = ridge_member(self.c)
        self.parts["ridge"], self.held_out["ridge"] = part, held_out
        self.members["ridge"] = [("ridge", 0, 1.0)]
        self.mean, self.held_out["mean"] = mean_member(self.c)

    def _generalist(self) -> None:
        """Variants with history and without, of every seed; and the decode without labels, where history allows it."""
        c, network = self.c, self.network
        known = self._known()
        sums, full, folds = self.closed = c.fits({g: w[0] for g, w in known.items()} or None)
        assert sums.atoms
        kinds = [("generalist", False)] + ([("generalist_history", True)] if known else [])
        seeds = range(network.members)
        bare = self._bare(known)

        def variants(fits: Sequence[BankFit]) -> list[Variant]:
            shared = tuple(fits)
            return [Variant(shared, m, history) for _, history in kinds for m in seeds]

        everything = variants(full)
        if bare is not None:
            self._unlabelled(bare, first=len(everything))
            everything += [Variant(bare, m, True) for m in seeds]
        self.parts["generalist"] = placed(c, part_of_variants(c, everything, network))
        for i, (kind, _) in enumerate(kinds):
            self.members[kind] = [("generalist", i * len(seeds) + m, 1 / len(seeds)) for m in seeds]
            self.held_out[kind] = np.full(c.y_NK.shape, np.nan)
        for k, fits in enumerate(folds):
            part = part_of_variants(c, variants(fits), network)
            values = part.offline(c.features, c.parts[k], c.session.segments)[..., c.order]
            rows = c.fold_N == k
            for i, (kind, _) in enumerate(kinds):
                mine = values[rows, i * len(seeds) : (i + 1) * len(seeds)]
                self.held_out[kind][rows] = mine.mean(axis=1)

    def _bare(self, known: Mapping[int, tuple[Float32, Float, Float]]) -> tuple[BankFit, ...] | None:
        """Fits from history alone, where it knows every group."""
        groups = self.c.groups
        if len(known) < len(groups):
            return None
        return tuple(without_labels(group, *known[g]) for g, group in enumerate(groups))

    def _unlabelled(self, fits: tuple[BankFit, ...], *, first: int) -> None:
        """The decode from history alone; nothing of it was fitted here, so all of the calibration is held out."""
        c, seeds = self.c, range(self.network.members)
        part = part_of_variants(c, [Variant(fits, m, True) for m in seeds], self.network)
        self.members["unlabelled"] = [("generalist", first + m, 1 / len(seeds)) for m in seeds]
        values = part.offline(c.features, c.session.segments, c.session.segments)
        self.held_out["unlabelled"] = values.mean(axis=1)[:, c.order].astype(np.float64)

    def _known(self) -> dict[int, tuple[Float32, Float, Float]]:
        """History of each group that has one."""
        c, known = self.c, {}
        for g, group in enumerate(c.groups):
            found = self.history.weights(c.session.channels, [c.dims[k] for k in group]) if self.history else None
            if found is not None:
                known[g] = found
        return known

    def _trained(self) -> None:
        """Members that are trained within the budget; one that was cut short says so in the report."""
        from betz.decode.fine_tune import fine_tuned
        from betz.decode.recurrent_part import train_recurrent
        from betz.model.generalist import chosen

        c = self.c
        part, held_out, report = train_recurrent(c, budget_s=RECURRENT_SHARE * self.budget_s)
        self.parts["recurrent"], self.held_out["gru"] = part, held_out
        self.members["gru"] = [("recurrent", m, 1 / part.members) for m in range(part.members)]
        self.training["gru"] = report
        used = self.training["gru"]["seconds"]
        sums, full, folds = self.closed
        history = all(f.history for f in full)
        first = chosen(self.network, [0])
        parts, held_out, report = fine_tuned(
            c, sums, full, folds, first, history=history, budget_s=max(self.budget_s - used, 1.0)
        )
        self.held_out["fine_tuned"], self.training["fine_tuned"] = held_out, report
        self.members["fine_tuned"] = []
        for g, (group, own) in enumerate(zip(c.groups, parts, strict=True)):
            self.parts[f"fine_tuned_{g}"] = Placed(own, group, len(c.dims))
            self.members["fine_tuned"] += [(f"fine_tuned_{g}", m, 1 / own.members) for m in range(own.members)]

    def _errors(self, group: tuple[int, ...]) -> tuple[Float, Float]:
        """(N, M, D) held-out errors of all members in a group, and (D,) their unit."""
        y = self.c.y_NK[self.c.labelled_N][:, list(group)]
        unit = _unit(y)
        found = [self.held_out[n][self.c.labelled_N][:, list(group)] for n in self.held_out]
        return np.stack([(p - y) / unit for p in found], axis=1), unit

    def moments(self, group: tuple[int, ...]) -> Float:
        """(M, M) mixed second moments of the members' held-out errors in a group."""
        errors, unit = self._errors(group)
        y = self.c.y_NK[self.c.labelled_N][:, list(group)]
        return error_moments(errors, (y / unit).var(axis=0))

    def _weights(self) -> tuple[dict[str, Float], dict[str, Any]]:
        """(K,) weights of each member, and what the report says of them."""
        c, names = self.c, list(self.held_out)
        rows = c.labelled_N
        weights = {name: np.zeros(len(c.dims)) for name in names}
        described: list[dict[str, Any]] = []
        self.spread = np.zeros(len(c.dims))
        minutes = float(rows.sum() * c.session.grid.bin_s / 60)
        for group in c.groups:
            at = list(group)
            errors, unit = self._errors(group)
            moments = self.moments(group)
            dims = [c.dims[k] for k in group]
            key = gate_key(kind_of(dims), known="generalist_history" in names, trained=self.budget_s > 0)
            prior = self.gate.priors.get(key, Prior({}))
            w = pruned(mix(moments, prior.weights(names, minutes), prior.pull / max(minutes, 0.1)))
            for name, value in zip(names, w, strict=True):
                weights[name][at] = value
            mixed = np.einsum("nmk,m->nk", errors, w)
            self.spread[at] = np.sqrt((mixed**2).mean(axis=0)) * unit
            held_out_r2 = float(1 - w @ moments @ w)
            expected = self.gate.expectations.get(key)
            described.append(
                {
                    "behavior": [d.name for d in dims],
                    "weights": {n: round(float(v), 4) for n, v in zip(names, w, strict=True) if v > 0},
                    "held_out_r2": {n: round(float(1 - moments[i, i]), 4) for i, n in enumerate(names)},
                    "held_out_r2_mix": round(held_out_r2, 4),
                }
            )
            if expected is not None:
                described[-1]["expected_r2"] = [round(v, 4) for v in expected.interval(held_out_r2, minutes)]
        found = {"mix": described, "folds": c.folds, "budget_s": self.budget_s}
        return weights, found | ({"training": self.training} if self.training else {})


def _unit(y_NK: Float) -> Float:
    """(K,) units in which errors of a group are added up: each muscle's own, one for the axes of a movement."""
    sd = y_NK.std(axis=0)
    return sd if len(sd) > 3 else np.full(len(sd), sd.mean())


def _reduced(part: Part, members: list[int]) -> Part:
    """The part with some of its members only."""
    if len(members) == part.members:
        return part
    if not isinstance(part, Placed):
        from betz.decode.recurrent_part import RecurrentPart

        return part.of_members(members) if isinstance(part, RecurrentPart) else part
    from betz.model.generalist import chosen

    inner = part.part
    heads: Heads = inner.heads.of(members)
    smaller = GeneralistPart(inner.bank, heads, chosen(inner.network, members).eval().requires_grad_(False))
    return Placed(smaller, part.columns.tolist(), part.total)
