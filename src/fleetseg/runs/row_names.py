"""Names of the rows of a comparison: their experiments' names, and what distinguishes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fleetseg.config import Experiment
from fleetseg.experiment_file import dotted

_NAMED = 4  # options in one name


def row_names(rows: Sequence[tuple[Experiment, str]]) -> list[str]:
    """Name experiments; each comes with the client that trained alone, if it is such a run.

    Rows of the same name get the options in which they differ.
    """
    plain = [_plain_name(experiment, alone) for experiment, alone in rows]
    names = []
    for name, (experiment, _) in zip(plain, rows, strict=True):
        alike = [other for other_name, (other, _) in zip(plain, rows, strict=True)
                 if other_name == name]  # fmt: skip
        names.append(name + _told_apart(experiment, alike) if len(alike) > 1 else name)
    return names


def _plain_name(experiment: Experiment, alone: str) -> str:
    kind = "centralised" if experiment.baseline.kind == "centralised" else ""
    added = f"{alone} alone" if alone else kind
    if not added or added in experiment.name:
        return experiment.name
    return f"{experiment.name}, {added}"


def _told_apart(experiment: Experiment, alike: Sequence[Experiment]) -> str:
    own = options_of(experiment)
    others = [options_of(other) for other in alike]
    differ = [
        name
        for name, value in own.items()
        if name not in ("seed", "method") and any(other.get(name) != value for other in others)
    ]
    more = [f"and {len(differ) - _NAMED} more"] if len(differ) > _NAMED else []
    words = [f"{name} = {own[name]}" for name in differ[:_NAMED]]
    return f" ({', '.join(words + more)})" if words else ""


def options_of(experiment: Experiment) -> dict[str, Any]:
    """Return an experiment's options by their dotted names."""
    return dotted(experiment.model_dump(mode="json"))
