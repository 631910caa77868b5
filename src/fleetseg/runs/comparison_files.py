"""A comparison as text to store or paste: CSV with every figure, Markdown, LaTeX (booktabs)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence

from fleetseg.evaluation.protocol import protocol_lines
from fleetseg.runs.comparison import Comparison, ComparisonRow
from fleetseg.runs.comparison_tables import TextTable, remarks_of, tables_of
from fleetseg.runs.figures import Spread

_COSTS = ("rounds", "images", "steps", "mb_up", "mb_down", "seconds")
_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r" $\pm$ ",
    "–": "--",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def to_csv(comparison: Comparison) -> str:
    """Write one line per row with all figures, unrounded; missing ones are left empty."""
    protocol = comparison.protocol
    how = "; ".join(protocol_lines(protocol)) if protocol else ""
    lines = [{**_csv_fields(row, comparison), "protocol": how} for row in comparison.rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _csv_fields(row: ComparisonRow, comparison: Comparison) -> dict[str, object]:
    fields: dict[str, object] = {
        "name": row.name,
        "n": len(row.seeds),
        "seeds": " ".join(map(str, row.seeds)),
        "last_rounds": comparison.last or 1,
    }
    clients = sorted({name for each in comparison.rows for name in each.by_client})
    worst_critical, worst_client = row.worst_critical, row.worst_client
    figures: dict[str, Spread | None] = {
        "miou": row.miou,
        "critical_miou": row.critical_miou,
        "worst_critical_iou": worst_critical[1] if worst_critical else None,
        "worst_client_miou": worst_client[1] if worst_client else None,
        **{name: getattr(row, name) for name in _COSTS},
        **{f"iou:{name}": row.iou.get(name) for name in comparison.space.classes},
        **{f"domain:{name}": row.by_domain.get(name) for name in comparison.domains},
        **{f"client:{name}": row.by_client.get(name) for name in clients},
    }
    for name, figure in figures.items():
        fields[name] = "" if figure is None else figure.mean
        fields[f"{name}_std"] = "" if figure is None or figure.std is None else figure.std
    fields["worst_critical_class"] = worst_critical[0] if worst_critical else ""
    fields["worst_client"] = worst_client[0] if worst_client else ""
    fields["runs"] = "; ".join(str(path) for path in row.runs)
    return fields


def to_markdown(comparison: Comparison) -> str:
    """Write the tables in Markdown, with the remarks below."""
    blocks = [_markdown_table(table) for table in tables_of(comparison)]
    remarks = "\n".join(f"* {_markdown(line)}" for line in remarks_of(comparison))
    return "\n\n".join([*blocks, remarks]).rstrip() + "\n"


def _markdown_table(table: TextTable) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    rows = _cells(table, _markdown, "**{}**")
    head = [_markdown(head) for head in (table.title, *table.heads[1:])]
    under = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join([line(head), line(under), *map(line, rows)])


def _cells(table: TextTable, escaped: Callable[[str], str], bold: str) -> list[list[str]]:
    """Write the cells of a table, the best of each column in bold."""
    return [
        [
            bold.format(escaped(cell)) if (at, column) in table.best else escaped(cell)
            for column, cell in enumerate(row)
        ]
        for at, row in enumerate(table.rows)
    ]


def _markdown(text: str) -> str:
    r"""Escape a text so that none of its characters is markup.

    >>> print(_markdown("a|b_c*"))
    a\|b\_c\*
    """
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text)


def to_latex(comparison: Comparison) -> str:
    """Write the tables for LaTeX with the package booktabs, with remarks as comments."""
    remarks = [f"% {' '.join(line.split())}" for line in remarks_of(comparison)]
    blocks = [_latex_table(table) for table in tables_of(comparison)]
    return "\n\n".join(["\n".join(["% \\usepackage{booktabs}", *remarks]), *blocks]) + "\n"


def _latex_table(table: TextTable) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"{' & '.join(cells)} \\\\"

    rows = _cells(table, _latex, r"\textbf{{{}}}")
    return "\n".join(
        [
            f"% {table.title}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.heads) - 1)}}}",
            r"\toprule",
            line([_latex(head) for head in table.heads]),
            r"\midrule",
            *map(line, rows),
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def _latex(text: str) -> str:
    r"""Escape a text so that none of its characters is a command.

    >>> print(_latex("a_b & 50% ± 1"))
    a\_b \& 50\%  $\pm$  1
    """
    return "".join(_TEX.get(sign, sign) for sign in text)
