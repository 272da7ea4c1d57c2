"""Damaged copies of every format: Betz's own error or a whole session, never part of one, never much memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from betz.data.importers import import_files
from betz.data.store import Store
from betz.testing.importers import check_damaged, damaged, small_files

CASES = 20
FORMATS = (
    "npz", "csv", "mat5", "mat73", "trial_data", "xds", "blackrock", "blackrock_nsx", "plexon", "neuroexplorer",
    "open_ephys",
)  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Any]]]:
    return small_files(tmp_path_factory.mktemp("small"))


def test_every_format_is_tried(files: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path) -> None:
    assert set(files) == set(FORMATS)
    for name, (path, settings_) in files.items():
        chosen = {key: value for key, value in settings_.items() if key != "unpacked_bytes"}
        report = import_files([path], Store(tmp_path / name, create=True), **chosen)
        assert len(report.kept) == 1, (name, report.files[0].error)


@pytest.mark.parametrize("name", FORMATS)
@settings(
    max_examples=CASES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(0, 2**31))
def test_damaged_copies(name: str, seed: int, files: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    path, settings_ = files[name]
    check_damaged(path, seed, **settings_)


def test_damage_is_damage() -> None:
    content = bytes(range(256)) * 40
    copies = [damaged(content, np.random.default_rng(seed)) for seed in range(60)]
    assert all(copy != content for copy in copies)
    assert 10 < sum(len(copy) < len(content) for copy in copies) < 40
    flipped = [copy for copy in copies if len(copy) == len(content)]
    assert all(1 <= sum(a != b for a, b in zip(copy, content, strict=True)) <= 16 for copy in flipped)


def test_a_leak_or_a_part_would_be_noticed(
    files: dict[str, tuple[Path, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, settings_ = files["npz"]
    monkeypatch.setattr("betz.testing.importers.MOST_MB", -1.0)
    monkeypatch.setattr("betz.testing.importers.MOST_TIMES", 0.0)
    with pytest.raises(AssertionError, match=r"MB were taken for"):
        check_damaged(path, 1, **settings_)
    monkeypatch.undo()
    real = import_files

    def careless(paths: list[Path], store: Store, **options: Any) -> Any:
        (store.path / "arrays" / "half.0123456789ab").mkdir(parents=True)
        return real(paths, store, **options)

    monkeypatch.setattr("betz.testing.importers.import_files", careless)
    with pytest.raises(AssertionError, match=r"1 folders of arrays for 0 sessions"):
        check_damaged(path, 1, **settings_)
