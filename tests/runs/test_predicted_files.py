"""Predictions written to a folder: what becomes of each image, video and camera."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.clips import SIZE_HW, clip_facts, written_clip
from tests.models_on_disk import brightness_model, saved_camvid_model

from fleetseg.data import video
from fleetseg.data.labels import label_space
from fleetseg.errors import ConfigError, DataError, MissingExtra, ModelError
from fleetseg.runs.predict import predict
from fleetseg.runs.predicted_files import PredictedFiles, predict_files
from fleetseg.runs.prediction_jobs import Request, Wanted


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


PLAIN = Wanted()


def files_of(
    inputs: list[Path], out: Path, wanted: Wanted = PLAIN, **options: Any
) -> PredictedFiles:
    """Predict with the model that tells dark from bright; options of the request or of the call."""
    of_request = {"camera", "most_frames", "force"} & options.keys()
    request = Request(inputs, out, wanted, **{name: options.pop(name) for name in of_request})
    return predict_files(brightness_model(), request, **options)


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_a_folder_keeps_its_shape_and_pixels_are_class_ids(drives: Path, tmp_path: Path) -> None:
    out, seen = tmp_path / "out", []
    done = files_of([drives], out, progress=lambda *step: seen.append(step[1:]))
    assert (done.images, done.videos, done.bad, done.interrupted) == (3, 0, (), False)
    assert done.images_per_s == done.images / done.seconds > 0
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert written(out) == ["a/1.png", "a/2.png", "b/1.png"]
    images = [drives / name for name in ("a/1.png", "a/2.jpg", "b/1.png")]
    for name, ids_HW in zip(written(out), predict(brightness_model(), images), strict=True):
        with Image.open(out / name) as picture:
            assert picture.mode == "P"
            assert picture.getpalette()[:6] == [0, 0, 0, 255, 255, 255]  # type: ignore[index]
            assert np.array_equal(np.asarray(picture), ids_HW)


def test_what_is_wanted_lies_beside_each_map(drives: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    files_of([drives / "b"], out, Wanted(overlays=True, certain=("confidence", "entropy")))
    assert written(out) == ["1.png", "1_confidence.png", "1_entropy.png", "1_overlay.png"]
    assert pixels_of(out / "1_overlay.png").shape[1] == 402  # 67 x 6: its legend can be read
    assert pixels_of(out / "1_confidence.png").shape == (10, 6)
    assert pixels_of(out / "1_confidence.png").min() >= 127  # of two classes, the likelier


def test_bad_images_are_left_out_and_named(drives: Path, tmp_path: Path) -> None:
    (drives / "a/1.png").write_bytes(b"no picture")
    done = files_of([drives], tmp_path / "out")
    assert done.images == 2
    (text,) = done.bad
    assert "a/1.png: not a picture" in text
    assert written(tmp_path / "out") == ["a/2.png", "b/1.png"]


def test_raw_ids_are_those_of_the_data_sets_files(drives: Path, tmp_path: Path) -> None:
    model = brightness_model()
    space = label_space("cityscapes19")
    model.space = type(space)("mine", space.classes, space.colours, space.critical)
    model.num_classes, model.net = 19, Dark()
    request = Request([drives / "b"], tmp_path / "out", Wanted(ids="raw"))
    predict_files(model, request)
    with Image.open(tmp_path / "out" / "1.png") as picture:
        assert np.unique(np.asarray(picture)).tolist() == [7]  # road
        assert picture.getpalette()[21:24] == list(space.colours[0])  # type: ignore[index]
    with pytest.raises(ConfigError, match="raw ids of label space 'two' are unknown"):
        files_of([drives / "b"], tmp_path / "other", Wanted(ids="raw"))


class Dark(torch.nn.Module):
    """Sees the first of 19 classes everywhere."""

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        logits_NCHW = torch.zeros(len(images_NCHW), 19, *images_NCHW.shape[-2:])
        logits_NCHW[:, 0] = 1
        return logits_NCHW


# Videos and cameras


def test_a_video_gives_a_map_for_each_frame_and_one_video_of_overlays(
    drives: Path, tmp_path: Path
) -> None:
    fps, out, seen = Fraction(30000, 1001), tmp_path / "out", []
    written_clip(drives / "b" / "clip.mp4", frames=5, fps=fps)
    wanted = Wanted(overlays=True, certain=("confidence",))
    done = files_of([drives / "b"], out, wanted, progress=lambda *step: seen.append(step))
    assert (done.images, done.videos, done.bad) == (6, 1, ())
    maps = [f"clip/{k:06d}{end}.png" for k in range(1, 6) for end in ("", "_confidence")]
    stills = ["1.png", "1_confidence.png", "1_overlay.png"]
    assert written(out) == sorted([*stills, *maps, "clip_overlay.mp4"])
    for number in range(1, 6):
        ids_HW = pixels_of(out / f"clip/{number:06d}.png")
        assert ids_HW.shape == SIZE_HW
        assert (ids_HW[:, 50:] == 1).all()  # each is dark on the left and bright on the right
        assert (ids_HW[:, :14] == 0).all()
    assert clip_facts(out / "clip_overlay.mp4")[1:3] == (fps, 5)
    of_clip = [step[1:] for step in seen if step[0] == "frames of clip.mp4"]
    assert of_clip == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_so_many_frames_at_most_and_two_videos_in_turn(tmp_path: Path) -> None:
    for name in ("a", "b"):
        written_clip(tmp_path / f"{name}.mp4")
    done = files_of([tmp_path / "*.mp4"], tmp_path / "out", Wanted(overlays=True), most_frames=2)
    assert (done.images, done.videos) == (4, 2)
    assert [clip_facts(tmp_path / f"out/{name}_overlay.mp4")[2] for name in "ab"] == [2, 2]
    with pytest.raises(ConfigError, match="unusable number of frames; got 0"):
        files_of([tmp_path / "a.mp4"], tmp_path / "other", most_frames=0)


def test_a_video_that_breaks_off_is_named_and_what_came_before_is_kept(tmp_path: Path) -> None:
    whole, broken = (written_clip(tmp_path / name, frames=40) for name in ("b.mp4", "a.mkv"))
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    (tmp_path / "c.mp4").write_text("no video")
    done = files_of([broken, whole, tmp_path / "c.mp4"], tmp_path / "out", Wanted(overlays=True))
    breaks, none = done.bad
    assert "a.mkv: the video is truncated" in breaks
    assert "c.mp4: not a readable video" in none
    frames = clip_facts(tmp_path / "out/a_overlay.mp4")[2]
    assert done.images == frames + 40
    assert 5 < frames < 35


def test_a_camera_is_read_until_it_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "CAMERAS", {sys.platform: ("lavfi", "testsrc=size=64x48:rate=10")})
    done = files_of([], tmp_path, Wanted(overlays=True), camera=2, most_frames=3)
    assert (done.images, done.videos) == (3, 1)
    assert written(tmp_path) == [
        "camera2/000001.png", "camera2/000002.png", "camera2/000003.png", "camera2_overlay.mp4",
    ]  # fmt: skip
    assert clip_facts(tmp_path / "camera2_overlay.mp4")[1:3] == (10, 3)


def test_ctrl_c_leaves_whole_files_and_a_video_that_plays(tmp_path: Path) -> None:
    def press(what: str, done: int, total: int) -> None:
        if done == 12:
            raise KeyboardInterrupt

    written_clip(tmp_path / "a.mp4", frames=20)
    done = files_of([tmp_path / "a.mp4"], tmp_path / "out", Wanted(overlays=True), progress=press)
    assert done.interrupted
    assert 0 < done.images < 20
    maps = [name for name in written(tmp_path / "out") if name.startswith("a/")]
    assert len(maps) == done.images
    assert all(pixels_of(tmp_path / "out" / name).shape == SIZE_HW for name in maps)
    assert clip_facts(tmp_path / "out" / "a_overlay.mp4")[2] == done.images
    assert [p for p in (tmp_path / "out").rglob(".*")] == []


def test_without_pyav_videos_are_refused_before_any_work(
    drives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written_clip(drives / "a/clip.mp4", frames=1)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtra, match=r"fleetseg\[video\]"):
        files_of([drives], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_model_must_be_there(drives: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no saved model here"):
        predict_files(tmp_path, Request([drives], tmp_path / "out"))
    with pytest.raises(DataError, match="there is no such file or folder"):
        files_of([tmp_path / "nowhere"], tmp_path / "out")


@pytest.mark.real_data
def test_camvid_frames(real_data: Path, tmp_path: Path) -> None:
    model = saved_camvid_model(tmp_path / "model")
    images = sorted((real_data / "camvid" / "val").iterdir())[:2]
    done = predict_files(model, Request(images, tmp_path / "out", Wanted(overlays=True)))
    assert done.images == 2
    with Image.open(tmp_path / "out" / f"{images[0].stem}.png") as ids:
        assert ids.size == (480, 360)
        assert set(np.unique(np.asarray(ids)).tolist()) <= set(range(11))
        palette = np.array(ids.getpalette()).reshape(-1, 3)[:11]
    assert palette.tolist() == [list(c) for c in label_space("camvid11").colours]
    with Image.open(tmp_path / "out" / f"{images[0].stem}_overlay.png") as blended:
        assert blended.width == 480
        assert blended.height > 360
