"""Progress of reading data: a bar in a terminal, a line elsewhere.

It goes to standard error, so that standard output holds results only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fleetseg.console import count, print_line

Report = Callable[[str, int, int], None]
"""Called with (what is being read, number done, total; 0 = not known)."""


@contextmanager
def reading(console: Console, *, quiet: bool = False, verb: str = "reading") -> Iterator[Report]:
    """Yield a function that shows progress; nothing is shown where nothing needs to be read."""
    if quiet:
        yield lambda what, done, total: None
    elif console.is_terminal:
        with _Bars(console, verb) as bars:
            yield bars.report
    else:
        yield _plain(console, verb)


def _plain(console: Console, verb: str) -> Report:
    reached: dict[tuple[str, int], int] = {}

    def report(what: str, done: int, total: int) -> None:
        again = done <= reached.get((what, total), total or done)
        reached[what, total] = done
        if again:
            of = f": {count(total, 'sample')}" if total else ""
            print_line(console, f"{verb} {what}{of}")

    return report


class _Bars:
    """One bar at a time, started by the first report and removed when its work is done."""

    def __init__(self, console: Console, verb: str) -> None:
        self._console, self._verb = console, verb
        self._bar: Progress | None = None

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop()

    def report(self, what: str, done: int, total: int) -> None:
        """See `Report`."""
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.add_task(f"{self._verb} {what}", total=total or None)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done)
        if total and done >= total:
            # The screen must be free for the next output.
            self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
