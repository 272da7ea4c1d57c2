"""The mutants: ways in which the grid, the decoders, the store and the loop could be wrong."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """One deliberate error and the test that has to notice it."""

    name: str
    file: str
    text: str
    replacement: str
    test: str


CONTRACT = "tests/contract/test_decoders.py"
GRID = "tests/unit/test_timegrid.py"
SESSION = "tests/unit/test_session.py"
WIENER = "tests/unit/test_wiener.py"

MUTANTS = (
    Mutant(
        "bins closed at the end",
        "src/betz/core/timegrid.py",
        "(values.astype(np.int64, copy=False) - self.origin_tick) // self.ticks_per_bin",
        "(values.astype(np.int64, copy=False) - self.origin_tick - 1) // self.ticks_per_bin",
        GRID,
    ),
    Mutant(
        "bins from float seconds",
        "src/betz/core/timegrid.py",
        "(values.astype(np.int64, copy=False) - self.origin_tick) // self.ticks_per_bin",
        "np.floor((values - self.origin_tick) / self.tick_hz / np.float32(self.ticks_per_bin / self.tick_hz))"
        ".astype(np.int64)",
        GRID,
    ),
    Mutant(
        "counts wrap at 256",
        "src/betz/core/timegrid.py",
        "if number.size and number.max() > MAX_COUNT:",
        "if number.size and number.max() > 10 * MAX_COUNT:",
        GRID,
    ),
    Mutant(
        "merged counts wrap at 256",
        "src/betz/core/timegrid.py",
        "if total.size and total.max() > MAX_COUNT:",
        "if total.size and total.max() > 100 * MAX_COUNT:",
        GRID,
    ),
    Mutant(
        "edges do not cut segments",
        "src/betz/core/session.py",
        "start_N[at[ok_N[at]]] = True",
        "pass",
        SESSION,
    ),
    Mutant(
        "half-valid bins are usable",
        "src/betz/core/intervals.py",
        "last = np.clip((self.end - grid.origin_tick) // grid.ticks_per_bin, 0, num_bins)",
        "last = np.clip(-((grid.origin_tick - self.end) // grid.ticks_per_bin), 0, num_bins)",
        "tests/property/test_intervals.py",
    ),
    Mutant(
        "behavior is the last sample",
        "src/betz/core/session.py",
        'if dim.kind == "discrete":\n                out[:, k]',
        "if True:\n                out[:, k]",
        SESSION,
    ),
    Mutant(
        "state one bin short",
        "src/betz/decode/baselines/wiener.py",
        'after[f"past_{i}"] = joined[:, bins:].copy()',
        'after[f"past_{i}"] = joined[:, bins - 1 : -1].copy()',
        CONTRACT,
    ),
    Mutant(
        "filter forgets between pushes",
        "src/betz/decode/features.py",
        "zi=keep * last_BC[:, None]",
        "zi=0 * last_BC[:, None]",
        CONTRACT,
    ),
    Mutant(
        "lost bins are taken as zero counts",
        "src/betz/decode/features.py",
        "z[~present] = 0.0",
        "pass",
        CONTRACT + "::test_lost_bins_carry_no_information",
    ),
    Mutant(
        "frozen rows go on",
        "src/betz/decode/streaming.py",
        "array[self._frozen] = before[name][self._frozen]",
        "pass",
        CONTRACT,
    ),
    Mutant(
        "reset keeps the bin number",
        "src/betz/decode/streaming.py",
        "self._bin[which] = 0",
        "pass",
        CONTRACT,
    ),
    Mutant(
        "snapshot shares memory with the stream",
        "src/betz/decode/streaming.py",
        "self._bin, self._frozen = state.bin.copy(), state.frozen.copy()",
        "self._frozen = state.frozen.copy()",
        CONTRACT,
    ),
    Mutant(
        "output one bin late",
        "src/betz/decode/baselines/wiener.py",
        "_correlate(joined, weights, bins) + f.intercept",
        '_correlate(np.concatenate((state[f"past_{i}"][:, :1], joined[:, :-1]), axis=1), weights, bins) + f.intercept',
        CONTRACT,
    ),
    Mutant(
        "no floor for near-dead channels",
        "src/betz/decode/features.py",
        "sd[same] = np.maximum(sd[same], SD_FLOOR * np.median(live))",
        "pass",
        WIENER,
    ),
    Mutant(
        "validation on training bins",
        "src/betz/decode/baselines/wiener.py",
        "*ridge(total - fold, strength)",
        "*ridge(total, strength)",
        WIENER,
    ),
    Mutant(
        "lags cross segments in calibration",
        "src/betz/decode/closed_form.py",
        "where=(self.age[back:] >= back)[:, None]",
        "where=(self.age[back:] >= 0)[:, None]",
        "tests/golden/test_closed_form.py",
    ),
)
