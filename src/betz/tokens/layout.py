"""Position ids: which row of the model's position table belongs to which kind of token."""

from __future__ import annotations

from dataclasses import dataclass

from betz.core.errors import ConfigError


@dataclass(frozen=True)
class Layout:
    """Ids in their order within a bin: constraints, spikes, return, behavior. Id 0 is not used.

    In the ``pretrain`` layout 17 behavior slots stand before 10 spike slots, so the ids are fixed: 1–17, 18–27, 28,
    29–45. ``legacy-finetune`` counts with the behavior dimensions of a task, so that its spike patches read rows that
    pretraining used for something else: the published fine-tuning did. ``wide`` has more spike slots.

    Args:
        name: of the layout.
        behavior_slots: dimensions of behavior (and of constraints) there is room for.
        spike_slots: spike tokens of a bin there is room for.
        padding: id of padding; the last row of the table.

    >>> Layout("pretrain", 17, 10, 48).behavior
    29
    """

    name: str
    behavior_slots: int
    spike_slots: int
    padding: int

    @property
    def constraint(self) -> int:
        """Id of the first constraint dimension."""
        return 1

    @property
    def spikes(self) -> int:
        """Id of the first spike token."""
        return self.constraint + self.behavior_slots

    @property
    def return_(self) -> int:
        """Id of the return token."""
        return self.spikes + self.spike_slots

    @property
    def behavior(self) -> int:
        """Id of the first behavior dimension."""
        return self.return_ + 1

    @property
    def end(self) -> int:
        """One after the last id."""
        return self.behavior + self.behavior_slots

    def check(self, *, spikes: int, dims: int) -> None:
        """Refuse what would read ids that belong to something else.

        Args:
            spikes: spike tokens of a bin.
            dims: behavior dimensions.

        Raises:
            ConfigError: there are too many of them.
        """
        if spikes > self.spike_slots:
            raise ConfigError(
                f"{spikes} spike tokens a bin do not fit the {self.spike_slots} ids of layout {self.name!r}; "
                "further ones would collide with those of return and behavior.",
                where="position ids",
                remedy="use fewer channels (each array is padded to whole patches), or a model with layout='wide'",
            )
        if dims > self.behavior_slots:
            raise ConfigError(
                f"{dims} behavior dimensions do not fit the {self.behavior_slots} ids of layout {self.name!r}.",
                where="position ids",
                remedy=f"decode fewer dimensions, or use a model with behavior_dim ≥ {dims}",
            )
