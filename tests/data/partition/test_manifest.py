"""Manifests read back equal, and leaks between clients and test sets are found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetseg.config import SourceConfig
from fleetseg.data.partition.manifest import (
    Entry,
    Manifest,
    find_leaks,
    is_manifest,
    match_manifest,
    repeated_images,
    require_no_leaks,
    shared_drives,
)
from fleetseg.data.sample import Sample
from fleetseg.data.sources import open_source
from fleetseg.errors import DataError, LeakError


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def entry(name: str, image: str = "") -> Entry:
    """A sample of this name; `image` names its picture if it is not its own."""
    return Entry(f"d/train/{name}", sha(image or name), sha("label " + name))


def manifest(
    clients: dict[str, str], held_out: dict[str, str] | None = None, **evaluation: str
) -> Manifest:
    """Owners with one-letter samples: {"a": "xyz"} holds x, y and z."""

    def side(letters: dict[str, str]) -> dict[str, tuple[Entry, ...]]:
        return {owner: tuple(map(entry, names)) for owner, names in letters.items()}

    return Manifest(side(clients), side(held_out or {}), side(evaluation))


# ------------------------------------------------------------------ on disk

names = st.text(min_size=1, max_size=8)
entries = st.builds(Entry, names, st.just("") | names.map(sha), st.just("") | names.map(sha))
sides = st.dictionaries(names, st.lists(entries, max_size=3).map(tuple), max_size=3)
manifests = st.builds(Manifest, sides, sides, sides)


@given(manifests)
def test_written_manifests_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory, written: Manifest
) -> None:
    path = tmp_path_factory.mktemp("manifest") / "manifest.json"
    written.write(path)
    read = Manifest.read(path)
    assert read == written
    assert read.digest == written.digest


def test_who_is_left_out_is_written_down(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    written = manifest({"b": "z", "a": "xy"}, {"a": "v"}, val="w")
    without = replace(written, left_out=("a",))
    without.write(path)
    assert Manifest.read(path) == without
    assert without.digest != written.digest
    assert without.taking_part() == manifest({"b": "z"}, val="w")
    assert written.taking_part() == written
    assert '"left_out"' not in written._content()


@given(manifests, manifests)
def test_digests_are_equal_exactly_where_manifests_are(one: Manifest, two: Manifest) -> None:
    assert (one.digest == two.digest) == (one == two)


def test_digest_depends_on_order_of_samples_but_not_of_clients() -> None:
    first = manifest({"a": "xy", "b": "z"})
    assert manifest({"b": "z", "a": "xy"}).digest == first.digest
    assert manifest({"a": "yx", "b": "z"}).digest != first.digest


def test_file_has_one_sample_per_line_and_sorted_clients(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    written = manifest({"b": "z", "a": "xy"}, {"a": "v"}, val="w")
    written.write(path)
    x = json.dumps(["d/train/x", sha("x"), sha("label x")])
    lines = path.read_text().splitlines()
    assert lines[:4] == [
        f'{{"version": 1, "sha256": "{written.digest}",',
        '"clients": {',
        ' "a": [',
        f"  {x},",
    ]
    assert [line for line in lines if line.startswith(' "')] == [
        ' "a": [', ' "b": [', ' "a": [', ' "val": [',
    ]  # fmt: skip
    assert json.loads(path.read_text())["clients"]["b"][0][0] == "d/train/z"


def test_label_subsets_are_part_of_it_where_there_are_any(tmp_path: Path) -> None:
    path, plain = tmp_path / "manifest.json", manifest({"a": "xy"}, val="w")
    plain.write(path)
    assert "label_subsets" not in path.read_text()
    written = replace(plain, label_subsets={"b": ("road",), "a": ("car", "pole")})
    written.write(path)
    assert Manifest.read(path) == written
    assert written.digest != plain.digest
    assert [line for line in path.read_text().splitlines() if '"pole"' in line] == [
        ' "a": ["car", "pole"],'
    ]
    rest = path.read_text().partition("\n")[2]
    assert sha("{" + rest) == written.digest


def test_digest_is_that_of_the_lines_themselves(tmp_path: Path) -> None:
    # So that anybody can check it: the SHA-256 of the file with its first line replaced by "{".
    path = tmp_path / "manifest.json"
    written = manifest({"a": "xy"}, val="w")
    written.write(path)
    first, _, rest = path.read_text().partition("\n")
    assert written.digest in first
    assert sha("{" + rest) == written.digest


def edited(change: Callable[[Any], Any]) -> Callable[[str], str]:
    def edit(text: str) -> str:
        fields = json.loads(text)
        changed = change(fields)
        return json.dumps(fields if changed is None else changed)

    return edit


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda text: text[:-9], "not JSON"),
        (lambda text: "\x00" + text, "not JSON"),
        (edited(lambda f: []), "unexpected or missing keys; got list"),
        (edited(lambda f: f.pop("held_out") and None), "missing keys; got .* expected version"),
        (edited(lambda f: f.update(note="mine")), "unexpected or missing keys; got .*note"),
        (edited(lambda f: f.update(left_out=["a"])), "digest differs"),
        (edited(lambda f: f.update(left_out="a")), "left_out: not a list of names; got str"),
        (edited(lambda f: f.update(left_out=[1])), "left_out: not a list of names"),
        (edited(lambda f: f.update(version=2)), "unsupported manifest version; got 2, expected 1"),
        (edited(lambda f: f.update(sha256=7)), "digest differs"),
        (edited(lambda f: f["clients"].update(b=[])), "digest differs"),
        (edited(lambda f: f["clients"]["a"].reverse()), "digest differs"),
        (edited(lambda f: f.update(clients=[])), "clients: not a table of owners and their"),
        (edited(lambda f: f["clients"].update(b={})), r"clients\.b: not a list of samples"),
        (edited(lambda f: f["clients"]["a"].append(["x"])), r'a: not a sample; got \["x"\]'),
        (edited(lambda f: f["clients"]["a"].append("xyz")), 'not a sample; got "xyz"'),
        (edited(lambda f: f["clients"]["a"].append(["x", "", 3])), "not a sample"),
        (edited(lambda f: f["clients"]["a"].append(["x", "ABC", ""])), "not a sample"),
        (edited(lambda f: f.update(label_subsets={"a": ["car"]})), "digest differs"),
        (edited(lambda f: f.update(label_subsets=["a"])), "not a table of clients and their"),
        (edited(lambda f: f.update(label_subsets={"a": [1]})), "not a table of clients and their"),
    ],
)
def test_reading_is_strict(tmp_path: Path, change: Callable[[str], str], text: str) -> None:
    path = tmp_path / "manifest.json"
    manifest({"a": "xy"}, val="w").write(path)
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=text) as caught:
        Manifest.read(path)
    assert str(caught.value).startswith(str(path))


def test_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="manifest not found"):
        Manifest.read(tmp_path / "manifest.json")


# ------------------------------------------------------------------ leaks


def test_sides_that_share_nothing_do_not_leak() -> None:
    clean = manifest({"a": "xy", "b": "z"}, {"a": "v", "b": "u"}, val="w", night="n")
    assert find_leaks(clean) == []
    require_no_leaks(clean)


@pytest.mark.parametrize(
    ("leaky", "text"),
    [
        (manifest({"a": "xy", "b": "zx"}), "d/train/x is in client a and client b"),
        (manifest({"a": "xy"}, val="wy"), "d/train/y is in client a and evaluation set val"),
        (manifest({"a": "xy"}, {"a": "y"}), "y is in client a and the held-out set of a"),
        (manifest({"a": "x", "b": "y"}, {"b": "x"}), "x is in client a and the held-out set of b"),
        (
            manifest({"a": "x"}, {"a": "v", "b": "v"}),
            "v is in the held-out set of a and the held-out set of b",
        ),
    ],
)
def test_sample_on_two_sides_is_one_leak(leaky: Manifest, text: str) -> None:
    (leak,) = find_leaks(leaky)
    assert leak.endswith(text)


def test_sets_that_only_score_may_overlap() -> None:
    assert find_leaks(manifest({"a": "x"}, {"a": "v"}, val="vw", all="vwu")) == []


def test_client_may_hold_a_picture_twice() -> None:
    # A car that waits at a light sends the same frame again.
    still = Manifest({"a": (entry("1", "red light"), entry("2", "red light"))})
    assert find_leaks(still) == []


def test_copied_picture_under_another_name_is_a_leak() -> None:
    leaky = Manifest(
        clients={"a": (entry("1", "p"), entry("2"))}, evaluation={"val": (entry("9", "p"),)}
    )
    assert find_leaks(leaky) == [
        "d/train/9 is in client a and evaluation set val, where the same image is d/train/1"
    ]


def test_copies_are_found_even_behind_an_overlap_of_scores() -> None:
    copy = Entry("other/val/1", entry("x").image_sha256, "")
    leaky = Manifest(
        clients={"a": (copy,)}, evaluation={"one": (entry("x"),), "two": (entry("x"),)}
    )
    assert len(find_leaks(leaky)) == 2


def test_unreadable_pictures_are_not_copies_of_each_other() -> None:
    lost = Manifest({"a": (Entry("1", "", ""),), "b": (Entry("2", "", ""),)})
    assert find_leaks(lost) == []


def test_equal_images_of_two_clients_are_told_and_no_leak() -> None:
    black = Manifest({"a": (entry("1", "b"), entry("2")), "b": (entry("3", "b"), entry("4"))})
    assert find_leaks(black) == []
    assert repeated_images(black) == [
        "1 image that vehicles share, byte for byte: d/train/1 (a) and d/train/3 (b)"
    ]


def test_equal_images_within_a_client_are_told() -> None:
    still = Manifest({"a": (entry("1", "p"), entry("2", "p"), entry("3", "q"), entry("4", "q"))})
    (note,) = repeated_images(still)
    assert note.startswith("2 images that one vehicle has more than once, byte for byte: d/train/1")


def test_held_out_sets_may_have_equal_images() -> None:
    built = Manifest({}, {"a": (entry("1", "p"),), "b": (entry("2", "p"),)})
    assert find_leaks(built) == repeated_images(built) == []


def test_equal_images_are_leaks_where_one_is_scored() -> None:
    built = Manifest({"a": (entry("1", "p"),)}, {"b": (entry("2", "p"),)})
    assert len(find_leaks(built)) == 1
    assert len(find_leaks(Manifest({"a": (entry("1", "p"),)}, {"a": (entry("2", "p"),)}))) == 1


def test_ids_are_equal_whatever_their_unicode_form() -> None:
    built = Manifest(
        {"a": (Entry("d/train/\u00fc", "", ""),)}, {"b": (Entry("d/train/u\u0308", "", ""),)}
    )
    assert len(find_leaks(built)) == 1


def test_samples_are_found_whatever_their_unicode_form() -> None:
    listed = Manifest({"a": (Entry("d/train/u\u0308", "", ""),)})
    assert match_manifest(listed, held("\u00fc"), HERE) == {"a": (0,)}


def test_manifest_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    SPLIT.write(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert is_manifest(path)
    assert Manifest.read(path) == SPLIT
    path.write_text(path.read_text(encoding="utf-8-sig"), encoding="utf-16")
    with pytest.raises(DataError, match="UTF-16 or UTF-32: save it as UTF-8"):
        Manifest.read(path)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 6)), max_size=8))
def test_leaks_are_found_exactly_where_two_sides_meet(rows: list[tuple[int, int, int]]) -> None:
    # Owners 0-2 train, 3 is the held-out set of client 0, 4 an evaluation set.
    owned: dict[int, list[Entry]] = {owner: [] for owner in range(5)}
    for owner, name, picture in rows:
        owned[owner].append(Entry(f"{name}", sha(f"{picture}"), ""))
    built = Manifest(
        clients={f"{k}": tuple(owned[k]) for k in range(3)},
        held_out={"0": tuple(owned[3])},
        evaluation={"val": tuple(owned[4])},
    )
    # Equal images of two clients are told by `repeated_images`, and no leak.
    expected = any(
        one.id == two.id or (other > 2 and one.image_sha256 == two.image_sha256)
        for trainer in range(3)
        for other in range(5)
        if other != trainer
        for one in owned[trainer]
        for two in owned[other]
    )
    assert bool(find_leaks(built)) == expected


def test_refusal_lists_the_first_ten_and_the_count() -> None:
    letters = "abcdefghijkl"
    with pytest.raises(LeakError, match=r"^12 samples are on two sides") as caught:
        require_no_leaks(manifest({"one": letters, "two": letters}))
    listed = [
        line for line in str(caught.value).splitlines() if "client one and client two" in line
    ]
    assert len(listed) == 10
    assert "d/train/a is" in listed[0]


# ------------------------------------------------------------------ as a split file


def held(letters: str) -> list[Sample]:
    return [Sample(f"d/train/{name}", "d", "train", "", None, "") for name in letters]


SPLIT = manifest({"a": "xy", "b": "z", "c": "pq"}, {"a": "v", "b": "u"}, val="w")
HERE = Path("manifest.json")


def test_every_client_has_its_samples_and_the_held_out_ones() -> None:
    assert match_manifest(SPLIT, held("zyxvupqw"), HERE) == {
        "a": (2, 1, 3),
        "b": (0, 4),
        "c": (5, 6),
    }


def test_a_vehicle_has_its_own_samples_only() -> None:
    assert match_manifest(SPLIT, held("xyv"), HERE) == {"a": (0, 1, 2)}
    assert match_manifest(SPLIT, held("uxyzv"), HERE) == {"a": (1, 2, 4), "b": (3, 0)}


@pytest.mark.parametrize(("letters", "missing"), [("xyzu", "v"), ("xv", "y"), ("xyvz", "u")])
def test_a_client_without_some_of_its_samples_is_refused(letters: str, missing: str) -> None:
    with pytest.raises(
        DataError, match=rf"are missing from the data; got d/train/{missing}\."
    ) as e:
        match_manifest(SPLIT, held(letters), HERE)
    assert e.value.where == "manifest.json"


def test_a_manifest_of_other_data_is_refused() -> None:
    for letters in ("", "mno", "w"):  # w is the server's
        with pytest.raises(DataError, match="no sample of this manifest is in the data"):
            match_manifest(SPLIT, held(letters), HERE)


@given(
    st.lists(st.sampled_from("abc"), min_size=6, max_size=6),
    st.lists(st.booleans(), min_size=6, max_size=6),
    st.permutations(range(6)),
)
def test_whoever_is_held_is_held_whole(
    owners: list[str], out: list[bool], order: list[int]
) -> None:
    sides: list[dict[str, str]] = [{}, {}]
    for letter, owner, held_out in zip("uvwxyz", owners, out, strict=True):
        sides[held_out][owner] = sides[held_out].get(owner, "") + letter
    split = manifest({owner: sides[0].get(owner, "") for owner in "abc"}, sides[1])
    samples = held("".join("uvwxyz"[k] for k in order))
    found = match_manifest(split, samples, HERE)
    numbers = [n for client in found.values() for n in client]
    assert sorted(numbers) == list(range(6))
    for client, own in found.items():
        assert {owners["uvwxyz".index(samples[n].id[-1])] for n in own} == {client}


def test_manifests_are_told_from_other_split_files(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    assert not is_manifest(path)
    assert not is_manifest(tmp_path)
    SPLIT.write(path)
    assert is_manifest(path)
    for content in (b'{"user_data": {}}', b"", b"\xff\xfe\x00", b'{"users": "' + b"x" * 9999):
        path.write_bytes(content)
        assert not is_manifest(path)


# ------------------------------------------------------------------ drives on both sides


def frame(sequence: str, number: int, city: str = "c", dataset: str = "d") -> Sample:
    return Sample(f"{number}", dataset, "train", "", None, "", city, sequence, number)


def test_shared_drives_are_told_with_the_number_of_frames() -> None:
    train = [frame("one", 1), frame("two", 2)]
    test = [frame("two", 3), frame("two", 4), frame("three", 5)]
    assert shared_drives(train, test) == [
        "drive two of d is in training and in evaluation (2 frames): scores on it are optimistic"
    ]


def test_equal_names_of_other_cities_or_data_sets_and_unknown_drives_are_not_shared() -> None:
    train = [frame("1", 1), frame("", 2)]
    test = [frame("1", 3, city="other"), frame("1", 4, dataset="other"), frame("", 5)]
    assert shared_drives(train, test) == []


@pytest.mark.real_data
def test_camvid_val_shares_a_drive_with_train(real_data: Path) -> None:
    train, val = (
        open_source(SourceConfig(kind="camvid", root=str(real_data / "camvid"), split=split))
        for split in ("train", "val")
    )
    (warning,) = shared_drives(train.samples, val.samples)
    assert warning.startswith("drive 0016E5 of camvid is in training and in evaluation (101 frames")
