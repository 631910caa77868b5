"""A vehicle that takes a release in, and one that judges a model: nothing is believed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fleet.sites import Sites
from tests.release_world import World

import fleetseg
from fleetseg.clients import open_fleet_data
from fleetseg.data.labels import CAMVID_11
from fleetseg.experiment_file import load_experiment
from fleetseg.failures import parse_failure
from fleetseg.fleet.held_releases import FOLDER, current_release
from fleetseg.fleet.message_log import read_message_log
from fleetseg.fleet.parcels import pack
from fleetseg.fleet.protocol import PROTOCOL, experiment_for_judges, labels_digest
from fleetseg.fleet.server.releases import offer_of, publish_to
from fleetseg.fleet.vehicle.trainer import Trainer
from fleetseg.judging.policy import make_policy
from fleetseg.judging.sums import client_sums, read_sums
from fleetseg.release.registry import releases
from fleetseg.runs.inference import ready_model

POLICY = make_policy({"robustness": {"kinds": ["jpeg"], "images": 1}})


def offer(home: Path, number: int, model: Path) -> tuple[dict[str, Any], bytes]:
    header, payload = offer_of(publish_to(home / "fleet", number, model))
    return {**json.loads(json.dumps(header)), "task": "release-1"}, payload


def failure(answer: tuple[dict[str, Any], bytes]) -> Any:
    return parse_failure(answer[0])


@pytest.fixture
def sites(tmp_path: Path) -> Sites:
    return Sites(tmp_path / "sites")


def test_a_release_is_kept_driven_and_loaded_from_there(
    world: World, sites: Sites, tmp_path: Path
) -> None:
    trainer, own = sites.add("car-1"), sites.own("car-1")
    header, payload = offer(tmp_path, 2, world.current)
    answer, data = trainer.answer(header, payload)
    held = current_release(own / FOLDER)
    assert held is not None
    assert (answer, data) == ({"drives": {"release": 2, "digest": header["digest"]}}, b"")
    assert any("release 0002 is driven from now on" in line for line in sites.log)
    image_HWC = np.zeros((48, 64, 3), np.uint8)
    there = fleetseg.load_model(own / FOLDER / "0002").predict(image_HWC)
    assert (there == fleetseg.load_model(world.current).predict(image_HWC)).all()
    assert [(one.number, one.damage) for one in releases(own / FOLDER)] == [(2, "")]
    (line,) = read_message_log(own / "logs" / "egress.jsonl")
    assert (line["kind"], line["fields"]) == ("release", ["drives"])
    assert Trainer(own, print).answer(header, payload)[0] == answer  # after a restart, too


def test_a_wrong_digest_is_refused_and_the_old_release_is_driven(
    world: World, sites: Sites, tmp_path: Path
) -> None:
    trainer, models = sites.add("car-1"), sites.own("car-1") / FOLDER
    trainer.answer(*offer(tmp_path, 1, world.current))
    before = current_release(models)
    header, payload = offer(tmp_path, 2, world.blind)
    spoilt = payload[:-1] + bytes([payload[-1] ^ 1])
    for request, data in (
        (header, spoilt),
        ({**header, "digest": "0" * 64}, payload),
        ({**header, "files": header["files"][:1]}, payload[: header["files"][0][1]]),
    ):
        assert failure(trainer.answer(request, data))[:2] == ("refused", "digest")
        assert current_release(models) == before
    for change in ({"release": 0}, {"release": "2"}, {"files": []}):
        assert failure(trainer.answer({**header, **change}, payload))[1] == "malformed"
    assert sorted(path.name for path in models.iterdir()) == ["0001", "current"]


def test_what_cannot_be_loaded_is_not_driven(world: World, sites: Sites, tmp_path: Path) -> None:
    trainer, models = sites.add("car-1"), sites.own("car-1") / FOLDER
    trainer.answer(*offer(tmp_path, 1, world.current))
    broken = tmp_path / "broken"
    shutil.copytree(world.current, broken)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "model": "of_another_version"}))
    kind, reason, detail = failure(trainer.answer(*offer(tmp_path, 2, broken)))
    assert (kind, reason) == ("refused", "unusable")
    assert str(tmp_path) not in detail
    held = current_release(models)
    assert held is not None
    assert held.number == 1
    assert not (models / "0002").exists()


def request(world: World, model: Path, **changes: Any) -> tuple[dict[str, Any], bytes]:
    experiment = load_experiment(world.experiment)
    files, payload = pack(model, ("config.json", "model.safetensors"))
    header = {
        "what": "judge",
        "task": "judge-1",
        "protocol": PROTOCOL,
        "fleetseg": "0",
        "experiment": experiment_for_judges(experiment, (48, 64)),
        "labels": labels_digest(CAMVID_11),
        "policy": POLICY.model_dump(mode="json"),
        "files": files,
        **changes,
    }
    return json.loads(json.dumps(header)), payload


def test_a_vehicle_s_sums_are_those_of_the_same_client_in_one_process(
    world: World, sites: Sites
) -> None:
    fleet = open_fleet_data(load_experiment(world.experiment))
    names = sorted(fleet.clients)
    trainer = sites.add("depot", vehicles=tuple(names), experiment=str(world.experiment))
    answer, payload = trainer.answer(*request(world, world.blind))
    told = read_sums(json.loads(json.dumps(answer)), payload, POLICY, 11, 100)
    assert sorted(told) == names
    ready = ready_model(world.blind, "cpu", "fp32")
    for name in names:
        expected = client_sums(fleet.clients[name], ready, POLICY)
        assert told[name].frames == len(fleet.clients[name].test)
        assert (told[name].measured.clean.conf_RCC == expected.clean.conf_RCC).all()
        assert (told[name].measured.bins_3B == expected.bins_3B).all()
        for way, rows in expected.worse.items():
            assert (told[name].measured.worse[way].conf_RCC == rows.conf_RCC).all()
    assert set(answer) == {"judged"}
    (line,) = read_message_log(sites.own("depot") / "logs" / "egress.jsonl")
    assert (line["kind"], line["fields"]) == ("judge", ["judged"])
    assert not list(sites.own("depot").glob("judged-*"))  # the model is gone


def test_what_cannot_be_judged_is_refused(world: World, sites: Sites, tmp_path: Path) -> None:
    names = tuple(open_fleet_data(load_experiment(world.experiment)).clients)
    trainer = sites.add("depot", vehicles=names, experiment=str(world.experiment))
    nothing = load_experiment(world.experiment, ["partition.holdout=0"])
    held_back = experiment_for_judges(nothing, (48, 64))
    for changes, reason in (
        ({"protocol": PROTOCOL + 1}, "protocol"),
        ({"labels": "0" * 64}, "labels"),
        ({"experiment": held_back}, "experiment"),
        ({"policy": {"robustness": {"kinds": ["meteors"]}}}, "policy"),
        ({"files": None}, "malformed"),
    ):
        answer = trainer.answer(*request(world, world.blind, **changes))
        assert failure(answer)[:2] == ("refused", reason), changes
    header, payload = request(world, world.blind)
    assert failure(trainer.answer(header, payload[:-1]))[1] == "digest"


def test_vehicles_are_told_nothing_of_training(world: World) -> None:
    experiment = load_experiment(
        world.experiment, ["training.lr=0.5", "federation.rounds=77", "partition.holdout=0.25"]
    )
    toml = experiment_for_judges(experiment, (32, 40))
    assert "77" not in toml
    assert "lr = 0.5" not in toml
    assert "holdout = 0.25" in toml
    assert "32" in toml
    assert str(world.experiment.parent) not in toml
