"""Teacher and student at test time: averages and restores by hand, views against torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.evaluation.test_adaptation import IMAGES_NCHW, IMAGES_NHWC, trained_mode
from tests.evaluation.test_norms import C, net, scored, scores
from torch import nn
from torch.nn import functional

from fleetseg.config import CottaLikeConfig
from fleetseg.evaluation.adaptation import Passes
from fleetseg.evaluation.cotta_like import (
    CottaLike,
    averaged,
    cross_entropy_to,
    restored,
)
from fleetseg.evaluation.predict import evaluating
from fleetseg.rng import torch_generator


def settings(**given: Any) -> CottaLikeConfig:
    """Learns fast, and is never sure, so that it learns from views."""
    return CottaLikeConfig(**{"lr": 0.05, "confidence": 1.0, "scales": (1.0, 1.25), **given})


def after(model: nn.Module, batches: int = 1, **given: Any) -> CottaLike:
    with evaluating(model):
        learner = CottaLike(Passes(model, C), settings(**given))
        for _ in range(batches):
            learner(IMAGES_NHWC)
    return learner


def test_the_teacher_s_average_by_hand() -> None:
    assert averaged(torch.tensor(1.0), torch.tensor(3.0), 0.75).item() == 1.5
    teacher = torch.rand(99, generator=torch_generator(0))
    assert torch.equal(averaged(teacher, teacher, 0.999), teacher)


def test_restores_by_hand() -> None:
    value, source = torch.ones(20_000), torch.zeros(20_000)
    for probability in (0.0, 1.0):
        found = restored(value, source, probability, torch_generator(0))
        assert found.tolist() == [1.0 - probability] * 20_000
    found = [restored(value, source, 0.3, torch_generator(seed)) for seed in (0, 0, 1)]
    assert found[0].mean().item() == pytest.approx(0.7, abs=0.015)  # 4.6 standard deviations
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_cross_entropy_by_hand_and_by_torch() -> None:
    logits = torch.randn((2, C, 3, 4), generator=torch_generator(1))
    target = torch.randn((2, C, 3, 4), generator=torch_generator(2)).softmax(1)
    wanted = functional.cross_entropy(logits, target)
    torch.testing.assert_close(cross_entropy_to(logits, target), wanted)
    even = torch.zeros(1, 2, 1, 1)
    assert cross_entropy_to(even, torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)).item() == (
        pytest.approx(0.693147)
    )


def test_with_restore_1_the_student_is_the_model() -> None:
    """The teacher averages what the student was before it went back, as in the paper."""
    model = net()
    learner = after(model, batches=2, restore=1.0, teacher_momentum=1.0)
    follows = after(model, restore=1.0, teacher_momentum=0.5)
    for name, own in model.named_parameters():
        assert torch.equal(learner.student[name], own)
        assert torch.equal(learner.teacher[name], own)
        assert torch.equal(follows.student[name], own)
    assert not torch.equal(follows.teacher["3.weight"], model.get_parameter("3.weight"))


def test_with_restore_0_nothing_goes_back_and_the_teacher_follows() -> None:
    model = net()
    learner = after(model, restore=0.0, teacher_momentum=0.75)
    moved = after(model, restore=0.3)
    for name, own in model.named_parameters():
        if name == "3.bias":  # before a batch norm: no gradient but rounding
            continue
        student = learner.student[name].detach()
        assert (student != own).float().mean() > 0.9
        torch.testing.assert_close(learner.teacher[name].detach(), 0.75 * own + 0.25 * student)
        stayed = (moved.student[name] == own).float().mean()
        assert 0.0 <= stayed < 1.0
    whole = torch.cat([(moved.student[n] == p).flatten() for n, p in model.named_parameters()])
    assert whole.float().mean().item() == pytest.approx(0.3, abs=0.12)


def test_where_it_is_sure_and_nothing_moves_it_is_batch() -> None:
    model, given = net(), scored()
    batch = scores(model, given, name="batch", batch_size=3)
    for changes in ({"confidence": 0.0, "restore": 1.0}, {"confidence": 0.0, "lr": 0.0}):
        choice = settings(**changes)
        assert scores(model, given, name="cotta-like", batch_size=3, cotta_like=choice) == batch
    found = scores(model, given, name="cotta-like", batch_size=3, cotta_like=settings(lr=0.0))
    assert found != batch


def test_views_are_means_of_probabilities_turned_back() -> None:
    model = net()
    reference = trained_mode(model)
    with torch.no_grad():
        plain, turned = (reference(x).softmax(1) for x in (IMAGES_NCHW, IMAGES_NCHW.flip(3)))
    with evaluating(model):
        learner = CottaLike(Passes(model, C), settings(scales=(1.0,)))
        found = learner(IMAGES_NHWC)
    torch.testing.assert_close(found, (plain + turned.flip(3)) / 2, rtol=1e-4, atol=1e-4)
    with evaluating(model):
        found = CottaLike(Passes(model, C), settings(scales=(0.5, 1.0, 2.0)))(IMAGES_NHWC)
    assert found.shape == plain.shape
    torch.testing.assert_close(found.sum(1), torch.ones_like(found[:, 0]))


def test_being_sure_is_said_of_each_image() -> None:
    model = net()
    with evaluating(model):
        passes = Passes(model, C)
        plain_NCHW = passes.scored({}, IMAGES_NHWC)
        sure_N = plain_NCHW.softmax(1).amax(1).mean((1, 2))
        middle = sure_N.sort().values[1].item()  # one of the three is less sure
        found = CottaLike(passes, settings(confidence=middle))(IMAGES_NHWC)
    is_plain_N = [torch.equal(a, b) for a, b in zip(found, plain_NCHW, strict=True)]
    assert is_plain_N == (sure_N >= middle).tolist()
    assert sorted(is_plain_N) == [False, True, True]


def test_the_model_is_bit_for_bit_what_it_was_and_scores_are_the_same_twice() -> None:
    model, given = net(), scored()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    choice: dict[str, Any] = {"name": "cotta-like", "batch_size": 1}
    choice["cotta_like"] = settings(restore=0.5, teacher_momentum=0.5)
    found = [scores(model, given, **choice) for _ in range(2)]
    assert found[0] == found[1]
    choice["cotta_like"] = settings(restore=0.5, teacher_momentum=0.5, seed=1)
    assert scores(model, given, **choice) != found[0]
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.training


def test_constant_images_and_single_ones_give_no_nan() -> None:
    model, grey = net(), np.full((1, 12, 16, 3), 9, np.uint8)
    with evaluating(model):
        learner = CottaLike(Passes(model, C), settings(lr=1.0))
        for _ in range(3):
            assert torch.isfinite(learner(grey)).all()
