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
from tests.experiments import tiny_experiment
from tests.fleet.nvflare import harness as h

import fleetseg
from fleetseg import rng
from fleetseg.config import SourceConfig
from fleetseg.data.synthetic.source import open_synthetic, write_dataset
from fleetseg.fleet.held_releases import current_release
from fleetseg.fleet.loopback import free_port
from fleetseg.fleet.message_log import read_message_log
from fleetseg.runs.enrolled import read_enrolled

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

    def __init__(
        self,
        cache: Path,
        folder: Path,
        rounds: int = ROUNDS,
        seconds: float = 0.7,
        **fleet: float,
    ) -> None:
        self.folder, self.run = folder, folder / "run"
        described = h.experiment(cache, rounds, seconds=seconds, **fleet)
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
    status = json.loads((run.run / "fleet" / "sites.json").read_text())["sites"]
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


def test_a_trainer_that_is_stopped_is_started_again(start: Callable[..., Run]) -> None:
    """Its signs of life go on; its work does not, and there is no deadline to end the round."""
    run = start(rounds=6, stalled_s=10.0)
    h.until(lambda: h.done(run.run) >= 1, "the first round")
    (stopped,) = h.processes(h.TRAINER, run.site(2))  # which has fewer of the vehicles
    os.kill(stopped, signal.SIGSTOP)
    now = h.done(run.run)
    with h.timed("a trainer stopped (stalled_s = 10), to the end of the round"):
        h.until(lambda: h.done(run.run) > now, f"the round goes on: {run.process.text}")
    run.finish()
    supervisor = (run.site(2) / "fleetseg" / "logs" / "supervisor.log").read_text()
    assert "trainer has made no progress for 1" in supervisor
    reasons = {f["reason"] for r in run.rounds() for f in r["failures"]}  # type: ignore[attr-defined]
    assert reasons <= {"trainer-died"}
    assert len(run.rounds()) == 6
    assert run.rounds()[-1]["failures"] == []


def test_a_job_of_the_server_that_is_stopped_is_replaced(
    start: Callable[..., Run], reference: str
) -> None:
    """As one that was killed: nobody is blamed, and the round goes on in the next segment."""
    run = start()
    h.until(lambda: h.done(run.run) >= 1, "the first round")
    (stopped,) = h.processes(h.SERVER_JOB, run.run / "fleet" / "server")
    os.kill(stopped, signal.SIGSTOP)
    now = h.done(run.run)
    with h.timed("the server's job stopped (silent_s = 6), to the next committed round"):
        h.until(lambda: h.done(run.run) > now, f"a round: {run.process.text}", 100)
    run.finish()
    assert h.sha_of(run.run) == reference
    assert [f for r in run.rounds() for f in r["failures"]] == []  # type: ignore[attr-defined]


def test_a_server_that_was_paused_blames_nobody(start: Callable[..., Run], reference: str) -> None:
    """Its machine moved, its memory was swapped out: far longer than the patience with vehicles."""
    run = start()
    h.until(lambda: h.done(run.run) >= 1, "the first round")
    stopped = [run.process.popen.pid, *h.processes("", run.run / "fleet" / "server")]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(20)
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    now = h.done(run.run)
    with h.timed("the server paused for 20 s (silent_s = 6), from then to the next round"):
        h.until(lambda: h.done(run.run) > now, f"a round: {run.process.text}")
    run.finish()
    assert h.sha_of(run.run) == reference
    assert [f for r in run.rounds() for f in r["failures"]] == []  # type: ignore[attr-defined]


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
        assert "Free some space and continue with --resume" in process.text
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


LIAR = """
import sys, threading, time
if any("worker_process" in word for word in sys.orig_argv) and "site-2" in " ".join(sys.orig_argv):
    from nvflare.apis.event_type import EventType
    from nvflare.apis.fl_context import FLContext
    from nvflare.fuel.f3.message import Message
    from fleetseg.fleet.nvflare.executor import TrainerExecutor

    honest, handle = FLContext.get_all_public_props, TrainerExecutor.handle_event
    FLContext.get_all_public_props = lambda self: {**honest(self), "__identity_name__": "site-1"}
    TrainerExecutor._busy = property(lambda self: "", lambda self, task: None)

    def order(engine, job):
        while True:
            time.sleep(1)
            for topic in ("abort", "handle_dead_job"):
                engine.get_cell().fire_and_forget(
                    channel="server_command", topic=topic, targets="server." + job,
                    message=Message(payload={}))

    def lying(self, event, fl_ctx):
        handle(self, event, fl_ctx)
        if event == EventType.START_RUN:
            words = fl_ctx.get_engine(), fl_ctx.get_job_id()
            threading.Thread(target=order, args=words, daemon=True).start()

    TrainerExecutor.handle_event = lying
"""
"""Of site-2's job: says that it is site-1 and idle, and orders the server's job to end."""


def test_a_vehicle_that_lies_harms_itself_alone(
    start: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    liar = tmp_path / "liar"
    liar.mkdir()
    (liar / "sitecustomize.py").write_text(LIAR)
    known = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", f"{liar}:{known}" if known else str(liar))
    run = start(rounds=1, seconds=4, fetch_s=3)  # who is idle for so long has lost its task
    assert run.process.wait(900) == 0, run.process.text[-3000:]
    lost = {f["client"] for r in run.rounds() for f in r["failures"]}  # type: ignore[attr-defined]
    status = json.loads((run.run / "fleet" / "status.json").read_text())
    sites = json.loads((run.run / "fleet" / "sites.json").read_text())["sites"]
    first = set(sites["site-1"]["vehicles"])
    assert not lost & first
    assert all(first <= set(r["ok"]) for r in run.rounds())  # type: ignore[call-overload]
    assert status["segment"] == 1


BELLS = """
import sys
words = " ".join(sys.orig_argv)
if "worker_process" in words:
    from fleetseg.fleet.nvflare import executor, names

    told = executor._setting
    if "site-1" in words:
        executor._setting = lambda name: 600.0 if name == names.HEART_S else told(name)
    else:
        executor._setting = lambda name: None
"""
"""Site-1 asks for tasks only when it is rung; the others know no bell, as the release before."""


def test_who_is_rung_and_who_polls_serve_side_by_side(
    start: Callable[..., Run], reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bells").mkdir()
    (tmp_path / "bells" / "sitecustomize.py").write_text(BELLS)
    known = os.environ.get("PYTHONPATH")
    bells = str(tmp_path / "bells")
    monkeypatch.setenv("PYTHONPATH", f"{bells}:{known}" if known else bells)
    run = start()
    run.finish()  # within less than any of site-1's waits would be
    assert [(r["failures"], r["quorum"]) for r in run.rounds()] == [([], True)] * ROUNDS
    assert h.sha_of(run.run) == reference


# Releases: a fleet of vehicles that are started as a user starts them


class Drivers:
    """Two vehicles with painted drives, and two releases in a registry; a server when one is."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.fleet, self.models = folder, folder / "fleet", folder / "models"
        self.toml = h.write(
            tiny_experiment(
                cache,
                partition={"holdout": 0.34},
                training={"batch_size": 2, "lr": 1e-3, "local_steps": 1},
                federation={"rounds": 2},
                evaluation={"every": 0},
                engine={"kind": "fleet", "workers": 2},
                fleet={"silent_s": 6.0, "gather_s": 40.0, "renew_s": 5.0, "wait_s": 60.0},
            ),
            folder / "experiment.toml",
        )
        source = SourceConfig(cities=("amber", "birch"), conditions=("day",), frames_per_drive=6)
        write_dataset(open_synthetic(source, (48, 64)), folder / "streets")
        words = ("--vehicles", "2", "--host", "localhost", "--port", str(free_port()))
        assert self("fleet", "init", self.fleet, *words) == 0
        self.clients: dict[str, h.Process] = {}

    def __call__(self, *words: str | Path, limit_s: float = 300) -> int:
        self.last = h.fleetseg(*words, log=self.folder / f"{words[0]}-{time.time():.0f}.log")
        return self.last.wait(limit_s)

    def start(self, car: str) -> None:
        drive = {"car-1": "amber-day", "car-2": "birch-day"}[car]
        self.clients[car] = h.fleetseg(
            *("client", "--kit", self.kit(car), "--dataset", "camvid"),
            *("--root", self.folder / "streets", "--sequences", drive),
            log=self.folder / f"{car}.log",
        )

    def stop(self) -> None:
        for client in self.clients.values():
            if client.popen.poll() is None:
                client.interrupt()
        for client in self.clients.values():
            client.wait(40)

    def kit(self, car: str) -> Path:
        return self.fleet / "kits" / car

    def driven(self, car: str) -> int:
        held = current_release(self.kit(car) / "fleetseg" / "models")
        return 0 if held is None else held.number

    def status(self) -> dict[str, Any]:
        assert self("fleet", "status", "--fleet", self.fleet, "--json") == 0
        sites = json.loads(self.last.text.splitlines()[-1])["sites"]
        return {name: site.get("drives", {}).get("release") for name, site in sites.items()}


@pytest.fixture
def drivers(cache: Path, tmp_path: Path) -> Iterator[Drivers]:
    with h.nothing_left(tmp_path):
        made = Drivers(tmp_path, cache)
        try:
            yield made
        finally:
            made.stop()


def test_a_fleet_trains_judges_and_drives_what_it_has_judged(drivers: Drivers) -> None:
    """From a run over the network to vehicles that drive its model, one of them away at first."""
    run, fleet, models = drivers.folder / "run", drivers.fleet, drivers.models
    publish = ("fleet", "publish", "--fleet", fleet, "--models", models)
    for car in ("car-1", "car-2"):
        drivers.start(car)
    assert drivers("server", drivers.toml, "--fleet", fleet, "--out", run) == 0, drivers.last.text
    assert (run / "report.html").is_file()
    assert [each.client for each in read_enrolled(run)] == ["car-1", "car-2"]

    with h.timed("two vehicles judge a first release, with the start of the server"):
        release = ("release", run, "--models", models, "--fleet", fleet, "--wait", "60")
        assert drivers(*release) == 0, drivers.last.text
    vehicles = json.loads((models / "0001" / "release.json").read_text())["vehicles"]
    assert vehicles == {"judged": ["car-1", "car-2"], "silent": {}, "over": "a network"}
    for car in ("car-1", "car-2"):
        lines = read_message_log(drivers.kit(car) / "fleetseg" / "logs" / "egress.jsonl")
        assert [line["fields"] for line in lines if line["kind"] == "judge"] == [["judged"]]

    drivers.clients["car-2"].interrupt()
    drivers.clients["car-2"].wait(40)
    with h.timed("a release published to one vehicle of two, with the start of the server"):
        assert drivers(*publish, "--wait", "30") == 3, drivers.last.text
    assert "car-2: away" in drivers.last.text
    assert (drivers.driven("car-1"), drivers.driven("car-2")) == (1, 0)
    assert drivers.status() == {"car-1": 1, "car-2": None}

    drivers.start("car-2")  # and it gets the release from the server of the next run
    again = ("server", drivers.toml, "--fleet", fleet, "--out", drivers.folder / "next")
    assert drivers(*again, "--set", "federation.rounds=4") == 0, drivers.last.text
    h.until(lambda: drivers.driven("car-2") == 1, drivers.clients["car-2"].text)
    assert drivers.status() == {"car-1": 1, "car-2": 1}
    predict = ("predict", drivers.kit("car-2") / "fleetseg" / "models" / "0001")
    images = drivers.folder / "streets" / "train"
    assert drivers(*predict, images, "--out", drivers.folder / "labels") == 0, drivers.last.text
