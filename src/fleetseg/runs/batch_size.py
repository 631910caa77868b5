"""The number of images that go through a model at a time: as many as memory allows, to a limit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fleetseg.data.sample import Image_HWC
from fleetseg.evaluation.norms import Norms
from fleetseg.memory import free_bytes
from fleetseg.runs.inference import ReadyModel

MOST_ON_CPU = 8
"""A CPU takes as long for each image of a larger batch; more images only fill its memory."""
MOST_ON_GPU = 32

_PART = 0.5  # of the free memory: other programs use some as well
_OWN_BYTES = 32  # per pixel of the image itself: its copies, one class's logits, the map


class BatchSize:
    """The number of images at a time: the requested number, or as many as fit.

    The network's memory use is measured on the first image, which goes through alone. Norms that
    use batch statistics depend on the batch size, so memory does not decide it for them.
    """

    def __init__(self, ready: ReadyModel, wanted: int | None, tiled: bool = False) -> None:
        self._ready, self._tiled = ready, tiled
        self._fixed = wanted
        if wanted is None and ready.norms.name != "running":
            self._fixed = Norms().batch_size
        self._network_bytes: int | None = None  # for one image
        self._sizes: dict[tuple[int, ...], int] = {}

    def of(self, image_HWC: Image_HWC) -> int:
        """Return how many images of this size go through at a time."""
        if self._fixed is not None:
            return self._fixed
        if self._network_bytes is None:
            return 1
        shape = image_HWC.shape
        if shape not in self._sizes:
            self._sizes[shape] = self._that_fit(shape[0] * shape[1], self._network_bytes)
        return self._sizes[shape]

    def _that_fit(self, pixels: int, network_bytes: int) -> int:
        device = self._ready.hardware.device
        most = MOST_ON_CPU if device.type == "cpu" else MOST_ON_GPU
        free = free_bytes(device)
        if free is None:
            return MOST_ON_CPU
        own = pixels * _OWN_BYTES
        if device.type != "cpu" or self._tiled:  # logits of all classes at the image's size
            own += pixels * self._ready.segmenter.num_classes * 4
        return int(min(most, max(1, free * _PART // (network_bytes + own))))

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Measure the network's memory use per image, if it is needed and not yet known."""
        if self._fixed is not None or self._network_bytes is not None:
            yield
            return
        device = self._ready.hardware.device
        with _peak(device) if device.type == "cuda" else _outputs(self._ready.segmenter) as found:
            yield
        self._network_bytes = sum(found)


@contextmanager
def _peak(device: torch.device) -> Iterator[list[int]]:
    """Collect the peak memory that the block allocated, as torch counts it."""
    found: list[int] = []
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    yield found
    found.append(int(torch.cuda.max_memory_allocated(device)) - before)


@contextmanager
def _outputs(model: nn.Module) -> Iterator[list[int]]:
    """Collect the bytes of every layer's output: their sum exceeds what is held at any one time."""
    found: list[int] = []
    by_layer: dict[nn.Module, int] = {}

    def note(layer: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            by_layer[layer] = output.nbytes // max(1, len(output))

    with ExitStack() as hooks:
        for layer in model.modules():
            if not any(True for _ in layer.children()):
                hooks.callback(layer.register_forward_hook(note).remove)
        yield found
    found.extend(by_layer.values())
