"""`fleetseg sweep` and `fleetseg compare`: commands over several runs."""

from __future__ import annotations

import typer

from fleetseg.cli import options as o
from fleetseg.cli.tracking import Track, tracking
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
    """Compare runs: scores, classes, domains, cost; seeds as mean and standard deviation.

    Runs that were not scored in the same way are refused, with the differences. The folder of a
    sweep, or any folder of run folders, stands for its finished runs.

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


@reports_errors
def sweep(
    file: o.OptionalSweep = None,
    overrides: o.Overrides = None,
    out: o.SweepFolder = None,
    jobs: o.Jobs = 1,
    resume: o.ResumeSweep = False,
    track: Track = None,
    plan_only: o.PlanOnly = False,
    debug: o.Debug = False,
) -> None:
    """Run an experiment with many settings and seeds, and compare the runs.

    All settings are checked before the first run starts. A failing run does not stop the others:
    it is listed at the end, and the exit code is 1. --resume runs what is missing.

    \b
    Examples:
      fleetseg sweep examples/sweep-tiny.toml --dry-run
      fleetseg sweep examples/sweep-tiny.toml --jobs 2 --out runs/tiny-sweep
      fleetseg sweep --resume --out runs/tiny-sweep
      fleetseg sweep examples/sweep-tiny.toml --track tensorboard
      fleetseg sweep examples/sweep-tiny.toml --set federation.rounds=12 --set seeds=[0,1,2]
    """  # noqa: D301
    from fleetseg.console.sweep import show_plan, sweep_and_show

    if file is None and (out is None or not (resume or plan_only)):
        raise typer.BadParameter("name a SWEEP.toml, or a sweep with --resume --out DIR")
    settings = [*(overrides or ()), *tracking(track)]
    if plan_only:
        show_plan(file, out=out, overrides=settings)
        return
    code = sweep_and_show(file, out=out, jobs=jobs, resume=resume, overrides=settings)
    raise typer.Exit(code)
