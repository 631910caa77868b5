"""The exported graph: everything from a camera's bytes to logits, as one network."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from fleetseg.learning.adapters import merge_adapters
from fleetseg.models.segmenter import Segmenter

INPUT, OUTPUT = "images", "logits"
"""Names of the only input and the only output."""


class ExportedGraph(nn.Module):
    """RGB bytes (N, H, W, 3) -> float32 logits (N, C, h, w), normalisation and padding included."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, images: Tensor) -> Tensor:
        """Return logits at the network's own resolution, as in `evaluation.predict`."""
        logits_NCHW: Tensor = self.segmenter(images.permute(0, 3, 1, 2).float() / 255)
        return logits_NCHW


def exported_graph(segmenter: Segmenter) -> ExportedGraph:
    """Copy a network to the CPU, merge its adapters, and wrap it as a graph."""
    own = copy.deepcopy(segmenter).to("cpu").eval()
    merge_adapters(own)
    graph = ExportedGraph(own.eval())
    for parameter in graph.parameters():
        parameter.requires_grad_(False)
    return graph.eval()


def example_input(size_hw: tuple[int, int]) -> Tensor:
    """Return a batch of two to trace a graph with: size one would be treated as a constant."""
    return torch.zeros((2, *size_hw, 3), dtype=torch.uint8)
