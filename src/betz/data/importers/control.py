"""Closed-loop recordings: when the decoder moved the cursor, and which perturbations it was given."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import ConfigError
from betz.core.intervals import Intervals
from betz.core.session import Trials
from betz.data.importers import checks
from betz.data.importers.build import Draft
from betz.data.importers.files import FileError
from betz.data.importers.mapping import ControlMapping, PerturbationMapping
from betz.data.importers.rows import Rows
from betz.data.importers.trials import row_ticks

Array = NDArray[Any]
_FIELDS = ("baseElectrodes", "swapElectrodesMap", "offsets", "silentChs")


def add_brain_control(draft: Draft, rows: Rows, control: ControlMapping) -> None:
    """Put the intervals in which the decoder moved the cursor into a draft.

    Raises:
        FileError: the variable does not say yes or no for each bin, or first bins are no bins.
        ConfigError: the mapping names both ways of saying it, or none.
    """
    if bool(control.variable) == bool(control.first_bin):
        raise ConfigError(
            "it needs either variable or first_bin.", where="[brain_control]", remedy="name one of the two"
        )
    if control.variable:
        values = rows.bins(control.variable, "[brain_control]")
        flat = values.ravel().astype(np.float64)
        if values.size != len(draft.counts) or not np.isin(flat, (0, 1)).all():
            raise FileError(
                "bad brain control",
                f"{control.variable!r} does not say yes or no (1 or 0) for each of {len(draft.counts)} bins.",
                where=rows.where,
                remedy="correct [brain_control] in the mapping",
            )
        mask_N = (flat == 0) if control.inverted else (flat == 1)
    else:
        mask_N = _from_first(draft, rows, control.first_bin)
    pairs = np.array(checks.stretches(mask_N), dtype=np.int64).reshape(-1, 2)
    ends = row_ticks(draft, pairs[:, 1] - 1) + draft.grid.ticks_per_bin
    draft.brain_control = Intervals.of(np.stack((row_ticks(draft, pairs[:, 0]), ends), axis=1))
    draft.notes.append(f"the decoder moved the cursor in {mask_N.mean():.0%} of the bins (brain_control)")


def _from_first(draft: Draft, rows: Rows, variable: str) -> NDArray[np.bool_]:
    """(N,) bins from the named one of each trial on."""
    if rows.lengths_M is None:
        raise ConfigError(
            "first_bin has no meaning where the signals have no trial axis.",
            where="[brain_control]",
            remedy="name a variable with a value a bin",
        )
    found, several = rows.file.values(variable)
    values = [v for v in found if v.size == 1] if several else list(found[0].ravel())
    first = np.array([float(np.asarray(v).flat[0]) if np.asarray(v).dtype.kind in "biuf" else np.nan for v in values])
    if len(first) != len(rows.lengths_M) or np.any(first != np.rint(first)) or np.any(first < 1):
        raise FileError(
            "bad brain control",
            f"{variable!r} does not name a bin, counted from 1, for each of {len(rows.lengths_M)} trials.",
            where=rows.where,
            remedy="correct [brain_control] in the mapping",
        )
    inside = [np.arange(n) >= f - 1 for n, f in zip(rows.lengths_M.tolist(), first.tolist(), strict=True)]
    return np.concatenate(inside) if inside else np.empty(0, dtype=bool)


def add_perturbation(draft: Draft, rows: Rows, perturbation: PerturbationMapping) -> None:
    """Keep what the perturbed decoder was given instead of the stored counts: ``Provenance.options`` says it.

    The key ``perturbation`` holds ``swaps`` (channel → the one whose counts it got), ``offsets`` (channel → counts a
    bin that were added) and ``silent`` channels; the trial column ``perturbed`` says when.

    Raises:
        FileError: a field is missing or does not fit the channels or the trials.
    """
    given = {name: rows.numbers(f"{perturbation.variable}.{name}", (), "[perturbation]")[0] for name in _FIELDS}
    base = given["baseElectrodes"].ravel().astype(np.float64)
    swaps = given["swapElectrodesMap"].astype(np.float64)
    offsets, silent = given["offsets"].ravel().astype(np.float64), given["silentChs"].ravel()
    number = len(draft.channels)
    fits = (
        _are_channels(base, number)
        and len(set(base.tolist())) == len(base)
        and swaps.shape == (len(base), 2)
        and np.array_equal(swaps[:, 0], base)
        and _are_channels(swaps[:, 1], number)
        and len(offsets) == len(silent) == len(base)
        and bool(np.isfinite(offsets).all() and np.isin(silent, (0, 1)).all())
    )
    if not fits:
        raise FileError(
            "bad perturbation",
            f"{perturbation.variable!r} does not fit {number} channels: baseElectrodes, swapElectrodesMap, offsets "
            "and silentChs must speak of the same electrodes.",
            where=rows.where,
            remedy="leave [perturbation] out of the mapping",
        )
    name = {e: draft.channels[int(e) - 1].id for e in {*base.tolist(), *swaps[:, 1].tolist()}}
    draft.settings["perturbation"] = {
        "swaps": {name[a]: name[b] for a, b in swaps.tolist() if a != b},
        "offsets": {name[e]: o for e, o in zip(base.tolist(), offsets.tolist(), strict=True) if o},
        "silent": [name[e] for e, s in zip(base.tolist(), silent.tolist(), strict=True) if s],
    }
    _mark_trials(draft, rows, perturbation)


def _are_channels(electrodes: NDArray[np.float64], number: int) -> bool:
    return bool(np.isin(electrodes, np.arange(1, number + 1)).all())


def _mark_trials(draft: Draft, rows: Rows, perturbation: PerturbationMapping) -> None:
    """Add the column ``perturbed`` to the trial table."""
    found, _ = rows.file.values(perturbation.ids)
    ids = np.concatenate([np.asarray(v).ravel() for v in found]).astype(np.float64)
    trials = draft.trials
    if rows.lengths_M is None or len(ids) != len(rows.lengths_M) or trials is None:
        raise FileError(
            "bad perturbation",
            f"{perturbation.ids!r} does not number the trials of the signals.",
            where=rows.where,
            remedy="correct ids in [perturbation]",
        )
    wanted = rows.numbers(perturbation.trials, (), "[perturbation]")[0].ravel().astype(np.float64)
    unknown = ~np.isin(wanted, ids)
    if unknown.any():
        raise FileError(
            "bad perturbation",
            f"{perturbation.trials!r} names {int(unknown.sum())} trials that are not there (first: "
            f"{wanted[unknown][0]:g}).",
            where=rows.where,
            remedy="correct trials in [perturbation]",
        )
    marked = np.isin(ids, wanted)[rows.lengths_M > 0]
    draft.trials = Trials(trials.start, trials.end, trials.condition, {**trials.columns, "perturbed": marked})
    draft.notes.append(
        f"the decoder got perturbed counts in {int(marked.sum())} trials, the stored counts are those before: "
        "betz.study.shifts.recorded applies the perturbation"
    )
