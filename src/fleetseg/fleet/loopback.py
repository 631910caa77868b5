"""A whole fleet on this machine, for trying out: a server and sites, including certificates."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from fleetseg.files import write_atomic
from fleetseg.fleet.nvflare.kit import read_kit, supervisor_command
from fleetseg.fleet.nvflare.provision import Fleet, create_fleet, read_fleet
from fleetseg.fleet.server.engine import FleetEngine
from fleetseg.fleet.server.enrolment import RunSpec
from fleetseg.fleet.server.serve import serving
from fleetseg.fleet.subprocesses import start_child, stop
from fleetseg.fleet.vehicle.site_data import SiteData
from fleetseg.hosts import allowed_cores
from fleetseg.learning.hardware import own_gpu

_MOST_SITES = 4  # by default; a site needs about 700 MB


@contextmanager
def loopback(
    spec: RunSpec, run_folder: Path, clients: Sequence[str], experiment_toml: str
) -> Iterator[FleetEngine]:
    """Run sites for all clients of an experiment on this machine.

    The fleet's folder is in the run folder, and a resumed run uses it again. The vehicles' state is
    next to it, where simulated clients keep theirs, so that any site can serve a vehicle.
    """
    assigned = share_out(clients, num_sites(spec.experiment.engine.workers, len(clients)))
    folder = run_folder / "fleet"
    fleet = _fleet(folder, assigned)
    path, keeps = folder / "experiment.toml", run_folder.resolve() / "clients"
    write_atomic(path, experiment_toml)
    with ExitStack() as stack:
        for number, (site, vehicles) in enumerate(assigned.items()):
            kit = read_kit(fleet.kit(site))
            kit.own.mkdir(parents=True, exist_ok=True)
            site_data = SiteData(
                site, vehicles=tuple(vehicles), experiment=str(path), keeps=str(keeps)
            )
            site_data.write(kit.own / "site-data.json")
            supervisor = start_child(
                supervisor_command(kit),
                log=kit.own / "logs" / "supervisor.log",
                environment=own_gpu(number),
            )
            stack.callback(stop, supervisor, 15.0)
        yield stack.enter_context(serving(fleet, replace(spec, assigned=assigned), run_folder))


def num_sites(wanted: int, num_clients: int) -> int:
    """Return how many sites to start; with wanted = 0, one per usable core, but only a few."""
    return min(wanted or min(_MOST_SITES, allowed_cores()), num_clients)


def share_out(clients: Sequence[str], sites: int) -> Mapping[str, tuple[str, ...]]:
    """Divide the vehicles among sites.

    >>> share_out(["a", "b", "c"], 2)
    {'site-1': ('a', 'c'), 'site-2': ('b',)}
    """
    return {f"site-{k + 1}": tuple(clients[k::sites]) for k in range(sites)}


def _fleet(folder: Path, assigned: Mapping[str, Sequence[str]]) -> Fleet:
    """Return the fleet of these sites; a fleet of other sites is moved aside with its logs."""
    if (folder / "fleet.json").is_file():
        fleet = read_fleet(folder)
        if fleet.vehicles == tuple(assigned):
            return fleet
        folder.rename(_free_name(folder))
    return create_fleet(folder, "localhost", free_port(), tuple(assigned))


def _free_name(folder: Path) -> Path:
    names = (folder.with_name(f"{folder.name}-before-{k}") for k in itertools.count(1))
    return next(name for name in names if not name.exists())


def free_port() -> int:
    """Find a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
