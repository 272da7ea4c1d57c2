"""Fixtures that several tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of real recordings, or a loud skip."""
    folder = os.environ.get("BETZ_DATA")
    if not folder:
        pytest.skip("BETZ_DATA is not set: tests on real recordings are skipped")
    return Path(folder)
