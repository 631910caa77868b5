"""The background cross-entropy: by hand, against a plain reference, by finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.learning.steps import inputs, step
from torch import Tensor

from fleetseg.data.labels import ERASED, IGNORE
from fleetseg.experiment_file import make_experiment
from fleetseg.learning.label_subset import subset_table, subset_weights, with_back
from fleetseg.runs.option_notes import option_notes
from fleetseg.runs.rules import Facts

C = 5


def of(ids: list[int]) -> Tensor:
    """One image, one row."""
    return torch.tensor(ids, dtype=torch.uint8).view(1, 1, -1)


def logits_of(*pixels: list[float]) -> Tensor:
    """Logits (1, C, 1, W) of pixels' probabilities."""
    return torch.tensor(pixels).log().T.reshape(1, len(pixels[0]), 1, len(pixels))


def random_batch(seed: int, labelled: tuple[int, ...], side: int = 4) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    ids = torch.tensor([*labelled, ERASED, IGNORE])
    picked = torch.randint(len(ids), (2, side, side), generator=draw)
    return 3 * torch.randn(2, C, side, side, generator=draw), ids[picked].to(torch.uint8)


def naive(
    logits_NCHW: np.ndarray, labels_NHW: np.ndarray, labelled: tuple[int, ...]
) -> tuple[float, int]:
    """Sum the loss pixel by pixel, in float64; returns it and the number of pixels."""
    total, count = 0.0, 0
    for n, i, j in np.ndindex(*labels_NHW.shape):
        label, logits_C = int(labels_NHW[n, i, j]), logits_NCHW[n, :, i, j].astype(np.float64)
        if label == IGNORE:
            continue
        probs_C = np.exp(logits_C) / np.exp(logits_C).sum()
        others = [c for c in range(C) if c not in labelled]
        total -= math.log(probs_C[others].sum() if label == ERASED else probs_C[label])
        count += 1
    return total, count


def test_by_hand() -> None:
    logits_NCHW = logits_of([0.5, 0.3, 0.2], [0.1, 0.7, 0.2], [0.2, 0.2, 0.6])
    found = step("label subset", inputs(labelled=(1,)), of([1, ERASED, IGNORE]), logits_NCHW)
    assert found is not None
    loss, (gradient,) = found
    assert loss == pytest.approx(-(math.log(0.3) + math.log(0.1 + 0.2)) / 2)
    # Of a labelled pixel p - 1 and p, as ever; of an erased one p minus its share of the others.
    assert gradient[0, :, 0, 0].tolist() == pytest.approx([0.25, -0.35, 0.1])
    assert gradient[0, :, 0, 1].tolist() == pytest.approx(
        [(0.1 - 0.1 / 0.3) / 2, 0.35, (0.2 - 0.2 / 0.3) / 2]
    )
    assert gradient[0, :, 0, 2].tolist() == [0, 0, 0]  # void in the data set: it says nothing


@given(
    seed=st.integers(0, 2**16),
    labelled=st.sets(st.integers(0, C - 1), min_size=1, max_size=C - 1),
)
def test_it_is_the_plain_formula(seed: int, labelled: set[int]) -> None:
    ids = tuple(sorted(labelled))
    logits_NCHW, labels_NHW = random_batch(seed, ids)
    total, count = naive(logits_NCHW.numpy(), labels_NHW.numpy(), ids)
    found = step("label subset", inputs(labelled=ids), labels_NHW, logits_NCHW)
    if count == 0:
        assert found is None
    else:
        assert found is not None
        assert found[0] == pytest.approx(total / count, rel=1e-5)


def test_its_gradient_agrees_with_finite_differences() -> None:
    labelled = (0, 3)
    logits_NCHW, labels_NHW = random_batch(1, labelled)
    table = subset_table(labelled)

    def loss(values_NCHW: Tensor) -> Tensor:
        kept_NHW = table[labels_NHW.long()].long()
        return torch.nn.functional.cross_entropy(
            with_back(values_NCHW, labelled), kept_NHW, ignore_index=IGNORE
        )

    wide_NCHW = logits_NCHW.double().requires_grad_()
    assert torch.autograd.gradcheck(loss, (wide_NCHW,))
    found = step("label subset", inputs(labelled=labelled), labels_NHW, logits_NCHW)
    assert found is not None
    loss(wide_NCHW).backward()  # type: ignore[no-untyped-call]
    assert wide_NCHW.grad is not None
    torch.testing.assert_close(found[1][0], wide_NCHW.grad.float())


@pytest.mark.parametrize("loss", ["ce", "ohem", "focal", "dice", "ce+lovasz"])
@pytest.mark.parametrize("factor", [1, 2, 8])
def test_with_all_classes_it_is_supervision_by_labels_bit_for_bit(loss: str, factor: int) -> None:
    all_of_them = tuple(range(C))
    logits_NCHW, _ = random_batch(2, all_of_them, 4)
    _, labels_NHW = random_batch(3, all_of_them, 4 * factor)
    labels_NHW[labels_NHW == ERASED] = IGNORE
    given_inputs = inputs({"loss": loss}, labelled=all_of_them)
    found = step("label subset", given_inputs, labels_NHW, logits_NCHW)
    plain = step("labels", given_inputs, labels_NHW, logits_NCHW)
    assert found is not None
    assert plain is not None
    assert found[0] == plain[0]
    assert torch.equal(found[1][0], plain[1][0])


def test_a_client_of_which_nothing_is_erased_is_supervised_by_its_labels() -> None:
    logits_NCHW, labels_NHW = random_batch(4, (0, 1, 2))
    labels_NHW[labels_NHW == ERASED] = 4
    found = step("label subset", inputs(), labels_NHW, logits_NCHW)
    plain = step("labels", inputs(), labels_NHW, logits_NCHW)
    assert found is not None
    assert plain is not None
    assert found[0] == plain[0]


def test_a_class_that_a_batch_happens_to_lack_is_not_background() -> None:
    """Of what is labelled in the batch instead (FedSeg's code), class 0 would be pushed up here."""
    found = step("label subset", inputs(labelled=(0,)), of([ERASED]), logits_of([0.4, 0.3, 0.3]))
    assert found is not None
    assert found[1][0].flatten().tolist() == pytest.approx([0.4, -0.2, -0.2])


def test_that_it_is_labels_where_all_are_labelled_is_told() -> None:
    training = {"supervision": "label subset"}
    (note,) = option_notes(Facts(make_experiment({"training": training}), scored=True))
    assert note.endswith("every vehicle labels all classes; see partition.label_subset")
    subset = {"label_subset": {"classes": 2}}
    described = make_experiment({"training": training, "partition": subset})
    assert option_notes(Facts(described, scored=True)) == ()


def test_a_batch_of_void_takes_no_step_and_one_of_erased_pixels_does() -> None:
    given_inputs, logits_NCHW = inputs(labelled=(0,)), logits_of([0.5, 0.25, 0.25])
    assert step("label subset", given_inputs, of([IGNORE]), logits_NCHW) is None
    found = step("label subset", given_inputs, of([ERASED]), logits_NCHW)
    assert found is not None
    assert found[0] == pytest.approx(math.log(2))


@pytest.mark.parametrize("size", [80.0, 1e4])
def test_it_stays_finite_where_probabilities_are_zero(size: float) -> None:
    """log(sum p) would be -inf, and with 1e-7 beside p (FedSeg's code) the gradient would be 0."""
    logits_NCHW = torch.tensor([size, -size, -size]).view(1, 3, 1, 1)
    found = step("label subset", inputs(labelled=(0,)), of([ERASED]), logits_NCHW)
    assert found is not None
    assert found[0] == pytest.approx(2 * size - math.log(2), rel=1e-5)
    assert found[1][0].flatten().tolist() == pytest.approx([1, -0.5, -0.5], rel=1e-3)


def test_small_outputs_are_resized_before_others_are_summed() -> None:
    small_NChw = torch.randn(1, C, 2, 2, generator=torch.Generator().manual_seed(5))
    labels_NHW = torch.full((1, 8, 8), ERASED, dtype=torch.uint8)
    large_NCHW = torch.nn.functional.interpolate(
        small_NChw, (8, 8), mode="bilinear", align_corners=False
    )
    small = step("label subset", inputs(labelled=(2,)), labels_NHW, small_NChw)
    large = step("label subset", inputs(labelled=(2,)), labels_NHW, large_NCHW)
    assert small is not None
    assert large is not None
    assert small[0] == pytest.approx(large[0], rel=1e-5)


def test_auxiliary_outputs_are_compared_alike() -> None:
    main, aux = logits_of([0.5, 0.25, 0.25]), logits_of([0.9, 0.05, 0.05])
    found = step("label subset", inputs({"aux_weight": 0.5}, labelled=(0,)), of([0]), main, aux)
    assert found is not None
    assert found[0] == pytest.approx(-math.log(0.5) - 0.5 * math.log(0.9))


def test_class_weights_go_with_their_classes_and_the_others_weigh_one() -> None:
    weights_C = torch.tensor([2.0, 3.0, 5.0])
    kept = subset_weights(weights_C, (2,))
    assert kept is not None
    assert kept.tolist() == [5.0, 1.0]
    assert subset_weights(weights_C, (0, 1, 2)) is weights_C
    assert subset_weights(None, (0,)) is None
    given_inputs = inputs(labelled=(2,), class_weights_C=weights_C)
    pixels = ([0.25, 0.25, 0.5], [0.05, 0.05, 0.9])
    found = step("label subset", given_inputs, of([2, ERASED]), logits_of(*pixels))
    assert found is not None
    assert found[0] == pytest.approx(-(5 * math.log(0.5) + math.log(0.1)) / 6)
