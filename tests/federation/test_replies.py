"""Replies as they cross a pipe or a network, and that nothing else gets through."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fleetseg.errors import UpdateRejected
from fleetseg.federation.messages import Evaluation, Failure
from fleetseg.federation.replies import read_evaluation, read_failure, write_failure, write_reply
from fleetseg.fleet.sockets import MAX_REPLY_HEADER

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)


def arrived(value: Any) -> Any:
    return json.loads(json.dumps(value))


# Failures


def test_failures_arrive_as_they_were_written() -> None:
    told = arrived(write_failure(Failure("car-1", "abstained", "data", "no labels")))
    assert read_failure("car-1", told) == Failure("car-1", "abstained", "data", "no labels")
    assert read_failure("car-1", {"update": 3}) is None


def test_long_texts_are_cut() -> None:
    assert len(write_failure(Failure("car-1", "lost", "x", "y" * 10_000))["failure"][2]) == 500
    read = read_failure("car-1", {"failure": ["lost", "r" * 999, "d" * 9999]})
    assert read is not None
    assert (len(read.reason), len(read.detail)) == (40, 500)


@given(json_values)
def test_any_failure_becomes_one_of_four_kinds_in_short_words(told: Any) -> None:
    read = read_failure("car-1", {"failure": told})
    if told is None:
        assert read is None
        return
    assert read is not None
    assert read.client_id == "car-1"
    assert read.kind in ("late", "refused", "lost", "abstained")
    assert isinstance(read.reason, str)
    assert isinstance(read.detail, str)
    assert len(read.reason) <= 40
    assert len(read.detail) <= 500


@given(st.tuples(st.sampled_from(["late", "lost"]), json_values, json_values).map(list))
def test_a_failure_s_texts_may_be_anything(told: list[Any]) -> None:
    read = read_failure("car-1", {"failure": told})
    assert read is not None
    assert read.kind == told[0]


@pytest.mark.parametrize("text", ["\ud800", "\x1b[31m", "a\nb", "\x00"], ids=ascii)
def test_a_failure_s_texts_can_be_printed(text: str) -> None:
    read = read_failure("car-1", {"failure": ["lost", text, text]})
    assert read is not None
    assert read.reason.isprintable()
    assert read.detail.isprintable()


# Evaluations


def bytes_of(*confs: Any) -> bytes:
    return b"".join(np.array(conf, "<i8").tobytes() for conf in confs)


def test_evaluations_arrive_as_they_were_written() -> None:
    confs = {"rain": np.array([[5, 1], [0, 2**40]]), "": np.zeros((2, 2), np.int64)}
    written = Evaluation(7, "x", confs)
    header, payload = write_reply(written)
    assert payload == bytes_of(*confs.values())
    assert len(payload) == written.num_bytes
    read = read_evaluation("car-1", arrived(header), payload, 2)
    assert (read.round, read.client_id) == (7, "car-1")  # whoever sent it, not who it says
    assert read.conf_by_domain.keys() == confs.keys()
    for domain, conf_CC in confs.items():
        assert read.conf_by_domain[domain].dtype == np.int64
        assert np.array_equal(read.conf_by_domain[domain], conf_CC)


def test_many_domains_of_many_classes_fit_the_header_of_a_reply() -> None:
    """As text in the header they were longer than one may be."""
    confs = {f"street {k}": np.full((64, 64), 10**9 + k) for k in range(200)}
    header, payload = write_reply(Evaluation(1, "x", confs))
    assert len(json.dumps(header)) < MAX_REPLY_HEADER
    read = read_evaluation("car-1", header, payload, 64)
    assert int(read.conf_by_domain["street 199"][63, 63]) == 10**9 + 199


def test_without_a_domain_there_are_no_bytes() -> None:
    header, payload = write_reply(Evaluation(1, "x", {}))
    assert payload == b""
    assert read_evaluation("car-1", header, payload, 2).conf_by_domain == {}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text(max_size=4) | json_values, max_size=3) | json_values,
    st.integers() | json_values,
    st.binary(max_size=70) | st.lists(st.integers(-1, 2**63 - 1), max_size=8).map(bytes_of),
)
@example(["rain"], 1, bytes_of([[1, 2**62], [0, 0]]))
@example(["rain"], True, bytes_of([[1, 1], [0, 0]]))
@example(["rain", "rain"], 1, bytes_of([[1, 1], [0, 0]]) * 2)
def test_an_evaluation_that_is_read_is_one(domains: Any, round_: Any, payload: bytes) -> None:
    with contextlib.suppress(UpdateRejected):
        read = read_evaluation("car-1", {"confs": domains, "round": round_}, payload, 2)
        assert type(read.round) is int
        assert len(payload) == 32 * len(domains) == 32 * len(read.conf_by_domain)
        for conf_CC in read.conf_by_domain.values():
            assert conf_CC.shape == (2, 2)
            assert conf_CC.dtype == np.int64
            assert conf_CC.min() >= 0


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (bytes_of([[1, 2**62], [0, 0]]), "count"),
        (bytes_of([[-1, 1], [0, 0]]), "count"),
        (bytes_of([1, 1, 0]), "shape"),
        (bytes_of([1, 1, 0, 0, 0]), "shape"),
        (bytes_of([1, 1, 0, 0])[:-1], "shape"),
        (b"", "shape"),
    ],
    ids=repr,
)
def test_what_is_no_matrix_of_counts(payload: bytes, reason: str) -> None:
    with pytest.raises(UpdateRejected) as caught:
        read_evaluation("car-1", {"confs": ["rain"], "round": 1}, payload, 2)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "header",
    [{}, {"confs": []}, {"confs": {}, "round": 1}, {"confs": ["a", "a"], "round": 1}],
    ids=repr,
)
def test_what_is_no_evaluation(header: dict[str, Any]) -> None:
    with pytest.raises(UpdateRejected) as caught:
        read_evaluation("car-1", header, b"", 2)
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize("name", ["\x1b[2Jrain", "rain\ud800", "r" * 201, 7, None, ["rain"]])
def test_a_domain_s_name_is_short_and_can_be_printed(name: Any) -> None:
    with pytest.raises(UpdateRejected, match="a domain's name"):
        read_evaluation("car-1", {"confs": [name], "round": 1}, bytes_of([[1]]), 1)


def test_scores_have_a_few_domains() -> None:
    domains = [f"street {k}" for k in range(201)]
    with pytest.raises(UpdateRejected, match="not confusion matrices"):
        read_evaluation("car-1", {"confs": domains, "round": 1}, bytes_of([1] * 201), 1)


def test_what_a_refusal_quotes_can_be_printed() -> None:
    refused = UpdateRejected("version", "not a codec", got="\x1b]0;owned\x07\x1b[2J" + "x" * 9999)
    failure = Failure.refused("car-1", refused)
    assert failure.detail.isprintable()
    assert len(failure.detail) <= 500
