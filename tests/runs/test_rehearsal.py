"""A dry run: what a run would start with, or what it would stop with; nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleetseg.errors import ConfigError, FleetSegError
from fleetseg.experiment_file import make_experiment
from fleetseg.runs.rehearsal import rehearse

PAINTED = {"cities": ["amber"], "conditions": ["day"], "frames_per_drive": 2}


def experiment(tmp_path: Path, **training: object) -> dict[str, object]:
    return {
        "data": {
            "size": [64, 96], "sources": [PAINTED], "cache": str(tmp_path / "cache"),
            "evaluation": [{**PAINTED, "split": "val"}],
        },
        "training": {"batch_size": 2, **training},
    }  # fmt: skip


def test_it_says_what_a_run_starts_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = rehearse(make_experiment(experiment(tmp_path)))
    assert (found.clients, found.images, found.scored) == (1, 2, 2)
    assert found.parameters > 1_000_000
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_it_stops_where_a_run_would(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'prox'"):
        rehearse(make_experiment(experiment(tmp_path, objective="proxx")))
    fields = experiment(tmp_path) | {"partition": {"kind": "iid", "clients": 9}}
    with pytest.raises(FleetSegError, match="9"):
        rehearse(make_experiment(fields))
