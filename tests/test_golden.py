"""Recorded models: what is rebuilt inside must give the same bits.

The network's weights, images and gradients are multiples of powers of two, and its softmax is 0,
1/2 or 1 exactly, so that no order of summation and no instruction set changes a bit: its digests
hold on every machine. `examples/tiny.toml` is real arithmetic: a digest per build of torch and
instruction set. A change here means another model for the same experiment: say so in the changelog.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fleetseg
from fleetseg.experiment_file import load_experiment, make_experiment

EXAMPLE = Path(__file__).parents[1] / "examples" / "tiny.toml"
SPACE = fleetseg.LabelSpace("two", ("dark", "bright"), ((0, 0, 0), (255, 255, 255)), ("bright",))
SIZE, BATCH = 16, 2
# A pixel moves a weight by 2^-10; means of two and server momentum halve that, six times at most.
SCALE = 2.0**24  # of the logits, which are then equal or far enough apart


class Integers(nn.Module):
    """Says of each pixel, from which of its colours are above the mean, whether it is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 2, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        if self.training:
            self.seen += len(images_NCHW)
        logits: Tensor = SCALE * self.head((images_NCHW > 0).float())
        return logits


def drive(seed: int, frames: int) -> list[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.Generator(np.random.Philox(seed))
    images = generator.integers(0, 256, (frames, SIZE, SIZE, 3), dtype=np.uint8)
    wrong = generator.random((frames, SIZE, SIZE)) < 0.25
    return [
        (image, ((image[..., 0] > 127) ^ off).astype(np.uint8))
        for image, off in zip(images, wrong, strict=True)
    ]


def toy(**sections: dict[str, object]) -> fleetseg.Experiment:
    training = {
        **{
            "optimiser": "sgd",
            "lr": BATCH * SIZE * SIZE / 512 / SCALE,
            "momentum": 0.0,
            "weight_decay": 0.0,
        },
        **{"schedule": "constant", "batch_size": BATCH, "scale": [1.0, 1.0], "colour_jitter": 0.0},
    }
    return make_experiment(
        {
            "data": {"size": [SIZE, SIZE]},
            "training": {**training, **sections.get("training", {})},
            "federation": {"rounds": 3, "cohort": 2, **sections.get("federation", {})},
            "engine": {"kind": "inprocess", "precision": "fp32", **sections.get("engine", {})},
        }
    )


CLIENTS = {name: drive(seed, 4) for seed, name in enumerate("abc")}  # means of two equal parts
GOLDEN = {
    "plain": ({}, "111a5090f5a31c89622ad5c3b7f7b01755bf9cd358b111160b1bf6f8fbbdea3a"),
    "momentum of the server": (
        {"federation": {"server_momentum": 0.5}},
        "7e93322b3c7293d170bb1a0d6bb7381c700f520eae86cf13ca7720157d726378",
    ),
    "small messages": (
        {"federation": {"uplink": "topk(50%)+bf16"}},
        "48c7e13114726adbf97e077e0e1186383963af34bc553b62c22526f7b2bab89f",
    ),
}


@pytest.mark.parametrize("loaders", [0, 1, 3])
@pytest.mark.parametrize("kind", ["inprocess", "workers"])
@pytest.mark.parametrize("name", GOLDEN)
def test_the_integers_are_those_recorded(
    name: str, kind: str, loaders: int, tmp_path: Path
) -> None:
    sections, digest = GOLDEN[name]
    experiment = toy(**{**sections, "engine": {"kind": kind, "workers": 2, "loaders": loaders}})
    run = fleetseg.run(
        experiment,
        out=tmp_path,
        net=Integers(),
        clients=CLIENTS,
        evaluation={"a": CLIENTS["a"]},
        space=SPACE,
    )
    assert run.model_sha256 == digest


# (torch, instruction set, maker of the processor) -> digest of examples/tiny.toml, cut down, fp32.
TINY = {
    ("2.14.1", "AVX2", "AuthenticAMD"): (
        "677fbdd93fd0391864f5c03411a40c8344e7da6798cd7a7f446055402d34d758"
    ),
    ("2.14.1", "AVX512", "AuthenticAMD"): (
        "0a1560c530113cc819332e404abf07c1551313bdab54a045ec77d3a5b67c6f2f"
    ),
}


def this_machine() -> tuple[str, str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    makers = [line.rpartition(":")[2].strip() for line in lines if line.startswith("vendor_id")]
    version = torch.__version__.partition("+")[0]
    return version, torch.backends.cpu.get_cpu_capability(), (makers or ["unknown"])[0]


@pytest.mark.parametrize("loaders", [0, 3])
def test_the_tiny_example_is_the_one_recorded(loaders: int, tmp_path: Path) -> None:
    if (machine := this_machine()) not in TINY:
        pytest.skip(f"no digest recorded for torch {', '.join(machine)}")
    overrides = ["federation.rounds=3", "training.local_epochs=1", "engine.precision=fp32"]
    overrides += [f"engine.loaders={loaders}", f"data.cache={tmp_path / 'cache'}"]
    experiment = load_experiment(EXAMPLE, overrides)
    run = fleetseg.run(experiment, out=tmp_path / "run")
    assert run.model_sha256 == TINY[machine]
