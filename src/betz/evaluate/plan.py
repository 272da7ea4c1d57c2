"""What a run computes: decoders, tasks, minutes of calibration, seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from fnmatch import fnmatchcase
from typing import Any, Literal

from betz.core.config import frozen_config
from betz.core.errors import ConfigError
from betz.core.session import Session
from betz.evaluate.results import description

RECIPES = {
    "wiener": "betz.decode.baselines.wiener:Wiener",
    "kalman": "betz.decode.baselines.kalman:Kalman",
    "ole": "betz.decode.baselines.ole:OLE",
    "lda": "betz.decode.baselines.discrete:LDA",
    "logistic": "betz.decode.baselines.discrete:Logistic",
    "gru": "betz.decode.baselines.recurrent:GRU",
    "lstm": "betz.decode.baselines.recurrent:LSTM",
}
"""Class of each recipe that the command line knows by name, imported when it is asked for."""
KINDS = ("continuous", "discrete")
Edges = Literal["restart", "cross"]


@frozen_config
class Task:
    """Dimensions that are scored together.

    Args:
        behavior: names; ``emg_*`` stands for all that match, in recorded order.
        percentile_unit: count errors and variances in units of this percentile of each dimension over the whole
            session (99 for EMG), so that no loud muscle dominates. A unit of measure: decoders never see it.
    """

    behavior: tuple[str, ...]
    percentile_unit: float | None = None

    def __post_init__(self) -> None:
        if not self.behavior or not (self.percentile_unit is None or 0 < self.percentile_unit <= 100):
            raise ConfigError("it needs a behavior, and a percentile in (0, 100].", where="Task settings")

    def names_in(self, session: Session) -> list[str]:
        """The names that it has in a session; empty if any of them is missing there."""
        known = [d.name for d in session.dims]
        found = [[n for n in known if n == wanted or fnmatchcase(n, wanted)] for wanted in self.behavior]
        return list(dict.fromkeys(n for names in found for n in names)) if all(found) else []


@frozen_config
class Plan:
    """What a run computes: every combination of these, for every session.

    Args:
        decoders: recipes, or fixed decoders (which are not calibrated: 0 minutes), by name.
        tasks: names of behavior, or a :class:`Task`, by name. All tasks of a session are calibrated in one call, but
            for those that a recipe cannot decode: it may say ``decodes = ("continuous",)`` or ``("discrete",)``.
        minutes: lengths of the calibration; 0 = the first minute of signals without any label.
        seeds: given to ``calibrate``.
        edges: sessions with trial edges are decoded with a ``restart`` at each, or ``cross`` them.
        push_bins: bins in a push.
        budgets: by decoder, seconds given to ``calibrate`` (default: what the recipe takes by itself).
        histories: by session, the history of its subject's earlier sessions, given to ``calibrate``.
    """

    decoders: Mapping[str, Any]
    tasks: Mapping[str, Task | tuple[str, ...]]
    minutes: tuple[float, ...]
    seeds: tuple[int, ...] = (0,)
    edges: tuple[Edges, ...] = ("restart",)
    push_bins: int = 1
    budgets: Mapping[str, float] = field(default_factory=dict)
    histories: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("decoders", "tasks", "minutes", "seeds", "edges"):
            if not getattr(self, name):
                raise ConfigError(f"{name} is empty.", where="Plan settings")
        if min(self.minutes) < 0 or self.push_bins < 1 or (0 in self.minutes and not self.histories):
            raise ConfigError(
                "minutes must be above 0 (0, without labels, needs histories), push_bins at least 1.",
                where="Plan settings",
            )
        for decoder in self.decoders.values():
            description(decoder)

    def task(self, name: str) -> Task:
        """The task of this name."""
        found = self.tasks[name]
        return found if isinstance(found, Task) else Task(found)

    def names_in(self, session: Session) -> dict[str, list[str]]:
        """The behavior names that each task has in a session; without the tasks that it lacks."""
        return {name: names for name in self.tasks if (names := self.task(name).names_in(session))}

    def tasks_of(self, decoder: str, session: Session) -> dict[str, list[str]]:
        """:meth:`names_in`, without the tasks of a kind of behavior that the decoder's recipe does not decode."""
        kinds = getattr(self.decoders[decoder], "decodes", KINDS)
        tasks = self.names_in(session)
        return {task: names for task, names in tasks.items() if {d.kind for d in session.dims_of(names)} <= set(kinds)}
