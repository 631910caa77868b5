"""The fleet as the judge: the counts of the frames that vehicles hold out, and only sums."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tests.models_on_disk import brightness_model
from tests.release_world import World

import fleetseg
from fleetseg.clients import open_fleet_data
from fleetseg.errors import DataError, ModelError
from fleetseg.experiment_file import load_experiment
from fleetseg.federation.client import Client
from fleetseg.judging.counts import Measured, Row
from fleetseg.judging.measure import Looking
from fleetseg.judging.policy import Policy, make_policy
from fleetseg.judging.sums import client_sums
from fleetseg.release.on_clients import measure_on_clients
from fleetseg.runs.inference import ready_model

POLICY = make_policy({"robustness": {"kinds": ["jpeg"], "images": 1}})


def test_the_vehicles_counts_are_those_of_their_frames_together(world: World) -> None:
    experiment = load_experiment(world.experiment)
    models = [ready_model(path, "cpu", "fp32") for path in (world.blind, world.current)]
    judged = measure_on_clients(models, experiment, POLICY)
    measured, sets = judged.measured, judged.sets
    held = experiment.data.model_copy(update={"evaluation": ()})
    pooled = experiment.model_copy(update={"data": held})
    for path, sums in zip((world.blind, world.current), measured, strict=True):
        whole = fleetseg.evaluate(path, pooled, device="cpu", precision="fp32")
        assert (sums.clean.total_CC == whole.scores.conf_CC).all()
        for domain, conf_CC in whole.conf_by_domain.items():
            assert (sums.clean.of_domain(domain).total_CC == conf_CC).all()
    assert sum(one.frames or 0 for one in sets) == whole.num_images
    assert len(sets) == 3
    assert not any(one.digest for one in sets)


def test_who_cannot_judge_is_named_and_the_others_do(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = load_experiment(world.experiment, ["partition.clients=4"])  # one frame or two each
    fleet = open_fleet_data(experiment)
    without = [name for name, client in fleet.clients.items() if not client.test]
    ill = next(name for name, client in sorted(fleet.clients.items()) if client.test)

    def sums(client: Client, looking: Looking, policy: Policy) -> Measured:
        if client.id == ill:
            raise DataError("an image cannot be read", where="/home/me/street.png")
        return client_sums(client, looking, policy)

    monkeypatch.setattr("fleetseg.release.on_clients.client_sums", sums)
    models = [ready_model(world.current, "cpu", "fp32")]
    judged = measure_on_clients(models, experiment, POLICY)
    expected = dict.fromkeys(without, "holds no labelled frame out")
    assert judged.silent == {**expected, ill: "an image cannot be read"}
    assert {one.name for one in judged.sets} == set(fleet.clients) - {ill, *without}
    assert {row.name for row in judged.measured[0].clean.rows} == {one.name for one in judged.sets}


def test_only_sums_leave_a_vehicle(world: World) -> None:
    fleet = open_fleet_data(load_experiment(world.experiment))
    name, client = next((n, c) for n, c in fleet.clients.items() if c.test)
    sums = client_sums(client, ready_model(world.current, "cpu", "fp32"), POLICY)
    parts = [sums.clean, *sums.worse.values()]
    domains = sorted(set(client.test.domains))
    for rows in parts:
        assert set(rows.rows) <= {Row(name, domain, drive="") for domain in domains}
        assert rows.conf_RCC.shape == (len(rows), 11, 11)
        assert rows.conf_RCC.dtype == np.int64
    assert [f.name for f in dataclasses.fields(sums)] == ["clean", "bins_3B", "worse"]
    assert sums.bins_3B.shape == (3, 15)


def test_vehicles_that_hold_nothing_out_cannot_judge(world: World) -> None:
    experiment = load_experiment(world.experiment, ["partition.holdout=0"])
    models = [ready_model(world.current, "cpu", "fp32")]
    with pytest.raises(DataError, match=r"hold out no frames.*partition.holdout = 0"):
        measure_on_clients(models, experiment, POLICY)


def test_a_model_of_other_classes(world: World) -> None:
    experiment = load_experiment(world.experiment)
    with pytest.raises(ModelError, match=r"another label space than the experiment"):
        measure_on_clients([ready_model(brightness_model(), "cpu")], experiment, POLICY)
