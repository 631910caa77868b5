"""`fleetseg demo`: a small fleet, its two baselines and a picture, in three minutes."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from fleetseg.clients import FleetData, open_fleet_data
from fleetseg.config import Experiment
from fleetseg.console import INTERRUPTED, clock, print_line, ratio, stderr_console, stdout_console
from fleetseg.console.live import Heading, watching
from fleetseg.console.progress import reading
from fleetseg.console.report import end_with_page
from fleetseg.console.run import asked_words, fleet_words, output_style
from fleetseg.console.signals import interruptible
from fleetseg.console.tables import comparison_table, score_lines
from fleetseg.errors import CheckpointError
from fleetseg.experiment_file import make_experiment
from fleetseg.federation.rounds import Watcher
from fleetseg.report.page import FILE
from fleetseg.runs import baselines
from fleetseg.runs.compare import compared_run, local_scores, mean_run
from fleetseg.runs.concurrency import concurrency
from fleetseg.runs.demo import ALONE, FIELDS, draw_predictions, run_alone
from fleetseg.runs.folder import has_run
from fleetseg.runs.lock import new_run_folder, owning
from fleetseg.runs.run import Run, run_experiment

STORY = (
    "Every vehicle drives through one painted city in one weather and keeps its pictures. Each "
    "round it trains the shared model on them and sends back only how the weights changed, and "
    "the server averages the changes. All models are scored on the same unseen drives."
)
CUT_SHORT = (
    "This machine is slow or busy: runs were cut short to end in three minutes, and the figures "
    "are lower than they could be."
)


class _Interrupted(Exception):
    """Ctrl-C during one of the runs."""


@dataclass(frozen=True)
class _Stage:
    """Where the demo prints and writes."""

    console: Console
    folder: Path

    def watch(
        self, experiment: Experiment, title: str, at_a_time: int
    ) -> AbstractContextManager[Watcher]:
        return watching(
            output_style(self.console, as_json=False, quiet=False),
            self.console,
            heading=lambda: Heading(title, at_a_time),
            total_rounds=experiment.federation.rounds,
        )

    def head(self, text: str) -> None:
        self.console.print()
        self.console.print(Rule(Text(text, "bold"), align="left", style="dim"))


def run_demo(out: Path | None, fields: Mapping[str, Any] = FIELDS) -> int:
    """Run the demo in a folder; return the exit code.

    Raises:
        CheckpointError: the folder already holds a demo.
    """
    started_s = time.monotonic()
    folder = out or new_run_folder("demo")
    if has_run(folder / "federated"):
        raise CheckpointError(
            "this folder already holds a demo", where=folder, cure="Choose another --out"
        )
    stage = _Stage(stdout_console(), folder)
    with interruptible(), owning(folder):
        try:
            experiment, fleet_data = _introduce(stage, fields)
            federated = _federated(stage, experiment, fleet_data)
            equal = baselines.at_equal_images(experiment, fleet_data, federated.records)
            centralised = _centralised(stage, equal, fleet_data)
            alone = _alone(stage, experiment, fleet_data)
            _compare(stage, federated, centralised, alone, fleet_data)
        except (KeyboardInterrupt, _Interrupted):
            print_line(stderr_console(), f"interrupted; what was done so far is in {folder}")
            return INTERRUPTED
    end_with_page(
        [folder / "federated", folder / "centralised", folder / "local"],
        stage.console,
        out=folder / FILE,
    )
    print_line(stage.console, f"took        {clock(time.monotonic() - started_s)}")
    for label, command in zip(("next", "", ""), _next(folder), strict=True):
        print_line(stage.console, f"{label:<12}{command}")
    return 0


def _next(folder: Path) -> tuple[str, str, str]:
    """Suggest next steps: the user's own images, a street photo, more rounds of this run."""
    federated = shlex.quote(str(folder / "federated"))
    again = shlex.quote(str(folder / "federated" / "experiment.toml"))
    return (
        "fleetseg init YOUR_FOLDER     # your own images and masks",
        f"fleetseg predict {federated} STREET.png --out seen --overlay",
        f"fleetseg run {again} --set federation.rounds=60 --set stop.minutes=0",
    )


def _introduce(stage: _Stage, fields: Mapping[str, Any]) -> tuple[Experiment, FleetData]:
    experiment = make_experiment(fields)
    print_line(stage.console, Text("fleetseg demo: a fleet learns to see the street", "bold"))
    stage.console.print(Text(STORY))
    with reading(stderr_console(), verb="painting") as progress:
        fleet_data = open_fleet_data(experiment, progress)
    return experiment, fleet_data


def _federated(stage: _Stage, experiment: Experiment, fleet_data: FleetData) -> Run:
    stage.head("1  federated: the pictures stay in the vehicles")
    assert fleet_data.manifest is not None
    asked = asked_words(experiment.federation.cohort, len(fleet_data.clients))
    title = f"{fleet_words(fleet_data.manifest)} · {asked} · {experiment.model.name}"
    at_a_time = concurrency(experiment, len(fleet_data.clients))
    with stage.watch(experiment, title, at_a_time) as watcher:
        return _whole(
            run_experiment(experiment, fleet_data, stage.folder / "federated", watcher=watcher)
        )


def _centralised(stage: _Stage, experiment: Experiment, fleet_data: FleetData) -> Run:
    stage.head("2  centralised: all pictures in one place, equally many seen")
    pooled, one = baselines.centralised(experiment, fleet_data)
    with stage.watch(pooled, f"all pictures pooled · {experiment.model.name}", 1) as watcher:
        return _whole(run_experiment(pooled, one, stage.folder / "centralised", watcher=watcher))


def _alone(stage: _Stage, experiment: Experiment, fleet_data: FleetData) -> dict[str, Run]:
    fleet = len(fleet_data.clients)
    stage.head(f"3  local only: {min(ALONE, fleet)} of the {fleet} vehicles, each on its own")
    runs = {}
    # These rounds need no line each.
    for name, run in run_alone(experiment, fleet_data, stage.folder / "local"):
        runs[name] = _whole(run)
        print_line(stage.console, f"{name:<24} mIoU {ratio(run.miou)}  in {clock(run.seconds)}")
    return runs


def _whole(run: Run) -> Run:
    if run.reason == "interrupted":
        raise _Interrupted
    return run


def _fields(run: Run) -> dict[str, Any]:
    return run.scores.to_dict() if run.scores else {}


def _compare(
    stage: _Stage, federated: Run, centralised: Run, alone: dict[str, Run], fleet_data: FleetData
) -> None:
    stage.head("the three compared, on the same unseen drives")
    rows = [
        mean_run(f"a vehicle alone (mean of {len(alone)})", list(alone.values())),
        compared_run("federated", federated),
        compared_run("centralised", centralised),
    ]
    stage.console.print(comparison_table(rows))
    stage.console.print()
    for line in score_lines(_fields(federated), fleet_data.space.critical)[:1]:
        stage.console.print(Text(line, "dim"))
    if "time" in (federated.reason, centralised.reason):
        stage.console.print(Text(CUT_SHORT, "yellow"))
    stage.console.print()
    if fleet_data.evaluation:
        scored = local_scores(alone)
        best = scored.best_client if scored else next(iter(alone))
        models = {f"alone: {best}": alone[best], "federated": federated, "centralised": centralised}
        picture = stage.folder / "predictions.png"
        draw_predictions(models, fleet_data, picture)
        print_line(stage.console, f"pictures    {picture}")
    print_line(
        stage.console, f"run folders {', '.join(str(r.folder) for r in (federated, centralised))}"
    )
    print_line(stage.console, f"the model   {federated.folder / 'model' / 'model.safetensors'}")
