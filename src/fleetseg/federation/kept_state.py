"""What a client goes on from when it is asked: what it kept of its last update that counted."""

from __future__ import annotations

from fleetseg.federation.client import LocalRuntime
from fleetseg.federation.client_state import ClientState
from fleetseg.federation.messages import Broadcast
from fleetseg.federation.personal import PERSONAL
from fleetseg.learning.objectives import OBJECTIVES


def keeps_state(runtime: LocalRuntime) -> bool:
    """Say whether an update that counted has left a state with its client, be it an empty one.

    Where it has not, something may still be kept, such as statistics of layers that do not learn.
    """
    experiment, codec = runtime.experiment, runtime.codec
    return runtime.memory is not None and (
        experiment.training.optimiser_state == "kept"
        or OBJECTIVES[experiment.training.objective].may_keep
        or PERSONAL[experiment.personal.model].train is not None
        or bool(runtime.exchange.untrained(experiment.training))
        or (codec is not None and codec.leaves_out)
    )


def kept_before(
    broadcast: Broadcast, client_id: str, runtime: LocalRuntime, *, trained: bool = False
) -> ClientState:
    """Read what a client goes on from, or is scored with once it has `trained` in that round.

    Raises:
        StateMissing: an update of it has counted, and what that left is gone or damaged.
        CheckpointError: it cannot be read at the moment.
    """
    if runtime.memory is None:
        return {}
    before_round, expected = broadcast.round + trained, keeps_state(runtime)
    return runtime.memory.load(client_id, before_round, broadcast.counted, expected=expected)
