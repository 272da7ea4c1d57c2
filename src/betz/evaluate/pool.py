"""The same function over many items, in one process or in several that got what all items share once."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any, TypeVar

from betz.core.errors import ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")
Common = TypeVar("Common")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

_shared: tuple[Any, Any] = (None, None)
"""In a worker: the function and what all items share."""


def each(
    function: Callable[[Common, Item], Result], common: Common, items: Sequence[Item], *, jobs: int
) -> Iterator[tuple[int, Result]]:
    """Index and result of every item, as they become ready (in order with one job).

    Args:
        function: of a module, ``function(common, item)``; with several jobs it and all values must be picklable.
        common: what all items share; sent to each process once.
        items: sent one by one.
        jobs: processes; with 1, nothing leaves this one.

    Raises:
        ConfigError: ``jobs`` is below 1.
        Exception: what ``function`` raises; items not begun are then dropped.
    """
    if jobs < 1:
        raise ConfigError(f"{jobs} jobs cannot do anything.", where="run", remedy="give at least 1")
    if jobs == 1 or len(items) < 2:
        for index, item in enumerate(items):
            yield index, function(common, item)
        return
    context = multiprocessing.get_context("spawn")
    with (
        _threads(max((os.cpu_count() or 1) // jobs, 1)),
        ProcessPoolExecutor(min(jobs, len(items)), context, _start, (function, common)) as pool,
    ):
        waiting = {pool.submit(_one, item): index for index, item in enumerate(items)}
        try:
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start(function: Any, common: Any) -> None:
    global _shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    _shared = function, common


def _one(item: Any) -> Any:
    function, common = _shared
    return function(common, item)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Processes started inside use this many threads of numpy and torch each."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, str(number)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
