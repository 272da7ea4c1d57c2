"""CTC decoding against all alignments, one by one; the same text for any chopping of the bins."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from betz.core.errors import ConfigError, StreamError
from betz.model.sequence import (
    Alphabet,
    Beam,
    BeamState,
    Greedy,
    SequenceHead,
    pool_bins,
    sequence_loss,
)

DECODERS = (Greedy(), Beam(1), Beam(3), Beam(60, pending=4))


def scores(seed: int, bins: int, classes: int, *, sharp: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(bins, classes)) * sharp


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return np.log(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(label for label, _ in itertools.groupby(path) if label != 0)


def every_text(logits: np.ndarray) -> dict[tuple[int, ...], float]:
    """Log-probability of each text, by writing down every alignment."""
    log_p, found = log_softmax(logits), dict[tuple[int, ...], float]()
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        value = sum(log_p[n, label] for n, label in enumerate(path))
        text = collapse(path)
        found[text] = float(np.logaddexp(found.get(text, -np.inf), value))
    return found


def run(decoder: Any, logits: np.ndarray, cuts: list[int]) -> Any:
    state = decoder.start()
    for part in np.split(logits, sorted(cuts)):
        state = decoder.advance(state, part)
    return state


small = st.tuples(st.integers(0, 10**6), st.integers(1, 5), st.integers(2, 4))


@given(small)
@settings(max_examples=60, deadline=None)
def test_a_beam_that_keeps_everything_is_exact(case: tuple[int, int, int]) -> None:
    logits = scores(*case)
    wanted = every_text(logits)
    beam = Beam(10_000)
    state = beam.advance(beam.start(), logits)
    found = beam.log_probabilities(state)
    assert set(found) == set(wanted)
    for text, value in wanted.items():
        assert found[text] == pytest.approx(value, abs=1e-9)
    assert beam.labels(state) == max(wanted, key=wanted.__getitem__) == next(iter(found))
    assert math.fsum(math.exp(value) for value in found.values()) == pytest.approx(1, abs=1e-9)


@given(small)
@settings(max_examples=30, deadline=None)
def test_probabilities_are_those_of_torchs_loss(case: tuple[int, int, int]) -> None:
    logits = scores(*case)
    beam = Beam(10_000)
    for text, value in beam.log_probabilities(beam.advance(beam.start(), logits)).items():
        loss = torch.nn.functional.ctc_loss(
            torch.tensor(log_softmax(logits))[:, None], torch.tensor([text], dtype=torch.int64),
            torch.tensor([len(logits)]), torch.tensor([len(text)]), reduction="sum",
        )  # fmt: skip
        assert -value == pytest.approx(float(loss), abs=1e-6)


@given(small)
@settings(max_examples=40, deadline=None)
def test_greedy_is_the_best_alignment(case: tuple[int, int, int]) -> None:
    logits = scores(*case)
    log_p = log_softmax(logits)
    paths = itertools.product(range(logits.shape[1]), repeat=len(logits))
    best = max(paths, key=lambda path: sum(log_p[n, label] for n, label in enumerate(path)))
    assert Greedy().labels(Greedy().advance(Greedy().start(), logits)) == collapse(best)


def test_the_beam_beats_greedy_where_alignments_add_up() -> None:
    logits = np.log(np.array([[0.6, 0.4], [0.6, 0.4]]))  # "" has 0.36 in one way, "a" 0.64 in three
    assert Greedy().labels(run(Greedy(), logits, [])) == ()
    assert Beam(4).labels(run(Beam(4), logits, [])) == (1,)


@pytest.mark.parametrize("decoder", DECODERS, ids=str)
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(0, 25), max_size=8))
@settings(max_examples=25, deadline=None)
def test_any_chopping_gives_the_same_state(decoder: Any, seed: int, cuts: list[int]) -> None:
    logits = scores(seed, 25, 5)
    whole = run(decoder, logits, [])
    assert run(decoder, logits, cuts) == whole
    assert run(decoder, logits, list(range(1, 25))) == whole


@pytest.mark.parametrize("decoder", DECODERS, ids=str)
def test_a_state_is_a_value(decoder: Any) -> None:
    logits = scores(3, 20, 4)
    middle = run(decoder, logits[:9], [])
    kept = repr(middle)
    end = decoder.advance(middle, logits[9:])
    decoder.advance(middle, -logits)
    assert repr(middle) == kept
    assert decoder.advance(middle, logits[9:]) == end


def test_what_is_agreed_on_is_final_and_the_state_is_bounded() -> None:
    beam, state = Beam(8, pending=20), BeamState()
    agreed: tuple[int, ...] = ()
    for part in np.split(scores(5, 2000, 6, sharp=4), 2000):
        state = beam.advance(state, part)
        assert state.agreed[: len(agreed)] == agreed
        agreed = state.agreed
        assert len(state.beams) <= 8
        assert len(next(iter(state.beams))) <= 20
        assert max(map(len, state.beams)) <= 24
        assert max(max(p) for p in state.beams.values()) == pytest.approx(0, abs=1)
    assert len(agreed) > 500
    assert state.scale < -400  # the scale holds what the beams do not


def test_few_pending_labels_give_up_late_corrections() -> None:
    logits = scores(2, 30, 4, sharp=0.3)
    free, bound = (beam.log_probabilities(run(beam, logits, [])) for beam in (Beam(50), Beam(50, pending=1)))
    assert len({text[0] for text in free}) > 1
    assert len({text[:3] for text in bound}) == 1


def test_an_hour_into_a_stream_decoding_rounds_as_at_its_start() -> None:
    beam, logits = Beam(8), scores(7, 50, 5, sharp=1)
    quiet = np.array([[40.0, 0, 0, 0, 0]])
    early = beam.advance(beam.advance(beam.start(), quiet), logits)
    late = beam.advance(BeamState(scale=-1e7), np.concatenate([quiet, logits]))
    assert (late.agreed, late.beams) == (early.agreed, early.beams)


@pytest.mark.parametrize("decoder", DECODERS, ids=str)
def test_no_bins_change_nothing(decoder: Any) -> None:
    state = run(decoder, scores(1, 6, 4), [])
    assert decoder.advance(state, np.empty((0, 4))) == state


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (np.zeros(4), r"scores \(4,\) are not \(bins, classes\).*a state of its own"),
        (np.zeros((2, 3, 4)), r"are not \(bins, classes\)"),
        (np.zeros((2, 1)), r"are not \(bins, classes\)"),
        (np.array([[0.0, np.nan]]), "NaN or infinite.*leave lost bins out"),
    ],
)
def test_scores_that_cannot_be_decoded_are_refused(logits: np.ndarray, message: str) -> None:
    for decoder in DECODERS:
        with pytest.raises(StreamError, match=message):
            decoder.advance(decoder.start(), logits)  # type: ignore[attr-defined]


def test_huge_scores_do_not_overflow() -> None:
    logits = np.array([[-1e308, 1e308], [3e4, -3e4]])
    for decoder in (Greedy(), Beam(4)):
        assert decoder.labels(decoder.advance(decoder.start(), logits)) == (1,)  # type: ignore[arg-type]


def test_alphabet() -> None:
    letters = Alphabet(("a", "b", ">"))
    assert letters.classes == 4
    assert letters.text(letters.labels("ba>b")) == "ba>b"
    with pytest.raises(ConfigError, match=r"the characters \['c'\] are no symbols"):
        letters.labels("abc")
    with pytest.raises(ConfigError, match="must be different"):
        Alphabet(("a", "a"))
    with pytest.raises(ConfigError, match="a width of 0 and 100 pending labels keep nothing"):
        Beam(0)


def test_pool_bins_is_the_mean_of_each_bins_tokens() -> None:
    features = torch.arange(12.0).reshape(1, 6, 2)
    features[0, 5] = torch.nan
    pooled = pool_bins(features, torch.tensor([[0, 0, 2, 2, 2, -1]]), 4)
    wanted = torch.stack([features[0, :2].mean(0), torch.zeros(2), features[0, 2:5].mean(0), torch.zeros(2)])
    assert torch.equal(pooled, wanted[None])


def test_head_learns_to_write() -> None:
    torch.manual_seed(0)
    head, text = SequenceHead(6, 4), torch.tensor([[1, 3, 3, 2]])
    features = torch.eye(6).repeat(1, 3, 1)[:, :12]  # (1, 12, 6)
    features = features + 0.5 * torch.randn(1, 12, 6)
    losses = []
    for _ in range(80):
        loss = sequence_loss(head(features), torch.tensor([12]), text, torch.tensor([4]))
        gradients = torch.autograd.grad(loss, list(head.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(head.parameters(), gradients, strict=True):
                parameter -= 2 * gradient
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    logits = head(features)[0].detach().numpy()
    assert Beam(8).labels(Beam(8).advance(BeamState(), logits)) == (1, 3, 3, 2)


def test_loss_is_that_of_all_alignments() -> None:
    logits = scores(11, 4, 3)
    wanted = -every_text(logits)[(2, 1)] / 2  # nats a symbol
    two = torch.tensor(np.stack([logits, logits]))
    lengths, labels = torch.tensor([2, 3]), torch.tensor([[2, 1, 0, 0], [1, 1, 1, 0]])
    found = sequence_loss(two, torch.tensor([4, 4]), labels, lengths)  # "111" does not fit into 4 bins: counts 0
    assert float(found) == pytest.approx(wanted / 2, abs=1e-6)
    with pytest.raises(ConfigError, match="1 classes leave no symbol beside the blank"):
        SequenceHead(4, 1)
