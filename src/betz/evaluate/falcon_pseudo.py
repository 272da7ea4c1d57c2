"""Pseudo-FALCON: a fixed offline split of the public calibration files, because the test labels are not public.

Held-in files: calibrate on the first 80 % of their trials, test on the rest. Held-out files: calibrate on the first
half of their few trials (M1 5 of 10, M2 15 of 30, H1 2 of 3), test on the rest. Scores are computed as the official
ones and are **not comparable** with the leaderboard: other trials, a decoder for each file, and no other held-in data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import DataError
from betz.core.session import Session
from betz.data.split import Part
from betz.evaluate.falcon import continuous_scores, targets
from betz.evaluate.replay import replay

NOT_COMPARABLE = (
    "pseudo-FALCON (offline split of public calibration files): not comparable with the leaderboard's numbers"
)
HELD_IN_SHARE = 0.8


@dataclass(frozen=True)
class PseudoScores:
    """Result of the protocol.

    Args:
        scores: as of :func:`betz.evaluate.falcon.continuous_scores`.
        label: what they are, to be shown with them.
        parts: key of a file → part to calibrate on, part tested.
        scored_bins: how many bins the scores stand on.
    """

    scores: dict[str, float]
    label: str
    parts: dict[str, tuple[Part, Part]]
    scored_bins: int


def pseudo_parts(session: Session) -> tuple[Part, Part]:
    """The part of a public calibration file to calibrate on, and the part to test on; cut at a trial's start.

    Raises:
        DataError: it is no calibration file, or has fewer than two trials.
    """
    where = f"session {session.id}"
    split, part = session.tags.get("falcon_split", ""), session.tags.get("falcon_part", "")
    if not split or part != "calib":
        raise DataError(
            f"it is no public calibration file (split {split or 'none'!r}, part {part or 'none'!r}).",
            where=where,
            remedy="give the …-held-in-calib and …-held-out-calib files",
        )
    if session.trials is None or len(session.trials) < 2:
        raise DataError("it has fewer than two trials, so none can be held out.", where=where)
    number = len(session.trials)
    share = HELD_IN_SHARE if split == "held-in" else 0.5
    first = min(max(int(np.ceil(share * number - 1e-9)), 1), number - 1)
    cut = int(session.grid.bin_of(np.sort(session.trials.start)[first]))
    return Part(session.id, 0, cut), Part(session.id, cut, session.num_bins)


def pseudo_falcon(recipe: Any, sessions: Sequence[Session], *, seed: int = 0) -> PseudoScores:
    """Calibrate a recipe on each file's first part and score it on its last, by the official rule.

    Args:
        recipe: anything with ``calibrate``, e.g. ``betz.Wiener()``.
        sessions: imported public calibration files of one task (H1, M1 or M2).
        seed: of the calibration.

    Raises:
        DataError: files are of several tasks, of H2, or no calibration files.
    """
    tasks = {s.tags.get("falcon_task", "") for s in sessions}
    if len(tasks) != 1:
        raise DataError(f"files of one task are wanted, not of {', '.join(map(repr, sorted(tasks))) or 'none'}.",
                        where="pseudo-FALCON")  # fmt: skip
    files: dict[str, tuple[Any, Any, NDArray[np.bool_]]] = {}
    parts = {}
    for session in sessions:
        key = session.tags["falcon_key"]
        parts[key] = calibrated, tested = pseudo_parts(session)
        names = targets(session)
        running = session.without_edges()  # the evaluator knows no trials
        decoder = recipe.calibrate(calibrated.of(running), behavior=names, seed=seed)
        found = replay(decoder, running)
        scored_N = (session.behavior_of(["eval_mask"])[:, 0] == 1) & found.valid[0]
        scored_N[: tested.first] = False
        files[key] = (session.behavior_of(names), found.values[0], scored_N)
    total = sum(int(scored_N.sum()) for _, _, scored_N in files.values())
    (task,) = tasks
    return PseudoScores(continuous_scores(task, files), NOT_COMPARABLE, parts, total)  # type: ignore[arg-type]
