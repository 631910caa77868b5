"""`fleetseg tune`: learning rates and local epochs on a part of the training drives.

Trials never open what the experiment scores on: each holds out the end of the vehicles' own drives
and is scored there. They run as a sweep, and so can be interrupted and resumed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleetseg.config import Experiment
from fleetseg.errors import CheckpointError, ConfigError
from fleetseg.experiment_file import (
    apply_override,
    fields_to_toml,
    load_experiment,
    read_fields,
    with_resolved_paths,
)
from fleetseg.files import write_atomic
from fleetseg.hosts import given_path
from fleetseg.methods import laid_under
from fleetseg.runs.folder import has_run
from fleetseg.runs.lock import drop_if_empty, new_run_folder
from fleetseg.runs.records import effort
from fleetseg.runs.report import read_run
from fleetseg.runs.sweep import SWEEP, SweepEnd, SweepWatcher, sweep

BASE, TRIALS, TUNED, TABLE = "base.toml", "trials.toml", "tuned.toml", "tuning.md"
_HOLDOUT = 0.2  # of each vehicle's drives, if the experiment holds none out
_FACTOR = 3.0  # between learning rates, by default
_CLOSE = 0.01  # of mIoU: closer trials may swap places with another seed
_SHARE, _FEWEST = 4, 4  # a trial has a quarter of the rounds, but at least four


@dataclass(frozen=True)
class Budget:
    """What to try; empty and 0 mean the default."""

    rates: tuple[float, ...] = ()
    epochs: tuple[int, ...] = ()
    rounds: int = 0  # of a trial with the experiment's own local epochs


@dataclass(frozen=True)
class Trial:
    """One setting that was tried to the end."""

    name: str
    lr: float
    local_epochs: int
    rounds: int
    miou: float  # on held-out frames of the vehicles
    critical_miou: float | None
    images: int  # used for training
    seconds: float


@dataclass(frozen=True)
class Tuned:
    """The result of a tuning."""

    folder: Path
    trials: tuple[Trial, ...]  # best first
    file: Path | None  # the experiment with the best of them; None if none is over or any is open
    sweep: SweepEnd
    notes: tuple[str, ...] = ()


def tune(
    file: Path | None,
    overrides: Sequence[str] = (),
    *,
    budget: Budget | None = None,
    out: Path | None = None,
    jobs: int = 1,
    resume: bool = False,
    watcher: SweepWatcher | None = None,
) -> Tuned:
    """Try settings, and write the experiment with the best of them as tuned.toml.

    Args:
        file: the experiment; None with `resume`.
        overrides: `key=value`, for every trial and for the tuned experiment.
        budget: learning rates, local epochs and rounds to try; not with `resume`.
        out: the folder; default runs/<time>_<name>-tune.
        jobs: trials at the same time.
        resume: continue the trials in `out`.
        watcher: called as trials progress.

    Raises:
        ConfigError: the experiment cannot run, or there is nothing to choose from.
        CheckpointError: `out` holds trials and `resume` is false, or none and it is true.
    """
    given = None if out is None else given_path(out)
    if resume and (given is None or not (given / TRIALS).is_file()):
        raise CheckpointError("there are no trials to resume", where=given, expected=TRIALS)
    folder = given if given is not None and resume else _begin(file, overrides, budget, given)
    try:
        end = sweep(folder / TRIALS, out=folder, jobs=jobs, resume=resume, watcher=watcher)
    finally:
        drop_if_empty(folder)
    return _tuned(folder, end)


def _begin(
    file: Path | None, overrides: Sequence[str], budget: Budget | None, out: Path | None
) -> Path:
    """Write the base experiment and its trials; return the folder."""
    if file is None:
        raise ConfigError("name the experiment to tune")
    experiment = load_experiment(file, overrides)
    fields = read_fields(file)
    for override in overrides:
        apply_override(fields, override)
    fields = with_resolved_paths(fields, file.parent)
    trials = trials_of(experiment, fields, budget or Budget())
    if out is not None and ((out / SWEEP).exists() or (out / TRIALS).exists()):
        raise CheckpointError(
            "this folder already holds trials",
            where=out,
            cure="Resume them with --resume, or choose another --out",
        )
    folder = out or new_run_folder(f"{experiment.name}-tune")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / BASE, fields_to_toml(fields))
    write_atomic(folder / TRIALS, fields_to_toml(trials))
    return folder


def trials_of(experiment: Experiment, fields: dict[str, Any], budget: Budget) -> dict[str, Any]:
    """Write the trials of an experiment as the fields of a sweep; all see equally many images.

    Raises:
        ConfigError: there is only one setting.
    """
    training = experiment.training
    rates = budget.rates or tuple(
        float(f"{training.lr * factor:.2g}") for factor in (1 / _FACTOR, 1.0, _FACTOR)
    )
    own = training.local_epochs
    epochs = budget.epochs or (own, 2 * own)
    if training.local_steps:  # local steps replace epochs
        epochs = (own,)
    if len(set(rates)) * len(set(epochs)) < 2:
        raise ConfigError("there is only one setting, so nothing to choose from", got=rates[0])
    rounds = budget.rounds or max(_FEWEST, experiment.federation.rounds // _SHARE)
    runs = [
        {
            "name": f"lr-{rate:g}_epochs-{count}",
            "training": {"lr": rate, "local_epochs": count},
            "federation": {"rounds": _at_equal_images(rounds, own, count)},
        }
        for rate, count in itertools.product(dict.fromkeys(rates), dict.fromkeys(epochs))
    ]
    blind = {
        "data": {"evaluation": []},  # what the experiment scores on must not influence the choice
        "partition": {"holdout": experiment.partition.holdout or _HOLDOUT},
        "evaluation": {"every": 0, "on_clients": True},
    }
    base = {key: value for key, value in fields.items() if key not in ("name", "stop")}
    return {
        "name": f"{experiment.name}-tune",
        "seeds": [experiment.seed],
        "base": dict(laid_under(base, blind)),
        "run": runs,
    }


def _at_equal_images(rounds: int, own_epochs: int, epochs: int) -> int:
    return max(1, round(rounds * own_epochs / epochs))


def _tuned(folder: Path, end: SweepEnd) -> Tuned:
    trials = [
        _trial(folder / run.planned.name, run.planned.setting)
        for run in end.runs
        if run.state == "finished" and has_run(folder / run.planned.name)
    ]
    ordered = tuple(sorted(trials, key=lambda trial: (-trial.miou, trial.name)))
    if not ordered:
        return Tuned(folder, (), None, end)
    write_atomic(folder / TABLE, table(ordered))
    open_ones = [run for run in end.runs if run.state in ("waiting", "interrupted", "running")]
    if open_ones:  # a choice among some of them could change with the rest
        return Tuned(folder, ordered, None, end)
    write_atomic(folder / TUNED, _tuned_text(folder, ordered[0], len(ordered)))
    return Tuned(folder, ordered, folder / TUNED, end, _notes(ordered))


def _trial(path: Path, name: str) -> Trial:
    report = read_run(path)
    assert report.end is not None, "the sweep says that it is finished"
    scores = None if report.end.scored is None else report.end.scored.overall
    training, work = report.experiment.training, effort(report.rounds)
    return Trial(
        name=name,
        lr=training.lr,
        local_epochs=training.local_epochs,
        rounds=len(report.rounds),
        miou=0.0 if scores is None else scores.miou,
        critical_miou=None if scores is None else scores.critical_miou,
        images=work.images_seen,
        seconds=report.end.seconds,
    )


def table(trials: Sequence[Trial]) -> str:
    """Write trials as a Markdown table, in their order."""
    lines = [
        "mIoU on the held-out end of the vehicles' own drives, one seed; the first was chosen.",
        "",
        "| learning rate | local epochs | rounds | images seen | mIoU | critical | seconds |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for one in trials:
        critical = "–" if one.critical_miou is None else f"{one.critical_miou:.3f}"
        lines.append(
            f"| {one.lr:g} | {one.local_epochs} | {one.rounds} | {one.images:,} "
            f"| {one.miou:.3f} | {critical} | {one.seconds:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _tuned_text(folder: Path, best: Trial, tried: int) -> str:
    fields = read_fields(folder / BASE)
    whole = load_experiment(folder / BASE)
    rounds = _at_equal_images(
        whole.federation.rounds, whole.training.local_epochs, best.local_epochs
    )
    chosen = {
        "training": {"lr": best.lr, "local_epochs": best.local_epochs},
        "federation": {"rounds": rounds},
    }
    head = (
        f"# Chosen by fleetseg tune among {tried} trials: training.lr and training.local_epochs,\n"
        f"# by a held-out mIoU of {best.miou:.3f}; federation.rounds so that as many images are "
        "seen.\n"
    )
    return head + fields_to_toml(laid_under(fields, chosen))


def _notes(trials: Sequence[Trial]) -> tuple[str, ...]:
    rates = sorted({trial.lr for trial in trials})
    best = trials[0].lr
    notes = []
    if len(rates) > 1 and best in (rates[0], rates[-1]):
        which = "smallest" if best == rates[0] else "largest"
        beyond = best / _FACTOR if best == rates[0] else best * _FACTOR
        notes.append(
            f"the best learning rate, {best:g}, is the {which} tried: try {beyond:.2g}, too"
        )
    ahead = trials[0].miou - trials[1].miou if len(trials) > 1 else 1.0
    if ahead < _CLOSE:
        notes.append(f"the best two are {ahead:.3f} apart: with one seed, that may be chance")
    return tuple(notes)
