"""One experiment from its description to its run folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from fleetseg.clients import FleetData
from fleetseg.config import Experiment
from fleetseg.data.labels import LabelSpace
from fleetseg.engines.faults import SimulatedFaults, virtual_seconds
from fleetseg.engines.inprocess import InProcessEngine
from fleetseg.engines.workers import WorkersEngine
from fleetseg.errors import ConfigError, DataError, EngineError, QuorumLost
from fleetseg.evaluation.scored import Scored
from fleetseg.experiment_file import to_toml
from fleetseg.federation import rounds
from fleetseg.federation.checkpoint import ServerState
from fleetseg.federation.downlink import Downlink
from fleetseg.federation.engine import Engine
from fleetseg.federation.messages import Enrolment
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.server_optim import first_slots
from fleetseg.federation.statistics import STATISTICS
from fleetseg.federation.tensors import read_state
from fleetseg.federation.wire import PlainCodec
from fleetseg.files import explained
from fleetseg.hosts import allowed_cores
from fleetseg.learning.adapters import merge_adapters
from fleetseg.learning.hardware import threads
from fleetseg.models.build import is_known
from fleetseg.models.folder import load_model, save_model
from fleetseg.models.segmenter import Segmenter
from fleetseg.own_data import record_own, require_same_own
from fleetseg.runs.concurrency import num_workers
from fleetseg.runs.dry_run import try_one_step
from fleetseg.runs.estimating import Estimator
from fleetseg.runs.folder import (
    RunFolder,
    can_resume,
    changed_since,
    environment,
    require_no_run,
)
from fleetseg.runs.lock import Ownership, owning
from fleetseg.runs.option_notes import Facts, option_notes, require_workable
from fleetseg.runs.records import RunEnd
from fleetseg.runs.scoring import Scorer, require_scorable_run
from fleetseg.runs.setup import RunSetup, set_up
from fleetseg.text import listing

if TYPE_CHECKING:
    from fleetseg.fleet.server.enrolment import RunSpec

OpenEngine = Callable[[RunSetup], AbstractContextManager[Engine]]


@dataclass(frozen=True)
class Run:
    """What a finished (or interrupted) run leaves in your hands; the rest is in its folder."""

    folder: Path
    experiment: Experiment
    reason: str  # why it stopped
    records: tuple[RoundRecord, ...]
    scores: Scored | None  # of the final model; None if nothing was scored
    model_sha256: str
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    space: LabelSpace | None = None  # what the model's classes mean

    @property
    def miou(self) -> float | None:
        """Final mIoU in [0, 1], or None if nothing was scored."""
        return None if self.scores is None else self.scores.miou

    @property
    def critical_miou(self) -> float | None:
        """Final mIoU of the safety-critical classes, or None if nothing was scored."""
        return None if self.scores is None else self.scores.critical_miou

    def model(self) -> Segmenter:
        """Load the final model."""
        return load_model(self.folder)

    def model_with(self, net: nn.Module) -> Segmenter:
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

    `open_engine` brings an engine whose clients are not those of the data (a fleet); `owned` says
    that the caller owns `out` already.

    Raises:
        CheckpointError: if `out` holds a run and `resume` is false, belongs to another one, is
            another process's at the moment, or cannot be written.
        QuorumLost: the model of the last good round is saved by then.
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
    setup = set_up(experiment, fleet_data, out, net, watcher or rounds.Watcher())
    require_scorable_run(fleet_data, setup.runtime)
    tried = [] if resume and can_resume(out) else try_one_step(setup)
    state, notes = _open(setup, resume)
    notes += tried
    if setup.runtime.exchange.learns_apart(experiment.training):
        notes.append(
            "the saved model is not whole: what learns and stays with the vehicles "
            f"(federation.sharing = '{experiment.federation.sharing}') is in it as the run began"
        )
    for note in idle:  # now, and not only when the hours are spent
        setup.watcher.status(f"note: {note}")
    final, reason = _Final(), "failed"
    try:
        with (open_engine or _engine)(setup) as engine:
            scorer = Scorer(fleet_data, setup.runtime, engine)
            plan = _plan(setup, scorer, on_network=open_engine is not None)
            if STATISTICS[experiment.federation.statistics].estimated:
                final.estimator = Estimator(setup.runtime, engine)
                plan = replace(plan, refine=final.estimator)
            reason = rounds.run(plan, engine, state, setup.folder, setup.watcher)
            notes += _score_final(final, setup.folder, scorer, plan)
    except KeyboardInterrupt:
        reason = "interrupted"
    except QuorumLost as lost:
        reason = "quorum-lost"
        raise _with_what_looked_odd(lost, tried) from None
    finally:
        seconds = round(time.monotonic() - started_s, 3)
        sha256 = _finish(setup, final, reason, seconds)
    records = tuple(setup.folder.records)
    why = [rounds.why_unused(records)] if reason == rounds.UNUSED else []
    every_note = (*idle, *fleet_data.notes, *notes, *why)
    scored, space = final.scored, fleet_data.space
    return Run(out, experiment, reason, records, scored, sha256, every_note, seconds, space)


def _with_what_looked_odd(lost: QuorumLost, tried: list[str]) -> QuorumLost:
    """Add what the step before round 1 has told: it may well be the cause."""
    return QuorumLost(f"{lost}. Before round 1: {'; '.join(tried)}") if tried else lost


def _facts(
    experiment: Experiment, fleet_data: FleetData, over_network: bool, own_net: bool
) -> Facts:
    scored = bool(fleet_data.evaluation) or fleet_data.holds_out
    own_data = fleet_data.manifest is None
    own_frames = fleet_data.holds_out or experiment.evaluation.on_clients
    return Facts(experiment, scored, over_network, own_net, own_data, own_frames)


@dataclass
class _Final:
    """Scores to end a run with: the newest there are."""

    scored: Scored | None = None
    round: int = 0
    estimator: Estimator | None = None  # of statistics of the final model, if they are estimated

    def take(self, records: Sequence[RoundRecord]) -> None:
        """Take the newest of the rounds', unless there are newer ones."""
        for record in records:
            if record.scored is not None and record.round > self.round:
                self.scored, self.round = record.scored, record.round


def _score_final(final: _Final, folder: RunFolder, scorer: Scorer, plan: rounds.Plan) -> list[str]:
    """Score the final model where its round was not; add the clients' own scores if wanted."""
    notes = []
    final.take(folder.records)
    model, round_ = plan.refined(folder.state, folder.records), folder.state.round
    notes += final.estimator.notes() if final.estimator else []
    if scorer.can_score and final.round != round_:
        scored = scorer.score(model, round_, folder.records, folder.state.facts)
        if isinstance(scored, str):
            notes.append(f"the final model has no scores: {scored}")
        else:
            final.scored, final.round = scored, round_
    if final.scored and (missing := final.scored.missing):
        notes.append(f"scored without {listing(missing)}: not comparable with the other rounds")
    of_this_model = final.scored if final.round == round_ else None
    if scorer.scores_own_models:
        if of_this_model and of_this_model.personal:
            return notes
        final.scored, refused = scorer.with_personal(
            of_this_model, model, round_, folder.records, folder.state.facts
        )
    elif plan.experiment.evaluation.on_clients:
        final.scored, refused = scorer.with_clients(of_this_model, model, round_, folder.records)
    else:
        return notes
    final.round = round_
    return notes + refused


def _open(setup: RunSetup, resume: bool) -> tuple[ServerState, list[str]]:
    folder, manifest = setup.folder, setup.fleet_data.manifest
    hardware = setup.runtime.hardware
    facts = environment(hardware.name, hardware.precision)
    if resume and can_resume(folder.path):
        if manifest is not None and manifest != type(manifest).read(folder.path / "manifest.json"):
            raise DataError(
                "the data differ from when the run was started",
                where=folder.path / "manifest.json",
                cure="Put the data back, or start a new run with another --out",
            )
        require_same_own(folder.path, setup.fleet_data)
        state, notes = folder.resume()
        return state, notes + changed_since(folder.path, facts)
    exchange = setup.runtime.exchange
    slots = first_slots(setup.experiment.federation, exchange.wire)
    model = read_state(setup.runtime.model, exchange.model)
    state = ServerState(0, exchange.first(model), slots)
    require_no_run(folder.path)
    record_own(folder.path, setup.fleet_data)
    folder.create(setup.experiment, facts, state, manifest)
    return state, []


@contextmanager
def _engine(setup: RunSetup) -> Iterator[Engine]:
    experiment, clients = setup.experiment, setup.fleet_data.clients
    if experiment.engine.kind == "fleet":
        with _loopback(setup) as fleet:
            yield _with_faults(fleet, setup)
        return
    workers = _workers(setup)
    if workers is None:
        yield _with_faults(InProcessEngine(clients, setup.runtime), setup)
        return
    with workers as engine:
        yield _with_faults(engine, setup)


def _workers(setup: RunSetup) -> WorkersEngine | None:
    """Start the workers, if there are to be any.

    With kind = "auto", a network of the user's that cannot be sent to them is trained in this
    process, which gives the same model.
    """
    kind = setup.experiment.engine.kind
    fleet_data = setup.fleet_data
    workers = num_workers(
        setup.experiment,
        len(fleet_data.clients),
        setup.runtime.hardware,
        on_disk=fleet_data.manifest is not None,
    )
    if workers == 0:
        return None
    setup.watcher.status(f"starting {workers} worker{'s' * (workers > 1)}")
    try:
        return WorkersEngine(setup.fleet_data.clients, setup.runtime, workers)
    except EngineError as error:
        if kind != "auto" or is_known(setup.runtime.model.name):
            raise
        setup.watcher.status(f"no workers, training in this process: {error.what}")
        return None


@contextmanager
def _loopback(setup: RunSetup) -> Iterator[Engine]:
    from fleetseg.fleet.loopback import loopback

    if setup.fleet_data.manifest is None:
        raise ConfigError(
            "a fleet reads its data from disk, and these are Python objects",
            cure="Use --engine inprocess or workers",
        )
    if not is_known(setup.runtime.model.name):
        raise ConfigError(
            "the vehicles of a fleet build their network by its name, and this one is your own",
            got=f"net= ({setup.runtime.model.name})",
            cure="Use --engine inprocess or workers",
        )
    setup.watcher.status("starting a fleet on this machine")
    toml, names = to_toml(setup.experiment), sorted(setup.fleet_data.clients)
    with loopback(run_spec(setup), setup.folder.path, names, toml) as engine:
        yield engine


def run_spec(setup: RunSetup) -> RunSpec:
    """What a run and the vehicles of a fleet must agree on."""
    from fleetseg.fleet.server.enrolment import RunSpec
    from fleetseg.fleet.server.serve import run_name

    run, runtime = run_name(setup.folder.path), setup.runtime
    return RunSpec(
        run,
        setup.experiment,
        runtime.exchange,
        setup.fleet_data.space,
        runtime.codec or PlainCodec(runtime.exchange.up),
        runtime.model.normalisation,
        runtime.start,
        tell=setup.watcher.status,
    )


def _with_faults(engine: Engine, setup: RunSetup) -> Engine:
    """Put the virtual clock in front of an engine where what is simulated needs one.

    With over-selection, who is first must not depend on how many workers there are.
    """
    settings = setup.experiment.federation
    is_calm = settings.faults.dropout == 0 and settings.faults.stragglers == 0
    has_race = settings.over_selection > 1 and setup.experiment.engine.kind != "fleet"
    if is_calm and not has_race:
        return engine
    return SimulatedFaults(engine, setup.experiment, setup.runtime.message_bytes)


def _plan(setup: RunSetup, scorer: Scorer | None, *, on_network: bool = False) -> rounds.Plan:
    experiment, runtime = setup.experiment, setup.runtime
    changes = runtime.changes
    on_network = on_network or experiment.engine.kind == "fleet"
    return rounds.Plan(
        experiment=experiment,
        exchange=runtime.exchange,
        score=scorer.score if scorer is not None and scorer.can_score else None,
        scratch=setup.folder.path,
        round_every_s=experiment.fleet.round_every_s if on_network else 0.0,
        downlink=None if changes is None else Downlink(changes, runtime.message_bytes[0]),
        seconds_of=_seconds_of(setup),
    )


def _seconds_of(setup: RunSetup) -> Callable[[Enrolment], float] | None:
    """How long clients take, where some are simulated to be slow."""
    if setup.experiment.federation.faults.stragglers == 0:
        return None
    return partial(virtual_seconds, setup.experiment, sum(setup.runtime.message_bytes))


def _finish(setup: RunSetup, final: _Final, reason: str, seconds: float) -> str:
    """Save the last committed model and close the log."""
    runtime, state = setup.runtime, setup.folder.state
    final.take(setup.folder.records)
    details: dict[str, object] = {"rounds": state.round, "experiment": setup.experiment.name}
    refined = None
    if final.estimator is not None:
        refined = final.estimator.newest(state.round)  # None: the run was interrupted before
        details["norm statistics"] = "means of updates" if refined is None else "estimated"
    runtime.whole.load(refined or _plan(setup, None).published(state))
    merge_adapters(runtime.model)
    sha256 = save_model(
        runtime.model,
        setup.folder.path / "model",
        space=setup.fleet_data.space,
        size_hw=setup.experiment.data.size,
        details=details,
        untrained=runtime.exchange.untrained(setup.experiment.training),
    )
    end = RunEnd(reason, state.round, seconds, final.scored, final.round, sha256)
    setup.folder.finish(end)
    return sha256
