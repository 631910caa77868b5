"""What a process passes to its workers: one block of shared memory, and a model without values.

Torch would pass one open file per tensor, from a `/dev/shm` that is small in containers, and a
large network would reach the limit on open files (256 or 1024). Here everything is in one block of
anonymous memory, whatever the number of tensors.
"""

from __future__ import annotations

import copy
import errno
import mmap
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import reduction
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from fleetseg.errors import EngineError
from fleetseg.federation.tensors import Layout, ModelState

_ALIGNMENT = 64  # bytes
Module = TypeVar("Module", bound=nn.Module)


class SharedStates:
    """Room for some model states, shared by this process and those that it starts."""

    def __init__(self, layout: Layout, count: int) -> None:
        self._floats, self._counters = layout.num_floats, layout.num_counters
        self._count = count
        self._handle = _new_block(max(1, count * self._stride))
        self._block = mmap.mmap(self._handle, max(1, count * self._stride))

    def __getitem__(self, place: int) -> ModelState:
        """Return the state at a place; all processes see what is written to it."""
        start = place * self._stride
        values_F = self._vector(start, self._floats, torch.float32)
        counters_at = start + _aligned(4 * self._floats)
        return ModelState(values_F, self._vector(counters_at, self._counters, torch.int64))

    def __getstate__(self) -> dict[str, Any]:
        """Describe the block for a process that is being started."""
        handed = reduction.DupFd(self._handle)
        return {**self.__dict__, "_handle": handed, "_block": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Map the block of the process that has started this one."""
        self.__dict__.update(state)
        self._handle = state["_handle"].detach()
        self._block = mmap.mmap(self._handle, max(1, self._count * self._stride))

    def close(self) -> None:
        """Stop sharing the block; the memory is freed with the last tensor in it."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    @property
    def _stride(self) -> int:
        return _aligned(4 * self._floats) + _aligned(8 * self._counters)

    def _vector(self, start: int, size: int, dtype: torch.dtype) -> Tensor:
        if size == 0:
            return torch.zeros(0, dtype=dtype)
        return torch.frombuffer(self._block, dtype=dtype, count=size, offset=start)


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // _ALIGNMENT) * _ALIGNMENT  # rounded up


def _new_block(num_bytes: int) -> int:
    """Open anonymous memory, or an unnamed file if the system has no such memory.

    Raises:
        EngineError: there is no room for it.
        OSError: there are too many open files.
    """
    try:
        handle = _anonymous()
        os.ftruncate(handle, num_bytes)
        return handle
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise
    try:
        with tempfile.TemporaryFile(prefix="fleetseg-") as file:
            # Reserve now: a page that is not available later would kill the process by a signal.
            _reserve(file.fileno(), num_bytes)
            return os.dup(file.fileno())
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        raise EngineError(
            f"no memory to share with workers ({error.strerror})",
            where=os.environ.get("TMPDIR"),
            expected=f"room for {num_bytes:,} bytes",
            cure="Set TMPDIR to a folder with room, or use --engine inprocess",
        ) from None


def probe() -> Literal["memory", "file"]:
    """Find out what is shared with workers here: anonymous memory, or an unnamed file.

    Raises:
        EngineError, OSError: as for a run with workers.
    """
    os.close(_new_block(_ALIGNMENT))
    try:
        os.close(_anonymous())
    except (AttributeError, OSError):
        return "file"
    return "memory"


def _anonymous() -> int:
    return os.memfd_create("fleetseg")


def _reserve(handle: int, num_bytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, num_bytes)
    else:
        os.ftruncate(handle, num_bytes)


# Sending a model to another process


@dataclass(frozen=True, eq=False)
class _Placeholder:
    """Stands for a tensor; `data` is empty if every broadcast writes the values anyway."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    is_parameter: bool
    needs_grad: bool
    data: bytes

    @classmethod
    def of(cls, tensor: Tensor, with_data: bool) -> _Placeholder:
        flat = tensor.detach().cpu().contiguous().reshape(-1) if with_data else None
        return cls(
            tuple(tensor.shape),
            tensor.stride(),
            tensor.dtype,
            isinstance(tensor, nn.Parameter),
            tensor.requires_grad,
            b"" if flat is None else flat.view(torch.uint8).numpy().tobytes(),
        )

    def filled(self) -> Tensor:
        """Make the tensor."""
        tensor = torch.empty_strided(self.shape, self.stride, dtype=self.dtype)
        if self.data:
            flat = torch.frombuffer(bytearray(self.data), dtype=self.dtype)
            tensor.copy_(flat.view(self.shape))
        if self.is_parameter:
            return nn.Parameter(tensor, requires_grad=self.needs_grad)
        return tensor.requires_grad_(self.needs_grad)


def without_values(model: Module) -> Module:
    """Copy a model for another process, without the values of the tensors in its state dict."""
    return _handed(model, without=model.state_dict(keep_vars=True).values())


def with_values(model: Module) -> Module:
    """Copy a model for another process, with all of its values."""
    return _handed(model, without=())


def with_tensors(model: Module) -> Module:
    """Give a model from another process its tensors; values that did not come are uninitialised."""
    memo: dict[int, Any] = {id(p): p.filled() for p in _values_in(model, _is_placeholder)}
    return copy.deepcopy(model, memo)


def _handed(model: Module, without: Iterable[Tensor]) -> Module:
    ids = {id(tensor) for tensor in without}
    memo: dict[int, Any] = {
        id(t): _Placeholder.of(t, with_data=id(t) not in ids) for t in _values_in(model, _is_plain)
    }
    return copy.deepcopy(model, memo)


def _is_plain(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized


def _is_placeholder(value: object) -> bool:
    return isinstance(value, _Placeholder)


def _values_in(model: nn.Module, wanted: Callable[[object], bool]) -> Iterator[Any]:
    """Find wanted values that a model's modules hold, directly or in collections."""
    for module in model.modules():
        yield from _inside(vars(module), wanted)


def _inside(value: object, wanted: Callable[[object], bool]) -> Iterator[Any]:
    if wanted(value):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _inside(part, wanted)
    elif isinstance(value, list | tuple | set | frozenset):
        for part in value:
            yield from _inside(part, wanted)
