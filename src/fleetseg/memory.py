"""Recognise out-of-memory errors and say what to do about them.

A client whose batch does not fit in memory loses only its own work.
"""

from __future__ import annotations

import gc
import re
from pathlib import Path

import torch

from fleetseg.errors import OutOfMemory

_SIGNS = (  # in plain RuntimeErrors of MPS, of CUDA's libraries and driver, and of the CPU
    "out of memory",
    "alloc_failed",
    "can't allocate memory",
    "not enough memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that a device or the host ran out of memory."""
    if isinstance(error, OutOfMemory | MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def out_of_memory_text(error: BaseException, where: object) -> str:
    """Describe the failed allocation and its cure."""
    if isinstance(error, OutOfMemory):
        return str(error)
    return str(
        OutOfMemory(
            f"out of memory in training on {where}",
            got=first_words(error),
            cure="Use a smaller training.batch_size or training.crop, or fewer engine.workers",
        )
    )


def free(device: torch.device) -> None:
    """Release cached memory; call it once the error and its frames are gone."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def free_bytes(
    device: torch.device, told: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Return the memory that is still available to work on a device; None where it is unknown.

    On a host, a container's limit counts where it is lower (`memory.max` of control groups).
    """
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + held
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", told.read_text(), re.MULTILINE)
    except OSError:
        return None
    if found is None:
        return None
    available = int(found[1]) * 1024
    try:
        most, used = (
            (group / name).read_text().strip() for name in ("memory.max", "memory.current")
        )
        return available if most == "max" else max(0, min(available, int(most) - int(used)))
    except (OSError, ValueError):
        return available


def first_words(error: BaseException) -> str:
    """Return how much was requested, without torch's details on other processes and their sizes."""
    text = " ".join(str(error).split()) or type(error).__name__
    return ". ".join(text.split(". ")[:2]).rstrip(".")[:200]
