"""A run folder as a value: `read_run`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleetseg.config import Experiment
from fleetseg.data.labels import LabelSpace
from fleetseg.data.partition.manifest import Manifest
from fleetseg.data.sources import folder as own_classes
from fleetseg.data.spaces import open_space
from fleetseg.errors import CheckpointError, FleetSegError
from fleetseg.federation.records import RoundRecord
from fleetseg.own_data import CLASSES
from fleetseg.runs.figures import Spread, last_scored, spread
from fleetseg.runs.folder import (
    has_run,
    read_end,
    read_experiment,
    read_record,
    read_records,
)
from fleetseg.runs.records import RunEnd


@dataclass(frozen=True)
class RunReport:
    """The contents of a run folder, finished or not."""

    path: Path
    experiment: Experiment
    space: LabelSpace
    environment: Mapping[str, Any]  # versions and machine at the start
    manifest: Manifest | None  # None where the data were Python objects, or on other machines
    rounds: tuple[RoundRecord, ...]
    end: RunEnd | None  # None for an unfinished run

    def last_rounds(self, number: int) -> Spread | None:
        """Mean and deviation of the mIoU over the last scored rounds; None if there are too few."""
        scored = last_scored(self.rounds, number)
        return None if scored is None else spread([one.miou for one in scored])


def read_run(path: Path) -> RunReport:
    """Read a run folder; its run may be in progress, or have been killed.

    Raises:
        CheckpointError: it is not a run folder, or a file in it is damaged.
    """
    if not has_run(path):
        raise CheckpointError(
            "no experiment.toml: not a run folder", where=path, cure="Give the --out of a run"
        )
    experiment, space = read_experiment(path), _space(path)
    manifest = path / "manifest.json"
    end = read_end(path)
    return RunReport(
        path=path,
        experiment=experiment,
        space=space,
        environment=_environment(path / "environment.json"),
        manifest=Manifest.read(manifest) if manifest.is_file() else None,
        rounds=tuple(
            read_record(fields, space, path / "rounds.jsonl") for fields in read_records(path)
        ),
        end=None if end is None else _end(end, space, path / "rounds.jsonl"),
    )


def _space(path: Path) -> LabelSpace:
    """Return the label space of a run: as recorded, or as its experiment names it."""
    recorded = path / CLASSES
    return (
        own_classes.read_space(recorded)
        if recorded.is_file()
        else open_space(read_experiment(path).data)
    )


def _environment(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot be read ({error})", where=path) from None
    return fields if isinstance(fields, dict) else {}


def _end(fields: Mapping[str, Any], space: LabelSpace, where: Path) -> RunEnd:
    try:
        return RunEnd.from_dict(fields, space)
    except (KeyError, TypeError, ValueError, AttributeError, FleetSegError) as error:
        raise CheckpointError(f"a last line that is none ({error})", where=where) from None
