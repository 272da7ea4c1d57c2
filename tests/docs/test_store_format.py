"""What the page on the store's format says is so."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from betz.data.manifest import MIGRATIONS, VERSION
from betz.data.store import Store
from tests.unit.store_helpers import assert_same, full_session, leftovers

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "store_format.md").read_text()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "my_store", create=True)
    store.put(full_session(spikes=True, id="a"))
    store.put(full_session(id="b"))
    return store


def test_reading_without_betz(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(store.path.parent)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, "store_format.md", "exec"), names)
    assert capsys.readouterr().out.startswith(
        "a 0.03 minutes {'power': (100, 2), 'spikes': (1400,), 'spike_offsets': (4,),"
    )
    session, arrays = full_session(id="b"), names["arrays"]
    assert isinstance(arrays, dict)
    assert_same(arrays["counts"], session.counts)
    assert_same(arrays["power"], session.power)
    for k, series in enumerate(session.behavior):
        assert_same(arrays[f"behavior_{k}"], series.values)
    assert "betz" not in code


def test_every_field_and_file_is_on_the_page(store: Store) -> None:
    windows = store.windows(bins=3, ids=["a"], behavior=["fx"])
    windows.read(np.array([[0, 0]]))
    for id in store.ids:
        manifest = store.manifest(id)
        inner = [*manifest["grid"], *manifest["channels"][0], *manifest["behavior"][0], *manifest["provenance"]]
        inner += [*manifest["behavior"][0]["dims"][2], *manifest["behavior"][0]["dims"][2]["derivation"]]
        inner += [*manifest["trials"], *manifest["assistance"][0], *manifest["files"]["power"]]
        for name in {*manifest, *inner, *manifest["files"]} - {"behavior_2", "trials_1"}:
            assert f"`{name}`" in PAGE, name
    caches = [re.sub(r"\d+", "<ticks per bin>", Path(name).name) for name in leftovers(store.path)]
    assert len(caches) == 2
    assert all(f"`{name}`" in PAGE for name in caches)


def test_versions_are_on_the_page() -> None:
    rows = [int(n) for n in re.findall(r"^\| (\d+) \|", PAGE, flags=re.MULTILINE)]
    assert rows == list(range(1, VERSION + 1))
    assert sorted(MIGRATIONS) == rows[:-1]
    assert f"format version **{VERSION}**" in PAGE
