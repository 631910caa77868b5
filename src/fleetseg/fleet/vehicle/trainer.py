"""The trainer, a site's long-lived process: keeps torch, model and data loaded across jobs.

    python -m fleetseg.fleet.vehicle.trainer FOLDER SOCKET

FOLDER holds `site-data.json` and the site's own files: the vehicles' state between rounds, and
`logs/egress.jsonl`, the log of every message sent. Requests come over SOCKET, one at a time; a
reply is logged before it is handed over.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fleetseg._version import __version__
from fleetseg.config import Experiment
from fleetseg.data.labels import LabelSpace, label_space
from fleetseg.data.spaces import OWN
from fleetseg.engines.inprocess import attempt
from fleetseg.engines.runtime import local_runtime
from fleetseg.errors import FleetSegError, UpdateRejected
from fleetseg.experiment_file import make_experiment_from_text
from fleetseg.failures import FailureKind, failure_header, parse_failure
from fleetseg.federation.client import Client, LocalRuntime
from fleetseg.federation.client_state import ClientStateStore
from fleetseg.federation.lineage import read_counted, read_lineage
from fleetseg.federation.messages import Broadcast, Enrolment
from fleetseg.federation.replies import write_reply
from fleetseg.federation.tasks import CLIENT_TASKS
from fleetseg.federation.wire import PlainCodec, decode_broadcast
from fleetseg.files import write_atomic
from fleetseg.fleet.compatibility import speak_together, understood
from fleetseg.fleet.egress import Egress
from fleetseg.fleet.held_releases import FOLDER
from fleetseg.fleet.progress import PAGE_NAME, ProgressPage
from fleetseg.fleet.protocol import (
    MAX_SKEW_S,
    PROTOCOL,
    for_vehicles,
    labels_digest,
    read_normalisation,
    read_space,
    write_enrolments,
)
from fleetseg.fleet.reply_limits import max_payload_of, oversize
from fleetseg.fleet.sockets import ConnectionLost, Header, Listener, header_text
from fleetseg.fleet.vehicle.counted import counted
from fleetseg.fleet.vehicle.errands import (
    JudgingSite,
    judge_model,
    take_release,
    told_release,
)
from fleetseg.fleet.vehicle.held import HeldBroadcasts
from fleetseg.fleet.vehicle.site_data import SiteData, open_clients
from fleetseg.hosts import allowed_cores
from fleetseg.learning.hardware import hardware_of, threads
from fleetseg.memory import is_out_of_memory, out_of_memory_text
from fleetseg.models.build import build_model
from fleetseg.models.group_norm import wished_groups
from fleetseg.streams import prepare_streams

_RUNS_KEPT = 3
_OPENING_S = 1800.0  # longest without a step while opening data or building a network
_IDLE_S = 300.0  # the same while idle before any run: it checks for requests once a second
Answer = tuple[Header, bytes]


class Refusal(FleetSegError):
    """This site takes no part in a run; the reason is its reply to the server."""

    def __init__(self, reason: str, what: str, **parts: object) -> None:
        self.reason = reason
        super().__init__(what, **parts)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Kept:
    """Where vehicles keep their states, their broadcasts, and reports released with noise."""

    states: ClientStateStore
    held: HeldBroadcasts
    released: Path

    @classmethod
    def of(cls, states: Path, broadcasts: Path, released: Path) -> Kept:
        """Make the stores in these folders."""
        return cls(ClientStateStore(states), HeldBroadcasts(ClientStateStore(broadcasts)), released)


@dataclass(frozen=True)
class Ready:
    """A prepared run that this site takes part in."""

    run: str
    runtime: LocalRuntime
    clients: Mapping[str, Client]
    held: HeldBroadcasts


class Trainer:
    """Answers requests; holds one run at a time and the last reply of every vehicle."""

    def __init__(
        self, folder: Path, log: Callable[[str], None], page: ProgressPage | None = None
    ) -> None:
        self._folder, self._log = folder, log
        self._page = page or ProgressPage()
        self._site_data = SiteData.read(folder / "site-data.json")
        self._egress = Egress(folder, log)
        self._ready: Ready | None = None
        self._last: dict[str, tuple[tuple[Any, ...], Answer]] = {}

    def serve(self, listener: Listener) -> None:
        """Answer requests, one after another, until the listener's folder is removed."""
        while True:
            self._page.begin("idle", self._patience_s("idle"))
            connection = listener.accept(timeout_s=1.0)
            if connection is None:
                if not listener.path.exists():
                    return  # the supervisor has ended and removed the folder
                continue
            try:
                while True:
                    self._page.begin("idle", self._patience_s("idle"))
                    message = connection.receive(timeout_s=1.0)
                    if message is not None:
                        connection.send(*self.answer(*message))
            except ConnectionLost:
                continue  # the caller is gone; the reply is kept in case it asks again
            finally:
                connection.close()

    def answer(self, header: Header, payload: bytes) -> Answer:
        """Answer one request; an error also becomes a reply."""
        vehicle = header.get("vehicles", {}).get(self._site_data.site, self._site_data.site)
        self._page.begin(str(header["what"]), self._patience_s(header["what"]))
        try:
            answer = self._answer(header, payload, vehicle)
        except Refusal as refusal:
            answer = _failed("refused", refusal.reason, str(refusal))
        except UpdateRejected as rejected:
            answer = _failed("refused", rejected.reason, str(rejected))
        except FleetSegError as error:
            self._log(f"cannot serve: {error}")
            answer = _failed("abstained", type(error).__name__, error.what)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # While opening a run; during a client's work, `attempt` handles out of memory.
            answer = _failed("lost", "out-of-memory", out_of_memory_text(error, "this machine"))
        if too_large := oversize(header_text(answer[0]), answer[1], max_payload_of(header)):
            answer = _failed("refused", "oversize", too_large)
        failure = parse_failure(answer[0])
        if failure is not None:
            self._log(f"{header['what']}: {': '.join(failure)}")
        return self._egress.passed(str(header["what"]), vehicle, *answer)

    def _answer(self, header: Header, payload: bytes, vehicle: str) -> Answer:
        if header["what"] == "hello":
            self._ready = self._prepare(header, payload)
            write_atomic(self._folder / "hello.bin", payload)
            write_atomic(self._folder / "hello.json", json.dumps(header))
            enrolled = {name: c.enrolment for name, c in self._ready.clients.items()}
            machine = _machine(self._ready)
            self._log_enrolled(enrolled, machine)
            drives = told_release(self._folder / FOLDER)
            return {"enrolments": write_enrolments(enrolled), "machine": machine, **drives}, b""
        if header["what"] == "revoked":
            raise Refusal("revoked", "this vehicle has been revoked by the fleet's operator")
        if header["what"] == "release":
            return take_release(header, payload, self._folder / FOLDER, self._log)
        if header["what"] == "judge":
            # A request may have waited for another one, so its age says nothing about clocks.
            described = _checked({**header, "time": time.time()})
            site = JudgingSite(self._site_data, self._folder, self._log, self._page.step)
            return judge_model(header, payload, described, site)
        ready = self._ready_for(header["run"])
        if vehicle not in ready.clients:
            raise Refusal("unknown-vehicle", f"no vehicle '{vehicle}' here")
        # The digest is needed because models to score may share a round number.
        digest = hashlib.sha256(payload).digest()
        counted = read_counted(header.get("counted", {}).get(vehicle))
        lineage = read_lineage(header.get("lineage", ""))
        key = (header["run"], header["what"], header["round"], digest, counted, lineage)
        if vehicle in self._last and self._last[vehicle][0] == key:
            return self._last[vehicle][1]
        # The new request may roll back the state that an older reply has left here.
        self._last.pop(vehicle, None)
        broadcast = ready.held.read(header["what"], payload, vehicle, ready.runtime)
        broadcast = replace(broadcast, counted=counted, lineage=lineage)
        answer = _work(header["what"], broadcast, ready, ready.clients[vehicle])
        if parse_failure(answer[0]) is None:
            self._last[vehicle] = key, answer
        self._log(f"round {header['round']}: {header['what']} {vehicle} done")
        return answer

    def _patience_s(self, what: str) -> float:
        """Return how long a phase may go without a step before this process counts as hanging."""
        if what not in (*CLIENT_TASKS, "hello", "idle"):
            return math.inf  # no samples are read, so there is nothing to count
        if what == "hello" or (self._ready is None and what != "idle"):
            return _OPENING_S
        if self._ready is None:
            return _IDLE_S
        return self._ready.runtime.experiment.fleet.stalled_s

    def _ready_for(self, run: str) -> Ready:
        """Return the current run; after a restart of this process, prepare it again."""
        if self._ready is None and (hello := self._last_hello()) is not None:
            header, start = hello
            self._ready = self._prepare({**header, "time": time.time()}, start)
        if self._ready is None or self._ready.run != run:
            raise Refusal("unknown-run", "this run has not been opened here", got=run[:40])
        return self._ready

    def _last_hello(self) -> tuple[Header, bytes] | None:
        """Read what opened the run of the process before; None if there is none, or damaged."""
        path = self._folder / "hello.json"
        try:
            header = dict(json.loads(path.read_text(encoding="utf-8")))
            return header, path.with_suffix(".bin").read_bytes()
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            self._log(f"{path} cannot be read ({error}); the server opens its run again")
            return None

    def _prepare(self, header: Header, start: bytes) -> Ready:
        experiment, space = _checked(header)
        ready = self._ready
        if ready is not None and ready.run == header["run"]:
            if ready.runtime.experiment.digest != experiment.digest:
                raise Refusal("experiment", "this run was opened with another experiment")
            return ready
        self._log(f"opening data for run {header['run']}")
        described, classes = experiment.model, space.num_classes
        groups = wished_groups(described)
        model = build_model(described.name, classes, seed=experiment.seed, norm_groups=groups)
        model.normalise_by(read_normalisation(header.get("normalisation")))
        hardware = hardware_of(experiment.engine)
        model = model.to(hardware.device).to(memory_format=hardware.memory_format)
        kept = self._kept(header["run"])
        runtime = local_runtime(experiment, model, hardware, space, kept.states)
        exchange = runtime.exchange
        if (got := exchange.server.digest) != header["layout"]:
            raise Refusal("model", "another network of the same name", got=got[:12])
        runtime = replace(runtime, codec=runtime.codec or PlainCodec(exchange.up))
        if start:
            runtime = replace(runtime, start=decode_broadcast(start, exchange.kept).state)
        self._last = {}
        clients = open_clients(
            self._site_data,
            experiment,
            progress=lambda what, done, total: self._page.step(),
            notify=self._log,
            space=space,
            released=kept.released,
        )
        clients = {name: counted(client, self._page.step) for name, client in clients.items()}
        return Ready(header["run"], runtime, clients, kept.held)

    def _kept(self, run: str) -> Kept:
        """Return where a run's vehicles keep their state; delete the folders of old runs."""
        if self._site_data.keeps:
            own = Path(self._site_data.keeps)
            return Kept.of(own, own / "broadcasts", own / "released")
        runs = self._folder / "runs"
        kept = runs / "".join(c if c.isalnum() or c in "-_" else "_" for c in run)[:80]
        kept.mkdir(parents=True, exist_ok=True)
        os.utime(kept)
        by_age = sorted(runs.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in by_age[_RUNS_KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
        return Kept.of(kept / "clients", kept / "broadcasts", self._folder / "released")

    def _log_enrolled(self, enrolled: Mapping[str, Enrolment], machine: Mapping[str, Any]) -> None:
        for name, enrolment in enrolled.items():
            holds = enrolment.abstains or f"{enrolment.num_images} images"
            self._log(f"enrolled {name}: {holds}, {machine['device']} in {machine['precision']}")


def _checked(header: Header) -> tuple[Experiment, LabelSpace]:
    """Read the experiment and the classes from a hello; refuse what is not supported here."""
    if not speak_together(header["protocol"], header.get("since")):
        raise Refusal(
            "protocol",
            "server and vehicle speak different versions",
            got=f"{header['protocol']} (fleetseg {header['fleetseg']})",
            expected=f"{PROTOCOL} (fleetseg {__version__})",
            cure="Install the same version of fleetseg on both, or one release apart",
        )
    skew_s = time.time() - header["time"]
    if abs(skew_s) > MAX_SKEW_S:
        raise Refusal(
            "clock",
            f"the vehicle's clock is {abs(skew_s):.0f} s {'ahead' if skew_s > 0 else 'behind'}",
            expected=f"at most {MAX_SKEW_S:.0f} s",
            cure="Set the clocks (NTP)",
        )
    try:
        experiment = make_experiment_from_text(
            understood(header["experiment"], header.get("defaults")),
            where="the server's experiment",
        )
        own = experiment.data.label_space == OWN
        space = read_space(header.get("space")) if own else label_space(experiment.data.label_space)
    except FleetSegError as error:
        cure = f"Server: fleetseg {header['fleetseg']}, vehicle: {__version__}"
        raise Refusal("experiment", str(error), cure=cure) from None
    if labels_digest(space) != header["labels"]:
        raise Refusal("labels", f"another label space '{space.name}'")
    return for_vehicles(experiment), space


def _work(what: str, broadcast: Broadcast, ready: Ready, client: Client) -> Answer:
    if what not in CLIENT_TASKS:
        raise Refusal("malformed", f"cannot do '{what[:20]}'")
    with threads(ready.runtime.experiment.engine.threads):
        return write_reply(attempt(CLIENT_TASKS[what], broadcast, client, ready.runtime))


def _failed(kind: FailureKind, reason: str, detail: str) -> Answer:
    return failure_header(kind, reason, detail), b""


def _machine(ready: Ready) -> dict[str, Any]:
    """Return a description of this machine for the server's operator."""
    hardware = ready.runtime.hardware
    return {
        "fleetseg": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": allowed_cores(),
        "device": str(hardware.device),
        "precision": hardware.precision,
    }


def main(folder: Path, socket: Path) -> None:
    """Serve until killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to handle
    prepare_streams()

    def log(text: str) -> None:
        with contextlib.suppress(OSError):  # a full disk must not end the process, too
            print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    trainer = Trainer(folder, log, ProgressPage(socket.with_name(PAGE_NAME)))
    with Listener(socket) as listener:
        log("ready")
        trainer.serve(listener)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
