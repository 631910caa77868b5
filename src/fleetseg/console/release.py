"""`fleetseg release`, `releases` and `rollback`: the decision, its checks, the current release."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from rich.text import Text

from fleetseg.console import count, print_line, ratio, stderr_console, stdout_console
from fleetseg.console.progress import reading
from fleetseg.release.gate import Decision, Question, decide
from fleetseg.release.judge import Check, signed
from fleetseg.release.registry import PAGE, Listed, releases, rollback

REFUSED = 3
"""Exit code for a refused model; 1 is an error, 2 a wrong command."""
_STYLES = {"held": "green", "unsure": "yellow", "fallen": "bold red", "not judged": "dim"}
_NOTES = 12


def decide_and_show(question: Question, *, as_json: bool) -> int:
    """Judge a model, print the reasons, and return the exit code: 0 = promoted, REFUSED."""
    console = stderr_console()
    with (
        reading(console, quiet=as_json) as progress,
        reading(console, quiet=as_json, verb="scoring") as scoring,
    ):
        decision = decide(
            question, progress, scoring, lambda text: print_line(console, text, "dim")
        )
    if as_json:
        text = (decision.out / "release.json").read_text(encoding="utf-8")
        stdout_console().file.write(text)
    else:
        _show(decision, question)
    return 0 if decision.promoted else REFUSED


def _show(decision: Decision, question: Question) -> None:
    console = stdout_console()
    if decision.checks:
        console.print(_table(decision.checks))
        console.print()
    for note in decision.notes[:_NOTES]:
        print_line(console, note, "yellow")
    if (more := len(decision.notes) - _NOTES) > 0:
        print_line(console, f"and {count(more, 'more note')}: see {decision.out}", "yellow")
    word, style = ("promoted", "bold green") if decision.promoted else ("refused", "bold red")
    for reason in decision.reasons:
        print_line(console, Text.assemble((f"{word}: ", style), reason))
    print_line(console, f"the page: {decision.out / PAGE}")
    if (one := decision.release) is not None:
        print_line(console, f"release {one.number:04d} is current: {one.folder}")
    elif decision.promoted:
        print_line(console, f"dry run: nothing was added to {question.models}")


def _table(checks: tuple[Check, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("check", ""):
        table.add_column(name)
    for name in ("current", "candidate", "change", "interval"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for check in checks:
        kind = check.kind
        table.add_row(
            kind, check.name, *_figures(check), Text(check.verdict, _STYLES[check.verdict])
        )
    return table


def _figures(check: Check) -> tuple[str, str, str, str]:
    now, new = check.current, check.candidate
    written = (lambda value: "–" if value is None else f"{value:.1f}") if (
        check.kind == "latency") else ratio  # fmt: skip
    digits = 1 if check.kind == "latency" else 3
    change = "–" if now is None or new is None else signed(new - now, digits)
    interval = (
        f"{signed(check.low)} to {signed(check.high)}"
        if check.low is not None and check.high is not None
        else "–"
    )
    return written(now), written(new), change, interval


def list_releases(registry: Path) -> None:
    """Print all releases, which one is current, and which ones have changed since their release."""
    console, known = stdout_console(), releases(registry)
    table = Table(box=None, pad_edge=False)
    for name in (
        "",
        "release",
        "decided",
        "mIoU",
        "critical",
        "network",
        "judged against",
        "files",
    ):
        table.add_column(name, justify="right" if name in ("mIoU", "critical") else "left")
    for one in known:
        table.add_row(*_cells(one))
    if known:
        console.print(table)
    else:
        print_line(console, f"no release in {registry}")


def _cells(one: Listed) -> tuple[str | Text, ...]:
    facts = one.record.get("candidate", {})
    files = Text(one.damage, "bold red") if one.damage else Text("whole", "green")
    return (
        "*" if one.is_current else "",
        f"{one.number:04d}",
        str(one.record.get("decided", "–")),
        ratio(facts.get("miou")),
        ratio(facts.get("critical_miou")),
        str(facts.get("network", "–")),
        str(one.record.get("against") or "nothing"),
        files,
    )


def roll_back_and_show(registry: Path, to: int | None) -> None:
    """Make an earlier release current, and print it."""
    before, now = rollback(registry, to)
    print_line(
        stdout_console(),
        f"release {now.number:04d} is current again, instead of {before.number:04d}: {now.folder}",
    )
