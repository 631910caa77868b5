"""The common wrapper in which every network is trained, scored, saved and sent.

Suffixes: N images, C classes, H and W pixels; h and w the resolution of a network's own output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fleetseg.data.labels import LabelSpace
from fleetseg.errors import ModelError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Channel means of ImageNet's RGB in [0, 1], as used by torchvision and its descendants."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Channel standard deviations that go with IMAGENET_MEAN."""


Normalisation = tuple[Sequence[float], Sequence[float]]
"""(mean, standard deviation) of RGB in [0, 1]."""


class Segmenter(nn.Module):
    """Any network (N, 3, H, W) -> (N, C, h, w), with the input normalisation that it needs.

    Logits have the network's own resolution: full, or for example an eighth. They always cover
    exactly the input's field of view, so the caller can resize them to label size with
    `interpolate(logits, size, mode="bilinear", align_corners=False)`, whatever the network.

    Args:
        net: returns logits, or a sequence (logits, *auxiliary logits), or a mapping with "out" and
            optionally "aux" as torchvision's networks do.
        name: the network's name in `build_model`, or a name of the user's choice.
        num_classes: C.
        mean: per RGB channel, of images in [0, 1].
        std: per RGB channel, of images in [0, 1].
        stride: images are padded at the bottom and right to a multiple of it.
        head_prefixes: state-dict prefixes that get the head learning-rate factor.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: nn.Module,
        *,
        name: str,
        num_classes: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        stride: int = 1,
        head_prefixes: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.net = net
        self.name = name
        self.num_classes = num_classes
        self.stride = stride
        self.head_prefixes = head_prefixes
        self.space: LabelSpace | None = None  # set by load_model
        self.size_hw: tuple[int, int] | None = None  # working size of training, by load_model
        self.second_head: nn.Module | None = None  # for training: see second_head
        self.norm_groups = 0  # groups, if group norms replace its batch norms; 0 = not replaced
        # State-dict keys that stayed on clients and have start values; set by load_model.
        self.untrained: tuple[str, ...] = ()
        # What config.json says about the training: facts, and scores with their context.
        self.details: Mapping[str, Any] = {}
        self.record: Mapping[str, Any] = {}
        # Constants of the network, not state: they must not be sent or averaged.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images_NCHW: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return logits in eval mode, and the tuple (logits, *auxiliary logits) in training mode.

        Args:
            images_NCHW: RGB, floating point in [0, 1].

        Raises:
            ModelError: the input is not such a batch, or the network returns another shape.
        """
        if (
            images_NCHW.ndim != 4
            or images_NCHW.shape[1] != 3
            or not images_NCHW.is_floating_point()
        ):
            raise ModelError(
                f"{self.name}: unusable input",
                got=f"{images_NCHW.dtype} {tuple(images_NCHW.shape)}",
                expected="floating point (N, 3, H, W), RGB in [0, 1]",
            )
        size_hw = (images_NCHW.shape[2], images_NCHW.shape[3])
        padded_NCHW = self.prepared(images_NCHW)
        padded_hw = (padded_NCHW.shape[2], padded_NCHW.shape[3])
        outputs = self._unwrap(self.net(padded_NCHW), images_NCHW.shape[0])
        outputs = outputs if self.training else outputs[:1]
        cropped = tuple(crop_back(logits_NChw, padded_hw, size_hw) for logits_NChw in outputs)
        return cropped if self.training else cropped[0]

    @property
    def normalisation(self) -> Normalisation:
        """Mean and standard deviation of each RGB channel of images in [0, 1]."""
        mean, std = (tuple(part.flatten().tolist()) for part in (self.mean, self.std))
        return mean, std

    def normalise_by(self, normalisation: Normalisation) -> None:
        """Set another input normalisation."""
        for part, values in zip((self.mean, self.std), normalisation, strict=True):
            part.copy_(torch.tensor(values).view(1, 3, 1, 1))

    def save_pretrained(self, folder: str | Path) -> str:
        """Write a self-contained model folder, including a card; return the weights' SHA-256.

        For loaded models, which know their classes, their size, and what their run recorded.

        Raises:
            ModelError: the meaning of the classes is unknown.
            CheckpointError: the disk is full.
        """
        from fleetseg.models.folder import save_again

        return save_again(self, Path(folder))

    @classmethod
    def from_pretrained(cls, folder: str | Path, net: nn.Module | None = None) -> Segmenter:
        """Load a local model folder, like `fleetseg.load_model`; nothing is downloaded.

        Raises:
            ModelError: there is none, or it is damaged.
        """
        from fleetseg.models.folder import load_model

        return load_model(folder, net)

    def prepared(self, images_NCHW: Tensor) -> Tensor:
        """Normalise and pad images in [0, 1], as the network itself receives them."""
        return self._pad((images_NCHW - self.mean) / self.std)

    def padded_hw(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the size after padding of images of a size, as the network sees them."""
        height, width = size_hw
        return height + -height % self.stride, width + -width % self.stride

    def _pad(self, images_NCHW: Tensor) -> Tensor:
        height, width = self.padded_hw((images_NCHW.shape[2], images_NCHW.shape[3]))
        bottom, right = height - images_NCHW.shape[2], width - images_NCHW.shape[3]
        if bottom == 0 and right == 0:
            return images_NCHW
        return functional.pad(images_NCHW, (0, right, 0, bottom), mode="replicate")

    def _unwrap(self, outputs: object, num_images: int) -> tuple[Tensor, ...]:
        found = unpacked(outputs)
        for logits in found:
            if (
                not isinstance(logits, Tensor)
                or logits.ndim != 4
                or logits.shape[:2] != (num_images, self.num_classes)
            ):
                raise self._wrong_output(logits, num_images)
        if not found:
            raise ModelError(
                f"network '{self.name}' returns nothing", expected="logits (N, C, H, W)"
            )
        return found

    def _wrong_output(self, got: object, num_images: int) -> ModelError:
        shape = f"shape {tuple(got.shape)}" if isinstance(got, Tensor) else type(got).__name__
        return ModelError(
            f"network '{self.name}' returns the wrong shape",
            got=shape,
            expected=f"logits of shape ({num_images}, {self.num_classes}, H, W) "
            f"for images of shape ({num_images}, 3, H, W) and {self.num_classes} classes",
            cure="Give the last layer one output channel per class and no argmax",
        )


def unpacked(outputs: object) -> tuple[Any, ...]:
    """Return what a network returns as (logits, *auxiliary logits), unchecked."""
    if isinstance(outputs, Mapping) and "out" in outputs:
        return tuple(outputs[key] for key in ("out", "aux") if key in outputs)
    return tuple(outputs) if isinstance(outputs, list | tuple) else (outputs,)


def crop_back(logits_NChw: Tensor, padded_hw: tuple[int, int], size_hw: tuple[int, int]) -> Tensor:
    """Crop logits of a padded image to the field of view of the image.

    If a whole number of logits covers the image, they are cropped directly; otherwise they are
    first interpolated to the padded size.

    Args:
        logits_NChw: at any resolution.
        padded_hw: size of the network's input.
        size_hw: size of the image, at most `padded_hw`.
    """
    if padded_hw == size_hw:
        return logits_NChw
    rows = size_hw[0] * logits_NChw.shape[2] / padded_hw[0]
    columns = size_hw[1] * logits_NChw.shape[3] / padded_hw[1]
    if rows.is_integer() and columns.is_integer():
        return logits_NChw[:, :, : int(rows), : int(columns)]
    full_NCHW = functional.interpolate(logits_NChw, padded_hw, mode="bilinear", align_corners=False)
    return full_NCHW[:, :, : size_hw[0], : size_hw[1]]
