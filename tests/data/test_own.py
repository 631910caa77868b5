"""Own collections of samples: the same pairs from each kind, and wrong samples named."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset

from fleetseg.data.labels import LabelSpace
from fleetseg.data.own import OwnPairs, look_over, named, notes_on, pairs_of
from fleetseg.data.store.decoding import resized_image, resized_label
from fleetseg.errors import ConfigError, DataError

SPACE = LabelSpace("two", ("dark", "bright"), ((0, 0, 0), (255, 255, 255)), ("bright",))
SIZE = (8, 10)


def drive(count: int = 3, height: int = 8, width: int = 10) -> list[tuple[Any, Any]]:
    generator = np.random.Generator(np.random.Philox(count))
    images = generator.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return [(image, (image[..., 0] > 127).astype(np.uint8)) for image in images]


def opened(samples: Any, *, native_labels: bool = False) -> OwnPairs:
    looked = look_over(samples, "vehicle 'a'", SPACE, SIZE)
    return pairs_of(samples, "vehicle 'a'", SPACE, SIZE, looked, native_labels=native_labels)


def remarks(samples: Any) -> list[str]:
    return list(notes_on(look_over(samples, "vehicle 'a'", SPACE, SIZE), "vehicle 'a'", SIZE))


class Tensors(Dataset[Any]):
    """A map-style data set as torchvision's are."""

    def __init__(self, samples: list[tuple[Any, Any]]) -> None:
        self.samples = samples
        self.reads = 0

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        image_HWC, label_HW = self.samples[index]
        return torch.from_numpy(image_HWC).permute(2, 0, 1) / 255, torch.from_numpy(label_HW).long()


class Named(Tensors):
    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)
        return {"image": image, "mask": label, "id": index}


@pytest.mark.parametrize(
    "wrap",
    [
        list,
        tuple,
        Tensors,
        Named,
        lambda s: Subset(Tensors(s), range(len(s))),
        lambda s: ConcatDataset([Tensors(s[:1]), Tensors(s[1:])]),
        lambda s: [list(pair) for pair in s],
        lambda s: [{"img": image, "target": label} for image, label in s],
    ],
)
def test_every_kind_of_collection_gives_the_same_pairs(wrap: Any) -> None:
    pairs = opened(wrap(drive()))
    assert len(pairs) == 3
    for (image_HWC, label_HW), (expected_HWC, expected_HW) in zip(
        (pairs[i] for i in range(3)), drive(), strict=True
    ):
        np.testing.assert_array_equal(image_HWC, expected_HWC)
        np.testing.assert_array_equal(label_HW, expected_HW)


def test_samples_are_read_when_they_are_asked_for_and_not_kept() -> None:
    samples = Tensors(drive())
    pairs = opened(samples)
    assert samples.reads == 4  # each once, and the first once more
    _ = pairs[1], pairs[1]
    assert samples.reads == 6
    arrays = drive()
    assert np.shares_memory(opened(arrays)[0][0], arrays[0][0])


def test_images_and_labels_come_at_working_size_and_labels_to_score_at_their_own() -> None:
    ((image_HWC, label_HW),) = samples = drive(1, 31, 17)
    for native in (False, True):
        got_HWC, got_HW = opened(samples, native_labels=native)[0]
        np.testing.assert_array_equal(got_HWC, resized_image(image_HWC, SIZE))
        np.testing.assert_array_equal(got_HW, label_HW if native else resized_label(label_HW, SIZE))
    (note,) = remarks(samples)
    assert "vehicle 'a': images are resized to data.size, 10x8 from 17x31; that changes" in note
    assert "that changes" not in remarks(drive(1, 16, 20))[0]


def test_counts_are_those_of_the_labels() -> None:
    samples = drive(2, 16, 20)
    looked = look_over(samples, "vehicle 'a'", SPACE, SIZE)
    small = np.stack([resized_label(label, SIZE) for _, label in samples])
    assert looked.histogram_C.tolist() == [(small == 0).sum(), (small == 1).sum()]
    assert looked.native_pixels == 2 * 16 * 20


def test_a_sample_without_a_labelled_pixel_is_left_out_and_told() -> None:
    samples = drive(3)
    samples[1] = (samples[1][0], np.full((8, 10), 255, np.uint8))
    pairs = opened(samples)
    assert len(pairs) == 2
    np.testing.assert_array_equal(pairs[1][0], samples[2][0])
    assert remarks(samples) == [
        "bad sample skipped: vehicle 'a', sample 1: every pixel of the label is void"
    ]


def scaled(image: np.ndarray, factor: float) -> np.ndarray:
    return image.astype(np.float32) * np.float32(factor)


def test_floating_point_images_of_one_collection_go_to_1_or_all_to_255() -> None:
    plain = drive()
    for factor in (1, 1 / 255):
        pairs = opened([(scaled(image, factor), label) for image, label in plain])
        for index, (image, _) in enumerate(plain):
            np.testing.assert_array_equal(pairs[index][0], image)
    (first, label), (second, _), _ = plain
    black = np.zeros_like(first)
    opened([(scaled(first, 1), label), (scaled(black, 1), label)])  # black is black in either
    with pytest.raises(DataError, match="two ranges; got sample 1 is at most 1, sample 0"):
        look_over([(scaled(first, 1), label), (scaled(second, 1 / 255), label)], "b", SPACE, SIZE)
    with pytest.raises(DataError, match=r"sample 0: .*neither in \[0, 1\] nor in \[0, 255\]"):
        look_over([(scaled(first, 1.5 / 255), label)], "b", SPACE, SIZE)


def test_suspicious_collections_are_told_of() -> None:
    class Random(Tensors):
        def __getitem__(self, index: int) -> Any:
            image, label = super().__getitem__(index)
            return image * (0.5 + 0.1 * (self.reads % 5)), label

    assert "differs each time" in remarks(Random(drive()))[0]
    (dark,) = remarks([((image > 127).astype(np.uint8), label) for image, label in drive()])
    assert "no image has a value above 1" in dark
    (sentinel,) = remarks([(image, label * 255) for image, label in drive()])
    assert "only 0 and 255, which is void; if 255 means" in sentinel
    assert remarks(drive()) == []


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(drive())

    def __len__(self) -> int:
        return 3


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (DataLoader(Tensors(drive())), "loader.dataset"),
        (Stream(), "list(samples)"),
        (iter(drive()), "list(samples)"),
        ((pair for pair in drive()), "list(samples)"),
        (dict(enumerate(drive())), "list(samples.values())"),
        ("drives/one", "kind = 'folder'"),
        (Path("drives/one"), "kind = 'folder'"),
        (None, "not a collection of samples; got NoneType"),
        (7, "not a collection of samples; got int"),
        ([], "there are no samples"),
        (np.zeros((3, 8, 10, 3), np.uint8), "list(zip(images, labels))"),
        ((np.zeros((2, 8, 10, 3)), np.zeros((2, 8, 10))), "list(zip(images, labels))"),
        ([drive()[0] + ("name",)], "sample 0: not a pair of image and label; got 3 parts"),
        ([{"image": 1, "depth": 2}], "got keys ['depth', 'image']"),
        ([{"image": 1, "label": 2, "mask": 3}], "image and label cannot be told apart"),
        (["a.png"], "not a pair of image and label; got str"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_collection_of_pairs_is_refused(samples: Any, words: str) -> None:
    with pytest.raises(DataError) as refused:
        look_over(samples, "vehicle 'a'", SPACE, SIZE)
    assert str(refused.value).startswith("vehicle 'a'")
    assert words in str(refused.value)


def test_what_a_data_set_raises_comes_with_the_sample_it_was_raised_for() -> None:
    class Broken(Tensors):
        def __getitem__(self, index: int) -> Any:
            if index == 2:
                raise OSError("disk gone")
            return super().__getitem__(index)

    with pytest.raises(DataError, match=r"vehicle 'a', sample 2: .*OSError: disk gone"):
        look_over(Broken(drive()), "vehicle 'a'", SPACE, SIZE)


def test_a_length_that_cannot_be_told_is_the_data_sets_fault() -> None:
    class Endless(Tensors):
        def __len__(self) -> int:
            return -1

    with pytest.raises(DataError, match=r"vehicle 'a': cannot determine its length \(ValueError"):
        look_over(Endless(drive()), "vehicle 'a'", SPACE, SIZE)


def test_a_wrong_sample_is_named_wherever_it_is() -> None:
    samples = drive(5)
    samples[4] = (samples[4][0], samples[4][1] * 3)
    with pytest.raises(DataError, match=r"vehicle 'a', sample 4: label ids outside.*got 3 \("):
        look_over(samples, "vehicle 'a'", SPACE, SIZE)


def test_names_may_be_numbers() -> None:
    assert list(named({0: 1, np.int64(7): 2, "x": 3}, "vehicle", "clients")) == ["0", "7", "x"]


@pytest.mark.parametrize(
    ("collections", "words"),
    [
        ({0: 1, "0": 2}, "duplicate name"),
        ({"caf\u00e9": 1, "cafe\u0301": 2}, "duplicate name"),
        ({"": 1}, "unusable name of a vehicle"),
        ({"a\n": 1}, "unusable name"),
        ({(1, 2): 1}, r"got \(1, 2\)"),
        ({True: 1}, "got True"),
        ([1, 2], r"clients= takes a mapping.*dict\(enumerate"),
    ],
)
def test_unusable_names_are_refused(collections: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        named(collections, "vehicle", "clients")


class OneReader:
    """A collection that fails if it is asked for a sample while it reads another one."""

    def __init__(self) -> None:
        self.reading = False

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        assert not self.reading
        self.reading = True
        time.sleep(0.002)
        self.reading = False
        return np.zeros((*SIZE, 3), np.uint8), np.zeros(SIZE, np.uint8)


def test_several_threads_ask_for_one_sample_at_a_time() -> None:
    pairs = opened(OneReader())
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(pairs.__getitem__, [0, 1, 2, 3] * 4))) == 16


def test_pairs_cross_to_another_process() -> None:
    pairs = opened([(np.zeros((*SIZE, 3), np.uint8), np.zeros(SIZE, np.uint8))])
    there = ForkingPickler.loads(ForkingPickler.dumps(pairs))
    assert (there.numbers, there.size_hw, there.owner) == (
        pairs.numbers,
        pairs.size_hw,
        pairs.owner,
    )
    assert np.array_equal(there[0][0], pairs[0][0])
