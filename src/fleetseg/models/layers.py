"""Layers shared by several networks, and their insertion into networks of other packages."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SafeBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d that can train on a batch of one image after global pooling.

    A single value per channel has no variance, for which torch raises an error. Such a step uses
    the running statistics instead, and leaves them and the counter unchanged; all other steps are
    exactly those of nn.BatchNorm2d. Parameters, buffers and keys are the same.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, H, W) per channel."""
        if self.training and input.shape[0] * input.shape[2] * input.shape[3] == 1:
            # The running statistics are constants here; gradients reach the input, gain and bias.
            return nn.functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


class DepthwiseConv2d(nn.Conv2d):
    """Depthwise convolution that trains correctly and fast on a CPU in bfloat16.

    In bfloat16, oneDNN's backward pass of depthwise convolutions gives weight gradients of up to
    1e31 for some shapes (seen with torch 2.15 on AVX512-BF16: 128 channels, 3x3, 24x32 pixels), and
    with stride 2 or a kernel larger than 3 it is two to six times slower than in float32: so these
    layers opt out of autocast. Everything else, including values in float32 and keys, is exactly
    nn.Conv2d.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H / stride, W / stride) in the input's number format."""
        if _trains_in_bf16_on_cpu(input):
            with torch.autocast("cpu", enabled=False):
                return super().forward(input.float()).to(torch.bfloat16)
        return super().forward(input)


def _trains_in_bf16_on_cpu(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and torch.is_grad_enabled()
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )


def adapt_layers(net: nn.Module) -> None:
    """Convert plain BatchNorm2d and depthwise Conv2d layers of a network into ours, in place.

    Subclasses are left alone, since they may compute something else.
    """
    for module in net.modules():
        # Only the class changes: tensors, keys and hooks stay.
        if type(module) is nn.BatchNorm2d and module.track_running_stats:
            module.__class__ = SafeBatchNorm2d
        elif type(module) is nn.Conv2d and 1 < module.groups == module.in_channels:
            module.__class__ = DepthwiseConv2d


def conv_bn(
    in_channels: int,
    out_channels: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    groups: int = 1,
    dilation: int = 1,
    relu: bool = True,
) -> nn.Sequential:
    """Return convolution without bias, "same" padding for odd kernels, batch norm and ReLU."""
    conv = DepthwiseConv2d if 1 < groups == in_channels else nn.Conv2d
    layers: list[nn.Module] = [
        conv(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            padding=dilation * (kernel // 2),
            dilation=dilation,
            groups=groups,
            bias=False,
        ),
        SafeBatchNorm2d(out_channels),
    ]
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
