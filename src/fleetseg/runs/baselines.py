"""The two baselines that a federated run is compared with.

* centralised: the samples of all vehicles pooled, trained on as many images as the fleet;
* local: each vehicle alone, with as many local steps as it would take in the federation.

Both are federations of one client, so that they share every line of training code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

from fleetseg.clients import HELD_OUT, EvaluationSet, FleetData
from fleetseg.config import Experiment, FederationConfig, PersonalConfig, TrainingConfig
from fleetseg.data.erased import Erased
from fleetseg.data.labels import IGNORE
from fleetseg.data.sample import Pairs, ScoredPairs
from fleetseg.data.store.cache import Pooled
from fleetseg.errors import ConfigError
from fleetseg.federation.client import Client
from fleetseg.federation.cohort import SAMPLERS, sample_cohort, size_of
from fleetseg.federation.fleet_facts import facts_of_fleet
from fleetseg.federation.known import Accepted, Memory, Outcome
from fleetseg.federation.messages import Enrolment, taking_part
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.style_bank import styles_of_members
from fleetseg.learning.batches import images_per_epoch, steps_per_epoch
from fleetseg.learning.local import num_batches
from fleetseg.learning.supervision import SUPERVISION
from fleetseg.runs.records import effort

Baseline = Literal["centralised", "local"]


def centralised(experiment: Experiment, fleet_data: FleetData) -> tuple[Experiment, FleetData]:
    """Pool all samples in one client that sees as many images as the fleet does in all rounds.

    `baseline.images_share` scales that number, because the baseline's own best budget has to be
    found by trial.
    """
    members = [fleet_data.clients[name] for name in taking_part(fleet_data.enrolled)]
    histogram_C = tuple(
        sum(n) for n in zip(*(c.enrolment.histogram_C for c in members), strict=True)
    )
    images = sum(c.enrolment.num_images for c in members)
    _require_one_kind(experiment, members)
    pooled = Client(
        enrolment=Enrolment(
            "centralised",
            images,
            sum(histogram_C),
            histogram_C,
            # Where images take on styles, any vehicle's style may be drawn: the pooled client has
            # none of its own.
            facts=styles_of_members({c.id: c.enrolment for c in members}),
        ),
        # Which classes are labelled differs by vehicle: in pooled data, erased pixels carry no
        # information.
        train=Pooled([_as_void(c.train) for c in members]),
        train_domains=fleet_data.seen_domains,
    )
    wanted = experiment.baseline.images_share * federated_images(experiment, fleet_data)
    epochs = wanted / images_per_epoch(images, experiment.training)
    steps = epochs * steps_per_epoch(images, experiment.training)
    per_round = max(1, math.ceil(steps / experiment.federation.rounds))
    alone = _alone(experiment, "centralised", _pooled_training(experiment, per_round))
    tests = {client.id: client.test for client in members if len(client.test)}
    return alone, replace(_with_client(fleet_data, pooled), members=tests)


def is_centralised_of(alone: Experiment, experiment: Experiment) -> bool:
    """Say whether a run's own experiment is the centralised baseline of another experiment.

    The number of steps follows from the fleet's data, which this comparison does not need.
    """
    derived = _pooled_training(experiment, alone.training.local_steps)
    return _alone(experiment, "centralised", derived).digest == alone.digest


def _pooled_training(experiment: Experiment, steps: int) -> dict[str, Any]:
    training: dict[str, Any] = {"local_steps": steps, "local_epochs": 1}
    if SUPERVISION[experiment.training.supervision].takes_erased:
        training["supervision"] = "labels"  # what one vehicle has erased, another may label
    return training


def at_equal_images(
    experiment: Experiment, fleet_data: FleetData, records: Sequence[RoundRecord]
) -> Experiment:
    """Give the centralised run as many images as the federated run saw, even if cut short."""
    share = effort(records).images_seen / federated_images(experiment, fleet_data)
    baseline = experiment.baseline.model_copy(update={"images_share": share})
    return experiment.model_copy(update={"baseline": baseline})


def local_only(
    experiment: Experiment, fleet_data: FleetData
) -> Iterator[tuple[str, Experiment, FleetData]]:
    """Give each client a run of its own."""
    settings = experiment.federation
    names = list(taking_part(fleet_data.enrolled))
    share = size_of(settings.cohort, len(names)) / len(names)
    rounds = max(1, round(settings.rounds * share))
    for name in names:
        alone = _alone(experiment, "local", {}, rounds=rounds)
        yield name, alone, _with_client(fleet_data, fleet_data.clients[name])


def federated_images(experiment: Experiment, fleet_data: FleetData) -> int:
    """Return the number of images that the federated run trains on, over all clients and rounds.

    For a sampler that selects by loss this is an estimate, as if all losses were 1.
    """
    enrolled = taking_part(fleet_data.enrolled)
    facts = facts_of_fleet(experiment, enrolled)
    settings = experiment.federation.model_copy(update={"over_selection": 1.0})
    memory: Memory = {}
    total = 0
    for round_ in range(1, settings.rounds + 1):
        asked = sample_cohort(
            enrolled, settings, seed=experiment.seed, round_=round_, facts=facts, memory=memory
        ).asked
        accepted = tuple(Accepted(name, 1, 1, 1.0) for name in sorted(asked))
        outcome = Outcome(round_, tuple(sorted(asked)), accepted, settings)
        memory = SAMPLERS[settings.sampler].remember(memory, outcome)
        total += sum(_images_a_round(enrolled[c].num_images, experiment.training) for c in asked)
    return total


def _require_one_kind(experiment: Experiment, members: Sequence[Client]) -> None:
    """Refuse to pool labelled with self-taught vehicles: one client either has labels or has none.

    Raises:
        ConfigError: some vehicles have labels, and others teach themselves.
    """
    if not SUPERVISION[experiment.training.supervision].self_taught:
        return
    if len({client.enrolment.num_pixels == 0 for client in members}) > 1:
        raise ConfigError(
            "some vehicles have labels and others have none, and in one place they would be one "
            "client that learns in one way",
            where="--baseline centralised",
            cure="Compare with training.supervision = 'labels' on the labelled vehicles, or, with "
            "partition.unlabelled.share = 1, with self-training in one place",
        )


def _as_void(pairs: Pairs) -> Pairs:
    return replace(pairs, mark=IGNORE) if isinstance(pairs, Erased) else pairs


def _images_a_round(num_images: int, training: TrainingConfig) -> int:
    per_epoch, count = images_per_epoch(num_images, training), num_batches(num_images, training)
    return round(count * per_epoch / steps_per_epoch(num_images, training))


def _alone(
    experiment: Experiment,
    kind: Baseline,
    training: dict[str, Any],
    rounds: int | None = None,
) -> Experiment:
    """Make the experiment of one client; the server only passes the model on, optimisers stay."""
    settings = experiment.federation
    federation = FederationConfig(
        rounds=rounds or settings.rounds, only=settings.only, exclude=settings.exclude
    )
    engine = experiment.engine.model_copy(update={"kind": "inprocess"})
    kept = {"optimiser_state": "kept", "objective": "plain", "phases": (), **training}
    return experiment.model_copy(
        update={
            "federation": federation,
            "baseline": experiment.baseline.model_copy(update={"kind": kind}),
            "engine": engine,
            "personal": PersonalConfig(),
            "training": experiment.training.model_copy(update=kept),
        }
    )


def _with_client(fleet_data: FleetData, client: Client) -> FleetData:
    """Return the data of one client alone; the fleet's held-out frames become a server set."""
    manifest = fleet_data.manifest
    if manifest is not None:  # the manifest names the scored frames
        there = taking_part(fleet_data.enrolled)
        held_out = {name: own for name, own in manifest.held_out.items() if name in there}
        manifest = replace(manifest, held_out=held_out)
    return replace(
        fleet_data,
        clients={client.id: client},
        evaluation=test_sets(fleet_data),
        manifest=manifest,
    )


def test_sets(fleet_data: FleetData) -> tuple[EvaluationSet, ...]:
    """Return the server's sets, or else the clients' held-out frames as one set, if there are any.

    Only clients that take part count, as in the federation.
    """
    if fleet_data.evaluation or not fleet_data.holds_out:
        return fleet_data.evaluation
    scored = [fleet_data.clients[name].test for name in taking_part(fleet_data.enrolled)]
    domains = tuple(domain for part in scored for domain in part.domains)
    pooled = ScoredPairs(Pooled([part.pairs for part in scored]), domains)
    return (EvaluationSet(HELD_OUT, pooled),)
