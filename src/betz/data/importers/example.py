"""A mapping to start from, guessed from the names and shapes of a file's variables."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping as MappingType

from betz.data.importers.files import ArrayFile, FileError, Variable
from betz.data.importers.mapping import squeezed


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
    same = {n: squeezed(s, 1) if math.prod(s) == length else s for n, s in arrays.items() if n != signals}
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
