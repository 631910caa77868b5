"""How worker processes come to be: forked off one that has imported everything once."""

from __future__ import annotations

import json
import os
import signal
import sys
from multiprocessing.connection import Connection

import pytest

from fleetseg.engines import starting
from fleetseg.engines.starting import start
from fleetseg.errors import EngineError


def report(job: object, pipe: Connection) -> None:
    """Run in the new process."""
    told = {
        "job": job,
        "parent": os.getppid(),
        "variable": os.environ.get("FLEETSEG_TEST_VARIABLE"),
        "imported": "torch._dynamo" in sys.modules,
        "main": getattr(sys.modules["__main__"], "__file__", None),
        "deaf": signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []),
    }
    pipe.send_bytes(json.dumps(told).encode())


def told(job: object, *, on_cpu: bool) -> dict[str, object]:
    process, pipe = start("fleetseg-worker-test", report, job, on_cpu=on_cpu)
    try:
        answer: dict[str, object] = json.loads(pipe.recv_bytes())
        return answer
    finally:
        process.join()
        pipe.close()


@pytest.mark.parametrize("on_cpu", [True, False])
def test_a_worker_has_its_job_our_environment_and_no_ear_for_ctrl_c(
    on_cpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in ("one", "two"):  # the process that is forked has an environment of its own
        monkeypatch.setenv("FLEETSEG_TEST_VARIABLE", value)
        answer = told([1, value], on_cpu=on_cpu)
        assert (answer["job"], answer["variable"]) == ([1, value], value)
        assert answer["deaf"]
        assert answer["main"] in (None, "<string>") or "multiprocessing" in str(answer["main"])
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
def test_imports_are_made_once_on_a_cpu() -> None:
    one, other = told(1, on_cpu=True), told(2, on_cpu=True)
    assert one["imported"]
    assert other["imported"]
    assert one["parent"] == other["parent"] != os.getpid()


def test_a_process_for_a_gpu_is_a_new_one() -> None:
    answer = told(1, on_cpu=False)
    assert answer["parent"] == os.getpid()
    assert not answer["imported"]


def test_without_a_place_for_a_socket_each_is_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a `TMPDIR` of more than a hundred characters."""

    def too_long() -> None:
        raise OSError("AF_UNIX path too long")

    monkeypatch.setattr(starting.forkserver, "ensure_running", too_long)
    assert told(1, on_cpu=True)["parent"] == os.getpid()


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
def test_what_cannot_be_forked_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise EOFError("unexpected EOF")

    monkeypatch.setattr("multiprocessing.popen_forkserver.Popen.__init__", gone)
    with pytest.raises(EngineError, match=r"could not be started \(unexpected EOF\).*ulimit -u"):
        start("fleetseg-worker-test", report, 1, on_cpu=True)
