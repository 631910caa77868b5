"""Layers of ours against those of torch that they stand for."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fleetseg import rng
from fleetseg.models.layers import DepthwiseConv2d, SafeBatchNorm2d, adapt_layers, conv_bn


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=rng.torch_generator(seed))


@pytest.mark.parametrize("training", [True, False])
def test_safe_batchnorm_is_batchnorm_where_torch_can(training: bool) -> None:
    ours, theirs = SafeBatchNorm2d(3).train(training), nn.BatchNorm2d(3).train(training)
    x = _noise(2, 3, 4, 5)
    assert torch.equal(ours(x), theirs(x))
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value)


def test_safe_batchnorm_takes_one_value_per_channel() -> None:
    norm = SafeBatchNorm2d(2).train()
    norm.running_mean.copy_(torch.tensor([1.0, 2.0]))
    norm.running_var.copy_(torch.tensor([4.0, 1.0]))
    x = torch.tensor([3.0, 5.0]).view(1, 2, 1, 1).requires_grad_()
    y = norm(x)
    # (3 - 1) / 2 and (5 - 2) / 1
    assert y.flatten().tolist() == pytest.approx([1.0, 3.0], abs=1e-4)
    y.sum().backward()
    assert x.grad.flatten().tolist() == pytest.approx([0.5, 1.0], abs=1e-4)
    assert norm.running_mean.tolist() == [1.0, 2.0]
    assert int(norm.num_batches_tracked) == 0


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_depthwise_equals_plain_convolution(kernel: int, stride: int) -> None:
    arguments = {"stride": stride, "padding": kernel // 2, "groups": 8}
    ours = DepthwiseConv2d(8, 8, kernel, **arguments)
    theirs = nn.Conv2d(8, 8, kernel, **arguments)
    theirs.load_state_dict(ours.state_dict())
    x, x_ref = _noise(2, 8, 12, 16).requires_grad_(), _noise(2, 8, 12, 16).requires_grad_()
    expected = theirs(x_ref)
    assert torch.equal(ours(x), expected)
    expected.square().sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        y = ours(x)
    y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, rtol=0.02, atol=0.02)
    for ours_grad, grad in ((x.grad, x_ref.grad), (ours.weight.grad, theirs.weight.grad)):
        error = (ours_grad - grad).norm() / grad.norm()
        assert float(error) < 0.01


def test_adapt_layers_changes_only_plain_layers_and_keeps_their_values() -> None:
    class Own(nn.BatchNorm2d):
        pass

    net = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4), Own(4), nn.Conv2d(4, 8, 1))
    before = copy.deepcopy(net.state_dict())
    adapt_layers(net)
    assert [type(m) for m in net] == [DepthwiseConv2d, SafeBatchNorm2d, Own, nn.Conv2d]
    assert net.state_dict().keys() == before.keys()
    assert all(torch.equal(net.state_dict()[key], before[key]) for key in before)


def test_conv_bn_keeps_size_for_odd_kernels_and_dilation() -> None:
    x = _noise(1, 4, 9, 11)
    assert conv_bn(4, 6, 5, groups=2, dilation=2)(x).shape == (1, 6, 9, 11)
    assert len(conv_bn(4, 4, 1, relu=False)) == 2


def test_training_in_bf16_stays_finite() -> None:
    """torch's own bf16 backward pass of depthwise layers gave weight gradients of 1e31 here."""
    from fleetseg.config import TrainingConfig
    from fleetseg.data.synthetic.source import paint
    from fleetseg.learning.hardware import Hardware, threads
    from fleetseg.learning.inputs import LocalInputs, RoundContext
    from fleetseg.learning.local import train_locally
    from fleetseg.models.build import build_model

    pairs = [paint(0, "train", "amber", "day", frame) for frame in range(12)]
    model = build_model("fast_scnn", 11).to(memory_format=torch.channels_last)
    with threads(1):
        train_locally(
            model,
            pairs,
            LocalInputs(
                RoundContext(0, 1, 2, "car"),
                TrainingConfig(batch_size=8, scale=(1.0, 1.0), flip=False, colour_jitter=0.0),
                (192, 256),
                Hardware(torch.device("cpu"), "bf16"),
            ),
        )
    assert max(float(v.abs().max()) for v in model.state_dict().values()) < 1e3
