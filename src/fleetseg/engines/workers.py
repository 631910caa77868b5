"""Clients in N worker processes: models in shared memory, headers as JSON over pipes.

The server writes the common broadcast once into memory that all workers read; a client with another
model is sent it through memory that only its worker reads. Each worker writes its update to its own
memory, from where the server aggregates it. A worker has every client's data as memory-mapped
files, so clients go to any free worker; results depend only on (seed, round, client) and the number
of threads, not on the worker.
"""

from __future__ import annotations

import json
import multiprocessing.connection
import multiprocessing.process
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import torch

from fleetseg.engines.inprocess import attempt
from fleetseg.engines.shared import SharedStates, with_tensors, with_values, without_values
from fleetseg.engines.starting import IMPORT_CURE, start, startable, unsendable
from fleetseg.errors import EngineError
from fleetseg.federation.client import Client, LocalRuntime
from fleetseg.federation.engine import Meter, Received
from fleetseg.federation.lineage import read_counted, write_counted
from fleetseg.federation.messages import Broadcast, Enrolment, Failure
from fleetseg.federation.replies import has_bytes, read_reply, write_failure, write_reply
from fleetseg.federation.tasks import CLIENT_TASKS
from fleetseg.federation.tensors import ModelState
from fleetseg.federation.wire import read_facts, write_facts
from fleetseg.learning.feature_distance import FeatureDistance
from fleetseg.learning.hardware import hardware_of
from fleetseg.models.segmenter import Segmenter

_READY = {"ready": True}  # a worker's first message: it has everything that it starts with
Answer = tuple[dict[str, Any], bytes]
_ATTEMPTS = 2  # a client whose worker died is tried once more, on a fresh worker


@dataclass(frozen=True)
class WorkerJob:
    """Arguments of a worker process."""

    index: int
    workers: int  # number of workers
    runtime: LocalRuntime
    clients: Mapping[str, Client]
    states: SharedStates  # the common one; then per worker: what only it reads, and its update

    @property
    def common(self) -> ModelState:
        """The state that the server writes for all workers."""
        return self.states[0]

    @property
    def alone(self) -> ModelState:
        """The state that the server writes for this worker only."""
        return self.states[1 + 2 * self.index]

    @property
    def update(self) -> ModelState:
        """The state that this worker writes."""
        return self.runtime.exchange.up_of(self.states[2 + 2 * self.index])


@dataclass
class _Worker:
    process: multiprocessing.process.BaseProcess
    pipe: Connection
    job: WorkerJob
    client: str = ""
    attempts: int = 0


class WorkersEngine:
    """N processes that train different clients at the same time; use it as a context manager."""

    def __init__(
        self,
        clients: Mapping[str, Client],
        runtime: LocalRuntime,
        num_workers: int,
    ) -> None:
        own = (getattr(client.train, "samples", None) for client in clients.values())
        if why := unsendable([*runtime.model.modules(), *own]):
            raise EngineError(f"this cannot be sent to a worker: {why}", cure=IMPORT_CURE)
        self._clients = clients
        self._workers: list[_Worker] = []
        with startable():
            handed = replace(
                runtime,
                model=without_values(runtime.model),
                distance=_changed(runtime.distance, with_values),
            )
            self._states = SharedStates(runtime.exchange.down, 1 + 2 * num_workers)
        self._runtime = handed
        self._down = self._up = 0
        self._jobs = [
            WorkerJob(i, num_workers, handed, clients, self._states) for i in range(num_workers)
        ]
        try:
            for job in self._jobs:
                self._workers.append(self._start(job))
            for worker in self._workers:
                _await(worker)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> WorkersEngine:
        """Return the engine itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop all workers."""
        self.close()

    def available(self) -> Mapping[str, Enrolment]:
        """Return every client; all are always available."""
        return {name: client.enrolment for name, client in self._clients.items()}

    def ask(
        self, task: str, asks: Mapping[str, Broadcast], deadline_s: float = 0.0
    ) -> Iterator[Received]:
        """Run clients, as many at a time as there are workers."""
        common = next(iter(asks.values())).state if asks else None
        if common is not None:
            _copy(common, self._states[0])
        todo = deque((name, 1) for name in asks)
        busy: dict[Connection, _Worker] = {}

        def assign(index: int) -> None:
            worker = self._workers[index]
            worker.client, worker.attempts = todo.popleft()
            busy[worker.pipe] = worker
            self._send(worker, task, asks[worker.client], common)

        for index in range(min(len(self._workers), len(todo))):
            assign(index)
        try:
            while busy:
                for ready in multiprocessing.connection.wait(list(busy)):
                    worker = busy.pop(ready)  # type: ignore[call-overload]
                    index = self._workers.index(worker)
                    answer = self._answer(index, todo)
                    if answer is not None and answer[0] == _READY:
                        busy[worker.pipe] = worker  # replaces a dead worker; its answer comes next
                        continue
                    if answer is not None:
                        yield self._received(worker, *answer)
                    if todo:
                        assign(index)
        finally:
            # The rest is not needed (over-selection), but an answer of this round must not be read
            # as one of the next.
            for worker in busy.values():
                while (rest := self._answer(self._workers.index(worker), deque())) is not None:
                    if rest[0] != _READY:
                        break

    def meter(self) -> Meter:
        """See Engine: bytes of what would have been sent over a network."""
        return Meter(self._down, self._up, time.monotonic())

    def close(self) -> None:
        """Stop the workers; shared memory is freed with its last user."""
        for worker in self._workers:
            worker.pipe.close()  # the worker ends when its pipe does
            worker.process.join(timeout=2)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers = []
        self._states.close()

    def _start(self, job: WorkerJob) -> _Worker:
        on_cpu = job.runtime.hardware.device.type == "cpu"
        process, pipe = start(f"fleetseg-worker-{job.index}", worker_main, job, on_cpu=on_cpu)
        return _Worker(process, pipe, job)

    def _send(
        self, worker: _Worker, task: str, broadcast: Broadcast, common: ModelState | None
    ) -> None:
        self._down += self._runtime.bytes_of(broadcast)
        is_common = broadcast.state is common
        if not is_common:
            _copy(broadcast.state, worker.job.alone)
        order = {
            "task": task,
            "client": worker.client,
            "round": broadcast.round,
            "common": is_common,
            "facts": write_facts(broadcast.facts),
            "counted": write_counted(broadcast.counted),
            "lineage": broadcast.lineage,
        }
        with suppress(OSError):  # a dead worker is noticed while waiting for its answer
            worker.pipe.send_bytes(json.dumps(order).encode())

    def _answer(self, index: int, todo: deque[tuple[str, int]]) -> Answer | None:
        try:
            header: dict[str, Any] = json.loads(self._workers[index].pipe.recv_bytes())
            payload = self._workers[index].pipe.recv_bytes() if has_bytes(header) else b""
        except (EOFError, OSError):
            return self._replace_dead_worker(index, todo)
        return header, payload

    def _received(self, worker: _Worker, header: dict[str, Any], payload: bytes) -> Received:
        runtime = self._runtime
        self._up += runtime.message_bytes[1] if "change" in header else len(payload)
        return read_reply(
            worker.client,
            header,
            payload,
            num_classes=runtime.num_classes,
            codec=runtime.codec,
            room=worker.job.update,
        )

    def _replace_dead_worker(self, index: int, todo: deque[tuple[str, int]]) -> Answer | None:
        """Replace a dead worker; its client is tried again, or counts as lost."""
        dead = self._workers[index]
        dead.process.join()
        code = dead.process.exitcode
        dead.pipe.close()
        self._workers[index] = self._start(self._jobs[index])
        if dead.attempts < _ATTEMPTS:
            todo.appendleft((dead.client, dead.attempts + 1))
            return None
        detail = f"its worker died twice (exit code {code})"
        return write_failure(Failure(dead.client, "lost", "worker-died", detail)), b""


def _copy(state: ModelState, place: ModelState) -> None:
    """Write a state to its place, which has room for the largest one sent."""
    place.values_F[: state.values_F.numel()].copy_(state.values_F)
    place.counters_K[: state.counters_K.numel()].copy_(state.counters_K)


def _await(worker: _Worker) -> None:
    """Wait until a worker has everything that it starts with.

    Raises:
        EngineError: it ended before that.
    """
    try:
        worker.pipe.recv_bytes()
    except (EOFError, OSError):
        worker.process.join()
        code = worker.process.exitcode
        raise EngineError(
            "a worker ended while it was starting, before it had the network and the data",
            got=f"exit code {code}" + ("; its own error is above" if code == 1 else ""),
            cure=IMPORT_CURE if code == 1 else "If memory is short, start fewer: --workers",
        ) from None


def worker_main(job: WorkerJob, pipe: Connection) -> None:
    """Serve one task after another until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    torch.set_num_threads(job.runtime.experiment.engine.threads)
    runtime: LocalRuntime | Failure | None = None
    with suppress(OSError):
        pipe.send_bytes(json.dumps(_READY).encode())
    while True:
        try:
            order = json.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            break
        client, broadcast = job.clients[order["client"]], _broadcast(order, job)
        try:
            if not isinstance(runtime, LocalRuntime):
                runtime = attempt(lambda *_: _own_runtime(job), broadcast, client, job.runtime)
            header, payload = (
                write_reply(attempt(CLIENT_TASKS[order["task"]], broadcast, client, runtime))
                if isinstance(runtime, LocalRuntime)
                else write_reply(runtime)
            )
        except Exception as error:
            if "CUDA error" in str(error):
                raise  # only a new process can continue
            text = f"{type(error).__name__}: {' '.join(str(error).split())}"
            failure = Failure(client.id, "lost", "error", text)
            header, payload = write_failure(failure), b""
        try:
            pipe.send_bytes(json.dumps(header).encode())
            if has_bytes(header):
                pipe.send_bytes(payload)
        except OSError:
            break


def _broadcast(order: Mapping[str, Any], job: WorkerJob) -> Broadcast:
    # The place fits the largest broadcast; behind a smaller one is data of an earlier one.
    place = job.common if order["common"] else job.alone
    state = job.runtime.exchange.cut(place, order["task"])
    facts, counted = read_facts(order["facts"]), read_counted(order["counted"])
    return Broadcast(order["round"], state, facts, counted, lineage=order["lineage"])


def _own_runtime(job: WorkerJob) -> LocalRuntime:
    """Make what this process trains with, on the GPU assigned to it."""
    hardware = hardware_of(job.runtime.experiment.engine, job.index, job.workers)
    hardware.select()
    model = with_tensors(job.runtime.model).to(hardware.device)
    distance = _changed(job.runtime.distance, lambda n: with_tensors(n).to(hardware.device))
    runtime = replace(job.runtime, model=model, hardware=hardware, distance=distance)
    return replace(runtime, room=job.update)


def _changed(
    distance: FeatureDistance | None, change: Callable[[Segmenter], Segmenter]
) -> FeatureDistance | None:
    """Return the term with another copy of its encoder."""
    return distance and replace(distance, frozen=change(distance.frozen))
