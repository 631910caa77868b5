"""A client's work, the same in this process, in a worker and on a vehicle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fleetseg.config import Experiment
from fleetseg.data.sample import Pairs, ScoredPairs
from fleetseg.errors import UpdateRejected
from fleetseg.evaluation.norms import Norms, can_score, score_by_domain
from fleetseg.evaluation.predict import evaluating, forward
from fleetseg.federation.client_state import (
    ClientState,
    ClientStateStore,
    in_section,
    section,
)
from fleetseg.federation.downlink import ChangeCodec
from fleetseg.federation.fleet_facts import CLASS_WEIGHTS
from fleetseg.federation.measures import RECEIVED_LOSS, TRAINED_LOSS, wanted_measures
from fleetseg.federation.messages import (
    Broadcast,
    Enrolment,
    Evaluation,
    Failure,
    NormReport,
    Packed,
    Reply,
    Update,
)
from fleetseg.federation.personal import PERSONAL, Work
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.statistics import STATISTICS
from fleetseg.federation.tensors import ModelState, ModelTensors
from fleetseg.federation.wire import UpdateCodec, message_bytes
from fleetseg.learning.batches import batches_per_epoch
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.local import LocalResult, train_locally
from fleetseg.learning.losses import class_weights
from fleetseg.learning.mean_loss import mean_loss
from fleetseg.learning.parameters import Trainables
from fleetseg.models.norm_statistics import gather
from fleetseg.models.segmenter import Segmenter

_NO_FINITE_STEP = (
    "no step had finite gradients in fp16. Use engine.precision = 'bf16' or 'fp32', "
    "or a smaller training.lr"
)
_NOTHING_OWN = "it has not trained yet, and so has nothing of what stays with each client"
_NOT_ESTIMATED = "no statistics of images leave in an experiment that does not estimate any"
_RESIDUAL = "residual"


@dataclass(frozen=True)
class Client:
    """A holder of private samples, as seen from its own side."""

    enrolment: Enrolment
    train: Pairs
    # Scored when the server asks: held-out frames, or with `evaluation.on_clients` and nothing held
    # out the training frames; empty if there are none.
    test: ScoredPairs = field(default_factory=ScoredPairs)
    train_domains: frozenset[str] | None = None  # of the training samples; None if not known
    labelled: tuple[int, ...] | None = None  # train ids that its labels name; None = all do

    @property
    def id(self) -> str:
        """The client's name."""
        return self.enrolment.client_id


@dataclass(frozen=True)
class LocalRuntime:
    """What one process trains with: a scratch model that every client's work overwrites."""

    model: Segmenter
    exchange: Exchange
    experiment: Experiment
    hardware: Hardware
    num_classes: int
    memory: ClientStateStore | None = None  # where clients keep state between rounds, if they do
    codec: UpdateCodec | None = None  # None = updates are handed over as they are
    changes: ChangeCodec | None = None  # what broadcasts are written by; None = they are whole
    # Of what stays with clients, before their first round; None = nothing does.
    start: ModelState | None = None
    room: ModelState | None = None  # where a change is written; None = new memory for each

    @cached_property
    def whole(self) -> ModelTensors:
        """All of the model's tensors."""
        return ModelTensors(self.model, self.exchange.model)

    @cached_property
    def shared(self) -> ModelTensors:
        """The model's tensors that are exchanged."""
        return ModelTensors(self.model, self.exchange.shared)

    @cached_property
    def kept(self) -> ModelTensors:
        """The model's tensors that stay with each client."""
        return ModelTensors(self.model, self.exchange.kept)

    @cached_property
    def message_bytes(self) -> tuple[int, int]:
        """Encoded size of a broadcast, and of an update at most."""
        down, up = message_bytes(self.exchange.wire, self.exchange.up)
        return down, self.codec.max_bytes if self.codec else up

    def load(self, broadcast: Broadcast, own: Mapping[str, Tensor]) -> None:
        """Fill the model: from a broadcast, and where a part stays here, from the client's own."""
        self.shared.load(self.exchange.shared_of(broadcast.state))
        if self.start is None:
            return
        kept = self.start
        if own:
            kept = ModelState(own["values"], own["counters"])
        self.kept.load(kept)


def client_update(broadcast: Broadcast, client: Client, runtime: LocalRuntime) -> Reply:
    """Train on the client's samples from the broadcast model; returns the change, or its message.

    What the client keeps is read first, and written last, once it is known what is sent.
    """
    memory = runtime.memory
    before = memory.load(client.id, broadcast.round, broadcast.counted) if memory else {}
    runtime.load(broadcast, section(before, "own"))
    trainables = Trainables(runtime.shared.trainables(), runtime.model)
    inputs = _inputs(broadcast, client, runtime, before)
    received = _measured(RECEIVED_LOSS, client, runtime, inputs)
    result = train_locally(runtime.model, client.train, inputs, trainables)
    if result.num_steps == 0 and result.skipped_steps > 0:
        return Failure(client.id, "abstained", "non-finite", _NO_FINITE_STEP)
    if result.num_steps == 0:
        return Failure(client.id, "abstained", "no-labels", "no labelled pixel in any batch")
    measures = received | _measured(TRAINED_LOSS, client, runtime, inputs)
    update = _update(broadcast, client, runtime, result, measures)
    reply, residual_T = _packed(update, runtime.codec, before)
    after = _kept_by(result, runtime, residual_T)
    train_own = PERSONAL[runtime.experiment.personal.model].train
    if memory and train_own:
        work = Work(runtime, broadcast, client.train, inputs, before)
        after |= in_section("personal", train_own(work))
    if memory and (after or before):  # to keep nothing is not to keep what was before
        memory.save(client.id, broadcast.round, after)
    return reply


def client_evaluate(broadcast: Broadcast, client: Client, runtime: LocalRuntime) -> Reply:
    """Score the broadcast model, with what the client keeps of its own, on its test samples."""
    state: ClientState = {}
    if runtime.memory and runtime.start is not None:
        state = runtime.memory.load(client.id, broadcast.round + 1, broadcast.counted)
    own, norms = section(state, "own"), Norms.on_clients(runtime.experiment.evaluation)
    if not own and not can_score(runtime.model, _untrained(runtime), norms):
        return Failure(client.id, "abstained", "untrained", _NOTHING_OWN)
    runtime.load(broadcast, own)
    return Evaluation(broadcast.round, client.id, score_pairs(runtime, client.test, norms))


def client_norm_statistics(broadcast: Broadcast, client: Client, runtime: LocalRuntime) -> Reply:
    """Sum up what the broadcast model's batch norms see of all training images, as they are.

    Nothing is augmented; the images come in order, in batches as equal as can be.
    """
    experiment, hardware, count = runtime.experiment, runtime.hardware, len(client.train)
    if not STATISTICS[experiment.federation.statistics].estimated:
        return Failure(client.id, "abstained", "unasked", _NOT_ESTIMATED)
    runtime.load(broadcast, {})
    num_batches = batches_per_epoch(count, experiment.training.batch_size)

    def look(part: npt.NDArray[np.intp]) -> None:
        images_NHWC = np.stack([client.train[int(i)][0] for i in part])
        forward(runtime.model, images_NHWC, device=hardware.device, context=hardware.inference)

    parts = np.array_split(np.arange(count), num_batches)
    with evaluating(runtime.model):
        sums = gather(runtime.model, [partial(look, part) for part in parts], lone=True)
    return NormReport(broadcast.round, client.id, sums)


def _untrained(runtime: LocalRuntime) -> tuple[str, ...]:
    return runtime.exchange.untrained(runtime.experiment.training)


def client_evaluate_global(broadcast: Broadcast, client: Client, runtime: LocalRuntime) -> Reply:
    """Score the broadcast model as a client that never took part has it, on its test samples."""
    runtime.load(broadcast, {})
    return _scores(broadcast, client, runtime)


def client_evaluate_personal(broadcast: Broadcast, client: Client, runtime: LocalRuntime) -> Reply:
    """Score the client's personal model on its test samples."""
    memory = runtime.memory
    kept = memory.load(client.id, broadcast.round + 1, broadcast.counted) if memory else {}
    inputs = _inputs(broadcast, client, runtime, kept)
    load = PERSONAL[runtime.experiment.personal.model].load
    load(Work(runtime, broadcast, client.train, inputs, kept))
    return _scores(broadcast, client, runtime)


def _scores(broadcast: Broadcast, client: Client, runtime: LocalRuntime) -> Evaluation:
    norms = Norms.on_clients(runtime.experiment.evaluation)
    return Evaluation(broadcast.round, client.id, score_pairs(runtime, client.test, norms))


ClientTask = Callable[[Broadcast, Client, LocalRuntime], Reply]
CLIENT_TASKS: dict[str, ClientTask] = {
    "train": client_update,
    "evaluate": client_evaluate,
    "evaluate-global": client_evaluate_global,
    "evaluate-personal": client_evaluate_personal,
    "norm_statistics": client_norm_statistics,
}
"""What a server can ask of a client."""


def score_pairs(
    runtime: LocalRuntime, scored: ScoredPairs, norms: Norms
) -> dict[str, np.ndarray[tuple[int, int], np.dtype[np.int64]]]:
    """Score the runtime's model as it stands: one confusion matrix per domain."""
    return score_by_domain(
        runtime.model,
        scored,
        norms,
        num_classes=runtime.num_classes,
        device=runtime.hardware.device,
        context=runtime.hardware.inference,
    )


def _inputs(
    broadcast: Broadcast, client: Client, runtime: LocalRuntime, before: ClientState
) -> LocalInputs:
    experiment, wire = runtime.experiment, runtime.exchange.wire
    keeps = runtime.memory is not None and experiment.training.optimiser_state == "kept"
    return LocalInputs(
        RoundContext(experiment.seed, broadcast.round, experiment.federation.rounds, client.id),
        experiment.training,
        experiment.data.size,
        runtime.hardware,
        class_weights_C=_class_weights(broadcast, client, runtime),
        pixels_C=client.enrolment.histogram_C,
        labelled=client.labelled,
        facts=broadcast.facts,
        extras_T={name: broadcast.state.values_F[span] for name, span in wire.spans.items()},
        state=section(before, "objective"),
        optimiser_state=section(before, "optimiser") if keeps else None,
    )


def _measured(
    name: str, client: Client, runtime: LocalRuntime, inputs: LocalInputs
) -> dict[str, float]:
    """Take the loss of the model as it stands, if it is asked for under this name."""
    if name not in wanted_measures(runtime.experiment.federation):
        return {}
    return {name: mean_loss(runtime.model, client.train, inputs)}


def _update(
    broadcast: Broadcast,
    client: Client,
    runtime: LocalRuntime,
    result: LocalResult,
    measures: Mapping[str, float],
) -> Update:
    exchange = runtime.exchange
    change = runtime.room or exchange.up.empty()
    model, base = exchange.shared_of(change), exchange.shared_of(broadcast.state)
    runtime.shared.read(model)
    model.values_F.sub_(base.values_F)
    for name, span in exchange.up.spans.items():
        change.values_F[span] = result.extra_changes_T[name]
    return Update(
        round=broadcast.round,
        client_id=client.id,
        change=change,
        num_images=client.enrolment.num_images,
        num_pixels=client.enrolment.num_pixels,
        num_steps=result.num_steps,
        images_seen=result.images_seen,
        loss=result.loss,
        measures=measures,
    )


def _packed(
    update: Update, codec: UpdateCodec | None, before: ClientState
) -> tuple[Update | Packed | Failure, Tensor | None]:
    """Write an update as its message, if it becomes one here; returns what that left out, too."""
    if codec is None:
        return update, None
    try:
        data, residual_T = codec.pack(update, before.get(_RESIDUAL))
    except UpdateRejected as rejected:
        return Failure.refused(update.client_id, rejected), before.get(_RESIDUAL)
    return Packed(update.round, update.client_id, data), residual_T


def _kept_by(
    result: LocalResult, runtime: LocalRuntime, residual_T: Tensor | None
) -> dict[str, Tensor]:
    """Put together what a client keeps after a round, each owner's part under its name."""
    after = in_section("optimiser", result.optimiser_state)
    after |= in_section("objective", result.state)
    if runtime.start is not None:
        own, start = runtime.exchange.kept.empty(), runtime.start
        runtime.kept.read(own)
        moved = not torch.equal(own.values_F, start.values_F)
        if moved or not torch.equal(own.counters_K, start.counters_K):  # else it is everybody's
            after |= {"own/values": own.values_F, "own/counters": own.counters_K}
    if residual_T is not None:
        after[_RESIDUAL] = residual_T
    return after


def _class_weights(broadcast: Broadcast, client: Client, runtime: LocalRuntime) -> Tensor | None:
    choice = runtime.experiment.training.class_weights
    if choice == "fleet":
        return torch.from_numpy(broadcast.facts[CLASS_WEIGHTS])
    if choice == "local":
        return class_weights(np.array(client.enrolment.histogram_C), runtime.num_classes)
    return None
