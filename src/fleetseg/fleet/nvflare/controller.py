"""The server's relay inside an NVFlare job: hands out tasks and forwards replies, nothing else.

It follows orders of the aggregating process over a socket (`server.dispatcher`) and ends when that
closes; through the same socket, the aggregating process notices if this one dies.

Messages to the aggregating process: {"is": "joined", "job", "sites", "beat_s"}, {"is": "alive"}
once a second, and {"is": "sent" | "reply" | "beat" | "gone" | "late", "site", ...}. Orders from it:
{"do": "ask", "task", "targets", "header"} with a payload, or with "same_as", a task that has that
payload; {"do": "cancel", "task"}; {"do": "end"}.

Sites that are asked are notified (`bell`); they then fetch the task through NVFlare.
"""

from __future__ import annotations

import json
import os
import queue
import threading
from typing import Any

from nvflare.apis.client import Client
from nvflare.apis.controller_spec import ClientTask, Task
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.fuel.f3.cellnet.defs import CellChannel, ReturnCode
from nvflare.fuel.f3.cellnet.utils import make_reply

from fleetseg.failures import failure_header
from fleetseg.fleet.beats import QUICK_S, beat_every_s
from fleetseg.fleet.nvflare.bell import Bell
from fleetseg.fleet.nvflare.door import sender_of
from fleetseg.fleet.nvflare.names import (
    BEAT,
    BEAT_S,
    BELL,
    HEADER,
    HEARS,
    LINK_VARIABLE,
    PAYLOAD,
    PROGRESS,
    TASK,
)
from fleetseg.fleet.reply_limits import max_payload_of, relayed
from fleetseg.fleet.sockets import Connection, ConnectionLost, Header, connect
from fleetseg.fleet.subprocesses import end_with_parent
from fleetseg.fleet.threads import start_thread

_ALIVE_S = 1.0
_UNACKNOWLEDGED = 2  # replies in this process that the other has not received yet
_MAX_TASK_NAME = 100
_MAX_PROGRESS = 80
_HOURS_S = 7 * 24 * 3600  # tasks end when cancelled; the other side has the deadlines


def _disable_debug_repr() -> None:
    """Keep NVFlare 2.9 from formatting whole messages as text for a debug line that is not logged.

    `cell.py` formats each reply before it checks the log level: 38 MB of text and 0.1 s for a model
    of 13.5 MB, half the time of a round without training.
    """
    try:
        from nvflare.fuel.utils.buffer_list import ConsumableBufferList
    except ImportError:  # another version: nothing to fix
        return
    ConsumableBufferList.__repr__ = lambda self: "<buffers>"
    ConsumableBufferList.__str__ = ConsumableBufferList.__repr__


class FleetController(Controller):  # type: ignore[misc]
    """Relays between the aggregating process and the sites of one job.

    `idle_beat_s` is the heartbeat interval of a vehicle without work.
    """

    def __init__(self, idle_beat_s: float = QUICK_S) -> None:
        super().__init__()
        self._idle_beat_s = idle_beat_s
        self._bell = Bell(self._ring)
        self._tasks: dict[str, Task] = {}
        self._payloads: dict[str, bytes] = {}  # of open tasks; many may share one
        self._out: queue.Queue[tuple[Header, bytes] | None] = queue.Queue()
        self._room = threading.Semaphore(_UNACKNOWLEDGED)
        self._connection: Connection | None = None
        self._over = threading.Event()

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Connect to the aggregating process and start forwarding messages."""
        _disable_debug_repr()
        end_with_parent()  # NVFlare's own check takes up to ten seconds
        self._connection = connect(os.environ[LINK_VARIABLE])
        # Not as the engine's topic handler, which is not told who sent a message.
        self._engine.get_cell().register_request_cb(
            channel=CellChannel.AUX_COMMUNICATION, topic=BEAT, cb=self._beat
        )
        sites = [client.name for client in self._engine.get_clients()]
        joined = {"is": "joined", "job": fl_ctx.get_job_id(), "sites": sites}
        self._send({**joined, "beat_s": self._idle_beat_s})
        start_thread(self._write, "fleetseg-link")
        start_thread(self._alive, "fleetseg-alive")
        start_thread(self._bell.keep_ringing, "fleetseg-bell")

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Carry out orders until one ends the job, the connection closes or NVFlare aborts."""
        assert self._connection is not None
        try:
            while not abort_signal.triggered:
                message = self._connection.receive(timeout_s=0.2)
                if message is not None and not self._handle(*message, fl_ctx):
                    break
        except ConnectionLost:
            self.log_info(fl_ctx, "the aggregating process is gone; ending this job")
        finally:
            self._over.set()
            self._bell.end()
            self._connection.close()
            self._out.put(None)

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Do nothing: there is nothing left to stop."""

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Report sites that NVFlare has found dead."""
        super().handle_event(event_type, fl_ctx)
        if event_type == EventType.CLIENT_DISCONNECTED:
            site = fl_ctx.get_prop(FLContextKey.DISCONNECTED_CLIENT_NAME)
            self._send({"is": "gone", "site": site})

    def process_result_of_unknown_task(
        self,
        client: Client,
        task_name: str,
        client_task_id: str,
        result: Shareable,
        fl_ctx: FLContext,
    ) -> None:
        """Report that a late reply arrived; it is not read."""
        payload = result.get(PAYLOAD)
        num_bytes = len(payload) if isinstance(payload, bytes) else 0
        self._send({"is": "late", "site": client.name, "bytes": num_bytes})

    def _handle(self, header: Header, payload: bytes, fl_ctx: FLContext) -> bool:
        what = header["do"]
        if what == "ask":
            shared = header.get("same_as", "")
            if not shared or shared in self._payloads:  # else from an earlier job: not needed
                self._ask(header, self._payloads[shared] if shared else payload, fl_ctx)
        elif what == "cancel":
            self._bell.cancelled(header["task"])
            self._payloads.pop(header["task"], None)
            task = self._tasks.pop(header["task"], None)
            if task is not None:
                self.cancel_task(task, fl_ctx=fl_ctx)
        return bool(what != "end")

    def _ask(self, header: Header, payload: bytes, fl_ctx: FLContext) -> None:
        name, targets = header["task"], list(header["targets"])
        data = Shareable()
        data[HEADER] = json.dumps({**header["header"], BEAT_S: beat_every_s(len(targets))})
        data[PAYLOAD] = self._payloads[name] = payload

        def sent(client_task: ClientTask, fl_ctx: FLContext) -> None:
            self._bell.fetched(name, client_task.client.name)
            self._send({"is": "sent", "task": name, "site": client_task.client.name})

        most = max_payload_of(header["header"])

        def received(client_task: ClientTask, fl_ctx: FLContext) -> None:
            result, client_task.result = client_task.result, None  # the task keeps every ClientTask
            self._reply(name, client_task.client.name, result, most)

        task = Task(
            TASK, data, timeout=_HOURS_S, after_task_sent_cb=sent, result_received_cb=received
        )
        self._tasks[name] = task
        # min_responses=0: the task stays open until every target has answered.
        self.broadcast(task, fl_ctx, targets=targets, min_responses=0)
        self._bell.asked(name, targets)

    def _ring(self, sites: list[str]) -> None:
        with self._engine.new_context() as fl_ctx:
            self._engine.send_aux_request(
                targets=sites,
                topic=BELL,
                request=Shareable(),
                timeout=0.0,  # do not wait for a reply: sites are notified again until they fetch
                fl_ctx=fl_ctx,
                optional=True,
            )

    def _reply(self, task: str, site: str, result: Shareable, max_payload: int) -> None:
        passed = relayed(result.get(HEADER), result.get(PAYLOAD, b""), max_payload)
        if passed is None:
            detail = f"return code {result.get_return_code()}"
            passed = json.dumps(failure_header("lost", "engine-error", detail)), b""
        header, payload = passed
        # Blocks if the other side is slower than the network: at most two replies wait here.
        self._room.acquire()
        self._out.put(({"is": "reply", "task": task, "site": site, "header": header}, payload))

    def _beat(self, message: Any) -> Any:
        request, busy, progress = message.payload, "", ""
        if isinstance(request, Shareable):
            busy = str(request.get(TASK, ""))[:_MAX_TASK_NAME]
            progress = str(request.get(PROGRESS, ""))[:_MAX_PROGRESS]
        if site := sender_of(message):
            if isinstance(request, Shareable) and request.get(HEARS) is True:
                self._bell.listens(site)
            self._send({"is": "beat", "site": site, "busy": busy, "progress": progress})
        return make_reply(ReturnCode.OK)

    def _alive(self) -> None:
        """Send heartbeats of this process itself: if they stop, no vehicle is to blame."""
        while not self._over.wait(_ALIVE_S):
            self._send({"is": "alive"})

    def _send(self, header: dict[str, Any]) -> None:
        self._out.put((header, b""))

    def _write(self) -> None:
        assert self._connection is not None
        while (item := self._out.get()) is not None:
            header, payload = item
            try:
                self._connection.send(header, payload)
            except ConnectionLost:
                self._connection.close()  # this ends control_flow
                return
            finally:
                if header["is"] == "reply":
                    self._room.release()
