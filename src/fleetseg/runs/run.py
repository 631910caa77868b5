"""Run one experiment, from its description to its run folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from fleetseg.clients import FleetData
from fleetseg.config import Experiment
from fleetseg.data.labels import LabelSpace
from fleetseg.engines.faults import virtual_seconds
from fleetseg.errors import DataError, QuorumLost
from fleetseg.evaluation.scored import Scored
from fleetseg.federation import rounds
from fleetseg.federation.checkpoint import ServerState
from fleetseg.federation.claims import Claims
from fleetseg.federation.downlink import Downlink
from fleetseg.federation.engine import Engine
from fleetseg.federation.messages import Enrolment
from fleetseg.federation.plan import Plan
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.server_optim import first_slots
from fleetseg.federation.statistics import STATISTICS
from fleetseg.federation.style_bank import style_notes
from fleetseg.federation.tensors import read_state
from fleetseg.files import explained
from fleetseg.hosts import allowed_cores
from fleetseg.learning.hardware import threads
from fleetseg.own_data import record_own, require_same_own
from fleetseg.runs.dry_run import try_one_step
from fleetseg.runs.ending import Final, save_final, score_final
from fleetseg.runs.engines import engine_of
from fleetseg.runs.enrolled import record_enrolled
from fleetseg.runs.estimating import Estimator
from fleetseg.runs.folder import (
    can_resume,
    changed_since,
    environment,
    has_run,
    require_no_run,
    require_same_experiment,
)
from fleetseg.runs.image_counts import keep_counts
from fleetseg.runs.kept_frames import FrameKeeper, keeping_frames
from fleetseg.runs.loaded import LoadedModel, load_model
from fleetseg.runs.lock import Ownership, owning
from fleetseg.runs.option_notes import option_notes, require_workable
from fleetseg.runs.pretraining import pretrained
from fleetseg.runs.rules import Facts
from fleetseg.runs.safety import FOLDER as SAFE
from fleetseg.runs.safety import UNGUARDED, Guard, learns_without_labels, require_start
from fleetseg.runs.scoring import Scorer, require_scorable_run
from fleetseg.runs.setup import RunSetup, set_up
from fleetseg.runs.tracked import tracking
from fleetseg.runs.tracked_pictures import kept_picture
from fleetseg.runs.vehicle_looks import record_looks, record_reported

OpenEngine = Callable[[RunSetup], AbstractContextManager[Engine]]


@dataclass(frozen=True)
class Run:
    """The result of a finished or interrupted run; everything else is in its folder."""

    folder: Path
    experiment: Experiment
    reason: str  # why the run stopped
    records: tuple[RoundRecord, ...]
    scores: Scored | None  # of the final model; None if nothing was scored
    model_sha256: str
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    space: LabelSpace | None = None  # the meaning of the model's classes

    @property
    def miou(self) -> float | None:
        """Final mIoU in [0, 1], or None if nothing was scored."""
        return None if self.scores is None else self.scores.miou

    @property
    def critical_miou(self) -> float | None:
        """Final mIoU of the safety-critical classes, or None if nothing was scored."""
        return None if self.scores is None else self.scores.critical_miou

    def model(self) -> LoadedModel:
        """Load the final model."""
        return load_model(self.folder)

    def model_with(self, net: nn.Module) -> LoadedModel:
        """Load the final model into a network of your own."""
        return load_model(self.folder, net)


def run_experiment(
    experiment: Experiment,
    fleet_data: FleetData,
    out: Path,
    *,
    resume: bool = False,
    net: nn.Module | None = None,
    watcher: rounds.Watcher | None = None,
    open_engine: OpenEngine | None = None,
    owned: Ownership | None = None,
) -> Run:
    """Run an experiment on a fleet's data; Ctrl-C ends it with a usable run folder.

    `open_engine` opens an engine whose clients are not those of the data (a fleet); `owned` says
    that the caller already owns `out`.

    Raises:
        CheckpointError: `out` holds a run and `resume` is false, holds another experiment's run, is
            in use by another process, or cannot be written.
        QuorumLost: by then the model of the last good round is saved.
    """
    cores = min(torch.get_num_threads(), allowed_cores())
    with owning(out) if owned is None else nullcontext(owned) as own, threads(cores):
        try:
            run = _run_owned(experiment, fleet_data, out, resume, net, watcher, open_engine)
        except OSError as error:
            told = explained(error, out)
            if told is None:
                raise
            raise told from error
    return replace(run, notes=(own.note, *run.notes)) if own.note else run


def _run_owned(
    experiment: Experiment,
    fleet_data: FleetData,
    out: Path,
    resume: bool,
    net: nn.Module | None,
    watcher: rounds.Watcher | None,
    open_engine: OpenEngine | None,
) -> Run:
    started_s = time.monotonic()
    facts = _facts(experiment, fleet_data, open_engine is not None, net is not None)
    require_workable(facts)
    idle = option_notes(facts)
    watcher = watcher or rounds.Watcher()
    start = _pretrained(experiment, fleet_data, out, resume, net, watcher)
    setup = set_up(experiment, fleet_data, out, net, watcher, start)
    require_scorable_run(fleet_data, setup.runtime)
    tried = [] if resume and can_resume(out) else try_one_step(setup)
    state, notes = _open(setup, resume)
    notes += [*tried, *_what_the_model_lacks(setup)]
    for note in idle:  # at once, not only after hours of training
        setup.watcher.status(f"note: {note}")
    final, reason = Final(), "failed"
    plan = _plan(setup, on_network=open_engine is not None)
    try:
        with (open_engine or engine_of)(setup) as engine, _watched(setup, notes) as watcher:
            plan, scorer, unguarded = _with_engine(plan, final, setup, engine)
            notes += unguarded
            reason = rounds.run(plan, engine, state, setup.folder, watcher)
            notes += _at_the_end(plan, final, setup, scorer)
    except KeyboardInterrupt:
        reason = "interrupted"
    except QuorumLost as lost:
        reason = "quorum-lost"
        raise _with_what_looked_odd(lost, tried) from None
    finally:
        seconds = round(time.monotonic() - started_s, 3)
        sha256 = save_final(final, setup, plan, reason, seconds)
    notes += final.notes
    records = tuple(setup.folder.records)
    why = [rounds.why_unused(records)] if reason == rounds.UNUSED else []
    every_note = (*idle, *fleet_data.notes, *notes, *why)
    scored, space = final.scored, fleet_data.space
    return Run(out, experiment, reason, records, scored, sha256, every_note, seconds, space)


def _with_engine(
    plan: Plan, final: Final, setup: RunSetup, engine: Engine
) -> tuple[Plan, Scorer, list[str]]:
    """Complete a plan with scoring, statistics and the guard, which need the engine."""
    keep = partial(keep_counts, setup.folder.path)
    scorer = Scorer(setup.fleet_data, setup.runtime, engine, keep)
    keeper = FrameKeeper(setup.folder.path, setup.fleet_data, setup.runtime)
    # From the data, not from the engine: asking it before round 1 may wait for vehicles, and the
    # bytes would count. The vehicles of a networked fleet are recorded once the loop has asked
    # them.
    record_enrolled(setup.folder.path, setup.fleet_data.enrolled)
    record_looks(setup.folder.path, setup.fleet_data, setup.experiment.data.store)
    final.guard, notes = _guard(setup, scorer)
    if STATISTICS[setup.experiment.federation.statistics].estimated:
        final.estimator = Estimator(setup.runtime, engine, plan.claims)
    score = keeping_frames(scorer, keeper) if scorer.can_score else None
    return replace(plan, score=score, guard=final.guard, refine=final.estimator), scorer, notes


@contextmanager
def _watched(setup: RunSetup, notes: list[str]) -> Iterator[rounds.Watcher]:
    """Let a run's trackers, if it has any, watch its rounds as well."""
    folder, wanted = setup.folder, setup.experiment.tracking
    picture = kept_picture(folder.path, setup.fleet_data.space, wanted.pictures)
    with tracking(
        setup.experiment, folder.path, lambda: folder.records, setup.watcher.status, notes
    ) as tracked:
        yield _noting_enrolled(tracked.watcher(setup.watcher, picture), folder.path)


def _noting_enrolled(watcher: rounds.Watcher, folder: Path) -> rounds.Watcher:
    """Record in the run folder the enrolment of the clients that the loop finds."""

    def enrolled(there: Mapping[str, Enrolment]) -> None:
        record_enrolled(folder, there)
        record_reported(folder, there)
        watcher.enrolled(there)

    return replace(watcher, enrolled=enrolled)


def _at_the_end(plan: Plan, final: Final, setup: RunSetup, scorer: Scorer) -> list[str]:
    """Score what is still to be scored; return the notes."""
    told = style_notes(setup.experiment, setup.folder.state.facts, setup.fleet_data.enrolled)
    return [*told, *score_final(final, setup.folder, scorer, plan)]


def _pretrained(
    experiment: Experiment,
    fleet_data: FleetData,
    out: Path,
    resume: bool,
    net: nn.Module | None,
    watcher: rounds.Watcher,
) -> Path | None:
    """Train the first stage, if there is one; return its folder."""
    self_taught = learns_without_labels(experiment, fleet_data)
    require_start(experiment, own_net=net is not None, self_taught=self_taught)

    def train(
        alone: Experiment, own: FleetData, folder: Path, resume: bool, watcher: rounds.Watcher
    ) -> str:
        run = run_experiment(alone, own, folder, resume=resume, net=net, watcher=watcher)
        return run.reason

    status = watcher.status
    return pretrained(experiment, fleet_data, out, train, resume=resume, status=status)


def _guard(setup: RunSetup, scorer: Scorer) -> tuple[Guard | None, list[str]]:
    """Make the guard of a run without labels, and say so where nothing can guard it."""
    fleet_data, folder = setup.fleet_data, setup.folder.path
    if not learns_without_labels(setup.experiment, fleet_data):
        return None, []
    layout = setup.runtime.exchange.model
    first = read_state(setup.runtime.model, layout)  # before any training
    scored = scorer.score(first, 0) if fleet_data.evaluation else UNGUARDED
    if isinstance(scored, str):
        return None, [scored]
    return Guard(setup.experiment.safety, scored, first, folder / SAFE, layout.digest), []


def _what_the_model_lacks(setup: RunSetup) -> list[str]:
    experiment = setup.experiment
    if not setup.runtime.exchange.learns_apart(experiment.training):
        return []
    return [
        "the saved model is incomplete: the trained parts that stay with the vehicles "
        f"(federation.sharing = '{experiment.federation.sharing}') are in it as initialised"
    ]


def _with_what_looked_odd(lost: QuorumLost, tried: list[str]) -> QuorumLost:
    """Add what the step before round 1 reported: it may well be the cause."""
    return QuorumLost(f"{lost}. Before round 1: {'; '.join(tried)}") if tried else lost


def _facts(
    experiment: Experiment, fleet_data: FleetData, over_network: bool, own_net: bool
) -> Facts:
    scored = bool(fleet_data.evaluation) or fleet_data.holds_out
    own_data = fleet_data.manifest is None
    own_frames = fleet_data.holds_out or experiment.evaluation.on_clients
    return Facts(experiment, scored, over_network, own_net, own_data, own_frames)


def _open(setup: RunSetup, resume: bool) -> tuple[ServerState, list[str]]:
    folder, manifest = setup.folder, setup.fleet_data.manifest
    hardware = setup.runtime.hardware
    facts = environment(hardware.name, hardware.precision)
    if resume and has_run(folder.path):
        require_same_experiment(folder.path, setup.experiment)
        if manifest is not None and manifest != type(manifest).read(folder.path / "manifest.json"):
            raise DataError(
                "the data have changed since the run was started",
                where=folder.path / "manifest.json",
                cure="Restore the data, or start a new run with another --out",
            )
        require_same_own(folder.path, setup.fleet_data)
        state, notes = folder.resume()
        return state, notes + changed_since(folder.path, facts)
    exchange = setup.runtime.exchange
    slots = first_slots(setup.experiment.federation, exchange.common)
    model = read_state(setup.runtime.model, exchange.model)
    state = ServerState(0, exchange.first(model), slots)
    require_no_run(folder.path)
    record_own(folder.path, setup.fleet_data)
    folder.create(setup.experiment, facts, state, manifest)
    return state, []


def _plan(setup: RunSetup, *, on_network: bool) -> Plan:
    experiment, runtime = setup.experiment, setup.runtime
    changes = runtime.changes
    # For vehicles simulated on this machine, nothing has to be taken on trust.
    claims = Claims(
        experiment.fleet.max_times_median if on_network else 0.0,
        frozenset(experiment.fleet.max_images_of),
        setup.watcher.status,
    )
    paced = on_network or experiment.engine.kind == "fleet"
    return Plan(
        experiment=experiment,
        exchange=runtime.exchange,
        scratch=setup.folder.path,
        round_every_s=experiment.fleet.round_every_s if paced else 0.0,
        downlink=None if changes is None else Downlink(changes, runtime.message_bytes[0]),
        seconds_of=_seconds_of(setup),
        claims=claims,
        max_times_norm=experiment.fleet.max_times_norm if on_network else 0.0,
    )


def _seconds_of(setup: RunSetup) -> Callable[[Enrolment], float] | None:
    """Return how long clients take, where some are simulated to be slow."""
    if setup.experiment.federation.faults.stragglers == 0:
        return None
    return partial(virtual_seconds, setup.experiment, sum(setup.runtime.message_bytes))
