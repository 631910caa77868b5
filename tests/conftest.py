"""Shared by all tests: where the real driving data is, and a skip with a reason where it is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DATA_ROOT = Path(
    os.environ.get("FLEETSEG_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)


@pytest.fixture
def real_data() -> Path:
    """Folder with camvid/, idd_lite/, cityscapes_sample/ and splits/ (see CONTRIBUTING)."""
    if not (DATA_ROOT / "camvid").is_dir():
        pytest.skip(f"real driving data not found at {DATA_ROOT}; set FLEETSEG_DATA")
    return DATA_ROOT
