"""`fleetseg.run`, `fleetseg.serve` and `fleetseg.run_local`, which the commands call as well."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import get_args

from torch import nn

from fleetseg.clients import FleetData, open_fleet_data, open_server_data
from fleetseg.config import Experiment
from fleetseg.data.labels import LabelSpace
from fleetseg.data.own import Collections
from fleetseg.data.pool import Progress
from fleetseg.data.spaces import checked_space, open_space
from fleetseg.errors import CheckpointError, ConfigError, unknown_name
from fleetseg.experiment_file import load_experiment
from fleetseg.federation.engine import Engine
from fleetseg.federation.rounds import Watcher
from fleetseg.hosts import given_path
from fleetseg.own_data import fleet_data_of_pairs, with_own_evaluation
from fleetseg.runs import baselines
from fleetseg.runs.choices import check_choices
from fleetseg.runs.engines import run_spec
from fleetseg.runs.folder import require_no_run
from fleetseg.runs.lock import Ownership, drop_if_empty, new_run_folder, owning
from fleetseg.runs.option_notes import expected_scores, require_workable
from fleetseg.runs.rules import Facts
from fleetseg.runs.run import Run, run_experiment
from fleetseg.runs.setup import RunSetup


def run(
    experiment: Experiment | str | Path,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    net: nn.Module | None = None,
    clients: Collections | None = None,
    evaluation: Collections | None = None,
    space: LabelSpace | None = None,
    baseline: baselines.Baseline | None = None,
    watcher: Watcher | None = None,
    progress: Progress | None = None,
) -> Run:
    """Run an experiment and return the run, with its scores, records and model.

    Args:
        experiment: an Experiment, or the path of its TOML file.
        out: the run folder; default `runs/<time>_<name>`.
        resume: continue the run in `out`, if there is one.
        net: your own network, (N, 3, H, W) -> logits (N, classes, H, W); its input is normalised
            with ImageNet's mean and standard deviation, unless you `wrap` it. A copy is trained.
        clients: your own data in place of data.sources: client name or number -> anything with a
            length and (image, label) items, as numpy arrays, PIL images or tensors.
        evaluation: your own held-out data in place of data.evaluation, by name, as `clients`.
        space: the label space of your own data; default: the experiment's.
        baseline: "centralised" pools all data in one client; for "local", call `run_local`.
        watcher: called when rounds open and close.
        progress: called while the data are read.

    Raises:
        FleetSegError: see fleetseg.errors; the message says what is wrong, where, and the cure.
    """
    described = _read(experiment)
    _require_one_model(baseline)
    with _own_folder(described, out, resume) as owned:
        data = _fleet_data(described, clients, evaluation, space, progress)
        if baseline == "centralised":
            described, data = baselines.centralised(described, data)
        return run_experiment(
            described, data, owned.folder, resume=resume, net=net, watcher=watcher, owned=owned
        )


def serve(
    experiment: Experiment | str | Path,
    fleet: str | Path,
    *,
    out: str | Path,
    resume: bool = False,
    watcher: Watcher | None = None,
    progress: Progress | None = None,
    metrics_port: int = 0,
) -> Run:
    """Train the vehicles of a fleet over a network, as the server of the fleet folder `fleet`.

    The experiment's training data and partition are not used: each vehicle trains on its own data.
    With `metrics_port`, the server answers `/metrics` and `/healthz` on that port of the loopback
    interface while it is up. Returns the run as `run` does.

    Raises:
        FleetSegError: see fleetseg.errors.
    """
    from fleetseg.fleet.nvflare.provision import read_fleet
    from fleetseg.fleet.server.metrics import Metrics, require_prometheus
    from fleetseg.fleet.server.operations import Operations
    from fleetseg.fleet.server.serve import serving

    described = _read(experiment)
    known, operations = read_fleet(given_path(fleet)), None
    if metrics_port:
        require_prometheus()
        operations = Operations(metrics_port, Metrics())
        watcher = operations.metrics.watching(watcher or Watcher())

    def open_engine(setup: RunSetup) -> AbstractContextManager[Engine]:
        setup.watcher.status(f"starting the server of {known.folder} on port {known.port}")
        return serving(known, run_spec(setup), setup.folder.path, operations)

    with _own_folder(described, out, resume) as owned:
        return run_experiment(
            described,
            open_server_data(described, progress),
            owned.folder,
            resume=resume,
            watcher=watcher,
            open_engine=open_engine,
            owned=owned,
        )


def run_local(
    experiment: Experiment | str | Path,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    net: nn.Module | None = None,
    clients: Collections | None = None,
    evaluation: Collections | None = None,
    space: LabelSpace | None = None,
    watcher: Watcher | None = None,
    progress: Progress | None = None,
) -> dict[str, Run]:
    """Train each client alone and return one run per client, in sub-folders of `out`.

    The arguments are those of `run`.

    Raises:
        FleetSegError: see fleetseg.errors.
    """
    described = _read(experiment)
    runs: dict[str, Run] = {}
    with _own_folder(described, out, resume) as owned:
        fleet_data = _fleet_data(described, clients, evaluation, space, progress)
        for name, alone, own in baselines.local_only(described, fleet_data):
            own_folder = owned.folder / _folder_name(name)
            runs[name] = run_experiment(
                alone, own, own_folder, resume=resume, net=net, watcher=watcher
            )
            if runs[name].reason == "interrupted":
                break
    return runs


def _require_one_model(baseline: str | None) -> None:
    if baseline not in (None, *get_args(baselines.Baseline)):
        raise unknown_name("baseline", str(baseline), get_args(baselines.Baseline))
    if baseline == "local":
        raise ConfigError(
            "one run makes one model, and baseline='local' makes one for each client",
            cure="Use fleetseg.run_local, which takes the same arguments",
        )


def _read(experiment: Experiment | str | Path) -> Experiment:
    """Read an experiment and refuse at once what would fail later."""
    if not isinstance(experiment, Experiment | str | Path):
        raise ConfigError(
            "not an experiment",
            got=type(experiment).__name__,
            expected="an Experiment, or the path of its TOML file",
            cure="Build one from fields: fleetseg.experiment_file.make_experiment(...)",
        )
    described = (
        experiment
        if isinstance(experiment, Experiment)
        else load_experiment(given_path(experiment))
    )
    if described.baseline.kind:
        raise ConfigError(
            f"this experiment is the {described.baseline.kind} baseline of another one",
            cure=f"Use that one's file, with --baseline {described.baseline.kind}",
        )
    check_choices(described)
    return described


@contextmanager
def _own_folder(
    experiment: Experiment, out: str | Path | None, resume: bool
) -> Iterator[Ownership]:
    """Choose and lock the run folder before any data are read, so that an error comes at once."""
    if out is None and resume:
        raise CheckpointError("--resume needs --out: the run folder to resume")
    folder = new_run_folder(experiment.name) if out is None else given_path(out)
    try:
        with owning(folder) as owned:
            if not resume:
                require_no_run(folder)
            yield owned
    finally:
        if out is None:
            drop_if_empty(folder)


def _fleet_data(
    experiment: Experiment,
    clients: Collections | None,
    evaluation: Collections | None,
    space: LabelSpace | None,
    progress: Progress | None,
) -> FleetData:
    if space is not None:
        space = checked_space(space)
    if clients is not None:
        known = space or open_space(experiment.data)
        return fleet_data_of_pairs(experiment, known, clients, evaluation, progress)
    scored = evaluation is not None or expected_scores(experiment)
    require_workable(Facts(experiment, scored))
    if evaluation is None and space is None:
        return open_fleet_data(experiment, progress)
    if evaluation is None:
        raise ConfigError(
            "space= gives the meaning of ids in your own data, and there are no such data",
            cure="Give clients= or evaluation=, or set data.label_space in the experiment",
        )
    return _with_own_evaluation(experiment, evaluation, space, progress)


def _with_own_evaluation(
    experiment: Experiment,
    evaluation: Collections,
    space: LabelSpace | None,
    progress: Progress | None,
) -> FleetData:
    """Score an experiment's own clients on a user's own data."""
    data = experiment.data.model_copy(update={"evaluation": ()})
    fleet_data = open_fleet_data(experiment.model_copy(update={"data": data}), progress)
    if space is not None and space.classes != fleet_data.space.classes:
        raise ConfigError(
            "space= differs from the label space of the experiment's clients",
            got=f"{', '.join(space.classes[:12])} ({space.name})",
            expected=f"{', '.join(fleet_data.space.classes[:12])} ({fleet_data.space.name})",
            cure="Leave space= out and give the ids of data.label_space",
        )
    return with_own_evaluation(experiment, fleet_data, evaluation, progress)


def _folder_name(client: str) -> str:
    """Make a folder name from a client's name, which may be a path or ".."."""
    safe = re.sub(r"[^\w. -]|^\.+", "_", client)
    return safe if safe == client else f"{safe}-{hashlib.sha256(client.encode()).hexdigest()[:8]}"
