"""The report: self-contained, escaped, and saying in words what the numbers are."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import betz
from betz.core import errors
from betz.core.errors import DataError, MissingExtraError
from betz.core.session import BehaviorDim, Channel, Derivation, Series, Session
from betz.core.timegrid import BinGrid
from betz.decode.baselines.wiener import Wiener
from betz.evaluate import plots, verdict
from betz.evaluate.evaluation import Evaluation
from betz.evaluate.report import report
from betz.evaluate.results import Row, table, write_whole
from betz.evaluate.run import Plan, Task, example, run

FAST = Wiener(lags=3, prefilter_ms=(0,), strengths=(0.1,))
EVIL = "<script>alert('x')</script>"


def session(
    name: str = "s0", *, seed: int = 0, edges: Sequence[int] = (), dim: str = "hand_vx", unit: str = "cm/s"
) -> Session:
    rng = np.random.default_rng(seed)
    bins, grid = 1500, BinGrid(1000, 100)
    moved = np.stack([np.convolve(rng.normal(size=bins), np.ones(9) / 3, "same") for _ in range(2)], axis=1)
    derived = Derivation("velocity_acausal", ("hand_y",), False, 0.0)
    dims = (BehaviorDim(dim, unit), BehaviorDim("hand_vy", "cm/s", derivation=derived))
    return Session(
        id=name,
        subject="nobody & co",
        grid=grid,
        num_bins=bins,
        channels=tuple(Channel(f"c{i}") for i in range(6)),
        counts=rng.poisson(np.exp(0.5 * moved @ rng.normal(size=(2, 6)))).astype(np.uint8),
        behavior=(Series(moved, dims, 0, 100),),
        edges=np.asarray(edges, dtype=np.int64) * 100,
    )


def evaluation(**changes: Any) -> Evaluation:
    data = session(**changes)
    decoder = FAST.calibrate(data.first(minutes=1), behavior=[d.name for d in data.dims])
    return betz.evaluate(decoder, data.after(minutes=1))


@pytest.fixture(scope="module")
def plan() -> Plan:
    decoders = {"wiener": FAST, "weak": Wiener(lags=1, prefilter_ms=(0,), strengths=(10,))}
    tasks = {"velocity": Task(("hand_v?",)), EVIL: Task(("hand_vy",), percentile_unit=99)}
    return Plan(decoders=decoders, tasks=tasks, minutes=(0.5, 5), seeds=(0, 1), edges=("restart", "cross"))


@pytest.fixture(scope="module")
def sessions() -> list[Session]:
    return [session("s0", edges=range(20, 1500, 20)), session("s1", seed=1, edges=range(20, 1500, 20))]


@pytest.fixture(scope="module")
def rows(plan: Plan, sessions: list[Session], tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return run(plan, sessions, out=tmp_path_factory.mktemp("run") / "results.jsonl", progress=False)


class Page(HTMLParser):
    """Tags and texts of a report, and every address in it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.alts: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action", "data"):
                self.addresses.append(value or "")
            if tag == "img" and name == "alt":
                self.alts.append(value or "")

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_report_of_a_run_is_one_file_that_asks_for_nothing(
    plan: Plan, sessions: list[Session], rows: list[Row], tmp_path: Path
) -> None:
    path = report(rows, tmp_path / "a" / "report.html", evaluations=list(filter(None, [example(plan, sessions, rows)])))
    html = path.read_text()
    page = Page(html)
    assert all(a.startswith("data:image/svg+xml;base64,") for a in page.addresses)
    assert len(page.addresses) == len(page.alts) == page.tags.count("img") == 5, "traces, 2 × (curve, sessions)"
    assert all(len(alt) > 20 for alt in page.alts)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "url(" not in html
    assert "@import" not in html
    for address in page.addresses:
        svg = base64.b64decode(address.split(",", 1)[1]).decode()
        assert "<svg" in svg
        assert not re.search(r"""(?:href|src)=["'](?!#)""", svg), "only references inside the image"
    assert [p.name for p in path.parent.iterdir()] == ["report.html"], "nothing is left beside it"


def test_everything_from_outside_is_escaped(rows: list[Row], tmp_path: Path) -> None:
    found = evaluation(dim=EVIL, unit="<b>cm")
    broken = [*rows, rows[0] | {"error": f"{EVIL} broke", "key": "x"}]
    html = report(broken, tmp_path / "r.html", evaluations=[found], title=EVIL).read_text()
    assert "<script" not in html
    assert "<b>" not in html
    page = Page(html)
    for text in ("Decoder wiener reaches", f"{EVIL} broke", "<b>cm", "nobody & co"):
        assert text in page.text


def test_the_report_has_every_number(rows: list[Row], tmp_path: Path) -> None:
    text = Page(report(rows, tmp_path / "r.html").read_text()).text
    for column in table(rows):
        assert f"{column.mean:.2f}".replace("-", "−") in text
        assert column.settled is not None
        assert f"{column.settled:.2f}".replace("-", "−") in text
    for row in rows:
        assert row["session_hash"] in text
        if (row["minutes"], row["edges"]) == (5.0, "restart"):  # most minutes, first edges mode: session by session
            assert f"{row['r2']:.2f}" in text
    for said in ("wiener", "weak", "5 min*", "1.5 min on average instead of 5", "restart at trial edges", "lags: 3"):
        assert said in text
    assert "percentile 99 over the whole session" in text
    assert rows[0]["versions"]["numpy"] in text
    assert rows[0]["machine"] in text


def test_the_report_of_one_evaluation(tmp_path: Path) -> None:
    found = evaluation()
    path = found.to_html(tmp_path / "one.html")
    page = Page(path.read_text())
    assert page.tags.count("img") == 1
    assert f"R² {found.r2:.3f}" in page.text
    for row in found.rows()[1:]:
        assert f"{row['r2']:.3f}" in page.text
        assert f"{row['correlation']:.3f}" in page.text
    assert "velocity_acausal of hand_y (acausal, delay 0 ms)" in page.text
    assert found.session_hash in page.text
    assert "wiener on s0" in page.text


def test_nothing_to_report_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no results to report"):
        report([], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_a_run_in_which_all_failed_has_a_report(rows: list[Row], tmp_path: Path) -> None:
    broken = [row | {"error": "the disk is full"} for row in rows]
    text = Page(report(broken, tmp_path / "r.html").read_text()).text
    assert "Nothing was decoded: every cell ended in an error." in text
    assert "the disk is full" in text


def test_missing_libraries_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(errors.importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"jinja2 is not installed. Remedy: pip install 'betz\[report\]'"):
        evaluation().to_html(tmp_path / "r.html")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "x", b"old")
    (tmp_path / "y").mkdir()
    with pytest.raises(DataError, match="y: it could not be written"):
        write_whole(tmp_path / "y", b"new")
    assert path.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x", "y"]


# ---- what it says


def test_the_verdict_of_a_run(rows: list[Row]) -> None:
    found = verdict.of_rows(rows)
    columns = {(c.task, c.edges, c.decoder, c.minutes): c for c in table(rows)}
    most = columns["velocity", "restart", "wiener", 5.0]
    least, cross = columns["velocity", "restart", "wiener", 0.5], columns["velocity", "cross", "wiener", 5.0]
    assert found.text.startswith(
        f"Decoder wiener reaches a mean R² of {most.mean:.2f} (standard deviation {most.sd:.2f} over 2 sessions) on "
        f"velocity after 1.5 minutes of calibration, and {least.mean:.2f} after 30 seconds."
    )
    assert f"running on across the edges it is {cross.mean:.2f} and {cross.settled:.2f}." in found.text
    weak = columns["velocity", "restart", "weak", 5.0]
    assert f"Against weak that is {most.mean - weak.mean:.3f} better (ahead in 2 of 2 sessions" in found.text
    for said in (
        "where 5 minutes of calibration were asked for, 60 % of a session were often less",
        "some sessions are trials put together",
        "all sessions are of one subject (nobody & co)",
    ):
        assert said in found.caveats


def test_the_verdict_of_a_run_counts_what_is_missing(rows: list[Row]) -> None:
    changed = [
        r
        | {
            "lost": 30,
            "unlabelled": 6,
            "scored": 564,
            "dropped": {"grip": "constant in the calibration"},
            "overlap_bins": 1,
        }
        for r in rows
        if r["session"] == "s0"
    ]
    changed[0] = changed[0] | {"error": "it broke"}
    changed[1] = changed[1] | {"r2": -0.25}
    found = verdict.of_rows(changed).caveats
    for said in (
        f"1 of {len(changed)} cells ended in an error",
        "120 of 2,400 test bins (5 %) have no valid prediction",
        "24 of 2,400 test bins (1 %) have no label",
        "left out there (grip)",
        f"in {len(changed) - 1} cells test bins were part of a fixed decoder's calibration",
        "one session says nothing",
        f"in 1 of {len(changed) - 1} cells the decoder is worse than the mean",
        f"of s0 after {verdict.minutes(changed[1]['minutes_used'])}, −0.25)",
    ):
        assert said in found


def test_the_verdict_of_one_evaluation() -> None:
    found = evaluation()
    said = verdict.of_evaluation(found)
    assert said.text.startswith(
        f"Decoder wiener, calibrated on 1 minute of the same session, decodes hand_vx and hand_vy in 1.5 minutes of "
        f"session s0 with an R² of {found.r2:.2f} (95 % interval"
    )
    assert f"the direction of hand_v is off by {found.scores.angle_deg['hand_v']:.0f}° on average" in said.text
    assert "1.5 minutes of test data are few; one session says nothing about other days" in said.caveats
    assert "trials put together" not in said.caveats
    cut = verdict.of_evaluation(evaluation(edges=range(20, 1500, 20))).caveats
    assert re.search(r"the test part is made of trials put together \(\d+ edges\).*R² is 0\.\d\d\)", cut)
    slow = verdict.of_evaluation(replace(found, push_ms=(90.0, 110.0, 200.0))).text
    assert "longer than there is: it cannot run live here" in slow
    bad = verdict.of_evaluation(replace(found, scores=replace(found.scores, r2=-0.1), overlap_bins=4))
    assert "no better than always saying the mean" in bad.text
    assert "4 of the test bins were part of the calibration" in bad.caveats
    mixed = verdict.of_evaluation(evaluation(unit="N")).caveats
    assert "the dimensions have different units (N and cm/s), on which their common R² depends" in mixed


@pytest.mark.parametrize(
    "value, text",
    [
        (0.5, "30 seconds"),
        (0.94, "56 seconds"),
        (1.0, "1 minute"),
        (1.04, "1 minute"),
        (2.5, "2.5 minutes"),
        (10, "10 minutes"),
    ],
)
def test_lengths_for_people(value: float, text: str) -> None:
    assert verdict.minutes(value) == text


def test_the_drawn_stretch_is_the_typical_one() -> None:
    """Five stretches of 20 s with errors 1, 9, 3, 0, 5: the one with 3 is drawn."""
    found = evaluation()
    size = np.repeat([1.0, 9.0, 3.0, 0.0, 5.0], 200)
    truth = np.tile(np.sin(np.arange(1000))[:, None], (1, 2))
    made = replace(
        found,
        truth_NK=truth,
        predicted_NK=truth + size[:, None],
        test_N=np.ones(1000, dtype=bool),
        scored_N=np.ones(1000, dtype=bool),
        time_s=np.arange(1000) / 10,
    )
    start, stop = plots._typical(made)
    error = size[start:stop].astype(float) ** 2
    every = [np.mean(size[i : i + 200] ** 2) for i in range(0, 801, 50)]
    assert stop - start == 200
    assert error.mean() == np.sort(every)[(len(every) - 1) // 2]
    assert f"from {start / 10:.0f} s of the recording clock on" in plots.traces(made).caption


def test_one_amount_of_calibration_has_no_curve(rows: list[Row]) -> None:
    single = [r for r in rows if r["minutes"] == 5.0 and r["task"] == "velocity"]
    assert plots.curve(table(single), single) is None
    assert plots.sessions([r for r in single if r["session"] == "s0"], ["wiener"]) is None
