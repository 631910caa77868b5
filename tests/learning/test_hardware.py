"""Devices, number formats and thread counts."""

from __future__ import annotations

import pytest
import torch

from fleetseg.errors import ConfigError
from fleetseg.learning.hardware import cpu_has_bf16, resolve, threads


def test_auto_is_bf16_only_where_the_cpu_has_it() -> None:
    hardware = resolve("cpu", "auto")
    assert hardware.precision == ("bf16" if cpu_has_bf16() else "fp32")
    assert hardware.device == torch.device("cpu")


def test_fp16_needs_a_gpu() -> None:
    with pytest.raises(ConfigError, match="needs a GPU"):
        resolve("cpu", "fp16")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_missing_cuda_is_said() -> None:
    with pytest.raises(ConfigError, match="no CUDA device"):
        resolve("cuda", "auto")


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
