"""Makes what a process trains with from an experiment; the same on server and vehicle."""

from __future__ import annotations

from fleetseg.compression.changes import CompressedChanges
from fleetseg.compression.codec import parse_codec
from fleetseg.compression.frames import zstandard
from fleetseg.compression.scheduled import ScheduledCodec
from fleetseg.compression.uplink import Uplink
from fleetseg.config import Experiment
from fleetseg.federation.client import LocalRuntime
from fleetseg.federation.client_state import ClientStateStore
from fleetseg.federation.cluster_parts import with_clusters
from fleetseg.federation.downlink import ChangeCodec
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.tensors import layout_of, read_state
from fleetseg.federation.wire import PlainCodec, UpdateCodec
from fleetseg.learning.adapters import add_adapters
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.objectives import OBJECTIVES
from fleetseg.learning.schedules import first_round_after
from fleetseg.learning.supervision import SUPERVISION
from fleetseg.models.second_head import add_second_head
from fleetseg.models.segmenter import Segmenter


def local_runtime(
    experiment: Experiment,
    model: Segmenter,
    hardware: Hardware,
    num_classes: int,
    memory: ClientStateStore,
) -> LocalRuntime:
    """Make what clients train with; the model must be on its device, with its initial values.

    Raises:
        ModelError: the model's tensors cannot be averaged, or adapted, or it cannot have the
            second head that the supervision needs.
        MissingExtra: the codec needs a package that is not installed.
    """
    supervision = SUPERVISION[experiment.training.supervision]
    if supervision.second_head:
        size_hw = experiment.training.crop or experiment.data.size
        add_second_head(model, size_hw, experiment.seed)
    if experiment.model.adapter_rank:
        add_adapters(model, experiment.model.adapter_rank, experiment.seed)
    objective = OBJECTIVES[experiment.training.objective]
    layout, settings = layout_of(model), experiment.federation
    references = supervision.references(experiment.training)
    exchange = Exchange.of(layout, settings, objective.extras, objective.told, references)
    exchange = with_clusters(exchange, settings)
    return LocalRuntime(
        model=model,
        exchange=exchange,
        experiment=experiment,
        hardware=hardware,
        num_classes=num_classes,
        memory=memory,
        codec=uplink_of(experiment, exchange),
        changes=downlink_of(experiment, exchange),
        start=None if exchange.shares_all else read_state(model, exchange.kept),
    )


def uplink_of(experiment: Experiment, exchange: Exchange) -> UpdateCodec | None:
    """Make an experiment's codec of updates, if it has one."""
    federation = experiment.federation
    stages = [(1, _codec(federation.uplink, experiment, exchange))]
    for share, text in federation.uplink_schedule:
        begin = first_round_after(share, federation.rounds)
        stages.append((begin, _codec(text, experiment, exchange)))
    if all(codec is None for _, codec in stages):
        return None
    whole = PlainCodec(exchange.up)
    told = tuple((begin, codec or whole) for begin, codec in stages)
    return ScheduledCodec(told) if len(told) > 1 else told[0][1]


def downlink_of(experiment: Experiment, exchange: Exchange) -> ChangeCodec | None:
    """Make an experiment's codec of broadcasts; None = whole models."""
    codec = parse_codec(experiment.federation.downlink)
    if codec is None:
        return None
    zstandard()
    start = parse_codec(experiment.federation.downlink_start)
    return CompressedChanges(codec, exchange.wire, experiment.seed, start)


def _codec(text: str, experiment: Experiment, exchange: Exchange) -> UpdateCodec | None:
    codec = parse_codec(text)
    if codec is None:
        return None
    zstandard()
    return Uplink(codec, exchange.up, experiment.seed)
