"""How many images go at a time: what memory allows, and where it has no say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.models_on_disk import brightness_model

from fleetseg.evaluation.norms import Norms
from fleetseg.runs import batch_size
from fleetseg.runs.batch_size import BatchSize
from fleetseg.runs.inference import ReadyModel, ready_model

IMAGE_HWC = np.zeros((16, 24, 3), np.uint8)


@pytest.fixture
def ready() -> ReadyModel:
    return ready_model(brightness_model(), "cpu", "fp32")


def with_free(monkeypatch: pytest.MonkeyPatch, free: int | None) -> None:
    monkeypatch.setattr(batch_size, "free_bytes", lambda device: free)


def measured(ready: ReadyModel) -> BatchSize:
    size = BatchSize(ready, None)
    assert size.of(IMAGE_HWC) == 1  # nothing is known before the first image
    with size.measured():
        ready.look(np.zeros((1, 8, 8, 3), np.uint8), lambda logits_NCHW: None)
    return size


NETWORK = 2 * 8 * 8 * 4
"""Bytes that the one convolution puts out: two classes at 8 x 8."""


@pytest.mark.parametrize(
    ("free", "number"), [(10**9, 8), (0, 1), (None, 8), (2 * 3 * (NETWORK + 16 * 24 * 32), 3)]
)
def test_as_many_as_fit_in_half_of_what_is_free(
    ready: ReadyModel, monkeypatch: pytest.MonkeyPatch, free: int | None, number: int
) -> None:
    with_free(monkeypatch, free)
    assert measured(ready).of(IMAGE_HWC) == number


def test_memory_is_asked_for_once_for_each_size(
    ready: ReadyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(batch_size, "free_bytes", lambda device: asked.append(device) or 10**9)
    size = measured(ready)
    for image_HWC in (IMAGE_HWC, IMAGE_HWC, IMAGE_HWC[:8]):
        assert size.of(image_HWC) == 8
    assert asked == [torch.device("cpu")] * 2


def test_memory_has_no_say_in_what_is_asked_for_or_in_statistics_of_a_batch(
    ready: ReadyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_free(monkeypatch, 0)
    assert BatchSize(ready, 5).of(IMAGE_HWC) == 5
    assert BatchSize(ready.with_norms(Norms("batch")), None).of(IMAGE_HWC) == 8


def test_no_hook_stays_in_the_network(ready: ReadyModel) -> None:
    measured(ready)
    assert all(not module._forward_hooks for module in ready.segmenter.modules())
