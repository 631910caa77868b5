"""A loaded model takes pictures as people have them, and is still the network that it was."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.models_on_disk import TWO, brightness_model, saved_camvid_model

import fleetseg
from fleetseg.errors import ConfigError, DataError, ModelError
from fleetseg.evaluation.pictures import overlay
from fleetseg.models import folder
from fleetseg.models.segmenter import Segmenter
from fleetseg.runs.loaded import LoadedModel, load_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_camvid_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(saved: Path) -> LoadedModel:
    return fleetseg.load_model(saved)


def picture(height: int = 40, width: int = 60, seed: int = 0) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(seed))
    blocks = generator.integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
    return np.kron(blocks, np.ones((10, 10, 1), np.uint8))


def test_it_is_the_network_that_was_saved(model: LoadedModel, saved: Path) -> None:
    plain = folder.load_model(saved)
    assert isinstance(model, Segmenter)
    assert not model.training
    assert [model.name, model.space, model.size_hw, model.untrained, model.normalisation] == [
        plain.name, plain.space, plain.size_hw, plain.untrained, plain.normalisation,
    ]  # fmt: skip
    assert list(model.state_dict()) == list(plain.state_dict())
    images_NCHW = torch.full((1, 3, 64, 96), 0.3)
    with torch.inference_mode():
        assert torch.equal(model(images_NCHW), plain(images_NCHW))


def test_one_image_of_any_kind_gives_one_map(model: LoadedModel, tmp_path: Path) -> None:
    image_HWC, path = picture(), tmp_path / "x.png"
    Image.fromarray(image_HWC).save(path)
    tensor_HWC = torch.from_numpy(image_HWC)
    kinds = [image_HWC, path, str(path), Image.open(path), tensor_HWC, tensor_HWC.permute(2, 0, 1)]
    maps = [model.predict(image) for image in kinds]
    assert {map_HW.shape for map_HW in maps} == {(40, 60)}  # type: ignore[union-attr]
    assert len({map_HW.tobytes() for map_HW in maps}) == 1  # type: ignore[union-attr]
    (theirs,) = fleetseg.predict(model, path)
    assert np.array_equal(maps[0], theirs)
    assert len(np.unique(theirs)) > 1  # a model that says one thing only proves little


def test_a_batch_is_as_it_was_given(model: LoadedModel) -> None:
    images = [picture(seed=k) for k in range(3)]
    single = [model.predict(image) for image in images]
    batch_NHWC = np.stack(images)
    for batch in (batch_NHWC, torch.from_numpy(batch_NHWC).permute(0, 3, 1, 2)):
        maps_NHW = model.predict(batch, batch_size=2)
        assert isinstance(maps_NHW, np.ndarray)
        assert np.array_equal(maps_NHW, single)
    several = model.predict([*images, picture(20, 30)])
    assert isinstance(several, list)
    assert [map_HW.shape for map_HW in several] == [(40, 60)] * 3 + [(20, 30)]
    assert model.predict([]) == []


def test_an_overlay_has_a_legend_or_the_size_of_its_image(model: LoadedModel) -> None:
    image_HWC = picture()
    assert model.space is not None
    plain = model.overlay(image_HWC, legend=False)
    map_HW = model.predict(image_HWC)
    assert isinstance(map_HW, np.ndarray)
    assert np.array_equal(np.asarray(plain), np.asarray(overlay(image_HWC, map_HW, model.space)))
    with_legend = model.overlay(image_HWC)
    assert isinstance(with_legend, Image.Image)
    assert with_legend.width == 420  # seven times as wide: names can be read
    assert with_legend.height > 280
    pictures = model.overlay([image_HWC, image_HWC])
    assert isinstance(pictures, list)
    assert len(pictures) == 2


def test_it_computes_where_it_is_and_can_be_copied(model: LoadedModel) -> None:
    twin = copy.deepcopy(model).train()
    image_HWC = picture()
    assert np.array_equal(twin.predict(image_HWC), model.predict(image_HWC))
    assert twin.training


def test_what_cannot_work_is_told(model: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="image 0: a floating-point image"):
        model.predict(picture() / 255)
    with pytest.raises(DataError, match=r"gone\.png: file not found"):
        model.overlay(tmp_path / "gone.png")
    with pytest.raises(ConfigError, match="batch_size; got 0"):
        model.predict(picture(), batch_size=0)
    with pytest.raises(ConfigError, match="reads all images twice"):
        model.predict(picture(), norms="domain")
    with pytest.raises(ModelError, match="no saved model here"):
        load_model(tmp_path)


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    mine = brightness_model()
    folder.save_model(mine, tmp_path, space=TWO, size_hw=(8, 8), details={})
    loaded = load_model(tmp_path, torch.nn.Conv2d(3, 2, 1))
    bright_HWC = np.full((8, 8, 3), 250, np.uint8)
    assert np.unique(loaded.predict(bright_HWC)).tolist() == [1]
    assert np.unique(loaded.predict(bright_HWC // 5)).tolist() == [0]
