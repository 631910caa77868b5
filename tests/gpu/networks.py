"""Small networks for a GPU: plain, random, exact and greedy. Importable, so that workers can."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fleetseg import rng

CLASSES = 11


class Plain(nn.Module):
    """Convolutions with and without a group for each channel, batch norm, a little dropout."""

    def __init__(self, dropout: float = 0.0, channels: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Dropout2d(dropout),
            nn.Conv2d(channels, CLASSES, 1),
        )

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits: Tensor = self.layers(images_NCHW)
        return logits


class NearestColour(nn.Module):
    """Which of the class colours a pixel is nearest to: no two classes are ever close."""

    def __init__(self, colours_C3: Tensor) -> None:
        super().__init__()
        self.linear = nn.Conv2d(3, len(colours_C3), 1)
        with torch.no_grad():
            self.linear.weight.copy_(2 * colours_C3[:, :, None, None])
            self.linear.bias.copy_(-(colours_C3**2).sum(dim=1))  # type: ignore[union-attr]

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits: Tensor = self.linear(images_NCHW)
        return logits


class Greedy(Plain):
    """Wants twice the GPU's memory to train on pictures of one colour."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        flat = bool((images_NCHW.amax(dim=(2, 3)) == images_NCHW.amin(dim=(2, 3))).all())
        if flat and self.training:
            total = torch.cuda.get_device_properties(images_NCHW.device).total_memory
            torch.empty(2 * total, dtype=torch.uint8, device=images_NCHW.device)
        return super().forward(images_NCHW)


def seeded(kind: type[nn.Module], *arguments: object) -> nn.Module:
    """The same weights each time."""
    with rng.torch_default(0, purpose="gpu-tests"):
        return kind(*arguments)
