"""Terms without labels: worked out by hand, with the papers' normalisation, and of no pixel."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fleetseg.learning.self_training.terms import (
    distillation,
    entropy,
    image_weights,
    max_square,
    pseudo_cross_entropy,
)


def logits(*probs: tuple[float, ...]) -> Tensor:
    """One image of one row, a tuple of probabilities for each pixel."""
    return torch.tensor(probs).log().T.reshape(1, len(probs[0]), 1, len(probs)).requires_grad_()


def ones(count: int) -> Tensor:
    return torch.ones(1, 1, count, dtype=torch.bool)


def test_entropy_is_in_units_of_the_largest() -> None:
    half = (0.5 * math.log(2) + 0.25 * math.log(4) * 2) / math.log(3)
    told = entropy(logits((1 / 3, 1 / 3, 1 / 3), (0.5, 0.25, 0.25)), ones(2))
    assert told.item() == pytest.approx((1 + half) / 2)


def test_max_square_by_hand() -> None:
    """-(1/2) of the mean over pixels of sum p^2."""
    value = max_square(logits((0.5, 0.5), (0.9, 0.1)), ones(2), ratio=0.0)
    assert value.item() == pytest.approx(-0.5 * (0.5 + 0.82) / 2)


def test_max_square_counts_rare_classes_more() -> None:
    """Three pixels of class 0 and one of class 1, of four: 1 / (n^.2 4^.8)."""
    sure = logits((0.9, 0.1), (0.9, 0.1), (0.9, 0.1), (0.1, 0.9))
    weights = [1 / (3**0.2 * 4**0.8)] * 3 + [1 / 4**0.8]
    assert image_weights(sure.argmax(1), ones(4), 2, 0.2).flatten().tolist() == pytest.approx(
        weights
    )
    assert max_square(sure, ones(4), 0.2).item() == pytest.approx(-0.5 * 0.82 * sum(weights))


def test_images_count_alike_in_max_square_whatever_they_show() -> None:
    """Not as in a mean over all pixels, where one that is half padding counts half."""
    one = logits((0.9, 0.1), (0.9, 0.1))
    two = torch.cat([one, logits((0.5, 0.5), (0.5, 0.5))])
    valid = torch.tensor([[[True, True]], [[True, False]]])
    assert max_square(two, valid, 0.0).item() == pytest.approx(-0.5 * (0.82 + 0.5) / 2)


def test_max_square_pushes_sure_pixels_harder_by_a_constant_slope() -> None:
    """Its point: by entropy, gradients of sure pixels outgrow those of all others."""
    sure = torch.tensor([4.0, 0.0]).view(1, 2, 1, 1).requires_grad_()
    slope = {}
    for name, term in (
        ("entropy", entropy(sure, ones(1))),
        ("square", max_square(sure, ones(1), 0)),
    ):
        (gradient,) = torch.autograd.grad(term, sure)
        slope[name] = gradient.abs().max().item()
    assert slope["square"] < slope["entropy"]


def test_distillation_by_hand() -> None:
    """-(1 / (C P)) sum over kept pixels of sum softmax(old / 2) log softmax(new)."""
    old, new = logits((0.8, 0.2), (0.3, 0.7)), logits((0.6, 0.4), (0.5, 0.5))
    kept = torch.tensor([[[True, False]]])
    first = math.sqrt(0.8) / (math.sqrt(0.8) + math.sqrt(0.2))
    wanted = -(first * math.log(0.6) + (1 - first) * math.log(0.4)) / (2 * 2)
    assert distillation(new, old, kept, ones(2), heat=2.0).item() == pytest.approx(wanted)


def test_distillation_knows_no_label() -> None:
    """LADD's code multiplies by the true train id, so that class 0 counts for nothing."""
    old, new = logits((0.8, 0.2)), logits((0.6, 0.4))
    swapped = [part.flip(1) for part in (new, old)]
    value = distillation(new, old, ones(1), ones(1), 2.0)
    assert value > 0
    assert distillation(*swapped, ones(1), ones(1), 2.0).item() == pytest.approx(value.item())


def test_pseudo_cross_entropy_is_torch_s_where_all_counts() -> None:
    values = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    ids = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(1))
    weights = torch.ones(2, 4, 5)
    told = pseudo_cross_entropy(values, ids, weights, torch.tensor(40))
    assert torch.allclose(told, functional.cross_entropy(values, ids))


def test_without_a_pixel_all_are_zero_with_zero_gradients() -> None:
    none = torch.zeros(1, 1, 2, dtype=torch.bool)
    ids = torch.zeros(1, 1, 2, dtype=torch.int64)
    for term in (
        lambda x: pseudo_cross_entropy(x, ids, none.float(), none.sum()),
        lambda x: entropy(x, none),
        lambda x: max_square(x, none, 0.2),
        lambda x: distillation(x, x.detach(), none, none, 2.0),
    ):
        values = logits((0.9, 0.1), (0.4, 0.6))
        value = term(values)
        (gradient,) = torch.autograd.grad(value, values)
        assert value.item() == 0
        assert gradient.abs().max().item() == 0


def test_sure_logits_give_no_nan() -> None:
    values = torch.tensor([1e4, -1e4]).view(1, 2, 1, 1).requires_grad_()
    total = entropy(values, ones(1)) + max_square(values, ones(1), 0.2)
    (gradient,) = torch.autograd.grad(total, values)
    assert bool(torch.isfinite(gradient).all())
