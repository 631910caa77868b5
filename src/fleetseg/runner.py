"""One experiment from its description to its run folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fleetseg.compression.codec import parse_codec
from fleetseg.compression.uplink import Uplink
from fleetseg.config import Experiment
from fleetseg.engines.compressed import CompressedEngine
from fleetseg.engines.conditions import SimulatedConditions
from fleetseg.engines.inprocess import InProcessEngine
from fleetseg.engines.workers import WorkersEngine
from fleetseg.errors import DataError, ModelError, QuorumLost
from fleetseg.federation import rounds
from fleetseg.federation.checkpoint import ServerState, no_momentum
from fleetseg.federation.client import Workbench
from fleetseg.federation.client_state import ClientMemory
from fleetseg.federation.cohort import choose
from fleetseg.federation.engine import Engine
from fleetseg.federation.messages import taking_part
from fleetseg.federation.runfolder import RunFolder, can_resume, environment
from fleetseg.federation.tensors import Layout, layout_of, read_state
from fleetseg.federation.wire import message_bytes
from fleetseg.learning.hardware import Hardware, resolve
from fleetseg.learning.losses import class_weights
from fleetseg.models.build import build_model, wrap
from fleetseg.models.folder import load_model, save_model
from fleetseg.models.segmenter import Segmenter
from fleetseg.scoring import Scorer
from fleetseg.study import Study


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


@dataclass(frozen=True)
class _Parts:
    """The pieces of one run, built once."""

    experiment: Experiment
    study: Study
    bench: Workbench
    folder: RunFolder
    watcher: rounds.Watcher
    uplink: Uplink | None  # how updates are compressed, if they are

    @cached_property
    def message_bytes(self) -> tuple[int, int]:
        """Encoded size of a broadcast, and of an update at most."""
        down, up = message_bytes(self.bench.layout, read_state(self.bench.model, self.bench.layout))
        return down, self.uplink.max_bytes if self.uplink else up


def run_study(
    experiment: Experiment,
    study: Study,
    out: Path,
    *,
    resume: bool = False,
    net: nn.Module | None = None,
    watcher: rounds.Watcher | None = None,
) -> Run:
    """Run an experiment on a prepared study; Ctrl-C ends it with a usable run folder.

    Raises:
        CheckpointError: if `out` holds a run and `resume` is false, or belongs to another one.
        QuorumLost: the model of the last good round is saved by then.
    """
    started_s = time.monotonic()
    parts = _parts(experiment, study, out, net, watcher or rounds.Watcher())
    state, notes = _open(parts, resume)
    latest = _Latest(parts.folder, state)
    reason = "failed"
    try:
        with _engine(parts) as engine:
            scorer = Scorer(study, parts.bench, engine)
            plan = _plan(parts, engine, scorer)
            reason = rounds.run(plan, engine, state, latest, parts.watcher)
            notes += _last_scores(latest, scorer, experiment)
    except KeyboardInterrupt:
        reason = "interrupted"
    except QuorumLost:
        reason = "quorum-lost"
        raise
    finally:
        seconds = round(time.monotonic() - started_s, 3)
        sha256 = _finish(parts, latest, reason, seconds)
    return Run(
        folder=out,
        experiment=experiment,
        reason=reason,
        records=tuple(parts.folder.records),
        scores=latest.last_scores,
        model_sha256=sha256,
        notes=(*study.notes, *notes),
        seconds=seconds,
    )


def _last_scores(latest: _Latest, scorer: Scorer, experiment: Experiment) -> list[str]:
    """Score the final model where its round was not; add the clients' own scores if wanted."""
    if scorer.can_score and latest.scored_round != latest.state.round:
        latest.last_scores = scorer.score(latest.state.model)
        latest.scored_round = latest.state.round
    if not experiment.evaluation.on_clients:
        return []
    return scorer.add_clients(latest.state, latest.last_scores)


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
        if "scores" in record:
            self.last_scores, self.scored_round = record["scores"], record["round"]


def _parts(
    experiment: Experiment,
    study: Study,
    out: Path,
    net: nn.Module | None,
    watcher: rounds.Watcher,
) -> _Parts:
    hardware = resolve(experiment.engine.device, experiment.engine.precision)
    model = _model(experiment, study, net).to(hardware.device)
    model = model.to(memory_format=torch.channels_last)
    layout = layout_of(model)
    bench = Workbench(
        model=model,
        layout=layout,
        experiment=experiment,
        hardware=hardware,
        num_classes=study.space.num_classes,
        memory=ClientMemory(out / "clients"),
    )
    return _Parts(
        experiment=experiment,
        study=study,
        bench=bench,
        folder=RunFolder(out, experiment, layout.digest),
        watcher=watcher,
        uplink=_uplink(experiment, layout, out),
    )


def _uplink(experiment: Experiment, layout: Layout, out: Path) -> Uplink | None:
    settings = experiment.federation
    codec, residuals = parse_codec(settings.uplink), ClientMemory(out / "residuals")
    if codec is None:
        return None
    return Uplink(codec, layout, experiment.seed, residuals, settings.max_update_norm)


def _model(experiment: Experiment, study: Study, net: nn.Module | None) -> Segmenter:
    classes = study.space.num_classes
    if net is not None:
        return net if isinstance(net, Segmenter) else wrap(net, classes)
    model = build_model(
        experiment.model.name,
        classes,
        pretrained=experiment.model.pretrained,
        seed=experiment.seed,
    )
    if not experiment.model.start:
        return model
    start = load_model(Path(experiment.model.start))
    if (start.name, start.num_classes) != (model.name, classes):
        raise ModelError(
            "the model to start from is another one",
            where=experiment.model.start,
            got=f"{start.name} with {start.num_classes} classes",
            expected=f"{model.name} with {classes}",
        )
    return start


def _open(parts: _Parts, resume: bool) -> tuple[ServerState, list[str]]:
    folder, manifest = parts.folder, parts.study.manifest
    if resume and can_resume(folder.path):
        if manifest is not None and manifest != type(manifest).read(folder.path / "manifest.json"):
            raise DataError(
                "the data differ from when the run was started",
                where=folder.path / "manifest.json",
                cure="Put the data back, or start a new run with another --out",
            )
        return folder.resume()
    state = ServerState(0, read_state(parts.bench.model, parts.bench.layout), no_momentum())
    momentum = parts.experiment.federation.server_momentum
    if momentum > 0:
        state = ServerState(0, state.model, torch.zeros(parts.bench.layout.num_trainable))
    hardware = parts.bench.hardware
    facts = environment(str(hardware.device), hardware.precision)
    folder.create(parts.experiment, facts, state, manifest)
    return state, []


@contextmanager
def _engine(parts: _Parts) -> Iterator[Engine]:
    experiment, clients = parts.experiment, parts.study.clients
    workers = num_workers(experiment, parts.study, parts.bench.hardware)
    if workers == 0:
        yield _wrapped(InProcessEngine(clients, parts.bench), parts)
        return
    parts.watcher.starting("1 worker" if workers == 1 else f"{workers} workers")
    with WorkersEngine(clients, parts.bench, workers) as engine:
        yield _wrapped(engine, parts)


def num_workers(experiment: Experiment, study: Study, hardware: Hardware) -> int:
    """How many worker processes to use; 0 = train in this process."""
    settings = experiment.engine
    cohort = len(choose(study.clients, experiment.federation.cohort, seed=0, round_=1))
    gpus = torch.cuda.device_count() if hardware.device.type == "cuda" else 0
    workers = min(settings.workers or gpus or os.cpu_count() or 1, cohort)
    if settings.kind == "auto":
        # Data that a user brought as Python objects need not survive the way to another process.
        return workers if workers > 1 and study.manifest is not None else 0
    return workers if settings.kind == "workers" else 0


def _wrapped(engine: Engine, parts: _Parts) -> Engine:
    """Put a codec and simulated trouble in front of an engine, if the experiment has them."""
    settings = parts.experiment.federation
    if parts.uplink is not None:
        engine = CompressedEngine(engine, parts.uplink)
    if settings.conditions.dropout == 0 and settings.conditions.stragglers == 0:
        return engine
    return SimulatedConditions(engine, parts.experiment, sum(parts.message_bytes))


def _plan(parts: _Parts, engine: Engine, scorer: Scorer) -> rounds.Plan:
    layout = parts.bench.layout
    weights: tuple[float, ...] = ()
    if parts.experiment.training.class_weights == "fleet":
        histograms = [e.histogram_C for e in taking_part(engine.available()).values()]
        total_C = np.sum(np.array(histograms, dtype=np.int64), axis=0)
        weights = tuple(class_weights(total_C, parts.bench.num_classes).tolist())
    virtual = isinstance(engine, SimulatedConditions)
    return rounds.Plan(
        experiment=parts.experiment,
        layout=layout,
        score=scorer.score if scorer.can_score else None,
        message_bytes=parts.message_bytes,
        class_weights_C=weights,
        clock=(lambda: engine.now_s) if virtual else time.monotonic,  # type: ignore[attr-defined]
    )


def _finish(parts: _Parts, latest: _Latest, reason: str, seconds: float) -> str:
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
