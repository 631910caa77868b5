"""Real fleets of real processes on loopback, and the means to harm them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.experiments import tiny_experiment

from fleetseg.config import Experiment
from fleetseg.experiment_file import to_toml

LIMIT_S = 150.0
SERVER = "nvflare.private.fed.app.server.server_train"
SERVER_JOB = "nvflare.private.fed.app.server.runner_process"
CLIENT = "nvflare.private.fed.app.client.client_train"
CLIENT_JOB = "nvflare.private.fed.app.client.worker_process"
TRAINER = "fleetseg.fleet.vehicle.trainer"
SUPERVISOR = "fleetseg.fleet.vehicle.supervisor"


def experiment(
    cache: Path,
    rounds: int,
    *,
    seconds: float = 0.0,
    uplink: str = "none",
    downlink: str = "none",
    downlink_start: str = "none",
    **fleet: float,
) -> Experiment:
    """The tiny experiment; `seconds` makes a vehicle's round last about that long, or longer."""
    steps = max(1, round(seconds / 0.03))
    patience = {"silent_s": 6.0, "gather_s": 40.0, "renew_s": 5.0, "wait_s": 60.0}
    return tiny_experiment(
        cache,
        training={"batch_size": 2, "lr": 1e-4, "local_steps": steps, "optimiser_state": "kept"},
        federation={
            "rounds": rounds,
            "uplink": uplink,
            "downlink": downlink,
            "downlink_start": downlink_start,
        },
        evaluation={"every": 0, "on_clients": True},
        engine={"kind": "fleet", "workers": 2, "precision": "fp32"},
        fleet={**patience, **fleet},
    )


class Process:
    """A command in a session of its own, its output in a file."""

    def __init__(self, command: list[str], log: Path, **environment: str) -> None:
        self.log = log
        with open(log, "ab") as output:
            self.popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, limit_s: float = LIMIT_S) -> int:
        try:
            return self.popen.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {limit_s} s:\n{self.text[-3000:]}") from None

    def interrupt(self) -> None:
        self.popen.send_signal(signal.SIGINT)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Let it do nothing for the length of a block; what it started goes on."""
        os.kill(self.popen.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.popen.pid, signal.SIGCONT)

    def kill(self) -> None:
        """kill -9, this process alone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


def fleetseg(*words: str | Path, log: Path, prefix: Sequence[str] = ()) -> Process:
    """Start a command of ours as a user would."""
    command = [*prefix, sys.executable, "-m", "fleetseg.cli", *map(str, words)]
    return Process(command, log, OMP_NUM_THREADS="1")


def write(described: Experiment, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_toml(described))
    return path


def rounds_of(run: Path) -> list[dict[str, Any]]:
    """All whole lines of a run's log."""
    try:
        lines = (run / "rounds.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []
    read = []
    for line in lines:
        with contextlib.suppress(ValueError):
            read.append(json.loads(line))
    return read


def committed(run: Path) -> list[dict[str, Any]]:
    """Rounds that are committed."""
    return [line for line in rounds_of(run) if "event" not in line]


def done(run: Path) -> int:
    """How many rounds are committed."""
    return len(committed(run))


def sha_of(run: Path) -> str:
    return str(rounds_of(run)[-1]["model_sha256"])


def until(condition: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
    """Wait for something to become true; the tests' only way to wait."""
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {limit_s} s: {what}")


def processes(text: str, folder: Path) -> list[int]:
    """Ids of processes whose command line has a text and, anywhere, a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if text in words and str(folder) in words:
                found.append(int(entry.name))
    return found


def kill(text: str, folder: Path, number: int = signal.SIGKILL) -> int:
    """Send a signal to every process found; returns how many.

    Who is killed is waited for: its sockets take connections until its last thread has ended.
    """
    pids = until(lambda: processes(text, folder), f"a process {text} in {folder}", 60)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    if number == signal.SIGKILL:
        until(lambda: all(_is_gone(pid) for pid in pids), f"the end of {text} in {folder}", 60)
    return len(pids)


def _is_gone(pid: int) -> bool:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        return len(threads) == 1 and _state(pid)[0] in "ZX"
    except OSError:
        return True


def at_rest(text: str, folder: Path) -> bool:
    """Whether the processes found sleep for a second, and wait for no processor either."""
    pids = until(lambda: processes(text, folder), f"a process {text} in {folder}", 60)
    before = [_state(pid) for pid in pids]
    for _ in range(20):
        time.sleep(0.05)
        if [_state(pid) for pid in pids] != before:
            return False
    return all(state == "S" for state, _ in before)


def _state(pid: int) -> tuple[str, int]:
    """Return what a process is doing, and the processor time it has taken, in ticks."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return words[0], int(words[11]) + int(words[12])


def tree(folder: Path) -> list[int]:
    """Every process that names a folder."""
    return processes("", folder)


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    """Note how long the block took, for docs/reliability.md: in the file $FLEETSEG_FIGURES."""
    began_s = time.monotonic()
    yield
    note(what, time.monotonic() - began_s)


def note(what: str, seconds: float) -> None:
    if path := os.environ.get("FLEETSEG_FIGURES"):
        with open(path, "a") as file:
            file.write(json.dumps({"what": what, "seconds": round(seconds, 1)}) + "\n")


@contextlib.contextmanager
def nothing_left(folder: Path) -> Iterator[None]:
    """Require that no process of this folder outlives the block; end those that do."""
    try:
        yield
    finally:
        end_s = time.monotonic() + 20
        while tree(folder) and time.monotonic() < end_s:
            time.sleep(0.1)
        left = {pid: _words(pid) for pid in tree(folder)}
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGKILL)
    assert left == {}, "orphans"


def _words(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
    except OSError:
        return ""
