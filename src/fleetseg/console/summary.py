"""The end of a run: scores, effort, traffic, and the location of its files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fleetseg.console import clock, count, print_error, print_line, ratio
from fleetseg.console.live import Style
from fleetseg.console.tables import (
    domains_table,
    iou_table,
    name_cell,
    personal_table,
    plain_table,
    score_lines,
)
from fleetseg.federation import rounds
from fleetseg.runs.compare import compared_run, local_scores, miou_range
from fleetseg.runs.folder import read_end
from fleetseg.runs.records import effort, last_scored_round, traffic
from fleetseg.runs.run import Run

_NOTES = 5  # notes at the end, before "and N more"
REASONS = {
    "rounds": "all rounds are done",
    "target": "the target mIoU is reached",
    "plateau": "mIoU has stopped rising",
    "collapsed": "predictions have shrunk to few classes",
    "time": "the minutes are used up",
    "megabytes": "the megabytes are used up",
    "interrupted": "interrupted",
    rounds.UNUSED: "no update was used",
}


def exit_code(runs: Iterable[Run]) -> int:
    """Return 1 if some run has used no update, with the reason on standard error; otherwise 0."""
    unused = [run for run in runs if run.reason == rounds.UNUSED]
    for run in unused:
        why = rounds.why_unused(run.records)
        print_error(
            f"{run.folder}: no update was used in {count(len(run.records), 'round')}: {why}"
        )
    return 1 if unused else 0


def show_end(run: Run, style: Style, console: Console) -> None:
    """Show scores, notes and facts of a run; one line if quiet, one JSON object if requested."""
    critical = run.space.critical if run.space else ()
    if style == "json":
        fields = {**(read_end(run.folder) or {}), "notes": run.notes, "folder": str(run.folder)}
        typer.echo(json.dumps(fields))
        return
    if style == "quiet":
        print_line(console, _final_line(run))
        return
    show_scores(run.scores.to_dict() if run.scores else {}, critical, console)
    _show_notes(run.notes, console)
    console.print()
    for label, text in _facts(run):
        print_line(console, Text.assemble((f"{label:<12}", "dim"), text))


def show_scores(scores: Mapping[str, Any], critical: Sequence[str], console: Console) -> None:
    """Show the available scores: of the server's set, of the vehicles, both or none."""
    if "iou" in scores:
        console.print()
        console.print(iou_table(scores, critical))
    if "miou" in scores:
        console.print()
        for line in score_lines(scores, critical):
            console.print(Text(line))
    if scores.get("by_client"):
        console.print()
        console.print(_vehicles_table(scores))
        if worst := _worst(scores):
            print_line(console, worst)
    if not scores:
        console.print()
        print_line(
            console, "nothing was scored: there are no test sets and no held-out frames", "dim"
        )


def _vehicles_table(scores: Mapping[str, Any]) -> Table:
    head = f"vehicle{_on(scores)}"
    if "personal" not in scores:
        return domains_table(scores["by_client"], head)
    return personal_table(scores["by_client"], scores["personal"]["by_client"], head)


def _worst(scores: Mapping[str, Any]) -> str:
    """Name the vehicle with the lowest score, for the global model and for the vehicles' own."""
    named = {
        "": scores["by_client"],
        "of its own model ": scores.get("personal", {}).get("by_client", {}),
    }
    told = []
    for what, by_client in named.items():
        mious = {name: s["miou"] for name, s in by_client.items() if s["miou"] is not None}
        if mious:
            worst = min(sorted(mious), key=lambda name: mious[name])
            told.append(f"{what}{ratio(mious[worst])} ({worst})")
    return f"worst vehicle: mIoU {', '.join(told)}" if told else ""


def _facts(run: Run) -> list[tuple[str, str]]:
    spent, sent = effort(run.records), traffic(run.records)
    up, down = sent.bytes_up / 1e6, sent.bytes_down / 1e6
    steps = f"{spent.steps:,} steps ({spent.critical_path_steps:,} in a row)"
    return [
        ("stopped", _stopped(run)),
        *_which_round(run),
        ("effort", f"{spent.images_seen:,} images seen, {steps}"),
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
    """Say which model was scored if not the final one: an interrupted run is not scored again."""
    scored = last_scored_round(run.records)
    stale = run.reason == "interrupted" and scored and scored != run.records[-1].round
    return [("scores", f"of round {scored}, the last one scored")] if stale else []


def _final_line(run: Run) -> str:
    scores = f"mIoU {ratio(run.miou)} critical {ratio(run.critical_miou)}"
    if run.miou is None and run.scores and run.scores.by_client:
        by_client, frames = run.scores.by_client, run.scores.clients_on
        vehicles = f"{count(len(by_client), 'vehicle')}, on their {frames}"
        span = miou_range(by_client)
        between = f"{ratio(span[0])} to {ratio(span[1])}" if span else ratio(None)
        scores = f"mIoU of {vehicles}: {between}"
    return (
        f"{scores}  {count(len(run.records), 'round')} ({run.reason})  "
        f"{run.folder}  sha256 {run.model_sha256}"
    )


def _on(scores: Mapping[str, Any]) -> str:
    frames = scores.get("by_client_on")
    return f", on its {frames}" if frames else ""


def _show_notes(notes: Sequence[str], console: Console) -> None:
    if not notes:
        return
    console.print()
    for note in notes[:_NOTES]:
        console.print(Text(f"note: {note}", "yellow"))
    if len(notes) > _NOTES:
        print_line(
            console, f"and {count(len(notes) - _NOTES, 'more note')}: see fleetseg partition", "dim"
        )


def show_local(runs: Mapping[str, Run], style: Style, console: Console) -> None:
    """Show the scores of models of vehicles that trained alone."""
    if style == "json":
        for client, run in runs.items():
            end = read_end(run.folder) or {}
            typer.echo(json.dumps({**end, "client": client, "folder": str(run.folder)}))
        return
    if style != "quiet":
        console.print()
        console.print(_local_table(runs))
        console.print()
    print_line(console, _local_line(runs))


def _local_table(runs: Mapping[str, Run]) -> Table:
    table = plain_table(
        "vehicle alone", "mIoU", "critical", "images seen", "steps", left=("vehicle alone",)
    )
    for client, run in runs.items():
        row = compared_run(client, run)
        table.add_row(
            name_cell(client),
            ratio(row.miou),
            ratio(row.critical_miou),
            f"{row.images_seen:,}",
            f"{row.steps:,}",
        )
    return table


def _local_line(runs: Mapping[str, Run]) -> str:
    scored = local_scores(runs)
    if scored is None:
        return f"{count(len(runs), 'vehicle')} trained alone; nothing to score on"
    return (
        f"mIoU of {count(scored.num_scored, 'vehicle')} alone: mean {ratio(scored.mean_miou)}, "
        f"best {ratio(scored.best_miou)} ({scored.best_client})"
    )
