"""Erased labels: classes that are kept stay, others get the mark, void stays void."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from fleetseg import rng
from fleetseg.data.augment import Augment
from fleetseg.data.erased import Erased, without_marks
from fleetseg.data.labels import ERASED, IGNORE

IMAGE_HWC = np.zeros((2, 3, 3), np.uint8)
LABEL_HW = np.array([[0, 1, 2], [3, IGNORE, 1]], np.uint8)


@pytest.mark.parametrize("mark", [IGNORE, ERASED])
def test_others_get_the_mark_and_void_stays_void(mark: int) -> None:
    pairs = Erased([(IMAGE_HWC, LABEL_HW)], (1, 3), mark)
    image_HWC, label_HW = pairs[0]
    assert image_HWC is IMAGE_HWC
    assert label_HW.tolist() == [[mark, 1, mark], [3, IGNORE, 1]]
    assert label_HW.dtype == np.uint8
    assert len(pairs) == 1


def test_the_labels_that_are_there_are_not_written_to() -> None:
    stored_HW = LABEL_HW.copy()
    stored_HW.setflags(write=False)
    assert Erased([(IMAGE_HWC, stored_HW)], ())[0][1].tolist() == [[IGNORE] * 3] * 2
    assert stored_HW.tolist() == LABEL_HW.tolist()


def test_with_all_classes_nothing_is_erased() -> None:
    label_HW = Erased([(IMAGE_HWC, LABEL_HW)], (0, 1, 2, 3), ERASED)[0][1]
    assert label_HW.tolist() == LABEL_HW.tolist()


def test_without_marks_an_erased_pixel_is_void() -> None:
    label_HW = Erased([(IMAGE_HWC, LABEL_HW)], (1, 3), ERASED)[0][1]
    assert without_marks(label_HW).tolist() == [[IGNORE, 1, IGNORE], [3, IGNORE, 1]]


def test_marks_go_through_augmentation_and_what_is_outside_of_a_picture_is_void() -> None:
    """Beside a picture there is nothing that could be an example of the other classes."""
    label_HW = np.repeat(np.repeat(LABEL_HW, 4, axis=0), 4, axis=1)
    pairs = Erased([(np.zeros((*label_HW.shape, 3), np.uint8), label_HW)], (1, 3), ERASED)
    augment = Augment((16, 24), scale=(0.5, 0.5), flip=True, colour_jitter=0.2)
    _, labels_NHW = augment.batch([pairs[0]], rng.generator(0, purpose="erased-test"))
    counts = dict(
        zip(*(a.tolist() for a in np.unique(labels_NHW, return_counts=True)), strict=True)
    )
    # A quarter of each class's pixels; all that is left of the crop is void.
    assert counts == {1: 8, 3: 4, ERASED: 8, IGNORE: 16 * 24 - 20}


def test_it_crosses_to_another_process() -> None:
    pairs = Erased([(IMAGE_HWC, LABEL_HW)], (1,), ERASED)
    assert pairs[0][1][0, 0] == ERASED  # the table is made by now
    there = pickle.loads(pickle.dumps(pairs))
    assert there[0][1].tolist() == pairs[0][1].tolist()
