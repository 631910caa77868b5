"""What is pasted is what was meant: signs of CSV, Markdown and LaTeX in names are text."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from tests.records import SPACE, conf
from tests.run_folders import run_folder, with_protocol

import fleetseg
from fleetseg.evaluation.scored import Scored
from fleetseg.runs.comparison import Comparison
from fleetseg.runs.comparison_files import to_csv, to_latex, to_markdown
from fleetseg.runs.comparison_tables import tables_of

NAMES = ['a,"b"', r"50% of_\x & $1^{2}~#", "a|b*"]
"""Of drives: whatever folders may be called."""


@pytest.fixture
def odd(tmp_path: Path) -> Comparison:
    for seed, best in enumerate((0.5, 0.75)):
        domains = {name: conf(best - 0.1 * at) for at, name in enumerate(NAMES)}
        one = Scored(SPACE, domains, ("test",)).with_clients({NAMES[0]: conf(0.5)}, "x")
        run_folder(tmp_path / f"{seed}", [with_protocol(one)], seed=seed, name="a_1")
    run_folder(tmp_path / "other", [0.9], name="b")
    return fleetseg.compare(tmp_path)


def test_csv_has_every_figure_unrounded(odd: Comparison) -> None:
    one, other = csv.DictReader(io.StringIO(to_csv(odd)))
    (row, _) = odd.rows
    assert (one["name"], one["n"], one["seeds"], one["last_rounds"]) == ("a_1", "2", "0 1", "1")
    assert row.miou is not None
    assert (float(one["miou"]), float(one["miou_std"])) == (row.miou.mean, row.miou.std)
    for name in NAMES:
        found = row.by_domain[name]
        assert found is not None
        assert float(one[f"domain:{name}"]) == found.mean
    assert (one["worst_client"], one[f"client:{NAMES[0]}"]) == (NAMES[0], "0.5")
    assert (one["worst_critical_class"], float(one["iou:car"])) == ("car", row.iou["car"].mean)  # type: ignore[union-attr]
    assert (other["miou_std"], other["worst_client"], other["worst_client_miou"]) == ("", "", "")
    assert {float(each["steps"]) for each in (one, other)} == {4.0}
    assert "label resolution" in one["protocol"]


def test_markdown(odd: Comparison) -> None:
    lines = to_markdown(odd).splitlines()
    assert lines[:2] == [
        "| scores | n | mIoU | critical mIoU | worst critical class | worst vehicle |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    assert lines[2].startswith(r"| a\_1 | 2 | ")
    assert "| **0.900** |" in lines[3]
    (domains,) = (line for line in lines if line.startswith("| mIoU of each domain"))
    assert r"a\|b\*" in domains
    tables = [line for line in lines if line.startswith("|")]
    # Scores, cost, two classes and four domains: the signs of names make no columns.
    assert {line.replace(r"\|", "").count("|") for line in tables} == {7, 8, 4, 6}


def test_latex(odd: Comparison) -> None:
    text = to_latex(odd)
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert r"50\% of\_\textbackslash{}x \& \$1\textasciicircum{}\{2\}\textasciitilde{}\#" in body
    assert r"a\_1 & 2 & " in body
    assert r" $\pm$ " in body
    assert r"\textbf{0.900}" in body
    assert body.count(r"\toprule") == body.count(r"\bottomrule") == len(tables_of(odd))
    for table, block in zip(tables_of(odd), body.split(r"\begin{tabular}")[1:], strict=True):
        rows = [line for line in block.splitlines() if line.endswith(r"\\")]
        assert len(rows) == 1 + len(table.rows)
        assert {row.replace(r"\&", "").count("&") for row in rows} == {len(table.heads) - 1}


def test_only_what_is_best_is_marked(odd: Comparison) -> None:
    scores, *_ = tables_of(odd)
    assert scores.best == {(1, 2), (1, 3)}
