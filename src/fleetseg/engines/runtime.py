"""Makes what a process trains with from an experiment; the same on server and vehicle."""

from __future__ import annotations

from fleetseg.compression.changes import CompressedChanges
from fleetseg.compression.codec import parse_codec
from fleetseg.compression.frames import zstandard
from fleetseg.compression.scheduled import ScheduledCodec
from fleetseg.compression.uplink import Uplink
from fleetseg.config import Experiment
from fleetseg.data.labels import LabelSpace
from fleetseg.federation.client import LocalRuntime
from fleetseg.federation.client_state import ClientStateStore
from fleetseg.federation.cluster_parts import with_clusters
from fleetseg.federation.downlink import ChangeCodec
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.tensors import layout_of, read_state
from fleetseg.federation.wire import PlainCodec, UpdateCodec
from fleetseg.learning.adapters import add_adapters
from fleetseg.learning.feature_distance import FeatureDistance
from fleetseg.learning.fedfa import feature_sizes
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
    space: LabelSpace,
    memory: ClientStateStore,
) -> LocalRuntime:
    """Make what clients train with; the model must be on its device, with its initial values.

    Raises:
        ConfigError: the feature distance cannot be computed for this model or these classes.
        ModelError: the model's tensors cannot be averaged, or adapted, or it lacks the stages
            whose features are measured, or it cannot have the second head that the supervision
            needs.
        MissingExtra: the codec, or the feature distance, needs a package that is not installed.
    """
    training, size_hw = experiment.training, experiment.data.size
    supervision = SUPERVISION[training.supervision]
    distance = FeatureDistance.of(training.feature_distance, model, space)
    if supervision.second_head:
        add_second_head(model, training.crop or size_hw, experiment.seed)
    if experiment.model.adapter_rank:
        add_adapters(model, experiment.model.adapter_rank, experiment.seed)
    objective = OBJECTIVES[training.objective]
    layout, settings = layout_of(model), experiment.federation
    references = supervision.references(training)
    features = feature_sizes(model, training, size_hw)
    vectors = objective.extras, objective.told
    exchange = Exchange.of(layout, settings, *vectors, references, features)
    exchange = with_clusters(exchange, settings)
    return LocalRuntime(
        model=model,
        exchange=exchange,
        experiment=experiment,
        hardware=hardware,
        num_classes=space.num_classes,
        memory=memory,
        codec=uplink_of(experiment, exchange),
        changes=downlink_of(experiment, exchange),
        start=None if exchange.shares_all else read_state(model, exchange.kept),
        distance=distance,
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
