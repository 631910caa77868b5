"""Resizing and cross-entropy in one pass, against torch's own two."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from fleetseg.config import TrainingConfig
from fleetseg.data.labels import IGNORE
from fleetseg.learning import fused
from fleetseg.learning.losses import build_loss


def batch(
    seed: int, n: int, c: int, small: tuple[int, int], full: tuple[int, int], ignored: float
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits_NChw = 3 * torch.randn(n, c, *small, generator=generator)
    labels_NHW = torch.randint(0, c, (n, *full), generator=generator)
    labels_NHW[torch.rand(n, *full, generator=generator) < ignored] = IGNORE
    labels_NHW[0, 0, 0] = 0
    return logits_NChw.requires_grad_(), labels_NHW, 0.1 + torch.rand(c, generator=generator)


def torchs(logits_NChw: Tensor, labels_NHW: Tensor, weights_C: Tensor | None) -> Tensor:
    size = (labels_NHW.shape[1], labels_NHW.shape[2])
    wide = functional.interpolate(logits_NChw.double(), size, mode="bilinear", align_corners=False)
    weights_C = None if weights_C is None else weights_C.double()
    return functional.cross_entropy(wide, labels_NHW, weight=weights_C, ignore_index=IGNORE)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 3),
    c=st.integers(1, 6),
    small=st.tuples(st.integers(1, 9), st.integers(1, 7)),
    full=st.tuples(st.integers(1, 90), st.integers(1, 40)),
    ignored=st.sampled_from([0.0, 0.4, 0.99]),
    weighted=st.booleans(),
)
def test_value_and_gradient_are_torch_s(
    seed: int,
    n: int,
    c: int,
    small: tuple[int, int],
    full: tuple[int, int],
    ignored: float,
    weighted: bool,
) -> None:
    logits_NChw, labels_NHW, weights_C = batch(seed, n, c, small, full, ignored)
    weights = weights_C if weighted else None
    expected = torchs(logits_NChw, labels_NHW, weights)
    (expected_gradient,) = torch.autograd.grad(expected, logits_NChw)
    # Two thirds of it, as an auxiliary head's loss would be.
    got = 2 / 3 * fused.resized_cross_entropy(logits_NChw, labels_NHW, weights)
    (gradient,) = torch.autograd.grad(got, logits_NChw)
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(2 / 3 * expected.item(), rel=2e-5, abs=1e-6)
    torch.testing.assert_close(gradient, 2 / 3 * expected_gradient, rtol=1e-3, atol=2e-6)


def test_by_hand() -> None:
    """One logit pair spread over a 2x2 picture; one pixel ignored."""
    logits_NChw = torch.log(torch.tensor([0.75, 0.25])).view(1, 2, 1, 1).requires_grad_()
    labels_NHW = torch.tensor([[[0, 1], [0, IGNORE]]])
    loss = fused.resized_cross_entropy(logits_NChw, labels_NHW, None)
    loss.backward()  # type: ignore[no-untyped-call]
    # -(2 ln .75 + ln .25) / 3; gradient of the mean: p minus the share of each class.
    assert loss.item() == pytest.approx(0.653886, abs=1e-6)
    assert logits_NChw.grad is not None
    assert logits_NChw.grad.flatten().tolist() == pytest.approx([0.75 - 2 / 3, 0.25 - 1 / 3])


def test_far_apart_logits_neither_overflow_nor_vanish() -> None:
    logits_NChw = torch.tensor([500.0, -500.0]).view(1, 2, 1, 1)
    loss = fused.resized_cross_entropy(logits_NChw, torch.ones(1, 4, 4).long(), None)
    assert loss.item() == 1000.0


def test_nan_is_seen() -> None:
    logits_NChw = torch.full((1, 2, 2, 2), float("nan"))
    assert fused.resized_cross_entropy(logits_NChw, torch.zeros(1, 8, 8).long(), None).isnan()


@pytest.mark.parametrize(
    ("small", "full", "label", "fits"),
    [((4, 4), (32, 32), 0, True), ((16, 16), (32, 32), 0, True), ((20, 16), (32, 32), 0, False),
     ((32, 32), (32, 32), 0, False), ((4, 4), (32, 32), IGNORE, True)],
)  # fmt: skip
def test_when_it_is_used(
    small: tuple[int, int], full: tuple[int, int], label: int, fits: bool
) -> None:
    logits, labels = torch.zeros(1, 2, *small), torch.full((1, *full), label)
    assert fused.can_fuse(logits, labels) is fits


def test_the_named_loss_takes_this_way(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    way = fused.resized_cross_entropy
    monkeypatch.setattr(
        "fleetseg.learning.losses.resized_cross_entropy",
        lambda *given: (taken.append(1), way(*given))[1],
    )
    logits, labels, _ = batch(0, 1, 3, (4, 4), (16, 16), 0.1)
    build_loss(TrainingConfig(loss="ce"))(logits, labels)
    assert taken == [1]
    build_loss(TrainingConfig(loss="ohem"))(logits, labels)
    assert taken == [1]
