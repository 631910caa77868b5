"""What scores were taken on is part of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.records import record, scored
from torch import nn

import fleetseg
from fleetseg import rng
from fleetseg.clients import EvaluationSet, FleetData
from fleetseg.config import Experiment
from fleetseg.data.labels import LabelSpace
from fleetseg.data.sample import ScoredPairs
from fleetseg.errors import ConfigError, DataError
from fleetseg.evaluation.scored import Scored
from fleetseg.experiment_file import make_experiment
from fleetseg.federation.client import Client, LocalRuntime
from fleetseg.federation.cohort import SAMPLERS
from fleetseg.federation.engine import Meter, Received
from fleetseg.federation.messages import Broadcast, Enrolment, Evaluation, Failure
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.sharing import SHARING, Exchange
from fleetseg.federation.tensors import ModelState, layout_of, read_state
from fleetseg.learning.hardware import Hardware
from fleetseg.models.build import wrap
from fleetseg.runs.scoring import Scorer

SPACE = LabelSpace("two", ("road", "car"), ((0, 0, 0), (9, 9, 9)), ("car",))
HARD, EASY = np.array([[1, 1], [1, 0]]), np.array([[4, 0], [0, 4]])


@dataclass
class Engine:
    """Clients that answer with the matrix written here, or not at all."""

    confs: Mapping[str, Any]
    test_pixels: Mapping[str, int]
    tasks: list[str] = field(default_factory=list)
    facts: list[list[str]] = field(default_factory=list)

    def available(self) -> Mapping[str, Enrolment]:
        return {c: Enrolment(c, 1, 8, (4, 4), "", n) for c, n in self.test_pixels.items()}

    def ask(
        self, task: str, asks: Mapping[str, Broadcast], deadline_s: float = 0.0
    ) -> Iterator[Received]:
        self.tasks.append(task)
        self.facts.append(sorted(next(iter(asks.values())).facts))
        for name, broadcast in asks.items():
            conf_CC = self.confs.get(name)
            if conf_CC is None:
                yield Failure(name, "lost", "no-answer")
            else:
                yield Evaluation(broadcast.round, name, {"rain": conf_CC})

    def meter(self) -> Meter:
        return Meter()


def scorer(
    engine: Engine, clients: Mapping[str, Client] | None = None, **fleet_data: Any
) -> tuple[Scorer, ModelState]:
    model = wrap(nn.Conv2d(3, 2, 1), 2)
    layout = layout_of(model)
    runtime = LocalRuntime(
        model, Exchange.of(layout), Experiment(), Hardware(torch.device("cpu"), "fp32"), 2
    )
    known = FleetData(SPACE, clients or {}, **{"evaluation": (), "manifest": None, **fleet_data})
    return Scorer(known, runtime, engine), read_state(model, layout)


def scores(made: tuple[Scorer, ModelState], records: Sequence[RoundRecord] = ()) -> Scored:
    scored = made[0].score(made[1], 1, records)
    assert isinstance(scored, Scored)
    return scored


def test_a_client_that_is_missing_is_told() -> None:
    engine = Engine({"a": EASY, "b": HARD}, {"a": 8, "b": 8})
    whole = scores(scorer(engine, holds_out=True))
    assert (whole.scored_on, whole.missing) == (("a", "b"), ())
    assert whole.miou is not None
    assert whole.miou < 0.8

    part = scores(scorer(Engine({"a": EASY}, {"a": 8, "b": 8}), holds_out=True))
    assert part.miou == 1.0
    assert (part.scored_on, part.missing) == (("a",), ("b",))


def test_a_client_that_has_left_is_missing_too() -> None:
    gone = scorer(Engine({"a": EASY}, {"a": 8}), holds_out=True)
    earlier = record(scored=scored(0.5, on="ab"))
    assert scores(gone, [earlier]).missing == ("b",)


def test_nobody_answers() -> None:
    silent, state = scorer(Engine({}, {"a": 8, "b": 8}), holds_out=True)
    told = "no scores from a: no-answer; no scores from b: no-answer"
    assert silent.score(state, 1) == told


def test_a_client_without_test_frames_is_not_asked_and_not_missing() -> None:
    engine = Engine({"a": EASY, "b": HARD}, {"a": 8, "b": 0})
    some = scores(scorer(engine, holds_out=True))
    assert (some.scored_on, some.missing) == (("a",), ())


@pytest.mark.parametrize(("holds_out", "frames"), [(True, "held-out"), (False, "training")])
def test_scores_of_clients_say_of_which_frames(holds_out: bool, frames: str) -> None:
    some, state = scorer(Engine({"a": EASY}, {"a": 8}), holds_out=holds_out)
    scored, refused = some.with_clients(None, state, 1)
    assert scored.clients_on == f"{frames} frames"
    assert (scored.miou, scored.by_client["a"].miou) == (None, 1.0)
    assert refused == []


def test_counts_are_kept_with_the_ratios() -> None:
    """Ratios cannot be pooled afterwards; counts can."""
    some = scores(scorer(Engine({"a": EASY}, {"a": 8}), holds_out=True))
    assert some.to_dict()["confusion"] == [[4, 0], [0, 4]]
    assert some.conf_by_domain["rain"].tolist() == [[4, 0], [0, 4]]


def with_own_models(made: Scorer, scored_when: str, sharing: str = "all") -> Scorer:
    runtime = made._runtime
    experiment = make_experiment(
        {"personal": {"model": "fine-tuned", "scored": scored_when}, "evaluation": {"every": 1}}
    )
    settings = experiment.federation.model_copy(update={"sharing": sharing})
    exchange = Exchange.of(runtime.exchange.model, settings)
    made._runtime = replace(runtime, experiment=experiment, exchange=exchange)
    return made


def test_own_models_stand_beside_the_global_one() -> None:
    engine = Engine({"a": EASY, "b": HARD}, {"a": 8, "b": 8, "silent": 8, "none": 0})
    made, state = scorer(engine, holds_out=True)
    ready = with_own_models(made, "end")
    scored, amiss = ready.with_personal(None, state, 3, [], {"fact": np.zeros(1, np.float32)})
    assert engine.tasks == ["evaluate", "evaluate-personal"]
    assert engine.facts == [[], ["fact"]]  # class weights come of them
    assert scored.personal == "fine-tuned"
    assert scored.by_client.keys() == scored.by_client_personal.keys() == {"a", "b"}
    assert scored.by_client_personal["a"].miou == 1.0
    assert amiss == [
        "no scores from silent: no-answer",
        "personal: no scores from silent: no-answer",
    ]


def test_the_global_model_is_scored_without_what_clients_keep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(SHARING, "part", lambda entry, settings: not entry.key.endswith("bias"))
    engine = Engine({"a": EASY}, {"a": 8})
    made, state = scorer(engine, holds_out=True)
    with_own_models(made, "end", "part").with_personal(None, state, 3, [], {})
    assert engine.tasks == ["evaluate-global", "evaluate-personal"]


@pytest.mark.parametrize(("when", "extra"), [("end", []), ("always", ["evaluate-personal"])])
def test_own_models_are_scored_in_rounds_if_that_is_asked_for(when: str, extra: list[str]) -> None:
    engine = Engine({"a": EASY}, {"a": 8})
    made, state = scorer(engine, holds_out=True)
    scored = with_own_models(made, when).score(state, 1)
    assert isinstance(scored, Scored)
    assert engine.tasks[-1:] == (extra or ["evaluate"])
    assert bool(scored.personal) == bool(extra)


def client(name: str, domains: frozenset[str] | None) -> Client:
    return Client(Enrolment(name, 1, 8, (4, 4)), (), train_domains=domains)


def test_seen_are_the_domains_of_the_clients_at_hand() -> None:
    """A vehicle alone has not seen what the rest of the fleet sees; a server does not know."""
    both = {"a": client("a", frozenset({"day"})), "b": client("b", frozenset({"rain"}))}
    assert FleetData(SPACE, both, (), None).seen_domains == {"day", "rain"}
    assert FleetData(SPACE, {"a": both["a"]}, (), None).seen_domains == {"day"}
    assert FleetData(SPACE, {}, (), None).seen_domains is None
    assert FleetData(SPACE, {**both, "c": client("c", None)}, (), None).seen_domains is None


def test_without_known_domains_nothing_is_called_seen_or_unseen() -> None:
    image_HWC = np.zeros((4, 4, 3), np.uint8)
    pairs = [(image_HWC, np.eye(4, dtype=np.uint8))] * 2
    sets = (EvaluationSet("set", ScoredPairs(pairs, ("day", "rain"))),)
    for clients, told in (({}, False), ({"a": client("a", frozenset({"day"}))}, True)):
        scored = scores(scorer(Engine({}, {}), clients, evaluation=sets))
        assert set(scored.by_side) == ({"seen", "unseen"} if told else set())
        assert set(scored.by_domain) == {"day", "rain"}


def part_shared(tmp_path: Path, name: str, **evaluation: Any) -> fleetseg.Run:
    """Run three rounds on own data in which only vehicle "a" is ever asked."""
    draw = np.random.Generator(np.random.Philox(0))
    images = draw.integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    pairs = [(image, (image[..., 0] > 127).astype(np.uint8)) for image in images]
    with rng.torch_default(0, purpose="part-shared"):
        net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    federation = {"sharing": name, "rounds": 3, "cohort": 1, "sampler": "first"}
    sets = {"evaluation": {"set": pairs[6:]}} if evaluation.pop("server", True) else {}
    return fleetseg.run(
        make_experiment(
            {
                "data": {"size": [8, 8]},
                "training": {"batch_size": 2, "scale": [1.0, 1.0]},
                "federation": federation,
                "evaluation": evaluation,
                "engine": {"kind": "inprocess"},
            }
        ),
        net=net,
        clients={"a": pairs[:3], "b": pairs[3:6]},
        out=tmp_path / "run",
        space=SPACE,
        **sets,
    )


@pytest.fixture
def first_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SAMPLERS, "first", lambda enrolled, count, draw, settings: ["a"])


@pytest.mark.usefixtures("first_only")
@pytest.mark.parametrize(
    ("name", "norms", "told"),
    [
        ("silobn", "running", "'silobn' on set: this model cannot be scored with running"),
        ("silobn", "adapted", "cannot be scored with running statistics"),
        ("fedbn", "domain", "cannot be scored without a client: 2 of its tensors"),
    ],
)
def test_a_model_that_is_not_whole_is_not_scored_by_its_start_values(
    name: str, norms: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=told):
        part_shared(tmp_path, name, norms=norms)
    assert not list(tmp_path.glob("run/checkpoints/*"))  # before a round is run


@pytest.mark.usefixtures("first_only")
def test_norm_statistics_are_part_of_scores_and_of_what_a_model_says(tmp_path: Path) -> None:
    run = part_shared(tmp_path, "silobn", norms="domain", on_clients=True)
    assert run.scores is not None
    assert run.scores.norms == "domain of batches of 8"
    assert run.scores.clients_norms == "running"
    assert run.records[0].to_dict()["scores"]["norms"] == "domain of batches of 8"
    # Who never trained has no statistics of its own, and start values are nobody's.
    assert list(run.scores.by_client) == ["a"]
    assert any("no scores from b: untrained" in note for note in run.notes)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    model = run.model_with(net)
    assert set(model.untrained) == {
        "net.1.running_mean", "net.1.running_var", "net.1.num_batches_tracked",
    }  # fmt: skip
    image = np.zeros((8, 8, 3), np.uint8)
    pairs = {"set": [(image, np.zeros((8, 8), np.uint8)), (image + 9, np.ones((8, 8), np.uint8))]}
    for norms in (None, "running", "adapted"):
        with pytest.raises(ConfigError, match="only their start values are here"):
            fleetseg.evaluate(model, pairs, norms=norms)
    assert fleetseg.evaluate(model, pairs, norms="batch").norms == "batch of batches of 8"
    with pytest.raises(ConfigError, match="only their start values are here"):
        fleetseg.predict(model, image)
    with pytest.raises(ConfigError, match="read once"):
        fleetseg.predict(model, image, norms="domain")
    assert [m.shape for m in fleetseg.predict(model, [image, image], norms="batch")] == [(8, 8)] * 2


@pytest.mark.usefixtures("first_only")
def test_silobn_learns_what_fedavg_learns(tmp_path: Path) -> None:
    """Training takes each batch's statistics: where running ones are kept decides scores only."""
    runs = {name: part_shared(tmp_path / name, name, norms="domain") for name in ("all", "silobn")}
    values = {
        name: run.model_with(
            nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
        ).state_dict()
        for name, run in runs.items()
    }
    for key, value in values["all"].items():
        is_statistic = key.startswith("net.1.") and key.split(".")[2] not in ("weight", "bias")
        assert torch.equal(value, values["silobn"][key]) != is_statistic, key
    assert runs["all"].scores is not None
    assert runs["silobn"].scores is not None
    assert runs["all"].scores.to_dict() == runs["silobn"].scores.to_dict()


@pytest.mark.usefixtures("first_only")
def test_clients_with_norms_of_their_frames_need_nothing_of_their_own(tmp_path: Path) -> None:
    run = part_shared(tmp_path, "silobn", server=False, on_clients=True, norms_on_clients="domain")
    assert run.scores is not None
    assert list(run.scores.by_client) == ["a", "b"]
    assert run.scores.to_dict()["by_client_norms"] == "domain of batches of 8"


def test_a_domain_of_one_image_is_told_before_any_round(tmp_path: Path) -> None:
    """A layer after global pooling has no statistics of it."""
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    image, label = np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), np.uint8)
    with pytest.raises(DataError, match="one value per channel"):
        fleetseg.run(
            make_experiment({"data": {"size": [8, 8]}, "evaluation": {"norms": "batch"}}),
            net=net,
            clients={"a": [(image, label), (image + 5, label)]},
            evaluation={"set": [(image, label)]},
            out=tmp_path / "run",
            space=SPACE,
        )


def test_who_comes_in_between_is_not_asked() -> None:
    """Vehicles come and go at any time: who is there is asked once."""

    class Growing(Engine):
        calls = 0

        def available(self) -> Mapping[str, Enrolment]:
            self.calls += 1
            everybody = super().available()
            return everybody if self.calls > 1 else {"a": everybody["a"]}

    engine = Growing({"a": EASY, "late": EASY}, {"a": 8, "late": 8})
    found = scores(scorer(engine, holds_out=True))
    assert (found.scored_on, found.missing) == (("a",), ())


def test_scoring_has_the_rounds_deadline() -> None:
    """Of a vehicle that is alive and never answers nothing else would be the end."""
    waited: list[float] = []

    class Patient(Engine):
        def ask(
            self, task: str, asks: Mapping[str, Broadcast], deadline_s: float = 0.0
        ) -> Iterator[Received]:
            waited.append(deadline_s)
            return super().ask(task, asks)

    made, model = scorer(Patient({"a": EASY}, {"a": 8}), holds_out=True)
    made._runtime = replace(
        made._runtime, experiment=make_experiment({"federation": {"deadline_s": 7.0}})
    )
    made.score(model, 1)
    assert waited == [7.0]
