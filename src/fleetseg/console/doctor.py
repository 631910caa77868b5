"""`fleetseg doctor`: can this machine train, how fast, and what is missing."""

from __future__ import annotations

from rich.text import Text

from fleetseg.console import print_line, stdout_console
from fleetseg.doctor.examine import examine
from fleetseg.doctor.findings import Verdict

_MARKS: dict[Verdict, tuple[str, str]] = {
    "ok": ("✓", "green"),
    "note": ("–", "yellow"),
    "fail": ("✗", "bold red"),
}


def examine_and_show() -> int:
    """Print all findings; the exit code is 1 if something essential is broken."""
    console, broken = stdout_console(), 0
    for finding in examine():
        broken += finding.verdict == "fail"
        mark, style = _MARKS[finding.verdict]
        print_line(console, Text.assemble((mark, style), f" {finding.what:<12} ", finding.detail))
    if broken:
        print_line(console, f"{broken} broken: fleetseg cannot run here as it is", "bold red")
    else:
        print_line(console, "ready: try fleetseg demo", "green")
    return 1 if broken else 0
