"""Prototypes and contrast: by hand, against a plain reference, and where something is missing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.learning.steps import inputs
from torch import Tensor, nn

from fleetseg import rng
from fleetseg.data.erased import Erased
from fleetseg.data.labels import ERASED, IGNORE
from fleetseg.errors import ModelError
from fleetseg.learning.inputs import LocalInputs
from fleetseg.learning.local import train_locally
from fleetseg.learning.objectives import OBJECTIVES, Objective
from fleetseg.learning.pixel_contrast import (
    Survey,
    Watched,
    contrast,
    look,
    survey,
    with_guesses,
)
from fleetseg.models.build import wrap
from fleetseg.models.features import find_classifier
from fleetseg.models.segmenter import Segmenter

C, SIZE_HW = 3, (8, 8)


def watched(model: Segmenter) -> Watched:
    return Watched(model, find_classifier(model, SIZE_HW))


def small_model(seed: int = 0) -> Segmenter:
    with rng.torch_default(seed, purpose="contrast-test"):
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
            nn.Dropout(0.5), nn.Conv2d(6, C, 1),
        )  # fmt: skip
    return wrap(net, C)


def samples(count: int = 3) -> list[tuple[np.ndarray, np.ndarray]]:
    draw = rng.generator(1, purpose="contrast-test")
    return [
        (
            draw.integers(0, 256, (*SIZE_HW, 3), np.uint8),
            draw.choice(np.array([0, 1, 2, IGNORE], np.uint8), SIZE_HW),
        )
        for _ in range(count)
    ]


def in_round(round_: int, supervision: str = "pixel contrast", **fields: object) -> LocalInputs:
    training = {"supervision": supervision, "batch_size": 2, "lr": 0.1, **fields}
    given_inputs = inputs(training, SIZE_HW, labelled=(0, 1))
    return replace(given_inputs, context=replace(given_inputs.context, round=round_))


def prototypes(*rows: list[float], has: list[bool] | None = None) -> Survey:
    prototypes_CD = nn.functional.normalize(torch.tensor(rows), dim=1)
    return Survey(watched(small_model()), prototypes_CD, torch.tensor(has or [True] * len(rows)))


def contrasted(
    features_NDhw: Tensor, labels_Nhw: Tensor, seen: Survey, most: int = 4096, tau: float = 0.5
) -> Tensor | None:
    draw = torch.Generator().manual_seed(0)
    return contrast(features_NDhw, labels_Nhw, seen, temperature=tau, most=most, draw=draw)


def test_a_contrast_by_hand() -> None:
    seen = prototypes([1.0, 0.0], [0.0, 1.0])
    features_NDhw = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    for label, others in ((0, 1), (1, 0)):
        loss = contrasted(features_NDhw, torch.tensor([[[label]]]), seen)
        own, other = math.exp((1 - label) / 0.5), math.exp((1 - others) / 0.5)
        assert loss is not None
        assert float(loss) == pytest.approx(-math.log(own / (own + other)))


def fedseg(
    anchors_AD: np.ndarray, ids_A: np.ndarray, prototypes_CD: np.ndarray, has_C: np.ndarray
) -> float:
    """The mean of -log(e^pos / (e^pos + sum of e^neg)), one anchor after another."""
    losses = []
    for anchor_D, train_id in zip(anchors_AD, ids_A, strict=True):
        if train_id >= ERASED or not has_C[train_id]:
            continue
        e_C = np.exp(prototypes_CD @ anchor_D / 0.5)
        negatives = sum(e_C[c] for c in range(len(e_C)) if has_C[c] and c != train_id)
        losses.append(-math.log(e_C[train_id] / (e_C[train_id] + negatives)))
    return float(np.mean(losses)) if losses else math.nan


@given(seed=st.integers(0, 2**16), has=st.lists(st.booleans(), min_size=4, max_size=4))
def test_it_is_the_plain_formula_whatever_is_missing(seed: int, has: list[bool]) -> None:
    """Classes without a prototype are neither anchors nor compared with; never a NaN."""
    draw = torch.Generator().manual_seed(seed)
    features_NDhw = nn.functional.normalize(torch.randn(2, 5, 3, 3, generator=draw), dim=1)
    features_NDhw.requires_grad_()
    rows_CD = nn.functional.normalize(torch.randn(4, 5, generator=draw), dim=1)
    has_C = torch.tensor(has)
    seen = Survey(watched(small_model()), rows_CD * has_C[:, None], has_C)
    ids = torch.tensor([0, 1, 2, 3, ERASED, IGNORE])
    labels_Nhw = ids[torch.randint(6, (2, 3, 3), generator=draw)]
    found = contrasted(features_NDhw, labels_Nhw, seen)
    anchors_AD = features_NDhw.detach().permute(0, 2, 3, 1).reshape(-1, 5).double().numpy()
    wanted = fedseg(anchors_AD, labels_Nhw.flatten().numpy(), rows_CD.double().numpy(), has_C)
    if math.isnan(wanted):
        assert found is None
        return
    assert found is not None
    assert found.item() == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    found.backward()  # type: ignore[no-untyped-call]
    assert features_NDhw.grad is not None
    assert bool(features_NDhw.grad.isfinite().all())


def test_its_gradient_agrees_with_finite_differences() -> None:
    draw = torch.Generator().manual_seed(3)
    features_NDhw = torch.randn(1, 4, 2, 2, generator=draw, dtype=torch.float64)
    rows_CD = nn.functional.normalize(torch.randn(3, 4, generator=draw).double(), dim=1)
    seen = Survey(watched(small_model()), rows_CD, torch.tensor([True, False, True]))
    labels_Nhw = torch.tensor([[[0, 2], [1, IGNORE]]])
    assert torch.autograd.gradcheck(
        lambda x: contrasted(x, labels_Nhw, seen), (features_NDhw.requires_grad_(),)
    )


def test_anchors_are_at_most_so_many_and_evenly_of_all_classes() -> None:
    """Of 60 and 4 pixels and 8 anchors, each class has 4: the mean of all would be near 60 : 4."""
    labels_Nhw = torch.zeros(1, 8, 8, dtype=torch.int64)
    labels_Nhw[0, 0, :4] = 1
    seen = prototypes([1.0, 0.0], [0.0, 1.0])
    features_NDhw = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 8, 8)
    near, far = -math.log(1 / (1 + math.exp(-2))), -math.log(1 / (1 + math.exp(2)))
    few = contrasted(features_NDhw, labels_Nhw, seen, most=8)
    assert few is not None
    assert float(few) == pytest.approx((4 * near + 4 * far) / 8)
    everything = contrasted(features_NDhw, labels_Nhw, seen)
    assert everything is not None
    assert float(everything) == pytest.approx((60 * near + 4 * far) / 64, rel=1e-5)


def test_guesses_fill_what_has_no_label_and_never_contradict_an_erased_one() -> None:
    """An erased pixel is of no class that the client labels; a void one may be of any."""
    labels = torch.tensor([0, ERASED, ERASED, ERASED, IGNORE, IGNORE])
    guesses = torch.tensor([2, 2, 0, IGNORE, 0, IGNORE])
    known = with_guesses(labels, guesses, (0, 1))
    assert known.tolist() == [0, 2, IGNORE, IGNORE, 0, IGNORE]
    assert with_guesses(torch.tensor([IGNORE, 1]), torch.tensor([0, 2]), None).tolist() == [0, 1]


def test_only_sure_predictions_are_guesses() -> None:
    model, given_inputs = small_model().eval(), in_round(2)
    images_NCHW = torch.rand(2, 3, *SIZE_HW, generator=torch.Generator().manual_seed(5))
    probs_NChw = model(images_NCHW).detach().softmax(dim=1)
    limit = float(probs_NChw.amax(dim=1).median())
    features_NDhw, guesses_Nhw = look(watched(model), images_NCHW, given_inputs.hardware, limit)
    is_sure_Nhw = probs_NChw.amax(dim=1) >= limit
    assert torch.equal(guesses_Nhw, probs_NChw.argmax(dim=1).where(is_sure_Nhw, IGNORE))
    assert 0 < int(is_sure_Nhw.sum()) < is_sure_Nhw.numel()
    lengths_Nhw = features_NDhw.norm(dim=1)
    torch.testing.assert_close(lengths_Nhw, (lengths_Nhw > 0).float())


def test_a_survey_leaves_the_model_as_it_was_and_is_frozen() -> None:
    model = small_model().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    seen = survey(in_round(2), model, samples())
    assert seen is not None
    assert model.training
    assert not seen.received.network.training
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    with torch.no_grad():
        model.net[0].weight.zero_()
    assert torch.equal(seen.received.network.state_dict()["net.0.weight"], before["net.0.weight"])
    lengths = seen.prototypes_CD.norm(dim=1)
    torch.testing.assert_close(lengths, seen.has_C.float())


def test_prototypes_are_means_over_the_images_that_show_a_class() -> None:
    """However many pixels it has in each; class 2 is erased, and nothing is guessed here."""
    model, pairs = small_model(), Erased(samples(), (0, 1), ERASED)
    seen = survey(in_round(2, pixel_contrast={"confidence": 1.0}), model, pairs)
    assert seen is not None
    assert seen.has_C.tolist() == [True, True, False]
    means = []
    for image_HWC, label_HW in pairs:
        images_NCHW = torch.from_numpy(image_HWC).permute(2, 0, 1)[None] / 255
        features_NDhw, _ = look(watched(model.eval()), images_NCHW, in_round(2).hardware, 1.0)
        small_HW = label_HW[1::2, 1::2]
        of_class = features_NDhw[0][:, torch.from_numpy(small_HW == 0)]
        if of_class.shape[1]:
            means.append(of_class.mean(dim=1))
    wanted = nn.functional.normalize(torch.stack(means).mean(dim=0), dim=0)
    torch.testing.assert_close(seen.prototypes_CD[0], wanted)


def trained(given_inputs: LocalInputs) -> Tensor:
    model = small_model()
    train_locally(model, Erased(samples(4), (0, 1), ERASED), given_inputs)
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_contrast_begins_in_its_round_and_is_the_same_whenever_it_is_done() -> None:
    first = trained(in_round(1))
    assert torch.equal(first, trained(in_round(1, "label subset")))
    second = trained(in_round(2))
    assert torch.equal(second, trained(in_round(2)))
    assert not torch.equal(second, trained(in_round(2, "label subset")))
    assert bool(second.isfinite().all())
    early = trained(in_round(1, pixel_contrast={"start_round": 1}))
    assert not torch.equal(early, first)


def test_a_batch_that_is_passed_through_twice_has_the_same_anchors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Few enough that they are drawn: from where it was, a second pass is the first."""
    few = {"pixel_contrast": {"anchors": 6}}
    once = trained(in_round(2, **few))
    assert not torch.equal(once, trained(in_round(2)))
    twice = Objective(perturb=lambda memo, shared: None)
    monkeypatch.setitem(OBJECTIVES, "plain", twice)
    assert torch.equal(once, trained(in_round(2, **few)))


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (nn.Conv2d(3, C, 1), "prototypes need a Segmenter"),
        (wrap(nn.AvgPool2d(2), C), "has no features to compare"),
    ],
)
def test_a_network_without_features_is_named_before_it_matters(model: nn.Module, text: str) -> None:
    with pytest.raises(ModelError, match=text):
        survey(in_round(1), model, samples())
