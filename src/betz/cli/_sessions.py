"""How the verbs find sessions, behavior and decoders from what is typed."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from betz.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from betz.core.session import Session
    from betz.decode.decoder import Decoder


def open_session(text: str, **options: Any) -> Session:
    """The session that a word on the command line names.

    Args:
        text: a recording file, ``STORE:ID``, or a store that holds a single session.
        options: of the importer, for files.

    Raises:
        DataError: there is no such file, store or session, or the store holds several.
    """
    found = open_sessions([text], **options)
    if len(found) > 1:
        raise DataError(
            f"this store holds {len(found)} sessions.",
            where=text,
            remedy=f"name one, e.g. {text}:{found[0].id} (it has {_some([s.id for s in found])})",
        )
    return found[0]


def open_sessions(texts: Sequence[str], **options: Any) -> list[Session]:
    """All sessions of stores, ``STORE:ID`` and files, in order.

    Raises:
        DataError: one of them is not there.
    """
    from betz.data.importers import read
    from betz.data.store import Store

    sessions: list[Session] = []
    for text in texts:
        path, _, id_ = text.rpartition(":")
        if Path(text).is_dir():
            store = Store(Path(text))
            if not store.ids:
                raise DataError("this store is empty.", where=text, remedy="import a recording: betz import FILE …")
            sessions += [store.get(each) for each in store.ids]
        elif Path(text).exists():
            sessions.append(read(Path(text), **options))
        elif path and Path(path).is_dir():
            store = Store(Path(path))
            if id_ not in store.ids:
                raise DataError(f"no session {id_!r}.", where=path, remedy=f"it has {_some(store.ids)}")
            sessions.append(store.get(id_))
        else:
            raise DataError("there is no such file or store.", where=text, remedy="give a file, a store, or STORE:ID")
    return sessions


def _some(ids: Sequence[str], show: int = 6) -> str:
    return ", ".join(ids[:show]) + (f" and {len(ids) - show} more" if len(ids) > show else "")


def split_names(texts: Sequence[str]) -> tuple[str, ...]:
    """Names given one by one or with commas between."""
    return tuple(name.strip() for text in texts for name in text.split(",") if name.strip())


def behavior_of(texts: Sequence[str], session: Session) -> list[str]:
    """The session's behavior names that are asked for; ``emg_*`` stands for all that match.

    Raises:
        ConfigError: nothing is asked for, or a name is not there.
    """
    from betz.evaluate.run import Task

    names, has = split_names(texts), ", ".join(d.name for d in session.dims) or "no behavior"
    where = f"session {session.id}"
    if not names:
        raise ConfigError("no behavior is named.", where=where, remedy=f"add --behavior NAME,…; it has {has}")
    found = Task(names).names_in(session)
    if not found:
        missing = [n for n in names if not Task((n,)).names_in(session)]
        raise ConfigError(f"no behavior {', '.join(missing)}.", where=where, remedy=f"it has {has}")
    return found


def recipe_of(name: str) -> Any:
    """The recipe of this name, with its default settings.

    Raises:
        ConfigError: there is none.
    """
    from betz.evaluate.run import RECIPES

    if name not in RECIPES:
        from betz.decode.weights import MANIFEST, load_generalist, shipped

        known = shipped()
        if name in known or (Path(name) / MANIFEST).exists():
            return load_generalist(known.get(name, Path(name)))[0]
        raise ConfigError(
            f"no decoder is named {name!r}.",
            remedy=f"known: {', '.join((*RECIPES, *known))}; or give the folder of a pretrained generalist",
        )
    module, attribute = RECIPES[name].split(":")
    return getattr(importlib.import_module(module), attribute)()


def recipe_or_decoder(text: str) -> tuple[str, Any]:
    """Name and recipe, or name and fixed decoder from the folder it was saved to."""
    from betz.evaluate.run import RECIPES

    if text in RECIPES or not Path(text).exists() or (Path(text) / "generalist.json").exists():
        return text, recipe_of(text)
    return Path(text).resolve().name, open_decoder(Path(text))


def open_decoder(folder: Path) -> Decoder:
    """The decoder saved in a folder."""
    from betz.decode.decoder import load_decoder

    return load_decoder(folder)
