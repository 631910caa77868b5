"""`fleetseg demo`: a small fleet, its two comparisons and a picture, in three minutes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from fleetseg.clients import FleetData, open_fleet_data
from fleetseg.config import Experiment
from fleetseg.console import INTERRUPTED, clock, ratio, say, stderr_console, stdout_console
from fleetseg.console.live import watching
from fleetseg.console.progress import reading
from fleetseg.console.run import asked_words, concurrency, fleet_words, output_style
from fleetseg.console.signals import interruptible
from fleetseg.console.summary import local_row, run_row
from fleetseg.console.tables import comparison_table, score_lines
from fleetseg.errors import CheckpointError
from fleetseg.evaluation.pictures import Row as Frame
from fleetseg.evaluation.pictures import contact_sheet
from fleetseg.evaluation.predict import predict
from fleetseg.experiment_file import make_experiment
from fleetseg.federation.rounds import Watcher
from fleetseg.runs import baselines
from fleetseg.runs.folder import has_run
from fleetseg.runs.lock import new_run_folder, owning
from fleetseg.runs.run import Run, run_experiment

CITIES = ["amber", "birch", "coral", "delta"]
CONDITIONS = ["day", "rain"]
_DRIVES = {"kind": "synthetic", "cities": CITIES, "conditions": CONDITIONS}
FIELDS: dict[str, Any] = {
    "name": "demo",
    "data": {
        "size": [120, 160],
        "sources": [{**_DRIVES, "frames_per_drive": 16}],
        "evaluation": [{**_DRIVES, "split": "test", "frames_per_drive": 5}],
    },
    "model": {"name": "fast_scnn"},
    "training": {
        "optimiser": "adamw",
        "lr": 7e-3,
        "freeze_bn_after": 0.6,
        "weight_decay": 0.01,
        "optimiser_state": "kept",
        "batch_size": 4,
        "local_epochs": 2,
        "class_weights": "fleet",
        "scale": [1.0, 1.0],
    },
    # Half of the fleet at a time: twice the rounds in the same time.
    "federation": {"rounds": 20, "cohort": 0.5},
    "evaluation": {"every": 5},
    # A slow machine gets a shorter demo rather than a long wait.
    "stop": {"minutes": 1.5},
}
"""The demo's experiment; its run folder holds it as a TOML file."""

STORY = (
    "Every vehicle drives through one painted city in one weather and keeps its pictures. Each "
    "round it trains the shared model on them and sends back only how the weights changed, and "
    "the server averages the changes. All models are scored on the same unseen drives."
)
CUT_SHORT = (
    "This machine is slow or busy: runs were cut short to end in three minutes, and the figures "
    "are lower than they could be."
)
ALONE = 3
"""So many vehicles show what a vehicle learns alone; all of them would take too long."""


class _Interrupted(Exception):
    """Ctrl-C during one of the runs."""


@dataclass(frozen=True)
class _Stage:
    """Where the demo prints and writes."""

    console: Console
    folder: Path

    def watch(
        self, experiment: Experiment, title: str, concurrency_: int
    ) -> AbstractContextManager[Watcher]:
        return watching(
            output_style(self.console, as_json=False, quiet=False),
            self.console,
            title=lambda: title,
            total_rounds=experiment.federation.rounds,
            concurrency=concurrency_,
        )

    def head(self, text: str) -> None:
        self.console.print()
        self.console.print(Rule(Text(text, "bold"), align="left", style="dim"))


def run_demo(out: Path | None, fields: Mapping[str, Any] = FIELDS) -> int:
    """Run the demo into a folder; returns the exit code.

    Raises:
        CheckpointError: the folder holds a demo already.
    """
    started_s = time.monotonic()
    folder = out or new_run_folder("demo")
    if has_run(folder / "federated"):
        raise CheckpointError(
            "this folder holds a demo already", where=folder, cure="Choose another --out"
        )
    stage = _Stage(stdout_console(), folder)
    with interruptible(), owning(folder):
        try:
            experiment, fleet_data = _introduce(stage, fields)
            federated = _federated(stage, experiment, fleet_data)
            centralised = _centralised(
                stage, _at_equal_images(experiment, fleet_data, federated), fleet_data
            )
            alone = _alone(stage, experiment, fleet_data)
            _compare(stage, federated, centralised, alone, fleet_data)
        except (KeyboardInterrupt, _Interrupted):
            say(stderr_console(), f"interrupted; what was done so far is in {folder}")
            return INTERRUPTED
    say(stage.console, f"took         {clock(time.monotonic() - started_s)}")
    return 0


def _introduce(stage: _Stage, fields: Mapping[str, Any]) -> tuple[Experiment, FleetData]:
    experiment = make_experiment(fields)
    say(stage.console, Text("fleetseg demo: a fleet learns to see the street", "bold"))
    stage.console.print(Text(STORY))
    with reading(stderr_console(), verb="painting") as progress:
        fleet_data = open_fleet_data(experiment, progress)
    return experiment, fleet_data


def _federated(stage: _Stage, experiment: Experiment, fleet_data: FleetData) -> Run:
    stage.head("1  federated: the pictures stay in the vehicles")
    assert fleet_data.manifest is not None
    asked = asked_words(experiment.federation.cohort, len(fleet_data.clients))
    title = f"{fleet_words(fleet_data.manifest)} · {asked} · {experiment.model.name}"
    with stage.watch(experiment, title, concurrency(experiment)) as watcher:
        return _whole(
            run_experiment(experiment, fleet_data, stage.folder / "federated", watcher=watcher)
        )


def _at_equal_images(experiment: Experiment, fleet_data: FleetData, federated: Run) -> Experiment:
    """Give the centralised run the images that the federated one saw, even if it was cut short."""
    seen = sum(record["images_seen"] for record in federated.records)
    share = seen / baselines.federated_images(experiment, fleet_data)
    baseline = experiment.baseline.model_copy(update={"images_share": share})
    return experiment.model_copy(update={"baseline": baseline})


def _centralised(stage: _Stage, experiment: Experiment, fleet_data: FleetData) -> Run:
    stage.head("2  centralised: all pictures in one place, as many of them seen")
    pooled, one = baselines.centralised(experiment, fleet_data)
    with stage.watch(pooled, f"all pictures pooled · {experiment.model.name}", 1) as watcher:
        return _whole(run_experiment(pooled, one, stage.folder / "centralised", watcher=watcher))


def _alone(stage: _Stage, experiment: Experiment, fleet_data: FleetData) -> dict[str, Run]:
    chosen = spread(list(fleet_data.clients), ALONE)
    fleet = len(fleet_data.clients)
    stage.head(f"3  local only: {len(chosen)} of the {fleet} vehicles, each on its own")
    runs = {}
    for name, alone, own in _only(chosen, baselines.local_only(experiment, fleet_data)):
        # Nobody needs to see these rounds one by one.
        run = _whole(run_experiment(alone, own, stage.folder / "local" / name))
        runs[name] = run
        say(stage.console, f"{name:<24} mIoU {ratio(run.miou)}  in {clock(run.seconds)}")
    return runs


def _only(
    chosen: list[str], runs: Iterator[tuple[str, Experiment, FleetData]]
) -> Iterator[tuple[str, Experiment, FleetData]]:
    return (run for run in runs if run[0] in chosen)


def _whole(run: Run) -> Run:
    if run.reason == "interrupted":
        raise _Interrupted
    return run


def spread(names: list[str], wished: int) -> list[str]:
    """Take names at even distances, so that cities and weathers vary.

    >>> spread(["a", "b", "c", "d", "e"], 3)
    ['a', 'c', 'e']
    """
    number = min(wished, len(names))
    return [names[round(i * (len(names) - 1) / max(1, number - 1))] for i in range(number)]


def _compare(
    stage: _Stage, federated: Run, centralised: Run, alone: dict[str, Run], fleet_data: FleetData
) -> None:
    stage.head("the three compared, on the same unseen drives")
    rows = [
        local_row(f"a vehicle alone (mean of {len(alone)})", alone),
        run_row("federated", federated),
        run_row("centralised", centralised),
    ]
    stage.console.print(comparison_table(rows))
    stage.console.print()
    for line in score_lines(federated.scores, fleet_data.space.critical)[:1]:
        stage.console.print(Text(line, "dim"))
    if "time" in (federated.reason, centralised.reason):
        stage.console.print(Text(CUT_SHORT, "yellow"))
    stage.console.print()
    if fleet_data.evaluation:
        best = max(alone, key=lambda name: alone[name].miou or 0.0)
        models = {f"alone: {best}": alone[best], "federated": federated, "centralised": centralised}
        picture = stage.folder / "predictions.png"
        draw_predictions(models, fleet_data, picture)
        say(stage.console, f"pictures     {picture}")
    say(stage.console, f"run folders  {', '.join(str(r.folder) for r in (federated, centralised))}")
    say(stage.console, f"the model    {federated.folder / 'model' / 'model.safetensors'}")


def draw_predictions(
    runs: Mapping[str, Run], fleet_data: FleetData, path: Path, frames: int = 4
) -> None:
    """Write test frames of several domains with truth and each run's prediction beside them."""
    part = fleet_data.evaluation[0]
    first_of = {domain: i for i, domain in reversed(list(enumerate(part.scored.domains)))}
    chosen = spread(sorted(first_of), frames)
    models = {name: run.model() for name, run in runs.items()}
    rows: list[Frame] = []
    for domain in chosen:
        image_HWC, label_HW = part.scored.pairs[first_of[domain]]
        size_hw = (label_HW.shape[0], label_HW.shape[1])
        preds = {name: predict(m, image_HWC[None], size_hw)[0] for name, m in models.items()}
        rows.append((image_HWC, label_HW, preds))
    contact_sheet(rows, chosen, fleet_data.space).save(path)
