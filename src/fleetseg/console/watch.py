"""`fleetseg watch`: the live page of a run, until Ctrl-C."""

from __future__ import annotations

import time
from pathlib import Path

from fleetseg.console import print_line, stdout_console
from fleetseg.console.signals import interruptible
from fleetseg.fleet.nvflare.provision import read_fleet
from fleetseg.report.page import jinja
from fleetseg.watching.page import LivePage
from fleetseg.watching.server import serving_page
from fleetseg.watching.state import require_run

_LOOK_S = 1.0


def watch_and_show(run: Path, fleet: Path | None, port: int) -> None:
    """Serve the page and repeat its status line in the terminal; Ctrl-C ends it.

    Raises:
        CheckpointError, ConfigError, MissingExtra: there is no such run or fleet, the port is
            taken, jinja2 is not installed.
    """
    jinja()
    require_run(run)
    if fleet is not None:
        read_fleet(fleet)
    console, told = stdout_console(), ""
    page = LivePage(run, fleet)
    with interruptible(), serving_page(page, port) as address:
        print_line(console, f"watching {run} at {address}  (Ctrl-C ends)")
        try:
            while True:
                if (sentence := page.state().sentence) != told:
                    told = sentence
                    print_line(console, told, "dim")
                time.sleep(_LOOK_S)
        except KeyboardInterrupt:
            return
