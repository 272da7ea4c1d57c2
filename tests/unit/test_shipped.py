"""The weights that come with Betz: small, with licence and sources, better than ridge on what they have not seen."""

from __future__ import annotations

import betz
from betz.decode.weights import load_generalist, shipped
from betz.sim.population import Simulation, simulate


def test_the_card_says_where_they_come_from() -> None:
    folder = shipped()["betz-1"]
    assert sum(p.stat().st_size for p in folder.iterdir()) < 10e6
    recipe, card = load_generalist(folder)
    assert recipe.name == "betz-1"
    assert card.licence == "CC-BY-4.0"
    assert any("Zenodo 583331" in note for note in card.notes)
    assert {key.split("/")[0] for key in recipe.priors} >= {"velocity", "position"}


def test_betz_1_decodes_a_new_population_better_than_ridge() -> None:
    made = simulate(Simulation(minutes=3, bin_ms=50), seed=7).session  # no seed of the training
    calibration, test = made.first(minutes=1), made.after(minutes=1.5)
    names = ["hand_vx", "hand_vy"]
    decoder = betz.load("betz-1").calibrate(calibration, behavior=names)
    own = betz.evaluate(decoder, test, push_bins=50).r2
    ridge = betz.evaluate(betz.Wiener().calibrate(calibration, behavior=names), test, push_bins=50).r2
    assert own > ridge + 0.05


def test_what_to_expect_is_told_where_it_was_learned() -> None:
    found = betz.load("betz-1").expectations["velocity/known"]
    expected, low, high = found.interval(0.6, 2.0)
    assert low < expected < high <= 1
    assert found.interval(0.7, 2.0)[0] > expected
