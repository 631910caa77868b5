"""Predictions at the labels' own resolution, in batches of one size."""

from __future__ import annotations

import weakref
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from fleetseg.errors import DataError, ModelError, OutOfMemory
from fleetseg.evaluation.confusion import confusion
from fleetseg.evaluation.predict import evaluate_by_domain, evaluate_pairs, predict
from fleetseg.rng import generator, torch_default

C = 4


class Net(nn.Module):
    """Logits at 1/4 of the resolution; batch norm and dropout show a wrong mode."""

    def __init__(self, num_classes: int = C, stride: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, num_classes, 3, stride, 1)
        self.norm = nn.BatchNorm2d(num_classes)
        self.drop = nn.Dropout(0.5)
        self.seen: list[torch.Tensor] = []

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        self.seen.append(images_NCHW)
        return self.drop(self.norm(self.conv(images_NCHW)))


def net(**kwargs: int) -> Net:
    with torch_default(0, purpose="net"):
        return Net(**kwargs)


def pairs(
    sizes: list[tuple[int, int]], label_scale: int = 1
) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = generator(0, purpose="pairs")
    made = []
    for height, width in sizes:
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        label = rng.integers(0, C + 1, (height * label_scale, width * label_scale), np.uint8)
        label[label == C] = 255
        made.append((image, label))
    return made


def plain_confusion(model: nn.Module, samples: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """One image at a time, by the book."""
    total = np.zeros((C, C), np.int64)
    model.eval()
    for image, label in samples:
        images_NCHW = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous() / 255
        with torch.no_grad():
            logits = functional.interpolate(
                model(images_NCHW), label.shape, mode="bilinear", align_corners=False
            )
        total += confusion(label, logits.argmax(1)[0].numpy(), C)
    return total


class Fixed(nn.Module):
    """Gives the same logits whatever the image."""

    def __init__(self, logits_CHW: torch.Tensor) -> None:
        super().__init__()
        self.logits_CHW = logits_CHW

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        return self.logits_CHW[None].expand(len(images_NCHW), -1, -1, -1)


def test_logits_are_resized_before_the_argmax():
    # Class 1 falls from 4 to 0 from left to right, class 0 is 1 all over: at 8 pixels the line
    # is crossed at 3/4 of the way between the two cell centres (x = 1.5 and 5.5), x = 4.5.
    logits = torch.tensor([[[1.0, 1.0]], [[4.0, 0.0]]])
    preds = predict(Fixed(logits), np.zeros((2, 1, 8, 3), np.uint8), (1, 8))
    assert preds.tolist() == [[[1, 1, 1, 1, 1, 0, 0, 0]]] * 2
    assert preds.dtype == np.uint8


def test_the_first_of_equal_logits_wins():
    image = np.zeros((1, 3, 3, 3), np.uint8)
    assert predict(Fixed(torch.zeros(5, 3, 3)), image, (3, 3)).max() == 0
    tied = torch.zeros(5, 3, 3)
    tied[[2, 4]] = 1
    assert (predict(Fixed(tied), image, (3, 3)) == 2).all()


@pytest.mark.parametrize("size_hw", [(24, 32), (48, 64), (7, 100), (6, 8)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_equals_torch_interpolate_and_argmax(size_hw: tuple[int, int], channels_last: bool):
    rng = generator(3, purpose="logits")
    logits = torch.from_numpy(rng.standard_normal((7, 24, 32), np.float32))
    if channels_last:
        logits = logits.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    theirs = functional.interpolate(logits[None], size_hw, mode="bilinear", align_corners=False)
    preds = predict(Fixed(logits), np.zeros((1, 8, 8, 3), np.uint8), size_hw)
    assert np.array_equal(preds, theirs.argmax(1).numpy())


def test_logits_of_the_model_are_not_written_to():
    logits = torch.arange(12.0).reshape(3, 2, 2)
    before = logits.clone()
    predict(Fixed(logits), np.zeros((1, 2, 2, 3), np.uint8), (2, 2))
    assert torch.equal(logits, before)


def test_the_model_sees_rgb_between_0_and_1():
    model = net()
    images = np.zeros((1, 8, 8, 3), np.uint8)
    images[..., 0], images[..., 1] = 255, 51
    images.setflags(write=False)  # as from a memory-mapped cache
    predict(model, images, (8, 8))
    seen = model.seen[0]
    assert seen.dtype == torch.float32
    assert seen[0, :, 3, 5].tolist() == pytest.approx([1, 0.2, 0])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
@pytest.mark.parametrize("label_scale", [1, 2])
def test_any_batch_size_scores_every_image(batch_size: int, label_scale: int):
    samples = pairs([(24, 32)] * 7, label_scale)
    conf = evaluate_pairs(net(), samples, num_classes=C, batch_size=batch_size)
    assert conf.sum() == sum(np.count_nonzero(label != 255) for _, label in samples)
    assert np.array_equal(conf, plain_confusion(net(), samples))


def test_sizes_may_be_mixed_and_are_batched_together():
    samples = pairs([(24, 32), (16, 16)] * 4)
    model = net()
    conf = evaluate_pairs(model, samples, num_classes=C, batch_size=4)
    assert sorted(len(images) for images in model.seen) == [4, 4]
    assert np.array_equal(conf, plain_confusion(net(), samples))


class Streamed:
    """Pairs that are made when asked for, and counted while somebody holds them."""

    def __init__(self, sizes: list[tuple[int, int]]) -> None:
        self.sizes = sizes
        self.alive = self.most_alive = 0

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, np.ndarray]:
        ((image, label),) = pairs([self.sizes[index]])
        self.alive += 1
        self.most_alive = max(self.most_alive, self.alive)
        weakref.finalize(image, self._gone)
        return image, label

    def _gone(self) -> None:
        self.alive -= 1


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_images_of_many_sizes_are_not_all_held_at_once(batch_size: int):
    sizes = [(8 + i % 50, 8 + i % 7) for i in range(200)]  # each pair of sizes comes up rarely
    streamed = Streamed(sizes)
    conf = evaluate_pairs(net(), streamed, num_classes=C, batch_size=batch_size)
    assert streamed.most_alive <= 5 * batch_size + 1
    assert streamed.alive <= batch_size  # the last batch, in the cycle of a frame
    assert np.array_equal(conf, plain_confusion(net(), [Streamed(sizes)[i] for i in range(200)]))


def test_sizes_that_come_in_turn_still_make_full_batches():
    model = net()
    evaluate_pairs(model, pairs([(16, 16), (8, 8), (24, 8), (8, 24)] * 8), num_classes=C)
    assert [len(images) for images in model.seen] == [8, 8, 8, 8]


def test_a_size_that_comes_often_is_batched_among_sizes_that_come_once():
    model = net()
    sizes = [size for i in range(20) for size in ((16, 16), (20 + i, 8))]
    evaluate_pairs(model, pairs(sizes), num_classes=C, batch_size=4)
    assert sorted(len(images) for images in model.seen) == [1] * 20 + [4] * 5


def test_labels_of_several_sizes_for_images_of_one():
    samples = pairs([(16, 16)] * 2) + pairs([(16, 16)] * 3, label_scale=3)
    conf = evaluate_pairs(net(), samples, num_classes=C, batch_size=8)
    assert np.array_equal(conf, plain_confusion(net(), samples))


def test_domains_are_kept_apart_in_one_pass():
    samples = pairs([(16, 16)] * 6)
    domains = ["rain", "day", "rain", "night", "day", "day"]
    model = net()
    by_domain = evaluate_by_domain(model, samples, domains, num_classes=C, batch_size=4)
    assert sum(len(images) for images in model.seen) == 6
    assert list(by_domain) == ["day", "night", "rain"]
    for domain, conf in by_domain.items():
        part = [s for s, d in zip(samples, domains, strict=True) if d == domain]
        assert np.array_equal(conf, plain_confusion(net(), part))


def test_every_modules_mode_is_put_back():
    model = net()
    model.train()
    model.norm.eval()  # frozen by the user
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluate_pairs(model, pairs([(8, 8)] * 3), num_classes=C, batch_size=2)
    assert [model.training, model.norm.training, model.drop.training] == [True, False, True]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not model.seen[0].requires_grad
    bad = [(np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 77, np.uint8))]
    with pytest.raises(DataError, match="77"):
        evaluate_pairs(model, bad, num_classes=C)
    assert [model.training, model.norm.training] == [True, False]


def test_the_callers_context_surrounds_each_forward_pass():
    model = net()
    autocast = partial(torch.autocast, "cpu", torch.bfloat16)
    conf = evaluate_pairs(model, pairs([(8, 8)] * 3), num_classes=C, batch_size=2, context=autocast)
    assert conf.sum() > 0
    entered = []

    def context() -> nullcontext[None]:
        entered.append(True)
        return nullcontext()

    evaluate_pairs(model, pairs([(8, 8)] * 3), num_classes=C, batch_size=2, context=context)
    assert len(entered) == 2


def test_half_precision_logits_are_resized_in_float32():
    logits = torch.tensor([[[0.0, 1.0]], [[0.25, 0.3]]])
    preds = predict(Fixed(logits.bfloat16()), np.zeros((1, 1, 64, 3), np.uint8), (1, 64))
    theirs = functional.interpolate(
        logits.bfloat16().float()[None], (1, 64), mode="bilinear", align_corners=False
    )
    assert np.array_equal(preds, theirs.argmax(1).numpy())


def test_a_diverged_model_still_gets_a_score():
    model = Fixed(torch.full((C, 2, 2), torch.nan))
    assert evaluate_pairs(model, pairs([(8, 8)]), num_classes=C)[:, 1:].sum() == 0


def test_no_images_is_an_error():
    with pytest.raises(DataError, match="nothing to evaluate on; got 0 images"):
        evaluate_pairs(net(), [], num_classes=C)


def test_one_domain_for_each_image():
    with pytest.raises(DataError, match="got 1, expected 2"):
        evaluate_by_domain(net(), pairs([(8, 8)] * 2), ["day"], num_classes=C)


class Auxiliary(Net):
    def forward(self, images_NCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
        return super().forward(images_NCHW), images_NCHW


def test_models_that_do_not_return_logits_are_refused():
    with pytest.raises(ModelError, match=r"got tuple.*model\.training"):
        evaluate_pairs(Auxiliary(), pairs([(8, 8)]), num_classes=C)
    with pytest.raises(ModelError, match=r"\(1, 5, 2, 2\), expected \(1, 4, H, W\)"):
        evaluate_pairs(net(num_classes=5), pairs([(8, 8)]), num_classes=C)


class Small(Net):
    """On a device that holds a few images at a time."""

    most = 1

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        if len(images_NCHW) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0")
        return super().forward(images_NCHW)


def small(most: int) -> Small:
    with torch_default(0, purpose="net"):
        model = Small()
    model.most = most
    return model


@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_a_batch_that_does_not_fit_is_scored_in_parts(most: int):
    samples = pairs([(24, 32)] * 7, 2)
    model = small(most)
    conf = evaluate_pairs(model, samples, num_classes=C, batch_size=5)
    assert np.array_equal(conf, plain_confusion(net(), samples))
    assert max(len(images) for images in model.seen) <= most
    images = np.stack([image for image, _ in samples])
    assert np.array_equal(predict(model, images, (24, 32)), predict(net(), images, (24, 32)))


def test_an_image_that_does_not_fit_is_an_error_with_a_cure():
    with pytest.raises(OutOfMemory, match=r"one image on cpu; got CUDA.*20.00 GiB. Use a smaller"):
        evaluate_pairs(small(0), pairs([(8, 8)]), num_classes=C)
