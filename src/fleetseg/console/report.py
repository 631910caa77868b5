"""`fleetseg report`, and the page written at the end of a run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from fleetseg.console import error_text, print_line, stdout_console
from fleetseg.errors import MissingExtra
from fleetseg.report import write_report

_LABEL = 12  # columns for the label of a line, as in a run's summary


def report_and_show(
    runs: Sequence[Path], out: Path | None = None, despite: Collection[str] = ()
) -> None:
    """Write the page and say how to open it.

    Raises:
        FleetSegError: see `fleetseg.report.write_report`.
    """
    _print_page(write_report(runs, out, despite), stdout_console())


def end_with_page(
    runs: Sequence[Path], console: Console, *, out: Path | None = None, silent: bool = False
) -> None:
    """Write the page of a run that has just ended; a failure here is a note, not an error."""
    try:
        page = write_report(runs, out)
    except MissingExtra as missing:
        if not silent:
            print_line(console, Text(f"no page: {missing}", "dim"))
        return
    except Exception as error:  # the run itself is complete, and its page can be written later
        if not silent:
            print_line(console, Text(f"no page: {error_text(error)}", "yellow"))
        return
    if not silent:
        _print_page(page, console)


def _print_page(page: Path, console: Console) -> None:
    print_line(console, Text.assemble((f"{'report':<{_LABEL}}", "dim"), str(page)))
    where = page.resolve().as_uri()
    print_line(console, Text.assemble((f"{'':<{_LABEL}}open it in a browser: ", "dim"), where))
