"""Time per round and memory of a fleet whose vehicles do nothing, beside NVFlare's own FedAvg.

    python benchmarks/fleet.py

Server and vehicles are real processes on this machine, connected by mutual TLS over loopback. Ours:
the fleet engine, every reply checked and folded, and a trainer that answers at once with a prepared
update. Theirs: the job that NVFlare's NumpyFedAvgRecipe exports, with its defaults, one array with
the same number of float32 values, and a client script that returns what it received. Both use the
certificates and processes of a fleet made by `fleetseg fleet init`; theirs runs with NVFlare's own
site settings, because ours allow only our own classes. About four minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Torch and the rest are imported where they are used: this file is also the idle trainer.
from fleetseg.fleet.sockets import ConnectionLost, Listener

if TYPE_CHECKING:
    from fleetseg.federation.records import RoundRecord

WARM_UP = 3  # rounds before the counted ones
ROUND = "99999999"  # placeholder for the round in a prepared update; JSON allows spaces there
AIMS_S = {2: 1.0, 4: 2.0}
AIM_RATIO, AIM_IDLE_MB = 2.0, 120.0
PATIENCE_S = 420.0  # for one fleet, start to end
ROLES = {  # text in a command line -> role of the process
    "fleetseg.fleet.vehicle.supervisor": "supervisor",
    "client_train": "vehicle",
    "worker_process": "vehicle job",
    "server_train": "server",
    "runner_process": "server job",
    "--trainer": "trainer",
}
CLIENT_SCRIPT = """
import nvflare.client as flare

flare.init()
while flare.is_running():
    model = flare.receive()
    if model is None:
        break
    steps = {"NUM_STEPS_CURRENT_ROUND": 1}
    flare.send(flare.FLModel(params=model.params, params_type=model.params_type, meta=steps))
"""


class KeepNothing:
    """A log of rounds that writes nothing: checkpoints are measured separately."""

    def __init__(self) -> None:
        self.records: list[RoundRecord] = []

    def commit(self, state: object, record: RoundRecord) -> None:
        """Keep the record."""
        self.records.append(record)

    def publish(self, record: RoundRecord) -> None:
        """Do nothing: no round is scored."""


def make_model() -> Any:
    """BiSeNetV2 for 19 classes without any auxiliary head: 3.37 M float32 values, 13.5 MB."""
    import torch

    from fleetseg.models.bisenetv2 import BiSeNetV2
    from fleetseg.models.build import wrap

    net = BiSeNetV2(19)
    net.boosters, net.aux = torch.nn.ModuleList(), torch.nn.Identity()  # never run here
    return wrap(net, 19)


# Ours


def ours(root: Path, vehicles: int, num_rounds: int) -> dict[str, Any]:
    """Run rounds of our engine; returns the measurements."""
    import torch

    from fleetseg.data.labels import label_space
    from fleetseg.experiment_file import make_experiment
    from fleetseg.federation import rounds
    from fleetseg.federation.checkpoint import ServerState
    from fleetseg.federation.plan import Plan
    from fleetseg.federation.sharing import Exchange
    from fleetseg.federation.tensors import layout_of, read_state
    from fleetseg.federation.wire import PlainCodec
    from fleetseg.fleet.loopback import free_port
    from fleetseg.fleet.nvflare.provision import create_fleet
    from fleetseg.fleet.server.enrolment import RunSpec
    from fleetseg.fleet.server.serve import serving
    from fleetseg.fleet.subprocesses import start_child, stop

    torch.set_num_threads(1)
    experiment = make_experiment(
        {
            "data": {"label_space": "cityscapes19"},
            "federation": {"rounds": num_rounds},
            "evaluation": {"every": 0},
            "fleet": {"min_vehicles": vehicles, "segment_rounds": num_rounds + 1},
        }
    )
    model = make_model()
    layout = layout_of(model)
    state = read_state(model, layout)
    space = label_space("cityscapes19")
    names = [f"car-{i + 1}" for i in range(vehicles)]
    fleet = create_fleet(root / "fleet", "localhost", free_port(), names)
    exchange = Exchange.of(layout)
    spec = RunSpec("benchmark", experiment, exchange, space, PlainCodec(layout))
    log, started_s = KeepNothing(), time.monotonic()
    with contextlib.ExitStack() as stack:
        for name in names:
            command = _prepare_vehicle(fleet.kit(name), name, layout, space.num_classes)
            supervisor = start_child(command, log=root / f"{name}.log", environment={})
            stack.callback(stop, supervisor, 15.0)
        engine = stack.enter_context(serving(fleet, spec, root / "run"))
        engine.available()
        ready_s = time.monotonic() - started_s
        plan = Plan(experiment, exchange)
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before_mb = memory_of(os.getpid())[0]
        rounds.run(plan, engine, ServerState(0, state), log, rounds.Watcher())
        end_mb, peak_mb = memory_of(os.getpid())
    failures = [failure for record in log.records for failure in record.failures]
    if failures:
        raise RuntimeError(f"replies were lost: {failures[:4]}")
    return {
        "seconds": [record.seconds for record in log.records],
        "ready_s": ready_s,
        "before_mb": before_mb,
        "end_mb": end_mb,
        "peak_mb": peak_mb,
        "model_mb": 4 * layout.num_floats / 2**20,
        "bytes_up": log.records[-1].bytes_up,
        "floats": layout.num_floats,
        "vehicle_ms": _work_of_a_vehicle(model, root),
    }


def _prepare_vehicle(kit_folder: Path, name: str, layout: Any, num_classes: int) -> list[str]:
    """Write the idle trainer's answers and a supervisor's plan that runs it."""
    import torch

    from fleetseg.federation.messages import Enrolment, Update
    from fleetseg.federation.tensors import ModelState
    from fleetseg.federation.wire import encode_update
    from fleetseg.fleet.nvflare.kit import read_kit, supervisor_command
    from fleetseg.fleet.protocol import write_enrolments

    kit = read_kit(kit_folder)
    command = supervisor_command(kit)
    enrolment = Enrolment(name, 10, num_classes, (1,) * num_classes)
    told = {"enrolments": write_enrolments({name: enrolment}), "machine": {}}
    (kit.own / "hello-answer.json").write_text(json.dumps(told))
    # Random, because compression on the way would favour an update of zeros.
    values_F = 1e-4 * torch.randn(layout.num_floats)
    change = ModelState(values_F, torch.ones(layout.num_counters).long())
    update = Update(int(ROUND), name, change, 10, num_classes, 1, 10, 0.5)
    (kit.own / "update.bin").write_bytes(encode_update(update, layout))
    path = kit.own / "plan.json"
    plan = json.loads(path.read_text())
    trainer = plan["children"]["trainer"]
    socket = trainer["command"][-1]
    trainer["command"] = [sys.executable, __file__, "--trainer", str(kit.own), socket]
    path.write_text(json.dumps(plan))
    return command


def idle_trainer(folder: Path, socket: Path) -> None:
    """Answer as fleetseg.fleet.vehicle.trainer does, without torch and without training."""
    hello = json.loads((folder / "hello-answer.json").read_text())
    update = bytearray((folder / "update.bin").read_bytes())
    at = update.index(ROUND.encode())
    with Listener(socket) as door:
        while door.path.exists():
            link = door.accept(timeout_s=1.0)
            if link is None:
                continue
            with contextlib.closing(link), contextlib.suppress(ConnectionLost):
                while (message := link.receive()) is not None:
                    header = message[0]
                    if header["what"] == "hello":
                        link.send(hello)
                        continue
                    update[at : at + len(ROUND)] = str(header["round"]).ljust(len(ROUND)).encode()
                    link.send({"update": header["round"]}, memoryview(update))


def _work_of_a_vehicle(model: Any, root: Path) -> float:
    """Milliseconds of a real trainer's work in a round, besides training and the network."""
    from unittest import mock

    from fleetseg.experiment_file import make_experiment
    from fleetseg.federation.client import Client, LocalRuntime
    from fleetseg.federation.messages import Broadcast, Enrolment, Update
    from fleetseg.federation.sharing import Exchange
    from fleetseg.federation.tasks import train as train_task
    from fleetseg.federation.tensors import layout_of, read_state
    from fleetseg.federation.wire import decode_broadcast, encode_broadcast, encode_update
    from fleetseg.fleet.message_log import MessageLog
    from fleetseg.learning.hardware import resolve
    from fleetseg.learning.local import LocalResult
    from fleetseg.learning.objectives import LocalCost

    layout = layout_of(model)
    exchange = Exchange.of(layout)
    runtime = LocalRuntime(model, exchange, make_experiment({}), resolve("cpu", "fp32"), 19)
    client = Client(Enrolment("car", 10, 100, (100,)), ())
    message = encode_broadcast(Broadcast(1, read_state(model, layout)), layout)
    message_log = MessageLog(root / "egress.jsonl")
    seconds = []
    with mock.patch.object(train_task, "train_locally") as train:
        train.return_value = LocalResult(LocalCost(1, 0.1), 10, 0.5, {}, {}, {})
        for _ in range(7):
            started_s = time.perf_counter()
            update = train_task.client_update(decode_broadcast(message, layout), client, runtime)
            assert isinstance(update, Update)
            message_log.append("train", "car", {"update": 1}, encode_update(update, layout))
            seconds.append(time.perf_counter() - started_s)
    return 1e3 * statistics.median(seconds)


# Theirs


def theirs(root: Path, vehicles: int, num_rounds: int, floats: int) -> dict[str, Any]:
    """Run rounds of NVFlare's FedAvg; returns the measurements."""
    from nvflare.fuel.flare_api.flare_api import new_secure_session

    from fleetseg.fleet.loopback import free_port
    from fleetseg.fleet.nvflare.network import client_command, server_command
    from fleetseg.fleet.nvflare.provision import OPERATOR, create_fleet
    from fleetseg.fleet.subprocesses import start_child, stop

    names = [f"car-{i + 1}" for i in range(vehicles)]
    fleet = create_fleet(root / "fleet", "localhost", free_port(), names)
    _undress(fleet.server)
    for name in names:
        _undress(fleet.kit(name))
    job = _recipe_job(root, vehicles, num_rounds, floats)
    quiet = {"OMP_NUM_THREADS": "1", "GRPC_VERBOSITY": "NONE"}
    until_s = time.monotonic() + PATIENCE_S - 60
    with contextlib.ExitStack() as stack:
        commands = {fleet.server: server_command(fleet.server)}
        commands |= {fleet.kit(name): client_command(fleet.kit(name), name) for name in names}
        for folder, command in commands.items():
            process = start_child(
                command, log=root / f"{folder.name}.log", environment=quiet, cwd=folder
            )
            stack.callback(stop, process, 8.0)
        session = new_secure_session(OPERATOR, str(fleet.operator), timeout=60.0)
        stack.callback(_quietly, session.close)
        _wait(lambda: len(session.get_system_info().client_info) == vehicles, until_s)
        job_id = session.submit_job(str(job))
        log = fleet.server / job_id / "log.txt"
        _wait(lambda: log.is_file() and "Finished FedAvg" in log.read_text(), until_s)
        text = log.read_text()
    seconds = [later - earlier for earlier, later in pairwise(_moments(text))]
    lost = [line for line in text.splitlines() if re.search(r"error|warning", line, re.IGNORECASE)]
    if len(seconds) != num_rounds:
        raise RuntimeError(f"{len(seconds)} rounds in the log of {num_rounds}: {lost[:3]}")
    return {"seconds": seconds, "warnings": len(lost)}


def _undress(site: Path) -> None:
    """Give a site NVFlare's own settings and permissions; its storage stays below `site`."""
    local = site / "local"
    text = (local / "resources.json.default").read_text()
    (local / "resources.json").write_text(text.replace("/tmp/nvflare", str(site / "stored")))
    shutil.copy(local / "authorization.json.default", local / "authorization.json")


def _recipe_job(root: Path, vehicles: int, num_rounds: int, floats: int) -> Path:
    import numpy as np
    from nvflare.app_common.np.recipes import NumpyFedAvgRecipe

    start = root / "start.npy"
    np.save(start, np.random.default_rng(0).normal(0, 0.05, floats).astype(np.float32))
    script = root / "client.py"
    script.write_text(CLIENT_SCRIPT)
    recipe = NumpyFedAvgRecipe(
        name="benchmark",
        initial_ckpt=str(start),
        min_clients=vehicles,
        num_rounds=num_rounds,
        train_script=str(script),
    )
    recipe.export(str(root / "job"))
    return root / "job" / "benchmark"


def _moments(text: str) -> list[float]:
    """Times at which each round began and the last one ended, from the log of the server's job."""
    moments: list[float] = []
    now_s = 0.0
    for line in text.splitlines():  # a message may be some lines after its time
        if re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}", line):
            now_s = datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").timestamp()
        if re.search(r"Round \d+ started|Finished FedAvg", line):
            moments.append(now_s)
    return moments


def _wait(done: Callable[[], bool], until_s: float) -> None:
    while not done():
        if time.monotonic() > until_s:
            raise TimeoutError("the job did not end in time")
        time.sleep(0.5)


def _quietly(action: Callable[[], object]) -> None:
    with contextlib.suppress(Exception):
        action()


# Both


def memory_of(pid: int) -> tuple[float, float]:
    """Resident MiB of a process: current and peak."""
    text = Path(f"/proc/{pid}/status").read_text()
    kib = [re.search(rf"{field}:\s+(\d+)", text) for field in ("VmRSS", "VmHWM")]
    now, most = (int(found.group(1)) / 1024 if found else 0.0 for found in kib)
    return now, most


def processes(root: Path) -> Iterator[tuple[int, str]]:
    """Find the processes whose command names something below `root`: (pid, role)."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            role = next((role for text, role in ROLES.items() if text in command), "")
            if role and str(root) in command:
                yield int(folder.name), role


class Memory:
    """Follows the memory of a fleet's processes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._most: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._idle: dict[str, float] = {}  # means over vehicles, before the first job

    def look(self) -> None:
        """Read the current memory of every process."""
        found: dict[str, list[tuple[float, float]]] = {}
        for pid, role in processes(self._root):
            with contextlib.suppress(OSError):
                found.setdefault(role, []).append(memory_of(pid))
        for role, sizes in found.items():
            self._last[role] = max(now for now, _ in sizes)
            self._most[role] = max(self._most.get(role, 0.0), *(most for _, most in sizes))
            if "vehicle job" not in self._most:
                self._idle[role] = statistics.mean(now for now, _ in sizes)

    def peak(self, role: str) -> float:
        """Peak of any process with this role, in MiB."""
        return self._most.get(role, 0.0)

    def last(self, role: str) -> float:
        """Last reading of the largest process with this role, in MiB."""
        return self._last.get(role, 0.0)

    def idle(self, role: str) -> float:
        """Mean of the processes with this role before the first job, in MiB."""
        return self._idle.get(role, 0.0)


def measure(which: str, vehicles: int, num_rounds: int, floats: int) -> tuple[Any, Memory]:
    """Measure in a separate process; nothing is left running or on disk."""
    root = Path(tempfile.mkdtemp(prefix="fsb-")).resolve()
    command = [sys.executable, __file__, "--measure", which, "--root", str(root)]
    command += ["--vehicles", str(vehicles), "--rounds", str(num_rounds), "--floats", str(floats)]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(root), "TMPDIR": str(root)}
    memory, until_s = Memory(root), time.monotonic() + PATIENCE_S
    output = root / "output.txt"
    with open(output, "wb") as file:
        child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        try:
            while child.poll() is None and time.monotonic() < until_s:
                memory.look()
                time.sleep(0.5)
            if child.returncode != 0:
                tail = output.read_text(errors="replace")[-3000:]
                raise SystemExit(f"{which}, {vehicles} vehicles: failed or too slow\n{tail}")
            return json.loads(output.read_text().splitlines()[-1]), memory
        finally:
            if child.poll() is None:
                child.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(timeout=30)
                child.kill()
                child.wait()
            _sweep(root)
            shutil.rmtree(root, ignore_errors=True)


def _sweep(root: Path) -> None:
    """Wait for the fleet's processes to end, then kill those that are left."""
    until_s = time.monotonic() + 15
    while (left := list(processes(root))) and time.monotonic() < until_s:
        time.sleep(0.5)
    for pid, role in left:
        print(f"had to kill a left-over process: {role}, {pid}", file=sys.stderr)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=18, help="measured, after 3 warm-up rounds")
    parser.add_argument("--nvflare-rounds", type=int, default=8, help="including one warm-up round")
    parser.add_argument("--vehicles", type=int, nargs="+", default=[2, 4])
    for hidden in ("--measure", "--root"):
        parser.add_argument(hidden, default="", help=argparse.SUPPRESS)
    parser.add_argument("--floats", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--trainer", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.trainer:
        idle_trainer(*options.trainer)
    elif options.measure:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything is stopped
        work = ours if options.measure == "ours" else theirs
        extra = () if options.measure == "ours" else (options.floats,)
        result = work(Path(options.root), options.vehicles[0], options.rounds, *extra)
        print("\n" + json.dumps(result), flush=True)
    else:
        compare(options.vehicles, options.rounds, options.nvflare_rounds)


def compare(sizes: list[int], num_rounds: int, nvflare_rounds: int) -> None:
    """Measure both with fleets of these sizes."""
    print("vehicles   what              s/round: median    min    max   rounds")
    notes = []
    for vehicles in sizes:
        mine, memory = measure("ours", vehicles, num_rounds + WARM_UP, 0)
        mine_s = mine["seconds"][WARM_UP:]
        _print_seconds(vehicles, "fleetseg", mine_s, _aim(AIMS_S.get(vehicles)))
        others, other_memory = measure("theirs", vehicles, nvflare_rounds, mine["floats"])
        others_s = others["seconds"][1:]
        _print_seconds(vehicles, "NVFlare FedAvg", others_s, "")
        ratio = statistics.median(others_s) / statistics.median(mine_s)
        print(f"{vehicles:8d}   {ratio:.1f} times faster (aim >= {AIM_RATIO:.0f})", flush=True)
        notes += _notes(vehicles, mine, memory, other_memory)
    print(*notes, sep="\n")
    print(f"load average at the end, over 15 minutes: {os.getloadavg()[2]:.1f}")


def _print_seconds(vehicles: int, what: str, seconds: list[float], aim: str) -> None:
    low, high, middle = min(seconds), max(seconds), statistics.median(seconds)
    print(
        f"{vehicles:8d}   {what:24s} {middle:9.2f}  {low:6.2f} {high:6.2f} {len(seconds):8d}{aim}",
        flush=True,
    )


def _aim(seconds: float | None) -> str:
    return f"   (aim <= {seconds:.1f})" if seconds else ""


def _notes(vehicles: int, mine: Any, memory: Memory, other_memory: Memory) -> list[str]:
    above = [mine[key] - mine["before_mb"] for key in ("peak_mb", "end_mb")]
    copies = above[0] / mine["model_mb"]
    idle = [memory.idle(role) for role in ("supervisor", "vehicle")]
    each = [(m.peak(role), m.last(role)) for m in (memory, other_memory) for role in SERVERS]
    first = mine["seconds"][0]
    return [
        f"{vehicles} vehicles, {mine['floats']:,} float32 values; memory in MiB:",
        f"  aggregating process  {mine['before_mb']:.0f} before round 1, then +{above[0]:.1f} at"
        f" its peak ({copies:.1f} models), +{above[1]:.1f} at the end",
        "  NVFlare's server     peak {:.0f}, at the end {:.0f}; its job {:.0f}, {:.0f}".format(
            *each[0], *each[1]
        ),
        "  with its own FedAvg  peak {:.0f}, at the end {:.0f}; its job {:.0f}, {:.0f}".format(
            *each[2], *each[3]
        ),
        f"  idle vehicle         {sum(idle):.0f} without its trainer (supervisor {idle[0]:.0f},"
        f" NVFlare {idle[1]:.0f}; aim <= {AIM_IDLE_MB:.0f}); a job adds"
        f" {memory.peak('vehicle job'):.0f}",
        f"  all vehicles ready after {mine['ready_s']:.0f} s, first round {first:.2f} s;"
        f" not measured in rounds: {mine['vehicle_ms']:.0f} ms of a trainer's other work",
    ]


SERVERS = ("server", "server job")


if __name__ == "__main__":
    main()
