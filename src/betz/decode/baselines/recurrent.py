"""GRU and LSTM trained from scratch on the calibration minutes: the opponent that a lab can build in an afternoon.

Square roots of counts, z-scored; dropout and noise on the inputs; several networks of different seeds, trained as one
and averaged. All dimensions of a session share the networks, every unit (position, velocity, EMG …) weighing the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from betz.core.config import frozen_config, to_dict
from betz.core.errors import ConfigError
from betz.core.prediction import Array
from betz.core.seeds import SeedTree
from betz.core.session import BehaviorDim, Channel, Session
from betz.decode.decoder import save_decoder
from betz.decode.features import Float, Scaler, counting, square_root
from betz.decode.labels import continuous_labels, groups, inside
from betz.decode.streaming import StreamingDecoder

if TYPE_CHECKING:
    from betz.model.recurrent import RecurrentNetwork

DEFAULT_BUDGET_S = 60.0
WARM_UP_MS = 400.0


@frozen_config
class GRU:
    """Recipe of a GRU (Cho et al. 2014) from scratch.

    Args:
        width: units of the layer.
        members: networks that are trained at once and averaged.
        steps: gradient steps, at most.
        windows: windows in a step.
        window_ms: their length.
        rate, weight_decay: of AdamW.
        dropout: share of the input's values that are hidden in a step.
        channel_dropout: share of channels that are silent for a whole window.
        noise: standard deviation of Gaussian noise on the z-scored inputs.
        output_dropout: share of the layer's outputs that the read-out does not see.
        target_smoothing_ms: standard deviation of a Gaussian that smooths the behavior that is learned; 0 = none.
    """

    width: int = 128
    members: int = 2
    steps: int = 400
    windows: int = 16
    window_ms: float = 4500.0
    rate: float = 3e-3
    weight_decay: float = 0.01
    dropout: float = 0.3
    channel_dropout: float = 0.0
    noise: float = 0.5
    output_dropout: float = 0.3
    target_smoothing_ms: float = 0.0

    cell: ClassVar[str] = "gru"
    decodes: ClassVar[tuple[str, ...]] = ("continuous",)

    def __post_init__(self) -> None:
        positive = (self.width, self.members, self.steps, self.windows, self.window_ms, self.rate)
        shares = (self.dropout, self.channel_dropout, self.output_dropout)
        if min(positive) <= 0 or min(self.weight_decay, self.noise, self.target_smoothing_ms) < 0:
            raise ConfigError("sizes and the rate must be above 0, the others not below.", where=type(self).__name__)
        if not all(0 <= share < 1 for share in shares):
            raise ConfigError("shares must be from 0 to below 1.", where=type(self).__name__)

    def calibrate(
        self,
        session: Session,
        *,
        behavior: Sequence[str],
        budget_s: float | None = None,
        history: Any = None,
        seed: int = 0,
    ) -> RecurrentDecoder:
        """Train on all usable, labelled bins of the session.

        Args:
            session: labelled signals; take ``session.first(minutes=…)`` for less.
            behavior: names of continuous dimensions.
            budget_s: seconds of training at most (default 60); if it ends first, the report says how far it came.
            history: not used; part of every recipe.
            seed: of initial values, windows, dropout and noise.

        Raises:
            ConfigError: the budget is not above 0, or a dimension is discrete.
            DataError: too few labelled bins, a constant dimension, or no live channel.
        """
        budget_s = DEFAULT_BUDGET_S if budget_s is None else budget_s
        if not budget_s > 0:
            raise ConfigError(
                f"it cannot be trained in {budget_s:g} seconds.",
                where=f"{type(self).__name__}.calibrate",
                remedy="give a budget_s above 0, or use a closed form: betz.Wiener()",
            )
        dims = session.dims_of(list(behavior))
        y_NK, segments = continuous_labels(session, dims, recipe=type(self).__name__)
        rooted_NC = square_root(session.signals, counting(session.channels))
        used_N = inside(segments, session.num_bins)
        scaler = Scaler.fit(rooted_NC[used_N], session.channels)
        labelled_N = used_N & np.isfinite(y_NK).all(axis=1)
        center, scale = y_NK[labelled_N].mean(axis=0), y_NK[labelled_N].std(axis=0)
        z_NK = _smoothed((y_NK - center) / scale, segments, self.target_smoothing_ms / session.bin_ms)
        network, report = _train(
            self, scaler.apply(rooted_NC), z_NK, segments, dims, bin_ms=session.bin_ms, budget_s=budget_s, seed=seed
        )
        return RecurrentDecoder(
            bin_ms=session.bin_ms,
            channels=session.channels,
            behavior=dims,
            scaler=scaler,
            center=center,
            scale=scale,
            network=network,
            report={
                "recipe": self.cell,
                "settings": to_dict(self),
                "session": session.id,
                "span": list(session.span),
                "minutes": round(session.minutes, 4),
                "labelled_bins": int(labelled_N.sum()),
                "budget_s": budget_s,
                **report,
            },
        )


@frozen_config
class LSTM(GRU):
    """Recipe of an LSTM (Hochreiter & Schmidhuber 1997) from scratch; settings as of :class:`GRU`."""

    cell: ClassVar[str] = "lstm"


def _smoothed(z_NK: Float, segments: Sequence[tuple[int, int]], width_bins: float) -> Float:
    """Behavior smoothed within each segment; used on labels only, so it may look ahead. NaN spreads."""
    if width_bins == 0:
        return z_NK
    from scipy.ndimage import gaussian_filter1d

    out = z_NK.copy()
    for start, stop in segments:
        out[start:stop] = gaussian_filter1d(z_NK[start:stop], width_bins, axis=0, mode="nearest")
    return np.where(np.isnan(z_NK), np.nan, out)


def _train(
    recipe: GRU,
    x_NC: Float,
    z_NK: Float,
    segments: Sequence[tuple[int, int]],
    dims: tuple[BehaviorDim, ...],
    *,
    bin_ms: float,
    budget_s: float,
    seed: int,
) -> tuple[RecurrentNetwork, dict[str, Any]]:
    """The trained network, and what the training did, as JSON values."""
    import torch

    from betz.decode.fit import TrainingWindows, fit
    from betz.model.recurrent import RecurrentNetwork

    generator = torch.Generator().manual_seed(
        int(SeedTree(seed).sequence("recurrent").generate_state(1, np.uint64)[0] >> 1)
    )
    network = RecurrentNetwork(
        recipe.cell,
        members=recipe.members,
        channels=x_NC.shape[1],
        width=recipe.width,
        columns=len(dims),
        generator=generator,
    )
    windows = TrainingWindows(
        x_NC,
        z_NK,
        segments,
        bins=max(round(recipe.window_ms / bin_ms), 2),
        warm_up_bins=round(WARM_UP_MS / bin_ms),
    )
    weight_K = torch.zeros(len(dims))
    for columns in groups(dims):
        weight_K[list(columns)] = 1 / len(columns)
    state = network.start(recipe.windows)

    def hidden(share: float, *shape: int) -> Any:
        return (torch.rand(*shape, generator=generator) > share).float() / (1 - share)

    def loss() -> torch.Tensor:
        x, y, counts = windows.draw(recipe.members, recipe.windows, generator)
        if recipe.dropout:
            x = x * hidden(recipe.dropout, *x.shape)
        if recipe.channel_dropout:
            x = x * hidden(recipe.channel_dropout, 1, *x.shape[1:])
        if recipe.noise:
            x = x + recipe.noise * torch.randn(x.shape, generator=generator)
        out, _ = network(x, state, keep=hidden(recipe.output_dropout, *x.shape[:3], recipe.width))
        square = ((out - y) ** 2 * counts).sum((0, 2)) / counts.sum((0, 2)).clamp(min=1)
        each: torch.Tensor = square @ weight_K
        return each

    report = fit(
        list(network.parameters()),
        loss,
        steps=recipe.steps,
        rate=recipe.rate,
        weight_decay=recipe.weight_decay,
        budget_s=budget_s,
    )
    return network.requires_grad_(False), {"fit": asdict(report)}


class RecurrentDecoder(StreamingDecoder):
    """Calibrated recurrent networks, averaged; use :class:`GRU` or :class:`LSTM` to make one."""

    def __init__(
        self,
        *,
        bin_ms: float,
        channels: tuple[Channel, ...],
        behavior: tuple[BehaviorDim, ...],
        scaler: Scaler,
        center: Float,
        scale: Float,
        network: RecurrentNetwork,
        report: Mapping[str, Any],
    ) -> None:
        """``center``, ``scale``: (K,) mean and standard deviation of the behavior; ``report``: JSON values."""
        super().__init__(bin_ms=bin_ms, channels=channels, behavior=behavior, columns=len(behavior))
        self.scaler, self.center, self.scale = scaler, center, scale
        self.network, self.report = network, dict(report)
        self._counting = counting(channels)

    def initial_state(self, rows: int) -> dict[str, Array]:
        """The members' states, (B, M, S)."""
        return {"state": self.network.start(rows).transpose(0, 1).numpy().copy()}

    def advance(
        self, signals_BNC: Float, present_BN: NDArray[np.bool_], state: Mapping[str, Array]
    ) -> tuple[Array, None, dict[str, Array]]:
        """The same forward as in training; a lost bin is a bin at the calibration mean."""
        import torch

        z_BNC = self.scaler.apply(square_root(signals_BNC, self._counting), present_BN)
        members = self.network.read_in.shape[0]
        with torch.inference_mode():
            x_NBC = torch.from_numpy(z_BNC.astype(np.float32)).transpose(0, 1)
            before = torch.from_numpy(state["state"]).transpose(0, 1).contiguous()
            out, after = self.network(x_NBC[:, None].expand(-1, members, -1, -1), before)
            values_BNK = out.mean(1).transpose(0, 1).numpy().astype(np.float64)
            kept = after.transpose(0, 1).numpy().copy()
        return values_BNK * self.scale + self.center, None, {"state": kept}

    def save(self, folder: Path) -> None:
        """Write it as safetensors + JSON."""
        arrays: dict[str, Array] = {
            "mean": self.scaler.mean,
            "sd": self.scaler.sd,
            "center": self.center,
            "scale": self.scale,
        }
        arrays |= {f"network.{name}": value.numpy() for name, value in self.network.state_dict().items()}
        config = {"cell": self.network.cell, "report": self.report}
        save_decoder(folder, kind="recurrent", decoder=self, config=config, arrays=arrays)

    @classmethod
    def from_saved(
        cls,
        *,
        bin_ms: float,
        channels: tuple[Channel, ...],
        behavior: tuple[BehaviorDim, ...],
        config: Mapping[str, Any],
        arrays: Mapping[str, Array],
    ) -> RecurrentDecoder:
        """The decoder that :meth:`save` wrote; raises ValueError where arrays and lists disagree."""
        import torch

        from betz.model.recurrent import RecurrentNetwork

        members, inputs, width = arrays["network.read_in"].shape
        if inputs != len(channels) or arrays["network.read_out"].shape[2] != len(behavior):
            raise ValueError("the network does not fit the channels and dimensions")
        if not arrays["mean"].shape == arrays["sd"].shape == (len(channels),):
            raise ValueError("the scaler does not fit the channels")
        if not arrays["center"].shape == arrays["scale"].shape == (len(behavior),):
            raise ValueError("center and scale do not fit the dimensions")
        network = RecurrentNetwork(
            config["cell"],
            members=members,
            channels=inputs,
            width=width,
            columns=len(behavior),
            generator=torch.Generator(),
        )
        values = {name.removeprefix("network."): a for name, a in arrays.items() if name.startswith("network.")}
        try:
            network.load_state_dict({name: torch.from_numpy(a.copy()) for name, a in values.items()})
        except RuntimeError as error:
            raise ValueError(str(error)) from None
        return cls(
            bin_ms=bin_ms,
            channels=channels,
            behavior=behavior,
            scaler=Scaler(arrays["mean"], arrays["sd"]),
            center=arrays["center"],
            scale=arrays["scale"],
            network=network.requires_grad_(False),
            report=config["report"],
        )
