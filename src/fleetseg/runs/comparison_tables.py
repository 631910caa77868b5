"""A comparison as tables of text, which the terminal, Markdown and LaTeX lay out alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fleetseg.evaluation.protocol import protocol_lines
from fleetseg.runs.comparison import Comparison, ComparisonRow, Spreads
from fleetseg.runs.figures import Spread

NOTHING = "–"
CRITICAL_MARK = "!"


@dataclass(frozen=True)
class TextTable:
    """A title, column heads and rows of text; the first column names the row."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: frozenset[tuple[int, int]] = frozenset()  # (row, column) of the highest figures


def tables_of(comparison: Comparison, *, brief: bool = False) -> list[TextTable]:
    """Lay out a comparison: scores, cost, classes and domains; if brief, means of the last two."""
    rows, space = comparison.rows, comparison.space
    classes = {
        f"{name} {CRITICAL_MARK}" if name in space.critical else name: _of(name, lambda r: r.iou)
        for name in space.classes
    }
    domains = {name: _of(name, lambda r: r.by_domain) for name in comparison.domains}
    tables = [_scores(comparison), _cost(rows)]
    if comparison.protocol is not None:
        tables.append(_figures("IoU of each class", rows, classes, brief))
    if len(domains) > 1:
        tables.append(_figures("mIoU of each domain", rows, domains, brief))
    return tables


def remarks_of(comparison: Comparison) -> list[str]:
    """Say how to read the figures: what the spread is of, how they were scored."""
    lines = []
    if any(len(row.seeds) > 1 for row in comparison.rows):
        lines.append("± is the sample deviation over n seeds")
    if comparison.last:
        lines.append(
            f"means over the last {comparison.last} scored rounds of each run; of a single seed, "
            "± is the sample deviation over these rounds"
        )
    if comparison.clients_on:
        lines.append(f"vehicles are scored on their own {comparison.clients_on}")
    if comparison.protocol is not None:
        lines.append(f"{CRITICAL_MARK} safety-critical; the best figure is bold")
        lines += protocol_lines(comparison.protocol)
    return [*lines, *comparison.notes]


def figure_text(figure: Spread | None) -> str:
    """Format an IoU with three digits, and its deviation if there is one.

    >>> figure_text(Spread(0.6764, 0.0121, 3)), figure_text(Spread(0.5, None, 1))
    ('0.676±0.012', '0.500')
    """
    if figure is None:
        return NOTHING
    return f"{figure.mean:.3f}" + ("" if figure.std is None else f"±{figure.std:.3f}")


def _scores(comparison: Comparison) -> TextTable:
    rows = comparison.rows
    columns: dict[str, Callable[[ComparisonRow], str]] = {"n": lambda r: str(len(r.seeds))}
    columns |= {
        "mIoU": lambda r: figure_text(r.miou),
        "critical mIoU": lambda r: figure_text(r.critical_miou),
        "worst critical class": lambda r: _named(r.worst_critical),
    }
    if any(row.by_client for row in rows):
        columns["worst vehicle"] = lambda r: _named(r.worst_client)
    best = _best(1, [row.miou for row in rows]) | _best(2, [r.critical_miou for r in rows])
    return _table("scores", rows, columns, {(row, column + 1) for row, column in best})


def _cost(rows: Sequence[ComparisonRow]) -> TextTable:
    return _table(
        "cost",
        rows,
        {
            "rounds": lambda r: f"{r.rounds.mean:,.0f}",
            "images": lambda r: f"{r.images.mean:,.0f}",
            "steps": lambda r: f"{r.steps.mean:,.0f}",
            "MB up": lambda r: _megabytes(r.mb_up),
            "MB down": lambda r: _megabytes(r.mb_down),
            "seconds": lambda r: f"{r.seconds.mean:,.0f}",
        },
    )


def _megabytes(figure: Spread | None) -> str:
    return NOTHING if figure is None else f"{figure.mean:,.1f}"


def _figures(
    title: str,
    rows: Sequence[ComparisonRow],
    figures: Mapping[str, Callable[[ComparisonRow], Spread | None]],
    brief: bool,
) -> TextTable:
    best: set[tuple[int, int]] = set()
    for column, figure in enumerate(figures.values(), 1):
        best |= _best(column, [figure(row) for row in rows])
    texts = {head: _text(figure, brief) for head, figure in figures.items()}
    return _table(title, rows, texts, best)


def _text(
    figure: Callable[[ComparisonRow], Spread | None], brief: bool
) -> Callable[[ComparisonRow], str]:
    def text(row: ComparisonRow) -> str:
        found = figure(row)
        return figure_text(replace(found, std=None) if found and brief else found)

    return text


def _of(
    name: str, figures: Callable[[ComparisonRow], Spreads]
) -> Callable[[ComparisonRow], Spread | None]:
    return lambda row: figures(row).get(name)


def _table(
    title: str,
    rows: Sequence[ComparisonRow],
    columns: Mapping[str, Callable[[ComparisonRow], str]],
    best: Iterable[tuple[int, int]] = (),
) -> TextTable:
    cells = tuple((row.name, *(text(row) for text in columns.values())) for row in rows)
    return TextTable(title, ("", *columns), cells, frozenset(best))


def _named(worst: tuple[str, Spread] | None) -> str:
    return NOTHING if worst is None else f"{worst[0]} {figure_text(worst[1])}"


def _best(column: int, figures: Sequence[Spread | None]) -> set[tuple[int, int]]:
    """Return the cells with the highest mean as printed; none where there is nothing to choose."""
    known = {row: f"{figure.mean:.3f}" for row, figure in enumerate(figures) if figure is not None}
    if len(set(known.values())) < 2:
        return set()
    highest = max(known.values())
    return {(row, column) for row, text in known.items() if text == highest}
