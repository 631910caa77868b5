"""A real fleet on this machine for `fleet_scale.py`: its server, thin vehicles and their costs."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleetseg.fleet.loopback import free_port
from fleetseg.fleet.nvflare.provision import read_fleet
from fleetseg.fleet.subprocesses import start_child, stop

NAME, ROUND = "car-0000", "99999999"  # as in thin_answers, which needs nvflare to be imported
MODEL, CLASSES = "zoo:fpn/timm-tf_efficientnet_lite0", "cityscapes19"
ROLES = {"server_train": "server", "runner_process": "job"}  # in a command line -> which role
FIRST_PORT = 12_000  # vehicles listen at two ports each; below the system's ephemeral ports
TICKS = os.sysconf("SC_CLK_TCK")
ESTABLISHED = "01"  # in /proc/net/tcp


@dataclass(frozen=True)
class Sample:
    """Processor seconds and private MiB of the server's parts at one moment."""

    at_s: float
    pids: Mapping[str, int]
    cpu_s: Mapping[str, float]
    own_mb: Mapping[str, float]

    def since(self, before: Sample) -> dict[str, float]:
        """Return processor seconds of each part that ran during the whole interval."""
        same = [k for k in self.cpu_s if self.pids[k] == before.pids.get(k) and k in before.cpu_s]
        return {k: self.cpu_s[k] - before.cpu_s[k] for k in same}


class Events:
    """The events that the vehicles' processes write: when each first happened since a mark."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}
        self.first: dict[str, dict[str, float]] = {}

    def mark(self) -> None:
        """Forget all events so far."""
        self.look()
        self.first = {}

    def look(self) -> None:
        """Read new events."""
        for path in self._folder.glob("*.events"):
            with open(path, encoding="utf-8") as file:
                file.seek(self._read.get(path, 0))
                text = file.read()
            whole = text[: text.rfind("\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(whole)
            for line in whole.splitlines():
                at_s, name, what = line.split(" ", 2)
                self.first.setdefault(what, {}).setdefault(name, float(at_s))

    def count(self, what: str) -> int:
        """Number of vehicles to which the event has happened."""
        self.look()
        return len(self.first.get(what, {}))

    def last_s(self, what: str) -> float:
        """Time of the last vehicle's first such event."""
        return max(self.first[what].values())


class FleetUnderTest:
    """One fleet: its folder, its server and the processes of its vehicles."""

    def __init__(self, root: Path, vehicles: int, options: argparse.Namespace) -> None:
        self.root, self.vehicles, self._options = root, vehicles, options
        self.fleet, self.port = root / "fleet", free_port()
        self.events = Events(root)
        self.server: subprocess.Popen[bytes] | None = None
        self._groups: list[subprocess.Popen[bytes]] = []
        self._environment = {
            **{"XDG_RUNTIME_DIR": str(root), "TMPDIR": str(root), "OMP_NUM_THREADS": "1"}
        }

    def provision(self) -> None:
        """Make the fleet with our own command, or copy an existing one."""
        if self._options.fleet is None:
            self._make()
        else:
            shutil.copytree(self._options.fleet, self.fleet)
            self.port = read_fleet(self.fleet).port
        if self._options.transport:
            path = self.fleet / "server" / "local" / "comm_config.json"
            known = json.loads(path.read_text()) if path.is_file() else {}
            path.write_text(json.dumps({**known, **self._options.transport}))

    def _make(self) -> None:
        names = ",".join(f"car-{i + 1:04d}" for i in range(self.vehicles))
        words = ["--vehicles", names, "--host", "localhost", "--port", str(self.port)]
        command = [sys.executable, "-m", "fleetseg.cli", "fleet", "init", str(self.fleet), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"fleet init failed: {done.stderr[-1000:]}")

    def start_server(self, run: str, cohort: int, round_every_s: float) -> None:
        """Start `fleetseg server` for a run of its own."""
        settings = {
            "federation.cohort": min(cohort, self.vehicles),
            "fleet.round_every_s": round_every_s,
        }
        words = [f"--set={key}={value}" for key, value in settings.items()]
        words += [f"--set={text}" for text in self._options.set]
        experiment = str(self.root / "experiment.toml")
        command = [sys.executable, "-m", "fleetseg.cli", "server", "--fleet", str(self.fleet)]
        command += [experiment, "--out", str(self.root / run), "--quiet", *words]
        log = self.root / "server.log"
        self.server = start_child(command, log=log, environment=self._environment)

    def kill_server(self) -> None:
        """Kill all processes of the server at once, as when its machine fails."""
        assert self.server is not None
        for pid in [*self.parts().values(), self.server.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.server.wait()

    def start_vehicles(self) -> None:
        """Start all vehicles, several to a process."""
        kits = sorted((self.fleet / "kits").iterdir())
        most = self._options.per_process
        spread_s = max(2.0, self.vehicles / 25)  # as long as their job processes take to start
        script = Path(__file__).with_name("thin_vehicle.py")
        for number, start in enumerate(range(0, len(kits), most)):
            events = self.root / f"{number}.events"
            command = [sys.executable, str(script), *map(str, kits[start : start + most])]
            command += ["--answers", str(self.root), "--events", str(events)]
            command += ["--spread", str(spread_s), "--first-port", str(FIRST_PORT + 2 * start)]
            log = self.root / f"vehicles-{number}.log"
            self._groups.append(start_child(command, log=log, environment=self._environment))

    def close(self) -> None:
        """End everything; processes that outlive their parent are killed."""
        if self.server is not None and self.server.poll() is None:
            self.server.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.server.wait(timeout=30)
            stop(self.server, patience_s=0)
        for group in self._groups:
            stop(group, patience_s=2)
        for pid in pids_below(self.root):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def parts(self) -> dict[str, int]:
        """Find NVFlare's processes of the server: role -> pid."""
        return {
            role: pid
            for pid, command in pids_below(self.fleet / "server").items()
            for text, role in ROLES.items()
            if text in command
        }

    def sample(self) -> Sample:
        """Measure the server's parts."""
        assert self.server is not None
        pids = {**self.parts(), "fleetseg": self.server.pid}
        cpu_s, own_mb = {}, {}
        for role, pid in pids.items():
            with contextlib.suppress(OSError, ValueError):
                words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                cpu_s[role] = (int(words[11]) + int(words[12])) / TICKS
                # Without file mappings such as torch, of which there is one copy.
                status = Path(f"/proc/{pid}/status").read_text()
                own_mb[role] = int(status.partition("RssAnon:")[2].split()[0]) / 1024
        return Sample(time.monotonic(), pids, cpu_s, own_mb)

    def connections(self) -> int:
        """Count the connections at the server's port, as `ss` would."""
        count = 0
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                words = line.split()
                local = int(words[1].rpartition(":")[2], 16)
                count += local == self.port and words[3] == ESTABLISHED
        return count

    def rounds(self, run: str) -> list[dict[str, Any]]:
        """Read the committed rounds of a run."""
        with contextlib.suppress(OSError, ValueError):
            lines = (self.root / run / "rounds.jsonl").read_text().splitlines()
            return [fields for line in lines if "event" not in (fields := json.loads(line))]
        return []

    def until(self, what: str, done: Callable[[], int], wanted: int) -> bool:
        """Wait until a number is reached, and show it; returns whether it was reached in time."""
        end_s, shown = time.monotonic() + self._options.patience, -1
        while (number := done()) < wanted and time.monotonic() < end_s:
            if self.server is not None and self.server.poll() is not None:
                text = (self.root / "server.log").read_text(errors="replace")
                print(f"the server has exited:\n{text[-1500:]}", flush=True)
                return False
            if number != shown:
                shown = number
                if sys.stderr.isatty():
                    print(f"\r{what}: {number} of {wanted} ", end="", file=sys.stderr, flush=True)
            time.sleep(0.1)
        if number < wanted:
            print(f"{self.vehicles:6d}  {what}: only {number} of {wanted} in time", flush=True)
        return number >= wanted


def pids_below(folder: Path) -> dict[int, str]:
    """Find other processes whose command names something below a folder: pid -> command."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                if str(folder) in (command := words.decode(errors="replace")):
                    found[int(entry.name)] = command
    return found


def prepare_answers(root: Path) -> float:
    """Write the experiment and the vehicles' answers; returns the MB of an update."""
    import torch

    from fleetseg.data.labels import label_space
    from fleetseg.experiment_file import make_experiment, to_toml
    from fleetseg.federation.messages import Enrolment, Update
    from fleetseg.federation.tensors import ModelState, layout_of
    from fleetseg.federation.wire import encode_update
    from fleetseg.fleet.protocol import write_enrolments
    from fleetseg.models.build import build_model

    experiment = make_experiment(
        {
            "name": "scale",
            "data": {"label_space": CLASSES},
            "model": {"name": MODEL},
            "federation": {"rounds": 10_000},
            "evaluation": {"every": 0},
            # All must be in the first segment, however slowly this machine starts them.
            "fleet": {"gather_s": 300.0, "wait_s": 600.0},
        }
    )
    (root / "experiment.toml").write_text(to_toml(experiment))
    classes = label_space(CLASSES).num_classes
    layout = layout_of(build_model(MODEL, classes, seed=0))
    enrolment = Enrolment(NAME, 10, 10 * classes, (10,) * classes)
    told = {"enrolments": write_enrolments({NAME: enrolment}), "machine": {}}
    (root / "hello.json").write_text(json.dumps(told))
    # Random, because compression on the way would favour an update of zeros.
    values_F = 1e-6 * torch.randn(layout.num_floats)
    change = ModelState(values_F, torch.ones(layout.num_counters).long())
    update = encode_update(Update(int(ROUND), NAME, change, 10, 10, 1, 10, 0.5), layout)
    (root / "update.bin").write_bytes(update)
    return len(update) / 1e6
