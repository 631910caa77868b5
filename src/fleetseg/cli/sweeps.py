"""`fleetseg compare`: commands over several runs."""

from __future__ import annotations

import typer

from fleetseg.cli import options as o
from fleetseg.console import reports_errors


@reports_errors
def compare(
    runs: o.Runs,
    last: o.Last = 0,
    csv: o.Csv = None,
    markdown: o.Markdown = False,
    latex: o.Latex = False,
    despite: o.Despite = None,
    debug: o.Debug = False,
) -> None:
    """Set runs side by side: scores, classes, domains, cost; seeds pooled to mean and deviation.

    Runs whose scores were not taken in one way are refused, saying where they differ. The folder of
    a sweep, or any folder of run folders, stands for those of its runs that are over.

    \b
    Examples:
      fleetseg compare runs/fedavg runs/fedprox
      fleetseg compare runs/my-sweep --csv figures.csv
      fleetseg compare runs/my-sweep --last 5 --latex > table.tex
      fleetseg compare runs/half-size runs/full-size --despite size_hw --markdown
    """  # noqa: D301
    from fleetseg.console.comparison import compare_and_show

    if markdown and latex:
        raise typer.BadParameter("name one of --markdown and --latex")
    compare_and_show(
        runs, last=last, despite=despite or (), csv=csv, markdown=markdown, latex=latex
    )
