"""Vehicles as judges: they score both models on their own frames, and send sums.

For what leaves a vehicle see `judging.sums`. Here one process simulates all vehicles; `on_fleet`
asks the vehicles of a networked fleet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fleetseg.clients import FleetData, open_fleet_data
from fleetseg.config import Experiment
from fleetseg.data.pool import Progress
from fleetseg.data.spaces import open_space
from fleetseg.errors import DataError, ModelError
from fleetseg.evaluation.protocol import ScoredSet
from fleetseg.federation.admission import why_left_out
from fleetseg.judging.counts import Measured, joined
from fleetseg.judging.policy import Policy
from fleetseg.judging.sums import client_sums
from fleetseg.runs.inference import ReadyModel

NO_FRAMES = "holds no labelled frame out"


@dataclass(frozen=True)
class Judged:
    """The vehicles' counts of each model, and which vehicles judged."""

    measured: tuple[Measured, ...]  # of each model, one row per vehicle and domain
    sets: tuple[ScoredSet, ...]  # the frames of each vehicle that judged
    silent: Mapping[str, str] = field(default_factory=dict)  # vehicles that did not judge, and why
    over: str = "this process"  # or "a network"


def measure_on_clients(
    models: Sequence[ReadyModel],
    experiment: Experiment,
    policy: Policy,
    progress: Progress | None = None,
    scoring: Progress | None = None,
) -> Judged:
    """Have every simulated client with held-out frames score all models on them.

    A client whose frames cannot be read does not judge, and is named.

    Raises:
        ModelError: a model's classes differ from the experiment's.
        DataError: no client holds frames out.
        ConfigError: see fleetseg.errors.
    """
    require_judges(models, experiment)
    fleets = _fleets(models, experiment, progress)
    clients = fleets[models[0].size_hw].clients
    named = sorted(name for name in clients if not why_left_out(name, experiment.federation))
    silent = {name: NO_FRAMES for name in named if not clients[name].test}
    judges = [name for name in named if clients[name].test]
    sums: dict[str, list[Measured]] = {}
    for number, name in enumerate(judges, start=1):
        try:
            sums[name] = [
                client_sums(fleets[ready.size_hw].clients[name], ready, policy) for ready in models
            ]
        except DataError as error:
            silent[name] = error.what
        if scoring is not None:
            scoring("frames on vehicles", number, len(judges))
    sets = tuple(ScoredSet(name, len(clients[name].test), "") for name in sums)
    return put_together(sums, sets, silent, experiment)


def put_together(
    sums: Mapping[str, Sequence[Measured]],
    sets: tuple[ScoredSet, ...],
    silent: Mapping[str, str],
    experiment: Experiment,
    over: str = "this process",
) -> Judged:
    """Concatenate the vehicles' counts of each model, vehicles sorted by name.

    Raises:
        DataError: no vehicle has judged.
    """
    if not sums:
        why = "; ".join(f"{name} {reason}" for name, reason in list(silent.items())[:5])
        raise DataError(
            "no vehicle with held-out labelled frames has judged",
            where=experiment.name,
            got=why or None,
        )
    by_model = zip(*(sums[name] for name in sorted(sums)), strict=True)
    return Judged(tuple(joined(parts) for parts in by_model), sets, silent, over)


def require_judges(models: Sequence[ReadyModel], experiment: Experiment) -> None:
    """Refuse an experiment in which vehicles hold nothing out, and models of other classes.

    Raises:
        DataError, ModelError: the experiment or a model is refused.
    """
    if experiment.partition.holdout == 0:
        raise DataError(
            "the vehicles hold out no frames to judge a model on",
            where=experiment.name,
            got="partition.holdout = 0",
            cure="Name an experiment with partition.holdout: --on EXPERIMENT.toml",
        )
    space = open_space(experiment.data)
    for ready in models:
        if ready.space.classes != space.classes:
            raise ModelError(
                "the model has another label space than the experiment",
                where=ready.where,
                got=ready.space.name,
                expected=space.name,
            )


def _fleets(
    models: Sequence[ReadyModel], experiment: Experiment, progress: Progress | None
) -> dict[tuple[int, int], FleetData]:
    """Open the fleet's data once for each working size of the models."""
    fleets: dict[tuple[int, int], FleetData] = {}
    for ready in models:
        if ready.size_hw not in fleets:
            data = experiment.data.model_copy(update={"size": ready.size_hw})
            sized = experiment.model_copy(update={"data": data})
            fleets[ready.size_hw] = open_fleet_data(sized, progress)
    return fleets
