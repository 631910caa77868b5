"""Who holds what: every sample has one client, by each kind of partition."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fleetseg.config import PartitionConfig, SourceConfig
from fleetseg.data.partition.assign import Assignment, partition
from fleetseg.data.partition.manifest import Entry, Manifest
from fleetseg.data.sample import Sample
from fleetseg.data.sources import open_source
from fleetseg.errors import ConfigError, DataError

NUM_CLASSES = 4


def drive(name: str, count: int, dataset: str = "d", **facts: str) -> list[Sample]:
    return [
        Sample(f"{dataset}/train/{name}_{i:03d}", dataset, "train", f"/d/{dataset}/{name}/{i}.png",
               "l", name, sequence=name, frame=i, **facts)
        for i in range(count)
    ]  # fmt: skip


def split(samples: Sequence[Sample], seed: int = 0, **fields: Any) -> Assignment:
    return partition(PartitionConfig(**fields), samples, histograms(samples), seed)


def histograms(samples: Sequence[Sample]) -> npt.NDArray[np.int64]:
    """Pixels per class that depend on the sample alone, not on its place."""
    rows = [
        np.random.default_rng(list(s.id.encode())).integers(0, 50, NUM_CLASSES) for s in samples
    ]
    return np.array(rows, dtype=np.int64).reshape(len(samples), NUM_CLASSES)


def sizes(held: Assignment) -> dict[str, int]:
    return {client: len(numbers) for client, numbers in held.items()}


CAMVID = [*drive("0001TP", 62, "camvid"), *drive("0006R0", 101, "camvid"),
          *drive("0016E5", 204, "camvid")]  # fmt: skip


# ------------------------------------------------------------------ what always holds


@st.composite
def fleets(draw: st.DrawFn) -> list[Sample]:
    groups = draw(
        st.dictionaries(
            st.tuples(st.sampled_from(["d", "e"]), st.sampled_from(["", "1", "2", "1-1", "x"])),
            st.integers(1, 9),
            min_size=1,
            max_size=6,
        )
    )
    assume({d for d, _ in groups} == {d for d, name in groups if name})  # some drive is known
    return [
        s
        for (dataset, name), count in groups.items()
        for s in drive(name, count, dataset, city=name[:1])
    ]


@st.composite
def partitions(draw: st.DrawFn) -> tuple[list[Sample], dict[str, Any]]:
    samples = draw(fleets())
    datasets = len({s.dataset for s in samples})
    kind = draw(st.sampled_from(["natural", "piece", "clients", "iid", "dirichlet"]))
    by = draw(st.sampled_from(["sequence", "domain", "city", "dataset"]))
    wished = draw(st.integers(1, len(samples)))
    fields: dict[str, dict[str, Any]] = {
        "natural": {"by": by},
        "piece": {"by": by, "piece": wished},
        "clients": {"by": by, "clients": max(wished, datasets)},
        "iid": {"kind": "iid", "clients": wished},
        "dirichlet": {
            "kind": "dirichlet",
            "clients": wished,
            "alpha": draw(st.sampled_from([1e-3, 0.1, 1.0, 1e3])),
            "min_size": draw(st.integers(1, max(1, len(samples) // wished))),
        },
    }
    return samples, fields[kind]


@settings(max_examples=150, deadline=None)
@given(partitions(), st.integers(0, 3))
def test_every_sample_has_one_client(case: tuple[list[Sample], dict[str, Any]], seed: int) -> None:
    samples, fields = case
    held = split(samples, seed, **fields)
    assert sorted(n for numbers in held.values() for n in numbers) == list(range(len(samples)))
    assert all(held.values())
    assert list(held) == sorted(held)
    assert len(held) == fields.get("clients", len(held))
    assert min(sizes(held).values()) >= fields.get("min_size", 1)
    assert all(type(n) is int for numbers in held.values() for n in numbers)
    for numbers in held.values():
        drives = [(samples[n].dataset, samples[n].sequence, samples[n].frame) for n in numbers]
        assert drives == sorted(drives)


@settings(max_examples=100, deadline=None)
@given(partitions(), st.integers(0, 3), st.randoms(use_true_random=False))
def test_same_clients_whatever_the_order_of_the_samples(
    case: tuple[list[Sample], dict[str, Any]], seed: int, random: Any
) -> None:
    samples, fields = case
    shuffled = random.sample(samples, len(samples))
    by_id = [
        {client: [given_[n].id for n in numbers] for client, numbers in held.items()}
        for given_ in (samples, shuffled)
        for held in (split(given_, seed, **fields),)
    ]
    assert by_id[0] == by_id[1]


@settings(max_examples=60, deadline=None)
@given(fleets(), st.integers(1, 12))
def test_pieces_of_a_group_are_contiguous_and_differ_by_one_at_most(
    samples: list[Sample], piece: int
) -> None:
    held = split(samples, piece=piece)
    of_group: dict[tuple[str, str], list[list[int]]] = {}
    for numbers in held.values():
        assert len({(samples[n].dataset, samples[n].sequence) for n in numbers}) == 1
        frames = [samples[n].frame for n in numbers]
        assert frames == list(range(frames[0], frames[0] + len(frames)))
        first = samples[numbers[0]]
        of_group.setdefault((first.dataset, first.sequence), []).append(frames)
    for pieces in of_group.values():
        counts = [len(frames) for frames in pieces]
        assert max(counts) - min(counts) <= 1
        assert len(counts) == max(1, round(sum(counts) / piece))


# ------------------------------------------------------------------ natural


def test_one_client_per_drive() -> None:
    assert sizes(split(CAMVID)) == {
        "camvid-0001TP": 62, "camvid-0006R0": 101, "camvid-0016E5": 204,
    }  # fmt: skip


def test_drives_are_cut_into_pieces_of_the_wished_size() -> None:
    assert list(sizes(split(CAMVID, piece=40)).items()) == [
        ("camvid-0001TP-1", 31), ("camvid-0001TP-2", 31),
        ("camvid-0006R0-1", 34), ("camvid-0006R0-2", 34), ("camvid-0006R0-3", 33),
        ("camvid-0016E5-1", 41), ("camvid-0016E5-2", 41), ("camvid-0016E5-3", 41),
        ("camvid-0016E5-4", 41), ("camvid-0016E5-5", 40),
    ]  # fmt: skip


def test_clients_are_given_to_drives_by_size() -> None:
    # Each further client halves the worst piece: 204 -> 102 -> 101 -> 68 -> 62 -> 51.
    assert sizes(split(CAMVID, clients=8)) == {
        "camvid-0001TP-1": 31, "camvid-0001TP-2": 31,
        "camvid-0006R0-1": 51, "camvid-0006R0-2": 50,
        "camvid-0016E5-1": 51, "camvid-0016E5-2": 51, "camvid-0016E5-3": 51, "camvid-0016E5-4": 51,
    }  # fmt: skip


def test_more_drives_than_clients_are_put_together_whole() -> None:
    lengths = [1, 3, 36, 2, 5, 9, 3, 3, 14, 1, 8, 20, 2, 6, 7]
    samples = [s for i, n in enumerate(lengths) for s in drive(f"{i:02d}", n, "idd")]
    held = split(samples, clients=4)
    assert list(held) == ["idd-01", "idd-02", "idd-03", "idd-04"]
    owners = [{client for client in held for n in held[client] if samples[n].sequence == f"{i:02d}"}
              for i in range(len(lengths))]  # fmt: skip
    assert all(len(owner) == 1 for owner in owners)
    in_order = [min(owner) for owner in owners]
    assert in_order == sorted(in_order)
    for count in sizes(held).values():
        assert abs(count - sum(lengths) / 4) <= max(lengths)


def test_data_sets_never_meet_and_share_the_clients_by_size() -> None:
    idd = [s for i in range(50) for s in drive(f"{i:02d}", 8, "idd")]
    held = split([*idd, *CAMVID], clients=8)
    assert sizes(held) == {
        "camvid-0001TP": 62, "camvid-0006R0": 101, "camvid-0016E5-1": 102, "camvid-0016E5-2": 102,
        "idd-01": 96, "idd-02": 104, "idd-03": 96, "idd-04": 104,
    }  # fmt: skip


def test_groups_by_other_facts() -> None:
    samples = [
        *drive("a", 2, city="ulm", condition="rain"),
        *drive("b", 3, city="ulm", condition="day"),
        *drive("c", 4, "e", city="ulm", condition="day"),
    ]
    assert sizes(split(samples, by="city")) == {"d-ulm": 5, "e-ulm": 4}
    assert sizes(split(samples, by="condition")) == {"d-day": 3, "d-rain": 2, "e-day": 4}
    assert sizes(split(samples, by="dataset")) == {"d": 5, "e": 4}


def test_synthetic_drives_are_called_by_city_and_condition() -> None:
    config = SourceConfig(cities=("amber",), conditions=("day", "night"), frames_per_drive=2)
    held = split(open_source(config).samples)
    assert list(held) == ["synthetic-amber-day", "synthetic-amber-night"]


def test_numbers_of_pieces_sort_as_numbers() -> None:
    held = split(drive("a", 12), clients=12)
    assert [numbers for numbers in held.values()] == [(n,) for n in range(12)]
    assert list(held)[8:11] == ["d-a-09", "d-a-10", "d-a-11"]


def test_drive_called_like_a_piece_of_another_keeps_its_samples() -> None:
    held = split([*drive("a", 4), *drive("a-1", 1)], piece=2)
    assert sizes(held) == {"d-a-1": 2, "d-a-1_": 1, "d-a-2": 2}


def test_piece_and_clients_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match=r"both set; got piece = 3, clients = 4\. Set one"):
        split(CAMVID, piece=3, clients=4)


@pytest.mark.parametrize("clients", [1, 12])
def test_impossible_number_of_clients(clients: int) -> None:
    samples = [*drive("a", 6), *drive("a", 5, "e")]
    with pytest.raises(ConfigError, match=rf"got {clients}, expected at least 2 .*d, e.*most 11"):
        split(samples, clients=clients)


# ------------------------------------------------------------------ iid


def test_iid_sizes_differ_by_one_and_seeds_differ() -> None:
    held = split(CAMVID, kind="iid", clients=10)
    assert sorted(sizes(held).values()) == [36] * 3 + [37] * 7
    assert list(held)[:2] == ["iid-01", "iid-02"]
    assert held == split(CAMVID, kind="iid", clients=10)
    assert held != split(CAMVID, 1, kind="iid", clients=10)


def test_iid_mixes_the_drives() -> None:
    held = split(CAMVID, kind="iid", clients=4)
    for numbers in held.values():
        share = np.mean([CAMVID[n].sequence == "0016E5" for n in numbers])
        assert abs(share - 204 / 367) < 0.15


@pytest.mark.parametrize("kind", ["iid", "dirichlet"])
@pytest.mark.parametrize("clients", [0, 6])
def test_drawn_partitions_need_a_possible_number_of_clients(kind: str, clients: int) -> None:
    with pytest.raises(ConfigError, match=f"clients: .*got {clients}, expected 1 to 5"):
        split(drive("a", 5), kind=kind, clients=clients)


# ------------------------------------------------------------------ dirichlet


def one_class_each(count: int) -> npt.NDArray[np.int64]:
    """Pictures that show road everywhere and, in equal numbers, one of three other classes."""
    histograms_NC = np.zeros((count, 4), dtype=np.int64)
    histograms_NC[:, 0] = 1000
    histograms_NC[np.arange(count), 1 + np.arange(count) % 3] = 50
    return histograms_NC


def skew(histograms_NC: npt.NDArray[np.int64], held: Assignment) -> float:
    """Mean total-variation distance of a client's class pixels, without road, to the fleet's."""

    def shares(numbers: Sequence[int]) -> npt.NDArray[np.float64]:
        totals_C = histograms_NC[list(numbers), 1:].sum(axis=0).astype(float)
        return totals_C / totals_C.sum()

    fleet_C = shares(range(len(histograms_NC)))
    return float(np.mean([abs(shares(n) - fleet_C).sum() / 2 for n in held.values()]))


def test_skew_grows_as_alpha_falls() -> None:
    samples, histograms_NC = drive("a", 600), one_class_each(600)
    measured = []
    for alpha in (1000.0, 1.0, 0.05):
        config = PartitionConfig(kind="dirichlet", clients=6, alpha=alpha)
        held = [partition(config, samples, histograms_NC, seed) for seed in range(5)]
        measured.append(np.mean([skew(histograms_NC, h) for h in held]))
    # The extremes: 6 clients of 100 by pure chance are off by about 0.05; one class each is 2/3.
    assert measured[0] < 0.08
    assert 0.15 < measured[1] < 0.45
    assert measured[2] > 0.45


def test_large_alpha_is_iid_in_sizes_too() -> None:
    samples = drive("a", 600)
    held = partition(
        PartitionConfig(kind="dirichlet", clients=6, alpha=1e4), samples, one_class_each(600), 0
    )
    assert all(70 <= count <= 130 for count in sizes(held).values())


def test_small_clients_are_filled_up() -> None:
    samples, histograms_NC = drive("a", 60), one_class_each(60)
    config = PartitionConfig(kind="dirichlet", clients=10, alpha=1e-3, min_size=6)
    held = partition(config, samples, histograms_NC, 0)
    assert set(sizes(held).values()) == {6}
    loose = partition(config.model_copy(update={"min_size": 1}), samples, histograms_NC, 0)
    assert min(sizes(loose).values()) == 1


def test_unlabelled_pictures_are_dealt_out_too() -> None:
    samples = drive("a", 200)
    zeros_NC = np.zeros((200, 4), dtype=np.int64)
    held = partition(PartitionConfig(kind="dirichlet", clients=4, alpha=0.01), samples, zeros_NC, 0)
    assert all(25 <= count <= 75 for count in sizes(held).values())


def test_too_few_samples_for_the_smallest_size() -> None:
    with pytest.raises(ConfigError, match="got 11, expected at least 4 x 3"):
        split(drive("a", 11), kind="dirichlet", clients=4, min_size=3)


# ------------------------------------------------------------------ split files


def leaf(path: Path, **users: list[str]) -> str:
    path.write_text(json.dumps({"user_data": {u: {"x": images} for u, images in users.items()}}))
    return str(path)


def test_split_file_names_clients_and_may_leave_samples_out(tmp_path: Path) -> None:
    samples = [*drive("a", 3), *drive("b", 2)]
    file = leaf(tmp_path / "split.json", zoe=["b/1.png", "a/2.png", "b/0.png"], amy=["a/0.png"])
    held = split(samples, kind="file", file=file)
    assert list(held.items()) == [("amy", (0,)), ("zoe", (2, 3, 4))]  # in order of time


def test_split_file_that_does_not_fit(tmp_path: Path) -> None:
    file = leaf(tmp_path / "split.json", zoe=["a/0.png", "a/7.png"])
    with pytest.raises(DataError, match=r"split\.json: 1 images .* got a/7\.png"):
        split(drive("a", 3), kind="file", file=file)


def written(path: Path, **clients: list[Sample]) -> str:
    sides = {c: tuple(Entry(s.id, "", "") for s in held) for c, held in clients.items()}
    Manifest(sides).write(path)
    return str(path)


def test_the_manifest_of_a_run_is_a_split_file_too(tmp_path: Path) -> None:
    a, b, c = drive("a", 3), drive("b", 2), drive("c", 4)
    file = written(tmp_path / "manifest.json", zoe=[b[1], a[2], b[0]], amy=a[:2], bob=c)
    held = split([*b, *a], kind="file", file=file)
    assert list(held.items()) == [("amy", (2, 3)), ("zoe", (4, 0, 1))]  # in order of time
    with pytest.raises(DataError, match="samples of 'amy' are missing"):
        split([*b, *a[1:]], kind="file", file=file)


def test_a_manifest_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    samples = drive("a", 3)
    file = written(path, amy=samples)
    path.write_text(path.read_text().replace("amy", "bob"))
    with pytest.raises(DataError, match="digest differs"):
        split(samples, kind="file", file=file)


# ------------------------------------------------------------------ real data


@pytest.mark.real_data
def test_idd_lite_drives_in_ten_clients(real_data: Path) -> None:
    config = SourceConfig(kind="idd_lite", root=str(real_data / "idd_lite"))
    samples = open_source(config).samples
    held = split(samples, clients=10)
    drives = [{samples[n].sequence for n in numbers} for numbers in held.values()]
    assert sum(map(len, drives)) == len(set.union(*drives)) == 309
    assert sum(sizes(held).values()) == 1403
    assert all(abs(count - 140.3) <= 36 for count in sizes(held).values())


@pytest.mark.real_data
def test_feddrive_split_of_a_complete_cityscapes(real_data: Path) -> None:
    folder = real_data / "splits" / "feddrive" / "cityscapes" / "heterogeneous" / "train"
    paths = sorted(
        image
        for file in folder.glob("*.json")
        for user in json.loads(file.read_text())["user_data"].values()
        for image in user["x"]
    )
    frame = drive("a", 1)[0]
    samples = [dataclasses.replace(frame, id=p, image=f"/c/leftImg8bit/{p}") for p in paths]
    held = split(samples, kind="file", file=str(folder))
    assert len(held) == 144
    assert sum(sizes(held).values()) == 2904
