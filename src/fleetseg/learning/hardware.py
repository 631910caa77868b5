"""Which device and number format local training runs in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from fleetseg.errors import ConfigError

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Hardware:
    """A device and a number format, both resolved: what a client trains on."""

    device: torch.device
    precision: Precision

    @property
    def autocast(self) -> Callable[[], AbstractContextManager[object]]:
        """A factory of autocast blocks in this format (no-ops for fp32)."""
        if self.precision == "fp32":
            return nullcontext
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return lambda: torch.autocast(self.device.type, dtype=dtype)

    def grad_scaler(self) -> torch.amp.GradScaler:
        """Loss scaling for fp16 gradients; a pass-through otherwise."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")


def resolve(device: str, precision: str, worker: int = 0) -> Hardware:
    """Turn "auto" into what this machine has; worker i of several takes GPU i modulo their number.

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
    return Hardware(chosen, format_)  # type: ignore[arg-type]


def _auto_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _auto_precision(kind: str) -> str:
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "bf16" if kind == "cpu" and cpu_has_bf16() else "fp32"


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
