"""The command line as a module: `python -m fleetseg.cli`."""

from __future__ import annotations

from fleetseg.cli import main

main()
