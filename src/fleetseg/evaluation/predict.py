"""Predictions of a network and their confusion matrices, each at the label's own resolution.

Shapes: N images, H x W pixels, C classes; images NHWC uint8, logits NCHW, predictions NHW uint8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from fleetseg.data.sample import Image_HWC, Label_HW, Pairs
from fleetseg.errors import DataError, ModelError, OutOfMemory
from fleetseg.evaluation.confusion import Conf_CC, confusion
from fleetseg.memory import first_words, free, is_out_of_memory

Context = Callable[[], AbstractContextManager[Any]]
"""Factory of the context of each forward pass, such as
`lambda: torch.autocast("cpu", torch.bfloat16)`."""

OnImage = Callable[[int, Conf_CC], None]
"""Called with (index, confusion matrix) of every image that is scored, in any order."""
Images_NHWC = npt.NDArray[np.uint8]
Looked = TypeVar("Looked")
"""The result computed from the logits of a batch."""


def unheard(index: int, conf_CC: Conf_CC) -> None:
    """Ignore single images: the default `OnImage`."""


_HELD_BATCHES = 4  # read ahead, to collect images of one size
_Group = list[tuple[int, Image_HWC, Label_HW]]


def predict(
    model: nn.Module,
    images_NHWC: npt.NDArray[np.uint8],
    size_hw: tuple[int, int],
    *,
    device: torch.device | str = "cpu",
    context: Context = nullcontext,
) -> npt.NDArray[np.uint8]:
    """Predict the class of every pixel at `size_hw`, shape (N, *size_hw).

    The model takes (N, 3, H, W) in [0, 1] and returns logits (N, C, h, w) at any resolution, which
    are resized bilinearly in float32 before the argmax. The model's mode is left unchanged. A batch
    that does not fit into memory is predicted in parts.

    Raises:
        ModelError: the model returns something else.
        OutOfMemory: not even one image fits.
    """
    with evaluating(model):
        return _predict_in_parts(model, images_NHWC, size_hw, device, context)


def evaluate_pairs(
    model: nn.Module,
    pairs: Pairs,
    *,
    num_classes: int,
    batch_size: int = 8,
    device: torch.device | str = "cpu",
    context: Context = nullcontext,
) -> Conf_CC:
    """Score a model on all pairs: one confusion matrix at the labels' own resolution.

    Raises:
        DataError: there are no pairs, or a label id is outside the classes.
        ModelError: the model does not return logits of `num_classes` classes.
        OutOfMemory: not even one image fits; a batch that does not is scored in parts.
    """
    by_domain = evaluate_by_domain(
        model,
        pairs,
        [""] * len(pairs),
        num_classes=num_classes,
        batch_size=batch_size,
        device=device,
        context=context,
    )
    return by_domain[""]


def evaluate_by_domain(
    model: nn.Module,
    pairs: Pairs,
    domains: Sequence[str],
    *,
    num_classes: int,
    batch_size: int = 8,
    device: torch.device | str = "cpu",
    context: Context = nullcontext,
    on_image: OnImage = unheard,
) -> dict[str, Conf_CC]:
    """Score a model on all pairs in one pass: one confusion matrix for each name in `domains`.

    Raises:
        DataError: no pairs, not one domain per pair, or a label id outside the classes.
        ModelError: the model does not return logits of `num_classes` classes.
        OutOfMemory: not even one image fits; a batch that does not is scored in parts.
    """
    if len(pairs) == 0:
        raise DataError(
            "nothing to evaluate on",
            got="0 images",
            expected="at least one",
            cure="Check the split's name and its folder, or leave this evaluation out.",
        )
    if len(domains) != len(pairs):
        raise DataError("not one domain for each image", got=len(domains), expected=f"{len(pairs)}")
    conf_by_domain = {
        domain: np.zeros((num_classes, num_classes), np.int64) for domain in sorted(set(domains))
    }
    num_scored = 0
    with evaluating(model):
        for group in _batches_of_one_size(pairs, batch_size):
            images_NHWC = np.stack([image_HWC for _, image_HWC, _ in group])
            size_hw = group[0][2].shape
            preds_NHW = _predict_in_parts(model, images_NHWC, size_hw, device, context, num_classes)
            for (index, _, label_HW), pred_HW in zip(group, preds_NHW, strict=True):
                conf_CC = confusion(label_HW, pred_HW, num_classes)
                conf_by_domain[domains[index]] += conf_CC
                on_image(index, conf_CC)
            num_scored += len(group)
    assert num_scored == len(pairs), (num_scored, len(pairs))
    return conf_by_domain


def _batches_of_one_size(pairs: Pairs, batch_size: int) -> Iterator[_Group]:
    """Yield all pairs in batches with equal image sizes and equal label sizes.

    Only a few batches are held at a time: if there are more sizes than that, the least recently
    extended group is yielded before it is full.
    """
    waiting: dict[tuple[tuple[int, ...], tuple[int, ...]], _Group] = {}
    num_held = 0
    for index in range(len(pairs)):
        image_HWC, label_HW = pairs[index]
        key = (image_HWC.shape, label_HW.shape)
        waiting[key] = [*waiting.pop(key, ()), (index, image_HWC, label_HW)]  # becomes the last key
        num_held += 1
        if len(waiting[key]) < batch_size:
            if num_held < _HELD_BATCHES * batch_size:
                continue
            key = next(iter(waiting))
        group = waiting.pop(key)
        num_held -= len(group)
        yield group
    while waiting:
        yield waiting.pop(next(iter(waiting)))


def _predict_in_parts(
    model: nn.Module,
    images_NHWC: npt.NDArray[np.uint8],
    size_hw: tuple[int, ...],
    device: torch.device | str,
    context: Context,
    num_classes: int | None = None,
) -> npt.NDArray[np.uint8]:
    def look(part_NHWC: Images_NHWC) -> npt.NDArray[np.uint8]:
        return _predict(model, part_NHWC, size_hw, device, context, num_classes)

    return np.concatenate(in_parts(look, images_NHWC, device))


def in_parts(
    look: Callable[[Images_NHWC], Looked], images_NHWC: Images_NHWC, device: torch.device | str
) -> list[Looked]:
    """Process a batch, or one half after the other if memory is too small for the whole.

    Raises:
        OutOfMemory: not even one image fits.
    """
    count = len(images_NHWC)
    try:
        return [look(images_NHWC)]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if count == 1:
            raise OutOfMemory(
                f"out of memory while scoring one image on {device}",
                got=first_words(error),
                cure="Use a smaller data.size, or fewer processes on the device",
            ) from None
    free(torch.device(device))  # only now the stack frames of the failed attempt are released
    halves = (images_NHWC[: count // 2], images_NHWC[count // 2 :])
    return [looked for half in halves for looked in in_parts(look, half, device)]


def _predict(
    model: nn.Module,
    images_NHWC: Images_NHWC,
    size_hw: tuple[int, ...],
    device: torch.device | str,
    context: Context,
    num_classes: int | None = None,
) -> npt.NDArray[np.uint8]:
    logits_NCHW = forward(
        model, images_NHWC, device=device, context=context, num_classes=num_classes
    )
    return at_size(logits_NCHW, size_hw)


def forward(
    model: Callable[[torch.Tensor], Any],
    images_NHWC: Images_NHWC,
    *,
    device: torch.device | str,
    context: Context,
    num_classes: int | None = None,
) -> torch.Tensor:
    """Return float32 logits of a batch on the device, at the model's own resolution.

    Raises:
        ModelError: the model returns something else.
    """
    # NHWC bytes viewed as NCHW are already channels-last, the preferred layout of CPUs and tensor
    # cores.
    images = torch.from_numpy(np.require(images_NHWC, requirements=["C", "W"]))
    images_NCHW = images.to(device).permute(0, 3, 1, 2).float() / 255
    if images_NCHW.device.type == "mps":
        images_NCHW = images_NCHW.contiguous()  # see Hardware.memory_format
    with context():
        logits_NCHW = model(images_NCHW)
    _check_logits(logits_NCHW, len(images_NHWC), num_classes)
    return logits_NCHW.float()  # type: ignore[no-any-return]


def at_size(logits_NCHW: torch.Tensor, size_hw: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return the class of every pixel at `size_hw`."""
    if logits_NCHW.device.type == "cpu":
        return np.stack([_argmax_on_cpu(logits_CHW, size_hw) for logits_CHW in logits_NCHW])
    preds_NHW = resized(logits_NCHW, size_hw).argmax(dim=1).to(torch.uint8)
    return preds_NHW.cpu().numpy()


def resized(logits_NCHW: torch.Tensor, size_hw: tuple[int, ...]) -> torch.Tensor:
    """Return logits at `size_hw`, as used for scores and predictions."""
    if tuple(logits_NCHW.shape[-2:]) == size_hw:
        return logits_NCHW
    return functional.interpolate(logits_NCHW, size_hw, mode="bilinear", align_corners=False)


def _argmax_on_cpu(logits_CHW: torch.Tensor, size_hw: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Resize and take the argmax, class by class; the first of equal logits wins.

    torch's argmax over a strided dimension is 5 to 7 times slower on a CPU, and the resized logits
    of all classes do not fit into its caches.
    """
    logits_CHW = logits_CHW.contiguous()
    best_HW = resized(logits_CHW[None, :1], size_hw)[0, 0].numpy().copy()
    pred_HW = np.zeros(size_hw, np.uint8)
    better_HW = np.empty(size_hw, np.bool_)
    candidate_HW = better_HW.view(np.uint8)  # shares memory: 1 where better, then the class
    for class_id in range(1, len(logits_CHW)):
        logit_HW = resized(logits_CHW[None, class_id : class_id + 1], size_hw)[0, 0].numpy()
        np.greater(logit_HW, best_HW, out=better_HW)
        np.multiply(candidate_HW, np.uint8(class_id), out=candidate_HW)
        np.maximum(pred_HW, candidate_HW, out=pred_HW)  # later classes have larger ids
        np.maximum(best_HW, logit_HW, out=best_HW)
    return pred_HW


def _check_logits(logits_NCHW: object, num_images: int, num_classes: int | None) -> None:
    if not isinstance(logits_NCHW, torch.Tensor):
        raise ModelError(
            "the model does not return a tensor in evaluation mode",
            got=type(logits_NCHW).__name__,
            expected="logits of shape (N, classes, H, W)",
            cure="Return auxiliary outputs only while model.training is true.",
        )
    shape = tuple(logits_NCHW.shape)
    wrong_classes = num_classes is not None and len(shape) == 4 and shape[1] != num_classes
    if len(shape) != 4 or shape[0] != num_images or wrong_classes:
        raise ModelError(
            "the model's output has a wrong shape",
            got=shape,
            expected=f"({num_images}, {num_classes or 'classes'}, H, W)",
            cure="Build the model with as many classes as the label space has.",
        )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode without gradients, and restore every module's mode afterwards."""
    # Checking the modes of hundreds of modules is faster than setting them twice for each image.
    training = [module for module in model.modules() if module.training]
    if training:
        model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True
