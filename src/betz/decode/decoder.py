"""The decoder and recipe interfaces, and decoders on disk."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import CheckpointError
from betz.core.prediction import Array, Prediction
from betz.core.session import BehaviorDim, Channel, Session, channel_hash
from betz.model.folder import Layout, migrate, read_manifest, read_tensors, write_folder

FORMAT_VERSION = 1
MANIFEST, TENSORS = "decoder.json", "decoder.safetensors"
LAYOUT = Layout(
    "decoder",
    MANIFEST,
    TENSORS,
    FORMAT_VERSION,
    writer="Decoder.save",
    remedy="copy or save the decoder again",
)
KINDS = {
    "wiener": "betz.decode.baselines.wiener:WienerDecoder",
    "kalman": "betz.decode.baselines.kalman:KalmanDecoder",
    "ole": "betz.decode.baselines.ole:OLEDecoder",
    "discrete": "betz.decode.baselines.discrete:DiscreteDecoder",
    "recurrent": "betz.decode.baselines.recurrent:RecurrentDecoder",
    "transformer": "betz.decode.transformer:TransformerDecoder",
    "mixture": "betz.decode.mixture:MixtureDecoder",
}
"""Class of each kind of saved decoder, imported when one is loaded."""


@dataclass(frozen=True, eq=False)
class DecoderState:
    """Everything a stream keeps between pushes, as a value.

    Args:
        bin: (B,) int64 next bin of each row; all that a decoder knows of absolute time.
        frozen: (B,) bool.
        arrays: the decoder's own state, each array (B, …).
    """

    bin: NDArray[np.int64]
    frozen: NDArray[np.bool_]
    arrays: Mapping[str, Array] = field(default_factory=dict)


@runtime_checkable
class Decoder(Protocol):
    """A calibrated decoder: bins of signals in, predictions out (architecture page, house rules 1, 2, 11).

    ``latency_bins``: the prediction for bin k is emitted with bin k + latency_bins. ``context_bins``: how far back it
    can look, None if unbounded. ``behavior`` carries the units of ``Prediction.values``.
    """

    bin_ms: float
    latency_bins: int
    context_bins: int | None
    channels: tuple[Channel, ...]
    behavior: tuple[BehaviorDim, ...]

    def open(self, rows: int = 1, *, max_push_bins: int = 1) -> None:
        """Start ``rows`` independent streams that take at most ``max_push_bins`` bins a push."""

    def push(self, signals: Array, present: Array | None = None) -> Prediction:
        """Decode the next bins: (B, N, C) signals, or (C,) when rows = 1; ``present`` (B, N) is False for lost bins."""
        ...

    def reset(self, rows: Array | None = None) -> None:
        """Start the rows (int64 indices; None = all) anew: history and bin number are those of a fresh stream."""

    def freeze(self, rows: Array) -> None:
        """Freeze exactly these rows from now on: neither time nor output. An empty array thaws all."""

    def snapshot(self) -> DecoderState:
        """A copy of the state of all rows."""
        ...

    def restore(self, state: DecoderState) -> None:
        """Undo everything since the snapshot."""

    def save(self, folder: Path) -> None:
        """Write it as safetensors + JSON; :func:`load` reads it back."""


class Recipe(Protocol):
    """What becomes a decoder by calibration: ``Wiener()``, a loaded generalist, …

    An attribute ``decodes``, ``("continuous",)`` or ``("discrete",)``, says that it takes such behavior only.
    """

    def calibrate(
        self,
        session: Session,
        *,
        behavior: Sequence[str],
        budget_s: float | None = None,
        history: Any = None,
        seed: int = 0,
    ) -> Decoder:
        """Fit to all of the session's usable, labelled bins (length by ``session.first(minutes=…)`` alone)."""
        ...


def save_decoder(
    folder: Path, *, kind: str, decoder: Decoder, config: Mapping[str, Any], arrays: Mapping[str, Array]
) -> None:
    """Write a decoder as safetensors + JSON, the JSON last: a folder without it is no decoder.

    Args:
        folder: is made if needed; an older decoder in it is replaced.
        kind: key of :data:`KINDS`.
        decoder: gives bin width, channels and behavior.
        config: JSON values the class needs besides the arrays.
        arrays: float64 or int64 tensors.

    Raises:
        CheckpointError: the disk did not take it.
    """
    from safetensors.numpy import save

    tensors = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    content = {
        "kind": kind,
        "bin_ms": decoder.bin_ms,
        "channels": [asdict(c) for c in decoder.channels],
        "channel_hash": channel_hash(decoder.channels),
        "behavior": [asdict(d) for d in decoder.behavior],
        "config": dict(config),
    }
    write_folder(Path(folder), LAYOUT, content, lambda path: path.write_bytes(tensors))


def load(folder: str | Path) -> Any:
    """Load a decoder saved by ``Decoder.save``, or a pretrained generalist; nothing in the folder is executed.

    Args:
        folder: of a decoder or a generalist, or the name of a generalist that comes with Betz (``betz-1``).

    Returns:
        A :class:`Decoder`, or a :class:`Recipe` whose ``calibrate`` makes one.

    Raises:
        CheckpointError: it is neither, of a newer format, of an unknown kind, or damaged.
    """
    if not Path(folder).exists() or (Path(folder) / "generalist.json").exists():
        from betz.decode.weights import load_generalist, shipped

        known = shipped()
        if Path(folder).exists() or str(folder) in known:
            return load_generalist(known.get(str(folder), Path(folder)))[0]
    return load_decoder(folder)


def load_decoder(folder: str | Path) -> Decoder:
    """Load a decoder saved by ``Decoder.save``; nothing in the folder is executed.

    Raises:
        CheckpointError: it is no decoder, of a newer format, of an unknown kind, or damaged.
    """
    from safetensors.numpy import load_file

    path = Path(folder) / MANIFEST
    found = read_manifest(Path(folder), LAYOUT)
    manifest, arrays = migrate(found, read_tensors(Path(folder), LAYOUT, found, load_file), LAYOUT)
    kind = manifest.get("kind")
    if kind not in KINDS:
        raise CheckpointError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}.", where=str(path))
    module, name = KINDS[kind].split(":")
    try:
        channels = tuple(Channel(**c) for c in manifest["channels"])
        behavior = tuple(BehaviorDim.from_json(d) for d in manifest["behavior"])
        made = getattr(importlib.import_module(module), name).from_saved(
            bin_ms=float(manifest["bin_ms"]),
            channels=channels,
            behavior=behavior,
            config=manifest["config"],
            arrays=arrays,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the manifest does not fit ({type(error).__name__}: {error}).",
            where=str(path),
            remedy="calibrate and save the decoder again",
        ) from None
    if channel_hash(channels) != manifest["channel_hash"]:
        raise CheckpointError("the channel list was changed after saving.", where=str(path))
    assert isinstance(made, Decoder)
    return made
