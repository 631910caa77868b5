"""Losses by hand and against other implementations, with their gradients."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss
from torch import Tensor
from torch.nn import functional

from fleetseg.config import TrainingConfig
from fleetseg.data.labels import IGNORE
from fleetseg.errors import ConfigError, DataError
from fleetseg.learning.losses import (
    LOSSES,
    build_loss,
    check_loss_name,
    class_weights,
    cross_entropy,
    dice,
    entropy,
    focal,
    lovasz,
    ohem,
    segmentation_loss,
)

smp_losses = pytest.importorskip("segmentation_models_pytorch.losses")


def logits_of(probs: list[list[float]]) -> Tensor:
    """Logits (1, C, 1, P) whose softmax is `probs`, given pixel by pixel."""
    return torch.tensor(probs).log().T[None, :, None, :]


def labels_of(*ids: int) -> Tensor:
    return torch.tensor(ids)[None, None, :]


def random_batch(
    seed: int, ignored: float = 0.3, shape: tuple[int, int, int, int] = (2, 4, 5, 7)
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    n, c, h, w = shape
    logits_NCHW = 2 * torch.randn(n, c, h, w, generator=generator)
    labels_NHW = torch.randint(0, c, (n, h, w), generator=generator)
    labels_NHW[torch.rand(n, h, w, generator=generator) < ignored] = IGNORE
    return logits_NCHW.requires_grad_(), labels_NHW


def loss_named(name: str, weights_C: Tensor | None = None, **options: float) -> Tensor:
    return build_loss(TrainingConfig(loss=name, **options), weights_C)  # type: ignore[return-value]


HALF_QUARTER = logits_of([[0.5, 0.5], [0.25, 0.75], [0.8, 0.2]])


def test_cross_entropy_by_hand() -> None:
    value = cross_entropy(HALF_QUARTER, labels_of(0, 0, IGNORE))
    assert value.item() == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_weighted_cross_entropy_is_divided_by_the_weights() -> None:
    weights_C = torch.tensor([1.0, 3.0])
    value = cross_entropy(HALF_QUARTER, labels_of(0, 1, IGNORE), weights_C)
    assert value.item() == pytest.approx((math.log(2) + 3 * math.log(4 / 3)) / 4)
    tenfold = cross_entropy(HALF_QUARTER, labels_of(0, 1, IGNORE), 10 * weights_C)
    assert tenfold.item() == pytest.approx(value.item())


def test_cross_entropy_agrees_with_sklearn() -> None:
    logits_NCHW, labels_NHW = random_batch(1)
    valid_V = (labels_NHW != IGNORE).flatten().numpy()
    probs_VC = logits_NCHW.detach().double().softmax(1).permute(0, 2, 3, 1).reshape(-1, 4).numpy()
    ids_V = labels_NHW.flatten().numpy()[valid_V]
    weights_C = np.array([0.5, 1.0, 2.0, 4.0])
    for weights, of_pixels_V in ((None, None), (weights_C, weights_C[ids_V])):
        expected = log_loss(ids_V, probs_VC[valid_V], labels=range(4), sample_weight=of_pixels_V)
        tensor = None if weights is None else torch.tensor(weights).float()
        assert cross_entropy(logits_NCHW, labels_NHW, tensor).item() == pytest.approx(expected)


def test_ohem_by_hand() -> None:
    # Losses ln 2, ln 4, ln 5 and, ignored, whatever: two thirds of three pixels are the last two.
    logits_NCHW = logits_of([[0.5, 0.5], [0.25, 0.75], [0.8, 0.2], [0.1, 0.9]])
    value = ohem(logits_NCHW, labels_of(0, 0, 1, IGNORE), fraction=2 / 3)
    assert value.item() == pytest.approx((math.log(4) + math.log(5)) / 2)


def test_ohem_takes_at_least_one_pixel() -> None:
    value = ohem(HALF_QUARTER, labels_of(0, 0, 1), fraction=0.01)
    assert value.item() == pytest.approx(math.log(5))


def test_ohem_of_everything_is_cross_entropy() -> None:
    logits_NCHW, labels_NHW = random_batch(2)
    assert torch.allclose(
        ohem(logits_NCHW, labels_NHW, 1.0), cross_entropy(logits_NCHW, labels_NHW)
    )


def feddrive_ohem(logits_NCHW: Tensor, labels_NHW: Tensor, fraction: float) -> Tensor:
    """FedDrive's HardNegativeMining: a share of all pixels, ignored zeros among them."""
    losses = functional.cross_entropy(
        logits_NCHW, labels_NHW, ignore_index=IGNORE, reduction="none"
    ).flatten(1)
    return losses.topk(int(fraction * losses.shape[1]), dim=1).values.mean()


def test_ohem_does_not_count_ignored_pixels() -> None:
    # Nine of ten pixels ignored: FedDrive's mean is over 2 zeros and a half; ours over the pixel.
    logits_NCHW = torch.zeros(1, 2, 1, 20)
    labels_NHW = labels_of(0, 1, *[IGNORE] * 18)
    assert feddrive_ohem(logits_NCHW, labels_NHW, 0.25).item() == pytest.approx(math.log(2) * 2 / 5)
    assert ohem(logits_NCHW, labels_NHW, 0.25).item() == pytest.approx(math.log(2))
    # More ignored area changes nothing.
    wider = torch.cat([labels_NHW, torch.full((1, 1, 60), IGNORE)], dim=2)
    value = ohem(torch.zeros(1, 2, 1, 80), wider, 0.25)
    assert value.item() == pytest.approx(math.log(2))


def test_focal_by_hand() -> None:
    value = focal(HALF_QUARTER, labels_of(0, 0, IGNORE), gamma=2.0)
    assert value.item() == pytest.approx((0.25 * math.log(2) + 0.5625 * math.log(4)) / 2)


def test_focal_with_gamma_zero_is_cross_entropy() -> None:
    logits_NCHW, labels_NHW = random_batch(3)
    weights_C = torch.tensor([0.5, 1.0, 2.0, 4.0])
    for weights in (None, weights_C):
        expected = cross_entropy(logits_NCHW, labels_NHW, weights)
        assert torch.allclose(focal(logits_NCHW, labels_NHW, 0.0, weights), expected)


def test_focal_agrees_with_smp() -> None:
    logits_NCHW, labels_NHW = random_batch(4, ignored=0.0, shape=(2, 2, 5, 7))
    # smp's binary focal loss takes one logit: the difference of our two.
    reference = smp_losses.FocalLoss("binary", gamma=2.0)
    expected = reference(logits_NCHW[:, 1:] - logits_NCHW[:, :1], labels_NHW[:, None])
    assert torch.allclose(focal(logits_NCHW, labels_NHW, 2.0), expected, rtol=1e-4)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_gradient_is_finite_where_the_network_is_certain(gamma: float) -> None:
    logits_NCHW = torch.tensor([200.0, -200.0]).view(1, 2, 1, 1).requires_grad_()
    for id_ in (0, 1):
        focal(logits_NCHW, labels_of(id_), gamma).backward()  # type: ignore[no-untyped-call]
    assert logits_NCHW.grad is not None
    assert torch.isfinite(logits_NCHW.grad).all()


def test_entropy_by_hand_and_with_its_sign() -> None:
    """0.1 x (ln 0.5 + 0.25 ln 0.25 + 0.75 ln 0.75) / 2: it rises as predictions get surer."""
    wanted = 0.1 * (math.log(0.5) + 0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / 2
    value = entropy(HALF_QUARTER, labels_of(0, 1, IGNORE), 0.1)
    assert value.item() == pytest.approx(wanted)
    unsure, sure = (
        entropy(logits_of([[p, 1 - p]]), labels_of(0), 0.1).item() for p in (0.5, 0.999)
    )
    assert unsure == pytest.approx(-0.1 * math.log(2))
    assert unsure < sure < 0
    logits = logits_of([[0.8, 0.2]]).requires_grad_()
    entropy(logits, labels_of(1), 1.0).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0].item() > 0 > logits.grad[0, 1].item()  # descent: towards 0.5


def test_entropy_agrees_with_torch_s() -> None:
    logits_NCHW, labels_NHW = random_batch(1, ignored=0.0)
    theirs = torch.distributions.Categorical(logits=logits_NCHW.movedim(1, -1)).entropy().mean()
    assert entropy(logits_NCHW, labels_NHW, 0.3).item() == pytest.approx(-0.3 * theirs.item())


def test_dice_by_hand() -> None:
    # Class 0: overlap .5 + .25, sizes .75 + 2 (probabilities, labels); class 1 is not present.
    value = dice(HALF_QUARTER, labels_of(0, 0, IGNORE))
    assert value.item() == pytest.approx(1 - 2 * 0.75 / (0.75 + 2))


def test_dice_agrees_with_smp() -> None:
    logits_NCHW, labels_NHW = random_batch(5)
    reference = smp_losses.DiceLoss("multiclass", smooth=0.0, ignore_index=IGNORE)
    value = dice(logits_NCHW, labels_NHW)
    assert value.item() == pytest.approx(reference(logits_NCHW, labels_NHW).item(), rel=1e-5)


def test_lovasz_by_hand() -> None:
    # Class 0, errors .5 and .75, both foreground: Jaccard loss 1/2 after one, 1 after two;
    # the greater error carries the first step. The ignored pixel is not there.
    value = lovasz(HALF_QUARTER, labels_of(0, 0, IGNORE))
    assert value.item() == pytest.approx(0.75 * 0.5 + 0.5 * 0.5)


def numpy_lovasz(probs_VC: npt.NDArray[np.float64], ids_V: npt.NDArray[np.int64]) -> float:
    """Lovász-softmax from its definition: errors times steps of the Jaccard loss of a growing set.

    The Jaccard loss of mispredicting exactly the pixels M is |M| / |foreground united with M|.
    """
    values = []
    for c in np.unique(ids_V):
        foreground = set(np.flatnonzero(ids_V == c).tolist())
        errors_V = np.abs((ids_V == c) - probs_VC[:, c])
        wrong: set[int] = set()
        before = total = 0.0
        for pixel in np.argsort(-errors_V, kind="stable").tolist():
            wrong.add(pixel)
            jaccard = len(wrong) / len(foreground | wrong)
            total += errors_V[pixel] * (jaccard - before)
            before = jaccard
        values.append(total)
    return float(np.mean(values))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), ignored=st.sampled_from([0.0, 0.3, 0.9]))
def test_lovasz_agrees_with_its_definition(seed: int, ignored: float) -> None:
    logits_NCHW, labels_NHW = random_batch(seed, ignored)
    labels_NHW[0, 0, 0] = 0
    valid_V = (labels_NHW != IGNORE).flatten().numpy()
    probs_VC = logits_NCHW.detach().softmax(1).permute(0, 2, 3, 1).reshape(-1, 4).numpy()
    expected = numpy_lovasz(
        probs_VC[valid_V].astype(np.float64), labels_NHW.flatten().numpy()[valid_V]
    )
    assert lovasz(logits_NCHW, labels_NHW).item() == pytest.approx(expected, rel=1e-5)


def test_lovasz_agrees_with_smp_and_so_does_its_gradient() -> None:
    logits_NCHW, labels_NHW = random_batch(6)
    (ours,) = torch.autograd.grad(lovasz(logits_NCHW, labels_NHW), logits_NCHW)
    reference = smp_losses.LovaszLoss("multiclass", ignore_index=IGNORE, from_logits=True)
    theirs_value = reference(logits_NCHW, labels_NHW)
    (theirs,) = torch.autograd.grad(theirs_value, logits_NCHW)
    assert lovasz(logits_NCHW, labels_NHW).item() == pytest.approx(theirs_value.item(), rel=1e-5)
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    logits_NCHW, labels_NHW = random_batch(7, shape=(1, 3, 2, 3))
    labels_NHW[0, 0, :2] = torch.tensor([0, 1])
    loss = loss_named(name, ohem_fraction=0.5)
    assert torch.autograd.gradcheck(
        lambda x: loss(x, labels_NHW), logits_NCHW.detach().double().requires_grad_()
    )


@pytest.mark.parametrize("name", [*LOSSES, "ce+dice"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_batch_without_valid_pixels_gives_an_attached_zero(name: str, weighted: bool) -> None:
    logits_NCHW, labels_NHW = random_batch(8, ignored=1.1)
    weights_C = torch.ones(4) if weighted else None
    value = loss_named(name, weights_C)(logits_NCHW, labels_NHW)
    assert value.item() == 0.0
    assert value.grad_fn is not None
    value.backward()
    assert logits_NCHW.grad is not None
    assert torch.count_nonzero(logits_NCHW.grad) == 0


def test_the_zero_is_finite_even_if_the_logits_are_not() -> None:
    logits_NCHW = torch.full((1, 2, 2, 2), torch.nan, requires_grad=True)
    labels_NHW = torch.full((1, 2, 2), IGNORE)
    assert [loss_named(name)(logits_NCHW, labels_NHW).item() for name in LOSSES] == [0.0] * len(
        LOSSES
    )


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_pixels_have_no_influence(name: str) -> None:
    logits_NCHW, labels_NHW = random_batch(9)
    loss = loss_named(name)
    value = loss(logits_NCHW, labels_NHW)
    (gradient_NCHW,) = torch.autograd.grad(value, logits_NCHW)
    ignored_NHW = labels_NHW == IGNORE
    assert torch.count_nonzero(gradient_NCHW.permute(0, 2, 3, 1)[ignored_NHW]) == 0
    shaken = (
        logits_NCHW.detach() + 5 * ignored_NHW[:, None] * torch.arange(4.0)[None, :, None, None]
    )
    assert torch.allclose(loss(shaken, labels_NHW), value)


@pytest.mark.parametrize("name", LOSSES)
def test_labels_may_be_of_any_integer_type(name: str) -> None:
    logits_NCHW, labels_NHW = random_batch(10)
    loss = loss_named(name)
    assert torch.equal(loss(logits_NCHW, labels_NHW.to(torch.uint8)), loss(logits_NCHW, labels_NHW))


@pytest.mark.parametrize("name", LOSSES)
def test_a_perfect_prediction_costs_next_to_nothing(name: str) -> None:
    labels_NHW = random_batch(11)[1]
    one_hot = functional.one_hot(labels_NHW.where(labels_NHW != IGNORE, 0), 4)
    perfect_NCHW = 50.0 * one_hot.permute(0, 3, 1, 2).float()
    assert -1e-6 < loss_named(name)(perfect_NCHW, labels_NHW).item() < 1e-6


def test_a_sum_of_losses_is_their_sum() -> None:
    logits_NCHW, labels_NHW = random_batch(12)
    expected = cross_entropy(logits_NCHW, labels_NHW) + lovasz(logits_NCHW, labels_NHW)
    assert torch.allclose(loss_named("ce + lovasz")(logits_NCHW, labels_NHW), expected)


def test_options_and_weights_reach_the_losses() -> None:
    logits_NCHW, labels_NHW = random_batch(13)
    weights_C = torch.tensor([0.5, 1.0, 2.0, 4.0])
    expected = {
        "ce": cross_entropy(logits_NCHW, labels_NHW, weights_C),
        "ohem": ohem(logits_NCHW, labels_NHW, 0.1, weights_C),
        "focal": focal(logits_NCHW, labels_NHW, 3.0, weights_C),
    }
    for name, value in expected.items():
        loss = loss_named(name, weights_C, ohem_fraction=0.1, focal_gamma=3.0)
        assert torch.equal(loss(logits_NCHW, labels_NHW), value)


@pytest.mark.parametrize(("name", "part"), [("focall", "focall"), ("ce+dise", "dise"), ("", "")])
def test_an_unknown_loss_is_named_early(name: str, part: str) -> None:
    with pytest.raises(
        ConfigError, match=f"training.loss: unknown loss '{part}'.*ce, dice, .*focal"
    ):
        check_loss_name(name)
    with pytest.raises(ConfigError):
        build_loss(TrainingConfig(loss=name))


@pytest.mark.parametrize("ids", [[4, 24], [-1, 4]])
def test_label_ids_outside_the_space_are_named(ids: list[int]) -> None:
    logits_NCHW, labels_NHW = random_batch(14)
    labels_NHW[0, 0, :3] = torch.tensor([ids[1], ids[0], ids[1]])
    with pytest.raises(DataError, match=rf"got \[{ids[0]}, {ids[1]}\], expected 0\.\.3 or 255"):
        loss_named("ce")(logits_NCHW, labels_NHW)


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_are_resized_as_torch_does(factor: int, dtype: torch.dtype) -> None:
    # 1/4 and below go through matrix products, the others through interpolate.
    labels_NHW = random_batch(15, shape=(2, 4, 32, 40))[1]
    logits_NCHW = random_batch(16, shape=(2, 4, 32 // factor, 40 // factor))[0].detach()
    output = logits_NCHW.to(dtype).to(memory_format=torch.channels_last).requires_grad_()
    value = segmentation_loss(output, labels_NHW, loss_named("ce"), 1.0)
    (gradient,) = torch.autograd.grad(value, output)
    full = functional.interpolate(output.float(), (32, 40), mode="bilinear", align_corners=False)
    expected = cross_entropy(full, labels_NHW)
    (expected_gradient,) = torch.autograd.grad(expected, output)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    tolerance = 1e-7 if dtype == torch.float32 else 1e-3
    assert torch.allclose(gradient, expected_gradient, rtol=1e-2, atol=tolerance)


def test_outputs_stay_in_float32_inside_autocast() -> None:
    labels_NHW = random_batch(17, shape=(1, 4, 32, 40))[1]
    output = random_batch(18, shape=(1, 4, 4, 5))[0]
    outside = segmentation_loss(output, labels_NHW, loss_named("ce"), 1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = segmentation_loss(output, labels_NHW, loss_named("ce"), 1.0)
    assert inside.item() == outside.item()


def test_auxiliary_outputs_count_with_their_weight() -> None:
    logits_NCHW, labels_NHW = random_batch(19)
    other_NCHW = random_batch(20)[0]
    main = cross_entropy(logits_NCHW, labels_NHW)
    auxiliary = cross_entropy(other_NCHW, labels_NHW)
    outputs = (logits_NCHW, other_NCHW, other_NCHW)
    value = segmentation_loss(outputs, labels_NHW, cross_entropy, 0.4)
    assert torch.allclose(value, main + 0.8 * auxiliary)
    assert torch.equal(segmentation_loss(outputs, labels_NHW, cross_entropy, 0.0), main)
    assert torch.equal(segmentation_loss(logits_NCHW, labels_NHW, cross_entropy, 0.4), main)


def test_class_weights_by_hand() -> None:
    # Shares .75 and .25: 1/ln 1.85 = 1.62553, 1/ln 1.35 = 3.33217; mean 2.47885. Absent: 1.
    weights_C = class_weights(np.array([300, 100, 0]), 3)
    assert weights_C.dtype == torch.float32
    assert weights_C.tolist() == pytest.approx([0.655758, 1.344242, 1.0], rel=1e-5)


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=12))
def test_class_weights_are_positive_bounded_and_of_mean_one(histogram: list[int]) -> None:
    histogram_C = np.array(histogram, dtype=np.int64)
    weights_C = class_weights(histogram_C, len(histogram)).numpy()
    present_C = histogram_C > 0
    assert (weights_C[~present_C] == 1).all()
    if present_C.any():
        assert weights_C[present_C].mean() == pytest.approx(1.0, rel=1e-5)
        # The rarest weighs at most ln 2.1 / ln 1.1 = 7.79 times the commonest.
        assert weights_C[present_C].max() / weights_C[present_C].min() < 7.79
        order = np.argsort(histogram_C[present_C])
        assert (np.diff(weights_C[present_C][order]) <= 1e-6).all()
