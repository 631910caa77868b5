"""What is seen in images: as a whole or in tiles, and how surely."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.models_on_disk import brightness_model

from fleetseg.errors import ConfigError, OutOfMemory
from fleetseg.evaluation.norms import Norms
from fleetseg.runs.inference import ReadyModel, ready_model
from fleetseg.runs.looks import Manner, looks


def stripes(height: int, width: int) -> np.ndarray:
    """Dark and bright columns in turn, too thin to survive a change of size."""
    image_HWC = np.zeros((height, width, 3), np.uint8)
    image_HWC[:, ::2, 0] = 255
    return image_HWC


@pytest.fixture
def ready() -> ReadyModel:
    return ready_model(brightness_model((8, 8)), "cpu", "fp32")


def test_tiles_see_what_is_lost_in_a_resized_image(ready: ReadyModel) -> None:
    image_HWC = stripes(20, 30)
    truth_HW = (image_HWC[..., 0] > 127).astype(np.uint8)
    (whole,) = looks(ready, [image_HWC], Manner())
    (tiled,) = looks(ready, [image_HWC], Manner(tiled=True))
    assert np.array_equal(tiled.map_HW, truth_HW)
    assert not np.array_equal(whole.map_HW, truth_HW)
    assert whole.map_HW.shape == truth_HW.shape


@pytest.mark.parametrize("tiled", [False, True])
def test_asking_how_sure_it_is_changes_no_class(ready: ReadyModel, tiled: bool) -> None:
    images = [stripes(8, 8), stripes(8, 8)[::-1], stripes(9, 14)]
    sure = list(looks(ready, images, Manner(tiled=tiled, certain=True)))
    plain = list(looks(ready, images, Manner(tiled=tiled)))
    for one, other, image_HWC in zip(sure, plain, images, strict=True):
        assert one.image_HWC is image_HWC
        assert np.array_equal(one.map_HW, other.map_HW)
        assert other.certain == {}
        assert {kind: share.shape for kind, share in one.certain.items()} == {
            "confidence": image_HWC.shape[:2],
            "entropy": image_HWC.shape[:2],
        }
    # Logits are 0 and red - 1/2: in 8 x 8 each is half a unit away.
    assert sure[0].certain["confidence"].flatten()[0] == pytest.approx(1 / (1 + np.exp(-0.5)))


def test_tiles_have_no_statistics_of_a_batch(ready: ReadyModel) -> None:
    batch = ready.with_norms(Norms("batch"))
    with pytest.raises(ConfigError, match=r"'batch' are statistics of whole images"):
        next(looks(batch, [stripes(8, 8)], Manner(tiled=True)))


def test_logits_of_an_image_that_do_not_fit_are_told(
    ready: ReadyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB")

    monkeypatch.setattr("fleetseg.runs.looks.tiled_logits", full)
    with pytest.raises(OutOfMemory, match=r"got 2 classes of 20 x 30 pixels. Use no tiles"):
        next(looks(ready, [stripes(20, 30)], Manner(tiled=True)))
