"""A step without labels: none is seen, nothing sure is nothing learnt, teachers stay frozen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.learning.steps import inputs
from torch import Tensor, nn

from fleetseg import rng
from fleetseg.config import TrainingConfig
from fleetseg.data.labels import IGNORE
from fleetseg.learning.inputs import LocalInputs
from fleetseg.learning.local import train_locally
from fleetseg.learning.self_training import references_of, teachers_of, view_without_labels
from fleetseg.learning.supervision import SUPERVISION
from fleetseg.models.build import wrap
from fleetseg.models.segmenter import Segmenter

SIZE_HW = (8, 8)
PLAIN = {"jitter": 0.0, "blur": 0.0, "mix": "none"}


def small_model(seed: int = 0) -> Segmenter:
    with rng.torch_default(seed, purpose="self-training-test"):
        net = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5),
            nn.Conv2d(4, 3, 1),
        )  # fmt: skip
    return wrap(net, 3)


def samples(label: int = IGNORE, count: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    draw = rng.generator(1, purpose="self-training-test")
    return [
        (draw.integers(0, 256, (*SIZE_HW, 3), np.uint8), np.full(SIZE_HW, label, np.uint8))
        for _ in range(count)
    ]


def unlabelled(pixels_C: tuple[int, ...] = (0, 0, 0), **settings: Any) -> LocalInputs:
    training = {
        "supervision": "self_training", "self_training": settings, "lr": 0.1, "batch_size": 2,
        "local_epochs": 2, "scale": (1.0, 1.0),
    }  # fmt: skip
    return inputs(training, SIZE_HW, pixels_C=pixels_C)


def trained(given: LocalInputs, pairs: Any) -> tuple[dict[str, Tensor], float]:
    model = small_model()
    result = train_locally(model, pairs, given)
    return model.state_dict(), result.loss


def loss_of(given: LocalInputs, model: nn.Module, images: Tensor, marks: Tensor) -> Tensor:
    given = replace(given, survey=teachers_of(given, model, []))
    value = SUPERVISION["self_training"].make(given)(model, images, marks)
    assert value is not None
    return value


@pytest.mark.parametrize("label", [0, 2, 77])
@pytest.mark.parametrize("mix", ["none", "classmix", "cutmix"])
def test_labels_in_memory_are_not_looked_at(label: int, mix: str) -> None:
    """The last guard: what a store would give of an unlabelled client's labels reaches nothing."""
    given = unlabelled(mix=mix, distil=1.0, entropy=0.1, max_square=0.1, top=1.0)
    without, loss = trained(given, samples())
    told, same_loss = trained(given, samples(label))
    assert loss == same_loss != 0
    assert all(torch.equal(without[key], told[key]) for key in without)


def test_a_client_with_labels_trains_as_by_labels() -> None:
    labelled = unlabelled(pixels_C=(64, 0, 0))
    by_labels = replace(
        labelled, training=labelled.training.model_copy(update={"supervision": "labels"})
    )
    one, other = (trained(given, samples(0))[0] for given in (labelled, by_labels))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_nothing_sure_is_no_loss_and_no_gradient() -> None:
    given = unlabelled(select="threshold", confidence=0.9999, **PLAIN)
    model, marks = small_model(), torch.zeros(2, *SIZE_HW, dtype=torch.uint8)
    value = loss_of(given, model, torch.rand(2, 3, *SIZE_HW), marks)
    value.backward()  # type: ignore[no-untyped-call]
    assert value.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("select", ["threshold", "class share", "either", "quality"])
def test_a_batch_of_padding_is_no_loss_and_no_nan(select: str) -> None:
    given = unlabelled(select=select, distil=1.0, entropy=1.0, max_square=1.0)
    marks = torch.full((2, *SIZE_HW), IGNORE, dtype=torch.uint8)
    assert loss_of(given, small_model(), torch.rand(2, 3, *SIZE_HW), marks).item() == 0


def test_padding_teaches_nothing() -> None:
    """Pixels outside of the picture change neither the loss nor what it is divided by."""
    given = unlabelled(top=1.0, select="class share", **PLAIN)
    images, marks = torch.rand(1, 3, *SIZE_HW), torch.zeros(1, *SIZE_HW, dtype=torch.uint8)
    marks[:, :, 4:] = IGNORE
    model = Constant()
    half = loss_of(given, model, images, marks)
    assert half.item() == pytest.approx(loss_of(given, model, images, marks * 0).item())


class Constant(nn.Module):
    """Predicts the same of every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([2.0, 1.0, 0.0]))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return logits at the images' size."""
        shape = (len(images_NCHW), 3, *images_NCHW.shape[2:])
        return self.logits.view(1, 3, 1, 1).expand(shape)


@pytest.mark.parametrize(("normalise", "factor"), [("kept", 1.0), ("all", 0.25)])
def test_by_all_pixels_a_small_share_is_a_small_loss(normalise: str, factor: float) -> None:
    model = Constant()
    wanted = -model.logits.log_softmax(0)[0].item()
    given = unlabelled(select="class share", top=0.25, normalise=normalise, **PLAIN)
    marks = torch.zeros(1, *SIZE_HW, dtype=torch.uint8)
    value = loss_of(given, model, torch.rand(1, 3, *SIZE_HW), marks)
    assert value.item() == pytest.approx(factor * wanted)


def test_the_teacher_stands_still_and_sees_plain_images() -> None:
    """Frozen and in eval mode: no dropout, running statistics, and no gradient."""
    given, model = unlabelled(jitter=1.0, blur=1.0), small_model()
    teachers = teachers_of(given, model, [])
    assert teachers is not None
    before = {key: value.clone() for key, value in teachers.teacher.state_dict().items()}
    seen: list[Tensor] = []
    teachers.teacher.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    marks, images = torch.zeros(2, *SIZE_HW, dtype=torch.uint8), torch.rand(2, 3, *SIZE_HW)
    loss = SUPERVISION["self_training"].make(replace(given, survey=teachers))
    loss(model.train(), images, marks).backward()  # type: ignore[union-attr]
    assert not teachers.teacher.training
    assert torch.equal(seen[0], images)
    assert all(torch.equal(before[k], v) for k, v in teachers.teacher.state_dict().items())
    assert all(p.grad is None for p in teachers.teacher.parameters())


def test_batches_of_an_unlabelled_client_are_of_plain_colours() -> None:
    given, pairs = view_without_labels(unlabelled(), samples(2))
    assert given.training.colour_jitter == 0
    assert set(np.unique(pairs[0][1])) == {0}
    with_labels = unlabelled(pixels_C=(1, 0, 0))
    assert view_without_labels(with_labels, samples(2))[0] is with_labels


def test_a_teacher_that_came_beside_the_model_is_taken() -> None:
    def fill(model: nn.Module) -> None:
        model.load_state_dict(small_model(7).state_dict())

    given = replace(unlabelled(teacher="ema"), references={"teacher": fill})
    teachers = teachers_of(given, small_model(), [])
    assert teachers is not None
    wanted = small_model(7).state_dict()
    assert all(torch.equal(wanted[k], v) for k, v in teachers.teacher.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"teacher": "round"}, ()),  # the broadcast itself: no byte
        ({"teacher": "round", "every": 5}, ("teacher",)),
        ({"teacher": "round", "distil": 1.0}, ("first",)),
        ({"teacher": "fixed", "distil": 1.0}, ("first",)),
        ({"teacher": "swa", "distil": 1.0}, ("first", "teacher")),
    ],
)
def test_what_is_sent_beside_the_model(settings: dict[str, Any], names: tuple[str, ...]) -> None:
    training = TrainingConfig(supervision="self_training", self_training=settings)  # type: ignore[arg-type]
    assert references_of(training) == names
