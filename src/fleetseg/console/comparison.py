"""`fleetseg compare`: run folders in one table."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fleetseg.console import print_line, stdout_console
from fleetseg.console.tables import plain_table
from fleetseg.files import write_atomic
from fleetseg.runs.comparison import Comparison, compare
from fleetseg.runs.comparison_files import to_csv, to_latex, to_markdown
from fleetseg.runs.comparison_tables import TextTable, remarks_of, tables_of

_GAP = 3  # columns of the screen between two columns of a table


def compare_and_show(
    runs: Sequence[Path],
    *,
    last: int,
    despite: Collection[str],
    csv: Path | None,
    markdown: bool,
    latex: bool,
) -> None:
    """Print the comparison as tables, or as text to paste; write the CSV file if one is named."""
    comparison = compare(runs, last=last, despite=despite)
    if markdown:
        typer.echo(to_markdown(comparison), nl=False)
    if latex:
        typer.echo(to_latex(comparison), nl=False)
    if not markdown and not latex:
        show_comparison(comparison, stdout_console())
    if csv is not None:
        write_atomic(csv, to_csv(comparison))


def show_comparison(comparison: Comparison, console: Console) -> None:
    """Print the tables; split those that are too wide into parts, each with the row names."""
    for table in tables_of(comparison, brief=True):
        for part in _parts(table, console.width):
            console.print(part)
            console.print()
    for line in remarks_of(comparison):
        print_line(console, line, "dim")


def _parts(table: TextTable, width: int) -> list[Table]:
    name_width = min(max(len(row[0]) for row in table.rows), max(16, width // 3))
    name_width = max(name_width, min(len(table.title), width // 3))
    parts: list[list[int]] = [[]]
    used = name_width
    for column in range(1, len(table.heads)):
        needed = _GAP + max(len(row[column]) for row in (table.heads, *table.rows))
        if parts[-1] and used + needed > width:
            parts.append([])
            used = name_width
        parts[-1].append(column)
        used += needed
    return [_part(table, columns, name_width) for columns in parts]


def _part(table: TextTable, columns: Sequence[int], name_width: int) -> Table:
    drawn = plain_table(table.title, *(table.heads[c] for c in columns), left=(table.title,))
    drawn.columns[0].min_width = drawn.columns[0].max_width = name_width
    for at, row in enumerate(table.rows):
        cells = [Text(row[c], "bold" if (at, c) in table.best else "") for c in columns]
        drawn.add_row(Text(row[0], overflow="fold"), *cells)
    return drawn
