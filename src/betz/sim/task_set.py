"""All tasks by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

from betz.core.seeds import SeedTree
from betz.sim.performance import Performance
from betz.sim.tasks import perform
from betz.sim.tasks_cursor import click, grid, of_movement, rest_move
from betz.sim.tasks_fingers import fingers, writing
from betz.sim.tasks_grasp import grasp, isometric

AnyTask = Literal[
    "random_target",
    "center_out",
    "grid",
    "click",
    "rest_move",
    "grasp",
    "force_1d",
    "force_2d",
    "fingers_2",
    "fingers_3",
    "fingers_4",
    "fingers_5",
    "writing",
]
_OTHERS: dict[str, Callable[..., Performance]] = {
    "grid": grid,
    "click": click,
    "rest_move": rest_move,
    "grasp": grasp,
    "force_1d": partial(isometric, dimensions=1),
    "force_2d": partial(isometric, dimensions=2),
    "fingers_2": partial(fingers, count=2),
    "fingers_3": partial(fingers, count=3),
    "fingers_4": partial(fingers, count=4),
    "fingers_5": partial(fingers, count=5),
    "writing": writing,
}
TASKS: tuple[str, ...] = get_args(AnyTask)


def performed(task: AnyTask, *, seconds: float, margin_s: float, seeds: SeedTree) -> Performance:
    """Do a task.

    Args:
        task: its name.
        seconds: length of the recording.
        margin_s: the body moves on for so long after it (signals lead movement).
        seeds: a longer recording begins like a shorter one of the same seeds.
    """
    if task == "random_target" or task == "center_out":
        return of_movement(perform(task, seconds=seconds, margin_s=margin_s, seeds=seeds))
    return _OTHERS[task](seconds=seconds, margin_s=margin_s, seeds=seeds)
