"""Each published set, read from a tiny one in its layout: index, facts, and ids pixel by pixel."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from cityscapesscripts.helpers.labels import labels as cityscapes_labels
from tests.published_layouts import (
    A2D2_CLASS_LIST,
    GTA5_PALETTE,
    MAKERS,
    RAW_IDS,
    acdc,
    bdd100k,
    gta5,
    idd,
    label_of,
    save,
)

from fleetseg.config import PartitionConfig, SourceConfig
from fleetseg.data.check import check, detect
from fleetseg.data.labels import (
    A2D2_38,
    CITYSCAPES_19,
    CROSSCITY_13,
    IDD_7,
    IDD_26,
    IDDA_16,
    LabelSpace,
    projection,
)
from fleetseg.data.partition.assign import partition
from fleetseg.data.sample import Label_HW, Sample, Source
from fleetseg.data.sources import SOURCES, open_source
from fleetseg.data.store.cache import open_store
from fleetseg.errors import ConfigError, DataError

# kind -> split: (labelled, unlabelled)
SPLITS: dict[str, dict[str, tuple[int, int]]] = {
    "gta5": {"train": (3, 0)},
    "acdc": {
        "train": (4, 0), "val": (4, 0), "test": (0, 4),
        "train_ref": (1, 3), "val_ref": (0, 4), "test_ref": (0, 4),
    },
    "dark_zurich": {"train": (0, 6), "val": (1, 0), "val_ref": (0, 1)},
    "bdd100k": {"train": (2, 0), "val": (1, 0), "test": (0, 1)},
    "mapillary": {"training": (2, 0), "validation": (1, 0), "testing": (0, 1)},
    "idda": {"train": (6, 0)},
    "crosscity": {"Train": (0, 3), "Test": (2, 0)},
    "idd": {"train": (3, 0), "val": (1, 0), "test": (0, 1)},
    "kitti": {"training": (2, 0), "testing": (0, 1)},
    "wilddash": {"train": (2, 0)},
    "selma": {"train": (3, 0)},
    "a2d2": {"train": (3, 0)},
}  # fmt: skip
# Split of each set whose first frame shows all ids.
FIRST = {kind: next(s for s, (n, _) in SPLITS[kind].items() if n) for kind in SPLITS}

_ = 255
CITYSCAPES = [
    _, _, _, _, _, _, _, 0, 1, _, _, 2, 3, 4, _, _, _, 5, _, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, _,
    _, 16, 17, 18,
]  # fmt: skip
TRAIN_IDS: dict[str, list[int]] = {
    "gta5": [*CITYSCAPES, _],
    "acdc": CITYSCAPES,
    "dark_zurich": CITYSCAPES,
    "kitti": CITYSCAPES,
    "bdd100k": [*range(19), _],
    "idda": [_, 2, 4, _, 11, 5, 0, 0, 1, 8, 13, 3, 7, 6, _, _, 15, 14, 12, 9, 10, _, _, _],
    "idd": [*range(26), _],
    # Pickup, van, billboard, street light, road marking.
    "wilddash": [*CITYSCAPES, 14, 13, _, _, 0],
    # Road, sidewalk, building, lights, signs, trees, sky, person, rider, car, bus, two-wheelers.
    "crosscity": [
        _, _, _, _, _, _, _, 0, 1, _, _, 2, _, _, _, _, _, _, _, 3, 4, 5, _, 6, 7, 8, 9, _, 10, _,
        _, _, 11, 12,
    ],
    # 0-22 as CARLA has them, then person, rider, car, truck, bus, train, motorcycle, bicycle.
    "selma": [
        _, 2, 4, _, _, 5, 0, 0, 1, 8, _, 3, 7, 10, _, _, _, _, 6, _, _, _, 9,
        11, 12, 13, 14, 15, 16, 17, 18,
    ],
    # bird animal kerb fence guard barrier wall bike-lane crosswalk kerb-cut, parking square
    # rail road service sidewalk bridge building tunnel person, three riders zebra marking mountain
    # sand sky snow terrain, vegetation water banner bench rack billboard basin camera hydrant box,
    # mailbox manhole phone pothole street-light pole frame utility-pole light sign-back, sign-front
    # can bicycle boat bus car caravan motorcycle rails other, trailer truck slow mount ego none
    "mapillary": [
        _, _, 1, 4, _, _, 3, 1, _, 1,  _, 1, _, 0, 0, 1, _, 2, _, 11,
        12, 12, 12, _, 0, _, 9, 10, _, 9,  8, _, _, _, _, _, _, _, _, _,
        _, _, _, 0, 5, 5, 5, 5, 6, _,  7, _, 18, _, 15, 13, _, 17, 16, _,
        _, 14, _, _, _, _,
    ],
    # Car, car, pedestrian, small vehicles, kerb, pole, nature, sidewalk, road, sky, house, dirt.
    "a2d2": [0, 0, 2, 4, 10, 18, 26, 28, 33, 34, 35, 37],
}  # fmt: skip
SPACES: dict[str, LabelSpace] = {
    "idda": IDDA_16, "crosscity": CROSSCITY_13, "idd": IDD_26, "a2d2": A2D2_38,
}  # fmt: skip
each_kind = pytest.mark.parametrize("kind", MAKERS)


def opened(kind: str, root: Path, split: str = "", **fields: object) -> Source:
    split = split or FIRST[kind]
    return open_source(SourceConfig(kind=kind, root=str(root), split=split, **fields))  # type: ignore[arg-type]


def written(kind: str, root: Path) -> Path:
    MAKERS[kind](root / kind)
    return root / kind


def first_label(source: Source) -> Label_HW:
    """Read the label that shows all ids: that of the sample whose label has the most of them."""
    labels = [source.read(sample)[1] for sample in source.samples]
    found = [label_HW for label_HW in labels if label_HW is not None]
    return max(found, key=lambda label_HW: len(np.unique(label_HW)))


def facts(sample: Sample) -> tuple[str, str, str, int, str, str]:
    s = sample
    return s.domain, s.city, s.sequence, s.frame, s.condition, s.vehicle


def test_every_source_on_disk_but_the_older_ones_is_tested_here() -> None:
    older = {"synthetic", "camvid", "cityscapes", "idd_lite", "folder"}
    assert set(SOURCES) == older | set(MAKERS) == older | set(SPLITS) == older | set(TRAIN_IDS)


@each_kind
def test_splits_are_found_by_a_guess_and_from_above(tmp_path: Path, kind: str) -> None:
    root = written(kind, tmp_path)
    for start in (root, tmp_path):
        found = [(config.kind, config.split) for config in detect(start)]
        assert sorted(found) == sorted((kind, split) for split in SPLITS[kind])


@each_kind
def test_all_frames_are_read_and_none_is_bad(tmp_path: Path, kind: str) -> None:
    root = written(kind, tmp_path)
    for split, counts in SPLITS[kind].items():
        source = opened(kind, root, split)
        report = check(source)
        assert report.bad == ()
        assert (report.num_labelled, report.num_unlabelled) == counts
        assert len({sample.id for sample in source.samples}) == len(source.samples)
        assert all(s.id.startswith(f"{kind}/{split}/") and s.domain for s in source.samples)
        assert pickle.loads(pickle.dumps(source)).samples == source.samples  # workers get it


@each_kind
def test_raw_ids_become_train_ids_pixel_by_pixel(tmp_path: Path, kind: str) -> None:
    source = opened(kind, written(kind, tmp_path))
    assert source.space is SPACES.get(kind, CITYSCAPES_19)
    # The expectation has one entry for each raw id, in the order of the label's pixels.
    assert len(TRAIN_IDS[kind]) == len(RAW_IDS.get(kind, A2D2_CLASS_LIST))
    assert first_label(source).tolist() == label_of(TRAIN_IDS[kind]).tolist()


@each_kind
def test_an_unpublished_split_is_refused_with_those_that_are_there(
    tmp_path: Path, kind: str
) -> None:
    expected = ".*one of: " + ", ".join(sorted(SPLITS[kind]) if kind == "idd" else SPLITS[kind])
    with pytest.raises(DataError, match=r"no split 'vall'" + expected):
        opened(kind, written(kind, tmp_path), "vall")


def test_cityscapes_ids_are_those_of_cityscapesscripts() -> None:
    table = {x.id: x.trainId for x in cityscapes_labels if x.id >= 0}
    assert [table[i] for i in range(34)] == CITYSCAPES


# What names and folders tell


@pytest.mark.parametrize(
    ("kind", "split", "expected"),
    [
        ("gta5", "train", ("gta5", "", "", 1, "", "")),
        ("acdc", "train", ("fog", "", "fog_GOPR0475", 41, "fog", "")),
        ("acdc", "val_ref", ("clear", "", "fog_GOPR0475_ref", 41, "clear", "")),
        ("dark_zurich", "val", ("night", "zurich", "GOPR0356", 321, "night", "")),
        ("dark_zurich", "val_ref", ("day", "zurich", "GOPR0356_ref", 321, "day", "")),
        ("bdd100k", "train", ("daytime", "", "", 0, "daytime", "")),
        ("bdd100k", "val", ("unknown", "", "", 0, "", "")),
        ("mapillary", "training", ("mapillary", "", "", 0, "", "")),
        ("idda", "train", ("T01_CN_A", "T01", "T01_CN_A", 242662, "CN", "A")),
        ("crosscity", "Train", ("Rome", "Rome", "", 896, "", "")),
        ("idd", "train", ("india", "", "idd_0", 5506, "", "")),
        ("kitti", "training", ("kitti", "", "", 0, "", "")),
        ("wilddash", "train", ("wilddash", "", "", 0, "", "")),
        (
            "selma",
            "train",
            ("ClearNight", "Town01_Opt", "Town01_Opt_ClearNight", 0, "ClearNight", "DESK"),
        ),
        ("a2d2", "train", ("20180807_145028", "", "20180807_145028", 91, "", "front_center")),
    ],
)
def test_facts(
    tmp_path: Path, kind: str, split: str, expected: tuple[str, str, str, int, str, str]
) -> None:
    assert facts(opened(kind, written(kind, tmp_path), split).samples[0]) == expected


@pytest.mark.parametrize(
    ("kind", "split", "by", "sizes"),
    [
        ("acdc", "train", "condition", [2, 2]),
        ("acdc", "train", "sequence", [2, 2]),
        ("dark_zurich", "train", "condition", [2, 2, 2]),
        ("bdd100k", "train", "condition", [1, 1]),
        ("idda", "train", "city", [4, 2]),
        ("idda", "train", "condition", [4, 2]),
        ("idda", "train", "vehicle", [4, 2]),
        ("idda", "train", "domain", [2, 2, 2]),
        ("crosscity", "Train", "city", [2, 1]),
        ("idd", "train", "sequence", [2, 1]),
        ("selma", "train", "condition", [2, 1]),
        ("selma", "train", "vehicle", [2, 1]),
        ("a2d2", "train", "sequence", [2, 1]),
        ("a2d2", "train", "vehicle", [2, 1]),
    ],
)
def test_natural_partitions(
    tmp_path: Path, kind: str, split: str, by: str, sizes: list[int]
) -> None:
    source = opened(kind, written(kind, tmp_path), split)
    histograms_NC = np.zeros((len(source.samples), source.space.num_classes), dtype=np.int64)
    config = PartitionConfig(kind="natural", by=by)  # type: ignore[arg-type]
    held = partition(config, source.samples, histograms_NC, 0)
    assert sorted(map(len, held.values()), reverse=True) == sizes


@pytest.mark.parametrize("kind", ["gta5", "mapillary", "kitti", "wilddash"])
def test_images_of_no_drive_cannot_be_parted_by_drive(tmp_path: Path, kind: str) -> None:
    source = opened(kind, written(kind, tmp_path))
    histograms_NC = np.zeros((len(source.samples), source.space.num_classes), dtype=np.int64)
    with pytest.raises(ConfigError, match=f"'{kind}' have no sequence.*one of: domain, dataset"):
        partition(PartitionConfig(), source.samples, histograms_NC, 0)


@pytest.mark.parametrize(
    ("option", "names", "domains"),
    [
        ("cities", ["T07"], {"T07_CN_A"}),
        ("conditions", ["CN"], {"T01_CN_A", "T07_CN_A"}),
        ("vehicles", ["B"], {"T01_HRN_B"}),
        ("sequences", ["T01_CN_A"], {"T01_CN_A"}),
    ],
)
def test_a_source_is_narrowed_by_its_facts(
    tmp_path: Path, option: str, names: list[str], domains: set[str]
) -> None:
    source = opened("idda", written("idda", tmp_path), **{option: names})
    assert {sample.domain for sample in source.samples} == domains


def test_a_fact_that_no_sample_has_is_refused_with_those_that_are_there(tmp_path: Path) -> None:
    root = written("idda", tmp_path)
    with pytest.raises(DataError, match=r"no vehicle 'C' in split 'train' of idda.*from: A, B"):
        opened("idda", root, vehicles=["C"])
    with pytest.raises(DataError, match=r"no city 'ulm'.*cities from: none is known"):
        opened("kitti", written("kitti", tmp_path), cities=["ulm"])


# What is peculiar to each


def test_acdc_lies_where_its_archives_unpack_to(tmp_path: Path) -> None:
    acdc(tmp_path)
    for name, archive in (("rgb_anon", "rgb_anon_trainvaltest"), ("gt", "gt_trainval")):
        (tmp_path / archive).mkdir()
        (tmp_path / name).rename(tmp_path / archive / name)
    assert [config.split for config in detect(tmp_path)] == list(SPLITS["acdc"])
    assert check(opened("acdc", tmp_path)).num_labelled == 4


def test_acdc_says_which_conditions_are_missing_and_takes_those_asked_for(tmp_path: Path) -> None:
    acdc(tmp_path)
    source = opened("acdc", tmp_path, conditions=["fog"])
    assert source.notes == ("no train frames of rain, snow",)
    assert {sample.condition for sample in source.samples} == {"fog"}


def test_acdc_reads_raw_ids_before_train_ids_and_either_alone(tmp_path: Path) -> None:
    acdc(tmp_path)
    (first, *_) = opened("acdc", tmp_path).samples
    assert str(first.label).endswith("_gt_labelIds.png")
    Path(str(first.label)).unlink()
    source = opened("acdc", tmp_path)
    assert str(source.samples[0].label).endswith("_gt_labelTrainIds.png")
    label_HW = source.read(source.samples[0])[1]
    assert label_HW is not None
    assert (label_HW == 0).all()


def test_bdd100k_before_2021_has_other_folders(tmp_path: Path) -> None:
    save(tmp_path / "seg/images/train/0004a4c0-d4dff0ad.jpg", np.zeros((8, 16, 3), np.uint8))
    save(tmp_path / "seg/labels/train/0004a4c0-d4dff0ad_train_id.png", label_of([3]))
    save(tmp_path / "seg/color_labels/train/0004a4c0-d4dff0ad_train_color.png", label_of([9]))
    assert [(c.kind, c.split) for c in detect(tmp_path)] == [("bdd100k", "train")]
    assert (first_label(opened("bdd100k", tmp_path)) == 3).all()


def test_bdd100k_knows_the_weather_from_either_json(tmp_path: Path) -> None:
    bdd100k(tmp_path)
    detection = tmp_path / "labels/det_20/det_val.json"
    detection.parent.mkdir()
    frame = {"name": "7d2f7975-e0c1c5a7.jpg", "attributes": {"weather": "snowy"}}
    detection.write_text(json.dumps({"frames": [frame, {"name": "other.jpg"}, 3]}))
    assert opened("bdd100k", tmp_path, "val").samples[0].condition == "snowy"
    for text, what in (('{"frames": 3}', "no list of frames"), ("[{", "not JSON")):
        detection.write_text(text)
        with pytest.raises(DataError, match=f"det_val.json: {what}"):
            opened("bdd100k", tmp_path, "val")


def test_mapillary_before_v2_has_its_labels_one_folder_up(tmp_path: Path) -> None:
    root = written("mapillary", tmp_path)
    for split in ("training", "validation"):
        (root / split / "v1.2/labels").rename(root / split / "labels")
    assert [config.split for config in detect(root)] == list(SPLITS["mapillary"])
    assert (
        first_label(opened("mapillary", root)).tolist() == label_of(TRAIN_IDS["mapillary"]).tolist()
    )


def test_idd_reads_level_1_where_level_3_is_not_made(tmp_path: Path) -> None:
    idd(tmp_path)
    for path in (tmp_path / "gtFine/train").rglob("*labellevel3Ids.png"):
        save(path.with_name(path.name.replace("level3", "level1")), label_of([6, 2, 255, 0]))
    assert opened("idd", tmp_path).space is IDD_26
    for path in (tmp_path / "gtFine/train").rglob("*labellevel3Ids.png"):
        path.unlink()
    source = opened("idd", tmp_path)
    assert source.space is IDD_7
    assert first_label(source)[0, :5].tolist() == [6, 2, 255, 0, 0]


def test_idd_as_it_is_published_has_polygons_only_and_says_what_to_do(tmp_path: Path) -> None:
    idd(tmp_path)
    for path in (tmp_path / "gtFine/train").rglob("*.png"):
        path.unlink()
    source = opened("idd", tmp_path)
    assert [sample.label for sample in source.samples] == [None] * 3
    assert "--id-type level3Id" in source.notes[0]


def test_idd_and_cityscapes_are_told_apart_by_their_drives(tmp_path: Path) -> None:
    idd(tmp_path / "idd")
    stem = "ulm_000000_000019"
    save(tmp_path / f"cs/leftImg8bit/train/ulm/{stem}_leftImg8bit.png", label_of([1]))
    assert {config.kind for config in detect(tmp_path)} == {"idd", "cityscapes"}


def test_gta5_splits_are_lists_where_there_are_any(tmp_path: Path) -> None:
    gta5(tmp_path)
    (tmp_path / "splits").mkdir()
    lines = "/images/24966.png /labels/24966.png\n/images/00001.png /labels/00001.png\n"
    (tmp_path / "splits/train.txt").write_text(lines)
    (tmp_path / "test.txt").write_text("/images/00002.png /labels/00002.png\n")
    assert [config.split for config in detect(tmp_path)] == ["train", "test"]
    assert [sample.frame for sample in opened("gta5", tmp_path).samples] == [1, 24966]
    assert [sample.frame for sample in opened("gta5", tmp_path, "test").samples] == [2]
    (tmp_path / "test.txt").write_text("/images/00003.png /labels/00003.png\n")
    with pytest.raises(DataError, match=r"test.txt: 1 listed frames are missing; got 00003"):
        opened("gta5", tmp_path, "test")


def test_gta5_frames_known_to_be_of_odd_size_are_left_out_with_a_note(tmp_path: Path) -> None:
    gta5(tmp_path)
    wide = np.zeros((8, 18, 3), dtype=np.uint8)
    flat = [value for i in range(35) for value in GTA5_PALETTE[i]]
    for stem in ("15188", "17705"):
        save(tmp_path / f"labels/{stem}.png", label_of([7]), flat)
    save(tmp_path / "images/15188.png", wide)
    save(tmp_path / "images/17705.png", wide[:, :16])  # a repaired copy is as good as any
    source = opened("gta5", tmp_path)
    assert [sample.frame for sample in source.samples] == [1, 2, 17705, 24966]
    assert source.notes == (
        "15188.png left out: the published label differs in size from the image",
    )


def test_a2d2_checks_the_class_list_beside_the_scenes(tmp_path: Path) -> None:
    root = written("a2d2", tmp_path)
    (root / "class_list.json").write_text('{"#FF0000": "Car 2", "#ff0001": "Car 1"}')
    with pytest.raises(
        DataError, match=r"class_list.json: classes that are not A2D2's; got #ff0001"
    ):
        opened("a2d2", root)
    for text, what in (("{", "not JSON"), ("[]", "no list of classes")):
        (root / "class_list.json").write_text(text)
        with pytest.raises(DataError, match=what):
            opened("a2d2", root)


# From a source to what a run trains on


@each_kind
@pytest.mark.parametrize("from_files", [False, True])
def test_a_run_gets_labels_in_seven_classes_and_images_without_any(
    tmp_path: Path, kind: str, from_files: bool
) -> None:
    root = written(kind, tmp_path)
    for split, (labelled, unlabelled) in SPLITS[kind].items():
        source = opened(kind, root, split)
        store = open_store(
            source,
            size_hw=(8, 16),
            space=IDD_7,
            cache_dir=tmp_path / "cache",
            native_labels=False,
            from_files=from_files,
        )
        assert store.bad == {}
        assert store.labelled.sum() == labelled
        assert len(store) == labelled + unlabelled
        to_seven = projection(source.space, IDD_7)
        for i in np.flatnonzero(store.labelled).tolist():
            label_HW = source.read(source.samples[i])[1]
            assert label_HW is not None
            assert store.pair(i)[1].tolist() == to_seven[label_HW].tolist()
