"""Betz: an open, generalist intracortical motor decoder.

Everything a user needs is an attribute of this module, loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

_HOME = {
    "Session": "betz.core.session",
    "Channel": "betz.core.session",
    "BehaviorDim": "betz.core.session",
    "Prediction": "betz.core.prediction",
    "BinGrid": "betz.core.timegrid",
    "Intervals": "betz.core.intervals",
    "from_arrays": "betz.data.arrays",
    "read": "betz.data.importers",
    "Store": "betz.data.store",
    "simulate": "betz.sim.population",
    "load": "betz.decode.decoder",
    "Wiener": "betz.decode.baselines.wiener",
    "Kalman": "betz.decode.baselines.kalman",
    "RefitTraining": "betz.decode.baselines.refit",
    "OLE": "betz.decode.baselines.ole",
    "LDA": "betz.decode.baselines.discrete",
    "Logistic": "betz.decode.baselines.discrete",
    "GRU": "betz.decode.baselines.recurrent",
    "LSTM": "betz.decode.baselines.recurrent",
    "evaluate": "betz.evaluate.run",
    "replay": "betz.evaluate.replay",
    "run_loop": "betz.live.loop",
}
_SUBMODULES = ("core", "sim", "data", "decode", "evaluate", "live", "testing")

if TYPE_CHECKING:
    from betz.core.intervals import Intervals as Intervals
    from betz.core.prediction import Prediction as Prediction
    from betz.core.session import BehaviorDim as BehaviorDim
    from betz.core.session import Channel as Channel
    from betz.core.session import Session as Session
    from betz.core.timegrid import BinGrid as BinGrid
    from betz.data.arrays import from_arrays as from_arrays
    from betz.data.importers import read as read
    from betz.data.store import Store as Store
    from betz.decode.baselines.discrete import LDA as LDA
    from betz.decode.baselines.discrete import Logistic as Logistic
    from betz.decode.baselines.kalman import Kalman as Kalman
    from betz.decode.baselines.ole import OLE as OLE
    from betz.decode.baselines.recurrent import GRU as GRU
    from betz.decode.baselines.recurrent import LSTM as LSTM
    from betz.decode.baselines.refit import RefitTraining as RefitTraining
    from betz.decode.baselines.wiener import Wiener as Wiener
    from betz.decode.decoder import load as load
    from betz.evaluate.replay import replay as replay
    from betz.evaluate.run import evaluate as evaluate
    from betz.live.loop import run_loop as run_loop
    from betz.sim.population import simulate as simulate

__all__ = [*_HOME, "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"betz.{name}")
    raise AttributeError(f"module 'betz' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_HOME, *_SUBMODULES, "__version__"])
