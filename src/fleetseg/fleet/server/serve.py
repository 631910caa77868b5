"""From a fleet's folder to an engine that trains it: the server's side, put together."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from fleetseg.errors import EngineError, FleetSegError
from fleetseg.files import write_atomic
from fleetseg.fleet.awake import AwakeClock, running
from fleetseg.fleet.message_log import MessageLog
from fleetseg.fleet.nvflare.network import NvflareNetwork
from fleetseg.fleet.nvflare.provision import Fleet, require_nvflare
from fleetseg.fleet.server.dispatcher import TaskDispatcher
from fleetseg.fleet.server.engine import FleetEngine
from fleetseg.fleet.server.enrolment import RunSpec
from fleetseg.fleet.server.operations import ONLINE_S, Operations
from fleetseg.fleet.server.releases import ReleaseOffers
from fleetseg.fleet.sockets import Listener, private_directory
from fleetseg.fleet.threads import start_thread
from fleetseg.locks import try_lock

_STATUS_S = 2.0


class ServerRuns(EngineError):
    """Another server works on this fleet."""


@contextmanager
def serving(
    fleet: Fleet, spec: RunSpec, run_folder: Path, operations: Operations | None = None
) -> Iterator[FleetEngine]:
    """Start the server of a fleet for one run; everything it started ends with the block.

    Raises:
        EngineError: the port is taken, or another server works on this folder.
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
        stack.enter_context(_status_updated(fleet, spec, engine, dispatcher, network))
        if operations is not None:
            stack.enter_context(operations.answering(fleet, engine, dispatcher, network))
        yield engine


@contextmanager
def connected(
    fleet: Fleet, log_folder: Path, gather_s: float, silent_s: float = 15.0
) -> Iterator[tuple[TaskDispatcher, NvflareNetwork]]:
    """Start the server of a fleet; everything it started ends with the block.

    It waits up to `gather_s` seconds for all vehicles before the first segment, and takes a job
    that says nothing well before `silent_s` for one that hangs; what comes in is listed in
    `logs/ingress.jsonl` of `log_folder`.

    Raises:
        ServerRuns: another server works on this folder.
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
    """Return the name under which vehicles know a run; the same after a resume."""
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
            try_lock(lock)  # without locks, the port is still the server's alone
        except BlockingIOError:
            raise ServerRuns(
                "another server works on this fleet",
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


@contextmanager
def _status_updated(
    fleet: Fleet,
    spec: RunSpec,
    engine: FleetEngine,
    dispatcher: TaskDispatcher,
    network: NvflareNetwork,
) -> Iterator[None]:
    """Keep `status.json` fresh while the block lasts."""
    over = threading.Event()

    def update() -> None:
        while not over.wait(_STATUS_S):
            with contextlib.suppress(OSError, RuntimeError, FleetSegError):
                _write_status(fleet, status_of(spec, engine, dispatcher, network))

    thread = start_thread(update, "fleetseg-status", dispatcher.fail)
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=5)
        with contextlib.suppress(OSError, FleetSegError):
            _write_status(fleet, {**status_of(spec, engine, dispatcher, network), "running": False})


def status_of(
    spec: RunSpec, engine: FleetEngine, dispatcher: TaskDispatcher, network: NvflareNetwork
) -> dict[str, Any]:
    """Collect who is there and what they hold."""
    roster, now = engine.roster, time.time()
    sites: dict[str, dict[str, Any]] = {}
    for name, age_s in network.registered().items():
        sites.setdefault(name, {})["last_seen"] = now - age_s
    for name, known in list(dispatcher.sites.items()):
        silent_s = dispatcher.silent_s(name)
        if silent_s != float("inf"):
            seen = sites.setdefault(name, {}).get("last_seen", 0.0)
            sites[name]["last_seen"] = max(seen, now - silent_s)
            sites[name]["busy"] = known.busy
    for vehicle, enrolment in roster.enrolled.items():
        holds = {
            "images": enrolment.num_images,
            "pixels": enrolment.num_pixels,
            "histogram": list(enrolment.histogram_C),
            "abstains": enrolment.abstains,
        }
        sites.setdefault(roster.site_of[vehicle], {}).setdefault("vehicles", {})[vehicle] = holds
    for site, failure in roster.refused.items():
        sites.setdefault(site, {})["refused"] = f"{failure.reason}: {failure.detail}"
    for site, why in network.quarantined().items():
        sites.setdefault(site, {})["quarantined"] = why
    for site, machine in roster.machines.items():
        sites.setdefault(site, {})["machine"] = machine
    for site, round_ in roster.last_round.items():
        sites.setdefault(site, {})["last_round"] = round_
    return {
        "time": now,
        "running": True,
        "run": spec.run,
        "classes": list(spec.space.classes),
        "segment": dispatcher.segment,
        "trouble": network.trouble(),
        "sites": sites,
    }


def _write_status(fleet: Fleet, status: Mapping[str, Any]) -> None:
    known = read_status(fleet)
    old = known.get("sites", {}) if known.get("run") == status["run"] else {}
    for fields in old.values():
        fields.pop("quarantined", None)  # it is said again as long as it holds
    # A site that is away is shown with what was known of it.
    sites = {name: {**old.get(name, {}), **fields} for name, fields in status["sites"].items()}
    merged = {**status, "sites": {**old, **sites}}
    write_atomic(fleet.folder / "status.json", json.dumps(merged) + "\n")


def read_status(fleet: Fleet) -> dict[str, Any]:
    """Read the last status; empty if there never was one."""
    try:
        status = json.loads((fleet.folder / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return status if isinstance(status, dict) else {}


def is_running(status: Mapping[str, Any], now_s: float) -> bool:
    """Say whether the server that wrote a status runs; one that was killed did not write so."""
    return bool(status.get("running")) and now_s - status.get("time", 0) < ONLINE_S
