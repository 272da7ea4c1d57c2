"""What was planted in a simulated session is found again in its signals, and its truth says when and where."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import betz
from betz.core.config import from_dict
from betz.core.errors import ConfigError
from betz.core.session import Session
from betz.sim.closed_loop import Loop, closed_loop
from betz.sim.disturbances import Disturbance
from betz.sim.emitter import Emitter
from betz.sim.encoding import HAND_SIZES
from betz.sim.irregular import History
from betz.sim.population import Simulated, Simulation, simulate
from betz.sim.task_set import TASKS
from betz.sim.tuning import features_FM
from betz.sim.user import User

HAND = ["hand_x", "hand_y", "hand_vx", "hand_vy"]
VELOCITY = HAND[2:]
LAGS = 11
PLAIN = betz.Wiener(span_ms=(300,), prefilter_ms=(0,), folds=3)


@cache
def ten_minutes(seed: int) -> Simulated:
    return simulate(Simulation(minutes=10), seed=seed)


def poisson_fit(design_NF: np.ndarray, counts_N: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights and log likelihood of a Poisson regression (a constant comes first)."""
    weights = np.zeros(design_NF.shape[1])
    weights[0] = np.log(max(counts_N.mean(), 1e-6))
    for _ in range(7):
        mean_N = np.exp(design_NF @ weights)
        curvature = (design_NF * mean_N[:, None]).T @ design_NF + 1e-6 * np.eye(len(weights))
        weights = weights + np.linalg.solve(curvature, design_NF.T @ (counts_N - mean_N))
    drive_N = design_NF @ weights
    return weights, float((counts_N * drive_N - np.exp(drive_N)).sum())


def fit(session: Session, channel: int, lags: range = range(LAGS)) -> tuple[float, float]:
    """Preferred direction (degrees) and latency (ms) of a channel, by the likeliest lag."""
    features_NF = features_FM(session.behavior_of(HAND)).T
    number = len(features_NF) - LAGS
    counts_N = session.signals[:number, channel].astype(np.float64)
    found = []
    for lag in lags:
        design = np.column_stack((np.ones(number), features_NF[lag : lag + number]))
        weights, likelihood = poisson_fit(design, counts_N)
        found.append((likelihood, float(np.degrees(np.arctan2(weights[2], weights[1]))), lag * session.bin_ms))
    return max(found)[1:]


def off_deg(a: Any, b: Any) -> np.ndarray:
    return np.abs((np.asarray(a) - np.asarray(b) + 180) % 360 - 180)


# ---- tuning


@pytest.mark.parametrize("seed", [0, 2])
def test_preferred_directions_and_latencies_are_found_in_ten_minutes(seed: int) -> None:
    """Of channels that say something: depth above .5 and 4 Hz. Median within 5°, latency within a bin of 20 ms."""
    made = ten_minutes(seed)
    population = made.truth.population
    clear = np.flatnonzero((population.velocity_depth > 0.5) & (made.truth.mean_hz > 4))
    assert len(clear) >= 25
    direction, latency = np.array([fit(made.session, c) for c in clear]).T
    assert np.median(off_deg(direction, population.preferred_deg[clear])) <= 5
    late = np.abs(latency - population.latency_ms[clear])
    assert np.median(late) <= 10
    assert np.mean(late <= 20) >= 0.9


def test_drift_between_days_is_found_and_recorded() -> None:
    days = [ten_minutes(0), simulate(Simulation(minutes=10), seed=0, day=2)]
    population = days[1].truth.population
    strong = (population.velocity_depth > 0.5) & (days[0].truth.population.velocity_depth > 0.5)
    clear = np.flatnonzero(strong & (days[1].truth.mean_hz > 4) & (days[0].truth.mean_hz > 4))
    assert len(clear) >= 12
    found = [np.array([fit(day.session, c, range(3, 8))[0] for c in clear]) for day in days]
    turned = (found[1] - found[0] + 180) % 360 - 180
    assert np.median(off_deg(turned, days[1].truth.drift.turned_deg[clear])) <= 8
    assert np.corrcoef(turned, days[1].truth.drift.turned_deg[clear])[0, 1] > 0.7


def test_force_tuning_is_found_by_the_same_means() -> None:
    made = simulate(Simulation(minutes=8, task="force_2d"), seed=1)
    session, (_, encoding) = made.session, made.truth.encodings[0]
    force = session.behavior_of(["force_x", "force_y"])
    rate = np.gradient(force, session.grid.bin_s, axis=0)
    rate /= 10 + np.linalg.norm(rate, axis=1, keepdims=True)
    clear = np.flatnonzero((encoding.depth("force") > 0.6) & (made.truth.mean_hz > 4))
    assert len(clear) >= 15
    number = session.num_bins - 5
    design = np.column_stack((np.ones(number), force[5:] / 10, rate[5:]))
    error = []
    for c in clear:
        weights, _ = poisson_fit(design, session.signals[:number, c].astype(np.float64))
        found, true = np.arctan2(weights[2], weights[1]), encoding.direction("force")[c]
        error.append(off_deg(np.degrees(found), np.degrees(np.arctan2(true[1], true[0]))))
    assert np.median(error) <= 10


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_encoded_and_recorded(task: Any) -> None:
    made = simulate(Simulation(minutes=0.5, channels=24, task=task), seed=0)
    ((tick, encoding),) = made.truth.encodings
    assert tick == 0
    assert encoding.kind == made.truth.population.kind
    tuned = np.array([kind == "tuned" for kind in encoding.kind])
    for name, size in encoding.drives:
        assert encoding.direction(name).shape == (24, size)
        assert np.allclose(np.linalg.norm(encoding.direction(name)[tuned], axis=1), 1)
        assert np.all(encoding.depth(name)[~tuned] == 0)
        assert np.all(encoding.depth(name)[tuned] > 0)
    assert made.session.task == task
    assert made.session.signals.sum() > 1000
    if dict(encoding.drives).keys() >= HAND_SIZES.keys() and "hand_vx" in [d.name for d in made.session.dims]:
        assert np.array_equal(encoding.weights_CF[:, :5], made.truth.population.weights_CF)
    with pytest.raises(ConfigError, match=r"no channel responds to 'smell'.*it has"):
        encoding.depth("smell")


def test_what_a_subject_is_tuned_to_stays_and_drifts_with_the_days() -> None:
    day, again, later = (simulate(Simulation(minutes=0.2, task="fingers_5"), seed=3, day=d).truth for d in (0, 0, 1))
    first, second = day.encodings[0][1], later.encodings[0][1]
    assert np.array_equal(first.weights_CF, again.encodings[0][1].weights_CF)
    both = np.array([a == b == "tuned" for a, b in zip(first.kind, second.kind, strict=True)]) & ~later.drift.gained
    cosine = (first.direction("posture") * second.direction("posture")).sum(axis=1)
    turned = np.radians(later.drift.turned_deg)
    assert np.allclose(cosine[both], np.cos(turned)[both])
    assert np.allclose(
        (second.depth("posture") / np.maximum(first.depth("posture"), 1e-9))[both], later.drift.gain[both]
    )


# ---- disturbances


def change_point(before_after_N: np.ndarray, window: int) -> int:
    """The bin at which the mean of a window changes most, in units of its scatter."""
    total = np.concatenate(([0.0], np.cumsum(before_after_N)))
    at = np.arange(window, len(before_after_N) - window)
    before, after = total[at] - total[at - window], total[at + window] - total[at]
    return int(at[np.argmax(np.abs(after - before) / np.sqrt(after + before + 1))])


def test_swaps_are_found_at_their_recorded_time() -> None:
    settings = Simulation(minutes=6, disturbances=(Disturbance("swap", at_s=150, share=0.5),))
    made, plain = simulate(settings, seed=0), simulate(replace(settings, disturbances=()), seed=0)
    (event,) = made.truth.events
    assert (event.kind, event.tick) == ("swap", 150 * 30_000)
    assert len(event.channels) >= 40
    assert made.session.spikes is not None
    assert plain.session.spikes is not None
    for c, other in zip(event.channels[:6], event.amount[:6].astype(int), strict=True):
        mine, theirs, found = plain.session.spikes[c], plain.session.spikes[other], made.session.spikes[c]
        cut = np.searchsorted(found, event.tick)
        assert np.array_equal(found[:cut], mine[mine < event.tick])
        assert np.array_equal(found[cut:], theirs[theirs >= event.tick])
    # without the truth: the time at which most channels change, by their rates
    counts = made.session.rebinned(1000).signals.astype(np.float64)
    pairs = event.channels.reshape(-1, 2)
    contrast = np.abs(made.truth.mean_hz[pairs[:, 0]] - made.truth.mean_hz[pairs[:, 1]])
    unlike = pairs[np.argsort(contrast)[-8:]].ravel()
    found_s = [change_point(counts[:, c], 40) for c in unlike]
    assert abs(np.median(found_s) - 150) <= 3
    spared = np.setdiff1d(np.arange(96), event.channels)
    assert all(np.array_equal(made.session.spikes[c], plain.session.spikes[c]) for c in spared)


def test_turns_losses_offsets_and_gains_are_found_at_their_recorded_times() -> None:
    changes = (
        Disturbance("turn", at_s=240, share=1.0, size=90),
        Disturbance("loss", at_s=120, channels=(0, 5)),
        Disturbance("offset", at_s=60, channels=(7, 8), size=30),
        Disturbance("gain", at_s=90, channels=(10, 11), size=3),
    )
    made = simulate(Simulation(minutes=8, disturbances=changes), seed=2)
    assert [(e.kind, e.tick) for e in made.truth.events] == [
        ("offset", 60 * 30_000),
        ("gain", 90 * 30_000),
        ("loss", 120 * 30_000),
        ("turn", 240 * 30_000),
    ]
    offset, gain, loss, turn = made.truth.events
    counts = made.session.rebinned(1000).signals.astype(np.float64)
    assert counts[120:, loss.channels].mean() < 0.2
    for k, c in enumerate(offset.channels):
        assert counts[60:240, c].mean() - counts[:60, c].mean() == pytest.approx(offset.amount[k], rel=0.3)
        assert abs(change_point(counts[:, c], 20) - 60) <= 2
    for k, c in enumerate(gain.channels):
        ratio = counts[90:240, c].mean() / counts[:90, c].mean()
        assert abs(np.log(ratio / gain.amount[k])) < 0.5
    # preferred directions before and after
    (start, before), (tick, after) = made.truth.encodings
    assert (start, tick) == (0, turn.tick)
    touched = np.concatenate((offset.channels, gain.channels, loss.channels))
    clear = np.flatnonzero((before.depth("velocity") > 0.6) & (made.truth.mean_hz > 6))
    clear = np.setdiff1d(clear, touched)
    assert len(clear) >= 10
    parts = (made.session.first(minutes=4), made.session.after(minutes=4))
    for part, encoding in zip(parts, (before, after), strict=True):
        direction = encoding.direction("velocity")[clear]
        true = np.degrees(np.arctan2(direction[:, 1], direction[:, 0]))
        found = [fit(part, c, range(3, 8))[0] for c in clear]
        assert np.median(off_deg(found, true)) <= 10
    assert np.allclose((before.direction("velocity") * after.direction("velocity")).sum(axis=1)[clear], 0, atol=1e-9)


def test_disturbances_of_a_day_hold_from_then_on() -> None:
    settings = Simulation(minutes=1, channels=24, disturbances=(Disturbance("loss", at_s=30, day=1, share=0.3),))
    none, half, all_ = (simulate(settings, seed=0, day=day) for day in (0, 1, 2))
    assert none.truth.events == ()
    assert (half.truth.events[0].tick, all_.truth.events[0].tick) == (900_000, 0)
    lost = all_.truth.events[0].channels
    assert all_.session.signals[:, lost].sum() < 40 < none.session.signals[:, lost].sum()
    first = half.session.first(minutes=0.5).signals[:, half.truth.events[0].channels]
    second = half.session.after(minutes=0.5).signals[:, half.truth.events[0].channels]
    assert second.sum() < 0.1 * first.sum()


# ---- irregular spikes


def test_overdispersion_and_history_reach_the_spikes() -> None:
    calm = Simulation(minutes=4, channels=48, noise=0.0, task="force_1d")
    plain = simulate(calm, seed=0)
    wild = simulate(replace(calm, overdispersion=0.5), seed=0)
    untuned = np.flatnonzero(
        np.array([k == "untuned" for k in plain.truth.population.kind]) & (plain.truth.mean_hz > 2)
    )
    assert len(untuned) >= 2

    def fano(made: Simulated) -> np.ndarray:
        counts = made.session.rebinned(50).signals[:, untuned].astype(np.float64)
        return np.asarray(counts.var(axis=0) / counts.mean(axis=0))

    per_bin = plain.truth.mean_hz[untuned] * 0.05
    assert np.allclose(fano(plain), 1, atol=0.12)
    assert np.allclose(fano(wild), 1 + 0.5 * per_bin, rtol=0.15)

    bursting = simulate(replace(calm, history=History(), refractory_ms=2.0), seed=0)
    assert bursting.session.spikes is not None
    for ticks in bursting.session.spikes:
        assert ticks.size < 2 or np.diff(ticks).min() >= 60
    busy = int(np.argmax(plain.truth.mean_hz))
    gaps_ms = np.diff(bursting.session.spikes[busy]) / 30
    usual_ms = np.diff(plain.session.spikes[busy]) / 30  # type: ignore[index]
    assert np.mean(gaps_ms < 4) < 0.6 * np.mean(usual_ms < 4)


# ---- power and arrays


@cache
def with_power(seed: int) -> Simulated:
    return simulate(Simulation(minutes=7, bin_ms=80, power=True), seed=seed)


def test_power_stands_beside_counts_and_follows_the_same_drive() -> None:
    made = with_power(0)
    session, truth = made.session, made.truth.power
    assert truth is not None
    assert session.power is not None
    assert [c.kind for c in session.channels] == ["crossings"] * 96 + ["power"] * 96
    assert session.channels[96].id == "ch1_power"
    assert session.channels[96].unit == "uV^2"
    counts = session.signals[:, :96]
    whole = 12 * (len(counts) // 12)
    seconds = counts[:whole].reshape(-1, 12, 96).sum(axis=1)
    power = session.power[:whole].reshape(-1, 12, 96).mean(axis=1)
    loud = np.flatnonzero(made.truth.mean_hz > 8)
    assert np.median([np.corrcoef(seconds[:, c], power[:, c])[0, 1] for c in loud]) > 0.7
    expected = truth.mean_NC(made.truth.mean_hz[None])[0]
    assert np.allclose(session.power.mean(axis=0), expected, rtol=0.05)
    plain = simulate(Simulation(minutes=7, bin_ms=80), seed=0)
    assert np.array_equal(plain.session.signals, counts)  # recording power changes no spike


def test_counts_and_power_decode_no_worse_than_counts() -> None:
    recipe, gains = betz.Wiener(lags=4, prefilter_ms=(0,), strengths=(0.1, 0.3, 1), folds=3), []
    for seed in (0, 1, 2):
        both = with_power(seed).session
        counts = replace(both, power=None, channels=both.channels[:96])
        scores = []
        for session in (counts, both):
            decoder = recipe.calibrate(session.first(minutes=4), behavior=VELOCITY)
            test = session.between(session.num_bins * 6 // 10, session.num_bins)
            scores.append(betz.evaluate(decoder, test, push_bins=500).r2)
        gains.append(scores[1] - scores[0])
    assert min(gains) >= 0
    assert np.mean(gains) > 0.03


def test_several_arrays() -> None:
    one = simulate(Simulation(minutes=1, channels=20), seed=4)
    two = simulate(Simulation(minutes=1, channels=20, arrays=2, power=True), seed=4, day=0)
    session = two.session
    assert [c.array for c in session.channels] == (["A"] * 20 + ["B"] * 20) * 2
    assert (session.channels[0].id, session.channels[20].id) == ("A_ch1", "B_ch1")
    a, b = one.truth.population, two.truth.population
    assert len(b) == 40
    assert np.array_equal(a.preferred_deg, b.preferred_deg[:20])
    assert np.abs(b.preferred_deg[:20] - b.preferred_deg[20:]).min() > 1e-6
    assert two.truth.power is not None
    mixing = two.truth.power.mixing_CC
    assert mixing[18, 19] > 0
    assert mixing[19, 20] == mixing[20, 19] == 0
    later = simulate(Simulation(minutes=0.1, channels=20, arrays=2), seed=4, day=1).truth.drift
    assert later.turned_deg.shape == (40,)
    assert np.abs(later.turned_deg[:20] - later.turned_deg[20:]).min() > 1e-9


def test_swapped_power_goes_with_its_spikes() -> None:
    settings = Simulation(minutes=0.5, channels=16, power=True, disturbances=(Disturbance("swap", at_s=15, share=0.6),))
    made, plain = simulate(settings, seed=1), simulate(replace(settings, disturbances=()), seed=1)
    (event,) = made.truth.events
    assert made.session.power is not None
    assert plain.session.power is not None
    a, b = int(event.channels[0]), int(event.amount[0])
    cut = 15 * 50
    assert np.array_equal(made.session.power[:cut, a], plain.session.power[:cut, a])
    assert np.array_equal(made.session.power[cut:, a], plain.session.power[cut:, b])


def test_rich_settings_are_values_that_make_the_session_again() -> None:
    rich = Simulation(
        minutes=0.2,
        channels=8,
        arrays=2,
        power=True,
        overdispersion=0.2,
        history=History(),
        disturbances=(Disturbance("gain", at_s=5, share=0.5), Disturbance("swap", channels=(1, 2))),
        task="grasp",
    )
    made = simulate(rich, seed=3)
    options = dict(made.session.provenance.options)
    seed, _, day = options.pop("seed"), options.pop("subject"), options.pop("day")
    again = simulate(from_dict(Simulation, options), seed=seed, day=day)
    assert np.array_equal(made.session.signals, again.session.signals)
    longer = simulate(replace(rich, minutes=0.4), seed=3).session
    assert np.array_equal(longer.signals[: made.session.num_bins], made.session.signals)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"arrays": 0}, r"0 arrays are impossible.*1 to 8"),
        ({"overdispersion": -0.1}, r"overdispersion of -0\.1 is impossible.*0 to 4"),
        ({"refractory_ms": 3}, r"refractory_ms of 3 is impossible.*0 to 2"),
        ({"disturbances": ({"kind": "theft"},)}, r"disturbances.*kind"),
    ],
)
def test_impossible_rich_settings_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Simulation(**values)


# ---- the array in closed loop


NOISY = Simulation(minutes=5, bin_ms=40)


def loop(simulation: Simulation, *, calibrated_as: int = 0, minutes: float = 3) -> Loop:
    """The array of seed 0 through a decoder of the same or of another one."""
    session = simulate(simulation, seed=calibrated_as).session
    decoder = PLAIN.calibrate(session, behavior=VELOCITY)
    return closed_loop(User(), decoder, Emitter(simulation, minutes=minutes, bin_ms=session.bin_ms), minutes=minutes)


def test_a_decoder_of_the_array_reaches_targets_and_one_of_another_array_does_not() -> None:
    good, other = loop(NOISY), loop(NOISY, calibrated_as=1)
    assert good.score.success > 0.6
    assert other.score.success < 0.5 * good.score.success
    assert np.array_equal(good.session.signals, loop(NOISY).session.signals)
    # rates are those of the open loop, and what is decoded is what was meant some bins before
    open_hz = simulate(NOISY, seed=0).session.signals.mean(axis=0)
    assert np.corrcoef(good.session.signals.mean(axis=0), open_hz)[0, 1] > 0.9
    decoded, meant = good.session.behavior_of(["decoded_vx"])[:, 0], good.truth.encoded_N2[:, 0]
    r = [np.corrcoef(decoded[lag:], meant[: len(meant) - lag])[0, 1] for lag in range(12)]
    assert 1 <= int(np.argmax(r)) <= 6
    assert max(r) > 0.5


def test_a_calm_array_is_controlled_as_well_as_the_user_can() -> None:
    made = loop(replace(NOISY, noise=0.0))
    assert made.score.success > 0.95
    assert made.score.time_to_target_s < 3


def test_power_in_closed_loop_has_the_level_of_the_open_loop() -> None:
    settings = Simulation(minutes=2, channels=32, bin_ms=40, power=True, overdispersion=0.1)
    open_, made = simulate(settings, seed=0).session, loop(settings, minutes=2).session
    assert made.power is not None
    assert open_.power is not None
    ratio = made.power.mean(axis=0) / open_.power.mean(axis=0)
    assert np.median(np.abs(ratio - 1)) < 0.2
    assert made.channels == open_.channels


def test_channels_answer_in_the_order_of_their_latencies() -> None:
    """A velocity that is meant from bin 10 on moves channels of 150 ms at once, those of 70 ms four bins later."""
    settings, total = Simulation(noise=0.0), np.zeros((20, 96))
    truth = simulate(replace(settings, minutes=0.1), seed=0).truth.population
    for run in range(100):
        source = Emitter(settings, minutes=0.02, bin_ms=20, run=run)
        total += [source.emit(np.array((0.0 if k < 10 else 40.0, 0.0)), np.zeros(2)) for k in range(20)]
    late = np.round((150 - truth.latency_ms) / 20)
    for bins in (2, 3, 4):
        group = (late == bins) & (truth.weights_CF[:, 0] + truth.weights_CF[:, 2] > 1)
        response = total[:, group].sum(axis=1) / total[:10, group].sum(axis=1).mean()
        assert np.all(response[: 10 + bins] < 1.35)
        assert np.all(response[10 + bins :] > 1.65)


def test_the_background_of_an_array_is_that_of_sessions() -> None:
    def rest(simulation: Simulation) -> np.ndarray:
        source = Emitter(simulation, minutes=2, bin_ms=50)
        counts = np.array([source.emit(np.zeros(2), np.zeros(2)) for _ in range(2400)])
        busy = counts[:, counts.mean(axis=0) > 0.2]
        return busy.reshape(120, 20, -1).sum(axis=1)

    noisy, calm, wild = (rest(Simulation(**v)) for v in ({}, {"noise": 0.0}, {"noise": 0.0, "overdispersion": 1.0}))
    pairs = [np.corrcoef(x.T)[np.triu_indices(x.shape[1], 1)].mean() for x in (noisy, calm, wild)]
    assert pairs[0] > 0.1
    assert abs(pairs[1]) < 0.03
    fano = [np.median(x.var(axis=0) / x.mean(axis=0)) for x in (calm, wild)]
    assert fano[0] == pytest.approx(1, abs=0.15)
    assert fano[1] > 1.25


def test_an_array_is_made_for_so_many_bins_of_possible_settings() -> None:
    source = Emitter(Simulation(channels=4), minutes=0.01, bin_ms=20)
    for _ in range(31):
        source.emit(np.zeros(2), np.zeros(2))
    with pytest.raises(ConfigError, match="the array was made for 31 bins"):
        source.emit(np.zeros(2), np.zeros(2))
    for wrong in (Simulation(history=History()), Simulation(disturbances=(Disturbance("loss"),))):
        with pytest.raises(ConfigError, match="history effects and disturbances are not made bin by bin"):
            Emitter(wrong, minutes=1, bin_ms=20)
    with pytest.raises(ConfigError, match=r"spikes in a bin of 60000 ms exceed the limit of 255"):
        Emitter(Simulation(), minutes=1, bin_ms=60_000).emit(np.zeros(2), np.zeros(2))
