"""One experiment from its description to its run folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from fleetseg.config import Experiment
from fleetseg.data.labels import LabelSpace
from fleetseg.dry_run import try_one_step
from fleetseg.engines.compressed import CompressedEngine
from fleetseg.engines.conditions import SimulatedConditions
from fleetseg.engines.inprocess import InProcessEngine
from fleetseg.engines.workers import WorkersEngine
from fleetseg.errors import ConfigError, DataError, EngineError, QuorumLost
from fleetseg.experiment_file import to_toml
from fleetseg.federation import rounds
from fleetseg.federation.checkpoint import ServerState
from fleetseg.federation.cohort import size_of
from fleetseg.federation.engine import Engine
from fleetseg.federation.messages import taking_part
from fleetseg.federation.ownership import Ownership, owning
from fleetseg.federation.runfolder import (
    RunFolder,
    can_resume,
    changed_since,
    environment,
    require_no_run,
)
from fleetseg.federation.server_optim import first_slots
from fleetseg.federation.tensors import read_state
from fleetseg.files import explained
from fleetseg.hosts import allowed_cores
from fleetseg.learning.hardware import Hardware, num_gpus, threads
from fleetseg.learning.losses import class_weights
from fleetseg.models.build import is_known
from fleetseg.models.folder import load_model, save_model
from fleetseg.models.segmenter import Segmenter
from fleetseg.option_notes import Facts, option_notes, require_workable
from fleetseg.own_study import record_own, require_same_own
from fleetseg.parts import Parts, build_parts
from fleetseg.scoring import Scorer
from fleetseg.study import Study
from fleetseg.texts import listing

if TYPE_CHECKING:
    from fleetseg.engines.enrolment import Terms

OpenEngine = Callable[[Parts], AbstractContextManager[Engine]]


@dataclass(frozen=True)
class Run:
    """What a finished (or interrupted) run leaves in your hands; the rest is in its folder."""

    folder: Path
    experiment: Experiment
    reason: str  # why it stopped
    records: tuple[dict[str, Any], ...]
    scores: Mapping[str, Any]  # of the final model; empty if nothing was scored
    model_sha256: str
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    space: LabelSpace | None = None  # what the model's classes mean

    @property
    def miou(self) -> float | None:
        """Final mIoU in [0, 1], or None if nothing was scored."""
        return self.scores.get("miou")

    def model(self) -> Segmenter:
        """Load the final model."""
        return load_model(self.folder)

    def model_with(self, net: nn.Module) -> Segmenter:
        """Load the final model into a network of your own."""
        return load_model(self.folder, net)


def run_study(
    experiment: Experiment,
    study: Study,
    out: Path,
    *,
    resume: bool = False,
    net: nn.Module | None = None,
    watcher: rounds.Watcher | None = None,
    open_engine: OpenEngine | None = None,
    owned: Ownership | None = None,
) -> Run:
    """Run an experiment on a prepared study; Ctrl-C ends it with a usable run folder.

    `open_engine` brings an engine whose clients are not the study's own (a fleet); `owned` says
    that the caller owns `out` already.

    Raises:
        CheckpointError: if `out` holds a run and `resume` is false, belongs to another one, is
            another process's at the moment, or cannot be written.
        QuorumLost: the model of the last good round is saved by then.
    """
    cores = min(torch.get_num_threads(), allowed_cores())
    with owning(out) if owned is None else nullcontext(owned) as own, threads(cores):
        try:
            run = _run_owned(experiment, study, out, resume, net, watcher, open_engine)
        except OSError as error:
            told = explained(error, out)
            if told is None:
                raise
            raise told from error
    return replace(run, notes=(own.note, *run.notes)) if own.note else run


def _run_owned(
    experiment: Experiment,
    study: Study,
    out: Path,
    resume: bool,
    net: nn.Module | None,
    watcher: rounds.Watcher | None,
    open_engine: OpenEngine | None,
) -> Run:
    started_s = time.monotonic()
    facts = _facts(experiment, study, open_engine is not None, net is not None)
    require_workable(facts)
    idle = option_notes(facts)
    parts = build_parts(experiment, study, out, net, watcher or rounds.Watcher())
    tried = [] if resume and can_resume(out) else try_one_step(parts)
    state, notes = _open(parts, resume)
    notes += tried
    for note in idle:  # now, and not only when the hours are spent
        parts.watcher.starting(f"note: {note}")
    latest = _Latest(parts.folder, state)
    reason = "failed"
    try:
        with (open_engine or _engine)(parts) as engine:
            scorer = Scorer(study, parts.bench, engine)
            plan = _plan(parts, engine, scorer)
            reason = rounds.run(plan, engine, state, latest, parts.watcher)
            notes += _last_scores(latest, scorer, experiment)
    except KeyboardInterrupt:
        reason = "interrupted"
    except QuorumLost as lost:
        reason = "quorum-lost"
        raise _with_what_looked_odd(lost, tried) from None
    finally:
        seconds = round(time.monotonic() - started_s, 3)
        sha256 = _finish(parts, latest, reason, seconds)
    records = tuple(parts.folder.records)
    why = [rounds.why_unused(records)] if reason == rounds.UNUSED else []
    every_note = (*idle, *study.notes, *notes, *why)
    scores, space = latest.last_scores, study.space
    return Run(out, experiment, reason, records, scores, sha256, every_note, seconds, space)


def _with_what_looked_odd(lost: QuorumLost, tried: list[str]) -> QuorumLost:
    """Add what the step before round 1 has told: it may well be the cause."""
    return QuorumLost(f"{lost}. Before round 1: {'; '.join(tried)}") if tried else lost


def _facts(experiment: Experiment, study: Study, over_network: bool, own_net: bool) -> Facts:
    scored = bool(study.evaluation) or study.holds_out
    return Facts(experiment, scored, over_network, own_net, own_data=study.manifest is None)


def _last_scores(latest: _Latest, scorer: Scorer, experiment: Experiment) -> list[str]:
    """Score the final model where its round was not; add the clients' own scores if wanted."""
    notes = []
    if scorer.can_score and latest.scored_round != latest.state.round:
        scores = scorer.score(latest.state.model, rounds.scored_before(latest.records))
        if "unscored" in scores:
            notes.append(f"the final model has no scores: {scores['unscored']}")
        else:
            latest.last_scores, latest.scored_round = scores, latest.state.round
    if missing := latest.last_scores.get("missing"):
        notes.append(f"scored without {listing(missing)}: not comparable with the other rounds")
    if not experiment.evaluation.on_clients:
        return notes
    by_client, refused = scorer.by_client(latest.state)
    latest.last_scores = {**latest.last_scores, **by_client}
    return notes + refused


class _Latest:
    """The run folder's log, with the newest committed state at hand."""

    def __init__(self, folder: RunFolder, state: ServerState) -> None:
        self._folder = folder
        self.state = state
        scored = [r for r in folder.records if "scores" in r]
        self.last_scores: dict[str, Any] = scored[-1]["scores"] if scored else {}
        self.scored_round: int = scored[-1]["round"] if scored else 0

    @property
    def records(self) -> Any:
        """See rounds.Log."""
        return self._folder.records

    def commit(self, state: ServerState, record: rounds.Record) -> None:
        """See rounds.Log."""
        self._folder.commit(state, record)
        self.state = state

    def publish(self, record: rounds.Record) -> None:
        """See rounds.Log."""
        self._folder.publish(record)
        if "scores" in record:
            self.last_scores, self.scored_round = record["scores"], record["round"]


def _open(parts: Parts, resume: bool) -> tuple[ServerState, list[str]]:
    folder, manifest = parts.folder, parts.study.manifest
    hardware = parts.bench.hardware
    facts = environment(hardware.name, hardware.precision)
    if resume and can_resume(folder.path):
        if manifest is not None and manifest != type(manifest).read(folder.path / "manifest.json"):
            raise DataError(
                "the data differ from when the run was started",
                where=folder.path / "manifest.json",
                cure="Put the data back, or start a new run with another --out",
            )
        require_same_own(folder.path, parts.study)
        state, notes = folder.resume()
        return state, notes + changed_since(folder.path, facts)
    layout = parts.bench.layout
    slots = first_slots(parts.experiment.federation, layout)
    state = ServerState(0, read_state(parts.bench.model, layout), slots)
    require_no_run(folder.path)
    record_own(folder.path, parts.study)
    folder.create(parts.experiment, facts, state, manifest)
    return state, []


@contextmanager
def _engine(parts: Parts) -> Iterator[Engine]:
    experiment, clients = parts.experiment, parts.study.clients
    if experiment.engine.kind == "fleet":
        with _loopback(parts) as fleet:
            yield _with_conditions(fleet, parts)
        return
    workers = _workers(parts)
    if workers is None:
        yield _wrapped(InProcessEngine(clients, parts.bench), parts)
        return
    with workers as engine:
        yield _wrapped(engine, parts)


def _workers(parts: Parts) -> WorkersEngine | None:
    """Start the workers, if there are to be any.

    With kind = "auto", a network of the user's that cannot be sent to them is trained in this
    process, which gives the same model.
    """
    kind = parts.experiment.engine.kind
    workers = num_workers(parts.experiment, parts.study, parts.bench.hardware)
    if workers == 0:
        return None
    parts.watcher.starting(f"starting {workers} worker{'s' * (workers > 1)}")
    try:
        return WorkersEngine(parts.study.clients, parts.bench, workers)
    except EngineError as error:
        if kind != "auto" or is_known(parts.bench.model.name):
            raise
        parts.watcher.starting(f"no workers, training in this process: {error.what}")
        return None


@contextmanager
def _loopback(parts: Parts) -> Iterator[Engine]:
    from fleetseg.engines.nvflare.loopback import loopback

    if parts.study.manifest is None:
        raise ConfigError(
            "a fleet reads its data from disk, and these are Python objects",
            cure="Use --engine inprocess or workers",
        )
    if not is_known(parts.bench.model.name):
        raise ConfigError(
            "the vehicles of a fleet build their network by its name, and this one is your own",
            got=f"net= ({parts.bench.model.name})",
            cure="Use --engine inprocess or workers",
        )
    parts.watcher.starting("starting a fleet on this machine")
    toml, names = to_toml(parts.experiment), sorted(parts.study.clients)
    with loopback(fleet_terms(parts), parts.folder.path, names, toml) as engine:
        yield engine


def fleet_terms(parts: Parts) -> Terms:
    """What a run and the vehicles of a fleet must agree on."""
    from fleetseg.engines.enrolment import Terms
    from fleetseg.engines.nvflare.serve import run_name

    run, bench = run_name(parts.folder.path), parts.bench
    return Terms(
        run,
        parts.experiment,
        bench.layout,
        parts.study.space,
        parts.uplink,
        tell=parts.watcher.starting,
    )


def num_workers(experiment: Experiment, study: Study, hardware: Hardware) -> int:
    """How many worker processes to use; 0 = train in this process."""
    settings = experiment.engine
    cohort = size_of(experiment.federation.cohort, len(study.clients))
    processes = settings.workers or num_gpus(hardware.device.type) or allowed_cores()
    workers = min(processes, cohort)
    if settings.kind == "auto":
        # Data that a user brought as Python objects need not survive the way to another process.
        return workers if workers > 1 and study.manifest is not None else 0
    return workers if settings.kind == "workers" else 0


def _wrapped(engine: Engine, parts: Parts) -> Engine:
    """Put a codec and simulated trouble in front of an engine, if the experiment has them."""
    if parts.uplink is not None:
        engine = CompressedEngine(engine, parts.uplink)
    return _with_conditions(engine, parts)


def _with_conditions(engine: Engine, parts: Parts) -> Engine:
    settings = parts.experiment.federation
    if settings.conditions.dropout == 0 and settings.conditions.stragglers == 0:
        return engine
    return SimulatedConditions(engine, parts.experiment, sum(parts.message_bytes))


def _plan(parts: Parts, engine: Engine, scorer: Scorer) -> rounds.Plan:
    layout = parts.bench.layout
    weights: tuple[float, ...] = ()
    if parts.experiment.training.class_weights == "fleet":
        histograms = [e.histogram_C for e in taking_part(engine.available()).values()]
        total_C = np.sum(np.array(histograms, dtype=np.int64), axis=0)
        weights = tuple(class_weights(total_C, parts.bench.num_classes).tolist())
    virtual = isinstance(engine, SimulatedConditions)
    counted = getattr(engine, "traffic", None)  # a fleet counts where it sends
    return rounds.Plan(
        experiment=parts.experiment,
        layout=layout,
        traffic=counted,
        round_every_s=0.0 if counted is None else parts.experiment.fleet.round_every_s,
        score=scorer.score if scorer.can_score else None,
        message_bytes=parts.message_bytes,
        class_weights_C=weights,
        clock=(lambda: engine.now_s) if virtual else time.monotonic,  # type: ignore[attr-defined]
    )


def _finish(parts: Parts, latest: _Latest, reason: str, seconds: float) -> str:
    """Save the last committed model and close the log."""
    bench = parts.bench
    bench.tensors.load(latest.state.model)
    sha256 = save_model(
        bench.model,
        parts.folder.path / "model",
        space=parts.study.space,
        size_hw=parts.experiment.data.size,
        details={"rounds": latest.state.round, "experiment": parts.experiment.name},
    )
    end = {
        "reason": reason,
        "round": latest.state.round,
        "seconds": seconds,
        "scored_round": latest.scored_round,
        "scores": latest.last_scores,
        "model_sha256": sha256,
    }
    parts.folder.finish(end)
    return sha256
