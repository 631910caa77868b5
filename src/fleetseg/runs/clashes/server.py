"""How the server samples, aggregates and stores, with what clients send and keep."""

from __future__ import annotations

from fleetseg.compression.codec import Codec, parse_codec
from fleetseg.config import Experiment
from fleetseg.learning.objectives import OBJECTIVES
from fleetseg.runs.clashes.clash import Clash
from fleetseg.runs.clashes.local_steps import controls


def _sends_beside(experiment: Experiment) -> bool:
    training = experiment.training
    objective = OBJECTIVES[training.objective]
    return bool(objective.extras or objective.told or training.fedfa.probability)


def _drifts(experiment: Experiment) -> bool:
    return experiment.training.objective in ("dyn", "drift")


def _adds_up(experiment: Experiment) -> bool:
    """Say whether the server holds the plain mean of what clients keep."""
    return controls(experiment) or _drifts(experiment)


def _codecs(experiment: Experiment) -> list[Codec]:
    """List the codecs of updates in all rounds."""
    federation = experiment.federation
    texts = [federation.uplink, *(text for _, text in federation.uplink_schedule)]
    return [codec for text in texts if (codec := parse_codec(text)) is not None]


def sends_parts(experiment: Experiment) -> bool:
    """Say whether the updates of some round leave parts out."""
    return any(codec.leaves_out for codec in _codecs(experiment))


def _codes_start(experiment: Experiment) -> bool:
    return experiment.federation.downlink_start.strip() != "none"


def _start_lacks_parts(experiment: Experiment) -> bool:
    codec = parse_codec(experiment.federation.downlink_start)
    return codec is not None and codec.leaves_out


SERVER: tuple[Clash, ...] = (
    (
        lambda e: e.federation.sampler == "poisson" and e.federation.over_selection > 1,
        "federation.sampler = 'poisson' asks each vehicle by itself, and has no number to ask more "
        "than; use federation.over_selection = 1",
    ),
    (
        lambda e: _adds_up(e) and e.federation.weights != "uniform",
        "what the server keeps for scaffold, dyn and drift is the plain mean of what all clients "
        "keep, and so must be that of their models; use federation.weights = 'uniform'",
    ),
    (
        lambda e: _adds_up(e) and e.federation.aggregator != "mean",
        "what the server keeps for scaffold, dyn and drift is the mean of what all clients keep; "
        "use federation.aggregator = 'mean'",
    ),
    (
        lambda e: _adds_up(e) and bool(_codecs(e)),
        "what the server keeps for scaffold, dyn and drift is the mean of what clients keep, and a "
        "codec would change only what they send; use federation.uplink = 'none'",
    ),
    (
        lambda e: _drifts(e) and e.federation.server_optimiser != "drift",
        "dyn and drift are half of a method whose other half is the server's; use "
        "federation.server_optimiser = 'drift'",
    ),
    (
        lambda e: not _drifts(e) and e.federation.server_optimiser == "drift",
        "federation.server_optimiser = 'drift' undoes the drift that clients learn with "
        "training.objective = 'dyn' or 'drift', and would only add one without",
    ),
    (
        lambda e: e.federation.weights == "feddg-ga" and e.training.objective == "fedspeed",
        "federation.weights = 'feddg-ga' goes by the loss of the model that a client has learnt, "
        "and fedspeed puts the one that it sends in its place; use 'images'",
    ),
    (
        lambda e: e.federation.aggregator == "q-fedavg" and sends_parts(e),
        "federation.aggregator = 'q-fedavg' goes by the lengths of whole changes, and topk and "
        "powersgd leave parts of them out; use a codec that does not, or 'none'",
    ),
    (
        lambda e: e.federation.aggregator == "extrapolated" and sends_parts(e),
        "federation.aggregator = 'extrapolated' goes by the lengths of whole changes, and topk "
        "and powersgd leave parts of them out; use a codec that does not, or 'none'",
    ),
    (
        lambda e: _sends_beside(e) and e.federation.downlink.strip() != "none",
        "what the objective or training.fedfa sends beside the model would arrive a little at a "
        "time; use federation.downlink = 'none'",
    ),
    (
        lambda e: _codes_start(e) and e.federation.downlink.strip() == "none",
        "federation.downlink_start is the codec of the first model where others are sent as "
        "changes; give federation.downlink a codec, too",
    ),
    (
        _start_lacks_parts,
        "federation.downlink_start would leave parts of the first model at zero; use a format "
        "alone, such as 'int8(channel)'",
    ),
)
