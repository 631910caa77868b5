"""Personal models of clients, besides the global one; they never leave their client.

`own` is the shared part together with the tensors that stay with a client (FedPer, FedRep, FedBN).
`fine-tuned` is that model after further training on the client's samples, made afresh for each
scoring (the last step of FedBABU). `ditto` trains a whole model besides each update and keeps it.

Ditto: Li, Hu, Beirami, Smith 2021, arXiv 2012.04221, Algorithm 1: each step of client k on its own
model is v <- v - lr (grad F_k(v) + lambda (v - w)), with w the global model as received. A client's
first v is the model that it receives in its first round. The personal model of a client that was
never in a cohort is made from the global model and the tensors that all clients start with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from fleetseg.config import PersonalConfig, PhaseConfig, TrainingConfig
from fleetseg.data.sample import Pairs
from fleetseg.federation.client import LocalRuntime
from fleetseg.federation.client_state import ClientState, section
from fleetseg.federation.messages import Broadcast
from fleetseg.federation.tensors import ModelState
from fleetseg.learning.inputs import LocalInputs
from fleetseg.learning.local import num_steps, train_locally
from fleetseg.learning.objectives import OBJECTIVES
from fleetseg.learning.objectives.prox import pull_towards
from fleetseg.learning.parameters import Trainables


@dataclass(frozen=True)
class Work:
    """What a client's personal model is made from."""

    runtime: LocalRuntime
    broadcast: Broadcast
    pairs: Pairs
    inputs: LocalInputs  # of the round, or of the scoring
    state: ClientState  # what the client kept from earlier rounds

    def load_received(self) -> None:
        """Load the model as at the start of a round: the shared part and the client's own."""
        self.runtime.load(self.broadcast, section(self.state, "own"))


@dataclass(frozen=True)
class Personal:
    """One kind of personal model.

    Args:
        load: loads it into the runtime's model, to be scored.
        train: called in each round after the update is made; returns what the client keeps for
            `load`.
    """

    load: Callable[[Work], None] = Work.load_received
    train: Callable[[Work], Mapping[str, Tensor]] | None = None


def _fine_tune(work: Work) -> None:
    work.load_received()
    training = _own_training(work).model_copy(update={"schedule": "constant", "warmup_rounds": 0})
    inputs = replace(work.inputs, training=training, optimiser_state=None)
    train_locally(work.runtime.model, work.pairs, inputs, objective=OBJECTIVES["plain"])


def _load_own_model(work: Work) -> None:
    kept = section(work.state, "personal")
    if not kept:
        work.load_received()
        return
    work.runtime.whole.load(ModelState(kept["values"], kept["counters"]))


def _train_beside(work: Work) -> Mapping[str, Tensor]:
    runtime = work.runtime
    _load_own_model(work)
    shared = runtime.exchange.shared
    received_T = runtime.exchange.shared_of(work.broadcast.state).values_F[: shared.num_trainable]
    pull = pull_towards(received_T, runtime.experiment.personal.pull)
    inputs = replace(work.inputs, training=_own_training(work), optimiser_state=None)
    trainables = Trainables(runtime.shared.trainables())
    train_locally(runtime.model, work.pairs, inputs, trainables, pull)
    own = runtime.exchange.model.empty()
    runtime.whole.read(own)
    return {"values": own.values_F, "counters": own.counters_K}


def _own_training(work: Work) -> TrainingConfig:
    return personal_training(work.inputs.training, work.runtime.experiment.personal)


def personal_training(training: TrainingConfig, personal: PersonalConfig) -> TrainingConfig:
    """Return how a personal model is trained: like the update, except for what `personal` sets."""
    learns = () if personal.learns == "all" else (PhaseConfig(learns=personal.learns),)
    return training.model_copy(
        update={
            "local_epochs": personal.epochs,
            "local_steps": personal.steps,
            "lr": personal.lr or training.lr,
            "phases": learns,
        }
    )


PERSONAL: dict[str, Personal] = {
    "none": Personal(),
    "own": Personal(),
    "fine-tuned": Personal(load=_fine_tune),
    "ditto": Personal(load=_load_own_model, train=_train_beside),
}


def steps_beside(num_images: int, training: TrainingConfig, personal: PersonalConfig) -> int:
    """Return the steps that a client takes in a round besides those of its update."""
    if PERSONAL[personal.model].train is None:
        return 0
    return num_steps(num_images, personal_training(training, personal))
