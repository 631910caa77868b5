"""How a run ended: scores, effort, traffic, and where everything lies."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fleetseg.console import clock, count, print_error, ratio, say
from fleetseg.console.live import Style
from fleetseg.console.tables import (
    Row,
    domains_table,
    effort,
    iou_table,
    name_cell,
    plain_table,
    score_lines,
)
from fleetseg.federation import rounds
from fleetseg.runs.folder import read_end
from fleetseg.runs.run import Run

_NOTES = 5  # of the end, before "and so many more"
REASONS = {
    "rounds": "all rounds are done",
    "target": "the target mIoU is reached",
    "plateau": "mIoU has stopped rising",
    "time": "the minutes are used up",
    "megabytes": "the megabytes are used up",
    "interrupted": "interrupted",
    rounds.UNUSED: "no update was used",
}


def exit_code(runs: Iterable[Run]) -> int:
    """Return 1, and say why on standard error, if a run has used no update; else 0."""
    unused = [run for run in runs if run.reason == rounds.UNUSED]
    for run in unused:
        why = rounds.why_unused(run.records)
        print_error(
            f"{run.folder}: no update was used in {count(len(run.records), 'round')}: {why}"
        )
    return 1 if unused else 0


def show_end(run: Run, style: Style, console: Console) -> None:
    """Show scores, notes and facts of a run; one line if quiet, one JSON object if asked."""
    critical = run.space.critical if run.space else ()
    if style == "json":
        told = {**(read_end(run.folder) or {}), "notes": run.notes, "folder": str(run.folder)}
        typer.echo(json.dumps(told))
        return
    if style == "quiet":
        say(console, _final_line(run))
        return
    show_scores(run.scores, critical, console)
    _show_notes(run.notes, console)
    console.print()
    for label, text in _facts(run):
        say(console, Text.assemble((f"{label:<12}", "dim"), text))


def show_scores(scores: Mapping[str, Any], critical: Sequence[str], console: Console) -> None:
    """Show what there is: of the server's set, of the vehicles, of both or of none."""
    if "iou" in scores:
        console.print()
        console.print(iou_table(scores, critical))
    if "miou" in scores:
        console.print()
        for line in score_lines(scores, critical):
            console.print(Text(line))
    if scores.get("by_client"):
        console.print()
        console.print(domains_table(scores["by_client"], f"vehicle{_on(scores)}"))
    if not scores:
        console.print()
        say(console, "nothing was scored: there is neither a test set nor a held-out frame", "dim")


def _facts(run: Run) -> list[tuple[str, str]]:
    images, steps, in_a_row = effort(run.records)
    up, down = (sum(r[f"bytes_{way}"] for r in run.records) / 1e6 for way in ("up", "down"))
    return [
        (
            "stopped",
            f"after {count(len(run.records), 'round')}: {REASONS.get(run.reason, run.reason)}",
        ),
        *_which_round(run),
        ("effort", f"{images:,} images seen, {steps:,} steps ({in_a_row:,} in a row)"),
        ("traffic", f"{up:,.1f} MB up, {down:,.1f} MB down"),
        ("time", clock(run.seconds)),
        ("run folder", str(run.folder)),
        ("model", str(run.folder / "model" / "model.safetensors")),
        ("sha256", run.model_sha256),
    ]


def _stopped(run: Run) -> str:
    rounds = count(len(run.records), "round")
    return f"after {rounds}: {REASONS.get(run.reason, run.reason)}"


def _which_round(run: Run) -> list[tuple[str, str]]:
    """Say so if the scores are not the final model's: an interrupted run is not scored again."""
    scored = [r["round"] for r in run.records if "scores" in r]
    stale = run.reason == "interrupted" and scored and scored[-1] != run.records[-1]["round"]
    return [("scores", f"of round {scored[-1]}, the last one scored")] if stale else []


def _final_line(run: Run) -> str:
    scores = f"mIoU {ratio(run.miou)} critical {ratio(run.scores.get('critical_miou'))}"
    by_client = run.scores.get("by_client", {})
    if run.miou is None and by_client:
        vehicles = count(len(by_client), "vehicle") + _on(run.scores).replace("its", "their")
        scores = f"mIoU of {vehicles}: {_range_of(by_client)}"
    return (
        f"{scores}  {count(len(run.records), 'round')} ({run.reason})  "
        f"{run.folder}  sha256 {run.model_sha256}"
    )


def _on(scores: Mapping[str, Any]) -> str:
    frames = scores.get("by_client_on")
    return f", on its {frames}" if frames else ""


def _range_of(by_client: Mapping[str, Mapping[str, Any]]) -> str:
    mious = [s["miou"] for s in by_client.values() if s.get("miou") is not None]
    return f"{ratio(min(mious))} to {ratio(max(mious))}" if mious else ratio(None)


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


def show_local(runs: Mapping[str, Run], style: Style, console: Console) -> None:
    """Show what the models of vehicles that trained alone score."""
    if style == "json":
        for client, run in runs.items():
            end = read_end(run.folder) or {}
            typer.echo(json.dumps({**end, "client": client, "folder": str(run.folder)}))
        return
    if style != "quiet":
        console.print()
        console.print(_local_table(runs))
        console.print()
    say(console, _local_line(runs))


def _local_table(runs: Mapping[str, Run]) -> Table:
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
        critical_path_steps=round(sum(e[2] for e in efforts) / len(efforts)),
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
