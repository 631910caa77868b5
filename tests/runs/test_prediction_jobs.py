"""What is found from what a person names, what it will be called, and what is never overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleetseg.errors import ConfigError, DataError
from fleetseg.runs.prediction_jobs import Request, Wanted, find_jobs


@pytest.fixture
def drives(tmp_path: Path) -> Path:
    """Two drives; what is in the files does not matter here."""
    folder = tmp_path / "drives"
    for name in ("a/1.png", "a/2.jpg", "a/clip.MP4", "b/1.png", "notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"content")
    return folder


PLAIN = Wanted()


def outputs(inputs: list[Path], out: Path, wanted: Wanted = PLAIN) -> list[str]:
    jobs = find_jobs(Request(inputs, out, wanted))
    return [str(path.relative_to(out)) for job in jobs for path in job.outputs(wanted)]


def test_pictures_and_videos_of_a_folder_keep_their_places(drives: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert outputs([drives], out) == ["a/1.png", "a/2.png", "a/clip", "b/1.png"]
    everything = Wanted(overlays=True, certain=("entropy",))
    assert outputs([drives / "a"], out, everything) == [
        "1.png", "1_overlay.png", "1_entropy.png", "2.png", "2_overlay.png", "2_entropy.png",
        "clip", "clip_overlay.mp4",
    ]  # fmt: skip


def test_files_and_patterns(drives: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert outputs([drives / "a/1.png", drives / "a/2.jpg"], out) == ["1.png", "2.png"]
    assert outputs([drives / "a" / "*g"], out) == ["1.png", "2.png"]
    assert outputs([drives / "**" / "?.jpg"], out) == ["2.png"]


def test_frames_are_numbered_and_a_camera_comes_last(drives: Path, tmp_path: Path) -> None:
    request = Request([drives / "a/clip.MP4"], tmp_path, Wanted(overlays=True), camera=1)
    clip, camera = find_jobs(request)
    assert (clip.moves, camera.moves) == (True, True)
    assert (clip.name, camera.name) == ("clip.MP4", "camera 1")
    assert clip.png("", 7) == tmp_path / "clip" / "000007.png"
    assert camera.png("entropy", 12) == tmp_path / "camera1" / "000012_entropy.png"
    assert camera.video == tmp_path / "camera1_overlay.mp4"


def test_an_image_named_twice_is_one(drives: Path, tmp_path: Path) -> None:
    assert outputs([drives / "a/1.png", drives / "a/1.png"], tmp_path / "out") == ["1.png"]


def test_nothing_is_overwritten_unless_that_is_wanted(drives: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "clip").mkdir(parents=True)
    assert len(find_jobs(Request([drives / "a"], out))) == 3  # an empty folder is in nobody's way
    (out / "1.png").write_bytes(b"mine")
    (out / "clip" / "000001.png").write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"files exist already; got 1\.png, clip\..*--force"):
        find_jobs(Request([drives / "a"], out))
    assert len(find_jobs(Request([drives / "a"], out, force=True))) == 3


def test_an_image_is_never_overwritten_by_its_prediction(drives: Path) -> None:
    for given in (drives / "a", drives / "a/1.png"):
        with pytest.raises(ConfigError, match="an image would be overwritten"):
            find_jobs(Request([given], drives / "a", force=True))


def test_predictions_below_the_images_are_no_images_the_next_time(drives: Path) -> None:
    out = drives / "predictions"
    for name in ("a/1.png", "a/clip/000001.png", "a/clip_overlay.mp4"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(b"of the last time")
    assert len(find_jobs(Request([drives], out, Wanted(overlays=True), force=True))) == 4


def test_two_images_of_one_name_are_refused_before_any_work(drives: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for given in ([drives / "a/1.png", drives / "b/1.png"], [drives / "a", drives / "b"]):
        with pytest.raises(ConfigError, match=r"the same file; got .*a/1\.png and .*b/1\.png"):
            find_jobs(Request(given, out))
    (drives / "b/clip.avi").write_bytes(b"another")
    with pytest.raises(ConfigError, match=r"the same file; got .*clip\.MP4 and .*clip\.avi"):
        find_jobs(Request([drives / "a/clip.MP4", drives / "b/clip.avi"], out))
    (drives / "a/clip").mkdir()
    (drives / "a/clip/000001.png").write_bytes(b"where a frame's map would be")
    with pytest.raises(ConfigError, match=r"the same file; got .*clip\.MP4 and .*000001\.png"):
        find_jobs(Request([drives / "a"], out))
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere", "there is no such file or folder"),
        ("drives/*.gif", "no file matches this pattern"),
        ("empty", r"no picture in this folder; expected files that end in .*\.png .*\.mp4"),
    ],
)
def test_what_is_not_there_is_named(drives: Path, tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=words) as raised:
        find_jobs(Request([tmp_path / name], tmp_path / "out"))
    assert name in str(raised.value)


def test_the_place_must_be_a_folder(drives: Path) -> None:
    with pytest.raises(ConfigError, match="not a folder"):
        find_jobs(Request([drives], drives / "notes.txt"))
