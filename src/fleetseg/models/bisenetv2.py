"""BiSeNet V2: Bilateral Network with Guided Aggregation for Real-time Semantic Segmentation.

Yu, Gao, Wang, Yu, Shen, Sang, 2020, https://arxiv.org/abs/2004.02147, table 1 and figures 4 to 6.
Shapes in comments are (C, H, W) for an input of 3 x 512 x 1024, as in the paper.

With 19 classes: 3.36 M parameters for inference, 3.65 M with the four booster heads, layer by layer
the same as in the common reimplementation (github.com/CoinCheung/BiSeNet, first version). Head
width 1024 and the ReLU after depthwise convolutions in gather-and-expansion layers are from there.

Deviation: batch norm of pooled features can train on a single image (see layers.SafeBatchNorm2d).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fleetseg.models.layers import SafeBatchNorm2d, conv_bn

STRIDE = 32
"""Stride of the semantic branch and its deepest booster head; the logits are at 1/8."""


class Stem(nn.Module):
    """Downsample by a factor of four, by convolution and pooling side by side (figure 4a)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = conv_bn(3, 16, 3, stride=2)
        self.left = nn.Sequential(conv_bn(16, 8, 1), conv_bn(8, 16, 3, stride=2))
        self.right = nn.MaxPool2d(3, stride=2, padding=1)
        self.fuse = conv_bn(32, 16, 3)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, 16, H / 4, W / 4)."""
        x = self.first(images)
        fused: Tensor = self.fuse(torch.cat([self.left(x), self.right(x)], dim=1))
        return fused


class GatherExpand(nn.Module):
    """Gather locally, expand by depthwise convolution, project (figure 5b; 5c with stride 2)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int = 6):
        super().__init__()
        wide = in_channels * expansion
        layers: list[nn.Module] = [conv_bn(in_channels, in_channels, 3)]
        if stride == 2:
            layers.append(conv_bn(in_channels, wide, 3, stride=2, groups=in_channels, relu=False))
        narrow = in_channels if stride == 1 else wide
        layers.append(conv_bn(narrow, wide, 3, groups=narrow))
        self.last_norm = SafeBatchNorm2d(out_channels)
        layers.append(nn.Conv2d(wide, out_channels, 1, bias=False))
        self.layers = nn.Sequential(*layers)
        self.shortcut: nn.Module = nn.Identity()
        if stride == 2:
            self.shortcut = nn.Sequential(
                conv_bn(in_channels, in_channels, 3, stride=2, groups=in_channels, relu=False),
                conv_bn(in_channels, out_channels, 1, relu=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H / stride, W / stride)."""
        return torch.relu(self.last_norm(self.layers(x)) + self.shortcut(x))


class ContextEmbedding(nn.Module):
    """Add the global mean to every position (figure 4b)."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = SafeBatchNorm2d(channels)
        self.project = conv_bn(channels, channels, 1)
        self.last = conv_bn(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (N, channels, H, W)."""
        context = self.project(self.norm(x.mean(dim=(2, 3), keepdim=True)))  # (128, 1, 1)
        out: Tensor = self.last(x + context)
        return out


class GuidedAggregation(nn.Module):
    """Each branch gates the other, at both resolutions (figure 6)."""

    def __init__(self, channels: int):
        super().__init__()

        def separable() -> nn.Sequential:
            return nn.Sequential(
                conv_bn(channels, channels, 3, groups=channels, relu=False),
                nn.Conv2d(channels, channels, 1, bias=False),
            )

        self.detail_fine = separable()
        self.detail_coarse = nn.Sequential(
            conv_bn(channels, channels, 3, stride=2, relu=False),
            nn.AvgPool2d(3, stride=2, padding=1),
        )
        self.semantic_fine = conv_bn(channels, channels, 3, relu=False)
        self.semantic_coarse = separable()
        self.merge = conv_bn(channels, channels, 3)

    def forward(self, detail: Tensor, semantic: Tensor) -> Tensor:
        """Map (N, channels, H / 8, W / 8) and (N, channels, H / 32, W / 32) to the former."""
        gate_fine = torch.sigmoid(_four_times(self.semantic_fine(semantic)))
        fine = self.detail_fine(detail) * gate_fine  # (128, 64, 128)
        gate_coarse = torch.sigmoid(self.semantic_coarse(semantic))
        coarse = self.detail_coarse(detail) * gate_coarse  # (128, 16, 32)
        merged: Tensor = self.merge(fine + _four_times(coarse))
        return merged


def _four_times(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=4.0, mode="bilinear", align_corners=False)


def head(in_channels: int, mid_channels: int, num_classes: int) -> nn.Sequential:
    """Return a segmentation head at its input's resolution (figure 4c without the upsampling)."""
    return nn.Sequential(
        conv_bn(in_channels, mid_channels, 3),
        nn.Dropout(0.1),
        nn.Conv2d(mid_channels, num_classes, 1),
    )


class BiSeNetV2(nn.Module):
    """Images (N, 3, H, W) to logits (N, num_classes, H / 8, W / 8); H and W multiples of 32.

    In training mode returns (logits, *four booster logits at H/4, H/8, H/16 and H/32).
    """

    def __init__(self, num_classes: int):
        super().__init__()
        self.detail = nn.Sequential(
            conv_bn(3, 64, stride=2), conv_bn(64, 64),  # (64, 256, 512)
            conv_bn(64, 64, stride=2), conv_bn(64, 64), conv_bn(64, 64),  # (64, 128, 256)
            conv_bn(64, 128, stride=2), conv_bn(128, 128), conv_bn(128, 128),  # (128, 64, 128)
        )  # fmt: skip
        self.semantic = nn.ModuleList([
            Stem(),  # (16, 128, 256)
            nn.Sequential(GatherExpand(16, 32, 2), GatherExpand(32, 32, 1)),  # (32, 64, 128)
            nn.Sequential(GatherExpand(32, 64, 2), GatherExpand(64, 64, 1)),  # (64, 32, 64)
            nn.Sequential(
                GatherExpand(64, 128, 2), *(GatherExpand(128, 128, 1) for _ in range(3))
            ),  # (128, 16, 32)
        ])  # fmt: skip
        self.context = ContextEmbedding(128)  # (128, 16, 32)
        self.aggregation = GuidedAggregation(128)  # (128, 64, 128)
        self.head = head(128, 1024, num_classes)
        self.aux = nn.ModuleList(head(channels, 128, num_classes) for channels in (16, 32, 64, 128))
        self._initialise()

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return logits; see the class for shapes."""
        stages = [images]
        for stage in self.semantic:
            stages.append(stage(stages[-1]))
        semantic = self.context(stages[-1])
        logits: Tensor = self.head(self.aggregation(self.detail(images), semantic))
        if not self.training:
            return logits
        boosted = (booster(x) for booster, x in zip(self.aux, stages[1:], strict=True))
        return logits, *boosted

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, GatherExpand):
                # Blocks start as the identity shortcut, as usual for residuals without pretraining.
                nn.init.zeros_(module.last_norm.weight)
