"""The Transformer against stored outputs of the reference: from its batches, from raw trials, and as a stream."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from betz.model.losses import poisson_targets
from betz.model.ndt3 import reference_to_betz
from betz.model.presets import as_reference, parameters, preset
from betz.model.transformer import Transformer
from betz.testing.parity import Errors, compare_case
from betz.testing.reference import cases_of, open_reference, read_tensors

FILES = Path(__file__).parent / "files"
FOLDERS = ("tiny_pretrain", "tiny_tune")
TOLERANCE = {"tiny_pretrain": 2e-6, "tiny_tune": 1e-3}
HERE = [f"{folder.name}/{case.name}" for folder, case in cases_of(FILES / name for name in FOLDERS)]


def check(folder: Path, case: Path) -> tuple[Errors, Errors]:
    """Everything that the case holds, within its tolerance."""
    torch.set_num_threads(1)
    worst, grads, number = compare_case(open_reference(folder), case)
    assert number > 0
    for name in ("order", "context", "embed"):
        assert worst.get(name, 0.0) == 0.0, f"{name} of {case} must be exact: {worst[name]:.1e}"
    for name, error in worst.items():
        assert error <= TOLERANCE[folder.name], f"{name} of {case}: {error:.1e}"
    # max |Δ| ≤ 1e-4 · max |g| + 1e-8, and zero tensors zero
    assert all(error <= 1e-4 for error in grads.values()), grads
    return worst, grads


@pytest.mark.parametrize("case", HERE)
def test_outputs_are_the_reference_s(case: str) -> None:
    worst, grads = check(FILES / case.split("/")[0], FILES / case)
    if case == "tiny_pretrain/case_i":
        assert {"kin_pred", "backbone_out", "spike_logits", "spike_loss_elem", "loss", "predict", "layers"} <= set(
            worst
        )
        assert len(grads) == 32


def test_streams_are_the_reference_s() -> None:
    worst, _ = check(FILES / "tiny_tune", FILES / "tiny_tune" / "case_iv_stream")
    assert {"stream_sliding", "stream_recompute", "stream_features", "stream_full"} <= set(worst)
    stored = read_tensors(FILES / "tiny_tune" / "case_iv_stream" / "stream.safetensors")
    # The two semantics differ once a bin has left the window, so the test can tell them apart.
    apart = np.abs(stored["kv.pred"] - stored["window.pred"]).max(axis=1)
    assert apart[:50].max() < 1e-3
    assert apart[50:].min() > 0.1


def test_every_stored_case() -> None:
    root = os.environ.get("BETZ_GOLDEN")
    if not root:
        pytest.skip("BETZ_GOLDEN is not set: only the cases in tests/golden/files are compared")
    cases = cases_of(Path(root) / name for name in FOLDERS)
    assert len(cases) >= 4
    for folder, case in cases:
        check(folder, case)


def test_count_targets_are_the_reference_s() -> None:
    weights = read_tensors(FILES / "tiny_pretrain" / "weights.safetensors")
    stored = weights["task_pipelines.spike_infill.loss.poisson_map"]
    assert np.abs(poisson_targets(22).numpy() - stored).max() < 1e-6  # its own float32 error is 4e-7


@pytest.mark.parametrize("tuned", [False, True])
@pytest.mark.parametrize(("size", "number"), [("45m", 44_919_649), ("350m", 354_165_761)])
def test_keys_map_one_to_one(size: str, number: int, tuned: bool) -> None:
    config = as_reference(preset(size))
    assert parameters(config) == number
    if tuned:
        config = replace(config, constraints=False, returns=False, layout="legacy-finetune", behavior_dim=3)
    with torch.device("meta"):
        ours = {name: tuple(p.shape) for name, p in Transformer(config).named_parameters()}
    theirs: dict[str, tuple[int, ...]] = {}
    section = (FILES / f"keys_{size}.txt").read_text().split("# config")[2 if tuned else 1]
    for line in section.splitlines()[2:]:
        key, shape, _, kind = (line.split("\t") + [""] * 4)[:4]
        if kind.startswith("param"):
            name = reference_to_betz(key)
            assert name is not None, key
            assert name not in theirs, key
            theirs[name] = tuple(int(n) for n in shape.strip("()").split(",") if n)
        elif key:
            assert reference_to_betz(key) is None, f"{key} is no parameter"
    assert theirs == ours
