"""A history of rounds has one name, and no other history has it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.records import record

from fleetseg.errors import UpdateRejected
from fleetseg.federation.checkpoint import ServerState
from fleetseg.federation.lineage import read_counted, read_lineage, with_lineage, write_counted
from fleetseg.federation.messages import Counted
from fleetseg.federation.tensors import ModelState


def state(value: float) -> ServerState:
    return ServerState(1, ModelState(torch.tensor([value]), torch.empty(0, dtype=torch.int64)))


def test_the_same_history_has_the_same_name_whatever_it_took() -> None:
    one = with_lineage(state(1.0), record(1))
    other = with_lineage(state(1.0), record(1, seconds=99.0, bytes_up=1, training_seconds=3.0))
    assert one.lineage == other.lineage
    assert read_lineage(one.lineage) == one.lineage != ""


def test_another_model_another_cohort_another_past() -> None:
    """Whose updates are in it counts even where the model has not moved."""
    round_ = record(1)
    lineages = {
        with_lineage(state(1.0), round_).lineage,
        with_lineage(state(2.0), round_).lineage,
        with_lineage(state(1.0), replace(round_, accepted=("a",))).lineage,
        with_lineage(state(1.0), replace(round_, quorum=False)).lineage,
        with_lineage(state(1.0), replace(round_, lineage="ab" * 8)).lineage,
        with_lineage(state(1.0), replace(round_, round=2)).lineage,
    }
    assert len(lineages) == 6


@pytest.mark.parametrize("counted", [None, Counted(0), Counted(7, "0123456789abcdef")])
def test_what_counted_is_read_as_it_was_written(counted: Counted | None) -> None:
    assert read_counted(write_counted(counted)) == counted


@pytest.mark.parametrize(
    "fields",
    [
        3,
        "3",
        {},
        [],
        [1],
        [1, "", 0],
        ["1", ""],
        [True, ""],
        [1, None],
        [1, "../../../../etc/x"],
        [1, "0123456789ABCDEF"],
        [1, "0" * 15],
        [1, "0" * 17],
        [1, "0" * 16 + "\n"],
    ],
)
def test_what_is_none_is_refused(fields: Any) -> None:
    """Files are named by it."""
    with pytest.raises(UpdateRejected):
        read_counted(fields)
