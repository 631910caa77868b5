"""Feature distance: the paper's mask and mean, the same images for both encoders, no NaN."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.learning.steps import inputs
from tests.pretrained import tiny_network
from torch import Tensor

from fleetseg import rng
from fleetseg.config import FeatureDistanceConfig
from fleetseg.data.labels import CAMVID_11, CITYSCAPES_19, IGNORE, LabelSpace
from fleetseg.errors import ConfigError
from fleetseg.learning.feature_distance import (
    FeatureDistance,
    cells_of_classes,
    classes_of,
    mean_distance,
)
from fleetseg.learning.inputs import LocalInputs
from fleetseg.learning.local import train_locally
from fleetseg.learning.mean_loss import mean_loss
from fleetseg.learning.self_training import teachers_of
from fleetseg.learning.supervision import SUPERVISION
from fleetseg.models.build import build_model
from fleetseg.models.pretrained import load_imagenet
from fleetseg.models.segmenter import Segmenter

pytestmark = pytest.mark.usefixtures("made_up_weights")
SIZE_HW = (8, 8)
SPACE = LabelSpace("three", ("road", "car", "person"), ((0, 0, 0),) * 3, ("car", "person"))
UNCHANGED = {"jitter": 0.0, "blur": 0.0, "mix": "none"}
LEARN_ALL = {"select": "class share", "top": 1.0}


def term_of(model: Segmenter, **settings: Any) -> FeatureDistance:
    made = FeatureDistance.of(FeatureDistanceConfig(**{"weight": 1.0, **settings}), model, SPACE)
    assert made is not None
    return made


def labelled(model: Segmenter, supervision: str = "labels", **settings: Any) -> LocalInputs:
    training = {"supervision": supervision, "batch_size": 2, "lr": 0.1, "scale": (1.0, 1.0)}
    return inputs(
        training,
        SIZE_HW,
        pixels_C=(64, 64, 64),
        labelled=(0, 1) if supervision == "label subset" else None,
        distance=term_of(model, **settings),
    )


def unlabelled(model: Segmenter, **settings: Any) -> LocalInputs:
    given = labelled(model, "self_training")
    training = given.training.model_copy(
        update={"self_training": given.training.self_training.model_copy(update=settings)}
    )
    given = replace(given, training=training, pixels_C=(0, 0, 0))
    return replace(given, survey=teachers_of(given, model, []))


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, *SIZE_HW, generator=rng.torch_generator(5))


def labels(train_id: int, count: int = 2) -> Tensor:
    return torch.full((count, *SIZE_HW), train_id, dtype=torch.uint8)


def loss_of(given: LocalInputs, model: Segmenter, labels_NHW: Tensor) -> Tensor:
    with rng.torch_default(0, purpose="feature-distance-test"):
        loss = SUPERVISION[given.training.supervision].make(given)
        value = loss(model, images(len(labels_NHW)), labels_NHW)
    assert value is not None
    return value


def added(given: LocalInputs, labels_NHW: Tensor) -> float:
    """What the term adds to a step's loss."""
    parts = [
        loss_of(one, tiny_network(3).train(), labels_NHW).item()
        for one in (given, replace(given, distance=None))
    ]
    return parts[0] - parts[1]


# The paper's equations


def test_a_cell_counts_where_one_class_covers_more_than_the_ratio() -> None:
    """Not where it covers just as much, nor where only two classes together do."""
    labels_NHW = torch.tensor(
        [[[1, 1, 1, 0],
          [1, 1, 0, 0],
          [2, 2, 1, 2],
          [2, 0, 1, 2]]]
    )  # fmt: skip

    def cells(classes: tuple[int, ...], ratio: float) -> list[list[bool]]:
        hw = {"padded_hw": (4, 4), "size_hw": (2, 2)}
        marked: list[list[bool]] = cells_of_classes(labels_NHW, classes, ratio=ratio, **hw)[
            0
        ].tolist()
        return marked

    assert cells((1, 2), 0.75) == [[True, False], [False, False]]
    assert cells((1, 2), 0.7) == [[True, False], [True, False]]
    assert cells((1, 2), 0.4) == [[True, False], [True, True]]
    assert cells((2,), 0.7) == [[False, False], [True, False]]


def test_cells_are_those_of_a_plain_loop_with_padding_and_void() -> None:
    draw = rng.generator(2, purpose="feature-distance-test")
    labels_NHW = np.repeat(np.repeat(draw.choice([0, 1, 2, IGNORE], (3, 3, 4)), 3, 1), 3, 2)
    labels_NHW = labels_NHW.astype(np.uint8)[:, :9, :10]  # of a picture padded to 12 x 12
    expected_Nhw = np.zeros((3, 3, 3), dtype=bool)
    for n, row, column in np.ndindex(3, 3, 3):
        cell = labels_NHW[n, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        expected_Nhw[n, row, column] = any((cell == c).sum() > 0.5 * 16 for c in (1, 2))
    cells_Nhw = cells_of_classes(
        torch.from_numpy(labels_NHW), (1, 2), ratio=0.5, padded_hw=(12, 12), size_hw=(3, 3)
    )
    assert 0 < expected_Nhw.sum() < 27
    np.testing.assert_array_equal(cells_Nhw.numpy(), expected_Nhw)


def test_the_distance_is_the_mean_over_cells_that_count() -> None:
    """Of lengths 5, 0, 10 and 1, the first and the third count."""
    apart = torch.tensor([[3.0, 4.0], [0.0, 0.0], [6.0, 8.0], [1.0, 0.0]]).T.view(1, 2, 2, 2)
    known = torch.tensor([1.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    cells = torch.tensor([[[True, False], [True, False]]])
    assert mean_distance(known + apart, known, cells).item() == 7.5


def test_no_cell_and_no_distance_are_no_loss_and_no_nan() -> None:
    features = torch.rand(1, 2, 2, 2, generator=rng.torch_generator(1)).requires_grad_()
    for known, is_on in ((features.detach() + 1, False), (features.detach(), True)):
        features.grad = None
        value = mean_distance(features, known, torch.full((1, 2, 2), is_on))
        value.backward()  # type: ignore[no-untyped-call]
        assert value.item() == 0
        assert features.grad is not None
        assert not features.grad.any()  # and not NaN, which is any


# The encoders


def test_it_is_zero_at_the_imagenet_weights() -> None:
    model = tiny_network(3)
    given = labelled(model)
    load_imagenet(model)
    plain = replace(given, distance=None)
    model.eval()
    assert loss_of(given, model, labels(1)) == loss_of(plain, model, labels(1))
    with torch.no_grad():
        model.get_parameter("net.encoder.1.bias").add_(0.25)
    assert loss_of(given, model, labels(1)) > loss_of(plain, model, labels(1))


def test_only_the_trained_encoder_has_a_gradient() -> None:
    model = tiny_network(3).train()
    given = labelled(model)
    assert given.distance is not None
    seen: list[Tensor] = []
    handle = model.get_submodule("net.encoder").register_forward_hook(
        lambda _, __, made: seen.append(made)
    )
    model(images())
    handle.remove()
    value = given.distance.term(seen[0], images(), labels(2), given.hardware)
    value.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None for p in given.distance.frozen.parameters())
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert gradients["net.head.weight"] is None
    assert gradients["net.encoder.1.bias"] is not None
    assert gradients["net.encoder.1.bias"].any()


def test_training_leaves_the_frozen_encoder_as_it_is() -> None:
    model = tiny_network(3)
    given = labelled(model)
    assert given.distance is not None
    frozen = given.distance.frozen
    before = {key: value.clone() for key, value in frozen.state_dict().items()}
    pairs = [(np.full((*SIZE_HW, 3), 40 * k, np.uint8), labels(1, 1)[0].numpy()) for k in range(4)]
    train_locally(model, pairs, given)
    assert not frozen.training
    assert all(torch.equal(before[key], value) for key, value in frozen.state_dict().items())


@pytest.mark.parametrize("mix", ["classmix", "cutmix"])
def test_both_encoders_see_the_same_images(mix: str) -> None:
    """Mixed, in other colours and blurred: not what the teacher sees."""
    model = tiny_network(3)
    load_imagenet(model)  # the same normalisation
    given = unlabelled(model, jitter=1.0, blur=1.0, mix=mix, **LEARN_ALL)
    assert given.distance is not None
    seen: dict[str, Tensor] = {}
    for name, one in (("trained", model), ("frozen", given.distance.frozen)):
        one.get_submodule("net.encoder").register_forward_pre_hook(
            lambda _, args, name=name: seen.__setitem__(name, args[0])
        )
    loss_of(given, model.train(), labels(0))
    assert torch.equal(seen["trained"], seen["frozen"])
    assert not torch.equal(seen["frozen"], model.prepared(images()))


# What it is added to


@pytest.mark.parametrize("supervision", ["labels", "label subset", "pixel contrast"])
def test_labels_say_where_it_counts(supervision: str) -> None:
    given = labelled(tiny_network(3), supervision)
    assert added(given, labels(0)) == 0  # road is not critical
    assert added(given, labels(1)) > 0.1
    assert added(labelled(tiny_network(3), supervision, weight=0.5), labels(1)) == pytest.approx(
        0.5 * added(given, labels(1)), rel=1e-4
    )
    some = labels(1)
    some[:, :4] = IGNORE  # half of the cells; the mean is over the others
    only_lower = added(given, some)
    assert 0 < only_lower != pytest.approx(added(given, labels(1)), rel=1e-4)


def test_a_batch_without_labels_is_no_step() -> None:
    model = tiny_network(3)
    given = labelled(model)
    assert SUPERVISION["labels"].make(given)(model, images(), labels(IGNORE)) is None


def test_pseudo_labels_that_are_learnt_say_where_it_counts() -> None:
    model = tiny_network(3)
    with torch.no_grad():
        model.get_parameter("net.head.weight").mul_(0.01)
        model.get_parameter("net.head.bias").copy_(torch.tensor([0.0, 2.0, 0.0]))  # all are cars

    def added_by(**settings: Any) -> float:
        given = unlabelled(model, **UNCHANGED, **settings)
        one, none = (loss_of(g, model.train(), labels(0)).item() for g in (
            given, replace(given, distance=None)
        ))  # fmt: skip
        return one - none

    assert added_by(**LEARN_ALL) > 0.1
    assert added_by(select="quality", confidence=0.5) > 0.1
    assert added_by(select="threshold", confidence=0.99) == 0  # nothing is sure enough
    with torch.no_grad():
        model.get_parameter("net.head.bias").copy_(torch.tensor([2.0, 0.0, 0.0]))  # all is road
    assert added_by(**LEARN_ALL) == 0


def test_losses_that_are_compared_are_without_it() -> None:
    model = tiny_network(3)
    given = labelled(model)
    pairs = [(np.full((*SIZE_HW, 3), 90, np.uint8), np.full(SIZE_HW, 1, np.uint8))]
    assert mean_loss(model, pairs, given) == mean_loss(model, pairs, replace(given, distance=None))


# Settings


def test_at_weight_0_there_is_no_encoder_to_load() -> None:
    assert FeatureDistance.of(FeatureDistanceConfig(), build_model("fast_scnn", 3), SPACE) is None


def test_classes_are_the_critical_ones_unless_named() -> None:
    assert classes_of(FeatureDistanceConfig(), CAMVID_11) == (2, 6, 9, 10)
    things = (
        "traffic light", "traffic sign", "person", "rider", "car", "truck", "bus", "train",
        "motorcycle", "bicycle",
    )  # fmt: skip
    named = classes_of(FeatureDistanceConfig(classes=things), CITYSCAPES_19)
    assert named == (6, 7, 11, 12, 13, 14, 15, 16, 17, 18)  # as in the authors' configuration


def test_classes_that_are_not_there_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown class 'cars'.*Did you mean 'car'"):
        classes_of(FeatureDistanceConfig(classes=("cars",)), SPACE)
    with pytest.raises(ConfigError, match="'three' has no safety-critical classes"):
        classes_of(FeatureDistanceConfig(), replace(SPACE, critical=()))
