"""MOON: the term by hand, steps against an explicit computation, and what a client keeps."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.experiments import tiny_experiment
from tests.learning.objectives.quadratics import training
from torch import Tensor, nn

import fleetseg
from fleetseg import rng
from fleetseg.errors import ConfigError, ModelError
from fleetseg.experiment_file import make_experiment
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.local import LocalResult, train_locally
from fleetseg.learning.objectives import OBJECTIVES, LocalCost, Vectors
from fleetseg.learning.objectives.moon import contrast
from fleetseg.learning.parameters import Trainables
from fleetseg.learning.supervision import SUPERVISION, Supervision
from fleetseg.models.build import wrap
from fleetseg.runs.choices import check_choices

SIZE_HW, COUNT, CLASSES = (8, 8), 4, 3
FIXED = {
    "batch_size": COUNT, "schedule": "constant", "scale": (1.0, 1.0), "flip": False,
    "colour_jitter": 0.0, "weight_decay": 0.0,
}  # fmt: skip


def small_net(seed: int = 1, dropout: float = 0.0) -> nn.Module:
    with rng.torch_default(seed, purpose="moon"):
        return wrap(
            nn.Sequential(
                nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(dropout),
                nn.Conv2d(4, CLASSES, 1),
            ),
            CLASSES,
        )  # fmt: skip


def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Images with blocks of labels; the last class is in the first image alone."""
    draw = rng.generator(0, purpose="moon")
    made = []
    for number in range(COUNT):
        label_HW = np.full(SIZE_HW, 255, np.uint8)
        label_HW[:4], label_HW[4:6] = 0, 1
        label_HW[6:] = 2 if number == 0 else 255
        made.append((draw.integers(0, 256, (*SIZE_HW, 3), np.uint8), label_HW))
    return made


def own_last() -> dict[str, Tensor]:
    """Another network's values, as the client of an earlier round would have kept them."""
    network = small_net(seed=7)
    network.net[1].running_mean.uniform_(-0.2, 0.2, generator=rng.torch_generator(3))
    return {k: v for k, v in network.state_dict().items() if v.is_floating_point()}


def train(
    model: nn.Module, state: dict[str, Tensor], objective: str = "moon", **fields: Any
) -> LocalResult:
    settings = training(objective, **{**FIXED, **fields})
    cpu = Hardware(torch.device("cpu"), "fp32")
    inputs = LocalInputs(RoundContext(0, 2, 9, "car"), settings, SIZE_HW, cpu, state=state)
    return train_locally(model, pairs(), inputs)


def values(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


# The term


def test_by_hand() -> None:
    """At z_glob and across z_prev: log(1 + e^{(0 - 1) / 0.5}); the absent class counts for none."""
    z, glob = torch.tensor([[[2.0, 0.0], [0.3, 0.1]]]), torch.tensor([[[5.0, 0.0], [-1.0, 4.0]]])
    prev, present = torch.tensor([[[0.0, 0.1], [9.0, 9.0]]]), torch.tensor([[True, False]])
    assert contrast(z, glob, prev, present, 0.5).item() == pytest.approx(math.log1p(math.exp(-2)))
    assert contrast(z, glob, prev, ~present & False, 0.5).item() == 0.0


def test_it_is_cross_entropy_over_two_cosines() -> None:
    draw = rng.torch_generator(0)
    z, glob, prev = (torch.randn(3, 4, 5, generator=draw) for _ in range(3))
    cos = nn.CosineSimilarity(dim=-1)
    logits = torch.stack([cos(z, glob), cos(z, prev)], dim=-1).flatten(0, 1) / 0.2
    expected = nn.functional.cross_entropy(logits, torch.zeros(12, dtype=torch.int64))
    found = contrast(z, glob, prev, torch.ones(3, 4, dtype=torch.bool), 0.2)
    torch.testing.assert_close(found, expected)


def test_against_the_same_model_twice_it_is_log_2_and_leads_nowhere() -> None:
    draw = rng.torch_generator(0)
    z = torch.randn(2, 3, 5, generator=draw, requires_grad=True)
    glob = torch.randn(2, 3, 5, generator=draw)
    term = contrast(z, glob, glob, torch.ones(2, 3, dtype=torch.bool), 0.5)
    term.backward()
    assert term.item() == pytest.approx(math.log(2))
    assert z.grad is not None
    assert z.grad.abs().max() < 1e-7


# Steps


def test_the_first_time_is_plain_training_with_log_2_beside_the_loss() -> None:
    plain, moon = small_net(dropout=0.5), small_net(dropout=0.5)
    one = train(plain, {}, "plain", local_steps=3)
    other = train(moon, {}, local_steps=3, moon={"mu": 2.0})
    assert all(
        torch.equal(a, b) for a, b in zip(plain.parameters(), moon.parameters(), strict=True)
    )
    assert other.loss == pytest.approx(one.loss + 2 * math.log(2), rel=1e-6)


def test_without_mu_it_is_plain_bit_for_bit_statistics_and_dropout_included() -> None:
    """The frozen networks draw nothing, and move nobody's statistics."""
    plain, moon = small_net(dropout=0.5), small_net(dropout=0.5)
    train(plain, {}, "plain", local_steps=3)
    train(moon, own_last(), local_steps=3, moon={"mu": 0.0})
    expected, found = values(plain), values(moon)
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def pooled(features_NDHW: Tensor) -> dict[tuple[int, int], Tensor]:
    found = {}
    for n, (_, label_HW) in enumerate(pairs()):
        for c in range(CLASSES):
            mask = torch.from_numpy(label_HW == c)
            if mask.any():
                found[n, c] = torch.stack([plane[mask].mean() for plane in features_NDHW[n]])
    return found


def explicit_step(mu: float, tau: float, lr: float) -> dict[str, Tensor]:
    """One step of SGD, with the features of three networks written out."""
    images_NCHW = torch.stack([torch.from_numpy(i).permute(2, 0, 1) / 255 for i, _ in pairs()])
    labels_NHW = torch.stack([torch.from_numpy(label).long() for _, label in pairs()])
    net, glob, prev = small_net(), small_net(), small_net()
    prev.load_state_dict(own_last(), strict=False)
    parameters = {name: p for name, p in net.named_parameters()}
    centred_NCHW = (images_NCHW - net.mean) / net.std
    frozen = [pooled(m.eval().net[:3](centred_NCHW).detach()) for m in (glob, prev)]
    features_NDHW = net.train().net[:3](centred_NCHW)
    z = pooled(features_NDHW)
    assert len(z) == 9
    terms = []
    for key, own in z.items():
        near, far = (
            torch.dot(own, other[key]) / (own.norm() * other[key].norm()) / tau for other in frozen
        )
        terms.append(-(near.exp() / (near.exp() + far.exp())).log())
    loss = nn.functional.cross_entropy(net.net[3](features_NDHW), labels_NHW, ignore_index=255)
    (loss + mu * torch.stack(terms).mean()).backward()
    return {name: (p - lr * p.grad).detach() for name, p in parameters.items()}


def test_a_step_is_that_of_an_explicit_computation() -> None:
    model = small_net()
    train(model, own_last(), lr=0.5, local_steps=1, moon={"mu": 3.0, "tau": 0.3})
    expected = explicit_step(3.0, 0.3, 0.5)
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.detach(), expected[name], rtol=1e-4, atol=1e-6)
    plain = small_net()
    train(plain, {}, "plain", lr=0.5, local_steps=1)
    assert (plain.net[0].weight - model.net[0].weight).abs().max() > 1e-4


def test_features_come_nearer_to_the_received_model_s() -> None:
    received, apart = small_net(), {}
    for mu in (0.0, 20.0):
        model = small_net()
        train(model, own_last(), lr=0.05, local_steps=20, moon={"mu": mu})
        images_NCHW = torch.stack([torch.from_numpy(i).permute(2, 0, 1) / 255 for i, _ in pairs()])
        maps = [
            network.eval().net[:3]((images_NCHW - network.mean) / network.std).detach()
            for network in (model, received)
        ]
        cosines = [
            nn.functional.cosine_similarity(pooled(maps[0])[key], pooled(maps[1])[key], dim=0)
            for key in pooled(maps[0])
        ]
        apart[mu] = 1 - float(torch.stack(cosines).mean())
    assert apart[20.0] < apart[0.0]


# What a client keeps


def test_it_keeps_its_whole_model_and_not_what_becomes_of_it_later() -> None:
    model = small_net()
    kept = train(model, {}, local_steps=2).state
    expected = {k: v for k, v in values(model).items() if v.is_floating_point()}
    assert kept.keys() == expected.keys()
    assert "net.1.running_var" in kept
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert all(torch.equal(kept[key], expected[key]) for key in expected)


def test_everybody_is_contrasted_with_its_own_last_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long a vehicle was absent, and whoever trained in between."""
    moon, left = OBJECTIVES["moon"], dict[str, tuple[int, Tensor]]()
    absences: list[int] = []

    def begin(inputs: LocalInputs, shared: Trainables) -> Any:
        client, round_ = inputs.context.client_id, inputs.context.round
        if client in left:
            before, weight = left[client]
            absences.append(round_ - before)
            assert torch.equal(inputs.state["net.0.weight"], weight)
        return moon.begin(inputs, shared)

    def end(memo: Any, shared: Trainables, cost: LocalCost) -> tuple[Vectors, Vectors]:
        state, changes = moon.end(memo, shared, cost)
        context = memo.inputs.context
        if not memo.inputs.training.local_steps:  # else it is the trial step before round 1
            left[context.client_id] = (context.round, state["net.0.weight"].clone())
        return state, changes

    monkeypatch.setitem(OBJECTIVES, "moon", replace(moon, begin=begin, end=end))
    experiment = tiny_experiment(
        tmp_path / "cache",
        training={"objective": "moon"},
        federation={"rounds": 6, "cohort": 2},
    )
    with rng.torch_default(0):
        net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Conv2d(6, 11, 1))
    fleetseg.run(experiment, net=net, out=tmp_path / "run")
    assert max(absences) > 1, "the case this test is for did not occur"


class Pooled(nn.Module):
    """Logits are pairs of channels added up: no convolution has one for each class."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 22, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).unflatten(1, (11, 2)).sum(2)


class Remembering(nn.Module):
    """Holds on to a result, and so cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 11, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.logits = self.body(x)
        return self.logits


@pytest.mark.parametrize(
    ("net", "said"), [(Pooled(), "no features to compare"), (Remembering(), "deepcopy")]
)
def test_a_network_that_it_cannot_compare_is_refused_before_the_first_round(
    net: nn.Module, said: str, tmp_path: Path
) -> None:
    experiment = tiny_experiment(tmp_path / "cache", training={"objective": "moon"})
    with pytest.raises(ModelError, match=said):
        fleetseg.run(experiment, net=net, out=tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_vehicles_without_labels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = SUPERVISION["labels"].make
    monkeypatch.setitem(SUPERVISION, "labels", Supervision(made, needs_labels=False))
    experiment = make_experiment({"method": "moon"})
    with pytest.raises(ConfigError, match="moon compares features of the pixels of a class"):
        check_choices(experiment)


def test_the_preset_is_the_objective() -> None:
    experiment = make_experiment({"method": "moon"})
    assert experiment.training.objective == "moon"
    assert (experiment.training.moon.mu, experiment.training.moon.tau) == (1.0, 0.5)
