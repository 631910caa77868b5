"""Predictions written to a folder: what becomes of each image, and what is never overwritten."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.models_on_disk import brightness_model, saved_camvid_model

from fleetseg.data.labels import label_space
from fleetseg.errors import ConfigError, DataError, ModelError
from fleetseg.runs.predict import predict
from fleetseg.runs.predicted_files import predict_files


@pytest.fixture
def drives(tmp_path: Path) -> Path:
    """Two drives of two frames, of two sizes and formats."""
    generator = np.random.Generator(np.random.Philox(1))
    folder = tmp_path / "drives"
    for name, size in (("a/1.png", (8, 12)), ("a/2.jpg", (8, 12)), ("b/1.png", (10, 6))):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    (folder / "notes.txt").write_text("not a picture")
    return folder


def written(out: Path) -> list[str]:
    return sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())


def test_a_folder_keeps_its_shape_and_pixels_are_class_ids(drives: Path, tmp_path: Path) -> None:
    out, seen = tmp_path / "out", []
    done = predict_files(
        brightness_model(), [drives], out, progress=lambda *step: seen.append(step[1:])
    )
    assert (done.images, done.bad) == (3, ())
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert written(out) == ["a/1.png", "a/2.png", "b/1.png"]
    images = [drives / name for name in ("a/1.png", "a/2.jpg", "b/1.png")]
    for name, ids_HW in zip(written(out), predict(brightness_model(), images), strict=True):
        with Image.open(out / name) as picture:
            assert picture.mode == "P"
            assert picture.getpalette()[:6] == [0, 0, 0, 255, 255, 255]  # type: ignore[index]
            assert np.array_equal(np.asarray(picture), ids_HW)


def test_overlays_have_the_size_of_their_image(drives: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_files(brightness_model(), [drives / "b"], out, overlays=True)
    assert written(out) == ["1.png", "1_overlay.png"]
    with Image.open(out / "1_overlay.png") as blended, Image.open(drives / "b/1.png") as image:
        assert blended.size == image.size
        assert blended.mode == "RGB"


def test_files_and_patterns(drives: Path, tmp_path: Path) -> None:
    for number, given in enumerate(
        ([drives / "a/1.png", drives / "a/2.jpg"], [drives / "a" / "*"], [drives / "**" / "?.jpg"])
    ):
        predict_files(brightness_model(), given, tmp_path / str(number))
    assert written(tmp_path / "0") == written(tmp_path / "1") == ["1.png", "2.png"]
    assert written(tmp_path / "2") == ["2.png"]


def test_an_image_named_twice_is_predicted_once(drives: Path, tmp_path: Path) -> None:
    done = predict_files(brightness_model(), [drives / "a", drives / "a/1.png"], tmp_path / "out")
    assert done.images == 2


def test_bad_images_are_left_out_and_named(drives: Path, tmp_path: Path) -> None:
    (drives / "a/1.png").write_bytes(b"no picture")
    done = predict_files(brightness_model(), [drives], tmp_path / "out")
    assert done.images == 2
    (text,) = done.bad
    assert "a/1.png: not a picture" in text
    assert written(tmp_path / "out") == ["a/2.png", "b/1.png"]


def test_nothing_is_overwritten_unless_that_is_wanted(drives: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "1.png").write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"files are there already; got 1\.png.*--force"):
        predict_files(brightness_model(), [drives / "a"], out)
    assert written(out) == ["1.png"]
    assert (out / "1.png").read_bytes() == b"mine"
    predict_files(brightness_model(), [drives / "a"], out, force=True)
    assert (out / "1.png").read_bytes() != b"mine"


def test_an_image_is_never_overwritten_by_its_prediction(drives: Path) -> None:
    before = (drives / "a/1.png").read_bytes()
    for given in (drives / "a", drives / "a/1.png"):
        with pytest.raises(ConfigError, match="an image would be overwritten"):
            predict_files(brightness_model(), [given], drives / "a", force=True)
    assert (drives / "a/1.png").read_bytes() == before


def test_predictions_below_the_images_are_no_images_the_next_time(drives: Path) -> None:
    out = drives / "predictions"
    for _ in range(2):
        done = predict_files(brightness_model(), [drives], out, overlays=True, force=True)
        assert done.images == 3
    assert len(written(out)) == 6


def test_two_images_of_one_name_are_refused_before_any_work(drives: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for given in ([drives / "a/1.png", drives / "b/1.png"], [drives / "a", drives / "b"]):
        with pytest.raises(ConfigError, match=r"one file; got .*a/1\.png and .*b/1\.png"):
            predict_files(brightness_model(), given, out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere", "there is no such file or folder"),
        ("drives/*.gif", "no file matches this pattern"),
        ("empty", "no picture in this folder"),
    ],
)
def test_what_is_not_there_is_named(drives: Path, tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=words) as raised:
        predict_files(brightness_model(), [tmp_path / name], tmp_path / "out")
    assert name in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_the_place_must_be_a_folder_and_the_model_there(drives: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a folder"):
        predict_files(brightness_model(), [drives], drives / "notes.txt")
    with pytest.raises(ModelError, match="no saved model here"):
        predict_files(tmp_path, [drives], tmp_path / "out")


@pytest.mark.real_data
def test_camvid_frames(real_data: Path, tmp_path: Path) -> None:
    model = saved_camvid_model(tmp_path / "model")
    images = sorted((real_data / "camvid" / "val").iterdir())[:2]
    done = predict_files(model, images, tmp_path / "out", overlays=True)
    assert done.images == 2
    with Image.open(tmp_path / "out" / f"{images[0].stem}.png") as ids:
        assert ids.size == (480, 360)
        assert set(np.unique(np.asarray(ids)).tolist()) <= set(range(11))
        palette = np.array(ids.getpalette()).reshape(-1, 3)[:11]
    assert palette.tolist() == [list(c) for c in label_space("camvid11").colours]
