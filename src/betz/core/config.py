"""Frozen configurations: typed, forbidding unknown keys, saved as JSON, named by a hash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast, dataclass_transform

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from betz.core.errors import ConfigError

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def frozen_config(cls: type[T]) -> type[T]:
    """Class decorator: a frozen, keyword-checked dataclass whose errors are :class:`ConfigError`.

    Variants are made with ``dataclasses.replace``; unknown keys and wrong types raise.

    >>> @frozen_config
    ... class Filter:
    ...     tau_ms: float = 120.0
    >>> Filter(tau_ms=240)
    Filter(tau_ms=240.0)
    """
    made = pydantic_dataclass(frozen=True, config=ConfigDict(extra="forbid", validate_default=True))(cls)
    inner = cast(Callable[..., None], made.__init__)

    def __init__(self: Any, *args: Any, **values: Any) -> None:  # noqa: N807
        try:
            inner(self, *args, **values)
        except ValidationError as error:
            raise _config_error(cls.__name__, error) from None

    made.__init__ = __init__  # type: ignore[method-assign]
    return cast(type[T], made)


def _config_error(name: str, error: ValidationError) -> ConfigError:
    reasons = [f"{'.'.join(map(str, e['loc'])) or 'value'}: {e['msg']}" for e in error.errors()]
    return ConfigError("; ".join(reasons), where=f"{name} settings", remedy=f"see help({name}) for its settings")


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as plain JSON values."""
    return cast(dict[str, Any], json.loads(json.dumps(dataclasses.asdict(config))))


def from_dict(cls: type[T], values: Mapping[str, Any]) -> T:
    """The configuration from plain values; unknown or wrong ones raise :class:`ConfigError`."""
    try:
        return TypeAdapter(cls).validate_python(dict(values))
    except ValidationError as error:
        raise _config_error(cls.__name__, error) from None


def config_hash(config: Any) -> str:
    """Twelve hex digits that name a configuration (or any JSON value)."""
    value = to_dict(config) if dataclasses.is_dataclass(config) else config
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
