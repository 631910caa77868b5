"""A round's record is a value: written as a line of JSON, and read back."""

from __future__ import annotations

import json

import pytest
from tests.records import SPACE, failed, record, scored

from fleetseg.federation.records import RoundRecord


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
