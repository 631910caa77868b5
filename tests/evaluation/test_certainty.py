"""How sure a model is: numbers worked out by hand and torch's own, and the pictures of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from fleetseg.evaluation.certainty import certainty, certainty_image


def test_two_classes_by_hand() -> None:
    """Logits 0 and log 3 are 1/4 and 3/4; equal ones are halves."""
    logits_CHW = torch.tensor([[[0.0, 7.0]], [[math.log(3), 7.0]]])
    shares = certainty(logits_CHW, (1, 2))
    assert shares["confidence"].tolist() == [pytest.approx([0.75, 0.5])]
    entropy = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert shares["entropy"].tolist() == [pytest.approx([entropy, 1])]


def test_many_classes_at_another_size_as_torch_has_them() -> None:
    generator = torch.Generator().manual_seed(3)
    logits_CHW = torch.randn(19, 5, 7, generator=generator) * 4
    shares = certainty(logits_CHW, (20, 21))
    full_CHW = functional.interpolate(logits_CHW[None], (20, 21), mode="bilinear")[0]
    theirs = torch.distributions.Categorical(logits=full_CHW.permute(1, 2, 0))
    assert np.allclose(shares["confidence"], theirs.probs.amax(-1), atol=1e-5)
    assert np.allclose(shares["entropy"], theirs.entropy() / math.log(19), atol=1e-5)
    assert shares["confidence"].dtype == np.float32


def test_logits_far_apart_do_not_overflow() -> None:
    shares = certainty(torch.tensor([[[3e4]], [[-3e4]]]), (1, 1))
    assert (shares["confidence"].item(), shares["entropy"].item()) == (1, 0)


def test_one_class_is_certain() -> None:
    shares = certainty(torch.zeros(1, 2, 2), (2, 2))
    assert set(shares["confidence"].flat) == {1}
    assert set(shares["entropy"].flat) == {0}


@pytest.mark.parametrize("kind", ["confidence", "entropy"])
def test_pixels_are_the_numbers_and_a_viewer_shows_dark_to_bright(kind: str) -> None:
    share_HW = np.array([[0, 0.5, 1, np.nan]], np.float32)
    image = certainty_image(share_HW, kind)  # type: ignore[arg-type]
    assert np.asarray(image).tolist() == [[0, 128, 255, 0]]
    light = np.asarray(image.convert("L"))[0, :3].tolist()
    assert light[0] + 60 < light[1] < light[2] - 60
