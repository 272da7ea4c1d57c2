"""The Transformer as a streaming decoder, in its two semantics.

``sliding``: keys and values of the last bins are kept; every layer looks back W bins. ``recompute``: the counts of the
last W bins are kept, and the window that ends with a bin is computed anew, for models trained on cut windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from betz.core.config import from_dict, to_dict
from betz.core.errors import ConfigError, StreamError
from betz.core.prediction import Array, Prediction
from betz.core.session import BehaviorDim, Channel
from betz.decode.decoder import save_decoder
from betz.decode.streaming import StreamingDecoder
from betz.model.presets import ModelConfig
from betz.model.sequence import Alphabet, Beam, Greedy
from betz.model.transformer import ModelOutput, Transformer
from betz.tokens.normalize import Normalizer
from betz.tokens.window import Window


@dataclass(frozen=True)
class LiveInputs:
    """What a model with constraint and return tokens is told of the task while it runs.

    Args:
        brain_control: share of control that the decoder has, 0 … 1.
        active, passive: active and passive assistance, 0 … 1.
        returns: sum of rewards expected over the coming 10 s; None: it is not told.
        reward: whether the bin is rewarded; only with ``returns``.
    """

    brain_control: float = 1.0
    active: float = 0.0
    passive: float = 0.0
    returns: int | None = None
    reward: bool = False

    def __post_init__(self) -> None:
        if not all(0 <= v <= 1 for v in (self.brain_control, self.active, self.passive)):
            raise ConfigError("brain_control, active and passive lie between 0 and 1.", where="LiveInputs")
        if self.returns is not None and self.returns < 0:
            raise ConfigError("returns cannot be negative.", where="LiveInputs", remedy="None: it is not told")

    @property
    def constraint(self) -> NDArray[np.float32]:
        """(3,) as the model reads it."""
        return np.array([1 - self.brain_control, self.active, self.passive], np.float32)

    @property
    def return_index(self) -> int:
        """The return, −1 = none."""
        return -1 if self.returns is None else self.returns


class TransformerDecoder(StreamingDecoder):
    """A Transformer for one session's channels and behavior; :meth:`make` gives one.

    Attributes:
        model, normalizer: the network, and the scale of its behavior.
        inputs: what it is told of constraints and return; by default full brain control, no assistance, no return.
        notes: what a user should know, e.g. that power channels are not read.
    """

    def __init__(
        self,
        model: Transformer,
        *,
        bin_ms: float,
        channels: tuple[Channel, ...],
        behavior: tuple[BehaviorDim, ...],
        normalizer: Normalizer,
        inputs: LiveInputs | None = None,
        beam_width: int = 0,
    ) -> None:
        continuous = [d for d in behavior if d.kind == "continuous"]
        written = [d for d in behavior if d.kind == "discrete"]
        self.model, self.normalizer, self.inputs = model.eval(), normalizer, inputs or LiveInputs()
        self.config, self.tokenizer = model.config, model.config.tokenizer
        _check_behavior(self.config, continuous, written, normalizer)
        if self.config.rotary == "bins" and abs(bin_ms - self.config.bin_ms) > 1e-9 * bin_ms:
            raise ConfigError(
                f"the model counts bins of {self.config.bin_ms:g} ms, the signals have bins of {bin_ms:g} ms.",
                where="TransformerDecoder",
                remedy="rebin the session, or use a model with rotary='ms'",
            )
        self._arrays, self.notes = _arrays(channels)
        self._dims = max(len(continuous), 1)  # a sequence head alone reads from one token of unknown behavior
        self._continuous = len(continuous)
        self._alphabet = Alphabet(written[0].classes[1:]) if written else None
        self.beam_width = beam_width
        self._writer: Any = Beam(width=beam_width) if beam_width else Greedy()
        self._heads = (*(("behavior",) if continuous else ()), *(("sequence",) if written else ()))
        widths = tuple(len(columns) for columns in self._arrays)
        self._tokens_per_bin = self.tokenizer.most_tokens(channels=widths, dims=self._dims)
        self.tokenizer.layout.check(spikes=self.tokenizer.spike_tokens(widths), dims=self._dims)
        columns = len(continuous) + (len(written[0].classes) if written else 0)
        super().__init__(bin_ms=bin_ms, channels=channels, behavior=behavior, columns=columns)

    @classmethod
    def make(
        cls,
        model: Transformer,
        *,
        bin_ms: float,
        channels: tuple[Channel, ...],
        behavior: tuple[BehaviorDim, ...],
        normalizer: Normalizer,
        inputs: LiveInputs | None = None,
        beam_width: int = 0,
    ) -> TransformerDecoder:
        """A decoder in the semantics of the model.

        Args:
            model: with a behavior head, or a sequence head for a discrete dimension.
            bin_ms: width of the bins.
            channels: of the session; only count channels are read.
            behavior: continuous dimensions in the order of the normaliser, then at most one discrete one whose classes
                are the blank and the symbols of the sequence head.
            normalizer: scale of the continuous dimensions.
            inputs: constraint and return inputs to begin with.
            beam_width: prefixes that decoding text keeps; 0 = greedy.

        Raises:
            ConfigError: the model does not fit the session.
        """
        from betz.decode.transformer_recompute import RecomputeDecoder
        from betz.decode.transformer_sliding import SlidingDecoder

        kind = SlidingDecoder if model.config.semantics == "sliding" else RecomputeDecoder
        return kind(
            model,
            bin_ms=bin_ms,
            channels=channels,
            behavior=behavior,
            normalizer=normalizer,
            inputs=inputs,
            beam_width=beam_width,
        )

    def set_inputs(self, inputs: LiveInputs) -> None:
        """Tell the model of other constraints or another return, from the next push on, in all rows.

        Raises:
            ConfigError: the model has no such tokens, or the return exceeds its table.
        """
        told = inputs.returns is not None
        if (told and not self.config.returns) or (inputs.constraint.any() and not self.config.constraints):
            raise ConfigError(
                "the model has no tokens for these inputs.",
                where="set_inputs",
                remedy="leave them at their defaults, or use a model with constraints=True or returns=True",
            )
        if told and inputs.return_index >= self.config.max_return:
            raise ConfigError(
                f"a return of {inputs.returns} exceeds the model's largest, {self.config.max_return - 1}.",
                where="set_inputs",
            )
        self.inputs = inputs

    def save(self, folder: Path) -> None:
        """Write it as safetensors + JSON."""
        weights = {name: t.detach().cpu() for name, t in self.model.state_dict().items()}
        arrays = {n: (t.float() if t.dtype == torch.bfloat16 else t).numpy() for n, t in weights.items()}
        config = {
            "model": to_dict(self.config),
            "dtype": str(self.model.embed.start.dtype).removeprefix("torch."),
            "normalizer": self.normalizer.to_dict(),
            "inputs": asdict(self.inputs),
            "beam_width": self.beam_width,
        }
        save_decoder(folder, kind="transformer", decoder=self, config=config, arrays=arrays)

    @classmethod
    def from_saved(
        cls,
        *,
        bin_ms: float,
        channels: tuple[Channel, ...],
        behavior: tuple[BehaviorDim, ...],
        config: Mapping[str, Any],
        arrays: Mapping[str, Array],
    ) -> TransformerDecoder:
        """The decoder that :meth:`save` wrote; raises ValueError where its parts disagree."""
        try:
            dtype = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}[config["dtype"]]
            model = Transformer(from_dict(ModelConfig, config["model"])).to(dtype)
            model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in arrays.items()})
            return cls.make(
                model,
                bin_ms=bin_ms,
                channels=channels,
                behavior=behavior,
                normalizer=Normalizer.from_dict(config["normalizer"]),
                inputs=LiveInputs(**config["inputs"]),
                beam_width=int(config["beam_width"]),
            )
        except (ConfigError, RuntimeError) as error:
            raise ValueError(str(error)) from None

    def push(self, signals: Array, present: Array | None = None) -> Prediction:
        """Decode the next bins; ``text`` is all that each row has written since its reset."""
        prediction = super().push(signals, present)
        if self._alphabet is None:
            return prediction
        written = [self._alphabet.text(self._writer.labels(state)) for state in self._state["text"]]
        return replace(prediction, text=tuple(written))

    # ---- what both semantics share

    def _texts(self, rows: int) -> dict[str, Array]:
        """The state of the text of fresh rows."""
        if self._alphabet is None:
            return {}
        texts = np.empty(rows, object)
        texts[:] = [self._writer.start() for _ in range(rows)]
        return {"text": texts}

    def _write(self, texts_B: Array, rows: Sequence[int], scores_RNV: Array, present_BN: NDArray[np.bool_]) -> Array:
        """The state of the text after these bins; lost ones say nothing."""
        after_B = texts_B.copy()
        for b, scores_NV in zip(rows, scores_RNV, strict=True):
            after_B[b] = self._writer.advance(texts_B[b], scores_NV[present_BN[b]])
        return after_B

    def _counts(self, signals_BNC: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The count channels as integers; anything beyond 255 is far beyond the model's table."""
        columns = [c for array in self._arrays for c in array]
        counts_BNC = signals_BNC[:, :, columns]
        whole = (counts_BNC >= 0) & (counts_BNC == np.rint(counts_BNC))
        if not whole.all():
            row, bin_, channel = np.argwhere(~whole)[0]
            raise StreamError(
                f"{counts_BNC[row, bin_, channel]:g} is no spike count.",
                where=f"row {row}, bin {self._bin[row] + bin_}, channel {self.channels[columns[channel]].id!r}",
                remedy="push integer counts ≥ 0 in the columns of count channels",
            )
        return np.minimum(counts_BNC, 255).astype(np.uint8)

    def _window(
        self,
        counts_NC: NDArray[np.uint8],
        present_N: NDArray[np.bool_],
        *,
        first_bin: int,
        constraint_N3: Array,
        returns_N: Array,
        rewards_N: Array,
    ) -> Window:
        """A window of one row with unknown behavior."""
        ends = np.cumsum([len(columns) for columns in self._arrays])
        K = self._dims
        return Window(
            counts=tuple(np.split(counts_NC, ends[:-1], axis=1)),
            bin_ms=self.bin_ms,
            behavior=np.full((len(counts_NC), K), np.nan, np.float32),
            constraint=np.repeat(constraint_N3[:, :, None], K, axis=2),
            returns=returns_N,
            rewards=rewards_N,
            present=present_N,
            first_bin=first_bin,
        )

    def _now(self, bins: int) -> dict[str, Array]:
        """Constraint and return of the bins of a push."""
        return {
            "constraint_N3": np.tile(self.inputs.constraint, (bins, 1)),
            "returns_N": np.full(bins, self.inputs.return_index, np.int64),
            "rewards_N": np.full(bins, int(self.inputs.reward), np.int64),
        }

    def _values(self, output: ModelOutput, bins_R: Sequence[int], last: int) -> tuple[Array, Array | None]:
        """Of the last bins of each row: (R, N, columns) values and probabilities, and (R, N, V) scores of symbols.

        Args:
            output: behavior is that of rows with so many bins, one after the other.
            bins_R: bins of each row.
            last: N.
        """
        parts: list[Array] = []
        scores_RNV: Array | None = None
        if output.behavior is not None:
            K = self._continuous
            ends_R = np.cumsum(np.asarray(bins_R) * K)
            said = output.behavior.double().cpu().numpy()[ends_R[:, None] - last * K + np.arange(last * K)]
            parts.append(self.normalizer.inverse(said.reshape(len(bins_R), last, K)))
        if output.sequence_logits is not None:
            logits = output.sequence_logits.double().cpu()
            picked = torch.stack([row[n - last : n] for row, n in zip(logits, bins_R, strict=True)])
            scores_RNV = picked.numpy()
            parts.append(picked.softmax(-1).numpy())
        return np.concatenate(parts, axis=2), scores_RNV


def _arrays(channels: Sequence[Channel]) -> tuple[tuple[tuple[int, ...], ...], tuple[str, ...]]:
    """Columns of the count channels of each array, and a note where other channels are not read."""
    names = list(dict.fromkeys(c.array for c in channels if c.kind != "power"))
    arrays = tuple(tuple(i for i, c in enumerate(channels) if c.array == n and c.kind != "power") for n in names)
    power = sum(c.kind == "power" for c in channels)
    if not arrays:
        raise ConfigError(
            f"the session has {power} power channels and no count channels, and the Transformer reads counts.",
            where="TransformerDecoder",
            remedy="import threshold crossings or units, or use a decoder that reads power",
        )
    notes = (f"the Transformer reads the {len(channels) - power} count channels; {power} power channels are not used",)
    return arrays, notes if power else ()


def _check_behavior(
    config: ModelConfig, continuous: Sequence[BehaviorDim], written: Sequence[BehaviorDim], normalizer: Normalizer
) -> None:
    """Raise :class:`ConfigError` unless the model's heads and the normaliser fit the behavior."""
    where = "TransformerDecoder"
    names, units = tuple(d.name for d in continuous), tuple(d.unit for d in continuous)
    if (names, units) != (normalizer.names, normalizer.units):
        scaled = ", ".join(f"{n} ({u})" for n, u in zip(normalizer.names, normalizer.units, strict=True))
        raise ConfigError(
            f"the behavior {', '.join(f'{n} ({u})' for n, u in zip(names, units, strict=True)) or 'is empty'}; "
            f"the normaliser was fitted to {scaled or 'nothing'}.",
            where=where,
            remedy="decode the dimensions that the model was fitted to, in their order",
        )
    if continuous and config.objective == "spikes":
        raise ConfigError("a model with objective='spikes' has no behavior head.", where=where)
    classes = [len(d.classes) for d in written]
    if classes != ([config.sequence_classes] if config.sequence_classes else []):
        raise ConfigError(
            f"{len(written)} discrete dimensions of {classes} classes, and a sequence head of "
            f"{config.sequence_classes} classes.",
            where=where,
            remedy="give one discrete dimension whose classes are the blank and the head's symbols",
        )
    if config.behavior_input == "given" and config.semantics != "sliding":
        raise ConfigError(
            "a model that is fed its own predictions streams with semantics='sliding' only.",
            where=where,
            remedy="use dataclasses.replace(config, semantics='sliding')",
        )
