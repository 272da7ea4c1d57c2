"""Evaluation: replay of decoders over sessions through the streaming path, runs over many cells, and reports.

The package is also the function: ``betz.evaluate(decoder, session)`` is
:func:`betz.evaluate.evaluation.evaluate`, whichever part of the package was imported before.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """A package that can be called: the import system binds its name over any function of that name."""

    def __call__(self, *args: Any, **values: Any) -> Any:
        from betz.evaluate.evaluation import evaluate

        return evaluate(*args, **values)


sys.modules[__name__].__class__ = _Callable
