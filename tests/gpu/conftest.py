"""Tests that need an NVIDIA GPU: skipped, with a reason, where there is none.

    python -m pytest -m gpu tests/gpu

They use synthetic data only, and some 2 GB of the GPU's memory.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in this folder, so that no test of it can be forgotten."""
    missing = pytest.mark.skipif(
        not torch.cuda.is_available(), reason="no CUDA GPU is visible to torch on this machine"
    )
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.gpu)
            item.add_marker(missing)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Decoded pictures, shared by all runs."""
    return tmp_path_factory.mktemp("cache")
