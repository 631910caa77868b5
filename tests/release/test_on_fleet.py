"""The vehicles of a network as the judge: what one process that plays them all says, too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.fleet.sites import FakeNetwork, Sites
from tests.release_world import World

from fleetseg.clients import open_fleet_data
from fleetseg.config import Experiment
from fleetseg.errors import DataError
from fleetseg.experiment_file import load_experiment
from fleetseg.failures import failure_header
from fleetseg.fleet.server.dispatcher import TaskDispatcher
from fleetseg.fleet.server.errands import Answered
from fleetseg.judging.policy import make_policy
from fleetseg.judging.sums import VehicleSums, client_sums, write_sums
from fleetseg.release import on_fleet
from fleetseg.release.gate import Question, decide
from fleetseg.release.on_fleet import Judging, measure_on_fleet
from fleetseg.runs.inference import ReadyModel, ready_model

POLICY = make_policy(
    {
        "bootstrap": {"resamples": 200},
        "robustness": {"kinds": ["jpeg"], "images": 1},
        "latency": {"images": 3, "max_ratio": 100},
    }
)


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """A fleet's folder without its keys: of four vehicles one is revoked."""
    names = [*(f"client-{k}" for k in range(3)), "away", "gone"]
    fields = {"host": "localhost", "port": 8102, "vehicles": names, "revoked": ["gone"]}
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet" / "fleet.json").write_text(json.dumps(fields))
    return tmp_path / "fleet"


@pytest.fixture
def experiment(world: World) -> Experiment:
    return load_experiment(world.experiment)


@pytest.fixture
def models(world: World) -> list[ReadyModel]:
    return [ready_model(path, "cpu", "fp32") for path in (world.blind, world.current)]


def connect(monkeypatch: pytest.MonkeyPatch, sites: Sites) -> None:
    """Have the fleet's server be a dispatcher in this process, and its vehicles trainers."""

    @contextmanager
    def connected(
        fleet: Any, log_folder: Path, gather_s: float
    ) -> Iterator[tuple[TaskDispatcher, FakeNetwork]]:
        with sites.connected() as both:
            yield both

    monkeypatch.setattr(on_fleet, "connected", connected)


def test_over_a_network_the_gate_decides_as_in_one_process(
    world: World,
    experiment: Experiment,
    fleet: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sites, names = Sites(tmp_path / "sites"), sorted(open_fleet_data(experiment).clients)
    for site, client in zip([f"client-{k}" for k in range(3)], names, strict=True):
        sites.add(site, vehicles=(client,), experiment=str(world.experiment))
    connect(monkeypatch, sites)
    question = Question(
        candidate=world.blind,
        models=tmp_path / "models",
        policy=POLICY,
        against=world.current,
        on=experiment,
        out=tmp_path / "out",
        dry_run=True,
        device="cpu",
        precision="fp32",
        fleet=fleet,
        wait_s=0.5,
    )
    over_network = decide(question)
    record = json.loads((tmp_path / "out" / "release.json").read_text())
    here = decide(replace(question, fleet=None, on_clients=True, out=tmp_path / "here"))
    alone = json.loads((tmp_path / "here" / "release.json").read_text())
    apart = ("latency", "least")  # measured again; and who judged is not the same
    falls = [check for check in record["checks"] if check["kind"] not in apart]
    assert falls == [check for check in alone["checks"] if check["kind"] not in apart]
    (attendance,) = (check for check in record["checks"] if check["kind"] == "least")
    assert (attendance["verdict"], attendance["candidate"]) == ("held", 0.75)
    assert (over_network.promoted, here.promoted) == (False, False)
    for model in ("candidate", "current"):
        assert record[model]["by_domain"] == alone[model]["by_domain"]
        assert record[model]["confidence_bins"] == alone[model]["confidence_bins"]
    told = record["vehicles"]
    assert [name.partition("/")[0] for name in told["judged"]] == [f"client-{k}" for k in range(3)]
    assert (told["silent"], told["over"]) == ({"away": "away"}, "a network")
    assert alone["vehicles"] == {"judged": names, "silent": {}, "over": "this process"}
    assert over_network.notes[0] == "1 of 4 vehicles did not judge: away (away)"
    page = (tmp_path / "out" / "release.html").read_text()
    assert "vehicles, over a network: the fleet is the judge" in page
    assert "3 vehicles" in next(c["drawn"] for c in record["checks"] if c["kind"] == "overall")


def test_a_model_that_only_some_answered_for_is_compared_on_the_others(
    world: World, experiment: Experiment, models: list[ReadyModel]
) -> None:
    fleet = open_fleet_data(experiment)
    name, client = next((n, c) for n, c in sorted(fleet.clients.items()) if c.test)
    judging = Judging(models[0].space, POLICY, experiment, 2)

    def answer(site: str, model: int, ready: ReadyModel, frames: int = 2) -> None:
        sums = client_sums(client, ready, POLICY)
        judging.add(Answered(site, str(model), *write_sums({site: VehicleSums(frames, sums)})))

    for number, ready in enumerate(models):
        answer("a", number, ready)
    answer("b", 0, models[0])
    for number, ready in enumerate(models):
        answer("c", number, ready, frames=0)  # frames that it does not have
    one = VehicleSums(2, client_sums(client, models[0], POLICY))
    crowd = {f"g/{number}": one for number in range(experiment.fleet.max_vehicles + 1)}
    judging.add(Answered("g", "0", *write_sums(crowd)))  # more than one kit may stand for
    none = failure_header("refused", "no-frames", "no vehicle here holds out a labelled frame")
    judging.add(Answered("d", "0", none))
    judging.add(Answered("e", "0", failure_header("lost", "trainer-died")))
    judged = judging.result({"b": "no answer", "f": "away"})
    assert [one.name for one in judged.sets] == ["a"]
    assert {row.name for m in judged.measured for row in m.clean.rows} == {"a"}
    assert {site: why.partition(":")[0] for site, why in judged.silent.items()} == {
        "b": "no answer", "c": "count", "d": "holds no labelled frame out", "e": "trainer-died",
        "f": "away", "g": "vehicles",
    }  # fmt: skip
    assert name not in judged.silent


def test_other_frames_for_each_model_are_no_comparison(
    experiment: Experiment, models: list[ReadyModel]
) -> None:
    held = [c for _, c in sorted(open_fleet_data(experiment).clients.items()) if c.test][:2]
    judging = Judging(models[0].space, POLICY, experiment, 2)
    for number, (client, ready) in enumerate(zip(held, models, strict=True)):
        sums = VehicleSums(1, client_sums(client, ready, POLICY))
        judging.add(Answered("a", str(number), *write_sums({"street-7": sums})))
    with pytest.raises(DataError, match="a/street-7 the models were scored on different frames"):
        judging.result({})


def test_a_fleet_that_holds_nothing_out_is_not_started(
    world: World, fleet: Path, models: list[ReadyModel], tmp_path: Path
) -> None:
    nothing = load_experiment(world.experiment, ["partition.holdout=0"])
    with pytest.raises(DataError, match="hold out no frames"):
        measure_on_fleet(models, nothing, POLICY, fleet, log_folder=tmp_path, wait_s=0.1)
