"""`fleetseg norm-banks`: statistics of norm layers for each condition, into a model's folder."""

from __future__ import annotations

from pathlib import Path

from fleetseg.config import SourceConfig
from fleetseg.console import count, print_line, stderr_console, stdout_console
from fleetseg.console.progress import reading
from fleetseg.models.norm_banks import BANKS
from fleetseg.runs.norm_banks import fill_norm_banks


def fill_and_show(model: Path, frames: SourceConfig, by: str) -> None:
    """Fill a model's banks, and print the conditions and their image counts."""
    with reading(stderr_console()) as progress:
        banks = fill_norm_banks(model, frames, by=by, progress=progress)
    console = stdout_console()
    for name, number in banks.images.items():
        print_line(console, f"{name}: {count(number, 'image')}")
    print_line(console, f"{count(len(banks.images), 'bank')} of {banks.filled_from}, in {BANKS}")
