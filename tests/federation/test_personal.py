"""Models of the clients' own: Ditto's steps by hand, what survives absence, what newcomers get."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.experiments import tiny_experiment
from torch import Tensor, nn

import fleetseg
from fleetseg import rng
from fleetseg.data.labels import LabelSpace
from fleetseg.data.sample import ScoredPairs
from fleetseg.engines.runtime import local_runtime
from fleetseg.evaluation.norms import Norms
from fleetseg.experiment_file import make_experiment
from fleetseg.federation.client import Client, LocalRuntime
from fleetseg.federation.client_state import ClientStateStore
from fleetseg.federation.messages import Broadcast, Counted, Enrolment, Evaluation, Update
from fleetseg.federation.personal import steps_beside
from fleetseg.federation.tasks import CLIENT_TASKS
from fleetseg.federation.tasks import evaluate as evaluate_module
from fleetseg.federation.tasks.train import client_update
from fleetseg.federation.tensors import ModelState, read_state
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.local import train_locally
from fleetseg.learning.supervision import SUPERVISION, StepLoss, Supervision
from fleetseg.models.build import wrap
from fleetseg.models.segmenter import Segmenter

CPU = Hardware(torch.device("cpu"), "fp32")
CURVE, CENTRE = 2.0, 5.0
LR = 0.1


class Scalar(nn.Module):
    """One number, whose logits do not matter."""

    def __init__(self) -> None:
        super().__init__()
        self.y = nn.Parameter(torch.zeros(1))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return self.y * images_NCHW[:, :2]


def _quadratic(inputs: LocalInputs) -> StepLoss:
    def loss(model: Any, images: Tensor, labels: Tensor) -> Tensor:
        value: Tensor = CURVE / 2 * (model.net.y - CENTRE).square().sum()
        return value

    return loss


@pytest.fixture(autouse=True)
def quadratic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SUPERVISION, "quadratic", Supervision(_quadratic))


def space(classes: int) -> LabelSpace:
    return LabelSpace("letters", tuple("abc"[:classes]), ((0, 0, 0),) * classes, ())


def quadratics(folder: Path, steps: int = 2, **personal: Any) -> LocalRuntime:
    training = {
        "supervision": "quadratic", "schedule": "constant", "lr": LR, "momentum": 0.0,
        "weight_decay": 0.0, "local_steps": 3, "scale": [1.0, 1.0],
    }  # fmt: skip
    described = make_experiment(
        {
            "data": {"size": [4, 4]},
            "training": training,
            "personal": {"model": "ditto", "steps": steps, **personal},
        }
    )
    return local_runtime(described, wrap(Scalar(), 2), CPU, space(2), ClientStateStore(folder))


def client(name: str = "car", count: int = 2, size: int = 4, classes: int = 2) -> Client:
    generator = np.random.Generator(np.random.Philox(count))
    pairs = [
        (
            generator.integers(0, 256, (size, size, 3), dtype=np.uint8),
            generator.integers(0, classes, (size, size), dtype=np.uint8),
        )
        for _ in range(count)
    ]
    pixels = count * size * size
    histogram = tuple(np.bincount(np.stack([p[1] for p in pairs]).ravel(), minlength=classes))
    enrolment = Enrolment(name, count, pixels, tuple(map(int, histogram)), "", pixels)
    return Client(enrolment, pairs, ScoredPairs(pairs, ("day",) * count))


def sent(value: float, round_: int, counted: int | None = None) -> Broadcast:
    no_counters = torch.empty(0, dtype=torch.int64)
    told = None if counted is None else Counted(counted)
    return Broadcast(round_, ModelState(torch.tensor([value]), no_counters), counted=told)


def own(runtime: LocalRuntime, name: str = "car", after: int = 99) -> float:
    assert runtime.memory is not None
    return float(runtime.memory.load(name, after + 1)["personal/values"])


def pulled(v: float, received: float, pull: float, steps: int = 2) -> float:
    """v <- v - lr (a (v - b) + lambda (v - w)), as the paper's Algorithm 1 has it."""
    for _ in range(steps):
        v -= LR * (CURVE * (v - CENTRE) + pull * (v - received))
    return v


def test_ditto_by_hand_the_pull_is_to_what_was_received(tmp_path: Path) -> None:
    """Were the anchor the updated y, as in some codes, or v's own start, v would be another."""
    runtime = quadratics(tmp_path, pull=0.5)
    reply = client_update(sent(1.0, 1), client(), runtime)
    assert isinstance(reply, Update)
    first = pulled(1.0, 1.0, 0.5)
    assert own(runtime) == pytest.approx(first)
    client_update(sent(-2.0, 2), client(), runtime)
    assert own(runtime) == pytest.approx(pulled(first, -2.0, 0.5))


def test_the_update_is_what_it_would_be_alone(tmp_path: Path) -> None:
    with_v, alone = quadratics(tmp_path / "v"), quadratics(tmp_path / "alone", model="none")
    replies = [client_update(sent(1.0, 1), client(), runtime) for runtime in (with_v, alone)]
    changes = [reply.change.values_F for reply in replies if isinstance(reply, Update)]
    assert changes[0].item() == changes[1].item()
    y = 1.0
    for _ in range(3):
        y -= LR * CURVE * (y - CENTRE)
    assert changes[0].item() == pytest.approx(y - 1.0)


def test_without_a_pull_v_trains_alone(tmp_path: Path) -> None:
    """What the client receives makes no difference but for its first round."""
    ends = []
    for later in (1.0, 100.0):
        runtime = quadratics(tmp_path / str(later), pull=0.0)
        for round_, value in enumerate((1.0, later, later), 1):
            client_update(sent(value, round_), client(), runtime)
        ends.append(own(runtime))
    assert ends[0] == ends[1] == pytest.approx(pulled(1.0, 0.0, 0.0, steps=6))


def test_a_strong_pull_leaves_v_with_the_fleet(tmp_path: Path) -> None:
    """The fixed point is (a b + lambda w) / (a + lambda)."""
    runtime = quadratics(tmp_path, steps=300, pull=6.0)
    client_update(sent(1.0, 1), client(), runtime)
    assert own(runtime) == pytest.approx((CURVE * CENTRE + 6.0 * 1.0) / (CURVE + 6.0), rel=1e-5)


@pytest.mark.parametrize(("momentum", "kept"), [(0.0, "reset"), (0.9, "reset"), (0.9, "kept")])
def test_v_is_what_torch_makes_of_the_paper_s_objective(
    momentum: float, kept: str, tmp_path: Path
) -> None:
    """Momentum starts afresh in each round, and is not that of the update, which may be kept."""
    runtime = quadratics(tmp_path, steps=5, pull=0.7)
    changed = {"momentum": momentum, "optimiser_state": kept}
    training = runtime.experiment.training.model_copy(update=changed)
    described = runtime.experiment.model_copy(update={"training": training})
    runtime = replace(runtime, experiment=described)
    v = torch.tensor([1.0], requires_grad=True)
    for round_, w in enumerate((1.0, 3.0), 1):
        client_update(sent(w, round_), client(), runtime)
        sgd = torch.optim.SGD([v], lr=LR, momentum=momentum)
        for _ in range(5):
            sgd.zero_grad()
            loss = CURVE / 2 * (v - CENTRE).square().sum() + 0.7 / 2 * (v - w).square().sum()
            loss.backward()
            sgd.step()
    assert own(runtime) == pytest.approx(v.item(), rel=1e-5)


def test_what_teaches_v_is_the_fleet_s_model_where_that_teaches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not v itself, though no teacher is sent beside a model that is its own."""
    teachers: list[float] = []

    def survey(inputs: LocalInputs, model: Any, pairs: Any) -> None:
        if "teacher" in inputs.references:  # else it is what the model is filled with
            copied = copy.deepcopy(model)
            inputs.references["teacher"](copied)
            model = copied
        teachers.append(model.net.y.item())

    monkeypatch.setitem(SUPERVISION, "quadratic", Supervision(_quadratic, survey=survey))
    runtime = quadratics(tmp_path)
    for round_, value in ((1, 1.0), (2, -2.0)):
        client_update(sent(value, round_), client(), runtime)
    assert teachers == [1.0, 1.0, -2.0, -2.0]  # of the update, and of v


def test_v_survives_absence_and_another_client_s_rounds(tmp_path: Path) -> None:
    runtime = quadratics(tmp_path, pull=0.5)
    client_update(sent(1.0, 1), client("a"), runtime)
    for round_ in range(2, 60):
        client_update(sent(float(round_), round_), client("b"), runtime)
    client_update(sent(7.0, 60), client("a"), runtime)
    assert own(runtime, "a") == pytest.approx(pulled(pulled(1.0, 1.0, 0.5), 7.0, 0.5))


def test_who_comes_late_begins_with_what_it_receives(tmp_path: Path) -> None:
    runtime = quadratics(tmp_path, pull=0.5)
    client_update(sent(-3.0, 41), client("late"), runtime)
    assert own(runtime, "late") == pytest.approx(pulled(-3.0, -3.0, 0.5))


def test_a_round_that_did_not_count_did_not_train_v(tmp_path: Path) -> None:
    runtime = quadratics(tmp_path, pull=0.5)
    client_update(sent(1.0, 1), client(), runtime)
    client_update(sent(50.0, 2), client(), runtime)  # and then it is refused
    client_update(sent(7.0, 5, counted=1), client(), runtime)
    assert own(runtime) == pytest.approx(pulled(pulled(1.0, 1.0, 0.5), 7.0, 0.5))


def test_a_client_on_a_virtual_clock_takes_both_trainings(tmp_path: Path) -> None:
    described = quadratics(tmp_path, steps=2).experiment
    assert steps_beside(40, described.training, described.personal) == 2
    for model in ("none", "own", "fine-tuned"):
        other = described.personal.model_copy(update={"model": model})
        assert steps_beside(40, described.training, other) == 0


# What is scored


def net(classes: int = 3) -> nn.Module:
    with rng.torch_default(0, purpose="personal-test"):
        layers = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, classes, 1)
        )
    return wrap(layers, classes, head_prefixes=["3."])


def runtime_of(folder: Path, **sections: dict[str, Any]) -> LocalRuntime:
    fields: dict[str, dict[str, Any]] = {
        "data": {"size": [8, 8]},
        "training": {"batch_size": 2, "lr": 0.1},
        "federation": {"rounds": 9},
    }
    described = make_experiment({**fields, **sections})
    model = net()
    assert isinstance(model, Segmenter)
    return local_runtime(described, model, CPU, space(3), ClientStateStore(folder))


Scored = dict[str, Tensor]


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scored]:
    """Have a task end with the model that it would score."""

    def ask(task: str, broadcast: Broadcast, runtime: LocalRuntime, name: str = "car") -> Scored:
        found: dict[str, Tensor] = {}

        def look(runtime: LocalRuntime, pairs: ScoredPairs, norms: Norms) -> dict[str, Any]:
            found.update({k: t.clone() for k, t in runtime.model.state_dict().items()})
            return {}

        monkeypatch.setattr(evaluate_module, "score_pairs", look)
        reply = CLIENT_TASKS[task](broadcast, client(name, 4, 8, 3), runtime)
        assert isinstance(reply, Evaluation)
        return found

    return ask


def broadcast_of(runtime: LocalRuntime, round_: int, add: float = 0.0) -> Broadcast:
    state = read_state(runtime.model, runtime.exchange.shared)
    return Broadcast(round_, ModelState(state.values_F + add, state.counters_K))


def differ(one: Scored, other: Scored) -> set[str]:
    return {key for key in one if not torch.equal(one[key], other[key])}


@pytest.mark.parametrize("model", ["own", "ditto"])
def test_who_never_took_part_has_the_global_model(
    model: str, tmp_path: Path, scored: Callable[..., Scored]
) -> None:
    runtime = runtime_of(
        tmp_path, personal={"model": model}, federation={"rounds": 9, "sharing": "body"}
    )
    first, start = broadcast_of(runtime, 1), net().state_dict()
    client_update(first, client("other", 4, 8, 3), runtime)
    late = Broadcast(6, ModelState(first.state.values_F + 0.5, first.state.counters_K))
    common = scored("evaluate-global", late, runtime)
    personal = scored("evaluate-personal", late, runtime)
    assert differ(common, personal) == set()
    heads = {"net.3.weight", "net.3.bias"}
    assert differ(personal, start) == {"net.1.running_mean", "net.1.running_var"} | {
        name for name, _ in net().named_parameters() if name not in heads
    }


def test_what_a_client_keeps_is_its_own_and_the_rest_is_the_fleet_s(
    tmp_path: Path, scored: Callable[..., Scored]
) -> None:
    runtime = runtime_of(
        tmp_path, personal={"model": "own"}, federation={"rounds": 9, "sharing": "body"}
    )
    first = broadcast_of(runtime, 1)
    client_update(first, client("car", 4, 8, 3), runtime)
    trained = {k: t.clone() for k, t in runtime.model.state_dict().items()}
    client_update(first, client("other", 4, 8, 3), runtime)
    for round_ in (1, 40):  # an absence makes no difference
        asked = replace(first, round=round_)
        personal = scored("evaluate-personal", asked, runtime)
        common = scored("evaluate-global", asked, runtime)
        assert differ(common, personal) == {"net.3.weight", "net.3.bias"}
        assert torch.equal(personal["net.3.weight"], trained["net.3.weight"])


def test_a_head_that_nobody_trains_is_nobody_s_own(tmp_path: Path) -> None:
    """FedBABU's clients keep nothing."""
    runtime = runtime_of(
        tmp_path,
        federation={"rounds": 9, "sharing": "body"},
        training={"batch_size": 2, "lr": 0.1, "phases": [{"learns": "body"}]},
    )
    first = broadcast_of(runtime, 1)
    reply = client_update(first, client("car", 4, 8, 3), runtime)
    assert isinstance(reply, Update)
    assert reply.change.values_F.abs().max() > 0
    assert list(tmp_path.rglob("*.safetensors")) == []
    assert torch.equal(
        runtime.model.state_dict()["net.3.weight"], net().state_dict()["net.3.weight"]
    )


@pytest.mark.parametrize(("learns", "moves"), [("all", "0123"), ("head", "3")])
def test_fine_tuning_is_training_from_the_global_model_at_a_constant_rate(
    learns: str, moves: str, tmp_path: Path, scored: Callable[..., Scored]
) -> None:
    runtime = runtime_of(
        tmp_path,
        personal={"model": "fine-tuned", "epochs": 3, "lr": 0.05, "learns": learns},
        training={"batch_size": 2, "lr": 0.1, "objective": "prox", "local_epochs": 7},
    )
    last = broadcast_of(runtime, 9)  # where the schedule of the rounds has come to its end
    common = scored("evaluate-global", last, runtime)
    personal = scored("evaluate-personal", last, runtime)
    assert {key[4] for key in differ(common, personal)} <= set(moves)
    by_hand = net()
    phases = [] if learns == "all" else [{"learns": learns}]
    asked = {"batch_size": 2, "lr": 0.05, "schedule": "constant", "local_epochs": 3}
    training = make_experiment({"training": {**asked, "phases": phases}}).training
    context = RoundContext(0, 9, 9, "car")
    inputs = LocalInputs(context, training, (8, 8), CPU)
    train_locally(by_hand, client("car", 4, 8, 3).train, inputs)
    assert differ(personal, by_hand.state_dict()) == set()
    assert runtime.memory is not None
    assert runtime.memory.load("car", 99) == {}
    assert differ(scored("evaluate-personal", last, runtime), personal) == set()


# In a run


@pytest.mark.parametrize("model", ["own", "fine-tuned", "ditto"])
def test_scores_stand_side_by_side_and_say_who_was_never_asked(model: str, tmp_path: Path) -> None:
    described = tiny_experiment(
        tmp_path / "cache",
        data={"evaluation": []},
        partition={"holdout": 0.4, "holdout_gap": 0},
        federation={"rounds": 2, "cohort": 1, "sharing": "body"},
        personal={"model": model, "scored": "always", "steps": 20},
        training={"lr": 0.5, "local_steps": 20, "class_weights": "fleet"},
    )
    run = fleetseg.run(described, out=tmp_path / "run", net=net(11))
    assert run.scores is not None
    fields = run.scores.to_dict()
    common, own_scores = fields["by_client"], fields["personal"]["by_client"]
    assert fields["personal"]["model"] == model
    assert common.keys() == own_scores.keys()
    assert len(common) > 2
    asked = {name for record in run.records for name in record.accepted}
    same = {n for n in common if common[n]["confusion"] == own_scores[n]["confusion"]}
    assert same == (set() if model == "fine-tuned" else common.keys() - asked)
    assert any("the saved model is incomplete" in note for note in run.notes)
    for record in run.records:
        assert record.scored is not None
        assert record.scored.personal == model
        assert record.scored.conf_personal.keys() == common.keys()


@pytest.mark.parametrize("teacher", ["round", "fixed", "ema", "swa"])
def test_a_vehicle_without_labels_is_fine_tuned_by_the_model_that_is_scored(
    tmp_path: Path, teacher: str
) -> None:
    """No teacher comes with a model that is to be scored: it is its own."""
    kinds = {"teacher": teacher, "every": 2, "distil": 1.0, "confidence": 0.0}
    described = make_experiment(
        {
            "data": {"size": [8, 8]},
            "training": {
                "supervision": "self_training", "self_training": kinds, "scale": [1.0, 1.0],
            },
            "personal": {"model": "fine-tuned"},
        }
    )  # fmt: skip
    with rng.torch_default(0, purpose="fine-tuned"):
        net = wrap(nn.Sequential(nn.Conv2d(3, 2, 3, padding=1)), 2)
    runtime = local_runtime(described, net, CPU, space(2), ClientStateStore(tmp_path))
    unlabelled = client(size=8)
    enrolment = replace(unlabelled.enrolment, num_pixels=0, histogram_C=(0, 0))
    model = read_state(net, runtime.exchange.model)
    broadcast = Broadcast(3, runtime.exchange.to_score(model))
    task = CLIENT_TASKS["evaluate-personal"]
    reply = task(broadcast, replace(unlabelled, enrolment=enrolment), runtime)
    assert isinstance(reply, Evaluation)
    assert not torch.equal(read_state(net, runtime.exchange.model).values_F, model.values_F)
