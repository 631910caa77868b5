"""Calibrated logits: by hand, nothing for a uniform prior, neither inf nor NaN if one is absent."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.learning.steps import inputs, step
from torch import Tensor

from fleetseg.errors import ConfigError
from fleetseg.experiment_file import make_experiment
from fleetseg.learning.calibration import ABSENT, CALIBRATIONS, logit_shift
from fleetseg.learning.losses import LOSSES
from fleetseg.runs.choices import check_choices
from fleetseg.runs.option_notes import option_notes
from fleetseg.runs.rules import Facts

REAL = [name for name in CALIBRATIONS if name != "none"]
SIZE_HW = (4, 4)


def shift(name: str, *pixels_C: int, tau: float = 1.0) -> list[float]:
    found_C = logit_shift(name, pixels_C, SIZE_HW, tau)
    assert found_C is not None
    return [float(value) for value in found_C]


def batch(seed: int = 0, classes: int = 4) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    labels_NHW = torch.randint(classes, (2, *SIZE_HW), generator=draw)
    return 3 * torch.randn(2, 4, *SIZE_HW, generator=draw), labels_NHW.to(torch.uint8)


def stepped(
    name: str, pixels_C: tuple[int, ...], logits_NCHW: Tensor, labels_NHW: Tensor, loss: str = "ce"
) -> tuple[float, Tensor]:
    given_inputs = inputs({"calibration": name, "loss": loss}, SIZE_HW, pixels_C=pixels_C)
    found = step("labels", given_inputs, labels_NHW, logits_NCHW)
    assert found is not None
    return found[0], found[1][0]


def test_by_hand() -> None:
    assert shift("logit adjustment", 30, 10) == pytest.approx([math.log(0.75), math.log(0.25)])
    assert shift("logit adjustment", 30, 10, tau=2.0)[1] == pytest.approx(2 * math.log(0.25))
    # 16 pixels are one image: 256 are 16 images, and one pixel is a sixteenth.
    assert shift("fedlc", 256, 16, 1) == pytest.approx([-0.5, -1.0, -2.0])
    assert shift("fedlc", 256, 16, 1, tau=0.5) == pytest.approx([-0.25, -0.5, -1.0])
    assert shift("restricted softmax", 7, 0, 1) == [0, ABSENT, 0]
    assert logit_shift("none", (1, 2), SIZE_HW, 1.0) is None


@pytest.mark.parametrize("name", ["logit adjustment", "fedlc"])
def test_a_rare_class_has_the_larger_margin(name: str) -> None:
    """With the wrong sign the frequent classes would get it."""
    often, seldom = shift(name, 4000, 40)
    assert seldom < often
    logits_NCHW = torch.zeros(1, 2, 1, 1)
    losses = [
        stepped(name, (4000, 40), logits_NCHW, torch.tensor([[[c]]], dtype=torch.uint8))[0]
        for c in (0, 1)
    ]
    assert losses[1] > math.log(2) > losses[0]


def test_the_loss_is_that_of_the_prior_times_the_likelihood() -> None:
    """With tau = 1 it is the cross-entropy of p_c pi_c, normalised."""
    logits_NCHW, labels_NHW = batch()
    pixels_C = (1000, 200, 30, 4)
    weighted_NCHW = logits_NCHW.double().exp() * torch.tensor(pixels_C).view(1, 4, 1, 1)
    probs_NCHW = weighted_NCHW / weighted_NCHW.sum(dim=1, keepdim=True)
    own_NHW = probs_NCHW.gather(1, labels_NHW.long().unsqueeze(1))
    loss, _ = stepped("logit adjustment", pixels_C, logits_NCHW, labels_NHW)
    assert loss == pytest.approx(float(-own_NHW.log().mean()), rel=1e-5)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("loss", ["ce", "ohem", "focal", "ce+dice"])
def test_with_a_uniform_prior_nothing_changes(name: str, loss: str) -> None:
    logits_NCHW, labels_NHW = batch(1)
    plain, plain_gradient = stepped("none", (9,) * 4, logits_NCHW, labels_NHW, loss)
    found, gradient = stepped(name, (9,) * 4, logits_NCHW, labels_NHW, loss)
    assert found == pytest.approx(plain, rel=1e-5)
    torch.testing.assert_close(gradient, plain_gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("factor", [1, 2, 8])
def test_a_class_that_is_absent_has_no_part_in_the_loss(name: str, factor: int) -> None:
    """As if the network had no such channel; whatever its logits are, and through resizing."""
    draw = torch.Generator().manual_seed(2)
    logits_NCHW = torch.randn(1, 4, 2, 2, generator=draw)
    logits_NCHW[:, 3] = 300.0
    side = 2 * factor
    labels_NHW = torch.randint(3, (1, side, side), generator=draw).to(torch.uint8)
    loss, gradient = stepped(name, (50, 40, 3, 0), logits_NCHW, labels_NHW)
    without, smaller = stepped(name, (50, 40, 3), logits_NCHW[:, :3], labels_NHW)
    assert loss == pytest.approx(without, rel=1e-5)
    assert (gradient[:, 3] == 0).all()
    torch.testing.assert_close(gradient[:, :3], smaller)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", REAL)
def test_no_loss_divides_by_the_mass_of_a_class_that_is_masked_out(name: str, loss: str) -> None:
    """Its probability is exactly 0, as it never is without a mask: dice had 0 / 0 in gradients."""
    logits_NCHW, labels_NHW = batch(classes=3)
    value, gradient = stepped(name, (50, 40, 3, 0), logits_NCHW, labels_NHW, loss)
    assert math.isfinite(value)
    assert bool(gradient.isfinite().all())
    assert bool((gradient[:, 3] == 0).all())


@given(
    counts=st.lists(st.integers(0, 2**40), min_size=2, max_size=6).filter(any),
    name=st.sampled_from(REAL),
    seed=st.integers(0, 99),
)
def test_it_is_always_finite(counts: list[int], name: str, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    present = torch.tensor([c for c, count in enumerate(counts) if count])
    labels_NHW = present[torch.randint(len(present), (1, *SIZE_HW), generator=draw)]
    logits_NCHW = 50 * torch.randn(1, len(counts), *SIZE_HW, generator=draw)
    loss, gradient = stepped(name, tuple(counts), logits_NCHW, labels_NHW.to(torch.uint8))
    assert math.isfinite(loss)
    assert bool(gradient.isfinite().all())


def test_margins_by_pixels_would_be_next_to_nothing() -> None:
    """Of 10 and 1000 images' worth at 360 x 480, the margins differ by 0.38; by pixels by 0.02."""
    few, many = (count * 360 * 480 for count in (10, 1000))
    margins_C = logit_shift("fedlc", (few, many), (360, 480), 1.0)
    assert margins_C is not None
    assert float(margins_C[1] - margins_C[0]) == pytest.approx(10**-0.25 - 1000**-0.25, rel=1e-5)


def test_where_it_cannot_be_or_has_no_strength() -> None:
    subset = {"training": {"supervision": "label subset", "calibration": "fedlc"}}
    with pytest.raises(ConfigError, match="says nothing of classes that it does not label"):
        check_choices(make_experiment(subset))
    with pytest.raises(ConfigError, match=r"unknown calibration 'fedcl'.*Did you mean 'fedlc'"):
        check_choices(make_experiment({"training": {"calibration": "fedcl"}}))
    told = make_experiment(
        {"training": {"calibration": "restricted softmax", "calibration_tau": 2.0}}
    )
    (note,) = option_notes(Facts(told, scored=True))
    assert note.startswith("training.calibration_tau = 2.0 has no effect")
