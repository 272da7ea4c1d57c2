"""FALCON's tasks, sessions and file names: what a file of the benchmark is, told from its name.

Facts of the public benchmark (Karpowicz et al. 2024, few-shot algorithms for consistent neural decoding): names of the
DANDI files and of those on the evaluation server, and which sessions are held in or out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

TaskName = Literal["h1", "h2", "m1", "m2"]
BIN_MS = 20.0


@dataclass(frozen=True)
class Task:
    """One task of the benchmark.

    Args:
        name: ``h1``, ``h2``, ``m1`` or ``m2``.
        dandiset: its number on DANDI.
        subject: as in the file names.
        channels, outputs: C and K of the official decoder interface.
        largest_batch: files that the official evaluator decodes at once, at most.
        held_in, held_out: keys of the files (sessions, sets or runs) in the official order.
    """

    name: TaskName
    dandiset: str
    subject: str
    channels: int
    outputs: int
    largest_batch: int
    held_in: tuple[str, ...]
    held_out: tuple[str, ...]


_H1_STAMPS = {
    "S0": ("19250101T111740", "19250101T112404"),
    "S1": ("19250108T110520", "19250108T111022", "19250108T111455"),
    "S2": ("19250113T120811", "19250113T121303"),
    "S3": ("19250115T110633", "19250115T111328"),
    "S4": ("19250119T113543", "19250119T114045"),
    "S5": ("19250120T115044", "19250120T115537"),
    "S6": ("19250126T113454", "19250126T114029"),
    "S7": ("19250127T120333", "19250127T120826"),
    "S8": ("19250129T112555", "19250129T113059"),
    "S9": ("19250202T113958", "19250202T114452"),
    "S10": ("19250203T113515", "19250203T114018"),
    "S11": ("19250206T112219", "19250206T112712"),
    "S12": ("19250209T111826", "19250209T112327"),
}
H1_KEYS = {stamp: f"{s}_set_{k}" for s, stamps in _H1_STAMPS.items() for k, stamp in enumerate(stamps, start=1)}
"""Date and time in a DANDI name → key of the set."""
_H2_IN = ("2022.05.18 2022.05.23 2022.05.25 2022.06.01 2022.06.03 2022.06.06 2022.06.08 2022.06.13 2022.06.15 "
          "2022.06.22 2022.09.01 2022.09.29 2022.10.06 2022.10.18 2022.10.25 2022.10.27 2022.11.01 2022.11.03 "
          "2022.12.08 2022.12.15 2023.02.28")  # fmt: skip
_M2_IN = "Run1_20201019 Run2_20201019 Run1_20201020 Run2_20201020 Run1_20201027 Run2_20201027 Run1_20201028"
_M2_OUT = "Run1_20201030 Run2_20201030 Run1_20201118 Run1_20201119 Run1_20201124 Run2_20201124"

TASKS: dict[str, Task] = {
    "h1": Task(
        "h1", "000954", "HumanPitt", 176, 7, 8,
        tuple(k for k in H1_KEYS.values() if int(k[1 : k.index("_")]) <= 5),
        tuple(k for k in H1_KEYS.values() if int(k[1 : k.index("_")]) > 5),
    ),
    "h2": Task("h2", "000950", "T5", 192, 28, 1, tuple(_H2_IN.split()),
               ("2023.04.17", "2023.05.31", "2023.06.28", "2023.08.16", "2023.10.09")),
    "m1": Task("m1", "000941", "MonkeyL", 64, 16, 4, ("20120924", "20120926", "20120927", "20120928"),
               ("20121004", "20121017", "20121024")),
    "m2": Task("m2", "000953", "MonkeyN", 96, 2, 7, tuple(_M2_IN.split()), tuple(_M2_OUT.split())),
}  # fmt: skip


@dataclass(frozen=True)
class Named:
    """What a file's name says.

    Args:
        key: of the file: the evaluator's name of it, the same for DANDI's and the server's file name.
        session: the sessions by which scores are averaged; files of one are pooled.
        split: ``held-in``, ``held-out``, or empty if the session is not in the benchmark.
        part: ``calib``, ``minival``, ``eval``, or empty if the name does not say.
    """

    key: str
    session: str
    split: str
    part: str


def parse(task: TaskName, stem: str) -> Named:
    """What the name of a FALCON file says.

    Args:
        task: of the file.
        stem: its name without ``.nwb``, as on DANDI or as on the evaluation server.

    >>> parse("m2", "sub-MonkeyN-held-in-calib_ses-2020-10-19-Run1_behavior+ecephys")
    Named(key='Run1_20201019', session='20201019', split='held-in', part='calib')
    >>> parse("h1", "S6_set_2_eval")
    Named(key='S6_set_2', session='S6', split='held-out', part='eval')
    """
    key = _KEY_OF[task](stem) or stem
    known = TASKS[task]
    split = "held-in" if key in known.held_in else "held-out" if key in known.held_out else ""
    part = next((p for p in ("minival", "calib", "eval") if p in stem.lower()), "")
    return Named(key, _session(task, key), split, part)


def _session(task: TaskName, key: str) -> str:
    if task == "h1":
        return key.split("_")[0]
    return key.rpartition("_")[2] if task == "m2" else key


def _h1(stem: str) -> str:
    stamp = re.search(r"_ses-(\d{8}T\d{6})", stem)
    found = re.search(r"S\d+_set_\d+", stem.replace("-", "_"))
    return H1_KEYS.get(stamp[1], "") if stamp else found[0] if found else ""


def _h2(stem: str) -> str:
    found = re.search(r"(20\d\d)\.?(\d\d)\.?(\d\d)", stem)
    return ".".join(found.groups()) if found else ""


def _m1(stem: str) -> str:
    found = re.search(r"(?:^|[_-])(20\d{6})(?:_|$)", stem)
    return found[1] if found else ""


def _m2(stem: str) -> str:
    public = re.search(r"ses-(\d{4})-(\d\d)-(\d\d)-(Run\d+)", stem)
    if public:
        return f"{public[4]}_{public[1]}{public[2]}{public[3]}"
    found = re.search(r"(Run\d+)_(\d{8})", stem)
    return f"{found[1]}_{found[2]}" if found else ""


_KEY_OF = {"h1": _h1, "h2": _h2, "m1": _m1, "m2": _m2}


def public_name(task: TaskName, key: str, part: str) -> str:
    """Name of a file on DANDI.

    >>> public_name("m1", "20120924", "minival")
    'sub-MonkeyL-held-in-minival_ses-20120924_behavior+ecephys.nwb'
    """
    known = TASKS[task]
    split = "held-in" if key in known.held_in else "held-out"
    if task == "h1":
        ses = next(stamp for stamp, k in H1_KEYS.items() if k == key)
    elif task == "m2":
        run, date = key.split("_")
        ses = f"{date[:4]}-{date[4:6]}-{date[6:]}-{run}"
    else:
        ses = key.replace(".", "")
    end = "_behavior+ecephys" if task in ("m1", "m2") else ""
    return f"sub-{known.subject}-{split}-{part}_ses-{ses}{end}.nwb"


def server_name(task: TaskName, key: str) -> str:
    """Name of a file of the test phase on the evaluation server.

    >>> server_name("m2", "Run1_20201019")
    'sub-MonkeyNRun1_20201019_held_in_eval.nwb'
    """
    split = "held_in" if key in TASKS[task].held_in else "held_out"
    head = {"h1": "", "h2": "T5_", "m1": "L_", "m2": "sub-MonkeyN"}[task]
    return f"{head}{key}_eval.nwb" if task == "h1" else f"{head}{key}_{split}_eval.nwb"
