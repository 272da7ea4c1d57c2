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
ARRAYS = "tests/unit/test_from_arrays.py"
STORE = "tests/unit/test_store.py"
DAMAGE = "tests/unit/test_store_damage.py"
WINDOWS = "tests/unit/test_store_windows.py"
CRASH = "tests/unit/test_store_crash.py"

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
    Mutant(
        "manifest before the arrays",
        "src/betz/data/store.py",
        "        os.rename(part, folder)\n",
        '        early = {**manifest, "arrays": folder.name, "files": files}\n'
        '        early["sha256"] = seal(early)\n'
        "        disk.write_file(self._manifest_path(id), json.dumps(early).encode())\n"
        "        os.rename(part, folder)\n",
        CRASH + "::test_kill_9_before_any_line",
    ),
    Mutant(
        "half-written files stay",
        "src/betz/data/store.py",
        "            finally:  # the replaced session's arrays, or what a failure left\n                self._sweep()",
        "            except ZeroDivisionError:\n                raise",
        CRASH + "::test_any_failure_leaves_the_store_as_it_was",
    ),
    Mutant(
        "writers do not wait",
        "src/betz/data/disk.py",
        "fcntl.flock(file, fcntl.LOCK_EX)",
        "fcntl.flock(file, fcntl.LOCK_SH)",
        CRASH + "::test_a_writer_waits_for_the_lock",
    ),
    Mutant(
        "arrays in use are swept",
        "src/betz/data/store.py",
        "if name != used:",
        "if name == used:",
        STORE,
    ),
    Mutant(
        "sweeping what others put there",
        "src/betz/data/store.py",
        "elif found := _ARRAYS_OF.fullmatch(name):\n                by_id.setdefault(found[1], []).append(name)",
        'else:\n                by_id.setdefault(name.rpartition(".")[0], []).append(name)',
        STORE,
    ),
    Mutant(
        "ids may hold slashes",
        "src/betz/data/store.py",
        "not SAFE_ID.fullmatch(id)",
        "not SAFE_ID.match(id)",
        STORE,
    ),
    Mutant(
        "no seal",
        "src/betz/data/manifest.py",
        "if not sealed:",
        "if False:",
        DAMAGE,
    ),
    Mutant(
        "hashes are not compared",
        "src/betz/data/store.py",
        'if disk.sha256_of(folder / f"{name}.npy") != entry["sha256"]',
        'if disk.sha256_of(folder / f"{name}.npy") == ""',
        DAMAGE,
    ),
    Mutant(
        "headers are believed",
        "src/betz/data/disk.py",
        "if (found_shape, found_dtype) != (shape, dtype) or fortran or dtype.hasobject:",
        "if dtype.hasobject:",
        DAMAGE,
    ),
    Mutant(
        "migration skipped",
        "src/betz/data/manifest.py",
        "manifest = MIGRATIONS[version](manifest)",
        "pass",
        DAMAGE,
    ),
    Mutant(
        "newer versions are tried",
        "src/betz/data/manifest.py",
        "if version > VERSION:",
        "if version > 1000 * VERSION:",
        DAMAGE,
    ),
    Mutant(
        "spike trains shifted by one",
        "src/betz/data/manifest.py",
        'spikes = tuple(arrays["spikes"][i:j] for i, j in pairwise(ends))',
        'spikes = tuple(arrays["spikes"][i + 1 : j + 1] for i, j in pairwise(ends))',
        "tests/property/test_store_roundtrip.py",
    ),
    Mutant(
        "windows cross edges",
        "src/betz/data/windows.py",
        "segments=frame.segments,",
        "segments=frame.without_edges().segments,",
        WINDOWS,
    ),
    Mutant(
        "windows cross gaps",
        "src/betz/data/windows.py",
        "segments=frame.segments,",
        "segments=((0, frame.num_bins),),",
        WINDOWS,
    ),
    Mutant(
        "windows one bin beyond the end",
        "src/betz/data/windows.py",
        "j - self.bins + 1) for i, j in found.segments if j - i >= self.bins]",
        "j - self.bins + 2) for i, j in found.segments if j - i >= self.bins]",
        WINDOWS,
    ),
    Mutant(
        "windows drawn from the wrong offset",
        "src/betz/data/windows.py",
        "self._first[segment] + window - self._reach[segment]",
        "window - self._reach[segment]",
        WINDOWS,
    ),
    Mutant(
        "early windows are likelier",
        "src/betz/data/windows.py",
        "window = rng.integers(0, self.total, size=n)",
        "window = (self.total * rng.random(n) ** 1.1).astype(np.int64)",
        WINDOWS + "::test_every_window_is_equally_likely",
    ),
    Mutant(
        "power in the place of counts",
        "src/betz/data/windows.py",
        "column += array_NC.shape[1]",
        "pass",
        WINDOWS,
    ),
    Mutant(
        "new arrays under an old index",
        "src/betz/data/windows.py",
        'if manifest["sha256"] != seal:',
        "if False:",
        WINDOWS,
    ),
    Mutant(
        "an edge before the first trial",
        "src/betz/data/arrays.py",
        "return border[1:-1].copy(), Trials(",
        "return border[:-1].copy(), Trials(",
        ARRAYS,
    ),
    Mutant(
        "fractions of counts are cut off",
        "src/betz/data/arrays.py",
        "fraction = ~np.isfinite(counts_NC) | (counts_NC != np.rint(counts_NC))",
        "fraction = ~np.isfinite(counts_NC)",
        ARRAYS,
    ),
    Mutant(
        "unknown classes of a checkpoint are called",
        "src/betz/model/inert.py",
        "if not is_stand_in(of) and str(of) not in self.refused:",
        "if not is_stand_in(of) and str(of) in self.refused:",
        "tests/unit/test_inert.py",
    ),
    Mutant(
        "unknown names of a checkpoint are kept",
        "src/betz/model/inert.py",
        "            if not self.tolerate:\n",
        "            if False:\n",
        "tests/unit/test_inert.py",
    ),
    Mutant(
        "tensors may reach beyond their storage",
        "src/betz/model/inert.py",
        "last >= storage.numel or found.numel > storage.numel",
        "last > storage.numel",
        "tests/unit/test_inert.py",
    ),
    Mutant(
        "compressed records are read",
        "src/betz/model/archive.py",
        "info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1",
        "info.flag_bits & 1",
        "tests/unit/test_inert.py",
    ),
    Mutant(
        "contradicting hyper-parameters pass",
        "src/betz/model/ndt3_config.py",
        "if value is not None and value != size:",
        "if value is not None and value == -1:",
        "tests/unit/test_ndt3_conversion.py",
    ),
    Mutant(
        "adapters are dropped",
        "src/betz/model/ndt3_weights.py",
        "value = value.double() + source.adapter.scale * (up @ down)",
        "value = value.double() + 0 * (up @ down)",
        "tests/unit/test_ndt3_conversion.py",
    ),
    Mutant(
        "a model's hash is not compared",
        "src/betz/model/folder.py",
        'if _sha256(folder / name) != manifest.get("tensors_sha256"):',
        "if not _sha256(folder / name):",
        "tests/unit/test_checkpoint.py",
    ),
    Mutant(
        "the old manifest goes before the new one is there",
        "src/betz/model/folder.py",
        "if name == layout.tensors:  #",
        "if True:  #",
        "tests/unit/test_checkpoint.py",
    ),
    Mutant(
        "a missing setting is guessed",
        "src/betz/model/checkpoint.py",
        'if to_dict(config) != manifest["config"]:',
        "if not to_dict(config):",
        "tests/unit/test_checkpoint.py",
    ),
    Mutant(
        "a repeated label needs no blank",
        "src/betz/model/sequence.py",
        "grow_BV[again, last[again]] = in_blank[again] + log_p_V[last[again]]",
        "pass",
        "tests/unit/test_sequence.py",
    ),
    Mutant(
        "beams with one text are not added up",
        "src/betz/model/sequence.py",
        "stay_label[b] = np.logaddexp(stay_label[b], grow_BV[parent, end[-1]])",
        "pass",
        "tests/unit/test_sequence.py",
    ),
    Mutant(
        "greedy forgets the last class between pushes",
        "src/betz/model/sequence.py",
        "np.concatenate(([state.last], best_N[:-1]))",
        "np.concatenate(([0], best_N[:-1]))",
        "tests/unit/test_sequence.py",
    ),
    Mutant(
        "insertions are free",
        "src/betz/core/text.py",
        "np.minimum.accumulate(best - place) + place",
        "np.minimum.accumulate(best)",
        "tests/unit/test_text.py",
    ),
)
