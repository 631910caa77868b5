"""A client's round: it trains from the broadcast model and sends the change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fleetseg.errors import UpdateRejected
from fleetseg.federation.client import Client, LocalRuntime
from fleetseg.federation.client_state import ClientState, in_section, section
from fleetseg.federation.cluster_parts import BY_LOSS
from fleetseg.federation.cluster_state import chosen
from fleetseg.federation.fleet_facts import CLASS_WEIGHTS
from fleetseg.federation.kept_state import keeps_state, kept_before
from fleetseg.federation.known import CLUSTER, RECEIVED_LOSS, TRAINED_LOSS
from fleetseg.federation.measures import wanted_measures
from fleetseg.federation.messages import Broadcast, Failure, Packed, Reply, Update
from fleetseg.federation.personal import PERSONAL, Work
from fleetseg.federation.tensors import load_state
from fleetseg.federation.wire import UpdateCodec
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.local import LocalResult, train_locally
from fleetseg.learning.losses import class_weights
from fleetseg.learning.mean_loss import mean_loss
from fleetseg.learning.parameters import Trainables

_NO_FINITE_STEP = (
    "no step had finite gradients in fp16. Use engine.precision = 'bf16' or 'fp32', "
    "or a smaller training.lr"
)
_RESIDUAL = "residual"


def client_update(broadcast: Broadcast, client: Client, runtime: LocalRuntime) -> Reply:
    """Train on the client's samples from the broadcast model; returns the update, or its message.

    The client's state is read first, and written last, once it is known what is sent.
    """
    memory = runtime.memory
    before = kept_before(broadcast, client.id, runtime)
    broadcast, told = with_chosen(broadcast, client, runtime, before)
    runtime.load(broadcast, section(before, "own"))
    trainables = Trainables(runtime.shared.trainables(), runtime.model)
    inputs = local_inputs(broadcast, client, runtime, before)
    received = _measured(RECEIVED_LOSS, client, runtime, inputs)
    result = train_locally(runtime.model, client.train, inputs, trainables)
    if result.num_steps == 0 and result.skipped_steps > 0:
        return Failure(client.id, "abstained", "non-finite", _NO_FINITE_STEP)
    if result.num_steps == 0:
        return Failure(client.id, "abstained", "no-labels", "no labelled pixel in any batch")
    measures = told | received | _measured(TRAINED_LOSS, client, runtime, inputs)
    update = _update(broadcast, client, runtime, result, measures)
    reply, residual_T = _packed(update, runtime.codec, before)
    after = _kept_by(result, runtime, residual_T)
    train_own = PERSONAL[runtime.experiment.personal.model].train
    if memory and train_own:
        work = Work(runtime, broadcast, client.train, inputs, before)
        after |= in_section("personal", train_own(work))
    if memory and (after or before or keeps_state(runtime)):  # an empty state is a state, too
        memory.save(client.id, broadcast.round, after, broadcast.lineage)
    return reply


def with_chosen(
    broadcast: Broadcast, client: Client, runtime: LocalRuntime, before: ClientState
) -> tuple[Broadcast, dict[str, float]]:
    """Choose the cluster to train from, if clients choose: that with the lowest loss on the images.

    On a tie, the first; a loss that is not finite counts as infinite. Returns the broadcast with
    that cluster's model alone, and the choice as a measure.
    """
    experiment, exchange = runtime.experiment, runtime.exchange
    if not exchange.is_clustered or experiment.federation.clustered_by != BY_LOSS:
        return broadcast, {}
    losses = []
    for cluster in range(exchange.copies + 1 if exchange.copies else 0):
        one = replace(broadcast, state=chosen(broadcast.state, exchange, cluster))
        runtime.load(one, section(before, "own"))
        loss = mean_loss(runtime.model, client.train, local_inputs(one, client, runtime, before))
        losses.append(loss if math.isfinite(loss) else math.inf)
    best = losses.index(min(losses)) if losses else 0
    return replace(broadcast, state=chosen(broadcast.state, exchange, best)), {CLUSTER: float(best)}


def local_inputs(
    broadcast: Broadcast, client: Client, runtime: LocalRuntime, before: ClientState
) -> LocalInputs:
    """Collect the inputs of training: the broadcast, and what the client kept before it."""
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
        references={
            name: partial(load_state, layout=runtime.exchange.shared, state=model)
            for name, model in runtime.exchange.references_of(broadcast.state).items()
        },
        distance=runtime.distance,
        source=runtime.source,
        facts=broadcast.facts,
        extras_T={name: broadcast.state.values_F[span] for name, span in wire.spans.items()},
        state=section(before, "objective"),
        optimiser_state=section(before, "optimiser") if keeps else None,
    )


def _measured(
    name: str, client: Client, runtime: LocalRuntime, inputs: LocalInputs
) -> dict[str, float]:
    """Measure the loss of the current model, if the measure of this name is wanted."""
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
    runtime.shared.read_change(model, base)
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
    """Encode an update if there is a codec; returns it with the residual."""
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
    """Collect what a client keeps after a round, each owner's part in its own section."""
    after = in_section("optimiser", result.optimiser_state)
    after |= in_section("objective", result.state)
    if runtime.start is not None:
        own, start = runtime.exchange.kept.empty(), runtime.start
        runtime.kept.read(own)
        moved = not torch.equal(own.values_F, start.values_F)
        if moved or not torch.equal(own.counters_K, start.counters_K):  # else all clients have it
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
