"""Changes on purpose do what their truth says, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import betz
from betz.core.errors import ConfigError, DataError
from betz.core.intervals import Intervals
from betz.core.session import Channel
from betz.study.shifts import (
    Shift,
    Shifted,
    add_offset,
    apply_shifts,
    as_counts,
    change_gain,
    permute_channels,
    recorded,
    silence_channels,
)
from tests.unit import layout_files as files

BINS, CHANNELS, FROM = 400, 12, 150


def session(*, power: int = 0) -> betz.Session:
    rng = np.random.default_rng(0)
    counts = rng.poisson(4.0, (BINS, CHANNELS)).astype(np.uint8)
    values = rng.normal(size=(BINS, power)) if power else None
    return betz.from_arrays(counts, bin_ms=20, power=values, id="s", behavior=rng.normal(size=(BINS, 1)), dims=["x"])


def with_spikes() -> betz.Session:
    rng = np.random.default_rng(1)
    spikes = tuple(np.sort(rng.choice(BINS * 20, 60, replace=False)).astype(np.int64) for _ in range(CHANNELS))
    return replace(session(), counts=None, spikes=spikes)


def columns(made: betz.Session, ids: tuple[str, ...]) -> list[int]:
    place = {c.id: k for k, c in enumerate(made.channels)}
    return [place[id_] for id_ in ids]


def unchanged(before: betz.Session, shifted: Shifted, first: int = FROM, end: int = BINS) -> None:
    """Outside of its bins and channels nothing has changed."""
    after = shifted.session
    np.testing.assert_array_equal(after.signals[:first], before.signals[:first])
    np.testing.assert_array_equal(after.signals[end:], before.signals[end:])
    rest = np.setdiff1d(np.arange(len(before.channels)), columns(before, shifted.truth[0].channels))
    np.testing.assert_array_equal(after.signals[:, rest], before.signals[:, rest])
    assert after.channels == before.channels
    assert after.behavior == before.behavior
    (truth,) = shifted.truth
    assert list(truth.when) == [(first * 20, end * 20)]


@pytest.mark.parametrize("make", [session, with_spikes])
def test_permuted_channels(make: Any) -> None:
    before = make()
    shifted = permute_channels(before, seed=3, from_bin=FROM, to_bin=300)
    unchanged(before, shifted, end=300)
    (truth,) = shifted.truth
    assert truth.kind == "moved"
    assert set(truth.channels) == set(truth.sources)
    assert all(a != b for a, b in zip(truth.channels, truth.sources, strict=True))
    assert len(truth.channels) >= CHANNELS - 5
    to, of = columns(before, truth.channels), columns(before, truth.sources)
    np.testing.assert_array_equal(shifted.session.signals[FROM:300, to], before.signals[FROM:300, of])
    assert shifted.session.id == "s+moved"
    assert f"changed on purpose: {len(to)} channels moved for 3 s" in shifted.session.provenance.notes


def test_a_share_of_the_channels_is_permuted() -> None:
    for seed in range(20):
        (truth,) = permute_channels(session(), seed=seed, share=0.25).truth
        assert 2 <= len(truth.channels) <= 3
    with pytest.raises(ConfigError, match="fewer than two channels would be permuted"):
        permute_channels(session(), seed=0, share=0.05)


@pytest.mark.parametrize("make", [session, with_spikes])
def test_silent_channels(make: Any) -> None:
    before = make()
    shifted = silence_channels(before, seed=5, share=0.3, from_bin=FROM)
    unchanged(before, shifted)
    (truth,) = shifted.truth
    assert (truth.kind, len(truth.channels)) == ("silent", 4)
    assert not shifted.session.signals[FROM:, columns(before, truth.channels)].any()


def test_gains() -> None:
    before = session()
    shifted = change_gain(before, seed=2, log_sd=0.4, share=0.5, from_bin=FROM)
    unchanged(before, shifted)
    (truth,) = shifted.truth
    at = columns(before, truth.channels)
    assert len(set(truth.amounts)) == 6
    old, new = before.signals[FROM:, at].astype(float), shifted.session.signals[FROM:, at].astype(float)
    assert np.all(np.abs(new - old * truth.amounts) < 1)
    np.testing.assert_allclose(new.mean(axis=0), (old * truth.amounts).mean(axis=0), atol=0.12)
    assert np.abs(new - old * truth.amounts).max() > 0.5  # rounded at random, not to the nearest


def test_offsets() -> None:
    before = session()
    shifted = add_offset(before, seed=2, mean=0.4, sd=0.2, from_bin=FROM)
    (truth,) = shifted.truth
    assert len(truth.amounts) == CHANNELS
    old, new = before.signals[FROM:].astype(float), shifted.session.signals[FROM:].astype(float)
    np.testing.assert_allclose((new - old).mean(axis=0), truth.amounts, atol=0.1)
    np.testing.assert_array_equal(shifted.session.signals[:FROM], before.signals[:FROM])
    lower = add_offset(before, seed=2, mean=-3.0, sd=0.0)
    wanted = before.signals.astype(float) - 3
    np.testing.assert_array_equal(lower.session.signals, np.maximum(wanted, 0))
    assert lower.clipped == np.count_nonzero(wanted < 0)


def test_the_same_seed_gives_the_same_and_another_does_not() -> None:
    def run(seed: int, made: betz.Session) -> bytes:
        return add_offset(made, seed=seed, mean=0.4, sd=0.2).session.signals.tobytes()

    assert run(1, session()) == run(1, session())
    assert run(1, session()) != run(2, session())
    assert run(1, session()) != run(1, replace(session(), id="t"))


def test_power() -> None:
    before = session(power=5)
    moved = permute_channels(before, seed=1, from_bin=FROM)
    kinds = {c.id: c.kind for c in before.channels}
    (truth,) = moved.truth
    assert all(kinds[a] == kinds[b] for a, b in zip(truth.channels, truth.sources, strict=True))
    unchanged(before, moved)
    gained = change_gain(before, seed=1, log_sd=0.4, from_bin=FROM)
    at = columns(before, gained.truth[0].channels)
    exact = before.signals[FROM:] * np.array(gained.truth[0].amounts)[np.argsort(at)]
    np.testing.assert_allclose(gained.session.signals[FROM:, CHANNELS:], exact[:, CHANNELS:], rtol=1e-6)
    silent = silence_channels(before, seed=1, share=1.0, from_bin=FROM)
    assert not silent.session.signals[FROM:].any()
    assert gained.session.power is not None
    assert gained.session.power.dtype == np.float32


def test_spikes_need_counts_for_a_gain() -> None:
    with pytest.raises(DataError, match=r"a gain cannot be given to spike times\. Remedy: make counts of them first"):
        change_gain(with_spikes(), seed=0, log_sd=0.2)
    counted = as_counts(with_spikes())
    np.testing.assert_array_equal(counted.signals, with_spikes().signals)
    assert counted.spikes is None
    assert change_gain(counted, seed=0, log_sd=0.2).session.counts is not None


# ---- recorded perturbations


def test_a_recorded_perturbation(tmp_path: Path) -> None:
    before = betz.read(files.stabilized(tmp_path / "s.mat"))  # ch2 gets ch5, ch1 + 0.5, ch2 + 0.25, ch4 silent
    shifted = recorded(before, seed=4)
    after, inside = shifted.session, slice(9, 21)
    assert [(t.kind, t.channels, t.sources) for t in shifted.truth] == [
        ("moved", ("ch2",), ("ch5",)),
        ("offset", ("ch1", "ch2"), ()),
        ("silent", ("ch4",), ()),
    ]
    assert shifted.truth[1].amounts == (0.5, 0.25)
    assert {tuple(t.when) for t in shifted.truth} == {((9 * 45, 21 * 45),)}
    old, new = before.signals.astype(int), after.signals.astype(int)
    outside = np.delete(np.arange(31), np.arange(9, 21))
    np.testing.assert_array_equal(new[outside], old[outside])
    np.testing.assert_array_equal(new[inside, [2, 4]], old[inside, [2, 4]])
    assert not new[inside, 3].any()
    for k, source in ((0, 0), (1, 4)):
        added = new[inside, k] - old[inside, source]
        assert set(added.tolist()) == {0, 1}
    assert after.id == "s+moved+offset+silent"
    with pytest.raises(DataError, match="it has no recorded perturbation"):
        recorded(after)
    part = recorded(before.between(9, 15), seed=4)
    assert {tuple(t.when) for t in part.truth} == {((9 * 45, 15 * 45),)}


def test_a_session_without_one() -> None:
    with pytest.raises(DataError, match=r"it has no recorded perturbation\. Remedy: use a recording that was imported"):
        recorded(session())


# ---- what makes no sense


WHEN = Intervals.of([(0, 100)])


@pytest.mark.parametrize(
    "shift, text",
    [
        (Shift("moved", ("ch1",), WHEN), "1 channels, 0 sources and 0 amounts do not match"),
        (Shift("gain", ("ch1",), WHEN), "1 channels, 0 sources and 0 amounts do not match"),
        (Shift("silent", ("ch1",), WHEN, amounts=(1.0,)), "do not match"),
        (Shift("silent", (), WHEN), "0 channels"),
        (Shift("silent", ("x",), WHEN), "there is no channel 'x'"),
        (Shift("moved", ("ch1",), WHEN, sources=("x",)), "there is no channel 'x'"),
        (Shift("silent", ("ch1", "ch1"), WHEN), "a channel is named twice"),
        (Shift("gain", ("ch1",), WHEN, amounts=(-1.0,)), "an amount is NaN, infinite or a negative gain"),
        (Shift("offset", ("ch1",), WHEN, amounts=(np.nan,)), "an amount is NaN, infinite or a negative gain"),
        (Shift("moved", ("ch1",), WHEN, sources=("p",)), "'ch1' would get power in the place of counts"),
        (Shift("gain", ("ch1",), WHEN, amounts=(1000.0,)), "the gain makes .* above the limit of 255"),
    ],
)
def test_shifts_that_make_no_sense(shift: Shift, text: str) -> None:
    made = session(power=1)
    made = replace(made, channels=(*made.channels[:-1], Channel("p", "power")))
    with pytest.raises((ConfigError, DataError), match=text):
        apply_shifts(made, [shift], seed=0)


def test_settings_that_make_no_sense() -> None:
    for call, text in (
        (lambda: silence_channels(session(), seed=0, share=0.0), "a share of 0.0 of the channels is impossible"),
        (lambda: silence_channels(session(), seed=0, share=1.5), "a share of 1.5 of the channels is impossible"),
        (lambda: silence_channels(session(), seed=0, from_bin=BINS), "bins 400 to 400 are not inside the 400 bins"),
        (lambda: change_gain(session(), seed=0, log_sd=0.0), "log_sd = 0.0 is not above 0"),
        (lambda: add_offset(session(), seed=0, mean=np.nan, sd=0.1), "offsets of nan ± 0.1 are impossible"),
    ):
        with pytest.raises(ConfigError, match=text):
            call()
