"""Missing memory: told apart from other errors, on every device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fleetseg.errors import DataError, OutOfMemory
from fleetseg.memory import free_bytes, is_out_of_memory, out_of_memory_text

CUDA = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.11 GiB of "
    "which 1.06 GiB is free. Process 4711 has 78.05 GiB memory in use. See documentation"
)
MISSING = [
    torch.OutOfMemoryError(CUDA),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("MPS backend out of memory (MPS allocated: 17.92 GB, max allowed: 18.13 GB)."),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to ..."),
    MemoryError("Unable to allocate 9.31 GiB for an array"),
    MemoryError(),
    OutOfMemory("out of memory in scoring one image on cuda:0"),
]
OTHERS = [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("shape '[3]' is invalid for input of size 4"),
    ValueError("out of memory"),
    DataError("out of memory"),
]


@pytest.mark.parametrize("error", MISSING, ids=lambda e: str(e)[:25])
def test_missing_memory_is_known_for_what_it_is(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert out_of_memory_text(error, "cuda:0").startswith("out of memory")


@pytest.mark.parametrize("error", OTHERS, ids=lambda e: str(e)[:25])
def test_other_errors_are_not(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_the_text_has_the_cure_and_nothing_of_other_processes() -> None:
    assert out_of_memory_text(torch.OutOfMemoryError(CUDA), torch.device("cuda", 1)) == (
        "out of memory in training on cuda:1; got CUDA out of memory. Tried to allocate 2.50 GiB. "
        "Use a smaller training.batch_size or training.crop, or fewer engine.workers"
    )


def test_a_real_one() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


CPU = torch.device("cpu")


def test_a_host_has_what_is_available_or_what_its_container_leaves(tmp_path: Path) -> None:
    told = tmp_path / "meminfo"
    assert free_bytes(CPU, told, tmp_path) is None
    told.write_text("MemTotal:  9000 kB\nMemAvailable:    4000 kB\n")
    assert free_bytes(CPU, told, tmp_path) == 4_096_000
    for most, used, free in (("max", "5", 4_096_000), ("1000", "400", 600), ("1000", "2000", 0)):
        (tmp_path / "memory.max").write_text(most + "\n")
        (tmp_path / "memory.current").write_text(used + "\n")
        assert free_bytes(CPU, told, tmp_path) == free
    told.write_text("nothing of the kind")
    assert free_bytes(CPU, told, tmp_path) is None
