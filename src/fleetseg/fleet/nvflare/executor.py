"""A vehicle's relay inside an NVFlare job: forwards tasks to the trainer and its replies back.

It does not load torch: if this process ran out of memory, NVFlare would end the job for the whole
fleet, while a trainer that dies is just one typed failure.
"""

from __future__ import annotations

import os
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import SystemConfigs
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.fuel.utils.config_service import ConfigService

from fleetseg.failures import FailureKind, failure_header
from fleetseg.fleet.beats import QUICK_S
from fleetseg.fleet.egress import Egress
from fleetseg.fleet.nvflare.bell import Waiting
from fleetseg.fleet.nvflare.names import (
    BEAT,
    BEAT_S,
    BELL,
    HEADER,
    HEARS,
    HEART_S,
    IDLE_BEAT_S,
    OK,
    OWN_VARIABLE,
    PAYLOAD,
    PROGRESS,
    TASK,
    TRAINER_VARIABLE,
)
from fleetseg.fleet.progress import PAGE_NAME, read_progress
from fleetseg.fleet.sockets import (
    MAX_HEADER_BYTES,
    Connection,
    ConnectionLost,
    Header,
    connect,
    header_text,
)
from fleetseg.fleet.subprocesses import end_with_parent
from fleetseg.fleet.threads import start_thread
from fleetseg.strict_json import BadJson, read_table

_LONGEST_S = 600.0  # limit on intervals that a server may set
_MOST_FAILED_BEATS = 5
_TRAINER_S = 60.0  # how long a trainer may take to start (again)


class TrainerExecutor(Executor):  # type: ignore[misc]
    """Relays between one site's part of a job and its trainer."""

    def __init__(self) -> None:
        super().__init__()
        self._busy, self._beat_s = "", QUICK_S
        self._idle_beat_s = QUICK_S
        self._waiting: Waiting | None = None
        self._over, self._stir = threading.Event(), threading.Event()

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Send heartbeats from the start of a job to its end."""
        if event_type == EventType.START_RUN:
            end_with_parent()
            self._idle_beat_s = _setting(IDLE_BEAT_S) or QUICK_S
            self._listen(fl_ctx.get_engine())
            start_thread(partial(self._beats, fl_ctx.get_engine()), "fleetseg-beats")
        elif event_type == EventType.AFTER_SEND_TASK_RESULT:
            self._busy = ""
            self._stir.set()
        elif event_type in (EventType.ABOUT_TO_END_RUN, EventType.END_RUN):
            self._over.set()
            self._stir.set()

    def _listen(self, engine: Any) -> None:
        """Request tasks when notified, if the server sends notifications."""
        if heart_s := _setting(HEART_S):
            self._waiting = Waiting(heart_s)
            engine.get_task_assignment = self._waiting.before(engine.get_task_assignment)
            engine.register_aux_message_handler(topic=BELL, message_handle_func=self._on_bell)

    def _on_bell(self, topic: str, request: Shareable, fl_ctx: FLContext) -> Shareable:
        assert self._waiting is not None
        self._waiting.ring()
        self._stir.set()
        return make_reply(OK)

    def execute(
        self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal
    ) -> Shareable:
        """Have the trainer do one task; every failure also becomes a reply."""
        site = fl_ctx.get_identity_name()
        try:
            header = read_table(shareable[HEADER], max_bytes=MAX_HEADER_BYTES)
        except BadJson as bad:
            detail = f"not a request: {bad}"
            text, payload = self._failed("refused", "malformed", detail, site)
        else:
            self._beat_s = _seconds(header.get(BEAT_S))
            self._busy = str(header.get("task", ""))  # until the reply is sent: `handle_event`
            self._stir.set()
            text, payload = self._served(header, shareable[PAYLOAD], abort_signal, site)
        reply = make_reply(OK)
        reply[HEADER] = text.decode()
        reply[PAYLOAD] = payload
        return reply

    def _served(
        self, header: Header, payload: bytes, abort_signal: Signal, site: str
    ) -> tuple[bytes, bytes]:
        """Have the trainer answer; its reply is passed on unchanged, so that its digest holds."""
        connection = None
        try:
            connection = _to_trainer(abort_signal)
            connection.send(header, payload)
            while not abort_signal.triggered:
                answer = connection.receive_text(timeout_s=0.2)
                if answer is not None:
                    return answer
            reason = "aborted"
        except ConnectionLost as lost:
            self.logger.warning(f"no answer from the trainer: {lost}")
            reason = "trainer-died"
        finally:
            if connection is not None:
                connection.close()
        vehicle = header.get("vehicles", {}).get(site, site)
        return self._failed("lost", reason, "", vehicle)

    def _beats(self, engine: Any) -> None:
        failed, pause_s = 0, QUICK_S / 2  # failed in a row; one may fail while a job is ending
        page = Path(os.environ[TRAINER_VARIABLE]).with_name(PAGE_NAME)
        while not self._over.is_set():
            if self._stir.is_set():  # send news more than once: messages may be lost
                self._stir.clear()
                pause_s = QUICK_S / 2
            try:
                self._beat(engine, str(read_progress(page) or ""))
                failed = 0
            except Exception:
                failed += 1
                if failed == _MOST_FAILED_BEATS and not self._over.is_set():
                    raise  # a vehicle without heartbeats would be lost for the whole job
            usual_s = self._beat_s if self._busy else self._idle_beat_s
            pause_s = QUICK_S if failed else min(2 * pause_s, usual_s)
            self._stir.wait(pause_s)

    def _beat(self, engine: Any, progress: str) -> None:
        request = Shareable()
        request[TASK] = self._busy
        request[PROGRESS] = progress
        request[HEARS] = self._waiting is not None
        with engine.new_context() as fl_ctx:
            engine.send_aux_request(
                targets=None,
                topic=BEAT,
                request=request,
                timeout=0.0,
                fl_ctx=fl_ctx,
                optional=True,
            )

    def _failed(
        self, kind: FailureKind, reason: str, detail: str, vehicle: str
    ) -> tuple[bytes, bytes]:
        """Answer for the trainer, and log that reply, which the trainer has not logged."""
        egress = Egress(Path(os.environ[OWN_VARIABLE]), self.logger.warning)
        header = failure_header(kind, reason, detail)
        header, payload = egress.passed("failure", vehicle, header, b"")
        return header_text(header), payload


def _setting(name: str) -> float | None:
    """Return a number from the job's vehicle settings; None from an older server."""
    number = ConfigService.get_float_var(name, conf=SystemConfigs.APPLICATION_CONF, default=None)
    return None if number is None else _seconds(number)


def _seconds(told: Any) -> float:
    """Read the interval of heartbeats or requests; the default if an older server sent none."""
    known = isinstance(told, int | float) and told >= QUICK_S
    return float(min(told, _LONGEST_S)) if known else QUICK_S


def _to_trainer(abort_signal: Signal) -> Connection:
    until_s = time.monotonic() + _TRAINER_S
    while True:
        try:
            return connect(os.environ[TRAINER_VARIABLE])
        except ConnectionLost:
            if abort_signal.triggered or time.monotonic() > until_s:
                raise
        time.sleep(0.2)
