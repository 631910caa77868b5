"""A round's record is a value: written as a line of JSON, and read back."""

from __future__ import annotations

import json

import pytest
from tests.records import SPACE, failed, record, scored

from fleetseg.federation.records import RoundRecord
from fleetseg.federation.rounds import counted_rounds


@pytest.mark.parametrize(
    "one",
    [
        record(),
        record(2, accepted=(), loss=None, quorum=False, failures=(failed("a", "lost"),)),
        record(3, scored=scored(0.5, on="ab", missing="c")),
        record(4, unscored="no scores from a: no-answer"),
    ],
    ids=lambda one: f"round {one.round}",
)
def test_it_is_read_as_it_was_written(one: RoundRecord) -> None:
    fields = json.loads(json.dumps(one.to_dict(), allow_nan=False))
    back = RoundRecord.from_dict(fields, SPACE)
    assert back.to_dict() == one.to_dict()
    assert (back.was_scored, back.miou) == (one.was_scored, one.miou)
    assert back.failures == one.failures


def test_a_line_that_lacks_a_field_is_none() -> None:
    fields = record().to_dict()
    del fields["quorum"]
    with pytest.raises(KeyError):
        RoundRecord.from_dict(fields, SPACE)


def test_the_last_update_of_each_that_counted() -> None:
    good = record(1)
    late = record(2, accepted=("a",))
    both = ("a", "b")
    assert counted_rounds([], both) == {"a": 0, "b": 0}
    assert counted_rounds([good, late], both) == {"a": 2, "b": 1}
    assert counted_rounds([good, late, record(3)], both) == {"a": 3, "b": 3}
    assert counted_rounds([late], ["b", "new"]) == {"b": 0, "new": 0}
    # Without a quorum nobody's counted.
    missed = record(2, accepted=("a",), quorum=False)
    assert counted_rounds([good, missed], both) == {"a": 1, "b": 1}


def test_who_is_asked_again_after_a_hundred_rounds_is_told_too() -> None:
    """With a cohort of one in a hundred that is the rule; so it is if it failed in all of them."""
    others = [record(r, cohort=("a",), accepted=("a",)) for r in range(3, 130)]
    assert counted_rounds([record(1), *others], ["b"]) == {"b": 1}
    failed = [record(r, accepted=("a",)) for r in range(2, 130)]
    assert counted_rounds([record(1), *failed], ["b"]) == {"b": 1}
