"""`fleetseg watch`: a run in a browser while it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleetseg.cli import options as o
from fleetseg.console import reports_errors
from fleetseg.hosts import given_path

WatchedRun = Annotated[
    Path, typer.Argument(metavar="RUN", help="The run folder.", parser=given_path)
]
WatchedFleet = Annotated[
    Path | None,
    typer.Option(
        "--fleet", metavar="DIR", help="Also show this fleet's vehicles.", show_default=False,
        parser=given_path,
    ),
]  # fmt: skip
WatchPort = Annotated[
    int, typer.Option("--port", min=0, max=65535, help="Port on this machine; 0 = any free one.")
]


@reports_errors
def watch(
    run: WatchedRun, fleet: WatchedFleet = None, port: WatchPort = 8765, debug: o.Debug = False
) -> None:
    """Show the report page of a run while it trains, in a browser on this machine.

    The page updates itself and stays when the run ends. It is served on 127.0.0.1 only; from
    another machine: ssh -L 8765:127.0.0.1:8765 HOST.

    \b
    Examples:
      fleetseg watch runs/camvid
      fleetseg watch runs/fleet --fleet fleet --port 9000
    """  # noqa: D301
    from fleetseg.console.watch import watch_and_show

    watch_and_show(run, fleet, port)
