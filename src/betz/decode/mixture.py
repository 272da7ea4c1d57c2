"""The decoder that Betz's own calibration makes: a weighted mix of members on one stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.prediction import Array
from betz.core.session import BehaviorDim, Channel
from betz.decode.dead import SilenceDetector
from betz.decode.decoder import save_decoder
from betz.decode.features import Scaler
from betz.decode.generalist import GeneralistPart, part_arrays, part_of
from betz.decode.members import Part, RidgePart
from betz.decode.streaming import StreamingDecoder

Float = NDArray[np.float64]


class MixtureDecoder(StreamingDecoder):
    """Weighted members; made by calibrating ``betz.load("betz-1")``.

    Args:
        bin_ms, channels, behavior: of the stream.
        parts: by name, members that share a state.
        weights: by name, (M, K) of each part's members.
        offset: (K,) the weighted calibration mean.
        spread: (K,) standard deviation of the held-out error.
        used: (C',) indices of the channels that are read.
        silence: when a channel counts as dead.
        report: what was chosen and how well it is expected to do, JSON values.
    """

    def __init__(
        self,
        *,
        bin_ms: float,
        channels: tuple[Channel, ...],
        behavior: tuple[BehaviorDim, ...],
        parts: Mapping[str, Part],
        weights: Mapping[str, Float],
        offset: Float,
        spread: Float,
        used: NDArray[np.int64],
        silence: SilenceDetector,
        report: Mapping[str, Any],
    ) -> None:
        super().__init__(bin_ms=bin_ms, channels=channels, behavior=behavior, columns=len(behavior))
        self.parts, self.weights = dict(parts), {name: np.asarray(w, np.float64) for name, w in weights.items()}
        self.offset, self.spread, self.report = offset, spread, dict(report)
        self.used, self.silence = used, silence

    def initial_state(self, rows: int) -> dict[str, Array]:
        """The states of all parts, and how long each channel has been silent."""
        state = {f"{n}.{k}": a for n, part in self.parts.items() for k, a in part.initial_state(rows).items()}
        return {"silent": np.zeros((rows, len(self.used)), np.int64), **state}

    def advance(
        self, signals_BNC: NDArray[np.float64], present_BN: NDArray[np.bool_], state: Mapping[str, Array]
    ) -> tuple[Array, Array, dict[str, Array]]:
        """The members' values, weighted."""
        x_BNC = signals_BNC if len(self.used) == len(self.channels) else signals_BNC[:, :, self.used]
        dead_BNC, silent = self.silence.advance(x_BNC, present_BN, state["silent"])
        out = np.broadcast_to(self.offset, (*signals_BNC.shape[:2], len(self.offset))).copy()
        after: dict[str, Array] = {"silent": silent}
        for name, part in self.parts.items():
            own = {k.removeprefix(f"{name}."): a for k, a in state.items() if k.startswith(f"{name}.")}
            values, new = part.advance(x_BNC, present_BN, dead_BNC, own)
            out += (values * self.weights[name]).sum(axis=2)
            after |= {f"{name}.{k}": a for k, a in new.items()}
        return out, np.broadcast_to(self.spread, out.shape).copy(), after

    def describe(self) -> str:
        """What was mixed and how well it is expected to do, for people to read."""
        lines = []
        for mixed in self.report.get("mix", ()):
            weights = ", ".join(f"{n} {100 * w:.0f} %" for n, w in sorted(mixed["weights"].items(), key=_by_weight))
            line = f"{', '.join(mixed['behavior'])}: {weights}; held-out R² {mixed['held_out_r2_mix']:.2f}"
            if "expected_r2" in mixed:
                line += "; expected on the coming minutes {:.2f} ({:.2f} … {:.2f})".format(*mixed["expected_r2"])
            lines.append(line)
        if not self.report.get("labelled_bins"):
            lines.append(f"no labels: decoded from history ({len(self.report['history'])} sessions)")
        return "\n".join(lines)

    def dead_channels(self, row: int = 0) -> tuple[str, ...]:
        """Ids of the channels that are silent for so long that they are read as at rest."""
        self._indices(np.array([row]))
        limit = self.silence.limit_C
        dead = (limit > 0) & (self._state["silent"][row] >= limit)
        return tuple(self.channels[self.used[i]].id for i in np.flatnonzero(dead))

    def save(self, folder: Path) -> None:
        """Write it as safetensors + JSON."""
        arrays: dict[str, Array] = {"offset": self.offset, "spread": self.spread, "used": self.used}
        arrays["silence"] = self.silence.limit_C
        arrays |= {f"weights.{name}": w for name, w in self.weights.items()}
        config: dict[str, Any] = {"report": self.report, "parts": {}}
        for name, part in self.parts.items():
            found, settings = _saved(part)
            arrays |= {f"{name}:{key}": a for key, a in found.items()}
            config["parts"][name] = settings
        save_decoder(folder, kind="mixture", decoder=self, config=config, arrays=arrays)

    @classmethod
    def from_saved(
        cls,
        *,
        bin_ms: float,
        channels: tuple[Channel, ...],
        behavior: tuple[BehaviorDim, ...],
        config: Mapping[str, Any],
        arrays: Mapping[str, Array],
    ) -> MixtureDecoder:
        """The decoder that :meth:`save` wrote; raises ValueError where arrays and lists disagree."""
        parts = {}
        for name, settings in config["parts"].items():
            own = {k.removeprefix(f"{name}:"): a for k, a in arrays.items() if k.startswith(f"{name}:")}
            parts[name] = _loaded(settings, own, bin_ms=bin_ms, channels=[channels[i] for i in arrays["used"]])
        weights = {name: arrays[f"weights.{name}"] for name in parts}
        if any(w.shape != (parts[n].members, len(behavior)) for n, w in weights.items()):
            raise ValueError("the weights do not fit the members and dimensions")
        return cls(
            bin_ms=bin_ms,
            channels=channels,
            behavior=behavior,
            parts=parts,
            weights=weights,
            offset=arrays["offset"],
            spread=arrays["spread"],
            used=arrays["used"],
            silence=SilenceDetector(arrays["silence"]),
            report=config["report"],
        )


def _by_weight(item: tuple[str, float]) -> float:
    return -item[1]


class Placed:
    """A part that decodes some of the dimensions, its values put in their columns; the others are 0.

    Args:
        part: whose columns they are.
        columns: of the behavior, one for each of the part's.
        total: K.
    """

    def __init__(self, part: GeneralistPart, columns: Sequence[int], total: int) -> None:
        self.part, self.columns, self.total = part, np.asarray(columns, dtype=np.int64), total
        self.members = part.members

    def initial_state(self, rows: int) -> dict[str, Array]:
        """As of the part."""
        return self.part.initial_state(rows)

    def advance(
        self,
        signals_BNC: Array,
        present_BN: NDArray[np.bool_],
        dead_BNC: NDArray[np.bool_],
        state: Mapping[str, Array],
    ) -> tuple[Array, dict[str, Array]]:
        """Values (B, N, M, K) and the state after."""
        values, after = self.part.advance(signals_BNC, present_BN, dead_BNC, state)
        return self.placed(values), after

    def placed(self, values: Array) -> Array:
        """(…, K) of (…, D)."""
        out = np.zeros((*values.shape[:-1], self.total), values.dtype)
        out[..., self.columns] = values
        return out


def _saved(part: Part) -> tuple[dict[str, Array], dict[str, Any]]:
    if isinstance(part, RidgePart):
        arrays: dict[str, Array] = {"mean": part.scaler.mean, "sd": part.scaler.sd}
        return arrays | {"taps": part.taps, "intercept": part.intercept}, {"kind": "ridge", "stride": part.stride}
    if isinstance(part, Placed):
        network = part.part.network
        settings: dict[str, Any] = {"kind": "generalist", "width": network.width, "latents": network.latents}
        return part_arrays(part.part) | {"columns": part.columns}, settings | {"total": part.total}
    from betz.decode.recurrent_part import RecurrentPart

    assert isinstance(part, RecurrentPart)
    return part.arrays(), {"kind": "recurrent"}


def _loaded(
    settings: Mapping[str, Any], arrays: dict[str, Array], *, bin_ms: float, channels: Sequence[Channel]
) -> Part:
    if settings["kind"] == "ridge":
        taps = arrays["taps"]
        if taps.shape[1] != len(channels):
            raise ValueError("the taps do not fit the channels")
        return RidgePart(Scaler(arrays["mean"], arrays["sd"]), taps, arrays["intercept"], int(settings["stride"]))
    if settings["kind"] == "generalist":
        columns = arrays.pop("columns").tolist()
        part = part_of(arrays, bin_ms=bin_ms, width=int(settings["width"]), latents=int(settings["latents"]))
        return Placed(part, columns, int(settings["total"]))
    if settings["kind"] == "recurrent":
        from betz.decode.recurrent_part import RecurrentPart

        found: RecurrentPart = RecurrentPart.of(arrays, bin_ms=bin_ms, channels=channels)
        return found
    raise ValueError(f"unknown part {settings['kind']!r}")
