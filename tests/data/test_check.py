"""`data check`: counts by hand, duplicates, and every bad file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from fleetseg.config import SourceConfig
from fleetseg.data.check import CheckReport, check, detect, report_lines, shared_sequences
from fleetseg.data.labels import CAMVID_11
from fleetseg.data.sample import Source
from fleetseg.data.sources import open_source
from fleetseg.errors import DataError


def save(path: Path, pixels: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path)


def grey(value: int) -> npt.NDArray[np.uint8]:
    return np.full((2, 4, 3), value, dtype=np.uint8)


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """Five good samples (one pair of twins, one unlike pair) in two drives, and three bad ones."""
    root = tmp_path / "messy"
    (root / "images").mkdir(parents=True)
    (root / "classes.toml").write_text('classes = ["road", "person"]\n')
    labels = {
        "day/1": (10, [[0, 0, 1, 255]] * 2),
        "day/2": (20, [[0, 0, 0, 0]] * 2),
        "day/3": (20, [[0, 0, 0, 0]] * 2),  # all of day/2
        "night/1": (30, [[1, 1, 1, 1]] * 2),
        "night/2": (30, [[0, 1, 1, 1]] * 2),  # the image of night/1, another label
        "night/3": (40, [[0, 0, 0, 7]] * 2),  # an unknown id
        "night/4": (50, [[255] * 4] * 2),  # void
    }
    for stem, (value, label) in labels.items():
        save(root / "images" / f"{stem}.png", grey(value))
        save(root / "masks" / f"{stem}.png", label)
    save(root / "images/night/5.png", grey(60))  # no label
    return root


def checked(root: Path, **fields: object) -> CheckReport:
    config = SourceConfig(kind="folder", root=str(root), **fields)  # type: ignore[arg-type]
    return check(open_source(config))


def test_counts_by_hand(messy: Path) -> None:
    report = checked(messy)
    assert (report.num_samples, report.num_labelled, report.num_unlabelled) == (8, 5, 0)
    assert report.domains == report.sequences == {"day": 3, "night": 5}
    assert report.splits == {"train": 8}
    assert report.sizes == {"4x2": 5}
    assert report.pixels_C.dtype == np.int64
    # day/1 gives 4 + 2, day/2 and day/3 8 each, night/1 0 + 8, night/2 2 + 6.
    assert report.pixels_C.tolist() == [22, 16]
    assert report.void_pixels == 2


def test_each_bad_file_is_listed_with_its_reason(messy: Path) -> None:
    bad = {each.sample: each for each in checked(messy).bad}
    assert set(bad) == {f"messy/train/night/{i}" for i in (3, 4, 5)}
    wrong_id = bad["messy/train/night/3"]
    assert wrong_id.file == str(messy / "masks/night/3.png")
    assert wrong_id.text.startswith("label ids outside messy; got 7 (2 px)")
    assert "every pixel of the label is void" in bad["messy/train/night/4"].text
    assert bad["messy/train/night/5"].file == str(messy / "masks/night/5.png")


def test_duplicates_tell_whether_labels_agree(messy: Path) -> None:
    same, unlike = checked(messy).duplicates
    assert same.samples == ("messy/train/day/2", "messy/train/day/3")
    assert same.same_label
    assert unlike.samples == ("messy/train/night/1", "messy/train/night/2")
    assert not unlike.same_label


def test_unlabelled_samples_are_good(messy: Path, tmp_path: Path) -> None:
    (messy / "masks").rename(tmp_path / "aside")
    report = checked(messy)
    assert (report.num_labelled, report.num_unlabelled, len(report.bad)) == (0, 8, 0)
    assert report.pixels_C.tolist() == [0, 0]
    assert not any("class pixels" in line for line in report_lines(report))


def test_progress_counts_every_sample(messy: Path) -> None:
    calls: list[tuple[int, int]] = []
    source = open_source(SourceConfig(kind="folder", root=str(messy)))
    check(source, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 8) for i in range(1, 9)]


def test_lines_say_all_of_it(messy: Path) -> None:
    text = "\n".join(report_lines(checked(messy)))
    assert "messy (train 8): 8 samples, 5 labelled, 0 unlabelled, 3 bad; label space messy" in text
    assert "4x2 5" in text
    assert "2 domains: day 3, night 5" in text
    assert "57.89%" in text  # road: 22 of 38
    assert " 5.00%" in text  # void: 2 of 40
    assert "same image, DIFFERENT labels: messy/train/night/1, messy/train/night/2" in text
    assert f"bad: messy/train/night/5: {messy / 'masks/night/5.png'}: file not found" in text


def test_the_room_that_a_run_would_take_is_told(messy: Path, tmp_path: Path) -> None:
    """Five good images of 4 x 2 pixels, all labelled: 4 bytes a pixel."""
    report, room = checked(messy), "decoded for a run: about"
    (line,) = [line for line in report_lines(report, tmp_path) if line.startswith("decoded")]
    default = f"{5 * 192 * 256 * 4 / 1000:.0f} kB at the default data.size [192, 256]"
    assert line == f"{room} {default}, 160 bytes at the images' own size, in {tmp_path}"
    assert not any(room in line for line in report_lines(dataclasses.replace(report, sizes={})))


def test_many_drives_are_shortened(messy: Path) -> None:
    report = checked(messy)
    report = dataclasses.replace(report, sequences={f"drive{i:02}": 1 for i in range(15)})
    assert any(line.endswith("drive11 1 and 3 more") for line in report_lines(report))


def test_dict_is_plain_json(messy: Path) -> None:
    fields = json.loads(json.dumps(checked(messy).to_dict()))
    assert fields["pixels"] == {"road": 22, "person": 16}
    assert fields["bad"][0]["sample"] == "messy/train/night/3"
    assert fields["duplicates"][0]["same_label"] is True
    assert fields["domains"] == {"day": 3, "night": 5}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["train/a_1.png", "trainannot/a_1.png", "val/a_2.png"], ("camvid", ["train", "val"])),
        (["test/a_1.png", "test_labels/a_1_L.png"], ("camvid", ["test"])),
        (
            ["701_StillsRaw_full/0006R0_f1.png", "701_StillsRaw_full/Seq05VD_f1.png"],
            ("camvid", ["train", "test"]),
        ),
        (
            ["701_StillsRaw_full/0006R0_f1.png", "701_StillsRaw_full/mine_1.png"],
            ("camvid", ["train", "all"]),
        ),
        (["leftImg8bit/val/9/1_image.jpg"], ("idd_lite", ["val"])),
        (["leftImg8bit/val/ulm/ulm_0_0_leftImg8bit.png"], ("cityscapes", ["val"])),
        (["images/a.png"], ("folder", ["train"])),
        (["images/rain/a.png"], ("folder", ["train"])),
        (["images/val/a.png", "images/train/a.png"], ("folder", ["train", "val"])),
        (["val/images/a.png", "train/images/a.png"], ("folder", ["train", "val"])),
        (["night/images/a.png", "classes.toml"], ("folder", ["night"])),
    ],
)
def test_detect(tmp_path: Path, files: list[str], expected: tuple[str, list[str]]) -> None:
    root = tmp_path / "data"
    for name in files:
        if name.endswith(".toml"):
            (root / name).touch()
        else:
            save(root / name, grey(1))
    configs = detect(root)
    assert (configs[0].kind, [config.split for config in configs]) == expected
    assert {config.root for config in configs} == {str(root)}
    assert len({config.kind for config in configs}) == 1
    assert detect(tmp_path) == configs  # one level up


def test_detect_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="folder not found"):
        detect(tmp_path / "gone")
    (tmp_path / "drives.zip").touch()
    with pytest.raises(DataError, match=r"not a folder; got an archive. Unpack it"):
        detect(tmp_path / "drives.zip")
    (tmp_path / "link").symlink_to(tmp_path / "unmounted")
    with pytest.raises(DataError, match=r"folder not found; got a link to .*unmounted"):
        detect(tmp_path / "link")
    (tmp_path / "drives.zip").unlink()
    (tmp_path / "link").unlink()
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError) as error:
        detect(tmp_path)
    for part in ("photos/", "trainannot/ (SegNet)", "[cityscapes]", "[idd_lite]", "classes.toml"):
        assert part in str(error.value)


@pytest.mark.real_data
def test_real_folders_are_detected(real_data: Path) -> None:
    found = [(config.kind, config.split) for config in detect(real_data)]
    assert [each for each in found if each != ("idd_lite", "test")] == [
        ("camvid", "train"),
        ("camvid", "val"),
        ("cityscapes", "val"),
        ("idd_lite", "train"),
    ]


# From the data notes: shares of all pixels, sky ... bicyclist, then void.
CAMVID_SHARES = {
    "train": (
        0.1685, 0.2326, 0.0098, 0.3166, 0.0449, 0.0972, 0.0117, 0.0113, 0.0587, 0.0064, 0.0029,
        0.0395,
    ),
    "val": (
        0.0918, 0.2596, 0.0056, 0.2895, 0.0872, 0.1634, 0.0089, 0.0308, 0.0175, 0.0065, 0.0222,
        0.0170,
    ),
}  # fmt: skip


@pytest.mark.real_data
@pytest.mark.parametrize("split", CAMVID_SHARES)
def test_real_camvid_shares(real_data: Path, split: str) -> None:
    root = str(real_data / "camvid")
    report = check(open_source(SourceConfig(kind="camvid", root=root, split=split)))
    assert report.bad == report.duplicates == ()
    assert report.sizes == {"480x360": 367 if split == "train" else 101}
    assert report.classes == CAMVID_11.classes
    pixels = np.array([*report.pixels_C, report.void_pixels])
    assert np.allclose(pixels / pixels.sum(), CAMVID_SHARES[split], atol=6e-5)


def test_drives_in_two_splits_are_told(tmp_path: Path) -> None:
    def report(split: str, *drives: str) -> CheckReport:
        source = Source("camvid", CAMVID_11, (), read=None, digest=None)  # type: ignore[arg-type]
        whole = check(source)
        return dataclasses.replace(whole, splits={split: 1}, sequences=dict.fromkeys(drives, 1))

    train = report("train", "a", "b", "c", "d", "e", "")
    assert shared_sequences([train, report("val", "x", "")]) == []
    (line,) = shared_sequences([train, report("val", "b", "x")])
    assert line.startswith("note: drive b is in camvid/train and camvid/val: ")
    (line,) = shared_sequences([train, report("test", *"abcde")])
    assert line.startswith("note: drives a, b, c and 2 more are in camvid/train and camvid/test")
