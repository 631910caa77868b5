"""From an experiment to clients: who trains on what, and what is scored where."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.experiments import tiny_experiment

import fleetseg
from fleetseg import clients as clients_module
from fleetseg.clients import FleetData, open_fleet_data
from fleetseg.config import Experiment, SourceConfig
from fleetseg.data import pool as pool_module
from fleetseg.data.labels import ERASED, IGNORE
from fleetseg.data.sample import Sample
from fleetseg.runs.baselines import centralised, local_only


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def two_sources(cache: Path, clients: int) -> Experiment:
    """Painted streets of two sources that interleave in every client."""
    sources = [
        {"cities": [city], "conditions": ["day"], "frames_per_drive": 6, "seed": seed}
        for city, seed in (("amber", 1), ("birch", 2))
    ]
    return tiny_experiment(
        cache,
        data={"sources": sources, "evaluation": []},
        partition={"kind": "iid", "clients": clients, "holdout": 0.34, "holdout_gap": 0},
        evaluation={"by": "city", "on_clients": True},
    )


def test_scores_go_to_the_domain_of_their_frame(cache: Path) -> None:
    fleet_data = open_fleet_data(two_sources(cache, clients=2))
    city_of = {}
    for city in ("amber", "birch"):
        one = two_sources(cache, clients=1).data.sources[city == "birch"]
        alone = tiny_experiment(cache, data={"sources": [one.model_dump()]})
        for client in open_fleet_data(alone).clients.values():
            for image_HWC, _ in (client.train[i] for i in range(len(client.train))):
                city_of[image_HWC.tobytes()] = city
    for client in fleet_data.clients.values():
        scored = client.test
        truth = [city_of[scored.pairs[i][0].tobytes()] for i in range(len(scored))]
        assert list(scored.domains) == truth
        assert set(truth) == {"amber", "birch"}


def test_a_client_of_one_frame_is_not_scored_on_what_it_trains_on(cache: Path) -> None:
    """A vehicle that cannot hold a frame out has no test set, and that is told."""
    experiment = tiny_experiment(
        cache,
        data={"sources": [{"cities": ["amber"], "conditions": ["day"], "frames_per_drive": 3}]},
        partition={"kind": "natural", "clients": 3, "holdout": 0.5},
    )
    fleet_data = open_fleet_data(experiment)
    assert [len(c.test) for c in fleet_data.clients.values()] == [0, 0, 0]
    assert not fleet_data.holds_out
    two = experiment.model_copy(
        update={"partition": experiment.partition.model_copy(update={"clients": 2})}
    )
    fleet_data = open_fleet_data(two)
    assert sorted(len(c.test) for c in fleet_data.clients.values()) == [0, 1]
    assert any("too few frames to hold any out" in note for note in fleet_data.notes)


def scored(fleet_data: FleetData) -> int:
    return sum(len(part.scored) for part in fleet_data.evaluation)


def test_baselines_without_test_frames_have_no_scores(cache: Path, tmp_path: Path) -> None:
    """Their own training frames are no test set."""
    experiment = tiny_experiment(cache, data={"evaluation": []}, federation={"rounds": 1})
    fleet_data = open_fleet_data(experiment)
    assert scored(centralised(experiment, fleet_data)[1]) == 0
    assert all(scored(own) == 0 for _, _, own in local_only(experiment, fleet_data))
    run = fleetseg.run(experiment, out=tmp_path / "run", baseline="centralised")
    assert run.scores is None
    assert run.miou is None


def test_baselines_are_scored_on_what_the_fleet_holds_out(cache: Path) -> None:
    experiment = two_sources(cache, clients=2)
    fleet_data = open_fleet_data(experiment)
    held_out = sum(len(client.test) for client in fleet_data.clients.values())
    assert held_out > 0
    assert scored(centralised(experiment, fleet_data)[1]) == held_out
    assert {scored(own) for _, _, own in local_only(experiment, fleet_data)} == {held_out}


def test_scores_on_training_frames_say_so(cache: Path, tmp_path: Path) -> None:
    experiment = tiny_experiment(
        cache, federation={"rounds": 1}, evaluation={"on_clients": True, "every": 0}
    )
    run = fleetseg.run(experiment, out=tmp_path / "run")
    assert run.scores.to_dict()["by_client_on"] == "training frames"
    assert not run.records[-1].scored.by_client, "the committed record is left as it was"


def test_drives_on_both_sides_are_told(cache: Path) -> None:
    fleet_data = open_fleet_data(two_sources(cache, clients=2))
    told = [note for note in fleet_data.notes if "in training and in evaluation" in note]
    assert len(told) == 2
    assert all("scores on it are optimistic" in note for note in told)


def test_confusion_matrices_of_clients_pool_to_the_fleet_s(cache: Path, tmp_path: Path) -> None:
    experiment = two_sources(cache, clients=2)
    run = fleetseg.run(experiment, out=tmp_path / "run")
    by_client = [np.array(s["confusion"]) for s in run.scores.to_dict()["by_client"].values()]
    by_domain = [np.array(s["confusion"]) for s in run.scores.to_dict()["by_domain"].values()]
    whole_CC = np.array(run.scores.to_dict()["confusion"])
    assert np.array_equal(sum(by_client), whole_CC)
    assert np.array_equal(sum(by_domain), whole_CC)


def with_subsets(cache: Path, file: Path, supervision: str = "labels") -> Experiment:
    file.write_text(json.dumps({"synthetic-amber-day": ["car", "pole"], "synthetic-birch-day": []}))
    return tiny_experiment(
        cache,
        partition={"label_subset": {"file": str(file)}},
        training={"supervision": supervision},
        evaluation={"on_clients": True},
    )


@pytest.mark.parametrize(("supervision", "mark"), [("labels", IGNORE), ("label subset", ERASED)])
def test_classes_that_a_client_does_not_label_are_erased(
    cache: Path, tmp_path: Path, supervision: str, mark: int
) -> None:
    whole = open_fleet_data(tiny_experiment(cache, evaluation={"on_clients": True}))
    fleet_data = open_fleet_data(with_subsets(cache, tmp_path / "subsets.json", supervision))
    name, kept = "synthetic-amber-day", (2, 8)
    client, before = fleet_data.clients[name], whole.clients[name]
    pixels_C = np.zeros(11, np.int64)
    for k in range(len(client.train)):
        label_HW, was_HW = client.train[k][1], before.train[k][1]
        stays_HW = np.isin(was_HW, (*kept, IGNORE))
        assert (label_HW == np.where(stays_HW, was_HW, mark)).all()
        assert not stays_HW.all()
        pixels_C += np.bincount(label_HW[np.isin(label_HW, kept)], minlength=11)
        # Never what is scored.
        assert (client.test.pairs[k][1] == before.test.pairs[k][1]).all()
    enrolment = client.enrolment
    assert enrolment.histogram_C == tuple(pixels_C.tolist())
    assert enrolment.num_pixels == sum(enrolment.histogram_C) > 0
    assert enrolment.num_images == before.enrolment.num_images
    assert enrolment.num_test_pixels == before.enrolment.num_test_pixels
    assert client.labelled == kept
    others = [n for n in whole.clients if n not in (name, "synthetic-birch-day")]
    assert others
    for other in others:
        assert fleet_data.clients[other].enrolment == whole.clients[other].enrolment
        assert fleet_data.clients[other].labelled is None


def test_who_has_no_labelled_pixel_left_abstains(cache: Path, tmp_path: Path) -> None:
    fleet_data = open_fleet_data(with_subsets(cache, tmp_path / "subsets.json"))
    abstains = fleet_data.clients["synthetic-birch-day"].enrolment.abstains
    assert abstains == "none of its pixels is of a class that it labels"
    assert any(abstains in note for note in fleet_data.notes)


def test_label_subsets_are_in_the_manifest_and_come_back_from_it(
    cache: Path, tmp_path: Path
) -> None:
    drawn = tiny_experiment(cache, partition={"label_subset": {"classes": 2}})
    fleet_data = open_fleet_data(drawn)
    assert fleet_data.manifest is not None
    subsets = fleet_data.manifest.label_subsets
    assert subsets.keys() == fleet_data.clients.keys()
    assert {len(names) for names in subsets.values()} == {2}
    assert any(note.startswith("no client labels ") for note in fleet_data.notes)
    fleet_data.manifest.write(tmp_path / "manifest.json")
    again = open_fleet_data(
        tiny_experiment(
            cache, partition={"kind": "file", "file": str(tmp_path / "manifest.json")}
        ).model_copy(update={"seed": 7})
    )
    assert again.manifest == fleet_data.manifest
    assert again.enrolled == fleet_data.enrolled


def test_baselines_keep_what_vehicles_labelled(cache: Path) -> None:
    """Together erased pixels say nothing, as who labels what differs; alone they still do."""
    described = tiny_experiment(
        cache,
        partition={"label_subset": {"classes": 2}},
        training={"supervision": "label subset"},
    )
    fleet_data = open_fleet_data(described)
    alone, pooled = centralised(described, fleet_data)
    assert alone.training.supervision == "labels"
    (client,) = pooled.clients.values()
    seen = {int(i) for k in range(len(client.train)) for i in np.unique(client.train[k][1])}
    assert ERASED not in seen
    assert sum(n > 0 for n in client.enrolment.histogram_C) == len(seen - {IGNORE})
    for _, local, own in local_only(described, fleet_data):
        assert local.training.supervision == "label subset"
        (client,) = own.clients.values()
        assert client.labelled is not None
        assert len(client.labelled) == 2


class Counted(tuple[Any, ...]):
    """Facts of samples that count how many are looked at."""

    looked_at = 0

    def __iter__(self) -> Iterator[Any]:
        type(self).looked_at += len(self)
        return super().__iter__()

    def __getitem__(self, index: Any) -> Any:
        type(self).looked_at += 1
        return super().__getitem__(index)


class Listed:
    """Stands for an opened store of many samples in many drives; there are no pixels."""

    def __init__(self, count: int, drives: int, split: str = "train") -> None:
        self.samples = Counted(
            Sample(
                f"t/{split}/{i}", "t", split, "", "", "d", sequence=f"{split}{i % drives}", frame=i
            )
            for i in range(count)
        )
        self.digests = Counted((f"{split}{i}", "") for i in range(count))
        self.bad: dict[int, str] = {}
        self.labelled = np.ones(count, np.bool_)
        self.histograms_NC = np.ones((count, 11), np.int64)
        self.native_hw = ((192, 256),) * count

    def __len__(self) -> int:
        return len(self.samples)

    def label_hw(self, index: int) -> tuple[int, int]:
        return 192, 256


@pytest.mark.parametrize("partition", [{"kind": "natural"}, {"kind": "iid", "clients": 250}])
@pytest.mark.parametrize("holdout", [0.0, 0.25])
def test_the_work_grows_with_samples_not_with_samples_times_clients(
    monkeypatch: pytest.MonkeyPatch, partition: dict[str, Any], holdout: float
) -> None:
    count = 2000

    def listed(config: SourceConfig) -> Listed:
        return Listed(count, 250) if config.split == "train" else Listed(10, 1, "val")

    for module in (clients_module, pool_module):
        monkeypatch.setattr(module, "open_source", listed)
        monkeypatch.setattr(module, "open_source_stores", lambda source, *_: (source,) * 2)
    Counted.looked_at = 0
    experiment = Experiment.model_validate(
        {
            "partition": {**partition, "holdout": holdout},
            "data": {"evaluation": [{"split": "val"}]},
            "evaluation": {"on_clients": True},
        }
    )
    assert len(open_fleet_data(experiment).clients) == 250
    assert Counted.looked_at < 25 * count
