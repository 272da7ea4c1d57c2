"""The contract of a decoder: what every one of them must do, whoever wrote it.

Offline means one push of the whole window into a fresh stream; streamed means any other way to chop it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from betz.core.errors import StreamError
from betz.core.prediction import Array, Prediction
from betz.core.seeds import SeedTree
from betz.decode.decoder import Decoder, DecoderState, load_decoder

CLOSED_FORM_TOLERANCE, NETWORK_TOLERANCE = 1e-9, 1e-5
DAY_BINS = 24 * 3600 * 50


@dataclass(frozen=True)
class ContractReport:
    """What :func:`check_decoder` did.

    Args:
        checks: names of the checks that passed, in order.
        worst_offline_error: largest |streamed − offline| in standard deviations of the decoder's output.
    """

    checks: tuple[str, ...]
    worst_offline_error: float


def check_decoder(
    make: Callable[[], Decoder],
    *,
    signals_NC: Array | None = None,
    window: int | None = None,
    tolerance: float = CLOSED_FORM_TOLERANCE,
    seed: int = 0,
) -> ContractReport:
    """Run the whole contract; an AssertionError names the check, the place and the size of the deviation.

    Args:
        make: gives a calibrated decoder, a new one each time, always the same.
        signals_NC: (N, C) realistic signals; made up from the channels' kinds if not given.
        window: the decoder's window in bins (default: its ``context_bins``, or 10).
        tolerance: of streamed against offline, in standard deviations of the output: 1e-9 for closed forms in
            float64, 1e-5 for float32 networks.
        seed: of signals and choppings.
    """
    contract = _Contract(make, signals_NC, window, tolerance, SeedTree(seed))
    checks = (
        contract.declares,
        contract.streamed_equals_offline,
        contract.repeats,
        contract.causal,
        contract.latency_is_found,
        contract.context_is_bounded,
        contract.reset_is_fresh,
        contract.freeze_stops_a_row,
        contract.rows_are_independent,
        contract.padding_does_not_leak,
        contract.time_passes_in_lost_bins,
        contract.snapshot_restores,
        contract.a_day_later,
        contract.refuses_bad_pushes,
        contract.saves_and_loads,
    )
    for check in checks:
        check()
    return ContractReport(tuple(check.__name__ for check in checks), contract.worst)


class _Contract:
    def __init__(
        self,
        make: Callable[[], Decoder],
        signals_NC: Array | None,
        window: int | None,
        tolerance: float,
        seeds: SeedTree,
    ) -> None:
        self.make, self.tolerance, self.seeds, self.worst = make, tolerance, seeds, 0.0
        decoder = make()
        self.window = window or decoder.context_bins or 10
        bins = 6 * self.window + 40
        if signals_NC is None:
            rng = seeds.generator("signals")
            kinds = [c.kind for c in decoder.channels]
            columns = [rng.normal(size=bins) if k == "power" else rng.poisson(1.5, bins) for k in kinds]
            signals_NC = np.stack(columns, axis=1)
        self.x = np.asarray(signals_NC[:bins], dtype=np.float64)
        self.bins = len(self.x)
        self.offline = self.run(decoder, [self.bins])
        self.sd = np.nanstd(self.offline.values[0], axis=0)
        assert np.all(self.sd > 0), "declares: a dimension of the prediction does not depend on the signals"

    # ---- helpers

    def run(
        self,
        decoder: Decoder,
        sizes: Iterable[int],
        *,
        x: Array | None = None,
        present: NDArray[np.bool_] | None = None,
        opened: bool = False,
    ) -> Prediction:
        """Push (B, N, C) or (N, C) signals in pieces of the given sizes."""
        x_BNC = self.x if x is None else x
        x_BNC = x_BNC[None] if x_BNC.ndim == 2 else x_BNC
        sizes = list(sizes)
        if not opened:
            decoder.open(len(x_BNC), max_push_bins=max(sizes))
        parts, at = [], 0
        for size in sizes:
            piece = slice(at, at + size)
            parts.append(decoder.push(x_BNC[:, piece], None if present is None else present[:, piece]))
            at += size
        spreads = [p.spread for p in parts if p.spread is not None]
        return Prediction(
            np.concatenate([p.values for p in parts], axis=1),
            np.concatenate(spreads, axis=1) if spreads else None,
            np.concatenate([p.bin for p in parts], axis=1),
            np.concatenate([p.valid for p in parts], axis=1),
        )

    def sizes(self, size: int) -> list[int]:
        return [size] * (self.bins // size) + ([self.bins % size] if self.bins % size else [])

    def same(self, name: str, found: Prediction, wanted: Prediction, rows: slice = slice(None)) -> None:
        """Values, bins and validity agree; deviations count in standard deviations of the output."""
        assert np.array_equal(found.bin[rows], wanted.bin), f"{name}: bin numbers differ"
        assert np.array_equal(found.valid[rows], wanted.valid), f"{name}: validity differs"
        nan = np.isnan(found.values[rows])
        assert np.array_equal(nan, np.isnan(wanted.values)), f"{name}: NaN in different places"
        error = np.nan_to_num(np.abs(found.values[rows] - wanted.values) / self.sd)
        self.worst = max(self.worst, float(error.max()))
        at = np.unravel_index(int(error.argmax()), error.shape)
        assert error.max() <= self.tolerance, (
            f"{name}: differs by {error.max():.3g} sd at row, bin, dimension {tuple(int(i) for i in at)} "
            f"(tolerance {self.tolerance:g})"
        )

    # ---- checks

    def declares(self) -> None:
        decoder = self.make()
        assert isinstance(decoder, Decoder), "declares: attributes or methods of the Decoder protocol are missing"
        columns = sum(len(d.classes) if d.kind == "discrete" else 1 for d in decoder.behavior)
        shape = (1, self.bins, columns)
        assert self.offline.values.shape == shape, f"declares: values {self.offline.values.shape}, expected {shape}"
        assert self.offline.bin.dtype == np.int64, "declares: bin is not int64"
        assert self.offline.valid.dtype == np.bool_, "declares: valid is not bool"
        assert decoder.bin_ms > 0, "declares: bin_ms"
        assert all(d.unit for d in decoder.behavior if d.kind == "continuous"), "declares: a unit is missing"
        spread = self.offline.spread
        assert spread is None or (spread.shape == shape and np.all(spread >= 0)), "declares: spread"
        assert np.isfinite(self.offline.values[self.offline.valid]).all(), "declares: a valid value is not finite"

    def streamed_equals_offline(self) -> None:
        for size in sorted({1, 2, 3, 5, max(self.window - 1, 1), self.window, self.window + 1}):
            found = self.run(self.make(), self.sizes(min(size, self.bins)))
            self.same(f"streamed_equals_offline, pushes of {size}", found, self.offline)
        for item in range(5):
            rng, sizes = self.seeds.generator("chop", item=item), list[int]()
            while sum(sizes) < self.bins:
                size = int(rng.integers(1, 2 * self.window + 1))
                sizes.append(min(size, self.bins - sum(sizes)))
            self.same(f"streamed_equals_offline, choppings {sizes[:6]}…", self.run(self.make(), sizes), self.offline)

    def repeats(self) -> None:
        again = self.run(self.make(), [self.bins])
        assert np.array_equal(again.values, self.offline.values, equal_nan=True), "repeats: same pushes, other bits"

    def causal(self) -> None:
        latency = self.make().latency_bins
        for cut in (1, self.window, self.bins // 2):
            x = self.x.copy()
            x[cut:] = self.seeds.generator("causal", item=cut).permutation(x[cut:]) + 3.0
            found = self.run(self.make(), [self.bins], x=x).values[0, :cut]
            wanted = self.offline.values[0, :cut]
            error = np.nan_to_num(np.abs(found - wanted) / self.sd)
            assert error.max() <= self.tolerance, (
                f"causal: signals from bin {cut} on change bin {int(error.max(1).argmax())}"
            )
        assert latency >= 0, "causal: negative latency"

    def latency_is_found(self) -> None:
        """A prediction is for bin k when its number says so: the first valid one is bin 0, ``latency_bins`` later."""
        decoder = self.make()
        wanted = np.arange(self.bins) - decoder.latency_bins
        assert np.array_equal(self.offline.bin[0], wanted), "latency_is_found: bin numbers do not follow latency_bins"
        first = int(np.argmax(self.offline.valid[0]))
        assert first == decoder.latency_bins, (
            f"latency_is_found: first valid at {first}, declared {decoder.latency_bins}"
        )

    def context_is_bounded(self) -> None:
        context = self.make().context_bins
        if context is None or context >= self.bins - 1:
            return
        x = self.x.copy()
        cut = self.bins - context
        x[:cut] = self.seeds.generator("context").permutation(x[:cut]) + 2.0
        error = np.abs(self.run(self.make(), [self.bins], x=x).values[0, -1] - self.offline.values[0, -1]) / self.sd
        assert error.max() <= self.tolerance, f"context_is_bounded: signals more than {context} bins back still count"

    def reset_is_fresh(self) -> None:
        decoder = self.make()
        two = np.stack((self.x[::-1], self.x))
        self.run(decoder, [self.bins], x=two)
        decoder.reset(np.array([1], dtype=np.int64))
        after = self.run(decoder, [self.bins], x=np.stack((self.x, self.x)), opened=True)
        self.same("reset_is_fresh, row 1", after, self.offline, slice(1, 2))
        assert after.bin[0, 0] == self.bins - decoder.latency_bins, "reset_is_fresh: the other row was reset too"
        decoder.reset()
        self.same(
            "reset_is_fresh, all", self.run(decoder, [self.bins], x=two[::-1], opened=True), self.offline, slice(0, 1)
        )

    def freeze_stops_a_row(self) -> None:
        decoder, half = self.make(), self.bins // 2
        two = np.stack((self.x, self.x))
        decoder.open(2, max_push_bins=self.bins)
        decoder.push(two[:, :half])
        decoder.freeze(np.array([0], dtype=np.int64))
        frozen = decoder.push(np.full((2, 7, self.x.shape[1]), 4.0))
        assert not frozen.valid[0].any(), "freeze_stops_a_row: the frozen row has valid output"
        assert np.isnan(frozen.values[0]).all(), "freeze_stops_a_row: the frozen row has output"
        assert frozen.valid[1].any(), "freeze_stops_a_row: the other row was frozen too"
        decoder.freeze(np.array([], dtype=np.int64))
        rest = decoder.push(two[:, half:])
        error = np.abs(rest.values[0] - self.offline.values[0, half:]) / self.sd
        assert error.max() <= self.tolerance, f"freeze_stops_a_row: time or state moved ({error.max():.3g} sd)"
        assert np.array_equal(rest.bin[0], self.offline.bin[0, half:]), "freeze_stops_a_row: its bin number moved"

    def rows_are_independent(self) -> None:
        rng = self.seeds.generator("rows")
        three = np.stack((rng.permutation(self.x), self.x, 2 * rng.permutation(self.x)))
        self.same("rows_are_independent", self.run(self.make(), self.sizes(3), x=three), self.offline, slice(1, 2))

    def padding_does_not_leak(self) -> None:
        present = np.ones((2, self.bins), dtype=bool)
        present[0, 5:9] = present[0, -1] = False
        results = []
        for filler in (0.0, np.nan, 1e30, -np.inf):
            x = np.stack((self.x, self.x))
            x[~present] = filler
            results.append(self.run(self.make(), self.sizes(4), x=x, present=present))
        for name, found in zip(("NaN", "1e30", "-inf"), results[1:], strict=True):
            same = np.array_equal(found.values, results[0].values, equal_nan=True)
            assert same, f"padding_does_not_leak: {name} in a lost bin changes the output"
        self.same("padding_does_not_leak, other row", results[1], self.offline, slice(1, 2))
        wanted = self.offline.valid[0] & present[0]
        assert np.array_equal(results[0].valid[0], wanted), "padding_does_not_leak: a lost bin is valid"
        decoder = self.make()
        decoder.open(2, max_push_bins=self.bins)
        decoder.freeze(np.array([0], dtype=np.int64))
        x = np.stack((np.full_like(self.x, np.nan), self.x))
        self.same("padding_does_not_leak, frozen row", decoder.push(x), self.offline, slice(1, 2))

    def time_passes_in_lost_bins(self) -> None:
        decoder = self.make()
        present = np.ones((1, self.bins), dtype=bool)
        present[0, 3:6] = False
        found = self.run(decoder, self.sizes(1), present=present)
        assert np.array_equal(found.bin, self.offline.bin), "time_passes_in_lost_bins: bin numbers stopped"
        whole = self.run(self.make(), [self.bins], present=present)
        self.same("time_passes_in_lost_bins, streamed", found, whole)
        changed = np.nan_to_num(np.abs(whole.values[0, 3:] - self.offline.values[0, 3:]) / self.sd)
        assert changed.max() > self.tolerance, "time_passes_in_lost_bins: `present` is not looked at"

    def snapshot_restores(self) -> None:
        decoder, half = self.make(), self.bins // 2
        self.run(decoder, [half], x=self.x[:half])
        decoder.open(1, max_push_bins=self.bins)
        decoder.push(self.x[None, :half])
        state = decoder.snapshot()
        for _ in range(2):
            rest = decoder.push(self.x[None, half:])
            error = np.abs(rest.values[0] - self.offline.values[0, half:]) / self.sd
            assert error.max() <= self.tolerance, f"snapshot_restores: differs by {error.max():.3g} sd"
            assert np.array_equal(rest.bin[0], self.offline.bin[0, half:]), "snapshot_restores: bin numbers differ"
            decoder.push(self.x[None, :3] + 5)
            decoder.restore(state)

    def a_day_later(self) -> None:
        """Only bin numbers may differ when the same signals come a day later (house rule 3)."""
        decoder = self.make()
        decoder.open(1, max_push_bins=self.bins)
        state = decoder.snapshot()
        decoder.restore(DecoderState(state.bin + DAY_BINS, state.frozen, state.arrays))
        later = decoder.push(self.x[None])
        assert np.array_equal(later.bin, self.offline.bin + DAY_BINS), "a_day_later: bin numbers are not exact"
        error = np.nan_to_num(np.abs(later.values - self.offline.values) / self.sd)
        assert error.max() <= self.tolerance, f"a_day_later: values differ by {error.max():.3g} sd"

    def refuses_bad_pushes(self) -> None:
        channels = self.x.shape[1]
        bad = {
            "more bins than opened for": np.zeros((1, 3, channels)),
            "a missing channel": np.zeros((1, 1, channels + 1)),
            "text": np.full((1, 1, channels), "1"),
            "NaN in a present bin": np.full((1, 1, channels), np.nan),
        }
        decoder = self.make()
        _raises(lambda: decoder.push(self.x[:1][None]), "a push before open")
        decoder.open(1, max_push_bins=2)
        first = decoder.push(self.x[None, :2])
        for name, signals in bad.items():
            _raises(lambda signals=signals: decoder.push(signals), name)  # type: ignore[misc]
        second = decoder.push(self.x[None, 2:4])
        found = np.concatenate((first.values, second.values), axis=1)
        error = np.nan_to_num(np.abs(found[0] - self.offline.values[0, :4]) / self.sd)
        assert error.max() <= self.tolerance, "refuses_bad_pushes: a refused push changed the stream"

    def saves_and_loads(self) -> None:
        decoder = self.make()
        with tempfile.TemporaryDirectory() as folder:
            decoder.save(Path(folder) / "decoder")
            again = load_decoder(Path(folder) / "decoder")
        for name in ("bin_ms", "latency_bins", "context_bins", "channels", "behavior"):
            assert getattr(again, name) == getattr(decoder, name), f"saves_and_loads: {name} changed"
        found = self.run(again, [self.bins])
        assert np.array_equal(found.values, self.offline.values, equal_nan=True), "saves_and_loads: other values"


def _raises(push: Callable[[], Prediction], name: str) -> None:
    message = "accepted"
    try:
        push()
    except StreamError as error:
        message = str(error)
    assert message, f"refuses_bad_pushes: {name} raises without a message"
    assert message != "accepted", f"refuses_bad_pushes: {name} was accepted"
