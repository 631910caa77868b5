"""The stage before the fleet: the server trains on labelled sources of its own.

The stage is a federation of one client, in a run folder inside the run's own. It has its own
checkpoints, so that it can be killed and resumed at any point, and its own scores, which are those
of a model that has never seen the vehicles' roads. Its images may take on the vehicles' styles,
which is all that the server has of the vehicles' data (LADD: Shenaj et al., WACV 2023, arXiv
2210.02326).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from fleetseg.clients import FleetData, open_fleet_data
from fleetseg.config import (
    DiscrepancyConfig,
    Experiment,
    FederationConfig,
    PartitionConfig,
    PersonalConfig,
    PretrainConfig,
    SafetyConfig,
    SelfTrainingConfig,
    StopConfig,
    StyleConfig,
)
from fleetseg.data.partition.manifest import Manifest
from fleetseg.errors import CheckpointError, LeakError
from fleetseg.federation.messages import Enrolment, taking_part
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.rounds import Watcher
from fleetseg.federation.style_bank import styles_of_members
from fleetseg.runs.baselines import test_sets
from fleetseg.runs.folder import can_resume, read_experiment
from fleetseg.runs.records import is_complete
from fleetseg.runs.report import read_run

FOLDER = "pretrain"
"""The stage's folder in a run folder."""
_OWN_NAME = "server"
Train = Callable[[Experiment, FleetData, Path, bool, Watcher], str]
"""(experiment, data, folder, resume, watcher) -> reason for the end."""


def pretraining_of(experiment: Experiment) -> Experiment:
    """Write the first stage of an experiment as an experiment of one client."""
    stage, training = experiment.pretrain, experiment.training
    style = StyleConfig()
    if stage.style_probability > 0:
        style = training.style.model_copy(update={"probability": stage.style_probability})
    changed = {
        "style": style,
        "supervision": "labels",
        "objective": "plain",
        "phases": (),
        "self_training": SelfTrainingConfig(),
        "discrepancy": DiscrepancyConfig(),
        "optimiser_state": "kept",
        "local_epochs": stage.epochs,
        "local_steps": stage.steps,
        "lr": stage.lr or training.lr,
        "batch_size": stage.batch_size or training.batch_size,
    }
    return experiment.model_copy(
        update={
            "name": f"{experiment.name}-{FOLDER}",
            "method": "",
            "data": experiment.data.model_copy(update={"sources": stage.sources}),
            "partition": PartitionConfig(kind="iid", clients=1),
            "training": training.model_copy(update=changed),
            "federation": FederationConfig(rounds=stage.rounds),
            "personal": PersonalConfig(),
            "pretrain": PretrainConfig(),
            "safety": SafetyConfig(),
            "stop": StopConfig(),
            "evaluation": experiment.evaluation.model_copy(update={"on_clients": False}),
            "engine": experiment.engine.model_copy(update={"kind": "inprocess"}),
        }
    )


def pretrained(
    experiment: Experiment,
    fleet_data: FleetData,
    out: Path,
    train: Train,
    *,
    resume: bool,
    status: Callable[[str], None],
) -> Path | None:
    """Train the first stage, or the rest of it; return its folder, None if there is no stage.

    Raises:
        LeakError: an image of the sources is scored on, or belongs to an unlabelled vehicle.
        KeyboardInterrupt: it was interrupted.
        FleetSegError: as a run's.
    """
    if not experiment.pretrain.sources:
        return None
    alone, folder = pretraining_of(experiment), out / FOLDER
    if resume and can_resume(folder) and is_complete(read_run(folder).end):
        if read_experiment(folder).digest != alone.digest:
            raise CheckpointError(
                "the first stage was trained with another experiment",
                where=folder,
                cure="Resume with the run folder's own experiment.toml, or choose a new --out",
            )
        return folder
    status("pre-training on the server's own sources")
    unscored = alone.data.model_copy(update={"evaluation": ()})
    own = open_fleet_data(alone.model_copy(update={"data": unscored}), space=fleet_data.space)
    own = _scored_as(own, fleet_data)
    if experiment.pretrain.style_probability > 0:
        own = with_styles(own, fleet_data.enrolled)
    watcher = Watcher(status=status, round_closed=lambda record: status(_told(record, alone)))
    if train(alone, own, folder, resume, watcher) == "interrupted":
        raise KeyboardInterrupt
    return folder


def with_styles(own: FleetData, enrolled: Mapping[str, Enrolment]) -> FleetData:
    """Give the first stage's client the vehicles' styles, and none of its own.

    Its name is one that no vehicle has, because a client never takes on its own style.
    """
    (client,) = own.clients.values()
    name = _OWN_NAME
    while name in enrolled:
        name += "'"
    facts = styles_of_members(taking_part(enrolled))
    enrolment = replace(client.enrolment, client_id=name, facts=facts)
    return replace(own, clients={name: replace(client, enrolment=enrolment)})


def _scored_as(own: FleetData, fleet_data: FleetData) -> FleetData:
    """Score the first stage on the fleet's test frames."""
    fleet, manifest = fleet_data.manifest, own.manifest
    if fleet is not None and manifest is not None:
        _require_apart(manifest, fleet)
        manifest = replace(manifest, evaluation=fleet.evaluation, held_out=fleet.held_out)
    return replace(
        own,
        evaluation=test_sets(fleet_data),
        manifest=manifest,
        own_data=fleet_data.own_data,
    )


def _require_apart(own: Manifest, fleet: Manifest) -> None:
    """Refuse sources that reveal labels of unlabelled vehicles or of scored frames."""
    closed = {
        entry
        for client, entries in fleet.clients.items()
        for entry in entries
        if client in fleet.unlabelled or not entry.label_sha256
    }
    scored = {e for side in (fleet.evaluation, fleet.held_out) for es in side.values() for e in es}
    for others, what in ((closed, "an unlabelled vehicle"), (scored, "what is scored")):
        images = {e.image_sha256 for e in others} - {""}
        ids = {e.id for e in others}
        entries = [e for es in own.clients.values() for e in es]
        both = [e.id for e in entries if e.id in ids or e.image_sha256 in images]
        if both:
            raise LeakError(
                f"{len(both)} images of pretrain.sources also belong to {what}",
                got=", ".join(sorted(both)[:5]),
                cure="Remove them from pretrain.sources: their labels would be learnt",
            )


def _told(record: RoundRecord, alone: Experiment) -> str:
    parts = [f"pre-training: {record.round} of {alone.federation.rounds}"]
    if record.loss is not None:
        parts.append(f"loss {record.loss:.3f}")
    if record.miou is not None:
        parts.append(f"mIoU {record.miou:.3f}")
    return ", ".join(parts)
