"""A class for every pixel of images, whatever holds them and however large they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.models_on_disk import brightness_model, saved_camvid_model

import fleetseg
from fleetseg.data.sources import open_source
from fleetseg.errors import BadSample, ConfigError, DataError, ModelError
from fleetseg.evaluation.confusion import confusion


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Half dark, half bright, in blocks that survive a change of size."""
    generator = np.random.Generator(np.random.Philox(seed))
    image_HWC = generator.integers(0, 100, (height, width, 3), dtype=np.uint8)
    image_HWC[:, width // 2 :, 0] = 250
    return image_HWC


def test_maps_come_in_order_at_each_images_own_size() -> None:
    sizes = [(8, 8), (8, 8), (16, 24), (8, 8), (16, 24), (16, 24)]
    images = [picture(*size, seed=number) for number, size in enumerate(sizes)]
    maps = list(fleetseg.predict(brightness_model(), images, precision="fp32", batch_size=2))
    assert [map_HW.shape for map_HW in maps] == sizes
    assert {map_HW.dtype for map_HW in maps} == {np.dtype(np.uint8)}
    for map_HW, (_, width) in zip(maps, sizes, strict=True):
        away_from_edge = abs(np.arange(width) - width / 2) > 3  # where logits are interpolated
        truth_HW = np.broadcast_to(np.arange(width) >= width // 2, map_HW.shape)
        assert (map_HW == truth_HW)[:, away_from_edge].all()


def test_one_image_is_as_good_as_a_list_of_one(tmp_path: Path) -> None:
    image_HWC = picture(16, 24)
    path = tmp_path / "x.png"
    Image.fromarray(image_HWC).save(path)
    given = (image_HWC, [image_HWC], image_HWC[None], path, str(path), Image.open(path), [path])
    maps = [list(fleetseg.predict(brightness_model(), images)) for images in given]
    assert [len(found) for found in maps] == [1] * len(given)
    assert len({found[0].tobytes() for found in maps}) == 1


def test_a_batch_gives_what_single_images_give() -> None:
    model, images = brightness_model(), [picture(9, 13, seed=number) for number in range(5)]
    batched, single = (
        list(fleetseg.predict(model, images, batch_size=size, precision="fp32")) for size in (4, 1)
    )
    assert np.array_equal(batched, single)


def test_images_are_read_when_their_turn_comes() -> None:
    taken: list[int] = []

    def endless() -> Iterator[np.ndarray]:
        while True:
            taken.append(1)
            yield picture(8, 8)

    maps = fleetseg.predict(brightness_model(), endless(), batch_size=2)
    assert taken == []
    assert next(maps).shape == (8, 8)
    assert len(taken) == 2


def test_what_cannot_work_is_told_at_the_call(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no saved model here"):
        fleetseg.predict(tmp_path, [])
    with pytest.raises(ConfigError, match=r"batch_size; got 0"):
        fleetseg.predict(brightness_model(), [], batch_size=0)
    nameless = brightness_model()
    nameless.space = None
    with pytest.raises(ModelError, match=r"brightness: .*does not say its label space"):
        fleetseg.predict(nameless, [])


def test_a_bad_image_is_named_when_its_turn_comes(tmp_path: Path) -> None:
    maps = fleetseg.predict(
        brightness_model(), [picture(8, 8), tmp_path / "gone.png"], batch_size=1
    )
    assert next(maps).shape == (8, 8)
    with pytest.raises(BadSample, match=r"gone\.png: file not found"):
        next(maps)
    with pytest.raises(DataError, match="image 1: not an image; got NoneType"):
        list(fleetseg.predict(brightness_model(), [picture(8, 8), None]))  # type: ignore[list-item]
    for images, got in ((None, "NoneType"), ({"image": picture(8, 8)}, "dict"), (b"x", "bytes")):
        with pytest.raises(DataError, match=f"image 0: not an image; got {got}"):
            list(fleetseg.predict(brightness_model(), images))  # type: ignore[arg-type]
    grey = Image.fromarray(np.zeros((8, 8), np.float32))
    with pytest.raises(DataError, match="image 0: a floating-point image"):
        list(fleetseg.predict(brightness_model(), grey))


def test_the_model_stays_as_it_was() -> None:
    model = brightness_model().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    maps = fleetseg.predict(model, [picture(8, 8)] * 3, batch_size=1)
    next(maps)
    del maps  # not read to their end
    assert model.training
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.real_data
def test_camvid_frames_score_as_evaluate_says(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Predicting files and counting by hand is what `evaluate` does, pixel by pixel."""
    monkeypatch.setenv("FLEETSEG_CACHE", str(tmp_path / "cache"))
    model = saved_camvid_model(tmp_path / "model")
    config = fleetseg.SourceConfig(
        kind="camvid", root=str(real_data / "camvid"), split="val", limit=3
    )
    source = open_source(config)
    paths = [sample.image for sample in source.samples]
    total_CC = np.zeros((11, 11), np.int64)
    for sample, map_HW in zip(source.samples, fleetseg.predict(model, paths), strict=True):
        _, label_HW = source.read(sample)
        assert label_HW is not None
        total_CC += confusion(label_HW, map_HW, 11)
    scored = fleetseg.evaluate(model, config)
    assert scored.scores.conf_CC.tolist() == total_CC.tolist()
    assert total_CC.sum() > 2 * 360 * 480
    assert (total_CC.sum(axis=0) > 0).sum() > 1  # a model that says one thing only proves little
