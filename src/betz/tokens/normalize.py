"""The scale of behavior: what the model reads and predicts lies in [−1, 1]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import ConfigError, DataError
from betz.core.session import BehaviorDim

Array = NDArray[Any]
QUANTILE = 0.999
SMALLEST = 1e-6
"""A dimension whose quantile is no larger is divided by 1, as the reference does with dimensions that do not move."""


@dataclass(frozen=True, eq=False)
class Normalizer:
    """Divides each behavior dimension by a quantile of its absolute values, without centring, then clamps.

    Args:
        names, units: of the K dimensions.
        scale: (K,) float64 in the dimensions' units; all positive and finite.
        quantile: that was taken of the absolute values; 1 = their maximum.
        clamp: whether values beyond ±1 are clamped.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    scale: NDArray[np.float64]
    quantile: float = QUANTILE
    clamp: bool = True

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.units) == len(self.scale) or not np.all(
            np.isfinite(self.scale) & (self.scale > 0)
        ):
            raise ConfigError("every dimension needs a name, a unit and a positive scale.", where="Normalizer")

    @classmethod
    def fit(
        cls, values_NK: Array, dims: Sequence[BehaviorDim], *, quantile: float = QUANTILE, clamp: bool = True
    ) -> Normalizer:
        """The scale of these values, which must be training or calibration data alone.

        Args:
            values_NK: behavior in its units; NaN = not known.
            dims: its dimensions.
            quantile, clamp: see :class:`Normalizer`.

        Raises:
            DataError: a dimension has no known value.
            ConfigError: the quantile is not in (0, 1].
        """
        if not 0 < quantile <= 1:
            raise ConfigError(f"a quantile of {quantile} is impossible.", where="Normalizer", remedy="0 < quantile ≤ 1")
        unknown = [d.name for k, d in enumerate(dims) if not np.isfinite(values_NK[:, k]).any()]
        if unknown:
            raise DataError(
                f"{', '.join(unknown)} has no known value, so it has no scale.",
                where="Normalizer",
                remedy="leave the dimension out, or fit on data that has it",
            )
        scale = np.nanquantile(np.abs(np.asarray(values_NK, np.float64)), quantile, axis=0)
        scale = np.where(scale > SMALLEST, scale, 1.0)
        return cls(tuple(d.name for d in dims), tuple(d.unit for d in dims), scale, float(quantile), clamp)

    def apply(self, values: Array) -> NDArray[np.float32]:
        """(…, K) values in units to model values; NaN stays."""
        scaled = np.asarray(values, np.float64) / self.scale
        return (np.clip(scaled, -1, 1) if self.clamp else scaled).astype(np.float32)

    def clamped(self, values: Array) -> NDArray[np.int64]:
        """(K,) how many values :meth:`apply` clamps."""
        beyond = np.abs(np.asarray(values, np.float64) / self.scale) > 1
        found = beyond.reshape(-1, len(self.scale)).sum(axis=0) if self.clamp else np.zeros(len(self.scale))
        return np.asarray(found, np.int64)

    def inverse(self, values: Array) -> NDArray[np.float64]:
        """(…, K) model values to values in units."""
        return np.asarray(np.asarray(values, np.float64) * self.scale)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; :meth:`from_dict` reads them back bit for bit."""
        return {
            "names": list(self.names),
            "units": list(self.units),
            "scale": [float(s) for s in self.scale],
            "quantile": self.quantile,
            "clamp": self.clamp,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Normalizer:
        """The normaliser that :meth:`to_dict` wrote."""
        return cls(
            tuple(str(n) for n in values["names"]),
            tuple(str(u) for u in values["units"]),
            np.asarray(values["scale"], np.float64),
            float(values["quantile"]),
            bool(values["clamp"]),
        )
