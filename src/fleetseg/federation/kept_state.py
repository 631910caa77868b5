"""The state that a client continues from: the one it kept with its last update that counted."""

from __future__ import annotations

from fleetseg.federation.client import LocalRuntime
from fleetseg.federation.client_state import ClientState
from fleetseg.federation.messages import Broadcast
from fleetseg.federation.personal import PERSONAL
from fleetseg.learning.objectives import OBJECTIVES


def keeps_state(runtime: LocalRuntime) -> bool:
    """Return whether every update that counts leaves a state, even an empty one, at its client.

    If not, a client may still keep something, such as statistics of layers that do not learn.
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
    """Read the state a client continues from, or is scored with once it has `trained` that round.

    Raises:
        StateMissing: the state of an update that counted is gone or damaged.
        CheckpointError: the state cannot be read at the moment.
    """
    if runtime.memory is None:
        return {}
    before_round, expected = broadcast.round + trained, keeps_state(runtime)
    return runtime.memory.load(client_id, before_round, broadcast.counted, expected=expected)
