"""Model folders to try things on: networks by name, and one whose answers are known."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from fleetseg.data.labels import LabelSpace, label_space
from fleetseg.models.build import build_model
from fleetseg.models.folder import save_model
from fleetseg.models.segmenter import Segmenter

TWO = LabelSpace("two", ("dark", "bright"), ((0, 0, 0), (255, 255, 255)), ("bright",))


def saved_camvid_model(folder: Path, size_hw: tuple[int, int] = (64, 96)) -> Path:
    """Write a network of CamVid's classes that has learnt nothing, and yet sees several of them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = build_model("fast_scnn", 11).train()
        with torch.no_grad():  # norm statistics of noise: without them all pixels look alike
            for _ in range(10):
                model(torch.rand(4, 3, *size_hw))
    save_model(model, folder, space=label_space("camvid11"), size_hw=size_hw, details={})
    return folder


def brightness_model(size_hw: tuple[int, int] = (8, 8)) -> Segmenter:
    """Call a pixel bright where its red is above a half."""
    net = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        net.weight.zero_()
        net.weight[1, 0] = 1.0
        net.bias.copy_(torch.tensor([0.0, -0.5]))
    model = Segmenter(net, name="brightness", num_classes=2, mean=(0, 0, 0), std=(1, 1, 1))
    model.space, model.size_hw = TWO, size_hw
    return model.eval()
