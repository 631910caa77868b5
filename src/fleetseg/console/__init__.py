"""Terminal output: consoles, the error line, small text helpers.

All other packages compute and return; only this one prints.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import typer
from rich.console import Console
from rich.text import Text

from fleetseg.errors import FleetSegError
from fleetseg.files import explained
from fleetseg.text import harmless

P = ParamSpec("P")
INTERRUPTED = 130  # exit code of Ctrl-C: 128 + SIGINT
_PIPE_WIDTH = 120  # columns where no terminal gives its width


def stdout_console() -> Console:
    """Return a console on the current standard output."""
    return _console(stderr=False)


def stderr_console() -> Console:
    """Return a console on the current standard error."""
    return _console(stderr=True)


def _console(stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console = Console(stderr=stderr, highlight=False, width=_PIPE_WIDTH)
    return console


def print_line(console: Console, text: str | Text, style: str = "") -> None:
    """Print a text verbatim: no markup, and no line breaks within paths or digests."""
    shown = text if isinstance(text, Text) else Text(harmless(text), style)
    console.print(shown, soft_wrap=True)


def reports_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Turn the errors of a command into one line on standard error and an exit code.

    The command may take `debug`; if it is true, errors come with their traceback.
    """

    @wraps(command)
    def reporting(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            print_line(stderr_console(), "interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception as error:
            if kwargs.get("debug"):
                raise
            print_error(error_text(error))
            raise typer.Exit(1) from None

    return reporting


def error_text(error: Exception) -> str:
    """Describe an error in one line; an error that the user cannot fix is called a bug of ours."""
    if isinstance(error, FleetSegError):
        return str(error)
    if isinstance(error, OSError):
        if named := explained(error):
            return str(named)
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{what}. This looks like a bug in fleetseg; --debug shows where it comes from"


def print_error(text: str) -> None:
    """Print the line of an error."""
    sys.stdout.flush()
    print_line(stderr_console(), Text.assemble(("error: ", "bold red"), harmless(text)))


def clock(seconds: float) -> str:
    """Format a duration as m:ss or h:mm:ss.

    >>> clock(75.4), clock(3700)
    ('1:15', '1:01:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def ratio(value: float | None) -> str:
    """Format an IoU or an accuracy with three digits; "–" where there is nothing to rate."""
    return "–" if value is None else f"{value:.3f}"


def count(number: int, what: str) -> str:
    """Format a number with its noun.

    >>> count(1, "vehicle"), count(12_000, "image")
    ('1 vehicle', '12,000 images')
    """
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def cohort_words(cohort: float) -> str:
    """Describe the size of a cohort.

    >>> cohort_words(1), cohort_words(1.0), cohort_words(4), cohort_words(0.25)
    ('1 vehicle', 'the whole fleet', '4 vehicles', '25% of the fleet')
    """
    if isinstance(cohort, int) or cohort > 1:
        return f"{cohort:.0f} vehicle" + ("" if cohort == 1 else "s")
    return "the whole fleet" if cohort == 1 else f"{100 * cohort:.4g}% of the fleet"
