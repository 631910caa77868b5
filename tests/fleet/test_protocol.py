"""What is said between server and vehicles, and that nothing else gets through."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fleetseg.config import DataConfig, Experiment, ModelConfig, PartitionConfig, SourceConfig
from fleetseg.data.labels import LABEL_SPACES, label_space
from fleetseg.errors import UpdateRejected
from fleetseg.experiment_file import make_experiment_from_text
from fleetseg.federation.messages import Enrolment, Evaluation, Failure
from fleetseg.fleet.protocol import (
    experiment_for_vehicles,
    labels_digest,
    read_enrolments,
    read_evaluation,
    read_failure,
    write_enrolments,
    write_evaluation,
    write_failure,
)

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)
FIELDS = ("client_id", "num_images", "num_pixels", "histogram_C", "abstains", "num_test_pixels")
CAR = Enrolment("car-1", 4, 10, (7, 3), "", 5)


def arrived(value: Any) -> Any:
    return json.loads(json.dumps(value))


# Failures


def test_failures_arrive_as_they_were_written() -> None:
    told = arrived(write_failure("abstained", "data", "no labels"))
    assert read_failure("car-1", told) == Failure("car-1", "abstained", "data", "no labels")
    assert read_failure("car-1", {"update": 3}) is None


def test_long_texts_are_cut() -> None:
    assert len(write_failure("lost", "x", "y" * 10_000)["failure"][2]) == 500
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


# Enrolments


def test_enrolments_arrive_as_they_were_written() -> None:
    enrolled = {"a": replace(CAR, client_id="a"), "b": Enrolment("b", 0, 0, (0, 0), "no labels")}
    assert read_enrolments(arrived(write_enrolments(enrolled)), 2) == enrolled


@given(json_values)
@example([])
@example([[]])
@example(["abcdef"])
@example({"client_id": "x"})
def test_any_list_of_enrolments_is_read_or_refused(told: Any) -> None:
    with contextlib.suppress(UpdateRejected):
        read_enrolments(told, 2)


honest = st.fixed_dictionaries(
    {
        "client_id": st.text(min_size=1, max_size=5),
        "num_images": st.integers(1, 9),
        "num_pixels": st.just(10),
        "histogram_C": st.just([7, 3]),
    },
    optional={"abstains": st.text(max_size=3), "num_test_pixels": st.integers(0, 9)},
)


@settings(max_examples=300, deadline=None)
@given(
    honest,
    st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=2),
    st.sets(st.sampled_from([*FIELDS, "x"]), max_size=1),
)
def test_an_enrolment_that_is_read_is_one(
    fields: dict[str, Any], changed: dict[str, Any], gone: set[str]
) -> None:
    told = {k: v for k, v in {**fields, **changed}.items() if k not in gone}
    with contextlib.suppress(UpdateRejected):
        ((name, enrolment),) = read_enrolments([told], 2).items()
        assert name == enrolment.client_id
        assert isinstance(name, str)
        assert 0 < len(name) <= 500
        assert len(enrolment.histogram_C) == 2
        assert sum(enrolment.histogram_C) == enrolment.num_pixels
        counts = (enrolment.num_images, enrolment.num_pixels, enrolment.num_test_pixels)
        assert all(type(n) is int and 0 <= n < 1 << 53 for n in (*counts, *enrolment.histogram_C))
        assert enrolment.abstains or enrolment.num_images


@pytest.mark.parametrize(
    "told", [None, [], {}, "car", [None], [7], ["x"], [[]], [{}], [{"histogram_C": 7}]], ids=repr
)
def test_no_enrolments(told: Any) -> None:
    with pytest.raises(UpdateRejected) as caught:
        read_enrolments(told, 2)
    assert caught.value.reason == "malformed"


def test_unknown_missing_and_too_many() -> None:
    (fields,) = write_enrolments({"car-1": CAR})
    wrong = [
        [{**fields, "path": "/data"}],
        [{k: v for k, v in fields.items() if k != "num_images"}],
        [fields] * 10_001,
    ]
    for told in wrong:
        with pytest.raises(UpdateRejected) as caught:
            read_enrolments(told, 2)
        assert caught.value.reason == "malformed"


def test_one_name_twice_is_refused() -> None:
    with pytest.raises(UpdateRejected):
        read_enrolments(write_enrolments({"a": CAR, "b": replace(CAR, num_images=9)}), 2)


# Evaluations


def test_evaluations_arrive_as_they_were_written() -> None:
    confs = {"rain": np.array([[5, 1], [0, 2**40]]), "": np.zeros((2, 2), np.int64)}
    read = read_evaluation("car-1", arrived(write_evaluation(Evaluation(7, "x", confs))), 2)
    assert (read.round, read.client_id) == (7, "car-1")  # whoever sent it, not who it says
    assert read.conf_by_domain.keys() == confs.keys()
    for domain, conf_CC in confs.items():
        assert read.conf_by_domain[domain].dtype == np.int64
        assert np.array_equal(read.conf_by_domain[domain], conf_CC)


rows = st.lists(st.lists(st.integers(-1, 2**63) | json_values, max_size=3), max_size=3)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.text(max_size=4), rows | json_values, max_size=3) | json_values,
    st.integers() | json_values,
)
@example({"rain": [[1, 2**62], [0, 0]]}, 1)
@example({"rain": [[True, 1], [0, 0]]}, 1)
@example({"rain": [[1.0, 1], [0, 0]]}, 1)
@example({"rain": [[1, 1], [0]]}, 1)
@example({"rain": [[1, 1], [0, 0]]}, True)
def test_an_evaluation_that_is_read_is_one(confs: Any, round_: Any) -> None:
    with contextlib.suppress(UpdateRejected):
        read = read_evaluation("car-1", {"confs": confs, "round": round_}, 2)
        assert type(read.round) is int
        for conf_CC in read.conf_by_domain.values():
            assert conf_CC.shape == (2, 2)
            assert conf_CC.dtype == np.int64
            assert conf_CC.min() >= 0


@pytest.mark.parametrize(
    "conf",
    [
        [[1, 2**62], [0, 0]],
        [[True, 1], [0, 0]],
        [[1.0, 1], [0, 0]],
        [[1, 1], [0]],
        [[1, 1]],
        [[-1, 1], [0, 0]],
        [],
        None,
        "conf",
    ],
    ids=repr,
)
def test_what_is_no_matrix_of_counts(conf: Any) -> None:
    with pytest.raises(UpdateRejected) as caught:
        read_evaluation("car-1", {"confs": {"rain": conf}, "round": 1}, 2)
    assert caught.value.reason == "shape"


@pytest.mark.parametrize("header", [{}, {"confs": {}}, {"confs": [], "round": 1}], ids=repr)
def test_what_is_no_evaluation(header: dict[str, Any]) -> None:
    with pytest.raises(UpdateRejected) as caught:
        read_evaluation("car-1", header, 2)
    assert caught.value.reason == "malformed"


# What vehicles are told


def test_vehicles_are_told_how_to_train_and_no_path() -> None:
    secret = "/home/operator/secret"
    experiment = Experiment(
        seed=7,
        data=DataConfig(
            label_space="camvid11",
            size=(64, 96),
            cache=secret,
            sources=(SourceConfig(kind="camvid", root=secret),),
            evaluation=(SourceConfig(kind="camvid", root=secret, split="val"),),
        ),
        model=ModelConfig(name="bisenetv2", pretrained="imagenet", start=secret),
        partition=PartitionConfig(kind="file", file=secret, holdout=0.25),
    )
    text = experiment_for_vehicles(experiment)
    assert secret not in text
    assert "imagenet" not in text
    read = make_experiment_from_text(text, where="a message")
    for section in ("training", "federation", "evaluation", "engine", "seed", "name"):
        assert getattr(read, section) == getattr(experiment, section)
    assert (read.data.label_space, read.data.size) == ("camvid11", (64, 96))
    assert read.data.sources == read.data.evaluation == ()
    assert read.partition == PartitionConfig(holdout=0.25)
    assert read.model == ModelConfig(name="bisenetv2")


def test_the_text_for_vehicles_is_the_same_whatever_the_server_s_folders() -> None:
    def told(root: str) -> str:
        data = DataConfig(sources=(SourceConfig(root=root),), cache=root)
        return experiment_for_vehicles(Experiment(data=data))

    assert told("/a") == told("/b")


def test_the_digest_of_labels_sees_names_order_and_what_is_critical() -> None:
    space = label_space("camvid11")
    others = [
        replace(space, name="camvid"),
        replace(space, classes=space.classes[::-1]),
        replace(space, critical=space.critical[1:]),
    ]
    digests = {labels_digest(s) for s in (space, *others)}
    assert len(digests) == 4
    assert labels_digest(replace(space)) == labels_digest(space)
    assert len({labels_digest(s) for s in LABEL_SPACES.values()}) == len(LABEL_SPACES)


# Texts that are shown to the operator


@pytest.mark.parametrize("text", ["\ud800", "\x1b[31m", "a\nb", "\x00"], ids=ascii)
def test_a_failure_s_texts_can_be_printed(text: str) -> None:
    read = read_failure("car-1", {"failure": ["lost", text, text]})
    assert read is not None
    assert read.reason.isprintable()
    assert read.detail.isprintable()


@pytest.mark.parametrize("text", ["\ud800", "\x1b[31m", "a\nb"], ids=ascii)
def test_names_that_cannot_be_printed_are_refused(text: str) -> None:
    for changed in (replace(CAR, client_id=f"car-1/{text}"), replace(CAR, abstains=text)):
        with pytest.raises(UpdateRejected):
            read_enrolments(write_enrolments({"a": changed}), 2)
