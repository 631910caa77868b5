"""Every label space in every other that it has honest names in, against what the sets publish."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetseg.data.labels import (
    A2D2_38,
    CAMVID_11,
    CITYSCAPES_19,
    CROSSCITY_13,
    IDD_7,
    IDD_26,
    IDDA_16,
    IGNORE,
    LABEL_SPACES,
    LabelSpace,
    projection,
)
from fleetseg.data.projections import HUB, PROJECTIONS
from fleetseg.errors import ConfigError


def known(source: LabelSpace, target: LabelSpace) -> bool:
    try:
        projection(source, target)
    except ConfigError:
        return False
    return True


PAIRS = [pair for pair in itertools.permutations(LABEL_SPACES.values(), 2) if known(*pair)]
each_pair = pytest.mark.parametrize(
    ("source", "target"), PAIRS, ids=[f"{a.name}-{b.name}" for a, b in PAIRS]
)


def test_every_space_has_a_way_to_the_seven_classes() -> None:
    assert {a.name for a, b in PAIRS if b is IDD_7} == set(LABEL_SPACES) - {"idd7"}


def test_all_but_the_coarser_ones_have_a_way_to_cityscapes() -> None:
    to_hub = {a.name for a, b in PAIRS if b is CITYSCAPES_19}
    assert to_hub == {"crosscity13", "idda16", "idd26", "a2d2_38"}


@each_pair
@given(ids=st.lists(st.integers(0, 255), min_size=1))
def test_a_projection_is_total_and_gives_ids_of_the_target_only(
    source: LabelSpace, target: LabelSpace, ids: list[int]
) -> None:
    table = projection(source, target)
    assert (table.dtype, table.shape) == (np.uint8, (256,))
    for raw_id, projected in zip(ids, table[np.array(ids)].tolist(), strict=True):
        if raw_id >= source.num_classes:
            assert projected == IGNORE
        else:
            assert projected < target.num_classes or projected == IGNORE


@each_pair
def test_by_way_of_cityscapes_nothing_means_anything_else(
    source: LabelSpace, target: LabelSpace
) -> None:
    """The way round may lose classes; what it keeps is what the direct way says.

    Through CamVid-11 it may not: a wall is a building there, and a bicycle its rider.
    """
    direct = projection(source, target)
    for middle in (CITYSCAPES_19, CROSSCITY_13, IDDA_16):
        if (source, middle) in PAIRS and (middle, target) in PAIRS:
            round_about = projection(middle, target)[projection(source, middle)]
            kept = round_about != IGNORE
            assert (round_about[kept] == direct[kept]).all(), middle.name


@each_pair
def test_equal_names_stay_equal(source: LabelSpace, target: LabelSpace) -> None:
    table = projection(source, target)
    for i, name in enumerate(source.classes):
        if name in target.classes:
            assert target.classes[table[i]] == name


@each_pair
def test_nobody_who_can_be_hurt_is_lost(source: LabelSpace, target: LabelSpace) -> None:
    table = projection(source, target)
    for name in {"person", "rider", "pedestrian", "Pedestrian", "bicyclist"} & {*source.classes}:
        assert target.classes[table[source.classes.index(name)]] in target.critical


def test_tables_name_every_class_of_their_source_and_no_other_of_their_target() -> None:
    for (a, b), names in PROJECTIONS.items():
        assert set(names) == set(LABEL_SPACES[a].classes)
        assert set(names.values()) - {None} <= set(LABEL_SPACES[b].classes)
        assert HUB in (a, b) or b == "idd7"


def test_cityscapes_to_crosscity_is_ladds_table() -> None:
    # Raw id -> id: 7 0, 8 1, 11 2, 19 3, 20 4, 21 5, 23 6, 24 7, 25 8, 26 9, 28 10, 32 11, 33 12.
    expected = [0, 1, 2, 255, 255, 255, 3, 4, 5, 255, 6, 7, 8, 9, 255, 10, 255, 11, 12]
    assert projection(CITYSCAPES_19, CROSSCITY_13)[:19].tolist() == expected


def test_idda_has_other_numbers_for_two_wheelers() -> None:
    assert projection(IDDA_16, CITYSCAPES_19)[:16].tolist() == [*range(14), 17, 18]
    expected = [*range(14), 255, 255, 255, 14, 15]
    assert projection(CITYSCAPES_19, IDDA_16)[:19].tolist() == expected


def test_coarser_spaces_are_reached_through_cityscapes() -> None:
    by_way = projection(CITYSCAPES_19, CAMVID_11)[projection(IDDA_16, CITYSCAPES_19)]
    assert projection(IDDA_16, CAMVID_11).tolist() == by_way.tolist()
    with pytest.raises(ValueError, match="read-only"):
        projection(IDDA_16, CAMVID_11)[0] = 1


# (name, csTrainId, level3Id, level1Id) of AutoNUE's helpers/anue_labels.py.
ANUE_LABELS = [
    ("road", 0, 0, 0), ("parking", 255, 1, 0), ("drivable fallback", 255, 1, 0),
    ("sidewalk", 1, 2, 1), ("rail track", 255, 3, 1), ("non-drivable fallback", 9, 3, 1),
    ("person", 11, 4, 2), ("animal", 255, 4, 2), ("rider", 12, 5, 2), ("motorcycle", 17, 6, 3),
    ("bicycle", 18, 7, 3), ("autorickshaw", 255, 8, 3), ("car", 13, 9, 3), ("truck", 14, 10, 3),
    ("bus", 15, 11, 3), ("caravan", 255, 12, 3), ("trailer", 255, 12, 3), ("train", 16, 12, 3),
    ("vehicle fallback", 255, 12, 3), ("curb", 255, 13, 4), ("wall", 3, 14, 4),
    ("fence", 4, 15, 4), ("guard rail", 255, 16, 4), ("billboard", 255, 17, 4),
    ("traffic sign", 7, 18, 4), ("traffic light", 6, 19, 4), ("pole", 5, 20, 4),
    ("polegroup", 255, 20, 4), ("obs-str-bar-fallback", 255, 21, 4), ("building", 2, 22, 5),
    ("bridge", 255, 23, 5), ("tunnel", 255, 23, 5), ("vegetation", 8, 24, 5), ("sky", 10, 25, 6),
    ("fallback background", 255, 25, 6),
]  # fmt: skip


def test_idd_is_that_of_its_authors() -> None:
    to_seven, to_cityscapes = projection(IDD_26, IDD_7), projection(IDD_26, CITYSCAPES_19)
    for name, train_id, level_3, level_1 in ANUE_LABELS:
        assert to_seven[level_3] == level_1, name
        if name in IDD_26.classes:  # the member that names its class of level 3
            assert IDD_26.classes.index(name) == level_3
            assert to_cityscapes[level_3] == train_id, name


def test_a2d2_by_hand() -> None:
    def named(target: LabelSpace, *names: str) -> list[str | None]:
        ids = projection(A2D2_38, target)[[A2D2_38.classes.index(name) for name in names]]
        return [None if i == IGNORE else target.classes[i] for i in ids.tolist()]

    names = ("Pedestrian", "Small vehicles", "Zebra crossing", "Parking area", "Ego car")
    assert named(CITYSCAPES_19, *names) == ["person", None, "road", None, None]
    assert named(IDD_7, *names) == ["living things", "vehicles", "drivable", "drivable", None]
    assert named(CAMVID_11, *names[:3]) == ["pedestrian", None, "road"]
