"""One seed tree: each random object gets a generator of its own, named by purpose, epoch and item."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SeedTree:
    """Generators derived from ``(run seed, purpose, epoch, item)``, never from a worker or an order of calls.

    >>> a, b = SeedTree(0).generator("windows", item=3), SeedTree(0).generator("windows", item=3)
    >>> bool(a.random() == b.random())
    True
    """

    seed: int

    def sequence(self, purpose: str, *, epoch: int = 0, item: int | str = 0) -> np.random.SeedSequence:
        """The numpy seed sequence of one random object."""
        key = f"{self.seed}\x1f{purpose}\x1f{epoch}\x1f{item}".encode()
        words = np.frombuffer(hashlib.blake2b(key, digest_size=32).digest(), dtype=np.uint32)
        return np.random.SeedSequence(words.tolist())

    def generator(self, purpose: str, *, epoch: int = 0, item: int | str = 0) -> np.random.Generator:
        """The generator of one random object."""
        return np.random.default_rng(self.sequence(purpose, epoch=epoch, item=item))

    def child(self, purpose: str, *, item: int | str = 0) -> SeedTree:
        """A tree of its own for a part of the run."""
        return SeedTree(int(self.sequence(purpose, item=item).generate_state(1, np.uint64)[0]))
