"""Fast-SCNN: Fast Semantic Segmentation Network.

Poudel, Liwicki, Cipolla, 2019, https://arxiv.org/abs/1902.04502, tables 1 to 3.
With 19 classes: 1.114 M parameters in convolutions (the paper's 1.11 M) and 0.024 M in batch norms.
Shapes in comments are (C, H, W) for an input of 3 x 1024 x 2048, as in the paper.

Deviations: batch norm of pooled features can train on a single image (see layers.SafeBatchNorm2d);
one optional auxiliary head, on the global features (the paper has a second one, on the shared
shallow features; its weight there is 0.4, here the caller chooses it).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fleetseg.models.layers import conv_bn

STRIDE = 8
"""Stride of the logits; the deeper 1/32 features are registered to it whatever the size."""


def ds_conv(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """Return a depthwise-separable convolution, without ReLU between its halves (section 3.2)."""
    return nn.Sequential(
        conv_bn(in_channels, in_channels, 3, stride=stride, groups=in_channels, relu=False),
        conv_bn(in_channels, out_channels, 1),
    )


class Bottleneck(nn.Module):
    """Inverted residual of MobileNet-V2: expand, depthwise, project (table 2)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int = 6):
        super().__init__()
        wide = in_channels * expansion
        self.residual = stride == 1 and in_channels == out_channels
        self.layers = nn.Sequential(
            conv_bn(in_channels, wide, 1),
            conv_bn(wide, wide, 3, stride=stride, groups=wide),
            conv_bn(wide, out_channels, 1, relu=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H / stride, W / stride)."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


def bottlenecks(in_channels: int, out_channels: int, repeats: int, stride: int) -> nn.Sequential:
    """Return `repeats` bottlenecks, the first of them with the stride."""
    first = Bottleneck(in_channels, out_channels, stride)
    rest = (Bottleneck(out_channels, out_channels, 1) for _ in range(repeats - 1))
    return nn.Sequential(first, *rest)


class PyramidPooling(nn.Module):
    """Context from four grids of average pooling (PSPNet's module, table 1)."""

    def __init__(self, channels: int, grids: tuple[int, ...] = (1, 2, 3, 6)):
        super().__init__()
        self.grids = grids
        narrow = channels // len(grids)
        self.branches = nn.ModuleList(conv_bn(channels, narrow, 1) for _ in grids)
        self.merge = conv_bn(channels + narrow * len(grids), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (N, channels, H, W)."""
        size_hw = (x.shape[2], x.shape[3])
        parts = [x]
        for grid, branch in zip(self.grids, self.branches, strict=True):
            pooled = branch(functional.adaptive_avg_pool2d(x, grid))  # (32, grid, grid)
            parts.append(
                functional.interpolate(pooled, size_hw, mode="bilinear", align_corners=False)
            )
        merged: Tensor = self.merge(torch.cat(parts, dim=1))
        return merged


class FeatureFusion(nn.Module):
    """Add deep features, upsampled by four, to the shared shallow ones (table 3)."""

    def __init__(self, shallow_channels: int, deep_channels: int, out_channels: int):
        super().__init__()
        self.deep = nn.Sequential(
            # The dilation spreads the kernel over the upsampled grid's original points.
            conv_bn(deep_channels, deep_channels, 3, groups=deep_channels, dilation=4),
            conv_bn(deep_channels, out_channels, 1, relu=False),
        )
        self.shallow = conv_bn(shallow_channels, out_channels, 1, relu=False)

    def forward(self, shallow: Tensor, deep: Tensor) -> Tensor:
        """Map (N, shallow, h, w) and (N, deep, ceil(h / 4), ceil(w / 4)) to (N, out, h, w)."""
        up = functional.interpolate(deep, scale_factor=4.0, mode="bilinear", align_corners=False)
        # Cropping instead of resizing keeps both grids aligned if h is not a multiple of 4.
        up = up[:, :, : shallow.shape[2], : shallow.shape[3]]
        return torch.relu(self.shallow(shallow) + self.deep(up))


class FastSCNN(nn.Module):
    """Images (N, 3, H, W) to logits (N, num_classes, H / 8, W / 8); H and W multiples of 8.

    In training mode with `aux`, returns (logits, auxiliary logits at H / 32).
    """

    def __init__(self, num_classes: int, *, aux: bool = False):
        super().__init__()
        self.downsample = nn.Sequential(
            conv_bn(3, 32, 3, stride=2),  # (32, 512, 1024)
            ds_conv(32, 48, stride=2),  # (48, 256, 512)
            ds_conv(48, 64, stride=2),  # (64, 128, 256)
        )
        self.features = nn.Sequential(
            bottlenecks(64, 64, repeats=3, stride=2),  # (64, 64, 128)
            bottlenecks(64, 96, repeats=3, stride=2),  # (96, 32, 64)
            bottlenecks(96, 128, repeats=3, stride=1),  # (128, 32, 64)
            PyramidPooling(128),  # (128, 32, 64)
        )
        self.fusion = FeatureFusion(64, 128, 128)  # (128, 128, 256)
        self.classifier = nn.Sequential(
            ds_conv(128, 128),
            ds_conv(128, 128),
            nn.Dropout(0.1),
            nn.Conv2d(128, num_classes, 1),  # (num_classes, 128, 256)
        )
        self.aux: nn.Module | None = None
        if aux:
            self.aux = nn.Sequential(
                conv_bn(128, 32, 3), nn.Dropout(0.1), nn.Conv2d(32, num_classes, 1)
            )

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return logits; see the class for shapes."""
        shallow = self.downsample(images)
        deep = self.features(shallow)
        logits: Tensor = self.classifier(self.fusion(shallow, deep))
        if self.training and self.aux is not None:
            return logits, self.aux(deep)
        return logits
