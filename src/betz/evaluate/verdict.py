"""The paragraph at the head of a report: what was decoded how well, how it compares, and what to keep in mind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from betz.evaluate.classes import BALANCED_ACCURACY, R2, ClassScores, headline, is_continuous
from betz.evaluate.evaluation import Evaluation
from betz.evaluate.results import Column, Row, per_session, table

LITTLE_TEST_MINUTES = 2.0
MAX_TASKS = 4
GUESS = "A perfect decoder has 1, one that guesses 1 / (number of classes)."
MODES = {"none": "without edges", "restart": "restarting at the edges", "cross": "running on across the edges"}


@dataclass(frozen=True)
class Verdict:
    """The paragraph, and what to keep in mind when reading it."""

    text: str
    caveats: str


def of_evaluations(found: Sequence[Evaluation]) -> Verdict:
    """About one replay, or a few."""
    verdicts = [of_evaluation(each) for each in found[:MAX_TASKS]]
    more = [f"{len(found) - MAX_TASKS} further replays are below."] if len(found) > MAX_TASKS else []
    caveats = dict.fromkeys(v.caveats for v in verdicts if v.caveats)
    return Verdict(" ".join([v.text for v in verdicts] + more), " ".join(caveats))


def of_evaluation(found: Evaluation) -> Verdict:
    """About one replay."""
    scores = found.scores
    tested = scores.bins.total * found.bin_ms / 60_000
    names = listed([d.name for d in found.dims])
    how_well = f"an R² of {scores.r2:.2f}{_interval(found)}. {_scale(scores.r2)}"
    if scores.classes is not None:
        how_well = f"a balanced accuracy of {scores.headline:.2f}. {GUESS}"
    said = [
        f"Decoder {found.decoder}{_calibrated(found)} decodes {names} in {minutes(tested)} of session {found.session} "
        f"with {how_well}"
    ]
    said += [_events(name, of) for name, of in (scores.classes or {}).items()]
    if len(found.dims) > 1:
        ranked = sorted(zip(scores.r2_dims.tolist(), [d.name for d in found.dims], strict=True), reverse=True)
        ranked = [(r2, name) for r2, name in ranked if r2 == r2]
        if len(ranked) > 1:
            said.append(f"Best is {ranked[0][1]} ({ranked[0][0]:.2f}), worst {ranked[-1][1]} ({ranked[-1][0]:.2f}).")
    for name, degrees in scores.angle_deg.items():
        said.append(f"In the faster half of the movement the direction of {name} is off by {degrees:.0f}° on average.")
    pushes = "a bin" if found.push_bins == 1 else f"a push of {found.push_bins} bins"
    share = found.push_ms[1] / (found.bin_ms * found.push_bins)
    said.append(
        f"On this machine {pushes} took {found.push_ms[0]:.2g} ms (99 % below {found.push_ms[1]:.2g} ms), "
        + (f"{percent(share)} of the time there is." if share < 1 else "longer than there is: it cannot run live here.")
    )
    bins = scores.bins
    return _verdict(said, _bins_caveats(bins.lost, bins.unlabelled, bins.total) + _single(found, tested))


def _events(name: str, found: ClassScores) -> str:
    text = f"Of {found.events} events of {name}, {found.found} were found"
    if found.found:
        text += f", the median one {found.onset_delay_ms:.0f} ms after its start"
    return f"{text}; {found.false_positives_per_min:.2g} false ones came a minute."


def _calibrated(found: Evaluation) -> str:
    made = found.calibration
    if "minutes" not in made:
        return ""
    where = "the same session" if made.get("session") == found.session else f"session {made.get('session', 'unknown')}"
    return f", calibrated on {minutes(float(made['minutes']))} of {where},"


def _interval(found: Evaluation) -> str:
    if found.scores.interval is None:
        return ""
    low, high = found.scores.interval
    return f" (95 % interval {low:.2f} to {high:.2f})"


def _scale(r2: float) -> str:
    if r2 <= 0:
        return "That is no better than always saying the mean (which has 0; a perfect decoder has 1)."
    return "A perfect decoder has 1, one that always says the mean has 0."


def _single(found: Evaluation, tested: float) -> list[str]:
    notes = []
    if found.overlap_bins:
        notes.append(
            f"{found.overlap_bins:,} of the test bins were part of the calibration, so the numbers are better than "
            "they would be live"
        )
    if found.edges:
        settled = found.scores.r2_settled
        inside = "" if settled is None else f" (on bins at least 1 s into a trial R² is {settled:.2f})"
        notes.append(f"{_stereotypy(found.edges)}{inside}")
    units = list(dict.fromkeys(d.unit for d in found.dims))
    if len(units) > 1:
        notes.append(f"the dimensions have different units ({listed(units)}), on which their common R² depends")
    if tested < LITTLE_TEST_MINUTES:
        notes.append(f"{minutes(tested)} of test data are few")
    notes.append("one session says nothing about other days, tasks and subjects")
    return notes


def of_rows(rows: Sequence[Row]) -> Verdict:
    """About a run."""
    good = [row for row in rows if not row.get("error")]
    if not good:
        return Verdict("Nothing was decoded: every cell ended in an error.", "")
    columns = [c for c in table(rows) if c.sessions]
    tasks = list(dict.fromkeys(c.task for c in columns))
    said = []
    for task in tasks[:MAX_TASKS]:
        said += _task([c for c in columns if c.task == task], [r for r in good if r["task"] == task])
    if len(tasks) > MAX_TASKS:
        said.append(f"{len(tasks) - MAX_TASKS} further tasks are in the tables.")
    kinds = {c.measure for c in columns}
    said.insert(1, " ".join([_scale(1.0)] * (R2 in kinds) + [GUESS] * (BALANCED_ACCURACY in kinds)))
    return _verdict(said, _run_caveats(rows, good, columns))


def _task(columns: Sequence[Column], rows: Sequence[Row]) -> list[str]:
    """The first decoder after most and after least calibration, other edges modes, and each other decoder beside it."""
    mine = [c for c in columns if c.decoder == columns[0].decoder]
    line = [c for c in mine if c.edges == mine[0].edges]
    most, least = line[-1], line[0]
    spread = (
        "in one session" if most.sd is None else f"(standard deviation {most.sd:.2f} over {most.sessions} sessions)"
    )
    after = (
        f"after {minutes(most.minutes_used)} of calibration" if most.minutes else "without calibration on the session"
    )
    one = "an" if most.measure == R2 else "a"
    article = "a mean" if most.sessions > 1 else one
    said = f"Decoder {most.decoder} reaches {article} {most.measure} of {most.mean:.2f} {spread} "
    said += f"on {most.task} {after}"
    said += f", and {least.mean:.2f} after {minutes(least.minutes_used)}." if least is not most else "."
    sentences = [said]
    if most.settled is not None:
        other = [c for c in mine if c.edges != most.edges and c.minutes == most.minutes and c.settled is not None]
        sentences.append(
            f"On bins at least 1 s into a trial it is {most.settled:.2f}"
            + "".join(f"; {MODES[c.edges]} it is {c.mean:.2f} and {c.settled:.2f}" for c in other)
            + "."
        )
    return sentences + _comparisons([c for c in columns if c.edges == most.edges], rows, most)


def _comparisons(columns: Sequence[Column], rows: Sequence[Row], most: Column) -> list[str]:
    said = []
    for name in dict.fromkeys(c.decoder for c in columns if c.decoder != most.decoder):
        beside = [c for c in columns if c.decoder == name and c.minutes in (most.minutes, 0.0)]
        pairs = paired(rows, most, beside[-1]) if beside else []
        if not pairs:
            continue
        text = f"Against {name} that is {abs(mean(pairs)):.3f} {'better' if mean(pairs) >= 0 else 'worse'}"
        if len(pairs) > 1:
            ahead = sum(difference > 0 for difference in pairs)
            text += f" (ahead in {ahead} of {len(pairs)} sessions, standard deviation {stdev(pairs):.3f})"
        said.append(f"{text}.")
    return said


def paired(rows: Sequence[Row], one: Column, other: Column) -> list[float]:
    """Differences of seed means, session by session, where both columns have a result."""

    def means(column: Column) -> dict[str, float]:
        here = (column.edges, column.decoder, column.minutes)
        cells = [r for r in rows if (r["edges"], r["decoder"], r["minutes"]) == here]
        return {name: mean(map(headline, found)) for name, found in per_session(cells).items()}

    mine, theirs = means(one), means(other)
    return [mine[name] - theirs[name] for name in mine if name in theirs]


def _run_caveats(rows: Sequence[Row], good: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    notes = []
    failed = len(rows) - len(good)
    if failed:
        notes.append(f"{failed} of {len(rows)} cells ended in an error and are in no mean")
    overlap = sum(r["overlap_bins"] > 0 for r in good)
    if overlap:
        notes.append(
            f"in {overlap} cells test bins were part of a fixed decoder's calibration, which makes them too good"
        )
    below = sorted((r for r in good if is_continuous(r) and r["r2"] < 0), key=headline)
    if below:
        worst = below[0]
        notes.append(
            f"in {len(below)} of {len(good)} cells the decoder is worse than the mean (R² below 0; the worst: "
            f"{worst['decoder']} on {worst['task']} of {worst['session']} after {minutes(worst['minutes_used'])}, "
            f"−{-worst['r2']:.2f})"
        )
    guessed = [r for r in good if not is_continuous(r) and headline(r) <= mean(r["chance"].values())]
    if guessed:
        notes.append(f"in {len(guessed)} of {len(good)} cells the classes are decoded no better than by a guess")
    short = sorted({c.minutes for c in columns if c.short})
    if short:
        notes.append(
            f"where {listed([f'{m:g}' for m in short])} minutes of calibration were asked for, 60 % of a session were "
            "often less (the columns marked *)"
        )
    seen = {(r["session"], r["task"], r["edges"]): r for r in good}.values()
    lost, unlabelled = sum(r["lost"] for r in seen), sum(r["unlabelled"] for r in seen)
    notes += _bins_caveats(lost, unlabelled, lost + unlabelled + sum(r["scored"] for r in seen))
    dropped = {(r["session"], name) for r in good for name in r["dropped"]}
    if dropped:
        names = sorted({name for _, name in dropped})
        shown = listed(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        notes.append(f"dimensions without variance or labels in a calibration were left out there ({shown})")
    if any(c.edges != "none" for c in columns):
        notes.append(_stereotypy())
    sessions = {r["session"] for r in good}
    if len(sessions) == 1:
        notes.append("one session says nothing about other days, tasks and subjects")
    elif len({r["subject"] for r in good}) == 1:
        notes.append(f"all sessions are of one subject ({next(iter(good))['subject']})")
    return notes


def _bins_caveats(lost: int, unlabelled: int, total: int) -> list[str]:
    notes = []
    if lost:
        notes.append(
            f"{lost:,} of {total:,} test bins ({percent(lost / total)}) have no valid prediction and are not scored"
        )
    if unlabelled:
        notes.append(
            f"{unlabelled:,} of {total:,} test bins ({percent(unlabelled / total)}) have no label and are not scored"
        )
    return notes


def _stereotypy(edges: int = 0) -> str:
    what = (
        f"the test part is made of trials put together ({edges:,} edges)"
        if edges
        else "some sessions are trials put together"
    )
    return (
        f"{what}: much of such a fit is the trials' common course, and both a restart at an edge, which tells the "
        "trial's phase, and running on across it flatter"
    )


def _verdict(said: Sequence[str], caveats: Sequence[str]) -> Verdict:
    return Verdict(" ".join(said), f"Keep in mind: {'; '.join(caveats)}." if caveats else "")


def minutes(value: float) -> str:
    """A length for people: ``30 seconds``, ``1 minute``, ``2.5 minutes``."""
    if value < 0.95:
        return f"{value * 60:.0f} seconds"
    text = f"{value:.1f}".removesuffix(".0")
    return f"{text} minute" + ("" if text == "1" else "s")


def percent(share: float) -> str:
    """``0.2 %``, ``12 %``."""
    return f"{share * 100:.2g} %" if share < 0.995 else f"{share * 100:.0f} %"


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``; many are cut.

    >>> listed(["hand_x", "hand_y", "grip"])
    'hand_x, hand_y and grip'
    """
    if len(names) > 6:
        return f"{', '.join(names[:3])} … {names[-1]} ({len(names)} dimensions)"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
