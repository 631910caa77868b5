"""One picture from whatever holds it, or the reason why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fleetseg.data.images import as_rgb
from fleetseg.errors import BadSample, DataError

IMAGE_HWC = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)


def test_a_file_a_picture_and_an_array_are_the_same_image(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(IMAGE_HWC).save(path)
    for image in (path, str(path), Image.open(path), IMAGE_HWC):
        assert as_rgb(image, "x").tolist() == IMAGE_HWC.tolist()


def test_tensors_are_images_with_channels_first_or_last() -> None:
    tensor_HWC = torch.from_numpy(IMAGE_HWC)
    for tensor in (tensor_HWC, tensor_HWC.permute(2, 0, 1)):
        assert as_rgb(tensor, "x").tolist() == IMAGE_HWC.tolist()
    grey_HW = IMAGE_HWC[..., 0]
    for tensor in (torch.from_numpy(grey_HW), torch.from_numpy(grey_HW)[None]):
        assert as_rgb(tensor, "x").tolist() == np.repeat(grey_HW[..., None], 3, axis=2).tolist()


def test_grey_is_repeated_and_alpha_dropped() -> None:
    grey_HW = IMAGE_HWC[..., 0]
    for image in (grey_HW, grey_HW[..., None], Image.fromarray(grey_HW)):
        assert as_rgb(image, "x").tolist() == np.repeat(grey_HW[..., None], 3, axis=2).tolist()
    rgba_HWC = np.concatenate([IMAGE_HWC, grey_HW[..., None]], axis=2)
    assert as_rgb(rgba_HWC, "x").tolist() == IMAGE_HWC.tolist()


def test_a_turned_picture_is_turned_upright() -> None:
    image, exif = Image.fromarray(IMAGE_HWC), Image.Exif()
    exif[0x0112] = 6  # a camera held upright
    image.info["exif"] = exif.tobytes()
    assert as_rgb(image, "x").shape == (4, 2, 3)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (IMAGE_HWC.astype(np.float32), "image 3: .*floating-point.*up to 23.*astype"),
        (torch.rand(3, 4, 4), r"image 3: .*floating-point.*\(image \* 255\)\.round\(\)\.to\(torch"),
        (torch.zeros(3, 0, 4, dtype=torch.uint8), r"image 3: .*empty; got shape \(3, 0, 4\)"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), r"image 3: .*not an image"),
        (IMAGE_HWC.astype(np.int32) * 300, "image 3: the image's values are not colours"),
        (IMAGE_HWC[None], "image 3: .*not an image"),
        (np.zeros((4, 4, 5), np.uint8), r"image 3: .*channels; got 5"),
        (np.zeros((0, 4, 3), np.uint8), "image 3: .*empty"),
        (7, "image 3: .*not an image; got int"),
    ],
)
def test_what_is_no_image_is_refused(image: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        as_rgb(image, "image 3")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_text("no picture")
    with pytest.raises(BadSample, match=r"x\.png: not a picture"):
        as_rgb(path, "image 3")
    with pytest.raises(BadSample, match=r"nowhere\.png: file not found"):
        as_rgb(tmp_path / "nowhere.png", "image 3")
