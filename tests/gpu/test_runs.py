"""Whole runs on a GPU: resuming, workers, memory, and scores that are those of a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.gpu.networks import CLASSES, Greedy, NearestColour, Plain, seeded

import fleetseg
from fleetseg import rng
from fleetseg.config import Experiment
from fleetseg.evaluation.predict import evaluate_pairs
from fleetseg.experiment_file import make_experiment
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.rounds import Watcher
from fleetseg.learning.hardware import resolve
from fleetseg.models.build import build_model

DEVICE = "cuda"
Pairs = list[tuple[np.ndarray, np.ndarray]]
KEPT = {"optimiser": "adamw", "lr": 1e-3, "optimiser_state": "kept"}


def experiment(cache: Path, **sections: dict[str, Any]) -> Experiment:
    fields: dict[str, dict[str, Any]] = {
        "data": {
            "size": [64, 96],
            "cache": str(cache),
            "sources": [{"conditions": ["day"], "frames_per_drive": 3}],
            "evaluation": [{"conditions": ["day"], "frames_per_drive": 1, "split": "val"}],
        },
        "training": {"batch_size": 2, "lr": 0.01},
        "federation": {"rounds": 4},
        "engine": {"kind": "inprocess", "device": DEVICE},
    }
    for name, section in sections.items():
        fields[name] = {**fields.get(name, {}), **section}
    return make_experiment(fields)


def engine(precision: str, kind: str = "inprocess", workers: int = 0) -> dict[str, Any]:
    return {"kind": kind, "device": DEVICE, "precision": precision, "workers": workers}


@pytest.mark.parametrize("precision", ["auto", "fp32", "fp16"])
def test_a_resumed_run_ends_with_the_same_bits(precision: str, cache: Path, tmp_path: Path) -> None:
    described = experiment(cache, training=KEPT, engine=engine(precision))
    whole = fleetseg.run(described, out=tmp_path / "whole")
    assert [len(record.failures) for record in whole.records] == [0] * 4

    def stop_after_two(record: RoundRecord) -> None:
        if record.round == 2:
            raise KeyboardInterrupt

    stopped = fleetseg.run(
        described, out=tmp_path / "parted", watcher=Watcher(round_closed=stop_after_two)
    )
    assert stopped.reason == "interrupted"
    resumed = fleetseg.run(described, out=tmp_path / "parted", resume=True)
    assert resumed.model_sha256 == whole.model_sha256
    assert resumed.scores.to_dict() == whole.scores.to_dict()


def test_workers_on_one_gpu_give_the_model_of_one_process(cache: Path, tmp_path: Path) -> None:
    alone = fleetseg.run(experiment(cache), out=tmp_path / "alone")
    sections = {"engine": engine("auto", "workers", 2)}
    shared = fleetseg.run(experiment(cache, **sections), out=tmp_path / "shared")
    assert shared.model_sha256 == alone.model_sha256


def test_a_network_of_one_s_own_goes_to_workers(tmp_path: Path) -> None:
    """Its tensors lie on the GPU in this process, and must not be handed over from there."""
    models = []
    for kind in ("inprocess", "workers"):
        run = fleetseg.run(
            without_disk(engine("fp32", kind, 2)),
            clients={name: small_labels(blocks(seed)) for seed, name in enumerate("ab")},
            net=seeded(Plain, 0.3),
            out=tmp_path / kind,
        )
        assert all(not record.failures for record in run.records)
        models.append(run.model_sha256)
    assert models[0] == models[1]


def test_a_saved_model_is_the_same_on_a_cpu(cache: Path, tmp_path: Path) -> None:
    run = fleetseg.run(experiment(cache, engine=engine("fp32")), out=tmp_path / "run")
    model = run.model()
    images_NCHW = torch.rand(1, 3, 64, 96, generator=rng.torch_generator(0))
    with torch.inference_mode(), resolve(DEVICE, "fp32").exact():
        on_cpu = model(images_NCHW)
        on_gpu = model.to(DEVICE)(images_NCHW.to(DEVICE)).cpu()
    torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-3, atol=1e-3)


# Scores


def blocks(seed: int, count: int = 4, size_hw: tuple[int, int] = (64, 96)) -> Pairs:
    """Pictures in blocks of the class colours; labels twice as large, a few of them wrong."""
    generator = rng.generator(seed, purpose="gpu-blocks")
    height, width = size_hw
    made = []
    for _ in range(count):
        classes = generator.integers(0, CLASSES, (height // 8, width // 8))
        image = COLOURS_C3[classes].repeat(8, axis=0).repeat(8, axis=1)
        wrong = np.where(generator.random(classes.shape) < 0.2, (classes + 1) % CLASSES, classes)
        label = wrong.repeat(16, axis=0).repeat(16, axis=1).astype(np.uint8)
        label[:5] = 255
        made.append((image, label))
    return made


COLOURS_C3 = rng.generator(0, purpose="gpu-colours").integers(0, 256, (CLASSES, 3), np.uint8)


def confusion(model: torch.nn.Module, pairs: Pairs, device: str, batch_size: int = 4) -> np.ndarray:
    hardware = resolve(device, "fp32")
    return evaluate_pairs(
        model.to(hardware.device),
        pairs,
        num_classes=CLASSES,
        batch_size=batch_size,
        device=hardware.device,
        context=hardware.inference,
    )


def reader() -> torch.nn.Module:
    return NearestColour(torch.from_numpy(COLOURS_C3.copy()).float() / 255)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_confusion_matrices_are_those_of_a_cpu(batch_size: int) -> None:
    pairs = blocks(0, count=7)
    theirs = confusion(reader(), pairs, "cpu")
    assert np.array_equal(confusion(reader(), pairs, DEVICE, batch_size), theirs)
    assert 0 < np.trace(theirs) < theirs.sum()


def test_a_real_network_scores_as_on_a_cpu() -> None:
    """All but the pixels between two classes whose logits rounding can swap."""
    pairs, model = blocks(0), build_model("fast_scnn", CLASSES, seed=0)
    theirs, ours = (confusion(model, pairs, device) for device in ("cpu", DEVICE))
    assert ours.sum() == theirs.sum()
    assert np.abs(ours - theirs).sum() <= 0.002 * theirs.sum()


def test_fp32_is_not_tf32() -> None:
    generator = rng.torch_generator(0, purpose="gpu-tf32")
    images_NCHW = torch.randn(2, 64, 32, 32, generator=generator)
    conv = torch.nn.Conv2d(64, 64, 3, bias=False)
    exact = conv.double()(images_NCHW.double()).detach()
    conv = conv.float().to(DEVICE)
    with torch.inference_mode(), resolve(DEVICE, "fp32").exact():
        ours = conv(images_NCHW.to(DEVICE)).cpu().double()
    assert float((ours - exact).norm() / exact.norm()) < 5e-5  # TF32: some 3e-4


# Memory


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Leave this process some 700 MB of the GPU."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 700e6 / total), 0)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0, 0)
    torch.cuda.empty_cache()


def without_disk(engine_: dict[str, Any], **training: Any) -> Experiment:
    return make_experiment(
        {
            "data": {"size": [64, 96]},
            "training": {"batch_size": 2, "scale": [1, 1], **training},
            "federation": {"rounds": 2},
            "engine": engine_,
            "evaluation": {"every": 0},
        }
    )


def small_labels(pairs: Pairs) -> Pairs:
    """Labels at the pictures' own size, as training wants them."""
    return [(image, label[::2, ::2].copy()) for image, label in pairs]


@pytest.mark.parametrize("kind", ["inprocess", "workers"])
def test_one_client_s_lack_of_memory_is_its_own(kind: str, tmp_path: Path) -> None:
    flat = [(np.full_like(image, 255), label) for image, label in small_labels(blocks(1))]
    clients = {"a": small_labels(blocks(0)), "b": flat, "c": small_labels(blocks(2))}
    run = fleetseg.run(
        without_disk(engine("fp32", kind, 2), colour_jitter=0.0),
        clients=clients,
        net=seeded(Greedy),
        out=tmp_path / "run",
    )
    for record in run.records:
        assert record.accepted == ("a", "c")
        assert [f.reason for f in record.failures] == ["out-of-memory"]
        assert "smaller training.batch_size" in record.failures[0].detail


@pytest.mark.usefixtures("little_memory")
def test_a_client_s_memory_is_there_for_the_next_one(tmp_path: Path) -> None:
    """A batch too large for this process's share, and then clients whose batches fit."""
    clients = {
        "a-large": small_labels(blocks(1, count=16)),
        "b": small_labels(blocks(0, count=2)),
        "c": small_labels(blocks(2, count=2)),
    }
    described = without_disk(engine("fp32"), batch_size=16, crop=[384, 384])
    run = fleetseg.run(described, clients=clients, net=seeded(Plain, 0.0, 64), out=tmp_path / "run")
    for record in run.records:
        assert [(f.client_id, f.reason) for f in record.failures] == [("a-large", "out-of-memory")]


@pytest.mark.usefixtures("little_memory")
def test_a_batch_too_large_to_be_scored_is_scored_in_parts() -> None:
    pairs = blocks(0, count=16, size_hw=(512, 768))
    ours = confusion(reader(), pairs, DEVICE, batch_size=16)
    assert np.array_equal(ours, confusion(reader(), pairs, "cpu"))
