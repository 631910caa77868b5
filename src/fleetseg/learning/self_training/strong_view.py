"""Strong augmentation that only the student sees: colours, blur, and pieces of other images.

All draws come from torch's default generator, which is the client's own during training, and is
rewound if a batch is passed through twice. Suffixes: N images, C classes, H and W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fleetseg.config import SelfTrainingConfig

_LUMA_3 = (0.299, 0.587, 0.114)  # ITU-R BT.601
_RADIUS = 3  # of the blur window: nearly three times its widest sigma
_SIGMA = (0.15, 1.15)  # pixels: DAFormer's


@dataclass(frozen=True)
class Mix:
    """Which pixels of each image come from the previous image of the batch."""

    taken_NHW: Tensor | None  # bool; None = none

    def __call__(self, of_batch: Tensor) -> Tensor:
        """Mix any tensor with one row per image and shape (..., H, W)."""
        if self.taken_NHW is None:
            return of_batch
        taken = self.taken_NHW
        if of_batch.ndim == 4:
            taken = taken.unsqueeze(1)
        return torch.where(taken, of_batch.roll(1, dims=0), of_batch)


def draw_mix(ids_NHW: Tensor, valid_NHW: Tensor, settings: SelfTrainingConfig) -> Mix:
    """Draw the mix of a batch; a batch of one has nothing to mix with."""
    if settings.mix == "none" or len(ids_NHW) < 2:
        return Mix(None)
    if settings.mix == "cutmix":
        return Mix(cutmix_boxes(valid_NHW))
    return Mix(classmix_masks(ids_NHW.roll(1, dims=0), valid_NHW.roll(1, dims=0)))


def classmix_masks(ids_NHW: Tensor, valid_NHW: Tensor) -> Tensor:
    """Draw half of the classes in each image, rounded up, and return the masks of their pixels.

    Olsson, Tranheden, Pinto, Svensson, WACV 2021, arXiv 2007.07936, with the teacher's predictions
    as classes.
    """
    masks = []
    for ids_HW, valid_HW in zip(ids_NHW, valid_NHW, strict=True):
        classes = torch.unique(ids_HW[valid_HW]).cpu()
        chosen = classes[torch.randperm(len(classes), generator=torch.default_generator)]
        chosen = chosen[: (len(classes) + 1) // 2].to(ids_HW.device)
        masks.append(torch.isin(ids_HW, chosen) & valid_HW)
    return torch.stack(masks)


def cutmix_boxes(valid_NHW: Tensor) -> Tensor:
    """Draw a box with half of each image's area, of 1:2 to 2:1 its aspect ratio, anywhere in it.

    French, Laine, Aila, Mackiewicz, Finlayson, BMVC 2020, arXiv 1906.01916.
    """
    count, height, width = valid_NHW.shape
    boxes = torch.zeros_like(valid_NHW, dtype=torch.bool)
    draws_N3 = torch.rand(count, 3, generator=torch.default_generator).tolist()
    for box_HW, (shape, top, left) in zip(boxes, draws_N3, strict=True):
        tall = 0.5**shape  # share of the height; the width shrinks accordingly
        rows, columns = max(1, round(tall * height)), max(1, round(0.5 / tall * width))
        y, x = int(top * (height - rows + 1)), int(left * (width - columns + 1))
        box_HW[y : y + rows, x : x + columns] = True
    return boxes & valid_NHW.roll(1, dims=0)


def strong_colours(images_NCHW: Tensor, settings: SelfTrainingConfig) -> Tensor:
    """Change colours and sharpness of images in [0, 1], but not their geometry."""
    draws_N5 = torch.rand(len(images_NCHW), 5, generator=torch.default_generator)
    draws_N5 = draws_N5.to(images_NCHW.device)
    if settings.jitter > 0:
        images_NCHW = _jittered(images_NCHW, 1 + settings.jitter * (2 * draws_N5[:, :3] - 1))
    if settings.blur > 0:
        sigmas_N = _SIGMA[0] + (_SIGMA[1] - _SIGMA[0]) * draws_N5[:, 3]
        blurred_NCHW = blurred(images_NCHW, sigmas_N)
        is_blurred = (draws_N5[:, 4] < settings.blur).view(-1, 1, 1, 1)
        images_NCHW = torch.where(is_blurred, blurred_NCHW, images_NCHW)
    return images_NCHW


def _jittered(images_NCHW: Tensor, factors_N3: Tensor) -> Tensor:
    """Scale saturation, then contrast, then brightness, each image by its own factors."""
    brightness, contrast, saturation = (f.view(-1, 1, 1, 1) for f in factors_N3.unbind(dim=1))
    luma = torch.tensor(_LUMA_3, device=images_NCHW.device).view(1, 3, 1, 1)
    grey = (images_NCHW * luma).sum(dim=1, keepdim=True)
    images_NCHW = torch.lerp(grey, images_NCHW, saturation)
    images_NCHW = torch.lerp(grey.mean(dim=(2, 3), keepdim=True), images_NCHW, contrast)
    return (images_NCHW * brightness).clamp(0, 1)


def blurred(images_NCHW: Tensor, sigmas_N: Tensor) -> Tensor:
    """Blur each image with a Gaussian of its own width, in pixels; the border is replicated."""
    count, channels, height, width = images_NCHW.shape
    offsets = torch.arange(-_RADIUS, _RADIUS + 1, device=images_NCHW.device)
    weights = torch.exp(-0.5 * (offsets / sigmas_N.view(-1, 1)) ** 2)
    weights = (weights / weights.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)
    flat = images_NCHW.reshape(1, count * channels, height, width)
    for shape, pad in (((-1, 1, 2 * _RADIUS + 1, 1), (0, 0, _RADIUS, _RADIUS)),
                       ((-1, 1, 1, 2 * _RADIUS + 1), (_RADIUS, _RADIUS, 0, 0))):  # fmt: skip
        padded = functional.pad(flat, pad, mode="replicate")
        flat = functional.conv2d(padded, weights.view(shape), groups=count * channels)
    return flat.view(count, channels, height, width)
