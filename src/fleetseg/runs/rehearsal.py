"""`fleetseg run --dry-run`: everything before round 1, without leaving anything behind."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from fleetseg.clients import open_fleet_data
from fleetseg.config import Experiment
from fleetseg.data.pool import Progress
from fleetseg.federation.messages import taking_part
from fleetseg.federation.rounds import Watcher
from fleetseg.runs.choices import check_choices
from fleetseg.runs.dry_run import try_one_step
from fleetseg.runs.option_notes import expected_scores, option_notes, require_workable
from fleetseg.runs.rules import Facts
from fleetseg.runs.scoring import require_scorable_run
from fleetseg.runs.setup import set_up


@dataclass(frozen=True)
class Rehearsal:
    """What a run would start with."""

    clients: int
    images: int  # used for training
    scored: int  # images of the server's evaluation sets
    parameters: int
    notes: tuple[str, ...]


def rehearse(experiment: Experiment, progress: Progress | None = None) -> Rehearsal:
    """Check an experiment, read its data, build its model and take one step, without a run folder.

    A first stage (`pretrain`) is not trained; the model keeps its initial weights.

    Raises:
        FleetSegError: the error that the run would have stopped with.
    """
    check_choices(experiment)
    facts = Facts(experiment, expected_scores(experiment))
    require_workable(facts)
    fleet_data = open_fleet_data(experiment, progress)
    with tempfile.TemporaryDirectory(prefix="fleetseg-dry-run-") as folder:
        setup = set_up(experiment, fleet_data, Path(folder), None, Watcher())
        require_scorable_run(fleet_data, setup.runtime)
        tried = try_one_step(setup)
    enrolled = taking_part(fleet_data.enrolled)
    return Rehearsal(
        clients=len(enrolled),
        images=sum(enrolment.num_images for enrolment in enrolled.values()),
        scored=sum(len(part.scored) for part in fleet_data.evaluation),
        parameters=sum(p.numel() for p in setup.runtime.model.parameters()),
        notes=(*option_notes(facts), *fleet_data.notes, *tried),
    )
