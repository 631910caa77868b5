"""The data of a fleet that the user passes as Python objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fleetseg.clients import (
    BAD,
    EvaluationSet,
    FleetData,
    abstention,
    open_evaluation,
    progress_on,
    require_clients,
)
from fleetseg.config import Experiment, UnlabelledConfig
from fleetseg.data.labels import LabelSpace
from fleetseg.data.own import Collections, Looked, look_over, named, notes_on, pairs_of
from fleetseg.data.pool import Progress
from fleetseg.data.sample import ScoredPairs
from fleetseg.data.spaces import is_built_in, space_toml
from fleetseg.errors import ConfigError, DataError
from fleetseg.federation.admission import idle_patterns, require_somebody, why_left_out
from fleetseg.federation.client import Client
from fleetseg.federation.fleet_facts import reported_facts
from fleetseg.federation.messages import Enrolment
from fleetseg.files import write_atomic

OWN_DATA, CLASSES = "own_data.json", "classes.toml"
"""Files in a run folder: digests of the user's objects, and classes that are not built in."""


def fleet_data_of_pairs(
    experiment: Experiment,
    space: LabelSpace,
    clients: Collections,
    evaluation: Collections | None,
    progress: Progress | None = None,
) -> FleetData:
    """Make a fleet's data from the user's own collections of samples (see fleetseg.data.own).

    Without `evaluation`, the experiment's own evaluation sets are opened.

    Raises:
        DataError, ConfigError: naming the vehicle and the sample that cannot be used.
    """
    if experiment.partition.unlabelled != UnlabelledConfig():
        raise ConfigError(
            "partition.unlabelled names vehicles whose labels are not to be read, and clients= "
            "brings each image with its label",
            cure="Let the images of such vehicles come from data.sources",
        )
    size_hw = experiment.data.size
    enrolled: dict[str, Client] = {}
    notes: list[str] = []
    seen: dict[bytes, str] = {}  # digest of an image -> the client that trains on it
    digests = {}
    for name, samples in named(clients, "vehicle", "clients").items():
        owner = f"vehicle '{name}'"
        looked = look_over(samples, owner, space, size_hw, progress_on(progress, owner))
        enrolled[name] = _client(name, samples, space, experiment, looked)
        notes += notes_on(looked, owner, size_hw)
        seen.update((image, owner) for image, _ in looked.digests)
        digests[owner] = looked.sha256
    require_somebody(enrolled, experiment.federation)
    require_clients(enrolled)
    notes += idle_patterns(enrolled, experiment.federation)
    notes += [abstention(c) for c in enrolled.values() if c.enrolment.abstains]
    if experiment.partition.holdout > 0:
        notes.append("partition.holdout is not for clients=: hold samples out as evaluation=")
    fleet_data = FleetData(space, enrolled, (), None, tuple(notes), own_data=digests)
    if evaluation is not None:
        return with_own_evaluation(experiment, fleet_data, evaluation, progress, seen)
    sets, stores = open_evaluation(experiment, space, progress)
    bad = tuple(BAD + text for store in stores.values() for text in store.bad.values())
    return replace(fleet_data, evaluation=sets, notes=(*fleet_data.notes, *bad))


def with_own_evaluation(
    experiment: Experiment,
    fleet_data: FleetData,
    evaluation: Collections,
    progress: Progress | None = None,
    seen: Mapping[bytes, str] | None = None,
) -> FleetData:
    """Use the user's own evaluation sets in a fleet's data.

    `seen` maps an image's digest to the client that trains on it.

    Raises:
        DataError, ConfigError: naming the set and the sample that cannot be used.
    """
    given = own_evaluation_sets(evaluation, fleet_data.space, experiment.data.size, progress, seen)
    return replace(
        fleet_data,
        evaluation=given.sets,
        notes=(*fleet_data.notes, *given.notes),
        own_data={**fleet_data.own_data, **given.digests},
    )


@dataclass(frozen=True)
class OwnSets:
    """The user's own evaluation sets, checked."""

    sets: tuple[EvaluationSet, ...]
    notes: tuple[str, ...]
    digests: Mapping[str, str]  # owner -> SHA-256 of the samples


def own_evaluation_sets(
    evaluation: Collections,
    space: LabelSpace,
    size_hw: tuple[int, int],
    progress: Progress | None = None,
    seen: Mapping[bytes, str] | None = None,
) -> OwnSets:
    """Make evaluation sets from the user's own collections, for a given working size.

    `seen` maps an image's digest to the client that trains on it.

    Raises:
        DataError, ConfigError: naming the set and the sample that cannot be used.
    """
    sets: list[EvaluationSet] = []
    notes: list[str] = []
    digests: dict[str, str] = {}
    for name, samples in named(evaluation, "evaluation set", "evaluation").items():
        owner = f"evaluation set '{name}'"
        looked = look_over(samples, owner, space, size_hw, progress_on(progress, owner))
        if not looked.numbers:
            raise DataError("no labelled pixel to evaluate on", where=owner)
        pairs = pairs_of(samples, owner, space, size_hw, looked, native_labels=True)
        sets.append(EvaluationSet(name, ScoredPairs(pairs, (name,) * len(pairs))))
        notes += [*notes_on(looked, owner, size_hw), *_trained_on(looked, owner, seen or {})]
        digests[owner] = looked.sha256
    return OwnSets(tuple(sets), tuple(notes), digests)


def record_own(folder: Path, fleet_data: FleetData) -> None:
    """Record, for resuming, the user's own data that are in no file."""
    folder.mkdir(parents=True, exist_ok=True)
    if not is_built_in(fleet_data.space):
        write_atomic(folder / CLASSES, space_toml(fleet_data.space))
    if fleet_data.own_data:
        write_atomic(folder / OWN_DATA, json.dumps(dict(fleet_data.own_data), indent=1) + "\n")


def require_same_own(folder: Path, fleet_data: FleetData) -> None:
    """Refuse to resume with classes or samples other than those the run started with.

    Raises:
        DataError: naming what differs.
    """
    cure = "Restore it, or start a new run with another --out"
    path, space = folder / CLASSES, fleet_data.space
    if path.is_file() and path.read_text(encoding="utf-8") != space_toml(space):
        raise DataError(
            "the classes have changed since the run was started",
            where=path,
            got=f"{', '.join(space.classes)} ({space.name}) now",
            cure=cure,
        )
    path = folder / OWN_DATA
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    differ = [
        owner
        for owner in sorted({*before, *fleet_data.own_data})
        if before.get(owner) != fleet_data.own_data.get(owner)
    ]
    if differ:
        raise DataError(
            "the data have changed since the run was started",
            where=path,
            got=", ".join(differ[:10]) + (" ..." if len(differ) > 10 else ""),
            cure=cure,
        )


def _trained_on(looked: Looked, owner: str, seen: Mapping[bytes, str]) -> list[str]:
    owners = [seen[image] for image, _ in looked.digests if image in seen]
    if not owners:
        return []
    count = f"{len(owners)} of {len(looked.digests)} images"
    return [f"{owner}: {count} are in training, too (the first with {owners[0]})"]


def _client(
    name: str, samples: Any, space: LabelSpace, experiment: Experiment, looked: Looked
) -> Client:
    train, test = (
        pairs_of(
            samples, f"vehicle '{name}'", space, experiment.data.size, looked, native_labels=native
        )
        for native in (False, True)
    )
    abstains = why_left_out(name, experiment.federation)
    if not abstains and not looked.histogram_C.any():
        abstains = "no usable labelled sample"
    histogram_C = tuple(looked.histogram_C.tolist())
    scored = experiment.evaluation.on_clients  # on the training frames: there are no others
    enrolment = Enrolment(
        client_id=name,
        num_images=len(train),
        num_pixels=sum(histogram_C),
        histogram_C=histogram_C,
        abstains=abstains,
        num_test_pixels=looked.native_pixels if scored else 0,
        facts={} if abstains else reported_facts(experiment, train),
    )
    domains = (name,) * len(test)
    return Client(enrolment, train, ScoredPairs(test, domains) if scored else ScoredPairs())
