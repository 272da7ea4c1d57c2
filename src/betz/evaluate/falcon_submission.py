"""A FALCON submission: the folder that Docker builds, its rehearsal offline, and the check of its prediction file.

The rehearsal runs the folder's own ``run.py`` in a process of its own with the paths and variables of the official
image, except that the evaluator scores locally and does not wait five minutes for the server.
"""

from __future__ import annotations

import io
import os
import pickle
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from betz import __version__
from betz.core.errors import ConfigError, DataError, require
from betz.data.importers.falcon_names import TASKS, TaskName, parse
from betz.decode.decoder import MANIFEST, Decoder, load
from betz.evaluate.falcon import EVERY, FalconDecoder, quiet

CHALLENGE = 2319
DECODERS, RUN, WHEELS, DOCKERFILE = "decoders", "run.py", "wheels", "Dockerfile"
_RUN = '''"""Runs in the image: the official evaluator over these decoders."""

from betz.evaluate.falcon_submission import run_submission

if __name__ == "__main__":
    run_submission()
'''
_DOCKERFILE = """FROM python:3.11-slim
RUN pip install --no-cache-dir torch --index-url https://download.pytorch.org/whl/cpu
{install}
WORKDIR /submission_code
COPY {run} ./
COPY {decoders} ./{decoders}
ENV EVALUATION_LOC=remote SPLIT={task} PHASE=minival BATCH_SIZE={batch} \\
    EVAL_DATA_PATH=/dataset/evaluation_data PREDICTION_PATH=/submission/submission.csv \\
    PREDICTION_PATH_LOCAL=/submission/submission.csv GT_PATH=/tmp/ground_truth.pkl \\
    OMP_NUM_THREADS=1
CMD ["python", "{run}"]
"""


@dataclass(frozen=True)
class Rehearsal:
    """What a rehearsal found.

    Args:
        scores: of the official evaluator.
        files: key of each file → bins predicted (H2: trials).
        seconds: of the whole run.
        bytes_sent: of the submission folder.
        note: what to know about the scores.
    """

    scores: dict[str, float]
    files: dict[str, int]
    seconds: float
    bytes_sent: int
    note: str


def load_decoders(folder: Path) -> dict[str, Decoder]:
    """The decoder saved in a folder (for all files), or those in its subfolders, named by key, session or ``all``.

    Raises:
        ConfigError: there is none.
    """
    if (folder / MANIFEST).is_file():
        return {EVERY: load(folder)}
    found = {path.parent.name: load(path.parent) for path in sorted(folder.glob(f"*/{MANIFEST}"))}
    if not found:
        raise ConfigError(
            "there is no saved decoder in it.",
            where=str(folder),
            remedy="give a folder written by betz calibrate, or one with a subfolder for each file, session, or 'all'",
        )
    return found


def build_submission(
    task: TaskName, decoders: Path | None, out: Path, *, batch_size: int | None = None, wheel: Path | None = None
) -> Path:
    """Write the folder that Docker builds: ``Dockerfile``, ``run.py``, the decoders, and a wheel of Betz if given.

    Args:
        task: of the benchmark.
        decoders: as of :func:`load_decoders`; they are checked against the task. None: H2 with a fixed text.
        out: folder to write; it must be empty or not there.
        batch_size: files at once; None = the largest allowed.
        wheel: of Betz; None = the image installs this version from the package index.

    Raises:
        ConfigError: the folder is not empty, or decoders do not fit.
    """
    if out.exists() and any(out.iterdir()):
        raise ConfigError("the folder is not empty.", where=str(out), remedy="give a new one")
    found = None if decoders is None else load_decoders(decoders)
    adapter = FalconDecoder(task, found, batch_size=batch_size)
    out.mkdir(parents=True, exist_ok=True)
    (out / DECODERS).mkdir()
    if decoders is not None:
        if (decoders / MANIFEST).is_file():
            shutil.copytree(decoders, out / DECODERS / EVERY)
        else:
            for name in found or {}:
                shutil.copytree(decoders / name, out / DECODERS / name)
    install = f'RUN pip install --no-cache-dir "betz[falcon]=={__version__}"'
    if wheel is not None:
        (out / WHEELS).mkdir()
        shutil.copy(wheel, out / WHEELS / wheel.name)
        install = f'COPY {WHEELS} /{WHEELS}\nRUN pip install --no-cache-dir "/{WHEELS}/{wheel.name}[falcon]"'
    (out / RUN).write_text(_RUN)
    (out / DOCKERFILE).write_text(
        _DOCKERFILE.format(install=install, run=RUN, decoders=DECODERS, task=task, batch=adapter.batch_size)
    )
    return out


def run_submission() -> None:
    """What ``run.py`` does: read the image's variables, load the decoders beside it, run the official evaluator.

    Raises:
        ConfigError: a variable is missing or wrong.
    """
    official = require("falcon_challenge.evaluator", extra="falcon")
    values = {}
    for name in ("EVALUATION_LOC", "SPLIT", "PHASE", "BATCH_SIZE", "EVAL_DATA_PATH", "PREDICTION_PATH", "GT_PATH"):
        if not os.environ.get(name):
            raise ConfigError(
                f"the variable {name} is not set.", where="FALCON image", remedy="set it as the Dockerfile does"
            )
        values[name] = os.environ[name]
    task, folder = values["SPLIT"], Path(sys.argv[0]).resolve().parent / DECODERS
    decoders = load_decoders(folder) if any(folder.iterdir()) else None
    adapter = FalconDecoder(task, decoders, batch_size=int(values["BATCH_SIZE"]))  # type: ignore[arg-type]
    remote = values["EVALUATION_LOC"] == "remote"
    evaluator = official.FalconEvaluator(eval_remote=remote, split=task, dataloader_workers=0)
    evaluator.evaluate(adapter, phase=values["PHASE"])


def rehearse(submission: Path, task: TaskName, data: Path, *, phase: str = "minival", work: Path) -> Rehearsal:
    """Run a submission folder offline with the official evaluator, and check its prediction file.

    Args:
        submission: as :func:`build_submission` writes it.
        task: of the benchmark.
        data: the evaluator's data folder (``EVAL_DATA_PATH``).
        phase: ``minival`` or ``test``.
        work: where predictions and truth go.

    Raises:
        DataError: the run failed, or its predictions are missing, not finite or of another shape.
        MissingExtraError: falcon-challenge is not installed.
    """
    official = require("falcon_challenge.evaluator", extra="falcon")
    work.mkdir(parents=True, exist_ok=True)
    paths = {"EVAL_DATA_PATH": data, "PREDICTION_PATH": work / "submission.csv",
             "PREDICTION_PATH_LOCAL": work / "submission.csv", "GT_PATH": work / "ground_truth.pkl"}  # fmt: skip
    batch = next(w.split("=")[1] for w in (submission / DOCKERFILE).read_text().split() if w.startswith("BATCH_SIZE="))
    variables = {"EVALUATION_LOC": "local", "SPLIT": task, "PHASE": phase, "BATCH_SIZE": batch}
    variables |= {name: str(path.resolve()) for name, path in paths.items()}
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str((submission / RUN).resolve())],
        cwd=work, env={**os.environ, **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise DataError(
            f"the submission failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}",
            where=str(submission),
            remedy=f"run it by hand: {' '.join(f'{k}={v}' for k, v in variables.items())} python {RUN}",
        )
    files = check_predictions(paths["PREDICTION_PATH"], task, phase=phase)
    with quiet("falcon_challenge.evaluator"):
        scored = official.evaluate(str(paths["GT_PATH"]), str(paths["PREDICTION_PATH"]), phase)
    (scores,) = scored["result"][0].values()
    note = "minival is training data: these scores check plumbing" if phase == "minival" else "scores of local files"
    if task == "h2" and not any((submission / DECODERS).iterdir()):
        note += "; every text is a fixed one, nothing was decoded"
    size = sum(path.stat().st_size for path in submission.rglob("*") if path.is_file())
    return Rehearsal({name: float(value) for name, value in scores.items()}, files, seconds, size, note)


def push_command(task: TaskName, *, phase: str = "minival", image: str = "") -> str:
    """What to type to build the image and send it."""
    name = image or f"betz-falcon-{task}"
    return f"docker build -t {name} . && evalai push {name}:latest --phase few-shot-{phase}-{CHALLENGE} --private"


# ---- the prediction file


_ARRAYS = frozenset(
    {("numpy", "ndarray"), ("numpy", "dtype"), ("collections", "defaultdict"), ("builtins", "list")}
    | {(f"numpy.{core}.multiarray", name) for core in ("_core", "core") for name in ("_reconstruct", "scalar")}
    | {(f"numpy.{core}.numeric", "_frombuffer") for core in ("_core", "core")}
)


class _Arrays(pickle.Unpickler):
    """Reads arrays and dictionaries, and no other object."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAYS:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module, name)


def check_predictions(path: Path, task: TaskName, *, phase: str) -> dict[str, int]:
    """Check a prediction file as the server will see it.

    Args:
        path: the file; nothing in it is executed.
        task, phase: what it should hold.

    Returns:
        Key of each file → bins (H2: trials).

    Raises:
        DataError: it is missing or damaged, files are missing, or values are not finite or of another shape.
    """
    remedy = "the evaluator wants one entry a file; see the run's own output"
    try:
        content = _Arrays(io.BytesIO(path.read_bytes())).load()
    except Exception as error:  # a damaged pickle raises anything
        raise DataError(
            f"it cannot be read ({type(error).__name__}: {error}).", where=str(path), remedy=remedy
        ) from None
    known, found = TASKS[task], content.get(task) if isinstance(content, dict) else None
    if not isinstance(found, dict) or "normalized_latency" not in found:
        raise DataError(f"it has no predictions of {task} with a latency.", where=str(path), remedy=remedy)
    wanted = known.held_in + (known.held_out if phase == "test" else ())
    entries = {parse(task, key).key: value for key, value in found.items() if key != "normalized_latency"}
    missing = [key for key in wanted if key not in entries]
    if missing:
        raise DataError(f"{len(missing)} files are missing: {', '.join(missing[:4])}.", where=str(path), remedy=remedy)
    return {key: _length(task, key, value, path) for key, value in entries.items()}


def _length(task: TaskName, key: str, value: Any, path: Path) -> int:
    if task == "h2":
        texts = value[0] if isinstance(value, list) and len(value) == 1 else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise DataError("its predictions are no texts.", where=f"{path}, {key}", remedy="on_done returns a text")
        return len(texts)
    array = np.asarray(value)
    if array.ndim != 2 or array.shape[1] != TASKS[task].outputs or array.dtype.kind != "f":
        raise DataError(f"its predictions are {array.dtype} {array.shape}, wanted (bins, {TASKS[task].outputs}).",
                        where=f"{path}, {key}", remedy="predict returns (B, K) floats")  # fmt: skip
    if not np.isfinite(array).all():
        raise DataError(f"{np.count_nonzero(~np.isfinite(array))} predictions are NaN or infinite.",
                        where=f"{path}, {key}", remedy="a score of them would be NaN")  # fmt: skip
    return len(array)
