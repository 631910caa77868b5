"""From an experiment to what a process trains with, the same on a server and on a vehicle."""

from __future__ import annotations

from fleetseg.compression.codec import parse_codec
from fleetseg.compression.uplink import Uplink, zstandard
from fleetseg.config import Experiment
from fleetseg.federation.client import LocalRuntime
from fleetseg.federation.client_state import ClientStateStore
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.tensors import layout_of, read_state
from fleetseg.federation.wire import UpdateCodec
from fleetseg.learning.adapters import add_adapters
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.objectives import OBJECTIVES
from fleetseg.models.segmenter import Segmenter


def local_runtime(
    experiment: Experiment,
    model: Segmenter,
    hardware: Hardware,
    num_classes: int,
    memory: ClientStateStore,
) -> LocalRuntime:
    """Put together what clients train with; the model is on its device, with its first values.

    Raises:
        ModelError: the model's tensors are not what can be averaged, or adapted.
        MissingExtra: the codec needs a package that is not there.
    """
    if experiment.model.adapter_rank:
        add_adapters(model, experiment.model.adapter_rank, experiment.seed)
    extras = OBJECTIVES[experiment.training.objective].extras
    exchange = Exchange.of(layout_of(model), experiment.federation, extras)
    return LocalRuntime(
        model=model,
        exchange=exchange,
        experiment=experiment,
        hardware=hardware,
        num_classes=num_classes,
        memory=memory,
        codec=uplink_of(experiment, exchange),
        start=None if exchange.shares_all else read_state(model, exchange.kept),
    )


def uplink_of(experiment: Experiment, exchange: Exchange) -> UpdateCodec | None:
    """Make the codec of an experiment, if it has one."""
    codec = parse_codec(experiment.federation.uplink)
    if codec is None:
        return None
    zstandard()
    return Uplink(codec, exchange.wire, experiment.seed)
