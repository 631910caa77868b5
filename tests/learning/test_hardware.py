"""Devices, number formats and thread counts."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from fleetseg.config import EngineConfig
from fleetseg.errors import ConfigError
from fleetseg.learning import hardware as module
from fleetseg.learning.hardware import (
    Hardware,
    cpu_has_bf16,
    hardware_of,
    num_gpus,
    own_gpu,
    resolve,
    threads,
)


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


def pretend_cuda(monkeypatch: pytest.MonkeyPatch, *capabilities: tuple[int, int]) -> None:
    """GPUs of these compute capabilities, on which torch emulates what they do not have."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capabilities[index])
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)


@pytest.mark.parametrize(
    ("capability", "precision"),
    [
        ((6, 1), "fp16"),  # Pascal
        ((7, 0), "fp16"),  # Volta
        ((7, 5), "fp16"),  # Turing
        ((8, 0), "bf16"),  # Ampere
        ((8, 9), "bf16"),  # Ada
        ((9, 0), "bf16"),  # Hopper
        ((12, 0), "bf16"),  # Blackwell
    ],
)
def test_bf16_is_for_gpus_that_have_it(
    capability: tuple[int, int], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_cuda(monkeypatch, capability)
    assert resolve("auto", "auto") == Hardware(torch.device("cuda", 0), precision)
    assert resolve("cuda", "bf16").precision == "bf16"  # who asks for it gets it


def test_all_workers_compute_in_one_format(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cuda(monkeypatch, (8, 6), (7, 5))
    assert {resolve("cuda", "auto", worker).precision for worker in range(4)} == {"fp16"}


def test_workers_share_out_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cuda(monkeypatch, *[(8, 0)] * 3)
    devices = [resolve("cuda", "auto", worker).device.index for worker in range(5)]
    assert devices == [0, 1, 2, 0, 1]
    assert num_gpus("cuda") == 3


def test_a_site_of_a_fleet_sees_the_gpu_that_is_its_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    pretend_cuda(monkeypatch, (8, 0))
    assert own_gpu(3) == {}
    pretend_cuda(monkeypatch, (8, 0), (8, 0))
    assert [own_gpu(site)["CUDA_VISIBLE_DEVICES"] for site in range(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8f, 5")
    assert [own_gpu(site)["CUDA_VISIBLE_DEVICES"] for site in range(3)] == ["GPU-8f", "5", "GPU-8f"]


def test_a_gpu_is_called_by_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Card of {device}")
    assert Hardware(torch.device("cuda", 1), "fp32").name == "cuda:1 (Card of cuda:1)"
    assert Hardware(torch.device("cpu"), "fp32").name == "cpu"


def pretend_mps(monkeypatch: pytest.MonkeyPatch, macos: int) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    newer = lambda major, minor: (major, minor) <= (macos, 0)  # noqa: E731
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", newer)


def test_mps_is_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_mps(monkeypatch, 14)
    assert resolve("mps", "auto") == Hardware(torch.device("mps"), "fp32")
    assert resolve("mps", "bf16", worker=3).device == torch.device("mps")
    assert num_gpus("mps") == 1
    assert num_gpus("cpu") == 0


def test_bf16_on_an_old_mac_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_mps(monkeypatch, 13)
    with pytest.raises(ConfigError, match=r"needs macOS 14 or newer\. Use 'fp16'"):
        resolve("mps", "bf16")


def test_channels_last_but_on_mps() -> None:
    formats = {kind: Hardware(torch.device(kind), "fp32").memory_format for kind in ("cpu", "mps")}
    assert formats == {"cpu": torch.channels_last, "mps": torch.contiguous_format}


def settings() -> tuple[object, ...]:
    """All that `exact` may change."""
    cudnn = torch.backends.cudnn
    return (
        cudnn.enabled,
        cudnn.deterministic,
        cudnn.benchmark,
        cudnn.allow_tf32,
        torch.get_deterministic_debug_mode(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", False), ("bf16", True)])
def test_cuda_adds_in_a_fixed_order_and_fp32_is_fp32(precision: str, tf32: bool) -> None:
    before = settings()
    hardware = Hardware(torch.device("cuda", 0), precision)  # type: ignore[arg-type]

    def fail_inside() -> None:
        with hardware.exact():
            assert settings() == (True, True, False, tf32, 1, False)
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert settings() == before


def test_a_stricter_choice_of_the_caller_s_stays() -> None:
    before = torch.get_deterministic_debug_mode()
    try:
        torch.set_deterministic_debug_mode("error")
        with Hardware(torch.device("cuda", 0), "fp32").exact():
            assert torch.get_deterministic_debug_mode() == 2
        assert torch.get_deterministic_debug_mode() == 2
    finally:
        torch.set_deterministic_debug_mode(before)


def test_a_cpu_needs_nothing() -> None:
    before = settings()
    with Hardware(torch.device("cpu"), "fp32").exact():
        assert settings() == before


def test_inference_is_in_the_format_of_training() -> None:
    with Hardware(torch.device("cpu"), "bf16").inference():
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(("device", "processes"), [("mps", 1), ("cuda", 2), ("cpu", 8)])
def test_one_process_for_each_gpu(
    device: str, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fleetseg.experiment_file import make_experiment
    from fleetseg.runs.concurrency import concurrency, num_workers

    pretend_mps(monkeypatch, 14)
    pretend_cuda(monkeypatch, (8, 0), (8, 0))
    for name in ("cpu_count", "process_cpu_count", "sched_getaffinity"):
        of = {0, 1, 2, 3, 4, 5, 6, 7}
        monkeypatch.setattr(os, name, lambda *_, of=of: of if _ else len(of), raising=False)
    experiment = make_experiment({"engine": {"kind": "workers", "device": device}})
    hardware = resolve(device, "auto")
    assert num_workers(experiment, 20, hardware, on_disk=False) == processes
    assert concurrency(experiment, 20) == processes


@pytest.mark.parametrize(
    ("kind", "cores", "engine", "workers", "loaders"),
    [
        ("cpu", 8, {}, 1, 1),
        ("cpu", 8, {}, 8, 0),  # no core is free
        ("cpu", 8, {"threads": 4}, 2, 0),
        ("cpu", 8, {"threads": 3}, 2, 1),
        ("cpu", 1, {}, 1, 0),
        ("cpu", 1, {"loaders": 3}, 1, 3),
        ("cuda", 16, {}, 1, 2),
        ("cuda", 16, {}, 4, 2),
        ("cuda", 2, {}, 4, 1),
        ("cuda", 16, {"loaders": 0}, 1, 0),
    ],
)
def test_loaders_fit_the_cores(
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    cores: int,
    engine: dict[str, Any],
    workers: int,
    loaders: int,
) -> None:
    monkeypatch.setattr(module, "allowed_cores", lambda: cores)
    monkeypatch.setattr(module, "resolve", lambda *_: Hardware(torch.device(kind), "fp32"))
    assert hardware_of(EngineConfig(**engine), 0, workers).loaders == loaders
