"""`fleetseg audit verify`: the result of checking the chains of message lists."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer
from rich.text import Text

from fleetseg.console import count, print_line, stdout_console
from fleetseg.fleet.audit import Audit, lists_in, verify

BROKEN = 3


def verify_and_show(path: Path, *, as_json: bool) -> int:
    """Verify every list at a path, print the result, and return the exit code."""
    audits = [verify(found) for found in lists_in(path)]
    if as_json:
        rows = [{**asdict(audit), "path": str(audit.path)} for audit in audits]
        typer.echo(json.dumps({"whole": not _broken(audits), "lists": rows}))
    else:
        for audit in audits:
            _show(audit)
    return BROKEN if _broken(audits) else 0


def _broken(audits: list[Audit]) -> bool:
    return any(audit.broken for audit in audits)


def _show(audit: Audit) -> None:
    console = stdout_console()
    if audit.broken:
        print_line(console, Text.assemble(("broken ", "bold red"), audit.broken))
        return
    told = f"{audit.path}: {count(audit.lines, 'message')}"
    if audit.unchained:
        told += f", the first {audit.unchained} of a version without a chain"
    if audit.cut:
        told += f", {count(audit.cut, 'line')} cut off by a crash or a full disk"
    print_line(console, Text.assemble(("whole ", "bold green"), told))
    print_line(console, f"last line {audit.digest}", "dim")
