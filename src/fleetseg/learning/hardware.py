"""Which device and number format local training runs in, and what is special about each device."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

from fleetseg.config import EngineConfig
from fleetseg.errors import ConfigError
from fleetseg.hosts import allowed_cores

Precision = Literal["fp32", "bf16", "fp16"]
_NATIVE_BF16 = (8, 0)  # compute capability of Ampere; torch emulates bfloat16 on older ones
_MOST_LOADERS = 2  # more wait for the interpreter, and make the training wait for it


@dataclass(frozen=True)
class Hardware:
    """A device and a number format, both resolved: what a client trains on."""

    device: torch.device
    precision: Precision
    loaders: int = 0  # threads that make batches ready; 0 = the one that trains does it itself

    @property
    def name(self) -> str:
        """The device, with the model of a GPU: other models add in another order."""
        if self.device.type != "cuda":
            return str(self.device)
        return f"{self.device} ({torch.cuda.get_device_name(self.device)})"

    @property
    def autocast(self) -> Callable[[], AbstractContextManager[object]]:
        """A factory of autocast blocks in this format (no-ops for fp32)."""
        if self.precision == "fp32":
            return nullcontext
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return lambda: torch.autocast(self.device.type, dtype=dtype)

    @property
    def memory_format(self) -> torch.memory_format:
        """The order that this device likes: channels-last, except on MPS."""
        return torch.contiguous_format if self.device.type == "mps" else torch.channels_last

    @property
    def takes_bytes(self) -> bool:
        """Whether batches go to this device as uint8, from memory that it reads by itself."""
        return self.device.type == "cuda"

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copy a tensor of the host to the device; from pinned memory, nobody waits for it."""
        return tensor.to(self.device, non_blocking=self.takes_bytes)

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Compute on CUDA what a CPU would: in a fixed order, and fp32 in fp32.

        By default CUDA adds some gradients in the order in which its threads come (no two runs
        have the same bits) and convolves float32 in TF32, with three digits. Nothing needs to be
        done on other devices. What torch can only do in any order is done so, without a word.
        """
        if self.device.type != "cuda":
            yield
            return
        with ExitStack() as stack:
            tf32 = self.precision != "fp32"
            cudnn = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=tf32)
            stack.enter_context(cudnn)
            stack.enter_context(_fixed_order())
            yield

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Make the context of a forward pass that is to be scored."""
        with self.exact(), self.autocast():
            yield

    def select(self) -> None:
        """Make this process's device its current one, so that nothing of it lands on another."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)


@contextmanager
def _fixed_order() -> Iterator[None]:
    """Prefer torch's deterministic algorithms; whoever has set something stricter keeps it."""
    filling: Any = torch.utils.deterministic  # a module with a property, which mypy does not know
    mode = torch.get_deterministic_debug_mode()
    fills = filling.fill_uninitialized_memory
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*determinis")
        try:
            if mode == 0:
                torch.set_deterministic_debug_mode("warn")
                filling.fill_uninitialized_memory = False  # costs time, and changes nothing
            yield
        finally:
            torch.set_deterministic_debug_mode(mode)
            filling.fill_uninitialized_memory = fills


def resolve(device: str, precision: str, worker: int = 0) -> Hardware:
    """Turn "auto" into what this machine has; worker i of several takes GPU i modulo their number.

    The number format is the same for all workers, whichever GPU each has.

    Raises:
        ConfigError: for a device or format that this machine does not have.
    """
    kind = _auto_device() if device == "auto" else device
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError("engine.device = 'cuda' but no CUDA device is visible", cure="Use 'cpu'.")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("engine.device = 'mps' but this machine has none", cure="Use 'cpu'.")
    index = worker % torch.cuda.device_count() if kind == "cuda" else None
    chosen = torch.device(kind) if index is None else torch.device(kind, index)
    format_ = _auto_precision(kind) if precision == "auto" else precision
    if format_ == "fp16" and kind == "cpu":
        raise ConfigError("engine.precision = 'fp16' needs a GPU", cure="Use 'bf16' or 'fp32'.")
    if format_ == "bf16" and kind == "mps" and not torch.backends.mps.is_macos_or_newer(14, 0):
        raise ConfigError(
            "engine.precision = 'bf16' needs macOS 14 or newer", cure="Use 'fp16' or 'fp32'."
        )
    return Hardware(chosen, format_)  # type: ignore[arg-type]


def hardware_of(engine: EngineConfig, worker: int = 0, workers: int = 1) -> Hardware:
    """Turn [engine] into what worker i of several on this machine trains with.

    Raises:
        ConfigError: for a device or format that this machine does not have.
    """
    hardware = resolve(engine.device, engine.precision, worker)
    loaders = engine.loaders
    if loaders == "auto":
        loaders = _auto_loaders(hardware.device.type, allowed_cores() // workers, engine.threads)
    return replace(hardware, loaders=loaders)


def _auto_loaders(kind: str, cores: int, threads: int) -> int:
    """Choose how many threads load beside the `threads` that train, on so many cores.

    A GPU waits for whoever feeds it. On a CPU loading is a small part of a step, so that one thread
    keeps up, and without a core of its own it would only take turns with the training.
    """
    if kind == "cpu":
        return 1 if cores > threads else 0
    return min(_MOST_LOADERS, max(1, cores - 1))


def num_gpus(kind: str) -> int:
    """How many GPUs of a kind this process sees; training on one is not faster in two processes."""
    if kind == "cuda":
        return torch.cuda.device_count()
    return 1 if kind == "mps" else 0


def own_gpu(worker: int) -> dict[str, str]:
    """Make the environment of a new process that is to see its share of several GPUs only."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count < 2:
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = visible.split(",") if visible else [str(index) for index in range(count)]
    return {"CUDA_VISIBLE_DEVICES": names[worker % count].strip()}


def _auto_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _auto_precision(kind: str) -> str:
    if kind == "cuda":
        return "bf16" if cuda_has_bf16() else "fp16"
    return "bf16" if kind == "cpu" and cpu_has_bf16() else "fp32"


def cuda_has_bf16() -> bool:
    """Say whether every visible GPU multiplies bfloat16 in hardware.

    `torch.cuda.is_bf16_supported()` is true for Volta and Turing as well, which emulate it: slower
    than float32, where float16 would run on their tensor cores. All GPUs are asked, because the
    result must not depend on which of them a client comes to.
    """
    devices = range(torch.cuda.device_count())
    return all(torch.cuda.get_device_capability(index) >= _NATIVE_BF16 for index in devices)


@cache  # it takes a millisecond to ask, and a model that predicts asks for each image
def cpu_has_bf16() -> bool:
    """Say whether the CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX).

    Without it, oneDNN emulates bfloat16 and autocast is slower than float32.
    """
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    words = set(flags[: 1 << 16].split())
    return bool(words & {"avx512_bf16", "amx_bf16"})


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Use `count` threads for tensor work inside the block (sums depend on it bit by bit)."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
