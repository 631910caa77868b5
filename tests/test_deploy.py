"""What lies in deploy/ says what fleetseg does: its commands, its health check, its files."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer

from fleetseg.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
yaml = pytest.importorskip("yaml")


def parsed(words: Sequence[str]) -> dict[str, Any]:
    """The options of a command line; click's own error where it would not be taken."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("fleetseg", [words[0]], resilient_parsing=True)
    command = group.get_command(context, words[0])
    params: dict[str, Any] = command.make_context(words[0], list(words[1:])).params
    return params


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    described: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return dict(described["services"])


def test_units_and_containers_run_the_same_commands(services: dict[str, Any]) -> None:
    for service, unit in (("server", "server"), ("vehicle", "client")):
        text = (DEPLOY / f"fleetseg-{unit}.service").read_text()
        started = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)
        assert started
        _, *words = shlex.split(started[1])
        in_unit, in_container = parsed(words), parsed(services[service]["command"])
        assert words[0] == services[service]["command"][0] == unit
        in_unit["metrics_port"] = in_container.get("metrics_port")
        assert {k: v for k, v in in_unit.items() if v is not None} == {
            k: v for k, v in in_container.items() if v is not None
        }


def test_both_are_hardened_and_stop_as_ctrl_c_does(services: dict[str, Any]) -> None:
    for service in services.values():
        assert service["stop_signal"] == "SIGINT"
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["ulimits"]["nofile"] >= 4096
        assert service["logging"]["options"]["max-size"]
        (home, *_) = service["volumes"]
        assert home.endswith(":/var/lib/fleetseg")
    assert services["vehicle"]["volumes"][1].endswith(":ro")


def test_the_health_check_fails_where_the_server_is_not_well(services: dict[str, Any]) -> None:
    from fleetseg.fleet.server.endpoint import answering

    kind, python, option, code = services["server"]["healthcheck"]["test"]
    assert (kind, python, option) == ("CMD", "python", "-c")
    asked = parsed(services["server"]["command"])["metrics_port"]
    assert f":{asked}/" in code
    well = [True]
    with answering(0, lambda: b"", lambda: (well[0], "")) as port:
        command = [sys.executable, "-c", code.replace(str(asked), str(port))]
        assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0
        well[0] = False
        assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 1


def test_the_image_is_built_from_what_there_is() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    copied = [
        word for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for word in line.split()
    ]
    assert copied
    kept = (ROOT / ".dockerignore").read_text().split()
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in kept
    extra = re.search(r"/opt/fleetseg\[(\w+)\]", text)
    assert extra
    assert f"\n{extra[1]} = [" in (ROOT / "pyproject.toml").read_text()
    assert 'ENTRYPOINT ["fleetseg"]' in text
