"""Every decoder against the contract: how many checks pass, and how far streamed is from offline.

python benchmarks/contracts.py [--quick]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import betz
from _common import finish
from betz.core.session import BehaviorDim, Series, Session
from betz.sim.population import Simulation, simulate
from betz.testing import check_decoder
from betz.testing.decoders import CLOSED_FORM_TOLERANCE, NETWORK_TOLERANCE

BEHAVIOR = ("hand_vx", "hand_vy")
RECIPES = {
    "wiener": betz.Wiener(),
    "wiener_floor": betz.Wiener.floor(),
    "kalman": betz.Kalman(),
    "kalman_steady": betz.Kalman(gain="steady"),
    "ole": betz.OLE(),
    "lda": betz.LDA(),
    "logistic": betz.Logistic(),
    "gru": betz.GRU(width=32, steps=40),
    "lstm": betz.LSTM(width=32, steps=40),
}
NETWORKS = ("gru", "lstm")
"""Float32: they have a tolerance, and a key of the last line, of their own."""


def with_movement(session: Session) -> Session:
    """The session with a discrete behavior: whether the hand moves faster than usual."""
    speed = np.linalg.norm(session.behavior_of(BEHAVIOR), axis=1)
    fast = (speed > np.nanmedian(speed)).astype(float)[:, None]
    dim = BehaviorDim("movement", "", "discrete", ("rest", "move"))
    return session.with_behavior(Series(fast, (dim,), session.grid.origin_tick, session.grid.ticks_per_bin))


def main() -> None:
    """Calibrate each decoder on simulated sessions of several bin widths and run the contract."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one bin width only")
    arguments = parser.parse_args()
    started, checks, worst = time.time(), 0, {"closed form": 0.0, "network": 0.0}
    table = Table("decoder", "bin ms", "checks", "worst |streamed − offline| / sd")
    for bin_ms in (20.0,) if arguments.quick else (10.0, 20.0, 50.0, 100.0):
        session = with_movement(simulate(Simulation(minutes=2, bin_ms=bin_ms), seed=0).session)
        for name, recipe in RECIPES.items():
            with tempfile.TemporaryDirectory() as folder:
                behavior = BEHAVIOR if recipe.decodes == ("continuous",) else ("movement",)
                recipe.calibrate(session, behavior=behavior).save(Path(folder))
                kind = "network" if name in NETWORKS else "closed form"
                report = check_decoder(
                    lambda folder=folder: betz.load(folder),
                    signals_NC=session.signals[:2000],
                    tolerance=NETWORK_TOLERANCE if kind == "network" else CLOSED_FORM_TOLERANCE,
                )
            checks += len(report.checks)
            worst[kind] = max(worst[kind], report.worst_offline_error)
            table.add_row(name, f"{bin_ms:g}", str(len(report.checks)), f"{report.worst_offline_error:.2e}")
    Console().print(table)
    result = {
        "decoders": sorted(RECIPES),
        "checks": checks,
        "worst_offline_error": worst["network"],
        "worst_offline_error_f64": worst["closed form"],
    }
    left_out = "bin widths other than 20 ms" if arguments.quick else ""
    finish(result, started, quick=arguments.quick, left_out=left_out)


if __name__ == "__main__":
    main()
