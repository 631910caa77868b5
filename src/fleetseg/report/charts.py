"""Line charts over rounds, laid out in percent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from fleetseg.report import marks, words
from fleetseg.report.figures import ClassFigures, ReportFigures, RunFigures

_OWN_LINES = 5  # runs beside the first with their own colour; others are grey


@dataclass(frozen=True)
class Line:
    """One line of a chart; texts may be empty."""

    path: str
    points: str
    css: str
    end: str = ""
    end_top: str = ""
    name: str = ""
    name_left: str = ""
    name_below: bool = False
    name_top: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart over rounds."""

    title: str
    label: str  # text alternative
    x: marks.Axis
    y: marks.Axis
    x_ticks: tuple[int, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Flag:
    """The mark of an event above the curves."""

    number: int
    round: int
    text: str
    left: str
    row: int
    is_right: bool  # right of the middle, so that its text goes to the left


@dataclass(frozen=True)
class Spark:
    """The spark line of one class."""

    name: str
    critical: bool
    last: float | None
    label: str
    path: str


Points = Sequence[tuple[int, float]]


def charts(figures: ReportFigures) -> list[Chart]:
    """Draw the available charts: mIoU, loss, megabytes, seconds."""
    rounds = figures.rounds
    if not rounds:
        return []
    last = _last_round(figures)
    found = [_scores(figures, last), _losses(figures, last)]
    if figures.run.bytes_up:
        up = [(row.round, row.mb_up) for row in rounds]
        down = [(row.round, row.mb_down) for row in rounds]
        lines = {"up": up, "down": down}
        found.append(_chart("MB per round", lines, last, zero=True, digits=1))
    seconds = {"all": [(row.round, row.seconds) for row in rounds]}
    training = [
        (row.round, row.training_seconds) for row in rounds if row.training_seconds is not None
    ]
    if any(row.training_seconds != row.seconds for row in rounds) and training:
        seconds["training"] = training
    found.append(_chart("Seconds per round", seconds, last, zero=True, digits=1))
    return [chart for chart in found if chart is not None]


def flags(figures: ReportFigures) -> list[Flag]:
    """Place a flag for each event, above its round in every chart."""
    if not figures.rounds or not figures.events:
        return []
    x = _round_axis(_last_round(figures))
    lefts = [x.at(event.round) for event in figures.events]
    rows = flag_rows([float(left) for left in lefts])
    return [
        Flag(number, event.round, event.text, left, row, float(left) > 50)
        for number, (event, left, row) in enumerate(
            zip(figures.events, lefts, rows, strict=True), 1
        )
    ]


def _last_round(figures: ReportFigures) -> int:
    return max([figures.run.rounds, *(run.rounds for run in figures.others)])


def _round_axis(last: int) -> marks.Axis:
    return marks.Axis(1, max(2, last), ())


def flag_rows(places: Sequence[float], apart: float = 7.0) -> list[int]:
    """Assign each flag to one of three rows, so that neighbours do not overlap.

    Places are in percent of the chart's width, in ascending order.

    >>> flag_rows([10, 12, 14, 40])
    [0, 1, 2, 0]
    """
    rows: list[int] = []
    for k, place in enumerate(places):
        near = {row for row, other in zip(rows, places[:k], strict=True) if place - other < apart}
        rows.append(next((row for row in range(3) if row not in near), 0))
    return rows


def _scores(figures: ReportFigures, last: int) -> Chart | None:
    title = "mIoU" + (f" on {figures.scored_on}" if figures.scored_on else "")
    if figures.others:
        runs = {run.name: run.curve for run in (figures.run, *figures.others)}
        return _chart(title, runs, last, zero=True, digits=3, runs=True)
    critical = [(r.round, r.critical_miou) for r in figures.rounds if r.critical_miou is not None]
    lines: dict[str, Points] = {"all classes": figures.run.curve, "critical classes": critical}
    return _chart(title, lines, last, zero=True, digits=3)


def _losses(figures: ReportFigures, last: int) -> Chart | None:
    runs = (figures.run, *figures.others)
    lines: dict[str, Points] = {_loss_name(run, figures): run.losses for run in runs}
    return _chart("Training loss", lines, last, zero=True, digits=2, runs=bool(figures.others))


def _loss_name(run: RunFigures, figures: ReportFigures) -> str:
    return run.name if figures.others else ""


def _chart(
    title: str,
    named: Mapping[str, Points],
    last: int,
    *,
    zero: bool,
    digits: int,
    runs: bool = False,
) -> Chart | None:
    named = {name: points for name, points in named.items() if points}
    if max(map(len, named.values()), default=0) < 2:
        return None
    x = _round_axis(last)
    y = marks.axis([v for points in named.values() for _, v in points], zero=zero, ticks=4)
    tops = _apart([float(y.up(points[-1][1])) for points in named.values()])
    lower = "" if runs or len(named) != 2 else min(reversed(named), key=lambda n: _mean(named[n]))
    lines = []
    for k, (name, points) in enumerate(named.items()):
        few = len(points) <= 30
        at = points[min(len(points) // 3, len(points) - 2)] if len(points) > 1 else points[0]
        lines.append(
            Line(
                path=marks.line(points, x, y),
                points=marks.dots(points, x, y) if few else "",
                css=_css(k, runs),
                end="" if runs and k > _OWN_LINES else f"{points[-1][1]:.{digits}f}",
                end_top=f"{tops[k]:.2f}",
                name=name if len(named) > 1 and not runs else "",  # named in a legend
                name_left=x.at(at[0]),
                name_top=y.up(at[1]),
                name_below=name == lower and float(y.up(at[1])) < 85,
            )
        )
    told = "; ".join(
        f"{name} from {p[0][1]:.{digits}f} to {p[-1][1]:.{digits}f}".strip()
        for name, p in named.items()
    )
    middle = (1 + last) // 2
    ticks = tuple(dict.fromkeys((1, middle, last)))
    return Chart(title, f"{title}: {told}", x, y, ticks, tuple(lines))


def _mean(points: Points) -> float:
    return sum(value for _, value in points) / len(points)


def legend(figures: ReportFigures) -> list[tuple[str, str]]:
    """Name the lines of several runs: (CSS class of the line, name)."""
    names = [figures.run.name, *(run.name for run in figures.others)]
    return [(_css(k, True), name) for k, name in enumerate(names)] if figures.others else []


def _css(k: int, runs: bool) -> str:
    if k == 0:
        return "fed"
    if not runs:
        return "fed dash"
    return f"run-{k}" if k <= _OWN_LINES else "more"


def _apart(tops: Sequence[float], least: float = 9.0) -> list[float]:
    """Push labels at line ends apart so that none overlap; in percent from the top."""
    order = sorted(range(len(tops)), key=lambda k: tops[k])
    placed = list(tops)
    for above, below in pairwise(order):
        placed[below] = max(placed[below], placed[above] + least)
    return placed


def sparks(classes: Sequence[ClassFigures]) -> list[Spark]:
    """Draw the IoU of each class over the scored rounds; empty for fewer than two."""
    found = []
    for row in classes:
        points = [(n, iou) for n, iou in row.history if iou is not None]
        if len(points) < 2:
            continue
        x, y = marks.Axis(points[0][0], points[-1][0], ()), marks.Axis(0.0, 1.0, ())
        told = f"{words.score(points[0][1])} in round {points[0][0]}, {words.score(points[-1][1])}"
        label = f"{row.name}: {told} in round {points[-1][0]}"
        found.append(Spark(row.name, row.critical, row.iou, label, marks.line(points, x, y)))
    return found
