"""Scores with statistics of the test images: by hand, and against torch in training mode."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import update_bn

from fleetseg.config import EvaluationConfig
from fleetseg.data.sample import ScoredPairs
from fleetseg.errors import ConfigError, DataError
from fleetseg.evaluation.confusion import confusion
from fleetseg.evaluation.norms import (
    NORM_STATISTICS,
    Norms,
    can_score,
    require_scorable,
    score_by_domain,
)
from fleetseg.evaluation.predict import evaluate_by_domain
from fleetseg.learning.batches import batches_per_epoch
from fleetseg.rng import generator, torch_default, torch_generator

C = 4


def net() -> nn.Module:
    with torch_default(1, purpose="net"):
        made = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(),
            nn.Conv2d(6, C, 1), nn.BatchNorm2d(C), nn.Dropout(0.5),
        )  # fmt: skip
    images = torch.rand(8, 3, 12, 16, generator=torch_generator(0, 0, "", "train"))
    with torch.no_grad():
        update_bn([images], made)
        made[1].running_mean += 0.2
    return made


def scored(count: int = 7, domains: str = "aaaabbb") -> ScoredPairs:
    draw = generator(0, purpose="pairs")
    pairs = []
    for number, domain in zip(range(count), domains, strict=True):
        bright = 255 if domain == "a" else 90
        image = draw.integers(0, bright, (12, 16, 3), np.uint8)
        label = draw.integers(0, C, (24, 32) if number % 2 else (12, 16), np.uint8)
        pairs.append((image, label))
    return ScoredPairs(pairs, tuple(domains))


def scores(model: nn.Module, given: ScoredPairs, **norms: Any) -> dict[str, list[list[int]]]:
    confs = score_by_domain(model, given, Norms(**norms), num_classes=C)
    return {name: conf.tolist() for name, conf in confs.items()}


def by_torch(
    model: nn.Module, given: ScoredPairs, batch_size: int, *, updated: bool = False
) -> dict[str, Any]:
    """Normalise each batch by torch's own batch norm in training mode, without dropout.

    Or by the running statistics that `update_bn` leaves of the batch.
    """
    model = copy.deepcopy(model).train()
    model[5].eval()
    confs = {name: np.zeros((C, C), np.int64) for name in set(given.domains)}
    for domain, conf in confs.items():
        own = [given.pairs[k] for k, name in enumerate(given.domains) if name == domain]
        for part in np.array_split(np.arange(len(own)), batches_per_epoch(len(own), batch_size)):
            batch = torch.stack([torch.from_numpy(own[k][0]).permute(2, 0, 1) / 255 for k in part])
            with torch.no_grad():
                if updated:
                    update_bn([batch], model)
                logits = model.eval()(batch) if updated else model(batch)
            for k, one in zip(part, logits, strict=True):
                label = own[k][1]
                full = functional.interpolate(one[None], label.shape, mode="bilinear")
                conf += confusion(label, full.argmax(1)[0].numpy(), C)
    return {name: conf.tolist() for name, conf in confs.items()}


@pytest.mark.parametrize("batch_size", [2, 3, 4])
def test_batch_is_training_mode_without_its_effects(batch_size: int) -> None:
    model, given = net(), scored()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = scores(model, given, name="batch", batch_size=batch_size)
    assert found == by_torch(model, given, batch_size)
    assert found != scores(model, given)
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_domain_is_torch_s_update_bn_where_all_images_fit_in_a_batch() -> None:
    model, given = net(), scored()
    found = scores(model, given, name="domain", batch_size=8)
    assert found == by_torch(model, given, 8, updated=True)
    assert found != scores(model, given)


def test_domain_s_first_layer_does_not_depend_on_batches() -> None:
    model, given = net()[:4], scored()
    found = [scores(model, given, name="domain", batch_size=size) for size in (2, 3, 8)]
    assert found[0] == found[1] == found[2]
    batch = [scores(model, given, name="batch", batch_size=size) for size in (2, 3, 8)]
    assert batch[0] != batch[2]


@pytest.mark.parametrize("name", [n for n, one in NORM_STATISTICS.items() if not one.banked])
def test_no_domain_is_normalised_with_another(name: str) -> None:
    model, given = net(), scored()
    alone = {}
    for domain in "ab":
        own = [k for k, other in enumerate(given.domains) if other == domain]
        part = ScoredPairs([given.pairs[k] for k in own], (domain,) * len(own))
        alone |= scores(model, part, name=name, batch_size=3)
    assert scores(model, given, name=name, batch_size=3) == alone


def test_running_is_what_it_was() -> None:
    model, given = net(), scored()
    plain = evaluate_by_domain(model, given.pairs, given.domains, num_classes=C, batch_size=3)
    assert scores(model, given, batch_size=3) == {n: conf.tolist() for n, conf in plain.items()}


def test_adapted_by_hand() -> None:
    """N = 6 and a batch of 2: three quarters of (1, 4), a quarter of (5, 16)."""
    own, batch = ((torch.tensor([m]), torch.tensor([v])) for m, v in ((1.0, 4.0), (5.0, 16.0)))
    of_batch = NORM_STATISTICS["adapted"].of_batch
    assert of_batch is not None
    mean, var = of_batch(own, batch, 2, 6)
    assert (mean.item(), var.item()) == (2.0, 7.0)


def test_adapted_lies_between_batch_and_running() -> None:
    model, given = net(), scored()
    adapted = [
        scores(model, given, name="adapted", batch_size=3, prior_images=n) for n in (0, 8, 10**9)
    ]
    assert adapted[0] == scores(model, given, name="batch", batch_size=3)
    assert adapted[2] == scores(model, given)
    assert adapted[0] != adapted[1] != adapted[2]


@pytest.mark.parametrize("name", ["batch", "domain", "adapted"])
def test_a_layer_with_one_value_per_channel_has_no_statistics(name: str) -> None:
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, C, 1), nn.BatchNorm2d(C))
    with pytest.raises(DataError, match="one image alone"):
        scores(pooled, scored(1, "a"), name=name)
    for count in (2, 3, 5):  # of an odd number, three share a batch of two
        assert scores(pooled, scored(count, "a" * count), name=name, batch_size=2)


def test_what_is_missing_decides_what_can_be_scored() -> None:
    model = net()
    statistics = ("1.running_mean", "4.running_var", "1.num_batches_tracked")
    for name, choice in NORM_STATISTICS.items():
        assert can_score(model, (), Norms(name))
        assert can_score(model, statistics, Norms(name)) != choice.takes_own
        assert not can_score(model, (*statistics, "1.weight"), Norms(name))
    with pytest.raises(ConfigError, match=r"here: .*with running statistics.*norms = 'adapted'"):
        require_scorable(model, statistics, Norms("adapted"), where="here")
    with pytest.raises(ConfigError, match=r"1 of its tensors \(1\.weight\) stay.*holdout"):
        require_scorable(model, (*statistics, "1.weight"), Norms("domain"), where="here")


def test_what_is_recorded_tells_all_that_scores_depend_on() -> None:
    settings = EvaluationConfig(norms="adapted", norms_on_clients="domain", batch_size=4)
    assert str(Norms.on_server(settings)) == "adapted (N = 16) of batches of 4"
    assert str(Norms.on_clients(settings)) == "domain of batches of 4"
    assert str(Norms(batch_size=4)) == "running"
    adapting = {"mode": "episodic", "optimiser": "sgd", "lr": 1e-4, "steps": 3}
    settings = EvaluationConfig(norms="tent", norms_on_clients="cotta-like", tent=adapting)
    assert str(Norms.on_server(settings)) == (
        "tent (episodic, sgd, lr 0.0001, steps 3) of batches of 8"
    )
    assert str(Norms.on_clients(settings)) == (
        "cotta-like (online, adam, lr 7.5e-06, teacher momentum 0.999, confidence 0.69, "
        "scales 0.75/1/1.25, restore 0.01, seed 0) of batches of 8"
    )
