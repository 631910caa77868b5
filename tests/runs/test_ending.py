"""The end of a run whose network has a second head: it was trained, and nobody has to know it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.experiments import tiny_experiment
from torch import nn

import fleetseg
from fleetseg import rng
from fleetseg.federation.checkpoint import list_checkpoints
from fleetseg.models.build import wrap

PAINTED = {"cities": ["coral"], "conditions": ["rain"], "frames_per_drive": 2}
CLUSTERS = {"clustered_by": "styles", "cluster_models": {"count": 2, "tensors": "head"}}
CHOICES: dict[str, dict[str, dict[str, object]]] = {
    "shared": {},
    "of clusters": {"federation": {"rounds": 1, **CLUSTERS}},
}


def small_net() -> nn.Module:
    with rng.torch_default(0, purpose="ending-test"):
        net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 11, 1))
    return wrap(net, 11, head_prefixes=["2."])


@pytest.fixture(scope="module", params=CHOICES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> fleetseg.Run:
    folder = tmp_path_factory.mktemp("ending")
    fields: dict[str, dict[str, object]] = {
        "data": {"sources": [{"conditions": ["day"], "frames_per_drive": 2}]},
        "partition": {"unlabelled": {"share": 1.0}},
        "pretrain": {"sources": [PAINTED], "rounds": 1, "steps": 1},
        "training": {
            "batch_size": 2, "lr": 0.01, "local_steps": 1, "supervision": "discrepancy",
            "style": {"kind": "lab", "probability": 0.0},
        },
        "federation": {"rounds": 1},
        "safety": {"max_loss": 1.0, "collapse": 0.0},
    }  # fmt: skip
    described = tiny_experiment(folder / "cache", **{**fields, **CHOICES[request.param]})
    return fleetseg.run(described, net=small_net(), out=folder / "run")


def test_checkpoints_have_it_and_the_saved_model_does_not(run: fleetseg.Run) -> None:
    values = sum(p.numel() for p in small_net().parameters())
    newest, *_ = list_checkpoints(run.folder / "checkpoints")
    assert len(load_file(newest)["values"]) == values + 6 * 11 + 11
    for file in (run.folder / "model").glob("*.safetensors"):
        assert not [key for key in load_file(file) if "second" in key]
    config = json.loads((run.folder / "model" / "config.json").read_text())
    assert config["head_prefixes"] == ["net.2."]
    assert "untrained" not in config


def test_it_predicts_and_is_saved_again(run: fleetseg.Run, tmp_path: Path) -> None:
    model = run.model_with(small_net())
    ids = model.predict(np.zeros((48, 64, 3), np.uint8))
    assert np.asarray(ids).shape == (48, 64)
    model.save_pretrained(tmp_path / "again")
    again = fleetseg.load_model(tmp_path / "again", small_net())
    shown = torch.rand(1, 3, 48, 64, generator=rng.torch_generator(0))
    assert torch.equal(again(shown), model(shown))
