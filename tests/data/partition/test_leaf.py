"""Published splits in LEAF format: read, matched to a data set, or refused with the reason."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from fleetseg.data.partition.leaf import Users, leaf_text, match_samples, read_leaf
from fleetseg.data.sample import Sample
from fleetseg.errors import DataError


def write(path: Path, user_data: dict[str, Any], **fields: Any) -> Path:
    counts = [len(data["x"]) for data in user_data.values()]
    content = {"users": list(user_data), "num_samples": counts, "user_data": user_data}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | fields))
    return path


def sample(image: str) -> Sample:
    return Sample(id=image, dataset="d", split="train", image=image, label=None, domain="")


# ------------------------------------------------------------------ reading


def test_images_are_paired_with_labels_and_none_without(tmp_path: Path) -> None:
    path = write(
        tmp_path / "split.json",
        {"b": {"x": ["1.jpg", "2.jpg"], "y": ["1.png", "2.png"]}, "a": {"x": ["3.jpg"]}},
    )
    assert read_leaf(path) == {
        "b": [("1.jpg", "1.png"), ("2.jpg", "2.png")],
        "a": [("3.jpg", None)],
    }


def test_folder_is_merged_and_other_files_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "all_data_0.json", {"a": {"x": ["1"]}})
    write(tmp_path / "all_data_1.json", {"b": {"x": ["2"]}})
    (tmp_path / "LICENSE.md").write_text("BSD")
    assert read_leaf(tmp_path) == {"a": [("1", None)], "b": [("2", None)]}


def test_single_user_may_have_a_bare_count(tmp_path: Path) -> None:
    path = write(tmp_path / "test_user.json", {"test_user": {"x": ["1", "2"]}}, num_samples=2)
    assert len(read_leaf(path)["test_user"]) == 2


def test_counts_may_stand_in_another_order_than_users(tmp_path: Path) -> None:
    user_data = {"a": {"x": ["1", "2"]}, "b": {"x": ["3"]}}
    path = write(tmp_path / "AF.json", user_data, num_samples=[1, 2])
    assert [len(pairs) for pairs in read_leaf(path).values()] == [2, 1]


def test_users_may_be_numbers(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"users": [7], "user_data": {"7": {"x": ["1"]}}}')
    assert read_leaf(tmp_path / "s.json") == {"7": [("1", None)]}


def test_user_in_two_files_is_refused_with_both_names(tmp_path: Path) -> None:
    write(tmp_path / "one.json", {"a": {"x": ["1"]}})
    write(tmp_path / "two.json", {"a": {"x": ["2"]}})
    with pytest.raises(DataError, match=r"two\.json: user 'a' .* also in one\.json"):
        read_leaf(tmp_path)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"user_data": {"a": {"x": ["1"]}, "a": {"x": ["2"]}}}', "'a' appears twice"),
        ('{"user_data": {" ": {"x": ["1"]}}}', "unusable name of a client; got ' '"),
        (r'{"user_data": {"a\u001b[31m": {"x": ["1"]}}}', "unusable name of a client"),
        (r'{"user_data": {"\ud800": {"x": ["1"]}}}', "unusable name of a client"),
        (
            r'{"user_data": {"\u00e9": {"x": ["1"]}, "e\u0301": {"x": ["2"]}}}',
            "two users have the same",
        ),
        (b"\xff\xfe\x00", "not JSON"),
        ("[]", "not a LEAF-style split file"),
        ('{"0": ["client"]}', "not a LEAF-style split file"),  # LADD's clusters
        ('{"user_data": {"a": {"x": ["1"]}}, "users": ["a", "b"]}', "users and the keys"),
        ('{"user_data": {"a": {"x": ["1"]}}, "users": []}', "users and the keys"),
        ('{"user_data": {"a": {"x": ["1"]}}, "users": ["a", "a"]}', "users and the keys"),
        ('{"user_data": {"a": {"x": ["1"]}}, "num_samples": [2]}', "num_samples disagrees"),
        ('{"user_data": {"a": {"x": ["1"]}}, "num_samples": "x"}', "num_samples disagrees"),
        ('{"user_data": {"a": {"x": ["1"]}}, "num_samples": [[1]]}', "num_samples disagrees"),
        ('{"user_data": {"a": {"y": ["1"]}}}', "malformed entry of user 'a'"),
        ('{"user_data": {"a": {"x": "1"}}}', "malformed entry of user 'a'"),
        ('{"user_data": {"a": {"x": [1]}}}', "malformed entry of user 'a'"),
        ('{"user_data": {"a": {"x": [""]}}}', "malformed entry of user 'a'"),
        ('{"user_data": {"a": ["1"]}}', "malformed entry of user 'a'"),
        ('{"user_data": {"a": {"x": ["1"], "y": []}}}', "1 images and 0 labels"),
    ],
)
def test_malformed_file_is_named_with_what_is_wrong(
    tmp_path: Path, content: str | bytes, text: str
) -> None:
    path = tmp_path / "split.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=text) as caught:
        read_leaf(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="split file not found"):
        read_leaf(tmp_path / "none.json")
    with pytest.raises(DataError, match="no split files"):
        read_leaf(tmp_path)


def test_folder_as_a_mac_left_it(tmp_path: Path) -> None:
    write(tmp_path / "all_data_0.JSON", {"a": {"x": ["1"]}})
    (tmp_path / "._all_data_0.json").write_bytes(b"\0\5\x16\7")
    (tmp_path / "older.json").mkdir()
    assert read_leaf(tmp_path) == {"a": [("1", None)]}


def test_file_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = write(tmp_path / "split.json", {"a": {"x": ["1"]}})
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_leaf(path) == {"a": [("1", None)]}
    path.write_text(path.read_text(encoding="utf-8-sig"), encoding="utf-16")
    with pytest.raises(DataError, match="UTF-16 or UTF-32: save it as UTF-8"):
        read_leaf(path)


# ------------------------------------------------------------------ matching


def matched(images: dict[str, list[str]], samples: list[str]) -> dict[str, tuple[int, ...]]:
    users: Users = {user: [(image, None) for image in each] for user, each in images.items()}
    return match_samples(users, [sample(path) for path in samples], Path("split.json"))


def test_paths_match_by_their_end() -> None:
    root = "/data/cityscapes/leftImg8bit"
    samples = [f"{root}/train/jena/a.png", f"{root}/train/ulm/a.png", f"{root}/val/jena/a.png"]
    wanted = {"two": ["train/ulm/a.png"], "one": ["train/jena/a.png"], "none": []}
    assert matched(wanted, samples) == {"two": (1,), "one": (0,), "none": ()}


def test_leading_slashes_and_backslashes_do_not_matter() -> None:
    assert matched({"a": ["/images/1.png"]}, ["D:\\gta5\\images\\1.png"]) == {"a": (0,)}


def test_unicode_form_and_case_of_the_suffix_do_not_matter() -> None:
    assert matched({"a": ["ko\u0308ln/1.JPG"]}, ["/d/k\u00f6ln/1.jpeg"]) == {"a": (0,)}
    assert matched({"a": ["1.png"]}, ["/d/1.PNG"]) == {"a": (0,)}
    with pytest.raises(DataError, match="in no data set"):
        matched({"a": ["1.png"]}, ["/d/1.jpg"])


def test_part_of_a_folder_name_is_no_match() -> None:
    with pytest.raises(DataError, match=r"1 images of the split are in no data set; got in/1\.png"):
        matched({"a": ["in/1.png"]}, ["/data/train/1.png"])


def test_all_missing_images_stand_in_one_error() -> None:
    images = [f"{i:02d}.png" for i in range(14)]
    with pytest.raises(DataError, match=r"split\.json: 13 images of the split are in no") as caught:
        matched({"a": images[:7], "b": images[7:]}, ["/d/03.png"])
    assert "00.png, 01.png, 02.png, 04.png" in str(caught.value)
    assert str(caught.value).endswith("10.png and 3 more. Check root, split and limit")


def test_image_that_fits_two_samples_is_refused() -> None:
    with pytest.raises(DataError, match="1 images of the split match several samples; got jena/a"):
        matched({"a": ["jena/a.png"]}, ["/d/train/jena/a.png", "/d/val/jena/a.png"])


@pytest.mark.parametrize("images", [{"u": ["a.png"], "v": ["a.png"]}, {"u": ["a.png", "a.png"]}])
def test_image_named_twice_is_refused(images: dict[str, list[str]]) -> None:
    with pytest.raises(DataError, match=r"named twice; got a\.png \(u and [uv]\)"):
        matched(images, ["/d/a.png"])


# ------------------------------------------------------------------ the published splits

# Folder -> clients, images, fewest, median, most images of a client (data-notes, section 6).
TRAIN = {
    "feddrive/cityscapes/uniform": (146, 2975, 10, 15, 40),
    "feddrive/cityscapes/heterogeneous": (144, 2904, 10, 17.5, 45),
    "feddrive/cityscapes/class_imbalance": (142, 2970, 10, 15, 40),
    "ladd/crosscity/by_city_cpc0_ms27_me10": (472, 12800, 11, 27, 37),
    "ladd/mapillary/clustering": (357, 17969, 30, 32, 100),
}
TEST = {
    "feddrive/cityscapes/uniform": {"test_user": 500},
    "feddrive/cityscapes/heterogeneous": {"test_user": 500},
    "feddrive/cityscapes/class_imbalance": {"test_user": 500},
    "ladd/crosscity/by_city_cpc0_ms27_me10": {"test_user": 400},
    "ladd/mapillary/clustering": {"test_user": 2000},
}
for kind in ("uniform", "heterogeneous", "class_imbalance"):
    for setting, clients, same, other in (
        ("bus", 83, 996, 1260),
        ("country", 90, 1080, 840),
        ("rainy", 69, 828, 2100),
    ):
        folder = f"feddrive/idda/{kind}/{setting}"
        TRAIN[folder] = (clients, 48 * clients, 48, 48, 48)
        TEST[folder] = {"test_user_same_domain": same, "test_user_diff_domain": other}


def sizes(users: Users) -> dict[str, int]:
    return {user: len(pairs) for user, pairs in users.items()}


@pytest.mark.real_data
@pytest.mark.parametrize("folder", TRAIN)
def test_published_training_split(real_data: Path, folder: str) -> None:
    users = read_leaf(real_data / "splits" / folder / "train")
    counts = list(sizes(users).values())
    got = (len(counts), sum(counts), min(counts), statistics.median(counts), max(counts))
    assert got == TRAIN[folder]
    images = [image for pairs in users.values() for image, _ in pairs]
    assert len(set(images)) == len(images)
    unlabelled = sum(label is None for pairs in users.values() for _, label in pairs)
    assert unlabelled == (len(images) if "crosscity" in folder else 0)


@pytest.mark.real_data
@pytest.mark.parametrize("folder", TEST)
def test_published_test_split(real_data: Path, folder: str) -> None:
    users = read_leaf(real_data / "splits" / folder / "test")
    assert sizes(users) == TEST[folder]
    assert all(label for pairs in users.values() for _, label in pairs)


@pytest.mark.real_data
@pytest.mark.parametrize("folder", [f for f in TRAIN if "cityscapes" in f or "crosscity" in f])
def test_published_split_matches_a_data_set_that_has_its_files(
    real_data: Path, folder: str
) -> None:
    users = read_leaf(real_data / "splits" / folder / "train")
    images = [image for pairs in users.values() for image, _ in pairs]
    samples = [sample(f"/data/leftImg8bit/{image}") for image in sorted(images)]
    held = match_samples(users, samples, Path())
    assert {u: [samples[n].id for n in held[u]] for u in held} == {
        u: [f"/data/leftImg8bit/{image}" for image, _ in pairs] for u, pairs in users.items()
    }


# ------------------------------------------------------------------ writing


@pytest.mark.parametrize("labelled", [True, False])
def test_what_is_written_is_read_back(tmp_path: Path, labelled: bool) -> None:
    users: Users = {
        "käfer 1": [("a/1.png", "l/1.png" if labelled else None)],
        "b": [
            ("a/2.png", "l/2.png" if labelled else None),
            ('"3".png', "l/3" if labelled else None),
        ],
    }
    (tmp_path / "split.json").write_text(leaf_text(users))
    assert read_leaf(tmp_path / "split.json") == users
    assert len((tmp_path / "split.json").read_text().splitlines()) == 5  # a client a line
