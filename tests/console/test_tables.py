"""Tables of scores and comparisons: what stands in them, and that they fit."""

from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from fleetseg.console.tables import (
    class_bars,
    clients_table,
    comparison_table,
    domains_table,
    iou_table,
    score_lines,
)
from fleetseg.data.labels import LabelSpace
from fleetseg.evaluation.scores import Scores
from fleetseg.runs.client_summary import ClientSummary
from fleetseg.runs.compare import ComparedRun

SPACE = LabelSpace(
    "three", ("road", "car", "train"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)), ("car", "train")
)
SCORES = Scores.of(np.array([[6, 2, 0], [0, 2, 0], [0, 0, 0]]), SPACE).to_dict()


def drawn(renderable: object, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_every_class_has_a_line_and_critical_ones_a_mark() -> None:
    road, car, train = drawn(iou_table(SCORES, SPACE.critical))[2:]
    assert road.split() == ["road", "0.750", "█" * 18]
    assert car.split() == ["car", "!", "0.500", "█" * 12]
    assert train.split() == ["train", "!", "–"]


def test_scores_come_with_their_convention() -> None:
    miou, critical, accuracy = score_lines(SCORES, SPACE.critical)
    assert miou == (
        "mIoU            0.625  (3 classes, dataset-level, at label resolution; "
        "classes with empty union skipped: train)"
    )
    assert critical == "critical mIoU   0.500  ! car, train"
    assert accuracy == "pixel accuracy  0.800"


def test_seen_and_unseen_domains_are_told_apart() -> None:
    (noted,) = score_lines({**SCORES, "norms": "domain of batches of 8"}, SPACE.critical)[3:]
    assert noted == "batch norms     with statistics: domain of batches of 8"
    assert len(score_lines({**SCORES, "norms": "running"}, SPACE.critical)) == 3
    lines = score_lines({**SCORES, "seen": 0.7, "unseen": 0.6}, SPACE.critical)
    assert lines[-1] == "mIoU on domains seen 0.700, unseen 0.600  in training"


def test_clusters_are_told_with_what_the_model_of_each_scores() -> None:
    of = {"a": 0, "b": 1, "c": 0}
    clusters = {"headline": "the mean", "of": of, "by_cluster": [{"miou": 0.5}, {"miou": None}]}
    lines = score_lines({**SCORES, "clusters": clusters}, SPACE.critical)[3:]
    assert lines == [
        "clusters        2, of 2, 1 vehicles; scored is the mean",
        "mIoU of each    0.500, –  on all of these frames",
    ]
    lines = score_lines({**SCORES, "clusters": {**clusters, "by_cluster": []}}, SPACE.critical)[3:]
    assert lines == ["clusters        2, of 2, 1 vehicles; scored is the mean"]


def test_domains_with_long_names_do_not_break_the_table() -> None:
    lines = drawn(domains_table({"x" * 200: SCORES}))
    assert len(lines) == 3
    assert lines[2].split()[1:] == ["0.625", "0.500", "0.800", "10"]


def test_bars_compare_with_the_richest_vehicle() -> None:
    bars = class_bars([0.5, 0.01, 0.0], [0.5, 0.08, 0.2], SPACE)
    assert bars.plain == "█▂·"


def test_what_vehicles_hold() -> None:
    clients = [
        ClientSummary("a", 12, 0, 0, ("d1", "d2", "d3", "d4", "d5"), 2_500_000, (10, 0, 0), ""),
        ClientSummary("b", 0, 3, 0, (), 0, (0, 0, 0), "no usable labelled sample"),
    ]
    head, _, first, second = drawn(clients_table(clients, SPACE))
    assert "held out" not in head
    assert first.split() == ["a", "12", "0", "2.50", "█··", "d1,", "d2,", "d3", "+2"]
    assert second.split() == ["b", "0", "3", "0.00", "···"]


def test_a_comparison() -> None:
    rows = [
        ComparedRun("federated", 0.5, None, 1200, 300, 30),
        ComparedRun("alone", 0.25, 0.1, None, None, None),
    ]
    _, _, federated, alone = drawn(comparison_table(rows))
    assert federated.split() == ["federated", "0.500", "–", "1,200", "300", "30"]
    assert alone.split() == ["alone", "0.250", "0.100"]


def test_the_best_is_bold_by_its_figure_and_not_by_its_name() -> None:
    rows = [
        ComparedRun("federated", 0.5, 0.2, None, None, None),
        ComparedRun("centralised", 0.6, None, None, None, None),
        ComparedRun("alone", 0.5999, 0.1, None, None, None),  # as good, as printed
    ]
    table = comparison_table(rows)
    bold = [[cell.style == "bold" for cell in column._cells] for column in table.columns[:3]]
    assert bold == [[False] * 3, [False, True, True], [True, False, False]]
