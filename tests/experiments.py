"""A tiny fleet on disk that the engine tests train: real images, real stores, a small network."""

from __future__ import annotations

from pathlib import Path

from fleetseg.config import Experiment
from fleetseg.experiment_file import make_experiment


def tiny_experiment(cache: Path, **sections: dict[str, object]) -> Experiment:
    """Four drives of two synthetic cities, one vehicle each; a few seconds to train."""
    fields: dict[str, dict[str, object] | str] = {
        "name": "tiny",
        "data": {
            "size": [48, 64],
            "cache": str(cache),
            "sources": [{"conditions": ["day"], "frames_per_drive": 3}],
            "evaluation": [{"conditions": ["day"], "frames_per_drive": 1, "split": "val"}],
        },
        "model": {"name": "fast_scnn"},
        "training": {"batch_size": 2, "lr": 0.01},
        "federation": {"rounds": 3},
        "engine": {"kind": "inprocess", "device": "cpu", "precision": "fp32"},
        "evaluation": {"pictures": 0},  # as many as a run keeps by default take a third of its time
    }
    for name, section in sections.items():
        fields[name] = {**fields.get(name, {}), **section}  # type: ignore[dict-item]
    return make_experiment(fields)
