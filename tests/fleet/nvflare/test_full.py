"""The whole matrix of faults; half an hour. Run with: pytest -m fleet_full tests/fleet/nvflare

Each case is a fleet of real processes on loopback. Where nothing of a round's answers is lost, the
model must have the bits of an undisturbed run in one process.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fleet.nvflare import harness as h

import fleetseg
from fleetseg import rng
from fleetseg.fleet.message_log import read_message_log

pytestmark = pytest.mark.fleet_full

ROUNDS = 4
KILLED = {"the server's job": h.SERVER_JOB, "the server": h.SERVER, "the aggregator": "cli run"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def reference(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """SHA-256 of the undisturbed run, in one process."""
    described = h.experiment(cache, ROUNDS, seconds=0.7)
    engine = described.engine.model_copy(update={"kind": "inprocess"})
    alone = described.model_copy(update={"engine": engine})
    return fleetseg.run(alone, out=tmp_path_factory.mktemp("reference") / "run").model_sha256


class Run:
    """One loopback run, resumed when its aggregating process was killed."""

    def __init__(self, cache: Path, folder: Path, rounds: int = ROUNDS, **fleet: float) -> None:
        self.folder, self.run = folder, folder / "run"
        described = h.experiment(cache, rounds, seconds=0.7, **fleet)
        self.toml = h.write(described, folder / "experiment.toml")
        self.settings: list[str] = []
        self.process = self._start()

    def _start(self) -> h.Process:
        resume = ["--resume"] if (self.run / "experiment.toml").exists() else []
        words = ["run", str(self.toml), "--out", str(self.run), "--json", *resume, *self.settings]
        return h.fleetseg(*words, log=self.folder / "run.log")

    def again(self) -> None:
        self.process = self._start()

    def finish(self) -> None:
        assert self.process.wait(300) == 0, self.process.text[-3000:]

    def updates(self) -> int:
        """Updates that have reached the server."""
        lines = read_message_log(self.run / "logs" / "ingress.jsonl")
        return sum(line["kind"] == "train" for line in lines)

    def site(self, number: int) -> Path:
        return self.run / "fleet" / "kits" / f"site-{number}"

    def rounds(self) -> list[dict[str, object]]:
        return [line for line in h.rounds_of(self.run) if "event" not in line]


@pytest.fixture
def start(cache: Path, tmp_path: Path) -> Iterator[Callable[..., Run]]:
    made: list[Run] = []

    def begin(**fleet: float) -> Run:
        made.append(Run(cache, tmp_path, **fleet))
        return made[-1]

    with h.nothing_left(tmp_path):
        try:
            yield begin
        finally:
            for run in made:
                if run.process.popen.poll() is None:
                    run.process.kill()


MOMENTS: dict[str, Callable[[Run], bool]] = {
    "before the first task": lambda run: bool(h.processes(h.SERVER_JOB, run.run)),
    "in training": lambda run: h.done(run.run) >= 1,
    "half of the updates in": lambda run: run.updates() >= 7,
}


@pytest.mark.parametrize("context", MOMENTS)
@pytest.mark.parametrize("victim", KILLED)
def test_server_side_killed(
    victim: str, context: str, start: Callable[..., Run], reference: str
) -> None:
    run = start()
    h.until(lambda: MOMENTS[context](run), f"{context}: {run.process.text}")
    if victim == "the aggregator":
        run.process.kill()
        run.again()  # at once: what is left of the first start is in nobody's way
    else:
        h.kill(KILLED[victim], run.run / "fleet" / "server")
    now = h.done(run.run)
    with h.timed(f"{victim} killed {context}, to the next committed round"):
        h.until(lambda: h.done(run.run) > now, f"a round: {run.process.text}")
    run.finish()
    assert h.sha_of(run.run) == reference
    assert [r["round"] for r in run.rounds()] == list(range(1, ROUNDS + 1))


AT_A_VEHICLE: dict[str, Callable[[Run], bool]] = {
    "before training": lambda run: h.done(run.run) >= 1,
    "during training": lambda run: run.updates() >= 6,
    "after training, during upload": lambda run: _trained(run, 1) > _received(run, "site-1"),
}


def _trained(run: Run, site: int) -> int:
    log = run.site(site) / "fleetseg" / "logs" / "egress.jsonl"
    return sum(line["kind"] == "train" for line in read_message_log(log))


def _received(run: Run, site: str) -> int:
    lines = read_message_log(run.run / "logs" / "ingress.jsonl")
    return sum(line["kind"] == "train" and line["vehicle"] == site for line in lines)


@pytest.mark.parametrize("context", AT_A_VEHICLE)
def test_vehicle_s_engine_killed(context: str, start: Callable[..., Run], reference: str) -> None:
    """NVFlare ends the job for all; the next one asks those who had not answered."""
    run = start()
    h.until(lambda: AT_A_VEHICLE[context](run), f"{context}: {run.process.text}")
    h.kill(h.CLIENT_JOB, run.site(1))
    now = h.done(run.run)
    with h.timed(f"a vehicle's engine killed {context}, to the next committed round"):
        h.until(lambda: h.done(run.run) > now, f"a round: {run.process.text}")
    run.finish()
    assert h.sha_of(run.run) == reference


def _ends(run: Run) -> list[dict[str, Any]]:
    """How the run's segments ended, so far."""
    path = run.run / "logs" / "segments.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_vehicle_whose_part_fails_at_every_start_stops_nobody(start: Callable[..., Run]) -> None:
    """Its old list of allowed classes ends one job after another for all, until it is left out."""
    run = start(rounds=12)
    h.until(lambda: h.done(run.run) >= 1, f"a round: {run.process.text}", 300)
    resources = run.site(1) / "local" / "resources.json"
    fields = json.loads(resources.read_text())
    resources.write_text(json.dumps({**fields, "class_allow_list": ["an.older.Executor"]}))
    h.kill(h.SERVER_JOB, run.run / "fleet" / "server")
    with h.timed("a vehicle whose part fails at every start, until it is left out"):
        h.until(
            lambda: sum("site-1" in end["through"] for end in _ends(run)) >= 3,
            f"three segments that end through it: {run.process.text} {_ends(run)}",
            300,
        )
    now = h.done(run.run)
    with h.timed("from then on to the next committed round"):
        h.until(lambda: h.done(run.run) > now, f"a round: {run.process.text}")
    status = json.loads((run.run / "fleet" / "status.json").read_text())["sites"]
    assert "has failed 3 times in a row" in status["site-1"]["quarantined"]
    assert "quarantined" not in status["site-2"]
    told = (run.site(1) / "fleetseg" / "logs" / "supervisor.log").read_text()
    assert "this vehicle's part of a job has failed" in told
    run.finish()
    assert {site for end in _ends(run) for site in end["through"]} == {"site-1"}


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_dropout(share: float, start: Callable[..., Run]) -> None:
    """Trainers die at random; every round is closed by those who are left."""
    run = start(rounds=8)
    generator, over = rng.generator(0, purpose=f"dropout-{share}"), threading.Event()

    def harm() -> None:
        while not over.wait(1.0):
            for site in (1, 2):
                if generator.random() < share / 2:
                    for pid in h.processes(h.TRAINER, run.site(site)):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)

    h.until(lambda: h.done(run.run) >= 1, "the first round")
    thread = threading.Thread(target=harm)
    thread.start()
    try:
        run.finish()
    finally:
        over.set()
        thread.join()
    kinds = {f["reason"] for r in run.rounds() for f in r["failures"]}  # type: ignore[attr-defined]
    assert kinds <= {"trainer-died", "unknown-run"}
    assert len(run.rounds()) == 8


def test_stragglers(start: Callable[..., Run]) -> None:
    """One of two sites stands still for longer than the deadline, every other round."""
    run = start(rounds=6)
    run.process.kill()
    h.until(lambda: not h.tree(run.run), "everything ends with it", 30)
    run.settings = ["--set", "federation.deadline_s=12", "--set", "federation.quorum=0.3"]
    run.run = run.folder / "run-2"
    run.again()
    for after in (1, 3):
        h.until(lambda after=after: h.done(run.run) >= after, "a round")  # type: ignore[misc]
        h.kill(h.TRAINER, run.site(2), signal.SIGSTOP)
        h.until(lambda after=after: h.done(run.run) >= after + 1, "the deadline")  # type: ignore[misc]
        h.kill(h.TRAINER, run.site(2), signal.SIGCONT)
    run.finish()
    late = [r for r in run.rounds() if any(f["kind"] == "late" for f in r["failures"])]  # type: ignore[attr-defined]
    assert late
    assert all(r["seconds"] <= 12 + 3 for r in late)  # type: ignore[operator]


def test_freeze_and_thaw_of_everything(start: Callable[..., Run], reference: str) -> None:
    """Shorter than the patience, it costs nothing but its time."""
    run = start(silent_s=15.0)
    h.until(lambda: h.done(run.run) >= 1, "the first round")
    h.kill("", run.run / "fleet", signal.SIGSTOP)
    time.sleep(5)
    h.kill("", run.run / "fleet", signal.SIGCONT)
    run.finish()
    assert h.sha_of(run.run) == reference


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(folder)]
    if subprocess.run(words, check=False, capture_output=True).returncode != 0:
        pytest.skip("a small disk cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk_of_the_server(cache: Path, small_disk: Path, reference: str) -> None:
    """The run ends with the path and the bytes; with room again it ends as if nothing had been."""
    ballast = small_disk / "ballast"
    described = h.experiment(cache, ROUNDS, seconds=0.7)
    toml = h.write(described, small_disk / "experiment.toml")
    run = small_disk / "run"
    with h.nothing_left(small_disk):
        process = h.fleetseg("run", toml, "--out", run, "--json", log=small_disk / "log")
        h.until(lambda: h.done(run) >= 1, "the first round")
        with contextlib.suppress(OSError), open(ballast, "wb") as file:
            while True:
                file.write(bytes(1 << 16))
        assert process.wait() == 1
        assert "no space left on the disk" in process.text
        assert "Free some space and go on with --resume" in process.text
        ballast.unlink()
        again = h.fleetseg(
            "run", toml, "--out", run, "--resume", "--json", log=small_disk / "log-2"
        )
        assert again.wait() == 0, again.text
    assert h.sha_of(run) == reference


def test_full_disk_of_a_vehicle(start: Callable[..., Run]) -> None:
    """What cannot be listed is not sent: a typed failure, and the round goes on without it."""
    run = start(rounds=6)
    egress = run.site(1) / "fleetseg" / "logs" / "egress.jsonl"
    h.until(lambda: h.done(run.run) >= 1, "the first round")
    kept = egress.read_bytes()
    egress.unlink()
    egress.symlink_to("/dev/full")  # every write to it says that the disk is full
    h.until(lambda: h.done(run.run) >= 3, "two rounds")
    egress.unlink()
    egress.write_bytes(kept)
    run.finish()
    reasons = [f["reason"] for r in run.rounds() for f in r["failures"]]  # type: ignore[attr-defined]
    assert "disk" in reasons
    assert run.rounds()[-1]["failures"] == []
