"""Label spaces, raw ids and projections, against those that are published."""

from __future__ import annotations

import numpy as np
import pytest
from cityscapesscripts.helpers.labels import labels as cityscapes_labels
from hypothesis import given
from hypothesis import strategies as st

from fleetseg.data import labels
from fleetseg.data.labels import (
    CAMVID_11,
    CAMVID_32_CLASSES,
    CAMVID_32_COLOURS,
    CAMVID_32_TO_TRAIN,
    CAMVID_SEGNET_TO_TRAIN,
    CITYSCAPES_19,
    CITYSCAPES_ID_TO_TRAIN,
    IDD_7,
    IGNORE,
    LABEL_SPACES,
    LabelSpace,
    ids_from_colours,
    label_space,
    projection,
    raw_id_table,
)
from fleetseg.errors import ConfigError

PROJECTIONS = [(CAMVID_11, IDD_7), (CITYSCAPES_19, IDD_7), (CITYSCAPES_19, CAMVID_11)]


@pytest.mark.parametrize("space", LABEL_SPACES.values(), ids=lambda space: space.name)
def test_each_space_is_whole(space: LabelSpace) -> None:
    assert len(set(space.classes)) == len(set(space.colours)) == space.num_classes
    assert len(space.colours) == len(space.classes)
    assert space.critical
    assert set(space.critical) < set(space.classes)
    assert label_space(space.name) is space


def test_sizes_and_the_order_of_camvid() -> None:
    assert {name: s.num_classes for name, s in LABEL_SPACES.items()} == {
        "camvid11": 11,
        "cityscapes19": 19,
        "idd7": 7,
        "crosscity13": 13,
        "idda16": 16,
        "idd26": 26,
        "a2d2_38": 38,
    }
    assert CAMVID_11.classes[0] == "sky"
    assert CAMVID_11.classes[10] == "bicyclist"
    assert IDD_7.classes[2] == "living things"


def test_unknown_space_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown label space 'camvid12'.*Did you mean 'camvid"):
        label_space("camvid12")


def test_cityscapes_is_that_of_cityscapesscripts() -> None:
    for label in cityscapes_labels:
        if label.id >= 0:
            assert CITYSCAPES_ID_TO_TRAIN[label.id] == label.trainId, label.name
        if 0 <= label.trainId < 255:
            assert CITYSCAPES_19.classes[label.trainId] == label.name
            assert CITYSCAPES_19.colours[label.trainId] == label.color
    # Ids beyond the official ones, and the licence plate (-1, stored as 255), are void.
    assert (CITYSCAPES_ID_TO_TRAIN[34:] == IGNORE).all()


def test_segnet_ids() -> None:
    assert CAMVID_SEGNET_TO_TRAIN[:12].tolist() == [*range(11), 255]
    assert (CAMVID_SEGNET_TO_TRAIN[11:] == IGNORE).all()


def test_camvid_has_its_32_colours_grouped_as_published() -> None:
    assert len(set(CAMVID_32_COLOURS)) == len(set(CAMVID_32_CLASSES)) == 32
    assert (CAMVID_32_TO_TRAIN[32:] == IGNORE).all()
    grouped: dict[str, set[str]] = {}
    for i, name in enumerate(CAMVID_32_CLASSES):
        train_id = int(CAMVID_32_TO_TRAIN[i])
        group = "void" if train_id == IGNORE else CAMVID_11.classes[train_id]
        grouped.setdefault(group, set()).add(name)
    # MathWorks' "Semantic segmentation using deep learning" lists these groups, from SegNet.
    assert grouped == {
        "sky": {"Sky"},
        "building": {"Bridge", "Building", "Wall", "Tunnel", "Archway"},
        "pole": {"Column_Pole", "TrafficCone"},
        "road": {"Road", "LaneMkgsDriv", "LaneMkgsNonDriv"},
        "pavement": {"Sidewalk", "ParkingBlock", "RoadShoulder"},
        "tree": {"Tree", "VegetationMisc"},
        "sign": {"SignSymbol", "Misc_Text", "TrafficLight"},
        "fence": {"Fence"},
        "car": {"Car", "SUVPickupTruck", "Truck_Bus", "Train", "OtherMoving"},
        "pedestrian": {"Pedestrian", "Child", "CartLuggagePram", "Animal"},
        "bicyclist": {"Bicyclist", "MotorcycleScooter"},
        "void": {"Void"},
    }


def test_camvid_to_idd_is_that_of_the_data_notes() -> None:
    table = projection(CAMVID_11, IDD_7)
    assert table[:12].tolist() == [6, 5, 4, 0, 1, 5, 4, 4, 3, 2, 2, 255]


def test_cityscapes_to_idd_by_hand() -> None:
    table = projection(CITYSCAPES_19, IDD_7)
    # road sidewalk building wall fence pole light sign vegetation terrain sky person rider, then
    # car truck bus train motorcycle bicycle
    assert table[:13].tolist() == [0, 1, 5, 4, 4, 4, 4, 4, 5, 1, 6, 2, 2]
    assert table[13:19].tolist() == [3] * 6


def test_cityscapes_to_camvid_by_hand() -> None:
    table = projection(CITYSCAPES_19, CAMVID_11)
    assert table[:13].tolist() == [3, 4, 1, 1, 7, 2, 6, 6, 5, 255, 0, 9, 10]
    assert table[13:19].tolist() == [8, 8, 8, 8, 10, 10]


@pytest.mark.parametrize(("source", "target"), PROJECTIONS)
@given(ids=st.lists(st.integers(0, 255), min_size=1))
def test_projections_yield_target_ids_only(
    source: LabelSpace, target: LabelSpace, ids: list[int]
) -> None:
    table = projection(source, target)
    assert table.dtype == np.uint8
    assert table.shape == (256,)
    for raw_id, projected in zip(ids, table[np.array(ids)].tolist(), strict=True):
        if raw_id >= source.num_classes:
            assert projected == IGNORE
        else:
            assert projected < target.num_classes or projected == IGNORE


def test_every_human_stays_critical() -> None:
    for source, target in PROJECTIONS:
        table = projection(source, target)
        for name in {"person", "rider", "pedestrian", "bicyclist"} & set(source.classes):
            target_class = target.classes[table[source.classes.index(name)]]
            assert target_class in target.critical


def test_spaces_with_equal_classes_project_by_identity() -> None:
    mine = LabelSpace("mine", IDD_7.classes, IDD_7.colours, ())
    expected = [*range(7), *[255] * 249]
    assert projection(IDD_7, IDD_7).tolist() == expected
    assert projection(mine, IDD_7).tolist() == expected


def test_spaces_are_told_apart_by_classes_not_by_name() -> None:
    impostor = LabelSpace("camvid11", CAMVID_11.classes[::-1], CAMVID_11.colours, ())
    with pytest.raises(ConfigError, match="no projection"):
        projection(impostor, IDD_7)
    renamed = LabelSpace("depot", CAMVID_11.classes, CAMVID_11.colours, ())
    assert projection(renamed, IDD_7).tolist() == projection(CAMVID_11, IDD_7).tolist()


def test_unknown_projection_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError) as error:
        projection(IDD_7, CITYSCAPES_19)
    text = str(error.value)
    assert "no projection from label space 'idd7' to 'cityscapes19'" in text
    assert "camvid11 -> idd7, cityscapes19 -> idd7, cityscapes19 -> camvid11" in text


def test_tables_cannot_be_written() -> None:
    for table in (CITYSCAPES_ID_TO_TRAIN, CAMVID_32_TO_TRAIN, projection(CAMVID_11, IDD_7)):
        with pytest.raises(ValueError, match="read-only"):
            table[0] = 1


def test_a_near_colour_is_no_class() -> None:
    rgb_HWC = np.array([[(128, 64, 128), (128, 64, 129), (0, 0, 0)]], dtype=np.uint8)
    ids_HW, unknown_HW = ids_from_colours(rgb_HWC, CAMVID_32_COLOURS)
    road, void = CAMVID_32_CLASSES.index("Road"), CAMVID_32_CLASSES.index("Void")
    assert ids_HW.tolist() == [[road, IGNORE, void]]
    assert unknown_HW.tolist() == [[False, True, False]]


@given(
    colours=st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=20, unique=True),
    pixels=st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=40),
)
def test_colours_decode_as_a_dictionary_does(
    colours: list[labels.Colour], pixels: list[labels.Colour]
) -> None:
    ids_HW, unknown_HW = ids_from_colours(np.array([pixels], dtype=np.uint8), colours)
    wanted = {colour: i for i, colour in enumerate(colours)}
    assert ids_HW.tolist() == [[wanted.get(pixel, IGNORE) for pixel in pixels]]
    assert unknown_HW.tolist() == [[pixel not in wanted for pixel in pixels]]


@pytest.mark.parametrize(
    ("space", "raw_to_train"),
    [(CITYSCAPES_19, CITYSCAPES_ID_TO_TRAIN), (CAMVID_11, CAMVID_SEGNET_TO_TRAIN)],
)
def test_raw_ids_lead_back_to_their_class(space: LabelSpace, raw_to_train: np.ndarray) -> None:
    train_ids = np.arange(space.num_classes)
    assert raw_to_train[raw_id_table(space)[train_ids]].tolist() == train_ids.tolist()


def test_raw_ids_of_cityscapes_are_its_label_ids() -> None:
    table = raw_id_table(CITYSCAPES_19)
    published = {label.trainId: label.id for label in cityscapes_labels if not label.ignoreInEval}
    assert {i: int(table[i]) for i in range(19)} == published
    assert raw_id_table(IDD_7)[:8].tolist() == [0, 1, 2, 3, 4, 5, 6, IGNORE]


def test_a_space_of_ones_own_has_no_raw_ids() -> None:
    own = LabelSpace("camvid11", ("dark", "bright"), ((0, 0, 0), (9, 9, 9)), ("bright",))
    with pytest.raises(ConfigError, match=r"raw ids .* are unknown.*Write train ids"):
        raw_id_table(own)
