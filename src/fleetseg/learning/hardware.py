"""The device and number format of local training, and the peculiarities of each device."""

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
_MOST_LOADERS = 2  # more would wait for the GIL, and make training wait for it


@dataclass(frozen=True)
class Hardware:
    """The resolved device and number format that a client trains with."""

    device: torch.device
    precision: Precision
    loaders: int = 0  # threads that prepare batches; 0 = the training thread does

    @property
    def name(self) -> str:
        """The device, with the model of a GPU, since models differ in the order of additions."""
        if self.device.type != "cuda":
            return str(self.device)
        return f"{self.device} ({torch.cuda.get_device_name(self.device)})"

    @property
    def autocast(self) -> Callable[[], AbstractContextManager[object]]:
        """Factory of autocast contexts in this format (no-ops for fp32)."""
        if self.precision == "fp32":
            return nullcontext
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return lambda: torch.autocast(self.device.type, dtype=dtype)

    @property
    def memory_format(self) -> torch.memory_format:
        """The preferred memory format of this device: channels-last, except on MPS."""
        return torch.contiguous_format if self.device.type == "mps" else torch.channels_last

    @property
    def takes_bytes(self) -> bool:
        """Whether batches go to this device as uint8, from pinned memory."""
        return self.device.type == "cuda"

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copy a host tensor to the device; from pinned memory, without waiting."""
        return tensor.to(self.device, non_blocking=self.takes_bytes)

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Make CUDA compute like a CPU: in a fixed order, and fp32 in full precision.

        By default CUDA adds some gradients in the order in which its threads arrive (no two runs
        have the same bits) and convolves float32 in TF32, with three digits. Other devices need
        nothing. Operations without a deterministic algorithm in torch run anyway, silently.
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
        """Context of a forward pass whose result is scored."""
        with self.exact(), self.autocast():
            yield

    def select(self) -> None:
        """Make this the process's current device, so that nothing is allocated on another."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)


@contextmanager
def _fixed_order() -> Iterator[None]:
    """Prefer torch's deterministic algorithms; a stricter setting of the caller is kept."""
    filling: Any = torch.utils.deterministic  # a module with a property, unknown to mypy
    mode = torch.get_deterministic_debug_mode()
    fills = filling.fill_uninitialized_memory
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*determinis")
        try:
            if mode == 0:
                torch.set_deterministic_debug_mode("warn")
                filling.fill_uninitialized_memory = False  # costs time and changes nothing
            yield
        finally:
            torch.set_deterministic_debug_mode(mode)
            filling.fill_uninitialized_memory = fills


def resolve(device: str, precision: str, worker: int = 0) -> Hardware:
    """Resolve "auto" for this machine; worker i uses GPU i modulo the number of GPUs.

    All workers get the same number format, whichever GPU each has.

    Raises:
        ConfigError: this machine lacks the device or does not support the format.
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
    """Resolve [engine] for worker i of several on this machine.

    Raises:
        ConfigError: this machine lacks the device or does not support the format.
    """
    hardware = resolve(engine.device, engine.precision, worker)
    loaders = engine.loaders
    if loaders == "auto":
        loaders = _auto_loaders(hardware.device.type, allowed_cores() // workers, engine.threads)
    return replace(hardware, loaders=loaders)


def _auto_loaders(kind: str, cores: int, threads: int) -> int:
    """Choose the number of loading threads on `cores` cores, besides `threads` training threads.

    A GPU waits for its input. On a CPU, loading is a small part of a step, so one thread keeps up;
    without a core of its own it would only take turns with training.
    """
    if kind == "cpu":
        return 1 if cores > threads else 0
    return min(_MOST_LOADERS, max(1, cores - 1))


def num_gpus(kind: str) -> int:
    """Return the number of visible GPUs; one GPU does not train faster with two processes."""
    if kind == "cuda":
        return torch.cuda.device_count()
    return 1 if kind == "mps" else 0


def own_gpu(worker: int) -> dict[str, str]:
    """Return the environment in which a worker sees only its own GPU, if there are several."""
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
    """Return whether every visible GPU multiplies bfloat16 in hardware.

    `torch.cuda.is_bf16_supported()` is also true for Volta and Turing, which emulate bfloat16:
    slower than float32, whereas float16 runs on their tensor cores. All GPUs are checked, because
    the result must not depend on which GPU a client is assigned to.
    """
    devices = range(torch.cuda.device_count())
    return all(torch.cuda.get_device_capability(index) >= _NATIVE_BF16 for index in devices)


@cache  # takes a millisecond, and prediction asks for each image
def cpu_has_bf16() -> bool:
    """Return whether the CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX).

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
    """Use `count` threads for tensor work inside the block (the bits of sums depend on it)."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
