"""How many of an experiment's clients train at the same time, and in how many processes."""

from __future__ import annotations

from fleetseg.config import Experiment
from fleetseg.federation.cohort import size_of
from fleetseg.hosts import allowed_cores
from fleetseg.learning.hardware import Hardware, num_gpus, resolve


def num_workers(
    experiment: Experiment, num_clients: int, hardware: Hardware, *, on_disk: bool
) -> int:
    """Return the number of worker processes; 0 = train in this process.

    `on_disk`: the clients' data are on disk; a user's own Python objects may not survive the
    transfer to another process.
    """
    settings = experiment.engine
    cohort = size_of(experiment.federation.cohort, num_clients)
    processes = settings.workers or num_gpus(hardware.device.type) or allowed_cores()
    workers = min(processes, cohort)
    if settings.kind == "auto":
        return workers if workers > 1 and on_disk else 0
    return workers if settings.kind == "workers" else 0


def concurrency(experiment: Experiment, num_clients: int) -> int:
    """Return how many clients of an experiment whose data are on disk train at the same time.

    Raises:
        ConfigError: this machine does not have the experiment's device.
    """
    settings = experiment.engine
    if settings.kind == "fleet":
        from fleetseg.fleet.loopback import num_sites

        return num_sites(settings.workers, num_clients)
    hardware = resolve(settings.device, settings.precision)
    return max(1, num_workers(experiment, num_clients, hardware, on_disk=True))
