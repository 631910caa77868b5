"""The protocol of a run's scores, derived from its experiment and its data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from fleetseg.clients import HELD_OUT, EvaluationSet, FleetData
from fleetseg.config import Experiment
from fleetseg.data.labels import IGNORE
from fleetseg.data.partition.manifest import Entry, Manifest
from fleetseg.evaluation.norms import RUNNING, Norms
from fleetseg.evaluation.protocol import LABEL_RESOLUTION, Protocol, ScoredSet
from fleetseg.federation.messages import taking_part


def protocol_of(
    experiment: Experiment,
    fleet_data: FleetData,
    scored_on: Sequence[str],
    domains: Iterable[str],
    round_: int,
    norms: Norms = RUNNING,
) -> Protocol:
    """Describe how a model of a run was scored.

    `scored_on` names the server's sets or, where it has none, the clients that answered; `domains`
    are the scored domains, `round_` is the round that produced the model.
    """
    space, trained_on = fleet_data.space, fleet_data.seen_domains
    seen = unseen = None
    if trained_on is not None:
        seen = tuple(sorted(set(domains) & trained_on))
        unseen = tuple(sorted(set(domains) - trained_on))
    return Protocol(
        size_hw=experiment.data.size,
        scored_at=LABEL_RESOLUTION,
        space=space.name,
        classes=space.classes,
        critical=space.critical,
        ignored_id=IGNORE,
        norms=str(norms),
        by=experiment.evaluation.by,
        sets=_sets(fleet_data, scored_on),
        seen=seen,
        unseen=unseen,
        rounds=(round_,),
    )


def _sets(fleet_data: FleetData, scored_on: Sequence[str]) -> tuple[ScoredSet, ...]:
    if fleet_data.evaluation:
        return tuple(_server_set(part, fleet_data) for part in fleet_data.evaluation)
    return (_clients_set(fleet_data, scored_on),) if scored_on else ()


def _server_set(part: EvaluationSet, fleet_data: FleetData) -> ScoredSet:
    digest = fleet_data.own_data.get(f"evaluation set '{part.name}'", "")
    if not digest and (manifest := fleet_data.manifest):
        pooled = part.name == HELD_OUT  # of a baseline
        entries = _all(manifest) if pooled else manifest.evaluation.get(part.name, ())
        digest = files_digest(entries)
    return ScoredSet(part.name, len(part.scored), digest)


def _clients_set(fleet_data: FleetData, scored_on: Sequence[str]) -> ScoredSet:
    """Return the held-out frames of `scored_on` as one set; on other machines they are unknown."""
    names = f"held-out frames of {', '.join(scored_on)}"
    clients, manifest = fleet_data.clients, fleet_data.manifest
    if manifest is None or not set(scored_on) <= set(clients):
        return ScoredSet(names, None, "")
    frames = sum(len(clients[name].test) for name in scored_on)
    there = taking_part(fleet_data.enrolled)
    is_all = set(scored_on) == {name for name in there if len(clients[name].test)}
    entries = [entry for name in scored_on for entry in manifest.held_out.get(name, ())]
    return ScoredSet(HELD_OUT if is_all else names, frames, files_digest(entries))


def _all(manifest: Manifest) -> list[Entry]:
    return [entry for own in manifest.held_out.values() for entry in own]


def files_digest(entries: Iterable[Entry]) -> str:
    """Return the SHA-256 over the digests of images and labels, regardless of names and order."""
    files = sorted(f"{entry.image_sha256} {entry.label_sha256}" for entry in entries)
    return hashlib.sha256("\n".join(files).encode()).hexdigest() if files else ""
