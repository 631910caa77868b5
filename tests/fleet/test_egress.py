"""What leaves a vehicle is in its list first; failures leave as codes."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

import fleetseg
from fleetseg import errors
from fleetseg.failures import failure_header
from fleetseg.federation.client_state import NO_STATE
from fleetseg.fleet.audit import verify
from fleetseg.fleet.egress import CODES, LIST, Egress, coded
from fleetseg.fleet.message_log import message_digest, read_message_log

SECRETS = "/home/me/drive-7/a.png is broken; see ~/notes, C:\\Users\\me and /var/lib/fleetseg"


def test_what_passes_is_what_is_listed(tmp_path: Path) -> None:
    egress = Egress(tmp_path)
    update = {"update": 3}
    assert egress.passed("train", "car-1", update, b"bytes") == (update, b"bytes")
    failed, payload = egress.passed(
        "train", "car-1", failure_header("lost", "error", SECRETS), b"bytes"
    )
    assert payload == b""
    train, failure = read_message_log(tmp_path / LIST)
    assert (train["kind"], train["sha256"]) == ("train", message_digest(update, b"bytes"))
    assert (failure["kind"], failure["sha256"]) == ("failure", message_digest(failed, b""))
    assert verify(tmp_path / LIST).broken == ""


def test_what_cannot_be_listed_does_not_leave(tmp_path: Path) -> None:
    said: list[str] = []
    egress = Egress(tmp_path, said.append)
    (tmp_path / LIST).mkdir()
    assert egress.passed("train", "car-1", {"update": 3}, b"bytes") == (
        failure_header("lost", "disk", CODES["disk"]),
        b"",
    )
    assert "nothing is sent until it can be" in said[0]


@pytest.mark.parametrize("reason", [*CODES, "something new", "/a/path"])
def test_a_failure_leaves_as_its_code(reason: str) -> None:
    kind, code, text = coded(failure_header("abstained", reason, SECRETS))["failure"]
    assert (kind, code) == ("abstained", reason if reason in CODES else "error")
    assert text == CODES[code]


def test_how_much_memory_was_asked_for_may_leave() -> None:
    detail = f"{SECRETS}. Tried to allocate 20.00 GiB. GPU 0"
    text = coded(failure_header("lost", "out-of-memory", detail))["failure"][2]
    assert text.endswith("(tried to allocate 20.00 GiB)")
    assert "/home" not in text


def test_a_refusal_says_why_and_names_no_path() -> None:
    why = f"unknown key 'model.x'; expected 3, got 4 (fleetseg 0.1.0), zoo:a/b, <a>/<b>; {SECRETS}"
    text = coded(failure_header("refused", "experiment", why))["failure"][2]
    assert text.startswith(why.partition("; /home")[0])
    for part in ("home", "drive-7", "a.png", "notes", "Users", "fleetseg and", "/var"):
        assert part not in text


def test_every_code_that_a_vehicle_uses_has_a_text() -> None:
    """Of errors, the class; of failures, what stands in the source of a client's work."""
    raised = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
    not_there = {"FleetSegError", "UpdateRejected", "QuorumLost", "FolderInUse"}
    assert raised - not_there <= CODES.keys() | {"Path", "Iterable"}
    source = Path(fleetseg.__file__).parent
    for path in (*source.glob("federation/tasks/*.py"), source / "engines" / "inprocess.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Failure":
                reason = ast.unparse(node.args[2])
                named = {"NO_STATE": NO_STATE}.get(reason, reason.strip("'"))
                assert named in CODES, path


def test_the_relay_s_own_failures_are_listed_and_name_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trainer is not there, and the job ends: nobody else would have listed this."""
    from nvflare.apis.signal import Signal

    from fleetseg.fleet.nvflare.executor import TrainerExecutor
    from fleetseg.fleet.nvflare.names import OWN_VARIABLE, TRAINER_VARIABLE

    monkeypatch.setenv(OWN_VARIABLE, str(tmp_path))
    monkeypatch.setenv(TRAINER_VARIABLE, str(tmp_path / "secret" / "trainer"))
    over = Signal()
    over.trigger(value=True)
    request: dict[str, Any] = {"what": "train", "vehicles": {"depot": "car-7"}}
    text, payload = TrainerExecutor()._served(request, b"", over, "depot")
    answer = json.loads(text)
    assert (answer["failure"], payload) == (["lost", "trainer-died", CODES["trainer-died"]], b"")
    (line,) = read_message_log(tmp_path / LIST)
    assert (line["kind"], line["vehicle"]) == ("failure", "car-7")
    assert line["sha256"] == message_digest(answer, payload)
