"""Options of `fleetseg server` that no other command has."""

from __future__ import annotations

from typing import Annotated

import typer

MetricsPort = Annotated[
    int,
    typer.Option(
        "--metrics-port",
        min=0,
        max=65535,
        metavar="PORT",
        help="Answer /metrics (Prometheus) and /healthz on this port of 127.0.0.1; 0 = off.",
    ),
]
