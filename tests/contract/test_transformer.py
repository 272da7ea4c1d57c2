"""The Transformer as a decoder: the contract in both semantics, what fits it and what does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import betz
from betz.core.errors import CheckpointError, ConfigError, StreamError
from betz.core.session import BehaviorDim, Channel
from betz.decode.decoder import MANIFEST
from betz.decode.transformer import LiveInputs, TransformerDecoder
from betz.decode.transformer_sliding import PIECE_BINS
from betz.model.presets import as_reference
from betz.model.sequence import Alphabet, Beam, Greedy
from betz.model.transformer import Transformer
from betz.testing import check_decoder
from betz.testing.decoders import NETWORK_TOLERANCE
from betz.tokens.normalize import Normalizer
from tests.unit.transformer_helpers import TINY, batch_of, decoder_of, lively, trained, window

SMALL = replace(TINY, window=3, refresh_bins=3)


@pytest.fixture(scope="module")
def network() -> Transformer:
    """A float32 network that has learned something: its output varies more than it rounds."""
    return trained(SMALL, steps=40)


def test_contract_of_a_trained_network(network: Transformer) -> None:
    report = check_decoder(lambda: decoder_of(network), tolerance=NETWORK_TOLERANCE)
    assert len(report.checks) == 15
    assert report.worst_offline_error < NETWORK_TOLERANCE
    assert decoder_of(network).context_bins == 2 * (3 - 1) + 1


def test_contract_of_recomputed_windows(network: Transformer) -> None:
    model = Transformer(as_reference(SMALL)).eval()
    model.load_state_dict(network.state_dict())
    report = check_decoder(lambda: decoder_of(model), tolerance=NETWORK_TOLERANCE)
    assert report.worst_offline_error < NETWORK_TOLERANCE
    assert decoder_of(model).context_bins == 3


VARIANTS: dict[str, Callable[[], TransformerDecoder]] = {
    "50 ms bins": lambda: decoder_of(lively(SMALL), bin_ms=50.0),
    "classes, units": lambda: decoder_of(lively(replace(SMALL, behavior_head="classes", readin="units"))),
    "text beside behavior": lambda: decoder_of(lively(replace(SMALL, sequence_classes=4)), beam_width=4),
    "no constraints": lambda: decoder_of(lively(replace(SMALL, constraints=False, returns=False))),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_contract_in_float64_is_exact(name: str) -> None:
    report = check_decoder(VARIANTS[name], signals_NC=counts(20), window=3)
    assert report.worst_offline_error < 1e-11


def test_contract_of_a_model_that_is_fed_its_predictions() -> None:
    made = lively(replace(SMALL, behavior_input="given", layers=1))
    assert decoder_of(made).context_bins is None
    report = check_decoder(lambda: decoder_of(made), signals_NC=counts(16), window=3)
    assert report.worst_offline_error < 1e-9


def counts(bins: int, *, channels: int = 50) -> np.ndarray:
    return np.random.default_rng(3).poisson(1.5, (bins, channels))


def test_long_pushes_go_through_in_pieces() -> None:
    decoder, x = decoder_of(lively(replace(SMALL, layers=1))), counts(PIECE_BINS + 9)
    decoder.open(max_push_bins=len(x))
    whole = decoder.push(x[None]).values
    decoder.open()
    single = np.concatenate([decoder.push(x_C).values for x_C in x], axis=1)
    assert np.abs(whole - single).max() < 1e-9


def test_values_are_in_units_and_those_of_the_model() -> None:
    model = lively(SMALL)
    decoder, w = decoder_of(model), window(8)
    decoder.open(max_push_bins=8)
    said = decoder.push(np.concatenate(w.counts, axis=1)[None]).values[0]
    with torch.no_grad():
        wanted = model(batch_of(SMALL, w)).behavior.numpy().reshape(8, 2)
    assert np.abs(said - wanted * [10.0, 20.0]).max() < 1e-9


def test_recompute_is_the_window_that_ends_with_each_bin() -> None:
    config = replace(as_reference(SMALL), window=4)
    model = lively(config)
    decoder, w = decoder_of(model), window(9)
    joined = np.concatenate(w.counts, axis=1)
    decoder.open(max_push_bins=9)
    said = decoder.push(joined[None]).values[0]
    for n in range(9):
        part = joined[max(0, n - 3) : n + 1]
        alone = window(len(part))
        with torch.no_grad():
            output = model(batch_of(config, replace(alone, counts=(part[:, :40], part[:, 40:]))))
        assert np.abs(output.behavior.numpy()[-2:] * [10.0, 20.0] - said[n]).max() < 1e-9


# ---- inputs


def test_live_inputs_have_defaults_and_reach_the_model_from_the_next_push_on() -> None:
    for config in (SMALL, as_reference(SMALL)):
        decoder, x = decoder_of(lively(config)), counts(8)
        assert decoder.inputs == LiveInputs(brain_control=1.0, active=0.0, passive=0.0, returns=None, reward=False)
        assert not decoder.inputs.constraint.any()
        decoder.open()
        plain = np.stack([decoder.push(x_C).values[0, 0] for x_C in x])
        decoder.reset()
        told = []
        for n, x_C in enumerate(x):
            if n == 4:
                decoder.set_inputs(LiveInputs(brain_control=0.5, active=0.5, returns=3))
            told.append(decoder.push(x_C).values[0, 0])
        assert np.array_equal(np.stack(told)[:4], plain[:4])
        assert np.abs(np.stack(told)[4:] - plain[4:]).min() > 1e-6


def test_inputs_that_cannot_be_told_are_refused() -> None:
    decoder = decoder_of(lively(replace(SMALL, constraints=False, returns=False)))
    for inputs in (LiveInputs(active=0.5), LiveInputs(returns=1)):
        with pytest.raises(ConfigError, match=r"no tokens for these inputs.*constraints=True or returns=True"):
            decoder.set_inputs(inputs)
    with pytest.raises(ConfigError, match="a return of 50 exceeds the model's largest, 49"):
        decoder_of(lively(SMALL)).set_inputs(LiveInputs(returns=50))
    with pytest.raises(ConfigError, match="lie between 0 and 1"):
        LiveInputs(brain_control=1.5)
    with pytest.raises(ConfigError, match="returns cannot be negative"):
        LiveInputs(returns=-1)


def test_power_channels_are_not_read_and_it_says_so() -> None:
    count = [Channel(f"c{i}") for i in range(8)]
    power = [Channel(f"p{i}", "power", unit="uV^2") for i in range(4)]
    model = lively(SMALL)
    alone, both = decoder_of(model, channels=count), decoder_of(model, channels=count + power)
    assert alone.notes == ()
    assert both.notes == ("the Transformer reads the 8 count channels; 4 power channels are not used",)
    x = counts(5, channels=8)
    for decoder in (alone, both):
        decoder.open(max_push_bins=5)
    noise = np.random.default_rng(0).normal(size=(1, 5, 4)) * 1e3
    wanted = alone.push(x[None]).values
    assert np.array_equal(both.push(np.concatenate((x[None], noise), axis=2)).values, wanted)
    with pytest.raises(ConfigError, match=r"4 power channels and no count channels.*a decoder that reads power"):
        decoder_of(model, channels=power)


def test_signals_that_are_no_counts_are_refused() -> None:
    decoder = decoder_of(lively(SMALL))
    decoder.open(2)
    decoder.push(np.ones((2, 1, 50)))
    for bad, shown in ((0.5, "0.5"), (-1.0, "-1")):
        x = np.ones((2, 1, 50))
        x[1, 0, 45] = bad
        with pytest.raises(StreamError, match=rf"row 1, bin 1, channel 'b5': {shown} is no spike count"):
            decoder.push(x)


# ---- what does not fit


def test_a_model_that_does_not_fit_the_session_is_refused() -> None:
    model = lively(SMALL)
    with pytest.raises(ConfigError, match=r"12 spike tokens a bin do not fit the 10 ids"):
        decoder_of(model, channels=[Channel(f"{a}{i}", array=a) for a in "AB" for i in range(161)])
    with pytest.raises(ConfigError, match=r"bins of 20 ms, the signals have bins of 50 ms.*rotary='ms'"):
        decoder_of(lively(as_reference(SMALL)), bin_ms=50.0)
    with pytest.raises(ConfigError, match="objective='spikes' has no behavior head"):
        decoder_of(lively(replace(SMALL, objective="spikes")))
    with pytest.raises(ConfigError, match=r"fed its own predictions streams with semantics='sliding'"):
        decoder_of(lively(replace(SMALL, behavior_input="given", semantics="recompute")))
    scale = Normalizer(("hand_vx", "hand_vy"), ("cm/s", "cm/s"), np.ones(2))
    channels = (Channel("a"),)
    for names, units in ((("hand_vy", "hand_vx"), "cm/s"), (("hand_vx", "hand_vy"), "m/s"), (("hand_vx",), "cm/s")):
        behavior = tuple(BehaviorDim(name, units) for name in names)
        with pytest.raises(ConfigError, match=r"the normaliser was fitted to hand_vx \(cm/s\), hand_vy \(cm/s\)"):
            TransformerDecoder.make(model, bin_ms=20, channels=channels, behavior=behavior, normalizer=scale)
    text = BehaviorDim("text", "", "discrete", ("", "a"))
    behavior = (BehaviorDim("hand_vx", "cm/s"), BehaviorDim("hand_vy", "cm/s"), text)
    with pytest.raises(ConfigError, match=r"1 discrete dimensions of \[2\] classes, and a sequence head of 0 classes"):
        TransformerDecoder.make(model, bin_ms=20, channels=channels, behavior=behavior, normalizer=scale)


def edit(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest["config"])
    (folder / MANIFEST).write_text(json.dumps(manifest))


DAMAGE: dict[str, tuple[Callable[[dict[str, object]], object], str]] = {
    "another width": (lambda c: c["model"].update(width=128), "size mismatch for embed"),  # type: ignore[attr-defined]
    "an unknown setting": (lambda c: c["model"].update(depth=3), "depth: Unexpected keyword"),  # type: ignore[attr-defined]
    "a layer more": (lambda c: c["model"].update(layers=3), "Missing key"),  # type: ignore[attr-defined]
    "another behavior": (lambda c: c["normalizer"].update(names=["x", "y"]), "the normaliser was fitted to x"),  # type: ignore[attr-defined]
    "no normaliser": (lambda c: c.pop("normalizer"), "KeyError: 'normalizer'"),
    "an impossible scale": (lambda c: c["normalizer"].update(scale=[1.0, -1.0]), "a positive scale"),  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_saved_decoder_that_does_not_fit_itself_is_refused(name: str, tmp_path: Path) -> None:
    decoder_of(Transformer(SMALL)).save(tmp_path)
    change, message = DAMAGE[name]
    edit(tmp_path, change)
    with pytest.raises(CheckpointError, match=message):
        betz.load(tmp_path)


def test_inputs_and_precision_are_saved(tmp_path: Path) -> None:
    model = Transformer(SMALL).bfloat16()
    decoder = decoder_of(model, inputs=LiveInputs(brain_control=0.25, returns=2))
    decoder.save(tmp_path)
    again = betz.load(tmp_path)
    assert isinstance(again, TransformerDecoder)
    assert again.inputs == decoder.inputs
    assert again.model.embed.start.dtype == torch.bfloat16
    assert again.config == SMALL
    for d in (decoder, again):
        d.open()
    x = counts(1)[0]
    assert np.array_equal(decoder.push(x).values, again.push(x).values)


# ---- text


@pytest.mark.parametrize("beam_width", [0, 4])
def test_text_is_the_decoded_scores_of_the_model(beam_width: int) -> None:
    """Offline and streamed the same text, and that of the scores, bin by bin, lost bins left out."""
    config = replace(SMALL, sequence_classes=4)
    model = lively(config, std=0.3, seed=4)
    w = window(30, present=np.arange(30) % 7 > 0)
    joined = np.concatenate(w.counts, axis=1)
    with torch.no_grad():
        scores = model(batch_of(config, w)).sequence_logits[0].numpy()
    writer = Beam(width=beam_width) if beam_width else Greedy()
    state = writer.advance(writer.start(), scores[w.present])  # type: ignore[arg-type]
    wanted = Alphabet(("a", "b", "c")).text(writer.labels(state))  # type: ignore[arg-type]
    assert len(wanted) >= 3
    decoder = decoder_of(model, beam_width=beam_width)
    for size in (1, 4, 30):
        decoder.open(2, max_push_bins=size)
        decoder.freeze(np.array([1]))
        for a in range(0, 30, size):
            part = np.stack([joined[a : a + size]] * 2)
            prediction = decoder.push(part, np.stack([w.present[a : a + size]] * 2))
        assert prediction.text == (wanted, "")
        assert np.allclose(prediction.values[0, :, 2:].sum(axis=1), 1)
    decoder.reset()
    decoder.freeze(np.array([], np.int64))
    decoder.push(np.stack([joined[:1]] * 2))
    kept = decoder.snapshot()
    once = decoder.push(np.stack([joined[1:9]] * 2)).text
    decoder.restore(kept)
    assert decoder.push(np.stack([joined[1:9]] * 2)).text == once


def test_text_alone_needs_no_behavior() -> None:
    config = replace(as_reference(SMALL), sequence_classes=4)
    decoder = decoder_of(lively(config), dims=0)
    assert [d.name for d in decoder.behavior] == ["text"]
    decoder.open(max_push_bins=12)
    prediction = decoder.push(counts(12)[None])
    assert prediction.values.shape == (1, 12, 4)
    assert prediction.text is not None
