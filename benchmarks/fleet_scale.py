"""Costs of a fleet's server with tens to hundreds of vehicles connected, on this machine.

    python benchmarks/fleet_scale.py --vehicles 50,200
    python benchmarks/fleet_scale.py --vehicles 500 --rounds 4 --per-process 100
    python benchmarks/fleet_scale.py --vehicles 3 --cohorts 2,2 --rounds 2 --idle 8   # a try-out

The server is the real one: `fleetseg fleet init`, then `fleetseg server`, which starts NVFlare's
two processes and folds every update. Vehicles are thin (`thin_vehicle.py`): real kits,
certificates, connections, heartbeats and tasks, many in one process, without torch; each answers at
once with an update of small numbers, as large as the model (13.9 MB). For each number of vehicles:

1. the server starts, then the vehicles, and rounds of the first cohort follow each other;
2. the server is killed, all its processes at once, and another one is started on the same fleet,
   with rounds of the second cohort at intervals, between which the fleet is idle.

Vehicles run on this machine, too, so times by the clock are upper bounds; seconds of processor time
are the server's own. Parts of the server: NVFlare's process (it has the vehicles' connections), the
job process (it hands out tasks and receives answers) and fleetseg's process, which folds. Needs
Linux.
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
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet_under_test import FleetUnderTest, pids_below, prepare_answers
from fleetseg.errors import FleetSegError
from fleetseg.fleet.nvflare.provision import read_fleet, require_nvflare

MARGIN_S = 2.0  # after a round and before the next, not counted as idle


@dataclass
class Result:
    """Measurements with one number of vehicles; steps that were not reached have none."""

    vehicles: int
    figures: dict[str, float] = field(default_factory=dict)

    def note(self, key: str, value: float) -> None:
        """Keep a figure and print it."""
        self.figures[key] = value
        print(f"{self.vehicles:6d}  {key:58s} {value:10.2f}", flush=True)


def measure(root: Path, vehicles: int, options: argparse.Namespace) -> Result:
    """Measure one fleet, from its creation to its end."""
    result = Result(vehicles)
    megabytes = prepare_answers(root)
    print(
        f"{vehicles:6d}  an update: {megabytes:.1f} MB; load {os.getloadavg()[0]:.1f}", flush=True
    )
    bench = FleetUnderTest(root, vehicles, options)
    began_s = time.monotonic()
    bench.provision()
    if options.fleet is None:
        result.note("fleet init, s", time.monotonic() - began_s)
    first, second = options.cohorts
    try:
        if _connect(bench, result, first):
            _back_to_back(bench, result, options.rounds, first)
            if options.idle:
                _restart(bench, result, second, options.idle)
                _at_intervals(bench, result, options, second)
    finally:
        bench.close()
    left = pids_below(root)
    result.note("processes left behind", len(left))
    return result


def _connect(bench: FleetUnderTest, result: Result, cohort: int) -> bool:
    """Start server and vehicles; returns whether a round was committed."""
    bench.start_server("run-1", cohort, 0.0)
    if not bench.until("server listening", lambda: len(bench.parts()), 1):
        return False
    time.sleep(8)  # until it has imported all its modules
    empty, began_s = bench.sample(), time.time()
    bench.start_vehicles()
    bench.until("registered", lambda: bench.events.count("registered"), bench.vehicles)
    registered = bench.events.count("registered")
    result.note("registered", registered)
    if not registered:
        return False
    result.note("all registered after, s", bench.events.last_s("registered") - began_s)
    connected = bench.sample()
    each = connected.since(empty)["server"] / registered
    result.note("NVFlare's server: CPU ms per registration", 1000 * each)
    result.note("memory of server with all vehicles registered, MiB", connected.own_mb["server"])
    bench.until("in the job", lambda: bench.events.count("hello"), registered)
    joined = bench.events.count("hello")
    result.note("in the job and enrolled", joined)
    if joined:
        result.note("all in the job, s after the last one registered", _after(bench, "hello"))
    result.note("connections to the server's port", bench.connections())
    now = bench.sample()
    for role, mb in empty.own_mb.items():
        result.note(f"memory of {role} without vehicles, MiB", mb)
    for role, mb in now.own_mb.items():
        result.note(f"memory of {role} with all in the job, MiB", mb)
    done = bench.until("first round", lambda: len(bench.rounds("run-1")), 1)
    if done:
        seconds = time.time() - bench.events.last_s("registered")
        result.note("first round committed, s after the last one registered", seconds)
    return done


def _after(bench: FleetUnderTest, what: str) -> float:
    return bench.events.last_s(what) - bench.events.last_s("registered")


def _back_to_back(bench: FleetUnderTest, result: Result, rounds: int, cohort: int) -> None:
    """Measure rounds that follow each other."""
    known, before = len(bench.rounds("run-1")), bench.sample()
    bench.until("rounds", lambda: len(bench.rounds("run-1")), known + rounds)
    after, records = bench.sample(), bench.rounds("run-1")[known:]
    if records:
        _note_rounds(result, f"round of {cohort}, back to back", records)
        wall_s = after.at_s - before.at_s
        result.note("back to back: seconds from one round to the next", wall_s / len(records))
        for role, cpu_s in after.since(before).items():
            result.note(f"back to back: CPU s per round, {role}", cpu_s / len(records))
    for role, mb in after.own_mb.items():
        result.note(f"memory of {role} after these rounds, MiB", mb)


def _note_rounds(result: Result, which: str, records: Sequence[Mapping[str, Any]]) -> None:
    seconds = [record["seconds"] for record in records]
    result.note(f"{which}: seconds, median", statistics.median(seconds))
    result.note(f"{which}: seconds, maximum", max(seconds))
    accepted = statistics.mean(len(record["ok"]) for record in records)
    result.note(f"{which}: updates accepted, mean", accepted)
    failures = [f"{f['client']}: {f['reason']}" for r in records for f in r["failures"]]
    if failures:
        print(f"        failures: {', '.join(failures[:5])} ({len(failures)} in total)", flush=True)


def _restart(bench: FleetUnderTest, result: Result, cohort: int, every_s: float) -> None:
    """Kill the server and start another; measure the time until all vehicles are back."""
    wanted = bench.events.count("registered")
    bench.kill_server()
    time.sleep(1)
    bench.events.mark()
    began_s = time.time()
    bench.start_server("run-2", cohort, every_s)
    bench.until("back", lambda: bench.events.count("heartbeat"), wanted)
    if back := bench.events.count("heartbeat"):
        result.note("connected again after a restart of the server", back)
        result.note(
            "all connected again, s after its start", bench.events.last_s("heartbeat") - began_s
        )
    bench.until("in the new job", lambda: bench.events.count("hello"), wanted)
    if joined := bench.events.count("hello"):
        result.note("in the new server's job", joined)
        result.note("all in its job, s after its start", bench.events.last_s("hello") - began_s)


def _at_intervals(
    bench: FleetUnderTest, result: Result, options: argparse.Namespace, cohort: int
) -> None:
    """Measure an idle fleet between rounds, and rounds after a pause."""
    idle: list[tuple[float, dict[str, float]]] = []
    for _ in range(options.rounds + 1):
        known = len(bench.rounds("run-2"))
        if not bench.until("round", lambda: len(bench.rounds("run-2")), known + 1):
            break
        ended_s = time.monotonic()
        next_s = ended_s - bench.rounds("run-2")[-1]["seconds"] + options.idle
        time.sleep(MARGIN_S)
        before = bench.sample()
        time.sleep(max(0.0, next_s - MARGIN_S - time.monotonic()))
        after = bench.sample()
        if len(bench.rounds("run-2")) == known + 1 and after.at_s - before.at_s > 1:
            idle.append((after.at_s - before.at_s, after.since(before)))
    if records := bench.rounds("run-2"):
        result.note("first round after the restart: seconds", records[0]["seconds"])
    if records[1:]:
        _note_rounds(result, f"round of {cohort}, after a pause", records[1:])
    if idle:
        _note_idle(bench, result, idle)
    for role, mb in bench.sample().own_mb.items():
        result.note(f"memory of {role} at the end, MiB", mb)


def _note_idle(
    bench: FleetUnderTest, result: Result, idle: Sequence[tuple[float, Mapping[str, float]]]
) -> None:
    """Note the cost of an idle fleet, as shares of one core, over all pauses together."""
    wall_s, joined = sum(seconds for seconds, _ in idle), bench.events.count("hello")
    result.note("idle: seconds measured", wall_s)
    total = 0.0
    for role in idle[0][1]:
        percent = 100 * sum(cpu_s.get(role, 0.0) for _, cpu_s in idle) / wall_s
        total += percent
        result.note(f"idle: CPU of {role}, % of a core", percent)
    result.note("idle: CPU of all processes, % of a core", total)
    if joined:
        result.note("idle: CPU of all processes per vehicle, % of a core", total / joined)


AIMS = {  # figure -> (upper bound, number of vehicles)
    "idle: CPU of all processes, % of a core": (10.0, 500),
    "all connected again, s after its start": (60.0, 1000),
    "round of 16, after a pause: seconds, median": (2.5, 1000),
}


def show(results: Sequence[Result]) -> None:
    """Print all figures side by side, and the memory of each further vehicle."""
    keys = list(dict.fromkeys(key for result in results for key in result.figures))
    print("\n| |" + "".join(f" {r.vehicles} |" for r in results))
    print("|---|" + "--:|" * len(results))
    for key in keys:
        cells = [f"{r.figures[key]:.2f}" if key in r.figures else "–" for r in results]
        aim = f" (aim: ≤ {AIMS[key][0]:g} with {AIMS[key][1]})" if key in AIMS else ""
        print(f"| {key}{aim} | " + " | ".join(cells) + " |")
    few, many = results[0], results[-1]
    for role in ("server", "job", "fleetseg"):
        key = f"memory of {role} with all in the job, MiB"
        n = [r.figures.get("in the job and enrolled", 0.0) for r in (few, many)]
        if n[1] > n[0] and key in few.figures and key in many.figures:
            slope = (many.figures[key] - few.figures[key]) / (n[1] - n[0])
            print(f"{role}: {slope:.2f} MiB per vehicle beyond {n[0]:.0f}")
    print(f"load averages at the end: {', '.join(f'{x:.1f}' for x in os.getloadavg())}")


@contextlib.contextmanager
def folder(keep: Path | None) -> Iterator[Path]:
    """Make a folder with a short name, and remove it at the end; logs are copied to `keep`."""
    root = Path(tempfile.mkdtemp(prefix="fsc-")).resolve()
    try:
        yield root
    finally:
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            for log in root.glob("*.log"):
                shutil.copy(log, keep / f"{root.name}-{log.name}")
        shutil.rmtree(root, ignore_errors=True)


def numbers(text: str) -> list[int]:
    """Read "50,200"."""
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        raise argparse.ArgumentTypeError(f"'{text}' is no list of numbers, such as 50,200")
    return [int(word) for word in text.split(",")]


def two_numbers(text: str) -> list[int]:
    """Read "32,16"."""
    if len(found := numbers(text)) != 2:
        raise argparse.ArgumentTypeError(f"'{text}' is not two numbers such as 32,16")
    return found


def arguments() -> argparse.Namespace:
    """Read the command line."""
    about, _, details = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=about,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--vehicles",
        type=numbers,
        default=[50, 200],
        help="fleet sizes to measure (default 50,200)",
    )
    add(
        "--cohorts",
        type=two_numbers,
        default=[32, 16],
        help="cohorts of the rounds back to back and of those after a pause (default 32,16)",
    )
    add("--rounds", type=int, default=4, help="measured rounds of each kind (default 4)")
    add(
        "--idle",
        type=float,
        default=20.0,
        help="seconds from round to round in the rounds after a pause (default 20); 0 skips them",
    )
    add("--per-process", type=int, default=50, help="vehicles per process (default 50)")
    add("--patience", type=float, default=240.0, help="timeout of each step, s (default 240)")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option passed on to `fleetseg server`",
    )
    add(
        "--transport",
        type=json.loads,
        default={},
        metavar="JSON",
        help="overrides for the server's local/comm_config.json, on top of what fleetseg writes",
    )
    add("--fleet", type=Path, help="use a copy of this existing fleet, with all its vehicles")
    add("--keep", type=Path, help="folder that logs are copied to")
    return parser.parse_args()


def main() -> int:
    """Measure and print."""
    options = arguments()
    try:
        require_nvflare()
    except FleetSegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.fleet is not None:
        options.vehicles = [len(read_fleet(options.fleet).vehicles)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything is ended
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    results = []
    try:
        for vehicles in options.vehicles:
            with folder(options.keep) as root:
                results.append(measure(root, vehicles, options))
    except KeyboardInterrupt:
        print("interrupted; all processes have been ended", file=sys.stderr)
        return 130
    finally:
        if results:
            show(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
