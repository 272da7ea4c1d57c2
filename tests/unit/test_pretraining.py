"""Episodes and training of the generalist: what is drawn, that it learns, and that it resumes bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from betz.core.errors import DataError
from betz.core.session import Session
from betz.decode.bank import Blocks
from betz.decode.filterbank import FilterBank
from betz.decode.history import History
from betz.train import generalist as training
from betz.train.episodes import Episode, EpisodeSettings, episodes_of, load_episodes, save_episodes
from betz.train.generalist import GeneralistSettings, assemble, decode, loss_of, train
from tests.unit.generalist_helpers import XY, session

SHORT = EpisodeSettings(episodes=8, minutes=(0.4, 0.7), query_s=15.0, query_within_s=30.0, merge=((1, 0.7), (2, 0.3)))
SMALL = GeneralistSettings(steps=6, rows=4, bins=60, unscored=10, width=16, latents=3, checkpoint_s=0.0)
MADE = session(bins=2400)


def drawn(settings: EpisodeSettings = SHORT, seed: int = 0, history: History | None = None) -> list[Episode]:
    return episodes_of(MADE, XY, history=history, settings=settings, seed=seed)[0]


def filtered(made: Session = MADE) -> dict[tuple[str, int], Any]:
    return {(made.id, m): x for m, x in episodes_of(made, XY, history=None, settings=SHORT, seed=0)[1].items()}


def test_an_episode_is_what_a_calibration_gives() -> None:
    """The cached decodes of an episode are those of closed forms fitted on its calibration."""
    settings = replace(SHORT, all_channels=1.0, silent=0.0, sector=0.0, merge=((1, 1.0),), episodes=1)
    (e,) = drawn(settings)
    assert (e.merge, len(e.channels), e.history) == (1, 10, False)
    best = (np.inf, 0)
    y = MADE.behavior_of(XY)
    for begin in range(2400 - e.bins):  # the calibration's place is not kept; its mean gives it away
        part = y[begin : begin + e.bins]
        z = (y[e.start : e.stop] - part.mean(axis=0)) / part.std(axis=0)
        best = min(best, (float(np.abs(z - e.behavior).max()), begin))
    assert best[0] < 1e-3
    calibration = MADE.between(best[1], best[1] + e.bins)
    bank = FilterBank.fit(MADE.signals, MADE.segments, MADE.channels, 50)
    raw = bank.filtered(bank.rooted(MADE.signals))[best[1] : best[1] + e.bins]
    x = np.clip((raw - raw.mean(axis=0)) / e.sd, -8, 8)
    sums = Blocks(x, calibration.behavior_of(XY), [(0, 1)], [(0, e.bins)], bin_s=0.05, atoms=3)
    query = bank.filtered(bank.rooted(MADE.signals))[e.start : e.stop]
    wanted, _ = sums.fit()[0].decodes(np.clip((query - raw.mean(axis=0)) / e.sd, -8, 8).astype(np.float32))
    np.testing.assert_allclose(e.decodes.astype(np.float32), wanted, atol=2e-2)


def test_draws_are_seeded_and_differ() -> None:
    a, b, c = drawn(), drawn(), drawn(seed=1)
    assert [e.start for e in a] == [e.start for e in b] != [e.start for e in c]
    np.testing.assert_array_equal(a[0].decodes, b[0].decodes)
    assert {e.merge for e in a} == {1, 2}
    assert len({len(e.channels) for e in a}) > 2
    with_history = drawn(
        replace(SHORT, history=1.0, unlabelled=0.5, episodes=16), history=History.of([MADE], behavior=XY)
    )
    assert {e.bins == 0 for e in with_history} == {True, False}
    assert all(e.history for e in with_history)
    assert any(e.silent.any() for e in drawn(replace(SHORT, silent=1.0)))


def test_a_sector_is_left_out() -> None:
    alike = {"all_channels": 1.0, "silent": 0.0, "merge": ((1, 1.0),), "episodes": 4}
    whole, lacking = drawn(replace(SHORT, sector=0.0, **alike)), drawn(replace(SHORT, sector=1.0, **alike))
    assert all(0.5 * b.bins < a.bins < 0.9 * b.bins for a, b in zip(lacking[:1], whole[:1], strict=True))


def test_episodes_are_saved(tmp_path: Path) -> None:
    episodes, signals = episodes_of(MADE, XY, history=None, settings=SHORT, seed=0)
    save_episodes(tmp_path / "a.npz", episodes, signals)
    again, found = load_episodes(tmp_path / "a.npz")
    assert len(again) == len(episodes)
    for name, value in vars(episodes[3]).items():
        np.testing.assert_array_equal(getattr(again[3], name), value)
    np.testing.assert_array_equal(found[2], signals[2])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz"]


def test_too_short_a_session_is_refused() -> None:
    with pytest.raises(DataError, match=r"0\.2 minutes are too few for episodes"):
        episodes_of(MADE.between(0, 250), XY, history=None, settings=SHORT, seed=0)
    with pytest.raises(DataError, match="no episode is long enough"):
        train([], {}, out=Path("nowhere"), settings=SMALL)


def test_it_learns(tmp_path: Path) -> None:
    settings = replace(SMALL, steps=100, rate=5e-3)
    episodes = drawn(replace(SHORT, episodes=30))
    network = train(episodes, filtered(), out=tmp_path, settings=settings)
    batch = assemble(episodes[:8], filtered(), settings, np.random.default_rng(5))
    with torch.no_grad():
        learned = float(loss_of(decode(network, batch), batch.behavior, settings))
        closed = float(loss_of(batch.skip, batch.behavior, settings))
    assert learned < 0.96 * closed
    assert (tmp_path / "log.jsonl").read_text().count("\n") == 1


def test_it_resumes_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    episodes, signals = drawn(), filtered()
    whole = train(episodes, signals, out=tmp_path / "whole", settings=SMALL).state_dict()
    real, calls = training.assemble, [0]

    def cut_short(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "assemble", cut_short)
        with pytest.raises(KeyboardInterrupt):
            train(episodes, signals, out=tmp_path / "cut", settings=SMALL)
    resumed = train(episodes, signals, out=tmp_path / "cut", settings=SMALL).state_dict()
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name
    with pytest.raises(DataError, match="a checkpoint of other settings is there"):
        train(episodes, signals, out=tmp_path / "cut", settings=replace(SMALL, rows=5))
