"""What a form scores, and that speed is taken of every form."""

from __future__ import annotations

import numpy as np
from tests.export.conftest import noise_images
from tests.models_on_disk import TWO

from fleetseg.export.frames import Frames
from fleetseg.export.measure import images_per_s, scores_of


def bright(images_NHWC: np.ndarray) -> np.ndarray:
    """Class 1 where the red is above a half."""
    red = images_NHWC[..., 0].astype(np.float32) / 255 - 0.5
    return np.stack([np.zeros_like(red), red], axis=1)


def test_scores_are_those_of_one_confusion_matrix_at_the_labels_size() -> None:
    images = noise_images(2, (8, 8))
    labels = [(image_HWC[..., 0] > 127).astype(np.uint8) for image_HWC in images]
    labels[1][:4] = 1 - labels[1][:4]  # half of one image is wrong: a quarter of the pixels
    scores = scores_of(bright, Frames("two", tuple(images), tuple(labels)), TWO)
    assert scores.num_pixels == 2 * 64
    assert scores.pixel_accuracy == 0.75


def test_every_form_is_timed_as_often() -> None:
    calls: dict[str, int] = {"a": 0, "b": 0}

    def form(name: str) -> object:
        def run(images_NHWC: np.ndarray) -> np.ndarray:
            assert images_NHWC.shape == (1, 8, 8, 3)
            calls[name] += 1
            return bright(images_NHWC)

        return run

    rates = images_per_s({"a": form("a"), "b": form("b")}, noise_images(2, (8, 8)), turns=3)  # type: ignore[dict-item]
    assert calls == {"a": 8, "b": 8}  # two images, three turns and one to warm up
    assert all(rate > 0 for rate in rates.values())
