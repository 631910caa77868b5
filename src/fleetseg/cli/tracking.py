"""The option --track, shared by several commands."""

from __future__ import annotations

import json
from typing import Annotated

import typer

Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track", metavar="NAME", show_default=False,
        help="Also send figures to tensorboard, wandb, mlflow or trackio; repeatable.",
    ),
]  # fmt: skip


def tracking(track: list[str] | None) -> list[str]:
    """Return --track as an override of an experiment, if it was given.

    >>> tracking(["tensorboard"]), tracking(None)
    (['tracking.to=["tensorboard"]'], [])
    """
    return [f"tracking.to={json.dumps(track)}"] if track else []
