"""A client's work, the same in this process, in a worker and on a vehicle."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from fleetseg.config import Experiment
from fleetseg.data.sample import Pairs, ScoredPairs
from fleetseg.evaluation.predict import evaluate_by_domain
from fleetseg.federation.client_state import ClientStateStore
from fleetseg.federation.messages import Broadcast, Enrolment, Evaluation, Failure, Update
from fleetseg.federation.tensors import Layout, ModelState, ModelTensors
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.local import RoundContext, train_locally
from fleetseg.learning.losses import class_weights
from fleetseg.models.segmenter import Segmenter

_NO_FINITE_STEP = (
    "no step had finite gradients in fp16. Use engine.precision = 'bf16' or 'fp32', "
    "or a smaller training.lr"
)


@dataclass(frozen=True)
class Client:
    """A holder of private samples, as seen from its own side."""

    enrolment: Enrolment
    train: Pairs
    # Scored when the server asks: held-out frames, or with `evaluation.on_clients` and nothing held
    # out the training frames; empty if there are none.
    test: ScoredPairs = field(default_factory=ScoredPairs)
    train_domains: frozenset[str] | None = None  # of the training samples; None if not known

    @property
    def id(self) -> str:
        """The client's name."""
        return self.enrolment.client_id


@dataclass(frozen=True)
class LocalRuntime:
    """What one process trains with: a scratch model that every client's work overwrites."""

    model: Segmenter
    layout: Layout
    experiment: Experiment
    hardware: Hardware
    num_classes: int
    memory: ClientStateStore | None = None  # where clients keep state between rounds, if they do

    @cached_property
    def tensors(self) -> ModelTensors:
        """The model's tensors in the layout's order."""
        return ModelTensors(self.model, self.layout)


def client_update(
    broadcast: Broadcast, client: Client, runtime: LocalRuntime, into: ModelState | None = None
) -> Update | Failure:
    """Train on the client's samples from the broadcast model; returns the change.

    `into` may give the memory that the change is written to (a shared block).
    """
    experiment = runtime.experiment
    runtime.tensors.load(broadcast.state)
    keeps = runtime.memory if experiment.training.optimiser_state == "kept" else None
    result = train_locally(
        runtime.model,
        client.train,
        experiment.training,
        context=RoundContext(
            experiment.seed, broadcast.round, experiment.federation.rounds, client.id
        ),
        size_hw=experiment.data.size,
        hardware=runtime.hardware,
        class_weights_C=_class_weights(broadcast, client, runtime),
        optimiser_state=keeps.load(client.id, broadcast.round) if keeps else None,
    )
    if keeps:
        keeps.save(client.id, broadcast.round, result.optimiser_state)
    if result.num_steps == 0 and result.skipped_steps > 0:
        return Failure(client.id, "abstained", "non-finite", _NO_FINITE_STEP)
    if result.num_steps == 0:
        return Failure(client.id, "abstained", "no-labels", "no labelled pixel in any batch")
    change = into or runtime.layout.empty()
    runtime.tensors.read(change)
    change.values_F.sub_(broadcast.state.values_F)
    return Update(
        round=broadcast.round,
        client_id=client.id,
        change=change,
        num_images=client.enrolment.num_images,
        num_pixels=client.enrolment.num_pixels,
        num_steps=result.num_steps,
        images_seen=result.images_seen,
        loss=result.loss,
    )


def client_evaluate(broadcast: Broadcast, client: Client, runtime: LocalRuntime) -> Evaluation:
    """Score the broadcast model on the client's own test samples."""
    runtime.tensors.load(broadcast.state)
    conf_by_domain = score_pairs(runtime, client.test)
    return Evaluation(broadcast.round, client.id, conf_by_domain)


def score_pairs(
    runtime: LocalRuntime, scored: ScoredPairs
) -> dict[str, np.ndarray[tuple[int, int], np.dtype[np.int64]]]:
    """Score the runtime's model as it stands: one confusion matrix per domain."""
    return evaluate_by_domain(
        runtime.model,
        scored.pairs,
        scored.domains,
        num_classes=runtime.num_classes,
        batch_size=runtime.experiment.evaluation.batch_size,
        device=runtime.hardware.device,
        context=runtime.hardware.inference,
    )


def _class_weights(
    broadcast: Broadcast, client: Client, runtime: LocalRuntime
) -> torch.Tensor | None:
    choice = runtime.experiment.training.class_weights
    if choice == "fleet":
        return torch.tensor(broadcast.class_weights_C)
    if choice == "local":
        return class_weights(np.array(client.enrolment.histogram_C), runtime.num_classes)
    return None
