"""TENT: its entropy by hand, its steps against torch's, and a model left as it was."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from tests.evaluation.test_adaptation import IMAGES_NHWC, trained_mode
from tests.evaluation.test_norms import C, net, scored, scores
from torch import nn
from torch.distributions import Categorical

from fleetseg.config import TentConfig
from fleetseg.data.sample import ScoredPairs
from fleetseg.errors import ConfigError, DataError
from fleetseg.evaluation.adaptation import Passes
from fleetseg.evaluation.norms import Norms, require_scorable
from fleetseg.evaluation.predict import evaluating
from fleetseg.evaluation.tent import Tent, mean_entropy
from fleetseg.rng import torch_generator


def tent(**given: Any) -> dict[str, Any]:
    return {"name": "tent", "tent": TentConfig(**{"lr": 0.05, **given})}


def logits_of(model: nn.Module, batches: list[np.ndarray], **given: Any) -> list[torch.Tensor]:
    with evaluating(model):
        learner = Tent(Passes(model, C), TentConfig(**{"lr": 0.05, **given}))
        return [learner(images) for images in batches]


def test_entropy_by_hand() -> None:
    """Half and half is ln 2, three to one is 0.562335; the mean is over all images' pixels."""
    even, odd = [0.0, 0.0], [math.log(3), 0.0]
    logits = torch.tensor([[even, odd], [odd, odd]]).permute(0, 2, 1)[..., None]
    assert mean_entropy(logits).item() == pytest.approx((math.log(2) + 3 * 0.562335) / 4, abs=1e-6)


def test_entropy_and_its_gradient_are_torch_s() -> None:
    logits = 3 * torch.randn((2, 5, 3, 4), generator=torch_generator(0), dtype=torch.float64)
    logits.requires_grad_()
    wanted = Categorical(logits=logits.permute(0, 2, 3, 1)).entropy().mean()
    assert mean_entropy(logits).item() == pytest.approx(wanted.item())
    (found,) = torch.autograd.grad(mean_entropy(logits), logits)
    probs, logs = logits.softmax(1), logits.log_softmax(1)
    by_hand = -probs * (logs - (probs * logs).sum(1, keepdim=True)) / (2 * 3 * 4)
    torch.testing.assert_close(found, by_hand)
    assert torch.autograd.gradcheck(mean_entropy, logits)


def test_entropy_of_certainty_is_no_nan() -> None:
    logits = torch.tensor([1e4, -1e4]).view(1, 2, 1, 1).requires_grad_()
    loss = mean_entropy(logits)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("mode", ["online", "episodic", "continual"])
def test_without_a_learning_rate_it_is_batch(mode: Any) -> None:
    model, given = net(), scored()
    for size in (1, 2, 3):
        found = scores(model, given, batch_size=size, **tent(lr=0.0, steps=2, mode=mode))
        assert found == scores(model, given, name="batch", batch_size=size)
    assert scores(model, given, batch_size=3, **tent(mode=mode)) != found


@pytest.mark.parametrize("steps", [1, 3])
def test_it_is_torch_in_training_mode_with_adam_on_gains_and_biases(steps: int) -> None:
    """Step, look at the same images again, predict; then the next batch from there."""
    model, batches = net(), [IMAGES_NHWC[:2], IMAGES_NHWC[1:]]
    found = logits_of(model, batches, steps=steps)
    reference = trained_mode(model)
    learned = [*reference[1].parameters(), *reference[4].parameters()]
    optimiser = torch.optim.Adam(learned, lr=0.05)
    for images_NHWC, logits in zip(batches, found, strict=True):
        images = torch.from_numpy(images_NHWC).permute(0, 3, 1, 2).float() / 255
        for _ in range(steps):
            optimiser.zero_grad()
            Categorical(logits=reference(images).movedim(1, -1)).entropy().mean().backward()
            optimiser.step()
        torch.testing.assert_close(logits, reference(images).detach(), rtol=1e-3, atol=1e-3)


def test_only_gains_and_biases_move_and_predictions_get_surer() -> None:
    model = net()
    with evaluating(model):
        learner = Tent(Passes(model, C), TentConfig(lr=0.01))
        before = {name: value.detach().clone() for name, value in learner.values.items()}
        entropies = [mean_entropy(learner(IMAGES_NHWC)).item() for _ in range(5)]
    assert set(before) == {"1.weight", "1.bias", "4.weight", "4.bias"}
    assert all((learner.values[name] != value).any() for name, value in before.items())
    assert entropies == sorted(entropies, reverse=True)


def test_the_model_is_bit_for_bit_what_it_was() -> None:
    model = net()
    model[0].weight.requires_grad_(False)
    model[1].weight.grad = torch.ones(6)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    before = {name: value.detach().clone() for name, value in tensors.items()}
    scores(model, scored(), batch_size=3, **tent())
    after = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert all(after[name] is value for name, value in tensors.items())
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert model[1].weight.grad.tolist() == [1.0] * 6
    assert model[1].bias.grad is None
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * 7
    assert model.training


def test_online_goes_by_order_and_episodic_does_not() -> None:
    model, (one, other) = net(), (IMAGES_NHWC[:2], IMAGES_NHWC[1:])
    for mode, depends in (("online", True), ("episodic", False)):
        first, second = logits_of(model, [one, other], mode=mode)
        (alone,) = logits_of(model, [other], mode=mode)
        assert torch.equal(second, alone) != depends
        again = logits_of(model, [one, other], mode=mode)
        assert torch.equal(again[0], first)
        assert torch.equal(again[1], second)
    assert torch.equal(
        logits_of(model, [one], mode="online")[0], logits_of(model, [one], mode="episodic")[0]
    )


def test_only_continual_takes_what_it_learned_to_the_next_domain() -> None:
    model, given = net(), scored()
    second = ScoredPairs(given.pairs[4:], given.domains[4:])
    for mode, depends in (("online", False), ("episodic", False), ("continual", True)):
        choice = tent(mode=mode, lr=0.3)
        both = scores(model, given, batch_size=2, **choice)
        assert (both["b"] != scores(model, second, batch_size=2, **choice)["b"]) == depends


def test_one_image_at_a_time() -> None:
    model, given = net(), scored()
    found = scores(model, given, batch_size=1, **tent())
    assert found != scores(model, given, name="batch", batch_size=1)
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, C, 1), nn.BatchNorm2d(C))
    with pytest.raises(DataError, match="one image alone"):
        scores(pooled, given, batch_size=1, **tent())
    assert pooled[2].running_mean is not None


def test_constant_images_give_no_nan() -> None:
    grey = np.full((2, 12, 16, 3), 7, np.uint8)
    for logits in logits_of(net(), [grey, grey, grey], steps=3, lr=1.0):
        assert torch.isfinite(logits).all()


class WithSide(nn.Module):
    """A side branch that only trains, as auxiliary heads do."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.side = net(), nn.BatchNorm2d(3)

    def forward(self, images: torch.Tensor) -> Any:
        return (self.main(images), self.side(images)) if self.training else self.main(images)


def test_what_only_trains_does_not_learn() -> None:
    model = WithSide()
    with evaluating(model):
        learner = Tent(Passes(model, C), TentConfig(lr=0.1))
        learner(IMAGES_NHWC)
    assert learner.values["side.weight"].tolist() == [1.0] * 3
    assert learner.values["main.1.weight"].tolist() != [1.0] * 6


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(C, affine=False), nn.GroupNorm(2, C)])
def test_networks_without_gains_and_biases_of_batch_norms_are_refused(norm: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(3, C, 1), norm)
    with pytest.raises(ConfigError, match=r"here: .*no batch norms with gains and biases"):
        require_scorable(model, (), Norms("tent"), where="here")
    with pytest.raises(ConfigError, match="no batch norms with gains and biases"):
        Tent(Passes(model, C), TentConfig())
    require_scorable(model, (), Norms("batch"), where="here")
