"""Derived behavior: causal or acausal as its name says, as late as it says, and never across a gap or an edge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import betz
from betz.core.errors import ConfigError, DataError
from betz.core.intervals import Intervals
from betz.core.session import BehaviorDim, Channel, Derivation, Series, Session
from betz.core.timegrid import BinGrid
from betz.data import derive
from betz.data.store import Store

Derive = Callable[[Session], Session]
CAUSAL: dict[str, Derive] = {
    "velocity_causal": lambda s: derive.velocity_causal(s, ["x"], to=["y"]),
    "lowpass_causal": lambda s: derive.lowpass_causal(s, ["x"], cutoff_hz=3, to=["y"]),
    "lowpass_causal of order 5": lambda s: derive.lowpass_causal(s, ["x"], cutoff_hz=2, order=5, to=["y"]),
    "smooth_causal": lambda s: derive.smooth_causal(s, ["x"], sd_ms=90, to=["y"]),
    "emg_envelope_causal": lambda s: derive.emg_envelope_causal(s, ["x"], cutoff_hz=3, to=["y"]),
    "resample_causal, fewer": lambda s: derive.resample_causal(s, ["x"], rate_hz=12.5, to=["y"]),
    "resample_causal, uneven": lambda s: derive.resample_causal(s, ["x"], rate_hz=8, to=["y"]),
    "resample_causal, more": lambda s: derive.resample_causal(s, ["x"], rate_hz=200, to=["y"]),
    "rectify": lambda s: derive.rectify(s, ["x"], to=["y"]),
}
ACAUSAL: dict[str, Derive] = {
    "velocity_acausal": lambda s: derive.velocity_acausal(s, ["x"], to=["y"]),
    "lowpass_acausal": lambda s: derive.lowpass_acausal(s, ["x"], cutoff_hz=3, to=["y"]),
    "smooth_acausal": lambda s: derive.smooth_acausal(s, ["x"], sd_ms=90, to=["y"]),
    "emg_envelope_acausal": lambda s: derive.emg_envelope_acausal(s, ["x"], cutoff_hz=3, to=["y"]),
    "resample_acausal, fewer": lambda s: derive.resample_acausal(s, ["x"], rate_hz=12.5, to=["y"]),
    "resample_acausal, more": lambda s: derive.resample_acausal(s, ["x"], rate_hz=200, to=["y"]),
}
EVERY = CAUSAL | ACAUSAL
BIN = 40


def session(
    values: Any,
    *,
    step: int = BIN,
    origin: int = 0,
    valid: Sequence[tuple[int, int]] | None = None,
    edges: Sequence[int] = (),
    name: str = "x",
    unit: str = "cm",
) -> Session:
    """Bins of 40 ms, and one dimension sampled every ``step`` ms."""
    values = np.asarray(values, dtype=np.float64).reshape(-1, 1)
    bins = -(-(origin + len(values) * step) // BIN)
    return Session(
        id="s",
        subject="m",
        grid=BinGrid(1000, BIN),
        num_bins=bins,
        channels=(Channel("a"),),
        counts=np.zeros((bins, 1), np.uint8),
        behavior=(Series(values, (BehaviorDim(name, unit),), origin, step),),
        valid=None if valid is None else Intervals.of(valid),
        edges=np.array(edges, dtype=np.int64),
    )


def made(found: Session, name: str = "y") -> tuple[np.ndarray, np.ndarray, BehaviorDim]:
    """Ticks, values and dimension of a result."""
    series = next(s for s in found.behavior if name in [d.name for d in s.dims])
    k = [d.name for d in series.dims].index(name)
    ticks = np.arange(len(series.values)) * series.ticks_per_sample + series.origin_tick
    return ticks, series.values[:, k], series.dims[k]


def derivation(found: Session, name: str = "y") -> Derivation:
    kept = made(found, name)[2].derivation
    assert kept is not None
    return kept


# ---- causality


@st.composite
def sessions(draw: st.DrawFn) -> tuple[Session, int]:
    """Any session with NaN, gaps, edges and any sampling, and a sample from which on its behavior will change."""
    step = draw(st.sampled_from([BIN, 10, 25]))
    number = draw(st.integers(2, 60))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    values = rng.normal(size=number)
    values[draw(st.lists(st.integers(0, number - 1), max_size=4))] = np.nan
    span = number * step
    valid = draw(st.lists(st.tuples(st.integers(0, span), st.integers(1, span)), max_size=2))
    edges = sorted(draw(st.sets(st.integers(1, span), max_size=3)))
    gaps = [(a, a + n) for a, n in valid] or None
    origin = 0 if step == BIN else draw(st.integers(0, 30))
    return session(values, step=step, origin=origin, valid=gaps, edges=edges), draw(st.integers(1, number - 1))


@pytest.mark.parametrize("name", CAUSAL)
@settings(deadline=None, max_examples=40)
@given(drawn=sessions(), change=st.sampled_from([1e6, np.nan, "noise"]))
def test_causal_ones_do_not_know_the_future(name: str, drawn: tuple[Session, int], change: Any) -> None:
    whole, cut = drawn
    series = whole.behavior[0]
    values = series.values.copy()
    values[cut:] = np.random.default_rng(7).normal(size=values[cut:].shape) if change == "noise" else change
    other = Session(
        **{**vars(whole), "behavior": (Series(values, series.dims, series.origin_tick, series.ticks_per_sample),)}
    )
    ticks, before, dim = made(CAUSAL[name](whole))
    _, after, _ = made(CAUSAL[name](other))
    past = ticks < series.origin_tick + cut * series.ticks_per_sample
    np.testing.assert_array_equal(after[past], before[past])
    assert dim.derivation is not None
    assert dim.derivation.causal


@pytest.mark.parametrize("name", ACAUSAL)
def test_acausal_ones_know_the_future_and_say_so(name: str) -> None:
    values = np.sin(np.arange(50.0))
    changed = values.copy()
    changed[26:] += 5
    ticks, before, dim = made(ACAUSAL[name](session(values)))
    _, after, _ = made(ACAUSAL[name](session(changed)))
    assert np.any(after[ticks < 26 * BIN] != before[ticks < 26 * BIN])
    assert dim.derivation is not None
    assert not dim.derivation.causal


# ---- delay


@pytest.mark.parametrize("step", [BIN, 10])
@pytest.mark.parametrize("name", EVERY)
def test_the_stored_delay_is_that_of_a_slow_ramp(name: str, step: int) -> None:
    time_s = np.arange(12_000 // step) * step / 1000
    course = 0.5 * (time_s + 2) ** 2 if "velocity" in name else time_s + 2
    ticks, values, dim = made(EVERY[name](session(course, step=step)))
    middle = (ticks > 4000) & (ticks <= 8000)  # whole cycles of samples that are held
    late_ms = 1000 * np.mean((ticks / 1000 + 2 - values)[middle])
    assert dim.derivation is not None
    assert dim.derivation.group_delay_ms == pytest.approx(late_ms, abs=1e-6)
    if name in ACAUSAL:
        assert dim.derivation.group_delay_ms == 0
        assert late_ms == pytest.approx(0, abs=1e-6)
    elif name != "rectify":
        assert late_ms > 1


@pytest.mark.parametrize("name", EVERY)
def test_the_stored_delay_is_that_of_a_slow_sine(name: str) -> None:
    time_s, turns = np.arange(60_000 // BIN) * BIN / 1000, 2 * np.pi * 0.05
    course = -np.cos(turns * time_s) / turns if "velocity" in name else np.sin(turns * time_s)
    course = course + (2 if "velocity" not in name else 0)
    ticks, values, dim = made(EVERY[name](session(course)))
    inside = (ticks >= 20_000) & (ticks < 40_000)  # one period
    t = ticks[inside] / 1000
    phase = np.angle(np.sum((values[inside] - values[inside].mean()) * np.exp(-1j * turns * t))) + np.pi / 2
    assert dim.derivation is not None
    assert -1000 * phase / turns == pytest.approx(dim.derivation.group_delay_ms, abs=0.5)


def test_known_delays() -> None:
    data = session(np.arange(200.0), step=1)
    assert derivation(CAUSAL["velocity_causal"](data)).group_delay_ms == 0.5
    # analog Butterworth of order 2: 1 / (π √2 fc) = 225 / fc ms
    assert derivation(CAUSAL["lowpass_causal"](data)).group_delay_ms == pytest.approx(225.08 / 3, rel=1e-3)
    assert derivation(CAUSAL["smooth_causal"](data)).group_delay_ms == pytest.approx(90 * np.sqrt(2 / np.pi), rel=0.01)
    assert derivation(CAUSAL["resample_causal, more"](session(np.arange(99.0)))).group_delay_ms == 17.5


def test_delays_add_up_and_acausal_steps_stay_acausal() -> None:
    data = session(np.arange(200.0), name="hand_x")
    smooth = derive.smooth_causal(data, ["hand_x"], sd_ms=90, to=["smooth_x"])
    both = derive.velocity_causal(smooth, ["smooth_x"])
    first, second = derivation(smooth, "smooth_x"), derivation(both, "smooth_vx")
    assert second.group_delay_ms == pytest.approx(first.group_delay_ms + BIN / 2)
    assert second.causal
    assert second.source == ("smooth_x",)
    mixed = derivation(
        derive.velocity_causal(derive.lowpass_acausal(data, ["hand_x"], cutoff_hz=3), ["hand_x_lowpass"], to=["v"]), "v"
    )
    assert (mixed.method, mixed.causal, mixed.group_delay_ms) == ("velocity_causal", False, BIN / 2)


# ---- gaps, edges, NaN


@pytest.mark.parametrize("step", [BIN, 10])
@pytest.mark.parametrize("name", [n for n in EVERY if "uneven" not in n])
def test_every_stretch_is_on_its_own(name: str, step: int) -> None:
    """Between gaps and edges values are those of the stretch alone, in gaps there are none."""
    values = np.random.default_rng(0).normal(size=4000 // step).cumsum()
    valid = [(0, 1200), (1600, 4000)]
    data = session(values, step=step, valid=valid, edges=[2400, 3200])
    ticks, whole, _ = made(EVERY[name](data))
    assert np.isnan(whole[(ticks >= 1200) & (ticks < 1600)]).all()
    for low, high in ((0, 1200), (1600, 2400), (2400, 3200), (3200, 4000)):
        ticks_alone, alone, _ = made(EVERY[name](data.between(low // BIN, high // BIN)))
        same = np.isin(ticks, ticks_alone) & (ticks >= low) & (ticks < high)
        assert same.sum() > 5
        np.testing.assert_array_equal(whole[same], alone[np.isin(ticks_alone, ticks[same])])
        assert np.isfinite(whole[same]).sum() >= same.sum() - 8


@pytest.mark.parametrize("name", [n for n in EVERY if "resample" not in n])
def test_nan_stays_nan_and_does_not_spread(name: str) -> None:
    values = np.random.default_rng(0).normal(size=60)
    values[[20, 40, 41]] = np.nan
    _, found, _ = made(EVERY[name](session(values)))
    wanted = {20, 40, 41}
    if name == "velocity_causal":  # a difference lacks the sample before
        wanted |= {0, 21, 42}
    if name == "velocity_acausal":
        wanted |= {0, 19, 21, 39, 42, 59}
    assert set(np.flatnonzero(np.isnan(found)).tolist()) == wanted
    _, alone, _ = made(EVERY[name](session(values[21:40])))
    np.testing.assert_array_equal(found[21:40], alone)


def test_nan_of_one_dimension_is_not_that_of_another() -> None:
    values = np.random.default_rng(0).normal(size=(50, 3))
    values[10, 0] = values[20, 2] = np.nan
    data = betz.from_arrays(np.zeros((50, 1), int), bin_ms=40, behavior=values, dims=["a", "b", "c"], nan="mask")
    found = derive.smooth_causal(data, ["c", "a", "b"], sd_ms=90).behavior_of(["a_smooth", "b_smooth", "c_smooth"])
    assert [np.flatnonzero(np.isnan(column)).tolist() for column in found.T] == [[10], [], [20]]
    for k, name in enumerate("abc"):
        alone = derive.smooth_causal(data, [name], sd_ms=90).behavior_of([f"{name}_smooth"])[:, 0]
        np.testing.assert_array_equal(found[:, k], alone)


# ---- values, names, units


def test_velocity_of_a_smooth_trajectory_is_the_analytic_one() -> None:
    """Minimum-jerk reaches as the simulator makes them (Flash & Hogan 1985), at 1 kHz."""
    length, duration = 8.0, 0.6

    def place(t: np.ndarray) -> np.ndarray:
        u = np.clip(t / duration, 0, 1)
        return length * u**3 * (10 - 15 * u + 6 * u**2)

    def rate(t: np.ndarray) -> np.ndarray:
        u = np.clip(t / duration, 0, 1)
        return length / duration * 30 * u**2 * (1 - u) ** 2

    t = np.arange(800) / 1000
    data = session(place(t), step=1, name="hand_x")
    ticks, found, dim = made(derive.velocity_acausal(data, ["hand_x"]), "hand_vx")
    np.testing.assert_allclose(found[1:-1], rate(t)[1:-1], atol=2e-3)
    assert dim.unit == "cm/s"
    late = made(derive.velocity_causal(data, ["hand_x"]), "hand_vx")[1]
    np.testing.assert_allclose(late[1:], rate(t - 0.0005)[1:], atol=2e-3)
    assert ticks[0] == 0


def test_names_and_units() -> None:
    data = betz.from_arrays(
        np.zeros((50, 1), int),
        bin_ms=40,
        behavior=np.random.default_rng(0).normal(size=(50, 4)),
        dims=[BehaviorDim(*d) for d in (("hand_x", "cm"), ("hand_y", "cm"), ("grip", "N"), ("emg_FCR", "mV"))],
    )
    found = derive.velocity_causal(data, ["hand_y", "hand_x", "grip"])
    found = derive.velocity_acausal(found, ["hand_vx"])
    found = derive.speed(found, ["hand_vx", "hand_vy"])
    found = derive.emg_envelope_causal(found, ["emg_FCR"])
    found = derive.rectify(
        derive.lowpass_acausal(derive.smooth_acausal(found, ["grip"], sd_ms=90), ["grip"], cutoff_hz=2), ["grip"]
    )
    found = derive.resample_causal(found, ["grip"], rate_hz=12.5)
    units = {d.name: d.unit for d in found.dims[4:]}
    assert units == {
        "hand_vy": "cm/s",
        "hand_vx": "cm/s",
        "grip_velocity": "N/s",
        "hand_ax": "cm/s^2",
        "hand_speed": "cm/s",
        "emg_FCR_envelope": "mV",
        "grip_smooth": "N",
        "grip_lowpass": "N",
        "grip_rectified": "N",
        "grip_12.5hz": "N",
    }
    assert found.behavior[:1] == data.behavior, "what was there is as before"
    assert derivation(found, "emg_FCR_envelope").parameters == (("cutoff_hz", 5.0), ("order", 2))


def test_speed_is_the_length_of_the_velocity() -> None:
    data = session(np.arange(30.0) ** 2, name="hand_x").with_behavior(
        Series(np.arange(30.0)[:, None], (BehaviorDim("hand_y", "cm"),), 0, BIN)
    )
    found = derive.speed(derive.velocity_causal(data, ["hand_x", "hand_y"]), ["hand_vx", "hand_vy"])
    _, values, dim = made(found, "hand_speed")
    k = np.arange(1, 30)
    np.testing.assert_allclose(values[1:], np.hypot(2 * k - 1, 1) * 25)
    assert dim.derivation == Derivation("speed", ("hand_vx", "hand_vy"), True, BIN / 2)
    recorded = session(np.ones(30), name="hand_vx", unit="cm/s", valid=[(0, 400)])
    assert np.isnan(made(derive.speed(recorded, ["hand_vx"]), "hand_speed")[1]).tolist() == [False] * 10 + [True] * 20


def test_envelope_of_noise_is_its_mean_absolute_value() -> None:
    rng = np.random.default_rng(0)
    amplitude = np.repeat([1.0, 3.0], 20_000)
    data = session(amplitude * rng.normal(size=40_000), step=1, name="emg_FCR", unit="mV")
    for name in ("emg_envelope_causal", "emg_envelope_acausal"):
        _, found, _ = made(getattr(derive, name)(data, ["emg_FCR"], cutoff_hz=1), "emg_FCR_envelope")
        assert found[2000:18_000].mean() == pytest.approx(np.sqrt(2 / np.pi), rel=0.03)
        assert found[22_000:38_000].mean() == pytest.approx(3 * np.sqrt(2 / np.pi), rel=0.03)


def test_resampling_keeps_slow_and_removes_fast_courses() -> None:
    t = np.arange(20_000) / 1000
    data = session(np.sin(2 * np.pi * 0.5 * t) + np.sin(2 * np.pi * 49 * t), step=1, origin=7)
    ticks, found, _ = made(derive.resample_acausal(data, ["x"], rate_hz=50, to=["y"]))
    assert ticks[:3].tolist() == [7, 27, 47]
    inside = slice(50, -50)
    np.testing.assert_allclose(found[inside], np.sin(2 * np.pi * 0.5 * (ticks[inside] - 7) / 1000), atol=0.03)


def test_resampling_does_not_hold_a_value_over_an_edge() -> None:
    data = session(np.arange(10.0), step=100, edges=[450])
    ticks, found, _ = made(derive.resample_causal(data, ["x"], rate_hz=50, to=["y"]))
    assert ticks[np.isnan(found)].tolist() == [460, 480], "the latest sample lies before the edge"
    assert found[ticks == 440].tolist() == [4.0]
    ticks, found, _ = made(derive.resample_acausal(data, ["x"], rate_hz=50, to=["y"]))
    assert ticks[np.isnan(found)].tolist() == [420, 440, 460, 480, *range(920, 1000, 20)], "no line over the edge"
    assert found[ticks == 340].tolist() == pytest.approx([3.4])


def test_derivations_survive_a_store(tmp_path: Path) -> None:
    found = derive.lowpass_causal(session(np.arange(50.0)), ["x"], cutoff_hz=3)
    store = Store(tmp_path / "store", create=True)
    store.put(found)
    assert store.get("s").dims == found.dims
    assert store.get("s").dims[1].derivation is not None


# ---- what is refused


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda s: derive.velocity_causal(s, ["z"]), DataError, "no behavior named 'z'"),
        (lambda s: derive.velocity_causal(s, "x"), DataError, "not the string 'x'"),
        (lambda s: derive.velocity_causal(s, ["x"], to=["x"]), DataError, r"a behavior 'x' already.*to=\[…\]"),
        (
            lambda s: derive.smooth_causal(s, ["x"], sd_ms=5, to="y"),
            ConfigError,
            "to='y' does not name the results of 1",
        ),
        (lambda s: derive.smooth_causal(s, ["x"], sd_ms=0), ConfigError, "a standard deviation of 0 samples"),
        (lambda s: derive.lowpass_causal(s, ["x"], cutoff_hz=12.5), ConfigError, r"cutoff of 12.5 Hz.*below 12.5 Hz"),
        (lambda s: derive.lowpass_acausal(s, ["x"], cutoff_hz=1, order=9), ConfigError, "an order of 9 is impossible"),
        (
            lambda s: derive.resample_causal(s, ["x"], rate_hz=3),
            ConfigError,
            "3 Hz is not a whole number of ticks at 1000",
        ),
        (lambda s: derive.resample_causal(s, ["x"], rate_hz=-1), ConfigError, "-1 Hz is not a whole number of ticks"),
        (lambda s: derive.speed(s, ["x"]), DataError, "units are 'cm', not those of one velocity"),
    ],
)
def test_refusals(call: Derive, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call(session(np.arange(30.0)))


def test_discrete_behavior_is_refused() -> None:
    data = session(np.arange(30.0)).with_behavior(
        Series(np.zeros((30, 1)), (BehaviorDim("go", "", "discrete", ("no", "yes")),), 0, BIN)
    )
    with pytest.raises(DataError, match="go has classes, which cannot be filtered"):
        derive.smooth_causal(data, ["x", "go"], sd_ms=90)


def test_speed_refuses_components_that_do_not_fit() -> None:
    data = session(np.arange(90.0), name="hand_x", step=10)
    data = derive.velocity_acausal(derive.velocity_causal(data, ["hand_x"]), ["hand_x"], to=["hand_vy"])
    with pytest.raises(DataError, match=r"differently late: \[0.0, 5.0\] ms"):
        derive.speed(data, ["hand_vx", "hand_vy"])
    slow = derive.resample_acausal(data, ["hand_vy"], rate_hz=25, to=["hand_vz"])
    with pytest.raises(DataError, match="not sampled together"):
        derive.speed(slow, ["hand_vy", "hand_vz"])
    with pytest.raises(ConfigError, match="no common name"):
        derive.speed(session(np.arange(30.0), unit="cm/s"), ["x"])
