"""Many vehicles in one process: real to the server, without a network to train.

    python benchmarks/thin_vehicle.py KIT [KIT ...] --answers FOLDER --events FILE

Started by `fleet_scale.py`. Each vehicle has its own kit and its own connections by mutual TLS. It
registers, sends heartbeats and takes part in jobs with NVFlare's own classes, and serves tasks with
fleetseg's own executor. Only its trainer is missing: prepared answers take its place (`hello.json`
and `update.bin` of FOLDER), with the vehicle's name and the round filled in.

Unlike a real vehicle, these have no process of their own, no torch, and no list of the other
vehicles of a job. Each has the threads of a real vehicle, so beyond some hundred vehicles per
process the vehicles are the slow part. FILE gets a line for each event of a vehicle.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import random
import resource
import signal
import sys
import tempfile
import threading
import time
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey, ProcessType, ReservedKey, SystemConfigs
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.shareable import Shareable
from nvflare.fuel.f3.cellnet.cell import Cell
from nvflare.fuel.f3.cellnet.defs import CellChannel, CellChannelTopic
from nvflare.fuel.f3.cellnet.fqcn import FQCN
from nvflare.fuel.f3.drivers import net_utils
from nvflare.fuel.f3.drivers.driver_params import DriverParams
from nvflare.fuel.f3.sfm import conn_manager
from nvflare.fuel.utils.config_service import ConfigService
from nvflare.private.admin_defs import Message, ok_reply
from nvflare.private.defs import (
    JobFailureMsgKey,
    RequestHeader,
    TrainingTopic,
    new_cell_message,
)
from nvflare.private.event import fire_event
from nvflare.private.fed.client.client_runner import ClientRunner, ClientRunnerConfig, TaskRouter
from nvflare.private.fed.client.command_agent import CommandAgent
from nvflare.private.fed.client.fed_client import FederatedClient
from nvflare.private.fed.utils.fed_utils import nvflare_fobs_initialize
from nvflare.private.scheduler_constants import ShareableHeader

from fleetseg.fleet.nvflare import executor as executor_module
from fleetseg.fleet.nvflare.guard import LocationReporter
from fleetseg.fleet.nvflare.kit_files import write_kit_settings
from fleetseg.fleet.nvflare.names import OWN_VARIABLE, TRAINER_VARIABLE
from fleetseg.fleet.nvflare.network import client_command
from fleetseg.fleet.progress import PAGE_NAME, ProgressPage
from thin_answers import Answers, ThinEngine, ThinExecutor

PROJECT = "fleetseg"
HEARTBEAT_S = 10.0  # NVFlare's default, unless the vehicle's command sets another
HEARTBEAT_KEY = "heart_beat_interval="
FRAME_THREADS = 3  # for each cell, instead of NVFlare's 100; made when first needed
STACK_BYTES = 256 << 10
MAX_FILES = 65_536
OF_THIS_PROCESS = {
    # How long threads wait for a late copy of each message; 65 s in a real vehicle.
    "streaming_retry_timeout": 10,
    # One thread for all connections; the server sees no difference.
    "use_aio_grpc": True,
}

Events = Callable[[str, str], None]


class Vehicle:
    """One vehicle: its connection to the server, and at most one job at a time."""

    def __init__(self, kit: Path, answers: Answers, events: Events, spread_s: float) -> None:
        write_kit_settings(kit)
        self.name, self._kit = kit.name, kit
        self._answers, self._spread_s = answers, spread_s
        self._note = lambda what: events(self.name, what)
        fields = json.loads((kit / "startup" / "fed_client.json").read_text())
        server, client = fields["servers"][0], fields["client"]
        keys = ("ssl_private_key", "ssl_cert", "ssl_root_cert")
        paths = {key: str(kit / "startup" / client[key]) for key in keys}
        self._arguments = {**client, **paths, "client_name": self.name}
        self._server = {**server, **server["service"]}
        self._configs: dict[str, dict[str, Any]] = {}  # job -> config_fed_client.json
        self._runners: dict[str, ClientRunner | None] = {}  # None = starting
        self._place = LocationReporter()
        self._client = self._new_client("")
        self._contexts = FLContextManager(
            engine=self,
            identity_name=self.name,
            job_id="",
            public_stickers={ReservedKey.FQSN: self.name, ReservedKey.IS_LEAF: True},
            private_stickers={
                FLContextKey.SECURE_MODE: True,
                FLContextKey.PROCESS_TYPE: ProcessType.CLIENT_PARENT,
                FLContextKey.CLIENT_CONFIG: self._arguments,
                FLContextKey.SERVER_CONFIG: [self._server],
            },
        )

    def start(self) -> None:
        """Connect, register and start sending heartbeats; waits until the server is up."""
        through_parent = _comm_config(self._kit).get("backbone_conn_gen") == 1
        self._client.cell = cell = self._new_cell(self.name, internal=through_parent)
        cell.register_request_cb(channel=CellChannel.CLIENT_MAIN, topic="*", cb=self._command)
        self._client.communicator.set_cell(cell)
        with self.new_context() as fl_ctx:
            self.fire_event(EventType.BEFORE_CLIENT_REGISTER, fl_ctx)
            while not self._client.token:  # a real vehicle would be restarted
                self._client.client_register(PROJECT, fl_ctx)
        self._client.communicator.heartbeat_done = False
        self._note("registered")
        self._client.engine = self
        self._client.start_heartbeat(interval=heartbeat_s(self._kit))

    # The interface that NVFlare's heartbeat expects of a vehicle's engine

    def new_context(self) -> FLContext:
        """Make a context of this vehicle, outside all jobs."""
        return self._contexts.new_context()

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Have the kit's location reported, and note each heartbeat that the server answers."""
        fire_event(event_type, [self._place], fl_ctx)
        if event_type == EventType.AFTER_CLIENT_HEARTBEAT:
            self._note("heartbeat")

    def get_all_job_ids(self) -> list[str]:
        """List the jobs that this vehicle takes part in."""
        return list(self._runners)

    def abort_app(self, job_id: str, **_: Any) -> None:
        """End this vehicle's part of a job."""
        runner = self._runners.get(job_id)
        if runner is not None:
            runner.abort()

    # Jobs

    def _command(self, request: Any) -> Any:
        """Handle a command of the server to a vehicle's parent process."""
        message = request.payload
        job = message.get_header(RequestHeader.JOB_ID, "")
        reply = ok_reply(topic=f"reply_{message.topic}", body="OK")
        if message.topic == TrainingTopic.CHECK_RESOURCE:
            body = Shareable()
            body.set_header(ShareableHeader.IS_RESOURCE_ENOUGH, True)
            body.set_header(ShareableHeader.RESOURCE_RESERVE_TOKEN, "")
            reply = Message(topic=f"reply_{message.topic}", body=body)
        elif message.topic == TrainingTopic.DEPLOY:
            self._configs[job] = _client_config(message.body)
        elif message.topic == TrainingTopic.START_JOB:
            self._runners[job] = None
            meta = message.get_header(RequestHeader.JOB_META)
            threading.Thread(target=self._take_part, args=(job, meta), daemon=True).start()
        elif message.topic in (TrainingTopic.ABORT, TrainingTopic.DELETE_RUN):
            self.abort_app(job)
        return new_cell_message({}, reply)

    def _take_part(self, job: str, meta: Any) -> None:
        """Act as a job's process on this vehicle, from its start to its end."""
        # Roughly as long as the processes of that many machines take to start.
        time.sleep(random.Random(f"{self.name} {job}").uniform(0, self._spread_s))
        code = 0
        try:
            self._run(job, meta)
        except Exception as error:
            code = 1
            print(f"{self.name}: {type(error).__name__}: {error}", flush=True)
        self._runners.pop(job, None)
        self._note("left")
        outcome = {
            JobFailureMsgKey.JOB_ID: job,
            JobFailureMsgKey.CODE: code,
            JobFailureMsgKey.REASON: None,
        }
        self._client.cell.send_request(
            target=FQCN.ROOT_SERVER,
            channel=CellChannel.SERVER_MAIN,
            topic=CellChannelTopic.REPORT_JOB_FAILURE,
            request=new_cell_message({}, outcome),
            timeout=5.0,
            optional=True,
        )

    def _run(self, job: str, meta: Any) -> None:
        config = self._configs.pop(job)
        ConfigService.add_section(SystemConfigs.APPLICATION_CONF, config)
        client, parent = self._new_client(job), self._client.communicator
        client.token, client.ssid = parent.token, parent.ssid
        client.communicator.set_auth(self.name, parent.token, parent.token_signature, parent.ssid)
        client.cell = cell = self._new_cell(FQCN.join([self.name, job]), internal=False)
        client.communicator.set_cell(cell)
        try:
            executor = ThinExecutor(self._answers, self._note)
            handlers: list[FLComponent] = [executor]
            client.handlers = handlers
            engine = ThinEngine(client, job, meta, handlers)
            router = TaskRouter()
            router.add_executor(["*"], executor)
            interval_s = config.get("default_task_fetch_interval", 0.5)
            settings = ClientRunnerConfig(
                router, {}, {}, handlers, {}, default_task_fetch_interval=interval_s
            )
            runner = ClientRunner(self._arguments, settings, job, engine)
            engine.add_handler(runner)
            with engine.new_context() as fl_ctx:
                fl_ctx.set_prop(FLContextKey.CLIENT_NAME, self.name, private=False)
                fl_ctx.set_prop(FLContextKey.SECURE_MODE, True, private=True, sticky=True)
                for key in (FLContextKey.CURRENT_RUN, FLContextKey.CURRENT_JOB_ID):
                    fl_ctx.set_prop(key, job, private=False, sticky=True)
                fl_ctx.set_prop(FLContextKey.RUNNER, runner, private=True)
                CommandAgent(client).start(fl_ctx)
            self._runners[job] = runner
            # As `ClientRunner.run`, without the parts that would end the whole process.
            runner.init_run("", None)
            try:
                runner._try_run()
            finally:
                runner.end_run_events_sequence()
        finally:
            cell.stop()

    def _new_client(self, job: str) -> FederatedClient:
        return FederatedClient(
            self.name,
            dict(self._arguments),
            secure_train=True,
            server_args={PROJECT: dict(self._server)},
            handlers=[],
            args=Namespace(job_id=job),
            components={},
        )

    def _new_cell(self, fqcn: str, *, internal: bool) -> Cell:
        """Make a cell; `internal`: other cells of this vehicle connect through it."""
        own, parent_url, parent = self._arguments, None, self._client.cell
        if fqcn != self.name and parent is not None:
            parent_url = parent.core_cell.get_internal_listener_url()
        cell = Cell(
            fqcn=fqcn,
            root_url=f"{self._server['scheme']}://{self._server['target']}",
            secure=True,
            credentials={
                DriverParams.CA_CERT.value: own["ssl_root_cert"],
                DriverParams.CLIENT_CERT.value: own["ssl_cert"],
                DriverParams.CLIENT_KEY.value: own["ssl_private_key"],
                DriverParams.CONNECTION_SECURITY.value: own.get("connection_security", "mtls"),
            },
            create_internal_listener=internal,
            parent_url=parent_url,
            parent_resources={DriverParams.CONNECTION_SECURITY.value: "clear"},
            auth_identity=self.name,
            auth_identity_map={self.name: self.name, FQCN.ROOT_SERVER: self._server["identity"]},
        )
        cell.start()
        return cell


def heartbeat_s(kit: Path) -> float:
    """Return the seconds between a vehicle's NVFlare heartbeats, from its start command."""
    words = client_command(kit, kit.name)
    given = [word.partition("=")[2] for word in words if word.startswith(HEARTBEAT_KEY)]
    return float(given[0]) if given else HEARTBEAT_S


def _comm_config(kit: Path) -> dict[str, Any]:
    path = kit / "local" / "comm_config.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def _client_config(app: bytes) -> dict[str, Any]:
    """Read a vehicle's settings of a job from the deployed archive."""
    with zipfile.ZipFile(io.BytesIO(app)) as archive:
        names = [n for n in archive.namelist() if n.endswith("config_fed_client.json")]
        found: dict[str, Any] = json.loads(archive.read(names[0]))
    return found


def give_out_ports(first: int) -> None:
    """Assign consecutive ports to the listeners inside this machine.

    NVFlare draws ports at random, and among hundreds some are taken before they are listened at.
    """
    lock, ports = threading.Lock(), itertools.count(first)

    def next_port(resources: Any) -> int:
        with lock:
            return next(port for port in ports if net_utils.check_tcp_port(port))

    net_utils.get_open_tcp_port = next_port


def prepare_process(kit: Path, folder: Path) -> None:
    """Prepare this process for many vehicles, which share the settings of one kit."""
    threading.stack_size(STACK_BYTES)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    conn_manager.FRAME_THREAD_POOL_SIZE = FRAME_THREADS
    write_kit_settings(kit)  # as `fleetseg client` does at its start
    settings = {**_comm_config(kit), **OF_THIS_PROCESS}
    (folder / "comm_config.json").write_text(json.dumps(settings))
    ConfigService.initialize(section_files={}, config_path=[str(folder)])
    nvflare_fobs_initialize()
    os.environ[OWN_VARIABLE] = str(folder)
    os.environ[TRAINER_VARIABLE] = str(folder / "trainer")
    ProgressPage(folder / PAGE_NAME).begin("idle", 300.0)
    # Not needed here: this process already ends with the process that started it.
    executor_module.end_with_parent = lambda: None


def main() -> None:
    """Run these vehicles until a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kits", type=Path, nargs="+", metavar="KIT")
    parser.add_argument("--answers", type=Path, required=True, help="folder of prepared answers")
    parser.add_argument("--events", type=Path, required=True, help="file to append events to")
    parser.add_argument("--first-port", type=int, default=10_000, help="of the internal listeners")
    parser.add_argument("--spread", type=float, default=3.0, help="seconds over which all join")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))  # does not wait for thousands of threads
    answers, lock = Answers.read(options.answers), threading.Lock()
    with (
        tempfile.TemporaryDirectory(prefix="thin-") as folder,
        open(options.events, "a", encoding="utf-8", buffering=1) as file,
    ):
        prepare_process(options.kits[0], Path(folder))
        give_out_ports(options.first_port)

        def events(name: str, what: str) -> None:
            with lock:
                file.write(f"{time.time():.3f} {name} {what}\n")

        vehicles = [Vehicle(kit, answers, events, options.spread) for kit in options.kits]
        vehicles[0].start()  # alone: the first one loads NVFlare's drivers
        rest = [threading.Thread(target=v.start, daemon=True) for v in vehicles[1:]]
        for thread in rest:
            thread.start()
        while True:
            time.sleep(1.0)


if __name__ == "__main__":
    sys.exit(main())
