"""Running out of memory: told apart from other errors, and what to do about it.

A client whose batch does not fit loses its own work, not everybody's.
"""

from __future__ import annotations

import gc

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


def first_words(error: BaseException) -> str:
    """How much was asked for; torch goes on with other processes of the machine and their sizes."""
    text = " ".join(str(error).split()) or type(error).__name__
    return ". ".join(text.split(". ")[:2]).rstrip(".")[:200]
