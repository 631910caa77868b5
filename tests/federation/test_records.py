"""A round's record is a value: written as a line of JSON, and read back."""

from __future__ import annotations

import json

import pytest
from tests.records import SPACE, failed, record, scored

from fleetseg.federation.records import RoundRecord
from fleetseg.federation.rounds import unused_rounds


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


def test_updates_that_did_not_count_since_the_last_that_did() -> None:
    good = record(1)
    late = record(2, accepted=("a",))
    assert unused_rounds([good, late]) == {"b": (2,)}
    assert unused_rounds([good, late, record(3, accepted=("a",))]) == {"b": (2, 3)}
    assert unused_rounds([good, late, record(3)]) == {}
    # Without a quorum nobody's counted; who was not asked has nothing to take back.
    missed = record(2, accepted=("a",), quorum=False)
    assert unused_rounds([good, missed]) == {"a": (2,), "b": (2,)}
    assert unused_rounds([good, record(2, cohort=("b",), accepted=())]) == {"b": (2,)}


def test_who_is_asked_again_after_a_hundred_rounds_is_told_too() -> None:
    """With a cohort of one in a hundred that is the rule."""
    others = [record(r, cohort=("a",), accepted=("a",)) for r in range(3, 130)]
    records = [record(1), record(2, accepted=("a",)), *others]
    assert unused_rounds(records) == {"b": (2,)}
    assert unused_rounds(records, ["b", "new"]) == {"b": (2,)}
    assert unused_rounds(records, ["a"]) == {}


def test_of_many_rounds_that_did_not_count_the_newest_are_told() -> None:
    records = [record(r, accepted=("a",)) for r in range(1, 30)]
    assert unused_rounds(records) == {"b": tuple(range(22, 30))}
