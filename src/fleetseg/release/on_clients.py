"""The fleet as the judge: vehicles score both models on frames of their own, and send sums.

What leaves a vehicle: for each of its domains one confusion matrix, and one for each corruption and
severity; for each bin of confidence three sums. No image, label map, file name or score of one.
"""

from __future__ import annotations

from collections.abc import Sequence

from fleetseg.clients import FleetData, open_fleet_data
from fleetseg.config import Experiment
from fleetseg.data.pool import Progress
from fleetseg.data.spaces import open_space
from fleetseg.errors import DataError, ModelError
from fleetseg.evaluation.protocol import ScoredSet
from fleetseg.federation.admission import why_left_out
from fleetseg.federation.client import Client
from fleetseg.release.counts import Measured, by_domain_only, joined
from fleetseg.release.measure import frames_in, measure
from fleetseg.release.policy import Policy
from fleetseg.runs.inference import ReadyModel


def client_sums(client: Client, ready: ReadyModel, policy: Policy) -> Measured:
    """Score a model on a client's held-out frames, and return what may leave the client."""
    own = measure(ready, frames_in(client.test, client.id), policy)
    worse = {way: by_domain_only(rows, client.id) for way, rows in own.worse.items()}
    return Measured(by_domain_only(own.clean, client.id), own.bins_3B, worse)


def measure_on_clients(
    models: Sequence[ReadyModel],
    experiment: Experiment,
    policy: Policy,
    progress: Progress | None = None,
    scoring: Progress | None = None,
) -> tuple[list[Measured], tuple[ScoredSet, ...]]:
    """Have every simulated client that holds frames out score all models on them.

    Returns:
        the sums of each model, a row for each client and domain; and what was scored on.

    Raises:
        ModelError: a model of other classes than the experiment.
        DataError: no client holds frames out.
        ConfigError: see fleetseg.errors.
    """
    fleets = _fleets(models, experiment, progress)
    judges = sorted(
        name
        for name, client in fleets[models[0].size_hw].clients.items()
        if client.test and not why_left_out(name, experiment.federation)
    )
    if not judges:
        raise DataError("no vehicle holds a labelled frame out", where=experiment.name)
    measured = []
    for ready in models:
        clients, sums = fleets[ready.size_hw].clients, []
        for number, name in enumerate(judges, start=1):
            sums.append(client_sums(clients[name], ready, policy))
            if scoring is not None:
                scoring(f"{ready.where} on vehicles", number, len(judges))
        measured.append(joined(sums))
    clients = fleets[models[0].size_hw].clients
    return measured, tuple(ScoredSet(name, len(clients[name].test), "") for name in judges)


def _fleets(
    models: Sequence[ReadyModel], experiment: Experiment, progress: Progress | None
) -> dict[tuple[int, int], FleetData]:
    """Open the fleet's data once for each working size of the models."""
    if experiment.partition.holdout == 0:
        raise DataError(
            "the vehicles hold no frames out to judge a model on",
            where=experiment.name,
            got="partition.holdout = 0",
            cure="Name an experiment with partition.holdout: --on EXPERIMENT.toml",
        )
    space = open_space(experiment.data)
    fleets: dict[tuple[int, int], FleetData] = {}
    for ready in models:
        if ready.space.classes != space.classes:
            raise ModelError(
                "the model has another label space than the experiment",
                where=ready.where,
                got=ready.space.name,
                expected=space.name,
            )
        if ready.size_hw not in fleets:
            data = experiment.data.model_copy(update={"size": ready.size_hw})
            sized = experiment.model_copy(update={"data": data})
            fleets[ready.size_hw] = open_fleet_data(sized, progress)
    return fleets
