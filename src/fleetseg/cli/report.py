"""`fleetseg report`: the report page of one or several runs."""

from __future__ import annotations

from fleetseg.cli import options as o
from fleetseg.console import reports_errors


@reports_errors
def report(
    runs: o.Runs, out: o.ReportPage = None, despite: o.Despite = None, debug: o.Debug = False
) -> None:
    """Write a run's report page: findings, curves, classes, vehicles, pictures; works offline.

    Of several runs, the first federated one is the subject of the page; the others, and its
    centralised and local baselines, stand beside it. Runs that were not scored in the same way
    are refused, as by fleetseg compare.

    \b
    Examples:
      fleetseg report runs/camvid
      fleetseg report runs/camvid runs/camvid-centralised runs/camvid-local --out camvid.html
      fleetseg report runs/fedavg runs/fedprox
    """  # noqa: D301
    from fleetseg.console.report import report_and_show

    report_and_show(runs, out, despite or ())
