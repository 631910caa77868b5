"""A small network with all that exports must carry, exported once for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fleetseg.data.labels import LabelSpace
from fleetseg.models.build import MODELS
from fleetseg.models.folder import save_model
from fleetseg.models.layers import conv_bn
from fleetseg.models.segmenter import Segmenter

SPACE = LabelSpace(
    "three", ("road", "car", "sky"), ((128, 64, 128), (64, 0, 128), (9, 8, 7)), ("car",)
)
SIZE = (26, 38)
"""No multiple of the network's stride of 8, so that it pads and cuts."""


def small_network(name: str = "small", num_classes: int = 3) -> Segmenter:
    net = nn.Sequential(
        conv_bn(3, 8, stride=2), conv_bn(8, 8, groups=8), conv_bn(8, 16, stride=2),
        nn.Conv2d(16, num_classes, 1),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, value in net.state_dict().items():
            if value.is_floating_point():
                noise = torch.randn(value.shape, generator=generator)
                value.copy_(noise.abs() + 0.5 if "running_var" in key else 0.5 * noise)
    model = Segmenter(net, name=name, num_classes=num_classes, stride=8, head_prefixes=("net.3.",))
    model.space, model.size_hw = SPACE, SIZE
    return model.eval()


def noise_images(count: int, size_hw: tuple[int, int] = SIZE) -> list[np.ndarray]:
    """Blocks of colours, as streets have and white noise has not."""
    generator = np.random.Generator(np.random.Philox(5))
    images = []
    for _ in range(count):
        blocks = generator.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        picture = Image.fromarray(blocks).resize(size_hw[::-1], Image.Resampling.BICUBIC)
        images.append(np.array(picture))
    return images


@pytest.fixture(scope="session")
def pictures_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of two sizes, neither of them the network's."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, size in enumerate([(40, 60)] * 3 + [(31, 29)] * 3):
        Image.fromarray(noise_images(number + 1, size)[-1]).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The network in a model folder, known by its name as long as tests run."""
    folder = tmp_path_factory.mktemp("small") / "model"
    MODELS["small"] = small_network
    save_model(small_network(), folder, space=SPACE, size_hw=SIZE, details={})
    yield folder
    MODELS.pop("small", None)  # a test that puts the table back may have taken it out
