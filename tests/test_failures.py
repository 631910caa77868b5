"""How a failure is written: read back as it was, and nothing else is taken for one."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from fleetseg.failures import MAX_DETAIL, FailureKind, failure_header, parse_failure


@pytest.mark.parametrize("kind", get_args(FailureKind))
def test_a_failure_is_read_as_it_was_written(kind: FailureKind) -> None:
    sent = json.loads(json.dumps(failure_header(kind, "disk", "no space left")))
    assert parse_failure(sent) == (kind, "disk", "no space left")


def test_a_long_detail_is_cut() -> None:
    read = parse_failure(failure_header("lost", "x", "y" * 10_000))
    assert read is not None
    assert len(read[2]) == MAX_DETAIL


def test_another_reply_is_no_failure() -> None:
    assert parse_failure({"update": 1}) is None


@pytest.mark.parametrize("fields", [7, [], ["lost", "x"], ["dead", "x", "y"], [["lost"], "x", "y"]])
def test_what_cannot_be_read_is_an_error(fields: Any) -> None:
    with pytest.raises(ValueError, match="not a kind, a reason and a detail"):
        parse_failure({"failure": fields})
