"""Splits: every bin in one part at most, kept as JSON, and what leaks through them is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import betz
from betz.core.errors import ConfigError, DataError
from betz.core.session import Channel, Provenance, Session, Trials
from betz.data import splits
from betz.data.splits import Part, Split, check_leakage, read_split

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "split.json"


def session(
    name: str, *, seed: int = 0, subject: str = "m", bins: int = 1000, sha256: str = "", **more: Any
) -> Session:
    counts = np.random.default_rng(seed).poisson(0.5, (bins, 8))
    made = betz.from_arrays(counts, bin_ms=20, id=name, subject=subject, provenance=Provenance(sha256=sha256))
    return replace(made, **more)


def four() -> list[Session]:
    return [session(f"s{k}", seed=k, subject="ab"[k // 2]) for k in range(4)]


def trials(*rows: tuple[int, int, str]) -> Trials:
    start, end, condition = zip(*rows, strict=True)
    return Trials(np.array(start, dtype=np.int64), np.array(end, dtype=np.int64), condition)


# ---- making


def test_chronological() -> None:
    split = splits.chronological(four()[:2], test=0.2, validate=0.1, pause_s=0.4)
    assert split.kind == "chronological"
    assert split.pretrain == (Part("s0", 0, 680), Part("s1", 0, 680))
    assert split.validate[0] == Part("s0", 700, 780)
    assert split.test[1] == Part("s1", 800, 1000)
    assert split.left_out == {"pause before a cut": 80}
    views = split.take("test", four())
    assert [(v.id, v.num_bins, v.grid.origin_tick) for v in views] == [("s0", 200, 16_000), ("s1", 200, 16_000)]
    plain = splits.chronological(four())
    assert plain.validate == ()
    assert plain.left_out == {}
    assert plain.pretrain[3] == Part("s3", 0, 800)


def test_held_out_sessions() -> None:
    split = splits.held_out_sessions(four(), test=1, validate=2)
    assert (split.ids("pretrain"), split.ids("validate"), split.ids("test")) == (("s0",), ("s1", "s2"), ("s3",))
    named = splits.held_out_sessions(four(), test=["s1"], validate=["s3"])
    assert (named.ids("pretrain"), named.ids("validate"), named.ids("test")) == (("s0", "s2"), ("s3",), ("s1",))
    assert named.test == (Part("s1"),)


def test_held_out_subjects() -> None:
    split = splits.held_out_subjects(four(), test=["b"])
    assert (split.ids("pretrain"), split.ids("test"), split.kind) == (("s0", "s1"), ("s2", "s3"), "held-out subjects")


def test_held_out_conditions_of_trials() -> None:
    """Bins are 20 ticks; the one at tick 300 holds the end of one trial and the start of another."""
    table = trials((20, 310, "left"), (310, 500, "right"), (500, 600, "left"), (800, 900, "up"))
    split = splits.held_out_conditions([session("s", bins=50, trials=table)], test=["right"], validate=["up"])
    assert split.pretrain == (Part("s", 1, 15), Part("s", 25, 30))
    assert split.test == (Part("s", 16, 25),)
    assert split.validate == (Part("s", 40, 45),)
    assert split.left_out == {"outside of trials": 1 + 10 + 5, "in trials of two roles": 1}


def test_held_out_conditions_of_tags() -> None:
    tagged = [replace(s, tags={"load": "heavy" if s.id == "s2" else "light"}) for s in four()]
    split = splits.held_out_conditions(tagged, test=["heavy"], tag="load")
    assert (split.ids("pretrain"), split.ids("test")) == (("s0", "s1", "s3"), ("s2",))


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "shares": (lambda: splits.chronological(four(), test=0.7, validate=0.3), ConfigError, "shares of 0.7 for test"),
    "too short": (
        lambda: splits.chronological([session("s", bins=3)], pause_s=1),
        DataError,
        "3 bins are too few to cut",
    ),
    "nothing": (lambda: splits.chronological([]), DataError, "no sessions are given"),
    "same ids": (lambda: splits.chronological([*four(), four()[1]]), DataError, "two sessions have the id 's1'"),
    "unknown id": (
        lambda: splits.held_out_sessions(four(), test=["s9"]),
        DataError,
        "s9 cannot be in test.*s0, s1, s2, s3",
    ),
    "id twice": (
        lambda: splits.held_out_sessions(four(), test=["s1"], validate=["s1"]),
        DataError,
        "s1 cannot be in val",
    ),
    "string": (lambda: splits.held_out_sessions(four(), test="s1"), ConfigError, r"not the string 's1'.*use \['s1'\]"),
    "all": (lambda: splits.held_out_sessions(four(), test=4), DataError, "nothing is in pretrain"),
    "too many": (lambda: splits.held_out_sessions(four(), test=5), ConfigError, "5 of 4 sessions cannot be in test"),
    "none": (lambda: splits.held_out_sessions(four(), test=[]), DataError, "nothing is in test"),
    "subject": (lambda: splits.held_out_subjects(four(), test=["c"]), DataError, "no subject is named 'c'.*a, b"),
    "both": (
        lambda: splits.held_out_subjects(four(), test=["a"], validate=["a"]),
        DataError,
        "subject 'a' is in validate",
    ),
    "no trials": (lambda: splits.held_out_conditions(four(), test=["a"]), DataError, "no trials with conditions"),
    "no tag": (lambda: splits.held_out_conditions(four(), test=["a"], tag="load"), DataError, "it has no tag 'load'"),
    "no role": (lambda: splits.held_out_sessions(four(), test=1).ids("train"), ConfigError, "a split has no 'train'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    call, error, text = REFUSED[name]
    with pytest.raises(error, match=text):
        call()


# ---- keeping


def test_json_there_and_back(tmp_path: Path) -> None:
    split = splits.held_out_conditions(
        [session("s", bins=50, trials=trials((20, 300, "left"), (300, 500, "right")))], test=["right"]
    )
    assert read_split(split.save(tmp_path / "split.json")) == split
    whole = splits.held_out_sessions(four(), test=1)
    assert whole.to_json() == {
        "pretrain": ["s0", "s1", "s2"],
        "validate": [],
        "test": ["s3"],
        "kind": "held-out sessions",
    }
    assert Split.from_json(json.loads(json.dumps(whole.to_json()))) == whole
    open_end = Split((Part("a", 5, 9),), (), (Part("a", 9),))
    assert Split.from_json(open_end.to_json()) == open_end
    assert str(open_end.test[0]) == "a bins 9–end"


@pytest.mark.parametrize(
    "content, text",
    [
        ("{", "this is no JSON"),
        ("[1]", "this is no split"),
        ('{"train": ["a"]}', "this is no split.*pretrain"),
        ('{"pretrain": ["a"], "tset": ["b"]}', "a split has no 'tset'"),
        ('{"pretrain": "a"}', "'a' is no list"),
        ('{"pretrain": [3]}', "a part of it cannot be read"),
        ('{"pretrain": [{"session": "a"}]}', "a part of it cannot be read"),
        ('{"pretrain": [{"session": "a", "bins": [0.5, 2]}]}', r"bins \[0.5, 2\] of a"),
        ('{"pretrain": [{"session": "a", "bins": [4, 2]}]}', "pretrain, session a: bins 4 to 2 are impossible"),
        ('{"pretrain": ["a", "a"], "test": []}', "session 'a' is twice in pretrain"),
        ('{"pretrain": ["a"], "test": ["b", "a"]}', "session 'a' is in pretrain and in test"),
        (
            '{"pretrain": [{"session": "a", "bins": [0, 50]}], "test": [{"session": "a", "bins": [49, null]}]}',
            "session 'a' is in pretrain and in test",
        ),
        ('{"pretrain": ["a"], "test": ["c"]}', "split.*c is not among the 2 sessions.*there are a, b"),
    ],
)
def test_bad_files_say_why(tmp_path: Path, content: str, text: str) -> None:
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(DataError, match=text):
        read_split(path, known=["a", "b"])


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.json: it cannot be read"):
        read_split(tmp_path / "nowhere.json")


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="the kind of split 'random' is unknown"):
        Split((Part("a"),), (), (Part("b"),), kind="random")


def test_take_refuses_sessions_that_are_not_there() -> None:
    with pytest.raises(DataError, match="s2, s3 are not among the 2 sessions"):
        splits.held_out_sessions(four(), test=1).take("test", four()[:2])


def test_the_benchmark_split() -> None:
    split = read_split(BENCHMARK)
    names = {role: split.ids(role) for role in ("pretrain", "validate", "test")}
    assert {role: len(ids) for role, ids in names.items()} == {"pretrain": 26, "validate": 7, "test": 5}
    for monkey, cut in (("indy_", slice(5, 13)), ("Spike_", slice(6, 11))):
        days = {role: [i[cut] for i in ids if i.startswith(monkey)] for role, ids in names.items()}
        assert max(days["pretrain"]) < min(days["validate"]) <= max(days["validate"]) < min(days["test"])


def test_the_benchmark_split_names_recordings_that_there_are(recordings: Path) -> None:
    files = [*(recordings / "indy").glob("*.npz"), *(recordings / "limblab_spike_wf").glob("*.mat")]
    split = read_split(BENCHMARK, known=[f.stem for f in files])
    left_out = {f.stem for f in files} - {part.session for _, part in split}
    assert left_out == {"Spike_07-20-12_WF_001", "Spike_09-12-12_WF_001"}, "the broken ones"


# ---- leaks


def kinds(split: Split, sessions: list[Session], **more: Any) -> list[tuple[str, tuple[str, str]]]:
    return [(leak.kind, leak.sessions) for leak in check_leakage(split, sessions, **more)]


def test_honest_splits_have_no_leak() -> None:
    for split in (
        splits.chronological(four(), validate=0.2),
        splits.held_out_sessions(four(), test=1, validate=1),
        splits.held_out_subjects(four(), test=["b"]),
    ):
        assert check_leakage(split, four()) == ()


def test_silence_is_no_copy_of_silence() -> None:
    counts = [np.zeros((1000, 4), np.uint8) for _ in range(2)]
    counts[0][::100, 0] = counts[1][::100, 0] = 1
    quiet = [betz.from_arrays(c, bin_ms=20, id=f"s{k}") for k, c in enumerate(counts)]
    assert check_leakage(splits.held_out_sessions(quiet, test=1), quiet) == ()


def test_the_same_ticks_under_two_ids_are_found() -> None:
    whole = session("whole", sha256="f" * 64)
    early, late = replace(whole.between(0, 600), id="early"), replace(whole.between(500, 1000), id="late")
    split = splits.held_out_sessions([early, late], test=1)
    found = check_leakage(split, [early, late])
    assert [leak.kind for leak in found] == ["source", "overlap", "content"]
    assert str(found[1]) == "early (pretrain) and late (test): 2 s of the same recording are in both"
    apart = [early, replace(whole.between(600, 1000), id="late")]
    assert kinds(splits.held_out_sessions(apart, test=1), apart) == [("source", ("early", "late"))]


def test_the_same_file_under_two_ids_is_found() -> None:
    """Renamed and imported again; even with other bins, in which the content differs."""
    sessions = [
        session("a", sha256="f" * 64),
        session("b", seed=1, sha256="e" * 64),
        session("c", seed=2, sha256="f" * 64),
    ]
    split = splits.held_out_sessions(sessions, test=1)
    assert ("source", ("a", "c")) in kinds(split, sessions)
    assert ("source", ("b", "c")) not in kinds(split, sessions)
    assert check_leakage(Split((Part("a"), Part("c")), (), (Part("b"),)), sessions) == (), "one role may have both"


def test_the_same_signals_under_two_ids_are_found() -> None:
    """A copy, also one that begins elsewhere, whatever is said of its source."""
    data = session("a")
    copy = betz.from_arrays(np.asarray(data.counts)[137:], bin_ms=20, id="b", subject="other")
    sessions = [data, copy, session("c", seed=3)]
    split = splits.held_out_sessions(sessions, test=["b"])
    assert kinds(split, sessions) == [("content", ("a", "b"))]
    changed = np.asarray(data.counts)[137:].copy()
    changed[::50, 0] += 1
    other = [data, betz.from_arrays(changed, bin_ms=20, id="b"), sessions[2]]
    assert kinds(split, other) == []
    tail = [data, betz.from_arrays(np.concatenate((changed, data.counts[:120])), bin_ms=20, id="b"), sessions[2]]
    assert kinds(split, tail) == [("content", ("a", "b"))], "a shared stretch is enough"


def test_content_of_parts_outside_the_split_does_not_matter() -> None:
    data = session("a")
    sessions = [data, betz.from_arrays(np.asarray(data.counts), bin_ms=20, id="b")]
    apart = Split((Part("a", 0, 500),), (), (Part("b", 500, None),))
    assert check_leakage(apart, sessions) == ()
    assert kinds(Split((Part("a", 0, 601),), (), (Part("b", 500, None),)), sessions) == [("content", ("a", "b"))]


def test_the_same_power_and_spikes_are_found() -> None:
    power = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
    sessions = [betz.from_arrays(power=power, bin_ms=20, id=name) for name in "ab"]
    assert kinds(splits.held_out_sessions(sessions, test=1), sessions) == [("content", ("a", "b"))]
    ticks = np.sort(np.random.default_rng(0).integers(0, 6000, 900))
    spiking = [replace(s, channels=(Channel("u"),), power=None, spikes=(ticks,)) for s in sessions]
    assert kinds(splits.held_out_sessions(spiking, test=1), spiking) == [("content", ("a", "b"))]


def test_a_subject_on_both_sides_is_found() -> None:
    sessions = four()
    split = splits.held_out_subjects(sessions, test=["b"])
    renamed = [replace(sessions[0], subject="b"), *sessions[1:]]
    found = check_leakage(split, renamed)
    assert [(leak.kind, leak.sessions) for leak in found] == [("subject", ("s0", "s2")), ("subject", ("s0", "s3"))]
    assert found[0].what == "both are of b"
    by_session = splits.held_out_sessions(sessions, test=1)
    assert kinds(by_session, sessions) == []
    assert kinds(by_session, sessions, subjects=True) == [("subject", ("s2", "s3"))]


def test_unknown_sessions_are_refused() -> None:
    with pytest.raises(DataError, match="s3 is not among the 3 sessions"):
        check_leakage(splits.held_out_sessions(four(), test=1), four()[:3])
