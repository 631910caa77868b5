"""In NVFlare's server: reports of failures become lines by the site that sent them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("nvflare")

from nvflare.apis.event_type import EventType

from fleetseg.fleet.nvflare.network import read_witnessed
from fleetseg.fleet.nvflare.sites import WITNESSED, server_resources
from fleetseg.fleet.nvflare.witness import FailureWitness

UNSAFE, EXCEPTION, KILLED = 102, 101, 9


class Server:
    """What the witness uses of NVFlare's, with one job of two sites."""

    def __init__(self) -> None:
        self.handled: list[Any] = []
        self.pending = {("job", "car-1"), ("job", "car-2")}
        clients = {f"token-{k}": SimpleNamespace(name=f"car-{k}") for k in (1, 2)}
        self.client_manager = SimpleNamespace(clients=clients)
        self.cell = SimpleNamespace(register_request_cb=self._register)
        self.replies: list[Any] = []
        self.engine: Any = SimpleNamespace(
            server=self,
            run_processes={"job": {}},
            exception_run_processes={},
            job_runner=SimpleNamespace(is_client_outcome_pending=self._is_pending),
            start_client_job=lambda job, sites, fl_ctx: self.replies,
        )

    def _register(self, channel: str, topic: str, cb: Any) -> None:
        assert topic == "report_job_failure"
        self.report = cb

    def _is_pending(self, job: str, client: str) -> bool:
        return (job, client) in self.pending

    def process_job_failure(self, request: Any) -> str:
        self.handled.append(request)
        return "NVFlare's own reply"


def told(server: Server, token: str, code: Any, job: Any = "job") -> None:
    payload = {"job_id": job, "code": code, "reason": "forged\ntext"}
    request = SimpleNamespace(payload=payload, get_header=lambda key: token)
    before = len(server.handled)
    assert server.report(request) == "NVFlare's own reply"
    assert len(server.handled) == before + 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / WITNESSED


@pytest.fixture
def server(path: Path) -> Server:
    made = Server()
    context: Any = SimpleNamespace(get_engine=lambda: made.engine)
    witness = FailureWitness(str(path))
    witness.handle_event(EventType.SYSTEM_BOOTSTRAP, context)
    witness.handle_event(EventType.SYSTEM_START, context)
    return made


def test_the_first_failure_of_a_job_is_the_one_that_ends_it(server: Server, path: Path) -> None:
    told(server, "token-2", EXCEPTION)
    told(server, "token-1", KILLED)  # aborted in consequence
    assert read_witnessed(path, "job") == {"car-2": "exception"}
    assert read_witnessed(path, "another") == {}


def test_what_each_site_finds_out_by_itself_counts_for_each(server: Server, path: Path) -> None:
    for _ in range(3):
        told(server, "token-1", UNSAFE)
        told(server, "token-2", UNSAFE)
    assert read_witnessed(path, "job") == dict.fromkeys(("car-1", "car-2"), "unsafe component")
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize("code", [0, 1, None, "102", [1], 127])
def test_a_normal_end_and_an_odd_code_are_no_failure(server: Server, path: Path, code: Any) -> None:
    told(server, "token-1", code)
    assert read_witnessed(path, "job") == {}


def test_who_is_not_of_the_job_cannot_end_it(server: Server, path: Path) -> None:
    told(server, "forged", EXCEPTION)
    told(server, "token-1", EXCEPTION, job="another")
    told(server, "token-1", EXCEPTION, job=["job"])
    server.pending.clear()
    told(server, "token-1", EXCEPTION)
    assert not path.exists()


def test_nobody_is_blamed_where_the_server_s_part_has_died(server: Server, path: Path) -> None:
    server.engine.exception_run_processes = {"job": {}}
    told(server, "token-1", EXCEPTION)
    server.engine.exception_run_processes, server.engine.run_processes = {}, {}
    told(server, "token-1", EXCEPTION)
    assert not path.exists()


def test_a_site_that_cannot_start_its_part_is_seen(server: Server, path: Path) -> None:
    reply = SimpleNamespace(body="NVFLARE_ERROR: no launcher")
    fine, silent = SimpleNamespace(body="OK"), None
    server.replies = [
        SimpleNamespace(client_name=name, reply=answer)
        for name, answer in (("car-1", reply), ("car-2", fine), ("car-3", silent))
    ]
    job = SimpleNamespace(job_id="job")
    assert server.engine.start_client_job(job, {}, None) is server.replies
    assert read_witnessed(path, "job") == {"car-1": "cannot start it"}


def test_the_server_loads_it(tmp_path: Path) -> None:
    components = {c["id"]: c for c in server_resources(tmp_path)["components"]}
    module, _, name = components["failure_witness"]["path"].rpartition(".")
    assert (module, name) == (FailureWitness.__module__, FailureWitness.__name__)
    assert components["failure_witness"]["args"] == {"path": str(tmp_path / WITNESSED)}


def test_lines_that_are_none_are_passed_over(path: Path) -> None:
    path.write_text('{"job": "j", "site": "a", "reason": "x"}\n[]\n{"job": "j"}\n{"jo')
    assert read_witnessed(path, "j") == {"a": "x"}
