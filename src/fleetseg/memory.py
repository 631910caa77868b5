"""Running out of memory: told apart from other errors, and what to do about it.

A client whose batch does not fit loses its own work, not everybody's.
"""

from __future__ import annotations

import gc
import re
from pathlib import Path

import torch

from fleetseg.errors import OutOfMemory

_SIGNS = (  # in bare RuntimeErrors of MPS, of CUDA's libraries and driver, and of the CPU
    "out of memory",
    "alloc_failed",
    "can't allocate memory",
    "not enough memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether memory was missing, on a device or on the host."""
    if isinstance(error, OutOfMemory | MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def out_of_memory_text(error: BaseException, where: object) -> str:
    """Write what could not be allocated, and the cure."""
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
    """Give cached memory back; call it when the error and its frames are gone."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def free_bytes(
    device: torch.device, told: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Return the memory that work on a device can still take; None where nobody says.

    On a host, less than is free where a container allows less (`memory.max` of control groups).
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
    """How much was asked for; torch goes on with other processes of the machine and their sizes."""
    text = " ".join(str(error).split()) or type(error).__name__
    return ". ".join(text.split(". ")[:2]).rstrip(".")[:200]
