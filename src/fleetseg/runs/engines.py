"""Where the clients of a run train: in this process, in workers, or in a fleet on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fleetseg.engines.faults import SimulatedFaults
from fleetseg.engines.inprocess import InProcessEngine
from fleetseg.engines.workers import WorkersEngine
from fleetseg.errors import ConfigError, EngineError
from fleetseg.experiment_file import to_toml
from fleetseg.federation.engine import Engine
from fleetseg.federation.wire import PlainCodec
from fleetseg.models.build import is_known
from fleetseg.runs.concurrency import num_workers
from fleetseg.runs.setup import RunSetup

if TYPE_CHECKING:
    from fleetseg.fleet.server.enrolment import RunSpec


@contextmanager
def engine_of(setup: RunSetup) -> Iterator[Engine]:
    """Open the engine that an experiment names, and close it afterwards."""
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
    """Start the workers, if any are needed.

    With kind = "auto", a user's network that cannot be sent to workers is trained in this process,
    which gives the same model.
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
    """Describe what a run and the vehicles of a fleet must agree on."""
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
    """Wrap an engine in the virtual clock where simulated faults need it.

    With over-selection, the order of arrival must not depend on the number of workers.
    """
    settings = setup.experiment.federation
    is_calm = settings.faults.dropout == 0 and settings.faults.stragglers == 0
    has_race = settings.over_selection > 1 and setup.experiment.engine.kind != "fleet"
    if is_calm and not has_race:
        return engine
    return SimulatedFaults(engine, setup.experiment, setup.runtime.message_bytes)
