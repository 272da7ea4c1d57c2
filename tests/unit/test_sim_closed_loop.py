"""The simulated user, its targets, and the loop through a decoder."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from betz.core.errors import ConfigError
from betz.core.prediction import Prediction
from betz.core.session import BehaviorDim, Channel
from betz.sim.closed_loop import Loop, closed_loop
from betz.sim.targets import Attempt, Referee, Targets, score
from betz.sim.user import Cursor, ForwardModel, MovingCursor, Steering, User, whole_bins

CHANNELS = (Channel("x", "power", unit="cm/s"), Channel("y", "power", unit="cm/s"))
QUIET = User(noise=0.0, noise_share=0.0)


class Bare:
    """A source whose signals are the velocity that was given."""

    channels = CHANNELS

    def emit(self, velocity_cm_s: np.ndarray, place_cm: np.ndarray) -> np.ndarray:
        return np.asarray(velocity_cm_s)


class Echo:
    """A decoder that says what it hears, plus noise; ``deaf`` says noise alone, ``lost`` every so manieth bin not."""

    def __init__(self, *, bin_ms: float = 20.0, noise: float = 0.0, deaf: bool = False, lost: int = 0) -> None:
        self.bin_ms, self.channels, self.noise, self.deaf, self.lost = bin_ms, CHANNELS, noise, deaf, lost
        self.behavior = (BehaviorDim("hand_vx", "cm/s"), BehaviorDim("hand_vy", "cm/s"))

    def open(self, rows: int = 1, *, max_push_bins: int = 1) -> None:
        assert (rows, max_push_bins) == (1, 1)
        self.rng, self.bin = np.random.default_rng(0), 0

    def push(self, signals: np.ndarray) -> Prediction:
        value = self.noise * self.rng.standard_normal(2) + (0 if self.deaf else signals)
        valid = not (self.lost and self.bin % self.lost == 0)
        self.bin += 1
        return Prediction(value[None, None], None, np.array([[self.bin - 1]]), np.array([[valid]]))


def run(decoder: Echo | None = None, user: User | None = None, *, minutes: float = 3, **options: Any) -> Loop:
    return closed_loop(user or User(), decoder or Echo(), Bare(), minutes=minutes, **options)


# ---- the loop


@pytest.mark.parametrize("bin_ms", [10, 20, 50])
@pytest.mark.parametrize("kind", ["center_out", "random_target", "grid"])
def test_a_perfect_decoder_reaches_nearly_all_targets(kind: Any, bin_ms: float) -> None:
    made = run(Echo(bin_ms=bin_ms), targets=Targets(kind=kind, dwell_s=1.0))
    assert made.score.attempts > 60
    assert made.score.success >= 0.98
    assert made.score.time_to_target_s < 2.6
    assert made.score.path_efficiency > 0.8


def test_a_deaf_decoder_fails() -> None:
    assert run(Echo(deaf=True, noise=15)).score.success < 0.15
    still = run(Echo(deaf=True))
    assert still.score.success == 0  # not even back in the middle, where the cursor already is
    assert still.passed_over == still.score.attempts
    assert np.isnan(still.score.time_to_target_s)
    assert still.score.bitrate == 0


def test_delay_makes_it_slower_step_by_step() -> None:
    """As in Willett et al. 2013: 100, 200 and 300 ms more cost more and more."""
    made = [run(Echo(noise=8), minutes=5, cursor=Cursor(delay_ms=d)).score for d in (0, 60, 120, 200, 300)]
    time_s, bits = [s.mean_time_s for s in made], [s.bitrate for s in made]
    assert all(b > 1.03 * a for a, b in itertools.pairwise(time_s)), time_s
    assert 0.4 < bits[3] / bits[0] < 0.7  # −45 % in the published order of size


def test_noise_makes_it_slower_step_by_step() -> None:
    time_s = [run(Echo(noise=n), minutes=4).score.mean_time_s for n in (0, 6, 12, 24)]
    assert all(b > 1.05 * a for a, b in itertools.pairwise(time_s)), time_s
    of_user = [run(user=User(noise=n), minutes=4).score.mean_time_s for n in (0, 0.3, 0.8)]
    assert all(b > 1.05 * a for a, b in itertools.pairwise(of_user)), of_user


def test_a_user_who_knows_the_cursor_steers_better() -> None:
    """The forward model is what makes 200 ms of visual delay bearable: without its gain it is blind to its pushes."""
    blind = run(user=User(believed_gain=0.0), minutes=3, cursor=Cursor(gain=1.5)).score
    knowing = run(minutes=3, cursor=Cursor(gain=1.5)).score
    assert knowing.bitrate > 1.2 * blind.bitrate


def test_same_seed_same_run() -> None:
    first, again, other = run(minutes=1), run(minutes=1), run(minutes=1, seed=1)
    assert first.session.power is not None
    assert again.session.power is not None
    assert np.array_equal(first.session.power, again.session.power)
    assert first.attempts == again.attempts
    assert first.attempts != other.attempts
    longer = run(minutes=2)
    assert longer.attempts[: len(first.attempts)] == first.attempts


def test_the_session_says_what_happened() -> None:
    made = run(minutes=2)
    session, truth = made.session, made.truth
    assert session.num_bins == 6000
    assert list(session.brain_control) == [session.span]
    assert np.allclose(session.behavior_of(["intended_vx", "intended_vy"]), truth.intended_N2, atol=1e-5)
    # the signals carry the intention with the user's noise, and the decoder said what it heard
    assert np.allclose(session.signals, truth.encoded_N2, atol=1e-5)
    assert np.allclose(session.behavior_of(["decoded_vx", "decoded_vy"]), truth.encoded_N2, atol=1e-5)
    assert not np.allclose(truth.encoded_N2, truth.intended_N2, atol=0.1)
    trials = session.trials
    assert trials is not None
    assert len(trials) == made.score.attempts == len(made.attempts)
    assert np.array_equal(trials.end[:-1], trials.start[1:])
    assert np.allclose(trials.columns["time_s"], (trials.end - trials.start) / 30_000)
    assert trials.columns["success"].mean() == made.score.success
    assert made.unfinished == 1
    # a target is acquired with the cursor on it for the whole dwell
    cursor, ends = session.behavior_of(["cursor_x", "cursor_y"]), session.grid.bin_of(trials.end)
    for target, end, good in zip(trials.columns["target"], ends, trials.columns["success"], strict=True):
        far = np.linalg.norm(cursor[end - 25 : end] - target, axis=1).max()
        assert (far <= 1.25 + 1e-6) == good


def test_the_user_believes_what_is_nearly_so() -> None:
    """Without noise and edges the forward model is exact: belief is the cursor at the end of the bin before."""
    made = run(user=QUIET, minutes=1)
    cursor = made.session.behavior_of(["cursor_x", "cursor_y", "cursor_vx", "cursor_vy"])
    assert np.abs(made.truth.believed_N4[1:] - cursor[:-1]).max() < 1e-5
    noisy = run(minutes=1)
    cursor = noisy.session.behavior_of(["cursor_x", "cursor_y", "cursor_vx", "cursor_vy"])
    error = np.abs(noisy.truth.believed_N4[1:] - cursor[:-1])[:, :2]
    assert 0.05 < error.mean() < 0.6


def test_bins_without_a_prediction_are_counted() -> None:
    made = run(Echo(lost=10), minutes=1)
    assert made.not_decoded == 300
    decoded = made.session.behavior_of(["decoded_vx", "decoded_vy"])
    assert np.all(decoded[::10] == 0)


def test_what_does_not_fit_is_refused() -> None:
    stranger = Echo()
    stranger.channels = CHANNELS[::-1]
    with pytest.raises(ConfigError, match="decoder's 2 channels are not the 2 of the source"):
        run(stranger)
    positions = Echo()
    positions.behavior = (BehaviorDim("hand_x", "cm"), BehaviorDim("hand_y", "cm"))
    with pytest.raises(ConfigError, match=r"two dimensions in cm/s, not none.*name two of hand_x \(cm\)"):
        run(positions)
    with pytest.raises(ConfigError, match="two dimensions in cm/s, not hand_vx, elbow"):
        run(velocity=["hand_vx", "elbow"])
    with pytest.raises(ConfigError, match="hold no bin"):
        run(minutes=0)


def test_counts_must_be_counts() -> None:
    class Halves(Bare):
        channels = (Channel("x"), Channel("y"))

    decoder = Echo()
    decoder.channels = Halves.channels
    with pytest.raises(ConfigError, match="counts are not whole numbers"):
        closed_loop(User(), decoder, Halves(), minutes=0.1)


# ---- its parts


def test_the_forward_model_is_the_cursor() -> None:
    """Seen n bins ago and carried forward by the pushes since = where the cursor is."""
    rng = np.random.default_rng(0)
    settings = Cursor(gain=1.3, smoothing_ms=80, edge_cm=1000)
    moving = MovingCursor(settings, bin_ms=20)
    pushes = rng.normal(0, 10, (40, 2))
    places = []
    for push in pushes:
        moving.move(push)
        places.append((moving.place_cm, moving.velocity_cm_s))
    model = ForwardModel(7, keep=float(np.exp(-20 / 80)), gain=1.3, bin_ms=20)
    for k in range(20, 40):
        place, velocity = model.now(*places[k - 7], pushes[k - 6 : k + 1])
        assert np.allclose(place, places[k][0])
        assert np.allclose(velocity, places[k][1])


def test_a_new_target_is_seen_after_the_delay() -> None:
    steering = Steering(QUIET, Cursor(), bin_ms=20, rng=np.random.default_rng(0))
    rest, target = np.zeros(2), np.zeros(2)
    for _ in range(30):
        steering.act(rest, rest, target)
    moved = [steering.act(rest, rest, np.array((5.0, 0.0))).meant_D[0] for _ in range(12)]
    assert moved[:10] == [0.0] * 10  # 200 ms
    assert moved[10] > 0.5


def test_the_policy_pushes_and_brakes() -> None:
    user = replace(QUIET, delay_ms=0.0)

    def meant(way_cm: float, speed_cm_s: float) -> float:
        steering = Steering(user, Cursor(), bin_ms=20, rng=np.random.default_rng(0))
        found = steering.act(np.zeros(2), np.array((speed_cm_s, 0.0)), np.array((way_cm, 0.0)))
        assert found.meant_D[1] == pytest.approx(0)
        return float(found.meant_D[0])

    assert meant(3, 0) == pytest.approx(0.5)
    assert meant(30, 0) == pytest.approx(1.0)
    assert meant(5.5, 0) == pytest.approx(0.75)
    assert meant(3, 20) == pytest.approx(0.5 - 0.45)
    assert meant(0, -6) == pytest.approx(0.05)


def test_the_users_noise_is_as_stated() -> None:
    user = User(noise=0.2, noise_share=0.5, noise_ms=100)
    steering = Steering(user, Cursor(), bin_ms=20, rng=np.random.default_rng(0))
    far = np.array((100.0, 0.0))
    noise = []
    for _ in range(20_000):
        command = steering.act(np.zeros(2), np.zeros(2), far)
        noise.append((command.given_D - command.meant_D) / (0.2 + 0.5 * np.hypot(*command.meant_D)))
    x = np.array(noise)[100:]
    assert np.allclose(x.std(axis=0), 1.0, atol=0.06)
    kept = [(x[:-1, k] * x[1:, k]).mean() / x[:, k].var() for k in range(2)]
    assert np.allclose(kept, np.exp(-20 / 100), atol=0.03)


def test_the_cursor_stops_at_the_edge_and_waits_for_its_delay() -> None:
    moving = MovingCursor(Cursor(smoothing_ms=0, delay_ms=60, edge_cm=1), bin_ms=20)
    xs = []
    for _ in range(10):
        moving.move(np.array((20.0, 0.0)))
        xs.append(moving.place_cm[0])
    assert np.allclose(xs, [0, 0, 0, 0.4, 0.8, 1, 1, 1, 1, 1])
    assert moving.velocity_cm_s[0] == 0
    assert whole_bins(200, 45, "delay") == 4


def referee(**settings: Any) -> Referee:
    return Referee(Targets(**settings), bin_ms=100, rng=np.random.default_rng(0))


def test_a_target_wants_an_unbroken_dwell() -> None:
    judge = referee(dwell_s=0.5, timeout_s=5)
    on, off = judge.target_cm, judge.target_cm + 10
    for k, place in enumerate([on] * 4 + [off] + [on] * 5):
        assert not judge.attempts
        judge.see(k, place)
    (attempt,) = judge.attempts
    assert attempt.success
    assert (attempt.first_bin, attempt.end_bin, attempt.entries) == (0, 10, 2)
    assert attempt.distance_cm == pytest.approx(8.0)
    for k in range(10, 60):
        judge.see(k, np.array((50.0, 50.0)))
    assert not judge.attempts[1].success
    assert judge.attempts[1].end_bin - judge.attempts[1].first_bin == 50


def test_a_wrong_key_counts_once_the_cursor_moved_on() -> None:
    judge = referee(kind="grid", dwell_s=0.3, keys=6)
    wrong = next(
        k
        for k in range(36)
        if k not in (judge.targets.wanted(judge.target_cm), judge.targets.under(np.zeros(2), np.zeros(2)))
    )
    for k in range(10):
        judge.see(k, np.zeros(2))  # where it was when the target appeared
    assert not judge.attempts
    for k in range(10, 13):
        judge.see(k, judge.targets.center_of(wrong))
    (attempt,) = judge.attempts
    assert attempt.wrong
    assert not attempt.success


def test_keys_tile_the_board() -> None:
    board = Targets(kind="grid", keys=5, width_cm=10)
    for key in range(25):
        assert board.under(board.center_of(key), np.zeros(2)) == key
    assert board.under(np.array((5.01, 0.0)), np.zeros(2)) is None
    assert board.under(np.array((-5.0, -5.0)), np.zeros(2)) == 0
    places = board.places(np.random.default_rng(0))
    shown = [board.under(next(places)[0], np.zeros(2)) for _ in range(500)]
    assert set(shown) == set(range(25))
    assert all(a != b for a, b in itertools.pairwise(shown))


def attempt(**changes: Any) -> Attempt:
    base = {"first_bin": 0, "end_bin": 20, "target_cm": (8.0, 0.0), "condition": "out_0", "distance_cm": 7.5}
    return Attempt(**(base | {"success": True, "wrong": False, "entries": 1, "path_cm": 10.0} | changes))


def test_scores_by_hand() -> None:
    three = [attempt(), attempt(end_bin=60, success=False), attempt(end_bin=40)]
    found = score(three, Targets(), bin_ms=50)
    assert found.success == pytest.approx(2 / 3)
    assert found.time_to_target_s == pytest.approx(1.5)
    assert found.mean_time_s == pytest.approx(2.0)
    assert found.bitrate == pytest.approx(2 * np.log2(1 + 7.5 / 2.5) / 6)
    assert found.path_efficiency == pytest.approx(0.75)
    grid = [attempt(), attempt(success=False, wrong=True), attempt(), attempt()]
    assert score(grid, Targets(kind="grid"), bin_ms=50).bitrate == pytest.approx(2 * np.log2(35) / 4)
    none = score([], Targets(), bin_ms=50)
    assert none.attempts == 0
    assert np.isnan(none.bitrate)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: User(push=((0.0, 0.0),)), "push needs two knots or more, ascending"),
        (lambda: User(damping=((1.0, 0.0), (0.0, 0.0))), "damping needs two knots or more"),
        (lambda: User(delay_ms=-1), "delay, noise and full push must be ≥ 0"),
        (lambda: Cursor(edge_cm=0), "the edge > 0"),
        (lambda: Targets(radius_cm=0), "lengths and times must be positive"),
        (lambda: Targets(dwell_s=9), "the timeout must exceed the dwell"),
        (lambda: Targets(kind="bubble"), "kind: Input should be 'center_out'"),  # type: ignore[arg-type]
        (lambda: whole_bins(float("nan"), 20, "delay"), "a delay of nan ms is impossible"),
    ],
)
def test_impossible_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
