"""The ``binnedData`` struct of the Miller laboratory's MATLAB code: rates, EMG, force, cursor and trials.

Its spike rates are counts divided by the bin width, which is undone exactly; a bin starts at its ``timeframe``.
EMG was rectified and low-passed forwards and backwards before it was sampled at those times, so it looks ahead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.session import BehaviorDim, Channel, Trials
from betz.core.timegrid import BinGrid
from betz.data.importers import checks
from betz.data.importers.build import Draft, ImportOptions
from betz.data.importers.convert import counts_from, grid_from_stamps, grid_of
from betz.data.importers.files import ArrayFile, FileError

Array = NDArray[Any]
STRUCT = "binnedData"
_CURSOR = {
    "x_pos": ("cursor_x", "cm"),
    "y_pos": ("cursor_y", "cm"),
    "x_vel": ("cursor_vx", "cm/s"),
    "y_vel": ("cursor_vy", "cm/s"),
    "vel_magn": ("cursor_speed", "cm/s"),
}
_TASKS = {0x11: "center-out", 0x12: "random walk", 0x16: "multi-gadget", 0x17: "wrist flexion", 0x19: "ball drop"}
_RESULTS = {82: "R", 65: "A", 70: "F", 73: "I"}
"""Rewarded, aborted, failed, incomplete."""
_READ = ("timeframe", "meta", "spikeratedata", "spikeguide", "neuronIDs", "cursorposbin", "cursorposlabels", "velocbin",
         "veloclabels", "emgdatabin", "emgguide", "forcedatabin", "forcelabels", "trialtable")  # fmt: skip


def is_binned(file: ArrayFile) -> bool:
    """Whether a file holds a ``binnedData`` struct."""
    return STRUCT in file.variables and file.variables[STRUCT].type == "struct"


def read_binned(file: ArrayFile, options: ImportOptions) -> Draft:
    """A ``binnedData`` struct as a draft.

    Behavior, as far as the struct has it: ``cursor_x``, ``cursor_y``, ``cursor_vx``, ``cursor_vy``, ``cursor_speed``;
    ``emg_<muscle>`` in recorded order; ``force_x``, ``force_y``. Units are not in the file: the cursor's are those of
    the laboratory (cm on the screen), EMG and force have arbitrary ones.

    Args:
        file: a MATLAB 5 file for which :func:`is_binned` holds.
        options: the bin width counts only where the struct has no ``timeframe``.

    Raises:
        FileError: a field is missing, has another shape, or rates are no counts.
    """
    struct = _Struct(file)
    rates_NC = struct.numbers("spikeratedata")
    if rates_NC is None:
        raise struct.refuse("missing variable", f"it has no spikeratedata; its fields are {', '.join(struct.names)}.")
    grid, bins = _grid(struct, options)
    counts_NC = counts_from(
        rates_NC, encoding="rate_hz", bin_s=grid.bin_s, where=struct.where, name=f"{STRUCT}.spikeratedata"
    )
    draft = Draft(
        path=file.path,
        importer=STRUCT,
        counts=counts_NC,
        channels=(),
        grid=grid,
        bins=bins,
        subject=_subject(struct),
        task=_task(struct),
        licence="none stated",
        tags=_date(struct),
        notes=[f"spike rates turned back to exact counts in {grid.bin_ms:g} ms"],
    )
    draft.channels = _channels(struct, counts_NC.shape[1], draft.notes)
    _add_cursor(draft, struct)
    _add_emg(draft, struct)
    _add_force(draft, struct)
    _add_trials(draft, struct)
    _note_duration(draft, struct)
    rest = [n for n in struct.names if n not in _READ and not struct.empty(n)]
    if rest:
        draft.notes.append(f"fields of {STRUCT} that are not imported: {', '.join(rest)}")
        draft.skip("variables not imported", len(rest))
    return draft


class _Struct:
    """The fields of the struct; whatever they hold is checked when asked for."""

    def __init__(self, file: ArrayFile) -> None:
        self.where = file.path.name
        self.stem = file.path.stem
        loaded = file.load(STRUCT)
        if loaded.size != 1 or not isinstance(loaded.flat[0], dict):
            raise self.refuse("wrong shape", f"{STRUCT} is not a single struct.")
        self._fields: dict[str, Array] = loaded.flat[0]
        self.names = tuple(self._fields)

    def refuse(self, reason: str, what: str, remedy: str = "") -> FileError:
        return FileError(reason, what, where=self.where, remedy=remedy or f"check how {STRUCT} was made")

    def raw(self, name: str) -> Array:
        """A field as it is; an empty array if it is not there."""
        return self._fields.get(name, np.empty((0, 0)))

    def empty(self, name: str) -> bool:
        """Whether a field is missing or empty."""
        return self.raw(name).size == 0

    def numbers(self, name: str) -> Array | None:
        """A field of numbers with two axes; None if it is missing or has no columns."""
        values = self.raw(name)
        if values.shape[-1] == 0:
            return None
        if values.dtype.kind not in "biuf" or values.ndim != 2:
            raise self.refuse("wrong shape", f"{STRUCT}.{name} is {values.dtype} of shape {values.shape}.")
        return values

    def labels(self, name: str) -> list[str]:
        """A field of names: a char matrix or a cell of texts."""
        texts = self.raw(name).ravel()
        return [str(t.flat[0] if isinstance(t, np.ndarray) and t.size else t).strip(" \0") for t in texts]

    def meta(self, name: str) -> Any:
        """An entry of ``meta``, or None."""
        meta = self.raw("meta")
        inner = meta.flat[0] if meta.size == 1 else None
        value = inner.get(name, np.empty(0)) if isinstance(inner, dict) else np.empty(0)
        return value.flat[0] if value.size == 1 else None


# ---- time and signals


def _grid(struct: _Struct, options: ImportOptions) -> tuple[BinGrid, NDArray[np.int64] | None]:
    stamps = struct.numbers("timeframe")
    if stamps is None:
        if options.bin_ms is None:
            raise struct.refuse("unknown bin width", f"{STRUCT} has no timeframe.", "give bin_ms (--bin-ms)")
        return grid_of(options.bin_ms, where=struct.where), None
    if stamps.size != max(stamps.shape) and stamps.size:
        raise struct.refuse("wrong shape", f"{STRUCT}.timeframe is {stamps.shape}, not one time a bin.")
    raw_N = stamps.ravel()
    known = np.abs(raw_N[np.isfinite(raw_N)])
    resolution_s = float(np.spacing(known.max())) / 2 if known.size and raw_N.dtype.kind == "f" else 0.0
    return grid_from_stamps(
        raw_N.astype(np.float64),
        bin_ms=options.bin_ms,
        resolution_s=resolution_s,
        where=struct.where,
        name=f"{STRUCT}.timeframe",
    )


def _channels(struct: _Struct, number: int, notes: list[str]) -> tuple[Channel, ...]:
    """From the guide: ``ee07u0`` is electrode 7, unit 0, which are unsorted crossings."""
    guide = struct.labels("spikeguide")
    ids = struct.numbers("neuronIDs")
    if not guide and ids is not None and ids.shape[1] == 2:
        guide = [f"ee{e:02.0f}u{u:.0f}" for e, u in ids.astype(np.float64)]
    if len(guide) != number or len(set(guide)) != number:
        notes.append(f"the neuron guide has {len(guide)} entries for {number} channels: channels are numbered")
        return tuple(Channel(f"ch{c + 1}") for c in range(number))
    return tuple(Channel(name, "crossings" if re.search(r"u0*$", name) else "unit") for name in guide)


# ---- behavior


def _add_cursor(draft: Draft, struct: _Struct) -> None:
    for field, guide, default in (
        ("cursorposbin", "cursorposlabels", ("x_pos", "y_pos")),
        ("velocbin", "veloclabels", ("x_vel", "y_vel", "vel_magn")),
    ):
        values = struct.numbers(field)
        if values is None:
            draft.notes.append(f"{STRUCT}.{field} is empty: there is none of it")
            continue
        labels = struct.labels(guide) or list(default[: values.shape[1]])
        named = [_CURSOR.get(label, (f"cursor_{_plain(label)}", "a.u.")) for label in labels]
        names = _unique([name for name, _ in named], values.shape[1], "cursor", draft.notes)
        units = [unit for _, unit in named] if len(named) == len(names) else ["a.u."] * len(names)
        dims = tuple(BehaviorDim(name, unit) for name, unit in zip(names, units, strict=True))
        draft.behavior.append((field, values, dims))


def _add_emg(draft: Draft, struct: _Struct) -> None:
    values = struct.numbers("emgdatabin")
    if values is None:
        draft.notes.append(f"{STRUCT}.emgdatabin is empty: there is no EMG")
        return
    wanted = [f"emg_{_plain(label.removeprefix('EMG_'))}" for label in struct.labels("emgguide")]
    names = _unique(wanted, values.shape[1], "emg", draft.notes)
    draft.behavior.append(("emgdatabin", values, tuple(BehaviorDim(name, "a.u.") for name in names)))
    draft.notes.append(
        "EMG was rectified and low-passed without delay before this file was made: it looks ahead in time"
    )


def _add_force(draft: Draft, struct: _Struct) -> None:
    """Force, and whether it follows the cursor that it moves in isometric tasks."""
    values = struct.numbers("forcedatabin")
    if values is None:
        draft.notes.append(f"{STRUCT}.forcedatabin is empty: there is no force")
        return
    wanted = [f"force_{_plain(re.sub('^force_', '', label.lower()))}" for label in struct.labels("forcelabels")]
    names = _unique(wanted, values.shape[1], "force", draft.notes)
    draft.behavior.append(("forcedatabin", values, tuple(BehaviorDim(name, "a.u.") for name in names)))
    position = {d.name: v[:, k] for _, v, dims in draft.behavior[:1] for k, d in enumerate(dims)}
    for k, name in enumerate(names):
        cursor = position.get(name.replace("force", "cursor"))
        if cursor is None or len(cursor) != len(values):
            continue
        a, b = cursor.astype(np.float64), values[:, k].astype(np.float64)
        parted = checks.out_of_step(a, b, draft.grid.bin_s)
        if parted is not None:
            draft.notes.append(
                f"{name} follows the cursor until minute {parted[0]:.0f} (r = {parted[1]:.2f}) and no longer after it "
                f"(r = {parted[2]:.2f}): do not use one of them from there on"
            )


def _plain(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", label).strip("_")


def _unique(names: Sequence[str], number: int, prefix: str, notes: list[str]) -> list[str]:
    """One name a column: a repeated one gets ``_2``, ``_3`` …; without fitting labels columns are numbered from 1."""
    if len(names) != number:
        notes.append(f"there are {len(names)} {prefix} labels for {number} columns: they are numbered")
        return [f"{prefix}_{k + 1}" for k in range(number)]
    found: list[str] = []
    for k, name in enumerate(names):
        base = name if name != f"{prefix}_" else f"{prefix}_{k + 1}"
        unique, copy = base, 2
        while unique in found or (copy > 2 and unique in names):
            unique, copy = f"{base}_{copy}", copy + 1
        if unique != name:
            notes.append(
                f"the label of column {k + 1} ({name}) is {'repeated' if base == name else 'empty'}: it is {unique}"
            )
        found.append(unique)
    return found


# ---- trials and what is known of the recording


def _add_trials(draft: Draft, struct: _Struct) -> None:
    """The trial table of the wrist task: start, target corners, target on, go cue, end, result, target."""
    table = struct.numbers("trialtable")
    if table is None or len(table) == 0:
        return
    table = table.astype(np.float64)
    if table.shape[1] != 10 or draft.task != "wrist flexion":
        draft.notes.append(f"a trial table of {table.shape[1]} columns is not known for this task, left out")
        draft.skip("trials of an unknown table", len(table))
        return
    end_s = float(
        draft.grid.seconds(draft.grid.start_of(len(draft.counts) if draft.bins is None else draft.bins[-1] + 1))
    )
    good = (table[:, 0] >= 0) & (table[:, 7] > table[:, 0]) & (table[:, 0] < end_s) & (table[:, 7] < 1e9)
    if not good.all():
        draft.notes.append(f"{int((~good).sum())} of {len(good)} trials have impossible times, left out")
        draft.skip("trials with impossible times", int((~good).sum()))
        table = table[good]
    times = np.where(table[:, [5, 6]] < 0, np.nan, table[:, [5, 6]])
    draft.trials = Trials(
        draft.grid.ticks_from_s(table[:, 0]),
        draft.grid.ticks_from_s(table[:, 7]),
        tuple(f"target {t:g}" if t >= 0 else "" for t in table[:, 9]),
        {
            "target_corners_cm": table[:, 1:5],
            "target_on_s": times[:, 0],
            "go_cue_s": times[:, 1],
            "result": np.array([_RESULTS.get(int(r) if np.isfinite(r) else -1, "?") for r in table[:, 8]], dtype="U1"),
        },
    )


def _task(struct: _Struct) -> str:
    words = struct.numbers("words")
    if words is None or words.shape[1] != 2:
        return ""
    codes = words[:, 1][np.isfinite(words[:, 1]) & (words[:, 1] >= 0x10) & (words[:, 1] < 0x20)].astype(np.int64)
    return _TASKS.get(int(np.bincount(codes).argmax()), "") if codes.size else ""


def _subject(struct: _Struct) -> str:
    """The laboratory's files are named Subject_date_…; the original's name says more than this one's."""
    original = str(struct.meta("filename") or "").replace("\\", "/").rpartition("/")[2]
    for name in (original, struct.stem):
        found = re.match(r"([A-Z][a-z]+)_\d", name)
        if found:
            return found[1]
    return ""


def _date(struct: _Struct) -> dict[str, str]:
    text = str(struct.meta("datetime") or "").split(" ")[0]
    try:
        return {"date": datetime.strptime(text, "%m/%d/%Y").date().isoformat()}
    except ValueError:
        return {}


def _note_duration(draft: Draft, struct: _Struct) -> None:
    duration = struct.meta("duration")
    covered_s = len(draft.counts) * draft.grid.bin_s
    if isinstance(duration, (int, float, np.number)) and float(duration) > covered_s + 10:
        draft.notes.append(f"the recording lasted {float(duration):.0f} s, the file covers {covered_s:.0f} s of it")
