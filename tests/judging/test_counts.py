"""Counts by row: they add up, and go together below each other."""

from __future__ import annotations

import numpy as np

from fleetseg.judging.counts import Measured, Row, Rows, by_domain_only, joined

ROWS = Rows(
    (Row("a", "day", "d1"), Row("b", "night", "d1"), Row("c", "day", "d2")),
    np.arange(12, dtype=np.int64).reshape(3, 2, 2),
)


def measured(rows: Rows) -> Measured:
    worse = {("fog", severity): rows for severity in (1, 2, 3)}
    return Measured(rows, np.ones((3, 4), np.int64), worse)


def test_totals_and_domains() -> None:
    assert ROWS.total_CC.tolist() == [[0 + 4 + 8, 1 + 5 + 9], [2 + 6 + 10, 3 + 7 + 11]]
    assert ROWS.domains == ("day", "night")
    assert [row.name for row in ROWS.of_domain("day").rows] == ["a", "c"]
    assert ROWS.of_domain("day").total_CC.tolist() == [[8, 10], [12, 14]]


def test_severities_of_a_kind_add_row_by_row() -> None:
    assert (measured(ROWS).worse_of("fog").conf_RCC == 3 * ROWS.conf_RCC).all()


def test_what_leaves_a_vehicle_has_neither_frames_nor_drives() -> None:
    sums = by_domain_only(ROWS, "car")
    assert sums.rows == (Row("car", "day"), Row("car", "night"))
    assert (sums.total_CC == ROWS.total_CC).all()


def test_vehicles_stand_below_each_other() -> None:
    both = joined([measured(by_domain_only(ROWS, name)) for name in ("car", "bus")])
    assert [row.name for row in both.clean.rows] == ["car", "car", "bus", "bus"]
    assert (both.clean.total_CC == 2 * ROWS.total_CC).all()
    assert (both.bins_3B == 2).all()
    assert len(both.worse["fog", 3]) == 4
