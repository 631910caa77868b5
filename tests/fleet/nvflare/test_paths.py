"""Folders with blanks and other characters, printed commands, jobs that cannot start or hang."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.experiments import tiny_experiment
from tests.fleet.job import until

import fleetseg
from fleetseg.console import fleet as console_fleet
from fleetseg.errors import ConfigError, EngineError
from fleetseg.fleet.sockets import private_directory
from fleetseg.fleet.subprocesses import descendants, stop

pytest.importorskip("nvflare")

from nvflare.apis.job_launcher_spec import JobProcessArgs
from nvflare.utils.job_launcher_utils import get_client_job_args, get_server_job_args

from fleetseg.fleet.nvflare import network as network_module
from fleetseg.fleet.nvflare.launchers import command_text
from fleetseg.fleet.nvflare.network import NvflareNetwork, last_words
from fleetseg.fleet.nvflare.provision import Fleet, read_fleet
from fleetseg.fleet.nvflare.sites import WITNESSED
from fleetseg.fleet.server.quarantine import STRIKES
from fleetseg.fleet.server.segments import MOST_BARREN

ODD = "my run #1 $HOME 'q' \"z\" (ü)"


@pytest.mark.parametrize("names", [get_server_job_args(), get_client_job_args()])
def test_a_command_splits_into_what_it_was_made_of(names: list[str]) -> None:
    given: dict[str, tuple[str, Any]] = {name: (f"-{name}", f"/{ODD}/{name}") for name in names}
    given[JobProcessArgs.OPTIONS] = ("--set", " a=1 b=2")
    words = shlex.split(command_text(given, names), posix=True)
    assert words[0] == sys.executable
    expected = [w for n in names if n != JobProcessArgs.OPTIONS for w in given[n]]
    assert [w for w in words[1:] if w not in ("--set", "a=1", "b=2")] == expected
    assert words[-3:] == ["--set", "a=1", "b=2"]


def test_sockets_lie_in_a_plain_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long, blank = tmp_path / ("x" * 90), tmp_path / "a b"
    for base in (long, blank):
        base.mkdir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))
        monkeypatch.setattr(tempfile, "tempdir", str(base))
        folder = private_directory()
        assert folder.parent == Path("/tmp")
        folder.rmdir()
    monkeypatch.setattr("os.access", lambda *args: False)
    with pytest.raises(ConfigError, match="Set TMPDIR"):
        private_directory()


def test_printed_commands_are_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my fleet"
    fleet = Fleet(folder, "localhost", 1, ("car-1",))
    provision = "fleetseg.fleet.nvflare.provision"
    monkeypatch.setattr(f"{provision}.create_fleet", lambda *args: fleet)
    monkeypatch.setattr(f"{provision}.add_vehicle", lambda *args: fleet)
    monkeypatch.setattr(f"{provision}.read_fleet", lambda *args: fleet)
    console_fleet.init_and_show(folder, "1", "localhost", 1)
    console_fleet.add_and_show(folder, "car-1")
    told = capsys.readouterr().out
    commands = [
        line[line.index("fleetseg ") :] for line in told.splitlines() if "fleetseg " in line
    ]
    words = [shlex.split(command) for command in commands]
    assert len(words) == 6
    assert [w[w.index("--fleet") + 1] for w in words if "--fleet" in w] == [str(folder)] * 4
    kits = [w[w.index("--kit") + 1] for w in words if "--kit" in w]
    assert kits == [str(folder / "kits" / "car-1")] * 2


def test_a_cure_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_fleet(tmp_path / "my fleet")
    assert f"fleet init '{tmp_path.resolve() / 'my fleet'}'" in str(caught.value)


def test_the_log_s_last_words_are_those_of_an_error(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    assert last_words(log) == "nothing in the log"
    log.write_text("starting\n\n")
    assert last_words(log) == "starting"
    log.write_text(
        "runner.py: error: unrecognized arguments: b\x1b[31m\n2026 - x - INFO - an error for all\n"
    )
    assert last_words(log) == "runner.py: error: unrecognized arguments: b?[31m"


class _Session:
    """NVFlare, where every job ends before it connects."""

    def __init__(self, status: str) -> None:
        self.status, self.submitted = status, 0

    def submit_job(self, folder: str) -> str:
        assert Path(folder, "meta.json").is_file()
        self.submitted += 1
        return f"job-{self.submitted}"

    def get_job_meta(self, job: str) -> dict[str, str]:
        return {"status": self.status}

    def abort_job(self, job: str) -> None:
        pass


def _network(tmp_path: Path, status: str) -> tuple[NvflareNetwork, Any]:
    fleet = Fleet(tmp_path, "localhost", 1, ("car-1", "car-2"))
    fleet.server.mkdir()
    (fleet.server / "console.log").write_text("x: error: no such option\n")
    dispatcher: Any = SimpleNamespace(job="", segment=0, ending=False, answered=0)
    network = NvflareNetwork(fleet, dispatcher, tmp_path / "link", 1.0)
    network._session = _Session(status)
    network._registered = {"car-1": time.time(), "car-2": time.time()}
    return network, dispatcher


def test_jobs_that_end_one_after_another_end_the_run_with_the_log_s_words(tmp_path: Path) -> None:
    network, _ = _network(tmp_path, "FINISHED:ABNORMAL")
    for _ in range(MOST_BARREN):
        network._submit_if_due()
    with pytest.raises(EngineError, match=r"ended 6 times.*got x: error: no such option.*--resume"):
        network._submit_if_due()
    assert network._session.submitted == MOST_BARREN


def _connect(network: NvflareNetwork, dispatcher: Any, *, answers: bool) -> None:
    """Have the job that was submitted run for a while."""
    dispatcher.job, dispatcher.segment = network._job, dispatcher.segment + 1
    if answers:
        dispatcher.answered = dispatcher.segment
    network._submit_if_due()
    assert network.trouble() == ""
    dispatcher.job = ""


def test_jobs_that_connect_and_end_before_an_answer_end_the_run(tmp_path: Path) -> None:
    """Each new segment starts the clock of `fleet.outage_s` anew, so nothing else would."""
    network, dispatcher = _network(tmp_path, "FINISHED:ABNORMAL")
    network._submit_if_due()
    for _ in range(MOST_BARREN - 1):
        _connect(network, dispatcher, answers=False)
        network._submit_if_due()
    _connect(network, dispatcher, answers=False)
    with pytest.raises(EngineError, match="ended 6 times in a row without any work done"):
        network._submit_if_due()


def test_a_job_with_an_answer_starts_the_count_anew(tmp_path: Path) -> None:
    network, dispatcher = _network(tmp_path, "FINISHED:ABNORMAL")
    for _ in range(5):
        for _ in range(MOST_BARREN - 1):
            network._submit_if_due()
        _connect(network, dispatcher, answers=True)


def test_a_vehicle_that_ends_each_job_is_left_out_of_the_next_ones(tmp_path: Path) -> None:
    """By a named list: NVFlare's @ALL would have it in every job again."""
    network, dispatcher = _network(tmp_path, "FINISHED:ABORTED")
    deployed = []
    for number in range(STRIKES + 2):
        network._submit_if_due()
        meta = json.loads((network._segment / "meta.json").read_text())
        deployed.append(meta["deploy_map"]["app"])
        line = {"job": f"job-{number + 1}", "site": "car-2", "reason": "unsafe component"}
        with open(network._fleet.server / WITNESSED, "a") as file:
            file.write(json.dumps(line) + "\n")
        _connect(network, dispatcher, answers=False)
    assert deployed[:STRIKES] == [["server", "car-1", "car-2"]] * STRIKES
    assert deployed[STRIKES:] == [["server", "car-1"]] * 2
    assert "unsafe component" in network.quarantined()["car-2"]
    dispatcher.silent_s = lambda site: 100.0
    assert network.returned() == {"car-1"}


def test_a_job_that_cannot_be_submitted_is_nobody_s_fault(tmp_path: Path) -> None:
    network, _ = _network(tmp_path, "FINISHED:ABNORMAL")
    network._session.submit_job = lambda folder: 1 / 0
    for _ in range(2 * MOST_BARREN):
        with pytest.raises(ZeroDivisionError):
            network._submit_if_due()


PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)", sys.argv[1]])
child.wait()
print("it has ended", flush=True)
sys.stdin.read()
"""


def _started(pid: int) -> int | None:
    """Return the child that is past its exec: before it, nobody can tell what it runs."""
    for child in descendants(pid):
        words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        if b"job-1" in words and PARENT.encode() not in words:
            return child
    return None


@pytest.fixture
def server() -> Iterator[subprocess.Popen[str]]:
    """What starts the process of a job and waits for it to end, as NVFlare's server does."""
    words = [sys.executable, "-c", PARENT, "job-1"]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process
    stop(process, patience_s=0)
    process.communicate()


def test_a_job_that_hangs_is_killed_so_that_another_takes_its_place(
    tmp_path: Path, server: subprocess.Popen[str]
) -> None:
    network, dispatcher = _network(tmp_path, "RUNNING")
    network._process, dropped = server, []
    job = until(lambda: _started(server.pid), "the job's process")
    os.kill(job, signal.SIGSTOP)
    dispatcher.job, dispatcher.clock = "job-1", time.monotonic
    dispatcher.drop = lambda: dropped.append(True)
    dispatcher.job_silent_s = lambda: 9.9  # of 15 s that vehicles may be silent
    network._end_what_hangs()
    assert not dropped
    dispatcher.job_silent_s = lambda: 10.1
    network._end_what_hangs()
    assert server.stdout is not None
    assert server.stdout.readline() == "it has ended\n"
    assert dropped == [True]
    assert network.trouble() == "the engine's job hangs; a new one replaces it"


def test_a_server_that_answers_no_more_is_killed(
    tmp_path: Path, server: subprocess.Popen[str]
) -> None:
    network, dispatcher = _network(tmp_path, "RUNNING")
    network._process, now_s = server, [100.0]
    dispatcher.clock = lambda: now_s[0]
    network._end_what_hangs()  # one that is starting has not answered yet
    network._session.get_system_info = lambda: SimpleNamespace(client_info=[])
    network._refresh_registered()
    now_s[0] += network_module._HUNG_S - 1
    network._end_what_hangs()
    assert server.poll() is None
    now_s[0] += 2
    os.kill(server.pid, signal.SIGSTOP)
    until(lambda: ") T " in Path(f"/proc/{server.pid}/stat").read_text(), "the server stopped")
    network._end_what_hangs()
    assert server.poll() == -signal.SIGKILL


def test_a_server_that_is_at_work_is_not_killed_for_minutes(
    tmp_path: Path, server: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand vehicles that register keep it from answering: a restart would begin it again."""
    network, dispatcher = _network(tmp_path, "RUNNING")
    network._process, now_s, used_s = server, [100.0], [7.0]
    dispatcher.clock = lambda: now_s[0]
    monkeypatch.setattr(network_module, "cpu_seconds", lambda pid: used_s[0])
    network._session.get_system_info = lambda: SimpleNamespace(client_info=[])
    network._refresh_registered()
    busy_s = network_module._BUSY_S - 1
    now_s[0], used_s[0] = 100.0 + busy_s, 7.0 + 0.21 * busy_s
    network._end_what_hangs()
    assert server.poll() is None
    assert network.trouble() == "the server's process is too busy to answer"
    now_s[0], used_s[0] = 101.0 + busy_s, 7.0 + 0.9 * busy_s
    network._end_what_hangs()  # an endless loop is no work either
    assert server.poll() is not None
    assert network.trouble() == "the server's process hangs; it is being restarted"


def test_a_fleet_on_this_machine_in_an_odd_folder(tmp_path: Path) -> None:
    experiment = tiny_experiment(
        tmp_path / "cache", federation={"rounds": 1}, engine={"kind": "fleet", "workers": 1}
    )
    run = fleetseg.run(experiment, out=tmp_path / ODD / "run")
    assert run.reason == "rounds"


def test_two_operators_at_once_lose_no_vehicle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from fleetseg.fleet.nvflare import provision

    monkeypatch.setattr(provision, "new_kit", lambda *args: time.sleep(0.05))
    fleet = Fleet(tmp_path, "localhost", 1, ("car-1",))
    fleet.save()
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda name: provision.add_vehicle(fleet, name), ("a", "b", "c")))
    assert sorted(read_fleet(tmp_path).vehicles) == ["a", "b", "c", "car-1"]
