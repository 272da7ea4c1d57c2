"""Mapping files: what the variables of a file of arrays mean, with units and axes.

A mapping is TOML or JSON with the keys of :class:`Mapping`; unknown keys are refused. The mappings of the public
sets that Betz knows are shipped in ``mappings/`` and are found by name or by the variables of a file.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping as MappingType
from pathlib import Path
from typing import Any, Literal

from betz.core.config import from_dict, frozen_config
from betz.core.errors import ConfigError
from betz.data.importers.files import ArrayFile, FileError, Variable

SHIPPED = Path(__file__).parent / "mappings"


@frozen_config
class SignalsMapping:
    """Which variable holds the counts, and how.

    Args:
        variable: its name (``.npz``, ``.mat``).
        columns: names or patterns of the columns instead (``.csv``), one column a channel.
        axes: meaning of its axes; a ``slot`` axis holds several units of an electrode (slot 0: unsorted crossings).
        slot: ``sum`` pools an electrode's slots to one channel, ``unit`` keeps them apart.
        encoding: ``counts``, or ``rate_hz``: counts divided by the bin width, which is undone and checked.
        kind: what a channel without a slot axis holds, ``crossings`` or ``unit``.
        prefix: channels are named prefix + number, from 1 (columns keep their names).
        array: name of the implanted array.
    """

    variable: str = ""
    columns: tuple[str, ...] = ()
    axes: tuple[Literal["time", "channel", "slot"], ...] = ("time", "channel")
    slot: Literal["sum", "unit"] = "sum"
    encoding: Literal["counts", "rate_hz"] = "counts"
    kind: Literal["crossings", "unit"] = "crossings"
    prefix: str = "ch"
    array: str = "A"


@frozen_config
class TimeMapping:
    """The bin width and the time of bin 0.

    Args:
        bin_ms: bin width, or
        bin_variable: the scalar variable that holds it, in
        bin_unit: seconds, milliseconds, or bins per second.
        stamps: variable with one time a bin; must be regular, and steps of several bins become gaps.
        stamps_unit: unit of the stamps.
        stamps_at: whether a stamp is the start or the end of its bin.
        origin_s: time of bin 0 where there are no stamps.
        ambiguous: why the width cannot be known from the file; it must then be given on import (``bin_ms``).
    """

    bin_ms: float | None = None
    bin_variable: str = ""
    bin_unit: Literal["s", "ms", "Hz"] = "s"
    stamps: str = ""
    stamps_unit: Literal["s", "ms"] = "s"
    stamps_at: Literal["start", "end"] = "start"
    origin_s: float = 0.0
    ambiguous: str = ""


@frozen_config
class DimMapping:
    """Name and unit of one behavior column; an empty name leaves the column out."""

    name: str
    unit: str = "a.u."


@frozen_config
class BehaviorMapping:
    """One variable (or several columns) of behavior, one row a bin.

    Args:
        variable, columns: as for the signals.
        dims: names and units of its columns, in order.
        transposed: it is (dimensions, time).
        optional: the file may lack it.
        held: its values are held between switches (a target); values that last one bin are counted and noted.
    """

    dims: tuple[DimMapping, ...]
    variable: str = ""
    columns: tuple[str, ...] = ()
    transposed: bool = False
    optional: bool = False
    held: bool = False


@frozen_config
class TrialMapping:
    """Where trials start.

    Args:
        rule: ``starts`` (a variable with the start of each), ``id_changes`` (a variable with a trial number a bin) or
            ``zero_velocity_jump`` (a row with zero velocity in which the position is not that of the row before).
        variable: of the first two rules.
        unit: of ``starts``: seconds, or bins counted from 0 or from 1.
        position, velocity: behavior names of the third rule.
        concatenated: the trials were recorded apart, so nothing may cross from one to the next.
    """

    rule: Literal["starts", "id_changes", "zero_velocity_jump"] = "starts"
    variable: str = ""
    unit: Literal["s", "bin", "bin_from_1"] = "s"
    position: tuple[str, ...] = ()
    velocity: tuple[str, ...] = ()
    concatenated: bool = False


@frozen_config
class Mapping:
    """What a file of arrays holds.

    Args:
        signals, time, behavior, trials: see their classes.
        subject, task, licence, citation: about the recording; the subject can be given on import.
        notes: cautions shown with every import.
        recognise: variables by which a file is known to have this layout, with their shapes (−1: any length; the
            first lengths of all must agree).
        alone: recognised only if the file has no other variable.
    """

    signals: SignalsMapping
    time: TimeMapping
    behavior: tuple[BehaviorMapping, ...] = ()
    trials: TrialMapping | None = None
    subject: str = ""
    task: str = ""
    licence: str = ""
    citation: str = ""
    notes: tuple[str, ...] = ()
    recognise: dict[str, tuple[int, ...]] | None = None
    alone: bool = False

    def fits(self, variables: MappingType[str, Variable]) -> bool:
        """Whether a file with these variables has the layout that this mapping is for."""
        wanted = self.recognise or {}
        if not wanted or not set(wanted) <= set(variables) or (self.alone and set(wanted) != set(variables)):
            return False
        found = {name: _squeezed(variables[name].shape, len(shape)) for name, shape in wanted.items()}
        same = all(
            len(found[n]) == len(w) and all(a in (-1, b) for a, b in zip(w, found[n], strict=True))
            for n, w in wanted.items()
        )
        return same and len({shape[0] for shape in found.values() if shape}) == 1


def _squeezed(shape: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """MATLAB keeps vectors and scalars as matrices."""
    return tuple(n for n in shape if n != 1) if ndim < 2 and len(shape) > ndim else shape


def load_mapping(source: str | Path | MappingType[str, Any] | Mapping) -> tuple[Mapping, str]:
    """A mapping and its name, from a mapping, a dict, the name of a shipped one, or a TOML or JSON file.

    Raises:
        ConfigError: it cannot be read, or a key or value is wrong.
    """
    if isinstance(source, Mapping):
        return source, "given"
    if not isinstance(source, (str, Path)):
        return from_dict(Mapping, source), "given"
    path = Path(source)
    if path.suffix not in (".toml", ".json"):
        shipped = {p.stem: p for p in sorted(SHIPPED.iterdir()) if p.suffix in (".toml", ".json")}
        if str(source) not in shipped:
            raise ConfigError(
                f"there is no mapping named {str(source)!r}.",
                remedy=f"use one of {', '.join(shipped)}, or a .toml or .json file (--write-mapping M.toml writes one)",
            )
        path = shipped[str(source)]
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the mapping cannot be read ({error}).", where=str(path)) from None
    if not isinstance(values, dict):
        raise ConfigError("the mapping is not a table of keys.", where=str(path))
    try:
        return from_dict(Mapping, values), path.stem
    except ConfigError as error:
        raise ConfigError(error.what, where=path.name, remedy="see docs/reference/mapping_files.md") from None


def recognise(file: ArrayFile) -> tuple[Mapping, str]:
    """The shipped mapping that fits a file.

    Raises:
        FileError: none does; the message lists the variables.
    """
    for path in sorted(SHIPPED.iterdir()):
        if path.suffix in (".toml", ".json"):
            mapping, name = load_mapping(path)
            if mapping.fits(file.variables):
                return mapping, name
    raise FileError(
        "unknown layout",
        f"its layout is not known; it has {file.listing()}.",
        where=file.path.name,
        remedy="say what they mean in a mapping file (--mapping M.toml); --write-mapping M.toml writes one to edit",
    )


def example_mapping(file: ArrayFile) -> str:
    """A mapping in TOML for a file, guessed from its variables, for the user to correct.

    Raises:
        FileError: there is no array of numbers in it.
    """
    columns = file.path.suffix.lower() == ".csv"
    signals, stamps, behavior = _guess_csv(list(file.variables)) if columns else _guess_arrays(file)
    named = f"columns = {_quoted(signals)}" if columns else f"variable = {_quoted(signals[0])}"
    axes = [] if columns else [_axes(file.variables[signals[0]].shape)]
    width = _guess_width(file.variables, stamps)
    listing = "".join(c if c.isprintable() else "?" for c in f"{file.path.name}: {file.listing()}")
    lines = [f"# {listing}", "# Guessed: correct every line.", 'subject = "unknown"', ""]
    lines += ["[signals]", named, *axes, 'encoding = "counts"   # or "rate_hz"', "", "[time]", width]
    for name, number, transposed in behavior:
        names = [f"{name}_{k}" if number > 1 else name for k in range(number)]
        dims = ", ".join(f'{{ name = {_quoted(each)}, unit = "a.u." }}' for each in names)
        of = f"columns = {_quoted([name])}" if columns else f"variable = {_quoted(name)}"
        lines += ["", "[[behavior]]", of, *(["transposed = true"] if transposed else []), f"dims = [{dims}]"]
    return "\n".join(lines) + "\n"


def _guess_width(variables: MappingType[str, Variable], stamps: str) -> str:
    single = [
        n for n, v in variables.items() if math.prod(v.shape) == 1 and n.lower() in ("bin_s", "bin_ms", "binsize")
    ]
    if single:
        unit = "ms" if single[0].lower() == "bin_ms" else "s"
        return f'bin_variable = {_quoted(single[0])}\nbin_unit = "{unit}"'
    return f"stamps = {_quoted(stamps)}   # seconds" if stamps else "bin_ms = 20   # correct this"


def _quoted(value: str | list[str]) -> str:
    """A string or a list of strings in TOML, whose escapes are those of JSON."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _axes(shape: tuple[int, ...]) -> str:
    """Axes of the signals, time being the longest."""
    names = ["channel", "slot"] if len(shape) == 3 else ["channel"]
    longest = shape.index(max(shape)) if shape else 0
    return f"axes = {json.dumps([*names[:longest], 'time', *names[longest:]][: len(shape)])}"


Guess = tuple[list[str], str, list[tuple[str, int, bool]]]
"""Variable or columns of the signals; stamps; name, dimensions and orientation of each behavior."""


def _guess_arrays(file: ArrayFile) -> Guess:
    variables = file.variables
    arrays = {n: v.shape for n, v in variables.items() if v.type[:3] in ("flo", "int", "uin", "boo")}
    if not arrays:
        raise FileError(
            "no variables",
            f"there is no array of numbers in it; it has {file.listing()}.",
            where=file.path.name,
            remedy="save plain numeric arrays",
        )
    integer = [n for n in arrays if variables[n].type[:3] in ("int", "uin", "boo") and len(arrays[n]) > 1]
    signals = max(integer or arrays, key=lambda n: math.prod(arrays[n]))
    length = max(arrays[signals], default=0)
    same = {n: _squeezed(s, 1) if math.prod(s) == length else s for n, s in arrays.items() if n != signals}
    stamps = next((n for n, s in same.items() if s == (length,) and n.lower() in ("t", "time", "times")), "")
    rest = [(n, s[1] if len(s) == 2 else 1, False) for n, s in same.items() if s[:1] == (length,) and n != stamps]
    turned = [(n, s[0], True) for n, s in same.items() if len(s) == 2 and s[0] != length == s[1]]
    return [signals], stamps, rest + turned


def _guess_csv(names: list[str]) -> Guess:
    stamps = next((n for n in names if n.lower() in ("t", "time", "time_s")), "")
    stems: dict[str, list[str]] = {}
    for name in names:
        if name != stamps:
            stems.setdefault(name.rstrip("0123456789"), []).append(name)
    most = max(stems, key=lambda stem: len(stems[stem]), default="ch")
    signals = [f"{most}*"] if most and len(stems.get(most, [])) > 1 else stems.get(most, ["ch*"])
    return signals, stamps, [(n, 1, False) for stem, group in stems.items() if stem != most for n in group]
