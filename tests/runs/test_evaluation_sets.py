"""`fleetseg evaluate --experiment` opens what is scored, and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fleetseg import rng
from fleetseg.clients import open_fleet_data
from fleetseg.config import Experiment
from fleetseg.data.sample import ScoredPairs
from fleetseg.data.sources import reading
from fleetseg.data.store import digests
from fleetseg.data.store.store import Picked
from fleetseg.errors import DataError
from fleetseg.runs.baselines import test_sets as sets_of
from fleetseg.runs.evaluation_sets import open_test_sets

DRIVES = ("north", "south", "west")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight frames of each of three drives, larger than the working size."""
    monkeypatch.setattr(digests, "RACY_NS", 0)
    folder, generator = tmp_path / "mine", rng.generator(0, purpose="pictures")
    for side in ("images", "masks"):
        for drive in DRIVES:
            (folder / side / drive).mkdir(parents=True)
    (folder / "classes.toml").write_text('space = "camvid11"')
    for number in range(24):
        name = f"{DRIVES[number % 3]}/{number // 3:04d}.png"
        image_HWC = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        label_HW = np.full((12, 16), number % 11, np.uint8)
        Image.fromarray(image_HWC).save(folder / "images" / name)
        Image.fromarray(label_HW).save(folder / "masks" / name)
    return folder


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The side and name of each file that is decoded."""
    names: list[str] = []
    real = reading._decode

    def noting(path: str, *args: Any) -> Any:
        names.append("/".join(Path(path).parts[-3:]))
        return real(path, *args)

    monkeypatch.setattr(reading, "_decode", noting)
    return names


def experiment(root: Path, **sections: Any) -> Experiment:
    data = {
        "size": [6, 8],
        "cache": str(root.parent / "cache"),
        "sources": [{"kind": "folder", "root": str(root)}],
    }
    partition = {"kind": "natural", "by": "domain", "holdout": 0.25}
    return Experiment.model_validate({"data": data, "partition": partition, **sections})


def content(scored: ScoredPairs) -> list[tuple[str, str, bytes, bytes]]:
    assert isinstance(scored.pairs, Picked)
    rows = [
        (sample.id, domain, scored.pairs[i][0].tobytes(), scored.pairs[i][1].tobytes())
        for i, (sample, domain) in enumerate(zip(scored.pairs.samples, scored.domains, strict=True))
    ]
    return sorted(rows)


def all_content(of: Experiment) -> list[tuple[str, str, bytes, bytes]]:
    """What a run holds out, as all its data give it."""
    fleet_data = open_fleet_data(of)
    rows = [row for client in fleet_data.clients.values() for row in content(client.test)]
    assert sum(len(part.scored) for part in sets_of(fleet_data)) == len(rows)
    return sorted(rows)


PARTITIONS: list[dict[str, Any]] = [
    {"kind": "natural", "by": "domain", "holdout": 0.25},
    {"kind": "iid", "clients": 4, "holdout": 0.3, "holdout_gap": 0},
    {"kind": "dirichlet", "clients": 3, "alpha": 0.5, "holdout": 0.25},
]


@pytest.mark.parametrize("partition", PARTITIONS, ids=lambda p: str(p["kind"]))
def test_held_out_frames_are_those_of_the_run_and_only_they_are_decoded(
    root: Path, decoded: list[str], partition: dict[str, Any]
) -> None:
    of = experiment(root, partition=partition)
    ((scored,), bad) = open_test_sets(of, (6, 8))
    assert bad == ()
    images = [name for name in decoded if name.startswith("images/")]
    masks = {name for name in decoded if name.startswith("masks/")}
    held_out = {f"images/{row[0].split('/', 2)[2]}.png" for row in content(scored.scored)}
    assert set(images) == held_out
    assert len(images) == len(held_out) < 12
    assert len(masks) == (24 if partition["kind"] == "dirichlet" else len(images))
    elsewhere = of.data.model_copy(update={"cache": str(root.parent / "other")})
    assert content(scored.scored) == all_content(of.model_copy(update={"data": elsewhere}))


@pytest.mark.parametrize("partition", PARTITIONS, ids=lambda p: str(p["kind"]))
def test_what_a_run_decoded_on_this_machine_is_not_decoded_again(
    root: Path, decoded: list[str], partition: dict[str, Any]
) -> None:
    of = experiment(root, partition=partition)
    expected = all_content(of)
    decoded.clear()
    ((scored,), _) = open_test_sets(of, (6, 8))
    assert content(scored.scored) == expected
    assert decoded == []


@pytest.mark.parametrize("store", ["decoded", "files"])
def test_a_source_s_images_are_looked_at_once_whatever_labels_are_wanted(
    root: Path, decoded: list[str], store: str
) -> None:
    """To train on, to score held-out frames at their own size, and in another label space."""
    of = experiment(root)
    for label_space in ("camvid11", "idd7"):
        update = {"label_space": label_space, "store": store}
        open_fleet_data(of.model_copy(update={"data": of.data.model_copy(update=update)}))
    images = [name for name in decoded if name.startswith("images/")]
    assert (len(images), len(set(images))) == (24, 24)
    cache = root.parent / "cache"
    assert len(list(cache.glob(f"*-{'images' if store == 'decoded' else 'files'}-*"))) == 1
    assert len(list(cache.glob("*-labels-*"))) == 4


def test_held_out_frames_may_stay_in_their_files(root: Path) -> None:
    of = experiment(root, partition=PARTITIONS[2])
    in_files = of.data.model_copy(update={"store": "files", "cache": str(root.parent / "other")})
    ((scored,), _) = open_test_sets(of.model_copy(update={"data": in_files}), (6, 8))
    assert not any(f.stat().st_size > 1 for f in (root.parent / "other").rglob("images.u8"))
    assert content(scored.scored) == all_content(of)


def test_the_servers_sets_need_no_training_data(root: Path, decoded: list[str]) -> None:
    tested = experiment(root).data.model_dump() | {
        "sources": [{"kind": "camvid", "root": str(root / "nowhere")}],
        "evaluation": [{"kind": "folder", "root": str(root), "limit": 4}],
    }
    ((scored,), _) = open_test_sets(experiment(root, data=tested), (6, 8))
    assert len(scored.scored) == 4
    assert len([name for name in decoded if name.startswith("images/")]) == 4


def test_a_damaged_picture_changes_nobodys_part(root: Path) -> None:
    """Who holds what must not hang on pixels that are not read here."""
    path = root / "images" / "north" / "0001.png"
    path.write_bytes(path.read_bytes()[:-100])
    of = experiment(root, partition=PARTITIONS[2], data=experiment(root).data.model_dump())
    ((scored,), _) = open_test_sets(of, (6, 8))
    elsewhere = of.data.model_copy(update={"cache": str(root.parent / "other"), "max_bad_share": 1})
    assert content(scored.scored) == all_content(of.model_copy(update={"data": elsewhere}))


def test_bad_frames_among_the_held_out_ones_are_told(root: Path) -> None:
    for path in (root / "images" / "north").iterdir():
        path.write_bytes(b"not a picture")
    ((scored,), bad) = open_test_sets(experiment(root), (6, 8))
    assert len(bad) == 2
    assert set(scored.scored.domains) == {"south", "west"}
    for drive in DRIVES[1:]:
        for path in (root / "images" / drive).iterdir():
            path.write_bytes(b"not a picture")
    with pytest.raises(DataError, match="no usable labelled frame is held out"):
        open_test_sets(experiment(root), (6, 8))
