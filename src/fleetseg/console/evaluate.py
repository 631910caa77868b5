"""`fleetseg evaluate`: a saved model on a data set, at the labels' own resolution."""

from __future__ import annotations

import json
from pathlib import Path

import typer
from rich.text import Text

from fleetseg.config import Experiment, SourceConfig
from fleetseg.console import count, say, stderr_console, stdout_console
from fleetseg.console.progress import reading
from fleetseg.console.tables import domains_table, iou_table, score_lines
from fleetseg.runs.evaluate import Evaluated, evaluate

_BAD_LISTED = 10


def evaluate_and_show(
    path: Path, config: SourceConfig, *, as_json: bool, pictures: Path | None
) -> None:
    """Score a model folder or run folder on a data set and print what came out."""
    with reading(stderr_console(), quiet=as_json) as progress:
        what = f"{config.kind}/{config.split}"
        result = evaluate(path, config, pictures=pictures, progress=progress)
    _show(result, what, as_json=as_json)
    if result.pictures and not as_json:
        say(stdout_console(), f"{count(len(result.pictures), 'picture')} in {pictures}")


def evaluate_where(path: Path, experiment: Experiment, *, as_json: bool) -> None:
    """Score a model on the test frames of an experiment, grouped as it says, and print."""
    with reading(stderr_console(), quiet=as_json) as progress:
        result = evaluate(path, experiment, progress=progress)
    _show(result, f"the test frames of {experiment.name}", as_json=as_json)


def _show(result: Evaluated, what: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result.to_dict()))
        return
    console, critical = stdout_console(), result.scores.space.critical
    console.print(iou_table(result.scores.to_dict(), critical))
    console.print()
    if len(result.by_domain) > 1:
        table = domains_table({name: s.to_dict() for name, s in result.by_domain.items()})
        console.print(table)
        console.print()
    for line in score_lines(result.scores.to_dict(), critical):
        console.print(Text(line))
    say(console, f"{count(result.num_images, 'image')} of {what}")
    for text in result.bad[:_BAD_LISTED]:
        say(console, f"bad sample skipped: {text}", "yellow")
    if (more := len(result.bad) - _BAD_LISTED) > 0:
        say(console, f"and {count(more, 'more bad sample')}: see fleetseg data check", "yellow")
