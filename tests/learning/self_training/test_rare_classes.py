"""Images with rare classes come more often: chances by hand, draws as they say, labels unseen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.learning.self_training.test_step import SIZE_HW, small_model, trained, unlabelled
from torch import Tensor, nn

from fleetseg import rng
from fleetseg.data.labels import IGNORE
from fleetseg.learning.self_training import Teachers, view_without_labels
from fleetseg.learning.self_training.rare_classes import class_chances, drawn_by_class

PIXELS = SIZE_HW[0] * SIZE_HW[1]


def draws(counts: list[list[int]], temperature: float, purpose: str = "draw") -> list[int]:
    generator = rng.generator(3, purpose=purpose)
    return drawn_by_class(np.array(counts), PIXELS, temperature, generator)


def test_chances_by_hand() -> None:
    """Shares 3/4 and 1/4 at temperature 1/2: e^(1/2) to e^(3/2)."""
    e = np.e
    chances_C = class_chances(np.array([30, 10, 0]), 0.5)
    assert chances_C == pytest.approx([1 / (1 + e), e / (1 + e), 0])
    assert class_chances(np.array([5, 5]), 0.01) == pytest.approx([0.5, 0.5])
    assert class_chances(np.array([0, 999_999, 1]), 1e-6).tolist() == [0, 0, 1]  # no overflow


def test_images_are_drawn_by_class_then_alike() -> None:
    """Class 1 is in images 0 and 1 only; nearly always drawn, each of the two in half of draws."""
    counts = [[50, 4], [50, 4], *[[50, 0]] * 998]
    chosen = draws(counts, 0.05)
    often = np.bincount(chosen, minlength=1000)
    assert often.sum() == 1000
    assert often[2:].sum() < 5
    assert abs(often[0] - often[1]) < 150


def test_at_a_high_temperature_classes_are_alike() -> None:
    many = np.bincount(
        [k for seed in range(200) for k in draws([[60, 0], *[[0, 1]] * 9], 1e6, f"draw {seed}")],
        minlength=10,
    )
    assert many[0] / many.sum() == pytest.approx(0.5, abs=0.05)


def test_nothing_seen_leaves_all_as_it_is() -> None:
    assert draws([[0, 0]] * 4, 0.01) == [0, 1, 2, 3]
    few = drawn_by_class(np.array([[5, 0], [5, 0]]), 100_000, 0.01, rng.generator(3))
    assert few == [0, 1]  # less than a thousandth of an image


class Colours(nn.Module):
    """Sees class 2 where a picture is blue, and else class 0: surely, or not so."""

    def __init__(self, sureness: float = 20.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(sureness))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        blue_NHW = images_NCHW[:, 2]
        return self.scale * torch.stack([1 - blue_NHW, 0 * blue_NHW - 1, blue_NHW], dim=1)


def pictures(blue: int, count: int = 8) -> list[tuple[np.ndarray, np.ndarray]]:
    images = np.zeros((count, *SIZE_HW, 3), np.uint8)
    images[:blue, :1, :, 2] = 255  # a row of it
    return [(image, np.full(SIZE_HW, k % 3, np.uint8)) for k, image in enumerate(images)]


@pytest.mark.parametrize("select", ["threshold", "class share", "either", "quality"])
def test_the_teacher_says_what_is_rare(select: str) -> None:
    given = unlabelled(rare_classes=0.01, select=select)
    given = replace(given, survey=Teachers(Colours().eval(), None))
    _, drawn = view_without_labels(given, pictures(blue=1))
    assert len(drawn) == 8
    blues = [int(drawn[k][0][0, 0, 2]) for k in range(8)]
    assert blues == [255] * 8
    assert {int(label) for k in range(8) for label in np.unique(drawn[k][1])} == {0}


def test_off_each_image_comes_once() -> None:
    given = replace(unlabelled(), survey=Teachers(Colours().eval(), None))
    _, view = view_without_labels(given, pictures(blue=1))
    assert [int(view[k][0][0, 0, 2]) for k in range(8)] == [255, *[0] * 7]


def test_what_is_not_sure_counts_for_nothing() -> None:
    given = unlabelled(rare_classes=0.01, select="threshold", confidence=0.9)
    given = replace(given, survey=Teachers(Colours(0.1).eval(), None))
    _, view = view_without_labels(given, pictures(blue=1))
    assert [int(view[k][0][0, 0, 2]) for k in range(8)] == [255, *[0] * 7]


def test_training_is_the_same_whatever_the_labels_are() -> None:
    def model_of(label: int, **settings: Any) -> dict[str, Tensor]:
        pairs = [(image, np.full(SIZE_HW, label, np.uint8)) for image, _ in pictures(blue=3)]
        return trained(unlabelled(**settings), pairs)[0]

    plain = model_of(IGNORE)
    on = {"rare_classes": 0.05, "select": "class share"}
    first, second = model_of(IGNORE, **on), model_of(2, **on)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], plain[key]) for key in first)
    assert small_model().state_dict().keys() == first.keys()
