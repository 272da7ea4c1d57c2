"""Channels that fall silent: found after a silence that cannot be chance, read as at rest, back with a spike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import betz
from betz.decode.dead import LONGEST_S, SilenceDetector, longest_silence
from betz.decode.members import Calibration
from betz.decode.recurrent_part import counted_bins
from tests.unit.generalist_helpers import XY, recipe, session


def test_longest_silence() -> None:
    counts = np.array([[0, 1, 0, 0], [0, 0, 0, 2], [0, 0, 1, 0], [0, 1, 0, 0]]).T  # channels as rows here
    np.testing.assert_array_equal(longest_silence(counts), [2, 3, 2, 2])


def test_limits_grow_with_rarity() -> None:
    rng = np.random.default_rng(0)
    rates = np.array([5.0, 1.0, 0.1, 0.001])
    counts = rng.poisson(rates, size=(4000, 4))
    limit = SilenceDetector.fit(counts, np.array([True] * 4), 50).limit_C
    assert limit[0] == 100  # five seconds
    assert limit[0] <= limit[1] < limit[2] < LONGEST_S / 0.05
    assert limit[3] == 0, "too rare to be judged"
    assert SilenceDetector.fit(counts, np.array([False] * 4), 50).limit_C.sum() == 0, "power is not judged"


def test_a_dead_channel_is_found_neutralised_and_comes_back() -> None:
    made = session(bins=3000)
    decoder = recipe().calibrate(made.between(0, 1500), behavior=XY)
    test = made.between(1500, 3000)
    assert test.counts is not None
    counts = test.counts.copy()
    counts[100:1000, [2, 5]] = 0
    broken = replace(test, counts=counts)
    decoder.open()
    flags = []
    for n in range(1100):
        decoder.push(broken.signals[n])
        flags.append(decoder.dead_channels())
    assert flags[90] == ()
    first = next(n for n, f in enumerate(flags) if f)
    assert 190 <= first < 400
    assert flags[900] == ("c2", "c5")
    assert flags[1099] == ()
    rest = slice(500, 1000)
    naive = decoder_without_detection(decoder)
    truth = test.behavior_of(XY)[rest]
    error = [float(((betz.replay(d, broken).values[0][rest] - truth) ** 2).mean()) for d in (decoder, naive)]
    assert error[0] < error[1]


def decoder_without_detection(decoder: betz.decode.mixture.MixtureDecoder) -> betz.decode.mixture.MixtureDecoder:
    return betz.decode.mixture.MixtureDecoder(
        bin_ms=decoder.bin_ms,
        channels=decoder.channels,
        behavior=decoder.behavior,
        parts=decoder.parts,
        weights=decoder.weights,
        offset=decoder.offset,
        spread=decoder.spread,
        used=decoder.used,
        silence=SilenceDetector(np.zeros_like(decoder.silence.limit_C)),
        report={},
    )


def test_a_lost_bin_is_no_silence() -> None:
    detector = SilenceDetector(np.array([3]))
    x, there = np.zeros((1, 6, 1)), np.array([[True, True, False, False, True, True]])
    dead, silent = detector.advance(x, there, np.zeros((1, 1), np.int64))
    np.testing.assert_array_equal(dead[0, :, 0], [False, False, False, False, True, True])
    assert silent[0, 0] == 4


def test_the_networks_of_a_fold_do_not_learn_from_it() -> None:
    made = session(bins=900)
    c = Calibration(made, made.dims_of(XY), made.behavior_of(XY), 3, 0)
    counted = counted_bins(c)
    assert counted.shape == (4, 900)
    assert counted[0].all()
    for k in range(3):
        assert not counted[k + 1][c.fold_N == k].any()
        gap = counted[k + 1].sum() - (c.fold_N != k).sum()
        assert -20 <= gap <= -10, "half a second on each side is left out"
