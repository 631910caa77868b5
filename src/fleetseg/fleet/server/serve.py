"""Starts a fleet's server: from a fleet's folder to an engine that trains it."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fleetseg.errors import EngineError
from fleetseg.files import write_atomic
from fleetseg.fleet.awake import AwakeClock, running
from fleetseg.fleet.message_log import MessageLog
from fleetseg.fleet.nvflare.network import NvflareNetwork
from fleetseg.fleet.nvflare.provision import Fleet, require_nvflare
from fleetseg.fleet.server.dispatcher import TaskDispatcher
from fleetseg.fleet.server.engine import FleetEngine
from fleetseg.fleet.server.enrolment import RunSpec
from fleetseg.fleet.server.operations import Operations
from fleetseg.fleet.server.releases import ReleaseOffers
from fleetseg.fleet.server.status import status_updated
from fleetseg.fleet.sockets import Listener, private_directory
from fleetseg.locks import try_lock


class ServerRuns(EngineError):
    """Another server is running for this fleet."""


@contextmanager
def serving(
    fleet: Fleet, spec: RunSpec, run_folder: Path, operations: Operations | None = None
) -> Iterator[FleetEngine]:
    """Start the server of a fleet for one run; everything that it started ends with the block.

    Raises:
        EngineError: the port is taken, or another server is running for this folder.
        MissingExtra: NVFlare is not installed.
    """
    settings = spec.experiment.fleet
    with (
        connected(fleet, run_folder, settings.gather_s, settings.silent_s) as (dispatcher, network),
        ExitStack() as stack,
    ):
        offers = ReleaseOffers(fleet.folder, dispatcher, spec.tell)
        stack.callback(offers.take_in)
        engine = FleetEngine(spec, dispatcher, network, offers)
        stack.enter_context(status_updated(fleet, spec, engine, dispatcher, network))
        if operations is not None:
            stack.enter_context(operations.answering(fleet, engine, dispatcher, network))
        yield engine


@contextmanager
def connected(
    fleet: Fleet, log_folder: Path, gather_s: float, silent_s: float = 15.0
) -> Iterator[tuple[TaskDispatcher, NvflareNetwork]]:
    """Start the server of a fleet; everything that it started ends with the block.

    It waits up to `gather_s` seconds for all vehicles before the first segment, and takes a silent
    job for hanging well before `silent_s`. Incoming messages are logged in `logs/ingress.jsonl` of
    `log_folder`.

    Raises:
        ServerRuns: another server is running for this folder.
        EngineError: the port is taken.
        MissingExtra: NVFlare is not installed.
    """
    require_nvflare()
    with ExitStack() as stack:
        stack.enter_context(_locked(fleet))
        _require_port(fleet)
        sockets = private_directory()
        stack.callback(shutil.rmtree, sockets, ignore_errors=True)
        listener = Listener(sockets / "link")
        message_log = MessageLog(log_folder / "logs" / "ingress.jsonl")
        clock = AwakeClock()
        stack.enter_context(running(clock))
        dispatcher = TaskDispatcher(listener, message_log, clock)
        stack.callback(dispatcher.close)
        log = log_folder / "logs" / "segments.jsonl"
        network = NvflareNetwork(fleet, dispatcher, listener.path, gather_s, silent_s, log)
        stack.enter_context(network)
        yield dispatcher, network


def run_name(folder: Path) -> str:
    """Return the name by which vehicles know a run; it stays the same after a resume."""
    path = folder / "fleet-run.json"
    if path.is_file():
        return str(json.loads(path.read_text(encoding="utf-8"))["run"])
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{folder.name[:40]}-{secrets.token_hex(6)}"
    write_atomic(path, json.dumps({"run": name}) + "\n")
    return name


@contextmanager
def _locked(fleet: Fleet) -> Iterator[None]:
    with open(fleet.folder / "server.lock", "w", encoding="utf-8") as lock:
        try:
            try_lock(lock)  # without locks, the port still excludes a second server
        except BlockingIOError:
            raise ServerRuns(
                "another server is running for this fleet",
                where=fleet.folder,
                cure="Stop it first: one fleet has one server",
            ) from None
        yield


def _require_port(fleet: Fleet) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", fleet.port))
        except OSError as error:
            raise EngineError(
                f"port {fleet.port} cannot be opened ({error.strerror})",
                where=fleet.folder / "fleet.json",
                cure=f"Stop what listens there (ss -ltnp 'sport = :{fleet.port}'), "
                "or make the fleet with another --port",
            ) from None
