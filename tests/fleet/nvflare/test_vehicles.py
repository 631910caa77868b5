"""Vehicles that crash, freeze, vanish, return, or are not who they say they are: real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.fleet.nvflare import harness as h

from fleetseg.config import SourceConfig
from fleetseg.data.synthetic.source import open_synthetic, write_dataset
from fleetseg.fleet.message_log import read_message_log

pytestmark = pytest.mark.fleets
DRIVES = ("amber-day", "birch-day", "coral-day")


class Fleet:
    """A server and three vehicles, each with a painted drive, started as a user starts them."""

    def __init__(self, folder: Path, vehicles: int = 3, host: str = "localhost") -> None:
        self.folder, self.run = folder, folder / "run"
        self.data = folder / "streets"
        source = SourceConfig(cities=("amber", "birch", "coral"), conditions=("day",))
        write_dataset(open_synthetic(source, (48, 64)), self.data)
        self.fleet = folder / "fleet"
        made = h.fleetseg(
            *("fleet", "init", self.fleet, "--vehicles", str(vehicles), "--host", host),
            *("--port", str(free_port())),
            log=folder / "init.log",
        )
        assert made.wait() == 0, made.text
        self.server: h.Process
        self.started: list[h.Process] = []
        self.clients: dict[str, h.Process] = {}

    def start_server(self, *options: str) -> None:
        settings = {
            "federation.deadline_s": 12,
            "federation.quorum": 0.3,
            "federation.max_failed_rounds": 2,
        }
        described = h.experiment(
            *(self.folder / "cache", 1000),
            **{"seconds": 1.0, "round_every_s": 2.5, "min_vehicles": 1, "wait_s": 30.0},
        )
        toml = h.write(described, self.folder / "experiment.toml")
        words = [f"--set={key}={value}" for key, value in settings.items()]
        self.server = h.fleetseg(
            *("server", "--fleet", self.fleet, toml, "--out", self.run, *words, *options),
            log=self.folder / "server.log",
            prefix=self.command("server"),
        )
        self.started.append(self.server)

    def start_client(self, car: str, kit: Path | None = None) -> h.Process:
        drive = DRIVES[int(car[-1]) - 1]
        client = h.fleetseg(
            *("client", "--kit", kit or self.kit(car), "--dataset", "camvid"),
            *("--root", self.data, "--sequences", drive),
            log=self.folder / f"{car}{'' if kit is None else '-' + kit.parent.name}.log",
            prefix=self.command(car),
        )
        self.started.append(client)
        if kit is None:
            self.clients[car] = client
        return client

    def stop(self) -> None:
        for process in self.started:
            if process.popen.poll() is None:
                process.interrupt()
        for process in self.started:
            process.wait(40)

    def command(self, host: str) -> list[str]:
        """What to put in front of a command so that it runs on a host."""
        return []

    def kit(self, car: str) -> Path:
        return self.fleet / "kits" / car

    def last(self) -> int:
        return h.done(self.run)

    def next_rounds(self, number: int) -> list[dict[str, Any]]:
        """The next whole rounds after this context."""
        start = self.last()
        h.until(lambda: self.last() >= start + number, f"{number} rounds: {self.server.text}")
        return h.committed(self.run)[start : start + number]

    def until_round(self, what: str, wanted: Any) -> dict[str, Any]:
        """Wait for a committed round, from now on, that fits."""
        start = self.last()

        def fits() -> Any:
            found = next((r for r in h.committed(self.run)[start:] if wanted(r)), None)
            assert found or self.server.popen.poll() is None, f"{what}: the server has ended"
            return found

        try:  # a fleet that starts beside two others takes minutes
            return h.until(fits, what, 300)  # type: ignore[no-any-return]
        except AssertionError as late:
            told = f"{h.rounds_of(self.run)[-3:]} {self.server.text[-2000:]}"
            raise AssertionError(f"{late} {told}") from None


def free_port() -> int:
    from fleetseg.fleet.loopback import free_port

    return free_port()


def failure(record: Mapping[str, Any], car: str) -> str:
    return next(
        (f"{f['kind']} {f['reason']}" for f in record["failures"] if f["client"] == car), ""
    )


@contextmanager
def frozen(text: str, folder: Path) -> Iterator[None]:
    h.kill(text, folder, signal.SIGSTOP)
    try:
        yield
    finally:
        h.kill(text, folder, signal.SIGCONT)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One fleet for all tests of this file, which come in this order."""
    folder = tmp_path_factory.mktemp("fleet")
    with h.nothing_left(folder):
        made = Fleet(folder)
        try:
            for car in ("car-1", "car-2", "car-3"):
                made.start_client(car)  # before there is a server: they wait for it
            made.start_server()
            made.until_round("all three serve", lambda r: r["ok"] == ["car-1", "car-2", "car-3"])
            yield made
        finally:
            made.stop()


def test_a_trainer_dies(fleet: Fleet) -> None:
    """One typed failure, and the next rounds have it again."""
    start = fleet.last()

    def failures() -> list[str]:
        return [t for r in h.committed(fleet.run)[start:] if (t := failure(r, "car-1"))]

    gone = "lost trainer-died"
    for _ in range(4):
        # Frozen first, so that it is at work when it is killed: the next round begins 2.5 s after
        # this one at most, and closes 12 s later. Killed at rest it would only be started again.
        with frozen(h.TRAINER, fleet.kit("car-1")):
            time.sleep(5)
            h.kill(h.TRAINER, fleet.kit("car-1"))
        fleet.next_rounds(1)
        if gone in failures():
            break
    assert set(failures()) <= {gone, "late deadline"}
    died = next(r for r in h.committed(fleet.run)[start:] if failure(r, "car-1") == gone)
    h.note("trainer killed: the round in which it died", died["seconds"])
    assert all(r["quorum"] for r in h.committed(fleet.run)[start:])
    fleet.until_round("car-1 serves again", lambda r: "car-1" in r["ok"])


def test_a_vehicle_freezes(fleet: Fleet) -> None:
    """Silence costs seconds; when it thaws, the same processes serve again."""
    with frozen("", fleet.kit("car-2")):
        lost = fleet.until_round("car-2 is lost", lambda r: failure(r, "car-2"))
        assert failure(lost, "car-2") == "lost silent"
        assert lost["seconds"] < 20
        h.note("vehicle frozen (silent_s = 6): the round that loses it", lost["seconds"])
        without = fleet.until_round("rounds without car-2", lambda r: "car-2" not in r["cohort"])
        assert without["seconds"] < 10
    with h.timed("vehicle thawed, to the first round with it"):
        fleet.until_round("car-2 serves again", lambda r: "car-2" in r["ok"])


def test_a_vehicle_is_slow(fleet: Fleet) -> None:
    """It gives signs of life and no update: late at the deadline, and not asked while at work."""
    with frozen(h.TRAINER, fleet.kit("car-3")):
        late = fleet.until_round("car-3 is late", lambda r: failure(r, "car-3"))
        assert failure(late, "car-3") == "late deadline"
        assert 12 <= late["seconds"] < 18
        h.note("vehicle slower than the deadline of 12 s: its round", late["seconds"])
        after = fleet.next_rounds(1)[0]
        assert "car-3" not in after["cohort"]
    fleet.until_round("car-3 serves again", lambda r: "car-3" in r["ok"])


def test_a_vehicle_is_lost_and_comes_back(fleet: Fleet) -> None:
    """A machine that is gone costs seconds; when it is back, it serves within a segment."""
    fleet.clients["car-2"].kill()
    h.until(lambda: not h.tree(fleet.kit("car-2")), "the whole machine is gone", 30)
    gone = fleet.until_round("a round without car-2", lambda r: "car-2" not in r["ok"])
    h.note("machine lost (silent_s = 6): the round that loses it", gone["seconds"])
    began_s = time.monotonic()
    fleet.start_client("car-2")
    fleet.until_round("car-2 serves again", lambda r: "car-2" in r["ok"])
    h.note("machine back (renew_s = 5), to the first round with it", time.monotonic() - began_s)
    assert time.monotonic() - began_s < 90


def test_everything_sent_is_listed(fleet: Fleet) -> None:
    """What reached the server is in the vehicles' own lists, byte for byte."""
    sent = {
        (car, line["sha256"]): line["bytes"]
        for car in fleet.clients
        for line in read_message_log(fleet.kit(car) / "fleetseg" / "logs" / "egress.jsonl")
    }
    received = read_message_log(fleet.run / "logs" / "ingress.jsonl")
    typed = [line for line in received if line["kind"] != "failure"]
    assert len(typed) > 10
    unlisted = [line for line in typed if (line["vehicle"], line["sha256"]) not in sent]
    # The engine's own pipe says that a trainer died; nothing of the trainer's went with it.
    assert all(line["fields"] == ["failure"] for line in unlisted)
    kinds = {line["kind"] for line in typed}
    assert kinds == {"hello", "train"}
    fields = {tuple(line["fields"]) for line in typed}
    assert fields <= {("enrolments", "machine"), ("update",), ("failure",)}


def test_strangers_are_refused(fleet: Fleet) -> None:
    """Each by one clear line on the side that can mend it; the run does not notice."""
    copy = fleet.folder / "stolen"
    shutil.copytree(fleet.kit("car-1"), copy, ignore=shutil.ignore_patterns("fleetseg"))
    same_kit = fleet.start_client("car-1", kit=fleet.kit("car-1"))
    thief = fleet.start_client("car-1", kit=copy)
    other = fleet.folder / "other"
    made = h.fleetseg(
        *("fleet", "init", other, "--vehicles", "1", "--host", "localhost", "--port"),
        json.loads((fleet.fleet / "fleet.json").read_text())["port"].__str__(),
        log=fleet.folder / "other.log",
    )
    assert made.wait() == 0
    foreign = fleet.start_client("car-1", kit=other / "kits" / "car-1")
    assert foreign.wait(60) == 1
    assert "is not trusted" in foreign.text or "does not trust" in foreign.text
    assert "belongs to another fleet" in foreign.text
    h.until(lambda: "in use by another process" in same_kit.text, "the second process", 60)
    h.until(lambda: "in use at another place" in thief.text, f"the copy: {thief.text}", 60)
    thief.interrupt()
    thief.wait(30)
    fleet.until_round("a round of the vehicle itself", lambda r: "car-1" in r["ok"])


def test_a_vehicle_is_revoked(fleet: Fleet) -> None:
    revoke = h.fleetseg(
        "fleet", "revoke", "car-3", "--fleet", fleet.fleet, log=fleet.folder / "revoke.log"
    )
    assert revoke.wait() == 0, revoke.text
    with h.timed("revoked, to the first round committed without it"):
        fleet.until_round("a round without car-3", lambda r: "car-3" not in r["cohort"])
    fleet.until_round("a round of the others", lambda r: r["ok"] == ["car-1", "car-2"])
    text = fleet.clients["car-3"]
    h.until(lambda: "has been revoked" in text.text, f"car-3 is told: {text.text}", 60)


def test_ctrl_c_leaves_a_usable_run(fleet: Fleet) -> None:
    status = h.fleetseg(
        "fleet", "status", "--fleet", fleet.fleet, "--json", log=fleet.folder / "status.log"
    )
    assert status.wait() == 0
    told = json.loads(status.text.splitlines()[-1])
    assert told["running"]
    assert told["revoked"] == ["car-3"]
    assert told["sites"]["car-1"]["last_round"] > 2
    assert told["sites"]["car-1"]["vehicles"]["car-1"]["images"] == 12
    fleet.server.interrupt()
    with h.timed("Ctrl-C on the server, until everything it started is gone"):
        assert fleet.server.wait(90) == 130
    assert "--resume" in fleet.server.text
    assert not h.tree(fleet.fleet / "server")
    assert (fleet.run / "model" / "model.safetensors").is_file()


def test_all_vehicles_are_lost(fleet: Fleet) -> None:
    """A bounded wait, then a clear end; the model of the last good round is there."""
    last = fleet.last()
    fleet.start_server("--resume")  # while the vehicles wait for it
    fleet.until_round("both serve the resumed run", lambda r: r["ok"] == ["car-1", "car-2"])
    assert h.committed(fleet.run)[last]["round"] == last + 1
    os.kill(fleet.clients["car-1"].popen.pid, signal.SIGTERM)
    assert fleet.clients["car-1"].wait(40) == 0
    fleet.clients["car-2"].kill()
    with h.timed("all vehicles lost (wait_s = 30), to the end of the run"):
        assert fleet.server.wait(90) == 1
    told = fleet.server.text.splitlines()[-1]
    assert told.startswith("error: "), fleet.server.text[-1000:]
    assert "--resume" in fleet.server.text
    end = h.rounds_of(fleet.run)[-1]
    assert end["reason"] == "quorum-lost"
    assert (fleet.run / "model" / "model.safetensors").is_file()
