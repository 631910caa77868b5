"""Label subsets: drawn evenly and by the seed alone, read from a file, or taken from a manifest."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetseg.config import PartitionConfig
from fleetseg.data.labels import CAMVID_11, ERASED, LabelSpace
from fleetseg.data.partition.label_subset import LabelSubsets, label_subsets
from fleetseg.data.partition.manifest import Manifest
from fleetseg.errors import ConfigError, DataError

C = CAMVID_11.num_classes


def fleet(clients: int, shown: range | list[int] = range(C)) -> dict[str, np.ndarray]:
    pixels_C = np.where(np.isin(np.arange(C), list(shown)), 100, 0)
    return {f"car-{k:03d}": pixels_C for k in range(clients)}


def subsets(of: dict[str, Any], seed: int = 0, **rule: Any) -> LabelSubsets:
    return label_subsets(PartitionConfig(label_subset=rule), of, CAMVID_11, seed)


def test_by_default_nothing_is_erased() -> None:
    assert subsets(fleet(3)) == {}


@given(clients=st.integers(1, 40), wanted=st.integers(1, 12), seed=st.integers(0, 99))
def test_each_gets_so_many_and_each_class_is_given_as_often(
    clients: int, wanted: int, seed: int
) -> None:
    drawn = subsets(fleet(clients), seed, classes=wanted)
    assert all(len(set(ids)) == min(wanted, C) for ids in drawn.values())
    assert all(list(ids) == sorted(ids) for ids in drawn.values())
    counts = Counter(c for ids in drawn.values() for c in ids)
    times = [counts[c] for c in range(C)]
    assert max(times) - min(times) <= 1


def test_fedsegs_split_of_camvid() -> None:
    """22 clients and one class each: every class has two."""
    drawn = subsets(fleet(22), classes=1)
    assert Counter(Counter(c for ids in drawn.values() for c in ids).values()) == {2: C}


def test_only_classes_that_its_images_show_are_drawn() -> None:
    drawn = subsets({"a": fleet(1, [2, 5])["car-000"], "b": fleet(1, [])["car-000"]}, classes=3)
    assert drawn == {"a": (2, 5), "b": ()}


def test_the_seed_decides_and_the_order_of_clients_does_not() -> None:
    of = fleet(8)
    turned = dict(reversed(of.items()))
    assert subsets(of, 1, classes=2) == subsets(turned, 1, classes=2)
    assert len({json.dumps(subsets(of, seed, classes=2)) for seed in range(5)}) > 1


def write(path: Path, content: Any) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def test_a_file_names_them_and_who_is_not_named_labels_all(tmp_path: Path) -> None:
    file = write(tmp_path / "subsets.json", {"car-001": ["sign", "pole", "pole"], "car-000": []})
    assert subsets(fleet(3), file=file) == {"car-001": (2, 6), "car-000": ()}


@pytest.mark.parametrize(
    ("content", "error", "text"),
    [
        ({"car-9": ["road"]}, ConfigError, "unknown client 'car-9'"),
        ({"car-000": ["raod"]}, ConfigError, "unknown class 'raod'.*Did you mean 'road'"),
        ({"car-000": "road"}, DataError, "not a table of label subsets"),
        ({"car-000": [3]}, DataError, "not a table of label subsets"),
        ([], DataError, "not a table of label subsets"),
    ],
)
def test_a_wrong_file_is_refused(
    tmp_path: Path, content: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        subsets(fleet(1), file=write(tmp_path / "subsets.json", content))


def test_a_file_that_is_not_there_or_not_json(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not found"):
        subsets(fleet(1), file=str(tmp_path / "none.json"))
    (tmp_path / "torn.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        subsets(fleet(1), file=str(tmp_path / "torn.json"))


def test_two_rules_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="both set"):
        subsets(fleet(1), classes=1, file="subsets.json")


def test_a_manifest_of_an_earlier_run_gives_its_own(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    Manifest({}, label_subsets={"car-000": ("pole", "car"), "elsewhere": ("road",)}).write(path)
    config = PartitionConfig(kind="file", file=str(path))
    assert label_subsets(config, fleet(2), CAMVID_11, 0) == {"car-000": (2, 8)}
    space = LabelSpace("other", ("road", "car"), ((0, 0, 0),) * 2, ())
    with pytest.raises(ConfigError, match="unknown class"):
        label_subsets(config, fleet(2), space, 0)


def test_there_must_be_an_id_left_to_mark_erased_pixels_with() -> None:
    count = ERASED + 1
    space = LabelSpace("large", tuple(map(str, range(count))), ((0, 0, 0),) * count, ())
    config = PartitionConfig(label_subset={"classes": 1})
    with pytest.raises(ConfigError, match="too many classes"):
        label_subsets(config, {"car": np.ones(count, np.int64)}, space, 0)
