"""What leaves a vehicle that judges: sums, read back as they were, refused where they lie."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fleetseg.errors import UpdateRejected
from fleetseg.judging.counts import Measured, Row, Rows
from fleetseg.judging.policy import make_policy
from fleetseg.judging.sums import VehicleSums, read_sums, same_frames, write_sums

POLICY = make_policy({"robustness": {"kinds": ["jpeg"]}, "calibration": {"bins": 2}})
CLASSES = 2


def rows(*domains: str, right: int = 3) -> Rows:
    conf_RCC = np.tile(np.array([[right, 5 - right], [0, 4]]), (len(domains), 1, 1))
    return Rows(tuple(Row("car-1", domain) for domain in domains), conf_RCC)


def measured(right: int = 3) -> Measured:
    clean = rows("day", "night", right=right)
    total, hits = int(clean.conf_RCC.sum()), int(np.trace(clean.total_CC))
    bins_3B = np.array([[total, 0], [hits, 0], [total, 0]])
    worse = {("jpeg", severity): rows("night", right=severity) for severity in (1, 2, 3)}
    return Measured(clean, bins_3B, worse)


def sent(**changes: Any) -> tuple[dict[str, Any], bytes]:
    header, payload = write_sums({"car-1": VehicleSums(2, measured())})
    header["judged"]["car-1"] |= changes
    return json.loads(json.dumps(header)), payload


def read(header: Any, payload: bytes) -> dict[str, VehicleSums]:
    return read_sums(header, payload, POLICY, CLASSES, 10)


def test_sums_are_read_as_they_were_written() -> None:
    both = {"a": VehicleSums(2, measured()), "b": VehicleSums(9, measured(1))}
    header, payload = write_sums(both)
    assert set(header) == {"judged"}
    assert set(header["judged"]["a"]) == {"frames", "domains", "worse"}
    told = read(json.loads(json.dumps(header)), payload)
    assert {name: sums.frames for name, sums in told.items()} == {"a": 2, "b": 9}
    for name, sums in told.items():
        one, other = sums.measured, both[name].measured
        assert (one.clean.conf_RCC == other.clean.conf_RCC).all()
        assert [r.domain for r in one.clean.rows] == ["day", "night"]
        assert (one.bins_3B == other.bins_3B).all()
        for way, part in other.worse.items():
            assert (one.worse[way].conf_RCC == part.conf_RCC).all()
            assert [r.domain for r in one.worse[way].rows] == ["night"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"frames": 11}, "count"),  # more than the operator allows
        ({"frames": True}, "count"),
        ({"frames": 0}, "count"),
        ({"domains": ["day"]}, "malformed"),  # another size
        ({"domains": ["day", "day"]}, "malformed"),
        ({"domains": ["day", "ni\nght"]}, "malformed"),
        ({"domains": "ab"}, "malformed"),
        ({"worse": ["fog"]}, "malformed"),
        ({"worse": ["day", "night"]}, "malformed"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UpdateRejected) as refused:
        read(*sent(**changes))
    assert refused.value.reason == reason


def at(place: int, value: int) -> Callable[[np.ndarray], None]:
    def put(values_V: np.ndarray) -> None:
        values_V[place] = value

    return put


@pytest.mark.parametrize(
    "lie",
    [
        at(0, -1),
        at(0, 1 << 61),  # four of them would wrap around
        at(0, 4),  # bins that do not add up
        at(8, 17),  # the same of a bin
        at(10, 100),  # more right than there are pixels
        at(12, 1 << 40),  # more confidence than 1
        at(14, 2),  # another truth in one severity
    ],
)
def test_counts_that_no_frames_can_give_are_refused(lie: Callable[[np.ndarray], None]) -> None:
    header, payload = sent()
    values_V = np.frombuffer(payload, "<i8").copy()
    lie(values_V)
    with pytest.raises(UpdateRejected) as refused:
        read(header, values_V.astype("<i8").tobytes())
    assert refused.value.reason == "count"


@pytest.mark.parametrize("header", [{}, {"judged": {}}, {"judged": [1]}, {"judged": {"": {}}},
                                    {"judged": {"a": 3}}, {"judged": {"a\n": {}}}])  # fmt: skip
def test_what_is_no_message_is_refused(header: Any) -> None:
    with pytest.raises(UpdateRejected):
        read(header, b"")


def test_models_compare_on_the_same_truth_only() -> None:
    assert same_frames(measured(), measured(1))
    assert not same_frames(measured(), Measured(rows("day"), measured().bins_3B, {}))
    other = measured()
    other.clean.conf_RCC[0, 1, 1] += 1
    assert not same_frames(measured(), other)
