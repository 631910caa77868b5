"""Choices of all tables, drawn at random and together: refused with a reason, or they train."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.experiments import tiny_experiment
from torch import nn

import fleetseg
from fleetseg import rng
from fleetseg.errors import ConfigError, ModelError
from fleetseg.evaluation.norms import NORM_STATISTICS
from fleetseg.federation.aggregators import AGGREGATORS
from fleetseg.federation.cohort import SAMPLERS
from fleetseg.federation.personal import PERSONAL
from fleetseg.federation.publishing import PUBLISHING
from fleetseg.federation.server_optim import SERVER_OPTIMISERS
from fleetseg.federation.sharing import SHARING
from fleetseg.federation.statistics import STATISTICS
from fleetseg.federation.weights import WEIGHTS
from fleetseg.learning.calibration import CALIBRATIONS
from fleetseg.learning.objectives import OBJECTIVES
from fleetseg.learning.supervision import SUPERVISION
from fleetseg.methods import laid_under
from fleetseg.models.build import wrap
from fleetseg.runs.choices import check_choices

Fields = dict[str, Any]
SEED, CASES = 0, 24
LUCKY = 7  # of experiments: by it, three in ten of four vehicles are none, one, and none again
CODECS = ["int8", "topk(20%)+int8", "powersgd(2)+fp16"]
UNIFORM, DRIFT = {"weights": "uniform"}, {"weights": "uniform", "server_optimiser": "drift"}
NEEDED: dict[str, Fields] = {
    "scaffold": {"federation": UNIFORM},
    "dyn": {"federation": DRIFT},
    "drift": {"federation": DRIFT},
    "mimelite": {"training": {"momentum": 0.0}},
    "stages": {"federation": {"stages": ["0", "1"]}},
    "label subset": {"partition": {"label_subset": {"classes": 3}}},
    "pixel contrast": {"partition": {"label_subset": {"classes": 3}}},
}
"""What a choice is never without."""


def among(section: str, option: str, names: Iterable[str]) -> list[Fields]:
    return [laid_under(NEEDED.get(name, {}), {section: {option: name}}) for name in names]


CHOICES: dict[str, list[Fields]] = {
    "objective": among("training", "objective", OBJECTIVES),
    "supervision": among("training", "supervision", SUPERVISION),
    "calibration": among("training", "calibration", CALIBRATIONS),
    "sharing": among("federation", "sharing", SHARING),
    "aggregator": among("federation", "aggregator", AGGREGATORS),
    "server optimiser": among("federation", "server_optimiser", SERVER_OPTIMISERS),
    "statistics": among("federation", "statistics", STATISTICS),
    "weights": among("federation", "weights", WEIGHTS),
    "sampler": among("federation", "sampler", SAMPLERS),
    "few": [{"federation": {"sampler": "poisson", "cohort": 0.3}}],
    "publishing": among("federation", "publishing", PUBLISHING),
    "uplink": among("federation", "uplink", CODECS),
    "downlink": among("federation", "downlink", CODECS),
    "clusters": [
        {"federation": {"clustered_by": by, "cluster_models": {"count": 2, "tensors": tensors}}}
        for by in ("class mix", "image_gaussian", "loss")
        for tensors in ("all", "head", "norms")
    ],
    "personal": [
        {"personal": {"model": name, "scored": scored}}
        for name in PERSONAL
        for scored in ("end", "always")
    ],
    "norms": among("evaluation", "norms_on_clients", NORM_STATISTICS),
    "optimiser": [
        {"training": {"optimiser": "adamw"}},
        {"training": {"optimiser_state": "kept"}},
        {"training": {"optimiser": "adamw", "optimiser_state": "kept"}},
        {"training": {"nesterov": True}},
        {"training": {"head_lr_factor": 10.0}},
        {"training": {"clip_grad_norm": 1.0}},
        {"training": {"local_steps": 3}},
        {"training": {"local_steps": 1, "schedule": "cosine"}},
    ],
    "parts": [
        {"training": {"phases": [{"learns": "head", "share": 2.0}, {"learns": "body"}]}},
        {"training": {"phases": [{"learns": "head"}]}},
        {"training": {"phases": [{"learns": "body"}]}},
        {"model": {"adapter_rank": 2}},
        {"model": {"adapter_rank": 2}, "federation": {"sharing": "trained"}},
        {"model": {"norm": "group"}},
        {"training": {"freeze_bn_after": 0.5}},
    ],
    "loss": [
        {"training": {"class_weights": "fleet", "loss": "ce+dice"}},
        {"training": {"class_weights": "local"}},
        {"training": {"loss": "ce+entropy"}},
        {"training": {"loss": "ohem"}},
        {"training": {"habits": {"drop_last": True, "doubled": True, "same_order": True}}},
    ],
    "faults": [
        {"federation": {"over_selection": 1.5}},
        {"federation": {"faults": {"dropout": 0.3}, "max_failed_rounds": 9, "quorum": 0.0}},
        {"federation": {"max_update_norm": 5.0}},
    ],
}
BASE: Fields = {
    "data": {
        "sources": [
            {"conditions": ["day", "night"], "cities": ["amber"], "frames_per_drive": 4},
            {"conditions": ["day", "night"], "cities": ["birch"], "frames_per_drive": 7},
        ],
        "evaluation": [],
    },
    "partition": {"holdout": 0.3, "holdout_gap": 0},
    "training": {"batch_size": 2, "lr": 0.01},
    "federation": {"rounds": 3, "cohort": 2},
    "evaluation": {"every": 1},
}


def drawn(seed: int, number: int) -> Fields:
    """Two to four choices, of different kinds."""
    generator = rng.generator(seed, number, purpose="pairs")
    kinds = generator.choice(list(CHOICES), size=generator.integers(2, 6), replace=False)
    fields: Fields = {}
    for kind in kinds:
        options = CHOICES[kind]
        fields = laid_under(fields, options[generator.integers(len(options))])
    return fields


def small_net() -> nn.Module:
    """Draws by dropout, and keeps statistics in its body and in its head."""
    with rng.torch_default(0, purpose="pairs-test"):
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv2d(6, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 11, 1),
        )
    return wrap(net, 11, head_prefixes=["4.", "5.", "6."])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def outcome(fields: Fields, cache: Path, out: Path) -> str:
    """Say what became of it: why it was refused, before any round, or the digest of its model."""
    try:
        described = tiny_experiment(cache, **laid_under(BASE, fields))
        described = described.model_copy(update={"seed": LUCKY})
        check_choices(described)
        run = fleetseg.run(described, net=small_net(), out=out)
    except (ConfigError, ModelError) as refused:
        assert not (out / "rounds.jsonl").exists()
        return f"refused: {refused}"
    values = run.model_with(small_net()).state_dict().values()
    assert all(bool(torch.isfinite(value).all()) for value in values)
    assert len(run.records) == 3
    failures = [failure for record in run.records for failure in record.failures]
    odd = [failure for failure in failures if failure.kind in ("refused", "abstained")]
    assert described.federation.max_update_norm or not odd, odd
    return run.model_sha256


@pytest.mark.parametrize("number", range(CASES))
def test_they_train_or_are_refused(number: int, cache: Path, tmp_path: Path) -> None:
    """Any other exception, or an update of an honest client that is refused, is a defect."""
    outcome(drawn(SEED, number), cache, tmp_path / "run")


CONTRAST: Fields = {
    "training": {"supervision": "pixel contrast", "pixel_contrast": {"anchors": 20}},
    "partition": {"label_subset": {"classes": 3}},
}
EMPTY_ROUNDS: Fields = {"federation": {"sampler": "poisson", "cohort": 0.3}}
HEADS: Fields = {"federation": {"sharing": "body"}, "personal": {"model": "ditto"}}
TOGETHER: dict[str, tuple[Fields, Fields]] = {
    "normalised, in rounds of nobody": (EMPTY_ROUNDS, {"federation": {"aggregator": "normalised"}}),
    "q-fedavg, in rounds of nobody": (EMPTY_ROUNDS, {"federation": {"aggregator": "q-fedavg"}}),
    "estimates and changes, in rounds of nobody": (
        EMPTY_ROUNDS,
        {"federation": {"downlink": "int8", "statistics": "estimated", "publishing": "swa"}},
    ),
    "dice, where classes are masked out": (
        {"training": {"loss": "ce+dice+lovasz", "class_weights": "fleet", "optimiser": "adamw"}},
        {"training": {"calibration": "logit adjustment"}},
    ),
    "anchors that are drawn, in two passes": (CONTRAST, {"training": {"objective": "asam"}}),
    "features for two contrasts": (CONTRAST, {"training": {"objective": "moon"}}),
    "momentum of a mean of changes, coded": (
        {"training": {"objective": "mimelite", "momentum": 0.0, "clip_grad_norm": 1.0}},
        {"federation": {"uplink": "int8", "aggregator": "q-fedavg"}},
    ),
    "momentum that is told, normalised": (
        {"training": {"objective": "client momentum"}},
        {"federation": {"aggregator": "normalised", "uplink": "int8", "weights": "feddg-ga"}},
    ),
    "drift, from a model that lags": (
        NEEDED["dyn"],
        {"training": {"objective": "dyn"}, "federation": {"downlink": "int8", "cohort": 3}},
    ),
    "a queue of models that are extrapolated": (
        {"federation": {"server_optimiser": "queue", "aggregator": "extrapolated"}},
        {"federation": {"publishing": "last two", "statistics": "mean", "uplink": "int8"}},
    ),
    "own models with own heads, coded both ways": (
        HEADS,
        {"federation": {"uplink": "topk(10%)+int8", "downlink": "int8"}},
    ),
    "own models with own heads, and moments": (
        HEADS,
        {"training": {"optimiser": "adamw", "optimiser_state": "kept", "objective": "fedspeed"}},
    ),
    "adapters, pulled": (
        {"model": {"adapter_rank": 2}, "federation": {"sharing": "trained"}},
        {"training": {"objective": "prox", "weight_decay": 0.1, "head_lr_factor": 10.0}},
    ),
    "statistics at home, adapted": (
        {"federation": {"sharing": "silobn", "statistics": "pooled", "publishing": "ema"}},
        {"evaluation": {"norms_on_clients": "adapted"}, "personal": {"model": "own"}},
    ),
    "clusters by loss, with own models": (
        {"federation": {"clustered_by": "loss", "cluster_models": {"count": 2}, "uplink": "int8"}},
        {
            "federation": {"statistics": "pooled", "server_optimiser": "adam"},
            "personal": {"model": "ditto", "scored": "always"},
        },
    ),
    "clusters' norm layers, in rounds of nobody": (
        EMPTY_ROUNDS,
        {
            "federation": {
                "clustered_by": "image_gaussian",
                "uplink": "topk(10%)+int8",
                "publishing": "ema",
                "cluster_models": {"tensors": "norms"},
            }
        },
    ),
    "clusters' bodies under heads of the clients' own": (
        HEADS,
        {
            "federation": {
                "clustered_by": "class mix",
                "server_momentum": 0.5,
                "publishing": "swa",
                "cluster_models": {"tensors": "norms", "count": 2},
            }
        },
    ),
    "one short batch a round": (
        {"training": {"habits": {"drop_last": True, "same_order": True}, "batch_size": 8}},
        {"model": {"norm": "group"}, "training": {"objective": "scaffold"}, "federation": UNIFORM},
    ),
}
"""Choices whose parts meet: in one step, in one vector, in one client's state."""


@pytest.mark.parametrize("name", TOGETHER)
def test_what_meets_goes_together(name: str, cache: Path, tmp_path: Path) -> None:
    fields = laid_under(*TOGETHER[name])
    once, twice = (outcome(fields, cache, tmp_path / run) for run in ("once", "twice"))
    assert once == twice
    assert not once.startswith("refused")
    if "nobody" in name:
        asked = [len(record.cohort) for record in fleetseg.read_run(tmp_path / "once").rounds]
        assert asked == [0, 1, 0]
