"""A run in progress: a live table, a line per round, a JSON object per round, or nothing."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import typer
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from fleetseg.console import clock, count, print_line, ratio
from fleetseg.federation.engine import Received
from fleetseg.federation.messages import Failure
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.rounds import Watcher
from fleetseg.runs.records import RoundFacts

Style = Literal["live", "plain", "json", "quiet"]

_ROWS = 12  # rounds on the screen
_FRAME_LINES = 9  # lines of the screen that are not rounds
_PACE_ROUNDS = 5  # last rounds that the time left is estimated from


@dataclass(frozen=True)
class Heading:
    """The heading above a run."""

    title: str
    concurrency: int = 1  # how many vehicles train at the same time


class Pace:
    """The duration of rounds, and from it the time left."""

    def __init__(self, total_rounds: int, now: Callable[[], float] = time.monotonic) -> None:
        self._total, self._now = total_rounds, now
        self._recent: deque[float] = deque(maxlen=_PACE_ROUNDS)
        self._opened_s = now()

    def open(self) -> None:
        """Record that a round begins."""
        self._opened_s = self._now()

    def close(self) -> float:
        """Record that a round ends; return its seconds."""
        self._recent.append(self._now() - self._opened_s)
        return self._recent[-1]

    def left_s(self, rounds_done: int, *, inside: bool) -> float | None:
        """Estimate the seconds left; None before the first round is over."""
        if not self._recent:
            return None
        mean_s = sum(self._recent) / len(self._recent)
        spent_s = self._now() - self._opened_s if inside else 0.0
        return max(0.0, (self._total - rounds_done) * mean_s - min(spent_s, mean_s))


@contextmanager
def watching(
    style: Style,
    console: Console,
    *,
    heading: Callable[[], Heading],
    total_rounds: int,
) -> Iterator[Watcher]:
    """Show a run on a console within the block.

    Args:
        style: one of the names in `Style`.
        console: where to print.
        heading: called once, when the first round is open and the run folder exists.
        total_rounds: the number of rounds after which the run ends at the latest.
    """
    if style == "quiet":
        yield Watcher()
    elif style == "json":
        yield Watcher(round_closed=lambda record: typer.echo(json.dumps(record.to_dict())))
    elif style == "plain":
        yield _PlainLines(console, heading, total_rounds).watcher()
    else:
        table = LiveTable(heading, total_rounds, height=console.size.height)
        live = Live(table, console=console, refresh_per_second=4)
        try:
            yield table.watcher(on_start=live.start)
        finally:
            table.over = True
            if live.is_started:
                live.stop()


class _PlainLines:
    """One line per round, for logs and pipes."""

    def __init__(self, console: Console, heading: Callable[[], Heading], total_rounds: int) -> None:
        self._console, self._heading, self._total = console, heading, total_rounds
        self._pace = Pace(total_rounds)
        self._titled = False

    def watcher(self) -> Watcher:
        return Watcher(self._status_changed, self._opened, round_closed=self._closed)

    def _status_changed(self, what: str) -> None:
        print_line(self._console, what, "dim")

    def _opened(self, round_: int, cohort: Sequence[str]) -> None:
        self._pace.open()
        if not self._titled:
            self._titled = True
            print_line(self._console, self._heading().title)

    def _closed(self, record: RoundRecord) -> None:
        facts = RoundFacts.of(record, self._pace.close())
        left_s = self._pace.left_s(facts.round, inside=False)
        print_line(self._console, plain_line(facts, self._total, left_s))


def plain_line(facts: RoundFacts, total_rounds: int, left_s: float | None) -> str:
    """Format a round as one line of text."""
    names = ("late", "refused", "lost", "abstained")
    cohort = [f"{facts.ok} ok"] + [f"{n} {k}" for k in names if (n := getattr(facts, k))]
    parts = [f"round {facts.round}/{total_rounds}", ", ".join(cohort)]
    if facts.loss is not None:
        parts.append(f"loss {facts.loss:.3f}")
    if facts.miou is not None:
        parts.append(f"mIoU {ratio(facts.miou)} (critical {ratio(facts.critical_miou)})")
    parts.append(f"MB up {facts.mb_up:.1f} down {facts.mb_down:.1f}")
    parts.append(f"{facts.seconds:.1f} s")
    if left_s is not None:
        parts.append(f"left {clock(left_s)}")
    return "  ".join(parts)


class LiveTable:
    """The last rounds as a table with the current activity below, redrawn repeatedly."""

    def __init__(
        self, heading: Callable[[], Heading], total_rounds: int, *, height: int = 24
    ) -> None:
        self._heading_of, self._heading = heading, Heading("")
        self._total = total_rounds
        self._pace = Pace(total_rounds)
        self._rows: deque[RoundFacts] = deque(maxlen=max(3, min(_ROWS, height - _FRAME_LINES)))
        self._round, self._done = 0, 0
        self._cohort: tuple[str, ...] = ()
        self._waiting: tuple[str, ...] = ()
        self._inside = False
        self._spinner = Spinner("dots", style="green")
        self._start: Callable[[], Any] | None = None
        self._starting = ""
        self.over = False

    def watcher(self, on_start: Callable[[], Any]) -> Watcher:
        """Return the callbacks that feed the table; the first call starts drawing."""
        self._start = on_start
        return Watcher(self._begin, self._opened, self._replied, self._closed)

    def _begin(self, what: str) -> None:
        self._starting = what
        if self._start is not None:
            self._heading = self._heading_of()
            self._start()
            self._start = None

    def _opened(self, round_: int, cohort: Sequence[str]) -> None:
        self._pace.open()
        self._round, self._done = round_, round_ - 1
        self._cohort = self._waiting = tuple(cohort)
        self._inside = True
        self._begin("")

    def _replied(self, reply: Received, failure: Failure | None) -> None:
        self._waiting = tuple(c for c in self._waiting if c != reply.client_id)

    def _closed(self, record: RoundRecord) -> None:
        self._rows.append(RoundFacts.of(record, self._pace.close()))
        self._done, self._waiting, self._inside = record.round, (), False

    def __rich__(self) -> RenderableType:
        """Draw the current state."""
        parts: list[RenderableType] = [
            Text(self._heading.title, "bold", no_wrap=True, overflow="ellipsis")
        ]
        if self._rows:
            parts.append(rounds_table(self._rows, self._total))
        if not self.over:
            parts += ["", self._bar(), self._status()]
        return Group(*parts)

    def _bar(self) -> Table:
        # An empty cohort has answered in full.
        back = 1 - len(self._waiting) / max(1, len(self._cohort)) if self._inside else 0.0
        grid = Table.grid(expand=True, padding=(0, 1))
        grid.add_column(ratio=1)
        grid.add_column(justify="right", no_wrap=True)
        left_s = self._pace.left_s(self._done, inside=self._inside)
        left = "" if left_s is None else f"about {clock(left_s)} left"
        grid.add_row(ProgressBar(total=self._total, completed=self._done + 0.95 * back), left)
        return grid

    def _status(self) -> Table:
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True)
        grid.add_column(no_wrap=True, overflow="ellipsis")
        # Clients are handed out in order, so the first of the outstanding ones are in training.
        now = ", ".join(short_names(self._cohort, self._waiting[: self._heading.concurrency]))
        doing = f"training: {now}" if now else "scoring and saving"
        back = f"{len(self._cohort) - len(self._waiting)} of {count(len(self._cohort), 'vehicle')}"
        text = f"round {self._round} of {self._total}, {back} back, {doing}"
        if self._starting:
            text = self._starting
        grid.add_row(self._spinner, Text(text, overflow="ellipsis", no_wrap=True))
        return grid


def short_names(cohort: Sequence[str], names: Sequence[str]) -> list[str]:
    """Drop the leading words that all names of a cohort share.

    >>> short_names(["synthetic-amber-day", "synthetic-birch-day"], ["synthetic-amber-day"])
    ['amber-day']
    """
    words = [name.split("-") for name in cohort]
    shared = 0
    while len(words) > 1 and all(
        len(w) > shared + 1 and w[shared] == words[0][shared] for w in words
    ):
        shared += 1
    return ["-".join(name.split("-")[shared:]) for name in names]


def rounds_table(rows: Sequence[RoundFacts] | deque[RoundFacts], total_rounds: int) -> Table:
    """Lay out rounds as a table of at most 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    heads = ["round", "ok", "late", "ref.", "lost", "loss", "mIoU", "crit.", "MB up", "down", "s"]
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            f"{row.round}/{total_rounds}",
            Text(str(row.ok), "green" if row.ok else "red"),
            _trouble(row.late),
            _trouble(row.refused),
            _trouble(row.lost + row.abstained),
            "–" if row.loss is None else f"{row.loss:.3f}",
            Text(ratio(row.miou), "bold"),
            ratio(row.critical_miou),
            _megabytes(row.mb_up),
            _megabytes(row.mb_down),
            f"{row.seconds:.1f}" if row.seconds < 100 else f"{row.seconds:.0f}",
        )
    return table


def _trouble(number: int) -> Text:
    return Text(str(number), "yellow" if number else "dim")


def _megabytes(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else f"{value:,.0f}"
