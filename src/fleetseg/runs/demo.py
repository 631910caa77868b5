"""The runs of the demo: a small fleet on synthetic streets, and its baselines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fleetseg.clients import FleetData
from fleetseg.config import Experiment
from fleetseg.evaluation.pictures import Row, contact_sheet
from fleetseg.evaluation.predict import predict
from fleetseg.runs import baselines
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
    # Half of the fleet per round: twice the rounds in the same time.
    "federation": {"rounds": 20, "cohort": 0.5},
    "evaluation": {"every": 5},
    # A slow machine gets a shorter demo rather than a long wait.
    "stop": {"minutes": 1.5},
}
"""The demo's experiment; its run folder holds it as a TOML file."""

ALONE = 3
"""How many vehicles train alone to show what one learns; all of them would take too long."""


def run_alone(
    experiment: Experiment, fleet_data: FleetData, folder: Path
) -> Iterator[tuple[str, Run]]:
    """Train some of the vehicles, each on its own, in a folder named after it."""
    chosen = spread(list(fleet_data.clients), ALONE)
    for name, alone, own in baselines.local_only(experiment, fleet_data):
        if name in chosen:
            yield name, run_experiment(alone, own, folder / name)


def draw_predictions(
    runs: Mapping[str, Run], fleet_data: FleetData, path: Path, frames: int = 4
) -> None:
    """Draw test frames of several domains, with the truth and each run's prediction beside them."""
    part = fleet_data.evaluation[0]
    first_of = {domain: i for i, domain in reversed(list(enumerate(part.scored.domains)))}
    chosen = spread(sorted(first_of), frames)
    models = {name: run.model() for name, run in runs.items()}
    rows: list[Row] = []
    for domain in chosen:
        image_HWC, label_HW = part.scored.pairs[first_of[domain]]
        size_hw = (label_HW.shape[0], label_HW.shape[1])
        preds = {name: predict(m, image_HWC[None], size_hw)[0] for name, m in models.items()}
        rows.append((image_HWC, label_HW, preds))
    contact_sheet(rows, chosen, fleet_data.space).save(path)


def spread(names: list[str], wished: int) -> list[str]:
    """Pick evenly spaced names, so that cities and weathers vary.

    >>> spread(["a", "b", "c", "d", "e"], 3)
    ['a', 'c', 'e']
    """
    number = min(wished, len(names))
    return [names[round(i * (len(names) - 1) / max(1, number - 1))] for i in range(number)]
