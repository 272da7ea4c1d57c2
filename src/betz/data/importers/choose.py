"""Which channels and which behavior of a recording are imported: by name or glob."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from betz.core.errors import ConfigError

if TYPE_CHECKING:
    from betz.data.importers.build import Draft


def chosen(names: Sequence[str], patterns: Sequence[str], *, what: str, where: str) -> list[str]:
    """The names that one of the patterns matches, in their own order; all, if there are no patterns.

    Args:
        names: what there is.
        patterns: names, or globs with ``*``, ``?`` and ``[…]``.
        what, where: the kind of name and the file, for the message.

    Raises:
        ConfigError: a pattern matches nothing.

    >>> chosen(["M1_1", "M1_2", "PMd_1"], ["M1_*"], what="channel", where="a.nwb")
    ['M1_1', 'M1_2']
    """
    for pattern in patterns:
        if not any(n == pattern or fnmatchcase(n, pattern) for n in names):
            shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
            raise ConfigError(f"no {what} matches {pattern!r}.", where=where, remedy=f"it has {shown or 'none'}")
    if not patterns:
        return list(names)
    return [n for n in names if any(n == p or fnmatchcase(n, p) for p in patterns)]


def select(draft: Draft, channels: Sequence[str], behavior: Sequence[str]) -> None:
    """Keep the chosen channels and behavior of a draft; what is left out is counted.

    Raises:
        ConfigError: a pattern matches nothing.
    """
    where = draft.path.name
    if channels:
        ids = [c.id for c in draft.channels]
        names = [f"{c.array}/{c.id}" for c in draft.channels]
        kept = set(chosen([*ids, *names], channels, what="channel", where=where))
        keep = [k for k, (i, n) in enumerate(zip(ids, names, strict=True)) if i in kept or n in kept]
        draft.skip("channels not asked for", len(ids) - len(keep))
        draft.channels = tuple(draft.channels[k] for k in keep)
        draft.counts = draft.counts[:, keep]
        draft.spikes = None if draft.spikes is None else tuple(draft.spikes[k] for k in keep)
    if behavior:
        names = [d.name for _, _, dims in draft.behavior for d in dims]
        names += [d.name for part in draft.sampled for d in part.dims]
        kept = set(chosen(names, behavior, what="behavior", where=where))
        draft.skip("behavior dimensions not asked for", len(names) - len(kept))
        binned, draft.behavior = draft.behavior, []
        for name, values, dims in binned:
            columns = [k for k, d in enumerate(dims) if d.name in kept]
            if columns:
                draft.behavior.append((name, values[:, columns], tuple(dims[k] for k in columns)))
        sampled, draft.sampled = draft.sampled, []
        for part in sampled:
            columns = [k for k, d in enumerate(part.dims) if d.name in kept]
            if columns:
                dims = tuple(part.dims[k] for k in columns)
                draft.sampled.append(replace(part, values=part.values[:, columns], dims=dims))
    draft.skipped = {reason: number for reason, number in draft.skipped.items() if number}
