"""The commands for message lists, registered by `cli.app`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleetseg.cli import options as o
from fleetseg.console import reports_errors
from fleetseg.hosts import given_path

MessageList = Annotated[
    Path,
    typer.Argument(
        metavar="PATH", help="A message list, a kit, or a run folder.", parser=given_path
    ),
]

audit_app = typer.Typer(
    no_args_is_help=True, help="Verify the records of messages sent and received."
)


@audit_app.command("verify")
@reports_errors
def audit_verify(path: MessageList, as_json: o.Json = False, debug: o.Debug = False) -> None:
    """Verify the hash chain of a message list and say where it breaks; exit code 3 if it does.

    PATH is a list (egress.jsonl of a vehicle, ingress.jsonl of a run), a vehicle's kit, or a run
    folder.

    \b
    Examples:
      fleetseg audit verify kit
      fleetseg audit verify runs/current
      fleetseg audit verify kit/fleetseg/logs/egress.jsonl --json
    """  # noqa: D301
    from fleetseg.console.audit import verify_and_show

    raise typer.Exit(verify_and_show(path, as_json=as_json))
