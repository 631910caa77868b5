"""`fleetseg evaluate`: a saved model on a data set, at the labels' own resolution."""

from __future__ import annotations

import json
from pathlib import Path

import typer
from rich.text import Text

from fleetseg.config import EvaluationConfig, Experiment, SourceConfig
from fleetseg.console import count, print_line, stderr_console, stdout_console
from fleetseg.console.progress import reading
from fleetseg.console.tables import domains_table, iou_table, score_lines
from fleetseg.evaluation.protocol import transductive_words
from fleetseg.runs.evaluate import Evaluated, evaluate

_BAD_LISTED = 10


def evaluate_and_show(
    path: Path,
    on: SourceConfig | Experiment,
    *,
    as_json: bool,
    pictures: Path | None,
    norms: str | None = None,
    settings: EvaluationConfig | None = None,
    cluster: int | None = None,
) -> None:
    """Score a model or run folder on a data set or an experiment's test frames; print scores."""
    with reading(stderr_console(), quiet=as_json) as progress:
        result = evaluate(
            path,
            on,
            norms=norms,
            settings=settings,
            cluster=cluster,
            pictures=pictures,
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(result.to_dict()))
        return
    _show(result, _words_on(on))
    if result.pictures:
        print_line(stdout_console(), f"{count(len(result.pictures), 'picture')} in {pictures}")


def _words_on(on: SourceConfig | Experiment) -> str:
    if isinstance(on, SourceConfig):
        return f"{on.kind}/{on.split}"
    return f"the test frames of {on.name}"


def _show(result: Evaluated, what: str) -> None:
    console, critical = stdout_console(), result.scores.space.critical
    console.print(iou_table(result.scores.to_dict(), critical))
    console.print()
    if len(result.by_domain) > 1:
        table = domains_table({name: s.to_dict() for name, s in result.by_domain.items()})
        console.print(table)
        console.print()
    for line in score_lines(result.scores.to_dict(), critical):
        console.print(Text(line))
    norms = "" if result.norms == "running" else f", norm statistics: {result.norms}"
    print_line(console, f"{count(result.num_images, 'image')} of {what}{norms}")
    for domain, chosen in sorted(result.banks.items()):
        told = ", ".join(f"{name} {number}" for name, number in chosen.items())
        print_line(console, f"banks of {domain}: {told}")
    if looked_at := result.transductive_images:
        print_line(console, transductive_words(looked_at))
    for text in result.bad[:_BAD_LISTED]:
        print_line(console, f"bad sample skipped: {text}", "yellow")
    if (more := len(result.bad) - _BAD_LISTED) > 0:
        print_line(
            console, f"and {count(more, 'more bad sample')}: see fleetseg data check", "yellow"
        )
