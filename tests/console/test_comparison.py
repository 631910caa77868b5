"""The tables of a comparison fit the terminal, and lose no column in it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from tests.records import SPACE, conf
from tests.run_folders import run_folder, with_protocol

import fleetseg
from fleetseg.console.comparison import show_comparison
from fleetseg.evaluation.scored import Scored
from fleetseg.runs.comparison import Comparison
from fleetseg.runs.comparison_tables import tables_of


@pytest.fixture
def wide(tmp_path: Path) -> Comparison:
    for seed in (0, 1):
        domains = {f"synthetic-city{n}-night": conf(0.5 + 0.02 * n * seed) for n in range(9)}
        one = Scored(SPACE, domains, ("test",)).with_clients(
            {"synthetic-ember-day": conf(0.5)}, "x"
        )
        run_folder(tmp_path / f"{seed}", [with_protocol(one)], seed=seed, name="fedavg-" * 9 + "x")
    return fleetseg.compare(tmp_path)


@pytest.mark.parametrize("columns", [80, 100, 120])
def test_it_fits(wide: Comparison, columns: int) -> None:
    console = Console(file=io.StringIO(), width=columns)
    show_comparison(wide, console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    tables = lines[: next(at for at, line in enumerate(lines) if line.startswith("±"))]
    assert max(len(line) for line in tables) <= columns
    text = "\n".join(tables)
    for table in tables_of(wide, brief=True):
        assert [head for head in table.heads if head not in text] == []
        assert [cell for row in table.rows for cell in row[1:] if cell not in text] == []
    assert "…" not in text
