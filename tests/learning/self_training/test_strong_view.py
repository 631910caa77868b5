"""What the student sees: things stay where they are, and pieces come with their pseudo-labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fleetseg import rng
from fleetseg.config import SelfTrainingConfig
from fleetseg.learning.self_training.strong_view import (
    Mix,
    blurred,
    classmix_masks,
    cutmix_boxes,
    draw_mix,
    strong_colours,
)

IDS = torch.tensor([[[0, 0, 1], [2, 2, 1]], [[3, 3, 3], [4, 4, 4]]])
ALL = torch.ones_like(IDS, dtype=torch.bool)


@pytest.mark.parametrize("seed", range(5))
def test_classmix_takes_half_of_an_image_s_classes_rounded_up_and_all_of_each(seed: int) -> None:
    with rng.torch_default(seed, purpose="mix-test"):
        masks = classmix_masks(IDS, ALL)
    for ids, mask, wanted in zip(IDS, masks, (2, 1), strict=True):
        taken = set(ids[mask].tolist())
        assert len(taken) == wanted
        assert taken.isdisjoint(ids[~mask].tolist())


def test_classmix_takes_no_padding() -> None:
    valid = ALL.clone()
    valid[0, 1] = False
    with rng.torch_default(0, purpose="mix-test"):
        masks = classmix_masks(IDS, valid)
    assert not bool((masks & ~valid).any())


def test_cutmix_takes_a_box_of_half_the_image() -> None:
    valid = torch.ones(20, 32, 48, dtype=torch.bool)
    with rng.torch_default(0, purpose="mix-test"):
        boxes = cutmix_boxes(valid)
    for box in boxes:
        rows, columns = box.any(dim=1), box.any(dim=0)
        assert int(box.sum()) == int(rows.sum()) * int(columns.sum())
        assert float(box.float().mean()) == pytest.approx(0.5, abs=0.03)
    assert len({tuple(box.nonzero()[0].tolist()) for box in boxes}) > 5


def test_all_of_a_batch_is_mixed_alike() -> None:
    """Pieces come from the image before, with what is said of them."""
    images = torch.arange(2.0).view(2, 1, 1, 1).expand(2, 3, 2, 3)
    ids = torch.tensor([[[5] * 3] * 2, [[7] * 3] * 2])
    taken = torch.zeros(2, 2, 3, dtype=torch.bool)
    taken[0, 0, 1] = True
    mix = Mix(taken)
    assert mix(images)[0, :, 0, 1].tolist() == [1, 1, 1]
    assert mix(ids)[0, 0].tolist() == [5, 7, 5]
    assert torch.equal(mix(ids)[1], ids[1])


def test_one_image_has_nothing_to_be_mixed_with() -> None:
    assert draw_mix(IDS[:1], ALL[:1], SelfTrainingConfig(mix="classmix")).taken_NHW is None
    assert draw_mix(IDS, ALL, SelfTrainingConfig(mix="none")).taken_NHW is None
    assert draw_mix(IDS, ALL, SelfTrainingConfig(mix="cutmix")).taken_NHW is not None


def by_numpy(image_HW: np.ndarray, sigma: float) -> np.ndarray:
    """A window of 7 x 7, edges repeated, pixel by pixel."""
    offsets = np.arange(-3, 4)
    kernel = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * sigma**2))
    padded = np.pad(image_HW, 3, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7))
    return np.asarray((windows * kernel / kernel.sum()).sum(axis=(2, 3)))


def test_blur_is_a_gaussian_of_each_image_s_own_width() -> None:
    images = torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    sigmas = torch.tensor([0.4, 1.0])
    told = blurred(images, sigmas)
    for image, sigma, other in zip(images, sigmas.tolist(), told, strict=True):
        wanted = np.stack([by_numpy(one.numpy(), sigma) for one in image])
        assert np.allclose(other.numpy(), wanted, atol=1e-6)


def test_colours_stay_in_their_range_and_off_is_the_image_itself() -> None:
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with rng.torch_default(0, purpose="mix-test"):
        changed = strong_colours(images, SelfTrainingConfig(jitter=1.0, blur=1.0))
        same = strong_colours(images, SelfTrainingConfig(jitter=0.0, blur=0.0))
    assert torch.equal(same, images)
    assert 0 <= changed.min() <= changed.max() <= 1
    assert not torch.equal(changed[0], images[0])


def test_grey_stays_grey() -> None:
    grey = torch.full((3, 3, 4, 4), 0.5)
    with rng.torch_default(1, purpose="mix-test"):
        changed = strong_colours(grey, SelfTrainingConfig(jitter=0.5, blur=0.0))
    assert torch.allclose(changed[:, 0], changed[:, 1], atol=1e-6)
    assert changed[:, 0].flatten(1).std(dim=1).max() < 1e-6
