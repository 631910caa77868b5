"""MCD: what each step trains and moves, on whose images; discrepancy by hand; labels unseen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from tests.learning.steps import inputs
from torch import Tensor, nn

from fleetseg import rng
from fleetseg.data.labels import IGNORE
from fleetseg.data.sample import Pairs
from fleetseg.errors import ConfigError
from fleetseg.learning.batches import loaded
from fleetseg.learning.discrepancy import discrepancy
from fleetseg.learning.inputs import LocalInputs
from fleetseg.learning.local import num_batches, num_steps, train_locally
from fleetseg.learning.parameters import build_optimiser
from fleetseg.learning.scaling import LossScale, take_step
from fleetseg.learning.supervision import SUPERVISION
from fleetseg.models.build import wrap
from fleetseg.models.second_head import PREFIX, add_second_head, both_heads
from fleetseg.models.segmenter import Segmenter

SIZE_HW = (8, 8)
HEADS = {"net.4.weight", "net.4.bias", f"{PREFIX}layer.weight", f"{PREFIX}layer.bias"}
EXTRACTOR = {"net.0.weight", "net.0.bias", "net.1.weight", "net.1.bias"}


def small_model(seed: int = 0) -> Segmenter:
    with rng.torch_default(seed, purpose="discrepancy-test"):
        net = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Identity(),
            nn.Conv2d(4, 3, 1),
        )  # fmt: skip
    return wrap(net, 3, head_prefixes=["4."])


def two_headed(seed: int = 0) -> Segmenter:
    model = small_model(seed)
    add_second_head(model, SIZE_HW, seed)
    return model.train()


def samples(purpose: str, label: int | None = None, count: int = 4) -> Pairs:
    draw = rng.generator(1, purpose=purpose)
    pairs = []
    for _ in range(count):
        image_HWC = draw.integers(0, 256, (*SIZE_HW, 3), np.uint8)
        own_HW = (image_HWC[..., 0] // 86).astype(np.uint8)  # red in three steps can be learnt
        pairs.append((image_HWC, own_HW if label is None else np.full(SIZE_HW, label, np.uint8)))
    return pairs


def given(**training: Any) -> LocalInputs:
    fields = {
        "supervision": "discrepancy", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.1,
        "batch_size": 2, "local_epochs": 1, "scale": (1.0, 1.0), "discrepancy": EXTRACTOR_STEPS,
    }  # fmt: skip
    return inputs({**fields, **training}, SIZE_HW, source=samples("source"))


EXTRACTOR_STEPS = {"extractor_steps": 2}


def logits(*shares: float) -> Tensor:
    """Logits of two classes, the first with these shares, as a row of pixels."""
    first_P = torch.tensor(shares)
    return torch.stack([first_P, 1 - first_P]).log().view(1, 2, 1, -1)


def test_the_discrepancy_by_hand() -> None:
    one, other = logits(0.5, 0.9, 0.1), logits(0.75, 0.5, 0.9)
    valid = torch.tensor([[[True, True, False]]])
    # Means over two classes of (0.25, 0.25) and (0.4, 0.4); the third pixel is padding.
    assert discrepancy(one, other, valid).item() == pytest.approx((0.25 + 0.4) / 2)
    assert discrepancy(other, one, valid).item() == pytest.approx((0.25 + 0.4) / 2)
    assert discrepancy(one, one, valid).item() == 0
    assert discrepancy(one, other, valid & False).item() == 0


class Stepping:
    """Takes steps on one batch, one after another, and says what each has moved."""

    def __init__(self, training: LocalInputs, own: Tensor | None = None) -> None:
        self.model = two_headed()
        draw = rng.torch_generator(5)
        self.own = torch.rand(2, 3, *SIZE_HW, generator=draw) if own is None else own
        self.source = torch.rand(2, 3, *SIZE_HW, generator=draw)
        self.labels = torch.zeros(4, *SIZE_HW, dtype=torch.uint8)
        self.labels[2:] = (self.source[:, 0] * 2.99).byte()
        self.optimiser = build_optimiser(self.model, training.training)
        self.loss_of = SUPERVISION["discrepancy"].make(training)

    def step(self) -> tuple[set[str], set[str]]:
        """Take the next one; returns names of parameters that have a gradient, and that moved."""
        before = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        loss = self.loss_of(self.model, torch.cat([self.own, self.source]), self.labels)
        assert loss is not None
        take_step(self.model, loss, self.optimiser, LossScale(enabled=False), 0.0)
        after = dict(self.model.named_parameters())
        assert all(p.requires_grad for p in after.values())
        with_gradient = {name for name, p in after.items() if p.grad is not None}
        return with_gradient, {name for name, p in after.items() if not p.equal(before[name])}

    def gap(self) -> float:
        """Discrepancy on the own images, with the statistics of their batch."""
        buffers = {key: value.clone() for key, value in self.model.named_buffers()}
        with torch.no_grad(), both_heads(self.model):
            one, other = self.model(self.own)
        self.model.load_state_dict(buffers, strict=False)
        return discrepancy(one, other, torch.ones(2, *SIZE_HW, dtype=torch.bool)).item()


def test_each_step_trains_and_moves_its_part_alone() -> None:
    """Momentum and weight decay would move the rest, if its gradients were zeros."""
    stepping = Stepping(given())
    for _ in range(2):  # on the second batch, every parameter has momentum
        for part in (HEADS | EXTRACTOR, HEADS, EXTRACTOR, EXTRACTOR):
            with_gradient, moved = stepping.step()
            assert with_gradient == part
            assert moved <= part
            assert moved >= {name for name in part if name.endswith("weight")}


def test_heads_move_apart_and_the_extractor_brings_them_together() -> None:
    stepping = Stepping(given(momentum=0.0, weight_decay=0.0, lr=0.02))
    stepping.step()
    gaps = [stepping.gap()]
    for _ in range(3):
        stepping.step()
        gaps.append(stepping.gap())
    assert gaps[1] > gaps[0]
    assert gaps[1] > gaps[2] > gaps[3]


def test_heads_that_begin_alike_would_stay_alike() -> None:
    """A second head that is a copy has the first one's gradients in A, and none of d in B."""
    stepping = Stepping(given())
    weights = dict(stepping.model.named_parameters())
    with torch.no_grad():
        for name in ("weight", "bias"):
            weights[f"{PREFIX}layer.{name}"].copy_(weights[f"net.4.{name}"])
    stepping.step()
    stepping.step()
    assert stepping.gap() == pytest.approx(0.0, abs=1e-7)
    assert Stepping(given()).gap() > 0.01  # which is why it is no copy


def trained(
    own: Pairs, training: LocalInputs, seed: int = 0
) -> tuple[Mapping[str, Tensor], float, int, int]:
    model = two_headed(seed)
    result = train_locally(model, own, training)
    return model.state_dict(), result.loss, result.num_steps, result.images_seen


def test_labels_of_own_images_reach_nothing_and_the_images_do() -> None:
    without, loss, *_ = trained(samples("own", IGNORE), given())
    told, same_loss, *_ = trained(samples("own", 2), given())
    assert loss == same_loss
    assert all(torch.equal(without[key], told[key]) for key in without)
    # LADD's code takes the discrepancy of source images: there, other own images change nothing.
    others, *_ = trained(samples("others", 2), given())
    assert not torch.equal(without["net.0.weight"], others["net.0.weight"])


def test_padding_does_not_count() -> None:
    stepping = Stepping(given())
    stepping.step(), stepping.step()
    stepping.labels[:2, :4] = IGNORE
    padded = stepping.own.clone()
    loss = stepping.loss_of(stepping.model, torch.cat([padded, stepping.source]), stepping.labels)
    with torch.no_grad(), both_heads(stepping.model):
        one, other = stepping.model(padded)
    valid = torch.zeros(2, *SIZE_HW, dtype=torch.bool)
    valid[:, 4:] = True
    assert loss is not None
    assert loss.item() == pytest.approx(discrepancy(one, other, valid).item())


def test_a_batch_takes_all_steps_and_its_images_count_once() -> None:
    training = given().training
    assert (num_batches(4, training), num_steps(4, training)) == (2, 8)
    local = training.model_copy(update={"local_steps": 3})
    assert (num_batches(4, local), num_steps(4, local)) == (3, 12)
    _, _, steps, images_seen = trained(samples("own"), given())
    assert (steps, images_seen) == (8, 4)


def test_source_images_without_a_label_let_the_extractor_learn_alone() -> None:
    training = given()
    void = inputs(training.training.model_dump(), SIZE_HW, source=samples("source", IGNORE))
    state, _, steps, _ = trained(samples("own"), void)
    assert steps == 4  # C of two batches
    assert torch.equal(state["net.4.weight"], two_headed().state_dict()["net.4.weight"])


def test_a_batch_holds_own_images_and_then_as_many_of_the_source() -> None:
    training = given(batch_size=3, flip=False, colour_jitter=0.0)
    own, source = samples("own", IGNORE, 5), samples("source", count=4)
    training = inputs(training.training.model_dump(), SIZE_HW, source=source)
    with loaded(own, 4, training) as batches:
        shown = [(b.images_NHWC, b.labels_NHW) for b in batches]
    drawn = []
    for images_NHWC, labels_NHW in shown:
        half = len(images_NHWC) // 2
        assert bool((labels_NHW[:half] == IGNORE).all())
        for image_HWC, label_HW in zip(images_NHWC[half:], labels_NHW[half:], strict=True):
            (number,) = [k for k in range(4) if np.array_equal(source[k][1], label_HW)]
            assert torch.allclose(image_HWC, torch.from_numpy(source[number][0]) / 255)
            drawn.append(number)
    assert [len(images) for images, _ in shown] == [6, 4, 6, 4]
    assert sorted(drawn[:4]) == sorted(drawn[4:8]) == [0, 1, 2, 3]


@pytest.mark.parametrize("optimiser_state", ["reset", "kept"])
def test_other_optimisers_and_kept_moments(optimiser_state: str) -> None:
    training = given(optimiser="adamw", lr=0.01, optimiser_state=optimiser_state)
    state, loss, steps, _ = trained(samples("own"), training)
    assert steps == 8
    assert np.isfinite(loss)
    assert all(bool(torch.isfinite(value).all()) for value in state.values())


def test_a_vehicle_that_carries_nothing_says_so() -> None:
    with pytest.raises(ConfigError, match="this vehicle carries none"):
        SUPERVISION["discrepancy"].make(inputs({"supervision": "discrepancy"}))
