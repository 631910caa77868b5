"""Fast-SCNN: the paper's parameters and shapes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fleetseg import rng
from fleetseg.models.fast_scnn import FastSCNN, FeatureFusion


def _images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=rng.torch_generator(0))


def _count(net: nn.Module, kind: type[nn.Module]) -> int:
    return sum(p.numel() for m in net.modules() if isinstance(m, kind) for p in m.parameters())


def test_has_the_papers_1_11_million_parameters() -> None:
    net = FastSCNN(19)
    assert _count(net, nn.Conv2d) == 1_114_115  # the paper's 1.11 M
    assert _count(net, nn.BatchNorm2d) == 23_680
    assert sum(p.numel() for p in net.parameters()) == 1_137_795
    assert sum(p.numel() for p in FastSCNN(19, aux=True).parameters()) == 1_175_350


def test_logits_are_an_eighth_and_aux_comes_in_training_only() -> None:
    net = FastSCNN(5, aux=True)
    logits, aux = net.train()(_images(2, 3, 64, 96))
    assert logits.shape == (2, 5, 8, 12)
    assert aux.shape == (2, 5, 2, 3)
    assert net.eval()(_images(2, 3, 64, 96)).shape == (2, 5, 8, 12)
    assert FastSCNN(5).train()(_images(2, 3, 64, 96)).shape == (2, 5, 8, 12)


@pytest.mark.parametrize("size_hw", [(8, 8), (40, 56), (64, 64)])
def test_trains_on_one_image_of_any_multiple_of_eight(size_hw: tuple[int, int]) -> None:
    net = FastSCNN(5, aux=True).train()
    logits, aux = net(_images(1, 3, *size_hw))
    (logits.square().mean() + aux.square().mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_deep_features_stay_registered_when_a_size_is_no_multiple_of_32() -> None:
    fusion = FeatureFusion(4, 4, 4).eval()
    deep, shallow = _images(1, 4, 3, 4), torch.zeros(1, 4, 10, 15)
    whole = fusion(torch.zeros(1, 4, 12, 16), deep)
    part = fusion(shallow, deep)
    assert part.shape == (1, 4, 10, 15)
    # Rows and columns far enough from the cut (the dilated kernel reaches 4) are the very same.
    torch.testing.assert_close(part[:, :, :6, :11], whole[:, :, :6, :11])
