"""Errors that people see: each says what is wrong, where, and what to do about it."""

from __future__ import annotations

import importlib
from types import ModuleType


class BetzError(Exception):
    """Base of every error that Betz raises on purpose.

    Args:
        what: what is wrong, in one sentence.
        where: the file, session, channel, bin … in which it was found.
        remedy: what the reader can do about it.
    """

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        text = f"{where}: {what}" if where else what
        super().__init__(f"{text} Remedy: {remedy}" if remedy else text)


class DataError(BetzError):
    """A recording, a session or a store is not what it should be."""


class ConfigError(BetzError):
    """A setting is unknown, out of range or contradicts another."""


class StreamError(BetzError):
    """A stream was fed something that its decoder cannot take."""


class CheckpointError(BetzError):
    """A saved decoder or model cannot be loaded."""


class MissingExtraError(BetzError):
    """An optional library is not installed."""


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional library, or say in one sentence how to install it.

    Args:
        module: dotted module name, e.g. ``"matplotlib.figure"``.
        extra: the extra of Betz that brings it.

    Raises:
        MissingExtraError: the library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(
            f"{module.split('.')[0]} is not installed.",
            remedy=f"pip install 'betz[{extra}]'",
        ) from None
