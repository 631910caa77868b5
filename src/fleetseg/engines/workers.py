"""Clients in N worker processes; models travel through shared memory, words as JSON over a pipe.

The server writes a broadcast once into a place that all workers read. Each worker has a place of
its own for its update, which the server folds from where it lies. A worker holds every client's
data as memory-mapped files, so clients go to whichever worker is free; since the result depends
only on (seed, round, client) and the number of threads, it does not matter which one that is.
"""

from __future__ import annotations

import json
import multiprocessing.connection
import multiprocessing.process
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

from fleetseg.engines.inprocess import attempt
from fleetseg.engines.shared import SharedStates, with_tensors, without_values
from fleetseg.engines.starting import IMPORT_CURE, start, startable, unsendable
from fleetseg.errors import EngineError
from fleetseg.federation.client import Client, LocalRuntime, client_evaluate, client_update
from fleetseg.federation.messages import Broadcast, Enrolment, Evaluation, Failure, Update
from fleetseg.federation.tensors import ModelState
from fleetseg.learning.hardware import resolve

_READY = {"ready": True}  # a worker's first message: all that it is born with has arrived
_ATTEMPTS = 2  # a client whose worker died is tried once more, on a fresh worker


@dataclass(frozen=True)
class WorkerJob:
    """Everything a worker process is born with."""

    index: int
    runtime: LocalRuntime
    clients: Mapping[str, Client]
    states: SharedStates  # the broadcast, which all workers read; then each worker's update

    @property
    def broadcast(self) -> ModelState:
        """What the server writes."""
        return self.states[0]

    @property
    def update(self) -> ModelState:
        """What this worker writes."""
        return self.states[1 + self.index]


@dataclass
class _Worker:
    process: multiprocessing.process.BaseProcess
    pipe: Connection
    update: ModelState
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
            handed = replace(runtime, model=without_values(runtime.model))
            self._states = SharedStates(runtime.layout, 1 + num_workers)
        self._broadcast = self._states[0]
        self._jobs = [WorkerJob(i, handed, clients, self._states) for i in range(num_workers)]
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
        """Every client, always."""
        return {name: client.enrolment for name, client in self._clients.items()}

    def train(
        self, cohort: Sequence[str], broadcast: Broadcast, deadline_s: float
    ) -> Iterator[Update | Failure]:
        """Train the cohort, as many clients at a time as there are workers."""
        return self._dispatch("train", cohort, broadcast, self._read_update)

    def evaluate(
        self, cohort: Sequence[str], broadcast: Broadcast, deadline_s: float
    ) -> Iterator[Evaluation | Failure]:
        """Score the cohort, as many clients at a time as there are workers."""
        return self._dispatch("evaluate", cohort, broadcast, _read_evaluation)

    def close(self) -> None:
        """Stop the workers; shared memory goes with its last user."""
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
        return _Worker(process, pipe, job.update)

    def _dispatch(
        self,
        task: str,
        cohort: Sequence[str],
        broadcast: Broadcast,
        read: Callable[[_Worker, dict[str, Any]], Any],
    ) -> Iterator[Any]:
        self._broadcast.values_F.copy_(broadcast.state.values_F)
        self._broadcast.counters_K.copy_(broadcast.state.counters_K)
        order = {
            "task": task,
            "round": broadcast.round,
            "class_weights": broadcast.class_weights_C,
        }
        todo = deque((name, 1) for name in cohort)
        busy: dict[Connection, _Worker] = {}
        for index in range(min(len(self._workers), len(todo))):
            self._assign(index, order, todo, busy)
        try:
            while busy:
                for ready in multiprocessing.connection.wait(list(busy)):
                    worker = busy.pop(ready)  # type: ignore[call-overload]
                    index = self._workers.index(worker)
                    answer = self._answer(index, todo)
                    if answer == _READY:  # a worker in a dead one's place; its answer comes next
                        busy[worker.pipe] = worker
                        continue
                    if answer is not None:
                        yield read(worker, answer)
                    if todo:
                        self._assign(index, order, todo, busy)
        finally:
            # Nobody wants the rest (over-selection): an answer of this round must not be read as
            # one of the next.
            for worker in busy.values():
                while self._answer(self._workers.index(worker), deque()) == _READY:
                    pass

    def _answer(self, index: int, todo: deque[tuple[str, int]]) -> dict[str, Any] | None:
        try:
            answer: dict[str, Any] = json.loads(self._workers[index].pipe.recv_bytes())
            return answer
        except (EOFError, OSError):
            return self._replace_dead_worker(index, todo)

    def _assign(
        self,
        index: int,
        order: Mapping[str, Any],
        todo: deque[tuple[str, int]],
        busy: dict[Connection, _Worker],
    ) -> None:
        worker = self._workers[index]
        worker.client, worker.attempts = todo.popleft()
        busy[worker.pipe] = worker
        with suppress(OSError):  # if it is dead, the wait for its answer will find out
            worker.pipe.send_bytes(json.dumps({**order, "client": worker.client}).encode())

    def _replace_dead_worker(
        self, index: int, todo: deque[tuple[str, int]]
    ) -> dict[str, Any] | None:
        """Replace a dead worker; its client is tried again, or told as lost."""
        dead = self._workers[index]
        dead.process.join()
        code = dead.process.exitcode
        dead.pipe.close()
        self._workers[index] = self._start(self._jobs[index])
        if dead.attempts < _ATTEMPTS:
            todo.appendleft((dead.client, dead.attempts + 1))
            return None
        detail = f"its worker died twice (exit code {code})"
        return {"failure": [dead.client, "lost", "worker-died", detail]}

    def _read_update(self, worker: _Worker, answer: dict[str, Any]) -> Update | Failure:
        if "failure" in answer:
            return _read_failure(answer)
        return Update(change=worker.update, **answer["update"])


def _await(worker: _Worker) -> None:
    """Wait until a worker has all that it is born with.

    Raises:
        EngineError: it ended before.
    """
    try:
        worker.pipe.recv_bytes()
    except (EOFError, OSError):
        worker.process.join()
        code = worker.process.exitcode
        raise EngineError(
            "a worker ended while it was starting, before it had the network and the data",
            got=f"exit code {code}" + ("; its own words stand above" if code == 1 else ""),
            cure=IMPORT_CURE if code == 1 else "If memory is short, start fewer: --workers",
        ) from None


def worker_main(job: WorkerJob, pipe: Connection) -> None:
    """Serve one task after another until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    torch.set_num_threads(job.runtime.experiment.engine.threads)
    runtime: LocalRuntime | Failure | None = None
    broadcast_state, update = job.broadcast, job.update
    with suppress(OSError):
        pipe.send_bytes(json.dumps(_READY).encode())
    while True:
        try:
            order = json.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            break
        broadcast = Broadcast(order["round"], broadcast_state, tuple(order["class_weights"]))
        client = job.clients[order["client"]]
        try:
            if not isinstance(runtime, LocalRuntime):
                runtime = attempt(lambda b, c, _: _own_bench(job), broadcast, client, job.runtime)
            if isinstance(runtime, Failure):
                answer = _write_failure(runtime)
            else:
                answer = _serve(order["task"], broadcast, client, runtime, update)
        except Exception as error:
            if "CUDA error" in str(error):
                raise  # only a new process can go on
            answer = _write_failure(Failure(client.id, "lost", "error", _told(error)))
        try:
            pipe.send_bytes(json.dumps(answer).encode())
        except OSError:
            break


def _own_bench(job: WorkerJob) -> LocalRuntime:
    """Make the workbench of this process, on the GPU that is its share."""
    settings = job.runtime.experiment.engine
    hardware = resolve(settings.device, settings.precision, job.index)
    hardware.select()
    model = with_tensors(job.runtime.model).to(hardware.device)
    return replace(job.runtime, model=model, hardware=hardware)


def _serve(
    task: str, broadcast: Broadcast, client: Client, runtime: LocalRuntime, into: ModelState
) -> dict[str, Any]:
    if task == "train":
        reply = attempt(lambda b, c, w: client_update(b, c, w, into), broadcast, client, runtime)
        if isinstance(reply, Update):
            fields = {k: v for k, v in vars(reply).items() if k != "change"}
            return {"update": fields}
        return _write_failure(reply)
    scores = attempt(client_evaluate, broadcast, client, runtime)
    if isinstance(scores, Evaluation):
        confs = {domain: conf.tolist() for domain, conf in scores.conf_by_domain.items()}
        return {"round": scores.round, "client": client.id, "confs": confs}
    return _write_failure(scores)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]


def _write_failure(failure: Failure) -> dict[str, Any]:
    return {"failure": list(asdict(failure).values())}


def _read_failure(answer: dict[str, Any]) -> Failure:
    return Failure(*answer["failure"])


def _read_evaluation(worker: _Worker, answer: dict[str, Any]) -> Evaluation | Failure:
    if "failure" in answer:
        return _read_failure(answer)
    confs = {domain: np.array(conf, dtype=np.int64) for domain, conf in answer["confs"].items()}
    return Evaluation(answer["round"], answer["client"], confs)
