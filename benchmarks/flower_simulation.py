"""Framework time per round in one process, beside Flower's simulation on Ray, without training.

    python3.11 -m venv /tmp/flwr-venv
    /tmp/flwr-venv/bin/pip install "flwr[simulation]==1.41.0"
    python benchmarks/flower_simulation.py --flower-python /tmp/flwr-venv/bin/python

Both carry a model of 13.5 MB to each client and back and average the results. Ours loads it into
the network, reads the change, checks and folds it. Flower's client returns the arrays it received:
strategy FedAvg, no evaluation, a SuperLink in simulation mode with defaults otherwise. Flower's
first round, which starts Ray, is not counted. With --unpack its client converts the arrays to numpy
and back, as training would have to; by default no client reads them. About three minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import torch

import rounds
from fleet import make_model
from fleetseg.federation.tensors import layout_of

ARRAYS = 50
AIMS = {20: 10.0, 100: 30.0}
PATIENCE_S = 300.0  # for one run of Flower
MARK = "fleetseg-benchmark"
PROJECT = """
[project]
name = "noop"
version = "1.0.0"
description = "clients that return what they got"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fleetseg"

[tool.flwr.app.components]
serverapp = "noop.server:app"
clientapp = "noop.client:app"

[tool.flwr.app.config]
rounds = 2
clients = 2
floats = 1000
arrays = 10
unpack = false
"""
SERVER = f"""
import time

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid, context):
    config = context.run_config
    generator = np.random.default_rng(0)
    values = generator.normal(0, 0.05, config["floats"]).astype(np.float32)
    parts = np.array_split(values, config["arrays"])
    arrays = ArrayRecord({{f"layer-{{i}}": Array(part) for i, part in enumerate(parts)}})

    def tell(round_, arrays):  # called before the first round and after each
        print("{MARK}", round_, time.monotonic(), flush=True)

    strategy = FedAvg(
        fraction_evaluate=0.0,
        min_train_nodes=config["clients"],
        min_available_nodes=config["clients"],
    )
    strategy.start(
        grid=grid, initial_arrays=arrays, num_rounds=config["rounds"], evaluate_fn=tell
    )
"""
CLIENT = """
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    arrays = message.content["arrays"]
    if context.run_config["unpack"]:
        arrays = ArrayRecord({key: Array(array.numpy()) for key, array in arrays.items()})
    records = {
        "arrays": arrays,
        "metrics": MetricRecord({"num-examples": 1}),
    }
    return Message(content=RecordDict(records), reply_to=message)
"""


def ours(clients: int, num_rounds: int) -> list[float]:
    """Seconds of each of our rounds."""
    return rounds.federated(make_model(), clients, num_rounds)


def flower(
    python: Path, clients: int, num_rounds: int, floats: int, *, unpack: bool
) -> list[float]:
    """Seconds of each of Flower's rounds."""
    with tempfile.TemporaryDirectory(prefix="fsb-", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        app = root / "app"
        for name, text in (
            ("pyproject.toml", PROJECT),
            ("noop/__init__.py", ""),
            ("noop/server.py", SERVER),
            ("noop/client.py", CLIENT),
        ):
            (app / name).parent.mkdir(parents=True, exist_ok=True)
            (app / name).write_text(text)
        config = f"rounds={num_rounds} clients={clients} floats={floats} arrays={ARRAYS}"
        config += f" unpack={str(unpack).lower()}"
        output = _run(python, root, app, clients, config)
    moments = [float(line.split()[-1]) for line in output.splitlines() if MARK in line]
    if len(moments) != num_rounds + 1:
        raise SystemExit(
            f"Flower completed {len(moments) - 1} of {num_rounds} rounds:\n{output[-4000:]}"
        )
    return [later - earlier for earlier, later in pairwise(moments)]


def _run(python: Path, root: Path, app: Path, clients: int, config: str) -> str:
    """Run the app on a SuperLink of its own; returns the output of all its processes."""
    address = f"127.0.0.1:{_free_port()}"
    home = root / "home"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "sim"\n\n[superlink.sim]\naddress = "{address}"\ninsecure = true\n'
    )
    environment = {
        **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(root / "ray"),
        "TMPDIR": str(root),
        "OMP_NUM_THREADS": "1",
        MARK.replace("-", "_").upper(): str(root),  # marks all its processes
    }
    host, port = address.split(":")
    options = ["--insecure", "--simulation", "--host", host, "--port", port]
    options += ["--database", str(root / "sim.db"), "--disable-runtime-dependency-installation"]
    log = root / "superlink.log"
    with open(log, "wb") as file:
        link = subprocess.Popen(
            [python.parent / "flower-superlink", *options],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=root,
            start_new_session=True,
        )
        try:
            _wait_for(int(port))
            command = [python.parent / "flwr", "run", str(app), "sim", "--stream"]
            command += ["--federation-config", f"num-supernodes={clients}", "-c", config]
            done = subprocess.run(
                command,
                env=environment,
                cwd=root,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
        finally:
            _end(link, environment)
    output = done.stdout
    # The server app's output reaches one of the two.
    return output if MARK in output else output + log.read_text(errors="replace")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.2)
    raise SystemExit("Flower's SuperLink does not answer")


def _end(link: subprocess.Popen[bytes], environment: Mapping[str, str]) -> None:
    """End the SuperLink and all processes that it has started, Ray's included."""
    link.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        link.wait(timeout=20)
    name = MARK.replace("-", "_").upper()
    mark = f"{name}={environment[name]}".encode()
    for number in (signal.SIGTERM, signal.SIGKILL):
        until_s = time.monotonic() + 5
        while (left := list(_started_with(mark))) and time.monotonic() < until_s:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(0.5)
    link.wait()


def _started_with(mark: bytes) -> Iterator[int]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    yield int(folder.name)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flower-python", type=Path, required=True)
    parser.add_argument("--clients", type=int, nargs="+", default=[20, 100])
    parser.add_argument("--rounds", type=int, default=5, help="measured, after one warm-up round")
    parser.add_argument(
        "--unpack",
        action="store_true",
        help="Flower's client converts the arrays to numpy and back",
    )
    parser.add_argument("--core", type=int, default=-1, help="run both on this core only")
    options = parser.parse_args()
    if options.core >= 0:
        os.sched_setaffinity(0, {options.core})  # inherited by all child processes
    python = options.flower_python.absolute()  # not resolved: a venv's python is a link
    if not shutil.which(python.parent / "flower-superlink"):
        sys.exit(f"no Flower beside {python}: see the first lines of {__file__}")
    version = "import flwr, ray; print('flwr', flwr.__version__, 'ray', ray.__version__)"
    told = subprocess.run([python, "-c", version], capture_output=True, text=True, check=True)
    torch.set_num_threads(1)
    floats = layout_of(make_model()).num_floats
    print(f"{told.stdout.strip()}; {floats:,} float32 values, {4 * floats / 1e6:.2f} MB")
    print("clients   what       s/round: median     min     max   first round")
    for clients in options.clients:
        compare(python, clients, options.rounds, floats, unpack=options.unpack)
    print(f"load average at the end, over 15 minutes: {os.getloadavg()[2]:.1f}")


def compare(python: Path, clients: int, num_rounds: int, floats: int, *, unpack: bool) -> None:
    """Measure both with a number of clients, and print them."""
    mine_s = ours(clients, num_rounds + 1)
    _print(clients, "fleetseg", mine_s)
    others_s = flower(python, clients, num_rounds + 1, floats, unpack=unpack)
    _print(clients, "Flower", others_s)
    ratio = statistics.median(others_s[1:]) / statistics.median(mine_s[1:])
    aim = f" (aim >= {AIMS[clients]:.0f})" if clients in AIMS else ""
    print(f"{clients:7d}   {ratio:.1f} times faster{aim}", flush=True)


def _print(clients: int, what: str, seconds: Sequence[float]) -> None:
    counted = seconds[1:]
    print(
        f"{clients:7d}   {what:18s} {statistics.median(counted):9.3f} {min(counted):7.3f}"
        f" {max(counted):7.3f} {seconds[0]:13.3f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
