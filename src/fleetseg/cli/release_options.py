"""The options of `fleetseg release`, `releases` and `rollback`, each described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleetseg.cli.paths import as_path

Against = Annotated[
    Path | None,
    typer.Option(
        "--against", metavar="CURRENT", show_default=False, parser=as_path,
        help="What drives today: a run, a model folder or a registry; default: that of --models.",
    ),
]  # fmt: skip
PolicyFile = Annotated[
    Path | None,
    typer.Option(
        "--policy", metavar="POLICY.toml", show_default=False, parser=as_path,
        help="What a candidate must keep to; default: see docs/release.md.",
    ),
]  # fmt: skip
Registry = Annotated[
    Path,
    typer.Option("--models", metavar="DIR", help="The registry of releases.", parser=as_path),
]
ReleaseOn = Annotated[
    Path | None,
    typer.Option(
        "--on", metavar="EXPERIMENT.toml", show_default=False, parser=as_path,
        help="Where both are scored; default: where the run scored.",
    ),
]  # fmt: skip
OnClients = Annotated[
    bool,
    typer.Option(
        "--on-clients", help="The vehicles judge on frames they hold out; only sums leave them."
    ),
]
OnFleet = Annotated[
    Path | None,
    typer.Option(
        "--fleet", metavar="DIR", show_default=False, parser=as_path,
        help="The vehicles of this fleet judge, over the network; only sums leave them.",
    ),
]  # fmt: skip
Wait = Annotated[
    float,
    typer.Option("--wait", min=0, metavar="SECONDS", help="For vehicles that are away."),
]
Number = Annotated[
    int | None,
    typer.Argument(
        min=1, metavar="[NUMBER]", show_default=False, help="Which release; default: the current."
    ),
]  # fmt: skip
ReleaseOut = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", show_default=False, parser=as_path,
        help="Where release.json and the page go; default: RUN/release.",
    ),
]  # fmt: skip
JudgeOnly = Annotated[
    bool, typer.Option("--dry-run", help="Judge, and put nothing into the registry.")
]
To = Annotated[
    int | None,
    typer.Option(
        "--to", min=1, metavar="NUMBER", show_default=False,
        help="Which release; default: the one before.",
    ),
]  # fmt: skip
