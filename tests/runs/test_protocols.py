"""The protocol of real runs: what it says, and when it is that of another run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.experiments import tiny_experiment

import fleetseg
from fleetseg.clients import HELD_OUT, open_fleet_data
from fleetseg.config import Experiment
from fleetseg.data.labels import CAMVID_11, LabelSpace
from fleetseg.evaluation.protocol import Protocol, differences
from fleetseg.runs.baselines import centralised
from fleetseg.runs.protocols import protocol_of


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def one_round(cache: Path, **sections: dict[str, object]) -> Experiment:
    return tiny_experiment(cache, federation={"rounds": 1}, **sections)


def protocol(run: fleetseg.Run) -> Protocol:
    """The protocol of a run's last score, as its folder has it."""
    report = fleetseg.read_run(run.folder)
    assert report.end is not None
    assert report.end.scored is not None
    assert report.end.scored.protocol is not None
    if report.rounds[-1].scored is not None:
        assert report.rounds[-1].scored.protocol == report.end.scored.protocol
    return report.end.scored.protocol


def test_on_sets_of_the_server(cache: Path, tmp_path: Path) -> None:
    told = protocol(fleetseg.run(one_round(cache), out=tmp_path / "run"))
    (part,) = told.sets
    assert (told.size_hw, told.scored_at) == ((48, 64), "label resolution")
    assert (told.space, told.classes) == ("camvid11", CAMVID_11.classes)
    assert (told.critical, told.ignored_id) == (CAMVID_11.critical, 255)
    assert (told.norms, told.by, told.rounds) == ("running", "domain", (1,))
    assert (part.name, part.frames, len(part.digest)) == ("synthetic/val", 5, 64)
    assert told.unseen == ()
    assert told.seen is not None
    assert len(told.seen) == 5


OTHERS: list[tuple[dict[str, Any], set[str]]] = [
    ({"data": {"size": [64, 64]}}, {"size_hw"}),
    ({"data": {"evaluation": [{"split": "test", "conditions": ["day"], "frames_per_drive": 1}]}},
     {"sets"}),
    ({"data": {"evaluation": [{"split": "val", "conditions": ["day"], "frames_per_drive": 1,
                               "seed": 1}]}}, {"sets"}),
    ({"data": {"sources": [{"conditions": ["day"], "cities": ["amber"], "frames_per_drive": 3}]}},
     {"seen", "unseen"}),
    ({"evaluation": {"by": "dataset"}}, {"by", "seen"}),
    ({"training": {"lr": 0.5}, "federation": {"rounds": 9}, "seed": 3}, set()),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "fields"), OTHERS, ids=lambda x: "+".join(sorted(x)))
def test_what_makes_it_another_one(cache: Path, changes: dict[str, Any], fields: set[str]) -> None:
    """A set of the same name and number of frames is another one by its files."""

    def of(experiment: Experiment) -> Protocol:
        data = open_fleet_data(experiment)
        domains = {domain for part in data.evaluation for domain in part.scored.domains}
        return protocol_of(experiment, data, (), domains, 1)

    seed = changes.pop("seed", 0)
    other = tiny_experiment(cache, **changes).model_copy(update={"seed": seed})
    assert {d.field for d in differences(of(tiny_experiment(cache)), of(other))} == fields


def test_a_fleet_and_its_baseline_are_scored_on_the_same_held_out_frames(cache: Path) -> None:
    experiment = tiny_experiment(cache, data={"evaluation": []}, partition={"holdout": 0.34})
    data = open_fleet_data(experiment)
    names = sorted(data.clients)
    fleet = protocol_of(experiment, data, names, ["a"], 1)
    pooled = protocol_of(*centralised(experiment, data), [HELD_OUT], ["a"], 1)
    assert differences(fleet, pooled) == []
    assert (fleet.sets[0].name, fleet.sets[0].frames) == (HELD_OUT, 5)
    some = protocol_of(experiment, data, names[1:], ["a"], 1)
    assert some.sets[0].name == f"held-out frames of {', '.join(names[1:])}"
    assert some.sets[0].frames == 4
    assert some.sets[0].digest != fleet.sets[0].digest
    far_away = protocol_of(experiment, data, ["car-1"], ["a"], 1)
    assert (far_away.sets[0].frames, far_away.sets[0].digest) == (None, "")


def test_on_one_s_own_data(cache: Path, tmp_path: Path) -> None:
    space = LabelSpace("mine", ("dark", "bright"), ((0, 0, 0), (255, 255, 255)), ("bright",))

    def of(grey: int) -> Protocol:
        train = [(np.zeros((16, 16, 3), np.uint8), np.eye(16, dtype=np.uint8))] * 2
        test = [(np.full((16, 16, 3), grey, np.uint8), np.eye(16, dtype=np.uint8))] * 3
        run = fleetseg.run(
            one_round(cache, data={"size": [16, 16], "evaluation": []}),
            clients={"a": train},
            evaluation={"yard": test},
            space=space,
            out=tmp_path / str(grey),
        )
        return protocol(run)

    one, other = of(2), of(3)
    assert (one.space, one.critical, one.sets[0].name, one.sets[0].frames) == (
        "mine",
        ("bright",),
        "yard",
        3,
    )
    assert {d.field for d in differences(one, other)} == {"sets"}


def test_a_run_that_is_scored_on_its_clients_only(cache: Path, tmp_path: Path) -> None:
    run = fleetseg.run(
        one_round(cache, data={"evaluation": []}, evaluation={"on_clients": True}),
        out=tmp_path / "run",
    )
    assert (protocol(run).sets, protocol(run).rounds) == ((), (1,))
