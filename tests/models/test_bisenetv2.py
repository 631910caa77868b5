"""BiSeNet V2: the paper's parameters and shapes."""

from __future__ import annotations

import torch

from fleetseg import rng
from fleetseg.models.bisenetv2 import BiSeNetV2, GatherExpand


def _conv(c_in: int, c_out: int, kernel: int, groups: int = 1) -> int:
    """Weights of a convolution with its batch norm."""
    return c_in // groups * c_out * kernel**2 + 2 * c_out


def _ge(c: int) -> int:
    return _conv(c, c, 3) + _conv(c, 6 * c, 3, c) + _conv(6 * c, c, 1)


def _ge_down(c: int, d: int) -> int:
    main = _conv(c, c, 3) + _conv(c, 6 * c, 3, c) + _conv(6 * c, 6 * c, 3, 6 * c)
    return main + _conv(6 * c, d, 1) + _conv(c, c, 3, c) + _conv(c, d, 1)


def _head(c: int, mid: int, classes: int) -> int:
    return _conv(c, mid, 3) + mid * classes + classes


def _paper(classes: int) -> tuple[int, int]:
    """Parameters on the inference path and of the booster heads, from the paper's tables."""
    detail = _conv(3, 64, 3) + 4 * _conv(64, 64, 3) + _conv(64, 128, 3) + 2 * _conv(128, 128, 3)
    stem = _conv(3, 16, 3) + _conv(16, 8, 1) + _conv(8, 16, 3) + _conv(32, 16, 3)
    gather = _ge_down(16, 32) + _ge(32) + _ge_down(32, 64) + _ge(64) + _ge_down(64, 128)
    context = 2 * 128 + _conv(128, 128, 1) + _conv(128, 128, 3)
    separable = _conv(128, 128, 3, 128) + 128 * 128
    aggregation = 2 * separable + 3 * _conv(128, 128, 3)
    main = detail + stem + gather + 3 * _ge(128) + context + aggregation
    aux = sum(_head(c, 128, classes) for c in (16, 32, 64, 128))
    return main + _head(128, 1024, classes), aux


def _images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=rng.torch_generator(0))


def test_parameters_are_the_papers_with_and_without_booster_heads() -> None:
    for classes in (19, 11):
        net = BiSeNetV2(classes)
        total = sum(p.numel() for p in net.parameters())
        aux = sum(p.numel() for p in net.aux.parameters())
        assert (total - aux, aux) == _paper(classes)
    assert _paper(19) == (3_358_627, 287_308)  # 3.36 M for inference, 3.65 M in training


def test_shapes_of_logits_and_booster_heads() -> None:
    net = BiSeNetV2(5).train()
    shapes = [tuple(t.shape) for t in net(_images(2, 3, 64, 96))]
    assert shapes == [(2, 5, 8, 12), (2, 5, 16, 24), (2, 5, 8, 12), (2, 5, 4, 6), (2, 5, 2, 3)]
    assert net.eval()(_images(2, 3, 64, 96)).shape == (2, 5, 8, 12)


def test_trains_on_one_image() -> None:
    net = BiSeNetV2(5).train()
    torch.stack([t.square().mean() for t in net(_images(1, 3, 64, 64))]).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_blocks_start_as_their_shortcut() -> None:
    block = BiSeNetV2(5).semantic[1][1]
    assert isinstance(block, GatherExpand)
    x = _images(1, 32, 6, 6)
    assert torch.equal(block.eval()(x), x)
