"""A site's trainer, asked in this process: the same work as anywhere, and nothing else goes out."""

from __future__ import annotations

import json
import math
import re
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.experiments import tiny_experiment
from tests.fleet.job import until

from fleetseg.clients import open_fleet_data
from fleetseg.config import SourceConfig
from fleetseg.data.styles import STYLES
from fleetseg.engines.inprocess import InProcessEngine
from fleetseg.experiment_file import make_experiment, to_toml
from fleetseg.failures import parse_failure
from fleetseg.federation import rounds
from fleetseg.federation.fleet_facts import facts_of_fleet
from fleetseg.federation.messages import Broadcast, NormReport, Update
from fleetseg.federation.replies import read_evaluation, read_reply
from fleetseg.federation.tensors import ModelState, read_state
from fleetseg.federation.wire import (
    PlainCodec,
    decode_update,
    encode_broadcast,
    encode_update,
)
from fleetseg.fleet.message_log import message_digest, read_message_log
from fleetseg.fleet.progress import ProgressPage, read_progress
from fleetseg.fleet.protocol import (
    PROTOCOL,
    experiment_for_vehicles,
    labels_digest,
    read_enrolments,
    read_space,
    write_space,
)
from fleetseg.fleet.server.enrolment import RunSpec, hello
from fleetseg.fleet.sockets import Header, Listener, connect, private_directory
from fleetseg.fleet.vehicle import trainer as trainer_module
from fleetseg.fleet.vehicle.site_data import SiteData
from fleetseg.fleet.vehicle.trainer import Trainer
from fleetseg.learning.local import num_steps
from fleetseg.runs.engines import run_spec
from fleetseg.runs.setup import RunSetup, set_up

SITE = "depot"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The stores of all tests here; sites of their own find them, too."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLEETSEG_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def parts(cache: Path) -> RunSetup:
    """What the server would hold, clients included."""
    experiment = tiny_experiment(cache, evaluation={"on_clients": True})
    return set_up(experiment, open_fleet_data(experiment), cache / "run", None, rounds.Watcher())


@dataclass
class Site:
    """A trainer in its folder, and all that it has said."""

    folder: Path
    parts: RunSetup
    said: list[str] = field(default_factory=list)

    def start(self) -> None:
        self.trainer = Trainer(self.folder, self.said.append)

    def hello(self, **changes: Any) -> Header:
        request = {
            "what": "hello",
            "task": "hello-1",
            "run": "run-1",
            "protocol": PROTOCOL,
            "fleetseg": "0",
            "experiment": experiment_for_vehicles(self.parts.experiment),
            "layout": self.parts.runtime.exchange.server.digest,
            "labels": labels_digest(self.parts.fleet_data.space),
            "normalisation": [list(part) for part in self.parts.runtime.model.normalisation],
            "time": time.time(),
            **changes,
        }
        return self.trainer.answer(request, b"")[0]

    def ask(self, what: str, vehicle: str, *, round_: int = 1, **changes: Any) -> Any:
        request = {"what": what, "task": "t", "run": "run-1", "round": round_}
        request["vehicles"] = {SITE: vehicle}
        payload = changes.pop("payload", None) or encoded(self.parts, round_)
        return self.trainer.answer({**request, **changes}, payload)

    @property
    def sent(self) -> list[dict[str, Any]]:
        return read_message_log(self.folder / "logs" / "egress.jsonl")


def start_state(parts: RunSetup) -> ModelState:
    """The model that a run begins with, whatever a test has trained since."""
    state = parts.runtime.exchange.wire.empty()
    draw = torch.Generator().manual_seed(0)
    state.values_F.uniform_(-0.01, 0.01, generator=draw)
    state.counters_K.zero_()
    state.values_F[parts.runtime.exchange.wire.variances_V] = 1.0
    return state


def encoded(parts: RunSetup, round_: int, scale: float = 1.0) -> bytes:
    state = start_state(parts)
    state.values_F.mul_(scale)
    state.values_F[parts.runtime.exchange.wire.variances_V] = 1.0
    return encode_broadcast(Broadcast(round_, state), parts.runtime.exchange.wire)


def encoded_shared(parts: RunSetup) -> bytes:
    """A first broadcast of what is exchanged, where a part stays with each vehicle."""
    exchange = parts.runtime.exchange
    state = exchange.to_score(read_state(parts.runtime.model, exchange.model))
    return encode_broadcast(Broadcast(1, state), exchange.wire)


@pytest.fixture
def site(parts: RunSetup, tmp_path: Path) -> Site:
    """A site that stands for all vehicles of the experiment."""
    path = tmp_path / "experiment.toml"
    path.write_text(to_toml(parts.experiment))
    vehicles = tuple(parts.fleet_data.clients)
    return made(parts, tmp_path, SiteData(SITE, vehicles=vehicles, experiment=str(path)))


def made(parts: RunSetup, folder: Path, site_data: SiteData) -> Site:
    site_data.write(folder / "site-data.json")
    site = Site(folder, parts)
    site.start()
    return site


def opened(cache: Path, folder: Path, **sections: dict[str, Any]) -> tuple[RunSetup, Site]:
    """An experiment with these choices, and a site that has opened it for all vehicles."""
    experiment = tiny_experiment(cache, **sections)
    parts = set_up(experiment, open_fleet_data(experiment), folder / "run", None, rounds.Watcher())
    path = folder / "experiment.toml"
    path.write_text(to_toml(experiment))
    (folder / "kit").mkdir()
    vehicles = tuple(parts.fleet_data.clients)
    site = made(parts, folder / "kit", SiteData(SITE, vehicles=vehicles, experiment=str(path)))
    site.hello()
    return parts, site


def inprocess(parts: RunSetup, vehicle: str, round_: int = 1) -> bytes:
    """The update of the engine that this one must not differ from, as a message."""
    broadcast, runtime = Broadcast(round_, start_state(parts)), replace(parts.runtime, codec=None)
    (update,) = InProcessEngine(parts.fleet_data.clients, runtime).ask(
        "train", {vehicle: broadcast}
    )
    assert isinstance(update, Update)
    return encode_update(update, parts.runtime.exchange.wire)


def vehicles_of(parts: RunSetup) -> list[str]:
    return sorted(parts.fleet_data.clients)


# Work


def test_all_vehicles_of_a_site_enrol(site: Site) -> None:
    answer = site.hello()
    told = json.loads(json.dumps(answer))
    fleet_data = site.parts.fleet_data
    assert read_enrolments(told["enrolments"], fleet_data.space.num_classes) == fleet_data.enrolled
    assert told["machine"]["device"] == "cpu"
    assert set(told["machine"]) == {
        "fleetseg",
        "torch",
        "python",
        "machine",
        "cores",
        "device",
        "precision",
    }


def test_updates_have_the_bits_of_the_engine_in_process(site: Site) -> None:
    site.hello()
    for vehicle in vehicles_of(site.parts)[:2]:
        answer, data = site.ask("train", vehicle)
        assert answer == {"update": 1}
        assert data == inprocess(site.parts, vehicle)


def test_scores_are_those_of_the_engine_in_process(site: Site) -> None:
    site.hello()
    vehicle = vehicles_of(site.parts)[0]
    answer, data = site.ask("evaluate", vehicle, round_=2)
    num_classes = site.parts.runtime.num_classes
    read = read_evaluation(vehicle, json.loads(json.dumps(answer)), data, num_classes)
    engine = InProcessEngine(site.parts.fleet_data.clients, site.parts.runtime)
    (expected,) = engine.ask("evaluate", {vehicle: Broadcast(2, start_state(site.parts))})
    assert read.round == 2
    assert {d: c.tolist() for d, c in read.conf_by_domain.items()} == {
        d: c.tolist()
        for d, c in expected.conf_by_domain.items()  # type: ignore[union-attr]
    }
    assert engine.meter().bytes_up == len(data)


def test_asked_again_it_gives_the_same_answer_without_work(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked: list[str] = []
    original = trainer_module._work

    def spy(what: str, *rest: Any) -> Any:
        worked.append(what)
        return original(what, *rest)

    monkeypatch.setattr(trainer_module, "_work", spy)
    site.hello()
    one, two = vehicles_of(site.parts)[:2]
    first = site.ask("train", one)
    other = site.ask("train", two)
    site.hello()  # a new segment of the same run
    assert site.ask("train", one, task="another") == first
    assert site.ask("train", two) == other
    assert worked == ["train", "train"]
    assert site.ask("train", one, round_=2) != first
    assert site.ask("evaluate", one, round_=2)[0].keys() == {"confs", "round"}
    assert worked == ["train", "train", "train", "evaluate"]


def test_another_model_of_the_same_round_is_scored_anew(site: Site) -> None:
    site.hello()
    vehicle = vehicles_of(site.parts)[0]
    first = site.ask("evaluate", vehicle)
    second = site.ask("evaluate", vehicle, payload=encoded(site.parts, 1, scale=-50.0))
    assert first != second


def test_what_is_larger_than_the_server_takes_is_not_sent(site: Site) -> None:
    """One connection carries the answers of all sites: it is not to be tried."""
    site.hello()
    vehicle = vehicles_of(site.parts)[0]
    answer, data = site.ask("train", vehicle, reply_bytes=100)
    assert (reason(answer), data) == (("refused", "oversize"), b"")
    assert "above the limit of 100" in answer["failure"][2]
    answer, data = site.ask("train", vehicle)
    assert answer == {"update": 1}
    assert site.ask("train", vehicle, reply_bytes=len(data)) == (answer, data)


def test_a_failure_is_not_kept(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.hello()
    vehicle = vehicles_of(site.parts)[0]
    with monkeypatch.context() as patch:
        failing = ({"failure": ["abstained", "data", "no label"]}, b"")
        patch.setattr(trainer_module, "_work", lambda *rest: failing)
        answer, data = site.ask("train", vehicle)
        assert (reason(answer), data) == (("abstained", "data"), b"")
    assert site.ask("train", vehicle)[0] == {"update": 1}


def test_sums_of_norm_layers_are_those_of_the_engine_in_process(
    cache: Path, tmp_path: Path
) -> None:
    parts, site = opened(cache, tmp_path, federation={"statistics": "estimated"})
    vehicle = vehicles_of(parts)[0]
    answer, data = site.ask("norm_statistics", vehicle)
    told = json.loads(json.dumps(answer))
    got = read_reply(vehicle, told, data, num_classes=parts.runtime.num_classes, codec=None)
    engine = InProcessEngine(parts.fleet_data.clients, parts.runtime)
    (wanted,) = engine.ask("norm_statistics", {vehicle: Broadcast(1, start_state(parts))})
    assert isinstance(got, NormReport)
    assert isinstance(wanted, NormReport)
    assert wanted.round == got.round == 1
    for name, values in vars(wanted.sums).items():
        assert getattr(got.sums, name).tobytes() == values.tobytes()
    assert engine.meter().bytes_up == len(data)
    assert [line["kind"] for line in site.sent] == ["hello", "norm_statistics"]


def test_statistics_of_images_that_an_experiment_does_not_want_do_not_leave(site: Site) -> None:
    site.hello()
    answer, data = site.ask("norm_statistics", vehicles_of(site.parts)[0])
    assert (answer["failure"][:2], data) == (["abstained", "unasked"], b"")


def test_what_was_taken_back_is_not_answered_from_memory(cache: Path, tmp_path: Path) -> None:
    """A server that goes some rounds back asks again what a vehicle was told did not count."""
    scored = {"norms": "domain", "norms_on_clients": "running", "on_clients": True}
    parts, site = opened(cache, tmp_path, federation={"sharing": "silobn"}, evaluation=scored)
    vehicle = vehicles_of(parts)[0]
    first = site.ask("train", vehicle, payload=encoded_shared(parts))
    scores = {"round_": 1, "payload": encoded_shared(parts)}
    assert "confs" in site.ask("evaluate", vehicle, **scores)[0]
    assert site.ask("train", vehicle, payload=encoded_shared(parts)) == first
    # It has nothing of its own now, and its answer, a failure, takes no update's place.
    abstained = site.ask("evaluate", vehicle, **scores, counted={vehicle: [0, ""]})[0]
    assert abstained["failure"][1] == "untrained"
    assert site.ask("train", vehicle, payload=encoded_shared(parts)) == first
    assert "confs" in site.ask("evaluate", vehicle, **scores)[0]


def test_compressed_updates_are_those_of_the_uplink(cache: Path, tmp_path: Path) -> None:
    experiment = tiny_experiment(cache, federation={"uplink": "topk(10%)+int8", "rounds": 3})
    parts = set_up(
        experiment, open_fleet_data(experiment), tmp_path / "run", None, rounds.Watcher()
    )
    path = tmp_path / "experiment.toml"
    path.write_text(to_toml(experiment))
    vehicle = vehicles_of(parts)[0]
    (tmp_path / "kit").mkdir()
    site = made(parts, tmp_path / "kit", SiteData(SITE, vehicles=(vehicle,), experiment=str(path)))
    site.hello()
    codec, left_T = parts.runtime.codec, None
    assert codec is not None
    for round_ in (1, 2):  # the second one carries what the first left out
        plain = decode_update(inprocess(parts, vehicle, round_), parts.runtime.exchange.wire)
        packed, left_T = codec.pack(plain, left_T)
        assert site.ask("train", vehicle, round_=round_)[1] == packed


def test_styles_are_told_and_come_back_as_the_fleet_s(cache: Path, tmp_path: Path) -> None:
    style = {"kind": "lab", "probability": 1.0}
    parts, site = opened(cache, tmp_path, training={"style": style})
    told = json.loads(json.dumps(site.hello()))
    enrolled = read_enrolments(told["enrolments"], parts.fleet_data.space.num_classes)
    assert {v: e.facts[STYLES].tolist() for v, e in enrolled.items()} == {
        v: e.facts[STYLES].tolist() for v, e in parts.fleet_data.enrolled.items()
    }
    vehicle, state = vehicles_of(parts)[0], start_state(parts)
    facts = facts_of_fleet(parts.experiment, enrolled)
    engine = InProcessEngine(parts.fleet_data.clients, replace(parts.runtime, codec=None))
    updates = []
    for bank in (facts, {STYLES: facts[STYLES][:0]}):  # with nobody's styles, another one
        broadcast = Broadcast(1, state, bank)
        data = encode_broadcast(broadcast, parts.runtime.exchange.wire)
        answer, sent = site.ask("train", vehicle, payload=data)
        (update,) = engine.ask("train", {vehicle: broadcast})
        assert isinstance(update, Update)
        assert answer == {"update": 1}
        assert sent == encode_update(update, parts.runtime.exchange.wire)
        updates.append(sent)
    assert updates[0] != updates[1]


def test_noise_on_a_style_is_drawn_once_for_all_runs_and_processes(
    cache: Path, tmp_path: Path
) -> None:
    style = {"kind": "lab", "noise": 1.0}
    parts, site = opened(cache, tmp_path, training={"style": style})
    vehicles, told = vehicles_of(parts), []
    for run in ("run-1", "run-2"):
        site.start()
        enrolled = {e["client_id"]: e["facts"][STYLES] for e in site.hello(run=run)["enrolments"]}
        told.append([enrolled[vehicle] for vehicle in vehicles])
    assert told[0] == told[1]
    assert len({json.dumps(one) for one in told[0]}) == len(vehicles)
    exact = opened(cache, new(tmp_path / "exact"), training={"style": {"kind": "lab"}})[0]
    assert told[0] != [exact.fleet_data.enrolled[v].facts[STYLES].tolist() for v in vehicles]


def new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_vehicle_goes_back_where_its_update_did_not_count(cache: Path, tmp_path: Path) -> None:
    """What the lost update left out is neither sent again nor forgotten: it was never learnt."""
    experiment = tiny_experiment(cache, federation={"uplink": "topk(10%)+int8", "rounds": 3})
    parts = set_up(
        experiment, open_fleet_data(experiment), tmp_path / "run", None, rounds.Watcher()
    )
    path = tmp_path / "experiment.toml"
    path.write_text(to_toml(experiment))
    vehicle, sent = vehicles_of(parts)[0], []
    for name, asked in (("lost", (1, 2, 3)), ("absent", (1, 3))):
        (tmp_path / name).mkdir()
        held = SiteData(SITE, vehicles=(vehicle,), experiment=str(path))
        site = made(parts, tmp_path / name, held)
        site.hello()
        for round_ in asked:
            counted = {vehicle: [1, ""]} if round_ == 3 else {}
            data = site.ask("train", vehicle, round_=round_, counted=counted)[1]
        sent.append(data)
    assert sent[0] == sent[1]


def test_a_vehicle_s_state_is_its_own_whichever_site_serves_it(cache: Path, tmp_path: Path) -> None:
    """A fleet on one machine may be started with another number of sites."""
    experiment = tiny_experiment(cache, federation={"uplink": "topk(10%)+int8", "rounds": 3})
    parts = set_up(
        experiment, open_fleet_data(experiment), tmp_path / "run", None, rounds.Watcher()
    )
    path = tmp_path / "experiment.toml"
    path.write_text(to_toml(experiment))
    vehicle, sent = vehicles_of(parts)[0], dict[str, list[Any]]()
    for name, sites in {"stays": ("one", "one"), "moves": ("two", "three")}.items():
        keeps, sent[name] = tmp_path / "run" / name, []
        for round_, at in enumerate(sites, 1):
            (tmp_path / at).mkdir(exist_ok=True)
            held = SiteData(SITE, vehicles=(vehicle,), experiment=str(path), keeps=str(keeps))
            site = made(parts, tmp_path / at, held)
            site.hello()
            counted = {vehicle: [round_ - 1, ""]}
            sent[name].append(site.ask("train", vehicle, round_=round_, counted=counted))
        assert not (tmp_path / at / "runs").exists()
    assert sent["moves"] == sent["stays"]


def test_a_vehicle_without_what_it_kept_says_so(cache: Path, tmp_path: Path) -> None:
    """Nothing of its folders is told, and what is no lineage names no file."""
    parts, site = opened(cache, tmp_path, federation={"uplink": "topk(10%)+int8"})
    vehicle = vehicles_of(parts)[0]
    answer, data = site.ask("train", vehicle, round_=4, counted={vehicle: [3, "ab" * 8]})
    told = "it has lost its state; it starts afresh when it is next asked"
    assert (answer["failure"], data) == (["lost", "no-state", told], b"")
    for odd in ({"lineage": "../" * 5}, {"counted": {vehicle: [3, "/etc/passwd"]}}):
        refused, _ = site.ask("train", vehicle, round_=4, **odd)
        assert refused["failure"][:2] == ["refused", "malformed"]
    anew, _ = site.ask("train", vehicle, round_=5, counted={vehicle: [0, ""]})
    assert anew == {"update": 5}


def test_a_vehicle_by_the_site_s_own_name(parts: RunSetup, cache: Path, tmp_path: Path) -> None:
    source = SourceConfig(cities=("amber",), conditions=("day",), frames_per_drive=3)
    site = made(parts, tmp_path, SiteData(SITE, (source,)))
    answer = site.hello()
    assert [e["client_id"] for e in answer["enrolments"]] == [SITE]
    told, data = site.ask("train", SITE, vehicles={})
    assert told == {"update": 1}
    assert decode_update(data, parts.runtime.exchange.wire).client_id == SITE


# Memory


def out_of_memory(*arguments: object, **named: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has 8 GiB")


def test_lack_of_memory_is_an_answer_and_the_next_one_is_served(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "build_model", out_of_memory)
        answer = site.hello()
    assert reason(answer) == ("lost", "out-of-memory")
    site.hello()
    vehicle = vehicles_of(site.parts)[0]
    for what, name in (("train", "train_locally"), ("evaluate", "score_pairs")):
        with monkeypatch.context() as patch:
            patch.setattr(f"fleetseg.federation.tasks.{what}.{name}", out_of_memory)
            answer, data = site.ask(what, vehicle)
        assert (reason(answer), data) == (("lost", "out-of-memory"), b"")
        assert "tried to allocate 20.00 GiB" in answer["failure"][2]
        assert "smaller training.batch_size" in answer["failure"][2]
    assert site.ask("train", vehicle)[0] == {"update": 1}


# Refusals


def reason(answer: Header) -> tuple[str, str]:
    kind, code, _ = answer["failure"]
    return kind, code


@pytest.mark.parametrize(
    ("changes", "code", "detail"),
    [
        ({"protocol": PROTOCOL + 1}, "protocol", "speak different versions"),
        ({"time": time.time() - 4000}, "clock", "s ahead"),
        ({"time": time.time() + 4000}, "clock", "s behind"),
        ({"labels": "0" * 64}, "labels", "another label space 'camvid11'"),
        ({"layout": "0" * 64}, "model", "another network"),
        ({"experiment": "nonsense"}, "experiment", "not valid TOML"),
        ({"experiment": "[data]\nlabel_space = 'mars'"}, "experiment", "mars"),
        ({"experiment": "[model]\nflavour = 'new'"}, "experiment", "unknown key 'model.flavour'"),
        ({"experiment": "[training]\nlr = 'x'"}, "experiment", "training.lr"),
        ({"protocol": PROTOCOL + 1, "since": PROTOCOL + 1}, "protocol", "one release apart"),
        ({"protocol": PROTOCOL - 1}, "protocol", "speak different versions"),
    ],
)
def test_a_run_that_does_not_fit_is_refused(
    site: Site, changes: dict[str, Any], code: str, detail: str
) -> None:
    answer = site.hello(**changes)
    assert reason(answer) == ("refused", code)
    assert detail in answer["failure"][2]
    assert not (site.folder / "hello.json").exists()
    vehicle = vehicles_of(site.parts)[0]
    assert reason(site.ask("train", vehicle)[0]) == ("refused", "unknown-run")
    assert "enrolments" in site.hello()  # and the next one may fit


PATHS = ("cache", "start", "pretrained", "file", "label_space")
"""Fields of an experiment that name something of the machine that reads them."""


@pytest.mark.parametrize("text", ["$FLEETSEG_SECRET/x", "~/x"])
def test_the_server_s_words_mean_nothing_in_this_machine_s_environment(
    text: str, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is the same whether a variable is set, is a folder, or is not there."""
    told = experiment_for_vehicles(site.parts.experiment)
    for name in PATHS:
        asked, number = re.subn(rf'(?m)^{name} = "[^"]*"$', f'{name} = "{text}"', told)
        assert number >= 1, name
        answers = set()
        for value in ("/nowhere", str(tmp_path)):
            monkeypatch.setenv("HOME", value)
            monkeypatch.setenv("FLEETSEG_SECRET", value)
            if value == "/nowhere":
                monkeypatch.delenv("FLEETSEG_SECRET")
            site.start()
            answers.add(json.dumps(site.hello(experiment=asked)))
        assert len(answers) == 1, name
        assert str(tmp_path) not in answers.pop()
    assert not list(tmp_path.glob("x*"))


def test_a_newer_server_is_served_where_nothing_new_is_asked_for(site: Site) -> None:
    text = experiment_for_vehicles(site.parts.experiment)
    newer = {"protocol": PROTOCOL + 1, "since": PROTOCOL}
    later = text.replace("[training]", "[training]\nflavour = 0.5").replace(
        "[model]", "[m]\na = 1\n[model]"
    )
    told = site.hello(**newer, experiment=later, defaults=["training.flavour", "m.a"])
    assert "enrolments" in told
    told = site.hello(**newer, experiment=later, defaults=["m.a"], run="run-2")
    assert reason(told) == ("refused", "experiment")
    assert "unknown key 'training.flavour'" in told["failure"][2]


def test_clocks_may_differ_a_little(site: Site) -> None:
    assert "enrolments" in site.hello(time=time.time() - 200)


def test_what_nobody_opened_is_refused(site: Site) -> None:
    vehicle = vehicles_of(site.parts)[0]
    assert reason(site.ask("train", vehicle)[0]) == ("refused", "unknown-run")
    site.hello()
    assert reason(site.ask("train", vehicle, run="run-2")[0]) == ("refused", "unknown-run")
    assert reason(site.ask("train", "stranger")[0]) == ("refused", "unknown-vehicle")
    assert reason(site.ask("evaluate", vehicle, vehicles={})[0]) == ("refused", "unknown-vehicle")
    told = site.ask("train", vehicle, payload=b"garbage")
    assert (reason(told[0]), told[1]) == (("refused", "malformed"), b"")


def test_a_farewell_is_noted(site: Site) -> None:
    site.hello()
    answer, data = site.trainer.answer({"what": "revoked", "run": "run-1", "task": "f"}, b"")
    assert (reason(answer), data) == (("refused", "revoked"), b"")
    assert "revoked" in site.said[-1]


def test_another_run_takes_the_place_of_the_first(site: Site) -> None:
    site.hello()
    vehicle = vehicles_of(site.parts)[0]
    first = site.ask("train", vehicle)
    site.hello(run="run-2")
    assert reason(site.ask("train", vehicle)[0]) == ("refused", "unknown-run")
    assert site.ask("train", vehicle, run="run-2") == first


def test_what_vehicles_remember_of_old_runs_goes(site: Site) -> None:
    for number in range(5):
        site.hello(run=f"run/{number}")
        time.sleep(0.01)
    kept = sorted(path.name for path in (site.folder / "runs").iterdir())
    assert kept == ["run_2", "run_3", "run_4"]


# A new process


def test_a_new_process_goes_on_with_the_run(site: Site) -> None:
    site.hello()
    vehicle = vehicles_of(site.parts)[0]
    first = site.ask("train", vehicle)
    site.start()
    assert site.ask("train", vehicle) == first
    assert reason(site.ask("train", vehicle, run="run-2")[0]) == ("refused", "unknown-run")


def test_a_new_process_goes_on_with_a_run_that_is_hours_old(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.hello()
    vehicle = vehicles_of(site.parts)[0]
    first = site.ask("train", vehicle)
    site.start()
    later = time.time() + 7200
    monkeypatch.setattr(trainer_module.time, "time", lambda: later)
    assert site.ask("train", vehicle) == first


@pytest.mark.parametrize("content", ["", "{", "[1]", "\udcff"])
def test_a_new_process_whose_notes_are_damaged_waits_for_the_run_to_be_opened(
    site: Site, content: str
) -> None:
    site.hello()
    vehicle = vehicles_of(site.parts)[0]
    (site.folder / "hello.json").write_bytes(content.encode(errors="surrogateescape"))
    site.start()
    assert reason(site.ask("train", vehicle)[0]) == ("refused", "unknown-run")
    site.hello()
    assert parse_failure(site.ask("train", vehicle)[0]) is None


# What goes out


def test_every_answer_is_one_line_of_the_list(site: Site) -> None:
    one, two = vehicles_of(site.parts)[:2]
    answers = [
        ("hello", SITE, (site.hello(), b"")),
        ("train", one, site.ask("train", one)),
        ("train", one, site.ask("train", one)),  # from memory; it goes out again
        ("evaluate", two, site.ask("evaluate", two)),
        ("failure", "stranger", site.ask("train", "stranger")),
        ("failure", SITE, (site.hello(protocol=0), b"")),
    ]
    lines = site.sent
    assert [(line["kind"], line["vehicle"]) for line in lines] == [a[:2] for a in answers]
    for line, (_, _, (header, payload)) in zip(lines, answers, strict=True):
        assert line["sha256"] == message_digest(header, payload)
        assert line["bytes"] == len(json.dumps(header).encode()) + len(payload)
        assert line["fields"] == sorted(header)


def test_what_is_not_in_the_list_does_not_leave(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.hello()
    vehicle = vehicles_of(site.parts)[0]

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(site.trainer._egress.message_log, "append", full)
        answer, data = site.ask("train", vehicle)
    assert (reason(answer), data) == (("lost", "disk"), b"")
    assert "No space left on device; nothing is sent" in site.said[-1]
    assert len(site.sent) == 1
    answer, data = site.ask("train", vehicle)  # there is room again
    assert answer == {"update": 1}
    assert len(site.sent) == 2


def test_a_folder_that_cannot_be_written_sends_nothing(site: Site) -> None:
    site.hello()
    log = site.folder / "logs" / "egress.jsonl"
    log.unlink()
    log.mkdir()
    answer, data = site.ask("train", vehicles_of(site.parts)[0])
    assert (reason(answer), data) == (("lost", "disk"), b"")


SECRET = "secret-place"


def bad_site_data(root: Path) -> dict[str, SiteData]:
    camvid = SourceConfig(kind="camvid", root=str(root))
    amber = SourceConfig(cities=("amber",), conditions=("day",), frames_per_drive=2)
    split = root / "split.json"
    return {
        "no folder": SiteData(SITE, (camvid.model_copy(update={"root": str(root / "none")}),)),
        "no images": SiteData(SITE, (camvid,)),
        "a file": SiteData(SITE, (camvid.model_copy(update={"root": str(root / "a.png")}),)),
        "no split file": SiteData(SITE, (amber,), str(root / "none.json")),
        "a bad split file": SiteData(SITE, (amber,), str(split)),
        "no vehicle": SiteData(SITE, (amber,), vehicles=("stranger",)),
        "no experiment": SiteData(SITE, experiment=str(root / "none.toml")),
        "unreadable images": SiteData(SITE, (camvid.model_copy(update={"split": "val"}),)),
    }


@pytest.mark.parametrize("what", bad_site_data(Path()))
def test_no_path_and_no_file_name_goes_out(
    what: str, parts: RunSetup, cache: Path, tmp_path: Path
) -> None:
    root = tmp_path / SECRET
    for folder in ("train", "trainannot", "val", "valannot"):
        (root / folder).mkdir(parents=True)
    for folder in ("val", "valannot"):
        (root / folder / "private-0001.png").write_bytes(b"no picture")
    (root / "a.png").write_bytes(b"")
    (root / "split.json").write_text('{"user_data": {"x": {"x": ["secret-picture.png"]}}}')
    site = made(parts, tmp_path, bad_site_data(root)[what])
    answer = site.hello()
    assert answer["failure"][0] == "abstained"
    told = json.dumps(answer)
    for private in (SECRET, str(tmp_path), "private-0001", "secret-picture", "a.png", ".json"):
        assert private not in told
    assert len(site.sent) == 1
    # This side hears more.
    heard = {"no vehicle": "no vehicle named 'stranger'", "unreadable images": "no usable labelled"}
    assert heard.get(what, SECRET) in " ".join(site.said)


# The process


def test_work_counts_the_samples_it_reads(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "progress"
    site.trainer = Trainer(site.folder, site.said.append, ProgressPage(path))
    began: list[Any] = []
    begin = site.trainer._page.begin
    site.trainer._page.begin = lambda phase, patience_s: (
        began.append((phase, patience_s))
        or begin(  # type: ignore[method-assign,func-returns-value]
            phase, patience_s
        )
    )

    def steps() -> int:
        read = read_progress(path)
        assert read is not None
        return read.steps

    site.hello()
    vehicle, client = next(iter(site.parts.fleet_data.clients.items()))
    before = steps()
    site.ask("train", vehicle)
    settings = site.parts.experiment.training
    batches = num_steps(client.enrolment.num_images, settings)
    assert steps() - before > batches  # one for the task, one for each sample of each batch
    before = steps()
    site.ask("evaluate", vehicle)
    assert steps() - before == 1 + len(client.test)
    site.ask("hop", vehicle)
    opening_s, stalled_s = trainer_module._OPENING_S, site.parts.experiment.fleet.stalled_s
    assert began == [
        ("hello", opening_s),
        ("train", stalled_s),
        ("evaluate", stalled_s),
        ("hop", math.inf),
    ]
    assert site.trainer._patience_s("idle") == stalled_s
    site.start()  # a new process opens the data within its first task
    assert site.trainer._patience_s("train") == opening_s
    assert site.trainer._patience_s("idle") == trainer_module._IDLE_S


def test_requests_are_served_one_after_another_until_the_folder_goes(site: Site) -> None:
    sockets = private_directory()
    listener = Listener(sockets / "trainer")
    serving = threading.Thread(target=site.trainer.serve, args=(listener,), daemon=True)
    serving.start()
    gone = connect(listener.path)  # asks and hangs up before the answer
    gone.send({"what": "revoked", "run": "run-1"})
    gone.close()
    for _ in range(2):
        connection = connect(listener.path)
        for vehicle in ("x", "y"):
            connection.send(
                {"what": "train", "run": "r", "round": 1, "vehicles": {SITE: vehicle}}, b"payload"
            )
            told = connection.receive(timeout_s=20)
            assert told is not None
            assert reason(told[0]) == ("refused", "unknown-run")
        connection.close()
    until(lambda: len(site.sent) == 5, "every request is answered")
    shutil.rmtree(sockets)
    serving.join(20)
    assert not serving.is_alive()
    listener.close()


# Classes of the fleet's own


def test_classes_of_the_fleets_own_come_with_the_hello(tmp_path: Path) -> None:
    folder = tmp_path / "depot"
    for number in range(3):
        image_HWC = np.full((64, 64, 3), 80 * number, np.uint8)
        for name, array in (("images", image_HWC), ("masks", image_HWC[..., 0] // 100)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / name / f"{number}.png")
    (folder / "classes.toml").write_text('classes = ["floor", "person"]\n')
    experiment = make_experiment(
        {
            "data": {
                "label_space": str(folder / "classes.toml"),
                "size": [64, 64],
                "cache": str(tmp_path / "cache"),
                "sources": [{"kind": "folder", "root": str(folder)}],
            },
            "engine": {"kind": "inprocess", "precision": "fp32"},
        }
    )
    parts = set_up(
        experiment, open_fleet_data(experiment), tmp_path / "run", None, rounds.Watcher()
    )
    assert str(tmp_path) not in experiment_for_vehicles(experiment)
    site = made(parts, tmp_path, SiteData(SITE, sources=experiment.data.sources))
    space = parts.fleet_data.space
    answer = site.hello(space=write_space(space))
    (enrolment,) = read_enrolments(answer["enrolments"], 2).values()
    assert enrolment.num_images == 3
    assert site.ask("train", SITE)[0] == {"update": 1}
    others = replace(space, classes=("person", "floor"))
    refused = site.hello(run="run-2", space=write_space(others), labels=labels_digest(others))
    assert reason(refused) == ("abstained", "ConfigError")
    assert "no projection from label space" in " ".join(site.said)
    for wrong in (None, {}, {**write_space(space), "colours": []}):
        kind, _, why = site.hello(run="run-3", space=wrong)["failure"]
        assert kind == "refused"
        assert "a label space that cannot be read" in why


def test_a_hello_has_the_classes_only_where_they_are_no_built_in_ones(parts: RunSetup) -> None:
    spec = RunSpec(
        "run",
        parts.experiment,
        parts.runtime.exchange,
        parts.fleet_data.space,
        PlainCodec(parts.runtime.exchange.wire),
    )
    assert "space" not in hello(spec)[0]
    own = replace(parts.fleet_data.space, name="mine")
    assert read_space(json.loads(json.dumps(hello(replace(spec, space=own))[0]))["space"]) == own


def test_inputs_are_normalised_as_the_server_s_network_has_them(
    parts: RunSetup, cache: Path, tmp_path: Path
) -> None:
    """Start weights come with a normalisation of their own, and vehicles have no start weights."""
    source = SourceConfig(cities=("amber",), conditions=("day",), frames_per_drive=3)
    answers = []
    for number, other in enumerate(([], [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]])):
        folder = tmp_path / str(number)
        folder.mkdir()
        site = made(parts, folder, SiteData(SITE, (source,)))
        site.hello(**({"normalisation": other} if other else {}))
        answers.append(site.ask("train", SITE, vehicles={})[1])
    assert answers[0] != answers[1]
    spec = run_spec(parts)
    assert hello(spec)[0]["normalisation"] == [list(p) for p in parts.runtime.model.normalisation]


def test_features_from_imagenet_need_their_weights_on_the_vehicle(site: Site) -> None:
    """They are not sent, so that a vehicle says before the first round that it has none."""
    training = {"feature_distance": {"weight": 0.005}}
    described = make_experiment({"training": training, "data": {"size": [48, 64]}})
    answer = site.hello(experiment=experiment_for_vehicles(described))
    assert reason(answer) == ("abstained", "ConfigError")
    assert "there are none for model 'fast_scnn'" in " ".join(site.said)
