"""`fleetseg report`: one page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleetseg.cli import options as o
from fleetseg.console import reports_errors
from fleetseg.hosts import given_path

Page = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="FILE.html", help="The page; default: report.html in the first RUN.",
        show_default=False, parser=given_path,
    ),
]  # fmt: skip


@reports_errors
def report(
    runs: o.Runs, out: Page = None, despite: o.Despite = None, debug: o.Debug = False
) -> None:
    """Write one page of a run: findings, curves, classes, vehicles, pictures. Needs no network.

    Of several runs, the first federated one is what the page is about; the others, and its
    centralised and local baselines, stand beside it. Runs that were not scored in one way are
    refused, as by fleetseg compare.

    \b
    Examples:
      fleetseg report runs/camvid
      fleetseg report runs/camvid runs/camvid-centralised runs/camvid-local --out camvid.html
      fleetseg report runs/fedavg runs/fedprox
    """  # noqa: D301
    from fleetseg.console.report import report_and_show

    report_and_show(runs, out, despite or ())
