"""A client scores a model on its test samples: the broadcast one, or its personal one."""

from __future__ import annotations

import numpy as np

from fleetseg.data.sample import ScoredPairs
from fleetseg.evaluation.norms import Norms, can_score, score_by_domain
from fleetseg.evaluation.predict import OnImage, unheard
from fleetseg.federation.client import Client, LocalRuntime
from fleetseg.federation.client_state import ClientState, section
from fleetseg.federation.kept_state import kept_before
from fleetseg.federation.messages import Broadcast, Evaluation, Failure, Reply
from fleetseg.federation.personal import PERSONAL, Work
from fleetseg.federation.tasks.train import local_inputs

_NOTHING_OWN = "it has not trained yet, and so lacks the tensors that stay with each client"


def client_evaluate(broadcast: Broadcast, client: Client, runtime: LocalRuntime) -> Reply:
    """Score the broadcast model, with the tensors that the client keeps, on its test samples."""
    state: ClientState = {}
    if runtime.start is not None:
        state = kept_before(broadcast, client.id, runtime, trained=True)
    own, norms = section(state, "own"), Norms.on_clients(runtime.experiment.evaluation)
    if not own and not can_score(runtime.model, _untrained(runtime), norms):
        return Failure(client.id, "abstained", "untrained", _NOTHING_OWN)
    runtime.load(broadcast, own)
    return _scores(broadcast, client, runtime)


def client_evaluate_global(broadcast: Broadcast, client: Client, runtime: LocalRuntime) -> Reply:
    """Score the broadcast model on the test samples, as for a client that never took part."""
    runtime.load(broadcast, {})
    return _scores(broadcast, client, runtime)


def client_evaluate_personal(broadcast: Broadcast, client: Client, runtime: LocalRuntime) -> Reply:
    """Score the client's personal model on its test samples."""
    kept = kept_before(broadcast, client.id, runtime, trained=True)
    inputs = local_inputs(broadcast, client, runtime, kept)
    load = PERSONAL[runtime.experiment.personal.model].load
    load(Work(runtime, broadcast, client.train, inputs, kept))
    return _scores(broadcast, client, runtime)


def _scores(broadcast: Broadcast, client: Client, runtime: LocalRuntime) -> Evaluation:
    norms = Norms.on_clients(runtime.experiment.evaluation)
    return Evaluation(broadcast.round, client.id, score_pairs(runtime, client.test, norms))


def score_pairs(
    runtime: LocalRuntime, scored: ScoredPairs, norms: Norms, on_image: OnImage = unheard
) -> dict[str, np.ndarray[tuple[int, int], np.dtype[np.int64]]]:
    """Score the runtime's model as it is; returns one confusion matrix per domain.

    `on_image` is called with what each image adds; clients do not use it.
    """
    return score_by_domain(
        runtime.model,
        scored,
        norms,
        num_classes=runtime.num_classes,
        device=runtime.hardware.device,
        context=runtime.hardware.inference,
        on_image=on_image,
    )


def _untrained(runtime: LocalRuntime) -> tuple[str, ...]:
    return runtime.exchange.untrained(runtime.experiment.training)
