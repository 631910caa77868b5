"""Means of features by class: by hand, with padding, ignored pixels and classes that are absent."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fleetseg import rng
from fleetseg.data.labels import IGNORE
from fleetseg.learning.class_means import class_means, labels_at_centres


def test_by_hand() -> None:
    features_NDhw = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[10.0, 20.0], [30.0, 40.0]]]])
    labels_NHW = torch.tensor([[[0, 2], [0, IGNORE]]], dtype=torch.uint8)
    means_NCD, present_NC = class_means(features_NDhw, labels_NHW, 3)
    assert present_NC.tolist() == [[True, False, True]]
    assert means_NCD.tolist() == [[[2.0, 20.0], [0.0, 0.0], [2.0, 20.0]]]


def test_images_are_kept_apart() -> None:
    features_NDhw = torch.tensor([[[[1.0]]], [[[5.0]]]])
    means_NCD, _ = class_means(features_NDhw, torch.zeros(2, 1, 1, dtype=torch.uint8), 1)
    assert means_NCD.flatten().tolist() == [1.0, 5.0]


def test_a_label_is_that_at_the_centre_of_a_feature() -> None:
    labels_HW = torch.arange(6).repeat(3, 1)  # columns 0 to 5, features for each three of them
    assert labels_at_centres(labels_HW.unsqueeze(0), (1, 2)).tolist() == [[[1, 4]]]


@pytest.mark.parametrize("large", [(8, 8), (9, 7), (30, 40)])
def test_labels_of_a_coarser_grid_are_those_at_its_centres(large: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(4)
    labels_NHW = torch.randint(0, 256, (2, *large), generator=draw).to(torch.uint8)
    small = labels_at_centres(labels_NHW, (4, 5))
    wanted = nn.functional.interpolate(labels_NHW[:, None].float(), (4, 5), mode="nearest-exact")
    assert torch.equal(small, wanted[:, 0].to(torch.uint8))


def test_features_of_the_padding_count_for_nothing() -> None:
    features_NDhw = torch.tensor([[[[1.0, 100.0], [200.0, 300.0]]]])
    labels_NHW = torch.zeros(1, 4, 4, dtype=torch.uint8)  # of what was padded to 8 x 8
    means_NCD, _ = class_means(features_NDhw, labels_at_centres(labels_NHW, (2, 2), (8, 8)), 1)
    assert means_NCD.item() == 1.0


@given(seed=st.integers(0, 2**16), h=st.integers(1, 5), w=st.integers(1, 5), by=st.integers(1, 3))
def test_it_is_the_mean_that_a_loop_takes(seed: int, h: int, w: int, by: int) -> None:
    draw = rng.torch_generator(seed)
    features_NDhw = torch.randn(2, 3, h, w, generator=draw)
    coarse_Nhw = torch.randint(0, 4, (2, h, w), generator=draw)
    labels_NHW = coarse_Nhw.repeat_interleave(by, 1).repeat_interleave(by, 2)
    means_NCD, present_NC = class_means(features_NDhw, labels_at_centres(labels_NHW, (h, w)), 4)
    for n in range(2):
        for c in range(4):
            found = features_NDhw[n][:, coarse_Nhw[n] == c]
            assert bool(present_NC[n, c]) is bool(found.shape[1])
            expected = found.mean(1) if found.shape[1] else torch.zeros(3)
            torch.testing.assert_close(means_NCD[n, c], expected)
