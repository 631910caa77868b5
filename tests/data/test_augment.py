"""Augmentation keeps images and labels aligned and depends on its generator alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from torch import Tensor

from fleetseg import rng
from fleetseg.config import TrainingConfig
from fleetseg.data.augment import Augment, Pair, to_batch
from fleetseg.data.labels import IGNORE

COLOURS = np.array([[230, 20, 20], [20, 230, 20], [20, 20, 230], [220, 220, 30]], dtype=np.uint8)
GREY = 127


def coloured(label_HW: np.ndarray) -> Pair:
    """A pair whose image shows each class in its own colour."""
    return COLOURS[label_HW], label_HW


def blocks(seed: int, size_hw: tuple[int, int] = (96, 128), block: int = 16) -> Pair:
    generator = rng.generator(seed)
    small_HW = generator.integers(0, 4, (size_hw[0] // block, size_hw[1] // block), dtype=np.uint8)
    return coloured(np.kron(small_HW, np.ones((block, block), dtype=np.uint8)))


def nearest_colour(image_CHW: Tensor) -> np.ndarray:
    """Class whose colour is nearest, and its distance in levels, both (H, W)."""
    image_HW1C = 255 * image_CHW.permute(1, 2, 0).numpy()[:, :, None]
    return np.abs(image_HW1C - COLOURS).max(axis=3).argmin(axis=2)


def away_from_borders(label_HW: np.ndarray, margin: int) -> np.ndarray:
    """Pixels whose neighbourhood of +- margin has one label."""
    same = np.ones(label_HW.shape, dtype=bool)
    padded = np.pad(label_HW, margin, mode="edge")
    height, width = label_HW.shape
    for dy in range(2 * margin + 1):
        for dx in range(2 * margin + 1):
            same &= padded[dy : dy + height, dx : dx + width] == label_HW
    return same


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 10_000),
    scale=st.floats(0.4, 2.5),
    crop=st.tuples(st.integers(20, 140), st.integers(20, 160)),
)
def test_image_and_label_stay_aligned(seed: int, scale: float, crop: tuple[int, int]) -> None:
    augment = Augment(crop, (scale, scale), flip=True)
    images_NCHW, labels_NHW = augment.batch([blocks(seed), blocks(seed + 1)], rng.generator(seed))
    assert images_NCHW.shape == (2, 3, *crop)
    assert labels_NHW.shape == (2, *crop)
    for image_CHW, label in zip(images_NCHW, labels_NHW, strict=True):
        label_HW = label.numpy()
        inside = (label_HW != IGNORE) & away_from_borders(label_HW, 2)
        assert (nearest_colour(image_CHW)[inside] == label_HW[inside]).all()
        ignored_CP = image_CHW[:, torch.from_numpy(label_HW == IGNORE)]
        assert (ignored_CP == GREY / 255).all()


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.25, 2.0, 3.0])
@pytest.mark.parametrize("axis", [0, 1])
def test_half_pixel_centres_agree(scale: float, axis: int) -> None:
    # A ramp whose grey value is (almost) the source coordinate, and a label that is exactly it:
    # resampled, they differ by the rounding to the nearest pixel only, without a bias.
    size = 120
    coordinate_HW = np.broadcast_to(np.arange(size, dtype=np.uint8), (size, size))
    if axis == 0:
        coordinate_HW = coordinate_HW.T
    pair = (np.repeat(2 * coordinate_HW[:, :, None], 3, axis=2), coordinate_HW)
    augment = Augment((60, 60), (scale, scale))
    images_NCHW, labels_NHW = augment.batch([pair], rng.generator(1))
    shown_HW = 255 * images_NCHW[0, 0].numpy() / 2
    gap_HW = (shown_HW - labels_NHW[0].numpy())[2:-2, 2:-2]
    # Bilinear takes the centre of what nearest rounds down to: at most half a pixel each way, and
    # half a grey level of rounding, which is a quarter of a pixel.
    assert np.abs(gap_HW).max() <= 0.76
    # At exactly one half every centre lies between two pixels, and nearest always takes the later.
    assert abs(gap_HW.mean()) <= (0.51 if scale == 0.5 else 0.27)


def test_twice_the_size_by_hand() -> None:
    label_HW = np.array([[0, 1], [2, 3]], dtype=np.uint8)
    image_HWC = np.repeat(np.array([[0, 40], [80, 120]], dtype=np.uint8)[:, :, None], 3, axis=2)
    images_NCHW, labels_NHW = Augment((4, 4), (2.0, 2.0)).batch(
        [(image_HWC, label_HW)], rng.generator(0)
    )
    assert labels_NHW[0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    row = np.array([0, 10, 30, 40])
    expected_HW = row[None, :] + np.array([0, 20, 60, 80])[:, None]
    assert (255 * images_NCHW[0, 0]).round().numpy() == pytest.approx(expected_HW, abs=1)


@pytest.mark.parametrize("scale", [0.6, 1.7])
def test_resizing_agrees_with_pil(scale: float) -> None:
    # A crop of the whole scaled picture, so that the window is known.
    generator = rng.generator(3)
    image_HWC = generator.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    crop_hw = (round(60 * scale), round(80 * scale))
    pair = (image_HWC, np.zeros((60, 80), dtype=np.uint8))
    images_NCHW, _ = Augment(crop_hw, (scale, scale)).batch([pair], rng.generator(0))
    reference = Image.fromarray(image_HWC).resize(crop_hw[::-1], Image.Resampling.BILINEAR)
    ours_HWC = 255 * images_NCHW[0].permute(1, 2, 0).numpy()
    assert np.abs(ours_HWC - np.asarray(reference).astype(np.float32)).max() < 2


def test_a_small_picture_is_padded_with_grey_and_ignore() -> None:
    pair = coloured(np.full((10, 12), 1, dtype=np.uint8))
    images_NCHW, labels_NHW = Augment((16, 20), flip=True, colour_jitter=0.5).batch(
        [pair] * 20, rng.generator(0)
    )
    valid_NHW = labels_NHW != IGNORE
    assert (valid_NHW.sum(dim=(1, 2)) == 120).all()  # all of the picture, nothing twice
    assert (labels_NHW[valid_NHW] == 1).all()
    # The padding keeps its grey: only the picture is jittered.
    outside_PC = images_NCHW.permute(0, 2, 3, 1)[~valid_NHW]
    assert (outside_PC == GREY / 255).all()
    assert len({tuple(v.nonzero()[0].tolist()) for v in valid_NHW}) > 5  # it moves about


def test_crops_reach_every_corner() -> None:
    label_HW = np.zeros((8, 8), dtype=np.uint8)
    label_HW[[0, 0, 7, 7], [0, 7, 0, 7]] = [1, 2, 3, 1]
    _, labels_NHW = Augment((6, 6)).batch([coloured(label_HW)] * 200, rng.generator(0))
    windows, counts = np.unique(labels_NHW.numpy().reshape(200, -1), axis=0, return_counts=True)
    corners = [labels_NHW[:, y, x].amax() > 0 for y in (0, 5) for x in (0, 5)]
    assert all(corners)
    # Nine places, uniformly: four show one corner each, five show none.
    assert len(windows) == 5
    assert counts.min() > 8


def test_flips_about_half_and_both_together() -> None:
    pair = coloured(np.repeat(np.array([[0, 1, 2, 3]], dtype=np.uint8), 4, axis=0))
    images_NCHW, labels_NHW = Augment((4, 4), flip=True).batch([pair] * 200, rng.generator(0))
    flipped = labels_NHW[:, 0, 0] == 3
    assert 70 < int(flipped.sum()) < 130
    for image_CHW, label_HW in zip(images_NCHW, labels_NHW, strict=True):
        assert (nearest_colour(image_CHW) == label_HW.numpy()).all()


def pil_jitter(image_HWC: np.ndarray, brightness: float, contrast: float, saturation: float):  # type: ignore[no-untyped-def]
    picture = ImageEnhance.Color(Image.fromarray(image_HWC)).enhance(saturation)
    picture = ImageEnhance.Contrast(picture).enhance(contrast)
    return np.asarray(ImageEnhance.Brightness(picture).enhance(brightness))


def test_colour_jitter_agrees_with_pil() -> None:
    # Middling colours, so that no step clips: ours clips once at the end, PIL after each.
    image_HWC = rng.generator(5).integers(90, 160, (64, 64, 3), dtype=np.uint8)
    label_HW = np.zeros((64, 64), dtype=np.uint8)
    numbers = rng.generator(11).random((1, 8))
    brightness, contrast, saturation = 1 + 0.25 * (2 * numbers[0, 4:7] - 1)
    expected_HWC = pil_jitter(image_HWC, brightness, contrast, saturation).astype(np.float32)
    images_NCHW, labels_NHW = Augment((64, 64), colour_jitter=0.25).batch(
        [(image_HWC, label_HW)], rng.generator(11)
    )
    ours_HWC = 255 * images_NCHW[0].permute(1, 2, 0).numpy()
    assert np.abs(ours_HWC - image_HWC).max() > 10  # something happened
    assert np.abs(ours_HWC - expected_HWC).max() <= 3  # PIL rounds three times, ours once
    assert (labels_NHW == 0).all()


def test_colour_jitter_clips() -> None:
    image_HWC = np.zeros((8, 8, 3), dtype=np.uint8)
    image_HWC[4:] = 255
    pair = (image_HWC, np.zeros((8, 8), dtype=np.uint8))
    images_NCHW, _ = Augment((8, 8), colour_jitter=1.0).batch([pair] * 50, rng.generator(0))
    top_NC, bottom_NC = images_NCHW[:, :, 0, 0], images_NCHW[:, :, 7, 7]
    assert (top_NC <= bottom_NC).all()  # no wrap-around from 255 to 0
    assert images_NCHW.amin() >= 0
    assert images_NCHW.amax() <= 1


def test_the_same_generator_gives_the_same_batch() -> None:
    pairs = [blocks(i) for i in range(4)]
    augment = Augment((64, 64), (0.75, 1.5), flip=True, colour_jitter=0.25)
    one, same, other = (augment.batch(pairs, rng.generator(s)) for s in (1, 1, 2))
    assert torch.equal(one[0], same[0])
    assert torch.equal(one[1], same[1])
    assert not torch.equal(one[0], other[0])


def test_a_sample_does_not_depend_on_the_others() -> None:
    augment = Augment((64, 64), (0.5, 2.0), flip=True, colour_jitter=0.25)
    one = augment.batch([blocks(0), blocks(1), blocks(2)], rng.generator(7))
    other = augment.batch([blocks(0, (32, 48)), blocks(3), blocks(2)], rng.generator(7))
    assert torch.equal(one[0][2], other[0][2])
    assert torch.equal(one[1][2], other[1][2])


def test_an_option_does_not_change_what_the_others_do() -> None:
    pairs = [blocks(i) for i in range(6)]
    plain = Augment((64, 64), (0.5, 2.0)).batch(pairs, rng.generator(7))
    jittered = Augment((64, 64), (0.5, 2.0), colour_jitter=0.5).batch(pairs, rng.generator(7))
    flipped = Augment((64, 64), (0.5, 2.0), flip=True).batch(pairs, rng.generator(7))
    assert torch.equal(plain[1], jittered[1])
    for label_HW, flipped_HW in zip(plain[1], flipped[1], strict=True):
        assert torch.equal(flipped_HW, label_HW) or torch.equal(flipped_HW, label_HW.flip(1))


def test_without_options_a_batch_is_a_plain_stack() -> None:
    generator = rng.generator(9)
    pairs = [
        (
            generator.integers(0, 256, (24, 32, 3), dtype=np.uint8),
            generator.integers(0, 9, (24, 32), np.uint8),
        )
        for _ in range(3)
    ]
    training = TrainingConfig(scale=(1.0, 1.0), flip=False, colour_jitter=0.0)
    images_NCHW, labels_NHW = Augment.from_config(training, (24, 32)).batch(pairs, rng.generator(0))
    evaluated = to_batch(pairs)
    for images, labels in ((images_NCHW, labels_NHW), evaluated):
        assert images.dtype == torch.float32
        assert labels.dtype == torch.uint8
        assert images.is_contiguous(memory_format=torch.channels_last)
        bytes_NHWC = np.stack([image for image, _ in pairs])
        assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), bytes_NHWC / np.float32(255))
        assert np.array_equal(labels.numpy(), np.stack([label for _, label in pairs]))


def test_read_only_pairs_are_left_alone() -> None:
    # The cache hands out read-only memory maps, of which torch would complain.
    pair = blocks(1)
    before = [array.copy() for array in pair]
    for array in pair:
        array.flags.writeable = False
    for options in ((1.0, 1.0), (0.7, 1.6)):
        Augment((96, 128), options, flip=True, colour_jitter=0.3).batch(
            [pair] * 8, rng.generator(0)
        )
    to_batch([pair])
    assert all(np.array_equal(a, b) for a, b in zip(pair, before, strict=True))


def test_sizes_may_differ_within_a_batch() -> None:
    pairs = [blocks(0, (32, 48)), blocks(1, (96, 128)), blocks(2, (160, 48))]
    training = TrainingConfig(crop=None)
    images_NCHW, labels_NHW = Augment.from_config(training, (64, 80)).batch(pairs, rng.generator(0))
    assert images_NCHW.shape == (3, 3, 64, 80)
    assert labels_NHW.shape == (3, 64, 80)


def test_from_config_reads_every_option() -> None:
    training = TrainingConfig(crop=(32, 48), scale=(0.5, 2.0), flip=False, colour_jitter=0.1)
    assert Augment.from_config(training, (64, 64)) == Augment((32, 48), (0.5, 2.0), False, 0.1)
    assert Augment.from_config(TrainingConfig(crop=None), (64, 96)).crop_hw == (64, 96)


@pytest.mark.real_data
def test_real_frames_keep_their_classes(real_data: Path) -> None:
    frames = sorted((real_data / "camvid" / "train").glob("*.png"))[::90]
    pairs = []
    for frame in frames:
        label_HW = np.array(Image.open(real_data / "camvid" / "trainannot" / frame.name))
        label_HW[label_HW == 11] = IGNORE
        pairs.append((np.array(Image.open(frame).convert("RGB")), label_HW))
    training = TrainingConfig(crop=(240, 320))
    images_NCHW, labels_NHW = Augment.from_config(training, (360, 480)).batch(
        pairs, rng.generator(0)
    )
    assert set(np.unique(labels_NHW.numpy())) <= {*range(11), IGNORE}
    assert (labels_NHW != IGNORE).float().mean() > 0.8
    assert 0.1 < images_NCHW.mean() < 0.7
