"""FALCON: any Betz decoder behind the official evaluator's interface, and the official scores from arrays.

The evaluator hands over uint8 counts of one 20 ms bin of several files at once, and nothing else: no trials, no masks.
It says by *paths* which files these are, and the last batch is smaller. The same decoders run here and there, so the
official number is that of :func:`betz.replay` over the imported sessions with their edges ignored.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from betz.core import metrics
from betz.core.errors import ConfigError, DataError, StreamError, require
from betz.core.session import Session
from betz.core.text import character_error_rate, word_error_rate
from betz.data.importers.falcon_names import BIN_MS, TASKS, TaskName, parse
from betz.decode.decoder import Decoder

Array = NDArray[Any]
Float = NDArray[np.float64]
EVERY = "all"
"""Key of the decoder for files that have none of their own."""
FIXED_TEXT = "the>quick>brown>fox"
_PARTS = ("held-in calib", "held-out calib", "minival", "held-in eval", "held-out eval")
_SAID = {"held-in": "Held In", "held-out": "Held Out"}


def targets(session: Session) -> list[str]:
    """The behavior that FALCON scores in an imported session, in the official order: what to calibrate on.

    Raises:
        DataError: the session is not one of H1, M1 or M2.
    """
    task = session.tags.get("falcon_task", "")
    if task not in TASKS or task == "h2":
        raise DataError(
            "it has no FALCON targets to calibrate on.",
            where=f"session {session.id}",
            remedy="import H1, M1 or M2 files; H2's target is the text of its trials",
        )
    return [dim.name for dim in session.dims[: TASKS[task].outputs]]


def official_split(sessions: Sequence[Session]) -> dict[str, tuple[str, ...]]:
    """Ids of imported sessions by their official part, and the keys of files that are not among them.

    Args:
        sessions: of one task, or of several.

    Returns:
        ``"held-in calib"``, ``"held-out calib"``, ``"minival"``, ``"held-in eval"``, ``"held-out eval"`` → session ids;
        ``"not there: held-in calib"`` and ``"not there: held-out calib"`` → keys of the benchmark without such a file.

    Raises:
        DataError: a session is not of the benchmark.
    """
    parts: dict[str, list[str]] = {name: [] for name in _PARTS}
    keys: dict[tuple[str, str], set[str]] = {}
    for session in sessions:
        tags = session.tags
        task, split, part = (tags.get(f"falcon_{name}", "") for name in ("task", "split", "part"))
        name = part if part == "minival" else f"{split} {part}"
        if name not in parts:
            raise DataError(
                "it is no file of FALCON's public or evaluation sets.",
                where=f"session {session.id}",
                remedy="keep the official file names on import: they say what a file is",
            )
        parts[name].append(session.id)
        keys.setdefault((task, name), set()).add(tags["falcon_key"])
    for split in ("held-in", "held-out"):
        wanted = [(task, key) for task in dict.fromkeys(task for task, _ in keys)
                  for key in (TASKS[task].held_in if split == "held-in" else TASKS[task].held_out)]  # fmt: skip
        parts[f"not there: {split} calib"] = [
            key for task, key in wanted if key not in keys.get((task, f"{split} calib"), set())
        ]
    return {name: tuple(found) for name, found in parts.items()}


class FalconDecoder:
    """Betz decoders as one ``BCIDecoder`` of the official evaluator; no import of its package is needed.

    Args:
        task: of the benchmark.
        decoders: one decoder, or one for each file by its key (``"20120924"``), by its session, or ``"all"``.
            None is for H2 alone: every trial gets ``text``, which checks plumbing.
        batch_size: files decoded at once; None = the largest that the task allows.
        text: what H2 gets without a decoder; ``>`` is a space.

    A prediction that is not valid is replaced by the last valid one of its file, or zero; with ``latency_bins`` the
    evaluator gets what a live system would give: the value of an earlier bin.

    Raises:
        ConfigError: a decoder does not fit the task.
    """

    def __init__(
        self,
        task: TaskName,
        decoders: Decoder | Mapping[str, Decoder] | None,
        *,
        batch_size: int | None = None,
        text: str = FIXED_TEXT,
    ) -> None:
        if task not in TASKS:
            raise ConfigError(f"there is no FALCON task {task!r}.", remedy=f"tasks are {', '.join(TASKS)}; not B1")
        self.task: TaskName = task
        self.batch_size = TASKS[task].largest_batch if batch_size is None else batch_size
        if decoders is None and task != "h2":
            raise ConfigError("it needs a decoder.", where=f"FALCON {task}", remedy="calibrate one on its sessions")
        found = {} if decoders is None else decoders if isinstance(decoders, Mapping) else {EVERY: decoders}
        self._decoders: Mapping[str, Decoder] = found
        for name, decoder in self._decoders.items():
            _check(task, name, decoder)
        self._text = text
        self._groups: list[tuple[Decoder, NDArray[np.int64]]] = []
        self._last = np.zeros((0, TASKS[task].outputs))
        self._written = ""

    @property
    def text_source(self) -> str:
        """Where H2's text comes from, for labels of results."""
        return "decoder" if self._decoders else "fixed text: plumbing, no decoding"

    def set_batch_size(self, batch_size: int) -> None:
        """Called by the evaluator when the batch is larger than it allows."""
        self.batch_size = batch_size

    def reset(self, dataset_tags: Sequence[str | Path] = ("",)) -> None:
        """New files: one row each, as many as there are.

        Args:
            dataset_tags: paths, file names or keys of the files.

        Raises:
            ConfigError: there is no decoder for a file.
        """
        rows: dict[int, list[int]] = {}
        chosen: dict[int, Decoder] = {}
        for row, tag in enumerate(dataset_tags):
            if not self._decoders:
                continue
            decoder = self._decoder_of(str(tag))
            chosen[id(decoder)] = decoder
            rows.setdefault(id(decoder), []).append(row)
        self._groups = [(chosen[key], np.array(own, dtype=np.int64)) for key, own in rows.items()]
        for decoder, own in self._groups:
            decoder.open(rows=len(own), max_push_bins=1)
        self._last = np.zeros((len(dataset_tags), TASKS[self.task].outputs))
        self._written = ""

    def _decoder_of(self, tag: str) -> Decoder:
        name = Path(tag).name
        named = parse(self.task, name.removesuffix(".nwb"))
        for key in (named.key, named.session, EVERY):
            if key in self._decoders:
                return self._decoders[key]
        raise ConfigError(
            f"there is no decoder for {name!r} (key {named.key!r}, session {named.session!r}).",
            where=f"FALCON {self.task}",
            remedy=f"give one under its key, its session or {EVERY!r}; there are {', '.join(self._decoders)}",
        )

    def predict(self, neural_observations: Array) -> Float:
        """(B, K) predictions of the next bin of B files from (B, C) counts.

        Raises:
            StreamError: there are not as many rows as :meth:`reset` named files.
        """
        counts_BC = np.asarray(neural_observations)
        if counts_BC.ndim != 2 or len(counts_BC) != len(self._last):
            raise StreamError(
                f"counts are {counts_BC.shape}, but reset named {len(self._last)} files.",
                where=f"FALCON {self.task}",
                remedy="call reset with the tag of each row",
            )
        for decoder, own in self._groups:
            found = decoder.push(counts_BC[own][:, None, :])
            if found.text is not None:
                self._written = found.text[0]
                continue
            good = found.valid[:, 0] & np.isfinite(found.values[:, 0]).all(axis=1)
            self._last[own[good]] = found.values[good, 0]
        return self._last.copy()

    def observe(self, neural_observations: Array) -> None:
        """A bin that needs no prediction; the state moves on."""
        self.predict(neural_observations)

    def on_done(self, dones: Array) -> str:
        """End of a trial of H2: its text, and the stream starts anew. The other tasks never call it."""
        text = self._written.replace(" ", ">") if self._decoders else self._text
        for decoder, _ in self._groups:
            decoder.reset()
        self._written = ""
        return text


def _check(task: TaskName, name: str, decoder: Decoder) -> None:
    """Refuse a decoder whose channels, bins or outputs are not those of the task."""
    known, where = TASKS[task], f"FALCON {task}, decoder {name!r}"
    if len(decoder.channels) != known.channels or abs(decoder.bin_ms - BIN_MS) > 1e-9:
        raise ConfigError(
            f"it has {len(decoder.channels)} channels in {decoder.bin_ms:g} ms bins; the task has {known.channels} in "
            f"{BIN_MS:g} ms.",
            where=where,
            remedy="calibrate on a session imported from the task's files",
        )
    names = [dim.name for dim in decoder.behavior]
    remedy = "calibrate with behavior=betz.evaluate.falcon.targets(session)"
    if task == "h2":
        return
    if len(names) != known.outputs or any(dim.kind != "continuous" for dim in decoder.behavior):
        raise ConfigError(f"it decodes {len(names)} dimensions, the task wants {known.outputs}.", where=where,
                          remedy=remedy)  # fmt: skip
    order = {"m1": sorted(names), "m2": ["index_v", "mrs_v"]}.get(task, names)
    if names != order:
        raise ConfigError(f"it decodes {', '.join(names)}, the official order is {', '.join(order)}.", where=where,
                          remedy=remedy)  # fmt: skip


# ---- scores


def continuous_scores(task: TaskName, files: Mapping[str, tuple[Float, Float, NDArray[np.bool_]]]) -> dict[str, float]:
    """The official scores of H1, M1 and M2 from arrays.

    R² weighted by variance over the scored bins of a session (sets and runs of it put together), then mean and
    standard deviation (ddof 0) over sessions, held-in and held-out apart.

    Args:
        task: of the benchmark.
        files: key of a file → truth (N, K), prediction (N, K), and (N,) which bins are scored.

    Returns:
        ``"Held In R2 Mean"``, ``"Held In R2 Std."``, the same for ``"Held Out"``, and ``"<session> R2"``.

    Raises:
        DataError: a file is not in the benchmark.
    """
    by_split: dict[str, dict[str, list[str]]] = {}
    for key in files:
        named = parse(task, key)
        if not named.split:
            raise DataError(f"{key!r} is no file of the benchmark.", where=f"FALCON {task}",
                            remedy="score held-in and held-out sessions")  # fmt: skip
        by_split.setdefault(named.split, {}).setdefault(named.session, []).append(key)
    result: dict[str, float] = {}
    for split, sessions in by_split.items():
        found = {}
        for session, keys in sessions.items():
            truth = np.concatenate([files[k][0][files[k][2]] for k in keys])
            predicted = np.concatenate([files[k][1][files[k][2]] for k in keys])
            found[session] = metrics.r2_variance_weighted(truth, predicted)
        result |= _over_sessions(split, "R2", list(found.values()))
        result |= {f"{session} R2": value for session, value in found.items()}
    return result


def text_scores(files: Mapping[str, tuple[Sequence[str], Sequence[str]]]) -> dict[str, float]:
    """The official scores of H2 from texts: word and character error rates of a session, then mean and sd.

    Args:
        files: key → true and decoded text of each trial; ``>`` is a space.
    """
    by_split: dict[str, list[tuple[float, float]]] = {}
    for key, (truth, decoded) in files.items():
        words = word_error_rate(*([_words(t) for t in texts] for texts in (truth, decoded)))
        by_split.setdefault(parse("h2", key).split, []).append((words, character_error_rate(truth, decoded)))
    result: dict[str, float] = {}
    for split, rates in by_split.items():
        for name, values in zip(("WER", "CER"), zip(*rates, strict=True), strict=True):
            said = _over_sessions(split, name, list(values))
            result[f"{_SAID[split]} {name}"] = said[f"{_SAID[split]} {name} Mean"]
            result[f"{_SAID[split]} {name} Std."] = said[f"{_SAID[split]} {name} Std."]
    return result


def _words(text: str) -> str:
    """A text whose words stand apart, also from punctuation."""
    return re.sub(r"([~,!?])", r" \1", text.replace(">", " "))


def _over_sessions(split: str, name: str, values: Sequence[float]) -> dict[str, float]:
    return {f"{_SAID[split]} {name} Mean": float(np.mean(values)), f"{_SAID[split]} {name} Std.": float(np.std(values))}


# ---- the official evaluator


def evaluate_official(
    decoder: FalconDecoder, data: Path, *, phase: str, work: Path, workers: int = 0
) -> dict[str, float]:
    """Run the official evaluator on local files.

    Args:
        decoder: of the task.
        data: folder that holds ``<task>/…minival/*.nwb`` and ``<task>/eval/*.nwb`` (``EVAL_DATA_PATH``).
        phase: ``minival`` or ``test``.
        work: where the evaluator's prediction file goes (``predictions.pkl``, with ``truth.pkl`` beside it).
        workers: processes that load data.

    Returns:
        The official scores by their names.

    Raises:
        MissingExtraError: falcon-challenge is not installed.
    """
    official = require("falcon_challenge.evaluator", extra="falcon")
    work.mkdir(parents=True, exist_ok=True)
    paths = {"EVAL_DATA_PATH": data, "PREDICTION_PATH_LOCAL": work / "predictions.pkl", "GT_PATH": work / "truth.pkl"}
    with _environment({name: str(path.resolve()) for name, path in paths.items()}):
        evaluator = official.FalconEvaluator(eval_remote=False, split=decoder.task, dataloader_workers=workers)
        with quiet("falcon_challenge.evaluator"):
            found = evaluator.evaluate(decoder, phase=phase)
    (scores,) = found["result"][0].values()
    return {name: float(value) for name, value in scores.items()}


@contextlib.contextmanager
def quiet(logger: str) -> Iterator[None]:
    """Without what a library prints, draws and logs."""
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield
    finally:
        log.setLevel(level)


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
