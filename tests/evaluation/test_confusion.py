"""Confusion matrices: exact counts, equal to torchmetrics, in any order."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import confusion_matrix as sklearn_confusion

from fleetseg.errors import DataError
from fleetseg.evaluation.confusion import MAX_CLASSES, confusion
from fleetseg.rng import generator


def piecewise(rng: np.random.Generator, size: tuple[int, int], num_classes: int) -> np.ndarray:
    """A map of flat 12 x 12 squares: most words of eight pixels are equal."""
    coarse = rng.integers(0, num_classes, (size[0] // 12 + 1, size[1] // 12 + 1), np.uint8)
    return np.kron(coarse, np.ones((12, 12), np.uint8))[: size[0], : size[1]]


def maps(seed: int, num_classes: int, size: tuple[int, int], flat: bool) -> tuple[np.ndarray, ...]:
    rng = generator(seed, purpose="maps")
    if flat:
        labels, preds = (piecewise(rng, size, num_classes) for _ in range(2))
    else:
        labels, preds = (rng.integers(0, num_classes, size, np.uint8) for _ in range(2))
    labels[piecewise(rng, size, 10) == 0] = 255
    return labels, preds


def by_hand(labels: np.ndarray, preds: np.ndarray, num_classes: int) -> np.ndarray:
    conf = np.zeros((num_classes, num_classes), np.int64)
    valid = labels != 255
    np.add.at(conf, (labels[valid].astype(int), preds[valid].astype(int)), 1)
    return conf


def test_counts_truth_in_rows_and_predictions_in_columns():
    labels = np.array([[0, 0, 1], [2, 255, 1]], np.uint8)
    preds = np.array([[0, 2, 1], [2, 0, 0]], np.uint8)
    conf = confusion(labels, preds, 3)
    assert conf.tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 1]]
    assert conf.dtype == np.int64


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("num_classes", [1, 2, 19, 90, 150, MAX_CLASSES])
@pytest.mark.parametrize("size", [(1, 1), (3, 7), (37, 53), (256, 301)])
def test_equals_a_plain_count(num_classes: int, size: tuple[int, int], flat: bool):
    labels, preds = maps(num_classes, num_classes, size, flat)
    assert np.array_equal(
        confusion(labels, preds, num_classes), by_hand(labels, preds, num_classes)
    )


def test_equals_sklearn_over_several_chunks():
    labels, preds = maps(3, 19, (1200, 1500), flat=True)
    labels[:300] = maps(4, 19, (300, 1500), flat=False)[0]
    valid = labels != 255
    theirs = sklearn_confusion(labels[valid], preds[valid], labels=range(19))
    assert np.array_equal(confusion(labels, preds, 19), theirs)


def test_equals_torchmetrics():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchmetrics.functional.classification import multiclass_confusion_matrix
    labels, preds = (torch.from_numpy(ids) for ids in maps(5, 11, (60, 80), flat=True))
    theirs = multiclass_confusion_matrix(preds, labels, 11, ignore_index=255)
    assert np.array_equal(confusion(labels, preds, 11), theirs.numpy())


@pytest.mark.real_data
def test_equals_sklearn_on_real_labels(real_data: Path):
    files = sorted((real_data / "camvid" / "valannot").glob("*.png"))[:2]
    labels, preds = (np.array(Image.open(file)) for file in files)
    labels[labels == 11], preds[preds == 11] = 255, 3
    valid = labels != 255
    theirs = sklearn_confusion(labels[valid], preds[valid], labels=range(11))
    assert np.array_equal(confusion(labels, preds, 11), theirs)


@given(st.integers(0, 99), st.integers(1, 40), st.integers(0, 60), st.booleans())
def test_matrices_add(seed: int, num_classes: int, cut: int, flat: bool):
    labels, preds = maps(seed, num_classes, (60, 33), flat)
    parts = [
        confusion(labels[rows], preds[rows], num_classes)
        for rows in (slice(0, cut), slice(cut, None))
    ]
    assert np.array_equal(parts[0] + parts[1], confusion(labels, preds, num_classes))


@given(st.integers(0, 99), st.integers(1, 40))
def test_the_order_of_pixels_does_not_matter(seed: int, num_classes: int):
    labels, preds = (ids.reshape(-1) for ids in maps(seed, num_classes, (40, 31), flat=True))
    order = generator(seed, purpose="order").permutation(labels.size)
    shuffled = confusion(labels[order], preds[order], num_classes)
    assert np.array_equal(shuffled, confusion(labels, preds, num_classes))
    assert shuffled.sum() == np.count_nonzero(labels != 255)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.uint16])
def test_other_integer_types_and_tensors_count_alike(dtype: type):
    labels, preds = maps(7, 5, (40, 50), flat=True)
    labels[labels == 255] = 100
    expected = confusion(labels, preds, 5, ignore=100)
    assert np.array_equal(confusion(labels.astype(dtype), preds.astype(dtype), 5, 100), expected)
    as_tensors = (torch.from_numpy(labels).long(), torch.from_numpy(preds).long())
    assert np.array_equal(confusion(*as_tensors, 5, 100), expected)


def test_views_that_are_not_contiguous_count_alike():
    labels, preds = maps(8, 5, (40, 50), flat=True)
    expected = by_hand(labels[::-1, ::2], preds[::-1, ::2], 5)
    assert np.array_equal(confusion(labels[::-1, ::2], preds[::-1, ::2], 5), expected)


def test_another_ignore_id_leaves_its_row_empty():
    conf = confusion(np.array([0, 1, 2]), np.array([1, 1, 1]), 3, ignore=1)
    assert conf.tolist() == [[0, 1, 0], [0, 0, 0], [0, 1, 0]]


def test_nothing_in_nothing_out():
    assert confusion(np.zeros((0, 4, 4), np.uint8), np.zeros((0, 4, 4), np.uint8), 2).sum() == 0


def test_inputs_are_not_changed():
    labels, preds = maps(9, 5, (40, 50), flat=True)
    before = labels.copy(), preds.copy()
    confusion(labels, preds, 5)
    assert np.array_equal(labels, before[0])
    assert np.array_equal(preds, before[1])


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_a_label_outside_the_classes_is_named(dtype: type):
    labels = np.array([[0, 24, 26, 255]], dtype)
    with pytest.raises(DataError, match=r"label ids outside the 19 classes; got \{24, 26\}"):
        confusion(labels, np.zeros_like(labels), 19)


def test_a_prediction_outside_the_classes_is_named_even_under_ignored_labels():
    labels = np.full((2, 2), 255, np.uint8)
    with pytest.raises(DataError, match=r"predicted ids outside the 2 classes; got \{2, 255\}"):
        confusion(labels, np.array([[0, 1], [2, 255]], np.uint8), 2)


@pytest.mark.parametrize("wrong", [-1, 256, 70_000])
def test_ids_that_would_wrap_around_in_a_byte_are_refused(wrong: int):
    with pytest.raises(DataError, match=rf"label ids .*got \{{{wrong}\}}"):
        confusion(np.array([0, wrong]), np.array([0, 0]), 2)
    with pytest.raises(DataError, match=rf"predicted ids .*got \{{{wrong}\}}"):
        confusion(np.array([0, 0]), np.array([0, wrong]), 2)


def test_wrong_shapes_types_and_class_counts_are_refused():
    with pytest.raises(DataError, match="differ in shape"):
        confusion(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), 2)
    with pytest.raises(DataError, match="wrong type; got float64"):
        confusion(np.zeros(2), np.zeros(2, np.uint8), 2)
    for num_classes in (0, MAX_CLASSES + 1):
        with pytest.raises(DataError, match="number of classes"):
            confusion(np.zeros(2, np.uint8), np.zeros(2, np.uint8), num_classes)
