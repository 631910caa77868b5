"""`fleetseg run`: start it, show it, say how it ended."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import typer
from rich.console import Console
from rich.text import Text

from fleetseg import api
from fleetseg.config import Experiment, load_experiment
from fleetseg.console import (
    INTERRUPTED,
    clock,
    count,
    ratio,
    say,
    stderr_console,
    stdout_console,
)
from fleetseg.console.interrupts import interruptible
from fleetseg.console.live import Style, watching
from fleetseg.console.reading import reading
from fleetseg.console.tables import (
    Row,
    comparison_table,
    domains_table,
    effort,
    iou_table,
    name_cell,
    plain_table,
    score_lines,
)
from fleetseg.data.labels import label_space
from fleetseg.data.manifest import Manifest
from fleetseg.errors import CheckpointError, ConfigError
from fleetseg.federation.runfolder import can_resume, has_run, read_end, read_records
from fleetseg.runner import Run

_NOTES = 5  # of the end, before "and so many more"
REASONS = {
    "rounds": "all rounds are done",
    "target": "the target mIoU is reached",
    "plateau": "mIoU has stopped rising",
    "time": "the minutes are used up",
    "megabytes": "the megabytes are used up",
    "interrupted": "interrupted",
}


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    experiment: Experiment
    out: Path
    style: Style
    again: str  # the command that goes on with this run
    resume: bool = False
    baseline: Literal["centralised", "local"] | None = None


def make_request(
    file: Path | None,
    overrides: Sequence[str],
    *,
    out: Path | None,
    resume: bool,
    baseline: Literal["centralised", "local"] | None,
    style: Style,
) -> Request:
    """Find the experiment and the run folder.

    Raises:
        ConfigError, CheckpointError: there is no such experiment or run.
    """
    if file is None:
        if out is None or not resume:
            raise typer.BadParameter("name an EXPERIMENT.toml, or a run with --resume --out DIR")
        file = _own_experiment(out, baseline)
    experiment = load_experiment(file, overrides)
    if out is None and not resume:
        out = Path("runs") / f"{time.strftime('%Y-%m-%d_%H%M%S')}_{experiment.name}"
    if out is None:
        raise CheckpointError("--resume needs --out: the run folder to go on with")
    words = ["fleetseg", "run", str(file)]
    words += [word for override in overrides for word in ("--set", override)]
    words += ["--baseline", baseline] if baseline else []
    again = shlex.join([*words, "--resume", "--out", str(out)])
    return Request(experiment, out, style, again, resume, baseline)


def _own_experiment(out: Path, baseline: str | None) -> Path:
    if not has_run(out):
        raise CheckpointError(
            "there is no run to go on with",
            where=out,
            expected="a run folder with experiment.toml",
            cure="Name the EXPERIMENT.toml to start it",
        )
    centralised = any(record["cohort"] == ["centralised"] for record in read_records(out))
    if baseline is not None or centralised:
        # A baseline's own experiment.toml says what its one client did, not whom it stands for.
        raise ConfigError(
            "a baseline is resumed from the experiment it was started with",
            where=out,
            cure="fleetseg run EXPERIMENT.toml --baseline KIND --resume --out DIR",
        )
    return out / "experiment.toml"


def style_of(console: Console, *, as_json: bool, quiet: bool) -> Style:
    """Choose how a run is shown."""
    if as_json:
        return "json"
    if quiet:
        return "quiet"
    return "live" if console.is_terminal else "plain"


def run_and_show(request: Request) -> int:
    """Run, show, and return the exit code."""
    console = stdout_console()
    with interruptible():
        try:
            runs = _run(request, console)
        except KeyboardInterrupt:
            _say_how_to_go_on(request)
            return INTERRUPTED
    if request.baseline == "local":
        _show_local(request, runs, console)
    else:
        _show_end(request, runs[""], console)
    if any(run.reason == "interrupted" for run in runs.values()):
        _say_how_to_go_on(request)
        return INTERRUPTED
    return 0


def _run(request: Request, console: Console) -> Mapping[str, Run]:
    experiment, style = request.experiment, request.style
    quiet = style in ("json", "quiet")
    with (
        reading(stderr_console(), quiet=quiet) as progress,
        watching(
            style,
            console,
            title=lambda: _title(request),
            total_rounds=experiment.federation.rounds,
            lanes=1 if request.baseline else lanes(experiment),
        ) as watcher,
    ):
        if request.baseline == "local":
            return api.run_local(
                experiment,
                out=request.out,
                resume=request.resume,
                watcher=watcher,
                progress=progress,
            )
        run = api.run(
            experiment,
            out=request.out,
            resume=request.resume,
            baseline=request.baseline,
            watcher=watcher,
            progress=progress,
        )
        return {"": run}


def lanes(experiment: Experiment) -> int:
    """How many vehicles train at the same time."""
    settings = experiment.engine
    return 1 if settings.kind == "inprocess" else settings.workers or os.cpu_count() or 1


def _title(request: Request) -> str:
    name, model = request.experiment.name, request.experiment.model.name
    if request.baseline == "local":
        return f"{name}, local only: every vehicle alone · {model}"
    # The run folder knows the fleet: it was written before the first round.
    fleet = fleet_words(Manifest.read(request.out / "manifest.json"))
    if request.baseline == "centralised":
        return f"{name}, centralised: {fleet} in one place · {model}"
    workers = lanes(request.experiment)
    where = "this process" if workers == 1 else f"{workers} at a time"
    return f"{name} · {fleet} · {model} · {where}"


def fleet_words(manifest: Manifest) -> str:
    """Say how large a fleet is."""
    images = sum(len(entries) for entries in manifest.clients.values())
    return f"{count(len(manifest.clients), 'vehicle')}, {count(images, 'image')}"


def _show_end(request: Request, run: Run, console: Console) -> None:
    if request.style == "json":
        typer.echo(json.dumps({**(read_end(run.folder) or {}), "folder": str(run.folder)}))
        return
    if request.style == "quiet":
        say(console, _final_line(run))
        return
    critical = label_space(request.experiment.data.label_space).critical
    if run.scores:
        console.print()
        console.print(iou_table(run.scores, critical))
        console.print()
        for line in score_lines(run.scores, critical):
            console.print(Text(line))
    if "by_client" in run.scores:
        console.print()
        console.print(domains_table(run.scores["by_client"], "vehicle"))
    _show_notes(run.notes, console)
    console.print()
    for label, text in _facts(run):
        say(console, Text.assemble((f"{label:<12}", "dim"), text))


def _facts(run: Run) -> list[tuple[str, str]]:
    images, steps, in_a_row = effort(run.records)
    up, down = (sum(r[f"bytes_{way}"] for r in run.records) / 1e6 for way in ("up", "down"))
    return [
        ("stopped", f"after {count(len(run.records), 'round')}: {REASONS[run.reason]}"),
        *_which_round(run),
        ("effort", f"{images:,} images seen, {steps:,} steps ({in_a_row:,} in a row)"),
        ("traffic", f"{up:,.1f} MB up, {down:,.1f} MB down"),
        ("time", clock(run.seconds)),
        ("run folder", str(run.folder)),
        ("model", str(run.folder / "model" / "model.safetensors")),
        ("sha256", run.model_sha256),
    ]


def _which_round(run: Run) -> list[tuple[str, str]]:
    """Say so if the scores are not the final model's: an interrupted run is not scored again."""
    scored = [r["round"] for r in run.records if "scores" in r]
    stale = run.reason == "interrupted" and scored and scored[-1] != run.records[-1]["round"]
    return [("scores", f"of round {scored[-1]}, the last one scored")] if stale else []


def _final_line(run: Run) -> str:
    scores = f"mIoU {ratio(run.miou)} critical {ratio(run.scores.get('critical_miou'))}"
    return (
        f"{scores}  {count(len(run.records), 'round')} ({run.reason})  "
        f"{run.folder}  sha256 {run.model_sha256}"
    )


def _show_notes(notes: Sequence[str], console: Console) -> None:
    if not notes:
        return
    console.print()
    for note in notes[:_NOTES]:
        console.print(Text(f"note: {note}", "yellow"))
    if len(notes) > _NOTES:
        say(
            console, f"and {count(len(notes) - _NOTES, 'more note')}: see fleetseg partition", "dim"
        )


def _show_local(request: Request, runs: Mapping[str, Run], console: Console) -> None:
    if request.style == "json":
        for client, run in runs.items():
            end = read_end(run.folder) or {}
            typer.echo(json.dumps({**end, "client": client, "folder": str(run.folder)}))
        return
    if request.style != "quiet":
        console.print()
        console.print(local_table(runs))
        console.print()
    say(console, _local_line(runs))


def local_table(runs: Mapping[str, Run]) -> object:
    """List what each vehicle's own model scores on everything."""
    table = plain_table(
        "vehicle alone", "mIoU", "critical", "images seen", "steps", left=("vehicle alone",)
    )
    for client, run in runs.items():
        images, steps, _ = effort(run.records)
        table.add_row(
            name_cell(client),
            ratio(run.miou),
            ratio(run.scores.get("critical_miou")),
            f"{images:,}",
            f"{steps:,}",
        )
    return table


def local_row(name: str, runs: Mapping[str, Run]) -> Row:
    """Sum up vehicles that trained alone: the mean of their models' scores."""
    mious = [run.miou for run in runs.values() if run.miou is not None]
    critical = [c for run in runs.values() if (c := run.scores.get("critical_miou")) is not None]
    efforts = [effort(run.records) for run in runs.values()]
    return Row(
        name,
        sum(mious) / len(mious) if mious else None,
        sum(critical) / len(critical) if critical else None,
        images_seen=round(sum(e[0] for e in efforts) / len(efforts)),
        steps=round(sum(e[1] for e in efforts) / len(efforts)),
        longest_steps=round(sum(e[2] for e in efforts) / len(efforts)),
    )


def run_row(name: str, run: Run) -> Row:
    """Put a run into a row of a comparison."""
    images, steps, in_a_row = effort(run.records)
    return Row(name, run.miou, run.scores.get("critical_miou"), images, steps, in_a_row)


def _local_line(runs: Mapping[str, Run]) -> str:
    scored = {client: run.miou for client, run in runs.items() if run.miou is not None}
    if not scored:
        return f"{count(len(runs), 'vehicle')} trained alone; nothing to score on"
    best = max(scored, key=lambda client: scored[client])
    mean = sum(scored.values()) / len(scored)
    return (
        f"mIoU of {count(len(scored), 'vehicle')} alone: mean {ratio(mean)}, "
        f"best {ratio(scored[best])} ({best})"
    )


def _say_how_to_go_on(request: Request) -> None:
    folders = [request.out, *request.out.glob("*/")] if request.out.is_dir() else []
    if any(can_resume(folder) for folder in folders):
        say(stderr_console(), f"interrupted; go on with: {request.again}")
    else:
        say(stderr_console(), "interrupted before the first round")


__all__ = [
    "Request",
    "comparison_table",
    "fleet_words",
    "lanes",
    "local_row",
    "local_table",
    "make_request",
    "run_and_show",
    "run_row",
    "style_of",
]
