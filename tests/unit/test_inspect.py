"""Inspection: planted faults are found, clean sessions stay silent, and nothing strange stops it."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import betz
from betz.core.errors import DataError
from betz.core.intervals import Intervals
from betz.core.session import BehaviorDim, Channel, Provenance, Series, Session
from betz.core.timegrid import BinGrid
from betz.data import derive
from betz.data.store import Store
from betz.evaluate.channels import check_channels
from betz.evaluate.inspect import Inspection, inspect
from betz.evaluate.inspect_page import page, save_plots

BIN_MS = 20
DIMS = [
    BehaviorDim("hand_x", "cm"),
    BehaviorDim("hand_y", "cm"),
    BehaviorDim("hand_vx", "cm/s"),
    BehaviorDim("hand_vy", "cm/s"),
]


def counts_and_behavior(
    *, minutes: float = 4.0, channels: int = 24, lag_ms: float = 100.0, seed: int = 0, bin_ms: float = BIN_MS
) -> tuple[np.ndarray, np.ndarray]:
    """Poisson counts (5 to 40 a second) tuned to the velocity ``lag_ms`` later, and position and velocity."""
    rng = np.random.default_rng(seed)
    bin_s = bin_ms / 1000
    bins, lag = round(minutes * 60 / bin_s), round(lag_ms / bin_ms)
    margin = abs(lag) + 1
    wide = np.arange(-3, 3 + bin_s, bin_s)
    kernel = np.exp(-0.5 * (wide / 0.15) ** 2)
    velocity = np.stack([np.convolve(rng.normal(size=bins + 2 * margin), kernel, "same") for _ in range(2)], axis=1)
    velocity *= 10 / velocity.std()
    position = np.cumsum(velocity - velocity.mean(axis=0), axis=0) * bin_s
    behavior = np.concatenate((position, velocity), axis=1)[margin : margin + bins]
    angle = rng.uniform(0, 2 * np.pi, channels)
    drive = velocity[margin + lag : margin + lag + bins] @ np.stack((np.cos(angle), np.sin(angle))) / 10
    rate = rng.uniform(5, 40, channels) * np.exp(0.6 * drive - 0.18)
    return rng.poisson(rate * bin_s), behavior


def session(*, name: str = "s", change: Callable[[np.ndarray], None] | None = None, **more: Any) -> Session:
    counts, behavior = counts_and_behavior(**more)
    if change is not None:
        change(counts)
    return betz.from_arrays(counts, bin_ms=more.get("bin_ms", BIN_MS), behavior=behavior, dims=DIMS, id=name)


# ---- channels


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bin_ms", [20, 50, 100])
def test_clean_sessions_have_no_warnings(bin_ms: float, seed: int) -> None:
    found = inspect(session(seed=seed, bin_ms=bin_ms))
    assert found.warnings == ()
    assert found.channels.dead == found.channels.near_dead == found.channels.duplicated == ()
    assert not found.channels.noisy
    assert len(found.channels.together) == 0


def dead(counts: np.ndarray) -> None:
    counts[:, 3] = 0
    counts[:, 5] = 0
    counts[:, 7] = 0
    counts[[50, 900, 7000], 7] = 1


def test_dead_and_near_dead_channels_are_found() -> None:
    found = inspect(session(change=dead))
    assert found.channels.dead == (3, 5)
    assert found.channels.near_dead == (7,)
    assert found.warnings == (
        "2 of 24 channels are dead: ch3, ch5",
        "1 of 24 channels is near-dead, with less than 0.1 spikes a second: ch7",
    )
    rates = check_channels(session(change=dead)).rate
    assert rates[7] == pytest.approx(3 / 240)
    assert 5 < rates[0] < 45


def duplicated(counts: np.ndarray) -> None:
    counts[:, 9] = counts[:, 2]
    rng = np.random.default_rng(1)
    shared = counts[:, 4].copy()
    counts[:, 20] = rng.binomial(shared, 0.95) + rng.poisson(0.005, len(counts))


def test_duplicated_channels_are_found() -> None:
    found = inspect(session(change=duplicated))
    assert [(a, b) for a, b, _ in found.channels.duplicated] == [(2, 9), (4, 20)]
    assert found.channels.duplicated[0][2] == 1
    assert 0.9 < found.channels.duplicated[1][2] < 1
    assert [w.split(":")[0] for w in found.warnings] == [
        "duplicated channels, 1 pair",
        "near-identical channels, as with bridged electrodes or crosstalk, 1 pair",
    ]
    assert "ch2 = ch9" in found.warnings[0]
    assert "ch4 ~ ch20 (r = 0.9" in found.warnings[1]


def test_strong_shared_modulation_is_no_duplicate() -> None:
    """Two Poisson channels of one slow, deep rate correlate with r > 0.8 in wide bins, but are two channels."""
    rng = np.random.default_rng(0)
    rate = 12 * np.exp(np.sin(np.arange(4000) / 20))
    counts = rng.poisson(rate[:, None] * np.ones(2))
    assert np.corrcoef(counts.T)[0, 1] > 0.8
    assert check_channels(betz.from_arrays(counts, bin_ms=100)).duplicated == ()


def noisy(counts: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    counts[:, 0] = rng.poisson(300 * BIN_MS / 1000, len(counts))  # implausible rate
    counts[:, 6] = np.minimum(rng.poisson(3.5, len(counts)), 4)  # clipped
    bursts = rng.random(len(counts)) < 0.01
    counts[:, 11] = np.where(bursts, rng.poisson(9, len(counts)), rng.poisson(0.05, len(counts)))


def test_noisy_channels_are_found() -> None:
    found = inspect(session(change=noisy))
    kinds = {k: noise.kind for k, noise in found.channels.noisy.items()}
    assert kinds == {0: "rate", 6: "saturated", 11: "bursts"}
    assert len(found.warnings) == 3
    assert "1 of 24 channels is noisy (implausibly many spikes a second): ch0 (30" in found.warnings[0]
    assert re.search(r"saturated.*ch6 \(4\d% at 4\)", found.warnings[1])
    assert re.search(r"Poisson counts\): ch11 \(\d", found.warnings[2])


AT = 1000 + np.arange(6) * 1700


def artefacts(counts: np.ndarray) -> None:
    counts[:, 8] = 0
    counts[:, 14] = 0
    counts[AT] += 5
    counts[:, 14] += np.random.default_rng(2).poisson(0.001, len(counts))


def test_common_artefacts_are_found_and_do_not_look_like_duplicates() -> None:
    found = inspect(session(change=artefacts))
    assert found.channels.together.tolist() == AT.tolist()
    assert found.channels.duplicated == ()
    assert {k: noise.kind for k, noise in found.channels.noisy.items()} == {8: "artefacts", 14: "artefacts"}
    assert "nearly all channels fire at once in 6 bins (0.05%), likely artefacts: at second 20, 54" in found.warnings[0]
    few = session(change=lambda counts: counts.__setitem__(AT[:2], counts[AT[:2]] + 5))
    assert inspect(few).warnings == ()
    assert "nearly all channels fire at once in 2 bins" in inspect(few).notes


def test_faults_are_looked_for_in_usable_bins_only() -> None:
    counts, behavior = counts_and_behavior()
    valid = np.ones(len(counts), dtype=bool)
    valid[3000:5000] = False
    counts[3000:5000] = 0
    counts[4000:4020] = 100
    counts[:, 4] = 0
    counts[3500, 4] = 7
    made = betz.from_arrays(counts, bin_ms=BIN_MS, behavior=behavior, dims=DIMS, valid=valid)
    found = inspect(made)
    assert found.warnings == ("1 of 24 channels is dead: ch4",)
    assert found.time.gaps == ((3000, 5000),)
    assert "2000" not in found.summary()
    assert "83.3% of 12,000 bins usable, 1 gap (longest 40 s; at 60.0–100.0 s), 0 edges; 2 stretches" in found.summary()


@pytest.mark.parametrize("cut", ["edges", "gaps"])
def test_changes_over_edges_and_gaps_are_no_bursts(cut: str) -> None:
    """Stretches of five bins, slow and fast by turns: counts jump between them only."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.where(np.arange(3000) // 5 % 2, 30, 2)[:, None] * np.ones(4))
    valid = np.arange(3000) % 5 > 0 if cut == "gaps" else None
    made = betz.from_arrays(counts, bin_ms=100, valid=valid)
    if cut == "edges":
        assert {noise.kind for noise in check_channels(made).noisy.values()} == {"bursts"}
        made = replace(made, edges=np.arange(500, 300_000, 500))
    assert not check_channels(made).noisy


def test_power_channels() -> None:
    rng = np.random.default_rng(0)
    power = rng.gamma(4, 1, (3000, 12)).astype(np.float32)
    power[:, 1] = 3.0
    power[:, 2] = 3.0 + 1e-4 * rng.normal(size=3000)
    power[:, 5] = power[:, 4] * 2
    power[700, 7] = 1e4
    made = betz.from_arrays(power=power, bin_ms=20)
    found = inspect(made)
    assert found.channels.dead == (1,)
    assert found.channels.near_dead == (2,)
    assert [(a, b) for a, b, _ in found.channels.duplicated] == [(4, 5)]
    assert {k: noise.kind for k, noise in found.channels.noisy.items()} == {7: "peaks"}
    assert found.kinds() == {"power of array A": 12}
    clean = np.delete(power, [1, 2, 5, 7], axis=1)
    assert inspect(betz.from_arrays(power=clean, bin_ms=20)).warnings == ()


# ---- lags


@pytest.mark.parametrize("bin_ms", [20, 50])
@pytest.mark.parametrize("lag_ms", [0, 100, 300])
def test_plausible_lags_are_not_warned_of(lag_ms: float, bin_ms: float) -> None:
    found = inspect(session(lag_ms=lag_ms, bin_ms=bin_ms))
    assert found.warnings == ()
    velocity = next(curve for curve in found.lags if curve.group == "hand velocity")
    assert velocity.best_ms == pytest.approx(lag_ms, abs=max(bin_ms, 40) / 2)
    assert velocity.best_r2 > 0.2


@pytest.mark.parametrize(
    "lag_ms, text",
    [
        (
            -100,
            r"hand velocity is best decoded from spikes (80|100|120) ms later .*: check that both clocks agree, that",
        ),
        (
            400,
            r"hand velocity is best decoded from spikes 400 ms earlier \(R² 0.\d\d, within 0 to 300 ms 0.\d\d\): check",
        ),
    ],
)
@pytest.mark.parametrize("bin_ms", [20, 50])
@pytest.mark.parametrize("seed", [0, 1])
def test_implausible_lags_are_warned_of(lag_ms: float, text: str, bin_ms: float, seed: int) -> None:
    found = inspect(session(lag_ms=lag_ms, bin_ms=bin_ms, seed=seed))
    assert len(found.warnings) == 1
    assert re.search(text, found.warnings[0])


def test_a_delay_that_is_known_is_said() -> None:
    """Causal smoothing makes behavior late; the lag grows by the stored delay, and the warning says so."""
    late = derive.lowpass_causal(session(lag_ms=160), ["hand_vx", "hand_vy"], cutoff_hz=0.9, to=["slow_vx", "slow_vy"])
    found = inspect(late)
    slow = next(curve for curve in found.lags if curve.group == "slow velocity")
    assert slow.delay_ms == pytest.approx(250, abs=2)
    assert slow.best_ms > 300
    assert len(found.warnings) == 1
    assert "of which 250 ms are its stored delay" in found.warnings[0]
    assert "lowpass_causal of hand_vx (causal, delay " in found.summary()


def test_what_the_task_showed_may_come_later() -> None:
    counts, behavior = counts_and_behavior(lag_ms=-200)
    dims = [BehaviorDim("target_x", "cm"), BehaviorDim("target_y", "cm")]
    found = inspect(betz.from_arrays(counts, bin_ms=BIN_MS, behavior=behavior[:, 2:], dims=dims))
    assert found.lags[0].best_ms < -100
    assert found.warnings == ()
    assert "target (instruction)" in found.summary()


def test_behavior_that_cannot_be_decoded_is_warned_of() -> None:
    counts, _ = counts_and_behavior()
    _, other = counts_and_behavior(seed=9)
    found = inspect(betz.from_arrays(counts, bin_ms=BIN_MS, behavior=other[:, 2:], dims=DIMS[2:]))
    assert len(found.warnings) == 1
    assert "hand velocity cannot be decoded at any lag" in found.warnings[0]


def test_lags_do_not_cross_edges() -> None:
    """Trials in random order: across their edges nothing is related, so pairs of bins must lie in one trial."""
    counts, behavior = counts_and_behavior(minutes=6)
    order = np.random.default_rng(0).permutation(180)
    trials = [counts[100 * k : 100 * k + 100] for k in order]
    moved = [behavior[100 * k : 100 * k + 100, 2:] for k in order]
    found = inspect(betz.from_arrays(trials, bin_ms=BIN_MS, behavior=moved, dims=DIMS[2:]))
    whole = inspect(betz.from_arrays(counts, bin_ms=BIN_MS, behavior=behavior[:, 2:], dims=DIMS[2:]))
    assert found.time.edges == 179
    assert found.time.segment_s == 2
    np.testing.assert_allclose(found.lags[0].r2, whole.lags[0].r2, atol=0.05)
    assert found.warnings == ()


def test_trials_that_are_short_leave_far_lags_open() -> None:
    counts, behavior = counts_and_behavior()
    trials = [counts[k : k + 20] for k in range(0, 12_000, 20)]
    moved = [behavior[k : k + 20, 2:] for k in range(0, 12_000, 20)]
    found = inspect(betz.from_arrays(trials, bin_ms=BIN_MS, behavior=moved, dims=DIMS[2:]))
    curve = found.lags[0]
    assert np.isnan(curve.r2[np.abs(curve.lag_ms) >= 400]).all()
    assert np.isfinite(curve.r2[np.abs(curve.lag_ms) < 350]).all()
    assert curve.best_ms == pytest.approx(100, abs=20)
    assert found.warnings == ()


# ---- behavior


def test_odd_behavior_is_warned_of() -> None:
    counts, behavior = counts_and_behavior(minutes=6)
    bins = len(counts)
    more = np.stack((np.full(bins, 2.0), np.full(bins, np.nan), np.random.default_rng(0).normal(size=bins)), axis=1)
    dims = [*DIMS, BehaviorDim("grip", "N"), BehaviorDim("gaze_x", "deg"), BehaviorDim("torque", "Nm")]
    behavior[-6000:] = behavior[-6001]
    behavior[-6000:, 2:] = 0
    made = betz.from_arrays(counts, bin_ms=BIN_MS, behavior=np.concatenate((behavior, more), 1), dims=dims, nan="mask")
    found = inspect(made)
    told = " | ".join(found.warnings)
    assert "no value at all is known of gaze_x" in told
    assert "constant behavior: grip" in told
    assert "torque (r = " in told
    assert "hand stands still in 4.0–6.0 min" in told
    assert "no lag sweep of grip: it is constant" in found.notes
    assert "no lag sweep of gaze: 0 s with labels are too few" in found.notes
    line = {b.name: b for b in found.behavior}["hand_vx"]
    assert line.least == pytest.approx(behavior[:, 2].min(), rel=1e-5)
    assert line.most == pytest.approx(behavior[:, 2].max(), rel=1e-5)
    assert (line.known, line.rate_hz, line.derived) == (1.0, 50.0, "")


def test_a_wrong_unit_of_velocity_is_warned_of() -> None:
    counts, behavior = counts_and_behavior()
    behavior[:, :2] *= 2
    (warning,) = inspect(betz.from_arrays(counts, bin_ms=BIN_MS, behavior=behavior, dims=DIMS)).warnings
    assert re.search(r"hand velocity is the change of position in (40|39.9\d) ms, but bins are 20 ms", warning)


def test_behavior_at_its_own_rate_and_discrete() -> None:
    made = session()
    fast = Series(np.repeat(np.sin(np.arange(12_000) / 30), 20)[:, None], (BehaviorDim("grip", "N"),), 0, 1)
    states = BehaviorDim("state", "", "discrete", ("rest", "go"))
    slow = Series((np.arange(1200) // 40 % 2)[:, None].astype(float), (states,), 0, 200)
    found = inspect(made.with_behavior(fast, slow))
    by_name = {b.name: b for b in found.behavior}
    assert by_name["grip"].rate_hz == 1000
    assert by_name["state"].classes == ("rest", "go")
    assert by_name["state"].known == pytest.approx(0.1)
    assert found.units()["classes"] == ["state"]
    assert "rest/go" in found.summary()


# ---- nothing stops it


def from_store(made: Session, tmp_path: Path) -> Session:
    store = Store(tmp_path / "store", create=True)
    store.put(made)
    return store.get(made.id)


def spiking() -> Session:
    counts, behavior = counts_and_behavior(minutes=2)
    ticks = [np.sort(np.repeat(np.arange(len(counts)) * 600, column) + 7) for column in counts.T]
    return Session(
        id="spiking",
        subject="m",
        grid=BinGrid(30_000, 600),
        num_bins=len(counts),
        channels=tuple(Channel(f"u{k}", "unit") for k in range(24)),
        spikes=tuple(t.astype(np.int64) for t in ticks),
        behavior=(Series(behavior.astype(np.float32), tuple(DIMS), 0, 600),),
    )


def nan_behavior() -> Session:
    counts, behavior = counts_and_behavior(minutes=2)
    behavior[::3] = np.nan
    behavior[:, 1] = np.nan
    return betz.from_arrays(counts, bin_ms=BIN_MS, behavior=behavior, dims=DIMS, nan="mask")


def mixed() -> Session:
    counts, behavior = counts_and_behavior(minutes=2)
    power = np.random.default_rng(0).gamma(2, 1, (len(counts), 3))
    return betz.from_arrays(counts, power=power, bin_ms=BIN_MS, behavior=behavior, dims=DIMS)


STRANGE: dict[str, tuple[Callable[[], Session], str]] = {
    "no behavior": (lambda: betz.from_arrays(counts_and_behavior()[0], bin_ms=20), "note: there is no behavior"),
    "one channel": (lambda: session(channels=1), "fewer than 8 live channels"),
    "all dead": (lambda: session(change=lambda c: c.fill(0)), "24 of 24 channels are dead"),
    "all the same": (lambda: session(change=lambda c: c.fill(2)), "24 of 24 channels are dead"),
    "ten seconds": (lambda: session(minutes=1 / 6), "no lag sweep of hand: 10 s with labels are too few"),
    "one bin": (lambda: session(minutes=0.02 / 60), "24 of 24 channels are dead"),
    "power only": (
        lambda: betz.from_arrays(power=np.random.default_rng(0).gamma(2, 1, (500, 9)), bin_ms=20),
        "9 power",
    ),
    "NaN behavior": (nan_behavior, "no value at all is known of hand_y"),
    "counts and power": (mixed, "24 crossings of array A, 3 power of array A"),
    "spike times": (spiking, "24 unit of array A"),
    "nothing valid": (
        lambda: replace(session(), valid=Intervals.of([(5, 10)])),
        "WARNING: 24 of 24 channels are dead",
    ),
    "every second bin": (
        lambda: replace(session(), valid=Intervals.of([(k, k + 20) for k in range(0, 240_000, 40)])),
        "6,000 gaps",
    ),
    "many arrays": (
        lambda: betz.from_arrays(
            np.random.default_rng(0).poisson(1, (900, 4)),
            bin_ms=20,
            channels=[Channel(f"c{k}", "unit", array=f"M{k}") for k in range(4)],
        ),
        "1 unit of array M0",
    ),
}


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("name", STRANGE)
def test_strange_sessions_are_inspected(name: str, stored: bool, tmp_path: Path) -> None:
    make, text = STRANGE[name]
    made = from_store(make(), tmp_path) if stored else make()
    found = inspect(made)
    assert text in found.summary()
    json.dumps(found.to_dict(), allow_nan=False)
    if stored:
        html = found.to_html(tmp_path / "page.html").read_text()
        assert html.count("<img") == 2 + bool(found.lags) + any(b.known and not b.classes for b in found.behavior)


def test_it_is_fast() -> None:
    made = session(minutes=20, channels=96)
    begun = time.process_time()
    inspect(made)
    assert time.process_time() - begun < 5


# ---- outputs


@pytest.fixture(scope="module")
def odd() -> Inspection:
    """Faults of each kind, with texts that try to get out of the page."""
    evil = "<script>alert('x')</script>"
    counts, behavior = counts_and_behavior()
    for change in (artefacts, dead):
        change(counts)
    made = betz.from_arrays(
        counts,
        bin_ms=BIN_MS,
        behavior=behavior[:, 2:],
        dims=[BehaviorDim(f"{evil}_vx", "cm/s"), BehaviorDim("hand_vy", "<b>cm/s")],
        id="odd",
        subject=evil,
        licence="CC0",
        provenance=Provenance(source="odd.npz", importer="arrays", notes=("a note & more",), skipped={"words": 3}),
    )
    return inspect(derive.velocity_causal(made, ["hand_vy"]))


def test_the_summary_has_everything(odd: Inspection) -> None:
    text = odd.summary()
    assert str(odd) == text
    assert text.startswith("odd · subject <script>")
    for said in (
        "4.0 min in 20 ms bins",
        "licence CC0",
        "24 crossings of array A",
        "a note & more",
        "left out: 3 words",
        "velocity_causal of hand_vy (causal, delay 10 ms)",
        "source: odd.npz, read by arrays",
        "hand velocity",
        *odd.warnings,
        *odd.notes,
    ):
        assert said in text


def test_json_has_everything(odd: Inspection) -> None:
    found = json.loads(json.dumps(odd.to_dict(), allow_nan=False))
    assert found["id"] == "odd"
    assert found["minutes"] == pytest.approx(4)
    assert found["provenance"]["skipped"] == {"words": 3}
    assert [c["id"] for c in found["channels"] if "dead" in c["flags"]] == ["ch3", "ch5"]
    assert found["noisy"]["ch14"]["kind"] == "artefacts"
    assert found["together_bins"] == AT.tolist()
    assert found["behavior"][2]["derived"] == "velocity_causal of hand_vy (causal, delay 10 ms)"
    assert found["time"]["gaps"] == []
    assert len(found["lags"][0]["r2"]) == len(found["lags"][0]["lag_ms"])
    assert found["warnings"] == list(odd.warnings)


def test_the_page_is_one_file_that_asks_for_nothing(odd: Inspection, tmp_path: Path) -> None:
    path = page([odd, inspect(session(name="clean"))], tmp_path / "deep" / "page.html")
    html = path.read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert len([s for s in sources if s.startswith("data:image/svg+xml;base64,")]) == 8
    assert {s for s in sources if not s.startswith("data:")} == {"#s1", "#s2"}
    assert "<script" not in html
    assert "<b>" not in html
    assert "&lt;script&gt;alert" in html
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]
    for text in ("2 sessions", "Nothing looks wrong.", "ch3; ch5", "a note &amp; more", "delay 10 ms", 'id="s2"'):
        assert text in html
    alts = re.findall(r'alt="([^"]*)"', html)
    assert len(alts) == 8
    assert all(len(alt) > 20 for alt in alts)
    for source in sources:
        if source.startswith("data:"):
            svg = base64.b64decode(source.partition(",")[2]).decode()
            assert not re.search(r"""(?:href|src)=["'](?!#|data:)""", svg), "only references inside the image"


def test_plots_are_written(odd: Inspection, tmp_path: Path) -> None:
    made = save_plots([odd], tmp_path / "plots")
    assert [p.name for p in made] == [f"odd-{name}.svg" for name in ("rates", "activity", "behavior", "lags")]
    assert all(p.read_text().rstrip().endswith("</svg>") for p in made)


def test_a_page_needs_sessions(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no sessions to report on"):
        page([], tmp_path / "page.html")


# ---- real recordings


def test_lags_of_real_recordings_are_plausible(recordings: Path) -> None:
    found = inspect(betz.read(recordings / "indy" / "indy_20161017_02.npz"))
    velocity = next(curve for curve in found.lags if curve.group == "finger velocity")
    assert 0 < velocity.best_ms < 300
    assert velocity.best_r2 > 0.2
    assert len(found.channels.dead) == 12
    assert {(a, b) for a, b, _ in found.channels.duplicated} == {(32, 36), (79, 85)}, "two bridged pairs"
    assert [w for w in found.warnings if "decoded" in w] == []


def test_artefacts_of_real_recordings_are_found(recordings: Path) -> None:
    found = inspect(betz.read(recordings / "limblab_spike_wf" / "Spike_08-29-12_WF_001.mat"))
    assert len(found.channels.together) > 100
    assert found.channels.duplicated == ()
    for curve in found.lags:
        assert 0 <= curve.best_ms <= 300
