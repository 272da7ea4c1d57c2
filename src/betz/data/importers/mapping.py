"""Mapping files: what the variables of a file of arrays mean, with units and axes.

A mapping is TOML or JSON with the keys of :class:`Mapping`; unknown keys are refused. The mappings of the public
sets that Betz knows are shipped in ``mappings/`` and are found by name or by the variables of a file.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping as MappingType
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from betz.core.config import from_dict, frozen_config
from betz.core.errors import ConfigError
from betz.data.importers.files import ArrayFile, FileError

SHIPPED = Path(__file__).parent / "mappings"


Axis = Literal["trial", "time", "channel", "slot"]


@frozen_config
class SignalsMapping:
    """Which variable holds the counts, and how.

    Args:
        variable: its name (``.npz``, ``.mat``); dots lead into structs (``data.trial.counts``).
        columns: names or patterns of the columns instead (``.csv``), one column a channel.
        axes: meaning of its axes; a ``slot`` axis holds several units of an electrode (slot 0: unsorted crossings). A
            ``trial`` axis is one of the array, the elements of a cell, or those of a struct array on the way to it.
        slot: ``sum`` pools an electrode's slots to one channel, ``unit`` keeps them apart.
        encoding: ``counts``, or ``rate_hz``: counts divided by the bin width, which is undone and checked.
        on_request: rates are turned back to counts only if the option ``rates_to_counts`` asks for it.
        kind: what a channel without a slot axis holds, ``crossings`` or ``unit``.
        prefix: channels are named prefix + number, from 1 (columns keep their names).
        array: name of the implanted array.
    """

    variable: str = ""
    columns: tuple[str, ...] = ()
    axes: tuple[Axis, ...] = ("time", "channel")
    slot: Literal["sum", "unit"] = "sum"
    encoding: Literal["counts", "rate_hz"] = "counts"
    on_request: bool = False
    kind: Literal["crossings", "unit"] = "crossings"
    prefix: str = "ch"
    array: str = "A"


@frozen_config
class SpikesMapping:
    """A cell with the spike times of each channel.

    Args:
        variable: the cell: a vector of times an element, or a table of a row a channel.
        header: rows at the top of the table that are no channels.
        times, channel, unit, number: columns of the table, from 1, with the times, the number of the channel, that of
            its unit, and how many times there are (checked); 0 = there is no such column, and without ``times`` each
            element is a vector of times.
        time_unit: of the times.
        tick_hz: ticks a second of the session's clock; times are rounded to them, and a loss is noted.
        kind, prefix, array: as for the signals.
    """

    variable: str
    header: int = 0
    times: int = 0
    channel: int = 0
    unit: int = 0
    number: int = 0
    time_unit: Literal["s", "ms"] = "s"
    tick_hz: int = 1_000_000
    kind: Literal["crossings", "unit"] = "unit"
    prefix: str = "ch"
    array: str = "A"


@frozen_config
class TimeMapping:
    """The bin width and the time of bin 0.

    Args:
        bin_ms: bin width (of spike times: the one that is used unless another is asked for), or
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
    """Name and unit of one behavior column, and what its values are multiplied by; without a name it is left out."""

    name: str
    unit: str = "a.u."
    factor: float = 1.0


@frozen_config
class BehaviorMapping:
    """One variable (or several columns) of behavior, one row a bin.

    Args:
        variable, columns: as for the signals.
        dims: names and units of its columns, in order.
        transposed: it is (dimensions, time).
        axes: instead, the meaning of its axes; ``("trial", "dim")`` is one value a trial, kept for all its bins.
        borders: it has one row more than there are bins (of each trial): values at their borders, of which the one at
            the ``start`` or the ``end`` of each bin is taken.
        stamps: variable with the time of each row in seconds, where it is sampled at a rate of its own.
        regular_hz: its stamps are irregular: rows go to the nearest slots at this rate, empty ones are NaN and counted.
        optional: the file may lack it.
        held: its values are held between switches (a target); values that last one bin are counted and noted.
    """

    dims: tuple[DimMapping, ...]
    variable: str = ""
    columns: tuple[str, ...] = ()
    transposed: bool = False
    axes: tuple[Literal["trial", "time", "dim"], ...] = ()
    borders: Literal["", "start", "end"] = ""
    stamps: str = ""
    regular_hz: float | None = None
    optional: bool = False
    held: bool = False


@frozen_config
class TrialMapping:
    """Where trials start, and what is known of each.

    Args:
        rule: ``starts`` (a variable with the start of each), ``lengths`` (a variable with the bins of each, one after
            the other, or of each on a ``trial`` axis that is padded), ``axis`` (the elements of the signals' ``trial``
            axis), ``id_changes`` (a variable with a trial number a bin), ``marks`` (a variable that is 1 in the first
            bin of each), ``announced`` (a row whose ``variable`` is not what ``next`` said in the row before) or
            ``zero_velocity_jump`` (a row with zero velocity in which the position is not that of the row before).
        variable: of all rules but ``axis`` and the last.
        next: of ``announced``: variable with the value of ``variable`` in the following bin.
        unit: of ``starts``: seconds, or bins counted from 0 or from 1.
        position, velocity: behavior names of the last rule.
        concatenated: the trials were recorded apart, so nothing may cross from one to the next; always so on an axis.
        condition: variable with a text or number a trial, or a bin (that of the first bin counts), as condition.
        columns: name in the trial table → variable with a value a trial, or a bin.
    """

    rule: Literal["starts", "lengths", "axis", "id_changes", "marks", "announced", "zero_velocity_jump"] = "starts"
    variable: str = ""
    next: str = ""
    unit: Literal["s", "bin", "bin_from_1"] = "s"
    position: tuple[str, ...] = ()
    velocity: tuple[str, ...] = ()
    concatenated: bool = False
    condition: str = ""
    columns: dict[str, str] | None = None


@frozen_config
class ControlMapping:
    """When the decoder, not the body, moved the cursor.

    Args:
        variable: true or false a bin, or
        first_bin: the bin of each trial, from 1, from which on it did.
        inverted: ``variable`` is true where it did not.
    """

    variable: str = ""
    first_bin: str = ""
    inverted: bool = False


@frozen_config
class PerturbationMapping:
    """Perturbations that the decoder was given after the stored counts (``betz.study.shifts`` applies them).

    Args:
        variable: struct with ``baseElectrodes``, ``swapElectrodesMap``, ``offsets`` (counts a bin) and ``silentChs``.
        trials: numbers of the perturbed trials.
        ids: the number of each trial.
    """

    variable: str
    trials: str
    ids: str


@frozen_config
class SessionMapping:
    """One of several sessions in a file; what is not said is that of the mapping itself.

    Args:
        name: appended to the file's name.
        subject, task, tags, notes: about this session; notes are added.
        signals, time, behavior, trials: instead of the mapping's.
        stacked: variables that others hold one on top of the other: of a variable with as many rows as these have in
            all, the rows of this session's signals are taken.
    """

    name: str
    subject: str = ""
    task: str = ""
    tags: dict[str, str] | None = None
    notes: tuple[str, ...] = ()
    signals: SignalsMapping | None = None
    time: TimeMapping | None = None
    behavior: tuple[BehaviorMapping, ...] | None = None
    trials: TrialMapping | None = None
    stacked: tuple[str, ...] = ()


@frozen_config
class Mapping:
    """What a file of arrays holds.

    Args:
        signals, spikes: see their classes; one of the two.
        time, behavior, trials, brain_control, perturbation, sessions: see their classes.
        subject, task, licence, citation, tags: about the recording; the subject can be given on import.
        notes: cautions shown with every import.
        recognise: variables by which a file is known to have this layout, with their shapes (−1: any length; the
            first lengths of all must agree).
        has: variables of any shape that it must have as well; dots lead into structs.
        alone: recognised only if the file has no other variable.
        stacked: see :class:`SessionMapping`.
    """

    time: TimeMapping
    signals: SignalsMapping | None = None
    spikes: SpikesMapping | None = None
    behavior: tuple[BehaviorMapping, ...] = ()
    trials: TrialMapping | None = None
    brain_control: ControlMapping | None = None
    perturbation: PerturbationMapping | None = None
    sessions: tuple[SessionMapping, ...] = ()
    subject: str = ""
    task: str = ""
    licence: str = ""
    citation: str = ""
    tags: dict[str, str] | None = None
    notes: tuple[str, ...] = ()
    recognise: dict[str, tuple[int, ...]] | None = None
    has: tuple[str, ...] = ()
    alone: bool = False
    stacked: tuple[str, ...] = ()

    def fits(self, file: ArrayFile) -> bool:
        """Whether a file has the layout that this mapping is for."""
        wanted, variables = self.recognise or {}, file.variables
        heads = {name.split(".")[0] for name in self.has} | set(wanted)
        if not heads or not heads <= set(variables) or (self.alone and heads != set(variables)):
            return False
        found = {name: squeezed(variables[name].shape, len(shape)) for name, shape in wanted.items()}
        same = all(
            len(found[n]) == len(w) and all(a in (-1, b) for a, b in zip(w, found[n], strict=True))
            for n, w in wanted.items()
        )
        agree = len({shape[0] for shape in found.values() if shape}) <= 1
        return same and agree and all(map(file.reaches, self.has))

    def parts(self) -> dict[str, Mapping]:
        """Each session's name and its own mapping; a single one has no name."""
        if not self.sessions:
            return {"": self}
        found: dict[str, Mapping] = {}
        for part in self.sessions:
            if not part.name or part.name in found:
                raise ConfigError(
                    f"the session name {part.name!r} is {'repeated' if part.name else 'empty'}.",
                    where="[[sessions]]",
                    remedy="give each session a name of its own",
                )
            own = {k: getattr(part, k) for k in ("subject", "task", "signals", "time", "behavior", "trials", "stacked")}
            found[part.name] = replace(
                self,
                **{k: v for k, v in own.items() if v not in (None, "", ())},
                tags={**(self.tags or {}), **(part.tags or {})},
                notes=(*self.notes, *part.notes),
                sessions=(),
            )
        return found


def squeezed(shape: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """A shape without lengths of 1 where fewer than two axes are wanted: MATLAB keeps vectors as matrices."""
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
            if mapping.fits(file):
                return mapping, name
    raise FileError(
        "unknown layout",
        f"its layout is not known; it has {file.listing()}.",
        where=file.path.name,
        remedy="say what they mean in a mapping file (--mapping M.toml); --write-mapping M.toml writes one to edit",
    )
