"""Held-out frames: the end of every drive, with a gap that nobody trains on."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetseg.config import PartitionConfig, SourceConfig
from fleetseg.data.partition.assign import partition
from fleetseg.data.partition.holdout import Split, hold_out
from fleetseg.data.partition.manifest import Entry, Manifest
from fleetseg.data.sample import Sample
from fleetseg.data.sources import open_source


def drive(name: str, frames: int, dataset: str = "set") -> list[Sample]:
    return [
        Sample(f"{dataset}/train/{name}/{i}", dataset, "train", "", "", dataset, "", name, i)
        for i in range(frames)
    ]


def split(held: dict[str, list[int]], samples: list[Sample], share: float, gap: int = 0):
    return hold_out(held, samples, PartitionConfig(holdout=share, holdout_gap=gap))


@pytest.mark.parametrize(
    ("count", "share", "held_out"),
    [(10, 0.1, 1), (10, 0.25, 2), (41, 0.1, 4), (3, 0.01, 1), (2, 0.9, 1), (1, 0.5, 0), (0, 0.5, 0),
     (10, 0.0, 0)],
)  # fmt: skip
def test_the_last_frames_of_a_drive_are_held_out(count: int, share: float, held_out: int) -> None:
    numbers = list(range(count))
    part = split({"car": numbers}, drive("a", count), share)["car"]
    assert (*part.train, *part.test) == tuple(numbers)
    assert len(part.test) == held_out


def test_every_drive_of_every_data_set_gives_its_share() -> None:
    """The end of (data set, drive) order is one data set only: it says nothing of the other."""
    samples = drive("a", 20, "camvid") + drive("b", 10, "camvid") + drive("a", 40, "idd_lite")
    part = split({"iid-1": list(range(70))}, samples, 0.1)["iid-1"]
    assert part.test == (18, 19, 29, 66, 67, 68, 69)


def test_many_short_drives_give_their_share_together() -> None:
    samples = [s for i in range(50) for s in drive(f"d{i:02d}", 4)]
    part = split({"car": list(range(200))}, samples, 0.1)["car"]
    assert len(part.test) == 20
    assert len({samples[n].sequence for n in part.test}) == 20


def test_frames_beside_held_out_ones_are_trained_on_by_nobody() -> None:
    """A drive cut over two vehicles: the second one starts beside the first one's held-out end."""
    held = {"car-1": list(range(10)), "car-2": list(range(10, 20))}
    parts = split(held, drive("a", 20), 0.2, gap=2)
    assert parts["car-1"] == Split(tuple(range(6)), (8, 9), (6, 7))
    assert parts["car-2"] == Split((12, 13, 14, 15), (18, 19), (10, 11, 16, 17))


def test_a_small_client_keeps_one_frame_to_train_on() -> None:
    assert split({"car": [0, 1]}, drive("a", 2), 0.5, gap=5)["car"] == Split((0,), (1,))


@given(
    drives=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    clients=st.integers(1, 4),
    share=st.floats(0.0, 0.9),
    gap=st.integers(0, 3),
)
def test_nothing_is_lost_and_sides_are_apart(
    drives: list[int], clients: int, share: float, gap: int
) -> None:
    samples = [s for i, n in enumerate(drives) for s in drive(f"d{i}", n)]
    held = {f"car-{k}": list(range(k, len(samples), clients)) for k in range(clients)}
    parts = split(held, samples, share, gap)
    for client, part in parts.items():
        assert sorted((*part.train, *part.test, *part.gap)) == held[client]
        assert part.train or not held[client]
        if share == 0 or len(held[client]) < 2:
            assert part.test == ()
        else:
            wanted = min(max(1, round(share * len(held[client]))), len(held[client]) - 1)
            assert len(part.test) == wanted
    tests = [samples[n] for part in parts.values() for n in part.test]
    for part in parts.values():
        for s in [samples[n] for n in part.train] if len(part.train) > 1 else []:
            near = [t for t in tests if t.sequence == s.sequence and abs(t.frame - s.frame) <= gap]
            assert not near


def test_a_manifest_says_itself_what_is_held_out(tmp_path: Path) -> None:
    samples = drive("a", 4)
    entries = [Entry(s.id, "", "") for s in samples]
    path = tmp_path / "manifest.json"
    Manifest({"car": tuple(entries[1:])}, {"car": (entries[0],)}).write(path)
    config = PartitionConfig(kind="file", file=str(path), holdout=0.5)
    parts = hold_out({"car": (0, 1, 2, 3)}, samples, config)
    assert parts == {"car": Split((1, 2, 3), (0,))}


@pytest.mark.real_data
def test_two_countries_hold_out_frames_of_both(real_data: Path) -> None:
    samples = [
        sample
        for kind in ("camvid", "idd_lite")
        for sample in open_source(SourceConfig(kind=kind, root=str(real_data / kind))).samples
    ]
    import numpy as np

    config = PartitionConfig(kind="iid", clients=12, holdout=0.1)
    held = partition(config, samples, np.zeros((len(samples), 7), np.int64), seed=0)
    tests = [samples[n] for part in hold_out(held, samples, config).values() for n in part.test]
    by_set = {k: sum(s.dataset == k for s in tests) for k in ("camvid", "idd_lite")}
    assert abs(by_set["camvid"] - 37) <= 12
    assert abs(by_set["idd_lite"] - 140) <= 12


class Compared(int):
    """A number that counts how often it is compared."""

    comparisons = 0

    def __eq__(self, other: object) -> bool:
        Compared.comparisons += 1
        return super().__eq__(other)

    __hash__ = int.__hash__


def test_the_work_grows_with_the_frames_of_a_client_not_with_their_square() -> None:
    frames = [Sample(f"t/{i}", "t", "train", "", "", "d", frame=i) for i in range(1000)]
    config = PartitionConfig(holdout=0.3, holdout_gap=3)
    Compared.comparisons = 0
    split = hold_out({"a": [Compared(i) for i in range(1000)]}, frames, config)["a"]
    assert (len(split.train), len(split.gap), len(split.test)) == (697, 3, 300)
    assert Compared.comparisons < 20_000
